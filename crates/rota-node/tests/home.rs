//! A server's home folder: what is written is read back, and two processes never share one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters};
use rota_core::members::Member;
use rota_core::types::Digest;
use rota_node::config::{
    ConfigError, HomeLock, KEY_FILE, PeerConfig, ServerConfig, create_home, load_genesis, load_key,
    new_key, save_genesis,
};
use rota_node::{RunOptions, Server, ServerError};

fn genesis(members: Vec<Member>) -> Genesis {
    Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: 1_700_000_000_000,
        method: Method::Poa,
        pow: None,
        seed: Digest([7; 32]),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: "any".into(),
        parameters: Parameters::default(),
        members,
    }
}

fn make(home: &Path) -> (Genesis, ServerConfig, [u8; 32]) {
    let key = new_key().unwrap();
    let genesis = genesis(vec![Member { key: key.public(), weight: 1 }]);
    let [pg, http, peer] = [5441, 4001, 7001].map(|port| ([127, 0, 0, 1], port).into());
    let config = ServerConfig {
        peers: vec![PeerConfig {
            name: "server-2".into(),
            key: new_key().unwrap().public(),
            address: "db2.example:7002".into(),
            http: Some("https://db2.example:4001".into()),
        }],
        ..ServerConfig::new("server-1", pg, http, peer)
    };
    create_home(home, &genesis, &key, &config).unwrap();
    (genesis, config, key.to_bytes())
}

#[test]
fn what_was_written_is_read_back() {
    let home = tempfile::tempdir().unwrap();
    let (genesis, config, key) = make(home.path());
    assert_eq!(load_genesis(home.path()).unwrap(), genesis);
    assert_eq!(ServerConfig::load(home.path()).unwrap(), config);
    assert_eq!(load_key(home.path()).unwrap().to_bytes(), key);
}

#[test]
fn a_home_is_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let (genesis, config, key) = make(home.path());
    let again = create_home(home.path(), &genesis, &new_key().unwrap(), &config);
    assert!(matches!(again, Err(ConfigError::Exists(_))));
    assert_eq!(load_key(home.path()).unwrap().to_bytes(), key);
}

#[test]
fn the_key_is_its_owners_only() {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    let path = home.path().join(KEY_FILE);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(load_key(home.path()).err().unwrap().to_string().contains("chmod 600"));
}

#[test]
fn the_second_to_come_hears_who_has_the_home() {
    let home = tempfile::tempdir().unwrap();
    let first = HomeLock::take(home.path()).unwrap();
    let error = HomeLock::try_take(home.path()).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert!(error.contains(&home.path().display().to_string()), "{error}");
    drop(first);
    HomeLock::take(home.path()).unwrap();
}

#[test]
fn a_home_that_is_let_go_in_a_moment_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    // Each time it is most likely still held when it is asked for.
    for _ in 0..10 {
        let held = HomeLock::take(home.path()).unwrap();
        let lets_go = std::thread::spawn(move || drop(held));
        let long = Instant::now() + Duration::from_secs(3_600);
        drop(HomeLock::take_by(home.path(), long).unwrap());
        lets_go.join().unwrap();
    }
}

#[test]
fn a_genesis_that_makes_no_sense_is_named_with_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let (mut genesis, ..) = make(home.path());
    genesis.parameters.turn_length = 0;
    let error = save_genesis(home.path(), &genesis).unwrap_err().to_string();
    assert!(error.contains("genesis.json") && error.contains("turn_length"), "{error}");
    let missing = load_genesis(&home.path().join("nowhere")).unwrap_err().to_string();
    assert!(missing.contains("rota init"), "{missing}");
}

#[tokio::test]
async fn other_machines_are_served_with_a_certificate_or_by_an_explicit_wish() {
    let home = tempfile::tempdir().unwrap();
    let (mut genesis, mut config, _) = make(home.path());
    genesis.sqlite = rota_store::sqlite::identity();
    save_genesis(home.path(), &genesis).unwrap();
    let here = "127.0.0.1:0".parse().unwrap();
    (config.pg, config.http, config.peer) = (here, "0.0.0.0:0".parse().unwrap(), here);
    (config.open, config.peers) = (true, Vec::new());
    config.save(home.path()).unwrap();
    let refused = Server::start(home.path(), RunOptions::default()).await.err().unwrap();
    assert!(matches!(refused, ServerError::NotLoopback { what: "HTTP", .. }), "{refused}");
    let server = Server::start(home.path(), RunOptions { insecure: true, ..RunOptions::default() })
        .await
        .unwrap();
    // Whoever comes from elsewhere to one door is no reason to let anybody in without a password.
    let port = server.pg.port();
    let login = format!("host=127.0.0.1 port={port} user=rota dbname=rota sslmode=disable");
    let login = tokio_postgres::connect(&login, tokio_postgres::NoTls).await;
    let refused = login.err().unwrap();
    assert!(format!("{refused:?}").contains("password missing"), "{refused:?}");
    server.stop().await;
}
