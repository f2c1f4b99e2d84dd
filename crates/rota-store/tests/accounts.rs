//! Accounts under `pow`, as every server decides them when a block is applied: rewards, fees,
//! transfers, and who may write what in a cluster that everybody may join.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::block::{Block, Turn};
use rota_core::error::Refusal;
use rota_core::genesis::{Administrator, Genesis, Method, Pow};
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Settings, Transaction, Value};
use rota_core::types::Height;
use rota_store::accounts::{Purses, account_of};
use rota_store::chain_db::ChainDb;
use rota_store::draft::{Begin, Draft, Drafts, Stop, Until};
use rota_store::{ReadLimits, Reader, StatementResult};
use support::{Outcome, Pair, genesis, key, statement};

/// Who finds all blocks, unless a test says otherwise.
const MINER: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;
const NOBODY: u8 = 4;

/// The administrator of the genesis, with a key.
const ROOT: u8 = 101;

const REWARD: u64 = 1_000;

fn account(number: u8) -> String {
    account_of(&key(number).public())
}

fn pow(fee_per_kb: u64) -> Genesis {
    let root = Administrator { key: Some(key(ROOT).public()), ..Administrator::open("root") };
    Genesis {
        method: Method::Pow,
        pow: Some(Pow { reward: REWARD, fee_per_kb, ..Pow::default() }),
        members: Vec::new(),
        trusted_servers: false,
        administrators: vec![root],
        ..genesis()
    }
}

/// Two servers under `pow`. After every block all balances are what all finders were paid.
struct Bench {
    pair: Pair,
    drafts: Arc<Drafts>,
    salt: u8,
}

impl Bench {
    fn new(fee_per_kb: u64) -> Self {
        let pair = Pair::with(pow(fee_per_kb));
        let drafts = Drafts::new(&pair.home(), pair.genesis(), pair.warm.access());
        Self { pair, drafts, salt: 0 }
    }

    /// One in which the first key has found this many blocks.
    fn mined(fee_per_kb: u64, blocks: u64) -> Self {
        let mut bench = Self::new(fee_per_kb);
        for _ in 0..blocks {
            bench.apply(Vec::new());
        }
        bench
    }

    fn apply(&mut self, envelopes: Vec<Arc<Envelope>>) -> Vec<Outcome> {
        let block = self.pair.maker.block_of(envelopes);
        self.apply_block(&block)
    }

    fn apply_block(&mut self, block: &Block) -> Vec<Outcome> {
        let applied = self.pair.apply(block).unwrap();
        self.pair.check();
        let found = i64::try_from(self.pair.maker.height.0 * REWARD).unwrap();
        assert_eq!(self.integer("SELECT coalesce(sum(balance), 0) FROM rota_accounts"), found);
        assert_eq!(self.integer("SELECT count(*) FROM rota_accounts WHERE balance <= 0"), 0);
        applied.receipts.into_iter().map(|receipt| receipt.outcome).collect()
    }

    fn as_user(&mut self, user: &str, script: &str) -> Transaction {
        let transaction = self.pair.maker.sql(script);
        Transaction { user: user.into(), ..transaction }
    }

    /// In a block of its own, signed by a key.
    fn send(&mut self, signer: u8, user: &str, script: &str) -> Outcome {
        let transaction = self.as_user(user, script);
        let envelope = self.pair.maker.envelope(signer, vec![transaction]);
        self.apply(vec![envelope]).remove(0)
    }

    /// `ok`, or the SQLSTATE, in the name of a key's own account.
    fn code(&mut self, signer: u8, script: &str) -> String {
        code(&self.send(signer, &account(signer), script))
    }

    #[track_caller]
    fn all(&mut self, signer: u8, table: &[(&str, &str)]) {
        for (script, want) in table {
            assert_eq!(self.code(signer, script), *want, "{signer}: {script}");
        }
    }

    fn administer(&mut self, script: &str) {
        let done = self.send(ROOT, "root", script);
        done.unwrap_or_else(|refusal| panic!("{script}: {refusal}"));
    }

    /// Gives some of the first key's balance to another, who then has that.
    fn endow(&mut self, number: u8, amount: i64) {
        let fee = i64::try_from(self.pair.genesis().pow.as_ref().unwrap().fee_per_kb).unwrap();
        let before = (self.balance(MINER), self.balance(number));
        let script = format!("SELECT rota_transfer('{}', {amount})", account(number));
        assert_eq!(self.code(MINER, &script), "ok");
        let after = (self.balance(MINER), self.balance(number));
        // The fee is the miner's own, and comes back to it.
        assert!(fee <= before.0);
        assert_eq!(after, (before.0 - amount + 1_000, before.1 + amount));
    }

    fn integer(&self, query: &str) -> i64 {
        let connection = rusqlite::Connection::open(self.pair.home().join("state.db")).unwrap();
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    fn balance(&self, number: u8) -> i64 {
        let account = account(number);
        self.integer(&format!(
            "SELECT coalesce(sum(balance), 0) FROM rota_accounts WHERE account = '{account}'"
        ))
    }

    fn begin(&mut self, number: u8, unfinal: Vec<Arc<Block>>) -> Open {
        self.salt += 1;
        let salt = [self.salt; 16];
        let begin = Begin {
            id: Transaction::id_of(self.pair.genesis().chain_id(), key(number).public(), &salt),
            user: account(number),
            begun: Time(self.pair.maker.time.0 + 7),
            settings: Settings::default(),
            read_only: false,
            at_least: Height(self.pair.maker.height.0 - unfinal.len() as u64),
            unfinal,
        };
        Open { draft: self.drafts.begin(begin).unwrap(), number, salt }
    }

    /// COMMIT: `ok`, or the SQLSTATE.
    fn commit(&mut self, open: Open) -> String {
        let finished = open.draft.finish().unwrap().expect("something was written");
        let transaction = Transaction {
            salt: open.salt,
            user: account(open.number),
            statements: finished.statements,
            settings: Settings::default(),
            interactive: Some(finished.interactive),
        };
        let envelope = self.pair.maker.envelope(open.number, vec![transaction]);
        code(&self.apply(vec![envelope])[0])
    }
}

/// A transaction that is open.
struct Open {
    draft: Draft,
    number: u8,
    salt: [u8; 16],
}

impl Open {
    fn try_run(&mut self, sql: &str) -> Result<StatementResult, Refusal> {
        match self.draft.run(statement(sql, &[]), &Until::default()) {
            Ok(result) => Ok(result),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(stop) => panic!("{sql}: {stop:?}"),
        }
    }

    /// The tag, or the SQLSTATE.
    fn run(&mut self, sql: &str) -> String {
        match self.try_run(sql) {
            Ok(result) => result.kind.tag(result.rows_affected),
            Err(refusal) => refusal.code().to_owned(),
        }
    }

    fn balance(&mut self, number: u8) -> i64 {
        let account = account(number);
        let query = format!("SELECT balance FROM rota_accounts WHERE account = '{account}'");
        match self.try_run(&query).unwrap().rows.rows.first().map(|row| &row[0]) {
            Some(Value::Integer(balance)) => *balance,
            None => 0,
            other => panic!("{other:?}"),
        }
    }
}

fn code(outcome: &Outcome) -> String {
    outcome.as_ref().map_or_else(|refusal| refusal.code().to_owned(), |_| "ok".into())
}

fn transfer(to: u8, amount: i64) -> String {
    format!("SELECT rota_transfer('{}', {amount})", account(to))
}

#[test]
fn who_finds_a_block_is_paid_before_its_transactions() {
    let mut bench = Bench::new(0);
    // It may spend at once what it has found.
    assert_eq!(bench.code(MINER, &transfer(ALICE, 1_000)), "ok");
    assert_eq!((bench.balance(MINER), bench.balance(ALICE)), (0, 1_000));
    bench.pair.maker.turn = Turn::Found { miner: key(BOB).public() };
    bench.apply(Vec::new());
    assert_eq!((bench.balance(MINER), bench.balance(BOB)), (0, 1_000));
}

#[test]
fn a_fee_is_taken_first_and_kept_when_the_transaction_fails() {
    let mut bench = Bench::mined(10, 3);
    bench.endow(ALICE, 100);
    let miner = bench.balance(MINER);
    assert_eq!(bench.code(ALICE, "CREATE TABLE t(a UNIQUE)"), "ok");
    assert_eq!((bench.balance(ALICE), bench.balance(MINER)), (90, miner + 1_010));
    assert_eq!(bench.code(ALICE, "INSERT INTO t VALUES (1), (1)"), "23505");
    assert_eq!((bench.balance(ALICE), bench.balance(MINER)), (80, miner + 2_020));
    // All that is left is the fee: what the transaction would spend of it is gone already.
    assert_eq!(bench.code(ALICE, &transfer(BOB, 71)), "P0001");
    assert_eq!(bench.code(ALICE, &transfer(BOB, 60)), "ok");
    assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (0, 60));
    // More than a kilobyte costs as much again.
    let long = format!("INSERT INTO t VALUES ('{}')", "x".repeat(2_000));
    bench.endow(ALICE, 100);
    assert_eq!(bench.code(ALICE, &long), "ok");
    assert_eq!(bench.balance(ALICE), 70);
}

#[test]
fn who_cannot_pay_is_skipped_and_may_come_back() {
    let mut bench = Bench::mined(10, 2);
    let create = bench.as_user(&account(ALICE), "CREATE TABLE t(a)");
    let envelope = bench.pair.maker.envelope(ALICE, vec![create]);
    let skipped = bench.apply(vec![Arc::clone(&envelope)]).remove(0).unwrap_err();
    assert_eq!(skipped.code(), "P0001");
    assert!(skipped.message.starts_with("not executed: the account of ed25519:"), "{skipped}");
    // Nothing is remembered of it: neither in the state ...
    assert_eq!(bench.integer("SELECT count(*) FROM rota_transactions"), 0);
    bench.endow(ALICE, 15);
    // ... nor so that it could not be executed once its signer can pay: once.
    assert!(bench.apply(vec![Arc::clone(&envelope)])[0].is_ok());
    assert_eq!(bench.balance(ALICE), 5);
    assert_eq!(bench.apply(vec![envelope]), []);
    assert_eq!(bench.balance(ALICE), 5);
}

#[test]
fn what_stands_in_a_block_once_more_or_too_late_costs_nothing() {
    let mut bench = Bench::mined(10, 2);
    bench.endow(ALICE, 100);
    let fails = bench.as_user(&account(ALICE), "INSERT INTO missing VALUES (1)");
    let late = bench.as_user(&account(ALICE), "CREATE TABLE late(a)");
    let fails = bench.pair.maker.envelope(ALICE, vec![fails]);
    let late = bench.pair.maker.envelope(ALICE, vec![late]);
    assert_eq!(code(&bench.apply(vec![Arc::clone(&fails), Arc::clone(&fails)])[0]), "42P01");
    assert_eq!(bench.balance(ALICE), 90);
    assert_eq!(bench.apply(vec![Arc::clone(&fails)]), []);
    bench.pair.maker.time = Time(bench.pair.maker.time.0 + 100_000);
    for _ in 0..3 {
        let again = bench.apply(vec![Arc::clone(&fails), Arc::clone(&late)]);
        // Its id may be forgotten by now; it has expired all the same.
        assert!(again.iter().all(|outcome| code(outcome) == "40001"), "{again:?}");
        assert!(!again.is_empty());
    }
    assert_eq!(bench.balance(ALICE), 90);
}

#[test]
fn a_block_that_is_run_again_takes_each_fee_once() {
    let mut bench = Bench::mined(10, 2);
    bench.endow(ALICE, 500);
    assert_eq!(bench.code(ALICE, "CREATE TABLE t(a)"), "ok");
    let endless = "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c)
        SELECT 1 FROM c";
    let (before, miner) = (bench.balance(ALICE), bench.balance(MINER));
    let first = bench.as_user(&account(ALICE), &transfer(BOB, 7));
    let breaks_out = bench.as_user(&account(ALICE), endless);
    let last = bench.as_user(&account(ALICE), &transfer(BOB, 5));
    let envelope = bench.pair.maker.envelope(ALICE, vec![first, breaks_out, last]);
    let outcomes = bench.apply(vec![envelope]);
    assert!(outcomes[0].is_ok() && outcomes[1].is_err());
    let paid = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let sent = if paid == 2 { 12 } else { 7 };
    assert_eq!(bench.balance(ALICE), before - 30 - sent);
    assert_eq!((bench.balance(MINER), bench.balance(BOB)), (miner + 1_030, sent));
}

#[test]
fn nobody_signs_for_anothers_account_and_pays_for_the_attempt() {
    let mut bench = Bench::mined(10, 2);
    bench.endow(ALICE, 100);
    bench.endow(BOB, 100);
    for user in [account(ALICE), "root".into(), "rota".into(), account(9), "public".into()] {
        assert_eq!(code(&bench.send(BOB, &user, &transfer(BOB, 50))), "42501", "{user}");
    }
    let upper = account(BOB).replace("ed25519:", "ED25519:");
    assert_eq!(code(&bench.send(BOB, &upper, "SELECT 1")), "42501");
    assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (100, 40));
    // The account of an administrator's key is not the administrator.
    bench.endow(ROOT, 100);
    assert_eq!(code(&bench.send(ROOT, &account(ROOT), "CREATE USER x")), "42501");
    assert_eq!(code(&bench.send(ROOT, "root", "CREATE USER x")), "ok");
    // Its name has no account of its own: what it sends comes from that of its key.
    assert_eq!(code(&bench.send(ROOT, "root", &transfer(BOB, 30))), "ok");
    assert_eq!((bench.balance(ROOT), bench.balance(BOB)), (40, 70));
}

#[test]
fn without_a_fee_writing_needs_a_grant_and_transfers_a_balance() {
    let mut bench = Bench::mined(0, 3);
    bench.administer("CREATE TABLE t(a); CREATE TABLE u(a)");
    let create = bench.as_user(&account(ALICE), "SELECT 1");
    let envelope = bench.pair.maker.envelope(ALICE, vec![create]);
    let skipped = bench.apply(vec![Arc::clone(&envelope)]).remove(0).unwrap_err();
    assert_eq!(skipped.code(), "42501");
    assert!(skipped.message.starts_with("not executed: "), "{skipped}");
    // Keys cost nothing: neither does what they sign cost anybody anything.
    let remembered = "SELECT coalesce(sum(length(outcomes)), 0) FROM rota_transactions";
    let before = bench.integer(remembered);
    assert_eq!(bench.apply(vec![envelope]).len(), 1);
    assert_eq!(bench.integer(remembered), before);
    bench.endow(ALICE, 50);
    bench.all(
        ALICE,
        &[
            ("CREATE TABLE mine(a)", "42501"),
            ("INSERT INTO t VALUES (1)", "42501"),
            ("SELECT * FROM t", "42501"),
            ("SELECT count(*) FROM rota_accounts", "ok"),
            ("SELECT rota_nextval('x')", "42501"),
            (&transfer(BOB, 20), "ok"),
        ],
    );
    bench.administer(&format!("GRANT INSERT, SELECT ON t TO \"{}\"", account(NOBODY)));
    bench.all(
        NOBODY,
        &[
            ("INSERT INTO t VALUES (1)", "ok"),
            ("INSERT INTO u SELECT * FROM t", "42501"),
            ("DELETE FROM t", "42501"),
            (&transfer(BOB, 1), "P0001"),
        ],
    );
    bench.administer(&format!("REVOKE ALL ON t FROM \"{}\"", account(NOBODY)));
    assert_eq!(bench.code(NOBODY, "INSERT INTO t VALUES (1)"), "42501");
    bench.administer(&format!(
        "CREATE ROLE writers; GRANT ALL ON ALL TO writers; GRANT writers TO \"{}\"",
        account(NOBODY)
    ));
    bench.all(NOBODY, &[("DELETE FROM t", "ok"), ("CREATE TABLE made(a)", "ok")]);
    bench.administer("GRANT INSERT ON u TO PUBLIC");
    assert_eq!(bench.code(9, "INSERT INTO u VALUES (9)"), "ok");
}

#[test]
fn with_a_fee_everybody_has_the_tables_that_it_makes_and_no_others() {
    let mut bench = Bench::mined(1, 3);
    for number in [ALICE, BOB, ROOT] {
        bench.endow(number, 300);
    }
    bench.administer("CREATE TABLE common(a)");
    let serial = "CREATE TABLE numbered(id BIGINT PRIMARY KEY DEFAULT (rota_nextval('n')), a)";
    bench.all(
        ALICE,
        &[
            (serial, "ok"),
            ("INSERT INTO numbered(a) VALUES (1)", "ok"),
            ("CREATE TABLE mine(id INTEGER PRIMARY KEY, a)", "ok"),
            ("CREATE INDEX mine_a ON mine(a)", "ok"),
            ("INSERT INTO mine VALUES (1, 1)", "ok"),
            ("CREATE TABLE IF NOT EXISTS common(a)", "ok"),
            ("INSERT INTO common VALUES (1)", "42501"),
            ("SELECT * FROM common", "42501"),
            ("DROP TABLE common", "42501"),
            ("ALTER TABLE common ADD COLUMN b", "42501"),
            ("CREATE INDEX common_a ON common(a)", "42501"),
            ("CREATE TRIGGER x AFTER INSERT ON common BEGIN SELECT 1; END", "42501"),
            ("CREATE USER mallory", "42501"),
            ("GRANT ALL ON common TO PUBLIC", "42501"),
            ("GRANT ALL ON ALL TO PUBLIC", "42501"),
            ("SELECT rota_setval('n', 1000)", "42501"),
        ],
    );
    bench.all(BOB, &[("SELECT * FROM mine", "42501"), ("DROP TABLE mine", "42501")]);
    assert_eq!(bench.code(ALICE, &format!("GRANT SELECT ON mine TO \"{}\"", account(BOB))), "ok");
    bench.all(BOB, &[("SELECT * FROM mine", "ok"), ("DELETE FROM mine", "42501")]);
    let wrong = account(BOB).to_uppercase();
    for grantee in [wrong.as_str(), "ed25519:00", "nobody"] {
        let grant = format!("GRANT SELECT ON mine TO \"{grantee}\"");
        let refused = bench.code(ALICE, &grant);
        assert!(refused == "42704" || refused == "42602", "{grant}: {refused}");
    }
    assert_eq!(bench.code(ALICE, "DROP TABLE mine"), "ok");
    assert_eq!(bench.integer("SELECT count(*) FROM rota_grants WHERE object = 'mine'"), 0);
    // No row of rota_users takes an account's name.
    for script in ["CREATE USER \"$\"", "CREATE USER a; ALTER USER a RENAME TO \"$\""] {
        let script = script.replace('$', &account(BOB));
        assert_eq!(code(&bench.send(ROOT, "root", &script)), "42939", "{script}");
    }
    let alter = format!("ALTER USER \"{}\" ADMINISTRATOR", account(BOB));
    assert_eq!(code(&bench.send(ROOT, "root", &alter)), "42704");
}

#[test]
fn a_cluster_without_administrators_has_grants_all_the_same() {
    let administrators = vec![Administrator::open("root")];
    let mut pair = Pair::with(Genesis { administrators, ..pow(1) });
    let script = format!("CREATE TABLE t(a); GRANT SELECT ON t TO \"{}\"", account(BOB));
    let transaction = Transaction { user: account(MINER), ..pair.maker.sql(&script) };
    let envelope = pair.maker.envelope(MINER, vec![transaction]);
    let block = pair.maker.block_of(vec![envelope]);
    assert_eq!(code(&pair.apply(&block).unwrap().receipts[0].outcome), "ok");
}

#[test]
fn transfers_that_cannot_be_move_nothing() {
    let mut bench = Bench::mined(0, 1);
    bench.endow(ALICE, 100);
    let to = account(BOB);
    for (sql, want) in [
        ("SELECT rota_transfer('$', 101)", "P0001"),
        ("SELECT rota_transfer('$', 9223372036854775807)", "P0001"),
        ("SELECT rota_transfer('$', 0)", "22023"),
        ("SELECT rota_transfer('$', -5)", "22023"),
        ("SELECT rota_transfer('$', -9223372036854775808)", "22023"),
        ("SELECT rota_transfer('$', 1.0)", "22023"),
        ("SELECT rota_transfer('$', '1.0')", "22023"),
        ("SELECT rota_transfer('$', NULL)", "22023"),
        ("SELECT rota_transfer('$', x'31')", "22023"),
        ("SELECT rota_transfer(NULL, 1)", "22023"),
        ("SELECT rota_transfer('', 1)", "22023"),
        ("SELECT rota_transfer('$0', 1)", "22023"),
        ("SELECT rota_transfer('root', 1)", "22023"),
        ("SELECT rota_transfer('ed25519:ed25519:', 1)", "22023"),
        ("SELECT rota_transfer('$')", "42883"),
        ("SELECT rota_transfer('$', 60) UNION ALL SELECT rota_transfer('$', 41)", "P0001"),
        ("SELECT rota_transfer('$', 60), 1 IN (SELECT abs(-9223372036854775808))", "22003"),
        ("SELECT rota_transfer('$', 60); SELECT rota_transfer('$', 41)", "P0001"),
        ("SELECT rota_transfer('$', 60); SELECT * FROM missing", "42P01"),
    ] {
        let found = bench.code(ALICE, &sql.replace('$', &to));
        assert!(found == want || want == "22003" && found != "ok", "{sql}: {found}");
        assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (100, 0), "{sql}");
    }
}

#[test]
fn a_transfer_may_stand_wherever_a_statement_may_call_a_function() {
    let mut bench = Bench::mined(1, 1);
    bench.endow(ALICE, 200);
    let hex = account(BOB).replace("ed25519:", "");
    assert_eq!(bench.code(ALICE, "CREATE TABLE t(a, b)"), "ok");
    let mut got = 0;
    for (sql, amount) in [
        (format!("SELECT rota_transfer('{}', 5)", account(BOB)), 5),
        (format!("SELECT rota_transfer('{hex}', '5')"), 5),
        (format!("SELECT rota_transfer('{}', 5)", hex.to_uppercase()), 5),
        (format!("select\"ROTA_Transfer\"/**/('{hex}', 2 + 3)"), 5),
        (format!("VALUES (rota_transfer('{hex}', 1)), (rota_transfer('{hex}', 2))"), 3),
        (format!("WITH x(n) AS (VALUES (1), (2)) SELECT sum(rota_transfer('{hex}', n)) FROM x"), 3),
        (format!("INSERT INTO t VALUES ('{hex}', rota_transfer('{hex}', 1))"), 1),
        ("UPDATE t SET b = rota_transfer(a, 2) WHERE b = 1".into(), 2),
        ("DELETE FROM t WHERE rota_transfer(a, 1) = 1 RETURNING rota_transfer(a, 1)".into(), 2),
        (format!("SELECT iif(1, 1, rota_transfer('{hex}', 1))"), 0),
    ] {
        let done = bench.send(ALICE, &account(ALICE), &sql);
        assert!(done.is_ok(), "{sql}: {done:?}");
        got += amount;
        assert_eq!(bench.balance(BOB), got, "{sql}");
    }
    // To oneself, all of it: it has to be there, and still is.
    let (all, own) = (bench.balance(ALICE), account(ALICE));
    let more = format!("SELECT rota_transfer('{own}', {all})");
    assert_eq!(bench.code(ALICE, &more), "P0001", "the fee is gone by then");
    let rest = format!("SELECT rota_transfer('{own}', {})", all - 2);
    assert_eq!(bench.code(ALICE, &rest), "ok");
    assert_eq!(bench.balance(ALICE), all - 2);
}

#[test]
fn a_transfer_is_answered_with_its_amount_and_its_statement_sees_what_was_before() {
    let mut bench = Bench::mined(0, 1);
    bench.endow(ALICE, 100);
    let sum = "(SELECT sum(balance) FROM rota_accounts WHERE account = '$')";
    let sum = sum.replace('$', &account(BOB));
    let script = format!("{}, {sum} IS NULL; SELECT {sum}", transfer(BOB, 7));
    let results = bench.send(ALICE, &account(ALICE), &script).unwrap();
    let numbers = |rows: &[i64]| rows.iter().map(|n| Value::Integer(*n)).collect::<Vec<_>>();
    assert_eq!(results[0].rows.rows, [numbers(&[7, 1])]);
    assert_eq!(results[1].rows.rows, [numbers(&[7])]);
}

#[test]
fn nothing_that_stays_in_the_database_can_transfer() {
    let mut bench = Bench::mined(1, 2);
    bench.endow(ALICE, 500);
    let to = account(BOB);
    assert_eq!(bench.code(ALICE, "CREATE TABLE t(a); "), "ok");
    for script in [
        "CREATE VIEW v AS SELECT rota_transfer('$', 1); SELECT * FROM v",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT rota_transfer('$', 1); END;
         INSERT INTO t VALUES (1)",
        "CREATE TABLE d(a, b DEFAULT (rota_transfer('$', 1))); INSERT INTO d(a) VALUES (1)",
        "CREATE TABLE c(a CHECK (rota_transfer('$', a) > 0)); INSERT INTO c VALUES (1)",
        "CREATE TABLE g(a, b AS (rota_transfer('$', a))); INSERT INTO g(a) VALUES (1);
         SELECT * FROM g",
        "CREATE INDEX i ON t(rota_transfer('$', a)); INSERT INTO t VALUES (1)",
        "CREATE INDEX p ON t(a) WHERE rota_transfer('$', a); INSERT INTO t VALUES (1)",
    ] {
        let found = bench.code(ALICE, &script.replace('$', &to));
        assert!(found != "ok" && found != "XX000", "{script}: {found}");
        assert_eq!(bench.balance(BOB), 0, "{script}");
    }
}

#[test]
fn many_transfers_cost_as_much_as_they_take() {
    let mut bench = Bench::mined(0, 1);
    bench.endow(ALICE, 900);
    let many = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT $)
        SELECT count(rota_transfer(printf('%064x', i % 50), 1)) FROM c";
    // Without ORDER BY nobody says which; as in any write.
    assert_eq!(bench.code(ALICE, &many.replace('$', "600")), "0A000");
    let many = many.replace("LIMIT $", "WHERE i < $");
    assert_eq!(bench.code(ALICE, &many.replace('$', "600")), "ok");
    assert_eq!(bench.balance(ALICE), 300);
    let rows = "SELECT count(*) FROM rota_accounts WHERE account GLOB 'ed25519:0000*'";
    assert_eq!(bench.integer(rows), 50);
    let own = many.replace("printf('%064x', i % 50)", &format!("'{}'", account(ALICE)));
    let own = own.replace(", 1))", ", 0 + 1))");
    assert_eq!(bench.code(ALICE, &own.replace('$', "301")), "ok");
    let started = Instant::now();
    let refused =
        bench.code(ALICE, &many.replace("'%064x', i % 50", "'%064x', 1").replace('$', "99999999"));
    assert!(refused == "P0001" || refused == "54001", "{refused}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_open_transaction_transfers_and_takes_it_back_with_its_savepoint() {
    let mut bench = Bench::mined(0, 1);
    bench.endow(ALICE, 100);
    let mut open = bench.begin(ALICE, Vec::new());
    assert_eq!(open.run(&transfer(BOB, 5)), "SELECT 1");
    assert_eq!(open.run("SAVEPOINT a"), "SAVEPOINT");
    assert_eq!(open.run(&transfer(BOB, 20)), "SELECT 1");
    assert_eq!((open.balance(ALICE), open.balance(BOB)), (75, 25));
    assert_eq!(open.run(&transfer(BOB, 90)), "P0001");
    assert_eq!(open.run("ROLLBACK TO a"), "ROLLBACK");
    assert_eq!((open.balance(ALICE), open.balance(BOB)), (95, 5));
    assert_eq!(open.run(&transfer(BOB, 95)), "SELECT 1");
    assert_eq!(open.run(&transfer(BOB, 1)), "P0001");
    assert_eq!(open.run("ROLLBACK TO a"), "ROLLBACK");
    assert_eq!(open.run(&transfer(BOB, 1)), "SELECT 1");
    assert_eq!(bench.balance(BOB), 0, "a draft is nobody else's");
    assert_eq!(bench.commit(open), "ok");
    assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (94, 6));
}

#[test]
fn an_open_transaction_has_paid_the_least_fee_as_it_will_have_where_it_counts() {
    let mut bench = Bench::mined(10, 1);
    bench.endow(ALICE, 100);
    let mut open = bench.begin(ALICE, Vec::new());
    assert_eq!(open.balance(ALICE), 90);
    assert_eq!(open.run(&transfer(BOB, 90)), "SELECT 1");
    assert_eq!(bench.commit(open), "ok");
    assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (0, 90));
    // Who cannot pay sees what it has, and is skipped.
    let mut open = bench.begin(NOBODY, Vec::new());
    assert_eq!((open.balance(NOBODY), open.balance(BOB)), (0, 90));
    assert_eq!(open.run("CREATE TABLE t(a)"), "CREATE TABLE");
    assert_eq!(bench.commit(open), "P0001");
    // A larger one costs more than its draft could know: it is fine as long as it does not look.
    for (looks, want) in [(false, "ok"), (true, "40001")] {
        let mut open = bench.begin(BOB, Vec::new());
        let before = open.balance(ALICE);
        assert_eq!(before, 0);
        if looks {
            open.balance(BOB);
        }
        let create = format!("CREATE TABLE t(a DEFAULT '{}')", "x".repeat(1_000));
        assert_eq!(open.run(&create), "CREATE TABLE");
        assert_eq!(open.run("DROP TABLE t"), "DROP TABLE");
        assert_eq!(bench.commit(open), want);
    }
    assert_eq!(bench.balance(BOB), 50);
}

#[test]
fn what_an_open_transaction_was_shown_of_balances_must_still_be_so() {
    let mut bench = Bench::mined(0, 1);
    bench.endow(ALICE, 100);
    let mut blind = bench.begin(ALICE, Vec::new());
    let mut looks = bench.begin(ALICE, Vec::new());
    let mut spends = bench.begin(ALICE, Vec::new());
    assert_eq!(looks.balance(ALICE), 100);
    for open in [&mut blind, &mut looks] {
        assert_eq!(open.run(&transfer(BOB, 1)), "SELECT 1");
    }
    assert_eq!(spends.run(&transfer(BOB, 100)), "SELECT 1");
    assert_eq!(bench.commit(blind), "ok");
    assert_eq!(bench.commit(looks), "40001");
    assert_eq!(bench.commit(spends), "40001", "there is not as much any more");
    assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (99, 1));
    let mut open = bench.begin(ALICE, Vec::new());
    assert_eq!(open.run("GRANT SELECT ON missing TO PUBLIC"), "42P01");
}

#[test]
fn a_grant_in_an_open_transaction_is_signed_by_its_own_key() {
    let mut bench = Bench::mined(1, 1);
    bench.endow(ALICE, 100);
    let mut open = bench.begin(ALICE, Vec::new());
    assert_eq!(open.run("CREATE TABLE t(a)"), "CREATE TABLE");
    assert_eq!(open.run("GRANT SELECT ON t TO PUBLIC"), "GRANT");
    assert_eq!(open.run("INSERT INTO t VALUES (1)"), "INSERT 0 1");
    assert_eq!(bench.commit(open), "ok");
    bench.endow(BOB, 10);
    assert_eq!(bench.code(BOB, "SELECT * FROM t"), "ok");
}

#[test]
fn blocks_that_are_not_final_pay_and_charge_on_drafts_too() {
    let mut bench = Bench::mined(10, 2);
    bench.endow(ALICE, 100);
    let miner = bench.balance(MINER);
    let mut blocks = Vec::new();
    for script in [transfer(BOB, 20), "INSERT INTO missing VALUES (1)".into()] {
        let pays = bench.as_user(&account(ALICE), &script);
        let cannot = bench.as_user(&account(NOBODY), "CREATE TABLE never(a)");
        let pays = bench.pair.maker.envelope(ALICE, vec![pays]);
        let cannot = bench.pair.maker.envelope(NOBODY, vec![cannot]);
        blocks.push(Arc::new(bench.pair.maker.block_of(vec![pays, cannot])));
    }
    let mut open = bench.begin(BOB, blocks.clone());
    // A transaction that begins has paid the least there is.
    assert_eq!((open.balance(ALICE), open.balance(BOB)), (60, 10));
    assert_eq!(open.balance(MINER), miner + 2_020);
    assert_eq!(open.run("SELECT * FROM never"), "42P01");
    drop(open);
    for block in blocks {
        let applied = bench.pair.apply(&block).unwrap();
        assert_eq!(code(&applied.receipts[1].outcome), "P0001");
    }
    assert_eq!((bench.balance(ALICE), bench.balance(BOB)), (60, 20));
    assert_eq!(bench.balance(MINER), miner + 2_020);
}

#[test]
fn a_reader_refuses_to_transfer_and_shows_balances_to_everybody() {
    let mut bench = Bench::mined(0, 1);
    bench.endow(ALICE, 100);
    let home = bench.pair.home();
    ChainDb::open(&home, bench.pair.genesis()).unwrap();
    let mut reader = Reader::open(&home, bench.pair.warm.access()).unwrap();
    let limits = ReadLimits {
        deadline: Instant::now() + Duration::from_secs(60),
        cancelled: Arc::default(),
        max_rows: 100,
        max_bytes: 1 << 20,
    };
    let mut ask = |who: &str, sql: &str| {
        let found = reader.query(who, &statement(sql, &[]), &Settings::default(), &limits);
        found.map(|found| found.rows).map_err(|refusal| refusal.code().to_owned())
    };
    let send = transfer(BOB, 1);
    assert_eq!(ask(&account(ALICE), &send), Err("25006".into()));
    assert_eq!(
        ask(&account(ALICE), &format!("WITH x AS ({send}) SELECT * FROM x")),
        Err("25006".into())
    );
    let all = ask(&account(9), "SELECT account, balance FROM rota_accounts WHERE balance = 100");
    assert_eq!(all.unwrap(), [[Value::Text(account(ALICE)), Value::Integer(100)]]);
    assert_eq!(ask("mallory", "SELECT 1"), Err("28000".into()));
    let described = reader.describe(&account(ALICE), &send, &Settings::default()).unwrap();
    assert!(!described.read_only && described.columns.len() == 1);
}

#[test]
fn only_what_can_be_paid_for_is_worth_passing_on() {
    let mut bench = Bench::mined(10, 2);
    bench.endow(ALICE, 25);
    let mut purses = Purses::open(&bench.pair.home(), bench.pair.warm.access()).unwrap().unwrap();
    let envelope = |bench: &mut Bench, signer: u8, count: usize| {
        let transactions = (0..count).map(|_| bench.as_user(&account(signer), "SELECT 1"));
        let transactions = transactions.collect();
        bench.pair.maker.envelope(signer, transactions)
    };
    let nobodys = envelope(&mut bench, NOBODY, 1);
    assert!(!purses.admits(&nobodys).unwrap());
    let refused = purses.can_pay(&nobodys.signer, 300).unwrap().unwrap_err();
    assert_eq!(refused.code(), "P0001");
    let [one, three, two] = [1, 3, 2].map(|count| envelope(&mut bench, ALICE, count));
    assert!(!purses.admits(&three).unwrap());
    assert!(purses.admits(&one).unwrap() && purses.admits(&one).unwrap());
    // Each alone could be paid for, both cannot.
    assert!(!purses.admits(&two).unwrap());
    assert!(purses.can_pay_all(&two).unwrap().is_ok());
    assert!(purses.can_pay_all(&three).unwrap().is_err());
    assert!(purses.can_pay(&two.signer, 1_884).unwrap().is_ok());
    assert!(purses.can_pay(&two.signer, 1_885).unwrap().is_err());
    bench.apply(Vec::new());
    assert!(purses.admits(&two).unwrap() && !purses.admits(&one).unwrap());

    let mut free = Bench::mined(0, 2);
    free.endow(ALICE, 1);
    free.administer(&format!("CREATE TABLE t(a); GRANT INSERT ON t TO \"{}\"", account(BOB)));
    let mut purses = Purses::open(&free.pair.home(), free.pair.warm.access()).unwrap().unwrap();
    for (signer, want) in [(ALICE, true), (BOB, true), (ROOT, true), (NOBODY, false)] {
        let envelope = envelope(&mut free, signer, 2);
        assert_eq!(purses.admits(&envelope).unwrap(), want, "{signer}");
    }
    let poa = Pair::new();
    assert!(Purses::open(&poa.home(), poa.warm.access()).unwrap().is_none());
}

#[test]
fn large_transactions_come_in_parts_that_are_paid_for() {
    let mut bench = Bench::mined(1, 3);
    bench.endow(ALICE, 2_500);
    assert_eq!(bench.code(ALICE, "CREATE TABLE t(a)"), "ok");
    let rows =
        (0..2).map(|_| statement("INSERT INTO t VALUES (?)", &[Value::Text("x".repeat(600_000))]));
    let whole = bench.as_user(&account(ALICE), "SELECT 1");
    let expiry = Time(bench.pair.maker.time.0 + 60_000);
    let (parts, execute) =
        rota_store::staged::stage(&whole.salt, expiry, &rows.collect::<Vec<_>>());
    let before = bench.balance(ALICE);
    for part in parts {
        let transaction = bench.as_user(&account(ALICE), "SELECT 1");
        let transaction = Transaction { statements: vec![part], ..transaction };
        let envelope = bench.pair.maker.envelope(ALICE, vec![transaction]);
        assert_eq!(code(&bench.apply(vec![envelope])[0]), "ok");
    }
    let whole = Transaction { statements: vec![execute], ..whole };
    let envelope = bench.pair.maker.envelope(ALICE, vec![whole]);
    assert_eq!(code(&bench.apply(vec![envelope])[0]), "ok");
    assert_eq!(bench.integer("SELECT count(*) FROM t"), 2);
    let paid = before - bench.balance(ALICE);
    assert!((1_201..1_210).contains(&paid), "{paid}");
}

#[test]
fn a_block_that_says_nobody_found_it_does_nothing() {
    for fee in [0, 1] {
        let mut pair = Pair::with(pow(fee));
        pair.maker.turn = Turn::Scheduled;
        let transaction = pair.maker.sql("CREATE TABLE t(a)");
        let transaction = Transaction { user: "root".into(), ..transaction };
        let envelope = pair.maker.envelope(ROOT, vec![transaction]);
        let block = pair.maker.block_of(vec![envelope]);
        let applied = pair.apply(&block).unwrap();
        assert_eq!(code(&applied.receipts[0].outcome), "08P01");
        pair.check();
    }
}

#[test]
fn elsewhere_there_are_no_accounts() {
    let mut pair = Pair::new();
    let to = account(BOB);
    assert_eq!(pair.refused(&format!("SELECT rota_transfer('{to}', 1)")), "0A000");
    assert_eq!(pair.rows("SELECT * FROM rota_accounts"), Vec::<Vec<Value>>::new());
    let own = Transaction { user: account(MINER), ..pair.maker.sql("SELECT 1") };
    assert_eq!(code(&pair.block(vec![own])[0]), "42501");
    assert_eq!(pair.refused(&format!("GRANT SELECT ON ALL TO \"{to}\"")), "42704");
    pair.check();
}

/// A game of four accounts, of which some cannot pay, ask for what they may not, send more than
/// they have, and find blocks in turn. The bench compares two servers, rescans both, and counts the
/// money after every block.
#[test]
fn at_every_height_all_balances_are_what_all_finders_were_paid() {
    let mut drawn: u64 = 20_090_103;
    let mut draw = move |below: u64| {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (drawn >> 33) % below
    };
    for fee in [0, 7] {
        let mut bench = Bench::mined(fee, 1);
        bench.endow(ROOT, 500);
        bench.administer("CREATE TABLE t(a UNIQUE); GRANT INSERT ON t TO PUBLIC");
        for _ in 0..25 {
            let miner = key(u8::try_from(1 + draw(4)).unwrap()).public();
            bench.pair.maker.turn = Turn::Found { miner };
            let mut envelopes = Vec::new();
            for _ in 0..draw(4) {
                let signer = u8::try_from(1 + draw(4)).unwrap();
                let transactions = (0..=draw(3)).map(|_| {
                    let to = u8::try_from(1 + draw(4)).unwrap();
                    let amount = i64::try_from(draw(1_500)).unwrap();
                    let script = match draw(5) {
                        0 => format!("INSERT INTO t VALUES ({})", draw(6)),
                        1 => format!("{}; SELECT * FROM missing", transfer(to, amount)),
                        2 => format!("{}; {}", transfer(to, amount), transfer(signer, 1)),
                        _ => transfer(to, amount),
                    };
                    let user = if draw(9) == 0 { account(to) } else { account(signer) };
                    (user, script)
                });
                let transactions: Vec<_> = transactions.collect();
                let transactions = transactions
                    .into_iter()
                    .map(|(user, script)| bench.as_user(&user, &script))
                    .collect();
                envelopes.push(bench.pair.maker.envelope(signer, transactions));
            }
            bench.apply(envelopes);
        }
        assert!(bench.integer("SELECT count(*) FROM t") > 0);
    }
}
