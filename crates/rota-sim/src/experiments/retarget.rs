//! The hash rate doubles at a random moment: how the spacing comes back to its target, under ASERT
//! and under Bitcoin's own rule. A light model: one chain, no network; targets and times by
//! rota-core's own code (`work::Difficulty`, `work::median_time_past`), searches drawn as
//! exponential (`intervals` shows that real ones are).
//!
//! **What theory says.** With `L` the time by which blocks are late, ASERT's target is
//! `2^(L / halflife)` times the anchor's, and the spacing `I = S · rate₀/rate · 2^(−L/halflife)`
//! lets `L` grow by `I − S` a block. In the mean that is a differential equation, whose solution
//! after a doubling is `I(t) / S = 1 − 2^−(1 + t / halflife)`: **what is missing to the target
//! spacing, a half at first, halves with each half-life.** Bitcoin's rule knows nothing before its
//! interval of `N` blocks is over, which takes at most half as long as usual; the interval after
//! that mixes both rates, and the next has the spacing `S · N / (N − 2)` in the mean: `N − 1`
//! spacings are measured and divided by `N`, and `1 / x` has a greater mean than one over x's.

use rota_core::types::Height;
use rota_core::work::{Anchor, Difficulty, MEDIAN_OF, Mark, Retarget, Work, median_time_past};

use super::{MOST_ERRORS, mean, word};
use crate::random::Random;

/// Bitcoin's spacing, and Bitcoin Cash's half-life for it, in seconds.
const SPACING_S: u32 = 600;
const HALFLIFE_S: u32 = 172_800;

/// Bitcoin's interval, in blocks.
const INTERVAL: u32 = 2_016;

/// The easiest target, Bitcoin's, and one 256 times as hard to begin with: there is room both ways.
const EASIEST: u32 = 0x1d00_ffff;
const FIRST: u32 = 0x1c00_ffff;

/// When a run begins; any date does.
const BEGINNING_S: u32 = 1_767_225_600;

/// How long spacings are looked at after the doubling, in half-lives: four weeks.
const LOOKED_AT: u32 = 14;

/// So many parts of a half-life are measured one by one.
const PARTS: u32 = 4;

/// Runs of each rule.
const SEEDS: u64 = 2_000;

/// The mean's own bending, in parts of the spacing: theory treats blocks as a flow, but they come
/// one by one, `spacing / halflife` of a half-life apart (1 / 288), and the chain's lateness at the
/// moment of the doubling is a random one.
const FLOW: f64 = 0.005;

/// One chain under a rule.
struct Chain {
    rule: Difficulty,
    /// Header times by height, in seconds.
    times: Vec<u32>,
    bits: u32,
    /// The true time, in seconds since the beginning.
    now: f64,
}

impl Chain {
    fn new(retarget: Retarget) -> Self {
        let parent_time = BEGINNING_S - SPACING_S;
        let anchor = Anchor { height: Height(0), parent_time, bits: FIRST };
        let rule = Difficulty::new(retarget, SPACING_S, EASIEST, anchor).expect("a good rule");
        Self { rule, times: vec![BEGINNING_S], bits: FIRST, now: 0.0 }
    }

    fn height(&self) -> u64 {
        self.times.len() as u64 - 1
    }

    /// The next block. `rate` tells what is hashed in a second from a time on, and until when.
    fn step(&mut self, random: &mut Random, rate: impl Fn(f64) -> (f64, f64)) {
        let parent = Mark {
            height: Height(self.height()),
            time: self.times.last().copied().unwrap_or(BEGINNING_S),
            bits: self.bits,
        };
        let at = |height: Height| self.times.get(usize::try_from(height.0).ok()?).copied();
        self.bits = self.rule.next(parent, at).expect("all times are known");
        let mut hashes = Work::of(self.bits).hashes() * exponential(random);
        loop {
            let (per_second, until) = rate(self.now);
            let takes = hashes / per_second;
            if self.now + takes <= until {
                self.now += takes;
                break;
            }
            hashes -= (until - self.now) * per_second;
            self.now = until;
        }
        let last = self.times.iter().rev().take(MEDIAN_OF).copied();
        let median = median_time_past(last).unwrap_or(BEGINNING_S);
        self.times.push((BEGINNING_S + self.now as u32).max(median + 1));
    }
}

/// A number with mean 1.
fn exponential(random: &mut Random) -> f64 {
    // 53 bits, never 0.
    let uniform = (random.below(1 << 53) + 1) as f64 / (1_u64 << 53) as f64;
    -uniform.ln()
}

/// One run: how many blocks came in each part of a half-life after the doubling; and the mean
/// spacings of the intervals that began after it, in parts of the target spacing.
fn run(retarget: Retarget, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let random = &mut Random::new(seed);
    let mut chain = Chain::new(retarget);
    let at_first = Work::of(FIRST).hashes() / f64::from(SPACING_S);
    // Any moment of Bitcoin's third interval.
    let interval = f64::from(INTERVAL) * f64::from(SPACING_S);
    let doubling = interval * (2.0 + random.below(1 << 32) as f64 / (1_u64 << 32) as f64);
    let rate = |now: f64| match now < doubling {
        true => (at_first, doubling),
        false => (2.0 * at_first, f64::INFINITY),
    };
    let part = f64::from(HALFLIFE_S) / f64::from(PARTS);
    let mut counts = vec![0.0; (LOOKED_AT * PARTS) as usize];
    let mut intervals = Vec::new();
    let mut began = None;
    let end = doubling + part * counts.len() as f64;
    while chain.now < end || intervals.len() < 3 {
        chain.step(random, rate);
        if chain.now >= doubling {
            let which = ((chain.now - doubling) / part) as usize;
            if let Some(count) = counts.get_mut(which) {
                *count += 1.0;
            }
        }
        if chain.height().is_multiple_of(u64::from(INTERVAL)) {
            if let Some(began) = began {
                intervals.push((chain.now - began) / interval);
            }
            began = (chain.now >= doubling).then_some(chain.now);
        }
    }
    (counts, intervals)
}

/// What theory says of ASERT: how many blocks come within `t` half-lives of the doubling, in parts
/// of those that are due in one.
pub fn blocks_within(t: f64) -> f64 {
    let rate = std::f64::consts::LN_2;
    t + ((1.0 - 0.5 * (-rate * t).exp()) / 0.5).ln() / rate
}

/// One line of the table: when (in half-lives), spacing measured, its standard error, expected.
pub struct Row {
    /// The middle of the part, in half-lives after the doubling.
    pub at: f64,
    /// The mean spacing, in parts of the target's.
    pub measured: f64,
    /// Its standard error.
    pub error: f64,
    /// By theory, where there is one.
    pub expected: Option<f64>,
}

/// Spacings after the doubling, from so many runs.
pub fn rows(retarget: Retarget, seeds: u64) -> (Vec<Row>, Vec<Vec<f64>>) {
    let runs: Vec<_> = (1..=seeds).map(|seed| run(retarget, seed)).collect();
    let due = f64::from(HALFLIFE_S) / f64::from(SPACING_S) / f64::from(PARTS);
    let is_asert = matches!(retarget, Retarget::Asert { .. });
    let row = |part: u32| {
        let counts: Vec<f64> = runs.iter().map(|(counts, _)| counts[part as usize]).collect();
        let (count, error) = mean(&counts);
        let [from, to] = [part, part + 1].map(|part| f64::from(part) / f64::from(PARTS));
        let blocks = (blocks_within(to) - blocks_within(from)) * f64::from(PARTS);
        Row {
            at: (from + to) / 2.0,
            measured: due / count,
            error: due / count * error / count,
            expected: is_asert.then_some(1.0 / blocks),
        }
    };
    let rows = (0..LOOKED_AT * PARTS).map(row).collect();
    (rows, runs.into_iter().map(|(_, intervals)| intervals).collect())
}

/// Whether ASERT's spacings are those that theory expects.
pub fn asert_is_right(rows: &[Row]) -> bool {
    rows.iter().all(|row| {
        row.expected.is_none_or(|expected| {
            (row.measured - expected).abs() <= MOST_ERRORS * row.error + FLOW
        })
    })
}

/// Whether what is missing to the target is halved within one half-life.
pub fn is_halved(rows: &[Row]) -> bool {
    let missing =
        |half_lives: u32| rows.get((half_lives * PARTS) as usize).map(|row| 1.0 - row.measured);
    let first = missing(0);
    (1..=3).all(|n| match (first, missing(n)) {
        (Some(first), Some(later)) => later <= first / f64::from(1_u32 << n) + FLOW,
        _ => false,
    })
}

/// Prints tables and plots.
pub fn print() -> bool {
    println!("The hash rate doubles at 0. {SEEDS} runs of each rule; spacing {SPACING_S} s.");
    println!("Targets and median times by rota-core's code, searches drawn as exponential.\n");
    let (asert, _) = rows(Retarget::Asert { halflife_s: HALFLIFE_S }, SEEDS);
    let (bitcoin, intervals) = rows(Retarget::Bitcoin { interval: INTERVAL }, SEEDS);
    println!("ASERT, half-life {HALFLIFE_S} s:");
    println!("  half-lives   spacing / target   expected   standard error      z");
    for row in asert.iter().step_by(PARTS as usize).take(8) {
        let expected = row.expected.unwrap_or(1.0);
        let z = (row.measured - expected) / row.error;
        println!(
            "  {:>10.3}   {:>16.4}   {expected:>8.4}   {:>14.4}   {z:>+4.1}",
            row.at, row.measured, row.error
        );
    }
    let halved = asert_is_right(&asert) && is_halved(&asert);
    println!("  what is missing to the target halves with each half-life: {}\n", word(halved));
    println!("Bitcoin's rule, interval {INTERVAL} blocks; the first whole intervals after:");
    println!("  interval   spacing / target   expected   standard error      z");
    let n = f64::from(INTERVAL);
    let mut settled = true;
    for which in 0..3 {
        let spacings: Vec<f64> =
            intervals.iter().filter_map(|all| all.get(which)).copied().collect();
        let (measured, error) = mean(&spacings);
        if which == 0 {
            println!("  {:>8}   {measured:>16.4}   {:>8}   {error:>14.4}", 1, "mixed");
            continue;
        }
        let expected = n / (n - 2.0);
        let z = (measured - expected) / error;
        settled &= z.abs() <= MOST_ERRORS;
        println!(
            "  {:>8}   {measured:>16.4}   {expected:>8.4}   {error:>14.4}   {z:>+4.1}",
            which + 1
        );
    }
    println!("  back at the target with the second whole interval: {}\n", word(settled));
    plot(&asert, &bitcoin);
    halved && settled
}

/// The lines of a plot from the lowest to the highest spacing, in parts of the target's.
const LINES: u32 = 14;
const LOWEST: f64 = 0.45;
const HIGHEST: f64 = 1.10;

fn plot(asert: &[Row], bitcoin: &[Row]) {
    let step = (HIGHEST - LOWEST) / f64::from(LINES);
    println!("spacing / target after the doubling: a ASERT, b Bitcoin, * both");
    for line in (0..LINES).rev() {
        let low = LOWEST + step * f64::from(line);
        let is_here = |row: &Row| (low..low + step).contains(&row.measured);
        let marks: String = asert
            .iter()
            .zip(bitcoin)
            .map(|(a, b)| match (is_here(a), is_here(b)) {
                (true, true) => '*',
                (true, false) => 'a',
                (false, true) => 'b',
                (false, false) => ' ',
            })
            .collect();
        println!("  {:>5.2} │{marks}", low + step / 2.0);
    }
    println!("        └{}", "─".repeat(asert.len()));
    let ticks: String = (0..LOOKED_AT / 2)
        .map(|n| format!("{:<width$}", n * 4, width = (2 * PARTS) as usize))
        .collect();
    println!("         {ticks}days");
}
