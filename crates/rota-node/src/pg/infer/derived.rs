//! The tables that a statement makes for itself, and the types of their columns. Steps 1 and 9.
//!
//! ```text
//!   WITH n(i) AS (SELECT 1 …)         n.i is int4, by its first SELECT
//!   FROM (SELECT count(*) AS x …) s   s.x is int8
//!   FROM (VALUES ('a', 1)) v          v.column1 is text
//! ```

use super::{Guess, Reader, Tables, closing, result_list, split_list, without_alias};
use crate::pg::encode::Oid;
use crate::pg::lexer::{Kind, Token};
use crate::pg::types;

/// The tables of WITH and of FROM's subqueries. `known`: the others, which they may be about.
pub(super) fn tables(
    words: &[Token<'_>],
    parameters: &[Oid],
    known: &Tables,
) -> Vec<(String, Vec<(String, String)>)> {
    let mut all = known.to_vec();
    for (place, token) in words.iter().enumerate() {
        if token.kind != Kind::Symbol('(') {
            continue;
        }
        let (before, rest) = (words.get(..place), words.get(place + 1..));
        let (before, rest) = (before.unwrap_or_default(), rest.unwrap_or_default());
        if !rest.first().is_some_and(|first| first.is("select") || first.is("values")) {
            continue;
        }
        let end = closing(rest);
        let named = with_name(before).or_else(|| from_name(before, rest.get(end + 1..)?));
        let Some((name, columns)) = named else { continue };
        let body = rest.get(..end).unwrap_or_default();
        let found = body_columns(body, &columns, &Reader { parameters, tables: Some(&all) });
        all.push((name, found));
    }
    all.split_off(known.len())
}

/// What stands before a table of WITH: `name [(columns)] AS [[NOT] MATERIALIZED]`.
fn with_name(before: &[Token<'_>]) -> Option<(String, Vec<String>)> {
    let before = match before {
        [rest @ .., not, word] if not.is("not") && word.is("materialized") => rest,
        [rest @ .., word] if word.is("materialized") => rest,
        _ => before,
    };
    let [before @ .., keyword] = before else { return None };
    if !keyword.is("as") {
        return None;
    }
    match before {
        [inside @ .., close] if close.text == ")" => {
            let open = inside.iter().rposition(|token| token.text == "(")?;
            let name = before.get(open.checked_sub(1)?)?.name()?;
            Some((name, names(inside.get(open + 1..)?)))
        }
        [.., name] => Some((name.name()?, Vec::new())),
        [] => None,
    }
}

/// What stands round a subquery of FROM: `FROM (…) [AS] name [(columns)]`.
fn from_name(before: &[Token<'_>], after: &[Token<'_>]) -> Option<(String, Vec<String>)> {
    if !before.last().is_some_and(|token| token.is("from") || token.is("join")) {
        return None;
    }
    let after = match after {
        [keyword, rest @ ..] if keyword.is("as") => rest,
        _ => after,
    };
    let columns = match after {
        [_, open, rest @ ..] if open.text == "(" => names(rest.get(..closing(rest))?),
        _ => Vec::new(),
    };
    Some((after.first()?.name()?, columns))
}

fn names(list: &[Token<'_>]) -> Vec<String> {
    list.iter().filter_map(Token::name).collect()
}

/// The columns that a SELECT or VALUES has, with the types that are known. `columns`: their names,
/// if they are said outside.
fn body_columns(
    body: &[Token<'_>],
    columns: &[String],
    reader: &Reader<'_>,
) -> Vec<(String, String)> {
    let list = match body {
        [first, open, rest @ ..] if first.is("values") && open.text == "(" => {
            rest.get(..closing(rest))
        }
        _ => result_list(body),
    };
    let items = split_list(list.unwrap_or_default());
    if items.iter().any(|item| item.last().is_some_and(|last| last.text == "*")) {
        return Vec::new();
    }
    let of = |(place, item): (usize, &&[Token<'_>])| {
        let name = columns.get(place).cloned().or_else(|| match item {
            _ if body.first()?.is("values") => Some(format!("column{}", place + 1)),
            [.., last] => last.name(),
            [] => None,
        })?;
        let declared = match reader.expression(without_alias(item), 0) {
            Guess::Known(kind) => types::name(kind.oid).to_owned(),
            _ => String::new(),
        };
        Some((name.to_lowercase(), declared))
    };
    items.iter().enumerate().filter_map(of).collect()
}
