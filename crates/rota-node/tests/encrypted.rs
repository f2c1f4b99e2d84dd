//! HTTP where other machines can reach it: over TLS only, with a login.

mod support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rota_node::tls;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use support::Cluster;

/// A certificate in a home, for clients to trust.
fn certify(home: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["db.example".to_owned()]).unwrap();
    let key = home.join(tls::KEY_FILE);
    std::fs::write(home.join(tls::CERTIFICATE_FILE), made.cert.pem()).unwrap();
    std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    made.cert.der().clone()
}

/// A server that listens everywhere, and its certificate.
async fn start() -> (Cluster, SocketAddr, TlsConnector) {
    let certificate = Mutex::new(None);
    let cluster = Cluster::start_with(
        1,
        |_| {},
        |home, config| {
            *certificate.lock().unwrap() = Some(certify(home));
            config.http = "0.0.0.0:0".parse().unwrap();
            config.pg = config.http;
            config.open = false;
        },
    );
    let cluster = cluster.await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.lock().unwrap().take().unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let port = cluster.servers[0].as_ref().unwrap().http.port();
    (cluster, ([127, 0, 0, 1], port).into(), Arc::new(config).into())
}

/// The whole answer to a request.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, more: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: db.example\r\n{more}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_are_told_to_come_over_tls() {
    let (_cluster, address, _) = start().await;
    let plain = TcpStream::connect(address).await.unwrap();
    let answer = ask(plain, "/readyz", "").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_login_is_needed_for_all_but_whether_it_is_ready() {
    let (_cluster, address, connector) = start().await;
    // `rota:` and `rota:wrong`: a user without a password cannot log in where it is not open.
    for (path, said, code) in [
        ("/readyz", "", "200"),
        ("/status", "", "401"),
        ("/status", "Authorization: Basic cm90YTo=\r\n", "401"),
        ("/db/query?q=SELECT%201", "Authorization: Basic cm90YTp3cm9uZw==\r\n", "401"),
        ("/nowhere", "", "401"),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("db.example").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let answer = ask(stream, path, said).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{path} {said}: {answer}");
        let asks = answer.to_ascii_lowercase().contains("www-authenticate: basic realm=\"rota\"");
        assert_eq!(asks, code == "401", "{answer}");
    }
}
