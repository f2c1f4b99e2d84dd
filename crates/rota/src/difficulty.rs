//! How hard a new database's first blocks are to be (`pow`): measured on this machine when the
//! genesis is made, and fixed in it.

use std::time::{Duration, Instant};

use rota_core::types::BlockId;
use rota_core::work::{HeaderHash, Search, SearchJob, Step};

/// How long is measured: a processor is at its usual speed after some milliseconds.
const MEASURED: Duration = Duration::from_millis(150);

/// So many nonces at a time: a millisecond or less.
const SLICE: u32 = 1 << 13;

/// The fewest hashes a block: below, headers would be made faster than they are checked.
const FEWEST: u64 = 1 << 16;

/// The most: a cluster with more of them starts with blocks that come too fast, and is soon at its
/// spacing. It keeps the arithmetic below within 128 bits.
const MOST: u64 = 1 << 60;

/// A target that nothing meets: the search only has to be done.
const NO_TARGET: u32 = 0x0300_0001;

/// What one core of this machine hashes in a second.
pub fn hash_rate() -> u64 {
    let job = SearchJob::new(HeaderHash::default(), BlockId::default(), 0, NO_TARGET);
    let mut search = Search::new(job);
    let begun = Instant::now();
    while begun.elapsed() < MEASURED && search.step(SLICE) == Step::More {}
    (search.tried() as f64 / begun.elapsed().as_secs_f64()) as u64
}

/// The target that so many hashes meet once, on average, in Bitcoin's compact form.
pub fn bits_of(hashes: u64) -> u32 {
    // 2²⁵⁶ / hashes = (2¹²⁷ / hashes) · 2¹²⁹, of which the compact form keeps three bytes: 23 bits,
    // or fewer, since the number must end with a whole byte and not look negative.
    let quotient = (1_u128 << 127) / u128::from(hashes.clamp(FEWEST, MOST));
    let bits = 128 - quotient.leading_zeros() + 129;
    let bytes = bits / 8 + 1;
    let number = quotient >> (bytes * 8 - 24).saturating_sub(129);
    (bytes << 24) | (number as u32 & 0x007f_ffff)
}

#[cfg(test)]
mod tests {
    use rota_core::work::{Work, target_of};

    use super::*;

    #[test]
    fn bits_stand_for_the_work_that_was_asked_for() {
        for hashes in [1 << 16, 100_000, 1_000_000, 123_456_789, 1 << 40, (1 << 50) + 7, 1 << 60] {
            let bits = bits_of(hashes);
            assert!(target_of(bits).is_some(), "{hashes}: {bits:08x}");
            let work = Work::of(bits).hashes();
            assert!((work / hashes as f64 - 1.0).abs() < 1e-4, "{hashes}: {bits:08x} is {work}");
        }
        assert_eq!(bits_of(1), bits_of(FEWEST));
        assert_eq!(bits_of(u64::MAX), bits_of(MOST));
    }

    #[test]
    fn a_core_hashes() {
        assert!(hash_rate() > 1_000);
    }
}
