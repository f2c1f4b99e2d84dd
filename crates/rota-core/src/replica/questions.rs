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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::block::{Applied, Block, Finality};
    use crate::crypto::SecretKey;
    use crate::four_members::{genesis, key};
    use crate::journal::Recovered;
    use crate::message::{FinalBlocks, Message, Recipient};
    use crate::replica::Input;
    use crate::replica::tests::{block, finalization};
    use crate::time::Now;
    use crate::types::{BlockId, StateRoot};

    /// Member 2, a follower of it, and the next block of its chain.
    struct Bench {
        replica: Replica,
        now: Now,
        newest: BlockId,
        height: u64,
    }

    fn follower() -> NodeId {
        SecretKey::from_bytes([99; 32]).public()
    }

    impl Bench {
        fn new() -> Self {
            let now = Now { instant: Instant(1_000_000), ..Now::default() };
            let state = Applied { height: Height(0), root: StateRoot([1; 32]) };
            let (replica, _) =
                Replica::new(&genesis(), key(2), Recovered::default(), state, now).unwrap();
            let newest = Block::genesis(&genesis()).id(genesis().chain_id());
            Self { replica, now, newest, height: 0 }
        }

        fn hear(&mut self, from: NodeId, message: Message) -> Vec<Output> {
            self.replica.step(self.now, Input::Message { from, message })
        }

        fn asks(&mut self, height: u64) -> Vec<Output> {
            self.hear(follower(), Message::Fetch(Fetch::FinalAfter(Height(height))))
        }

        /// The next block becomes final; what the follower is answered then.
        fn finalize(&mut self) -> Vec<Fetch> {
            self.height += 1;
            let chain = genesis().chain_id();
            let next = block(self.height, self.newest, None, Applied::default());
            self.newest = next.id(chain);
            let finality = Finality::Votes(finalization(chain, &next));
            let blocks = FinalBlocks { blocks: vec![Arc::new(next)], finality };
            served(self.hear(key(0).public(), Message::Final(blocks)))
        }
    }

    fn served(outputs: Vec<Output>) -> Vec<Fetch> {
        let answers = outputs.into_iter().filter_map(|output| match output {
            Output::Serve { to, fetch } if to == follower() => Some(fetch),
            _ => None,
        });
        answers.collect()
    }

    #[test]
    fn who_has_all_there_is_hears_of_the_next_block_once_it_is_final() {
        let mut bench = Bench::new();
        assert_eq!(served(bench.asks(0)), []);
        assert_eq!(bench.finalize(), [Fetch::FinalAfter(Height(0))]);
        assert_eq!(bench.finalize(), [], "once");
        assert_eq!(served(bench.asks(1)), [Fetch::FinalAfter(Height(1))], "there is more already");
        bench.asks(2);
        bench.asks(2);
        assert_eq!(bench.finalize().len(), 1, "one question of each");
    }

    #[test]
    fn an_old_question_is_forgotten() {
        let mut bench = Bench::new();
        bench.asks(0);
        bench.now.instant = bench.now.instant.plus(Duration::from_millis(300) * PATIENCE_SLOTS);
        assert_eq!(bench.finalize(), []);
    }

    #[test]
    fn a_question_from_further_ahead_waits_until_there_is_an_answer() {
        let mut bench = Bench::new();
        bench.asks(1);
        assert_eq!(bench.finalize(), []);
        assert_eq!(bench.finalize(), [Fetch::FinalAfter(Height(1))]);
    }

    #[test]
    fn nothing_that_a_follower_says_counts_and_it_is_told_nothing_unasked() {
        let mut bench = Bench::new();
        let chain = genesis().chain_id();
        let next = block(1, bench.newest, None, Applied::default());
        let finality = Finality::Votes(finalization(chain, &next));
        let blocks = FinalBlocks { blocks: vec![Arc::new(next)], finality };
        bench.hear(follower(), Message::Final(blocks));
        assert_eq!(bench.replica.status(bench.now).height, Height(0));
        let outputs = bench.replica.step(bench.now, Input::Connected(follower()));
        let told = outputs.iter().any(|output| {
            matches!(output, Output::Send { to: Recipient::One(to), .. } if *to == follower())
        });
        assert!(!told, "{outputs:?}");
    }
}
