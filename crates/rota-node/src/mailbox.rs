//! What reaches the replica's thread, and how it is woken (steps 3 to 8): checked words of peers,
//! envelopes, executed blocks, questions. One lock for all of it, so that a turn of the thread
//! costs one wake-up, which is given after the lock is free: whoever is woken need not wait for it.
//!
//! ```text
//!  checkers, signer, miner ── Inputs ────► ┌─────────┐
//!  executor ───────────────── Results ───► │ Mailbox │ ──► replica's thread
//!  readers, driver ────────── Questions ─► └─────────┘
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{SendError, TrySendError};

use crate::checker::Arrival;
use crate::executor::Executed;
use crate::queues;
use crate::unfinal::Question;

/// An empty mailbox, and all the ways into it.
pub(crate) fn mailbox() -> (Mailbox, Inputs, Results, Questions) {
    let shared = Arc::new(Shared::default());
    let inputs = Inputs(Arc::clone(&shared));
    let (results, questions) = (Results(Arc::clone(&shared)), Questions(Arc::clone(&shared)));
    (Mailbox(shared), inputs, results, questions)
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something is there for the replica's thread.
    news: Condvar,
    /// There is room for inputs again.
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    inputs: VecDeque<Arrival>,
    results: VecDeque<Executed>,
    questions: VecDeque<Question>,
    /// What the thread sleeps for; nothing while it is awake.
    sleeps: Option<Wanted>,
    /// How many senders of inputs wait for room.
    crowd: usize,
    closed: bool,
}

/// What the replica's thread can be woken for, beside questions and the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Whether it takes inputs now.
    pub(crate) inputs: bool,
    /// Whether an executed block is a reason to wake it: else it finds it when it wakes next.
    pub(crate) results: bool,
}

/// What was there when the thread woke.
#[derive(Default)]
pub(crate) struct Post {
    pub(crate) results: Vec<Executed>,
    pub(crate) inputs: Vec<Arrival>,
    pub(crate) questions: Vec<Question>,
}

/// The replica's thread's end. Dropped, it closes.
pub(crate) struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// Waits for something that is wanted, or for `until`, and takes all that is there: results and
    /// questions, and of inputs, if they are wanted, no more than `queues::INPUT_BATCH`. Nothing
    /// once it is closed.
    pub(crate) fn take(&self, wanted: Wanted, until: Instant) -> Option<Post> {
        let mut waiting = self.0.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let patience = until.saturating_duration_since(Instant::now());
            if waiting.has(wanted) || patience.is_zero() {
                break;
            }
            waiting.sleeps = Some(wanted);
            let woken = self.0.news.wait_timeout(waiting, patience);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            waiting.sleeps = None;
        }
        let mut post = Post {
            results: waiting.results.drain(..).collect(),
            inputs: Vec::new(),
            questions: waiting.questions.drain(..).collect(),
        };
        if wanted.inputs {
            let count = waiting.inputs.len().min(queues::INPUT_BATCH);
            post.inputs.extend(waiting.inputs.drain(..count));
        }
        let make_room = waiting.crowd > 0 && !post.inputs.is_empty();
        drop(waiting);
        if make_room {
            self.0.room.notify_all();
        }
        Some(post)
    }

    /// Something that closes it, for whoever stops the server.
    pub(crate) fn closer(&self) -> impl FnOnce() + Send + Sync + 'static {
        let shared = Arc::clone(&self.0);
        move || shared.close()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where inputs of the replica go: [`queues::INPUTS`] of them.
#[derive(Clone)]
pub(crate) struct Inputs(Arc<Shared>);

impl Inputs {
    /// Waits for room. An error says that the replica is gone.
    pub(crate) fn send(&self, input: Arrival) -> Result<(), SendError<()>> {
        let mut waiting = self.0.lock();
        while !waiting.closed && waiting.inputs.len() >= queues::INPUTS {
            waiting.crowd += 1;
            waiting = self.0.room.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.crowd -= 1;
        }
        if waiting.closed {
            return Err(SendError(()));
        }
        waiting.inputs.push_back(input);
        self.0.wake(waiting, |wanted| wanted.inputs);
        Ok(())
    }

    /// The input comes back when there is no room for it, or nobody to take it.
    #[expect(clippy::result_large_err, reason = "an input is moved once, either way")]
    pub(crate) fn try_send(&self, input: Arrival) -> Result<(), TrySendError<Arrival>> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(TrySendError::Disconnected(input));
        }
        if waiting.inputs.len() >= queues::INPUTS {
            return Err(TrySendError::Full(input));
        }
        waiting.inputs.push_back(input);
        self.0.wake(waiting, |wanted| wanted.inputs);
        Ok(())
    }
}

/// Where executed blocks go: no more than the replica has handed out.
pub(crate) struct Results(Arc<Shared>);

impl Results {
    /// Never waits. The block comes back when the replica is gone.
    pub(crate) fn send(&self, result: Executed) -> Result<(), SendError<Executed>> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(SendError(result));
        }
        waiting.results.push_back(result);
        self.0.wake(waiting, |wanted| wanted.results);
        Ok(())
    }
}

/// Where questions go: [`queues::QUESTIONS`] of them.
pub(crate) struct Questions(Arc<Shared>);

impl Questions {
    /// The question comes back when there is no room for it, or nobody to answer it.
    pub(crate) fn try_send(&self, question: Question) -> Result<(), TrySendError<Question>> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(TrySendError::Disconnected(question));
        }
        if waiting.questions.len() >= queues::QUESTIONS {
            return Err(TrySendError::Full(question));
        }
        waiting.questions.push_back(question);
        self.0.wake(waiting, |_| true);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if it sleeps for this, once.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>, is_wanted: impl Fn(Wanted) -> bool) {
        let sleeps = waiting.sleeps.take_if(|wanted| is_wanted(*wanted)).is_some();
        drop(waiting);
        if sleeps {
            self.news.notify_one();
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
        self.room.notify_all();
    }
}

impl Waiting {
    fn has(&self, wanted: Wanted) -> bool {
        !self.questions.is_empty()
            || (wanted.inputs && !self.inputs.is_empty())
            || (wanted.results && !self.results.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_core::block::Applied;
    use rota_core::replica::Input;
    use std::time::Duration;

    const ALL: Wanted = Wanted { inputs: true, results: true };

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn executed() -> Executed {
        Executed { applied: Applied::default(), receipts: Vec::new() }
    }

    #[test]
    fn what_comes_while_the_thread_sleeps_wakes_it() {
        let (mailbox, inputs, _results, _questions) = mailbox();
        let sleeper = std::thread::spawn(move || mailbox.take(ALL, soon()).unwrap().inputs.len());
        while inputs.0.lock().sleeps.is_none() && !sleeper.is_finished() {
            std::thread::yield_now();
        }
        inputs.send(Input::Woken.into()).unwrap();
        assert_eq!(sleeper.join().unwrap(), 1);
    }

    #[test]
    fn what_is_not_wanted_waits_for_the_next_turn() {
        let (mailbox, inputs, results, _questions) = mailbox();
        results.send(executed()).unwrap();
        let only_inputs = Wanted { inputs: true, results: false };
        assert!(!mailbox.0.lock().has(only_inputs));
        inputs.send(Input::Woken.into()).unwrap();
        let post = mailbox.take(only_inputs, soon()).unwrap();
        assert_eq!((post.inputs.len(), post.results.len()), (1, 1));
        inputs.send(Input::Woken.into()).unwrap();
        results.send(executed()).unwrap();
        let held_up = Wanted { inputs: false, results: true };
        let post = mailbox.take(held_up, soon()).unwrap();
        assert_eq!((post.inputs.len(), post.results.len()), (0, 1));
        assert_eq!(mailbox.take(ALL, soon()).unwrap().inputs.len(), 1);
    }

    #[test]
    fn when_its_time_has_come_nothing_is_something() {
        let (mailbox, _inputs, _results, _questions) = mailbox();
        assert!(mailbox.take(ALL, Instant::now()).is_some());
    }

    #[test]
    fn senders_wait_for_room_and_hear_of_the_end() {
        let (mailbox, inputs, _results, _questions) = mailbox();
        for _ in 0..queues::INPUTS {
            inputs.try_send(Input::Woken.into()).unwrap();
        }
        assert!(matches!(inputs.try_send(Input::Woken.into()), Err(TrySendError::Full(_))));
        let waits = || {
            let inputs = inputs.clone();
            std::thread::spawn(move || inputs.send(Input::Woken.into()).is_ok())
        };
        let taken = waits();
        while inputs.0.lock().crowd == 0 {
            std::thread::yield_now();
        }
        assert_eq!(mailbox.take(ALL, soon()).unwrap().inputs.len(), queues::INPUT_BATCH);
        assert!(taken.join().unwrap());
        while inputs.try_send(Input::Woken.into()).is_ok() {}
        let refused = waits();
        while inputs.0.lock().crowd == 0 {
            std::thread::yield_now();
        }
        drop(mailbox);
        assert!(!refused.join().unwrap());
    }

    #[test]
    fn who_stops_the_server_ends_the_wait() {
        let (mailbox, _inputs, _results, _questions) = mailbox();
        let close = mailbox.closer();
        let sleeper = std::thread::spawn(move || mailbox.take(ALL, soon()).is_none());
        close();
        assert!(sleeper.join().unwrap());
    }
}
