//! Reads that see blocks which are not final: step 1, on a draft of the newest state with those
//! blocks executed on it.

use rota_core::error::Refusal;
use rota_core::transaction::{Settings, Statement};
use rota_store::Rows;

use super::Driver;
use super::levels::{BeginOptions, ReadLevel, ReadOptions, RunOptions};

impl Driver {
    /// Runs a read on a draft with the blocks that are on their way; `None` if there are none, so
    /// that the newest executed state is what it should see.
    pub(super) async fn read_latest(
        &self,
        user: &str,
        statement: &Statement,
        settings: &Settings,
        options: &ReadOptions,
    ) -> Result<Option<Rows>, Refusal> {
        if self.0.unfinal.tail().await?.is_empty() {
            return Ok(None);
        }
        let level = ReadLevel::Latest;
        let begin = BeginOptions { read_only: true, after: options.after, level };
        let mut transaction = self.begin(user, settings.clone(), begin)?;
        let run = RunOptions { deadline: options.deadline, cancel: options.cancel.clone() };
        let refused = match transaction.run(statement.clone(), &run).await {
            Ok(result) => return Ok(Some(result.rows)),
            Err(refused) => refused,
        };
        // What a transaction may not run since servers could differ in it, a read may.
        transaction.look(statement.clone(), &run).await.map(Some).map_err(|_| refused)
    }
}
