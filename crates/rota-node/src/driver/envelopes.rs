//! Envelopes that clients have signed with their own keys: step 2 is done when they come, step 9 is
//! the same as for everybody.
//!
//! ```text
//!  door ── submit_envelope ──► size, whose key? signature, statements, in time? ──► replica
//!                                                                                      :
//!    one answer for each transaction ◄─────── receipts, or what became of it before ───┘
//! ```
//! All of it is checked again at apply, on every server: what is refused here is refused early and
//! told plainly. The same envelope may come again, here or elsewhere: its transactions keep their
//! ids, so each is executed once, and whoever asks again hears what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::codec::encode;
use rota_core::error::{Invalid, Refusal, sqlstate};
use rota_core::transaction::{Envelope, Transaction};
use rota_core::types::{Height, TransactionId};
use rota_store::access::{self, Access, Change, Password, text_of};
use rota_store::query::{Fate, Outcome, Reader};
use tokio::sync::oneshot;

use super::{Driver, Wait, WriteError, Written, check_statements, stopping, too_large, unknown};
use crate::pending::{Answer, Waiting};
use crate::readers::ReadJob;

/// The most transactions in an envelope of a client's: each has a place in memory while it waits.
pub const MOST_TRANSACTIONS: usize = 500;

/// What a transaction that waits for its answer takes beside its own bytes.
const PLACE_BYTES: usize = 256;

/// A transaction without an answer for this long may have been executed before it was handed in:
/// it is looked for then, and again after as long. Answers come sooner as a rule, so that this is
/// not done for each.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// Where the chain stands, for whoever signs for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainNow {
    /// The newest final height.
    pub height: Height,
    /// Estimated date now, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Driver {
    /// Where the chain stands. `57P03` by a server that has just started: what it knows may be as
    /// old as its files, and what is signed for then would have expired.
    pub async fn chain_now(&self) -> Result<ChainNow, Refusal> {
        self.wait_until_live().await?;
        let (height, time) = self.0.board.chain_now();
        Ok(ChainNow { height, time_ms: time.0 })
    }

    /// What became of a transaction, as far as this server knows; with the reason of a failure,
    /// which is for its signer and for administrators.
    pub(crate) async fn fate(&self, id: TransactionId) -> Result<Fate, Refusal> {
        let (reply, answer) = oneshot::channel();
        let ask = move |reader: &mut Reader| drop(reply.send(reader.fate(&id)));
        self.send(ReadJob::Ask(Box::new(ask)))?;
        answer.await.map_err(|_| stopping())?
    }

    /// Executes the transactions of an envelope that a user has signed with its own key; one answer
    /// for each, in their order. An answer without results is of a transaction that was executed
    /// before.
    ///
    /// Refused as a whole, and nothing of it is sent: `08P01`, not well formed, or its expiry too
    /// far ahead. `42501`: a bad signature, nobody's key, somebody else's transaction. `40001`:
    /// expired. `54000`: too large. `57P03`, `53000`: not now.
    pub async fn submit_envelope(
        &self,
        envelope: Envelope,
        deadline: Instant,
    ) -> Result<Vec<Answer>, Refusal> {
        let inner = &*self.0;
        inner.board.refuse_if_diverged()?;
        let bytes = encode(&envelope).len();
        self.check_size(&envelope, bytes)?;
        // What costs little comes first: signatures and statements are looked at for users only.
        check_user(&self.access(), &envelope)?;
        let envelope = self.check_signature(envelope).await?;
        for transaction in &envelope.transactions {
            check_statements(&transaction.statements)?;
            check_passwords(transaction)?;
        }
        let chain = inner.board.chain;
        let ids: Vec<TransactionId> =
            envelope.transactions.iter().map(|t| t.id(chain, envelope.signer)).collect();
        if let Err(refusal) = self.check_expiry(&envelope) {
            // It may have been in time when it came before.
            let known = self.look_up(&ids).await?;
            return match known.is_empty() {
                true => Err(refusal),
                false => Ok(answers_or(&ids, known, "it is not final yet")),
            };
        }
        let envelope = Arc::new(envelope);
        if let Err(refusal) = self.check_purse_of(&envelope).await {
            // It may have paid when it came before.
            let known = self.look_up(&ids).await?;
            return match known.is_empty() {
                true => Err(refusal),
                false => Ok(answers_or(&ids, known, &refusal.message)),
            };
        }
        self.check_votes()?;
        self.wait_for_quorum().await?;
        self.wait_until_live().await?;
        let _room = inner.room(bytes + ids.len() * PLACE_BYTES)?;
        let mut waiting = Vec::with_capacity(ids.len());
        for id in &ids {
            // Who waits already waits for the same: then it is looked for.
            if let Ok(place) = inner.pending.wait_for(*id, Wait::Final, Vec::new()) {
                inner.pending.signed(id);
                waiting.push(place);
            }
        }
        inner.unfinal.submit(envelope)?;
        let told = self.await_answers(&ids, waiting, deadline).await;
        Ok(answers_or(&ids, told, &inner.pending.why_late()))
    }

    /// Whether there is something in it, and no more than may wait here.
    fn check_size(&self, envelope: &Envelope, bytes: usize) -> Result<(), Refusal> {
        envelope.check().map_err(malformed)?;
        let limits = self.0.limits;
        if bytes > limits.bytes {
            return Err(too_large(bytes, limits.bytes));
        }
        let most = limits.transactions.min(MOST_TRANSACTIONS);
        if envelope.transactions.len() > most {
            let count = envelope.transactions.len();
            let message = format!("{count} transactions in an envelope; {most} are possible");
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
        }
        Ok(())
    }

    /// Checking takes as long as hashing the envelope: not on a thread that others wait for.
    async fn check_signature(&self, envelope: Envelope) -> Result<Envelope, Refusal> {
        let chain = self.0.board.chain;
        let checked =
            tokio::task::spawn_blocking(move || envelope.claim(chain).verify().map(|()| envelope));
        checked.await.map_err(|_| stopping())?.map_err(|_| {
            let message = "the signature is not by the key that the envelope names, or not for \
                           this chain: GET /chain tells its id";
            Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
        })
    }

    fn check_expiry(&self, envelope: &Envelope) -> Result<(), Refusal> {
        let (height, time) = self.0.board.chain_now();
        if envelope.expiry.has_passed(height.next(), time) {
            let message = "the envelope has expired: sign it anew";
            return Err(Refusal::new(sqlstate::SERIALIZATION_FAILURE, message));
        }
        if envelope.expiry.is_too_far(height, time, self.0.limits.max_expiry) {
            let seconds = self.0.limits.max_expiry.as_secs();
            let message = format!(
                "the envelope's expiry is more than {seconds} seconds or a million blocks ahead: \
                 GET /chain tells height and time"
            );
            return Err(Refusal::new(sqlstate::PROTOCOL_VIOLATION, message));
        }
        Ok(())
    }

    /// Waits until all are answered or looked up, no longer than until `deadline`.
    async fn await_answers(
        &self,
        ids: &[TransactionId],
        waiting: Vec<Waiting<'_>>,
        deadline: Instant,
    ) -> BTreeMap<TransactionId, Answer> {
        let mut told = BTreeMap::new();
        let mut waiting: Vec<Option<Waiting<'_>>> = waiting.into_iter().map(Some).collect();
        loop {
            let pause = (Instant::now() + LOOK_PAUSE).min(deadline);
            for place in &mut waiting {
                let Some(open) = place else { continue };
                let id = open.id();
                match tokio::time::timeout_at(pause.into(), &mut open.answer).await {
                    Ok(Ok(answer)) => told.insert(id, answer),
                    Ok(Err(_)) => told.insert(id, Err(unknown(id, "this server stopped"))),
                    Err(_) => continue,
                };
                *place = None;
            }
            let open = ids.iter().copied().filter(|id| !told.contains_key(id));
            let open: Vec<TransactionId> = open.collect();
            if open.is_empty() {
                return told;
            }
            tokio::time::sleep_until(pause.into()).await;
            // That nothing can be looked up now says nothing of the transactions. What is executed
            // is not acknowledged while depth means nothing (`pow`).
            if !self.0.pending.is_paused() {
                told.extend(self.look_up(&open).await.unwrap_or_default());
            }
            if Instant::now() >= deadline {
                return told;
            }
        }
    }

    /// Those that this server has executed.
    async fn look_up(
        &self,
        ids: &[TransactionId],
    ) -> Result<BTreeMap<TransactionId, Answer>, Refusal> {
        let mut found = BTreeMap::new();
        for id in ids {
            if let Fate::Executed(outcome) = self.fate(*id).await? {
                found.insert(*id, answer_of(*id, outcome));
            }
        }
        Ok(found)
    }
}

/// In the order of the ids; of those that nothing is known of, that, and why.
fn answers_or(
    ids: &[TransactionId],
    mut told: BTreeMap<TransactionId, Answer>,
    why: &str,
) -> Vec<Answer> {
    let missing = |id| Err(unknown(id, why));
    ids.iter().map(|id| told.remove(id).unwrap_or_else(|| missing(*id))).collect()
}

fn answer_of(id: TransactionId, outcome: Outcome) -> Answer {
    match outcome.refusal {
        Some(refusal) => Err(WriteError { refusal, id: Some(id) }),
        None => {
            let (height, index) = (outcome.height, outcome.index);
            Ok(Written { id, height, index, results: Vec::new() })
        }
    }
}

/// Whether all in it is in the name of the user whose key has signed it, or of the key's account,
/// where there are accounts.
fn check_user(access: &Access, envelope: &Envelope) -> Result<(), Refusal> {
    let no = |message| Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message));
    if let Some(account) = access.account(&envelope.signer)
        && envelope.transactions.iter().all(|transaction| transaction.user == account)
    {
        return Ok(());
    }
    let Some(user) = access.user_of_key(&envelope.signer) else {
        let key = text_of(&envelope.signer);
        return no(format!("no user here has the key {key}: CREATE USER … KEY '{key}'"));
    };
    if !user.login {
        return no(format!("role {:?} is not permitted to log in", user.name));
    }
    let Some(other) = envelope.transactions.iter().find(|t| t.user != user.name) else {
        return Ok(());
    };
    let other: String = other.user.chars().take(64).collect();
    no(format!("the key is that of user {:?}: it cannot sign for {other:?}", user.name))
}

/// A password in a block is told to everybody who ever reads it, so none gets that far.
fn check_passwords(transaction: &Transaction) -> Result<(), Refusal> {
    let about_users = |sql: &&str| access::is_about(sql);
    let statements = transaction.statements.iter().map(|statement| statement.sql.as_str());
    for sql in statements.filter(about_users) {
        let mut change = Change::parse(sql)?;
        if matches!(change.password_mut(), Some(Password::Plain(_))) {
            let message = "a password stands in the signed statement in plain: sign a verifier in \
                           its place (SCRAM-SHA-256$…), as `rota tx` does, and do not use this \
                           password any more";
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message));
        }
    }
    Ok(())
}

/// What an honest client would not have sent.
fn malformed(invalid: Invalid) -> Refusal {
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, invalid.to_string())
}
