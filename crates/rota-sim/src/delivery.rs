//! How messages travel in a run (step 5): out of a server, past the monitor and through a liar's
//! hands, over the network, into inboxes.

use std::cell::OnceCell;
use std::rc::Rc;

use rota_core::genesis::Method;
use rota_core::message::{Message, Recipient};
use rota_core::types::NodeId;

use crate::server::Sent;
use crate::trace::Brief;
use crate::world::{Event, World};
use crate::{Fault, Micros};

impl World {
    pub(crate) fn send(&mut self, from: usize, leaves: Micros, to: Recipient, message: Message) {
        let outgoing = match self.liars.get_mut(&from) {
            None => vec![(to, message)],
            Some(liar) => {
                let outgoing = liar.twist(to.clone(), message.clone());
                if outgoing.len() != 1 || outgoing[0] != (to, message) {
                    self.met(Fault::Lie);
                }
                outgoing
            }
        };
        for (to, message) in outgoing {
            self.note(format_args!("{from} sends {to:?} {}", Brief(&message)));
            self.monitor.leaves(self.now, &message);
            let message = Rc::new(Sent { message, verdict: OnceCell::new() });
            let recipients: Vec<usize> = match to {
                Recipient::Members => self.addressed().filter(|&to| to != from).collect(),
                Recipient::One(node) => self.number_of(node).into_iter().collect(),
                Recipient::MembersBut(node) => {
                    let but = self.number_of(node);
                    let others = self.addressed().filter(|&to| to != from);
                    others.filter(|&to| Some(to) != but).collect()
                }
            };
            for to in recipients {
                let arrivals = self.network.arrivals(leaves, from, to, &mut self.met.borrow_mut());
                for delay in arrivals {
                    let message = message.clone();
                    self.schedule(leaves + delay, Event::Arrive { from, to, message });
                }
            }
        }
    }

    /// Two servers have a stream to each other (again).
    pub(crate) fn connect(&mut self, one: usize, other: usize) {
        for (server, peer) in [(one, other), (other, one)] {
            let delay = self.luck.between(500, 20_000);
            self.schedule(self.now + delay, Event::Connected { server, peer });
        }
    }

    /// Whom "all" means: the members, and where there are none, everybody.
    pub(crate) fn addressed(&self) -> std::ops::Range<usize> {
        let is_open = self.plan.method == Method::Pow;
        0..if is_open { self.servers.len() } else { self.plan.members() }
    }

    /// Whether two servers may talk to each other, and can. Followers talk to members only.
    pub(crate) fn are_linked(&self, one: usize, other: usize) -> bool {
        let follows = |server| !self.addressed().contains(&server);
        !(follows(one) && follows(other))
            && self.network.is_open(one, other)
            && !self.network.is_barred(self.now, one, other)
    }

    pub(crate) fn number_of(&self, node: NodeId) -> Option<usize> {
        self.servers.iter().position(|server| server.node == node)
    }
}
