//! What a result column is called: PostgreSQL's rules (`FigureColname` in its parse_target.c),
//! since programs ask for `row.count`. SQLite would call it by its whole text. Step 1.
//!
//! | column | is called |
//! |---|---|
//! | `count(*)` | `count` |
//! | `a::text` | `a` |
//! | `'x'::text` | `text` |
//! | `CASE …` | `case` |
//! | `a + 1`, `1` | `?column?` |

use super::lexer::{Kind, Token};

/// The longest name of PostgreSQL's, in bytes.
pub(super) const MAX_NAME: usize = 63;

const UNNAMED: &str = "?column?";

/// How many CASEs may stand in each other in a column that is called as the innermost: each takes
/// some of the stack, and another look at all that is in it.
const MAX_CASES: usize = 32;

/// Whether a word ends the list of result columns.
pub(super) fn ends_list(word: &str) -> bool {
    const ENDS: [&str; 14] = [
        "from",
        "where",
        "group",
        "order",
        "having",
        "limit",
        "offset",
        "fetch",
        "union",
        "intersect",
        "except",
        "window",
        "into",
        "for",
    ];
    ENDS.contains(&word)
}

pub(super) fn ends_list_token(token: &Token<'_>) -> bool {
    ends_list(&token.text.to_ascii_lowercase())
}

/// The name to give a column that has none; `None` for one that has, and for `*`.
pub(super) fn column(tokens: &[Token<'_>]) -> Option<String> {
    let significant = tokens.iter().filter(|token| token.kind != Kind::Space && token.text != ";");
    let mut words: Vec<Token<'_>> = significant.copied().collect();
    if words.first().is_some_and(|first| first.is("distinct") || first.is("all")) {
        words.remove(0);
    }
    let (last, before) = words.split_last()?;
    if last.text == "*" && before.last().is_none_or(|token| token.text == ".") {
        return None;
    }
    if has_alias(&words) {
        return None;
    }
    let named = if cases(&words) > MAX_CASES { None } else { figure(&words) };
    let name = named.unwrap_or_else(|| UNNAMED.to_owned());
    // A column's own name is SQLite's name for it too.
    let plain = before.is_empty() || before.last().is_some_and(|token| token.text == ".");
    let named = matches!(last.kind, Kind::Word | Kind::Quoted) && !is_value(last);
    (!(plain && named && is_path(&words))).then_some(name)
}

/// How many CASEs stand in each other.
fn cases(words: &[Token<'_>]) -> usize {
    let mut open = 0usize;
    let mut most = 0usize;
    for word in words {
        if word.is("case") {
            open += 1;
            most = most.max(open);
        } else if word.is("end") {
            open = open.saturating_sub(1);
        }
    }
    most
}

fn is_path(words: &[Token<'_>]) -> bool {
    words.iter().all(|token| token.text == "." || matches!(token.kind, Kind::Word | Kind::Quoted))
}

fn is_value(token: &Token<'_>) -> bool {
    const VALUES: [&str; 13] = [
        "null",
        "true",
        "false",
        "current_date",
        "current_time",
        "current_timestamp",
        "localtimestamp",
        "current_user",
        "session_user",
        "user",
        "current_role",
        "current_catalog",
        "current_schema",
    ];
    VALUES.iter().any(|value| token.is(value))
}

/// `expression AS name` or `expression name`.
fn has_alias(words: &[Token<'_>]) -> bool {
    let [.., before, last] = words else { return false };
    if !matches!(last.kind, Kind::Word | Kind::Quoted) || before.text == "." {
        return false;
    }
    // `CAST(a AS b)` ends with a parenthesis.
    if before.is("as") {
        return true;
    }
    const NO_ALIASES: [&str; 12] = [
        "end",
        "null",
        "true",
        "false",
        "unknown",
        "precision",
        "varying",
        "zone",
        "distinct",
        "isnull",
        "notnull",
        "array",
    ];
    let unit = before.kind == Kind::Text && super::times::UNITS.iter().any(|unit| last.is(unit));
    let keyword = NO_ALIASES.iter().any(|word| last.is(word)) || unit;
    if keyword || before.is("collate") {
        return false;
    }
    match before.kind {
        Kind::Word => !super::is_operator(before.text) || before.is("end"),
        Kind::Symbol(')' | ']') => true,
        Kind::Symbol(_) | Kind::Cast => false,
        _ => true,
    }
}

/// The name of an expression.
fn figure(words: &[Token<'_>]) -> Option<String> {
    let outside: Vec<(usize, &Token<'_>)> = outside(words);
    if words.first().is_some_and(|first| first.is("case")) {
        return case(words, &outside);
    }
    let casts: Vec<usize> =
        outside.iter().filter(|(_, t)| t.kind == Kind::Cast).map(|(place, _)| *place).collect();
    if let Some((place, _)) = outside.iter().find(|(_, token)| token.is("collate")) {
        return figure(words.get(..*place)?);
    }
    // An operator outside of parentheses makes it an expression without a name.
    if let Some(first) = casts.first() {
        let (operand, rest) = words.split_at_checked(*first)?;
        if has_operator(operand) || has_operator(rest) {
            return None;
        }
        let own = figure(operand);
        return own
            .filter(|name| !is_weak(name, operand))
            .or_else(|| type_name(words, *casts.last()?));
    }
    if has_operator(words) {
        return None;
    }
    let first = words.first()?;
    if first.text == "(" {
        let inner = words.get(1..words.len().saturating_sub(1))?;
        if inner.first().is_some_and(|token| token.is("select")) {
            return subquery(inner);
        }
        return figure(inner);
    }
    if first.is("array") {
        return Some("array".into());
    }
    if words.len() == 1 && is_value(first) {
        let nameless = ["null", "true", "false"].iter().any(|value| first.is(value));
        return (!nameless).then(|| first.text.to_ascii_lowercase());
    }
    let zone = outside.windows(3).any(|three| {
        matches!(three, [(_, at), (_, time), (_, zone)]
            if at.is("at") && time.is("time") && zone.is("zone"))
    });
    if zone {
        return Some("timezone".into());
    }
    let called = words.get(1).is_some_and(|next| next.text == "(");
    if matches!(first.kind, Kind::Word | Kind::Quoted) && (called || !is_value(first)) {
        return called_or_named(words);
    }
    None
}

/// `CASE … ELSE a END` is called as its ELSE, if that has a name of its own; perhaps it is cast.
fn case(words: &[Token<'_>], outside: &[(usize, &Token<'_>)]) -> Option<String> {
    let mut depth = 0usize;
    let mut otherwise = None;
    let mut end = None;
    for (place, token) in outside {
        depth += usize::from(token.is("case"));
        if token.is("else") && depth == 1 {
            otherwise = Some(place + 1);
        }
        if token.is("end") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                end = Some(*place);
                break;
            }
        }
    }
    let end = end?;
    let after = words.get(end + 1..)?;
    let own = otherwise.and_then(|from| words.get(from..end)).and_then(|operand| {
        let cast = operand.iter().position(|token| token.kind == Kind::Cast);
        let operand = operand.get(..cast.unwrap_or(operand.len()))?;
        figure(operand).filter(|name| !is_weak(name, operand))
    });
    match after.first() {
        None => Some(own.unwrap_or_else(|| "case".into())),
        Some(cast) if cast.kind == Kind::Cast && !has_operator(after) => {
            own.or_else(|| type_name(words, end + 1))
        }
        Some(_) => None,
    }
}

/// `f(x)`, `s.f(x)`, `t.a`, `DATE '…'`.
fn called_or_named(words: &[Token<'_>]) -> Option<String> {
    let open = words.iter().position(|token| token.text == "(");
    let path = words.get(..open.unwrap_or(words.len()))?;
    if !is_path(path) {
        let typed = path.len() > 1 && path.last().is_some_and(|last| last.kind == Kind::Text);
        return typed.then(|| internal(&path.first()?.name()?)).flatten();
    }
    let name = path.last()?.name()?;
    Some(match (open, name.as_str()) {
        (Some(open), "cast") => {
            let inner = words.get(open + 1..words.len().saturating_sub(1))?;
            let place = outside(inner).iter().rfind(|(_, token)| token.is("as"))?.0;
            let operand = inner.get(..place)?;
            let own = figure(operand).filter(|name| !is_weak(name, operand));
            own.or_else(|| type_name(inner, place))?
        }
        (Some(open), "trim") => match words.get(open + 1) {
            Some(side) if side.is("leading") => "ltrim".into(),
            Some(side) if side.is("trailing") => "rtrim".into(),
            _ => "btrim".into(),
        },
        _ => cut(name),
    })
}

/// A name that comes of a type or a CASE gives way to a cast's.
fn is_weak(name: &str, operand: &[Token<'_>]) -> bool {
    name == "case" || operand.first().is_some_and(|token| is_value(token))
}

fn type_name(words: &[Token<'_>], cast: usize) -> Option<String> {
    let after = words.get(cast + 1..)?;
    let after = match after {
        [schema, dot, rest @ ..] if schema.is("pg_catalog") && dot.text == "." => rest,
        all => all,
    };
    let name = after.first()?.name()?;
    let zone = after.iter().any(|token| token.is("with"));
    let name = match name.as_str() {
        "timestamp" if zone => "timestamptz".to_owned(),
        "time" if zone => "timetz".to_owned(),
        "character" if after.iter().any(|token| token.is("varying")) => "varchar".to_owned(),
        other => internal(other)?,
    };
    Some(name)
}

/// PostgreSQL's own name of a type.
fn internal(name: &str) -> Option<String> {
    Some(match name {
        "int" | "integer" => "int4".into(),
        "bigint" => "int8".into(),
        "smallint" => "int2".into(),
        "boolean" => "bool".into(),
        "double" | "float" => "float8".into(),
        "real" => "float4".into(),
        "decimal" | "dec" => "numeric".into(),
        "character" | "char" => "bpchar".into(),
        other => other.to_owned(),
    })
}

/// `(SELECT a FROM t)` is called as its column.
fn subquery(words: &[Token<'_>]) -> Option<String> {
    let list = words.get(1..)?;
    let found = outside(list);
    let ends = found.iter().find(|(_, t)| t.text == "," || ends_list_token(t));
    let item = list.get(..ends.map_or(list.len(), |(place, _)| *place))?;
    match item {
        [.., keyword, alias] if keyword.is("as") => alias.name(),
        [.., alias] if has_alias(item) => alias.name(),
        item => figure(item),
    }
}

fn outside<'t, 'a>(words: &'t [Token<'a>]) -> Vec<(usize, &'t Token<'a>)> {
    let mut depth = 0usize;
    let mut found = Vec::new();
    for (place, token) in words.iter().enumerate() {
        match token.kind {
            Kind::Symbol('(' | '[') => depth += 1,
            Kind::Symbol(')' | ']') => depth = depth.saturating_sub(1),
            _ if depth == 0 => found.push((place, token)),
            _ => {}
        }
    }
    found
}

/// Whether an operator stands outside of all parentheses.
fn has_operator(words: &[Token<'_>]) -> bool {
    const WORDS: [&str; 11] = [
        "and", "or", "not", "is", "like", "ilike", "in", "between", "similar", "isnull", "notnull",
    ];
    let mut cases = 0usize;
    outside(words).iter().any(|(_, token)| {
        cases += usize::from(token.is("case"));
        cases = cases.saturating_sub(usize::from(token.is("end")));
        let symbol = matches!(token.kind, Kind::Symbol(c) if !matches!(c, '.' | ',' | ';' | ':'));
        cases == 0 && (symbol || WORDS.iter().any(|word| token.is(word)))
    })
}

/// PostgreSQL cuts names at 63 bytes, on a whole character.
pub(super) fn cut(name: String) -> String {
    if name.len() <= MAX_NAME {
        return name;
    }
    let end = (0..=MAX_NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default().to_owned()
}
