//! Who is let in: places for connections, some of them kept for administrators. Step 1, before its
//! first word.
//!
//! ```text
//!  TCP ─► arrive ─► start-up (at most STARTUP_TIME) ─► admit ─► one of the places, or 53300
//!           └ too many of one address: closed without a word
//! ```
//!
//! Until there are users, an administrator is who connects from this very machine and says so:
//! `options=-c rota.administrator=on`. Pools and applications of the same machine do not say so,
//! and cannot take those places by accident.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_core::error::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many clients are served at once. Each costs some 20 KB when idle and up to a result's size
/// when not; benchmarks use 128, pools some hundreds.
pub(crate) const MAX_CONNECTIONS: usize = 1_000;

/// How many of these places only administrators get: enough for a person, a script and a monitor on
/// a server that is full.
pub(crate) const RESERVED: usize = 10;

/// How many connections may come from one address: half of all, so that one machine, or whoever has
/// taken it over, leaves room for others. A loopback address is not counted: local proxies and
/// pools speak for many.
pub(crate) const MAX_PER_ADDRESS: usize = 500;

/// How many connections may be in their start-up: the next ones wait in the kernel's queue, for as
/// long as a start-up may take at most.
pub(crate) const MAX_STARTING: usize = 500;

/// How many of these from one address. More are closed without a word.
pub(crate) const MAX_STARTING_PER_ADDRESS: usize = 100;

/// The setting by which an administrator asks for a reserved place.
pub(crate) const ADMINISTRATOR: &str = "rota.administrator";

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// In all.
    pub(crate) all: usize,
    /// Of these, for administrators.
    pub(crate) reserved: usize,
    /// For one address.
    pub(crate) per_address: usize,
    /// For connections that have not said who they are.
    pub(crate) starting: usize,
    /// The same for one address.
    pub(crate) starting_per_address: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: MAX_CONNECTIONS,
            reserved: RESERVED,
            per_address: MAX_PER_ADDRESS,
            starting: MAX_STARTING,
            starting_per_address: MAX_STARTING_PER_ADDRESS,
        }
    }
}

/// Counts who is there.
#[derive(Clone, Debug)]
pub(crate) struct Porch {
    places: Places,
    starting: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only addresses with connections.
    addresses: HashMap<IpAddr, Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    starting: usize,
    admitted: usize,
}

/// A connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    porch: Porch,
    address: IpAddr,
    /// Until it is admitted.
    starting: Option<OwnedSemaphorePermit>,
}

impl Porch {
    pub(crate) fn new(places: Places) -> Self {
        Self { places, starting: Arc::new(Semaphore::new(places.starting)), taken: Arc::default() }
    }

    /// Returns when one more connection may begin its start-up.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.starting).acquire_owned().await.ok()
    }

    /// A connection from an address. `None`: it is to be closed.
    pub(crate) fn arrive(
        &self,
        address: IpAddr,
        starting: Option<OwnedSemaphorePermit>,
    ) -> Option<Guest> {
        let address = network(address);
        let mut taken = self.taken();
        let counts = taken.addresses.entry(address).or_default();
        if counts.starting >= self.places.starting_per_address && !address.is_loopback() {
            return None;
        }
        counts.starting = counts.starting.saturating_add(1);
        drop(taken);
        Some(Guest { porch: self.clone(), address, starting })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Gives it a place, if there is one.
    pub(crate) fn admit(&mut self, says_administrator: bool) -> Result<(), Refusal> {
        if self.starting.is_none() {
            return Ok(());
        }
        let places = self.porch.places;
        let mut taken = self.porch.taken();
        let administrator = says_administrator && self.address.is_loopback();
        let most =
            if administrator { places.all } else { places.all.saturating_sub(places.reserved) };
        if taken.all >= most {
            return Err(Refusal::new(
                "53300",
                "this server has as many connections as it can take: close some, use a pool, or \
                 another server of the cluster",
            ));
        }
        let counts = taken.addresses.entry(self.address).or_default();
        if counts.admitted >= places.per_address && !self.address.is_loopback() {
            let message = format!(
                "{} connections come from your address, which is as many as one may have: close \
                 some, use a pool, or another server of the cluster",
                counts.admitted
            );
            return Err(Refusal::new("53300", message));
        }
        counts.starting = counts.starting.saturating_sub(1);
        counts.admitted = counts.admitted.saturating_add(1);
        taken.all = taken.all.saturating_add(1);
        drop(taken);
        self.starting = None;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut taken = self.porch.taken();
        let admitted = self.starting.is_none();
        if admitted {
            taken.all = taken.all.saturating_sub(1);
        }
        if let Some(counts) = taken.addresses.get_mut(&self.address) {
            let count = if admitted { &mut counts.admitted } else { &mut counts.starting };
            *count = count.saturating_sub(1);
            if counts.admitted == 0 && counts.starting == 0 {
                taken.addresses.remove(&self.address);
            }
        }
    }
}

/// Whose address it is: of IPv6, the half that names the network, since one machine has all of the
/// other half to choose from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places =
        Places { all: 4, reserved: 1, per_address: 2, starting: 10, starting_per_address: 2 };

    async fn arrive(porch: &Porch, address: &str) -> Option<Guest> {
        porch.arrive(address.parse().unwrap(), porch.room().await)
    }

    async fn admitted(porch: &Porch, address: &str, administrator: bool) -> Result<Guest, String> {
        let mut guest = arrive(porch, address).await.unwrap();
        guest.admit(administrator).map_err(|refusal| refusal.code().to_owned())?;
        Ok(guest)
    }

    #[tokio::test]
    async fn the_last_places_are_for_administrators_of_this_machine() {
        let porch = Porch::new(PLACES);
        let mut there = Vec::new();
        for _ in 0..3 {
            there.push(admitted(&porch, "127.0.0.1", false).await.unwrap());
        }
        let full = Err("53300".to_owned());
        assert_eq!(admitted(&porch, "127.0.0.1", false).await.map(drop), full);
        assert_eq!(admitted(&porch, "10.0.0.1", true).await.map(drop), full);
        there.push(admitted(&porch, "::1", true).await.unwrap());
        assert_eq!(admitted(&porch, "127.0.0.1", true).await.map(drop), full);
        there.clear();
        assert!(admitted(&porch, "10.0.0.1", false).await.is_ok());
    }

    #[tokio::test]
    async fn one_address_cannot_take_all_places() {
        let porch = Porch::new(PLACES);
        let one = admitted(&porch, "2001:db8::1", false).await.unwrap();
        let two = admitted(&porch, "2001:db8::2", false).await.unwrap();
        let refused = admitted(&porch, "2001:db8::3", false).await.map(drop);
        assert_eq!(refused, Err("53300".to_owned()));
        assert!(admitted(&porch, "2001:db8:0:1::1", false).await.is_ok());
        drop((one, two));
        assert!(porch.taken().addresses.is_empty(), "nothing is remembered of who has left");
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_else_out() {
        let porch = Porch::new(PLACES);
        let mut silent = Vec::new();
        while let Some(guest) = arrive(&porch, "10.0.0.1").await {
            silent.push(guest);
        }
        assert_eq!(silent.len(), 2);
        assert!(admitted(&porch, "10.0.0.2", false).await.is_ok());
        silent.clear();
        assert!(arrive(&porch, "10.0.0.1").await.is_some());
    }
}
