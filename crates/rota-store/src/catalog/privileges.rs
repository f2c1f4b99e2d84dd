//! Functions that tell what a user may do: `has_table_privilege` and its kin, for reads (step 1).
//! They say what would be allowed; what is, is decided where statements are prepared.
//!
//! Each takes a user first or none, then what it is about, then privileges with commas between, of
//! which one is enough. Users, roles and tables may be given by name or by number.

use std::sync::Arc;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::Value;
use rusqlite::{Connection, Error, Result};

use super::functions::{ANY, Names, integer, number, text};
use super::model::FIRST_USER_OID;
use super::roles::Roles;
use crate::access::{Access, Caller, PUBLIC, Privilege, Rights};

/// Not deterministic: another user may ask next.
const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_INNOCUOUS);

/// Functions about what everybody may who may log in.
const FOR_EVERYBODY: [&str; 8] = [
    "has_sequence_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_type_privilege",
    "has_tablespace_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_server_privilege",
    "has_parameter_privilege",
];

/// What the functions know, beside who asks.
struct Known {
    caller: Caller,
    names: Arc<Names>,
    roles: Roles,
}

/// What a function tells; nothing where it is asked about nothing.
type Tells = fn(&Known, &Context<'_>) -> Result<Option<bool>>;

/// Registers them, for the schema and the users as they are.
pub(super) fn tell(
    connection: &Connection,
    caller: &Caller,
    names: &Arc<Names>,
    roles: Roles,
) -> Result<()> {
    let known = Arc::new(Known { caller: caller.clone(), names: Arc::clone(names), roles });
    for name in FOR_EVERYBODY {
        connection.create_scalar_function(name, ANY, FLAGS, |_| Ok(1))?;
    }
    let functions: [(&str, Tells); 7] = [
        ("has_table_privilege", |known, call| known.table(call, 2)),
        ("has_any_column_privilege", |known, call| known.table(call, 2)),
        ("has_column_privilege", |known, call| known.table(call, 3)),
        ("has_schema_privilege", |known, call| known.schema(call)),
        ("has_database_privilege", |known, call| known.database(call)),
        ("pg_has_role", |known, call| known.role(call)),
        ("rota_is_enabled", |known, call| known.enabled(call)),
    ];
    for (name, tells) in functions {
        let known = Arc::clone(&known);
        connection.create_scalar_function(name, ANY, FLAGS, move |call| tells(&known, call))?;
    }
    let names = Arc::clone(&known);
    connection.create_scalar_function("pg_get_userbyid", 1, FLAGS, move |call| {
        let oid = integer(call, 0);
        Ok(oid.map(|oid| match names.roles.name(oid) {
            Some(name) => name.to_owned(),
            None => format!("unknown (OID={oid})"),
        }))
    })?;
    connection.create_scalar_function("to_regrole", 1, FLAGS, move |call| {
        Ok(match (number(call, 0), text(call, 0)) {
            (Some(oid), _) => known.roles.name(oid).map(|name| Value::Text(name.to_owned())),
            (None, Some(name)) => known.roles.oid(&name).map(Value::Integer),
            _ => None,
        })
    })
}

impl Known {
    /// The name of the user that a call is about: the first argument, if there is one more than
    /// those that are wanted, else who asks.
    fn user(&self, call: &Context<'_>, wanted: usize) -> Result<String> {
        if call.len() <= wanted {
            return Ok(self.caller.name().to_string());
        }
        let name = match (number(call, 0), text(call, 0)) {
            (Some(oid), _) => self.roles.name(oid).map(str::to_owned),
            (None, name) => name,
        };
        let name = name.unwrap_or_default();
        let is_known = name == PUBLIC || self.roles.oid(&name).is_some();
        if is_known { Ok(name) } else { Err(wrong(format!("role \"{name}\" does not exist"))) }
    }

    fn table(&self, call: &Context<'_>, wanted: usize) -> Result<Option<bool>> {
        let user = self.user(call, wanted)?;
        let place = call.len().saturating_sub(wanted);
        let table = match (number(call, place), text(call, place)) {
            (Some(oid), _) => self.names.name(oid),
            (None, Some(name)) => match self.names.find(&name) {
                Some(oid) => self.names.name(oid),
                None => return Err(wrong(format!("relation \"{name}\" does not exist"))),
            },
            _ => None,
        };
        let Some((oid, table)) = table else { return Ok(None) };
        self.any(call, &user, |word, rights| {
            let privilege = match word {
                "truncate" => Privilege::Delete,
                "references" | "trigger" => Privilege::Create,
                word => Privilege::of_word(word)?,
            };
            let is_system = oid < FIRST_USER_OID;
            Some(rights.may(privilege, table) || is_system && privilege == Privilege::Select)
        })
    }

    fn schema(&self, call: &Context<'_>) -> Result<Option<bool>> {
        let user = self.user(call, 2)?;
        self.any(call, &user, |word, rights| match word {
            "usage" => Some(true),
            "create" => Some(rights.may_make_tables()),
            _ => None,
        })
    }

    fn database(&self, call: &Context<'_>) -> Result<Option<bool>> {
        let user = self.user(call, 2)?;
        self.any(call, &user, |word, _| match word {
            "connect" => Some(true),
            // There are no other schemas, and no temporary tables.
            "create" | "temp" | "temporary" => Some(false),
            _ => None,
        })
    }

    fn role(&self, call: &Context<'_>) -> Result<Option<bool>> {
        let user = self.user(call, 2)?;
        let place = call.len().saturating_sub(2);
        let role = match (number(call, place), text(call, place)) {
            (Some(oid), _) => self.roles.name(oid).map(str::to_owned),
            (None, name) => name,
        };
        let Some(role) = role else { return Ok(None) };
        if self.roles.oid(&role).is_none() {
            return Err(wrong(format!("role \"{role}\" does not exist")));
        }
        Ok(Some(is_member(&self.caller.access(), &user, &role)))
    }

    /// Whether who asks is this role, a member of it, or an administrator.
    fn enabled(&self, call: &Context<'_>) -> Result<Option<bool>> {
        let role = text(call, 0).unwrap_or_default();
        Ok(Some(is_member(&self.caller.access(), &self.caller.name(), &role)))
    }

    /// Whether a user has one of the privileges that the last argument lists.
    fn any(
        &self,
        call: &Context<'_>,
        user: &str,
        has: impl Fn(&str, &Rights) -> Option<bool>,
    ) -> Result<Option<bool>> {
        let Some(words) = text(call, call.len().saturating_sub(1)) else { return Ok(None) };
        let access = self.caller.access();
        let nothing = Arc::default();
        let rights = access.rights_of(user).unwrap_or(&nothing);
        let mut found = false;
        for word in words.split(',') {
            let word = word.trim().to_ascii_lowercase();
            let (word, grants) = match word.strip_suffix(" with grant option") {
                Some(word) => (word.trim_end(), true),
                None => (word.as_str(), false),
            };
            let unknown = || wrong(format!("unrecognized privilege type: \"{word}\""));
            let has = has(word, rights).ok_or_else(unknown)?;
            found |= has && (!grants || rights.administrator);
        }
        Ok(Some(found))
    }
}

fn is_member(access: &Access, user: &str, role: &str) -> bool {
    let is_administrator = access.rights_of(user).is_some_and(|rights| rights.administrator);
    is_administrator || access.is_member(user, role)
}

fn wrong(message: String) -> Error {
    Error::UserFunctionError(message.into())
}
