//! What a restarted server vouches for; what clients hear of a full mempool and of blocks on their
//! way.

mod elected;

use super::*;
use crate::block::{
    Body, Certificate, CertificateVote, Choice, Finality, Header, Kind, Proposal, Turn, Vote,
};
use crate::crypto::Signature;
use crate::four_members::{genesis, key};

fn root(of: u8) -> StateRoot {
    StateRoot([of; 32])
}

pub(super) fn block(
    height: u64,
    parent: BlockId,
    certificate: Option<Certificate>,
    applied: Applied,
) -> Block {
    let body = Body { parent_certificate: certificate, envelopes: Vec::new() };
    let header = Header {
        epoch: Epoch(0),
        slot: Slot(height),
        height: Height(height),
        kind: Kind::Ordinary,
        parent,
        leader: MemberIndex(u16::try_from(height / 4).unwrap()),
        turn: Turn::Scheduled,
        time: Time(1_000_000 + height),
        applied,
        body: body.digest(),
    };
    Block { header, body }
}

pub(super) fn finalization(chain: ChainId, block: &Block) -> Certificate {
    let (slot, choice) = (block.header.slot, Choice::Finalize(block.id(chain)));
    let votes = [0, 1, 2].map(|voter| {
        let unsigned = Vote {
            epoch: Epoch(0),
            slot,
            choice,
            voter: MemberIndex(voter),
            clock: Time(2_000_000),
            applied: Height(0),
            signature: Signature([0; 64]),
        };
        let vote = Vote::sign(chain, &key(voter), unsigned);
        let (clock, applied) = (vote.clock, vote.applied);
        CertificateVote { voter: vote.voter, clock, applied, signature: vote.signature }
    });
    Certificate { epoch: Epoch(0), slot, choice, votes: votes.to_vec() }
}

/// Whether a server that restarted at height 3, whose header speaks of height 1, votes for a block
/// that speaks of `applied`.
fn votes_for(applied: Applied) -> bool {
    let genesis = genesis();
    let chain = genesis.chain_id();
    let parent = Block::genesis(&genesis).id(chain);
    let last = block(3, parent, None, Applied { height: Height(1), root: root(1) });
    let certificate = finalization(chain, &last);
    let child = block(4, last.id(chain), Some(certificate.clone()), applied);
    let recovered = Recovered {
        last: Some((Arc::new(last), Finality::Votes(certificate))),
        ..Recovered::default()
    };
    let own = Applied { height: Height(3), root: root(3) };
    let now = Now::default();
    let (mut replica, _) = Replica::new(&genesis, key(2), recovered, own, now).unwrap();
    let proposal = Proposal::sign(chain, &key(1), Arc::new(child));
    let from = key(1).public();
    let outputs = replica
        .step(now, Input::Message { from, message: Message::Proposal(proposal) })
        .into_iter()
        .filter(|output| matches!(output, Output::Persist(Record::Notarized { .. })));
    outputs.count() == 1
}

#[test]
fn a_restarted_server_vouches_for_no_root_that_it_does_not_know() {
    assert!(votes_for(Applied { height: Height(3), root: root(3) }), "its own");
    assert!(votes_for(Applied { height: Height(1), root: root(1) }), "the parent's word");
    assert!(!votes_for(Applied { height: Height(3), root: root(9) }), "another one");
    assert!(!votes_for(Applied { height: Height(2), root: root(2) }), "one that it forgot");
    assert!(!votes_for(Applied { height: Height(1), root: root(9) }), "not the parent's word");
}

/// An envelope of which eleven are all that a server's own clients may have waiting.
fn large_envelope(salt: u8) -> Arc<Envelope> {
    use crate::transaction::{Expiry, Parameters, Settings, Statement, Transaction, Value};
    let blob = Value::Blob(vec![salt; 2_900_000]);
    let parameters = Parameters::Positional(vec![blob]);
    let transaction = Transaction {
        salt: [salt; 16],
        user: "rota".into(),
        statements: vec![Statement { sql: "INSERT INTO t VALUES (?1)".into(), parameters }],
        settings: Settings::default(),
        interactive: None,
    };
    let expiry = Expiry { height: Height(1_000), time: Time(3_000_000) };
    Arc::new(Envelope::sign(genesis().chain_id(), &key(2), expiry, vec![transaction]))
}

/// What a client hears of an envelope.
fn submit(replica: &mut Replica, envelope: &Arc<Envelope>) -> Option<String> {
    let outputs = replica.step(Now::default(), Input::Submit(Arc::clone(envelope)));
    outputs.into_iter().find_map(|output| match output {
        Output::Admitted(admitted) if admitted == *envelope => Some("admitted".into()),
        Output::Dropped { transactions, why } if transactions.len() == 1 => {
            Some(why.code().to_owned())
        }
        _ => None,
    })
}

#[test]
fn a_full_mempool_says_busy_and_takes_the_same_again_once_there_is_room() {
    let genesis = genesis();
    let chain = genesis.chain_id();
    let now = Now::default();
    let start = Recovered::default();
    let (replica, _) = Replica::new(&genesis, key(2), start, Applied::default(), now).unwrap();
    let replica = &mut { replica };
    let envelopes: Vec<Arc<Envelope>> = (0..12).map(large_envelope).collect();
    let heard: Vec<String> =
        envelopes.iter().map(|envelope| submit(replica, envelope).unwrap()).collect();
    let (last, others) = heard.split_last().unwrap();
    assert!(others.iter().all(|word| word == "admitted"), "{others:?}");
    assert_eq!(last, "53000");
    assert_eq!(submit(replica, &envelopes[0]).unwrap(), "admitted", "sent twice, held once");
    // One of them becomes final.
    let mut first = block(1, Block::genesis(&genesis).id(chain), None, Applied::default());
    first.body.envelopes = vec![Arc::clone(&envelopes[3])];
    first.header.body = first.body.digest();
    let certificate = finalization(chain, &first);
    let answer = crate::message::FinalBlocks {
        blocks: vec![Arc::new(first)],
        finality: Finality::Votes(certificate),
    };
    let from = key(1).public();
    replica.step(now, Input::Message { from, message: Message::Final(answer) });
    assert_eq!(submit(replica, &envelopes[11]).unwrap(), "admitted");
    assert_eq!(replica.waiting().len(), 11);
    assert_eq!(replica.tail().len(), 1, "final, and not executed here");
    replica.step(now, Input::Applied(Applied { height: Height(1), root: root(1) }));
    assert!(replica.tail().is_empty());
}

#[test]
fn clients_are_told_of_a_notarized_block_once() {
    let genesis = genesis();
    let chain = genesis.chain_id();
    let now = Now::default();
    let start = Recovered::default();
    let (replica, _) = Replica::new(&genesis, key(2), start, Applied::default(), now).unwrap();
    let replica = &mut { replica };
    let one = Arc::new(block(1, Block::genesis(&genesis).id(chain), None, Applied::default()));
    let mut told = |from: u16, message: Message| {
        let outputs = replica.step(now, Input::Message { from: key(from).public(), message });
        let told = outputs.into_iter().filter_map(|output| match output {
            Output::Notarized(blocks) => Some(blocks),
            _ => None,
        });
        told.flatten().collect::<Vec<_>>()
    };
    let proposal = Proposal::sign(chain, &key(0), Arc::clone(&one));
    assert!(told(0, Message::Proposal(proposal)).is_empty());
    let vote = |voter: u16| {
        let unsigned = Vote {
            epoch: Epoch(0),
            slot: Slot(1),
            choice: Choice::Notarize(one.id(chain)),
            voter: MemberIndex(voter),
            clock: Time(2_000_000),
            applied: Height(0),
            signature: Signature([0; 64]),
        };
        Message::Vote(Vote::sign(chain, &key(voter), unsigned))
    };
    let told_by = [0, 1, 3, 1].map(|voter| told(voter, vote(voter)));
    let first = told_by.iter().position(|blocks| !blocks.is_empty());
    assert!(first.is_some_and(|first| first > 0), "not by one vote, with or without our own");
    assert_eq!(told_by.concat(), [one], "once");
}

/// A new server of the four.
fn new_replica(member: u16) -> Replica {
    let (recovered, now) = (Recovered::default(), Now::default());
    Replica::new(&genesis(), key(member), recovered, Applied::default(), now).unwrap().0
}

/// Small, and signed by nobody that core knows.
fn strangers_envelope(stranger: u8) -> Arc<Envelope> {
    use crate::transaction::{Expiry, Parameters, Settings, Statement, Transaction};
    let parameters = Parameters::Positional(Vec::new());
    let transaction = Transaction {
        salt: [stranger; 16],
        user: "alice".into(),
        statements: vec![Statement { sql: "DELETE FROM t".into(), parameters }],
        settings: Settings::default(),
        interactive: None,
    };
    let expiry = Expiry { height: Height(1_000), time: Time(3_000_000) };
    let key = SecretKey::from_bytes([stranger; 32]);
    Arc::new(Envelope::sign(genesis().chain_id(), &key, expiry, vec![transaction]))
}

#[test]
fn an_envelope_signed_by_a_client_s_own_key_becomes_final_like_a_server_s() {
    let (genesis, now) = (genesis(), Now::default());
    let envelope = strangers_envelope(99);
    let mut on_their_way = VecDeque::new();
    let mut replicas: Vec<Replica> = (0..4)
        .map(|member| {
            let start = Recovered::default();
            let new = Replica::new(&genesis, key(member), start, Applied::default(), now);
            let (replica, outputs) = new.unwrap();
            on_their_way.extend(outputs.into_iter().map(|output| (usize::from(member), output)));
            replica
        })
        .collect();
    let submitted = replicas[2].step(now, Input::Submit(Arc::clone(&envelope)));
    on_their_way.extend(submitted.into_iter().map(|output| (2, output)));
    let mut executed_by = std::collections::BTreeSet::new();
    while executed_by.len() < 4 {
        let (from, output) = on_their_way.pop_front().expect("it becomes final everywhere");
        let sent_by = replicas[from].me;
        let mut step = |to: usize, input| {
            let outputs = replicas[to].step(now, input);
            on_their_way.extend(outputs.into_iter().map(|output| (to, output)));
        };
        match output {
            Output::Send { to, message } => {
                for other in (0..4).filter(|&other| other != from) {
                    let member = key(u16::try_from(other).unwrap()).public();
                    if to == Recipient::Members || to == Recipient::One(member) {
                        step(other, Input::Message { from: sent_by, message: message.clone() });
                    }
                }
            }
            Output::Apply(block) => {
                if block.body.envelopes == [Arc::clone(&envelope)] {
                    executed_by.insert(from);
                }
                let height = block.header.height;
                step(from, Input::Applied(Applied { height, root: root(1) }));
            }
            _ => {}
        }
    }
}

#[test]
fn what_another_server_s_client_signed_is_passed_on_as_such() {
    let server = &mut new_replica(3);
    let from = key(2).public();
    let message = Message::Envelopes(vec![strangers_envelope(99)]);
    server.step(Now::default(), Input::Message { from, message });
    let later = Now { instant: Instant(200_000), ..Now::default() };
    let sent = server.step(later, Input::Woken).into_iter().find_map(|output| match output {
        Output::Send { to: Recipient::One(to), message: Message::PassedOn(envelopes) } => {
            Some((to, envelopes.len()))
        }
        _ => None,
    });
    assert_eq!(sent, Some((key(0).public(), 1)));
}

#[test]
fn who_asks_for_large_blocks_under_pow_is_answered_as_seldom_as_they_take_time() {
    let pow = Some(crate::genesis::Pow::default());
    let genesis = Genesis { method: Method::Pow, pow, members: Vec::new(), ..genesis() };
    let own = Applied::default();
    let start = Now::default();
    let (mut replica, _) =
        Replica::new(&genesis, key(0), Recovered::default(), own, start).unwrap();
    let mut answers = |asker: u16, at: Instant, bytes: usize| {
        let from = key(asker).public();
        let now = Now { instant: at, ..start };
        let message = Message::Fetch(Fetch::Block(BlockId([7; 32])));
        let outputs = replica.step(now, Input::Message { from, message });
        let served = outputs.iter().filter(|output| matches!(output, Output::Serve { .. })).count();
        if served > 0 {
            replica.served(from, bytes);
        }
        served
    };
    let small: usize = (0..100).map(|_| answers(1, Instant(0), 200)).sum();
    assert_eq!(small, 64, "a burst");
    let large: usize = (0..100).map(|_| answers(2, Instant(0), 4 << 20)).sum();
    assert_eq!(large, 1, "and one of four megabytes");
    assert_eq!(answers(2, Instant(190_000), 0), 0);
    assert_eq!(answers(2, Instant(195_000), 0), 1, "after as long as it stands for");
    // However many ask: all of them together make this server do no more than that.
    let all: usize = (3..100).map(|asker| answers(asker, Instant(195_000), 4 << 20)).sum();
    assert!((3..=5).contains(&all), "{all}");
}
