//! Cancel requests: step 1, the only thing that a connection may do to another one.
//!
//! ```text
//!  connection 7 ── start-up ──► (7, secret) ──► its client
//!  connection 8 ── CancelRequest(7, secret) ──► Sessions ──► 7's `Cancel`: its statement ends
//! ```
//!
//! What is cancelled is a read, or a statement in a transaction: 57014. A write that is signed,
//! COMMIT included, cannot be taken back: its client goes on waiting for it, as it does in
//! PostgreSQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_core::error::{Refusal, sqlstate};

use crate::driver::Cancel;

/// All sessions of a server that can be cancelled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    newest: i32,
    sessions: HashMap<i32, (i32, Cancel)>,
}

/// A session's place among them; given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    sessions: Sessions,
    /// What the client is told, as if it were the process that serves it.
    pub(crate) process: i32,
    /// What it must know to cancel.
    pub(crate) secret: i32,
    /// Calls off what runs.
    pub(crate) cancel: Cancel,
}

impl Sessions {
    /// A new session, with a number that no other one has and a secret.
    pub(crate) fn register(&self) -> Result<Registered, Refusal> {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_err(|error| {
            Refusal::new(sqlstate::INTERNAL, format!("the system's random source failed: {error}"))
        })?;
        let secret = i32::from_be_bytes(bytes);
        let cancel = Cancel::default();
        let mut known = self.known();
        // Connections are few and numbers many: one is free.
        let process = loop {
            known.newest = known.newest.checked_add(1).unwrap_or(1);
            let newest = known.newest;
            if !known.sessions.contains_key(&newest) {
                break newest;
            }
        };
        known.sessions.insert(process, (secret, cancel.clone()));
        drop(known);
        Ok(Registered { sessions: self.clone(), process, secret, cancel })
    }

    /// Cancels what a session runs, if the secret is its. Nobody is told whether it was.
    pub(crate) fn cancel(&self, process: i32, secret: i32) {
        if let Some((its, cancel)) = self.known().sessions.get(&process)
            && *its == secret
        {
            cancel.cancel();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.known().sessions.remove(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn only_who_knows_the_secret_cancels_and_only_that_session() {
        let sessions = Sessions::default();
        let (one, other) = (sessions.register().unwrap(), sessions.register().unwrap());
        let cancelled = |session: &Registered| session.cancel.flag().load(Ordering::Relaxed);
        sessions.cancel(one.process, one.secret.wrapping_add(1));
        sessions.cancel(other.process, one.secret.wrapping_add(1));
        assert!(!cancelled(&one));
        sessions.cancel(one.process, one.secret);
        assert!(cancelled(&one) && !cancelled(&other));
    }

    #[test]
    fn a_session_that_has_ended_is_forgotten_and_its_number_may_be_used_again() {
        let sessions = Sessions::default();
        drop(sessions.register().unwrap());
        assert!(sessions.known().sessions.is_empty());
        let first = sessions.register().unwrap();
        sessions.known().newest = first.process - 1;
        let second = sessions.register().unwrap();
        assert_ne!(first.process, second.process);
    }
}
