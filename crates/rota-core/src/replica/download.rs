//! Fetching a snapshot: what a server does that is too far behind for the others' blocks (between
//! steps 7 and 8).
//!
//! ```text
//!   FinalAfter ──► Offer ──► Chunk, Chunk, … each compared with its hash ──► Restore
//!      we ask      proven        of one peer after the other                  all are here
//! ```
//!
//! An offer proves its root (`verify`), but not that the pieces hold it: that is known when all of
//! them are here and the root of their rows is computed. So only whom we have asked is listened to,
//! and who offered what turned out to be wrong is not asked again.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::allowance::{Allowance, Rate};
use super::{Output, Replica};
use crate::error::Invalid;
use crate::message::{Fetch, Message, Offer, Recipient, chunk_digest};
use crate::time::Instant;
use crate::types::{Height, NodeId};

/// So many pieces are asked for before the first of them has come: enough that the next one is on
/// its way while one is written down.
const IN_FLIGHT: usize = 4;

/// A piece is asked for this often: peers answer fifty questions a second and drop the others
/// (`ANSWERS`), and the method asks for things too. 40 MB/s.
const PACE: Rate = Rate { burst: 4, every: Duration::from_millis(25) };

/// A peer from which nothing came for so long is given up: four pieces take that long on a line of
/// 7 Mbit/s.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a download says how far it is.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// The snapshot that is being fetched, and whom we have asked for blocks.
#[derive(Debug, Default)]
pub(super) struct Downloads {
    current: Option<Download>,
    /// Whose answer to `FinalAfter` is outstanding.
    asked: BTreeSet<NodeId>,
    /// Counts whom we have asked for an offer ourselves.
    turn: usize,
    distrusted: Vec<NodeId>,
}

#[derive(Debug)]
struct Download {
    offer: Offer,
    offered_by: NodeId,
    /// Who has offered the very same; the first is asked.
    sources: VecDeque<NodeId>,
    /// The first piece that nobody was asked for yet.
    next: u32,
    /// Asked for in vain.
    again: BTreeSet<u32>,
    in_flight: BTreeSet<u32>,
    kept: usize,
    pace: Allowance,
    ask_at: Instant,
    /// When a piece came, or another peer was turned to.
    moved_at: Instant,
    /// Whether the peer that is asked now is another one's replacement.
    is_stalled: bool,
    reported_at: Instant,
    /// When the method's own questions for blocks are let through next.
    blocks_at: Instant,
}

impl Download {
    fn new(offer: Offer, from: NodeId, now: Instant) -> Self {
        Self {
            offer,
            offered_by: from,
            sources: VecDeque::from([from]),
            next: 0,
            again: BTreeSet::new(),
            in_flight: BTreeSet::new(),
            kept: 0,
            pace: Allowance::new(now, PACE),
            ask_at: now,
            moved_at: now,
            is_stalled: false,
            reported_at: now,
            blocks_at: now.plus(PATIENCE),
        }
    }

    fn is_same(&self, other: &Offer) -> bool {
        self.offer.applied == other.applied
            && self.offer.bytes == other.bytes
            && self.offer.chunks == other.chunks
    }

    fn is_complete(&self) -> bool {
        self.kept == self.offer.chunks.len()
    }

    fn has_room(&self) -> bool {
        let all_asked = self.again.is_empty() && self.next as usize >= self.offer.chunks.len();
        let has_source = !self.sources.is_empty();
        has_source && !all_asked && self.in_flight.len() < IN_FLIGHT
    }

    fn wake(&self) -> Option<Instant> {
        if self.is_complete() {
            return None;
        }
        let give_up = self.moved_at.plus(PATIENCE);
        Some(if self.has_room() { give_up.min(self.ask_at) } else { give_up })
    }

    /// The next question, if it is time for one.
    fn question(&mut self, now: Instant) -> Option<(NodeId, u32)> {
        let source = *self.sources.front()?;
        if now < self.ask_at || !self.has_room() {
            return None;
        }
        if !self.pace.take(now) {
            self.ask_at = now.plus(PACE.every);
            return None;
        }
        let number = self.again.pop_first().unwrap_or_else(|| {
            let next = self.next;
            self.next = next.saturating_add(1);
            next
        });
        self.in_flight.insert(number);
        Some((source, number))
    }

    /// Turns from a peer to the next one that has the same.
    fn turn_from(&mut self, source: NodeId, for_good: bool, now: Instant) {
        let was_asked = self.sources.front() == Some(&source);
        self.sources.retain(|other| *other != source);
        if !for_good {
            self.sources.push_back(source);
        }
        if was_asked {
            self.again.append(&mut self.in_flight);
            self.moved_at = now;
            self.is_stalled = true;
        }
    }

    fn progress(&self) -> String {
        let (height, all) = (self.offer.applied.height, self.offer.chunks.len());
        format!("fetching the snapshot of height {height}: {} of {all} MiB", self.kept)
    }
}

impl Downloads {
    /// Without what comes from these.
    pub fn new(distrusted: Vec<NodeId>) -> Self {
        Self { distrusted, ..Self::default() }
    }

    /// When to ask again.
    pub fn wake(&self) -> Option<Instant> {
        self.current.as_ref()?.wake()
    }

    /// Whether a snapshot is being fetched.
    pub fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// The method asks this peer for blocks; whether that is to be sent. While a snapshot is being
    /// fetched every answer would be another offer, or blocks that are in it: one now and then will
    /// do, in case that blocks come faster.
    pub fn may_ask(&mut self, peer: NodeId, now: Instant) -> bool {
        if let Some(download) = &mut self.current {
            if now < download.blocks_at {
                return false;
            }
            download.blocks_at = now.plus(PATIENCE);
        }
        self.asked.insert(peer);
        true
    }
}

impl Replica {
    /// A peer offers a snapshot. It is not needed where the next block is all that is missing.
    pub(super) fn on_offer(&mut self, from: NodeId, offer: Offer) {
        let last = self.chain.last().block.header.height;
        let is_ahead = offer.applied.height > last.next();
        let was_asked = self.downloads.asked.remove(&from);
        let is_taken = self.method.is_closed() && was_asked && is_ahead;
        if !is_taken || self.downloads.distrusted.contains(&from) {
            return;
        }
        let now = self.now.instant;
        match &mut self.downloads.current {
            Some(download) if download.is_same(&offer) => {
                if !download.sources.contains(&from) {
                    download.sources.push_back(from);
                }
            }
            Some(download) if !download.is_stalled || download.is_complete() => {}
            _ => {
                let download = Download::new(offer, from, now);
                let pieces = download.offer.chunks.len();
                let height = download.offer.applied.height;
                self.downloads.current = Some(download);
                self.outputs.push(Output::Report(format!(
                    "this server is at height {last}: fetching the snapshot of height {height} \
                     from {from}, {pieces} MiB"
                )));
            }
        }
    }

    /// A piece has come.
    pub(super) fn on_chunk(&mut self, from: NodeId, height: Height, number: u32, bytes: Vec<u8>) {
        let now = self.now.instant;
        let Some(download) = &mut self.downloads.current else { return };
        let is_known = download.offer.applied.height == height && download.sources.contains(&from);
        if !is_known || !download.in_flight.contains(&number) {
            return;
        }
        let Some(digest) = download.offer.chunks.get(number as usize) else { return };
        if chunk_digest(&bytes) != *digest {
            download.turn_from(from, true, now);
            let why = Invalid::Rule("a piece of a snapshot that is not the one it offered");
            let is_alone = download.sources.is_empty();
            self.outputs.push(Output::Punish { peer: from, why });
            if is_alone {
                self.ask_for_an_offer(self.chain.last().block.header.height);
            }
            return;
        }
        download.in_flight.remove(&number);
        download.kept = download.kept.saturating_add(1);
        download.moved_at = now;
        download.is_stalled = false;
        self.outputs.push(Output::Chunk { height, number, bytes });
        if download.is_complete() {
            let (offer, from) = (Box::new(download.offer.clone()), download.offered_by);
            self.outputs.push(Output::Report(format!(
                "the snapshot of height {height} is here: comparing its rows with its root"
            )));
            self.outputs.push(Output::Restore { offer, from });
        }
    }

    /// Asks for what is missing.
    pub(super) fn look_after_downloads(&mut self) {
        let now = self.now.instant;
        let last = self.chain.last().block.header.height;
        let Some(download) = &mut self.downloads.current else { return };
        if download.is_complete() {
            return;
        }
        if last >= download.offer.applied.height {
            self.outputs.push(Output::Report(
                "blocks were faster than the snapshot: it is needed no more".into(),
            ));
            self.downloads.current = None;
            return;
        }
        if now.since(download.moved_at) >= PATIENCE {
            if let Some(&slow) = download.sources.front() {
                download.turn_from(slow, false, now);
            }
            download.is_stalled = true;
            download.moved_at = now;
            self.ask_for_an_offer(last);
        }
        let Some(download) = &mut self.downloads.current else { return };
        if now.since(download.reported_at) >= REPORT_EVERY {
            download.reported_at = now;
            self.outputs.push(Output::Report(download.progress()));
        }
        let height = download.offer.applied.height;
        while let Some((source, number)) = download.question(now) {
            let message = Message::Fetch(Fetch::Chunk { height, number });
            self.outputs.push(Output::Send { to: Recipient::One(source), message });
        }
    }

    /// Asks the next member: it may have the same snapshot, or another one.
    fn ask_for_an_offer(&mut self, last: Height) {
        let others: Vec<NodeId> = self
            .members
            .iter()
            .map(|(_, member)| member.key)
            .filter(|key| *key != self.me && !self.downloads.distrusted.contains(key))
            .collect();
        let Some(&peer) = others.get(self.downloads.turn % others.len().max(1)) else { return };
        self.downloads.turn = self.downloads.turn.wrapping_add(1);
        self.downloads.asked.insert(peer);
        let message = Message::Fetch(Fetch::FinalAfter(last));
        self.outputs.push(Output::Send { to: Recipient::One(peer), message });
    }
}

#[cfg(test)]
mod tests;
