//! Connections of the HTTP door, from their first byte on. Steps 1 and 9 of a transaction's life.
//!
//! ```text
//!  TCP ─► porch ─► first byte ─┬─ 0x16 ─► TLS ─┐
//!                              ├───────────────┴─► HTTP/1.1: head ─► gate ─► its route
//!                              └─ plain where it may not be: 400, and why
//! ```
//!
//! A connection that says nothing costs a task and a socket: nothing is allocated for HTTP before
//! its first byte is there.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower_service::Service as _;

use super::pace::{Duplex, Pace, Patience, Received, Sent, Timed};
use super::{Door, gate, refuse};
use crate::porch::{Closing, Guest, Porch};

/// How long a client may take for the TLS handshake: a slow network's round trips.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The first byte of a TLS handshake (RFC 8446, section 5.1), which no HTTP request begins with.
const TLS_HANDSHAKE: u8 = 0x16;

/// The largest head of a request: a `GET /db/query?q=` as long as hyper takes it, and some headers.
/// Their number has hyper's own limit, 100.
const MAX_HEAD_BYTES: usize = 80 << 10;

/// What a client hears that speaks plain HTTP where only TLS will do.
const NOT_ENCRYPTED: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Connection: close\r\n\r\n\
    this server takes requests over TLS only: use https://…\n";

/// How much of its request is read before it is told so, and how long: what is not read when a
/// connection ends makes the kernel throw the answer away.
const MAX_IGNORED_BYTES: u64 = 64 << 10;
const IGNORING_TIME: Duration = Duration::from_secs(1);

/// A connection, as its requests know it.
#[derive(Clone)]
pub(super) struct Arrival {
    /// Where it comes from.
    pub(super) from: IpAddr,
    /// Whether nobody on the way can read it, and the client knows that it is us.
    pub(super) encrypted: bool,
    /// Its place at the door, and how long its client may take.
    pub(super) pace: Arc<Pace>,
}

/// Serves HTTP clients until the task is aborted.
pub(super) async fn serve(listener: TcpListener, door: Door, routes: Router) {
    let porch = Porch::open("HTTP", &listener);
    let _closing = Closing(porch.clone());
    loop {
        let (stream, address) = porch.accept(&listener).await;
        let (door, routes) = (door.clone(), routes.clone());
        porch.welcome(address.ip(), move |guest| async move {
            let served = begin(stream, address.ip(), guest, door, routes).await;
            if let Err(error) = served {
                tracing::debug!(%error, from = %address, "an HTTP connection ended");
            }
        });
    }
}

/// Finds out how the client speaks.
async fn begin(
    mut stream: TcpStream,
    from: IpAddr,
    guest: Guest,
    door: Door,
    routes: Router,
) -> io::Result<()> {
    let mut first = [0];
    let patience = Patience::default();
    let seen = timeout(patience.head, stream.peek(&mut first)).await??;
    let encrypted = seen > 0 && first == [TLS_HANDSHAKE];
    let stream: Box<dyn Duplex> = match (&door.tls, encrypted) {
        _ if seen == 0 => return Ok(()),
        (Some(tls), true) => {
            // The handshake's future is some kilobytes: only those who begin one have it.
            let shown = tls.shown();
            let handshake = Box::pin(shown.http.accept(stream));
            Box::new(timeout(HANDSHAKE_TIME, handshake).await??)
        }
        (None, true) => return Ok(()),
        (_, false) if door.plain => Box::new(stream),
        (_, false) => return tell_to_encrypt(&mut stream).await,
    };
    let pace = Pace::new(guest, patience);
    let io = TokioIo::new(Timed::new(stream, Arc::clone(&pace)));
    let requests = Requests { door, routes, arrival: Arrival { from, encrypted, pace } };
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_header_size(MAX_HEAD_BYTES);
    Box::pin(http.serve_connection(io, requests)).await.map_err(io::Error::other)
}

/// Tells a client that its request, which is not read, should have come over TLS.
async fn tell_to_encrypt(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(NOT_ENCRYPTED.as_bytes()).await?;
    stream.shutdown().await?;
    let mut ignored = stream.take(MAX_IGNORED_BYTES);
    let _ = timeout(IGNORING_TIME, tokio::io::copy(&mut ignored, &mut tokio::io::sink())).await;
    Ok(())
}

/// One connection's, one after the other.
struct Requests {
    door: Door,
    routes: Router,
    arrival: Arrival,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Sent>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let arrival = self.arrival.clone();
        arrival.pace.begin();
        let (door, mut routes) = (self.door.clone(), self.routes.clone());
        Box::pin(async move {
            let pace = Arc::clone(&arrival.pace);
            let mut request = request.map(|body| Received::new(body, Arc::clone(&pace)));
            let answer = match gate::let_in(&door, &arrival, &mut request).await {
                Ok(()) => routes.call(request).await?,
                Err(refused) => refused,
            };
            let answer = if pace.is_late() { too_slow() } else { answer };
            Ok(answer.map(|body| Sent::new(body, pace)))
        })
    }
}

fn too_slow() -> axum::response::Response {
    let mut answer = refuse(StatusCode::REQUEST_TIMEOUT, "the request's body came too slowly");
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer.into_response()
}
