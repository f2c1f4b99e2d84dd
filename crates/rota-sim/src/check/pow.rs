//! `pow`: the proofs of what is final are checked once more, by the rules written anew. What a
//! server says binds it to nothing, so that nothing is held against it.

use rota_core::block::Block;
use rota_core::genesis::{Genesis, Pow};
use rota_core::types::Height;
use rota_core::work::{
    Anchor, Difficulty, HeaderHash, MEDIAN_OF, Mark, WorkProof, median_time_past,
};

/// Whether these proofs, from height 1 on, are what the genesis asks for: each the child of the one
/// before, with the target that was due, met, later than the median of the eleven before it.
pub fn proofs_are_right(genesis: &Genesis, pow: &Pow, proofs: &[WorkProof]) -> Result<(), String> {
    let genesis_s = u32::try_from(genesis.time_ms / 1_000).unwrap_or(u32::MAX);
    let parent_time = genesis_s.saturating_sub(pow.spacing_s);
    let anchor = Anchor { height: Height(0), parent_time, bits: pow.bits };
    let difficulty = Difficulty::new(pow.retarget, pow.spacing_s, pow.bits, anchor)
        .map_err(|unusable| unusable.to_string())?;
    let mut times = vec![genesis_s];
    let mut parent = Mark { height: Height(0), time: genesis_s, bits: pow.bits };
    let mut previous: Option<HeaderHash> = None;
    for proof in proofs {
        let height = parent.height.next();
        let at = |height: Height| times.get(usize::try_from(height.0).ok()?).copied();
        let due = difficulty.next(parent, at);
        if due != Some(proof.bits()) || !proof.meets_its_target() {
            return Err(format!("height {height}: {proof:?}, due {due:08x?}"));
        }
        if previous.is_some_and(|previous| previous != proof.previous()) {
            return Err(format!("height {height} is no child: {proof:?}"));
        }
        let median = median_time_past(times.iter().rev().take(MEDIAN_OF).copied());
        if median.is_some_and(|median| proof.time() <= median) {
            return Err(format!("height {height}: {proof:?}, median {median:?}"));
        }
        times.push(proof.time());
        parent = Mark { height, time: proof.time(), bits: proof.bits() };
        previous = Some(proof.hash());
    }
    Ok(())
}

/// Whether a block's time is what its ancestors' proofs say: the median of the last eleven, in
/// milliseconds. `proofs` from height 1 on.
pub fn time_is_the_median(genesis: &Genesis, proofs: &[WorkProof], block: &Block) -> bool {
    let parent = usize::try_from(block.header.height.0.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(before) = proofs.get(..parent) else { return false };
    let genesis_s = u32::try_from(genesis.time_ms / 1_000).unwrap_or(u32::MAX);
    let times = before.iter().rev().map(WorkProof::time).chain([genesis_s]);
    let median = median_time_past(times.take(MEDIAN_OF)).unwrap_or(genesis_s);
    block.header.time.0 == u64::from(median) * 1_000
}
