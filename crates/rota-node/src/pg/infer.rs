//! Types of what has no declared type: an expression's by its words, a parameter's by what SQLite
//! says of it. Used when a driver asks about a statement before it runs it (asyncpg, JDBC); with
//! rows at hand their values decide.

use rota_store::query::Description;

use super::encode::{Oid, declared_type, oid};
use super::lexer::{Kind, Token, tokens};

/// What the words of a result column tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// Its type, whatever the rows.
    Known(Oid),
    /// A number, integer or real.
    Number,
    /// Nothing.
    Open,
}

impl Guess {
    pub(crate) fn known(self) -> Option<Oid> {
        match self {
            Self::Known(oid) => Some(oid),
            _ => None,
        }
    }

    /// The type to announce when looking did not help. A numeric takes every number.
    pub(crate) fn otherwise(self) -> Oid {
        match self {
            Self::Known(oid) => oid,
            Self::Number => oid::NUMERIC,
            Self::Open => oid::TEXT,
        }
    }
}

/// The type to announce for the parameter at a place that nobody gave a type.
pub(crate) fn parameter(description: &Description, place: usize) -> Oid {
    let inferred = description.parameters.get(place).and_then(|found| found.declared.as_deref());
    inferred.map_or(oid::TEXT, |declared| declared_type(declared).oid)
}

/// A guess for each of a statement's `count` result columns.
pub(crate) fn columns(sql: &str, count: usize) -> Vec<Guess> {
    let all = tokens(sql);
    let words: Vec<Token<'_>> = all.into_iter().filter(|t| t.kind != Kind::Space).collect();
    let list = result_list(&words).unwrap_or_default();
    let items = split_list(list);
    // A `*` stands for several columns, which all have declared types or none that words could
    // tell.
    if items.len() == count {
        items.iter().map(|item| expression(item)).collect()
    } else {
        vec![Guess::Open; count]
    }
}

/// The tokens of the select list or of RETURNING.
fn result_list<'t, 'a>(words: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let outside = outside_parentheses(words);
    let start = outside
        .iter()
        .rev()
        .find(|(_, token)| token.is("returning"))
        .or_else(|| outside.iter().find(|(_, token)| token.is("select")))?
        .0;
    const ENDS: [&str; 10] = [
        "from",
        "where",
        "group",
        "order",
        "limit",
        "union",
        "intersect",
        "except",
        "having",
        "window",
    ];
    let end = outside
        .iter()
        .find(|(place, token)| *place > start && ENDS.iter().any(|end| token.is(end)))
        .map_or(words.len(), |(place, _)| *place);
    let list = words.get(start + 1..end)?;
    match list {
        [first, rest @ ..] if first.is("distinct") || first.is("all") => Some(rest),
        _ => Some(list),
    }
}

/// Tokens at depth zero with their places; the parentheses themselves are inside.
fn outside_parentheses<'t, 'a>(words: &'t [Token<'a>]) -> Vec<(usize, &'t Token<'a>)> {
    let mut depth = 0usize;
    words
        .iter()
        .enumerate()
        .filter(|(_, token)| match token.kind {
            Kind::Symbol('(') => {
                depth += 1;
                false
            }
            Kind::Symbol(')') => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
        .collect()
}

fn split_list<'t, 'a>(list: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let commas: Vec<usize> = outside_parentheses(list)
        .into_iter()
        .filter(|(_, token)| matches!(token.kind, Kind::Symbol(',' | ';')))
        .map(|(place, _)| place)
        .collect();
    let starts = std::iter::once(0).chain(commas.iter().map(|place| place + 1));
    let ends = commas.iter().copied().chain([list.len()]);
    let items = starts.zip(ends).filter_map(|(start, end)| list.get(start..end));
    items.filter(|item| !item.is_empty()).collect()
}

fn expression(item: &[Token<'_>]) -> Guess {
    let item = without_alias(item);
    let outside = outside_parentheses(item);
    let symbol = |wanted: &[char]| {
        outside
            .iter()
            .any(|(_, token)| matches!(token.kind, Kind::Symbol(c) if wanted.contains(&c)))
    };
    let word =
        |wanted: &[&str]| outside.iter().any(|(_, token)| wanted.iter().any(|word| token.is(word)));
    if word(&["case"]) {
        return Guess::Open;
    }
    if symbol(&['=', '<', '>', '!'])
        || word(&["is", "and", "or", "not", "like", "in", "between", "exists", "glob"])
    {
        return Guess::Known(oid::INT8);
    }
    if symbol(&['|']) {
        return Guess::Known(oid::TEXT);
    }
    match item {
        [one] => literal(one),
        [minus, number] if minus.kind == Kind::Symbol('-') => literal(number),
        [function, open, inside @ .., close]
            if function.kind == Kind::Word && open.text == "(" && close.text == ")" =>
        {
            // `f(a) + g(b)` has more outside than the name.
            if outside.len() == 1 { call(function, inside) } else { arithmetic(&outside) }
        }
        _ => arithmetic(&outside),
    }
}

fn arithmetic(outside: &[(usize, &Token<'_>)]) -> Guess {
    let operators = ['+', '-', '*', '/', '%'];
    let found = outside
        .iter()
        .any(|(_, token)| matches!(token.kind, Kind::Symbol(c) if operators.contains(&c)));
    if found { Guess::Number } else { Guess::Open }
}

fn without_alias<'t, 'a>(item: &'t [Token<'a>]) -> &'t [Token<'a>] {
    match item {
        [inner @ .., keyword, _] if keyword.is("as") => inner,
        [inner @ .., before, alias]
            if matches!(alias.kind, Kind::Word | Kind::Quoted)
                && (before.text == ")" || is_operand(before))
                && !alias.is("end") =>
        {
            item.get(..inner.len() + 1).unwrap_or(item)
        }
        _ => item,
    }
}

fn is_operand(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Number | Kind::Text | Kind::Quoted | Kind::Question(_))
}

fn literal(token: &Token<'_>) -> Guess {
    match token.kind {
        Kind::Number if token.text.contains(['.']) => Guess::Known(oid::FLOAT8),
        Kind::Number => Guess::Known(oid::INT8),
        Kind::Text => Guess::Known(oid::TEXT),
        Kind::Blob => Guess::Known(oid::BYTEA),
        _ if token.is("true") || token.is("false") => Guess::Known(oid::INT8),
        _ if token.is("current_timestamp") || token.is("current_date") => Guess::Known(oid::TEXT),
        _ => Guess::Open,
    }
}

fn call(function: &Token<'_>, inside: &[Token<'_>]) -> Guess {
    match function.text.to_ascii_lowercase().as_str() {
        "count" | "length" | "octet_length" | "instr" | "unicode" | "sign" | "rank"
        | "dense_rank" | "row_number" | "ntile" | "changes" | "last_insert_rowid" | "random"
        | "unixepoch" | "json_array_length" | "char_length" => Guess::Known(oid::INT8),
        "total" | "avg" | "julianday" | "sqrt" => Guess::Known(oid::FLOAT8),
        "lower" | "upper" | "trim" | "ltrim" | "rtrim" | "substr" | "substring" | "replace"
        | "hex" | "quote" | "printf" | "format" | "typeof" | "group_concat" | "string_agg"
        | "date" | "time" | "datetime" | "strftime" | "now" | "version" | "current_database"
        | "current_schema" | "concat" | "concat_ws" | "char" | "rota_transaction" | "json"
        | "json_object" | "json_array" | "json_group_array" | "json_group_object" => {
            Guess::Known(oid::TEXT)
        }
        "randomblob" | "zeroblob" | "unhex" => Guess::Known(oid::BYTEA),
        "cast" => cast(inside),
        "sum" | "abs" | "round" | "floor" | "ceil" | "ceiling" | "mod" => Guess::Number,
        _ => Guess::Open,
    }
}

/// `CAST(… AS type)`.
fn cast(inside: &[Token<'_>]) -> Guess {
    let outside = outside_parentheses(inside);
    let Some((place, _)) = outside.iter().rfind(|(_, token)| token.is("as")) else {
        return Guess::Open;
    };
    let words = inside.get(place + 1..).unwrap_or_default();
    let names: Vec<&str> = words.iter().map(|token| token.text).collect();
    let name = names.join(" ");
    Guess::Known(declared_type(&name).oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_the_types_of_expressions() {
        let known = Guess::Known;
        for (sql, want) in [
            (
                "SELECT 1, 1.5, 'a', x'00' FROM t",
                vec![known(oid::INT8), known(oid::FLOAT8), known(oid::TEXT), known(oid::BYTEA)],
            ),
            (
                "SELECT count(*) AS n, avg(a) m, max(a) FROM t",
                vec![known(oid::INT8), known(oid::FLOAT8), Guess::Open],
            ),
            (
                "SELECT a || 'x', a = 1, a + 1, sum(a) + 1 FROM t",
                vec![known(oid::TEXT), known(oid::INT8), Guess::Number, Guess::Number],
            ),
            (
                "SELECT CAST(?1 AS INTEGER), CAST(f(a, b) AS TEXT) x",
                vec![known(oid::INT8), known(oid::TEXT)],
            ),
            ("WITH x AS (SELECT 'a') SELECT DISTINCT count(*) FROM x", vec![known(oid::INT8)]),
            ("INSERT INTO t SELECT 'a' RETURNING length(a)", vec![known(oid::INT8)]),
            ("SELECT CASE WHEN a = 1 THEN 'x' ELSE 2 END", vec![Guess::Open]),
            ("SELECT *, 1 FROM t", vec![Guess::Open, Guess::Open, Guess::Open]),
            ("SELECT (SELECT 1 FROM u), sum(a)", vec![Guess::Open, Guess::Number]),
            ("VALUES (1)", vec![Guess::Open]),
        ] {
            assert_eq!(columns(sql, want.len()), want, "{sql}");
        }
    }
}
