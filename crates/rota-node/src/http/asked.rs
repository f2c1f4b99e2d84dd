//! What a request to rqlite's data API asks for (step 1 of a transaction's life): statements out
//! of JSON, and their values under SQLite's numbers.
//!
//! ```text
//!  ["SQL", ["SQL with ?", 1, "a"], ["SQL with :a", {"a": 1}], ["? and :b", 1, {"b": 2}]]
//! ```
//!
//! A string may hold several statements. Values that no statement takes are ignored, as rqlite's
//! own examples have some.

use std::collections::{BTreeMap, HashMap};

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};
use rota_store::sql::{Lexer, Token, split};
use serde_json::{Map, Value as Json};

/// SQLite's limit on the number of a parameter; what is beyond it, SQLite refuses.
const MOST_PARAMETERS: usize = 32_766;

/// How many statements one string may hold: each is prepared on its own, and a string of separators
/// would have millions. More go as elements of their own.
const MOST_STATEMENTS: usize = 1_000;

/// How many bytes of texts and blobs the statements of one string may take by name, all together:
/// a value is copied for every statement that names it.
const MOST_NAMED_BYTES: usize = super::MAX_BODY_BYTES;

/// What is wrong with an array that is empty.
pub(crate) const NO_STATEMENTS: &str = "no statements";

/// One element of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// One statement, several, or none.
    pub(crate) sql: String,
    values: Vec<Given>,
}

/// A value, with its name if it has one.
#[derive(Clone, Debug, PartialEq)]
struct Given {
    name: Option<String>,
    value: Value,
}

impl Asked {
    /// SQL without values.
    pub(crate) fn sql(sql: String) -> Self {
        Self { sql, values: Vec::new() }
    }

    /// Its statements, each with its own values.
    pub(crate) fn statements(self) -> Result<Vec<Statement>, Refusal> {
        let pieces = split(&self.sql);
        // What stands around a single statement stays: a column may be named by it.
        let pieces = if pieces.len() == 1 { vec![self.sql.as_str()] } else { pieces };
        if pieces.len() > MOST_STATEMENTS {
            return Err(too_many(pieces.len()));
        }
        let mut by_name = ByName::of(&self.values);
        let mut taken = 0;
        pieces
            .into_iter()
            .map(|piece| {
                let wanted = Wanted::of(piece);
                let own = self.values.get(taken..).unwrap_or_default();
                if own.len() < wanted.count {
                    return Err(too_few(wanted.count, own.len()));
                }
                taken = taken.saturating_add(wanted.count);
                let parameters = Parameters::Positional(wanted.fill(own, &mut by_name)?);
                Ok(Statement { sql: piece.to_owned(), parameters })
            })
            .collect()
    }
}

fn too_few(wanted: usize, got: usize) -> Refusal {
    let message = format!("not enough args to execute query: want {wanted} got {got}");
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, message)
}

fn too_many(got: usize) -> Refusal {
    let message = format!(
        "{got} statements in one string; it may hold {MOST_STATEMENTS}: send the others as strings \
         of their own"
    );
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

/// Named values, to be found without a walk over all that were given.
struct ByName<'a> {
    values: HashMap<&'a str, &'a Value>,
    /// How many bytes may be copied yet.
    room: usize,
}

impl<'a> ByName<'a> {
    /// Of two with one name, the later one counts.
    fn of(given: &'a [Given]) -> Self {
        let named = given.iter().filter_map(|given| Some((given.name.as_deref()?, &given.value)));
        Self { values: named.collect(), room: MOST_NAMED_BYTES }
    }

    fn take(&mut self, name: &str) -> Result<Option<Value>, Refusal> {
        let Some(&value) = self.values.get(name) else { return Ok(None) };
        let bytes = match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        };
        let Some(room) = self.room.checked_sub(bytes) else {
            let message = format!(
                "the statements of one string take more than {MOST_NAMED_BYTES} bytes of named \
                 values: send them as strings of their own"
            );
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
        };
        self.room = room;
        Ok(Some(value.clone()))
    }
}

/// The parameters of a statement.
struct Wanted<'a> {
    /// The highest number.
    count: usize,
    /// Names, without their prefix, and their numbers. `:a` and `@a` are two parameters.
    names: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Wanted<'a> {
    fn of(sql: &'a str) -> Self {
        let mut wanted = Self { count: 0, names: BTreeMap::new() };
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, token) in Lexer::new(sql) {
            let Token::Parameter(text) = token else { continue };
            let bare = text.get(1..).unwrap_or_default();
            let digits = bare.split_once("::").map_or(bare, |(number, _)| number);
            let number = match digits.parse() {
                // `$1` is PostgreSQL's way to say `?1`.
                Ok(number) if text.starts_with(['?', '$']) => number,
                _ if text == "?" => wanted.count.saturating_add(1),
                _ => {
                    let next = wanted.count.saturating_add(1);
                    *known.entry(text).or_insert_with(|| {
                        wanted.names.entry(bare).or_default().push(next);
                        next
                    })
                }
            };
            if number > MOST_PARAMETERS {
                return Self { count: 0, names: BTreeMap::new() };
            }
            wanted.count = wanted.count.max(number);
        }
        wanted
    }

    /// A value for every number: by place among `own`, by name among all.
    fn fill(&self, own: &[Given], all: &mut ByName<'_>) -> Result<Vec<Value>, Refusal> {
        let mut values = vec![Value::Null; self.count];
        for (slot, given) in values.iter_mut().zip(own) {
            if given.name.is_none() {
                *slot = given.value.clone();
            }
        }
        if all.values.is_empty() {
            return Ok(values);
        }
        for (name, numbers) in &self.names {
            for number in numbers {
                if let Some(slot) = number.checked_sub(1).and_then(|at| values.get_mut(at))
                    && let Some(value) = all.take(name)?
                {
                    *slot = value;
                }
            }
        }
        Ok(values)
    }
}

/// What a body asks for, or what is wrong with it, in rqlite's words.
pub(crate) fn read(body: &[u8]) -> Result<Vec<Asked>, &'static str> {
    let parsed: Json = serde_json::from_slice(body).map_err(|_| "invalid JSON body")?;
    let Json::Array(items) = parsed else { return Err("invalid request") };
    if items.is_empty() {
        return Err(NO_STATEMENTS);
    }
    items.into_iter().map(asked).collect()
}

fn asked(item: Json) -> Result<Asked, &'static str> {
    let items = match item {
        Json::String(sql) => return Ok(Asked::sql(sql)),
        Json::Array(items) => items,
        _ => return Err("invalid request"),
    };
    let mut items = items.into_iter();
    let Some(Json::String(sql)) = items.next() else { return Err("invalid request") };
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Json::Object(names) => named(names, &mut values)?,
            item => values.push(Given { name: None, value: value(item)? }),
        }
    }
    Ok(Asked { sql, values })
}

fn named(names: Map<String, Json>, values: &mut Vec<Given>) -> Result<(), &'static str> {
    for (name, json) in names {
        let bare = name.strip_prefix([':', '@', '$']).unwrap_or(&name).to_owned();
        values.push(Given { name: Some(bare), value: value(json)? });
    }
    Ok(())
}

fn value(json: Json) -> Result<Value, &'static str> {
    const UNSUPPORTED: &str = "unsupported type";
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Integer(truth.into()),
        Json::String(text) => blob_literal(&text).map_or(Value::Text(text), Value::Blob),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(real)) => Value::real(real),
            (None, None) => return Err(UNSUPPORTED),
        },
        Json::Array(bytes) => {
            let byte = |byte: &Json| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
            Value::Blob(bytes.iter().map(byte).collect::<Option<_>>().ok_or(UNSUPPORTED)?)
        }
        Json::Object(_) => return Err(UNSUPPORTED),
    })
}

/// The bytes of `x'00ff'`, which rqlite takes for a blob where a string is given.
fn blob_literal(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("x'").or_else(|| text.strip_prefix("X'"))?.strip_suffix('\'')?;
    hex::decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(body: &str) -> Vec<Vec<Value>> {
        let asked = read(body.as_bytes()).unwrap().remove(0);
        let statements = asked.statements().unwrap();
        let values = statements.into_iter().map(|statement| match statement.parameters {
            Parameters::Positional(values) => values,
            Parameters::Named(_) => unreachable!(),
        });
        values.collect()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn values_find_their_parameters() {
        let (one, two) = (Value::Integer(1), Value::Integer(2));
        let null = Value::Null;
        for (body, want) in [
            (r#"["SELECT 1"]"#, vec![]),
            (r#"[["a ?, ?", 1, "x"]]"#, vec![one.clone(), text("x")]),
            (r#"[["a ?2, ?1", 1, 2]]"#, vec![one.clone(), two.clone()]),
            (r#"[["a $2, $1::int", 1, 2]]"#, vec![one.clone(), two.clone()]),
            (r#"[["a :b, :a, :b", {"a": 1, "b": 2}]]"#, vec![two.clone(), one.clone()]),
            (r#"[["a :n, @n", {":n": 2, "m": 1}]]"#, vec![two.clone(), two.clone()]),
            (r#"[["a ?, :b", 1, {"b": 2}]]"#, vec![one.clone(), two.clone()]),
            (r#"[["a ?", {"k": 1}]]"#, vec![null.clone()]),
            (r#"[["SELECT * FROM foo", "fiona"]]"#, vec![]),
            (r#"[["SELECT '?', ? -- ?", 1]]"#, vec![one.clone()]),
            (r#"[["a ?", null]]"#, vec![null]),
            (r#"[["a ?", true]]"#, vec![one.clone()]),
            (r#"[["a ?", [0, 255]]]"#, vec![Value::Blob(vec![0, 255])]),
            (r#"[["a ?", "X'4142'"]]"#, vec![Value::Blob(b"AB".to_vec())]),
            (r#"[["a ?", "x'zz'"]]"#, vec![text("x'zz'")]),
            (r#"[["a ?", 1.0]]"#, vec![Value::real(1.0)]),
            (r#"[["a ?", 9223372036854775807]]"#, vec![Value::Integer(i64::MAX)]),
            (r#"[["a ?", 9223372036854775808]]"#, vec![Value::real(9_223_372_036_854_775_808.0)]),
            (r#"[["a ?99999999999", 1]]"#, vec![]),
        ] {
            assert_eq!(values(body), [want], "{body}");
        }
        let both =
            values(r#"[["INSERT INTO t VALUES(?); INSERT INTO t VALUES(?, :a)", 1, 2, {"a": 1}]]"#);
        assert_eq!(both, [vec![one.clone()], vec![two, one]]);
        let few = read(br#"[["SELECT ?, ?", 1]]"#).unwrap().remove(0).statements().unwrap_err();
        assert_eq!(few.message, "not enough args to execute query: want 2 got 1");
    }

    #[test]
    fn many_statements_and_many_values_cost_no_more_than_both() {
        let refused = |sql: String, values: Json| {
            let body =
                serde_json::to_vec(&Json::Array(vec![Json::Array(vec![sql.into(), values])]));
            let asked = read(&body.unwrap()).unwrap().remove(0);
            asked.statements().err().map(|refusal| refusal.message)
        };
        // Were all values walked for every statement, these would be a hundred million steps.
        let named = (0..100_000).map(|name| (format!("n{name}"), Json::from(name)));
        assert_eq!(refused("SELECT :n7;".repeat(MOST_STATEMENTS), named.collect()), None);
        let message = refused("SELECT 1;".repeat(MOST_STATEMENTS + 1), Json::from(1)).unwrap();
        assert!(message.starts_with("1001 statements in one string"), "{message}");
        let large = |sql: &str, count| {
            let text = "x".repeat(MOST_NAMED_BYTES / 2);
            let mut values = Map::from_iter([("a".to_owned(), Json::from(text))]);
            values.extend((0..count).map(|name| (name.to_string(), Json::Null)));
            refused(sql.repeat(count), values.into())
        };
        assert_eq!(large("SELECT :a, :a, :a;", 2), None);
        let message = large("SELECT :a;", 3).unwrap();
        assert!(message.contains("bytes of named values"), "{message}");
    }

    #[test]
    fn a_body_of_another_shape_is_refused_in_rqlite_s_words() {
        for (body, want) in [
            ("", "invalid JSON body"),
            ("nonsense", "invalid JSON body"),
            ("{}", "invalid request"),
            ("[]", "no statements"),
            ("[1]", "invalid request"),
            ("[[]]", "invalid request"),
            ("[[1]]", "invalid request"),
            ("[\"a\", {}]", "invalid request"),
            ("[[\"a\", [256]]]", "unsupported type"),
            ("[[\"a\", [[]]]]", "unsupported type"),
            ("[[\"a\", {\"x\": {}}]]", "unsupported type"),
        ] {
            assert_eq!(read(body.as_bytes()), Err(want), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(deep.as_bytes()).is_err(), "nesting is limited");
    }
}
