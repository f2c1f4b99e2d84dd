//! Between steps 5 and 6: what peers sent is checked, many signatures in one batch, before the replica sees it. One
//! thread for votes and one for blocks, so that no vote waits until the envelopes of a large block are verified.

use crossbeam_channel::Sender;
use rota_core::error::Fault;
use rota_core::message::Message;
use rota_core::replica::Input;
use rota_core::types::NodeId;
use rota_core::verify::Verifier;
use tokio::sync::mpsc::Receiver;

use crate::queues;
use crate::transport::{Incoming, Transport};

/// Checks until no more comes or nobody wants it.
pub fn run(
    mut inbox: Receiver<Incoming>,
    mut verifier: Verifier,
    inputs: &Sender<Input>,
    transport: &Transport,
) -> Result<(), Fault> {
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = Batch::default();
        batch.add(first);
        while batch.len() < queues::CHECK_BATCH
            && let Ok(next) = inbox.try_recv()
        {
            batch.add(next);
        }
        for input in batch.check(&mut verifier, transport)? {
            if inputs.send(input).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Batch {
    connected: Vec<NodeId>,
    senders: Vec<NodeId>,
    messages: Vec<Message>,
}

impl Batch {
    fn len(&self) -> usize {
        self.connected.len() + self.messages.len()
    }

    fn add(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Message(from, message) => {
                self.senders.push(from);
                self.messages.push(message);
            }
            Incoming::Connected(peer) => self.connected.push(peer),
        }
    }

    /// What may reach the replica. A peer pays for what is invalid with its connection, and nothing more of it counts.
    fn check(self, verifier: &mut Verifier, transport: &Transport) -> Result<Vec<Input>, Fault> {
        let answers = verifier.check(&self.messages, entropy()?);
        let mut inputs: Vec<Input> = self.connected.into_iter().map(Input::Connected).collect();
        let mut punished: Vec<NodeId> = Vec::new();
        for ((from, message), answer) in self.senders.into_iter().zip(self.messages).zip(answers) {
            match answer {
                _ if punished.contains(&from) => {}
                Ok(()) => inputs.push(Input::Message { from, message }),
                Err(invalid) => {
                    punished.push(from);
                    transport.punish(from, invalid);
                }
            }
        }
        Ok(inputs)
    }
}

fn entropy() -> Result<[u8; 32], Fault> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Fault::storage("reading the system's random source", error))?;
    Ok(bytes)
}
