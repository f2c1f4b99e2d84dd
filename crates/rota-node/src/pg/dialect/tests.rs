//! What tools really send (`pgbench -i`, sysbench, psql, Django, SQLAlchemy, Drizzle, and people),
//! and what SQLite gets: each of its statements is prepared by SQLite too.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use super::*;

/// Cases with an empty line between them, white space compared as one blank:
///
/// ```text
/// PostgreSQL's statement
///   => one of SQLite's
///   ## the command tag, where it is given
///   -- warning, where there is one
///   !! SQLSTATE instead, where it is refused
/// ```
const CASES: &str = include_str!("tests/cases.txt");

/// Tables that the cases are about.
const SCHEMA: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b TEXT, c TEXT, at TIMESTAMPTZ);
    CREATE TABLE u (id INTEGER PRIMARY KEY, a INT, b TEXT);
    CREATE TABLE g (id INT4, a BOOL, b TIMESTAMPTZ);
    CREATE TABLE pgbench_branches (bid INT);
    CREATE TABLE pg_class (oid INT, relname TEXT, relkind TEXT, relnamespace INT);
    CREATE UNIQUE INDEX u_a_key ON u (a);
    CREATE UNIQUE INDEX t_b_c ON t (b, c);
    CREATE TABLE auth_group (id INT4 PRIMARY KEY, name TEXT);
    CREATE VIEW v AS SELECT 1;";

/// What other parts of the server register.
const FUNCTIONS: [(&str, i32); 9] = [
    ("now", 0),
    ("rota_nextval", 1),
    ("to_regclass", 1),
    ("to_regtype", 1),
    ("pg_table_is_visible", 1),
    ("version", 0),
    ("array_to_string", 2),
    ("current_schema", 0),
    ("current_user", 0),
];

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    rota_store::functions::register(&connection, None).unwrap();
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    for (name, arguments) in FUNCTIONS {
        connection.create_scalar_function(name, arguments, flags, |_| Ok(1)).unwrap();
    }
    connection.execute_batch(SCHEMA).unwrap();
    connection
}

/// With one blank for all white space.
fn blanks(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A translation in the form of the cases.
fn written(sql: &str) -> String {
    let done = match translate(sql) {
        Ok(done) => done,
        Err(refusal) => return format!("  !! {}", refusal.code()),
    };
    let statements = done.statements.iter().map(|text| format!("  => {}", blanks(text)));
    let tag = done.tag.map(|tag| format!("  ## {tag}"));
    let warning = (!done.notices.is_empty()).then(|| "  -- warning".to_owned());
    statements.chain(tag).chain(warning).collect::<Vec<_>>().join("\n")
}

#[test]
fn spellings_of_postgresql_become_those_of_sqlite() {
    let mut wrong = Vec::new();
    for case in CASES.split("\n\n") {
        let (sql, want) = case.trim_end().split_once("\n  ").unwrap();
        let got = written(sql);
        if got != format!("  {want}") {
            wrong.push(format!("{sql}\n{got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn sqlite_takes_every_translation() {
    for case in CASES.split("\n\n") {
        let connection = database();
        let (sql, _) = case.trim_end().split_once("\n  ").unwrap();
        let statements = translate(sql).map(|done| done.statements).unwrap_or_default();
        for (place, text) in statements.iter().enumerate() {
            let prepared = connection.prepare(text).map(drop);
            assert!(prepared.is_ok(), "{sql}\n{text}\n{prepared:?}");
            // The next one may need what this one made.
            if place + 1 < statements.len() {
                connection.execute(text, []).unwrap();
            }
        }
    }
}

#[test]
fn what_is_translated_means_the_same() {
    let connection = database();
    connection
        .execute_batch(
            "INSERT INTO t (id, a, b, at) VALUES (1, 1, 'a_b', '2024-01-31 10:00:00'),
             (2, 2, 'axb', '2024-02-29 23:30:00'), (3, NULL, NULL, NULL)",
        )
        .unwrap();
    for (sql, want) in [
        ("SELECT string_agg(id::text, ',') FROM t WHERE b LIKE 'a\\_b'", "1"),
        ("SELECT string_agg(id::text, ',') FROM t WHERE b LIKE ANY (ARRAY['%x%', 'y'])", "2"),
        ("SELECT string_agg(id::text, ',') FROM t WHERE a = ANY('{2,3}'::int[])", "2"),
        ("SELECT string_agg(id::text, ',') FROM t WHERE a <> ALL(ARRAY[2])", "1"),
        ("SELECT string_agg(id::text, ',') FROM t WHERE b ~* '^AX'", "2"),
        ("SELECT (at + interval '1 month')::text FROM t WHERE id = 1", "2024-02-29 10:00:00"),
        ("SELECT (at - 2 * interval '1 hour')::text FROM t WHERE id = 1", "2024-01-31 08:00:00"),
        ("SELECT EXTRACT(day FROM at)::text FROM t WHERE id = 2", "29"),
        ("SELECT (ARRAY['x','y'])[2]", "y"),
        ("SELECT sum(i)::text FROM generate_series(10, 1, -3) AS i", "22"),
        (
            "SELECT b || a::text FROM unnest('{1,2}'::int[], '{x,y}'::text[]) AS n(a, b) OFFSET 1",
            "y2",
        ),
        ("SELECT id::text FROM t ORDER BY t.id OFFSET 1 ROW FETCH FIRST ROW ONLY", "2"),
        ("SELECT x FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, x) WHERE n = 2", "b"),
        ("SELECT POSITION('x' IN b)::text FROM t WHERE id = 2", "2"),
        ("SELECT '2024-01-31T10:00:00+02'::timestamptz::text", "2024-01-31 08:00:00"),
        ("SELECT 1.235::numeric(10, 2)::text", "1.24"),
        ("DELETE FROM t USING u WHERE t.id = u.id RETURNING 'none'", ""),
        ("DELETE FROM t AS x USING (SELECT 3 AS id) y WHERE x.id = y.id RETURNING x.id::text", "3"),
    ] {
        let translated = translate(sql).unwrap();
        let text = translated.statements.last().unwrap();
        let got = connection.query_row(text, [], |row| row.get::<_, String>(0));
        assert_eq!(got.unwrap_or_default(), want, "{sql}\n{text}");
    }
}

#[test]
fn names_of_sequences_and_indexes_are_those_of_postgresql() {
    // Made by PostgreSQL 15 for a table and a column of these lengths.
    let sql = format!("CREATE TABLE {} ({} serial)", "t".repeat(50), "c".repeat(50));
    let sequence = format!("'{}_{}_seq'", "t".repeat(29), "c".repeat(29));
    assert!(translate(&sql).unwrap().statements[0].contains(&sequence));
}

#[test]
fn strings_names_and_comments_stay_as_they_are() {
    let sql = "SELECT '$1::int ''public.' AS x, \"$1::int\", [a::b] /* $1::int */ -- public.t $9\n";
    let translated = translate(sql).unwrap();
    assert_eq!(translated.statements, [sql]);
    assert_eq!(translated.parameters, 0);
}

#[test]
fn parameters_are_counted_and_their_casts_noted() {
    let translated = translate("SELECT $2::int, $1::text, $2 RETURNING 1").unwrap();
    assert_eq!(translated.parameters, 2);
    assert_eq!(translated.casts, [(2, 23), (1, 25)]);
    assert!(translated.returning);
    assert!(!translate("SELECT 'returning', \"returning\"").unwrap().returning);
}

#[test]
fn nothing_panics_the_translation() {
    let deep = "(".repeat(100_000);
    assert_eq!(translate(&deep).unwrap_err().code(), sqlstate::TOO_COMPLEX);
    let whole: Vec<&str> = CASES.split("\n\n").collect();
    for sql in whole {
        let mut ends = sql.char_indices().map(|(place, _)| place).step_by(3);
        ends.by_ref().for_each(|end| drop(translate(&sql[..end])));
    }
    for sql in ["::", ")::int", "()::int", "E'\\", "U&'\\", "a.::int", "$$", "[", "a[", "x = ANY("]
    {
        let _ = translate(sql);
    }
}

#[test]
fn a_translation_costs_in_proportion_to_the_statement() {
    let nested = |depth: usize| {
        let inner = (0..depth).fold("1".to_owned(), |inner, _| {
            format!("(SELECT max(g) FROM generate_series(1, {inner}) AS g)")
        });
        let translated = translate(&format!("SELECT {inner}")).unwrap();
        (translated.statements[0].clone(), translated.statements[0].len())
    };
    assert_eq!(nested(30).1 - nested(20).1, nested(20).1 - nested(10).1);
    let sum: i64 = database().query_row(&nested(20).0, [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 1);
    for (start, more, few) in [
        ("SELECT 1", "[1]", 100),
        ("SELECT 1", "::int", 100),
        ("SELECT now()", " + interval '1 day'", 100),
        ("SELECT interval '1 day'", " * interval '1 day'", 0),
        ("SELECT a", "~~a", 100),
        ("SELECT 1", " end+1", 100),
        ("SELECT (SELECT 1)", ", (SELECT 1) a(b)", 300),
        ("INSERT INTO t VALUES (1)", " ON CONFLICT DO NOTHING", 100),
    ] {
        let sql = |count: usize| format!("{start}{}", more.repeat(count));
        assert!(translate(&sql(few)).is_ok(), "{more}");
        let many = translate(&sql(900_000 / more.len()));
        assert_eq!(many.unwrap_err().code(), sqlstate::TOO_COMPLEX, "{more}");
    }
    let name = "n".repeat(300_000);
    for sql in [
        format!("ALTER TABLE {name} ADD a INT{}", ", ADD a INT".repeat(50_000)),
        format!("CREATE TABLE {name} (a serial{})", ", a serial".repeat(50_000)),
        format!("ALTER TABLE t ADD UNIQUE (a{})", ",a".repeat(400_000)),
        format!("CREATE TABLE t (a INT, CHECK (a){} x)", "/**/".repeat(200_000)),
    ] {
        let refused = translate(&sql).is_err_and(|why| why.code() == sqlstate::TOO_COMPLEX);
        assert!(refused, "{}", &sql[..20]);
    }
    let opened = format!("{}SELECT 1", "(".repeat(300_000));
    let closed = format!("{opened}{} UNION SELECT 2", ")".repeat(300_000));
    assert_eq!(translate(&closed).unwrap_err().code(), sqlstate::TOO_COMPLEX);
    let cases = format!("SELECT {}1{}", "case else ".repeat(60_000), " end".repeat(60_000));
    assert!(translate(&cases).unwrap().statements[0].ends_with("end AS \"?column?\""));
    let columns = format!("SELECT 1{}", ", (SELECT 1)".repeat(2_000));
    assert!(translate(&columns).is_ok());
    let rows = vec!["(1, 'x'::text, ((2 + 3))::int)"; 20_000].join(", ");
    assert!(translate(&format!("INSERT INTO t VALUES {rows}")).is_ok());
}
