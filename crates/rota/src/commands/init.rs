//! `rota init`: a genesis and one home per server, for real machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rota_core::genesis::{Administrator, Genesis, Method, Pow};
use rota_core::work::Retarget;
use rota_node::auth::operator::{PASSWORD_FILE as OPERATOR_FILE, USER as OPERATOR};
use rota_node::auth::scram;
use rota_node::config::{GENESIS_FILE, new_key};
use rota_node::tls::CA_FILE;
use rota_node::transport;

use crate::args::{Follow, Init, Work};
use crate::certificates::{Authority, CA_KEY_FILE, write};
use crate::cluster::{self, Founding, Place, home_of};
use crate::difficulty::{bits_of, hash_rate};
use crate::failure::Failure;
use crate::print::out;

/// The spacing under `pow`, in seconds, unless another is asked for.
const SPACING_S: u32 = 60;

/// The first blocks under `pow` are so many times easier than was measured: the first target is the
/// easiest there may be, and not all machines are alike.
const EASIER: u64 = 4;

/// What the first user signs with: 64 hex digits, as a server's key.
const KEY_FILE: &str = "administrator.key";

/// What the first user logs in with.
const PASSWORD_FILE: &str = "administrator.password";

/// Of what passwords are made: 32 letters, five bits each.
const PASSWORD_LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";

/// Writes the homes and says what to do with them.
pub fn run(asked: &Init) -> Result<(), Failure> {
    check_work(asked)?;
    check_out(&asked.out)?;
    let places = places(asked)?;
    std::fs::create_dir_all(&asked.out).map_err(Failure::doing(asked.out.display()))?;
    let (administrator, password) = administrator(asked)?;
    let method = Method::from(asked.method);
    let founding = Founding {
        name: &asked.name,
        method,
        pow: (method == Method::Pow).then(|| pow(&asked.work, places.len())),
        administrator,
        // Under raft members take each other's word for everything.
        trusted_servers: asked.trusted_servers || method == Method::Raft,
        // Under pow who comes from a server's own machine is its operator.
        open: method == Method::Pow && asked.listen.is_loopback(),
        servers_may: false,
        mines: (u32::from(method == Method::Pow), 100),
    };
    let genesis = cluster::create(&asked.out, &founding, &places)?;
    if method == Method::Pow && !founding.open {
        (1..=places.len()).try_for_each(|number| operator(&home_of(&asked.out, number)))?;
    }
    if !founding.open {
        certify(asked, &places)?;
    }
    out(&instructions(asked, &places, &genesis, password.as_deref()))
}

/// What only `pow` knows is refused for another method, since it would have no effect.
fn check_work(asked: &Init) -> Result<(), Failure> {
    let Work { spacing, depth, reward, fee_per_kb, hash_rate, retarget } = &asked.work;
    let said = [
        ("--spacing", spacing.is_some()),
        ("--depth", depth.is_some()),
        ("--reward", reward.is_some()),
        ("--fee-per-kb", fee_per_kb.is_some()),
        ("--hash-rate", hash_rate.is_some()),
        ("--retarget", retarget.is_some()),
    ];
    match said.into_iter().find(|(_, said)| *said) {
        Some((what, _)) if Method::from(asked.method) != Method::Pow => {
            Err(Failure::new(format!("{what} is for --method pow")))
        }
        _ => Ok(()),
    }
}

/// What the servers of a new database under `pow` have in common.
fn pow(asked: &Work, servers: usize) -> Pow {
    let spacing_s = asked.spacing.unwrap_or(SPACING_S);
    let cores = u64::try_from(servers).unwrap_or(u64::MAX);
    let rate = asked.hash_rate.unwrap_or_else(|| hash_rate().saturating_mul(cores));
    let usual = Pow::default();
    Pow {
        spacing_s,
        bits: bits_of(rate.saturating_mul(u64::from(spacing_s)) / EASIER),
        retarget: match asked.retarget.unwrap_or(Follow::Asert) {
            // As Bitcoin Cash has it: two days at ten minutes.
            Follow::Asert => Retarget::Asert { halflife_s: spacing_s.saturating_mul(288) },
            Follow::Bitcoin => Retarget::Bitcoin { interval: 2_016 },
        },
        depth: asked.depth.unwrap_or(usual.depth),
        reward: asked.reward.unwrap_or(usual.reward),
        fee_per_kb: asked.fee_per_kb.unwrap_or(usual.fee_per_kb),
    }
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

/// Makes the first user: a key to sign with, and a password to log in with; under `pow`, where
/// everybody reads the genesis, a key only.
fn administrator(asked: &Init) -> Result<(Administrator, Option<String>), Failure> {
    let key = new_key().map_err(Failure::doing("making the administrator's key"))?;
    write(&asked.out.join(KEY_FILE), &(hex::encode(key.to_bytes()) + "\n"), 0o600)?;
    let (name, key) = (asked.administrator.clone(), Some(key.public()));
    if Method::from(asked.method) == Method::Pow {
        return Ok((Administrator { name, key, verifier: None }, None));
    }
    let password = new_password()?;
    let mut salt = [0; scram::SALT_BYTES];
    getrandom::fill(&mut salt).map_err(Failure::doing("asking for randomness"))?;
    let verifier = scram::derive(&password, &salt, scram::ITERATIONS);
    write(&asked.out.join(PASSWORD_FILE), &format!("{password}\n"), 0o600)?;
    Ok((Administrator { name, key, verifier: Some(verifier.to_string()) }, Some(password)))
}

/// Makes what a server's operator logs in with where clients come from other machines: of that
/// server only, and nothing of it is replicated.
fn operator(home: &Path) -> Result<(), Failure> {
    write(&home.join(OPERATOR_FILE), &(new_password()? + "\n"), 0o600)
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

fn instructions(
    asked: &Init,
    places: &[Place],
    genesis: &Genesis,
    password: Option<&str>,
) -> String {
    let folder = asked.out.display();
    let chain = genesis.chain_id();
    let mut text = format!("Database {} ({chain}), {} servers.\n\n", asked.name, places.len());
    for (number, (place, host)) in (1..).zip(places.iter().zip(&asked.servers)) {
        let home = home_of(&asked.out, number);
        text.push_str(&format!(
            "{}\n  copy {} to {host}, readable by the server's user only (its keys are secret)\n  \
             open {} port {} to the other servers{}\n  \
             rota start --home <the copy>\n",
            place.name,
            home.display(),
            transport::ports(genesis.method),
            place.peer.port(),
            match asked.listen.is_loopback() {
                true => String::new(),
                false =>
                    format!(", TCP ports {} and {} to clients", place.pg.port(), place.http.port()),
            }
        ));
    }
    text.push_str(&promise(genesis, places.len()));
    let Some(password) = password else { return text + &for_operators(asked, places) };
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

/// Who may do what under `pow`, where each server acts for its operator.
fn for_operators(asked: &Init, places: &[Place]) -> String {
    let (folder, user) = (asked.out.display(), &asked.administrator);
    let port = |of: fn(&Place) -> SocketAddr| places.first().map_or(0, |place| of(place).port());
    let (pg, http) = (port(|place| place.pg), port(|place| place.http));
    let bootstrap: Vec<&str> = places.iter().map(|place| place.dialled.as_str()).collect();
    let host = host_of_first(asked, "127.0.0.1");
    let home = home_of(&asked.out, 1).display().to_string();
    let (scheme, acts) = match asked.listen.is_loopback() {
        true => {
            let acts = "Who comes from a server's own machine acts as that server's account:";
            ("http", format!("{acts}\n  rota sql 127.0.0.1:{pg}\n"))
        }
        false => {
            let acts = format!(
                "Who knows the password in a server's {OPERATOR_FILE} acts as that server's \
                 account:\n  \
                 export ROTA_PASSWORD=$(cat {home}/{OPERATOR_FILE}) ROTA_CA={folder}/{CA_FILE}\n  \
                 rota sql postgres://{OPERATOR}@{host}:{pg}/rota\n  \
                 PGPASSWORD=$ROTA_PASSWORD psql 'postgres://{OPERATOR}@{host}:{pg}/rota\
                 ?sslmode=verify-full&sslrootcert={folder}/{CA_FILE}'\n"
            );
            ("https", acts)
        }
    };
    let ca = match asked.listen.is_loopback() {
        true => String::new(),
        false => format!(" --ca {folder}/{CA_FILE}"),
    };
    format!(
        "\n{acts}\
         {user} may do everything, and signs with {folder}/{KEY_FILE} only; keep that where nobody \
         else gets at it:\n  \
         rota tx --key {folder}/{KEY_FILE}{ca} {scheme}://{host}:{http} \"GRANT …\"\n\
         Others join with the genesis, which holds nothing secret:\n  \
         rota join --genesis {genesis} --bootstrap {bootstrap} --out rota\n\
         \nWhen the server-… folders are copied, remove them here: a key must be in one place \
         only.\n",
        genesis = home_of(&asked.out, 1).join(GENESIS_FILE).display(),
        bootstrap = bootstrap.join(","),
    )
}

/// What has to be up for writes, and what may fail.
fn promise(genesis: &Genesis, servers: usize) -> String {
    let quorum = match genesis.method {
        Method::Poa => servers * 2 / 3 + 1,
        Method::Raft => servers / 2 + 1,
        Method::Pow => {
            let (spacing, depth) =
                genesis.pow.as_ref().map_or((0, 0), |pow| (pow.spacing_s, pow.depth));
            return format!(
                "\nA block is found every {spacing} s or so, and final {depth} deep. Each server \
                 mines with one thread\n(`mine_threads` and `mine_share` in server.toml). Whoever \
                 has {GENESIS_FILE} can join with a key of its own.\n"
            );
        }
    };
    format!(
        "\nWrites need {quorum} of the {servers} servers: {} may fail at once.\n",
        servers - quorum
    )
}

/// The first server as its clients call it; `here` if they are on its own machine.
fn host_of_first(asked: &Init, here: &str) -> String {
    let host = match asked.servers.first() {
        Some(host) if !asked.listen.is_loopback() => host.trim(),
        _ => here,
    };
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// How to log in.
fn for_clients(asked: &Init, places: &[Place], password: &str) -> String {
    let (folder, user) = (asked.out.display(), &asked.administrator);
    let host = host_of_first(asked, "localhost");
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
    use crate::args::Rule;
    use rota_node::auth::operator::Operator;

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
            method: Rule::Poa,
            work: Work::default(),
        }
    }

    #[test]
    fn what_is_for_pow_is_refused_elsewhere() {
        let work = || Work { depth: Some(3), ..Work::default() };
        let poa = Init { work: work(), ..asked(&["a"]) };
        assert!(check_work(&poa).is_err_and(|why| why.to_string().contains("--depth")));
        let pow = Init { work: work(), method: Rule::Pow, ..asked(&["a"]) };
        assert!(check_work(&pow).is_ok());
        let made = super::pow(&Work { spacing: Some(600), hash_rate: Some(1 << 20), ..work() }, 1);
        assert_eq!((made.spacing_s, made.depth), (600, 3));
        assert_eq!(made.retarget, Retarget::Asert { halflife_s: 172_800 });
    }

    #[test]
    fn an_operator_can_log_in_to_each_server_under_pow() {
        let folder = tempfile::tempdir().unwrap();
        let made = |listen: Ipv4Addr, out: &str| {
            let out = folder.path().join(out);
            let work = Work { hash_rate: Some(1 << 20), spacing: Some(600), ..Work::default() };
            let asked = asked(&["a.example", "b.example"]);
            let listen = listen.into();
            let init = Init { listen, out: out.clone(), method: Rule::Pow, work, ..asked };
            run(&init).map_err(|failure| failure.to_string()).unwrap();
            let key = rota_node::config::load_key(&home_of(&out, 2)).unwrap().public();
            Operator::load(&home_of(&out, 2), key).unwrap();
            let genesis = rota_node::config::load_genesis(&home_of(&out, 2)).unwrap();
            assert_eq!(genesis.parameters.max_expiry_ms, 56 * 600_000, "56 spacings");
            let password = std::fs::read_to_string(home_of(&out, 2).join(OPERATOR_FILE));
            let other = std::fs::read_to_string(home_of(&out, 1).join(OPERATOR_FILE));
            assert!(password.is_err() || password.as_ref().ok() != other.as_ref().ok());
            password.is_ok()
        };
        assert!(made(Ipv4Addr::UNSPECIFIED, "far"));
        assert!(!made(Ipv4Addr::LOCALHOST, "near"), "nobody else comes in there");
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
