//! This server's clocks, as core is told them.

use rota_core::time::{Instant, Now, Time};

/// Reads the clocks. Copies have the same origin, so their instants can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Instants count from now on.
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// Both clocks. A wall clock before 1970 says 1970: it is only ever claimed in votes, and
    /// outvoted.
    pub fn now(&self) -> Now {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = wall.map_or(0, |since| since.as_millis());
        let micros = self.origin.elapsed().as_micros();
        Now {
            instant: Instant(u64::try_from(micros).unwrap_or(u64::MAX)),
            clock: Time(u64::try_from(millis).unwrap_or(u64::MAX)),
        }
    }
}
