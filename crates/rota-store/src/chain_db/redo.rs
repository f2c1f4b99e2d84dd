//! The redo log before `chain.db` (steps 5 and 6, `raft`): entries on which somebody waits are
//! flushed here, one write each, and go into the tables of `chain.db` with those that come later.
//!
//! ```text
//!   append(entries) ─► frame ─► flush ─► acknowledged          chain.db-redo, of a fixed length
//!                        │ some dozens, or the end of the load
//!                        ▼
//!   chain.db, one transaction: all of them, and "generation + 1" ─► the file begins again
//! ```
//! A transaction of SQLite's writes whole pages, some ten writes for an entry of a few hundred
//! bytes; a frame is written into place that the file has already, so that a flush changes nothing
//! but its bytes. Frames of an older generation are in `chain.db`. A frame that a crash has torn is
//! the last one and was acknowledged to nobody; a damaged one *before* a whole one is a fault,
//! never a shorter log. Generations begin at a random number, so that nobody can have a value
//! written that looks like a frame.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use borsh::{BorshDeserialize, BorshSerialize};
use rota_core::error::Fault;
use rota_core::journal::Record;

use super::{FILE, damaged, seal, unseal};

/// What follows the log's own name, as SQLite's `-wal` does: it belongs to that file.
pub(crate) const END: &str = "-redo";

/// The file's length. What does not fit is written to `chain.db` at once.
const BYTES: usize = 2 << 20;

/// A frame is so many bytes or a multiple: pages of its own, so that no write touches what was
/// flushed before, and none is read to be written.
const PAGE: usize = 4096;

/// A frame's length, 4 bytes, before its bytes.
const LENGTH: usize = size_of::<u32>();

/// The file, and where the next frame goes.
pub(super) struct Redo {
    file: File,
    generation: u64,
    frames: u64,
    end: usize,
}

/// What stands in a frame, followed by its seal.
#[derive(BorshSerialize, BorshDeserialize)]
struct Frame {
    generation: u64,
    /// Counted from 0 in each generation.
    number: u64,
    records: Vec<Record>,
}

impl Redo {
    /// Makes an empty file of full length in the place of any other.
    pub(super) fn create(path: &Path, generation: u64) -> Result<Self, Fault> {
        let make = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
            // Written, not only reserved: a flush then has no blocks to note down. Page by page:
            // the kernel would keep one large write as one large piece, and go through all of it
            // with each small one.
            for page in (0..BYTES as u64).step_by(PAGE) {
                file.write_all_at(&[0; PAGE], page)?;
            }
            file.sync_all()?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
            Ok(file)
        };
        let file = make().map_err(|error| fault("making", error))?;
        Ok(Self { file, generation, frames: 0, end: 0 })
    }

    /// Opens the file with all records of this generation, in the order in which they were written.
    pub(super) fn open(path: &Path, generation: u64) -> Result<(Self, Vec<Record>), Fault> {
        let read = || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let mut bytes = vec![0; BYTES];
            file.read_exact_at(&mut bytes, 0)?;
            Ok((file, bytes))
        };
        let (file, bytes) = read().map_err(|error| fault("reading", error))?;
        let mut this = Self { file, generation, frames: 0, end: 0 };
        let mut records = Vec::new();
        while let Some((frame, length)) = frame_at(&bytes, this.end) {
            if frame.generation != generation || frame.number != this.frames {
                break;
            }
            records.extend(frame.records);
            this.frames += 1;
            this.end += length;
        }
        // What a crash has torn is the last one.
        let mut behind = (this.end..BYTES).step_by(PAGE).filter_map(|at| frame_at(&bytes, at));
        match behind.any(|(frame, _)| frame.generation == generation) {
            true => Err(damaged(&name(), &format!("write {}", this.frames))),
            false => Ok((this, records)),
        }
    }

    /// Writes records behind the others, and returns when they would survive a power loss. False
    /// if there is no room for them: nothing is written then.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<bool, Fault> {
        let (generation, number) = (self.generation, self.frames);
        let frame = Frame { generation, number, records: records.to_vec() };
        let sealed = seal(&frame);
        let length = (LENGTH + sealed.len()).next_multiple_of(PAGE);
        let (Ok(count), true) = (u32::try_from(sealed.len()), self.end + length <= BYTES) else {
            return Ok(false);
        };
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(count.to_le_bytes());
        bytes.extend(sealed);
        bytes.resize(length, 0);
        let write = || {
            self.file.write_all_at(&bytes, self.end as u64)?;
            self.file.sync_data()
        };
        write().map_err(|error| fault("writing", error))?;
        self.frames += 1;
        self.end += length;
        Ok(true)
    }

    /// The generation after this one: `chain.db` has it, with all that is here.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation.saturating_add(1)
    }

    /// Begins again, after `chain.db` was told the next generation.
    pub(super) fn begin_again(&mut self) {
        (self.generation, self.frames, self.end) = (self.next_generation(), 0, 0);
    }

    /// Whether there is nothing here that is not in `chain.db`.
    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }
}

/// The whole frame that begins here, if one does, and how far it reaches.
fn frame_at(bytes: &[u8], at: usize) -> Option<(Frame, usize)> {
    let (count, rest) = bytes.get(at..)?.split_first_chunk::<LENGTH>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let frame = unseal(rest.get(..count)?)?;
    Some((frame, (LENGTH + count).next_multiple_of(PAGE)))
}

fn fault(doing: &str, error: io::Error) -> Fault {
    Fault::storage(format!("{doing} {}", name()), error)
}

/// The file's name in a server's home.
pub(super) fn name() -> String {
    format!("{FILE}{END}")
}

#[cfg(test)]
mod tests {
    use rota_core::journal::Entry;

    use super::*;

    const GENERATION: u64 = 7;

    struct Fixture {
        folder: tempfile::TempDir,
        redo: Redo,
    }

    impl Fixture {
        /// With these frames, of one entry each.
        fn with(indexes: std::ops::Range<u64>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let redo = Redo::create(&folder.path().join("redo"), GENERATION).unwrap();
            let mut this = Self { folder, redo };
            indexes.for_each(|index| assert!(this.redo.append(&[entry(index)]).unwrap()));
            this
        }

        fn open(&self, generation: u64) -> Result<Vec<Record>, Fault> {
            let opened = Redo::open(&self.folder.path().join("redo"), generation);
            opened.map(|(redo, records)| {
                assert_eq!(redo.frames, records.len() as u64);
                records
            })
        }

        /// Flips a bit of this frame.
        fn damage(&self, number: u64) {
            let (mut byte, at) = ([0], number * PAGE as u64 + 20);
            self.redo.file.read_exact_at(&mut byte, at).unwrap();
            self.redo.file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }
    }

    fn entry(index: u64) -> Record {
        Record::Entry(Entry { index, term: 1, block: None })
    }

    fn entries(indexes: std::ops::Range<u64>) -> Vec<Record> {
        indexes.map(entry).collect()
    }

    #[test]
    fn what_was_written_is_read_in_order() {
        let t = Fixture::with(1..5);
        assert_eq!(t.open(GENERATION).unwrap(), entries(1..5));
        assert_eq!(t.open(GENERATION + 1).unwrap(), []);
    }

    #[test]
    fn what_an_older_generation_wrote_is_over() {
        let mut t = Fixture::with(1..5);
        t.redo.begin_again();
        assert!(t.redo.is_empty());
        assert_eq!(t.open(GENERATION + 1).unwrap(), []);
        assert!(t.redo.append(&[entry(9)]).unwrap());
        assert_eq!(t.open(GENERATION + 1).unwrap(), entries(9..10));
    }

    #[test]
    fn a_torn_frame_at_the_end_was_never_there() {
        let t = Fixture::with(1..5);
        t.damage(3);
        assert_eq!(t.open(GENERATION).unwrap(), entries(1..4));
    }

    #[test]
    fn a_damaged_frame_before_others_is_a_fault() {
        for number in 0..3 {
            let t = Fixture::with(1..5);
            t.damage(number);
            let fault = t.open(GENERATION).unwrap_err().to_string();
            assert!(fault.contains(&format!("write {number} is damaged")), "{fault}");
        }
    }

    #[test]
    fn a_file_that_is_missing_or_cut_is_a_fault() {
        let t = Fixture::with(1..5);
        t.redo.file.set_len(BYTES as u64 - 1).unwrap();
        t.open(GENERATION).unwrap_err();
        std::fs::remove_file(t.folder.path().join("redo")).unwrap();
        t.open(GENERATION).unwrap_err();
    }

    #[test]
    fn what_has_no_room_is_not_written() {
        let mut t = Fixture::with(0..BYTES as u64 / PAGE as u64);
        let bytes = |t: &Fixture| std::fs::read(t.folder.path().join("redo")).unwrap();
        let before = bytes(&t);
        assert!(!t.redo.append(&[entry(1)]).unwrap());
        assert_eq!(bytes(&t), before);
        t.redo.begin_again();
        assert!(!t.redo.append(&entries(0..200_000)).unwrap(), "more than the file has room for");
        assert!(t.redo.append(&[entry(1)]).unwrap());
    }
}
