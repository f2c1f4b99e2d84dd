//! Asking servers where they stand, over HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rota_node::status::ServerStatus;
use tokio::net::TcpStream;

use crate::address::HostPort;
use crate::failure::Failure;

/// How long a server may take for `/status`. It answers from memory: one that takes longer is as
/// good as down.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body of a GET, with its HTTP status.
pub async fn get(at: &HostPort, path: &str) -> Result<(hyper::StatusCode, Bytes), Failure> {
    let answer = tokio::time::timeout(PATIENCE, get_patiently(at, path)).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}").into()));
    answer.map_err(Failure::doing(format!("http://{at}{path}")))
}

async fn get_patiently(
    at: &HostPort,
    path: &str,
) -> Result<(hyper::StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((at.host.as_str(), at.port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, at.to_string())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

/// Where a server stands.
pub async fn status(at: &HostPort) -> Result<ServerStatus, Failure> {
    let (code, body) = get(at, "/status").await?;
    if !code.is_success() {
        return Err(Failure::new(format!("http://{at}/status answers {code}")));
    }
    parse_status(&body).map_err(|error| {
        Failure::new(format!(
            "http://{at}/status is not a Rota server's of version {}: {error}",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

/// `/status` keeps to rqlite's shape, one object per part; what Rota says of itself is the part
/// `rota`.
fn parse_status(body: &[u8]) -> Result<ServerStatus, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Parts {
        rota: ServerStatus,
    }
    serde_json::from_slice::<Parts>(body)
        .map(|parts| parts.rota)
        .or_else(|_| serde_json::from_slice(body))
}
