//! How fast blocks are applied: `cargo run --release -p rota-store --example apply_speed`.
//!
//! Prints microseconds (by the clock, and on the processor, which is what counts on a busy machine)
//! per transaction for single-row inserts, single-row updates of a large table and bulk updates, at
//! several sizes of block, on one core, with the state root, in the file system of the temporary
//! folder.

use std::sync::Arc;
use std::time::Instant;

use rota_core::block::{Applied, Block, Body, Header, Kind, Turn};
use rota_core::crypto::{SecretKey, Signature};
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters as Knobs};
use rota_core::members::Member;
use rota_core::time::Time;
use rota_core::transaction::{
    Envelope, Expiry, Parameters, Settings, Statement, Transaction, Value,
};
use rota_core::types::{BlockId, Digest, Epoch, Height, MemberIndex, Slot};
use rota_store::StateDb;

/// How long ids are remembered: longer makes their table larger.
const EXPIRY_MS: u64 = 60_000;

struct Maker {
    genesis: Genesis,
    key: SecretKey,
    height: Height,
    time: Time,
    salt: u128,
}

impl Maker {
    fn block(&mut self, statements: Vec<Statement>) -> Block {
        self.height = self.height.next();
        self.time = Time(self.time.0 + 10);
        let transactions = statements
            .into_iter()
            .map(|statement| {
                self.salt += 1;
                Transaction {
                    salt: self.salt.to_le_bytes(),
                    user: "rota".into(),
                    statements: vec![statement],
                    settings: Settings::default(),
                    interactive: None,
                }
            })
            .collect();
        let expiry =
            Expiry { height: Height(self.height.0 + 900_000), time: Time(self.time.0 + EXPIRY_MS) };
        let signer = self.key.public();
        let envelope = Envelope { signer, expiry, transactions, signature: Signature([0; 64]) };
        let body = Body { parent_certificate: None, envelopes: vec![Arc::new(envelope)] };
        let header = Header {
            epoch: Epoch(0),
            slot: Slot(self.height.0),
            height: self.height,
            kind: Kind::Ordinary,
            parent: BlockId::default(),
            leader: MemberIndex(0),
            turn: Turn::Scheduled,
            time: self.time,
            applied: Applied::default(),
            body: body.digest(),
        };
        Block { header, body }
    }
}

fn statement(sql: &str, values: Vec<Value>) -> Statement {
    Statement { sql: sql.into(), parameters: Parameters::Positional(values) }
}

fn measure(what: &str, state: &mut StateDb, blocks: &[Block]) {
    let count: usize = blocks.iter().map(Block::transaction_count).sum();
    let (start, busy) = (Instant::now(), processor_us());
    for block in blocks {
        for receipt in state.apply(block).expect("applied").receipts {
            receipt.outcome.expect("succeeded");
        }
    }
    let (spent, busy) = (start.elapsed().as_secs_f64() * 1e6, processor_us() - busy);
    let (count, blocks) = (count.max(1) as f64, blocks.len() as f64);
    println!(
        "{what:<44} a transaction {:8.1} us, busy {:8.1} us; a block {:9.0} us, busy {:9.0} us",
        spent / count,
        busy / count,
        spent / blocks,
        busy / blocks
    );
}

/// What this thread has had of the processor, where the system says it.
fn processor_us() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let busy: Option<f64> = text.split(' ').next().and_then(|ns| ns.parse().ok());
    busy.unwrap_or(0.0) / 1e3
}

fn main() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let key = SecretKey::from_bytes([1; 32]);
    let genesis = Genesis {
        format: FORMAT,
        name: "speed".into(),
        time_ms: 1_700_000_000_000,
        method: Method::Poa,
        pow: None,
        seed: Digest::default(),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: rota_store::sqlite::identity(),
        parameters: Knobs::default(),
        members: vec![Member { key: key.public(), weight: 1 }],
    };
    let mut state = StateDb::open(home.path(), &genesis).expect("opened");
    let time = genesis.time();
    let mut maker = Maker { genesis, key, height: Height(0), time, salt: 0 };
    let create = "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)";
    state.apply(&maker.block(vec![statement(create, vec![])])).expect("created");
    let empty: Vec<Block> = (0..200).map(|_| maker.block(vec![])).collect();
    measure("empty blocks", &mut state, &empty);
    let text = || Value::Text("thirty bytes or so of some text".into());
    for size in [1, 10, 100, 1000] {
        let insert = |n: i64| {
            statement("INSERT INTO t(a, b) VALUES ($1, $2)", vec![Value::Integer(n), text()])
        };
        let blocks: Vec<Block> = (0..20_000 / size.max(20))
            .map(|n| maker.block((0..size).map(|k| insert(n * size + k)).collect()))
            .collect();
        measure(&format!("single-row inserts, {size} a block"), &mut state, &blocks);
    }
    let fill = "INSERT INTO t(a, b) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c
        WHERE i < 50000) SELECT i, 'filled' FROM c";
    let blocks: Vec<Block> = (0..10).map(|_| maker.block(vec![statement(fill, vec![])])).collect();
    measure("inserts of 50,000 rows each", &mut state, &blocks);
    let rows: i64 = 500_000;
    let mut place: i64 = 1;
    for size in [1, 10, 100, 1000] {
        let blocks: Vec<Block> = (0..20_000 / size.max(20))
            .map(|_| {
                let updates = (0..size).map(|_| {
                    place = (place * 48_271 + 11) % rows;
                    statement(
                        "UPDATE t SET a = a + 1 WHERE id = $1",
                        vec![Value::Integer(place + 1)],
                    )
                });
                let updates: Vec<_> = updates.collect();
                maker.block(updates)
            })
            .collect();
        measure(&format!("random updates of {rows} rows, {size} a block"), &mut state, &blocks);
    }
    let all = "UPDATE t SET a = a + 1 WHERE id BETWEEN 1 AND 100000";
    let blocks: Vec<Block> = (0..3).map(|_| maker.block(vec![statement(all, vec![])])).collect();
    measure("updates of 100,000 rows each", &mut state, &blocks);
    let root = state.applied().root;
    drop(state);
    let start = Instant::now();
    let mut state = StateDb::open(home.path(), &maker.genesis).expect("opened again");
    println!("opened again in {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(state.rescan().expect("rescanned").root, root);
    println!("all rows read again in {:?}", start.elapsed());
}
