//! One check after the other, each with a header and its time; all of them run, so that one round
//! shows everything.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// What ran so far.
#[derive(Default)]
pub struct Steps {
    outcomes: Vec<(&'static str, bool, f64)>,
}

impl Steps {
    /// Runs one check under a header.
    pub fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<(), String>) {
        println!("\n=== {name}");
        let started = Instant::now();
        let outcome = step();
        let seconds = started.elapsed().as_secs_f64();
        match &outcome {
            Ok(()) => println!("--- {name}: ok, {seconds:.1} s"),
            Err(why) => println!("--- {name}: FAILED, {seconds:.1} s: {why}"),
        }
        self.outcomes.push((name, outcome.is_ok(), seconds));
    }

    /// Says what failed, and with which exit code to leave.
    pub fn finish(&self) -> ExitCode {
        println!();
        for (name, passed, seconds) in &self.outcomes {
            println!("{:>8}  {name}, {seconds:.1} s", if *passed { "ok" } else { "FAILED" });
        }
        if self.outcomes.iter().all(|(_, passed, _)| *passed) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo in the repository, its output shown as it comes.
pub fn cargo(root: &Path, arguments: &[&str]) -> Result<(), String> {
    println!("cargo {}", arguments.join(" "));
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", arguments.join(" "))) }
}

/// Runs a program in the repository and gives its standard output.
pub fn output(root: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {errors}", arguments.join(" ")));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{program} printed no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole_and_the_later_ones_still_run() {
        let mut steps = Steps::default();
        let mut ran = false;
        steps.run("first", || Err("broken".into()));
        steps.run("second", || {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert_eq!(format!("{:?}", steps.finish()), format!("{:?}", ExitCode::FAILURE));
    }
}
