//! The laws: one suite that every method passes. Each test is a law, and runs it against `poa`,
//! `raft` and `pow` in turn; a failure names the method, the law and the seed.
//!
//! While a run goes on the monitor watches (`rota_sim::check`): agreement on final blocks, equal
//! roots, nothing final changes, each block once with its parents first, on disk before it is sent
//! or executed. The laws here bring about what could break them.

use rota_core::genesis::Method;
use rota_sim::clients::{ClientPlan, Fate, Mix};
use rota_sim::scenario::Step;
use rota_sim::{Fault, Micros, Outcome, Plan, SECOND, World};

const METHODS: [Method; 3] = [Method::Poa, Method::Raft, Method::Pow];

/// Calm weather and no faults: four members, three members, three miners and a server that does not
/// mine.
fn calm(method: Method, seed: u64) -> Plan {
    let name = match method {
        Method::Poa => "calm",
        Method::Raft => "raft-calm",
        Method::Pow => "pow-calm",
    };
    Plan::named(name, seed).expect("a known scenario")
}

fn run(law: &str, plan: Plan) -> Outcome {
    let method = plan.method.name();
    let outcome = World::run(plan, false);
    assert!(outcome.broken.is_none(), "{method}, {law}:\n{outcome}");
    outcome
}

/// A client that writes once, then.
fn late(start: Micros) -> ClientPlan {
    ClientPlan { start, writes: 1, think: 0, mix: Mix::Plain }
}

/// How soon after the last fault a new write is acknowledged in any case: a client that asked a
/// server in vain asks another after 1.5 s; under `pow` twelve blocks come first, at random.
fn patience(plan: &Plan) -> Micros {
    match plan.method {
        Method::Poa | Method::Raft => 4 * SECOND,
        Method::Pow => 2 * plan.patience(),
    }
}

#[test]
fn all_agree_on_final_blocks_and_nothing_final_changes() {
    for method in METHODS {
        for seed in 0..4 {
            let mut plan = calm(method, seed);
            plan.limited = false;
            plan.weather.loss = 50;
            plan.weather.duplicate = 50;
            let alone = |server| (0..plan.servers).map(|other| other == server).collect();
            plan.script = vec![
                (SECOND, Step::Partition { side: alone(0) }),
                (3 * SECOND, Step::Heal),
                (4 * SECOND, Step::Partition { side: alone(1) }),
                (5 * SECOND, Step::CrashLeader { down: SECOND }),
                (7 * SECOND, Step::Heal),
            ];
            plan.faults_end = 8 * SECOND;
            plan.settle *= 2;
            let outcome = run("agreement", plan);
            // What is final at one server is final, the same, at all others.
            assert!(outcome.chains.iter().all(|chain| *chain == outcome.chains[0]));
            assert!(!outcome.chains[0].is_empty());
        }
    }
}

#[test]
fn every_acknowledged_write_is_there_once() {
    for method in METHODS {
        for seed in 0..3 {
            let mut plan = calm(method, seed);
            plan.limited = false;
            plan.script =
                [1, 3, 5].map(|at| (at * SECOND, Step::CrashAll { down: SECOND })).to_vec();
            plan.faults_end = 7 * SECOND;
            plan.settle *= 2;
            let outcome = run("acknowledged writes", plan);
            assert_eq!(outcome.met.of(Fault::CrashAll), 3);
            assert!(outcome.writes.iter().all(|write| write.fate == Fate::Applied));
        }
    }
}

#[test]
fn there_is_progress_when_the_promised_part_is_up() {
    for method in METHODS {
        for seed in 0..4 {
            let mut plan = calm(method, seed);
            // As many are gone for good as may be, the leader first; the others go on.
            let down = 1_000 * SECOND;
            plan.script = vec![(2 * SECOND, Step::CrashLeader { down })];
            if method == Method::Pow {
                plan.script = vec![(2 * SECOND, Step::Crash { server: 0, down })];
            }
            plan.clients = vec![late(4 * SECOND), late(5 * SECOND)];
            // The tables that they write to are made meanwhile, which may take as long.
            plan.faults_end = 6 * SECOND + 2 * patience(&plan);
            let (end, most) = (plan.faults_end, patience(&plan));
            let outcome = run("progress", plan);
            for write in outcome.writes.iter().filter(|write| write.started >= 4 * SECOND) {
                let took = write.finished - write.started;
                assert!(took < most && write.finished < end, "{method:?} {seed}: {took} µs");
            }
        }
    }
}

#[test]
fn there_is_progress_again_after_the_last_fault() {
    for method in METHODS {
        for seed in 0..3 {
            let mut plan = calm(method, seed);
            plan.limited = false;
            let side = (0..plan.servers).map(|server| server % 2 == 0).collect();
            plan.script = vec![
                (SECOND, Step::Partition { side }),
                (2 * SECOND, Step::Crash { server: 0, down: 2 * SECOND }),
                (5 * SECOND, Step::Heal),
            ];
            plan.faults_end = 6 * SECOND;
            plan.clients = vec![late(6 * SECOND), late(7 * SECOND)];
            let most = patience(&plan);
            let outcome = run("progress", plan);
            for write in outcome.writes.iter().filter(|write| write.started >= 6 * SECOND) {
                let took = write.finished - write.started;
                assert!(took < most, "{method:?} {seed}: {took} µs");
            }
        }
    }
}

/// One server dies at its first output, its second and so on: in appends, between an append and
/// what it allows to be sent, between two messages. What it says afterwards must not contradict
/// what it said before, and it must lose nothing that it let others count on.
#[test]
fn a_restart_from_the_journal_decides_nothing_anew() {
    for method in METHODS {
        let mut crashes = 0;
        for outputs in 1..=40 {
            let mut plan = calm(method, outputs);
            let crash = |at, server| (at, Step::CrashAt { server, outputs, down: SECOND / 5 });
            plan.limited = false;
            plan.script = vec![crash(SECOND / 2, 0), crash(2 * SECOND, 1), crash(3 * SECOND, 0)];
            plan.faults_end = 5 * SECOND;
            plan.clients.truncate(2);
            crashes += run("restart", plan).met.of(Fault::CrashAtOutput);
        }
        assert!(crashes > 20, "{method:?}: only {crashes} crashes");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for method in METHODS {
        let swarm = |seed| World::run(Plan::swarm_of(method, seed), false);
        for seed in [2, 9] {
            let [one, other] = [swarm(seed), swarm(seed)];
            assert_eq!(one.trace_hash, other.trace_hash, "{method:?}, seed {seed}");
            assert_eq!(one.events, other.events, "{method:?}, seed {seed}");
        }
        assert_ne!(swarm(2).trace_hash, swarm(9).trace_hash, "{method:?}");
    }
}
