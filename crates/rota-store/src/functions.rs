//! PostgreSQL's functions that SQLite has not, for reads (step 1) and writes (step 8) alike.
//!
//! Every one of them must give the same on every server: from its arguments only, in integers or in
//! arithmetic that IEEE 754 defines to the last bit, without locale, clock or time zone. What one
//! call may cost is bounded by the lengths of what it takes and gives, since no VM steps count it.
//!
//! `text` has the strings, `pattern` regular expressions, `time` dates and times, `number` the
//! arithmetic, `json` builders and aggregates. Error messages are PostgreSQL's; `error` knows their
//! SQLSTATEs.

mod json;
mod metered;
mod number;
mod pattern;
mod text;
mod time;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};

use crate::datetime::Wrong;
use crate::determinism::MAX_VALUE_BYTES;
pub(crate) use metered::Meter;
use metered::Metered;

/// What `policy` lets clients call in writes.
pub const NAMES: [&str; 74] = [
    "array_agg",
    "ascii",
    "bit_length",
    "bool_and",
    "bool_or",
    "btrim",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "date_add",
    "date_part",
    "date_subtract",
    "date_trunc",
    "div",
    "every",
    "extract",
    "floor",
    "gen_random_uuid",
    "greatest",
    "initcap",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_typeof",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_typeof",
    "least",
    "left",
    "lpad",
    "make_date",
    "make_timestamp",
    "md5",
    "mod",
    "overlay",
    "pow",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "regexp",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "reverse",
    "right",
    "rota_boolean",
    "rota_date",
    "rota_time",
    "rota_timestamp",
    "rota_timestamptz",
    "rota_uuid",
    "rpad",
    "split_part",
    "sqrt",
    "starts_with",
    "strpos",
    "timezone",
    "to_char",
    "to_date",
    "to_hex",
    "to_json",
    "to_jsonb",
    "to_timestamp",
    "translate",
    "trunc",
    "uuid_generate_v4",
    "width_bucket",
];

/// Also for defaults, triggers, views and indexes.
const FIXED: FunctionFlags = FunctionFlags::SQLITE_UTF8
    .union(FunctionFlags::SQLITE_DETERMINISTIC)
    .union(FunctionFlags::SQLITE_INNOCUOUS);

/// Any number of arguments: the function says itself what it takes.
const ANY: i32 = -1;

/// Registers all but those that draw. What they cost goes to `meter`.
pub fn register(connection: &Connection, meter: Option<Meter>) -> Result<()> {
    let connection = &Metered { connection, meter };
    text::register(connection)?;
    pattern::register(connection)?;
    time::register(connection)?;
    number::register(connection)?;
    json::register(connection)?;
    connection.register_built_in()
}

/// Registers `gen_random_uuid()`. In a write `draw` is seeded by what is agreed.
pub fn register_random(
    connection: &Connection,
    draw: impl Fn() -> [u8; 16] + Clone + Send + 'static,
) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    for name in ["gen_random_uuid", "uuid_generate_v4"] {
        let draw = draw.clone();
        connection.create_scalar_function(name, 0, flags, move |_| Ok(random_uuid(draw())))?;
    }
    Ok(())
}

/// RFC 9562, version 4.
fn random_uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid(bytes)
}

/// A uuid's text, in lower case.
fn uuid(bytes: [u8; 16]) -> String {
    let mut text = hex::encode(bytes);
    for place in [20, 16, 12, 8] {
        text.insert(place, '-');
    }
    text
}

/// What a function gives.
type Given = Result<Value>;

/// Registers a function that is NULL if one of its arguments is.
fn strict(
    connection: &Metered<'_>,
    name: &str,
    arguments: i32,
    function: fn(&Arguments<'_, '_>) -> Given,
) -> Result<()> {
    let meter = connection.meter.clone();
    connection.create_scalar_function(name, arguments, FIXED, move |call: &Context<'_>| {
        let arguments = Arguments(call);
        if arguments.any_null() {
            return Ok(Value::Null);
        }
        let given = function(&arguments)?;
        if let Some(meter) = &meter {
            metered::charge(meter, metered::steps_of(&given))?;
        }
        Ok(given)
    })
}

/// The arguments of a call.
struct Arguments<'c, 'a>(&'c Context<'a>);

impl Arguments<'_, '_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn raw(&self, place: usize) -> ValueRef<'_> {
        if place < self.0.len() { self.0.get_raw(place) } else { ValueRef::Null }
    }

    fn any_null(&self) -> bool {
        (0..self.len()).any(|place| self.raw(place) == ValueRef::Null)
    }

    /// As text, whatever it is.
    fn text(&self, place: usize) -> Result<String> {
        text_of(self.raw(place))
    }

    fn integer(&self, place: usize) -> Result<i64> {
        match self.raw(place) {
            ValueRef::Integer(number) => Ok(number),
            #[expect(clippy::cast_possible_truncation, reason = "saturates, and NaN is not stored")]
            ValueRef::Real(number) => Ok(number.round_ties_even() as i64),
            other => {
                let text = text_of(other)?;
                text.trim().parse().map_err(|_| invalid("integer", &text))
            }
        }
    }

    fn real(&self, place: usize) -> Result<f64> {
        match self.raw(place) {
            #[expect(clippy::cast_precision_loss, reason = "what a double is")]
            ValueRef::Integer(number) => Ok(number as f64),
            ValueRef::Real(number) => Ok(number),
            other => {
                let text = text_of(other)?;
                text.trim().parse().map_err(|_| invalid("double precision", &text))
            }
        }
    }
}

fn text_of(value: ValueRef<'_>) -> Result<String> {
    Ok(match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => format!("\\x{}", hex::encode(bytes)),
    })
}

fn integer(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// 0 and 1: SQLite's truth.
fn truth(truth: bool) -> Value {
    Value::Integer(truth.into())
}

/// An error with PostgreSQL's message.
fn fail(message: impl Into<String>) -> Error {
    Error::UserFunctionError(message.into().into())
}

fn invalid(of: &str, text: &str) -> Error {
    let shown: String = text.chars().take(40).collect();
    fail(format!("invalid input syntax for type {of}: \"{shown}\""))
}

fn no_moment(of: &str, text: &str, wrong: Wrong) -> Error {
    match wrong {
        Wrong::Syntax => invalid(of, text),
        Wrong::Range => {
            let shown: String = text.chars().take(40).collect();
            fail(format!("date/time field value out of range: \"{shown}\""))
        }
    }
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    fail(format!("not supported: {what}"))
}

/// Longer than any value may be.
fn too_long() -> Error {
    fail("requested length too large")
}

/// The longest text that a function makes.
fn most() -> usize {
    usize::try_from(MAX_VALUE_BYTES).unwrap_or(0)
}

#[cfg(test)]
mod tests;
