//! What a server tells people and programs about itself: HTTP's `/status`, `rota status`, `rota
//! dev`'s live line.

use std::net::SocketAddr;

use rota_core::block::Applied;
use rota_core::types::{NodeId, StateRoot};
use serde::{Deserialize, Serialize};

/// How many of the newest heights' roots are told: enough for servers asked one after the other,
/// some seconds and hundreds of blocks apart, to have a height in common.
pub const ROOTS_TOLD: usize = 256;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
