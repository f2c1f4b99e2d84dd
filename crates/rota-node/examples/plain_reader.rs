//! What point reads could reach at best: a server that speaks PostgreSQL's protocol by the same
//! bytes in and out as Rota's door (`pg/wire.rs`), and answers from a read-only SQLite connection
//! right in the connection's task. No sessions, no dialect, no types, no limits, no other threads:
//! the yardstick for step 1 of a transaction's life, and nothing to serve anyone with.
//!
//! ```sh
//! cargo run --release -p rota-node --example plain_reader -- rota-dev/server-1/state.db 5499
//! pgbench -n -S -M prepared -c 8 -j 2 -T 5 postgres://rota@127.0.0.1:5499/rota
//! ```

#[allow(dead_code, reason = "the door needs more of it")]
#[path = "../src/pg/wire.rs"]
mod wire;

/// Where `wire` looks for it.
mod driver {
    pub use rota_node::driver::Cancel;
}

use std::collections::HashMap;
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete};
use pgwire::messages::response::{
    CommandComplete, ErrorResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::{Authentication, ParameterStatus};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags};
use tokio::net::{TcpListener, TcpStream};
use wire::{Bind, Frontend, Hello, Incoming, Wire};

/// As much as each of Rota's readers has, in KiB.
const CACHE_KIB: i64 = 8 * 1024;

/// PostgreSQL's number of the type `text`: what is not asked for in binary is text anyway.
const TEXT: u32 = 25;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plain_reader STATE_DB PORT".into());
    };
    let file = PathBuf::from(file);
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    eprintln!("reading {} on 127.0.0.1:{port}", file.display());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let file = file.clone();
        tokio::spawn(async move {
            if let Err(failure) = serve(stream, &file).await {
                eprintln!("a connection ended: {failure}");
            }
        });
    }
}

/// One client, from its first byte to its last.
async fn serve(stream: TcpStream, file: &Path) -> Result<(), Failure> {
    let mut wire = Wire::new(stream);
    loop {
        match wire.hello().await? {
            Some(Ok(Hello::Tls | Hello::Gss)) => {
                wire.output().extend_from_slice(b"N");
                wire.flush().await?;
            }
            Some(Ok(Hello::Startup { .. })) => break,
            _ => return Ok(()),
        }
    }
    wire.put(&Authentication::Ok);
    wire.put(&ParameterStatus::new("server_version".into(), "15.0".into()));
    wire.put(&ParameterStatus::new("client_encoding".into(), "UTF8".into()));
    wire.put(&ReadyForQuery::new(TransactionStatus::Idle));
    wire.flush().await?;

    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    let mut conversation =
        Conversation { connection, prepared: HashMap::new(), portal: None, failed: false };
    loop {
        let Ok(Incoming::Message(tag, body)) = wire.next().await? else { return Ok(()) };
        let Ok(message) = wire::decode(tag, body) else { return Ok(()) };
        match message {
            Frontend::Terminate => return Ok(()),
            Frontend::Sync => {
                conversation.failed = false;
                wire.put(&ReadyForQuery::new(TransactionStatus::Idle));
                wire.flush().await?;
            }
            Frontend::Query(sql) => {
                let answered = conversation.answer(&sql, None, true, wire.output());
                tell(wire.output(), answered);
                wire.put(&ReadyForQuery::new(TransactionStatus::Idle));
                wire.flush().await?;
            }
            _ if conversation.failed => {}
            message => {
                let answered = conversation.extended(message, wire.output());
                conversation.failed = answered.is_err();
                tell(wire.output(), answered);
            }
        }
    }
}

fn tell(output: &mut BytesMut, answered: Result<(), Failure>) {
    if let Err(failure) = answered {
        let fields = [(b'S', "ERROR"), (b'C', "XX000"), (b'M', &failure.to_string())];
        let fields = fields.map(|(tag, text)| (tag, text.to_owned())).to_vec();
        wire::put(output, &ErrorResponse::new(fields));
    }
}

/// What a client has prepared.
struct Conversation {
    connection: Connection,
    prepared: HashMap<String, String>,
    portal: Option<Bind>,
    /// Until Sync.
    failed: bool,
}

impl Conversation {
    fn extended(&mut self, message: Frontend, output: &mut BytesMut) -> Result<(), Failure> {
        match message {
            Frontend::Parse { name, sql, .. } => {
                self.connection.prepare_cached(&sql)?;
                self.prepared.insert(name, sql);
                wire::put(output, &ParseComplete::new());
            }
            Frontend::Bind(bind) => {
                self.portal = Some(bind);
                wire::put(output, &BindComplete::new());
            }
            Frontend::Describe(wire::Target::Portal(_)) => {
                let sql = self.portal.as_ref().and_then(|bind| self.prepared.get(&bind.statement));
                put_columns(output, &self.connection.prepare_cached(sql.ok_or("no portal")?)?);
            }
            Frontend::Execute { .. } => {
                let bind = self.portal.as_ref().ok_or("no portal")?;
                let sql = self.prepared.get(&bind.statement).ok_or("no such statement")?;
                self.answer(sql, Some(bind), false, output)?;
            }
            Frontend::Close(_) => wire::put(output, &CloseComplete::new()),
            Frontend::Flush => {}
            other => return Err(format!("{other:?} is not for a mere reader").into()),
        }
        Ok(())
    }

    fn answer(
        &self,
        sql: &str,
        bind: Option<&Bind>,
        described: bool,
        output: &mut BytesMut,
    ) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        if described {
            put_columns(output, &statement);
        }
        let parameters = bind.map_or(&[][..], |bind| &bind.parameters);
        for (place, parameter) in (1..).zip(parameters) {
            bind_text(&mut statement, place, parameter.as_ref())?;
        }
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut count = 0_usize;
        while let Some(row) = rows.next()? {
            put_row(output, row, columns)?;
            count += 1;
        }
        wire::put(output, &CommandComplete::new(format!("SELECT {count}")));
        Ok(())
    }
}

/// Parameters come as text; what is a whole number is taken for one.
fn bind_text(
    statement: &mut CachedStatement<'_>,
    place: usize,
    value: Option<&Bytes>,
) -> Result<(), Failure> {
    let text = value.map(|bytes| std::str::from_utf8(bytes)).transpose()?;
    match text.map(|text| text.parse::<i64>().map_err(|_| text)) {
        None => statement.raw_bind_parameter(place, rusqlite::types::Null)?,
        Some(Ok(number)) => statement.raw_bind_parameter(place, number)?,
        Some(Err(text)) => statement.raw_bind_parameter(place, text)?,
    }
    Ok(())
}

fn put_columns(output: &mut BytesMut, statement: &CachedStatement<'_>) {
    let names = statement.column_names();
    let fields =
        names.into_iter().map(|name| FieldDescription::new(name.to_owned(), 0, 0, TEXT, -1, -1, 0));
    wire::put(output, &RowDescription::new(fields.collect()));
}

fn put_row(output: &mut BytesMut, row: &rusqlite::Row<'_>, columns: usize) -> Result<(), Failure> {
    let start = begin_length(output, Some(b'D'));
    output.put_u16(u16::try_from(columns)?);
    for place in 0..columns {
        if row.get_ref(place)? == ValueRef::Null {
            output.put_i32(-1);
            continue;
        }
        let field = begin_length(output, None);
        match row.get_ref(place)? {
            ValueRef::Null => {}
            ValueRef::Integer(number) => write!(output.writer(), "{number}")?,
            ValueRef::Real(number) => write!(output.writer(), "{number}")?,
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => output.extend_from_slice(bytes),
        }
        end_length(output, field, 4)?;
    }
    end_length(output, start, 0)
}

/// Leaves room for a length.
fn begin_length(output: &mut BytesMut, tag: Option<u8>) -> usize {
    output.extend(tag);
    let place = output.len();
    output.put_u32(0);
    place
}

/// Fills it in, less what does not count.
fn end_length(output: &mut BytesMut, place: usize, less: usize) -> Result<(), Failure> {
    let length = u32::try_from(output.len() - place - less)?;
    output[place..place + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
