//! The folder of a development cluster: recognised by a file that only `rota dev` writes, so that
//! `--fresh` never deletes anything else.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use rota_core::genesis::{Administrator, Method, Pow};
use rota_core::work::Retarget;
use rota_node::config::{PeerConfig, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::address::USER_AND_DATABASE;
use crate::args::Dev;
use crate::cluster::{self, Founding, Place, home_of};
use crate::difficulty::{bits_of, hash_rate};
use crate::failure::Failure;

/// What tells that a folder is a development cluster's, and holds how it was made.
const MARK: &str = "rota-dev.json";

/// The fewest servers of which one may fail, or lie (`poa`); under `pow` as many.
const SERVERS: u16 = 4;

/// The fewest of which one may fail, if none lies.
const RAFT_SERVERS: u16 = 3;

/// Under `pow` each server mines with one thread, for a tenth of a core.
const MINES: (u32, u8) = (1, 10);

/// The spacing under `pow`, in seconds.
const SPACING_S: u32 = 2;

/// The first blocks under `pow` are so many times easier than was measured, since the first target
/// is the easiest there may be, and a machine may have less time to spare later on: they come
/// faster for the first minutes.
const EASIER: u64 = 4;

/// After so many seconds that blocks are early the difficulty is doubled: sixty spacings, so that
/// one sees it happen.
const HALFLIFE_S: u32 = 120;

/// The content of [`MARK`].
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Mark {
    servers: u16,
    method: Method,
}

/// A development cluster's folder, locked against a second `rota dev`.
pub struct Home {
    folder: PathBuf,
    /// How the servers find out whose turn it is.
    pub method: Method,
    made: bool,
    _lock: File,
}

impl Home {
    /// Opens or makes the folder, and says how many servers it has.
    pub fn open(asked: &Dev) -> Result<(Self, u16), Failure> {
        let folder = asked.home.clone();
        let mark = folder.join(MARK);
        if !mark.exists() {
            claim(&folder)?;
        }
        let file = File::options().read(true).append(true).create(true).open(&mark);
        let mut file = file.map_err(Failure::doing(mark.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!(
                    "another `rota dev` runs in {}; stop it, or use another --home and \
                     --port-offset",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::new(format!("{}: {error}", mark.display())));
            }
        }
        let text = std::fs::read_to_string(&mark).map_err(Failure::doing(mark.display()))?;
        let mut made = !text.is_empty();
        if made && asked.fresh {
            remove_servers(&folder)?;
            file.set_len(0).map_err(Failure::doing(mark.display()))?;
            made = false;
        }
        let Mark { servers, method } = if made {
            mark_of(&text, asked, &folder)?
        } else {
            let method = asked.method.map_or(Method::Poa, Method::from);
            let fewest = if method == Method::Raft { RAFT_SERVERS } else { SERVERS };
            let new = Mark { servers: asked.servers.unwrap_or(fewest), method };
            let text = serde_json::json!(new).to_string() + "\n";
            file.write_all(text.as_bytes()).map_err(Failure::doing(mark.display()))?;
            new
        };
        Ok((Self { folder, method, made, _lock: file }, servers))
    }

    /// Makes the servers' homes, or, where they are there, gives them today's ports. Whether they
    /// were there.
    pub fn prepare(&self, places: &[Place]) -> Result<bool, Failure> {
        if !self.made {
            let founding = Founding {
                name: "development",
                method: self.method,
                pow: (self.method == Method::Pow).then(|| pow(places.len())),
                mines: if self.method == Method::Pow { MINES } else { (0, 100) },
                administrator: Administrator::open(USER_AND_DATABASE),
                trusted_servers: true,
                open: true,
                servers_may: self.method == Method::Pow,
            };
            cluster::create(&self.folder, &founding, places)?;
            return Ok(false);
        }
        let wrong = Failure::doing(format!(
            "{} is not complete (`--fresh` makes it anew)",
            self.folder.display()
        ));
        let configs = (1..=places.len()).map(|number| ServerConfig::load(&self.server(number)));
        let configs = configs.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let known: Vec<PeerConfig> =
            configs.first().map(|config| config.peers.clone()).unwrap_or_default();
        let peers: Vec<PeerConfig> = known
            .into_iter()
            .zip(places)
            .map(|(peer, place)| PeerConfig {
                address: place.dialled.clone(),
                http: place.told(true),
                ..peer
            })
            .collect();
        for ((number, place), config) in (1..).zip(places).zip(configs) {
            let (pg, http, peer, peers) = (place.pg, place.http, place.peer, peers.clone());
            let config = ServerConfig { pg, http, peer, peers, ..config };
            let saved = config.save(&self.server(number));
            saved.map_err(Failure::doing("writing a server's ports"))?;
        }
        Ok(true)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A server's home, by its number from 1.
    pub fn server(&self, number: usize) -> PathBuf {
        home_of(&self.folder, number)
    }

    /// The command that carries on.
    pub fn again(&self, asked: &Dev) -> String {
        let mut text = format!("{} dev", super::live::program());
        if self.folder != Path::new("rota-dev") {
            text.push_str(&format!(" --home {}", self.folder.display()));
        }
        if asked.port_offset != 0 {
            text.push_str(&format!(" --port-offset {}", asked.port_offset));
        }
        text
    }
}

/// What a new cluster under `pow` has in common: a difficulty that so many servers of this machine
/// meet about once in a spacing.
fn pow(servers: usize) -> Pow {
    let (threads, share) = MINES;
    let servers = u64::try_from(servers).unwrap_or(u64::MAX);
    let rate = hash_rate() * u64::from(threads) * u64::from(share) / 100 * servers;
    Pow {
        spacing_s: SPACING_S,
        bits: bits_of(rate * u64::from(SPACING_S) / EASIER),
        retarget: Retarget::Asert { halflife_s: HALFLIFE_S },
        ..Pow::default()
    }
}

/// A new home: a folder that is not there or empty.
fn claim(folder: &Path) -> Result<(), Failure> {
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return std::fs::create_dir_all(folder).map_err(Failure::doing(folder.display()));
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::new(format!(
            "{} holds something that `rota dev` did not make: it is left alone; use another --home",
            folder.display()
        ))),
    }
}

fn mark_of(text: &str, asked: &Dev, folder: &Path) -> Result<Mark, Failure> {
    let mark: Mark =
        serde_json::from_str(text).map_err(Failure::doing(folder.join(MARK).display()))?;
    let wrong = |has: String| {
        let folder = folder.display();
        Failure::new(format!("{folder} has {has}: use another --home, or --fresh to start over"))
    };
    match (asked.servers, asked.method.map(Method::from)) {
        (Some(servers), _) if servers != mark.servers => {
            Err(wrong(format!("{} servers, not {servers}", mark.servers)))
        }
        (_, Some(method)) if method != mark.method => {
            let (has, asked) = (mark.method.name(), method.name());
            Err(wrong(format!("servers that were made for method {has}, not {asked}")))
        }
        _ => Ok(mark),
    }
}

/// Deletes the servers' homes and nothing else. One that is running is not deleted: its lock is
/// held.
fn remove_servers(folder: &Path) -> Result<(), Failure> {
    let homes: Vec<PathBuf> =
        (1..).map(|number| home_of(folder, number)).take_while(|home| home.is_dir()).collect();
    let locks = homes.iter().map(|home| rota_node::config::HomeLock::take(home));
    let _locks = locks.collect::<Result<Vec<_>, _>>().map_err(Failure::doing("--fresh"))?;
    for home in homes {
        std::fs::remove_dir_all(&home).map_err(Failure::doing(home.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Rule;

    fn asked(home: &Path, servers: Option<u16>, fresh: bool) -> Dev {
        Dev { method: None, servers, home: home.into(), fresh, port_offset: 0 }
    }

    #[test]
    fn fresh_leaves_alone_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("letter"), "dear").unwrap();
        assert!(Home::open(&asked(folder.path(), None, true)).is_err());
        assert!(folder.path().join("letter").exists());
    }

    #[test]
    fn fresh_deletes_servers_and_keeps_a_strangers_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("dev");
        drop(Home::open(&asked(&home, Some(5), false)).map_err(|e| e.to_string()).unwrap());
        std::fs::create_dir(home.join("server-1")).unwrap();
        std::fs::write(home.join("letter"), "dear").unwrap();
        let (_, servers) =
            Home::open(&asked(&home, None, true)).map_err(|e| e.to_string()).unwrap();
        assert_eq!(servers, SERVERS);
        assert!(home.join("letter").exists() && !home.join("server-1").exists());
    }

    #[test]
    fn a_home_keeps_its_number_of_servers() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("dev");
        drop(Home::open(&asked(&home, Some(5), false)).map_err(|e| e.to_string()).unwrap());
        assert!(matches!(Home::open(&asked(&home, None, false)), Ok((_, 5))));
        assert!(Home::open(&asked(&home, Some(4), false)).is_err());
    }

    #[test]
    fn a_home_keeps_its_method() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("dev");
        let by = |method, fresh| Dev { method, fresh, ..asked(&home, None, false) };
        let Ok((first, servers)) = Home::open(&by(Some(Rule::Raft), false)) else { panic!() };
        assert_eq!((first.method, servers), (Method::Raft, RAFT_SERVERS));
        drop(first);
        assert!(
            matches!(Home::open(&by(None, false)), Ok((home, 3)) if home.method == Method::Raft)
        );
        let Err(refused) = Home::open(&by(Some(Rule::Pow), false)) else { panic!() };
        assert!(refused.to_string().contains("method raft, not pow"), "{refused}");
        assert!(matches!(Home::open(&by(Some(Rule::Pow), true)), Ok((_, SERVERS))));
    }

    #[test]
    fn two_do_not_share_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("dev");
        let first = Home::open(&asked(&home, None, false)).map_err(|e| e.to_string()).unwrap();
        assert!(Home::open(&asked(&home, None, true)).is_err());
        drop(first);
        assert!(Home::open(&asked(&home, None, true)).is_ok());
    }
}
