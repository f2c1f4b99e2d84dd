//! Questions for blocks that are not there yet: a server that has all there is, and never votes,
//! hears of the next block as soon as it is final (between steps 7 and 8, for `consensus::follow`).
//!
//! ```text
//!   FinalAfter(h), h is our newest ──► remembered ──► a block is final ──► Serve
//! ```

use std::collections::BTreeMap;

use super::{Output, Replica};
use crate::message::Fetch;
use crate::time::Instant;
use crate::types::{Height, NodeId};

/// How many peers' questions are remembered, one of each: more than a cluster has servers. Whoever
/// is not remembered asks again after its time-out.
const MOST_QUESTIONS: usize = 256;

/// A question is forgotten after so many slot time-outs: who asked has turned to somebody else by
/// then (`follow::MAX_DOUBLINGS`).
const PATIENCE_SLOTS: u32 = 16;

/// What peers wait for.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<NodeId, (Height, Instant)>);

impl Replica {
    /// A peer asks for what comes after this height, which is not here yet.
    pub(super) fn remember_question(&mut self, from: NodeId, height: Height) {
        let now = self.now.instant;
        let questions = &mut self.questions.0;
        if questions.len() >= MOST_QUESTIONS && !questions.contains_key(&from) {
            questions.retain(|_, (_, until)| *until > now);
        }
        if questions.len() < MOST_QUESTIONS || questions.contains_key(&from) {
            let patience = self.parameters.slot_timeout().saturating_mul(PATIENCE_SLOTS);
            questions.insert(from, (height, now.plus(patience)));
        }
    }

    /// Blocks are final: answers those who wait for them.
    pub(super) fn answer_questions(&mut self) {
        let (now, last) = (self.now.instant, self.chain.last().block.header.height);
        let outputs = &mut self.outputs;
        self.questions.0.retain(|&to, &mut (height, until)| {
            if until > now && height < last {
                outputs.push(Output::Serve { to, fetch: Fetch::FinalAfter(height) });
            }
            until > now && height >= last
        });
    }
}
