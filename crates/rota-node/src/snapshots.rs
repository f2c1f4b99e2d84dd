//! The thread that makes snapshots, beside step 8: blocks go on meanwhile.
//!
//! ```text
//!   executor: block applied ──► pin (a read begins) ──► one place ──► make, on this thread
//! ```

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use rota_core::error::Fault;
use rota_core::types::Height;
use rota_store::snapshot::{Pinned, Snapshots};

use crate::queues;
use crate::threads::{self, Faults, Stop};

/// Asks for snapshots.
pub(crate) struct Maker {
    snapshots: Arc<Snapshots>,
    jobs: Sender<Pinned>,
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
        let thread = threads::spawn("snapshot", faults, move || {
            for pinned in pinned {
                if stop.is_told() {
                    break;
                }
                let height = pinned.applied.height;
                // A full disk, as a rule: the server does without this one.
                if let Err(fault) = own.make(pinned, || stop.is_told()) {
                    tracing::error!(%height, %fault, "no snapshot was made");
                }
            }
            Ok(())
        })?;
        Ok((Self { snapshots, jobs }, thread))
    }

    /// Whether a copy is made after this height.
    pub(crate) fn is_due(&self, height: Height) -> bool {
        self.snapshots.is_due(height)
    }

    /// The block of this height is executed: now is the time for a copy, if one is due. Where the
    /// last one is still being made there is none.
    pub(crate) fn executed(&self, height: Height) {
        if !self.snapshots.is_due(height) {
            return;
        }
        let pinned = match self.snapshots.pin() {
            Ok(pinned) => pinned,
            Err(fault) => return tracing::error!(%height, %fault, "no snapshot was made"),
        };
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(pinned) {
            tracing::warn!(%height, "no snapshot was made: the last one still is");
        }
    }
}
