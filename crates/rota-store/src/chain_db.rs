//! `chain.db`, the durable log: what this server has promised (steps 4 to 7), the final blocks, and
//! what became of each transaction (step 8). SQLite with `synchronous=FULL`: a commit is one fsync,
//! and nothing is sent before it. `raft`'s entries are flushed to a `redo` log first.
//!
//! ```text
//!   blocks         one row per height ──┐                       visible to clients as chain.blocks
//!   certificates   by height            ├──► bodies   blocks by slot and id, each written once
//!   tail           votes and proposals  ┘             of slots above the last final one, in order
//!   receipts       by (height, position) ◄── runs of their ids, sorted    chain.receipts
//!   undone         transactions of blocks that were not final after all (pow)   chain.undone
//!   messages       why those failed that did                   ──┐
//!   bodies, and who asks (`query::told`)                       ──┴──►     chain.transactions
//! ```
//!
//! What is final is apart from the tail, which empties each time a block becomes final: the log
//! needs no compaction. `prune` deletes old blocks where that is wanted; `offers` answers who lags;
//! `anew` is for servers that begin with a snapshot. A body is written when the first record
//! mentions it and never again: its proposal, our vote for it and its finalization refer to it by
//! slot and id.

mod anew;
mod entries;
mod offers;
mod prune;
mod redo;
mod returned;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use borsh::{BorshDeserialize, BorshSerialize};
use rota_core::block::{Block, Certificate, Choice, Finality, Proposal, Vote};
use rota_core::codec::{decode, encode};
use rota_core::crypto::Signature;
use rota_core::error::Fault;
use rota_core::genesis::{FORMAT, Genesis};
use rota_core::journal::{Entry, HardState, Record, Recovered};
use rota_core::members::Members;
use rota_core::message::{Fetch, FinalBlocks, MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, Message};
use rota_core::types::{BlockId, ChainId, Height, Slot};
use rota_core::work::WorkProof;
use rusqlite::types::Value as Sql;
use rusqlite::wal::CheckpointMode;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, TransactionBehavior};

use crate::host::Journal;
use crate::sqlite::reserve_bytes;
use crate::value::Receipt;

pub use anew::Rewound;
use offers::{Named, Offers, named_by};
use prune::Prune;
pub(crate) use redo::END as REDO;
use redo::Redo;
use returned::RETURNED;
use writing::{Writing, write_fault};

/// The file's name in a server's home.
pub const FILE: &str = "chain.db";

/// So many pages of 4 KiB (4 MiB) in the write-ahead log, and it is copied into the database file.
const CHECKPOINT_PAGES: i64 = 1000;

/// So many receipts, and their ids are sorted into a run. Ids are hashes: in one index, each would
/// touch a page of its own, 4 KiB to be logged and fsynced for 40 bytes. Small enough to sort
/// within some milliseconds, large enough that a search, which looks into each run, stays under a
/// millisecond for millions of receipts.
const RUN_RECEIPTS: i64 = 4096;

/// Room for the prepared statements of this file, all of them.
const CACHED_STATEMENTS: usize = 32;

/// How long to wait for a lock that a reader's connection holds; it never holds one for longer than
/// it takes to read a header, so that running into this is a fault.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE rota_about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE rota_bodies (slot INTEGER, id BLOB, block BLOB NOT NULL, PRIMARY KEY (slot, id));
CREATE TABLE blocks (
    height INTEGER PRIMARY KEY, slot INTEGER NOT NULL, epoch INTEGER NOT NULL,
    leader TEXT NOT NULL, turn TEXT NOT NULL, time TEXT NOT NULL, time_ms INTEGER NOT NULL,
    transactions INTEGER NOT NULL, bytes INTEGER NOT NULL, id TEXT NOT NULL
);
CREATE TABLE rota_certificates (height INTEGER PRIMARY KEY, certificate BLOB NOT NULL);
CREATE TABLE rota_tail (
    number INTEGER PRIMARY KEY, slot INTEGER NOT NULL, body BLOB, record BLOB NOT NULL
);
CREATE TABLE receipts (
    height INTEGER, position INTEGER, sqlstate TEXT, tag TEXT, key BLOB NOT NULL,
    id TEXT AS (lower(hex(key))), PRIMARY KEY (height, position)
) WITHOUT ROWID;
CREATE TABLE rota_messages (
    height INTEGER, position INTEGER, message TEXT NOT NULL, PRIMARY KEY (height, position)
) WITHOUT ROWID;
CREATE VIEW transactions AS
    SELECT height, position, id,
        rota_told(height, position, 'signer') AS signer,
        rota_told(height, position, 'user') AS username, -- `user` is the caller, in PostgreSQL
        rota_told(height, position, 'statements') AS statements,
        sqlstate, ifnull(tag, rota_told(height, position, 'message')) AS outcome
    FROM receipts WHERE rota_told(height, position, 'user') IS NOT NULL;
CREATE TABLE rota_runs (run INTEGER PRIMARY KEY, last_height INTEGER NOT NULL);
CREATE TABLE rota_receipt_runs (
    run INTEGER, key BLOB, height INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE TABLE undone (
    height INTEGER, position INTEGER, block TEXT NOT NULL, undone_at TEXT NOT NULL,
    again INTEGER, key BLOB NOT NULL, id TEXT AS (lower(hex(key)))
);
CREATE INDEX rota_undone ON undone (key);
";

/// Under `pow` old blocks are asked for by id, headers first; under no other method: an index of
/// hashes would have each block touch a page of its own, the more the longer the chain.
const IDS: &str = "CREATE INDEX IF NOT EXISTS rota_ids ON blocks (id)";

/// Where there is no such index, so many of the newest final blocks are found by id: who asks was
/// told of one a moment ago.
const FOUND_BY_ID: u64 = 1_000;

/// The tables of which clients may read all columns; the others have names that no table of a
/// client can have, since the authorizer is not always told which file a table is in. They are
/// not views of private ones, since SQLite's authorizer can not tell a view from a subquery of the
/// same name: what is in these is for everybody. `transactions` shows others' statements and error
/// messages to administrators only: each row by `rota_told`, which knows who asks.
pub(crate) const PUBLIC_TABLES: [&str; 4] = ["blocks", "receipts", "transactions", "undone"];

/// All others.
pub(crate) const PRIVATE_TABLES: [&str; 8] = [
    "rota_about",
    "rota_bodies",
    "rota_certificates",
    "rota_messages",
    "rota_tail",
    "rota_runs",
    "rota_receipt_runs",
    "rota_returned",
];

/// Where a transaction stands, by its id: newest receipts, which are in no run yet, are looked
/// through one by one. A transaction can have several: one that was refused unexecuted and is not
/// remembered may have stood in a later block; the newest counts.
pub(crate) const FIND_RECEIPT: &str = "
SELECT height, position, sqlstate, message FROM (
    SELECT height, position FROM chain.rota_receipt_runs
        WHERE run IN (SELECT run FROM chain.rota_runs) AND key = ?1
    UNION ALL
    SELECT height, position FROM chain.receipts
        WHERE height > (SELECT ifnull(max(last_height), 0) FROM chain.rota_runs) AND key = ?1
) CROSS JOIN chain.receipts USING (height, position)
LEFT JOIN chain.rota_messages USING (height, position)
ORDER BY height DESC, position DESC LIMIT 1";

/// An answer holds no more blocks than this, however small they are: each is looked up for itself,
/// some ten microseconds from memory and a hundred from a disk, while the replica waits.
const MAX_ANSWER_BLOCKS: usize = 1_000;

/// The log of one server. Owned by the thread that owns the replica.
pub struct ChainDb {
    connection: Connection,
    chain: ChainId,
    members: Members,
    /// The last final block's height and slot; zero for genesis.
    last: (Height, Slot),
    /// The bodies that are not final yet, with their slots.
    pending: BTreeMap<BlockId, Slot>,
    /// The slot of the newest entry in the tail, or a later one (`raft`).
    tail_end: Slot,
    /// Waiting for the next append.
    receipts: Vec<Receipt>,
    /// The same, in the order in which they came: entries that are in the redo log, and records on
    /// which nothing depends that is sent.
    unwritten: Vec<Record>,
    /// Where the redo log is, and the log itself, if there is one.
    redo_path: PathBuf,
    redo: Option<Redo>,
    /// Receipts on disk that are in no run yet; not known before the first append.
    unsorted: Option<i64>,
    fsyncs: u64,
    wal: Arc<AtomicI64>,
    /// With so many pages in the write-ahead log it is copied next.
    checkpoint_at: i64,
    offers: Offers,
    prune: Prune,
    /// Whether something that was undone has not been applied again.
    awaits_undone: bool,
}

/// A record as it is stored: with its block's id instead of the block. Its bytes, like everything
/// of ours, are canonical.
#[derive(BorshSerialize, BorshDeserialize)]
enum Stored {
    Entered(Certificate),
    Proposed { block: BlockId, signature: Signature },
    Notarized { vote: Vote, block: BlockId },
    Nullified(Vote),
    Finalizing { vote: Vote, notarization: Certificate },
    Fetched { block: BlockId },
    Entry { index: u64, term: u64, block: Option<BlockId> },
    Connected { proof: WorkProof },
}

impl ChainDb {
    /// Opens `home/chain.db`, or creates it. Refuses the log of another database or of another
    /// version of Rota. For a home of which it is known that nothing was ever said in its name; any
    /// other is opened by [`ChainDb::open_existing`].
    pub fn open(home: &Path, genesis: &Genesis) -> Result<Self, Fault> {
        Self::open_as(home, genesis, false)
    }

    fn open_as(home: &Path, genesis: &Genesis, is_wiped: bool) -> Result<Self, Fault> {
        let path = home.join(FILE);
        let doing = || format!("opening {}", path.display());
        let members = genesis.check().map_err(Fault::WrongFiles)?;
        let mut connection =
            Connection::open(&path).map_err(|error| Fault::storage(doing(), error))?;
        let wal = Arc::new(AtomicI64::new(0));
        prepare_connection(&mut connection, wal.clone())
            .map_err(|error| Fault::storage(doing(), error))?;
        let mut this = Self {
            connection,
            chain: genesis.chain_id(),
            members,
            last: (Height(0), Slot(0)),
            pending: BTreeMap::new(),
            tail_end: Slot(0),
            receipts: Vec::new(),
            unwritten: Vec::new(),
            redo_path: home.join(redo::name()),
            redo: None,
            unsorted: None,
            fsyncs: 0,
            wal,
            checkpoint_at: CHECKPOINT_PAGES,
            offers: Offers::default(),
            prune: Prune::default(),
            awaits_undone: false,
        };
        this.check_or_create(&path, is_wiped)?;
        this.extend_schema().map_err(|error| Fault::storage(doing(), error))?;
        this.load_ends().map_err(|error| Fault::storage(doing(), error))?;
        this.write_redone()?;
        Ok(this)
    }

    /// What a restarted server knows. Everything read is decoded canonically and compared with its
    /// id: a log with a flipped bit is a fault, never a shorter log.
    pub fn recover(&mut self) -> Result<Recovered, Fault> {
        let last = match self.last.0 {
            Height(0) => None,
            height => {
                let block = self.final_block(height)?.ok_or_else(|| self.corrupt("blocks"))?;
                let finality = self.finality(height)?;
                if !proves(&finality, block.id(self.chain)) {
                    return Err(self.corrupt("the newest final block's certificate"));
                }
                Some((block, finality))
            }
        };
        let mut tail = Vec::new();
        let mut bodies = BTreeMap::new();
        for (slot, bytes) in self.stored_tail()? {
            let stored = unseal(&bytes).ok_or_else(|| self.corrupt("tail"))?;
            let record = self.restore(slot, stored, &mut bodies)?;
            if record.slot() != slot {
                return Err(self.corrupt("tail (slot)"));
            }
            tail.push(record);
        }
        let (hard_state, proofs) = (self.hard_state()?, self.proofs()?);
        let (is_wiped, distrusted) = (self.is_wiped()?, Vec::new());
        let (roots, goes_back_to) = (Vec::new(), self.goes_back_to());
        let header = last.as_ref().map(|(block, _): &(Arc<Block>, Finality)| &block.header);
        let (height, time) = header.map(|header| (header.height, header.time)).unwrap_or_default();
        let waiting = self.returned(height, time)?;
        Ok(Recovered {
            last,
            tail,
            hard_state,
            roots,
            proofs,
            waiting,
            goes_back_to,
            is_wiped,
            distrusted,
        })
    }

    /// The final block of this height, if there is one; not for genesis, which is in no log.
    pub fn final_block(&mut self, height: Height) -> Result<Option<Arc<Block>>, Fault> {
        let sql = "SELECT slot, id FROM blocks WHERE height = ?1";
        let found = self.read(sql, |statement| {
            let read = |row: &Row<'_>| Ok((Slot(count(row, 0)?), block_id(row, 1)?));
            statement.query_row([number(height.0)], read).optional()
        })?;
        let Some((slot, id)) = found else { return Ok(None) };
        let block = self.body(slot, id)?.ok_or_else(|| self.corrupt("bodies (missing)"))?;
        if block.header.height != height {
            return Err(self.corrupt("blocks (height)"));
        }
        Ok(Some(block))
    }

    /// Remembers what became of transactions. They are written with the next append, without an
    /// fsync of their own: after a power loss `state.db` still knows the newest of them.
    pub fn save_receipts(&mut self, receipts: Vec<Receipt>) {
        self.receipts.extend(receipts);
    }

    /// The newest block whose receipts are here; 0 if there are none.
    pub fn newest_receipt(&self) -> Result<Height, Fault> {
        let sql = "SELECT ifnull(max(height), 0) FROM receipts";
        let height: i64 = self
            .connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| Fault::storage("looking for the newest receipt", error))?;
        Ok(Height(u64::try_from(height).unwrap_or(0)))
    }

    /// How often this log was flushed to disk since it was opened.
    pub fn fsyncs(&self) -> u64 {
        self.fsyncs
    }

    /// The newest final block's height; 0 before the first.
    pub fn height(&self) -> Height {
        self.last.0
    }
}

impl Journal for ChainDb {
    /// One durable transaction, whatever it holds. With nothing to write it does nothing.
    fn append(&mut self, records: &[Record]) -> Result<(), Fault> {
        if records.is_empty() && self.receipts.is_empty() && self.unwritten.is_empty() {
            return Ok(());
        }
        self.fsyncs += 1;
        if self.can_wait(records) && self.flush_alone(records)? {
            self.unwritten.extend_from_slice(records);
            return Ok(());
        }
        let written = match self.unwritten.as_slice() {
            [] => self.write(records)?,
            before => self.write(&[before, records].concat())?,
        };
        self.receipts.clear();
        self.unwritten.clear();
        if let Some(redo) = self.redo.as_mut().filter(|redo| !redo.is_empty()) {
            redo.begin_again();
        }
        self.unsorted = written.unsorted;
        self.last = written.last;
        self.tail_end = written.tail_end;
        self.pending.extend(written.new);
        for id in written.gone {
            self.pending.remove(&id);
        }
        self.look_at_snapshots(written.named);
        self.checkpoint()
    }

    fn note(&mut self, record: Record) {
        self.unwritten.push(record);
    }

    fn serve(&mut self, fetch: &Fetch) -> Result<Option<Message>, Fault> {
        match fetch {
            Fetch::FinalAfter(height) => match self.noted_after(*height) {
                Some(blocks) => Ok(Some(Message::Final(blocks))),
                None => self.blocks_or_offer(*height),
            },
            Fetch::Block(id) => Ok(self.body_by_id(*id)?.map(Message::Pending)),
            Fetch::Chunk { height, number } => Ok(self.chunk(*height, *number)),
            // Core keeps certificates of slots that are not final, and all proofs.
            Fetch::CertificatesAfter(_) | Fetch::ProofsAfter(_) => Ok(None),
        }
    }
}

/// What an append changed, for `ChainDb`'s memory.
struct Written {
    last: (Height, Slot),
    new: BTreeMap<BlockId, Slot>,
    gone: Vec<BlockId>,
    tail_end: Slot,
    unsorted: Option<i64>,
    /// What the headers of new final blocks say of executed states.
    named: Vec<Named>,
}

impl ChainDb {
    fn write(&mut self, records: &[Record]) -> Result<Written, Fault> {
        let finality = records.iter().filter_map(|record| match record {
            Record::Finalized { blocks, .. } => {
                let header = &blocks.last()?.header;
                Some((header.height, header.slot))
            }
            _ => None,
        });
        let last = finality.max().unwrap_or(self.last).max(self.last);
        let mut writing = Writing {
            transaction: self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(write_fault)?,
            chain: self.chain,
            members: &self.members,
            height: self.last.0,
            final_slot: last.1,
            pending: &self.pending,
            new: BTreeMap::new(),
            finalized: BTreeSet::new(),
            tail_end: self.tail_end,
            cut: BTreeSet::new(),
        };
        for record in records {
            writing.record(record)?;
        }
        let mut gone = writing.empty_tail(last.1).map_err(write_fault)?;
        gone.extend(writing.cut.iter().filter(|id| !writing.new.contains_key(id)));
        let tail_end = writing.tail_end;
        let unsorted = writing.receipts(&self.receipts, self.unsorted).map_err(write_fault)?;
        if self.awaits_undone {
            writing.applied_again(&self.receipts).map_err(write_fault)?;
        }
        if !writing.finalized.is_empty() {
            self.prune
                .some(&writing.transaction, writing.height, writing.finalized.len())
                .map_err(write_fault)?;
        }
        if let Some(redo) = self.redo.as_ref().filter(|redo| !redo.is_empty()) {
            writing.redone(redo.next_generation()).map_err(write_fault)?;
        }
        let Writing { transaction, new, .. } = writing;
        transaction.commit().map_err(write_fault)?;
        Ok(Written { last, new, gone, tail_end, unsorted, named: named_by(records) })
    }

    fn check_or_create(&mut self, path: &Path, is_wiped: bool) -> Result<(), Fault> {
        let doing = |error| Fault::storage(format!("reading {}", path.display()), error);
        let tables: i64 = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(doing)?;
        if tables == 0 {
            return self.create(is_wiped).map_err(doing);
        }
        let about = |name: &str| {
            let sql = "SELECT value FROM rota_about WHERE name = ?1";
            self.connection.query_row(sql, [name], |row| row.get::<_, Sql>(0)).map_err(|error| {
                Fault::WrongFiles(format!(
                    "{} is not a log of Rota's ({error}); move it away, or name another home",
                    path.display()
                ))
            })
        };
        let format = about("format")?;
        if format != Sql::Integer(FORMAT.into()) {
            return Err(Fault::WrongFiles(format!(
                "{} has format {format:?}, this program writes {FORMAT}: start it with the \
                 version of Rota that created it",
                path.display()
            )));
        }
        if about("chain")? != Sql::Text(self.chain.to_string()) && !self.adopt().map_err(doing)? {
            return Err(Fault::WrongFiles(format!(
                "{} is the log of another database than this home's genesis.json describes: \
                 put back the genesis that it was created with, or start with an empty home",
                path.display()
            )));
        }
        Ok(())
    }

    fn create(&mut self, is_wiped: bool) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute("INSERT INTO rota_about VALUES ('format', ?1)", [FORMAT])?;
        transaction
            .execute("INSERT INTO rota_about VALUES ('chain', ?1)", [self.chain.to_string()])?;
        if is_wiped {
            transaction.execute("INSERT INTO rota_about VALUES ('wiped', 1)", [])?;
        }
        transaction.commit()?;
        self.fsyncs += 1;
        Ok(())
    }

    /// What depends on the method, which may be changed before the first start, and what a log that
    /// an earlier version made may lack.
    fn extend_schema(&self) -> rusqlite::Result<()> {
        if self.members.is_none() {
            self.connection.execute_batch(IDS)?;
        }
        self.connection.execute_batch(RETURNED)
    }

    /// Where the final blocks end, and which bodies come after.
    fn load_ends(&mut self) -> rusqlite::Result<()> {
        let sql = "SELECT height, slot FROM blocks ORDER BY height DESC LIMIT 1";
        let last = self
            .connection
            .query_row(sql, [], |row| Ok((Height(count(row, 0)?), Slot(count(row, 1)?))))
            .optional()?;
        self.last = last.unwrap_or_default();
        self.load_beginning()?;
        let mut bodies = self.connection.prepare(
            "SELECT body, max(slot) FROM rota_tail WHERE body IS NOT NULL GROUP BY body",
        )?;
        self.pending = bodies
            .query_map([], |row| Ok((BlockId(row.get(0)?), Slot(count(row, 1)?))))?
            .collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT ifnull(max(slot), 0) FROM rota_tail";
        self.tail_end = self.connection.query_row(sql, [], |row| count(row, 0).map(Slot))?;
        Ok(())
    }

    fn stored_tail(&self) -> Result<Vec<(Slot, Vec<u8>)>, Fault> {
        self.read("SELECT slot, record FROM rota_tail ORDER BY number", |statement| {
            statement.query_map([], |row| Ok((Slot(count(row, 0)?), row.get(1)?)))?.collect()
        })
    }

    /// A record with its block put back; several records of one block share it.
    fn restore(
        &self,
        slot: Slot,
        stored: Stored,
        bodies: &mut BTreeMap<BlockId, Arc<Block>>,
    ) -> Result<Record, Fault> {
        let mut fetch = |id: BlockId| -> Result<Arc<Block>, Fault> {
            if let Some(block) = bodies.get(&id) {
                return Ok(block.clone());
            }
            let block = self.body(slot, id)?.ok_or_else(|| self.corrupt("bodies (missing)"))?;
            bodies.insert(id, block.clone());
            Ok(block)
        };
        Ok(match stored {
            Stored::Entered(certificate) => Record::Entered(certificate),
            Stored::Proposed { block, signature } => {
                Record::Proposed(Proposal { block: fetch(block)?, signature })
            }
            Stored::Notarized { vote, block } => Record::Notarized { vote, block: fetch(block)? },
            Stored::Nullified(vote) => Record::Nullified(vote),
            Stored::Finalizing { vote, notarization } => Record::Finalizing { vote, notarization },
            Stored::Fetched { block } => Record::Fetched(fetch(block)?),
            Stored::Entry { index, term, block } => {
                Record::Entry(Entry { index, term, block: block.map(fetch).transpose()? })
            }
            Stored::Connected { proof } => {
                Record::Connected { proof, block: fetch(proof.block())? }
            }
        })
    }

    /// A block of the tail or of the chain, checked against its id.
    fn body(&self, slot: Slot, id: BlockId) -> Result<Option<Arc<Block>>, Fault> {
        let sql = "SELECT block FROM rota_bodies WHERE slot = ?1 AND id = ?2";
        let bytes = self.read(sql, |statement| {
            let key = (number(slot.0), &id.0);
            statement.query_row(key, |row| row.get::<_, Vec<u8>>(0)).optional()
        })?;
        bytes.map(|bytes| self.checked(id, &bytes)).transpose()
    }

    /// The same where its slot is not known; of final ones those that are found by id.
    fn body_by_id(&self, id: BlockId) -> Result<Option<Arc<Block>>, Fault> {
        if let Some(block) = self.unwritten_body(id) {
            return Ok(Some(block));
        }
        let slot = match self.pending.get(&id) {
            Some(slot) => Some(*slot),
            None => self.final_slot(id)?,
        };
        slot.map_or(Ok(None), |slot| self.body(slot, id))
    }

    /// Of a final block that is found by id.
    fn final_slot(&self, id: BlockId) -> Result<Option<Slot>, Fault> {
        let lowest = match self.members.is_none() {
            true => 0,
            false => self.last.0.0.saturating_sub(FOUND_BY_ID),
        };
        let sql = "SELECT slot FROM blocks WHERE id = ?1 AND height > ?2";
        self.read(sql, |statement| {
            let key = (id.to_string(), number(lowest));
            statement.query_row(key, |row| count(row, 0).map(Slot)).optional()
        })
    }

    fn checked(&self, id: BlockId, bytes: &[u8]) -> Result<Arc<Block>, Fault> {
        let block: Block = decode(bytes, MAX_MESSAGE_BYTES)
            .map_err(|error| self.corrupt(&format!("bodies ({error})")))?;
        if block.id(self.chain) != id || block.body.digest() != block.header.body {
            return Err(self.corrupt("bodies (hash)"));
        }
        Ok(Arc::new(block))
    }

    fn finality(&self, height: Height) -> Result<Finality, Fault> {
        let sql = "SELECT certificate FROM rota_certificates WHERE height = ?1";
        let bytes: Vec<u8> =
            self.read(sql, |statement| statement.query_row([number(height.0)], |row| row.get(0)))?;
        unseal(&bytes).ok_or_else(|| self.corrupt("certificates"))
    }

    /// `pow`: the proofs of all final blocks, each of which has its own.
    fn proofs(&self) -> Result<Vec<WorkProof>, Fault> {
        if !self.members.is_none() {
            return Ok(Vec::new());
        }
        let sql = "SELECT certificate FROM rota_certificates ORDER BY height";
        let stored: Vec<Vec<u8>> =
            self.read(sql, |statement| statement.query_map([], |row| row.get(0))?.collect())?;
        let proofs = stored.iter().map(|bytes| match unseal(bytes) {
            Some(Finality::Work(proofs)) => Ok(proofs),
            _ => Err(self.corrupt("certificates")),
        });
        let proofs = proofs.collect::<Result<Vec<_>, _>>()?.concat();
        let follows = |pair: &[WorkProof]| match pair {
            [parent, child] => child.previous() == parent.hash(),
            _ => false,
        };
        match proofs.windows(2).all(follows) {
            true => Ok(proofs),
            false => Err(self.corrupt("certificates (not a chain)")),
        }
    }

    /// `raft`: the newest hard state.
    fn hard_state(&self) -> Result<HardState, Fault> {
        let sql = "SELECT value FROM rota_about WHERE name = 'hard_state'";
        let stored: Option<Vec<u8>> =
            self.read(sql, |statement| statement.query_row([], |row| row.get(0)).optional())?;
        let read = |bytes: Vec<u8>| unseal(&bytes).ok_or_else(|| self.corrupt("hard_state"));
        stored.map_or_else(|| Ok(HardState::default()), read)
    }

    /// As many blocks as an answer holds, up to the last one among them with a certificate of its
    /// own; and always up to the first such, since an answer must prove something.
    fn final_after(&self, height: Height) -> Result<Option<FinalBlocks>, Fault> {
        let sql = "SELECT f.height, f.id, f.bytes, f.slot, c.height IS NOT NULL
            FROM blocks f LEFT JOIN rota_certificates c ON c.height = f.height AND c.height <> ?2
            WHERE f.height > ?1 ORDER BY f.height";
        let base = self.prune.base.unwrap_or_default();
        let (ids, proven) = self.read(sql, |statement| {
            let mut rows = statement.query([number(height.0), number(base.0)])?;
            let (mut ids, mut bytes, mut proven) = (Vec::new(), 0_u64, None);
            while let Some(row) = rows.next()? {
                bytes = bytes.saturating_add(count(row, 2)?);
                let is_full = bytes > MAX_ANSWER_BYTES as u64 || ids.len() >= MAX_ANSWER_BLOCKS;
                if is_full && proven.is_some() {
                    break;
                }
                ids.push((Slot(count(row, 3)?), block_id(row, 1)?));
                if row.get(4)? {
                    proven = Some((ids.len(), Height(count(row, 0)?)));
                }
            }
            Ok((ids, proven))
        })?;
        let Some((count, last)) = proven else { return Ok(None) };
        let mut blocks = Vec::with_capacity(count);
        for (slot, id) in ids.into_iter().take(count) {
            blocks.push(self.body(slot, id)?.ok_or_else(|| self.corrupt("bodies (missing)"))?);
        }
        Ok(Some(FinalBlocks { blocks, finality: self.finality(last)? }))
    }

    fn read<T>(
        &self,
        sql: &str,
        query: impl FnOnce(&mut CachedStatement<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| query(&mut statement))
            .map_err(|error| Fault::storage("reading chain.db", error))
    }

    fn corrupt(&self, what: &str) -> Fault {
        damaged(FILE, what)
    }

    /// Copies the write-ahead log into the file when it has grown. Mode PASSIVE waits for nobody;
    /// when a reader keeps the log from being started over, the next copying comes after as many
    /// pages again.
    fn checkpoint(&mut self) -> Result<(), Fault> {
        let pages = self.wal.load(Ordering::Relaxed);
        if pages < self.checkpoint_at {
            if pages < CHECKPOINT_PAGES {
                self.checkpoint_at = CHECKPOINT_PAGES;
            }
            return Ok(());
        }
        self.connection
            .wal_checkpoint_v2(Some(c"main"), CheckpointMode::PASSIVE)
            .map_err(|error| Fault::storage("checkpointing chain.db", error))?;
        self.checkpoint_at = pages.saturating_add(CHECKPOINT_PAGES);
        self.fsyncs += 2;
        Ok(())
    }
}

fn prepare_connection(connection: &mut Connection, wal: Arc<AtomicI64>) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    reserve_bytes(connection)?;
    // Before the first page is written: what pruned blocks leave can be given back.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;")?;
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
        wal.store(i64::from(pages), Ordering::Relaxed);
        Ok(())
    }))
}

/// What is in this file is not what was written there.
fn damaged(file: &str, what: &str) -> Fault {
    Fault::storage(
        format!("reading {file}"),
        format!(
            "{what} is damaged; this server must not go on with a part of its own log: remove \
             state.db* and chain.db* from its home, and it follows the others from then on"
        ),
    )
}

/// A number of ours as SQLite stores it. Heights, slots and times are counted or agreed, and stay
/// below 2⁶³.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Bytes at the end of what has no hash of its own, by which a flipped bit is found. Against
/// chance, not malice.
const SEAL_BYTES: usize = 8;

fn seal<T: BorshSerialize>(value: &T) -> Vec<u8> {
    let mut bytes = encode(value);
    let hash = rota_hash::hash("rota record", &[&bytes]);
    bytes.extend(hash.into_iter().take(SEAL_BYTES));
    bytes
}

fn unseal<T: BorshSerialize + BorshDeserialize>(sealed: &[u8]) -> Option<T> {
    let (bytes, seal) = sealed.split_at_checked(sealed.len().checked_sub(SEAL_BYTES)?)?;
    let whole = rota_hash::hash("rota record", &[bytes]).starts_with(seal);
    if whole { decode(bytes, MAX_MESSAGE_BYTES).ok() } else { None }
}

/// Whether this makes the block with this id final.
fn proves(finality: &Finality, block: BlockId) -> bool {
    match finality {
        Finality::Votes(certificate) => certificate.choice == Choice::Finalize(block),
        Finality::Work(proofs) => proofs.last().is_some_and(|proof| proof.block() == block),
        Finality::Log { .. } | Finality::Snapshot => true,
    }
}

/// A block's id from a row of `blocks`.
fn block_id(row: &Row<'_>, column: usize) -> rusqlite::Result<BlockId> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|_| rusqlite::Error::InvalidQuery)
}

/// A number of ours from a row.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

#[cfg(test)]
pub(crate) mod tests;
