//! COPY … FROM STDIN at apply, by two servers of which one is opened anew before every block: what
//! it puts into a table, what it costs, and what becomes of it when a line is wrong.

mod support;

use rota_core::error::Refusal;
use rota_core::genesis::Parameters as Knobs;
use rota_core::transaction::Value;
use rota_store::StatementKind;
use support::{Pair, genesis_with, statement};

fn copy(pair: &mut Pair, sql: &str, lines: &str) -> Result<u64, Refusal> {
    let lines = Value::Blob(lines.as_bytes().to_vec());
    let transaction = pair.maker.transaction(vec![statement(sql, &[lines])]);
    let results = pair.block(vec![transaction]).remove(0)?;
    assert_eq!(results[0].kind, StatementKind::Copy);
    Ok(results[0].rows_affected)
}

fn refused(pair: &mut Pair, sql: &str, lines: &str) -> (String, String) {
    let refusal = copy(pair, sql, lines).unwrap_err();
    (refusal.code().to_owned(), refusal.message)
}

#[test]
fn lines_become_rows_with_defaults_triggers_and_the_root() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE t(id INT PRIMARY KEY, ok BOOLEAN, b BYTEA, at TIMESTAMP,
             n TEXT DEFAULT 'none', twice INT AS (id * 2) STORED);
         CREATE TABLE log(id);
         CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id); END",
    );
    let count = copy(
        &mut pair,
        "COPY t FROM STDIN",
        "1\tt\t\\\\x00ff\t2026-01-02\tx\n2\tf\t\\N\t\\N\t\\N\n",
    );
    assert_eq!(count, Ok(2));
    assert_eq!(copy(&mut pair, "COPY t (b, id) FROM STDIN CSV", "\"\\xff\",3\n"), Ok(1));
    pair.check();
    let text = |text: &str| Value::Text(text.into());
    let rows = pair.rows("SELECT id, ok, b, at, n, twice FROM t ORDER BY id");
    let at = text("2026-01-02 00:00:00");
    let one = [Value::Integer(1), Value::Integer(1), Value::Blob(vec![0, 255]), at, text("x")];
    assert_eq!(rows[0][..5], one);
    assert_eq!(rows[1][1..5], [Value::Integer(0), Value::Null, Value::Null, Value::Null]);
    assert_eq!(rows[2][1..5], [Value::Null, Value::Blob(vec![255]), Value::Null, text("none")]);
    assert_eq!(rows[2][5], Value::Integer(6));
    assert_eq!(pair.rows("SELECT count(*) FROM log"), [[Value::Integer(3)]]);
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_nothing_stays() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a INT PRIMARY KEY, b TEXT NOT NULL)");
    for (sql, lines, code, says) in [
        (
            "COPY t FROM STDIN",
            "1\tx\n1\ty\n",
            "23505",
            "UNIQUE constraint failed: t.a (COPY t, line 2)",
        ),
        ("COPY t FROM STDIN", "1\tx\n2\t\\N\n", "23502", "(COPY t, line 2)"),
        ("COPY t FROM STDIN", "one\tx\n", "22P02", "(COPY t, line 1)"),
        ("COPY t FROM STDIN", "1\tx\n2\n", "22P04", "(COPY t, line 2)"),
        ("COPY t(a, c) FROM STDIN", "1\tx\n", "42703", "\"c\""),
        ("COPY t(a, a) FROM STDIN", "1\tx\n", "42701", "\"a\""),
        ("COPY absent FROM STDIN", "1\n", "42P01", "absent"),
        ("COPY s.t FROM STDIN", "1\n", "42P01", "\"t\""),
        ("COPY rota_transactions FROM STDIN", "1\n", "42501", "rota_"),
        ("COPY t TO STDOUT", "", "0A000", ""),
        ("COPY t FROM STDIN BINARY", "", "0A000", ""),
    ] {
        let (got, message) = refused(&mut pair, sql, lines);
        assert_eq!(got, code, "{sql}: {message}");
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(pair.rows("SELECT count(*) FROM t"), [[Value::Integer(0)]]);
    assert_eq!(pair.refused("COPY t FROM STDIN"), "08P01");
    pair.check();
}

/// The cost of a row is counted from the row's own start, so a server that ran the statement before
/// decides as one that did not.
#[test]
fn a_load_that_just_fits_its_budget_fits_it_everywhere() {
    let lines: String = (0..700).map(|number| format!("{number}\tx\n")).collect();
    let fits = |steps: u64| {
        let knobs = Knobs { transaction_steps: steps, ..Knobs::default() };
        let mut pair = Pair::with(genesis_with(knobs));
        pair.run("CREATE TABLE t(a INT PRIMARY KEY, b TEXT)");
        let first = copy(&mut pair, "COPY t FROM STDIN", &lines);
        pair.run("DELETE FROM t");
        let again = copy(&mut pair, "COPY t FROM STDIN", &lines);
        assert_eq!(first, again);
        if let Err(refusal) = &first {
            assert_eq!(refusal.code(), "54001");
        }
        first.is_ok()
    };
    let (mut least, mut most) = (10_000, 50_000);
    assert!(!fits(least) && fits(most));
    while most - least > 1 {
        let middle = (least + most) / 2;
        if fits(middle) { most = middle } else { least = middle }
    }
}

#[test]
fn more_bytes_than_a_transaction_may_change_are_refused() {
    let knobs = Knobs { transaction_bytes: 64 << 10, ..Knobs::default() };
    let mut pair = Pair::with(genesis_with(knobs));
    pair.run("CREATE TABLE t(a TEXT)");
    let lines = format!("{}\n", "x".repeat(1_000)).repeat(200);
    assert_eq!(refused(&mut pair, "COPY t FROM STDIN", &lines).0, "54000");
    assert_eq!(pair.rows("SELECT count(*) FROM t"), [[Value::Integer(0)]]);
    pair.check();
}
