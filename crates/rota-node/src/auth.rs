//! Who a client is: passwords on both doors. Step 1 of a transaction's life, before its first
//! statement.
//!
//! ```text
//!  PostgreSQL ──► Credentials::exchange ──► scram::Exchange ──┐
//!                                                             ├─► Login ──► Driver
//!  HTTP       ──► Credentials::basic ──► known? else PBKDF2 ──┘
//!
//!  Driver ──► seal: a password in a statement becomes a verifier before anything is signed
//! ```
//!
//! A wrong password, a name that nobody has, a user without a password and one who may not log in
//! get the same answer after the same work, so that trying names tells nothing.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod known;
pub mod scram;
mod seal;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_core::error::Refusal;
use rota_core::genesis::Genesis;
use rota_store::access::{User, Verifier, View};
use tokio::sync::Semaphore;

use crate::tls::Tls;
use known::Known;
use scram::{Binding, Exchange};

pub use seal::seal;

/// Who an HTTP request without credentials is, where that is allowed.
pub const OPEN_USER: &str = "rota";

/// How many passwords that are not known yet are hashed at a time: some half a millisecond of a
/// CPU each. Others wait, so that a flood of wrong passwords leaves CPUs for everything else.
const HASHING: usize = 1;

/// Whose session or request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: Arc<str>,
    /// Whether it may do everything.
    pub administrator: bool,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No password was given, and one is needed.
    #[error("a password is needed")]
    Missing,
    /// Name or password are wrong; which, is never said.
    #[error("password authentication failed")]
    Wrong,
    /// The client's messages make no sense, or somebody sits in between.
    #[error("{0}")]
    Protocol(&'static str),
    /// This machine has no randomness, or is stopping.
    #[error("passwords cannot be checked at the moment")]
    Unavailable,
}

impl Denied {
    /// What a PostgreSQL client is told, in PostgreSQL's words.
    pub fn refusal(self, user: &str) -> Refusal {
        match self {
            Self::Missing | Self::Wrong => {
                Refusal::new("28P01", format!("password authentication failed for user \"{user}\""))
            }
            Self::Protocol(wrong) => Refusal::new("08P01", wrong),
            Self::Unavailable => Refusal::new("57P03", self.to_string()),
        }
    }
}

/// What a door needs to know of who may pass.
#[derive(Clone)]
pub struct Entrance {
    /// Who clients are.
    pub credentials: Arc<Credentials>,
    /// What the door speaks TLS with, if it does.
    pub tls: Option<Tls>,
    /// Whether clients may speak without TLS.
    pub plain: bool,
}

/// Checks passwords against the users of the newest state.
pub struct Credentials {
    view: View,
    open: bool,
    /// What made-up verifiers are made of.
    secret: [u8; 32],
    known: Known,
    hashing: Semaphore,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials by the users that `view` shows. With `open`, users without password and key need
    /// none when they come from this machine.
    ///
    /// Salts of names that nobody has are made of the genesis, which all servers have and clients
    /// have not: so a name has the same salt on every server and after every restart, as real
    /// ones have.
    pub fn new(view: View, open: bool, genesis: &Genesis) -> Self {
        let mut secret = scram::hmac(&genesis.seed.0, &[b"rota: salts of nobody"]);
        for administrator in &genesis.administrators {
            let verifier = administrator.verifier.as_deref().unwrap_or_default();
            secret = scram::hmac(&secret, &[verifier.as_bytes()]);
        }
        Self { view, open, secret, known: Known::new(), hashing: Semaphore::new(HASHING) }
    }

    /// Lets a user in that has neither password nor key and comes from this machine, where the
    /// server's settings say so.
    pub fn open_login(&self, from: IpAddr, user: &str) -> Option<Login> {
        if !self.open || !from.to_canonical().is_loopback() {
            return None;
        }
        let access = self.view.current();
        let found = access.user(user).filter(|user| user.login)?;
        (found.verifier.is_none() && found.key.is_none()).then(|| login(found))
    }

    /// Begins to find out whether a client knows a user's password. When the exchange has worked,
    /// [`Credentials::proven`] says who it is.
    pub fn exchange(&self, user: &str, binding: Binding) -> Exchange {
        let (verifier, genuine) = self.verifier(user);
        Exchange::new(verifier, genuine, binding)
    }

    /// The user of an exchange that has worked, unless it was dropped, locked or given another
    /// password meanwhile.
    pub fn proven(&self, user: &str, exchange: &Exchange) -> Result<Login, Denied> {
        let access = self.view.current();
        let found = access.user(user).filter(|user| user.login).ok_or(Denied::Wrong)?;
        let proven = exchange.proven().ok_or(Denied::Wrong)?;
        if found.verifier.as_ref() == Some(proven) { Ok(login(found)) } else { Err(Denied::Wrong) }
    }

    /// Who an HTTP request is from, by its `Authorization` header: `Basic`, or `Bearer
    /// user:password` for libraries that know nothing else.
    pub async fn basic(&self, from: IpAddr, authorization: Option<&str>) -> Result<Login, Denied> {
        let Some(authorization) = authorization else {
            return self.open_login(from, OPEN_USER).ok_or(Denied::Missing);
        };
        let given = user_and_password(authorization).ok_or(Denied::Wrong)?;
        let (user, password) = given.split_once(':').ok_or(Denied::Wrong)?;
        if let Some(login) = self.open_login(from, user) {
            return Ok(login);
        }
        let (verifier, genuine) = self.verifier(user);
        if !self.is_known(user, password, &verifier) {
            // Never closed.
            let _turn = self.hashing.acquire().await.map_err(|_| Denied::Unavailable)?;
            // Others with the same password may have waited for the same turn.
            if !self.is_known(user, password, &verifier) {
                let (password, verifier) = (password.to_owned(), verifier.clone());
                let hashed =
                    tokio::task::spawn_blocking(move || scram::is_of(&verifier, &password));
                if !hashed.await.map_err(|_| Denied::Unavailable)? || !genuine {
                    return Err(Denied::Wrong);
                }
            }
            self.known.insert(user, password, &verifier);
        }
        let access = self.view.current();
        let found = access.user(user).filter(|user| user.login).ok_or(Denied::Wrong)?;
        if found.verifier.as_ref() == Some(&verifier) {
            Ok(login(found))
        } else {
            Err(Denied::Wrong)
        }
    }

    fn is_known(&self, user: &str, password: &str, verifier: &Verifier) -> bool {
        self.known.contains(user, password, verifier)
    }

    /// What a user's password is checked against, and whether there is any that is right.
    fn verifier(&self, user: &str) -> (Verifier, bool) {
        let access = self.view.current();
        let found = access.user(user).filter(|user| user.login);
        match found.and_then(|user| user.verifier.clone()) {
            Some(verifier) => (verifier, true),
            None => (self.made_up(user), false),
        }
    }

    /// A verifier of a password that nobody knows, always the same for a name.
    fn made_up(&self, user: &str) -> Verifier {
        let part = |what: &[u8]| scram::hmac(&self.secret, &[what, user.as_bytes()]);
        let salt = part(b"salt");
        Verifier {
            iterations: scram::ITERATIONS,
            salt: salt.into_iter().take(scram::SALT_BYTES).collect(),
            stored_key: part(b"stored"),
            server_key: part(b"server"),
        }
    }
}

fn login(user: &User) -> Login {
    Login { user: user.name.as_str().into(), administrator: user.rights.administrator }
}

/// `user:password` out of an `Authorization` header.
fn user_and_password(authorization: &str) -> Option<String> {
    let (scheme, given) = authorization.trim().split_once(' ')?;
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        return String::from_utf8(STANDARD.decode(given).ok()?).ok();
    }
    scheme.eq_ignore_ascii_case("bearer").then(|| given.to_owned())
}
