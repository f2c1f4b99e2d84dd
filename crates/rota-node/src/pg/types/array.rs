//! Arrays: in the database the text of a JSON array, so that `json_each` can read it; on the wire
//! PostgreSQL's `{1,2,NULL}` and its binary form. One dimension; more of them in text results only.

use bytes::{BufMut, BytesMut};
use rota_core::error::Refusal;
use rota_core::transaction::Value;
use serde_json::Value as Json;

use super::{Oid, oid, parameter};
use crate::pg::encode;

/// `1 2`, in the catalog.
pub(crate) const INT2VECTOR: Oid = 22;
/// `10 20`, in the catalog.
pub(crate) const OIDVECTOR: Oid = 30;

/// Array types and what is in them (pg_type.dat).
const ARRAYS: [(Oid, Oid); 22] = [
    (INT2VECTOR, oid::INT2),
    (OIDVECTOR, oid::OID),
    (1000, oid::BOOL),
    (1001, oid::BYTEA),
    (1002, oid::CHAR),
    (1003, oid::NAME),
    (1005, oid::INT2),
    (1007, oid::INT4),
    (1009, oid::TEXT),
    (1014, oid::BPCHAR),
    (1015, oid::VARCHAR),
    (1016, oid::INT8),
    (1021, oid::FLOAT4),
    (1022, oid::FLOAT8),
    (1028, oid::OID),
    (1115, oid::TIMESTAMP),
    (1182, oid::DATE),
    (1183, oid::TIME),
    (1185, oid::TIMESTAMPTZ),
    (1231, oid::NUMERIC),
    (2951, oid::UUID),
    (3807, oid::JSONB),
];

/// `json[]`, beside `jsonb[]`.
const JSON_ARRAY: Oid = 199;

/// The type of an array's elements, if it is an array.
pub(crate) fn element(array: Oid) -> Option<Oid> {
    if array == JSON_ARRAY {
        return Some(oid::JSON);
    }
    ARRAYS.iter().find(|(known, _)| *known == array).map(|(_, element)| *element)
}

/// The type of arrays of an element.
pub(crate) fn of(element: Oid) -> Option<Oid> {
    if element == oid::JSON {
        return Some(JSON_ARRAY);
    }
    let arrays = ARRAYS.iter().filter(|(array, _)| !is_vector(*array));
    arrays.into_iter().find(|(_, known)| *known == element).map(|(array, _)| *array)
}

fn is_vector(array: Oid) -> bool {
    matches!(array, INT2VECTOR | OIDVECTOR)
}

/// A stored array's elements, `None` if the text is not one.
fn elements(text: &str, said: Oid) -> Option<Vec<Json>> {
    if is_vector(said) && !text.starts_with(['[', '{']) {
        let numbers = text.split_ascii_whitespace().map(|word| word.parse().map(Json::Number));
        return numbers.collect::<Result<_, _>>().ok();
    }
    if text.trim_start().starts_with('{') {
        let read = read_text(text)?;
        return Some(read.into_iter().map(|word| word.map_or(Json::Null, Json::String)).collect());
    }
    serde_json::from_str(text).ok()
}

/// Whether a text is an array.
pub(crate) fn is_array(text: &str, said: Oid) -> bool {
    elements(text, said).is_some()
}

/// Appends a stored array as PostgreSQL's text; what is none stays as it is.
pub(crate) fn put_text(output: &mut BytesMut, text: &str, said: Oid) {
    if text.starts_with('{') || (is_vector(said) && !text.starts_with('[')) {
        output.put_slice(text.as_bytes());
        return;
    }
    match serde_json::from_str::<Vec<Json>>(text) {
        Ok(elements) if is_vector(said) => {
            let words: Vec<String> = elements.iter().map(ToString::to_string).collect();
            output.put_slice(words.join(" ").as_bytes());
        }
        Ok(elements) => put_elements(output, &elements, element(said).unwrap_or(oid::TEXT)),
        Err(_) => output.put_slice(text.as_bytes()),
    }
}

fn put_elements(output: &mut BytesMut, elements: &[Json], of: Oid) {
    output.put_u8(b'{');
    for (place, element) in elements.iter().enumerate() {
        if place > 0 {
            output.put_u8(b',');
        }
        match element {
            Json::Null => output.put_slice(b"NULL"),
            Json::Array(inner) => put_elements(output, inner, of),
            element => {
                let mut text = BytesMut::new();
                encode::text(&mut text, &value(element), of.into());
                put_quoted(output, &text);
            }
        }
    }
    output.put_u8(b'}');
}

/// In quotes where the text could be taken for something else.
fn put_quoted(output: &mut BytesMut, text: &[u8]) {
    let special =
        |byte: &u8| matches!(byte, b'{' | b'}' | b'"' | b',' | b'\\') || byte.is_ascii_whitespace();
    if !text.is_empty() && !text.eq_ignore_ascii_case(b"null") && !text.iter().any(special) {
        output.put_slice(text);
        return;
    }
    output.put_u8(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            output.put_u8(b'\\');
        }
        output.put_u8(*byte);
    }
    output.put_u8(b'"');
}

/// Appends a stored array in binary; `None` if it is none, or has several dimensions.
pub(crate) fn put_binary(output: &mut BytesMut, text: &str, said: Oid) -> Option<()> {
    let elements = elements(text, said)?;
    let of = element(said)?;
    let nulls = elements.iter().any(Json::is_null);
    output.put_i32(i32::from(!elements.is_empty() || is_vector(said)));
    output.put_i32(nulls.into());
    output.put_u32(of);
    if !elements.is_empty() || is_vector(said) {
        output.put_i32(i32::try_from(elements.len()).ok()?);
        // Where counting begins: the catalog's vectors are C arrays.
        output.put_i32(i32::from(!is_vector(said)));
    }
    for element in &elements {
        let value = match element {
            Json::Array(_) => return None,
            // Elements of PostgreSQL's own text are still text.
            Json::String(text) => parameter::from_text(text.as_bytes(), of).ok()?,
            element => value(element),
        };
        encode::field(output, &value, encode::Format { kind: of.into(), binary: true }).ok()?;
    }
    Some(())
}

/// An element as the value that it would be in a column.
fn value(element: &Json) -> Value {
    match element {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Integer((*truth).into()),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::real(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(_) | Json::Object(_) => Value::Text(element.to_string()),
    }
}

/// A value as an element.
fn json(value: Value, of: Oid) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) if of == oid::BOOL => Json::Bool(number != 0),
        Value::Integer(number) => number.into(),
        Value::Real(bits) => f64::from_bits(bits).into(),
        Value::Text(text) => Json::String(text),
        Value::Blob(bytes) => Json::String(format!("\\x{}", hex::encode(bytes))),
    }
}

/// An array parameter as a client wrote it, as the text of a JSON array.
pub(crate) fn from_text(text: &str, said: Oid) -> Result<Value, Refusal> {
    let malformed = || Refusal::new("22P02", format!("malformed array literal: {text:?}"));
    if text.starts_with('[') && serde_json::from_str::<Vec<Json>>(text).is_ok() {
        return Ok(Value::Text(text.to_owned()));
    }
    let of = element(said).unwrap_or(oid::TEXT);
    let read = read_text(text).ok_or_else(malformed)?;
    let elements = read.into_iter().map(|word| match word {
        None => Ok(Json::Null),
        Some(word) => Ok(json(parameter::from_text(word.as_bytes(), of)?, of)),
    });
    let elements: Vec<Json> = elements.collect::<Result<_, Refusal>>()?;
    Ok(Value::Text(Json::Array(elements).to_string()))
}

/// The elements of `{a,"b c",NULL}`.
fn read_text(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut rest = inner.trim();
    if rest.is_empty() {
        return Some(elements);
    }
    loop {
        let (word, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let (word, after) = read_quoted(quoted)?;
            (Some(word), after.trim_start())
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end)?;
            let word = word.trim();
            if word.is_empty() || word.contains(['{', '}', '"', '\\']) {
                return None;
            }
            ((!word.eq_ignore_ascii_case("null")).then(|| word.to_owned()), after)
        };
        elements.push(word);
        if after.is_empty() {
            return Some(elements);
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

/// Up to the closing quote, and what follows it.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((word, text.get(place + 1..)?)),
            '\\' => word.push(characters.next()?.1),
            _ => word.push(character),
        }
    }
    None
}

/// An array parameter in binary, as the text of a JSON array. Its own word on what is in it counts.
pub(crate) fn from_binary(bytes: &[u8]) -> Result<Value, Refusal> {
    let malformed = || Refusal::new("22P03", "an array that is not one in binary format");
    let mut rest = Rest(bytes);
    let (dimensions, _nulls, of) = rest.header().ok_or_else(malformed)?;
    let length = match dimensions {
        0 => 0,
        1 => {
            let (length, _first) = (rest.number(), rest.number());
            length.ok_or_else(malformed)?
        }
        _ => {
            return Err(Refusal::new(
                rota_core::error::sqlstate::FEATURE_NOT_SUPPORTED,
                "arrays of more than one dimension are not supported",
            ));
        }
    };
    let mut elements = Vec::new();
    for _ in 0..length {
        let width = rest.number().ok_or_else(malformed)?;
        if width < 0 {
            elements.push(Json::Null);
            continue;
        }
        let width = usize::try_from(width).map_err(|_| malformed())?;
        let (element, tail) = rest.0.split_at_checked(width).ok_or_else(malformed)?;
        rest.0 = tail;
        elements.push(json(parameter::from_binary(element, of)?, of));
    }
    if !rest.0.is_empty() || length < 0 {
        return Err(malformed());
    }
    Ok(Value::Text(Json::Array(elements).to_string()))
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self) -> Option<i32> {
        let (number, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(i32::from_be_bytes(*number))
    }

    fn header(&mut self) -> Option<(i32, i32, Oid)> {
        Some((self.number()?, self.number()?, self.number()?.cast_unsigned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_rest_as_json_and_are_sent_as_postgresql_writes_them() {
        for (said, sent, stored) in [
            (1007, "{1,NULL,-3}", "[1,null,-3]"),
            (1009, r#"{a,"b c","NULL","","q\"\\"}"#, r#"["a","b c","NULL","","q\"\\"]"#),
            (1000, "{t,f}", "[true,false]"),
            (1022, "{1.5,1e+20}", "[1.5,1e+20]"),
            (1185, "{\"2024-01-02 03:04:05+00\"}", "[\"2024-01-02 03:04:05\"]"),
            (1009, "{}", "[]"),
        ] {
            assert_eq!(from_text(sent, said), Ok(Value::Text(stored.into())), "{sent}");
            let mut text = BytesMut::new();
            put_text(&mut text, stored, said);
            assert_eq!(std::str::from_utf8(&text), Ok(sent));
            let mut binary = BytesMut::new();
            put_binary(&mut binary, stored, said).unwrap();
            assert_eq!(from_binary(&binary), Ok(Value::Text(stored.into())), "{sent}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in ["", "{", "{1", "{1,}", "{a b\"}", "{\"a}", "{\"a\"b}", "{{1},{2}}", "[1"] {
            assert_eq!(from_text(text, 1009).unwrap_err().code(), "22P02", "{text}");
        }
        for bytes in [
            &[][..],
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 127, 255, 255, 255, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 1],
        ] {
            assert_eq!(from_binary(bytes).unwrap_err().code(), "22P03", "{bytes:?}");
        }
        assert_eq!(from_text("{x}", 1007).unwrap_err().code(), "22P02");
    }

    #[test]
    fn the_vectors_of_the_catalog_have_blanks_between_them() {
        let mut text = BytesMut::new();
        put_text(&mut text, "1 2", INT2VECTOR);
        assert_eq!(&text[..], b"1 2");
        let mut binary = BytesMut::new();
        put_binary(&mut binary, "1 2", INT2VECTOR).unwrap();
        assert_eq!(from_binary(&binary), Ok(Value::Text("[1,2]".into())));
    }
}
