//! Whose transactions are worth passing on (step 3), by what is executed here: those that can be
//! paid for, or, without fees, of who has something here. So that neither mempools nor blocks are
//! anybody's to fill (`pow`). Where it counts is at apply.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rota_core::error::{Fault, Refusal};
use rota_core::transaction::Envelope;
use rota_core::types::{EnvelopeId, PublicKey};
use rusqlite::{Connection, OpenFlags};

use super::{Terms, account_of, balance, cannot_pay, is_nobody};
use crate::access::View;
use crate::state::STATE_FILE;

/// How long to wait for a lock: only the recovery after a crash ever holds one.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// More signers than stand in a block: with one more all are forgotten.
const MOST_SIGNERS: usize = 20_000;

/// With so many envelopes promised since the last block, all are forgotten: more than a block has
/// room for, and some megabytes of ids.
const MOST_PROMISED: usize = 100_000;

/// What each signer can pay, read from a server's files. One per thread.
pub struct Purses {
    terms: Terms,
    access: View,
    connection: Connection,
    /// The height at which balances were read, and what was promised of them since.
    height: i64,
    promises: Promises,
}

/// What was promised since the last block, of a bounded number of envelopes.
#[derive(Default)]
struct Promises {
    by_signer: BTreeMap<PublicKey, Promised>,
    envelopes: usize,
}

#[derive(Default)]
struct Promised {
    fees: i64,
    envelopes: BTreeSet<EnvelopeId>,
}

impl Promises {
    /// One more envelope, with which the signer has promised so much. With too many of them all
    /// others are forgotten.
    fn add(&mut self, signer: PublicKey, id: EnvelopeId, fees: i64) {
        if self.by_signer.len() >= MOST_SIGNERS || self.envelopes >= MOST_PROMISED {
            *self = Self::default();
        }
        let promised = self.by_signer.entry(signer).or_default();
        promised.fees = fees;
        if promised.envelopes.insert(id) {
            self.envelopes = self.envelopes.saturating_add(1);
        }
    }
}

impl Purses {
    /// For the server whose files are in `home`, and whose users and grants `access` shows. `None`
    /// where there are no accounts.
    pub fn open(home: &Path, access: View) -> Result<Option<Self>, Fault> {
        let Some(terms) = access.current().terms() else { return Ok(None) };
        let fault = |error| Fault::storage("opening state.db to read balances", error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(home.join(STATE_FILE), flags).map_err(fault)?;
        connection.busy_timeout(BUSY).map_err(fault)?;
        let promises = Promises::default();
        Ok(Some(Self { terms, access, connection, height: -1, promises }))
    }

    /// Whether a signer can pay for one transaction of so many bytes, sent alone.
    pub fn can_pay(&self, signer: &PublicKey, bytes: usize) -> Result<Result<(), Refusal>, Fault> {
        self.has(signer, self.terms.fee_of(1, bytes))
    }

    /// Whether it can for all in an envelope.
    pub fn can_pay_all(&self, envelope: &Envelope) -> Result<Result<(), Refusal>, Fault> {
        self.has(&envelope.signer, self.fees(envelope))
    }

    fn fees(&self, envelope: &Envelope) -> i64 {
        let fees = envelope.transactions.iter().map(|one| self.terms.fee(envelope, one));
        fees.fold(0, i64::saturating_add)
    }

    /// Whether an envelope is worth passing on: all in it can be paid for, together with what the
    /// same signer has sent since the last block was executed. One that comes again is worth what
    /// it was.
    pub fn admits(&mut self, envelope: &Envelope) -> Result<bool, Fault> {
        self.look_at_height()?;
        let (signer, id) = (envelope.signer, envelope.id());
        let before = self.promises.by_signer.get(&signer);
        if before.is_some_and(|promised| promised.envelopes.contains(&id)) {
            return Ok(true);
        }
        let promised = before.map_or(0, |promised| promised.fees);
        let fees = promised.saturating_add(self.fees(envelope));
        if self.has(&signer, fees)?.is_err() {
            return Ok(false);
        }
        self.promises.add(signer, id, fees);
        Ok(true)
    }

    fn has(&self, signer: &PublicKey, fees: i64) -> Result<Result<(), Refusal>, Fault> {
        let balance = balance(&self.connection, &account_of(signer)).map_err(reading)?;
        if self.terms.has_fee() {
            return Ok(if balance >= fees { Ok(()) } else { Err(cannot_pay(signer, fees)) });
        }
        let is_somebody = balance > 0 || self.access.current().holds_something(signer);
        Ok(if is_somebody { Ok(()) } else { Err(is_nobody(signer)) })
    }

    /// What was promised before another block was executed is in blocks by now, or not worth
    /// remembering.
    fn look_at_height(&mut self) -> Result<(), Fault> {
        let height = self
            .connection
            .prepare_cached("SELECT height FROM main.rota_meta")
            .and_then(|mut height| height.query_row([], |row| row.get(0)))
            .map_err(reading)?;
        if self.height != height {
            self.height = height;
            self.promises = Promises::default();
        }
        Ok(())
    }
}

fn reading(error: rusqlite::Error) -> Fault {
    Fault::storage("reading balances", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_signer_cannot_make_a_server_remember_any_number_of_envelopes() {
        let mut promises = Promises::default();
        let signer = PublicKey([1; 32]);
        for number in 0..MOST_PROMISED + 10 {
            let mut id = EnvelopeId::default();
            id.0[..8].copy_from_slice(&number.to_le_bytes());
            promises.add(signer, id, 7);
        }
        let promised = &promises.by_signer[&signer];
        assert_eq!((promised.envelopes.len(), promised.fees), (10, 7));
    }
}
