//! What the tests of the state machine share: a genesis, blocks, and two servers that differ in all
//! that must not matter.

#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::Arc;

use rota_core::block::{Applied, Block, Body, Header, Kind, Turn};
use rota_core::crypto::SecretKey;
use rota_core::error::{Fault, Refusal};
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters as Knobs};
use rota_core::members::Member;
use rota_core::time::Time;
use rota_core::transaction::{
    Envelope, Expiry, Parameters, Settings, Statement, Transaction, Value,
};
use rota_core::types::{BlockId, Digest, Epoch, Height, MemberIndex, Slot};
use rota_store::{AppliedBlock, StateDb, StatementResult};
use tempfile::TempDir;

pub const START_MS: u64 = 1_700_000_000_000;

pub fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

pub fn genesis_with(parameters: Knobs) -> Genesis {
    Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: START_MS,
        method: Method::Poa,
        pow: None,
        seed: Digest::default(),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: rota_store::sqlite::identity(),
        parameters,
        members: (1..=4).map(|n| Member { key: key(n).public(), weight: 1 }).collect(),
    }
}

pub fn genesis() -> Genesis {
    genesis_with(Knobs::default())
}

pub fn statement(sql: &str, values: &[Value]) -> Statement {
    Statement { sql: sql.into(), parameters: Parameters::Positional(values.to_vec()) }
}

/// Makes blocks, one after another, with ever new salts.
pub struct Maker {
    pub genesis: Genesis,
    pub height: Height,
    pub time: Time,
    /// Under `pow` the first key's owner finds all blocks.
    pub turn: Turn,
    salt: u128,
}

impl Maker {
    pub fn new(genesis: Genesis) -> Self {
        let turn = match genesis.method {
            Method::Poa | Method::Raft => Turn::Scheduled,
            Method::Pow => Turn::Found { miner: key(1).public() },
        };
        Self { genesis, height: Height(0), time: Time(START_MS), turn, salt: 0 }
    }

    pub fn transaction(&mut self, statements: Vec<Statement>) -> Transaction {
        self.salt += 1;
        Transaction {
            salt: self.salt.to_le_bytes(),
            user: "rota".into(),
            statements,
            settings: Settings::default(),
            interactive: None,
        }
    }

    pub fn sql(&mut self, script: &str) -> Transaction {
        let statements =
            rota_store::sql::split(script).into_iter().map(|sql| statement(sql, &[])).collect();
        self.transaction(statements)
    }

    pub fn envelope(&self, signer: u8, transactions: Vec<Transaction>) -> Arc<Envelope> {
        let expiry =
            Expiry { height: Height(self.height.0 + 100), time: Time(self.time.0 + 60_000) };
        Arc::new(Envelope::sign(self.genesis.chain_id(), &key(signer), expiry, transactions))
    }

    pub fn block_of(&mut self, envelopes: Vec<Arc<Envelope>>) -> Block {
        self.height = self.height.next();
        self.time = Time(self.time.0 + 1_001);
        let body = Body { parent_certificate: None, envelopes };
        let header = Header {
            epoch: Epoch(0),
            slot: Slot(self.height.0),
            height: self.height,
            kind: Kind::Ordinary,
            parent: BlockId::default(),
            leader: MemberIndex(0),
            turn: self.turn,
            time: self.time,
            applied: Applied::default(),
            body: body.digest(),
        };
        Block { header, body }
    }

    pub fn block(&mut self, transactions: Vec<Transaction>) -> Block {
        let envelope = self.envelope(1, transactions);
        self.block_of(vec![envelope])
    }
}

/// Two servers with the same genesis. The second is opened anew before every block, has a tiny
/// cache and other work behind it; whatever they show must be the same.
pub struct Pair {
    pub maker: Maker,
    pub warm: StateDb,
    cold: Option<StateDb>,
    homes: [TempDir; 2],
    pub reopen: bool,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(genesis())
    }

    pub fn with(genesis: Genesis) -> Self {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [warm, cold] =
            homes.each_ref().map(|home| StateDb::open(home.path(), &genesis).unwrap());
        assert_eq!(warm.applied(), cold.applied());
        Self { maker: Maker::new(genesis), warm, cold: Some(cold), homes, reopen: true }
    }

    pub fn home(&self) -> PathBuf {
        self.homes[0].path().to_owned()
    }

    pub fn genesis(&self) -> &Genesis {
        &self.maker.genesis
    }

    pub fn cold(&mut self) -> &mut StateDb {
        let (homes, genesis) = (&self.homes, &self.maker.genesis);
        self.cold.get_or_insert_with(|| StateDb::open(homes[1].path(), genesis).unwrap())
    }

    pub fn apply(&mut self, block: &Block) -> Result<AppliedBlock, Fault> {
        if self.reopen {
            self.cold = None;
        }
        let cold = self.cold().apply(block)?;
        let warm = self.warm.apply(block)?;
        assert_eq!(warm.receipts, cold.receipts);
        assert_eq!(warm.applied, cold.applied);
        Ok(warm)
    }

    /// Applies a block of these transactions and says what became of each.
    pub fn block(&mut self, transactions: Vec<Transaction>) -> Vec<Outcome> {
        let block = self.maker.block(transactions);
        let applied = self.apply(&block).unwrap();
        applied.receipts.into_iter().map(|receipt| receipt.outcome).collect()
    }

    /// A block of one transaction.
    pub fn sql(&mut self, script: &str) -> Outcome {
        let transaction = self.maker.sql(script);
        self.block(vec![transaction]).remove(0)
    }

    /// A block of one transaction that must succeed.
    pub fn run(&mut self, script: &str) -> Vec<StatementResult> {
        self.sql(script).unwrap_or_else(|refusal| panic!("{script}: {refusal}"))
    }

    /// A block of one transaction that must fail; its SQLSTATE.
    pub fn refused(&mut self, script: &str) -> String {
        match self.sql(script) {
            Ok(results) => panic!("{script}: gave {results:?}"),
            Err(refusal) => refusal.code().to_owned(),
        }
    }

    /// The rows of a query, run as a transaction.
    pub fn rows(&mut self, query: &str) -> Vec<Vec<Value>> {
        self.run(query).remove(0).rows.rows
    }

    /// Whether root and leaves are those of all rows read again, on both servers.
    pub fn check(&mut self) {
        for state in [&mut self.warm, self.cold.as_mut().unwrap()] {
            let rescan = state.rescan().unwrap();
            assert_eq!(rescan.differing, []);
            assert_eq!(rescan.root, state.applied().root);
        }
    }
}

pub type Outcome = Result<Vec<StatementResult>, Refusal>;
