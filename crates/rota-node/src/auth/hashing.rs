//! Passwords that HTTP's clients send and that are not known yet: each is hashed before it is
//! believed, a few at a time, and no address takes all the turns. Step 1 of a transaction's life.
//!
//! ```text
//!  password ─► the same one waits already? ── yes ─► its answer is this one's too
//!                  └─ no ─► a place among its address's? ── no ─► busy, at once
//!                               └─ yes ─► its turn ─► PBKDF2
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

use super::Denied;
use super::known::Mark;
use crate::porch::network;

/// How many are hashed at a time: some half a millisecond of a CPU each. Others wait, so that a
/// flood of wrong passwords leaves CPUs for everything else.
const TURNS: usize = 1;

/// How many different passwords from one address may wait or be hashed. Turns are taken in order:
/// whoever comes from elsewhere waits for so many of each address that floods, not for all.
const MOST_PER_ADDRESS: usize = 4;

/// Whether a password is right.
type Answer = BoxFuture<'static, Result<bool, Denied>>;

/// The passwords that wait for their turn.
pub(super) struct Hashing {
    pub(super) turns: Arc<Semaphore>,
    /// Those of clients that are gone are gone as well.
    waiting: Mutex<HashMap<IpAddr, Vec<Check>>>,
}

struct Check {
    mark: Mark,
    answer: WeakShared<Answer>,
}

impl Hashing {
    pub(super) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(TURNS)), waiting: Mutex::default() }
    }

    /// Whether the password that `mark` stands for is right, as `hash` tells when it has its turn.
    pub(super) async fn is_right(
        &self,
        from: IpAddr,
        mark: Mark,
        hash: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Denied> {
        self.join(from, mark, hash)?.await
    }

    fn join(
        &self,
        from: IpAddr,
        mark: Mark,
        hash: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<Shared<Answer>, Denied> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, checks| {
            checks.retain(|check| check.answer.upgrade().is_some());
            !checks.is_empty()
        });
        let checks = waiting.entry(network(from)).or_default();
        let same = checks.iter().find(|check| check.mark == mark);
        if let Some(answer) = same.and_then(|check| check.answer.upgrade()) {
            return Ok(answer);
        }
        if checks.len() >= MOST_PER_ADDRESS {
            return Err(Denied::Busy);
        }
        let turns = Arc::clone(&self.turns);
        let answer = async move {
            let turn = turns.acquire_owned().await.map_err(|_| Denied::Unavailable)?;
            let hashed = tokio::task::spawn_blocking(move || {
                let right = hash();
                // Not before the work is done, also if the client is gone by then.
                drop(turn);
                right
            });
            hashed.await.map_err(|_| Denied::Unavailable)
        };
        let answer = answer.boxed().shared();
        if let Some(weak) = answer.downgrade() {
            checks.push(Check { mark, answer: weak });
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_floods_keeps_no_other_out() {
        let hashing = Hashing::new();
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let busy = Arc::clone(&hashing.turns).acquire_owned().await.unwrap();
        let join = |from, mark: u8| hashing.join(from, [mark; 32], move || mark == 9);
        let mut flood: Vec<_> = (0..4).map(|mark| join(one, mark).unwrap()).collect();
        assert_eq!(join(one, 9).err(), Some(Denied::Busy));
        let (same, right) = (join(one, 3).unwrap(), join(other, 9).unwrap());
        drop(busy);
        assert_eq!((right.await, same.await), (Ok(true), Ok(false)));
        // A client that went away leaves its place.
        flood.pop();
        assert_eq!(join(one, 9).unwrap().await, Ok(true));
        // What was told is not kept: it is of its time.
        assert_eq!(hashing.is_right(other, [9; 32], || false).await, Ok(false));
    }
}
