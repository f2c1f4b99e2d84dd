//! rqlite's queued writes: a client is answered before its write is sent, and writes of many
//! requests share a transaction. Between steps 1 and 2 of a transaction's life.
//!
//! ```text
//!  POST /db/execute?queue ─► room? ─► queue ─► batch (128 requests, 1 MiB, 50 ms) ─► driver
//!     {"results":[],"sequence_number":7}                        │
//!  POST /db/execute?queue&wait ◄──────── written ◄──────────────┘
//! ```
//!
//! A batch is one transaction if all of it works; else every element is written for itself, since
//! they know nothing of each other. What is queued is lost when the server stops.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_core::error::sqlstate;
use rota_core::transaction::Statement;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::run::{is_unavailable, settings};
use crate::driver::{Driver, WriteOptions};

/// Requests that wait, as rqlite's default.
const REQUESTS: usize = 1024;

/// Bytes of those that wait or are being written: clients send no more than so much ahead.
const BYTES: usize = 32 << 20;

/// Requests of a batch, as rqlite's default.
const BATCH_REQUESTS: usize = 128;

/// Bytes of a batch: a third of what fits a transaction.
const BATCH_BYTES: usize = 1 << 20;

/// How long a batch waits for more, as rqlite's default.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// Between tries while no quorum is in reach, as rqlite's.
const RETRY: Duration = Duration::from_secs(1);

/// What was queued is not taken: too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Writes that are on their way to the driver.
#[derive(Debug)]
pub(crate) struct Queue {
    /// With the number of the newest request, so that numbers are in the order of the queue.
    entry: Mutex<(i64, mpsc::Sender<Queued>)>,
    room: Arc<Semaphore>,
    written: Arc<AtomicI64>,
}

#[derive(Debug)]
struct Queued {
    number: i64,
    user: Arc<str>,
    elements: Vec<Vec<Statement>>,
    bytes: usize,
    /// Told when it is written, if anybody waits.
    done: Option<oneshot::Sender<()>>,
    _room: OwnedSemaphorePermit,
}

impl Queue {
    /// A queue, and the task that empties it; the task ends with the queue.
    pub(crate) fn new(driver: Driver) -> Self {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        let written = Arc::new(AtomicI64::new(0));
        tokio::spawn(empty(receiver, driver, Arc::clone(&written)));
        // As rqlite's: numbers of a server that was started again are larger than before.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = i64::try_from(now.as_nanos()).unwrap_or_default();
        Self { entry: Mutex::new((first, sender)), room: Arc::new(Semaphore::new(BYTES)), written }
    }

    /// Takes a request's elements. The number, and what tells when they are written.
    pub(crate) fn push(
        &self,
        user: Arc<str>,
        elements: Vec<Vec<Statement>>,
        bytes: usize,
    ) -> Result<(i64, oneshot::Receiver<()>), Full> {
        let permits = u32::try_from(bytes).map_err(|_| Full)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits).map_err(|_| Full)?;
        let (done, written) = oneshot::channel();
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, sender) = &mut *entry;
        let place = sender.try_reserve().map_err(|_| Full)?;
        *number = number.saturating_add(1);
        let (number, done) = (*number, Some(done));
        place.send(Queued { number, user, elements, bytes, done, _room: room });
        Ok((number, written))
    }

    /// The number of the newest request that was written; 0: none yet.
    pub(crate) fn written(&self) -> i64 {
        self.written.load(Ordering::Relaxed)
    }
}

async fn empty(mut queue: mpsc::Receiver<Queued>, driver: Driver, written: Arc<AtomicI64>) {
    while let Some(first) = queue.recv().await {
        let until = Instant::now() + BATCH_TIME;
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while batch.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            let Ok(Some(next)) = timeout_at(until, queue.recv()).await else { break };
            bytes = bytes.saturating_add(next.bytes);
            batch.push(next);
        }
        let mut batch = batch.into_iter().peekable();
        while let Some(first) = batch.next() {
            let user = Arc::clone(&first.user);
            let mut own = vec![first];
            while let Some(next) = batch.next_if(|next| next.user == user) {
                own.push(next);
            }
            write(&driver, &user, &mut own, &queue).await;
            for Queued { number, done, .. } in own {
                written.store(number, Ordering::Relaxed);
                // Nobody may wait any more.
                let _ = done.map(|done| done.send(()));
            }
        }
    }
}

/// Writes requests of one user: as one transaction, or else every element for itself.
async fn write(
    driver: &Driver,
    user: &str,
    requests: &mut [Queued],
    queue: &mpsc::Receiver<Queued>,
) {
    let elements: Vec<Vec<Statement>> =
        requests.iter_mut().flat_map(|request| std::mem::take(&mut request.elements)).collect();
    let all = elements.concat();
    if all.is_empty() {
        return;
    }
    if try_write(driver, user, all, queue).await || elements.len() == 1 {
        return;
    }
    for element in elements {
        try_write(driver, user, element, queue).await;
    }
}

/// Whether it need not be tried in another way. Tries again for as long as nothing can be written.
async fn try_write(
    driver: &Driver,
    user: &str,
    statements: Vec<Statement>,
    queue: &mpsc::Receiver<Queued>,
) -> bool {
    loop {
        let options = WriteOptions::default();
        let Err(error) = driver.write(user, statements.clone(), settings(), &options).await else {
            return true;
        };
        let refusal = &error.refusal;
        if is_unavailable(refusal) && !queue.is_closed() {
            debug!(why = %refusal.message, "queued writes wait");
            sleep(RETRY).await;
            continue;
        }
        if refusal.code() == sqlstate::OUTCOME_UNKNOWN || is_unavailable(refusal) {
            let count = statements.len();
            warn!(count, why = %refusal.message, "queued writes may be lost");
            return true;
        }
        debug!(why = %refusal, "a queued write failed");
        return false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (Queue, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        let entry = Mutex::new((7, sender));
        let (room, written) = (Arc::new(Semaphore::new(BYTES)), Arc::default());
        (Queue { entry, room, written }, receiver)
    }

    fn push(queue: &Queue, bytes: usize) -> Result<i64, Full> {
        queue.push("rota".into(), Vec::new(), bytes).map(|(number, _)| number)
    }

    #[test]
    fn a_queue_is_full_when_it_has_so_many_requests_and_numbers_them_in_order() {
        let (queue, mut receiver) = queue();
        let numbers: Vec<_> = (0..REQUESTS).map(|_| push(&queue, 1).unwrap()).collect();
        assert_eq!(numbers.first(), Some(&8));
        assert!(numbers.is_sorted());
        assert_eq!(push(&queue, 1), Err(Full));
        assert_eq!(receiver.try_recv().unwrap().number, 8);
        assert!(push(&queue, 1).is_ok());
    }

    #[test]
    fn a_queue_is_full_when_it_has_so_many_bytes_until_they_are_written() {
        let (queue, mut receiver) = queue();
        assert!(push(&queue, BYTES).is_ok());
        assert_eq!(push(&queue, 1), Err(Full));
        let writing = receiver.try_recv().unwrap();
        assert_eq!(push(&queue, 1), Err(Full), "not written yet");
        drop(writing);
        assert!(push(&queue, 1).is_ok());
    }
}
