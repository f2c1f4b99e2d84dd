//! COPY: many rows in PostgreSQL's text or CSV format, and its statement. Steps 1 (a door cuts what
//! its client sends into chunks of whole lines) and 8 (a chunk is one statement, whose parameter
//! the lines are).
//!
//! ```text
//!  COPY t FROM STDIN CSV HEADER ──parse──► Copy ──to_sql──► COPY "t" FROM STDIN (FORMAT csv, …)
//!  bytes ──Splitter──► whole lines ──Records──► fields ──Column::value──► INSERT, once per row
//! ```
//!
//! The rules are those of PostgreSQL 15, "COPY", and of its `copyfromparse.c`. Not here: WHERE, and
//! the binary format, which the PostgreSQL door turns into text first.

mod lines;
mod options;
mod run;
mod values;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};

pub use lines::{Found, Records, Splitter, put_field};
pub use values::{Column, Meaning, boolean, bytea};

use crate::schema::quote;

/// A COPY statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What is read or written.
    pub source: Source,
    /// Which way.
    pub direction: Direction,
    /// In which format.
    pub options: Options,
}

/// What a COPY is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A table, and the columns in the order of the fields; none means all that are not generated.
    Table {
        /// `None` for the users' own tables.
        schema: Option<String>,
        /// Its name.
        name: String,
        /// Their names.
        columns: Vec<String>,
    },
    /// The result of a statement, as the client wrote it.
    Query(String),
}

/// Which way the rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// FROM STDIN.
    In,
    /// TO STDOUT.
    Out,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines, with backslashes before what would be taken for something else.
    Text,
    /// Lines, with quotes around it.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
}

/// What the first line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A row.
    None,
    /// The columns' names; not looked at when read.
    Skip,
    /// The columns' names; refused when read if they are others.
    Match,
}

/// Some of the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// None.
    #[default]
    None,
    /// `*`.
    All,
    /// Those with these names.
    Named(Vec<String>),
}

impl Which {
    /// Whether a column is one of them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(names) => names.iter().any(|named| named.eq_ignore_ascii_case(name)),
        }
    }
}

/// The options of a COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// FORMAT.
    pub format: Format,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL: how a missing value is written.
    pub null: String,
    /// HEADER.
    pub header: Header,
    /// QUOTE, of CSV.
    pub quote: u8,
    /// ESCAPE, of CSV.
    pub escape: u8,
    /// FORCE_QUOTE: columns whose values are quoted whether they need it or not.
    pub force_quote: Which,
    /// FORCE_NULL: columns in which a quoted null string means NULL too.
    pub force_null: Which,
    /// FORCE_NOT_NULL: columns in which the null string means itself.
    pub force_not_null: Which,
    /// The number of the first line, for messages: a chunk is seldom the first. Ours, never a
    /// client's.
    pub first_line: u64,
}

impl Options {
    /// PostgreSQL's defaults for a format.
    pub fn of(format: Format) -> Self {
        let csv = format == Format::Csv;
        Self {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".into() },
            header: Header::None,
            quote: b'"',
            escape: b'"',
            force_quote: Which::None,
            force_null: Which::None,
            force_not_null: Which::None,
            first_line: 1,
        }
    }
}

impl Copy {
    /// Reads a COPY statement, in any of PostgreSQL's spellings, the oldest included.
    pub fn parse(sql: &str) -> Result<Self, Refusal> {
        options::parse(sql)
    }

    /// The one spelling in which the statement is sent: equal statements have equal texts.
    pub fn to_sql(&self) -> String {
        let mut sql = String::from("COPY ");
        match &self.source {
            Source::Query(query) => sql.push_str(&format!("({query})")),
            Source::Table { schema, name, columns } => {
                if let Some(schema) = schema {
                    sql.push_str(&format!("{}.", quote(schema)));
                }
                sql.push_str(&quote(name));
                if !columns.is_empty() {
                    sql.push_str(&format!(" ({})", list(columns)));
                }
            }
        }
        sql.push_str(match self.direction {
            Direction::In => " FROM STDIN",
            Direction::Out => " TO STDOUT",
        });
        let options = self.options.spelled();
        if !options.is_empty() {
            sql.push_str(&format!(" ({})", options.join(", ")));
        }
        sql
    }

    /// The table's name, for messages; nothing for a query.
    pub fn table(&self) -> &str {
        match &self.source {
            Source::Table { name, .. } => name,
            Source::Query(_) => "",
        }
    }

    /// The statement that puts one row into the table.
    pub(crate) fn insert_sql(&self, columns: &[Column]) -> String {
        let Source::Table { schema, name, .. } = &self.source else { return String::new() };
        let schema = schema.as_ref().map_or_else(String::new, |schema| quote(schema) + ".");
        let names: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
        let places: Vec<String> = (1..=columns.len()).map(|place| format!("?{place}")).collect();
        let (table, names, places) = (quote(name), names.join(", "), places.join(", "));
        format!("INSERT INTO {schema}{table} ({names}) VALUES ({places})")
    }

    /// The columns that the fields are for, out of all that the table has.
    pub fn columns(&self, all: Vec<Column>) -> Result<Vec<Column>, Refusal> {
        let Source::Table { name, columns, .. } = &self.source else {
            return Err(no_stdin());
        };
        if columns.is_empty() {
            return Ok(all.into_iter().filter(|column| !column.generated).collect());
        }
        let mut found: Vec<Column> = Vec::with_capacity(columns.len());
        for wanted in columns {
            let column = all.iter().find(|column| column.name.eq_ignore_ascii_case(wanted));
            let column = column.ok_or_else(|| {
                let message = format!("column \"{wanted}\" of relation \"{name}\" does not exist");
                Refusal::new(sqlstate::UNDEFINED_COLUMN, message)
            })?;
            if found.iter().any(|earlier| earlier.name == column.name) {
                let message = format!("column \"{wanted}\" specified more than once");
                return Err(Refusal::new("42701", message));
            }
            if column.generated {
                let message = format!("column \"{wanted}\" is a generated column");
                return Err(Refusal::new("42P10", message));
            }
            found.push(column.clone());
        }
        Ok(found)
    }

    /// The statement that carries a chunk of whole lines.
    pub fn statement(&self, lines: Vec<u8>) -> Statement {
        Statement {
            sql: self.to_sql(),
            parameters: Parameters::Positional(vec![Value::Blob(lines)]),
        }
    }
}

impl Options {
    /// Those that are not as PostgreSQL has them anyway.
    fn spelled(&self) -> Vec<String> {
        let usual = Self::of(self.format);
        let mut options = Vec::new();
        match self.format {
            Format::Text => {}
            Format::Csv => options.push("FORMAT csv".to_owned()),
            Format::Binary => options.push("FORMAT binary".to_owned()),
        }
        let mut character = |name: &str, is: u8, usual: u8| {
            if is != usual {
                options.push(format!("{name} {}", text(&char::from(is).to_string())));
            }
        };
        character("DELIMITER", self.delimiter, usual.delimiter);
        character("QUOTE", self.quote, usual.quote);
        character("ESCAPE", self.escape, self.quote);
        if self.null != usual.null {
            options.push(format!("NULL {}", text(&self.null)));
        }
        match self.header {
            Header::None => {}
            Header::Skip => options.push("HEADER true".to_owned()),
            Header::Match => options.push("HEADER match".to_owned()),
        }
        for (name, which) in [
            ("FORCE_QUOTE", &self.force_quote),
            ("FORCE_NULL", &self.force_null),
            ("FORCE_NOT_NULL", &self.force_not_null),
        ] {
            match which {
                Which::None => {}
                Which::All => options.push(format!("{name} *")),
                Which::Named(names) => options.push(format!("{name} ({})", list(names))),
            }
        }
        if self.first_line != 1 {
            options.push(format!("FIRST_LINE {}", self.first_line));
        }
        options
    }
}

/// COPY FROM needs a table.
pub(crate) fn no_stdin() -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, "only COPY … FROM STDIN can be part of a write")
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<String>>().join(", ")
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests;
