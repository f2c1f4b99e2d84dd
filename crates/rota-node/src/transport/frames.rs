//! Messages as bytes on a stream: a length of four bytes, little-endian, and the canonical encoding
//! of the message.

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rota_core::codec::{decode, encode};
use rota_core::error::Invalid;
use rota_core::message::{MAX_MESSAGE_BYTES, Message};

use super::links::Kind;
use super::outbox::Outbox;

/// The largest message on a votes stream: a certificate of the most members that there can be, at
/// 82 bytes a vote, is 21 KB.
pub const MAX_VOTES_BYTES: usize = 64 << 10;

/// How a stream came to its end.
#[derive(Debug)]
pub enum End {
    /// The connection is gone, or the other side closed the stream.
    Closed,
    /// The peer sent what an honest server would not.
    Invalid(Invalid),
}

/// On which stream a message travels.
pub fn kind(message: &Message) -> Kind {
    match message {
        Message::Vote(_)
        | Message::Certificate(_)
        | Message::Fetch(_)
        | Message::FinalizingWhat { .. }
        | Message::Finalizing { .. } => Kind::Votes,
        Message::Envelopes(_)
        | Message::PassedOn(_)
        | Message::Proposal(_)
        | Message::Final(_)
        | Message::Pending(_)
        | Message::Mined(_)
        | Message::Proofs(_)
        | Message::Offer(_)
        | Message::Chunk { .. } => Kind::Blocks,
        // Elections and acknowledgements do not wait behind blocks; `raft` puts them in order.
        Message::Raft(message) if message.entries.is_empty() => Kind::Votes,
        Message::Raft(_) => Kind::Blocks,
    }
}

fn limit(kind: Kind) -> usize {
    match kind {
        Kind::Votes => MAX_VOTES_BYTES,
        Kind::Blocks => MAX_MESSAGE_BYTES,
    }
}

/// A message as it goes out; `None` if it is larger than the other side would accept.
pub fn frame(message: &Message) -> Option<Bytes> {
    let body = encode(message);
    if body.len() > limit(kind(message)) {
        return None;
    }
    let length = u32::try_from(body.len()).ok()?;
    Some([&length.to_le_bytes()[..], &body].concat().into())
}

/// The next message of a stream and its size. The length is checked before anything is read; memory
/// grows with what has come, not with what was announced.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), on: Kind) -> Result<(Message, u32), End> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(|_| End::Closed)?;
    let length = u32::from_le_bytes(length);
    if usize::try_from(length).map_or(true, |length| length > limit(on)) {
        let wrong = format!("a message of {length} bytes, {} allowed", limit(on));
        return Err(End::Invalid(Invalid::Encoding(wrong)));
    }
    let mut body = Vec::new();
    stream.take(length.into()).read_to_end(&mut body).await.map_err(|_| End::Closed)?;
    if u32::try_from(body.len()).ok() != Some(length) {
        return Err(End::Closed);
    }
    let message: Message = decode(&body, limit(on)).map_err(End::Invalid)?;
    if kind(&message) != on {
        return Err(End::Invalid(Invalid::Rule("a message on the wrong stream")));
    }
    Ok((message, length))
}

/// Writes what comes into an outbox until the stream breaks.
pub async fn write_all(stream: &mut (impl AsyncWrite + Unpin), outbox: &Outbox) -> End {
    loop {
        let bytes = outbox.next().await;
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return End::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_core::message::Fetch;
    use rota_core::types::Height;

    fn fetch() -> Message {
        Message::Fetch(Fetch::FinalAfter(Height(7)))
    }

    async fn check(bytes: &[u8], on: Kind) -> Result<Message, End> {
        read(&mut futures::io::Cursor::new(bytes), on).await.map(|(message, _)| message)
    }

    #[tokio::test]
    async fn a_frame_is_read_back() {
        let bytes = frame(&fetch()).unwrap();
        assert_eq!(check(&bytes, Kind::Votes).await.unwrap(), fetch());
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_the_body() {
        let length = u32::try_from(MAX_VOTES_BYTES).unwrap() + 1;
        let end = check(&length.to_le_bytes(), Kind::Votes).await.unwrap_err();
        assert!(matches!(end, End::Invalid(Invalid::Encoding(_))), "{end:?}");
    }

    #[tokio::test]
    async fn a_message_on_the_wrong_stream_is_refused() {
        let end = check(&frame(&fetch()).unwrap(), Kind::Blocks).await.unwrap_err();
        assert!(matches!(end, End::Invalid(Invalid::Rule(_))), "{end:?}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_message_is_closed_not_invalid() {
        let bytes = frame(&fetch()).unwrap();
        let end = check(&bytes[..bytes.len() - 1], Kind::Votes).await.unwrap_err();
        assert!(matches!(end, End::Closed), "{end:?}");
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_are_refused() {
        let end = check(&[3, 0, 0, 0, 0xff, 0xff, 0xff], Kind::Votes).await.unwrap_err();
        assert!(matches!(end, End::Invalid(Invalid::Encoding(_))), "{end:?}");
    }
}
