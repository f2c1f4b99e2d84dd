//! Interactive transactions: what a draft shows, and what becomes of it at apply.

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rota_core::time::Time;
use rota_core::transaction::{Settings, Statement, Transaction, Value};
use rota_core::types::Height;
use rota_store::StatementResult;
use rota_store::draft::{Begin, Draft, Drafts, Stop, Until};
use rota_store::sequences::Reserved;
use support::{Pair, key, statement};

/// Two servers, and drafts on the first.
struct Bench {
    pair: Pair,
    drafts: Arc<Drafts>,
    salt: u8,
}

/// A transaction that is open.
struct Open {
    draft: Draft,
    salt: [u8; 16],
}

impl Bench {
    fn new(script: &str) -> Self {
        let mut pair = Pair::new();
        pair.run(script);
        let drafts = Drafts::new(&pair.home(), pair.genesis(), pair.warm.access());
        Self { pair, drafts, salt: 0 }
    }

    fn begin_with(&mut self, read_only: bool) -> Open {
        self.salt += 1;
        let salt = [self.salt; 16];
        let chain = self.pair.genesis().chain_id();
        let begin = Begin {
            id: Transaction::id_of(chain, key(1).public(), &salt),
            user: "rota".into(),
            begun: Time(self.pair.maker.time.0 + 7),
            settings: Settings::default(),
            read_only,
            at_least: self.pair.maker.height,
            unfinal: Vec::new(),
        };
        Open { draft: self.drafts.begin(begin).unwrap(), salt }
    }

    fn begin(&mut self) -> Open {
        self.begin_with(false)
    }

    /// The transaction as it would be sent; nothing if it wrote nothing.
    fn finish(open: Open) -> Option<Transaction> {
        let finished = open.draft.finish().unwrap()?;
        Some(Transaction {
            salt: open.salt,
            user: "rota".into(),
            statements: finished.statements,
            settings: Settings::default(),
            interactive: Some(finished.interactive),
        })
    }

    /// COMMIT: `ok`, or the SQLSTATE.
    fn commit(&mut self, open: Open) -> String {
        let Some(transaction) = Self::finish(open) else { return "nothing".into() };
        match self.pair.block(vec![transaction]).remove(0) {
            Ok(_) => "ok".into(),
            Err(refusal) => refusal.code().to_owned(),
        }
    }

    /// Does what a server does when a draft lacks numbers.
    fn reserve(&mut self, name: &str, count: i64) {
        let reserved = self.pair.run(&format!("SELECT rota_reserve('{name}', {count})"));
        let Value::Text(text) = &reserved[0].rows.rows[0][0] else { panic!("{reserved:?}") };
        let (first, born) = text.split_once(' ').unwrap();
        let first: i64 = first.parse().unwrap();
        let height = self.pair.maker.height.0;
        let reserved =
            Reserved { numbers: first..first + count, born: born.parse().unwrap(), height };
        self.drafts.ranges().add(name, reserved);
    }

    /// Runs a statement, with numbers if it needs some.
    fn run(&mut self, open: &mut Open, sql: &str) -> Result<StatementResult, String> {
        self.run_with(open, sql, &[])
    }

    fn run_with(
        &mut self,
        open: &mut Open,
        sql: &str,
        parameters: &[Value],
    ) -> Result<StatementResult, String> {
        match open.try_run(statement(sql, parameters)) {
            Err(Stop::Numbers(wanted)) => {
                let count = i64::try_from(wanted.had + 4).unwrap();
                self.reserve(&wanted.name, count);
                self.run_with(open, sql, parameters)
            }
            Err(Stop::Refused(refusal)) => Err(refusal.code().to_owned()),
            Ok(result) => Ok(result),
        }
    }
}

impl Open {
    fn try_run(&mut self, statement: Statement) -> Result<StatementResult, Stop> {
        self.draft.run(statement, &Until::default())
    }

    /// The tag, or the SQLSTATE.
    fn run(&mut self, sql: &str) -> String {
        match self.try_run(statement(sql, &[])) {
            Ok(result) => result.kind.tag(result.rows_affected),
            Err(Stop::Refused(refusal)) => refusal.code().to_owned(),
            Err(stop) => panic!("{sql}: {stop:?}"),
        }
    }

    fn rows(&mut self, sql: &str) -> Vec<Vec<Value>> {
        self.try_run(statement(sql, &[])).unwrap().rows.rows
    }

    fn number(&mut self, sql: &str) -> i64 {
        match self.rows(sql)[0][0] {
            Value::Integer(number) => number,
            ref other => panic!("{sql}: {other:?}"),
        }
    }
}

const ACCOUNTS: &str = "CREATE TABLE a(id BIGINT PRIMARY KEY, v INTEGER CHECK (v > -1000));
    INSERT INTO a VALUES (1, 10), (2, 20), (3, 30)";

#[test]
fn a_draft_sees_its_own_writes_and_nobody_else_does() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut one = bench.begin();
    let mut two = bench.begin();
    assert_eq!(one.run("UPDATE a SET v = v + 5 WHERE id = 1"), "UPDATE 1");
    assert_eq!(one.number("SELECT v FROM a WHERE id = 1"), 15);
    assert_eq!(two.number("SELECT v FROM a WHERE id = 1"), 10);
    bench.pair.run("UPDATE a SET v = 100 WHERE id = 2");
    assert_eq!(one.number("SELECT v FROM a WHERE id = 2"), 20);
    drop(one);
    assert_eq!(two.number("SELECT sum(v) FROM a"), 60);
    assert_eq!(bench.commit(two), "nothing");
    assert_eq!(bench.pair.rows("SELECT v FROM a WHERE id = 1"), [[Value::Integer(10)]]);
}

#[test]
fn what_was_shown_is_what_is_committed() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut open = bench.begin();
    assert_eq!(open.run("CREATE TABLE b(id INTEGER PRIMARY KEY, r, n)"), "CREATE TABLE");
    assert_eq!(open.run("INSERT INTO b(r, n) VALUES (random(), now())"), "INSERT 0 1");
    assert_eq!(open.run("ALTER TABLE a ADD COLUMN extra TEXT DEFAULT 'x'"), "ALTER TABLE");
    let shown = open.rows("SELECT r, n, changes(), extra FROM b, a WHERE a.id = 1");
    assert_eq!(bench.commit(open), "ok");
    let query = "SELECT r, n, 1, extra FROM b, a WHERE a.id = 1";
    assert_eq!(bench.pair.rows(query)[0][..2], shown[0][..2]);
    bench.pair.check();
}

#[test]
fn a_lost_update_a_write_skew_and_a_phantom_end_in_40001_for_one() {
    let cases = [
        // Both read one balance and write what they computed from it.
        ["SELECT v FROM a WHERE id = 1", "UPDATE a SET v = 11 WHERE id = 1"],
        // Each checks a sum and takes from another row.
        ["SELECT sum(v) FROM a", "UPDATE a SET v = v - 30 WHERE id = $"],
        // Each counts, and adds a row that the other has not counted.
        ["SELECT count(*) FROM a WHERE v > 5", "INSERT INTO a VALUES (10 + $, 50)"],
    ];
    for [read, write] in cases {
        let mut bench = Bench::new(ACCOUNTS);
        let (mut one, mut two) = (bench.begin(), bench.begin());
        assert_eq!(one.rows(read), two.rows(read));
        one.run(&write.replace('$', "1"));
        two.run(&write.replace('$', "2"));
        assert_eq!(bench.commit(one), "ok", "{read}");
        let before = bench.pair.rows("SELECT * FROM a");
        assert_eq!(bench.commit(two), "40001", "{read}");
        assert_eq!(bench.pair.rows("SELECT * FROM a"), before, "it must have changed nothing");
        bench.pair.check();
    }
}

#[test]
fn increments_that_were_not_looked_at_do_not_conflict() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut opened: Vec<Open> = (0..5).map(|_| bench.begin()).collect();
    for open in &mut opened {
        assert_eq!(open.run("UPDATE a SET v = v + 1 WHERE id = 1"), "UPDATE 1");
    }
    let transactions = opened.into_iter().filter_map(Bench::finish).collect();
    assert!(bench.pair.block(transactions).iter().all(Result::is_ok));
    assert_eq!(bench.pair.rows("SELECT v FROM a WHERE id = 1"), [[Value::Integer(15)]]);
}

#[test]
fn savepoints_bring_back_what_was_and_failures_are_part_of_the_story() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut open = bench.begin();
    for (sql, want) in [
        ("UPDATE a SET v = 1 WHERE id = 1", "UPDATE 1"),
        ("SAVEPOINT s", "SAVEPOINT"),
        ("INSERT INTO a VALUES (4, 40), (1, 1)", "23505"),
        ("ROLLBACK TO s", "ROLLBACK"),
        ("CREATE TABLE gone(x)", "CREATE TABLE"),
        ("INSERT INTO gone VALUES (1)", "INSERT 0 1"),
        ("SAVEPOINT inner", "SAVEPOINT"),
        ("DELETE FROM a", "DELETE 3"),
        ("ROLLBACK TO SAVEPOINT s", "ROLLBACK"),
        ("SELECT * FROM gone", "42P01"),
        ("ROLLBACK TO s", "ROLLBACK"),
        ("ROLLBACK TO inner", "3B001"),
        ("ROLLBACK TO s", "ROLLBACK"),
        ("CREATE TABLE kept(x)", "CREATE TABLE"),
        ("INSERT INTO kept SELECT count(*) FROM a", "INSERT 0 1"),
        ("RELEASE s", "RELEASE"),
        ("SELECT x FROM kept", "SELECT 1"),
    ] {
        assert_eq!(open.run(sql), want, "{sql}");
    }
    assert_eq!(bench.commit(open), "ok");
    assert_eq!(
        bench.pair.rows("SELECT x, (SELECT v FROM a WHERE id = 1) FROM kept"),
        [[Value::Integer(3), Value::Integer(1)]]
    );
    bench.pair.check();
}

#[test]
fn a_statement_that_would_now_succeed_or_fail_differently_is_a_conflict() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut open = bench.begin();
    open.run("SAVEPOINT s");
    assert_eq!(open.run("INSERT INTO a VALUES (1, 1)"), "23505");
    open.run("ROLLBACK TO s");
    open.run("INSERT INTO a VALUES (9, 9)");
    bench.pair.run("DELETE FROM a WHERE id = 1");
    assert_eq!(bench.commit(open), "40001");
    let mut open = bench.begin();
    open.run("INSERT INTO a VALUES (9, 9)");
    bench.pair.run("INSERT INTO a VALUES (9, 0)");
    assert_eq!(bench.commit(open), "40001");
    bench.pair.check();
}

#[test]
fn generated_keys_of_concurrent_transactions_do_not_conflict() {
    let mut bench = Bench::new(
        "CREATE TABLE t(id BIGINT NOT NULL PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x)",
    );
    let insert = "INSERT INTO t(x) VALUES (1), (2) RETURNING id";
    bench.pair.run(insert);
    let (mut one, mut two) = (bench.begin(), bench.begin());
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.extend(bench.run(&mut one, insert).unwrap().rows.rows);
        ids.extend(bench.run(&mut two, insert).unwrap().rows.rows);
    }
    bench.pair.run(insert);
    assert_eq!(bench.commit(two), "ok");
    assert_eq!(bench.commit(one), "ok");
    assert_eq!(bench.pair.rows("SELECT count(DISTINCT id) FROM t"), [[Value::Integer(16)]]);
    let shown = ids.iter().flatten().filter(|id| matches!(id, Value::Integer(1..))).count();
    assert_eq!(shown, 12);
    bench.pair.check();
}

#[test]
fn rows_that_were_copied_before_numbers_ran_out_are_not_copied_twice() {
    let mut bench =
        Bench::new("CREATE TABLE t(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x)");
    let mut open = bench.begin();
    let lines = Value::Blob(b"a\n".repeat(100));
    let copied = bench.run_with(&mut open, "COPY \"t\" (\"x\") FROM STDIN", &[lines]).unwrap();
    assert_eq!(copied.rows_affected, 100);
    assert_eq!(open.number("SELECT count(*) FROM t"), 100);
    assert_eq!(bench.commit(open), "ok");
    bench.pair.check();
}

#[test]
fn a_copy_that_fails_leaves_nothing_on_a_draft_and_at_apply() {
    let mut bench = Bench::new("CREATE TABLE t(x INTEGER CHECK (x < 3))");
    let mut open = bench.begin();
    let copy = "COPY \"t\" (\"x\") FROM STDIN";
    open.run("SAVEPOINT a");
    let failed = bench.run_with(&mut open, copy, &[Value::Blob(b"1\n2\n3\n".to_vec())]);
    assert_eq!(failed.unwrap_err(), "23514");
    open.run("ROLLBACK TO a");
    bench.run_with(&mut open, copy, &[Value::Blob(b"1\n2\n".to_vec())]).unwrap();
    assert_eq!(open.rows("SELECT x FROM t"), [[Value::Integer(1)], [Value::Integer(2)]]);
    assert_eq!(bench.commit(open), "ok");
    bench.pair.check();
}

#[test]
fn an_answer_about_the_schema_has_a_bound_in_bytes_and_can_be_called_off() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut open = bench.begin();
    open.run("SELECT 1");
    let large = "SELECT zeroblob(1000000) FROM pg_type a, pg_type b";
    let refused = open.draft.look(&statement(large, &[]), &Until::default()).unwrap_err();
    assert_eq!(refused.code(), "54000");
    open.run("CREATE TABLE b(x)");
    let called_off = Until { cancelled: Arc::new(AtomicBool::new(true)), deadline: None };
    let many = "SELECT count(*) FROM pg_type a, pg_type b";
    let refused = open.draft.look(&statement(many, &[]), &called_off).unwrap_err();
    assert_eq!(refused.code(), "57014");
}

#[test]
fn a_sequence_of_a_table_made_anew_begins_anew() {
    let table = "CREATE TABLE t(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x)";
    let mut bench = Bench::new(table);
    let mut open = bench.begin();
    bench.run(&mut open, "INSERT INTO t(x) VALUES (1)").unwrap();
    assert_eq!(bench.commit(open), "ok");
    bench.pair.run(&format!("DROP TABLE t; {table}; INSERT INTO t(x) VALUES (1), (2), (3)"));
    assert_eq!(bench.pair.rows("SELECT max(id) FROM t"), [[Value::Integer(3)]]);
    let mut open = bench.begin();
    let ids = bench.run(&mut open, "INSERT INTO t(x) VALUES (4) RETURNING id").unwrap().rows.rows;
    assert_eq!(ids, [[Value::Integer(4)]], "numbers of the old sequence must not be used");
    assert_eq!(bench.commit(open), "ok");
    bench.pair.check();
}

#[test]
fn numbers_that_nobody_reserved_are_refused() {
    let mut bench =
        Bench::new("CREATE TABLE t(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x)");
    let mut open = bench.begin();
    bench.run(&mut open, "INSERT INTO t(x) VALUES (1)").unwrap();
    let mut made = Bench::finish(open).unwrap();
    if let Some(interactive) = &mut made.interactive {
        interactive.values = vec![77];
    }
    let outcome = bench.pair.block(vec![made]).remove(0);
    assert_eq!(outcome.unwrap_err().code(), "40001");
    bench.pair.check();
}

#[test]
fn a_read_only_draft_refuses_writes_and_a_client_can_call_a_statement_off() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut open = bench.begin_with(true);
    assert_eq!(open.run("DELETE FROM a"), "25006");
    assert_eq!(open.run("WITH b AS (SELECT 1) \u{feff}DELETE FROM a"), "25006");
    let mut open = bench.begin();
    let forever = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c)
        SELECT count(*) FROM c";
    let called_off = Until { cancelled: Arc::new(AtomicBool::new(true)), deadline: None };
    let stopped = open.draft.run(statement(forever, &[]), &called_off);
    assert!(matches!(stopped, Err(Stop::Refused(refusal)) if refusal.code() == "57014"));
    assert_eq!(open.number("SELECT count(*) FROM a"), 3);
}

#[test]
fn a_draft_may_be_larger_than_its_cache_and_has_an_end() {
    let mut bench = Bench::new("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    let mut open = bench.begin();
    let fill = "INSERT INTO t(b) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c
        WHERE i < 3000) SELECT randomblob(1000) FROM c";
    assert_eq!(open.run(fill), "INSERT 0 3000");
    assert_eq!(open.run("SAVEPOINT s"), "SAVEPOINT");
    assert_eq!(open.run("UPDATE t SET b = zeroblob(900)"), "UPDATE 3000");
    assert_eq!(open.run("ROLLBACK TO s"), "ROLLBACK");
    assert_eq!(open.number("SELECT count(*) FROM t WHERE length(b) = 1000"), 3000);
    assert_eq!(open.run("DELETE FROM t WHERE id > 10"), "DELETE 2990");
    assert_eq!(bench.commit(open), "ok");
    assert_eq!(bench.pair.rows("SELECT count(*) FROM t"), [[Value::Integer(10)]]);
    bench.pair.check();
}

#[test]
fn a_connection_that_served_one_draft_shows_the_next_one_the_new_state() {
    let mut bench = Bench::new(ACCOUNTS);
    for round in 0..20 {
        let mut open = bench.begin();
        assert_eq!(open.number("SELECT v FROM a WHERE id = 2"), 20 + round);
        assert_eq!(open.run("UPDATE a SET v = 999 WHERE id = 2"), "UPDATE 1");
        if round % 3 == 0 {
            assert_eq!(open.run("CREATE TABLE leftover(x)"), "CREATE TABLE");
        }
        drop(open);
        bench.pair.run("UPDATE a SET v = v + 1 WHERE id = 2");
        if round % 5 == 0 {
            bench.pair.run(&format!("CREATE TABLE new{round}(x)"));
        }
    }
    assert_eq!(bench.pair.maker.height, Height(25));
}

#[test]
fn a_transaction_larger_than_an_envelope_arrives_in_parts_and_happens_at_once() {
    let mut bench = Bench::new("CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    let mut open = bench.begin();
    let blob = Value::Blob(vec![7; 500_000]);
    for _ in 0..10 {
        let insert = statement("INSERT INTO t(b) VALUES (?1)", std::slice::from_ref(&blob));
        open.try_run(insert).unwrap();
    }
    let mut transaction = Bench::finish(open).unwrap();
    let expiry = Time(bench.pair.maker.time.0 + 100_000);
    let (parts, execute) =
        rota_store::staged::stage(&transaction.salt, expiry, &transaction.statements);
    assert!(parts.len() > 3);
    transaction.statements = vec![execute];
    let early = bench.pair.block(vec![transaction.clone()]).remove(0);
    assert_eq!(early.unwrap_err().code(), "40001", "before its parts are there");
    let half = parts.len() / 2;
    for part in parts.iter().take(half) {
        let part = bench.pair.maker.transaction(vec![part.clone()]);
        bench.pair.block(vec![part]).remove(0).unwrap();
    }
    assert_eq!(bench.pair.rows("SELECT count(*) FROM t"), [[Value::Integer(0)]]);
    bench.pair.check();
    // The id of the first try is remembered, so the whole is sent as another transaction.
    transaction.salt = [99; 16];
    let interactive = transaction.interactive.clone();
    let (parts, execute) = rota_store::staged::stage(&transaction.salt, expiry, &{
        let mut open = bench.begin();
        for _ in 0..10 {
            let insert = statement("INSERT INTO t(b) VALUES (?1)", std::slice::from_ref(&blob));
            open.try_run(insert).unwrap();
        }
        Bench::finish(open).unwrap().statements
    });
    transaction = Transaction { statements: vec![execute], interactive, ..transaction };
    for part in parts {
        let part = bench.pair.maker.transaction(vec![part]);
        bench.pair.block(vec![part]).remove(0).unwrap();
    }
    bench.pair.block(vec![transaction]).remove(0).unwrap();
    assert_eq!(bench.pair.rows("SELECT count(*) FROM t"), [[Value::Integer(10)]]);
    assert_eq!(bench.pair.rows("SELECT count(*) > 0 FROM rota_staged"), [[Value::Integer(1)]]);
    bench.pair.check();
    bench.pair.maker.time = bench.pair.maker.time.plus(Duration::from_secs(3600));
    bench.pair.run("SELECT 1");
    assert_eq!(bench.pair.rows("SELECT count(*) FROM rota_staged"), [[Value::Integer(0)]]);
    bench.pair.check();
}

#[test]
fn blocks_that_are_not_final_can_be_seen_on_a_draft_and_nowhere_else() {
    let mut bench = Bench::new(ACCOUNTS);
    let mut open = bench.begin();
    open.run("UPDATE a SET v = v + 1 WHERE id = 1");
    open.run("SAVEPOINT s");
    open.run("DELETE FROM a");
    open.run("ROLLBACK TO s");
    let interactive = Bench::finish(open).unwrap();
    let (plain, failing) = (
        bench.pair.maker.sql("INSERT INTO a VALUES (4, 40)"),
        bench.pair.maker.sql("INSERT INTO a VALUES (5, 50); INSERT INTO a VALUES (1, 1)"),
    );
    let block = Arc::new(bench.pair.maker.block(vec![interactive, plain, failing]));
    bench.salt += 1;
    let begin = Begin {
        id: Transaction::id_of(bench.pair.genesis().chain_id(), key(1).public(), &[9; 16]),
        user: "rota".into(),
        begun: bench.pair.maker.time,
        settings: Settings::default(),
        read_only: true,
        at_least: Height(1),
        unfinal: vec![block],
    };
    let mut ahead = Open { draft: bench.drafts.begin(begin).unwrap(), salt: [9; 16] };
    assert_eq!(ahead.number("SELECT sum(v) FROM a"), 10 + 20 + 30 + 1 + 40);
    assert!(ahead.draft.finish().unwrap().is_none());
}

#[test]
fn what_sqlite_counts_begins_anew_with_each_transaction_and_is_no_work_of_ours() {
    let mut bench = Bench::new("CREATE TABLE t(id INTEGER PRIMARY KEY, n)");
    bench.pair.run("INSERT INTO t(n) VALUES (7), (8), (9)");
    let mut open = bench.begin();
    open.run("SAVEPOINT a");
    open.run("INSERT INTO t(n) VALUES (changes()), (last_insert_rowid())");
    open.run("CREATE TABLE other(x)");
    open.run("INSERT INTO t(n) VALUES (last_insert_rowid())");
    assert_eq!(bench.commit(open), "ok");
    let shown = bench.pair.rows("SELECT n FROM t WHERE id > 3 ORDER BY id");
    assert_eq!(shown, [[Value::Integer(0)], [Value::Integer(4)], [Value::Integer(5)]]);
    bench.pair.check();
}

#[test]
fn a_dropped_sequence_comes_back_with_its_table() {
    let mut bench = Bench::new(
        "CREATE TABLE t(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x);
         CREATE TABLE u(x)",
    );
    bench.pair.run("INSERT INTO t(x) VALUES (1), (2)");
    let mut open = bench.begin();
    for sql in ["SAVEPOINT a", "DROP TABLE t", "ROLLBACK TO a", "INSERT INTO u VALUES (1)"] {
        open.run(sql);
    }
    assert_eq!(bench.commit(open), "ok");
    bench.pair.run("INSERT INTO t(x) VALUES (3)");
    assert_eq!(bench.pair.rows("SELECT max(id) FROM t"), [[Value::Integer(3)]]);
    bench.pair.check();
}

#[test]
fn a_block_that_is_run_again_advances_sequences_once() {
    let table = "CREATE TABLE t(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x)";
    let mut bench = Bench::new(table);
    let endless = "INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c)
        SELECT 1 FROM c";
    let insert = "INSERT INTO t(x) VALUES (1)";
    let first = bench.pair.maker.sql(insert);
    let breaks_out = bench.pair.maker.sql(endless);
    let outcomes = bench.pair.block(vec![first, breaks_out]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err());
    bench.pair.check();
    bench.pair.run(insert);
    let drop = bench.pair.maker.sql("DROP TABLE t");
    let breaks_out = bench.pair.maker.sql(&endless.replace("INTO t", "INTO u"));
    bench.pair.run("CREATE TABLE u(x)");
    assert!(bench.pair.block(vec![drop, breaks_out])[0].is_ok());
    bench.pair.run(table);
    bench.pair.run(insert);
    assert_eq!(bench.pair.rows("SELECT id FROM t"), [[Value::Integer(1)]]);
    bench.pair.check();
}

#[test]
fn numbers_of_a_read_that_was_called_off_are_not_missed_at_commit() {
    let table = "CREATE TABLE t(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('t_id_seq')), x)";
    let mut bench = Bench::new(table);
    bench.reserve("t_id_seq", 50);
    let mut open = bench.begin();
    let read = "WITH RECURSIVE c(i) AS (SELECT rota_nextval('t_id_seq') UNION ALL
        SELECT i FROM c) SELECT count(*) FROM c";
    let called_off = Until { cancelled: Arc::new(AtomicBool::new(true)), deadline: None };
    let stopped = open.draft.run(statement(read, &[]), &called_off);
    assert!(matches!(stopped, Err(Stop::Refused(refusal)) if refusal.code() == "57014"));
    bench.run(&mut open, "INSERT INTO t(x) VALUES (1) RETURNING id").unwrap();
    assert_eq!(bench.commit(open), "ok");
}
