//! A PostgreSQL session's transactions, as scripts in `session/`: what a client sends, and what it
//! is answered. The answers are those of a real PostgreSQL 15, but for the scripts in
//! `session/own/`, which are about what Rota alone does.
//!
//! ```text
//!   BEGIN                        a Query, up to a blank line or a `>`
//!   > BEGIN [T]                  its answer: rows, tag, and the state that ReadyForQuery tells
//!   2: SELECT 1                  the same from another connection
//!   @parse s SELECT $1           the extended protocol: each line a message, `@sync` sends them
//!   @hear                        what the server says unasked
//! ```
//!
//! `ROTA_SESSION_AT=host:port` runs the scripts against another server, and `ROTA_SESSION_RECORD=1`
//! writes down what that answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

mod support;

/// A client that shows everything it hears.
struct Client {
    stream: TcpStream,
    /// Messages that are not sent yet.
    pending: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let mut client = Self { stream, pending: Vec::new() };
        let body = b"\0\x03\0\0user\0rota\0database\0rota\0\0";
        let length = u32::try_from(body.len() + 4).unwrap();
        client.stream.write_all(&[&length.to_be_bytes()[..], body].concat()).unwrap();
        client.hear();
        client
    }

    fn put(&mut self, tag: u8, body: &[u8]) {
        self.pending.push(tag);
        self.pending.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        self.pending.extend(body);
    }

    fn query(&mut self, sql: &str) -> String {
        self.put(b'Q', format!("{sql}\0").as_bytes());
        self.send()
    }

    fn send(&mut self) -> String {
        self.stream.write_all(&std::mem::take(&mut self.pending)).unwrap();
        self.hear()
    }

    /// One message of the extended protocol, as a line of a script says it; the answers, if it is
    /// the last one.
    fn extended(&mut self, line: &str) -> Option<String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = if name == "-" { "" } else { name };
        match verb {
            "parse" => self.put(b'P', format!("{name}\0{rest}\0\0\0").as_bytes()),
            "bind" => {
                let mut words = rest.split(' ').filter(|word| !word.is_empty());
                let statement = words.next().filter(|name| *name != "-").unwrap_or("");
                let values: Vec<&str> = words.collect();
                let mut body = format!("{name}\0{statement}\0\0\0").into_bytes();
                body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
                for value in values {
                    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend(value.as_bytes());
                }
                body.extend([0, 0]);
                self.put(b'B', &body);
            }
            "describe" => self.put(b'D', format!("P{name}\0").as_bytes()),
            "execute" => {
                let rows: u32 = rest.trim().parse().unwrap_or(0);
                self.put(b'E', &[format!("{name}\0").as_bytes(), &rows.to_be_bytes()].concat());
            }
            "close" => self.put(b'C', format!("P{name}\0").as_bytes()),
            "sync" => {
                self.put(b'S', b"");
                return Some(self.send());
            }
            "hear" => return Some(self.hear()),
            other => panic!("no message is called {other}"),
        }
        None
    }

    /// Everything up to the next ReadyForQuery, or the connection's end, a line for each.
    fn hear(&mut self) -> String {
        let mut heard = String::new();
        loop {
            let mut header = [0; 5];
            if self.stream.read_exact(&mut header).is_err() {
                heard.push_str("> closed\n");
                return heard;
            }
            let length = u32::from_be_bytes(header[1..].try_into().unwrap());
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            self.stream.read_exact(&mut body).unwrap();
            match header[0] {
                b'D' => writeln!(heard, "> {}", row(&body)).unwrap(),
                b'C' => writeln!(heard, "> {}", text(&body)).unwrap(),
                b'E' | b'N' => {
                    let (severity, code) = (field(&body, 'V'), field(&body, 'C'));
                    // What PostgreSQL tells beside, Rota need not.
                    if severity != "NOTICE" {
                        writeln!(heard, "> {severity} {code}").unwrap();
                    }
                }
                b's' => heard.push_str("> suspended\n"),
                b'I' => heard.push_str("> empty\n"),
                b'S' => writeln!(heard, "> {}", text(&body).replace('\0', "=")).unwrap(),
                b'Z' => {
                    let state = format!(" [{}]\n", char::from(body[0]));
                    let end = heard.trim_end_matches('\n').len();
                    heard.truncate(end);
                    heard.push_str(if end == 0 { ">" } else { "" });
                    heard.push_str(&state);
                    return heard;
                }
                _ => {}
            }
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end_matches('\0').to_owned()
}

fn row(body: &[u8]) -> String {
    let count = u16::from_be_bytes(body[..2].try_into().unwrap());
    let mut rest = &body[2..];
    let mut values = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
        rest = &rest[4..];
        let Ok(length) = usize::try_from(length) else {
            values.push("NULL".to_owned());
            continue;
        };
        values.push(String::from_utf8_lossy(&rest[..length]).into_owned());
        rest = &rest[length..];
    }
    values.join("|")
}

fn field(body: &[u8], wanted: char) -> String {
    let fields = String::from_utf8_lossy(body).into_owned();
    let found = fields.split('\0').find_map(|field| field.strip_prefix(wanted));
    found.unwrap_or_default().to_owned()
}

/// Runs a script; the script with what was answered in the place of what it expects.
fn run(script: &str, address: SocketAddr) -> String {
    let mut clients = BTreeMap::new();
    let mut told = String::new();
    let mut query: Option<(String, String)> = None;
    for line in script.lines().chain([""]) {
        let (number, said) = match line.split_once(": ") {
            Some((number, said)) if number.len() == 1 => (number, said),
            _ => ("1", line),
        };
        let goes_on = !line.is_empty() && !line.starts_with('>');
        if let Some((number, text)) = query.take_if(|_| !goes_on) {
            let client = clients.entry(number).or_insert_with(|| Client::connect(address));
            told.push_str(&client.query(&text));
        }
        if line.starts_with('>') {
            continue;
        }
        writeln!(told, "{line}").unwrap();
        if let Some(message) = said.strip_prefix('@') {
            let client = clients.entry(number.into()).or_insert_with(|| Client::connect(address));
            told.push_str(&client.extended(message).unwrap_or_default());
        } else if goes_on && !line.starts_with("--") {
            let (_, text) = query.get_or_insert_with(|| (number.to_owned(), String::new()));
            text.push_str(said);
            text.push('\n');
        }
    }
    format!("{}\n", told.trim_end())
}

fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some()).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Runs all scripts of a folder, and says of all that differ where they do.
fn check(folder: &str, address: SocketAddr) {
    let mut wrong = String::new();
    for path in scripts(folder) {
        let want = std::fs::read_to_string(&path).unwrap();
        let got = run(&want, address);
        if std::env::var_os("ROTA_SESSION_RECORD").is_some() {
            std::fs::write(&path, got).unwrap();
        } else if got != want {
            let name = path.file_name().unwrap().to_string_lossy();
            let both = got.lines().zip(want.lines());
            let place = both.take_while(|(got, want)| got == want).count();
            let near: Vec<&str> = got.lines().skip(place.saturating_sub(3)).take(6).collect();
            let expected = want.lines().nth(place).unwrap_or("");
            let line = place + 1;
            writeln!(wrong, "{name}:{line}: expected {expected}, in\n  {}", near.join("\n  "))
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_as_postgresqls_do() {
    if let Ok(address) = std::env::var("ROTA_SESSION_AT") {
        return check("session", address.parse().unwrap());
    }
    let cluster = support::Cluster::start(1).await;
    let address = cluster.servers[0].as_ref().unwrap().pg;
    tokio::task::spawn_blocking(move || check("session", address)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_as_documented_where_postgresqls_do_not() {
    let cluster = support::Cluster::start(1).await;
    let address = cluster.servers[0].as_ref().unwrap().pg;
    tokio::task::spawn_blocking(move || check("session/own", address)).await.unwrap();
}
