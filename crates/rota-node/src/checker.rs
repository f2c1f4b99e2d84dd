//! Between steps 5 and 6: what peers sent is checked, many signatures in one batch, before the
//! replica sees it. One thread for votes and one for blocks, so that no vote waits until the
//! envelopes of a large block are verified.

use std::sync::Arc;
use std::time::Instant;

use rota_core::error::Fault;
use rota_core::message::Message;
use rota_core::replica::Input;
use rota_core::transaction::Envelope;
use rota_core::types::NodeId;
use rota_core::verify::Verifier;
use rota_store::accounts::Purses;
use tokio::sync::mpsc::Receiver;

use crate::flow::Flow;
use crate::mailbox::Inputs;
use crate::queues;
use crate::transport::{Incoming, Room, Shortcut, Transport};

/// A message of more bytes is checked on a checker's thread: hashing its blocks takes longer than
/// the way there.
const QUICK_BYTES: usize = 64 << 10;

/// Checks until no more comes or nobody wants it. Of envelopes that cannot be paid for, where that
/// matters, nothing is said or remembered (`purses`).
pub fn run(
    mut inbox: Receiver<Incoming>,
    mut verifier: Verifier,
    mut purses: Option<Purses>,
    inputs: &Inputs,
    transport: &Transport,
) -> Result<(), Fault> {
    // Purses are where anybody may connect.
    let mut flow = purses.is_some().then(Flow::default);
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = Batch::default();
        batch.add(first, flow.as_mut());
        while batch.len() < queues::CHECK_BATCH
            && let Ok(next) = inbox.try_recv()
        {
            batch.add(next, flow.as_mut());
        }
        for input in batch.check(&mut verifier, purses.as_mut(), transport)? {
            if inputs.send(input).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The way around the checkers' threads, for the task that has read a message: words that stand on
/// no signature and are quickly checked, `raft`'s, go to the replica from there. All others, wrong
/// ones too, come back.
#[expect(clippy::result_large_err, reason = "a message is moved once, either way")]
pub fn shortcut(verifier: Verifier, inputs: Inputs) -> Shortcut {
    Arc::new(move |incoming| {
        let Incoming::Message(from, message, room) = incoming else { return Err(incoming) };
        let is_quick = room.num_permits() <= QUICK_BYTES && verifier.is_unsigned(&message);
        if !is_quick {
            return Err(Incoming::Message(from, message, room));
        }
        let arrival = Arrival { input: Input::Message { from, message }, room: Some(room) };
        inputs.try_send(arrival).map_err(|error| match error.into_inner() {
            Arrival { input: Input::Message { from, message }, room: Some(room) } => {
                Incoming::Message(from, message, room)
            }
            _ => unreachable!("what comes back is what was sent"),
        })
    })
}

/// What reaches the replica, and the room that it takes until the replica has seen it.
pub struct Arrival {
    /// What.
    pub input: Input,
    /// For what peers sent.
    pub room: Option<Room>,
}

impl From<Input> for Arrival {
    fn from(input: Input) -> Self {
        Self { input, room: None }
    }
}

#[derive(Default)]
struct Batch {
    /// Who came and who went, in order.
    connected: Vec<Input>,
    senders: Vec<(NodeId, Room)>,
    messages: Vec<Message>,
}

impl Batch {
    fn len(&self) -> usize {
        self.connected.len() + self.messages.len()
    }

    fn add(&mut self, incoming: Incoming, flow: Option<&mut Flow>) {
        match incoming {
            Incoming::Message(from, message, room)
                if flow.is_some_and(|flow| {
                    !flow.lets(from, &message, room.num_permits(), Instant::now())
                }) => {}
            Incoming::Message(from, message, room) => {
                self.senders.push((from, room));
                self.messages.push(message);
            }
            Incoming::Connected(peer) => self.connected.push(Input::Connected(peer)),
            Incoming::Disconnected(peer) => self.connected.push(Input::Disconnected(peer)),
        }
    }

    /// What may reach the replica. A peer pays for what is invalid with its connection, and nothing
    /// more of it counts.
    fn check(
        self,
        verifier: &mut Verifier,
        mut purses: Option<&mut Purses>,
        transport: &Transport,
    ) -> Result<Vec<Arrival>, Fault> {
        let answers = verifier.check(&self.messages, entropy()?);
        let mut inputs: Vec<Arrival> = self.connected.into_iter().map(Arrival::from).collect();
        let mut punished: Vec<NodeId> = Vec::new();
        let messages = self.senders.into_iter().zip(self.messages).zip(answers);
        for (((from, room), message), answer) in messages {
            match answer {
                _ if punished.contains(&from) => {}
                Ok(()) => {
                    let message = match purses.as_deref_mut() {
                        Some(purses) => worth_admitting(message, purses)?,
                        None => Some(message),
                    };
                    if let Some(message) = message {
                        let input = Input::Message { from, message };
                        inputs.push(Arrival { input, room: Some(room) });
                    }
                }
                Err(invalid) => {
                    punished.push(from);
                    transport.punish(from, invalid);
                }
            }
        }
        Ok(inputs)
    }
}

/// A message without the envelopes that would only fill blocks; nothing if it held no others. Their
/// sender is not to blame: balances are not the same everywhere at once.
fn worth_admitting(message: Message, purses: &mut Purses) -> Result<Option<Message>, Fault> {
    let mut paid = |envelopes: Vec<Arc<Envelope>>| {
        let mut kept = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            if purses.admits(&envelope)? {
                kept.push(envelope);
            }
        }
        Ok(Some(kept).filter(|kept| !kept.is_empty()))
    };
    match message {
        Message::Envelopes(envelopes) => Ok(paid(envelopes)?.map(Message::Envelopes)),
        Message::PassedOn(envelopes) => Ok(paid(envelopes)?.map(Message::PassedOn)),
        message => Ok(Some(message)),
    }
}

fn entropy() -> Result<[u8; 32], Fault> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Fault::storage("reading the system's random source", error))?;
    Ok(bytes)
}
