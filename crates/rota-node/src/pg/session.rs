//! One PostgreSQL client's conversation, once it is let in: the simple and the extended protocol.
//! Steps 1 and 9.
//!
//! ```text
//!  startup ──► Query ───────────────────► rows, CommandComplete, …, ReadyForQuery (one flush)
//!        └───► Parse, Bind, Describe, Execute ─► …        an error skips to Sync
//!              Sync ────────────────────► ReadyForQuery, portals forgotten        (one flush)
//! ```
//!
//! The statements of one Query are one transaction, and so are those up to a Sync; what stands
//! alone goes its own, shorter way: see `context`.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
};
use pgwire::messages::startup::ParameterStatus;
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;
use rota_store::StatementKind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::block::{Phase, aborted};
use super::context::{Answer, Context, Notice};
use super::copy;
use super::cursors::{Portal, Ran};
use super::dialect::plain_strings;
use super::encode::{self, Format, Oid, Type, oid};
use super::startup::{Door, Greeted, greet};
use super::statement::{Described, Prepared, Shared, prepare};
use super::variables::{Identity, Variables};
use super::wire::{self, Bind, Frontend, Incoming, Target, Wire};
use crate::auth::Login;
use crate::driver::{Driver, WriteError};
use crate::porch::Guest;

/// How many portals and statements may be closed between the last Execute and its Sync for this to
/// be seen as one statement alone.
const CLOSES_BEFORE_SYNC: usize = 4;

/// The longest message of an error that is sent: some clients have limits, and what repeats a whole
/// statement helps nobody.
const MAX_ERROR_BYTES: usize = 4_096;

/// The longest bytes of a column's name: it may be a whole expression (PostgreSQL cuts at 63, which
/// would make two of them equal).
const MAX_NAME_BYTES: usize = 1_000;

/// Serves one connection until its end.
pub(super) async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    driver: Driver,
    door: &Door,
    guest: Guest,
) -> io::Result<()> {
    let Some(greeted) = greet(stream, from, door, &guest).await? else { return Ok(()) };
    let Greeted { wire, login, settings, registered } = greeted;
    let Login { user, administrator, proof } = login;
    let identity = Identity { user, administrator, tls: door.has_tls() };
    let told = Variables::new(identity.clone());
    let context = Context::new(driver, registered.cancel.clone(), identity, proof);
    let mut session = Session { wire, context, told, skipping: false };
    for (name, value) in settings {
        if name == "application_name" {
            // It was told already.
            let _ = session.told.set(&name, Some(&value), false);
        }
        // PostgreSQL refuses what it does not know; a client's time zone or locale is no reason to
        // turn it away.
        let _ = session.context.variables.set(&name, Some(&value), false);
    }
    // Boxed: it is most of what a connection costs, and who never logs in shall not cost it.
    Box::pin(session.converse()).await
}

struct Session<S> {
    wire: Wire<S>,
    context: Context,
    /// The settings that the client was told of.
    told: Variables,
    /// After an error in the extended protocol, until Sync.
    skipping: bool,
}

/// Why a statement did not do what it should: for the client, or the connection is lost.
pub(super) enum Trouble {
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
            let Some(heard) = self.hear().await? else { return Ok(()) };
            let message = match heard {
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

    /// The next message; `None` when the client has been silent for too long, and the conversation
    /// is over.
    async fn hear(&mut self) -> io::Result<Option<Result<Incoming, Refusal>>> {
        if let Some(until) = self.context.expiry() {
            match tokio::time::timeout_at(until.into(), self.wire.next()).await {
                Ok(heard) => return heard.map(Some),
                Err(_) => self.context.block.expire(),
            }
        }
        let Some((until, why)) = self.context.patience() else {
            return self.wire.next().await.map(Some);
        };
        match tokio::time::timeout_at(until.into(), self.wire.next()).await {
            Ok(heard) => heard.map(Some),
            Err(_) => {
                self.context.rollback();
                self.end(&why).await?;
                Ok(None)
            }
        }
    }

    /// An error in the extended protocol: told at once, since a client that only asked for a Flush
    /// waits for it before it sends its Sync (asyncpg does), and nothing is heard until then.
    async fn fail(&mut self, trouble: Trouble) -> io::Result<()> {
        self.skipping = true;
        self.tell(trouble).await?;
        self.wire.flush().await
    }

    /// Tells why and closes.
    async fn end(&mut self, refusal: &Refusal) -> io::Result<()> {
        put_error(self.wire.output(), "FATAL", refusal, None);
        self.wire.close().await
    }

    async fn tell(&mut self, trouble: Trouble) -> io::Result<()> {
        match trouble {
            Trouble::Lost(error) => return Err(error),
            // Its user is not there any more, and so neither is the session.
            Trouble::Refused(error) if error.refusal.code() == sqlstate::INVALID_AUTHORIZATION => {
                self.context.rollback();
                self.end(&error.refusal).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Trouble::Refused(error) => {
                self.context.fail();
                let asks = error.refusal.code() == sqlstate::OUTCOME_UNKNOWN;
                let detail = error.id.filter(|_| asks).map(|id| format!("transaction id: {id}"));
                put_error(self.wire.output(), "ERROR", &error.refusal, detail);
            }
        }
        Ok(())
    }

    async fn ready(&mut self) -> io::Result<()> {
        for (name, value) in self.context.variables.report(&mut self.told) {
            self.wire.put(&ParameterStatus::new(name.into(), value));
        }
        self.wire.put(&ReadyForQuery::new(self.context.block.status()));
        self.wire.flush().await
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.skipping = false;
        if self.context.block.phase() == Phase::Implicit {
            match self.context.commit().await {
                Ok(notice) => notice.iter().for_each(|notice| self.notify(notice)),
                Err(error) => self.tell(error.into()).await?,
            }
        }
        self.end_of_round().await
    }

    /// The server has answered: it is the client's turn.
    async fn end_of_round(&mut self) -> io::Result<()> {
        // A portal lives as long as its transaction.
        if self.context.block.is_idle() {
            self.context.portals.end(true);
        }
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
            self.tell(trouble).await?;
        }
        self.end_of_round().await
    }

    /// A Query's statements: one transaction, unless there is one statement, or none that writes,
    /// or they say otherwise themselves.
    async fn script(&mut self, script: &str) -> Result<(), Trouble> {
        let script = plain_strings(script)?;
        let texts = rota_store::sql::split(&script);
        let understood = texts.into_iter().map(|text| prepare(text, Vec::new()));
        let mut statements: Vec<_> = understood
            .filter(|statement| statement.as_ref().map_or(true, |found| !found.is_empty()))
            .collect();
        let Some(last) = statements.pop() else {
            self.wire.put(&EmptyQueryResponse::new());
            return Ok(());
        };
        let alone = statements.is_empty()
            || !statements.iter().chain([&last]).flatten().any(Prepared::wants_transaction);
        for statement in statements {
            let answer = self.simple(statement, alone).await?;
            self.give(&answer).await?;
        }
        let mut answer = self.simple(last, alone).await?;
        if self.context.block.phase() == Phase::Implicit {
            answer.notices.extend(self.context.commit().await?);
        }
        self.give(&answer).await
    }

    async fn simple(
        &mut self,
        statement: Result<Prepared, Refusal>,
        alone: bool,
    ) -> Result<Answer, Trouble> {
        let statement = self.audible(statement)?;
        if statement.parameters > 0 {
            return Err(Refusal::new("42P02", "there is no parameter $1").into());
        }
        self.run(&statement, Vec::new(), alone).await
    }

    /// Runs a statement for as long as its client is there and does not cancel it.
    async fn run(
        &mut self,
        statement: &Prepared,
        values: Vec<Value>,
        alone: bool,
    ) -> Result<Answer, Trouble> {
        self.context.recognize()?;
        if let Some(copy) = statement.copy() {
            return copy::run(&mut self.wire, &mut self.context, copy, alone).await;
        }
        let cancel = self.context.cancel.clone();
        cancel.reset();
        let running = self.context.run(statement, values, alone);
        Ok(self.wire.watch(&cancel, running).await?)
    }

    /// In a transaction that has failed only its end is heard.
    fn audible(&mut self, statement: Result<Prepared, Refusal>) -> Result<Prepared, Refusal> {
        let failed = self.context.block.is_failed();
        match statement {
            Ok(statement) => {
                self.context.refuse_if_failed(&statement)?;
                Ok(statement)
            }
            Err(refusal) if failed && refusal.code() != sqlstate::SYNTAX_ERROR => Err(aborted()),
            Err(refusal) => Err(refusal),
        }
    }

    /// An answer in the simple protocol, whole and as text.
    async fn give(&mut self, answer: &Answer) -> Result<(), Trouble> {
        if let (Some(rows), Some(columns)) = (&answer.rows, answer.columns()) {
            put_columns(self.wire.output(), &columns, &[]);
            let formats = formats(columns.iter().map(|(_, kind)| *kind), &[])?;
            for row in &rows.rows {
                encode::row(self.wire.output(), row, &formats)?;
                self.wire.relieve().await?;
            }
        }
        self.complete(answer);
        Ok(())
    }

    /// A statement's end: notices and tag.
    fn complete(&mut self, answer: &Answer) {
        answer.notices.iter().for_each(|notice| self.notify(notice));
        self.wire.put(&CommandComplete::new(answer.tag.clone()));
    }

    fn notify(&mut self, notice: &Notice) {
        let fields = fields(notice.severity, notice.code, &notice.message);
        self.wire.put(&NoticeResponse::new(fields));
    }

    async fn extended(&mut self, message: Frontend) -> Result<(), Trouble> {
        match message {
            Frontend::Parse { name, sql, types } => self.parse(name, &sql, types)?,
            Frontend::Bind(bind) => self.bind(bind).await?,
            Frontend::Describe(Target::Statement(name)) => self.describe_statement(&name).await?,
            Frontend::Describe(Target::Portal(name)) => self.describe_portal(&name).await?,
            Frontend::Execute { portal, max_rows } => self.execute(&portal, max_rows).await?,
            Frontend::Close(Target::Statement(name)) => {
                self.context.statements.remove(&name);
                self.wire.put(&CloseComplete::new());
            }
            Frontend::Close(Target::Portal(name)) => {
                self.context.portals.close(&name);
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
        if !name.is_empty() && self.context.statements.contains(&name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Refusal::new("42P05", message));
        }
        let understood = self.context.statements.understand(&name, text, types);
        let prepared = self.audible(understood)?;
        self.context.statements.insert(name, prepared, sql.len())?;
        self.wire.put(&ParseComplete::new());
        Ok(())
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Refusal> {
        let statement = self.context.statements.get(&bind.statement)?;
        self.context.refuse_if_failed(&statement)?;
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
        // What has no type means nothing until the statement says what it expects.
        let mut untyped = bind
            .parameters
            .iter()
            .zip(&binary)
            .enumerate()
            .filter(|(place, _)| statement.parameter_type(*place) == oid::UNSPECIFIED);
        if untyped.any(|(_, (bytes, binary))| {
            bytes.as_ref().is_some_and(|bytes| *binary || encode::wants_type(bytes))
        }) {
            let inferred = self.context.infer_parameters(&statement).await;
            // Text without a type is text: what else is wrong with the statement, running it tells.
            if binary.contains(&true) {
                inferred?;
            }
        }
        let parameters = bind.parameters.iter().zip(binary).enumerate();
        let values = parameters
            .map(|(place, (bytes, binary))| match bytes {
                None => Ok(Value::Null),
                Some(bytes) => encode::parameter(bytes, statement.parameter_type(place), binary),
            })
            .collect::<Result<_, Refusal>>()?;
        let portal = Portal {
            statement,
            values,
            result_formats: bind.result_formats,
            told: None,
            ran: None,
            held: 0,
            no_scroll: false,
            hold: false,
            depth: self.context.block.depth(),
        };
        self.context.portals.insert(bind.portal, portal)?;
        self.wire.put(&BindComplete::new());
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Refusal> {
        let statement = self.context.statements.get(name)?;
        self.context.refuse_if_failed(&statement)?;
        let Described { parameters, columns } = self.context.describe(&statement).await?;
        self.wire.put(&ParameterDescription::new(parameters));
        match columns {
            Some(columns) => put_columns(self.wire.output(), &columns, &[]),
            None => self.wire.put(&NoData::new()),
        }
        Ok(())
    }

    fn portal(&mut self, name: &str) -> Result<&mut Portal, Refusal> {
        self.context.portals.get_mut(name).ok_or_else(|| no_portal(name))
    }

    /// Whether what comes next, the message in hand left out, is a Sync (`before` it these): then a
    /// statement that is in no transaction is one of its own. PostgreSQL answers nothing before a
    /// Flush or a Sync either, so waiting for it keeps nobody waiting.
    async fn alone(&mut self, before: &[u8]) -> io::Result<bool> {
        if !self.context.block.is_idle() {
            return Ok(false);
        }
        for (place, tag) in before.iter().enumerate() {
            if self.wire.ahead(place).await? != Some(*tag) {
                return Ok(false);
            }
        }
        // What is closed before the Sync (sqlx does so) runs nothing.
        for place in (before.len()..).take(CLOSES_BEFORE_SYNC + 1) {
            match self.wire.ahead(place).await? {
                Some(b'C') => {}
                other => return Ok(other == Some(b'S')),
            }
        }
        Ok(false)
    }

    /// Runs a portal's statement, if it has not run yet.
    async fn run_portal(&mut self, name: &str, before_sync: &[u8]) -> Result<(), Trouble> {
        let portal = self.portal(name)?;
        if portal.ran.is_some() {
            return Ok(());
        }
        let values = std::mem::take(&mut portal.values);
        let statement = Shared::clone(&portal.statement);
        let alone = self.alone(before_sync).await?;
        let answer = self.run(&statement, values, alone).await?;
        // COMMIT and DISCARD have closed the portal that they came through.
        if self.context.portals.get(name).is_none() {
            self.complete(&answer);
        } else {
            self.portal(name)?.ran = Some(Ran { answer, place: 0 });
        }
        Ok(())
    }

    /// A read is run right away, so that the values tell the types; a write that gives rows is
    /// described by its words.
    async fn describe_portal(&mut self, name: &str) -> Result<(), Trouble> {
        let portal = self.portal(name)?;
        let statement = Shared::clone(&portal.statement);
        self.context.refuse_if_failed(&statement)?;
        if statement.only_reads() {
            self.run_portal(name, b"E").await?;
        }
        let ran = self.portal(name)?.ran.as_ref();
        let columns = match ran {
            Some(ran) => ran.answer.columns(),
            None => self.context.describe(&statement).await?.columns,
        };
        let Some(columns) = columns else {
            self.wire.put(&NoData::new());
            return Ok(());
        };
        let portal = self.portal(name)?;
        portal.told = Some(columns.iter().map(|(_, kind)| *kind).collect());
        let formats = portal.result_formats.clone();
        put_columns(self.wire.output(), &columns, &formats);
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Trouble> {
        let portal = self.portal(name)?;
        let statement = Shared::clone(&portal.statement);
        if statement.is_empty() {
            self.wire.put(&EmptyQueryResponse::new());
            return Ok(());
        }
        self.context.refuse_if_failed(&statement)?;
        self.run_portal(name, b"").await?;
        let Some(portal) = self.context.portals.get_mut(name) else { return Ok(()) };
        let Some(ran) = &mut portal.ran else { return Ok(()) };
        let mut whole = true;
        if let Some(rows) = &ran.answer.rows {
            let told = portal.told.clone().or_else(|| {
                let told = statement.told()?.columns.as_ref()?;
                Some(told.iter().map(|(_, kind)| *kind).collect())
            });
            let told = told.or_else(|| ran.answer.types.clone());
            let told = told.unwrap_or_else(|| encode::types_of(rows));
            if told.len() != rows.columns.len() {
                return Err(Refusal::new(
                    sqlstate::FEATURE_NOT_SUPPORTED,
                    "cached plan must not change result type",
                )
                .into());
            }
            let formats = formats(told.into_iter(), &portal.result_formats)?;
            let begun = ran.place > 0;
            let rest = rows.rows.get(ran.place..).unwrap_or_default();
            let count = if max_rows == 0 { rest.len() } else { rest.len().min(max_rows) };
            for row in rest.iter().take(count) {
                encode::row(self.wire.output(), row, &formats)?;
                self.wire.relieve().await?;
            }
            ran.place += count;
            whole = ran.place >= rows.rows.len();
            if begun && statement.only_reads() {
                ran.answer.tag = StatementKind::Select.tag(count as u64);
            }
        }
        if whole {
            let answer = std::mem::take(&mut ran.answer);
            // Executed again, a portal that is done gives nothing more.
            ran.answer.tag.clone_from(&answer.tag);
            self.complete(&answer);
        } else {
            self.context.portals.hold(name)?;
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

pub(super) fn put_error(
    output: &mut BytesMut,
    severity: &str,
    refusal: &Refusal,
    detail: Option<String>,
) {
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
