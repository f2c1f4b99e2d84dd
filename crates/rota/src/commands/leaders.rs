//! `rota leaders`: who led when, and by what right: a table of runs of blocks with one leader, and
//! a picture with a line for each server.

use std::collections::BTreeMap;

use rota_core::genesis::Method;
use rota_node::status::{Leaders as Told, Named};
use serde::Serialize;
use time::OffsetDateTime;

use crate::args::Leaders;
use crate::failure::Failure;
use crate::print::{Align, columns, out, terminal_width, thousands, width};
use crate::trust::Trust;

/// The most runs in the table: more fill the terminal; the picture and JSON have all of them.
const MOST_RUNS: usize = 40;

/// The fewest columns of a picture that is worth drawing.
const NARROWEST: usize = 20;

/// A block's leader, told by how much of a column's blocks are its own.
const SHADES: [char; 4] = ['░', '▒', '▓', '█'];

/// In a column without a block of this server's.
const NOTHING: char = '·';

/// Of a hash so many digits are shown, from the first that is not zero on.
const DIGITS: usize = 8;

/// Consecutive blocks of one leader, by one right.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Run {
    /// The first block's height.
    from: u64,
    /// The last one's.
    to: u64,
    /// The first block's time, milliseconds since 1970.
    time_ms: u64,
    /// The first block's slot.
    first_slot: u64,
    /// The last one's.
    last_slot: u64,
    /// The leader's name here; its key where it has none.
    server: String,
    /// The leader's key.
    leader: String,
    /// By what right, in the last block's words.
    turn: String,
}

/// Asks and shows.
pub async fn run(asked: Leaders) -> Result<(), Failure> {
    let trust = Trust::new(&asked.authority);
    let web = asked.server.http(&trust).await?;
    let path = format!("/chain/leaders?last={}", asked.last);
    let (code, body) = web.get(&path).await?;
    if !code.is_success() {
        let said = String::from_utf8_lossy(&body);
        return Err(Failure::new(format!("{} answers {code}: {said}", web.url(&path))));
    }
    let told: Told = serde_json::from_slice(&body).map_err(Failure::doing(web.url(&path)))?;
    let runs = runs(&told);
    if asked.json {
        let all = serde_json::json!({
            "method": told.method, "servers": told.servers, "runs": runs, "blocks": told.blocks,
        });
        return out(&format!("{all:#}\n"));
    }
    if told.blocks.is_empty() {
        return out("no block yet: nobody has led\n");
    }
    out(&(table(told.method, &runs) + "\n" + &picture(&told, terminal_width())))
}

/// What names a server: its own, or the beginning of its key.
fn name_of(servers: &[Named], leader: &str) -> String {
    let named = servers.iter().find(|server| server.key.to_string() == leader);
    match named {
        Some(named) => named.name.clone(),
        None if leader.is_empty() => "?".into(),
        None => leader.chars().take(DIGITS).collect(),
    }
}

/// Blocks with one leader are one run; under `raft` only as long as the term is one.
fn runs(told: &Told) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for block in &told.blocks {
        let by_work = told.method == Method::Pow;
        let goes_on = |run: &&mut Run| {
            let follows = run.to.checked_add(1) == Some(block.height);
            follows && run.leader == block.leader && (by_work || run.turn == block.turn)
        };
        match runs.last_mut().filter(goes_on) {
            Some(run) => {
                (run.to, run.last_slot) = (block.height, block.slot);
                run.turn.clone_from(&block.turn);
            }
            None => runs.push(Run {
                from: block.height,
                to: block.height,
                time_ms: block.time_ms,
                first_slot: block.slot,
                last_slot: block.slot,
                server: name_of(&told.servers, &block.leader),
                leader: block.leader.clone(),
                turn: block.turn.clone(),
            }),
        }
    }
    runs
}

fn table(method: Method, runs: &[Run]) -> String {
    let slots = if method == Method::Raft { "log" } else { "slots" };
    let heading = ["leader", "blocks", "heights", "since (UTC)", slots, "by what right"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for run in runs.iter().skip(runs.len().saturating_sub(MOST_RUNS)) {
        rows.push(vec![
            run.server.clone(),
            thousands(run.to.saturating_sub(run.from).saturating_add(1)),
            range(run.from, run.to),
            since(run.time_ms),
            // Under `pow` each height is its slot.
            if method == Method::Pow {
                String::new()
            } else {
                range(run.first_slot, run.last_slot)
            },
            right(&run.turn),
        ]);
    }
    if method == Method::Pow {
        rows.iter_mut().for_each(|row| drop(row.remove(4)));
    }
    use Align::{Left, Right};
    let align: &[Align] = match method {
        Method::Pow => &[Left, Right, Right, Left, Left],
        _ => &[Left, Right, Right, Left, Right, Left],
    };
    let mut text = columns(&rows, align);
    let left_out = runs.len().saturating_sub(MOST_RUNS);
    if left_out > 0 {
        text.push_str(&format!("({left_out} earlier runs are not listed; --json has them all)\n"));
    }
    text
}

fn range(first: u64, last: u64) -> String {
    match first == last {
        true => thousands(first),
        false => format!("{}–{}", thousands(first), thousands(last)),
    }
}

fn since(time_ms: u64) -> String {
    let seconds = i64::try_from(time_ms / 1_000).unwrap_or(0);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return "?".into() };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A right in words.
fn right(turn: &str) -> String {
    let words: Vec<&str> = turn.split(' ').collect();
    match words[..] {
        ["scheduled"] => "turn of the rota".into(),
        ["term", term] => format!("elected for term {term}"),
        ["work", hash, bits] => {
            let zeros = hash.len() - hash.trim_start_matches('0').len();
            let digits: String = hash.chars().skip(zeros).take(DIGITS).collect();
            format!("found 0×{zeros} {digits}…, bits {bits}")
        }
        ["work"] => "found a hash".into(),
        _ => turn.into(),
    }
}

/// A line for each server, a column for each block, or for as many as it takes to fit.
fn picture(told: &Told, terminal: usize) -> String {
    let mut lines: BTreeMap<(usize, String), Vec<u64>> = BTreeMap::new();
    let names: Vec<String> = told.servers.iter().map(|server| server.name.clone()).collect();
    for (place, name) in names.iter().enumerate() {
        lines.insert((place, name.clone()), Vec::new());
    }
    for block in &told.blocks {
        let name = name_of(&told.servers, &block.leader);
        let place = names.iter().position(|known| *known == name).unwrap_or(names.len());
        lines.entry((place, name)).or_default().push(block.height);
    }
    let (first, last) = match &told.blocks[..] {
        [first, .., last] => (first.height, last.height),
        [only] => (only.height, only.height),
        [] => return String::new(),
    };
    let margin = lines.keys().map(|(_, name)| width(name)).max().unwrap_or_default() + 2;
    let room = terminal.saturating_sub(margin + 12).max(NARROWEST);
    let blocks = usize::try_from(last - first).unwrap_or(usize::MAX).saturating_add(1);
    let each = blocks.div_ceil(room).max(1);
    let mut text = String::new();
    for ((_, name), heights) in &lines {
        let mut led = vec![0_usize; blocks.div_ceil(each)];
        for height in heights {
            let place = usize::try_from(height - first).unwrap_or(0) / each;
            if let Some(count) = led.get_mut(place) {
                *count += 1;
            }
        }
        let cells: String = led.iter().map(|count| cell(*count, each)).collect();
        let gap = " ".repeat(margin - width(name));
        let share = heights.len() * 100 / told.blocks.len().max(1);
        text.push_str(&format!("{name}{gap}{cells}  {} ({share} %)\n", heights.len()));
    }
    let ends = format!("{} … {}", thousands(first), thousands(last));
    text.push_str(&format!("{}{ends}", " ".repeat(margin)));
    text.push_str(&match each {
        1 => "   a column is a block\n".into(),
        each => format!("   a column is {each} blocks\n"),
    });
    text
}

/// How much of a column's blocks are a server's own.
fn cell(led: usize, of: usize) -> char {
    match led {
        0 => NOTHING,
        led => SHADES.get((led * SHADES.len()).div_ceil(of) - 1).copied().unwrap_or('█'),
    }
}

#[cfg(test)]
mod tests {
    use rota_core::types::PublicKey;
    use rota_node::status::Led;

    use super::*;

    fn told(method: Method, blocks: &[(u64, u8, &str)]) -> Told {
        let key = |byte| PublicKey([byte; 32]);
        let named = |byte: u8| Named {
            name: format!("server-{byte}"),
            number: byte.into(),
            key: key(byte),
        };
        let led = |&(slot, leader, turn): &(u64, u8, &str)| Led {
            height: 0,
            slot,
            time_ms: 1_763_720_000_000 + slot * 1_000,
            leader: key(leader).to_string(),
            turn: turn.into(),
        };
        let mut blocks: Vec<Led> = blocks.iter().map(led).collect();
        for (height, block) in (10..).zip(&mut blocks) {
            block.height = height;
        }
        Told { method, servers: vec![named(1), named(2)], blocks }
    }

    #[test]
    fn a_run_ends_with_the_leader_and_with_the_term() {
        let turns = [(3, 1, "term 1"), (4, 1, "term 1"), (6, 1, "term 2"), (7, 2, "term 3")];
        let runs = runs(&told(Method::Raft, &turns));
        let seen: Vec<_> = runs.iter().map(|r| (r.from, r.to, r.first_slot, r.last_slot)).collect();
        assert_eq!(seen, [(10, 11, 3, 4), (12, 12, 6, 6), (13, 13, 7, 7)]);
        let shown = table(Method::Raft, &runs);
        assert!(shown.contains("server-1       2    10–11"), "{shown}");
        assert!(shown.contains("elected for term 2"), "{shown}");
    }

    #[test]
    fn every_block_of_work_has_its_own_hash_and_a_run_goes_on() {
        let turns = [(1, 2, "work 000000ab01 1e040000"), (2, 2, "work 0000cd0123456789 1e03ffff")];
        let runs = runs(&told(Method::Pow, &turns));
        assert_eq!(runs.len(), 1);
        assert_eq!(right(&runs[0].turn), "found 0×4 cd012345…, bits 1e03ffff");
        assert!(!table(Method::Pow, &runs).contains("slots"));
    }

    #[test]
    fn each_server_has_a_line_and_each_block_a_column() {
        let turns = [(1, 1, "scheduled"), (2, 2, "scheduled"), (3, 2, "scheduled"), (4, 9, "x")];
        let shown = picture(&told(Method::Poa, &turns), 80);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "server-1  █···  1 (25 %)");
        assert_eq!(lines[1], "server-2  ·██·  2 (50 %)");
        assert_eq!(lines[2], "09090909  ···█  1 (25 %)");
        assert_eq!(lines[3], "          10 … 13   a column is a block");
    }

    #[test]
    fn a_narrow_terminal_has_columns_of_several_blocks() {
        let turns: Vec<_> = (0..100).map(|slot| (slot, 1 + u8::from(slot % 4 == 0), "x")).collect();
        let shown = picture(&told(Method::Poa, &turns), 0);
        assert!(shown.contains("a column is 5 blocks"), "{shown}");
        assert_eq!(shown.lines().next().unwrap().matches(SHADES).count(), 20, "{shown}");
    }
}
