//! Strings: `left`, `lpad`, `split_part`, `initcap` and the like. Counted in characters, as
//! PostgreSQL does in UTF-8.

use md5::{Digest, Md5};
use rusqlite::Result;
use rusqlite::types::{Value, ValueRef};

use super::{Arguments, Given, fail, integer, most, strict, too_long, truth, uuid};

pub(super) fn register(connection: &super::Metered<'_>) -> Result<()> {
    strict(connection, "left", 2, left)?;
    strict(connection, "right", 2, right)?;
    strict(connection, "lpad", 2, |call| pad(call, true))?;
    strict(connection, "lpad", 3, |call| pad(call, true))?;
    strict(connection, "rpad", 2, |call| pad(call, false))?;
    strict(connection, "rpad", 3, |call| pad(call, false))?;
    strict(connection, "split_part", 3, split_part)?;
    strict(connection, "strpos", 2, strpos)?;
    strict(connection, "starts_with", 2, |call| {
        Ok(truth(call.text(0)?.starts_with(&call.text(1)?)))
    })?;
    strict(connection, "repeat", 2, repeat)?;
    strict(connection, "reverse", 1, |call| {
        Ok(Value::Text(call.text(0)?.chars().rev().collect()))
    })?;
    strict(connection, "initcap", 1, initcap)?;
    strict(connection, "md5", 1, |call| Ok(Value::Text(hex::encode(Md5::digest(bytes(call))))))?;
    for name in ["char_length", "character_length"] {
        strict(connection, name, 1, |call| Ok(integer(call.text(0)?.chars().count())))?;
    }
    strict(connection, "bit_length", 1, |call| Ok(integer(bytes(call).len().saturating_mul(8))))?;
    strict(connection, "ascii", 1, |call| {
        Ok(Value::Integer(call.text(0)?.chars().next().map_or(0, |first| u32::from(first).into())))
    })?;
    strict(connection, "chr", 1, chr)?;
    strict(connection, "btrim", 1, |call| Ok(Value::Text(call.text(0)?.trim_matches(' ').into())))?;
    strict(connection, "btrim", 2, |call| {
        let set: Vec<char> = call.text(1)?.chars().collect();
        Ok(Value::Text(call.text(0)?.trim_matches(set.as_slice()).into()))
    })?;
    strict(connection, "translate", 3, translate)?;
    strict(connection, "overlay", 3, overlay)?;
    strict(connection, "overlay", 4, overlay)?;
    strict(connection, "to_hex", 1, |call| Ok(Value::Text(format!("{:x}", call.integer(0)?))))?;
    strict(connection, "quote_ident", 1, quote_ident)?;
    strict(connection, "quote_literal", 1, |call| Ok(Value::Text(literal(&call.text(0)?))))?;
    connection.create_scalar_function("quote_nullable", 1, super::FIXED, |call| {
        match call.get_raw(0) {
            ValueRef::Null => Ok("NULL".to_owned()),
            value => Ok(literal(&super::text_of(value)?)),
        }
    })?;
    strict(connection, "rota_uuid", 1, read_uuid)?;
    strict(connection, "rota_boolean", 1, read_boolean)
}

/// The bytes of a text or a blob.
fn bytes(call: &Arguments<'_, '_>) -> Vec<u8> {
    match call.raw(0) {
        ValueRef::Blob(bytes) => bytes.to_vec(),
        _ => call.text(0).unwrap_or_default().into_bytes(),
    }
}

/// How many of `length` characters a count asks for; a negative one leaves so many out.
fn wanted(length: usize, count: i64) -> usize {
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 { length.saturating_sub(size) } else { size.min(length) }
}

fn left(call: &Arguments<'_, '_>) -> Given {
    let text = call.text(0)?;
    let count = wanted(text.chars().count(), call.integer(1)?);
    Ok(Value::Text(text.chars().take(count).collect()))
}

fn right(call: &Arguments<'_, '_>) -> Given {
    let text = call.text(0)?;
    let length = text.chars().count();
    let count = wanted(length, call.integer(1)?);
    Ok(Value::Text(text.chars().skip(length - count).collect()))
}

fn pad(call: &Arguments<'_, '_>, in_front: bool) -> Given {
    let text = call.text(0)?;
    let length = usize::try_from(call.integer(1)?.max(0)).map_err(|_| too_long())?;
    let fill = if call.len() > 2 { call.text(2)? } else { " ".into() };
    let widest = fill.chars().map(char::len_utf8).max().unwrap_or(1);
    if length.saturating_mul(widest) > most() {
        return Err(too_long());
    }
    let missing = length.saturating_sub(text.chars().count());
    let filling: String = fill.chars().cycle().take(missing).collect();
    let kept: String = text.chars().take(length).collect();
    Ok(Value::Text(if in_front { filling + &kept } else { kept + &filling }))
}

fn split_part(call: &Arguments<'_, '_>) -> Given {
    let (text, separator, place) = (call.text(0)?, call.text(1)?, call.integer(2)?);
    if place == 0 {
        return Err(fail("field position must not be zero"));
    }
    let at = usize::try_from(place.unsigned_abs() - 1).unwrap_or(usize::MAX);
    if separator.is_empty() {
        return Ok(Value::Text(if at == 0 { text } else { String::new() }));
    }
    let part =
        if place > 0 { text.split(&separator).nth(at) } else { text.rsplit(&separator).nth(at) };
    Ok(Value::Text(part.unwrap_or_default().to_owned()))
}

fn strpos(call: &Arguments<'_, '_>) -> Given {
    let (text, part) = (call.text(0)?, call.text(1)?);
    let found = text.find(&part).and_then(|at| text.get(..at));
    Ok(integer(found.map_or(0, |before| before.chars().count() + 1)))
}

fn repeat(call: &Arguments<'_, '_>) -> Given {
    let (text, times) = (call.text(0)?, usize::try_from(call.integer(1)?.max(0)));
    let times = times.map_err(|_| too_long())?;
    if text.len().saturating_mul(times) > most() {
        return Err(too_long());
    }
    Ok(Value::Text(text.repeat(times)))
}

/// The first letter of each word large, the others small.
fn initcap(call: &Arguments<'_, '_>) -> Given {
    let text = call.text(0)?;
    let mut result = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
        inside = character.is_alphanumeric();
    }
    Ok(Value::Text(result))
}

fn chr(call: &Arguments<'_, '_>) -> Given {
    let code = call.integer(0)?;
    let character = u32::try_from(code).ok().filter(|code| *code > 0).and_then(char::from_u32);
    match character {
        Some(character) => Ok(Value::Text(character.into())),
        None => Err(fail(format!("requested character is out of range: {code}"))),
    }
}

fn translate(call: &Arguments<'_, '_>) -> Given {
    let from: Vec<char> = call.text(1)?.chars().collect();
    let to: Vec<char> = call.text(2)?.chars().collect();
    if from.len() > 1_000 {
        return Err(too_long());
    }
    let replaced = |character: char| match from.iter().position(|known| *known == character) {
        None => Some(character),
        Some(at) => to.get(at).copied(),
    };
    Ok(Value::Text(call.text(0)?.chars().filter_map(replaced).collect()))
}

/// `overlay(text placing part from start [for count])`.
fn overlay(call: &Arguments<'_, '_>) -> Given {
    let (text, part, start) = (call.text(0)?, call.text(1)?, call.integer(2)?);
    let count = if call.len() > 3 {
        call.integer(3)?
    } else {
        i64::try_from(part.chars().count()).unwrap_or(i64::MAX)
    };
    let Some(before) = start.checked_sub(1).and_then(|start| usize::try_from(start).ok()) else {
        return Err(fail("negative substring length not allowed"));
    };
    let after = before.saturating_add(usize::try_from(count.max(0)).unwrap_or(usize::MAX));
    let mut result: String = text.chars().take(before).collect();
    result.push_str(&part);
    result.extend(text.chars().skip(after));
    Ok(Value::Text(result))
}

fn quote_ident(call: &Arguments<'_, '_>) -> Given {
    let name = call.text(0)?;
    let plain = |place: usize, c: char| {
        c.is_ascii_lowercase() || c == '_' || (place > 0 && c.is_ascii_digit())
    };
    let is_plain = !name.is_empty() && name.chars().enumerate().all(|(at, c)| plain(at, c));
    Ok(Value::Text(if is_plain { name } else { format!("\"{}\"", name.replace('"', "\"\"")) }))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A uuid in the form in which uuids rest: lower case, with hyphens.
fn read_uuid(call: &Arguments<'_, '_>) -> Given {
    let text = call.text(0)?;
    let inner = text.trim();
    let inner = inner.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(inner);
    let digits: String = inner.chars().filter(|c| *c != '-').collect();
    let bytes = hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok());
    match bytes {
        Some(bytes) => Ok(Value::Text(uuid(bytes))),
        None => Err(super::invalid("uuid", &text)),
    }
}

/// PostgreSQL's spellings of a boolean as 0 or 1; numbers are true unless 0.
fn read_boolean(call: &Arguments<'_, '_>) -> Given {
    if let ValueRef::Integer(number) = call.raw(0) {
        return Ok(truth(number != 0));
    }
    let text = call.text(0)?;
    let word = text.trim().to_ascii_lowercase();
    let is = |words: [&str; 4]| words.contains(&word.as_str());
    let starts = |whole: &str| !word.is_empty() && whole.starts_with(&word);
    if is(["on", "1", "y", "t"]) || starts("true") || starts("yes") {
        Ok(truth(true))
    } else if is(["off", "0", "of", "n"]) || starts("false") || starts("no") {
        Ok(truth(false))
    } else {
        Err(super::invalid("boolean", &text))
    }
}
