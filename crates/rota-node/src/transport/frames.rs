//! Messages as bytes on a stream: a length of four bytes, little-endian, and the canonical encoding
//! of the message.

use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use rota_core::codec::{decode, encode};
use rota_core::error::Invalid;
use rota_core::message::{MAX_MESSAGE_BYTES, Message, RaftKind};

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
        // A leader's entries, and its word that they are committed, come in order: a word that is
        // there before its block is refused, and the block sent again. Heartbeats, elections and
        // acknowledgements do not wait behind blocks.
        Message::Raft(message) if message.kind == RaftKind::Append => Kind::Blocks,
        Message::Raft(message) if message.entries.is_empty() => Kind::Votes,
        Message::Raft(_) => Kind::Blocks,
    }
}

/// The largest message on a stream of this kind.
pub fn limit(kind: Kind) -> usize {
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
/// grows with what has come, not with what was announced. Between two messages any time may pass;
/// one that has begun is here `within` a time, if one is given.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    on: Kind,
    most: usize,
    within: Option<Duration>,
) -> Result<(Message, u32), End> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(|_| End::Closed)?;
    let length = u32::from_le_bytes(length);
    check_length(length, most).map_err(End::Invalid)?;
    let mut body = Vec::new();
    let mut rest = stream.take(length.into());
    timely(rest.read_to_end(&mut body), within).await?;
    if u32::try_from(body.len()).ok() != Some(length) {
        return Err(End::Closed);
    }
    let message = message(&body, on, most).map_err(End::Invalid)?;
    Ok((message, length))
}

/// Refuses a frame whose body would be larger than allowed.
pub(super) fn check_length(length: u32, most: usize) -> Result<(), Invalid> {
    match usize::try_from(length) {
        Ok(length) if length <= most => Ok(()),
        _ => Err(Invalid::Encoding(format!("a message of {length} bytes, {most} allowed"))),
    }
}

/// The message that a frame's body is, if it may come on this kind of stream.
pub(super) fn message(body: &[u8], on: Kind, most: usize) -> Result<Message, Invalid> {
    let message: Message = decode(body, most)?;
    if kind(&message) != on {
        return Err(Invalid::Rule("a message on the wrong stream"));
    }
    Ok(message)
}

/// Writes what comes into an outbox until the stream breaks, or the other side does not take what
/// is there `within` a time.
pub async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    outbox: &Outbox,
    within: Option<Duration>,
) -> End {
    loop {
        let bytes = outbox.next().await;
        let writing = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        if let Err(end) = timely(writing, within).await {
            return end;
        }
    }
}

/// What takes too long is as good as broken.
async fn timely<T>(
    work: impl Future<Output = std::io::Result<T>>,
    within: Option<Duration>,
) -> Result<T, End> {
    let done = match within {
        None => work.await,
        Some(within) => tokio::time::timeout(within, work).await.map_err(|_| End::Closed)?,
    };
    done.map_err(|_| End::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use rota_core::message::{Fetch, RaftMessage};
    use rota_core::types::Height;

    fn fetch() -> Message {
        Message::Fetch(Fetch::FinalAfter(Height(7)))
    }

    async fn check(bytes: &[u8], on: Kind) -> Result<Message, End> {
        let mut bytes = futures::io::Cursor::new(bytes);
        read(&mut bytes, on, limit(on), None).await.map(|(message, _)| message)
    }

    fn raft(kind: RaftKind) -> Message {
        Message::Raft(Box::new(RaftMessage::new(kind, 1)))
    }

    #[test]
    fn a_leaders_word_that_a_block_is_committed_does_not_overtake_it() {
        assert_eq!(kind(&raft(RaftKind::Append)), Kind::Blocks);
        for fast in [RaftKind::Heartbeat, RaftKind::AppendResponse, RaftKind::VoteResponse] {
            assert_eq!(kind(&raft(fast)), Kind::Votes);
        }
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
    async fn a_message_that_trickles_in_is_given_up() {
        let bytes = frame(&fetch()).unwrap();
        let begun = futures::io::Cursor::new(bytes[..bytes.len() - 1].to_vec());
        let mut silent = futures::AsyncReadExt::chain(begun, Silent);
        let within = Some(Duration::from_millis(20));
        let end = read(&mut silent, Kind::Votes, 100, within).await.unwrap_err();
        assert!(matches!(end, End::Closed), "{end:?}");
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let outbox = Outbox::new(Kind::Votes, 100);
        outbox.open();
        outbox.push(frame(&fetch()).unwrap());
        let end = write_all(&mut Silent, &outbox, Some(Duration::from_millis(20))).await;
        assert!(matches!(end, End::Closed), "{end:?}");
    }

    /// Somebody who neither says nor takes anything.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<std::io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_are_refused() {
        let end = check(&[3, 0, 0, 0, 0xff, 0xff, 0xff], Kind::Votes).await.unwrap_err();
        assert!(matches!(end, End::Invalid(Invalid::Encoding(_))), "{end:?}");
    }
}
