//! `GET /db/backup`: what users have made, as a SQLite file or as SQL text (step 1 of a
//! transaction's life: it reads this server's newest final state).
//!
//! ```text
//!  may it? ─► a place ─► built in a file of its own, in one read transaction ─► sent from there
//!    403        503        on a thread of its own; called off when the client leaves
//! ```
//! The read transaction ends before the first byte is sent: however slow a client is, the log of
//! `state.db` can begin anew.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::types::Height;
use rota_store::access::Privilege;
use rota_store::backup::{Wanted, copy, dump};
use rota_store::error::Trouble;
use tokio::io::AsyncReadExt;

use super::levels::given;
use super::scratch::{Scratch, Temporary};
use super::{Door, refuse};
use crate::auth::Login;
use crate::status::State as ServerState;

/// How much of a file is in memory while it is sent.
const CHUNK_BYTES: usize = 256 << 10;

/// Says which height a backup is of.
pub(super) const HEIGHT: &str = "x-rota-height";

/// What a backup is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// SQL text, and no SQLite file.
    sql: bool,
    /// All of it as gzip.
    compress: bool,
    tables: Vec<String>,
}

impl Asked {
    /// rqlite's options. `vacuum` changes nothing: a backup is always packed. `noleader` and
    /// `redirect` neither: every server has all final blocks.
    fn of(options: &[(String, String)]) -> Result<Self, String> {
        let sql = match given(options, "fmt").unwrap_or_default() {
            "" | "binary" | "delete" => false,
            "sql" => true,
            other => return Err(format!("fmt={other:.20} is unknown: binary, delete or sql")),
        };
        if sql && given(options, "vacuum").is_some() {
            // rqlite's words.
            return Err("invalid vacuum".into());
        }
        let tables = given(options, "tables").unwrap_or_default().split(',');
        let tables = tables.map(str::trim).filter(|name| !name.is_empty());
        let tables = tables.map(str::to_owned).collect();
        Ok(Self { sql, compress: given(options, "compress").is_some(), tables })
    }

    fn content_type(&self) -> &'static str {
        // A compressed one is a file that is kept so: there is no Content-Encoding.
        if self.sql && !self.compress { "application/sql" } else { "application/octet-stream" }
    }
}

/// Answers with a backup.
pub(super) async fn backup(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Query(options): Query<Vec<(String, String)>>,
) -> Response {
    if !may(&door, &login) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a backup has the rows of all tables: it is for those who may SELECT from all tables",
        );
    }
    let asked = match Asked::of(&options) {
        Ok(asked) => asked,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    if door.driver.state() == ServerState::Diverged {
        let why = "this server's state is not the cluster's: use another server";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    let Some(place) = door.scratch.backup() else {
        let why = "this server makes as many backups as it can at once: try again";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let content_type = asked.content_type();
    let wanted = Wanted { tables: asked.tables.clone(), ..Wanted::default() };
    let cancelled = CallOff(Arc::clone(&wanted.cancelled));
    let (driver, scratch) = (door.driver.clone(), door.scratch.clone());
    let built = tokio::task::spawn_blocking(move || {
        let ready = driver.wait_for_commit().map_err(Trouble::from);
        let built = ready.and_then(|()| Built::new(driver.home(), &scratch, &asked, &wanted));
        drop(place);
        built
    });
    let built = built.await.map_err(|error| Fault::storage("making a backup", error).into());
    drop(cancelled);
    match built.and_then(|built| built) {
        Ok(built) => built.response(content_type),
        Err(trouble) => failed(trouble),
    }
}

/// Whether a user may have everything.
fn may(door: &Door, login: &Login) -> bool {
    let access = door.driver.access();
    let rights = access.rights_of(&login.user);
    rights.is_some_and(|rights| rights.may_everywhere(Privilege::Select))
}

/// Calls a backup off when its request is dropped: the client is gone.
struct CallOff(Arc<AtomicBool>);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn failed(trouble: Trouble) -> Response {
    let refusal = match trouble {
        Trouble::Refusal(refusal) => refusal,
        Trouble::Fault(fault) => {
            tracing::error!(%fault, "a backup failed");
            Refusal::new(sqlstate::INTERNAL, fault.to_string())
        }
    };
    let code = match refusal.code() {
        sqlstate::UNDEFINED_TABLE => StatusCode::BAD_REQUEST,
        sqlstate::QUERY_CANCELED | sqlstate::CANNOT_CONNECT_NOW => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse(code, &refusal.message)
}

/// A backup, ready to be sent. Its file has no name any more.
struct Built {
    file: File,
    bytes: u64,
    height: Height,
}

impl Built {
    fn new(
        home: &std::path::Path,
        scratch: &Scratch,
        asked: &Asked,
        wanted: &Wanted,
    ) -> Result<Self, Trouble> {
        let fault = |error: io::Error| Fault::storage("writing a backup", error);
        let target = scratch.file().map_err(fault)?;
        let height = match (asked.sql, asked.compress) {
            (true, true) => {
                let mut out = GzEncoder::new(buffered(&target), Compression::default());
                let height = dump::dump(home, &mut out, wanted)?;
                out.finish().and_then(|mut out| out.flush()).map_err(fault)?;
                height
            }
            (true, false) => {
                let mut out = buffered(&target);
                let height = dump::dump(home, &mut out, wanted)?;
                out.flush().map_err(fault)?;
                height
            }
            (false, _) => copy(home, &target.path, wanted)?,
        };
        let built = match (asked.sql, asked.compress) {
            (false, true) => compressed(scratch, &target).map_err(fault)?,
            _ => target,
        };
        let mut file = built.file.try_clone().map_err(fault)?;
        file.rewind().map_err(fault)?;
        let bytes = file.metadata().map_err(fault)?.len();
        Ok(Self { file, bytes, height })
    }

    fn response(self, content_type: &'static str) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
            (header::CONTENT_LENGTH, HeaderValue::from(self.bytes)),
            (header::HeaderName::from_static(HEIGHT), HeaderValue::from(self.height.0)),
        ];
        let file = tokio::fs::File::from_std(self.file);
        let chunks = futures::stream::try_unfold(file, |mut file| async {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
            io::Result::Ok((read > 0).then_some((chunk, file)))
        });
        (headers, Body::from_stream(chunks)).into_response()
    }
}

fn buffered(target: &Temporary) -> BufWriter<&File> {
    BufWriter::with_capacity(CHUNK_BYTES, &target.file)
}

fn compressed(scratch: &Scratch, from: &Temporary) -> io::Result<Temporary> {
    let target = scratch.file()?;
    let mut out = GzEncoder::new(buffered(&target), Compression::default());
    // SQLite has written the file by its name; its first handle stands at the beginning.
    io::copy(&mut &from.file, &mut out)?;
    out.finish()?.flush()?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &[(&str, &str)]) -> Result<Asked, String> {
        let options: Vec<_> =
            query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Asked::of(&options)
    }

    #[test]
    fn options_are_rqlite_s() {
        assert_eq!(asked(&[]), Ok(Asked::default()));
        let same = [("fmt", "delete"), ("vacuum", ""), ("noleader", ""), ("redirect", "")];
        assert_eq!(asked(&same), Ok(Asked::default()));
        let tables = vec!["a".to_owned(), "b".to_owned()];
        let want = Asked { sql: true, compress: true, tables };
        assert_eq!(asked(&[("fmt", "sql"), ("tables", "a, b,"), ("compress", "")]), Ok(want));
        assert_eq!(asked(&[("fmt", "sql"), ("vacuum", "")]), Err("invalid vacuum".into()));
        assert!(asked(&[("fmt", "xml")]).is_err());
    }
}
