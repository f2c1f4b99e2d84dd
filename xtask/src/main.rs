//! `cargo xtask`: the checks that every change passes, the same ones here and in CI.
//!
//! ```text
//!   cargo xtask check                fmt, tidy, deny, clippy, tests; what failed, at the end
//!   cargo xtask check --skip-tests   the same without the tests, for whoever has just run them
//!   cargo xtask tidy                 our own rules only: a second
//!   cargo xtask deny                 licences, bans, sources, advisories only
//!   cargo xtask map                  writes the map in ARCHITECTURE.md anew
//! ```

mod deny;
mod map;
mod steps;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use steps::{Steps, cargo};

const USAGE: &str = "usage: cargo xtask check [--skip-tests] | tidy | deny | map";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let mut steps = Steps::default();
    match arguments.as_slice() {
        ["check"] => check(&mut steps, &root, true),
        ["check", "--skip-tests"] => check(&mut steps, &root, false),
        ["tidy"] => steps.run("tidy", || tidy::run(&root)),
        ["deny"] => steps.run("deny", || deny::run(&root)),
        ["map"] => steps.run("map", || map::run(&root)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    steps.finish()
}

/// Cheap steps first, so that the common mistakes are named within seconds.
fn check(steps: &mut Steps, root: &Path, tests: bool) {
    steps.run("fmt", || cargo(root, &["fmt", "--all", "--", "--check"]));
    steps.run("tidy", || tidy::run(root));
    steps.run("deny", || deny::run(root));
    steps.run("clippy", || {
        cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
    });
    if tests {
        steps.run("tests", || cargo(root, &["test", "--workspace"]));
    }
}

/// The repository's top folder: this crate's parent.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask has a parent folder").to_owned()
}
