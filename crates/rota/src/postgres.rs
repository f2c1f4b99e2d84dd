//! Logging in to a server by PostgreSQL's protocol, over TLS where it is wanted.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rota_node::tls::{Facts, PG_PROTOCOL};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{ChannelBinding as Binding, Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::HostPort;
use crate::failure::{Failure, Kind, database};
use crate::trust::{self, Check, Secret, Trust};

/// What tokio-postgres says when a server wants a password and it has none.
const NO_PASSWORD: &str = "password missing";

/// What it says when the answer is not PostgreSQL's: of another protocol, for example.
const NOT_OUR_PROTOCOL: &str = "bytes remaining on stream";

/// How to log in to a server.
#[derive(Clone)]
pub struct Postgres {
    config: Config,
    tls: Tls,
}

impl Postgres {
    /// By a configuration and what is checked. Asks for the password where one is needed and none
    /// is known; the connection that found that out comes along.
    pub async fn log_in(
        mut config: Config,
        check: Check,
        ca: Option<&Path>,
        trust: &Trust,
    ) -> Result<(Self, Client), Failure> {
        if config.get_password().is_none()
            && let Some(Secret(password)) = trust.password()
        {
            config.password(password);
        }
        let connector = TlsConnector::from(Arc::new(trust::client(check, ca, PG_PROTOCOL)?));
        let tls = Tls { connector, used: Arc::default() };
        let mut postgres = Self { config, tls };
        postgres.bind(check);
        match postgres.attempt().await {
            Err(error) if database(&error).contains(NO_PASSWORD) => {
                let user = postgres.config.get_user().unwrap_or_default().to_owned();
                let Some(Secret(password)) = trust.ask(&user) else {
                    let message = format!(
                        "{} wants a password of user {user}: put it in ROTA_PASSWORD, or in the \
                         address: postgres://{user}:PASSWORD@…",
                        postgres.at()
                    );
                    return Err(Failure::of(Kind::NoLogin, message));
                };
                postgres.config.password(&password);
                postgres.bind(check);
                let client = postgres.connect().await?;
                Ok((postgres, client))
            }
            Err(error) => Err(postgres.failed(&error)),
            Ok(client) => Ok((postgres, client)),
        }
    }

    /// Where nothing is known of who signed the certificate, the password's proof must be bound to
    /// it: so that whoever sits in between gets nowhere, and no password.
    fn bind(&mut self, check: Check) {
        let blind = check == Check::Dates && self.config.get_ssl_mode() == SslMode::Require;
        if blind && self.config.get_password().is_some() {
            self.config.channel_binding(Binding::Require);
        }
    }

    /// Logs in. The connection's task ends when the client is dropped.
    pub async fn connect(&self) -> Result<Client, Failure> {
        self.attempt().await.map_err(|error| self.failed(&error))
    }

    async fn attempt(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Failure {
        let at = self.at();
        if let Some((kind, words)) = trust::explain(error) {
            return Failure::of(kind, format!("cannot connect to {at}: {words}"));
        }
        let why = database(error);
        let hint = match () {
            () if error.code().is_some() => "",
            () if why.contains(NOT_OUR_PROTOCOL) => {
                "; this may be the HTTP port: give the PostgreSQL port, or http://HOST:PORT"
            }
            () if why.contains("does not support TLS") => {
                "; a server without certificate can be had with ?sslmode=disable, in the clear"
            }
            () => "; is the server running? (`rota status` takes its HTTP address)",
        };
        let kind = match error.code() {
            Some(&SqlState::INVALID_PASSWORD) => Kind::NoLogin,
            _ => Kind::Other,
        };
        Failure::of(kind, format!("cannot connect to {at}: {why}{hint}"))
    }

    /// What Ctrl-C tells the server with.
    pub async fn cancel(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.cancel_token().cancel_query(self.tls.clone()).await
    }

    /// The machine and port.
    pub fn at(&self) -> HostPort {
        first_host(&self.config)
    }

    /// As whom.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// With which password.
    pub fn password(&self) -> Option<Secret> {
        let bytes = self.config.get_password()?;
        Some(Secret(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Whether the newest connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.used.load(Ordering::Relaxed)
    }
}

/// The first machine that a configuration names.
pub fn first_host(config: &Config) -> HostPort {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(other) => format!("{other:?}"),
        None => config.get_hostaddrs().first().map_or_else(String::new, ToString::to_string),
    };
    HostPort { host, port: config.get_ports().first().copied().unwrap_or(5432) }
}

/// TLS for tokio-postgres.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    used: Arc<AtomicBool>,
}

/// The same for one server.
struct TlsTo {
    tls: Tls,
    name: ServerName<'static>,
}

/// An encrypted connection.
struct Encrypted<S>(Box<TlsStream<S>>);

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = TlsTo;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<TlsTo> {
        let name = ServerName::try_from(domain.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(TlsTo { tls: self.clone(), name })
    }
}

impl<S> TlsConnect<S> for TlsTo
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = self.tls.connector.connect(self.name, stream).await?;
            self.tls.used.store(true, Ordering::Relaxed);
            Ok(Encrypted(Box::new(stream)))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let facts = leaf.and_then(|leaf| Facts::of(leaf).ok());
        match facts.and_then(|facts| facts.end_point) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
