//! Binding a client's parameters to a prepared statement: steps 1 (reads) and 8 (writes), by the
//! same rule.
//!
//! PostgreSQL's drivers send `$1`, which SQLite takes for a parameter *named* `$1` and numbers in
//! the order in which it comes across the names. So the number is read from the name, not from
//! SQLite's index:
//!
//! ```text
//!   SELECT $2, ?, $1::int      SQLite's index   name        value
//!                                     1         $2          2nd
//!                                     2         (none)      2nd, its own index
//!                                     3         $1::int     1st (`::int` is part of the name)
//! ```

use std::collections::BTreeMap;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, Statement};

/// Which value a parameter of a statement takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// The value of this number; the first is 1. `?`, `?1`, `$1`.
    Number(usize),
    /// The value of this name, prefix taken off. `:name`, `@name`, `$name`.
    Name(&'a str),
}

impl<'a> Parameter<'a> {
    /// Reads SQLite's name for the parameter with this index (the first is 1).
    pub fn read(index: usize, name: Option<&'a str>) -> Self {
        let Some(name) = name else { return Self::Number(index) };
        let bare = name.get(1..).unwrap_or_default();
        let digits = bare.split_once("::").map_or(bare, |(number, _)| number);
        match digits.parse() {
            Ok(number) if name.starts_with(['?', '$']) => Self::Number(number),
            _ => Self::Name(bare),
        }
    }
}

/// How many positional values a statement asks for: the highest number in it. Named parameters
/// count by their index.
pub fn values_wanted(statement: &Statement<'_>) -> usize {
    parameters(statement)
        .map(|(index, parameter)| match parameter {
            Parameter::Number(number) => number,
            Parameter::Name(_) => index,
        })
        .max()
        .unwrap_or(0)
}

/// All parameters of a statement with SQLite's index of each.
pub fn parameters<'a>(
    statement: &'a Statement<'_>,
) -> impl Iterator<Item = (usize, Parameter<'a>)> + 'a {
    (1..=statement.parameter_count())
        .map(|index| (index, Parameter::read(index, statement.parameter_name(index))))
}

/// Binds all parameters of a statement. Refuses a missing value (08P01), too many positional ones
/// (a statement would otherwise silently ignore what the client meant it to use), and one longer
/// than SQLite's limit (54000).
///
/// Nothing stays bound from an earlier run, since each parameter is bound anew.
pub fn bind(statement: &mut Statement<'_>, parameters: &Parameters) -> Result<(), Refusal> {
    match parameters {
        Parameters::Positional(values) => bind_by_number(statement, values),
        Parameters::Named(values) => bind_by_name(statement, values),
    }
}

fn bind_by_number(statement: &mut Statement<'_>, values: &[Value]) -> Result<(), Refusal> {
    let wanted = values_wanted(statement);
    if wanted != values.len() {
        return Err(protocol(format!(
            "the statement takes {wanted} parameters, but {} were given",
            values.len()
        )));
    }
    for index in 1..=statement.parameter_count() {
        let number = match Parameter::read(index, statement.parameter_name(index)) {
            Parameter::Number(number) => number,
            Parameter::Name(_) => index,
        };
        let value = number.checked_sub(1).and_then(|position| values.get(position));
        let value = value.ok_or_else(|| protocol("parameters are counted from 1".into()))?;
        bind_one(statement, index, value)?;
    }
    Ok(())
}

fn bind_by_name(statement: &mut Statement<'_>, values: &[(String, Value)]) -> Result<(), Refusal> {
    let values: BTreeMap<&str, &Value> =
        values.iter().map(|(name, value)| (name.as_str(), value)).collect();
    for index in 1..=statement.parameter_count() {
        let Some(name) = statement.parameter_name(index) else {
            return Err(protocol("the statement has a `?`, but the values have names".into()));
        };
        let bare = name.get(1..).unwrap_or_default();
        let Some(value) = values.get(bare) else {
            return Err(protocol(format!("no value for the parameter {name}")));
        };
        bind_one(statement, index, value)?;
    }
    Ok(())
}

fn bind_one(statement: &mut Statement<'_>, index: usize, value: &Value) -> Result<(), Refusal> {
    statement.raw_bind_parameter(index, Bound(value)).map_err(|error| {
        match error.sqlite_error_code() {
            Some(ErrorCode::TooBig) => Refusal::new(
                sqlstate::TOO_COMPLEX,
                format!("the value of parameter {index} is too long"),
            ),
            _ => Refusal::new(sqlstate::INTERNAL, format!("binding parameter {index}: {error}")),
        }
    })
}

fn protocol(message: String) -> Refusal {
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, message)
}

/// A value of ours as `rusqlite` wants it, without a copy.
pub struct Bound<'a>(pub &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    fn run(sql: &str, parameters: &Parameters) -> Result<Vec<Option<i64>>, String> {
        let connection = Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        bind(&mut statement, parameters).map_err(|refusal| refusal.code().to_owned())?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let row = rows.next().unwrap().unwrap();
        Ok((0..columns).map(|column| row.get(column).unwrap()).collect())
    }

    fn numbers(values: &[i64]) -> Parameters {
        Parameters::Positional(values.iter().map(|&value| Value::Integer(value)).collect())
    }

    #[test]
    fn a_parameter_takes_the_value_of_its_number_not_of_its_first_mention() {
        for (sql, values, want) in [
            ("SELECT $2, $1", &[10, 20][..], &[20, 10][..]),
            ("SELECT ?2, ?1", &[10, 20], &[20, 10]),
            ("SELECT ?, ?", &[10, 20], &[10, 20]),
            ("SELECT $1, $2, $1", &[10, 20], &[10, 20, 10]),
            ("SELECT $2::int, $1::bigint, $2", &[10, 20], &[20, 10, 20]),
            ("SELECT $2", &[10, 20], &[20]),
            ("SELECT $11 + $2", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], &[13]),
            ("SELECT :b, :a", &[10, 20], &[10, 20]),
        ] {
            let got: Vec<i64> = run(sql, &numbers(values)).unwrap().into_iter().flatten().collect();
            assert_eq!(got, want, "{sql}");
        }
    }

    #[test]
    fn names_are_found_whatever_their_prefix_and_order() {
        let named = Parameters::Named(vec![
            ("a".into(), Value::Integer(1)),
            ("b".into(), Value::Integer(2)),
        ]);
        assert_eq!(run("SELECT $b, :a, @b", &named), Ok(vec![Some(2), Some(1), Some(2)]));
        assert_eq!(run("SELECT :c", &named), Err("08P01".into()));
        assert_eq!(run("SELECT ?", &named), Err("08P01".into()));
    }

    #[test]
    fn a_wrong_number_of_values_is_refused() {
        for (sql, values) in [
            ("SELECT $1", &[][..]),
            ("SELECT 1", &[1]),
            ("SELECT $3", &[1, 2]),
            ("SELECT $0", &[]),
            ("SELECT $99999999999999999999", &[]),
        ] {
            assert_eq!(run(sql, &numbers(values)), Err("08P01".into()), "{sql}");
        }
    }

    #[test]
    fn values_arrive_as_what_they_are() {
        let connection = Connection::open_in_memory().unwrap();
        for (value, want) in [
            (Value::Null, "null"),
            (Value::Integer(1), "integer"),
            (Value::real(1.0), "real"),
            (Value::Real(f64::NAN.to_bits()), "null"),
            (Value::Text(String::new()), "text"),
            (Value::Blob(Vec::new()), "blob"),
        ] {
            let mut statement = connection.prepare("SELECT typeof($1)").unwrap();
            bind(&mut statement, &Parameters::Positional(vec![value])).unwrap();
            let kind: String = statement.raw_query().next().unwrap().unwrap().get(0).unwrap();
            assert_eq!(kind, want);
        }
    }
}
