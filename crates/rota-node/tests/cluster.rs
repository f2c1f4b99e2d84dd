//! Four whole servers in one process, on real sockets and files.

mod support;

use rota_core::error::sqlstate;
use rota_core::transaction::{Settings, Value};
use rota_core::types::Height;
use rota_node::State;
use rota_node::driver::WriteOptions;

use support::{Cluster, count, statement, write};

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
