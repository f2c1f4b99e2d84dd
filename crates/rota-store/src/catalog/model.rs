//! The users' schema as PostgreSQL would see it: relations, indexes, constraints and sequences with
//! numbers and names, read from SQLite's own schema. For step 1, the catalog.

use std::collections::{BTreeMap, HashSet};

use rusqlite::Connection;

use super::types::{DeclaredType, declared_type, format_type};
use super::words::{self, ConstraintKind};

/// The first number that PostgreSQL gives to users' objects (`FirstNormalObjectId`).
pub(super) const FIRST_USER_OID: i64 = 16_384;

/// Where the numbers of what has no row of its own in SQLite's schema begin, one range for each
/// kind. A range has room for a quarter of a million tables with [`PER_TABLE`] each.
const CONSTRAINTS: i64 = 0x1000_0000;
const DEFAULTS: i64 = 0x2000_0000;
const KEYS: i64 = 0x3000_0000;
const ROW_TYPES: i64 = 0x4000_0000;
const SEQUENCES: i64 = 0x5000_0000;

/// Numbers set aside for what belongs to one table.
const PER_TABLE: i64 = 1_024;

/// The number of the `nth` thing of a kind that belongs to the table in this row of SQLite's
/// schema.
fn number(range: i64, rowid: i64, nth: usize) -> i64 {
    let nth = i64::try_from(nth).unwrap_or_default() % PER_TABLE;
    range.saturating_add(rowid.saturating_mul(PER_TABLE)).saturating_add(nth)
}

/// All that users made.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) relations: Vec<Relation>,
    pub(super) indexes: Vec<Index>,
    pub(super) constraints: Vec<Constraint>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) triggers: Vec<Trigger>,
}

/// A table or a view.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) oid: i64,
    pub(super) row_type: i64,
    pub(super) name: String,
    pub(super) is_view: bool,
    pub(super) columns: Vec<Column>,
    /// A view's query.
    pub(super) definition: Option<String>,
    pub(super) has_triggers: bool,
}

/// A column of a [`Relation`].
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) declared: DeclaredType,
    pub(super) not_null: bool,
    /// The number of its default and PostgreSQL's words for it.
    pub(super) default: Option<(i64, String)>,
    pub(super) generated: bool,
}

/// An index, also one that PostgreSQL would have for a primary key that SQLite needs none for.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) oid: i64,
    pub(super) table: i64,
    pub(super) name: String,
    pub(super) unique: bool,
    pub(super) primary: bool,
    /// The columns' numbers, 0 for an expression.
    pub(super) columns: Vec<usize>,
    pub(super) descending: Vec<bool>,
    /// Names and expressions, as in `CREATE INDEX`.
    pub(super) items: Vec<String>,
    pub(super) predicate: Option<String>,
    pub(super) definition: String,
}

/// A constraint of a table.
#[derive(Debug)]
pub(super) struct Constraint {
    pub(super) oid: i64,
    pub(super) table: i64,
    pub(super) name: String,
    /// `p`, `u`, `f` or `c`.
    pub(super) kind: &'static str,
    /// The index that enforces it.
    pub(super) index: i64,
    pub(super) columns: Vec<usize>,
    /// The table that it refers to, and its columns.
    pub(super) refers_to: Option<(i64, Vec<usize>)>,
    pub(super) on_update: &'static str,
    pub(super) on_delete: &'static str,
    pub(super) deferrable: bool,
    pub(super) deferred: bool,
    pub(super) expression: Option<String>,
    pub(super) definition: String,
}

/// A sequence that a column's default takes numbers from.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) oid: i64,
    pub(super) name: String,
    pub(super) table: i64,
    pub(super) column: usize,
}

/// A trigger, as SQLite has them: PostgreSQL's call functions.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) oid: i64,
    pub(super) table: i64,
    pub(super) name: String,
    pub(super) definition: String,
}

/// A row of SQLite's schema.
struct Entry {
    rowid: i64,
    kind: String,
    name: String,
    table: String,
    sql: String,
}

/// Whether users see an object of this name.
fn is_visible(name: &str) -> bool {
    let starts = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    !starts("sqlite_") && !starts("rota_")
}

fn entries(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT rowid, type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_schema \
         ORDER BY rowid",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Entry {
            rowid: row.get(0)?,
            kind: row.get(1)?,
            name: row.get(2)?,
            table: row.get(3)?,
            sql: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// Reads the schema of `main`.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Model> {
    let entries = entries(connection)?;
    let mut model = Model::default();
    let visible = |entry: &&Entry| is_visible(&entry.name) && is_visible(&entry.table);
    for entry in entries.iter().filter(visible) {
        let is_view = entry.kind == "view";
        if is_view || entry.kind == "table" {
            model.relations.push(relation(connection, entry, is_view)?);
        }
    }
    let mut taken: HashSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    for entry in entries.iter().filter(visible).filter(|entry| entry.kind == "table") {
        sequences(&mut model, entry);
        let written = words::table(&entry.sql).constraints;
        let mut reading = Reading { connection, entries: &entries, entry, written, nth: 0 };
        reading.keys(&mut model, &mut taken)?;
        reading.foreign_keys(&mut model, &mut taken)?;
        reading.checks(&mut model, &mut taken);
    }
    for entry in entries.iter().filter(visible).filter(|entry| entry.kind == "trigger") {
        let table = find(&model, &entry.table).map(|relation| relation.oid);
        model.triggers.extend(table.map(|table| Trigger {
            oid: FIRST_USER_OID.saturating_add(entry.rowid),
            table,
            name: entry.name.clone(),
            definition: entry.sql.clone(),
        }));
    }
    // As in PostgreSQL, where keys of other tables are kept by triggers on both.
    for relation in &mut model.relations {
        let has_key = |constraint: &Constraint| {
            let other = constraint.refers_to.as_ref().map(|(other, _)| *other);
            other.is_some_and(|other| other == relation.oid || constraint.table == relation.oid)
        };
        relation.has_triggers = model.constraints.iter().any(has_key)
            || model.triggers.iter().any(|trigger| trigger.table == relation.oid);
    }
    Ok(model)
}

fn relation(connection: &Connection, entry: &Entry, is_view: bool) -> rusqlite::Result<Relation> {
    let columns = match columns(connection, entry) {
        // A view of what is gone.
        Err(_) if is_view => Vec::new(),
        columns => columns?,
    };
    Ok(Relation {
        oid: FIRST_USER_OID.saturating_add(entry.rowid),
        row_type: number(ROW_TYPES, entry.rowid, 0),
        name: entry.name.clone(),
        is_view,
        columns,
        definition: is_view.then(|| format!(" {};", words::view(&entry.sql))),
        has_triggers: false,
    })
}

fn columns(connection: &Connection, entry: &Entry) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, type, \"notnull\" OR pk, dflt_value, hidden \
         FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid",
    )?;
    let mut rows = statement.query([&entry.name])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let declared = declared_type(&row.get::<_, Option<String>>(1)?.unwrap_or_default());
        let default: Option<String> = row.get(3)?;
        let default = default.map(|words| {
            (number(DEFAULTS, entry.rowid, columns.len()), default_words(&words, declared))
        });
        columns.push(Column {
            name: row.get(0)?,
            declared,
            not_null: row.get(2)?,
            default,
            generated: row.get::<_, i64>(4)? >= 2,
        });
    }
    Ok(columns)
}

/// The name of the sequence in `rota_nextval('name')`.
fn sequence_in(default: &str) -> Option<String> {
    let inner = default.trim().strip_prefix("nextval('")?.strip_suffix("'::regclass)")?;
    Some(inner.replace("''", "'"))
}

/// A default as PostgreSQL shows it.
fn default_words(words: &str, declared: DeclaredType) -> String {
    let words = words.trim();
    let lower = words.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("rota_nextval(") {
        let start = words.len() - name.len();
        let name = words.get(start..).and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
        return format!("nextval({}::regclass)", name.trim());
    }
    match (declared.oid, lower.as_str()) {
        (16, "0" | "false") => "false".into(),
        (16, "1" | "true") => "true".into(),
        _ if words.len() > 1 && words.starts_with('\'') && words.ends_with('\'') => {
            match format_type(declared.oid, None) {
                Some(name) => format!("{words}::{name}"),
                None => words.into(),
            }
        }
        _ => words.into(),
    }
}

fn sequences(model: &mut Model, entry: &Entry) {
    let oid = FIRST_USER_OID.saturating_add(entry.rowid);
    let Some(relation) = model.relations.iter().find(|relation| relation.oid == oid) else {
        return;
    };
    for (place, column) in relation.columns.iter().enumerate() {
        let name = column.default.as_ref().and_then(|(_, words)| sequence_in(words));
        if let Some(name) = name {
            let oid = number(SEQUENCES, entry.rowid, place);
            model.sequences.push(Sequence { oid, name, table: relation.oid, column: place + 1 });
        }
    }
}

/// Reading what belongs to one table.
struct Reading<'a> {
    connection: &'a Connection,
    entries: &'a [Entry],
    entry: &'a Entry,
    written: Vec<words::Constraint>,
    /// How many constraints there are so far.
    nth: usize,
}

/// An index as `index_list` tells it.
struct Listed {
    name: String,
    unique: bool,
    origin: String,
}

impl Reading<'_> {
    fn oid(&self) -> i64 {
        FIRST_USER_OID.saturating_add(self.entry.rowid)
    }

    fn next_constraint(&mut self) -> i64 {
        self.nth += 1;
        number(CONSTRAINTS, self.entry.rowid, self.nth)
    }

    /// The constraint that says this of these columns; it is not told again.
    fn take(&mut self, kind: ConstraintKind, columns: &[&str]) -> Option<words::Constraint> {
        let same = |found: &words::Constraint| {
            found.kind == kind
                && found.columns.len() == columns.len()
                && found.columns.iter().zip(columns).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        let place = self.written.iter().position(same)?;
        Some(self.written.remove(place))
    }

    /// Indexes, and the primary key and unique constraints that they are there for.
    fn keys(&mut self, model: &mut Model, taken: &mut HashSet<String>) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, \"unique\", origin FROM pragma_index_list(?1, 'main') ORDER BY seq DESC",
        )?;
        let rows = statement.query_map([&self.entry.name], |row| {
            Ok(Listed { name: row.get(0)?, unique: row.get(1)?, origin: row.get(2)? })
        })?;
        let listed = rows.collect::<rusqlite::Result<Vec<Listed>>>()?;
        if !listed.iter().any(|index| index.origin == "pk") {
            let columns = self.primary_key(&self.entry.name)?;
            if !columns.is_empty() {
                let descending = vec![false; columns.len()];
                let oid = number(KEYS, self.entry.rowid, 0);
                self.index(model, taken, (oid, columns, descending), (true, true, None));
            }
        }
        for index in listed {
            let (columns, descending) = self.index_columns(&index.name)?;
            let found = self.entries.iter().find(|entry| entry.name == index.name);
            let oid = found.map_or(number(KEYS, self.entry.rowid, 0), |entry| {
                FIRST_USER_OID.saturating_add(entry.rowid)
            });
            let made = found.filter(|_| index.origin == "c");
            let kind = (index.unique, index.origin == "pk", made);
            self.index(model, taken, (oid, columns, descending), kind);
        }
        Ok(())
    }

    /// Columns of a table's primary key by their numbers.
    fn primary_key(&self, table: &str) -> rusqlite::Result<Vec<usize>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT cid + 1 FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0 ORDER BY pk",
        )?;
        let rows = statement.query_map([table], |row| Ok(usize::from(row.get::<_, u16>(0)?)))?;
        rows.collect()
    }

    fn index_columns(&self, index: &str) -> rusqlite::Result<(Vec<usize>, Vec<bool>)> {
        let mut statement = self.connection.prepare_cached(
            "SELECT max(cid + 1, 0), \"desc\" FROM pragma_index_xinfo(?1, 'main') WHERE key \
             ORDER BY seqno",
        )?;
        // Columns are at most some thousands; an expression has the number −2.
        let rows = statement
            .query_map([index], |row| Ok((usize::from(row.get::<_, u16>(0)?), row.get(1)?)))?;
        let rows = rows.collect::<rusqlite::Result<Vec<(usize, bool)>>>()?;
        Ok(rows.into_iter().unzip())
    }

    fn index(
        &mut self,
        model: &mut Model,
        taken: &mut HashSet<String>,
        (oid, columns, descending): (i64, Vec<usize>, Vec<bool>),
        (unique, primary, made): (bool, bool, Option<&Entry>),
    ) {
        let table = self.oid();
        let names = column_names(model, table, &columns);
        let words = made.map(|entry| words::index(&entry.sql)).unwrap_or_default();
        let items: Vec<String> = columns
            .iter()
            .zip(&descending)
            .enumerate()
            .map(|(place, (column, descending))| {
                let name = names.get(place).map(|name| quoted(name)).unwrap_or_default();
                match words.items.get(place) {
                    Some(words) if *column == 0 => words.clone(),
                    _ if *descending => name + " DESC",
                    _ => name,
                }
            })
            .collect();
        let name = match made {
            Some(entry) => entry.name.clone(),
            None => self.key_constraint(model, taken, (oid, &columns), primary),
        };
        let mut definition = format!(
            "CREATE {}INDEX {} ON public.{} USING btree ({})",
            if unique { "UNIQUE " } else { "" },
            quoted(&name),
            quoted(&self.entry.name),
            items.join(", ")
        );
        if let Some(predicate) = &words.predicate {
            definition.push_str(" WHERE ");
            definition.push_str(predicate);
        }
        model.indexes.push(Index {
            oid,
            table,
            name,
            unique,
            primary,
            columns,
            descending,
            items,
            predicate: words.predicate,
            definition,
        });
    }

    /// Adds the constraint of an index that none made by itself, and says its name.
    fn key_constraint(
        &mut self,
        model: &mut Model,
        taken: &mut HashSet<String>,
        (index, columns): (i64, &[usize]),
        primary: bool,
    ) -> String {
        let names = column_names(model, self.oid(), columns);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let kind = if primary { ConstraintKind::PrimaryKey } else { ConstraintKind::Unique };
        let written = self.take(kind, &names).and_then(|written| written.name);
        let table = &self.entry.name;
        let name = written.unwrap_or_else(|| {
            let usual = match primary {
                true => format!("{table}_pkey"),
                false => format!("{table}_{}_key", names.join("_")),
            };
            free_name(usual, taken)
        });
        let words = if primary { "PRIMARY KEY" } else { "UNIQUE" };
        let constraint = Constraint {
            definition: format!("{words} ({})", quoted_list(&names)),
            oid: self.next_constraint(),
            table: self.oid(),
            name: name.clone(),
            kind: if primary { "p" } else { "u" },
            index,
            columns: columns.to_vec(),
            refers_to: None,
            on_update: " ",
            on_delete: " ",
            deferrable: false,
            deferred: false,
            expression: None,
        };
        model.constraints.push(constraint);
        name
    }

    fn foreign_keys(
        &mut self,
        model: &mut Model,
        taken: &mut HashSet<String>,
    ) -> rusqlite::Result<()> {
        /// Parent, actions on update and on delete, and pairs of columns.
        type Key = (String, String, String, Vec<(String, Option<String>)>);
        let mut keys: BTreeMap<i64, Key> = BTreeMap::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete \
             FROM pragma_foreign_key_list(?1, 'main') ORDER BY id, seq",
        )?;
        let mut rows = statement.query([&self.entry.name])?;
        while let Some(row) = rows.next()? {
            let key = keys.entry(row.get(0)?);
            let key = match key {
                std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert((row.get(1)?, row.get(4)?, row.get(5)?, Vec::new()))
                }
            };
            key.3.push((row.get(2)?, row.get(3)?));
        }
        // SQLite numbers them from the last one.
        for (parent, on_update, on_delete, pairs) in keys.into_values().rev() {
            let Some(target) = find(model, &parent) else { continue };
            let (target_oid, target_name) = (target.oid, target.name.clone());
            let from: Vec<&str> = pairs.iter().map(|(from, _)| from.as_str()).collect();
            let to: Option<Vec<String>> = pairs.iter().map(|(_, to)| to.clone()).collect();
            let to = match to {
                Some(to) => column_numbers(model, target_oid, to.iter().map(String::as_str)),
                None => self.primary_key(&target_name)?,
            };
            let to_names = column_names(model, target_oid, &to);
            let to_names: Vec<&str> = to_names.iter().map(String::as_str).collect();
            let written = self.take(ConstraintKind::ForeignKey, &from);
            let usual = format!("{}_{}_fkey", self.entry.name, from.join("_"));
            let (name, deferrable, deferred) = match written {
                Some(found) => (found.name, found.deferrable, found.deferred),
                None => (None, false, false),
            };
            let name = name.unwrap_or_else(|| free_name(usual, taken));
            let (on_update, update) = action(&on_update);
            let (on_delete, delete) = action(&on_delete);
            let mut definition = format!(
                "FOREIGN KEY ({}) REFERENCES {}({})",
                quoted_list(&from),
                quoted(&target_name),
                quoted_list(&to_names)
            );
            for (event, words) in [("UPDATE", update), ("DELETE", delete)] {
                if !words.is_empty() {
                    definition.push_str(&format!(" ON {event} {words}"));
                }
            }
            if deferrable {
                definition.push_str(" DEFERRABLE");
            }
            if deferred {
                definition.push_str(" INITIALLY DEFERRED");
            }
            let index = model
                .indexes
                .iter()
                .find(|index| index.table == target_oid && index.unique && index.columns == to);
            let constraint = Constraint {
                oid: self.next_constraint(),
                table: self.oid(),
                name,
                kind: "f",
                index: index.map_or(0, |index| index.oid),
                columns: column_numbers(model, self.oid(), from.iter().copied()),
                refers_to: Some((target_oid, to)),
                on_update,
                on_delete,
                deferrable,
                deferred,
                expression: None,
                definition,
            };
            model.constraints.push(constraint);
        }
        Ok(())
    }

    fn checks(&mut self, model: &mut Model, taken: &mut HashSet<String>) {
        let table = self.oid();
        for written in std::mem::take(&mut self.written) {
            if written.kind != ConstraintKind::Check {
                continue;
            }
            let all: Vec<String> = model
                .relations
                .iter()
                .filter(|relation| relation.oid == table)
                .flat_map(|relation| relation.columns.iter().map(|column| column.name.clone()))
                .collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let named = words::columns_named(&written.expression, &all);
            let usual = match named.as_slice() {
                [one] => format!("{}_{one}_check", self.entry.name),
                _ => format!("{}_check", self.entry.name),
            };
            let constraint = Constraint {
                oid: self.next_constraint(),
                table,
                name: written.name.unwrap_or_else(|| free_name(usual, taken)),
                kind: "c",
                index: 0,
                columns: column_numbers(model, table, named.iter().copied()),
                refers_to: None,
                on_update: " ",
                on_delete: " ",
                deferrable: false,
                deferred: false,
                definition: format!("CHECK ({})", written.expression),
                expression: Some(written.expression),
            };
            model.constraints.push(constraint);
        }
    }
}

/// PostgreSQL's letter for an action, and its words where they are told.
fn action(words: &str) -> (&'static str, &'static str) {
    match words {
        "CASCADE" => ("c", "CASCADE"),
        "SET NULL" => ("n", "SET NULL"),
        "SET DEFAULT" => ("d", "SET DEFAULT"),
        "RESTRICT" => ("r", "RESTRICT"),
        _ => ("a", ""),
    }
}

/// As PostgreSQL does: the usual name, with a number behind it if it is taken.
fn free_name(usual: String, taken: &mut HashSet<String>) -> String {
    let numbered = (1..).map(|number| format!("{usual}{number}"));
    let name = std::iter::once(usual.clone()).chain(numbered).find(|name| !taken.contains(name));
    let name = name.unwrap_or(usual);
    taken.insert(name.clone());
    name
}

fn find<'a>(model: &'a Model, name: &str) -> Option<&'a Relation> {
    model.relations.iter().find(|relation| relation.name.eq_ignore_ascii_case(name))
}

fn column_names(model: &Model, table: i64, numbers: &[usize]) -> Vec<String> {
    let relation = model.relations.iter().find(|relation| relation.oid == table);
    let name = |number: &usize| {
        let column = relation.and_then(|table| table.columns.get(number.checked_sub(1)?));
        column.map(|column| column.name.clone()).unwrap_or_default()
    };
    numbers.iter().map(name).collect()
}

fn column_numbers<'a>(
    model: &Model,
    table: i64,
    names: impl Iterator<Item = &'a str>,
) -> Vec<usize> {
    let Some(relation) = model.relations.iter().find(|relation| relation.oid == table) else {
        return Vec::new();
    };
    let place = |name: &str| {
        relation.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    };
    names.filter_map(|name| place(name).map(|place| place + 1)).collect()
}

fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A name, in double quotes if PostgreSQL would read it differently without.
pub(super) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Words that PostgreSQL does not take for a column's name.
const RESERVED: [&str; 40] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "default",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "limit",
    "not",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "select",
    "table",
    "user",
    "where",
];
