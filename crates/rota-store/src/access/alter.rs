//! Carrying out CREATE USER, GRANT and their like: on a draft (step 1) and at apply (step 8), by
//! the same rules; and what becomes of grants when tables are made, renamed and dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rota_core::error::{Fault, Refusal, sqlstate};
use rusqlite::{Connection, OptionalExtension};

use super::change::{Change, Objects, Options, PUBLIC, Password};
use super::rights::{Privilege, Privileges, is_free};
use super::{ALL_TABLES, Access, Grant, Rights, Servers, User, none, roles_of, servers_text};
use crate::accounts;
use crate::engine::{Engine, Running};
use crate::error::{Trouble, judge};
use crate::policy::is_system;
use crate::sql::{Lexer, Token};
use crate::value::{StatementKind, StatementResult};

/// How many users and roles there may be: all are in memory on every server.
const MOST_USERS: usize = 10_000;

/// How many grants.
const MOST_GRANTS: usize = 100_000;

/// How many of them users may make who are no administrators: they shall not use up all.
const MOST_BY_USERS: usize = MOST_GRANTS / 2;

/// How many memberships of roles.
const MOST_MEMBERSHIPS: usize = 10_000;

/// What a change costs for each user, grant and membership there is: all are read anew.
const STEPS_PER_ENTRY: u64 = 20;

/// Names that nobody may have, beside those that begin with `pg_`.
const RESERVED: [&str; 2] = [PUBLIC, "none"];

impl Engine {
    /// Carries out a change of users or grants.
    pub(crate) fn change_access(
        &mut self,
        sql: &str,
        kind: StatementKind,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let change = Change::parse(sql)?;
        let before = Arc::clone(&self.access);
        charge(&before, running)?;
        if running.read_only {
            return Err(crate::engine::read_only().into());
        }
        if !running.own_key && !before.trusted_servers {
            return Err(needs_own_key().into());
        }
        running.wrote = true;
        let inserted = self.database.connection().last_insert_rowid();
        self.context.trust();
        self.carry_out(&before, running.user, change)?;
        self.database.set_last_insert_rowid(inserted);
        let after = self.stored_access()?;
        keep_an_administrator(&before, &after)?;
        self.access = Arc::new(after);
        Ok(StatementResult::nothing(kind))
    }

    /// Users and grants anew, from their tables.
    pub(crate) fn read_access(&mut self) -> Result<(), Fault> {
        self.access = Arc::new(self.stored_access()?);
        Ok(())
    }

    fn stored_access(&self) -> Result<Access, Fault> {
        self.context.trust();
        let read = self.access.read(self.database.connection());
        read.map_err(|error| Fault::storage("reading users and grants", error))
    }

    fn carry_out(&self, access: &Access, by: &str, change: Change) -> Result<(), Trouble> {
        let connection = self.database.connection();
        let actor = access.rights_of(by).ok_or_else(|| super::no_user(by))?;
        match change {
            Change::Create(name, options) => {
                must_be_administrator(actor, "permission denied to create role")?;
                check_name(&name)?;
                if access.users.len() >= MOST_USERS {
                    return Err(too_many("users", MOST_USERS).into());
                }
                if access.user(&name).is_some() {
                    let message = format!("role \"{name}\" already exists");
                    return Err(Refusal::new(sqlstate::DUPLICATE_OBJECT, message).into());
                }
                let servers = if access.trusted_servers { Servers::All } else { none() };
                let user = User {
                    name,
                    key: None,
                    verifier: None,
                    servers,
                    administrator: false,
                    login: true,
                    rights: Arc::default(),
                };
                let user = changed(access, user, options)?;
                store(connection, &user)
            }
            Change::Alter(name, options) => {
                let user = access.user(&name).ok_or_else(|| no_role(&name))?;
                if !actor.administrator && (name != by || !is_own(&options)) {
                    return Err(denied("permission denied to alter role").into());
                }
                let user = changed(access, user.clone(), options)?;
                store(connection, &user)
            }
            Change::Rename(name, to) => {
                must_be_administrator(actor, "permission denied to rename role")?;
                if name == by {
                    let message = "session user cannot be renamed";
                    return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
                }
                rename(connection, access, &name, &to)
            }
            Change::Drop(names, if_exists) => {
                must_be_administrator(actor, "permission denied to drop role")?;
                names.iter().try_for_each(|name| match access.user(name) {
                    None if if_exists => Ok(()),
                    None => Err(no_role(name).into()),
                    Some(_) if name == by => {
                        Err(Refusal::new("55006", "current user cannot be dropped").into())
                    }
                    Some(_) => forget(connection, name),
                })
            }
            Change::Grant(what, on, whom) => {
                grant(connection, access, actor, (&on, &whom), |held| held.with(what))
            }
            Change::Revoke(what, on, whom) => {
                grant(connection, access, actor, (&on, &whom), |held| held.without(what))
            }
            Change::Join(roles, whom) => {
                must_be_administrator(actor, "permission denied to grant role")?;
                membership(connection, access, &roles, &whom, true)
            }
            Change::Leave(roles, whom) => {
                must_be_administrator(actor, "permission denied to revoke role")?;
                membership(connection, access, &roles, &whom, false)
            }
        }
    }
}

/// After CREATE, DROP and ALTER.
impl Engine {
    /// Whoever makes a table or view may do everything with it; grants go where a table goes, and
    /// with it. `made`: what was made now.
    pub(crate) fn grants_follow(
        &mut self,
        sql: &str,
        kind: StatementKind,
        made: &[String],
        running: &mut Running<'_>,
    ) -> Result<(), Trouble> {
        let by = self.access.rights_of(running.user);
        let changed = match kind {
            StatementKind::CreateTable | StatementKind::CreateView => {
                if by.is_none_or(|rights| rights.administrator) || made.is_empty() {
                    return Ok(());
                }
                self.own(made, running.user)?
            }
            StatementKind::AlterTable => match renamed(sql) {
                Some((from, to)) => self.move_grants(&from, &to)?,
                None => return Ok(()),
            },
            StatementKind::DropTable | StatementKind::DropView => self.drop_grants()?,
            _ => return Ok(()),
        };
        if !changed {
            return Ok(());
        }
        charge(&self.access, running)?;
        Ok(self.read_access()?)
    }

    fn own(&self, made: &[String], by: &str) -> Result<bool, Trouble> {
        if self.access.grants.len() >= MOST_BY_USERS {
            return Err(too_many("grants by users", MOST_BY_USERS).into());
        }
        self.quietly(|connection| {
            for table in made {
                hold(connection, &table.to_ascii_lowercase(), by, Privileges::ALL)?;
            }
            Ok(true)
        })
    }

    fn move_grants(&self, from: &str, to: &str) -> Result<bool, Trouble> {
        check_table(to)?;
        let moves = self.access.grants.iter().any(|grant| grant.object.as_deref() == Some(from));
        if !moves {
            return Ok(false);
        }
        self.quietly(|connection| {
            connection
                .prepare_cached("UPDATE main.rota_grants SET object = ?2 WHERE object = ?1")?
                .execute((from, to))?;
            Ok(true)
        })
    }

    fn drop_grants(&self) -> Result<bool, Trouble> {
        if self.access.grants.is_empty() {
            return Ok(false);
        }
        self.quietly(|connection| {
            let gone = connection
                .prepare_cached(
                    "DELETE FROM main.rota_grants WHERE object <> ?1 AND object NOT IN (SELECT \
                     lower(name) FROM main.sqlite_schema WHERE type IN ('table', 'view'))",
                )?
                .execute([ALL_TABLES])?;
            Ok(gone > 0)
        })
    }

    /// A write of ours: the client's last rowid is not one of it.
    fn quietly(
        &self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<bool>,
    ) -> Result<bool, Trouble> {
        self.context.trust();
        let connection = self.database.connection();
        let inserted = connection.last_insert_rowid();
        let done = run(connection).map_err(judge);
        self.database.set_last_insert_rowid(inserted);
        done
    }
}

/// What reading all users and grants anew costs.
fn charge(access: &Access, running: &mut Running<'_>) -> Result<(), Refusal> {
    let entries = access.users.len() + access.grants.len() + access.roles.len();
    let entries = u64::try_from(entries).unwrap_or(u64::MAX);
    running.budget.charge_steps(entries.saturating_mul(STEPS_PER_ENTRY))
}

/// The names of `ALTER TABLE [schema.]from RENAME TO to`, in lower case.
fn renamed(sql: &str) -> Option<(String, String)> {
    let mut tokens = Lexer::new(sql).map(|(_, token)| token);
    let name = |token: Option<Token<'_>>| token.and_then(super::change::table_of);
    let mut next = tokens.find(|token| *token != Token::Symbol(';'));
    let expect = |token: Option<Token<'_>>, word: &str| token.filter(|t| t.is(word)).map(drop);
    expect(next, "ALTER")?;
    expect(tokens.next(), "TABLE")?;
    let mut from = name(tokens.next())?;
    next = tokens.next();
    if next == Some(Token::Symbol('.')) {
        from = name(tokens.next())?;
        next = tokens.next();
    }
    expect(next, "RENAME")?;
    expect(tokens.next(), "TO")?;
    Some((from, name(tokens.next())?))
}

/// What somebody may change of itself.
fn is_own(options: &Options) -> bool {
    options.servers.is_none() && options.administrator.is_none() && options.login.is_none()
}

/// The user with what was said of it.
fn changed(access: &Access, mut user: User, options: Options) -> Result<User, Refusal> {
    match options.password {
        None => {}
        Some(None) => user.verifier = None,
        Some(Some(Password::Verifier(verifier))) => user.verifier = Some(verifier),
        Some(Some(Password::Plain(_))) => {
            let message = "a password is never part of a transaction: only its verifier is";
            return Err(denied(message));
        }
    }
    if let Some(key) = options.key {
        let taken = key.is_some_and(|key| {
            let other = access.user_of_key(&key).is_some_and(|other| other.name != user.name);
            other || access.members.contains(&key)
        });
        if taken {
            let message = "that key is another user's, or a server's";
            return Err(Refusal::new(sqlstate::DUPLICATE_OBJECT, message));
        }
        user.key = key;
    }
    if let Some(servers) = options.servers {
        if let Servers::Named(named) = &servers
            && let Some(stranger) = named.iter().find(|key| !access.members.contains(key))
        {
            let message = format!("{} is no server of this database", super::text_of(stranger));
            return Err(Refusal::new(sqlstate::UNDEFINED_OBJECT, message));
        }
        user.servers = servers;
    }
    user.administrator = options.administrator.unwrap_or(user.administrator);
    user.login = options.login.unwrap_or(user.login);
    if user.verifier.is_some() && user.servers == none() {
        let message = "say which servers may sign for a user with a password: SERVERS ALL, or \
                       SERVERS 'ed25519:…', …";
        return Err(Refusal::new(sqlstate::INVALID_PARAMETER, message));
    }
    Ok(user)
}

fn store(connection: &Connection, user: &User) -> Result<(), Trouble> {
    let verifier = user.verifier.as_ref().map(ToString::to_string);
    let servers = servers_text(&user.servers);
    let key = user.key.map(|key| key.0);
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO main.rota_users VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO
             UPDATE SET key = ?2, verifier = ?3, servers = ?4, administrator = ?5, login = ?6",
        )
        .map_err(judge)?;
    let stored =
        statement.execute((&user.name, key, verifier, servers, user.administrator, user.login));
    stored.map(drop).map_err(judge)
}

fn rename(connection: &Connection, access: &Access, name: &str, to: &str) -> Result<(), Trouble> {
    check_name(to)?;
    access.user(name).ok_or_else(|| no_role(name))?;
    if access.user(to).is_some() {
        let message = format!("role \"{to}\" already exists");
        return Err(Refusal::new(sqlstate::DUPLICATE_OBJECT, message).into());
    }
    for sql in [
        "UPDATE main.rota_users SET name = ?2 WHERE name = ?1",
        "UPDATE main.rota_grants SET grantee = ?2 WHERE grantee = ?1",
        "UPDATE main.rota_roles SET role = ?2 WHERE role = ?1",
        "UPDATE main.rota_roles SET member = ?2 WHERE member = ?1",
    ] {
        let mut statement = connection.prepare_cached(sql).map_err(judge)?;
        statement.execute((name, to)).map_err(judge)?;
    }
    Ok(())
}

fn forget(connection: &Connection, name: &str) -> Result<(), Trouble> {
    for sql in [
        "DELETE FROM main.rota_users WHERE name = ?1",
        "DELETE FROM main.rota_grants WHERE grantee = ?1",
        "DELETE FROM main.rota_roles WHERE role = ?1 OR member = ?1",
    ] {
        connection.prepare_cached(sql).and_then(|mut run| run.execute([name])).map_err(judge)?;
    }
    Ok(())
}

/// GRANT and REVOKE on tables.
fn grant(
    connection: &Connection,
    access: &Access,
    actor: &Rights,
    (on, whom): (&Objects, &[String]),
    change: impl Fn(Privileges) -> Privileges,
) -> Result<(), Trouble> {
    let objects = match on {
        Objects::All => {
            must_be_administrator(actor, "permission denied: ALL is for administrators")?;
            vec![ALL_TABLES.to_owned()]
        }
        Objects::Tables(tables) => {
            for table in tables {
                if !exists(connection, table)? {
                    let message = format!("relation \"{table}\" does not exist");
                    return Err(Refusal::new(sqlstate::UNDEFINED_TABLE, message).into());
                }
                let may = actor.administrator || actor.has_on(Privilege::Create, table);
                if !may || is_system(table) {
                    return Err(denied(format!("permission denied for table {table}")).into());
                }
            }
            tables.clone()
        }
    };
    let held = |grant: &Grant| {
        let object = grant.object.clone().unwrap_or_else(|| ALL_TABLES.to_owned());
        ((object, grant.grantee.clone()), grant.privileges)
    };
    let mut grants: BTreeMap<(String, String), Privileges> =
        access.grants.iter().map(held).collect();
    let most = if actor.administrator { MOST_GRANTS } else { MOST_BY_USERS };
    for grantee in whom {
        if grantee != PUBLIC && access.rights_of(grantee).is_none() {
            return Err(no_role(grantee).into());
        }
        for object in &objects {
            let count = grants.len();
            let held = grants.entry((object.clone(), grantee.clone())).or_default();
            if held.is_empty() && count >= most {
                return Err(too_many("grants", most).into());
            }
            *held = change(*held);
            let held = *held;
            hold(connection, object, grantee, held).map_err(judge)?;
        }
    }
    Ok(())
}

/// What somebody holds on an object, from now on.
fn hold(
    connection: &Connection,
    object: &str,
    grantee: &str,
    privileges: Privileges,
) -> rusqlite::Result<()> {
    if privileges.is_empty() {
        return connection
            .prepare_cached("DELETE FROM main.rota_grants WHERE object = ?1 AND grantee = ?2")?
            .execute((object, grantee))
            .map(drop);
    }
    connection
        .prepare_cached(
            "INSERT INTO main.rota_grants VALUES (?1, ?2, ?3)
             ON CONFLICT (object, grantee) DO UPDATE SET privileges = ?3",
        )?
        .execute((object, grantee, privileges.letters()))
        .map(drop)
}

fn exists(connection: &Connection, table: &str) -> Result<bool, Trouble> {
    let found = connection
        .prepare_cached(
            "SELECT 1 FROM main.sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = ?1",
        )
        .and_then(|mut find| find.query_row([table], |_| Ok(())).optional());
    found.map(|found| found.is_some()).map_err(judge)
}

fn membership(
    connection: &Connection,
    access: &Access,
    roles: &[String],
    members: &[String],
    joins: bool,
) -> Result<(), Trouble> {
    for role in roles {
        access.user(role).ok_or_else(|| no_role(role))?;
    }
    for member in members {
        access.rights_of(member).ok_or_else(|| no_role(member))?;
    }
    let memberships = access.memberships();
    let mut after: BTreeSet<(String, String)> = access.roles.clone();
    for (role, member) in roles.iter().flat_map(|role| members.iter().map(move |m| (role, m))) {
        let sql = if joins {
            if roles_of(&memberships, role).contains(member.as_str()) {
                let message = format!("role \"{role}\" is a member of role \"{member}\"");
                return Err(Refusal::new("0LP01", message).into());
            }
            after.insert((role.clone(), member.clone()));
            "INSERT OR IGNORE INTO main.rota_roles VALUES (?1, ?2)"
        } else {
            "DELETE FROM main.rota_roles WHERE role = ?1 AND member = ?2"
        };
        let mut statement = connection.prepare_cached(sql).map_err(judge)?;
        statement.execute((role, member)).map_err(judge)?;
    }
    if after.len() > MOST_MEMBERSHIPS {
        return Err(too_many("memberships", MOST_MEMBERSHIPS).into());
    }
    Ok(())
}

/// Whoever changed something shall not have locked everybody out, themselves included.
fn keep_an_administrator(before: &Access, after: &Access) -> Result<(), Refusal> {
    // A development database begins with one that has no password.
    let by_password = before.has_administrator(true);
    // An open cluster (`pow`) may have had none from the beginning.
    if after.has_administrator(by_password) || !before.has_administrator(by_password) {
        return Ok(());
    }
    Err(denied(
        "this would leave no administrator who can log in and change users: make another one first",
    ))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_account = accounts::key_of_account(name).is_some();
    if is_account || RESERVED.contains(&name) || name.starts_with("pg_") {
        return Err(Refusal::new("42939", format!("role name \"{name}\" is reserved")));
    }
    Ok(())
}

fn must_be_administrator(actor: &Rights, message: &str) -> Result<(), Refusal> {
    if actor.administrator { Ok(()) } else { Err(denied(message)) }
}

fn needs_own_key() -> Refusal {
    denied(
        "users and grants are changed with an administrator's own key (`rota tx --key`), since \
         this database does not trust its servers with that",
    )
}

fn denied(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
}

fn no_role(name: &str) -> Refusal {
    Refusal::new(sqlstate::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"))
}

fn too_many(what: &str, most: usize) -> Refusal {
    Refusal::new(sqlstate::TOO_COMPLEX, format!("there may be {most} {what} at most"))
}

/// Refuses a table by the name of a function, which would be read without a grant.
pub(crate) fn check_table(name: &str) -> Result<(), Refusal> {
    if is_free(name) {
        return Err(Refusal::new("42939", format!("the name {name} is that of a function")));
    }
    Ok(())
}
