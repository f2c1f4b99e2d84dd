//! Values on PostgreSQL's wire: which type a column is said to have, and values as its text or its
//! bytes, both ways.
//!
//! SQLite lets every value into every column, PostgreSQL's clients believe the type that is
//! announced. So:
//!
//! | declared           | announced |
//! |--------------------|-----------|
//! | `…INT…`            | int8      |
//! | `BOOL…`            | bool      |
//! | `REAL FLOA… DOUB…` | float8    |
//! | `NUMERIC DECIMAL`  | float8    |
//! | `BLOB BYTEA`       | bytea     |
//! | anything else      | text      |
//! | an expression      | what its first value that is not NULL is; without rows, see `infer` |
//!
//! Where a value does not fit and the rows are at hand before they are announced, the column is
//! announced as text. Where it is too late for that, text format sends the text it has, and binary
//! format is refused with 22000.

use bytes::{BufMut, BytesMut};
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;
use rota_store::Rows;

/// A type's number in PostgreSQL's catalog.
pub(crate) type Oid = u32;

/// PostgreSQL's numbers (pg_type.dat).
pub(crate) mod oid {
    use super::Oid;

    /// Not said.
    pub(crate) const UNSPECIFIED: Oid = 0;
    pub(crate) const BOOL: Oid = 16;
    pub(crate) const BYTEA: Oid = 17;
    pub(crate) const INT8: Oid = 20;
    pub(crate) const INT2: Oid = 21;
    pub(crate) const INT4: Oid = 23;
    pub(crate) const TEXT: Oid = 25;
    pub(crate) const OID: Oid = 26;
    pub(crate) const FLOAT4: Oid = 700;
    pub(crate) const FLOAT8: Oid = 701;
    /// A string literal whose type nobody said.
    pub(crate) const UNKNOWN: Oid = 705;
    pub(crate) const DATE: Oid = 1082;
    pub(crate) const TIMESTAMP: Oid = 1114;
    pub(crate) const TIMESTAMPTZ: Oid = 1184;
    pub(crate) const NUMERIC: Oid = 1700;
    pub(crate) const UUID: Oid = 2950;
}

/// How a column is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) oid: Oid,
    pub(crate) binary: bool,
}

/// A type's fixed width in bytes, −1 where it varies.
pub(crate) fn width(oid: Oid) -> i16 {
    match oid {
        oid::BOOL => 1,
        oid::INT2 => 2,
        oid::INT4 => 4,
        oid::INT8 | oid::FLOAT8 => 8,
        _ => -1,
    }
}

/// The type to announce for a declared one.
pub(crate) fn declared_type(declared: &str) -> Oid {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("BOOL") {
        oid::BOOL
    } else if has("INT") && !has("INTERVAL") && !has("POINT") || has("SERIAL") {
        oid::INT8
    } else if has("REAL") || has("FLOA") || has("DOUB") || has("NUMERIC") || has("DECIMAL") {
        oid::FLOAT8
    } else if has("BLOB") || has("BYTEA") {
        oid::BYTEA
    } else {
        oid::TEXT
    }
}

/// The types to announce for rows that are at hand: no value of theirs will not fit.
pub(crate) fn types_of(rows: &Rows) -> Vec<Oid> {
    let column = |place: usize| rows.rows.iter().filter_map(move |row| row.get(place));
    rows.columns
        .iter()
        .enumerate()
        .map(|(place, description)| {
            let said = match &description.declared {
                Some(declared) => declared_type(declared),
                None => column(place).find_map(type_of_value).unwrap_or(oid::TEXT),
            };
            if column(place).all(|value| fits(value, said)) { said } else { oid::TEXT }
        })
        .collect()
}

/// The type of a value that stands alone; NULL has none.
pub(crate) fn type_of_value(value: &Value) -> Option<Oid> {
    match value {
        Value::Null => None,
        Value::Integer(_) => Some(oid::INT8),
        Value::Real(_) => Some(oid::FLOAT8),
        Value::Text(_) => Some(oid::TEXT),
        Value::Blob(_) => Some(oid::BYTEA),
    }
}

fn fits(value: &Value, said: Oid) -> bool {
    match (said, value) {
        (_, Value::Null) | (oid::TEXT, _) => true,
        (oid::BOOL, Value::Integer(number)) => matches!(number, 0 | 1),
        (oid::BOOL, Value::Text(text)) => boolean(text).is_some(),
        (oid::INT8, Value::Integer(_)) => true,
        (oid::FLOAT8 | oid::NUMERIC, Value::Integer(_) | Value::Real(_)) => true,
        (oid::BYTEA, Value::Blob(_)) => true,
        (oid::BYTEA, Value::Text(text)) => hex_text(text).is_some(),
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
        let format = format.unwrap_or(Format { oid: oid::TEXT, binary: false });
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

fn field(output: &mut BytesMut, value: &Value, format: Format) -> Result<(), Refusal> {
    if *value == Value::Null {
        output.put_i32(-1);
        return Ok(());
    }
    let place = output.len();
    output.put_u32(0);
    if format.binary {
        binary(output, value, format.oid)?;
    } else {
        text(output, value, format.oid);
    }
    let length = output.len().saturating_sub(place + 4);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(bytes) = output.get_mut(place..place + 4) {
        bytes.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn text(output: &mut BytesMut, value: &Value, said: Oid) {
    use std::fmt::Write;
    // Writing to a buffer that grows does not fail.
    let _ = match value {
        Value::Null => Ok(()),
        Value::Integer(0) if said == oid::BOOL => output.write_str("f"),
        Value::Integer(1) if said == oid::BOOL => output.write_str("t"),
        Value::Integer(number) => write!(output, "{number}"),
        Value::Real(bits) => output.write_str(&real_text(f64::from_bits(*bits))),
        Value::Text(text) => match boolean(text).filter(|_| said == oid::BOOL) {
            Some(truth) => output.write_str(if truth { "t" } else { "f" }),
            None => output.write_str(text),
        },
        Value::Blob(bytes) => {
            output.put_slice(b"\\x");
            bytes.iter().try_for_each(|byte| write!(output, "{byte:02x}"))
        }
    };
}

/// A real as PostgreSQL writes it: the shortest text that reads back as the same number.
fn real_text(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let size = number.abs();
    if size == 0.0 || (1e-4..1e15).contains(&size) {
        return format!("{number}");
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !exponent.starts_with('-') => {
            format!("{mantissa}e+{exponent}")
        }
        _ => text,
    }
}

fn binary(output: &mut BytesMut, value: &Value, said: Oid) -> Result<(), Refusal> {
    match (said, value) {
        (oid::BOOL, Value::Integer(number @ (0 | 1))) => output.put_u8(u8::from(*number == 1)),
        (oid::BOOL, Value::Text(text)) => match boolean(text) {
            Some(truth) => output.put_u8(u8::from(truth)),
            None => return Err(misfit(value, said)),
        },
        (oid::INT8, Value::Integer(number)) => output.put_i64(*number),
        #[expect(clippy::cast_precision_loss, reason = "what a float8 is")]
        (oid::FLOAT8, Value::Integer(number)) => output.put_f64(*number as f64),
        (oid::FLOAT8, Value::Real(bits)) => output.put_u64(*bits),
        (oid::NUMERIC, Value::Integer(number)) => numeric(output, &number.to_string()),
        (oid::NUMERIC, Value::Real(bits)) if f64::from_bits(*bits).is_finite() => {
            numeric(output, &format!("{}", f64::from_bits(*bits)));
        }
        (oid::BYTEA, Value::Blob(bytes)) => output.put_slice(bytes),
        (oid::BYTEA, Value::Text(text)) => match hex_text(text) {
            Some(bytes) => output.put_slice(&bytes),
            None => return Err(misfit(value, said)),
        },
        (oid::TEXT, value) => text(output, value, said),
        (_, value) => return Err(misfit(value, said)),
    }
    Ok(())
}

/// PostgreSQL's numeric: digits of base 10,000, the first one's weight, the number of decimals
/// shown.
fn numeric(output: &mut BytesMut, decimal: &str) {
    let (sign, decimal) = match decimal.strip_prefix('-') {
        Some(rest) => (0x4000u16, rest),
        None => (0, decimal),
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let ahead = whole.len().div_ceil(4) * 4;
    let behind = fraction.len().div_ceil(4) * 4;
    let digits = format!("{whole:0>ahead$}{fraction:0<behind$}");
    let groups: Vec<u16> = digits
        .as_bytes()
        .chunks(4)
        .map(|group| group.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
        .collect();
    let zeros = groups.iter().take_while(|&&group| group == 0).count();
    let kept = groups.get(zeros..).unwrap_or_default();
    let number = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let weight = i16::try_from(ahead / 4).unwrap_or(i16::MAX);
    let weight = weight - 1 - i16::try_from(zeros).unwrap_or(i16::MAX);
    output.put_u16(number(kept.len()));
    output.put_i16(if kept.is_empty() { 0 } else { weight });
    output.put_u16(sign);
    output.put_u16(number(fraction.len()));
    kept.iter().for_each(|group| output.put_u16(*group));
}

fn misfit(value: &Value, said: Oid) -> Refusal {
    let is = match value {
        Value::Null => "NULL",
        Value::Integer(_) => "an integer",
        Value::Real(_) => "a real",
        Value::Text(_) => "text",
        Value::Blob(_) => "bytes",
    };
    let said = match said {
        oid::BOOL => "boolean",
        oid::INT8 => "int8",
        oid::FLOAT8 => "float8",
        oid::NUMERIC => "numeric",
        oid::BYTEA => "bytea",
        _ => "another type",
    };
    Refusal::new(
        sqlstate::DATA_EXCEPTION,
        format!("a column announced as {said} holds {is}: CAST it, or ask for text format"),
    )
}

/// A parameter as the client sent it. Without a type, text is text (SQLite's column affinity makes
/// a number of it where a number belongs) and binary bytes are text if they are UTF-8.
pub(crate) fn parameter(bytes: &[u8], said: Oid, binary: bool) -> Result<Value, Refusal> {
    if binary { from_binary(bytes, said) } else { from_text(bytes, said) }
}

fn from_text(bytes: &[u8], said: Oid) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::new("22021", "a parameter that is not UTF-8"))?;
    let bad = || {
        Refusal::new("22P02", format!("{:?} is not {}", text.get(..40).unwrap_or(text), name(said)))
    };
    match said {
        oid::BOOL => boolean(text).map(|truth| Value::Integer(truth.into())).ok_or_else(bad),
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => {
            text.trim().parse().map(Value::Integer).map_err(|_| bad())
        }
        oid::FLOAT4 | oid::FLOAT8 => text.trim().parse().map(Value::real).map_err(|_| bad()),
        oid::NUMERIC => decimal(text.trim()).ok_or_else(bad),
        oid::BYTEA => {
            hex_text(text).or_else(|| escaped_bytes(text)).map(Value::Blob).ok_or_else(bad)
        }
        _ => Ok(Value::Text(text.to_owned())),
    }
}

fn from_binary(bytes: &[u8], said: Oid) -> Result<Value, Refusal> {
    let bad = || {
        let length = bytes.len();
        Refusal::new("22P03", format!("{length} bytes are not {} in binary format", name(said)))
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
        oid::FLOAT4 => match bytes.try_into() {
            Ok(bytes) => Ok(Value::real(f32::from_be_bytes(bytes).into())),
            Err(_) => Err(bad()),
        },
        oid::FLOAT8 => bytes.try_into().map(f64::from_be_bytes).map(Value::real).map_err(|_| bad()),
        oid::NUMERIC => numeric_text(bytes).and_then(|text| decimal(&text)).ok_or_else(bad),
        oid::BYTEA => Ok(Value::Blob(bytes.to_vec())),
        oid::UUID => uuid_text(bytes).map(Value::Text).ok_or_else(bad),
        oid::DATE => {
            let days = bytes.try_into().ok().map(|bytes| i64::from(i32::from_be_bytes(bytes)));
            days.and_then(date_text).map(Value::Text).ok_or_else(bad)
        }
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let text = bytes.try_into().ok().map(i64::from_be_bytes).and_then(timestamp_text);
            let zone = if said == oid::TIMESTAMPTZ { "+00:00" } else { "" };
            text.map(|text| Value::Text(text + zone)).ok_or_else(bad)
        }
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) if matches!(said, oid::UNSPECIFIED | oid::UNKNOWN) => {
                Ok(Value::Blob(bytes.to_vec()))
            }
            Err(_) => Err(Refusal::new("22021", "a parameter that is not UTF-8")),
        },
    }
}

fn name(said: Oid) -> &'static str {
    match said {
        oid::BOOL => "a boolean",
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => "an integer",
        oid::FLOAT4 | oid::FLOAT8 => "a float",
        oid::NUMERIC => "a number",
        oid::BYTEA => "bytes (`\\x` and hex digits)",
        _ => "a value of its type",
    }
}

/// PostgreSQL's spellings of a boolean.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    let text = text.trim();
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["t", "true", "y", "yes", "on", "1"]) {
        Some(true)
    } else if is(&["f", "false", "n", "no", "off", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// An integer where it is one, a real elsewhere: what SQLite's NUMERIC affinity makes of it.
fn decimal(text: &str) -> Option<Value> {
    text.parse().map(Value::Integer).or_else(|_| text.parse().map(Value::real)).ok()
}

fn hex_text(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("\\x")?).ok()
}

/// bytea's older text format: backslash and three octal digits, or two backslashes.
fn escaped_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            (b'\\', _) => return None,
            _ => bytes.push(byte),
        }
    }
    Some(bytes)
}

fn numeric_text(bytes: &[u8]) -> Option<String> {
    let mut numbers = bytes.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
    let mut next = || numbers.next().flatten();
    let (count, weight, sign, _scale) = (next()?, next()? as i16, next()?, next()?);
    if !matches!(sign, 0 | 0x4000) || bytes.len() != 8 + 2 * usize::from(count) || weight > 80 {
        return None;
    }
    let groups: Vec<u16> = (0..count).map(|_| next()).collect::<Option<_>>()?;
    if groups.iter().any(|&group| group > 9999) || weight < -80 {
        return None;
    }
    let group = |place: i32| {
        usize::try_from(place).ok().and_then(|place| groups.get(place)).copied().unwrap_or(0)
    };
    let mut text = String::from(if sign == 0 { "" } else { "-" });
    let weight = i32::from(weight);
    let whole: String = (0..=weight.max(0))
        .map(|place| format!("{:04}", if weight < 0 { 0 } else { group(place) }))
        .collect();
    let trimmed = whole.trim_start_matches('0');
    text.push_str(if trimmed.is_empty() { "0" } else { trimmed });
    let first = weight + 1;
    let fraction: String =
        (first.max(0)..i32::from(count)).map(|place| format!("{:04}", group(place))).collect();
    // A weight below −1 means groups of zeros between the point and the first digit.
    let zeros = "0000".repeat(usize::try_from(-first).unwrap_or(0));
    let fraction = format!("{zeros}{fraction}");
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    Some(text)
}

/// Days since the start of 2000 as `2000-01-01`. Howard Hinnant's `civil_from_days`: years begin in
/// March, so that the leap day is a year's last, and eras of 400 years are all alike.
fn date_text(days: i64) -> Option<String> {
    /// From the 1st of March of year 0 to the 1st of January 2000.
    const OFFSET: i64 = 730_425;
    let days = days.checked_add(OFFSET).filter(|days| (0..=3_652_364).contains(days))?;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    Some(format!("{:04}-{month:02}-{day:02}", year + era * 400 + next))
}

/// Microseconds since the start of 2000 as `2000-01-01 00:00:00`, with as many decimals as there
/// are.
fn timestamp_text(microseconds: i64) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    let date = date_text(microseconds.div_euclid(DAY))?;
    let rest = microseconds.rem_euclid(DAY);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    Some(format!("{date} {hour:02}:{minute:02}:{second:02}{fraction}"))
}

fn uuid_text(bytes: &[u8]) -> Option<String> {
    let digits = hex::encode(<[u8; 16]>::try_from(bytes).ok()?);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or("").to_owned();
    Some([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_store::Column;

    fn encoded(value: &Value, oid: Oid, binary: bool) -> Option<Vec<u8>> {
        let mut output = BytesMut::new();
        field(&mut output, value, Format { oid, binary }).ok()?;
        Some(output.get(4..).unwrap_or_default().to_vec())
    }

    #[test]
    fn values_come_back_as_what_they_were() {
        for (value, said) in [
            (Value::Integer(i64::MIN), oid::INT8),
            (Value::Integer(1), oid::BOOL),
            (Value::Integer(0), oid::BOOL),
            (Value::real(1.5e300), oid::FLOAT8),
            (Value::real(0.1), oid::FLOAT8),
            (Value::real(-1e-7), oid::NUMERIC),
            (Value::real(12345.678), oid::NUMERIC),
            (Value::Integer(i64::MAX), oid::NUMERIC),
            (Value::Integer(-120_000), oid::NUMERIC),
            (Value::Integer(0), oid::NUMERIC),
            (Value::Text("größe".into()), oid::TEXT),
            (Value::Blob(vec![0, 255, 92]), oid::BYTEA),
        ] {
            for binary in [false, true] {
                let bytes = encoded(&value, said, binary).unwrap();
                assert_eq!(parameter(&bytes, said, binary), Ok(value.clone()), "{said} {binary}");
            }
        }
    }

    #[test]
    fn reals_are_written_as_postgresql_writes_them() {
        for (number, want) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e15, "1e+15"),
            (1e-5, "1e-5"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(real_text(number), want);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_text_or_an_error_and_never_something_else() {
        let text = Value::Text("abc".into());
        assert_eq!(encoded(&text, oid::INT8, false), Some(b"abc".to_vec()));
        assert_eq!(encoded(&text, oid::INT8, true), None);
        assert_eq!(encoded(&Value::Integer(2), oid::BOOL, false), Some(b"2".to_vec()));
        assert_eq!(encoded(&Value::Integer(2), oid::BOOL, true), None);
        assert_eq!(encoded(&Value::Integer(7), oid::TEXT, true), Some(b"7".to_vec()));
    }

    #[test]
    fn a_column_is_announced_as_a_type_that_all_its_values_have() {
        let column = |declared: Option<&str>| Column {
            name: "c".into(),
            declared: declared.map(Into::into),
        };
        for (declared, values, want) in [
            (Some("BIGINT"), vec![Value::Integer(1), Value::Null], oid::INT8),
            (Some("INTEGER"), vec![Value::Integer(1), Value::Text("x".into())], oid::TEXT),
            (Some("boolean"), vec![Value::Integer(1)], oid::BOOL),
            (Some("boolean"), vec![Value::Integer(2)], oid::TEXT),
            (Some("double precision"), vec![Value::Integer(1)], oid::FLOAT8),
            (None, vec![Value::Null, Value::real(1.0)], oid::FLOAT8),
            (None, vec![Value::Integer(1), Value::real(1.0)], oid::TEXT),
            (None, vec![], oid::TEXT),
        ] {
            let rows = values.into_iter().map(|value| vec![value]).collect();
            assert_eq!(types_of(&Rows { columns: vec![column(declared)], rows }), [want]);
        }
    }

    #[test]
    fn dates_and_times_become_text() {
        let text = |text: &str| Ok(Value::Text(text.into()));
        for (days, want) in
            [(0i32, "2000-01-01"), (59, "2000-02-29"), (60, "2000-03-01"), (-1, "1999-12-31")]
        {
            assert_eq!(parameter(&days.to_be_bytes(), oid::DATE, true), text(want));
        }
        for (microseconds, want) in
            [(757_479_845_000_000i64, "2024-01-02 03:04:05"), (-1, "1999-12-31 23:59:59.999999")]
        {
            assert_eq!(parameter(&microseconds.to_be_bytes(), oid::TIMESTAMP, true), text(want));
        }
        assert!(parameter(&i64::MAX.to_be_bytes(), oid::TIMESTAMPTZ, true).is_err());
    }

    #[test]
    fn parameters_that_are_not_of_their_type_are_refused() {
        for (bytes, said, binary, code) in [
            (&b"x"[..], oid::INT8, false, "22P02"),
            (b"9223372036854775808", oid::INT8, false, "22P02"),
            (b"maybe", oid::BOOL, false, "22P02"),
            (b"\\xzz", oid::BYTEA, false, "22P02"),
            (b"\xff", oid::TEXT, false, "22021"),
            (b"123", oid::INT8, true, "22P03"),
            (b"\x02", oid::BOOL, true, "22P03"),
            (b"\0\x01\0\0\0\0\0\0\xff\xff", oid::NUMERIC, true, "22P03"),
        ] {
            let refusal = parameter(bytes, said, binary).unwrap_err();
            assert_eq!(refusal.code(), code, "{bytes:?}");
        }
        assert_eq!(parameter(b"42", oid::UNSPECIFIED, false), Ok(Value::Text("42".into())));
    }
}
