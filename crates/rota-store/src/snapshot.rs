//! Snapshots: page copies of `state.db`, made every so many blocks, for servers that are too far
//! behind for the others' blocks and for going back (beside step 8).
//!
//! ```text
//!   block applied ──► pin ──► make: pages, chunk hashes, manifest ──► snapshots/<height>/
//!     executor        a read    a thread of its own; blocks go on          │ once a final header
//!                     begins                                               ▼ names its root
//!   swap: the fetched file becomes state.db  ◄── chunks ◄── another server: Offer, Chunk
//! ```
//!
//! ```text
//! home/snapshots/<height>/state.db    the copy
//!                         manifest    written last: without it the copy is not whole
//!      incoming/state.db              a snapshot that is being fetched (`swap`)
//!      restored/                      what replaces this server's files at the next start (`swap`)
//! ```
//! A copy is made by SQLite's backup API, page by page: a dump would number rows anew. While it is
//! made, a read transaction keeps the state of its height; the write-ahead log grows meanwhile.

pub mod swap;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use borsh::{BorshDeserialize, BorshSerialize};
use rota_core::block::Applied;
use rota_core::codec::{decode, encode};
use rota_core::error::Fault;
use rota_core::genesis::{Genesis, Method};
use rota_core::message::{CHUNK_BYTES, chunk_digest};
use rota_core::types::{Digest, Height, StateRoot};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::state::{STATE_FILE, StateDb};

/// The folder in a home.
pub const FOLDER: &str = "snapshots";

/// What makes a copy whole.
const MANIFEST: &str = "manifest";

/// The largest manifest: the hashes of a copy of 4 TB.
const MAX_MANIFEST_BYTES: usize = 128 << 20;

/// So many certified snapshots are kept: the newest, and the one before for whoever is fetching it.
const KEPT: usize = 2;

/// Under `pow` more are kept: whoever goes back further than the oldest of them executes all blocks
/// from the first one on.
const KEPT_POW: usize = 6;

/// So many pages are copied between two looks at whether the server stops: 4 MiB.
const PAGES_PER_STEP: i32 = 1024;

/// So many steps are flushed to disk at once, so that no flush of the log waits behind all of a
/// large copy.
const STEPS_PER_FLUSH: u32 = 4;

/// How long to wait for a lock on `state.db`: only the recovery after a crash ever holds one.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// What is known of a copy without reading it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// The state that it holds.
    pub applied: Applied,
    /// Its length.
    pub bytes: u64,
    /// The hashes of its chunks of [`CHUNK_BYTES`].
    pub chunks: Vec<Digest>,
}

/// A read transaction on `state.db`, which keeps the state that it began on for as long as it is
/// open.
pub struct Pinned {
    connection: Connection,
    /// The state that it sees.
    pub applied: Applied,
}

/// The snapshots in one home. Shared by whoever makes them and whoever serves them.
#[derive(Debug)]
pub struct Snapshots {
    home: PathBuf,
    every: u64,
    kept: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those that are whole.
    all: BTreeMap<Height, Arc<Manifest>>,
    /// To be deleted by whoever makes the next one: that can take a while.
    doomed: BTreeSet<Height>,
}

impl Snapshots {
    /// Finds those in a home. What is not whole is deleted.
    pub fn open(home: &Path, genesis: &Genesis) -> Result<Arc<Self>, Fault> {
        let kept = if genesis.method == Method::Pow { KEPT_POW } else { KEPT };
        let every = genesis.parameters.snapshot_blocks;
        let this = Self { home: home.into(), every, kept, known: Mutex::default() };
        let folder = this.home.join(FOLDER);
        if folder.exists() {
            for entry in fs::read_dir(&folder).map_err(trouble("reading", &folder))? {
                let entry = entry.map_err(trouble("reading", &folder))?;
                this.find(&entry.path())?;
            }
        }
        Ok(Arc::new(this))
    }

    fn find(&self, path: &Path) -> Result<(), Fault> {
        let height = path.file_name().and_then(|name| name.to_str()?.parse().ok()).map(Height);
        let manifest = read_manifest(path);
        match (height, manifest) {
            (Some(height), Some(manifest)) if manifest.applied.height == height => {
                self.known().all.insert(height, Arc::new(manifest));
                Ok(())
            }
            (Some(_), _) => fs::remove_dir_all(path).map_err(trouble("removing", path)),
            // Not ours.
            (None, _) => Ok(()),
        }
    }

    /// Whether a copy is made of the state after this height.
    pub fn is_due(&self, height: Height) -> bool {
        height > Height(0) && height.0.is_multiple_of(self.every)
    }

    /// The height of the first copy that is made after this one.
    pub fn due_after(&self, height: Height) -> Height {
        Height((height.0 / self.every).saturating_add(1).saturating_mul(self.every))
    }

    /// How many blocks are between two.
    pub fn every(&self) -> u64 {
        self.every
    }

    /// Those that are whole, oldest first.
    pub fn all(&self) -> Vec<Arc<Manifest>> {
        self.known().all.values().cloned().collect()
    }

    /// The states that they hold, oldest first. A restarted server knows the roots by them: that of
    /// the newest may not have been named by a final header yet.
    pub fn states(&self) -> Vec<Applied> {
        self.known().all.values().map(|manifest| manifest.applied).collect()
    }

    /// The newest that is whole.
    pub fn newest(&self) -> Option<Height> {
        self.known().all.keys().next_back().copied()
    }

    /// Keeps the state that `state.db` has now, for [`Snapshots::make`].
    pub fn pin(&self) -> Result<Pinned, Fault> {
        let path = self.home.join(STATE_FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let pin = || {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.execute_batch("BEGIN")?;
            let sql = "SELECT height, root FROM rota_meta";
            let (height, root) = connection.query_row(sql, [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?))
            })?;
            let height = Height(u64::try_from(height).unwrap_or(0));
            Ok(Pinned { connection, applied: Applied { height, root: StateRoot(root) } })
        };
        pin().map_err(|error: rusqlite::Error| Fault::storage("beginning a snapshot", error))
    }

    /// Makes a copy of a pinned state, unless `stops` says so on the way. One at a time.
    pub fn make(&self, pinned: Pinned, stops: impl Fn() -> bool) -> Result<(), Fault> {
        self.sweep()?;
        let applied = pinned.applied;
        let folder = self.folder(applied.height);
        if folder.exists() {
            // Of this very height: whole, or left behind by a crash.
            if self.known().all.contains_key(&applied.height) {
                return Ok(());
            }
            fs::remove_dir_all(&folder).map_err(trouble("removing", &folder))?;
        }
        fs::create_dir_all(&folder).map_err(trouble("making", &folder))?;
        let path = folder.join(STATE_FILE);
        if !copy_pages(pinned, &path, &stops)? {
            return fs::remove_dir_all(&folder).map_err(trouble("removing", &folder));
        }
        let (bytes, chunks) = hash_chunks(&path)?;
        let manifest = Manifest { applied, bytes, chunks };
        write_manifest(&folder, &manifest)?;
        let parent = self.home.join(FOLDER);
        sync(&parent)?;
        sync(&self.home)?;
        tracing::info!(height = %applied.height, bytes, "made a snapshot");
        self.known().all.insert(applied.height, Arc::new(manifest));
        Ok(())
    }

    /// A chunk of a copy, if it is what its manifest says. What is not is never sent; that copy is
    /// given up.
    pub fn chunk(&self, height: Height, number: u32) -> Option<Vec<u8>> {
        let manifest = self.known().all.get(&height).cloned()?;
        let digest = manifest.chunks.get(usize::try_from(number).ok()?)?;
        match read_chunk(&self.file(height), number, manifest.bytes) {
            Ok(bytes) if chunk_digest(&bytes) == *digest => return Some(bytes),
            Err(error) if !is_gone(&error) => {
                tracing::warn!(%height, chunk = number, %error, "a snapshot cannot be read now");
                return None;
            }
            Ok(_) => {
                let why = "its bytes have changed";
                tracing::error!(%height, chunk = number, why, "a snapshot is damaged: deleting it");
            }
            Err(why) => {
                let chunk = number;
                tracing::error!(%height, chunk, %why, "a snapshot is damaged: deleting it");
            }
        }
        self.forget(height);
        None
    }

    /// Whether all of a copy is what its manifest says.
    fn is_whole(&self, manifest: &Manifest) -> bool {
        let found = hash_chunks(&self.file(manifest.applied.height));
        found.is_ok_and(|(bytes, chunks)| bytes == manifest.bytes && chunks == manifest.chunks)
    }

    /// Gives up those certified ones that are older than the newest few; gives back the oldest
    /// that stays. `certified` by rising height.
    pub(crate) fn keep_newest(&self, certified: &[Height]) -> Option<Height> {
        let many = certified.len().saturating_sub(self.kept);
        let (old, kept) = certified.split_at_checked(many)?;
        let oldest = *kept.first()?;
        let mut known = self.known();
        // Those that were never certified are of no more use either.
        let gone: Vec<Height> = known.all.range(..oldest).map(|(&height, _)| height).collect();
        for height in gone.into_iter().chain(old.iter().copied()) {
            known.all.remove(&height);
            known.doomed.insert(height);
        }
        Some(oldest)
    }

    /// Gives one up.
    pub(crate) fn forget(&self, height: Height) {
        let mut known = self.known();
        known.all.remove(&height);
        known.doomed.insert(height);
    }

    /// Deletes those of heights that are no more.
    pub(crate) fn remove_above(&self, height: Height) -> Result<(), Fault> {
        let undone = self.all().into_iter().map(|own| own.applied.height);
        undone.filter(|own| *own > height).for_each(|own| self.forget(own));
        self.sweep()
    }

    /// Deletes what was given up.
    fn sweep(&self) -> Result<(), Fault> {
        let doomed = std::mem::take(&mut self.known().doomed);
        for height in doomed {
            let folder = self.folder(height);
            // The manifest first: a crash on the way leaves nothing that looks whole.
            let manifest = folder.join(MANIFEST);
            if manifest.exists() {
                fs::remove_file(&manifest).map_err(trouble("removing", &manifest))?;
            }
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(trouble("removing", &folder))?;
            }
        }
        Ok(())
    }

    fn folder(&self, height: Height) -> PathBuf {
        self.home.join(FOLDER).join(height.to_string())
    }

    fn file(&self, height: Height) -> PathBuf {
        self.folder(height).join(STATE_FILE)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateDb {
    /// Whether pages, rows and indexes agree with one another, as far as SQLite can tell: what is
    /// wrong first, if anything is.
    pub(crate) fn check_integrity(&self) -> Result<Option<String>, Fault> {
        let lines: Vec<String> = self.ours("checking a copy of state.db", |connection| {
            let mut check = connection.prepare("PRAGMA integrity_check(100)")?;
            check.query_map([], |row| row.get(0))?.collect()
        })?;
        // Constraints are the users' business: every server has decided alike what they let in.
        let is_constraint = |line: &String| {
            line.starts_with("CHECK constraint failed") || line.starts_with("NULL value in")
        };
        Ok(lines.into_iter().find(|line| line != "ok" && !is_constraint(line)))
    }
}

/// Trouble with a file or folder.
fn trouble(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Fault {
    move |error| Fault::storage(format!("{doing} {}", path.display()), error)
}

/// Makes a folder's entries, or a file's bytes, survive a power loss.
fn sync(path: &Path) -> Result<(), Fault> {
    File::open(path).and_then(|file| file.sync_all()).map_err(trouble("flushing", path))
}

/// Copies what is pinned into a new file; false if it was stopped.
fn copy_pages(pinned: Pinned, path: &Path, stops: &impl Fn() -> bool) -> Result<bool, Fault> {
    let doing = |error| Fault::storage(format!("copying state.db to {}", path.display()), error);
    let mut copy = Connection::open(path).map_err(doing)?;
    // What is not whole is deleted: neither a journal nor SQLite's own flushes are needed.
    copy.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(())).map_err(doing)?;
    copy.execute_batch("PRAGMA synchronous = OFF").map_err(doing)?;
    let flush = File::open(path).map_err(trouble("opening", path))?;
    let backup = Backup::new(&pinned.connection, &mut copy).map_err(doing)?;
    let mut steps = 0_u32;
    loop {
        if stops() {
            return Ok(false);
        }
        match backup.step(PAGES_PER_STEP).map_err(doing)? {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else uses the copy, and readers of state.db wait for nobody.
            _ => return Err(Fault::storage("copying state.db", "it is locked")),
        }
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STEPS_PER_FLUSH) {
            flush.sync_data().map_err(trouble("flushing", path))?;
        }
    }
    drop(backup);
    drop(copy);
    flush.sync_all().map_err(trouble("flushing", path))?;
    Ok(true)
}

/// A file's length, and the hashes of its chunks.
fn hash_chunks(path: &Path) -> Result<(u64, Vec<Digest>), Fault> {
    let reading = || trouble("reading", path);
    let mut file = File::open(path).map_err(reading())?;
    let (mut length, mut chunks) = (0_u64, Vec::new());
    let mut buffer = Vec::with_capacity(CHUNK_BYTES);
    loop {
        buffer.clear();
        (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut buffer).map_err(reading())?;
        if buffer.is_empty() {
            return Ok((length, chunks));
        }
        length = length.saturating_add(buffer.len() as u64);
        chunks.push(chunk_digest(&buffer));
    }
}

/// Whether what could not be read is not there, wholly or in part. Any other trouble may pass.
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | UnexpectedEof)
}

fn read_chunk(path: &Path, number: u32, length: u64) -> std::io::Result<Vec<u8>> {
    let offset = u64::from(number).saturating_mul(CHUNK_BYTES as u64);
    let wanted = length.saturating_sub(offset).min(CHUNK_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(CHUNK_BYTES)];
    File::open(path)?.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Makes the copy in a folder whole. A manifest begins with its own hash: half of one is none.
pub fn write_manifest(folder: &Path, manifest: &Manifest) -> Result<(), Fault> {
    let bytes = encode(manifest);
    let seal = rota_hash::hash("rota manifest", &[&bytes]);
    let (draft, path) = (folder.join("manifest.new"), folder.join(MANIFEST));
    fs::write(&draft, [seal.as_slice(), &bytes].concat()).map_err(trouble("writing", &draft))?;
    sync(&draft)?;
    fs::rename(&draft, &path).map_err(trouble("writing", &path))?;
    sync(folder)
}

/// What is said of the copy in a folder, if it is whole.
pub fn read_manifest(folder: &Path) -> Option<Manifest> {
    let stored = fs::read(folder.join(MANIFEST)).ok()?;
    let (seal, bytes) = stored.split_at_checked(32)?;
    let is_whole = rota_hash::hash("rota manifest", &[bytes]).as_slice() == seal;
    if is_whole { decode(bytes, MAX_MANIFEST_BYTES).ok() } else { None }
}

#[cfg(test)]
mod tests;
