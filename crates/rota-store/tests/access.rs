//! Users and grants, as every server decides them when a block is applied: who may sign for whom,
//! what grants allow, and that nobody is locked out.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::genesis::{Administrator, Genesis};
use rota_core::transaction::{Settings, Transaction};
use rota_store::access::{Privilege, View, text_of};
use rota_store::chain_db::ChainDb;
use rota_store::{ReadLimits, Reader};
use support::{Outcome, Pair, genesis, key, statement};

/// A server of the genesis.
const SERVER: u8 = 1;
const OTHER_SERVER: u8 = 2;

/// The keys of users.
const ROOT: u8 = 101;
const ALICE: u8 = 102;
const STRANGER: u8 = 103;

const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpc\
                        XkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

struct Bench(Pair);

impl Bench {
    /// Servers are trusted; `rota` needs no password.
    fn trusted() -> Self {
        Self(Pair::new())
    }

    /// Servers are not trusted; `root` has a key.
    fn untrusted() -> Self {
        let root = Administrator {
            name: "root".into(),
            key: Some(key(ROOT).public()),
            verifier: Some(VERIFIER.into()),
        };
        let genesis = Genesis { trusted_servers: false, administrators: vec![root], ..genesis() };
        Self(Pair::with(genesis))
    }

    fn as_user(&mut self, signer: u8, user: &str, script: &str) -> Outcome {
        let transaction = self.0.maker.sql(script);
        self.send(signer, Transaction { user: user.into(), ..transaction })
    }

    fn send(&mut self, signer: u8, transaction: Transaction) -> Outcome {
        let envelope = self.0.maker.envelope(signer, vec![transaction]);
        let block = self.0.maker.block_of(vec![envelope]);
        let applied = self.0.apply(&block).unwrap();
        applied.receipts.into_iter().next().unwrap().outcome
    }

    /// `ok`, or the SQLSTATE.
    fn code(&mut self, signer: u8, user: &str, script: &str) -> String {
        match self.as_user(signer, user, script) {
            Ok(_) => "ok".into(),
            Err(refusal) => refusal.code().into(),
        }
    }

    fn administer(&mut self, script: &str) {
        let done = self.as_user(SERVER, "rota", script);
        done.unwrap_or_else(|refusal| panic!("{script}: {refusal}"));
    }

    fn access(&self) -> View {
        self.0.warm.access()
    }

    #[track_caller]
    fn all(&mut self, user: &str, table: &[(&str, &str)]) {
        for (script, want) in table {
            assert_eq!(self.code(SERVER, user, script), *want, "{user}: {script}");
        }
    }
}

#[test]
fn without_a_grant_nothing_is_read_or_written_and_with_it_what_was_granted() {
    let mut bench = Bench::trusted();
    bench.administer(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 2);
         CREATE TABLE u(id INTEGER PRIMARY KEY, v); CREATE VIEW both AS SELECT t.v FROM t, u;
         CREATE USER alice",
    );
    bench.all(
        "alice",
        &[
            ("SELECT 1", "ok"),
            ("SELECT * FROM t", "42501"),
            ("SELECT count(*) FROM t", "42501"),
            ("SELECT count(*) FROM \"T\" AS x", "42501"),
            ("WITH x AS (SELECT 1) SELECT count(*) FROM x", "ok"),
            ("INSERT INTO t VALUES (2, 2)", "42501"),
            ("UPDATE t SET v = 1", "42501"),
            ("DELETE FROM t", "42501"),
            ("CREATE TABLE mine(a)", "42501"),
            ("CREATE VIEW mine AS SELECT 1", "42501"),
            ("CREATE INDEX i ON t(v)", "42501"),
            ("DROP TABLE t", "42501"),
            ("ALTER TABLE t ADD COLUMN w", "42501"),
            ("CREATE TABLE IF NOT EXISTS t(a)", "42501"),
        ],
    );
    bench.administer("GRANT SELECT, INSERT ON t TO alice");
    bench.all(
        "alice",
        &[
            ("SELECT * FROM T", "ok"),
            ("SELECT count(*) FROM t", "ok"),
            ("INSERT INTO t VALUES (2, 2)", "ok"),
            ("INSERT INTO t SELECT 3, v FROM u", "42501"),
            ("UPDATE t SET v = 1", "42501"),
            ("INSERT INTO t VALUES (1, 5) ON CONFLICT DO UPDATE SET v = 5", "42501"),
            ("SELECT * FROM both", "42501"),
        ],
    );
    bench.administer("GRANT SELECT ON u TO PUBLIC; GRANT SELECT ON both TO alice");
    bench.all("alice", &[("SELECT * FROM both", "ok")]);
    bench.administer("REVOKE SELECT ON t FROM alice");
    bench.all("alice", &[("SELECT * FROM both", "42501"), ("SELECT * FROM t", "42501")]);
    bench.0.check();
}

#[test]
fn whoever_makes_a_table_may_do_everything_with_it_and_grants_go_with_it() {
    let mut bench = Bench::trusted();
    bench.administer(
        "CREATE TABLE secret(a); CREATE USER alice; CREATE USER bob; GRANT CREATE ON ALL TO alice;
         REVOKE CREATE ON ALL FROM alice; GRANT CREATE ON ALL TO alice",
    );
    bench.all(
        "alice",
        &[
            ("CREATE TABLE mine(a); INSERT INTO mine VALUES (1); SELECT * FROM mine", "ok"),
            // It is there already: that makes nobody its owner.
            ("CREATE TABLE IF NOT EXISTS secret(a)", "ok"),
            ("SELECT * FROM secret", "42501"),
            ("GRANT SELECT ON secret TO alice", "42501"),
            ("GRANT SELECT ON mine TO bob", "ok"),
            ("GRANT SELECT ON ALL TO alice", "42501"),
            ("ALTER TABLE mine RENAME TO ours; INSERT INTO ours VALUES (2)", "ok"),
        ],
    );
    bench.all("bob", &[("SELECT * FROM ours", "ok"), ("DROP TABLE ours", "42501")]);
    // Whatever a table is called, it is one table.
    bench.all(
        "alice",
        &[
            (
                "CREATE TABLE \"*\"(a); CREATE TABLE \"ALL TABLES\"(a); CREATE TABLE \"public\"(a)",
                "ok",
            ),
            ("SELECT * FROM secret", "42501"),
        ],
    );
    bench.all("alice", &[("DROP TABLE ours", "ok")]);
    bench.administer("CREATE TABLE ours(a); CREATE TABLE mine(a)");
    bench.all("bob", &[("SELECT * FROM ours", "42501")]);
    bench
        .all("alice", &[("SELECT * FROM mine", "42501"), ("INSERT INTO ours VALUES (1)", "42501")]);
    bench.0.check();
}

#[test]
fn a_cached_statement_is_checked_for_each_of_its_users() {
    let mut bench = Bench::trusted();
    bench.0.reopen = false;
    bench.administer(
        "CREATE TABLE t(a); CREATE USER alice; CREATE USER bob; GRANT SELECT ON t TO bob",
    );
    for _ in 0..2 {
        bench.all("rota", &[("SELECT a FROM t", "ok")]);
        bench.all("alice", &[("SELECT a FROM t", "42501")]);
        bench.all("bob", &[("SELECT a FROM t", "ok")]);
        bench.all("alice", &[("SELECT a FROM t", "42501")]);
    }
    // A sequence of one's own is for who may write.
    bench.all("alice", &[("SELECT rota_nextval('t_id_seq')", "42501")]);
    // In one transaction the grant counts at once, and is gone with what follows it.
    bench.all("rota", &[("GRANT SELECT ON t TO alice; SELECT nonsense", "42703")]);
    bench.all("alice", &[("SELECT a FROM t", "42501")]);
}

#[test]
fn a_statement_that_was_prepared_for_an_older_schema_is_checked_for_the_new_one() {
    let mut bench = Bench::trusted();
    bench.administer(
        "CREATE TABLE t(a); CREATE TABLE secret(a); CREATE VIEW v AS SELECT a FROM t;
         CREATE USER alice; GRANT SELECT ON t, v TO alice",
    );
    let home = bench.0.home();
    let _log = ChainDb::open(&home, bench.0.genesis()).unwrap();
    let mut reader = Reader::open(&home, bench.access()).unwrap();
    let mut read = |user: &str| {
        let limits = ReadLimits {
            deadline: Instant::now() + Duration::from_secs(60),
            cancelled: Arc::default(),
            max_rows: 10,
            max_bytes: 1_000,
        };
        let asked = statement("SELECT * FROM v", &[]);
        let found = reader.query(user, &asked, &Settings::default(), &limits);
        found.map_or_else(|refusal| refusal.code().to_owned(), |_| "ok".into())
    };
    assert_eq!([read("alice"), read("rota")], ["ok", "ok"]);
    bench.administer(
        "DROP VIEW v; CREATE VIEW v AS SELECT a FROM secret; GRANT SELECT ON v TO alice",
    );
    // SQLite prepares it anew while the administrator's runs.
    assert_eq!([read("rota"), read("alice"), read("alice")], ["ok", "42501", "42501"]);
    bench.administer("DROP VIEW v; CREATE VIEW v AS SELECT a FROM t; GRANT SELECT ON v TO alice");
    assert_eq!([read("alice"), read("alice")], ["ok", "ok"]);
}

#[test]
fn nobody_but_administrators_reads_or_changes_what_is_the_systems() {
    let mut bench = Bench::trusted();
    bench.administer(&format!("CREATE USER alice PASSWORD '{VERIFIER}'; CREATE TABLE t(a)"));
    bench.administer("GRANT ALL ON ALL TO alice");
    bench.all(
        "alice",
        &[
            ("SELECT verifier FROM rota_users", "42501"),
            ("SELECT count(*) FROM rota_users", "42501"),
            ("SELECT * FROM rota_grants", "42501"),
            ("SELECT (SELECT max(verifier) FROM main.rota_users)", "42501"),
            ("CREATE VIEW v AS SELECT * FROM rota_users; SELECT * FROM v", "42501"),
            ("INSERT INTO rota_grants VALUES ('*', 'alice', 'arwdc')", "42501"),
            ("CREATE USER bob", "42501"),
            ("ALTER USER alice ADMINISTRATOR", "42501"),
            ("ALTER USER alice SERVERS ALL", "42501"),
            ("ALTER USER rota PASSWORD NULL", "42501"),
            ("DROP USER rota", "42501"),
            ("GRANT alice TO alice", "42501"),
            ("GRANT SELECT ON rota_users TO alice", "42501"),
            ("SELECT name FROM rota_sequences", "ok"),
        ],
    );
    bench.all(
        "rota",
        &[
            ("SELECT verifier FROM rota_users", "ok"),
            ("INSERT INTO rota_users VALUES ('x', NULL, NULL, 'ALL', 1, 1)", "42501"),
            ("GRANT SELECT ON rota_users TO alice", "42501"),
            ("CREATE TABLE json_each(a)", "42939"),
            ("CREATE TABLE pragma_secret(a)", "42939"),
            ("ALTER TABLE t RENAME TO JSON_tree", "42939"),
        ],
    );
    // Its own password is its own.
    bench.all("alice", &[(&format!("ALTER USER alice PASSWORD '{VERIFIER}'"), "ok")]);
    bench.0.check();
}

#[test]
fn roles_give_their_members_what_they_have() {
    let mut bench = Bench::trusted();
    bench.administer(
        "CREATE TABLE t(a); CREATE ROLE readers; CREATE ROLE staff; CREATE USER alice;
         GRANT SELECT ON t TO readers; GRANT readers TO staff; GRANT staff TO alice",
    );
    bench.all("alice", &[("SELECT * FROM t", "ok"), ("DELETE FROM t", "42501")]);
    bench.all(
        "rota",
        &[
            ("GRANT alice TO readers", "0LP01"),
            ("GRANT alice TO alice", "0LP01"),
            ("GRANT nobody TO alice", "42704"),
        ],
    );
    assert_eq!(bench.code(SERVER, "readers", "SELECT * FROM t"), "42501", "a role logs in nowhere");
    bench.administer("REVOKE readers FROM staff");
    bench.all("alice", &[("SELECT * FROM t", "42501")]);
    bench.administer("GRANT readers TO alice; DROP ROLE readers");
    bench.all("alice", &[("SELECT * FROM t", "42501")]);
}

#[test]
fn a_server_signs_for_those_who_are_bound_to_it_and_no_others() {
    let mut bench = Bench::trusted();
    let (first, alice) = (text_of(&key(SERVER).public()), text_of(&key(ALICE).public()));
    bench.administer(&format!(
        "CREATE USER bound PASSWORD '{VERIFIER}' SERVERS '{first}'; CREATE USER alice KEY '{alice}';
         CREATE USER both KEY '{}' PASSWORD '{VERIFIER}'",
        text_of(&key(ROOT).public())
    ));
    for (signer, user, want) in [
        (SERVER, "bound", "ok"),
        (OTHER_SERVER, "bound", "42501"),
        (STRANGER, "bound", "42501"),
        (ALICE, "bound", "42501"),
        (ALICE, "alice", "ok"),
        (SERVER, "alice", "42501"),
        (ROOT, "alice", "42501"),
        (ROOT, "both", "ok"),
        (OTHER_SERVER, "both", "ok"),
        (STRANGER, "rota", "42501"),
        (SERVER, "nobody", "42501"),
    ] {
        assert_eq!(bench.code(signer, user, "SELECT 1"), want, "{signer} for {user}");
    }
    let stranger = text_of(&key(STRANGER).public());
    bench.all(
        "rota",
        &[
            (&format!("ALTER USER bound SERVERS '{stranger}'"), "42704"),
            ("ALTER USER bound SERVERS NONE", "22023"),
            (&format!("CREATE USER thief KEY '{first}'"), "42710"),
            (&format!("CREATE USER thief KEY '{alice}'"), "42710"),
            ("CREATE USER eve PASSWORD 'plain'", "42501"),
        ],
    );
    assert!(bench.access().current().user("eve").is_none());
}

#[test]
fn users_and_grants_change_by_an_administrators_own_key_where_servers_are_not_trusted() {
    let mut bench = Bench::untrusted();
    for (signer, user, script, want) in [
        (SERVER, "root", "CREATE TABLE t(a)", "ok"),
        (SERVER, "root", "CREATE USER alice", "42501"),
        (SERVER, "root", "GRANT SELECT ON t TO PUBLIC", "42501"),
        (ROOT, "root", "CREATE USER alice; GRANT SELECT ON t TO alice", "ok"),
        // Without a password or key no server may sign for it.
        (SERVER, "alice", "SELECT * FROM t", "42501"),
        (STRANGER, "root", "CREATE USER eve", "42501"),
        (ROOT, "alice", "SELECT 1", "42501"),
    ] {
        assert_eq!(bench.code(signer, user, script), want, "{signer} for {user}: {script}");
    }
    let no_server = format!("ALTER USER alice PASSWORD '{VERIFIER}'");
    assert_eq!(bench.code(ROOT, "root", &no_server), "22023", "which servers is to be said");
    assert_eq!(bench.code(ROOT, "root", &format!("{no_server} SERVERS ALL")), "ok");
    assert_eq!(bench.code(OTHER_SERVER, "alice", "SELECT * FROM t"), "ok");
    assert_eq!(bench.code(OTHER_SERVER, "alice", &no_server), "42501", "its own, but not signed");
}

#[test]
fn the_last_administrator_cannot_lock_everybody_out() {
    let mut bench = Bench::untrusted();
    for script in [
        "ALTER USER root NOADMINISTRATOR",
        "ALTER USER root KEY NULL",
        "ALTER USER root NOLOGIN",
        "CREATE USER b ADMINISTRATOR; ALTER USER root KEY NULL",
    ] {
        assert_eq!(bench.code(ROOT, "root", script), "42501", "{script}");
    }
    assert_eq!(bench.code(ROOT, "root", "DROP USER root"), "55006");
    let alice = text_of(&key(ALICE).public());
    let hand_over =
        format!("CREATE USER b ADMINISTRATOR KEY '{alice}'; ALTER USER root NOADMINISTRATOR");
    assert_eq!(bench.code(ROOT, "root", &hand_over), "ok");
    assert_eq!(bench.code(ROOT, "root", "CREATE USER c"), "42501");
    assert_eq!(bench.code(ALICE, "b", "DROP USER root"), "ok");

    let mut trusted = Bench::trusted();
    trusted.all(
        "rota",
        &[
            ("ALTER USER rota NOADMINISTRATOR", "42501"),
            ("ALTER USER rota NOLOGIN", "42501"),
            (&format!("ALTER USER rota PASSWORD '{VERIFIER}'"), "ok"),
            ("ALTER USER rota PASSWORD NULL", "42501"),
        ],
    );
}

#[test]
fn readers_and_doors_see_users_as_of_the_newest_block() {
    let mut bench = Bench::trusted();
    let view = bench.access();
    bench.administer("CREATE TABLE t(a); CREATE USER alice; GRANT SELECT ON t TO alice");
    let alice = view.current().user("alice").cloned().unwrap();
    assert!(alice.rights.may(Privilege::Select, "t") && !alice.rights.may(Privilege::Insert, "t"));
    assert_eq!(bench.code(SERVER, "rota", "DROP USER alice; SELECT nonsense"), "42703");
    assert!(view.current().user("alice").is_some());
    bench.administer("DROP USER alice");
    assert!(view.current().user("alice").is_none() && view.current().grants().is_empty());
}

#[test]
fn a_plain_password_has_no_place_in_a_block_and_no_other_user_may_be_named() {
    let mut bench = Bench::trusted();
    assert_eq!(bench.code(SERVER, "rota", "CREATE USER a PASSWORD 'secret'"), "42501");
    let refused = bench.as_user(SERVER, "rota", "ALTER USER rota PASSWORD 'secret'").unwrap_err();
    assert!(!refused.message.contains("secret"));
}

/// A subquery's name without a column is judged by whether there is such a table, which SQLite
/// cannot be asked while it prepares a statement anew in the running.
const COUNTS_A_SUBQUERY: &str = "INSERT INTO t WITH zz AS (SELECT 1) SELECT count(*) FROM zz";

#[test]
fn servers_that_have_a_statement_prepared_decide_as_those_that_have_not() {
    let mut bench = Bench::trusted();
    bench.administer("CREATE TABLE t(a); CREATE USER alice; GRANT SELECT, INSERT ON t TO alice");
    for _ in 0..2 {
        // The one server of the pair keeps what is prepared, the other begins anew each time.
        bench.all("alice", &[(COUNTS_A_SUBQUERY, "ok")]);
        let deferred = format!("PRAGMA defer_foreign_keys = ON; {COUNTS_A_SUBQUERY}");
        bench.all("alice", &[(&deferred, "ok"), (COUNTS_A_SUBQUERY, "ok")]);
        // Rolling back after a change of the schema by another transaction of the block.
        let table =
            bench.0.maker.sql("CREATE TABLE IF NOT EXISTS other(a); CREATE INDEX i ON t(a)");
        let counts = bench.0.maker.sql(COUNTS_A_SUBQUERY);
        let fails = bench.0.maker.sql("INSERT INTO t VALUES (7); INSERT INTO nowhere VALUES (1)");
        let of_alice = |transaction| Transaction { user: "alice".into(), ..transaction };
        let outcomes = bench.0.block(vec![table, of_alice(counts), fails]);
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
        bench.all("alice", &[(COUNTS_A_SUBQUERY, "ok")]);
        bench.administer("DROP INDEX i");
        bench.0.check();
    }
}
