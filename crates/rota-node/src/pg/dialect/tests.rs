//! What tools really send, and what SQLite gets.

use super::*;

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
    for sql in [
        "::", "::int", ")::int", "()::int", "DEFAULT f(", "E'\\", "a.::int", "$$", "(", "[", "a[",
        "ARRAY[", "x = ANY(", "CAST(", "EXTRACT(", "CREATE TABLE t (", "ALTER TABLE t ADD", "DROP",
        "TRUNCATE", "CREATE INDEX ON t (", "INSERT INTO t (a) VALUES (DEFAULT", "OFFSET", "FETCH",
        "generate_series(", "SELECT 1 OFFSET", "U&'\\", &deep,
    ] {
        let _ = translate(sql);
    }
}
