//! COPY between a client and a table: step 1, many rows at a time.
//!
//! ```text
//!  FROM STDIN  CopyInResponse ─► CopyData … CopyDone ─► chunks of whole lines, 1 MB each at most
//!                 in a transaction: each runs on the draft as it comes
//!                 alone: all of them are one write, or a transaction if they are many;
//!                 with rota.copy_batch, one write for so many rows
//!  TO STDOUT   a read ─► CopyOutResponse, a CopyData for each row, CopyDone
//! ```
//!
//! The lines travel as they are, and are taken apart where they are executed
//! (`rota_store::copy`), on a draft and at apply alike. What only this door can read, the binary
//! format and arrays, is made lines of here: see [`translate`].

mod translate;

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::copy::{CopyInResponse, CopyOutResponse};
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{MAX_ENVELOPE_BYTES, Parameters, Settings, Statement, Value};
use rota_store::StatementKind;
use rota_store::copy::{Column, Copy, Direction, Format, Found, Header, Source, Splitter};
use tokio::io::{AsyncRead, AsyncWrite};

use super::block::{aborted, read_only};
use super::context::{Answer, Context};
use super::encode::{self, Type};
use super::session::Trouble;
use super::statement::{Prepared, prepare};
use super::wire::{CopyIncoming, Wire};
use crate::driver::{Cancel, Wait};
use translate::Translator;

/// The most bytes of lines in a statement, and so of one line: no row can be longer either.
const CHUNK_BYTES: usize = 1 << 20;

/// The most bytes of lines in a write that is not run before it is sent; the rest of an envelope is
/// for what is around them.
const WRITE_BYTES: usize = MAX_ENVELOPE_BYTES - (64 << 10);

/// How many rows are committed at a time outside of a transaction; 0: all or none.
pub(crate) const BATCH: &str = "rota.copy_batch";

/// How long a client may keep a COPY waiting for data: longer than a person pastes.
const SILENCE: Duration = Duration::from_secs(300);

/// How often a COPY that waits for data looks whether it has been cancelled.
const LOOK: Duration = Duration::from_millis(200);

/// A name in double quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs a COPY statement, talking to the client about its data. `alone`: nothing else belongs to
/// its transaction, if it is in none.
pub(super) async fn run<S>(
    wire: &mut Wire<S>,
    context: &mut Context,
    copy: &Copy,
    alone: bool,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if context.block.is_failed() {
        return Err(aborted().into());
    }
    context.cancel.reset();
    match copy.direction {
        Direction::Out => give(wire, context, copy, alone).await,
        Direction::In => take(wire, context, copy, alone).await,
    }
}

/// COPY … TO STDOUT.
async fn give<S>(
    wire: &mut Wire<S>,
    context: &mut Context,
    copy: &Copy,
    alone: bool,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let query = selected(context, copy).await?;
    let cancel = context.cancel.clone();
    let answer = wire.watch(&cancel, context.run(&query, Vec::new(), alone)).await?;
    let columns = answer.columns().unwrap_or_default();
    let Some(rows) = answer.rows else {
        let message = "COPY query must have a RETURNING clause";
        return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
    };
    let binary = copy.options.format == Format::Binary;
    let count = columns.len();
    let codes = vec![i16::from(binary); count];
    let width = i16::try_from(count).unwrap_or(i16::MAX);
    wire.put(&CopyOutResponse::new(i8::from(binary), width, codes));
    // Readers want the header in one message with the first row, as PostgreSQL sends it.
    let mut header = if binary { translate::header() } else { BytesMut::new() };
    if copy.options.header != Header::None {
        let names = columns.iter().map(|(name, _)| Some(name.as_str()));
        let mut line = Vec::new();
        put_line(&mut line, names.map(|name| (name, false)), copy);
        put_data(wire.output(), &line);
    }
    let types: Vec<Type> = columns.iter().map(|(_, kind)| *kind).collect();
    let forced: Vec<bool> =
        columns.iter().map(|(name, _)| copy.options.force_quote.has(name)).collect();
    for row in &rows.rows {
        if binary {
            put_tuple(&mut header, row, &types)?;
            put_data(wire.output(), &header.split());
        } else {
            put_data(wire.output(), &line_of(row, &types, &forced, copy));
        }
        wire.relieve().await?;
    }
    if binary {
        header.put_i16(-1);
        put_data(wire.output(), &header);
    }
    // CopyDone.
    wire.output().put_slice(b"c\0\0\0\x04");
    let tag = StatementKind::Copy.tag(rows.rows.len() as u64);
    Ok(Answer { notices: answer.notices, ..Answer::done(tag) })
}

/// What COPY … TO reads.
async fn selected(context: &mut Context, copy: &Copy) -> Result<Prepared, Refusal> {
    let text = match &copy.source {
        Source::Query(query) => query.clone(),
        Source::Table { schema, name, .. } => {
            let columns = columns(context, copy).await?;
            let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
            let names = if names.is_empty() { "*".to_owned() } else { names.join(", ") };
            let schema = schema.as_ref().map_or_else(String::new, |name| quoted(name) + ".");
            format!("SELECT {names} FROM {schema}{}", quoted(name))
        }
    };
    let query = prepare(&text, Vec::new())?;
    if query.parameters > 0 {
        return Err(Refusal::new("42P02", "there is no parameter $1"));
    }
    if !query.only_reads() && !query.writes() {
        return Err(Refusal::new(
            sqlstate::SYNTAX_ERROR,
            "COPY takes a SELECT, VALUES, INSERT, UPDATE or DELETE in its parentheses",
        ));
    }
    Ok(query)
}

/// The columns of COPY's table that its fields are for; none where the table is no table of the
/// users'.
async fn columns(context: &mut Context, copy: &Copy) -> Result<Vec<Column>, Refusal> {
    let Source::Table { schema: None, name, .. } = &copy.source else { return Ok(Vec::new()) };
    let statement = Statement {
        sql: "SELECT name, type, hidden FROM pragma_table_xinfo(?1)".into(),
        parameters: Parameters::Positional(vec![Value::Text(name.clone())]),
    };
    let (inside, outside) = (context.run_options(), context.read_options());
    let rows = match context.block.transaction() {
        Some(transaction) => transaction.look(statement, &inside).await?,
        None => {
            let user = context.variables.user();
            context.driver.read(user, statement, Settings::default(), &outside).await?
        }
    };
    let all: Vec<Column> = rows.rows.into_iter().filter_map(|row| described(&row)).collect();
    if all.is_empty() {
        let message = format!("relation \"{name}\" does not exist");
        return Err(Refusal::new(sqlstate::UNDEFINED_TABLE, message));
    }
    copy.columns(all)
}

fn described(row: &[Value]) -> Option<Column> {
    match row {
        [Value::Text(name), Value::Text(declared), Value::Integer(hidden)] => {
            Some(Column::new(name.clone(), declared, *hidden != 0))
        }
        _ => None,
    }
}

/// Appends a CopyData message.
fn put_data(output: &mut BytesMut, data: &[u8]) {
    output.put_u8(b'd');
    output.put_u32(u32::try_from(data.len().saturating_add(4)).unwrap_or(u32::MAX));
    output.put_slice(data);
}

/// A row as a line.
fn line_of(row: &[Value], types: &[Type], forced: &[bool], copy: &Copy) -> Vec<u8> {
    let mut line = Vec::new();
    let mut texts = Vec::with_capacity(row.len());
    for (value, kind) in row.iter().zip(types) {
        let mut text = BytesMut::new();
        if *value != Value::Null {
            encode::text(&mut text, value, *kind);
        }
        texts.push((*value != Value::Null).then(|| String::from_utf8_lossy(&text).into_owned()));
    }
    put_line(&mut line, texts.iter().map(Option::as_deref).zip(forced.iter().copied()), copy);
    line
}

/// Appends fields, each with whether it is quoted in any case, and the line's end.
fn put_line<'a>(
    line: &mut Vec<u8>,
    fields: impl ExactSizeIterator<Item = (Option<&'a str>, bool)>,
    copy: &Copy,
) {
    let alone = fields.len() == 1;
    for (place, (field, force)) in fields.enumerate() {
        if place > 0 {
            line.push(copy.options.delimiter);
        }
        rota_store::copy::put_field(line, field, &copy.options, force, alone);
    }
    line.push(b'\n');
}

/// Appends a row in binary.
fn put_tuple(tuple: &mut BytesMut, row: &[Value], types: &[Type]) -> Result<(), Refusal> {
    tuple.put_i16(i16::try_from(row.len()).unwrap_or(i16::MAX));
    for (value, kind) in row.iter().zip(types) {
        encode::field(tuple, value, encode::Format { kind: *kind, binary: true })?;
    }
    Ok(())
}

/// COPY … FROM STDIN.
async fn take<S>(
    wire: &mut Wire<S>,
    context: &mut Context,
    copy: &Copy,
    alone: bool,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let only_reads = if context.block.is_idle() {
        context.variables.meaning().read_only
    } else {
        context.block.is_read_only()
    };
    if only_reads {
        return Err(read_only("COPY FROM").into());
    }
    if !alone {
        context.enter()?;
    }
    let columns = columns(context, copy).await?;
    if columns.is_empty() {
        let message = format!("relation \"{}\" is no table to copy to", copy.table());
        return Err(Refusal::new(sqlstate::UNDEFINED_TABLE, message).into());
    }
    let mut input = Input::new(copy, &columns);
    let mut load = Load::new(context, input.copy.clone());
    let binary = copy.options.format == Format::Binary;
    let width = i16::try_from(columns.len()).unwrap_or(i16::MAX);
    let codes = vec![i16::from(binary); columns.len()];
    wire.put(&CopyInResponse::new(i8::from(binary), width, codes));
    wire.flush().await?;
    let cancel = context.cancel.clone();
    let deadline = context.run_options().deadline;
    loop {
        let came = heard(wire, &cancel, deadline).await?;
        let whole = came.is_none();
        if let Some(bytes) = came {
            input.push(&bytes)?;
        } else {
            input.end()?;
        }
        while let Some(chunk) = input.lines.full(CHUNK_BYTES, load.room())? {
            wire.watch(&cancel, load.take(context, chunk)).await?;
        }
        if whole {
            break;
        }
    }
    if let Some(chunk) = input.lines.rest() {
        wire.watch(&cancel, load.take(context, chunk)).await?;
    }
    wire.watch(&cancel, load.finish(context)).await
}

/// The next data, or `None` at their end.
async fn heard<S>(
    wire: &mut Wire<S>,
    cancel: &Cancel,
    deadline: Option<Instant>,
) -> Result<Option<Bytes>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let since = Instant::now();
    let canceled = |why: &str| Refusal::new(sqlstate::QUERY_CANCELED, why);
    let incoming = loop {
        if cancel.flag().load(Ordering::Relaxed) {
            return Err(canceled("canceling statement due to user request").into());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(canceled("canceling statement due to statement timeout").into());
        }
        if since.elapsed() >= SILENCE {
            return Err(canceled("COPY from stdin failed: no data came for too long").into());
        }
        if let Ok(incoming) = tokio::time::timeout(LOOK, wire.next_copy()).await {
            break incoming??;
        }
    };
    match incoming {
        CopyIncoming::Data(bytes) => Ok(Some(bytes)),
        CopyIncoming::Done => Ok(None),
        CopyIncoming::Fail(why) => Err(canceled(&format!("COPY from stdin failed: {why}")).into()),
        CopyIncoming::Closed => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        CopyIncoming::Other(tag) => Err(Refusal::new(
            sqlstate::PROTOCOL_VIOLATION,
            format!("unexpected message {:?} during COPY from stdin", char::from(tag)),
        )
        .into()),
    }
}

/// What comes from the client, as lines that the store reads.
struct Input {
    /// The statement for these lines.
    copy: Copy,
    /// What the client's format is made lines with, where the store does not read it itself.
    translator: Option<Translator>,
    lines: Splitter,
}

impl Input {
    fn new(copy: &Copy, columns: &[Column]) -> Self {
        let translator = Translator::new(copy, columns);
        let copy = translator.as_ref().map_or_else(|| copy.clone(), Translator::copy);
        let lines = Splitter::new(&copy.options);
        Self { copy, translator, lines }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match &mut self.translator {
            None => self.lines.push(bytes),
            Some(translator) => {
                let lines = translator.push(bytes, CHUNK_BYTES)?;
                self.lines.push(&lines);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        if let Some(translator) = &mut self.translator {
            let lines = translator.end()?;
            self.lines.push(&lines);
        }
        Ok(())
    }
}

/// Rows on their way into the table.
struct Load {
    copy: Copy,
    /// Whether each chunk runs at once, in the transaction that the session is in.
    inside: bool,
    /// How many rows are committed at a time; 0: all.
    batch: u64,
    /// What waits to be written.
    held: Vec<Statement>,
    held_bytes: usize,
    held_rows: u64,
    /// Rows that are in the table.
    rows: u64,
    /// Of these, how many are committed.
    committed: u64,
    answer: Answer,
}

impl Load {
    fn new(context: &Context, copy: Copy) -> Self {
        let batch = context.variables.get(BATCH).ok().and_then(|rows| rows.parse().ok());
        Self {
            copy,
            inside: !context.block.is_idle(),
            batch: batch.unwrap_or(0),
            held: Vec::new(),
            held_bytes: 0,
            held_rows: 0,
            rows: 0,
            committed: 0,
            answer: Answer::default(),
        }
    }

    /// How many rows the next chunk may have.
    fn room(&self) -> u64 {
        if self.inside || self.batch == 0 {
            return u64::MAX;
        }
        self.batch.saturating_sub(self.held_rows).max(1)
    }

    /// Takes a chunk of lines.
    async fn take(&mut self, context: &mut Context, chunk: Found) -> Result<(), Trouble> {
        let Found { lines, first_line, rows } = chunk;
        let header = self.copy.options.header != Header::None;
        let (bytes, rows) = (lines.len(), rows.saturating_sub(u64::from(header)));
        self.copy.options.first_line = first_line;
        let statement = self.copy.statement(lines);
        // Only the first line of all can be a header.
        self.copy.options.header = Header::None;
        if self.held_bytes.saturating_add(bytes) > WRITE_BYTES && !self.inside {
            if self.batch == 0 {
                self.go_inside(context).await?;
            } else {
                self.write(context).await?;
            }
        }
        if self.inside {
            return self.run(context, statement).await;
        }
        self.held.push(statement);
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        self.held_rows = self.held_rows.saturating_add(rows);
        if self.batch > 0 && self.held_rows >= self.batch {
            self.write(context).await?;
        }
        Ok(())
    }

    /// Too much for one write: a transaction, then, which ends with what the client sent.
    async fn go_inside(&mut self, context: &mut Context) -> Result<(), Trouble> {
        context.enter()?;
        self.inside = true;
        for statement in std::mem::take(&mut self.held) {
            self.run(context, statement).await?;
        }
        Ok(())
    }

    async fn run(&mut self, context: &mut Context, statement: Statement) -> Result<(), Trouble> {
        let options = context.run_options();
        let transaction = context.block.used().ok_or_else(aborted)?;
        let result = transaction.run(statement, &options).await.map_err(with_advice)?;
        self.rows = self.rows.saturating_add(result.rows_affected);
        Ok(())
    }

    async fn finish(&mut self, context: &mut Context) -> Result<Answer, Trouble> {
        self.write(context).await?;
        self.answer.tag = StatementKind::Copy.tag(self.rows);
        Ok(std::mem::take(&mut self.answer))
    }

    /// Writes what is held, as one transaction.
    async fn write(&mut self, context: &mut Context) -> Result<(), Trouble> {
        if self.held.is_empty() {
            return Ok(());
        }
        let options = context.write_options();
        let statements = std::mem::take(&mut self.held);
        let (rows, committed) = (std::mem::take(&mut self.held_rows), self.committed);
        self.held_bytes = 0;
        let (user, settings) = (context.variables.user(), Settings::default());
        let write = context.driver.write(user, statements, settings, &options);
        let written = write.await.map_err(|mut error| {
            error.refusal = with_advice(error.refusal);
            if committed > 0 {
                let before = format!("; the {committed} rows before were committed");
                error.refusal.message.push_str(&before);
            }
            error
        })?;
        self.answer.notices.extend(context.note(&written, options.wait));
        let counted = written.results.iter().map(|result| result.rows_affected).sum();
        let rows = if options.wait == Wait::Final { counted } else { rows };
        self.rows = self.rows.saturating_add(rows);
        self.committed = self.rows;
        Ok(())
    }
}

/// What to do about a load that is too much for one transaction.
fn with_advice(refusal: Refusal) -> Refusal {
    if !matches!(refusal.code(), sqlstate::TOO_COMPLEX | sqlstate::STATEMENT_TOO_COMPLEX) {
        return refusal;
    }
    let message = format!(
        "{}: to load more than a transaction may do, SET {BATCH} = 10000 outside of BEGIN … \
         COMMIT, which commits after so many rows",
        refusal.message
    );
    Refusal { message, ..refusal }
}
