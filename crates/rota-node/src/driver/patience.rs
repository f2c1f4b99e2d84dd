//! How long a write may take, by method: what its client waits for (step 9), and until when it may
//! enter the chain (step 2).

use std::time::Duration;

use rota_core::genesis::Genesis;

/// How long a client waits for its write to become final and be executed before it hears that the
/// outcome is unknown. Well above any election of a new leader, below the patience of most clients.
const WRITE: Duration = Duration::from_secs(10);

/// An envelope that did not enter the chain after this time never will: its clients have long been
/// told that the outcome is unknown, and should not have to wonder for longer.
const EXPIRY: Duration = Duration::from_secs(60);

/// Under `pow` a client waits for twice the spacings that finality takes on average, and for so
/// many more: blocks come at random, and of a million waits for seven of them fewer than one takes
/// longer (Erlang's distribution; the tail of 22 spacings is 4 in 10⁷).
const MORE_SPACINGS: u32 = 8;

/// A block's time under `pow` is the median of eleven: some six spacings behind the clock, and
/// seldom more than so many.
const BEHIND_SPACINGS: u32 = 12;

/// How long a write may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// A client waits for no longer.
    pub(crate) write: Duration,
    /// What a server signs may enter the chain for so long.
    pub(crate) expiry: Duration,
}

impl Patience {
    /// With this genesis.
    pub(crate) fn of(genesis: &Genesis) -> Self {
        let most = genesis.parameters.max_expiry();
        let (write, expiry) = match &genesis.pow {
            None => (WRITE, EXPIRY),
            Some(pow) => {
                // One spacing until the next block, `depth` - 1 more until it is final.
                let spacings = pow.depth.saturating_mul(2).saturating_add(MORE_SPACINGS);
                let finality = Duration::from_secs(u64::from(pow.spacing_s)) * spacings;
                // A block's time is the median of eleven: some six spacings behind the clock, and
                // how far ahead of it an expiry lies is limited.
                (finality.max(WRITE), finality.max(EXPIRY).min(most / 2))
            }
        };
        Self { write, expiry: expiry.min(most) }
    }

    /// How far ahead of the clock an expiry may lie that a client has signed: so that it may stand
    /// in the next block, whose time is behind the clock.
    pub(crate) fn most_expiry(genesis: &Genesis) -> Duration {
        let most = genesis.parameters.max_expiry();
        let spacing = genesis.pow.as_ref().map_or(0, |pow| pow.spacing_s);
        let behind = Duration::from_secs(spacing.into()) * BEHIND_SPACINGS;
        most.saturating_sub(behind).max(most / 2)
    }
}

#[cfg(test)]
mod tests {
    use rota_core::genesis::{Administrator, FORMAT, Method, Parameters, Pow};
    use rota_core::types::Digest;

    use super::*;

    fn genesis(pow: Option<Pow>) -> Genesis {
        Genesis {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1,
            method: if pow.is_some() { Method::Pow } else { Method::Raft },
            seed: Digest::default(),
            trusted_servers: false,
            sqlite: String::new(),
            parameters: Parameters::default(),
            pow,
            members: Vec::new(),
            administrators: vec![Administrator::open("rota")],
        }
    }

    #[test]
    fn work_takes_its_depth_in_spacings_and_votes_take_none() {
        let voting = Patience::of(&genesis(None));
        assert_eq!(voting, Patience { write: WRITE, expiry: EXPIRY });
        let pow = Pow { spacing_s: 2, depth: 6, ..Pow::default() };
        let work = Patience::of(&genesis(Some(pow.clone())));
        assert_eq!(work.write, Duration::from_secs(40));
        assert_eq!(work.expiry, EXPIRY);
        let slow = Patience::of(&genesis(Some(Pow { spacing_s: 60, ..pow.clone() })));
        assert_eq!(slow.write, Duration::from_secs(20 * 60));
        assert_eq!(slow.expiry, slow.write);
        let bitcoin = Patience::of(&genesis(Some(Pow { spacing_s: 600, ..pow })));
        assert_eq!(bitcoin.expiry, Duration::from_secs(1_800), "half of what blocks allow");
    }

    #[test]
    fn what_a_client_signs_may_stand_in_a_block_whose_time_is_behind_the_clock() {
        let hour = Duration::from_secs(3_600);
        assert_eq!(Patience::most_expiry(&genesis(None)), hour);
        let pow = |spacing_s| genesis(Some(Pow { spacing_s, ..Pow::default() }));
        assert_eq!(Patience::most_expiry(&pow(60)), hour - Duration::from_secs(720));
        assert_eq!(Patience::most_expiry(&pow(600)), hour / 2);
    }
}
