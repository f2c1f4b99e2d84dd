//! Accounts (`pow`): what each key owns, what the finder of a block is paid, what a transaction
//! costs its signer, and `rota_transfer`. Step 8, and step 1 on drafts, by the same rules.
//!
//! ```text
//!   block ── reward to its finder ── fee, transaction ── fee, transaction ── … ── fees to it
//!                                    │          └─ rota_transfer: checked when called, written
//!                                    │             when its statement has succeeded
//!                                    └─ kept if the transaction fails; who cannot pay is skipped
//! ```
//! `rota_accounts` has a row for each balance above zero and no other, under the root. At every
//! height all balances together are what all finders so far were paid: nothing is lost or made.

mod purses;
mod transfer;

use rota_core::block::{Header, Turn};
use rota_core::codec::encode;
use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::genesis::Genesis;
use rota_core::transaction::{Envelope, Transaction};
use rota_core::types::{Height, PublicKey};
use rusqlite::{Connection, OptionalExtension};

use crate::access::{key_of, text_of};
use crate::state::StateDb;

pub use purses::Purses;
pub(crate) use transfer::{FUNCTION, Transfers, register};

/// The table.
pub(crate) const CREATE: &str =
    "CREATE TABLE rota_accounts(account TEXT PRIMARY KEY, balance INTEGER NOT NULL);";

/// The SQLSTATE of a transaction whose signer cannot pay its fee, and of a transfer of more than
/// there is: PostgreSQL's for what a program raises itself, which no driver tries again.
pub const NOT_ENOUGH: &str = "P0001";

/// What a fee is counted by.
const BYTES_PER_UNIT: u64 = 1_000;

/// What an envelope has beside its transactions: signer, expiry, their number, signature.
const ENVELOPE_FRAME: u64 = 32 + 16 + 4 + 64;

/// What a genesis says of accounts; under other methods than `pow` there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    reward: i64,
    fee_per_kb: i64,
}

impl Terms {
    pub(crate) fn of(genesis: &Genesis) -> Option<Self> {
        // Both are bounded far below by the genesis' check.
        let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let pow = genesis.pow.as_ref()?;
        Some(Self { reward: amount(pow.reward), fee_per_kb: amount(pow.fee_per_kb) })
    }

    /// Whether whoever pays may write: without a fee that needs a grant.
    pub(crate) fn has_fee(&self) -> bool {
        self.fee_per_kb > 0
    }

    /// The least that a transaction costs.
    pub(crate) fn least_fee(&self) -> i64 {
        self.fee_per_kb
    }

    /// What a transaction costs: for each started thousand of its own encoded bytes and an equal
    /// share of what its envelope has beside transactions, rounded up.
    pub(crate) fn fee(&self, envelope: &Envelope, transaction: &Transaction) -> i64 {
        if !self.has_fee() {
            return 0;
        }
        self.fee_of(envelope.transactions.len(), encode(transaction).len())
    }

    /// The same of one of so many bytes, in an envelope of so many.
    pub(crate) fn fee_of(&self, count: usize, own: usize) -> i64 {
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        let bytes = own.saturating_add(ENVELOPE_FRAME.div_ceil(count));
        let units = i64::try_from(bytes.div_ceil(BYTES_PER_UNIT)).unwrap_or(i64::MAX);
        self.fee_per_kb.saturating_mul(units)
    }

    /// What the finder of the block at a height is paid: nothing once all rewards together would be
    /// more than a balance can hold. So no sum of balances ever overflows.
    fn reward_at(&self, height: Height) -> i64 {
        let all = i128::from(self.reward) * i128::from(height.0);
        if all <= i128::from(i64::MAX) { self.reward } else { 0 }
    }
}

/// A key's account.
pub fn account_of(key: &PublicKey) -> String {
    text_of(key)
}

/// Whose account has this name, if it is one's: only `ed25519:` and 64 digits in lower case are.
pub fn key_of_account(name: &str) -> Option<PublicKey> {
    key_of(name).filter(|key| text_of(key) == name)
}

/// What an account has.
pub(crate) fn balance(connection: &Connection, account: &str) -> rusqlite::Result<i64> {
    let found = connection
        .prepare_cached("SELECT balance FROM main.rota_accounts WHERE account = ?1")?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

/// Adds to a balance.
pub(crate) fn give(connection: &Connection, account: &str, amount: i64) -> rusqlite::Result<()> {
    if amount == 0 {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO main.rota_accounts VALUES (?1, ?2)
             ON CONFLICT (account) DO UPDATE SET balance = balance + ?2",
        )?
        .execute((account, amount))
        .map(drop)
}

/// Takes from a balance. False: there is not as much, and nothing was taken.
pub(crate) fn take(connection: &Connection, account: &str, amount: i64) -> rusqlite::Result<bool> {
    if amount == 0 {
        return Ok(true);
    }
    let left = match balance(connection, account)?.checked_sub(amount) {
        Some(left) if left >= 0 => left,
        _ => return Ok(false),
    };
    if left == 0 {
        connection
            .prepare_cached("DELETE FROM main.rota_accounts WHERE account = ?1")?
            .execute([account])?;
    } else {
        connection
            .prepare_cached("UPDATE main.rota_accounts SET balance = ?2 WHERE account = ?1")?
            .execute((account, left))?;
    }
    Ok(true)
}

/// What one block's transactions have paid so far, and to whom it will be given.
#[derive(Debug, Default)]
pub(crate) struct Till {
    finder: Option<String>,
    fees: i64,
}

impl Till {
    /// A block begins: its finder is paid.
    pub(crate) fn open(
        connection: &Connection,
        terms: &Terms,
        header: &Header,
    ) -> rusqlite::Result<Self> {
        let Turn::Found { miner } = header.turn else { return Ok(Self::default()) };
        let finder = account_of(&miner);
        give(connection, &finder, terms.reward_at(header.height))?;
        Ok(Self { finder: Some(finder), fees: 0 })
    }

    /// Takes a transaction's fee. False: its signer cannot pay.
    pub(crate) fn charge(
        &mut self,
        connection: &Connection,
        fee: i64,
        signer: &PublicKey,
    ) -> rusqlite::Result<bool> {
        let paid = take(connection, &account_of(signer), fee)?;
        if paid {
            self.fees = self.fees.saturating_add(fee);
        }
        Ok(paid)
    }

    /// A block ends: its finder is given all fees.
    pub(crate) fn close(self, connection: &Connection) -> rusqlite::Result<()> {
        self.finder.map_or(Ok(()), |finder| give(connection, &finder, self.fees))
    }
}

/// Who cannot pay.
pub(crate) fn cannot_pay(signer: &PublicKey, fee: i64) -> Refusal {
    let message = format!(
        "not executed: the account of {} has not the {fee} that this costs",
        account_of(signer)
    );
    Refusal::new(NOT_ENOUGH, message)
}

/// Who has nothing here, where there is no fee.
pub(crate) fn is_nobody(signer: &PublicKey) -> Refusal {
    let account = account_of(signer);
    let message = format!(
        "not executed: {account} has neither a grant nor a balance here: GRANT … TO \"{account}\""
    );
    Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
}

impl StateDb {
    /// The block's finder is paid; nothing happens where there are no accounts.
    pub(crate) fn open_till(&mut self, header: &Header) -> Result<Till, Fault> {
        let Some(terms) = self.engine.access.terms() else { return Ok(Till::default()) };
        let mut till = Till::default();
        self.under_root("paying the finder of a block", |connection| {
            till = Till::open(connection, &terms, header)?;
            Ok(())
        })?;
        Ok(till)
    }

    /// All fees are given to the block's finder.
    pub(crate) fn close_till(&mut self, till: Till) -> Result<(), Fault> {
        if till.fees == 0 {
            return Ok(());
        }
        self.under_root("paying out fees", |connection| till.close(connection))
    }

    /// Takes a transaction's fee. Whether its signer is somebody here, so that what becomes of the
    /// transaction is remembered; or why it is not run, and not remembered either.
    ///
    /// Keys cost nothing, and a finder chooses what stands in its block. So what is remembered was
    /// paid for; or, without fees, its signer has something here, be it only a balance.
    pub(crate) fn enter(
        &mut self,
        envelope: &Envelope,
        transaction: &Transaction,
        till: &mut Till,
    ) -> Result<Result<bool, Refusal>, Fault> {
        let signer = &envelope.signer;
        let Some(terms) = self.engine.access.terms() else {
            return Ok(Ok(!self.engine.access.is_strange(signer)));
        };
        if till.finder.is_none() {
            let message = "not executed: its block does not say who found it";
            return Ok(Err(Refusal::new(sqlstate::PROTOCOL_VIOLATION, message)));
        }
        if terms.has_fee() {
            let fee = terms.fee(envelope, transaction);
            let mut paid = false;
            self.under_root("taking a fee", |connection| {
                paid = till.charge(connection, fee, signer)?;
                Ok(())
            })?;
            return Ok(if paid { Ok(true) } else { Err(cannot_pay(signer, fee)) });
        }
        let account = account_of(signer);
        let is_known = self.engine.access.holds_something(signer)
            || self.ours("reading a balance", |connection| balance(connection, &account))? > 0;
        if is_known {
            return Ok(Ok(true));
        }
        Ok(Err(is_nobody(signer)))
    }
}

#[cfg(test)]
mod tests {
    use rota_core::crypto::SecretKey;
    use rota_core::time::Time;
    use rota_core::transaction::{Expiry, Settings};
    use rota_core::types::ChainId;

    use super::*;

    fn envelope(transactions: usize, bytes: usize) -> Envelope {
        let transaction = Transaction {
            salt: [0; 16],
            user: "x".repeat(bytes),
            statements: Vec::new(),
            settings: Settings::default(),
            interactive: None,
        };
        let expiry = Expiry { height: Height(1), time: Time(1) };
        let key = SecretKey::from_bytes([1; 32]);
        Envelope::sign(ChainId([0; 32]), &key, expiry, vec![transaction; transactions])
    }

    #[test]
    fn an_envelope_has_as_many_bytes_beside_its_transactions_as_fees_are_counted_by() {
        for transactions in [1, 3, 7] {
            let envelope = envelope(transactions, 10);
            let own = encode(&envelope.transactions[0]).len() * transactions;
            assert_eq!(encode(&envelope).len() - own, usize::try_from(ENVELOPE_FRAME).unwrap());
        }
    }

    #[test]
    fn a_fee_is_for_each_started_thousand_bytes() {
        let terms = Terms { reward: 1, fee_per_kb: 7 };
        let empty = encode(&envelope(1, 0)).len();
        for (transactions, bytes, units) in
            [(1, 0, 1), (1, 1_000 - empty, 1), (1, 1_001 - empty, 2), (4, 1_001 - empty, 1)]
        {
            let envelope = envelope(transactions, bytes);
            let fee = terms.fee(&envelope, &envelope.transactions[0]);
            assert_eq!(fee, 7 * units, "{transactions} of {bytes}");
        }
        let free = Terms { reward: 1, fee_per_kb: 0 };
        let envelope = envelope(1, 5_000);
        assert_eq!(free.fee(&envelope, &envelope.transactions[0]), 0);
    }

    #[test]
    fn rewards_end_before_a_balance_could_overflow() {
        let terms = Terms { reward: 1 << 40, fee_per_kb: 0 };
        let last = (1 << 23) - 1;
        assert_eq!(terms.reward_at(Height(last)), 1 << 40);
        assert_eq!(terms.reward_at(Height(last + 1)), 0);
        assert_eq!(terms.reward_at(Height(u64::MAX)), 0);
    }

    #[test]
    fn only_the_canonical_text_of_a_key_names_an_account() {
        let name = account_of(&PublicKey([0xab; 32]));
        assert_eq!(key_of_account(&name), Some(PublicKey([0xab; 32])));
        let upper = name.replace("ab", "AB");
        let others = [name[1..].into(), upper, format!("{name}0"), name.replace("ed25519:", "")];
        for wrong in others {
            assert_eq!(key_of_account(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_balance_of_nothing_has_no_row_and_none_falls_below() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(CREATE).unwrap();
        give(&connection, "a", 5).unwrap();
        give(&connection, "a", 0).unwrap();
        assert!(!take(&connection, "a", 6).unwrap() && !take(&connection, "b", 1).unwrap());
        assert!(take(&connection, "a", 2).unwrap() && take(&connection, "b", 0).unwrap());
        assert_eq!(balance(&connection, "a").unwrap(), 3);
        assert!(take(&connection, "a", 3).unwrap());
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM rota_accounts", [], |row| row.get(0))
            .unwrap();
        assert_eq!((rows, balance(&connection, "a").unwrap()), (0, 0));
    }
}
