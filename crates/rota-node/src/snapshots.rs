//! The thread that makes snapshots, beside step 8: blocks go on meanwhile.
//!
//! ```text
//!   executor: block applied ──► pin (a read begins) ──► one place ──► make, on this thread
//! ```
//! A busy cluster comes to the next due height in seconds, and a large database takes longer than
//! that to copy: what takes a while is done seldom.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use rota_core::error::Fault;
use rota_core::types::Height;
use rota_store::snapshot::{Pinned, Snapshots};

use crate::queues;
use crate::threads::{self, Faults, Stop};

/// What is made within this time is made at every height at which it is due.
const BRIEF: Duration = Duration::from_millis(100);

/// What takes longer: after so many times as long at the soonest. The thread is at it for a
/// thirtieth of the time at the most.
const REST: u32 = 29;

/// Asks for snapshots.
pub(crate) struct Maker {
    snapshots: Arc<Snapshots>,
    jobs: Sender<Pinned>,
    work: Arc<Mutex<Work>>,
}

/// What the thread is at.
enum Work {
    /// Nothing, and nothing was made.
    Idle,
    /// One is being made, or is about to be.
    Making,
    /// Nothing since one was made, and how long that took.
    Done { at: Instant, took: Duration },
}

impl Work {
    /// Whether it is too early for another one.
    fn rests(&self, now: Instant) -> bool {
        match *self {
            Self::Idle => false,
            Self::Making => true,
            Self::Done { at, took } => {
                took > BRIEF && now.saturating_duration_since(at) < took * REST
            }
        }
    }
}

impl Maker {
    /// Starts the thread. It ends when the server stops, what it is at unfinished.
    pub(crate) fn start(
        snapshots: Arc<Snapshots>,
        stop: &Stop,
        faults: &Faults,
    ) -> Result<(Self, JoinHandle<()>), Fault> {
        let (jobs, pinned) = bounded::<Pinned>(queues::SNAPSHOTS);
        let (own, stop) = (Arc::clone(&snapshots), stop.clone());
        let work = Arc::new(Mutex::new(Work::Idle));
        let done = Arc::clone(&work);
        let thread = threads::spawn("snapshot", faults, move || {
            for pinned in pinned {
                if stop.is_told() {
                    break;
                }
                let (height, began) = (pinned.applied.height, Instant::now());
                // A full disk, as a rule: the server does without this one.
                if let Err(fault) = own.make(pinned, || stop.is_told()) {
                    tracing::error!(%height, %fault, "no snapshot was made");
                }
                *lock(&done) = Work::Done { at: Instant::now(), took: began.elapsed() };
            }
            Ok(())
        })?;
        Ok((Self { snapshots, jobs, work }, thread))
    }

    /// Whether a copy is made after this height.
    pub(crate) fn is_due(&self, height: Height) -> bool {
        self.snapshots.is_due(height)
    }

    /// The block of this height is executed: now is the time for a copy, if one is due, unless the
    /// last one is still being made or took a while.
    pub(crate) fn executed(&self, height: Height) {
        if !self.snapshots.is_due(height) {
            return;
        }
        let mut work = lock(&self.work);
        if work.rests(Instant::now()) {
            return tracing::debug!(%height, "no snapshot: the last one takes, or took, a while");
        }
        let pinned = match self.snapshots.pin() {
            Ok(pinned) => pinned,
            Err(fault) => return tracing::error!(%height, %fault, "no snapshot was made"),
        };
        // The thread has ended, as the server is about to, or it is free.
        if self.jobs.try_send(pinned).is_ok() {
            *work = Work::Making;
        }
    }
}

fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_while_is_made_seldom() {
        let at = Instant::now();
        let rests = |took, after| {
            let work = Work::Done { at, took: Duration::from_millis(took) };
            work.rests(at + Duration::from_millis(after))
        };
        assert!(!rests(100, 0), "small ones come as they are due");
        assert!(rests(1_000, 28_999));
        assert!(!rests(1_000, 29_000));
        assert!(rests(60_000, 1_700_000));
        assert!(Work::Making.rests(at) && !Work::Idle.rests(at));
    }
}
