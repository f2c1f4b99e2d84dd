//! Step 4: it is our turn, fill a block.

use std::sync::Arc;

use super::Replica;
use crate::block::{Applied, Block, Body, Header, Kind};
use crate::consensus::{Build, Event, Naming};
use crate::genesis::Method;
use crate::types::Height;

impl Replica {
    /// Answers `Action::Build`.
    pub(super) fn build(&mut self, wanted: Build) {
        let slot = wanted.slot;
        let block = self.filled_block(wanted).map(Arc::new);
        self.events.push_back(Event::Built { slot, block });
    }

    /// The block, or `None` if it would be empty and need not be.
    fn filled_block(&self, wanted: Build) -> Option<Block> {
        let parent = &wanted.parent.header;
        let height = parent.height.next();
        let time = wanted.time;
        let applied = match wanted.applied {
            Naming::Reached(reached) => self.agreed_state(parent.applied, reached),
            Naming::Exactly(Height(0)) => Applied::default(),
            Naming::Exactly(height) => Applied { height, root: *self.roots.get(&height)? },
        };
        let lags = self.lags(height, applied);
        let envelopes = if wanted.must_be_empty || lags {
            Vec::new()
        } else {
            let taken = self.chain.envelopes_up_to(parent.id(self.chain_id));
            let room = self.parameters.block_bytes as usize;
            self.mempool.select(&taken, &self.parameters, room, height, time)
        };
        let waits = !self.mempool.is_empty() && wanted.must_be_empty;
        if envelopes.is_empty() && !wanted.may_be_empty && !waits {
            return None;
        }
        let body = Body { parent_certificate: wanted.parent_certificate, envelopes };
        let header = Header {
            epoch: parent.epoch,
            slot: wanted.slot,
            height,
            kind: Kind::Ordinary,
            parent: parent.id(self.chain_id),
            leader: self.member.unwrap_or_default(),
            turn: wanted.turn,
            time,
            applied,
            body: body.digest(),
        };
        Some(Block { header, body })
    }

    /// Whether execution lags so far behind that a block of this height may hold nothing. Under
    /// `pow` the height that is named is always as far behind.
    pub(super) fn lags(&self, height: Height, applied: Applied) -> bool {
        self.method != Method::Pow
            && height.0.saturating_sub(applied.height.0) > self.parameters.lag
    }

    /// The greatest height that a quorum has reached, with our own root for it; the parent's word
    /// where we know no better. No height of which snapshots are made is passed over: whoever takes
    /// over a snapshot needs a final header that names its root.
    fn agreed_state(&self, parent: Applied, reached: Height) -> Applied {
        let every = self.parameters.snapshot_blocks;
        let snapshot = (parent.height.0 / every).saturating_add(1).saturating_mul(every);
        let mut height = reached.min(self.applied.height);
        if height.0 > snapshot && self.roots.contains_key(&Height(snapshot)) {
            height = Height(snapshot);
        }
        match self.roots.get(&height) {
            Some(&root) if height > parent.height => Applied { height, root },
            _ => parent,
        }
    }
}
