//! What must be survived, one scenario each, on a few seeds. `rota-sim --scenario NAME --seed N`
//! shows a run.

use rota_sim::check::TIME_TOLERANCE_MS;
use rota_sim::clients::Fate;
use rota_sim::liar::Behaviour;
use rota_sim::{Outcome, Plan, SECOND, World};

const SEEDS: std::ops::Range<u64> = 0..5;

/// Runs a scenario on some seeds; no rule may be broken in any.
fn runs(name: &str) -> Vec<Outcome> {
    runs_of(name, SEEDS)
}

fn runs_of(name: &str, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    seeds
        .map(|seed| {
            let outcome = World::run(Plan::named(name, seed).expect("a known scenario"), false);
            assert!(outcome.broken.is_none(), "{outcome}");
            assert!(outcome.writes.iter().all(|write| write.fate != Fate::Unknown));
            outcome
        })
        .collect()
}

#[test]
fn four_servers_lose_no_slot_in_calm_weather() {
    for outcome in runs("calm") {
        assert_eq!(outcome.skipped, 0, "{outcome}");
        assert!(outcome.writes.iter().all(|write| write.finished - write.started < SECOND / 10));
    }
}

#[test]
fn transfers_that_meet_fail_for_one_and_none_is_half_done() {
    let outcomes = runs("transfers");
    let of = |fate| outcomes.iter().flat_map(|o| &o.writes).filter(move |w| w.fate == fate).count();
    assert!(of(Fate::Applied) > 100, "most transfers must succeed: {}", of(Fate::Applied));
    assert!(of(Fate::Failed) > 10, "some must have met another one: {}", of(Fate::Failed));
}

#[test]
fn an_equivocating_leader_parts_nobody() {
    for outcome in runs("equivocating-leader") {
        assert!(outcome.met.of(rota_sim::Fault::Lie) > 0);
    }
}

#[test]
fn a_double_voter_parts_nobody() {
    for outcome in runs("double-voter") {
        assert!(outcome.met.of(rota_sim::Fault::Lie) > 0);
    }
}

#[test]
fn no_single_lie_parts_anybody() {
    let outcomes = runs_of("lone-liar", 0..Behaviour::ALL.len() as u64);
    for (outcome, behaviour) in outcomes.iter().zip(Behaviour::ALL) {
        // Nobody may happen to ask the liar for history; in the swarm somebody does.
        let asked = behaviour != Behaviour::FalseHistory;
        assert!(!asked || outcome.met.of(rota_sim::Fault::Lie) > 0, "{behaviour:?}: {outcome}");
    }
}

#[test]
fn wrong_and_jumping_clocks_cost_no_slot_and_do_not_move_block_time() {
    const { assert!(TIME_TOLERANCE_MS < 60_000) };
    for outcome in runs("wrong-clocks") {
        assert_eq!(outcome.skipped, 0, "{outcome}");
    }
}

#[test]
fn a_dead_leader_of_an_idle_cluster_delays_the_next_write_by_less_than_a_second() {
    for outcome in runs("dead-leader-idle") {
        let late = outcome.writes.iter().find(|write| write.started >= 30 * SECOND);
        let late = late.expect("the lone write was answered");
        assert!(late.finished - late.started < SECOND, "{late:?}");
    }
}

#[test]
fn writes_go_on_when_lost_servers_come_back() {
    for outcome in runs("three-of-four-gone") {
        assert_eq!(outcome.writes.len(), 61);
    }
}

#[test]
fn what_was_acknowledged_outlives_a_crash_of_all() {
    for outcome in runs("all-crash") {
        assert!(outcome.met.of(rota_sim::Fault::CrashAll) == 3);
    }
}

#[test]
fn a_server_whose_rows_differ_names_them_and_the_others_go_on() {
    for outcome in runs("flipped-row") {
        let [(2, rows)] = outcome.diverged.as_slice() else { panic!("{:?}", outcome.diverged) };
        assert!(rows.iter().any(|row| row.table == "ledger"), "{rows:?}");
        assert_eq!(outcome.writes.len(), 91);
    }
}

#[test]
fn a_server_far_behind_catches_up() {
    for outcome in runs("far-behind") {
        assert!(outcome.height.0 > 200);
    }
}

#[test]
fn hostile_sql_and_cold_restarts_keep_roots_equal() {
    for outcome in runs("hostile-sql") {
        assert!(outcome.writes.iter().any(|write| write.fate == Fate::Failed));
        assert!(outcome.writes.iter().any(|write| write.fate == Fate::Applied));
    }
}

#[test]
fn linearizable_reads_take_a_round_trip_and_write_nothing() {
    for (name, reads) in [("calm", 20), ("reads-alone", 60)] {
        for outcome in runs(name) {
            assert_eq!(outcome.reads.len(), reads);
            assert!(outcome.reads.iter().all(|&took| took < SECOND / 20), "{:?}", outcome.reads);
            assert_eq!(outcome.met.of(rota_sim::Fault::ReadByWrite), 0);
        }
    }
}

#[test]
fn readers_who_are_lied_to_are_served_by_all_honest_members_or_by_a_write() {
    for outcome in runs("lied-to-readers") {
        assert_eq!(outcome.reads.len(), 60);
        // With an odd seed one of the honest members is down for a while.
        let by_write = outcome.met.of(rota_sim::Fault::ReadByWrite);
        assert_eq!(outcome.seed % 2 == 1, by_write > 0, "{by_write} writes");
    }
}
