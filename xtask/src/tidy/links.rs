//! Every link of every Markdown file leads to a file of the repository, and to a heading that is
//! there.

use super::{File, Finding};

/// Checks all documents together, since they link to each other's headings.
pub fn check(files: &[File], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let documents: Vec<&File> = files.iter().filter(|file| file.path.ends_with(".md")).collect();
    let mut findings = Vec::new();
    for file in &documents {
        for (line, target) in links(&file.text) {
            if let Some(message) = wrong(file, target, &documents, &exists) {
                findings.push(Finding { path: file.path.clone(), line, message });
            }
        }
    }
    findings
}

fn wrong(
    file: &File,
    target: &str,
    documents: &[&File],
    exists: &impl Fn(&str) -> bool,
) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(&file.path, path) else {
        return Some(format!("`{target}` leads out of the repository"));
    };
    if !exists(&path) {
        return Some(format!("`{target}`: there is no {path}"));
    }
    let document = documents.iter().find(|document| document.path == path)?;
    if heading.is_empty() || headings(&document.text).any(|anchor| anchor == heading) {
        return None;
    }
    Some(format!("`{target}`: {path} has no such heading"))
}

/// The path from the top of the repository, or `None` above it.
fn resolve(from: &str, path: &str) -> Option<String> {
    if path.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The targets of `[text](target)` and `[label]: target`, with their lines; not those in code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, text) in prose(text) {
        if text.starts_with('[')
            && let Some((_, target)) = text.split_once("]: ")
        {
            found.push((line, target.trim()));
        }
        let mut rest = text;
        while let Some((_, after)) = rest.split_once("](") {
            let (target, after) = after.split_once(')').unwrap_or((after, ""));
            found.push((line, target.split_whitespace().next().unwrap_or_default()));
            rest = after;
        }
    }
    // A link that stands between backquotes is text about links.
    found.retain(|(_, target)| !target.contains('`'));
    found
}

fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = prose(text).filter(|(_, line)| line.starts_with('#'));
    titles.map(|(_, line)| anchor(line.trim_start_matches('#').trim()))
}

/// As GitHub makes them: lower case, spaces become hyphens, punctuation goes.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let files = [
            File { path: "docs/a.md".into(), text: text.into() },
            File { path: "README.md".into(), text: "# Rota\n\n## A tour, in 1 minute\n".into() },
        ];
        let exists = |path: &str| ["docs/a.md", "README.md", "src/lib.rs"].contains(&path);
        check(&files, exists).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn links_to_files_that_are_not_there_are_found() {
        assert_eq!(lines("see\n[b](b.md) and [c](../src/lib.rs)"), [2]);
        assert_eq!(lines("[b]: b.md"), [1]);
        assert_eq!(lines("[up](../../x.md)"), [1]);
    }

    #[test]
    fn links_to_headings_that_are_not_there_are_found() {
        assert_eq!(lines("[t](../README.md#a-tour-in-1-minute)"), [0; 0]);
        assert_eq!(lines("[t](../README.md#another)"), [1]);
        assert_eq!(lines("# Here\n[t](#here)\n[t](#there)"), [3]);
    }

    #[test]
    fn addresses_and_code_are_left_alone() {
        assert_eq!(lines("[x](https://example.org/b.md)\n```\n[b](b.md)\n```\n"), [0; 0]);
    }
}
