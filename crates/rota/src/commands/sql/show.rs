//! How rows are printed: as a table, CSV, JSON, or one column to a line.

use tokio_postgres::types::Type;

use crate::args::Mode;
use crate::print::{Align, columns, width};

/// What a column's values are in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In quotes.
    Text,
    /// As they are.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl Kind {
    /// By PostgreSQL's type.
    pub fn of(kind: &Type) -> Self {
        match *kind {
            Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 => Self::Number,
            Type::BOOL => Self::Boolean,
            _ => Self::Text,
        }
    }
}

/// Prints the answer to one statement, as it comes in where the form allows it.
pub struct Printer {
    mode: Mode,
    kinds: Vec<Kind>,
    names: Option<Vec<String>>,
    rows: Vec<Vec<Option<String>>>,
    count: u64,
}

impl Printer {
    /// For one statement. `kinds` matter for JSON only.
    pub fn new(mode: Mode, kinds: Vec<Kind>) -> Self {
        Self { mode, kinds, names: None, rows: Vec::new(), count: 0 }
    }

    /// Rows of these columns follow.
    pub fn begin(&mut self, names: Vec<String>) -> String {
        let text = match self.mode {
            Mode::Table | Mode::Line => String::new(),
            Mode::Csv => csv(names.iter().map(|name| Some(name.as_str()))),
            Mode::Json => "[".into(),
        };
        self.names = Some(names);
        self.count = 0;
        text
    }

    /// A row.
    pub fn row(&mut self, values: Vec<Option<&str>>) -> String {
        self.count += 1;
        let names = self.names.as_deref().unwrap_or_default();
        match self.mode {
            Mode::Table => {
                self.rows.push(values.into_iter().map(|v| v.map(str::to_owned)).collect());
                String::new()
            }
            Mode::Csv => csv(values.into_iter()),
            Mode::Json => {
                let begin = if self.count == 1 { "\n " } else { ",\n " };
                format!("{begin}{}", self.object(names, &values))
            }
            Mode::Line => {
                let wide = names.iter().map(|name| width(name)).max().unwrap_or_default();
                let mut text = String::from(if self.count == 1 { "" } else { "\n" });
                for (name, value) in names.iter().zip(values) {
                    let gap = " ".repeat(wide - width(name));
                    text.push_str(&format!("{gap}{name} = {}\n", value.unwrap_or("NULL")));
                }
                text
            }
        }
    }

    /// The end; `count` is what the server says of rows returned or changed.
    pub fn end(&mut self, count: u64) -> String {
        let names = self.names.take();
        match (self.mode, names) {
            (Mode::Table, Some(names)) => table(&names, std::mem::take(&mut self.rows)),
            (Mode::Table, None) => format!("OK, {}\n", counted(count)),
            (Mode::Json, Some(_)) => if self.count == 0 { "]\n" } else { "\n]\n" }.into(),
            _ => String::new(),
        }
    }

    fn object(&self, names: &[String], values: &[Option<&str>]) -> String {
        let object = names.iter().zip(values).enumerate().map(|(i, (name, value))| {
            let kind = self.kinds.get(i).copied().unwrap_or(Kind::Text);
            (name.clone(), json(kind, *value))
        });
        serde_json::Value::Object(object.collect()).to_string()
    }
}

fn json(kind: Kind, value: Option<&str>) -> serde_json::Value {
    let Some(text) = value else { return serde_json::Value::Null };
    let as_it_is = match kind {
        Kind::Number => text.parse::<serde_json::Number>().ok().map(serde_json::Value::Number),
        Kind::Boolean => Some(matches!(text, "t" | "true" | "1").into()),
        Kind::Text => None,
    };
    as_it_is.unwrap_or_else(|| text.into())
}

/// A line of CSV by RFC 4180. An empty text is quoted, NULL is nothing at all.
fn csv<'a>(values: impl Iterator<Item = Option<&'a str>>) -> String {
    let special = |text: &str| text.is_empty() || text.contains([',', '"', '\n', '\r']);
    let cells = values.map(|value| match value {
        None => String::new(),
        Some(text) if special(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        Some(text) => text.to_owned(),
    });
    cells.collect::<Vec<_>>().join(",") + "\n"
}

fn table(names: &[String], rows: Vec<Vec<Option<String>>>) -> String {
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let number = |value: &Option<String>| match value {
        None => true,
        Some(text) => text.parse::<f64>().is_ok(),
    };
    let align: Vec<Align> = (0..names.len())
        .map(|i| match !rows.is_empty() && rows.iter().filter_map(|row| row.get(i)).all(number) {
            true => Align::Right,
            false => Align::Left,
        })
        .collect();
    let mut cells = vec![names.to_vec()];
    cells.extend(rows.into_iter().map(|row| row.into_iter().map(cell).collect()));
    let rules = (0..names.len()).map(|i| {
        let wide = cells.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).max();
        "-".repeat(wide.unwrap_or_default())
    });
    let rules = rules.collect();
    cells.insert(1, rules);
    format!("{}({})\n", columns(&cells, &align), counted(count))
}

/// On one line, whatever is in it.
fn cell(value: Option<String>) -> String {
    match value {
        None => "NULL".into(),
        Some(text) if text.contains(char::is_control) => {
            text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
        }
        Some(text) => text,
    }
}

fn counted(count: u64) -> String {
    if count == 1 { "1 row".into() } else { format!("{count} rows") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mode: Mode, rows: &[[Option<&str>; 2]]) -> String {
        let mut printer = Printer::new(mode, vec![Kind::Number, Kind::Text]);
        let mut text = printer.begin(vec!["n".into(), "text".into()]);
        for row in rows {
            text += &printer.row(row.to_vec());
        }
        text + &printer.end(0)
    }

    #[test]
    fn every_mode_shows_null_quotes_and_line_breaks_apart() {
        let rows = [[Some("1"), Some("a \"b\",\nc")], [None, Some("")]];
        for (mode, expected) in [
            (Mode::Csv, "n,text\n1,\"a \"\"b\"\",\nc\"\n,\"\"\n"),
            (
                Mode::Json,
                "[\n {\"n\":1,\"text\":\"a \\\"b\\\",\\nc\"},\n {\"n\":null,\"text\":\"\"}\n]\n",
            ),
            (Mode::Line, "   n = 1\ntext = a \"b\",\nc\n\n   n = NULL\ntext = \n"),
            (Mode::Table, "   n  text\n----  --------\n   1  a \"b\",·c\nNULL\n(2 rows)\n"),
        ] {
            assert_eq!(shown(mode, &rows), expected, "{mode:?}");
        }
    }

    #[test]
    fn no_rows_are_still_a_result() {
        assert_eq!(shown(Mode::Json, &[]), "[]\n");
        assert_eq!(shown(Mode::Csv, &[]), "n,text\n");
        assert_eq!(shown(Mode::Table, &[]), "n  text\n-  ----\n(0 rows)\n");
    }
}
