//! Servers that are far behind, have lost their disks, or only follow: they catch up by snapshots
//! and blocks, and never vote.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rota_core::crypto::SecretKey;
use rota_core::error::sqlstate;
use rota_core::genesis::Genesis;
use rota_core::transaction::{Settings, Value};
use rota_core::types::Height;
use rota_node::config::{FollowerConfig, PeerConfig, ServerConfig, create_home};
use rota_node::driver::{ReadLevel, ReadOptions};
use rota_node::{Anew, Driver, Ended, RunOptions, Server, State, Written};

use support::{Cluster, LOOK, PATIENCE, count, key, statement, write};

/// How many blocks are between two snapshots in these tests.
const EVERY: u64 = 10;

fn often(genesis: &mut Genesis) {
    genesis.parameters.snapshot_blocks = EVERY;
}

/// Writes rows one by one, so that each is in a block of its own, until that height is reached.
async fn fill(driver: &Driver, until: u64) -> Written {
    loop {
        let written = write(driver, "INSERT INTO t(b) VALUES (hex(randomblob(2000)))").await;
        let written = written.unwrap();
        if written.height.0 >= until {
            return written;
        }
    }
}

/// What a single value is.
async fn value(driver: &Driver, sql: &str) -> Value {
    let options = ReadOptions::default();
    let rows = driver.read("rota", statement(sql, Vec::new()), Settings::default(), &options);
    rows.await.unwrap().rows.remove(0).remove(0)
}

/// A server that catches up by a snapshot, once it has.
async fn restored(mut server: Server) -> Server {
    let ended = tokio::time::timeout(PATIENCE, server.ended()).await;
    match ended.expect("no snapshot was fetched") {
        Ended::Anew(anew @ Anew::Restore { .. }) => server.renew(anew).await.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// How many promises there are in a server's log for slots that are not final.
fn promises(home: &Path) -> i64 {
    let log = rusqlite::Connection::open(home.join("chain.db")).unwrap();
    log.query_row("SELECT count(*) FROM rota_tail", [], |row| row.get(0)).unwrap()
}

/// Changes a byte in each snapshot of a home.
fn damage_snapshots(home: &Path) {
    for entry in fs::read_dir(home.join("snapshots")).unwrap() {
        let path = entry.unwrap().path().join("state.db");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_disk_catches_up_by_snapshot_and_never_votes() {
    let mut cluster = Cluster::start_with(4, often, |_, _| {}).await;
    cluster.is(0, State::Ready).await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").await.unwrap();
    fill(&first, 12).await;
    cluster.stop(3).await;
    let home = cluster.homes[3].path().to_owned();
    for name in ["state.db", "chain.db"] {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(home.join(format!("{name}{end}")));
        }
    }
    let _ = fs::remove_dir_all(home.join("snapshots"));
    fill(&first, 45).await;
    // Two of three have damaged copies, which are found before they are sent.
    damage_snapshots(cluster.homes[0].path());
    damage_snapshots(cluster.homes[1].path());
    cluster.bring_back(3).await;
    let server = restored(cluster.servers[3].take().unwrap()).await;
    assert!(server.driver.status().applied.height >= 30);
    cluster.servers[3] = Some(server);
    let written = fill(&first, 60).await;
    let root = cluster.root(0, written.height).await;
    assert_eq!(cluster.root(3, written.height).await, root);
    let last = cluster.driver(3);
    assert_eq!(count(&last, written.height).await, count(&first, written.height).await);
    cluster.is(3, State::Ready).await;
    assert_eq!(last.status().role, "reader");
    let refused = write(&last, "INSERT INTO t(b) VALUES ('x')").await.unwrap_err();
    assert_eq!(refused.refusal.code(), sqlstate::READ_ONLY);
    // The others' blocks became final without a word of its own, now and after a restart.
    drop(last);
    cluster.stop(3).await;
    assert_eq!(promises(&home), 0);
    cluster.bring_back(3).await;
    let written = fill(&first, 70).await;
    cluster.root(3, written.height).await;
    assert_eq!(cluster.driver(3).status().role, "reader");
    cluster.stop(3).await;
    assert_eq!(promises(&home), 0);
}

/// A home for a server that only follows a cluster.
fn follower_home(cluster: &Cluster, secret: &SecretKey) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let peers = cluster.servers.iter().enumerate().map(|(number, server)| PeerConfig {
        name: String::new(),
        key: key(number).public(),
        address: server.as_ref().unwrap().peer.to_string(),
        http: None,
    });
    let peers = peers.collect();
    let config = ServerConfig {
        open: true,
        follower: true,
        peers,
        ..ServerConfig::new("follower", any, any, any)
    };
    create_home(home.path(), &cluster.genesis, secret, &config).unwrap();
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_what_was_written_from_members_that_keep_few_blocks() {
    let secret = SecretKey::from_bytes([99; 32]);
    let follower =
        FollowerConfig { name: "follower".into(), key: secret.public(), address: String::new() };
    let cluster = Cluster::start_with(4, often, |_, config| {
        config.followers = vec![follower.clone()];
        config.keep_blocks = 5;
    })
    .await;
    cluster.is(0, State::Ready).await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").await.unwrap();
    fill(&first, 45).await;
    let lowest = value(&first, "SELECT min(height) FROM chain.blocks").await;
    let Value::Integer(lowest) = lowest else { panic!("{lowest:?}") };
    assert!(lowest >= 20, "blocks from {lowest} on are there");
    let told = "SELECT count(*) FROM chain.transactions WHERE username = 'rota'";
    assert!(matches!(value(&first, told).await, Value::Integer(1..)), "readers go on");

    let home = follower_home(&cluster, &secret);
    let server = Server::start(home.path(), RunOptions::default()).await.unwrap();
    let server = restored(server).await;
    let driver = server.driver.clone();
    let written = fill(&first, 60).await;
    let began = std::time::Instant::now();
    assert_eq!(count(&driver, written.height).await, count(&first, written.height).await);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?} behind", began.elapsed());
    let wait = async {
        let mut again = tokio::time::interval(LOOK);
        while driver.status().state != State::Ready {
            again.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("never ready");
    let status = driver.status();
    assert_eq!(status.role, "reader");
    assert!(status.peers.iter().all(|peer| peer.connected), "{:?}", status.peers);
    let refused = write(&driver, "INSERT INTO t(b) VALUES ('x')").await.unwrap_err();
    assert_eq!(refused.refusal.code(), sqlstate::READ_ONLY, "{}", refused.refusal.message);
    let options = ReadOptions { level: ReadLevel::Linearizable, ..ReadOptions::default() };
    let sql = statement("SELECT 1", Vec::new());
    let refused = driver.read("rota", sql, Settings::default(), &options).await.unwrap_err();
    assert_eq!(refused.code(), sqlstate::FEATURE_NOT_SUPPORTED, "{}", refused.message);
    drop(driver);
    server.stop().await;
    assert_eq!(promises(home.path()), 0);
    // It goes on from its own files.
    let server = Server::start(home.path(), RunOptions::default()).await.unwrap();
    let written = fill(&first, 65).await;
    assert_eq!(count(&server.driver, written.height).await, count(&first, Height(0)).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_members_is_refused_unless_its_server_says_that_it_follows() {
    let mut cluster = Cluster::start(1).await;
    let secret = SecretKey::from_bytes([99; 32]);
    let home = follower_home(&cluster, &secret);
    let mut config = ServerConfig::load(home.path()).unwrap();
    config.follower = false;
    config.save(home.path()).unwrap();
    let refused = Server::start(home.path(), RunOptions::default()).await.err().unwrap();
    assert!(refused.to_string().contains("follower = true"), "{refused}");
    cluster.stop(0).await;
    let member = cluster.homes[0].path();
    let mut config = ServerConfig::load(member).unwrap();
    config.follower = true;
    config.save(member).unwrap();
    let refused = Server::start(member, RunOptions::default()).await.err().unwrap();
    assert!(refused.to_string().contains("is a member's"), "{refused}");
}
