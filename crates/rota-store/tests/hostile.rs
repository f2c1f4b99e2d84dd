//! Hostile statements in blocks that no door has looked at, on drafts and on readers: refused,
//! nothing changed, and both servers, which are as unlike as they may be, the same after each.

mod support;
#[path = "hostile/table.rs"]
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::error::Refusal;
use rota_core::time::Time;
use rota_core::transaction::{Settings, Statement, Transaction, Value};
use rota_store::draft::{Begin, Drafts, Stop, Until};
use rota_store::sequences::Reserved;
use rota_store::sql::{Access, classify, split};
use rota_store::{ReadLimits, Reader};
use support::{Outcome, Pair, key, statement};
use table::{ADMINISTRATOR, Entry, UNTOUCHED, entries, world};

/// What a reader may take for a bomb.
const PATIENCE: Duration = Duration::from_millis(300);

struct Bench {
    pair: Pair,
    drafts: Arc<Drafts>,
    reader: Reader,
}

impl Bench {
    fn new() -> Self {
        let mut pair = Pair::new();
        pair.run(&world());
        let drafts = Drafts::new(&pair.home(), pair.genesis(), pair.warm.access());
        // Its file is made by the server.
        rota_store::chain_db::ChainDb::open(&pair.home(), pair.genesis()).unwrap();
        let reader = Reader::open(&pair.home(), pair.warm.access()).unwrap();
        Self { pair, drafts, reader }
    }

    /// In a block that skips all doors.
    fn block(&mut self, who: &str, statements: Vec<Statement>) -> Outcome {
        let transaction = self.pair.maker.transaction(statements);
        self.pair.block(vec![Transaction { user: who.into(), ..transaction }]).remove(0)
    }

    fn administer(&mut self, script: &str) {
        let done = self.block(ADMINISTRATOR, statements(script));
        done.unwrap_or_else(|refusal| panic!("{script}: {refusal}"));
    }

    fn read(&mut self, who: &str, statement: &Statement) -> Result<Vec<Vec<Value>>, Refusal> {
        let limits = ReadLimits {
            deadline: Instant::now() + PATIENCE,
            cancelled: Arc::default(),
            max_rows: 10_000,
            max_bytes: 1 << 20,
        };
        self.reader.query(who, statement, &Settings::default(), &limits).map(|found| found.rows)
    }

    fn asked(&mut self, query: &str) -> Vec<Vec<Value>> {
        let found = self.read(ADMINISTRATOR, &statement(query, &[]));
        found.unwrap_or_else(|refusal| panic!("{query}: {refusal}"))
    }

    /// What is there, or why it cannot be told.
    fn untouched(&mut self) -> Vec<Result<Vec<Vec<Value>>, Refusal>> {
        let asked = |query| self.read(ADMINISTRATOR, &statement(query, &[]));
        UNTOUCHED.into_iter().map(asked).collect()
    }

    /// What is to be so after an attack, whatever became of it.
    fn check(&mut self, entry: &Entry) {
        self.pair.check();
        for (query, want) in &entry.after {
            let found = self.asked(query);
            let value = match &found[0][0] {
                Value::Text(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            assert_eq!(value, *want, "{}: {query}", entry.name());
        }
    }

    /// An open transaction: the statements on a draft, and back to a savepoint if one fails; then a
    /// write of its own, so that all of it is sent and has to come out the same at apply.
    fn draft(&mut self, who: &str, script: &[Statement]) -> Result<(), Refusal> {
        let salt = rota_salt(&mut self.pair);
        let chain = self.pair.genesis().chain_id();
        let begin = Begin {
            id: Transaction::id_of(chain, key(1).public(), &salt),
            user: who.into(),
            begun: Time(self.pair.maker.time.0 + 7),
            settings: Settings::default(),
            read_only: false,
            at_least: self.pair.maker.height,
            unfinal: Vec::new(),
        };
        let mut draft = self.drafts.begin(begin)?;
        let until = Until::default();
        let mut run = |statement: Statement| loop {
            match draft.run(statement.clone(), &until) {
                Ok(_) => return Ok(()),
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::Numbers(wanted)) => {
                    let first = 1_000_000;
                    let numbers = first..first + 64;
                    let reserved = Reserved { numbers, born: 0, height: u64::MAX };
                    self.drafts.ranges().add(&wanted.name, reserved);
                }
            }
        };
        run(statement("SAVEPOINT before", &[]))?;
        let outcome = script.iter().try_for_each(|statement| run(statement.clone()));
        if outcome.is_err() && run(statement("ROLLBACK TO before", &[])).is_err() {
            return outcome;
        }
        let Ok(Some(finished)) = draft.finish() else { return outcome };
        let transaction = Transaction {
            salt,
            user: who.into(),
            statements: finished.statements,
            settings: Settings::default(),
            interactive: Some(finished.interactive),
        };
        self.pair.block(vec![transaction]).remove(0).map(drop).and(outcome)
    }
}

fn rota_salt(pair: &mut Pair) -> [u8; 16] {
    pair.maker.transaction(Vec::new()).salt
}

fn statements(script: &str) -> Vec<Statement> {
    split(script).into_iter().map(|sql| statement(sql, &[])).collect()
}

fn code<T>(outcome: &Result<T, Refusal>) -> String {
    outcome.as_ref().map_or_else(|refusal| refusal.code().to_owned(), |_| "ok".into())
}

/// Whether a verdict is kept; a failure is collected, so that one run shows all of them.
fn judge<T>(entry: &Entry, door: &str, outcome: &Result<T, Refusal>, failures: &mut Vec<String>) {
    let (want, found) = (entry.verdict(door), code(outcome));
    let kept = match want {
        "any" => !["ok", "XX000", "23505"].contains(&found.as_str()),
        want => found == want,
    };
    if !kept {
        let said = outcome.as_ref().err().map(|refusal| refusal.message.clone());
        failures.push(format!("{door}: {found}, not {want}: {}\n    {said:?}", entry.name()));
    }
}

fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_block_that_skips_the_doors_does_nothing_that_its_user_may_not() {
    let (mut bench, mut failures, mut attacks) = (Bench::new(), Vec::new(), 0);
    for entry in entries() {
        if entry.is_setup() {
            bench.administer(&entry.script);
            continue;
        }
        attacks += 1;
        let before = bench.untouched();
        let started = Instant::now();
        let outcome = bench.block(&entry.who, statements(&entry.script));
        if started.elapsed() > Duration::from_secs(2) {
            eprintln!("{:?}: {}", started.elapsed(), entry.name());
        }
        judge(&entry, "block", &outcome, &mut failures);
        if outcome.is_err() {
            assert_eq!(bench.untouched(), before, "{}", entry.name());
        }
        bench.check(&entry);
    }
    none(&failures);
    assert!(attacks >= 150, "only {attacks}");
}

#[test]
fn an_open_transaction_is_refused_the_same_and_comes_out_the_same_where_it_counts() {
    let (mut bench, mut failures) = (Bench::new(), Vec::new());
    for entry in entries() {
        if entry.is_setup() {
            bench.administer(&entry.script);
            continue;
        }
        if entry.verdict("draft") == "-" {
            continue;
        }
        let before = bench.untouched();
        let outcome = bench.draft(&entry.who, &statements(&entry.script));
        judge(&entry, "draft", &outcome, &mut failures);
        if outcome.is_err() {
            assert_eq!(bench.untouched(), before, "{}", entry.name());
        }
        bench.check(&entry);
    }
    none(&failures);
}

#[test]
fn a_read_shows_nothing_that_its_user_may_not_see() {
    let (mut bench, mut failures, mut reads) = (Bench::new(), Vec::new(), 0);
    for entry in entries() {
        let script = statements(&entry.script);
        let reads_only = |one: &Statement| classify(&one.sql).access == Access::Read;
        match script.as_slice() {
            _ if entry.is_setup() => bench.administer(&entry.script),
            [one] if reads_only(one) && entry.verdict("read") != "-" => {
                reads += 1;
                let outcome = bench.read(&entry.who, one);
                judge(&entry, "read", &outcome, &mut failures);
            }
            // What an attack was to leave behind.
            _ if entry.verdict("block") == "ok" => drop(bench.block(&entry.who, script)),
            _ => {}
        }
    }
    none(&failures);
    assert!(reads >= 50, "only {reads}");
}

#[test]
fn a_parameter_is_no_way_to_an_address_in_memory() {
    let mut bench = Bench::new();
    let (name, pointer) = (Value::Text("simple".into()), Value::Blob(vec![0x41; 8]));
    let told = statement("SELECT fts3_tokenizer(?1)", std::slice::from_ref(&name));
    let taken = statement("SELECT FTS3_Tokenizer(?1, ?2)", &[name, pointer]);
    for who in ["nobody", ADMINISTRATOR] {
        for one in [&told, &taken] {
            assert_eq!(code(&bench.read(who, one)), "42501");
            assert_eq!(code(&bench.block(who, vec![one.clone()])), "0A000");
        }
        let call = statement("SELECT count(*) FROM fts3tokenize('a b')", &[]);
        assert_eq!(code(&bench.read(who, &call)), "42501");
    }
}

#[test]
fn a_prepared_statement_is_no_way_to_rights_of_others() {
    let mut bench = Bench::new();
    bench.pair.reopen = false;
    let query = statement("SELECT v FROM secret", &[]);
    let both = |bench: &mut Bench, who: &str, want: &str| {
        for _ in 0..2 {
            assert_eq!(code(&bench.read(who, &query)), want, "{who} reads");
            assert_eq!(code(&bench.block(who, vec![query.clone()])), want, "{who} in a block");
        }
    };
    for order in [["carol", "alice", ADMINISTRATOR], ["alice", ADMINISTRATOR, "carol"]] {
        for who in order {
            both(&mut bench, who, if who == "alice" { "42501" } else { "ok" });
        }
    }
    bench.administer("GRANT SELECT ON secret TO alice");
    both(&mut bench, "alice", "ok");
    bench.administer("REVOKE SELECT ON secret FROM alice");
    both(&mut bench, "alice", "42501");
    bench.administer("REVOKE readers FROM carol");
    both(&mut bench, "carol", "42501");
}

#[test]
fn a_view_that_changes_under_a_prepared_statement_shows_nothing_new() {
    let mut bench = Bench::new();
    bench.pair.reopen = false;
    let query = statement("SELECT * FROM w", &[]);
    for (view, want) in [
        ("SELECT id FROM mine", "ok"),
        ("SELECT mine.id FROM mine NATURAL JOIN secret", "42501"),
        ("SELECT id FROM mine", "ok"),
        ("SELECT id FROM secret", "42501"),
    ] {
        let script = format!("DROP VIEW IF EXISTS w; CREATE VIEW w AS {view}");
        assert_eq!(code(&bench.block("maker", statements(&script))), "ok", "{script}");
        for _ in 0..2 {
            assert_eq!(code(&bench.read("maker", &query)), want, "{view}");
            assert_eq!(code(&bench.block("maker", vec![query.clone()])), want, "{view}");
        }
    }
}

#[test]
fn copy_and_parts_of_large_transactions_are_no_way_around_grants() {
    let mut bench = Bench::new();
    let row = Value::Text("7\tx\n".into());
    for (who, sql, want) in [
        ("alice", "COPY secret FROM STDIN", "42501"),
        ("nobody", "COPY mine (id, v) FROM STDIN", "42501"),
        (ADMINISTRATOR, "COPY rota_users (name) FROM STDIN", "42501"),
        (ADMINISTRATOR, "COPY \"ROTA_grants\" FROM STDIN", "42501"),
        (ADMINISTRATOR, "COPY rota_accounts FROM STDIN", "42501"),
        ("nobody", "COPY secret TO STDOUT", "0A000"),
        ("nobody", "COPY secret FROM '/etc/passwd'", "42501"),
        ("nobody", "COPY secret FROM PROGRAM 'id'", "42501"),
        ("bob", "COPY box FROM STDIN", "ok"),
    ] {
        let copied = bench.block(who, vec![statement(sql, std::slice::from_ref(&row))]);
        assert_eq!(code(&copied), want, "{who}: {sql}: {copied:?}");
    }
    let delete = [statement("DELETE FROM mine", &[])];
    let transaction = bench.pair.maker.transaction(Vec::new());
    let expiry = Time(bench.pair.maker.time.0 + 60_000);
    let (parts, whole) = rota_store::staged::stage(&transaction.salt, expiry, &delete);
    assert_eq!(code(&bench.block("nobody", parts.clone())), "42501");
    assert_eq!(code(&bench.block("alice", parts)), "ok");
    assert_eq!(code(&bench.block("alice", vec![whole.clone()])), "40001", "of another transaction");
    let others = Transaction { user: "nobody".into(), statements: vec![whole], ..transaction };
    assert_eq!(code(&bench.pair.block(vec![others]).remove(0)), "42501");
    let blob = Value::Blob(Vec::new());
    for values in [vec![], vec![blob.clone(); 4], vec![Value::Integer(i64::MAX), blob]] {
        for sql in ["ROTA STAGE", "ROTA EXECUTE"] {
            let refused = bench.block("alice", vec![statement(sql, &values)]);
            assert!(refused.is_err(), "{sql} {values:?}");
        }
    }
    bench.pair.check();
    assert_eq!(bench.asked("SELECT count(*) FROM mine")[0][0], Value::Integer(3));
}

#[test]
fn more_parameters_than_there_may_be_are_refused() {
    let mut bench = Bench::new();
    let marks = vec!["?"; 70_000].join(",");
    let many = statement(&format!("SELECT 1 IN ({marks})"), &vec![Value::Null; 70_000]);
    let few = statement("SELECT ?1, ?65536", &[Value::Null]);
    let none = statement("DELETE FROM mine WHERE id = ?", &[]);
    let more = statement("DELETE FROM mine WHERE id = 1", &[Value::Null]);
    for attack in [many, few, none, more] {
        let refused = bench.block("alice", vec![attack.clone()]);
        assert!(refused.is_err(), "{}", attack.sql.len());
        let refused = bench.read(ADMINISTRATOR, &attack);
        assert!(refused.is_err(), "{}", attack.sql.len());
    }
    assert_eq!(bench.asked("SELECT count(*) FROM mine")[0][0], Value::Integer(3));
}
