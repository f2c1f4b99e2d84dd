//! A snapshot in place of this server's own files: one that was fetched because it was too far
//! behind, or an own older one because what it has is lost or was undone.
//!
//! ```text
//!   keep: chunks ──► incoming/state.db
//!   take_over:  its rows make the offered root ──► incoming/chain.db: begins with that block, own
//!               votes kept ──► rename incoming to restored     (from here on it is decided)
//!   finish:     each file of restored/ replaces the home's; at every start, until it is done
//! ```
//! A crash before the renaming leaves the old files, one after it the new ones. An old write-ahead
//! log is deleted before its database is replaced, or SQLite would play it into the new one. All
//! connections that write to the old files must be closed before.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::message::{CHUNK_BYTES, Offer};
use rota_core::types::Height;

use super::{Snapshots, sync, trouble};
use crate::chain_db::{self, ChainDb};
use crate::state::{STATE_FILE, StateDb};

/// Where a snapshot is put together.
const INCOMING: &str = "incoming";

/// What replaces the home's files.
const RESTORED: &str = "restored";

/// The databases of a home, in the order in which they are replaced.
const FILES: [&str; 2] = [STATE_FILE, chain_db::FILE];

/// How SQLite (`sqlite3_errstr` of NOMEM, IOERR, FULL and CANTOPEN) and the standard library word
/// trouble that the machine has.
const OWN_TROUBLE: [&str; 5] = [
    "out of memory",
    "disk I/O error",
    "database or disk is full",
    "unable to open database file",
    "(os error ",
];

/// Takes the pieces of a snapshot that is being fetched.
#[derive(Debug)]
pub struct Incoming {
    folder: PathBuf,
    /// The snapshot's height, and the file.
    open: Option<(Height, File)>,
}

impl Incoming {
    /// What an earlier run has left is deleted.
    pub fn new(home: &Path) -> Result<Self, Fault> {
        let folder = home.join(INCOMING);
        remove(&folder)?;
        Ok(Self { folder, open: None })
    }

    /// Keeps a piece. Those of another snapshot go.
    pub fn keep(&mut self, height: Height, number: u32, bytes: &[u8]) -> Result<(), Fault> {
        let path = self.folder.join(STATE_FILE);
        let file = match &mut self.open {
            Some((open, file)) if *open == height => file,
            other => {
                remove(&self.folder)?;
                fs::create_dir_all(&self.folder).map_err(trouble("making", &self.folder))?;
                let file = OpenOptions::new().write(true).create_new(true).open(&path);
                &mut other.insert((height, file.map_err(trouble("making", &path))?)).1
            }
        };
        let offset = u64::from(number).saturating_mul(CHUNK_BYTES as u64);
        file.write_all_at(bytes, offset).map_err(trouble("writing", &path))
    }
}

/// What became of a snapshot that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It replaces this server's files: [`finish`] does it.
    Taken,
    /// It does not hold what it should: whoever offered it lied, or has a damaged copy. Nothing was
    /// changed.
    Refused(String),
}

/// Makes a fetched snapshot this server's own, if it is what was offered. Nobody else may have the
/// home's files open.
pub fn take_over(home: &Path, genesis: &Genesis, offer: &Offer) -> Result<Outcome, Fault> {
    let folder = home.join(INCOMING);
    match verify(&folder, genesis, offer) {
        Ok(()) => {}
        Err(fault) if is_own(&fault) => return Err(fault),
        Err(why) => {
            remove(&folder)?;
            return Ok(Outcome::Refused(why.to_string()));
        }
    }
    prepare(home, genesis, offer)?;
    decide(home)?;
    finish(home)?;
    Ok(Outcome::Taken)
}

/// Whether this machine is in trouble, and not what was fetched: nobody else is to blame for a full
/// disk. In whatever else SQLite may stumble over, it was the file.
fn is_own(fault: &Fault) -> bool {
    let Fault::Storage { error, .. } = fault else { return false };
    OWN_TROUBLE.iter().any(|words| error.contains(words))
}

/// Whether the rows of a fetched copy make the root that is proven for its height.
pub(crate) fn verify(folder: &Path, genesis: &Genesis, offer: &Offer) -> Result<(), Fault> {
    let path = folder.join(STATE_FILE);
    let file = OpenOptions::new().write(true).open(&path).map_err(trouble("opening", &path))?;
    file.set_len(offer.bytes).map_err(trouble("cutting", &path))?;
    file.sync_all().map_err(trouble("flushing", &path))?;
    drop(file);
    let wrong = |what: String| Err(Fault::Diverged(what));
    let mut state = StateDb::open(folder, genesis)?;
    if state.applied() != offer.applied {
        let (held, offered) = (state.applied(), offer.applied);
        return wrong(format!(
            "it holds height {} with root {}, not height {} with root {}",
            held.height, held.root, offered.height, offered.root
        ));
    }
    let found = state.rescan()?;
    if found.root != offer.applied.root {
        return wrong(format!(
            "its rows make root {}, not {}, which is proven for height {}",
            found.root, offer.applied.root, offer.applied.height
        ));
    }
    if let Some(row) = found.differing.first() {
        return wrong(format!("row {} of {} is not the one it was hashed as", row.key, row.table));
    }
    // Indexes are under no root.
    match state.check_integrity()? {
        None => Ok(()),
        Some(trouble) => wrong(trouble),
    }
}

/// A log that begins with the snapshot's block, with this server's own votes for what may come
/// after it.
pub(crate) fn prepare(home: &Path, genesis: &Genesis, offer: &Offer) -> Result<(), Fault> {
    let folder = home.join(INCOMING);
    let path = folder.join(chain_db::FILE);
    if path.exists() {
        fs::remove_file(&path).map_err(trouble("removing", &path))?;
    }
    // Should the log have vanished while the server ran, the new one says so.
    ChainDb::open_existing(home, genesis)?.begin_anew(&folder, genesis, &offer.block)?;
    sync(&path)?;
    sync(&folder)
}

/// From here on the new files are this server's.
pub(crate) fn decide(home: &Path) -> Result<(), Fault> {
    let (from, to) = (home.join(INCOMING), home.join(RESTORED));
    fs::rename(&from, &to).map_err(trouble("renaming", &from))?;
    sync(home)
}

/// Puts decided files into their places; true if there were any. To be called at each start, before
/// anything is opened.
pub fn finish(home: &Path) -> Result<bool, Fault> {
    let folder = home.join(RESTORED);
    if !folder.exists() {
        return Ok(false);
    }
    for name in FILES {
        replace(home, &folder, name)?;
    }
    remove(&folder)?;
    sync(home)?;
    Ok(true)
}

/// Puts one file into its place, if that has not been done.
pub(crate) fn replace(home: &Path, folder: &Path, name: &str) -> Result<(), Fault> {
    let (from, to) = (folder.join(name), home.join(name));
    if !from.exists() {
        return Ok(());
    }
    remove_log(home, name)?;
    sync(home)?;
    fs::rename(&from, &to).map_err(trouble("renaming", &from))?;
    sync(home)
}

/// The write-ahead log of a database, its index, and the redo log before it.
fn remove_log(home: &Path, name: &str) -> Result<(), Fault> {
    for end in ["-wal", "-shm", chain_db::REDO] {
        let path = home.join(format!("{name}{end}"));
        if path.exists() {
            fs::remove_file(&path).map_err(trouble("removing", &path))?;
        }
    }
    Ok(())
}

/// Brings back the newest own snapshot of a height from `lowest` to `highest`, or, if there is none
/// and the blocks begin with the first, the empty database. False where neither can be.
pub fn go_back(
    home: &Path,
    snapshots: &Snapshots,
    (lowest, highest): (Height, Height),
) -> Result<bool, Fault> {
    let mut own = snapshots.all();
    own.retain(|manifest| (lowest..=highest).contains(&manifest.applied.height));
    while let Some(manifest) = own.pop() {
        let height = manifest.applied.height;
        if !snapshots.is_whole(&manifest) {
            tracing::error!(%height, "a snapshot is damaged: deleting it");
            snapshots.forget(height);
            continue;
        }
        let folder = home.join(INCOMING);
        remove(&folder)?;
        fs::create_dir_all(&folder).map_err(trouble("making", &folder))?;
        let (from, to) = (snapshots.file(height), folder.join(STATE_FILE));
        fs::copy(&from, &to).map_err(trouble("copying", &from))?;
        sync(&to)?;
        sync(&folder)?;
        decide(home)?;
        finish(home)?;
        tracing::warn!(%height, "state.db begins again from this server's own snapshot");
        return Ok(true);
    }
    if lowest > Height(0) {
        return Ok(false);
    }
    let path = home.join(STATE_FILE);
    if path.exists() {
        // A crash on the way leaves a database that lacks its newest blocks, as any crash may.
        remove_log(home, STATE_FILE)?;
        fs::remove_file(&path).map_err(trouble("removing", &path))?;
        sync(home)?;
    }
    tracing::warn!("state.db begins again from the first block");
    Ok(true)
}

fn remove(folder: &Path) -> Result<(), Fault> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(trouble("removing", folder))?;
    }
    Ok(())
}
