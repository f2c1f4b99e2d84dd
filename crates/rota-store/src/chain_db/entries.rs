//! What `raft` keeps in the log (steps 5 to 7): entries of its log, first in the redo log and then
//! in the tail, where a later one replaces those that stood at its index or after; and finality
//! that is written lazily, since a final block is on disk as an entry.

use std::sync::Arc;

use rota_core::block::{Block, Finality};
use rota_core::error::Fault;
use rota_core::journal::{Entry, Record};
use rota_core::message::{FinalBlocks, MAX_ANSWER_BYTES};
use rota_core::types::{BlockId, Height, Slot};
use rusqlite::OptionalExtension;

use super::redo::Redo;
use super::writing::{Writing, write_fault};
use super::{ChainDb, Stored, count, number, unseal};
use crate::host::Journal;

/// More records do not wait to be written: each final block has two, its entry and its finality.
const MOST_UNWRITTEN: usize = 128;

/// More receipts do not wait: some hundred kilobytes, and a run's worth (`sort_receipts`).
const MOST_RECEIPTS: usize = 4_096;

impl ChainDb {
    /// Writes down that the blocks up to this height are final, which `state.db` has executed: the
    /// record of it was noted and may be lost, the blocks are in the tail. To be called before
    /// [`ChainDb::recover`].
    pub fn settle(&mut self, executed: Height) -> Result<(), Fault> {
        let mut records = Vec::new();
        let mut height = self.last.0;
        if executed <= height {
            return Ok(());
        }
        for (slot, bytes) in self.stored_tail()? {
            let stored = unseal(&bytes).ok_or_else(|| self.corrupt("tail"))?;
            let Stored::Entry { index, term, block: Some(id) } = stored else { continue };
            let block = self.body(slot, id)?.ok_or_else(|| self.corrupt("bodies (missing)"))?;
            if block.header.height != height.next() || block.header.height > executed {
                break;
            }
            height = block.header.height;
            // Each with its own proof, as it was noted.
            let finality = Finality::Log { term, index };
            records.push(Record::Finalized { blocks: vec![block], finality });
        }
        if records.is_empty() { Ok(()) } else { self.append(&records) }
    }

    /// Whether these records can go into the redo log: entries, on which somebody waits, are then
    /// one write, and no row.
    pub(super) fn can_wait(&self, records: &[Record]) -> bool {
        let entries = records.iter().all(|record| matches!(record, Record::Entry(_)));
        let few = self.unwritten.len() < MOST_UNWRITTEN && self.receipts.len() < MOST_RECEIPTS;
        entries && few && !records.is_empty()
    }

    /// Writes entries to the redo log, and makes one for the first of them. False if they have no
    /// room there.
    pub(super) fn flush_alone(&mut self, entries: &[Record]) -> Result<bool, Fault> {
        if let Some(redo) = &mut self.redo {
            return redo.append(entries);
        }
        let sql = "SELECT abs(random() / 2)";
        let generation =
            self.read(sql, |statement| statement.query_row([], |row| count(row, 0)))?;
        let mut redo = Redo::create(&self.redo_path, generation)?;
        // From here on a missing file is a loss, and said so.
        let sql = "INSERT OR REPLACE INTO rota_about VALUES ('redo', ?1)";
        self.connection.execute(sql, [number(generation)]).map_err(write_fault)?;
        let is_written = redo.append(entries)?;
        self.redo = Some(redo);
        Ok(is_written)
    }

    /// Writes down what the redo log has and the tables have not. To be called when the log is
    /// opened.
    pub(super) fn write_redone(&mut self) -> Result<(), Fault> {
        let sql = "SELECT value FROM rota_about WHERE name = 'redo'";
        let generation =
            self.read(sql, |statement| statement.query_row([], |row| count(row, 0)).optional())?;
        let Some(generation) = generation else { return Ok(()) };
        let (redo, records) = Redo::open(&self.redo_path, generation)?;
        self.redo = Some(redo);
        self.unwritten = records;
        self.append(&[])
    }

    /// The block of an entry that is in the redo log only.
    pub(super) fn unwritten_body(&self, id: BlockId) -> Option<Arc<Block>> {
        let blocks = self.unwritten.iter().filter_map(|record| match record {
            Record::Entry(Entry { block, .. }) => block.as_ref(),
            _ => None,
        });
        blocks.rev().find(|block| block.id(self.chain) == id).cloned()
    }

    /// Final blocks after this height that are noted and not written yet, if they follow it.
    pub(super) fn noted_after(&self, height: Height) -> Option<FinalBlocks> {
        let (mut answer, mut bytes) = (None, 0_usize);
        let mut next = height.next();
        for note in &self.unwritten {
            let Record::Finalized { blocks, finality } = note else { continue };
            let news: Vec<Arc<Block>> =
                blocks.iter().filter(|block| block.header.height >= next).cloned().collect();
            if news.is_empty() {
                continue; // all of it is older
            }
            let sizes = news.iter().map(|block| borsh::object_length(block).unwrap_or(0));
            bytes = bytes.saturating_add(sizes.sum());
            let follows = news.first().is_some_and(|block| block.header.height == next);
            if !follows || (answer.is_some() && bytes > MAX_ANSWER_BYTES) {
                break;
            }
            next = news.last().map_or(next, |block| block.header.height.next());
            let answer = answer.get_or_insert_with(|| FinalBlocks {
                blocks: Vec::new(),
                finality: finality.clone(),
            });
            answer.blocks.extend(news);
            answer.finality = finality.clone();
        }
        answer
    }
}

impl Writing<'_> {
    /// The tables have what was in the redo log up to this generation.
    pub(super) fn redone(&self, generation: u64) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO rota_about VALUES ('redo', ?1)";
        self.transaction.prepare_cached(sql)?.execute([number(generation)]).map(drop)
    }

    /// An entry comes to this place of the log: what stood there or after goes.
    pub(super) fn replace(&mut self, slot: Slot) -> rusqlite::Result<()> {
        if slot <= self.tail_end {
            self.cut(slot)?;
        }
        self.tail_end = slot;
        Ok(())
    }

    /// Deletes the tail from this slot on, with its bodies.
    fn cut(&mut self, from: Slot) -> rusqlite::Result<()> {
        let mut bodies = self
            .transaction
            .prepare_cached("SELECT body FROM rota_tail WHERE slot >= ?1 AND body IS NOT NULL")?;
        let bodies = bodies.query_map([number(from.0)], |row| row.get(0).map(BlockId))?;
        let bodies = bodies.collect::<rusqlite::Result<Vec<_>>>()?;
        for sql in [
            "DELETE FROM rota_bodies
                WHERE (slot, id) IN (SELECT slot, body FROM rota_tail WHERE slot >= ?1)",
            "DELETE FROM rota_tail WHERE slot >= ?1",
        ] {
            self.transaction.prepare_cached(sql)?.execute([number(from.0)])?;
        }
        for id in bodies {
            self.new.remove(&id);
            self.cut.insert(id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rota_core::journal::{HardState, Recovered};

    use super::*;
    use crate::chain_db::tests::{Maker, genesis};

    struct Fixture {
        home: tempfile::TempDir,
        maker: Maker,
        db: ChainDb,
    }

    impl Fixture {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let db = ChainDb::open(home.path(), &genesis("entries")).unwrap();
            Self { home, maker: Maker::new(&genesis("entries")), db }
        }

        fn reopen(&mut self) -> Recovered {
            self.db = ChainDb::open(self.home.path(), &genesis("entries")).unwrap();
            self.db.recover().unwrap()
        }

        fn bodies(&mut self) -> i64 {
            self.db.append(&[]).unwrap();
            let sql = "SELECT count(*) FROM rota_bodies";
            self.db.connection.query_row(sql, [], |row| row.get(0)).unwrap()
        }
    }

    fn entry(index: u64, term: u64, block: Option<&Arc<Block>>) -> Record {
        Record::Entry(Entry { index, term, block: block.cloned() })
    }

    fn finalized(block: &Arc<Block>) -> Record {
        let finality = Finality::Log { term: 1, index: block.header.slot.0 };
        Record::Finalized { blocks: vec![block.clone()], finality }
    }

    fn heights(answer: &FinalBlocks) -> Vec<u64> {
        answer.blocks.iter().map(|block| block.header.height.0).collect()
    }

    #[test]
    fn an_entry_replaces_what_stood_at_its_index_and_after() {
        let mut t = Fixture::new();
        let one = t.maker.next(2, 10);
        let (old, older) = (t.maker.next(3, 11), t.maker.next(4, 12));
        let first = entry(1, 1, None);
        let kept = entry(2, 1, Some(&one));
        let replaced = [entry(3, 1, Some(&old)), entry(4, 1, Some(&older))];
        t.db.append(&[&[first.clone(), kept.clone()], &replaced[..]].concat()).unwrap();
        assert_eq!(t.bodies(), 3);
        let new = entry(3, 2, None);
        t.db.append(std::slice::from_ref(&new)).unwrap();
        assert_eq!(t.bodies(), 1);
        assert_eq!(t.reopen().tail, [first.clone(), kept.clone(), new]);
        // Another leader brings the first ones back, in one append with what it replaces again.
        t.db.append(&[&replaced[..], &[entry(4, 3, None)], &replaced[..]].concat()).unwrap();
        assert_eq!(t.bodies(), 3);
        assert_eq!(t.reopen().tail, [&[first, kept], &replaced[..]].concat());
    }

    #[test]
    fn an_entry_of_the_same_append_as_its_finality_is_of_no_more_use() {
        let mut t = Fixture::new();
        let one = t.maker.next(2, 10);
        t.db.note(finalized(&one));
        let state = Record::HardState(HardState::default());
        t.db.append(&[entry(1, 1, None), entry(2, 1, Some(&one)), entry(3, 1, None), state])
            .unwrap();
        let recovered = t.reopen();
        assert_eq!(recovered.last.unwrap().0, one);
        assert_eq!(recovered.tail, [entry(3, 1, None)]);
    }

    #[test]
    fn entries_are_flushed_alone_and_written_with_what_was_noted() {
        let mut t = Fixture::new();
        for index in 1..=MOST_UNWRITTEN as u64 / 2 {
            let block = t.maker.next(index, MOST_UNWRITTEN);
            t.db.append(&[entry(index, 1, Some(&block))]).unwrap();
            t.db.note(finalized(&block));
            assert_eq!(t.db.height(), Height(0), "an entry is no row");
            assert_eq!(t.db.body_by_id(block.id(t.db.chain)).unwrap(), Some(block));
        }
        let more = t.maker.next(99, 99);
        t.db.append(&[entry(99, 1, Some(&more))]).unwrap();
        assert_eq!(t.db.height(), Height(MOST_UNWRITTEN as u64 / 2));
        let tail = t.reopen().tail;
        assert_eq!(tail, [entry(99, 1, Some(&more))]);
    }

    #[test]
    fn entries_that_were_only_flushed_are_there_again() {
        let mut t = Fixture::new();
        let (one, other) = (t.maker.next(2, 10), t.maker.next(3, 11));
        let mut expected = vec![entry(1, 1, None), entry(2, 1, Some(&one))];
        t.db.append(&expected).unwrap();
        assert_eq!(t.reopen().tail, expected);
        expected.push(entry(3, 1, Some(&other)));
        t.db.append(&expected[2..]).unwrap();
        assert_eq!(t.reopen().tail, expected);
        assert_eq!(t.reopen().tail, expected, "once");
        t.db.append(&[entry(2, 2, None)]).unwrap();
        expected.splice(1.., [entry(2, 2, None)]);
        assert_eq!(t.reopen().tail, expected);
    }

    #[test]
    fn a_replaced_entry_goes_though_its_successor_is_final_at_once() {
        let mut t = Fixture::new();
        let old = [t.maker.next(2, 10), t.maker.next(3, 11)];
        let replaced = [entry(2, 1, Some(&old[0])), entry(3, 1, Some(&old[1]))];
        t.db.append(&replaced).unwrap();
        assert_eq!(t.bodies(), 2);
        let new = Maker::new(&genesis("entries")).next(2, 12);
        t.db.append(&[entry(2, 2, Some(&new))]).unwrap();
        t.db.note(finalized(&new));
        let state = Record::HardState(HardState::default());
        t.db.append(&[state]).unwrap();
        let recovered = t.reopen();
        assert_eq!(recovered.last.unwrap().0, new);
        assert_eq!(recovered.tail, []);
        assert_eq!(t.bodies(), 1);
    }

    #[test]
    fn without_its_redo_log_a_log_is_not_whole() {
        let mut t = Fixture::new();
        t.db.append(&[entry(1, 1, None)]).unwrap();
        let path = t.db.redo_path.clone();
        std::fs::remove_file(&path).unwrap();
        let refused = ChainDb::open(t.home.path(), &genesis("entries")).err().unwrap();
        assert!(refused.to_string().contains("chain.db-redo"), "{refused}");
    }

    #[test]
    fn a_log_in_the_place_of_a_lost_one_has_nothing_of_it() {
        let mut t = Fixture::new();
        t.db.append(&[entry(1, 1, None)]).unwrap();
        for end in ["", "-wal", "-shm"] {
            std::fs::remove_file(t.home.path().join(format!("chain.db{end}"))).unwrap();
        }
        assert_eq!(t.reopen().tail, []);
        t.db.append(&[entry(2, 1, None)]).unwrap();
        assert_eq!(t.reopen().tail, [entry(2, 1, None)]);
    }

    #[test]
    fn what_is_executed_is_final_though_the_note_of_it_is_lost() {
        let mut t = Fixture::new();
        let blocks = [t.maker.next(2, 10), t.maker.next(3, 11), t.maker.next(5, 12)];
        let [one, two, three] = &blocks;
        let records = [
            entry(1, 1, None),
            entry(2, 1, Some(one)),
            entry(3, 1, Some(two)),
            entry(4, 2, None),
            entry(5, 2, Some(three)),
        ];
        t.db.append(&records).unwrap();
        t.db.note(finalized(one));
        t.db.note(finalized(two));
        assert_eq!(t.reopen().last, None, "the notes are lost");
        t.db.settle(Height(2)).unwrap();
        let recovered = t.db.recover().unwrap();
        assert_eq!(recovered.last, Some((two.clone(), Finality::Log { term: 1, index: 3 })));
        assert_eq!(recovered.tail, records[3..]);
        assert_eq!(t.db.final_block(Height(1)).unwrap().as_ref(), Some(one));
        let first = t.db.serve(&rota_core::message::Fetch::FinalAfter(Height(0))).unwrap();
        let Some(rota_core::message::Message::Final(first)) = first else { panic!("{first:?}") };
        assert_eq!(heights(&first), [1, 2]);
        let proven = "SELECT count(*) FROM rota_certificates";
        let proven: i64 = t.db.connection.query_row(proven, [], |row| row.get(0)).unwrap();
        assert_eq!(proven, 2, "an answer can end with either");
        t.db.settle(Height(2)).unwrap();
        t.db.settle(Height(9)).unwrap();
        assert_eq!(t.db.height(), Height(3), "as far as the blocks go");
    }

    #[test]
    fn a_block_that_is_noted_only_is_served() {
        let mut t = Fixture::new();
        let blocks = [t.maker.next(1, 10), t.maker.next(2, 11), t.maker.next(3, 12)];
        t.db.append(&[finalized(&blocks[0])]).unwrap();
        t.db.note(finalized(&blocks[1]));
        t.db.note(finalized(&blocks[2]));
        let mut serve = |height| t.db.serve(&rota_core::message::Fetch::FinalAfter(Height(height)));
        for (after, expected) in [(0, vec![1]), (1, vec![2, 3]), (2, vec![3])] {
            let Some(rota_core::message::Message::Final(answer)) = serve(after).unwrap() else {
                panic!("no answer for {after}")
            };
            assert_eq!(heights(&answer), expected);
        }
        assert_eq!(serve(3).unwrap(), None);
    }

    #[test]
    fn a_question_about_the_middle_of_what_is_noted_is_answered() {
        let mut t = Fixture::new();
        let blocks = [t.maker.next(1, 10), t.maker.next(2, 11), t.maker.next(3, 12)];
        let [one, two, three] = &blocks;
        let finality = Finality::Log { term: 1, index: 2 };
        t.db.note(Record::Finalized { blocks: vec![one.clone(), two.clone()], finality });
        t.db.note(finalized(three));
        for (after, expected) in [(0, vec![1, 2, 3]), (1, vec![2, 3]), (2, vec![3])] {
            let answer = t.db.noted_after(Height(after)).unwrap();
            assert_eq!(heights(&answer), expected);
            assert_eq!(answer.finality, Finality::Log { term: 1, index: 3 });
        }
    }

    #[test]
    fn an_answer_holds_so_many_small_blocks_and_no_more() {
        let mut t = Fixture::new();
        let many = crate::chain_db::MAX_ANSWER_BLOCKS as u64 + 10;
        let records: Vec<Record> =
            (1..=many).map(|slot| finalized(&t.maker.next(slot, 1))).collect();
        t.db.append(&records).unwrap();
        let answer = t.db.serve(&rota_core::message::Fetch::FinalAfter(Height(0))).unwrap();
        let Some(rota_core::message::Message::Final(answer)) = answer else { panic!("none") };
        assert_eq!(answer.blocks.len(), crate::chain_db::MAX_ANSWER_BLOCKS);
    }

    #[test]
    fn term_and_vote_outlive_everything() {
        let mut t = Fixture::new();
        let state = HardState { term: 7, vote: None, commit: 3 };
        t.db.append(&[Record::HardState(HardState { term: 6, ..state })]).unwrap();
        t.db.append(&[Record::HardState(state)]).unwrap();
        let block = t.maker.next(1, 10);
        t.db.append(&[finalized(&block)]).unwrap();
        assert_eq!(t.reopen().hard_state, state);
    }
}
