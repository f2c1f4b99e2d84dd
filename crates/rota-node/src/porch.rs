//! Who is let in, at either door: places for connections, some of them kept for administrators.
//! Step 1 of a transaction's life, before its first word.
//!
//! ```text
//!  TCP ─► welcome ─► stranger ── admit ─► admitted: a session, or a request under way
//!                       ▲                    │  ▲
//!                       └──── resting ◄ rest ┘  └ wait, work: its client sends, or takes
//!                             (HTTP keep-alive)    an answer, slowly (HTTP)
//! ```
//!
//! Nobody is kept out by those who say nothing: when all places are taken, whoever has waited
//! longest, of the address with most such connections, is closed in favour of the new one. A client
//! that behaves is through in milliseconds; whoever would keep it out has to fill all places anew
//! within that time. Only what is admitted is never closed for others, as long as the server has
//! work for it, and of that there is a number of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rota_core::error::Refusal;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::files::Share;

/// How many clients are served at once: sessions of PostgreSQL's protocol, or HTTP requests. Each
/// costs some 20 KB when idle and up to a result's size when not; benchmarks use 128, pools some
/// hundreds.
pub(crate) const MAX_ADMITTED: usize = 1_000;

/// How many of these places only administrators get: enough for a person, a script and a monitor on
/// a server that is full.
pub(crate) const RESERVED: usize = 10;

/// How many of these places one address may have: half of all, so that one machine, or whoever has
/// taken it over, leaves room for others. A loopback address is not counted: local proxies and
/// pools speak for many.
pub(crate) const MAX_PER_ADDRESS: usize = 500;

/// How many connections there may be in all: those that have said nothing yet, or nothing for a
/// while, cost some 20 KB each, 100 MB together. So many that a client has milliseconds for its
/// start-up even while hundreds of thousands a second arrive.
pub(crate) const MAX_CONNECTIONS: usize = 5_000;

/// How many connections the kernel may hold for us until they are accepted: the standard library's
/// 128 are there at once when thousands come, and who finds no room waits for a second.
const BACKLOG: i32 = 4_096;

/// How long a connection may be silent on the network before the client's machine is asked whether
/// it is still there, how often it is asked, and how many answers may be missing.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_MISSING: u32 = 4;

/// How many connections are closed when no file can be opened for another one, and how long it then
/// takes until they are gone. Others of this process need files too.
const CLOSED_AT_ONCE: usize = 32;
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// How often the log says so.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// Connections in all.
    pub(crate) all: usize,
    /// Of these, served at once.
    pub(crate) admitted: usize,
    /// Of these, for administrators.
    pub(crate) reserved: usize,
    /// Served at once, of one address.
    pub(crate) per_address: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: MAX_CONNECTIONS,
            admitted: MAX_ADMITTED,
            reserved: RESERVED,
            per_address: MAX_PER_ADDRESS,
        }
    }
}

impl Places {
    /// The same with so many connections at most: half of them may be served at once.
    fn within(self, connections: usize) -> Self {
        let all = self.all.min(connections);
        let admitted = self.admitted.min(all / 2);
        Self { all, admitted, reserved: self.reserved.min(admitted / 4), ..self }
    }
}

/// Counts who is there.
#[derive(Clone, Debug)]
pub(crate) struct Porch {
    places: Places,
    /// What the process's limit of open files leaves to this door.
    share: Option<Arc<Share>>,
    seats: Arc<Mutex<Seats>>,
}

/// A connection, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    porch: Porch,
    number: u64,
}

#[derive(Debug, Default)]
struct Seats {
    /// The next guest's number, and the next place in a crowd's order.
    next: u64,
    guests: HashMap<u64, Seat>,
    admitted: usize,
    /// How many are admitted of an address; only those with any.
    addresses: HashMap<IpAddr, usize>,
    crowds: Crowds,
    /// When the log was last told that connections cannot be accepted.
    complained: Option<Instant>,
}

/// Those that may be closed for others, by what is lost with them.
#[derive(Debug, Default)]
struct Crowds {
    /// Have not said who they are.
    strangers: Crowd,
    /// Were admitted before, and may come with something new.
    resting: Crowd,
    /// Are admitted, and keep us waiting.
    waiting: Crowd,
}

#[derive(Debug)]
struct Seat {
    address: IpAddr,
    stand: Stand,
    /// Whether it was ever admitted.
    known: bool,
    /// What to end when it is closed for another.
    task: Option<AbortHandle>,
}

/// How a guest stands; with its place in its crowd's order.
#[derive(Clone, Copy, Debug)]
enum Stand {
    Stranger(u64),
    Resting(u64),
    Waiting(u64),
    Admitted,
}

impl Porch {
    /// A door's own, within what this process may open.
    pub(crate) fn open(door: &str, listener: &TcpListener) -> Self {
        adjust(listener);
        let share = Arc::new(Share::take());
        let places = Places::default();
        let within = places.within(share.connections());
        if within.all < places.all {
            tracing::warn!(
                connections = within.all,
                served_at_once = within.admitted,
                "{door}: fewer connections than usual, since this process may open only few \
                 files: raise its limit (ulimit -n, LimitNOFILE)"
            );
        }
        Self { share: Some(share), ..Self::new(places) }
    }

    pub(crate) fn new(places: Places) -> Self {
        Self { places, share: None, seats: Arc::default() }
    }

    /// The next connection. Whatever goes wrong, it is waited for: a door that is closed once too
    /// many files are open would not be opened again.
    pub(crate) async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            match listener.accept().await {
                Ok(accepted) => return accepted,
                // A client that left while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.make_room(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// No connection can be accepted, most likely for lack of files: some give way.
    fn make_room(&self, error: &io::Error) {
        let places = self.places();
        let mut seats = self.seats();
        let closed = (0..CLOSED_AT_ONCE).take_while(|_| seats.close_one(places)).count();
        if seats.complained.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
            seats.complained = Some(Instant::now());
            tracing::warn!(%error, closed, "connections could not be accepted, others give way");
        }
    }

    /// Serves a connection in a task of its own, in place of another one where there is no room.
    pub(crate) fn welcome<S, F>(&self, address: IpAddr, serve: S)
    where
        S: FnOnce(Guest) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let places = self.places();
        let mut seats = self.seats();
        while seats.guests.len() >= places.all {
            if !seats.close_one(places) {
                return;
            }
        }
        let number = seats.arrive(network(address));
        drop(seats);
        let serving = tokio::spawn(serve(Guest { porch: self.clone(), number }));
        let task = serving.abort_handle();
        match self.seats().guests.get_mut(&number) {
            Some(seat) => seat.task = Some(task),
            // It has left already, or was closed at once.
            None => task.abort(),
        }
    }

    fn places(&self) -> Places {
        match &self.share {
            None => self.places,
            Some(share) => self.places.within(share.connections()),
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a door's connections a moment after the door is: whoever waits for an answer gets one.
pub(crate) struct Closing(pub(crate) Porch);

/// How long connections have after their door is closed.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

impl Drop for Closing {
    fn drop(&mut self) {
        let porch = self.0.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep(LAST_ANSWERS).await;
            let tasks: Vec<AbortHandle> =
                porch.seats().guests.values().filter_map(|seat| seat.task.clone()).collect();
            tasks.iter().for_each(AbortHandle::abort);
        });
    }
}

impl Guest {
    /// Gives it a place among those that are served, if there is one.
    pub(crate) fn admit(&self, administrator: bool) -> Result<(), Refusal> {
        self.porch.seats().admit(self.number, administrator, self.porch.places())
    }

    /// It is served, and has nothing to be done until it says something new.
    pub(crate) fn rest(&self) {
        self.porch.seats().rest(self.number);
    }

    /// Whether the server waits for it, in the midst of serving it.
    pub(crate) fn wait(&self, waits: bool) {
        self.porch.seats().wait(self.number, waits);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.porch.seats().leave(self.number);
    }
}

impl Seats {
    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn arrive(&mut self, address: IpAddr) -> u64 {
        let number = self.number();
        self.crowds.strangers.enter(address, number, number);
        let stand = Stand::Stranger(number);
        self.guests.insert(number, Seat { address, stand, known: false, task: None });
        number
    }

    fn admit(&mut self, number: u64, administrator: bool, places: Places) -> Result<(), Refusal> {
        let Some(seat) = self.guests.get(&number) else { return Err(closed()) };
        if matches!(seat.stand, Stand::Admitted | Stand::Waiting(_)) {
            return Ok(());
        }
        let (address, stand) = (seat.address, seat.stand);
        let counted = !administrator && !address.is_loopback();
        let there = self.addresses.get(&address).copied().unwrap_or_default();
        if counted && there >= places.per_address {
            let message = format!(
                "{there} connections come from your address, which is as many as one may have: \
                 close some, use a pool, or another server of the cluster",
            );
            return Err(Refusal::new("53300", message));
        }
        let kept = if administrator { 0 } else { places.reserved };
        while self.admitted >= places.admitted.saturating_sub(kept) {
            if !self.close(|crowds| crowds.waiting.first()) {
                return Err(full());
            }
        }
        self.crowds.leave(address, stand);
        self.admitted = self.admitted.saturating_add(1);
        let there = self.addresses.entry(address).or_default();
        *there = there.saturating_add(1);
        if let Some(seat) = self.guests.get_mut(&number) {
            seat.known = true;
            seat.stand = Stand::Admitted;
        }
        Ok(())
    }

    fn rest(&mut self, number: u64) {
        let order = self.number();
        let Some(seat) = self.guests.get_mut(&number) else { return };
        let (address, stand) = (seat.address, seat.stand);
        seat.stand = if seat.known { Stand::Resting(order) } else { Stand::Stranger(order) };
        self.crowds.enter(address, seat.stand, number);
        self.retire(address, stand);
    }

    fn wait(&mut self, number: u64, waits: bool) {
        let order = self.number();
        let Some(seat) = self.guests.get_mut(&number) else { return };
        let before = seat.stand;
        seat.stand = match (before, waits) {
            (Stand::Admitted | Stand::Waiting(_), true) => Stand::Waiting(order),
            (Stand::Waiting(_), false) => Stand::Admitted,
            (other, _) => other,
        };
        // What is waited for without having been admitted is in a crowd already.
        if matches!(before, Stand::Admitted | Stand::Waiting(_)) {
            self.crowds.leave(seat.address, before);
            self.crowds.enter(seat.address, seat.stand, number);
        }
    }

    fn leave(&mut self, number: u64) -> Option<Seat> {
        let seat = self.guests.remove(&number)?;
        self.retire(seat.address, seat.stand);
        Some(seat)
    }

    /// What it stood for is over.
    fn retire(&mut self, address: IpAddr, stand: Stand) {
        self.crowds.leave(address, stand);
        if let Stand::Stranger(_) | Stand::Resting(_) = stand {
            return;
        }
        self.admitted = self.admitted.saturating_sub(1);
        if let Some(there) = self.addresses.get_mut(&address) {
            *there = there.saturating_sub(1);
            if *there == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Closes a connection so that another may come. Strangers and those that rest have half of
    /// the room each before they give way to the other: neither can keep the other out.
    fn close_one(&mut self, places: Places) -> bool {
        let many = self.crowds.strangers.count > places.all / 2;
        if many && self.close(|crowds| crowds.strangers.first()) {
            return true;
        }
        self.close(|crowds| crowds.resting.first())
            || self.close(|crowds| crowds.strangers.first())
            || self.close(|crowds| crowds.waiting.first())
    }

    fn close(&mut self, choose: impl FnOnce(&mut Crowds) -> Option<u64>) -> bool {
        let Some(seat) = choose(&mut self.crowds).and_then(|number| self.leave(number)) else {
            return false;
        };
        if let Some(task) = seat.task {
            task.abort();
        }
        true
    }
}

impl Crowds {
    fn enter(&mut self, address: IpAddr, stand: Stand, number: u64) {
        match stand {
            Stand::Stranger(order) => self.strangers.enter(address, order, number),
            Stand::Resting(order) => self.resting.enter(address, order, number),
            Stand::Waiting(order) => self.waiting.enter(address, order, number),
            Stand::Admitted => {}
        }
    }

    fn leave(&mut self, address: IpAddr, stand: Stand) {
        match stand {
            Stand::Stranger(order) => self.strangers.leave(address, order),
            Stand::Resting(order) => self.resting.leave(address, order),
            Stand::Waiting(order) => self.waiting.leave(address, order),
            Stand::Admitted => {}
        }
    }
}

/// Connections that may be closed, by address and in order.
#[derive(Debug, Default)]
struct Crowd {
    count: usize,
    /// By address: order to guest. None is empty.
    addresses: HashMap<IpAddr, BTreeMap<u64, u64>>,
    /// Addresses by how many they have, then by how old their oldest is.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

impl Crowd {
    fn enter(&mut self, address: IpAddr, order: u64, number: u64) {
        self.change(address, |queue| queue.insert(order, number).is_none());
    }

    fn leave(&mut self, address: IpAddr, order: u64) {
        self.change(address, |queue| queue.remove(&order).is_some());
    }

    /// The oldest of the address with most: the first to give way.
    fn first(&self) -> Option<u64> {
        let (_, _, address) = self.ranks.last()?;
        self.addresses.get(address)?.values().next().copied()
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, u64>) -> bool) {
        let queue = self.addresses.entry(address).or_default();
        let before = rank(queue, address);
        change(queue);
        let after = rank(queue, address);
        if queue.is_empty() {
            self.addresses.remove(&address);
        }
        if before != after {
            let held = |rank: &Option<(usize, _, _)>| rank.map_or(0, |(count, ..)| count);
            self.count = self.count.saturating_add(held(&after)).saturating_sub(held(&before));
            before.map(|before| self.ranks.remove(&before));
            after.map(|after| self.ranks.insert(after));
        }
    }
}

fn rank(queue: &BTreeMap<u64, u64>, address: IpAddr) -> Option<(usize, Reverse<u64>, IpAddr)> {
    let (oldest, _) = queue.first_key_value()?;
    Some((queue.len(), Reverse(*oldest), address))
}

/// What the kernel is to do for a door and its connections, which have their listener's settings:
/// to set them for each would be most of what a connection costs that says nothing. It works
/// without, so failing is no reason not to serve.
pub(crate) fn adjust(listener: &TcpListener) {
    let socket = SockRef::from(listener);
    let _ = socket.listen(BACKLOG);
    // Answers are single small packets: waiting for more to send would only delay them.
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_MISSING);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

fn full() -> Refusal {
    Refusal::new(
        "53300",
        "this server has as many connections as it can take: close some, use a pool, or another \
         server of the cluster",
    )
}

fn closed() -> Refusal {
    Refusal::new("53300", "this connection was closed in favour of another one: connect again")
}

/// Whose address it is: of IPv6, the half that names the network, since one machine has all of the
/// other half to choose from.
pub(crate) fn network(address: IpAddr) -> IpAddr {
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
    use tokio::sync::mpsc;

    use super::*;

    const PLACES: Places = Places { all: 8, admitted: 4, reserved: 1, per_address: 2 };

    /// A door at which guests do what the test tells them.
    struct Door {
        porch: Porch,
        guests: mpsc::UnboundedReceiver<Guest>,
        arrived: mpsc::UnboundedSender<Guest>,
    }

    fn door() -> Door {
        let (arrived, guests) = mpsc::unbounded_channel();
        Door { porch: Porch::new(PLACES), guests, arrived }
    }

    impl Door {
        /// A connection that stays until the test drops it; closed ones are known by `is_there`.
        async fn arrive(&mut self, address: &str) -> Guest {
            let arrived = self.arrived.clone();
            self.porch.welcome(address.parse().unwrap(), move |guest| async move {
                let _ = arrived.send(guest);
            });
            self.guests.recv().await.unwrap()
        }

        async fn admitted(&mut self, address: &str, administrator: bool) -> Result<Guest, String> {
            let guest = self.arrive(address).await;
            guest.admit(administrator).map_err(|refusal| refusal.code().to_owned())?;
            Ok(guest)
        }
    }

    fn is_there(guest: &Guest) -> bool {
        guest.porch.seats().guests.contains_key(&guest.number)
    }

    #[tokio::test]
    async fn the_last_places_are_for_administrators() {
        let mut door = door();
        let mut there = Vec::new();
        for _ in 0..3 {
            there.push(door.admitted("127.0.0.1", false).await.unwrap());
        }
        let full = Err("53300".to_owned());
        assert_eq!(door.admitted("127.0.0.1", false).await.map(drop), full);
        there.push(door.admitted("10.0.0.1", true).await.unwrap());
        assert_eq!(door.admitted("127.0.0.1", true).await.map(drop), full);
        there.clear();
        assert!(door.admitted("10.0.0.1", false).await.is_ok());
    }

    #[tokio::test]
    async fn one_address_cannot_take_all_places() {
        let mut door = door();
        let one = door.admitted("2001:db8::1", false).await.unwrap();
        let two = door.admitted("2001:db8::2", false).await.unwrap();
        let refused = door.admitted("2001:db8::3", false).await.map(drop);
        assert_eq!(refused, Err("53300".to_owned()));
        assert!(door.admitted("2001:db8:0:1::1", false).await.is_ok());
        drop((one, two));
        let seats = door.porch.seats();
        assert!(seats.addresses.is_empty() && seats.guests.is_empty(), "{seats:?}");
        assert!(seats.crowds.strangers.ranks.is_empty(), "nothing is remembered of who has left");
    }

    #[tokio::test]
    async fn the_oldest_stranger_of_the_largest_crowd_gives_way() {
        let mut door = door();
        let other = door.arrive("10.0.0.2").await;
        let mut crowd = Vec::new();
        for _ in 0..20 {
            crowd.push(door.arrive("10.0.0.1").await);
        }
        assert!(is_there(&other), "it is older, but of an address with fewer");
        let there: Vec<bool> = crowd.iter().map(is_there).collect();
        assert!(there[..13].iter().all(|there| !there) && there[13..].iter().all(|there| *there));
        assert!(other.admit(false).is_ok());
        assert_eq!(crowd[0].admit(false).unwrap_err().code(), "53300");
    }

    #[tokio::test]
    async fn who_is_served_is_not_closed_for_strangers() {
        let mut door = door();
        let served = door.admitted("10.0.0.1", false).await.unwrap();
        let rests = door.admitted("10.0.0.1", false).await.unwrap();
        rests.rest();
        let mut crowd = Vec::new();
        for _ in 0..20 {
            crowd.push(door.arrive("10.0.0.1").await);
        }
        assert!(is_there(&served) && is_there(&rests));
    }

    #[tokio::test]
    async fn who_rests_leaves_half_of_the_room_to_strangers() {
        let mut door = door();
        let mut resting = Vec::new();
        for _ in 0..20 {
            let guest = door.admitted("10.0.0.1", false).await.unwrap();
            guest.rest();
            resting.push(guest);
        }
        let (one, two) = (door.arrive("10.0.0.1").await, door.arrive("10.0.0.1").await);
        assert!(is_there(&one) && is_there(&two));
        assert_eq!(resting.iter().filter(|guest| is_there(guest)).count(), 6);
    }

    #[tokio::test]
    async fn a_request_that_is_waited_for_gives_way_to_one_that_is_whole() {
        let mut door = door();
        let slow = door.admitted("10.0.0.1", false).await.unwrap();
        let busy = door.admitted("10.0.0.2", false).await.unwrap();
        let paused = door.admitted("10.0.0.2", false).await.unwrap();
        slow.wait(true);
        paused.wait(true);
        paused.wait(false);
        assert!(door.admitted("10.0.0.3", false).await.is_ok());
        assert!(!is_there(&slow) && is_there(&busy) && is_there(&paused));
    }

    #[tokio::test]
    async fn connections_have_the_settings_of_their_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        adjust(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
    }

    #[tokio::test]
    async fn a_connection_that_gives_way_is_closed() {
        let porch = Porch::new(Places { all: 1, ..PLACES });
        let (ended, mut end) = mpsc::channel::<()>(1);
        porch.welcome("10.0.0.1".parse().unwrap(), move |guest| async move {
            let _held = (guest, ended);
            std::future::pending::<()>().await;
        });
        porch.welcome("10.0.0.1".parse().unwrap(), |guest| async move { drop(guest) });
        assert_eq!(end.recv().await, None, "its task was dropped, and all it held");
    }
}
