//! What `raft` must survive, one scenario each, on a few seeds.

use rota_sim::clients::Fate;
use rota_sim::{Fault, Outcome, Plan, SECOND, World};

fn runs(name: &str) -> Vec<Outcome> {
    let run = |seed| {
        let outcome = World::run(Plan::named(name, seed).expect("a known scenario"), false);
        assert!(outcome.broken.is_none(), "{outcome}");
        assert!(outcome.writes.iter().all(|write| write.fate != Fate::Unknown));
        outcome
    };
    (0..5).map(run).collect()
}

#[test]
fn writes_and_reads_in_calm_weather_take_two_round_trips() {
    for outcome in runs("raft-calm") {
        // Those that came before there was a leader wait for one.
        let mut later = outcome.writes.iter().filter(|write| write.started > SECOND);
        assert!(later.all(|write| write.finished - write.started < SECOND / 20));
        assert_eq!(outcome.reads.len(), 20);
        let slow = outcome.reads.iter().filter(|&&took| took >= SECOND / 20).count();
        assert!(slow <= 2, "only each reader's first may: {:?}", outcome.reads);
    }
}

#[test]
fn a_leader_that_was_frozen_for_ten_seconds_serves_no_stale_read() {
    for outcome in runs("raft-frozen-leader") {
        assert_eq!(outcome.met.of(Fault::Freeze), 1);
        assert_eq!(outcome.reads.len(), 4 * 80);
        assert!(outcome.writes.len() > 3 * 60);
    }
}

/// The scenario's `LeadsNoMore` holds the leader to its time-out; what it serves is checked as
/// everywhere.
#[test]
fn a_leader_that_is_cut_off_steps_down_within_its_time_out_and_the_others_go_on() {
    for outcome in runs("raft-leader-alone") {
        assert!(outcome.met.of(Fault::Partition) == 1 && outcome.met.of(Fault::Cut) > 0);
        let during = outcome
            .writes
            .iter()
            .filter(|write| write.started > 4 * SECOND && write.finished < 13 * SECOND);
        assert!(during.count() > 20, "the majority must go on");
    }
}

#[test]
fn leaders_that_are_killed_one_after_the_other_take_nothing_with_them() {
    for outcome in runs("raft-killed-leaders") {
        assert!(outcome.met.of(Fault::Crash) == 9);
    }
}

#[test]
fn what_was_acknowledged_outlives_a_crash_of_all() {
    for outcome in runs("raft-all-crash") {
        assert_eq!(outcome.met.of(Fault::CrashAll), 3);
    }
}

/// A leader with the wrong rows names none of its states in its headers: only the others' reports
/// tell it.
#[test]
fn a_server_whose_rows_differ_stops_whether_it_leads_or_not() {
    for (seed, outcome) in runs("raft-flipped-row").into_iter().enumerate() {
        let [(server, rows)] = outcome.diverged.as_slice() else {
            panic!("{:?}", outcome.diverged)
        };
        assert_eq!(*server, seed % 3);
        assert!(rows.iter().any(|row| row.table == "ledger"), "{rows:?}");
        assert_eq!(outcome.writes.len(), 91);
    }
}

#[test]
fn servers_that_follow_execute_what_the_members_decide() {
    for name in ["raft-followers", "followers"] {
        for outcome in runs(name) {
            assert!(outcome.chains.iter().all(|chain| *chain == outcome.chains[0]));
        }
    }
}
