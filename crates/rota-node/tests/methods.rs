//! What a server tells of its method: where it stands, who led by what right, and how deep an
//! acknowledged write is; and what a leader that was elected does before it stops.

mod support;

use rota_core::genesis::{Administrator, Genesis, Method, Pow};
use rota_core::work::Retarget;
use rota_node::State;
use rota_node::status::{Leaders, ServerStatus};
use serde_json::Value as Json;
use support::{Cluster, LOOK, PATIENCE, key, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn raft(genesis: &mut Genesis) {
    genesis.method = Method::Raft;
}

/// Blocks as soon as they are looked for, and every server's operator may do everything.
fn pow(genesis: &mut Genesis) {
    let servers = 0..genesis.members.len();
    genesis.method = Method::Pow;
    genesis.members.clear();
    genesis.administrators = servers
        .map(|number| Administrator {
            key: Some(key(number).public()),
            ..Administrator::open(&format!("operator-{number}"))
        })
        .collect();
    genesis.pow = Some(Pow {
        spacing_s: 1,
        bits: 0x207f_ffff,
        retarget: Retarget::Asert { halflife_s: 60 },
        depth: 3,
        reward: 1_000,
        fee_per_kb: 0,
    });
}

/// A request without a body to a server, and what it answers.
async fn http(cluster: &Cluster, number: usize, request: &str) -> (u16, Json) {
    let at = cluster.servers[number].as_ref().unwrap().http;
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: {at}\r\nConnection: close");
    let request = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Json::Null))
}

async fn leaders(cluster: &Cluster, number: usize) -> Leaders {
    let (status, told) = http(cluster, number, "GET /chain/leaders?last=3").await;
    assert_eq!(status, 200, "{told}");
    serde_json::from_value(told).unwrap()
}

/// Waits until a server says that it leads; which.
async fn elected(cluster: &Cluster) -> (usize, ServerStatus) {
    let look = async {
        let mut again = tokio::time::interval(LOOK);
        loop {
            again.tick().await;
            for (number, server) in cluster.servers.iter().enumerate() {
                let status = server.as_ref().map(|server| server.driver.status());
                if let Some(status) = status.filter(|status| status.role == "leader") {
                    return (number, status);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("nobody is elected")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rota_s_turns_are_told_by_every_server() {
    let cluster = Cluster::start(4).await;
    let driver = cluster.driver(0);
    for number in 0..4 {
        write(&driver, &format!("CREATE TABLE t{number}(a)")).await.unwrap();
    }
    let status = driver.status();
    assert_eq!((status.method, status.role.as_str()), (Method::Poa, "member"));
    assert_eq!((status.term, status.work), (None, None));
    let told = leaders(&cluster, 0).await;
    assert_eq!((told.servers.len(), told.blocks.len()), (4, 3));
    assert!(told.blocks.is_sorted_by_key(|block| block.height), "{told:?}");
    for block in &told.blocks {
        let turn = usize::try_from(block.slot / 4 % 4).unwrap();
        assert_eq!(block.leader, key(turn).public().to_string(), "slot {}", block.slot);
        assert_eq!(block.turn, "scheduled");
    }
    for wrong in ["0", "10001", "x", "-1"] {
        let asked = format!("GET /chain/leaders?last={wrong}");
        assert_eq!(http(&cluster, 0, &asked).await.0, 400, "{wrong}");
    }
    assert_eq!(http(&cluster, 0, "POST /leader").await.0, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_elected_leader_hands_over_before_it_stops() {
    let mut cluster = Cluster::start_with(3, raft, |_, _| {}).await;
    let (first, status) = elected(&cluster).await;
    let term = status.term.unwrap();
    for number in 0..3 {
        cluster.is(number, State::Ready).await;
        write(&cluster.driver(number), &format!("CREATE TABLE t{number}(a)")).await.unwrap();
    }
    let told = leaders(&cluster, (first + 1) % 3).await;
    let own = key(first).public().to_string();
    let right = format!("term {term}");
    assert!(told.blocks.iter().all(|b| b.leader == own && b.turn == right), "{told:?}");
    cluster.stop(first).await;
    // Nobody had time to notice that it is gone: it is known who leads, since it was handed over.
    let leads = |number: &usize| {
        let status = cluster.driver(*number).status();
        status.role == "leader" && status.term > Some(term)
    };
    let others = [(first + 1) % 3, (first + 2) % 3];
    assert!(others.iter().any(leads), "{:?}", others.map(|n| cluster.driver(n).status()));
    write(&cluster.driver(others[0]), "INSERT INTO t0 VALUES (1)").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_has_another_leader_elected() {
    let cluster = Cluster::start_with(3, raft, |_, _| {}).await;
    let (first, status) = elected(&cluster).await;
    for number in 0..3 {
        cluster.is(number, State::Ready).await;
    }
    let (code, why) = http(&cluster, (first + 1) % 3, "POST /leader").await;
    assert!(code == 503 && why["error"].as_str().unwrap().contains("does not lead"), "{why}");
    assert_eq!(http(&cluster, first, "POST /leader").await.0, 200);
    let (second, later) = elected(&cluster).await;
    assert!(second != first && later.term > status.term, "{status:?} {later:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_work_tells_how_deep_it_is() {
    let cluster = Cluster::start_with(2, pow, |home, config| {
        let first = home.join("server.toml").exists() && config.name == "server-1";
        (config.mine_threads, config.mine_share) = (u32::from(first), 5);
    })
    .await;
    let create = "POST /db/execute?rota\n[\"CREATE TABLE t(a)\"]";
    let (code, told) = http(&cluster, 1, create).await;
    assert_eq!(code, 200, "{told}");
    let rota = &told["results"][0]["rota"];
    assert!(rota["depth"].as_u64() >= Some(3), "{told}");
    let bound = rota["reversal"][1]["bound"].as_f64().unwrap();
    assert!(bound > 0.0 && bound < 0.4, "{told}");
    let id = rota["id"].as_str().unwrap();
    let (_, fate) = http(&cluster, 1, &format!("GET /chain/transactions/{id}")).await;
    assert!(fate["outcome"] == "final" && fate["depth"].as_u64() >= Some(3), "{fate}");
    let query = format!("POST /db/query\n[\"SELECT rota_transaction('{id}')\"]");
    let (_, words) = http(&cluster, 1, &query).await;
    let words = words["results"][0]["values"][0][0].as_str().unwrap();
    assert!(words.starts_with("final at (") && words.contains("), depth "), "{words}");

    let [miner, other] = [0, 1].map(|number| cluster.driver(number).status());
    assert_eq!((miner.role.as_str(), other.role.as_str()), ("miner", "verifier"));
    let work = miner.work.unwrap();
    assert!(work.head >= miner.height + 3 && work.own_hash_rate > 0, "{work:?}");
    assert_eq!(other.work.unwrap().mine_threads, 0);
    let told = leaders(&cluster, 1).await;
    let miner = key(0).public().to_string();
    let is_mined = |turn: &str| turn.starts_with("work ") && turn.len() > 70;
    assert!(told.blocks.iter().all(|b| b.leader == miner && is_mined(&b.turn)), "{told:?}");
}
