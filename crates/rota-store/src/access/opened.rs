//! What a statement reads beside what SQLite asks its authorizer about, for reads (step 1), drafts
//! (step 1) and apply (step 8): of the columns that NATURAL JOIN and USING compare it is not told.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::sql::{Lexer, Token};

/// Whether a statement joins tables by the names of their columns.
pub(super) fn joins_by_name(sql: &str) -> bool {
    Lexer::new(sql).any(|(_, token)| token.is_any(&["NATURAL", "USING"]))
}

/// The tables of `main` whose rows SQLite's program for a statement reads, those of triggers
/// included. Each server has its own page numbers; the names are the same on all.
pub(crate) fn opened(connection: &Connection, sql: &str) -> rusqlite::Result<BTreeSet<String>> {
    let mut pages = BTreeSet::new();
    let first = Lexer::new(sql).find(|(_, token)| *token != Token::Symbol(';'));
    let Some((start, _)) = first.filter(|(_, token)| !token.is("EXPLAIN")) else {
        return Ok(BTreeSet::new());
    };
    let statement = sql.get(start..).unwrap_or_default();
    let mut program = connection.prepare(&format!("EXPLAIN {statement}"))?;
    let mut steps = program.raw_query();
    while let Some(step) = steps.next()? {
        let opens = matches!(step.get_ref(1)?, ValueRef::Text(b"OpenRead" | b"ReopenIdx"));
        let (page, database): (i64, i64) = (step.get(3)?, step.get(4)?);
        if opens && database == 0 {
            pages.insert(page);
        }
    }
    let mut table =
        connection.prepare_cached("SELECT tbl_name FROM main.sqlite_schema WHERE rootpage = ?1")?;
    let mut tables = BTreeSet::new();
    for page in pages {
        let mut found = table.query([page])?;
        if let Some(row) = found.next()? {
            tables.insert(row.get(0)?);
        }
    }
    Ok(tables)
}
