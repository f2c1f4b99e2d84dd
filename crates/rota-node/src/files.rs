//! How many files this process may have open, and how they are shared out: each connection is one,
//! and a server that cannot open a file of its own cannot go on. Before step 1.
//!
//! ```text
//!  limit (ulimit -n) ─┬─ 1/4: databases, drafts, peers, logs
//!                     └─ 3/4: connections, the same share for each open door of this process
//! ```

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Of this many parts of the limit, one is kept for other things than connections.
const KEPT: u64 = 4;

/// However few files there may be, a door without connections is of no use.
const FEWEST: usize = 16;

/// Doors of this process that are open: `rota dev` and tests run several servers in one.
static DOORS: AtomicUsize = AtomicUsize::new(0);

/// The limit in force; 0 until it was asked for.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Raises the limit of open files as far as it may be raised without privileges; says how many
/// there may be.
pub(crate) fn raise() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    let raised = before.current != before.maximum && setrlimit(Resource::Nofile, wanted).is_ok();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if raised {
        tracing::info!(from = before.current, to = limit, "raised the limit of open files");
    }
    LIMIT.store(limit, Ordering::Relaxed);
    limit
}

/// A door's share of what may be open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share(());

impl Share {
    /// For one more door.
    pub(crate) fn take() -> Self {
        DOORS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// How many connections it may have: fewer when other doors open.
    pub(crate) fn connections(&self) -> usize {
        let limit = match LIMIT.load(Ordering::Relaxed) {
            0 => raise(),
            limit => limit,
        };
        share(limit, DOORS.load(Ordering::Relaxed))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        DOORS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn share(limit: u64, doors: usize) -> usize {
    let connections = limit.saturating_sub(limit / KEPT);
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    (connections / doors.max(1)).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_and_the_rest_is_shared_out() {
        assert_eq!(share(1_024, 2), 384);
        assert_eq!(share(20_000, 8), 1_875);
        assert!(share(u64::MAX, 2) > 1 << 60);
        assert_eq!(share(64, 8), FEWEST);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(now.current.unwrap_or(u64::MAX), limit);
    }
}
