//! A server with more to do than it takes; in a file of its own: alone on the machine.

mod support;

use rota_core::error::sqlstate;
use rota_core::transaction::{Settings, Value};
use rota_core::types::Height;
use rota_node::driver::{ReadOptions, WriteOptions};
use rota_node::{Driver, State, WriteError};

use support::{Cluster, LOOK, count, statement, write};

/// Asks until the transaction is final; it expires before this test's patience ends.
async fn is_final(driver: &Driver, id: &str) {
    let sql = format!("SELECT rota_transaction('{id}')");
    let mut again = tokio::time::interval(LOOK);
    loop {
        again.tick().await;
        let statement = statement(&sql, Vec::new());
        let told =
            driver.read("rota", statement, Settings::default(), &ReadOptions::default()).await;
        match &told.unwrap().rows[0][0] {
            Value::Text(text) if text == "pending" => {}
            Value::Text(text) if text.starts_with("final at (") => return,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hear_busy_and_try_again_succeed() {
    let cluster = Cluster::start(4).await;
    for number in 0..4 {
        cluster.is(number, State::Ready).await;
    }
    let first = cluster.driver(0);
    write(&first, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)").await.unwrap();
    // More than a server's own clients may have waiting, all at once.
    let writers = (0..13_i64).map(|number| {
        let driver = first.clone();
        tokio::spawn(async move {
            let inserts: Vec<_> = (0..3)
                .map(|part| {
                    let values =
                        vec![Value::Integer(number * 3 + part), Value::Blob(vec![7; 950_000])];
                    statement("INSERT INTO t VALUES(?, ?)", values)
                })
                .collect();
            let mut busy = 0;
            let mut again = tokio::time::interval(LOOK * 10);
            loop {
                let options = WriteOptions::default();
                let written = driver.write("rota", inserts.clone(), Settings::default(), &options);
                match written.await {
                    Ok(_) => return busy,
                    Err(error) if error.refusal.code() == sqlstate::BUSY => busy += 1,
                    Err(WriteError { refusal, id: Some(id) })
                        if refusal.code() == sqlstate::OUTCOME_UNKNOWN =>
                    {
                        is_final(&driver, &id.to_string()).await;
                        return busy;
                    }
                    Err(error) => panic!("{error}"),
                }
                again.tick().await;
            }
        })
    });
    let mut busy = 0;
    for writer in writers.collect::<Vec<_>>() {
        busy += writer.await.unwrap();
    }
    assert!(busy > 0, "nobody heard busy");
    assert_eq!(count(&first, Height(0)).await, 13 * 3);
}
