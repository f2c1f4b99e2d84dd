//! Where a draft's pages come from: those that it has written are its own, all others are read from
//! `state.db` as it was when the draft began.
//!
//! ```text
//!   OwnPages ── written by this draft ──> in memory, bounded
//!       └────── all others ──> Base ── read once ──> shared by the drafts of one height
//!                                └──── sqlite_dbpage, on a connection that holds a read
//!                                      transaction open: the file as of that height
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rota_core::error::Fault;
use rota_core::types::Height;
use rusqlite::{Connection, OpenFlags};

use crate::sequences::Before;
use crate::sqlite::pages::PageFile;
use crate::state::STATE_FILE;

/// Bytes of a page: SQLite's default, which our files are made with.
const PAGE: usize = 4096;

/// How many pages a base keeps for its drafts: the roots and branches of their tables, and what
/// they are about. More are read again each time.
const SHARED_PAGES: usize = 2_048;

/// How many pages of its own a draft may have: 64 MB.
const OWN_PAGES: usize = (64 << 20) / PAGE;

/// Read connections that are kept for the next base.
const IDLE_BASES: usize = 32;

/// How long to wait for a lock: only the recovery after a crash ever holds one.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Hands out bases: one for each height that drafts begin at.
pub(super) struct Bases {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// `state.db` at one height, for as long as anybody holds this.
pub(super) struct Base {
    pub(super) height: Height,
    pages: u32,
    /// Empty only while this is dropped.
    connection: Mutex<Option<Connection>>,
    shared: RwLock<HashMap<u32, Arc<[u8]>>>,
    /// By sequence, which one it is at this height.
    born: Mutex<HashMap<String, Option<i64>>>,
    bases: Arc<Bases>,
}

impl Bases {
    pub(super) fn new(home: &Path) -> Arc<Self> {
        Arc::new(Self { path: home.join(STATE_FILE), idle: Mutex::default() })
    }

    /// The newest state.
    pub(super) fn newest(self: &Arc<Self>) -> Result<Arc<Base>, Fault> {
        let fault = |error| Fault::storage("beginning a draft", error);
        let connection = match lock(&self.idle).pop() {
            Some(connection) => connection,
            None => self.connect().map_err(fault)?,
        };
        let (height, pages) = begin(&connection).map_err(fault)?;
        Ok(Arc::new(Base {
            height: Height(u64::try_from(height).unwrap_or(0)),
            pages,
            connection: Mutex::new(Some(connection)),
            shared: RwLock::default(),
            born: Mutex::default(),
            bases: Arc::clone(self),
        }))
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }
}

/// Begins a read transaction; the height that it sees, and how many pages the file has.
fn begin(connection: &Connection) -> rusqlite::Result<(i64, u32)> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let height = connection
        .prepare_cached("SELECT height FROM rota_meta")?
        .query_row([], |row| row.get(0))?;
    let pages = connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
    Ok((height, pages))
}

impl Base {
    /// A page by its number, the first is 1. `None`: the disk has trouble.
    fn page(&self, number: u32) -> Option<Arc<[u8]>> {
        if let Some(page) = read(&self.shared).get(&number) {
            return Some(Arc::clone(page));
        }
        let connection = lock(&self.connection);
        let page: Vec<u8> = connection
            .as_ref()?
            .prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")
            .and_then(|mut statement| statement.query_row([number], |row| row.get(0)))
            .ok()?;
        drop(connection);
        let page: Arc<[u8]> = page.into();
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        if shared.len() < SHARED_PAGES {
            shared.insert(number, Arc::clone(&page));
        }
        Some(page)
    }
}

impl Base {
    /// Lets the file go: the drafts of this base cannot read on.
    pub(super) fn give_up(&self) {
        if let Some(connection) = lock(&self.connection).take() {
            drop(connection);
        }
    }
}

impl Before for Base {
    fn height(&self) -> u64 {
        self.height.0
    }

    fn born(&self, name: &str) -> Option<i64> {
        let mut known = lock(&self.born);
        if let Some(born) = known.get(name) {
            return *born;
        }
        let born = lock(&self.connection).as_ref().and_then(|connection| {
            let mut find = connection
                .prepare_cached("SELECT born FROM rota_sequences WHERE name = ?1")
                .ok()?;
            find.query_row([name], |row| row.get(0)).ok()
        });
        known.insert(name.to_owned(), born);
        born
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(connection) = connection else { return };
        let ended = connection.prepare_cached("COMMIT").and_then(|mut end| end.execute([]));
        let mut idle = lock(&self.bases.idle);
        if ended.is_ok() && idle.len() < IDLE_BASES {
            idle.push(connection);
        }
    }
}

/// A draft's file.
#[derive(Default)]
pub(super) struct OwnPages {
    base: Option<Arc<Base>>,
    /// By number less one.
    own: HashMap<u64, Box<[u8]>>,
    /// How many pages the file has.
    count: u64,
    /// Told to SQLite as the file's change counter: with another one it forgets what it has read.
    generation: u32,
}

impl OwnPages {
    /// Another draft begins. Whether SQLite may keep what it has read.
    pub(super) fn begin(&mut self, base: Arc<Base>) {
        let same = self.base.as_ref().is_some_and(|old| Arc::ptr_eq(old, &base));
        if !same || !self.own.is_empty() {
            self.generation = self.generation.wrapping_add(1);
        }
        self.count = u64::from(base.pages);
        self.base = Some(base);
        self.own.clear();
    }

    /// The draft is over; the base is let go, so that the log of the file can be shortened.
    pub(super) fn end(&mut self) {
        self.base = None;
        self.own.clear();
        self.own.shrink_to(64);
        // Whatever comes next is another base.
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether there is no room for more pages.
    pub(super) fn is_full(&self) -> bool {
        self.own.len() >= OWN_PAGES
    }

    /// Whether the base had to let the file go.
    pub(super) fn base_is_gone(&self) -> bool {
        self.base.as_ref().is_none_or(|base| lock(&base.connection).is_none())
    }

    /// What of the first page is ours to say: no WAL, and the change counter (SQLite, "Database
    /// File Format", 1.3: offsets 18, 19 and 24).
    fn header_byte(&self, at: usize) -> Option<u8> {
        match at {
            18 | 19 => Some(1),
            24..28 => self.generation.to_be_bytes().get(at - 24).copied(),
            _ => None,
        }
    }

    fn copy(&mut self, index: u64, from: usize, into: &mut [u8]) -> Option<()> {
        let end = from.checked_add(into.len())?;
        if let Some(own) = self.own.get(&index) {
            into.copy_from_slice(own.get(from..end)?);
            return Some(());
        }
        let number = u32::try_from(index.checked_add(1)?).ok()?;
        let base = self.base.as_ref()?;
        if u64::from(base.pages) <= index {
            into.fill(0);
            return Some(());
        }
        let page = base.page(number)?;
        into.copy_from_slice(page.get(from..end)?);
        if index == 0 {
            for (at, byte) in (from..end).zip(into.iter_mut()) {
                *byte = self.header_byte(at).unwrap_or(*byte);
            }
        }
        Some(())
    }
}

fn place(offset: u64) -> (u64, usize) {
    let page = PAGE as u64;
    (offset / page, usize::try_from(offset % page).unwrap_or(0))
}

impl PageFile for OwnPages {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Option<usize> {
        let mut done = 0;
        while done < into.len() {
            let (index, from) = place(offset + done as u64);
            if index >= self.count {
                break;
            }
            let rest = into.get_mut(done..)?;
            let length = rest.len().min(PAGE - from);
            self.copy(index, from, rest.get_mut(..length)?)?;
            done += length;
        }
        Some(done)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> bool {
        let (index, at) = place(offset);
        if self.own.len() >= OWN_PAGES && !self.own.contains_key(&index) {
            return false;
        }
        if at != 0 || from.len() != PAGE {
            return false; // SQLite writes whole pages
        }
        self.own.insert(index, from.into());
        self.count = self.count.max(index + 1);
        true
    }

    fn truncate(&mut self, size: u64) {
        self.count = size / PAGE as u64;
        let count = self.count;
        self.own.retain(|index, _| *index < count);
    }

    fn size(&self) -> u64 {
        self.count * PAGE as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
