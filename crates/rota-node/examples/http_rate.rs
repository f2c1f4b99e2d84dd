//! How many reads by key a server answers over HTTP: connections that are kept alive, each asks one
//! after the other, by the same statement as `rota bench --workload read` over PostgreSQL's
//! protocol, whose table it needs. The yardstick for step 1 of a transaction's life over HTTP.
//!
//! ```sh
//! rota bench --workload read --seconds 5 127.0.0.1:5441
//! cargo run --release -p rota-node --example http_rate -- 127.0.0.1:4001 16 5
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Rows that `rota bench` makes at least.
const ROWS: u64 = 10_000;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, seconds, authorization @ ..] = words.as_slice() else {
        return Err("usage: http_rate ADDRESS CONNECTIONS SECONDS ['Basic …']".into());
    };
    let address: SocketAddr = address.parse()?;
    let time = Duration::from_secs(seconds.parse()?);
    let login = authorization.first().map(|said| format!("Authorization: {said}\r\n"));
    let login = login.unwrap_or_default();
    let until = Instant::now() + time;
    let clients: Vec<_> = (0..connections.parse()?)
        .map(|number: u64| tokio::spawn(ask(address, number, until, login.clone())))
        .collect();
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        // Only printed.
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    };
    let rate = latencies.len() as f64 / time.as_secs_f64();
    println!("{rate:.0} reads/s; p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99));
    Ok(())
}

/// One connection's requests; how long each took.
async fn ask(
    address: SocketAddr,
    number: u64,
    until: Instant,
    login: String,
) -> Result<Vec<Duration>, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut buffer = Vec::new();
    let mut key = number;
    while Instant::now() < until {
        // Some order in which every key comes up.
        key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = (key >> 33) % ROWS + 1;
        let body = format!("[[\"SELECT text FROM bench_rows WHERE id = ?\", {id}]]");
        let request = format!(
            "POST /db/query HTTP/1.1\r\nHost: localhost\r\n{login}Content-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let answer = answer(&mut stream, &mut buffer).await?;
        if !answer.contains("\"values\":[[\"") {
            return Err(format!("an answer without a row: {answer}").into());
        }
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

/// The body of the next answer, whose length is told.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<String, Failure> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the connection was closed".into());
        }
        let text = std::str::from_utf8(buffer)?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_ascii_lowercase();
        let length = length.split_once("content-length: ").ok_or("an answer without a length")?.1;
        let length: usize = length.lines().next().unwrap_or_default().trim().parse()?;
        if body.len() >= length {
            return Ok(body.to_owned());
        }
    }
}
