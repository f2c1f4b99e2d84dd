//! What is measured while connections work: counts that the progress line reads, and latencies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

/// Latencies are kept in microseconds with three significant digits.
const DIGITS: u8 = 3;

/// The longest latency told apart, an hour: no server leaves a statement without an answer for as
/// long.
const LONGEST: u64 = 3_600_000_000;

/// One workload's result.
pub struct Measured {
    /// How long each answer took, in microseconds; answers that were errors are not in it.
    pub latency: Histogram<u64>,
    /// By SQLSTATE and message.
    pub errors: BTreeMap<String, u64>,
    /// How often something was tried again because it ended in 40001.
    pub retries: u64,
    /// Writes of which nobody knows whether they happened: the connection broke, or 40003.
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
            latency: Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("possible bounds"),
            errors: BTreeMap::new(),
            retries: 0,
            unknown: 0,
            longest_gap: Duration::ZERO,
            lasted: Duration::ZERO,
        }
    }

    /// Notes an answer.
    pub fn answered(&mut self, took: Duration) {
        self.latency.saturating_record(micros(took));
    }

    /// Adds what another connection measured.
    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("both have the same bounds");
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.retries += other.retries;
        self.unknown += other.unknown;
    }

    /// How many answers were no errors.
    pub fn answers(&self) -> u64 {
        self.latency.len()
    }

    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.answers() as f64 / self.lasted.as_secs_f64().max(0.001)
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
    /// How many answers are wanted in all.
    wanted: u64,
    /// How many of them nobody works for yet.
    left: AtomicU64,
    /// All are there.
    complete: Notify,
    answers: AtomicU64,
    last: AtomicU64,
    gap: AtomicU64,
}

impl Shared {
    /// Begins now; ends after so many answers, if not before.
    pub fn new(wanted: u64) -> Self {
        Self {
            begun: Instant::now(),
            wanted,
            left: AtomicU64::new(wanted),
            complete: Notify::new(),
            answers: AtomicU64::new(0),
            last: AtomicU64::new(0),
            gap: AtomicU64::new(0),
        }
    }

    /// Takes it on to get one more answer, if one more is wanted.
    pub fn take(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// What was taken on came to nothing.
    pub fn give_back(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the last answer that is wanted.
    pub async fn complete(&self) {
        self.complete.notified().await;
    }

    /// Notes an answer.
    pub fn answered(&self) {
        if self.answers.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.complete.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_on_than_is_wanted() {
        let shared = Shared::new(2);
        assert!(shared.take() && shared.take() && !shared.take());
        shared.give_back();
        assert!(shared.take() && !shared.take());
    }

    #[test]
    fn latencies_long_and_short_are_told() {
        let (mut one, mut other) = (Measured::new(), Measured::new());
        (0..98).for_each(|_| one.answered(Duration::from_micros(150)));
        other.answered(Duration::from_millis(20));
        other.answered(Duration::from_secs(9));
        one.add(&other);
        let near = |quantile, expected: f64| {
            let told = one.milliseconds(quantile);
            assert!((told / expected - 1.0).abs() < 0.01, "{told}, not {expected}");
        };
        near(0.5, 0.15);
        near(0.99, 20.0);
        near(1.0, 9000.0);
    }
}
