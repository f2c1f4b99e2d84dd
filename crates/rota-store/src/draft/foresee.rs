//! What is not final yet, on a draft (`SET rota.read = latest`): the transactions of the blocks
//! after the executed state are run on it, before its client's first statement.
//!
//! It is a forecast: the blocks may still be abandoned, and a transaction that was executed before
//! and stands in one of them once more is run again here. Whatever the client then writes is
//! checked at apply like any other transaction.

use std::sync::Arc;

use rota_core::block::Block;
use rota_core::error::{Fault, Refusal};
use rota_core::genesis::Parameters;
use rota_core::transaction::{Statement, Transaction};
use rota_core::types::{ChainId, TransactionId};

use rusqlite::Connection;

use super::Session;
use crate::accounts::{self, Till};
use crate::engine::{Budget, Engine, MAX_SHOWN_BYTES, Running};
use crate::error::Trouble;
use crate::replay::{Stage, replay};
use crate::savepoints::Step;
use crate::sequences::{self, Source};
use crate::value::StatementResult;

/// The savepoint around one transaction.
const AROUND: &str = "rota_around";

impl Session {
    /// Runs the transactions of a block. Those that fail leave nothing, as at apply. False: one of
    /// them has taken everything with it, and the draft is as if it had just begun.
    pub(super) fn foresee(
        &mut self,
        block: &Block,
        chain: ChainId,
        parameters: &Parameters,
    ) -> Result<bool, Fault> {
        self.engine.context.trust();
        let connection = self.engine.database.connection();
        let stored = sequences::read(connection)
            .map_err(|error| Fault::storage("reading sequences on a draft", error))?;
        self.engine.context.sequences().load(stored);
        let terms = self.engine.access.terms();
        let mut till = match &terms {
            Some(terms) => self.pay(|connection| Till::open(connection, terms, &block.header))?,
            None => Till::default(),
        };
        let mut budget = Budget::of_block(parameters);
        for envelope in &block.body.envelopes {
            for transaction in &envelope.transactions {
                if let Some(terms) = &terms {
                    let (fee, signer) = (terms.fee(envelope, transaction), &envelope.signer);
                    if !self.pay(|connection| till.charge(connection, fee, signer))? {
                        continue;
                    }
                }
                self.engine.set_time(block.header.time);
                let id = transaction.id(chain, envelope.signer);
                self.ours(&format!("SAVEPOINT {AROUND}"))?;
                let access = Arc::clone(&self.engine.access);
                let ran =
                    access.may_sign(&envelope.signer, &transaction.user).map_err(Trouble::from);
                let ran = ran.and_then(|own_key| {
                    self.foresee_one(transaction, (id, own_key), parameters, &mut budget)
                });
                if ran.is_err() {
                    self.engine.access = access;
                }
                match ran {
                    Err(Trouble::Fault(fault)) => return Err(fault),
                    Err(Trouble::Refusal(_)) if self.is_lost() => {
                        self.ours("BEGIN")?;
                        return Ok(false);
                    }
                    Err(Trouble::Refusal(_)) => self.ours(&format!("ROLLBACK TO {AROUND}"))?,
                    Ok(()) => {}
                }
                self.ours(&format!("RELEASE {AROUND}"))?;
            }
        }
        self.pay(|connection| till.close(connection))?;
        Ok(true)
    }

    /// Takes the least fee of a transaction that is about to begin, if its user can pay, since at
    /// apply that is gone before its first statement: what it is shown of its own balance would
    /// differ.
    pub(super) fn pay_least(&mut self, user: &str) -> Result<(), Fault> {
        let access = &self.engine.access;
        let Some((terms, key)) = access.terms().zip(access.key_of_user(user)) else {
            return Ok(());
        };
        let account = accounts::account_of(&key);
        self.pay(|connection| accounts::take(connection, &account, terms.least_fee())).map(drop)
    }

    fn pay<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        self.engine.context.trust();
        run(self.engine.database.connection())
            .map_err(|error| Fault::storage("paying on a draft", error))
    }

    fn foresee_one(
        &mut self,
        transaction: &Transaction,
        (id, own_key): (TransactionId, bool),
        parameters: &Parameters,
        block: &mut Budget,
    ) -> Result<(), Trouble> {
        let granted = Budget::of_transaction(parameters, block);
        let settings = &transaction.settings;
        let result_bytes = MAX_SHOWN_BYTES;
        let (budget, read_only, wrote) = (granted, false, false);
        let user = transaction.user.as_str();
        let mut running =
            Running { id, user, own_key, settings, budget, result_bytes, read_only, wrote };
        let engine = &mut self.engine;
        engine.begin_transaction();
        let outcome = match &transaction.interactive {
            None => {
                engine.context.sequences().source = Source::State;
                let mut statements = (0..).zip(&transaction.statements);
                statements.try_for_each(|(number, statement)| {
                    engine.statement_number(number, statement, &mut running).map(drop)
                })
            }
            Some(interactive) => {
                let values = interactive.values.iter().copied().collect();
                engine.context.sequences().source = Source::Carried(values);
                engine.set_time(interactive.begun);
                replay(&mut Bare(engine), transaction, interactive, &mut running)
            }
        };
        block.steps = block.steps.saturating_sub(granted.steps - running.budget.steps);
        outcome
    }
}

impl Engine {
    fn statement_number(
        &mut self,
        number: u32,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        self.context.begin_statement(running.id, number);
        self.statement(statement, running)
    }
}

/// A stage without anything to restore but the connection's own.
struct Bare<'a>(&'a mut Engine);

impl Stage for Bare<'_> {
    fn statement(
        &mut self,
        number: u32,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        self.0.statement_number(number, statement, running)
    }

    fn savepoint(&mut self, step: Step) -> Result<(), Fault> {
        self.0.context.trust();
        let run = self.0.database.connection().execute(&step.sql(), []);
        run.map(drop).map_err(|error| Fault::storage("a savepoint on a draft", error))?;
        match step {
            Step::Back(_) => self.0.read_access(),
            Step::Set(_) | Step::Release(_) => Ok(()),
        }
    }

    fn goes_on(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.0.context.sequences().is_spent()
    }
}
