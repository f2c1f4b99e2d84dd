//! How new a read must be, and how sure a write: what clients choose for steps 2 and 9, and the
//! means to call something off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rota_core::types::Height;

/// How new what a read sees must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadLevel {
    /// This server's last final state, never older than the client's own acknowledged writes.
    #[default]
    Local,
    /// Blocks that are not final yet, too.
    Latest,
    /// Everything that was acknowledged to anybody, anywhere, before the read began.
    Linearizable,
}

/// What a write waits for before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// It is final and executed on this server.
    #[default]
    Final,
    /// It stands in a block that may still be abandoned.
    Included,
    /// This server has taken it.
    None,
}

/// Calls off what runs with it: 57014. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From now on.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes a cancellation back, for the next statement.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// What a running statement looks at.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// How a read is run.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// It sees this height at least.
    pub after: Height,
    /// How new what it sees must be.
    pub level: ReadLevel,
    /// When it must be done, if that is before this server's own limit.
    pub deadline: Option<Instant>,
    /// Calls it off.
    pub cancel: Cancel,
}

impl ReadOptions {
    /// This server's last final state, once that includes `height`.
    pub fn after(height: Height) -> Self {
        Self { after: height, ..Self::default() }
    }

    /// The earlier of the client's deadline and ours.
    pub(crate) fn until(&self, ours: Instant) -> Instant {
        self.deadline.map_or(ours, |theirs| theirs.min(ours))
    }
}

/// How a write, or a COMMIT, is run.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// What it waits for.
    pub wait: Wait,
    /// Until when it waits, if that is before this server's own limit; then 40003.
    pub deadline: Option<Instant>,
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct BeginOptions {
    /// It refuses writes (25006).
    pub read_only: bool,
    /// It sees this height at least.
    pub after: Height,
    /// How new what it sees must be.
    pub level: ReadLevel,
}

/// How a statement in a transaction is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// When it must be done, if that is before this server's own limit.
    pub deadline: Option<Instant>,
    /// Calls it off.
    pub cancel: Cancel,
}
