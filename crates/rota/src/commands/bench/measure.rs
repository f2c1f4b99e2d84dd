//! What is measured while connections work: counts that the progress line reads, and latencies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies are kept in microseconds with three significant digits.
const DIGITS: u8 = 3;

/// One workload's result.
pub struct Measured {
    /// How long each answer took, in microseconds; answers that were errors are not in it.
    pub latency: Histogram<u64>,
    /// By SQLSTATE and message.
    pub errors: BTreeMap<String, u64>,
    /// Rows that a server acknowledged as inserted.
    pub inserted: u64,
    /// Inserts of which nobody knows whether they happened: the connection broke, or 40003.
    pub unknown: u64,
    /// The longest time in which no answer came on any connection.
    pub longest_gap: Duration,
    /// From the first statement to the last answer.
    pub lasted: Duration,
}

impl Measured {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            latency: Histogram::new(DIGITS).expect("three digits are possible"),
            errors: BTreeMap::new(),
            inserted: 0,
            unknown: 0,
            longest_gap: Duration::ZERO,
            lasted: Duration::ZERO,
        }
    }

    /// Notes an answer.
    pub fn answered(&mut self, took: Duration) {
        // The histogram grows as it has to, up to half a million years.
        self.latency.saturating_record(micros(took));
    }

    /// Adds what another connection measured.
    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("both grow as they have to");
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.inserted += other.inserted;
        self.unknown += other.unknown;
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.lasted.as_secs_f64().max(0.001)
    }

    /// A quantile of the latency; 1 is the longest.
    pub fn milliseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// What all connections share.
pub struct Shared {
    /// When the workload began.
    pub begun: Instant,
    answers: AtomicU64,
    last: AtomicU64,
    gap: AtomicU64,
}

impl Shared {
    /// Begins now.
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
            answers: AtomicU64::new(0),
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
        }
    }

    /// Notes an answer.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let now = micros(self.begun.elapsed());
        let last = self.last.fetch_max(now, Ordering::Relaxed);
        self.gap.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    /// How many answers there were.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// When the last one came, from the beginning.
    pub fn last_answer(&self) -> Duration {
        Duration::from_micros(self.last.load(Ordering::Relaxed))
    }

    /// The longest time without one, up to now.
    pub fn longest_gap(&self) -> Duration {
        let since = micros(self.begun.elapsed()).saturating_sub(self.last.load(Ordering::Relaxed));
        Duration::from_micros(self.gap.load(Ordering::Relaxed).max(since))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
