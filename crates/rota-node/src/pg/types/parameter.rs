//! Parameters as clients send them, as the values that rest in the database. Step 1.
//!
//! Without a type, text is text (SQLite's column affinity makes a number of it where a number
//! belongs), and binary bytes are text if they are UTF-8.

use rota_core::error::Refusal;
use rota_core::transaction::Value;
use rota_store::copy::bytea;
use rota_store::datetime::Wrong;

use super::{Oid, array, moment, name, number, oid};

/// The version that stands in front of a jsonb in binary.
pub(crate) const JSONB_VERSION: u8 = 1;

/// How much of a wrong text is repeated.
const SHOWN: usize = 40;

/// A parameter with the type that its client or its statement gives it.
pub(crate) fn parameter(bytes: &[u8], said: Oid, binary: bool) -> Result<Value, Refusal> {
    if binary { from_binary(bytes, said) } else { from_text(bytes, said) }
}

/// Whether a text without a type may mean one thing in one column and another in another: all but
/// numbers, of which SQLite's affinity makes what the column wants. Eight digits may be a date.
pub(crate) fn wants_type(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let number = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    !number || digits.is_empty() || digits.len() == 8
}

/// A parameter in text format.
pub(crate) fn from_text(bytes: &[u8], said: Oid) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| not_utf8())?;
    match said {
        oid::BOOL => {
            boolean(text).map(|truth| Value::Integer(truth.into())).ok_or_else(|| bad(text, said))
        }
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => integer(text, said),
        oid::FLOAT4 | oid::FLOAT8 => match text.trim().parse::<f64>() {
            // A REAL cannot be NaN; as text it stays what it is.
            Ok(number) if number.is_nan() => Ok(Value::Text("NaN".into())),
            Ok(number) => Ok(Value::real(number)),
            Err(_) => Err(bad(text, said)),
        },
        oid::NUMERIC => number::decimal(text.trim()).ok_or_else(|| bad(text, said)),
        oid::BYTEA => match bytea(text) {
            Some(bytes) => Ok(Value::Blob(bytes)),
            None => Err(bad(text, said)),
        },
        oid::BPCHAR => Ok(Value::Text(text.trim_end_matches(' ').to_owned())),
        oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::UUID => {
            match moment::canonical(text, said) {
                Ok(text) => Ok(Value::Text(text)),
                Err(wrong) => Err(no_moment(text, said, wrong)),
            }
        }
        _ if array::element(said).is_some() => array::from_text(text, said),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// Columns of SQLite's hold 64 bits whatever they were declared, and so may what is put there.
fn integer(text: &str, said: Oid) -> Result<Value, Refusal> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.trim().parse().map(Value::Integer).map_err(|error: std::num::ParseIntError| {
        if matches!(error.kind(), PosOverflow | NegOverflow) {
            let text = shown(text);
            let message = format!("value \"{text}\" is out of range for type {}", name(said));
            return Refusal::new("22003", message);
        }
        bad(text, said)
    })
}

fn shown(text: &str) -> &str {
    let end = (0..=SHOWN).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.get(..end).unwrap_or(text)
}

fn bad(text: &str, said: Oid) -> Refusal {
    let text = shown(text);
    Refusal::new("22P02", format!("invalid input syntax for type {}: \"{text}\"", name(said)))
}

fn no_moment(text: &str, said: Oid, wrong: Wrong) -> Refusal {
    let shown = shown(text);
    match wrong {
        Wrong::Syntax if said == oid::UUID => bad(text, said),
        Wrong::Syntax => Refusal::new(
            "22007",
            format!("invalid input syntax for type {}: \"{shown}\"", name(said)),
        ),
        Wrong::Range => {
            Refusal::new("22008", format!("date/time field value out of range: \"{shown}\""))
        }
    }
}

fn not_utf8() -> Refusal {
    Refusal::new("22021", "invalid byte sequence for encoding \"UTF8\"")
}

/// A parameter in binary format.
pub(crate) fn from_binary(bytes: &[u8], said: Oid) -> Result<Value, Refusal> {
    let bad = || {
        let length = bytes.len();
        let message = format!("{length} bytes are not a {} in binary format", name(said));
        Refusal::new("22P03", message)
    };
    let whole = |number: Option<i64>| number.map(Value::Integer).ok_or_else(bad);
    match said {
        oid::BOOL => match bytes {
            [truth @ (0 | 1)] => Ok(Value::Integer((*truth).into())),
            _ => Err(bad()),
        },
        oid::INT2 => whole(bytes.try_into().ok().map(|bytes| i16::from_be_bytes(bytes).into())),
        oid::INT4 => whole(bytes.try_into().ok().map(|bytes| i32::from_be_bytes(bytes).into())),
        oid::OID => whole(bytes.try_into().ok().map(|bytes| u32::from_be_bytes(bytes).into())),
        oid::INT8 => whole(bytes.try_into().ok().map(i64::from_be_bytes)),
        oid::FLOAT4 => match bytes.try_into().map(f32::from_be_bytes) {
            Ok(number) => Ok(float4(number)),
            Err(_) => Err(bad()),
        },
        oid::FLOAT8 => match bytes.try_into().map(f64::from_be_bytes) {
            Ok(number) if number.is_nan() => Ok(Value::Text("NaN".into())),
            Ok(number) => Ok(Value::real(number)),
            Err(_) => Err(bad()),
        },
        oid::NUMERIC => {
            let text = number::numeric_text(bytes);
            text.and_then(|text| number::decimal(&text)).ok_or_else(bad)
        }
        oid::BYTEA => Ok(Value::Blob(bytes.to_vec())),
        oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::UUID => {
            moment::from_binary(bytes, said).map(Value::Text).ok_or_else(bad)
        }
        oid::JSONB => match bytes.split_first() {
            Some((&JSONB_VERSION, json)) => utf8(json),
            _ => Err(bad()),
        },
        oid::UNSPECIFIED | oid::UNKNOWN => {
            Ok(utf8(bytes).unwrap_or_else(|_| Value::Blob(bytes.to_vec())))
        }
        _ if array::element(said).is_some() => array::from_binary(bytes),
        _ => from_text(bytes, said),
    }
}

fn utf8(bytes: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| not_utf8())?;
    Ok(Value::Text(text.to_owned()))
}

/// The double that is written like a float4: 1.1 stays 1.1, and is equal to what text would give.
fn float4(number: f32) -> Value {
    if number.is_nan() {
        return Value::Text("NaN".into());
    }
    Value::real(number.to_string().parse().unwrap_or(f64::from(number)))
}

/// PostgreSQL's spellings of a boolean.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    let text = text.trim();
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"]) {
        Some(true)
    } else if is(&["f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// bytea's text format: `\x` and hex digits.
pub(crate) fn hex_text(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("\\x")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_not_of_their_type_are_refused() {
        for (bytes, said, binary, code) in [
            (&b"x"[..], oid::INT8, false, "22P02"),
            (b"1.5", oid::INT4, false, "22P02"),
            (b"9223372036854775808", oid::INT8, false, "22003"),
            (b"maybe", oid::BOOL, false, "22P02"),
            (b"1e999", oid::NUMERIC, false, "22P02"),
            (b"\\xzz", oid::BYTEA, false, "22P02"),
            (b"tomorrow", oid::DATE, false, "22007"),
            (b"2024-02-30", oid::TIMESTAMPTZ, false, "22008"),
            (b"123", oid::UUID, false, "22P02"),
            (b"\xff", oid::TEXT, false, "22021"),
            (b"\xff", oid::VARCHAR, true, "22021"),
            (b"123", oid::INT8, true, "22P03"),
            (b"\x02", oid::BOOL, true, "22P03"),
            (b"{}", oid::JSONB, true, "22P03"),
            (b"123", oid::UUID, true, "22P03"),
            (b"\0\x01\0\0\0\0\0\0\xff\xff", oid::NUMERIC, true, "22P03"),
        ] {
            let refusal = parameter(bytes, said, binary).unwrap_err();
            assert_eq!(refusal.code(), code, "{bytes:?}");
        }
        assert_eq!(parameter(b"42", oid::UNSPECIFIED, false), Ok(Value::Text("42".into())));
    }

    #[test]
    fn only_numbers_mean_the_same_in_every_column() {
        for number in ["1", "-17", "1.5", "123456789"] {
            assert!(!wants_type(number.as_bytes()), "{number}");
        }
        for other in ["", "-", "20240102", "2024-01-02", "abc", "t", "{1}", "1e5"] {
            assert!(wants_type(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn parameters_rest_in_one_form_however_they_are_written() {
        let text = |text: &str| Value::Text(text.into());
        for (sent, said, want) in [
            ("2024-01-02T03:04:05.120+02:00", oid::TIMESTAMPTZ, text("2024-01-02 01:04:05.12")),
            ("2024-01-02T03:04:05.120+02:00", oid::TIMESTAMP, text("2024-01-02 03:04:05.12")),
            ("2024-01-02T03:04:05Z", oid::DATE, text("2024-01-02")),
            ("1.10", oid::NUMERIC, Value::real(1.1)),
            ("110", oid::NUMERIC, Value::Integer(110)),
            ("NaN", oid::FLOAT8, text("NaN")),
            ("ab  ", oid::BPCHAR, text("ab")),
            ("TRUE", oid::BOOL, Value::Integer(1)),
            ("of", oid::BOOL, Value::Integer(0)),
            (r"a\\b\001", oid::BYTEA, Value::Blob(b"a\\b\x01".to_vec())),
            ("3000000000", oid::INT4, Value::Integer(3_000_000_000)),
        ] {
            assert_eq!(parameter(sent.as_bytes(), said, false), Ok(want), "{sent}");
        }
        assert_eq!(parameter(&1.1_f32.to_be_bytes(), oid::FLOAT4, true), Ok(Value::real(1.1)));
    }
}
