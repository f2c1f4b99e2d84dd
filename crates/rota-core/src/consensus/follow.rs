//! A server that follows and never votes: a copy to read from, beside a closed method's members
//! (step 7). So does a member that has lost its log, and with it what it has voted for.
//!
//! ```text
//!   follower ── FinalAfter(h) ──► one member, which answers when the next block is final
//!            ◄── blocks, what makes the last one final ──
//! ```
//!
//! It takes a block for final by the same proof as a member: under `poa` a quorum's certificate,
//! which `verify` has checked; under `raft`, where members trust each other, a member's word. It
//! asks one member at a time, and the next one when no answer comes: nothing may be new, or that
//! member may be cut off, which from here look the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Consensus, Event, Head, Reads, Standing};
use crate::block::{Block, Finality};
use crate::crypto::SecretKey;
use crate::genesis::Genesis;
use crate::journal::{Record, Recovered};
use crate::members::Members;
use crate::message::{Fetch, FinalBlocks, Message, Recipient};
use crate::time::{Instant, Now};
use crate::types::{BlockId, ChainId, Height, NodeId, Slot};

/// The patience with a member that does not answer doubles so often at the most: to 16 slot
/// time-outs, some 5 seconds, which is how long a cut-off member can keep a follower from news.
pub const MAX_DOUBLINGS: u32 = 4;

/// The least time between two questions: a member answers fifty a second (`replica::ANSWERS`).
const PACE: Duration = Duration::from_millis(25);

/// An answer with no more blocks than this is news; more of them are what was missed.
const NEWS: usize = 2;

/// A server that follows and never votes.
pub struct Follow {
    chain: ChainId,
    /// Whom it asks: all members but itself.
    members: Vec<NodeId>,
    lag: u64,
    slot_timeout: Duration,
    now: Now,
    last: Last,
    applied: Height,
    connected: BTreeSet<NodeId>,
    /// Whose turn it is to be asked.
    turn: usize,
    /// How often nobody has answered.
    failures: u32,
    asked: Option<Asked>,
    /// Not before this.
    ask_at: Instant,
    live: bool,
    actions: Vec<Action>,
}

/// The last final block.
struct Last {
    id: BlockId,
    height: Height,
    slot: Slot,
}

/// The question that is open.
struct Asked {
    /// Whether the member heard it, as far as that can be known.
    was_connected: bool,
    until: Instant,
}

impl Last {
    fn new(chain: ChainId, block: &Block) -> Self {
        Self { id: block.id(chain), height: block.header.height, slot: block.header.slot }
    }
}

impl Follow {
    /// From its records.
    pub fn new(
        genesis: &Genesis,
        members: Members,
        key: SecretKey,
        recovered: Recovered,
        now: Now,
    ) -> Self {
        let (chain, me) = (genesis.chain_id(), key.public());
        let last = match &recovered.last {
            Some((block, _)) => Last::new(chain, block),
            None => Last::new(chain, &Block::genesis(genesis)),
        };
        let members: Vec<NodeId> =
            members.iter().map(|(_, member)| member.key).filter(|key| *key != me).collect();
        // Followers begin with different members.
        let turn = usize::from(me.0.first().copied().unwrap_or_default());
        Self {
            chain,
            members,
            lag: genesis.parameters.lag,
            slot_timeout: genesis.parameters.slot_timeout(),
            now,
            last,
            applied: Height(0),
            connected: BTreeSet::new(),
            turn,
            failures: 0,
            asked: None,
            ask_at: now.instant,
            live: false,
            actions: Vec::new(),
        }
    }

    fn on_final(&mut self, from: NodeId, answer: FinalBlocks) {
        let is_proven = matches!(answer.finality, Finality::Votes(_) | Finality::Log { .. });
        if !is_proven || !self.members.contains(&from) {
            return;
        }
        let FinalBlocks { blocks, finality } = answer;
        let height = self.last.height;
        let news: Vec<Arc<Block>> =
            blocks.into_iter().filter(|block| block.header.height > height).collect();
        let (Some(first), Some(last)) = (news.first(), news.last()) else { return };
        let follows = first.header.parent == self.last.id && first.header.height == height.next();
        if !follows {
            let line = format!("{from} has final blocks that do not follow height {height} here");
            self.actions.push(Action::Report(line));
            return;
        }
        self.last = Last::new(self.chain, last);
        self.live |= news.len() <= NEWS;
        self.asked = None;
        self.failures = 0;
        self.actions.push(Action::Persist(Record::Finalized {
            blocks: news.clone(),
            finality: finality.clone(),
        }));
        self.actions.push(Action::Finalize { blocks: news, finality });
    }

    /// Asks for what comes next, unless that was done, or more is here than can be executed soon.
    fn ask(&mut self) {
        let now = self.now.instant;
        if self.asked.as_ref().is_some_and(|asked| asked.until <= now)
            && let Some(asked) = self.asked.take()
        {
            // Who hears us and says nothing has nothing to say, as a rule.
            self.live |= asked.was_connected;
            self.failures = self.failures.saturating_add(1);
            self.turn = self.turn.wrapping_add(1);
        }
        if self.asked.is_some() || now < self.ask_at || self.is_behind_with_executing() {
            return;
        }
        let Some(&member) = self.members.get(self.turn % self.members.len().max(1)) else { return };
        let patience = self.slot_timeout.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS));
        let was_connected = self.connected.contains(&member);
        self.asked = Some(Asked { was_connected, until: now.plus(patience) });
        self.ask_at = now.plus(PACE);
        let message = Message::Fetch(Fetch::FinalAfter(self.last.height));
        self.actions.push(Action::Send { to: Recipient::One(member), message });
    }

    fn is_behind_with_executing(&self) -> bool {
        self.last.height.0.saturating_sub(self.applied.0) > self.lag
    }

    /// A member is there (again): it is asked at once if nobody else has been reached.
    fn on_connected(&mut self, member: NodeId) {
        if !self.members.contains(&member) {
            return;
        }
        self.connected.insert(member);
        let is_reached = self.asked.as_ref().is_some_and(|asked| asked.was_connected);
        if !is_reached && let Some(turn) = self.members.iter().position(|key| *key == member) {
            self.turn = turn;
            self.failures = 0;
            self.asked = None;
        }
    }
}

impl Consensus for Follow {
    fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Message { from, message: Message::Final(answer) } => self.on_final(from, answer),
            Event::Connected(peer) => self.on_connected(peer),
            Event::Applied(applied) => self.applied = self.applied.max(applied.height),
            _ => {}
        }
        self.ask();
        std::mem::take(&mut self.actions)
    }

    fn wake(&self) -> Option<Instant> {
        match &self.asked {
            Some(asked) => Some(asked.until),
            // The executor's next answer wakes us.
            None if self.is_behind_with_executing() || self.members.is_empty() => None,
            None => Some(self.ask_at),
        }
    }

    fn slot(&self) -> Slot {
        self.last.slot.next()
    }

    fn leader(&self, _slots_ahead: u64) -> Option<NodeId> {
        None
    }

    fn next_turn(&self) -> u64 {
        0
    }

    fn finalizing(&self) -> Slot {
        self.last.slot
    }

    fn head(&self) -> Head {
        Head::default()
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn reads(&self) -> Reads {
        Reads::Refused(
            "this server only follows and cannot tell what others have acknowledged: ask a member, \
             or SET rota.read = local",
        )
    }

    fn standing(&self, _now: Now) -> Standing {
        Standing::Following
    }
}

#[cfg(test)]
mod tests;
