//! Scenarios of `raft`: three or five members, and servers that follow.

use rota_core::genesis::Method;

use super::{FAULT_KINDS, Plan, Step, clocks, readers, weather, writers};
use crate::clients::Mix;
use crate::random::Random;
use crate::{Fault, SECOND};

/// So many honest members in calm weather.
fn members(name: &'static str, seed: u64, servers: usize) -> Plan {
    let mut plan = Plan::calm(name, seed);
    plan.method = Method::Raft;
    plan.servers = servers;
    plan.clocks = vec![0; servers];
    plan.true_clocks = vec![true; servers];
    plan
}

pub(super) fn calm(seed: u64) -> Plan {
    members("raft-calm", seed, 3)
}

/// Everything drawn from the seed; nobody lies, since nothing is promised then.
pub(super) fn swarm(seed: u64) -> Plan {
    let random = &mut Random::new(seed ^ 0x4a4a_0000_4a4a);
    let servers = random.choose(&[3, 3, 3, 5, 5, 1]);
    let mut plan = members("raft-swarm", seed, servers);
    plan.followers = random.choose(&[0, 0, 1, 2]);
    plan.servers += plan.followers;
    plan.limited = random.per_mille(600);
    plan.parameters.heartbeat_ms = random.choose(&[50, 50, 100]);
    plan.parameters.election_ms = random.choose(&[200, 200, 400, 1_000]);
    plan.parameters.lag = random.choose(&[4, 8, 64]);
    plan.parameters.idle_ms = random.choose(&[1_000, 5_000, 60_000]);
    plan.parameters.block_transactions = random.choose(&[1, 3, 1_000]);
    plan.weather = weather(random);
    plan.faults_end = random.between(4, 25) * SECOND;
    plan.settle = 90 * SECOND;
    let rest = random.between(1, 20);
    plan.faults = FAULT_KINDS.iter().copied().filter(|_| random.below(20) < rest).collect();
    plan.fault_every = random.between(SECOND / 5, 4 * SECOND);
    plan.clocks = clocks(plan.servers, random);
    plan.true_clocks = vec![true; plan.servers];
    let writers_count = usize::try_from(random.between(1, 5)).expect("small");
    let writes = random.between(3, 25);
    let think = random.between(SECOND / 100, SECOND);
    let mixes = [Mix::Plain, Mix::Hostile, Mix::Hostile, Mix::Transfers, Mix::Keyed];
    plan.clients = writers(writers_count, writes, think, random.choose(&mixes));
    let readers_count = usize::try_from(random.between(0, 3)).expect("small");
    plan.readers = readers(readers_count, random.between(3, 25), think);
    plan
}

/// The leader is frozen for ten seconds and comes back, while others write and read.
pub(super) fn frozen_leader(seed: u64) -> Plan {
    let mut plan = members("raft-frozen-leader", seed, 3);
    plan.script = vec![(3 * SECOND, Step::FreezeLeader { length: 10 * SECOND })];
    plan.faults_end = 16 * SECOND;
    plan.clients = writers(3, 60, SECOND / 3, Mix::Plain);
    plan.readers = readers(4, 80, SECOND / 4);
    plan
}

/// The leader is cut off from the others for ten seconds.
pub(super) fn leader_alone(seed: u64) -> Plan {
    let mut plan = members("raft-leader-alone", seed, 3);
    plan.script = vec![(3 * SECOND, Step::CutOffLeader), (13 * SECOND, Step::Heal)];
    plan.faults_end = 16 * SECOND;
    plan.clients = writers(3, 60, SECOND / 3, Mix::Plain);
    plan.readers = readers(4, 40, SECOND / 4);
    plan
}

/// One leader after the other is killed.
pub(super) fn killed_leaders(seed: u64) -> Plan {
    let mut plan = members("raft-killed-leaders", seed, 5);
    plan.script = (1..10).map(|at| (2 * at * SECOND, Step::CrashLeader { down: SECOND })).collect();
    plan.faults = vec![Fault::CrashAtOutput];
    plan.fault_every = SECOND;
    plan.faults_end = 20 * SECOND;
    plan.clients = writers(3, 60, SECOND / 4, Mix::Hostile);
    plan
}

pub(super) fn all_crash(seed: u64) -> Plan {
    let mut plan = members("raft-all-crash", seed, 3);
    plan.limited = false;
    let down = SECOND;
    plan.script = [1, 4, 7].map(|at| (at * SECOND + 123, Step::CrashAll { down })).to_vec();
    plan.faults_end = 10 * SECOND;
    plan.clients = writers(4, 30, SECOND / 10, Mix::Hostile);
    plan
}

/// Rows change behind one server's back: each of them in turn, so that one is the leader.
pub(super) fn flipped_row(seed: u64) -> Plan {
    let mut plan = members("raft-flipped-row", seed, 3);
    let server = usize::try_from(seed % 3).expect("small");
    plan.script = vec![(SECOND, Step::FlipRow { server })];
    plan.faults_end = 8 * SECOND;
    plan.clients = writers(3, 30, SECOND / 4, Mix::Sums);
    plan
}

/// Two servers follow; one of them, and a member, is down for a while.
pub(super) fn followers(seed: u64) -> Plan {
    let mut plan = members("raft-followers", seed, 5);
    plan.followers = 2;
    plan.script = vec![
        (SECOND, Step::Crash { server: 4, down: 2 * SECOND }),
        (2 * SECOND, Step::Crash { server: 1, down: SECOND }),
    ];
    plan
}
