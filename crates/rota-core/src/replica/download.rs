//! Fetching a snapshot: what a server does that is too far behind for the others' blocks.
//!
//! ```text
//!   FinalAfter ──► Offer ──► Chunk, Chunk, … each compared with its hash ──► Restore
//! ```

use super::Replica;
use crate::message::Offer;
use crate::time::Instant;
use crate::types::{Height, NodeId};

/// The snapshot that is being fetched.
#[derive(Debug, Default)]
pub(super) struct Downloads {}

impl Downloads {
    /// When to ask again.
    pub fn wake(&self) -> Option<Instant> {
        None
    }
}

impl Replica {
    /// A peer offers a snapshot.
    pub(super) fn on_offer(&mut self, _from: NodeId, _offer: Offer) {}

    /// A piece has come.
    pub(super) fn on_chunk(
        &mut self,
        _from: NodeId,
        _height: Height,
        _number: u32,
        _bytes: Vec<u8>,
    ) {
    }

    /// Asks for what is missing.
    pub(super) fn look_after_downloads(&mut self) {}
}
