//! Miners of a run (step 4 under `pow`). A nonce is really searched, at a low difficulty; how many
//! tries it took, over the server's hash rate, is the virtual time that it took.
//!
//! ```text
//!   Search(job) ──► work::Search to its end, at once ──► tries / rate later ──► Input::Found
//!        └── a newer job, or none, voids what was found: the tries spent on it are lost
//! ```

use rota_core::replica::Input;
use rota_core::types::{BlockId, NodeId};
use rota_core::work::{HeaderHash, Search, SearchJob, Step, WorkProof};

use crate::server::Work;
use crate::world::{Event, World};
use crate::{Fault, Micros, SECOND};

/// Nonces tried in one go; only how often the loop looks up.
const SLICE: u32 = 1 << 16;

/// A search on its way.
pub struct Searching {
    job: SearchJob,
    /// What is still to be tried at `since`, until the proof or the job's end.
    left: u64,
    since: Micros,
    /// What it ends in.
    found: Option<WorkProof>,
    /// Tells its end from those of searches that were given up.
    number: u64,
}

/// A block that was found in a run.
#[derive(Clone, Debug)]
pub struct FoundBlock {
    /// When.
    pub at: Micros,
    /// By whom.
    pub server: usize,
    /// The proof's hash.
    pub hash: HeaderHash,
    /// That of the block it stands on.
    pub previous: HeaderHash,
    /// The block.
    pub id: BlockId,
}

/// Searches a job to its end: how many tries it takes, and what they find.
pub fn search(job: SearchJob) -> (u64, Option<WorkProof>) {
    let mut search = Search::new(job);
    loop {
        match search.step(SLICE) {
            Step::More => {}
            Step::Found(proof) => return (search.tried(), Some(proof)),
            Step::Exhausted => return (search.tried(), None),
        }
    }
}

impl World {
    /// A server is to search for this from `at` on, instead of anything else.
    pub(crate) fn search(&mut self, server: usize, at: Micros, job: Option<SearchJob>) {
        let there = &mut self.servers[server];
        let Some(running) = &mut there.running else { return };
        running.searches += 1;
        let number = running.searches;
        if running.searching.take().is_some() {
            self.met(Fault::NewSearch);
        }
        let Some(job) = job else { return };
        let (left, found) = search(job);
        let searching = Searching { job, left, since: at, found, number };
        if let Some(running) = &mut self.servers[server].running {
            running.searching = Some(searching);
        }
        self.schedule_found(server);
    }

    fn schedule_found(&mut self, server: usize) {
        let there = &self.servers[server];
        let life = there.life;
        let Some(searching) = there.running.as_ref().and_then(|r| r.searching.as_ref()) else {
            return;
        };
        if there.hash_rate == 0 || searching.found.is_none() {
            return;
        }
        let takes = u128::from(searching.left) * u128::from(SECOND) / u128::from(there.hash_rate);
        let at = searching.since.saturating_add(Micros::try_from(takes).unwrap_or(Micros::MAX));
        let number = searching.number;
        self.schedule(at, Event::Found { server, life, number });
    }

    /// A search has come to its end.
    pub(crate) fn found(&mut self, server: usize, number: u64) {
        let Some(running) = &mut self.servers[server].running else { return };
        let ends = running.searching.take_if(|searching| searching.number == number);
        let Some(proof) = ends.and_then(|searching| searching.found) else { return };
        self.met(Fault::Found);
        let (hash, previous, id) = (proof.hash(), proof.previous(), proof.block());
        self.note(format_args!("server {server} finds {hash:?}"));
        self.found.push(FoundBlock { at: self.now, server, hash, previous, id });
        self.give(server, Work::Input(Input::Found(proof)));
    }

    /// What a search has tried so far is counted; the rest goes on as if it began now.
    fn settle_search(&mut self, server: usize) {
        let (now, there) = (self.now, &mut self.servers[server]);
        let rate = there.hash_rate;
        let Some(running) = &mut there.running else { return };
        let Some(searching) = &mut running.searching else { return };
        let passed = u128::from(now.saturating_sub(searching.since));
        let tried = passed * u128::from(rate) / u128::from(SECOND);
        searching.left = searching.left.saturating_sub(u64::try_from(tried).unwrap_or(u64::MAX));
        searching.since = searching.since.max(now);
        running.searches += 1;
        searching.number = running.searches;
    }

    /// A miner becomes faster or slower; with 0 it stops.
    pub(crate) fn set_hash_rate(&mut self, server: usize, per_second: u64) {
        self.settle_search(server);
        let did = self.servers[server].hash_rate > 0;
        self.servers[server].hash_rate = per_second;
        if did != (per_second > 0) {
            self.give(server, Work::Input(Input::Mine(per_second > 0)));
        }
        self.schedule_found(server);
    }

    /// A frozen server's search stands still as well.
    pub(crate) fn freeze_search(&mut self, server: usize, until: Micros) {
        self.settle_search(server);
        if let Some(running) = &mut self.servers[server].running
            && let Some(searching) = &mut running.searching
        {
            searching.since = searching.since.max(until);
        }
        self.schedule_found(server);
    }

    /// A peer sent what an honest one would not have sent: the two hear nothing of each other for a
    /// while.
    pub(crate) fn punish(&mut self, server: usize, peer: NodeId, why: &str) {
        let Some(peer) = self.number_of(peer) else { return };
        self.note(format_args!("server {server} keeps {peer} out: {why}"));
        if !self.plan.is_liar(peer) && !self.plan.is_liar(server) {
            let detail = format!("server {server} keeps {peer} out: {why}");
            self.monitor.breaks("no honest server is punished", detail);
        }
        self.met(Fault::Punished);
        let until = self.now + PUNISHMENT;
        self.network.bar(server, peer, until);
        self.schedule(until, Event::Reopened { one: server, other: peer });
    }
}

/// How long a peer is kept out: shorter than in life, or a run would be over before.
const PUNISHMENT: Micros = 10 * SECOND;

impl Searching {
    /// What it is that is searched for.
    pub fn job(&self) -> &SearchJob {
        &self.job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ends_with_its_first_proof_or_with_the_job() {
        let mut job = SearchJob::new(HeaderHash([1; 32]), BlockId([2; 32]), 7, 0x1f7f_ffff);
        let (tries, found) = search(job);
        let proof = found.expect("one in 512 nonces is good");
        assert!(proof.meets_its_target() && u64::from(proof.nonce()) + 1 == tries);
        job.tries = tries - 1;
        assert_eq!(search(job), (tries - 1, None));
    }
}
