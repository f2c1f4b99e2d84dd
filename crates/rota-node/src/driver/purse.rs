//! Under `pow`: whether the signer of a write can pay for it, or has anything here, as far as this
//! server knows (step 2). Every server would skip what cannot be paid for; here its client hears so
//! at once.

use std::sync::{Arc, Mutex, PoisonError};

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::transaction::Envelope;
use rota_store::accounts::Purses;

use super::Driver;

/// Where there are accounts: what is in them.
pub(crate) type Purse = Option<Arc<Mutex<Purses>>>;

/// For all who ask.
pub(crate) fn purse_of(purses: Option<Purses>) -> Purse {
    purses.map(|purses| Arc::new(Mutex::new(purses)))
}

impl Driver {
    /// Refuses what this server could not pay for: a transaction of so many bytes.
    pub(super) async fn check_purse(&self, bytes: usize) -> Result<(), Refusal> {
        let signer = self.0.board.key;
        self.ask_purses(move |purses| purses.can_pay(&signer, bytes)).await
    }

    /// The same of an envelope that somebody else has signed.
    pub(super) async fn check_purse_of(&self, envelope: &Arc<Envelope>) -> Result<(), Refusal> {
        let envelope = Arc::clone(envelope);
        self.ask_purses(move |purses| purses.can_pay_all(&envelope)).await
    }

    async fn ask_purses(
        &self,
        ask: impl FnOnce(&Purses) -> Result<Result<(), Refusal>, Fault> + Send + 'static,
    ) -> Result<(), Refusal> {
        let Some(purses) = self.0.purse.clone() else { return Ok(()) };
        let asked = move || ask(&purses.lock().unwrap_or_else(PoisonError::into_inner));
        let answer = self.on_reader(asked).await?;
        answer.map_err(|fault| Refusal::new(sqlstate::INTERNAL, fault.to_string()))?
    }
}
