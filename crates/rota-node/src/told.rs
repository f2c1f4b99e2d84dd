//! Between an answer and COMMIT (steps 8 and 9): what a client was told of is read by nobody before
//! it is in the file, and by everybody after.
//!
//! ```text
//!   executor  tell() ─► answers ─► COMMIT ─► dropped
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
}

/// Clients are being told. Dropped when it is committed, or never will be here.
pub(crate) struct Telling<'a>(&'a Told);

impl Told {
    /// From now on readers wait.
    pub(crate) fn tell(&self) -> Telling<'_> {
        self.lock().told += 1;
        Telling(self)
    }

    /// Returns when all that was told before this call is committed.
    pub(crate) fn pass(&self) {
        let mut counts = self.lock();
        let told = counts.told;
        counts.waiting += 1;
        while counts.committed < told {
            counts = self.news.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        counts.waiting -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.lock();
        counts.committed = counts.told;
        if counts.waiting > 0 {
            self.0.news.notify_all();
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
        told.pass();
        let telling = told.tell();
        let theirs = Arc::clone(&told);
        let reader = std::thread::spawn(move || theirs.pass());
        while told.lock().waiting == 0 && !reader.is_finished() {
            std::thread::yield_now();
        }
        assert!(!reader.is_finished(), "what was told is not committed");
        drop(telling);
        let later = told.tell();
        reader.join().unwrap();
        drop(later);
        told.pass();
    }
}
