//! ALTER TABLE: SQLite does one thing at a time, and fewer. Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `ADD COLUMN a …, DROP COLUMN b CASCADE` | one statement for each |
//! | `ADD PRIMARY KEY (a)`, `ADD CONSTRAINT n UNIQUE (a)` | `CREATE UNIQUE INDEX` |
//! | `ADD CONSTRAINT n CHECK (…)`, `ALTER COLUMN a SET NOT NULL` | the same |
//! | `ADD CONSTRAINT n FOREIGN KEY …` | nothing, and a warning |
//! | `ALTER COLUMN a TYPE varchar(n)`, `ALTER COLUMN a DROP DEFAULT` | nothing, and a warning |
//! | `OWNER TO`, `SET (…)`, `ALTER COLUMN a SET STATISTICS …` | nothing |

use rota_core::error::Refusal;

use super::super::lexer::Token;
use super::super::{Translation, strings, unsupported};
use super::{Done, bare, nothing, object_name};

impl<'a> Translation<'a> {
    pub(super) fn alter(&mut self) -> Result<Option<Done>, Refusal> {
        let words: Vec<String> = (1..4).filter_map(|n| self.ahead(n)?.name()).collect();
        match words.first().map(String::as_str) {
            Some("table") => {}
            Some("sequence") if self.input.iter().any(|token| token.is("owned")) => {
                return Ok(nothing("ALTER SEQUENCE"));
            }
            Some("default") => return Ok(nothing("ALTER DEFAULT PRIVILEGES")),
            Some(what) => {
                let what = what.to_uppercase();
                return Err(unsupported(format!("ALTER {what} is not supported")));
            }
            None => return Ok(None),
        }
        self.skip(2);
        self.accept(&["if", "exists"]);
        self.accept(&["only"]);
        let table = self.name()?;
        self.accept(&["*"]);
        let mut statements = Vec::new();
        loop {
            // Each action becomes statements of its own, which name the table.
            self.afford(table.len().saturating_mul(2))?;
            self.action(table, &mut statements)?;
            if !self.accept(&[","]) {
                break;
            }
        }
        if !self.is_over() {
            return Err(self.unexpected("the end"));
        }
        Ok(Some((statements, Some("ALTER TABLE"))))
    }

    fn action(&mut self, table: &str, statements: &mut Vec<String>) -> Result<(), Refusal> {
        if self.accept(&["add"]) {
            return self.add(table, statements);
        }
        if self.accept(&["drop"]) {
            return self.drop_part(table, statements);
        }
        if self.accept(&["alter"]) {
            return self.alter_column(table, statements);
        }
        if self.comes(&["rename", "constraint"]) {
            return Err(unsupported("a constraint cannot be renamed"));
        }
        if self.comes(&["rename"]) || self.comes(&["set", "schema"]) {
            if self.comes(&["set"]) {
                return Err(unsupported("there are no schemas but \"public\""));
            }
            let rest = self.rest()?;
            statements.push(format!("ALTER TABLE {table} {}", rest.trim()));
            return Ok(());
        }
        const NOTHING: [&[&str]; 8] = [
            &["owner", "to"],
            &["set", "("],
            &["reset", "("],
            &["set", "tablespace"],
            &["set", "logged"],
            &["cluster", "on"],
            &["replica", "identity"],
            &["validate", "constraint"],
        ];
        if NOTHING.iter().any(|words| self.comes(words)) {
            self.skip_action();
            return Ok(());
        }
        let what: Vec<&str> = (0..2).filter_map(|n| Some(self.ahead(n)?.text)).collect();
        let what = what.join(" ").to_uppercase();
        Err(unsupported(format!("ALTER TABLE … {what} is not supported")))
    }

    /// To the comma or the end.
    fn skip_action(&mut self) {
        while !self.is_over() && !self.comes(&[","]) {
            if self.peek_is("(") {
                self.skip_group();
            } else {
                self.skip(1);
            }
        }
    }

    fn add(&mut self, table: &str, statements: &mut Vec<String>) -> Result<(), Refusal> {
        if self.comes_any(&["constraint", "primary", "unique", "foreign", "check", "exclude"]) {
            return self.add_constraint(table, statements);
        }
        self.accept(&["column"]);
        if self.comes(&["if", "not", "exists"]) {
            return Err(unsupported(
                "ADD COLUMN IF NOT EXISTS is not supported: ask information_schema.columns first",
            ));
        }
        let name = self.peek().and_then(Token::name).unwrap_or_default();
        let column = self.column(table, false)?;
        statements.push(format!("ALTER TABLE {table} ADD COLUMN {}", column.text));
        if column.unique {
            let index = object_name(&bare(table), &name, "key");
            statements.push(unique_index(&index, table, &strings::named(&name)));
        }
        Ok(())
    }

    fn add_constraint(&mut self, table: &str, statements: &mut Vec<String>) -> Result<(), Refusal> {
        let name = if self.accept(&["constraint"]) { Some(self.name()?) } else { None };
        if self.comes(&["foreign", "key"]) {
            self.skip_action();
            let name = name.map_or(String::new(), |name| format!(" {}", bare(name)));
            self.seen.notices.push(format!(
                "foreign key{name} is not enforced: declare it in CREATE TABLE, where it is"
            ));
            return Ok(());
        }
        if self.comes(&["check"]) {
            let check = self.table_constraint()?;
            let named = name.map_or(String::new(), |name| format!("CONSTRAINT {name} "));
            statements.push(format!("ALTER TABLE {table} ADD {named}{check}"));
            return Ok(());
        }
        let primary = self.accept(&["primary", "key"]);
        if !primary {
            self.expect("unique")?;
        }
        if self.accept(&["using", "index"]) {
            self.skip_action();
            return Ok(());
        }
        let first = self.ahead(1).and_then(Token::name).unwrap_or_default();
        let mut named = vec![first];
        let mut place = 2;
        while self.ahead(place).is_some_and(|token| token.text == ",") {
            self.afford(place)?;
            named.extend(self.ahead(place + 1).and_then(Token::name));
            place += 2;
        }
        self.expect("(")?;
        let mut columns = self.group()?;
        columns.remove(0);
        columns.pop();
        self.skip_action();
        let index = name.map(bare).unwrap_or_else(|| {
            if primary {
                object_name(&bare(table), "", "pkey")
            } else {
                object_name(&bare(table), &named.join("_"), "key")
            }
        });
        statements.push(unique_index(&index, table, columns.trim()));
        Ok(())
    }

    fn drop_part(&mut self, table: &str, statements: &mut Vec<String>) -> Result<(), Refusal> {
        let constraint = self.accept(&["constraint"]);
        if !constraint {
            self.accept(&["column"]);
        }
        let exists = self.accept(&["if", "exists"]);
        let name = self.name()?;
        if !self.accept(&["cascade"]) {
            self.accept(&["restrict"]);
        }
        if constraint {
            statements.extend(drop_constraint(table, name));
        } else if exists {
            return Err(unsupported(
                "DROP COLUMN IF EXISTS is not supported: ask information_schema.columns first",
            ));
        } else {
            statements.push(format!("ALTER TABLE {table} DROP COLUMN {name}"));
        }
        Ok(())
    }

    fn alter_column(&mut self, table: &str, statements: &mut Vec<String>) -> Result<(), Refusal> {
        if self.accept(&["constraint"]) {
            self.skip_action();
            return Ok(());
        }
        self.accept(&["column"]);
        let column = self.name()?;
        for (words, spelled) in
            [(["set", "not", "null"], "SET NOT NULL"), (["drop", "not", "null"], "DROP NOT NULL")]
        {
            if self.accept(&words) {
                statements.push(format!("ALTER TABLE {table} ALTER COLUMN {column} {spelled}"));
                return Ok(());
            }
        }
        if self.comes(&["drop", "default"]) {
            self.skip(2);
            self.seen.notices.push(format!(
                "column {} keeps its default: SQLite cannot take it away",
                bare(column)
            ));
            return Ok(());
        }
        if self.comes(&["set", "statistics"]) || self.comes(&["set", "storage"]) {
            self.skip_action();
            return Ok(());
        }
        let before = self.next;
        if self.accept(&["type"]) || self.accept(&["set", "data", "type"]) {
            let text = self.type_name()?.is_text();
            if text && (self.is_over() || self.comes(&[","])) {
                self.seen.notices.push(format!(
                    "column {} keeps its declared type, which limits no text's length",
                    bare(column)
                ));
                return Ok(());
            }
            self.next = before;
        }
        let what: Vec<&str> = (0..2).filter_map(|n| Some(self.ahead(n)?.text)).collect();
        let what = what.join(" ").to_uppercase();
        Err(unsupported(format!(
            "ALTER COLUMN … {what} is not supported: add a new column, copy with UPDATE, drop the \
             old one and rename the new one"
        )))
    }
}

fn unique_index(index: &str, table: &str, columns: &str) -> String {
    format!("CREATE UNIQUE INDEX {} ON {table} ({columns})", strings::named(index))
}

/// What is an index here is dropped as one: told by the endings that PostgreSQL, Django and
/// SQLAlchemy give to names of unique constraints.
fn drop_constraint(table: &str, name: &str) -> Option<String> {
    let plain = bare(name);
    let ends = |endings: &[&str]| endings.iter().any(|ending| plain.ends_with(ending));
    if ends(&["_fkey", "_fk"]) || plain.contains("_fk_") {
        return None;
    }
    if ends(&["_key", "_uniq", "_pkey", "_uq", "_unique"]) || plain.starts_with("uq_") {
        return Some(format!("DROP INDEX {name}"));
    }
    Some(format!("ALTER TABLE {table} DROP CONSTRAINT {name}"))
}
