//! PostgreSQL's functions: what PostgreSQL 15 answers.

use super::*;

fn ask(sql: &str) -> std::result::Result<String, String> {
    let connection = Connection::open_in_memory().unwrap();
    register(&connection, None).unwrap();
    register_random(&connection, || [0xff; 16]).unwrap();
    connection.query_row(&format!("SELECT {sql}"), [], |row| text_of(row.get_ref(0)?)).map_err(
        |error| match error {
            Error::SqliteFailure(_, Some(message)) => message,
            other => other.to_string(),
        },
    )
}

fn check(cases: &[(&str, &str)]) {
    for (sql, want) in cases {
        assert_eq!(ask(sql).as_deref(), Ok(*want), "{sql}");
    }
}

fn check_errors(cases: &[(&str, &str)]) {
    for (sql, want) in cases {
        let message = ask(sql).unwrap_err();
        assert!(message.contains(want), "{sql}: {message}");
    }
}

#[test]
fn every_name_that_clients_may_call_is_registered() {
    let connection = Connection::open_in_memory().unwrap();
    register(&connection, None).unwrap();
    register_random(&connection, || [0; 16]).unwrap();
    let known = "SELECT count(*) FROM pragma_function_list WHERE name = ?1";
    for name in NAMES {
        let count: i64 = connection.query_row(known, [name], |row| row.get(0)).unwrap();
        assert!(count > 0, "{name}");
    }
}

#[test]
fn strings_are_cut_and_filled_by_characters() {
    check(&[
        ("left('größe', 3)", "grö"),
        ("left('abcde', -2)", "abc"),
        ("right('größe', 2)", "ße"),
        ("right('abcde', -2)", "cde"),
        ("lpad('5', 3, '0')", "005"),
        ("lpad('hello', 2)", "he"),
        ("rpad('é', 3, 'xy')", "éxy"),
        ("lpad('a', 3, '')", "a"),
        ("split_part('a,b,c', ',', 2)", "b"),
        ("split_part('a,b,c', ',', -1)", "c"),
        ("split_part('a,b,c', ',', 9)", ""),
        ("strpos('größe', 'ß')", "4"),
        ("strpos('a', 'b')", "0"),
        ("repeat('ab', 3)", "ababab"),
        ("repeat('ab', -3)", ""),
        ("reverse('äb')", "bä"),
        ("initcap('hi THOMAS o''neil')", "Hi Thomas O'Neil"),
        ("md5('abc')", "900150983cd24fb0d6963f7d28e17f72"),
        ("starts_with('abc', 'ab')", "1"),
        ("btrim('xyxtrimyyx', 'xyz')", "trim"),
        ("translate('12345', '143', 'ax')", "a2x5"),
        ("overlay('Txxxxas', 'hom', 2, 4)", "Thomas"),
        ("chr(8364)", "€"),
        ("ascii('€')", "8364"),
        ("quote_ident('a b')", "\"a b\""),
        ("quote_literal('it''s')", "'it''s'"),
        ("quote_nullable(NULL)", "NULL"),
        ("left(NULL, 1)", ""),
        ("to_hex(255)", "ff"),
    ]);
    check_errors(&[
        ("repeat('abc', 1000000)", "requested length too large"),
        ("lpad('', 1000001)", "requested length too large"),
        ("split_part('a', ',', 0)", "field position must not be zero"),
    ]);
}

#[test]
fn regular_expressions_match_as_postgresqls_do() {
    check(&[
        ("'abc' REGEXP '^a.c$'", "1"),
        ("'ABC' REGEXP 'b'", "0"),
        ("'ABC' REGEXP '(?i)b'", "1"),
        ("'a\nb' REGEXP 'a.b'", "1"),
        ("'a\nb' REGEXP '^b'", "0"),
        (r"'größe' REGEXP '^\w+$'", "1"),
        ("regexp_replace('foobarbaz', 'b..', 'X')", "fooXbaz"),
        ("regexp_replace('foobarbaz', 'b..', 'X', 'g')", "fooXX"),
        (r"regexp_replace('foobarbaz', 'b(..)', 'X\1Y', 'g')", "fooXarYXazY"),
        ("regexp_match('foobarbequebaz', '(bar)(beque)')", r#"["bar","beque"]"#),
        ("regexp_match('foobar', 'b..')", r#"["bar"]"#),
        ("NULL REGEXP 'a'", ""),
    ]);
    check_errors(&[
        ("'a' REGEXP '('", "invalid regular expression: "),
        ("'a' REGEXP '(a)\\1'", "invalid regular expression: "),
        ("'a' REGEXP 'a{1000}{1000}'", "invalid regular expression: "),
        ("'a' REGEXP repeat('a', 1001)", "invalid regular expression: "),
        ("repeat('a', 100001) REGEXP 'a'", "text too big for a regular expression"),
    ]);
}

#[test]
fn times_are_cut_and_taken_apart() {
    let at = "'2024-08-17 20:38:40.25'";
    for (sql, want) in [
        ("date_trunc('hour', #)", "2024-08-17 20:00:00"),
        ("date_trunc('day', #)", "2024-08-17 00:00:00"),
        ("date_trunc('week', #)", "2024-08-12 00:00:00"),
        ("date_trunc('month', #)", "2024-08-01 00:00:00"),
        ("date_trunc('quarter', #)", "2024-07-01 00:00:00"),
        ("date_trunc('year', #)", "2024-01-01 00:00:00"),
        ("date_trunc('century', #)", "2001-01-01 00:00:00"),
        ("date_trunc('milliseconds', #)", "2024-08-17 20:38:40.25"),
        ("extract('year', #)", "2024"),
        ("extract('quarter', #)", "3"),
        ("extract('second', #)", "40.25"),
        ("extract('milliseconds', #)", "40250"),
        ("extract('epoch', #)", "1723927120.25"),
        ("extract('dow', #)", "6"),
        ("extract('isodow', '2024-08-18')", "7"),
        ("extract('dow', '2024-08-18')", "0"),
        ("extract('doy', #)", "230"),
        ("extract('week', '2021-01-03')", "53"),
        ("extract('isoyear', '2021-01-03')", "2020"),
        ("extract('hour', '04:05:06')", "4"),
        ("extract('century', '2000-12-31')", "20"),
        ("typeof(date_part('year', #))", "real"),
        ("date_add(#, '1 month 1 day')", "2024-09-18 20:38:40.25"),
        ("date_add('2024-01-31', '1 mon')", "2024-02-29 00:00:00"),
        ("date_subtract('2024-01-01', '1 day 02:00:00')", "2023-12-30 22:00:00"),
        ("date_add('2024-01-01', '1.5 hours')", "2024-01-01 01:30:00"),
        ("date_add('2024-01-01', '1 day ago')", "2023-12-31 00:00:00"),
        ("timezone('UTC', #)", "2024-08-17 20:38:40.25"),
        ("make_date(2024, 2, 29)", "2024-02-29"),
        ("to_timestamp(1284352323.5)", "2010-09-13 04:32:03.5"),
        ("to_timestamp('05 Dec 2000 03:04 PM', 'DD Mon YYYY HH12:MI AM')", "2000-12-05 15:04:00"),
        ("to_date('20240817', 'YYYYMMDD')", "2024-08-17"),
        ("rota_timestamptz('2024-08-17T20:38:40+02')", "2024-08-17 18:38:40"),
        ("rota_date(#)", "2024-08-17"),
        ("rota_time(#)", "20:38:40.25"),
    ] {
        assert_eq!(ask(&sql.replace('#', at)).as_deref(), Ok(want), "{sql}");
    }
    check_errors(&[
        ("date_trunc('fortnight', '2024-01-01')", "unit \"fortnight\" not recognized"),
        ("date_trunc('day', 'soon')", "invalid input syntax for type timestamp: \"soon\""),
        ("rota_date('2024-02-30')", "date/time field value out of range: \"2024-02-30\""),
        ("date_add('2024-01-01', 'a while')", "invalid input syntax for type interval"),
        ("date_add('2024-01-01', '9000 years')", "timestamp out of range"),
        ("timezone('Europe/Berlin', '2024-01-01')", "times are in UTC"),
    ]);
}

#[test]
fn times_are_written_by_patterns() {
    for (format, want) in [
        ("YYYY-MM-DD HH24:MI:SS", "2024-08-07 20:08:40"),
        ("FMMM/FMDD/YY", "8/7/24"),
        ("HH12:MI AM", "08:08 PM"),
        ("Day, DD Mon", "Wednesday, 07 Aug"),
        ("FMMonth FMDD", "August 7"),
        ("Month|", "August   |"),
        ("DY dy D Q", "WED wed 4 3"),
        ("MS US", "250 250000"),
        ("IYYY-\"W\"IW", "2024-W32"),
        ("DDD", "220"),
        ("yyyy", "2024"),
    ] {
        let got = ask(&format!("to_char('2024-08-07 20:08:40.25', '{format}')"));
        assert_eq!(got.as_deref(), Ok(want), "{format}");
    }
    check_errors(&[("to_char(1, '9')", "not supported")]);
}

#[test]
fn numbers_are_exact_or_refused() {
    check(&[
        ("floor(-1.5)", "-2"),
        ("ceil(1.2)", "2"),
        ("trunc(-1.59, 1)", "-1.5"),
        ("sqrt(2)", "1.4142135623730951"),
        ("mod(-7, 3)", "-1"),
        ("div(-7, 2)", "-3"),
        ("power(2, 10)", "1024"),
        ("power(2, -1)", "0.5"),
        ("greatest(1, NULL, 3, 2.5)", "3"),
        ("least('b', 'a')", "a"),
        ("least(NULL, NULL)", ""),
        ("width_bucket(5.35, 0.024, 10.06, 5)", "3"),
    ]);
    check_errors(&[
        ("mod(1, 0)", "division by zero"),
        ("div(1, 0)", "division by zero"),
        ("sqrt(-1)", "cannot take square root of a negative number"),
        ("power(2, 0.3)", "not supported"),
    ]);
}

#[test]
fn json_is_built_and_groups_are_gathered() {
    check(&[
        (
            "jsonb_build_object('a', 1, 'b', json_build_array('x', NULL))",
            r#"{"a":1,"b":["x",null]}"#,
        ),
        ("to_json('a\"b')", r#""a\"b""#),
        ("jsonb_typeof('[1]')", "array"),
        ("array_agg(x) FROM (SELECT 1 AS x UNION ALL SELECT NULL)", "[1,null]"),
        ("array_agg(x) FROM (SELECT 1 AS x) WHERE x > 1", ""),
        ("json_agg(json_build_object('x', x)) FROM (SELECT 1 AS x)", r#"[{"x":1}]"#),
        ("json_object_agg(x, x) FROM (SELECT 1 AS x)", r#"{"1":1}"#),
        ("bool_and(x) FROM (SELECT 1 AS x UNION ALL SELECT 0)", "0"),
        ("bool_or(x) FROM (SELECT 1 AS x UNION ALL SELECT 0)", "1"),
        ("every(x) FROM (SELECT NULL AS x)", ""),
    ]);
    check_errors(&[
        ("json_build_object('a')", "argument list must have even number of elements"),
        ("json_build_object(NULL, 1)", "null value not allowed for object key"),
    ]);
}

#[test]
fn uuids_and_booleans_are_read_and_drawn() {
    check(&[
        ("gen_random_uuid()", "ffffffff-ffff-4fff-bfff-ffffffffffff"),
        (
            "rota_uuid('{A0EEBC99-9C0B4EF8BB6D6BB9BD380A11}')",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        ("rota_boolean('yes')", "1"),
        ("rota_boolean('F')", "0"),
        ("rota_boolean(7)", "1"),
    ]);
    check_errors(&[
        ("rota_uuid('a0')", "invalid input syntax for type uuid: \"a0\""),
        ("rota_boolean('maybe')", "invalid input syntax for type boolean: \"maybe\""),
        ("rota_boolean('o')", "invalid input syntax for type boolean: \"o\""),
    ]);
}

#[test]
fn what_is_charged_for_gives_what_sqlite_gives() {
    let (plain, charged) =
        (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
    register(&charged, Some(std::sync::Arc::new(|_| true))).unwrap();
    let values = [
        "NULL",
        "1",
        "1.5",
        "-0.0",
        "1e300",
        "''",
        "'aéa''b'",
        "x'61c3'",
        "'a' || char(0)",
        "CAST(x'ff61' AS TEXT)",
        "'  a '",
        "x''",
        "'6162'",
    ];
    let calls = |a: &str, b: &str| {
        format!(
            "quote(instr({a}, {b})) || quote(replace({a}, {b}, 'xy')) || quote(trim({a}, {b})) ||
             quote(ltrim({a}, {b})) || quote(rtrim({a}, {b})) || hex({a}) || quote(unhex({a})) ||
             quote({a}) || typeof(replace({a}, {b}, {a})) || hex(trim({a}, {b}))"
        )
    };
    for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
        let sql = format!("SELECT hex({})", calls(a, b));
        let of = |on: &Connection| on.query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(of(&plain), of(&charged), "{a} {b}");
    }
}
