//! The words of BEGIN and SAVEPOINT, which are a stream's own (step 1): SQLite's grammar, and
//! libSQL's READONLY.

use rota_core::error::{Refusal, sqlstate};
use rota_store::sql::{Lexer, Token};

/// What may stand in a BEGIN. Who begins how makes no difference here: nothing is locked, and what
/// others have changed meanwhile is found out by COMMIT.
const BEGIN: [&str; 8] = [
    "BEGIN",
    "START",
    "TRANSACTION",
    "DEFERRED",
    "IMMEDIATE",
    "EXCLUSIVE",
    "CONCURRENT",
    "READONLY",
];

/// What may stand before a savepoint's name.
const BEFORE_NAME: [&str; 5] = ["SAVEPOINT", "RELEASE", "ROLLBACK", "TRANSACTION", "TO"];

/// Whether a keyword stands in a statement.
pub(crate) fn has(sql: &str, keyword: &str) -> bool {
    Lexer::new(sql).any(|(_, token)| is(token, &[keyword]))
}

/// Refuses a BEGIN with words that mean something else elsewhere.
pub(crate) fn check_begin(sql: &str) -> Result<(), Refusal> {
    match Lexer::new(sql).map(|(_, token)| token).find(|token| !is(*token, &BEGIN)) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(
            sqlstate::SYNTAX_ERROR,
            "BEGIN [DEFERRED | IMMEDIATE | EXCLUSIVE] [TRANSACTION] [READONLY] is all there is",
        )),
    }
}

/// The name of a savepoint, in lower case: SQLite knows no difference, not even in quotes.
pub(crate) fn savepoint(sql: &str) -> Result<String, Refusal> {
    let tokens: Vec<Token<'_>> = Lexer::new(sql).map(|(_, token)| token).collect();
    let name = match tokens.as_slice() {
        [before @ .., name] if !before.is_empty() => {
            let plain = before.iter().all(|token| is(*token, &BEFORE_NAME));
            plain.then(|| unquoted(*name)).flatten()
        }
        _ => None,
    };
    name.map(|name| name.to_lowercase()).ok_or_else(|| {
        Refusal::new(sqlstate::SYNTAX_ERROR, "a savepoint needs a name, and nothing after it")
    })
}

/// What a token is the name of, if it is one.
pub(crate) fn unquoted(token: Token<'_>) -> Option<String> {
    let inner = |quoted: &str, open: char, close: char| {
        let bare = quoted.strip_prefix(open)?.strip_suffix(close)?;
        Some(bare.replace(&format!("{close}{close}"), &close.to_string()))
    };
    match token {
        Token::Word(word) => Some(word.to_owned()),
        Token::Text(text) => inner(text, '\'', '\''),
        Token::Quoted(quoted) => inner(quoted, '"', '"')
            .or_else(|| inner(quoted, '`', '`'))
            .or_else(|| Some(quoted.strip_prefix('[')?.strip_suffix(']')?.to_owned())),
        Token::Parameter(_) | Token::Symbol(_) => None,
    }
}

fn is(token: Token<'_>, keywords: &[&str]) -> bool {
    matches!(token, Token::Word(word) if keywords.iter().any(|k| k.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_takes_sqlite_s_words_and_libsql_s() {
        for sql in ["BEGIN", "begin immediate", "BEGIN TRANSACTION READONLY", "BEGIN DEFERRED"] {
            assert!(check_begin(sql).is_ok(), "{sql}");
        }
        for sql in ["BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ ONLY", "BEGIN 1"] {
            assert!(check_begin(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn savepoints_have_names_of_any_quotes() {
        for (sql, wanted) in [
            ("SAVEPOINT A", Some("a")),
            ("RELEASE SAVEPOINT \"A\"\"b\"", Some("a\"b")),
            ("ROLLBACK TO [x y]", Some("x y")),
            ("ROLLBACK TRANSACTION TO SAVEPOINT `x`", Some("x")),
            ("RELEASE 'x'", Some("x")),
            ("SAVEPOINT", None),
            ("SAVEPOINT a b", None),
            ("SAVEPOINT :a", None),
        ] {
            assert_eq!(savepoint(sql).ok().as_deref(), wanted, "{sql}");
        }
    }
}
