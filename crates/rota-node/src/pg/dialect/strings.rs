//! PostgreSQL's ways to write a string, as plain ones. Step 1.

use rota_core::error::{Refusal, sqlstate};

/// `E'a\n'` as a plain string (PostgreSQL 4.1.2.2).
pub(super) fn unescape(token: &str) -> Result<String, Refusal> {
    let inner = token.get(2..).and_then(|rest| rest.strip_suffix('\''));
    let Some(inner) = inner else {
        return Err(Refusal::new(sqlstate::SYNTAX_ERROR, "an E'…' string is not closed"));
    };
    let mut bytes = Vec::with_capacity(inner.len() + 2);
    let mut rest = inner.as_bytes();
    let digits = |from: &[u8], most: usize, radix: u32| -> (u32, usize) {
        let count = from.iter().take(most).take_while(|&&b| char::from(b).is_digit(radix)).count();
        let text = from.get(..count).and_then(|found| std::str::from_utf8(found).ok());
        (text.and_then(|text| u32::from_str_radix(text, radix).ok()).unwrap_or(0), count)
    };
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some((&escape, after)) = rest.split_first().filter(|_| byte == b'\\') else {
            bytes.push(byte);
            continue;
        };
        let (taken, width) = match escape {
            b'x' => (digits(after, 2, 16), None),
            b'0'..=b'7' => (digits(rest, 3, 8), None),
            b'u' => (digits(after, 4, 16), Some(4)),
            b'U' => (digits(after, 8, 16), Some(8)),
            _ => ((0, 0), None),
        };
        rest = if matches!(escape, b'0'..=b'7') { rest } else { after };
        rest = rest.get(taken.1..).unwrap_or_default();
        match (escape, taken) {
            (b'b', _) => bytes.push(8),
            (b'f', _) => bytes.push(12),
            (b'n', _) => bytes.push(b'\n'),
            (b'r', _) => bytes.push(b'\r'),
            (b't', _) => bytes.push(b'\t'),
            (b'u' | b'U', (code, count)) => {
                let character = char::from_u32(code).filter(|_| Some(count) == width);
                let character =
                    character.ok_or_else(|| bad_escape("\\u needs a character's code"))?;
                bytes.extend(character.to_string().bytes());
            }
            (b'x' | b'0'..=b'7', (code, count)) if count > 0 => bytes.push((code & 0xff) as u8),
            (b'\'', _) => bytes.extend(b"''"),
            (other, _) => bytes.push(other),
        }
        if bytes.last() == Some(&0) {
            return Err(bad_escape("a string may not contain the character of code 0"));
        }
        if escape != b'\'' && bytes.last() == Some(&b'\'') {
            bytes.push(b'\'');
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| bad_escape("not UTF-8 once unescaped"))?;
    Ok(format!("'{text}'"))
}

/// `U&'d\0061t\+000061'` as a plain string (PostgreSQL 4.1.2.3), with the backslash as escape.
pub(super) fn unicode(token: &str) -> Result<String, Refusal> {
    let inner = token.get(3..).and_then(|rest| rest.strip_suffix('\''));
    let Some(inner) = inner else {
        return Err(Refusal::new(sqlstate::SYNTAX_ERROR, "a U&'…' string is not closed"));
    };
    let mut text = String::with_capacity(inner.len() + 2);
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        if let Some(tail) = after.strip_prefix('\\') {
            text.push('\\');
            rest = tail;
            continue;
        }
        let (digits, width) = after.strip_prefix('+').map_or((after, 4), |digits| (digits, 6));
        let code = digits.get(..width).and_then(|code| u32::from_str_radix(code, 16).ok());
        let character = code.filter(|&code| code != 0).and_then(char::from_u32);
        let character = character.ok_or_else(|| bad_escape("U& needs characters' codes"))?;
        text.push_str(if character == '\'' { "'" } else { "" });
        text.push(character);
        rest = digits.get(width..).unwrap_or("");
    }
    text.push_str(rest);
    Ok(format!("'{text}'"))
}

/// `$tag$text$tag$` as a plain string.
pub(super) fn undollar(token: &str) -> String {
    let tag = token.get(1..).and_then(|rest| rest.find('$')).map_or(1, |end| end + 2);
    let inner = token.get(tag..token.len().saturating_sub(tag)).unwrap_or("");
    quoted(inner)
}

/// A string's value: `'it''s'` is `it's`.
pub(super) fn value(literal: &str) -> Option<String> {
    let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inner.replace("''", "'"))
}

/// A value as a string.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A name in double quotes.
pub(super) fn named(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn bad_escape(message: &str) -> Refusal {
    Refusal::new("22025", message)
}
