//! Results that are given piece by piece: portals of the extended protocol and SQL's cursors, which
//! are one thing under one set of names, as in PostgreSQL. Step 9.
//!
//! ```text
//!   row          1   2   3
//!   place    0 ──┴───┴───┴── 4        FETCH moves the place and gives what it passes
//! ```
//!
//! A result is whole in memory, within the limits of a read, before its first row is given.

use std::collections::HashMap;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;
use rota_store::Rows;

use super::commands::{Direction, Fetch};
use super::context::Answer;
use super::encode::Type;
use super::statement::Shared;

/// How many portals and cursors a connection may have open: each may hold a result.
const MAX_PORTALS: usize = 64;

/// How many bytes of results they may keep for later, all together: two of the largest.
const MAX_HELD_BYTES: usize = 256 << 20;

/// What each value costs beside its own bytes.
const VALUE_OVERHEAD: usize = 24;

/// A statement with its parameters, and its result once it ran.
pub(crate) struct Portal {
    pub(crate) statement: Shared,
    pub(crate) values: Vec<Value>,
    pub(crate) result_formats: Vec<i16>,
    /// What the client was told of the columns by describing the portal.
    pub(crate) told: Option<Vec<Type>>,
    pub(crate) ran: Option<Ran>,
    /// Bytes of the rows that are kept for later, once they are.
    pub(crate) held: usize,
    /// Only forwards.
    pub(crate) no_scroll: bool,
    /// It outlives its transaction.
    pub(crate) hold: bool,
    /// How many savepoints there were when it was made: it ends with those that came later.
    pub(crate) depth: usize,
}

pub(crate) struct Ran {
    pub(crate) answer: Answer,
    /// Where it stands: 0 before the first row, one more than there are rows after the last.
    pub(crate) place: usize,
}

/// All portals of a connection, by name.
#[derive(Default)]
pub(crate) struct Portals(HashMap<String, Portal>);

impl Portals {
    pub(crate) fn get(&self, name: &str) -> Option<&Portal> {
        self.0.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Portal> {
        self.0.get_mut(name)
    }

    /// A new one. The nameless one is replaced.
    pub(crate) fn insert(&mut self, name: String, portal: Portal) -> Result<(), Refusal> {
        if !name.is_empty() && self.0.contains_key(&name) {
            return Err(Refusal::new("42P03", format!("cursor \"{name}\" already exists")));
        }
        if self.0.len() >= MAX_PORTALS && !self.0.contains_key(&name) {
            return Err(Refusal::new(
                sqlstate::TOO_COMPLEX,
                format!("a connection may have {MAX_PORTALS} portals and cursors: close some"),
            ));
        }
        self.0.insert(name, portal);
        Ok(())
    }

    /// Keeps a portal's rows for later.
    pub(crate) fn hold(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(portal) = self.0.get_mut(name) else { return Ok(()) };
        if portal.held > 0 {
            return Ok(());
        }
        let rows = portal.ran.as_ref().and_then(|ran| ran.answer.rows.as_ref());
        portal.held = rows.map_or(0, size);
        let all = self.0.values().map(|portal| portal.held).sum::<usize>();
        if all <= MAX_HELD_BYTES {
            return Ok(());
        }
        self.close(name);
        Err(Refusal::new(
            sqlstate::TOO_COMPLEX,
            format!("open cursors would keep more than {MAX_HELD_BYTES} bytes of rows: close some"),
        ))
    }

    /// CLOSE; false if there is none of that name.
    pub(crate) fn close(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    pub(crate) fn close_all(&mut self) {
        self.0.clear();
    }

    /// A transaction ends.
    pub(crate) fn end(&mut self, committed: bool) {
        if self.0.is_empty() {
            return;
        }
        // One that was held over an earlier end has depth 0, and no later end concerns it.
        self.0.retain(|_, portal| portal.hold && (committed || portal.depth == HELD));
        self.0.values_mut().for_each(|portal| portal.depth = HELD);
    }

    /// ROLLBACK TO leaves what was there at the savepoint that is now the newest.
    pub(crate) fn back_to(&mut self, depth: usize) {
        self.0.retain(|_, portal| portal.depth == HELD || portal.depth < depth);
    }

    /// FETCH and MOVE.
    pub(crate) fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, Refusal> {
        let portal = self.get_mut(&fetch.name).ok_or_else(|| no_cursor(&fetch.name))?;
        let no_scroll = portal.no_scroll;
        let ran = portal.ran.as_mut().ok_or_else(|| no_cursor(&fetch.name))?;
        let Some(rows) = ran.answer.rows.as_ref() else {
            return Err(Refusal::new("55000", "this portal gives no rows"));
        };
        let (given, place) = travel(fetch.direction, ran.place, rows.rows.len(), no_scroll)?;
        ran.place = place;
        let count = given.len();
        if fetch.only_move {
            return Ok(Answer::done(format!("MOVE {count}")));
        }
        // Rows have the numbers from 1 on.
        let rows = given.iter().filter_map(|number| rows.rows.get(number.checked_sub(1)?).cloned());
        let rows = Rows { columns: columns(ran), rows: rows.collect() };
        let types = ran.answer.types.clone();
        Ok(Answer { rows: Some(rows), types, ..Answer::done(format!("FETCH {count}")) })
    }
}

fn size(rows: &Rows) -> usize {
    let value = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    rows.rows.iter().flatten().map(|one| value(one).saturating_add(VALUE_OVERHEAD)).sum()
}

/// The depth of a cursor that has outlived its transaction.
const HELD: usize = usize::MAX;

fn columns(ran: &Ran) -> Vec<rota_store::Column> {
    ran.answer.rows.as_ref().map(|rows| rows.columns.clone()).unwrap_or_default()
}

/// The numbers of the rows that a direction gives, in order, and where the cursor then stands.
fn travel(
    direction: Direction,
    place: usize,
    rows: usize,
    no_scroll: bool,
) -> Result<(Vec<usize>, usize), Refusal> {
    let end = rows.saturating_add(1);
    let forwards = |to: usize| if no_scroll && to <= place { Err(backwards()) } else { Ok(to) };
    let single = |to: usize| (if (1..=rows).contains(&to) { vec![to] } else { Vec::new() }, to);
    let at = |distance: i64| {
        let far = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
        if distance < 0 { place.saturating_sub(far) } else { place.saturating_add(far).min(end) }
    };
    Ok(match direction {
        Direction::Rows(0) | Direction::Relative(0) => {
            if no_scroll {
                return Err(backwards());
            }
            single(place)
        }
        Direction::Rows(count) if count > 0 => {
            let to = at(count);
            ((place.saturating_add(1)..=to.min(rows)).collect(), to)
        }
        Direction::Rows(count) => {
            if no_scroll {
                return Err(backwards());
            }
            let to = at(count);
            ((to.max(1)..place).rev().collect(), to)
        }
        Direction::Relative(distance) => single(forwards(at(distance))?),
        Direction::Absolute(number) if number >= 0 => {
            let to = usize::try_from(number).unwrap_or(usize::MAX).min(end);
            single(forwards(to)?)
        }
        Direction::Absolute(number) => {
            if no_scroll {
                return Err(backwards());
            }
            let back = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
            single(end.saturating_sub(back))
        }
    })
}

fn backwards() -> Refusal {
    Refusal::new(
        "55000",
        "cursor can only scan forward: declare it with SCROLL option to enable backward scan",
    )
}

pub(crate) fn no_cursor(name: &str) -> Refusal {
    Refusal::new("34000", format!("cursor \"{name}\" does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_travels_as_postgresqls_does() {
        use Direction::{Absolute, Relative, Rows};
        let mut place = 0;
        for (direction, given, stands) in [
            (Rows(0), vec![], 0),
            (Rows(2), vec![1, 2], 2),
            (Rows(0), vec![2], 2),
            (Rows(1), vec![3], 3),
            (Rows(1), vec![], 4),
            (Rows(-1), vec![3], 3),
            (Rows(i64::MAX), vec![], 4),
            (Rows(-i64::MAX), vec![3, 2, 1], 0),
            (Absolute(2), vec![2], 2),
            (Relative(1), vec![3], 3),
            (Relative(-2), vec![1], 1),
            (Absolute(-1), vec![3], 3),
            (Absolute(-9), vec![], 0),
            (Absolute(9), vec![], 4),
            (Absolute(0), vec![], 0),
        ] {
            let (rows, then) = travel(direction, place, 3, false).unwrap();
            assert_eq!((rows, then), (given, stands), "{direction:?} from {place}");
            place = then;
        }
        for direction in [Rows(-1), Rows(0), Relative(-1), Absolute(1), Absolute(-1)] {
            assert_eq!(travel(direction, 2, 3, true).unwrap_err().code(), "55000", "{direction:?}");
        }
        assert_eq!(travel(Rows(1), 2, 3, true), Ok((vec![3], 3)));
    }
}
