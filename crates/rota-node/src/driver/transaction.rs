//! An interactive transaction, between BEGIN and COMMIT: step 1 on a draft, then steps 2 to 9 as
//! any other write.

use rota_core::error::{Refusal, sqlstate};
use rota_core::time::Time;
use rota_core::transaction::{Settings, Statement};
use rota_core::types::TransactionId;
use rota_store::query::Description;
use rota_store::{Rows, StatementResult};

use super::levels::{BeginOptions, RunOptions, WriteOptions};
use super::{Driver, WriteError, Written};

/// A transaction that a client is in. Dropped, it is rolled back.
pub struct Transaction {
    driver: Driver,
    id: TransactionId,
    begun: Time,
}

impl Driver {
    /// Begins a transaction. What it sees is fixed by its first statement; `now()` is the time of
    /// this call.
    pub fn begin(
        &self,
        _user: &str,
        _settings: Settings,
        _options: BeginOptions,
    ) -> Result<Transaction, Refusal> {
        self.0.board.refuse_if_diverged()?;
        let (_, begun) = self.0.board.chain_now();
        Ok(Transaction { driver: self.clone(), id: TransactionId::default(), begun })
    }
}

impl Transaction {
    /// Which transaction this will be once it is sent.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// What `now()` says in it.
    pub fn begun(&self) -> Time {
        self.begun
    }

    /// Runs a statement, savepoints included. After an error only ROLLBACK TO may follow.
    pub async fn run(
        &mut self,
        _statement: Statement,
        _options: &RunOptions,
    ) -> Result<StatementResult, Refusal> {
        Err(not_yet())
    }

    /// Runs a read about the schema, which is not part of what COMMIT checks.
    pub async fn look(
        &mut self,
        _statement: Statement,
        _options: &RunOptions,
    ) -> Result<Rows, Refusal> {
        Err(not_yet())
    }

    /// What a statement takes and gives, in the schema as this transaction sees it.
    pub async fn describe(&mut self, sql: String) -> Result<Description, Refusal> {
        self.driver.describe(sql, Settings::default()).await
    }

    /// Sends what was done, if anything was written, and waits for it as [`Driver::write`] does.
    /// 40001: what the client was shown is no longer so; nothing was changed.
    pub async fn commit(self, _options: &WriteOptions) -> Result<Option<Written>, WriteError> {
        Err(not_yet().into())
    }
}

fn not_yet() -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, "interactive transactions are not there")
}
