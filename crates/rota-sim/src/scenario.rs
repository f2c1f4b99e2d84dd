//! What happens in a run besides the servers' own doing: how many there are, who lies, what the
//! network and the clocks are like, which faults come how often, and what clients write. A swarm
//! draws all of it from the seed: a random subset of the kinds of fault, at random rates. The named
//! scenarios fix what they are about.

mod pow;
mod raft;

pub(crate) use pow::MOST_CLOCK_MS;

use rota_core::genesis::{Method, Parameters, Pow};
use rota_core::types::Height;

use crate::clients::{ClientPlan, Mix, PATIENCE};
use crate::liar::Behaviour;
use crate::network::Weather;
use crate::random::Random;
use crate::readers::ReaderPlan;
use crate::{Fault, Micros, SECOND};

/// Ten years in milliseconds: how far off a clock of the worst kind is.
pub const DECADE_MS: i64 = 10 * 365 * 86_400_000;

/// One thing that befalls the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stops at once and comes back so much later.
    Crash {
        /// Which server.
        server: usize,
        /// For how long.
        down: Micros,
    },
    /// Stops at its `outputs`-th output from here, in the middle of whatever it does.
    CrashAt {
        /// Which server.
        server: usize,
        /// After how many outputs.
        outputs: u64,
        /// For how long.
        down: Micros,
    },
    /// All stop at once.
    CrashAll {
        /// For how long.
        down: Micros,
    },
    /// Whoever leads now stops.
    CrashLeader {
        /// For how long.
        down: Micros,
    },
    /// Does nothing for a while, then goes on.
    Freeze {
        /// Which server.
        server: usize,
        /// For how long.
        length: Micros,
    },
    /// Whoever leads now does nothing for a while.
    FreezeLeader {
        /// For how long.
        length: Micros,
    },
    /// Whoever leads now hears and is heard of by nobody.
    CutOffLeader,
    /// It tries so many nonces in a second from now on (`pow`).
    HashRate {
        /// Which server.
        server: usize,
        /// How many.
        per_second: u64,
    },
    /// Its disk takes so long for every append.
    SlowDisk {
        /// Which server.
        server: usize,
        /// How long an append takes.
        fsync: Micros,
    },
    /// It takes so long to execute a block.
    SlowApply {
        /// Which server.
        server: usize,
        /// How long a block takes.
        apply: Micros,
    },
    /// Both directions between the two sides are cut.
    Partition {
        /// Who is on the one side.
        side: Vec<bool>,
    },
    /// One direction is cut.
    CutOneWay {
        /// From whom.
        from: usize,
        /// To whom.
        to: usize,
    },
    /// It must have noticed by now that it leads no more: nobody has heard of it for long enough.
    LeadsNoMore {
        /// Which server.
        server: usize,
    },
    /// All links are mended.
    Heal,
    /// The wall clock jumps by so much.
    Jump {
        /// Which server.
        server: usize,
        /// By how many milliseconds.
        by_ms: i64,
    },
    /// A value in one row of its database changes by itself.
    FlipRow {
        /// Which server.
        server: usize,
    },
}

/// A member that lies, and how.
#[derive(Clone, Debug)]
pub struct LiarPlan {
    /// Which server.
    pub server: usize,
    /// What it does.
    pub behaviours: Vec<Behaviour>,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenario's name, to replay it.
    pub name: &'static str,
    /// The seed, to replay it.
    pub seed: u64,
    /// How its servers agree.
    pub method: Method,
    /// How many servers.
    pub servers: usize,
    /// How many of them, the last ones, are no members and follow (`poa`, `raft`).
    pub followers: usize,
    /// What `pow` needs.
    pub pow: Option<Pow>,
    /// How many nonces each server tries in a second (`pow`).
    pub hash_rates: Vec<u64>,
    /// How many blocks each server keeps; with 0 all.
    pub keep_blocks: u64,
    /// Whether the scenario is stronger than the depth promises (`pow`): then blocks that are final
    /// may be undone.
    pub may_rewind: bool,
    /// The run goes on until all have this final height.
    pub until: Height,
    /// The genesis's knobs.
    pub parameters: Parameters,
    /// The network while faults go on.
    pub weather: Weather,
    /// Who lies; less than a third.
    pub liars: Vec<LiarPlan>,
    /// How far each wall clock is off at first, in milliseconds.
    pub clocks: Vec<i64>,
    /// Whose clocks count as the majority's: block time must stay with these.
    pub true_clocks: Vec<bool>,
    /// Faults that are drawn while the run goes on.
    pub faults: Vec<Fault>,
    /// The mean time between two of them.
    pub fault_every: Micros,
    /// Whether fewer than a third are faulty at any time: then writes must go on.
    pub limited: bool,
    /// Things that happen at their times.
    pub script: Vec<(Micros, Step)>,
    /// When faults end.
    pub faults_end: Micros,
    /// How long after that everything must have converged.
    pub settle: Micros,
    /// What clients do.
    pub clients: Vec<ClientPlan>,
    /// What clients do that read.
    pub readers: Vec<ReaderPlan>,
}

impl Plan {
    /// How many servers are members, or (`pow`) all.
    pub fn members(&self) -> usize {
        self.servers - self.followers
    }

    /// How many members may be faulty while the rest goes on: fewer than a third, of those that
    /// trust each other fewer than half.
    pub fn tolerated(&self) -> usize {
        match self.method {
            Method::Poa | Method::Pow => (self.members() - 1) / 3,
            Method::Raft => (self.members() - 1) / 2,
        }
    }

    /// How long a client waits for an answer before it asks another server.
    pub fn patience(&self) -> Micros {
        match &self.pow {
            None => PATIENCE,
            // Thrice as long as it takes to be so deep, and some blocks more.
            Some(pow) => u64::from(pow.spacing_s) * (u64::from(pow.depth) + 4) * 3 * SECOND,
        }
    }

    /// Whether messages come in time all the while: nobody is cut off, frozen or down, and nothing
    /// is lost or held up.
    pub fn weather_is_calm(&self) -> bool {
        let drawn = self.name == "swarm";
        let jumps = |(_, step): &(Micros, Step)| matches!(step, Step::Jump { .. });
        !drawn && self.script.iter().all(jumps) && self.weather.hold + self.weather.loss == 0
    }

    /// Whether a server lies.
    pub fn is_liar(&self, server: usize) -> bool {
        self.liars.iter().any(|liar| liar.server == server)
    }

    /// Four honest servers, calm weather, true clocks, no faults, some plain writers.
    pub fn calm(name: &'static str, seed: u64) -> Self {
        Self {
            name,
            seed,
            method: Method::Poa,
            servers: 4,
            followers: 0,
            pow: None,
            hash_rates: Vec::new(),
            keep_blocks: 0,
            may_rewind: false,
            until: Height(0),
            parameters: knobs(),
            weather: Weather::calm(),
            liars: Vec::new(),
            clocks: vec![0; 4],
            true_clocks: vec![true; 4],
            faults: Vec::new(),
            fault_every: SECOND,
            limited: true,
            script: Vec::new(),
            faults_end: 5 * SECOND,
            settle: 20 * SECOND,
            clients: writers(3, 10, SECOND / 4, Mix::Plain),
            readers: readers(2, 10, SECOND / 4),
        }
    }

    /// The swarm of a method.
    pub fn swarm_of(method: Method, seed: u64) -> Self {
        match method {
            Method::Poa => Self::swarm(seed),
            Method::Raft => raft::swarm(seed),
            Method::Pow => pow::swarm(seed),
        }
    }

    /// Everything drawn from the seed.
    pub fn swarm(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x5a5a_0000_5a5a);
        let servers = random.choose(&[4, 4, 4, 4, 4, 5, 7, 3, 1]);
        let mut plan = Self::calm("swarm", seed);
        plan.servers = servers;
        plan.limited = random.per_mille(600);
        plan.parameters.turn_length = random.choose(&[1, 2, 4, 4, 10]);
        plan.parameters.slot_timeout_ms = random.choose(&[100, 300, 300, 500]);
        plan.parameters.lag = random.choose(&[4, 8, 64]);
        plan.parameters.idle_ms = random.choose(&[1_000, 5_000, 60_000]);
        plan.parameters.block_transactions = random.choose(&[1, 3, 1_000]);
        plan.weather = weather(random);
        plan.faults_end = random.between(4, 25) * SECOND;
        plan.settle = 90 * SECOND;
        let rest = random.between(1, 20);
        plan.faults = FAULT_KINDS.iter().copied().filter(|_| random.below(20) < rest).collect();
        plan.fault_every = random.between(SECOND / 5, 4 * SECOND);
        plan.clocks = clocks(servers, random);
        plan.true_clocks = vec![true; servers];
        if plan.tolerated() > 0 && random.per_mille(300) {
            let wrong = random.index(servers);
            plan.clocks[wrong] = random.choose(&[1, 3, -1]) * DECADE_MS;
            plan.true_clocks[wrong] = false;
        } else if plan.tolerated() > 0 && random.per_mille(500) {
            plan.liars = liars(&plan, random);
        }
        let writers_count = usize::try_from(random.between(1, 5)).expect("small");
        let writes = random.between(3, 25);
        let think = random.between(SECOND / 100, SECOND);
        let mixes = [Mix::Plain, Mix::Hostile, Mix::Hostile, Mix::Transfers, Mix::Keyed];
        let mix = random.choose(&mixes);
        plan.clients = writers(writers_count, writes, think, mix);
        let readers_count = usize::try_from(random.between(0, 3)).expect("small");
        plan.readers = readers(readers_count, random.between(3, 25), think);
        plan
    }

    /// The plan of a scenario by its name.
    pub fn named(name: &str, seed: u64) -> Option<Self> {
        let (_, plan) = SCENARIOS.iter().find(|(known, _)| *known == name)?;
        Some(plan(seed))
    }
}

/// Makes a plan from a seed.
pub type Scenario = fn(u64) -> Plan;

/// All scenarios by name.
pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("swarm", Plan::swarm),
    ("calm", |seed| Plan::calm("calm", seed)),
    ("equivocating-leader", equivocating_leader),
    ("double-voter", double_voter),
    ("lone-liar", lone_liar),
    ("wrong-clocks", wrong_clocks),
    ("dead-leader-idle", dead_leader_idle),
    ("three-of-four-gone", three_of_four_gone),
    ("all-crash", all_crash),
    ("flipped-row", flipped_row),
    ("transfers", transfers),
    ("far-behind", far_behind),
    ("hostile-sql", hostile_sql),
    ("lied-to-readers", lied_to_readers),
    ("reads-alone", reads_alone),
    ("followers", followers),
    ("raft-swarm", raft::swarm),
    ("raft-calm", raft::calm),
    ("raft-frozen-leader", raft::frozen_leader),
    ("raft-leader-alone", raft::leader_alone),
    ("raft-killed-leaders", raft::killed_leaders),
    ("raft-all-crash", raft::all_crash),
    ("raft-followers", raft::followers),
    ("raft-flipped-row", raft::flipped_row),
    ("pow-swarm", pow::swarm),
    ("pow-calm", pow::calm),
    ("pow-six", pow::six_servers),
    ("pow-heals", pow::heals),
    ("pow-deep", pow::deep),
    ("pow-late", pow::late),
    ("pow-lone-liar", pow::lone_liar),
];

/// The kinds of fault that a swarm draws from.
const FAULT_KINDS: &[Fault] = &[
    Fault::Crash,
    Fault::CrashAtOutput,
    Fault::CrashAll,
    Fault::Freeze,
    Fault::SlowDisk,
    Fault::SlowApply,
    Fault::Partition,
    Fault::OneWay,
    Fault::ClockJump,
];

fn equivocating_leader(seed: u64) -> Plan {
    let mut plan = Plan::calm("equivocating-leader", seed);
    plan.liars = vec![LiarPlan { server: 1, behaviours: vec![Behaviour::TwoBlocks] }];
    plan
}

fn double_voter(seed: u64) -> Plan {
    let mut plan = Plan::calm("double-voter", seed);
    let behaviours = vec![Behaviour::TwoBlocks, Behaviour::VotesTwice];
    plan.liars = vec![LiarPlan { server: 2, behaviours }];
    plan.weather.hold = 100;
    plan.weather.hold_max = SECOND / 2;
    plan
}

/// One behaviour after the other, by the seed.
fn lone_liar(seed: u64) -> Plan {
    let mut plan = Plan::calm("lone-liar", seed);
    let which = usize::try_from(seed % Behaviour::ALL.len() as u64).expect("below their number");
    plan.liars = vec![LiarPlan { server: 3, behaviours: vec![Behaviour::ALL[which]] }];
    plan.parameters.turn_length = 1;
    // Somebody has to catch up, or nobody asks for history that could be false.
    plan.limited = false;
    plan.weather.loss = 50;
    plan.script = vec![(SECOND, Step::Crash { server: 0, down: SECOND })];
    plan.clients = writers(3, 15, SECOND / 3, Mix::Hostile);
    plan.settle = 60 * SECOND;
    plan
}

/// Minutes apart, one decades ahead, all jumping, between them the decades.
fn wrong_clocks(seed: u64) -> Plan {
    let mut plan = Plan::calm("wrong-clocks", seed);
    plan.clocks = vec![-240_000, 3 * DECADE_MS, 60_000, 300_000];
    plan.true_clocks = vec![true, false, true, true];
    let random = &mut Random::new(seed);
    for at in 1..40 {
        let by_ms = i64::try_from(random.below(240_000)).expect("small") - 120_000;
        let server = random.index(4);
        let by_ms = if server == 1 { by_ms * 100_000 } else { by_ms };
        plan.script.push((at * SECOND / 8, Step::Jump { server, by_ms }));
    }
    plan
}

/// A lone write after the leader died and everybody fell idle.
fn dead_leader_idle(seed: u64) -> Plan {
    let mut plan = Plan::calm("dead-leader-idle", seed);
    plan.script = vec![(20 * SECOND, Step::CrashLeader { down: 30 * SECOND })];
    plan.faults_end = 40 * SECOND;
    plan.clients = writers(1, 5, SECOND, Mix::Plain);
    let late = ClientPlan { start: 30 * SECOND, writes: 1, think: 0, mix: Mix::Plain };
    plan.clients.push(late);
    plan
}

fn three_of_four_gone(seed: u64) -> Plan {
    let mut plan = Plan::calm("three-of-four-gone", seed);
    plan.limited = false;
    plan.script = (1..4)
        .map(|server| {
            let down = (server as u64 + 2) * 2 * SECOND;
            (2 * SECOND, Step::Crash { server, down })
        })
        .collect();
    plan.faults_end = 12 * SECOND;
    plan.clients = writers(3, 20, SECOND / 2, Mix::Plain);
    plan
}

fn all_crash(seed: u64) -> Plan {
    let mut plan = Plan::calm("all-crash", seed);
    plan.limited = false;
    let down = SECOND;
    plan.script = [1, 4, 7].map(|at| (at * SECOND + 123, Step::CrashAll { down })).to_vec();
    plan.faults_end = 10 * SECOND;
    plan.clients = writers(4, 30, SECOND / 10, Mix::Hostile);
    plan
}

fn flipped_row(seed: u64) -> Plan {
    let mut plan = Plan::calm("flipped-row", seed);
    plan.script = vec![(SECOND, Step::FlipRow { server: 2 })];
    plan.faults_end = 8 * SECOND;
    plan.clients = writers(3, 30, SECOND / 4, Mix::Sums);
    plan
}

fn transfers(seed: u64) -> Plan {
    let mut plan = Plan::calm("transfers", seed);
    plan.clients = writers(5, 40, SECOND / 20, Mix::Transfers);
    plan
}

fn far_behind(seed: u64) -> Plan {
    let mut plan = Plan::calm("far-behind", seed);
    plan.script = vec![(SECOND, Step::Crash { server: 3, down: 20 * SECOND })];
    plan.parameters.block_transactions = 1;
    plan.faults_end = 21 * SECOND;
    plan.clients = writers(3, 80, SECOND / 4, Mix::Plain);
    plan
}

fn hostile_sql(seed: u64) -> Plan {
    let mut plan = Plan::calm("hostile-sql", seed);
    plan.clients = writers(4, 40, SECOND / 10, Mix::Hostile);
    plan.script = vec![
        (2 * SECOND, Step::Crash { server: 1, down: SECOND }),
        (3 * SECOND, Step::Crash { server: 2, down: SECOND }),
    ];
    plan
}

/// A liar answers readers with slots that never come, and another server does not answer at all.
fn lied_to_readers(seed: u64) -> Plan {
    let mut plan = Plan::calm("lied-to-readers", seed);
    let behaviours = vec![Behaviour::LiesAboutFinalizing];
    plan.liars = vec![LiarPlan { server: 3, behaviours }];
    if seed % 2 == 1 {
        plan.limited = false;
        plan.script = vec![(SECOND, Step::Crash { server: 0, down: 3 * SECOND })];
    }
    plan.readers = readers(3, 20, SECOND / 4);
    plan
}

/// Readers of a cluster in which nobody writes.
fn reads_alone(seed: u64) -> Plan {
    let mut plan = Plan::calm("reads-alone", seed);
    plan.clients = Vec::new();
    plan.readers = readers(3, 20, SECOND / 4);
    plan
}

/// Two servers that are no members follow; one of them is down for a while, and a member too.
fn followers(seed: u64) -> Plan {
    let mut plan = Plan::calm("followers", seed);
    plan.servers = 6;
    plan.followers = 2;
    plan.clocks = vec![0; 6];
    plan.true_clocks = vec![true; 6];
    plan.script = vec![
        (SECOND, Step::Crash { server: 5, down: 2 * SECOND }),
        (2 * SECOND, Step::Crash { server: 1, down: SECOND }),
    ];
    plan
}

/// Budgets small enough that clients reach them.
fn knobs() -> Parameters {
    Parameters { transaction_steps: 200_000, block_steps: 600_000, ..Parameters::default() }
}

fn writers(clients: usize, writes: u64, think: Micros, mix: Mix) -> Vec<ClientPlan> {
    (0..clients).map(|_| ClientPlan { start: 0, writes, think, mix }).collect()
}

fn readers(count: usize, reads: u64, think: Micros) -> Vec<ReaderPlan> {
    (0..count).map(|_| ReaderPlan { reads, think }).collect()
}

fn weather(random: &mut Random) -> Weather {
    let mut weather = Weather::calm();
    weather.delay_max = random.choose(&[300, 1_000, 5_000, 40_000]);
    if random.per_mille(500) {
        weather.loss = random.choose(&[5, 20, 100, 250]);
    }
    if random.per_mille(500) {
        weather.duplicate = random.choose(&[10, 100, 300]);
    }
    if random.per_mille(500) {
        weather.hold = random.choose(&[10, 100, 300]);
        weather.hold_max = random.choose(&[SECOND / 20, SECOND / 2, 3 * SECOND]);
    }
    weather
}

/// True, or up to five minutes off either way.
fn clocks(servers: usize, random: &mut Random) -> Vec<i64> {
    let spread = random.choose(&[0, 0, 50, 10_000, 300_000]);
    (0..servers)
        .map(|_| i64::try_from(random.below(2 * spread + 1)).expect("small") - spread as i64)
        .collect()
}

fn liars(plan: &Plan, random: &mut Random) -> Vec<LiarPlan> {
    let mut all: Vec<usize> = (0..plan.servers).collect();
    let count = random.between(1, plan.tolerated() as u64);
    (0..count)
        .map(|_| {
            let server = all.swap_remove(random.index(all.len()));
            // Many lies at once hide each other: often there is but one.
            let most = random.choose(&[0, Behaviour::ALL.len() as u64]);
            let rest = random.between(0, most);
            let mut behaviours: Vec<Behaviour> = Behaviour::ALL
                .iter()
                .copied()
                .filter(|_| random.below(Behaviour::ALL.len() as u64) < rest)
                .collect();
            if behaviours.is_empty() {
                behaviours.push(random.choose(&Behaviour::ALL));
            }
            LiarPlan { server, behaviours }
        })
        .collect()
}
