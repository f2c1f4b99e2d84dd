//! Step 8, apply: one block is one SQLite transaction, one client transaction is one savepoint in
//! it.
//!
//! ```text
//!   BEGIN ── forget expired ids ── transaction, transaction, … ── leaves, root, height ── COMMIT
//!                                   │
//!                                   ├─ known id: skipped, no receipt
//!                                   ├─ expired, no fee, no member, …: a receipt that says so
//!                                   └─ SAVEPOINT, statements, RELEASE or ROLLBACK TO
//! ```
//! A statement that ends the block's transaction in spite of everything makes the whole block run
//! again, with that client transaction failed from the start. Trouble with the machine is a
//! [`Fault`]: the server stops, the block is not applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rota_core::block::{Applied, Block, Header};
use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Interactive, Transaction};
use rota_core::types::{Height, PublicKey};

use crate::access::Access;
use crate::accounts::Till;
use crate::engine::Budget;
use crate::merkle::TableId;
use crate::run::Failure;
use crate::schema::Schema;
use crate::sequences;
use crate::staged::Staged;
use crate::state::{AppliedBlock, StateDb};
use crate::value::Receipt;

/// After so many transactions of one signer that broke out of a block, the signer's later ones in
/// it fail unexecuted: each costs a run of the whole block.
const BREAK_OUTS_PER_SIGNER: usize = 2;

/// The same for all signers together, and all later transactions.
const BREAK_OUTS_PER_BLOCK: usize = 8;

/// Transactions that broke out of the block in an earlier run, by their place in it.
type BrokenOut = BTreeMap<u32, (PublicKey, Refusal)>;

/// How long before its block's time an interactive transaction may have begun: what `now()` said
/// in it should not be long ago.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// How far after it: clocks of servers differ, and block time is their median.
const MAX_AHEAD: Duration = Duration::from_secs(600);

enum Attempt {
    Done(AppliedBlock),
    BrokeOut(u32, PublicKey, Refusal),
}

/// What rolling back does not restore by itself.
pub(crate) struct Mark {
    schema: Arc<Schema>,
    next_table: TableId,
    next_transaction: i64,
    events: usize,
    sequences: usize,
    staged: Staged,
    access: Arc<Access>,
}

impl StateDb {
    /// Applies the block after [`Self::executed`], wholly or not at all; what was held before it is
    /// committed with it.
    pub fn apply(&mut self, block: &Block) -> Result<AppliedBlock, Fault> {
        self.commit()?;
        let done = match self.take_ahead(block)? {
            Some(done) => done,
            None => self.execute(block)?,
        };
        self.settle_remembered();
        self.write_down(done.applied)?;
        self.keep_log_short()?;
        Ok(done)
    }

    /// All but the COMMIT: the transaction stays open.
    pub(crate) fn execute(&mut self, block: &Block) -> Result<AppliedBlock, Fault> {
        if self.executed().height.next() != block.header.height {
            return Err(Fault::WrongFiles(format!(
                "block {} cannot follow height {}",
                block.header.height,
                self.executed().height
            )));
        }
        let mut broken_out = BrokenOut::new();
        loop {
            match self.attempt(block, &broken_out).inspect_err(|_| self.spoil())? {
                Attempt::Done(applied) => return Ok(applied),
                Attempt::BrokeOut(..) if self.holds() => self.hold_again()?,
                Attempt::BrokeOut(index, signer, refusal) => {
                    broken_out.insert(index, (signer, refusal));
                }
            }
        }
    }

    fn attempt(&mut self, block: &Block, broken_out: &BrokenOut) -> Result<Attempt, Fault> {
        let header = &block.header;
        let (height, time) = (header.height, header.time);
        self.engine.set_time(time);
        self.capture().events.clear();
        self.schema_touched = false;
        let start = self.mark();
        if !self.holds() {
            self.run_ours("BEGIN IMMEDIATE")?;
        }
        self.forget_expired(time)?;
        self.forget_staged(time)?;
        let mut till = self.open_till(header)?;
        let mut budget = Budget::of_block(&self.parameters);
        let mut receipts = Vec::with_capacity(block.transaction_count());
        let mut index = 0;
        for envelope in &block.body.envelopes {
            for transaction in &envelope.transactions {
                let id = transaction.id(self.chain, envelope.signer);
                if !self.remembered.contains(&id) {
                    let signer = envelope.signer;
                    let checked =
                        self.check(envelope, transaction, header, &mut till)?.and_then(|own_key| {
                            check_broken_out(broken_out, index, signer).map(|()| own_key)
                        });
                    let remembered = checked.as_ref().map_or_else(|no| no.remembered, |_| true);
                    let outcome = match checked {
                        Err(no) => Err(no.refusal),
                        Ok(own) => match self.run(transaction, id, (signer, own), &mut budget)? {
                            Err(Failure::BrokeOut(refusal)) => {
                                // With blocks before it, all of them begin again.
                                if !self.holds() {
                                    self.abandon(&start)?;
                                }
                                return Ok(Attempt::BrokeOut(index, signer, refusal));
                            }
                            Err(Failure::Refused(refusal)) => Err(refusal),
                            Ok(results) => Ok(results),
                        },
                    };
                    let receipt = Receipt { id, height, index, outcome };
                    if remembered {
                        self.remembered.add(&receipt, envelope.expiry.time);
                    }
                    receipts.push(receipt);
                }
                index += 1;
            }
        }
        self.close_till(till)?;
        let applied = self.finish(block)?;
        Ok(Attempt::Done(AppliedBlock { applied, receipts }))
    }

    /// What every server must find wrong with a transaction before running it; else whether its
    /// user's own key has signed it. Takes its fee, if there are any, once it is in time: so what
    /// has expired costs nothing, and whoever has paid is remembered and does not pay again.
    fn check(
        &mut self,
        envelope: &Envelope,
        transaction: &Transaction,
        header: &Header,
        till: &mut Till,
    ) -> Result<Result<bool, No>, Fault> {
        if let Err(no) = self.is_in_time(envelope, header.height, header.time) {
            return Ok(Err(no));
        }
        // What a stranger has signed is not remembered: keys cost nothing, so a leader could fill
        // its blocks with it, and every server's memory and state for an hour. Nor need it be.
        // Nothing was executed, so that "once only" is not touched; whoever puts it into a block
        // again wastes room in that block and no more. If its key becomes a user's before it
        // expires, or it can pay then, it may be executed, once: it says no more than what its
        // signer has asked for until that very time.
        Ok(match self.enter(envelope, transaction, till)? {
            Err(refusal) => Err(No { refusal, remembered: false }),
            Ok(remembered) => {
                let may_sign = self.engine.access.may_sign(&envelope.signer, &transaction.user);
                let own_key = may_sign.map_err(|refusal| No { refusal, remembered });
                let age = (self.most_age(MAX_AGE), self.most_age(MAX_AHEAD));
                own_key.and_then(|own| is_as_agreed(transaction, header.time, age).map(|()| own))
            }
        })
    }

    fn is_in_time(&self, envelope: &Envelope, height: Height, time: Time) -> Result<(), No> {
        let expiry = &envelope.expiry;
        if expiry.has_passed(height, time) {
            return Err(No::forgotten(sqlstate::SERIALIZATION_FAILURE, "expired; send it again"));
        }
        if expiry.is_too_far(height, time, self.parameters.max_expiry()) {
            let message = "its expiry is further ahead than transaction ids are remembered";
            return Err(No::forgotten(sqlstate::PROTOCOL_VIOLATION, message));
        }
        Ok(())
    }

    /// Leaves, hashes, root and height.
    fn finish(&mut self, block: &Block) -> Result<Applied, Fault> {
        self.write_remembered(block.header.height)?;
        self.fold()?;
        let applied = Applied { height: block.header.height, root: self.root() };
        let height = i64::try_from(applied.height.0).unwrap_or(i64::MAX);
        let id = block.id(self.chain);
        self.ours("writing the height", |connection| {
            connection
                .prepare_cached(
                    "UPDATE rota_meta SET height = ?1, block = ?2, root = ?3, next_table = ?4,
                     next_transaction = ?5",
                )?
                .execute((height, id.0, applied.root.0, self.next_table, self.next_transaction))?;
            self.write_root(connection, applied)
        })?;
        Ok(applied)
    }

    /// Everything at once into the file; from now on others see it.
    pub(crate) fn write_down(&mut self, applied: Applied) -> Result<(), Fault> {
        self.run_ours("COMMIT")?;
        self.applied = applied;
        self.view.publish(&self.engine.access);
        self.count_log();
        Ok(())
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            schema: Arc::clone(&self.schema),
            next_table: self.next_table,
            next_transaction: self.next_transaction,
            events: self.capture().events.len(),
            sequences: self.engine.context.sequences().mark(),
            staged: self.staged,
            access: Arc::clone(&self.engine.access),
        }
    }

    /// After SQLite has rolled back: forgets what happened since.
    pub(crate) fn restore(&mut self, mark: &Mark) -> Result<(), Fault> {
        self.capture().events.truncate(mark.events);
        self.next_table = mark.next_table;
        self.next_transaction = mark.next_transaction;
        self.engine.context.sequences().restore(mark.sequences);
        self.staged = mark.staged;
        self.engine.access = Arc::clone(&mark.access);
        // SQLite forgets what it knows of the schema, and all that is prepared, when something is
        // rolled back after a change of it, also of one that we had not taken note of yet, or that
        // an earlier transaction of the block has made.
        if self.schema_touched || !Arc::ptr_eq(&self.schema, &mark.schema) {
            self.set_schema(Arc::clone(&mark.schema))?;
        }
        Ok(())
    }

    /// Ends a run of the block whose transaction has been broken.
    fn abandon(&mut self, start: &Mark) -> Result<(), Fault> {
        if !self.engine.database.connection().is_autocommit() {
            self.run_ours("ROLLBACK")?;
        }
        self.restore(start)?;
        // Whatever SQLite has forgotten with the transaction, the next run starts as the first did.
        self.set_schema(Arc::clone(&start.schema))?;
        // Transactions before the one that broke out had settled theirs.
        let stored = self.ours("reading rota_sequences", sequences::read)?;
        self.engine.context.sequences().load(stored);
        self.staged = self.read_staged()?;
        Ok(())
    }

    /// Another schema from now on: nothing prepared for the old one is used again, and what SQLite
    /// has to read anew it reads now, not at the cost of the next statement.
    pub(crate) fn set_schema(&mut self, schema: Arc<Schema>) -> Result<(), Fault> {
        self.capture().set_schema(Arc::clone(&schema));
        self.schema = schema;
        self.engine.forget_statements();
        self.ours("reading the schema", |connection| {
            connection.prepare("SELECT 1 FROM rota_meta")?.exists([]).map(drop)
        })
    }

    pub(crate) fn run_ours(&self, sql: &str) -> Result<(), Fault> {
        self.ours(sql, |connection| connection.prepare_cached(sql)?.execute([]).map(drop))
    }
}

/// Not run at all.
struct No {
    refusal: Refusal,
    remembered: bool,
}

impl No {
    fn forgotten(code: &'static str, message: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(code, message), remembered: false }
    }

    fn remembered(code: &'static str, message: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(code, message), remembered: true }
    }
}

/// What a transaction says of its own time.
fn is_as_agreed(
    transaction: &Transaction,
    time: Time,
    (most_age, most_ahead): (Duration, Duration),
) -> Result<(), No> {
    if let Some(Interactive { begun, .. }) = transaction.interactive
        && (time.since(begun) > most_age || begun.since(time) > most_ahead)
    {
        let message = "it began too long before its block's time, or after it; try again";
        return Err(No::remembered(sqlstate::SERIALIZATION_FAILURE, message));
    }
    if transaction.settings.time_zone != "UTC" {
        return Err(No::remembered(sqlstate::FEATURE_NOT_SUPPORTED, "the time zone must be UTC"));
    }
    Ok(())
}

fn check_broken_out(broken_out: &BrokenOut, index: u32, signer: PublicKey) -> Result<(), No> {
    if let Some((_, refusal)) = broken_out.get(&index) {
        return Err(No { refusal: refusal.clone(), remembered: true });
    }
    let before = || broken_out.range(..index);
    let by_signer = before().filter(|(_, (by, _))| *by == signer).count();
    if by_signer >= BREAK_OUTS_PER_SIGNER || before().count() >= BREAK_OUTS_PER_BLOCK {
        let message =
            "not run: too many transactions before it in its block could not be held in it";
        return Err(No::remembered(sqlstate::STATEMENT_TOO_COMPLEX, message));
    }
    Ok(())
}
