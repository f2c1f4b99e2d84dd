//! Numbers on the wire: reals as PostgreSQL writes them, and numeric, which SQLite keeps as an
//! integer or a real.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use rota_core::transaction::Value;

/// Decimal digits in each digit of PostgreSQL's numeric.
const GROUP: usize = 4;

/// numeric's signs on the wire; positive is 0.
const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

/// The most groups of digits before or after the point: a real has 309 digits at most.
const MAX_WEIGHT: i16 = 80;

/// Decimals that a numeric parameter may show.
const MAX_SCALE: u16 = 0x3fff;

/// A float8 as PostgreSQL writes it: the shortest text that reads back as the same number.
pub(crate) fn put_float8(output: &mut BytesMut, number: f64) {
    put_float(output, number, number.abs());
}

/// A float4: the shortest text that reads back as the same float4.
pub(crate) fn put_float4(output: &mut BytesMut, number: f32) {
    if number.is_finite() && number != 0.0 && !(1e-4..1e6).contains(&number.abs()) {
        put_exponent(output, format_args!("{number:e}"));
    } else {
        put_float(output, number, number.abs().into());
    }
}

/// `size` decides whether an exponent is written.
fn put_float(
    output: &mut BytesMut,
    number: impl std::fmt::Display + std::fmt::LowerExp,
    size: f64,
) {
    // Writing to a buffer that grows does not fail.
    let _ = if size.is_nan() {
        output.write_str("NaN")
    } else if size.is_infinite() {
        let text = if number.to_string().starts_with('-') { "-Infinity" } else { "Infinity" };
        output.write_str(text)
    } else if size == 0.0 || (1e-4..1e15).contains(&size) {
        write!(output, "{number}")
    } else {
        put_exponent(output, format_args!("{number:e}"));
        Ok(())
    };
}

/// Rust writes `1e-5` and `1e15`, PostgreSQL `1e-05` and `1e+15`.
fn put_exponent(output: &mut BytesMut, number: std::fmt::Arguments<'_>) {
    let start = output.len();
    let _ = output.write_fmt(number);
    let Some(mark) = output.iter().skip(start).position(|&byte| byte == b'e') else { return };
    let exponent = output.split_off((start + mark + 1).min(output.len()));
    let (sign, digits) = match exponent.split_first() {
        Some((b'-', digits)) => (b'-', digits),
        _ => (b'+', &exponent[..]),
    };
    output.put_u8(sign);
    if digits.len() < 2 {
        output.put_u8(b'0');
    }
    output.put_slice(digits);
}

/// A numeric's text: no exponent, and as many decimals as were declared.
pub(crate) fn put_numeric(output: &mut BytesMut, value: &Value, scale: Option<usize>) {
    let start = output.len();
    let _ = match value {
        Value::Integer(number) => write!(output, "{number}"),
        Value::Real(bits) => write_real(output, f64::from_bits(*bits)),
        Value::Text(text) => output.write_str(text),
        Value::Null | Value::Blob(_) => Ok(()),
    };
    if let Some(scale) = scale {
        rescale(output, start, scale);
    }
}

fn write_real(output: &mut BytesMut, number: f64) -> std::fmt::Result {
    if number.is_infinite() {
        return output.write_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    write!(output, "{number}")
}

/// Cuts or fills the decimals of the number that stands from `start` on, rounding half away from
/// zero as PostgreSQL does; what is no number stays.
fn rescale(output: &mut BytesMut, start: usize, scale: usize) {
    let text = output.get(start..).unwrap_or_default();
    if !text.last().is_some_and(u8::is_ascii_digit) {
        return;
    }
    let point = text.iter().position(|&byte| byte == b'.');
    let decimals = point.map_or(0, |point| text.len() - point - 1);
    if decimals <= scale {
        if decimals == 0 && scale > 0 {
            output.put_u8(b'.');
        }
        output.put_bytes(b'0', scale - decimals);
        return;
    }
    let kept = text.len() - (decimals - scale);
    let up = text.get(kept).is_some_and(|digit| *digit >= b'5');
    output.truncate(start + kept - usize::from(scale == 0));
    if up {
        carry(output, start);
    }
    drop_minus_of_zero(output, start);
}

/// Adds one to the last digit.
fn carry(output: &mut BytesMut, start: usize) {
    let digits = output.get_mut(start..).unwrap_or_default();
    for digit in digits.iter_mut().rev().filter(|byte| byte.is_ascii_digit()) {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    // All nines: a one in front, after the sign.
    let first = start + usize::from(output.get(start) == Some(&b'-'));
    let rest = output.split_off(first.min(output.len()));
    output.put_u8(b'1');
    output.put_slice(&rest);
}

/// `-0.004` with two decimals is `0.00`.
fn drop_minus_of_zero(output: &mut BytesMut, start: usize) {
    let text = output.get(start..).unwrap_or_default();
    let is_zero = text.iter().all(|byte| matches!(byte, b'-' | b'.' | b'0'));
    if is_zero && text.first() == Some(&b'-') {
        let rest = output.split_off((start + 1).min(output.len()));
        output.truncate(start);
        output.put_slice(&rest);
    }
}

/// PostgreSQL's numeric in binary, from its text: the number of digits of base 10,000, the first
/// one's weight, the sign, the number of decimals shown, the digits.
pub(crate) fn put_numeric_binary(output: &mut BytesMut, decimal: &str) {
    let special = match decimal {
        "NaN" => Some(NOT_A_NUMBER),
        "Infinity" => Some(INFINITY),
        "-Infinity" => Some(MINUS_INFINITY),
        _ => None,
    };
    if let Some(sign) = special {
        output.put_u32(0);
        output.put_u16(sign);
        output.put_u16(0);
        return;
    }
    let (sign, decimal) = match decimal.strip_prefix('-') {
        Some(rest) => (NEGATIVE, rest),
        None => (0, decimal),
    };
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let ahead = whole.len().div_ceil(GROUP) * GROUP;
    let behind = fraction.len().div_ceil(GROUP) * GROUP;
    let digits = format!("{whole:0>ahead$}{fraction:0<behind$}");
    let groups: Vec<u16> = digits
        .as_bytes()
        .chunks(GROUP)
        .map(|group| {
            group.iter().fold(0, |sum: u16, digit| {
                sum.wrapping_mul(10).wrapping_add(u16::from(digit.wrapping_sub(b'0')))
            })
        })
        .collect();
    let zeros = groups.iter().take_while(|&&group| group == 0).count();
    let kept = groups.get(zeros..).unwrap_or_default();
    let behind = kept.iter().rev().take_while(|&&group| group == 0).count();
    let kept = kept.get(..kept.len() - behind).unwrap_or_default();
    let number = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let weight = i16::try_from(ahead / GROUP).unwrap_or(i16::MAX);
    let weight = weight.saturating_sub(1).saturating_sub(i16::try_from(zeros).unwrap_or(i16::MAX));
    output.put_u16(number(kept.len()));
    output.put_i16(if kept.is_empty() { 0 } else { weight });
    output.put_u16(if kept.is_empty() { 0 } else { sign });
    output.put_u16(number(fraction.len()));
    kept.iter().for_each(|group| output.put_u16(*group));
}

/// The text of a numeric in binary.
pub(crate) fn numeric_text(bytes: &[u8]) -> Option<String> {
    let mut numbers = bytes.chunks(2).map(|pair| pair.try_into().ok().map(u16::from_be_bytes));
    let mut next = || numbers.next().flatten();
    let (count, weight, sign, scale) = (next()?, next()?.cast_signed(), next()?, next()?);
    match sign {
        NOT_A_NUMBER => return Some("NaN".into()),
        INFINITY => return Some("Infinity".into()),
        MINUS_INFINITY => return Some("-Infinity".into()),
        0 | NEGATIVE => {}
        _ => return None,
    }
    let fits = bytes.len() == 8 + 2 * usize::from(count) && scale <= MAX_SCALE;
    if !fits || !(-MAX_WEIGHT..=MAX_WEIGHT).contains(&weight) {
        return None;
    }
    let groups: Vec<u16> = (0..count).map(|_| next()).collect::<Option<_>>()?;
    if groups.iter().any(|&group| group > 9999) {
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

/// A decimal as SQLite's NUMERIC affinity would keep it: an integer where it is one, else a real.
/// What is no finite number stays text, since a REAL cannot hold NaN.
pub(crate) fn decimal(text: &str) -> Option<Value> {
    if let Ok(number) = text.parse() {
        return Some(Value::Integer(number));
    }
    let number: f64 = text.parse().ok()?;
    if number.is_nan() {
        return Some(Value::Text("NaN".into()));
    }
    if number.is_infinite() && !text.trim_start_matches(['+', '-']).starts_with(['i', 'I']) {
        return None; // too large
    }
    Some(Value::real(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut output = BytesMut::from("before|");
        put(&mut output);
        String::from_utf8(output.to_vec()).unwrap().replace("before|", "")
    }

    #[test]
    fn reals_are_written_as_postgresql_writes_them() {
        for (number, want) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e15, "1e+15"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e-5, "1e-05"),
            (1.5e-300, "1.5e-300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(written(|output| put_float8(output, number)), want);
        }
        for (number, want) in
            [(1.1, "1.1"), (0.1, "0.1"), (100_000.0, "100000"), (1e6, "1e+06"), (1e-5, "1e-05")]
        {
            assert_eq!(written(|output| put_float4(output, number)), want);
        }
    }

    #[test]
    fn numerics_show_as_many_decimals_as_were_declared() {
        for (value, scale, want) in [
            (Value::real(1.1), Some(2), "1.10"),
            (Value::Integer(7), Some(2), "7.00"),
            (Value::Integer(-7), Some(0), "-7"),
            (Value::real(1.005), Some(2), "1.01"),
            (Value::real(1.004), Some(2), "1.00"),
            (Value::real(-9.996), Some(2), "-10.00"),
            (Value::real(99.5), Some(0), "100"),
            (Value::real(-0.004), Some(2), "0.00"),
            (Value::real(0.1), None, "0.1"),
            (Value::real(1e20), None, "100000000000000000000"),
            (Value::real(1e-7), None, "0.0000001"),
            (Value::Text("NaN".into()), Some(2), "NaN"),
        ] {
            assert_eq!(written(|output| put_numeric(output, &value, scale)), want);
        }
    }

    #[test]
    fn a_numeric_in_binary_is_what_postgresql_sends() {
        for (text, want) in [
            ("1.10", &[0, 2, 0, 0, 0, 0, 0, 2, 0, 1, 3, 232][..]),
            ("10000", &[0, 1, 0, 1, 0, 0, 0, 0, 0, 1]),
            ("-0.0001", &[0, 1, 255, 255, 64, 0, 0, 4, 0, 1]),
            ("0.00", &[0, 0, 0, 0, 0, 0, 0, 2]),
            ("NaN", &[0, 0, 0, 0, 192, 0, 0, 0]),
        ] {
            let mut output = BytesMut::new();
            put_numeric_binary(&mut output, text);
            assert_eq!(&output[..], want, "{text}");
        }
    }
}
