//! The log: what is written is read back, what is damaged is found, nothing is kept for ever.

use rota_core::block::{Applied, Body, Header, Kind, Turn};
use rota_core::crypto::SecretKey;
use rota_core::error::Refusal;
use rota_core::genesis::{Administrator, Method, Parameters};
use rota_core::members::Member;
use rota_core::time::Time;
use rota_core::transaction::{self, Envelope, Expiry, Settings, Statement, Transaction};
use rota_core::types::{Digest, Epoch, MemberIndex, TransactionId};
use rota_core::work::HeaderHash;

use super::*;
use crate::value::{Rows, StatementKind, StatementResult};

pub(crate) fn genesis(name: &str) -> Genesis {
    Genesis {
        format: FORMAT,
        name: name.into(),
        time_ms: 1_000,
        method: Method::Poa,
        pow: None,
        seed: Digest::default(),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: String::new(),
        parameters: Parameters::default(),
        members: vec![Member { key: SecretKey::from_bytes([1; 32]).public(), weight: 1 }],
    }
}

/// A chain of blocks in the making, each with one transaction of so many bytes.
pub(crate) struct Maker {
    chain: ChainId,
    pub(crate) parent: Block,
    /// In whose name the next transactions are.
    pub(crate) user: String,
}

impl Maker {
    pub(crate) fn new(genesis: &Genesis) -> Self {
        let (chain, parent) = (genesis.chain_id(), Block::genesis(genesis));
        Self { chain, parent, user: "rota".into() }
    }

    /// A block on top of the newest, in this slot. It becomes the newest.
    pub(crate) fn next(&mut self, slot: u64, bytes: usize) -> Arc<Block> {
        let block = self.sibling(slot, bytes);
        self.parent = (*block).clone();
        block
    }

    /// A block on top of the newest that does not become the newest.
    fn sibling(&self, slot: u64, bytes: usize) -> Arc<Block> {
        let key = SecretKey::from_bytes([1; 32]);
        let expiry = Expiry { height: Height(100), time: Time(100_000) };
        let sql = "x".repeat(bytes);
        let parameters = transaction::Parameters::Positional(Vec::new());
        let transaction = Transaction {
            salt: [3; 16],
            user: self.user.clone(),
            statements: vec![Statement { sql, parameters }],
            settings: Settings::default(),
            interactive: None,
        };
        let envelope = Envelope::sign(self.chain, &key, expiry, vec![transaction]);
        let body = Body { parent_certificate: None, envelopes: vec![Arc::new(envelope)] };
        let header = Header {
            epoch: Epoch(0),
            slot: Slot(slot),
            height: self.parent.header.height.next(),
            kind: Kind::Ordinary,
            parent: self.parent.id(self.chain),
            leader: MemberIndex(0),
            turn: Turn::Scheduled,
            time: Time(1_700_000_000_000 + slot),
            applied: Applied::default(),
            body: body.digest(),
        };
        Arc::new(Block { header, body })
    }

    pub(crate) fn finalized(&self, blocks: &[&Arc<Block>]) -> Record {
        let last = blocks.last().unwrap();
        Record::Finalized {
            finality: Finality::Votes(
                self.certificate(last.header.slot.0, Choice::Finalize(last.id(self.chain))),
            ),
            blocks: blocks.iter().map(|&block| block.clone()).collect(),
        }
    }

    fn certificate(&self, slot: u64, choice: Choice) -> Certificate {
        Certificate { epoch: Epoch(0), slot: Slot(slot), choice, votes: Vec::new() }
    }

    fn vote(&self, slot: u64, choice: Choice) -> Vote {
        let signature = Signature([7; 64]);
        Vote {
            epoch: Epoch(0),
            slot: Slot(slot),
            choice,
            voter: MemberIndex(0),
            clock: Time(5),
            applied: Height(0),
            signature,
        }
    }

    fn notarized(&self, block: &Arc<Block>) -> Record {
        let choice = Choice::Notarize(block.id(self.chain));
        Record::Notarized { vote: self.vote(block.header.slot.0, choice), block: block.clone() }
    }

    fn proposed(&self, block: &Arc<Block>) -> Record {
        Record::Proposed(Proposal { block: block.clone(), signature: Signature([9; 64]) })
    }
}

struct Fixture {
    home: tempfile::TempDir,
    genesis: Genesis,
    maker: Maker,
    db: ChainDb,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let genesis = genesis("test");
        let db = ChainDb::open(home.path(), &genesis).unwrap();
        Self { home, maker: Maker::new(&genesis), genesis, db }
    }

    fn reopen(&mut self) {
        self.db = ChainDb::open(self.home.path(), &self.genesis).unwrap();
    }

    fn rows(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.db.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    /// Finalizes blocks of these slots, each with a certificate of its own.
    fn finalize(&mut self, slots: std::ops::RangeInclusive<u64>, bytes: usize) {
        for slot in slots {
            let block = self.maker.next(slot, bytes);
            self.db.append(&[self.maker.finalized(&[&block])]).unwrap();
        }
    }
}

#[test]
fn every_record_comes_back_in_the_order_written() {
    let mut t = Fixture::new();
    let (one, two) = (t.maker.next(1, 10), t.maker.next(2, 10));
    let id = one.id(t.maker.chain);
    let records = [
        Record::Entered(t.maker.certificate(0, Choice::Nullify)),
        t.maker.proposed(&one),
        t.maker.notarized(&one),
        Record::Finalizing {
            vote: t.maker.vote(1, Choice::Finalize(id)),
            notarization: t.maker.certificate(1, Choice::Notarize(id)),
        },
        Record::Fetched(two.clone()),
        Record::Nullified(t.maker.vote(3, Choice::Nullify)),
    ];
    t.db.append(&records[..2]).unwrap();
    t.db.append(&records[2..]).unwrap();
    t.reopen();
    let recovered = t.db.recover().unwrap();
    assert_eq!(recovered, Recovered { tail: records.to_vec(), ..Recovered::default() });
}

#[test]
fn finality_empties_the_tail_and_drops_abandoned_bodies() {
    let mut t = Fixture::new();
    let abandoned = t.maker.sibling(1, 20);
    let one = t.maker.next(2, 10);
    let above = t.maker.sibling(3, 30);
    t.db.append(&[t.maker.notarized(&abandoned), t.maker.notarized(&one)]).unwrap();
    t.db.append(&[t.maker.notarized(&above)]).unwrap();
    let late = Record::Nullified(t.maker.vote(2, Choice::Nullify));
    t.db.append(&[t.maker.finalized(&[&one]), late]).unwrap();
    for again in [false, true] {
        if again {
            t.reopen();
        }
        let recovered = t.db.recover().unwrap();
        assert_eq!(recovered.last.unwrap().0, one);
        assert_eq!(recovered.tail, [t.maker.notarized(&above)]);
        assert_eq!(t.rows("rota_bodies"), 2);
        assert_eq!(t.db.height(), Height(1));
    }
    // What was pending before the restart is finalized from where it is.
    t.db.append(&[t.maker.finalized(&[&above])]).unwrap();
    assert_eq!((t.rows("rota_bodies"), t.rows("rota_tail")), (2, 0));
}

#[test]
fn a_body_is_written_once_and_a_batch_is_one_flush() {
    let mut t = Fixture::new();
    let before = t.db.fsyncs();
    let one = t.maker.next(1, 100_000);
    t.db.append(&[t.maker.proposed(&one), t.maker.notarized(&one)]).unwrap();
    t.db.append(&[t.maker.finalized(&[&one])]).unwrap();
    t.db.append(&[]).unwrap();
    assert_eq!(t.db.fsyncs() - before, 2);
    assert_eq!(t.rows("rota_bodies"), 1);
    let wal = std::fs::metadata(t.home.path().join("chain.db-wal")).unwrap().len();
    assert!(wal < 250_000, "{wal} bytes for one body of 100,000");
}

#[test]
fn what_an_append_could_not_write_whole_it_did_not_write() {
    let mut t = Fixture::new();
    t.maker.next(1, 10);
    let two = t.maker.next(2, 10);
    let vote = Record::Nullified(t.maker.vote(9, Choice::Nullify));
    assert!(t.db.append(&[vote, t.maker.finalized(&[&two])]).is_err());
    t.reopen();
    assert_eq!(t.db.recover().unwrap(), Recovered::default());
}

#[test]
fn answers_end_where_a_certificate_proves_them() {
    let mut t = Fixture::new();
    assert_eq!(t.db.serve(&Fetch::FinalAfter(Height(0))).unwrap(), None);
    let blocks: Vec<_> = (1..=3).map(|slot| t.maker.next(slot, 2 << 20)).collect();
    let (one, more) = (&blocks[0], &blocks[1..]);
    t.db.append(&[t.maker.finalized(&[one])]).unwrap();
    t.db.append(&[t.maker.finalized(&[&more[0], &more[1]])]).unwrap();
    let mut heights = |after| match t.db.serve(&Fetch::FinalAfter(Height(after))).unwrap() {
        Some(Message::Final(answer)) => {
            let last = answer.blocks.last().unwrap();
            assert_eq!(
                answer.finality.certificate().unwrap().choice,
                Choice::Finalize(last.id(t.maker.chain))
            );
            answer.blocks.iter().map(|block| block.header.height.0).collect()
        }
        other => {
            assert_eq!(other, None);
            Vec::new()
        }
    };
    assert_eq!(heights(0), [1]); // all three would be too much, and the second has no proof
    assert_eq!(heights(1), [2, 3]); // too much as well, but less would prove nothing
    assert_eq!(heights(2), [3]);
    assert_eq!(heights(3), [0; 0]);
    t.finalize(4..=30, 10);
    let Some(Message::Final(answer)) = t.db.serve(&Fetch::FinalAfter(Height(3))).unwrap() else {
        panic!("no answer")
    };
    assert_eq!(answer.blocks.len(), 27);
}

#[test]
fn a_block_tells_by_what_right_its_leader_had_the_turn() {
    let mut t = Fixture::new();
    let proof = WorkProof::new(HeaderHash([9; 32]), BlockId([8; 32]), 7, 0x1e04_0000, 6);
    let miner = SecretKey::from_bytes([5; 32]).public();
    for (turn, finality) in [
        (Turn::Scheduled, None),
        (Turn::Elected { term: 3 }, Some(Finality::Log { term: 3, index: 2 })),
        (Turn::Found { miner }, Some(Finality::Work(vec![proof]))),
    ] {
        let mut block = t.maker.sibling(t.maker.parent.header.slot.0 + 1, 10);
        Arc::make_mut(&mut block).header.turn = turn;
        t.maker.parent = (*block).clone();
        let finality = finality.unwrap_or_else(|| match t.maker.finalized(&[&block]) {
            Record::Finalized { finality, .. } => finality,
            other => panic!("{other:?}"),
        });
        t.db.append(&[Record::Finalized { blocks: vec![block], finality }]).unwrap();
    }
    let sql = "SELECT group_concat(turn, ', ') FROM blocks ORDER BY height";
    let told: String = t.db.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(told, format!("scheduled, term 3, work {} 1e040000", proof.hash()));
}

#[test]
fn a_block_is_served_by_id_before_and_after_it_is_final() {
    let mut t = Fixture::new();
    let one = t.maker.next(1, 10);
    let fetch = Fetch::Block(one.id(t.maker.chain));
    assert_eq!(t.db.serve(&fetch).unwrap(), None);
    t.db.append(&[Record::Fetched(one.clone())]).unwrap();
    assert_eq!(t.db.serve(&fetch).unwrap(), Some(Message::Pending(one.clone())));
    t.db.append(&[t.maker.finalized(&[&one])]).unwrap();
    assert_eq!(t.db.serve(&fetch).unwrap(), Some(Message::Pending(one.clone())));
    assert_eq!(t.db.final_block(Height(1)).unwrap(), Some(one));
    assert_eq!(t.db.final_block(Height(2)).unwrap(), None);
}

#[test]
fn under_pow_a_block_of_any_age_is_found_by_id() {
    let closed = genesis("test");
    let pow = Some(rota_core::genesis::Pow::default());
    let open = Genesis { method: Method::Pow, pow, members: Vec::new(), ..closed.clone() };
    for (genesis, expected) in [(closed, None), (open, Some(1))] {
        let home = tempfile::tempdir().unwrap();
        let mut db = ChainDb::open(home.path(), &genesis).unwrap();
        let mut maker = Maker::new(&genesis);
        let blocks: Vec<_> = (0..=FOUND_BY_ID).map(|slot| maker.next(slot + 1, 1)).collect();
        let records: Vec<_> = blocks.iter().map(|block| maker.finalized(&[block])).collect();
        db.append(&records).unwrap();
        let height = |block: &Arc<Block>| {
            let found = db.body_by_id(block.id(maker.chain)).unwrap();
            found.map(|block| block.header.height.0)
        };
        assert_eq!(height(&blocks[0]), expected, "{:?}", genesis.method);
        assert_eq!(height(&blocks[1]), Some(2), "one of the newest");
    }
}

#[test]
fn a_flipped_bit_is_a_fault_and_never_a_shorter_log() {
    for (table, column) in [
        ("rota_bodies", "block"),
        ("rota_tail", "record"),
        ("rota_certificates", "certificate"),
        ("blocks", "id"),
    ] {
        let mut t = Fixture::new();
        t.finalize(1..=1, 10);
        let next = t.maker.next(2, 10);
        t.db.append(&[t.maker.notarized(&next)]).unwrap();
        let flip = format!("UPDATE {table} SET {column} = ?1");
        let sql = format!("SELECT {column} FROM {table}");
        let flipped = |row: &Row<'_>| {
            let mut bytes = row.get_ref(0)?.as_bytes()?.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 2;
            Ok(bytes)
        };
        let bytes = t.db.connection.query_row(&sql, [], flipped).unwrap();
        let bytes = match String::from_utf8(bytes.clone()) {
            Ok(text) if table == "blocks" => Sql::Text(text),
            _ => Sql::Blob(bytes),
        };
        t.db.connection.execute(&flip, [bytes]).unwrap();
        t.reopen();
        assert!(t.db.recover().is_err(), "{table}");
    }
}

#[test]
fn the_log_of_another_database_is_refused_with_advice() {
    let mut t = Fixture::new();
    let another = ChainDb::open(t.home.path(), &genesis("before the first start"));
    assert!(another.is_ok(), "nothing was ever written in it");
    t.reopen();
    t.finalize(1..=1, 10);
    let advice = |genesis: &Genesis| match ChainDb::open(t.home.path(), genesis) {
        Err(Fault::WrongFiles(advice)) => advice,
        _ => panic!("opened"),
    };
    assert!(advice(&genesis("another")).contains("put back the genesis"));
    t.db.connection.execute("UPDATE rota_about SET value = 99 WHERE name = 'format'", []).unwrap();
    assert!(advice(&t.genesis).contains("format"));
    t.db.connection.execute_batch("DROP TABLE rota_about").unwrap();
    assert!(advice(&t.genesis).contains("not a log"));
}

#[test]
fn the_log_keeps_short_however_long_the_chain() {
    let mut t = Fixture::new();
    t.finalize(1..=40, 400_000);
    let wal = std::fs::metadata(t.home.path().join("chain.db-wal")).unwrap().len();
    assert!(wal < 6 << 20, "{wal} bytes of write-ahead log after 16 MB of blocks");
}

#[test]
fn eight_bytes_of_each_page_are_kept_free() {
    let mut t = Fixture::new();
    t.finalize(1..=40, 400_000);
    let file = std::fs::read(t.home.path().join(FILE)).unwrap();
    assert_eq!(file[20], 8); // SQLite's file format, section 1.3.4
}

#[test]
fn blocks_are_shown_as_people_read_them() {
    let mut t = Fixture::new();
    t.finalize(7..=7, 10);
    let sql = "SELECT height || ' ' || slot || ' ' || epoch || ' ' || substr(leader, 1, 4) || ' '
        || time || ' ' || time_ms || ' ' || transactions || ' ' || length(id)
        || ' ' || (bytes > 100)
        FROM blocks";
    let shown: String = t.db.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    let leader = &t.genesis.members[0].key.to_string()[..4];
    let want = format!("1 7 0 {leader} 2023-11-14 22:13:20.007 1700000000007 1 64 1");
    assert_eq!(shown, want);
}

pub(crate) fn receipts(height: u64, count: u32, outcome: Result<(), Refusal>) -> Vec<Receipt> {
    let id = |index: u32| {
        let seed = [height.to_le_bytes(), u64::from(index).to_le_bytes()].concat();
        TransactionId(rota_hash::hash("test", &[&seed]))
    };
    let result = StatementResult {
        kind: StatementKind::Insert,
        rows_affected: 3,
        last_insert_rowid: 0,
        rows: Rows::default(),
    };
    (0..count)
        .map(|index| Receipt {
            id: id(index),
            height: Height(height),
            index,
            outcome: outcome.clone().map(|()| vec![result.clone()]),
        })
        .collect()
}

#[test]
fn receipts_wait_for_the_next_append_and_are_sorted_into_runs() {
    let mut t = Fixture::new();
    t.db.save_receipts(receipts(1, 3000, Ok(())));
    assert_eq!(t.rows("receipts"), 0);
    t.finalize(1..=1, 10);
    assert_eq!(
        (t.rows("receipts"), t.rows("rota_receipt_runs"), t.rows("rota_runs")),
        (3000, 0, 0)
    );
    t.db.save_receipts(receipts(2, 2000, Ok(())));
    t.finalize(2..=2, 10);
    assert_eq!(
        (t.rows("receipts"), t.rows("rota_receipt_runs"), t.rows("rota_runs")),
        (5000, 5000, 1)
    );
    // Saved twice, as after a restart that applies a block again: once in the end.
    t.db.save_receipts(receipts(2, 2000, Ok(())));
    t.finalize(3..=3, 10);
    assert_eq!(
        (t.rows("receipts"), t.rows("rota_receipt_runs"), t.rows("rota_runs")),
        (5000, 5000, 1)
    );
    let sql = "SELECT tag || position FROM receipts WHERE height = 2 AND position = 17";
    let tag: String = t.db.connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(tag, "INSERT 0 317");
}

#[test]
fn what_was_undone_waits_until_it_can_stand_in_no_block() {
    let home = tempfile::tempdir().unwrap();
    let genesis = genesis("returned");
    let maker = Maker::new(&genesis);
    let envelopes = [10, 20].map(|until| {
        let mut envelope = Envelope::clone(&maker.sibling(1, until).body.envelopes[0]);
        envelope.expiry.height = Height(until as u64);
        envelope.transactions[0].salt = [u8::try_from(until).unwrap(); 16];
        Arc::new(envelope)
    });
    let mut log = ChainDb::open(home.path(), &genesis).unwrap();
    for _ in 0..2 {
        let transaction = log.connection.transaction().unwrap();
        returned::keep(&transaction, genesis.chain_id(), &envelopes).unwrap();
        transaction.commit().unwrap();
    }
    assert_eq!(log.returned(Height(10), Time(0)).unwrap(), envelopes, "once, in order");
    drop(log);
    let mut log = ChainDb::open(home.path(), &genesis).unwrap();
    assert_eq!(log.returned(Height(11), Time(0)).unwrap(), envelopes[1..]);
    assert_eq!(log.returned(Height(10), Time(0)).unwrap(), envelopes[1..], "forgotten for good");
    assert_eq!(log.returned(Height(10), Time(100_001)).unwrap(), []);
}
