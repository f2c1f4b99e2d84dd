//! Calls whose arguments are separated by words, and functions that SQLite has by another name.
//! Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `EXTRACT(year FROM x)` | `extract('year', x)` |
//! | `POSITION(a IN b)` | `strpos(b, a)` |
//! | `SUBSTRING(x FROM 2 FOR 3)` | `substr(x, 2, 3)` |
//! | `TRIM(LEADING 'a' FROM x)` | `ltrim(x, 'a')` |
//! | `generate_series(1, 9)`, `unnest(a)` in FROM | a subquery |

use rota_core::error::Refusal;

use super::lexer::Kind;
use super::{Shape, Translation, join, strings, unsupported};

/// Functions by SQLite's names.
const RENAMED: [(&str, &str); 2] =
    [("jsonb_array_length", "json_array_length"), ("cardinality", "json_array_length")];

impl<'a> Translation<'a> {
    /// A word before parentheses, which are still to come.
    pub(super) fn called_word(&mut self, word: &str) -> Result<bool, Refusal> {
        match word {
            "any" | "some" => return self.quantified(false),
            "all" => return self.quantified(true),
            "array" => self.array_of_rows()?,
            "cast" => self.cast_call()?,
            "extract" => self.extract()?,
            "position" => self.position()?,
            "substring" => self.substring()?,
            "trim" => self.trim_call()?,
            "overlay" => self.overlay()?,
            "operator" => self.named_operator()?,
            "row" => {}
            "nextval" => self.nextval()?,
            "currval" | "setval" | "lastval" => {
                return Err(unsupported(format!(
                    "{word}() is not supported: numbers are handed out by several servers; use \
                     INSERT … RETURNING"
                )));
            }
            "current_timestamp"
            | "localtimestamp"
            | "clock_timestamp"
            | "statement_timestamp"
            | "transaction_timestamp" => {
                self.skip_group();
                self.push(Shape::Whole, "now()");
            }
            "generate_series" if self.in_from() => self.series()?,
            "unnest" if self.in_from() => self.unnest()?,
            "generate_series" | "unnest" => {
                return Err(unsupported(format!("{word}() is understood in FROM only")));
            }
            _ => match RENAMED.iter().find(|(name, _)| *name == word) {
                Some((_, name)) => self.push(Shape::Word, *name),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// The text up to one of the words, or the closing parenthesis.
    fn part(&mut self, words: &[&str]) -> Result<String, Refusal> {
        self.deeper()?;
        let text = self.text_until(|token| words.iter().any(|word| token.is(word)))?;
        self.depth -= 1;
        Ok(text.trim().to_owned())
    }

    fn extract(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        if self.ahead(1).is_none_or(|next| !next.is("from")) {
            let inside = join(&self.inside()?);
            self.expect(")")?;
            self.push(Shape::Whole, format!("extract({inside})"));
            return Ok(());
        }
        let field = self.take().map(|token| match token.kind {
            Kind::Text => strings::value(token.text).unwrap_or_default(),
            _ => token.name().unwrap_or_default(),
        });
        let field = field.unwrap_or_default().to_ascii_lowercase();
        self.expect("from")?;
        let source = self.part(&[])?;
        self.expect(")")?;
        self.push(Shape::Whole, format!("extract({}, {source})", strings::quoted(&field)));
        Ok(())
    }

    fn position(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        let wanted = self.part(&["in"])?;
        self.expect("in")?;
        let text = self.part(&[])?;
        self.expect(")")?;
        self.push(Shape::Whole, format!("strpos({text}, {wanted})"));
        Ok(())
    }

    fn substring(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        if self.comes(&[")"]) {
            return Err(self.unexpected("a string"));
        }
        let text = self.part(&["from", "for"])?;
        let pattern = self.comes(&["from"]) && self.ahead(1).is_some_and(|t| t.kind == Kind::Text);
        if pattern {
            return Err(unsupported("SUBSTRING with a regular expression is not supported"));
        }
        let from = if self.accept(&["from"]) { Some(self.part(&["for"])?) } else { None };
        let length = if self.accept(&["for"]) { Some(self.part(&["from"])?) } else { None };
        self.expect(")")?;
        let call = match (from, length) {
            (Some(from), Some(length)) => format!("substr({text}, {from}, {length})"),
            (Some(from), None) => format!("substr({text}, {from})"),
            (None, Some(length)) => format!("substr({text}, 1, {length})"),
            (None, None) => format!("substr({text})"),
        };
        self.push(Shape::Whole, call);
        Ok(())
    }

    fn trim_call(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        let name = if self.accept(&["leading"]) {
            "ltrim"
        } else if self.accept(&["trailing"]) {
            "rtrim"
        } else {
            self.accept(&["both"]);
            "trim"
        };
        let first = self.part(&["from"])?;
        let call = if self.accept(&["from"]) {
            let text = self.part(&[])?;
            let comma = if first.is_empty() { "" } else { ", " };
            format!("{name}({text}{comma}{first})")
        } else {
            format!("{name}({first})")
        };
        self.expect(")")?;
        self.push(Shape::Whole, call);
        Ok(())
    }

    fn overlay(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        let text = self.part(&["placing"])?;
        if self.accept(&[")"]) {
            self.push(Shape::Whole, format!("overlay({text})"));
            return Ok(());
        }
        self.expect("placing")?;
        let new = self.part(&["from"])?;
        self.expect("from")?;
        let from = self.part(&["for"])?;
        let length =
            if self.accept(&["for"]) { format!(", {}", self.part(&[])?) } else { String::new() };
        self.expect(")")?;
        self.push(Shape::Whole, format!("overlay({text}, {new}, {from}{length})"));
        Ok(())
    }

    /// `nextval('t_id_seq'::regclass)`.
    fn nextval(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        let name = self.take().filter(|token| token.kind == Kind::Text);
        let name = name.and_then(|token| strings::value(token.text));
        let Some(name) = name else {
            return Err(unsupported("nextval() needs the sequence's name as a string"));
        };
        while let Some(token) = self.peek().copied().filter(|token| token.text != ")") {
            self.skip(1);
            if token.text == "(" {
                return Err(self.unexpected(")"));
            }
        }
        self.expect(")")?;
        let name = name.strip_prefix("public.").unwrap_or(&name);
        let name = name.trim_matches('"').replace("\"\"", "\"");
        self.push(Shape::Whole, format!("rota_nextval({})", strings::quoted(&name)));
        Ok(())
    }

    /// Whether what comes is a table.
    pub(super) fn in_from(&self) -> bool {
        if self.last_is(&["from", "join"]) {
            return true;
        }
        if self.last().is_none_or(|piece| piece.shape != Shape::Symbol(',')) {
            return false;
        }
        const CLAUSES: [&str; 9] =
            ["select", "from", "where", "group", "order", "having", "values", "set", "returning"];
        let mut seen = 0usize;
        let clause = self.output.iter().rev().find(|piece| {
            seen += 1;
            piece.is_any(&CLAUSES)
        });
        self.pay(seen);
        clause.is_some_and(|piece| piece.is("from"))
    }

    /// The name of a table function and of its columns: `AS g`, `AS g(x, y)`, or its own.
    fn function_alias(
        &mut self,
        own: &str,
        count: usize,
    ) -> Result<(String, Vec<String>), Refusal> {
        let named = self.accept(&["as"])
            || self.peek().is_some_and(|token| {
                matches!(token.kind, Kind::Word | Kind::Quoted) && !super::queries::is_clause(token)
            });
        if !named {
            return Ok((own.to_owned(), vec![own.to_owned(); count]));
        }
        let table = self.name()?.to_owned();
        if !self.accept(&["("]) {
            let column = if count == 1 { table.clone() } else { own.to_owned() };
            return Ok((table, vec![column; count]));
        }
        let mut columns = vec![self.name()?.to_owned()];
        while self.accept(&[","]) {
            columns.push(self.name()?.to_owned());
        }
        self.expect(")")?;
        Ok((table, columns))
    }

    fn series(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        self.deeper()?;
        let mut bounds = Vec::new();
        loop {
            let bound = self.text_until(|token| token.text == ",")?;
            bounds.push(bound.trim().to_owned());
            if !self.accept(&[","]) {
                break;
            }
        }
        self.depth -= 1;
        self.expect(")")?;
        let (from, to, step) = match bounds.as_slice() {
            [from, to] => (from, to, "1"),
            [from, to, step] => (from, to, step.as_str()),
            _ => return Err(unsupported("generate_series() takes two or three numbers")),
        };
        let bare = step.replace(' ', "");
        let Some(up) = bare.parse::<i64>().ok().filter(|step| *step != 0).map(|step| step > 0)
        else {
            return Err(unsupported("generate_series() needs a whole number as its step"));
        };
        let compare = if up { "<=" } else { ">=" };
        let (table, columns) = self.function_alias("generate_series", 1)?;
        let column = columns.first().map_or("generate_series", String::as_str);
        // Each bound stands there once, and SQLite is not to repeat it either: there may be another
        // such call in it, and so on.
        self.push(
            Shape::Whole,
            format!(
                "(WITH RECURSIVE rota_bounds(item, last) AS MATERIALIZED (SELECT {from}, {to}), \
                 rota_rows(item, last) AS (SELECT item, last FROM rota_bounds WHERE item {compare} \
                 last UNION ALL SELECT item + {bare}, last FROM rota_rows WHERE item + {bare} \
                 {compare} last) SELECT item AS {column} FROM rota_rows) AS {table}"
            ),
        );
        Ok(())
    }

    fn unnest(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        self.deeper()?;
        let mut arrays = Vec::new();
        loop {
            let array = self.text_until(|token| token.text == ",")?;
            arrays.push(array.trim().to_owned());
            if !self.accept(&[","]) {
                break;
            }
        }
        self.depth -= 1;
        self.expect(")")?;
        let (table, mut columns) = self.function_alias("unnest", arrays.len())?;
        columns.resize(arrays.len(), "unnest".to_owned());
        let mut selected = Vec::new();
        for (place, (array, column)) in arrays.iter().zip(&columns).enumerate() {
            selected.push(match place {
                0 => format!("rota_rows.value AS {column}"),
                _ => format!("({array} ->> rota_rows.key) AS {column}"),
            });
        }
        let first = arrays.first().map_or("", String::as_str);
        self.push(
            Shape::Whole,
            format!(
                "(SELECT {} FROM json_each({first}) AS rota_rows) AS {table}",
                selected.join(", ")
            ),
        );
        Ok(())
    }
}
