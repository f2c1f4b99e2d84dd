//! How often two blocks are found at one height, against how long a block takes to everybody:
//! `1 − exp(−(1 − share) · delay / interval)`, since whoever found the first one mines on it at
//! once (Decker and Wattenhofer 2013, the miner's own share taken out). Through the real Replica
//! with real searches, in the simulator: every message takes the same time, the target is fixed.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::genesis::Pow;
use rota_core::types::BlockId;
use rota_core::work::{HeaderHash, Retarget};

use super::{MOST_ERRORS, word};
use crate::mining::FoundBlock;
use crate::{Micros, Plan, SECOND, World};

/// The time between two blocks, in seconds: the simulated disks and executors take a ten-thousandth
/// of it.
const SPACING_S: u32 = 10;

/// A target that one hash in 8,192 meets, and so many hashes: with ten miners a nonce takes a
/// hundredth of a second.
const BITS: u32 = 0x2000_0800;
const HASHES: u64 = 8_192;

/// Blocks a row.
const BLOCKS: u64 = 4_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// The miners' shares of the hash rate, in hundredths.
    pub shares: Vec<u64>,
    /// How long a message takes over the time between two blocks.
    pub ratio: f64,
    /// Heights at which a block was found that is not on the chain, over all heights.
    pub measured: f64,
    /// By the formula.
    pub expected: f64,
    /// The standard error of so many heights.
    pub error: f64,
    /// Heights.
    pub heights: u64,
}

impl Row {
    /// How many standard errors are between.
    pub fn z(&self) -> f64 {
        (self.measured - self.expected) / self.error
    }
}

/// The formula: of each miner's blocks so many meet another one, weighted by how many it finds.
pub fn expected(shares: &[u64], ratio: f64) -> f64 {
    let all: u64 = shares.iter().sum();
    let share = |&share: &u64| share as f64 / all as f64;
    shares.iter().map(share).map(|share| share * (1.0 - (-(1.0 - share) * ratio).exp())).sum()
}

/// Measures one row.
pub fn measure(shares: &[u64], ratio: f64, blocks: u64, seed: u64) -> Row {
    let all: u64 = shares.iter().sum();
    let mut plan = Plan::miners(
        "stale-rate",
        seed,
        shares.len(),
        0,
        Pow {
            spacing_s: SPACING_S,
            bits: BITS,
            // Longer than any run: the target never changes.
            retarget: Retarget::Bitcoin { interval: 1_000_000 },
            depth: 20,
            reward: 0,
            fee_per_kb: 0,
        },
    );
    // Whole hashes a second; the spacing and the shares follow from what they come to.
    let rate = |share| HASHES * share / (u64::from(SPACING_S) * all);
    plan.hash_rates = shares.iter().map(rate).collect();
    let total: u64 = plan.hash_rates.iter().sum();
    let interval = HASHES as f64 / total as f64;
    let delay = (interval * ratio * SECOND as f64) as Micros;
    (plan.weather.delay_min, plan.weather.delay_max) = (delay, delay);
    plan.clients = Vec::new();
    // Then the weather becomes calm, and all meet on one chain.
    plan.faults_end = (blocks as f64 * interval * SECOND as f64) as Micros;
    plan.settle = 1_000 * SECOND;
    let rates = plan.hash_rates.clone();
    let outcome = World::run(plan, false);
    assert!(outcome.broken.is_none(), "{outcome}");
    let chain = &outcome.chains[0];
    let heights = chain.len() as u64;
    let forked = forked_heights(&outcome.found, chain) as f64;
    let expected = expected(&rates, ratio);
    Row {
        shares: shares.to_vec(),
        ratio,
        measured: forked / heights as f64,
        expected,
        error: (expected * (1.0 - expected) / heights as f64).sqrt(),
        heights,
    }
}

/// At how many heights of the chain another block was found.
fn forked_heights(found: &[FoundBlock], chain: &[BlockId]) -> usize {
    let mut heights: BTreeMap<HeaderHash, usize> = BTreeMap::new();
    let mut forked = BTreeSet::new();
    for block in found {
        let height = heights.get(&block.previous).map_or(1, |parent| parent + 1);
        heights.insert(block.hash, height);
        if chain.get(height - 1).is_some_and(|final_one| *final_one != block.id) {
            forked.insert(height);
        }
    }
    forked.len()
}

/// Prints the table.
pub fn print() -> bool {
    println!("Real searches and the real Replica; all messages take the same time; fixed target.");
    print!("  miners' shares          delay/interval   heights   expected   measured");
    println!("   standard error      z");
    let equal = [10_u64; 10];
    let unequal = [40_u64, 20, 10, 10, 10, 10];
    let ratios = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
    let rows = ratios.iter().map(|&ratio| (equal.as_slice(), ratio));
    let rows = rows.chain([0.1, 0.2].map(|ratio| (unequal.as_slice(), ratio)));
    let mut right = true;
    for (seed, (shares, ratio)) in (1..).zip(rows) {
        let row = measure(shares, ratio, BLOCKS, seed);
        let name = match shares.len() {
            10 => "ten of 10 %",
            _ => "40, 20, four of 10 %",
        };
        right &= row.z().abs() <= MOST_ERRORS;
        println!(
            "  {name:<22}   {ratio:>14.2}   {:>7}   {:>8.4}   {:>8.4}   {:>14.4}   {:>+4.1}",
            row.heights,
            row.expected,
            row.measured,
            row.error,
            row.z()
        );
    }
    println!("1 − exp(−(1 − share) · delay / interval): {}", word(right));
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_share_of_ones_own_it_is_decker_and_wattenhofers_formula() {
        assert!((expected(&[1; 10_000], 0.1) - (1.0 - (-0.1_f64).exp())).abs() < 1e-4);
        // Who has all the hash power meets nobody.
        assert!(expected(&[7], 5.0).abs() < 1e-12);
    }

    #[test]
    fn a_height_with_two_blocks_is_counted_once() {
        let [id_a, id_b, id_c, id_d] = [1, 2, 3, 4].map(|byte| BlockId([byte; 32]));
        let block = |hash: u8, previous: u8, id| FoundBlock {
            at: 0,
            server: 0,
            hash: HeaderHash([hash; 32]),
            previous: HeaderHash([previous; 32]),
            id,
        };
        let found = [block(1, 0, id_a), block(2, 1, id_b), block(3, 1, id_c), block(4, 1, id_d)];
        assert_eq!(forked_heights(&found, &[id_a, id_b]), 1);
        assert_eq!(forked_heights(&found[..2], &[id_a, id_b]), 0);
    }
}
