//! A long chain under `pow`, made without a network: what somebody who joins has to check from the
//! first block on (steps 6 and 7). The blocks are empty, a second apart, and end now; every one is
//! searched for, executed and written as a server does it, only that time is passed in and the
//! target is the easiest there is.
//!
//! ```sh
//! cargo run --release -p rota-store --example long_chain -- long 50000
//! rota join --genesis long/genesis.json --bootstrap 127.0.0.1:7001 --out has
//! cp long/*.db has && rota start --home has &
//! rota join --genesis long/genesis.json --bootstrap 127.0.0.1:7001 --port-offset 10 --out joins
//! rota start --home joins        # its log says how many headers and blocks a second
//! ```

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rota_core::block::Block;
use rota_core::crypto::SecretKey;
use rota_core::error::{Invalid, Refusal};
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters, Pow};
use rota_core::journal::Recovered;
use rota_core::message::{Message, Offer, Recipient};
use rota_core::replica::{Input, Replica};
use rota_core::time::{Instant, Now, Time};
use rota_core::transaction::Envelope;
use rota_core::types::{Digest, Height, NodeId, StateRoot, TransactionId};
use rota_core::work::{Search, SearchJob, Step};
use rota_store::chain_db::ChainDb;
use rota_store::files::Files;
use rota_store::host::{Host, Io};

/// Every second hash meets this target.
const EASIEST: u32 = 0x207f_ffff;

/// Blocks are so far apart, in seconds, and so are the times that they say.
const SPACING_S: u32 = 1;

/// How often it is told how far it is.
const TELL_EVERY: u64 = 5_000;

/// What the replica asked for, until it is done.
#[derive(Default)]
struct Asked {
    search: Option<SearchJob>,
    apply: VecDeque<Arc<Block>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, blocks] = words.as_slice() else {
        return Err("usage: long_chain FOLDER BLOCKS".into());
    };
    let (home, blocks) = (Path::new(folder), blocks.parse::<u64>()?);
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let begins_s = now_s.saturating_sub(blocks.saturating_add(1) * u64::from(SPACING_S));
    let genesis = genesis(begins_s);
    std::fs::create_dir_all(home)?;
    std::fs::write(home.join("genesis.json"), serde_json::to_string_pretty(&genesis)?)?;
    drop(ChainDb::open(home, &genesis)?);
    // Whose account the rewards are on does not matter here.
    let key = SecretKey::from_bytes([1; 32]);

    let Files { mut state, chain, .. } = Files::open(home, &genesis)?;
    let at = |height: u64| {
        let passed = Duration::from_secs(height.saturating_mul(u64::from(SPACING_S)));
        Now { instant: Instant(0).plus(passed), clock: Time(begins_s * 1_000).plus(passed) }
    };
    let mut asked = Asked::default();
    let (replica, first) =
        Replica::new(&genesis, key, Recovered::default(), state.applied(), at(0))?;
    let mut host = Host::start(replica, chain, first, &mut asked)?;
    host.handle(at(0), [Input::Mine(true)], &mut asked)?;
    for height in 1..=blocks {
        let job = asked.search.take().ok_or("the replica has nothing to search for")?;
        let Step::Found(proof) = Search::new(job).step(u32::MAX) else {
            return Err("no nonce will do".into());
        };
        host.handle(at(height), [Input::Found(proof)], &mut asked)?;
        while let Some(block) = asked.apply.pop_front() {
            let done = state.apply(&block)?;
            host.journal().save_receipts(done.receipts);
            host.handle(at(height), [Input::Applied(done.applied)], &mut asked)?;
        }
        if height.is_multiple_of(TELL_EVERY) || height == blocks {
            println!("{height} blocks");
        }
    }
    Ok(())
}

fn genesis(begins_s: u64) -> Genesis {
    Genesis {
        format: FORMAT,
        name: "long".into(),
        time_ms: begins_s.saturating_mul(1_000),
        method: Method::Pow,
        seed: Digest([0; 32]),
        trusted_servers: false,
        sqlite: rota_store::sqlite::identity(),
        parameters: Parameters::default(),
        pow: Some(Pow { spacing_s: SPACING_S, bits: EASIEST, ..Pow::default() }),
        members: Vec::new(),
        administrators: vec![Administrator::open("rota")],
    }
}

impl Io for Asked {
    fn apply(&mut self, block: Arc<Block>) {
        self.apply.push_back(block);
    }

    fn search(&mut self, job: Option<SearchJob>) {
        self.search = job;
    }

    fn report(&mut self, line: String) {
        println!("{line}");
    }

    // There is nobody else, and no client.
    fn send(&mut self, _: Recipient, _: Message) {}
    fn ahead(&mut self, _: Arc<Block>) {}
    fn wake(&mut self, _: Instant) {}
    fn admitted(&mut self, _: Arc<Envelope>) {}
    fn notarized(&mut self, _: Vec<Arc<Block>>) {}
    fn barrier(&mut self, _: u64, _: Result<Height, Refusal>) {}
    fn dropped(&mut self, _: Vec<TransactionId>, _: Refusal) {}
    fn punish(&mut self, _: NodeId, _: Invalid) {}
    fn chunk(&mut self, _: Height, _: u32, _: Vec<u8>) {}
    fn restore(&mut self, _: Offer, _: NodeId) {}
    fn rewind(&mut self, _: Height) {}

    fn diverged(&mut self, _: Height, _: StateRoot, _: StateRoot) {}
}
