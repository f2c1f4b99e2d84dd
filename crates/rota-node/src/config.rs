//! A server's home folder: what is in it, and that only one process at a time has it.
//!
//! ```text
//! home/genesis.json   what all servers of the database have in common
//!      server.toml    this server's name and addresses, and where its peers are
//!      key            its secret key, 64 hex digits, readable by the owner only
//!      tls.crt        its certificate for clients, if they are to speak TLS (tls)
//!      tls.key        the key of that, readable by the owner only
//!      lock           held, with the process id in it, while a server runs
//!      peers.json     other servers' addresses that were found (pow; transport::open)
//!      state.db       the users' database     (rota-store)
//!      chain.db       blocks, votes, receipts (rota-store)
//!      snapshots      copies of state.db, for servers that are far behind (rota-store)
//! ```

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rota_core::crypto::SecretKey;
use rota_core::genesis::Genesis;
use rota_core::types::NodeId;
use rota_store::chain_db::{self, ChainDb};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The genesis in a home.
pub const GENESIS_FILE: &str = "genesis.json";
/// The server's own settings in a home.
pub const CONFIG_FILE: &str = "server.toml";
/// The secret key in a home.
pub const KEY_FILE: &str = "key";
/// What a running server holds locked in its home.
pub const LOCK_FILE: &str = "lock";

/// Addresses of others that a server found, in a home.
pub const PEERS_FILE: &str = "peers.json";

/// For how long it may take that a killed process is gone from a home.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Between looks at a home that is in use.
const LOCK_LOOK: Duration = Duration::from_millis(10);

/// No file of ours that a person edits is larger; a larger one is a mistake and is not read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A home folder that cannot be used, with what to do about it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is no such file or folder, or it cannot be read or written.
    #[error("{path}: {error}{}", hint(path, error))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is there and makes no sense.
    #[error("{path}: {wrong}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
    /// Another process runs on this home.
    #[error(
        "{home} is in use by process {pid}: two servers with one key would contradict each other; \
         stop that process first, or use another home"
    )]
    InUse {
        /// The home.
        home: PathBuf,
        /// Who has it.
        pid: String,
    },
    /// A home is to be made where there is one.
    #[error("{0} holds a server already: its files are not overwritten; choose another folder")]
    Exists(PathBuf),
}

fn hint(path: &Path, error: &std::io::Error) -> &'static str {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    if missing && path.file_name().is_some_and(|name| name == GENESIS_FILE || name == CONFIG_FILE) {
        " (is this a server's home? `rota init` makes one)"
    } else {
        ""
    }
}

pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ConfigError {
    move |error| ConfigError::Io { path: path.into(), error }
}

pub(crate) fn content(path: &Path, wrong: impl std::fmt::Display) -> ConfigError {
    ConfigError::Content { path: path.into(), wrong: wrong.to_string() }
}

/// This server's name and addresses (`server.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// A name for people: in logs and status.
    pub name: String,
    /// Where PostgreSQL's protocol is spoken (TCP).
    pub pg: SocketAddr,
    /// Where HTTP is spoken (TCP).
    pub http: SocketAddr,
    /// Where other servers reach this one (TCP; `pow`: UDP).
    pub peer: SocketAddr,
    /// Whether clients of this machine may be users that have neither password nor key. Honoured
    /// only where both doors listen on loopback addresses; `rota dev` sets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// So many of the newest blocks are kept, and the older ones deleted, as far as the snapshots
    /// that others may need allow it; with 0 (the default) all are kept.
    #[serde(default, skip_serializing_if = "is_no_number")]
    pub keep_blocks: u64,
    /// Whether this server holds the data and never votes; its key is not a member's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follower: bool,
    /// `pow`: so many threads search for blocks; with 0 this server does not mine.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mine_threads: u32,
    /// `pow`: each of them for so many percent of a core's time.
    #[serde(default = "all_of_it", skip_serializing_if = "is_all_of_it")]
    pub mine_share: u8,
    /// `pow`: where to find others, as `host:port` of their peer addresses. What is found there is
    /// kept in `peers.json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bootstrap: Vec<String>,
    /// Where the other members are. This server itself may be listed, so that it can tell clients
    /// where they reach it.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// Servers that only follow: this one lets them in and tells them what is final.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<FollowerConfig>,
}

/// A server that follows and never votes (`[[followers]]` in a member's `server.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowerConfig {
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Who it is.
    pub key: NodeId,
    /// `host:port` of its peer address; without one it has to connect by itself.
    #[serde(default)]
    pub address: String,
}

fn is_no_number(number: &u64) -> bool {
    *number == 0
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn all_of_it() -> u8 {
    100
}

fn is_all_of_it(share: &u8) -> bool {
    *share == all_of_it()
}

/// Another member (`[[peers]]` in `server.toml`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Who it is.
    pub key: NodeId,
    /// `host:port` of its peer address.
    pub address: String,
    /// Where clients reach it over HTTP: `https://host:port`. They are told so that they find the
    /// other servers by asking one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

impl ServerConfig {
    /// A server with a name and addresses, and nothing else: closed, without peers, not mining.
    pub fn new(
        name: impl Into<String>,
        pg: SocketAddr,
        http: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        let (open, peers) = (false, Vec::new());
        let (mine_threads, mine_share) = (0, all_of_it());
        Self {
            name: name.into(),
            pg,
            http,
            peer,
            open,
            mine_threads,
            mine_share,
            bootstrap: Vec::new(),
            peers,
            keep_blocks: 0,
            follower: false,
            followers: Vec::new(),
        }
    }

    /// Reads a home's `server.toml`.
    pub fn load(home: &Path) -> Result<Self, ConfigError> {
        let path = home.join(CONFIG_FILE);
        toml::from_str(&read(&path)?).map_err(|error| content(&path, error))
    }

    /// Writes a home's `server.toml`.
    pub fn save(&self, home: &Path) -> Result<(), ConfigError> {
        let path = home.join(CONFIG_FILE);
        let text = toml::to_string_pretty(self).map_err(|error| content(&path, error))?;
        write(&path, &text, 0o644)
    }
}

/// Reads and checks a home's genesis.
pub fn load_genesis(home: &Path) -> Result<Genesis, ConfigError> {
    let path = home.join(GENESIS_FILE);
    let genesis: Genesis =
        serde_json::from_str(&read(&path)?).map_err(|error| content(&path, error))?;
    genesis.check().map_err(|wrong| content(&path, wrong))?;
    Ok(genesis)
}

/// Checks a genesis and writes it to a home.
pub fn save_genesis(home: &Path, genesis: &Genesis) -> Result<(), ConfigError> {
    let path = home.join(GENESIS_FILE);
    genesis.check().map_err(|wrong| content(&path, wrong))?;
    let text = serde_json::to_string_pretty(genesis).map_err(|error| content(&path, error))?;
    // Administrators' verifiers are in it.
    write(&path, &(text + "\n"), 0o600)
}

/// Reads a home's secret key. Refuses a key file that others may read.
pub fn load_key(home: &Path) -> Result<SecretKey, ConfigError> {
    let path = home.join(KEY_FILE);
    let mode = std::fs::metadata(&path).map_err(io(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(content(
            &path,
            "others may read this secret key; run `chmod 600` on it, or make a new one if they did",
        ));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(read(&path)?.trim(), &mut bytes)
        .map_err(|error| content(&path, format!("not 64 hex digits: {error}")))?;
    Ok(SecretKey::from_bytes(bytes))
}

/// Writes a home's secret key, readable by the owner only.
pub fn save_key(home: &Path, key: &SecretKey) -> Result<(), ConfigError> {
    write(&home.join(KEY_FILE), &(hex::encode(key.to_bytes()) + "\n"), 0o600)
}

/// A new key from the system's random source.
pub fn new_key() -> std::io::Result<SecretKey> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(SecretKey::from_bytes(bytes))
}

/// Makes a home for a new server. Never overwrites one.
pub fn create_home(
    home: &Path,
    genesis: &Genesis,
    key: &SecretKey,
    config: &ServerConfig,
) -> Result<(), ConfigError> {
    std::fs::create_dir_all(home).map_err(io(home))?;
    // The database in it is for nobody else on this machine.
    std::fs::set_permissions(home, Permissions::from_mode(0o700)).map_err(io(home))?;
    let taken = [GENESIS_FILE, CONFIG_FILE, KEY_FILE, "state.db", "chain.db"];
    if taken.iter().any(|name| home.join(name).exists()) {
        return Err(ConfigError::Exists(home.into()));
    }
    save_genesis(home, genesis)?;
    save_key(home, key)?;
    config.save(home)?;
    // A member whose log is missing later knows by that that it was lost.
    let log = home.join(chain_db::FILE);
    ChainDb::open(home, genesis).map(drop).map_err(|fault| content(&log, fault))
}

/// A home that this process has for itself until this is dropped.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

impl HomeLock {
    /// Takes the home, or says who has it. The lock is the kernel's, so a killed server leaves none
    /// behind; but its files are closed only when it is wholly gone, and that takes a moment.
    pub fn take(home: &Path) -> Result<Self, ConfigError> {
        Self::take_by(home, Instant::now() + LOCK_PATIENCE)
    }

    /// The same, and gives up at an instant of one's own.
    pub fn take_by(home: &Path, deadline: Instant) -> Result<Self, ConfigError> {
        loop {
            match Self::try_take(home) {
                Err(ConfigError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_LOOK);
                }
                taken => return taken,
            }
        }
    }

    /// Takes the home if nobody has it at this moment.
    pub fn try_take(home: &Path) -> Result<Self, ConfigError> {
        let path = home.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.take(MAX_FILE_BYTES).read_to_string(&mut pid).map_err(io(&path))?;
                return Err(ConfigError::InUse { home: home.into(), pid: pid.trim().into() });
            }
            Err(TryLockError::Error(error)) => return Err(ConfigError::Io { path, error }),
        }
        let mode = std::fs::metadata(home).map_err(io(home))?.permissions().mode();
        if mode & 0o007 != 0 {
            tracing::warn!(
                "everybody on this machine can read what is in {}: run `chmod 700` on it",
                home.display()
            );
        }
        file.set_len(0).map_err(io(&path))?;
        writeln!(file, "{}", std::process::id()).map_err(io(&path))?;
        Ok(Self { _file: file })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let file = File::open(path).map_err(io(path))?;
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io(path))?;
    Ok(text)
}

/// Replaces a file whole: a crash leaves the old one or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), ConfigError> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&draft)
        .map_err(io(&draft))?;
    file.write_all(text.as_bytes()).map_err(io(&draft))?;
    file.sync_all().map_err(io(&draft))?;
    std::fs::rename(&draft, path).map_err(io(path))
}
