//! Scenarios of `pow`: miners, and servers that only follow the chain with the most work.

use rota_core::genesis::{Method, Pow};
use rota_core::types::Height;
use rota_core::work::Retarget;

use super::{LiarPlan, Plan, Step, weather, writers};
use crate::clients::Mix;
use crate::liar::Behaviour;
use crate::random::Random;
use crate::{Fault, Micros, SECOND};

/// A target that one hash in 1,024 meets: real searches, and no time lost over them.
const BITS: u32 = 0x2000_4000;

/// The mean number of hashes that it takes.
const HASHES: u64 = 1_024;

/// The time between two blocks, in seconds.
const SPACING_S: u32 = 2;

/// The same in the simulator's unit.
const SPACING: Micros = SPACING_S as u64 * SECOND;

/// Clocks differ by so many milliseconds from the true time at most: a third of what a header may
/// be ahead of the receiver's clock.
pub(crate) const MOST_CLOCK_MS: u64 = 8_000;

/// One liar among so many, with a third of an honest miner's speed, has less than a tenth of the
/// hash power.
const MINERS_WITH_A_LIAR: usize = 4;

/// See [`MINERS_WITH_A_LIAR`].
const LIARS_PART: u64 = 3;

/// The kinds of fault that a swarm draws from.
const FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::CrashAtOutput,
    Fault::Freeze,
    Fault::SlowDisk,
    Fault::SlowApply,
    Fault::Partition,
    Fault::OneWay,
    Fault::ClockJump,
    Fault::HashRate,
];

impl Plan {
    /// So many miners, and so many servers that do not mine, in calm weather; none has a hash rate.
    pub fn miners(name: &'static str, seed: u64, miners: usize, others: usize, pow: Pow) -> Self {
        let mut plan = Self::calm(name, seed);
        plan.method = Method::Pow;
        plan.servers = miners + others;
        plan.clocks = vec![0; plan.servers];
        plan.true_clocks = vec![true; plan.servers];
        plan.hash_rates = vec![0; plan.servers];
        plan.pow = Some(pow);
        plan.readers = Vec::new();
        plan
    }
}

/// Some miners that together meet the spacing, alike in speed, and some servers that do not mine.
fn servers(name: &'static str, seed: u64, miners: usize, others: usize, depth: u32) -> Plan {
    let rules = Pow {
        spacing_s: SPACING_S,
        bits: BITS,
        retarget: Retarget::Asert { halflife_s: 288 * SPACING_S },
        depth,
        reward: 50_000_000,
        fee_per_kb: 0,
    };
    let mut plan = Plan::miners(name, seed, miners, others, rules);
    let each = HASHES / u64::from(SPACING_S) / miners as u64;
    plan.hash_rates[..miners].fill(each);
    plan.parameters.snapshot_blocks = 20;
    plan.clients = writers(2, 4, SECOND, Mix::Plain);
    plan.faults_end = 20 * SECOND;
    plan.settle = 1_200 * SECOND;
    plan
}

pub(super) fn calm(seed: u64) -> Plan {
    servers("pow-calm", seed, 3, 1, 6)
}

/// Four miners, two others, two hundred blocks.
pub(super) fn six_servers(seed: u64) -> Plan {
    let mut plan = servers("pow-six", seed, 4, 2, 6);
    plan.clients = writers(3, 8, 10 * SECOND, Mix::Hostile);
    plan.until = Height(200);
    plan
}

/// Two miners are parted from the two others until both sides have found thirty blocks or so, at
/// half the pace; each side has a server that does not mine.
fn halves(name: &'static str, seed: u64, depth: u32) -> Plan {
    let mut plan = servers(name, seed, 4, 2, depth);
    let side = vec![true, true, false, false, true, false];
    let parted = 20 * SPACING;
    plan.script = vec![(parted, Step::Partition { side }), (parted + 2 * 30 * SPACING, Step::Heal)];
    plan.faults_end = parted + 2 * 30 * SPACING + SECOND;
    plan.clients = writers(4, 8, 4 * SECOND, Mix::Plain);
    plan.limited = false;
    plan.settle = 3_000 * SECOND;
    plan
}

/// Nothing is forty deep when the halves meet again.
pub(super) fn heals(seed: u64) -> Plan {
    halves("pow-heals", seed, 40)
}

/// Six deep was final on both sides.
pub(super) fn deep(seed: u64) -> Plan {
    let mut plan = halves("pow-deep", seed, 6);
    plan.may_rewind = true;
    plan
}

/// A server that comes late, with nothing but the genesis.
pub(super) fn late(seed: u64) -> Plan {
    let mut plan = servers("pow-late", seed, 3, 1, 6);
    plan.script = vec![(1, Step::Crash { server: 3, down: 200 * SPACING })];
    plan.faults_end = 201 * SPACING;
    plan.until = Height(150);
    plan
}

/// One behaviour after the other, by the seed, of a fourth miner.
pub(super) fn lone_liar(seed: u64) -> Plan {
    let mut plan = servers("pow-lone-liar", seed, 4, 1, 6);
    let which = usize::try_from(seed % Behaviour::POW.len() as u64).expect("below their number");
    plan.liars = vec![LiarPlan { server: 3, behaviours: vec![Behaviour::POW[which]] }];
    plan.faults_end = 60 * SECOND;
    plan
}

/// Everything drawn from the seed, but nothing that is stronger than the depth: parts of the
/// network are apart for ten seconds at most, in which nobody finds twelve blocks.
pub(super) fn swarm(seed: u64) -> Plan {
    let random = &mut Random::new(seed ^ 0x6e6e_0000_6e6e);
    let miners = usize::try_from(random.between(2, 5)).expect("small");
    let others = usize::try_from(random.between(0, 2)).expect("small");
    let mut plan = servers("pow-swarm", seed, miners, others, 12);
    plan.limited = random.per_mille(600);
    plan.parameters.block_transactions = random.choose(&[1, 3, 1_000]);
    plan.weather = weather(random);
    plan.faults_end = random.between(10, 80) * SECOND;
    let rest = random.between(1, 20);
    plan.faults = FAULTS.iter().copied().filter(|_| random.below(20) < rest).collect();
    plan.fault_every = random.between(SECOND / 2, 10 * SECOND);
    let spread = random.choose(&[0, 0, 50, MOST_CLOCK_MS]);
    plan.clocks = (0..plan.servers)
        .map(|_| i64::try_from(random.below(2 * spread + 1)).expect("small") - spread as i64)
        .collect();
    if random.per_mille(300) {
        // Unequal miners: one has as much as all others together.
        plan.hash_rates[0] *= (miners as u64 - 1).max(1);
    } else if miners >= MINERS_WITH_A_LIAR && random.per_mille(700) {
        plan.liars = liar(&plan, miners, random);
        // Whom others keep out mines alone: so slowly that nothing is deep there.
        plan.liars.iter().for_each(|liar| plan.hash_rates[liar.server] /= LIARS_PART);
    }
    let count = usize::try_from(random.between(1, 4)).expect("small");
    let mix = random.choose(&[Mix::Plain, Mix::Hostile, Mix::Transfers, Mix::Keyed]);
    plan.clients = writers(count, random.between(1, 4), random.between(SECOND, 20 * SECOND), mix);
    plan
}

fn liar(plan: &Plan, miners: usize, random: &mut Random) -> Vec<LiarPlan> {
    let server = random.index(miners.min(plan.servers));
    // Many lies at once hide each other, and multiply each other's messages.
    let count = random.choose(&[1, 1, 2, 3]);
    let behaviours = (0..count).map(|_| random.choose(&Behaviour::POW)).collect();
    vec![LiarPlan { server, behaviours }]
}
