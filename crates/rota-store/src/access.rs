//! Users, roles and grants: who there is, who may sign for whom, and what each may do. Replicated
//! state like any other, so that every server decides alike, at apply (step 8); drafts and reads
//! (step 1) are held to the same.
//!
//! ```text
//!   rota_users    name, key, verifier, servers, administrator, login ┐
//!   rota_roles    role, member                                       ├─► Access, in memory,
//!   rota_grants   object (or all), grantee, privileges             ┘   anew after each change
//! ```
//! * `change` has the words of the statements, `alter` carries them out;
//! * `rights` compares what a statement needs with what its user may;
//! * `verifier` is what is kept of a password.

mod alter;
mod change;
mod opened;
mod rights;
mod verifier;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_core::error::{Refusal, sqlstate};
use rota_core::genesis::{Administrator, Genesis};
use rota_core::types::PublicKey;
use rusqlite::Connection;

use crate::accounts::{self, Terms};
pub(crate) use alter::check_table;
pub(crate) use change::table_of;
pub use change::{
    Change, KEY_SCHEME, Objects, Options, PUBLIC, Password, Servers, is_about, key_of, kind_of,
    text_of,
};
pub(crate) use opened::opened;
pub(crate) use rights::{Need, Needs};
pub use rights::{Privilege, Privileges, Rights};
pub use verifier::{NotAVerifier, SCHEME, Verifier};

/// What stands for all tables in `rota_grants`: no table's name, since those are in lower case.
pub(crate) const ALL_TABLES: &str = "ALL TABLES";

/// The three tables.
pub(crate) const CREATE: &str = "
CREATE TABLE rota_users(name TEXT PRIMARY KEY, key BLOB UNIQUE, verifier TEXT,
    servers TEXT NOT NULL, administrator INTEGER NOT NULL, login INTEGER NOT NULL);
CREATE TABLE rota_roles(role TEXT NOT NULL, member TEXT NOT NULL, PRIMARY KEY (role, member));
CREATE TABLE rota_grants(object TEXT NOT NULL, grantee TEXT NOT NULL, privileges TEXT NOT NULL,
    PRIMARY KEY (object, grantee));
";

/// Somebody, or a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As it logs in.
    pub name: String,
    /// With this key it signs for itself.
    pub key: Option<PublicKey>,
    /// What tells whether a password is its own.
    pub verifier: Option<Verifier>,
    /// Which servers may sign for it.
    pub servers: Servers,
    /// Whether it may do everything.
    pub administrator: bool,
    /// Whether it may log in: roles may not.
    pub login: bool,
    /// What it may do, by itself and as a member of roles.
    pub rights: Arc<Rights>,
}

/// One row of `rota_grants`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// A table's or view's name in lower case; none: all tables.
    pub object: Option<String>,
    /// A user or role, or [`PUBLIC`].
    pub grantee: String,
    /// What.
    pub privileges: Privileges,
}

/// All users and grants as of one block. Never changed: the next change makes another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    trusted_servers: bool,
    members: Arc<BTreeSet<PublicKey>>,
    /// Present under `pow`: every key is a user then, by the name of its account.
    terms: Option<Terms>,
    users: BTreeMap<String, User>,
    keys: BTreeMap<PublicKey, String>,
    roles: BTreeSet<(String, String)>,
    grants: Vec<Grant>,
    /// What accounts may do that have grants or roles, ...
    accounts: BTreeMap<String, Arc<Rights>>,
    /// ... and what all others may.
    strangers: Arc<Rights>,
}

impl Access {
    /// Nobody yet.
    pub(crate) fn of(genesis: &Genesis) -> Self {
        let members = genesis.members.iter().map(|member| member.key).collect();
        let (trusted_servers, terms) = (genesis.trusted_servers, Terms::of(genesis));
        Self { trusted_servers, members: Arc::new(members), terms, ..Self::default() }
    }

    /// What blocks bring and transactions cost, where there are accounts.
    pub(crate) fn terms(&self) -> Option<Terms> {
        self.terms
    }

    /// Whether servers may sign changes of users and grants.
    pub fn trusted_servers(&self) -> bool {
        self.trusted_servers
    }

    /// By name: those of `rota_users`.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// What somebody may do: a user, or the account of any key where there are accounts.
    pub fn rights_of(&self, name: &str) -> Option<&Arc<Rights>> {
        match self.users.get(name) {
            Some(user) => Some(&user.rights),
            None if self.is_account(name) => {
                Some(self.accounts.get(name).unwrap_or(&self.strangers))
            }
            None => None,
        }
    }

    /// Whether a name is an account's, which is a user without a row.
    pub fn is_account(&self, name: &str) -> bool {
        self.terms.is_some() && accounts::key_of_account(name).is_some()
    }

    /// The account of a key, where there are accounts.
    pub fn account(&self, key: &PublicKey) -> Option<String> {
        self.terms.map(|_| accounts::account_of(key))
    }

    /// In whose name a server signs whatever its clients write, where it signs for nobody but its
    /// operator (`pow`): the user whose key it has, or else its account.
    pub fn operator(&self, server: &PublicKey) -> Option<String> {
        self.terms?;
        let user = self.user_of_key(server).filter(|user| user.login);
        Some(user.map_or_else(|| accounts::account_of(server), |user| user.name.clone()))
    }

    /// The key of a user or account: its balance is what it spends.
    pub(crate) fn key_of_user(&self, name: &str) -> Option<PublicKey> {
        match self.users.get(name) {
            Some(user) => user.key,
            None => accounts::key_of_account(name).filter(|_| self.terms.is_some()),
        }
    }

    /// Whether whoever writes in this name has signed with its own key, before that is known.
    pub(crate) fn signs_itself(&self, name: &str) -> bool {
        self.terms.is_some() && self.key_of_user(name).is_some()
    }

    /// Whether a key is a user's, or its account may write anything.
    pub(crate) fn holds_something(&self, key: &PublicKey) -> bool {
        let account = accounts::account_of(key);
        self.keys.contains_key(key)
            || self.rights_of(&account).is_some_and(|rights| rights.may_write())
    }

    /// Whose key it is.
    pub fn user_of_key(&self, key: &PublicKey) -> Option<&User> {
        self.users.get(self.keys.get(key)?)
    }

    /// All, by name.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// All grants, by object and grantee.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Pairs of a role and a member of it.
    pub fn roles(&self) -> &BTreeSet<(String, String)> {
        &self.roles
    }

    /// Whether a user is a role, or a member of it, also by way of others.
    pub(crate) fn is_member(&self, user: &str, role: &str) -> bool {
        roles_of(&self.memberships(), user).contains(role)
    }

    /// Whether `signer` may sign transactions in the name of `user`; whether with the user's own
    /// key. Where there are accounts everybody may for its own, and nobody for another's.
    pub(crate) fn may_sign(&self, signer: &PublicKey, user: &str) -> Result<bool, Refusal> {
        let no = |message: String| Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message);
        if self.is_account(user) {
            if accounts::key_of_account(user) == Some(*signer) {
                return Ok(true);
            }
            return Err(no(format!("only its own key signs for {user}")));
        }
        let is_member = self.members.contains(signer);
        let Some(user) = self.users.get(user) else {
            let shown: String = user.chars().take(64).collect();
            return Err(no(match is_member || self.keys.contains_key(signer) {
                false if self.terms.is_none() => format!("{signer} may not sign transactions"),
                _ => format!("there is no user {shown:?}"),
            }));
        };
        if !user.login {
            return Err(no(format!("role {:?} is not permitted to log in", user.name)));
        }
        if user.key == Some(*signer) {
            return Ok(true);
        }
        if !is_member {
            return Err(no(format!("{signer} may not sign for user {:?}", user.name)));
        }
        // Who has neither is let in by the server that it is at, where servers are trusted.
        let open = self.trusted_servers && user.key.is_none();
        if !(user.verifier.is_some() || open) {
            return Err(no(format!("only its own key signs for user {:?}", user.name)));
        }
        if !user.servers.include(signer) {
            return Err(no(format!("server {signer} may not sign for user {:?}", user.name)));
        }
        Ok(false)
    }

    /// Whether a key is neither a member's nor a user's.
    pub(crate) fn is_strange(&self, signer: &PublicKey) -> bool {
        !self.members.contains(signer) && !self.keys.contains_key(signer)
    }

    /// Whether a server may sign for a user, as its door must know before it lets it in.
    pub fn is_bound(&self, server: &PublicKey, user: &str) -> Result<(), Refusal> {
        self.may_sign(server, user).map(drop)
    }

    /// Whether somebody can change users and grants.
    fn has_administrator(&self, by_password: bool) -> bool {
        let mut administrators =
            self.users.values().filter(|user| user.administrator && user.login);
        administrators.any(|user| {
            let password = user.verifier.is_some() && user.servers != none();
            let by_server = self.trusted_servers && self.terms.is_none();
            user.key.is_some() || by_server && (password || !by_password)
        })
    }

    /// Users, roles and grants as the tables have them.
    pub(crate) fn read(&self, connection: &Connection) -> rusqlite::Result<Self> {
        let mut access = Self {
            trusted_servers: self.trusted_servers,
            members: Arc::clone(&self.members),
            terms: self.terms,
            ..Self::default()
        };
        let mut users = connection.prepare_cached(
            "SELECT name, key, verifier, servers, administrator, login FROM main.rota_users",
        )?;
        let mut rows = users.query([])?;
        while let Some(row) = rows.next()? {
            let verifier: Option<String> = row.get(2)?;
            let user = User {
                name: row.get(0)?,
                key: row.get::<_, Option<[u8; 32]>>(1)?.map(PublicKey),
                verifier: verifier.and_then(|text| text.parse().ok()),
                servers: stored_servers(&row.get::<_, String>(3)?),
                administrator: row.get(4)?,
                login: row.get(5)?,
                rights: Arc::default(),
            };
            if let Some(key) = user.key {
                access.keys.insert(key, user.name.clone());
            }
            access.users.insert(user.name.clone(), user);
        }
        let mut roles = connection.prepare_cached("SELECT role, member FROM main.rota_roles")?;
        let mut rows = roles.query([])?;
        while let Some(row) = rows.next()? {
            access.roles.insert((row.get(0)?, row.get(1)?));
        }
        let mut grants = connection.prepare_cached(
            "SELECT object, grantee, privileges FROM main.rota_grants ORDER BY object, grantee",
        )?;
        let mut rows = grants.query([])?;
        while let Some(row) = rows.next()? {
            access.grants.push(Grant {
                object: Some(row.get(0)?).filter(|object| object != ALL_TABLES),
                grantee: row.get(1)?,
                privileges: Privileges::of_letters(&row.get::<_, String>(2)?),
            });
        }
        access.settle();
        Ok(access)
    }

    /// What each user may do, from grants and roles.
    fn settle(&mut self) {
        let mut granted: BTreeMap<&str, Vec<&Grant>> = BTreeMap::new();
        for grant in &self.grants {
            granted.entry(&grant.grantee).or_default().push(grant);
        }
        let memberships = self.memberships();
        let makes_own = self.terms.is_some_and(|terms| terms.has_fee());
        let rights_of = |name: &str, administrator: bool| {
            let names = roles_of(&memberships, name);
            let mut rights = Rights { administrator, makes_own, ..Rights::default() };
            let all = names.into_iter().chain([PUBLIC]);
            for grant in all.flat_map(|name| granted.get(name).into_iter().flatten()) {
                let held = match &grant.object {
                    None => &mut rights.everywhere,
                    Some(table) => rights.tables.entry(table.clone()).or_default(),
                };
                *held = held.with(grant.privileges);
            }
            Arc::new(rights)
        };
        let users = self.users.values().map(|user| rights_of(&user.name, user.administrator));
        let users: Vec<Arc<Rights>> = users.collect();
        let named = granted.keys().chain(memberships.keys()).filter(|name| self.is_account(name));
        let accounts = named.map(|name| ((*name).to_owned(), rights_of(name, false))).collect();
        let strangers = rights_of(PUBLIC, false);
        (self.accounts, self.strangers) = (accounts, strangers);
        for (user, rights) in self.users.values_mut().zip(users) {
            user.rights = rights;
        }
    }

    /// The roles of each member.
    fn memberships(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut roles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (role, member) in &self.roles {
            roles.entry(member).or_default().push(role);
        }
        roles
    }
}

/// A user's own name, and those of all roles that it is a member of, also by way of others.
fn roles_of<'a>(memberships: &BTreeMap<&'a str, Vec<&'a str>>, name: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::from([name]);
    let mut next = vec![name];
    while let Some(member) = next.pop() {
        for &role in memberships.get(member).into_iter().flatten() {
            if found.insert(role) {
                next.push(role);
            }
        }
    }
    found
}

/// No server at all.
fn none() -> Servers {
    Servers::Named(BTreeSet::new())
}

/// As `rota_users` has them: `ALL`, or keys in hexadecimal with a space between.
fn stored_servers(text: &str) -> Servers {
    if text == "ALL" {
        return Servers::All;
    }
    let keys = text.split_ascii_whitespace().filter_map(key_of);
    Servers::Named(keys.collect())
}

fn servers_text(servers: &Servers) -> String {
    match servers {
        Servers::All => "ALL".into(),
        Servers::Named(keys) => keys.iter().map(text_of).collect::<Vec<_>>().join(" "),
    }
}

/// The genesis' administrators, into the empty tables.
pub(crate) fn create(
    connection: &Connection,
    administrators: &[Administrator],
) -> rusqlite::Result<()> {
    for Administrator { name, key, verifier } in administrators {
        connection.execute(
            "INSERT INTO rota_users VALUES (?1, ?2, ?3, 'ALL', 1, 1)",
            (name, key.map(|key| key.0), verifier),
        )?;
    }
    Ok(())
}

/// What is wrong with a genesis' administrators, if anything.
pub fn check_administrators(administrators: &[Administrator]) -> Result<(), String> {
    for Administrator { name, verifier, .. } in administrators {
        if name.is_empty() || name.len() > 63 || name == PUBLIC {
            return Err(format!("administrators: {name:?} is no name for a user"));
        }
        if verifier.as_ref().is_some_and(|text| text.parse::<Verifier>().is_err()) {
            return Err(format!("administrators: the verifier of {name} is not one"));
        }
    }
    let names: BTreeSet<_> = administrators.iter().map(|user| &user.name).collect();
    let keys: BTreeSet<_> = administrators.iter().filter_map(|user| user.key).collect();
    let with_key = administrators.iter().filter(|user| user.key.is_some()).count();
    if names.len() != administrators.len() || keys.len() != with_key {
        return Err("administrators: a name or key stands there twice".into());
    }
    Ok(())
}

/// The newest [`Access`] of this server's executed state. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<Arc<Access>>>);

impl View {
    /// As of now.
    pub fn current(&self) -> Arc<Access> {
        Arc::clone(&lock(&self.0))
    }

    /// Where there is one administrator.
    #[cfg(test)]
    pub(crate) fn of_administrator(name: &str) -> Self {
        Self::of_users(&[(name, true)])
    }

    /// Where there are users; true: an administrator.
    #[cfg(test)]
    pub(crate) fn of_users(users: &[(&str, bool)]) -> Self {
        let mut access = Access::default();
        for &(name, administrator) in users {
            let user = User {
                name: name.into(),
                key: None,
                verifier: None,
                servers: Servers::All,
                administrator,
                login: true,
                rights: Arc::default(),
            };
            access.users.insert(name.into(), user);
        }
        access.settle();
        let view = Self::default();
        view.publish(&Arc::new(access));
        view
    }

    pub(crate) fn publish(&self, access: &Arc<Access>) {
        *lock(&self.0) = Arc::clone(access);
    }
}

/// In whose name a connection's statement runs: for its functions and its authorizer. Clones show
/// the same.
#[derive(Clone, Debug, Default)]
pub struct Caller(Arc<Mutex<Who>>);

#[derive(Clone, Debug, Default)]
struct Who {
    name: Arc<str>,
    rights: Arc<Rights>,
    access: Arc<Access>,
}

impl Caller {
    /// From now on it is this user. `42501`: there is none of that name.
    pub fn set(&self, name: &str, access: &Arc<Access>) -> Result<(), Refusal> {
        let mut who = lock(&self.0);
        if *who.name == *name && Arc::ptr_eq(&who.access, access) {
            return Ok(());
        }
        let rights = access.rights_of(name).ok_or_else(|| no_user(name))?;
        if *who.name != *name {
            who.name = name.into();
        }
        who.rights = Arc::clone(rights);
        who.access = Arc::clone(access);
        Ok(())
    }

    /// Its name: `current_user`.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&lock(&self.0).name)
    }

    /// What it may do.
    pub fn rights(&self) -> Arc<Rights> {
        Arc::clone(&lock(&self.0).rights)
    }

    /// All users and grants, as it is checked against.
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&lock(&self.0).access)
    }
}

/// It was there when its client logged in.
pub fn no_user(name: &str) -> Refusal {
    let shown: String = name.chars().take(64).collect();
    Refusal::new(sqlstate::INVALID_AUTHORIZATION, format!("role \"{shown}\" does not exist"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
