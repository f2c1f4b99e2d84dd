//! Messages that wait for one stream to one peer. Bounded: when it is full the oldest goes, since
//! the protocol repeats what matters (R8) and a newer message is worth more than an older
//! one. Step 5 of a transaction's life.
//!
//! ```text
//!   replica ── push ──► wire            members: from the replica's thread, without waiting
//!                └────► queue ─► work   and what the wire does not take at once, by a task
//!   replica ── push ──► queue ─► next   where anybody may come: by a task
//! ```

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::links::Kind;
use crate::queues;

/// Small frames that are ready at once go out in one write of up to this size: one system call, one
/// packet or a few.
const WRITE_BYTES: usize = 64 << 10;

/// What waits for one stream.
pub struct Outbox {
    frames: Mutex<Frames>,
    more: Notify,
    most_frames: usize,
    most_bytes: usize,
}

#[derive(Default)]
struct Frames {
    open: bool,
    bytes: usize,
    queue: VecDeque<Bytes>,
    pipe: Option<Pipe>,
}

/// A connection that takes frames from whoever has them, for as long as it takes them at once.
struct Pipe {
    number: u64,
    wire: Box<dyn Wire>,
    /// What it has not taken yet of a write.
    rest: Bytes,
    /// Whether a task goes on with what waits: the connection took no more.
    stuck: bool,
    /// Whether anything was written since somebody asked.
    used: bool,
}

/// How it ended that a connection took frames.
#[derive(Debug)]
pub enum Ended {
    /// Another one is in use, or none.
    Replaced,
    /// It broke, or the other side closed it.
    Broken(io::Error),
    /// The other side said something, which is not its part.
    Spoken,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What frames are written to.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Outbox {
    /// Empty and closed: nothing is kept for a stream that does not exist.
    pub fn new(kind: Kind, most_bytes: usize) -> Self {
        let most_frames = match kind {
            Kind::Votes => queues::OUTBOX_VOTES,
            Kind::Blocks => queues::OUTBOX_BLOCKS,
        };
        Self { frames: Mutex::default(), more: Notify::new(), most_frames, most_bytes }
    }

    /// A stream is there: from now on frames are kept for it.
    pub fn open(&self) {
        *self.lock() = Frames { open: true, ..Frames::default() };
    }

    /// A connection is there: from now on frames go out over it, from within [`Self::push`] where
    /// that needs no waiting, else from [`Self::work`].
    pub fn connect(&self, number: u64, wire: Box<dyn Wire>) {
        let pipe = Pipe { number, wire, rest: Bytes::new(), stuck: false, used: true };
        *self.lock() = Frames { open: true, pipe: Some(pipe), ..Frames::default() };
    }

    /// Writes what [`Self::push`] could not, until the connection ends: to be called by one task
    /// for as long as there is a connection.
    pub async fn work(&self, number: u64) -> Ended {
        loop {
            let working = std::future::poll_fn(|context| self.lock().work(number, context));
            tokio::select! {
                ended = working => return ended,
                () = self.more.notified() => {}
            }
        }
    }

    /// Adds a frame if nothing was written since this was last called.
    pub fn keep_alive(&self, frame: &'static [u8]) {
        let used = |pipe: &mut Pipe| std::mem::take(&mut pipe.used) || pipe.stuck;
        if self.lock().pipe.as_mut().map(used) == Some(false) {
            self.push(Bytes::from_static(frame));
        }
    }

    /// The stream is gone, and with it what waited.
    pub fn close(&self) {
        *self.lock() = Frames::default();
    }

    /// Adds a frame. Returns how many older ones had to go.
    pub fn push(&self, frame: Bytes) -> usize {
        let mut frames = self.lock();
        if !frames.open {
            return 0;
        }
        let mut dropped = 0;
        let large = frame.len() > WRITE_BYTES;
        frames.bytes += frame.len();
        frames.queue.push_back(frame);
        while frames.queue.len() > self.most_frames
            || (frames.bytes > self.most_bytes && frames.queue.len() > 1)
        {
            let oldest = frames.queue.pop_front().map_or(0, |frame| frame.len());
            frames.bytes -= oldest;
            dropped += 1;
        }
        if !frames.goes_out(large) {
            drop(frames);
            self.more.notify_one();
        }
        dropped
    }

    /// Waits for frames; returns those for one write: one large one, or all small ones that are
    /// there.
    pub async fn next(&self) -> Bytes {
        loop {
            // `notify_one` leaves a permit if nobody waits yet, so a frame pushed between these two
            // lines is seen.
            if let Some(write) = self.lock().write() {
                return write;
            }
            self.more.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    /// Writes what waits, if there is a connection and it takes that at once. False when somebody
    /// has to be told to go on.
    fn goes_out(&mut self, large: bool) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        if pipe.stuck {
            return true; // they have been told
        }
        // To encrypt something large takes longer than to wake a task that does.
        pipe.stuck = large;
        if large {
            return false;
        }
        let mut nobody = Context::from_waker(Waker::noop());
        let gone = matches!(self.write_out(&mut nobody), Poll::Ready(Ok(())));
        if let Some(pipe) = &mut self.pipe {
            pipe.stuck = !gone;
        }
        gone
    }

    fn write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let next = match &self.pipe {
                Some(pipe) if pipe.rest.is_empty() => self.write(),
                _ => None,
            };
            let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
            if let Some(next) = next {
                pipe.rest = next;
            }
            pipe.used = true;
            if pipe.rest.is_empty() {
                return Pin::new(&mut pipe.wire).poll_flush(context);
            }
            match ready!(Pin::new(&mut pipe.wire).poll_write(context, &pipe.rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => pipe.rest.advance(written),
            }
        }
    }

    fn work(&mut self, number: u64, context: &mut Context<'_>) -> Poll<Ended> {
        let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.number == number) else {
            return Poll::Ready(Ended::Replaced);
        };
        // Nothing comes on a connection that we write to, but its end.
        let mut nothing = [0];
        let mut nothing = ReadBuf::new(&mut nothing);
        if let Poll::Ready(read) = Pin::new(&mut pipe.wire).poll_read(context, &mut nothing) {
            return Poll::Ready(match read {
                Err(error) => error.into(),
                Ok(()) if nothing.filled().is_empty() => closed().into(),
                Ok(()) => Ended::Spoken,
            });
        }
        if pipe.stuck {
            if let Err(error) = ready!(self.write_out(context)) {
                return Poll::Ready(error.into());
            }
            if let Some(pipe) = &mut self.pipe {
                pipe.stuck = false;
            }
        }
        Poll::Pending
    }

    fn write(&mut self) -> Option<Bytes> {
        let first = self.pop()?;
        let fits = |written: usize, next: &Bytes| written + next.len() <= WRITE_BYTES;
        if !self.queue.front().is_some_and(|next| fits(first.len(), next)) {
            return Some(first);
        }
        let mut write = Vec::with_capacity(WRITE_BYTES);
        write.extend_from_slice(&first);
        while self.queue.front().is_some_and(|next| fits(write.len(), next)) {
            if let Some(frame) = self.pop() {
                write.extend_from_slice(&frame);
            }
        }
        Some(write.into())
    }

    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.queue.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(byte: u8, len: usize) -> Bytes {
        Bytes::from(vec![byte; len])
    }

    #[tokio::test]
    async fn small_frames_go_out_together_and_a_large_one_alone() {
        let outbox = Outbox::new(Kind::Blocks, queues::OUTBOX_BYTES);
        outbox.open();
        for (byte, len) in [(1, 10), (2, 20), (3, WRITE_BYTES), (4, 5)] {
            assert_eq!(outbox.push(frame(byte, len)), 0);
        }
        let lengths =
            [outbox.next().await.len(), outbox.next().await.len(), outbox.next().await.len()];
        assert_eq!(lengths, [30, WRITE_BYTES, 5]);
    }

    #[tokio::test]
    async fn the_oldest_goes_when_it_is_full() {
        let outbox = Outbox::new(Kind::Votes, queues::OUTBOX_BYTES);
        outbox.open();
        let dropped: usize = (0..queues::OUTBOX_VOTES + 3).map(|_| outbox.push(frame(0, 1))).sum();
        assert_eq!(dropped, 3);
        assert_eq!(outbox.next().await.len(), queues::OUTBOX_VOTES);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_newest_always_stays() {
        let outbox = Outbox::new(Kind::Blocks, queues::OUTBOX_BYTES);
        outbox.open();
        outbox.push(frame(1, queues::OUTBOX_BYTES));
        assert_eq!(outbox.push(frame(2, queues::OUTBOX_BYTES + 1)), 1);
        assert_eq!(outbox.lock().queue.len(), 1);
    }

    #[test]
    fn nothing_is_kept_for_a_stream_that_is_gone() {
        let outbox = Outbox::new(Kind::Votes, queues::OUTBOX_BYTES);
        outbox.push(frame(1, 1));
        outbox.open();
        outbox.push(frame(2, 1));
        outbox.close();
        outbox.open();
        assert!(outbox.lock().write().is_none());
    }

    fn connected(room: usize) -> (std::sync::Arc<Outbox>, tokio::io::DuplexStream) {
        let outbox = std::sync::Arc::new(Outbox::new(Kind::Blocks, queues::OUTBOX_BYTES));
        let (ours, theirs) = tokio::io::duplex(room);
        outbox.connect(1, Box::new(ours));
        (outbox, theirs)
    }

    #[tokio::test]
    async fn a_frame_goes_out_at_once_where_a_connection_takes_it() {
        let (outbox, mut theirs) = connected(100);
        outbox.push(frame(1, 10));
        outbox.push(frame(2, 10));
        let mut read = [0; 20];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(read, *[[1; 10], [2; 10]].as_flattened());
    }

    #[tokio::test]
    async fn what_a_connection_does_not_take_goes_out_later_in_order() {
        let (outbox, mut theirs) = connected(100);
        let working = tokio::spawn({
            let outbox = std::sync::Arc::clone(&outbox);
            async move { outbox.work(1).await }
        });
        let lens = [60, 60, WRITE_BYTES + 1, 7, 300];
        let mut all = Vec::new();
        for (byte, len) in (1..).zip(lens) {
            outbox.push(frame(byte, len));
            all.extend(frame(byte, len));
        }
        let mut read = vec![0; all.len()];
        theirs.read_exact(&mut read).await.unwrap();
        assert!(read == all, "in order and whole");
        drop(theirs);
        assert!(matches!(working.await.unwrap(), Ended::Broken(_)));
    }

    #[tokio::test]
    async fn the_oldest_goes_when_a_connection_takes_nothing() {
        let (outbox, _theirs) = connected(1);
        let pushed = queues::OUTBOX_BLOCKS + 4;
        let dropped: usize = (0..pushed).map(|_| outbox.push(frame(0, 10))).sum();
        assert_eq!(dropped, 3, "one is half written");
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_noticed_without_a_frame() {
        let (outbox, theirs) = connected(100);
        drop(theirs);
        assert!(matches!(outbox.work(1).await, Ended::Broken(_)));
        let (outbox, mut theirs) = connected(100);
        theirs.write_all(&[1]).await.unwrap();
        assert!(matches!(outbox.work(1).await, Ended::Spoken));
        outbox.close();
        assert!(matches!(outbox.work(1).await, Ended::Replaced));
    }

    #[tokio::test]
    async fn a_connection_is_kept_alive_only_when_nothing_else_was_written() {
        let (outbox, mut theirs) = connected(100);
        outbox.push(frame(1, 1));
        outbox.keep_alive(&[7]);
        outbox.keep_alive(&[8]);
        outbox.close();
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [1, 8]);
    }
}
