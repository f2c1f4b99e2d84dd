//! What comes in from outside: licences, banned crates, sources, published advisories; the rules
//! are in `deny.toml`.
//!
//! ```text
//!   cargo-deny installed?  yes ──► cargo deny check   advisories too, if their database can be had
//!                          no  ──► the same rules, read here; advisories skipped, and said so
//! ```
//!
//! cargo-deny takes some three minutes to compile on two cores: CI installs it, nobody else has to.

mod licence;
mod rules;

use std::path::Path;
use std::process::{Command, Stdio};

use crate::steps::{cargo, output};

/// Checks all that can be checked on this machine.
pub fn run(root: &Path) -> Result<(), String> {
    let installed = Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if installed { with_cargo_deny(root) } else { without_cargo_deny(root) }
}

fn with_cargo_deny(root: &Path) -> Result<(), String> {
    cargo(root, &["deny", "check", "licenses", "bans", "sources"])?;
    match cargo(root, &["deny", "fetch", "db"]) {
        Ok(()) => cargo(root, &["deny", "check", "advisories"]),
        Err(_) => {
            skip_advisories("their database cannot be fetched from this machine");
            Ok(())
        }
    }
}

fn without_cargo_deny(root: &Path) -> Result<(), String> {
    println!("cargo-deny is not installed: checking licences, bans and sources without it");
    let path = root.join("deny.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("deny.toml: {error}"))?;
    let rules = rules::Rules::parse(&text)?;
    let metadata = output(root, "cargo", &["metadata", "--format-version", "1"])?;
    let edges = ["--target", "all", "--edges", "all", "--prefix", "none", "--format", "{p}"];
    let tree = output(root, "cargo", &[&["tree", "--workspace"], &edges[..]].concat())?;
    let packages = rules::packages(&metadata, &tree)?;
    let broken = rules.check(&packages);
    for line in &broken {
        println!("{line}");
    }
    println!("{} packages, {} findings", packages.len(), broken.len());
    skip_advisories("cargo-deny is not installed (`cargo install cargo-deny --locked`)");
    if broken.is_empty() { Ok(()) } else { Err("see the findings above".into()) }
}

/// Nobody should believe that this was checked.
fn skip_advisories(why: &str) {
    println!("!!!");
    println!("!!! SKIPPED: known vulnerabilities (advisories) were NOT checked:");
    println!("!!! {why}");
    println!("!!!");
}
