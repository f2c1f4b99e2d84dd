//! What Hrana's clients send, as JSON (step 1): pipelines of requests, statements with their
//! arguments, batches with conditions. Fields that nobody knows are ignored, as Hrana asks.
//!
//! ```text
//!  {"baton": null, "requests": [
//!     {"type": "execute", "stmt": {"sql": "SELECT ?", "args": [{"type": "text", "value": "1"}]}},
//!     {"type": "batch", "batch": {"steps": [{"condition": {"type": "ok", "step": 0}, …}]}},
//!     {"type": "close"}]}
//! ```

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rota_core::transaction::{Parameters, Value};
use serde::Deserialize;

use super::failure::Failure;

/// Hrana's servers leave the padding out, and some clients do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The body of `/v2/pipeline` and `/v3/pipeline`.
#[derive(Debug, Deserialize)]
pub(crate) struct Pipeline {
    /// Which stream; a new one without it.
    #[serde(default)]
    pub(crate) baton: Option<String>,
    /// What to do, in order, each whatever became of those before.
    #[serde(default)]
    pub(crate) requests: Vec<Request>,
}

/// The body of `/v3/cursor`.
#[derive(Debug, Deserialize)]
pub(crate) struct Cursor {
    /// Which stream; a new one without it.
    #[serde(default)]
    pub(crate) baton: Option<String>,
    /// What to do.
    pub(crate) batch: Batch,
}

/// One request of a pipeline.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Request {
    Close,
    Execute { stmt: Stmt },
    Batch { batch: Batch },
    Sequence(Sql),
    Describe(Sql),
    StoreSql { sql_id: i32, sql: String },
    CloseSql { sql_id: i32 },
    GetAutocommit,
}

/// A text, or the number under which the stream keeps it.
#[derive(Debug, Deserialize)]
pub(crate) struct Sql {
    #[serde(default)]
    pub(crate) sql: Option<String>,
    #[serde(default)]
    pub(crate) sql_id: Option<i32>,
}

/// A statement.
#[derive(Debug, Deserialize)]
pub(crate) struct Stmt {
    #[serde(default)]
    pub(crate) sql: Option<String>,
    #[serde(default)]
    pub(crate) sql_id: Option<i32>,
    #[serde(default)]
    args: Option<Vec<Cell>>,
    #[serde(default)]
    named_args: Option<Vec<NamedArg>>,
    /// Whether its rows are wanted: they are unless this is false.
    #[serde(default)]
    pub(crate) want_rows: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct NamedArg {
    name: String,
    value: Cell,
}

/// A value.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Cell {
    Null,
    Integer { value: Whole },
    Float { value: f64 },
    Text { value: String },
    Blob { base64: String },
}

/// Numbers of 64 bits are strings, as JavaScript's have 53. Who writes a number means it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Whole {
    Text(String),
    Number(i64),
}

/// Statements that run one after the other, each if its condition holds.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    pub(crate) steps: Vec<Step>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    #[serde(default)]
    pub(crate) condition: Option<Condition>,
    pub(crate) stmt: Stmt,
}

/// On what a step depends. The JSON parser bounds how deep they nest, and `steps` does more so.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Condition {
    /// That step was run and worked.
    Ok {
        step: usize,
    },
    /// That step was run and failed.
    Error {
        step: usize,
    },
    Not {
        cond: Box<Condition>,
    },
    And {
        conds: Vec<Condition>,
    },
    Or {
        conds: Vec<Condition>,
    },
    /// The stream is in no transaction.
    IsAutocommit,
}

impl Stmt {
    /// A statement of our own.
    pub(crate) fn of(sql: &str) -> Self {
        Self { sql: Some(sql.into()), sql_id: None, args: None, named_args: None, want_rows: None }
    }

    /// What is to be bound.
    pub(crate) fn parameters(&mut self) -> Result<Parameters, Failure> {
        let positional = self.args.take().unwrap_or_default();
        let named = self.named_args.take().unwrap_or_default();
        if named.is_empty() {
            let values = positional.into_iter().map(value).collect::<Result<_, _>>()?;
            return Ok(Parameters::Positional(values));
        }
        if !positional.is_empty() {
            return Err(Failure::new(
                "ARGS_BOTH_POSITIONAL_AND_NAMED",
                "arguments by position and by name in one statement",
            ));
        }
        let mut values = named
            .into_iter()
            .map(|NamedArg { name, value: cell }| {
                let bare = name.strip_prefix([':', '@', '$']).unwrap_or(&name).to_owned();
                Ok((bare, value(cell)?))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        // Sorted and unique, as they are signed; of two with one name the last one counts.
        values.reverse();
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        values.dedup_by(|(one, _), (other, _)| one == other);
        Ok(Parameters::Named(values))
    }
}

fn value(cell: Cell) -> Result<Value, Failure> {
    let invalid = |message: String| Failure::new("ARGS_INVALID", message);
    Ok(match cell {
        Cell::Null => Value::Null,
        Cell::Integer { value: Whole::Number(number) } => Value::Integer(number),
        Cell::Integer { value: Whole::Text(text) } => {
            let parsed = text.parse();
            Value::Integer(
                parsed.map_err(|_| {
                    invalid(format!("\"{text:.40}\" is no whole number of 64 bits"))
                })?,
            )
        }
        Cell::Float { value } => Value::real(value),
        Cell::Text { value } => Value::Text(value),
        Cell::Blob { base64 } => Value::Blob(
            BASE64
                .decode(base64)
                .map_err(|error| invalid(format!("a blob that is not base64: {error}")))?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameters(stmt: serde_json::Value) -> Result<Parameters, &'static str> {
        let mut stmt: Stmt = serde_json::from_value(stmt).unwrap();
        stmt.parameters().map_err(|failure| failure.code)
    }

    #[test]
    fn values_of_every_type_are_read() {
        let read = parameters(json!({"sql": "x", "args": [
            {"type": "null"}, {"type": "integer", "value": "-9223372036854775808"},
            {"type": "integer", "value": 7}, {"type": "float", "value": 1},
            {"type": "text", "value": "ö"}, {"type": "blob", "base64": "AAH/"},
            {"type": "blob", "base64": "AA"}, {"type": "blob", "base64": "AA=="},
        ]}));
        let wanted = vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(7),
            Value::real(1.0),
            Value::Text("ö".into()),
            Value::Blob(vec![0, 1, 255]),
            Value::Blob(vec![0]),
            Value::Blob(vec![0]),
        ];
        assert_eq!(read, Ok(Parameters::Positional(wanted)));
        for cell in [
            json!({"type": "integer", "value": "9223372036854775808"}),
            json!({"type": "integer", "value": "1.5"}),
            json!({"type": "blob", "base64": "A"}),
        ] {
            assert_eq!(parameters(json!({"sql": "x", "args": [cell]})), Err("ARGS_INVALID"));
        }
    }

    #[test]
    fn names_lose_their_prefix_and_the_last_of_two_counts() {
        let text = |value: &str| json!({"type": "text", "value": value});
        let one = |name: &str, value: &str| json!({"name": name, "value": text(value)});
        let read = parameters(json!({"sql": "x", "named_args": [
            one(":b", "1"), one("a", "2"), one("@b", "3"), one("$c", "4")]}));
        let named = |name: &str, value: &str| (name.to_owned(), Value::Text(value.into()));
        let wanted = vec![named("a", "2"), named("b", "3"), named("c", "4")];
        assert_eq!(read, Ok(Parameters::Named(wanted)));
        let both = json!({"sql": "x", "args": [{"type": "null"}], "named_args": [one("a", "1")]});
        assert_eq!(parameters(both), Err("ARGS_BOTH_POSITIONAL_AND_NAMED"));
    }

    #[test]
    fn conditions_nest_and_no_deeper_than_a_stack_bears() {
        let read: Condition = serde_json::from_value(json!({"type": "and", "conds": [
            {"type": "ok", "step": 0}, {"type": "not", "cond": {"type": "is_autocommit"}}]}))
        .unwrap();
        assert!(matches!(read, Condition::And { conds } if conds.len() == 2));
        let deep = format!(
            "{}{{\"type\":\"is_autocommit\"}}{}",
            "{\"type\":\"not\",\"cond\":".repeat(100_000),
            "}".repeat(100_000)
        );
        assert!(serde_json::from_str::<Condition>(&deep).is_err());
    }
}
