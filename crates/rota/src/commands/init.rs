//! `rota init`: a genesis and one home per server, for real machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::args::Init;
use crate::cluster::{self, Place, home_of};
use crate::failure::Failure;
use crate::print::out;

/// Writes the homes and says what to do with them.
pub fn run(asked: &Init) -> Result<(), Failure> {
    check_out(&asked.out)?;
    let places = places(asked)?;
    let genesis = cluster::create(&asked.out, &asked.name, &places)?;
    out(&instructions(asked, &places, &genesis.chain_id().to_string()))
}

fn check_out(folder: &Path) -> Result<(), Failure> {
    let occupied = folder.is_file()
        || std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(Failure::new(format!(
            "{} is there already and not an empty folder: keys are never overwritten; \
             give --out another name",
            folder.display()
        )));
    }
    Ok(())
}

/// One place per server. A host named again gets the next ports.
fn places(asked: &Init) -> Result<Vec<Place>, Failure> {
    let mut named: BTreeMap<&str, u16> = BTreeMap::new();
    let mut places = Vec::new();
    for (number, host) in (1..).zip(&asked.servers) {
        let host = host.trim();
        check_host(host)?;
        let earlier = named.entry(host).or_default();
        let port = |first: u16| {
            first.checked_add(*earlier).ok_or_else(|| Failure::new("ports end at 65535"))
        };
        let peer_port = port(asked.peer_port)?;
        let address: Option<IpAddr> = host.parse().ok();
        places.push(Place {
            name: format!("server-{number}"),
            pg: SocketAddr::new(asked.listen, port(asked.postgres_port)?),
            http: SocketAddr::new(asked.listen, port(asked.http_port)?),
            peer: SocketAddr::new(peer_listen(address), peer_port),
            dialled: match address {
                Some(address) => SocketAddr::new(address, peer_port).to_string(),
                None => format!("{host}:{peer_port}"),
            },
        });
        *earlier += 1;
    }
    Ok(places)
}

/// Peers are told a name or a public address, which need not be one of the machine's own: listen on
/// all. A server that is only reached from its own machine listens there only.
fn peer_listen(address: Option<IpAddr>) -> IpAddr {
    match address {
        Some(address) if address.is_loopback() => address,
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn check_host(host: &str) -> Result<(), Failure> {
    let known = host.parse::<IpAddr>().is_ok();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !known && (host.is_empty() || !host.chars().all(plain)) {
        return Err(Failure::new(format!(
            "--servers: `{host}` is not a host name or address; ports are set with --peer-port, \
             --postgres-port and --http-port"
        )));
    }
    Ok(())
}

fn instructions(asked: &Init, places: &[Place], chain: &str) -> String {
    let out = asked.out.display();
    let insecure = if asked.listen.is_loopback() { "" } else { " --insecure" };
    let mut text = format!("Database {} ({chain}), {} servers.\n\n", asked.name, places.len());
    for (number, (place, host)) in (1..).zip(places.iter().zip(&asked.servers)) {
        let home = home_of(&asked.out, number);
        text.push_str(&format!(
            "{}\n  copy {} to {host}, readable by the server's user only (its key is secret)\n  \
             open UDP port {} to the other servers\n  \
             rota start --home <the copy>{insecure}\n",
            place.name,
            home.display(),
            place.peer.port(),
        ));
    }
    let (tolerated, quorum) = ((places.len() - 1) / 3, places.len() * 2 / 3 + 1);
    text.push_str(&format!(
        "\nWrites need {quorum} of the {} servers: {tolerated} may fail at once.\n",
        places.len()
    ));
    if asked.listen.is_loopback() {
        text.push_str(
            "Clients are served on 127.0.0.1 of each machine; edit server.toml to change that, \
             and see `rota start --help`.\n",
        );
    } else {
        text.push_str(
            "Clients are served without passwords and encryption: put this behind a firewall.\n",
        );
    }
    text.push_str(&format!(
        "When all homes are copied, remove {out}: a key must be in one place only.\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(servers: &[&str]) -> Init {
        Init {
            servers: servers.iter().map(ToString::to_string).collect(),
            out: "unused".into(),
            name: "rota".into(),
            listen: Ipv4Addr::LOCALHOST.into(),
            postgres_port: 5441,
            http_port: 4001,
            peer_port: 7001,
        }
    }

    #[test]
    fn a_host_named_twice_gets_ports_of_its_own() {
        let Ok(places) = places(&asked(&["a", "b", "a", "10.0.0.1", "::1"])) else { panic!() };
        let dialled: Vec<&str> = places.iter().map(|place| place.dialled.as_str()).collect();
        assert_eq!(dialled, ["a:7001", "b:7001", "a:7002", "10.0.0.1:7001", "[::1]:7001"]);
        assert_eq!((places[2].pg.port(), places[2].http.port()), (5442, 4002));
        assert_eq!(places[4].peer.to_string(), "[::1]:7001");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "a:7001", "a b", "[::1]", "postgres://a"] {
            assert!(places(&asked(&[bad])).is_err(), "{bad}");
        }
    }
}
