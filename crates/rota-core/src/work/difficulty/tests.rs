//! Next targets (steps 4 and 6): equal to what others published, and sound where nobody else went.

use bitcoin::consensus::Params;
use bitcoin::{CompactTarget, Target};

use super::published::{CORE_CASES, FIRST_HEIGHT, HEADERS, RUNS};
use super::*;
use crate::work::WorkProof;

/// The bits of Bitcoin's easiest target.
const EASIEST: u32 = 0x1d00_ffff;

fn mainnet() -> Difficulty {
    let anchor = Anchor { height: Height(0), parent_time: 0, bits: EASIEST };
    Difficulty::new(Retarget::Bitcoin { interval: 2016 }, 600, EASIEST, anchor).unwrap()
}

fn asert(halflife_s: u32, spacing_s: u32, easiest: u32, anchor: Anchor) -> Difficulty {
    Difficulty::new(Retarget::Asert { halflife_s }, spacing_s, easiest, anchor).unwrap()
}

fn mark(height: u64, time: u32, bits: u32) -> Mark {
    Mark { height: Height(height), time, bits }
}

/// What the `bitcoin` crate says.
fn crates(bits: u32, timespan: u32, params: &Params) -> u32 {
    let last = CompactTarget::from_consensus(bits);
    CompactTarget::from_next_work_required(last, timespan.into(), params).to_consensus()
}

/// Numbers of no meaning, the same in every run (xorshift64, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).unwrap()
    }
}

fn log2(target: Target) -> f64 {
    target.to_be_bytes().iter().fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte)).log2()
}

fn log2_of(bits: u32) -> f64 {
    log2(target_of(bits).unwrap())
}

fn header(hex: &str) -> WorkProof {
    let mut bytes = [0; 80];
    hex::decode_to_slice(hex, &mut bytes).unwrap();
    WorkProof(bytes)
}

#[test]
fn bitcoins_own_changes_of_the_target_are_met_exactly() {
    let mut first = header(HEADERS[0]);
    assert!(first.meets_its_target());
    let mut height = FIRST_HEIGHT;
    for pair in HEADERS[1..].chunks_exact(2) {
        let (last, next) = (header(pair[0]), header(pair[1]));
        // They are the main chain's, and neighbours.
        assert!(last.meets_its_target() && next.meets_its_target(), "{last:?} {next:?}");
        assert_eq!(next.previous(), last.hash());
        assert_eq!(last.bits(), first.bits());
        let parent = mark(height + 2015, last.time(), last.bits());
        let time_at = |asked| (asked == Height(height)).then(|| first.time());
        assert_eq!(mainnet().next(parent, time_at), Some(next.bits()), "at {}", height + 2016);
        let by_crate = crates(last.bits(), last.time() - first.time(), &Params::MAINNET);
        assert_eq!(by_crate, next.bits());
        first = next;
        height += 2016;
    }
    assert_eq!(height, 570_528);
}

#[test]
fn bitcoin_cores_own_cases_are_met_exactly() {
    for (height, first, last, before, after) in CORE_CASES {
        let time_at = |asked| (asked == Height(height - 2015)).then_some(first);
        let next = mainnet().next(mark(height, last, before), time_at);
        assert_eq!(next, Some(after), "after {height}");
        assert_eq!(crates(before, last - first, &Params::MAINNET), after);
    }
}

#[test]
fn bitcoins_rule_is_the_crates_for_any_interval_and_spacing() {
    let mut numbers = Numbers(5);
    for _ in 0..20_000 {
        let interval = 2 + numbers.small(3_000);
        let spacing_s = 1 + numbers.small(1_200);
        // Neither 256 bits nor the crate's debug assertions overflow up to here.
        let easiest = 0x1d00_ffff;
        let bits = ((3 + numbers.small(26)) << 24) | (0x8000 + numbers.small(0x7f_0000));
        let due = u64::from(interval) * u64::from(spacing_s);
        let took = u32::try_from(numbers.below(due * 6)).unwrap();
        let mut params = Params::MAINNET;
        params.pow_target_timespan = due;
        let anchor = Anchor { height: Height(0), parent_time: 0, bits: easiest };
        let rule = Retarget::Bitcoin { interval };
        let difficulty = Difficulty::new(rule, spacing_s, easiest, anchor).unwrap();
        let parent = mark(u64::from(interval) * 7 - 1, 1_000_000 + took, bits);
        let next = difficulty.next(parent, |_| Some(1_000_000)).unwrap();
        assert_eq!(next, crates(bits, took, &params), "{interval} {spacing_s} {bits:x} {took}");
    }
}

#[test]
fn bitcoins_rule_changes_nothing_within_an_interval_and_asks_for_its_first_block() {
    for height in (0..2015).chain(2016..4031) {
        let parent = mark(height, 77, 0x1b04_04cb);
        assert_eq!(mainnet().next(parent, |_| panic!("asked")), Some(0x1b04_04cb));
    }
    let mut asked = None;
    let parent = mark(4031, 5_000_000, 0x1b04_04cb);
    let next = mainnet().next(parent, |height| {
        asked = Some(height);
        Some(3_790_400)
    });
    // Exactly two weeks; of 2015 spacings, as Bitcoin has it.
    assert_eq!((asked, next), (Some(Height(2016)), Some(0x1b04_04cb)));
    assert_eq!(mainnet().next(parent, |_| None), None);
}

#[test]
fn bitcoins_rule_stays_within_a_quarter_and_four_times_though_time_goes_back() {
    let change = |first, last| {
        let next = mainnet().next(mark(2015, last, 0x1b04_0000), |_| Some(first)).unwrap();
        log2_of(next) - log2_of(0x1b04_0000)
    };
    for (first, last, expected) in
        [(9_000_000, 1_000, -2.0), (0, 302_399, -2.0), (0, u32::MAX, 2.0), (0, 4_838_400, 2.0)]
    {
        assert!((change(first, last) - expected).abs() < 1e-5, "{first} {last}");
    }
}

#[test]
fn the_published_runs_of_aserti3_2d_are_met_exactly() {
    for run in RUNS {
        let (height, parent_time, bits) = run.anchor;
        let anchor = Anchor { height: Height(height), parent_time, bits };
        let difficulty = asert(172_800, 600, EASIEST, anchor);
        for (height, time, due) in run.points {
            let parent = mark(*height, *time, 0);
            let next = difficulty.next(parent, |_| panic!("asked"));
            assert_eq!(next, Some(*due), "{} after {height}", run.name);
        }
    }
}

#[test]
fn asert_is_an_exponential_wherever_it_is_used() {
    // Another route than the integers' one, and targets up to 2^255, where 256 bits would overflow.
    let mut numbers = Numbers(11);
    let mut capped = 0;
    for _ in 0..50_000 {
        let easiest = 0x2000_8000 + (numbers.small(0x7f_0000) & 0xff_ff00);
        let bits = ((4 + numbers.small(29)) << 24) | (0x8000 + numbers.small(0x7f_0000));
        let bits = if target_of(bits) > target_of(easiest) { easiest } else { bits };
        let (spacing_s, halflife_s) = (1 + numbers.small(700), 1 + numbers.small(400_000));
        let height = numbers.below(100_000);
        let anchor_height = numbers.below(1_000_000);
        let parent_time = numbers.small(2_000_000_000);
        let time = parent_time.saturating_add(numbers.small(100_000_000));
        let anchor = Anchor { height: Height(anchor_height), parent_time, bits };
        let next = asert(halflife_s, spacing_s, easiest, anchor)
            .next(mark(anchor_height + height, time, 0), |_| None)
            .unwrap();
        let late =
            f64::from(time) - f64::from(parent_time) - f64::from(spacing_s) * (height as f64 + 1.0);
        let exact = log2_of(bits) + late / f64::from(halflife_s);
        let expected = exact.clamp(0.0, log2_of(easiest));
        capped += u32::from(exact > log2_of(easiest));
        // The polynomial is off by 0.013 %, the compact form by one in 2^15; small targets are
        // rounded down to integers.
        if expected > 20.0 {
            let off = (log2_of(next) - expected).abs();
            assert!(off < 0.000_3, "{bits:x} {late} {halflife_s}: {next:x}, off by {off}");
        }
        assert!(target_of(next) <= target_of(easiest));
    }
    assert!((1_000..40_000).contains(&capped), "{capped} of 50000 at the easiest target");
}

#[test]
fn twice_the_hash_rate_is_forgotten_as_fast_as_the_half_life_says() {
    // With r times the hash rate the spacing after t is 1 − (1 − 1/r)·2^(−t/halflife) of what it
    // should be: where the excess of difficulty due grows and shrinks, by half each half-life.
    let (spacing, halflife) = (600.0, 172_800.0);
    let bits = 0x1a00_ffff;
    let anchor = Anchor { height: Height(0), parent_time: 0, bits };
    let difficulty = asert(172_800, 600, EASIEST, anchor);
    for rate in [2.0, 0.5] {
        let (mut clock, mut height, mut due) = (600.0_f64, 0, bits);
        let mut checked = 0;
        while clock < 3.0 * halflife {
            // How long a block takes on average.
            let interval = spacing / rate * (log2_of(bits) - log2_of(due)).exp2();
            for after in [1.0, 2.0] {
                if clock >= after * halflife && clock - interval < after * halflife {
                    let theory = 1.0 - (1.0 - 1.0 / rate) * (-after).exp2();
                    assert!((interval / spacing - theory).abs() < 0.01, "{rate} {after}");
                    checked += 1;
                }
            }
            clock += interval;
            height += 1;
            due = difficulty.next(mark(height, clock as u32, 0), |_| None).unwrap();
        }
        assert_eq!(checked, 2);
    }
}

#[test]
fn numbers_that_a_rule_cannot_work_with_are_refused() {
    let anchor = Anchor { height: Height(0), parent_time: 0, bits: EASIEST };
    let with = |rule, spacing, easiest, bits| {
        Difficulty::new(rule, spacing, easiest, Anchor { bits, ..anchor }).err()
    };
    let asert = |halflife_s| Retarget::Asert { halflife_s };
    let bitcoin = |interval| Retarget::Bitcoin { interval };
    assert_eq!(with(asert(1), 1, EASIEST, EASIEST), None);
    assert_eq!(with(bitcoin(2), 1, EASIEST, EASIEST), None);
    assert_eq!(with(asert(1), 0, EASIEST, EASIEST), Some(Unusable::Spacing));
    assert_eq!(with(asert(0), 1, EASIEST, EASIEST), Some(Unusable::Halflife));
    assert_eq!(with(bitcoin(1), 1, EASIEST, EASIEST), Some(Unusable::Interval(1)));
    assert_eq!(with(asert(1), 1, 0, EASIEST), Some(Unusable::Bits(0)));
    assert_eq!(with(asert(1), 1, EASIEST, 0x1d80_ffff), Some(Unusable::Bits(0x1d80_ffff)));
    assert_eq!(
        with(asert(1), 1, EASIEST, 0x1e00_ffff),
        Some(Unusable::TooEasy { bits: 0x1e00_ffff, easiest: EASIEST })
    );
}

#[test]
fn no_numbers_make_a_rule_panic() {
    let extremes = [0, 1, 2, 3, u32::MAX / 2, u32::MAX - 1, u32::MAX];
    let heights = [0, 1, 2, 2015, u64::MAX / 2, u64::MAX - 1, u64::MAX];
    let bits = [0x0101_0000, 0x0300_ffff, EASIEST, 0x207f_ffff, 0x2100_ffff, 0x2200_00ff];
    for easiest in bits {
        for anchor_bits in bits {
            for number in extremes {
                for spacing_s in extremes {
                    let rules = [
                        Retarget::Asert { halflife_s: number },
                        Retarget::Bitcoin { interval: number },
                    ];
                    for (rule, height) in rules.into_iter().zip(heights) {
                        let anchor = Anchor {
                            height: Height(height),
                            parent_time: number,
                            bits: anchor_bits,
                        };
                        let Ok(difficulty) = Difficulty::new(rule, spacing_s, easiest, anchor)
                        else {
                            continue;
                        };
                        for height in heights {
                            for time in extremes {
                                let parent = mark(height, time, anchor_bits);
                                if let Some(next) = difficulty.next(parent, |_| Some(number)) {
                                    let next = target_of(next).expect("always a target");
                                    assert!(next <= target_of(easiest).unwrap());
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rules_are_written_with_their_name() {
    let written = [
        (r#"{"rule":"asert","halflife_s":576}"#, Retarget::Asert { halflife_s: 576 }),
        (r#"{"rule":"bitcoin","interval":2016}"#, Retarget::Bitcoin { interval: 2016 }),
    ];
    for (text, rule) in written {
        assert_eq!(serde_json::from_str::<Retarget>(text).unwrap(), rule);
        assert_eq!(serde_json::to_string(&rule).unwrap(), text);
    }
    for wrong in [r#"{"rule":"asert"}"#, r#"{"rule":"asert","halflife_s":1,"interval":2}"#] {
        assert!(serde_json::from_str::<Retarget>(wrong).is_err(), "{wrong}");
    }
}
