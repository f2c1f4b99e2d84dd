//! `rota follow`: a home for one more server of a cluster whose members are fixed (`poa`, `raft`):
//! it holds the data, answers reads, and never votes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use rota_node::config::{PeerConfig, ServerConfig, create_home, load_genesis, load_key, new_key};

use crate::failure::Failure;
use crate::print::out;

/// The manual's last part.
pub const HELP: &str = "\
The new home has the genesis and the members' addresses from the member's home, and a key of its \
own. The members let it in once their own server.toml names it: the lines for that are printed. \
Add them to each of them and restart those, one by one.

Examples:
  rota follow --like cluster/server-1 --out reports
  rota follow --like rota --listen 0.0.0.0 --name reports --out reports

Exit codes:
  0  the home is made
  1  it failed: the last line says why
  2  the command line was not understood";

/// `rota follow`.
#[derive(Debug, Args)]
pub struct Follow {
    /// The home of a member
    #[arg(long, value_name = "HOME")]
    pub like: PathBuf,
    /// Where to write: must not hold a server
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A name for people: in logs and status
    #[arg(long, default_value = "follower", value_name = "NAME")]
    pub name: String,
    /// The address that it listens on for members
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into(), value_name = "ADDRESS")]
    pub listen: IpAddr,
    /// The port for PostgreSQL's protocol, on 127.0.0.1
    #[arg(long, default_value_t = 5441, value_name = "PORT")]
    pub postgres_port: u16,
    /// The port for HTTP, on 127.0.0.1
    #[arg(long, default_value_t = 4001, value_name = "PORT")]
    pub http_port: u16,
    /// The TCP port for members
    #[arg(long, default_value_t = 7001, value_name = "PORT")]
    pub peer_port: u16,
    /// Added to every port
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub port_offset: u16,
}

/// Makes the home, and says what the members need to know.
pub fn run(asked: &Follow) -> Result<(), Failure> {
    let reading = || Failure::doing("reading the member's home");
    let genesis = load_genesis(&asked.like).map_err(reading())?;
    if !genesis.method.is_closed() {
        return Err(Failure::new(
            "this database is open to everybody (method pow): use `rota join` instead",
        ));
    }
    let config = config(asked, members(&asked.like)?)?;
    let key = new_key().map_err(Failure::doing("making the server's key"))?;
    create_home(&asked.out, &genesis, &key, &config)
        .map_err(Failure::doing("making the server's home"))?;
    let home = asked.out.display();
    out(&format!(
        "The follower's home is {home}; its key is in it, so let nobody else read it.\n\nAdd this \
         to server.toml of each member, and restart them one by one:\n\n[[followers]]\nname = \
         {name:?}\nkey = \"{key}\"\n\nThen:\n  rota start --home {home}\n  rota status \
         127.0.0.1:{http}\n",
        name = asked.name,
        key = key.public(),
        http = config.http.port(),
    ))
}

/// Where the members are, as one of them knows it; that one itself among them.
fn members(home: &Path) -> Result<Vec<PeerConfig>, Failure> {
    let reading = || Failure::doing("reading the member's home");
    let member = ServerConfig::load(home).map_err(reading())?;
    let own = load_key(home).map_err(reading())?.public();
    let mut peers = member.peers;
    if peers.iter().all(|peer| peer.key != own) {
        let address = member.peer.to_string();
        peers.push(PeerConfig { name: member.name, key: own, address, http: None });
    }
    Ok(peers)
}

fn config(asked: &Follow, peers: Vec<PeerConfig>) -> Result<ServerConfig, Failure> {
    let port = |first: u16| {
        first.checked_add(asked.port_offset).ok_or_else(|| Failure::new("ports end at 65535"))
    };
    let here = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let (pg, http) = (here(port(asked.postgres_port)?), here(port(asked.http_port)?));
    let peer = SocketAddr::new(asked.listen, port(asked.peer_port)?);
    Ok(ServerConfig { follower: true, peers, ..ServerConfig::new(&asked.name, pg, http, peer) })
}
