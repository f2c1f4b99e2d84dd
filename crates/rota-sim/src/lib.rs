//! Rota's simulator: many servers in one thread, in virtual time, every surprise drawn from a seed.
//!
//! ```text
//!   real        rota-core's Replica   rota-store's Host, ChainDb, StateDb (SQLite)   signatures
//!   simulated   time   clocks   network   crashes and what they lose   clients   liars
//!
//!   event ──► a server's inbox ──► Host::handle ──► effects ──► network, executor ──► event …
//!                                      └── every effect passes the monitor's eyes (`check`)
//! ```
//!
//! A run is a [`scenario::Plan`] made from a name and a seed; the same plan gives the same events,
//! byte by byte. What a crash loses is decided here: an append in progress is lost wholly, kept
//! wholly, or (where the method does not count on it being one) cut between two records; what was
//! only noted is lost with it; `state.db` may come back as it was some blocks ago. Bytes and
//! sectors are left to later versions.
//!
//! Under `pow` nonces are really searched, at a low difficulty ([`mining`]): how many it took, over
//! the server's hash rate, is how long it took.

pub mod anew;
mod beginning;
pub mod check;
pub mod clients;
mod delivery;
pub mod disk;
mod doors;
mod ending;
pub mod experiments;
mod faults;
pub mod liar;
pub mod mining;
pub mod network;
pub mod random;
pub mod readers;
pub mod scenario;
mod server;
pub mod trace;
pub mod world;

use std::collections::BTreeMap;

pub use scenario::{Plan, SCENARIOS};
pub use world::{Outcome, World};

/// Virtual time since the run began, in microseconds.
pub type Micros = u64;

/// A second of it.
pub const SECOND: Micros = 1_000_000;

/// A kind of fault, to be drawn and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A server stopped between two steps.
    Crash,
    /// A server stopped between two outputs of one step.
    CrashAtOutput,
    /// All servers stopped at once.
    CrashAll,
    /// A server did nothing for a while.
    Freeze,
    /// Appends took long.
    SlowDisk,
    /// Executing blocks took long.
    SlowApply,
    /// The servers were parted in two.
    Partition,
    /// One direction of a link was cut.
    OneWay,
    /// A wall clock jumped.
    ClockJump,
    /// A message met a cut link.
    Cut,
    /// A message was lost.
    Loss,
    /// A message came twice.
    Duplicate,
    /// A message was overtaken.
    Hold,
    /// A crash lost an append, or its end.
    LostRecords,
    /// A crash came after an append and before what was to be sent.
    KeptRecords,
    /// `state.db` came back as it was some blocks ago.
    OldState,
    /// `state.db` did not come back.
    NoState,
    /// The files came back as a killed process leaves them, with their write-ahead logs.
    Killed,
    /// A liar's message differed from what its replica said.
    Lie,
    /// A message was refused by its receiver's checks.
    Refused,
    /// A client asked a second server.
    Retry,
    /// A server dropped a client's transaction.
    Dropped,
    /// A slot was skipped.
    SkippedSlot,
    /// A linearizable read was refused.
    ReadRefused,
    /// A linearizable read waited for a transaction of its server's own.
    ReadByWrite,
    /// A miner's hash rate changed.
    HashRate,
    /// A search was given up for another one.
    NewSearch,
    /// A block was found.
    Found,
    /// A peer was kept out for what it had sent.
    Punished,
    /// A message met a link that was closed as a punishment.
    KeptOut,
    /// A branch was left for a heavier one.
    Reorganised,
    /// Blocks that were final were undone.
    Rewound,
    /// A server took over a snapshot.
    Restored,
    /// A record that was only noted was lost by a crash.
    LostNote,
    /// A block was executed before it was final.
    Ahead,
    /// Another block than the one that was executed ahead became final.
    Replaced,
    /// A block that was executed was not committed at once.
    Held,
}

impl Fault {
    /// Every kind that a swarm of `poa` must meet.
    pub const POA: [Self; 25] = [
        Self::Crash,
        Self::CrashAtOutput,
        Self::CrashAll,
        Self::Freeze,
        Self::SlowDisk,
        Self::SlowApply,
        Self::Partition,
        Self::OneWay,
        Self::ClockJump,
        Self::Cut,
        Self::Loss,
        Self::Duplicate,
        Self::Hold,
        Self::LostRecords,
        Self::KeptRecords,
        Self::OldState,
        Self::NoState,
        Self::Killed,
        Self::Lie,
        Self::Refused,
        Self::Retry,
        Self::Dropped,
        Self::SkippedSlot,
        Self::ReadRefused,
        Self::ReadByWrite,
    ];

    /// Every kind that a swarm of `raft` must meet.
    pub const RAFT: [Self; 22] = [
        Self::Crash,
        Self::CrashAtOutput,
        Self::CrashAll,
        Self::Freeze,
        Self::SlowDisk,
        Self::SlowApply,
        Self::Partition,
        Self::OneWay,
        Self::ClockJump,
        Self::Cut,
        Self::Loss,
        Self::Duplicate,
        Self::Hold,
        Self::LostRecords,
        Self::KeptRecords,
        Self::OldState,
        Self::Killed,
        Self::Retry,
        Self::ReadRefused,
        Self::Ahead,
        Self::Replaced,
        Self::Held,
    ];

    /// Every kind that a swarm of `pow` must meet.
    pub const POW: [Self; 18] = [
        Self::Crash,
        Self::CrashAtOutput,
        Self::Freeze,
        Self::SlowDisk,
        Self::Partition,
        Self::ClockJump,
        Self::Cut,
        Self::Loss,
        Self::Duplicate,
        Self::Hold,
        Self::LostRecords,
        Self::Lie,
        Self::Refused,
        Self::HashRate,
        Self::NewSearch,
        Self::Found,
        Self::Punished,
        Self::KeptOut,
    ];
}

/// How often each fault was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<Fault, u64>);

impl Counters {
    /// Once more.
    pub fn count(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    /// How often.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// So many times more.
    pub fn count_many(&mut self, fault: Fault, times: u64) {
        if times > 0 {
            *self.0.entry(fault).or_default() += times;
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (&fault, &times) in &other.0 {
            *self.0.entry(fault).or_default() += times;
        }
    }

    /// All that were met.
    pub fn iter(&self) -> impl Iterator<Item = (Fault, u64)> {
        self.0.iter().map(|(&fault, &times)| (fault, times))
    }
}
