//! Who a client is: passwords on both doors. Step 1 of a transaction's life, before its first
//! statement.
//!
//! ```text
//!  PostgreSQL ──► Credentials::exchange ──► scram::Exchange ──┐
//!                                                             ├─► Login ──► Driver
//!  HTTP       ──► Credentials::basic ──► known? else Hashing ─┘
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

mod hashing;
mod known;
pub mod operator;
pub mod scram;
mod seal;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_core::error::{Refusal, sqlstate};
use rota_core::genesis::Genesis;
use rota_core::types::PublicKey;
use rota_store::access::{Access, User, Verifier, View};

use crate::tls::Tls;
use hashing::Hashing;
use known::Known;
use operator::Operator;
use scram::{Binding, Exchange};

pub use seal::seal;

/// Who an HTTP request without credentials is, where that is allowed.
pub const OPEN_USER: &str = "rota";

/// How much of a name that could not log in is logged: PostgreSQL's names have 63 bytes.
const LOGGED_CHARACTERS: usize = 63;

/// Whose session or request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: Arc<str>,
    /// Whether it may do everything.
    pub administrator: bool,
    /// What it is known by.
    pub proof: Proof,
}

impl Login {
    /// Who has a name now: a user that may log in, or, where there are accounts, an account. Nobody
    /// else.
    pub fn of(access: &Access, name: &str) -> Option<Self> {
        match access.user(name) {
            Some(user) => user.login.then(|| login(user)),
            None if access.is_account(name) => {
                Some(Self { user: name.into(), administrator: false, proof: Proof::default() })
            }
            None => None,
        }
    }
}

/// What a user is known by: another one of the same name has another. Who has logged in stays who
/// it is for as long as this does not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    key: Option<PublicKey>,
    verifier: Option<Verifier>,
}

impl Proof {
    /// What the user is known by now.
    pub fn of(user: &User) -> Self {
        Self { key: user.key, verifier: user.verifier.clone() }
    }
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
    /// Other passwords from the same address wait to be checked.
    #[error("too many passwords from this address are being checked: try again")]
    Busy,
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
            Self::Busy => Refusal::new(sqlstate::BUSY, self.to_string()),
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
    /// Of this server: it matters under `pow`.
    operator: Option<Operator>,
    /// What made-up verifiers are made of.
    secret: [u8; 32],
    known: Arc<Known>,
    hashing: Hashing,
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
        let (known, hashing) = (Arc::new(Known::new()), Hashing::new());
        Self { view, open, operator: None, secret, known, hashing }
    }

    /// The same for the server of this operator: under `pow` it signs whatever its clients write in
    /// the operator's name, so that is who they are.
    #[must_use]
    pub fn of(self, operator: Operator) -> Self {
        Self { operator: Some(operator), ..self }
    }

    /// Lets a user in that has neither password nor key and comes from this machine, where the
    /// server's settings say so. Under `pow` that is the server's operator, whatever name is given.
    pub fn open_login(&self, from: IpAddr, user: &str) -> Option<Login> {
        if !self.open || !from.to_canonical().is_loopback() {
            return None;
        }
        let access = self.view.current();
        if let Some(operator) = self.operator.as_ref().and_then(|own| own.login(&access)) {
            return Some(operator);
        }
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
        self.still(user, exchange.proven().ok_or(Denied::Wrong)?)
    }

    /// Who an HTTP request is from, by its `Authorization` header: `Basic`, or `Bearer
    /// user:password` for libraries that know nothing else. One that a proxy has `passed_on` may be
    /// from anywhere: it needs a password.
    pub async fn basic(
        &self,
        from: IpAddr,
        passed_on: bool,
        authorization: Option<&str>,
    ) -> Result<Login, Denied> {
        let open_login = |user| if passed_on { None } else { self.open_login(from, user) };
        let Some(authorization) = authorization else {
            return open_login(OPEN_USER).ok_or(Denied::Missing);
        };
        let given = user_and_password(authorization).ok_or(Denied::Wrong)?;
        let (user, password) = given.split_once(':').ok_or(Denied::Wrong)?;
        if let Some(login) = open_login(user) {
            return Ok(login);
        }
        let checked = self.check(from, user, password).await;
        if checked == Err(Denied::Wrong) {
            let user: String = user.chars().take(LOGGED_CHARACTERS).collect();
            tracing::warn!(address = %from, ?user, "an HTTP client could not log in");
        }
        checked
    }

    /// Whose password it is.
    async fn check(&self, from: IpAddr, user: &str, password: &str) -> Result<Login, Denied> {
        let (verifier, genuine) = self.verifier(user);
        if !self.known.contains(user, password, &verifier) {
            let mark = self.known.mark(user, password, &verifier).ok_or(Denied::Unavailable)?;
            let (user, password) = (user.to_owned(), password.to_owned());
            let (verifier, known) = (verifier.clone(), self.known.clone());
            let hash = move || {
                // Others with the same password, from elsewhere, may have had their turn before.
                if known.contains(&user, &password, &verifier) {
                    return true;
                }
                let right = scram::is_of(&verifier, &password) && genuine;
                if right {
                    known.insert(&user, &password, &verifier);
                }
                right
            };
            if !self.hashing.is_right(from, mark, hash).await? {
                return Err(Denied::Wrong);
            }
        }
        self.still(user, &verifier)
    }

    /// The user, if it may log in and the verifier is the one it has now.
    fn still(&self, user: &str, verifier: &Verifier) -> Result<Login, Denied> {
        let access = self.view.current();
        if let Some(operator) = &self.operator
            && operator.verifier(&access, user) == Some(verifier)
        {
            return operator.login(&access).ok_or(Denied::Wrong);
        }
        let found = access.user(user).filter(|user| user.login);
        let same = found.filter(|user| user.verifier.as_ref() == Some(verifier));
        same.map(login).ok_or(Denied::Wrong)
    }

    /// What a user's password is checked against, and whether there is any that is right.
    fn verifier(&self, user: &str) -> (Verifier, bool) {
        let access = self.view.current();
        let operator = self.operator.as_ref().and_then(|own| own.verifier(&access, user));
        if let Some(verifier) = operator {
            return (verifier.clone(), true);
        }
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
    let administrator = user.rights.administrator;
    Login { user: user.name.as_str().into(), administrator, proof: Proof::of(user) }
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use rota_core::crypto::SecretKey;
    use rota_core::genesis::{Administrator, FORMAT, Method, Parameters, Pow};
    use rota_core::members::Member;
    use rota_core::types::Digest;
    use rota_store::StateDb;
    use rota_store::access::text_of;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// ada has a password, kim a key, rota neither; all are administrators.
    fn credentials(open: bool) -> Credentials {
        let home = tempfile::tempdir().unwrap();
        let genesis = genesis();
        let state = StateDb::open(home.path(), &genesis).unwrap();
        Credentials::new(state.access(), open, &genesis)
    }

    fn genesis() -> Genesis {
        let [own, key] = [1, 2].map(|byte| SecretKey::from_bytes([byte; 32]).public());
        let verifier = scram::derive("geheim", b"saltsalt", scram::ITERATIONS).to_string();
        let user = Administrator::open;
        Genesis {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1,
            method: Method::Poa,
            pow: None,
            seed: Digest([7; 32]),
            trusted_servers: true,
            administrators: vec![
                user("rota"),
                Administrator { verifier: Some(verifier), ..user("ada") },
                Administrator { key: Some(own), ..user("kim") },
            ],
            sqlite: rota_store::sqlite::identity(),
            parameters: Parameters::default(),
            members: vec![Member { key, weight: 1 }],
        }
    }

    /// The same under `pow`, at the server of a key.
    fn operated(open: bool, server: u8, password: Option<&str>) -> Credentials {
        let home = tempfile::tempdir().unwrap();
        let pow = Some(Pow::default());
        let genesis = Genesis { method: Method::Pow, pow, members: Vec::new(), ..genesis() };
        let state = StateDb::open(home.path(), &genesis).unwrap();
        let path = home.path().join(operator::PASSWORD_FILE);
        if let Some(password) = password {
            std::fs::write(&path, format!("{password}\n")).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        let key = SecretKey::from_bytes([server; 32]).public();
        let operator = Operator::load(home.path(), key).unwrap();
        if password.is_some() {
            std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            assert!(Operator::load(home.path(), key).is_err(), "others may read it");
        }
        Credentials::new(state.access(), open, &genesis).of(operator)
    }

    #[tokio::test]
    async fn under_pow_whoever_is_let_in_by_this_server_is_its_operator() {
        let account = text_of(&SecretKey::from_bytes([9; 32]).public());
        // Kim's key is the first server's, nobody's the second one's.
        for (server, name, may) in [(1, "kim", true), (9, account.as_str(), false)] {
            let operator = Ok((name.to_owned(), may));
            let open = operated(true, server, None);
            let who = |login: Login| (login.user.to_string(), login.administrator);
            for user in ["rota", "ada", "whoever"] {
                assert_eq!(open.open_login(HERE, user).map(who), operator.clone().ok());
                assert_eq!(open.open_login(ELSEWHERE, user), None);
            }
            let closed = operated(false, server, Some("offen"));
            assert_eq!(closed.open_login(HERE, "kim"), None);
            let known = header("operator", "offen");
            let known = closed.basic(ELSEWHERE, false, Some(&known)).await.map(who);
            assert_eq!(known, operator);
            for (user, password) in [("operator", "geheim"), ("kim", "offen"), (name, "offen")] {
                let denied = closed.basic(HERE, false, Some(&header(user, password))).await;
                assert_eq!(denied, Err(Denied::Wrong), "{user}");
            }
            // Users of the database are who they are: nothing is signed for them here.
            let ada = closed.basic(HERE, false, Some(&header("ada", "geheim"))).await.map(who);
            assert_eq!(ada, Ok(("ada".into(), true)));
            let none = operated(false, server, None);
            let denied = none.basic(HERE, false, Some(&header("operator", "offen"))).await;
            assert_eq!(denied, Err(Denied::Wrong));
        }
    }

    fn header(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[tokio::test]
    async fn a_right_password_is_known_the_second_time() {
        let credentials = credentials(false);
        for authorization in [header("ada", "geheim"), "Bearer ada:geheim".into()] {
            let login = credentials.basic(ELSEWHERE, false, Some(&authorization)).await.unwrap();
            assert_eq!((&*login.user, login.administrator), ("ada", true));
        }
        // With nobody left to hash, only what is known gets in.
        credentials.hashing.turns.close();
        assert!(credentials.basic(HERE, false, Some(&header("ada", "geheim"))).await.is_ok());
        let wrong = credentials.basic(HERE, false, Some(&header("ada", "other"))).await;
        assert_eq!(wrong, Err(Denied::Unavailable));
    }

    #[tokio::test]
    async fn nobody_learns_why_a_password_is_wrong() {
        let credentials = credentials(true);
        for (user, password) in
            [("ada", "wrong"), ("nobody", "geheim"), ("kim", ""), ("", ""), ("ada", "")]
        {
            let denied = credentials.basic(HERE, false, Some(&header(user, password))).await;
            assert_eq!(denied, Err(Denied::Wrong), "{user}");
        }
        for malformed in ["", "Basic", "Basic !", "Basic YWRh", "Digest x", "Bearer geheim"] {
            let denied = credentials.basic(HERE, false, Some(malformed)).await;
            assert_eq!(denied, Err(Denied::Wrong), "{malformed}");
        }
    }

    #[test]
    fn exchanges_about_nobody_look_like_all_others() {
        let [one, other] = [credentials(false), credentials(false)];
        let challenge = |credentials: &Credentials, user: &str| {
            let mut exchange = credentials.exchange(user, Binding::Nothing);
            let first = exchange.first(scram::MECHANISM, b"n,,n=,r=abc").unwrap();
            let (_, rest) = std::str::from_utf8(&first).unwrap().split_once(",s=").unwrap();
            rest.to_owned()
        };
        for user in ["nobody", "kim", "rota", ""] {
            let said = challenge(&one, user);
            assert_eq!(said, challenge(&other, user), "{user}: the same after a restart");
            let (salt, iterations) = said.split_once(',').unwrap();
            assert_eq!(STANDARD.decode(salt).unwrap().len(), scram::SALT_BYTES);
            assert_eq!(iterations, "i=4096");
            assert_ne!(said, challenge(&one, &format!("{user}x")));
        }
        for user in ["nobody", "kim", "ada"] {
            let mut client = ScramSha256::new(b"wrong", ChannelBinding::unsupported());
            let mut exchange = one.exchange(user, Binding::Nothing);
            let challenge = exchange.first(scram::MECHANISM, client.message()).unwrap();
            client.update(&challenge).unwrap();
            assert_eq!(exchange.last(client.message()), Err(Denied::Wrong), "{user}");
            assert_eq!(one.proven(user, &exchange), Err(Denied::Wrong));
        }
    }

    #[tokio::test]
    async fn only_who_has_neither_password_nor_key_needs_none_and_only_here() {
        let open = credentials(true);
        assert!(open.open_login(HERE, "rota").is_some_and(|login| login.administrator));
        assert_eq!(open.basic(HERE, false, None).await.map(|login| login.user), Ok("rota".into()));
        for user in ["ada", "kim", "nobody"] {
            assert_eq!(open.open_login(HERE, user), None, "{user}");
        }
        assert_eq!(open.open_login(ELSEWHERE, "rota"), None);
        assert_eq!(open.basic(ELSEWHERE, false, None).await, Err(Denied::Missing));
        // What a proxy on this machine passes on is not from here.
        assert_eq!(open.basic(HERE, true, None).await, Err(Denied::Missing));
        let named = header("rota", "");
        assert!(open.basic(HERE, false, Some(&named)).await.is_ok());
        assert_eq!(open.basic(HERE, true, Some(&named)).await, Err(Denied::Wrong));
        let closed = credentials(false);
        assert_eq!(closed.open_login(HERE, "rota"), None);
        assert_eq!(closed.basic(HERE, false, None).await, Err(Denied::Missing));
    }

    #[test]
    fn a_password_in_a_statement_becomes_a_verifier() {
        assert_eq!(seal("SELECT 'CREATE USER a PASSWORD ''b'''"), Ok(None));
        for statement in ["CREATE USER a PASSWORD 'geheim'", "alter role a with password 'geheim'"]
        {
            let sealed = seal(statement).unwrap().unwrap();
            assert!(!sealed.contains("geheim") && sealed.contains(scram::MECHANISM), "{sealed}");
            assert_ne!(seal(statement).unwrap().unwrap(), sealed, "salts differ");
            assert_eq!(seal(&sealed), Ok(Some(sealed.clone())), "a verifier stays");
            let text = sealed.split('\'').nth(1).unwrap();
            let verifier: Verifier = text.parse().unwrap();
            assert!(scram::is_of(&verifier, "geheim") && !scram::is_of(&verifier, "Geheim"));
        }
        let refused = seal("CREATE USER a PASSWORD 'geheim' NONSENSE").unwrap_err();
        assert!(!refused.message.contains("geheim"), "{refused}");
    }
}
