//! `rota init`: a genesis and one home per server, for real machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rota_core::genesis::{Administrator, Genesis};
use rota_node::auth::scram;
use rota_node::config::new_key;
use rota_node::tls::CA_FILE;

use crate::args::Init;
use crate::certificates::{Authority, CA_KEY_FILE, write};
use crate::cluster::{self, Founding, Place, home_of};
use crate::failure::Failure;
use crate::print::out;

/// What the first user signs with: 64 hex digits, as a server's key.
const KEY_FILE: &str = "administrator.key";

/// What the first user logs in with.
const PASSWORD_FILE: &str = "administrator.password";

/// Of what passwords are made: 32 letters, five bits each.
const PASSWORD_LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";

/// Writes the homes and says what to do with them.
pub fn run(asked: &Init) -> Result<(), Failure> {
    check_out(&asked.out)?;
    let places = places(asked)?;
    std::fs::create_dir_all(&asked.out).map_err(Failure::doing(asked.out.display()))?;
    let (administrator, password) = administrator(asked)?;
    let founding = Founding {
        name: &asked.name,
        administrator,
        trusted_servers: asked.trusted_servers,
        open: false,
    };
    let genesis = cluster::create(&asked.out, &founding, &places)?;
    certify(asked, &places)?;
    out(&instructions(asked, &places, &genesis, &password))
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

/// Makes the first user: a key to sign with, and a password to log in with.
fn administrator(asked: &Init) -> Result<(Administrator, String), Failure> {
    let key = new_key().map_err(Failure::doing("making the administrator's key"))?;
    let password = new_password()?;
    let mut salt = [0; scram::SALT_BYTES];
    getrandom::fill(&mut salt).map_err(Failure::doing("asking for randomness"))?;
    let verifier = scram::derive(&password, &salt, scram::ITERATIONS);
    write(&asked.out.join(KEY_FILE), &(hex::encode(key.to_bytes()) + "\n"), 0o600)?;
    write(&asked.out.join(PASSWORD_FILE), &format!("{password}\n"), 0o600)?;
    let administrator = Administrator {
        name: asked.administrator.clone(),
        key: Some(key.public()),
        verifier: Some(verifier.to_string()),
    };
    Ok((administrator, password))
}

/// A hundred bits, in letters and digits that are not taken for one another.
fn new_password() -> Result<String, Failure> {
    let mut random = [0; 20];
    getrandom::fill(&mut random).map_err(Failure::doing("asking for randomness"))?;
    let letter = |byte: &u8| char::from(PASSWORD_LETTERS[usize::from(byte % 32)]);
    let groups: Vec<String> =
        random.chunks(5).map(|group| group.iter().map(letter).collect()).collect();
    Ok(groups.join("-"))
}

/// Signs a certificate for each server, by the name that it is dialled by.
fn certify(asked: &Init, places: &[Place]) -> Result<(), Failure> {
    let authority = Authority::new(&asked.name)?;
    for (number, host) in (1..=places.len()).zip(&asked.servers) {
        let mut names = vec![host.trim().to_owned()];
        if !asked.listen.is_unspecified() {
            names.push(asked.listen.to_string());
        }
        authority.certify(&names, &home_of(&asked.out, number))?;
    }
    authority.save(&asked.out)
}

fn instructions(asked: &Init, places: &[Place], genesis: &Genesis, password: &str) -> String {
    let folder = asked.out.display();
    let chain = genesis.chain_id();
    let mut text = format!("Database {} ({chain}), {} servers.\n\n", asked.name, places.len());
    for (number, (place, host)) in (1..).zip(places.iter().zip(&asked.servers)) {
        let home = home_of(&asked.out, number);
        text.push_str(&format!(
            "{}\n  copy {} to {host}, readable by the server's user only (its keys are secret)\n  \
             open UDP port {} to the other servers{}\n  \
             rota start --home <the copy>\n",
            place.name,
            home.display(),
            place.peer.port(),
            match asked.listen.is_loopback() {
                true => String::new(),
                false =>
                    format!(", TCP ports {} and {} to clients", place.pg.port(), place.http.port()),
            }
        ));
    }
    let (tolerated, quorum) = ((places.len() - 1) / 3, places.len() * 2 / 3 + 1);
    text.push_str(&format!(
        "\nWrites need {quorum} of the {} servers: {tolerated} may fail at once.\n",
        places.len()
    ));
    if asked.listen.is_loopback() {
        text.push_str(
            "Clients are served on 127.0.0.1 of each machine; `--listen 0.0.0.0`, or `pg` and \
             `http` in server.toml, let others in, over TLS.\n",
        );
    }
    text + &for_clients(asked, places, password)
        + &format!(
            "\nWhen the server-… folders are copied, remove them here: a key must be in one place \
         only.\nKeep {folder}/{CA_KEY_FILE} (it signs the servers' certificates, which end after \
         825 days:\n`rota certificate --help`) and {folder}/{KEY_FILE} where nobody else gets \
         at them.\n",
        )
}

/// How to log in.
fn for_clients(asked: &Init, places: &[Place], password: &str) -> String {
    let (folder, user) = (asked.out.display(), &asked.administrator);
    let host = match asked.servers.first() {
        Some(host) if !asked.listen.is_loopback() => host.trim(),
        _ => "localhost",
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = |of: fn(&Place) -> SocketAddr| places.first().map_or(0, |place| of(place).port());
    let (pg, http) = (port(|place| place.pg), port(|place| place.http));
    let changes = match asked.trusted_servers {
        true => format!(
            "Users are made like that too: CREATE USER ada PASSWORD '…'; GRANT SELECT ON ALL TO \
             ada\nEvery server may act for all users (--trusted-servers). {folder}/{KEY_FILE} \
             signs what\nthe administrator signs itself (`rota tx --help`).\n"
        ),
        false => format!(
            "Users and grants are changed with the administrator's key, so that no server can by \
             itself:\n  rota tx --key {folder}/{KEY_FILE} --ca {folder}/{CA_FILE} \
             https://{user}@{host}:{http} \\\n      \"CREATE USER ada PASSWORD '…' SERVERS ALL\" \
             \"GRANT SELECT ON ALL TO ada\"\n"
        ),
    };
    format!(
        "\nClients need {folder}/{CA_FILE} and a password. The first user is {user}, and may do \
         everything; its password is\n\n  \
         {password}\n\nshown this once, and kept in {folder}/{PASSWORD_FILE}. Where both files \
         are:\n  \
         export ROTA_PASSWORD=$(cat {folder}/{PASSWORD_FILE}) ROTA_CA={folder}/{CA_FILE}\n  \
         rota status https://{user}@{host}:{http}\n  \
         rota sql postgres://{user}@{host}:{pg}/rota\n  \
         PGPASSWORD=$ROTA_PASSWORD psql \
         'postgres://{user}@{host}:{pg}/rota?sslmode=verify-full&sslrootcert={folder}/{CA_FILE}'\n\
         {changes}"
    )
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
            administrator: "rota".into(),
            trusted_servers: false,
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
