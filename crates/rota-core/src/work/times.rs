//! What times a header may say (steps 4 and 6): Bitcoin's two rules, which need no agreed clock.

use crate::time::Time;

/// A header's time has to be later than the median of those of so many blocks before it (BIP 113,
/// `nMedianTimeSpan` in Bitcoin Core): who has less than half of the work does not turn time back.
pub const MEDIAN_OF: usize = 11;

/// How far ahead of one's own clock a header's time may be at most, in seconds:
/// `MAX_FUTURE_BLOCK_TIME` in Bitcoin Core.
pub const MAX_FUTURE_S: u32 = 7_200;

/// And not further than this many spacings: Bitcoin's two hours are twelve of its own.
pub const MAX_FUTURE_SPACINGS: u32 = 12;

/// How far ahead of one's own clock a header's time may be where blocks are `spacing_s` seconds
/// apart, in seconds. A header that is further ahead is not wrong for ever: later it may do.
pub fn most_ahead_s(spacing_s: u32) -> u32 {
    spacing_s.saturating_mul(MAX_FUTURE_SPACINGS).min(MAX_FUTURE_S)
}

/// Whether a header's time, in seconds since 1970, is further ahead of `clock` than may be.
pub fn is_too_far_ahead(time_s: u32, clock: Time, spacing_s: u32) -> bool {
    let latest_ms = clock.0.saturating_add(u64::from(most_ahead_s(spacing_s)) * 1_000);
    u64::from(time_s) * 1_000 > latest_ms
}

/// The median of the times of the last blocks up to the parent, newest or oldest first: at most
/// [`MEDIAN_OF`] of `times` count, from its beginning. Of an even number of them it is the later
/// one of the two in the middle, as in Bitcoin Core. `None` only of no times.
pub fn median_time_past(times: impl IntoIterator<Item = u32>) -> Option<u32> {
    let mut sorted = [0; MEDIAN_OF];
    let mut count = 0;
    for (place, time) in sorted.iter_mut().zip(times) {
        *place = time;
        count += 1;
    }
    let sorted = sorted.get_mut(..count)?;
    sorted.sort_unstable();
    sorted.get(count / 2).copied()
}
