//! `state.db`: the users' tables and what goes with them, in one plain SQLite file. Opening and
//! creating it, and reading all of it again; `apply` changes it, block by block.
//!
//! ```text
//!   users' tables        ┐
//!   rota_transactions    │ under the root; ids that may not be applied again, until they expire
//!   rota_sequences       │ the next number of each sequence
//!   rota_staged          │ parts of large transactions that are on their way
//!   rota_accounts        │ what each key owns (`accounts`)
//!   rota_users, rota_roles, rota_grants    ┘ who may do what (`access`)
//!   rota_meta            one row: whose file this is; height, block and root that it holds
//!   rota_roots           pow: the roots after the last blocks
//!   rota_tables          the number of each table: names change, numbers do not
//!   rota_recent, rota_buckets, rota_hashes    the root's leaves and hashes (`recent`)
//! ```
//! Everything is written in the block's own transaction, so the file is always at one height,
//! wholly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rota_core::block::{Applied, Block};
use rota_core::error::Fault;
use rota_core::genesis::{Genesis, Parameters};
use rota_core::types::{ChainId, Height, StateRoot};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::access::{self, Access, View};
use crate::accounts;
use crate::ahead::Open;
use crate::capture::{Capture, RowHasher};
use crate::determinism::{self, Context};
use crate::engine::Engine;
use crate::merkle::{self, Bucket, Entries, Hash, Key, TableId, Tree};
use crate::recent::{self, Recent};
use crate::remembered::Remembered;
use crate::schema::{Schema, Table};
use crate::sequences;
use crate::sqlite::{self, Database};
use crate::staged::Staged;
use crate::value::Receipt;

/// The file's name in a home folder.
pub const STATE_FILE: &str = "state.db";

/// Ids that may not be applied again.
pub const TRANSACTIONS_TABLE: &str = "rota_transactions";

/// Where each sequence stands (`sequences`).
pub const SEQUENCES_TABLE: &str = "rota_sequences";

/// Parts of large transactions (`staged`).
pub const STAGED_TABLE: &str = "rota_staged";

/// What each key owns (`accounts`).
pub const ACCOUNTS_TABLE: &str = "rota_accounts";

/// The system tables under the root.
pub const HASHED_NAMES: [&str; 7] = [
    TRANSACTIONS_TABLE,
    SEQUENCES_TABLE,
    STAGED_TABLE,
    ACCOUNTS_TABLE,
    "rota_users",
    "rota_roles",
    "rota_grants",
];

/// All that is in a new file.
pub const SYSTEM_NAMES: [&str; 13] = [
    "rota_meta",
    TRANSACTIONS_TABLE,
    SEQUENCES_TABLE,
    STAGED_TABLE,
    ACCOUNTS_TABLE,
    "rota_users",
    "rota_roles",
    "rota_grants",
    "rota_roots",
    "rota_tables",
    "rota_buckets",
    "rota_hashes",
    "rota_recent",
];

/// The layout of the file; another one is refused.
const LAYOUT: i64 = 5;

/// The log is copied into the file each time that so many pages have been added to it: 16 MB, some
/// milliseconds.
const PAGES_PER_COPY: u64 = 4_000;

/// Statements kept prepared.
const CACHED_STATEMENTS: usize = 256;

const CREATE: &str = "
CREATE TABLE rota_meta(one INTEGER PRIMARY KEY CHECK (one = 1), layout INTEGER NOT NULL,
    chain BLOB NOT NULL, sqlite TEXT NOT NULL, height INTEGER NOT NULL, block BLOB NOT NULL,
    root BLOB NOT NULL, next_table INTEGER NOT NULL, next_transaction INTEGER NOT NULL);
CREATE TABLE rota_transactions(seq INTEGER PRIMARY KEY, height INTEGER NOT NULL,
    expiry_time INTEGER NOT NULL, outcomes BLOB NOT NULL);
CREATE TABLE rota_sequences(name TEXT PRIMARY KEY, next INTEGER NOT NULL, born INTEGER NOT NULL);
CREATE TABLE rota_staged(id BLOB NOT NULL, part INTEGER NOT NULL, expiry INTEGER NOT NULL,
    bytes BLOB NOT NULL, PRIMARY KEY (id, part));
CREATE TABLE rota_roots(height INTEGER PRIMARY KEY, root BLOB NOT NULL);
CREATE TABLE rota_tables(schema_rowid INTEGER PRIMARY KEY, id INTEGER NOT NULL);
CREATE TABLE rota_buckets(key INTEGER PRIMARY KEY, leaves BLOB NOT NULL);
CREATE TABLE rota_hashes(key INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE rota_recent(seq INTEGER PRIMARY KEY, changes BLOB NOT NULL);
";

/// The executor's side of `state.db`: one per server, owned by one thread.
pub struct StateDb {
    pub(crate) engine: Engine,
    pub(crate) capture: Arc<Mutex<Capture>>,
    pub(crate) trees: BTreeMap<TableId, Tree>,
    pub(crate) recent: Recent,
    pub(crate) schema: Arc<Schema>,
    /// The schema that the trees are for.
    pub(crate) folded: Arc<Schema>,
    pub(crate) sequence: Hash,
    pub(crate) next_table: TableId,
    pub(crate) next_transaction: i64,
    pub(crate) remembered: Remembered,
    /// What is committed.
    pub(crate) applied: Applied,
    /// What is executed beyond that; then a transaction is open, and all that is in memory, but for
    /// `applied` and `view`, is as after it.
    pub(crate) open: Open,
    pub(crate) origin: Origin,
    pub(crate) chain: ChainId,
    pub(crate) parameters: Parameters,
    /// `pow`: of so many heights the roots are kept.
    pub(crate) roots_kept: Option<u64>,
    /// What readers and doors see of users and grants.
    pub(crate) view: View,
    pub(crate) log: Log,
    /// Parts of large transactions that are waiting.
    pub(crate) staged: Staged,
    /// Whether the running block has begun to change the schema.
    pub(crate) schema_touched: bool,
}

/// What the file is opened from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    home: PathBuf,
    genesis: Arc<Genesis>,
}

/// How long the write-ahead log of `state.db` is, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Log {
    /// When it was last copied into the file.
    at_copy: u64,
    /// Written since.
    since: u64,
}

/// What applying a block gave.
#[derive(Debug)]
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
    /// Opens `home/state.db`, or creates it with the state of the genesis. Refuses another chain's,
    /// layout's or SQLite's file.
    pub fn open(home: &Path, genesis: &Genesis) -> Result<Self, Fault> {
        let origin = Origin { home: home.into(), genesis: Arc::new(genesis.clone()) };
        Self::open_for(origin, View::default())
    }

    /// The same, for those who look at `view`.
    pub(crate) fn open_for(origin: Origin, view: View) -> Result<Self, Fault> {
        let genesis = Arc::clone(&origin.genesis);
        let path = origin.home.join(STATE_FILE);
        let doing = |error| Fault::storage(format!("opening {}", path.display()), error);
        let mut database = Database::open(&path).map_err(doing)?;
        let context = Arc::new(Context::default());
        let capture = Arc::new(Mutex::new(Capture::default()));
        let (hook, stop) = (Arc::clone(&capture), Arc::clone(&context));
        database.observe(move |change| {
            if !lock(&hook).observe(change) {
                stop.stop();
            }
        });
        determinism::prepare_connection(&mut database, &context).map_err(doing)?;
        database.connection().set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        let mut state = Self {
            engine: Engine::new(database, context),
            capture,
            trees: BTreeMap::new(),
            recent: Recent::default(),
            schema: Arc::default(),
            folded: Arc::default(),
            sequence: [0; 32],
            next_table: 1,
            next_transaction: 1,
            remembered: Remembered::default(),
            applied: Applied::default(),
            open: Open::default(),
            origin,
            chain: genesis.chain_id(),
            parameters: genesis.parameters.clone(),
            roots_kept: genesis.pow.as_ref().map(|pow| 2 * u64::from(pow.depth) + 2),
            view,
            log: Log::default(),
            staged: Staged::default(),
            schema_touched: false,
        };
        state.engine.access = Arc::new(Access::of(&genesis));
        if !state.is_made()? {
            state.create(&genesis)?;
        }
        state.load()?;
        Ok(state)
    }

    /// The height and root that the file holds; height 0 and the empty database's root after
    /// creation.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// `pow`: the roots after the last blocks, which the next ones name; by rising height.
    pub fn recent_roots(&self) -> Result<Vec<Applied>, Fault> {
        self.ours("reading rota_roots", |connection| {
            let sql = "SELECT height, root FROM rota_roots ORDER BY height";
            let mut roots = connection.prepare_cached(sql)?;
            let roots = roots.query_map([], |row| {
                let height = Height(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0));
                Ok(Applied { height, root: StateRoot(row.get(1)?) })
            })?;
            roots.collect()
        })
    }

    /// In the block's own transaction, so that they go back with the state.
    pub(crate) fn write_root(
        &self,
        connection: &Connection,
        root: Applied,
    ) -> rusqlite::Result<()> {
        let Some(kept) = self.roots_kept else { return Ok(()) };
        let height = i64::try_from(root.height.0).unwrap_or(i64::MAX);
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        connection
            .prepare_cached("INSERT OR REPLACE INTO rota_roots VALUES (?1, ?2)")?
            .execute((height, root.root.0))?;
        connection
            .prepare_cached("DELETE FROM rota_roots WHERE height <= ?1")?
            .execute([height.saturating_sub(kept)])
            .map(drop)
    }

    /// How far a transaction's beginning may be from its block's time: under `pow` that is the
    /// median of eleven, and lags behind by as many spacings.
    pub(crate) fn most_age(&self, least: Duration) -> Duration {
        match self.roots_kept {
            Some(_) => self.parameters.max_expiry().max(least),
            None => least,
        }
    }

    /// Users and grants as of the newest block that is applied.
    pub fn access(&self) -> View {
        self.view.clone()
    }

    /// How many pages the log of `state.db` has. It begins anew only when all of it is copied and
    /// nobody reads from it: a reader that stays makes it grow.
    pub fn log_pages(&self) -> u64 {
        self.log.at_copy.saturating_add(self.log.since)
    }

    /// Copies the log into the file, as far as readers let it; not while a transaction is open.
    pub fn copy_log(&mut self) -> Result<(), Fault> {
        if self.is_open() {
            return Ok(());
        }
        let at_copy = self.ours("copying the log into state.db", |connection| {
            connection
                .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
                .query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        })?;
        let (pages, copied) = at_copy;
        // Wholly copied, it begins anew with the next write, unless somebody reads from it.
        let left = if pages == copied { 0 } else { pages };
        self.log = Log { at_copy: u64::try_from(left).unwrap_or(0), since: 0 };
        Ok(())
    }

    /// After COMMIT: what was written is counted.
    pub(crate) fn count_log(&mut self) {
        self.log.since = self.log.since.saturating_add(self.engine.database.pages_written());
    }

    /// Copies the log where it has become long; to be called after blocks.
    pub fn keep_log_short(&mut self) -> Result<(), Fault> {
        if self.log.since >= PAGES_PER_COPY { self.copy_log() } else { Ok(()) }
    }

    /// The root from all rows, and where it differs from what is stored. What is held is
    /// committed first, and a block ahead is undone.
    pub fn rescan(&mut self) -> Result<Rescan, Fault> {
        self.settle()?;
        let mut trees = BTreeMap::new();
        let mut differing = Vec::new();
        for (_, table) in self.schema.tables() {
            let buckets = self.read_rows(table)?;
            self.compare(table, &buckets, &mut differing)?;
            let hashes: Vec<_> = buckets
                .iter()
                .map(|(&bucket, rows)| (bucket, merkle::bucket_hash(&rows.entries.bytes())))
                .collect();
            let mut tree = Tree::default();
            tree.set(&hashes);
            trees.insert(table.id, tree);
        }
        let schema = self.read_schema()?.digest;
        let sequence = self.read_sequence()?;
        let root =
            merkle::state_root(&schema, &sequence, trees.iter().map(|(&id, tree)| (id, tree)));
        Ok(Rescan { root, differing })
    }

    pub(crate) fn capture(&self) -> MutexGuard<'_, Capture> {
        lock(&self.capture)
    }

    /// Does something of our own: nothing is refused, counted or captured.
    pub(crate) fn ours<T>(
        &self,
        doing: &str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        self.engine.context.trust();
        let was = std::mem::replace(&mut self.capture().on, false);
        let result = run(self.engine.database.connection());
        self.capture().on = was;
        result.map_err(|error| Fault::storage(doing, error))
    }

    /// Changes rows that are under the root, within a client's transaction.
    pub(crate) fn captured(
        &self,
        doing: &str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), Fault> {
        self.engine.context.trust();
        let result = run(self.engine.database.connection());
        result.map_err(|error| Fault::storage(doing, error))
    }

    fn is_made(&self) -> Result<bool, Fault> {
        self.ours("looking for rota_meta", |connection| {
            connection
                .prepare("SELECT 1 FROM main.sqlite_schema WHERE name = 'rota_meta'")?
                .exists([])
        })
    }

    fn create(&mut self, genesis: &Genesis) -> Result<(), Fault> {
        self.ours("creating state.db", |connection| {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            connection.execute_batch(CREATE)?;
            connection.execute_batch(access::CREATE)?;
            connection.execute_batch(accounts::CREATE)
        })?;
        // The system's tables take the first numbers.
        self.schema = Arc::new(self.renumber()?);
        self.capture().set_schema(Arc::clone(&self.schema));
        self.sequence = self.read_sequence()?;
        self.trees = self.schema.tables().map(|(_, table)| (table.id, Tree::default())).collect();
        access::check_administrators(&genesis.administrators).map_err(Fault::WrongFiles)?;
        self.begin_capture(u64::MAX);
        self.captured("creating the first users", |connection| {
            access::create(connection, &genesis.administrators)
        })?;
        self.end_capture()?;
        self.fold()?;
        let root = self.root();
        let block = Block::genesis(genesis).id(self.chain);
        self.ours("creating state.db", |connection| {
            connection.execute(
                "INSERT INTO rota_meta VALUES (1, ?1, ?2, ?3, 0, ?4, ?5, ?6, 1)",
                (LAYOUT, self.chain.0, sqlite::identity(), block.0, root.0, self.next_table),
            )?;
            connection.execute_batch("COMMIT")
        })
    }

    fn load(&mut self) -> Result<(), Fault> {
        let (layout, chain, sqlite, height, root, next_table, next_transaction) =
            self.ours("reading rota_meta", |connection| {
                connection.query_row("SELECT * FROM rota_meta", [], |row| {
                    Ok((
                        row.get::<_, i64>("layout")?,
                        row.get::<_, [u8; 32]>("chain")?,
                        row.get::<_, String>("sqlite")?,
                        row.get::<_, i64>("height")?,
                        row.get::<_, [u8; 32]>("root")?,
                        row.get::<_, TableId>("next_table")?,
                        row.get::<_, i64>("next_transaction")?,
                    ))
                })
            })?;
        if layout != LAYOUT || chain != self.chain.0 {
            return Err(Fault::WrongFiles(format!(
                "state.db is of database {} in layout {layout}; this is {} in layout {LAYOUT}",
                ChainId(chain),
                self.chain
            )));
        }
        if sqlite != sqlite::identity() {
            return Err(Fault::WrongFiles(format!(
                "state.db was made by another SQLite: {sqlite}; use the program that made it"
            )));
        }
        self.next_table = next_table;
        self.next_transaction = next_transaction;
        self.applied =
            Applied { height: Height(height.try_into().unwrap_or(0)), root: StateRoot(root) };
        self.schema = Arc::new(self.read_schema()?);
        self.sequence = self.read_sequence()?;
        self.capture().set_schema(Arc::clone(&self.schema));
        self.recent = self
            .ours("reading rota_recent", Recent::read)?
            .ok_or_else(|| Fault::Diverged("rota_recent is damaged".into()))?;
        self.remembered = self.ours("reading rota_transactions", Remembered::read)?;
        let sequences = self.ours("reading rota_sequences", sequences::read)?;
        self.engine.context.sequences().load(sequences);
        self.staged = self.read_staged()?;
        self.engine.read_access()?;
        self.view.publish(&self.engine.access);
        self.trees = self.read_trees()?;
        self.folded = Arc::clone(&self.schema);
        if self.root() != self.applied.root {
            return Err(Fault::Diverged(format!(
                "state.db at height {height} says its root is {}, but its hashes make {}",
                self.applied.root,
                self.root()
            )));
        }
        Ok(())
    }

    /// The root of what is in memory.
    pub(crate) fn root(&self) -> StateRoot {
        let trees = self.trees.iter().map(|(&id, tree)| (id, tree));
        merkle::state_root(&self.schema.digest, &self.sequence, trees)
    }

    /// The schema with the numbers that the file has for its tables.
    pub(crate) fn read_schema(&self) -> Result<Schema, Fault> {
        self.ours("reading the schema", |connection| {
            let mut numbers = BTreeMap::new();
            let mut statement =
                connection.prepare_cached("SELECT schema_rowid, id FROM rota_tables")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                numbers.insert(row.get::<_, i64>(0)?, row.get::<_, TableId>(1)?);
            }
            Schema::read(connection, |rowid, _| numbers.get(&rowid).copied().unwrap_or(0))
        })
    }

    /// The schema after a change of it: tables that were there keep their numbers, new ones get the
    /// next.
    pub(crate) fn renumber(&mut self) -> Result<Schema, Fault> {
        let before: BTreeMap<i64, TableId> =
            self.schema.tables().map(|(rowid, table)| (rowid, table.id)).collect();
        let mut next = self.next_table;
        let mut added = Vec::new();
        let inserted = self.engine.database.connection().last_insert_rowid();
        let after = self.ours("reading the schema", |connection| {
            let schema = Schema::read(connection, |rowid, _| {
                before.get(&rowid).copied().unwrap_or_else(|| {
                    let id = next;
                    next = next.saturating_add(1);
                    added.push((rowid, id));
                    id
                })
            })?;
            for rowid in before.keys() {
                if !schema.tables().any(|(kept, _)| kept == *rowid) {
                    connection
                        .prepare_cached("DELETE FROM rota_tables WHERE schema_rowid = ?1")?
                        .execute([rowid])?;
                }
            }
            for added in &added {
                connection
                    .prepare_cached("INSERT INTO rota_tables VALUES (?1, ?2)")?
                    .execute(*added)?;
            }
            Ok(schema)
        })?;
        // The client's last rowid is not one of ours.
        self.engine.database.set_last_insert_rowid(inserted);
        self.next_table = next;
        Ok(after)
    }

    /// The digest of AUTOINCREMENT's counters.
    pub(crate) fn read_sequence(&self) -> Result<Hash, Fault> {
        let mut hasher = rota_hash::Hasher::new("rota sequence");
        if !self.schema.has_sequence {
            return Ok(hasher.finish());
        }
        self.ours("reading sqlite_sequence", |connection| {
            let mut statement = connection
                .prepare_cached("SELECT rowid, name, seq FROM sqlite_sequence ORDER BY rowid")?;
            let mut rows = statement.query([])?;
            let mut buffer = Vec::new();
            while let Some(row) = rows.next()? {
                buffer.clear();
                for column in 0..3 {
                    merkle::encode_value(&mut buffer, row.get_ref(column)?, false);
                }
                hasher.update(&buffer);
            }
            Ok(hasher.finish())
        })
    }

    fn read_trees(&self) -> Result<BTreeMap<TableId, Tree>, Fault> {
        let mut buckets: BTreeMap<TableId, Vec<(Bucket, Hash)>> =
            self.schema.tables().map(|(_, table)| (table.id, Vec::new())).collect();
        self.ours("reading rota_hashes", |connection| {
            let mut statement =
                connection.prepare("SELECT key, hash FROM rota_hashes ORDER BY key")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (table, bucket) = split_key(row.get(0)?);
                buckets.entry(table).or_default().push((bucket, row.get(1)?));
            }
            Ok(())
        })?;
        let mut trees: BTreeMap<TableId, Tree> = BTreeMap::new();
        for (id, buckets) in buckets {
            trees.entry(id).or_default().set(&buckets);
        }
        let mut recent: BTreeMap<TableId, Vec<(Bucket, Hash)>> = BTreeMap::new();
        for (table, bucket, hash) in self.recent.hashes() {
            recent.entry(table).or_default().push((bucket, hash));
        }
        for (id, buckets) in recent {
            trees.entry(id).or_default().set(&buckets);
        }
        Ok(trees)
    }

    /// All entries of a table, from its rows.
    fn read_rows(&self, table: &Table) -> Result<BTreeMap<Bucket, ReadBucket>, Fault> {
        self.ours("reading all rows", |connection| {
            let mut statement = connection.prepare(&table.scan(connection)?)?;
            let mut rows = statement.query([])?;
            let mut buckets: BTreeMap<Bucket, ReadBucket> = BTreeMap::new();
            let mut hasher = RowHasher::default();
            while let Some(row) = rows.next()? {
                let read = |position: usize, _| row.get_ref(position + 1);
                let entry = hasher.entry(&table.shape, row.get(0)?, read)?;
                let bucket = buckets.entry(entry.key.bucket()).or_default();
                bucket.entries.set(entry.key, Some(entry.leaf));
                if !table.shape.key.is_empty() {
                    bucket.names.insert(entry.key, key_text(table, &|position| read(position, 0)));
                }
            }
            Ok(buckets)
        })
    }

    fn compare(
        &self,
        table: &Table,
        rows: &BTreeMap<Bucket, ReadBucket>,
        differing: &mut Vec<DifferingRow>,
    ) -> Result<(), Fault> {
        let stored = self.ours("reading rota_buckets", |connection| {
            let mut buckets: BTreeSet<Bucket> = self.recent.buckets_of(table.id).collect();
            buckets.extend(recent::settled_buckets(connection, table.id)?);
            let read = |bucket| {
                let entries = self.recent.entries(connection, table.id, bucket)?;
                Ok((bucket, entries.unwrap_or_default()))
            };
            buckets.into_iter().map(read).collect::<rusqlite::Result<BTreeMap<_, _>>>()
        })?;
        let none = ReadBucket::default();
        let no_entries = Entries::default();
        let buckets: BTreeSet<&Bucket> = rows.keys().chain(stored.keys()).collect();
        for bucket in buckets {
            let ours = rows.get(bucket).unwrap_or(&none);
            let theirs = stored.get(bucket).unwrap_or(&no_entries);
            let keys: BTreeSet<Key> =
                ours.entries.iter().chain(theirs.iter()).map(|entry| entry.key).collect();
            for key in keys.into_iter().filter(|key| ours.entries.get(key) != theirs.get(key)) {
                let key = ours.names.get(&key).cloned().unwrap_or_else(|| name_of(&key));
                differing.push(DifferingRow { table: table.name.clone(), key });
            }
        }
        Ok(())
    }

    /// Names the row of a table with this key.
    pub(crate) fn name_row(&self, table: TableId, key: &Key) -> DifferingRow {
        let Some(table) = self.schema.table_by_id(table) else {
            return DifferingRow { table: format!("number {table}"), key: name_of(key) };
        };
        let rows = self.read_rows(table).unwrap_or_default();
        let name = rows.get(&key.bucket()).and_then(|bucket| bucket.names.get(key)).cloned();
        DifferingRow { table: table.name.clone(), key: name.unwrap_or_else(|| name_of(key)) }
    }
}

#[derive(Default)]
struct ReadBucket {
    entries: Entries,
    names: BTreeMap<Key, String>,
}

/// A row's name if nothing but its key is known.
fn name_of(key: &Key) -> String {
    if key.declared == [0; 32] {
        format!("rowid {}", key.rowid)
    } else {
        format!("hash of its key {}", hex::encode(key.declared))
    }
}

/// A declared key's values as text.
fn key_text<'v>(table: &Table, read: &dyn Fn(usize) -> rusqlite::Result<ValueRef<'v>>) -> String {
    let columns = table.shape.columns.iter().enumerate();
    let values: Vec<String> = columns
        .filter(|(_, column)| table.shape.key.contains(&column.number))
        .map(|(position, _)| match read(position) {
            Ok(ValueRef::Integer(number)) => number.to_string(),
            Ok(ValueRef::Real(number)) => number.to_string(),
            Ok(ValueRef::Text(text)) => format!("'{}'", String::from_utf8_lossy(text)),
            Ok(ValueRef::Blob(blob)) => format!("x'{}'", hex::encode(blob)),
            _ => "NULL".into(),
        })
        .collect();
    values.join(", ")
}

/// A bucket's number in the file.
pub(crate) fn join_key(table: TableId, bucket: Bucket) -> i64 {
    i64::from(table) << 16 | i64::from(bucket)
}

pub(crate) fn split_key(key: i64) -> (TableId, Bucket) {
    let table = TableId::try_from(key >> 16).unwrap_or(TableId::MAX);
    (table, Bucket::try_from(key & 0xffff).unwrap_or(0))
}

fn lock(capture: &Mutex<Capture>) -> MutexGuard<'_, Capture> {
    capture.lock().unwrap_or_else(PoisonError::into_inner)
}
