//! Clients that say nothing, or say it slowly, at the doors of a real server: everybody else is
//! served, and an administrator always gets in.

mod support;

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rota_node::{State, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use support::{Cluster, LOOK, PATIENCE};

/// More than the PostgreSQL or the HTTP door has places for while this process is one server, and
/// may open as many files as most systems allow (the doors have fewer places where it may not).
const CROWD: usize = 6_000;

/// How often a client tries before it is said to be kept out.
const ATTEMPTS: usize = 3;

/// How long one of its attempts may take.
const ATTEMPT: Duration = Duration::from_secs(10);

struct Running {
    _cluster: Cluster,
    pg: SocketAddr,
    http: SocketAddr,
}

async fn start() -> Running {
    let cluster = Cluster::start_with(1, |_| {}, |home, _| certify(home)).await;
    cluster.is(0, State::Ready).await;
    let server = cluster.servers[0].as_ref().unwrap();
    let (pg, http) = (server.pg, server.http);
    Running { _cluster: cluster, pg, http }
}

/// A certificate in a home, so that its server speaks TLS to those who begin with it.
fn certify(home: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = home.join(tls::KEY_FILE);
    std::fs::write(home.join(tls::CERTIFICATE_FILE), made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

impl Running {
    async fn client(&self, user: &str) -> Result<Client, tokio_postgres::Error> {
        let config = format!("host=127.0.0.1 port={} user={user} dbname=rota", self.pg.port());
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A whole session: in, a statement, and its answer.
    async fn sql(&self) -> bool {
        let Ok(client) = self.client("rota").await else { return false };
        client.simple_query("SELECT 1").await.is_ok()
    }

    /// A whole request, by `Authorization` or, without, as the open user.
    async fn get(&self, path: &str, authorization: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(self.http).await.ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }
}

/// Tries a few times, as applications do.
async fn within_some_attempts<F: Future<Output = bool>>(attempt: impl Fn() -> F) -> bool {
    for _ in 0..ATTEMPTS {
        if tokio::time::timeout(ATTEMPT, attempt()).await.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// Connections that say this much and no more.
async fn crowd(address: SocketAddr, count: usize, says: &'static [u8]) -> Vec<TcpStream> {
    let mut connecting = JoinSet::new();
    for _ in 0..count {
        connecting.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(says).await?;
            Ok::<_, std::io::Error>(stream)
        });
    }
    let mut connected = Vec::new();
    while let Some(stream) = connecting.join_next().await {
        connected.extend(stream.unwrap().ok());
    }
    connected
}

/// Returns when the server has ended the connection.
async fn ended(mut stream: TcpStream) {
    let mut ignored = Vec::new();
    let _ = stream.read_to_end(&mut ignored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crowds_that_say_nothing_keep_nobody_out() {
    let running = start().await;
    for (door, says) in [
        (running.pg, &b""[..]),
        (running.pg, b"\x00\x00\x00\x40\x00\x03\x00\x00user"),
        (running.http, b""),
        (running.http, b"POST /db/query HTTP/1.1\r\nHost: localhost\r\nX-"),
        (running.http, b"POST /db/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n["),
        (running.http, b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (running.http, b"\x16\x03\x01\x02\x00\x01"),
    ] {
        let silent = crowd(door, CROWD, says).await;
        let what = String::from_utf8_lossy(says);
        assert!(within_some_attempts(|| running.sql()).await, "PostgreSQL, {what:?}");
        let get = || async { running.get("/status", "").await == Some(200) };
        assert!(within_some_attempts(get).await, "HTTP, {what:?}");
        drop(silent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_too_long_to_begin_is_sent_away() {
    let running = start().await;
    let slow: [(SocketAddr, &'static [u8]); 7] = [
        (running.pg, b""),
        (running.pg, b"\x00\x00\x00\x40\x00\x03\x00\x00user"),
        (running.pg, b"\x16\x03\x01\x02\x00\x01"),
        // The same after a request for TLS.
        (running.pg, b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x16\x03\x01"),
        (running.http, b""),
        (running.http, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
        (running.http, b"\x16\x03\x01\x02\x00\x01"),
    ];
    let mut ends = JoinSet::new();
    for (door, says) in slow {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(says).await.unwrap();
        ends.spawn(ended(stream));
    }
    let all = async { while ends.join_next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, all).await.expect("a silent connection was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_now_and_then_does_not_make_a_head() {
    let running = start().await;
    let stream = TcpStream::connect(running.http).await.unwrap();
    let (mut heard, mut said) = stream.into_split();
    let dripping = tokio::spawn(async move {
        let _ = said.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
        let mut again = tokio::time::interval(LOOK * 100);
        while said.write_all(b"-").await.is_ok() {
            again.tick().await;
        }
    });
    let mut ignored = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, heard.read_to_end(&mut ignored)).await.unwrap();
    dripping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_get_in_when_all_other_places_are_taken() {
    let running = start().await;
    let administrator = running.client("rota").await.unwrap();
    administrator.batch_execute("CREATE USER ordinary").await.unwrap();
    let mut sessions = Vec::new();
    let refused = loop {
        match running.client("ordinary").await {
            Ok(client) => sessions.push(client),
            Err(error) => break error,
        }
        assert!(sessions.len() < CROWD, "there is no end to places");
    };
    assert_eq!(refused.code().map(|code| code.code()), Some("53300"), "{refused}");
    assert!(running.sql().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_are_answered_when_all_other_requests_are_too_many() {
    let running = start().await;
    let administrator = running.client("rota").await.unwrap();
    administrator.batch_execute("CREATE USER ordinary").await.unwrap();
    // `ordinary:` in base64, as a user without a password says it. What it asks for takes as long
    // as a read may, and hundreds wait for their turn.
    let endless: &[u8] = b"GET /db/query?q=WITH%20RECURSIVE%20c(x)%20AS%20(SELECT%201%20UNION\
        %20ALL%20SELECT%20x%2B1%20FROM%20c)%20SELECT%20count(*)%20FROM%20c HTTP/1.1\r\n\
        Host: localhost\r\nAuthorization: Basic b3JkaW5hcnk6\r\n\r\n";
    let _requests = crowd(running.http, 1_200, endless).await;
    let ordinary = "Authorization: Basic b3JkaW5hcnk6\r\n";
    let full = async { while running.get("/status", ordinary).await != Some(503) {} };
    tokio::time::timeout(PATIENCE, full).await.expect("there is no end to places");
    assert_eq!(running.get("/status", "").await, Some(200));
}
