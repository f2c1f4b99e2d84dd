//! PostgreSQL's spellings in SQLite's words. Step 1 of a transaction's life: what is signed is
//! SQLite's dialect.
//!
//! ```text
//!  SELECT $1::int + pg_catalog.abs(x), E'a\nb' FROM public.t
//!    └► tokens ► pieces, each kept or respelled ►
//!  SELECT CAST(?1 AS INT4) + abs(x), 'a⏎b' FROM t
//! ```
//!
//! Left to right, once: what is between parentheses becomes one piece, so that a cast or an
//! operator finds its operand as the piece or two before it. `ddl` has the statements that need
//! more than that, `queries` the clauses, `operators`, `casts`, `arrays` and `functions` the
//! expressions. What is not here reaches SQLite as it is, and it says what it does not understand.
//! Strings, names and comments are never touched: see `lexer`.

use std::borrow::Cow;
use std::cell::Cell;

use rota_core::error::{Refusal, sqlstate};
use rota_store::determinism::MAX_SQL_BYTES;

use super::encode::Oid;
use super::lexer::{self, Kind, Token, tokens};

mod arrays;
mod casts;
mod ddl;
mod functions;
mod names;
mod operands;
mod operators;
mod queries;
mod strings;
#[cfg(test)]
mod tests;
mod times;

/// How deep parentheses may be nested: each level takes some of the stack, and SQLite's own limit
/// for an expression is 1,000.
const MAX_DEPTH: usize = 400;

/// What a translation may cost, in bytes put out and pieces looked at: so much for each byte of the
/// statement, so that nothing takes time that grows with its square. Enough for each byte to be
/// respelled in parentheses many times round each other.
const COST_PER_BYTE: usize = 64;

/// What even the shortest statement may cost: chains of a few hundred casts or calls.
const COST_OF_ANY: usize = 1 << 20;

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

/// Translates a statement.
pub(crate) fn translate(sql: &str) -> Result<Translated, Refusal> {
    possible(sql.len())?;
    let most = sql.len().saturating_mul(COST_PER_BYTE).saturating_add(COST_OF_ANY);
    let input = operands::plain(tokens(sql), most)?;
    let mut translation = Translation { input, most, ..Translation::default() };
    let (statements, tag) = match translation.ddl()? {
        Some(done) => done,
        None => (vec![translation.query()?], None),
    };
    statements.iter().try_for_each(|statement| possible(statement.len()))?;
    Ok(Translated { statements, tag, ..translation.seen })
}

/// Refuses what is longer than SQLite takes.
fn possible(bytes: usize) -> Result<(), Refusal> {
    if bytes <= usize::try_from(MAX_SQL_BYTES).unwrap_or(0) {
        return Ok(());
    }
    let message = format!("a statement of {bytes} bytes; {MAX_SQL_BYTES} are possible");
    Err(Refusal::new(sqlstate::TOO_COMPLEX, message))
}

fn too_costly() -> Refusal {
    let message = "the statement is too complex: too many casts, subscripts, intervals or \
                   subqueries for its length";
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

fn too_deep() -> Refusal {
    let message = format!("parentheses are nested more than {MAX_DEPTH} deep");
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

/// A script with PostgreSQL's own kinds of strings respelled, so that it can be split into
/// statements by SQLite's rules.
pub(crate) fn plain_strings(script: &str) -> Result<Cow<'_, str>, Refusal> {
    let prefixed =
        || script.as_bytes().windows(2).any(|two| matches!(two, [b'e' | b'E' | b'&', b'\'']));
    if !script.contains('$') && !prefixed() {
        return Ok(Cow::Borrowed(script));
    }
    let pieces = tokens(script).into_iter().map(|token| match token.kind {
        Kind::Escaped => strings::unescape(token.text).map(Cow::Owned),
        Kind::Unicode => strings::unicode(token.text).map(Cow::Owned),
        Kind::Dollar => Ok(Cow::Owned(strings::undollar(token.text))),
        _ => Ok(Cow::Borrowed(token.text)),
    });
    pieces.collect::<Result<String, Refusal>>().map(Cow::Owned)
}

/// What a piece of the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Space,
    /// A keyword or a bare name.
    Word,
    /// A name in quotes.
    Name,
    /// `'text'`.
    Text,
    /// A number, a blob.
    Literal,
    Parameter(usize),
    /// Parentheses with all that is in them.
    Group,
    /// `json_array(…)`.
    Array,
    /// An expression that must not be taken apart.
    Whole,
    Symbol(char),
}

/// A piece of the output, perhaps respelled.
#[derive(Clone, Debug)]
struct Piece<'a> {
    shape: Shape,
    text: Cow<'a, str>,
}

impl Piece<'_> {
    fn is(&self, word: &str) -> bool {
        self.shape == Shape::Word && self.text.eq_ignore_ascii_case(word)
    }

    fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }
}

fn join(pieces: &[Piece<'_>]) -> String {
    pieces.iter().map(|piece| piece.text.as_ref()).collect()
}

#[derive(Default)]
struct Translation<'a> {
    input: Vec<Token<'a>>,
    next: usize,
    /// Of the innermost open parentheses.
    output: Vec<Piece<'a>>,
    depth: usize,
    /// Whether result columns are to be named as PostgreSQL would.
    naming: bool,
    /// Whether literals stand for a column's default, which knows its type itself.
    plain: bool,
    /// What the changed table is called in the statement, if that is not its name: SQLite's
    /// RETURNING knows its name only.
    target: Option<String>,
    /// Where, in the input, the result column begins that is being translated.
    item: Option<usize>,
    seen: Translated,
    /// How many steps are inside of each other.
    steps: usize,
    /// What the translation cost so far, and what it may.
    cost: Cell<usize>,
    most: usize,
}

/// Reading.
impl<'a> Translation<'a> {
    /// The next token that is not white space, `skip` of them left out.
    fn ahead(&self, skip: usize) -> Option<&Token<'a>> {
        let rest = self.input.get(self.next..)?;
        rest.iter().filter(|token| token.kind != Kind::Space).nth(skip)
    }

    fn peek(&self) -> Option<&Token<'a>> {
        self.ahead(0)
    }

    fn peek_is(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.text == text)
    }

    fn comes(&self, words: &[&str]) -> bool {
        let rest = self.input.get(self.next..).unwrap_or_default();
        let mut rest = rest.iter().filter(|token| token.kind != Kind::Space);
        words.iter().all(|word| {
            rest.next().is_some_and(|token| {
                token.kind != Kind::Text && token.text.eq_ignore_ascii_case(word)
            })
        })
    }

    /// Whether one of the words comes.
    fn comes_any(&self, words: &[&str]) -> bool {
        self.peek().is_some_and(|token| words.iter().any(|word| token.is(word)))
    }

    /// Takes a token and the white space before it.
    fn take(&mut self) -> Option<Token<'a>> {
        while let Some(token) = self.input.get(self.next).copied() {
            self.next += 1;
            if token.kind != Kind::Space {
                return Some(token);
            }
        }
        None
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.take();
        }
    }

    /// Takes the words, if they come.
    fn accept(&mut self, words: &[&str]) -> bool {
        let found = self.comes(words);
        if found {
            self.skip(words.len());
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), Refusal> {
        if self.accept(&[word]) { Ok(()) } else { Err(self.unexpected(word)) }
    }

    /// The refusal of what comes where something else should.
    fn unexpected(&self, wanted: &str) -> Refusal {
        let found = self.peek().map_or("the end", |token| token.text);
        let wanted = wanted.to_uppercase();
        let message = format!("syntax error at or near \"{found}\": expected {wanted}");
        Refusal::new(sqlstate::SYNTAX_ERROR, message)
    }

    /// Skips parentheses with all that is in them, if they come.
    fn skip_group(&mut self) {
        if !self.peek_is("(") {
            return;
        }
        let mut depth = 0usize;
        while let Some(token) = self.take() {
            match token.text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Whether nothing more comes.
    fn is_over(&self) -> bool {
        self.peek().is_none_or(|token| token.text == ";")
    }

    /// A name as it is written, without the schemas that there are only in PostgreSQL.
    fn name(&mut self) -> Result<&'a str, Refusal> {
        loop {
            let found = self.peek().copied();
            let found = found.filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
            let Some(token) = found else { return Err(self.unexpected("a name")) };
            self.skip(1);
            if !self.peek_is(".") {
                return Ok(token.text);
            }
            self.skip(1);
            let schema = token.name().unwrap_or_default();
            if schema != "public" && schema != "main" {
                return Err(Refusal::new("3F000", format!("schema \"{schema}\" does not exist")));
            }
        }
    }
}

/// Writing.
impl<'a> Translation<'a> {
    fn push(&mut self, shape: Shape, text: impl Into<Cow<'a, str>>) {
        let text = text.into();
        self.pay(text.len());
        self.output.push(Piece { shape, text });
    }

    /// Notes bytes that were put out, or pieces that were looked at: see [`COST_PER_BYTE`].
    fn pay(&self, cost: usize) {
        self.cost.set(self.cost.get().saturating_add(cost));
    }

    /// The same, and refuses what has become too much.
    fn afford(&self, cost: usize) -> Result<(), Refusal> {
        self.pay(cost);
        if self.cost.get() > self.most { Err(too_costly()) } else { Ok(()) }
    }

    /// The last piece that is not white space.
    fn last(&self) -> Option<&Piece<'a>> {
        let space = |piece: &&Piece<'_>| piece.shape == Shape::Space;
        let spaces = self.output.iter().rev().take_while(space).count();
        self.pay(spaces);
        self.output.iter().rev().nth(spaces)
    }

    fn last_is(&self, words: &[&str]) -> bool {
        self.last().is_some_and(|piece| piece.is_any(words))
    }

    /// Forgets white space at the end.
    fn trim(&mut self) {
        while self.output.last().is_some_and(|piece| piece.shape == Shape::Space) {
            self.output.pop();
        }
    }

    /// Whether an operand stands before, so that an operator is one between two.
    fn after_operand(&self) -> bool {
        self.last().is_some_and(|piece| match piece.shape {
            Shape::Word => !is_operator(&piece.text),
            Shape::Symbol(_) | Shape::Space => false,
            _ => true,
        })
    }

    /// All that remains, in SQLite's words.
    fn rest(&mut self) -> Result<String, Refusal> {
        let mut text = String::new();
        while self.next < self.input.len() {
            let mut pieces = self.pieces_until(|_| false)?;
            if self.next >= self.input.len() {
                std::mem::swap(&mut self.output, &mut pieces);
                self.end_item();
                std::mem::swap(&mut self.output, &mut pieces);
                self.item = None;
            }
            text.push_str(&join(&pieces));
            // What closes without having been opened.
            text.push_str(self.take().map_or("", |token| token.text));
        }
        Ok(text)
    }

    /// Translates up to a token that stops it, or the end of the parentheses.
    fn pieces_until(
        &mut self,
        stop: impl Fn(&Token<'_>) -> bool,
    ) -> Result<Vec<Piece<'a>>, Refusal> {
        let outer = std::mem::take(&mut self.output);
        while let Some(token) = self.input.get(self.next).copied() {
            let ends = matches!(token.kind, Kind::Symbol(')' | ']'));
            if ends || (token.kind != Kind::Space && stop(&token)) {
                break;
            }
            self.next += 1;
            self.step(token)?;
        }
        Ok(std::mem::replace(&mut self.output, outer))
    }

    fn text_until(&mut self, stop: impl Fn(&Token<'_>) -> bool) -> Result<String, Refusal> {
        Ok(join(&self.pieces_until(stop)?))
    }

    /// Brackets and parentheses nest; the stack does not grow without end.
    fn deeper(&mut self) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(too_deep()) } else { Ok(()) }
    }

    /// What is between parentheses, the first of which has been taken.
    fn inside(&mut self) -> Result<Vec<Piece<'a>>, Refusal> {
        self.deeper()?;
        let mut pieces = self.pieces_until(|_| false)?;
        while let Some(stray) = self.input.get(self.next).filter(|token| token.text == "]") {
            pieces.push(Piece { shape: Shape::Symbol(']'), text: stray.text.into() });
            self.next += 1;
            pieces.extend(self.pieces_until(|_| false)?);
        }
        self.depth -= 1;
        Ok(pieces)
    }

    /// Parentheses with what is in them, the first of which has been taken, in SQLite's words.
    fn group(&mut self) -> Result<String, Refusal> {
        let mut text = String::from("(");
        for piece in self.inside()? {
            text.push_str(&piece.text);
        }
        if self.accept(&[")"]) {
            text.push(')');
        }
        Ok(text)
    }

    /// Where the operand of what follows begins in the output: a literal, a name with dots, a call,
    /// parentheses, or a CASE.
    fn operand_start(&self) -> usize {
        let Some(last) = self.output.len().checked_sub(1) else { return 0 };
        let at = |place: usize| self.output.get(place);
        let mut start = last;
        if at(last).is_some_and(|piece| piece.is("end")) {
            let mut open = 0usize;
            let mut seen = 0usize;
            let case = self.output.iter().rposition(|piece| {
                seen += 1;
                open += usize::from(piece.is("end"));
                open -= usize::from(piece.is("case"));
                open == 0
            });
            self.pay(seen);
            return case.unwrap_or(last);
        }
        if at(last).is_some_and(|piece| piece.shape == Shape::Group) {
            let called = start.checked_sub(1).and_then(at);
            match called {
                Some(piece) if piece.shape == Shape::Word && !is_operator(&piece.text) => {
                    start -= 1;
                }
                _ => return start,
            }
        }
        while let Some(dot) = start.checked_sub(1) {
            let name = dot.checked_sub(1).and_then(at);
            let dotted = at(dot).is_some_and(|piece| piece.shape == Shape::Symbol('.'));
            if !dotted || !name.is_some_and(|p| matches!(p.shape, Shape::Word | Shape::Name)) {
                break;
            }
            start = dot - 1;
        }
        start
    }

    /// Takes the operand of what follows back out of the output.
    fn pop_operand(&mut self) -> Vec<Piece<'a>> {
        self.trim();
        let start = self.operand_start();
        self.output.drain(start..).collect()
    }
}

/// One token after the other.
impl<'a> Translation<'a> {
    /// Translates a token and what belongs to it: not too deep, nor at too high a cost.
    fn step(&mut self, token: Token<'a>) -> Result<(), Refusal> {
        self.steps += 1;
        if self.steps > MAX_DEPTH + 1 {
            return Err(too_deep());
        }
        self.translated(token)?;
        self.steps -= 1;
        self.output.last().map_or(Ok(()), |piece| possible(piece.text.len()))?;
        self.afford(0)
    }

    fn translated(&mut self, token: Token<'a>) -> Result<(), Refusal> {
        match token.kind {
            Kind::Space => self.push(Shape::Space, token.text),
            Kind::Numbered(number) => self.parameter(number)?,
            Kind::Question(Some(number)) => self.parameter(number)?,
            Kind::Question(None) => self.parameter(self.seen.parameters + 1)?,
            Kind::Named => self.push(Shape::Whole, token.text),
            Kind::Text => self.push(Shape::Text, token.text),
            Kind::Escaped => self.push(Shape::Text, strings::unescape(token.text)?),
            Kind::Unicode => self.push(Shape::Text, strings::unicode(token.text)?),
            Kind::Dollar => self.push(Shape::Text, strings::undollar(token.text)),
            Kind::Blob | Kind::Number => self.push(Shape::Literal, token.text),
            Kind::Cast => self.cast()?,
            Kind::Word => self.word(token)?,
            Kind::Quoted => self.quoted_name(token),
            Kind::Symbol('(') => {
                let group = self.group()?;
                match self.column_aliases(&group) {
                    Some(aliased) => self.push(Shape::Whole, aliased),
                    None => self.push(Shape::Group, group),
                }
            }
            Kind::Symbol('[') => self.subscript()?,
            Kind::Symbol(symbol) => self.symbol(symbol, token.text)?,
        }
        Ok(())
    }

    fn parameter(&mut self, number: usize) -> Result<(), Refusal> {
        if number == 0 || number > usize::from(u16::MAX) {
            return Err(Refusal::new("42P02", format!("there is no parameter ${number}")));
        }
        self.seen.parameters = self.seen.parameters.max(number);
        self.push(Shape::Parameter(number), format!("?{number}"));
        Ok(())
    }

    fn quoted_name(&mut self, token: Token<'a>) {
        let schema = token.text == "\"public\"" || self.names_target(&token);
        if !(schema && !self.after_dot() && self.skip_dot()) {
            self.push(Shape::Name, token.text);
        }
    }

    /// Whether this qualifies a column in RETURNING by the alias of the changed table.
    fn names_target(&self, token: &Token<'_>) -> bool {
        self.seen.returning && self.target.is_some() && token.name() == self.target
    }

    fn after_dot(&self) -> bool {
        self.last().is_some_and(|piece| piece.shape == Shape::Symbol('.'))
    }

    /// Skips a `.` that comes right now.
    fn skip_dot(&mut self) -> bool {
        let dot = self.input.get(self.next).is_some_and(|next| next.kind == Kind::Symbol('.'));
        self.next += usize::from(dot);
        dot
    }

    fn word(&mut self, token: Token<'a>) -> Result<(), Refusal> {
        if self.after_dot() {
            self.push(Shape::Word, token.text);
            return Ok(());
        }
        let word = token.text.to_ascii_lowercase();
        let called = self.peek().copied();
        let handled = match called {
            // `public.f(x)`, `pg_catalog.f(x)`; tables of `pg_catalog` keep their schema.
            Some(next) if next.text == "." => {
                let left_out = word == "public"
                    || (word == "pg_catalog" && self.ahead_is_call())
                    || self.names_target(&token);
                left_out && self.skip_dot()
            }
            Some(next) if next.text == "(" => self.called_word(&word)?,
            Some(next) if next.kind == Kind::Text => self.typed_literal(&word)?,
            Some(next) if next.text == "[" && word == "array" => {
                self.array()?;
                true
            }
            Some(_) if word == "timestamp" || word == "time" => self.long_typed_literal(&word)?,
            _ => false,
        };
        if !handled && !self.operator_word(&word)? && !self.clause_word(&word)? {
            match casts::bare_value(&word).filter(|_| called.is_none_or(|next| next.text != "(")) {
                Some(value) => self.push(Shape::Whole, value),
                None => self.push(Shape::Word, token.text),
            }
        }
        Ok(())
    }

    /// Whether `.name(` comes.
    fn ahead_is_call(&self) -> bool {
        self.ahead(2).is_some_and(|token| token.text == "(")
    }
}

/// Words before parentheses that are not the name of a function.
fn is_operator(word: &str) -> bool {
    const WORDS: [&str; 36] = [
        "all",
        "and",
        "any",
        "as",
        "between",
        "by",
        "case",
        "collate",
        "distinct",
        "else",
        "except",
        "exists",
        "from",
        "glob",
        "having",
        "ilike",
        "in",
        "intersect",
        "is",
        "join",
        "like",
        "limit",
        "not",
        "offset",
        "on",
        "or",
        "regexp",
        "returning",
        "select",
        "set",
        "then",
        "union",
        "using",
        "values",
        "when",
        "where",
    ];
    WORDS.iter().any(|operator| word.eq_ignore_ascii_case(operator))
}

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

fn syntax(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, message)
}
