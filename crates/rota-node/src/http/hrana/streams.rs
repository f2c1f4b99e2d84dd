//! Streams between two requests (step 1): each waits under a baton that is good for one request of
//! the user who opened it, and for ten seconds.
//!
//! ```text
//!   request ─ take(baton) ─► stream ─ runs ─► keep() ─► a new baton ─► answer
//!                                               │
//!                                  10 s ────────┴───► dropped: its transaction is rolled back
//! ```
//!
//! A stream in a transaction holds a draft, of which a server has few, so there are far fewer of
//! those, and they are never dropped to make room: their clients would write outside of the
//! transaction that they believe to be in. The others are no more than some texts.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rota_core::error::{Refusal, sqlstate};
use tokio::time::Instant;

use super::failure::Failure;

/// How long a stream waits for the next request of its client.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

/// How many transactions streams have open at once: half of a server's drafts, so that the others
/// are there for PostgreSQL's clients.
pub(crate) const TRANSACTIONS: usize = 128;

/// How many of them one user has, so that there are some for the others.
pub(crate) const TRANSACTIONS_OF_ONE: usize = 64;

/// How many streams without a transaction wait at once; the oldest makes room. Each costs some
/// hundred bytes.
const STREAMS: usize = 4_096;

/// How many of them one user has.
const STREAMS_OF_ONE: usize = 1_024;

/// Bytes of the texts that all streams together keep.
const TEXT_BYTES: usize = 32 << 20;

/// What waits between two requests.
pub(crate) trait Waits {
    /// Whether it may not be dropped to make room.
    fn is_in_transaction(&self) -> bool;
}

/// All streams that wait.
pub(crate) struct Streams<S> {
    /// For how long each does.
    idle: Duration,
    waiting: Mutex<Waiting<S>>,
}

struct Waiting<S> {
    /// By the number of the baton: in the order of their ends.
    streams: BTreeMap<u64, Kept<S>>,
    /// How many of a user's are in no transaction.
    idle: HashMap<Arc<str>, usize>,
    idle_in_all: usize,
    next: u64,
    /// Whether somebody looks after their ends.
    is_watched: bool,
}

struct Kept<S> {
    stream: S,
    user: Arc<str>,
    secret: [u8; 16],
    until: Instant,
    is_idle: bool,
}

impl<S: Waits + Send + 'static> Streams<S> {
    pub(crate) fn new(idle: Duration) -> Arc<Self> {
        let waiting = Waiting {
            streams: BTreeMap::new(),
            idle: HashMap::new(),
            idle_in_all: 0,
            next: 0,
            is_watched: false,
        };
        Arc::new(Self { idle, waiting: Mutex::new(waiting) })
    }

    /// Keeps a stream for the next request; under which baton. Must be called in a Tokio runtime.
    pub(crate) fn keep(self: &Arc<Self>, user: &Arc<str>, stream: S) -> Result<String, Failure> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| {
            let message = format!("the system's random source failed: {error}");
            Failure::from(Refusal::new(sqlstate::INTERNAL, message))
        })?;
        let mut waiting = self.lock();
        let is_idle = !stream.is_in_transaction();
        let evicted = if is_idle { waiting.make_room(user) } else { None };
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        let until = Instant::now() + self.idle;
        let kept = Kept { stream, user: Arc::clone(user), secret, until, is_idle };
        waiting.insert(number, kept);
        if !std::mem::replace(&mut waiting.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
        drop(waiting);
        // Not while others wait for the lock.
        drop(evicted);
        Ok(format!("{number:x}.{}", hex::encode(secret)))
    }

    /// The stream that waits under this baton for this user. A baton that was used, never given
    /// out, or given to somebody else opens nothing, and there is no telling which.
    pub(crate) fn take(&self, user: &str, baton: &str) -> Option<S> {
        let (number, secret) = baton.split_once('.')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let mut given = [0; 16];
        hex::decode_to_slice(secret, &mut given).ok()?;
        let mut waiting = self.lock();
        let kept = waiting.streams.get(&number)?;
        let is_his = is_equal(&kept.secret, &given) && *kept.user == *user;
        if !is_his || kept.until <= Instant::now() {
            return None;
        }
        waiting.remove(number).map(|kept| kept.stream)
    }

    /// Drops those that have waited for too long; when the next one will have.
    fn end(&self) -> Option<Instant> {
        let (_expired, next) = {
            let mut waiting = self.lock();
            let expired = waiting.expired(Instant::now());
            let next = waiting.streams.first_key_value().map(|(_, kept)| kept.until);
            waiting.is_watched = next.is_some();
            (expired, next)
        };
        next
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<S>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Waiting<S> {
    fn insert(&mut self, number: u64, kept: Kept<S>) {
        if kept.is_idle {
            let own = self.idle.entry(Arc::clone(&kept.user)).or_default();
            *own = own.saturating_add(1);
            self.idle_in_all = self.idle_in_all.saturating_add(1);
        }
        self.streams.insert(number, kept);
    }

    fn remove(&mut self, number: u64) -> Option<Kept<S>> {
        let kept = self.streams.remove(&number)?;
        if kept.is_idle {
            self.idle_in_all = self.idle_in_all.saturating_sub(1);
            release(&mut self.idle, &kept.user);
        }
        Some(kept)
    }

    /// The oldest stream that is in no transaction, of this user or of all, if there are too many.
    fn make_room(&mut self, user: &Arc<str>) -> Option<Kept<S>> {
        let own = self.idle.get(user).copied().unwrap_or(0) >= STREAMS_OF_ONE;
        if !own && self.idle_in_all < STREAMS {
            return None;
        }
        let oldest =
            self.streams.iter().find(|(_, kept)| kept.is_idle && (!own || kept.user == *user));
        let number = *oldest?.0;
        self.remove(number)
    }

    /// Those that have waited for too long.
    fn expired(&mut self, now: Instant) -> Vec<Kept<S>> {
        let mut expired = Vec::new();
        while let Some((&number, kept)) = self.streams.first_key_value() {
            if kept.until > now {
                break;
            }
            expired.extend(self.remove(number));
        }
        expired
    }
}

/// Drops streams at their ends, as long as there are any.
async fn watch<S: Waits + Send + 'static>(streams: Weak<Streams<S>>) {
    loop {
        let Some(next) = streams.upgrade().and_then(|streams| streams.end()) else { return };
        tokio::time::sleep_until(next).await;
    }
}

/// Takes as long wherever they differ.
fn is_equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

fn release(counts: &mut HashMap<Arc<str>, usize>, user: &Arc<str>) {
    if let Some(count) = counts.get_mut(user) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(user);
        }
    }
}

/// What streams hold, counted while they run as well as while they wait.
#[derive(Default)]
pub(crate) struct Limits {
    transactions: Mutex<HashMap<Arc<str>, usize>>,
    text_bytes: AtomicUsize,
}

/// Leave to have a transaction open.
pub(crate) struct Place {
    limits: Arc<Limits>,
    user: Arc<str>,
}

/// A text that a stream keeps.
pub(crate) struct Text {
    pub(crate) sql: String,
    limits: Arc<Limits>,
}

impl Limits {
    /// Leave for one more transaction.
    pub(crate) fn begin(self: &Arc<Self>, user: &Arc<str>) -> Result<Place, Refusal> {
        let mut of = self.transactions();
        let all = of.values().fold(0usize, |sum, count| sum.saturating_add(*count));
        let own = of.get(user).copied().unwrap_or(0);
        if all >= TRANSACTIONS || own >= TRANSACTIONS_OF_ONE {
            let message = format!(
                "too many transactions are open over Hrana: one user may have \
                 {TRANSACTIONS_OF_ONE} of a server's {TRANSACTIONS}; try again"
            );
            return Err(Refusal::new(sqlstate::BUSY, message));
        }
        of.insert(Arc::clone(user), own.saturating_add(1));
        Ok(Place { limits: Arc::clone(self), user: Arc::clone(user) })
    }

    /// Counts a text.
    pub(crate) fn text(self: &Arc<Self>, sql: String) -> Result<Text, Failure> {
        let bytes = sql.len();
        let before = self.text_bytes.fetch_add(bytes, Ordering::Relaxed);
        let text = Text { sql, limits: Arc::clone(self) };
        if before.saturating_add(bytes) > TEXT_BYTES {
            return Err(Failure::new(
                "SQL_STORE_TOO_MANY",
                "this server's streams keep too many SQL texts: send the text itself",
            ));
        }
        Ok(text)
    }

    fn transactions(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        release(&mut self.limits.transactions(), &self.user);
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.limits.text_bytes.fetch_sub(self.sql.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(bool);

    impl Waits for Fake {
        fn is_in_transaction(&self) -> bool {
            self.0
        }
    }

    fn user(name: &str) -> Arc<str> {
        name.into()
    }

    #[tokio::test]
    async fn a_baton_is_good_once_and_for_its_user_only() {
        let streams = Streams::new(IDLE);
        let ann = user("ann");
        let baton = streams.keep(&ann, Fake(true)).unwrap();
        assert!(streams.take("bob", &baton).is_none(), "another's");
        let (number, secret) = baton.split_once('.').unwrap();
        let flipped = if secret.starts_with('0') { "1" } else { "0" };
        for wrong in [
            String::new(),
            number.to_owned(),
            format!("{number}."),
            format!("{number}.{flipped}{}", &secret[1..]),
            format!("1.{secret}"),
            format!("{number}.{secret}00"),
        ] {
            assert!(streams.take("ann", &wrong).is_none(), "{wrong}");
        }
        assert!(streams.take("ann", &baton).is_some(), "wrong ones before it change nothing");
        assert!(streams.take("ann", &baton).is_none(), "used");
        assert_ne!(streams.keep(&ann, Fake(true)).unwrap(), baton);
    }

    #[tokio::test]
    async fn a_baton_ends_with_its_time() {
        let streams = Streams::new(Duration::ZERO);
        let baton = streams.keep(&user("ann"), Fake(true)).unwrap();
        assert!(streams.take("ann", &baton).is_none());
    }

    /// A stream with a transaction, whose end somebody waits for.
    struct Holding {
        _place: Place,
        _dropped: tokio::sync::oneshot::Sender<()>,
    }

    impl Waits for Holding {
        fn is_in_transaction(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn streams_are_dropped_at_their_end_without_anybody_asking() {
        let streams = Streams::new(Duration::from_millis(5));
        let limits = Arc::new(Limits::default());
        let ann = user("ann");
        for _ in 0..2 {
            let (_dropped, dropped) = tokio::sync::oneshot::channel();
            let _place = limits.begin(&ann).unwrap();
            streams.keep(&ann, Holding { _place, _dropped }).unwrap();
            assert!(dropped.await.is_err(), "nothing is ever sent");
            assert!(limits.transactions().is_empty(), "the transaction has gone with its stream");
        }
    }

    #[tokio::test]
    async fn a_flood_makes_room_among_its_own_and_never_among_transactions() {
        let streams = Streams::new(IDLE);
        let (ann, bob) = (user("ann"), user("bob"));
        let of_bob = streams.keep(&bob, Fake(false)).unwrap();
        let open = streams.keep(&ann, Fake(true)).unwrap();
        let first = streams.keep(&ann, Fake(false)).unwrap();
        for _ in 0..STREAMS_OF_ONE {
            streams.keep(&ann, Fake(false)).unwrap();
        }
        assert_eq!(streams.lock().streams.len(), STREAMS_OF_ONE + 2);
        assert!(streams.take("ann", &first).is_none(), "the oldest made room");
        assert!(streams.take("ann", &open).is_some(), "the transaction did not");
        assert!(streams.take("bob", &of_bob).is_some());
    }

    #[test]
    fn nobody_has_all_transactions_and_nobody_has_all_memory() {
        let limits = Arc::new(Limits::default());
        let take = |name| limits.begin(&user(name)).map_err(|refusal| refusal.code().to_owned());
        let of_ann: Vec<_> = (0..TRANSACTIONS_OF_ONE).map(|_| take("ann").unwrap()).collect();
        assert_eq!(take("ann").err().as_deref(), Some("53000"));
        let of_bob: Vec<_> = (0..TRANSACTIONS_OF_ONE).map(|_| take("bob").unwrap()).collect();
        assert_eq!(take("eve").err().as_deref(), Some("53000"));
        drop(of_bob);
        assert!(take("eve").is_ok());
        drop(of_ann);
        assert!(limits.transactions().is_empty());

        let large = "x".repeat(TEXT_BYTES / 2);
        let held = [limits.text(large.clone()).unwrap(), limits.text(large.clone()).unwrap()];
        assert!(limits.text("x".into()).is_err());
        drop(held);
        assert!(limits.text(large).is_ok());
    }
}
