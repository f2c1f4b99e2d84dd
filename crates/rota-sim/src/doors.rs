//! Where clients meet servers in a run (steps 1, 2 and 9): a write goes to some server that runs,
//! to another when no answer comes, and what its client is told is kept.

use std::ops::Range;

use rota_core::consensus::Standing;
use rota_core::error::Refusal;
use rota_core::replica::Input;
use rota_core::time::Time;
use rota_core::types::TransactionId;

use crate::clients::{Fate, Write};
use crate::server::Work;
use crate::world::{Became, Event, World};
use crate::{Fault, SECOND};

impl World {
    pub(crate) fn client(&mut self, number: usize, tries: u32) {
        let waiting = self.clients.all[number].waiting.take();
        let tried = waiting.as_ref().map_or(0, |(_, write)| write.tries);
        if tried != tries {
            self.clients.all[number].waiting = waiting;
            return;
        }
        if number != 0 && !self.clients.ready {
            self.schedule(self.now + 20_000, Event::Client { number, tries });
            return;
        }
        let before = waiting.as_ref().map(|(server, _)| *server);
        let Some(server) = self.door(self.addressed(), before) else {
            self.clients.all[number].waiting = waiting;
            self.schedule(self.now + 100_000, Event::Client { number, tries });
            return;
        };
        let write = match waiting {
            Some((_, write)) => Some(write),
            None => {
                let status = self.servers[server].status(self.now, &self.genesis);
                let Some(status) = status else { return };
                let drafts = self.servers[server].running.as_ref().map(|running| &running.drafts);
                self.clients.next_write(number, self.now, &status, drafts)
            }
        };
        if let Some(write) = write {
            self.submit(number, server, write);
        }
    }

    fn submit(&mut self, number: usize, server: usize, write: Write) {
        let Write { id, ref key, ref envelope, tries, .. } = write;
        let envelope = envelope.clone();
        self.note(format_args!("client {number} sends {key} to {server}, try {}", tries + 1));
        if tries > 0 {
            self.met(Fault::Retry);
        }
        self.clients.sent(number, server, write);
        if let Some(did) = self.what_became(server, id) {
            if self.is_paused(server) {
                return self.ask_when_resumed(number, tries + 1);
            }
            if !did {
                self.must_not_fail(number, "(asked later)");
            }
            self.answer(number, if did { Fate::Applied } else { Fate::Failed });
            return;
        }
        if self.has_expired_unseen(server, envelope.expiry.time) {
            self.note(format_args!("client {number} learns that it was never done"));
            self.answer(number, Fate::Failed);
            return;
        }
        self.give(server, Work::Input(Input::Submit(envelope)));
        let again = self.now + self.plan.patience();
        self.schedule(again, Event::Client { number, tries: tries + 1 });
    }

    /// What became of a transaction, by this server's word: whether it did anything.
    fn what_became(&self, server: usize, id: TransactionId) -> Option<bool> {
        let reached = self.servers[server].running.as_ref()?.state.applied().height;
        let here = |became: &&Became| {
            let stands = self.monitor.block_at(server, became.height) == Some(became.block);
            // Who has taken over a snapshot has not executed it itself.
            became.height <= reached && (stands || !self.plan.may_rewind)
        };
        self.became.get(&id)?.iter().find(here).map(|became| became.did)
    }

    /// Whether a server acknowledges nothing now (`pow`): blocks come too slowly.
    pub(crate) fn is_paused(&self, server: usize) -> bool {
        self.servers[server].status(self.now, &self.genesis).is_some_and(
            |status| matches!(status.standing, Standing::Mining(mining) if mining.paused.is_some()),
        )
    }

    /// A server answers when it acknowledges again (`pow`); here its client asks, once in a
    /// spacing.
    pub(crate) fn ask_when_resumed(&mut self, number: usize, tries: u32) {
        let pow = self.plan.pow.as_ref().expect("no other method pauses");
        let again = self.now + u64::from(pow.spacing_s) * SECOND;
        self.schedule(again, Event::Client { number, tries });
    }

    /// Whether a transaction that this server has not seen can no longer happen: all it knows is
    /// executed, and later than the expiry.
    fn has_expired_unseen(&self, server: usize, expiry: Time) -> bool {
        self.servers[server]
            .status(self.now, &self.genesis)
            .is_some_and(|at| at.applied.height == at.height && at.block_time > expiry)
    }

    pub(crate) fn answer(&mut self, number: usize, fate: Fate) {
        self.clients.answered(number, fate, self.now);
        let next = self.now + 100 + self.clients.think(number);
        self.schedule(next, Event::Client { number, tries: 0 });
    }

    /// An honest server among these that runs, another than the one tried before if there is one.
    pub(crate) fn door(&mut self, among: Range<usize>, before: Option<usize>) -> Option<usize> {
        let open: Vec<usize> =
            among.filter(|&i| self.servers[i].running.is_some() && !self.plan.is_liar(i)).collect();
        let other: Vec<usize> = open.iter().copied().filter(|&i| Some(i) != before).collect();
        let from = if other.is_empty() { open } else { other };
        (!from.is_empty()).then(|| self.luck.choose(&from))
    }

    pub(crate) fn dropped(&mut self, server: usize, transactions: &[TransactionId], why: &Refusal) {
        self.note(format_args!("server {server} drops {}: {why}", transactions.len()));
        for id in transactions {
            let Some(&number) = self.clients.waiting.get(id) else { continue };
            let Some((at, write)) = &self.clients.all[number].waiting else { continue };
            if *at == server {
                let tries = write.tries;
                self.schedule(self.now + 50_000, Event::Client { number, tries });
                self.met(Fault::Dropped);
            }
        }
    }

    pub(crate) fn must_not_fail(&mut self, number: usize, why: &str) {
        if self.plan.may_rewind {
            // The making of the tables may have been undone.
            return;
        }
        let must = self.clients.all[number].waiting.as_ref().filter(|(_, write)| write.must_apply);
        if let Some((_, write)) = must {
            let detail = format!("{}: {why}", write.key);
            self.monitor.breaks("a plain insert succeeds", detail);
        }
    }
}
