//! Clauses of SELECT, INSERT, UPDATE and DELETE. Step 1.
//!
//! | PostgreSQL | SQLite |
//! |---|---|
//! | `FOR UPDATE`, `FOR SHARE …` | nothing: every transaction is serializable |
//! | `OFFSET 5 ROWS FETCH FIRST 3 ROWS ONLY` | `LIMIT 3 OFFSET 5` |
//! | `(VALUES …) AS v(a, b)` | `(WITH v(a, b) AS (VALUES …) SELECT * FROM v) AS v` |
//! | `INSERT … (a, b) VALUES (DEFAULT, 1)` | `INSERT … (b) VALUES (1)` |
//! | `DELETE FROM t USING u WHERE …` | `DELETE FROM t WHERE rowid IN (SELECT …)` |
//! | `SELECT count(*)` | `SELECT count(*) AS "count"`: see `names` |

use std::collections::BTreeSet;
use std::ops::Range;

use rota_core::error::Refusal;

use super::lexer::{Kind, Token};
use super::{Shape, Translation, is_operator, names, unsupported};

/// Words that begin what comes after a table's or column's name, and so are no alias of it.
const CLAUSES: [&str; 27] = [
    "cross",
    "except",
    "fetch",
    "filter",
    "for",
    "from",
    "full",
    "group",
    "having",
    "inner",
    "intersect",
    "into",
    "join",
    "left",
    "limit",
    "natural",
    "offset",
    "on",
    "order",
    "over",
    "returning",
    "right",
    "set",
    "union",
    "using",
    "where",
    "window",
];

/// Where the elements of a list stand in the input.
type Places = Vec<Range<usize>>;

/// Whether a word begins a clause, or is an operator.
pub(super) fn is_clause(token: &Token<'_>) -> bool {
    token.kind == Kind::Word
        && (is_operator(token.text) || CLAUSES.iter().any(|word| token.is(word)))
}

impl<'a> Translation<'a> {
    /// A statement that is no DDL.
    pub(super) fn query(&mut self) -> Result<String, Refusal> {
        if self.comes(&["explain"]) {
            return self.explain();
        }
        self.alias_target();
        if self.comes(&["insert"]) {
            self.leave_defaults_out()?;
        } else if self.comes(&["delete", "from"]) {
            if let Some(text) = self.delete_using()? {
                return Ok(text);
            }
        } else if self.comes(&["table"]) {
            self.skip(1);
            return Ok(format!("SELECT * FROM {}", self.rest()?));
        } else {
            self.naming = true;
        }
        self.rest()
    }

    /// `EXPLAIN (ANALYZE, …) …`: SQLite tells its plan, and runs nothing.
    fn explain(&mut self) -> Result<String, Refusal> {
        self.skip(1);
        if !self.comes(&["query", "plan"]) {
            self.skip_group();
            while self.accept(&["analyze"]) || self.accept(&["verbose"]) {}
            return Ok(format!("EXPLAIN QUERY PLAN {}", self.rest()?.trim_start()));
        }
        Ok(format!("EXPLAIN{}", self.rest()?))
    }

    /// Remembers x of `UPDATE t AS x`, and puts in the AS that SQLite wants there.
    fn alias_target(&mut self) {
        let Some((place, named)) = self.target_alias() else { return };
        let found = self.ahead(place).and_then(Token::name);
        self.target = found;
        if named {
            return;
        }
        let significant = self.input.iter().enumerate().skip(self.next);
        let mut significant = significant.filter(|(_, token)| token.kind != Kind::Space);
        if let Some((alias, _)) = significant.nth(place) {
            let words = [(Kind::Word, "AS"), (Kind::Space, " ")];
            self.input.splice(alias..alias, words.map(|(kind, text)| Token { kind, text }));
        }
    }

    /// Where the alias stands in `UPDATE t AS x`, `DELETE FROM t x`, `INSERT INTO t AS x`, and
    /// whether AS does.
    fn target_alias(&self) -> Option<(usize, bool)> {
        let verbs: [&[&str]; 3] = [&["update"], &["delete", "from"], &["insert", "into"]];
        let verb = verbs.iter().find(|words| self.comes(words))?;
        let mut place = verb.len();
        place += usize::from(self.ahead(place).is_some_and(|token| token.is("only")));
        while self.ahead(place + 1).is_some_and(|token| token.text == ".") {
            place += 2;
        }
        place += 1;
        let named = self.ahead(place).is_some_and(|token| token.is("as"));
        place += usize::from(named);
        let alias = self.ahead(place)?;
        let is_name = matches!(alias.kind, Kind::Word | Kind::Quoted);
        let insert = verb.len() == 2 && self.comes(&["insert"]);
        (is_name && (named || !(insert || is_clause(alias)))).then_some((place, named))
    }

    /// Words that begin a clause.
    pub(super) fn clause_word(&mut self, word: &str) -> Result<bool, Refusal> {
        let distinct_from = word == "from" && self.last_is(&["distinct"]);
        if self.depth == 0 && self.item.is_some() && names::ends_list(word) && !distinct_from {
            self.end_item();
            self.item = None;
            self.naming = false;
        }
        match word {
            "select" if self.depth == 0 && self.naming => {
                self.item = Some(self.next);
                return Ok(false);
            }
            "returning" if self.depth == 0 => {
                self.seen.returning = true;
                self.item = Some(self.next);
                return Ok(false);
            }
            "limit" if self.comes_any(&["all", "null"]) => {
                self.skip(1);
                self.push(Shape::Word, "LIMIT");
                self.push(Shape::Literal, " -1");
            }
            "offset" if !self.last_is(&["as"]) => self.offset()?,
            "fetch" if self.comes_any(&["first", "next"]) => {
                let count = self.fetch()?;
                self.push(Shape::Word, "LIMIT");
                self.push(Shape::Whole, format!(" {count}"));
            }
            "for" if self.comes_any(&["update", "share", "no", "key"]) => self.skip_locking(),
            "only" if self.last_is(&["from", "join", "update"]) => {}
            "lateral" => return Err(unsupported("LATERAL is not supported")),
            "distinct" if self.comes(&["on", "("]) => {
                return Err(unsupported(
                    "DISTINCT ON is not supported: use GROUP BY, or row_number() OVER (…) = 1",
                ));
            }
            "overriding" if self.comes_any(&["system", "user"]) => self.skip(2),
            "on" if self.comes(&["conflict"]) => return self.on_conflict(),
            "default" if self.last().is_some_and(|piece| piece.shape == Shape::Symbol('=')) => {
                return Err(unsupported("SET column = DEFAULT is not supported: give the value"));
            }
            "insert" | "update" | "delete" if self.depth > 0 && self.last().is_none() => {
                return Err(unsupported(
                    "INSERT, UPDATE and DELETE inside of WITH are not supported: send them one by \
                     one in a transaction",
                ));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Before a comma: the end of a result column.
    pub(super) fn comma(&mut self) {
        if self.depth == 0 && self.item.is_some() {
            self.next -= 1;
            self.end_item();
            self.next += 1;
            self.item = Some(self.next);
        }
    }

    /// Gives the result column that ends here the name that PostgreSQL would.
    pub(super) fn end_item(&mut self) {
        let Some(start) = self.item else { return };
        let end = if self.next < self.input.len() { self.next } else { self.input.len() };
        let tokens = self.input.get(start..end).unwrap_or_default();
        // The word that ends the list has been taken, a comma has not.
        let tokens = match tokens {
            [item @ .., last] if last.kind == Kind::Word && names::ends_list_token(last) => item,
            all => all,
        };
        if let Some(name) = names::column(tokens) {
            let spaces = self.output.iter().rev().take_while(|p| p.shape == Shape::Space).count();
            let tail = self.output.split_off(self.output.len().saturating_sub(spaces));
            self.push(Shape::Whole, format!(" AS {}", super::strings::named(&name)));
            self.output.extend(tail);
        }
    }

    /// `OFFSET n [ROWS] [FETCH FIRST m ROWS ONLY | LIMIT m]`: SQLite wants LIMIT, and first.
    fn offset(&mut self) -> Result<(), Refusal> {
        self.deeper()?;
        let ends = ["row", "rows", "limit", "fetch", "for", "union"];
        let skipped = self.text_until(|t| t.text == ";" || ends.iter().any(|word| t.is(word)))?;
        self.depth -= 1;
        let skipped = skipped.trim().to_owned();
        if self.comes_any(&["row", "rows"]) {
            self.skip(1);
        }
        self.pay(self.output.len());
        if self.output.iter().any(|piece| piece.is("limit")) {
            self.push(Shape::Word, "OFFSET");
            self.push(Shape::Whole, format!(" {skipped}"));
        } else {
            let count = if self.accept(&["limit"]) {
                self.deeper()?;
                let count = self.text_until(|t| t.text == ";" || t.is("for"))?;
                self.depth -= 1;
                count.trim().to_owned()
            } else if self.accept(&["fetch"]) {
                self.fetch()?
            } else {
                "-1".to_owned()
            };
            self.push(Shape::Word, "LIMIT");
            self.push(Shape::Whole, format!(" {count} OFFSET {skipped}"));
        }
        if !self.is_over() && !self.peek_is(")") {
            self.push(Shape::Space, " ");
        }
        Ok(())
    }

    /// `FETCH FIRST n ROWS ONLY`, FETCH taken: how many.
    fn fetch(&mut self) -> Result<String, Refusal> {
        self.skip(1);
        let count = if self.comes_any(&["row", "rows"]) {
            "1".to_owned()
        } else {
            self.deeper()?;
            let count = self.text_until(|token| token.is("row") || token.is("rows"))?;
            self.depth -= 1;
            count.trim().to_owned()
        };
        self.skip(1);
        if self.accept(&["with", "ties"]) {
            return Err(unsupported("FETCH … WITH TIES is not supported"));
        }
        self.expect("only")?;
        Ok(count)
    }

    /// `FOR NO KEY UPDATE OF a, b SKIP LOCKED`, FOR taken. Every transaction is serializable: who
    /// comes second is told to try again.
    fn skip_locking(&mut self) {
        while self.comes_any(&["no", "key", "update", "share"]) {
            self.skip(1);
        }
        if self.accept(&["of"]) {
            loop {
                self.skip(1);
                while self.accept(&["."]) {
                    self.skip(1);
                }
                if !self.accept(&[","]) {
                    break;
                }
            }
        }
        if !self.accept(&["nowait"]) {
            self.accept(&["skip", "locked"]);
        }
        self.trim();
    }

    /// ON CONFLICT after INSERT … SELECT … FROM: SQLite takes ON for a join's, unless there is a
    /// WHERE.
    fn on_conflict(&mut self) -> Result<bool, Refusal> {
        if self.comes(&["conflict", "on", "constraint"]) {
            return Err(unsupported(
                "ON CONFLICT ON CONSTRAINT is not supported: name the columns, ON CONFLICT (…)",
            ));
        }
        self.pay(self.output.len());
        let from = self.output.iter().rposition(|piece| piece.is("from"));
        let open = from.and_then(|from| self.output.get(from..)).is_some_and(|after| {
            !after.iter().any(|piece| piece.is_any(&["where", "group", "order", "limit", "having"]))
        });
        if open {
            self.push(Shape::Word, "WHERE TRUE ");
        }
        Ok(false)
    }

    /// After parentheses with a query: `AS v(a, b)`.
    pub(super) fn column_aliases(&mut self, group: &str) -> Option<String> {
        let query = group.trim_start_matches(['(', ' ', '\n']).get(..6)?.to_ascii_lowercase();
        let query = ["select", "values", "with "].iter().any(|word| query.starts_with(word));
        if !query {
            return None;
        }
        let named = usize::from(self.comes(&["as"]));
        let name = self.ahead(named)?;
        let is_name = matches!(name.kind, Kind::Word | Kind::Quoted) && !is_clause(name);
        if !is_name || self.ahead(named + 1)?.text != "(" || !self.in_from() {
            return None;
        }
        let name = name.text;
        self.skip(named + 2);
        let mut columns = String::new();
        while let Some(token) = self.take().filter(|token| token.text != ")") {
            columns.push_str(token.text);
        }
        Some(format!("(WITH {name}({columns}) AS {group} SELECT * FROM {name}) AS {name}"))
    }

    /// `DELETE FROM t [AS a] USING … WHERE …`.
    fn delete_using(&mut self) -> Result<Option<String>, Refusal> {
        let using = outside(self.input.iter()).any(|token| token.is("using"));
        if !using {
            return Ok(None);
        }
        self.skip(2);
        self.accept(&["only"]);
        let table = self.name()?;
        let alias = if self.comes(&["using"]) {
            None
        } else {
            self.accept(&["as"]);
            Some(self.name()?)
        };
        self.expect("using")?;
        // As FROM it is translated, as which it is put in.
        let place = self.next.saturating_sub(1);
        if let Some(using) = self.input.get_mut(place) {
            using.text = "FROM";
        }
        self.next = place;
        let others = self.text_until(|token| token.is("where") || token.is("returning"))?;
        let others = others.strip_prefix("FROM").unwrap_or(&others).trim();
        let condition = if self.accept(&["where"]) {
            self.text_until(|token| token.is("returning"))?
        } else {
            "TRUE".to_owned()
        };
        let aliased = alias.map_or(String::new(), |alias| format!(" AS {alias}"));
        let itself = alias.unwrap_or(table);
        let returning = self.rest()?;
        Ok(Some(format!(
            "DELETE FROM {table}{aliased} WHERE rowid IN (SELECT {itself}.rowid FROM \
             {table}{aliased}, {others} WHERE {}) {returning}",
            condition.trim()
        )))
    }

    /// `INSERT … (a, b) VALUES (DEFAULT, 1)`: columns that are DEFAULT in every row are left out.
    fn leave_defaults_out(&mut self) -> Result<(), Refusal> {
        let is_default = |token: &Token<'_>| token.is("default");
        if !self.input.iter().any(is_default) {
            return Ok(());
        }
        let Some((columns, rows)) = self.values() else { return Ok(()) };
        let alone = |range: &Range<usize>| {
            let tokens = self.input.get(range.clone()).unwrap_or_default();
            let mut tokens = tokens.iter().filter(|token| token.kind != Kind::Space);
            tokens.next().is_some_and(is_default) && tokens.next().is_none()
        };
        if !rows.iter().flatten().any(alone) {
            return Ok(());
        }
        let Some(columns) = columns else {
            return Err(unsupported(
                "DEFAULT among VALUES needs the columns' names: INSERT INTO t (a, b) VALUES (…)",
            ));
        };
        let mut left_out = BTreeSet::new();
        for place in 0..columns.len() {
            let defaults = rows.iter().filter(|row| row.get(place).is_some_and(alone)).count();
            if defaults == rows.len() {
                left_out.insert(place);
            } else if defaults > 0 {
                return Err(unsupported(
                    "DEFAULT in some rows and a value in others: insert them by two statements",
                ));
            }
        }
        if left_out.len() == columns.len() && rows.len() == 1 {
            return self.default_values(&columns, &rows);
        }
        let mut kept: Vec<Token<'a>> = Vec::with_capacity(self.input.len());
        let mut from = 0usize;
        let lists = std::iter::once(&columns).chain(&rows);
        for list in lists {
            let start = list.first().map_or(from, |first| first.start);
            kept.extend_from_slice(self.input.get(from..start).unwrap_or_default());
            let mut first = true;
            for (_, range) in list.iter().enumerate().filter(|(n, _)| !left_out.contains(n)) {
                if !first {
                    kept.push(Token { kind: Kind::Symbol(','), text: "," });
                }
                first = false;
                kept.extend_from_slice(self.input.get(range.clone()).unwrap_or_default());
            }
            from = list.last().map_or(start, |last| last.end);
        }
        kept.extend_from_slice(self.input.get(from..).unwrap_or_default());
        self.input = kept;
        Ok(())
    }

    /// Nothing but DEFAULT: `INSERT INTO t DEFAULT VALUES`.
    fn default_values(
        &mut self,
        columns: &[Range<usize>],
        rows: &[Vec<Range<usize>>],
    ) -> Result<(), Refusal> {
        // The parentheses themselves go too.
        let start = columns.first().map_or(0, |range| range.start.saturating_sub(1));
        let end = rows.last().and_then(|row| row.last()).map_or(start, |range| range.end + 1);
        let word = |text| Token { kind: Kind::Word, text };
        let space = Token { kind: Kind::Space, text: " " };
        let mut kept = self.input.get(..start).unwrap_or_default().to_vec();
        kept.extend([space, word("DEFAULT"), space, word("VALUES"), space]);
        kept.extend_from_slice(self.input.get(end..).unwrap_or_default());
        self.input = kept;
        Ok(())
    }

    /// Where the columns' names and the values of INSERT … VALUES stand.
    fn values(&self) -> Option<(Option<Places>, Vec<Places>)> {
        let mut lists: Vec<Vec<Range<usize>>> = Vec::new();
        let mut named = None;
        let mut values = false;
        let mut depth = 0usize;
        let mut start = 0usize;
        for (place, token) in self.input.iter().enumerate() {
            match token.kind {
                Kind::Symbol('(') | Kind::Symbol('[') => {
                    depth += 1;
                    if depth == 1 {
                        lists.push(Vec::new());
                        start = place + 1;
                    }
                }
                Kind::Symbol(')') | Kind::Symbol(']') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        lists.last_mut()?.push(start..place);
                    }
                }
                Kind::Symbol(',') if depth == 1 => {
                    lists.last_mut()?.push(start..place);
                    start = place + 1;
                }
                Kind::Word if depth == 0 && token.is("values") => {
                    named = lists.pop();
                    lists.clear();
                    values = true;
                }
                Kind::Word if depth == 0 && values && is_clause(token) => break,
                _ => {}
            }
        }
        values.then_some((named, lists))
    }
}

/// Tokens outside of all parentheses.
pub(super) fn outside<'t, 'a: 't>(
    tokens: impl Iterator<Item = &'t Token<'a>>,
) -> impl Iterator<Item = &'t Token<'a>> {
    let mut depth = 0usize;
    tokens.filter(move |token| {
        match token.kind {
            Kind::Symbol('(') => depth += 1,
            Kind::Symbol(')') => depth = depth.saturating_sub(1),
            _ => return depth == 0 && token.kind != Kind::Space,
        }
        false
    })
}
