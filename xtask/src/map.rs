//! The map in ARCHITECTURE.md: each source file with the first sentence of its opening, so that the
//! map is never older than the files. `cargo xtask map` writes it, `cargo xtask tidy` compares.
//!
//! ```text
//!   <!-- map crates/rota-core/src -->
//!   - `block.rs`: A block: whose turn it was, …         written here
//!   <!-- end of map -->
//! ```

use std::path::Path;

use crate::tidy::{File, Finding, files};

const PATH: &str = "ARCHITECTURE.md";
const START: &str = "<!-- map ";
const END: &str = "<!-- end of map -->";
/// How wide the documents are.
const WIDTH: usize = 118;

/// Writes the map anew.
pub fn run(root: &Path) -> Result<(), String> {
    let files = files(root)?;
    let document = files.iter().find(|file| file.path == PATH).ok_or("no ARCHITECTURE.md")?;
    let text = refreshed(&document.text, &files);
    std::fs::write(root.join(PATH), text).map_err(|error| format!("{PATH}: {error}"))
}

/// A finding if the map is not what the files say.
pub fn check(files: &[File]) -> Option<Finding> {
    let document = files.iter().find(|file| file.path == PATH)?;
    let fresh = refreshed(&document.text, files);
    let mut pairs = document.text.lines().zip(fresh.lines());
    let line = 1 + pairs.position(|(old, new)| old != new).unwrap_or(0);
    let message = "the map differs from the files' openings: cargo xtask map".into();
    (fresh != document.text).then_some(Finding { path: PATH.into(), line, message })
}

fn refreshed(document: &str, files: &[File]) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in document.lines() {
        if line == END {
            inside = false;
        }
        if !inside {
            text.push_str(line);
            text.push('\n');
        }
        if let Some(folder) = line.strip_prefix(START).and_then(|rest| rest.strip_suffix(" -->")) {
            text.push_str(&entries(folder, files));
            inside = true;
        }
    }
    text
}

/// A line for each source file of a folder: the crate's root first, each file before its folder.
fn entries(folder: &str, files: &[File]) -> String {
    let mut entries: Vec<(bool, String, String)> = files
        .iter()
        .filter_map(|file| {
            let path = file.path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".rs")?;
            let entry = wrapped(&format!("- `{path}.rs`: {}", first_sentence(&file.text)));
            let below_root = !["lib", "main"].contains(&path);
            Some((below_root, path.trim_end_matches("/mod").to_owned(), entry))
        })
        .collect();
    entries.sort();
    entries.into_iter().map(|(_, _, entry)| entry).collect()
}

fn first_sentence(text: &str) -> String {
    let opening = text.lines().map_while(|line| line.strip_prefix("//!").map(str::trim));
    let paragraph: Vec<&str> =
        opening.take_while(|line| !line.is_empty() && !line.starts_with("```")).collect();
    let paragraph = without_links(&paragraph.join(" "));
    let ends = paragraph.match_indices(". ").map(|(at, _)| at);
    let is_end = |at: &usize| !paragraph[at + 2..].starts_with(char::is_lowercase);
    let end = ends.into_iter().find(is_end).unwrap_or(paragraph.len());
    paragraph[..end].trim_end_matches(['.', ':']).to_owned()
}

/// `[x](y)` and `[x]` become `x`: rustdoc's targets mean nothing here.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        let (label, after) = after.split_once(']').unwrap_or((after, ""));
        plain.push_str(label);
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    plain + rest
}

fn wrapped(entry: &str) -> String {
    let mut text = String::new();
    let mut width = 0;
    for word in entry.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            text.push_str("\n  ");
            width = 2;
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(document: &str) -> Vec<File> {
        [
            (PATH, document),
            ("a/src/tree/leaf.rs", "//! A leaf. More.\n"),
            ("a/src/tree.rs", "//! What [`grows`](crate::x), e.g. slowly,\n//! here: all of it.\n"),
            ("a/src/lib.rs", "//! The root\n//!\n//! and more.\n"),
            ("b/src/lib.rs", "//! Elsewhere.\n"),
        ]
        .map(|(path, text)| File { path: path.into(), text: text.into() })
        .into()
    }

    const FRESH: &str = "# Map\n<!-- map a/src -->\n- `lib.rs`: The root\n\
        - `tree.rs`: What `grows`, e.g. slowly, here: all of it\n- `tree/leaf.rs`: A leaf\n\
        <!-- end of map -->\nEnd\n";

    #[test]
    fn a_map_that_lags_behind_the_files_is_found_and_mended() {
        let old = "# Map\n<!-- map a/src -->\n- `gone.rs`: Gone\n<!-- end of map -->\nEnd\n";
        assert_eq!(check(&tree(old)).map(|finding| finding.line), Some(3));
        assert_eq!(refreshed(old, &tree(old)), FRESH);
    }

    #[test]
    fn a_map_that_says_what_the_files_say_is_left_alone() {
        assert_eq!(check(&tree(FRESH)), None);
    }

    #[test]
    fn long_entries_go_on_below_their_text() {
        assert_eq!(
            wrapped(&format!("- {} b", "a".repeat(115))),
            format!("- {}\n  b\n", "a".repeat(115))
        );
    }
}
