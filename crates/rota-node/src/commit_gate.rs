//! Between an answer and COMMIT (steps 8 and 9): what a client was told of is read by nobody before
//! it is in the file, and by everybody after.
//!
//! ```text
//!   executor  close() ─► answers ─► COMMIT ─► committed()
//!   reader    pass():    waits for that, if the gate was closed before it came
//! ```
//! A block that is final and executed will be committed: if not now, then after a restart. So its
//! clients need not wait for COMMIT, a tenth of a lone write's time; only who then reads does:
//! readers, drafts and backups all come by here (`docs/decisions/0018-told-before-commit.md`).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Passed by whoever is about to read `state.db`.
#[derive(Default)]
pub(crate) struct CommitGate {
    counts: Mutex<Counts>,
    news: Condvar,
}

#[derive(Default)]
struct Counts {
    /// How often the gate was closed, and how often what it was closed for was committed.
    closed: u64,
    committed: u64,
    /// How many readers wait.
    waiting: usize,
    /// What clients were told of could not be committed: this server ends, and shows nothing more.
    has_failed: bool,
}

/// The gate is closed, and clients may be told. Dropped before what they were told of is committed,
/// whoever wants to read is turned away.
pub(crate) struct Closed<'a> {
    gate: &'a CommitGate,
    is_committed: bool,
}

impl CommitGate {
    /// From now on readers wait.
    pub(crate) fn close(&self) -> Closed<'_> {
        self.lock().closed += 1;
        Closed { gate: self, is_committed: false }
    }

    /// Returns when all that clients were told of before this call is committed; false if it will
    /// not be.
    #[must_use]
    pub(crate) fn pass(&self) -> bool {
        let mut counts = self.lock();
        let closed = counts.closed;
        counts.waiting += 1;
        while counts.committed < closed && !counts.has_failed {
            counts = self.news.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        counts.waiting -= 1;
        !counts.has_failed
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Closed<'_> {
    /// What clients were told of is in the file.
    pub(crate) fn committed(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut counts = self.gate.lock();
        match self.is_committed {
            true => counts.committed = counts.closed,
            false => counts.has_failed = true,
        }
        if counts.waiting > 0 {
            self.gate.news.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_reader_waits_for_what_was_told_before_it_came_and_for_nothing_later() {
        let gate = Arc::new(CommitGate::default());
        assert!(gate.pass());
        let closed = gate.close();
        let theirs = Arc::clone(&gate);
        let reader = std::thread::spawn(move || theirs.pass());
        while gate.lock().waiting == 0 && !reader.is_finished() {
            std::thread::yield_now();
        }
        assert!(!reader.is_finished(), "what was told is not committed");
        closed.committed();
        let later = gate.close();
        assert!(reader.join().unwrap());
        later.committed();
        assert!(gate.pass());
    }

    #[test]
    fn what_cannot_be_committed_ends_all_reading() {
        let gate = CommitGate::default();
        drop(gate.close());
        assert!(!gate.pass());
    }
}
