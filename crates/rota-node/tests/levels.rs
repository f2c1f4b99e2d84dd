//! How new reads are, what writes wait for, and what is told of transactions on their way: four
//! whole servers.

mod support;

use std::time::Instant;

use rota_core::error::sqlstate;
use rota_core::transaction::{Settings, Value};
use rota_core::types::Height;
use rota_node::driver::{ReadLevel, ReadOptions, Wait, WriteOptions};
use rota_node::{Driver, State, WriteError, Written};

use support::{Cluster, LOOK, PATIENCE, count, statement, write};

async fn ready() -> Cluster {
    let cluster = Cluster::start(4).await;
    for number in 0..4 {
        cluster.is(number, State::Ready).await;
    }
    cluster
}

async fn one(driver: &Driver, sql: &str, level: ReadLevel) -> Result<Value, String> {
    let options = ReadOptions { level, ..ReadOptions::default() };
    let rows = driver.read("rota", statement(sql, Vec::new()), Settings::default(), &options).await;
    let rows = rows.map_err(|refusal| refusal.code().to_owned())?;
    Ok(rows.rows[0][0].clone())
}

async fn write_and(driver: &Driver, sql: &str, wait: Wait) -> Result<Written, WriteError> {
    let options = WriteOptions { wait, ..WriteOptions::default() };
    let statements = vec![statement(sql, Vec::new())];
    driver.write("rota", statements, Settings::default(), &options).await
}

/// Asks until the answer begins with what is wanted.
async fn becomes(driver: &Driver, id: &str, wanted: &str) {
    let sql = format!("SELECT rota_transaction('{id}')");
    let look = async {
        let mut again = tokio::time::interval(LOOK);
        loop {
            again.tick().await;
            let told = one(driver, &sql, ReadLevel::Local).await.unwrap();
            if matches!(&told, Value::Text(text) if text.starts_with(wanted)) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "never {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linearizable_read_on_any_server_sees_what_another_one_acknowledged() {
    let mut cluster = ready().await;
    write(&cluster.driver(0), "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    for round in 1..=40_i64 {
        let writer = usize::try_from(round % 4).unwrap();
        let sql = format!("INSERT INTO t VALUES({round})");
        write(&cluster.driver(writer), &sql).await.unwrap();
        let reader = cluster.driver((writer + 1) % 4);
        let seen = one(&reader, "SELECT count(*) FROM t", ReadLevel::Linearizable).await;
        assert_eq!(seen, Ok(Value::Integer(round)));
    }
    // With one server gone there still is a quorum; with two there is none, and nobody waits.
    cluster.stop(3).await;
    let first = cluster.driver(0);
    let seen = one(&first, "SELECT count(*) FROM t", ReadLevel::Linearizable).await;
    assert_eq!(seen, Ok(Value::Integer(40)));
    cluster.stop(2).await;
    cluster.is(0, State::NoQuorum).await;
    let asked = Instant::now();
    let refused = one(&first, "SELECT count(*) FROM t", ReadLevel::Linearizable).await;
    assert_eq!(refused, Err(sqlstate::CANNOT_CONNECT_NOW.into()));
    assert!(asked.elapsed().as_secs() < 5);
    let local = one(&first, "SELECT count(*) FROM t", ReadLevel::Local).await;
    assert_eq!(local, Ok(Value::Integer(40)));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_many_clients_at_once_share_rounds_and_are_all_answered() {
    let cluster = ready().await;
    write(&cluster.driver(0), "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    let reads = (0..200).map(|number| {
        let driver = cluster.driver(number % 4);
        tokio::spawn(async move {
            one(&driver, "SELECT count(*) FROM t", ReadLevel::Linearizable).await
        })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), Ok(Value::Integer(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_for_less_is_answered_sooner_and_becomes_final_all_the_same() {
    let cluster = ready().await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    let taken = write_and(&first, "INSERT INTO t VALUES(1)", Wait::None).await.unwrap();
    assert_eq!((taken.height, taken.results.len()), (Height(0), 1));
    let included = write_and(&first, "INSERT INTO t VALUES(2)", Wait::Included).await.unwrap();
    assert!(included.height > Height(0));
    for written in [&taken, &included] {
        becomes(&first, &written.id.to_string(), "final at (").await;
    }
    // Its place is where it was said to be.
    let place = format!("final at ({}, {})", included.height, included.index);
    becomes(&first, &included.id.to_string(), &place).await;
    assert_eq!(count(&first, Height(0)).await, 2);
    // What fails when it is executed is told to who asks later.
    let twice = write_and(&first, "INSERT INTO t VALUES(2)", Wait::None).await.unwrap();
    becomes(&cluster.driver(1), &twice.id.to_string(), "failed 23505").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_pending_on_every_server_that_has_seen_it() {
    let mut cluster = ready().await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    // Two go at the same moment, so that the others still take writes and cannot make them final.
    let (one_gone, other_gone) =
        (cluster.servers[2].take().unwrap(), cluster.servers[3].take().unwrap());
    // At the latest this one is taken; those after it until the others notice.
    let mut taken = write_and(&first, "INSERT INTO t VALUES(0)", Wait::None).await.ok();
    let stopping = tokio::spawn(async move { tokio::join!(one_gone.stop(), other_gone.stop()) });
    for number in 1..2000 {
        let sql = format!("INSERT INTO t VALUES({number})");
        match write_and(&first, &sql, Wait::None).await {
            Ok(written) => taken = Some(written),
            Err(_) => break,
        }
    }
    stopping.await.unwrap();
    let id = taken.expect("writes were taken at first").id.to_string();
    let told = one(&first, &format!("SELECT rota_transaction('{id}')"), ReadLevel::Local).await;
    let Ok(Value::Text(told)) = told else { panic!("{told:?}") };
    if told == "pending" {
        becomes(&cluster.driver(1), &id, "pending").await;
    }
    cluster.bring_back(2).await;
    becomes(&cluster.driver(1), &id, "final at (").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latest_read_sees_what_is_included_and_not_executed() {
    let cluster = ready().await;
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    for number in 1..=50_i64 {
        let sql = format!("INSERT INTO t VALUES({number})");
        write_and(&first, &sql, Wait::Included).await.unwrap();
        let seen = one(&first, "SELECT count(*) FROM t", ReadLevel::Latest).await;
        assert_eq!(seen, Ok(Value::Integer(number)));
        let tools = one(&first, "SELECT current_database()", ReadLevel::Latest).await;
        assert_eq!(tools, Ok(Value::Text("rota".into())));
    }
}
