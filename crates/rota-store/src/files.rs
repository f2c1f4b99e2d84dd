//! A server's files, opened in the right order: what a crash, a snapshot or a deep reorganisation
//! has left to do is done first. Before the nine steps; node and simulator begin here.
//!
//! ```text
//!   finish a swap ─► chain.db ─► snapshots ─► (going back?) ─► state.db ─► too old for chain.db?
//!                    missing: no vote                          then: the newest own snapshot
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::types::Height;

use crate::chain_db::{ChainDb, Rewound};
use crate::snapshot::Snapshots;
use crate::snapshot::swap::{self, Incoming};
use crate::state::{STATE_FILE, StateDb};

/// What `state.db` is renamed to when it is of no use without the log that was lost.
const SET_ASIDE: &str = "state.db.without-log";

/// All that a server keeps.
pub struct Files {
    /// The database.
    pub state: StateDb,
    /// The log; it offers `snapshots` to others.
    pub chain: ChainDb,
    /// Copies of the database.
    pub snapshots: Arc<Snapshots>,
    /// Where one that is fetched is put together.
    pub incoming: Incoming,
}

impl Files {
    /// Opens a home's files. `state` may still lack blocks that `chain` has: those are to be
    /// executed next.
    pub fn open(home: &Path, genesis: &Genesis) -> Result<Self, Fault> {
        if swap::finish(home)? {
            tracing::info!("begins from a snapshot that was taken over");
        }
        let incoming = Incoming::new(home)?;
        let mut chain = ChainDb::open_existing(home, genesis)?;
        let snapshots = Snapshots::open(home, genesis)?;
        chain.offer_from(Arc::clone(&snapshots))?;
        if let Some(height) = chain.rewinding()? {
            go_back(home, genesis, (&chain, &snapshots), height)?;
            chain.is_back()?;
        }
        let state = open_state(home, genesis, &chain, &snapshots)?;
        chain.settle(state.applied().height)?;
        Ok(Self { state, chain, snapshots, incoming })
    }
}

/// Removes the final blocks above a height (`pow`). The next [`Files::open`] does the rest. Nobody
/// else may have the home's files open. Where too much is pruned to begin from there, nothing is
/// changed, and the answer says so.
pub fn undo(home: &Path, genesis: &Genesis, height: Height) -> Result<Rewound, Fault> {
    let mut chain = ChainDb::open_existing(home, genesis)?;
    chain.offer_from(Snapshots::open(home, genesis)?)?;
    let lowest = chain.goes_back_to();
    if height < lowest {
        let height = chain.height();
        return Ok(Rewound { height, transactions: 0, too_deep_below: Some(lowest) });
    }
    chain.rewind(height)
}

/// The height from which on `chain` has all blocks.
pub(crate) fn begins(chain: &ChainDb) -> Height {
    match chain.begins_with_snapshot() {
        Some(base) if base == chain.lowest() => base,
        _ => Height(chain.lowest().0.saturating_sub(1)),
    }
}

/// Brings `state.db` to this height or below.
fn go_back(
    home: &Path,
    genesis: &Genesis,
    (chain, snapshots): (&ChainDb, &Snapshots),
    height: Height,
) -> Result<(), Fault> {
    snapshots.remove_above(height)?;
    let newest = StateDb::open(home, genesis)?.applied().height;
    if newest <= height || swap::go_back(home, snapshots, (begins(chain), height))? {
        return Ok(());
    }
    Err(Fault::WrongFiles(format!(
        "blocks above height {height} were undone, and there is no older snapshot to begin from: \
         start from an empty home"
    )))
}

fn open_state(
    home: &Path,
    genesis: &Genesis,
    chain: &ChainDb,
    snapshots: &Snapshots,
) -> Result<StateDb, Fault> {
    let state = StateDb::open(home, genesis)?;
    let (height, first) = (state.applied().height, begins(chain));
    if height < first {
        drop(state);
        if !swap::go_back(home, snapshots, (first, chain.height()))? {
            return Err(Fault::WrongFiles(format!(
                "state.db is at height {height}, the blocks in chain.db begin after {first}, and \
                 there is no snapshot in between: remove both files, and this server fetches what \
                 it lacks, but as a follower that does not vote"
            )));
        }
        return StateDb::open(home, genesis);
    }
    let is_alone = genesis.members.len() < 2;
    if height > Height(0) && chain.height() == Height(0) && chain.is_wiped()? && !is_alone {
        drop(state);
        set_aside(home)?;
        return StateDb::open(home, genesis);
    }
    Ok(state)
}

/// A database whose blocks are lost is fetched anew: nobody vouches for it.
fn set_aside(home: &Path) -> Result<(), Fault> {
    let (from, to) = (home.join(STATE_FILE), home.join(SET_ASIDE));
    tracing::warn!("state.db is set aside as {SET_ASIDE}: it is fetched anew");
    fs::rename(&from, &to)
        .map_err(|error| Fault::storage(format!("renaming {}", from.display()), error))
}
