//! Step 4: it is our turn, fill a block.

use std::sync::Arc;

use super::Replica;
use crate::block::{Applied, Block, Body, Header, Kind, Turn};
use crate::consensus::{Build, Event};
use crate::time::Time;
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
        let time = wanted.time.max(Time(parent.time.0.saturating_add(1)));
        let applied = self.agreed_state(parent.applied, wanted.reached);
        let lags = height.0.saturating_sub(applied.height.0) > self.parameters.lag;
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
            leader: self.member?,
            turn: Turn::Scheduled,
            time,
            applied,
            body: body.digest(),
        };
        Some(Block { header, body })
    }

    /// The greatest height that a quorum has reached, with our own root for it; the parent's word
    /// where we know no better.
    fn agreed_state(&self, parent: Applied, reached: Height) -> Applied {
        let height = reached.min(self.applied.height);
        match self.roots.get(&height) {
            Some(&root) if height > parent.height => Applied { height, root },
            _ => parent,
        }
    }
}
