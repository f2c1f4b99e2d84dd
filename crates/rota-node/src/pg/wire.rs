//! PostgreSQL's messages as bytes: frames in, messages out. Step 1 of a transaction's life, its
//! first bytes.
//!
//! ```text
//!   start-up:   length(4) code(4) ...            then:   tag(1) length(4) body
//! ```
//!
//! Encoding is the `pgwire` crate's. Decoding is our own, because that crate trusts the counts
//! inside a message and panics where they lie; here every byte is taken through [`Body`], which can
//! only say "too short".
//!
//! Time is bounded too: what a client begins to send it must finish, and what it is sent it must
//! take ([`Limits`]).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::Message;
use rota_core::error::{Refusal, sqlstate};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::driver::Cancel;

/// The largest message that is read: a transaction has at most `MAX_ENVELOPE_BYTES`, and this is
/// somewhat more, so that the refusal can come from the one who knows best. Larger messages are
/// skipped and answered with 54000.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A tag and a length.
const HEADER_BYTES: usize = 5;

/// PostgreSQL's own limit. A larger length is no message but garbage, and the connection ends.
const MAX_LENGTH: usize = 1 << 30;

/// The longest start-up packet (PostgreSQL's MAX_STARTUP_PACKET_LENGTH).
const MAX_STARTUP_BYTES: usize = 10_000;

/// The longest message of a log-in (PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH).
const MAX_SASL_BYTES: usize = 1_024;

/// Buffers of an idle connection are given back when they have grown beyond this.
const IDLE_BUFFER_BYTES: usize = 16 << 10;

/// Output is sent on when this much has gathered, so that a large result is not held twice.
const OUTPUT_BYTES: usize = 64 << 10;

/// How long a client may say nothing between two messages: longer than a working day's night, so
/// that pools keep their connections, but not for ever.
const IDLE_TIME: Duration = Duration::from_secs(24 * 3600);

/// How long a client may take for a message that it has begun, beside the time that its bytes take
/// at [`SLOWEST_BYTES_PER_SECOND`].
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// How long a client may take for what it is sent, beside the same. Longer: programs work on rows
/// while they read them, and nothing else waits for them.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// A mobile phone's network in a bad place.
const SLOWEST_BYTES_PER_SECOND: u64 = 4_096;

/// What is read ahead while a statement runs, to notice that the client has gone.
const AHEAD_BYTES: usize = 64 << 10;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// What a client sends before it is let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// TLS is asked for.
    Tls,
    /// Encryption by GSSAPI is asked for.
    Gss,
    /// Another connection's statement is to be cancelled.
    Cancel {
        /// That connection's number,
        process: i32,
        /// and its secret.
        secret: i32,
    },
    /// Protocol version and parameters.
    Startup { major: u16, minor: u16, parameters: Vec<(String, String)> },
}

/// What a client sends afterwards.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target),
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close(Target),
    Sync,
    Flush,
    Terminate,
    /// COPY's data after their statement has failed; PostgreSQL ignores them too.
    Ignored,
}

/// A Bind message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) portal: String,
    pub(crate) statement: String,
    pub(crate) formats: Vec<i16>,
    pub(crate) parameters: Vec<Option<Bytes>>,
    pub(crate) result_formats: Vec<i16>,
}

/// What Describe and Close are about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(String),
    Portal(String),
}

/// What came next on a connection.
pub(crate) enum Incoming {
    /// A whole message.
    Message(u8, Bytes),
    /// A message that is too large; what comes of it is skipped.
    TooLarge(u8, usize),
    /// The client is gone.
    Closed,
}

/// What came next while COPY's data are awaited.
pub(crate) enum CopyIncoming {
    /// Some of the data: the cuts between pieces mean nothing.
    Data(Bytes),
    /// There are no more.
    Done,
    /// The client has given up, and says why.
    Fail(String),
    /// A message that ends COPY with an error.
    Other(u8),
    /// The client is gone.
    Closed,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Between two messages.
    pub(crate) idle: Duration,
    /// For a message that it has begun.
    pub(crate) message: Duration,
    /// For what it is sent.
    pub(crate) answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: IDLE_TIME, message: MESSAGE_TIME, answer: ANSWER_TIME }
    }
}

/// The time for so many bytes.
fn time_for(least: Duration, bytes: usize) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    least.saturating_add(Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND))
}

/// A connection's two directions with their buffers.
pub(crate) struct Wire<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    limits: Limits,
    /// When the message that comes now has begun, and how many bytes it is.
    begun: Option<(Instant, usize)>,
    /// Bytes of a message that are still to come, and to be taken in pieces or skipped.
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self::with_limits(stream, Limits::default())
    }

    pub(crate) fn with_limits(stream: S, limits: Limits) -> Self {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { stream, input, output, limits, begun: None, left: 0 }
    }

    /// The next start-up packet, or `None` when the client is gone.
    pub(crate) async fn hello(&mut self) -> io::Result<Option<Result<Hello, Refusal>>> {
        if !self.fill(4).await? {
            return Ok(None);
        }
        let length = self.input.get(..4).and_then(|mut bytes| bytes.try_get_u32().ok());
        let length = length.unwrap_or(0) as usize;
        if !(8..=MAX_STARTUP_BYTES).contains(&length) {
            return Ok(Some(Err(violation("this is not PostgreSQL's protocol"))));
        }
        if !self.fill(length).await? {
            return Ok(None);
        }
        let mut packet = self.input.split_to(length).freeze();
        packet.advance(4);
        Ok(Some(decode_hello(packet)))
    }

    /// The next message of a log-in. `None` when the client is gone: many ask for the password
    /// only now, and come again.
    pub(crate) async fn sasl(&mut self) -> io::Result<Option<Result<Bytes, Refusal>>> {
        let read = match self.header().await? {
            Ok(Some((b'p', body))) if body <= MAX_SASL_BYTES => {
                if !self.fill(body.saturating_add(HEADER_BYTES)).await? {
                    return Ok(None);
                }
                self.begun = None;
                self.input.advance(HEADER_BYTES);
                Ok(self.input.split_to(body).freeze())
            }
            Ok(Some((b'X', _)) | None) => return Ok(None),
            Ok(Some((b'p', _))) => Err(violation("a password's message is too long")),
            Ok(Some((tag, _))) => {
                let tag = char::from(tag);
                Err(violation(format!("a password is expected, and not a message {tag:?}")))
            }
            Err(refusal) => Err(refusal),
        };
        Ok(Some(read))
    }

    /// The stream itself, unless something has been read of what comes next: then the client, or
    /// somebody on the way to it, has sent in clear what was to be encrypted (CVE-2021-23222).
    pub(crate) fn into_stream(self) -> Result<S, Box<Self>> {
        let is_quiet = self.input.is_empty() && self.output.is_empty();
        if is_quiet { Ok(self.stream) } else { Err(Box::new(self)) }
    }

    /// The stream.
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The next message. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> io::Result<Result<Incoming, Refusal>> {
        let read = self.message().await;
        self.in_time(read)
    }

    /// What comes next after COPY … FROM STDIN has begun: data in pieces, however long their
    /// messages are.
    pub(crate) async fn next_copy(&mut self) -> io::Result<Result<CopyIncoming, Refusal>> {
        let read = self.copy_piece().await;
        self.in_time(read)
    }

    async fn message(&mut self) -> io::Result<Result<Incoming, Refusal>> {
        let (tag, body) = match self.header().await? {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Ok(Incoming::Closed)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        if body > MAX_MESSAGE_BYTES {
            self.begin_pieces(body);
            return Ok(Ok(Incoming::TooLarge(tag, body)));
        }
        if !self.fill(body.saturating_add(HEADER_BYTES)).await? {
            return Ok(Ok(Incoming::Closed));
        }
        self.begun = None;
        self.input.advance(HEADER_BYTES);
        Ok(Ok(Incoming::Message(tag, self.input.split_to(body).freeze())))
    }

    async fn copy_piece(&mut self) -> io::Result<Result<CopyIncoming, Refusal>> {
        loop {
            if self.left > 0 {
                if !self.fill(1).await? {
                    return Ok(Ok(CopyIncoming::Closed));
                }
                let there = self.input.len().min(self.left);
                self.took(there);
                return Ok(Ok(CopyIncoming::Data(self.input.split_to(there).freeze())));
            }
            let (tag, body) = match self.header().await? {
                Ok(Some(header)) => header,
                Ok(None) => return Ok(Ok(CopyIncoming::Closed)),
                Err(refusal) => return Ok(Err(refusal)),
            };
            if tag == b'd' {
                self.begin_pieces(body);
                continue;
            }
            let text = body.min(MAX_MESSAGE_BYTES);
            if !self.fill(text.saturating_add(HEADER_BYTES)).await? {
                return Ok(Ok(CopyIncoming::Closed));
            }
            self.begin_pieces(body);
            self.took(text);
            let text = self.input.split_to(text);
            return Ok(Ok(match tag {
                // Clients send them without noticing that a COPY has begun; PostgreSQL goes on,
                // too.
                b'H' | b'S' => continue,
                b'c' => CopyIncoming::Done,
                b'f' => {
                    let why = String::from_utf8_lossy(&text);
                    CopyIncoming::Fail(why.trim_end_matches('\0').to_owned())
                }
                other => CopyIncoming::Other(other),
            }));
        }
    }

    /// Waits for something that runs for the client. When the client goes meanwhile, that is called
    /// off. What the client sends meanwhile is kept.
    pub(crate) async fn watch<T>(
        &mut self,
        cancel: &Cancel,
        running: impl Future<Output = T>,
    ) -> T {
        let mut running = pin!(running);
        tokio::select! {
            biased;
            output = &mut running => return output,
            () = self.gone() => cancel.cancel(),
        }
        running.await
    }

    /// Returns when the client has gone, if that can be told.
    async fn gone(&mut self) {
        while self.input.len() < AHEAD_BYTES {
            self.input.reserve(4096);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Makes an answer of time that has run out.
    fn in_time<T>(&self, read: io::Result<Result<T, Refusal>>) -> io::Result<Result<T, Refusal>> {
        match read {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let (code, message) = if self.begun.is_some() {
                    ("08006", "a message was begun and not finished in time")
                } else {
                    ("57P05", "terminating connection due to idle-session timeout")
                };
                Ok(Err(Refusal::new(code, message)))
            }
            other => other,
        }
    }

    /// Tag and length of the next message's body, which stay in the input. `None`: the client is
    /// gone.
    async fn header(&mut self) -> io::Result<Result<Option<(u8, usize)>, Refusal>> {
        while self.left > 0 {
            if !self.fill(1).await? {
                return Ok(Ok(None));
            }
            let there = self.input.len().min(self.left);
            self.input.advance(there);
            self.took(there);
        }
        if self.input.is_empty() && self.input.capacity() > IDLE_BUFFER_BYTES {
            self.input = BytesMut::new();
        }
        if self.input.is_empty() && !timeout(self.limits.idle, self.fill(1)).await?? {
            return Ok(Ok(None));
        }
        self.begun.get_or_insert_with(|| (Instant::now(), HEADER_BYTES));
        if !self.fill(HEADER_BYTES).await? {
            return Ok(Ok(None));
        }
        let mut header = self.input.get(..HEADER_BYTES).unwrap_or_default();
        let (Ok(tag), Ok(length)) = (header.try_get_u8(), header.try_get_u32()) else {
            return Ok(Ok(None));
        };
        let Some(body) = (length as usize).checked_sub(4) else {
            return Ok(Err(violation("a message shorter than its own length")));
        };
        if body > MAX_LENGTH || !tag.is_ascii_alphabetic() {
            return Ok(Err(violation("this is not a message of PostgreSQL's protocol")));
        }
        if let Some((_, bytes)) = &mut self.begun {
            *bytes = body;
        }
        Ok(Ok(Some((tag, body))))
    }

    /// Takes the header of a message whose body is taken in pieces or skipped.
    fn begin_pieces(&mut self, body: usize) {
        self.input.advance(HEADER_BYTES);
        self.left = body;
        self.took(0);
    }

    /// So many bytes of the message were taken.
    fn took(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            self.begun = None;
        }
    }

    /// The tag of the message that comes after `skip` others, none of which is taken: waits until
    /// it is there. `None` when the client is gone, or when what comes is too large to wait for.
    pub(crate) async fn ahead(&mut self, skip: usize) -> io::Result<Option<u8>> {
        timeout(self.limits.idle, self.look_ahead(skip)).await?
    }

    async fn look_ahead(&mut self, skip: usize) -> io::Result<Option<u8>> {
        let mut at = 0_usize;
        for _ in 0..skip {
            if !self.fill(at.saturating_add(5)).await? {
                return Ok(None);
            }
            let mut length = self.input.get(at.saturating_add(1)..).unwrap_or_default();
            let Ok(length) = length.try_get_u32() else { return Ok(None) };
            at = at.saturating_add(length as usize).saturating_add(1);
            if at > MAX_MESSAGE_BYTES {
                return Ok(None);
            }
        }
        if !self.fill(at.saturating_add(1)).await? {
            return Ok(None);
        }
        Ok(self.input.get(at).copied())
    }

    /// Reads until that many bytes are there; false if the stream ends before.
    async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.input.len() < bytes {
            self.input.reserve(bytes.saturating_sub(self.input.len()).max(4096));
            let read = self.stream.read_buf(&mut self.input);
            let read = match self.begun {
                Some((begun, bytes)) => {
                    let until = begun.checked_add(time_for(self.limits.message, bytes));
                    timeout_at(until.unwrap_or(begun), read).await??
                }
                None => read.await?,
            };
            if read == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where messages are written; they leave with [`Wire::flush`].
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Puts a message of `pgwire`'s into the output.
    pub(crate) fn put(&mut self, message: &impl Message) {
        put(&mut self.output, message);
    }

    /// Sends what has gathered if it is much.
    pub(crate) async fn relieve(&mut self) -> io::Result<()> {
        if self.output.len() >= OUTPUT_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends what has gathered. A client that does not take it in time is given up.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let most = time_for(self.limits.answer, self.output.len());
        let sending = async {
            self.stream.write_all(&self.output).await?;
            // TLS keeps what the network did not take.
            self.stream.flush().await
        };
        timeout(most, sending).await??;
        self.output.clear();
        if self.output.capacity() > OUTPUT_BYTES.saturating_mul(2) {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Says goodbye: what has gathered is sent and the sending side closed, so that a client that
    /// is still sending gets the answer rather than a reset.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        timeout(self.limits.message, self.stream.shutdown()).await?
    }
}

/// Puts a message of `pgwire`'s into a buffer.
pub(crate) fn put(output: &mut BytesMut, message: &impl Message) {
    let before = output.len();
    if let Err(error) = message.encode(output) {
        // Only a message longer than the crate allows; ours are bounded well below.
        output.truncate(before);
        tracing::error!(%error, "a message to a PostgreSQL client could not be encoded");
    }
}

fn decode_hello(packet: Bytes) -> Result<Hello, Refusal> {
    let mut body = Body(packet);
    let code = body.u32()?;
    match code {
        CANCEL_REQUEST => {
            let (process, secret) = (body.u32()?.cast_signed(), body.u32()?.cast_signed());
            return Ok(Hello::Cancel { process, secret });
        }
        SSL_REQUEST => return Ok(Hello::Tls),
        GSSENC_REQUEST => return Ok(Hello::Gss),
        _ => {}
    }
    let mut parameters = Vec::new();
    loop {
        let name = body.text()?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, body.text()?));
    }
    Ok(Hello::Startup { major: (code >> 16) as u16, minor: (code & 0xffff) as u16, parameters })
}

/// Reads a log-in's first message: the mechanism, and what the client says by it.
pub(crate) fn decode_sasl(body: Bytes) -> Result<(String, Bytes), Refusal> {
    let mut body = Body(body);
    let mechanism = body.text()?;
    let said = body.value()?.ok_or_else(|| violation("a log-in begins with the client"))?;
    if body.0.is_empty() {
        Ok((mechanism, said))
    } else {
        Err(violation("bytes after a message's end"))
    }
}

/// Reads a message's body.
pub(crate) fn decode(tag: u8, body: Bytes) -> Result<Frontend, Refusal> {
    let mut body = Body(body);
    let message = match tag {
        b'Q' => Frontend::Query(body.text()?),
        b'P' => {
            let (name, sql) = (body.text()?, body.text()?);
            let types = body.list(4, Body::u32)?;
            Frontend::Parse { name, sql, types }
        }
        b'B' => Frontend::Bind(Bind {
            portal: body.text()?,
            statement: body.text()?,
            formats: body.list(2, Body::i16)?,
            parameters: body.list(4, Body::value)?,
            result_formats: body.list(2, Body::i16)?,
        }),
        b'D' => Frontend::Describe(body.target()?),
        b'C' => Frontend::Close(body.target()?),
        b'E' => Frontend::Execute { portal: body.text()?, max_rows: body.u32()? as usize },
        b'S' => Frontend::Sync,
        b'H' => Frontend::Flush,
        b'X' => Frontend::Terminate,
        b'd' | b'c' | b'f' => return Ok(Frontend::Ignored),
        other => {
            return Err(violation(format!("no message has the tag {:?}", char::from(other))));
        }
    };
    if body.0.is_empty() { Ok(message) } else { Err(violation("bytes after a message's end")) }
}

/// Takes a body apart; every step may find it too short.
struct Body(Bytes);

impl Body {
    fn u32(&mut self) -> Result<u32, Refusal> {
        self.0.try_get_u32().map_err(|_| short())
    }

    fn i16(&mut self) -> Result<i16, Refusal> {
        self.0.try_get_i16().map_err(|_| short())
    }

    fn take(&mut self, bytes: usize) -> Result<Bytes, Refusal> {
        if bytes > self.0.len() { Err(short()) } else { Ok(self.0.split_to(bytes)) }
    }

    /// Text that ends with a zero byte.
    fn text(&mut self) -> Result<String, Refusal> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or_else(short)?;
        let bytes = self.take(end)?;
        self.take(1)?;
        String::from_utf8(bytes.into()).map_err(|_| {
            Refusal::new("22021", "text that is not UTF-8: set the client's encoding to UTF8")
        })
    }

    /// A count and as many elements of at least `size` bytes each.
    fn list<T>(
        &mut self,
        size: usize,
        element: impl Fn(&mut Self) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let count = usize::from(self.0.try_get_u16().map_err(|_| short())?);
        if count.saturating_mul(size) > self.0.len() {
            return Err(short());
        }
        (0..count).map(|_| element(self)).collect()
    }

    /// A length and as many bytes; −1 is NULL.
    fn value(&mut self) -> Result<Option<Bytes>, Refusal> {
        match self.u32()? {
            u32::MAX => Ok(None),
            length => self.take(length as usize).map(Some),
        }
    }

    fn target(&mut self) -> Result<Target, Refusal> {
        match self.0.try_get_u8() {
            Ok(b'S') => self.text().map(Target::Statement),
            Ok(b'P') => self.text().map(Target::Portal),
            _ => Err(violation("neither a statement nor a portal")),
        }
    }
}

fn short() -> Refusal {
    violation("a message that ends too early")
}

fn violation(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every beginning of a message, and every message with one byte changed, is read or refused,
    /// never more.
    #[test]
    fn no_bytes_panic_the_decoder() {
        let bind = b"portal\0statement\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01";
        for tag in 0..=255u8 {
            for cut in 0..=bind.len() {
                let _ = decode(tag, Bytes::copy_from_slice(&bind[..cut]));
            }
            for place in 0..bind.len() {
                let mut changed = bind.to_vec();
                changed[place] ^= 0xff;
                let _ = decode(tag, changed.into());
            }
        }
        let Ok(Frontend::Bind(bind)) = decode(b'B', Bytes::from_static(bind)) else {
            panic!("the unchanged message is read");
        };
        assert_eq!(bind.parameters, [Some(Bytes::from_static(b"ab")), None]);
        assert_eq!(bind.result_formats, [1]);
    }

    #[test]
    fn counts_that_lie_are_refused_before_anything_is_allocated() {
        let refused = decode(b'P', Bytes::from_static(b"\0SELECT 1\0\xff\xff")).unwrap_err();
        assert_eq!(refused.code(), "08P01");
        assert!(decode(b'S', Bytes::from_static(b"x")).is_err());
    }

    #[tokio::test]
    async fn a_log_ins_messages_are_short_and_nothing_else_is_heard_before() {
        let first = b"p\0\0\0\x1bSCRAM-SHA-256\0\0\0\0\x05n,,n=";
        let mut wire = Wire::new(tokio_test_stream(first));
        let message = wire.sasl().await.unwrap().unwrap().unwrap();
        let (mechanism, said) = decode_sasl(message.clone()).unwrap();
        assert_eq!((mechanism.as_str(), &said[..]), ("SCRAM-SHA-256", &b"n,,n="[..]));
        for cut in 0..message.len() {
            assert!(decode_sasl(message.slice(..cut)).is_err(), "{cut}");
        }
        for refused in [&b"p\0\0\x04\x05"[..], b"Q\0\0\0\x05\0", b"p\0\0\0\x03"] {
            let mut wire = Wire::new(tokio_test_stream(refused));
            assert!(matches!(wire.sasl().await.unwrap(), Some(Err(_))), "{refused:?}");
        }
        let mut wire = Wire::new(tokio_test_stream(b"X\0\0\0\x04"));
        assert!(wire.sasl().await.unwrap().is_none(), "it comes again with a password");
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_skipped_and_the_next_one_read() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut wire = Wire::new(server);
        let sender = tokio::spawn(async move {
            let size = MAX_MESSAGE_BYTES + 1;
            client.write_all(b"Q").await.unwrap();
            client.write_u32(size as u32 + 4).await.unwrap();
            client.write_all(&vec![b'x'; size]).await.unwrap();
            client.write_all(b"S\0\0\0\x04").await.unwrap();
            client
        });
        assert!(matches!(wire.next().await.unwrap(), Ok(Incoming::TooLarge(b'Q', _))));
        assert!(matches!(wire.next().await.unwrap(), Ok(Incoming::Message(b'S', _))));
        drop(sender.await.unwrap());
        assert!(matches!(wire.next().await.unwrap(), Ok(Incoming::Closed)));
    }

    /// Times that run out at once, but for the one that a test is about.
    const HASTE: Limits = Limits {
        idle: Duration::from_millis(1),
        message: Duration::from_millis(1),
        answer: Duration::from_millis(1),
    };

    async fn refused(limits: Limits, begins: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(1 << 12);
        client.write_all(begins).await.unwrap();
        let refusal = Wire::with_limits(server, limits).next().await.unwrap().err();
        refusal.map_or_else(String::new, |refusal| refusal.code().to_owned())
    }

    #[tokio::test]
    async fn a_message_that_is_begun_must_be_finished() {
        let patient = Limits { idle: IDLE_TIME, ..HASTE };
        for begins in [&b"Q"[..], b"Q\0\0\0\x09SEL"] {
            assert_eq!(refused(patient, begins).await, "08006");
        }
        assert_eq!(refused(HASTE, b"").await, "57P05");
        assert_eq!(refused(patient, b"S\0\0\0\x04").await, "");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_is_given_up() {
        let (_client, server) = tokio::io::duplex(16);
        let mut wire = Wire::with_limits(server, HASTE);
        wire.output().extend_from_slice(&[0; 100]);
        assert_eq!(wire.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_runs_for_a_client_that_goes_is_called_off() {
        use std::sync::atomic::Ordering;
        let (client, server) = tokio::io::duplex(1 << 12);
        let mut wire = Wire::new(server);
        let cancel = Cancel::default();
        let flag = cancel.flag();
        let running = async {
            drop(client);
            while !flag.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            "called off"
        };
        assert_eq!(wire.watch(&cancel, running).await, "called off");
    }

    #[tokio::test]
    async fn what_is_sent_while_a_statement_runs_is_read_after_it() {
        let (mut client, server) = tokio::io::duplex(1 << 12);
        let mut wire = Wire::new(server);
        client.write_all(b"S\0\0\0\x04").await.unwrap();
        let cancel = Cancel::default();
        wire.watch(&cancel, tokio::task::yield_now()).await;
        assert!(matches!(wire.next().await.unwrap(), Ok(Incoming::Message(b'S', _))));
    }

    #[tokio::test]
    async fn copys_data_come_in_pieces_and_what_is_left_of_them_is_skipped() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut wire = Wire::new(server);
        let sender = tokio::spawn(async move {
            client.write_all(b"d\0\0\0\x04H\0\0\0\x04d\0\0\x03\xec").await.unwrap();
            client.write_all(&[b'x'; 1000]).await.unwrap();
            client.write_all(b"f\0\0\0\x07no\0d\0\0\0\x05yS\0\0\0\x04").await.unwrap();
            client
        });
        let mut bytes = 0;
        loop {
            match wire.next_copy().await.unwrap().unwrap() {
                CopyIncoming::Data(piece) => bytes += piece.len(),
                CopyIncoming::Fail(why) => break assert_eq!(why, "no"),
                _ => panic!("neither data nor their end"),
            }
        }
        assert_eq!(bytes, 1000);
        assert!(matches!(wire.next_copy().await.unwrap(), Ok(CopyIncoming::Data(_))));
        assert!(matches!(wire.next().await.unwrap(), Ok(Incoming::Message(b'S', _))));
        drop(sender);
    }

    #[tokio::test]
    async fn garbage_instead_of_a_start_up_packet_is_refused() {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 8], &[0xff; 64]] {
            let mut wire = Wire::new(tokio_test_stream(garbage));
            let hello = wire.hello().await.unwrap();
            assert!(matches!(hello, Some(Err(_))), "{garbage:?}");
        }
    }

    fn tokio_test_stream(bytes: &[u8]) -> tokio::io::DuplexStream {
        let (mut client, server) = tokio::io::duplex(1 << 12);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { client.write_all(&bytes).await });
        server
    }
}
