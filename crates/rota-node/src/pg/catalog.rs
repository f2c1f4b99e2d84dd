//! The catalog queries of psql's backslash commands, answered from SQLite's schema. There is no
//! catalog to ask anything else of, and saying so (0A000) is better than pretending to have one.

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Settings, Statement, Value};
use rota_core::types::Height;
use rota_store::{Column, Rows};

use super::lexer::{Kind, tokens};
use crate::driver::{Driver, ReadOptions};

/// A query that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CatalogQuery {
    /// `\d`, `\dt`, `\dv`, `\di`: kinds of SQLite's schema, and a name to look for.
    Relations { kinds: Vec<&'static str>, name: Option<String>, indexes: bool },
    /// `\l`.
    Databases,
    /// `\dn`.
    Schemas,
    /// `\du`.
    Roles,
    /// `\d table`, first query: which table.
    Lookup { name: Option<String> },
    /// `\d table`, second query: what it has.
    Traits { number: i64 },
    /// `\d table`, third query: its columns.
    Columns { number: i64 },
    /// `\d table`: its indexes.
    Indexes { number: i64 },
    /// `\d table`: what there never is any of; with its number of columns.
    None { columns: usize },
    /// The tables, as information_schema or pg_tables tell them.
    Tables,
}

/// Recognises a catalog query; refuses one that is not known.
pub(crate) fn recognise(sql: &str) -> Option<Result<CatalogQuery, Refusal>> {
    if !mentions_catalog(sql) {
        return None;
    }
    let words: Vec<_> = tokens(sql).into_iter().filter(|t| t.kind != Kind::Space).collect();
    // A function with the catalog's prefix is no query of the catalog: `SELECT
    // pg_catalog.version()`.
    let relation = words.windows(4).any(|four| match four {
        [before, schema, dot, _] => {
            (before.is("from") || before.is("join") || before.text == ",")
                && dot.text == "."
                && (schema.is("pg_catalog") || schema.is("information_schema"))
        }
        _ => false,
    }) || words.windows(2).any(|two| match two {
        [before, name] => {
            (before.is("from") || before.is("join"))
                && name.kind == Kind::Word
                && name.text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("pg_"))
        }
        _ => false,
    });
    relation.then(|| known(sql))
}

/// A quick look, so that other statements cost nothing: `pg_` or `information_schema` in any case.
fn mentions_catalog(sql: &str) -> bool {
    sql.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"pg_"))
        || sql.as_bytes().windows(18).any(|found| found.eq_ignore_ascii_case(b"information_schema"))
}

fn known(sql: &str) -> Result<CatalogQuery, Refusal> {
    let has = |part: &str| sql.contains(part);
    if has("pg_catalog.pg_database") && has("\"Owner\"") {
        return Ok(CatalogQuery::Databases);
    }
    if has("FROM pg_catalog.pg_namespace n") && has("\"Name\"") {
        return Ok(CatalogQuery::Schemas);
    }
    if has("FROM pg_catalog.pg_roles r") && has("r.rolname") {
        return Ok(CatalogQuery::Roles);
    }
    if has("FROM pg_catalog.pg_class c") && has("c.relkind IN (") && has("\"Name\"") {
        return Ok(relations(sql));
    }
    if has("SELECT c.oid,") && has("n.nspname,") && has("c.relname") && has("pg_catalog.pg_class c")
    {
        return Ok(CatalogQuery::Lookup { name: pattern(sql) });
    }
    let number = number(sql);
    if let Some(number) = number {
        if has("c.relchecks, c.relkind") {
            return Ok(CatalogQuery::Traits { number });
        }
        if has("SELECT a.attname") && has("pg_catalog.format_type(a.atttypid, a.atttypmod)") {
            return Ok(CatalogQuery::Columns { number });
        }
        if has("c2.relname, i.indisprimary, i.indisunique") {
            return Ok(CatalogQuery::Indexes { number });
        }
        if let Some(columns) = nothing(sql) {
            return Ok(CatalogQuery::None { columns });
        }
    }
    if has("information_schema.tables") || has("pg_tables") || has("pg_catalog.pg_tables") {
        return Ok(CatalogQuery::Tables);
    }
    Err(Refusal::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        "there is no such catalog here: psql's \\d, \\dt, \\di, \\dv, \\dn, \\l and `\\d table` \
         are answered; \
         ask SQLite's schema for anything else (SELECT type, name, sql FROM sqlite_schema)",
    ))
}

fn relations(sql: &str) -> CatalogQuery {
    let list = sql.split("c.relkind IN (").nth(1).and_then(|rest| rest.split(')').next());
    let list = list.unwrap_or_default();
    let mut kinds = Vec::new();
    for (letter, kind) in [("'r'", "table"), ("'v'", "view"), ("'i'", "index")] {
        if list.contains(letter) {
            kinds.push(kind);
        }
    }
    let indexes = kinds.contains(&"index");
    CatalogQuery::Relations { kinds, name: pattern(sql), indexes }
}

/// The name in psql's `OPERATOR(pg_catalog.~) '^(name)$'`.
fn pattern(sql: &str) -> Option<String> {
    let rest = sql.split("c.relname OPERATOR(pg_catalog.~) '^(").nth(1)?;
    let name = rest.split(")$'").next()?;
    Some(name.replace(".*", "%").replace("''", "'"))
}

/// The number of the table in `c.oid = '1'`, `attrelid = '1'` and the like: its rowid in SQLite's
/// schema.
fn number(sql: &str) -> Option<i64> {
    sql.split(" = '")
        .skip(1)
        .find_map(|rest| rest.split('\'').next()?.parse().ok())
        .or_else(|| sql.split("('").skip(1).find_map(|rest| rest.split('\'').next()?.parse().ok()))
}

/// What psql asks about a table that SQLite has nothing of, and how many columns its answer has.
fn nothing(sql: &str) -> Option<usize> {
    const QUERIES: [(&str, usize); 12] = [
        ("pg_catalog.pg_policy", 6),
        ("pg_catalog.pg_statistic_ext", 8),
        ("pg_catalog.pg_publication", 3),
        ("inhparent", 3),
        ("inhrelid", 1),
        ("pg_catalog.pg_trigger", 4),
        ("pg_catalog.pg_rewrite", 4),
        ("pg_catalog.pg_foreign_table", 2),
        ("contype = 'f'", 4),
        ("pg_catalog.pg_constraint", 2),
        ("pg_catalog.pg_inherits", 1),
        ("pg_catalog.pg_attrdef", 2),
    ];
    QUERIES.iter().find(|(part, _)| sql.contains(part)).map(|(_, columns)| *columns)
}

/// Answers a catalog query.
pub(crate) async fn answer(
    query: &CatalogQuery,
    driver: &Driver,
    after: Height,
) -> Result<Rows, Refusal> {
    let (sql, values) = match query {
        CatalogQuery::None { columns } => {
            let columns = (0..*columns).map(|_| Column { name: "?column?".into(), declared: None });
            return Ok(Rows { columns: columns.collect(), rows: Vec::new() });
        }
        query => select(query),
    };
    let statement = Statement { sql, parameters: Parameters::Positional(values) };
    let mut rows = driver.read(statement, Settings::default(), &ReadOptions::after(after)).await?;
    if let CatalogQuery::Columns { .. } = query {
        rows.columns.iter_mut().for_each(|column| column.declared = None);
    }
    Ok(rows)
}

/// SQLite's own tables stay out of sight.
const VISIBLE: &str =
    "name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'rota\\_%' ESCAPE '\\'";

fn select(query: &CatalogQuery) -> (String, Vec<Value>) {
    let table = |number: i64| vec![Value::Integer(number)];
    match query {
        CatalogQuery::Relations { kinds, name, indexes } => {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
            let of = if *indexes { ", tbl_name AS \"Table\"" } else { "" };
            let sql = format!(
                "SELECT 'public' AS \"Schema\", name AS \"Name\", type AS \"Type\", 'rota' AS \
                 \"Owner\"{of} \
                 FROM sqlite_schema WHERE type IN ({}) AND {VISIBLE} AND name LIKE ?1 ORDER BY \
                 name",
                kinds.join(", ")
            );
            (sql, vec![Value::Text(name.clone().unwrap_or_else(|| "%".into()))])
        }
        CatalogQuery::Databases => (
            "SELECT 'rota' AS \"Name\", 'rota' AS \"Owner\", 'UTF8' AS \"Encoding\", 'C' AS \
             \"Collate\", \
             'C' AS \"Ctype\", '' AS \"ICU Locale\", 'libc' AS \"Locale Provider\", \
             '' AS \"Access privileges\""
                .into(),
            Vec::new(),
        ),
        CatalogQuery::Schemas => {
            ("SELECT 'public' AS \"Name\", 'rota' AS \"Owner\"".into(), Vec::new())
        }
        CatalogQuery::Roles => (
            "SELECT 'rota' AS rolname, 't' AS rolsuper, 't' AS rolinherit, 'f' AS rolcreaterole, \
             'f' AS rolcreatedb, 't' AS rolcanlogin, -1 AS rolconnlimit, '' AS rolvaliduntil, \
             '{}' AS memberof, 'f' AS rolreplication, 'f' AS rolbypassrls"
                .into(),
            Vec::new(),
        ),
        CatalogQuery::Lookup { name } => {
            let sql = format!(
                "SELECT rowid AS oid, 'public' AS nspname, name AS relname FROM sqlite_schema \
                 WHERE type IN ('table', 'view', 'index') AND {VISIBLE} AND name LIKE ?1 ORDER BY \
                 name"
            );
            (sql, vec![Value::Text(name.clone().unwrap_or_else(|| "%".into()))])
        }
        CatalogQuery::Traits { number } => (
            "SELECT 0 AS relchecks, \
             CASE type WHEN 'view' THEN 'v' WHEN 'index' THEN 'i' ELSE 'r' END AS relkind, \
             't' AS relhasindex, 'f' AS relhasrules, 'f' AS relhastriggers, 'f' AS relrowsecurity, \
             'f' AS relforcerowsecurity, 'f' AS relhasoids, 'f' AS relispartition, '' AS options, \
             '0' AS reltablespace, '' AS reloftype, 'p' AS relpersistence, 'd' AS relreplident, \
             'heap' AS amname FROM sqlite_schema WHERE rowid = ?1"
                .into(),
            table(*number),
        ),
        CatalogQuery::Columns { number } => (
            "SELECT c.name AS attname, lower(c.type) AS format_type, c.dflt_value AS pg_get_expr, \
             CASE WHEN c.\"notnull\" OR c.pk THEN 't' ELSE 'f' END AS attnotnull, \
             NULL AS attcollation, '' AS attidentity, '' AS attgenerated \
             FROM sqlite_schema AS s, pragma_table_info(s.name) AS c WHERE s.rowid = ?1 ORDER BY \
             c.cid"
                .into(),
            table(*number),
        ),
        CatalogQuery::Indexes { number } => (
            "SELECT i.name AS relname, CASE i.origin WHEN 'pk' THEN 't' ELSE 'f' END AS \
             indisprimary, \
             CASE i.\"unique\" WHEN 1 THEN 't' ELSE 'f' END AS indisunique, 'f' AS indisclustered, \
             't' AS indisvalid, 'INDEX ON (' || (SELECT group_concat(c.name, ', ') \
             FROM pragma_index_info(i.name) AS c) || ')' AS pg_get_indexdef, NULL AS condef, \
             NULL AS contype, 'f' AS condeferrable, 'f' AS condeferred, 'f' AS indisreplident, \
             '0' AS reltablespace \
             FROM sqlite_schema AS s, pragma_index_list(s.name) AS i WHERE s.rowid = ?1 ORDER BY \
             i.name"
                .into(),
            table(*number),
        ),
        CatalogQuery::Tables | CatalogQuery::None { .. } => (
            format!(
                "SELECT 'public' AS table_schema, name AS table_name, \
                 CASE type WHEN 'view' THEN 'VIEW' ELSE 'BASE TABLE' END AS table_type \
                 FROM sqlite_schema WHERE type IN ('table', 'view') AND {VISIBLE} ORDER BY name"
            ),
            Vec::new(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_queries_of_the_catalog_are_taken_for_such() {
        for sql in [
            "SELECT pg_catalog.version()",
            "SELECT 'FROM pg_catalog.pg_class'",
            "SELECT * FROM pages",
            "SELECT pg_size FROM t",
        ] {
            assert_eq!(recognise(sql), None, "{sql}");
        }
        for sql in ["SELECT * FROM pg_catalog.pg_proc", "select 1 from PG_TYPE"] {
            let refused = recognise(sql).and_then(Result::err);
            assert_eq!(
                refused.map(|refusal| refusal.code().to_owned()),
                Some("0A000".into()),
                "{sql}"
            );
        }
    }
}
