//! `rota backup`: a copy of the database in a file.
//!
//! What arrives is written under another name first, so that a file of the wanted name is a whole
//! copy, whatever happens meanwhile.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Response, StatusCode};

use crate::args::Backup;
use crate::failure::Failure;
use crate::trust::Trust;

/// How long a server may take to make a backup, before it begins to send it: some tens of megabytes
/// a second, and databases of many gigabytes.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How long it may send nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// Asks, and writes what comes.
pub async fn run(asked: Backup) -> Result<(), Failure> {
    if asked.out.is_none() && !asked.sql && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "a SQLite file is nothing for a terminal: give -o FILE, or --sql",
        ));
    }
    if let Some(out) = asked.out.as_deref().filter(|out| out.exists()) {
        let text = format!("{} is there already: give -o another name", out.display());
        return Err(Failure::new(text));
    }
    let door = asked.server.http(&Trust::new(&asked.authority)).await?;
    let answer = door.send(Method::GET, &path(&asked), None, Bytes::new(), PATIENCE).await?;
    if answer.status() != StatusCode::OK {
        return Err(refused(answer).await);
    }
    let Some(out) = &asked.out else {
        return receive(answer, &mut std::io::stdout().lock()).await;
    };
    let part = part_of(out);
    let received = keep(answer, &part).await;
    let kept = received.and_then(|()| {
        std::fs::rename(&part, out).map_err(Failure::doing(out.display().to_string()))
    });
    if kept.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    kept
}

fn path(asked: &Backup) -> String {
    let mut path = String::from("/db/backup?fmt=");
    path.push_str(if asked.sql { "sql" } else { "delete" });
    if asked.compress {
        path.push_str("&compress");
    }
    if !asked.tables.is_empty() {
        path.push_str("&tables=");
        for byte in asked.tables.join(",").bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b',' => {
                    path.push(char::from(byte));
                }
                other => path.push_str(&format!("%{other:02X}")),
            }
        }
    }
    path
}

fn part_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// In the server's own words, if it has any.
async fn refused(answer: Response<Incoming>) -> Failure {
    let status = answer.status();
    let body = tokio::time::timeout(SILENCE, answer.into_body().collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let why = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
    Failure::new(why.unwrap_or_else(|| format!("the server answers {status}")))
}

async fn keep(answer: Response<Incoming>, part: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::doing(part.display().to_string())(error);
    let file = OpenOptions::new().write(true).create_new(true).open(part);
    let mut file = file.map_err(failed)?;
    receive(answer, &mut file).await?;
    file.sync_all().map_err(failed)
}

async fn receive(answer: Response<Incoming>, out: &mut impl Write) -> Result<(), Failure> {
    let mut body = answer.into_body();
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let frame = frame.map_err(|_| {
            Failure::new(format!(
                "the server has sent nothing for {SILENCE:?}: the copy is not complete"
            ))
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(Failure::doing("the copy is not complete"))?;
        if let Some(bytes) = frame.data_ref() {
            out.write_all(bytes).map_err(Failure::doing("writing the copy"))?;
        }
    }
    out.flush().map_err(Failure::doing("writing the copy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_may_be_anything() {
        let mut asked = Backup {
            server: "127.0.0.1:4001".parse().unwrap(),
            out: None,
            sql: false,
            compress: false,
            tables: Vec::new(),
            authority: Default::default(),
        };
        assert_eq!(path(&asked), "/db/backup?fmt=delete");
        asked.tables = vec!["one".into(), "tw o&".into()];
        (asked.sql, asked.compress) = (true, true);
        assert_eq!(path(&asked), "/db/backup?fmt=sql&compress&tables=one,tw%20o%26");
    }
}
