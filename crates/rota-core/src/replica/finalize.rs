//! Step 7: blocks can no longer change. Only now does anything reach the database; and what a final
//! header says of the executed state is compared with ours.

use std::sync::Arc;

use super::{Output, Replica};
use crate::block::{Applied, Block};
use crate::consensus::Event;
use crate::error::{Refusal, sqlstate};
use crate::genesis::Method;
use crate::mempool::Account;

impl Replica {
    /// Carries out `Action::Finalize`; its record is on disk before the blocks are executed.
    pub(super) fn finalize(&mut self, blocks: Vec<Arc<Block>>) {
        for block in blocks {
            let header = block.header.clone();
            let known = self.chain.finalize(Arc::clone(&block));
            let full = !known.envelopes.is_empty();
            let envelopes = Arc::clone(&known.envelopes);
            self.mempool.remove_final(envelopes.iter().copied());
            self.barriers.finalized(header.height, &envelopes);
            if full {
                self.last_full = header.height;
            }
            self.unfinal.executing(Arc::clone(&block));
            self.outputs.push(Output::Apply(block));
            self.compare_final(header.applied);
        }
        self.final_at = self.now.instant;
        self.answer_questions();
        self.drop_expired();
    }

    /// Carries out `Action::Abandon`: what was in these blocks waits again, unless it has expired
    /// or stands in another block.
    pub(super) fn abandon(&mut self, blocks: &[Arc<Block>]) {
        if self.method == Method::Raft {
            // They are in nobody's log that counts: the leader is told of what was in them.
            blocks.iter().for_each(|block| self.chain.remove(block.id(self.chain_id)));
            self.sent_to.clear();
        }
        let (limits, now) = (&self.parameters, self.now.instant);
        let last = &self.chain.last().block.header;
        for envelope in blocks.iter().flat_map(|block| &block.body.envelopes) {
            let own = envelope.signer == self.me;
            let account = if own { Account::Own } else { Account::OwnGuest };
            if !envelope.expiry.has_passed(last.height, last.time) {
                // Most are still there: only what is final leaves the mempool.
                let _ = self.mempool.insert(Arc::clone(envelope), account, limits, now);
            }
        }
        self.tell_load();
    }

    fn drop_expired(&mut self) {
        let last = &self.chain.last().block.header;
        let expired = self.mempool.remove_expired(last.height, last.time);
        for envelope in expired {
            let why = "the write did not enter a block in time: nothing was changed; try again";
            self.drop_own(&envelope, Refusal::new(sqlstate::BUSY, why));
        }
    }

    /// The executor has finished a block.
    pub(super) fn on_applied(&mut self, applied: Applied) {
        self.applied = applied;
        self.unfinal.executed(applied.height);
        self.roots.insert(applied.height, applied.root);
        if let Some(agreed) = self.awaited.remove(&applied.height) {
            self.compare_final(Applied { height: applied.height, root: agreed });
        }
        // Headers to come name no lower height than the last final one's.
        let lowest = self.chain.last().block.header.applied.height;
        self.roots = self.roots.split_off(&lowest.min(applied.height));
        self.events.push_back(Event::Applied(applied));
        self.validate_postponed();
    }

    /// A root that differs from one leader's is that leader's fault; one that differs from a final
    /// header's is ours.
    fn compare_final(&mut self, agreed: Applied) {
        if agreed.height > self.applied.height {
            self.awaited.insert(agreed.height, agreed.root);
            return;
        }
        if let Some(&ours) = self.roots.get(&agreed.height)
            && ours != agreed.root
        {
            let (height, agreed) = (agreed.height, agreed.root);
            self.outputs.push(Output::Diverged { height, agreed, ours });
        }
    }
}
