//! How many tries a nonce takes: real searches at a low difficulty, against the exponential
//! distribution. (rota-core's tests of `work` hold it to a goodness-of-fit test; this prints it.)

use rota_core::types::BlockId;
use rota_core::work::{HeaderHash, SearchJob};

use super::word;
use crate::mining::search;
use crate::random::Random;

/// A target that one hash in 4,096 meets, and so many hashes.
const BITS: u32 = 0x2000_1000;
const HASHES: f64 = 4_096.0;

/// Searches.
const SEARCHES: u64 = 2_000;

/// Classes that are equally likely.
const CLASSES: usize = 10;

/// χ² with nine degrees of freedom is above this once in a thousand times (its 99.9 % quantile).
const MOST_CHI_SQUARE: f64 = 27.877;

/// The tries of so many real searches, in parts of the mean.
pub fn intervals(searches: u64, seed: u64) -> Vec<f64> {
    let random = &mut Random::new(seed);
    (0..searches)
        .map(|_| {
            let job = SearchJob::new(HeaderHash(random.bytes()), BlockId(random.bytes()), 1, BITS);
            search(job).0 as f64 / HASHES
        })
        .collect()
}

/// How many fall into each of ten classes that are equally likely, and χ².
pub fn classes(intervals: &[f64]) -> ([u64; CLASSES], f64) {
    let mut counts = [0; CLASSES];
    for interval in intervals {
        let place = (1.0 - (-interval).exp()) * CLASSES as f64;
        counts[(place as usize).min(CLASSES - 1)] += 1;
    }
    let due = intervals.len() as f64 / CLASSES as f64;
    let chi_square = counts.iter().map(|&count| (count as f64 - due).powi(2) / due).sum();
    (counts, chi_square)
}

/// Prints the table.
pub fn print() -> bool {
    let intervals = intervals(SEARCHES, 1);
    let (counts, chi_square) = classes(&intervals);
    println!("{SEARCHES} real searches at {HASHES} hashes each in the mean; ten classes:");
    println!("  interval / mean        searches   expected");
    for (class, count) in counts.iter().enumerate() {
        let edge = |class: usize| (1.0 / (1.0 - class as f64 / CLASSES as f64)).ln();
        let to = if class + 1 == CLASSES {
            "   ∞  ".into()
        } else {
            format!("{:6.3}", edge(class + 1))
        };
        println!("  {:6.3} to {to}   {count:>12}   {:>8}", edge(class), SEARCHES / CLASSES as u64);
    }
    let right = chi_square < MOST_CHI_SQUARE;
    println!("χ² = {chi_square:.2} with nine degrees of freedom: {}", word(right));
    right
}
