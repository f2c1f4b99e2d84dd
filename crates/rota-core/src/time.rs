//! Two kinds of time, never mixed. A [`Time`] is a date and is agreed (a block's) or claimed (a
//! vote's). An [`Instant`] is a point on this machine's own monotonic clock; only differences
//! between two of them mean anything, and nothing but those differences decides whether a block's
//! time is acceptable. Both are passed in: core has no clock.

use std::fmt;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};

/// A date: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// Later by `duration`, stopping at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A point on this machine's monotonic clock: microseconds since an origin of no meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// Later by `duration`, stopping at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// What the clocks of this server say at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// The monotonic clock: time-outs and all other durations.
    pub instant: Instant,
    /// The wall clock, which may be wrong, jump or go back: it is only ever claimed in votes.
    pub clock: Time,
}
