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

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::Message;
use rota_core::error::{Refusal, sqlstate};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest message that is read: a transaction has at most `MAX_ENVELOPE_BYTES`, and this is
/// somewhat more, so that the refusal can come from the one who knows best. Larger messages are
/// skipped and answered with 54000.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// PostgreSQL's own limit. A larger length is no message but garbage, and the connection ends.
const MAX_LENGTH: usize = 1 << 30;

/// The longest start-up packet (PostgreSQL's MAX_STARTUP_PACKET_LENGTH).
const MAX_STARTUP_BYTES: usize = 10_000;

/// Buffers of an idle connection are given back when they have grown beyond this.
const IDLE_BUFFER_BYTES: usize = 16 << 10;

/// Output is sent on when this much has gathered, so that a large result is not held twice.
const OUTPUT_BYTES: usize = 64 << 10;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// What a client sends before it is let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    /// TLS or GSS encryption is asked for.
    Encryption,
    /// Another connection's statement is to be cancelled.
    Cancel,
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
    /// COPY data and the like, which no statement of ours asks for; PostgreSQL ignores them too.
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
    /// A message that was too large and has been skipped.
    TooLarge(u8, usize),
    /// The client is gone.
    Closed,
}

/// A connection's two directions with their buffers.
pub(crate) struct Wire<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
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

    /// The next message.
    pub(crate) async fn next(&mut self) -> io::Result<Result<Incoming, Refusal>> {
        if self.input.is_empty() && self.input.capacity() > IDLE_BUFFER_BYTES {
            self.input = BytesMut::new();
        }
        if !self.fill(5).await? {
            return Ok(Ok(Incoming::Closed));
        }
        let mut header = self.input.get(..5).unwrap_or_default();
        let (Ok(tag), Ok(length)) = (header.try_get_u8(), header.try_get_u32()) else {
            return Ok(Ok(Incoming::Closed));
        };
        let Some(body) = (length as usize).checked_sub(4) else {
            return Ok(Err(violation("a message shorter than its own length")));
        };
        if body > MAX_LENGTH || !tag.is_ascii_alphabetic() {
            return Ok(Err(violation("this is not a message of PostgreSQL's protocol")));
        }
        self.input.advance(5);
        if body > MAX_MESSAGE_BYTES {
            let whole = self.skip(body).await?;
            return Ok(Ok(if whole { Incoming::TooLarge(tag, body) } else { Incoming::Closed }));
        }
        if !self.fill(body).await? {
            return Ok(Ok(Incoming::Closed));
        }
        Ok(Ok(Incoming::Message(tag, self.input.split_to(body).freeze())))
    }

    /// Reads until that many bytes are there; false if the stream ends before.
    async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.input.len() < bytes {
            self.input.reserve(bytes.saturating_sub(self.input.len()).max(4096));
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn skip(&mut self, mut bytes: usize) -> io::Result<bool> {
        loop {
            let there = self.input.len().min(bytes);
            self.input.advance(there);
            bytes = bytes.saturating_sub(there);
            if bytes == 0 {
                return Ok(true);
            }
            self.input.reserve(4096);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(false);
            }
        }
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

    /// Sends what has gathered.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
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
        self.stream.shutdown().await
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
        CANCEL_REQUEST => return Ok(Hello::Cancel),
        SSL_REQUEST | GSSENC_REQUEST => return Ok(Hello::Encryption),
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
