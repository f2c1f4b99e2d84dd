//! The end of a run: faults stop, everything must converge, and then the rules that only a whole
//! run can be held to.

use std::collections::BTreeSet;

use rota_core::consensus::Standing;
use rota_core::error::Fault as RealFault;
use rota_core::types::Height;
use rota_store::StateDb;
use rota_store::host::Journal;

use crate::check::{no_money_is_made_or_lost, nothing_was_forged, pow, rows_are_as_told};
use crate::clients::Fate;
use crate::network::Weather;
use crate::scenario::Step;
use crate::world::{Event, Outcome, World};
use crate::{Fault, SECOND};

/// How often it is looked whether the run is over.
const CHECK_EVERY: crate::Micros = SECOND / 4;

impl World {
    pub(crate) fn faults_end(&mut self) {
        self.note(format_args!("faults end"));
        self.plan.faults.clear();
        self.network.weather = Weather::calm();
        self.befall(Step::Heal);
        for server in 0..self.servers.len() {
            let there = &mut self.servers[server];
            there.fuse.put_out();
            (there.fsync, there.apply) = (200, 200);
            there.busy_until = there.busy_until.min(self.now);
            self.start(server);
        }
        self.schedule(self.now, Event::Check);
    }

    pub(crate) fn check_for_end(&mut self) {
        if self.has_converged() {
            self.over = true;
        } else if self.now > self.plan.faults_end + self.plan.settle {
            let detail = self.where_all_are();
            self.monitor.breaks("everything converges once faults have ended", detail);
        } else {
            self.schedule(self.now + CHECK_EVERY, Event::Check);
        }
    }

    fn has_converged(&self) -> bool {
        let mut heights = BTreeSet::new();
        for server in self.standing() {
            let Some(status) = self.servers[server].status(self.now, &self.genesis) else {
                return false;
            };
            heights.insert(status.height);
            heights.insert(status.applied.height);
        }
        let is_high = heights.first().is_some_and(|&height| height >= self.plan.until);
        heights.len() == 1 && is_high && self.clients.are_done() && self.readers.are_done()
    }

    fn where_all_are(&self) -> String {
        let mut text = String::new();
        for server in self.standing() {
            let line = match self.servers[server].status(self.now, &self.genesis) {
                None => format!("\n  server {server} is down"),
                Some(s) => format!(
                    "\n  server {server}: slot {}, final {}, applied {}, agreed {}, pending {}",
                    s.slot, s.height, s.applied.height, s.agreed.height, s.pending
                ),
            };
            text += &line;
        }
        for (key, fate) in self.clients.fates().filter(|(_, fate)| *fate == Fate::Unknown) {
            text += &format!("\n  write {key}: {fate:?}");
        }
        text
    }

    /// Servers whose state counts: honest, and not found wrong by themselves.
    fn standing(&self) -> impl Iterator<Item = usize> {
        (0..self.servers.len()).filter(|&i| !self.plan.is_liar(i) && !self.servers[i].quarantined)
    }

    pub(crate) fn final_checks(&mut self) {
        let standing: Vec<usize> = self.standing().collect();
        let mut ledgers = Vec::new();
        let mut tops = BTreeSet::new();
        for &server in &standing {
            let Some(running) = &mut self.servers[server].running else { continue };
            let applied = running.state.applied();
            tops.insert((applied.height, applied.root));
            // What was only noted is written when a server is idle.
            let written = running.chain_db.borrow_mut().append(&[]);
            if let Err(fault) = written {
                return self.stopped_by(server, &fault);
            }
            match running.state.rescan() {
                Err(fault) => return self.stopped_by(server, &fault),
                Ok(rescan) if rescan.root != applied.root || !rescan.differing.is_empty() => {
                    let detail = format!("server {server}: {:?}", rescan.differing);
                    return self.monitor.breaks("the root is that of all rows", detail);
                }
                Ok(_) => {}
            }
            if let Err(detail) = self.chain_is_as_applied(server) {
                return self.monitor.breaks("the log holds what was applied", detail);
            }
            if let Err(detail) = self.proofs_are_right(server) {
                return self.monitor.breaks("what is final is proven by work", detail);
            }
            if let Err(detail) = nothing_was_forged(&self.servers[server].home) {
                self.monitor.breaks("nobody writes in another's name", detail);
            }
            if let Err(detail) = no_money_is_made_or_lost(&self.servers[server].home) {
                let detail = format!("server {server}: {detail}");
                return self.monitor.breaks("no money is made or lost", detail);
            }
            match rows_are_as_told(&self.servers[server].home, self.clients.fates()) {
                Ok(rows) => ledgers.push(rows),
                Err(detail) => {
                    let detail = format!("server {server}: {detail}");
                    return self.monitor.breaks("every acknowledged write once", detail);
                }
            }
        }
        if tops.len() > 1 || ledgers.windows(2).any(|pair| pair[0] != pair[1]) {
            self.monitor.breaks("equal roots at the end", format!("{tops:?}"));
        }
        if let Some(&server) = standing.first()
            && let Err(detail) = self.replay(server)
        {
            self.monitor.breaks("a replay comes to the same root", detail);
        }
    }

    fn chain_is_as_applied(&self, server: usize) -> Result<(), String> {
        let Some(running) = &self.servers[server].running else { return Ok(()) };
        let chain = self.genesis.chain_id();
        let mut chain_db = running.chain_db.borrow_mut();
        let mut height = Height(0);
        while height < running.state.applied().height {
            height = height.next();
            let block = chain_db.final_block(height).map_err(|fault| fault.to_string())?;
            let there = self.monitor.block_at(server, height);
            if there.is_some() && block.map(|block| block.id(chain)) != there {
                return Err(format!("server {server}, height {height}"));
            }
        }
        Ok(())
    }

    /// `pow`: the proofs of all final blocks, and the blocks' times, by the rules written anew.
    fn proofs_are_right(&self, server: usize) -> Result<(), String> {
        let Some(running) = &self.servers[server].running else { return Ok(()) };
        let Some(pow) = &self.genesis.pow else { return Ok(()) };
        let mut chain_db = running.chain_db.borrow_mut();
        let recovered = chain_db.recover().map_err(|fault| fault.to_string())?;
        pow::proofs_are_right(&self.genesis, pow, &recovered.proofs)
            .map_err(|why| format!("server {server}, {why}"))?;
        for (height, proof) in (1..).map(Height).zip(&recovered.proofs) {
            let block = chain_db.final_block(height).map_err(|fault| fault.to_string())?;
            let Some(block) = block else { continue };
            let is_its = proof.block() == block.id(self.genesis.chain_id());
            if !is_its || !pow::time_is_the_median(&self.genesis, &recovered.proofs, &block) {
                return Err(format!("server {server}, height {height}: {proof:?}"));
            }
        }
        Ok(())
    }

    /// One cold database, fed with the whole chain, comes to the same state as the servers with all
    /// their crashes.
    fn replay(&self, server: usize) -> Result<(), String> {
        let Some(running) = &self.servers[server].running else { return Ok(()) };
        let home = self.homes.path().join("replay");
        let show = |fault: RealFault| fault.to_string();
        std::fs::create_dir(&home).map_err(|error| error.to_string())?;
        let mut state = StateDb::open(&home, &self.genesis).map_err(show)?;
        let wanted = running.state.applied();
        while state.applied().height < wanted.height {
            let next = state.applied().height.next();
            let block = running.chain_db.borrow_mut().final_block(next).map_err(show)?;
            state.apply(block.as_deref().ok_or("a missing block")?).map_err(show)?;
        }
        if state.applied() == wanted { Ok(()) } else { Err(format!("{:?}", state.applied())) }
    }

    pub(crate) fn outcome(self) -> Outcome {
        let (slot, height) = self.monitor.newest();
        let mut met = self.met.borrow().clone();
        let skipped = slot.0.saturating_sub(height.0);
        met.count_many(Fault::SkippedSlot, skipped);
        let standings: Vec<(usize, Standing)> = (0..self.servers.len())
            .filter_map(|server| {
                let status = self.servers[server].status(self.now, &self.genesis)?;
                Some((server, status.standing))
            })
            .collect();
        for (_, standing) in &standings {
            if let Standing::Mining(mining) = standing {
                met.count_many(Fault::Reorganised, mining.reorganisations);
            }
        }
        Outcome {
            scenario: self.plan.name,
            seed: self.plan.seed,
            broken: self.monitor.broken().cloned(),
            last: self.trace.last(),
            trace_hash: self.trace.hash(),
            events: self.trace.count(),
            virtual_time: self.now,
            height,
            skipped,
            writes: self.clients.finished.clone(),
            reads: self.readers.took.clone(),
            diverged: self.diverged.clone(),
            chains: (0..self.servers.len()).map(|server| self.monitor.chain_of(server)).collect(),
            found: self.found,
            rewound: self.rewound,
            standings,
            met,
        }
    }
}
