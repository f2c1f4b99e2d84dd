//! Proof of work: the arithmetic and hashing that steps 4 and 6 rest on under `pow`. Nothing here
//! knows of blocks' bodies, branches or peers; that is `consensus`.
//!
//! ```text
//!  parent's header ─► difficulty: what target is due ─┐
//!  last 11 times   ─► times: what time may be said   ─┼─► SearchJob ─► search ─► WorkProof
//!  the block's id  ───────────────────────────────────┘                            │
//!                              run: is a chain of headers what it says? ◄──────────┘
//!                              sum: how much work is it? ─► the branch with most is the chain
//! ```
//!
//! A proof is a real Bitcoin header of 80 bytes, so that anything that understands Bitcoin's
//! headers understands ours; types and target arithmetic come from the `bitcoin` crate.

mod bound;
mod difficulty;
mod proof;
mod run;
mod search;
mod sum;
#[cfg(test)]
mod tests;
mod times;
mod wide;

pub use bound::reversal_bound;
pub use difficulty::{Anchor, Difficulty, Mark, Retarget, Unusable};
pub use proof::{HeaderHash, WorkProof, target_of};
pub use run::{Flaw, check_run};
pub use search::{Search, SearchJob, Step};
pub use sum::Work;
pub use times::{
    MAX_FUTURE_S, MAX_FUTURE_SPACINGS, MEDIAN_OF, is_too_far_ahead, median_time_past, most_ahead_s,
};
