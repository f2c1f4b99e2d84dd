//! What a server tells people and programs about itself: HTTP's `/status`, `rota status`, `rota
//! dev`'s live line.

use std::net::SocketAddr;

use rota_core::block::Applied;
use rota_core::consensus::Mining;
use rota_core::genesis::Method;
use rota_core::types::{Height, NodeId, StateRoot};
use rota_core::work::reversal_bound;
use serde::{Deserialize, Serialize};

/// How many of the newest heights' roots are told: enough for servers asked one after the other,
/// some seconds and hundreds of blocks apart, to have a height in common.
pub const ROOTS_TOLD: usize = 256;

/// For these shares of all work it is told how likely what is `k` deep is undone: one that a large
/// miner may have, and one that should make everybody else uneasy.
pub const REVERSAL_SHARES: [f64; 2] = [0.1, 0.3];

/// Whether a server can be used, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Reads and writes.
    #[serde(rename = "ready")]
    Ready,
    /// Reads, of an old state: blocks are being fetched or executed.
    #[serde(rename = "catching up")]
    CatchingUp,
    /// Reads only: too few members are connected.
    #[serde(rename = "no quorum")]
    NoQuorum,
    /// Neither: this server's state is not the cluster's.
    #[serde(rename = "diverged")]
    Diverged,
}

/// A server's word on itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: NodeId,
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Where PostgreSQL's protocol is spoken.
    pub pg: SocketAddr,
    /// Where HTTP is spoken.
    pub http: SocketAddr,
    /// Which database: the genesis's hash, in hex.
    pub chain: String,
    /// Whether it can be used.
    pub state: State,
    /// How it is found out whose turn it is.
    pub method: Method,
    /// This server's part in that. `poa`: `member`. `raft`: `leader`, `follower` or `candidate`.
    /// `pow`: `miner`, or `verifier` without mining. One that only reads along and has no vote is a
    /// `reader`.
    pub role: String,
    /// `raft`: the term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// `pow`: the best branch, and who works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkStatus>,
    /// The newest final block's height.
    pub height: u64,
    /// The current slot.
    pub slot: u64,
    /// The current epoch.
    pub epoch: u64,
    /// Whose turn it is, if that is known.
    pub leader: Option<Named>,
    /// What is executed here.
    pub applied: HeightRoot,
    /// What a quorum is known to have executed.
    pub agreed: HeightRoot,
    /// The newest final block's time, milliseconds since 1970.
    pub block_time: u64,
    /// Estimated date now, milliseconds since 1970.
    pub chain_time: u64,
    /// Final blocks that are not executed here yet.
    pub lag: u64,
    /// Envelopes waiting here to become final.
    pub pending: u64,
    /// The other members.
    pub peers: Vec<PeerStatus>,
    /// Transactions executed since this process started.
    pub transactions: u64,
    /// Blocks executed since this process started.
    pub blocks: u64,
    /// Flushes of `chain.db` since this process started.
    pub fsyncs: u64,
    /// Messages to peers dropped because a queue was full.
    pub dropped: u64,
    /// The roots of the newest heights executed by this process, oldest first: at most
    /// [`ROOTS_TOLD`].
    pub roots: Vec<HeightRoot>,
}

/// Where `pow` stands, as one server sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkStatus {
    /// The newest block's height.
    pub head: u64,
    /// The hash of its proof, as Bitcoin's programs write it.
    pub hash: String,
    /// So many blocks deep is final.
    pub depth: u32,
    /// All work in the best branch, in hashes: 64 hex digits, as Bitcoin's programs write it.
    pub work: String,
    /// The next block's target, in Bitcoin's compact form: 8 hex digits.
    pub bits: String,
    /// What everybody together hashes in a second, by the last blocks' targets and times.
    pub hash_rate: u64,
    /// What this server hashes in a second, as measured.
    pub own_hash_rate: u64,
    /// With so many threads.
    pub mine_threads: u32,
    /// Each of them for this percentage of a core's time.
    pub mine_share: u8,
    /// Blocks seen that are not on the best branch.
    pub stale: u64,
    /// Reorganisations since this server started.
    pub reorganisations: u64,
    /// How many blocks the deepest of them undid.
    pub deepest: u64,
    /// The height of the newest header of the branch with the most work: above `head` while its
    /// blocks are fetched and checked.
    #[serde(default)]
    pub headers: u64,
    /// About how high that branch is for those who have all of it: a block is due every spacing.
    #[serde(default)]
    pub due: u64,
    /// Why no write is acknowledged now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// How likely what is just final is undone, by what share of all work is against it.
    pub reversal: Vec<Reversal>,
}

/// How likely a block is undone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reversal {
    /// By somebody with this share of all work, 0 to 1.
    pub share: f64,
    /// With at most this probability, if all others hear of each other's blocks.
    pub bound: f64,
}

/// How deep a block is under `pow`, and how likely it is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// How many blocks there are on it: what has just become final has `k`.
    pub blocks: u32,
}

impl Depth {
    /// A block's of this height, under this head.
    pub fn of(height: Height, head: Height) -> Self {
        let blocks = head.0.saturating_sub(height.0);
        Self { blocks: u32::try_from(blocks).unwrap_or(u32::MAX) }
    }

    /// For [`REVERSAL_SHARES`].
    pub fn reversal(self) -> [Reversal; 2] {
        REVERSAL_SHARES.map(|share| Reversal { share, bound: reversal_bound(share, self.blocks) })
    }
}

impl Depth {
    /// As JSON has it beside a position: `depth` and `reversal`.
    pub(crate) fn members(self) -> serde_json::Map<String, serde_json::Value> {
        let members = serde_json::json!({ "depth": self.blocks, "reversal": self.reversal() });
        match members {
            serde_json::Value::Object(members) => members,
            _ => serde_json::Map::new(),
        }
    }
}

impl std::fmt::Display for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "depth {} reversal", self.blocks)?;
        self.reversal()
            .iter()
            .try_for_each(|Reversal { share, bound }| write!(f, " {share}:{bound:.1e}"))
    }
}

impl WorkStatus {
    /// Where the method stands, and what this server itself hashes in a second.
    pub(crate) fn new(mining: &Mining, own_hash_rate: u64, threads: u32, share: u8) -> Self {
        Self {
            head: mining.head.0,
            hash: mining.hash.to_string(),
            depth: mining.depth,
            work: mining.work.clone(),
            bits: format!("{:08x}", mining.bits),
            hash_rate: mining.hash_rate,
            own_hash_rate,
            mine_threads: threads,
            mine_share: share,
            stale: mining.stale,
            reorganisations: mining.reorganisations,
            deepest: mining.deepest,
            headers: mining.headers.0,
            due: mining.due.0,
            paused: mining.paused.clone(),
            reversal: Depth { blocks: mining.depth }.reversal().to_vec(),
        }
    }
}

/// A server by name and key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its number among the members, from 1.
    pub number: u64,
    /// Its key.
    pub key: NodeId,
}

/// Who led when, and by what right: the newest final blocks of one server (`GET /chain/leaders`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaders {
    /// How it is found out whose turn it is.
    pub method: Method,
    /// The servers that have names here, in their order.
    pub servers: Vec<Named>,
    /// Oldest first.
    pub blocks: Vec<Led>,
}

/// One turn that became a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// The block's height.
    pub height: u64,
    /// Its slot.
    pub slot: u64,
    /// Its time, milliseconds since 1970.
    pub time_ms: u64,
    /// Whose turn it was: a key, in hex.
    pub leader: String,
    /// By what right: `scheduled`, `term 3`, `work HASH BITS`.
    pub turn: String,
}

/// An executed state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeightRoot {
    /// The last block in it.
    pub height: u64,
    /// Its root, in hex.
    pub root: StateRoot,
}

impl From<Applied> for HeightRoot {
    fn from(applied: Applied) -> Self {
        Self { height: applied.height.0, root: applied.root }
    }
}

/// Another member, as this server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its number among the members, from 1.
    pub number: u64,
    /// Its key.
    pub key: NodeId,
    /// Its peer address.
    pub address: String,
    /// Where clients reach it over HTTP, if this server's settings say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Whether messages flow both ways.
    pub connected: bool,
}
