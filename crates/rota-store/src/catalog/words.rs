//! What only the words of CREATE TABLE and CREATE INDEX tell: SQLite's pragmas leave out the names
//! of constraints, what CHECK says and the expressions of an index. For step 1, the catalog.

use crate::sql::{Lexer, Token};

/// The constraints of a table, in the order of its words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TableWords {
    pub(super) constraints: Vec<Constraint>,
}

/// A constraint of a table or of a column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Constraint {
    pub(super) kind: ConstraintKind,
    /// After CONSTRAINT.
    pub(super) name: Option<String>,
    /// The columns that it is about, as it names them.
    pub(super) columns: Vec<String>,
    /// What CHECK says, without the parentheses.
    pub(super) expression: String,
    pub(super) deferrable: bool,
    pub(super) deferred: bool,
}

/// What a constraint demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConstraintKind {
    PrimaryKey,
    Unique,
    Check,
    ForeignKey,
}

/// What the words of CREATE INDEX tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct IndexWords {
    /// Column names and expressions, with their collations and directions.
    pub(super) items: Vec<String>,
    /// After WHERE.
    pub(super) predicate: Option<String>,
}

/// A token with its place and its end in the text.
type Placed<'a> = (usize, Token<'a>, usize);

fn placed(sql: &str) -> Vec<Placed<'_>> {
    let length = |token: &Token<'_>| match token {
        Token::Word(text) | Token::Quoted(text) | Token::Text(text) | Token::Parameter(text) => {
            text.len()
        }
        Token::Symbol(symbol) => symbol.len_utf8(),
    };
    Lexer::new(sql)
        .map(|(place, token)| {
            let end = place + length(&token);
            (place, token, end)
        })
        .collect()
}

fn is(token: Option<&Placed<'_>>, keyword: &str) -> bool {
    matches!(token, Some((_, Token::Word(word), _)) if word.eq_ignore_ascii_case(keyword))
}

/// A name without its quotes.
pub(super) fn unquoted(token: &Token<'_>) -> Option<String> {
    let (text, quote) = match token {
        Token::Word(word) => return Some((*word).to_owned()),
        Token::Quoted(text) | Token::Text(text) => (*text, text.chars().next()?),
        Token::Parameter(_) | Token::Symbol(_) => return None,
    };
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    Some(match quote {
        '[' => inner.to_owned(),
        quote => inner.replace(&format!("{quote}{quote}"), &quote.to_string()),
    })
}

/// The tokens between the first parenthesis and the one that closes it, cut at commas outside of
/// others, and where they end among all tokens.
fn items<'t, 'a>(tokens: &'t [Placed<'a>]) -> (Vec<&'t [Placed<'a>]>, usize) {
    let is_open = |token: &Placed<'_>| token.1 == Token::Symbol('(');
    let Some(open) = tokens.iter().position(is_open) else { return (Vec::new(), tokens.len()) };
    let (mut depth, mut start, mut found) = (0_usize, open + 1, Vec::new());
    for (place, (_, token, _)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth = depth.saturating_sub(1),
            Token::Symbol(',') if depth == 1 => {
                found.extend(tokens.get(start..place));
                start = place + 1;
            }
            _ => {}
        }
        if depth == 0 {
            found.extend(tokens.get(start..place));
            return (found, place);
        }
    }
    (found, tokens.len())
}

fn text<'a>(sql: &'a str, tokens: &[Placed<'_>]) -> &'a str {
    match (tokens.first(), tokens.last()) {
        (Some((start, ..)), Some((.., end))) => sql.get(*start..*end).unwrap_or_default(),
        _ => "",
    }
}

/// The words of a CREATE TABLE.
pub(super) fn table(sql: &str) -> TableWords {
    let tokens = placed(sql);
    let mut words = TableWords::default();
    for item in items(&tokens).0 {
        let first = item.first();
        let of_table = ["constraint", "primary", "unique", "check", "foreign"];
        let column = match first {
            Some((_, token, _)) if !of_table.iter().any(|word| is(first, word)) => unquoted(token),
            _ => None,
        };
        constraints(sql, item, column.as_ref(), &mut words.constraints);
    }
    words
}

fn constraints(
    sql: &str,
    item: &[Placed<'_>],
    column: Option<&String>,
    found: &mut Vec<Constraint>,
) {
    let mut name = None;
    let mut place = usize::from(column.is_some());
    while let Some(token) = item.get(place) {
        let rest = item.get(place..).unwrap_or_default();
        let at = Some(token);
        let kind = if is(at, "primary") {
            Some(ConstraintKind::PrimaryKey)
        } else if is(at, "unique") {
            Some(ConstraintKind::Unique)
        } else if is(at, "check") {
            Some(ConstraintKind::Check)
        } else if is(at, "foreign") || column.is_some() && is(at, "references") {
            Some(ConstraintKind::ForeignKey)
        } else {
            None
        };
        if is(at, "constraint") {
            name = item.get(place + 1).and_then(|(_, token, _)| unquoted(token));
            place += 2;
        } else if token.1 == Token::Symbol('(') {
            place += items(rest).1 + 1;
        } else if let Some(kind) = kind {
            found.push(constraint(sql, kind, name.take(), rest, column));
            place += 1;
        } else {
            let ends = ["not", "null", "default", "collate", "generated"];
            if ends.iter().any(|word| is(at, word)) {
                name = None;
            }
            place += 1;
        }
    }
}

fn constraint(
    sql: &str,
    kind: ConstraintKind,
    name: Option<String>,
    rest: &[Placed<'_>],
    column: Option<&String>,
) -> Constraint {
    let listed = items(rest).0;
    let columns = match column {
        Some(column) => vec![column.clone()],
        None if kind == ConstraintKind::Check => Vec::new(),
        None => listed
            .iter()
            .filter_map(|item| item.first().and_then(|(_, token, _)| unquoted(token)))
            .collect(),
    };
    let expression = match (kind, listed.first(), listed.last()) {
        (ConstraintKind::Check, Some(first), Some(last)) => match (first.first(), last.last()) {
            (Some((start, ..)), Some((.., end))) => sql.get(*start..*end).unwrap_or_default(),
            _ => "",
        },
        _ => "",
    };
    let deferrable = rest.iter().enumerate().find(|(_, token)| is(Some(*token), "deferrable"));
    let refused = |place: usize| place > 0 && is(rest.get(place - 1), "not");
    let deferrable =
        kind == ConstraintKind::ForeignKey && deferrable.is_some_and(|(place, _)| !refused(place));
    let deferred = rest.iter().any(|token| is(Some(token), "deferred"));
    let expression = expression.to_owned();
    Constraint { kind, name, columns, expression, deferrable, deferred: deferrable && deferred }
}

/// The words of a CREATE INDEX.
pub(super) fn index(sql: &str) -> IndexWords {
    let tokens = placed(sql);
    let (items, end) = items(&tokens);
    let after = tokens.get(end + 1..).unwrap_or_default();
    let predicate = is(after.first(), "where")
        .then(|| text(sql, after.get(1..).unwrap_or_default()).to_owned());
    IndexWords { items: items.iter().map(|item| text(sql, item).to_owned()).collect(), predicate }
}

/// The words of a view's query.
pub(super) fn view(sql: &str) -> &str {
    let tokens = placed(sql);
    let place = tokens.iter().position(|token| is(Some(token), "as"));
    place.and_then(|place| tokens.get(place + 1..)).map_or("", |query| text(sql, query))
}

/// Which of these columns an expression names, in their order.
pub(super) fn columns_named<'a>(expression: &str, columns: &[&'a str]) -> Vec<&'a str> {
    let names: Vec<String> = Lexer::new(expression)
        .filter(|(_, token)| matches!(token, Token::Word(_) | Token::Quoted(_)))
        .filter_map(|(_, token)| unquoted(&token))
        .collect();
    let is_named = |column: &&&str| names.iter().any(|name| name.eq_ignore_ascii_case(column));
    columns.iter().filter(is_named).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_found_with_their_names_and_words() {
        let words = table(
            "CREATE TABLE t(a INT CONSTRAINT pk PRIMARY KEY, \"b c\" NUMERIC(4,2) NOT NULL \
             CHECK (\"b c\" > 0 AND f(a, ',')), c INT DEFAULT (1) REFERENCES u(x) DEFERRABLE \
             INITIALLY DEFERRED, CONSTRAINT u UNIQUE (a, c), FOREIGN KEY (a, c) REFERENCES v)",
        );
        let told: Vec<_> = words
            .constraints
            .iter()
            .map(|found| (found.kind, found.name.as_deref(), found.columns.join(",")))
            .collect();
        let want = [
            (ConstraintKind::PrimaryKey, Some("pk"), "a".to_owned()),
            (ConstraintKind::Check, None, "b c".into()),
            (ConstraintKind::ForeignKey, None, "c".into()),
            (ConstraintKind::Unique, Some("u"), "a,c".into()),
            (ConstraintKind::ForeignKey, None, "a,c".into()),
        ];
        assert_eq!(told, want);
        let check = words.constraints.get(1).map(|found| found.expression.as_str());
        assert_eq!(check, Some("\"b c\" > 0 AND f(a, ',')"));
        let deferred: Vec<bool> = words.constraints.iter().map(|found| found.deferred).collect();
        assert_eq!(deferred, [false, false, true, false, false]);
    }

    #[test]
    fn an_index_tells_its_expressions_and_its_predicate() {
        let words = index("CREATE UNIQUE INDEX i ON t (lower(a), b DESC) WHERE a > 1");
        assert_eq!(words.items, ["lower(a)", "b DESC"]);
        assert_eq!(words.predicate.as_deref(), Some("a > 1"));
    }
}
