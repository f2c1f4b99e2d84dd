//! Clients: each writes one transaction after the other, asks another server when none answers,
//! with the same id, and remembers what it was told. What they write is chosen to trip a replicated
//! database: tables without a key, NULL keys, integers in REAL columns, statements that fail
//! half-way, break out, cost too much or change the schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::crypto::SecretKey;
use rota_core::replica::Status;
use rota_core::transaction::{
    Envelope, Expiry, Parameters, Settings, Statement, Transaction, Value,
};
use rota_core::types::{ChainId, Height, TransactionId};
use rota_store::access::text_of;
use rota_store::draft::{Begin, Draft, Drafts, Finished, Stop, Until};

use crate::Micros;
use crate::random::Random;

/// How long a client waits for an answer before it asks another server.
pub const PATIENCE: Micros = 1_500_000;

/// How long an envelope may enter the chain: long enough for any run.
const EXPIRY: std::time::Duration = std::time::Duration::from_secs(3_000);

/// How long some have: less than many a fault lasts.
const SHORT_EXPIRY: std::time::Duration = std::time::Duration::from_millis(400);

/// The same in blocks.
const EXPIRY_BLOCKS: u64 = 100_000;

/// How many purses there are, with [`PURSE`] in each at first.
pub const PURSES: u64 = 5;

/// See [`PURSES`].
pub const PURSE: i64 = 100;

/// What clients write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// One row each, which must succeed.
    Plain,
    /// The same, and a balance that all add to.
    Sums,
    /// Money moved between two purses, in an interactive transaction that reads both and writes
    /// what it has computed; those that meet another one fail.
    Transfers,
    /// Everything that SQL has to trip copies with; some of it must fail, alike everywhere.
    Hostile,
    /// One row each, in the name of the user that signs with a key of its own.
    Keyed,
}

/// The user that has a key, and no password.
pub const KEYED: &str = "keyed";

/// Its key.
pub fn keyed() -> SecretKey {
    SecretKey::from_bytes([200; 32])
}

/// Under `pow` a server signs in nobody's name but its own: whoever runs these servers signs with
/// the administrator's key.
pub fn operator() -> SecretKey {
    SecretKey::from_bytes([201; 32])
}

/// What one client does.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// When it starts (never before the tables are there).
    pub start: Micros,
    /// How many transactions it writes.
    pub writes: u64,
    /// The longest pause between two of them.
    pub think: Micros,
    /// What it writes.
    pub mix: Mix,
}

/// What became of a write, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged: its row must be there once, everywhere.
    Applied,
    /// Answered with an error: its row must be nowhere.
    Failed,
    /// Acknowledged with a bound, and undone by a deep reorganisation (`pow`): its row is there
    /// once or not at all, the same everywhere.
    Undone,
    /// No answer yet: its row is there once or not at all, the same everywhere.
    Unknown,
}

/// One write: a transaction with a row of its own in `ledger`.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key of that row.
    pub key: String,
    /// The transaction's id.
    pub id: TransactionId,
    /// What is sent, the same on every try.
    pub envelope: Arc<Envelope>,
    /// When it was first sent.
    pub started: Micros,
    /// Whether it must succeed.
    pub must_apply: bool,
    /// The number of tries so far.
    pub tries: u32,
}

/// A write that is over, or was when the run ended.
#[derive(Clone, Debug)]
pub struct Over {
    /// The key of its row.
    pub key: String,
    /// The transaction's id.
    pub id: TransactionId,
    /// What became of it.
    pub fate: Fate,
    /// When it was first sent.
    pub started: Micros,
    /// When it was answered.
    pub finished: Micros,
}

/// One client.
pub struct Client {
    /// What it does.
    pub plan: ClientPlan,
    /// How many writes it has begun.
    pub begun: u64,
    /// What it waits for, and on which server.
    pub waiting: Option<(usize, Write)>,
    signer: SecretKey,
    number: usize,
    random: Random,
}

/// All clients, and what they were told.
pub struct Clients {
    /// By number; number 0 makes the tables.
    pub all: Vec<Client>,
    /// What is over.
    pub finished: Vec<Over>,
    /// Which client waits for which transaction.
    pub waiting: BTreeMap<TransactionId, usize>,
    /// Whether the tables are there.
    pub ready: bool,
    chain: ChainId,
}

impl Clients {
    /// Clients that sign with the keys of these servers, in turn.
    pub fn new(
        chain: ChainId,
        plans: &[ClientPlan],
        signers: &[SecretKey],
        random: &mut Random,
    ) -> Self {
        let tables = ClientPlan { start: 0, writes: 1, think: 0, mix: Mix::Plain };
        let all = std::iter::once(&tables)
            .chain(plans)
            .enumerate()
            .map(|(number, plan)| Client {
                plan: plan.clone(),
                begun: 0,
                waiting: None,
                signer: match plan.mix {
                    Mix::Keyed => keyed(),
                    _ => signers[number % signers.len()].clone(),
                },
                number,
                random: random.fork(),
            })
            .collect();
        Self { all, finished: Vec::new(), waiting: BTreeMap::new(), ready: false, chain }
    }

    /// Whether nobody waits or wants to write any more.
    pub fn are_done(&self) -> bool {
        self.all.iter().all(|client| client.waiting.is_none() && client.begun == client.plan.writes)
    }

    /// Makes the client's next write, signed; `None` if it has none left.
    pub fn next_write(
        &mut self,
        number: usize,
        at: Micros,
        status: &Status,
        drafts: Option<&Arc<Drafts>>,
    ) -> Option<Write> {
        let (height, time) = (status.height, status.chain_time);
        let chain = self.chain;
        let client = &mut self.all[number];
        if client.begun == client.plan.writes {
            return None;
        }
        client.begun += 1;
        let key = format!("c{number}-{}", client.begun);
        let salt = client.random.bytes();
        let signer = client.signer.public();
        let begin = Begin {
            id: Transaction::id_of(chain, signer, &salt),
            user: "rota".into(),
            begun: time,
            settings: Settings::default(),
            read_only: false,
            at_least: Height(0),
            unfinal: Vec::new(),
        };
        let transfers = client.plan.mix == Mix::Transfers;
        let drafts = drafts.filter(|_| transfers);
        let moved =
            drafts.and_then(|drafts| client.transfer(drafts.begin(begin).ok()?, &key).ok()?);
        let (statements, interactive) = match moved {
            Some(Finished { statements, interactive }) => (statements, Some(interactive)),
            None => (client.statements(&key), None),
        };
        let user = client.user();
        let transaction = Transaction {
            salt,
            user: user.into(),
            statements,
            settings: Settings::default(),
            interactive,
        };
        let id = transaction.id(chain, client.signer.public());
        let hurried = client.plan.mix == Mix::Hostile && client.random.per_mille(100);
        let within = if hurried { SHORT_EXPIRY } else { EXPIRY };
        let expiry = Expiry { height: Height(height.0 + EXPIRY_BLOCKS), time: time.plus(within) };
        let envelope = Envelope::sign(chain, &client.signer, expiry, vec![transaction]);
        let must_apply = matches!(client.plan.mix, Mix::Plain | Mix::Sums | Mix::Keyed);
        Some(Write { key, id, envelope: Arc::new(envelope), started: at, must_apply, tries: 0 })
    }

    /// A write has been sent to a server.
    pub fn sent(&mut self, number: usize, server: usize, mut write: Write) {
        write.tries += 1;
        self.waiting.insert(write.id, number);
        self.all[number].waiting = Some((server, write));
    }

    /// A client has its answer.
    pub fn answered(&mut self, number: usize, fate: Fate, at: Micros) {
        if let Some((_, write)) = self.all[number].waiting.take() {
            self.waiting.remove(&write.id);
            self.ready |= number == 0 && fate == Fate::Applied;
            let Write { key, id, started, .. } = write;
            self.finished.push(Over { key, id, fate, started, finished: at });
        }
    }

    /// A write that was acknowledged has been undone, or one that was refused is open again.
    pub fn undone(&mut self, id: TransactionId) {
        for over in self.finished.iter_mut().filter(|over| over.id == id) {
            over.fate = Fate::Undone;
        }
    }

    /// All writes, those without an answer included.
    pub fn fates(&self) -> impl Iterator<Item = (&str, Fate)> {
        let over = self.finished.iter().map(|write| (write.key.as_str(), write.fate));
        let open = self.all.iter().filter_map(|client| {
            client.waiting.as_ref().map(|(_, write)| (write.key.as_str(), Fate::Unknown))
        });
        over.chain(open)
    }

    /// How long a client thinks before its next write.
    pub fn think(&mut self, number: usize) -> Micros {
        let client = &mut self.all[number];
        client.random.below(client.plan.think + 1)
    }
}

impl Client {
    /// In whose name the next write is: those of the hostile are not all allowed.
    fn user(&mut self) -> &'static str {
        match self.plan.mix {
            Mix::Keyed => KEYED,
            Mix::Hostile if self.random.per_mille(300) => {
                self.random.choose(&["ann", "bob", "nobody", KEYED])
            }
            _ => "rota",
        }
    }

    fn statements(&mut self, key: &str) -> Vec<Statement> {
        if self.number == 0 {
            let own = insert_row(key, 0);
            let user = format!("CREATE USER {KEYED} KEY '{}'", text_of(&keyed().public()));
            let tables = TABLES.iter().map(|sql| plain(*sql));
            let grants = USERS.iter().map(|sql| plain(*sql));
            return tables.chain([plain(user)]).chain(grants).chain([own]).collect();
        }
        let own = insert_row(key, i64::try_from(self.begun).unwrap_or(i64::MAX));
        if matches!(self.plan.mix, Mix::Plain | Mix::Transfers | Mix::Keyed) {
            return vec![own];
        }
        if self.plan.mix == Mix::Sums {
            let sum = plain("UPDATE account SET balance = balance + 1 WHERE id = 1");
            return vec![own, sum];
        }
        let mut statements: Vec<Statement> =
            (0..self.random.between(1, 3)).flat_map(|_| self.hostile()).collect();
        let place = self.random.index(statements.len() + 1);
        statements.insert(place, own);
        statements
    }

    /// Moves money on a draft. Fails where a server has not executed the making of the tables yet.
    fn transfer(&mut self, mut draft: Draft, key: &str) -> Result<Option<Finished>, Stop> {
        let until = Until::default();
        let (from, to) = (self.random.between(1, PURSES), self.random.between(1, PURSES));
        let amount = i64::try_from(self.random.between(1, 30)).unwrap_or(1);
        let read = |draft: &mut Draft, purse: u64| -> Result<i64, Stop> {
            let sql = format!("SELECT v FROM purse WHERE id = {purse}");
            let read = draft.run(plain(sql), &until)?;
            match read.rows.rows.first().and_then(|row| row.first()) {
                Some(Value::Integer(held)) => Ok(*held),
                _ => Ok(0),
            }
        };
        let (has, had) = (read(&mut draft, from)?, read(&mut draft, to)?);
        if self.random.per_mille(300) {
            draft.run(plain("SAVEPOINT s"), &until)?;
            let twice = plain(format!("INSERT INTO purse VALUES ({from}, 7)"));
            let _ = draft.run(twice, &until);
            draft.run(plain("ROLLBACK TO s"), &until)?;
        }
        if from != to {
            for (purse, holds) in [(from, has - amount), (to, had + amount)] {
                let sql = format!("UPDATE purse SET v = {holds} WHERE id = {purse}");
                draft.run(plain(sql), &until)?;
            }
        }
        draft.run(insert_row(key, amount), &until)?;
        Ok(draft.finish()?)
    }

    /// Something that copies could differ on.
    fn hostile(&mut self) -> Vec<Statement> {
        let n = self.random.between(1, 12);
        let many = self.random.between(1, 40_000);
        let one = |sql: String| vec![plain(sql)];
        match self.random.below(34) {
            0..=3 => one(format!("INSERT INTO account(balance) VALUES ({n})")),
            4..=6 => one(format!("UPDATE account SET balance = balance + {n} WHERE id % 3 = 1")),
            7 => one(format!("UPDATE account SET balance = id * {n}")),
            8 => one(format!("INSERT INTO parent VALUES ({n}, 'p{n}')")),
            9 => one(format!("INSERT INTO child(parent) VALUES ({n})")),
            10 => one(format!("DELETE FROM parent WHERE id = {n}")),
            11 => one("INSERT INTO nullable VALUES (NULL, 1), (NULL, 1)".into()),
            12 => one(format!("REPLACE INTO nullable VALUES ('k{n}', {many})")),
            13 => one("INSERT INTO moments DEFAULT VALUES".into()),
            14 => {
                one(format!("INSERT INTO plain VALUES ('a{n}', random()) ON CONFLICT DO NOTHING"))
            }
            15 => one(format!("DELETE FROM plain WHERE a = 'a{n}'")),
            16 => one(format!("INSERT INTO counter(x) VALUES ({n}), ({n} / 0.3)")),
            17 => one("DELETE FROM counter WHERE id = (SELECT max(id) FROM counter)".into()),
            18 => one(format!("DELETE FROM ledger WHERE k = 'none{n}'")),
            19 | 20 => one(format!(
                "UPDATE account SET balance = (WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL \
                 SELECT x + 1 FROM c WHERE x < {many}) SELECT count(*) FROM c) WHERE id = {n}"
            )),
            21..=24 => one(self.reshape()),
            25 => one(self.break_out()),
            26 => one("INSERT INTO account(id, balance) VALUES (1, 1)".into()),
            27 => one(format!("INSERT INTO missing VALUES ({n})")),
            30..=33 => one(self.regrant()),
            28 => one(format!("INSERT INTO same VALUES ({n}), ({n}), ('x')")),
            _ => one(format!("DELETE FROM same WHERE rowid = {n}")),
        }
    }

    fn reshape(&mut self) -> String {
        let name = ["shape", "form", "figure"];
        let (from, to) = (self.random.choose(&name), self.random.choose(&name));
        let column = self.random.choose(&["a", "b", "c"]);
        match self.random.below(10) {
            0 | 1 => format!("ALTER TABLE {from} RENAME TO {to}"),
            2 => format!("ALTER TABLE {from} DROP COLUMN {column}"),
            3 => format!("ALTER TABLE {from} ADD COLUMN {column} REAL DEFAULT 7"),
            4 => format!("ALTER TABLE {from} RENAME COLUMN a TO {column}"),
            5 => format!("CREATE TABLE {to}(id INTEGER PRIMARY KEY, a, b REAL, c TEXT)"),
            6 => format!("DROP TABLE {from}"),
            7 => format!("CREATE INDEX i_{to} ON {from}({column})"),
            _ => format!("INSERT INTO {from}(b) VALUES (3), (4.5), ('x')"),
        }
    }

    /// Who may do what changes.
    fn regrant(&mut self) -> String {
        let user = self.random.choose(&["ann", "bob", "clerks", "PUBLIC"]);
        let on = self.random.choose(&["account", "shape", "form", "plain", "ALL", "ledger"]);
        let what = self.random.choose(&["SELECT", "INSERT, UPDATE", "CREATE", "ALL", "DELETE"]);
        match self.random.below(12) {
            0..=3 => format!("GRANT {what} ON {on} TO {user}"),
            4 | 5 => format!("REVOKE {what} ON {on} FROM {user}"),
            6 => format!("GRANT clerks TO {user}"),
            7 => format!("REVOKE clerks FROM {user}"),
            8 => format!("CREATE USER {user}"),
            9 => format!("DROP USER {user}"),
            10 => format!("ALTER USER {user} NOLOGIN"),
            _ => format!("ALTER ROLE {user} LOGIN"),
        }
    }

    fn break_out(&mut self) -> String {
        self.random
            .choose(&[
                "COMMIT",
                "ROLLBACK",
                "INSERT OR ROLLBACK INTO account(id, balance) VALUES (1, 1)",
                "PRAGMA foreign_keys = OFF",
                "PRAGMA user_version = 7",
                "ATTACH ':memory:' AS other",
                "VACUUM",
                "CREATE TABLE copied AS SELECT * FROM account",
                "CREATE TEMP TABLE hidden(x)",
                "DELETE FROM ledger LIMIT 1",
                "ANALYZE",
                "INSERT INTO account(id, balance) VALUES (9223372036854775807, 0)",
                "SELECT 1; SELECT 2",
                "",
            ])
            .into()
    }
}

/// The tables, made by client 0 in one transaction.
const TABLES: &[&str] = &[
    "CREATE TABLE ledger(k TEXT, n INTEGER)",
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance REAL NOT NULL)",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY, label TEXT UNIQUE)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id) \
     DEFERRABLE INITIALLY DEFERRED)",
    "CREATE TABLE nullable(p TEXT PRIMARY KEY, v)",
    "CREATE TABLE moments(id INTEGER PRIMARY KEY, at TEXT DEFAULT CURRENT_TIMESTAMP, \
     luck DEFAULT (random()))",
    "CREATE TABLE plain(a TEXT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID",
    "CREATE TABLE counter(id INTEGER PRIMARY KEY AUTOINCREMENT, x REAL)",
    "CREATE TABLE shape(id INTEGER PRIMARY KEY, a, b REAL, c TEXT)",
    "CREATE TABLE same(v)",
    "CREATE TABLE purse(id INTEGER PRIMARY KEY, v INTEGER NOT NULL)",
    "CREATE TABLE forged(x)",
    "INSERT INTO purse VALUES (1, 100), (2, 100), (3, 100), (4, 100), (5, 100)",
    "INSERT INTO account VALUES (1, 100)",
    "CREATE TRIGGER touched AFTER UPDATE ON account WHEN new.id = 1 \
     BEGIN INSERT INTO moments(id) VALUES (NULL); END",
];

/// Who is there at first beside the administrator.
const USERS: &[&str] = &[
    "CREATE USER ann",
    "CREATE USER bob",
    "CREATE ROLE clerks",
    "GRANT INSERT ON ledger TO PUBLIC",
    "GRANT INSERT ON forged TO keyed",
    "GRANT SELECT, INSERT ON account TO clerks",
    "GRANT clerks TO bob",
    "GRANT ALL ON shape TO ann",
];

fn plain(sql: impl Into<String>) -> Statement {
    Statement { sql: sql.into(), parameters: Parameters::Positional(Vec::new()) }
}

fn insert_row(key: &str, n: i64) -> Statement {
    Statement {
        sql: "INSERT INTO ledger(k, n) VALUES (?1, ?2)".into(),
        parameters: Parameters::Positional(vec![Value::Text(key.into()), Value::Integer(n)]),
    }
}
