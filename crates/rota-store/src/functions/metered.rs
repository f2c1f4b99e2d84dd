//! What functions cost, in VM steps, which SQLite does not count inside of a function: by the bytes
//! that they are given and give, so that it is the same on every server. At apply (step 8) and on
//! drafts (step 1) that is charged to the transaction; reads have a clock.
//!
//! SQLite's own functions whose time is the product of two arguments' lengths are charged too: what
//! is registered in their place asks them on a connection of its own.

use std::ops::Deref;
use std::sync::Arc;

use rusqlite::functions::{Context, FunctionFlags, SqlFnOutput};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Error, Result};

use super::FIXED;
use crate::determinism::MAX_VALUE_BYTES;

/// Charges steps. False: there are not that many left.
pub(crate) type Meter = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// A step is some 30 ns: time for so many bytes in most functions, ...
const BYTES_PER_STEP: u64 = 16;

/// ... for so many comparisons of bytes in a search, ...
const COMPARED_PER_STEP: u64 = 1_024;

/// ... and for so many of single characters with a set.
const CHARACTERS_PER_STEP: u64 = 32;

/// What compiling a pattern costs for each of its bytes; charged whether it is kept or not.
const STEPS_PER_PATTERN_BYTE: u64 = 50;

/// What `{n}` makes of a pattern, at most.
const REPEATED: u64 = 256;

/// SQLite's functions that are asked on another connection, with how many arguments.
const BUILT_IN: [(&str, &str, i32); 8] = [
    ("instr", "SELECT instr(?1, ?2)", 2),
    ("replace", "SELECT replace(?1, ?2, ?3)", 3),
    ("trim", "SELECT trim(?1, ?2)", 2),
    ("ltrim", "SELECT ltrim(?1, ?2)", 2),
    ("rtrim", "SELECT rtrim(?1, ?2)", 2),
    ("hex", "SELECT hex(?1)", 1),
    ("unhex", "SELECT unhex(?1)", 1),
    ("quote", "SELECT quote(?1)", 1),
];

/// A connection whose functions are charged for.
pub(super) struct Metered<'a> {
    pub(super) connection: &'a Connection,
    pub(super) meter: Option<Meter>,
}

impl Deref for Metered<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Metered<'_> {
    /// As `Connection` does.
    pub(super) fn create_scalar_function<F, T>(
        &self,
        name: &str,
        arguments: i32,
        flags: FunctionFlags,
        function: F,
    ) -> Result<()>
    where
        F: Fn(&Context<'_>) -> Result<T> + Send + 'static,
        T: SqlFnOutput,
    {
        let Some(meter) = self.meter.clone() else {
            return self.connection.create_scalar_function(name, arguments, flags, function);
        };
        let cost = cost_of(name);
        self.connection.create_scalar_function(name, arguments, flags, move |call| {
            charge(&meter, cost(call))?;
            function(call)
        })
    }

    /// SQLite's own, where they are to be charged for.
    pub(super) fn register_built_in(&self) -> Result<()> {
        if self.meter.is_none() {
            return Ok(());
        }
        for (name, sql, arguments) in BUILT_IN {
            let other = Connection::open_in_memory()?;
            other.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
            self.create_scalar_function(name, arguments, FIXED, move |call| {
                ask(&other, sql, call)
            })?;
        }
        Ok(())
    }
}

pub(super) fn charge(meter: &Meter, steps: u64) -> Result<()> {
    if meter(steps) { Ok(()) } else { Err(Error::UserFunctionError("too many steps".into())) }
}

/// Bytes of a result, in steps.
pub(super) fn steps_of(given: &Value) -> u64 {
    match given {
        Value::Text(text) => count(text.len()) / BYTES_PER_STEP,
        Value::Blob(bytes) => count(bytes.len()) / BYTES_PER_STEP,
        _ => 0,
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn bytes<'c>(call: &'c Context<'_>, place: usize) -> &'c [u8] {
    if place >= call.len() {
        return &[];
    }
    match call.get_raw(place) {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    }
}

fn length(call: &Context<'_>, place: usize) -> u64 {
    count(bytes(call, place).len())
}

fn all(call: &Context<'_>) -> u64 {
    (0..call.len()).fold(0, |sum, place| sum + length(call, place)) / BYTES_PER_STEP
}

/// What a call of the function with this name costs.
fn cost_of(name: &str) -> fn(&Context<'_>) -> u64 {
    match name {
        "instr" | "replace" => |call| {
            let compared = length(call, 0).saturating_mul(length(call, 1));
            all(call) + compared / COMPARED_PER_STEP
        },
        "trim" | "ltrim" | "rtrim" | "btrim" | "translate" => |call| {
            let compared = length(call, 0).saturating_mul(length(call, 1));
            all(call) + compared / CHARACTERS_PER_STEP
        },
        // `text REGEXP pattern` is regexp(pattern, text).
        "regexp" => |call| all(call) + search(bytes(call, 0), length(call, 1)),
        "regexp_like" | "regexp_match" | "regexp_replace" => {
            |call| all(call) + search(bytes(call, 1), length(call, 0))
        }
        _ => all,
    }
}

fn search(pattern: &[u8], text: u64) -> u64 {
    let repeated = if pattern.contains(&b'{') { REPEATED } else { 1 };
    let pattern = count(pattern.len());
    let compared = text.saturating_mul(pattern.max(repeated));
    pattern * STEPS_PER_PATTERN_BYTE + compared / BYTES_PER_STEP
}

/// A value as SQLite gave it, which need not be UTF-8.
enum Answer {
    Value(Value),
    Text(Vec<u8>),
}

impl ToSql for Answer {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Value(value) => value.into(),
            Self::Text(bytes) => ValueRef::Text(bytes),
        }))
    }
}

fn ask(other: &Connection, sql: &str, call: &Context<'_>) -> Result<Answer> {
    let mut statement = other.prepare_cached(sql)?;
    for place in 0..call.len() {
        let argument = ToSqlOutput::Borrowed(call.get_raw(place));
        statement.raw_bind_parameter(place + 1, argument)?;
    }
    let mut rows = statement.raw_query();
    let Some(row) = rows.next()? else { return Ok(Answer::Value(Value::Null)) };
    Ok(match row.get_ref(0)? {
        ValueRef::Null => Answer::Value(Value::Null),
        ValueRef::Integer(number) => Answer::Value(Value::Integer(number)),
        ValueRef::Real(number) => Answer::Value(Value::Real(number)),
        ValueRef::Text(bytes) => Answer::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Answer::Value(Value::Blob(bytes.to_vec())),
    })
}
