//! What `pow` must survive, one scenario each.

use rota_core::consensus::Standing;
use rota_core::work::Retarget;
use rota_sim::clients::Fate;
use rota_sim::experiments::{intervals, retarget, stale};
use rota_sim::liar::Behaviour;
use rota_sim::{Fault, Outcome, Plan, World};

fn run(name: &str, seed: u64) -> Outcome {
    let outcome = World::run(Plan::named(name, seed).expect("a known scenario"), false);
    assert!(outcome.broken.is_none(), "{outcome}");
    assert!(outcome.writes.iter().all(|write| write.fate != Fate::Unknown));
    outcome
}

fn deepest(outcome: &Outcome) -> u64 {
    let deepest = |(_, standing): &(usize, Standing)| match standing {
        Standing::Mining(mining) => mining.deepest,
        _ => 0,
    };
    outcome.standings.iter().map(deepest).max().unwrap_or(0)
}

#[test]
fn four_miners_and_two_others_agree_for_two_hundred_blocks() {
    for seed in 0..3 {
        let outcome = run("pow-six", seed);
        assert!(outcome.height.0 >= 200);
        assert_eq!(outcome.chains.len(), 6);
        assert!(outcome.chains.iter().all(|chain| *chain == outcome.chains[0]));
        assert!(outcome.rewound.is_empty());
    }
}

#[test]
fn halves_that_were_apart_for_thirty_blocks_meet_on_the_heavier_side() {
    for seed in 0..3 {
        let outcome = run("pow-heals", seed);
        assert!(outcome.rewound.is_empty());
        assert!(deepest(&outcome) >= 15, "one side had to leave its branch: {}", deepest(&outcome));
        // What stood on the lighter side was applied after all: no write was lost.
        assert!(outcome.writes.iter().all(|write| write.fate == Fate::Applied));
        assert_eq!(outcome.writes.len(), 1 + 4 * 8);
    }
}

#[test]
fn what_was_final_and_is_undone_is_listed_and_written_again() {
    let mut undone = 0;
    for seed in 0..3 {
        let outcome = run("pow-deep", seed);
        assert!(!outcome.rewound.is_empty(), "one side was six deep, and lighter");
        assert_eq!(outcome.met.of(Fault::Rewound), outcome.rewound.len() as u64);
        for rewound in &outcome.rewound {
            assert!(rewound.blocks > 0, "{rewound:?}");
            undone += rewound.undone.len();
        }
        let chain = &outcome.chains[0];
        assert!(outcome.chains.iter().all(|other| other == chain));
    }
    assert!(undone > 0, "no transaction was undone in any run");
}

#[test]
fn a_server_that_comes_late_with_nothing_but_the_genesis_has_it_all() {
    for seed in 0..2 {
        let outcome = run("pow-late", seed);
        assert!(outcome.height.0 >= 150);
        assert_eq!(outcome.chains[3], outcome.chains[0]);
    }
}

/// What is false is refused by everybody, and whoever sent it is kept out.
#[test]
fn a_lie_of_a_miner_parts_nobody_and_costs_it_its_neighbours() {
    for (seed, behaviour) in (0..).zip(Behaviour::POW) {
        let outcome = run("pow-lone-liar", seed);
        assert!(outcome.met.of(Fault::Lie) > 0, "{behaviour:?}");
        let must_pay = matches!(
            behaviour,
            Behaviour::TooLittleWork
                | Behaviour::FarFuture
                | Behaviour::OldTime
                | Behaviour::WrongTarget
                | Behaviour::WrongRootMined
                | Behaviour::SpoilsMined
        );
        assert!(!must_pay || outcome.met.of(Fault::Punished) > 0, "{behaviour:?}");
    }
}

#[test]
fn after_a_doubling_of_the_hash_rate_what_is_missing_to_the_spacing_halves_each_half_life() {
    let (rows, _) = retarget::rows(Retarget::Asert { halflife_s: 172_800 }, 200);
    assert!(retarget::asert_is_right(&rows));
}

#[test]
fn two_blocks_at_one_height_are_as_frequent_as_delay_over_interval_says() {
    let row = stale::measure(&[25; 4], 0.2, 400, 1);
    assert!(row.z().abs() < 3.5, "{row:?}");
}

#[test]
fn searches_take_exponential_times() {
    let (_, chi_square) = intervals::classes(&intervals::intervals(1_000, 1));
    assert!(chi_square < 27.9, "{chi_square}");
}
