//! Step 3: envelopes are checked, remembered in the mempool, and forwarded to this turn's leader
//! and the next. Nobody floods everybody: the schedule is known to all. Only an envelope that
//! stands in no proposal after half a slot time-out is sent to all members, so that they notice if
//! the leader is gone.
//!
//! Who may sign is decided at apply: here a signature is a signature. What no member has signed
//! counts against the member that sent it (`mempool`).

use std::sync::Arc;

use super::{Output, Replica};
use crate::error::{Refusal, sqlstate};
use crate::genesis::Method;
use crate::mempool::{Account, NotTaken};
use crate::message::{Message, Recipient};
use crate::transaction::Envelope;
use crate::types::{NodeId, TransactionId};

impl Replica {
    pub(super) fn admit_own(&mut self, envelope: Arc<Envelope>) {
        let (limits, now) = (&self.parameters, self.now.instant);
        let signed_here = envelope.signer == self.me;
        let account = if signed_here { Account::Own } else { Account::OwnGuest };
        match self.mempool.insert(Arc::clone(&envelope), account, limits, now) {
            Ok(_) => {
                self.outputs.push(Output::Admitted(Arc::clone(&envelope)));
                self.tell_load();
                if self.method == Method::Pow {
                    let message = Message::Envelopes(vec![envelope]);
                    self.outputs.push(Output::Send { to: Recipient::Members, message });
                } else {
                    let leaders = self.leaders();
                    self.send_envelopes(&leaders, vec![envelope]);
                }
            }
            // Sent twice: what becomes of it will be told once.
            Err(NotTaken::Known) => self.outputs.push(Output::Admitted(envelope)),
            Err(NotTaken::TooLarge) => self.drop_own(
                &envelope,
                Refusal::new(sqlstate::TOO_COMPLEX, "the write is larger than a block may be"),
            ),
            Err(NotTaken::Full) => self.drop_own(
                &envelope,
                Refusal::new(sqlstate::BUSY, "too many writes are waiting; try again"),
            ),
        }
    }

    /// `guests`: against whom counts what no member has signed.
    pub(super) fn admit_from_peer(
        &mut self,
        from: NodeId,
        guests: Account,
        envelopes: Vec<Arc<Envelope>>,
    ) {
        let last = &self.chain.last().block.header;
        let (height, time) = (last.height, last.time);
        let (chain_time, most) = (self.chain_time(self.now), self.parameters.max_expiry());
        let (mut admitted, mut refused) = (Vec::new(), 0);
        for envelope in envelopes {
            let expiry = envelope.expiry;
            if expiry.has_passed(height, time) || expiry.is_too_far(height, chain_time, most) {
                refused += 1;
                continue;
            }
            let signer = envelope.signer;
            let by_member = self.members.index_of(&signer).is_some();
            let account = if by_member { Account::Member(signer) } else { guests };
            let (limits, now) = (&self.parameters, self.now.instant);
            if self.mempool.insert(Arc::clone(&envelope), account, limits, now).is_ok() {
                admitted.push(envelope);
            }
        }
        if refused > 0 {
            self.report(format!("{from} forwarded {refused} envelopes that no block can hold"));
        }
        if admitted.is_empty() {
            return;
        }
        self.tell_load();
        if self.method == Method::Pow {
            // Nobody knows who finds the next block: each new envelope is told to all, once.
            let message = Message::PassedOn(admitted);
            self.outputs.push(Output::Send { to: Recipient::MembersBut(from), message });
        }
    }

    /// What stood in blocks that were undone waits to be written again, as far as there is room.
    pub(super) fn wait_again(&mut self, envelopes: Vec<Arc<Envelope>>) {
        let before = self.outputs.len();
        for envelope in envelopes {
            self.admit_own(envelope);
        }
        let dropped = |output: &Output| match output {
            Output::Dropped { transactions, .. } => transactions.len(),
            _ => 0,
        };
        let dropped: usize = self.outputs.iter().skip(before).map(dropped).sum();
        if dropped > 0 {
            self.report(format!(
                "of what was undone {dropped} transactions do not wait to be written again, for \
                 want of room: their clients must send them anew (chain.undone lists all)"
            ));
        }
    }

    pub(super) fn drop_own(&mut self, envelope: &Envelope, why: Refusal) {
        let transactions: Vec<TransactionId> = envelope
            .transactions
            .iter()
            .map(|transaction| transaction.id(self.chain_id, envelope.signer))
            .collect();
        self.outputs.push(Output::Dropped { transactions, why });
    }

    /// This turn's leader and the next turn's.
    fn leaders(&self) -> Vec<NodeId> {
        let mut leaders: Vec<NodeId> = [0, self.consensus.next_turn()]
            .into_iter()
            .filter_map(|ahead| self.consensus.leader(ahead))
            .collect();
        leaders.dedup();
        leaders
    }

    fn send_envelopes(&mut self, to: &[NodeId], envelopes: Vec<Arc<Envelope>>) {
        self.send_to(to, &Message::Envelopes(envelopes));
    }

    pub(super) fn send_to(&mut self, to: &[NodeId], message: &Message) {
        for &leader in to.iter().filter(|&&leader| leader != self.me) {
            let message = message.clone();
            self.outputs.push(Output::Send { to: Recipient::One(leader), message });
        }
    }

    /// When the turn has passed to others, what still waits here is sent to who has not had it.
    pub(super) fn forward_to_leaders(&mut self) {
        let leaders = self.leaders();
        if leaders == self.sent_to {
            return;
        }
        let news: Vec<NodeId> =
            leaders.iter().copied().filter(|leader| !self.sent_to.contains(leader)).collect();
        self.sent_to = leaders;
        if self.mempool.is_empty() {
            return;
        }
        let waiting =
            self.mempool.own_waiting(&self.chain.pending_envelopes(self.consensus.slot()));
        if !waiting.is_empty() {
            self.send_envelopes(&news, waiting);
        }
    }

    /// What stands in no proposal after a while goes to all members: they notice if the leader is
    /// gone.
    pub(super) fn send_overdue_to_all(&mut self) {
        let now = self.now.instant;
        if self.mempool.next_overdue().is_none_or(|at| at > now) {
            return;
        }
        let taken = self.chain.pending_envelopes(self.consensus.slot());
        let overdue = self.mempool.take_overdue(&taken, now, self.chain_time(self.now));
        if !overdue.own.is_empty() {
            let message = Message::Envelopes(overdue.own);
            self.outputs.push(Output::Send { to: Recipient::Members, message });
        }
        if !overdue.others.is_empty() {
            // Whoever gave them to us may have kept them from the leader, so that we would vote to
            // skip a slot whose leader knows of nothing to do.
            // Under `pow` there is no leader, and what was told once may not have come.
            let message = Message::PassedOn(overdue.others);
            if self.method == Method::Pow {
                self.outputs.push(Output::Send { to: Recipient::Members, message });
            } else {
                let leaders = self.leaders();
                self.send_to(&leaders, &message);
            }
        }
    }
}
