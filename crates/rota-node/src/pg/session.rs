//! One PostgreSQL client's conversation: start-up, then the simple and the extended protocol. Steps
//! 1 and 9.
//!
//! ```text
//!  start-up ─► Query ───────────────────► rows, CommandComplete, …, ReadyForQuery (one flush)
//!         └──► Parse, Bind, Describe, Execute ─► …        an error skips to Sync
//!              Sync ────────────────────► ReadyForQuery, portals forgotten        (one flush)
//! ```
//!
//! Every statement is a transaction of its own, also in a Query with several and in a pipeline:
//! those before one that fails stay done.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::commands::SERVER_VERSION;
use super::dialect::plain_strings;
use super::encode::{self, Format, Oid, Type, oid};
use super::statement::{Answer, Context, Described, Shared, USER, announced, prepare};
use super::wire::{self, Bind, Frontend, Hello, Incoming, Target, Wire};
use crate::driver::{Driver, WriteError};

/// How long a client may take to say who it is: a slow network's round trips, not a person's
/// typing.
const STARTUP_TIME: Duration = Duration::from_secs(10);

/// How many prepared statements a connection may have: drivers cache some hundreds.
const MAX_STATEMENTS: usize = 2_000;

/// How many bytes of SQL they may be, all together.
const MAX_STATEMENT_BYTES: usize = 8 << 20;

/// How many portals a connection may have open: each may hold a result.
const MAX_PORTALS: usize = 16;

/// The longest message of an error that is sent: some clients have limits, and what repeats a whole
/// statement helps nobody.
const MAX_ERROR_BYTES: usize = 4_096;

/// The longest bytes of a column's name: it may be a whole expression (PostgreSQL cuts at 63, which
/// would make two of them equal).
const MAX_NAME_BYTES: usize = 1_000;

/// Serves one connection until its end. `crowded`: there are too many, and it is to be told so.
pub(crate) async fn serve<S>(
    stream: S,
    driver: Driver,
    process: i32,
    crowded: bool,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(stream);
    let greeted = tokio::time::timeout(STARTUP_TIME, greet(&mut wire, process, crowded)).await;
    let Ok(greeted) = greeted else { return Ok(()) };
    let Some(parameters) = greeted? else { return Ok(()) };
    let mut session = Session {
        wire,
        context: Context::new(driver),
        statements: HashMap::new(),
        portals: HashMap::new(),
        skipping: false,
    };
    for (name, value) in parameters {
        // PostgreSQL refuses what it does not know; a client's time zone or locale is no reason to
        // turn it away.
        let _ = session.context.variables.set(&name, &value);
    }
    session.converse().await
}

/// Start-up, without a password until there are users. `None` when the connection is over.
async fn greet<S>(
    wire: &mut Wire<S>,
    process: i32,
    crowded: bool,
) -> io::Result<Option<Vec<(String, String)>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // TLS and GSS may each be asked for once.
    for _ in 0..3 {
        let refusal = match wire.hello().await? {
            None | Some(Ok(Hello::Cancel)) => return Ok(None),
            Some(Ok(Hello::Encryption)) => {
                wire.output().extend_from_slice(b"N");
                wire.flush().await?;
                continue;
            }
            Some(Err(refusal)) => refusal,
            Some(Ok(Hello::Startup { .. })) if crowded => Refusal::new(
                "53300",
                "this server has as many connections as it can take: close some, use a pool, or \
                 another server of the cluster",
            ),
            Some(Ok(Hello::Startup { major, minor, parameters })) => {
                match welcome(wire, process, (major, minor), &parameters) {
                    Ok(()) => {
                        wire.flush().await?;
                        return Ok(Some(parameters));
                    }
                    Err(refusal) => refusal,
                }
            }
        };
        put_error(wire.output(), "FATAL", &refusal, None);
        wire.close().await?;
        return Ok(None);
    }
    Ok(None)
}

fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    process: i32,
    (major, minor): (u16, u16),
    parameters: &[(String, String)],
) -> Result<(), Refusal> {
    if major != 3 {
        return Err(Refusal::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("protocol {major}.{minor} is not supported: version 3.0 is"),
        ));
    }
    let user = parameters.iter().find(|(name, _)| name == "user").map(|(_, user)| user.as_str());
    if user != Some(USER) {
        let user = user.unwrap_or_default();
        return Err(Refusal::new(
            "28000",
            format!(
                "there is no user {user:?}: connect as user \"rota\" (psql -U rota), without a \
                 password"
            ),
        ));
    }
    let options: Vec<String> = parameters
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| name.starts_with("_pq_."))
        .collect();
    if minor > 0 || !options.is_empty() {
        wire.put(&NegotiateProtocolVersion::new(0, options));
    }
    wire.put(&Authentication::Ok);
    let application = parameters.iter().find(|(name, _)| name == "application_name");
    let application = application.map_or("", |(_, name)| name.as_str());
    let version = format!("{SERVER_VERSION} (Rota {})", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("server_version", version.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", application),
        ("is_superuser", "off"),
        ("session_authorization", USER),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
    ] {
        wire.put(&ParameterStatus::new(name.into(), value.into()));
    }
    // Cancel requests are taken and have no effect: reads have a time limit, and a write that is
    // signed cannot be taken back. So the key need not be a secret.
    wire.put(&BackendKeyData::new(process, SecretKey::I32(0)));
    wire.put(&ReadyForQuery::new(TransactionStatus::Idle));
    Ok(())
}

struct Session<S> {
    wire: Wire<S>,
    context: Context,
    statements: HashMap<String, (Shared, usize)>,
    portals: HashMap<String, Portal>,
    /// After an error in the extended protocol, until Sync.
    skipping: bool,
}

/// A statement with its parameters, and its result once it ran.
struct Portal {
    statement: Shared,
    values: Vec<Value>,
    result_formats: Vec<i16>,
    /// What the client was told of the columns by describing the portal.
    told: Option<Vec<Type>>,
    ran: Option<Ran>,
}

struct Ran {
    answer: Answer,
    /// How many rows have been sent.
    sent: usize,
}

/// Why a statement did not do what it should: for the client, or the connection is lost.
enum Trouble {
    Refused(Box<WriteError>),
    Lost(io::Error),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal.into()))
    }
}

impl From<WriteError> for Trouble {
    fn from(error: WriteError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn converse(&mut self) -> io::Result<()> {
        loop {
            let message = match self.wire.next().await? {
                Ok(Incoming::Closed) => return Ok(()),
                Ok(Incoming::Message(tag, body)) => (tag, wire::decode(tag, body)),
                Ok(Incoming::TooLarge(tag, bytes)) => (tag, Err(too_large(bytes))),
                Err(refusal) => return self.end(&refusal).await,
            };
            match message {
                (_, Ok(Frontend::Terminate)) => return Ok(()),
                (b'Q', message) => self.query(message).await?,
                (_, Ok(Frontend::Sync)) => self.sync().await?,
                _ if self.skipping => {}
                (_, Ok(message)) => {
                    if let Err(trouble) = self.extended(message).await {
                        self.fail(trouble).await?;
                    }
                }
                // Only in a message that is whole and understood can the conversation go on.
                (_, Err(refusal)) if refusal.code() == sqlstate::PROTOCOL_VIOLATION => {
                    return self.end(&refusal).await;
                }
                (_, Err(refusal)) => self.fail(refusal.into()).await?,
            }
            self.wire.relieve().await?;
        }
    }

    /// An error in the extended protocol: told at once, since a client that only asked for a Flush
    /// waits for it before it sends its Sync (asyncpg does), and nothing is heard until then.
    async fn fail(&mut self, trouble: Trouble) -> io::Result<()> {
        self.skipping = true;
        self.tell(trouble)?;
        self.wire.flush().await
    }

    /// Tells why and closes.
    async fn end(&mut self, refusal: &Refusal) -> io::Result<()> {
        put_error(self.wire.output(), "FATAL", refusal, None);
        self.wire.close().await
    }

    fn tell(&mut self, trouble: Trouble) -> io::Result<()> {
        match trouble {
            Trouble::Lost(error) => return Err(error),
            Trouble::Refused(error) => {
                let asks = error.refusal.code() == sqlstate::OUTCOME_UNKNOWN;
                let detail = error.id.filter(|_| asks).map(|id| format!("transaction id: {id}"));
                put_error(self.wire.output(), "ERROR", &error.refusal, detail);
            }
        }
        Ok(())
    }

    async fn ready(&mut self) -> io::Result<()> {
        self.wire.put(&ReadyForQuery::new(TransactionStatus::Idle));
        self.wire.flush().await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.skipping = false;
        // A portal lives as long as its transaction.
        self.portals.clear();
        self.ready().await
    }

    /// The simple protocol. A Query also ends whatever the extended protocol was skipping.
    async fn query(&mut self, message: Result<Frontend, Refusal>) -> io::Result<()> {
        self.skipping = false;
        let result = match message {
            Ok(Frontend::Query(script)) => self.script(&script).await,
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code() == sqlstate::PROTOCOL_VIOLATION => {
                self.end(&refusal).await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
            Err(refusal) => Err(refusal.into()),
        };
        if let Err(trouble) = result {
            self.tell(trouble)?;
        }
        self.ready().await
    }

    async fn script(&mut self, script: &str) -> Result<(), Trouble> {
        let script = plain_strings(script)?;
        let mut empty = true;
        for text in rota_store::sql::split(&script) {
            let prepared = prepare(text, Vec::new())?;
            if prepared.is_empty() {
                continue;
            }
            empty = false;
            if prepared.parameters > 0 {
                return Err(Refusal::new("42P02", "there is no parameter $1").into());
            }
            let answer = self.context.run(&prepared, Vec::new()).await?;
            if let Some(rows) = &answer.rows {
                let columns = announced(rows);
                put_columns(self.wire.output(), &columns, &[]);
                let formats = formats(columns.iter().map(|(_, oid)| *oid), &[])?;
                for row in &rows.rows {
                    encode::row(self.wire.output(), row, &formats)?;
                    self.wire.relieve().await?;
                }
            }
            self.complete(&answer);
        }
        if empty {
            self.wire.put(&EmptyQueryResponse::new());
        }
        Ok(())
    }

    /// A statement's end: warning, tag, and what the session has to forget.
    fn complete(&mut self, answer: &Answer) {
        if let Some((code, message)) = &answer.warning {
            self.wire.put(&NoticeResponse::new(fields("WARNING", code, message)));
        }
        match &answer.deallocate {
            Some(None) => self.statements.clear(),
            Some(Some(name)) => drop(self.statements.remove(name)),
            None => {}
        }
        self.wire.put(&CommandComplete::new(answer.tag.clone()));
    }

    async fn extended(&mut self, message: Frontend) -> Result<(), Trouble> {
        match message {
            Frontend::Parse { name, sql, types } => self.parse(name, &sql, types)?,
            Frontend::Bind(bind) => self.bind(bind).await?,
            Frontend::Describe(Target::Statement(name)) => self.describe_statement(&name).await?,
            Frontend::Describe(Target::Portal(name)) => self.describe_portal(&name).await?,
            Frontend::Execute { portal, max_rows } => self.execute(&portal, max_rows).await?,
            Frontend::Close(Target::Statement(name)) => {
                self.statements.remove(&name);
                self.wire.put(&CloseComplete::new());
            }
            Frontend::Close(Target::Portal(name)) => {
                self.portals.remove(&name);
                self.wire.put(&CloseComplete::new());
            }
            Frontend::Flush => self.wire.flush().await?,
            Frontend::Query(_) | Frontend::Sync | Frontend::Terminate | Frontend::Ignored => {}
        }
        Ok(())
    }

    fn parse(&mut self, name: String, sql: &str, types: Vec<Oid>) -> Result<(), Refusal> {
        let script = plain_strings(sql)?;
        let statements = rota_store::sql::split(&script);
        let text = match statements.as_slice() {
            [] => "",
            [one] => one,
            _ => {
                return Err(Refusal::new(
                    sqlstate::SYNTAX_ERROR,
                    "cannot insert multiple commands into a prepared statement",
                ));
            }
        };
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Refusal::new("42P05", message));
        }
        let held: usize = self.statements.values().map(|(_, bytes)| bytes).sum();
        if self.statements.len() >= MAX_STATEMENTS || held + sql.len() > MAX_STATEMENT_BYTES {
            return Err(Refusal::new(
                sqlstate::TOO_COMPLEX,
                "this connection has too many prepared statements: DEALLOCATE some",
            ));
        }
        let prepared = prepare(text, types)?;
        self.statements.insert(name, (Arc::new(prepared), sql.len()));
        self.wire.put(&ParseComplete::new());
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Shared, Refusal> {
        let found = self.statements.get(name).map(|(statement, _)| Arc::clone(statement));
        found.ok_or_else(|| {
            Refusal::new("26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Refusal> {
        let statement = self.statement(&bind.statement)?;
        let (given, wanted) = (bind.parameters.len(), statement.parameters);
        if given != wanted {
            return Err(Refusal::new(
                sqlstate::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {given} parameters, but prepared statement \"{}\" \
                     requires {wanted}",
                    bind.statement
                ),
            ));
        }
        let binary: Vec<bool> = (0..given)
            .map(|place| format_code(&bind.formats, place))
            .collect::<Result<_, Refusal>>()?;
        // Bytes without a type mean nothing until the statement says what it expects.
        let untyped = |place: usize| statement.parameter_type(place) == oid::UNSPECIFIED;
        if binary.iter().enumerate().any(|(place, binary)| *binary && untyped(place)) {
            self.context.describe(&statement).await?;
        }
        let parameters = bind.parameters.iter().zip(binary).enumerate();
        let values = parameters
            .map(|(place, (bytes, binary))| match bytes {
                None => Ok(Value::Null),
                Some(bytes) => encode::parameter(bytes, statement.parameter_type(place), binary),
            })
            .collect::<Result<_, Refusal>>()?;
        if bind.portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&bind.portal) {
            let message = format!("cursor \"{}\" already exists", bind.portal);
            return Err(Refusal::new("42P03", message));
        }
        if self.portals.len() >= MAX_PORTALS {
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, "too many open portals: close some"));
        }
        let portal = Portal {
            statement,
            values,
            result_formats: bind.result_formats,
            told: None,
            ran: None,
        };
        self.portals.insert(bind.portal, portal);
        self.wire.put(&BindComplete::new());
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Refusal> {
        let statement = self.statement(name)?;
        let Described { parameters, columns } = self.context.describe(&statement).await?;
        self.wire.put(&ParameterDescription::new(parameters));
        match columns {
            Some(columns) => put_columns(self.wire.output(), &columns, &[]),
            None => self.wire.put(&NoData::new()),
        }
        Ok(())
    }

    /// A read is run right away, so that the values tell the types; a write that gives rows is
    /// described by its words.
    async fn describe_portal(&mut self, name: &str) -> Result<(), Trouble> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let statement = Arc::clone(&portal.statement);
        if !statement.gives_rows() {
            self.wire.put(&NoData::new());
            return Ok(());
        }
        let columns = if statement.only_reads() {
            if portal.ran.is_none() {
                let values = std::mem::take(&mut portal.values);
                let answer = self.context.run(&statement, values).await?;
                portal.ran = Some(Ran { answer, sent: 0 });
            }
            let rows = portal.ran.as_ref().and_then(|ran| ran.answer.rows.as_ref());
            rows.map(announced)
        } else {
            self.context.describe(&statement).await?.columns
        };
        match columns {
            None => self.wire.put(&NoData::new()),
            Some(columns) => {
                put_columns(self.wire.output(), &columns, &portal.result_formats);
                portal.told = Some(columns.iter().map(|(_, oid)| *oid).collect());
            }
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Trouble> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        if portal.statement.is_empty() {
            self.wire.put(&EmptyQueryResponse::new());
            return Ok(());
        }
        if portal.ran.is_none() {
            let values = std::mem::take(&mut portal.values);
            let answer = self.context.run(&portal.statement, values).await?;
            portal.ran = Some(Ran { answer, sent: 0 });
        }
        let Some(ran) = &mut portal.ran else { return Ok(()) };
        let mut whole = true;
        if let Some(rows) = &ran.answer.rows {
            let told = portal.told.clone().or_else(|| {
                let told = portal.statement.told()?.columns.as_ref()?;
                Some(told.iter().map(|(_, oid)| *oid).collect())
            });
            let told = told.unwrap_or_else(|| encode::types_of(rows));
            if told.len() != rows.columns.len() {
                return Err(Refusal::new(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    "cached plan must not change result type",
                )
                .into());
            }
            let formats = formats(told.into_iter(), &portal.result_formats)?;
            let rest = rows.rows.get(ran.sent..).unwrap_or_default();
            let count = if max_rows == 0 { rest.len() } else { rest.len().min(max_rows) };
            for row in rest.iter().take(count) {
                encode::row(self.wire.output(), row, &formats)?;
                self.wire.relieve().await?;
            }
            ran.sent += count;
            whole = ran.sent >= rows.rows.len();
        }
        if whole {
            let answer = std::mem::take(&mut ran.answer);
            // Executed again, a portal that is done gives nothing more.
            ran.answer.tag.clone_from(&answer.tag);
            self.complete(&answer);
        } else {
            self.wire.put(&PortalSuspended::new());
        }
        Ok(())
    }
}

fn no_portal(name: &str) -> Refusal {
    Refusal::new("34000", format!("portal \"{name}\" does not exist"))
}

fn too_large(bytes: usize) -> Refusal {
    Refusal::new(
        sqlstate::TOO_COMPLEX,
        format!(
            "a message of {bytes} bytes; {} are possible: use several statements",
            wire::MAX_MESSAGE_BYTES
        ),
    )
}

/// Whether a place is binary: no codes mean text, one code means all.
fn format_code(codes: &[i16], place: usize) -> Result<bool, Refusal> {
    let code = match codes {
        [] => 0,
        [all] => *all,
        codes => *codes.get(place).ok_or_else(|| {
            Refusal::new(sqlstate::PROTOCOL_VIOLATION, "fewer format codes than values")
        })?,
    };
    match code {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Refusal::new(sqlstate::PROTOCOL_VIOLATION, format!("there is no format {code}"))),
    }
}

fn formats(types: impl Iterator<Item = Type>, codes: &[i16]) -> Result<Vec<Format>, Refusal> {
    types
        .enumerate()
        .map(|(place, kind)| Ok(Format { kind, binary: format_code(codes, place)? }))
        .collect()
}

fn put_columns(output: &mut BytesMut, columns: &[(String, Type)], codes: &[i16]) {
    let fields = columns.iter().enumerate().map(|(place, (name, kind))| {
        let binary = format_code(codes, place).unwrap_or(false);
        let name = cut(name, MAX_NAME_BYTES);
        FieldDescription::new(name, 0, 0, kind.oid, kind.width(), kind.modifier, i16::from(binary))
    });
    wire::put(output, &RowDescription::new(fields.collect()));
}

fn put_error(output: &mut BytesMut, severity: &str, refusal: &Refusal, detail: Option<String>) {
    let message = cut(&refusal.message, MAX_ERROR_BYTES);
    let mut fields = fields(severity, refusal.code(), &message);
    fields.extend(detail.map(|detail| (b'D', detail)));
    wire::put(output, &ErrorResponse::new(fields));
}

fn fields(severity: &str, code: &str, message: &str) -> Vec<(u8, String)> {
    vec![
        (b'S', severity.into()),
        (b'V', severity.into()),
        (b'C', code.into()),
        (b'M', message.into()),
    ]
}

/// A text of at most so many bytes, and without zero bytes, which end it on the wire.
fn cut(text: &str, most: usize) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= most);
    let cut = text.get(..end.last().unwrap_or(0)).unwrap_or("");
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", cut.replace('\0', "␀"))
}
