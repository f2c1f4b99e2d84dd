//! `rota-sim`: runs seeds of a scenario, and says how to run a failing one again.

use std::process::ExitCode;
use std::time::Instant;

use rota_sim::experiments::EXPERIMENTS;
use rota_sim::{Counters, Plan, SCENARIOS, SECOND, World};

const USAGE: &str = "\
Usage: rota-sim experiment NAME
       rota-sim [--seed N] [--seeds COUNT] [--scenario NAME | --method poa|raft|pow] [--quiet]

Runs COUNT seeds from N on (1 and 1 if not given) of a scenario, or of the swarm of a method. One
seed prints every event; --quiet prints failures only.";

struct Arguments {
    seed: u64,
    seeds: u64,
    scenario: String,
    quiet: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("experiment") {
        return experiment(&words.next().unwrap_or_default());
    }
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            eprintln!("Scenarios: {}", names());
            return ExitCode::from(2);
        }
    };
    let mut failed = 0_u64;
    let mut met = Counters::default();
    let (began, mut virtual_time, mut blocks) = (Instant::now(), 0, 0);
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let Some(plan) = Plan::named(&arguments.scenario, seed) else { return ExitCode::from(2) };
        let outcome = World::run(plan, arguments.seeds == 1 && !arguments.quiet);
        met.add(&outcome.met);
        if arguments.seeds > 1 && seed.is_multiple_of(100) {
            eprintln!("seed {seed}, {failed} failed");
        }
        virtual_time += outcome.virtual_time;
        blocks += outcome.height.0;
        if outcome.broken.is_some() {
            failed += 1;
            println!("{outcome}\n");
        }
    }
    let real = began.elapsed().as_secs_f64();
    let seconds = virtual_time as f64 / SECOND as f64;
    for (fault, times) in met.iter() {
        println!("{times:>9}  {fault:?}");
    }
    let factor = seconds / real;
    println!(
        "{} seeds, {failed} failed, {blocks} blocks, {seconds:.0} s in {real:.1} s: {factor:.0} x",
        arguments.seeds
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn experiment(name: &str) -> ExitCode {
    let Some((_, print)) = EXPERIMENTS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = EXPERIMENTS.iter().map(|(name, _)| *name).collect();
        eprintln!("no experiment is called {name:?}; there are {}", names.join(", "));
        return ExitCode::from(2);
    };
    if print() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn names() -> String {
    SCENARIOS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { seed: 1, seeds: 1, scenario: "swarm".into(), quiet: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--seed" => found.seed = number(value()?)?,
            "--seeds" => found.seeds = number(value()?)?,
            "--scenario" => found.scenario = value()?,
            "--method" => {
                found.scenario = match value()?.as_str() {
                    "poa" => "swarm".into(),
                    method => format!("{method}-swarm"),
                }
            }
            "--quiet" => found.quiet = true,
            _ => return Err(format!("what is {word}?")),
        }
    }
    if SCENARIOS.iter().all(|(name, _)| *name != found.scenario) {
        return Err(format!("no scenario is called {}", found.scenario));
    }
    Ok(found)
}
