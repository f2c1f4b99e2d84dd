//! What a server says of passwords, verifiers and keys, in its log and in its errors: nothing. The
//! log is that of the whole process, at its most talkative, so this test has a process of its own.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_core::transaction::{Settings, Value};
use rota_node::State;
use rota_node::driver::ReadOptions;
use support::{Cluster, statement};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

const PASSWORD: &str = "correct horse";
const WRONG: &str = "battery staple";

/// Where the log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log and all answers, in which no secret may stand.
struct Heard {
    log: Log,
    answers: Vec<String>,
}

impl Heard {
    fn listen() -> Self {
        let log = Log::default();
        let written = log.clone();
        tracing_subscriber::fmt()
            .with_env_filter("rota_core=trace,rota_store=trace,rota_node=trace,info")
            .with_writer(move || written.clone())
            .init();
        Self { log, answers: Vec::new() }
    }

    #[track_caller]
    fn is_free_of(&self, secrets: &[String]) {
        let log = String::from_utf8_lossy(&self.log.0.lock().unwrap()).into_owned();
        assert!(log.contains("could not log in"), "the log was not heard: {log}");
        for secret in secrets {
            assert!(secret.len() > 8);
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{secret:?} is in the log");
            let answer = self.answers.iter().find(|answer| answer.contains(secret.as_str()));
            assert_eq!(answer, None, "{secret:?} is in an answer");
        }
    }

    async fn pg(&mut self, client: &Client, sql: &str) {
        for said in [client.batch_execute(sql).await, client.execute(sql, &[]).await.map(drop)] {
            self.answers.push(said.map_or_else(|error| format!("{error:?}"), |()| "ok".into()));
        }
    }

    async fn http(&mut self, cluster: &Cluster, path: &str, user: &str, body: &str) {
        let address = cluster.servers[0].as_ref().unwrap().http;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (length, user) = (body.len(), STANDARD.encode(user));
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: \
             {length}\r\nContent-Type: application/json\r\nAuthorization: Basic \
             {user}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        self.answers.push(String::from_utf8_lossy(&answer).into_owned());
    }
}

async fn connect(cluster: &Cluster, user: &str, password: &str) -> Result<Client, String> {
    let port = cluster.servers[0].as_ref().unwrap().pg.port();
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(user).dbname("rota").password(password);
    let (client, connection) = config.connect(NoTls).await.map_err(|error| format!("{error:?}"))?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_nor_in_an_answer() {
    let mut heard = Heard::listen();
    let cluster = Cluster::start(1).await;
    cluster.is(0, State::Ready).await;
    let rota = connect(&cluster, "rota", "").await.unwrap();
    heard.pg(&rota, &format!("CREATE USER ada PASSWORD '{PASSWORD}'")).await;
    heard.pg(&rota, "CREATE USER bob").await;
    let bob = connect(&cluster, "bob", "").await.unwrap();
    for sql in [
        format!("ALTER USER ada PASSWORD '{PASSWORD}'"),
        format!("ALTER USER ada PASSWORD '{PASSWORD}' AND MORE"),
        format!("ALTER USER ada PASSWORD '{PASSWORD}' PASSWORD '{PASSWORD}'"),
        format!("ALTER USER ada PASSWORD \"{PASSWORD}\""),
        format!("ALTER USER ada PASWORD '{PASSWORD}'"),
        format!("ALTER USER ada '{PASSWORD}'"),
        format!("ALTER USER ada PASSWORD '{PASSWORD}"),
        format!("ALTER USER nobody PASSWORD '{PASSWORD}'"),
        format!("ALTER USER rota PASSWORD 'SCRAM-SHA-256$1:{PASSWORD}'; SELECT nonsense"),
        format!("BEGIN; ALTER USER ada PASSWORD '{PASSWORD}'; ROLLBACK"),
        format!("EXPLAIN ALTER USER ada PASSWORD '{PASSWORD}'"),
        format!("CRATE USER eve PASSWORD '{PASSWORD}'"),
        format!("ALTER USER ada KEY '{PASSWORD}'"),
        format!("ALTER USER ada SERVERS '{PASSWORD}'"),
    ] {
        heard.pg(&rota, &sql).await;
        heard.pg(&bob, &sql).await;
        let body = serde_json::json!([sql]).to_string();
        heard.http(&cluster, "/db/execute", "rota:", &body).await;
        heard.http(&cluster, "/db/request?transaction", "bob:", &body).await;
        let request = serde_json::json!({ "type": "execute", "stmt": { "sql": sql } });
        let body = serde_json::json!({ "requests": [request] }).to_string();
        heard.http(&cluster, "/v2/pipeline", "rota:", &body).await;
    }
    assert!(connect(&cluster, "ada", PASSWORD).await.is_ok(), "{:?}", heard.answers);
    for (user, password) in [("ada", WRONG), ("nobody", PASSWORD), ("rota2", WRONG)] {
        heard.answers.push(connect(&cluster, user, password).await.unwrap_err());
        heard.http(&cluster, "/db/query", &format!("{user}:{password}"), "[\"SELECT 1\"]").await;
    }
    let as_ada = format!("ada:{PASSWORD}");
    heard.http(&cluster, "/db/query", &as_ada, "[\"SELECT verifier FROM rota_users\"]").await;
    let others = "[\"SELECT * FROM chain.transactions\", \"SELECT * FROM pg_shadow\", \
                  \"SELECT * FROM pg_authid\"]";
    for who in [as_ada.as_str(), "bob:"] {
        heard.http(&cluster, "/db/query", who, others).await;
    }

    let verifier = statement("SELECT verifier FROM rota_users WHERE name = 'ada'", Vec::new());
    let (driver, options) = (cluster.driver(0), ReadOptions::default());
    let found = driver.read("rota", verifier, Settings::default(), &options).await;
    let rows = found.unwrap().rows;
    let Value::Text(verifier) = &rows[0][0] else { panic!("{rows:?}") };
    let parts = verifier.split(['$', ':']).filter(|part| part.len() > 20).map(str::to_owned);
    let mut secrets: Vec<String> = parts.collect();
    assert_eq!(secrets.len(), 3, "salt and two keys: {verifier}");
    secrets.extend([PASSWORD, WRONG].map(str::to_owned));
    let pairs = [("ada", PASSWORD), ("ada", WRONG), ("nobody", PASSWORD), ("rota2", WRONG)];
    secrets.extend(pairs.map(|(user, password)| STANDARD.encode(format!("{user}:{password}"))));
    // The server's own key, as bytes are shown.
    secrets.extend(["01".repeat(32), "1, ".repeat(32)]);
    heard.is_free_of(&secrets);
}
