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
    left: u32,
    counted: Instant,
}

impl Allowance {
    /// A whole burst.
    pub fn new(now: Instant, rate: Rate) -> Self {
        Self { rate, left: rate.burst, counted: now }
    }

    /// Takes one, if there is one left.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = now.since(self.counted).as_micros();
        let more = since / self.rate.every.as_micros().max(1);
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(self.rate.burst);
            self.counted = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
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
}
