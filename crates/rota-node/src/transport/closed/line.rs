//! What goes over a connection between members once it is there: frames, and now and then an empty
//! one, so that silence means that something is broken. Step 5 of a transaction's life.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rota_core::error::Invalid;
use rota_core::types::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, Sleep, sleep_until};

use super::super::frames;
use super::super::links::Kind;
use super::super::outbox::{Ended, Outbox};
use super::super::{Inbox, Limits};

/// A connection with nothing to say says so this often, or up to twice as often.
pub(super) const KEEP_ALIVE: Duration = Duration::from_millis(800);

/// A connection on which nothing came for this long is dead: three keep-alives missed. A killed
/// machine says no goodbye, and this is how soon others refuse writes for want of a quorum instead
/// of sending what may never be final. Much shorter, and a machine that is busy with a large
/// transaction for a second would be taken for dead.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// What an idle connection says: a message of no bytes.
const STILL_HERE: [u8; 4] = [0; 4];

/// Read at once: many small frames, or the start of a large one.
const READ_BYTES: usize = 16 << 10;

/// How a connection came to its end.
#[derive(Debug)]
pub(super) enum Over {
    /// It broke, or the other side closed it.
    Broken(io::Error),
    /// Nothing has come for [`IDLE_TIMEOUT`].
    Silent,
    /// The peer sent what an honest server would not.
    Invalid(Invalid),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Broken(error),
        }
    }
}

/// Sees to it that an outbox's frames go out over its connection, until that ends.
pub(super) async fn write(outbox: &Outbox, number: u64) -> Over {
    let mut ticks = tokio::time::interval(KEEP_ALIVE / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let working = outbox.work(number);
    tokio::pin!(working);
    loop {
        tokio::select! {
            ended = &mut working => return match ended {
                Ended::Replaced => Over::Broken(io::ErrorKind::BrokenPipe.into()),
                Ended::Broken(error) => Over::Broken(error),
                Ended::Spoken => Over::Invalid(Invalid::Rule("a message where only we write")),
            },
            _ = ticks.tick() => outbox.keep_alive(&STILL_HERE),
        }
    }
}

/// Passes a connection's messages on until it ends. When the inbox is full this waits, and through
/// TCP's flow control so does the peer.
pub(super) async fn read(
    stream: impl AsyncRead + Unpin,
    kind: Kind,
    limits: Limits,
    from: NodeId,
    inbox: &Inbox,
) -> Over {
    let mut stream = BufReader::with_capacity(READ_BYTES, Heard::new(stream, IDLE_TIMEOUT));
    loop {
        let (message, bytes) = match frame(&mut stream, limits.of(kind)).await {
            Ok(None) => continue,
            Ok(Some(body)) => match frames::message(&body, kind, limits.of(kind)) {
                Ok(message) => (message, u32::try_from(body.len()).unwrap_or(u32::MAX)),
                Err(invalid) => return Over::Invalid(invalid),
            },
            Err(over) => return over,
        };
        if !inbox.put(from, message, bytes).await {
            return Over::Broken(io::ErrorKind::BrokenPipe.into());
        }
    }
}

/// The next frame's body; `None` for an empty one. The length is checked before anything is read;
/// beyond [`READ_BYTES`] memory grows with what has come, not with what was announced.
async fn frame(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<Option<Vec<u8>>, Over> {
    let length = stream.read_u32_le().await?;
    if length == 0 {
        return Ok(None);
    }
    frames::check_length(length, most).map_err(Over::Invalid)?;
    let mut body = Vec::with_capacity(usize::try_from(length).unwrap_or(0).min(READ_BYTES));
    stream.take(length.into()).read_to_end(&mut body).await?;
    match u32::try_from(body.len()) {
        Ok(came) if came == length => Ok(Some(body)),
        _ => Err(Over::Broken(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// A stream that fails once nothing has come for a time while somebody waited for it. While nobody
/// waits, since there is no room for what comes, no time passes.
struct Heard<S> {
    stream: S,
    patience: Duration,
    /// Since when somebody waits.
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<S> Heard<S> {
    fn new(stream: S, patience: Duration) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + patience));
        Self { stream, patience, since: None, timer }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.since = None;
            return Poll::Ready(read);
        }
        let now = Instant::now();
        let until = *self.since.get_or_insert(now) + self.patience;
        // The timer is set anew when it goes off, not each time that something comes.
        loop {
            ready!(self.timer.as_mut().poll(context));
            if until <= now {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const SOON: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn silence_is_an_end() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[5, 0, 0, 0, 1]).await.unwrap();
        let over = frame(&mut Heard::new(ours, SOON), 100).await.unwrap_err();
        assert!(matches!(over, Over::Silent), "{over:?}");
    }

    #[tokio::test]
    async fn whoever_says_something_now_and_then_is_heard_out() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let saying = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SOON / 4);
            for _ in 0..12 {
                ticks.tick().await;
                theirs.write_all(&STILL_HERE).await.unwrap();
            }
            theirs.write_all(&[1, 0, 0, 0, 9]).await.unwrap();
        });
        let mut ours = Heard::new(ours, SOON * 10);
        let body = loop {
            if let Some(body) = frame(&mut ours, 100).await.unwrap() {
                break body;
            }
        };
        assert_eq!(body, [9]);
        saying.await.unwrap();
    }

    #[tokio::test]
    async fn no_time_passes_while_there_is_no_room_for_what_comes() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Heard::new(ours, SOON);
        theirs.write_all(&[1, 0, 0, 0, 1]).await.unwrap();
        assert_eq!(frame(&mut ours, 100).await.unwrap(), Some(vec![1]));
        // Longer than is waited for a word.
        tokio::time::timeout(SOON * 3, std::future::pending::<()>()).await.unwrap_err();
        let reading = frame(&mut ours, 100);
        tokio::pin!(reading);
        let saying = async { theirs.write_all(&[1, 0, 0, 0, 2]).await.unwrap() };
        let (body, ()) = tokio::join!(biased; reading, saying);
        assert_eq!(body.unwrap(), Some(vec![2]));
    }

    #[tokio::test]
    async fn memory_grows_with_what_has_come() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&[0, 0, 0, 1, 7]).await.unwrap();
        drop(theirs);
        let over = frame(&mut Heard::new(ours, SOON), usize::MAX).await.unwrap_err();
        assert!(matches!(over, Over::Broken(_)), "{over:?}");
    }
}
