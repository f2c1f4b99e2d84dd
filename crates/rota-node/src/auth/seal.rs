//! Step 2, before anything is signed: a password in `CREATE USER` or `ALTER USER` becomes a
//! verifier, so that no password enters a transaction, a block, or another machine.

use rota_core::error::{Refusal, sqlstate};
use rota_store::access::{self, Change, Password};

use super::scram::{ITERATIONS, SALT_BYTES, derive};

/// The statement to sign in place of one about users: in canonical text, its password replaced.
/// `None`: it is not about users, and is signed as it is.
pub fn seal(sql: &str) -> Result<Option<String>, Refusal> {
    if !access::is_about(sql) {
        return Ok(None);
    }
    let mut change = Change::parse(sql)?;
    if let Some(password) = change.password_mut()
        && let Password::Plain(plain) = password
    {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt)
            .map_err(|_| Refusal::new(sqlstate::INTERNAL, "this machine has no randomness"))?;
        *password = Password::Verifier(derive(plain, &salt, ITERATIONS));
    }
    Ok(Some(change.to_string()))
}
