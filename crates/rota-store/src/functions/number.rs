//! Arithmetic that SQLite's library has not, or has by the C library, whose last bits differ from
//! one machine to another. What is here IEEE 754 defines exactly.

use rusqlite::Result;
use rusqlite::functions::Context;
use rusqlite::types::{Value, ValueRef};

use super::{ANY, Arguments, FIXED, Given, fail, strict};

/// The largest exponent that is multiplied out.
const MAX_EXPONENT: u64 = 4_096;

pub(super) fn register(connection: &super::Metered<'_>) -> Result<()> {
    strict(connection, "floor", 1, |call| rounded(call, f64::floor))?;
    strict(connection, "ceil", 1, |call| rounded(call, f64::ceil))?;
    strict(connection, "ceiling", 1, |call| rounded(call, f64::ceil))?;
    strict(connection, "trunc", 1, |call| rounded(call, f64::trunc))?;
    strict(connection, "trunc", 2, trunc)?;
    strict(connection, "sqrt", 1, sqrt)?;
    strict(connection, "mod", 2, modulo)?;
    strict(connection, "div", 2, div)?;
    strict(connection, "power", 2, power)?;
    strict(connection, "pow", 2, power)?;
    strict(connection, "width_bucket", 4, width_bucket)?;
    connection.create_scalar_function("greatest", ANY, FIXED, |call| extreme(call, true))?;
    connection.create_scalar_function("least", ANY, FIXED, |call| extreme(call, false))
}

/// An integer stays one.
fn rounded(call: &Arguments<'_, '_>, round: fn(f64) -> f64) -> Given {
    match call.raw(0) {
        ValueRef::Integer(number) => Ok(Value::Integer(number)),
        _ => Ok(Value::Real(round(call.real(0)?))),
    }
}

/// By the digits as they are written: 1.15 with one decimal is 1.1, whatever its double is.
fn trunc(call: &Arguments<'_, '_>) -> Given {
    let decimals = call.integer(1)?;
    if let (ValueRef::Integer(number), 0..) = (call.raw(0), decimals) {
        return Ok(Value::Integer(number));
    }
    let text = call.real(0)?.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if decimals < 0 {
        return Err(super::unsupported("trunc() with negative decimals"));
    }
    let kept: String =
        fraction.chars().take(usize::try_from(decimals).unwrap_or(usize::MAX)).collect();
    let text = format!("{whole}.{kept}0");
    text.parse().map(Value::Real).map_err(|_| fail("value out of range"))
}

fn sqrt(call: &Arguments<'_, '_>) -> Given {
    let number = call.real(0)?;
    if number < 0.0 {
        return Err(fail("cannot take square root of a negative number"));
    }
    Ok(Value::Real(number.sqrt()))
}

fn modulo(call: &Arguments<'_, '_>) -> Given {
    if let (ValueRef::Integer(a), ValueRef::Integer(b)) = (call.raw(0), call.raw(1)) {
        let rest = a.checked_rem(b).or(Some(0).filter(|_| b == -1));
        return rest.map(Value::Integer).ok_or_else(division_by_zero);
    }
    let (a, b) = (call.real(0)?, call.real(1)?);
    if b == 0.0 { Err(division_by_zero()) } else { Ok(Value::Real(a % b)) }
}

fn div(call: &Arguments<'_, '_>) -> Given {
    if let (ValueRef::Integer(a), ValueRef::Integer(b)) = (call.raw(0), call.raw(1)) {
        if b == 0 {
            return Err(division_by_zero());
        }
        let quotient = a.checked_div(b).map(Value::Integer);
        return quotient.ok_or_else(|| fail("bigint out of range"));
    }
    let (a, b) = (call.real(0)?, call.real(1)?);
    if b == 0.0 { Err(division_by_zero()) } else { Ok(Value::Real((a / b).trunc())) }
}

fn division_by_zero() -> rusqlite::Error {
    fail("division by zero")
}

/// Whole exponents only, multiplied out: `pow` of the C library is not the same everywhere.
fn power(call: &Arguments<'_, '_>) -> Given {
    let (base, exponent) = (call.real(0)?, call.real(1)?);
    if exponent == 0.5 && base >= 0.0 {
        return Ok(Value::Real(base.sqrt()));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let count = exponent.abs() as u64;
    if exponent.trunc() != exponent || count > MAX_EXPONENT {
        return Err(super::unsupported("power() with an exponent that is not a whole number"));
    }
    let mut product = 1.0;
    for _ in 0..count {
        product *= base;
    }
    if exponent < 0.0 && product == 0.0 {
        return Err(fail("zero raised to a negative power is undefined"));
    }
    Ok(Value::Real(if exponent < 0.0 { 1.0 / product } else { product }))
}

fn width_bucket(call: &Arguments<'_, '_>) -> Given {
    let (number, low, high, count) =
        (call.real(0)?, call.real(1)?, call.real(2)?, call.integer(3)?);
    if count <= 0 {
        return Err(fail("count must be greater than zero"));
    }
    if low == high {
        return Err(fail("lower bound cannot equal upper bound"));
    }
    let place = (number - low) / (high - low);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "bounded")]
    let bucket = if place < 0.0 {
        0
    } else if place >= 1.0 {
        count.saturating_add(1)
    } else {
        (place * count as f64) as i64 + 1
    };
    Ok(Value::Integer(bucket))
}

/// The largest or smallest argument that is not NULL, by SQLite's order.
fn extreme(call: &Context<'_>, largest: bool) -> Result<Value> {
    let arguments = Arguments(call);
    let mut found = ValueRef::Null;
    for place in 0..arguments.len() {
        let value = arguments.raw(place);
        if value == ValueRef::Null {
            continue;
        }
        let replaces = match compare(value, found) {
            None => true,
            Some(order) => {
                if largest {
                    order.is_gt()
                } else {
                    order.is_lt()
                }
            }
        };
        if replaces {
            found = value;
        }
    }
    Value::try_from(found).map_err(|_| fail("a text that is not UTF-8"))
}

fn compare(a: ValueRef<'_>, b: ValueRef<'_>) -> Option<std::cmp::Ordering> {
    use ValueRef::{Blob, Integer, Null, Real, Text};
    #[expect(clippy::cast_precision_loss, reason = "as SQLite compares reals")]
    let real = |value| match value {
        Integer(number) => Some(number as f64),
        Real(number) => Some(number),
        _ => None,
    };
    match (a, b) {
        (_, Null) | (Null, _) => None,
        (Integer(a), Integer(b)) => Some(a.cmp(&b)),
        (Text(a), Text(b)) | (Blob(a), Blob(b)) => Some(a.cmp(b)),
        (a, b) => match (real(a), real(b)) {
            (Some(a), Some(b)) => Some(a.total_cmp(&b)),
            (Some(_), None) => Some(std::cmp::Ordering::Less),
            (None, Some(_)) => Some(std::cmp::Ordering::Greater),
            (None, None) => Some(matches!(a, Blob(_)).cmp(&matches!(b, Blob(_)))),
        },
    }
}
