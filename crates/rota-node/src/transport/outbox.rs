//! Messages that wait for one stream to one peer. Bounded: when it is full the oldest goes, since
//! the protocol repeats what matters (R8) and a newer message is worth more than an older
//! one.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
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
}

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
        frames.bytes += frame.len();
        frames.queue.push_back(frame);
        while frames.queue.len() > self.most_frames
            || (frames.bytes > self.most_bytes && frames.queue.len() > 1)
        {
            let oldest = frames.queue.pop_front().map_or(0, |frame| frame.len());
            frames.bytes -= oldest;
            dropped += 1;
        }
        drop(frames);
        self.more.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
