//! The genesis: everything that the servers of one database must have in common before the first
//! block. Its hash is the [`ChainId`], which every signature covers.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::codec::encode;
use crate::members::{Member, Members};
use crate::time::Time;
use crate::types::{ChainId, Digest, PublicKey};

/// The version of everything that is signed, hashed or encoded. A server with another one does not
/// start.
pub const FORMAT: u16 = 3;

/// The last millisecond of the year 9999, where SQLite's dates end.
pub const MAX_TIME_MS: u64 = 253_402_300_799_999;

/// How the members agree whose turn it is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Proof of authority: a round-robin over known members, finality by votes.
    Poa,
}

/// What the servers of one database have in common.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Genesis {
    /// [`FORMAT`].
    pub format: u16,
    /// A name for people.
    pub name: String,
    /// The first block's time is later than this (milliseconds since 1970).
    pub time_ms: u64,
    /// The first epoch's method.
    pub method: Method,
    /// The first epoch's seed, for methods that draw.
    pub seed: Digest,
    /// Whether servers may sign what else needs a client's own key.
    pub trusted_servers: bool,
    /// SQLite's source id and our compile flags (rota-store's `sqlite::identity`): plans, and so
    /// results, depend on them.
    pub sqlite: String,
    /// The knobs.
    pub parameters: Parameters,
    /// The first epoch's members. Their order is the round-robin's.
    pub members: Vec<Member>,
    /// The first users, who may do everything: at least one.
    pub administrators: Vec<Administrator>,
}

/// A user that there is from the beginning, and who may do everything.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Administrator {
    /// As it logs in.
    pub name: String,
    /// With this key it signs for itself.
    #[serde(default)]
    pub key: Option<PublicKey>,
    /// What tells whether a password is its own (`rota_store::access::Verifier`); any member then
    /// signs for whoever knows it.
    #[serde(default)]
    pub verifier: Option<String>,
}

impl Administrator {
    /// One without password and key: any member may sign for it.
    pub fn open(name: &str) -> Self {
        Self { name: name.into(), key: None, verifier: None }
    }
}

/// How long one server leads, how much it decides, and what a transaction may cost. Durations in
/// milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// Consecutive slots per leader: short turns spread power, long ones spare hand-overs.
    pub turn_length: u64,
    /// How long a member waits for a slot's block to be notarized before it votes to skip the slot.
    pub slot_timeout_ms: u64,
    /// With nothing to do, a block comes this often.
    pub idle_ms: u64,
    /// The largest encoded block.
    pub block_bytes: u32,
    /// The most transactions in a block.
    pub block_transactions: u32,
    /// A block this far ahead of the agreed applied height may hold no transactions: back-pressure.
    pub lag: u64,
    /// The most virtual-machine steps of SQLite's that one transaction may take.
    pub transaction_steps: u64,
    /// The most that all transactions of a block may take together.
    pub block_steps: u64,
    /// The most bytes of rows that one transaction may change.
    pub transaction_bytes: u64,
    /// The most bytes of rows that all transactions of a block may change together.
    pub block_change_bytes: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            turn_length: 4,
            slot_timeout_ms: 300,
            idle_ms: 60_000,
            block_bytes: 4 << 20,
            block_transactions: 10_000,
            lag: 64,
            transaction_steps: 20_000_000,
            block_steps: 100_000_000,
            transaction_bytes: 256 << 20,
            block_change_bytes: 256 << 20,
        }
    }
}

impl Parameters {
    /// `slot_timeout_ms` as a duration.
    pub fn slot_timeout(&self) -> Duration {
        Duration::from_millis(self.slot_timeout_ms)
    }

    /// `idle_ms` as a duration.
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

impl Genesis {
    /// Which database this is.
    pub fn chain_id(&self) -> ChainId {
        ChainId(rota_hash::hash("rota genesis", &[&encode(self)]))
    }

    /// The date in it.
    pub fn time(&self) -> Time {
        Time(self.time_ms)
    }

    /// The first epoch's members, or what is wrong with this genesis.
    pub fn check(&self) -> Result<Members, String> {
        let p = &self.parameters;
        let knobs = [
            ("turn_length", p.turn_length, 1, 1_000_000),
            ("slot_timeout_ms", p.slot_timeout_ms, 10, 600_000),
            ("idle_ms", p.idle_ms, 100, 3_600_000),
            ("block_bytes", p.block_bytes.into(), 64 << 10, 16 << 20),
            ("block_transactions", p.block_transactions.into(), 1, 1_000_000),
            ("lag", p.lag, 4, 10_000),
            ("transaction_steps", p.transaction_steps, 10_000, u64::MAX / 4),
            ("block_steps", p.block_steps, p.transaction_steps, u64::MAX / 4),
            ("transaction_bytes", p.transaction_bytes, 64 << 10, u64::MAX / 4),
            ("block_change_bytes", p.block_change_bytes, p.transaction_bytes, u64::MAX / 4),
        ];
        if self.format != FORMAT {
            return Err(format!("format {}; this program has format {FORMAT}", self.format));
        }
        if self.time_ms > MAX_TIME_MS {
            return Err(format!("time_ms is {}; that is after the year 9999", self.time_ms));
        }
        for (name, value, least, most) in knobs {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} is {value}; it must be from {least} to {most}"));
            }
        }
        if self.administrators.is_empty() {
            return Err("administrators is empty; nobody could do anything".into());
        }
        for administrator in &self.administrators {
            let is_own = |member: &Member| Some(member.key) == administrator.key;
            // Its member would sign for it, unasked: a server's key is for what servers do.
            if let Some(member) = self.members.iter().position(is_own) {
                return Err(format!(
                    "administrator {} has the key of members[{member}]; it must have one of its \
                     own (rota keys new)",
                    administrator.name
                ));
            }
        }
        Members::new(self.members.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKey;

    #[test]
    fn no_administrator_has_the_key_of_a_member() {
        let [own, member] = [1, 2].map(|byte| SecretKey::from_bytes([byte; 32]).public());
        let genesis = |key| Genesis {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1,
            method: Method::Poa,
            seed: Digest([7; 32]),
            trusted_servers: false,
            sqlite: String::new(),
            parameters: Parameters::default(),
            members: vec![Member { key: member, weight: 1 }],
            administrators: vec![Administrator { key: Some(key), ..Administrator::open("root") }],
        };
        assert!(genesis(own).check().is_ok());
        let wrong = genesis(member).check().unwrap_err();
        assert!(wrong.starts_with("administrator root has the key of members[0]"), "{wrong}");
    }
}
