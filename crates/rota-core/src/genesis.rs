//! The genesis: everything that the servers of one database must have in common before the first
//! block. Its hash is the [`ChainId`], which every signature covers.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::codec::encode;
use crate::members::{Member, Members};
use crate::time::Time;
use crate::types::{ChainId, Digest, Height, PublicKey};
use crate::work::{Anchor, Difficulty, Retarget, Unusable};

/// The version of everything that is signed, hashed or encoded. A server with another one does not
/// start.
pub const FORMAT: u16 = 5;

/// The largest reward and fee: balances are SQLite integers, and 2⁶³ of the smallest unit are not
/// found in a million blocks.
pub const MAX_REWARD: u64 = 1 << 40;

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
    /// Raft: one leader, elected by a majority of members that trust each other, for a term.
    Raft,
    /// Proof of work: whoever finds the hash; anybody may. Final by depth.
    Pow,
}

impl Method {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poa => "poa",
            Self::Raft => "raft",
            Self::Pow => "pow",
        }
    }

    /// Whether only members take part, so that others are not let in.
    pub fn is_closed(self) -> bool {
        self != Self::Pow
    }
}

/// What the servers of a `pow` database have in common beside the rest.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pow {
    /// The time between two blocks that the difficulty is kept at, in seconds.
    pub spacing_s: u32,
    /// The first block's target, and the easiest there may be, in Bitcoin's compact form.
    pub bits: u32,
    /// How the target follows the pace of blocks.
    pub retarget: Retarget,
    /// So many blocks deep is final (`k`): up to a probability, see `work::reversal_bound`.
    pub depth: u32,
    /// What the finder of a block is paid, in the smallest unit.
    pub reward: u64,
    /// What a transaction costs its signer for each started kilobyte (1,000 bytes), paid to the
    /// finder of its block. With 0, writing needs a grant.
    pub fee_per_kb: u64,
}

impl Default for Pow {
    /// A development cluster's.
    fn default() -> Self {
        Self {
            spacing_s: 2,
            bits: 0x1e04_0000,
            retarget: Retarget::Asert { halflife_s: 576 },
            depth: 6,
            reward: 50_000_000,
            fee_per_kb: 0,
        }
    }
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
    /// What `pow` needs to know; with another method there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pow: Option<Pow>,
    /// The first epoch's members. Their order is the round-robin's. None under `pow`.
    #[serde(default)]
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
    /// How far ahead of a block's time an envelope's expiry may lie: transaction ids are remembered
    /// that long.
    pub max_expiry_ms: u64,
    /// A copy of the state, for servers that are far behind, is made after each so many blocks.
    pub snapshot_blocks: u64,
    /// `raft`: how often a leader is heard of.
    pub heartbeat_ms: u64,
    /// `raft`: who has not heard of a leader for so long, and some more that differs from member to
    /// member, stands for election.
    pub election_ms: u64,
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
            max_expiry_ms: 3_600_000,
            snapshot_blocks: 10_000,
            heartbeat_ms: 50,
            election_ms: 200,
        }
    }
}

impl Parameters {
    /// `slot_timeout_ms` as a duration.
    pub fn slot_timeout(&self) -> Duration {
        Duration::from_millis(self.slot_timeout_ms)
    }

    /// `max_expiry_ms` as a duration.
    pub fn max_expiry(&self) -> Duration {
        Duration::from_millis(self.max_expiry_ms)
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
            ("max_expiry_ms", p.max_expiry_ms, 60_000, 30 * 86_400_000),
            ("snapshot_blocks", p.snapshot_blocks, 10, 1_000_000_000),
            ("heartbeat_ms", p.heartbeat_ms, 10, 10_000),
            ("election_ms", p.election_ms, p.heartbeat_ms.saturating_mul(2), 600_000),
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
        self.check_method()
    }

    /// The members, or what does not go with the method.
    fn check_method(&self) -> Result<Members, String> {
        match (self.method, &self.pow) {
            (Method::Pow, Some(pow)) => {
                pow.check()?;
                if !self.members.is_empty() {
                    return Err("members are listed; under pow there are none".into());
                }
                self.check_no_verifier()?;
                Ok(Members::none())
            }
            (Method::Pow, None) => Err("pow is missing: spacing_s, bits, depth and so on".into()),
            (method, Some(_)) => Err(format!("pow is given, but the method is {}", method.name())),
            (Method::Poa | Method::Raft, None) => Members::new(self.members.clone()),
        }
    }
}

impl Genesis {
    /// Whoever joins gets the genesis: a verifier in it would let anybody try passwords at leisure,
    /// and take one that is found to every server.
    fn check_no_verifier(&self) -> Result<(), String> {
        match self.administrators.iter().find(|one| one.verifier.is_some()) {
            None => Ok(()),
            Some(one) => Err(format!(
                "administrator {} has a verifier; under pow everybody reads this file, so \
                 administrators have keys only",
                one.name
            )),
        }
    }
}

impl Pow {
    fn check(&self) -> Result<(), String> {
        let knobs = [
            ("pow.spacing_s", u64::from(self.spacing_s), 1, 86_400),
            ("pow.depth", u64::from(self.depth), 1, 10_000),
            ("pow.reward", self.reward, 0, MAX_REWARD),
            ("pow.fee_per_kb", self.fee_per_kb, 0, MAX_REWARD),
        ];
        for (name, value, least, most) in knobs {
            if !(least..=most).contains(&value) {
                return Err(format!("{name} is {value}; it must be from {least} to {most}"));
            }
        }
        self.difficulty(0).map(drop).map_err(|wrong| format!("pow: {wrong}"))
    }

    /// How hard blocks are, with a first one that is due a spacing after `time_s` (seconds since
    /// 1970).
    pub fn difficulty(&self, time_s: u32) -> Result<Difficulty, Unusable> {
        let parent_time = time_s.saturating_sub(self.spacing_s);
        let anchor = Anchor { height: Height(0), parent_time, bits: self.bits };
        Difficulty::new(self.retarget, self.spacing_s, self.bits, anchor)
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
            pow: None,
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

    #[test]
    fn an_open_genesis_tells_nothing_to_try_passwords_on() {
        let key = Some(SecretKey::from_bytes([1; 32]).public());
        let genesis = |verifier| Genesis {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1,
            method: Method::Pow,
            seed: Digest([7; 32]),
            pow: Some(Pow::default()),
            trusted_servers: false,
            sqlite: String::new(),
            parameters: Parameters::default(),
            members: Vec::new(),
            administrators: vec![Administrator { name: "root".into(), key, verifier }],
        };
        assert!(genesis(None).check().is_ok());
        let wrong = genesis(Some("SCRAM-SHA-256$4096:…".into())).check().unwrap_err();
        assert!(wrong.starts_with("administrator root has a verifier"), "{wrong}");
    }
}
