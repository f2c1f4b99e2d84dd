//! What tests of whole servers share: a cluster in one process, on real sockets and files.

#![allow(dead_code)]

use std::path::Path;
use std::time::Duration;

use rota_core::crypto::SecretKey;
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters};
use rota_core::members::Member;
use rota_core::transaction::{Parameters as Bound, Settings, Statement, Value};
use rota_core::types::{Digest, Height};
use rota_node::config::{PeerConfig, ServerConfig, create_home};
use rota_node::driver::{ReadOptions, WriteOptions};
use rota_node::{Driver, RunOptions, Server, State, WriteError, Written};

/// No single step of these tests takes longer, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server is asked whether it is so far.
pub const LOOK: Duration = Duration::from_millis(5);

/// A cluster; it can lose servers and get them back.
pub struct Cluster {
    pub genesis: Genesis,
    pub homes: Vec<tempfile::TempDir>,
    pub servers: Vec<Option<Server>>,
}

pub fn key(number: usize) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(number).unwrap() + 1; 32])
}

fn genesis(servers: usize) -> Genesis {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: u64::try_from(now.as_millis()).unwrap(),
        method: Method::Poa,
        pow: None,
        seed: Digest([0; 32]),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: rota_store::sqlite::identity(),
        parameters: Parameters::default(),
        members: (0..servers).map(|i| Member { key: key(i).public(), weight: 1 }).collect(),
    }
}

impl Cluster {
    /// Starts servers one after the other; each knows where the earlier ones are.
    pub async fn start(servers: usize) -> Self {
        Self::start_with(servers, |_| {}, |_, _| {}).await
    }

    /// The same with another genesis, other settings, or more files in the homes.
    pub async fn start_with(
        servers: usize,
        genesis_is: impl Fn(&mut Genesis),
        home_is: impl Fn(&Path, &mut ServerConfig),
    ) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        let mut genesis = genesis(servers);
        genesis_is(&mut genesis);
        let mut cluster = Self { genesis, homes: Vec::new(), servers: Vec::new() };
        for number in 0..servers {
            let home = tempfile::tempdir().unwrap();
            let any = "127.0.0.1:0".parse().unwrap();
            let name = format!("server-{}", number + 1);
            let mut config = ServerConfig { open: true, ..ServerConfig::new(name, any, any, any) };
            create_home(home.path(), &cluster.genesis, &key(number), &config).unwrap();
            home_is(home.path(), &mut config);
            config.save(home.path()).unwrap();
            cluster.homes.push(home);
            cluster.servers.push(None);
            cluster.bring_back(number).await;
        }
        cluster
    }

    pub async fn bring_back(&mut self, number: usize) {
        let home = self.homes[number].path();
        let mut config = ServerConfig::load(home).unwrap();
        let others = self.servers.iter().enumerate();
        config.peers = others
            .filter_map(|(other, server)| {
                let address = server.as_ref()?.peer.to_string();
                let http = Some(format!("http://{}", server.as_ref()?.http));
                Some(PeerConfig { name: String::new(), key: key(other).public(), address, http })
            })
            .collect();
        config.save(home).unwrap();
        self.servers[number] = Some(start(home).await);
    }

    pub async fn stop(&mut self, number: usize) {
        self.servers[number].take().unwrap().stop().await;
    }

    pub fn driver(&self, number: usize) -> Driver {
        self.servers[number].as_ref().unwrap().driver.clone()
    }

    /// Waits until this server can be used, or can no longer.
    pub async fn is(&self, number: usize, state: State) {
        let driver = self.driver(number);
        let look = async {
            let mut again = tokio::time::interval(LOOK);
            while driver.status().state != state {
                again.tick().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, look).await;
        assert!(waited.is_ok(), "not {state:?}: {:#?}", driver.status());
    }

    /// Waits until this server has executed that height; its root there.
    pub async fn root(&self, number: usize, height: Height) -> String {
        let driver = self.driver(number);
        let look = async {
            let mut again = tokio::time::interval(LOOK);
            loop {
                again.tick().await;
                let status = driver.status();
                if let Some(at) = status.roots.iter().find(|at| at.height == height.0) {
                    return at.root.to_string();
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("never reached that height")
    }
}

async fn start(home: &Path) -> Server {
    Server::start(home, RunOptions::default()).await.unwrap()
}

/// SQL with parameters.
pub fn statement(sql: &str, parameters: Vec<Value>) -> Statement {
    Statement { sql: sql.into(), parameters: Bound::Positional(parameters) }
}

/// Writes one statement.
pub async fn write(driver: &Driver, sql: &str) -> Result<Written, WriteError> {
    driver
        .write(
            "rota",
            vec![statement(sql, Vec::new())],
            Settings::default(),
            &WriteOptions::default(),
        )
        .await
}

/// How many rows there are, at this height at least.
pub async fn count(driver: &Driver, after: Height) -> i64 {
    let sql = statement("SELECT count(*) FROM t", Vec::new());
    let rows =
        driver.read("rota", sql, Settings::default(), &ReadOptions::after(after)).await.unwrap();
    match rows.rows[..] {
        [ref row] => match row[..] {
            [Value::Integer(count)] => count,
            _ => panic!("{row:?}"),
        },
        _ => panic!("{rows:?}"),
    }
}
