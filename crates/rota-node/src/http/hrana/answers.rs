//! What Hrana's clients get, as JSON (step 9).
//!
//! ```text
//!  {"baton": "…", "base_url": null, "results": [
//!     {"type": "ok", "response": {"type": "execute", "result":
//!        {"cols": [{"name": "a", "decltype": "INT"}],
//!         "rows": [[{"type": "integer", "value": "1"}]],
//!         "affected_row_count": 0, "last_insert_rowid": null, …}}},
//!     {"type": "error", "error": {"message": "…", "code": "SQLITE_ERROR", "sqlstate": "42601"}}]}
//! ```

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rota_core::transaction::Value;
use rota_store::{Column, StatementKind, StatementResult};
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::failure::Failure;

/// The answer to a pipeline.
#[derive(Debug, Serialize)]
pub(crate) struct PipelineAnswer {
    /// Under what the stream goes on; it has ended without it.
    pub(crate) baton: Option<String>,
    /// Where it goes on: at the same address, always.
    pub(crate) base_url: Option<String>,
    /// One for each request.
    pub(crate) results: Vec<Answered>,
}

/// The first line of the answer to a cursor.
#[derive(Debug, Serialize)]
pub(crate) struct CursorAnswer {
    pub(crate) baton: Option<String>,
    pub(crate) base_url: Option<String>,
}

/// What became of a request.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Answered {
    Ok { response: Response },
    Error { error: Failure },
}

/// What a request that worked gives.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Response {
    Close,
    Execute { result: Done },
    Batch { result: BatchDone },
    Sequence,
    Describe { result: Described },
    StoreSql,
    CloseSql,
    GetAutocommit { is_autocommit: bool },
}

/// What became of a batch's steps: for one that was left out, null in both.
#[derive(Debug, Default, Serialize)]
pub(crate) struct BatchDone {
    pub(crate) step_results: Vec<Option<Done>>,
    pub(crate) step_errors: Vec<Option<Failure>>,
}

/// The lines of a cursor's answer, after the first.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Entry<'a> {
    StepBegin { step: usize, cols: Columns<'a> },
    Row { row: Line<'a> },
    StepEnd { affected_row_count: u64, last_insert_rowid: Option<String> },
    StepError { step: usize, error: &'a Failure },
    Error { error: &'a Failure },
}

/// What a statement takes and gives.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    pub(crate) params: Vec<DescribedParameter>,
    pub(crate) cols: Vec<DescribedColumn>,
    pub(crate) is_explain: bool,
    pub(crate) is_readonly: bool,
}

/// A parameter, by its name with prefix.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DescribedParameter {
    pub(crate) name: Option<String>,
}

/// A column.
#[derive(Debug, Serialize)]
pub(crate) struct DescribedColumn {
    pub(crate) name: String,
    pub(crate) decltype: Option<String>,
}

/// What a statement did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) result: StatementResult,
    /// How long that took.
    pub(crate) took: Duration,
}

impl Done {
    /// Of a statement that did nothing.
    pub(crate) fn nothing(kind: StatementKind) -> Self {
        Self { result: StatementResult::nothing(kind), took: Duration::ZERO }
    }

    /// Rows that it changed.
    pub(crate) fn affected(&self) -> u64 {
        match self.result.kind {
            StatementKind::Insert | StatementKind::Update | StatementKind::Delete => {
                self.result.rows_affected
            }
            _ => 0,
        }
    }

    /// The rowid of what it inserted, if there was any.
    pub(crate) fn last_insert_rowid(&self) -> Option<String> {
        let rowid = self.result.last_insert_rowid;
        let inserted = self.result.kind == StatementKind::Insert && rowid != 0;
        inserted.then(|| rowid.to_string())
    }

    /// How many bytes its rows are as JSON, or a little less.
    pub(crate) fn bytes(&self) -> usize {
        let cells = self.result.rows.rows.iter().flatten();
        cells.fold(0, |sum, cell| sum.saturating_add(bytes_of(cell)))
    }
}

/// `{"type":"integer","value":"1"},`.
const CELL_BYTES: usize = 32;

fn bytes_of(cell: &Value) -> usize {
    let content = match cell {
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len().saturating_mul(4) / 3,
    };
    content.saturating_add(CELL_BYTES)
}

impl Serialize for Done {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = &self.result.rows;
        let mut done = serializer.serialize_struct("StmtResult", 7)?;
        done.serialize_field("cols", &Columns(&rows.columns))?;
        done.serialize_field("rows", &Lines(&rows.rows))?;
        done.serialize_field("affected_row_count", &self.affected())?;
        done.serialize_field("last_insert_rowid", &self.last_insert_rowid())?;
        // libSQL counts what its plans look at; what is known here is what is shown and changed.
        done.serialize_field("rows_read", &rows.rows.len())?;
        done.serialize_field("rows_written", &self.affected())?;
        let microseconds = u32::try_from(self.took.as_micros()).unwrap_or(u32::MAX);
        done.serialize_field("query_duration_ms", &(f64::from(microseconds) / 1e3))?;
        done.end()
    }
}

/// The columns of a result.
#[derive(Debug)]
pub(crate) struct Columns<'a>(pub(crate) &'a [Column]);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Col<'a> {
            name: &'a str,
            decltype: Option<&'a str>,
        }
        serializer.collect_seq(
            self.0
                .iter()
                .map(|column| Col { name: &column.name, decltype: column.declared.as_deref() }),
        )
    }
}

struct Lines<'a>(&'a [Vec<Value>]);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|row| Line(row)))
    }
}

/// One row.
#[derive(Debug)]
pub(crate) struct Line<'a>(pub(crate) &'a [Value]);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Cell))
    }
}

struct Cell<'a>(&'a Value);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut cell = serializer.serialize_map(None)?;
        match self.0 {
            Value::Null => cell.serialize_entry("type", "null")?,
            Value::Integer(number) => {
                cell.serialize_entry("type", "integer")?;
                cell.serialize_entry("value", &number.to_string())?;
            }
            Value::Real(bits) => {
                cell.serialize_entry("type", "float")?;
                match infinity(f64::from_bits(*bits)) {
                    Some(text) => cell.serialize_entry("value", &text)?,
                    None => cell.serialize_entry("value", &f64::from_bits(*bits))?,
                }
            }
            Value::Text(text) => {
                cell.serialize_entry("type", "text")?;
                cell.serialize_entry("value", text)?;
            }
            Value::Blob(bytes) => {
                cell.serialize_entry("type", "blob")?;
                cell.serialize_entry("base64", &STANDARD_NO_PAD.encode(bytes))?;
            }
        }
        cell.end()
    }
}

/// JSON has no word for it, and numbers of any size: this one is read as infinity by JavaScript,
/// Python and most others.
fn infinity(number: f64) -> Option<Box<RawValue>> {
    let text = if number.is_sign_negative() { "-1e999" } else { "1e999" };
    let raw = || RawValue::from_string(text.into()).ok();
    number.is_infinite().then(raw).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_store::Rows;

    #[test]
    fn a_result_is_written_as_hrana_has_it() {
        let cells = vec![
            Value::Null,
            Value::Integer(i64::MAX),
            Value::real(1.5),
            Value::real(f64::NEG_INFINITY),
            Value::Text("a\"ö".into()),
            Value::Blob(vec![0, 1, 255, 7]),
        ];
        let columns = vec![
            Column { name: "a".into(), declared: Some("INT".into()) },
            Column { name: "b".into(), declared: None },
        ];
        let rows = Rows { columns, rows: vec![cells] };
        let kind = StatementKind::Insert;
        let result = StatementResult { kind, rows_affected: 1, last_insert_rowid: 7, rows };
        let done = Done { result, took: Duration::from_micros(1500) };
        assert_eq!(
            serde_json::to_string(&done).unwrap(),
            concat!(
                r#"{"cols":[{"name":"a","decltype":"INT"},{"name":"b","decltype":null}],"#,
                r#""rows":[[{"type":"null"},{"type":"integer","value":"9223372036854775807"},"#,
                r#"{"type":"float","value":1.5},{"type":"float","value":-1e999},"#,
                r#"{"type":"text","value":"a\"ö"},{"type":"blob","base64":"AAH/Bw"}]],"#,
                r#""affected_row_count":1,"last_insert_rowid":"7","#,
                r#""rows_read":1,"rows_written":1,"query_duration_ms":1.5}"#,
            )
        );
    }
}
