//! Operators: regular expressions and LIKE by their PostgreSQL names, `OPERATOR(…)`, COLLATE, AT
//! TIME ZONE, IS UNKNOWN. Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `~` `!~` | `REGEXP`, `NOT REGEXP` |
//! | `~*` `!~*` | the same, with `'(?i)' \|\|` before the pattern |
//! | `~~` `~~*` `!~~` `!~~*` | `LIKE`, `NOT LIKE` |

use rota_core::error::Refusal;

use super::lexer::Kind;
use super::{Piece, Shape, Translation, strings, unsupported};

/// Spellings that are not one character, longest first where one begins another.
const LONG: [&str; 17] = [
    "!~~*", "!~~", "!~*", "!~", "!=", "~~*", "~~", "~*", "#>>", "#>", "@>", "<@", "&&", "<=", ">=",
    "<>", "||",
];

impl<'a> Translation<'a> {
    /// A symbol, and with it what belongs to the same operator.
    pub(super) fn symbol(&mut self, symbol: char, text: &'a str) -> Result<(), Refusal> {
        match symbol {
            '~' | '!' | '#' | '@' | '<' | '&' | '>' | '|' => {
                let found = LONG.iter().find(|operator| self.spells(operator, text));
                match found {
                    Some(operator) => {
                        self.next += operator.len() - 1;
                        self.operator(operator)
                    }
                    None => self.operator(text),
                }
            }
            '-' | '+' if self.after_operand() && self.days(text)? => Ok(()),
            _ => {
                if symbol == ',' {
                    self.comma();
                }
                self.push(Shape::Symbol(symbol), text);
                Ok(())
            }
        }
    }

    /// Whether an operator begins with the symbol that was just taken.
    fn spells(&self, operator: &str, first: &str) -> bool {
        let Some(rest) = operator.strip_prefix(first) else { return false };
        let after = self.input.get(self.next..).unwrap_or_default();
        rest.chars()
            .enumerate()
            .all(|(place, c)| after.get(place).is_some_and(|next| next.kind == Kind::Symbol(c)))
    }

    /// An operator by its PostgreSQL name.
    fn operator(&mut self, operator: &str) -> Result<(), Refusal> {
        let pattern = match operator {
            "~" if !self.after_operand() => None,
            "~" => Some("REGEXP"),
            "!~" => Some("NOT REGEXP"),
            "~*" => Some("REGEXP '(?i)' ||"),
            "!~*" => Some("NOT REGEXP '(?i)' ||"),
            "~~" | "~~*" => Some("LIKE"),
            "!~~" | "!~~*" => Some("NOT LIKE"),
            "#>>" | "#>" => return self.json_path(operator),
            "@>" | "<@" | "&&" => {
                return Err(unsupported(format!(
                    "there is no operator {operator} on JSON or arrays"
                )));
            }
            _ => None,
        };
        let Some(pattern) = pattern else {
            for symbol in operator.chars() {
                self.push(Shape::Symbol(symbol), symbol.to_string());
            }
            return Ok(());
        };
        if self.output.last().is_some_and(|piece| piece.shape != Shape::Space) {
            self.push(Shape::Space, " ");
        }
        self.push(Shape::Word, pattern.to_owned());
        if self.input.get(self.next).is_some_and(|next| next.kind != Kind::Space) {
            self.push(Shape::Space, " ");
        }
        if pattern.ends_with("LIKE") { self.pattern() } else { Ok(()) }
    }

    /// After LIKE: a backslash protects what follows, as it always does in PostgreSQL.
    fn pattern(&mut self) -> Result<(), Refusal> {
        if self.comes_any(&["any", "all", "some"]) {
            return Ok(());
        }
        let pieces = self.pieces_until(|token| {
            token.is("escape")
                || token.is("end")
                || super::queries::is_clause(token)
                || matches!(token.kind, Kind::Symbol(',' | ';' | '=' | '<' | '>'))
        })?;
        let mut parts = pieces.iter().filter(|piece| piece.shape != Shape::Space);
        let escapes = match (parts.next(), parts.next()) {
            (None, _) => false,
            (Some(only), None) if only.shape == Shape::Text => only.text.contains('\\'),
            _ => true,
        };
        self.output.extend(pieces);
        if escapes && !self.comes(&["escape"]) {
            let spaces = self.output.iter().rev().take_while(|p| p.shape == Shape::Space).count();
            let place = self.output.len().saturating_sub(spaces);
            self.output.insert(place, Piece { shape: Shape::Whole, text: r" ESCAPE '\'".into() });
        }
        Ok(())
    }

    /// `j #>> '{a,0}'`: the path is in SQLite's spelling.
    fn json_path(&mut self, operator: &str) -> Result<(), Refusal> {
        let path = self.take().filter(|token| token.kind == Kind::Text);
        let path = path.and_then(|token| strings::value(token.text));
        let path = path.as_deref().and_then(|path| path.strip_prefix('{')?.strip_suffix('}'));
        let Some(path) = path else {
            return Err(unsupported(format!("{operator} needs a path such as '{{a,0}}'")));
        };
        let mut spelled = String::from("$");
        for step in path.split(',') {
            match step.parse::<u32>() {
                Ok(place) => spelled.push_str(&format!("[{place}]")),
                Err(_) => spelled.push_str(&format!(".\"{}\"", step.trim_matches('"'))),
            }
        }
        self.push(Shape::Symbol('>'), if operator == "#>" { "->" } else { "->>" });
        self.push(Shape::Text, format!(" {}", strings::quoted(&spelled)));
        Ok(())
    }

    /// `OPERATOR(pg_catalog.~)`, its parenthesis still to come.
    pub(super) fn named_operator(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        self.accept(&["pg_catalog", "."]);
        let mut name = String::new();
        while let Some(token) = self.take().filter(|token| token.text != ")") {
            name.push_str(token.text);
        }
        self.operator(&name)
    }

    /// Words between operands.
    pub(super) fn operator_word(&mut self, word: &str) -> Result<bool, Refusal> {
        match word {
            "ilike" | "like" => {
                self.push(Shape::Word, "LIKE");
                self.pattern()?;
            }
            "similar" if self.comes(&["to"]) => {
                return Err(unsupported(
                    "SIMILAR TO is not supported: use ~ with a regular expression",
                ));
            }
            "collate" => self.collation()?,
            "unknown" if self.last_is(&["is", "not"]) => self.push(Shape::Word, "NULL"),
            "at" if self.comes(&["time", "zone"]) && self.after_operand() => {
                self.skip(2);
                let zone = self.take();
                let value = zone.and_then(|zone| strings::value(zone.text));
                let known = ["utc", "gmt", "etc/utc", "z", "zulu", "universal"];
                let value = value.unwrap_or_default().to_ascii_lowercase();
                if !known.contains(&value.as_str()) {
                    return Err(unsupported("AT TIME ZONE: only 'UTC' is supported"));
                }
                self.trim();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// PostgreSQL's collations that compare bytes, as SQLite does.
    fn collation(&mut self) -> Result<(), Refusal> {
        self.accept(&["pg_catalog", "."]);
        let Some(token) = self.take() else { return Err(self.unexpected("a collation")) };
        match token.name().unwrap_or_default().to_ascii_lowercase().as_str() {
            "default" => self.trim(),
            "c" | "posix" | "ucs_basic" | "c.utf8" | "c.utf-8" => {
                self.push(Shape::Word, "COLLATE BINARY");
            }
            "binary" | "nocase" | "rtrim" => {
                self.push(Shape::Whole, format!("COLLATE {}", token.text))
            }
            other => {
                return Err(Refusal::new(
                    "42704",
                    format!("collation \"{other}\" does not exist: there are \"C\" and NOCASE"),
                ));
            }
        }
        Ok(())
    }

    /// Takes the comparison that stands last back out of the output, for ANY and ALL.
    pub(super) fn pop_comparison(&mut self) -> Option<String> {
        self.trim();
        let is_symbol = |shape| matches!(shape, Shape::Symbol('=' | '<' | '>' | '!'));
        let symbols = self.output.iter().rev().take_while(|piece| is_symbol(piece.shape)).count();
        let start = self.output.len().checked_sub(symbols.max(1))?;
        let last = self.output.get(start)?;
        if symbols == 0 && !last.is_any(&["like", "not like", "regexp", "not regexp"]) {
            return None;
        }
        let comparison: String = self.output.drain(start..).map(|piece| piece.text).collect();
        self.trim();
        let negated = symbols == 0 && self.last_is(&["not"]);
        if negated {
            self.output.pop();
            return Some(format!("NOT {comparison}"));
        }
        Some(comparison)
    }
}
