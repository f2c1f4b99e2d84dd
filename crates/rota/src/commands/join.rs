//! `rota join`: a home for a new server of an open database (`pow`), from its genesis and an
//! address or two of servers that have it. Nobody is asked for leave: whoever has the genesis may
//! join, and checks everything else from the first block on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use hyper::StatusCode;
use rota_core::genesis::{Genesis, Method};
use rota_core::types::{ChainId, PublicKey};
use rota_node::config::{ServerConfig, create_home, new_key};

use crate::address::Address;
use crate::args::Authority;
use crate::failure::Failure;
use crate::print::{Align, columns, out};
use crate::trust::Trust;

/// A server's line of text is shown up to so many bytes: it may be anybody's.
const LONGEST_LINE: usize = 200;

/// The manual's last part.
pub const HELP: &str = "\
The genesis says which database it is: its hash is the chain id. A server that is asked for it may \
give another one than you want, so compare: --chain refuses any but the one whose id somebody told \
you whom you trust. After that no server need be trusted: every block is checked, from the first \
one on.

The new server has a key, and so an account, of its own. It does not mine unless it is told to: \
`mine_threads` and `mine_share` in its server.toml, or --mine-threads and --mine-share of `rota \
start`.

Examples:
  rota join --genesis http://127.0.0.1:4001 --bootstrap 127.0.0.1:7001 --out rota
  rota join --genesis genesis.json --bootstrap db1.example.org:7001,db2.example.org:7001 \
      --chain 5f0c…64 hex digits --out /var/lib/rota
  rota join --genesis https://db1.example.org:4001 --ca ca.crt --bootstrap db1.example.org:7001 \
      --listen 0.0.0.0 --port-offset 10 --out rota
  rota start --home rota --mine-threads 1

Exit codes:
  0  the home is made
  1  it failed, or the chain is not the one that was asked for: the last line says why
  2  the command line was not understood";

/// `rota join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The database's genesis: a file, or the HTTP address of a server that has it
    #[arg(long, value_name = "FILE|URL")]
    pub genesis: String,
    /// Where others listen for servers (UDP): one honest one is enough
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT,…")]
    pub bootstrap: Vec<String>,
    /// Where to write: must not hold a server
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The chain id that the genesis must have
    #[arg(long, value_name = "ID")]
    pub chain: Option<ChainId>,
    /// A name for people: in logs and status; the folder's unless one is given
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The address that other servers are listened to on: 127.0.0.1 where all of --bootstrap is
    /// this machine, else all addresses
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<IpAddr>,
    /// The port for PostgreSQL's protocol, on 127.0.0.1
    #[arg(long, default_value_t = 5441, value_name = "PORT")]
    pub postgres_port: u16,
    /// The port for HTTP, on 127.0.0.1
    #[arg(long, default_value_t = 4001, value_name = "PORT")]
    pub http_port: u16,
    /// The UDP port for other servers
    #[arg(long, default_value_t = 7001, value_name = "PORT")]
    pub peer_port: u16,
    /// Added to every port
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub port_offset: u16,
    #[command(flatten)]
    pub authority: Authority,
}

/// Fetches or reads the genesis, checks it, makes a home, and says what comes next.
pub async fn run(asked: Join) -> Result<(), Failure> {
    for address in &asked.bootstrap {
        check_bootstrap(address)?;
    }
    let genesis = genesis(&asked).await?;
    let chain = genesis.chain_id();
    check_chain(&asked, &genesis, chain)?;
    let config = config(&asked)?;
    let key = new_key().map_err(Failure::doing("making the server's key"))?;
    create_home(&asked.out, &genesis, &key, &config)
        .map_err(Failure::doing("making the server's home"))?;
    out(&next(&asked, &genesis, &config, &key.public()))
}

/// What was made, and what comes next.
fn next(asked: &Join, genesis: &Genesis, config: &ServerConfig, key: &PublicKey) -> String {
    let home = asked.out.display();
    let compared = match asked.chain {
        Some(_) => "the one that was asked for",
        None => "compare it with what somebody told you whom you trust: --chain does",
    };
    let (pg, http) = (config.pg.port(), config.http.port());
    let commands = [
        (format!("rota start --home {home}"), "hold the data and check it"),
        (format!("rota start --home {home} --mine-threads 1"), "search for blocks too"),
        (format!("rota status 127.0.0.1:{http}"), "how far it is"),
        (format!("rota sql 127.0.0.1:{pg}"), "from this machine you act as its account"),
    ];
    let rows: Vec<Vec<String>> = commands
        .into_iter()
        .map(|(command, what)| vec![format!("  {command}"), what.to_owned()])
        .collect();
    format!(
        "Database {} (pow)\n  chain id  {}\n            {compared}\n  account   ed25519:{key}\n\n\
         The server's home is {home}; its key is in it, so let nobody else read it. Next:\n{}\n\
         What the account may do is for grants to say, and for what it earns.\n\
         Other servers reach it on UDP port {}, if the way there is open: not needed, but the \
         network is better for it.\n",
        genesis.name,
        genesis.chain_id(),
        columns(&rows, &[Align::Left, Align::Left]).trim_end(),
        config.peer.port(),
    )
}

/// From a file, or from a server.
async fn genesis(asked: &Join) -> Result<Genesis, Failure> {
    let from = asked.genesis.as_str();
    let is_url = from.starts_with("http://") || from.starts_with("https://");
    let text = if is_url {
        fetch(asked).await?
    } else {
        std::fs::read(from).map_err(Failure::doing(from))?
    };
    let genesis: Genesis = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(format!("{from}: not a genesis: {error}")))?;
    genesis.check().map_err(|wrong| Failure::new(format!("{from}: {wrong}")))?;
    Ok(genesis)
}

async fn fetch(asked: &Join) -> Result<Vec<u8>, Failure> {
    let address = Address::from_str(&asked.genesis).map_err(Failure::new)?;
    let door = address.http(&Trust::new(&asked.authority)).await?;
    let (status, body) = door.get("/chain/genesis").await?;
    if status == StatusCode::OK {
        return Ok(body.to_vec());
    }
    Err(Failure::new(format!("{}: {}", door.url("/chain/genesis"), why_not(status, &body))))
}

/// Why a server gives no genesis, in its own words if there are any: in JSON, or, where it takes
/// requests over TLS only, a line of text.
fn why_not(status: StatusCode, body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let told = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
    let line = std::str::from_utf8(body).ok().map(str::trim);
    let line = line.filter(|line| {
        (1..=LONGEST_LINE).contains(&line.len()) && line.chars().all(|letter| !letter.is_control())
    });
    told.or_else(|| line.map(str::to_owned))
        .unwrap_or_else(|| format!("the server answers {status}"))
}

fn check_chain(asked: &Join, genesis: &Genesis, chain: ChainId) -> Result<(), Failure> {
    if genesis.method != Method::Pow {
        return Err(Failure::new(format!(
            "database {} is decided by its members (method {}): it cannot be joined, but `rota \
             init` can make another",
            genesis.name,
            genesis.method.name()
        )));
    }
    if let Some(wanted) = asked.chain.filter(|wanted| *wanted != chain) {
        return Err(Failure::new(format!(
            "this genesis is of another database: its chain id is {chain}, not {wanted}"
        )));
    }
    let (ours, theirs) = (rota_store::sqlite::identity(), &genesis.sqlite);
    if ours != *theirs {
        return Err(Failure::new(format!(
            "this program has another SQLite than the database was made for, so its results could \
             differ: {ours} here, {theirs} there; get the program that fits"
        )));
    }
    Ok(())
}

/// `host:port`, as it is dialled later.
fn check_bootstrap(address: &str) -> Result<(), Failure> {
    let wrong = || {
        Failure::new(format!(
            "--bootstrap: `{address}` is not HOST:PORT; the port is the one for servers (UDP), \
             7001 as a rule"
        ))
    };
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let good = !host.is_empty() && host.chars().all(plain);
    match port.parse::<u16>() {
        Ok(1..) if good => Ok(()),
        _ => Err(wrong()),
    }
}

fn config(asked: &Join) -> Result<ServerConfig, Failure> {
    let port = |first: u16| {
        first.checked_add(asked.port_offset).ok_or_else(|| Failure::new("ports end at 65535"))
    };
    let here = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let (pg, http) = (here(port(asked.postgres_port)?), here(port(asked.http_port)?));
    let listen = asked.listen.unwrap_or_else(|| listen(&asked.bootstrap));
    let peer = SocketAddr::new(listen, port(asked.peer_port)?);
    let name = asked.name.clone().unwrap_or_else(|| name_of(&asked.out));
    Ok(ServerConfig {
        open: true,
        bootstrap: asked.bootstrap.clone(),
        ..ServerConfig::new(name, pg, http, peer)
    })
}

/// Servers of one machine meet there; others are anywhere.
fn listen(bootstrap: &[String]) -> IpAddr {
    let is_loopback = |address: &String| {
        let at = address.parse::<SocketAddr>();
        at.map_or_else(|_| address.starts_with("localhost:"), |at| at.ip().is_loopback())
    };
    let is_v6 = |address: &String| address.parse::<SocketAddr>().is_ok_and(|at| at.is_ipv6());
    match (bootstrap.iter().all(is_loopback), bootstrap.iter().all(is_v6)) {
        (true, true) => Ipv6Addr::LOCALHOST.into(),
        (true, false) => Ipv4Addr::LOCALHOST.into(),
        (false, true) => Ipv6Addr::UNSPECIFIED.into(),
        (false, false) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn name_of(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "rota".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rota_core::genesis::{Administrator, FORMAT, Parameters, Pow};
    use rota_core::types::Digest;

    #[test]
    fn a_server_s_own_words_are_shown_if_they_are_short() {
        let why = |body: &[u8]| why_not(StatusCode::BAD_REQUEST, body);
        assert_eq!(why(br#"{"error": "a secret in it"}"#), "a secret in it");
        assert_eq!(
            why(b"over TLS only: use https://\xe2\x80\xa6\n"),
            "over TLS only: use https://…"
        );
        for other in [b"".as_slice(), b"<a>\n<b>", b"\x1b[2J", b"\xff", &[b'a'; 1_000]] {
            assert_eq!(why(other), "the server answers 400 Bad Request");
        }
    }

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        join: Join,
    }

    fn asked(more: &[&str]) -> Join {
        let words = ["rota", "--genesis", "g", "--out", "new/home"];
        Only::parse_from(words.iter().chain(more)).join
    }

    fn genesis(method: Method) -> Genesis {
        Genesis {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1,
            method,
            seed: Digest([7; 32]),
            pow: Some(Pow::default()),
            trusted_servers: false,
            sqlite: rota_store::sqlite::identity(),
            parameters: Parameters::default(),
            members: Vec::new(),
            administrators: vec![Administrator::open("root")],
        }
    }

    #[test]
    fn servers_of_one_machine_meet_there_and_others_anywhere() {
        let listens = |bootstrap| {
            config(&asked(&["--bootstrap", bootstrap])).map(|config| config.peer.to_string()).ok()
        };
        assert_eq!(listens("127.0.0.1:7001,localhost:7002").as_deref(), Some("127.0.0.1:7001"));
        assert_eq!(listens("127.0.0.1:7001,a.example:7001").as_deref(), Some("0.0.0.0:7001"));
        assert_eq!(listens("[2001:db8::1]:7001").as_deref(), Some("[::]:7001"));
        let given = asked(&["--bootstrap", "a:1", "--listen", "10.0.0.1", "--port-offset", "9"]);
        let config = config(&given).map_err(|failure| failure.to_string()).unwrap();
        assert_eq!(config.peer.to_string(), "10.0.0.1:7010");
        assert_eq!((config.pg.port(), config.http.port(), config.open), (5450, 4010, true));
        assert_eq!((config.name.as_str(), config.mine_threads), ("home", 0));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for good in ["a.example:7001", "127.0.0.1:7001", "[::1]:7001", "localhost:1"] {
            assert!(check_bootstrap(good).is_ok(), "{good}");
        }
        for bad in ["a.example", "a:0", ":7001", "a:70000", "http://a:1", "a b:1", "::1"] {
            assert!(check_bootstrap(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_chain_that_was_asked_for_and_only_an_open_one() {
        let open = genesis(Method::Pow);
        let chain = open.chain_id();
        let other = ChainId([9; 32]).to_string();
        let check = |more: &[&str], genesis: &Genesis| {
            let words = [&["--bootstrap", "a:1"], more].concat();
            check_chain(&asked(&words), genesis, genesis.chain_id())
        };
        assert!(check(&[], &open).is_ok());
        assert!(check(&["--chain", &chain.to_string()], &open).is_ok());
        let refused = check(&["--chain", &other], &open).unwrap_err().to_string();
        assert!(refused.contains("another database"), "{refused}");
        assert!(check(&[], &genesis(Method::Poa)).is_err());
        let strange = Genesis { sqlite: "another".into(), ..genesis(Method::Pow) };
        assert!(check(&[], &strange).is_err());
    }
}
