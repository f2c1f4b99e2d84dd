//! Hostile statements, as a table that the state machine's tests and those of whole servers share:
//! `statements.txt` says who sends what, and what each door must answer.
//!
//! ```text
//!   who verdict [door=verdict …]      at the start of a line
//!       a script                      indented
//!       = query -> value              what is still so after it, asked by the administrator
//! ```
//! A verdict is `ok` or an SQLSTATE. `door=verdict` is for doors where it is another one: `read`, a
//! statement that reads and is answered from this server's copy; `draft`, an open transaction;
//! `pg`, `http` and `hrana`, the doors of a server. A verdict of `-`: this door cannot carry it.
//! In a script `{30*word}` stands for thirty of them, `{nul}` and `{bom}` for what they say.

#![allow(dead_code)]

/// The administrator of the table's database.
pub const ADMINISTRATOR: &str = "rota";

/// Everything that an attack which was refused must have left alone.
pub const UNTOUCHED: [&str; 13] = [
    "SELECT name, hex(key), verifier, servers, administrator, login FROM rota_users ORDER BY name",
    "SELECT object, grantee, privileges FROM rota_grants ORDER BY object, grantee",
    "SELECT role, member FROM rota_roles ORDER BY role, member",
    "SELECT name, next, born FROM rota_sequences ORDER BY name",
    "SELECT id, part FROM rota_staged ORDER BY id, part",
    "SELECT account, balance FROM rota_accounts ORDER BY account",
    "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name",
    "SELECT name, seq FROM sqlite_sequence ORDER BY name",
    "SELECT id, v FROM secret ORDER BY id",
    "SELECT id, v FROM mine ORDER BY id",
    "SELECT id, v FROM shown UNION ALL SELECT id, v FROM box ORDER BY 1, 2",
    "SELECT id, v FROM log ORDER BY id",
    "SELECT p.id, c.id FROM parent p LEFT JOIN child c ON c.parent = p.id ORDER BY 1, 2",
];

/// Where both crates whose tests read the table find it.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rota-store/tests/hostile");

/// One attack.
#[derive(Debug, Default)]
pub struct Entry {
    /// The line of `statements.txt`.
    pub line: usize,
    /// In whose name.
    pub who: String,
    verdict: String,
    doors: Vec<(String, String)>,
    /// One or more statements.
    pub script: String,
    /// Queries of the administrator's, and the one value that each gives.
    pub after: Vec<(String, String)>,
}

impl Entry {
    /// What this door answers, or `-`.
    pub fn verdict(&self, door: &str) -> &str {
        let own = self.doors.iter().find(|(name, _)| name == door);
        own.map_or(&self.verdict, |(_, verdict)| verdict)
    }

    /// What one of a server's doors answers, where a statement that only reads goes to a reader.
    pub fn verdict_at(&self, door: &str, only_reads: bool) -> &str {
        if self.doors.iter().any(|(name, _)| name == door) || !only_reads {
            return self.verdict(door);
        }
        self.verdict("read")
    }

    /// Whether this is no attack, but what the administrator does between two.
    pub fn is_setup(&self) -> bool {
        self.who == ADMINISTRATOR && self.verdict == "setup"
    }

    /// How failures name it.
    pub fn name(&self) -> String {
        let script: String = self.script.chars().take(160).collect();
        format!("statements.txt:{}: {}: {script}", self.line, self.who)
    }
}

/// What the table's statements are about; run by the administrator before all of them.
pub fn world() -> String {
    read("world.sql")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(HERE).join(name)).expect("a file of the tests")
}

/// All attacks in their order, and what is done between them.
pub fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in read("statements.txt").lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match (line.strip_prefix("    "), entries.last_mut()) {
            (Some(line), Some(entry)) => match line.strip_prefix("= ") {
                Some(after) => {
                    let (query, value) = after.split_once(" -> ").expect("query -> value");
                    entry.after.push((query.to_owned(), value.to_owned()));
                }
                None => entry.script.push_str(&format!("{}\n", expanded(line))),
            },
            _ => entries.push(entry(number + 1, line)),
        }
    }
    for entry in &mut entries {
        entry.script.truncate(entry.script.trim_end_matches('\n').len());
        assert!(!entry.script.is_empty(), "{entry:?}");
    }
    entries
}

fn entry(line: usize, text: &str) -> Entry {
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().map(str::to_owned);
    let (Some(who), Some(verdict)) = (word(), word()) else { panic!("line {line}: {text}") };
    let doors = words.map(|word| {
        let (door, verdict) = word.split_once('=').expect("door=verdict");
        (door.to_owned(), verdict.to_owned())
    });
    Entry { line, who, verdict, doors: doors.collect(), ..Entry::default() }
}

/// With `{30*word}`, `{nul}` and `{bom}` written out.
fn expanded(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, behind) = after.split_once('}').expect("a closing brace");
        out.push_str(before);
        match inner.split_once('*') {
            Some((count, text)) => out.push_str(&text.repeat(count.parse().expect("a count"))),
            None if inner == "nul" => out.push('\0'),
            None if inner == "bom" => out.push('\u{feff}'),
            None => panic!("{{{inner}}}"),
        }
        rest = behind;
    }
    out + rest
}
