//! Servers that start anew from other files in the same process: from a snapshot that was fetched,
//! or (`pow`) from before a deep reorganisation.

use rota_core::message::Offer;
use rota_core::types::{Height, NodeId, TransactionId};

use crate::Fault;
use crate::server::Undone;
use crate::world::World;

/// What a deep reorganisation undid on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// Where.
    pub server: usize,
    /// The last block that stayed.
    pub height: Height,
    /// How many final blocks went.
    pub blocks: u64,
    /// The transactions in them, in order.
    pub undone: Vec<TransactionId>,
}

impl World {
    /// A piece of a snapshot has come.
    pub(crate) fn chunk(&mut self, server: usize, height: Height, number: u32, bytes: &[u8]) {
        if let Err(fault) = self.servers[server].keep_chunk(height, number, bytes) {
            self.stopped_by(server, &fault);
        }
    }

    /// A server takes over a snapshot and starts anew from it.
    pub(crate) fn restore(&mut self, server: usize, offer: &Offer, from: NodeId) {
        let height = offer.applied.height;
        self.note(format_args!("server {server} starts anew from a snapshot of h{height}"));
        self.met(Fault::Restored);
        match self.servers[server].take_over(&self.genesis, offer, from) {
            Ok(taken) => {
                if !taken && !self.number_of(from).is_some_and(|from| self.plan.is_liar(from)) {
                    let detail = format!("server {server}: height {height}");
                    self.monitor.breaks("an honest server's snapshot is what it offers", detail);
                }
                self.start(server);
            }
            Err(fault) => self.stopped_by(server, &fault),
        }
    }

    /// A server undoes its final blocks above a height and starts anew.
    pub(crate) fn rewind(&mut self, server: usize, height: Height) {
        self.note(format_args!("server {server} GOES BACK to h{height}"));
        self.met(Fault::Rewound);
        self.monitor.rewinds(server, height);
        match self.servers[server].go_back(&self.genesis, height) {
            Ok(Undone { blocks, gone, listed }) => {
                if !listed.ends_with(&gone) {
                    let detail = format!("server {server}: {} listed, {gone:?}", listed.len());
                    self.monitor.breaks("what was undone is listed", detail);
                }
                self.undo(server, &gone);
                self.rewound.push(Rewound { server, height, blocks, undone: gone });
                self.start(server);
            }
            Err(fault) => self.stopped_by(server, &fault),
        }
    }

    /// What was acknowledged by this server is so no more: the promise had a bound, and the
    /// scenario is beyond it.
    fn undo(&mut self, server: usize, undone: &[TransactionId]) {
        for id in undone {
            self.clients.undone(*id);
        }
        self.note(format_args!("server {server} lists {} transactions as undone", undone.len()));
    }
}
