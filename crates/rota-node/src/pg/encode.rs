//! Values on PostgreSQL's wire, as text or as bytes: steps 1 and 9.
//!
//! SQLite lets every value into every column, PostgreSQL's clients believe the type that is
//! announced (see [`types`](super::types)). Where a value does not fit and the rows are at hand
//! before they are announced, the column is announced wider: int8 for a large number in an int4,
//! text for the rest. An expression is what its words tell, or its first value that is not NULL.
//!
//! Where it is too late for that, text format sends the text that it has, and binary format is
//! refused: 22003 for a number that is too large, 22000 for anything else.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;
use rota_store::Rows;

pub(crate) use super::types::parameter::{boolean, parameter, wants_type};
pub(crate) use super::types::{Oid, Type, declared_type, oid};

use super::infer::Guess;
use super::types::parameter::{JSONB_VERSION, hex_text};
use super::types::{array, moment, name, number};

/// How a column is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) kind: Type,
    pub(crate) binary: bool,
}

/// The types to announce for rows that are at hand: no value of theirs will not fit.
pub(crate) fn types_of(rows: &Rows) -> Vec<Type> {
    types_by(rows, &[])
}

/// The same, with what is known of expressions among the columns.
pub(crate) fn types_by(rows: &Rows, guesses: &[Guess]) -> Vec<Type> {
    let column = |place: usize| rows.rows.iter().filter_map(move |row| row.get(place));
    rows.columns
        .iter()
        .enumerate()
        .map(|(place, description)| {
            let said = match &description.declared {
                Some(declared) => declared_type(declared),
                None => {
                    let guess = guesses.get(place).copied().unwrap_or(Guess::Open);
                    let known = guess.known().or_else(|| column(place).find_map(type_of_value));
                    known.unwrap_or_else(|| guess.otherwise().into())
                }
            };
            fitting(said, || column(place))
        })
        .collect()
}

/// The type itself if all values are of it, else one that they all are of.
fn fitting<'a, V: Iterator<Item = &'a Value>>(said: Type, values: impl Fn() -> V) -> Type {
    let all = |wanted: Oid| values().all(|value| fits(value, wanted));
    if all(said.oid) {
        return said;
    }
    let is_integer = matches!(said.oid, oid::INT2 | oid::INT4 | oid::OID);
    if is_integer && all(oid::INT8) { oid::INT8.into() } else { oid::TEXT.into() }
}

/// The type of a value that stands alone; NULL has none.
pub(crate) fn type_of_value(value: &Value) -> Option<Type> {
    let oid = match value {
        Value::Null => return None,
        Value::Integer(_) => oid::INT8,
        Value::Real(_) => oid::FLOAT8,
        Value::Text(_) => oid::TEXT,
        Value::Blob(_) => oid::BYTEA,
    };
    Some(oid.into())
}

fn fits(value: &Value, said: Oid) -> bool {
    match (said, value) {
        (_, Value::Null) | (oid::TEXT, _) => true,
        (oid::BOOL, Value::Integer(number)) => matches!(number, 0 | 1),
        (oid::BOOL, Value::Text(text)) => boolean(text).is_some(),
        (oid::INT2, Value::Integer(number)) => i16::try_from(*number).is_ok(),
        (oid::INT4, Value::Integer(number)) => i32::try_from(*number).is_ok(),
        (oid::OID, Value::Integer(number)) => u32::try_from(*number).is_ok(),
        (oid::INT8, Value::Integer(_)) => true,
        (oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC, Value::Integer(_) | Value::Real(_)) => true,
        (oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC, Value::Text(text)) => text == "NaN",
        (oid::BYTEA, Value::Blob(_)) => true,
        (oid::BYTEA, Value::Text(text)) => hex_text(text).is_some(),
        (oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::UUID, value) => {
            matches!(value, Value::Text(text) if moment::is_stored(text, said))
        }
        // What is text anyway, or JSON, which a column of SQLite's may have made a number of.
        (oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR, Value::Text(_)) => true,
        (oid::JSON | oid::JSONB, value) => !matches!(value, Value::Blob(_)),
        (said, Value::Text(text)) => array::is_array(text, said),
        _ => false,
    }
}

/// Appends a DataRow message.
pub(crate) fn row(
    output: &mut BytesMut,
    values: &[Value],
    formats: &[Format],
) -> Result<(), Refusal> {
    let start = output.len();
    output.put_u8(b'D');
    output.put_u32(0);
    output.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
    for (place, value) in values.iter().enumerate() {
        let format = formats.get(place).copied();
        let format = format.unwrap_or(Format { kind: oid::TEXT.into(), binary: false });
        if let Err(refusal) = field(output, value, format) {
            output.truncate(start);
            return Err(refusal);
        }
    }
    set_length(output, start + 1);
    Ok(())
}

/// Writes the length of what follows `place`, itself included, there.
fn set_length(output: &mut BytesMut, place: usize) {
    let length = u32::try_from(output.len().saturating_sub(place)).unwrap_or(u32::MAX);
    if let Some(bytes) = output.get_mut(place..place + 4) {
        bytes.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a value with its length in front.
pub(crate) fn field(output: &mut BytesMut, value: &Value, format: Format) -> Result<(), Refusal> {
    if *value == Value::Null {
        output.put_i32(-1);
        return Ok(());
    }
    let place = output.len();
    output.put_u32(0);
    if format.binary {
        binary(output, value, format.kind)?;
    } else {
        text(output, value, format.kind);
    }
    let length = output.len().saturating_sub(place + 4);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(bytes) = output.get_mut(place..place + 4) {
        bytes.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Appends a value in text format.
pub(crate) fn text(output: &mut BytesMut, value: &Value, said: Type) {
    // Writing to a buffer that grows does not fail.
    let _ = match (said.oid, value) {
        (_, Value::Null) => Ok(()),
        (oid::BOOL, Value::Integer(0)) => output.write_str("f"),
        (oid::BOOL, Value::Integer(1)) => output.write_str("t"),
        (oid::NUMERIC, value) if !matches!(value, Value::Blob(_)) => {
            number::put_numeric(output, value, said.scale());
            Ok(())
        }
        (_, Value::Integer(number)) => write!(output, "{number}"),
        (oid::FLOAT4, Value::Real(bits)) => {
            number::put_float4(output, narrow(f64::from_bits(*bits)));
            Ok(())
        }
        (_, Value::Real(bits)) => {
            number::put_float8(output, f64::from_bits(*bits));
            Ok(())
        }
        (_, Value::Text(text)) => {
            stored_text(output, text, said);
            Ok(())
        }
        (_, Value::Blob(bytes)) => {
            output.put_slice(b"\\x");
            bytes.iter().try_for_each(|byte| write!(output, "{byte:02x}"))
        }
    };
}

fn stored_text(output: &mut BytesMut, text: &str, said: Type) {
    match said.oid {
        oid::TEXT | oid::VARCHAR | oid::NAME | oid::JSON | oid::JSONB => {
            output.put_slice(text.as_bytes());
        }
        oid::BPCHAR => {
            output.put_slice(text.as_bytes());
            let characters = text.chars().count();
            output.put_bytes(b' ', said.padding().unwrap_or(0).saturating_sub(characters));
        }
        oid::BOOL => match boolean(text) {
            Some(truth) => output.put_u8(if truth { b't' } else { b'f' }),
            None => output.put_slice(text.as_bytes()),
        },
        oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::UUID => {
            moment::put_text(output, text, said.oid);
        }
        _ if array::element(said.oid).is_some() => array::put_text(output, text, said.oid),
        _ => output.put_slice(text.as_bytes()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what a float4 is")]
fn narrow(number: f64) -> f32 {
    number as f32
}

#[expect(clippy::cast_precision_loss, reason = "what a float8 is")]
fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Real(bits) => Some(f64::from_bits(*bits)),
        Value::Text(text) if text == "NaN" => Some(f64::NAN),
        _ => None,
    }
}

/// Appends a value in binary format.
fn binary(output: &mut BytesMut, value: &Value, said: Type) -> Result<(), Refusal> {
    let too_large = || too_large(value, said.oid);
    match (said.oid, value) {
        (oid::BOOL, Value::Integer(number @ (0 | 1))) => output.put_u8(u8::from(*number == 1)),
        (oid::BOOL, Value::Text(text)) => match boolean(text) {
            Some(truth) => output.put_u8(u8::from(truth)),
            None => return Err(misfit(value, said.oid)),
        },
        (oid::INT2, Value::Integer(number)) => {
            output.put_i16(i16::try_from(*number).map_err(|_| too_large())?);
        }
        (oid::INT4, Value::Integer(number)) => {
            output.put_i32(i32::try_from(*number).map_err(|_| too_large())?);
        }
        (oid::OID, Value::Integer(number)) => {
            output.put_u32(u32::try_from(*number).map_err(|_| too_large())?);
        }
        (oid::INT8, Value::Integer(number)) => output.put_i64(*number),
        (oid::FLOAT4, value) => match float(value) {
            Some(number) => output.put_f32(narrow(number)),
            None => return Err(misfit(value, said.oid)),
        },
        (oid::FLOAT8, value) => match float(value) {
            Some(number) => output.put_f64(number),
            None => return Err(misfit(value, said.oid)),
        },
        (oid::NUMERIC, value) if float(value).is_some() => {
            let mut decimal = BytesMut::with_capacity(24);
            number::put_numeric(&mut decimal, value, said.scale());
            number::put_numeric_binary(output, std::str::from_utf8(&decimal).unwrap_or("0"));
        }
        (oid::BYTEA, Value::Blob(bytes)) => output.put_slice(bytes),
        (oid::BYTEA, Value::Text(text)) => match hex_text(text) {
            Some(bytes) => output.put_slice(&bytes),
            None => return Err(misfit(value, said.oid)),
        },
        (oid::JSONB, Value::Blob(_)) => return Err(misfit(value, said.oid)),
        (oid::JSONB, value) => {
            output.put_u8(JSONB_VERSION);
            text(output, value, said);
        }
        (oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR | oid::JSON, value) => {
            text(output, value, said);
        }
        (other, Value::Text(stored)) => {
            let sent = match array::element(other) {
                Some(_) => array::put_binary(output, stored, other),
                None => moment::put_binary(output, stored, other),
            };
            sent.ok_or_else(|| misfit(value, other))?;
        }
        (_, value) => return Err(misfit(value, said.oid)),
    }
    Ok(())
}

fn too_large(value: &Value, said: Oid) -> Refusal {
    let number = if let Value::Integer(number) = value { *number } else { 0 };
    let name = name(said);
    Refusal::new(
        "22003",
        format!(
            "value \"{number}\" is out of range for type {name}: declare the column as BIGINT, or \
             ask for text format"
        ),
    )
}

fn misfit(value: &Value, said: Oid) -> Refusal {
    let is = match value {
        Value::Null => "NULL",
        Value::Integer(_) => "an integer",
        Value::Real(_) => "a real",
        Value::Text(_) => "text",
        Value::Blob(_) => "bytes",
    };
    let said = name(said);
    Refusal::new(
        sqlstate::DATA_EXCEPTION,
        format!("a column announced as {said} holds {is}: CAST it, or ask for text format"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_store::Column;

    fn encoded(value: &Value, said: impl Into<Type>, binary: bool) -> Option<Vec<u8>> {
        let mut output = BytesMut::new();
        field(&mut output, value, Format { kind: said.into(), binary }).ok()?;
        Some(output.get(4..).unwrap_or_default().to_vec())
    }

    #[test]
    fn values_come_back_as_what_they_were() {
        let text = |text: &str| Value::Text(text.into());
        for (value, said) in [
            (Value::Integer(-32_768), oid::INT2),
            (Value::Integer(i32::MAX.into()), oid::INT4),
            (Value::Integer(i64::MIN), oid::INT8),
            (Value::Integer(4_000_000_000), oid::OID),
            (Value::Integer(1), oid::BOOL),
            (Value::Integer(0), oid::BOOL),
            (Value::real(1.1), oid::FLOAT4),
            (Value::real(-2.5e-20), oid::FLOAT4),
            (Value::real(1.5e300), oid::FLOAT8),
            (Value::real(0.1), oid::FLOAT8),
            (Value::real(f64::NEG_INFINITY), oid::FLOAT8),
            (text("NaN"), oid::FLOAT8),
            (Value::real(-1e-7), oid::NUMERIC),
            (Value::real(12345.678), oid::NUMERIC),
            (Value::real(f64::INFINITY), oid::NUMERIC),
            (text("NaN"), oid::NUMERIC),
            (Value::Integer(i64::MAX), oid::NUMERIC),
            (Value::Integer(-120_000), oid::NUMERIC),
            (Value::Integer(0), oid::NUMERIC),
            (text("größe"), oid::TEXT),
            (text("größe"), oid::VARCHAR),
            (text("größe"), oid::BPCHAR),
            (text("t"), oid::NAME),
            (text(r#"{"a": [1, null]}"#), oid::JSON),
            (text("[]"), oid::JSONB),
            (Value::Blob(vec![0, 255, 92]), oid::BYTEA),
            (text("0001-01-01"), oid::DATE),
            (text("24:00:00"), oid::TIME),
            (text("1999-12-31 23:59:59.5"), oid::TIMESTAMP),
            (text("9999-12-31 23:59:59.999999"), oid::TIMESTAMPTZ),
            (text("-infinity"), oid::TIMESTAMPTZ),
            (text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), oid::UUID),
            (text(r#"[1,null,3]"#), 1016),
            (text(r#"["a","b"]"#), 1009),
        ] {
            for binary in [false, true] {
                let bytes = encoded(&value, said, binary).unwrap();
                assert_eq!(parameter(&bytes, said, binary), Ok(value.clone()), "{said} {binary}");
            }
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_text_or_an_error_and_never_something_else() {
        let text = Value::Text("abc".into());
        assert_eq!(encoded(&text, oid::INT8, false), Some(b"abc".to_vec()));
        assert_eq!(encoded(&Value::Integer(2), oid::BOOL, false), Some(b"2".to_vec()));
        assert_eq!(encoded(&Value::Integer(7), oid::TEXT, true), Some(b"7".to_vec()));
        for (value, said, code) in [
            (text.clone(), oid::INT8, "22000"),
            (text, oid::TIMESTAMP, "22000"),
            (Value::Integer(2), oid::BOOL, "22000"),
            (Value::real(1.5), oid::INT4, "22000"),
            (Value::Integer(1 << 31), oid::INT4, "22003"),
            (Value::Integer(40_000), oid::INT2, "22003"),
            (Value::Integer(-1), oid::OID, "22003"),
        ] {
            let refusal = binary(&mut BytesMut::new(), &value, said.into()).unwrap_err();
            assert_eq!(refusal.code(), code, "{value:?} {said}");
        }
    }

    #[test]
    fn declared_lengths_and_scales_are_seen() {
        for (value, declared, want) in [
            (Value::Text("ab".into()), "CHAR(4)", "ab  "),
            (Value::Text("größer".into()), "CHAR(4)", "größer"),
            (Value::Text("ab".into()), "VARCHAR(4)", "ab"),
            (Value::real(1.1), "NUMERIC(10,2)", "1.10"),
            (Value::Integer(1), "DECIMAL(10, 3)", "1.000"),
            (Value::real(1.5), "REAL", "1.5"),
        ] {
            let sent = encoded(&value, declared_type(declared), false).unwrap();
            assert_eq!(String::from_utf8(sent).unwrap(), want, "{declared}");
        }
    }

    #[test]
    fn a_column_is_announced_as_a_type_that_all_its_values_have() {
        let column = |declared: Option<&str>| Column {
            name: "c".into(),
            declared: declared.map(Into::into),
        };
        let text = |text: &str| Value::Text(text.into());
        for (declared, values, want) in [
            (Some("BIGINT"), vec![Value::Integer(1), Value::Null], oid::INT8),
            (Some("INTEGER"), vec![Value::Integer(1)], oid::INT4),
            (Some("INTEGER"), vec![Value::Integer(1 << 40)], oid::INT8),
            (Some("INTEGER"), vec![Value::Integer(1), text("x")], oid::TEXT),
            (Some("boolean"), vec![Value::Integer(1)], oid::BOOL),
            (Some("boolean"), vec![Value::Integer(2)], oid::TEXT),
            (Some("double precision"), vec![Value::Integer(1)], oid::FLOAT8),
            (Some("timestamptz"), vec![text("2024-01-02 03:04:05")], oid::TIMESTAMPTZ),
            (Some("timestamptz"), vec![Value::Integer(1_700_000_000)], oid::TEXT),
            (Some("date"), vec![text("soon")], oid::TEXT),
            (Some("jsonb"), vec![text("{}"), Value::Integer(1)], oid::JSONB),
            (Some("text[]"), vec![text("[]")], 1009),
            (None, vec![Value::Null, Value::real(1.0)], oid::FLOAT8),
            (None, vec![Value::Integer(1), Value::real(1.0)], oid::TEXT),
            (None, vec![], oid::TEXT),
        ] {
            let rows = values.into_iter().map(|value| vec![value]).collect();
            let types = types_of(&Rows { columns: vec![column(declared)], rows });
            assert_eq!(types, [Type { modifier: -1, oid: want }], "{declared:?}");
        }
    }
}
