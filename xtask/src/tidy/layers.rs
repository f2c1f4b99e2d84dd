//! Which crate may import which: one crate per import rule, so the rule can be read off its
//! `Cargo.toml`.
//!
//! ```text
//!               rota
//!              /    \
//!        rota-node  rota-sim      never each other
//!              \    /
//!            rota-store
//!                |
//!            rota-core            pure: outside crates by name only
//!                |
//!            rota-hash
//! ```

use toml::{Table, Value};

use super::{File, Finding};

/// What each crate may import of ours. A crate that is not here has no place in the picture.
const OURS: [(&str, &[&str]); 7] = [
    ("rota-hash", &[]),
    ("rota-core", &["rota-hash"]),
    ("rota-store", &["rota-hash", "rota-core"]),
    ("rota-node", &["rota-hash", "rota-core", "rota-store"]),
    ("rota-sim", &["rota-hash", "rota-core", "rota-store"]),
    ("rota", &["rota-hash", "rota-core", "rota-store", "rota-node", "rota-sim"]),
    ("xtask", &[]),
];
/// What rota-core may import from outside: none of it does I/O, reads a clock or draws randomness
/// by itself. One exception changes nothing: `raft` draws its time-outs, from a range with one
/// number in it (`consensus/raft`). `slog` is there to be told that it shall say nothing.
const CORE_MAY: [&str; 9] = [
    "bitcoin",
    "borsh",
    "ed25519-consensus",
    "hex",
    "raft",
    "rand_core",
    "serde",
    "slog",
    "thiserror",
];
/// What would make rota-store asynchronous or let it reach the network.
const STORE_MAY_NOT: [&str; 6] = ["tokio", "futures", "async-trait", "libp2p", "axum", "pgwire"];

/// Programs that use the database by its protocols only: a workspace of their own, which imports
/// nothing of ours.
const CLIENTS: &str = "clients/";

/// Checks one manifest; any other file breaks nothing.
pub fn check(file: &File) -> Vec<Finding> {
    if !file.path.ends_with("Cargo.toml") || file.path.starts_with(CLIENTS) {
        return vec![];
    }
    let finding = |(line, message)| Finding { path: file.path.clone(), line, message };
    match file.text.parse::<Table>() {
        Ok(manifest) => wrong(&manifest, &file.text).into_iter().map(finding).collect(),
        Err(error) => vec![finding((1, error.to_string()))],
    }
}

fn wrong(manifest: &Table, text: &str) -> Vec<(usize, String)> {
    let package = manifest.get("package").and_then(|package| package.get("name"));
    let Some(name) = package.and_then(Value::as_str) else {
        return vec![]; // the workspace's own manifest imports nothing
    };
    let Some((_, may)) = OURS.iter().find(|(ours, _)| *ours == name) else {
        return vec![(
            1,
            format!("`{name}` has no place in the layers: crates exist for import rules"),
        )];
    };
    let mut wrong = Vec::new();
    for (section, dependency) in dependencies(manifest) {
        let ours = OURS.iter().any(|(ours, _)| *ours == dependency);
        let shipped = section != "dev-dependencies";
        let why = if ours && !may.contains(&dependency) {
            "stands above it or beside it"
        } else if name == "rota-core" && shipped && !ours && !CORE_MAY.contains(&dependency) {
            "is not on the list of crates known to be pure"
        } else if name == "rota-store" && STORE_MAY_NOT.contains(&dependency) {
            "has no place where all is blocking and local"
        } else {
            continue;
        };
        let line =
            text.lines().position(|line| line.starts_with(dependency)).map_or(1, |at| at + 1);
        wrong.push((line, format!("`{name}` may not import `{dependency}`, which {why}")));
    }
    wrong
}

/// Every dependency of every section, those for one platform included.
fn dependencies(manifest: &Table) -> Vec<(&str, &str)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let for_targets =
        targets.into_iter().flat_map(|targets| targets.values().filter_map(Value::as_table));
    let mut found = Vec::new();
    for table in std::iter::once(manifest).chain(for_targets) {
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let names =
                table.get(section).and_then(Value::as_table).into_iter().flat_map(Table::keys);
            found.extend(names.map(|name| (section, name.as_str())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str, rest: &str) -> Vec<usize> {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        let findings = check(&File { path: format!("crates/{name}/Cargo.toml"), text });
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn imports_upwards_and_sideways_are_found() {
        assert_eq!(lines("rota-core", "[dependencies]\nrota-store.workspace = true\n"), [4]);
        assert_eq!(lines("rota-node", "[dependencies]\nrota-sim.workspace = true\n"), [4]);
        assert_eq!(lines("rota-sim", "[dev-dependencies]\nrota-node.workspace = true\n"), [4]);
        assert_eq!(
            lines("rota-hash", "[target.'cfg(unix)'.dependencies]\nrota-core = \"1\"\n"),
            [4]
        );
        assert_eq!(lines("rota", "[dependencies]\nrota-sim.workspace = true\n"), [0; 0]);
        assert_eq!(lines("rota-node", "[dependencies]\nrota-store.workspace = true\n"), [0; 0]);
    }

    #[test]
    fn crates_that_would_spoil_core_or_store_are_found() {
        assert_eq!(lines("rota-core", "[dependencies]\nserde = \"1\"\ntokio = \"1\"\n"), [5]);
        assert_eq!(lines("rota-store", "[dependencies]\ntokio = \"1\"\n"), [4]);
        assert_eq!(lines("rota-core", "[dev-dependencies]\nrand_chacha = \"1\"\n"), [0; 0]);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(lines("rota-extras", ""), [1]);
    }
}
