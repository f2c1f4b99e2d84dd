//! Step 4 under `pow`: the search for a nonce, on threads of its own, of low priority, each with a
//! set share of a core's time.
//!
//! ```text
//!  replica ── Io::search(job) ──► one place per thread, the newest job wins ──► threads
//!     ▲                                                                          │ slice, rest,
//!     └───────────────────────── Input::Found(proof) ◄───────────────────────────┘ slice, rest …
//! ```
//! Each thread tries its own part of a job's nonces, in slices so short that a newer job is heard
//! of at once, and rests in between as long as its share demands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use rota_core::error::Fault;
use rota_core::genesis::{Genesis, Method};
use rota_core::replica::Input;
use rota_core::work::{Search, SearchJob, Step};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

use crate::board::Board;
use crate::config::ServerConfig;
use crate::mailbox::Inputs;
use crate::threads::{self, Faults, Stop};

/// What a slice takes of a core's time: so long that looking up in between costs nothing, so short
/// that whoever shares the core does not notice.
const SLICE: Duration = Duration::from_millis(4);

/// The nonces of the first slice, before it is known how many fit: some milliseconds' worth on the
/// slowest machines.
const FIRST_SLICE: u32 = 1 << 13;

/// The most nonces of a slice: more than any core tries in [`SLICE`].
const LARGEST_SLICE: u32 = 1 << 24;

/// Linux's `nice` for miners. Beside one busy program of ordinary priority such a thread still gets
/// about a tenth of a core: 110 parts to 1,024 (`sched_prio_to_weight` in the kernel).
const PRIORITY: i32 = 10;

/// The hash rate is that of the last one to two of these.
const MEASURED: Duration = Duration::from_secs(10);

/// With nothing to search, a thread looks up this seldom; it need not at all.
const LONG: Duration = Duration::from_secs(3600);

/// The threads of this server that search; none if it does not mine.
pub(crate) struct Miner {
    threads: Vec<Place>,
}

/// Where a thread finds its newest job. There is room for one; the miner takes out an older one.
struct Place {
    jobs: Sender<Option<SearchJob>>,
    newest: Receiver<Option<SearchJob>>,
}

impl Miner {
    /// For a server that does not mine.
    pub(crate) fn off() -> Self {
        Self { threads: Vec::new() }
    }

    /// As this server's settings say: so many threads, each for its share of a core's time. They
    /// end when `stop` is told.
    pub(crate) fn start(
        genesis: &Genesis,
        config: &ServerConfig,
        board: &Arc<Board>,
        inputs: &Inputs,
        stop: &Stop,
        faults: &Faults,
    ) -> Result<Self, Fault> {
        let (count, share) = (config.mine_threads, config.mine_share);
        if count == 0 {
            return Ok(Self::off());
        }
        if genesis.method != Method::Pow {
            tracing::warn!("mine_threads is {count}, but nobody mines: the method is not pow");
            return Ok(Self::off());
        }
        let start = |index| {
            let (jobs, newest) = bounded(1);
            let thread = Thread {
                part: (index, count),
                pace: Pace::new(share),
                board: Arc::clone(board),
                jobs: newest.clone(),
                inputs: inputs.clone(),
                stop: stop.clone(),
            };
            threads::spawn(&format!("mine-{index}"), faults, move || {
                thread.run();
                Ok(())
            })?;
            Ok(Place { jobs, newest })
        };
        let threads = (0..count).map(start).collect::<Result<_, Fault>>()?;
        tracing::info!(threads = count, share, "mining");
        // The queue is empty, or whoever reads it is gone: nothing to wait for.
        let _ = inputs.try_send(Input::Mine(true).into());
        Ok(Self { threads })
    }

    /// From now on, look for the proof of this block, or for none.
    pub(crate) fn search(&self, job: Option<SearchJob>) {
        for Place { jobs, newest } in &self.threads {
            while let Err(TrySendError::Full(_)) = jobs.try_send(job) {
                let _ = newest.try_recv();
            }
        }
    }
}

struct Thread {
    /// Which part of a job is this thread's, and of how many.
    part: (u32, u32),
    pace: Pace,
    board: Arc<Board>,
    jobs: Receiver<Option<SearchJob>>,
    inputs: Inputs,
    stop: Stop,
}

impl Thread {
    fn run(mut self) {
        // Refused only where somebody has set limits of their own, which then stand.
        let _ = setpriority_process(Some(gettid()), PRIORITY);
        let (index, of) = self.part;
        let mut search: Option<Search> = None;
        loop {
            let rest = search.as_ref().map_or(LONG, |_| self.pace.rest());
            select! {
                recv(self.stop.receiver()) -> _ => return,
                recv(self.jobs) -> job => match job {
                    Ok(job) => search = job.map(|job| Search::new(job.part(index, of))),
                    Err(_) => return,
                },
                default(rest) => {}
            }
            let Some(running) = search.as_mut().filter(|_| self.pace.rest().is_zero()) else {
                continue;
            };
            match self.slice(running) {
                Step::More => {}
                // The replica knows when it is worth another block, or another time in this one.
                Step::Exhausted => search = None,
                Step::Found(proof) => {
                    search = None;
                    if self.inputs.send(Input::Found(proof).into()).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn slice(&mut self, search: &mut Search) -> Step {
        let (before, began) = (search.tried(), busy());
        let step = search.step(self.pace.count);
        let tried = search.tried().saturating_sub(before);
        self.pace.worked(tried, busy().saturating_sub(began));
        self.board.mining.tried(tried);
        step
    }
}

/// The time that this thread has had on a core.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds.saturating_add(Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0)))
}

/// How many nonces at a time, and how long to rest.
struct Pace {
    share: u8,
    count: u32,
    until: Instant,
}

impl Pace {
    fn new(share: u8) -> Self {
        Self { share: share.clamp(1, 100), count: FIRST_SLICE, until: Instant::now() }
    }

    /// A slice of so many nonces took so much of a core.
    fn worked(&mut self, tried: u64, busy: Duration) {
        let rest = busy.saturating_mul(u32::from(100 - self.share)) / u32::from(self.share);
        self.until = Instant::now() + rest;
        let fit = tried as f64 * SLICE.as_secs_f64() / busy.as_secs_f64().max(1e-6);
        // No more than twice as many as last time: a clock that stood still says nothing.
        let most = self.count.saturating_mul(2).min(LARGEST_SLICE);
        self.count = (fit as u32).clamp(FIRST_SLICE, most.max(FIRST_SLICE));
    }

    fn rest(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// What this server hashes in a second, measured.
pub(crate) struct Meter(Mutex<Windows>);

/// The window that is being filled, and the one before.
struct Windows {
    began: Instant,
    tried: u64,
    before: Option<(u64, Duration)>,
}

impl Meter {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Windows { began: Instant::now(), tried: 0, before: None }))
    }

    fn tried(&self, count: u64) {
        let mut windows = self.turned();
        windows.tried = windows.tried.saturating_add(count);
    }

    /// Hashes a second.
    pub(crate) fn rate(&self) -> u64 {
        let windows = self.turned();
        let (tried, time) = windows.before.unwrap_or_default();
        let time = time + windows.began.elapsed();
        (tried.saturating_add(windows.tried) as f64 / time.as_secs_f64().max(1e-3)) as u64
    }

    /// With a new window begun if the one that is there is full; nothing is kept of a long silence.
    fn turned(&self) -> MutexGuard<'_, Windows> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = windows.began.elapsed();
        if age >= MEASURED {
            let full = (age < 2 * MEASURED).then_some((windows.tried, age));
            *windows = Windows { began: Instant::now(), tried: 0, before: full };
        }
        windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_by_resting_for_the_remainder() {
        for (share, parts) in [(10_u8, 9_u32), (50, 1), (100, 0)] {
            let mut pace = Pace::new(share);
            pace.worked(100_000, Duration::from_secs(10));
            let want = Duration::from_secs(10) * parts;
            let rest = pace.rest();
            assert!(rest <= want && rest + Duration::from_secs(1) >= want, "{share}: {rest:?}");
        }
    }

    #[test]
    fn slices_grow_to_what_fits_and_shrink_at_once() {
        let mut pace = Pace::new(100);
        for _ in 0..40 {
            let count = u64::from(pace.count);
            pace.worked(count, Duration::from_nanos(count * 100)); // 10 million a second
        }
        assert_eq!(pace.count, 40_000);
        pace.worked(40_000, Duration::from_secs(1));
        assert_eq!(pace.count, FIRST_SLICE);
        // The clock of a thread's time may stand still.
        pace.worked(u64::from(FIRST_SLICE), Duration::ZERO);
        assert_eq!(pace.count, 2 * FIRST_SLICE);
    }

    #[test]
    fn the_newest_job_wins() {
        let (jobs, newest) = bounded(1);
        let miner = Miner { threads: vec![Place { jobs, newest: newest.clone() }] };
        let job = |byte| SearchJob { prefix: [byte; 76], first: 0, tries: 1 };
        for byte in 1..=3 {
            miner.search(Some(job(byte)));
        }
        assert_eq!(newest.try_recv(), Ok(Some(job(3))));
        miner.search(Some(job(4)));
        miner.search(None);
        assert_eq!(newest.try_recv(), Ok(None));
        assert!(newest.try_recv().is_err());
    }

    #[test]
    fn the_rate_counts_what_was_tried() {
        let meter = Meter::new();
        assert_eq!(meter.rate(), 0);
        meter.tried(1_000_000);
        assert!(meter.rate() > 0);
    }
}
