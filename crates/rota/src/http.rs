//! Asking servers over HTTP, as any client would: over TLS, with a password, where they want it.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rota_node::status::ServerStatus;
use rota_node::tls::HTTP_PROTOCOL;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::{HostPort, Http, USER_AND_DATABASE};
use crate::failure::{Failure, Kind};
use crate::trust::{self, Check, Secret, Trust};

/// How long a server may take for `/status`. It answers from memory: one that takes longer is as
/// good as down.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection may take, hand-shake included.
const CONNECTING: Duration = Duration::from_secs(10);

/// What goes wrong between here and a server.
type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// A server's HTTP door, and how to pass it.
#[derive(Clone)]
pub struct Web {
    at: HostPort,
    connector: Option<TlsConnector>,
    user: String,
    /// Whether the user was asked for: then nobody else is to be logged in.
    named: bool,
    password: Arc<Mutex<Option<Secret>>>,
    trust: Trust,
}

impl Web {
    /// By an address.
    pub fn new(http: &Http, trust: &Trust) -> Result<Self, Failure> {
        let connector = match http.tls {
            false => None,
            true => {
                let config = trust::client(Check::All, trust.ca(), HTTP_PROTOCOL)?;
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        // A password in the environment is not sent where others may read it on its way.
        let private = http.tls || http.at.is_loopback();
        let from_environment = || trust.password().filter(|_| private).cloned();
        Ok(Self {
            at: http.at.clone(),
            connector,
            named: http.user.is_some(),
            user: http.user.clone().unwrap_or_else(|| USER_AND_DATABASE.into()),
            password: Arc::new(Mutex::new(http.password.clone().or_else(from_environment))),
            trust: trust.clone(),
        })
    }

    /// A server of `rota dev`, which wants no password unless its user was given one.
    pub fn open(at: HostPort) -> Self {
        Self {
            at,
            connector: None,
            user: USER_AND_DATABASE.into(),
            named: false,
            password: Arc::default(),
            trust: Trust::silent(),
        }
    }

    /// A path's whole address, for messages.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.connector.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.at)
    }

    /// The body of a GET, with its HTTP status.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        let answer = self.send(Method::GET, path, None, Bytes::new(), PATIENCE).await?;
        let status = answer.status();
        let body = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await;
        let late = Failure::doing(format!("{}: no whole answer within", self.url(path)));
        let body = body.map_err(|_| late(format!("{PATIENCE:?}")))?;
        Ok((status, body.map_err(Failure::doing(self.url(path)))?.to_bytes()))
    }

    /// Sends a request and waits for the beginning of its answer. Asks for a password where the
    /// server wants one and none is known.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let attempt = async |password: Option<Secret>| {
            let attempt = self.attempt(&method, path, content_type, body.clone(), password);
            match tokio::time::timeout(patience, attempt).await {
                Err(_) => {
                    Err(Failure::new(format!("{}: no answer within {patience:?}", self.url(path))))
                }
                Ok(answer) => answer.map_err(|trouble| self.failed(path, &*trouble)),
            }
        };
        let known = self.password();
        let answer = attempt(known.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let asked = if known.is_none() { self.trust.ask(&self.user) } else { None };
        let Some(password) = asked else {
            let (url, user) = (self.url(path), &self.user);
            let message = match known {
                Some(_) => format!("{url}: wrong user or password ({user})"),
                None => format!(
                    "{url} wants a password of user {user}: put it in ROTA_PASSWORD, or in the \
                     address: https://{user}:PASSWORD@HOST:PORT"
                ),
            };
            return Err(Failure::of(Kind::NoLogin, message));
        };
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = Some(password.clone());
        let answer = attempt(Some(password)).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => {
                let message = format!("{}: wrong user or password", self.url(path));
                Err(Failure::of(Kind::NoLogin, message))
            }
            _ => Ok(answer),
        }
    }

    fn password(&self) -> Option<Secret> {
        self.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, path: &str, trouble: &(dyn std::error::Error + 'static)) -> Failure {
        let (kind, why) =
            trust::explain(trouble).unwrap_or_else(|| (Kind::Other, trouble.to_string()));
        let hint = self.hint(trouble);
        Failure::of(kind, format!("{}: {why}{hint}", self.url(path)))
    }

    /// What may have been mixed up.
    fn hint(&self, trouble: &(dyn std::error::Error + 'static)) -> &'static str {
        let hyper = trouble.downcast_ref::<hyper::Error>();
        let broken = trouble.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let broken = matches!(broken, Some(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof));
        match (&self.connector, hyper) {
            (None, Some(error)) if error.is_parse() => {
                "; this may be the PostgreSQL port: give the HTTP port, or postgres://HOST:PORT"
            }
            (Some(_), None) if broken => {
                "; this may be a server without TLS (http://HOST:PORT), or the PostgreSQL port"
            }
            _ => "",
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
        password: Option<Secret>,
    ) -> Result<Response<Incoming>, Trouble> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.at.to_string())
            .header(CONNECTION, "close");
        if let Some(content_type) = content_type {
            request = request.header(hyper::header::CONTENT_TYPE, content_type);
        }
        // Without a password too: servers know users that need none.
        let none = || self.named.then(|| Secret(String::new()));
        if let Some(Secret(password)) = password.or_else(none) {
            let both = STANDARD.encode(format!("{}:{password}", self.user));
            request = request.header(AUTHORIZATION, format!("Basic {both}"));
        }
        let request = request.body(Full::new(body))?;
        let stream = tokio::time::timeout(CONNECTING, self.connect()).await;
        let stream = stream.map_err(|_| format!("no connection within {CONNECTING:?}"))??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Trouble> {
        let stream = TcpStream::connect((self.at.host.as_str(), self.at.port)).await?;
        let Some(connector) = &self.connector else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.at.host.clone())?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// Where the server stands.
    pub async fn status(&self) -> Result<ServerStatus, Failure> {
        let (code, body) = self.get("/status").await?;
        let url = self.url("/status");
        if !code.is_success() {
            return Err(Failure::new(format!("{url} answers {code}")));
        }
        parse_status(&body).map_err(|error| {
            Failure::new(format!(
                "{url} is not a Rota server's of version {}: {error}",
                env!("CARGO_PKG_VERSION")
            ))
        })
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

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
