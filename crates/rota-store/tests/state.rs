//! What blocks do to `state.db`: results, receipts, ids, expiry, restarts.

mod support;

use rota_core::error::Fault;
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Expiry, Interactive, Transaction, Value};
use rota_core::types::{Digest, Height};
use rota_store::{DifferingRow, StateDb};
use support::Pair;

#[test]
fn a_block_changes_rows_and_the_root_follows() {
    let mut pair = Pair::new();
    let empty = pair.warm.applied().root;
    pair.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, r REAL)");
    let results = pair.run("INSERT INTO t(a, r) VALUES ('x', 1), ('y', 2.5) RETURNING id, a");
    assert_eq!(results[0].rows_affected, 2);
    assert_eq!(results[0].last_insert_rowid, 2);
    assert_eq!(results[0].rows.rows.len(), 2);
    pair.run("UPDATE t SET r = 3 WHERE id = 1; DELETE FROM t WHERE id = 2");
    assert_ne!(pair.warm.applied().root, empty);
    pair.check();
}

#[test]
fn a_transaction_is_applied_once_whatever_is_sent_again() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a)");
    let once = pair.maker.sql("INSERT INTO t VALUES (1)");
    let fails = pair.maker.sql("INSERT INTO nowhere VALUES (1)");
    let envelope = pair.maker.envelope(1, vec![once.clone(), fails, once]);
    let block = pair.maker.block_of(vec![envelope.clone(), envelope.clone()]);
    let receipts = pair.apply(&block).unwrap().receipts;
    let places: Vec<(u32, bool)> =
        receipts.iter().map(|receipt| (receipt.index, receipt.outcome.is_ok())).collect();
    assert_eq!(places, [(0, true), (1, false)]);
    let again = pair.maker.block_of(vec![envelope]);
    assert_eq!(pair.apply(&again).unwrap().receipts, []);
    assert_eq!(pair.rows("SELECT count(*) FROM t")[0], [Value::Integer(1)]);
    pair.check();
}

#[test]
fn what_is_remembered_gives_the_receipts_that_a_crash_took() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a PRIMARY KEY)");
    let twice = ["INSERT INTO t VALUES (1)"; 2].map(|sql| pair.maker.sql(sql)).to_vec();
    let envelope = pair.maker.envelope(1, twice);
    let block = pair.maker.block_of(vec![envelope]);
    let given = pair.apply(&block).unwrap().receipts;
    let before = rota_core::types::Height(block.header.height.0 - 1);
    let kept = pair.warm.remembered_after(before).unwrap();
    let short = |receipts: &[rota_store::Receipt]| -> Vec<_> {
        let code = |receipt: &rota_store::Receipt| {
            receipt.outcome.as_ref().err().map(|refusal| refusal.code().to_owned())
        };
        receipts.iter().map(|r| (r.id, r.height, r.index, code(r))).collect()
    };
    assert_eq!(short(&kept), short(&given));
    assert_eq!(kept[1].outcome.as_ref().unwrap_err().code(), "23505");
    assert!(pair.warm.remembered_after(block.header.height).unwrap().is_empty());
}

#[test]
fn ids_are_forgotten_once_they_have_expired() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let count = "SELECT count(*) FROM rota_transactions";
    assert_eq!(pair.rows(count)[0], [Value::Integer(1)]);
    pair.maker.time = pair.maker.time.plus(std::time::Duration::from_secs(61));
    assert_eq!(pair.rows(count)[0], [Value::Integer(0)]);
    pair.check();
}

#[test]
fn what_must_not_be_run_is_not() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a)");
    let insert = "INSERT INTO t VALUES (1)";
    let late = pair.maker.sql(insert);
    let late = pair.maker.envelope(1, vec![late]);
    pair.maker.time = pair.maker.time.plus(std::time::Duration::from_secs(61));
    let stranger = pair.maker.sql(insert);
    let stranger = pair.maker.envelope(9, vec![stranger]);
    let mut user = pair.maker.sql(insert);
    user.user = "mallory".into();
    let mut interactive = pair.maker.sql(insert);
    interactive.interactive =
        Some(Interactive { begun: Time(1), seen: Digest::default(), values: Vec::new() });
    let others = pair.maker.envelope(1, vec![user, interactive]);
    let height = Height(pair.maker.height.0 + 10_000_000);
    let expiry = Expiry { height, time: pair.maker.time };
    let far = vec![pair.maker.sql(insert)];
    let far = Envelope::sign(pair.genesis().chain_id(), &support::key(1), expiry, far);
    let block = pair.maker.block_of(vec![late, stranger, others, far.into()]);
    let receipts = pair.apply(&block).unwrap().receipts;
    let codes: Vec<String> = receipts
        .iter()
        .map(|receipt| receipt.outcome.as_ref().unwrap_err().code().to_owned())
        .collect();
    assert_eq!(codes, ["40001", "42501", "42501", "40001", "40001"]);
    assert!(pair.rows("SELECT * FROM t").is_empty());
}

#[test]
fn what_a_stranger_signed_is_not_remembered_and_is_run_once_at_the_most() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a); CREATE USER alice; GRANT INSERT ON t TO alice");
    let stranger = 9;
    let transaction = pair.maker.sql("INSERT INTO t VALUES (1)");
    let transaction = Transaction { user: "alice".into(), ..transaction };
    let envelope = pair.maker.envelope(stranger, vec![transaction]);
    let again = |pair: &mut Pair| -> Vec<Option<String>> {
        let block = pair.maker.block_of(vec![envelope.clone()]);
        let receipts = pair.apply(&block).unwrap().receipts;
        let code = |refusal: rota_core::error::Refusal| refusal.code().to_owned();
        receipts.into_iter().map(|receipt| receipt.outcome.err().map(code)).collect()
    };
    let before = pair.warm.applied().height;
    assert_eq!(again(&mut pair), [Some("42501".into())]);
    assert_eq!(again(&mut pair), [Some("42501".into())]);
    assert!(pair.warm.remembered_after(before).unwrap().is_empty());
    let key = rota_store::access::text_of(&support::key(stranger).public());
    pair.run(&format!("ALTER USER alice KEY '{key}'"));
    assert_eq!(again(&mut pair), [None], "asked for until it expires");
    assert_eq!(again(&mut pair), []);
    pair.run("ALTER USER alice KEY NULL");
    assert_eq!(again(&mut pair), []);
    assert_eq!(pair.rows("SELECT count(*) FROM t")[0], [Value::Integer(1)]);
    pair.check();
}

#[test]
fn a_file_of_another_database_is_refused_and_a_gap_too() {
    let home = tempfile::tempdir().unwrap();
    drop(StateDb::open(home.path(), &support::genesis()).unwrap());
    let mut other = support::genesis();
    other.name = "another".into();
    assert!(matches!(StateDb::open(home.path(), &other), Err(Fault::WrongFiles(_))));
    let mut pair = Pair::new();
    pair.maker.block(vec![]);
    let second = pair.maker.block(vec![]);
    assert!(pair.apply(&second).is_err());
}

#[test]
fn a_row_changed_behind_our_back_is_named() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(k TEXT PRIMARY KEY, a); INSERT INTO t VALUES ('x', 1), ('y', 2)");
    let path = pair.home().join("state.db");
    rusqlite::Connection::open(path)
        .unwrap()
        .execute("UPDATE t SET a = 3 WHERE k = 'y'", [])
        .unwrap();
    let rescan = pair.warm.rescan().unwrap();
    assert_eq!(rescan.differing, [DifferingRow { table: "t".into(), key: "'y'".into() }]);
    assert_ne!(rescan.root, pair.warm.applied().root);
    let transaction = pair.maker.sql("DELETE FROM t WHERE k = 'y'");
    let block = pair.maker.block(vec![transaction]);
    let fault = pair.warm.apply(&block).unwrap_err();
    assert!(
        matches!(&fault, Fault::Diverged(what) if what.contains("table t") && what.contains("'y'")),
        "{fault}"
    );
}

#[test]
fn random_work_keeps_leaves_and_rows_together() {
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        let mut pair = Pair::new();
        for round in 0..25 {
            let transactions = (0..6).map(|_| pair.maker.sql(&dice.script())).collect();
            pair.block(transactions);
            if round % 5 == 4 {
                pair.check();
            }
        }
    }
}

/// A small generator of numbers (xorshift64*), and of SQL from them.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let sides = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.roll(sides)).unwrap()]
    }

    fn script(&mut self) -> String {
        let count = 1 + self.roll(3);
        (0..count).map(|_| self.sql()).collect::<Vec<_>>().join(";")
    }

    fn value(&mut self) -> String {
        let number = self.roll(12);
        match self.roll(6) {
            0 => "NULL".into(),
            1 => format!("{number}.5"),
            2 => format!("'{number}'"),
            3 => format!("x'0{}'", number % 10),
            _ => number.to_string(),
        }
    }

    fn sql(&mut self) -> String {
        let table = self.pick(&["a", "b", "c"]);
        let (x, y, z) = (self.value(), self.value(), self.value());
        let number = self.roll(12);
        match self.roll(24) {
            0 => format!(
                "CREATE TABLE IF NOT EXISTS {table}(x INTEGER PRIMARY KEY, y REAL, z UNIQUE)"
            ),
            1 => format!("CREATE TABLE IF NOT EXISTS {table}(x TEXT PRIMARY KEY, y REAL, z)"),
            2 => format!(
                "CREATE TABLE IF NOT EXISTS {table}(x, y REAL, z, PRIMARY KEY (z, x)) WITHOUT ROWID"
            ),
            3 => format!(
                "CREATE TABLE IF NOT EXISTS {table}(x INTEGER PRIMARY KEY AUTOINCREMENT,
            y, z DEFAULT (random()))"
            ),
            4 => format!("DROP TABLE IF EXISTS {table}"),
            5 => format!("ALTER TABLE {table} RENAME TO {}", self.pick(&["a", "b", "c"])),
            6 => format!("ALTER TABLE {table} ADD COLUMN w{number} REAL DEFAULT {number}"),
            7 => format!("ALTER TABLE {table} DROP COLUMN w{number}"),
            8 => format!(
                "CREATE TRIGGER r{number} AFTER {} ON {table}
            BEGIN DELETE FROM {} WHERE x = {x}; END",
                self.pick(&["INSERT", "UPDATE", "DELETE"]),
                self.pick(&["a", "b", "c"])
            ),
            9 => format!("CREATE UNIQUE INDEX IF NOT EXISTS i{number} ON {table}(y)"),
            10 | 11 => format!(
                "UPDATE OR {} {table} SET x = {x}, y = {y} WHERE z > {z}",
                self.pick(&["REPLACE", "IGNORE", "FAIL"])
            ),
            12 | 13 => format!("UPDATE {table} SET y = {y} WHERE x = {x}"),
            14 => format!("DELETE FROM {table} WHERE x > {x}"),
            15 => format!("DELETE FROM {table}"),
            16 => format!(
                "INSERT INTO {table}(x, y, z) SELECT y, x, z FROM {}",
                self.pick(&["a", "b", "c"])
            ),
            17 => format!(
                "INSERT INTO {table}(x, y, z) VALUES ({x}, {y}, {z})
            ON CONFLICT DO UPDATE SET y = {y}"
            ),
            _ => format!(
                "{} INTO {table}(x, y, z) VALUES ({x}, {y}, {z})",
                self.pick(&["INSERT", "INSERT OR IGNORE", "REPLACE", "INSERT OR FAIL"])
            ),
        }
    }
}
