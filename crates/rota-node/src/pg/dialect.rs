//! PostgreSQL's spellings in SQLite's words. Step 1 of a transaction's life: what is signed is
//! SQLite's dialect.
//!
//! ```text
//!  SELECT $1::int + pg_catalog.abs(x), E'a\nb' FROM public.t
//!    └► tokens ► pieces, each kept or respelled ►
//!  SELECT CAST(?1 AS INTEGER) + abs(x), 'a⏎b' FROM t
//! ```
//!
//! What is not here reaches SQLite as it is, and it says what it does not understand. Strings,
//! names and comments are never touched: see `lexer`.

use std::borrow::Cow;

use rota_core::error::{Refusal, sqlstate};

use super::encode::{Oid, oid};
use super::lexer::{Kind, Token, tokens};

/// SQL in SQLite's words, and what was seen on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    /// None for what is accepted and does nothing; several where PostgreSQL's one statement takes
    /// several of SQLite's. Only the last may take parameters or give rows.
    pub(crate) statements: Vec<String>,
    /// The command tag, where it is not what the last statement says of itself.
    pub(crate) tag: Option<&'static str>,
    /// Warnings for the client: what it asked for that is not as it thinks.
    pub(crate) notices: Vec<String>,
    /// How many parameters it takes.
    pub(crate) parameters: usize,
    /// Parameters that are cast somewhere: their number, from 1, and the type.
    pub(crate) casts: Vec<(usize, Oid)>,
    /// Whether there is a RETURNING clause.
    pub(crate) returning: bool,
}

/// Translates a statement or a script.
pub(crate) fn translate(sql: &str) -> Result<Translated, Refusal> {
    let mut translation = Translation { input: tokens(sql), ..Translation::default() };
    while let Some(token) = translation.input.get(translation.next).copied() {
        translation.next += 1;
        translation.step(token)?;
    }
    let mut text = String::with_capacity(sql.len() + 16);
    for piece in &translation.output {
        text.push_str(&piece.text);
    }
    Ok(Translated {
        statements: vec![text],
        tag: None,
        notices: Vec::new(),
        parameters: translation.parameters,
        casts: translation.casts,
        returning: translation.returning,
    })
}

/// A script with PostgreSQL's own kinds of strings respelled, so that it can be split into
/// statements by SQLite's rules.
pub(crate) fn plain_strings(script: &str) -> Result<Cow<'_, str>, Refusal> {
    let escaped = || script.as_bytes().windows(2).any(|two| matches!(two, [b'e' | b'E', b'\'']));
    if !script.contains('$') && !escaped() {
        return Ok(Cow::Borrowed(script));
    }
    let pieces = tokens(script).into_iter().map(|token| match token.kind {
        Kind::Escaped => unescape(token.text).map(Cow::Owned),
        Kind::Dollar => Ok(Cow::Owned(undollar(token.text))),
        _ => Ok(Cow::Borrowed(token.text)),
    });
    pieces.collect::<Result<String, Refusal>>().map(Cow::Owned)
}

/// A token in the output, perhaps respelled.
struct Piece<'a> {
    kind: Kind,
    text: Cow<'a, str>,
    /// The parameter that this is, for a cast of it.
    parameter: Option<usize>,
}

#[derive(Default)]
struct Translation<'a> {
    input: Vec<Token<'a>>,
    next: usize,
    output: Vec<Piece<'a>>,
    parameters: usize,
    casts: Vec<(usize, Oid)>,
    returning: bool,
}

impl<'a> Translation<'a> {
    fn step(&mut self, token: Token<'a>) -> Result<(), Refusal> {
        match token.kind {
            Kind::Numbered(number) => self.parameter(number)?,
            Kind::Question(Some(number)) => self.parameter(number)?,
            Kind::Question(None) => self.parameter(self.parameters + 1)?,
            Kind::Escaped => self.push(Kind::Text, unescape(token.text)?),
            Kind::Dollar => self.push(Kind::Text, undollar(token.text)),
            Kind::Cast => self.cast()?,
            Kind::Word => self.word(token)?,
            Kind::Quoted if token.text == "\"public\"" && self.skip_dot() => {}
            Kind::Quoted if token.text == "\"pg_catalog\"" && self.skip_dot() => {}
            _ => self.push(token.kind, token.text),
        }
        Ok(())
    }

    fn push(&mut self, kind: Kind, text: impl Into<Cow<'a, str>>) {
        self.output.push(Piece { kind, text: text.into(), parameter: None });
    }

    fn parameter(&mut self, number: usize) -> Result<(), Refusal> {
        if number == 0 || number > usize::from(u16::MAX) {
            return Err(Refusal::new("42P02", format!("there is no parameter ${number}")));
        }
        self.parameters = self.parameters.max(number);
        let kind = Kind::Question(Some(number));
        let text = Cow::Owned(format!("?{number}"));
        self.output.push(Piece { kind, text, parameter: Some(number) });
        Ok(())
    }

    fn word(&mut self, token: Token<'a>) -> Result<(), Refusal> {
        let after_dot = self.last().is_some_and(|piece| piece.kind == Kind::Symbol('.'));
        if after_dot {
            self.push(token.kind, token.text);
            return Ok(());
        }
        match token.text.to_ascii_lowercase().as_str() {
            "pg_catalog" | "public" if self.skip_dot() => {}
            "returning" => {
                self.returning = true;
                self.push(token.kind, token.text);
            }
            "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2"
                if self.after_a_name() =>
            {
                self.serial()?;
            }
            "int" | "int4" | "int8" | "integer" | "bigint" if self.identity() => {
                self.push(Kind::Word, "INTEGER PRIMARY KEY AUTOINCREMENT");
            }
            "ilike" => self.push(Kind::Word, "LIKE"),
            "truncate" if self.at_start() => {
                if self.peek().is_some_and(|next| next.is("table")) {
                    self.skip_word();
                }
                self.push(Kind::Word, "DELETE FROM");
            }
            "default" => {
                self.push(token.kind, token.text);
                self.default_value();
            }
            "current_user" | "session_user" | "current_role" => self.push(Kind::Text, "'rota'"),
            "current_catalog" => self.push(Kind::Text, "'rota'"),
            "current_schema" if self.peek().is_none_or(|next| next.text != "(") => {
                self.push(Kind::Text, "'public'");
            }
            _ => self.push(token.kind, token.text),
        }
        Ok(())
    }

    /// The last piece that is not white space.
    fn last(&self) -> Option<&Piece<'a>> {
        self.output.iter().rev().find(|piece| piece.kind != Kind::Space)
    }

    fn at_start(&self) -> bool {
        self.last().is_none_or(|piece| piece.kind == Kind::Symbol(';'))
    }

    fn after_a_name(&self) -> bool {
        self.last().is_some_and(|piece| matches!(piece.kind, Kind::Word | Kind::Quoted))
    }

    /// The next token that is not white space, `skip` of them left out.
    fn ahead(&self, skip: usize) -> Option<&Token<'a>> {
        let rest = self.input.get(self.next..)?;
        rest.iter().filter(|token| token.kind != Kind::Space).nth(skip)
    }

    fn peek(&self) -> Option<&Token<'a>> {
        self.ahead(0)
    }

    fn comes(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(place, word)| {
            self.ahead(place).is_some_and(|token| token.text.eq_ignore_ascii_case(word))
        })
    }

    /// Skips a token and the white space before it.
    fn skip_word(&mut self) {
        while let Some(token) = self.input.get(self.next) {
            self.next += 1;
            if token.kind != Kind::Space {
                return;
            }
        }
    }

    /// Skips a `.` that comes right now.
    fn skip_dot(&mut self) -> bool {
        let dot = self.input.get(self.next).is_some_and(|next| next.kind == Kind::Symbol('.'));
        self.next += usize::from(dot);
        dot
    }

    /// `id SERIAL [NOT NULL] PRIMARY KEY`: SQLite hands out the numbers.
    fn serial(&mut self) -> Result<(), Refusal> {
        if self.comes(&["not", "null", "primary", "key"]) {
            (0..4).for_each(|_| self.skip_word());
        } else if self.comes(&["primary", "key"]) {
            (0..2).for_each(|_| self.skip_word());
        } else {
            return Err(unsupported(
                "SERIAL is understood as `name SERIAL PRIMARY KEY` only: the generated numbers are \
                 those of SQLite's INTEGER PRIMARY KEY AUTOINCREMENT",
            ));
        }
        self.push(Kind::Word, "INTEGER PRIMARY KEY AUTOINCREMENT");
        Ok(())
    }

    /// `INT GENERATED {ALWAYS | BY DEFAULT} AS IDENTITY PRIMARY KEY`, in either order: skipped if
    /// it comes.
    fn identity(&mut self) -> bool {
        const SPELLINGS: [&[&str]; 4] = [
            &["generated", "always", "as", "identity", "primary", "key"],
            &["generated", "by", "default", "as", "identity", "primary", "key"],
            &["primary", "key", "generated", "always", "as", "identity"],
            &["primary", "key", "generated", "by", "default", "as", "identity"],
        ];
        let found = SPELLINGS.iter().find(|words| self.comes(words));
        if let Some(words) = found {
            (0..words.len()).for_each(|_| self.skip_word());
        }
        found.is_some()
    }

    /// SQLite wants parentheses around a default that calls a function: `DEFAULT now()`.
    fn default_value(&mut self) {
        let call = self.peek().is_some_and(|token| token.kind == Kind::Word)
            && self.ahead(1).is_some_and(|token| token.text == "(");
        if !call {
            return;
        }
        let mut depth = 0usize;
        self.push(Kind::Symbol('('), " (");
        while self.input.get(self.next).is_some_and(|token| token.kind == Kind::Space) {
            self.next += 1;
        }
        while let Some(token) = self.input.get(self.next).copied() {
            self.next += 1;
            match token.text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.push(token.kind, token.text);
            if token.text == ")" && depth == 0 {
                break;
            }
        }
        self.push(Kind::Symbol(')'), ")");
    }

    /// `expression::type`: the expression is what was last put out.
    fn cast(&mut self) -> Result<(), Refusal> {
        let target = self.type_name()?;
        while self.output.last().is_some_and(|piece| piece.kind == Kind::Space) {
            self.output.pop();
        }
        let start = self.expression_start();
        let pieces: Vec<Piece<'a>> = self.output.drain(start..).collect();
        if let [Piece { parameter: Some(number), .. }] = pieces.as_slice() {
            self.casts.push((*number, target.oid));
        }
        let literal = match pieces.as_slice() {
            [Piece { kind: Kind::Text, text, .. }] => cast_literal(text, target.oid),
            _ => None,
        };
        let text: String = pieces.iter().map(|piece| piece.text.as_ref()).collect();
        let text = match (literal, target.sqlite) {
            (Some(literal), _) => literal,
            (None, Some(name)) => format!("CAST({text} AS {name})"),
            (None, None) => text,
        };
        // Whole: another cast may follow, and it must not be taken apart.
        self.push(Kind::Quoted, text);
        Ok(())
    }

    /// Where the operand of a cast begins in the output: a literal, a name with dots, a call, or
    /// parentheses.
    fn expression_start(&self) -> usize {
        let Some(last) = self.output.len().checked_sub(1) else { return 0 };
        let kind = |place: usize| self.output.get(place).map(|piece| piece.kind);
        let mut start = last;
        if kind(last) == Some(Kind::Symbol(')')) {
            let mut depth = 0usize;
            for (place, piece) in self.output.iter().enumerate().rev() {
                match piece.kind {
                    Kind::Symbol(')') => depth += 1,
                    Kind::Symbol('(') => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 {
                    start = place;
                    break;
                }
            }
            let called = start.checked_sub(1).and_then(|place| self.output.get(place));
            match called {
                Some(piece) if piece.kind == Kind::Word && !is_operator(&piece.text) => start -= 1,
                _ => return start,
            }
        }
        while let Some(dot) = start.checked_sub(1) {
            let name = dot.checked_sub(1).and_then(kind);
            let dotted = kind(dot) == Some(Kind::Symbol('.'));
            if !dotted || !matches!(name, Some(Kind::Word | Kind::Quoted)) {
                break;
            }
            start = dot - 1;
        }
        start
    }

    fn type_name(&mut self) -> Result<CastType, Refusal> {
        if self.comes(&["pg_catalog", "."]) {
            (0..2).for_each(|_| self.skip_word());
        }
        let name = self.peek().and_then(Token::name).unwrap_or_default();
        self.skip_word();
        const SECOND_WORDS: [&[&str]; 6] = [
            &["precision"],
            &["varying"],
            &["with", "time", "zone"],
            &["without", "time", "zone"],
            &["with", "local", "time", "zone"],
            &["large", "object"],
        ];
        if let Some(words) = SECOND_WORDS.iter().find(|words| self.comes(words)) {
            (0..words.len()).for_each(|_| self.skip_word());
        }
        if self.peek().is_some_and(|token| token.text == "(") {
            while let Some(token) = self.peek().copied() {
                self.skip_word();
                if token.text == ")" {
                    break;
                }
            }
        }
        if self.peek().is_some_and(|token| token.text.starts_with('[')) {
            return Err(unsupported("there are no arrays"));
        }
        cast_type(&name)
    }
}

/// What a cast's type is for SQLite (`None`: the value stays as it is) and for PostgreSQL.
struct CastType {
    sqlite: Option<&'static str>,
    oid: Oid,
}

fn cast_type(name: &str) -> Result<CastType, Refusal> {
    let (sqlite, oid) = match name {
        "int" | "integer" | "int2" | "int4" | "int8" | "bigint" | "smallint" | "serial" => {
            (Some("INTEGER"), oid::INT8)
        }
        "bool" | "boolean" => (Some("INTEGER"), oid::BOOL),
        "float" | "float4" | "float8" | "real" | "double" => (Some("REAL"), oid::FLOAT8),
        "numeric" | "decimal" => (Some("NUMERIC"), oid::NUMERIC),
        "text" | "varchar" | "char" | "bpchar" | "character" | "name" | "json" | "jsonb"
        | "uuid" | "date" | "time" | "timetz" | "timestamp" | "timestamptz" => {
            (Some("TEXT"), oid::TEXT)
        }
        "bytea" | "blob" => (Some("BLOB"), oid::BYTEA),
        "regclass" | "regtype" | "regproc" | "regprocedure" | "regnamespace" | "oid"
        | "unknown" => (None, oid::TEXT),
        "" => return Err(Refusal::new(sqlstate::SYNTAX_ERROR, "a type is missing after `::`")),
        other => return Err(unsupported(&format!("there is no type {other} to cast to"))),
    };
    Ok(CastType { sqlite, oid })
}

/// Casts of a string to a type whose spelling in it SQLite does not know.
fn cast_literal(text: &str, target: Oid) -> Option<String> {
    let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
    match target {
        oid::BOOL => match inner.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Some("1".into()),
            "f" | "false" | "n" | "no" | "off" | "0" => Some("0".into()),
            _ => None,
        },
        oid::BYTEA => {
            let digits = inner.strip_prefix("\\x")?;
            hex::decode(digits).ok().map(|_| format!("x'{digits}'"))
        }
        oid::TEXT => Some(text.to_owned()),
        _ => None,
    }
}

/// Words before parentheses that are not the name of a function.
fn is_operator(word: &str) -> bool {
    const WORDS: [&str; 24] = [
        "and",
        "or",
        "not",
        "in",
        "is",
        "like",
        "ilike",
        "between",
        "select",
        "where",
        "on",
        "values",
        "then",
        "else",
        "when",
        "case",
        "set",
        "by",
        "having",
        "limit",
        "offset",
        "returning",
        "using",
        "as",
    ];
    WORDS.iter().any(|operator| word.eq_ignore_ascii_case(operator))
}

/// `E'a\n'` as a plain string (PostgreSQL 4.1.2.2).
fn unescape(token: &str) -> Result<String, Refusal> {
    let inner = token.get(2..).and_then(|rest| rest.strip_suffix('\''));
    let Some(inner) = inner else {
        return Err(Refusal::new(sqlstate::SYNTAX_ERROR, "an E'…' string is not closed"));
    };
    let mut bytes = Vec::with_capacity(inner.len() + 2);
    let mut rest = inner.as_bytes();
    let digits = |from: &[u8], most: usize, radix: u32| -> (u32, usize) {
        let count = from.iter().take(most).take_while(|&&b| char::from(b).is_digit(radix)).count();
        let text = from.get(..count).and_then(|found| std::str::from_utf8(found).ok());
        (text.and_then(|text| u32::from_str_radix(text, radix).ok()).unwrap_or(0), count)
    };
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let Some((&escape, after)) = rest.split_first().filter(|_| byte == b'\\') else {
            bytes.push(byte);
            continue;
        };
        let (taken, width) = match escape {
            b'x' => (digits(after, 2, 16), None),
            b'0'..=b'7' => (digits(rest, 3, 8), None),
            b'u' => (digits(after, 4, 16), Some(4)),
            b'U' => (digits(after, 8, 16), Some(8)),
            _ => ((0, 0), None),
        };
        rest = if matches!(escape, b'0'..=b'7') { rest } else { after };
        rest = rest.get(taken.1..).unwrap_or_default();
        match (escape, taken) {
            (b'b', _) => bytes.push(8),
            (b'f', _) => bytes.push(12),
            (b'n', _) => bytes.push(b'\n'),
            (b'r', _) => bytes.push(b'\r'),
            (b't', _) => bytes.push(b'\t'),
            (b'u' | b'U', (code, count)) => {
                let character = char::from_u32(code).filter(|_| Some(count) == width);
                let character =
                    character.ok_or_else(|| bad_escape("\\u needs a character's code"))?;
                bytes.extend(character.to_string().bytes());
            }
            (b'x' | b'0'..=b'7', (code, count)) if count > 0 => bytes.push((code & 0xff) as u8),
            (b'\'', _) => bytes.extend(b"''"),
            (other, _) => bytes.push(other),
        }
        if bytes.last() == Some(&0) {
            return Err(bad_escape("a string may not contain the character of code 0"));
        }
        if escape != b'\'' && bytes.last() == Some(&b'\'') {
            bytes.push(b'\'');
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| bad_escape("not UTF-8 once unescaped"))?;
    Ok(format!("'{text}'"))
}

/// `$tag$text$tag$` as a plain string.
fn undollar(token: &str) -> String {
    let tag = token.get(1..).and_then(|rest| rest.find('$')).map_or(1, |end| end + 2);
    let inner = token.get(tag..token.len().saturating_sub(tag)).unwrap_or("");
    format!("'{}'", inner.replace('\'', "''"))
}

fn bad_escape(message: &str) -> Refusal {
    Refusal::new("22025", message)
}

fn unsupported(message: &str) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_postgresql_become_those_of_sqlite() {
        for (postgresql, sqlite) in [
            ("SELECT $1, $2", "SELECT ?1, ?2"),
            ("SELECT ?, ?", "SELECT ?1, ?2"),
            ("SELECT $1::int", "SELECT CAST(?1 AS INTEGER)"),
            ("SELECT a.b::text||'x'", "SELECT CAST(a.b AS TEXT)||'x'"),
            ("SELECT -1::bigint", "SELECT -CAST(1 AS INTEGER)"),
            ("SELECT (1+2)::float8", "SELECT CAST((1+2) AS REAL)"),
            ("SELECT f(x, g(1))::int + 1", "SELECT CAST(f(x, g(1)) AS INTEGER) + 1"),
            ("WHERE a IN (1)::int", "WHERE a IN CAST((1) AS INTEGER)"),
            ("SELECT '1'::text::int", "SELECT CAST('1' AS INTEGER)"),
            ("SELECT x::int::text", "SELECT CAST(CAST(x AS INTEGER) AS TEXT)"),
            ("SELECT 't'::bool, 'no'::boolean", "SELECT 1, 0"),
            (r"SELECT '\x00ff'::bytea", "SELECT x'00ff'"),
            ("SELECT x::double precision", "SELECT CAST(x AS REAL)"),
            ("SELECT x::character varying(10)", "SELECT CAST(x AS TEXT)"),
            ("SELECT x::timestamp with time zone,1", "SELECT CAST(x AS TEXT),1"),
            ("SELECT x::numeric(10, 2)", "SELECT CAST(x AS NUMERIC)"),
            ("SELECT x::pg_catalog.text", "SELECT CAST(x AS TEXT)"),
            ("SELECT pg_catalog.version()", "SELECT version()"),
            ("SELECT * FROM public.t, \"public\".u", "SELECT * FROM t, u"),
            (r"SELECT E'it\'s\n\x41\u00e9\\'", "SELECT 'it''s\nAé\\'"),
            ("SELECT $$it's$$, $a$$1$a$", "SELECT 'it''s', '$1'"),
            ("a ILIKE 'x'", "a LIKE 'x'"),
            ("TRUNCATE TABLE t", "DELETE FROM t"),
            ("CREATE TABLE t(id SERIAL PRIMARY KEY, a int)", ""),
            ("CREATE TABLE t(id bigserial NOT NULL PRIMARY KEY, a int)", ""),
            ("CREATE TABLE t(id INT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a int)", ""),
            ("CREATE TABLE t(id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, a int)", ""),
            ("a text DEFAULT now() NOT NULL", "a text DEFAULT (now()) NOT NULL"),
            ("a int DEFAULT 1", "a int DEFAULT 1"),
            ("SELECT current_user, t.current_user", "SELECT 'rota', t.current_user"),
        ] {
            let want = if sqlite.is_empty() {
                "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a int)"
            } else {
                sqlite
            };
            let got = translate(postgresql).unwrap().statements.join("; ");
            let spaces = |text: &str| text.replace("  ", " ");
            assert_eq!(spaces(&got), want, "{postgresql}");
        }
    }

    #[test]
    fn strings_names_and_comments_stay_as_they_are() {
        let sql = "SELECT '$1::int ''public.', \"$1::int\", [a::b] /* $1::int */ -- public.t $9\n";
        let translated = translate(sql).unwrap();
        assert_eq!(translated.statements, [sql]);
        assert_eq!(translated.parameters, 0);
    }

    #[test]
    fn parameters_are_counted_and_their_casts_noted() {
        let translated = translate("SELECT $2::int, $1::text, $2 RETURNING 1").unwrap();
        assert_eq!(translated.parameters, 2);
        assert_eq!(translated.casts, [(2, oid::INT8), (1, oid::TEXT)]);
        assert!(translated.returning);
        assert!(!translate("SELECT 'returning', \"returning\"").unwrap().returning);
    }

    #[test]
    fn what_cannot_be_translated_is_refused_with_a_reason() {
        for (sql, code) in [
            ("SELECT x::int[]", "0A000"),
            ("SELECT x::interval", "0A000"),
            ("SELECT x::", "42601"),
            ("CREATE TABLE t(id SERIAL)", "0A000"),
            (r"SELECT E'\u12'", "22025"),
            (r"SELECT E'\xff'", "22025"),
            ("SELECT E'open", "42601"),
            ("SELECT $0", "42P02"),
            ("SELECT $99999999999999999999", "42P02"),
        ] {
            assert_eq!(translate(sql).unwrap_err().code(), code, "{sql}");
        }
    }

    #[test]
    fn nothing_panics_the_translation() {
        for sql in ["::", "::int", ")::int", "()::int", "DEFAULT f(", "E'\\", "a.::int", "$$", "("]
        {
            let _ = translate(sql);
        }
    }
}
