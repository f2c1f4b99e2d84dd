//! How often a peer may make us do something.

use std::time::Duration;

use crate::time::Instant;

/// A burst, and then one more every so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub burst: u32,
    pub every: Duration,
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    rate: Rate,
    /// Less than none where more was taken than there was.
    left: i64,
    counted: Instant,
}

impl Allowance {
    /// A whole burst.
    pub fn new(now: Instant, rate: Rate) -> Self {
        Self { rate, left: rate.burst.into(), counted: now }
    }

    /// Takes one, if there is one left.
    pub fn take(&mut self, now: Instant) -> bool {
        let some = self.has(now);
        if some {
            self.spend(1);
        }
        some
    }

    /// Takes so many, whether they are left or not: what something has cost is known afterwards.
    pub fn spend(&mut self, count: u32) {
        self.left = self.left.saturating_sub(count.into());
    }

    /// Whether one is left.
    pub fn has(&mut self, now: Instant) -> bool {
        let since = now.since(self.counted).as_micros();
        let more = since / self.rate.every.as_micros().max(1);
        if more > 0 {
            let more = i64::try_from(more).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(more).min(self.rate.burst.into());
            self.counted = now;
        }
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let rate = Rate { burst: 2, every: Duration::from_millis(10) };
        let mut allowance = Allowance::new(Instant(0), rate);
        let taken: Vec<bool> = [0, 0, 0, 10_000, 10_001, 90_000, 90_000, 90_000]
            .map(Instant)
            .map(|at| allowance.take(at))
            .to_vec();
        assert_eq!(taken, [true, true, false, true, false, true, true, false]);
    }

    #[test]
    fn what_was_spent_beyond_it_has_to_come_back_first() {
        let rate = Rate { burst: 2, every: Duration::from_millis(10) };
        let mut allowance = Allowance::new(Instant(0), rate);
        assert!(allowance.take(Instant(0)));
        allowance.spend(5);
        assert!(!allowance.has(Instant(40_000)) && allowance.has(Instant(50_000)));
    }
}
