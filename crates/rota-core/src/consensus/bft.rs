//! Weighted Simplex (Chan and Pass, *Simplex Consensus*, 2023): votes and certificates for `poa`,
//! later for `pos` and `poh`. Steps 6 and 7.
//!
//! A *slot* is a view with one leader. A block takes two message hops to be notarized, and is final
//! after a third:
//!
//! ```text
//! leader ─ proposal ─► members ─ notarize ─► all: a quorum is a notarization, enter the next slot
//!                              ─ finalize ─► all: a quorum makes the block and its ancestors final
//! no block in time:    members ─ nullify  ─► all: a quorum is a nullification, enter the next slot
//! ```
//!
//! The rules, named in the code where they are kept, for a member in slot *s*:
//! - R1 enter *s* only by a certificate for *s − 1*; never by time.
//! - R2 leader: build on the newest notarized block whose slot is followed only by nullified slots;
//!   propose once.
//! - R3 first valid proposal of *s*, parent notarized, every slot between nullified: vote
//!   `notarize`, unless we voted `nullify(s)`.
//! - R4 quorum of `notarize(s, b)`: if we did not vote `nullify(s)`, vote `finalize(s, b)`; enter
//!   *s + 1*. The next proposal carries the notarization, and R8 repeats it: it is not sent on its
//!   own.
//! - R5 timer over: vote `nullify(s)`; repeat it, with the certificate that let us in, until
//!   something moves.
//! - R6 quorum of `nullify(s)`: pass it on, enter *s + 1*.
//! - R7 quorum of `finalize(s, b)`: *b* and all its ancestors are final.
//! - R8 repeat votes and the newest certificate every slot time-out until what they concern is
//!   final; send them first on every new stream.
//!
//! Why two blocks can never be final at one height: a finalization of (s, b) and a nullification of
//! s share an honest member, which never votes both; so after b is final every later proposal that
//! gets an honest vote has b as ancestor.
//!
//! Files: `slots` holds what is known of one slot, `peers` is what is said to others (R8, catching
//! up), `pace` decides when (timers, idling, silent leaders). What is deliberately absent: any
//! comparison with another server's clock.

mod pace;
mod peers;
mod recover;
mod slots;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::schedule::RoundRobin;
use super::{Action, Build, Consensus, Event, Head, Load, Naming, Standing, Validate, Verdict};
use crate::block::{Block, Certificate, Choice, Finality, Kind as BlockKind, Proposal, Turn, Vote};
use crate::crypto::SecretKey;
use crate::genesis::Genesis;
use crate::journal::{Record, Recovered};
use crate::members::Members;
use crate::message::{Fetch, FinalBlocks, Message, Recipient};
use crate::time::{Instant, Now, Time};
use crate::types::{BlockId, ChainId, Epoch, Height, MemberIndex, NodeId, Slot};

use pace::Pace;
use peers::Peers;
use slots::{Added, Check, Kind, SlotState};

/// How far ahead of the current slot proposals and votes are kept: a server that lags by more asks
/// for certificates.
const AHEAD: u64 = 16;

/// The last final block, and what its children need to know of it.
struct Last {
    block: Arc<Block>,
    id: BlockId,
    /// Its finalization; `None` for genesis.
    finalization: Option<Certificate>,
    /// What a child carries: its notarization where we have it.
    certificate: Option<Certificate>,
    known_at: Instant,
    live: bool,
    voted_at: Option<Instant>,
}

/// A member (or a server that only follows) of one epoch.
pub struct Bft {
    chain: ChainId,
    epoch: Epoch,
    members: Members,
    me: Option<MemberIndex>,
    key: SecretKey,
    schedule: RoundRobin,
    lag: u64,
    now: Now,
    slot: Slot,
    slots: BTreeMap<Slot, SlotState>,
    last: Last,
    applied: Height,
    reports: BTreeMap<MemberIndex, Height>,
    load: Load,
    /// The replica had nothing to fill our block with when it was last asked.
    nothing_to_propose: bool,
    live: bool,
    /// The slot of our first vote in this run.
    first_vote: Option<Slot>,
    pace: Pace,
    peers: Peers,
    actions: Vec<Action>,
    changed: bool,
}

impl Bft {
    /// A member that knows what its journal holds, or one that starts from genesis.
    pub fn new(
        genesis: &Genesis,
        members: Members,
        key: SecretKey,
        recovered: Recovered,
        now: Now,
    ) -> Self {
        let chain = genesis.chain_id();
        let (block, finalization) = match recovered.last {
            Some((block, finality)) => (block, finality.certificate().cloned()),
            None => (Arc::new(Block::genesis(genesis)), None),
        };
        let parameters = &genesis.parameters;
        let mut bft = Self {
            chain,
            epoch: Epoch(0),
            me: members.index_of(&key.public()),
            schedule: RoundRobin::new(members.len(), parameters.turn_length),
            members,
            key,
            lag: parameters.lag,
            now,
            slot: block.header.slot.next(),
            slots: BTreeMap::new(),
            last: Last {
                id: block.id(chain),
                block,
                certificate: finalization.clone(),
                finalization,
                known_at: now.instant,
                live: false,
                voted_at: None,
            },
            applied: Height(0),
            reports: BTreeMap::new(),
            load: Load::default(),
            nothing_to_propose: false,
            live: false,
            first_vote: None,
            pace: Pace::new(parameters, now.instant),
            peers: Peers::default(),
            actions: Vec::new(),
            changed: false,
        };
        bft.recover(recovered.tail);
        bft
    }

    fn state(&mut self, slot: Slot) -> &mut SlotState {
        self.slots.entry(slot).or_default()
    }

    fn is_mine(&self, slot: Slot) -> bool {
        self.me == Some(self.schedule.leader(slot))
    }

    fn own_vote(&self, slot: Slot, kind: Kind) -> Option<&Vote> {
        self.slots.get(&slot)?.vote(kind, self.me?)
    }

    fn report(&mut self, line: impl Into<String>) {
        self.actions.push(Action::Report(line.into()));
    }

    fn send(&mut self, to: Recipient, message: Message) {
        self.actions.push(Action::Send { to, message });
    }

    // ---- what comes in ----

    fn on_message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Proposal(proposal) => self.on_proposal(from, proposal),
            Message::Vote(vote) => self.on_vote(from, vote),
            Message::Certificate(certificate) => self.on_certificate(certificate),
            Message::Fetch(Fetch::CertificatesAfter(slot)) => self.send_certificates(from, slot),
            Message::Final(answer) => self.on_final(answer),
            Message::Pending(block) => self.on_pending(block),
            Message::Envelopes(_)
            | Message::PassedOn(_)
            | Message::Fetch(_)
            | Message::FinalizingWhat { .. }
            | Message::Finalizing { .. }
            | Message::Raft(_)
            | Message::Mined(_)
            | Message::Proofs(_)
            | Message::Offer(_)
            | Message::Chunk { .. } => {}
        }
    }

    fn on_proposal(&mut self, from: NodeId, proposal: Proposal) {
        let header = &proposal.block.header;
        let slot = header.slot;
        if header.epoch != self.epoch || header.leader != self.schedule.leader(slot) {
            self.report(format!("{from} sent a proposal for slot {slot} out of turn"));
            return;
        }
        if slot <= self.last.block.header.slot {
            self.help(from);
            return;
        }
        if let Some(certificate) = &proposal.block.body.parent_certificate {
            self.on_certificate(certificate.clone());
        }
        if slot.0 > self.slot.0.saturating_add(AHEAD) {
            return;
        }
        self.heard(header.leader);
        let id = proposal.block.id(self.chain);
        let leader = header.leader;
        let block = Arc::clone(&proposal.block);
        let chain = self.chain;
        let state = self.state(slot);
        match &state.proposal {
            Some(first) if first.block.id(chain) == id => return,
            Some(_) if !state.reported.insert(leader) => return,
            Some(_) => {
                self.report(format!("member {leader} signed two blocks for slot {slot}"));
            }
            None => state.proposal = Some(proposal),
        }
        if self.state(slot).keep_body(id, Arc::clone(&block)) {
            self.actions.push(Action::Known(block));
        }
        self.changed = true;
    }

    fn on_vote(&mut self, from: NodeId, vote: Vote) {
        if vote.epoch != self.epoch || vote.slot.0 > self.slot.0.saturating_add(AHEAD) {
            return;
        }
        let report = self.reports.entry(vote.voter).or_default();
        *report = vote.applied.max(*report);
        if self.members.get(vote.voter).is_some_and(|member| member.key == from) {
            self.heard(vote.voter);
        }
        if vote.slot <= self.last.block.header.slot {
            self.help(from);
            return;
        }
        let (slot, voter) = (vote.slot, vote.voter);
        match self.state(slot).add(vote) {
            Added::New => self.changed = true,
            Added::Repeated if slot < self.slot => self.help(from),
            Added::Repeated => {}
            Added::Contradiction(what) => {
                self.changed = true;
                if self.state(slot).reported.insert(voter) {
                    self.report(format!("member {voter} {what} (slot {slot})"));
                }
            }
        }
    }

    fn on_certificate(&mut self, certificate: Certificate) {
        if certificate.epoch != self.epoch || certificate.slot <= self.last.block.header.slot {
            return;
        }
        let (slot, choice, now) = (certificate.slot, certificate.choice, self.now.instant);
        let state = self.state(slot);
        let known = state.certificate(Kind::of(choice)).map(|known| known.choice);
        match known {
            Some(known) if known == choice => {}
            Some(_) => self.report(format!(
                "two certificates contradict each other in slot {slot}: a third of the members lie"
            )),
            None => {
                match choice {
                    Choice::Notarize(_) => state.notarization = Some(certificate),
                    Choice::Nullify => state.nullification = Some(certificate),
                    Choice::Finalize(_) => state.finalization = Some(certificate),
                }
                if choice != Choice::Nullify {
                    state.notarized_at.get_or_insert(now);
                }
                self.changed = true;
            }
        }
    }

    fn on_final(&mut self, answer: FinalBlocks) {
        let Finality::Votes(certificate) = answer.finality else { return };
        if certificate.epoch != self.epoch {
            return;
        }
        let height = self.last.block.header.height;
        let news: Vec<Arc<Block>> =
            answer.blocks.into_iter().filter(|block| block.header.height > height).collect();
        match news.first() {
            None => {}
            Some(first) if first.header.parent == self.last.id => {
                self.peers.fetched();
                self.finalize(news, certificate);
            }
            Some(_) => self.report("an answer with final blocks does not follow our last one"),
        }
    }

    fn on_pending(&mut self, block: Arc<Block>) {
        let id = block.id(self.chain);
        let wanted = |state: &SlotState| {
            state.certified_block() == Some(id) && !state.bodies.contains_key(&id)
        };
        let slot = block.header.slot;
        let proven = self.missing_ancestor() == Some(id) && slot > self.last.block.header.slot;
        if proven || self.slots.get(&slot).is_some_and(wanted) {
            self.state(slot).bodies.insert(id, Arc::clone(&block));
            self.actions.push(Action::Persist(Record::Fetched(Arc::clone(&block))));
            self.actions.push(Action::Known(block));
            self.peers.fetched();
            self.changed = true;
        }
    }

    fn on_validated(&mut self, block: BlockId, verdict: Verdict) {
        let (slot, chain) = (self.slot, self.chain);
        let Some(state) = self.slots.get_mut(&slot) else { return };
        let current = state.proposal.as_ref().map(|proposal| proposal.block.id(chain));
        if current != Some(block) {
            return;
        }
        match verdict {
            Verdict::Valid => state.check = Check::Valid,
            Verdict::Later => state.check = Check::Asked,
            Verdict::Invalid(why) => {
                state.check = Check::Invalid;
                self.report(format!("no vote for the block of slot {slot}: {why}"));
            }
        }
        self.changed = true;
    }

    fn on_built(&mut self, slot: Slot, block: Option<Arc<Block>>) {
        if let Some(state) = self.slots.get_mut(&slot) {
            state.building = false;
        }
        let Some(block) = block else {
            self.nothing_to_propose = true;
            return;
        };
        if slot != self.slot || !self.may_propose() {
            return;
        }
        // R2: the proposal, its block and our vote for it are on disk before any of them is sent.
        let proposal = Proposal::sign(self.chain, &self.key, Arc::clone(&block));
        let id = block.id(self.chain);
        let state = self.state(slot);
        state.proposal = Some(proposal.clone());
        state.check = Check::Valid;
        state.bodies.insert(id, Arc::clone(&block));
        self.actions.push(Action::Known(block));
        self.actions.push(Action::Persist(Record::Proposed(proposal.clone())));
        self.send(Recipient::Members, Message::Proposal(proposal));
        self.changed = true;
    }

    // ---- the rules ----

    /// Applies the rules until nothing changes.
    fn advance(&mut self) {
        loop {
            self.changed = false;
            self.form_certificates();
            self.finalize_certified();
            self.vote_finalize();
            self.enter_certified();
            self.vote_notarize();
            if !self.changed {
                break;
            }
        }
        self.propose();
    }

    /// Quorums become certificates.
    fn form_certificates(&mut self) {
        let now = self.now.instant;
        let mut nullifications = Vec::new();
        for (&slot, state) in &mut self.slots {
            for choice in state.choices() {
                let kind = Kind::of(choice);
                if state.certificate(kind).is_some() {
                    continue;
                }
                let Some(certificate) = state.form(&self.members, self.epoch, slot, choice) else {
                    continue;
                };
                self.changed = true;
                match kind {
                    Kind::Notarize => {
                        state.notarized_at.get_or_insert(now);
                        state.notarized_live = true;
                        state.notarization = Some(certificate);
                    }
                    Kind::Nullify => {
                        nullifications.push(certificate.clone());
                        state.nullification = Some(certificate);
                    }
                    Kind::Finalize => {
                        state.notarized_at.get_or_insert(now);
                        state.finalization = Some(certificate);
                    }
                }
            }
        }
        // R6: pass it on.
        for certificate in nullifications {
            self.send(Recipient::Members, Message::Certificate(certificate));
        }
    }

    /// R7: the newest finalization whose ancestors are all here.
    fn finalize_certified(&mut self) {
        let newest = self.slots.values().rev().find_map(|state| state.finalization.clone());
        let Some(certificate) = newest else { return };
        let Choice::Finalize(block) = certificate.choice else { return };
        if let Some(blocks) = self.path_from_last(block) {
            self.finalize(blocks, certificate);
        }
    }

    /// The blocks after the last final one up to this one, or `None` while a body is missing.
    fn path_from_last(&self, block: BlockId) -> Option<Vec<Arc<Block>>> {
        let mut blocks = Vec::new();
        let mut next = block;
        while next != self.last.id {
            let body = self.body(next)?;
            next = body.header.parent;
            blocks.push(Arc::clone(body));
        }
        blocks.reverse();
        Some(blocks)
    }

    fn body(&self, id: BlockId) -> Option<&Arc<Block>> {
        self.slots.values().find_map(|state| state.bodies.get(&id))
    }

    fn finalize(&mut self, blocks: Vec<Arc<Block>>, certificate: Certificate) {
        let Some(block) = blocks.last().cloned() else { return };
        let slot = block.header.slot;
        let mut state = self.slots.remove(&slot).unwrap_or_default();
        self.slots = self.slots.split_off(&slot);
        self.live |= self.is_recent(slot, &state);
        self.last = Last {
            id: block.id(self.chain),
            block,
            certificate: state.notarization.take().or_else(|| Some(certificate.clone())),
            finalization: Some(certificate.clone()),
            known_at: state.notarized_at.unwrap_or(self.now.instant),
            live: state.notarized_live || state.voted_at.is_some(),
            voted_at: state.voted_at,
        };
        let finality = Finality::Votes(certificate);
        self.actions.push(Action::Persist(Record::Finalized {
            blocks: blocks.clone(),
            finality: finality.clone(),
        }));
        self.actions.push(Action::Finalize { blocks, finality });
        self.pace.finalized(self.now.instant);
        self.changed = true;
        if self.slot <= slot {
            self.slot = slot.next();
            self.pace.entered(self.now.instant);
        }
    }

    /// Whether the clocks in a slot's notarization were read after this server started: it voted
    /// itself, or it saw the votes come in after it had said something in an earlier slot.
    fn is_recent(&self, slot: Slot, state: &SlotState) -> bool {
        let spoke_before = self.first_vote.is_some_and(|first| first < slot);
        let only_follows = self.me.is_none();
        state.voted_at.is_some() || (state.notarized_live && (spoke_before || only_follows))
    }

    /// R4: a notarized block in a slot that we did not vote to skip.
    fn vote_finalize(&mut self) {
        let Some(me) = self.me else { return };
        let mut news = Vec::new();
        for state in self.slots.values() {
            if let Some(notarization) = &state.notarization
                && state.vote(Kind::Nullify, me).is_none()
                && state.vote(Kind::Finalize, me).is_none()
            {
                news.push(notarization.clone());
            }
        }
        for notarization in news {
            let Choice::Notarize(block) = notarization.choice else { continue };
            let vote = self.signed_vote(me, notarization.slot, Choice::Finalize(block));
            let record = Record::Finalizing { vote: vote.clone(), notarization };
            self.cast(vote, record);
        }
    }

    /// R1: the newest certificate lets us into the slot after it.
    fn enter_certified(&mut self) {
        let certified =
            |state: &SlotState| state.certified_block().is_some() || state.nullification.is_some();
        let mut newest = None;
        let mut passed = Vec::new();
        for (&slot, state) in self.slots.range(self.slot..) {
            if certified(state) {
                newest = Some(slot);
                passed.push((slot, state.certified_block().is_some()));
            }
        }
        let Some(newest) = newest else { return };
        for (slot, notarized) in passed {
            let leader = self.schedule.leader(slot);
            if notarized {
                self.pace.succeeded(leader);
            } else {
                self.pace.failed(leader, slot, self.schedule.turn_end(slot));
            }
        }
        if let Some(certificate) = self.certificate_to_remember(newest) {
            self.actions.push(Action::Persist(Record::Entered(certificate)));
        }
        self.slot = newest.next();
        self.pace.entered(self.now.instant);
        self.changed = true;
    }

    /// R3.
    fn vote_notarize(&mut self) {
        let (Some(me), slot) = (self.me, self.slot) else { return };
        let Some(state) = self.slots.get(&slot) else { return };
        let Some(proposal) = &state.proposal else { return };
        if state.vote(Kind::Notarize, me).is_some() || state.vote(Kind::Nullify, me).is_some() {
            return;
        }
        let block = Arc::clone(&proposal.block);
        match state.check {
            Check::Invalid | Check::Asked => {}
            Check::No => self.ask_for_verdict(slot, block),
            Check::Valid => {
                let id = block.id(self.chain);
                let vote = self.signed_vote(me, slot, Choice::Notarize(id));
                let record = Record::Notarized { vote: vote.clone(), block };
                self.cast(vote, record);
                let now = self.now.instant;
                self.state(slot).voted_at = Some(now);
            }
        }
    }

    /// R3: the parent is notarized, every slot between is nullified; then the content is the
    /// replica's to check.
    fn ask_for_verdict(&mut self, slot: Slot, block: Arc<Block>) {
        let header = &block.header;
        if header.kind != BlockKind::Ordinary {
            self.state(slot).check = Check::Invalid;
            return;
        }
        let Some((parent, known)) = self.parent_of(header.parent, slot) else { return };
        // Only a vote that stands in the certificate was cast before the leader knew it.
        let known = known.filter(|_| self.is_counted_in(&block));
        let elapsed = self.now.instant.since(known.unwrap_or(parent.known_at));
        let median = match &block.body.parent_certificate {
            Some(certificate) => certificate.median_clock(&self.members),
            None if parent.block.header.slot == Slot(0) => parent.block.header.time,
            None => {
                self.state(slot).check = Check::Invalid;
                return;
            }
        };
        self.state(slot).check = Check::Asked;
        let expected = median.plus(elapsed);
        // Who learnt late of the parent measures too little: there our own clock may allow more.
        let expected = if known.is_some() { expected } else { expected.max(self.now.clock) };
        let latest_time = expected.plus(self.pace.timeout()).plus(pace::CLOCK_TOLERANCE);
        // Where the members' clocks are behind the parent's time, the next millisecond is all there
        // is.
        let earliest_time = after(&parent.block);
        self.actions.push(Action::Validate(Validate {
            block,
            parent: parent.block,
            earliest_time,
            latest_time: latest_time.max(earliest_time),
            applied: None,
        }));
    }

    fn is_counted_in(&self, block: &Block) -> bool {
        let certificate = block.body.parent_certificate.as_ref();
        certificate.is_some_and(|certificate| {
            certificate.votes.iter().any(|vote| Some(vote.voter) == self.me)
        })
    }

    /// The parent of a block of `slot`, if it is notarized (or the last final block) and all slots
    /// between are nullified; and when we voted for it in this run.
    fn parent_of(&self, id: BlockId, slot: Slot) -> Option<(Parent, Option<Instant>)> {
        let (parent, voted) = self.newest_notarized(slot, |candidate| candidate == id)?;
        (parent.id == id).then_some((parent, voted))
    }

    /// R2 and R3: going down from `slot`, over nullified slots, the first notarized block that is
    /// `wanted`. A slot may be both notarized and nullified.
    fn newest_notarized(
        &self,
        slot: Slot,
        wanted: impl Fn(BlockId) -> bool,
    ) -> Option<(Parent, Option<Instant>)> {
        let lowest = self.last.block.header.slot;
        let mut below = slot.previous()?;
        while below > lowest {
            let state = self.slots.get(&below)?;
            if let Some(id) = state.certified_block()
                && wanted(id)
            {
                let parent = Parent {
                    id,
                    block: Arc::clone(state.bodies.get(&id)?),
                    certificate: state.notarization.clone().or_else(|| state.finalization.clone()),
                    known_at: state.notarized_at?,
                    live: state.notarized_live || state.voted_at.is_some(),
                };
                return Some((parent, state.voted_at));
            }
            state.nullification.as_ref()?;
            below = below.previous()?;
        }
        let parent = Parent {
            id: self.last.id,
            block: Arc::clone(&self.last.block),
            certificate: self.last.certificate.clone(),
            known_at: self.last.known_at,
            live: self.last.live,
        };
        Some((parent, self.last.voted_at))
    }

    fn may_propose(&self) -> bool {
        let slot = self.slot;
        let untouched =
            self.slots.get(&slot).is_none_or(|state| state.proposal.is_none() && !state.building);
        let idle = self.nothing_to_propose;
        self.is_mine(slot) && untouched && !idle && self.own_vote(slot, Kind::Nullify).is_none()
    }

    /// R2: asks for a block if it is our turn and something is due.
    fn propose(&mut self) {
        if !self.may_propose() {
            return;
        }
        let may_be_empty = self.is_block_due();
        if !may_be_empty && self.load.waiting == 0 {
            return;
        }
        let slot = self.slot;
        let Some((parent, _)) = self.newest_notarized(slot, |_| true) else { return };
        let median = match &parent.certificate {
            Some(certificate) => certificate.median_clock(&self.members),
            None if parent.block.header.slot == Slot(0) => parent.block.header.time,
            // A snapshot ends with this block: what others have finalized since comes first.
            None => return,
        };
        self.state(slot).building = true;
        self.actions.push(Action::Build(Build {
            slot,
            turn: Turn::Scheduled,
            time: median.plus(self.now.instant.since(parent.known_at)).max(after(&parent.block)),
            parent: parent.block,
            parent_certificate: parent.certificate,
            applied: Naming::Reached(self.reached()),
            may_be_empty,
            must_be_empty: !parent.live,
        }));
    }

    /// The greatest height that a quorum says it has executed.
    fn reached(&self) -> Height {
        let mut heights: Vec<(Height, u64)> = Vec::new();
        for (index, member) in self.members.iter() {
            let own = Some(index) == self.me;
            let told = self.reports.get(&index).copied().unwrap_or_default();
            heights.push((if own { self.applied } else { told }, member.weight));
        }
        heights.sort_unstable_by(|a, b| b.cmp(a));
        let mut weight = 0;
        for (height, share) in heights {
            weight += share;
            if self.members.is_quorum(crate::types::Weight(weight)) {
                return height;
            }
        }
        Height(0)
    }
}

/// A block that may be built on.
struct Parent {
    id: BlockId,
    block: Arc<Block>,
    certificate: Option<Certificate>,
    known_at: Instant,
    live: bool,
}

impl Consensus for Bft {
    fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.now = now;
        self.nothing_to_propose = false;
        match event {
            Event::Start => self.repeat(),
            Event::Message { from, message } => self.on_message(from, message),
            Event::Connected(peer) => self.greet(peer),
            Event::Timer => {}
            Event::Validated { block, verdict } => self.on_validated(block, verdict),
            Event::Built { slot, block } => self.on_built(slot, block),
            Event::Load(load) => self.load = load,
            Event::Applied(applied) => self.applied = self.applied.max(applied.height),
            Event::Disconnected(_)
            | Event::Found(_)
            | Event::Mine(_)
            | Event::Read { .. }
            | Event::Yield => {}
        }
        self.advance();
        self.keep_pace();
        self.fetch_missing();
        std::mem::take(&mut self.actions)
    }

    fn wake(&self) -> Option<Instant> {
        self.pace.wake().into_iter().chain(self.peers.wake()).min()
    }

    fn slot(&self) -> Slot {
        self.slot
    }

    fn leader(&self, slots_ahead: u64) -> Option<NodeId> {
        let slot = Slot(self.slot.0.checked_add(slots_ahead)?);
        self.members.get(self.schedule.leader(slot)).map(|member| member.key)
    }

    fn next_turn(&self) -> u64 {
        self.schedule.turn_end(self.slot).0 - self.slot.0 + 1
    }

    fn finalizing(&self) -> Slot {
        let last = self.last.block.header.slot;
        let Some(me) = self.me else { return last };
        let mut newest = self.slots.iter().rev();
        let newest = newest.find(|(_, state)| state.vote(Kind::Finalize, me).is_some());
        newest.map_or(last, |(&slot, _)| slot.max(last))
    }

    fn head(&self) -> Head {
        let last = self.last.block.header.slot;
        let mut newest = None;
        for (&slot, state) in self.slots.iter().rev().take_while(|(slot, _)| **slot > last) {
            if let Some(id) = state.certified_block()
                && state.bodies.contains_key(&id)
            {
                return Head { newest: newest.or(Some(id)), notarized: Some(id) };
            }
            // Our vote says that the block is right, and stands on a notarized one.
            if slot == self.slot
                && let Some(vote) = self.own_vote(slot, Kind::Notarize)
                && let Choice::Notarize(id) = vote.choice
            {
                newest = Some(id);
            }
        }
        Head { newest, notarized: None }
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn standing(&self, _now: Now) -> Standing {
        Standing::Voting
    }
}

/// The first moment after a block's time.
fn after(block: &Block) -> Time {
    Time(block.header.time.0.saturating_add(1))
}

#[cfg(test)]
mod tests;
