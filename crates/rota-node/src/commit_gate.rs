//! Between an answer and COMMIT (steps 8 and 9): what a client was told of is read by nobody before
//! it is in the file, and by everybody after.
//!
//! ```text
//!   executor  tell() ─► answers ─► COMMIT ─► committed()
//!   reader    pass():   waits for that, if anything was told before it came
//! ```
//! A block that is final and executed will be committed: if not now, then after a restart. So its
//! clients need not wait for COMMIT, a tenth of a lone write's time; only who then reads does:
//! readers, drafts and backups all come by here (`docs/decisions/0018-told-before-commit.md`).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How much was told, and how much of it is to be read.
#[derive(Default)]
pub(crate) struct Told {
    counts: Mutex<Counts>,
    news: Condvar,
}

#[derive(Default)]
struct Counts {
    told: u64,
    committed: u64,
    /// How many readers wait.
    waiting: usize,
    /// Something that was told could not be committed: this server ends, and shows nothing more.
    has_failed: bool,
}

/// Clients are being told. Dropped before it is committed, nothing is read here any more.
pub(crate) struct Telling<'a> {
    told: &'a Told,
    is_committed: bool,
}

impl Told {
    /// From now on readers wait.
    pub(crate) fn tell(&self) -> Telling<'_> {
        self.lock().told += 1;
        Telling { told: self, is_committed: false }
    }

    /// Returns when all that was told before this call is committed; false if it will not be.
    #[must_use]
    pub(crate) fn pass(&self) -> bool {
        let mut counts = self.lock();
        let told = counts.told;
        counts.waiting += 1;
        while counts.committed < told && !counts.has_failed {
            counts = self.news.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        counts.waiting -= 1;
        !counts.has_failed
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telling<'_> {
    /// It is in the file.
    pub(crate) fn committed(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut counts = self.told.lock();
        match self.is_committed {
            true => counts.committed = counts.told,
            false => counts.has_failed = true,
        }
        if counts.waiting > 0 {
            self.told.news.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_reader_waits_for_what_was_told_before_it_came_and_for_nothing_later() {
        let told = Arc::new(Told::default());
        assert!(told.pass());
        let telling = told.tell();
        let theirs = Arc::clone(&told);
        let reader = std::thread::spawn(move || theirs.pass());
        while told.lock().waiting == 0 && !reader.is_finished() {
            std::thread::yield_now();
        }
        assert!(!reader.is_finished(), "what was told is not committed");
        telling.committed();
        let later = told.tell();
        assert!(reader.join().unwrap());
        later.committed();
        assert!(told.pass());
    }

    #[test]
    fn what_cannot_be_committed_ends_all_reading() {
        let told = Told::default();
        drop(told.tell());
        assert!(!told.pass());
    }
}
