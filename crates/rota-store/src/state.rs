//! `state.db`: the state machine.

use std::path::Path;

use rota_core::block::{Applied, Block};
use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::types::StateRoot;

use crate::value::Receipt;

/// The executor's side of `state.db`: one per server, owned by one thread.
pub struct StateDb {
    applied: Applied,
}

/// What applying a block gave.
pub struct AppliedBlock {
    /// The block's height and the root after it.
    pub applied: Applied,
    /// One per transaction applied for the first time, in order.
    pub receipts: Vec<Receipt>,
}

/// What all rows, read again, come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescan {
    /// The root recomputed.
    pub root: StateRoot,
    /// Rows whose stored leaf is another, or that have none, or leaves without a row.
    pub differing: Vec<DifferingRow>,
}

/// Names a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DifferingRow {
    /// Its table.
    pub table: String,
    /// Its key, as text.
    pub key: String,
}

impl StateDb {
    /// Opens `home/state.db`, or creates it with the state of the genesis. Refuses another chain's, format's or
    /// SQLite's file.
    pub fn open(home: &Path, genesis: &Genesis) -> Result<Self, Fault> {
        let _ = (home, genesis);
        Err(Fault::WrongFiles("not built".into()))
    }

    /// The height and root that the file holds; height 0 and the empty database's root after creation.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Applies the block after [`Self::applied`], wholly or not at all.
    pub fn apply(&mut self, block: &Block) -> Result<AppliedBlock, Fault> {
        let _ = block;
        Err(Fault::WrongFiles("not built".into()))
    }

    /// The root from all rows, and where it differs from what is stored.
    pub fn rescan(&mut self) -> Result<Rescan, Fault> {
        Err(Fault::WrongFiles("not built".into()))
    }
}
