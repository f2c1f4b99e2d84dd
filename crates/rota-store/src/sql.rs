//! What a statement is, by its words alone: no parser, but a lexer that knows strings, quoted
//! names, comments and where a trigger's body ends, so that text inside a string is never taken for
//! SQL.
//!
//! ```text
//!   script --split--> statements --classify--> kind, and whether it reads or writes
//!                                --forbidden--> what SQLite's authorizer is not asked about
//! ```

use rota_core::error::{Refusal, sqlstate};

use crate::access;
use crate::accounts;
use crate::value::StatementKind;

/// What a statement does to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: no words, or comments only.
    Empty,
    /// Reads: SELECT, VALUES, EXPLAIN, PRAGMA (those that write are refused when run).
    Read,
    /// Everything that must be agreed.
    Write,
    /// BEGIN, COMMIT, SAVEPOINT, SET and their like: the session's own, never part of a transaction
    /// that is sent.
    Session,
}

/// What [`classify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// For the command tag.
    pub kind: StatementKind,
    /// Where it goes.
    pub access: Access,
}

/// A piece of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword, a name, a number, or a blob like `x'00'`.
    Word(&'a str),
    /// A name in double quotes, backquotes or brackets, with them. An unfinished one reaches to the
    /// end.
    Quoted(&'a str),
    /// A string in single quotes, with them. An unfinished one reaches to the end.
    Text(&'a str),
    /// `?1`, `:name`, `@name`, `#name`, `$name`, `$1::int`, `$name(x)`.
    Parameter(&'a str),
    /// Any other character.
    Symbol(char),
}

impl<'a> Token<'a> {
    pub(crate) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(crate) fn is_any(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }
}

/// U+FEFF in UTF-8: white space for SQLite where a token could begin, else a part of a name.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// White space inside of a run of it; alone, a vertical tab is nothing that SQLite knows.
const VERTICAL_TAB: u8 = 0x0b;

/// The tokens of SQL text with the places where they start, without white space and comments. It
/// cuts where SQLite's own tokenizer (`sqlite3GetToken`) does, up to the first NUL, as what is
/// found here decides what SQLite is given. Operators of several characters come one by one.
#[derive(Clone)]
pub struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// From the start.
    pub fn new(sql: &'a str) -> Self {
        Self { sql: sql.split('\0').next().unwrap_or_default(), at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.sql.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn skip_blank(&mut self) {
        loop {
            match self.rest() {
                [first, rest @ ..] if is_space(*first) && *first != VERTICAL_TAB => {
                    self.at += 1 + rest.iter().take_while(|byte| is_space(**byte)).count();
                }
                rest if rest.starts_with(&BYTE_ORDER_MARK) => self.at += BYTE_ORDER_MARK.len(),
                [b'-', b'-', ..] => self.at += until(self.rest(), b"\n", 2),
                [b'/', b'*', _, ..] => self.at += until(self.rest(), b"*/", 2),
                _ => return,
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c | VERTICAL_TAB)
}

/// How many bytes up to and with the first `end` at or after `from`, or all.
fn until(bytes: &[u8], end: &[u8], from: usize) -> usize {
    let tail = bytes.get(from..).unwrap_or_default();
    tail.windows(end.len())
        .position(|window| window == end)
        .map_or(bytes.len(), |position| from + position + end.len())
}

/// The length of something in quotes, in which a doubled quote stands for one; all if it is
/// unfinished.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == quote {
            if bytes.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    bytes.len()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// The length of bytes of which those from `from` on belong.
fn run(bytes: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let tail = bytes.get(from..).unwrap_or_default();
    from + tail.iter().position(|&byte| !belongs(byte)).unwrap_or(tail.len())
}

/// The length of a number with what sticks to it: `1`, `0x1F`, `1_000.5e-3`, `.5`.
fn number(bytes: &[u8]) -> usize {
    let digits = |from| run(bytes, from, |byte| byte.is_ascii_digit() || byte == b'_');
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = match bytes {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => {
            return run(bytes, 3, is_word_byte);
        }
        _ => digits(0),
    };
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if is_digit(end + 1 + sign) {
            end = digits(end + 1 + sign);
        }
    }
    run(bytes, end, is_word_byte)
}

/// The length of `$name`, `@name`, `#name` or `:name`, with `::` in it and one pair of parentheses
/// after it, in which anything but white space may stand, quotes too. 1: there is no name.
fn variable(bytes: &[u8]) -> usize {
    let (mut at, mut is_named) = (1, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            _ if is_word_byte(byte) => is_named = true,
            b'(' if is_named => {
                let end = run(bytes, at + 1, |byte| !is_space(byte) && byte != b')');
                return end + usize::from(bytes.get(end) == Some(&b')'));
            }
            b':' if bytes.get(at + 1) == Some(&b':') => at += 1,
            _ => break,
        }
        at += 1;
    }
    if is_named { at } else { 1 }
}

/// The length of `x'00'`.
fn blob(bytes: &[u8]) -> usize {
    until(bytes, b"'", 2)
}

impl<'a> Iterator for Lexer<'a> {
    type Item = (usize, Token<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blank();
        let start = self.at;
        let bytes = self.rest();
        let first = *bytes.first()?;
        let second = bytes.get(1).copied();
        let length = match first {
            b'\'' | b'"' | b'`' => quoted(bytes, first),
            b'[' => until(bytes, b"]", 1),
            b'?' => run(bytes, 1, |byte| byte.is_ascii_digit()),
            b':' | b'@' | b'$' | b'#' => variable(bytes),
            b'x' | b'X' if second == Some(b'\'') => blob(bytes),
            b'0'..=b'9' => number(bytes),
            b'.' if second.is_some_and(|byte| byte.is_ascii_digit()) => number(bytes),
            _ if is_word_byte(first) => run(bytes, 0, is_word_byte),
            _ => 1,
        };
        self.at += length;
        // Every length ends at an ASCII byte or at the end, so this slice is whole characters.
        let text = self.sql.get(start..self.at)?;
        let token = match first {
            b'\'' => Token::Text(text),
            b'"' | b'`' | b'[' => Token::Quoted(text),
            b'?' => Token::Parameter(text),
            b':' | b'@' | b'$' | b'#' if length > 1 => Token::Parameter(text),
            b'.' if length > 1 => Token::Word(text),
            _ if first != b'$' && is_word_byte(first) => Token::Word(text),
            _ => Token::Symbol(char::from(first)),
        };
        Some((start, token))
    }
}

/// The tokens from where SQLite begins to read a statement: behind semicolons.
fn statement(sql: &str) -> impl Iterator<Item = Token<'_>> {
    Lexer::new(sql).map(|(_, token)| token).skip_while(|token| *token == Token::Symbol(';'))
}

/// Whether a function of this name may be called in a text: its name stands there, in any case and
/// any quotes, before a parenthesis.
pub(crate) fn calls(sql: &str, function: &str) -> bool {
    // No spelling of a name can do without its letters.
    let name = function.as_bytes();
    let begins = |window: &[u8]| match (window.first(), name.first()) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => false,
    };
    let is_there = |window: &[u8]| begins(window) && window.eq_ignore_ascii_case(name);
    if !sql.as_bytes().windows(name.len()).any(is_there) {
        return false;
    }
    let mut is_named = false;
    for (_, token) in Lexer::new(sql) {
        if is_named && token == Token::Symbol('(') {
            return true;
        }
        is_named = match token {
            Token::Word(word) => word.eq_ignore_ascii_case(function),
            Token::Quoted(text) => {
                let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
                inner.eq_ignore_ascii_case(function)
            }
            _ => false,
        };
    }
    false
}

/// What a statement is, from its leading keywords: enough to route it, not to trust it. A SELECT
/// that calls `rota_transfer` writes.
pub fn classify(sql: &str) -> Classified {
    let found = by_first_words(sql);
    if found.kind == StatementKind::Select && calls(sql, accounts::FUNCTION) {
        return Classified { access: Access::Write, ..found };
    }
    found
}

fn by_first_words(sql: &str) -> Classified {
    let mut words = statement(sql);
    let Some(first) = words.next() else {
        return Classified { kind: StatementKind::Empty, access: Access::Empty };
    };
    let Token::Word(word) = first else {
        // For SQLite to refuse.
        return Classified { kind: StatementKind::Other, access: Access::Write };
    };
    let (kind, access) = match word.to_ascii_uppercase().as_str() {
        "SELECT" | "VALUES" | "TABLE" => (StatementKind::Select, Access::Read),
        "WITH" => with_kind(words),
        "EXPLAIN" => (StatementKind::Explain, Access::Read),
        "PRAGMA" => (StatementKind::Pragma, Access::Read),
        "INSERT" | "REPLACE" => (StatementKind::Insert, Access::Write),
        "UPDATE" => (StatementKind::Update, Access::Write),
        "DELETE" => (StatementKind::Delete, Access::Write),
        // What is sent is always FROM STDIN: COPY … TO is the front door's matter.
        "COPY" => (StatementKind::Copy, Access::Write),
        "CREATE" | "ALTER" | "DROP" | "GRANT" | "REVOKE" if access::is_about(sql) => {
            (access::kind_of(sql).unwrap_or(StatementKind::Other), Access::Write)
        }
        "CREATE" => (create_kind(words), Access::Write),
        "DROP" => (drop_kind(words.next()), Access::Write),
        "ALTER" => (StatementKind::AlterTable, Access::Write),
        "BEGIN" | "START" => (StatementKind::Begin, Access::Session),
        "COMMIT" | "END" => (StatementKind::Commit, Access::Session),
        "SAVEPOINT" => (StatementKind::Savepoint, Access::Session),
        "RELEASE" => (StatementKind::Release, Access::Session),
        "ROLLBACK" | "ABORT" if words.any(|token| token.is("TO")) => {
            (StatementKind::RollbackTo, Access::Session)
        }
        "ROLLBACK" | "ABORT" => (StatementKind::Rollback, Access::Session),
        "SET" | "RESET" => (StatementKind::Set, Access::Session),
        "SHOW" => (StatementKind::Show, Access::Session),
        _ => (StatementKind::Other, Access::Write),
    };
    Classified { kind, access }
}

/// The statement after the common table expressions: the first verb outside all parentheses.
fn with_kind<'a>(tokens: impl Iterator<Item = Token<'a>>) -> (StatementKind, Access) {
    let mut depth = 0usize;
    for token in tokens {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            token if token.is_any(&["SELECT", "VALUES"]) => {
                return (StatementKind::Select, Access::Read);
            }
            token if token.is_any(&["INSERT", "REPLACE"]) => {
                return (StatementKind::Insert, Access::Write);
            }
            token if token.is("UPDATE") => return (StatementKind::Update, Access::Write),
            token if token.is("DELETE") => return (StatementKind::Delete, Access::Write),
            _ => {}
        }
    }
    (StatementKind::Other, Access::Write)
}

fn create_kind<'a>(tokens: impl Iterator<Item = Token<'a>>) -> StatementKind {
    let modifiers = ["TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL"];
    match tokens.into_iter().find(|token| !token.is_any(&modifiers)) {
        Some(token) if token.is("TABLE") => StatementKind::CreateTable,
        Some(token) if token.is("INDEX") => StatementKind::CreateIndex,
        Some(token) if token.is("VIEW") => StatementKind::CreateView,
        Some(token) if token.is("TRIGGER") => StatementKind::CreateTrigger,
        _ => StatementKind::Other,
    }
}

fn drop_kind(token: Option<Token<'_>>) -> StatementKind {
    match token {
        Some(token) if token.is("TABLE") => StatementKind::DropTable,
        Some(token) if token.is("INDEX") => StatementKind::DropIndex,
        Some(token) if token.is("VIEW") => StatementKind::DropView,
        Some(token) if token.is("TRIGGER") => StatementKind::DropTrigger,
        _ => StatementKind::Other,
    }
}

/// The statements of a script, without their semicolons; pieces without words are left out. A
/// trigger's body ends with `; END`, as in SQLite's own `sqlite3_complete`.
pub fn split(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = None;
    let mut words = 0;
    let mut creating = false;
    let mut trigger = false;
    let mut last_two = [None, None];
    for (at, token) in Lexer::new(sql) {
        let ends_trigger = last_two[0] == Some(Token::Symbol(';'))
            && last_two[1].is_some_and(|t: Token| t.is("END"));
        if token == Token::Symbol(';') && (!trigger || ends_trigger) {
            if let Some(piece) = start.take().and_then(|start| sql.get(start..at)) {
                statements.push(piece.trim_end());
            }
            (words, creating, trigger, last_two) = (0, false, false, [None, None]);
            continue;
        }
        start.get_or_insert(at);
        let before = token.is_any(&["EXPLAIN", "QUERY", "PLAN", "TEMP", "TEMPORARY"]);
        creating = match words {
            _ if token.is("CREATE") && words == 0 => true,
            _ => creating,
        };
        trigger |= creating && words == 1 && token.is("TRIGGER");
        words += usize::from(!before);
        last_two = [last_two[1], Some(token)];
    }
    if let Some(piece) = start.and_then(|start| sql.get(start..)) {
        statements.push(piece.trim_end());
    }
    statements
}

/// Statements that look after one file, and why there is no need of them.
const HOUSEKEEPING: [(&str, &str); 3] = [
    ("VACUUM", "VACUUM would renumber rows; free pages are used again without it"),
    ("ANALYZE", "ANALYZE would change plans, and so the order of rows, with what it finds"),
    ("REINDEX", "REINDEX is not offered; drop the index and create it again"),
];

/// Refuses what SQLite would accept and its authorizer is not asked about: what would end the
/// block's transaction, and writes whose rows depend on an order that nobody asked for.
pub fn forbidden(sql: &str, kind: StatementKind) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
    if let Some(first) = statement(sql).next() {
        for (word, why) in HOUSEKEEPING {
            if first.is(word) {
                return refuse(why);
            }
        }
    }
    if let Some(name) = growing_window(sql) {
        let message = format!("{name}() OVER copies its whole result for each row; use a subquery");
        return refuse(&message);
    }
    let mut scopes = vec![Scope::default()];
    let mut previous = [Token::Symbol(';'); 2];
    let orders_matter = match kind {
        StatementKind::Select => calls(sql, accounts::FUNCTION),
        kind => kind != StatementKind::Explain,
    };
    for (_, token) in Lexer::new(sql) {
        let [before_last, last] = previous;
        if token.is("ROLLBACK") {
            if last.is_any(&["OR", "CONFLICT"]) {
                return refuse(
                    "conflict clause ROLLBACK would undo other clients' work; use ABORT",
                );
            }
            if last == Token::Symbol('(') && before_last.is("RAISE") {
                return refuse("RAISE(ROLLBACK) would undo other clients' work; use RAISE(ABORT)");
            }
        }
        match token {
            Token::Symbol('(') => scopes.push(Scope { exists: last.is("EXISTS"), ordered: false }),
            Token::Symbol(')') if scopes.len() > 1 => {
                scopes.pop();
            }
            _ => {}
        }
        if let Some(scope) = scopes.last_mut() {
            if token == Token::Symbol(';') || token.is("SELECT") {
                scope.ordered = false;
            }
            scope.ordered |= token.is("BY") && last.is("ORDER");
            if orders_matter && token.is("LIMIT") && !scope.ordered && !scope.exists {
                return refuse("LIMIT without ORDER BY takes any rows in a write; add ORDER BY");
            }
        }
        previous = [last, token];
    }
    if kind == StatementKind::CreateTable && is_create_as(sql) {
        return refuse(
            "CREATE TABLE … AS is not supported; create the table, then INSERT … SELECT",
        );
    }
    Ok(())
}

/// Aggregates whose result grows with each row.
const GROWING: [&str; 6] = [
    "group_concat",
    "string_agg",
    "json_group_array",
    "json_group_object",
    "jsonb_group_array",
    "jsonb_group_object",
];

/// The first of them that is used over a window: no VM steps tell what that costs.
fn growing_window(sql: &str) -> Option<&'static str> {
    let mut open = Vec::new();
    let (mut name, mut closed) = (None, None);
    for (_, token) in Lexer::new(sql) {
        match token {
            Token::Symbol('(') => open.push(name.take()),
            Token::Symbol(')') => {
                closed = open.pop().flatten();
                name = None;
                continue;
            }
            token if token.is("OVER") && closed.is_some() => return closed,
            // FILTER (…) may stand between.
            token if token.is("FILTER") && closed.is_some() => name = closed,
            token => {
                let word = access::table_of(token);
                name = word.and_then(|word| GROWING.into_iter().find(|known| *known == word));
            }
        }
        closed = None;
    }
    None
}

/// The tables of `REPLACE INTO t`, `INSERT OR REPLACE INTO t` and `UPDATE OR REPLACE t`, also those
/// in a trigger's body, in lower case.
pub(crate) fn replaced(sql: &str) -> Vec<String> {
    let mut tables = Vec::new();
    let mut tokens = Lexer::new(sql).map(|(_, token)| token).peekable();
    let mut last = Token::Symbol(';');
    while let Some(token) = tokens.next() {
        let is_clause = token.is("REPLACE") && last.is("OR");
        let is_verb = token.is("REPLACE") && tokens.peek().is_some_and(|next| next.is("INTO"));
        last = token;
        if !(is_clause || is_verb) {
            continue;
        }
        let _ = tokens.next_if(|next| next.is("INTO"));
        let mut name = tokens.next();
        if tokens.next_if_eq(&Token::Symbol('.')).is_some() {
            name = tokens.next();
        }
        tables.extend(name.and_then(access::table_of));
    }
    tables
}

#[derive(Default)]
struct Scope {
    exists: bool,
    ordered: bool,
}

/// `CREATE TABLE [IF NOT EXISTS] [schema.]name AS`: AS before any parenthesis.
fn is_create_as(sql: &str) -> bool {
    statement(sql)
        .take_while(|token| *token != Token::Symbol('('))
        .skip(2)
        .any(|token| token.is("AS"))
}

/// Whether there is anything in double quotes, which a setting of the transaction may take for a
/// string.
pub fn has_double_quotes(sql: &str) -> bool {
    sql.contains('"')
        && Lexer::new(sql)
            .any(|(_, token)| matches!(token, Token::Quoted(text) if text.starts_with('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_known_by_their_words() {
        let cases = [
            ("", StatementKind::Empty, Access::Empty),
            (" -- nothing\n /* at all */ ;", StatementKind::Empty, Access::Empty),
            ("select 1", StatementKind::Select, Access::Read),
            ("/* a */ VALUES (1)", StatementKind::Select, Access::Read),
            (
                "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
                StatementKind::Insert,
                Access::Write,
            ),
            ("with a(x) as (delete) select 1", StatementKind::Select, Access::Read),
            ("REPLACE INTO t VALUES (1)", StatementKind::Insert, Access::Write),
            ("create unique index i on t(a)", StatementKind::CreateIndex, Access::Write),
            ("ROLLBACK TO s", StatementKind::RollbackTo, Access::Session),
            ("EXPLAIN DELETE FROM t", StatementKind::Explain, Access::Read),
            ("COPY \"t\" FROM STDIN (FORMAT csv)", StatementKind::Copy, Access::Write),
            ("VACUUM", StatementKind::Other, Access::Write),
            (";; SELECT 1", StatementKind::Select, Access::Read),
        ];
        for (sql, kind, access) in cases {
            assert_eq!(classify(sql), Classified { kind, access }, "{sql}");
        }
    }

    #[test]
    fn a_script_is_split_only_where_statements_end() {
        let trigger =
            "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END";
        let script =
            format!("SELECT ';' ; -- ; \n {trigger} ;;INSERT INTO \"a;b\" VALUES (1) /* ; */");
        let expected = ["SELECT ';'", trigger, "INSERT INTO \"a;b\" VALUES (1) /* ; */"];
        assert_eq!(split(&script), expected);
        assert_eq!(split("SELECT 'open ; SELECT 2"), ["SELECT 'open ; SELECT 2"]);
    }

    #[test]
    fn what_would_end_the_block_or_take_any_rows_is_refused() {
        let refused = [
            "INSERT OR ROLLBACK INTO t VALUES (1)",
            "CREATE TABLE t(a UNIQUE ON CONFLICT ROLLBACK)",
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT raise ( ROLLBACK, 'x'); END",
            "INSERT INTO t SELECT a FROM u LIMIT 1",
            "DELETE FROM t WHERE a IN (SELECT a FROM t ORDER BY a) AND b = (SELECT 1 LIMIT 1)",
            "CREATE TABLE t AS SELECT 1",
            "CREATE TABLE IF NOT EXISTS main.t AS VALUES (1)",
        ];
        for sql in refused {
            assert!(forbidden(sql, classify(sql).kind).is_err(), "{sql}");
        }
        let allowed = [
            "INSERT INTO t SELECT a FROM u ORDER BY a LIMIT 1",
            "INSERT INTO t VALUES ('OR ROLLBACK LIMIT 1')",
            "UPDATE t SET a = 1 WHERE EXISTS (SELECT 1 FROM u LIMIT 1)",
            "SELECT a FROM t LIMIT 3",
            "CREATE TABLE t(a AS (1))",
            "INSERT INTO t SELECT string_agg(a, ','), count(*) OVER () FROM u GROUP BY b",
            "INSERT INTO t(a, \"rollback\") SELECT a, rank() OVER (ORDER BY a) FROM u",
        ];
        for sql in allowed {
            assert_eq!(forbidden(sql, classify(sql).kind), Ok(()), "{sql}");
        }
    }

    #[test]
    fn tables_whose_rows_are_replaced_are_found_by_the_words() {
        for (sql, want) in [
            ("REPLACE INTO t VALUES (1)", &["t"][..]),
            ("WITH x AS (SELECT 1) INSERT OR /**/ REPLACE INTO main.\"T\" SELECT 1", &["t"]),
            ("UPDATE OR REPLACE [a b] SET x = 1", &["a b"]),
            (
                "CREATE TRIGGER r AFTER INSERT ON t BEGIN REPLACE INTO u VALUES (1); \
                 UPDATE OR REPLACE v SET a = 1; END",
                &["u", "v"],
            ),
            ("INSERT INTO t SELECT replace(a, 'x', 'OR REPLACE INTO u') FROM v", &[]),
            ("CREATE TABLE t(a UNIQUE ON CONFLICT REPLACE)", &[]),
            ("SELECT 1 WHERE 0 OR replace(1, 2, 3)", &[]),
        ] {
            assert_eq!(replaced(sql), want, "{sql}");
        }
    }

    #[test]
    fn tokens_are_cut_where_sqlite_cuts_them() {
        let cases: [(&str, &[&str]); 18] = [
            ("\u{feff}a\u{feff}b \u{feff} \u{b}c", &["a\u{feff}b", "c"]),
            ("$a('x') b", &["$a('x')", "b"]),
            ("@a(\"b) c", &["@a(\"b)", "c"]),
            ("$a(' b", &["$a('", "b"]),
            (":a(1)(2)", &[":a(1)", "(", "2", ")"]),
            ("$1::int=#b::c:d", &["$1::int", "=", "#b::c", ":d"]),
            ("?LIMIT ?1a", &["?", "LIMIT", "?1", "a"]),
            ("a::b $ :", &["a", ":", ":b", "$", ":"]),
            ("1e5 1e+5 1.5E-3 .5 1_0", &["1e5", "1e+5", "1.5E-3", ".5", "1_0"]),
            ("1e+ 0x1F.5 1.a 7.", &["1e", "+", "0x1F", ".5", "1.a", "7."]),
            ("x'00' X'a''b' x", &["x'00'", "X'a'", "'b'", "x"]),
            ("a$b $b$c é", &["a$b", "$b$c", "é"]),
            ("a -- b\n/*/ c */ d /*", &["a", "d", "/", "*"]),
            ("[a'b] `c``d` \"e\"\"f\"", &["[a'b]", "`c``d`", "\"e\"\"f\""]),
            ("a->--b\nc", &["a", "-", ">", "c"]),
            ("a\0b 'c", &["a"]),
            ("'a\0b'", &["'a"]),
            ("t1.a.5", &["t1", ".", "a", ".5"]),
        ];
        for (sql, want) in cases {
            let starts: Vec<(usize, Token<'_>)> = Lexer::new(sql).collect();
            let texts: Vec<String> = starts.iter().map(|(_, token)| text(token)).collect();
            assert_eq!(texts, want, "{sql:?}");
            assert!(starts.iter().all(|(at, token)| sql[*at..].starts_with(&text(token))));
        }
    }

    fn text(token: &Token<'_>) -> String {
        match token {
            Token::Word(text)
            | Token::Quoted(text)
            | Token::Text(text)
            | Token::Parameter(text) => (*text).to_owned(),
            Token::Symbol(symbol) => symbol.to_string(),
        }
    }

    #[test]
    fn a_statement_in_disguise_is_seen_as_what_sqlite_runs() {
        let mark = '\u{feff}';
        for (sql, kind) in [
            (format!("{mark}EXPLAIN SELECT 1"), StatementKind::Explain),
            (format!(";;{mark}; EXPLAIN SELECT 1"), StatementKind::Explain),
            (format!("WITH a AS (SELECT 1) {mark}INSERT INTO t SELECT 1"), StatementKind::Insert),
            ("WITH a AS (SELECT $a(')) DELETE FROM t --')".into(), StatementKind::Delete),
            ("WITH a AS (SELECT ?) UPDATE t SET a = 1".into(), StatementKind::Update),
            (format!("CREATE {mark}TABLE t(a)"), StatementKind::CreateTable),
            ("SELECT 1\0 INTO t".into(), StatementKind::Select),
        ] {
            assert_eq!(classify(&sql).kind, kind, "{sql}");
            let reads = matches!(kind, StatementKind::Explain | StatementKind::Select);
            assert_eq!(classify(&sql).access == Access::Read, reads, "{sql}");
        }
        for sql in [
            format!("INSERT OR {mark}ROLLBACK INTO t VALUES (1)"),
            format!("INSERT INTO t SELECT a FROM u {mark}LIMIT 1"),
            "INSERT INTO t SELECT a FROM u WHERE a = ?LIMIT 1".into(),
            "INSERT INTO t SELECT $a('),a FROM u LIMIT 1 --'".into(),
            "INSERT OR ROLLBACK INTO t VALUES (@b(\"), 1) --\"".into(),
            format!("{mark}VACUUM"),
            "; ANALYZE".into(),
            ";CREATE TABLE t AS SELECT 1".into(),
            "SELECT 1, \"String_Agg\"(a, ',') FILTER (WHERE a) OVER (ORDER BY b) FROM t".into(),
            "CREATE VIEW v AS SELECT json_group_array((a)) OVER w FROM t WINDOW w AS ()".into(),
        ] {
            assert!(forbidden(&sql, classify(&sql).kind).is_err(), "{sql}");
        }
    }

    /// What SQLite takes as one statement that reads is never seen as one that does not, nor the
    /// other way round, whatever stands between its words.
    #[test]
    fn sqlite_agrees_on_what_writes() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
        let between = [
            " ",
            "\u{feff}",
            " \u{feff}",
            "/**/",
            "/*/ */",
            "\u{b}",
            " \u{b}",
            "--\n",
            "\u{a0}",
            ";",
            "$a(')",
            ",$a('),",
            "?",
            "1e5",
            "x'00'",
            "#1",
            "\0",
            "[",
            "::",
            "$b::",
            "\u{c}",
        ];
        let mut agreed = 0;
        for first in ["", "WITH x AS (SELECT 1)", "EXPLAIN"] {
            for gap in between {
                for verb in ["SELECT 1", "INSERT INTO t SELECT 1", "DELETE FROM t"] {
                    for sql in [format!("{first}{gap}{verb}"), format!("{gap}{first} {verb}{gap}")]
                    {
                        let Ok(prepared) = connection.prepare(&sql) else { continue };
                        let found = classify(&sql);
                        let explains = found.kind == StatementKind::Explain;
                        assert_eq!(explains, prepared.is_explain() != 0, "{sql:?}");
                        let writes = found.access == Access::Write;
                        assert!(explains || writes != prepared.readonly(), "{sql:?}");
                        agreed += 1;
                    }
                }
            }
        }
        assert!(agreed > 100, "only {agreed} are SQL");
    }

    #[test]
    fn any_bytes_can_be_lexed() {
        for sql in
            ["'", "\"", "[", "/*", "--", "$", ":", "é'ü", "\u{0}", "a'b''c", "x'00", "$a(", "$::"]
        {
            assert!(Lexer::new(sql).count() <= sql.len());
            split(sql);
            classify(sql);
        }
    }
}
