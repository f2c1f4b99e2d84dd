//! Four whole servers in one process, on real sockets and files.

use std::path::Path;
use std::time::Duration;

use rota_core::crypto::SecretKey;
use rota_core::error::sqlstate;
use rota_core::genesis::{FORMAT, Genesis, Method, Parameters};
use rota_core::members::Member;
use rota_core::transaction::{Parameters as Bound, Settings, Statement, Value};
use rota_core::types::{Digest, Height};
use rota_node::config::{PeerConfig, ServerConfig, create_home};
use rota_node::driver::{ReadOptions, WriteOptions};
use rota_node::{Driver, RunOptions, Server, State, WriteError, Written};

/// No single step of these tests takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server is asked whether it is so far.
const LOOK: Duration = Duration::from_millis(5);

struct Cluster {
    genesis: Genesis,
    homes: Vec<tempfile::TempDir>,
    servers: Vec<Option<Server>>,
}

fn key(number: usize) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(number).unwrap() + 1; 32])
}

fn genesis(servers: usize) -> Genesis {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: u64::try_from(now.as_millis()).unwrap(),
        method: Method::Poa,
        seed: Digest([0; 32]),
        trusted_servers: true,
        sqlite: rota_store::sqlite::identity(),
        parameters: Parameters::default(),
        members: (0..servers).map(|i| Member { key: key(i).public(), weight: 1 }).collect(),
    }
}

impl Cluster {
    /// Starts servers one after the other; each knows where the earlier ones are.
    async fn start(servers: usize) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        let genesis = genesis(servers);
        let mut cluster = Self { genesis, homes: Vec::new(), servers: Vec::new() };
        for number in 0..servers {
            let home = tempfile::tempdir().unwrap();
            let any = "127.0.0.1:0".parse().unwrap();
            let name = format!("server-{}", number + 1);
            let config = ServerConfig { name, pg: any, http: any, peer: any, peers: Vec::new() };
            create_home(home.path(), &cluster.genesis, &key(number), &config).unwrap();
            cluster.homes.push(home);
            cluster.servers.push(None);
            cluster.bring_back(number).await;
        }
        cluster
    }

    async fn bring_back(&mut self, number: usize) {
        let home = self.homes[number].path();
        let mut config = ServerConfig::load(home).unwrap();
        let others = self.servers.iter().enumerate();
        config.peers = others
            .filter_map(|(other, server)| {
                let address = server.as_ref()?.peer.to_string();
                Some(PeerConfig { name: String::new(), key: key(other).public(), address })
            })
            .collect();
        config.save(home).unwrap();
        self.servers[number] = Some(start(home).await);
    }

    async fn stop(&mut self, number: usize) {
        self.servers[number].take().unwrap().stop().await;
    }

    fn driver(&self, number: usize) -> Driver {
        self.servers[number].as_ref().unwrap().driver.clone()
    }

    /// Waits until this server can be used, or can no longer.
    async fn is(&self, number: usize, state: State) {
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
    async fn root(&self, number: usize, height: Height) -> String {
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

fn statement(sql: &str, parameters: Vec<Value>) -> Statement {
    Statement { sql: sql.into(), parameters: Bound::Positional(parameters) }
}

async fn write(driver: &Driver, sql: &str) -> Result<Written, WriteError> {
    driver
        .write(
            "rota",
            vec![statement(sql, Vec::new())],
            Settings::default(),
            &WriteOptions::default(),
        )
        .await
}

async fn count(driver: &Driver, after: Height) -> i64 {
    let sql = statement("SELECT count(*) FROM t", Vec::new());
    let rows = driver.read(sql, Settings::default(), &ReadOptions::after(after)).await.unwrap();
    match rows.rows[..] {
        [ref row] => match row[..] {
            [Value::Integer(count)] => count,
            _ => panic!("{row:?}"),
        },
        _ => panic!("{rows:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_one_server_is_read_from_all_and_roots_are_equal() {
    let cluster = Cluster::start(4).await;
    for number in 0..4 {
        cluster.is(number, State::Ready).await;
    }
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").await.unwrap();
    let written = write(&first, "INSERT INTO t(b) VALUES('x'), ('y')").await.unwrap();
    assert_eq!(written.results[0].rows_affected, 2);
    let root = cluster.root(0, written.height).await;
    for number in 1..4 {
        assert_eq!(count(&cluster.driver(number), written.height).await, 2);
        assert_eq!(cluster.root(number, written.height).await, root);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_four_may_stop_and_come_back_but_two_stop_the_writes() {
    let mut cluster = Cluster::start(4).await;
    cluster.is(0, State::Ready).await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    cluster.stop(3).await;
    let without = write(&first, "INSERT INTO t VALUES(1)").await.unwrap();
    cluster.bring_back(3).await;
    assert_eq!(count(&cluster.driver(3), without.height).await, 1);
    cluster.stop(2).await;
    cluster.stop(3).await;
    cluster.is(0, State::NoQuorum).await;
    let refused = write(&first, "INSERT INTO t VALUES(2)").await.unwrap_err();
    assert_eq!(refused.refusal.code(), sqlstate::CANNOT_CONNECT_NOW);
    assert_eq!(refused.id, None);
    assert_eq!(count(&first, Height(0)).await, 1);
    cluster.bring_back(2).await;
    cluster.is(0, State::Ready).await;
    let written = write(&first, "INSERT INTO t VALUES(2)").await.unwrap();
    assert_eq!(count(&cluster.driver(2), written.height).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_server_is_a_quorum_and_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::start(1).await;
    let driver = cluster.driver(0);
    write(&driver, "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    let written = write(&driver, "INSERT INTO t VALUES(1)").await.unwrap();
    let twice = write(&driver, "INSERT INTO t VALUES(1)").await.unwrap_err();
    assert_eq!(twice.refusal.code(), sqlstate::UNIQUE_VIOLATION);
    drop(driver);
    cluster.stop(0).await;
    cluster.bring_back(0).await;
    assert_eq!(count(&cluster.driver(0), written.height).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_refused_before_it_is_signed() {
    let cluster = Cluster::start(1).await;
    let driver = cluster.driver(0);
    let large = Value::Blob(vec![0; 4 << 20]);
    let large = vec![statement("INSERT INTO t VALUES(?)", vec![large])];
    let refused = driver
        .write("rota", large, Settings::default(), &WriteOptions::default())
        .await
        .unwrap_err();
    assert_eq!((refused.refusal.code(), refused.id), (sqlstate::TOO_COMPLEX, None));
    let refused = write(&driver, "BEGIN").await.unwrap_err();
    assert_eq!(refused.refusal.code(), sqlstate::INVALID_TRANSACTION_STATE);
    let refused = write(&driver, "UPDATE t SET a = 1 LIMIT 1").await.unwrap_err();
    assert_eq!((refused.refusal.code(), refused.id), (sqlstate::FEATURE_NOT_SUPPORTED, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_all_get_their_own_answers() {
    let cluster = Cluster::start(4).await;
    for number in 0..4 {
        cluster.is(number, State::Ready).await;
    }
    write(&cluster.driver(0), "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    let writers = (0..64i64).map(|number| {
        let driver = cluster.driver(usize::try_from(number % 4).unwrap());
        tokio::spawn(async move {
            let insert =
                statement("INSERT INTO t VALUES(?) RETURNING a", vec![Value::Integer(number)]);
            let written = driver
                .write("rota", vec![insert], Settings::default(), &WriteOptions::default())
                .await
                .unwrap();
            assert_eq!(written.results[0].rows.rows, vec![vec![Value::Integer(number)]]);
            (written.height, written.index)
        })
    });
    let mut places = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        places.push(writer.await.unwrap());
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 64);
    let last = places.last().unwrap().0;
    assert_eq!(count(&cluster.driver(2), last).await, 64);
}
