//! A server's files, and what a crash makes of them.
//!
//! ```text
//!   Persist, Persist, Send, Apply, Send      the fuse burns by one at each; when it is out, the
//!      └───────┴─► one append                server is dead: in an append, a prefix of its records
//!                                            (or all, or none) is on disk
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::rc::Rc;

use rota_core::block::Choice;
use rota_core::error::Fault;
use rota_core::journal::{Entry, HardState, Record};
use rota_core::message::{Fetch, Message};
use rota_core::types::{BlockId, ChainId, Height, Slot};
use rota_store::chain_db::ChainDb;
use rota_store::host::Journal;

use crate::random::Random;
use crate::{Counters, Fault as Kind};

/// Counts a server's outputs down to the one at which it dies.
#[derive(Clone, Default)]
pub struct Fuse(Rc<Cell<Option<u64>>>);

impl Fuse {
    /// Lights it: so many outputs are still carried out.
    pub fn light(&self, outputs: u64) {
        self.0.set(Some(outputs));
    }

    /// Puts it out.
    pub fn put_out(&self) {
        self.0.set(None);
    }

    /// Whether it is lit.
    pub fn is_lit(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether the server is dead.
    pub fn is_out(&self) -> bool {
        self.0.get() == Some(0)
    }

    /// One output is to be carried out; false if the server is dead.
    pub fn burn(&self) -> bool {
        match self.0.get() {
            Some(0) => false,
            Some(left) => {
                self.0.set(Some(left - 1));
                left > 1
            }
            None => true,
        }
    }
}

/// What a server ever had on disk of its own word, to hold against what it says.
#[derive(Default)]
pub struct Durable {
    /// Its votes.
    pub votes: BTreeSet<(Slot, Choice)>,
    /// Its proposals.
    pub proposals: BTreeSet<BlockId>,
    /// Its highest final block.
    pub height: Height,
    /// That block's slot.
    pub slot: Slot,
    /// `raft`: its term and vote.
    pub hard_state: HardState,
    /// `raft`: its log, by index: terms and blocks.
    pub log: BTreeMap<u64, (u64, Option<BlockId>)>,
}

impl Durable {
    fn remember(&mut self, chain: ChainId, record: &Record) {
        match record {
            Record::Notarized { vote, .. }
            | Record::Nullified(vote)
            | Record::Finalizing { vote, .. } => {
                self.votes.insert((vote.slot, vote.choice));
            }
            Record::Proposed(proposal) => {
                self.proposals.insert(proposal.block.id(chain));
            }
            Record::Finalized { blocks, .. } => {
                if let Some(highest) = blocks.last().map(|block| &block.header) {
                    self.height = self.height.max(highest.height);
                    self.slot = self.slot.max(highest.slot);
                }
            }
            Record::HardState(state) => self.hard_state = *state,
            Record::Entry(Entry { index, term, block }) => {
                self.log.split_off(index);
                self.log.insert(*index, (*term, block.as_ref().map(|block| block.id(chain))));
            }
            Record::Entered(_) | Record::Fetched(_) | Record::Connected { .. } => {}
        }
    }

    /// Whether a block that is to be executed would be found again after a crash: its finalization
    /// is on disk, or (`raft`) its entry.
    pub fn has(&self, height: Height, slot: Slot, id: BlockId) -> bool {
        let entry = self.log.get(&slot.0);
        self.height >= height || entry.is_some_and(|(_, block)| *block == Some(id))
    }
}

/// The server's log, which a crash can cut short.
pub struct SimJournal {
    /// The real one, shared with whoever serves and replays.
    pub chain_db: Rc<RefCell<ChainDb>>,
    /// What was ever appended.
    pub durable: Rc<RefCell<Durable>>,
    /// How many records the step in progress appended.
    pub appended: Rc<Cell<u64>>,
    /// Where the crash comes.
    pub fuse: Fuse,
    /// Which database this is.
    pub chain: ChainId,
    /// Whether an append is counted on to be one: all of it or nothing.
    pub atomic: bool,
    /// Records noted since the last append.
    pub noted: Vec<Record>,
    /// Whether a crash keeps the append in progress.
    pub random: Random,
    /// What was met.
    pub met: Rc<RefCell<Counters>>,
}

impl SimJournal {
    fn write(&mut self, records: &[Record]) -> Result<(), Fault> {
        if records.is_empty() {
            return Ok(());
        }
        self.chain_db.borrow_mut().append(records)?;
        self.appended.set(self.appended.get() + records.len() as u64);
        let mut durable = self.durable.borrow_mut();
        for record in self.noted.drain(..).as_slice().iter().chain(records) {
            durable.remember(self.chain, record);
        }
        Ok(())
    }
}

impl Drop for SimJournal {
    /// What was only noted goes with the server.
    fn drop(&mut self) {
        let lost = self.noted.len() as u64;
        self.met.borrow_mut().count_many(Kind::LostNote, lost);
    }
}

impl Journal for SimJournal {
    fn append(&mut self, records: &[Record]) -> Result<(), Fault> {
        let reached = records.iter().take_while(|_| self.fuse.burn()).count();
        if !self.fuse.is_out() {
            return self.write(records);
        }
        let part = if self.atomic { 0 } else { reached };
        let kept = self.random.choose(&[0, part, records.len()]);
        let kind = if kept < records.len() { Kind::LostRecords } else { Kind::KeptRecords };
        self.met.borrow_mut().count(kind);
        self.write(&records[..kept])?;
        Err(Fault::storage("appending", "the power went away"))
    }

    fn note(&mut self, record: Record) {
        self.noted.push(record.clone());
        self.chain_db.borrow_mut().note(record);
    }

    fn serve(&mut self, fetch: &Fetch) -> Result<Option<Message>, Fault> {
        self.chain_db.borrow_mut().serve(fetch)
    }
}

/// The files of a home that a crash leaves.
const FILES: [&str; 5] = ["state.db", "state.db-wal", "chain.db", "chain.db-wal", "chain.db-redo"];

/// A copy of some files, taken between two SQLite transactions.
#[derive(Clone)]
pub struct Copy(Vec<(&'static str, Option<Vec<u8>>)>);

impl Copy {
    /// Of all files: closing a database tidies up its write-ahead log, which a killed process never
    /// does.
    pub fn of_all(home: &Path) -> Self {
        Self::of(home, &FILES)
    }

    /// Of the state alone.
    pub fn of_state(home: &Path) -> Self {
        Self::of(home, &FILES[..2])
    }

    /// No state at all.
    pub fn no_state() -> Self {
        Self(FILES[..2].iter().map(|&name| (name, None)).collect())
    }

    fn of(home: &Path, names: &[&'static str]) -> Self {
        Self(names.iter().map(|&name| (name, fs::read(home.join(name)).ok())).collect())
    }

    /// Puts the files back. The databases must be closed.
    pub fn restore(&self, home: &Path) -> std::io::Result<()> {
        for (name, bytes) in &self.0 {
            let path = home.join(name);
            match bytes {
                Some(bytes) => fs::write(path, bytes)?,
                None if path.exists() => fs::remove_file(path)?,
                None => {}
            }
        }
        for index in ["state.db-shm", "chain.db-shm"] {
            let path = home.join(index);
            if path.exists() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_replaces_all_from_its_place_on() {
        let mut durable = Durable::default();
        for (index, term) in [(1, 1), (2, 1), (3, 1), (2, 2)] {
            let entry = Entry { index, term, block: None };
            durable.remember(ChainId::default(), &Record::Entry(entry));
        }
        assert_eq!(durable.log.into_iter().collect::<Vec<_>>(), [(1, (1, None)), (2, (2, None))]);
    }

    #[test]
    fn a_fuse_lets_so_many_outputs_pass() {
        let fuse = Fuse::default();
        assert!(fuse.burn() && !fuse.is_out());
        fuse.light(3);
        assert_eq!(
            [fuse.burn(), fuse.burn(), fuse.burn(), fuse.burn()],
            [true, true, false, false]
        );
        assert!(fuse.is_out());
    }
}
