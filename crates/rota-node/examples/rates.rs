//! How fast reads by key are over HTTP, beside PostgreSQL's protocol: a server of its own in this
//! process, both doors in turns (step 1 of a transaction's life). It wants the machine for itself.
//!
//! ```sh
//! cargo run --release -p rota-node --example rates
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use rota_node::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use support::Cluster;

const ROWS: u64 = 1_000;
const CONNECTIONS: u64 = 8;
const TURNS: usize = 3;
const TURN: Duration = Duration::from_secs(2);

/// How many reads connections get done in one turn, all together.
async fn in_a_turn<F: Future<Output = u64> + Send + 'static>(read: impl Fn(u64) -> F) -> u64 {
    let clients: Vec<_> = (0..CONNECTIONS).map(|number| tokio::spawn(read(number))).collect();
    let mut reads = 0;
    for client in clients {
        reads += client.await.unwrap();
    }
    reads
}

async fn by_postgres(port: u16) -> u64 {
    let config = format!("host=127.0.0.1 port={port} user=rota dbname=rota");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let read = client.prepare("SELECT text FROM t WHERE id = $1").await.unwrap();
    let (until, mut reads) = (Instant::now() + TURN, 0);
    while Instant::now() < until {
        let id = i32::try_from(reads * 7 % ROWS).unwrap() + 1;
        let row = client.query_one(&read, &[&id]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0).len(), 100);
        reads += 1;
    }
    reads
}

async fn by_http(port: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (until, mut reads) = (Instant::now() + TURN, 0);
    let mut answer = Vec::new();
    while Instant::now() < until {
        let body = format!("[[\"SELECT text FROM t WHERE id = ?\", {}]]", reads * 7 % ROWS + 1);
        let request = format!(
            "POST /db/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        answer.clear();
        while !answer.ends_with(b"}]}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        assert!(answer.len() > 200);
        reads += 1;
    }
    reads
}

#[tokio::main]
async fn main() {
    let cluster = Cluster::start(1).await;
    cluster.is(0, State::Ready).await;
    let server = cluster.servers[0].as_ref().unwrap();
    let (pg, http) = (server.pg.port(), server.http.port());
    let config = format!("host=127.0.0.1 port={pg} user=rota dbname=rota");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let filler = "-".repeat(100);
    let values: Vec<_> = (1..=ROWS).map(|id| format!("({id}, '{filler}')")).collect();
    let script = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT); INSERT INTO t VALUES {}",
        values.join(", ")
    );
    client.batch_execute(&script).await.unwrap();
    let (mut over_pg, mut over_http) = (0, 0);
    for _ in 0..TURNS {
        over_pg += in_a_turn(move |_| by_postgres(pg)).await;
        over_http += in_a_turn(move |_| by_http(http)).await;
    }
    let seconds = TURN.as_secs() * u64::try_from(TURNS).unwrap();
    println!("PostgreSQL {}/s, HTTP {}/s", over_pg / seconds, over_http / seconds);
}
