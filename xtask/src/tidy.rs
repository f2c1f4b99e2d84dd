//! Style as a test, since only tested rules hold. Each rule says what is wrong and what to do
//! instead.
//!
//! ```text
//!   git ls-files ──► files ──► rules (one Rust file each) ──┐
//!                         ├──► layers (Cargo.toml)  ────────┼──► findings, by path and line
//!                         └──► links (Markdown)  ───────────┘
//! ```
//!
//! To add a rule: a function in `rules`, a line in `rules::ALL`, and a test with a sample that
//! breaks it.

mod layers;
mod links;
mod rules;
mod source;

use std::path::Path;

use crate::map;
use crate::steps::output;

/// A text file of the repository.
pub struct File {
    /// From the repository's top, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub path: String,
    /// On which line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// Checks every file that git knows or would add.
pub fn run(root: &Path) -> Result<(), String> {
    let files = files(root)?;
    let mut findings: Vec<Finding> = files
        .iter()
        .flat_map(|file| rules::check(file).into_iter().chain(layers::check(file)))
        .chain(links::check(&files, |path| root.join(path).exists()))
        .chain(map::check(&files))
        .collect();
    findings.sort();
    for Finding { path, line, message } in &findings {
        println!("{path}:{line}: {message}");
    }
    println!("{} files, {} findings", files.len(), findings.len());
    if findings.is_empty() { Ok(()) } else { Err("see the findings above".into()) }
}

/// Every file that git knows or would add. Those that are not UTF-8 (images) have no style.
pub fn files(root: &Path) -> Result<Vec<File>, String> {
    let listed = output(root, "git", &["ls-files", "-z", "-co", "--exclude-standard"])?;
    let texts = listed.split('\0').filter(|path| !path.is_empty()).filter_map(|path| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(File { path: path.to_owned(), text })
    });
    Ok(texts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_found_and_read() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let files = files(root).unwrap();
        assert!(files.iter().any(|file| file.path == "crates/rota-core/src/lib.rs"));
        assert!(!files.iter().any(|file| file.path.starts_with("target/")));
    }
}
