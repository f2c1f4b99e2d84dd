//! What `raft` keeps in the log (steps 5 to 7): entries of its log in the tail, where a later one
//! replaces those that stood at its index or after; and finality that is written lazily, since a
//! final block is on disk as an entry.

use std::sync::Arc;

use rota_core::block::{Block, Finality};
use rota_core::error::Fault;
use rota_core::journal::{Entry, Record};
use rota_core::message::{FinalBlocks, MAX_ANSWER_BYTES};
use rota_core::types::{BlockId, Height, Slot};

use super::writing::Writing;
use super::{ChainDb, Stored, number, unseal};
use crate::host::Journal;

/// More noted records do not wait: with blocks of 4 MiB, these are 64 MiB.
const MOST_NOTES: usize = 16;

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
        for (_, bytes) in self.stored_tail()? {
            let stored = unseal(&bytes).ok_or_else(|| self.corrupt("tail"))?;
            let Stored::Entry { index, term, block: Some(id) } = stored else { continue };
            let block = self.body(id)?.ok_or_else(|| self.corrupt("bodies (missing)"))?;
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

    /// Whether these records are written alone, and what was noted later: entries, on which
    /// somebody waits, then touch as few pages as can be. Not for long: notes hold whole blocks.
    pub(super) fn can_wait(&self, records: &[Record]) -> bool {
        let entries = records.iter().all(|record| matches!(record, Record::Entry(_)));
        let few = self.notes.len() < MOST_NOTES && self.receipts.len() < MOST_RECEIPTS;
        entries && few && !records.is_empty()
    }

    /// Final blocks after this height that are noted and not written yet, if they follow it.
    pub(super) fn noted_after(&self, height: Height) -> Option<FinalBlocks> {
        let (mut answer, mut bytes) = (None, 0_usize);
        let mut next = height.next();
        for note in &self.notes {
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
    /// An entry of the log: what stood at its index or after goes.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<Stored, Fault> {
        let Entry { index, term, block } = entry;
        if Slot(*index) <= self.tail_end {
            self.cut(Slot(*index)).map_err(super::write_fault)?;
        }
        self.tail_end = Slot(*index);
        let block = block.as_ref().map(|block| block.id(self.chain));
        Ok(Stored::Entry { index: *index, term: *term, block })
    }

    /// Deletes the tail from this slot on, with its bodies.
    fn cut(&mut self, from: Slot) -> rusqlite::Result<()> {
        let mut bodies = self
            .transaction
            .prepare_cached("SELECT body FROM rota_tail WHERE slot >= ?1 AND body IS NOT NULL")?;
        let bodies = bodies.query_map([number(from.0)], |row| row.get(0).map(BlockId))?;
        let bodies = bodies.collect::<rusqlite::Result<Vec<_>>>()?;
        self.transaction
            .prepare_cached("DELETE FROM rota_tail WHERE slot >= ?1")?
            .execute([number(from.0)])?;
        let mut delete =
            self.transaction.prepare_cached("DELETE FROM rota_bodies WHERE id = ?1")?;
        for id in bodies {
            delete.execute([&id.0])?;
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

        fn bodies(&self) -> i64 {
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
    fn what_is_noted_waits_while_entries_come_and_not_for_ever() {
        let mut t = Fixture::new();
        for index in 1..=MOST_NOTES as u64 {
            let block = t.maker.next(index, MOST_NOTES);
            t.db.append(&[entry(index, 1, Some(&block))]).unwrap();
            t.db.note(finalized(&block));
            assert_eq!(t.db.height(), Height(0), "entries are written alone");
        }
        let more = t.maker.next(99, 99);
        t.db.append(&[entry(99, 1, Some(&more))]).unwrap();
        assert_eq!(t.db.height(), Height(MOST_NOTES as u64));
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
