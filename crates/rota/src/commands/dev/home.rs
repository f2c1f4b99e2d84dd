//! The folder of a development cluster: recognised by a file that only `rota dev` writes, so that
//! `--fresh` never deletes anything else.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use rota_core::genesis::Administrator;
use rota_node::config::{PeerConfig, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::address::USER_AND_DATABASE;
use crate::args::Dev;
use crate::cluster::{self, Founding, Place, config_of, home_of};
use crate::failure::Failure;

/// What tells that a folder is a development cluster's, and holds how it was made.
const MARK: &str = "rota-dev.json";

/// Without a word from anyone: the fewest servers of which one may fail.
const SERVERS: u16 = 4;

/// The content of [`MARK`].
#[derive(Serialize, Deserialize)]
struct Mark {
    servers: u16,
}

/// A development cluster's folder, locked against a second `rota dev`.
pub struct Home {
    folder: PathBuf,
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
        let servers = if made {
            servers_of(&text, asked, &folder)?
        } else {
            let servers = asked.servers.unwrap_or(SERVERS);
            let text = serde_json::json!(Mark { servers }).to_string() + "\n";
            file.write_all(text.as_bytes()).map_err(Failure::doing(mark.display()))?;
            servers
        };
        Ok((Self { folder, made, _lock: file }, servers))
    }

    /// Makes the servers' homes, or, where they are there, gives them today's ports. Whether they
    /// were there.
    pub fn prepare(&self, places: &[Place]) -> Result<bool, Failure> {
        if !self.made {
            let founding = Founding {
                name: "development",
                administrator: Administrator::open(USER_AND_DATABASE),
                trusted_servers: true,
                open: true,
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
        for (number, place) in (1..).zip(places) {
            config_of(place, &peers, true)
                .save(&self.server(number))
                .map_err(Failure::doing("writing a server's ports"))?;
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

fn servers_of(text: &str, asked: &Dev, folder: &Path) -> Result<u16, Failure> {
    let mark: Mark =
        serde_json::from_str(text).map_err(Failure::doing(folder.join(MARK).display()))?;
    match asked.servers {
        Some(servers) if servers != mark.servers => Err(Failure::new(format!(
            "{} has {} servers, not {servers}: use another --home, or --fresh to start over",
            folder.display(),
            mark.servers
        ))),
        _ => Ok(mark.servers),
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

    fn asked(home: &Path, servers: Option<u16>, fresh: bool) -> Dev {
        Dev { servers, home: home.into(), fresh, port_offset: 0 }
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
    fn two_do_not_share_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("dev");
        let first = Home::open(&asked(&home, None, false)).map_err(|e| e.to_string()).unwrap();
        assert!(Home::open(&asked(&home, None, true)).is_err());
        drop(first);
        assert!(Home::open(&asked(&home, None, true)).is_ok());
    }
}
