//! How long an HTTP client may take, for everything that it does: a connection is read and written
//! through this. Steps 1 and 9 of a transaction's life.
//!
//! ```text
//!  arrived ─► head ─► request, its body ─► (the server works) ─► answer ─► resting ─┐
//!              ▲ its first byte                                                     │
//!              └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Who takes longer loses the connection. Who keeps the server waiting may lose it before, to
//! somebody who does not, when there is no room for both (`porch`).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::porch::Guest;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a request's head, from its first byte on, and until its first request comes.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) rest: Duration,
    /// For a request's body, before its pace counts.
    pub(super) body: Duration,
    /// For taking an answer that was not taken at once, before the pace counts.
    pub(super) answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            // A slow network's round trips.
            head: Duration::from_secs(10),
            // More than the minute after which proxies and libraries end their connections, so
            // that it is they who do.
            rest: Duration::from_secs(75),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(60),
        }
    }
}

/// The slowest pace, in bytes a second, once it counts: the same as at the PostgreSQL door.
const SLOWEST: u64 = 4_096;

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// What is known of a connection's pace, shared by all that has to do with it.
pub(super) struct Pace {
    pub(super) guest: Guest,
    patience: Patience,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// The answer's last byte was handed over, though perhaps not sent yet.
    answered: bool,
    /// A body took too long.
    late: bool,
    /// Until when the client must have taken what it was sent; it did not take all at once.
    taken_by: Option<Instant>,
    /// Whether it takes none at the moment.
    stuck: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    /// A request's head is to be there by then.
    Head(Instant),
    /// Nothing of a request is there; its first byte is to come by then.
    Resting(Instant),
    /// A request is under way.
    Busy,
}

impl State {
    fn new(phase: Phase) -> Self {
        Self { phase, answered: false, late: false, taken_by: None, stuck: false }
    }
}

impl Pace {
    /// A connection whose first request is waited for.
    pub(super) fn new(guest: Guest, patience: Patience) -> Arc<Self> {
        let state = State::new(Phase::Head(Instant::now() + patience.head));
        Arc::new(Self { guest, patience, state: Mutex::new(state) })
    }

    /// A request's head is there.
    pub(super) fn begin(&self) {
        self.state().phase = Phase::Busy;
    }

    /// Whether the body of the request under way took too long.
    pub(super) fn is_late(&self) -> bool {
        self.state().late
    }

    fn answered(&self) {
        self.state().answered = true;
    }

    /// All is sent that was handed over: what comes next is the client's to begin.
    fn flushed(&self) {
        let mut state = self.state();
        if state.answered {
            *state = State::new(Phase::Resting(Instant::now() + self.patience.rest));
            self.guest.rest();
        } else if std::mem::take(&mut state.stuck) {
            self.guest.wait(false);
        }
    }

    /// Something was read; by when the rest is to be there begins with its first byte.
    fn read(&self) {
        let mut state = self.state();
        if let Phase::Resting(_) = state.phase {
            state.phase = Phase::Head(Instant::now() + self.patience.head);
        }
    }

    /// By when something must be read; `None` while the server works.
    fn read_by(&self) -> Option<Instant> {
        match self.state().phase {
            Phase::Head(by) | Phase::Resting(by) => Some(by),
            Phase::Busy => None,
        }
    }

    /// By when the client must have taken more, since it takes none now.
    fn stuck(&self) -> Instant {
        let mut state = self.state();
        if !std::mem::replace(&mut state.stuck, true) {
            self.guest.wait(true);
        }
        *state.taken_by.get_or_insert_with(|| Instant::now() + self.patience.answer)
    }

    /// It has taken more.
    fn taken(&self, bytes: usize) {
        let mut state = self.state();
        if let Some(by) = &mut state.taken_by {
            *by += time_for(bytes);
        }
        if std::mem::take(&mut state.stuck) {
            self.guest.wait(false);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long so many bytes may take.
fn time_for(bytes: usize) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Duration::from_millis(bytes.saturating_mul(1_000) / SLOWEST)
}

/// A moment that is waited for only while nothing else happens.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, by: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(by)));
        if sleep.deadline() != by {
            sleep.as_mut().reset(by);
        }
        sleep.as_mut().poll(context)
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long")
}

/// A connection whose client keeps pace.
pub(super) struct Timed {
    stream: Box<dyn Duplex>,
    pace: Arc<Pace>,
    reading: Alarm,
    writing: Alarm,
}

impl Timed {
    pub(super) fn new(stream: Box<dyn Duplex>, pace: Arc<Pace>) -> Self {
        Self { stream, pace, reading: Alarm::default(), writing: Alarm::default() }
    }

    /// What came of a write, unless the client takes too long.
    fn written(
        &mut self,
        came: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match came {
            Poll::Ready(Ok(bytes)) => {
                self.pace.taken(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.writing.poll(self.pace.stuck(), context));
                Poll::Ready(Err(too_slow()))
            }
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let timed = self.get_mut();
        if let Poll::Ready(came) = Pin::new(&mut timed.stream).poll_read(context, buffer) {
            timed.pace.read();
            return Poll::Ready(came);
        }
        let Some(by) = timed.pace.read_by() else { return Poll::Pending };
        ready!(timed.reading.poll(by, context));
        Poll::Ready(Err(too_slow()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let timed = self.get_mut();
        let came = Pin::new(&mut timed.stream).poll_write(context, bytes);
        timed.written(came, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let timed = self.get_mut();
        let came = Pin::new(&mut timed.stream).poll_write_vectored(context, slices);
        timed.written(came, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timed = self.get_mut();
        match Pin::new(&mut timed.stream).poll_flush(context) {
            Poll::Ready(came) => {
                timed.pace.flushed();
                Poll::Ready(came)
            }
            // TLS has bytes of its own to send.
            Poll::Pending => timed.written(Poll::Pending, context).map_ok(drop),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timed = self.get_mut();
        match Pin::new(&mut timed.stream).poll_shutdown(context) {
            Poll::Ready(came) => Poll::Ready(came),
            Poll::Pending => timed.written(Poll::Pending, context).map_ok(drop),
        }
    }
}

/// A request's body, whose client keeps pace.
pub(super) struct Received {
    body: Incoming,
    pace: Arc<Pace>,
    /// By when the next part of it is to be there.
    by: Instant,
    alarm: Alarm,
    waits: bool,
}

impl Received {
    pub(super) fn new(body: Incoming, pace: Arc<Pace>) -> Self {
        let by = Instant::now() + pace.patience.body;
        Self { body, pace, by, alarm: Alarm::default(), waits: false }
    }

    fn wait(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            self.pace.guest.wait(waits);
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.wait(false);
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let received = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut received.body).poll_frame(context) else {
            received.wait(true);
            ready!(received.alarm.poll(received.by, context));
            received.pace.state().late = true;
            return Poll::Ready(Some(Err(axum::Error::new(too_slow()))));
        };
        received.wait(false);
        if let Some(Ok(part)) = &frame {
            received.by += time_for(part.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, whose end is noticed.
pub(super) struct Sent {
    body: Body,
    pace: Arc<Pace>,
}

impl Sent {
    pub(super) fn new(body: Body, pace: Arc<Pace>) -> Self {
        Self { body, pace }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.pace.answered();
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::http::{Request, Response};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;
    use crate::porch::{Places, Porch};

    const LONG: Duration = Duration::from_secs(300);
    const SHORT: Duration = Duration::from_millis(50);

    const LENIENT: Patience = Patience { head: LONG, rest: LONG, body: LONG, answer: LONG };

    /// A client of a server that answers with so many bytes, once it has the whole body.
    async fn connect(patience: Patience, bytes: usize) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let (arrived, arrival) = oneshot::channel();
        Porch::new(Places::default()).welcome(address.ip(), |guest| async move {
            let _ = arrived.send(guest);
        });
        let pace = Pace::new(arrival.await.unwrap(), patience);
        let io = TokioIo::new(Timed::new(Box::new(stream), Arc::clone(&pace)));
        let service = service_fn(move |request: Request<Incoming>| {
            let pace = Arc::clone(&pace);
            async move {
                pace.begin();
                let body = Body::new(Received::new(request.into_body(), Arc::clone(&pace)));
                let whole = axum::body::to_bytes(body, usize::MAX).await.is_ok();
                assert_eq!(whole, !pace.is_late());
                let answer = if whole { "+".repeat(bytes) } else { "late".into() };
                Ok::<_, Infallible>(Response::new(Sent::new(Body::from(answer), pace)))
            }
        });
        let mut http = http1::Builder::new();
        http.header_read_timeout(None);
        tokio::spawn(http.serve_connection(io, service));
        client
    }

    /// What the server says until it ends the connection.
    async fn to_the_end(client: &mut TcpStream) -> String {
        let mut said = Vec::new();
        let _ = client.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_not_waited_for() {
        let mut client = connect(Patience { head: SHORT, ..LENIENT }, 1).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        assert_eq!(to_the_end(&mut client).await, "");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let mut client = connect(Patience { body: SHORT, ..LENIENT }, 1).await;
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1").await.unwrap();
        assert!(to_the_end(&mut client).await.ends_with("late"));
    }

    #[tokio::test]
    async fn connections_rest_between_requests_for_a_while() {
        let mut client = connect(Patience { rest: SHORT, head: SHORT * 100, ..LENIENT }, 1).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(to_the_end(&mut client).await.matches("200 OK").count(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_ends_the_connection() {
        const BYTES: usize = 64 << 20;
        let mut client = connect(Patience { answer: SHORT, ..LENIENT }, BYTES).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // Its end is seen before a byte is taken: a write fails once the server is gone.
        let mut again = tokio::time::interval(SHORT);
        while client.write_all(b"\r\n").await.is_ok() {
            again.tick().await;
        }
        assert!(to_the_end(&mut client).await.len() < BYTES);
    }

    #[tokio::test]
    async fn slow_bodies_are_taken_as_long_as_they_keep_pace() {
        let mut client = connect(Patience { body: SHORT, ..LENIENT }, 1).await;
        let body = vec![b'-'; 1 << 20];
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap();
        let mut again = tokio::time::interval(SHORT * 2);
        for _ in 0..3 {
            again.tick().await;
        }
        client.write_all(b"!").await.unwrap();
        let mut said = [0; 15];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 200 OK");
    }
}
