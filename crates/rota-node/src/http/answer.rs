//! The answers of rqlite's data API, with its fields in its order: step 9 of a transaction's life.
//!
//! ```text
//!  {"results":[{"columns":["a"],"types":["integer"],"values":[[1]],"time":0.1}],"time":0.2}
//!              {"types":{"a":"integer"},"rows":[{"a":1}]}            ?associative
//!              {"last_insert_id":1,"rows_affected":1}                what is zero is left out
//!              {"error":"no such table: t"}
//! ```
//!
//! A column that shows a table's column has that column's declared type; any other has the type of
//! its value in the first row. By that type, rqlite shows what is in it: 1 in a BOOLEAN column as
//! `true`, what is in a DATE, DATETIME or TIMESTAMP column as a time, bytes where text is expected
//! as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_core::transaction::Value;
use rota_store::Rows;

use super::go;

/// Beginnings of types that bytes are shown as text in.
const TEXT_TYPES: [&str; 6] =
    ["varchar", "varying character", "nchar", "native character", "nvarchar", "clob"];

/// How results are shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// Rows as objects.
    pub(crate) associative: bool,
    /// Bytes as arrays of numbers rather than base64.
    pub(crate) blob_array: bool,
    /// In `/db/query` what fails has rows, none, in the associative form.
    pub(crate) rows_only: bool,
}

/// What became of one element of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// What a SELECT or RETURNING gave; a read without words gives no columns.
    Rows(Rows),
    /// The newest rowid and count that this user's writes gave.
    Done {
        /// 0: left out.
        last_insert_id: i64,
        /// 0: left out.
        rows_affected: u64,
    },
    /// Why it did nothing.
    Failed(String),
}

/// A result as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Seconds, if they are asked for.
    pub(crate) time: Option<f64>,
    /// What rqlite does not tell, as JSON, if it is asked for: `"sqlstate":…,"rota":{…}`.
    pub(crate) more: String,
}

/// All of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Whole {
    /// One for each element that has words.
    pub(crate) results: Vec<Answer>,
    /// Why there are none.
    pub(crate) error: Option<String>,
    /// Seconds.
    pub(crate) time: Option<f64>,
    /// The number of a queued write.
    pub(crate) sequence_number: Option<i64>,
    /// The height, for those who ask for Raft's.
    pub(crate) raft_index: Option<u64>,
}

impl Whole {
    /// As JSON, on one line.
    pub(crate) fn json(&self, shape: Shape) -> String {
        let mut out = String::from("{\"results\":[");
        for (place, answer) in self.results.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            answer.write(&mut out, shape);
        }
        out.push(']');
        if let Some(error) = &self.error {
            out.push_str(",\"error\":");
            go::string(&mut out, error);
        }
        if let Some(time) = self.time {
            out.push_str(",\"time\":");
            go::real(&mut out, time);
        }
        if let Some(number) = self.sequence_number {
            let _ = write!(out, ",\"sequence_number\":{number}");
        }
        if let Some(index) = self.raft_index {
            let _ = write!(out, ",\"raft_index\":{index}");
        }
        out.push('}');
        out
    }
}

impl Answer {
    fn write(&self, out: &mut String, shape: Shape) {
        let mut fields = Fields { out, any: false };
        fields.out.push('{');
        match &self.outcome {
            Outcome::Rows(rows) => fields.rows(rows, shape),
            Outcome::Done { last_insert_id, rows_affected } => {
                if *last_insert_id != 0 {
                    let _ = write!(fields.name("last_insert_id"), "{last_insert_id}");
                }
                if *rows_affected != 0 {
                    let _ = write!(fields.name("rows_affected"), "{rows_affected}");
                }
            }
            Outcome::Failed(message) => {
                if shape.associative && shape.rows_only {
                    fields.name("rows").push_str("[]");
                }
                go::string(fields.name("error"), message);
            }
        }
        let failed = matches!(self.outcome, Outcome::Failed(_));
        if let Some(time) = self.time.filter(|_| !failed) {
            go::real(fields.name("time"), time);
        }
        if shape.associative && matches!(self.outcome, Outcome::Done { .. }) {
            fields.name("rows").push_str("null");
        }
        if !self.more.is_empty() {
            fields.comma();
            fields.out.push_str(&self.more);
        }
        fields.out.push('}');
    }
}

/// Fields of an object, one after the other.
struct Fields<'a> {
    out: &'a mut String,
    any: bool,
}

impl Fields<'_> {
    fn comma(&mut self) {
        if std::mem::replace(&mut self.any, true) {
            self.out.push(',');
        }
    }

    /// Begins a field; its value is written to what is returned.
    fn name(&mut self, name: &str) -> &mut String {
        self.comma();
        let _ = write!(self.out, "\"{name}\":");
        self.out
    }

    fn rows(&mut self, rows: &Rows, shape: Shape) {
        let kinds = kinds(rows);
        if shape.associative {
            return self.objects(rows, &kinds, shape);
        }
        if rows.columns.is_empty() {
            return;
        }
        let names = rows.columns.iter().map(|column| column.name.as_str());
        array(self.name("columns"), names, go::string);
        array(self.name("types"), kinds.iter().map(|kind| kind.name.as_str()), go::string);
        if !rows.rows.is_empty() {
            array(self.name("values"), rows.rows.iter(), |out, row| {
                let cells = row.iter().zip(&kinds);
                array(out, cells, |out, (value, kind)| cell(out, value, kind, shape.blob_array));
            });
        }
    }

    /// Rows as objects, whose fields Go sorts; of two columns of one name it keeps the last.
    fn objects(&mut self, rows: &Rows, kinds: &[Kind], shape: Shape) {
        let columns = rows.columns.iter().enumerate();
        let sorted: BTreeMap<&str, usize> =
            columns.map(|(place, column)| (column.name.as_str(), place)).collect();
        if !sorted.is_empty() {
            object(self.name("types"), &sorted, |out, place| {
                go::string(out, kinds.get(place).map_or("", |kind| &kind.name));
            });
        }
        array(self.name("rows"), rows.rows.iter(), |out, row| {
            object(out, &sorted, |out, place| match (row.get(place), kinds.get(place)) {
                (Some(value), Some(kind)) => cell(out, value, kind, shape.blob_array),
                _ => out.push_str("null"),
            });
        });
    }
}

fn array<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

fn object(
    out: &mut String,
    names: &BTreeMap<&str, usize>,
    mut write: impl FnMut(&mut String, usize),
) {
    out.push('{');
    for (at, (name, place)) in names.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        go::string(out, name);
        out.push(':');
        write(out, *place);
    }
    out.push('}');
}

/// A column's type, and what it makes of the values in it.
struct Kind {
    name: String,
    shows: Shows,
}

#[derive(Clone, Copy, PartialEq)]
enum Shows {
    Booleans,
    Times,
    /// Bytes as text.
    Texts,
    Values,
}

fn kinds(rows: &Rows) -> Vec<Kind> {
    let first = rows.rows.first();
    let columns = rows.columns.iter().enumerate();
    let kinds = columns.map(|(place, column)| match &column.declared {
        Some(declared) if !declared.is_empty() => {
            let name = declared.to_lowercase();
            let shows = match name.as_str() {
                "boolean" => Shows::Booleans,
                "date" | "datetime" | "timestamp" => Shows::Times,
                name if is_text(name) => Shows::Texts,
                _ => Shows::Values,
            };
            Kind { name, shows }
        }
        _ => {
            let name = match first.and_then(|row| row.get(place)) {
                None | Some(Value::Null) => "",
                Some(Value::Integer(_)) => "integer",
                Some(Value::Real(_)) => "real",
                Some(Value::Text(_) | Value::Blob(_)) => "text",
            };
            let shows = if is_text(name) { Shows::Texts } else { Shows::Values };
            Kind { name: name.into(), shows }
        }
    });
    kinds.collect()
}

fn is_text(name: &str) -> bool {
    matches!(name, "" | "text" | "json")
        || TEXT_TYPES.iter().any(|beginning| name.starts_with(beginning))
}

fn cell(out: &mut String, value: &Value, kind: &Kind, blob_array: bool) {
    match (value, kind.shows) {
        (Value::Null, _) => out.push_str("null"),
        (Value::Integer(number), Shows::Booleans) => {
            out.push_str(if *number > 0 { "true" } else { "false" });
        }
        (Value::Integer(number), Shows::Times) => match go::time_of_number(*number) {
            Some(time) => go::string(out, &time),
            None => out.push_str("null"),
        },
        (Value::Integer(number), _) => {
            let _ = write!(out, "{number}");
        }
        (Value::Real(bits), _) => go::real(out, f64::from_bits(*bits)),
        (Value::Text(text), Shows::Times) => go::string(out, &go::time_of_text(text)),
        (Value::Text(text), _) => go::string(out, text),
        (Value::Blob(bytes), Shows::Texts) => go::string(out, &as_text(bytes)),
        (Value::Blob(bytes), _) if blob_array => {
            array(out, bytes.iter(), |out, byte| {
                let _ = write!(out, "{byte}");
            });
        }
        (Value::Blob(bytes), _) => {
            out.push('"');
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
    }
}

/// Bytes as text; each that is not UTF-8 is U+FFFD.
fn as_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_store::Column;

    fn rows(columns: &[(&str, Option<&str>)], rows: Vec<Vec<Value>>) -> Outcome {
        let columns = columns.iter().map(|(name, declared)| Column {
            name: (*name).into(),
            declared: declared.map(Into::into),
        });
        Outcome::Rows(Rows { columns: columns.collect(), rows })
    }

    fn shown(outcome: Outcome, shape: Shape) -> String {
        let mut out = String::new();
        Answer { outcome, time: Some(0.5), more: String::new() }.write(&mut out, shape);
        out
    }

    const PLAIN: Shape = Shape { associative: false, blob_array: false, rows_only: false };
    const OBJECTS: Shape = Shape { associative: true, blob_array: false, rows_only: false };
    const BYTES: Shape = Shape { associative: false, blob_array: true, rows_only: false };

    #[test]
    fn results_have_rqlite_s_fields_in_its_order() {
        let done = |last_insert_id, rows_affected| Outcome::Done { last_insert_id, rows_affected };
        let failed = || Outcome::Failed("no such table: t".into());
        let query = Shape { rows_only: true, ..OBJECTS };
        for (outcome, shape, want) in [
            (done(1, 2), PLAIN, r#"{"last_insert_id":1,"rows_affected":2,"time":0.5}"#),
            (done(1, 0), PLAIN, r#"{"last_insert_id":1,"time":0.5}"#),
            (done(0, 2), OBJECTS, r#"{"rows_affected":2,"time":0.5,"rows":null}"#),
            (failed(), PLAIN, r#"{"error":"no such table: t"}"#),
            (failed(), OBJECTS, r#"{"error":"no such table: t"}"#),
            (failed(), query, r#"{"rows":[],"error":"no such table: t"}"#),
            (rows(&[], vec![]), PLAIN, r#"{"time":0.5}"#),
            (rows(&[], vec![]), OBJECTS, r#"{"rows":[],"time":0.5}"#),
        ] {
            assert_eq!(shown(outcome, shape), want);
        }
        let one = || vec![Value::Integer(1), Value::Text("x".into())];
        let pair = [("b", Some("INTEGER")), ("a", None)];
        assert_eq!(
            shown(rows(&pair, vec![one()]), PLAIN),
            r#"{"columns":["b","a"],"types":["integer","text"],"values":[[1,"x"]],"time":0.5}"#
        );
        assert_eq!(
            shown(rows(&pair, vec![one()]), OBJECTS),
            r#"{"types":{"a":"text","b":"integer"},"rows":[{"a":"x","b":1}],"time":0.5}"#
        );
        assert_eq!(
            shown(rows(&[("a", None), ("a", None)], vec![one()]), OBJECTS),
            r#"{"types":{"a":"text"},"rows":[{"a":"x"}],"time":0.5}"#
        );
        assert_eq!(
            shown(rows(&pair, vec![]), PLAIN),
            r#"{"columns":["b","a"],"types":["integer",""],"time":0.5}"#
        );
    }

    #[test]
    fn values_are_shown_by_the_type_of_their_column() {
        let text = |text: &str| Value::Text(text.into());
        let blob = || Value::Blob(vec![0, 255]);
        for (declared, value, shape, want) in [
            (Some("BOOLEAN"), Value::Integer(2), PLAIN, "true"),
            (Some("BOOLEAN"), Value::Integer(0), PLAIN, "false"),
            (Some("boolean"), text("yes"), PLAIN, "\"yes\""),
            (Some("DATE"), text("2026-09-30"), PLAIN, "\"2026-09-30T00:00:00Z\""),
            (Some("TIMESTAMP"), Value::Integer(0), PLAIN, "\"1970-01-01T00:00:00Z\""),
            (Some("DATETIME"), Value::real(1.5), PLAIN, "1.5"),
            (Some("BLOB"), blob(), PLAIN, "\"AP8=\""),
            (Some("BLOB"), blob(), BYTES, "[0,255]"),
            (Some("BLOB"), text("t"), BYTES, "\"t\""),
            (Some("uuid"), blob(), BYTES, "[0,255]"),
            (Some("VARCHAR(10)"), blob(), BYTES, "\"\\u0000\u{fffd}\""),
            (None, blob(), BYTES, "\"\\u0000\u{fffd}\""),
            (None, Value::Integer(i64::MIN), PLAIN, "-9223372036854775808"),
            (None, Value::real(f64::INFINITY), PLAIN, "null"),
        ] {
            let shown = shown(rows(&[("v", declared)], vec![vec![value]]), shape);
            let values = format!("\"values\":[[{want}]]");
            assert!(shown.contains(&values), "{declared:?}: {shown}, not {values}");
        }
        let mixed = vec![vec![Value::Integer(1)], vec![text("a")], vec![blob()]];
        assert!(shown(rows(&[("v", None)], mixed), PLAIN).contains("[[1],[\"a\"],[\"AP8=\"]]"));
    }

    #[test]
    fn what_the_whole_answer_tells_comes_after_the_results() {
        let whole = Whole {
            results: Vec::new(),
            error: Some("stale read".into()),
            time: Some(0.25),
            sequence_number: Some(7),
            raft_index: Some(9),
        };
        let want =
            r#"{"results":[],"error":"stale read","time":0.25,"sequence_number":7,"raft_index":9}"#;
        assert_eq!(whole.json(PLAIN), want);
        assert_eq!(Whole::default().json(PLAIN), r#"{"results":[]}"#);
    }
}
