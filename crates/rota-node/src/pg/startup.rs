//! A connection's start-up: from its first byte to ReadyForQuery. Step 1, before any statement.
//!
//! ```text
//!  TCP ─┬─ 0x16 ──────────────► TLS (PostgreSQL 17's sslnegotiation=direct)
//!       └─ SSLRequest ─► 'S' ─► TLS
//!          GSSENCRequest ─► 'N'
//!          CancelRequest ─► another connection's statement ends, and so does this one
//!          StartupMessage ─► log in: nothing asked, or SCRAM ─► a place ─► ReadyForQuery
//! ```
//!
//! Nobody learns who the users are: an unknown one is asked as any other, and refused in the same
//! words. What is refused is logged by address and name, without a secret.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use rota_core::error::{Refusal, sqlstate};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cancel::{Registered, Sessions};
use super::session::put_error;
use super::stream::{self, Begun, Stream};
use super::variables::SERVER_VERSION;
use super::wire::{Hello, Wire, decode_sasl};
use crate::auth::scram::Binding;
use crate::auth::{Credentials, Entrance, Login};
use crate::porch::Guest;
use crate::tls::{Shown, Tls};

/// How long a client may take to say who it is: a slow network's round trips, not a person's
/// typing.
pub(super) const STARTUP_TIME: Duration = Duration::from_secs(10);

/// PostgreSQL's code for who may not come in (`invalid_authorization_specification`).
const NOT_AUTHORIZED: &str = "28000";

/// How much of a name is logged that may be nobody's.
const SHOWN_NAME: usize = 64;

/// The first byte of a TLS handshake; in PostgreSQL's protocol, the first of a length that is not
/// possible.
const TLS_HANDSHAKE: u8 = 0x16;

/// How many packets a client may send before the one that says who it is: it may ask for GSSAPI and
/// for TLS, once each.
const MAX_REQUESTS: usize = 3;

/// What all connections of a door share.
pub(super) struct Door {
    entrance: Entrance,
    sessions: Sessions,
}

impl Door {
    pub(super) fn new(entrance: Entrance) -> Self {
        Self { entrance, sessions: Sessions::default() }
    }

    /// Whether it can speak TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.entrance.tls.is_some()
    }
}

/// What a client says at its start: settings, in the order in which they count.
pub(super) type Parameters = Vec<(String, String)>;

/// A client that was let in, and has been told so.
pub(super) struct Greeted {
    pub(super) wire: Wire<Stream>,
    pub(super) login: Login,
    pub(super) settings: Parameters,
    pub(super) registered: Registered,
}

/// What a client says it is.
struct Startup {
    version: (u16, u16),
    parameters: Vec<(String, String)>,
}

impl Startup {
    fn says(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(said, _)| said == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Start-up. `None` when the connection is over: refused, gone, too slow, or only a CancelRequest.
pub(super) async fn greet(
    stream: TcpStream,
    from: SocketAddr,
    door: &Door,
    guest: &Guest,
) -> io::Result<Option<Greeted>> {
    let shown = door.entrance.tls.as_ref().map(Tls::shown);
    let shown = shown.as_deref();
    let greeting = async {
        let begun = begin(stream, shown, &door.sessions).await?;
        let Some((mut wire, startup)) = begun else { return Ok(None) };
        match let_in(&mut wire, &startup, from, door, shown, guest).await? {
            None => Ok(None),
            Some(Err(refusal)) => refuse(wire, &refusal).await,
            Some(Ok((login, registered))) => {
                welcome(&mut wire, &registered, &startup, &login);
                wire.flush().await?;
                let settings = settings(&startup.parameters);
                Ok(Some(Greeted { wire, login, settings, registered }))
            }
        }
    };
    tokio::time::timeout(STARTUP_TIME, greeting).await.unwrap_or(Ok(None))
}

/// Tells why, and that this is the end.
async fn refuse<T>(mut wire: Wire<Stream>, refusal: &Refusal) -> io::Result<Option<T>> {
    put_error(wire.output(), "FATAL", refusal, None);
    wire.close().await?;
    Ok(None)
}

/// What comes before the client says who it is.
async fn begin(
    stream: TcpStream,
    shown: Option<&Shown>,
    sessions: &Sessions,
) -> io::Result<Option<(Wire<Stream>, Startup)>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    let mut wire = Wire::new(match shown {
        Some(shown) if first == [TLS_HANDSHAKE] => {
            stream::encrypt(stream, &shown.pg, Begun::Directly).await?
        }
        _ => Stream::Plain(stream),
    });
    for _ in 0..MAX_REQUESTS {
        let Some(hello) = wire.hello().await? else { return Ok(None) };
        match hello {
            Ok(Hello::Cancel { process, secret }) => {
                sessions.cancel(process, secret);
                return Ok(None);
            }
            Ok(Hello::Startup { major, minor, parameters }) => {
                return Ok(Some((wire, Startup { version: (major, minor), parameters })));
            }
            Ok(Hello::Tls) => {
                let Some(encrypted) = encrypted(wire, shown).await? else { return Ok(None) };
                wire = encrypted;
            }
            Ok(Hello::Gss) => decline(&mut wire).await?,
            Err(refusal) => return refuse(wire, &refusal).await,
        }
    }
    Ok(None)
}

/// Encryption that is asked for and not to be had.
async fn decline(wire: &mut Wire<Stream>) -> io::Result<()> {
    wire.output().extend_from_slice(b"N");
    wire.flush().await
}

/// TLS after an SSLRequest.
async fn encrypted(
    mut wire: Wire<Stream>,
    shown: Option<&Shown>,
) -> io::Result<Option<Wire<Stream>>> {
    let Some(shown) = shown else {
        decline(&mut wire).await?;
        return Ok(Some(wire));
    };
    match wire.into_stream() {
        Ok(Stream::Plain(mut stream)) => {
            stream.write_all(b"S").await?;
            Ok(Some(Wire::new(stream::encrypt(stream, &shown.pg, Begun::Asked).await?)))
        }
        Ok(Stream::Tls(_)) => Ok(None),
        Err(wire) => {
            let message = "received unencrypted data after SSL request";
            refuse(*wire, &Refusal::new(sqlstate::PROTOCOL_VIOLATION, message)).await
        }
    }
}

/// Who it is, and whether there is a place. `None` when the client is gone.
async fn let_in(
    wire: &mut Wire<Stream>,
    startup: &Startup,
    from: SocketAddr,
    door: &Door,
    shown: Option<&Shown>,
    guest: &Guest,
) -> io::Result<Option<Result<(Login, Registered), Refusal>>> {
    if let Err(refusal) = possible(wire, startup, door) {
        return Ok(Some(Err(refusal)));
    }
    let user = startup.says("user").unwrap_or_default();
    let binding = match shown {
        Some(shown) if wire.stream().is_encrypted() => shown.binding(),
        _ => Binding::Nothing,
    };
    let login = match log_in(wire, user, from, &door.entrance.credentials, binding).await? {
        None => return Ok(None),
        Some(Ok(login)) => login,
        Some(Err(refusal)) => {
            let user: String = user.chars().take(SHOWN_NAME).collect();
            let (address, reason) = (from.ip(), refusal.code());
            tracing::warn!(%address, ?user, reason, "a PostgreSQL client could not log in");
            return Ok(Some(Err(refusal)));
        }
    };
    let admitted = guest.admit(login.administrator);
    let registered = admitted.and_then(|()| door.sessions.register());
    Ok(Some(registered.map(|registered| (login, registered))))
}

/// What is refused before anybody is asked for a password.
fn possible(wire: &Wire<Stream>, startup: &Startup, door: &Door) -> Result<(), Refusal> {
    let (major, minor) = startup.version;
    if major != 3 {
        return Err(Refusal::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            format!("protocol {major}.{minor} is not supported: version 3.0 is"),
        ));
    }
    if !wire.stream().is_encrypted() && !door.entrance.plain {
        return Err(Refusal::new(
            NOT_AUTHORIZED,
            "connections without TLS are not taken here: connect with sslmode=verify-full and \
             sslrootcert=ca.crt, the file that rota init wrote",
        ));
    }
    if startup.says("user").is_none_or(str::is_empty) {
        return Err(Refusal::new(NOT_AUTHORIZED, "no user name in the startup packet"));
    }
    Ok(())
}

/// Asks for a password, and checks it. `None` when the client is gone.
async fn log_in(
    wire: &mut Wire<Stream>,
    user: &str,
    from: SocketAddr,
    credentials: &Credentials,
    binding: Binding,
) -> io::Result<Option<Result<Login, Refusal>>> {
    if let Some(login) = credentials.open_login(from.ip(), user) {
        return Ok(Some(Ok(login)));
    }
    let mechanisms = binding.mechanisms().iter().map(|name| (*name).to_owned()).collect();
    let mut exchange = credentials.exchange(user, binding);
    wire.put(&Authentication::SASL(mechanisms));
    wire.flush().await?;
    let first = match wire.sasl().await? {
        None => return Ok(None),
        Some(message) => message.and_then(decode_sasl),
    };
    let challenge = first.and_then(|(mechanism, message)| {
        exchange.first(&mechanism, &message).map_err(|denied| denied.refusal(user))
    });
    match challenge {
        Ok(challenge) => wire.put(&Authentication::SASLContinue(challenge.into())),
        Err(refusal) => return Ok(Some(Err(refusal))),
    }
    wire.flush().await?;
    let last = match wire.sasl().await? {
        None => return Ok(None),
        Some(message) => message,
    };
    Ok(Some(last.and_then(|message| {
        let proof = exchange.last(&message).map_err(|denied| denied.refusal(user))?;
        let login = credentials.proven(user, &exchange).map_err(|denied| denied.refusal(user))?;
        wire.put(&Authentication::SASLFinal(proof.into()));
        Ok(login)
    })))
}

/// A start-up packet's parameters as settings: those in `options` (`-c name=value`, `--name=value`)
/// first, as PostgreSQL has it.
fn settings(parameters: &[(String, String)]) -> Parameters {
    let mut settings = Vec::new();
    let options = parameters.iter().filter(|(name, _)| name == "options");
    for (_, options) in options {
        let mut words = options.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
                Some("") => words.next(),
                setting => setting,
            };
            if let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
        }
    }
    let others = parameters.iter().filter(|(name, _)| name != "options");
    settings.extend(others.cloned());
    settings
}

/// Tells a client that it is in, and what it has to know.
fn welcome(wire: &mut Wire<Stream>, registered: &Registered, startup: &Startup, login: &Login) {
    let unknown = startup.parameters.iter().filter(|(name, _)| name.starts_with("_pq_."));
    let unknown: Vec<String> = unknown.map(|(name, _)| name.clone()).collect();
    if startup.version.1 > 0 || !unknown.is_empty() {
        wire.put(&NegotiateProtocolVersion::new(0, unknown));
    }
    wire.put(&Authentication::Ok);
    let version = format!("{SERVER_VERSION} (Rota {})", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("server_version", version.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", startup.says("application_name").unwrap_or_default()),
        ("is_superuser", if login.administrator { "on" } else { "off" }),
        ("session_authorization", &login.user),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
    ] {
        wire.put(&ParameterStatus::new(name.into(), value.into()));
    }
    wire.put(&BackendKeyData::new(registered.process, SecretKey::I32(registered.secret)));
    wire.put(&ReadyForQuery::new(TransactionStatus::Idle));
}
