//! What SQLite says of keys, and Hrana's clients ask for (step 1): whether it was the primary key
//! that was there already, and `PRAGMA foreign_keys`, with which migrations begin and end.
//!
//! Foreign keys are enforced always, since every server has to come to the same. A migration that
//! switches them off goes well with that, but for one thing: it drops a table, or empties it, to
//! fill it anew, and does not expect that `ON DELETE CASCADE` deletes what refers to it. So while
//! they are "off", statements that could make other rows change are refused.

use std::collections::BTreeSet;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};
use rota_store::sql::{Lexer, Token};
use rota_store::{Column, Rows, StatementKind, StatementResult};

use super::failure::Failure;
use super::stream::{Prepared, Stream};
use super::words::unquoted;

/// Tables of which a row cannot go without others that refer to it being changed.
const CASCADES: &str = "SELECT DISTINCT lower(\"table\") FROM sqlite_schema AS s, \
     pragma_foreign_key_list(s.name) AS f WHERE s.type = 'table' \
     AND (f.on_delete NOT IN ('NO ACTION', 'RESTRICT') \
          OR f.on_update NOT IN ('NO ACTION', 'RESTRICT'))";

const PRIMARY_KEY: &str = "SELECT lower(name) FROM pragma_table_info(?1) WHERE pk > 0";

/// Whether a column of a table is its rowid.
const IS_ROWID: &str = "SELECT count(*) = 1 AND max(upper(type)) = 'INTEGER' \
     FROM pragma_table_info(?1) WHERE pk > 0";

/// Whether a statement could change rows that refer to those that it deletes or gives another key.
pub(crate) fn may_cascade(kind: StatementKind) -> bool {
    matches!(
        kind,
        StatementKind::DropTable
            | StatementKind::Delete
            | StatementKind::Update
            | StatementKind::Insert
    )
}

/// Refuses a statement that would, while foreign keys are "off".
pub(crate) async fn refuse_cascade(
    stream: &mut Stream,
    prepared: &Prepared,
) -> Result<(), Failure> {
    if may_cascade(prepared.kind) {
        let rows = stream.look(statement(CASCADES, Vec::new())).await?;
        Cascades(texts(rows).collect()).refuse(&prepared.statement.sql)?;
    }
    Ok(())
}

/// The tables that must be left alone while foreign keys are "off".
struct Cascades(BTreeSet<String>);

impl Cascades {
    fn refuse(&self, sql: &str) -> Result<(), Refusal> {
        let mut names = Lexer::new(sql).filter_map(|(_, token)| unquoted(token));
        let Some(name) = names.find(|name| self.0.contains(&name.to_lowercase())) else {
            return Ok(());
        };
        let message = format!(
            "foreign keys are always enforced: this would delete or change the rows that refer to \
             \"{name}\" by ON DELETE or ON UPDATE; PRAGMA foreign_keys = on, if that is meant"
        );
        Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message))
    }
}

/// Whether a PRAGMA is `foreign_keys`.
pub(crate) fn is_meant(sql: &str) -> bool {
    matches!(words(sql).get(1), Some(word) if word == "foreign_keys")
}

/// What it is to be set to; `None`: it is only asked for.
pub(crate) fn wanted(sql: &str) -> Result<Option<bool>, Refusal> {
    match words(sql).get(2).map(String::as_str) {
        None => Ok(None),
        Some("on" | "yes" | "true" | "1") => Ok(Some(true)),
        Some("off" | "no" | "false" | "0") => Ok(Some(false)),
        Some(_) => Err(Refusal::new(sqlstate::SYNTAX_ERROR, "PRAGMA foreign_keys is on or off")),
    }
}

fn words(sql: &str) -> Vec<String> {
    let tokens = Lexer::new(sql).map(|(_, token)| token);
    tokens
        .filter(|token| !matches!(token, Token::Symbol(_)))
        .filter_map(unquoted)
        .map(|word| word.to_lowercase())
        .collect()
}

/// The answer to `PRAGMA foreign_keys`.
pub(crate) fn state(is_on: bool) -> StatementResult {
    let columns = vec![Column { name: "foreign_keys".into(), declared: None }];
    let rows = vec![vec![Value::Integer(is_on.into())]];
    StatementResult {
        rows: Rows { columns, rows },
        ..StatementResult::nothing(StatementKind::Pragma)
    }
}

/// A violated key with the code that SQLite has for a primary key, if it is one: its message is the
/// same.
pub(crate) async fn named(stream: &mut Stream, mut failure: Failure) -> Failure {
    let Some((table, columns)) = violated(&failure.message) else { return failure };
    let Ok(rows) = stream.look(statement(PRIMARY_KEY, vec![Value::Text(table)])).await else {
        return failure;
    };
    if texts(rows).collect::<BTreeSet<_>>() == columns {
        failure.code = "SQLITE_CONSTRAINT_PRIMARYKEY";
    }
    failure
}

/// Whether the client of an INSERT is to be told the rowid: where a column has it. Elsewhere nobody
/// asks for it, and two transactions that insert at once would conflict for nothing, since what is
/// told must stay true.
pub(crate) async fn shows_rowid(stream: &mut Stream, sql: &str) -> bool {
    let Some(table) = inserted(sql) else { return true };
    let looked = stream.look(statement(IS_ROWID, vec![Value::Text(table)])).await;
    !looked.is_ok_and(|rows| rows.rows == [[Value::Integer(0)]])
}

/// The table of an INSERT.
fn inserted(sql: &str) -> Option<String> {
    let mut tokens = Lexer::new(sql)
        .map(|(_, token)| token)
        .skip_while(
            |token| !matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("INTO")),
        )
        .skip(1);
    let first = unquoted(tokens.next()?)?;
    match tokens.next() {
        Some(Token::Symbol('.')) => unquoted(tokens.next()?),
        _ => Some(first),
    }
}

/// The table and columns of `UNIQUE constraint failed: t.a, t.b`.
fn violated(message: &str) -> Option<(String, BTreeSet<String>)> {
    let list = message.strip_prefix("UNIQUE constraint failed: ")?;
    let pairs = list.split(", ").map(|pair| pair.rsplit_once('.'));
    let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
    let (table, _) = *pairs.first()?;
    Some((table.to_owned(), pairs.iter().map(|(_, column)| column.to_lowercase()).collect()))
}

fn statement(sql: &str, values: Vec<Value>) -> Statement {
    Statement { sql: sql.to_owned(), parameters: Parameters::Positional(values) }
}

fn texts(rows: Rows) -> impl Iterator<Item = String> {
    rows.rows.into_iter().flatten().filter_map(|value| match value {
        Value::Text(text) => Some(text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_are_asked_for_and_switched() {
        for (sql, want) in [
            ("PRAGMA foreign_keys", Ok(None)),
            ("pragma foreign_keys=off", Ok(Some(false))),
            ("PRAGMA foreign_keys(1)", Ok(Some(true))),
            ("PRAGMA foreign_keys = 'on'", Ok(Some(true))),
            ("PRAGMA foreign_keys = perhaps", Err(())),
        ] {
            assert!(is_meant(sql), "{sql}");
            assert_eq!(wanted(sql).map_err(drop), want, "{sql}");
        }
        assert!(!is_meant("PRAGMA foreign_key_list(foreign_keys)"));
    }

    #[test]
    fn what_would_cascade_is_refused_while_keys_are_off() {
        let cascades = Cascades(BTreeSet::from(["parent".to_owned()]));
        let refused = |sql: &str| {
            may_cascade(Prepared::of(sql.into()).unwrap().kind) && cascades.refuse(sql).is_err()
        };
        for sql in ["DROP TABLE parent", "DELETE FROM \"Parent\"", "UPDATE [parent] SET a = 1"] {
            assert!(refused(sql), "{sql}");
        }
        for sql in ["DROP TABLE child", "SELECT * FROM parent", "CREATE TABLE parent(a)"] {
            assert!(!refused(sql), "{sql}");
        }
    }

    #[test]
    fn the_table_of_an_insert_is_found() {
        for (sql, table) in [
            ("INSERT INTO t VALUES (1)", Some("t")),
            ("INSERT OR IGNORE INTO main.\"T x\"(a) SELECT 1", Some("T x")),
            ("WITH a AS (SELECT 1) REPLACE INTO [b] SELECT * FROM a", Some("b")),
            ("SELECT 1", None),
        ] {
            assert_eq!(inserted(sql).as_deref(), table, "{sql}");
        }
    }

    #[test]
    fn a_violated_key_is_read_off_sqlite_s_message() {
        let read = violated("UNIQUE constraint failed: t.A, t.b").unwrap();
        assert_eq!(read, ("t".into(), BTreeSet::from(["a".to_owned(), "b".to_owned()])));
        assert_eq!(violated("UNIQUE constraint failed: index 'x'"), None);
    }
}
