//! Whether headers hang together (step 6): what can be said of a peer's headers before anything
//! else is known of them, at one hash of 80 bytes each. Whether their targets and times are those
//! that were due depends on what came before ([`Difficulty`](super::Difficulty), `times`).

use super::proof::{HeaderHash, WorkProof};

/// What is wrong with a header of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It names another parent than the header before it.
    #[error("the header at {0} of the run is not the child of the one before it")]
    Unlinked(usize),
    /// Its hash is above the target that it names, or what it names is no target.
    #[error("the header at {0} of the run has too little work")]
    TooLittleWork(usize),
}

/// Checks that each header is the child of the one before it, and has the work that it says it has.
/// The parent of the first is for the caller to know.
///
/// Returns the headers' hashes, in order. Ends at the first flaw.
pub fn check_run(proofs: &[WorkProof]) -> Result<Vec<HeaderHash>, Flaw> {
    let mut hashes: Vec<HeaderHash> = Vec::with_capacity(proofs.len());
    for (place, proof) in proofs.iter().enumerate() {
        if hashes.last().is_some_and(|before| *before != proof.previous()) {
            return Err(Flaw::Unlinked(place));
        }
        hashes.push(proof.checked_hash().ok_or(Flaw::TooLittleWork(place))?);
    }
    Ok(hashes)
}
