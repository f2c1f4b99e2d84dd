//! Types of what has no declared type: an expression's by its words and by the columns in it, a
//! parameter's by what it meets. Steps 1 and 9.
//!
//! ```text
//!   count(*)                 int8                  by the name of the function
//!   max(price)               numeric(10,2)         price's own
//!   sum(n), n + 1            int8, int4            by PostgreSQL's rules, from n's
//!   a = 1, EXISTS (…)        bool
//!   f(x)                     —                     the first value tells
//! ```
//!
//! Only where words are enough is the schema not asked ([`Guess::Asks`] says where they are not).

use rota_store::query::Description;

use super::encode::{Oid, Type, declared_type, oid};
use super::lexer::{Kind, Token, tokens};
use super::types::array;

mod derived;
mod words;

/// How deep expressions are looked into: SQLite's own limit is higher, and nobody's are.
const MAX_DEPTH: usize = 32;

/// What the words of a result column tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// Its type, whatever the rows.
    Known(Type),
    /// A number, integer or real.
    Number,
    /// Nothing, unless somebody says of what type a column is.
    Asks,
    /// Nothing.
    Open,
}

impl Guess {
    pub(crate) fn known(self) -> Option<Type> {
        match self {
            Self::Known(kind) => Some(kind),
            _ => None,
        }
    }

    /// The type to announce when looking did not help. A numeric takes every number.
    pub(crate) fn otherwise(self) -> Oid {
        match self {
            Self::Known(kind) => kind.oid,
            Self::Number => oid::NUMERIC,
            Self::Asks | Self::Open => oid::TEXT,
        }
    }
}

fn known(oid: Oid) -> Guess {
    Guess::Known(oid.into())
}

/// The type to announce for the parameter at a place that nobody gave a type.
pub(crate) fn parameter(description: &Description, place: usize) -> Oid {
    let inferred = description.parameters.get(place).and_then(|found| found.declared.as_deref());
    inferred.map_or(oid::TEXT, |declared| declared_type(declared).oid)
}

/// A guess for each of a statement's `count` result columns. `parameters`: their types, 0 where
/// nobody said. `tables`: what the statement is about, if the schema has been asked.
pub(crate) fn columns(
    sql: &str,
    count: usize,
    parameters: &[Oid],
    tables: Option<&Tables>,
) -> Vec<Guess> {
    let all = tokens(sql);
    let words: Vec<Token<'_>> = all.into_iter().filter(|t| t.kind != Kind::Space).collect();
    let list = result_list(&words).unwrap_or_default();
    let items = split_list(list);
    let tables = tables.map(|tables| {
        let derived = derived::tables(&words, parameters, tables);
        [tables, derived.as_slice()].concat()
    });
    let reader = Reader { parameters, tables: tables.as_deref() };
    // A `*` stands for several columns, which all have declared types or none that words could
    // tell.
    if items.len() == count {
        items.iter().map(|item| reader.expression(without_alias(item), 0)).collect()
    } else {
        vec![Guess::Open; count]
    }
}

/// Tables' names, as they are and as their aliases, with their columns and the types of those.
pub(crate) type Tables = [(String, Vec<(String, String)>)];

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
    split(list, |token| matches!(token.kind, Kind::Symbol(',' | ';')))
}

/// What stands between the separators that are in no parentheses.
fn split<'t, 'a>(
    list: &'t [Token<'a>],
    separates: impl Fn(&Token<'_>) -> bool,
) -> Vec<&'t [Token<'a>]> {
    let commas: Vec<usize> = outside_parentheses(list)
        .into_iter()
        .filter(|(_, token)| separates(token))
        .map(|(place, _)| place)
        .collect();
    let starts = std::iter::once(0).chain(commas.iter().map(|place| place + 1));
    let ends = commas.iter().copied().chain([list.len()]);
    let items = starts.zip(ends).filter_map(|(start, end)| list.get(start..end));
    items.filter(|item| !item.is_empty()).collect()
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
        || (token.kind == Kind::Word && !words::is_operator(token))
}

/// Reads expressions.
struct Reader<'s> {
    parameters: &'s [Oid],
    tables: Option<&'s Tables>,
}

impl Reader<'_> {
    fn expression(&self, item: &[Token<'_>], depth: usize) -> Guess {
        if depth > MAX_DEPTH {
            return Guess::Open;
        }
        match item {
            [first, ..] if first.is("case") => return self.case(item, depth),
            [first, inside @ .., last]
                if first.text == "(" && last.text == ")" && closes_at_end(item) =>
            {
                return self.group(inside, depth);
            }
            _ => {}
        }
        let outside = outside_parentheses(item);
        if let Some(arrow) = arrow(&outside) {
            // What is taken out of a jsonb is one again.
            let of = item.get(..1).map(|first| self.expression(first, depth + 1));
            let binary = of.and_then(Guess::known).is_some_and(|kind| kind == oid::JSONB);
            return if binary && arrow == known(oid::JSON) { known(oid::JSONB) } else { arrow };
        }
        let symbol = |wanted: &[char]| {
            outside
                .iter()
                .any(|(_, token)| matches!(token.kind, Kind::Symbol(c) if wanted.contains(&c)))
        };
        if symbol(&['=', '<', '>', '!']) || outside.iter().any(|(_, t)| words::is_condition(t)) {
            return known(oid::BOOL);
        }
        if symbol(&['|']) {
            return known(oid::TEXT);
        }
        if let Some(found) = self.arithmetic(item, depth) {
            return found;
        }
        match item {
            [one] => self.word(one),
            [table, dot, column] if dot.text == "." => self.column(table.name(), column),
            [_, dot, table, again, column] if dot.text == "." && again.text == "." => {
                self.column(table.name(), column)
            }
            [function, open, rest @ ..] if function.kind == Kind::Word && open.text == "(" => {
                // What follows is FILTER or OVER, which change nothing.
                let end = closing(rest);
                self.call(function, rest.get(..end).unwrap_or_default(), depth)
            }
            [operand, collate, _] if collate.is("collate") => self.word(operand),
            _ => Guess::Open,
        }
    }

    /// `(expression)`, or `(SELECT expression FROM …)`.
    fn group(&self, inside: &[Token<'_>], depth: usize) -> Guess {
        if !inside.first().is_some_and(|first| first.is("select")) {
            return self.expression(inside, depth + 1);
        }
        let list = result_list(inside).unwrap_or_default();
        match split_list(list).as_slice() {
            [one] => self.expression(without_alias(one), depth + 1),
            _ => Guess::Open,
        }
    }

    /// The first branch whose type is known.
    fn case(&self, item: &[Token<'_>], depth: usize) -> Guess {
        let mut nested = 0_usize;
        let mut start = None;
        let mut found = Guess::Open;
        for (place, token) in outside_parentheses(item) {
            let is_branch = token.is("then") || token.is("else");
            let ends = token.is("when") || token.is("else") || token.is("end");
            if nested == 1
                && ends
                && let Some(branch) = start.take().and_then(|start| item.get(start..place))
            {
                found = either(found, self.expression(branch, depth + 1));
            }
            if token.is("case") {
                nested += 1;
            } else if token.is("end") {
                nested = nested.saturating_sub(1);
            } else if nested == 1 && is_branch {
                start = Some(place + 1);
            }
        }
        let whole = item.last().is_some_and(|last| last.is("end"));
        if whole { found } else { Guess::Open }
    }

    /// `a + b`, `-a`; nothing if there is no such operator.
    fn arithmetic(&self, item: &[Token<'_>], depth: usize) -> Option<Guess> {
        let is_operator =
            |token: &Token<'_>| matches!(token.kind, Kind::Symbol('+' | '-' | '*' | '/' | '%'));
        if !outside_parentheses(item).iter().any(|(_, token)| is_operator(token)) {
            return None;
        }
        let operands = split(item, is_operator);
        let types: Vec<Guess> =
            operands.iter().map(|operand| self.expression(operand, depth + 1)).collect();
        let found = types.iter().copied().reduce(words::promoted)?;
        Some(match found {
            // As many decimals as a factor has a product need not have.
            Guess::Known(kind) if kind == oid::NUMERIC && multiplies(item) => known(oid::NUMERIC),
            Guess::Known(kind) if words::is_number(kind.oid) => found,
            Guess::Asks if self.tables.is_none() => Guess::Asks,
            _ => Guess::Number,
        })
    }

    fn word(&self, token: &Token<'_>) -> Guess {
        match token.kind {
            Kind::Word | Kind::Quoted => match words::constant(token) {
                Some(oid) => known(oid),
                None => self.column(None, token),
            },
            Kind::Number => words::number(token.text),
            Kind::Text => known(oid::TEXT),
            Kind::Blob => known(oid::BYTEA),
            Kind::Question(Some(number)) => {
                let said = number.checked_sub(1).and_then(|place| self.parameters.get(place));
                match said {
                    Some(&said) if said != oid::UNSPECIFIED && said != oid::UNKNOWN => known(said),
                    _ => Guess::Open,
                }
            }
            _ => Guess::Open,
        }
    }

    fn column(&self, table: Option<String>, column: &Token<'_>) -> Guess {
        let Some(tables) = self.tables else { return Guess::Asks };
        let Some(column) = column.name().map(|name| name.to_lowercase()) else {
            return Guess::Open;
        };
        let table = table.map(|table| table.to_lowercase());
        let meant = tables.iter().filter(|(name, _)| table.as_ref().is_none_or(|t| t == name));
        let mut declared =
            meant.flat_map(|(_, columns)| columns).filter(|(name, _)| *name == column);
        match declared.next() {
            Some((_, declared)) if !declared.is_empty() => Guess::Known(declared_type(declared)),
            _ => Guess::Open,
        }
    }

    fn call(&self, function: &Token<'_>, inside: &[Token<'_>], depth: usize) -> Guess {
        let name = function.text.to_ascii_lowercase();
        if name == "cast" {
            return cast(inside);
        }
        if let Some(oid) = words::result(&name) {
            return known(oid);
        }
        let arguments = split_list(inside);
        let argument = |place: usize| match arguments.get(place) {
            Some(argument) => {
                let bare = argument.split_first().filter(|(first, _)| first.is("distinct"));
                self.expression(bare.map_or(argument, |(_, rest)| rest), depth + 1)
            }
            None => Guess::Open,
        };
        match name.as_str() {
            "min" | "max" | "coalesce" | "ifnull" | "nullif" | "greatest" | "least" | "lag"
            | "lead" | "first_value" | "last_value" | "nth_value" | "abs" | "likely"
            | "unlikely" => {
                let single = matches!(name.as_str(), "lag" | "lead" | "nth_value" | "nullif");
                let count = if single { 1 } else { arguments.len() };
                (0..count).map(argument).reduce(either).unwrap_or(Guess::Open)
            }
            "iif" | "if" => either(argument(1), argument(2)),
            "sum" => words::sum(argument(0)),
            "avg" => words::average(argument(0)),
            "mod" | "div" => words::promoted(argument(0), argument(1)),
            "round" | "floor" | "ceil" | "ceiling" | "trunc" => words::rounded(argument(0)),
            "date_trunc" => words::moment(argument(1)),
            "date_add" | "date_subtract" => words::moment(argument(0)),
            "array_agg" => match argument(0) {
                Guess::Known(kind) => array::of(kind.oid).map_or(Guess::Open, known),
                other => other,
            },
            _ => Guess::Open,
        }
    }
}

fn multiplies(item: &[Token<'_>]) -> bool {
    let outside = outside_parentheses(item);
    outside.iter().any(|(_, token)| matches!(token.kind, Kind::Symbol('*' | '/')))
}

/// The first of two guesses that says something.
fn either(one: Guess, other: Guess) -> Guess {
    match (one, other) {
        (Guess::Known(a), Guess::Known(b))
            if words::is_number(a.oid) && words::is_number(b.oid) =>
        {
            words::promoted(one, other)
        }
        (Guess::Open, other) => other,
        (Guess::Asks, Guess::Known(_)) => Guess::Asks,
        (one, _) => one,
    }
}

/// `a -> 'x'` is JSON, `a ->> 'x'` text.
fn arrow(outside: &[(usize, &Token<'_>)]) -> Option<Guess> {
    let is = |place: usize, c: char| {
        outside.get(place).is_some_and(|(_, token)| token.kind == Kind::Symbol(c))
    };
    let together = |place: usize| match (outside.get(place), outside.get(place + 1)) {
        (Some((one, _)), Some((other, _))) => one + 1 == *other,
        _ => false,
    };
    let arrow = |place: &usize| is(*place, '-') && is(*place + 1, '>') && together(*place);
    let last = (0..outside.len()).rev().find(arrow)?;
    let compares = outside.iter().enumerate().any(|(place, (_, token))| match token.kind {
        Kind::Symbol('=' | '<' | '!') => true,
        Kind::Symbol('>') => {
            let of_arrow = (1..=2).any(|back| place.checked_sub(back).is_some_and(|at| arrow(&at)));
            !of_arrow
        }
        _ => words::is_condition(token),
    });
    if compares {
        return Some(known(oid::BOOL));
    }
    Some(known(if is(last + 2, '>') && together(last + 1) { oid::TEXT } else { oid::JSON }))
}

/// Whether the parenthesis that comes first is closed by the one that comes last.
fn closes_at_end(item: &[Token<'_>]) -> bool {
    let rest = item.get(1..).unwrap_or_default();
    closing(rest) + 1 == rest.len()
}

/// Where a parenthesis that is open closes.
fn closing(rest: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (place, token) in rest.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" if depth == 0 => return place,
            ")" => depth -= 1,
            _ => {}
        }
    }
    rest.len()
}

/// `CAST(… AS type)`.
fn cast(inside: &[Token<'_>]) -> Guess {
    let outside = outside_parentheses(inside);
    let Some((place, _)) = outside.iter().rfind(|(_, token)| token.is("as")) else {
        return Guess::Open;
    };
    let words = inside.get(place + 1..).unwrap_or_default();
    let names: Vec<&str> = words.iter().map(|token| token.text).collect();
    Guess::Known(declared_type(&names.join(" ")))
}

#[cfg(test)]
mod tests;
