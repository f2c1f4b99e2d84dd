//! Carries out what befalls the servers, and draws it in a swarm. In limited mode fewer than a
//! third are faulty at any time: liars, servers that are down, frozen or cut off, and those whose
//! clocks are wrong.

use rota_core::consensus::Standing;
use rota_core::genesis::Method;
use rota_core::replica::Status;

use crate::random::Random;
use crate::scenario::{MOST_CLOCK_MS, Step};
use crate::world::{Event, World};
use crate::{Fault, Micros, SECOND};

impl World {
    /// Something befalls the servers.
    pub(crate) fn befall(&mut self, step: Step) {
        self.note(format_args!("FAULT {step:?}"));
        match step {
            Step::Crash { server, down } => {
                self.met(Fault::Crash);
                self.stop(server, down);
            }
            Step::CrashAt { server, outputs, down } => {
                self.servers[server].fuse.light(outputs);
                self.down_for[server] = down;
            }
            Step::CrashAll { down } => {
                self.met(Fault::CrashAll);
                for server in 0..self.servers.len() {
                    self.stop(server, down);
                }
            }
            Step::CrashLeader { down } => {
                self.met(Fault::Crash);
                if let Some(leader) = self.leader() {
                    self.stop(leader, down);
                }
            }
            Step::Freeze { server, length } => {
                self.met(Fault::Freeze);
                self.servers[server].busy_until = self.now + length;
                self.freeze_search(server, self.now + length);
            }
            Step::FreezeLeader { length } => {
                if let Some(server) = self.leader() {
                    self.befall(Step::Freeze { server, length });
                }
            }
            Step::CutOffLeader => {
                if let Some(leader) = self.leader() {
                    let side = (0..self.servers.len()).map(|server| server == leader).collect();
                    self.befall(Step::Partition { side });
                    let patience = 2 * self.plan.parameters.election_ms * 1_000 + SECOND / 10;
                    let doubt = Step::LeadsNoMore { server: leader };
                    self.schedule(self.now + patience, Event::Befall(doubt));
                }
            }
            Step::LeadsNoMore { server } => {
                let status = self.servers[server].status(self.now, &self.genesis);
                if status.is_some_and(|status| status.leader == Some(self.servers[server].node)) {
                    let detail = format!("server {server}");
                    self.monitor.breaks("a leader without a majority steps down in time", detail);
                }
            }
            Step::HashRate { server, per_second } => {
                self.met(Fault::HashRate);
                self.set_hash_rate(server, per_second);
            }
            Step::SlowDisk { server, fsync } => {
                self.met(Fault::SlowDisk);
                self.servers[server].fsync = fsync;
            }
            Step::SlowApply { server, apply } => {
                self.met(Fault::SlowApply);
                self.servers[server].apply = apply;
            }
            Step::Partition { side } => {
                self.met(Fault::Partition);
                self.network.partition(&side);
            }
            Step::CutOneWay { from, to } => {
                self.met(Fault::OneWay);
                self.network.cut_one_way(from, to);
            }
            Step::Heal => {
                self.cut_off.fill(false);
                for (one, other) in self.network.heal() {
                    self.connect(one, other);
                }
            }
            Step::Jump { server, by_ms } => {
                self.met(Fault::ClockJump);
                let clock = &mut self.servers[server].clock_off;
                *clock = clock.saturating_add(by_ms);
                self.clocks_changed();
            }
            Step::FlipRow { server } => self.flip_row(server),
        }
    }

    /// Whoever leads, by the word of the first server that runs; of several that say so of
    /// themselves, the one of the newest term.
    fn leader(&self) -> Option<usize> {
        let all = (0..self.servers.len())
            .filter_map(|i| Some((i, self.servers[i].status(self.now, &self.genesis)?)));
        let leads = |(server, status): (usize, Status)| {
            let is_leader = status.leader == Some(self.servers[server].node);
            match status.standing {
                Standing::Elected { term, .. } if is_leader => Some((term, server)),
                _ => None,
            }
        };
        match all.clone().filter_map(leads).max() {
            Some((_, server)) => Some(server),
            None => self.number_of(all.clone().next()?.1.leader?),
        }
    }

    /// Draws one fault and schedules the next.
    pub(crate) fn draw_fault(&mut self) {
        let next = self.now + self.luck.between(1, 2 * self.plan.fault_every);
        if next < self.plan.faults_end {
            self.schedule(next, Event::DrawFault);
        }
        if self.plan.faults.is_empty() {
            return;
        }
        let kind = self.luck.choose(&self.plan.faults.clone());
        let server = self.luck.index(self.servers.len());
        if let Some(step) = self.drawn(kind, server) {
            self.befall(step);
        }
    }

    fn drawn(&mut self, kind: Fault, server: usize) -> Option<Step> {
        let down = down_time(&mut self.luck);
        let may_fail = self.may_fail(server);
        match kind {
            Fault::Crash if may_fail => Some(Step::Crash { server, down }),
            Fault::CrashAtOutput if may_fail => {
                // Mostly early: a step's records come before its messages.
                let most = self.luck.choose(&[1, 2, 4, 40]);
                let outputs = self.luck.between(1, most);
                Some(Step::CrashAt { server, outputs, down })
            }
            Fault::CrashAll if !self.plan.limited => Some(Step::CrashAll { down }),
            Fault::Freeze if may_fail => {
                Some(Step::Freeze { server, length: self.luck.between(SECOND / 10, 5 * SECOND) })
            }
            Fault::SlowDisk => {
                let slow = if self.plan.limited { 10_000 } else { 300_000 };
                Some(Step::SlowDisk { server, fsync: self.luck.between(100, slow) })
            }
            Fault::SlowApply => {
                let slow = if self.plan.limited { 20_000 } else { 2_000_000 };
                Some(Step::SlowApply { server, apply: self.luck.between(100, slow) })
            }
            Fault::Partition | Fault::OneWay => self.drawn_cut(kind, server, down),
            Fault::HashRate if self.servers[server].hash_rate > 0 => {
                let at_first = self.plan.hash_rates[server];
                let factor = self.luck.choose(&[500, 800, 1_250, 2_000]);
                Some(Step::HashRate { server, per_second: (at_first * factor / 1_000).max(1) })
            }
            Fault::ClockJump if self.plan.method == Method::Pow => {
                let most = i64::try_from(MOST_CLOCK_MS).ok()?;
                let off = i64::try_from(self.luck.below(2 * MOST_CLOCK_MS)).ok()? - most;
                Some(Step::Jump { server, by_ms: off - self.servers[server].clock_off })
            }
            Fault::ClockJump => {
                let far = self.luck.choose(&[1_000, 60_000, 600_000]);
                let by_ms =
                    i64::try_from(self.luck.below(2 * far)).ok()? - i64::try_from(far).ok()?;
                Some(Step::Jump { server, by_ms })
            }
            _ => None,
        }
    }

    fn drawn_cut(&mut self, kind: Fault, server: usize, length: Micros) -> Option<Step> {
        let heal_at = self.now + length;
        let servers = self.servers.len();
        if self.plan.limited {
            if !self.may_fail(server) {
                return None;
            }
            self.cut_off[server] = true;
        }
        self.schedule(heal_at, Event::Befall(Step::Heal));
        if kind == Fault::OneWay {
            let to = self.luck.index(servers);
            return (to != server).then_some(Step::CutOneWay { from: server, to });
        }
        let side = (0..servers)
            .map(|other| other == server || (!self.plan.limited && self.luck.per_mille(500)))
            .collect();
        Some(Step::Partition { side })
    }

    /// Whether this server may become faulty now.
    fn may_fail(&self, server: usize) -> bool {
        !self.plan.limited
            || self.is_faulty(server)
            || (0..self.servers.len()).filter(|&other| self.is_faulty(other)).count()
                < self.plan.tolerated()
    }

    fn is_faulty(&self, server: usize) -> bool {
        let there = &self.servers[server];
        self.plan.is_liar(server)
            || !self.plan.true_clocks[server]
            || there.running.is_none()
            || there.fuse.is_lit()
            || there.quarantined
            || there.busy_until > self.now + SECOND / 10
            || self.cut_off[server]
    }
}

fn down_time(luck: &mut Random) -> Micros {
    let most = luck.choose(&[SECOND / 100, SECOND, 10 * SECOND]);
    luck.between(1_000, most)
}
