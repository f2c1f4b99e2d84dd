//! Rules about one source file: its size, its opening, its words, and what it may not do where it
//! stands.

use super::source::{code, is_word, test_lines, words};
use super::{File, Finding};

/// A file without its tests has one purpose that fits into a head.
const LINES_WITHOUT_TESTS: usize = 800;
/// With tests: beyond this, the tests become a file of their own.
const LINES_WITH_TESTS: usize = 900;
/// Two windows fit side by side.
const LINE_LENGTH: usize = 100;

/// Words that say nothing about what a thing is. (Split, so that this file passes its own check.)
const EMPTY_WORDS: [&str; 10] = [
    "manager", "handler", "service", "util", "utils", "helper", "helpers", "common", "info", "misc",
];
/// Notes to oneself: finish it, or say in the documents that it is not there.
const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
/// Code that is not there.
const HOLES: [&str; 2] = [concat!("todo", "!"), concat!("unimplemented", "!")];
/// Where `unsafe` may stand, each block with its argument.
const UNSAFE_PLACES: [&str; 2] = ["crates/rota-hash/", "crates/rota-store/src/sqlite"];
/// What rota-core may not even name, so that the same inputs give the same outputs.
const IMPURE: [&str; 10] = [
    "HashMap",
    "HashSet",
    "RandomState",
    "SystemTime",
    "thread_rng",
    "println",
    "eprintln",
    "dbg",
    "tokio",
    "getrandom",
];
/// Parts of the standard library that rota-core may not use.
const IMPURE_STD: [&str; 5] = ["fs", "net", "thread", "env", "process"];

/// A source file, read once for all rules.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
    /// As long as `text`, comments and literals blank.
    code: String,
    tests: Vec<bool>,
}

type Found = Vec<(usize, String)>;
type Rule = fn(&Source) -> Found;

const RUST_RULES: [Rule; 9] = [
    size,
    line_length,
    opening,
    notes,
    holes,
    names,
    unsafe_places,
    core_is_pure,
    no_sleep_in_tests,
];
const OTHER_RULES: [Rule; 1] = [notes];

/// Everything that one file's text breaks.
pub fn check(file: &File) -> Vec<Finding> {
    let rules: &[Rule] = if file.path.ends_with(".rs") {
        &RUST_RULES
    } else if [".md", ".toml", ".sh", ".ci/run"].iter().any(|end| file.path.ends_with(end)) {
        &OTHER_RULES
    } else {
        &[]
    };
    let code = code(&file.text);
    let tests = test_lines(&file.path, &code);
    let source = Source { path: &file.path, text: &file.text, code, tests };
    let found = rules.iter().flat_map(|rule| rule(&source));
    found.map(|(line, message)| Finding { path: file.path.clone(), line, message }).collect()
}

fn size(source: &Source) -> Found {
    let all = source.text.lines().count();
    let tests = source.tests.iter().filter(|&&test| test).count();
    if all > LINES_WITH_TESTS {
        vec![(1, format!("{all} lines, at most {LINES_WITH_TESTS}: split it by purpose"))]
    } else if all - tests > LINES_WITHOUT_TESTS {
        let lines = all - tests;
        vec![(
            1,
            format!(
                "{lines} lines without tests, at most {LINES_WITHOUT_TESTS}: split it by purpose"
            ),
        )]
    } else {
        vec![]
    }
}

/// An address cannot be broken; all else can.
fn line_length(source: &Source) -> Found {
    let lines = source.text.lines().enumerate();
    lines
        .map(|(index, line)| (index + 1, line, line.chars().count()))
        .filter(|(_, line, length)| *length > LINE_LENGTH && !line.contains("://"))
        .map(|(line, _, length)| (line, format!("{length} characters, at most {LINE_LENGTH}")))
        .collect()
}

fn opening(source: &Source) -> Found {
    if source.text.starts_with("//!") {
        return vec![];
    }
    vec![(1, "a file opens with `//!`: what it is for, where it stands in the nine steps".into())]
}

fn notes(source: &Source) -> Found {
    let lines = source.text.lines().enumerate();
    lines
        .flat_map(|(index, line)| words(line).map(move |(_, word)| (index + 1, word)))
        .filter(|(_, word)| NOTES.contains(word))
        .map(|(line, word)| {
            (line, format!("`{word}`: do it, or say in the documents what is missing"))
        })
        .collect()
}

fn holes(source: &Source) -> Found {
    let ignored = concat!("#[ig", "nore");
    let mut found = Found::new();
    for (index, (line, text)) in source.code.lines().zip(source.text.lines()).enumerate() {
        if let Some(hole) = HOLES.iter().find(|hole| line.contains(**hole)) {
            found.push((index + 1, format!("`{hole}`: code that is not there")));
        }
        let untested =
            text.trim_start().starts_with("//") && text.contains("```") && text.contains("ignore");
        if line.contains(ignored) || untested {
            found.push((index + 1, "a test that never runs: mend it or take it out".into()));
        }
    }
    found
}

fn names(source: &Source) -> Found {
    let mut found = Found::new();
    let file = source.path.rsplit('/').next().unwrap_or_default();
    if let Some(word) = empty_word(file.trim_end_matches(".rs")) {
        found.push((1, format!("a file named `{file}`: `{word}` does not say what is in it")));
    }
    let mut before = (0, "");
    for (at, word) in words(&source.code) {
        if declares(&source.code, before)
            && let Some(empty) = empty_word(word)
        {
            let message = format!("`{word}`: `{empty}` does not say what it is");
            found.push((line_of(&source.code, at), message));
        }
        before = (at, word);
    }
    found
}

/// Whether this keyword is followed by a name that is ours to choose. An indented `type` stands in
/// an `impl` of somebody else's trait, who chose it.
fn declares(code: &str, (at, keyword): (usize, &str)) -> bool {
    match keyword {
        "struct" | "enum" | "trait" | "union" | "mod" => true,
        "type" => !code[..at].ends_with("    "),
        _ => false,
    }
}

/// `QueryHandler` and `query_handler` are both two words.
fn empty_word(name: &str) -> Option<&'static str> {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    EMPTY_WORDS
        .into_iter()
        .find(|empty| snake.split(|c| !is_word(c) || c == '_').any(|part| part == *empty))
}

fn unsafe_places(source: &Source) -> Found {
    if UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return vec![];
    }
    let message = format!("`unsafe` stands in {} only", UNSAFE_PLACES.join(" and "));
    let places = words(&source.code).filter(|(_, word)| *word == "unsafe");
    places.map(|(at, _)| (line_of(&source.code, at), message.clone())).collect()
}

/// Also in its tests: a test that depends on a hash map's order fails on another day than it was
/// written.
fn core_is_pure(source: &Source) -> Found {
    if !source.path.starts_with("crates/rota-core/") {
        return vec![];
    }
    let message = |what: &str| {
        format!("`{what}` in rota-core, which does no I/O and owns no clock, thread or chance")
    };
    let named = words(&source.code)
        .filter(|(_, word)| IMPURE.contains(word))
        .map(|(at, word)| (line_of(&source.code, at), message(word)));
    let from_std = source.code.match_indices("std::").flat_map(|(at, _)| {
        let line = line_of(&source.code, at);
        let path = std_path(&source.code[at..]);
        let clock = path.contains(&"time") && path.contains(&"Instant");
        let module = path.iter().find(|part| IMPURE_STD.contains(part)).copied();
        module.or(clock.then_some("Instant")).map(|what| (line, message(&format!("std::{what}"))))
    });
    named.chain(from_std).collect()
}

/// The names in `std::a::b` or `std::{a, b::{c, d}}`, up to where the path ends.
fn std_path(code: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let end = code.find(|c: char| {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                return false;
            }
            _ => {}
        }
        let inside = depth > 0 && (c.is_whitespace() || c == ',' || c == '{' || c == '*');
        !(inside || c == ':' || is_word(c))
    });
    words(&code[..end.unwrap_or(code.len())]).map(|(_, word)| word).collect()
}

fn no_sleep_in_tests(source: &Source) -> Found {
    let calls = words(&source.code)
        .filter(|(at, word)| {
            matches!(*word, "sleep" | "sleep_ms" | "sleep_until")
                && source.code[at + word.len()..].starts_with('(')
        })
        .map(|(at, _)| line_of(&source.code, at));
    let tests = calls.filter(|line| source.tests.get(line - 1).copied().unwrap_or(false));
    tests.map(|line| (line, "a sleep in a test: wait for the event".into())).collect()
}

fn line_of(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "//! For a test.\n";

    /// The lines on which something is found.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        let file = File { path: path.into(), text: text.into() };
        check(&file).into_iter().map(|finding| finding.line).collect()
    }

    #[track_caller]
    fn bad(path: &str, body: &str) {
        assert_eq!(lines(path, &format!("{DOC}{body}")), [2], "{body}");
    }

    #[track_caller]
    fn good(path: &str, body: &str) {
        assert_eq!(lines(path, &format!("{DOC}{body}")), [0; 0], "{body}");
    }

    #[test]
    fn long_files_are_found_and_tests_do_not_count_among_the_800() {
        let lines_of_code = |count: usize| "fn a() {}\n".repeat(count);
        let tests =
            |count: usize| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines_of_code(count));
        assert_eq!(lines("a.rs", &format!("{DOC}{}", lines_of_code(800))), [1]);
        assert_eq!(lines("a.rs", &format!("{DOC}{}{}", lines_of_code(790), tests(50))), [0; 0]);
        assert_eq!(lines("a.rs", &format!("{DOC}{}{}", lines_of_code(500), tests(500))), [1]);
    }

    #[test]
    fn long_lines_are_found_but_for_addresses() {
        bad("a.rs", &format!("// {}", "ä".repeat(98)));
        good("a.rs", &format!("// {}", "ä".repeat(97)));
        good("a.rs", &format!("// https://{}", "a".repeat(98)));
    }

    #[test]
    fn a_file_without_an_opening_is_found() {
        assert_eq!(lines("a.rs", "// For a test.\nfn a() {}\n"), [1]);
        assert_eq!(lines("a.md", "no opening\n"), [0; 0]);
    }

    #[test]
    fn notes_to_oneself_are_found_in_code_and_documents() {
        for note in NOTES {
            bad("a.rs", &format!("// {note}: more"));
            bad("a.md", &format!("{note}(me) more"));
            bad(".ci/run", &format!("# {note}"));
        }
        good("a.rs", &format!("// {}LIST", NOTES[0]));
    }

    #[test]
    fn holes_and_tests_that_never_run_are_found() {
        for hole in HOLES {
            bad("a.rs", &format!("fn a() {{ {hole}() }}"));
        }
        bad("a.rs", concat!("#[ig", "nore = \"slow\"]"));
        bad("a.rs", concat!("/// ``", "`ignore"));
        good("a.rs", &format!("// it has no {}()", HOLES[0]));
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        bad("a.rs", "struct QueryManager;");
        bad("a.rs", "mod store_utils {}");
        bad("a.rs", "pub trait Helper {}");
        good("a.rs", "impl SimpleQueryHandler for Session {}");
        bad("a.rs", "pub type Helper = u8;");
        good("a.rs", "impl A for B {\n    type ConnectionHandler = C;\n}");
        good("a.rs", "struct Commonest;");
        assert_eq!(lines("crates/a/src/common.rs", DOC), [1]);
        assert_eq!(lines("crates/a/src/block_helpers.rs", DOC), [1]);
    }

    #[test]
    fn unsafe_is_found_where_it_may_not_stand() {
        let block = "fn a() { unsafe { b() } }";
        bad("crates/rota-core/src/a.rs", block);
        bad("crates/rota-store/src/apply.rs", block);
        good("crates/rota-store/src/sqlite.rs", block);
        good("crates/rota-hash/src/lanes.rs", block);
        good("crates/rota-node/src/a.rs", "#![deny(unsafe_code)] // unsafe");
    }

    #[test]
    fn impurity_is_found_in_core_and_in_core_only() {
        for body in [
            "fn a() { std::fs::read(b) }",
            "use std::net::IpAddr;",
            "use std::thread;",
            "use std::{collections::BTreeMap, env};",
            "use std::time::{Duration, Instant};",
            "fn a() { std::time::Instant::now() }",
            "use std::time::SystemTime;",
            "use std::collections::{BTreeMap, HashMap};",
            "fn a() { println!(\"x\") }",
        ] {
            bad("crates/rota-core/src/a.rs", body);
            good("crates/rota-node/src/a.rs", body);
        }
        good("crates/rota-core/src/a.rs", "use crate::time::Instant; use std::time::Duration;");
        good("crates/rota-core/src/a.rs", "// no HashMap, no std::fs");
        good("crates/rota-core/src/a.rs", "use std::sync::Arc; fn process(net: u8) {}");
    }

    #[test]
    fn sleeps_are_found_in_tests_and_in_tests_only() {
        let call = "fn a() { std::thread::sleep(b) }";
        bad("crates/rota-node/tests/a.rs", call);
        good("crates/rota-node/src/a.rs", call);
        let inner = format!("{DOC}#[cfg(test)]\nmod tests {{\n{call}\n}}\n");
        assert_eq!(lines("crates/rota-node/src/a.rs", &inner), [4]);
    }
}
