//! The catalog: what its tables tell of a schema, and that they follow it.

use rusqlite::types::Value;

use super::*;

const SCHEMA: &str = "
CREATE TABLE author (id INT4 NOT NULL PRIMARY KEY DEFAULT (rota_nextval('author_id_seq')),
    name TEXT NOT NULL, email VARCHAR(80) UNIQUE, score NUMERIC(10,2) DEFAULT 0 CHECK (score >= 0));
CREATE TABLE book (id INTEGER PRIMARY KEY, author_id INT NOT NULL
    REFERENCES author ON DELETE CASCADE, title TEXT DEFAULT 'untitled', sold BOOLEAN DEFAULT 0,
    CONSTRAINT title_long CHECK (length(title) > 1));
CREATE TABLE pair (a INT, b INT, c TEXT, PRIMARY KEY (a, b), UNIQUE (b, c)) WITHOUT ROWID;
CREATE TABLE rota_hidden (a);
CREATE INDEX book_title ON book (title, author_id DESC);
CREATE UNIQUE INDEX book_lower ON book (lower(title)) WHERE sold;
CREATE VIEW titles AS SELECT title, name FROM book JOIN author ON author.id = author_id;
";

fn database(schema: &str) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    register(&connection).unwrap();
    for name in ["pg_backend_pid", "rota_nextval", "current_user"] {
        connection
            .create_scalar_function(name, -1, rusqlite::functions::FunctionFlags::default(), |_| {
                Ok(1)
            })
            .unwrap();
    }
    connection.execute_batch(crate::access::CREATE).unwrap();
    connection
        .execute_batch("INSERT INTO rota_users VALUES ('rota', NULL, NULL, 'ALL', 1, 1)")
        .unwrap();
    connection.execute_batch(schema).unwrap();
    prepare(&connection, &Caller::default()).unwrap();
    connection
}

/// Rows with values between bars.
fn ask(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let told = (0..columns).map(|column| {
            Ok(match row.get(column)? {
                Value::Null => String::new(),
                Value::Integer(number) => number.to_string(),
                Value::Real(number) => number.to_string(),
                Value::Text(text) => text,
                Value::Blob(_) => "blob".into(),
            })
        });
        told.collect::<rusqlite::Result<Vec<String>>>().map(|row| row.join("|"))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

#[test]
fn relations_columns_and_defaults_are_told_as_postgresql_tells_them() {
    let db = database(SCHEMA);
    let relations =
        ask(&db, "SELECT relname, relkind FROM pg_class WHERE relnamespace = 2200 ORDER BY 1");
    assert_eq!(
        relations,
        [
            "author|r",
            "author_email_key|i",
            "author_id_seq|S",
            "author_pkey|i",
            "book|r",
            "book_lower|i",
            "book_pkey|i",
            "book_title|i",
            "pair|r",
            "pair_b_c_key|i",
            "pair_pkey|i",
            "titles|v"
        ]
    );
    let columns = ask(
        &db,
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), \
         a.attnotnull FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid \
         AND d.adnum = a.attnum WHERE a.attrelid = to_regclass('author') ORDER BY attnum",
    );
    assert_eq!(
        columns,
        [
            "id|integer|nextval('author_id_seq'::regclass)|1",
            "name|text||1",
            "email|character varying(80)||0",
            "score|numeric(10,2)|0|0"
        ]
    );
    let view = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = \
                'titles' ORDER BY ordinal_position";
    assert_eq!(ask(&db, view), ["title|text", "name|text"]);
}

#[test]
fn keys_and_checks_have_postgresqls_names_and_words() {
    let db = database(SCHEMA);
    let constraints = ask(
        &db,
        "SELECT conname, contype, conkey, pg_get_constraintdef(oid) FROM pg_constraint ORDER BY 1",
    );
    assert_eq!(
        constraints,
        [
            "author_email_key|u|[3]|UNIQUE (email)",
            "author_pkey|p|[1]|PRIMARY KEY (id)",
            "author_score_check|c|[4]|CHECK (score >= 0)",
            "book_author_id_fkey|f|[2]|FOREIGN KEY (author_id) REFERENCES author(id) ON DELETE \
             CASCADE",
            "book_pkey|p|[1]|PRIMARY KEY (id)",
            "pair_b_c_key|u|[2,3]|UNIQUE (b, c)",
            "pair_pkey|p|[1,2]|PRIMARY KEY (a, b)",
            "title_long|c|[3]|CHECK (length(title) > 1)"
        ]
    );
    let indexes = ask(&db, "SELECT indexdef FROM pg_indexes WHERE tablename = 'book' ORDER BY 1");
    assert_eq!(
        indexes,
        [
            "CREATE INDEX book_title ON public.book USING btree (title, author_id DESC)",
            "CREATE UNIQUE INDEX book_lower ON public.book USING btree (lower(title)) WHERE sold",
            "CREATE UNIQUE INDEX book_pkey ON public.book USING btree (id)"
        ]
    );
    let usage = "SELECT k.constraint_name, k.column_name, k.ordinal_position, u.column_name \
                 FROM information_schema.key_column_usage AS k \
                 JOIN information_schema.constraint_column_usage AS u USING (constraint_name) \
                 WHERE k.constraint_name LIKE 'book%' ORDER BY 1";
    assert_eq!(ask(&db, usage), ["book_author_id_fkey|author_id|1|id", "book_pkey|id|1|id"]);
}

#[test]
fn the_catalog_follows_the_schema_also_back() {
    let db = database("CREATE TABLE a (x INT)");
    let tables = |db: &Connection| {
        prepare(db, &Caller::default()).unwrap();
        ask(
            db,
            "SELECT tablename, to_regclass(tablename) > 0 FROM pg_tables \
                 WHERE schemaname = 'public'",
        )
    };
    assert_eq!(tables(&db), ["a|1"]);
    db.execute_batch("BEGIN; SAVEPOINT one; CREATE TABLE b (x INT)").unwrap();
    assert_eq!(tables(&db), ["a|1", "b|1"]);
    db.execute_batch("ROLLBACK TO one").unwrap();
    assert_eq!(tables(&db), ["a|1"]);
    assert_eq!(ask(&db, "SELECT to_regclass('b')"), [""]);
    db.execute_batch("CREATE TABLE c (x INT); COMMIT").unwrap();
    assert_eq!(tables(&db), ["a|1", "c|1"]);
}

#[test]
fn a_sequence_belongs_to_its_column() {
    let db = database(SCHEMA);
    let found = ask(&db, "SELECT pg_get_serial_sequence('public.\"author\"', 'id')");
    assert_eq!(found, ["public.author_id_seq"]);
    assert_eq!(ask(&db, "SELECT pg_get_serial_sequence('author', 'name')"), [""]);
}

#[test]
fn names_become_numbers_and_numbers_names() {
    let db = database("CREATE TABLE \"Odd Name\" (a INT); CREATE TABLE plain (a INT)");
    for (sql, want) in [
        ("SELECT to_regclass(to_regclass('public.\"Odd Name\"'))", "\"Odd Name\""),
        ("SELECT to_regclass(to_regclass('plain'))", "plain"),
        ("SELECT to_regclass('pg_catalog.pg_class')", "1259"),
        ("SELECT to_regclass('nowhere')", ""),
        ("SELECT to_regtype(23)", "integer"),
        ("SELECT to_regtype('int4[]')", "1007"),
        ("SELECT to_regnamespace(2200)", "public"),
        ("SELECT pg_size_pretty(123456)", "121 kB"),
    ] {
        assert_eq!(ask(&db, sql), [want], "{sql}");
    }
}

/// What users are told who may do this and that.
#[test]
fn owners_and_lists_of_privileges_follow_from_grants() {
    let db = database(
        "CREATE TABLE a (x INT); CREATE TABLE b (x INTEGER PRIMARY KEY);
         INSERT INTO rota_users VALUES ('alice', NULL, 'v', 'ALL', 0, 1),
             ('team', NULL, NULL, 'ALL', 0, 0), ('Big Bob', NULL, NULL, 'ALL', 0, 1);
         INSERT INTO rota_roles VALUES ('team', 'alice');
         INSERT INTO rota_grants VALUES ('b', 'Big Bob', 'arwdc'), ('b', 'public', 'r'),
             ('b', 'alice', 'rw');",
    );
    let acls = "SELECT tablename, tableowner, relacl FROM pg_tables
                JOIN pg_class ON relname = tablename WHERE schemaname = 'public' ORDER BY 1";
    assert_eq!(
        ask(&db, acls),
        [
            "a|rota|",
            "b|Big Bob|[\"\\\"Big Bob\\\"=arwdC/\\\"Big Bob\\\"\",\"=r/\\\"Big Bob\\\"\",\
             \"alice=rw/\\\"Big Bob\\\"\"]"
        ]
    );
    let everywhere = "INSERT INTO rota_grants VALUES ('ALL TABLES', 'team', 'rc')";
    db.execute_batch(everywhere).unwrap();
    prepare(&db, &Caller::default()).unwrap();
    assert_eq!(ask(&db, acls)[0], "a|rota|[\"rota=arwdC/rota\",\"team=rC/rota\"]");
    let roles = "SELECT rolname, rolsuper, rolcanlogin, rolpassword FROM pg_authid ORDER BY 1";
    let want = ["Big Bob|0|1|", "alice|0|1|********", "rota|1|1|", "team|0|0|"];
    assert_eq!(ask(&db, roles), want);
    let members = "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), \
                   pg_get_userbyid(99) FROM pg_auth_members";
    assert_eq!(ask(&db, members), ["team|alice|unknown (OID=99)"]);
    assert_eq!(
        ask(&db, "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'b_pkey'"),
        ["Big Bob"]
    );
}
