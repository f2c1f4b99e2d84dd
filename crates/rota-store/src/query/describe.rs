//! The types of a statement's parameters. SQLite has none, and a driver that is told TEXT for all
//! of them sends text, or refuses a number outright (asyncpg). So the type is taken from the column
//! that a parameter meets:
//!
//! ```text
//!   INSERT INTO t (a, b) VALUES ($1, $2)     the column at the same place
//!   UPDATE t SET a = $1 WHERE b + $2 > 3     the other side of an operator
//!   a IN ($1, $2)   a BETWEEN $1 AND $2      the operand in front
//!   LIMIT $1   b LIKE $1   CAST($1 AS x)     the word itself
//! ```
//!
//! By the words alone, and at best: what is not one of these forms has no type here.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::sql::{Lexer, Token};

/// Words that a table's name follows.
const BEFORE_TABLE: [&str; 4] = ["from", "join", "into", "update"];

/// Words after a table's name that are not its alias.
const AFTER_TABLE: [&str; 24] = [
    "set",
    "where",
    "on",
    "using",
    "join",
    "left",
    "right",
    "inner",
    "outer",
    "cross",
    "natural",
    "full",
    "order",
    "group",
    "having",
    "limit",
    "values",
    "select",
    "default",
    "returning",
    "union",
    "as",
    "indexed",
    "not",
];

/// How many tokens of a call are looked at: each parameter may be compared with one.
const NEAR: usize = 200;

/// What the words of a statement tell.
#[derive(Default)]
pub(super) struct Told {
    /// Declared types of parameters, by SQLite's index.
    pub(super) parameters: BTreeMap<usize, String>,
    /// The tables that are named, by name and by alias.
    pub(super) tables: Tables,
}

/// `always`: also where there is no parameter.
pub(super) fn told(connection: &Connection, sql: &str, always: bool) -> rusqlite::Result<Told> {
    let tokens: Vec<Token<'_>> = Lexer::new(sql).map(|(_, token)| token).collect();
    let parameters = indexes(&tokens);
    if parameters.is_empty() && !always {
        return Ok(Told::default());
    }
    let words = Words { tables: tables(connection, &tokens)?, tokens };
    let inserted = words.inserted();
    let mut types = BTreeMap::new();
    for (place, index) in parameters {
        let found = inserted.get(&place).cloned().or_else(|| words.type_at(place));
        if let Some(found) = found {
            types.entry(index).or_insert(found);
        }
    }
    Ok(Told { parameters: types, tables: words.tables })
}

/// Where the parameters stand among the tokens, each with the index that SQLite will give it: `?`
/// takes the next one, `?7` the seventh, a name the one that it has or the next.
fn indexes(tokens: &[Token<'_>]) -> Vec<(usize, usize)> {
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    let (mut largest, mut found) = (0_usize, Vec::new());
    for (place, token) in tokens.iter().enumerate() {
        let Token::Parameter(name) = token else { continue };
        let number = name.strip_prefix('?').and_then(|digits| digits.parse().ok());
        let index = match (*name, number) {
            ("?", _) => largest.saturating_add(1),
            (_, Some(number)) => number,
            (name, None) => *named.entry(name.to_owned()).or_insert(largest.saturating_add(1)),
        };
        largest = largest.max(index);
        found.push((place, index));
    }
    found
}

/// The `int` of `$1::int`, which SQLite takes for a part of the name.
fn cast_in<'a>(token: Option<&Token<'a>>) -> Option<&'a str> {
    let Some(Token::Parameter(name)) = token else { return None };
    name.strip_prefix('$')?.split_once("::").map(|(_, cast)| cast)
}

/// A table's columns with their declared types, in order.
type Columns = Vec<(String, String)>;

/// Tables by name, in lower case.
type Tables = Vec<(String, Columns)>;

struct Words<'a> {
    tokens: Vec<Token<'a>>,
    /// By name and by alias, in lower case, in the order in which they are named.
    tables: Tables,
}

fn tables(connection: &Connection, tokens: &[Token<'_>]) -> rusqlite::Result<Tables> {
    let mut found = Vec::new();
    let mut place = 0;
    while let Some(token) = tokens.get(place) {
        place += 1;
        let begins = matches!(token, Token::Word(word) if is_any(word, &BEFORE_TABLE));
        let goes_on = matches!(token, Token::Symbol(',')) && !found.is_empty();
        let Some(name) = tokens.get(place).and_then(name_of).filter(|_| begins || goes_on) else {
            continue;
        };
        let (mut name, mut schema) = (name, None);
        if tokens.get(place + 1) == Some(&Token::Symbol('.'))
            && let Some(table) = tokens.get(place + 2).and_then(name_of)
        {
            (schema, name) = (Some(name), table);
            place += 2;
        }
        let columns = columns_of_table(connection, schema.as_deref(), &name)?;
        if columns.is_empty() {
            continue;
        }
        let mut alias = tokens.get(place + 1);
        if matches!(alias, Some(Token::Word(word)) if word.eq_ignore_ascii_case("as")) {
            alias = tokens.get(place + 2);
        }
        let is_alias = !matches!(alias, Some(Token::Word(word)) if is_any(word, &AFTER_TABLE));
        if let Some(alias) = alias.filter(|_| is_alias).and_then(name_of) {
            found.push((alias, columns.clone()));
        }
        found.push((name, columns));
    }
    Ok(found)
}

fn columns_of_table(
    connection: &Connection,
    schema: Option<&str>,
    table: &str,
) -> rusqlite::Result<Columns> {
    let sql = "SELECT lower(name), type FROM pragma_table_info(?1, ?2)";
    let mut prepared = connection.prepare_cached(sql)?;
    let mut found = prepared.query_map((table, schema), |row| Ok((row.get(0)?, row.get(1)?)))?;
    // What was taken for the name of a database may be an alias: then there is no such table.
    Ok(found.by_ref().collect::<rusqlite::Result<_>>().unwrap_or_default())
}

fn is_any(word: &str, words: &[&str]) -> bool {
    words.iter().any(|other| other.eq_ignore_ascii_case(word))
}

/// A name in lower case, quotes taken off.
fn name_of(token: &Token<'_>) -> Option<String> {
    match token {
        Token::Word(word) if !word.starts_with(|first: char| first.is_ascii_digit()) => {
            Some(word.to_lowercase())
        }
        Token::Quoted(quoted) => {
            let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
            Some(inner.replace("\"\"", "\"").to_lowercase())
        }
        _ => None,
    }
}

impl Words<'_> {
    fn word(&self, place: usize) -> Option<&str> {
        match self.tokens.get(place) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn is_word(&self, place: usize, words: &[&str]) -> bool {
        self.word(place).is_some_and(|word| is_any(word, words))
    }

    fn is_symbol(&self, place: usize, symbols: &str) -> bool {
        matches!(self.tokens.get(place), Some(Token::Symbol(symbol)) if symbols.contains(*symbol))
    }

    /// The type of a column, by its name and perhaps its table's.
    fn column(&self, table: Option<&str>, column: &str) -> Option<String> {
        let of = |columns: &Columns| {
            columns.iter().find(|(name, _)| name == column).map(|(_, declared)| declared.clone())
        };
        let named = |name: &str| Some(name) == table;
        let first = self.tables.iter().filter(|(name, _)| named(name)).find_map(|(_, c)| of(c));
        // `excluded` is the table that is inserted into.
        let found = first.or_else(|| self.tables.iter().find_map(|(_, columns)| of(columns)));
        let rowid = ["rowid", "oid", "_rowid_"].contains(&column).then(|| "BIGINT".to_owned());
        found.or(rowid).filter(|declared| !declared.is_empty())
    }

    /// The type of the operand that ends at a place.
    fn operand_before(&self, place: usize) -> Option<String> {
        if self.is_symbol(place, ")") {
            let open = self.opening(place)?;
            return self.called(open.checked_sub(1)?);
        }
        let name = self.tokens.get(place).and_then(name_of);
        let Some(name) = name else { return self.literal(place) };
        let table = place
            .checked_sub(2)
            .filter(|_| self.is_symbol(place - 1, "."))
            .and_then(|before| self.tokens.get(before).and_then(name_of));
        self.column(table.as_deref(), &name)
    }

    /// The type of the operand that begins at a place.
    fn operand_after(&self, place: usize) -> Option<String> {
        if self.is_symbol(place + 1, ".") {
            return self.operand_before(place + 2);
        }
        if self.is_symbol(place + 1, "(") {
            return self.called(place);
        }
        self.operand_before(place)
    }

    /// The type of what a function gives whose name is at a place: of those that are compared with
    /// something most.
    fn called(&self, name: usize) -> Option<String> {
        let end = self.closing_before(name + 1, name.saturating_add(NEAR));
        let inside = name + 2..end;
        let known = match self.word(name)?.to_ascii_lowercase().as_str() {
            "count" | "sum" | "row_number" | "rank" | "dense_rank" => "BIGINT",
            "length" | "char_length" | "octet_length" | "strpos" | "instr"
            | "json_array_length" => "INT4",
            "avg" | "extract" => "NUMERIC",
            "date_part" | "sqrt" | "power" => "FLOAT8",
            "now" => "TIMESTAMPTZ",
            "date" | "rota_date" => "DATE",
            "lower" | "upper" | "trim" | "ltrim" | "rtrim" | "substr" | "replace" | "to_char" => {
                "TEXT"
            }
            "cast" => {
                let mut inside = inside;
                let as_word = inside.rfind(|&place| self.is_word(place, &["as"]))?;
                return self.word(as_word + 1).map(str::to_owned);
            }
            "max" | "min" | "coalesce" | "ifnull" | "nullif" | "abs" | "round" | "date_trunc"
            | "date_add" | "date_subtract" | "greatest" | "least" => {
                let mut names = inside.filter(|&place| {
                    let name =
                        matches!(self.tokens.get(place), Some(Token::Word(_) | Token::Quoted(_)));
                    name && !self.is_symbol(place + 1, "(")
                });
                return names.find_map(|place| self.operand_before(place));
            }
            _ => return None,
        };
        Some(known.to_owned())
    }

    /// Where the parenthesis that closes at a place opens.
    fn opening(&self, close: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for place in (close.saturating_sub(NEAR)..=close).rev() {
            if self.is_symbol(place, ")") {
                depth += 1;
            } else if self.is_symbol(place, "(") {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(place);
                }
            }
        }
        None
    }

    fn literal(&self, place: usize) -> Option<String> {
        match self.tokens.get(place)? {
            Token::Text(_) => Some("TEXT".into()),
            Token::Word(word) if word.parse::<i64>().is_ok() => Some("INTEGER".into()),
            Token::Word(word)
                if word.contains(|c: char| c.is_ascii_digit()) && word.parse::<f64>().is_ok() =>
            {
                Some("NUMERIC".into())
            }
            _ => None,
        }
    }

    fn type_at(&self, place: usize) -> Option<String> {
        if let Some(cast) = cast_in(self.tokens.get(place)) {
            return Some(cast.to_owned());
        }
        let cast = place.checked_sub(2).is_some_and(|place| self.is_word(place, &["cast"]));
        if cast && self.is_word(place + 1, &["as"]) {
            return self.word(place + 2).map(str::to_owned);
        }
        let before = place.checked_sub(1)?;
        if self.is_word(before, &["limit", "offset"]) {
            return Some("BIGINT".into());
        }
        let arrow = |place: Option<usize>| {
            place.is_some_and(|place| self.is_symbol(place, "-") && self.is_symbol(place + 1, ">"))
        };
        if self.is_word(before, &["like", "glob", "regexp"])
            || self.is_symbol(before, "|")
            || arrow(before.checked_sub(1))
            || arrow(before.checked_sub(2))
        {
            return Some("TEXT".into());
        }
        if self.is_symbol(before, "(,") {
            let beside = self.array(before).or_else(|| self.beside(before));
            if beside.is_some() {
                return beside;
            }
        }
        self.before_operator(before).or_else(|| self.in_list(before)).or_else(|| {
            let mut after = place + 1;
            while self.is_symbol(after, "=<>!+-*/%") {
                after += 1;
            }
            if after > place + 1 { self.operand_after(after) } else { None }
        })
    }

    /// `a = $1`, `a >= $1`, `a + $1`, `a IS NOT $1`, `a BETWEEN $1 AND $2`.
    fn before_operator(&self, mut place: usize) -> Option<String> {
        let end = place;
        while self.is_symbol(place, "=<>!+-*/%") || self.is_word(place, &["is", "not"]) {
            place = place.checked_sub(1)?;
        }
        if place < end {
            return self.operand_before(place);
        }
        if self.is_word(place, &["and"]) && self.is_word(place.checked_sub(2)?, &["between"]) {
            place -= 2;
        }
        if !self.is_word(place, &["between"]) {
            return None;
        }
        place = place.checked_sub(1)?;
        if self.is_word(place, &["not"]) {
            place = place.checked_sub(1)?;
        }
        self.operand_before(place)
    }

    /// `a IN (SELECT value FROM json_each($1))`, which was `a = ANY($1)`: an array of `a`'s type.
    fn array(&self, open: usize) -> Option<String> {
        let words = ["in", "(", "select", "value", "from", "json_each"];
        let start = open.checked_sub(words.len())?;
        let same = words.iter().enumerate().all(|(place, word)| match *word {
            "(" => self.is_symbol(start + place, "("),
            word => self.is_word(start + place, &[word]),
        });
        let mut operand = start.checked_sub(1).filter(|_| same)?;
        if self.is_word(operand, &["not"]) {
            operand = operand.checked_sub(1)?;
        }
        let declared = self.operand_before(operand)?;
        let bare = declared.split('(').next().unwrap_or_default().trim().to_owned();
        Some(format!("{bare}[]"))
    }

    /// `coalesce($1, a)`: one of the other arguments is a column, or a literal.
    fn beside(&self, mut open: usize) -> Option<String> {
        let furthest = open.saturating_sub(NEAR);
        while self.is_symbol(open, ",") && open > furthest {
            open = open.checked_sub(2)?;
        }
        let name = open.checked_sub(1)?;
        let alike = ["coalesce", "ifnull", "nullif", "greatest", "least", "max", "min"];
        if !self.is_symbol(open, "(") || !self.is_word(name, &alike) {
            return None;
        }
        let arguments = open + 1..self.closing_before(open, open.saturating_add(NEAR));
        arguments.filter(|place| self.is_symbol(place - 1, "(,")).find_map(|place| {
            let place = if self.is_symbol(place + 1, ".") { place + 2 } else { place };
            self.operand_before(place)
        })
    }

    /// `a IN ($1, 7, $2)`.
    fn in_list(&self, mut place: usize) -> Option<String> {
        while !self.is_symbol(place, "(") {
            let member = self.is_symbol(place, ",")
                || matches!(
                    self.tokens.get(place),
                    Some(Token::Parameter(_) | Token::Text(_) | Token::Word(_))
                );
            place = place.checked_sub(1).filter(|_| member)?;
        }
        let is_in = place.checked_sub(1).filter(|&place| self.is_word(place, &["in"]))?;
        let mut operand = is_in.checked_sub(1)?;
        if self.is_word(operand, &["not"]) {
            operand = operand.checked_sub(1)?;
        }
        self.operand_before(operand)
    }

    /// For an INSERT: the type of the column at each place of its VALUES, or of its SELECT's list.
    fn inserted(&self) -> BTreeMap<usize, String> {
        let mut types = BTreeMap::new();
        let into = (0..self.tokens.len()).find(|&place| self.is_word(place, &["into"]));
        let Some((mut place, table)) = into.and_then(|into| {
            let dotted = if self.is_symbol(into + 2, ".") { into + 3 } else { into + 1 };
            Some((dotted + 1, self.tokens.get(dotted).and_then(name_of)?))
        }) else {
            return types;
        };
        let Some((_, columns)) = self.tables.iter().find(|(name, _)| *name == table) else {
            return types;
        };
        let mut order: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let listed: Vec<String>;
        if self.is_symbol(place, "(") {
            let end = self.closing(place);
            listed = self
                .tokens
                .get(place..end)
                .unwrap_or_default()
                .iter()
                .filter_map(name_of)
                .collect();
            order = listed.iter().map(String::as_str).collect();
            place = end + 1;
        }
        let is_select = self.is_word(place, &["select"]);
        if !is_select && !self.is_word(place, &["values"]) {
            return types;
        }
        place += 1;
        let (mut depth, mut column) = (usize::from(is_select), 0_usize);
        while let Some(token) = self.tokens.get(place) {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                Token::Symbol(',') if depth == 1 => column += 1,
                Token::Symbol(',') if depth == 0 => column = 0,
                Token::Word(word) if is_any(word, &["from", "on", "returning", "where"]) => break,
                Token::Parameter(_) if depth == 1 => {
                    let declared =
                        order.get(column).and_then(|name| self.column(Some(&table), name));
                    let ends = place + 1;
                    let alone = (self.is_symbol(place - 1, "(,")
                        || self.is_word(place - 1, &["select"]))
                        && (ends >= self.tokens.len()
                            || self.is_symbol(ends, "),;")
                            || self.is_word(ends, &["from", "where", "on", "returning"]));
                    if let Some(declared) = declared.filter(|_| alone) {
                        types.insert(place, declared);
                    }
                }
                _ => {}
            }
            place += 1;
        }
        types
    }

    /// Where the parenthesis that opens at a place closes, or the end.
    fn closing(&self, open: usize) -> usize {
        self.closing_before(open, self.tokens.len())
    }

    /// The same, looking no further than the end.
    fn closing_before(&self, open: usize, end: usize) -> usize {
        let end = end.min(self.tokens.len());
        let mut depth = 0_usize;
        for place in open..end {
            if self.is_symbol(place, "(") {
                depth += 1;
            } else if self.is_symbol(place, ")") {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return place;
                }
            }
        }
        end
    }
}
