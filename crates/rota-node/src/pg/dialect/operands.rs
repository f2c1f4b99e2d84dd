//! Parentheses round a query that is an operand of UNION, INTERSECT or EXCEPT, or all of a
//! statement, which SQLite does not know. Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `(SELECT 1) UNION (SELECT 2)` | `SELECT 1 UNION SELECT 2` |
//! | `(SELECT a FROM t ORDER BY a LIMIT 1) UNION …` | `SELECT * FROM (SELECT … LIMIT 1) UNION …` |
//! | `INSERT INTO t (SELECT …)` | `INSERT INTO t SELECT …` |

use rota_core::error::Refusal;

use super::lexer::{Kind, Token};
use super::{MAX_DEPTH, too_costly, too_deep};

/// Words that combine two queries.
const COMBINES: [&str; 3] = ["union", "intersect", "except"];
/// Words at whose sight a query cannot be an operand without parentheses.
const LATE: [&str; 9] =
    ["union", "intersect", "except", "order", "limit", "offset", "fetch", "for", "with"];

/// What becomes of a pair of parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
    /// `SELECT * FROM (…)`.
    Selects,
}

/// The tokens, such parentheses taken away or made a subquery of FROM, if that does not take more
/// than `most` looks at one of them.
pub(super) fn plain(input: Vec<Token<'_>>, most: usize) -> Result<Vec<Token<'_>>, Refusal> {
    let first = input.iter().find(|token| token.kind != Kind::Space);
    let inserts = first.is_some_and(|first| first.is("insert"));
    let concerned = first.is_some_and(|first| first.text == "(") || inserts;
    if !concerned && !input.iter().any(combines) {
        return Ok(input);
    }
    let fates = fates(&input, inserts, most)?;
    let mut output: Vec<Token<'_>> = Vec::with_capacity(input.len());
    for (token, fate) in input.into_iter().zip(fates) {
        match fate {
            Fate::Stays => output.push(token),
            // The words on both sides stay two.
            Fate::Goes
                if output
                    .last()
                    .is_some_and(|last| last.kind != Kind::Space && last.text != "(") =>
            {
                output.push(Token { kind: Kind::Space, text: " " });
            }
            Fate::Goes => {}
            Fate::Selects => {
                let word = |text| Token { kind: Kind::Word, text };
                let space = Token { kind: Kind::Space, text: " " };
                let all = Token { kind: Kind::Symbol('*'), text: "*" };
                output.extend([word("SELECT"), space, all, space, word("FROM"), space, token]);
            }
        }
    }
    Ok(output)
}

fn combines(token: &Token<'_>) -> bool {
    COMBINES.iter().any(|word| token.is(word))
}

/// What becomes of every token. Outer parentheses are decided before inner ones.
fn fates(input: &[Token<'_>], inserts: bool, most: usize) -> Result<Vec<Fate>, Refusal> {
    let mut cost = 0_usize;
    let mut fates = vec![Fate::Stays; input.len()];
    let mut depth = 0_usize;
    // Whether an INSERT's rows, in their own parentheses, have not begun.
    let mut rows_to_come = inserts;
    let closes = closes(input);
    for (open, token) in input.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ if depth == 0 && (token.is("select") || token.is("values")) => rows_to_come = false,
            _ => {}
        }
        // What follows looks into parentheses once for all that are round them.
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        let Some(close) = closes.get(open).copied().flatten() else { continue };
        let inside = input.get(open + 1..close).unwrap_or_default();
        let here = rows_to_come && depth == 1;
        if is_query(inside) && (here || is_operand(input, &fates, open, close)) {
            cost = cost.saturating_add(inside.len());
            if cost > most {
                return Err(too_costly());
            }
            let late = top_level(inside).any(|token| LATE.iter().any(|word| token.is(word)));
            let fate = if late { Fate::Selects } else { Fate::Goes };
            rows_to_come &= !here;
            if let Some(at) = fates.get_mut(open) {
                *at = fate;
            }
            if let (Fate::Goes, Some(at)) = (fate, fates.get_mut(close)) {
                *at = Fate::Goes;
            }
        }
    }
    Ok(fates)
}

/// Where each parenthesis that opens is closed.
fn closes(input: &[Token<'_>]) -> Vec<Option<usize>> {
    let mut closes = vec![None; input.len()];
    let mut open = Vec::new();
    for (place, token) in input.iter().enumerate() {
        match token.kind {
            Kind::Symbol('(') => open.push(place),
            Kind::Symbol(')') => {
                if let Some(at) = open.pop().and_then(|open| closes.get_mut(open)) {
                    *at = Some(place);
                }
            }
            _ => {}
        }
    }
    closes
}

/// Whether this begins as a query does, in parentheses of its own or not.
fn is_query(inside: &[Token<'_>]) -> bool {
    let mut words = inside.iter().filter(|token| token.kind != Kind::Space && token.text != "(");
    words.next().is_some_and(|first| ["select", "values", "with"].iter().any(|word| first.is(word)))
}

/// Whether what stands on both sides says that the parentheses are round an operand.
fn is_operand(input: &[Token<'_>], fates: &[Fate], open: usize, close: usize) -> bool {
    let is_there = |(place, token): &(usize, &Token<'_>)| {
        token.kind != Kind::Space && fates.get(*place) != Some(&Fate::Goes)
    };
    let mut before = input.iter().enumerate().take(open).rev().filter(is_there);
    let mut after = input.iter().enumerate().skip(close + 1).filter(is_there);
    let (before, earlier) = (before.next().map(|(_, t)| t), before.next().map(|(_, t)| t));
    let after = after.next().map(|(_, token)| token);
    let combined = |token: Option<&Token<'_>>| token.is_some_and(combines);
    let Some(before) = before else {
        let ends = ["order", "limit", "offset", "fetch"];
        return after.is_none_or(|token| {
            combines(token) || token.text == ";" || ends.iter().any(|word| token.is(word))
        });
    };
    if combines(before) || ((before.is("all") || before.is("distinct")) && combined(earlier)) {
        return true;
    }
    combined(after) && (before.text == "(" || before.is("as"))
}

/// The tokens that are in no parentheses.
fn top_level<'t, 'a>(inside: &'t [Token<'a>]) -> impl Iterator<Item = &'t Token<'a>> {
    let mut depth = 0_usize;
    inside.iter().filter(move |token| {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}
