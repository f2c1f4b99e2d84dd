//! Files that a request needs for a while, in a folder of their own inside the server's home: what
//! a backup is built in, and what is to be loaded. Step 1 of a transaction's life.
//!
//! A file goes with whoever holds it, so none outlives its request, whichever way that ends; what a
//! killed process left behind goes when the next one opens the folder. How many requests work with
//! files at once is bounded here as well.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The folder's name.
const FOLDER: &str = "scratch";

/// How many backups are built at once: each reads all of the database, and takes as much room on
/// the disk.
const BACKUPS: usize = 2;

/// How many files are loaded at once: a load is a transaction of the largest kind, and two of them
/// would only undo each other.
const LOADS: usize = 1;

/// The folder, and places for those who need it.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    folder: Arc<Path>,
    count: Arc<AtomicU64>,
    backups: Arc<Semaphore>,
    loads: Arc<Semaphore>,
}

impl Scratch {
    /// The scratch folder in a home that this process has for itself; empty.
    pub(super) fn new(home: &Path) -> Self {
        let folder = home.join(FOLDER);
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "files of an earlier process could not be removed");
        }
        Self {
            folder: folder.into(),
            count: Arc::default(),
            backups: Arc::new(Semaphore::new(BACKUPS)),
            loads: Arc::new(Semaphore::new(LOADS)),
        }
    }

    /// A place to build a backup, if there is one.
    pub(super) fn backup(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.backups).try_acquire_owned().ok()
    }

    /// A place to load something, if there is one.
    pub(super) fn load(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.loads).try_acquire_owned().ok()
    }

    /// An empty file that nobody else can read.
    pub(super) fn file(&self) -> io::Result<Temporary> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { file, path })
    }
}

/// A file that goes when this is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_with_their_holders_and_with_the_process() {
        let home = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(home.path());
        let (first, second) = (scratch.file().unwrap(), scratch.file().unwrap());
        let path = first.path.clone();
        drop(first);
        assert!(!path.exists() && second.path.exists());
        let left = second.path.clone();
        std::mem::forget(second);
        Scratch::new(home.path());
        assert!(!left.exists());
    }

    #[test]
    fn places_are_bounded() {
        let home = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(home.path());
        let taken: Vec<_> = std::iter::from_fn(|| scratch.backup()).collect();
        assert_eq!(taken.len(), BACKUPS);
        let load = scratch.load();
        assert!(load.is_some() && scratch.load().is_none());
        drop((taken, load));
        assert!(scratch.backup().is_some() && scratch.load().is_some());
    }
}
