//! A new cluster: fresh keys, a genesis, and one home folder per server.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters, Pow};
use rota_core::members::Member;
use rota_core::types::Digest;
use rota_node::config::{PeerConfig, ServerConfig, create_home, new_key};

use crate::failure::Failure;

/// Under `pow` an expiry may lie four times the spacings ahead that finality takes, and so many
/// more: a write that waits for blocks that come late must not expire meanwhile.
const EXPIRY_SPACINGS: u64 = 32;

/// The longest expiry that a genesis may allow: ids are remembered for so long.
const MAX_EXPIRY_MS: u64 = 30 * 86_400_000;

/// What the servers of a new database have in common, beside themselves.
pub struct Founding<'a> {
    /// The database's name, for people.
    pub name: &'a str,
    /// How it is found out whose turn it is.
    pub method: Method,
    /// What `pow` needs to know; with another method there is none.
    pub pow: Option<Pow>,
    /// Who may do everything from the beginning.
    pub administrator: Administrator,
    /// Whether servers may sign changes of users and grants.
    pub trusted_servers: bool,
    /// Whether users without password need none, from the same machine.
    pub open: bool,
    /// Whether the servers themselves may do everything too: under `pow`, where a server's clients
    /// are whoever operates it.
    pub servers_may: bool,
    /// With how many threads each server mines (`pow`), and with how many percent of a core each.
    pub mines: (u32, u8),
}

/// Where a server will be.
pub struct Place {
    /// Its name.
    pub name: String,
    /// Where it serves PostgreSQL's protocol.
    pub pg: SocketAddr,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where it listens for its peers.
    pub peer: SocketAddr,
    /// What its peers dial: `host:port`.
    pub dialled: String,
}

impl Place {
    /// What clients of other servers are told of where this one serves HTTP: nothing, where it can
    /// be reached from its own machine only and others are elsewhere.
    pub fn told(&self, open: bool) -> Option<String> {
        let host = self.dialled.rsplit_once(':').map_or("", |(host, _)| host);
        let is_here = |host: &str| {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        };
        if self.http.ip().is_loopback() && !is_here(host) {
            return None;
        }
        let scheme = if open { "http" } else { "https" };
        Some(format!("{scheme}://{host}:{}", self.http.port()))
    }
}

/// The home of the server of a number, counted from 1.
pub fn home_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("server-{number}"))
}

/// Writes a genesis for new members with equal weights (under `pow` for nobody), and each one's
/// home.
pub fn create(
    folder: &Path,
    founding: &Founding<'_>,
    places: &[Place],
) -> Result<Genesis, Failure> {
    let keys = places.iter().map(|_| new_key()).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(Failure::doing("making keys"))?;
    let closed = founding.method.is_closed();
    let members = keys.iter().filter(|_| closed);
    let members = members.map(|key| Member { key: key.public(), weight: 1 }).collect();
    let mut administrators = vec![founding.administrator.clone()];
    if founding.servers_may {
        let servers = places.iter().zip(&keys).map(|(place, key)| Administrator {
            key: Some(key.public()),
            ..Administrator::open(&place.name)
        });
        administrators.extend(servers);
    }
    let genesis = genesis(founding, members, administrators)?;
    let peers: Vec<PeerConfig> = places
        .iter()
        .zip(&keys)
        .map(|(place, key)| PeerConfig {
            name: place.name.clone(),
            key: key.public(),
            address: place.dialled.clone(),
            http: place.told(founding.open),
        })
        .collect();
    for (number, (place, key)) in (1..).zip(places.iter().zip(&keys)) {
        let config = config_of(place, &peers, founding);
        create_home(&home_of(folder, number), &genesis, key, &config)
            .map_err(Failure::doing("making a server's home"))?;
    }
    Ok(genesis)
}

/// A server's `server.toml`.
fn config_of(place: &Place, peers: &[PeerConfig], founding: &Founding<'_>) -> ServerConfig {
    ServerConfig {
        open: founding.open,
        mine_threads: founding.mines.0,
        mine_share: founding.mines.1,
        peers: peers.to_vec(),
        ..ServerConfig::new(&place.name, place.pg, place.http, place.peer)
    }
}

fn genesis(
    founding: &Founding<'_>,
    members: Vec<Member>,
    administrators: Vec<Administrator>,
) -> Result<Genesis, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Failure::doing("asking for randomness"))?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let genesis = Genesis {
        format: FORMAT,
        name: founding.name.to_owned(),
        time_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        method: founding.method,
        pow: founding.pow.clone(),
        seed: Digest(seed),
        trusted_servers: founding.trusted_servers,
        administrators,
        sqlite: rota_store::sqlite::identity(),
        parameters: parameters(founding.pow.as_ref()),
        members,
    };
    genesis.check().map_err(Failure::new)?;
    Ok(genesis)
}

/// The knobs. Where blocks are far apart, what is signed has to be good for longer.
fn parameters(pow: Option<&Pow>) -> Parameters {
    let mut parameters = Parameters::default();
    if let Some(pow) = pow {
        let spacings = u64::from(pow.depth).saturating_mul(4).saturating_add(EXPIRY_SPACINGS);
        let wanted = u64::from(pow.spacing_s).saturating_mul(spacings).saturating_mul(1_000);
        parameters.max_expiry_ms = wanted.clamp(parameters.max_expiry_ms, MAX_EXPIRY_MS);
    }
    parameters
}
