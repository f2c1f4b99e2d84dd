//! CREATE TABLE, and columns as ALTER TABLE adds them. Step 1.
//!
//! ```text
//!  id SERIAL PRIMARY KEY      ► id INT4 NOT NULL DEFAULT (rota_nextval('t_id_seq')) PRIMARY KEY
//!  at timestamp(3) with time zone DEFAULT now()
//!                             ► at timestamp with time zone(3) DEFAULT (now())
//! ```
//! A type stays as it is declared: clients are told by it. Only a column that draws its numbers
//! from a sequence must not be INTEGER PRIMARY KEY, for which SQLite would hand them out.

use rota_core::error::Refusal;

use super::super::lexer::{Kind, Token};
use super::super::{Shape, Translation, join, strings, unsupported};
use super::{Done, bare, object_name};

/// Words that end a column's type.
const CONSTRAINTS: [&str; 16] = [
    "as",
    "check",
    "collate",
    "compression",
    "constraint",
    "default",
    "deferrable",
    "generated",
    "initially",
    "not",
    "null",
    "primary",
    "references",
    "storage",
    "unique",
    "using",
];

/// Words that begin a table's constraint.
const TABLE_CONSTRAINTS: [&str; 6] =
    ["constraint", "primary", "unique", "check", "foreign", "exclude"];

/// A column, and what it needs beside itself.
#[derive(Default)]
pub(super) struct Column {
    pub(super) text: String,
    /// UNIQUE was among its constraints.
    pub(super) unique: bool,
}

impl<'a> Translation<'a> {
    pub(super) fn create_table(&mut self) -> Result<Option<Done>, Refusal> {
        self.skip(1);
        self.accept(&["unlogged"]);
        self.expect("table")?;
        let exists = if self.accept(&["if", "not", "exists"]) { "IF NOT EXISTS " } else { "" };
        let name = self.name()?;
        if !self.accept(&["("]) {
            if self.comes(&["partition", "of"]) {
                return Err(unsupported("partitions are not supported"));
            }
            // CREATE TABLE … AS: refused further on, with a reason.
            return Ok(Some((vec![format!("CREATE TABLE {exists}{name}{}", self.rest()?)], None)));
        }
        let mut elements = Vec::new();
        while !self.comes(&[")"]) {
            let space = self.space();
            let element = if self.comes_any(&TABLE_CONSTRAINTS) {
                self.table_constraint()?
            } else if self.comes(&["like"]) {
                return Err(unsupported(
                    "CREATE TABLE (LIKE …) is not supported: list the columns",
                ));
            } else {
                self.column(name, true)?.text
            };
            elements.push(format!("{space}{element}"));
            if !self.accept(&[","]) {
                break;
            }
        }
        let space = self.space();
        self.expect(")")?;
        let options = self.table_options()?;
        let text = format!("CREATE TABLE {exists}{name} ({}{space}){options}", elements.join(","));
        Ok(Some((vec![text], None)))
    }

    /// White space and comments, as they are.
    fn space(&mut self) -> String {
        let mut text = String::new();
        while let Some(token) = self.input.get(self.next).filter(|t| t.kind == Kind::Space) {
            text.push_str(token.text);
            self.next += 1;
        }
        text
    }

    /// What follows the columns.
    fn table_options(&mut self) -> Result<String, Refusal> {
        let mut kept = Vec::new();
        while !self.is_over() {
            if self.accept(&["with"]) {
                self.skip_group();
            } else if self.accept(&["tablespace"]) || self.accept(&["using"]) {
                self.skip(1);
            } else if self.accept(&["without", "oids"]) || self.accept(&[","]) {
            } else if self.accept(&["without", "rowid"]) {
                kept.push("WITHOUT ROWID");
            } else if self.accept(&["strict"]) {
                kept.push("STRICT");
            } else if self.comes(&["inherits"]) || self.comes(&["partition"]) {
                return Err(unsupported("inheritance and partitions are not supported"));
            } else {
                return Err(self.unexpected("the end"));
            }
        }
        Ok(if kept.is_empty() { String::new() } else { format!(" {}", kept.join(", ")) })
    }

    /// `CONSTRAINT n UNIQUE (a, b) WITH (fillfactor = 70)` and the like.
    pub(super) fn table_constraint(&mut self) -> Result<String, Refusal> {
        let mut pieces = Vec::new();
        let mut foreign = false;
        while !self.is_over() && !self.comes(&[","]) && !self.comes(&[")"]) {
            if self.comes(&["exclude"]) {
                return Err(unsupported("EXCLUDE constraints are not supported"));
            }
            if self.comes(&["using", "index"]) && !self.comes(&["using", "index", "tablespace"]) {
                return Err(unsupported("a constraint cannot take over an index"));
            }
            if self.skip_constraint_option(foreign)? {
                continue;
            }
            let rest = self.input.get(self.next..).unwrap_or_default();
            self.afford(rest.iter().take_while(|token| token.kind == Kind::Space).count())?;
            let Some(token) = rest.first().copied() else { break };
            foreign |= token.is("references");
            self.next += 1;
            std::mem::swap(&mut self.output, &mut pieces);
            self.step(token)?;
            std::mem::swap(&mut self.output, &mut pieces);
        }
        Ok(join(&pieces).trim().to_owned())
    }

    /// Parts of a constraint that SQLite has not; DEFERRABLE only where it is of a foreign key.
    fn skip_constraint_option(&mut self, foreign: bool) -> Result<bool, Refusal> {
        if self.accept(&["include"]) || self.accept(&["with"]) {
            self.skip_group();
        } else if self.accept(&["using", "index", "tablespace"]) || self.accept(&["compression"]) {
            self.skip(1);
        } else if self.accept(&["nulls", "not", "distinct"]) {
            return Err(unsupported("NULLS NOT DISTINCT is not supported"));
        } else {
            const LEFT_OUT: [&[&str]; 3] =
                [&["no", "inherit"], &["not", "valid"], &["nulls", "distinct"]];
            const DEFERRED: [&[&str]; 4] = [
                &["not", "deferrable"],
                &["deferrable"],
                &["initially", "deferred"],
                &["initially", "immediate"],
            ];
            let deferred: &[&[&str]] = if foreign { &[] } else { &DEFERRED };
            return Ok(LEFT_OUT.iter().chain(deferred).any(|words| self.accept(words)));
        }
        Ok(true)
    }

    /// A column's definition. `inline`: its UNIQUE may stay with it.
    pub(super) fn column(&mut self, table: &str, inline: bool) -> Result<Column, Refusal> {
        let token = self.peek().copied();
        let token = token.filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
        let Some(token) = token else { return Err(self.unexpected("a column")) };
        self.skip(1);
        self.afford(table.len())?;
        let sequence = object_name(&bare(table), &bare(token.text), "seq");
        let mut generated = self.is_identity();
        let mut declared = self.declared_type()?;
        if let Some(counted) = serial(&declared) {
            declared = counted.to_owned();
            generated = true;
            self.push_default(&mut declared, &sequence);
        } else if generated {
            declared = key_type(&declared).to_owned();
            self.push_default(&mut declared, &sequence);
        }
        let mut column = Column { text: format!("{} {declared}", token.text), unique: false };
        column.text.truncate(column.text.trim_end().len());
        self.column_constraints(&mut column, generated, inline)?;
        Ok(column)
    }

    fn push_default(&self, declared: &mut String, sequence: &str) {
        let sequence = strings::quoted(sequence);
        declared.push_str(&format!(" NOT NULL DEFAULT (rota_nextval({sequence}))"));
    }

    /// Whether `GENERATED … AS IDENTITY` comes among a column's constraints.
    fn is_identity(&self) -> bool {
        let rest = self.input.get(self.next..).unwrap_or_default();
        let mut depth = 0usize;
        let mut words = rest.iter().filter(|token| token.kind != Kind::Space).take_while(|token| {
            match token.text {
                "(" => depth += 1,
                ")" if depth == 0 => return false,
                ")" => depth -= 1,
                "," | ";" if depth == 0 => return false,
                _ => {}
            }
            true
        });
        let mut generated = false;
        words.any(|token| {
            generated |= token.is("generated");
            generated && token.is("identity")
        })
    }

    /// A column's type, with a precision in the middle put to the end: SQLite wants it there.
    fn declared_type(&mut self) -> Result<String, Refusal> {
        let mut words: Vec<String> = Vec::new();
        let mut arguments = String::new();
        self.accept(&["pg_catalog", "."]);
        self.accept(&["public", "."]);
        while let Some(token) = self.peek().copied() {
            let ends = CONSTRAINTS.iter().any(|word| token.is(word));
            if ends || matches!(token.text, "," | ")" | ";") {
                break;
            }
            self.skip(1);
            match (token.text, token.kind) {
                ("(", _) => {
                    arguments.push('(');
                    while let Some(inner) = self.take() {
                        arguments.push_str(inner.text);
                        if inner.text == ")" {
                            break;
                        }
                    }
                }
                ("[", _) => {
                    while self.take().is_some_and(|token| token.text != "]") {}
                    if let Some(last) = words.last_mut().filter(|last| !last.ends_with("[]")) {
                        last.push_str("[]");
                    }
                }
                (".", _) => return Err(unsupported("there are no types but PostgreSQL's own")),
                // `interval day to second`.
                (_, Kind::Word) => words.push(token.text.to_owned()),
                (text, Kind::Quoted) => words.push(text.to_owned()),
                _ => return Err(self.unexpected("a type")),
            }
        }
        if words.first().is_some_and(|first| first.eq_ignore_ascii_case("interval")) {
            words.truncate(1);
        }
        Ok(format!("{}{arguments}", words.join(" ")))
    }

    fn column_constraints(
        &mut self,
        column: &mut Column,
        generated: bool,
        inline: bool,
    ) -> Result<(), Refusal> {
        let mut foreign = false;
        while !self.is_over() && !self.comes(&[","]) && !self.comes(&[")"]) {
            foreign |= self.comes(&["references"]);
            if self.skip_constraint_option(foreign)? {
            } else if generated && self.accept(&["not", "null"]) {
                // It was said with the default.
            } else if self.accept(&["storage"]) {
                self.skip(1);
            } else if self.comes(&["generated"]) && generated && self.comes_identity() {
                while self.take().is_some_and(|token| !token.is("identity")) {}
                self.skip_group();
            } else if !inline && self.accept(&["unique"]) {
                column.unique = true;
            } else if self.accept(&["default"]) {
                let value = self.default_value()?;
                column.text.push_str(&format!(" DEFAULT {value}"));
            } else {
                let outer = std::mem::take(&mut self.output);
                if let Some(token) = self.take() {
                    self.step(token)?;
                }
                let text = join(&std::mem::replace(&mut self.output, outer));
                let glued = text.starts_with(['.', '(']) && column.text.ends_with('.');
                column.text.push_str(if glued || text.is_empty() { "" } else { " " });
                column.text.push_str(&text);
            }
        }
        Ok(())
    }

    fn comes_identity(&self) -> bool {
        self.comes(&["generated", "always", "as", "identity"])
            || self.comes(&["generated", "by", "default", "as", "identity"])
    }

    /// A default: SQLite wants parentheses around all but a literal.
    fn default_value(&mut self) -> Result<String, Refusal> {
        self.deeper()?;
        let ends = |token: &Token<'_>| {
            token.text == ","
                || token.text == ";"
                || (token.kind == Kind::Word
                    && CONSTRAINTS.iter().any(|word| token.is(word))
                    && !token.is("null"))
        };
        let outer = std::mem::take(&mut self.output);
        let mut first = true;
        self.plain = true;
        while let Some(token) = self.input.get(self.next).copied() {
            let closes = matches!(token.kind, Kind::Symbol(')' | ']'));
            let null = token.is("null") && !first;
            if closes || (token.kind != Kind::Space && (null || ends(&token))) {
                break;
            }
            first &= token.kind == Kind::Space;
            self.next += 1;
            self.step(token)?;
        }
        self.plain = false;
        self.depth -= 1;
        let mut pieces = std::mem::replace(&mut self.output, outer);
        pieces.retain(|piece| piece.shape != Shape::Space || piece.text.trim().is_empty());
        let text = join(&pieces).trim().to_owned();
        pieces.retain(|piece| piece.shape != Shape::Space);
        let plain = match pieces.as_slice() {
            [one] => match one.shape {
                Shape::Text | Shape::Literal | Shape::Group => true,
                Shape::Word => one.is_any(&["null", "true", "false"]),
                Shape::Whole => matches!(text.as_str(), "TRUE" | "FALSE"),
                _ => false,
            },
            [sign, number] => {
                matches!(sign.shape, Shape::Symbol('-' | '+')) && number.shape == Shape::Literal
            }
            _ => false,
        };
        Ok(if plain { text } else { format!("({text})") })
    }
}

/// What a column of a serial type is.
fn serial(declared: &str) -> Option<&'static str> {
    Some(match declared.to_ascii_lowercase().as_str() {
        "serial" | "serial4" => "INT4",
        "bigserial" | "serial8" => "BIGINT",
        "smallserial" | "serial2" => "INT2",
        _ => return None,
    })
}

/// A type that is never a rowid's alias.
fn key_type(declared: &str) -> &str {
    if declared.eq_ignore_ascii_case("integer") { "INT4" } else { declared }
}
