//! Blocks that are executed before they are final, and such that are committed later: it is as if
//! each had been applied when it was final, whatever was executed before it.

mod support;
#[path = "hostile/table.rs"]
mod table;

use std::path::Path;
use std::sync::Arc;

use rota_core::block::Block;
use rota_core::time::Time;
use rota_core::transaction::{Statement, Transaction, Value};
use rota_core::types::Height;
use rota_store::{AppliedBlock, StateDb};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags};
use support::{Maker, Outcome, genesis, genesis_with, statement};
use table::{ADMINISTRATOR, entries, world};
use tempfile::TempDir;

/// One server.
struct Server {
    home: TempDir,
    state: StateDb,
}

impl Server {
    fn new(maker: &Maker) -> Self {
        let home = tempfile::tempdir().unwrap();
        let state = StateDb::open(home.path(), &maker.genesis).unwrap();
        Self { home, state }
    }

    fn reopen(&mut self, maker: &Maker) {
        let elsewhere = tempfile::tempdir().unwrap();
        let other = StateDb::open(elsewhere.path(), &maker.genesis).unwrap();
        drop(std::mem::replace(&mut self.state, other));
        self.state = StateDb::open(self.home.path(), &maker.genesis).unwrap();
    }

    /// All that anybody else sees: every row of every table, and users and grants.
    fn seen(&self) -> (Vec<Vec<Cell>>, String) {
        (rows(self.home.path()), format!("{:?}", self.state.access().current()))
    }
}

fn rows(home: &Path) -> Vec<Vec<Cell>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = Connection::open_with_flags(home.join("state.db"), flags).unwrap();
    let read = |sql: &str| {
        let mut statement = file.prepare(sql).unwrap();
        let width = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..width).map(|column| row.get(column)).collect();
        let rows = statement.query_map([], row).unwrap();
        rows.collect::<Result<Vec<Vec<Cell>>, _>>().unwrap()
    };
    let mut all = read("SELECT rowid, type, name, tbl_name, sql FROM sqlite_schema");
    let tables = read(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'",
    );
    for name in tables.into_iter().flatten() {
        let Cell::Text(name) = name else { panic!("a name") };
        all.extend(read(&format!("SELECT '{name}', * FROM \"{name}\" ORDER BY 1, 2")));
    }
    all
}

/// Servers that are given the same blocks. The first executes them when they are final, the second
/// has executed each before that, the third another one; the fourth commits several at once.
struct Bench {
    maker: Maker,
    plain: Server,
    right: Server,
    wrong: Server,
    late: Server,
    /// What others see of the fourth, and how many blocks it holds.
    late_shows: (Vec<Vec<Cell>>, String),
    held: usize,
}

/// So many blocks are committed at once.
const HELD: usize = 3;

impl Bench {
    fn new() -> Self {
        Self::with(Maker::new(genesis()))
    }

    fn with(maker: Maker) -> Self {
        let [plain, right, wrong, late] = [0; 4].map(|_| Server::new(&maker));
        let late_shows = late.seen();
        Self { maker, plain, right, wrong, late, late_shows, held: 0 }
    }

    fn block(&mut self, transactions: Vec<Transaction>) -> Vec<Outcome> {
        let block = self.maker.block(transactions);
        let applied = self.apply(&block);
        applied.receipts.into_iter().map(|receipt| receipt.outcome).collect()
    }

    fn run(&mut self, script: &str) {
        let transaction = self.maker.sql(script);
        self.block(vec![transaction]).remove(0).unwrap_or_else(|no| panic!("{script}: {no}"));
    }

    fn apply(&mut self, block: &Block) -> AppliedBlock {
        let other = self.another(block);
        let before = self.plain.seen();
        for (server, ahead) in [(&mut self.right, block), (&mut self.wrong, &other)] {
            let applied = server.state.applied();
            server.state.ahead(ahead).unwrap();
            assert!(server.state.is_ahead());
            assert_eq!(server.state.applied(), applied);
            assert_eq!(server.seen(), before, "nothing is to be seen before it is final");
        }
        let plain = self.plain.state.apply(block).unwrap();
        let seen = self.plain.seen();
        for server in [&mut self.right, &mut self.wrong] {
            let applied = server.state.apply(block).unwrap();
            assert!(!server.state.is_ahead());
            assert_eq!(applied.receipts, plain.receipts);
            assert_eq!((applied.applied, server.state.applied()), (plain.applied, plain.applied));
            assert_eq!(server.seen(), seen);
        }
        self.hold(block, &plain);
        plain
    }

    /// The fourth: nothing is to be seen of a block before it is committed with others.
    fn hold(&mut self, block: &Block, plain: &AppliedBlock) {
        let state = &mut self.late.state;
        let before = state.applied();
        let held = state.hold(&Arc::new(block.clone())).unwrap();
        assert_eq!(held.receipts, plain.receipts);
        assert_eq!((held.applied, state.executed()), (plain.applied, plain.applied));
        let broke_out = state.applied() != before;
        if !broke_out {
            assert_eq!(self.late.seen(), self.late_shows);
        }
        self.held += 1;
        if broke_out || self.held == HELD {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.late.state.commit().unwrap();
        assert!(!self.late.state.holds());
        assert_eq!(self.late.state.applied(), self.plain.state.applied());
        self.late_shows = self.late.seen();
        assert_eq!(self.late_shows, self.plain.seen());
        self.held = 0;
    }

    /// Another block of the same height, which does all that it can to what is in memory, and then
    /// what the block itself does, by the same transactions.
    fn another(&mut self, block: &Block) -> Block {
        let staged = Value::Blob(vec![7; 16]);
        let expiry = i64::try_from(self.maker.time.0 + 60_000).unwrap();
        let part = [staged, Value::Integer(0), Value::Integer(expiry), Value::Blob(vec![1])];
        let transactions = vec![
            self.maker.sql(
                "CREATE TABLE another(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT UNIQUE);
                 INSERT INTO another(v) VALUES ('a'), ('b'); DELETE FROM another WHERE v = 'a'",
            ),
            self.maker
                .sql("CREATE TABLE serial(id INTEGER PRIMARY KEY DEFAULT (rota_nextval('n')))"),
            self.maker.sql("CREATE USER another SERVERS ALL; GRANT SELECT ON another TO another"),
            self.maker.transaction(vec![statement("ROTA STAGE", &part)]),
            self.maker.sql("INSERT INTO another(v) VALUES ('b')"),
            self.maker.sql("CREATE INDEX anothers ON another(v); DROP TABLE nowhere"),
            self.maker.sql("CREATE TEMP TRIGGER no AFTER INSERT ON another BEGIN SELECT 1; END"),
        ];
        let mut envelopes = vec![self.maker.envelope(1, transactions)];
        envelopes.extend(block.body.envelopes.iter().cloned());
        let last = self.maker.sql("INSERT INTO another(v) VALUES ('z'); DROP TABLE another");
        envelopes.push(self.maker.envelope(1, vec![last]));
        let mut other = block.clone();
        other.header.time = Time(block.header.time.0 + 7);
        other.body.envelopes = envelopes;
        other.header.body = other.body.digest();
        other
    }

    /// Whether all rows, read again, come to the roots.
    fn check(&mut self) {
        for server in [&mut self.plain, &mut self.right, &mut self.wrong, &mut self.late] {
            let rescan = server.state.rescan().unwrap();
            assert_eq!(rescan.differing, []);
            assert_eq!(rescan.root, server.state.applied().root);
        }
    }
}

fn statements(script: &str) -> Vec<Statement> {
    rota_store::sql::split(script).into_iter().map(|sql| statement(sql, &[])).collect()
}

#[test]
fn whatever_was_executed_ahead_is_as_if_it_never_was() {
    let mut bench = Bench::new();
    for script in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT); CREATE INDEX tv ON t(v)",
        "INSERT INTO t(v) VALUES ('one'), ('two'), (random()), (datetime('now'))",
        "CREATE TABLE s(id INTEGER PRIMARY KEY DEFAULT (rota_nextval('s_id_seq')), v)",
        "INSERT INTO s(v) VALUES (1), (2), (3)",
        "CREATE USER alice SERVERS ALL; GRANT SELECT, INSERT ON t TO alice",
        "ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 7; UPDATE t SET w = id WHERE id > 1",
        "ALTER TABLE t RENAME TO renamed; INSERT INTO renamed(v) VALUES ('three')",
        "REVOKE INSERT ON renamed FROM alice; DROP USER alice",
        "INSERT INTO s(v) SELECT v FROM renamed; DELETE FROM s WHERE id < 3",
        "DROP TABLE renamed",
        "INSERT INTO s(v) VALUES (last_insert_rowid()), (changes())",
    ] {
        bench.run(script);
    }
    bench.check();
}

#[test]
fn the_other_block_of_these_tests_does_what_it_is_for() {
    let mut bench = Bench::new();
    let insert = bench.maker.sql("CREATE TABLE t(a)");
    let block = bench.maker.block(vec![insert]);
    let other = bench.another(&block);
    let did = bench.plain.state.apply(&other).unwrap().receipts;
    let did: Vec<bool> = did.iter().map(|receipt| receipt.outcome.is_ok()).collect();
    assert_eq!(did, [true, true, true, true, false, false, false, true, true]);
}

#[test]
fn an_id_that_was_met_in_another_block_is_not_known() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let once = bench.maker.sql("INSERT INTO t(v) VALUES ('once')");
    // `Bench::another` holds it too.
    assert!(bench.block(vec![once.clone()])[0].is_ok());
    assert!(bench.block(vec![once]).is_empty(), "it is known from now on");
    bench.check();
}

#[test]
fn parts_of_large_transactions_are_there_once() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let transaction = bench.maker.transaction(Vec::new());
    let expiry = Time(bench.maker.time.0 + 60_000);
    let insert = statements("INSERT INTO t(v) VALUES ('large'); INSERT INTO t(v) VALUES ('too')");
    let (parts, whole) = rota_store::staged::stage(&transaction.salt, expiry, &insert);
    for part in parts {
        let part = bench.maker.transaction(vec![part]);
        assert!(bench.block(vec![part])[0].is_ok());
    }
    let whole = Transaction { statements: vec![whole], ..transaction };
    assert!(bench.block(vec![whole])[0].is_ok());
    bench.check();
}

#[test]
fn a_block_that_had_to_run_again_is_committed_as_it_ran_last() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
         INSERT INTO t SELECT i, i FROM n";
    let script = [
        "CREATE TABLE u(id INTEGER PRIMARY KEY); INSERT INTO u VALUES (1)",
        endless,
        "INSERT INTO t(v) VALUES ('after')",
    ];
    let transactions = script.map(|script| bench.maker.sql(script)).to_vec();
    let codes = bench.block(transactions).into_iter().map(|outcome| outcome.is_ok());
    assert_eq!(codes.collect::<Vec<_>>(), [true, false, true]);
    bench.run("INSERT INTO u VALUES (2)");
    bench.check();
}

#[test]
fn a_crash_or_an_end_forgets_what_was_executed_ahead() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for round in 0..3 {
        let insert = bench.maker.sql(&format!("INSERT INTO t(v) VALUES ({round})"));
        let block = bench.maker.block(vec![insert]);
        let before = bench.right.seen();
        bench.right.state.ahead(&block).unwrap();
        let maker = &bench.maker;
        bench.right.reopen(maker);
        assert!(!bench.right.state.is_ahead());
        assert_eq!(bench.right.seen(), before);
        bench.apply(&block);
    }
    bench.check();
}

#[test]
fn the_newest_of_several_blocks_of_one_height_counts_and_other_heights_are_let_be() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let insert = bench.maker.sql("INSERT INTO t(v) VALUES ('one')");
    let block = bench.maker.block(vec![insert]);
    let other = bench.another(&block);
    let far = Block {
        header: rota_core::block::Header {
            height: Height(block.header.height.0 + 1),
            ..block.header.clone()
        },
        ..block.clone()
    };
    let state = &mut bench.right.state;
    state.ahead(&far).unwrap();
    assert!(!state.is_ahead());
    for ahead in [&block, &block, &other, &far, &other, &block] {
        state.ahead(ahead).unwrap();
        assert!(state.is_ahead());
    }
    bench.apply(&block);
    bench.right.state.ahead(&block).unwrap();
    assert!(!bench.right.state.is_ahead(), "it is final");
    bench.check();
}

#[test]
fn a_block_that_takes_its_transaction_with_it_does_not_take_those_that_are_held_in_it() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    bench.commit();
    bench.run("CREATE TABLE u(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO u VALUES (7)");
    bench.run("INSERT INTO t(v) VALUES ('held')");
    assert_eq!(bench.held, 2);
    let before = bench.late.state.applied();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
         INSERT INTO t SELECT i + 9, i FROM n";
    let script = ["INSERT INTO u VALUES (NULL)", endless, "INSERT INTO t(v) VALUES ('after')"];
    let transactions = script.map(|script| bench.maker.sql(script)).to_vec();
    let did = bench.block(transactions).into_iter().map(|outcome| outcome.is_ok());
    assert_eq!(did.collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(bench.late.state.applied().height.0, before.height.0 + 3);
    bench.run("INSERT INTO u VALUES (NULL)");
    bench.check();
}

#[test]
fn a_crash_takes_what_is_held_and_it_is_executed_again() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    bench.commit();
    let mut blocks = Vec::new();
    for round in 0..2 {
        let insert = bench.maker.sql(&format!("INSERT INTO t(v) VALUES ({round})"));
        blocks.push(Arc::new(bench.maker.block(vec![insert])));
    }
    for block in &blocks {
        bench.late.state.hold(block).unwrap();
    }
    bench.late.reopen(&bench.maker);
    assert_eq!(bench.late.seen(), bench.late_shows);
    // A block ahead stands in a transaction of its own.
    bench.late.state.hold(&blocks[0]).unwrap();
    bench.late.state.ahead(&blocks[1]).unwrap();
    assert_eq!(bench.late.state.applied().height, blocks[0].header.height);
    bench.late.state.hold(&blocks[1]).unwrap();
    assert_eq!(bench.late.state.executed().height, blocks[1].header.height);
    assert_eq!(bench.late.state.rescan().unwrap().root, bench.late.state.executed().root);
    assert_eq!(bench.late.state.applied().height, blocks[1].header.height);
}

#[test]
fn a_rescan_and_a_copy_of_the_log_know_nothing_of_a_block_ahead() {
    let mut bench = Bench::new();
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let insert = bench.maker.sql("INSERT INTO t(v) VALUES ('one')");
    let block = bench.maker.block(vec![insert]);
    let state = &mut bench.right.state;
    let applied = state.applied();
    state.ahead(&block).unwrap();
    state.copy_log().unwrap();
    assert!(state.is_ahead());
    assert_eq!(state.rescan().unwrap().root, applied.root);
    assert!(!state.is_ahead());
    bench.apply(&block);
    bench.check();
}

#[test]
fn ids_that_expire_and_roots_that_are_kept_go_with_their_block() {
    let mut maker = Maker::new(genesis_with(rota_core::genesis::Parameters::default()));
    maker.time = Time(maker.time.0 + 1);
    let mut bench = Bench::with(maker);
    bench.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for round in 0..4 {
        bench.run(&format!("INSERT INTO t(v) VALUES ({round})"));
        // Envelopes are in time for a minute.
        bench.maker.time = Time(bench.maker.time.0 + 70_000);
    }
    bench.check();
}

#[test]
fn hostile_blocks_are_the_same_whatever_was_executed_ahead() {
    let mut bench = Bench::new();
    bench.run(&world());
    for entry in entries() {
        let who = if entry.is_setup() { ADMINISTRATOR } else { &entry.who };
        let transaction = bench.maker.transaction(statements(&entry.script));
        bench.block(vec![Transaction { user: who.into(), ..transaction }]);
    }
    bench.check();
}

#[test]
fn what_changes_users_or_grants_is_committed_before_anybody_is_told() {
    let mut bench = Bench::new();
    for (script, expected) in [
        ("CREATE TABLE t(v)", true),
        ("INSERT INTO t VALUES ('one')", true),
        ("CREATE USER alice; GRANT SELECT ON t TO alice", false),
        ("DELETE FROM t", true),
        ("REVOKE SELECT ON t FROM alice", false),
    ] {
        let transaction = bench.maker.sql(script);
        let block = Arc::new(bench.maker.block(vec![transaction]));
        let state = &mut bench.late.state;
        state.hold(&block).unwrap();
        assert_eq!(state.may_be_told().unwrap(), expected, "{script}");
        state.commit().unwrap();
        assert!(state.may_be_told().unwrap(), "{script}");
    }
}
