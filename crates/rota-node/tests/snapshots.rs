//! Servers that are far behind, have lost their disks, or only follow: they catch up by snapshots
//! and blocks, and never vote.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rota_core::crypto::SecretKey;
use rota_core::error::sqlstate;
use rota_core::genesis::{Genesis, Method};
use rota_core::message::{CHUNK_BYTES, chunk_digest};
use rota_core::transaction::{Settings, Value};
use rota_core::types::Height;
use rota_node::config::{FollowerConfig, PeerConfig, ServerConfig, create_home};
use rota_node::driver::{ReadLevel, ReadOptions};
use rota_node::{Anew, Driver, Ended, RunOptions, Server, State, Written};
use rota_store::snapshot::{read_manifest, write_manifest};

use support::{Cluster, LOOK, PATIENCE, count, key, statement, write};

/// How many blocks are between two snapshots in these tests: more than a server lags on a machine
/// that has other things to do.
const EVERY: u64 = 20;

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

/// Writes until the first twenty blocks are gone from all of them; the newest one's height then.
async fn fill_until_pruned(drivers: &[Driver]) -> u64 {
    for until in (45..2_000).step_by(5) {
        fill(&drivers[0], until).await;
        let mut pruned = 0;
        for driver in drivers {
            let lowest = value(driver, "SELECT min(height) FROM chain.blocks").await;
            pruned += usize::from(matches!(lowest, Value::Integer(20..)));
        }
        if pruned == drivers.len() {
            return until;
        }
    }
    panic!("nothing was pruned")
}

/// Writes until each of these homes has two whole snapshots at least, and what proves them.
async fn fill_until_copied(driver: &Driver, homes: &[&Path]) {
    let whole = |home: &Path| {
        let folders = fs::read_dir(home.join("snapshots")).into_iter().flatten();
        folders.filter(|entry| entry.as_ref().unwrap().path().join("manifest").exists()).count()
    };
    for until in (45..2_000).step_by(5) {
        let written = fill(driver, until).await;
        if homes.iter().all(|home| whole(home) >= 2) {
            fill(driver, written.height.0 + EVERY).await;
            return;
        }
    }
    panic!("no snapshots were made")
}

/// What a single value is.
async fn value(driver: &Driver, sql: &str) -> Value {
    let options = ReadOptions::default();
    let rows = driver.read("rota", statement(sql, Vec::new()), Settings::default(), &options);
    rows.await.unwrap().rows.remove(0).remove(0)
}

/// A server that catches up by a snapshot, once it has. Of two servers' two damaged copies each is
/// found by waiting 5 s in vain for a piece of it, and then another is asked for.
async fn restored(mut server: Server) -> Server {
    let ended = tokio::time::timeout(4 * PATIENCE, server.ended()).await;
    match ended.expect("no snapshot was fetched") {
        Ended::Anew(anew @ Anew::Restore { .. }) => server.renew(anew).await.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Waits until this server has executed what another one has.
async fn caught_up(cluster: &Cluster, number: usize, with: usize) {
    let height = Height(cluster.driver(with).status().applied.height);
    cluster.root(number, height).await;
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
    // Who has no snapshot any more has not the first blocks either.
    let few = |_: &Path, config: &mut ServerConfig| config.keep_blocks = 5;
    let mut cluster = Cluster::start_with(4, often, few).await;
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
    let drivers: Vec<Driver> = (0..3).map(|number| cluster.driver(number)).collect();
    fill_until_pruned(&drivers).await;
    drop(drivers);
    // Two of three have damaged copies, which are found before they are sent.
    damage_snapshots(cluster.homes[0].path());
    damage_snapshots(cluster.homes[1].path());
    cluster.bring_back(3).await;
    let server = restored(cluster.servers[3].take().unwrap()).await;
    let begins = server.driver.status().applied.height;
    assert!(begins >= 20, "{begins}");
    cluster.servers[3] = Some(server);
    caught_up(&cluster, 3, 0).await;
    let written = fill(&first, begins + 40).await;
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
    let written = fill(&first, written.height.0 + 5).await;
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
    follow(4, Method::Poa).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_elected_leaders_does_too() {
    follow(3, Method::Raft).await;
}

async fn follow(members: usize, method: Method) {
    let secret = SecretKey::from_bytes([99; 32]);
    let follower =
        FollowerConfig { name: "follower".into(), key: secret.public(), address: String::new() };
    let decides = |genesis: &mut Genesis| {
        often(genesis);
        genesis.method = method;
    };
    let cluster = Cluster::start_with(members, decides, |_, config| {
        config.followers = vec![follower.clone()];
        config.keep_blocks = 5;
    })
    .await;
    cluster.is(0, State::Ready).await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").await.unwrap();
    let drivers: Vec<Driver> = (0..members).map(|number| cluster.driver(number)).collect();
    let newest = fill_until_pruned(&drivers).await;
    let told = "SELECT count(*) FROM chain.transactions WHERE username = 'rota'";
    assert!(matches!(value(&first, told).await, Value::Integer(1..)), "readers go on");

    let home = follower_home(&cluster, &secret);
    let server = Server::start(home.path(), RunOptions::default()).await.unwrap();
    let server = restored(server).await;
    let driver = server.driver.clone();
    count(&driver, Height(first.status().applied.height)).await;
    let written = fill(&first, newest + 15).await;
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
    assert!(status.peers.iter().any(|peer| peer.connected), "{:?}", status.peers);
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
    let written = fill(&first, newest + 20).await;
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

/// A member is away for so long that nobody has the blocks any more which it lacks, and comes back:
/// it votes as before, and is needed.
async fn come_back(members: usize, method: Method) {
    let decides = |genesis: &mut Genesis| {
        often(genesis);
        genesis.method = method;
    };
    let few = |_: &Path, config: &mut ServerConfig| config.keep_blocks = 5;
    let mut cluster = Cluster::start_with(members, decides, few).await;
    cluster.is(0, State::Ready).await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").await.unwrap();
    let last = members - 1;
    fill(&first, 5).await;
    cluster.stop(last).await;
    fill(&first, 90).await;
    if method == Method::Raft {
        // Or the leader would have all entries in memory.
        drop(first);
        for number in 0..last {
            cluster.stop(number).await;
            cluster.bring_back(number).await;
        }
    }
    cluster.bring_back(last).await;
    // As a rule a server's addresses are fixed: it has to get the very same ones again.
    let server = cluster.servers[last].take().unwrap();
    let mut config = ServerConfig::load(cluster.homes[last].path()).unwrap();
    (config.pg, config.http, config.peer) = (server.pg, server.http, server.peer);
    config.save(cluster.homes[last].path()).unwrap();
    let addresses = (server.pg, server.http, server.peer);
    let server = restored(server).await;
    assert_eq!((server.pg, server.http, server.peer), addresses);
    let any = "127.0.0.1:0".parse().unwrap();
    (config.pg, config.http, config.peer) = (any, any, any);
    config.save(cluster.homes[last].path()).unwrap();
    cluster.servers[last] = Some(server);
    let first = cluster.driver(0);
    caught_up(&cluster, last, 0).await;
    let written = fill(&first, 95).await;
    let root = cluster.root(0, written.height).await;
    assert_eq!(cluster.root(last, written.height).await, root);
    assert_ne!(cluster.driver(last).status().role, "reader");
    // Without it there is no quorum.
    cluster.stop(1).await;
    let written = fill(&first, 105).await;
    assert_eq!(cluster.root(last, written.height).await, cluster.root(0, written.height).await);
    // Its own log begins with the snapshot, and will do.
    cluster.stop(last).await;
    cluster.bring_back(1).await;
    cluster.bring_back(last).await;
    caught_up(&cluster, last, 0).await;
    let written = fill(&first, 110).await;
    assert_eq!(count(&cluster.driver(last), written.height).await, count(&first, Height(0)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_long_comes_back_by_snapshot_and_votes() {
    come_back(4, Method::Poa).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_elected_leaders_that_was_away_for_long_comes_back_by_snapshot() {
    come_back(3, Method::Raft).await;
}

/// Changes a row in each snapshot of a home, and all hashes accordingly: what a liar would offer.
fn forge_snapshots(home: &Path) {
    for entry in fs::read_dir(home.join("snapshots")).unwrap() {
        let folder = entry.unwrap().path();
        let state = rusqlite::Connection::open(folder.join("state.db")).unwrap();
        state.execute("UPDATE t SET b = 'forged' WHERE a = 3", []).unwrap();
        state.close().unwrap();
        let bytes = fs::read(folder.join("state.db")).unwrap();
        let mut manifest = read_manifest(&folder).unwrap();
        manifest.bytes = bytes.len() as u64;
        manifest.chunks = bytes.chunks(CHUNK_BYTES).map(chunk_digest).collect();
        write_manifest(&folder, &manifest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_with_other_rows_than_were_agreed_on_is_refused_and_an_honest_one_taken() {
    let mut cluster = Cluster::start_with(4, often, |_, _| {}).await;
    cluster.is(0, State::Ready).await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)").await.unwrap();
    let homes: Vec<&Path> = cluster.homes[..3].iter().map(tempfile::TempDir::path).collect();
    fill_until_copied(&first, &homes).await;
    drop(first);
    for number in 0..4 {
        cluster.stop(number).await;
    }
    for liar in [0, 1] {
        forge_snapshots(cluster.homes[liar].path());
        cluster.bring_back(liar).await;
    }
    let home = cluster.homes[3].path().to_owned();
    for name in ["state.db", "chain.db"] {
        fs::remove_file(home.join(name)).unwrap();
    }
    let _ = fs::remove_dir_all(home.join("snapshots"));
    cluster.bring_back(3).await;
    let mut server = cluster.servers[3].take().unwrap();
    for _ in [0, 1] {
        server = restored(server).await;
        assert_eq!(server.driver.status().applied.height, 0, "what it had before");
    }
    cluster.servers[3] = Some(server);
    cluster.bring_back(2).await;
    let server = restored(cluster.servers[3].take().unwrap()).await;
    let begins = server.driver.status().applied.height;
    assert!(begins >= 20, "{begins}");
    cluster.servers[3] = Some(server);
    caught_up(&cluster, 3, 0).await;
    let written = fill(&cluster.driver(0), begins + 40).await;
    let root = cluster.root(0, written.height).await;
    assert_eq!(cluster.root(3, written.height).await, root);
}
