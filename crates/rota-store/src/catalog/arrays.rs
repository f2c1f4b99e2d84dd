//! Arrays in the catalog's functions (step 1): the text of a JSON array, as all arrays rest in the
//! database, or PostgreSQL's own `{a,b}`. One dimension.

use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::Value;

use super::functions::{ANY, FLAGS, integer, text};

/// An element; NULL has none.
type Element = Option<String>;

pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    connection.create_scalar_function("array_to_string", ANY, FLAGS, |call| {
        let (Some(elements), Some(between)) = (array(call), text(call, 1)) else {
            return Ok(None);
        };
        let null = text(call, 2);
        let shown = elements.into_iter().filter_map(|element| element.or_else(|| null.clone()));
        Ok(Some(shown.collect::<Vec<_>>().join(&between)))
    })?;
    for name in ["array_upper", "array_length"] {
        connection.create_scalar_function(name, 2, FLAGS, |call| {
            let count = array(call).map(|elements| elements.len());
            let count = count.filter(|&count| count > 0 && integer(call, 1) == Some(1));
            Ok(count.and_then(|count| i64::try_from(count).ok()))
        })?;
    }
    connection.create_scalar_function("array_lower", 2, FLAGS, |call| {
        let filled = array(call).is_some_and(|elements| !elements.is_empty());
        Ok((filled && integer(call, 1) == Some(1)).then_some(1))
    })?;
    connection.create_scalar_function("array_position", ANY, FLAGS, |call| {
        let wanted = plain(call, 1);
        let place = array(call).and_then(|all| all.iter().position(|found| *found == wanted));
        Ok(place.and_then(|place| i64::try_from(place).ok()).map(|place| place.saturating_add(1)))
    })?;
    connection.create_scalar_function("array_remove", 2, FLAGS, |call| {
        let unwanted = plain(call, 1);
        let kept = array(call).map(|all| all.into_iter().filter(|found| *found != unwanted));
        Ok(kept.map(|kept| json(&kept.collect::<Vec<_>>())))
    })
}

fn array(call: &Context<'_>) -> Option<Vec<Element>> {
    parse(&text(call, 0)?)
}

/// An argument as an element.
fn plain(call: &Context<'_>, place: usize) -> Element {
    match call.get::<Value>(place).ok()? {
        Value::Null | Value::Blob(_) => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Real(number) => Some(number.to_string()),
        Value::Text(text) => Some(text),
    }
}

/// The elements of an array's text.
fn parse(text: &str) -> Option<Vec<Element>> {
    let text = text.trim();
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .or_else(|| text.strip_prefix('{')?.strip_suffix('}'))?;
    let mut elements = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let (mut element, mut quoted, mut inside) = (String::new(), false, false);
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.next()? {
                    'n' => element.push('\n'),
                    't' => element.push('\t'),
                    'r' => element.push('\r'),
                    'u' => {
                        let code: String = characters.by_ref().take(4).collect();
                        element
                            .extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
                    }
                    other => element.push(other),
                },
                '"' => {
                    inside = !inside;
                    quoted = true;
                }
                ',' if !inside => break,
                other => element.push(other),
            }
        }
        let is_null = !quoted && element.trim().eq_ignore_ascii_case("null");
        elements.push((!is_null).then_some(element));
    }
    Some(elements)
}

/// As arrays rest in the database.
fn json(elements: &[Element]) -> String {
    let shown: Vec<String> = elements
        .iter()
        .map(|element| match element {
            None => "null".into(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        })
        .collect();
    format!("[{}]", shown.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_array_have_the_same_elements() {
        let want = vec![Some("a b".into()), None, Some("c\"d".into()), Some("7".into())];
        for text in [r#"["a b",null,"c\"d",7]"#, r#"{"a b",NULL,"c\"d",7}"#] {
            assert_eq!(parse(text), Some(want.clone()), "{text}");
        }
        assert_eq!(parse("[]"), Some(Vec::new()));
        assert_eq!(parse("a,b"), None);
    }
}
