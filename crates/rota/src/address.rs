//! Where a server is, as people write it: `http://host:4001`, `postgres://rota@host:5441/rota`, or
//! just `host:port`. Every server has both doors, so each kind of address leads to the other: over
//! HTTP `/status` names the PostgreSQL port, and over PostgreSQL `SHOW rota.http` names the HTTP
//! port.

use std::fmt;
use std::str::FromStr;

use tokio_postgres::config::Host;

use crate::failure::{Failure, database};
use crate::http;

/// What `rota dev` makes and needs no password for.
pub const USER_AND_DATABASE: &str = "rota";

/// A server's address on the command line.
#[derive(Clone, Debug)]
pub enum Address {
    /// `http://host:port`
    Http(HostPort),
    /// `postgres://…`
    Postgres(Box<tokio_postgres::Config>),
    /// `host:port`: whichever the command would rather have.
    Either(HostPort),
}

/// A machine and a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
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
        let wrong = || format!("`{text}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(Some(inner)) => inner,
            None if !host.contains(':') => host,
            _ => return Err(format!("`{text}`: an IPv6 address needs brackets, as in [::1]:4001")),
        };
        if host.is_empty() {
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
            let mut config: tokio_postgres::Config =
                text.parse().map_err(|error| format!("`{text}`: {error}"))?;
            if config.get_user().is_none() {
                config.user(USER_AND_DATABASE);
            }
            if config.get_dbname().is_none() {
                config.dbname(USER_AND_DATABASE);
            }
            return Ok(Self::Postgres(Box::new(config)));
        }
        if text.starts_with("https://") {
            return Err(format!("`{text}`: servers speak http, without TLS"));
        }
        match text.strip_prefix("http://") {
            Some(rest) => rest.split(['/', '?']).next().unwrap_or(rest).parse().map(Self::Http),
            None => text.parse().map(Self::Either).map_err(|error| {
                format!("{error}, http://HOST:PORT or postgres://USER@HOST:PORT/DATABASE")
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(at) | Self::Either(at) => at.fmt(f),
            Self::Postgres(config) => first_host(config).fmt(f),
        }
    }
}

impl Address {
    /// How to log in. Asks the server for its PostgreSQL port when the address is for HTTP.
    pub async fn postgres(&self) -> Result<tokio_postgres::Config, Failure> {
        let at = match self {
            Self::Postgres(config) => return Ok((**config).clone()),
            Self::Either(at) => at.clone(),
            Self::Http(at) => {
                let status = http::status(at).await?;
                HostPort { host: at.host.clone(), port: status.pg.port() }
            }
        };
        let mut config = tokio_postgres::Config::new();
        config.host(&at.host).port(at.port).user(USER_AND_DATABASE).dbname(USER_AND_DATABASE);
        Ok(config)
    }

    /// Where to ask for `/status`. Asks the server for its HTTP port when the address is for
    /// PostgreSQL.
    pub async fn http(&self) -> Result<HostPort, Failure> {
        match self {
            Self::Http(at) | Self::Either(at) => Ok(at.clone()),
            Self::Postgres(config) => {
                let client = connect(config).await?;
                http_of(&client, &first_host(config)).await
            }
        }
    }
}

/// The HTTP door of the server that a connection leads to.
pub async fn http_of(
    client: &tokio_postgres::Client,
    postgres: &HostPort,
) -> Result<HostPort, Failure> {
    let messages = client
        .simple_query("SHOW rota.http")
        .await
        .map_err(|error| Failure::new(format!("SHOW rota.http: {}", database(&error))))?;
    let answer = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let at: HostPort = answer
        .ok_or_else(|| Failure::new(format!("{postgres} does not say where its HTTP door is")))?
        .parse()
        .map_err(Failure::new)?;
    Ok(HostPort { host: postgres.host.clone(), port: at.port })
}

/// Logs in. The connection's task ends when the client is dropped.
pub async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client, Failure> {
    let at = first_host(config);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(|error| {
        Failure::new(format!(
            "cannot connect to {at}: {}; is the server running? \
             (`rota status` takes its HTTP address)",
            database(&error)
        ))
    })?;
    tokio::spawn(connection);
    Ok(client)
}

/// The first machine that a configuration names.
pub fn first_host(config: &tokio_postgres::Config) -> HostPort {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(other) => format!("{other:?}"),
        None => config.get_hostaddrs().first().map_or_else(String::new, ToString::to_string),
    };
    HostPort { host, port: config.get_ports().first().copied().unwrap_or(5432) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_as_people_write_them() {
        for (text, shown) in [
            ("http://127.0.0.1:4001", Some("127.0.0.1:4001")),
            ("http://127.0.0.1:4001/status", Some("127.0.0.1:4001")),
            ("db.example.org:5441", Some("db.example.org:5441")),
            ("[::1]:4001", Some("[::1]:4001")),
            ("postgres://me@localhost:5441/rota", Some("localhost:5441")),
            ("postgresql://localhost:5441", Some("localhost:5441")),
            ("https://127.0.0.1:4001", None),
            ("::1:4001", None),
            ("localhost", None),
            ("localhost:99999", None),
            (":5441", None),
        ] {
            let parsed = text.parse::<Address>().map(|address| address.to_string()).ok();
            assert_eq!(parsed.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn user_and_database_need_not_be_said() {
        let Ok(Address::Postgres(config)) = "postgres://localhost:5441".parse() else {
            panic!("a PostgreSQL address")
        };
        assert_eq!((config.get_user(), config.get_dbname()), (Some("rota"), Some("rota")));
    }
}
