//! Questions about the catalog in words that SQLite has an answer to: step 1, before `dialect`.
//!
//! The catalog's tables are real (`rota_store::catalog`): most of what tools ask is ordinary SQL.
//! What is not are sets and arrays, of which SQLite has none. Those that tools unfold are few, and
//! each is also a table with a row for each element:
//!
//! ```text
//!   FROM unnest(c.conkey) WITH ORDINALITY AS k(n, place)     in FROM:   a subquery
//!   SELECT unnest(i.indkey), generate_subscripts(…)          selected:  a join, its columns
//!   SELECT (_pg_expandarray(i.indkey)).n                     the same
//!   SELECT array_agg(attname), ARRAY(SELECT …)               marked, to be announced as an array
//!   i.indoption[n]                                           counts from 0: n + 1
//!   c.tableoid                                           no table's rows say where they are: 0
//!   FROM aclexplode(c.relacl) AS acl                         a subquery
//!   FROM aclexplode(…), pg_options_to_table(…)               no rows
//! ```
//!
//! By tokens: names of columns decide, not whole texts, so other tools' wordings are met as well.

use super::lexer::{Kind, Token, tokens};

/// The catalog's arrays and vectors: the column, the table of their elements and its column, the
/// owner's number, and whether places are counted from 0.
const ARRAYS: [Array; 6] = [
    Array { name: "conkey", table: "rota_key", element: "attnum", owner: "oid", from_zero: false },
    Array {
        name: "confkey",
        table: "rota_key",
        element: "confattnum",
        owner: "oid",
        from_zero: false,
    },
    Array::of_index("indkey", "attnum"),
    Array::of_index("indoption", "option"),
    Array::of_index("indclass", "opclass"),
    Array::of_index("indcollation", "collation"),
];

/// Functions in FROM of which there is never a row, and the columns that they have.
const EMPTY: [(&str, &[&str]); 5] = [
    ("pg_partition_ancestors", &["relid"]),
    ("pg_options_to_table", &["option_name", "option_value"]),
    ("aclexplode", &["grantor", "grantee", "privilege_type", "is_grantable"]),
    ("pg_get_publication_tables", &["relid", "attrs", "qual"]),
    ("pg_partition_tree", &["relid", "parentrelid", "isleaf", "level"]),
];

/// Columns of subqueries by which tools pass on arrays that they have made, and what marks them.
const PASSED_ON: [(&str, &str); 5] = [
    ("elements", "rota_text_array"),
    ("elements_is_expr", "rota_bool_array"),
    ("elements_opclass", "rota_oid_array"),
    ("labels", "rota_text_array"),
    ("parent_table_names", "rota_text_array"),
];

/// Functions that tell which server and database this is.
const PLACES: [&str; 6] = [
    "version",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_setting",
    "set_config",
];

/// The name of the joined elements.
const ITEMS: &str = "rota_items";

struct Array {
    name: &'static str,
    table: &'static str,
    element: &'static str,
    owner: &'static str,
    from_zero: bool,
}

impl Array {
    const fn of_index(name: &'static str, element: &'static str) -> Self {
        Self { name, table: "rota_index_key", element, owner: "indexrelid", from_zero: true }
    }

    fn named(token: &Token<'_>) -> Option<&'static Self> {
        ARRAYS.iter().find(|array| token.is(array.name))
    }
}

/// Whether a statement names something of the catalog, or asks where it is: in a transaction that
/// is looked up beside it.
pub(crate) fn is_asked(sql: &str) -> bool {
    let mentions = rota_store::catalog::is_mentioned;
    if !mentions(sql) && !PLACES.iter().any(|part| contains(sql, part)) {
        return false;
    }
    let all = tokens(sql);
    all.iter().enumerate().any(|(place, token)| match token.kind {
        Kind::Word => {
            let called = all.get(place + 1).is_some_and(|next| next.text == "(");
            mentions(token.text) || called && PLACES.iter().any(|name| token.is(name))
        }
        Kind::Quoted => mentions(token.text),
        _ => false,
    })
}

fn contains(sql: &str, part: &str) -> bool {
    sql.as_bytes().windows(part.len()).any(|found| found.eq_ignore_ascii_case(part.as_bytes()))
}

/// The statement in words that the dialect and SQLite understand; `None` where it is so already.
pub(crate) fn respelled(sql: &str) -> Option<String> {
    if !rota_store::catalog::is_mentioned(sql) {
        return None;
    }
    let all = tokens(sql);
    let words: Vec<usize> = all
        .iter()
        .enumerate()
        .filter(|(_, token)| token.kind != Kind::Space)
        .map(|(place, _)| place)
        .collect();
    let mut spelling = Spelling { all, words, edits: Vec::new() };
    spelling.run();
    spelling.finish()
}

/// A stretch of words, from and up to, and what stands there instead.
type Edit = (usize, usize, String);

struct Spelling<'a> {
    all: Vec<Token<'a>>,
    /// The places of the tokens that are not white space.
    words: Vec<usize>,
    edits: Vec<Edit>,
}

impl<'a> Spelling<'a> {
    fn word(&self, place: usize) -> Option<&Token<'a>> {
        self.all.get(*self.words.get(place)?)
    }

    fn is(&self, place: usize, word: &str) -> bool {
        self.word(place).is_some_and(|token| token.is(word))
    }

    fn symbol(&self, place: usize, symbol: char) -> bool {
        self.word(place).is_some_and(|token| token.kind == Kind::Symbol(symbol))
    }

    /// Whether the words come from here on; a symbol is itself.
    fn comes(&self, place: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(nth, word)| {
            self.word(place + nth).is_some_and(|token| token.text.eq_ignore_ascii_case(word))
        })
    }

    /// The place after the parenthesis or bracket that closes the one at `open`.
    fn after_group(&self, open: usize) -> usize {
        let mut depth = 0usize;
        let mut place = open;
        while let Some(token) = self.word(place) {
            match token.kind {
                Kind::Symbol('(' | '[') => depth += 1,
                Kind::Symbol(')' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            place += 1;
            if depth == 0 {
                break;
            }
        }
        place
    }

    /// The text of some words, with what is between them.
    fn text(&self, from: usize, to: usize) -> String {
        let start = self.words.get(from).copied().unwrap_or(self.all.len());
        let end =
            to.checked_sub(1).and_then(|last| self.words.get(last)).map_or(0, |last| last + 1);
        let tokens = self.all.get(start..end).unwrap_or_default();
        tokens.iter().map(|token| token.text).collect()
    }

    fn run(&mut self) {
        let (mut place, mut depth) = (0, 0usize);
        while place < self.words.len() {
            if self.symbol(place, '(') {
                depth += 1;
            } else if self.symbol(place, ')') {
                depth = depth.saturating_sub(1);
            }
            let edited = self
                .unfolded(place)
                .or_else(|| self.exploded(place))
                .or_else(|| self.without_rows(place))
                .or_else(|| self.selected_elements(place))
                .or_else(|| self.composite(place))
                .or_else(|| self.vector_subscript(place))
                .or_else(|| self.table_number(place))
                .or_else(|| if depth == 0 { self.announced_array(place) } else { None });
            place = edited.unwrap_or(place + 1);
        }
    }

    fn finish(mut self) -> Option<String> {
        if self.edits.is_empty() {
            return None;
        }
        self.edits.sort_by_key(|(from, to, _)| (*from, *to));
        let mut text = String::new();
        let mut next = 0;
        for (from, to, instead) in &self.edits {
            let start = self.words.get(*from).copied().unwrap_or(self.all.len());
            for token in self.all.get(next..start).unwrap_or_default() {
                text.push_str(token.text);
            }
            text.push_str(instead);
            let after = to.checked_sub(1).and_then(|last| self.words.get(last));
            next = if to > from { after.map_or(start, |last| last + 1) } else { start.max(next) };
        }
        for token in self.all.get(next..).unwrap_or_default() {
            text.push_str(token.text);
        }
        Some(text)
    }

    /// Where a function's name begins, `pg_catalog.` or `information_schema.` in front of it
    /// included.
    fn qualified(&self, name: usize) -> usize {
        let schema = name.checked_sub(2).filter(|schema| {
            self.symbol(name - 1, '.')
                && (self.is(*schema, "pg_catalog") || self.is(*schema, "information_schema"))
        });
        schema.unwrap_or(name)
    }

    /// Whether a place is one for a table, and whether another table stands before it. LATERAL
    /// counts as part of it.
    fn in_from(&self, start: usize) -> Option<(usize, bool)> {
        let before = start.checked_sub(1)?;
        if self.is(before, "lateral") {
            return self.in_from(before);
        }
        if self.is(before, "from") {
            return Some((start, false));
        }
        if self.is(before, "join") {
            return Some((start, true));
        }
        // A comma: in FROM, if that is the nearest of the words that begin a clause.
        if !self.symbol(before, ',') {
            return None;
        }
        let (mut depth, mut place) = (0usize, before);
        while let Some(at) = place.checked_sub(1) {
            place = at;
            if self.symbol(at, ')') {
                depth += 1;
            } else if self.symbol(at, '(') {
                depth = depth.checked_sub(1)?;
            } else if depth == 0 && self.is(at, "from") {
                return Some((start, true));
            } else if depth == 0 && (self.is(at, "select") || self.is(at, "by")) {
                return None;
            }
        }
        None
    }

    /// The alias after a table function: the place after it, its name, and its columns' names.
    fn alias(&self, mut place: usize) -> (usize, Option<String>, Vec<String>) {
        const AFTER: [&str; 12] = [
            "on", "join", "left", "inner", "cross", "where", "order", "group", "right", "limit",
            "union", "with",
        ];
        if self.is(place, "as") {
            place += 1;
        }
        let named = self.word(place).filter(|token| {
            matches!(token.kind, Kind::Word | Kind::Quoted)
                && !AFTER.iter().any(|word| token.is(word))
        });
        let Some(name) = named.map(|token| token.text.to_owned()) else {
            return (place, None, Vec::new());
        };
        place += 1;
        let mut columns = Vec::new();
        if self.symbol(place, '(') {
            let end = self.after_group(place);
            columns = (place + 1..end.saturating_sub(1))
                .filter(|at| !self.symbol(*at, ','))
                .filter_map(|at| self.word(at).map(|token| token.text.to_owned()))
                .collect();
            place = end;
        }
        (place, Some(name), columns)
    }

    /// An array of the catalog at a place, its qualification with the dots, and the place after it.
    fn array(&self, place: usize) -> Option<(&'static Array, String, usize)> {
        let mut name = place;
        while self.symbol(name + 1, '.') {
            name += 2;
        }
        Some((Array::named(self.word(name)?)?, self.text(place, name), name + 1))
    }

    /// The arrays between parentheses at `open`, and how they are qualified.
    fn arrays(&self, open: usize) -> Option<(Vec<&'static Array>, String)> {
        let last = self.after_group(open).checked_sub(1)?;
        let (first, owner, mut place) = self.array(open + 1)?;
        let mut found = vec![first];
        while place < last {
            if !self.symbol(place, ',') {
                return None;
            }
            let (array, _, after) = self.array(place + 1)?;
            found.push(array);
            place = after;
        }
        Some((found, owner))
    }

    /// `FROM unnest(c.conkey) WITH ORDINALITY AS k(n, place)`.
    fn unfolded(&mut self, place: usize) -> Option<usize> {
        if !self.is(place, "unnest") || !self.symbol(place + 1, '(') {
            return None;
        }
        let (start, has_sibling) = self.in_from(self.qualified(place))?;
        let (arrays, owner) = self.arrays(place + 1)?;
        let mut end = self.after_group(place + 1);
        let ordinality = self.comes(end, &["with", "ordinality"]);
        end += if ordinality { 2 } else { 0 };
        let (mut end, alias, columns) = self.alias(end);
        let alias = alias.unwrap_or_else(|| "unnest".into());
        let first = arrays.first()?;
        let name = |nth: usize, otherwise: &str| {
            columns.get(nth).cloned().unwrap_or_else(|| otherwise.to_owned())
        };
        let mut selected: Vec<String> = arrays
            .iter()
            .enumerate()
            .map(|(nth, array)| format!("{} AS {}", array.element, name(nth, &alias)))
            .collect();
        if ordinality {
            selected.push(format!("place AS {}", name(arrays.len(), "ordinality")));
        }
        let (table, number) = (first.table, first.owner);
        let selected = selected.join(", ");
        let instead = if has_sibling {
            let joined = self.is(end, "on");
            end += usize::from(joined);
            let and = if joined { " AND" } else { "" };
            format!(
                "(SELECT {selected}, rota_owner FROM pg_catalog.{table}) AS {alias} \
                 ON {alias}.rota_owner = {owner}{number}{and}"
            )
        } else {
            format!(
                "(SELECT {selected} FROM pg_catalog.{table} WHERE rota_owner = {owner}{number}) \
                 AS {alias}"
            )
        };
        self.edits.push((start, end, instead));
        Some(end)
    }

    /// `FROM aclexplode(c.relacl) AS acl`: who may do what with a table.
    fn exploded(&mut self, place: usize) -> Option<usize> {
        const COLUMNS: [&str; 4] = ["grantor", "grantee", "privilege_type", "is_grantable"];
        if !self.is(place, "aclexplode") || !self.symbol(place + 1, '(') {
            return None;
        }
        let (start, has_sibling) = self.in_from(self.qualified(place))?;
        let end = self.after_group(place + 1);
        // It may stand in `coalesce(c.relacl, acldefault('r', c.relowner))`.
        let array = (place + 2..end).find(|at| self.is(*at, "relacl"))?;
        let is_qualified = self.symbol(array.checked_sub(1)?, '.');
        let owner =
            if is_qualified { self.text(array.checked_sub(2)?, array) } else { String::new() };
        let (mut end, alias, columns) = self.alias(end);
        let alias = alias.unwrap_or_else(|| "aclexplode".into());
        let selected = COLUMNS.iter().enumerate().map(|(nth, column)| match columns.get(nth) {
            Some(name) => format!("{column} AS {name}"),
            None => (*column).to_owned(),
        });
        let selected = selected.collect::<Vec<_>>().join(", ");
        let instead = if has_sibling {
            let joined = self.is(end, "on");
            end += usize::from(joined);
            let and = if joined { " AND" } else { "" };
            format!(
                "(SELECT {selected}, rota_owner FROM pg_catalog.rota_acl) AS {alias} \
                 ON {alias}.rota_owner = {owner}oid{and}"
            )
        } else {
            format!(
                "(SELECT {selected} FROM pg_catalog.rota_acl WHERE rota_owner = {owner}oid) \
                 AS {alias}"
            )
        };
        self.edits.push((start, end, instead));
        Some(end)
    }

    /// `FROM pg_options_to_table(…) AS options`.
    fn without_rows(&mut self, place: usize) -> Option<usize> {
        let (name, columns) = EMPTY.iter().find(|(name, _)| self.is(place, name))?;
        if !self.symbol(place + 1, '(') {
            return None;
        }
        let (start, _) = self.in_from(self.qualified(place))?;
        let mut end = self.after_group(place + 1);
        end += if self.comes(end, &["with", "ordinality"]) { 2 } else { 0 };
        let (end, alias, named) = self.alias(end);
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        let columns = if named.is_empty() { *columns } else { named.as_slice() };
        let columns: Vec<String> =
            columns.iter().map(|column| format!("NULL AS {column}")).collect();
        let alias = alias.unwrap_or_else(|| (*name).to_owned());
        let instead = format!("(SELECT {} WHERE false) AS {alias}", columns.join(", "));
        self.edits.push((start, end, instead));
        Some(end)
    }

    /// `SELECT unnest(i.indkey)`, `generate_subscripts(i.indkey, 1)`, `(_pg_expandarray(…)).n`.
    fn selected_elements(&mut self, place: usize) -> Option<usize> {
        let function = self.word(place)?.name()?;
        let known = ["unnest", "generate_subscripts", "_pg_expandarray"];
        if !known.contains(&function.as_str()) || !self.symbol(place + 1, '(') {
            return None;
        }
        let mut start = self.qualified(place);
        let mut end = self.after_group(place + 1);
        let (array, owner, after) = self.array(place + 2)?;
        let instead = match function.as_str() {
            "unnest" => format!("{ITEMS}.{}", array.element),
            "generate_subscripts" => {
                // The dimension is the first, and stays: it may be a parameter.
                let dimension = self.text(after + 1, end.saturating_sub(1));
                let more = if array.from_zero { "- (" } else { "- 1 + (" };
                format!("({ITEMS}.place {more}{dimension}))")
            }
            _ => {
                // `(f(…)).n` is the place, `(f(…)).x` the element.
                let picked = self.symbol(end, ')') && self.symbol(end + 1, '.');
                let column = if picked && self.is(end + 2, "n") { "place" } else { array.element };
                if picked {
                    start = start.checked_sub(1)?;
                    end += 3;
                }
                format!("{ITEMS}.{column}")
            }
        };
        self.edits.push((start, end, instead));
        self.join_elements(end, array, &owner);
        Some(end)
    }

    /// Joins the elements at the end of FROM, once for each FROM.
    fn join_elements(&mut self, after: usize, array: &Array, owner: &str) {
        const ENDS: [&str; 7] = ["where", "group", "order", "limit", "union", "having", "window"];
        let (mut place, mut in_from) = (after, false);
        while let Some(token) = self.word(place) {
            match token.kind {
                Kind::Symbol('(') => {
                    place = self.after_group(place);
                    continue;
                }
                Kind::Symbol(')' | ';') => break,
                _ if in_from && ENDS.iter().any(|end| token.is(end)) => break,
                _ => in_from |= token.is("from"),
            }
            place += 1;
        }
        let join = format!(
            " JOIN pg_catalog.{} AS {ITEMS} ON {ITEMS}.rota_owner = {owner}{} ",
            array.table, array.owner
        );
        let edit = (place, place, join);
        if !self.edits.contains(&edit) {
            self.edits.push(edit);
        }
    }

    /// `(result.KEYS).x`, of a column that was a pair and is a number now.
    fn composite(&mut self, place: usize) -> Option<usize> {
        let found = self.symbol(place, '(')
            && self.symbol(place + 2, '.')
            && self.is(place + 3, "keys")
            && self.comes(place + 4, &[")", ".", "x"]);
        if !found {
            return None;
        }
        let instead = format!(" {}", self.text(place + 1, place + 4));
        self.edits.push((place, place + 7, instead));
        Some(place + 7)
    }

    /// `i.indoption[n]`: vectors are counted from 0, arrays from 1.
    fn vector_subscript(&mut self, place: usize) -> Option<usize> {
        let name = self.word(place)?.name()?;
        let array = ARRAYS.iter().find(|array| array.from_zero && name.ends_with(array.name))?;
        debug_assert!(array.from_zero);
        if !self.symbol(place + 1, '[') {
            return None;
        }
        let end = self.after_group(place + 1);
        let subscript = self.text(place + 2, end.saturating_sub(1));
        self.edits.push((place + 1, end, format!("[({subscript}) + 1]")));
        Some(end)
    }

    /// `c.tableoid`.
    fn table_number(&mut self, place: usize) -> Option<usize> {
        if !self.is(place, "tableoid") || !self.symbol(place.checked_sub(1)?, '.') {
            return None;
        }
        self.edits.push((place.checked_sub(2)?, place + 1, "0".into()));
        Some(place + 1)
    }

    /// `array_agg(…)`, `ARRAY(SELECT …)` or a column that passes such a thing on, among what is
    /// selected.
    fn announced_array(&mut self, place: usize) -> Option<usize> {
        let token = *self.word(place)?;
        let starts = place.checked_sub(1).is_some_and(|before| {
            self.symbol(before, ',') || self.is(before, "select") || self.is(before, "distinct")
        });
        if starts && self.symbol(place + 1, '.') {
            let column = self.word(place + 2)?.name()?;
            let (_, mark) = PASSED_ON.iter().find(|(name, _)| *name == column)?;
            let is_end = self.symbol(place + 3, ',')
                || self.is(place + 3, "from")
                || self.is(place + 3, "as");
            if !is_end {
                return None;
            }
            let text = self.text(place, place + 3);
            let name =
                if self.is(place + 3, "as") { String::new() } else { format!(" AS {column}") };
            self.edits.push((place, place + 3, format!("{mark}({text}){name}")));
            return Some(place + 3);
        }
        let is_array = token.is("array_agg") || token.is("array");
        if !is_array || !self.symbol(place + 1, '(') || self.is(place.checked_sub(1)?, "=") {
            return None;
        }
        let end = self.after_group(place + 1);
        let last = end.checked_sub(1).filter(|last| self.symbol(*last, ')'))?;
        let numbers = ["oid", "atttypid", "conrelid", "indrelid"];
        let is_oid = (place..end).any(|at| numbers.iter().any(|number| self.is(at, number)))
            && token.is("array_agg");
        let mark = if is_oid { "rota_oid_array" } else { "rota_text_array" };
        self.edits.push((place, place, format!("{mark}(")));
        self.edits.push((last, end, "))".into()));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(sql: &str) -> String {
        let text = respelled(sql).unwrap_or_else(|| "the same".into());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_no_question_of_the_catalog_is_left_alone() {
        for sql in ["SELECT unnest(indkey) FROM t", "SELECT 1", "SELECT relname FROM pg_class"] {
            assert_eq!(respelled(sql), None, "{sql}");
        }
    }

    #[test]
    fn arrays_in_from_become_subqueries() {
        assert_eq!(
            spelled(
                "SELECT 1 FROM pg_constraint c, LATERAL unnest(c.conkey, c.confkey) \
                 WITH ORDINALITY AS k(a, b, n) WHERE true"
            ),
            "SELECT 1 FROM pg_constraint c, (SELECT attnum AS a, confattnum AS b, place AS n, \
             rota_owner FROM pg_catalog.rota_key) AS k ON k.rota_owner = c.oid WHERE true"
        );
        assert_eq!(
            spelled("SELECT (SELECT max(k) FROM unnest(c.conkey) k) FROM pg_constraint c"),
            "SELECT (SELECT max(k) FROM (SELECT attnum AS k FROM pg_catalog.rota_key WHERE \
             rota_owner = c.oid) AS k) FROM pg_constraint c"
        );
        assert_eq!(
            spelled("SELECT 1 FROM pg_index i JOIN LATERAL unnest(i.indkey) AS k(n) ON true"),
            "SELECT 1 FROM pg_index i JOIN (SELECT attnum AS n, rota_owner FROM \
             pg_catalog.rota_index_key) AS k ON k.rota_owner = i.indexrelid AND true"
        );
    }

    #[test]
    fn lists_of_privileges_in_from_become_subqueries() {
        assert_eq!(
            spelled(
                "SELECT a.grantee FROM pg_class c, \
                 LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a WHERE 1"
            ),
            "SELECT a.grantee FROM pg_class c, (SELECT grantor, grantee, privilege_type, \
             is_grantable, rota_owner FROM pg_catalog.rota_acl) AS a ON a.rota_owner = c.oid \
             WHERE 1"
        );
        assert_eq!(
            spelled("SELECT (SELECT count(*) FROM aclexplode(relacl)) FROM pg_class"),
            "SELECT (SELECT count(*) FROM (SELECT grantor, grantee, privilege_type, is_grantable \
             FROM pg_catalog.rota_acl WHERE rota_owner = oid) AS aclexplode) FROM pg_class"
        );
        assert_eq!(
            spelled("SELECT 1 FROM pg_namespace, aclexplode(nspacl) AS a"),
            "SELECT 1 FROM pg_namespace, (SELECT NULL AS grantor, NULL AS grantee, NULL AS \
             privilege_type, NULL AS is_grantable WHERE false) AS a"
        );
    }

    #[test]
    fn selected_elements_become_a_join() {
        assert_eq!(
            spelled(
                "SELECT unnest(i.indkey) AS n, generate_subscripts(i.indkey, $1) AS o \
                 FROM pg_index i WHERE i.indisvalid"
            ),
            "SELECT rota_items.attnum AS n, (rota_items.place - ($1)) AS o FROM pg_index i JOIN \
             pg_catalog.rota_index_key AS rota_items ON rota_items.rota_owner = i.indexrelid WHERE \
             i.indisvalid"
        );
        assert_eq!(
            spelled("SELECT unnest(pg_catalog.pg_index.indkey) FROM pg_catalog.pg_index"),
            "SELECT rota_items.attnum FROM pg_catalog.pg_index JOIN pg_catalog.rota_index_key AS \
             rota_items ON rota_items.rota_owner = pg_catalog.pg_index.indexrelid"
        );
        assert_eq!(
            spelled(
                "SELECT (information_schema._pg_expandarray(i.indkey)).n \
                 FROM (SELECT 1) x, pg_index i"
            ),
            "SELECT rota_items.place FROM (SELECT 1) x, pg_index i JOIN pg_catalog.rota_index_key \
             AS rota_items ON rota_items.rota_owner = i.indexrelid"
        );
        assert_eq!(
            spelled("SELECT 1 FROM pg_class r WHERE r.a = (r.KEYS).x"),
            "SELECT 1 FROM pg_class r WHERE r.a = r.KEYS"
        );
    }

    #[test]
    fn arrays_that_are_made_are_announced_as_arrays() {
        assert_eq!(
            spelled(
                "SELECT array_agg(a.attname ORDER BY 1) AS x, ARRAY(SELECT 1) FROM pg_attribute a"
            ),
            "SELECT rota_text_array(array_agg(a.attname ORDER BY 1)) AS x, \
             rota_text_array(ARRAY(SELECT 1)) FROM pg_attribute a"
        );
        assert_eq!(
            spelled("SELECT i.elements, i.labels AS l FROM (SELECT 1 FROM pg_class) AS i"),
            "SELECT rota_text_array(i.elements) AS elements, rota_text_array(i.labels) AS l FROM \
             (SELECT 1 FROM pg_class) AS i"
        );
    }

    #[test]
    fn vectors_are_counted_from_zero() {
        assert_eq!(
            spelled("SELECT i.indoption[k.n - 1] & 1 FROM pg_index i"),
            "SELECT i.indoption[(k.n - 1) + 1] & 1 FROM pg_index i"
        );
    }
}
