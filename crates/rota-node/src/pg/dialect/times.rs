//! Arithmetic with dates and intervals: SQLite has none, but functions. Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `now() - interval '1 day'` | `date_subtract(now(), '1 day')` |
//! | `at + ($1 \|\| ' hours')::interval` | `date_add(at, (?1 \|\| ' hours'))` |
//! | `at + 3 * interval '1 day'` | `date_add(at, (3 \|\| ' day'))` |
//! | `CURRENT_DATE - 7` | `rota_date(date_subtract(current_date, '7 days'))` |

use rota_core::error::Refusal;

use super::lexer::Kind;
use super::{Piece, Shape, Translation, join, strings, unsupported};

/// Units after a literal: `INTERVAL '1' DAY`.
pub(super) const UNITS: [&str; 6] = ["year", "month", "day", "hour", "minute", "second"];

impl<'a> Translation<'a> {
    /// An interval, as text in SQLite's words: added to or subtracted from what stands before.
    pub(super) fn interval(&mut self, mut text: String) -> Result<(), Refusal> {
        if let Some(unit) = self.peek().filter(|token| UNITS.iter().any(|unit| token.is(unit))) {
            let value = strings::value(&text).unwrap_or_default();
            text = strings::quoted(&format!("{value} {}", unit.text.to_ascii_lowercase()));
            self.skip(1);
        }
        if self.last().is_some_and(|piece| piece.shape == Shape::Symbol('*')) {
            self.trim();
            self.output.pop();
            let factor = join(&self.pop_operand());
            text = times(&text, &factor)?;
        } else if self.peek_is("*") {
            self.skip(1);
            text = self.multiplied(&text)?;
        }
        let shift = match self.last().map(|piece| piece.shape) {
            Some(Shape::Symbol('+')) => "date_add",
            Some(Shape::Symbol('-')) => "date_subtract",
            _ => {
                self.push(Shape::Whole, text);
                return Ok(());
            }
        };
        self.trim();
        let sign = self.output.pop();
        if !self.after_operand() {
            self.output.extend(sign);
            return Err(unsupported("write a negative interval as interval '-1 day'"));
        }
        let moment = join(&self.pop_operand());
        self.push(Shape::Whole, format!("{shift}({moment}, {text})"));
        Ok(())
    }

    /// `interval '1 day' * 3`: the factor comes.
    fn multiplied(&mut self, text: &str) -> Result<String, Refusal> {
        let outer = std::mem::take(&mut self.output);
        if let Some(token) = self.take() {
            self.step(token)?;
        }
        let factor = join(&std::mem::replace(&mut self.output, outer));
        times(text, &factor)
    }

    /// After `+` or `-`, which has been taken: days, if a date stands before. And what there is no
    /// word for: the time between two times.
    pub(super) fn days(&mut self, sign: &'a str) -> Result<bool, Refusal> {
        let start = self.operand_start_before_space();
        let operand = self.output.get(start..).unwrap_or_default();
        let date = match operand.iter().find(|piece| piece.shape != Shape::Space) {
            Some(piece) => piece.is("current_date") || piece.text.starts_with("rota_date("),
            None => false,
        };
        let operand = join(operand);
        let operand = operand.trim();
        let next = self.peek().copied();
        let alone = !self.ahead(1).is_some_and(|after| matches!(after.text, "*" | "::"));
        if date
            && alone
            && let Some(number) = next.filter(|token| token.kind == Kind::Number)
        {
            self.skip(1);
            let shift = if sign == "+" { "date_add" } else { "date_subtract" };
            let text = format!("rota_date({shift}({operand}, '{} days'))", number.text);
            self.output.truncate(start);
            self.push(Shape::Whole, text);
            return Ok(true);
        }
        let column = next.is_some_and(|token| {
            matches!(token.kind, Kind::Word | Kind::Quoted)
                && !token.is("interval")
                && !token.is("cast")
        });
        if sign == "-" && operand.eq_ignore_ascii_case("now()") && column {
            return Err(unsupported(
                "the time between two times is not supported: compare with now() - interval '…', \
                 or subtract unixepoch(a) - unixepoch(b)",
            ));
        }
        Ok(false)
    }

    fn operand_start_before_space(&mut self) -> usize {
        let spaces = self.output.iter().rev().take_while(|p| p.shape == Shape::Space).count();
        let tail: Vec<Piece<'a>> = self.output.split_off(self.output.len().saturating_sub(spaces));
        let start = self.operand_start();
        self.output.extend(tail);
        start
    }
}

/// `'1 day'` so many times: only of one unit.
fn times(text: &str, factor: &str) -> Result<String, Refusal> {
    let value = strings::value(text);
    let value = value.as_deref().and_then(|value| value.trim().split_once(' '));
    match value {
        Some((count, unit)) if count.parse::<f64>().is_ok() && !unit.trim().contains(' ') => {
            let factor = if count == "1" { factor.into() } else { format!("{factor} * {count}") };
            Ok(format!("({factor} || ' {}')", unit.trim().replace('\'', "''")))
        }
        _ => Err(unsupported("only an interval such as '1 day' can be multiplied")),
    }
}
