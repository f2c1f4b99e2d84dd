//! Expressions and the types that PostgreSQL announces for them.

use super::*;

fn table() -> Vec<(String, Vec<(String, String)>)> {
    let columns = [
        ("id", "INTEGER"),
        ("n", "bigint"),
        ("s", "smallint"),
        ("price", "NUMERIC(10,2)"),
        ("r", "double precision"),
        ("name", "TEXT"),
        ("at", "timestamptz"),
        ("doc", "jsonb"),
    ];
    let columns = columns.map(|(name, declared)| (name.to_owned(), declared.to_owned()));
    vec![("t".into(), columns.to_vec())]
}

fn check(cases: &[(&str, &str)]) {
    let tables = table();
    for (expression, want) in cases {
        let sql = format!("SELECT {expression} FROM t WHERE 1");
        let got = columns(&sql, 1, &[0, oid::INT2], Some(&tables));
        let want = match *want {
            "number" => Guess::Number,
            "open" => Guess::Open,
            declared => Guess::Known(declared_type(declared)),
        };
        assert_eq!(got, [want], "{expression}");
    }
}

#[test]
fn words_and_columns_tell_the_types_of_expressions() {
    check(&[
        ("1", "int4"),
        ("3000000000", "int8"),
        ("1.5", "numeric"),
        ("'a'", "text"),
        ("x'00'", "bytea"),
        ("true AS x", "bool"),
        ("count(*) AS n", "int8"),
        ("count(*) FILTER (WHERE id > 1) m", "int8"),
        ("max(id)", "int4"),
        ("max(t.n) best", "bigint"),
        ("sum(id)", "int8"),
        ("sum(DISTINCT s)", "int8"),
        ("sum(n)", "numeric"),
        ("sum(price)", "numeric(10,2)"),
        ("avg(id)", "numeric"),
        ("avg(r)", "float8"),
        ("sum(id) OVER (PARTITION BY name)", "int8"),
        ("id + 1", "int4"),
        ("id + n", "int8"),
        ("id * r", "float8"),
        ("price + price", "numeric(10,2)"),
        ("price / 3", "numeric"),
        ("-id", "int4"),
        ("(id + 1) * 2", "int4"),
        ("id + f(1)", "number"),
        ("round(price, 1)", "numeric"),
        ("coalesce(sum(id), 0)", "int8"),
        ("coalesce(name, 'x')", "text"),
        ("coalesce(?1, name)", "text"),
        ("CASE WHEN id = 1 THEN name ELSE 'x' END", "text"),
        ("CASE id WHEN 1 THEN CASE WHEN s THEN n END ELSE 1 END x", "int8"),
        ("name || 'x'", "text"),
        ("id = 1", "bool"),
        ("id IS NULL", "bool"),
        ("EXISTS (SELECT 1 FROM u)", "bool"),
        ("NOT EXISTS (SELECT 1 FROM u)", "bool"),
        ("name REGEXP 'x'", "bool"),
        ("doc -> 'a'", "jsonb"),
        ("f(doc) -> 'a'", "json"),
        ("doc ->> 'a'", "text"),
        ("doc ->> 'a' = 'b'", "bool"),
        ("now()", "timestamptz"),
        ("current_date", "date"),
        ("date_trunc('day', at)", "timestamptz"),
        ("extract('year', at)", "numeric"),
        ("CAST(?1 AS INTEGER)", "int4"),
        ("CAST(f(a, b) AS NUMERIC(10, 2)) x", "numeric(10,2)"),
        ("CAST(at AS DATE TEXT)", "date"),
        ("(SELECT max(price) FROM t)", "numeric(10,2)"),
        ("(SELECT id, n FROM t)", "open"),
        ("array_agg(name)", "text[]"),
        ("json_build_object('a', id)", "json"),
        ("has_table_privilege('t', 'SELECT')", "bool"),
        ("f(id)", "open"),
        ("?1", "open"),
        ("?2", "int2"),
        ("?2 + 1", "int4"),
        ("nowhere", "open"),
        ("name COLLATE NOCASE", "text"),
    ]);
}

#[test]
fn without_the_schema_it_is_said_where_it_is_needed() {
    for (expression, want) in [
        ("count(*)", known(oid::INT8)),
        ("max(id)", Guess::Asks),
        ("id + 1", Guess::Asks),
        ("coalesce(id, 0)", Guess::Asks),
        ("coalesce(0, 1)", known(oid::INT4)),
        ("f(id)", Guess::Open),
    ] {
        assert_eq!(
            columns(&format!("SELECT {expression} FROM t"), 1, &[], None),
            [want],
            "{expression}"
        );
    }
}

#[test]
fn the_list_that_counts_is_the_outermost_one() {
    for (sql, want) in [
        ("WITH x AS (SELECT 'a') SELECT DISTINCT count(*) FROM x", vec![known(oid::INT8)]),
        ("INSERT INTO t SELECT 'a' RETURNING length(a)", vec![known(oid::INT4)]),
        ("SELECT *, 1 FROM t", vec![Guess::Open; 3]),
        ("VALUES (1)", vec![Guess::Open]),
    ] {
        assert_eq!(columns(sql, want.len(), &[], None), want, "{sql}");
    }
}

#[test]
fn tables_that_a_statement_makes_have_types_too() {
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for (sql, want) in [
        (format!("{count} SELECT i FROM n"), known(oid::INT4)),
        (format!("{count} SELECT sum(i) FROM n"), known(oid::INT8)),
        ("WITH a AS MATERIALIZED (SELECT n FROM t) SELECT a.n + 1 FROM a".into(), known(oid::INT8)),
        ("SELECT x FROM (SELECT count(*) AS x FROM t) s".into(), known(oid::INT8)),
        ("SELECT min(b) FROM (VALUES ('a', 1.5)) AS v(a, b)".into(), known(oid::NUMERIC)),
        ("SELECT y FROM (SELECT f(n) AS y FROM t) s".into(), Guess::Open),
    ] {
        assert_eq!(columns(&sql, 1, &[], Some(&table())), [want], "{sql}");
    }
}

#[test]
fn nothing_panics_the_reader() {
    for sql in [
        "SELECT",
        "SELECT (",
        "WITH (SELECT",
        "FROM (VALUES",
        "AS (SELECT )",
        "SELECT )",
        "SELECT a.",
        "SELECT f(",
        "SELECT CASE",
        "SELECT -",
    ] {
        let _ = columns(sql, 1, &[], Some(&table()));
    }
    let deep = format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(2_000));
    assert_eq!(columns(&deep, 1, &[], None), [Guess::Open]);
}
