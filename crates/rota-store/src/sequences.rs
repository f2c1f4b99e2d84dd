//! Generated keys: `rota_nextval('t_id_seq')`, which SERIAL and IDENTITY columns have as their
//! default.
//!
//! ```text
//!   autocommit, at apply       the next number; `rota_sequences` is part of the state
//!   interactive, on a draft    from a range that this server has reserved: rota_reserve(name, n)
//!   the same, at apply         what it drew on the draft, carried in the transaction
//! ```
//! So concurrent transactions that insert rows and are shown the new keys do not conflict. Numbers
//! that are drawn and not used are lost, as PostgreSQL's are. A sequence that is dropped with its
//! table and made anew is another one, told by its `born`: ranges of the old one are not used.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rota_core::error::{Refusal, sqlstate};
use rusqlite::Connection;

use crate::sql::{Lexer, Token};

/// The most numbers that one call reserves.
pub const MOST_RESERVED: i64 = 1 << 20;

/// How many numbers a server reserves of a sequence at first; more, if they do not suffice.
pub const FIRST_RESERVED: i64 = 32;

/// How many sequences there may be: all are in memory.
const MOST_SEQUENCES: usize = 100_000;

/// The longest name.
const MOST_NAME_BYTES: usize = 256;

/// Where `rota_nextval` takes its numbers from in the transaction that runs.
pub(crate) enum Source {
    /// At apply: the sequences themselves.
    State,
    /// At apply, interactive: what was drawn on the draft, not yet asked for again.
    Carried(VecDeque<i64>),
    /// On a draft.
    Draft(Drawing),
    /// Reads.
    Nothing,
}

/// What tells how a sequence stood when the draft began.
pub(crate) trait Before: Send {
    /// The height of that.
    fn height(&self) -> u64;

    /// The sequence's `born`, if there was one of that name.
    fn born(&self, name: &str) -> Option<i64>;
}

/// What a draft draws from and has drawn.
pub(crate) struct Drawing {
    /// Numbers that this transaction has taken from the server's ranges, by sequence.
    taken: BTreeMap<String, VecDeque<i64>>,
    /// In the order of the calls.
    pub(crate) drawn: Vec<i64>,
    /// By sequence, what the running statement has drawn: to put it back.
    undo: Vec<(String, i64)>,
    /// The sequence of which there were not enough.
    pub(crate) wanted: Option<String>,
    ranges: Arc<Ranges>,
    before: Arc<dyn Before + Sync>,
}

/// A sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// The number that comes next.
    pub(crate) next: i64,
    /// Which of all sequences this is; names come again, this does not.
    pub(crate) born: i64,
}

/// The sequence that `born` is taken from. No client can name it.
const BORN: &str = "";

/// All sequences, and what the running transaction does to them.
pub(crate) struct Sequences {
    pub(crate) source: Source,
    all: BTreeMap<String, Sequence>,
    /// What they were, to take it back.
    undo: Vec<(String, Option<Sequence>)>,
}

impl Default for Sequences {
    fn default() -> Self {
        Self { source: Source::Nothing, all: BTreeMap::new(), undo: Vec::new() }
    }
}

impl Sequences {
    pub(crate) fn load(&mut self, stored: BTreeMap<String, Sequence>) {
        self.all = stored;
        self.undo.clear();
    }

    /// The next number of a sequence, which begins to exist by being asked.
    pub(crate) fn next(&mut self, name: &str) -> Result<i64, Refusal> {
        check_name(name)?;
        match &mut self.source {
            Source::State => Ok(self.advance(name, 1)?.next),
            Source::Carried(values) => {
                let value = values.pop_front().ok_or_else(differs)?;
                // Handed out by an earlier reservation, so nobody else will be given it.
                if self.all.get(name).is_none_or(|sequence| value >= sequence.next) || value < 1 {
                    return Err(differs());
                }
                Ok(value)
            }
            Source::Draft(drawing) => drawing.draw(name),
            Source::Nothing => Err(Refusal::new(
                sqlstate::READ_ONLY,
                "a read may not take numbers from a sequence",
            )),
        }
    }

    /// Takes this many numbers at once; where they begin, and of which sequence they are.
    pub(crate) fn reserve(&mut self, name: &str, count: i64) -> Result<Sequence, Refusal> {
        check_name(name)?;
        if !(1..=MOST_RESERVED).contains(&count) {
            let message = format!("from 1 to {MOST_RESERVED} numbers can be reserved at once");
            return Err(Refusal::new(sqlstate::INVALID_PARAMETER, message));
        }
        match self.source {
            Source::State => self.advance(name, count),
            _ => Err(Refusal::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "numbers are reserved outside transactions",
            )),
        }
    }

    /// The next number comes after this one; a sequence that is further already stays. On a draft
    /// nothing happens: what it draws was reserved before.
    pub(crate) fn raise(&mut self, name: &str, value: i64) -> Result<(), Refusal> {
        check_name(name)?;
        match self.source {
            Source::State | Source::Carried(_) => {
                let next = self.all.get(name).map_or(1, |sequence| sequence.next);
                let count = value.saturating_add(1).saturating_sub(next);
                if count > 0 { self.advance(name, count).map(drop) } else { Ok(()) }
            }
            Source::Draft(_) => Ok(()),
            Source::Nothing => {
                Err(Refusal::new(sqlstate::READ_ONLY, "a read may not move a sequence"))
            }
        }
    }

    /// The sequence as it was before.
    fn advance(&mut self, name: &str, count: i64) -> Result<Sequence, Refusal> {
        let known = self.all.get(name).copied();
        if known.is_none() && self.all.len() >= MOST_SEQUENCES {
            let message = format!("there are {MOST_SEQUENCES} sequences, and no more are possible");
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
        }
        let before = match known {
            Some(known) => known,
            None if name == BORN => Sequence { next: 1, born: 0 },
            None => Sequence { next: 1, born: self.advance(BORN, 1)?.next },
        };
        let next = before.next.checked_add(count).ok_or_else(|| {
            Refusal::new("2200H", format!("sequence \"{name}\" has no more numbers"))
        })?;
        self.undo.push((name.to_owned(), known));
        self.all.insert(name.to_owned(), Sequence { next, ..before });
        Ok(before)
    }

    /// Sequences that no default names any more are forgotten: a table made anew begins at 1.
    pub(crate) fn keep_only(&mut self, named: &BTreeSet<String>) {
        let gone: Vec<String> = self
            .all
            .keys()
            .filter(|name| *name != BORN && !named.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            let known = self.all.remove(&name);
            self.undo.push((name, known));
        }
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What the transaction has changed, to be written: none where it is gone.
    pub(crate) fn changed(&self) -> BTreeMap<String, Option<Sequence>> {
        let changed = self.undo.iter().map(|(name, _)| name);
        changed.map(|name| (name.clone(), self.all.get(name).copied())).collect()
    }

    /// The transaction has succeeded.
    pub(crate) fn settle(&mut self) {
        self.undo.clear();
    }

    /// How much has happened to them in the running transaction, for [`Self::restore`].
    pub(crate) fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Takes back what has happened since.
    pub(crate) fn restore(&mut self, mark: usize) {
        while self.undo.len() > mark
            && let Some((name, known)) = self.undo.pop()
        {
            match known {
                Some(known) => drop(self.all.insert(name, known)),
                None => drop(self.all.remove(&name)),
            }
        }
    }

    /// Whether all that was carried was asked for again.
    pub(crate) fn is_spent(&self) -> bool {
        !matches!(&self.source, Source::Carried(left) if !left.is_empty())
    }

    /// What the draft does.
    pub(crate) fn drawing(&mut self) -> Option<&mut Drawing> {
        match &mut self.source {
            Source::Draft(drawing) => Some(drawing),
            _ => None,
        }
    }
}

impl Drawing {
    pub(crate) fn new(ranges: Arc<Ranges>, before: Arc<dyn Before + Sync>) -> Self {
        Self {
            taken: BTreeMap::new(),
            drawn: Vec::new(),
            undo: Vec::new(),
            wanted: None,
            ranges,
            before,
        }
    }

    fn draw(&mut self, name: &str) -> Result<i64, Refusal> {
        let kept = self.taken.get_mut(name).and_then(VecDeque::pop_front);
        let Some(value) = kept.or_else(|| self.ranges.take(name, &*self.before)) else {
            self.wanted = Some(name.to_owned());
            return Err(Refusal::new(sqlstate::INTERNAL, "this server has no numbers reserved"));
        };
        self.drawn.push(value);
        self.undo.push((name.to_owned(), value));
        Ok(value)
    }

    /// A statement begins.
    pub(crate) fn begin(&mut self) {
        self.undo.clear();
        self.wanted = None;
    }

    /// The statement could not be run for lack of numbers: what it had drawn is kept for its next
    /// try. How many that are.
    pub(crate) fn put_back(&mut self) -> usize {
        let count = self.undo.len();
        self.drawn.truncate(self.drawn.len().saturating_sub(count));
        for (name, value) in self.undo.drain(..).rev() {
            self.taken.entry(name).or_default().push_front(value);
        }
        count
    }
}

/// Numbers that this server has reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Those left.
    pub numbers: Range<i64>,
    /// Which sequence they are of.
    pub born: i64,
    /// Where they were reserved.
    pub height: u64,
}

/// What this server has reserved and not used up, for all its drafts.
#[derive(Default)]
pub struct Ranges(Mutex<HashMap<String, VecDeque<Reserved>>>);

impl Ranges {
    /// A range was reserved.
    pub fn add(&self, name: &str, reserved: Reserved) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.to_owned()).or_default().push_back(reserved);
    }

    /// How many numbers are left of a sequence; some may turn out to be of one that is gone.
    pub fn left(&self, name: &str) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |reserved: &Reserved| {
            let Range { start, end } = reserved.numbers;
            usize::try_from(end.saturating_sub(start)).unwrap_or(0)
        };
        all.get(name).map_or(0, |ranges| ranges.iter().map(left).sum())
    }

    /// A number of the sequence that was there before, or that has come since.
    fn take(&self, name: &str, before: &dyn Before) -> Option<i64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ranges = all.get_mut(name)?;
        let born = before.born(name);
        while let Some(reserved) = ranges.front_mut() {
            let same = match born {
                Some(born) => reserved.born == born,
                None => reserved.height > before.height(),
            };
            match reserved.numbers.next().filter(|_| same) {
                Some(value) => return Some(value),
                None => drop(ranges.pop_front()),
            }
        }
        None
    }
}

/// All sequences of a file.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Sequence>> {
    let mut statement = connection.prepare("SELECT name, next, born FROM rota_sequences")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, Sequence { next: row.get(1)?, born: row.get(2)? }))
    })?;
    rows.collect()
}

/// The sequences that the schema's defaults name.
pub(crate) fn named(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND sql LIKE '%rota_nextval%'",
    )?;
    let mut rows = statement.query([])?;
    let mut named = BTreeSet::new();
    while let Some(row) = rows.next()? {
        named.extend(named_in(row.get_ref(0)?.as_str()?));
    }
    Ok(named)
}

/// The sequences that a CREATE TABLE, or a part of one, takes numbers from.
pub(crate) fn named_in(sql: &str) -> Vec<String> {
    let tokens: Vec<Token<'_>> = Lexer::new(sql).map(|(_, token)| token).collect();
    let mut named = Vec::new();
    for three in tokens.windows(3) {
        if let [Token::Word(function), Token::Symbol('('), Token::Text(text)] = three
            && function.eq_ignore_ascii_case("rota_nextval")
        {
            let inner = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            named.extend(inner.map(|name| name.replace("''", "'")));
        }
    }
    named
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > MOST_NAME_BYTES {
        let message = format!("the name of a sequence has 1 to {MOST_NAME_BYTES} bytes");
        return Err(Refusal::new(sqlstate::INVALID_PARAMETER, message));
    }
    Ok(())
}

fn differs() -> Refusal {
    Refusal::new(
        sqlstate::SERIALIZATION_FAILURE,
        "the transaction draws other numbers than it did; try again",
    )
}
