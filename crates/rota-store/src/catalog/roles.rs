//! Users, roles and grants as PostgreSQL's catalog tells them: numbers, owners, and lists of who
//! may do what (`relacl`). For step 1; read from the tables that hold them, so that in a
//! transaction they are as they are there.
//!
//! A table's owner is who was first granted CREATE on that very table, as whoever makes one is;
//! else the first administrator, who also owns all that is the system's.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::fill::run;
use super::model::FIRST_USER_OID;
use crate::access::{ALL_TABLES, PUBLIC, Privilege, Privileges};

/// The number of the first administrator, as of PostgreSQL's `postgres`.
pub(super) const FIRST_ADMINISTRATOR: i64 = 10;

/// The number that stands for everybody.
const EVERYBODY: i64 = 0;

/// All that the catalog tells of users depends on these.
pub(super) const FINGERPRINTS: [&str; 3] = [
    "SELECT rowid, name, verifier IS NULL, administrator || login FROM main.rota_users
     ORDER BY rowid",
    "SELECT rowid, role, member, NULL FROM main.rota_roles ORDER BY rowid",
    "SELECT rowid, object, grantee, privileges FROM main.rota_grants ORDER BY rowid",
];

/// Privileges in PostgreSQL's order and with its letters; CREATE's is that of schemas.
const LETTERS: [(Privilege, &str, char); 5] = [
    (Privilege::Insert, "INSERT", 'a'),
    (Privilege::Select, "SELECT", 'r'),
    (Privilege::Update, "UPDATE", 'w'),
    (Privilege::Delete, "DELETE", 'd'),
    (Privilege::Create, "CREATE", 'C'),
];

/// A user or role.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) oid: i64,
    pub(super) name: String,
    administrator: bool,
    login: bool,
    has_password: bool,
}

/// All users, roles and grants.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) all: Vec<Role>,
    /// Numbers of a role and of a member of it.
    members: Vec<(i64, i64)>,
    /// What was granted on all tables.
    everywhere: Vec<(i64, Privileges)>,
    /// What was granted on one, by its name in lower case.
    tables: BTreeMap<String, Vec<(i64, Privileges)>>,
}

/// Who may do what with one table.
#[derive(Debug)]
pub(super) struct Acl {
    pub(super) owner: i64,
    /// The owner first. Alone, it is not told: that is how things are from the start.
    entries: Vec<(i64, Privileges)>,
}

impl Roles {
    /// As the tables have them.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut roles = Self::default();
        let mut statement = connection.prepare_cached(
            "SELECT rowid, name, administrator, login, verifier IS NOT NULL FROM main.rota_users
             ORDER BY rowid",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let administrator: bool = row.get(2)?;
            let is_first = administrator && !roles.all.iter().any(|role| role.administrator);
            let number: i64 = row.get(0)?;
            roles.all.push(Role {
                oid: if is_first { FIRST_ADMINISTRATOR } else { FIRST_USER_OID + number },
                name: row.get(1)?,
                administrator,
                login: row.get(3)?,
                has_password: row.get(4)?,
            });
        }
        let mut statement =
            connection.prepare_cached("SELECT role, member FROM main.rota_roles ORDER BY rowid")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (role, member): (String, String) = (row.get(0)?, row.get(1)?);
            roles.members.extend(roles.oid(&role).zip(roles.oid(&member)));
        }
        let mut statement = connection.prepare_cached(
            "SELECT object, grantee, privileges FROM main.rota_grants ORDER BY rowid",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (object, grantee, letters): (String, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let Some(grantee) = roles.oid(&grantee) else { continue };
            let granted = (grantee, Privileges::of_letters(&letters));
            match object.as_str() {
                ALL_TABLES => roles.everywhere.push(granted),
                _ => roles.tables.entry(object).or_default().push(granted),
            }
        }
        Ok(roles)
    }

    /// A name's number.
    pub(super) fn oid(&self, name: &str) -> Option<i64> {
        if name == PUBLIC {
            return Some(EVERYBODY);
        }
        self.all.iter().find(|role| role.name == name).map(|role| role.oid)
    }

    /// A number's name.
    pub(super) fn name(&self, oid: i64) -> Option<&str> {
        self.all.iter().find(|role| role.oid == oid).map(|role| role.name.as_str())
    }

    /// Who may do what with a table.
    pub(super) fn acl(&self, table: &str) -> Acl {
        let granted = self.tables.get(&table.to_ascii_lowercase());
        let granted = granted.map(Vec::as_slice).unwrap_or_default();
        let makes = |(grantee, privileges): &&(i64, Privileges)| {
            *grantee != EVERYBODY && privileges.contains(Privilege::Create)
        };
        let owner = granted.iter().find(makes).map_or(FIRST_ADMINISTRATOR, |(owner, _)| *owner);
        let mut entries = vec![(owner, Privileges::ALL)];
        for (grantee, privileges) in granted.iter().chain(&self.everywhere) {
            match entries.iter_mut().find(|(there, _)| there == grantee) {
                Some((_, there)) => *there = there.with(*privileges),
                None => entries.push((*grantee, *privileges)),
            }
        }
        Acl { owner, entries }
    }

    /// `alice=arw/rota`, ...: an array, as they are stored.
    pub(super) fn acl_text(&self, acl: &Acl) -> Option<String> {
        self.text(&acl.entries, acl.owner, letters)
    }

    /// The same of the schema: everybody uses it, some make tables in it.
    pub(super) fn schema_acl_text(&self) -> Option<String> {
        let makers = self.everywhere.iter().filter(|(_, all)| all.contains(Privilege::Create));
        let own = [(FIRST_ADMINISTRATOR, Privileges::ALL)];
        let mut entries: Vec<_> = own.into_iter().chain(makers.copied()).collect();
        if entries.len() > 1 {
            entries.insert(1, (EVERYBODY, Privileges::default()));
        }
        self.text(&entries, FIRST_ADMINISTRATOR, |privileges| {
            if privileges.contains(Privilege::Create) { "UC".into() } else { "U".into() }
        })
    }

    fn text(
        &self,
        entries: &[(i64, Privileges)],
        grantor: i64,
        letters: impl Fn(Privileges) -> String,
    ) -> Option<String> {
        if entries.len() < 2 {
            return None;
        }
        let name = |oid: i64| acl_name(self.name(oid).unwrap_or_default());
        let grantor = name(grantor);
        let entries = entries.iter().map(|(grantee, privileges)| {
            format!("{}={}/{grantor}", name(*grantee), letters(*privileges))
        });
        serde_json::to_string(&entries.collect::<Vec<_>>()).ok()
    }
}

fn letters(privileges: Privileges) -> String {
    let those = LETTERS.iter().filter(|(privilege, ..)| privileges.contains(*privilege));
    those.map(|(.., letter)| letter).collect()
}

/// A name as it stands in a list of privileges: in quotes unless it is plain.
fn acl_name(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Replaces what is told of users, but for what belongs to a table.
pub(super) fn fill(connection: &Connection, roles: &Roles) -> rusqlite::Result<()> {
    for role in &roles.all {
        run(
            connection,
            "INSERT INTO pg_catalog.pg_authid (oid, rolname, rolsuper, rolinherit, rolcreaterole, \
             rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit, rolpassword) \
             VALUES (?1, ?2, ?3, 1, ?3, ?3, ?4, 0, ?3, -1, iif(?5, '********', NULL))",
            params![role.oid, role.name, role.administrator, role.login, role.has_password],
        )?;
    }
    for (role, member) in &roles.members {
        run(
            connection,
            "INSERT INTO pg_catalog.pg_auth_members VALUES (?1, ?2, ?3, 0)",
            params![role, member, FIRST_ADMINISTRATOR],
        )?;
        run(
            connection,
            "INSERT INTO information_schema.rota_membership VALUES (?1, ?2, 'NO')",
            params![roles.name(*member), roles.name(*role)],
        )?;
    }
    run(
        connection,
        "UPDATE pg_catalog.pg_namespace SET nspacl = ?1 WHERE nspname = 'public'",
        params![roles.schema_acl_text()],
    )
}

/// What may be done with a relation, privilege by privilege.
pub(super) fn fill_acl(
    connection: &Connection,
    roles: &Roles,
    (oid, name): (i64, &str),
    acl: &Acl,
) -> rusqlite::Result<()> {
    for (grantee, privileges) in &acl.entries {
        let is_owner = *grantee == acl.owner;
        let those = LETTERS.iter().filter(|(privilege, ..)| privileges.contains(*privilege));
        for (_, word, _) in those {
            run(
                connection,
                "INSERT INTO pg_catalog.rota_acl VALUES (?1, ?2, ?3, ?4, ?5)",
                params![oid, acl.owner, grantee, word, is_owner],
            )?;
            run(
                connection,
                "INSERT INTO information_schema.rota_privilege VALUES (?1, ?2, 'rota', 'public', \
                 ?3, ?4, ?5, iif(?4 = 'SELECT', 'YES', 'NO'))",
                params![
                    roles.name(acl.owner),
                    roles.name(*grantee).unwrap_or("PUBLIC"),
                    name,
                    word,
                    if is_owner { "YES" } else { "NO" },
                ],
            )?;
        }
    }
    Ok(())
}

/// A value of a fingerprint's row.
pub(super) fn bytes_of<'a>(value: ValueRef<'a>, number: &'a mut [u8; 8]) -> &'a [u8] {
    match value {
        ValueRef::Text(text) => text,
        ValueRef::Integer(integer) => {
            *number = integer.to_le_bytes();
            number
        }
        _ => &[],
    }
}
