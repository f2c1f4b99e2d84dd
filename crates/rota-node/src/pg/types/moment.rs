//! Dates, times and uuids on the wire. In the database they are text (`rota_store::datetime`), in
//! binary they are counted from the start of the year 2000.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use rota_store::datetime::{
    DAY, Date, TimeOfDay, Timestamp, Wrong, parse_date, parse_time, parse_timestamp,
    parse_timestamptz,
};

use super::{Oid, oid};

/// Days from 1970 to 2000.
const EPOCH_DAYS: i64 = 10_957;

/// Writes a stored date or time as PostgreSQL does with TimeZone UTC; what is none stays as it is.
pub(crate) fn put_text(output: &mut BytesMut, text: &str, said: Oid) {
    // Writing to a buffer that grows does not fail.
    let _ = match said {
        oid::TIMESTAMP if is_canonical(text) => output.write_str(text),
        oid::TIMESTAMP => put_or(output, text, parse_timestamp(text)),
        oid::TIMESTAMPTZ if is_canonical(text) => write!(output, "{text}+00"),
        oid::TIMESTAMPTZ => match parse_timestamptz(text) {
            Ok(timestamp) if timestamp.is_finite() => write!(output, "{timestamp}+00"),
            parsed => put_or(output, text, parsed),
        },
        oid::DATE => put_or(output, text, parse_date(text)),
        oid::TIME => put_or(output, text, parse_time(text)),
        oid::UUID => match uuid_bytes(text) {
            Some(bytes) => put_uuid(output, bytes),
            None => output.write_str(text),
        },
        _ => output.write_str(text),
    };
}

fn put_or<T: std::fmt::Display>(
    output: &mut BytesMut,
    text: &str,
    parsed: Result<T, Wrong>,
) -> std::fmt::Result {
    match parsed {
        Ok(parsed) => write!(output, "{parsed}"),
        Err(_) => output.write_str(text),
    }
}

/// Whether a timestamp is written as `now()` writes it, the form that needs no second look.
fn is_canonical(text: &str) -> bool {
    let bytes = text.as_bytes();
    let length = match bytes.len() {
        19 => true,
        21..=26 => bytes.get(19) == Some(&b'.') && bytes.last() != Some(&b'0'),
        _ => false,
    };
    let marked = |(place, byte): (usize, &u8)| match place {
        4 | 7 => *byte == b'-',
        10 => *byte == b' ',
        13 | 16 => *byte == b':',
        19 => true,
        _ => byte.is_ascii_digit(),
    };
    length && bytes.iter().enumerate().all(marked)
}

/// Whether a text is one of the type.
pub(crate) fn is_stored(text: &str, said: Oid) -> bool {
    match said {
        oid::DATE => parse_date(text).is_ok(),
        oid::TIME => parse_time(text).is_ok(),
        oid::TIMESTAMP | oid::TIMESTAMPTZ => is_canonical(text) || parse_timestamp(text).is_ok(),
        oid::UUID => uuid_bytes(text).is_some(),
        _ => false,
    }
}

/// Appends a stored date or time in binary; `None` if it is none.
pub(crate) fn put_binary(output: &mut BytesMut, text: &str, said: Oid) -> Option<()> {
    match said {
        oid::DATE => {
            output.put_i32(i32::try_from(parse_date(text).ok()?.0 - EPOCH_DAYS).ok()?);
        }
        oid::TIME => output.put_i64(parse_time(text).ok()?.0),
        oid::TIMESTAMP => output.put_i64(since_2000(parse_timestamp(text).ok()?)),
        oid::TIMESTAMPTZ => output.put_i64(since_2000(parse_timestamptz(text).ok()?)),
        oid::UUID => output.put_slice(&uuid_bytes(text)?),
        _ => return None,
    }
    Some(())
}

fn since_2000(timestamp: Timestamp) -> i64 {
    if timestamp.is_finite() { timestamp.0 - EPOCH_DAYS * DAY } else { timestamp.0 }
}

/// The text of a date, a time or a uuid in binary.
pub(crate) fn from_binary(bytes: &[u8], said: Oid) -> Option<String> {
    let long = || bytes.try_into().ok().map(i64::from_be_bytes);
    Some(match said {
        oid::DATE => {
            let days = i32::from_be_bytes(bytes.try_into().ok()?);
            Date::new(i64::from(days) + EPOCH_DAYS)?.to_string()
        }
        oid::TIME => {
            let time = long()?;
            (0..=DAY).contains(&time).then_some(TimeOfDay(time))?.to_string()
        }
        oid::TIMESTAMP | oid::TIMESTAMPTZ => {
            let infinite = long().map(Timestamp).filter(|timestamp| !timestamp.is_finite());
            let moved = || Timestamp::new(long()?.checked_add(EPOCH_DAYS * DAY)?);
            infinite.or_else(moved)?.to_string()
        }
        oid::UUID => uuid_text(bytes.try_into().ok()?),
        _ => return None,
    })
}

/// A date, a time or a uuid as a client wrote it, in the form in which it is stored.
pub(crate) fn canonical(text: &str, said: Oid) -> Result<String, Wrong> {
    match said {
        oid::DATE => parse_date(text).map(|date| date.to_string()),
        oid::TIME => parse_time(text).map(|time| time.to_string()),
        oid::TIMESTAMP => parse_timestamp(text).map(|timestamp| timestamp.to_string()),
        oid::TIMESTAMPTZ => parse_timestamptz(text).map(|timestamp| timestamp.to_string()),
        oid::UUID => uuid_bytes(text).map(uuid_text).ok_or(Wrong::Syntax),
        _ => Ok(text.to_owned()),
    }
}

/// A uuid in lower case, with its hyphens.
fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    // Writing to a string does not fail.
    let _ = put_uuid(&mut text, bytes);
    text
}

fn put_uuid(output: &mut impl Write, bytes: [u8; 16]) -> std::fmt::Result {
    for (place, byte) in bytes.iter().enumerate() {
        let hyphen = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(output, "{hyphen}{byte:02x}")?;
    }
    Ok(())
}

/// A uuid as PostgreSQL reads it: hyphens after any four digits or none, braces around it or none.
pub(crate) fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    let inner = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
    let mut bytes = [0; 16];
    let mut digits = 0_usize;
    let mut hyphen = true;
    for byte in inner.bytes() {
        if byte == b'-' {
            if hyphen || !digits.is_multiple_of(4) {
                return None;
            }
            hyphen = true;
            continue;
        }
        let digit = u8::try_from(char::from(byte).to_digit(16)?).ok()?;
        let place = bytes.get_mut(digits / 2)?;
        *place = *place << 4 | digit;
        digits += 1;
        hyphen = false;
    }
    (digits == 32 && !hyphen).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str, said: Oid) -> String {
        let mut output = BytesMut::new();
        put_text(&mut output, text, said);
        String::from_utf8(output.to_vec()).unwrap()
    }

    #[test]
    fn stored_times_are_sent_as_postgresql_sends_them() {
        for (stored, said, want) in [
            ("2024-01-02 03:04:05", oid::TIMESTAMP, "2024-01-02 03:04:05"),
            ("2024-01-02 03:04:05", oid::TIMESTAMPTZ, "2024-01-02 03:04:05+00"),
            ("2024-01-02 03:04:05.125", oid::TIMESTAMPTZ, "2024-01-02 03:04:05.125+00"),
            ("2024-01-02 03:04:05.500", oid::TIMESTAMP, "2024-01-02 03:04:05.5"),
            ("2024-01-02T03:04:05+02:00", oid::TIMESTAMPTZ, "2024-01-02 01:04:05+00"),
            ("infinity", oid::TIMESTAMPTZ, "infinity"),
            ("2024-01-02 03:04:05", oid::DATE, "2024-01-02"),
            ("3:04", oid::TIME, "03:04:00"),
            ("yesterday", oid::TIMESTAMPTZ, "yesterday"),
            ("A0EEBC999C0B4EF8BB6D6BB9BD380A11", oid::UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ] {
            assert_eq!(sent(stored, said), want);
        }
    }

    #[test]
    fn binary_times_are_counted_from_2000_and_come_back() {
        for (text, said, want) in [
            ("2000-01-01", oid::DATE, &[0, 0, 0, 0][..]),
            ("1999-12-31", oid::DATE, &[255, 255, 255, 255]),
            ("00:00:01", oid::TIME, &[0, 0, 0, 0, 0, 15, 66, 64]),
            ("2000-01-01 00:00:00.000001", oid::TIMESTAMP, &[0, 0, 0, 0, 0, 0, 0, 1]),
            ("1999-12-31 23:59:59.999999", oid::TIMESTAMPTZ, &[255; 8]),
            ("infinity", oid::TIMESTAMP, &i64::MAX.to_be_bytes()),
            ("-infinity", oid::TIMESTAMPTZ, &i64::MIN.to_be_bytes()),
        ] {
            let mut output = BytesMut::new();
            put_binary(&mut output, text, said).unwrap();
            assert_eq!(&output[..], want, "{text}");
            assert_eq!(from_binary(want, said).as_deref(), Some(text));
        }
        assert_eq!(from_binary(&(i64::MAX - 1).to_be_bytes(), oid::TIMESTAMP), None);
        assert_eq!(from_binary(&i32::MAX.to_be_bytes(), oid::DATE), None);
        assert_eq!(from_binary(&[0; 3], oid::UUID), None);
    }

    #[test]
    fn uuids_are_read_in_the_forms_that_postgresql_reads() {
        let want = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            want,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(canonical(text, oid::UUID).as_deref(), Ok(want), "{text}");
        }
        for text in ["", "a0eebc99", "a0eebc999c0b4ef8bb6d6bb9bd380a1-", &format!("{want}0")] {
            assert_eq!(canonical(text, oid::UUID), Err(Wrong::Syntax), "{text}");
        }
    }
}
