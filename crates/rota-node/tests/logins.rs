//! Who gets in at the PostgreSQL door, and how: passwords by SCRAM, TLS asked for and direct,
//! channel binding; and what becomes of a session whose user changes under it.

mod support;

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rota_core::genesis::Administrator;
use rota_node::auth::scram;
use rota_node::tls;
use rustls::pki_types::ServerName;
use support::{Cluster, PATIENCE};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};
use tokio_rustls::TlsConnector;

/// A client's TLS: what it trusts, and whether it binds its password's proof to what it was shown.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    binds: bool,
}

/// A certificate in a home, and a client that trusts it.
fn certify(home: &Path) -> Tls {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = home.join(tls::KEY_FILE);
    std::fs::write(home.join(tls::CERTIFICATE_FILE), made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![tls::PG_PROTOCOL.to_vec()];
    Tls { connector: Arc::new(config).into(), binds: true }
}

struct Encrypted {
    stream: tokio_rustls::client::TlsStream<tokio_postgres::Socket>,
    binds: bool,
}

impl MakeTlsConnect<tokio_postgres::Socket> for Tls {
    type Stream = Encrypted;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl TlsConnect<tokio_postgres::Socket> for Tls {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, socket: tokio_postgres::Socket) -> Self::Future {
        let name = ServerName::try_from("localhost").unwrap();
        Box::pin(async move {
            let stream = self.connector.connect(name, socket).await?;
            Ok(Encrypted { stream, binds: self.binds })
        })
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        use sha2::Digest;
        let shown = self.stream.get_ref().1.peer_certificates();
        match shown.and_then(|shown| shown.first()) {
            Some(shown) if self.binds => {
                ChannelBinding::tls_server_end_point(sha2::Sha256::digest(shown).to_vec())
            }
            _ => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn port(cluster: &Cluster) -> u16 {
    cluster.servers[0].as_ref().unwrap().pg.port()
}

fn config(cluster: &Cluster, user: &str, more: &str) -> Config {
    let port = port(cluster);
    let config = format!("host=127.0.0.1 port={port} user={user} dbname=rota {more}");
    config.parse().unwrap()
}

async fn plain(cluster: &Cluster, user: &str, more: &str) -> Result<Client, Error> {
    let (client, connection) = config(cluster, user, more).connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn encrypted(cluster: &Cluster, tls: &Tls, user: &str, more: &str) -> Result<Client, Error> {
    let mut config = config(cluster, user, more);
    let (client, connection) = config.ssl_mode(SslMode::Require).connect(tls.clone()).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ask(client: &Client, sql: &str) -> Result<Vec<String>, Error> {
    let messages = client.simple_query(sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let shown = rows.map(|row| {
        let values = (0..row.len()).map(|place| row.get(place).unwrap_or_default());
        values.collect::<Vec<_>>().join("|")
    });
    Ok(shown.collect())
}

/// SQLSTATE and message of a refusal.
fn refused<T>(result: Result<T, Error>) -> (String, String) {
    let error = result.err().expect("it was let in");
    let told = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (told.code().code().to_owned(), told.message().to_owned())
}

fn code<T>(result: Result<T, Error>) -> String {
    refused(result).0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_lets_in_who_knows_it_and_nobody_learns_who_there_is() {
    let cluster = Cluster::start(1).await;
    let rota = plain(&cluster, "rota", "").await.unwrap();
    rota.batch_execute("CREATE USER alice PASSWORD 'right'; CREATE ROLE team").await.unwrap();
    let alice = plain(&cluster, "alice", "password=right").await.unwrap();
    let who = "SELECT current_user, session_user, user; SHOW is_superuser";
    assert_eq!(ask(&alice, who).await.unwrap(), ["alice|alice|alice", "off"]);
    assert_eq!(ask(&rota, who).await.unwrap(), ["rota|rota|rota", "on"]);
    for user in ["alice", "nobody", "team"] {
        let (code, message) = refused(plain(&cluster, user, "password=wrong").await);
        assert_eq!(code, "28P01");
        assert_eq!(message, format!("password authentication failed for user \"{user}\""));
    }
    // As psql's \password has it.
    let verifier = scram::derive("other", b"0123456789abcdef", scram::ITERATIONS);
    alice.batch_execute(&format!("ALTER USER \"alice\" PASSWORD '{verifier}'")).await.unwrap();
    assert_eq!(code(plain(&cluster, "alice", "password=right").await), "28P01");
    assert!(plain(&cluster, "alice", "password=other").await.is_ok());
    rota.batch_execute("ALTER USER alice NOLOGIN").await.unwrap();
    assert_eq!(code(plain(&cluster, "alice", "password=other").await), "28P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_proof_is_bound_to_the_certificate_or_not() {
    let tls = std::sync::Mutex::new(None);
    let certified = |home: &Path, _: &mut _| *tls.lock().unwrap() = Some(certify(home));
    let cluster = Cluster::start_with(1, |_| {}, certified).await;
    let tls = tls.lock().unwrap().take().unwrap();
    let rota = plain(&cluster, "rota", "").await.unwrap();
    rota.batch_execute("CREATE USER alice PASSWORD 'right'").await.unwrap();
    let unbound = Tls { binds: false, ..tls.clone() };
    for (tls, more) in [
        (&tls, "channel_binding=require"),
        (&tls, "channel_binding=require sslnegotiation=direct"),
        (&unbound, "channel_binding=disable"),
    ] {
        let right = encrypted(&cluster, tls, "alice", &format!("password=right {more}")).await;
        assert_eq!(ask(&right.unwrap(), "SHOW ssl").await.unwrap(), ["on"], "{more}");
        let wrong = encrypted(&cluster, tls, "alice", &format!("password=wrong {more}")).await;
        assert_eq!(code(wrong), "28P01", "{more}");
    }
    // Without TLS there is nothing to bind to, and that was not the client's doing.
    assert!(plain(&cluster, "alice", "password=right").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_others_can_listen_passwords_travel_over_tls_only() {
    let tls = std::sync::Mutex::new(None);
    let verifier = scram::derive("right", b"0123456789abcdef", scram::ITERATIONS).to_string();
    let cluster = Cluster::start_with(
        1,
        |genesis| {
            let rota = Administrator::open("rota");
            genesis.administrators =
                vec![Administrator { verifier: Some(verifier.clone()), ..rota }];
        },
        |home, config| {
            *tls.lock().unwrap() = Some(certify(home));
            config.pg = "0.0.0.0:0".parse().unwrap();
        },
    )
    .await;
    let tls = tls.lock().unwrap().take().unwrap();
    let (code, message) = refused(plain(&cluster, "rota", "password=right").await);
    assert!(code == "28000" && message.contains("sslmode"), "{code} {message}");
    assert!(encrypted(&cluster, &tls, "rota", "password=right").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_in_clear_before_tls_is_never_taken_for_what_was_sent_over_it() {
    let certified = |home: &Path, _: &mut _| drop(certify(home));
    let cluster = Cluster::start_with(1, |_| {}, certified).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port(&cluster))).await.unwrap();
    // SSLRequest, and a Query that somebody on the way has put after it.
    let request = b"\0\0\0\x08\x04\xd2\x16\x2fQ\0\0\0\x0dSELECT 1\0";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("FATAL") && answer.contains("unencrypted data"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_cancelled_over_tls_too() {
    let tls = std::sync::Mutex::new(None);
    let certified = |home: &Path, _: &mut _| *tls.lock().unwrap() = Some(certify(home));
    let cluster = Cluster::start_with(1, |_| {}, certified).await;
    let tls = tls.lock().unwrap().take().unwrap();
    let client = encrypted(&cluster, &tls, "rota", "").await.unwrap();
    let token = client.cancel_token();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT max(i) FROM n";
    let running = ask(&client, endless);
    let cancelling = async {
        // It may come before the statement does: then it finds nothing to cancel.
        let mut again = tokio::time::interval(support::LOOK);
        loop {
            again.tick().await;
            token.cancel_query(tls.clone()).await.unwrap();
        }
    };
    let cancelled = tokio::select! {
        result = running => result,
        () = cancelling => unreachable!("it has no end"),
    };
    assert_eq!(code(cancelled), "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_revoked_is_missed_by_the_next_statement() {
    let cluster = Cluster::start(1).await;
    let rota = plain(&cluster, "rota", "").await.unwrap();
    rota.batch_execute(
        "CREATE TABLE t (a INT PRIMARY KEY); CREATE USER alice PASSWORD 'x'; \
         GRANT SELECT, INSERT ON t TO alice",
    )
    .await
    .unwrap();
    let alice = plain(&cluster, "alice", "password=x").await.unwrap();
    let insert = alice.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    let select = alice.prepare("SELECT a FROM t").await.unwrap();
    alice.execute(&insert, &[&1]).await.unwrap();
    assert_eq!(alice.query(&select, &[]).await.unwrap().len(), 1);
    assert_eq!(code(ask(&alice, "UPDATE t SET a = 2").await), "42501");
    assert_eq!(code(ask(&alice, "CREATE USER eve").await), "42501");
    rota.batch_execute("REVOKE ALL ON t FROM alice").await.unwrap();
    assert_eq!(code(alice.execute(&insert, &[&2]).await), "42501");
    let select = alice.query(&select, &[]).await;
    assert_eq!(refused(select).1, "permission denied for table t");
    assert_eq!(ask(&alice, "SELECT has_table_privilege('t', 'SELECT')").await.unwrap(), ["f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_a_user_that_is_dropped_ends_with_its_next_statement() {
    let cluster = Cluster::start(1).await;
    let rota = plain(&cluster, "rota", "").await.unwrap();
    rota.batch_execute("CREATE USER alice PASSWORD 'x'; CREATE USER bob PASSWORD 'x'")
        .await
        .unwrap();
    let alice = plain(&cluster, "alice", "password=x").await.unwrap();
    let bob = plain(&cluster, "bob", "password=x").await.unwrap();
    bob.batch_execute("BEGIN; SELECT 1").await.unwrap();
    rota.batch_execute("DROP USER alice; DROP USER bob").await.unwrap();
    for client in [alice, bob] {
        assert_eq!(code(ask(&client, "SELECT 1").await), "28000");
        assert!(client.is_closed() || ask(&client, "SELECT 1").await.is_err());
    }
    assert_eq!(code(plain(&cluster, "alice", "password=x").await), "28P01");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_go_on_as_another_user_of_its_name() {
    let cluster = Cluster::start(1).await;
    let rota = plain(&cluster, "rota", "").await.unwrap();
    for (user, change) in [
        ("ann", "DROP USER ann; CREATE USER ann PASSWORD 'y'"),
        ("bob", "ALTER USER bob RENAME TO bill; CREATE USER bob PASSWORD 'x'"),
        ("eve", "ALTER USER eve PASSWORD 'y'"),
    ] {
        rota.batch_execute(&format!("CREATE USER {user} PASSWORD 'x'")).await.unwrap();
        let idle = plain(&cluster, user, "password=x").await.unwrap();
        let busy = plain(&cluster, user, "password=x").await.unwrap();
        busy.batch_execute("BEGIN; SELECT 1").await.unwrap();
        rota.batch_execute(change).await.unwrap();
        assert_eq!(code(ask(&idle, "SELECT 1").await), "28000", "{change}");
        assert_eq!(code(ask(&busy, "COMMIT").await), "28000", "{change}");
        assert!(idle.is_closed() || ask(&idle, "SELECT 1").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_the_own_password_stays() {
    let cluster = Cluster::start(1).await;
    let rota = plain(&cluster, "rota", "").await.unwrap();
    rota.batch_execute("CREATE USER ann PASSWORD '0' ADMINISTRATOR").await.unwrap();
    let ann = plain(&cluster, "ann", "password=0").await.unwrap();
    for change in [
        "ALTER USER ann PASSWORD '1'",
        "ALTER USER CURRENT_USER PASSWORD '2'",
        "BEGIN; ALTER USER ann PASSWORD '3'; SELECT 1; COMMIT",
        "BEGIN; ALTER USER ann PASSWORD '4'; ROLLBACK",
        "SET rota.wait = 'none'",
        "ALTER USER ann PASSWORD '5'",
        "SET rota.wait = 'final'",
    ] {
        ann.batch_execute(change).await.unwrap();
        assert_eq!(ask(&ann, "SELECT current_user").await.unwrap(), ["ann"], "{change}");
    }
    ann.batch_execute("CREATE TABLE t (a INT)").await.unwrap();
    assert_eq!(ask(&ann, "SELECT 1").await.unwrap(), ["1"]);
    rota.batch_execute("ALTER USER ann PASSWORD '6'").await.unwrap();
    assert_eq!(code(ask(&ann, "SELECT 1").await), "28000");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_grants_change_in_transactions_and_by_both_protocols() {
    let cluster = Cluster::start(1).await;
    let rota = plain(&cluster, "rota", "").await.unwrap();
    let names = "SELECT rolname FROM pg_roles ORDER BY 1";
    rota.batch_execute("BEGIN; CREATE USER a; CREATE TABLE t (x INT)").await.unwrap();
    assert_eq!(ask(&rota, names).await.unwrap(), ["a", "rota"]);
    rota.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ask(&rota, names).await.unwrap(), ["rota"]);
    rota.batch_execute(
        "BEGIN; CREATE TABLE t (x INT); CREATE USER a; GRANT SELECT ON t TO a; COMMIT",
    )
    .await
    .unwrap();
    rota.execute("GRANT INSERT ON t TO a", &[]).await.unwrap();
    rota.execute("GRANT USAGE ON SCHEMA public TO a", &[]).await.unwrap();
    rota.execute("CREATE USER b IN ROLE a", &[]).await.unwrap();
    rota.execute("GRANT UPDATE ON t TO CURRENT_USER", &[]).await.unwrap();
    let rights = "SELECT pg_has_role('b', 'a', 'MEMBER'), has_table_privilege('b', 't', 'INSERT'), \
                  has_table_privilege('b', 't', 'DELETE'), \
                  (SELECT relacl FROM pg_class WHERE relname = 't')";
    let want = ["t|t|f|{rota=arwdC/rota,a=ar/rota}"];
    assert_eq!(ask(&rota, rights).await.unwrap(), want);
    assert_eq!(code(ask(&rota, "CREATE USER a").await), "42710");
    assert_eq!(code(ask(&rota, "DROP USER nobody").await), "42704");
    assert_eq!(code(ask(&rota, "GRANT SELECT ON t TO a WITH GRANT OPTION").await), "0A000");
}
