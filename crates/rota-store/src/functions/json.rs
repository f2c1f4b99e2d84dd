//! JSON: builders under PostgreSQL's names, and the aggregates that SQLite has not. An array is the
//! text of a JSON array.

use std::fmt::Write;

use rusqlite::Result;
use rusqlite::functions::{Aggregate, Context, FunctionFlags, SubType};
use rusqlite::types::{Value, ValueRef};

use super::{ANY, Arguments, FIXED, fail, most, text_of, too_long, truth};

/// How SQLite marks text that is JSON: its letter J.
const JSON: std::ffi::c_uint = 74;

/// Functions that look at that mark, or leave it.
const MARKED: FunctionFlags =
    FIXED.union(FunctionFlags::SQLITE_SUBTYPE).union(FunctionFlags::SQLITE_RESULT_SUBTYPE);

pub(super) fn register(connection: &super::Metered<'_>) -> Result<()> {
    for name in ["json_build_object", "jsonb_build_object"] {
        connection.create_scalar_function(name, ANY, MARKED, object)?;
    }
    for name in ["json_build_array", "jsonb_build_array"] {
        connection.create_scalar_function(name, ANY, MARKED, array)?;
    }
    for name in ["to_json", "to_jsonb"] {
        connection.create_scalar_function(name, 1, MARKED, |call| {
            let mut text = String::new();
            put(&mut text, call, 0)?;
            Ok(marked(text))
        })?;
    }
    connection.create_scalar_function("json_typeof", 1, FIXED, json_typeof)?;
    connection.create_scalar_function("jsonb_typeof", 1, FIXED, json_typeof)?;
    for name in ["array_agg", "json_agg", "jsonb_agg"] {
        connection.create_aggregate_function(name, 1, MARKED, Elements)?;
    }
    for name in ["json_object_agg", "jsonb_object_agg"] {
        connection.create_aggregate_function(name, 2, MARKED, Members)?;
    }
    connection.create_aggregate_function("bool_and", 1, FIXED, Truth { all: true })?;
    connection.create_aggregate_function("every", 1, FIXED, Truth { all: true })?;
    connection.create_aggregate_function("bool_or", 1, FIXED, Truth { all: false })
}

type Marked = (String, SubType);

fn marked(text: String) -> Marked {
    (text, Some(JSON))
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for character in text.chars() {
        match character {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                // Writing to a string does not fail.
                let _ = write!(result, "\\u{:04x}", u32::from(control));
            }
            other => result.push(other),
        }
    }
    result.push('"');
    result
}

/// Appends an argument as JSON.
fn put(text: &mut String, call: &Context<'_>, place: usize) -> Result<()> {
    match call.get_raw(place) {
        ValueRef::Null => text.push_str("null"),
        ValueRef::Real(number) if !number.is_finite() => {
            return Err(fail("infinite numbers cannot be JSON"));
        }
        ValueRef::Real(number) => {
            let _ = write!(text, "{number:?}");
        }
        value @ ValueRef::Integer(_) => text.push_str(&text_of(value)?),
        value if call.get_subtype(place) == JSON => text.push_str(&text_of(value)?),
        value => text.push_str(&quoted(&text_of(value)?)),
    }
    if text.len() > most() { Err(too_long()) } else { Ok(()) }
}

fn put_member(text: &mut String, call: &Context<'_>, place: usize) -> Result<()> {
    let key = call.get_raw(place);
    if key == ValueRef::Null {
        return Err(fail("null value not allowed for object key"));
    }
    text.push_str(&quoted(&text_of(key)?));
    text.push(':');
    put(text, call, place + 1)
}

fn object(call: &Context<'_>) -> Result<Marked> {
    if !call.len().is_multiple_of(2) {
        return Err(fail("argument list must have even number of elements"));
    }
    let mut text = String::from("{");
    for place in (0..call.len()).step_by(2) {
        if place > 0 {
            text.push(',');
        }
        put_member(&mut text, call, place)?;
    }
    text.push('}');
    Ok(marked(text))
}

fn array(call: &Context<'_>) -> Result<Marked> {
    let mut text = String::from("[");
    for place in 0..call.len() {
        if place > 0 {
            text.push(',');
        }
        put(&mut text, call, place)?;
    }
    text.push(']');
    Ok(marked(text))
}

/// By the first character: what is not JSON is not told from a number.
fn json_typeof(call: &Context<'_>) -> Result<Option<&'static str>> {
    let arguments = Arguments(call);
    Ok(match arguments.raw(0) {
        ValueRef::Null => None,
        ValueRef::Integer(_) | ValueRef::Real(_) => Some("number"),
        value => Some(match text_of(value)?.trim_start().chars().next() {
            Some('{') => "object",
            Some('[') => "array",
            Some('"') => "string",
            Some('t' | 'f') => "boolean",
            Some('n') => "null",
            _ => "number",
        }),
    })
}

/// The values of a group as an array, NULLs too; NULL without rows.
struct Elements;

impl Aggregate<Option<String>, Value> for Elements {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<String>> {
        Ok(None)
    }

    fn step(&self, call: &mut Context<'_>, text: &mut Option<String>) -> Result<()> {
        begin(text, '[');
        put(text.get_or_insert_default(), call, 0)
    }

    fn finalize(&self, _: &mut Context<'_>, text: Option<Option<String>>) -> Result<Value> {
        Ok(closed(text.flatten(), ']'))
    }
}

/// The comma before the next, or what stands before the first.
fn begin(text: &mut Option<String>, open: char) {
    match text {
        Some(text) => text.push(','),
        None => *text = Some(open.into()),
    }
}

fn closed(text: Option<String>, close: char) -> Value {
    text.map_or(Value::Null, |text| Value::Text(format!("{text}{close}")))
}

/// The pairs of a group as an object.
struct Members;

impl Aggregate<Option<String>, Value> for Members {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<String>> {
        Ok(None)
    }

    fn step(&self, call: &mut Context<'_>, text: &mut Option<String>) -> Result<()> {
        begin(text, '{');
        put_member(text.get_or_insert_default(), call, 0)
    }

    fn finalize(&self, _: &mut Context<'_>, text: Option<Option<String>>) -> Result<Value> {
        Ok(closed(text.flatten(), '}'))
    }
}

/// Whether all, or any, of a group are true; NULLs do not count.
struct Truth {
    all: bool,
}

impl Aggregate<Option<bool>, Value> for Truth {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<bool>> {
        Ok(None)
    }

    fn step(&self, call: &mut Context<'_>, so_far: &mut Option<bool>) -> Result<()> {
        let arguments = Arguments(call);
        if arguments.raw(0) == ValueRef::Null {
            return Ok(());
        }
        let is = arguments.real(0)? != 0.0;
        let before = so_far.unwrap_or(self.all);
        *so_far = Some(if self.all { before && is } else { before || is });
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, truths: Option<Option<bool>>) -> Result<Value> {
        Ok(truths.flatten().map_or(Value::Null, truth))
    }
}
