//! Connections that say nothing, or almost nothing, as many as one likes: to see that a server goes
//! on serving everybody else. They knock at step 1 of a transaction's life and never come in.
//!
//! ```sh
//! cargo run --release -p rota-node --example silent -- 127.0.0.1:5441 10000
//! cargo run --release -p rota-node --example silent -- 127.0.0.1:4001 10000 head again spread
//! ```
//!
//! The third word is what each says: `nothing`, `head` (half a request's head), `body` (a head that
//! announces a body), `rest` (a whole request, and then no more), `tls` (half a handshake), `pg`
//! (half a start-up of PostgreSQL's protocol). With `again`, whoever is closed comes back at once;
//! with `spread`, they come from many of this machine's addresses (127.0.0.0/8).

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// How often it is told how many there are.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Attack {
    target: SocketAddr,
    says: &'static [u8],
    again: bool,
    spread: bool,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connected: AtomicUsize,
    open: AtomicUsize,
    closed: AtomicUsize,
    refused: AtomicUsize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: silent ADDRESS COUNT [nothing|head|body|rest|tls|pg] [again] [spread]";
    let [target, count, rest @ ..] = words.as_slice() else { return Err(usage.into()) };
    let has = |word: &str| rest.iter().any(|said| said == word);
    let says: &'static [u8] = match rest.first().map_or("nothing", String::as_str) {
        "head" => b"POST /db/query HTTP/1.1\r\nHost: localhost\r\nX-",
        "body" => b"POST /db/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n[",
        "rest" => b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "tls" => b"\x16\x03\x01\x02\x00\x01\x00\x01",
        "pg" => b"\x00\x00\x00\x40\x00\x03\x00\x00user",
        _ => b"",
    };
    let attack = Attack {
        target: target.parse()?,
        says,
        again: has("again"),
        spread: has("spread"),
        counts: Arc::default(),
    };
    let count: u32 = count.parse()?;
    let begun = Instant::now();
    for number in 0..count {
        tokio::spawn(attack.clone().keep_coming(number));
    }
    let mut ticks = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => attack.counts.tell(begun.elapsed()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

impl Attack {
    async fn keep_coming(self, number: u32) {
        loop {
            match self.stay(number).await {
                Ok(()) => self.counts.closed.fetch_add(1, Relaxed),
                Err(_) => self.counts.refused.fetch_add(1, Relaxed),
            };
            if !self.again {
                return;
            }
        }
    }

    /// One connection, until the other side ends it.
    async fn stay(&self, number: u32) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        if self.spread {
            let [_, b, c, d] = (number + 2).to_be_bytes();
            socket.bind((Ipv4Addr::new(127, b, c, d), 0).into())?;
        }
        let mut stream = socket.connect(self.target).await?;
        self.counts.connected.fetch_add(1, Relaxed);
        self.counts.open.fetch_add(1, Relaxed);
        let mut heard = [0; 4_096];
        if stream.write_all(self.says).await.is_ok() {
            while stream.read(&mut heard).await.is_ok_and(|bytes| bytes > 0) {}
        }
        self.counts.open.fetch_sub(1, Relaxed);
        Ok(())
    }
}

impl Counts {
    fn tell(&self, after: Duration) {
        println!(
            "{:>4} s: {} open, {} connected so far, {} closed by the server, {} not connected",
            after.as_secs(),
            self.open.load(Relaxed),
            self.connected.load(Relaxed),
            self.closed.load(Relaxed),
            self.refused.load(Relaxed),
        );
    }
}
