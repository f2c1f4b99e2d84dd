//! `SELECT rota_transfer(to, amount)`: some of the signer's balance becomes another account's (step
//! 1 on drafts, step 8 at apply).
//!
//! The function only checks and notes; what it noted is written when its statement has succeeded,
//! in the statement's transaction and under its savepoints. So a statement that fails has moved
//! nothing, and a query of `rota_accounts` in the very statement shows what was before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::error::{Refusal, sqlstate};
use rota_core::types::PublicKey;
use rusqlite::functions::{Context as Call, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error};

use super::{NOT_ENOUGH, account_of, balance, give, take};
use crate::access::{KEY_SCHEME, key_of};
use crate::determinism::Context;
use crate::engine::{Engine, Running, read_only};
use crate::error::{Trouble, judge};

/// The function's name.
pub(crate) const FUNCTION: &str = "rota_transfer";

/// What a transfer costs, in steps: two rows are written, with their leaves.
const STEPS: u64 = 1_000;

/// What the running statement may transfer, and has.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    /// Whose balance it is; none while no statement runs that may transfer.
    from: Option<String>,
    left: i64,
    to: BTreeMap<PublicKey, i64>,
}

impl Transfers {
    /// Notes one, if there is enough.
    fn add(&mut self, to: PublicKey, amount: i64) -> Result<(), Refusal> {
        let Some(from) = &self.from else {
            return Err(Refusal::new(sqlstate::INTERNAL, "no statement that may transfer runs"));
        };
        if amount <= 0 {
            let message = format!("{FUNCTION}(): the amount is {amount}; it must be above zero");
            return Err(Refusal::new(sqlstate::INVALID_PARAMETER, message));
        }
        let left = self.left.checked_sub(amount).filter(|left| *left >= 0).ok_or_else(|| {
            let message = format!("{from} has {}: {amount} cannot be transferred", self.left);
            Refusal::new(NOT_ENOUGH, message)
        })?;
        if account_of(&to) == *from {
            return Ok(());
        }
        self.left = left;
        // Not more than the whole balance.
        let noted = self.to.entry(to).or_default();
        *noted = noted.saturating_add(amount);
        Ok(())
    }
}

/// Registers the function on a connection on which statements are executed. It can stand in
/// statements only: a view, a trigger or a default would spend what is whoever's that uses it.
pub(crate) fn register(connection: &Connection, context: &Arc<Context>) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    let context = Arc::clone(context);
    connection.create_scalar_function(c"rota_transfer", 2, flags, move |call| {
        if !context.charge(STEPS) {
            return Err(Error::UserFunctionError("out of steps".into()));
        }
        let noted = asked(call).and_then(|(to, amount)| {
            context.transfers().add(to, amount)?;
            Ok(amount)
        });
        noted.map_err(|refusal| context.deny(refusal))
    })
}

/// To whom, and how much.
fn asked(call: &Call<'_>) -> Result<(PublicKey, i64), Refusal> {
    let wrong = |message: String| Refusal::new(sqlstate::INVALID_PARAMETER, message);
    let text = |value: ValueRef<'_>| value.as_str().map(str::to_owned).ok();
    let to = text(call.get_raw(0)).unwrap_or_default();
    let key = key_of(&to).or_else(|| key_of(&format!("{KEY_SCHEME}{to}"))).ok_or_else(|| {
        let shown: String = to.chars().take(80).collect();
        wrong(format!(
            "{FUNCTION}(): {shown:?} is no account: they are {KEY_SCHEME} and 64 hex digits"
        ))
    })?;
    let amount = match call.get_raw(1) {
        ValueRef::Integer(amount) => Some(amount),
        // As drivers send numbers whose type they do not know.
        other => text(other).and_then(|text| text.parse().ok()),
    };
    let amount =
        amount.ok_or_else(|| wrong(format!("{FUNCTION}(): the amount must be a whole number")))?;
    Ok((key, amount))
}

impl Engine {
    /// Before a statement runs: whose balance it may spend, if it mentions the function.
    pub(crate) fn open_transfers(
        &self,
        mentions: bool,
        running: &Running<'_>,
    ) -> Result<(), Trouble> {
        *self.context.transfers() = Transfers::default();
        if !mentions {
            return Ok(());
        }
        if running.read_only {
            return Err(read_only().into());
        }
        if self.access.terms().is_none() {
            let message = "this database has no accounts: there are some under pow only";
            return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
        }
        let Some(key) = self.access.key_of_user(running.user) else {
            let message = format!("user {:?} has no key, and so no account", running.user);
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message).into());
        };
        let from = account_of(&key);
        let phase = self.context.phase();
        self.context.trust();
        let left = balance(self.database.connection(), &from);
        self.context.resume(phase);
        let left = left.map_err(judge)?;
        *self.context.transfers() = Transfers { from: Some(from), left, to: BTreeMap::new() };
        Ok(())
    }

    /// After a statement has succeeded: what it transferred is written.
    pub(crate) fn settle_transfers(&self, running: &mut Running<'_>) -> Result<(), Trouble> {
        let Transfers { from, to, .. } = std::mem::take(&mut *self.context.transfers());
        let Some(from) = from.filter(|_| !to.is_empty()) else { return Ok(()) };
        running.wrote = true;
        self.context.trust();
        let connection = self.database.connection();
        // The client's last rowid is not one of ours.
        let inserted = connection.last_insert_rowid();
        let written = to.into_iter().try_for_each(|(key, amount)| {
            let taken = take(connection, &from, amount)?;
            assert!(taken, "the balance was checked for each transfer");
            give(connection, &account_of(&key), amount)
        });
        self.database.set_last_insert_rowid(inserted);
        written.map_err(judge)
    }
}
