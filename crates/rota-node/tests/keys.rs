//! Clients with keys of their own: what they sign is executed once, through whichever server; and
//! a member of the cluster that signs, forges or repeats what is not its own gains nothing.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_core::codec::encode;
use rota_core::crypto::{SecretKey, Signature};
use rota_core::genesis::Administrator;
use rota_core::message::{Message, Recipient};
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Expiry, Settings, Transaction, Value};
use rota_core::types::{Height, NodeId, TransactionId};
use rota_node::driver::{ReadOptions, WriteOptions};
use rota_node::transport::{Inboxes, Incoming, Observer, Peer, Transport};
use rota_node::{State, WriteError, Written};
use rota_store::access::text_of;
use serde_json::Value as Json;
use support::{Cluster, PATIENCE, count, statement, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpc\
                        XkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn alice() -> SecretKey {
    SecretKey::from_bytes([77; 32])
}

/// A member's.
fn server_key(number: usize) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(number).unwrap() + 1; 32])
}

/// An envelope in the making.
struct Letter {
    salt: u8,
    user: &'static str,
    sql: String,
    /// Zero: expired.
    lives: Duration,
}

impl Letter {
    fn new(salt: u8, user: &'static str, sql: &str) -> Self {
        Self { salt, user, sql: sql.into(), lives: Duration::from_secs(60) }
    }

    async fn signed(&self, cluster: &Cluster, key: &SecretKey) -> Envelope {
        let now = cluster.driver(0).chain_now().await.unwrap();
        let expired = self.lives.is_zero();
        let time = if expired { Time(now.time_ms - 1_000) } else { Time(now.time_ms) };
        let time = time.plus(self.lives);
        let expiry = Expiry { height: Height(now.height.0 + 10_000), time };
        let transaction = Transaction {
            salt: [self.salt; 16],
            user: self.user.into(),
            statements: vec![statement(&self.sql, Vec::new())],
            settings: Settings::default(),
            interactive: None,
        };
        Envelope::sign(cluster.genesis.chain_id(), key, expiry, vec![transaction])
    }
}

fn id_of(cluster: &Cluster, envelope: &Envelope) -> TransactionId {
    envelope.transactions[0].id(cluster.genesis.chain_id(), envelope.signer)
}

async fn submit(
    cluster: &Cluster,
    server: usize,
    envelope: &Envelope,
) -> Result<Written, WriteError> {
    let deadline = Instant::now() + PATIENCE;
    let answers = cluster.driver(server).submit_envelope(envelope.clone(), deadline).await;
    answers.map_err(WriteError::from)?.into_iter().next().unwrap()
}

fn code(answer: Result<Written, WriteError>) -> String {
    answer.map_or_else(|error| error.refusal.code().into(), |_| "ok".into())
}

/// What an administrator hears of a transaction at a server.
async fn told(cluster: &Cluster, server: usize, id: TransactionId) -> String {
    let sql = statement(&format!("SELECT rota_transaction('{id}')"), Vec::new());
    let (settings, options) = (Settings::default(), ReadOptions::default());
    let rows = cluster.driver(server).read("rota", sql, settings, &options).await.unwrap();
    match &rows.rows[0][0] {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// Waits until every server that is up has executed it; what they say, which is the same.
async fn told_by_all(cluster: &Cluster, id: TransactionId) -> String {
    let up = (0..cluster.servers.len()).filter(|&server| cluster.servers[server].is_some());
    let mut all = Vec::new();
    for server in up {
        let look = async {
            let mut again = tokio::time::interval(support::LOOK);
            loop {
                again.tick().await;
                let text = told(cluster, server, id).await;
                // The words are in the log a moment later than the outcome.
                if text.starts_with("final") || (text.starts_with("failed") && text.len() > 40) {
                    return text;
                }
                write(&cluster.driver(0), "UPDATE nudge SET n = n + 1").await.unwrap();
            }
        };
        all.push(tokio::time::timeout(PATIENCE, look).await.expect("executed nowhere"));
    }
    all.dedup();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

struct Nobody;

impl Observer for Nobody {
    fn peer_is(&self, _: &NodeId, _: bool) {}

    fn dropped(&self, _: usize) {}
}

/// A member that says to its peers whatever it likes.
struct Mallory {
    transport: Transport,
    /// Each time that another member is connected.
    connected: mpsc::UnboundedReceiver<NodeId>,
}

impl Mallory {
    /// In place of the cluster's last server.
    async fn replaces_the_last(cluster: &mut Cluster) -> Self {
        let last = cluster.servers.len() - 1;
        cluster.stop(last).await;
        let others = cluster.servers.iter().enumerate().filter_map(|(number, server)| {
            let address = server.as_ref()?.peer.to_string();
            Some(Peer { key: server_key(number).public(), address, follows: false })
        });
        let (inboxes, mut votes, mut blocks) = Inboxes::new();
        let listen = "127.0.0.1:0".parse().unwrap();
        let peers = others.collect();
        let (key, chain) = (server_key(last), cluster.genesis.chain_id());
        let start = Transport::start(&key, chain, listen, peers, inboxes, Arc::new(Nobody)).await;
        let (news, connected) = mpsc::unbounded_channel();
        // What the others say is heard, and not heeded.
        tokio::spawn(async move { while blocks.recv().await.is_some() {} });
        tokio::spawn(async move {
            while let Some(incoming) = votes.recv().await {
                if let Incoming::Connected(peer) = incoming {
                    let _ = news.send(peer);
                }
            }
        });
        let mut mallory = Self { transport: start.unwrap(), connected };
        for _ in 0..last {
            mallory.connected().await;
        }
        mallory
    }

    /// Waits until another member is connected.
    async fn connected(&mut self) {
        let news = tokio::time::timeout(PATIENCE, self.connected.recv()).await;
        news.expect("nobody lets the member in").unwrap();
    }

    fn says(&self, envelope: &Envelope) {
        let message = Message::Envelopes(vec![Arc::new(envelope.clone())]);
        self.transport.send(&Recipient::Members, &message);
    }
}

/// Four servers, a table, and a user who signs for herself.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(4).await;
    cluster.is(0, State::Ready).await;
    let key = text_of(&alice().public());
    for sql in [
        "CREATE TABLE t(a PRIMARY KEY)",
        "CREATE TABLE nudge(n)",
        "INSERT INTO nudge VALUES (1)",
        &format!("CREATE USER alice KEY '{key}'"),
        "GRANT SELECT, INSERT ON t TO alice",
    ] {
        write(&cluster.driver(0), sql).await.unwrap();
    }
    for server in 1..4 {
        cluster.is(server, State::Ready).await;
    }
    cluster
}

async fn settled(cluster: &Cluster) -> Height {
    let height = write(&cluster.driver(0), "UPDATE nudge SET n = 0").await.unwrap().height;
    let up = (0..4).filter(|&server| cluster.servers[server].is_some());
    let mut roots = Vec::new();
    for server in up {
        roots.push(cluster.root(server, height).await);
    }
    roots.dedup();
    assert_eq!(roots.len(), 1);
    height
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_key_writes_through_any_server_and_once() {
    let cluster = cluster().await;
    let letter = Letter::new(1, "alice", "INSERT INTO t VALUES (1) RETURNING a + 1");
    let envelope = letter.signed(&cluster, &alice()).await;
    let written = submit(&cluster, 1, &envelope).await.unwrap();
    assert_eq!(written.results[0].rows.rows, [[Value::Integer(2)]]);
    for server in 0..4 {
        cluster.root(server, written.height).await; // it is executed there
        let again = submit(&cluster, server, &envelope).await.unwrap();
        assert_eq!((again.height, again.index), (written.height, written.index));
        assert!(again.results.is_empty(), "not executed again");
    }
    let twice = Letter::new(2, "alice", "INSERT INTO t VALUES (1)");
    let twice = twice.signed(&cluster, &alice()).await;
    let (one, other) = tokio::join!(submit(&cluster, 2, &twice), submit(&cluster, 2, &twice));
    assert_eq!((code(one), code(other)), ("23505".into(), "23505".into()), "sent twice at once");
    let forbidden = Letter::new(3, "alice", "DELETE FROM t").signed(&cluster, &alice()).await;
    assert_eq!(code(submit(&cluster, 3, &forbidden).await), "42501", "no grant");
    assert_eq!(count(&cluster.driver(0), settled(&cluster).await).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_refuses_what_is_forged_expired_or_somebody_elses() {
    let cluster = cluster().await;
    let insert = "INSERT INTO t VALUES (1)";
    let mut forged = Letter::new(1, "alice", insert).signed(&cluster, &alice()).await;
    forged.signature = Signature([7; 64]);
    let mut changed = Letter::new(2, "alice", insert).signed(&cluster, &alice()).await;
    changed.transactions[0].statements[0].sql = "INSERT INTO t VALUES (666)".into();
    let stranger = SecretKey::from_bytes([99; 32]);
    let strangers = Letter::new(3, "alice", insert).signed(&cluster, &stranger).await;
    let others = Letter::new(4, "rota", insert).signed(&cluster, &alice()).await;
    let servers = Letter::new(5, "alice", insert).signed(&cluster, &server_key(0)).await;
    let mut late = Letter::new(6, "alice", insert);
    late.lives = Duration::ZERO;
    let late = late.signed(&cluster, &alice()).await;
    let mut far = Letter::new(7, "alice", insert);
    far.lives = Duration::from_secs(4_000);
    let far = far.signed(&cluster, &alice()).await;
    let mut empty = Letter::new(8, "alice", insert).signed(&cluster, &alice()).await;
    empty.transactions.clear();
    let plain = Letter::new(9, "alice", "CREATE USER eve PASSWORD 'plain'");
    let plain = plain.signed(&cluster, &alice()).await;
    let begin = Letter::new(10, "alice", "BEGIN").signed(&cluster, &alice()).await;
    for (envelope, want) in [
        (forged, "42501"),
        (changed, "42501"),
        (strangers, "42501"),
        (others, "42501"),
        (servers, "42501"),
        (late, "40001"),
        (far, "08P01"),
        (empty, "08P01"),
        (plain, "42501"),
        (begin, "25000"),
    ] {
        let salt = envelope.transactions.first().map(|transaction| transaction.salt[0]);
        assert_eq!(code(submit(&cluster, 0, &envelope).await), want, "{salt:?}");
    }
    assert_eq!(count(&cluster.driver(0), settled(&cluster).await).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cannot_sign_for_those_who_do_not_let_it() {
    let mut cluster = cluster().await;
    let first = text_of(&server_key(0).public());
    for sql in [
        &format!("CREATE USER bob PASSWORD '{VERIFIER}' SERVERS '{first}'"),
        "GRANT INSERT ON t TO bob",
    ] {
        write(&cluster.driver(0), sql).await.unwrap();
    }
    let mallory = Mallory::replaces_the_last(&mut cluster).await;
    let (own, stranger) = (server_key(3), SecretKey::from_bytes([99; 32]));
    let insert = "INSERT INTO t VALUES (1)";
    for (salt, user, sql, key, words) in [
        (1, "alice", insert, &own, "only its own key signs for user"),
        (2, "bob", insert, &own, "may not sign for user"),
        (3, "alice", insert, &stranger, "may not sign"),
        (4, "nobody", insert, &own, "there is no user"),
        (5, "rota", "CREATE USER eve PASSWORD 'plain'", &own, "42501"),
        (6, "bob", insert, &alice(), "may not sign for user"),
    ] {
        let envelope = Letter::new(salt, user, sql).signed(&cluster, key).await;
        mallory.says(&envelope);
        let told = told_by_all(&cluster, id_of(&cluster, &envelope)).await;
        assert!(told.starts_with("failed 42501") && told.contains(words), "{salt}: {told}");
    }
    assert_eq!(count(&cluster.driver(0), settled(&cluster).await).await, 0);
    // What it may: hand on what others have signed; and only once does that count.
    let hers = Letter::new(7, "alice", insert).signed(&cluster, &alice()).await;
    mallory.says(&hers);
    let told = told_by_all(&cluster, id_of(&cluster, &hers)).await;
    assert!(told.starts_with("final"), "{told}");
    mallory.says(&hers);
    mallory.says(&Letter::new(8, "rota", "INSERT INTO t VALUES (2)").signed(&cluster, &own).await);
    let height = settled(&cluster).await;
    assert!(count(&cluster.driver(0), height).await >= 1);
    assert_eq!(told_by_all(&cluster, id_of(&cluster, &hers)).await, told, "where it was");
    // Its own server's door does not let it in either.
    let (driver, options) = (cluster.driver(1), WriteOptions::default());
    let statements = vec![statement(insert, Vec::new())];
    let denied = driver.write("bob", statements, Settings::default(), &options).await;
    assert_eq!(code(denied), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_signatures_and_expired_envelopes_go_nowhere() {
    let mut cluster = cluster().await;
    let mut mallory = Mallory::replaces_the_last(&mut cluster).await;
    let mut late = Letter::new(1, "alice", "INSERT INTO t VALUES (1)");
    late.lives = Duration::ZERO;
    let late = late.signed(&cluster, &alice()).await;
    mallory.says(&late);
    let mut forged =
        Letter::new(2, "alice", "INSERT INTO t VALUES (2)").signed(&cluster, &alice()).await;
    forged.signature = Signature([7; 64]);
    mallory.says(&forged);
    for _ in 0..3 {
        mallory.connected().await; // again: a peer that sends such a thing loses its connection
    }
    let height = settled(&cluster).await;
    assert_eq!(count(&cluster.driver(0), height).await, 0);
    for envelope in [late, forged] {
        for server in 0..3 {
            assert_eq!(told(&cluster, server, id_of(&cluster, &envelope)).await, "unknown");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_change_by_an_administrators_own_key_where_servers_are_not_trusted() {
    let root = SecretKey::from_bytes([88; 32]);
    let administrator = Administrator {
        name: "root".into(),
        key: Some(root.public()),
        verifier: Some(VERIFIER.into()),
    };
    let genesis_is = move |genesis: &mut rota_core::genesis::Genesis| {
        genesis.trusted_servers = false;
        genesis.administrators = vec![administrator.clone()];
    };
    let cluster = Cluster::start_with(4, genesis_is, |_, _| {}).await;
    cluster.is(0, State::Ready).await;
    let by_server = |sql: &str| {
        let (driver, statements) = (cluster.driver(0), vec![statement(sql, Vec::new())]);
        async move {
            let options = WriteOptions::default();
            code(driver.write("root", statements, Settings::default(), &options).await)
        }
    };
    assert_eq!(by_server("CREATE TABLE t(a)").await, "ok", "data, by password");
    assert_eq!(by_server("CREATE USER eve ADMINISTRATOR").await, "42501");
    assert_eq!(by_server("GRANT ALL ON t TO PUBLIC").await, "42501");
    let create = Letter::new(1, "root", "CREATE USER bob").signed(&cluster, &root).await;
    assert_eq!(code(submit(&cluster, 0, &create).await), "ok");
    assert!(cluster.driver(0).access().user("bob").is_some());
    assert!(cluster.driver(0).access().user("eve").is_none());
}

/// An HTTP request; status and body.
async fn http(cluster: &Cluster, head: &str, body: &[u8]) -> (u16, Json) {
    let at = cluster.servers[0].as_ref().unwrap().http;
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let length = body.len();
    let head = format!("{head}\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {length}");
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    // A server that has heard enough of a body may stop listening to it.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Json::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_come_over_http_and_blocks_are_shown_there() {
    let cluster = cluster().await;
    let (status, chain) = http(&cluster, "GET /chain HTTP/1.1", b"").await;
    assert_eq!((status, &chain["trusted_servers"]), (200, &Json::Bool(true)));
    assert_eq!(chain["chain"], cluster.genesis.chain_id().to_string());
    assert!(chain["chain_time"].as_u64().unwrap() >= chain["block_time"].as_u64().unwrap());
    for (key, user) in [
        (text_of(&alice().public()), "alice".into()),
        (text_of(&server_key(0).public()), Json::Null),
    ] {
        let (_, about) = http(&cluster, &format!("GET /chain?key={key} HTTP/1.1"), b"").await;
        assert_eq!(about["user"], user);
    }
    let letter = Letter::new(1, "alice", "INSERT INTO t VALUES (1), (x'00ff') RETURNING a");
    let envelope = encode(&letter.signed(&cluster, &alice()).await);
    let binary =
        "POST /chain/transactions HTTP/1.1\r\nContent-Type: application/octet-stream".to_owned();
    let (status, first) = http(&cluster, &binary, &envelope).await;
    assert_eq!(status, 200, "{first}");
    let first = &first["transactions"][0];
    assert_eq!(first["outcome"], "final");
    assert_eq!(first["results"][0]["tag"], "INSERT 0 2");
    assert_eq!(first["results"][0]["rows"].to_string(), r#"[[1],[{"blob":"00ff"}]]"#);
    // Again, as text: what became of it.
    let hex = hex::encode(&envelope);
    let (status, again) = http(&cluster, "POST /chain/transactions HTTP/1.1", hex.as_bytes()).await;
    let again = &again["transactions"][0];
    assert_eq!((status, &again["height"], &again["id"]), (200, &first["height"], &first["id"]));
    assert_eq!(again["results"], Json::Null);
    let mut broken = envelope.clone();
    *broken.last_mut().unwrap() ^= 1;
    for (body, want) in [
        (broken.as_slice(), 403),
        (&envelope[1..], 400),
        (b"", 400),
        (&[0; 4 << 20], 400),
        (&[0; 9 << 20], 413),
    ] {
        let (status, why) = http(&cluster, &binary, body).await;
        assert_eq!(status, want, "{} bytes: {why}", body.len());
    }
    // This server lets anybody from this machine in as `rota`, an administrator.
    let path = format!("GET /chain/transactions/{} HTTP/1.1", first["id"].as_str().unwrap());
    let (_, told) = http(&cluster, &path, b"").await;
    assert_eq!((&told["outcome"], &told["user"]), (&"final".into(), &"alice".into()));
    // What became of a block's transactions is written down with the next block.
    write(&cluster.driver(0), "UPDATE nudge SET n = n + 1").await.unwrap();
    let path = format!("GET /chain/blocks/{} HTTP/1.1", first["height"]);
    let (_, block) = http(&cluster, &path, b"").await;
    let shown = &block["transactions"][0];
    assert_eq!((&shown["id"], &shown["user"]), (&first["id"], &"alice".into()), "{block}");
    assert_eq!(shown["statements"][0]["sql"], letter.sql);
    assert_eq!(http(&cluster, "GET /chain/blocks/9999999 HTTP/1.1", b"").await.0, 404);
    assert_eq!(http(&cluster, "GET /chain/blocks/x HTTP/1.1", b"").await.0, 400);
}
