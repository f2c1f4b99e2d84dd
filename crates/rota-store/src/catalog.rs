//! PostgreSQL's catalog: step 1 answers tools that ask what there is from real tables, filled from
//! SQLite's own schema.
//!
//! ```text
//!   main.sqlite_schema, its pragmas ─► model ─► fill ─► pg_catalog.pg_class, pg_attribute, …
//!          words: what CREATE said       │  │                  └► information_schema.columns, …
//!   main.rota_users, rota_grants ─► roles ┘  └► functions: to_regclass(), pg_get_indexdef(), …
//!                                               privileges: has_table_privilege(), …
//! ```
//!
//! `pg_catalog` and `information_schema` are databases in memory, attached to a connection when a
//! statement first mentions them and filled anew when the schema has changed since. They are the
//! connection's own: on a draft they tell of the draft's schema, and ROLLBACK TO takes back what
//! was filled together with what it was filled from.

mod arrays;
mod fill;
mod functions;
mod model;
mod privileges;
mod roles;
mod types;
mod words;

use rota_hash::Hasher;
use rusqlite::{Connection, OptionalExtension};

use crate::access::Caller;
use roles::Roles;

/// The names of the attached databases.
const SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

/// The tables, which are the same for everyone.
const TABLES: [&str; 3] = [
    include_str!("catalog/tables.sql"),
    include_str!("catalog/views.sql"),
    include_str!("catalog/rows.sql"),
];

/// What is told of the rows of `pg_catalog` once more in `information_schema`.
const INFORMATION: &str = include_str!("catalog/information.sql");

/// Parts of names by which a statement mentions the catalog or one of its functions.
const MENTIONS: [&str; 7] =
    ["pg_", "information_schema", "regclass", "_description", "regtype", "regrole", "_privilege"];

/// Whether this is the name of one of the attached databases.
#[must_use]
pub fn is_schema(name: &str) -> bool {
    SCHEMAS.iter().any(|schema| schema.eq_ignore_ascii_case(name))
}

/// Whether a statement may need the catalog. It may say so of one that does not.
#[must_use]
pub fn is_mentioned(sql: &str) -> bool {
    let bytes = sql.as_bytes();
    MENTIONS.iter().any(|part| {
        bytes.windows(part.len()).any(|found| found.eq_ignore_ascii_case(part.as_bytes()))
    })
}

/// Registers the functions that need no tables.
pub fn register(connection: &Connection) -> rusqlite::Result<()> {
    functions::register(connection)?;
    arrays::register(connection)
}

/// Makes the catalog tell of the schema as it is now: attaches, fills. Needs a connection that may
/// attach two databases, whose authorizer lets this pass; `query_only` is switched off meanwhile.
/// `caller`: in whose name statements run, for functions that tell what it may do.
pub fn prepare(connection: &Connection, caller: &Caller) -> rusqlite::Result<()> {
    let now = fingerprint(connection)?;
    attach(connection)?;
    let told = functions::told(connection);
    if told.as_deref() == Some(now.as_str()) && filled(connection).as_deref() == Some(now.as_str())
    {
        return Ok(());
    }
    let query_only: bool = connection.pragma_query_value(None, "query_only", |row| row.get(0))?;
    connection.pragma_update(None, "query_only", false)?;
    let done = refill(connection, caller, &now);
    connection.pragma_update(None, "query_only", query_only)?;
    done
}

/// All that CREATE made, and all users and grants, as one short text.
fn fingerprint(connection: &Connection) -> rusqlite::Result<String> {
    const SCHEMA: &str = "SELECT rowid, name, tbl_name, sql FROM main.sqlite_schema ORDER BY rowid";
    let mut hasher = Hasher::new("rota catalog");
    for sql in [SCHEMA].into_iter().chain(roles::FINGERPRINTS) {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut count = 0_u64;
        while let Some(row) = rows.next()? {
            for column in 0..4 {
                let mut number = [0; 8];
                let bytes = roles::bytes_of(row.get_ref(column)?, &mut number);
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
            count += 1;
        }
        hasher.update(&count.to_le_bytes());
    }
    Ok(hasher.finish().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn attach(connection: &Connection) -> rusqlite::Result<()> {
    // A connection for reading attaches for reading, unless the address says otherwise.
    let address =
        if connection.is_readonly("main")? { "file:catalog?mode=memory" } else { ":memory:" };
    for schema in SCHEMAS {
        let attached = connection
            .prepare_cached("SELECT 1 FROM pragma_database_list WHERE name = ?1")?
            .exists([schema])?;
        if !attached {
            connection.execute(&format!("ATTACH ?1 AS {schema}"), [address])?;
        }
    }
    Ok(())
}

/// The schema that the tables tell of, if there are any.
fn filled(connection: &Connection) -> Option<String> {
    let mut statement =
        connection.prepare("SELECT fingerprint FROM pg_catalog.rota_filled").ok()?;
    statement.query_row([], |row| row.get(0)).optional().ok()?
}

fn refill(connection: &Connection, caller: &Caller, now: &str) -> rusqlite::Result<()> {
    connection.execute_batch("SAVEPOINT rota_catalog")?;
    let done = write(connection, caller, now);
    if done.is_err() {
        connection.execute_batch("ROLLBACK TO rota_catalog")?;
    }
    connection.execute_batch("RELEASE rota_catalog")?;
    done
}

fn write(connection: &Connection, caller: &Caller, now: &str) -> rusqlite::Result<()> {
    let is_new = !connection
        .prepare("SELECT 1 FROM pg_catalog.sqlite_schema WHERE name = 'rota_filled'")?
        .exists([])?;
    if is_new {
        TABLES.iter().try_for_each(|sql| connection.execute_batch(sql))?;
    }
    let model = model::read(connection)?;
    let roles = Roles::read(connection)?;
    fill::fill(connection, &model, &roles)?;
    connection.execute_batch(INFORMATION)?;
    connection.execute("DELETE FROM pg_catalog.rota_filled", [])?;
    connection.execute("INSERT INTO pg_catalog.rota_filled VALUES (?1)", [now])?;
    functions::tell(connection, caller, &model, roles, now)
}

#[cfg(test)]
mod tests;
