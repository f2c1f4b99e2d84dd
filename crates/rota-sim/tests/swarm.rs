//! Random faults, drawn from seeds: every rule of `check` holds in every run, and every kind of
//! fault was met.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rota_core::genesis::Method;
use rota_sim::{Counters, Fault, Plan, World};

/// As many as a change is tried with; thousands run by night (`rota-sim --seeds`).
const SEEDS: u64 = 200;

/// The same for `raft` and `pow`.
const FEWER: u64 = 80;

/// Runs on two threads, each with whole worlds of its own.
const THREADS: usize = 2;

#[test]
fn swarms_of_faults_break_no_rule() {
    swarm(Method::Poa, SEEDS, &Fault::POA);
}

#[test]
fn swarms_of_faults_break_no_rule_of_rafts() {
    swarm(Method::Raft, FEWER, &Fault::RAFT);
}

#[test]
fn swarms_of_faults_and_lies_break_no_rule_of_pows() {
    swarm(Method::Pow, FEWER, &Fault::POW);
}

/// Runs so many seeds; each of these faults must have been met.
fn swarm(method: Method, seeds: u64, faults: &[Fault]) {
    let next = AtomicU64::new(1);
    let failures = Mutex::new(Vec::new());
    let met = Mutex::new(Counters::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let outcome = World::run(Plan::swarm_of(method, seed), false);
                    met.lock().unwrap().add(&outcome.met);
                    if outcome.broken.is_some() {
                        failures.lock().unwrap().push(outcome.to_string());
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {seeds}:\n{}", failures.len(), failures.join("\n\n"));
    let met = met.into_inner().unwrap();
    for &fault in faults {
        assert!(met.of(fault) > 0, "no run met {fault:?}: {met:?}");
    }
}

#[test]
fn a_seed_replays_event_by_event() {
    for seed in [3, 14, 15] {
        let [one, other] = [(); 2].map(|()| World::run(Plan::swarm(seed), false));
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
        assert_eq!(one.events, other.events);
    }
}

/// Seeds beyond those of the sweep. `poa` 209: a read that waited on a server which was not live
/// yet had it woken without end. `pow` 1076: a server asked for a block that had been lost at ever
/// longer intervals, and made its own branch final meanwhile.
const ONCE_BROKEN: &[(Method, u64)] = &[(Method::Poa, 209), (Method::Pow, 1076)];

#[test]
fn seeds_that_once_broke_a_rule_break_none() {
    for &(method, seed) in ONCE_BROKEN {
        let outcome = World::run(Plan::swarm_of(method, seed), false);
        assert!(outcome.broken.is_none(), "{outcome}");
    }
}
