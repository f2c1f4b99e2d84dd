//! rqlite's JSON: statements in, results out.
//!
//! ```text
//!  in    ["SQL", ["SQL with ?", 1, "a"], ["SQL with :a", {"a": 1}]]
//!  out   {"columns": ["a"], "types": ["integer"], "values": [[1]]}       or, associative:
//!        {"types": {"a": "integer"}, "rows": [{"a": 1}]}
//! ```

use rota_core::transaction::{Parameters, Statement, Value};
use rota_store::Rows;
use serde_json::{Map, Number, Value as Json, json};

/// The statements of a request's body, or what is wrong with it.
pub(crate) fn statements(body: &[u8]) -> Result<Vec<Statement>, String> {
    let parsed: Json =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Json::Array(items) = parsed else {
        return Err("the body must be an array of statements: [\"SELECT 1\"]".into());
    };
    if items.is_empty() {
        return Err("the array of statements is empty".into());
    }
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(place, item)| statement(item).map_err(|why| format!("statement {place}: {why}")))
        .collect()
}

fn statement(item: Json) -> Result<Statement, String> {
    const SHAPE: &str = "must be \"SQL\", [\"SQL\", value, …] or [\"SQL\", {\"name\": value, …}]";
    let items = match item {
        Json::String(sql) => {
            return Ok(Statement { sql, parameters: Parameters::Positional(Vec::new()) });
        }
        Json::Array(items) => items,
        _ => return Err(SHAPE.into()),
    };
    let mut items = items.into_iter();
    let Some(Json::String(sql)) = items.next() else { return Err(SHAPE.into()) };
    let mut values: Vec<Json> = items.collect();
    let parameters = match values.as_mut_slice() {
        [Json::Object(names)] => named(std::mem::take(names))?,
        _ => Parameters::Positional(values.into_iter().map(value).collect::<Result<_, _>>()?),
    };
    Ok(Statement { sql, parameters })
}

/// Names without their prefix, sorted and unique, as they are signed.
fn named(names: Map<String, Json>) -> Result<Parameters, String> {
    let mut values = names
        .into_iter()
        .map(|(name, json)| {
            let bare = name.strip_prefix([':', '@', '$']).unwrap_or(&name).to_owned();
            Ok((bare, value(json)?))
        })
        .collect::<Result<Vec<_>, String>>()?;
    values.sort_by(|(one, _), (other, _)| one.cmp(other));
    values.dedup_by(|(one, _), (other, _)| one == other);
    Ok(Parameters::Named(values))
}

fn value(json: Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Integer(truth.into()),
        Json::String(text) => Value::Text(text),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(real)) => Value::real(real),
            (None, None) => return Err(format!("{number} is not a number that can be stored")),
        },
        Json::Array(bytes) => Value::Blob(
            bytes
                .iter()
                .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect::<Option<_>>()
                .ok_or("an array as a value must be bytes: numbers from 0 to 255")?,
        ),
        Json::Object(_) => {
            return Err("an object must be the only thing after the SQL: names and values".into());
        }
    })
}

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// Rows as objects.
    pub(crate) associative: bool,
    /// Bytes as arrays of numbers rather than base64.
    pub(crate) blob_array: bool,
}

/// A result with rows.
pub(crate) fn rows(rows: &Rows, shape: Shape) -> Map<String, Json> {
    let names = || rows.columns.iter().map(|column| column.name.clone());
    let types = rows.columns.iter().enumerate().map(|(place, column)| match &column.declared {
        Some(declared) => Json::from(declared.to_lowercase()),
        None => rows
            .rows
            .iter()
            .filter_map(|row| row.get(place))
            .find(|value| **value != Value::Null)
            .map_or(Json::from(""), |value| type_name(value).into()),
    });
    let cell = |value: &Value| cell(value, shape.blob_array);
    let mut result = Map::new();
    if shape.associative {
        result.insert("types".into(), Json::Object(names().zip(types).collect()));
        let objects =
            rows.rows.iter().map(|row| Json::Object(names().zip(row.iter().map(cell)).collect()));
        result.insert("rows".into(), objects.collect());
    } else {
        result.insert("columns".into(), names().collect());
        result.insert("types".into(), types.collect());
        // rqlite leaves it out where there are none.
        if !rows.rows.is_empty() {
            let values = rows.rows.iter().map(|row| row.iter().map(cell).collect::<Json>());
            result.insert("values".into(), values.collect());
        }
    }
    result
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "",
        Value::Integer(_) => "integer",
        Value::Real(_) => "real",
        Value::Text(_) => "text",
        Value::Blob(_) => "blob",
    }
}

fn cell(value: &Value, blob_array: bool) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!(number),
        // JSON has no infinity.
        Value::Real(bits) => {
            Number::from_f64(f64::from_bits(*bits)).map_or(Json::Null, Json::Number)
        }
        Value::Text(text) => Json::from(text.as_str()),
        Value::Blob(bytes) if blob_array => bytes.iter().copied().map(Json::from).collect(),
        Value::Blob(bytes) => base64(bytes).into(),
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |place: usize| group.get(place).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4usize {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = LETTERS.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_store::Column;

    #[test]
    fn statements_are_read_in_all_shapes() {
        let body = br#"["SELECT 1",
            ["a ?, ?", 1, null, 1.5, "x", true, [0, 255]], ["b :n", {":n": 2, "a": "y"}]]"#;
        let read = statements(body).unwrap();
        assert_eq!(read[0].parameters, Parameters::Positional(vec![]));
        let positional = vec![
            Value::Integer(1),
            Value::Null,
            Value::real(1.5),
            Value::Text("x".into()),
            Value::Integer(1),
            Value::Blob(vec![0, 255]),
        ];
        assert_eq!(read[1].parameters, Parameters::Positional(positional));
        let named = vec![("a".into(), Value::Text("y".into())), ("n".into(), Value::Integer(2))];
        assert_eq!(read[2].parameters, Parameters::Named(named));
    }

    #[test]
    fn a_body_of_another_shape_is_refused_with_a_reason() {
        for (body, part) in [
            ("", "not JSON"),
            ("{}", "must be an array"),
            ("[]", "empty"),
            ("[1]", "statement 0"),
            ("[\"a\", [1]]", "statement 1"),
            ("[[\"a\", {\"x\": {}}]]", "object"),
            ("[[\"a\", [256]]]", "bytes"),
            ("[[\"a\", 1, {}]]", "only thing"),
        ] {
            let why = statements(body.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{body}: {why}");
        }
        let deep = "[".repeat(100_000);
        assert!(statements(deep.as_bytes()).is_err(), "nesting is limited");
    }

    #[test]
    fn rows_are_shown_as_rqlite_shows_them() {
        let column = |name: &str, declared: Option<&str>| Column {
            name: name.into(),
            declared: declared.map(Into::into),
        };
        let some = Rows {
            columns: vec![column("id", Some("INTEGER")), column("b", None)],
            rows: vec![vec![Value::Integer(1), Value::Blob(b"hell".to_vec())]],
        };
        assert_eq!(
            Json::Object(rows(&some, Shape::default())),
            json!({"columns": ["id", "b"], "types": ["integer", "blob"],
                   "values": [[1, "aGVsbA=="]]})
        );
        let shape = Shape { associative: true, blob_array: true };
        assert_eq!(
            Json::Object(rows(&some, shape)),
            json!({"types": {"id": "integer", "b": "blob"},
                   "rows": [{"id": 1, "b": [104, 101, 108, 108]}]})
        );
    }

    #[test]
    fn base64_pads() {
        for (bytes, want) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
    }
}
