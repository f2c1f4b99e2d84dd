//! What people are told while a server catches up (between steps 5 and 6): how many proofs and
//! blocks it has of about how many, and how fast they come.

use std::time::Duration;

use super::Nakamoto;
use crate::consensus::Mining;
use crate::people::thousands;
use crate::time::Instant;
use crate::types::Height;

/// The first word comes after this, the next each time twice as late ...
const FIRST_WORD: Duration = Duration::from_secs(1);

/// ... up to this.
const LAST_WORD: Duration = Duration::from_secs(16);

/// A server that was so many blocks behind, or more, says when it has caught up.
const WORTH_A_WORD: u64 = 1_000;

/// Proofs of blocks that are due by now, but for so many, are all that there are: the last ones may
/// be a little late.
const ALL_BUT: u64 = 20;

/// Catching up, while it lasts.
#[derive(Debug, Default)]
pub(super) struct Progress {
    since: Option<Since>,
    word: Option<(Instant, Duration)>,
}

/// Where it began.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    headers: u64,
    blocks: u64,
    has_all_headers: bool,
    said_so: bool,
}

impl Progress {
    /// A neighbour has told all headers that it has.
    pub fn no_more_headers(&mut self) {
        if let Some(since) = &mut self.since {
            since.has_all_headers = true;
        }
    }
}

impl Since {
    /// So many a second, in so long.
    fn rate(&self, now: Instant, count: u64) -> u64 {
        let millis = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX).max(1);
        count.saturating_mul(1_000) / millis
    }
}

impl Nakamoto {
    /// The height of the newest proof of the heaviest branch, and about how high it is for those
    /// who have all: a block is due every spacing.
    fn known_and_due(&self) -> (Height, Height) {
        let node = self.tree.get(self.tree.heaviest()).unwrap_or(self.tree.head().1);
        let late = (self.now.clock.0 / 1_000).saturating_sub(u64::from(node.proof.time()));
        let missing = late / u64::from(self.rules.spacing_s).max(1);
        (node.height, Height(node.height.0.saturating_add(missing)))
    }

    /// Where it stands with catching up, for its status.
    pub(super) fn with_progress(&self, mining: Mining) -> Mining {
        let (headers, due) = self.known_and_due();
        Mining { headers, due, catching_up: self.tree.is_catching_up(), ..mining }
    }

    /// Says now and then how far it is.
    pub(super) fn tell_progress(&mut self) {
        let (now, blocks) = (self.now.instant, self.tree.head().1.height.0);
        let (Height(headers), Height(due)) = self.known_and_due();
        let Some(since) = self.progress.since else {
            if self.tree.is_catching_up() {
                let has_all_headers = headers.saturating_add(ALL_BUT) >= due;
                let said_so = has_all_headers;
                let since = Since { at: now, headers, blocks, has_all_headers, said_so };
                self.progress.since = Some(since);
                self.progress.word = Some((now.plus(FIRST_WORD), FIRST_WORD));
            }
            return;
        };
        let has_all = since.has_all_headers || headers.saturating_add(ALL_BUT) >= due;
        if has_all && !since.said_so {
            self.progress.since = Some(Since { said_so: true, ..since });
            let came = headers.saturating_sub(since.headers);
            self.report(format!(
                "all headers are here, {}: {} a second",
                thousands(headers),
                thousands(since.rate(now, came))
            ));
        }
        if !self.tree.is_catching_up() {
            self.progress = Progress::default();
            let came = blocks.saturating_sub(since.blocks);
            if came >= WORTH_A_WORD {
                let rate = thousands(since.rate(now, came));
                let blocks = thousands(blocks);
                self.report(format!("caught up at height {blocks}: {rate} blocks a second"));
            }
            return;
        }
        let Some((at, patience)) = self.progress.word.filter(|(at, _)| *at <= now) else { return };
        let patience = patience.saturating_mul(2).min(LAST_WORD);
        self.progress.word = Some((at.max(now).plus(patience), patience));
        self.report(format!(
            "catching up: headers {} of about {}, blocks {} ({} a second)",
            thousands(headers),
            thousands(due),
            thousands(blocks),
            thousands(since.rate(now, blocks.saturating_sub(since.blocks)))
        ));
    }
}
