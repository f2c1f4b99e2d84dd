//! What the executor is to do next, and when it is woken for it (step 8).
//!
//! ```text
//!  replica ── Orders: final blocks, blocks to come ──► ┌────────┐
//!  driver ─── Haste: somebody waits for a height ────► │ Agenda │ ──► executor
//!                                                      └────────┘
//! ```
//! Where nobody waits for what is final, under `raft`, it waits a moment for more, so that one turn
//! of the thread and one COMMIT are for all of it: a follower's processors are then free for what
//! the leader waits for.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::TrySendError;
use rota_core::block::Block;
use rota_core::genesis::Method;
use rota_core::types::{Height, MemberIndex};

use crate::executor::Job;
use crate::pending::Pending;
use crate::queues;

/// What nobody waits for is executed this much later at most: as much as a leader may hold back the
/// word that it is final (`rota-core/src/consensus/raft/held.rs`); ...
const HELD_FOR: Duration = Duration::from_millis(5);

/// ... and this much more for the second member, twice as much for the third, and so on in turn:
/// servers that share a machine would else all execute at the same moment, and their leader wait
/// for a processor.
const APART: Duration = Duration::from_millis(3);

/// So many different ones.
const PLACES: u32 = 3;

/// Or once it is so many blocks: half of what makes a server say that it is catching up
/// (`board`), and more than a quick disk writes in that time for one client.
pub(crate) const HELD_BLOCKS: usize = 24;

/// How long what is final waits where nobody waits for it.
pub(crate) fn patience(method: Method, member: Option<MemberIndex>) -> Duration {
    match method {
        Method::Raft => HELD_FOR + APART * (member.map_or(0, |index| u32::from(index.0)) % PLACES),
        Method::Poa | Method::Pow => Duration::ZERO,
    }
}

/// Nothing to do yet, and all the ways to change that. Final blocks that nobody waits for wait for
/// `patience`: for no time, unless nothing that is decided waits for what is executed.
pub(crate) fn agenda(pending: Arc<Pending>, patience: Duration) -> (Agenda, Orders, Haste) {
    let (state, news) = (Mutex::default(), Condvar::new());
    let shared = Arc::new(Shared { state, news, pending, patience });
    (Agenda(Arc::clone(&shared)), Orders(Arc::clone(&shared)), Haste(shared))
}

struct Shared {
    state: Mutex<State>,
    news: Condvar,
    pending: Arc<Pending>,
    patience: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// When the oldest of them came.
    since: Option<Instant>,
    /// Blocks that are not final, by rising height.
    to_come: VecDeque<Arc<Block>>,
    /// How many wait for a height.
    waiting: usize,
    sleeps: bool,
    closed: bool,
}

/// What the executor does next.
pub(crate) enum Next {
    /// This.
    Job(Job),
    /// It executes this block, which is not final.
    Ahead(Arc<Block>),
    /// Nothing any more.
    End,
}

/// The executor's end.
pub(crate) struct Agenda(Arc<Shared>);

impl Agenda {
    /// Waits for something to do. `height` is that of the block after the last one that is
    /// executed; `holds`: others wait for what is executed and not committed, so nothing is waited
    /// for.
    pub(crate) fn next(&self, height: Height, holds: bool) -> Next {
        let mut state = self.0.lock();
        loop {
            if state.closed {
                return Next::End;
            }
            let patience = match state.since {
                Some(_) if holds || self.0.is_urgent(&state) => Duration::ZERO,
                Some(since) => self.0.patience.saturating_sub(since.elapsed()),
                None => Duration::MAX,
            };
            if patience.is_zero()
                && let Some(job) = state.jobs.pop_front()
            {
                state.since = state.since.filter(|_| !state.jobs.is_empty());
                return Next::Job(job);
            }
            if state.jobs.is_empty()
                && let Some(block) = state.next_to_come(height)
            {
                return Next::Ahead(block);
            }
            state.sleeps = true;
            state = match patience {
                Duration::MAX => self.0.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                patience => {
                    let woken = self.0.news.wait_timeout(state, patience);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.sleeps = false;
        }
    }

    /// Whether what is executed is to be committed before anything else is done.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.0.lock();
        state.jobs.is_empty() || state.waiting > 0 || !self.0.pending.is_empty()
    }

    /// Something that ends it, for whoever stops the server.
    pub(crate) fn closer(&self) -> impl FnOnce() + Send + Sync + 'static {
        let shared = Arc::clone(&self.0);
        move || shared.close()
    }
}

impl Drop for Agenda {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The replica's end. Dropped, it ends the executor.
pub(crate) struct Orders(Arc<Shared>);

impl Orders {
    /// The job comes back when there is no room for it ([`queues::EXECUTION`]), or nobody to do it.
    pub(crate) fn try_send(&self, job: Job) -> Result<(), TrySendError<Job>> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(TrySendError::Disconnected(job));
        }
        if state.jobs.len() >= queues::EXECUTION {
            return Err(TrySendError::Full(job));
        }
        state.jobs.push_back(job);
        let is_first = state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        // Who sleeps without end has to be woken to sleep until it is due.
        let wakes = is_first || self.0.is_urgent(&state);
        self.0.wake(state, wakes);
        Ok(())
    }

    /// This block is most likely the next to become final, after those that were named before it;
    /// those of its height or above are not any more. If nobody here waits for what is in it, it is
    /// early enough when it is final.
    pub(crate) fn expect(&self, block: Arc<Block>) {
        if self.0.pending.is_empty() {
            return;
        }
        let mut state = self.0.lock();
        state.to_come.retain(|other| other.header.height < block.header.height);
        if state.to_come.len() < queues::AHEAD {
            state.to_come.push_back(block);
            let wakes = state.jobs.is_empty();
            self.0.wake(state, wakes);
        }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// For those who wait for a height.
#[derive(Clone)]
pub(crate) struct Haste(Arc<Shared>);

/// Somebody waits, until this is dropped.
pub(crate) struct Awaited<'a>(&'a Shared);

impl Haste {
    /// From now on what is final is executed and committed at once.
    pub(crate) fn hurry(&self) -> Awaited<'_> {
        let mut state = self.0.lock();
        state.waiting += 1;
        let wakes = !state.jobs.is_empty();
        self.0.wake(state, wakes);
        Awaited(&self.0)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether jobs are done at once.
    fn is_urgent(&self, state: &State) -> bool {
        state.waiting > 0
            || state.jobs.len() >= HELD_BLOCKS
            || matches!(state.jobs.back(), Some(Job::Rescan))
            || !self.pending.is_empty()
    }

    /// Wakes the executor if it sleeps, once.
    fn wake(&self, mut state: MutexGuard<'_, State>, wakes: bool) {
        let wakes = wakes && std::mem::take(&mut state.sleeps);
        drop(state);
        if wakes {
            self.news.notify_one();
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }
}

impl State {
    fn next_to_come(&mut self, height: Height) -> Option<Arc<Block>> {
        while self.to_come.front().is_some_and(|block| block.header.height < height) {
            self.to_come.pop_front();
        }
        self.to_come.pop_front_if(|block| block.header.height == height)
    }
}

#[cfg(test)]
mod tests {
    use rota_core::block::{Applied, Body, Header, Kind, Turn};
    use rota_core::time::Time;
    use rota_core::types::{
        BlockId, ChainId, Digest, Epoch, MemberIndex, NodeId, Slot, TransactionId,
    };

    use super::*;
    use crate::driver::Wait;

    /// Nobody here is so patient.
    const LONG: Duration = Duration::from_secs(3_600);

    struct Bench {
        agenda: Agenda,
        orders: Orders,
        haste: Haste,
        pending: Arc<Pending>,
    }

    fn bench(patience: Duration) -> Bench {
        let pending = Arc::new(Pending::new(ChainId::default(), NodeId::default()));
        let (agenda, orders, haste) = agenda(Arc::clone(&pending), patience);
        Bench { agenda, orders, haste, pending }
    }

    fn block(height: u64) -> Arc<Block> {
        let body = Body { parent_certificate: None, envelopes: Vec::new() };
        let header = Header {
            epoch: Epoch(0),
            slot: Slot(height),
            height: Height(height),
            kind: Kind::Ordinary,
            parent: BlockId::default(),
            leader: MemberIndex(0),
            turn: Turn::Scheduled,
            time: Time(0),
            applied: Applied::default(),
            body: Digest::default(),
        };
        Arc::new(Block { header, body })
    }

    impl Bench {
        fn order(&self, height: u64) {
            self.orders.try_send(Job::Apply(block(height))).ok().unwrap();
        }

        /// What the executor does when this height is next.
        fn next(&self, height: u64, holds: bool) -> String {
            match self.agenda.next(Height(height), holds) {
                Next::Job(Job::Apply(block)) => format!("apply {}", block.header.height),
                Next::Job(Job::Rescan) => "rescan".into(),
                Next::Ahead(block) => format!("ahead {}", block.header.height),
                Next::End => "end".into(),
            }
        }

        fn is_asleep(&self) -> bool {
            self.agenda.0.lock().sleeps
        }
    }

    #[test]
    fn what_somebody_waits_for_is_done_at_once() {
        let bench = bench(LONG);
        let id = TransactionId([1; 32]);
        let client = bench.pending.wait_for(id, Wait::Final, Vec::new()).unwrap();
        bench.order(1);
        bench.order(2);
        assert_eq!(bench.next(1, false), "apply 1");
        assert!(bench.agenda.is_awaited());
        drop(client);
        assert!(!bench.agenda.is_awaited());
        let reader = bench.haste.hurry();
        assert!(bench.agenda.is_awaited());
        assert_eq!(bench.next(2, false), "apply 2");
        drop(reader);
        assert!(bench.agenda.is_awaited(), "nothing else is to be done");
    }

    #[test]
    fn what_nobody_waits_for_waits_until_it_is_due_or_many() {
        let quick = bench(Duration::from_millis(1));
        quick.order(1);
        assert_eq!(quick.next(1, false), "apply 1");
        let bench = bench(LONG);
        let many = HELD_BLOCKS as u64;
        for height in 1..=many {
            bench.order(height);
        }
        assert_eq!(bench.next(1, false), "apply 1");
        assert_eq!(bench.next(2, true), "apply 2", "what is held waits for the others");
        bench.orders.try_send(Job::Rescan).ok().unwrap();
        for height in 3..=many {
            assert_eq!(bench.next(height, false), format!("apply {height}"));
        }
        assert_eq!(bench.next(many + 1, false), "rescan");
    }

    #[test]
    fn members_hold_back_for_different_times_under_raft_only() {
        let of = |method, index| patience(method, Some(MemberIndex(index))).as_millis();
        assert_eq!([0, 1, 2, 3].map(|index| of(Method::Raft, index)), [5, 8, 11, 5]);
        assert_eq!(patience(Method::Raft, None), HELD_FOR);
        assert_eq!([Method::Poa, Method::Pow].map(|method| of(method, 1)), [0, 0]);
    }

    #[test]
    fn the_executor_sleeps_until_somebody_waits() {
        let Bench { agenda, orders, haste, pending: _ } = bench(LONG);
        let shared = Arc::clone(&agenda.0);
        orders.try_send(Job::Apply(block(1))).ok().unwrap();
        let sleeper =
            std::thread::spawn(move || matches!(agenda.next(Height(1), false), Next::Job(_)));
        while !shared.lock().sleeps && !sleeper.is_finished() {
            std::thread::yield_now();
        }
        let reader = haste.hurry();
        assert!(sleeper.join().unwrap());
        drop(reader);
    }

    #[test]
    fn a_block_to_come_is_executed_in_its_turn_and_after_what_is_final() {
        let bench = bench(LONG);
        bench.orders.expect(block(2));
        assert!(bench.agenda.0.lock().to_come.is_empty(), "nobody waits for it");
        let id = TransactionId([1; 32]);
        let _client = bench.pending.wait_for(id, Wait::Final, Vec::new()).unwrap();
        for height in [2, 3, 4, 3] {
            bench.orders.expect(block(height));
        }
        bench.order(1);
        assert_eq!(bench.next(1, false), "apply 1");
        assert_eq!(bench.next(2, false), "ahead 2");
        bench.order(2);
        assert_eq!(bench.next(2, false), "apply 2");
        assert_eq!(bench.next(3, false), "ahead 3");
        let expected = bench.agenda.0.lock().to_come.len();
        assert_eq!(expected, 0, "4 was of a branch that is left");
        for height in 4..100 {
            bench.orders.expect(block(height));
        }
        assert_eq!(bench.agenda.0.lock().to_come.len(), queues::AHEAD);
    }

    #[test]
    fn there_is_room_for_so_many_and_the_end_is_heard_on_both_sides() {
        let bench = bench(LONG);
        for height in 0..128 {
            bench.order(height);
        }
        let full = bench.orders.try_send(Job::Rescan);
        assert!(matches!(full, Err(TrySendError::Full(Job::Rescan))));
        assert!(!bench.is_asleep());
        bench.agenda.closer()();
        assert_eq!(bench.next(0, false), "end");
        let gone = bench.orders.try_send(Job::Rescan);
        assert!(matches!(gone, Err(TrySendError::Disconnected(_))));
        let Bench { agenda, orders, .. } = self::bench(LONG);
        drop(orders);
        assert!(matches!(agenda.next(Height(1), false), Next::End));
    }
}
