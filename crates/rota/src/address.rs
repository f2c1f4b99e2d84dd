//! Where a server is, as people write it: `https://user:password@host:4001`,
//! `postgres://rota@host:5441/rota`, or just `host:port`. Every server has both doors, so each kind
//! of address leads to the other: over HTTP `/status` names the PostgreSQL port, over PostgreSQL's
//! protocol `SHOW rota.http` the HTTP port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};

use crate::failure::{Failure, database};
use crate::http::Web;
use crate::postgres::{Postgres, first_host};
use crate::trust::{Check, Secret, Trust};

/// What `rota dev` makes and needs no password for; the first user of any cluster, unless another
/// was asked for.
pub const USER_AND_DATABASE: &str = "rota";

/// What is wrong where user and password seem to end before their `@`.
const ESCAPES: &str = "a `/`, `?` or `#` in a user or password is written %2F, %3F or %23";

/// A server's address on the command line.
#[derive(Clone, Debug)]
pub enum Address {
    /// `http://…` or `https://…`
    Http(Http),
    /// `postgres://…`
    Postgres(Box<Asked>),
    /// `host:port`: whichever the command would rather have.
    Either(HostPort),
}

/// An HTTP address.
#[derive(Clone, Debug)]
pub struct Http {
    /// The machine and port.
    pub at: HostPort,
    /// Whether over TLS.
    pub tls: bool,
    /// As whom; else the first user.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
}

/// A PostgreSQL address.
#[derive(Clone, Debug)]
pub struct Asked {
    config: Config,
    /// `sslmode`, where it was said.
    mode: Option<Mode>,
    /// `sslrootcert`.
    ca: Option<PathBuf>,
}

/// What is to be with TLS (libpq's `sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

/// A machine and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl HostPort {
    /// Whether it is this very machine, where nobody is in between.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = without_password(text);
        let wrong = || format!("`{shown}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) => inner,
            None if !host.contains(':') => host,
            None if host.contains(|c: char| !c.is_ascii_hexdigit() && c != ':') => {
                return Err(wrong());
            }
            _ => return Err(format!("`{text}`: an IPv6 address needs brackets, as in [::1]:4001")),
        };
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let cut = text.split('?').next().is_some_and(|base| !base.contains('@'));
            return text
                .parse()
                .map(|asked| Self::Postgres(Box::new(asked)))
                .map_err(|error| if cut && text.contains('@') { ESCAPES.into() } else { error });
        }
        for (scheme, tls) in [("http://", false), ("https://", true)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return http(rest, tls).map(Self::Http);
            }
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "unknown scheme {}://: http, https, postgres and postgresql are known",
                without_password(scheme)
            ));
        }
        text.parse().map(Self::Either).map_err(|error| {
            format!("{error}, https://HOST:PORT or postgres://USER@HOST:PORT/DATABASE")
        })
    }
}

/// An address, or what was typed in the place of one, as it may be shown: with `***` for what may
/// be a password.
pub fn without_password(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = text.split_at_checked(begin).unwrap_or(("", text));
    let shown = match rest.rsplit_once('@') {
        Some((who, at)) => match who.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:***@{at}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    match shown.split_once("password=") {
        None => shown,
        Some((before, after)) => {
            let rest =
                after.split_once('&').map_or_else(String::new, |(_, rest)| format!("&{rest}"));
            format!("{before}password=***{rest}")
        }
    }
}

/// What comes after `http://`. Errors do not repeat the address: a password may be in it.
fn http(rest: &str, tls: bool) -> Result<Http, String> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (who, at) = match authority.rsplit_once('@') {
        Some((who, at)) => (Some(who), at),
        None => (None, authority),
    };
    let (user, password) = match who.map(|who| who.split_once(':').unwrap_or((who, ""))) {
        None => (None, None),
        Some((user, "")) => (Some(decoded(user)?), None),
        Some((user, password)) => (Some(decoded(user)?), Some(Secret(decoded(password)?))),
    };
    let at = match at.parse() {
        Err(_) if rest.contains('@') && who.is_none() => {
            return Err(ESCAPES.into());
        }
        parsed => parsed?,
    };
    Ok(Http { at, tls, user, password })
}

/// Without `%20` and the like.
fn decoded(text: &str) -> Result<String, String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    let wrong = || "a `%` in a user or password is written %25".to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "user and password must be UTF-8".into())
}

impl FromStr for Asked {
    type Err = String;

    /// tokio-postgres knows fewer modes than libpq: TLS is taken out of the address first.
    fn from_str(text: &str) -> Result<Self, String> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut mode, mut ca) = (None, None);
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value.parse()?),
                Some(("sslrootcert", value)) => ca = Some(PathBuf::from(decoded(value)?)),
                _ => rest.push(pair),
            }
        }
        let plain = match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        };
        let mut config: Config =
            plain.parse().map_err(|error: tokio_postgres::Error| database(&error))?;
        if config.get_user().is_none() {
            config.user(USER_AND_DATABASE);
        }
        if config.get_dbname().is_none() {
            config.dbname(USER_AND_DATABASE);
        }
        Ok(Self { config, mode, ca })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            other => Err(format!(
                "sslmode={other} is not known: disable, prefer, require and verify-full are"
            )),
        }
    }
}

impl Asked {
    /// Logs in. What TLS is to be, unless it was said: everything is checked where an authority is
    /// known; on this very machine none is needed; else the connection is encrypted, and the
    /// password's proof bound to the certificate.
    async fn log_in(&self, trust: &Trust) -> Result<(Postgres, Client), Failure> {
        let ca = self.ca.as_deref().or(trust.ca());
        let mode = self.mode.unwrap_or(match ca {
            Some(_) => Mode::VerifyFull,
            None if first_host(&self.config).is_loopback() => Mode::Prefer,
            None => Mode::Require,
        });
        let mut config = self.config.clone();
        let (ssl, check) = match mode {
            Mode::Disable => (SslMode::Disable, Check::Dates),
            Mode::Prefer => (SslMode::Prefer, Check::Dates),
            // As libpq has it: who names an authority wants to be sure.
            Mode::Require if ca.is_some() => (SslMode::Require, Check::All),
            Mode::Require => (SslMode::Require, Check::Dates),
            Mode::VerifyFull => (SslMode::Require, Check::All),
        };
        config.ssl_mode(ssl);
        Postgres::log_in(config, check, ca, trust).await
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(Http { at, .. }) | Self::Either(at) => at.fmt(f),
            Self::Postgres(asked) => first_host(&asked.config).fmt(f),
        }
    }
}

impl Address {
    /// The authority that it names itself.
    pub fn ca(&self) -> Option<&Path> {
        match self {
            Self::Postgres(asked) => asked.ca.as_deref(),
            _ => None,
        }
    }

    /// Logs in by PostgreSQL's protocol. Asks the server for its port when the address is for HTTP.
    pub async fn postgres(&self, trust: &Trust) -> Result<(Postgres, Client), Failure> {
        let (at, http) = match self {
            Self::Postgres(asked) => return asked.log_in(trust).await,
            Self::Either(at) => (at.clone(), None),
            Self::Http(http) => {
                let status = self.http(trust).await?.status().await?;
                let at = HostPort { host: http.at.host.clone(), port: status.pg.port() };
                (at, Some(http))
            }
        };
        let mut config = Config::new();
        let user = http.and_then(|http| http.user.as_deref()).unwrap_or(USER_AND_DATABASE);
        config.host(&at.host).port(at.port).user(user).dbname(USER_AND_DATABASE);
        if let Some(Secret(password)) = http.and_then(|http| http.password.as_ref()) {
            config.password(password);
        }
        let mode = http.map(|http| if http.tls { Mode::VerifyFull } else { Mode::Disable });
        Asked { config, mode, ca: None }.log_in(trust).await
    }

    /// The HTTP door. Asks the server for its port when the address is for PostgreSQL.
    pub async fn http(&self, trust: &Trust) -> Result<Web, Failure> {
        match self {
            Self::Http(http) => Web::new(http, trust),
            Self::Either(at) => {
                let tls = trust.ca().is_some();
                Web::new(&Http { at: at.clone(), tls, user: None, password: None }, trust)
            }
            Self::Postgres(asked) => {
                let (postgres, client) = asked.log_in(trust).await?;
                http_of(&postgres, &client, self.ca(), trust).await
            }
        }
    }
}

/// The HTTP door of the server that a connection leads to.
pub async fn http_of(
    postgres: &Postgres,
    client: &Client,
    ca: Option<&Path>,
    trust: &Trust,
) -> Result<Web, Failure> {
    let messages = client
        .simple_query("SHOW rota.http")
        .await
        .map_err(|error| Failure::new(format!("SHOW rota.http: {}", database(&error))))?;
    let answer = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let (host, silent) = (postgres.at().host, || {
        Failure::new(format!("{} does not say where its HTTP door is", postgres.at()))
    });
    let at: HostPort = answer.ok_or_else(silent)?.parse().map_err(Failure::new)?;
    let http = Http {
        at: HostPort { host, port: at.port },
        tls: postgres.is_encrypted(),
        user: Some(postgres.user().to_owned()),
        password: postgres.password(),
    };
    Web::new(&http, &trust.with_ca(ca))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_as_people_write_them() {
        for (text, shown) in [
            ("http://127.0.0.1:4001", Some("127.0.0.1:4001")),
            ("http://127.0.0.1:4001/status", Some("127.0.0.1:4001")),
            ("https://ada:a%40b@db.example.org:4001/", Some("db.example.org:4001")),
            ("db.example.org:5441", Some("db.example.org:5441")),
            ("[::1]:4001", Some("[::1]:4001")),
            ("postgres://me@localhost:5441/rota", Some("localhost:5441")),
            ("postgresql://localhost:5441", Some("localhost:5441")),
            ("postgres://localhost:5441?sslmode=verify-full&sslrootcert=a", Some("localhost:5441")),
            ("postgres://localhost:5441?sslmode=allow", None),
            ("::1:4001", None),
            ("localhost", None),
            ("localhost:99999", None),
            (":5441", None),
            ("me@localhost:5441", None),
        ] {
            let parsed = text.parse::<Address>().map(|address| address.to_string()).ok();
            assert_eq!(parsed.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn user_and_password_are_read_and_never_shown() {
        let Ok(Address::Http(http)) = "https://ada:a%40b%3a@db:4001".parse() else {
            panic!("an HTTP address")
        };
        assert_eq!((http.user.as_deref(), http.tls), (Some("ada"), true));
        assert_eq!(http.password, Some(Secret("a@b:".into())));
        for text in ["https://ada:geheim@db:4001", "postgres://ada:geheim@db:5441"] {
            let address: Address = text.parse().unwrap();
            assert!(!format!("{address:?} {address}").contains("geheim"), "{text}");
        }
        for text in
            ["https://ada:geheim@db:x", "postgres://ada:geheim@db:x", "http://a:geheim%@db:1"]
        {
            assert!(!text.parse::<Address>().unwrap_err().contains("geheim"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_and_no_password() {
        for (text, wrong) in [
            ("htp://a:geheim@db:1", "unknown scheme htp://"),
            ("mysql://a:geheim@db:1", "unknown scheme mysql://"),
            ("https:/localhost:7101", "is not HOST:PORT"),
            ("a:geheim@db:1", "`a:***@db:1` is not HOST:PORT"),
            ("https://a:geheim/b@db:1", "%2F"),
            ("postgres://a:b?geheim=c@db:x/rota", "%3F"),
            ("::1:4001", "brackets"),
        ] {
            let said = text.parse::<Address>().unwrap_err();
            assert!(said.contains(wrong) && !said.contains("geheim"), "{said}");
        }
    }

    #[test]
    fn user_and_database_need_not_be_said() {
        let Ok(Address::Postgres(asked)) = "postgres://localhost:5441?sslmode=require".parse()
        else {
            panic!("a PostgreSQL address")
        };
        let Asked { config, mode, .. } = *asked;
        assert_eq!((config.get_user(), config.get_dbname()), (Some("rota"), Some("rota")));
        assert_eq!(mode, Some(Mode::Require));
    }
}
