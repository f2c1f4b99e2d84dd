//! Statements about tables, indexes and what PostgreSQL has beside them. Step 1.
//!
//! | PostgreSQL | becomes |
//! |---|---|
//! | `CREATE TABLE`, `ALTER TABLE` | see `table`, `alter` |
//! | `CREATE INDEX … USING btree (a text_pattern_ops)` | `CREATE INDEX … (a)` |
//! | `CREATE OR REPLACE VIEW` | `DROP VIEW IF EXISTS`, `CREATE VIEW` |
//! | `DROP TABLE a, b CASCADE` | `DROP TABLE a`, `DROP TABLE b` |
//! | `TRUNCATE a, b` | `DELETE FROM a`, `DELETE FROM b` |
//! | `VACUUM`, `ANALYZE`, `COMMENT ON`, `LOCK TABLE` … | nothing |
//! | roles, functions, types, schemas … | a refusal that says so |

use rota_core::error::Refusal;

use super::lexer::Token;
use super::{Translation, names, strings, unsupported};

mod alter;
mod table;

/// Statements, and the command tag where it is another than the last statement's.
pub(super) type Done = (Vec<String>, Option<&'static str>);

fn nothing(tag: &'static str) -> Option<Done> {
    Some((Vec::new(), Some(tag)))
}

impl<'a> Translation<'a> {
    /// The statement, if it is one of those.
    pub(super) fn ddl(&mut self) -> Result<Option<Done>, Refusal> {
        let Some(first) = self.peek().and_then(Token::name) else { return Ok(None) };
        Ok(match first.as_str() {
            "create" => self.create()?,
            "alter" => self.alter()?,
            "drop" => self.drop_statement()?,
            "truncate" => Some(self.truncate()?),
            "comment" if self.comes(&["comment", "on"]) => nothing("COMMENT"),
            "security" => nothing("SECURITY LABEL"),
            "vacuum" => nothing("VACUUM"),
            "analyze" | "analyse" => nothing("ANALYZE"),
            "cluster" => nothing("CLUSTER"),
            "reindex" => nothing("REINDEX"),
            "lock" => nothing("LOCK TABLE"),
            "checkpoint" => nothing("CHECKPOINT"),
            "refresh" => return Err(unsupported("there are no materialized views")),
            "grant" | "revoke" | "reassign" => {
                return Err(unsupported("there are no roles and privileges yet"));
            }
            "do" | "call" => {
                return Err(unsupported(format!(
                    "{} is not supported: there are no procedures",
                    first.to_uppercase()
                )));
            }
            "import" | "load" => return Err(unsupported("extensions are not supported")),
            "merge" => {
                return Err(unsupported("MERGE is not supported: use INSERT … ON CONFLICT"));
            }
            _ => None,
        })
    }

    fn create(&mut self) -> Result<Option<Done>, Refusal> {
        let words: Vec<String> = (1..8).filter_map(|n| self.ahead(n)?.name()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["temp" | "temporary", ..] | ["local" | "global", "temp" | "temporary", ..] => {
                return Err(unsupported(
                    "temporary tables and views are not supported: they would exist on one server",
                ));
            }
            ["unlogged", "table", ..] | ["table", ..] => self.create_table()?,
            ["unique", "index", ..] | ["index", ..] => Some((vec![self.create_index()?], None)),
            ["or", "replace", "view", ..] => Some(self.replace_view()?),
            ["view", ..] => {
                self.naming = true;
                None
            }
            ["schema", "if", "not", "exists", "public", ..] | ["schema", "public", ..] => {
                nothing("CREATE SCHEMA")
            }
            ["schema", ..] => return Err(unsupported("there are no schemas but \"public\"")),
            ["trigger", ..] if self.input.iter().any(|token| token.is("execute")) => {
                return Err(unsupported(
                    "trigger functions are not supported: write CREATE TRIGGER … BEGIN …; END",
                ));
            }
            ["extension", ..] => return Err(unsupported("extensions are not supported")),
            ["type", ..] | ["domain", ..] => {
                return Err(unsupported(
                    "types of your own are not supported: use text with a CHECK constraint",
                ));
            }
            ["sequence", ..] => {
                return Err(unsupported(
                    "CREATE SEQUENCE is not supported: use SERIAL or GENERATED … AS IDENTITY",
                ));
            }
            ["materialized", ..] => return Err(unsupported("there are no materialized views")),
            ["database", ..] => return Err(unsupported("there is one database")),
            [
                "function" | "procedure" | "aggregate" | "rule" | "policy" | "cast" | "operator",
                ..,
            ]
            | ["or", "replace", ..] => {
                return Err(unsupported(
                    "functions, procedures, rules and policies are not supported",
                ));
            }
            _ => None,
        })
    }

    /// `CREATE [UNIQUE] INDEX …`.
    fn create_index(&mut self) -> Result<String, Refusal> {
        self.skip(1);
        let unique = if self.accept(&["unique"]) { "UNIQUE " } else { "" };
        self.expect("index")?;
        self.accept(&["concurrently"]);
        let exists = if self.accept(&["if", "not", "exists"]) { "IF NOT EXISTS " } else { "" };
        let name = if self.comes(&["on"]) { None } else { Some(self.name()?.to_owned()) };
        self.expect("on")?;
        self.accept(&["only"]);
        let table = self.name()?;
        if self.accept(&["using"]) {
            let method = self.peek().and_then(Token::name).unwrap_or_default();
            if !["btree", "hash", "brin"].contains(&method.as_str()) {
                return Err(unsupported(format!("indexes by {method} are not supported")));
            }
            self.skip(1);
        }
        self.expect("(")?;
        let mut columns = Vec::new();
        let mut named = Vec::new();
        loop {
            if let Some(column) = self.peek().and_then(Token::name)
                && self.ahead(1).is_some_and(|next| next.text != "(")
            {
                named.push(column);
            } else {
                named.push("expr".to_owned());
            }
            columns.push(self.index_column()?);
            if !self.accept(&[","]) {
                break;
            }
        }
        self.expect(")")?;
        let condition = self.index_tail()?;
        let name = name
            .unwrap_or_else(|| strings::named(&object_name(&bare(table), &named.join("_"), "idx")));
        let columns = columns.join(", ");
        Ok(format!("CREATE {unique}INDEX {exists}{name} ON {table} ({columns}){condition}"))
    }

    /// `a COLLATE "C" text_pattern_ops DESC NULLS LAST`.
    fn index_column(&mut self) -> Result<String, Refusal> {
        self.deeper()?;
        let ends = ["asc", "desc", "nulls"];
        let is_class = |token: &Token<'_>| {
            token.name().is_some_and(|name| name.ends_with("_ops") || name.ends_with("_minmax"))
        };
        let mut text = self.text_until(|token| {
            token.text == "," || is_class(token) || ends.iter().any(|word| token.is(word))
        })?;
        self.depth -= 1;
        if self.peek().is_some_and(is_class) {
            self.skip(1);
            self.skip_group();
        }
        text.truncate(text.trim_end().len());
        for (word, spelled) in [("asc", ""), ("desc", " DESC")] {
            if self.accept(&[word]) {
                text.push_str(spelled);
            }
        }
        // SQLite's indexes have NULLs first, which both orders can be read from.
        if self.accept(&["nulls"]) {
            self.skip(1);
        }
        Ok(text.trim().to_owned())
    }

    /// What follows an index's columns: only the condition remains.
    fn index_tail(&mut self) -> Result<String, Refusal> {
        loop {
            if self.accept(&["include"]) || self.accept(&["with"]) {
                self.skip_group();
            } else if self.accept(&["nulls", "not", "distinct"]) {
                return Err(unsupported("NULLS NOT DISTINCT is not supported"));
            } else if self.accept(&["tablespace"]) {
                self.skip(1);
            } else if !self.accept(&["nulls", "distinct"]) {
                break;
            }
        }
        if self.is_over() {
            return Ok(String::new());
        }
        Ok(format!(" {}", self.rest()?.trim()))
    }

    fn replace_view(&mut self) -> Result<Done, Refusal> {
        self.skip(4);
        let before = self.next;
        let view = self.name()?;
        self.next = before;
        self.naming = true;
        let rest = self.rest()?;
        let drop = format!("DROP VIEW IF EXISTS {view}");
        Ok((vec![drop, format!("CREATE VIEW{rest}")], None))
    }

    fn drop_statement(&mut self) -> Result<Option<Done>, Refusal> {
        let words: Vec<String> = (1..5).filter_map(|n| self.ahead(n)?.name()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (kind, tag) = match words.as_slice() {
            ["table", ..] => ("TABLE", "DROP TABLE"),
            ["view", ..] => ("VIEW", "DROP VIEW"),
            ["index", ..] => ("INDEX", "DROP INDEX"),
            ["trigger", ..] => ("TRIGGER", "DROP TRIGGER"),
            ["sequence", "if", "exists", ..] => return Ok(nothing("DROP SEQUENCE")),
            ["type", "if", "exists", ..] => return Ok(nothing("DROP TYPE")),
            ["domain", "if", "exists", ..] => return Ok(nothing("DROP DOMAIN")),
            ["function", "if", "exists", ..] => return Ok(nothing("DROP FUNCTION")),
            ["extension", "if", "exists", ..] => return Ok(nothing("DROP EXTENSION")),
            ["materialized", "view", "if", "exists"] => {
                return Ok(nothing("DROP MATERIALIZED VIEW"));
            }
            ["sequence", ..] => {
                return Err(unsupported("a sequence is dropped with the column that uses it"));
            }
            [
                "schema" | "database" | "type" | "domain" | "function" | "procedure" | "extension"
                | "policy" | "rule" | "materialized",
                ..,
            ] => {
                let what = words.first().copied().unwrap_or_default().to_uppercase();
                return Err(unsupported(format!("DROP {what} is not supported")));
            }
            _ => return Ok(None),
        };
        self.skip(2);
        self.accept(&["concurrently"]);
        let exists = if self.accept(&["if", "exists"]) { "IF EXISTS " } else { "" };
        let mut statements = Vec::new();
        loop {
            statements.push(format!("DROP {kind} {exists}{}", self.name()?));
            if !self.accept(&[","]) {
                break;
            }
        }
        if kind == "TRIGGER" && self.accept(&["on"]) {
            self.name()?;
        }
        self.end_of_drop()?;
        let tag = (statements.len() > 1).then_some(tag);
        Ok(Some((statements, tag)))
    }

    /// CASCADE or RESTRICT, then nothing.
    fn end_of_drop(&mut self) -> Result<(), Refusal> {
        if !self.accept(&["cascade"]) {
            self.accept(&["restrict"]);
        }
        if self.is_over() { Ok(()) } else { Err(self.unexpected("the end")) }
    }

    fn truncate(&mut self) -> Result<Done, Refusal> {
        self.skip(1);
        self.accept(&["table"]);
        let mut statements = Vec::new();
        loop {
            self.accept(&["only"]);
            statements.push(format!("DELETE FROM {}", self.name()?));
            self.accept(&["*"]);
            if !self.accept(&[","]) {
                break;
            }
        }
        if self.accept(&["restart", "identity"]) {
            self.seen.notices.push("RESTART IDENTITY has no effect: numbers go on".to_owned());
        } else {
            self.accept(&["continue", "identity"]);
        }
        self.end_of_drop()?;
        Ok((statements, Some("TRUNCATE TABLE")))
    }
}

/// A name without its quotes.
fn bare(name: &str) -> String {
    let inner = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    inner.map_or_else(|| name.to_ascii_lowercase(), |inner| inner.replace("\"\"", "\""))
}

/// `<table>_<column>_<label>` as PostgreSQL makes it: the longer of the two names gives way until
/// all is 63 bytes (`makeObjectName` in its indexcmds.c).
fn object_name(table: &str, column: &str, label: &str) -> String {
    let parts = if column.is_empty() { 1 } else { 2 };
    let most = names::MAX_NAME.saturating_sub(label.len() + parts);
    let (mut left, mut right) = (table.len(), column.len());
    while left + right > most {
        if left > right {
            left -= 1;
        } else {
            right -= 1;
        }
    }
    let cut = |name: &str, mut length: usize| {
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        name.get(..length).unwrap_or_default().to_owned()
    };
    let (table, column) = (cut(table, left), cut(column, right));
    if column.is_empty() { format!("{table}_{label}") } else { format!("{table}_{column}_{label}") }
}
