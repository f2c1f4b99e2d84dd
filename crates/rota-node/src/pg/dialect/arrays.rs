//! Arrays: SQLite has none, but JSON. Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `ARRAY[1, 2]`, `'{1,2}'::int[]` | `json_array(1, 2)` |
//! | `x = ANY(ARRAY[1, 2])`, `x <> ALL('{1,2}')` | `x IN (1, 2)`, `x NOT IN ('1', '2')` |
//! | `x = ANY($1)` | `x IN (SELECT value FROM json_each(?1))` |
//! | `x < ANY(a)` | `EXISTS (SELECT 1 FROM json_each(a) … WHERE x < value)` |
//! | `ARRAY(SELECT …)` | `(SELECT json_group_array(…) FROM (SELECT …))` |
//! | `a[1]` | `(a ->> 0)` |

use rota_core::error::Refusal;

use super::casts::{Type, cast_literal};
use super::lexer::{Kind, tokens};
use super::{Piece, Shape, Translation, join, strings, syntax, unsupported};

/// How an array begins in SQLite's words.
const ARRAY: &str = "json_array(";

impl<'a> Translation<'a> {
    /// `ARRAY[…]`, its bracket still to come.
    pub(super) fn array(&mut self) -> Result<(), Refusal> {
        let elements = self.bracketed()?;
        self.push(Shape::Array, format!("{ARRAY}{})", elements.join(", ")));
        Ok(())
    }

    fn bracketed(&mut self) -> Result<Vec<String>, Refusal> {
        self.expect("[")?;
        self.deeper()?;
        let mut elements = Vec::new();
        while !self.accept(&["]"]) {
            if self.peek_is("[") {
                elements.push(format!("{ARRAY}{})", self.bracketed()?.join(", ")));
            } else {
                let element = self.text_until(|token| token.text == ",")?;
                elements.push(element.trim().to_owned());
            }
            if !self.accept(&[","]) && !self.peek_is("]") {
                return Err(self.unexpected("]"));
            }
        }
        self.depth -= 1;
        Ok(elements)
    }

    /// `ARRAY(SELECT …)`, its parenthesis still to come.
    pub(super) fn array_of_rows(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        let query = join(&self.inside()?);
        self.expect(")")?;
        self.push(
            Shape::Whole,
            format!(
                "(WITH rota_rows(item) AS ({query}) SELECT json_group_array(item) FROM rota_rows)"
            ),
        );
        Ok(())
    }

    /// `a[1]`, the bracket taken. PostgreSQL counts from 1.
    pub(super) fn subscript(&mut self) -> Result<(), Refusal> {
        if !self.after_operand() {
            return Err(syntax("syntax error at or near \"[\""));
        }
        self.deeper()?;
        let place = self.text_until(|token| token.text == ":")?;
        self.depth -= 1;
        if self.peek_is(":") {
            return Err(unsupported("slices of arrays are not supported"));
        }
        self.expect("]")?;
        let array = join(&self.pop_operand());
        let place = match place.trim().parse::<i64>() {
            Ok(number) if number > 0 => (number - 1).to_string(),
            _ => format!("(({place}) - 1)"),
        };
        self.push(Shape::Whole, format!("({array} ->> {place})"));
        Ok(())
    }

    /// `ANY (…)` or `ALL (…)` after a comparison, its parenthesis still to come.
    pub(super) fn quantified(&mut self, all: bool) -> Result<bool, Refusal> {
        let Some(comparison) = self.pop_comparison() else { return Ok(false) };
        self.skip(1);
        let query = self.comes_any(&["select", "values", "with"]);
        let inside = self.inside()?;
        self.expect(")")?;
        let list = if query { join(&inside) } else { Self::elements(inside) };
        match (comparison.as_str(), all) {
            ("=", false) => self.push_spaced(format!("IN ({list})")),
            ("<>" | "!=", true) => self.push_spaced(format!("NOT IN ({list})")),
            _ => {
                let operand = join(&self.pop_operand());
                let list = if list.starts_with("SELECT") || query {
                    list
                } else {
                    format!("SELECT value FROM json_each({ARRAY}{list}))")
                };
                let (exists, not) = if all { ("NOT EXISTS", "NOT ") } else { ("EXISTS", "") };
                self.push_spaced(format!(
                    "({exists} (WITH rota_rows(item) AS ({list}) SELECT 1 FROM rota_rows WHERE \
                     {not}({operand} {comparison} item)))"
                ));
            }
        }
        Ok(true)
    }

    fn push_spaced(&mut self, text: String) {
        if !self.output.is_empty() {
            self.push(Shape::Space, " ");
        }
        self.push(Shape::Whole, text);
    }

    /// What an array holds, for IN.
    fn elements(mut pieces: Vec<Piece<'a>>) -> String {
        pieces.retain(|piece| piece.shape != Shape::Space);
        if let [only] = pieces.as_slice() {
            match only.shape {
                Shape::Array => {
                    let inner = only.text.strip_prefix(ARRAY).and_then(|t| t.strip_suffix(')'));
                    return inner.unwrap_or_default().to_owned();
                }
                Shape::Text => {
                    if let Ok(array) = literal(&only.text, None) {
                        return array;
                    }
                }
                _ => {}
            }
        }
        format!("SELECT value FROM json_each({})", join(&pieces))
    }

    /// A cast to an array type.
    pub(super) fn cast_to_array(
        &mut self,
        operand: Vec<Piece<'a>>,
        target: &Type,
    ) -> Result<(), Refusal> {
        match operand.as_slice() {
            [Piece { shape: Shape::Text, text }] => {
                let elements = literal(text, Some(target))?;
                self.push(Shape::Array, format!("{ARRAY}{elements})"));
            }
            [Piece { shape: Shape::Parameter(number), .. }] => {
                self.seen.casts.push((*number, target.array_oid()));
                self.output.extend(operand);
            }
            // `('{1,2}')::int[]`, `(ARRAY[1])::int[]`, `($1)::int[]`.
            [Piece { shape: Shape::Group, text }] => {
                let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
                let inner = inner.unwrap_or_default().trim().to_owned();
                let mut tokens = tokens(&inner).into_iter();
                let piece = match (tokens.next().map(|token| token.kind), tokens.next()) {
                    (Some(Kind::Text), None) => Shape::Text,
                    (Some(Kind::Question(Some(number))), None) => Shape::Parameter(number),
                    _ if inner.starts_with(ARRAY) => Shape::Array,
                    _ => Shape::Whole,
                };
                let piece = Piece { shape: piece, text: inner.into() };
                return self.cast_to_array(vec![piece], target);
            }
            [Piece { shape: Shape::Array, .. }] => self.output.extend(operand),
            _ => self.push(Shape::Whole, join(&operand)),
        }
        Ok(())
    }

    /// `[]` or `[3]` after a type's name, or ARRAY.
    pub(super) fn array_suffix(&mut self) -> bool {
        let mut found = self.accept(&["array"]);
        while self.peek_is("[") {
            self.skip(1);
            while self.take().is_some_and(|token| token.kind != Kind::Symbol(']')) {}
            found = true;
        }
        found
    }
}

/// `'{a,"b c",NULL}'`: its elements as SQL literals, of the type if there is one.
fn literal(text: &str, of: Option<&Type>) -> Result<String, Refusal> {
    let malformed = || Refusal::new("22P02", format!("malformed array literal: {text}"));
    let value = strings::value(text).ok_or_else(malformed)?;
    let inner = value.trim().strip_prefix('{').and_then(|inner| inner.strip_suffix('}'));
    let inner = inner.ok_or_else(malformed)?;
    let mut elements = Vec::new();
    let mut characters = inner.chars().peekable();
    while characters.peek().is_some() {
        let mut element = String::new();
        let mut quoted = false;
        let mut inside = false;
        while let Some(character) = characters.next() {
            match character {
                '\\' => element.extend(characters.next()),
                '"' => {
                    inside = !inside;
                    quoted = true;
                }
                ',' if !inside => break,
                '{' | '}' if !inside => return Err(malformed()),
                other => element.push(other),
            }
        }
        let element = if quoted { element.as_str() } else { element.trim() };
        elements.push(match element {
            "" if !quoted => return Err(malformed()),
            null if !quoted && null.eq_ignore_ascii_case("null") => "NULL".to_owned(),
            text => typed(&strings::quoted(text), of)?,
        });
    }
    Ok(elements.join(", "))
}

fn typed(literal: &str, of: Option<&Type>) -> Result<String, Refusal> {
    let Some(of) = of else { return Ok(literal.to_owned()) };
    match cast_literal(literal, of, true)? {
        Some((_, spelled)) => Ok(spelled),
        None if of.is_number() => {
            Err(Refusal::new("22P02", format!("invalid input syntax for a number: {literal}")))
        }
        None => Ok(literal.to_owned()),
    }
}
