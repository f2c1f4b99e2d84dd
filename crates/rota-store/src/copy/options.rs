//! Reading a COPY statement: PostgreSQL's grammar with options in parentheses, and the two older
//! ones without (steps 1 and 8).

use std::iter::Peekable;

use rota_core::error::{Refusal, sqlstate};

use super::{Copy, Direction, Format, Header, Options, Source, Which};
use crate::sql::{Lexer, Token};

pub(super) fn parse(sql: &str) -> Result<Copy, Refusal> {
    let mut words = Words { sql, tokens: Lexer::new(sql).peekable() };
    if !words.skip("COPY") {
        return Err(syntax("this is not a COPY statement"));
    }
    let mut given = Given::default();
    if words.skip("BINARY") {
        given.format = Some(Format::Binary);
    }
    let source = words.source()?;
    let direction = if words.skip("FROM") {
        Direction::In
    } else if words.skip("TO") {
        Direction::Out
    } else {
        return Err(syntax("COPY needs FROM STDIN or TO STDOUT"));
    };
    if direction == Direction::In && matches!(source, Source::Query(_)) {
        return Err(syntax("COPY (query) can only be TO STDOUT"));
    }
    words.end_of_the_line()?;
    if words.skip("USING") {
        if !words.skip("DELIMITERS") {
            return Err(syntax("DELIMITERS belongs after USING"));
        }
        given.delimiter = Some(words.text("DELIMITERS")?);
    }
    let with = words.skip("WITH");
    if words.symbol('(') {
        words.new_options(&mut given)?;
    } else {
        let before = given.clone();
        words.old_options(&mut given)?;
        if with && given == before {
            return Err(syntax("options belong after WITH"));
        }
    }
    if words.skip("WHERE") {
        return Err(unsupported("COPY … WHERE is not supported: copy to a table, then DELETE"));
    }
    words.symbol(';');
    if words.tokens.peek().is_some() {
        return Err(syntax("unexpected words after COPY's options"));
    }
    let options = given.options(direction)?;
    Ok(Copy { source, direction, options })
}

/// The rest of a statement.
struct Words<'a> {
    sql: &'a str,
    tokens: Peekable<Lexer<'a>>,
}

/// Options as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Given {
    format: Option<Format>,
    freeze: Option<bool>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<Header>,
    quote: Option<String>,
    escape: Option<String>,
    encoding: Option<String>,
    force_quote: Option<Which>,
    force_null: Option<Which>,
    force_not_null: Option<Which>,
    first_line: Option<u64>,
}

/// Sets an option that nobody has set before.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(syntax("conflicting or redundant options")),
    }
}

impl<'a> Words<'a> {
    fn is(&mut self, word: &str) -> bool {
        match self.tokens.peek() {
            Some((_, Token::Word(next))) => next.eq_ignore_ascii_case(word),
            _ => false,
        }
    }

    fn skip(&mut self, word: &str) -> bool {
        let is = self.is(word);
        if is {
            self.tokens.next();
        }
        is
    }

    fn symbol(&mut self, symbol: char) -> bool {
        self.tokens.next_if(|(_, token)| *token == Token::Symbol(symbol)).is_some()
    }

    fn next(&mut self) -> Option<Token<'a>> {
        self.tokens.next().map(|(_, token)| token)
    }

    /// A name, without its quotes; in lower case without them.
    fn name(&mut self) -> Result<String, Refusal> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word.to_ascii_lowercase()),
            Some(Token::Quoted(quoted)) => {
                let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
                Ok(inner.replace("\"\"", "\""))
            }
            _ => Err(syntax("a name is missing")),
        }
    }

    /// Names in parentheses, of which the first is read already.
    fn names(&mut self) -> Result<Vec<String>, Refusal> {
        let mut names = Vec::new();
        loop {
            names.push(self.name()?);
            if self.symbol(')') {
                return Ok(names);
            }
            if !self.symbol(',') {
                return Err(syntax("a list of names does not end"));
            }
        }
    }

    /// What is in quotes.
    fn text(&mut self, option: &str) -> Result<String, Refusal> {
        match self.next() {
            Some(Token::Text(text)) => Ok(unquoted(text)),
            _ => Err(syntax(&format!("{option} needs a value in quotes"))),
        }
    }

    fn source(&mut self) -> Result<Source, Refusal> {
        if self.symbol('(') {
            return self.query();
        }
        let mut name = self.name()?;
        let mut schema = None;
        if self.symbol('.') {
            schema = Some(std::mem::replace(&mut name, self.name()?));
        }
        let schema = schema.filter(|schema| schema != "public");
        let columns = if self.symbol('(') { self.names()? } else { Vec::new() };
        Ok(Source::Table { schema, name, columns })
    }

    /// What stands between the parentheses.
    fn query(&mut self) -> Result<Source, Refusal> {
        let start = self.tokens.peek().map_or(self.sql.len(), |(at, _)| *at);
        let mut depth = 1usize;
        for (at, token) in self.tokens.by_ref() {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let query = self.sql.get(start..at).unwrap_or_default().trim();
                if query.is_empty() {
                    return Err(syntax("COPY () needs a query"));
                }
                return Ok(Source::Query(query.to_owned()));
            }
        }
        Err(syntax("the query of COPY does not end"))
    }

    /// STDIN or STDOUT: PostgreSQL takes either for both.
    fn end_of_the_line(&mut self) -> Result<(), Refusal> {
        if self.skip("STDIN") || self.skip("STDOUT") {
            return Ok(());
        }
        let file = self.is("PROGRAM") || matches!(self.tokens.peek(), Some((_, Token::Text(_))));
        if file {
            return Err(Refusal::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                "COPY reads and writes no files and programs of the server: use COPY … FROM STDIN \
                 or TO STDOUT (in psql: \\copy)",
            ));
        }
        Err(syntax("COPY needs FROM STDIN or TO STDOUT"))
    }

    /// `(FORMAT csv, HEADER true, …)`, after the parenthesis.
    fn new_options(&mut self, given: &mut Given) -> Result<(), Refusal> {
        loop {
            let option = self.name()?;
            match option.as_str() {
                "format" => {
                    let format = self.word_or_text()?;
                    let format = match format.as_str() {
                        "text" => Format::Text,
                        "csv" => Format::Csv,
                        "binary" => Format::Binary,
                        _ => {
                            let message = format!("COPY format \"{format}\" not recognized");
                            return Err(invalid(&message));
                        }
                    };
                    once(&mut given.format, format)?;
                }
                "freeze" => {
                    let freeze = self.boolean()?;
                    once(&mut given.freeze, freeze)?;
                }
                "delimiter" => once(&mut given.delimiter, self.text("DELIMITER")?)?,
                "null" => once(&mut given.null, self.text("NULL")?)?,
                "header" => once(&mut given.header, self.header()?)?,
                "quote" => once(&mut given.quote, self.text("QUOTE")?)?,
                "escape" => once(&mut given.escape, self.text("ESCAPE")?)?,
                "encoding" => once(&mut given.encoding, self.text("ENCODING")?)?,
                "force_quote" => once(&mut given.force_quote, self.which()?)?,
                "force_null" => once(&mut given.force_null, self.which()?)?,
                "force_not_null" => once(&mut given.force_not_null, self.which()?)?,
                "first_line" => {
                    let number = self.word_or_text()?.parse().map_err(|_| invalid("FIRST_LINE"))?;
                    once(&mut given.first_line, number)?;
                }
                _ => return Err(syntax(&format!("option \"{option}\" not recognized"))),
            }
            if self.symbol(')') {
                return Ok(());
            }
            if !self.symbol(',') {
                return Err(syntax("COPY's options do not end"));
            }
        }
    }

    /// `CSV HEADER DELIMITER AS ';'`, the spelling before PostgreSQL 9.0.
    fn old_options(&mut self, given: &mut Given) -> Result<(), Refusal> {
        loop {
            if self.skip("BINARY") {
                once(&mut given.format, Format::Binary)?;
            } else if self.skip("CSV") {
                once(&mut given.format, Format::Csv)?;
            } else if self.skip("FREEZE") {
                once(&mut given.freeze, true)?;
            } else if self.skip("HEADER") {
                once(&mut given.header, Header::Skip)?;
            } else if self.skip("FORCE") {
                self.old_force(given)?;
            } else if self.is("DELIMITER") || self.is("DELIMITERS") {
                once(&mut given.delimiter, self.old_text("DELIMITER")?)?;
            } else if self.is("NULL") {
                once(&mut given.null, self.old_text("NULL")?)?;
            } else if self.is("QUOTE") {
                once(&mut given.quote, self.old_text("QUOTE")?)?;
            } else if self.is("ESCAPE") {
                once(&mut given.escape, self.old_text("ESCAPE")?)?;
            } else if self.is("ENCODING") {
                once(&mut given.encoding, self.old_text("ENCODING")?)?;
            } else {
                return Ok(());
            }
        }
    }

    fn old_text(&mut self, option: &str) -> Result<String, Refusal> {
        self.next();
        self.skip("AS");
        self.text(option)
    }

    /// `FORCE QUOTE`, `FORCE NULL`, `FORCE NOT NULL`, and columns without parentheses.
    fn old_force(&mut self, given: &mut Given) -> Result<(), Refusal> {
        let place = if self.skip("QUOTE") {
            &mut given.force_quote
        } else if self.skip("NULL") {
            &mut given.force_null
        } else if self.skip("NOT") && self.skip("NULL") {
            &mut given.force_not_null
        } else {
            return Err(syntax("FORCE needs QUOTE, NULL or NOT NULL"));
        };
        if self.symbol('*') {
            return once(place, Which::All);
        }
        let mut names = vec![self.name()?];
        while self.symbol(',') {
            names.push(self.name()?);
        }
        once(place, Which::Named(names))
    }

    fn which(&mut self) -> Result<Which, Refusal> {
        if self.symbol('*') {
            return Ok(Which::All);
        }
        if !self.symbol('(') {
            return Err(syntax("a list of columns, or *, is missing"));
        }
        self.names().map(Which::Named)
    }

    fn word_or_text(&mut self) -> Result<String, Refusal> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word.to_ascii_lowercase()),
            Some(Token::Text(text)) => Ok(unquoted(text).to_ascii_lowercase()),
            Some(Token::Quoted(text)) => {
                Ok(text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned())
            }
            _ => Err(syntax("an option's value is missing")),
        }
    }

    /// Whether an option's value comes, or it stands alone.
    fn alone(&mut self) -> bool {
        matches!(self.tokens.peek(), Some((_, Token::Symbol(',' | ')'))) | None)
    }

    fn boolean(&mut self) -> Result<bool, Refusal> {
        if self.alone() {
            return Ok(true);
        }
        match self.word_or_text()?.as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(syntax("this option is true or false")),
        }
    }

    fn header(&mut self) -> Result<Header, Refusal> {
        if self.alone() {
            return Ok(Header::Skip);
        }
        match self.word_or_text()?.as_str() {
            "match" => Ok(Header::Match),
            "true" | "on" | "1" => Ok(Header::Skip),
            "false" | "off" | "0" => Ok(Header::None),
            _ => Err(syntax("HEADER is true, false or match")),
        }
    }
}

impl Given {
    /// All options, if they go together (PostgreSQL's `ProcessCopyOptions`).
    fn options(self, direction: Direction) -> Result<Options, Refusal> {
        let format = self.format.unwrap_or(Format::Text);
        let mut options = Options::of(format);
        let csv = format == Format::Csv;
        let dressed = self.delimiter.is_some() || self.null.is_some() || self.header.is_some();
        if format == Format::Binary && dressed {
            return Err(syntax("cannot specify DELIMITER, NULL or HEADER in BINARY mode"));
        }
        let for_csv = self.quote.is_some()
            || self.escape.is_some()
            || self.force_quote.is_some()
            || self.force_null.is_some()
            || self.force_not_null.is_some();
        if for_csv && !csv {
            return Err(unsupported("COPY quote, escape and force are available only in CSV mode"));
        }
        let given = |option: Option<String>, name, usual| match option {
            Some(text) => one_byte(name, &text),
            None => Ok(usual),
        };
        options.delimiter = given(self.delimiter, "delimiter", options.delimiter)?;
        options.quote = given(self.quote, "quote", options.quote)?;
        options.escape = given(self.escape, "escape", options.quote)?;
        options.null = self.null.unwrap_or(options.null);
        options.header = self.header.unwrap_or(options.header);
        options.force_quote = self.force_quote.unwrap_or_default();
        options.force_null = self.force_null.unwrap_or_default();
        options.force_not_null = self.force_not_null.unwrap_or_default();
        options.first_line = self.first_line.unwrap_or(1);
        if options.header == Header::Match && direction == Direction::Out {
            return Err(unsupported("cannot use \"match\" with HEADER in COPY TO"));
        }
        if let Some(encoding) = self.encoding {
            let known = ["utf8", "utf-8", "unicode"];
            if !known.contains(&encoding.to_ascii_lowercase().as_str()) {
                return Err(unsupported("COPY's encoding can only be UTF8"));
            }
        }
        options.check()?;
        Ok(options)
    }
}

impl Options {
    fn check(&self) -> Result<(), Refusal> {
        if matches!(self.delimiter, b'\n' | b'\r') {
            return Err(invalid("COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.contains(['\n', '\r']) {
            return Err(invalid("COPY null representation cannot use newline or carriage return"));
        }
        let confusing = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";
        if self.format == Format::Text && confusing.contains(&self.delimiter) {
            let delimiter = char::from(self.delimiter);
            return Err(invalid(&format!("COPY delimiter cannot be \"{delimiter}\"")));
        }
        if self.null.as_bytes().contains(&self.delimiter) {
            return Err(unsupported("COPY delimiter must not appear in the NULL specification"));
        }
        if self.format == Format::Csv {
            if self.delimiter == self.quote {
                return Err(invalid("COPY delimiter and quote must be different"));
            }
            if self.null.as_bytes().contains(&self.quote) {
                return Err(unsupported(
                    "CSV quote character must not appear in the NULL specification",
                ));
            }
        }
        Ok(())
    }
}

fn one_byte(option: &str, text: &str) -> Result<u8, Refusal> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(unsupported(&format!("COPY {option} must be a single one-byte character"))),
    }
}

fn unquoted(text: &str) -> String {
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default().replace("''", "'")
}

fn syntax(message: &str) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, message)
}

fn unsupported(message: &str) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(sqlstate::INVALID_PARAMETER, message)
}
