//! Envelopes on their way into the chain, in order of arrival. Step 3, and where step 4 takes from.
//!
//! Bounded in number and bytes, and shared out by who answers for an envelope, so that nobody can
//! shut out anybody else:
//!
//! ```text
//!   signed by this server     half of what members may take
//!   signed by a member        the other half in equal parts, whoever forwards it
//!   signed by anybody else    a room beside that: a half of it for our own door, a quarter for
//!                             what members forward from theirs, a quarter for what they pass on,
//!                             in equal parts by the member that sent it
//! ```
//!
//! Under `pow`, where nobody is a member and envelopes stay until their block is `k` deep,
//! everything but a server's own is in the room beside: each neighbour may fill a quarter of it,
//! each key a quarter of that, and where it is full the newest of who has most makes room for who
//! has less.
//!
//! Keys cost nothing, and who is a user is known at apply only: so what a member forwards counts
//! against that member, however many keys have signed it. Within such a part no key has more than
//! an eighth, so that one user does not shut out those who use the same server. Blocks are filled
//! from all accounts alike, for the same reason.
//!
//! What has become final is remembered for a while, so that a late copy is not proposed again; it
//! would do no harm (ids are checked when a block is applied) but waste room.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::sync::Arc;
use std::time::Duration;

use crate::codec::encode;
use crate::genesis::Parameters;
use crate::time::{Instant, Time};
use crate::transaction::Envelope;
use crate::types::{EnvelopeId, Height, NodeId, PublicKey};

/// The most encoded bytes held of what members have signed: some seconds of full blocks.
pub const MAX_BYTES: usize = 64 << 20;

/// The most envelopes held that members have signed.
pub const MAX_ENVELOPES: usize = 50_000;

/// The most encoded bytes held beside that of what clients have signed with their own keys: fewer,
/// since most clients let a server sign for them.
pub const MAX_GUEST_BYTES: usize = 32 << 20;

/// The most envelopes held beside those that clients have signed with their own keys.
pub const MAX_GUEST_ENVELOPES: usize = 25_000;

/// The part of an account of clients' own keys that one key may take: one in so many.
const KEYS_PER_ACCOUNT: usize = 8;

/// Where anybody may send, the part of the room that one neighbour may take, and the part of that
/// that one key may, which is a server's as a rule, for all its clients.
const OPEN_PARTS: usize = 4;

/// So many of another's make room for one envelope at most: no more than fit its bytes, but for
/// very small ones.
const MOST_EVICTED: usize = 64;

/// The longest time between two attempts to tell all members of an envelope.
const MAX_PATIENCE: Duration = Duration::from_secs(5);

/// How many final envelopes are remembered: more than pass while a message travels.
const REMEMBERED: usize = 65_536;

/// The most encoded bytes that are sent on at once: a block's worth.
const MAX_SENT_BYTES: usize = 4 << 20;

/// What did not fit into `MAX_SENT_BYTES` is looked at again after this.
const SEND_PAUSE: Duration = Duration::from_millis(50);

/// The least block time between two looks for expired envelopes: looking costs time for each that
/// waits, and an expired one does no harm.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

/// One waiting envelope.
#[derive(Debug)]
struct Entry {
    envelope: Arc<Envelope>,
    id: EnvelopeId,
    bytes: usize,
    account: Account,
    /// When it is sent on, unless it stands in a block by then.
    due: Instant,
    patience: Duration,
}

/// Why an envelope was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is here already, or was final not long ago.
    Known,
    /// No room for this signer's.
    Full,
    /// Larger than any block, so that it would stand in everybody's way.
    TooLarge,
}

/// Against whom an envelope counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// This server, which has signed it for its own clients.
    Own,
    /// This server, at whose door a client with a key of its own has handed it in.
    OwnGuest,
    /// The member that signed it.
    Member(NodeId),
    /// The member that forwarded it: signed by no member, handed in at its door, as it says.
    Guest(NodeId),
    /// The member that passed it on: the same, but handed in at another's door. Apart from those,
    /// or what a malicious member spreads would fill honest ones' parts at the leader.
    PassedOn(NodeId),
}

impl Account {
    /// Whether it is of this server's own clients.
    fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OwnGuest)
    }

    /// Whether many keys share it.
    fn is_of_guests(self) -> bool {
        !matches!(self, Self::Own | Self::Member(_))
    }
}

/// Room for envelopes, or what they take of it.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    envelopes: usize,
    bytes: usize,
}

impl Share {
    fn part(self, parts: usize) -> Self {
        let parts = parts.max(1);
        Self { envelopes: self.envelopes / parts, bytes: self.bytes / parts }
    }

    /// How much of the room of all keys that are no member's it is.
    fn weight(self) -> usize {
        (self.envelopes * (MAX_GUEST_BYTES / MAX_GUEST_ENVELOPES)).max(self.bytes)
    }

    /// Whether another envelope fits beside what is `used`. One does in any case: with many members
    /// a part may be smaller than the largest envelope.
    fn has_room(self, used: Self, bytes: usize) -> bool {
        used.envelopes == 0 || (used.envelopes < self.envelopes && used.bytes + bytes <= self.bytes)
    }
}

/// Envelopes to send on.
#[derive(Debug, Default)]
pub struct Overdue {
    /// Our own clients': all members should know of them.
    pub own: Vec<Arc<Envelope>>,
    /// Others': the leader should know of them.
    pub others: Vec<Arc<Envelope>>,
}

/// Waiting envelopes, oldest first.
#[derive(Debug)]
pub struct Mempool {
    members: usize,
    arrivals: u64,
    /// In all envelopes together.
    transactions: usize,
    entries: BTreeMap<u64, Entry>,
    by_id: BTreeMap<EnvelopeId, u64>,
    by_due: BTreeSet<(Instant, u64)>,
    by_account: BTreeSet<(Account, u64)>,
    used: BTreeMap<Account, Share>,
    /// By key, of the accounts that many share; none of zero, since there are any number of keys.
    used_by_key: BTreeMap<(Account, PublicKey), Share>,
    /// Of all accounts of keys that are no member's: where anybody may send, there is any number
    /// of those accounts.
    used_by_guests: Share,
    expired_until: Time,
    /// When an envelope is sent on, unless it stands in a block by then; half a slot time-out where
    /// there are slots.
    patience: Option<Duration>,
    final_ids: BTreeSet<EnvelopeId>,
    final_order: VecDeque<EnvelopeId>,
}

impl Mempool {
    /// An empty one for a cluster of so many members.
    pub fn new(members: usize) -> Self {
        Self {
            members,
            arrivals: 0,
            transactions: 0,
            entries: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_due: BTreeSet::new(),
            by_account: BTreeSet::new(),
            used: BTreeMap::new(),
            used_by_key: BTreeMap::new(),
            used_by_guests: Share::default(),
            expired_until: Time(0),
            patience: None,
            final_ids: BTreeSet::new(),
            final_order: VecDeque::new(),
        }
    }

    /// One for a cluster that knows no turns: what waits is sent on after this time.
    pub fn without_turns(senders: usize, patience: Duration) -> Self {
        Self { patience: Some(patience), ..Self::new(senders) }
    }

    /// What an account may take.
    fn share_of(&self, account: Account) -> Share {
        let members = Share { envelopes: MAX_ENVELOPES, bytes: MAX_BYTES };
        let guests = Share { envelopes: MAX_GUEST_ENVELOPES, bytes: MAX_GUEST_BYTES };
        match account {
            Account::Own => members.part(2),
            Account::Member(_) => members.part(2).part(self.members),
            Account::OwnGuest => guests.part(2),
            Account::Guest(_) | Account::PassedOn(_) if self.is_open() => guests.part(OPEN_PARTS),
            Account::Guest(_) | Account::PassedOn(_) => guests.part(4).part(self.members),
        }
    }

    fn has_room(&self, account: Account, signer: PublicKey, bytes: usize) -> bool {
        let share = self.share_of(account);
        let used = self.used.get(&account).copied().unwrap_or_default();
        let by_key = self.used_by_key.get(&(account, signer)).copied().unwrap_or_default();
        let parts = if self.is_open() { OPEN_PARTS } else { KEYS_PER_ACCOUNT };
        share.has_room(used, bytes)
            && (!account.is_of_guests() || share.part(parts).has_room(by_key, bytes))
    }

    /// Whether anybody may send: there is no turn, and no member.
    fn is_open(&self) -> bool {
        self.patience.is_some()
    }

    /// Makes room in what all keys that are no member's share, by dropping the newest of whoever
    /// has most, as long as that is more than `account` would have. False if there is none.
    fn make_room(&mut self, account: Account, bytes: usize) -> bool {
        let guests = Share { envelopes: MAX_GUEST_ENVELOPES, bytes: MAX_GUEST_BYTES };
        for _ in 0..MOST_EVICTED {
            if guests.has_room(self.used_by_guests, bytes) {
                return true;
            }
            let own = self.used.get(&account).copied().unwrap_or_default();
            let more = Share { envelopes: own.envelopes + 1, bytes: own.bytes + bytes };
            // What is of this server's own clients stays: they wait for it.
            let others = self.used.iter().filter(|(other, used)| {
                let is_of_a_neighbour = matches!(other, Account::Guest(_) | Account::PassedOn(_));
                is_of_a_neighbour && **other != account && used.weight() > more.weight()
            });
            let largest = others.max_by_key(|(_, used)| used.weight());
            let Some((&most, _)) = largest else { return false };
            let newest = self.by_account.range((most, 0)..=(most, u64::MAX)).next_back();
            let Some(&(_, arrival)) = newest else { return false };
            self.remove(arrival);
        }
        guests.has_room(self.used_by_guests, bytes)
    }

    /// Takes an envelope, to count against `account`.
    pub fn insert(
        &mut self,
        envelope: Arc<Envelope>,
        account: Account,
        limits: &Parameters,
        now: Instant,
    ) -> Result<EnvelopeId, NotTaken> {
        let id = envelope.id();
        if self.by_id.contains_key(&id) || self.final_ids.contains(&id) {
            return Err(NotTaken::Known);
        }
        let bytes = encode(&*envelope).len();
        if bytes > limits.block_bytes as usize
            || envelope.transactions.len() > limits.block_transactions as usize
        {
            return Err(NotTaken::TooLarge);
        }
        let fits = self.has_room(account, envelope.signer, bytes)
            && (!account.is_of_guests() || self.make_room(account, bytes));
        if !fits {
            return Err(NotTaken::Full);
        }
        take(&mut self.used, account, bytes);
        if account.is_of_guests() {
            self.used_by_guests.envelopes += 1;
            self.used_by_guests.bytes += bytes;
            take(&mut self.used_by_key, (account, envelope.signer), bytes);
        }
        let patience = self.patience.unwrap_or(limits.slot_timeout() / 2);
        let due = now.plus(patience);
        self.arrivals += 1;
        self.transactions += envelope.transactions.len();
        self.by_id.insert(id, self.arrivals);
        self.by_due.insert((due, self.arrivals));
        self.by_account.insert((account, self.arrivals));
        self.entries.insert(self.arrivals, Entry { envelope, id, bytes, account, due, patience });
        Ok(id)
    }

    fn remove(&mut self, arrival: u64) -> Option<Entry> {
        let entry = self.entries.remove(&arrival)?;
        self.transactions -= entry.envelope.transactions.len();
        self.by_id.remove(&entry.id);
        self.by_due.remove(&(entry.due, arrival));
        self.by_account.remove(&(entry.account, arrival));
        give_back(&mut self.used, entry.account, entry.bytes);
        if entry.account.is_of_guests() {
            self.used_by_guests.envelopes -= 1;
            self.used_by_guests.bytes -= entry.bytes;
            let by_key = (entry.account, entry.envelope.signer);
            give_back(&mut self.used_by_key, by_key, entry.bytes);
        }
        Some(entry)
    }

    /// How many transactions wait.
    pub fn transactions(&self) -> usize {
        self.transactions
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All that wait, oldest first.
    pub fn envelopes(&self) -> impl Iterator<Item = &Arc<Envelope>> {
        self.entries.values().map(|entry| &entry.envelope)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Envelopes that fit a block of this height and time and are not `taken` by its ancestors: of
    /// each account the oldest first, and of all accounts the same number of bytes, as far as they
    /// have so many. The first place is the oldest's of all at even heights, so that none waits for
    /// ever, and goes round among the accounts at odd ones: where a block holds little, what one of
    /// them piled up long ago does not keep out all others.
    pub fn select(
        &self,
        taken: &BTreeSet<EnvelopeId>,
        limits: &Parameters,
        room: usize,
        height: Height,
        time: Time,
    ) -> Vec<Arc<Envelope>> {
        let may_stand = |&(_, arrival): &(Account, u64)| {
            let entry = self.entries.get(&arrival)?;
            let expiry = entry.envelope.expiry;
            let fits = !taken.contains(&entry.id)
                && !expiry.has_passed(height, time)
                && !expiry.is_too_far(height, time, limits.max_expiry());
            fits.then_some((arrival, entry))
        };
        let mut room = room;
        let mut transactions = limits.block_transactions as usize;
        let mut selected = Vec::new();
        let mut queues: Vec<_> = self
            .used
            .keys()
            .map(|&account| self.by_account.range((account, 0)..=(account, u64::MAX)))
            .map(|waiting| waiting.filter_map(may_stand).peekable())
            .collect();
        // By what an account has in the block already, and by how long its oldest has waited.
        let mut turns: BTreeSet<(usize, u64, usize)> = BTreeSet::new();
        let accounts = queues.len() as u64;
        for (number, queue) in queues.iter_mut().enumerate() {
            let place = |arrival: u64| match height.0.is_multiple_of(2) {
                true => arrival,
                false => (number as u64 + height.0 / 2) % accounts,
            };
            turns.extend(queue.peek().map(|&(arrival, _)| (0, place(arrival), number)));
        }
        while let Some((bytes, _, number)) = turns.pop_first() {
            let Some(queue) = queues.get_mut(number) else { continue };
            let Some((_, entry)) = queue.next() else { continue };
            let count = entry.envelope.transactions.len();
            if entry.bytes > room || count > transactions {
                continue; // the next block's; taking a smaller one first would starve it
            }
            room -= entry.bytes;
            transactions -= count;
            selected.push(Arc::clone(&entry.envelope));
            let bytes = bytes + entry.bytes;
            turns.extend(queue.peek().map(|&(arrival, _)| (bytes, arrival, number)));
        }
        selected
    }

    /// Forgets what became final.
    pub fn remove_final(&mut self, ids: impl IntoIterator<Item = EnvelopeId>) {
        for id in ids {
            if let Some(&arrival) = self.by_id.get(&id) {
                self.remove(arrival);
            }
            if self.final_ids.insert(id) {
                self.final_order.push_back(id);
            }
            if self.final_order.len() > REMEMBERED
                && let Some(oldest) = self.final_order.pop_front()
            {
                self.final_ids.remove(&oldest);
            }
        }
    }

    /// Forgets what can no longer enter the chain after a final block of this height and time;
    /// gives back what of it was this server's own. Looks once a second of block time.
    pub fn remove_expired(&mut self, height: Height, time: Time) -> Vec<Arc<Envelope>> {
        if time < self.expired_until.plus(EXPIRY_PAUSE) {
            return Vec::new();
        }
        self.expired_until = time;
        let expired: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.envelope.expiry.has_passed(height, time))
            .map(|(&arrival, _)| arrival)
            .collect();
        let removed = expired.into_iter().filter_map(|arrival| self.remove(arrival));
        removed.filter(|entry| entry.account.is_own()).map(|entry| entry.envelope).collect()
    }

    /// The oldest of our own envelopes that stand in none of the blocks whose envelopes are
    /// `taken`, up to `MAX_SENT_BYTES`.
    pub fn own_waiting(&self, taken: &BTreeSet<EnvelopeId>) -> Vec<Arc<Envelope>> {
        let mut room = MAX_SENT_BYTES;
        self.entries
            .values()
            .filter(|entry| entry.account.is_own() && !taken.contains(&entry.id))
            .take_while(|entry| {
                let fits = entry.bytes <= room;
                room = room.saturating_sub(entry.bytes);
                fits
            })
            .map(|entry| Arc::clone(&entry.envelope))
            .collect()
    }

    /// Envelopes that are due to be sent on and stand in none of the blocks whose envelopes are
    /// `taken`, up to `MAX_SENT_BYTES`. What is sent is due again after twice the time, since a
    /// message can be lost; what stands in a block, after the same, or where blocks are found and
    /// take long to be final, after [`MAX_PATIENCE`]. What has expired at `date` is not sent.
    pub fn take_overdue(
        &mut self,
        taken: &BTreeSet<EnvelopeId>,
        now: Instant,
        date: Time,
    ) -> Overdue {
        let mut overdue = Overdue::default();
        let mut room = MAX_SENT_BYTES;
        // What is due soon comes along: looking costs time each time.
        let is_open = self.is_open();
        let until = if is_open { now.plus(SEND_PAUSE) } else { now };
        let due: Vec<(Instant, u64)> = self.by_due.range(..=(until, u64::MAX)).copied().collect();
        for (at, arrival) in due {
            let Some(entry) = self.entries.get_mut(&arrival) else { continue };
            let rests = is_open && (taken.contains(&entry.id) || entry.envelope.expiry.time < date);
            let mut next = now.plus(if rests { MAX_PATIENCE } else { entry.patience });
            if !rests && !taken.contains(&entry.id) {
                if entry.bytes <= room {
                    room -= entry.bytes;
                    entry.patience = entry.patience.saturating_mul(2).min(MAX_PATIENCE);
                    next = now.plus(entry.patience);
                    let own = entry.account.is_own();
                    let list = if own { &mut overdue.own } else { &mut overdue.others };
                    list.push(Arc::clone(&entry.envelope));
                } else {
                    next = now.plus(SEND_PAUSE);
                }
            }
            entry.due = next;
            self.by_due.remove(&(at, arrival));
            self.by_due.insert((next, arrival));
        }
        overdue
    }

    /// When the next envelope is due to be sent on.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }
}

fn take<K: Ord>(used: &mut BTreeMap<K, Share>, by: K, bytes: usize) {
    let used = used.entry(by).or_default();
    used.envelopes += 1;
    used.bytes += bytes;
}

fn give_back<K: Ord>(used: &mut BTreeMap<K, Share>, by: K, bytes: usize) {
    if let btree_map::Entry::Occupied(mut used) = used.entry(by) {
        used.get_mut().envelopes -= 1;
        used.get_mut().bytes -= bytes;
        if used.get().envelopes == 0 {
            used.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Signature;
    use crate::transaction::{Expiry, Settings, Statement, Transaction};
    use crate::types::PublicKey;

    fn envelope(salt: u8, expiry: u64) -> Arc<Envelope> {
        let parameters = crate::transaction::Parameters::Positional(vec![]);
        let statement = Statement { sql: "SELECT 1".into(), parameters };
        Arc::new(Envelope {
            signer: PublicKey([1; 32]),
            expiry: Expiry { height: Height(expiry), time: Time(expiry * 1000) },
            transactions: vec![Transaction {
                salt: [salt; 16],
                user: "rota".into(),
                statements: vec![statement],
                settings: Settings::default(),
                interactive: None,
            }],
            signature: Signature([0; 64]),
        })
    }

    fn select(mempool: &Mempool, taken: &BTreeSet<EnvelopeId>, height: u64) -> Vec<u8> {
        mempool
            .select(taken, &Parameters::default(), 1 << 20, Height(height), Time(height))
            .iter()
            .map(|envelope| envelope.transactions[0].salt[0])
            .collect()
    }

    #[test]
    fn oldest_first_without_what_is_taken_final_or_expired() {
        let mut mempool = Mempool::new(4);
        let ids: Vec<EnvelopeId> = [10, 20, 30, 40]
            .iter()
            .enumerate()
            .map(|(i, &expiry)| {
                let salt = u8::try_from(i).unwrap();
                mempool
                    .insert(
                        envelope(salt, expiry),
                        Account::Own,
                        &Parameters::default(),
                        Instant(0),
                    )
                    .unwrap()
            })
            .collect();
        let taken = BTreeSet::from([ids[2]]);
        assert_eq!(select(&mempool, &taken, 11), [1, 3]);
        mempool.remove_final([ids[1]]);
        assert_eq!(select(&mempool, &taken, 11), [3]);
        assert_eq!(
            mempool.insert(envelope(1, 20), MEMBER, &Parameters::default(), Instant(0)),
            Err(NotTaken::Known),
            "a late copy of a final envelope"
        );
        assert_eq!(mempool.transactions(), 3);
        let gone = mempool.remove_expired(Height(31), Time(31_000));
        assert_eq!(gone.len(), 2, "the ones that expired at 10 and 30");
        let mut two = Arc::unwrap_or_clone(envelope(5, 40));
        two.transactions.extend(envelope(6, 40).transactions.clone());
        let two = Arc::new(two);
        mempool.insert(two, Account::Own, &Parameters::default(), Instant(0)).unwrap();
        assert_eq!(mempool.transactions(), 3, "one that was there, two in one envelope");
        mempool.remove_final([ids[3]]);
        assert_eq!(mempool.transactions(), 2);
        mempool.insert(envelope(7, 40), MEMBER, &Parameters::default(), Instant(0)).unwrap();
        assert_eq!((mempool.len(), mempool.transactions()), (2, 3));
    }

    #[test]
    fn overdue_envelopes_are_sent_to_all_ever_more_seldom() {
        let limits = Parameters { slot_timeout_ms: 300, ..Parameters::default() };
        let at = |milliseconds: u64| Instant(milliseconds * 1000);
        let mut mempool = Mempool::new(4);
        let id = mempool.insert(envelope(1, 9), Account::Own, &limits, at(0)).unwrap();
        mempool.insert(envelope(2, 9), MEMBER, &limits, at(0)).unwrap();
        let none = BTreeSet::new();
        assert!(mempool.take_overdue(&none, at(149), Time(0)).own.is_empty());
        let in_a_block = mempool.take_overdue(&BTreeSet::from([id]), at(150), Time(0));
        assert!(in_a_block.own.is_empty() && in_a_block.others.len() == 1);
        assert_eq!(mempool.take_overdue(&none, at(300), Time(0)).own.len(), 1);
        assert_eq!(mempool.next_overdue(), Some(at(450)), "the other one, after twice the time");
        assert_eq!(mempool.take_overdue(&none, at(450), Time(0)).others.len(), 1);
        assert_eq!(mempool.next_overdue(), Some(at(600)));
    }

    const MEMBER: Account = Account::Member(PublicKey([7; 32]));
    const OTHER_MEMBER: Account = Account::Member(PublicKey([8; 32]));
    const GUEST: Account = Account::Guest(PublicKey([7; 32]));
    const OTHER_GUEST: Account = Account::Guest(PublicKey([8; 32]));
    const PASSED_ON: Account = Account::PassedOn(PublicKey([7; 32]));

    /// Fills an account with small envelopes of so many signers in turn; how many were taken.
    fn flood(mempool: &mut Mempool, account: Account, signers: u64) -> usize {
        let mut taken = 0;
        for number in 0..(MAX_ENVELOPES + MAX_GUEST_ENVELOPES) as u64 {
            let mut envelope = Arc::unwrap_or_clone(envelope(1, 9));
            envelope.signer.0[..8].copy_from_slice(&(number % signers).to_le_bytes());
            envelope.transactions[0].salt[..8].copy_from_slice(&mempool.arrivals.to_le_bytes());
            envelope.transactions[0].user = format!("{account:?}");
            match mempool.insert(Arc::new(envelope), account, &Parameters::default(), Instant(0)) {
                Ok(_) => taken += 1,
                Err(why) => {
                    assert_eq!(why, NotTaken::Full);
                    break;
                }
            }
        }
        taken
    }

    #[test]
    fn where_blocks_are_found_what_stands_in_one_is_seldom_looked_at() {
        let limits = Parameters::default();
        let at = |milliseconds: u64| Instant(milliseconds * 1000);
        let mut mempool = Mempool::without_turns(4, Duration::from_secs(2));
        let mut ids = BTreeSet::new();
        for salt in 0..200_u8 {
            let now = at(u64::from(salt) * 5);
            ids.insert(mempool.insert(envelope(salt, 9), GUEST, &limits, now).unwrap());
        }
        let mut looks = 0;
        while let Some(due) = mempool.next_overdue().filter(|due| *due <= at(22_000)) {
            assert!(mempool.take_overdue(&ids, due, Time(0)).others.is_empty());
            looks += 1;
        }
        assert!(looks <= 4 * 21, "{looks} looks in twenty seconds, of one second's envelopes");
    }

    #[test]
    fn what_has_expired_is_not_told_again() {
        let limits = Parameters::default();
        let mut mempool = Mempool::without_turns(4, Duration::from_secs(2));
        mempool.insert(envelope(1, 9), Account::Own, &limits, Instant(0)).unwrap();
        mempool.insert(envelope(2, 99), Account::Own, &limits, Instant(0)).unwrap();
        let overdue = mempool.take_overdue(&BTreeSet::new(), Instant(2_000_000), Time(9_001));
        assert_eq!(overdue.own, [envelope(2, 99)]);
    }

    #[test]
    fn where_anybody_may_send_a_server_has_more_than_a_few_envelopes_on_their_way() {
        let mut mempool = Mempool::without_turns(32, Duration::from_secs(2));
        let neighbour = MAX_GUEST_ENVELOPES / 4;
        assert_eq!(flood(&mut mempool, GUEST, 1), neighbour / 4, "one key");
        assert_eq!(flood(&mut mempool, PASSED_ON, 100_000), neighbour);
    }

    #[test]
    fn where_anybody_may_send_whoever_has_most_makes_room() {
        let mut mempool = Mempool::without_turns(32, Duration::from_secs(2));
        let account = |number: u8| Account::Guest(PublicKey([number; 32]));
        for number in 0..4 {
            assert_eq!(flood(&mut mempool, account(number), 100_000), MAX_GUEST_ENVELOPES / 4);
        }
        assert_eq!(mempool.len(), MAX_GUEST_ENVELOPES, "it is full");
        let fair = MAX_GUEST_ENVELOPES / 5;
        assert!(flood(&mut mempool, account(9), 100_000) >= fair - 1, "as much as anybody has");
        assert_eq!(mempool.len(), MAX_GUEST_ENVELOPES);
        let own = flood(&mut mempool, Account::OwnGuest, 100_000);
        assert!(own >= MAX_GUEST_ENVELOPES / 6 - 1, "{own}");
    }

    #[test]
    fn a_flood_leaves_room_in_blocks_for_everybody_else() {
        let limits = Parameters::default();
        let mut mempool = Mempool::new(4);
        flood(&mut mempool, GUEST, 100_000);
        flood(&mut mempool, MEMBER, 1);
        let late = [envelope(201, 9), envelope(202, 9), envelope(203, 9)];
        for (envelope, account) in late.iter().zip([Account::Own, OTHER_MEMBER, OTHER_GUEST]) {
            mempool.insert(Arc::clone(envelope), account, &limits, Instant(0)).unwrap();
        }
        let room = 20 * encode(&*late[0]).len();
        let block = mempool.select(&BTreeSet::new(), &limits, room, Height(1), Time(1));
        assert!(block.len() >= 12, "it is filled");
        assert!(late.iter().all(|envelope| block.contains(envelope)));
    }

    #[test]
    fn the_oldest_of_all_is_in_one_of_two_blocks_however_large() {
        let limits = Parameters::default();
        let mut mempool = Mempool::new(4);
        let mut large = Arc::unwrap_or_clone(envelope(200, 9));
        large.transactions[0].statements[0].sql = "x".repeat(2_900_000);
        let large = Arc::new(large);
        mempool.insert(Arc::clone(&large), GUEST, &limits, Instant(0)).unwrap();
        flood(&mut mempool, MEMBER, 1);
        flood(&mut mempool, Account::Own, 1);
        let block = mempool.select(&BTreeSet::new(), &limits, 3_000_000, Height(2), Time(1));
        assert!(block.contains(&large) && block.len() > 100);
    }

    #[test]
    fn where_a_block_holds_one_transaction_every_account_has_its_turn() {
        let limits = Parameters { block_transactions: 1, ..Parameters::default() };
        let mut mempool = Mempool::new(4);
        flood(&mut mempool, MEMBER, 1);
        let late = envelope(201, 99);
        mempool.insert(Arc::clone(&late), Account::Own, &limits, Instant(0)).unwrap();
        let turns = (1..=4).filter(|&height| {
            let none = BTreeSet::new();
            let block = mempool.select(&none, &limits, 1 << 20, Height(height), Time(height));
            block == [Arc::clone(&late)]
        });
        assert_eq!(turns.count(), 1);
    }

    #[test]
    fn a_peer_cannot_shut_out_the_others() {
        let mut mempool = Mempool::new(4);
        assert_eq!(flood(&mut mempool, MEMBER, 1), MAX_ENVELOPES / 8);
        assert_eq!(flood(&mut mempool, OTHER_MEMBER, 1), MAX_ENVELOPES / 8, "a share of its own");
        assert_eq!(flood(&mut mempool, Account::Own, 1), MAX_ENVELOPES / 2);
    }

    #[test]
    fn a_thousand_fresh_keys_take_no_more_than_the_part_of_the_member_that_forwards_them() {
        let mut mempool = Mempool::new(4);
        let part = MAX_GUEST_ENVELOPES / 16;
        assert_eq!(flood(&mut mempool, GUEST, 100_000), part);
        assert_eq!(flood(&mut mempool, PASSED_ON, 100_000), part, "apart from its own clients'");
        assert_eq!(flood(&mut mempool, OTHER_GUEST, 100_000), part, "another member's");
        assert_eq!(flood(&mut mempool, MEMBER, 1), MAX_ENVELOPES / 8, "members' are apart");
        assert_eq!(flood(&mut mempool, Account::OwnGuest, 100_000), MAX_GUEST_ENVELOPES / 2);
        assert_eq!(flood(&mut mempool, Account::Own, 1), MAX_ENVELOPES / 2);
        let all = mempool.by_id.keys().copied().collect::<Vec<_>>();
        mempool.remove_final(all);
        assert!(mempool.used.is_empty() && mempool.used_by_key.is_empty(), "no trace of the keys");
        assert_eq!(flood(&mut mempool, GUEST, 1), part / 8, "room again, but not all for one key");
    }

    #[test]
    fn with_many_members_the_largest_envelope_still_finds_room_once_for_each_account() {
        let mut mempool = Mempool::new(64);
        let limits = Parameters::default();
        let large = |salt: u8| {
            let mut envelope = Arc::unwrap_or_clone(envelope(salt, 9));
            envelope.transactions[0].statements[0].sql = "x".repeat(2_900_000);
            Arc::new(envelope)
        };
        for (salt, account) in (0..).zip([MEMBER, GUEST, PASSED_ON]) {
            let mut insert = |salt| mempool.insert(large(salt), account, &limits, Instant(0));
            assert!(insert(salt).is_ok(), "{account:?}");
            assert_eq!(insert(salt + 10), Err(NotTaken::Full), "{account:?}");
        }
    }
}
