//! The beginning of a run: a genesis, servers with empty homes, and what is scheduled.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rota_core::crypto::SecretKey;
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method};
use rota_core::members::Member;
use rota_core::types::{ChainId, Digest, MemberIndex};
use rota_core::verify::Verifier;
use rota_store::sqlite::identity;
use tempfile::TempDir;

use crate::check::Monitor;
use crate::clients::{Clients, operator};
use crate::liar::Liar;
use crate::network::Network;
use crate::random::Random;
use crate::readers::Readers;
use crate::scenario::Plan;
use crate::server::Server;
use crate::trace::Trace;
use crate::world::{Event, World};
use crate::{Counters, SECOND};

/// The date at which all runs begin: 2026-01-01.
const BEGINNING_MS: u64 = 1_767_225_600_000;

impl World {
    pub(crate) fn new(plan: Plan, loud: bool) -> Self {
        let mut luck = Random::new(plan.seed);
        let keys: Vec<SecretKey> =
            (0..plan.servers).map(|_| SecretKey::from_bytes(luck.bytes())).collect();
        let genesis = genesis(&plan, &keys);
        let chain = genesis.chain_id();
        let members = genesis.check().expect("a plan makes a good genesis");
        let met: Rc<RefCell<Counters>> = Rc::default();
        let homes = homes();
        let servers = keys
            .iter()
            .enumerate()
            .map(|(i, key)| {
                let home = homes.path().join(format!("server-{i}"));
                std::fs::create_dir(&home).expect("a fresh folder");
                let clock = plan.clocks[i];
                let mut server = Server::new(key.clone(), home, clock, luck.fork(), met.clone());
                server.keep_blocks = plan.keep_blocks;
                server.hash_rate = plan.hash_rates.get(i).copied().unwrap_or(0);
                server
            })
            .collect();
        let honest: Vec<bool> = (0..plan.servers).map(|i| !plan.is_liar(i)).collect();
        let signers: Vec<SecretKey> = keys
            .iter()
            .zip(&honest)
            .filter(|&(_, &honest)| honest)
            .take(plan.members())
            .map(|(k, _)| k.clone())
            .collect();
        let signers = if plan.method == Method::Pow { vec![operator()] } else { signers };
        let clients = Clients::new(chain, &plan.clients, &signers, &mut luck);
        let readers = Readers::new(&plan.readers, &mut luck);
        let mut world = Self {
            now: 0,
            network: Network::new(plan.servers, plan.weather.clone(), luck.fork()),
            liars: liars(&plan, chain, &keys, &mut luck),
            cut_off: vec![false; plan.servers],
            down_for: vec![SECOND; plan.servers],
            queue: BTreeMap::new(),
            scheduled: 0,
            clients,
            readers,
            monitor: Monitor::new(
                chain,
                plan.method,
                keys.iter().map(SecretKey::public).collect(),
                honest,
                plan.members(),
                plan.may_rewind,
            ),
            verifier: Verifier::new(&genesis, members),
            trace: Trace::new(loud),
            met,
            became: BTreeMap::new(),
            diverged: Vec::new(),
            found: Vec::new(),
            rewound: Vec::new(),
            clock_range: (i64::MAX, 0),
            over: false,
            homes,
            servers,
            genesis,
            luck,
            plan,
        };
        world.clocks_changed();
        world
    }

    pub(crate) fn begin(&mut self) {
        for server in 0..self.servers.len() {
            self.start(server);
        }
        for number in 0..self.clients.all.len() {
            let at = self.clients.all[number].plan.start + self.luck.below(1_000);
            self.schedule(at, Event::Client { number, tries: 0 });
        }
        for number in 0..self.readers.len() {
            let at = self.luck.below(SECOND);
            self.schedule(at, Event::Read { number, tries: 0 });
        }
        for (at, step) in self.plan.script.clone() {
            self.schedule(at, Event::Befall(step));
        }
        if !self.plan.faults.is_empty() {
            self.schedule(self.plan.fault_every, Event::DrawFault);
        }
        self.schedule(self.plan.faults_end, Event::FaultsEnd);
    }
}

fn genesis(plan: &Plan, keys: &[SecretKey]) -> Genesis {
    let is_open = plan.method == Method::Pow;
    let administrator = match is_open {
        true => Administrator { key: Some(operator().public()), ..Administrator::open("rota") },
        false => Administrator::open("rota"),
    };
    let members = if is_open { &[] } else { &keys[..plan.members()] };
    Genesis {
        format: FORMAT,
        name: "simulated".into(),
        time_ms: BEGINNING_MS,
        method: plan.method,
        pow: plan.pow.clone(),
        seed: Digest::default(),
        trusted_servers: !is_open,
        administrators: vec![administrator],
        sqlite: identity(),
        parameters: plan.parameters.clone(),
        members: members.iter().map(|key| Member { key: key.public(), weight: 1 }).collect(),
    }
}

fn liars(
    plan: &Plan,
    chain: ChainId,
    keys: &[SecretKey],
    luck: &mut Random,
) -> BTreeMap<usize, Liar> {
    let mut liars = BTreeMap::new();
    for liar in &plan.liars {
        let key = keys[liar.server].clone();
        let member = MemberIndex(u16::try_from(liar.server).expect("few servers"));
        let others = keys.iter().map(SecretKey::public).filter(|&k| k != key.public()).collect();
        let behaviours = liar.behaviours.clone();
        let liar_there = Liar::new(chain, key, member, others, behaviours, luck.fork());
        liars.insert(liar.server, liar_there);
    }
    liars
}

/// A folder for the servers' homes, in memory where the system offers that: these disks lose what
/// we say they lose.
fn homes() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let builder = |at: &Path| tempfile::Builder::new().prefix("rota-sim-").tempdir_in(at);
    builder(&memory).or_else(|_| tempfile::tempdir()).expect("room for temporary files")
}
