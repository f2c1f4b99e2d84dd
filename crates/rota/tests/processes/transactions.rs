//! Interactive transactions over real processes: what two servers may not both do, and what becomes
//! of a COMMIT whose answer never comes.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::cluster::{Cluster, until};

const TABLE: &str = "CREATE TABLE notes (owner TEXT NOT NULL, amount BIGINT NOT NULL)";

/// A cluster on which every server shows the table, and Ann and Bob with 100 each.
fn ann_and_bob() -> Cluster {
    let cluster = Cluster::start();
    cluster.write(1, TABLE);
    cluster.write(1, "INSERT INTO notes VALUES ('Ann', 100), ('Bob', 100)");
    for server in 1..=4 {
        until_shown(&cluster, server, "SELECT sum(amount) FROM notes", "200");
    }
    cluster
}

/// Waits until a server's answer is this.
fn until_shown(cluster: &Cluster, server: u16, sql: &str, expected: &str) {
    until(&format!("server {server} answers {expected} to {sql}"), || {
        let answer = cluster.sql(server, sql);
        String::from_utf8_lossy(&answer.stdout).lines().nth(1) == Some(expected)
    });
}

/// The first value of a query's answer.
async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.expect(sql);
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    value.unwrap_or_default().to_owned()
}

/// BEGIN and one row of Carol's, under way on a server: the connection, and the transaction's id.
async fn carol(cluster: &Cluster, server: u16) -> (Client, String) {
    let client = cluster.connect(server).await;
    client.batch_execute("BEGIN").await.expect("BEGIN");
    let id = value(&client, "SHOW rota.transaction").await;
    client.batch_execute("INSERT INTO notes VALUES ('Carol', 1)").await.expect("INSERT");
    (client, id)
}

const CAROLS: &str = "SELECT count(*) FROM notes WHERE owner = 'Carol'";

/// What a server says became of a transaction.
fn outcome(cluster: &Cluster, server: u16, id: &str) -> String {
    let answer = cluster.value(server, &format!("SELECT rota_transaction('{id}')"));
    answer.trim_matches('"').to_owned()
}

fn is_final(cluster: &Cluster, server: u16, id: &str) -> bool {
    outcome(cluster, server, id).starts_with("final at (")
}

fn code(error: &Error) -> &str {
    error.code().map_or("no answer", SqlState::code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_server_is_killed_before_it_answers_happens_once_and_can_be_asked_for() {
    let mut cluster = ann_and_bob();
    // The server that dies is not the one whose turn it is: its transaction is with others then.
    let leader = cluster.status(1).and_then(|status| status["leader"]["number"].as_u64());
    let leader = u16::try_from(leader.expect("somebody leads")).expect("one of four");
    let [heir, dies, paused] = [1, 2, 3].map(|later| (leader - 1 + later) % 4 + 1);
    let (client, id) = carol(&cluster, dies).await;
    // With two servers silent nothing becomes final: no answer can come before the kill.
    cluster.pause(&[leader, paused]);
    let commit = tokio::spawn(async move { client.batch_execute("COMMIT").await });
    until("another server has heard of it", || {
        assert!(!commit.is_finished(), "COMMIT was answered before the kill");
        outcome(&cluster, heir, &id) == "pending"
    });
    cluster.kill(dies);
    let unanswered = commit.await.expect("a task").expect_err("no answer");
    assert_eq!(code(&unanswered), "no answer");

    cluster.resume();
    until("it is final", || is_final(&cluster, heir, &id));
    cluster.start_elsewhere(dies);
    cluster.until_ready(&[dies]);
    for server in 1..=4 {
        until("it is final everywhere", || is_final(&cluster, server, &id));
        assert_eq!(cluster.value(server, CAROLS), "1", "server {server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_on_a_server_that_is_killed_changes_nothing() {
    let mut cluster = ann_and_bob();
    let (client, id) = carol(&cluster, 1).await;
    assert_eq!(value(&client, CAROLS).await, "1", "its own row is seen");
    cluster.kill(1);
    let lost = client.batch_execute("COMMIT").await.expect_err("the server is dead");
    assert_eq!(code(&lost), "no answer");

    cluster.start_elsewhere(1);
    cluster.until_ready(&[1]);
    cluster.write(1, "INSERT INTO notes VALUES ('Dave', 7)");
    for server in 1..=4 {
        until_shown(&cluster, server, "SELECT sum(amount) FROM notes", "207");
        assert_eq!(outcome(&cluster, server, &id), "unknown");
        assert_eq!(cluster.value(server, CAROLS), "0", "server {server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_times_out_ends_in_40003_and_can_be_asked_for_afterwards() {
    let mut cluster = ann_and_bob();
    let (client, id) = carol(&cluster, 1).await;
    client.batch_execute("SET statement_timeout = '200ms'").await.expect("SET");
    cluster.pause(&[3, 4]);
    let unknown = client.batch_execute("COMMIT").await.expect_err("there is no quorum");
    assert_eq!(code(&unknown), "40003", "{unknown}");
    let detail = unknown.as_db_error().and_then(|said| said.detail()).unwrap_or_default();
    assert!(detail.contains(&id), "{detail} tells {id}");
    assert_eq!(value(&client, CAROLS).await, "0", "it is not final, and the session goes on");

    cluster.resume();
    for server in 1..=4 {
        until("it is final", || is_final(&cluster, server, &id));
        assert_eq!(cluster.value(server, CAROLS), "1", "server {server}");
    }
}

/// Two transactions at a time, on servers 1 and 2: each reads, then each writes, then each commits.
/// One of them must have been told 40001, and the other one's write be there alone.
async fn one_side_is_told(cluster: &Cluster, read: &str, writes: [&str; 2], check: &str) {
    let sides = [cluster.connect(1).await, cluster.connect(2).await];
    for side in &sides {
        side.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await.expect("BEGIN");
        value(side, read).await;
    }
    for (side, write) in sides.iter().zip(writes) {
        side.batch_execute(write).await.expect("no server waits for the other");
    }
    let [one, other] = &sides;
    let (one, other) = tokio::join!(one.batch_execute("COMMIT"), other.batch_execute("COMMIT"));
    let codes = [one, other].map(|ended| ended.map_err(|error| code(&error).to_owned()));
    assert_eq!(codes.iter().filter(|ended| ended.is_ok()).count(), 1, "{codes:?}");
    assert!(codes.contains(&Err("40001".into())), "{codes:?}");
    for server in 1..=4 {
        until_shown(cluster, server, check, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_transactions_that_contradict_each_other_one_ends_in_40001() {
    let cluster = ann_and_bob();
    // A lost update: both add to what they have read.
    one_side_is_told(
        &cluster,
        "SELECT amount FROM notes WHERE owner = 'Ann'",
        ["UPDATE notes SET amount = 110 WHERE owner = 'Ann'"; 2],
        "SELECT count(*) FROM notes WHERE owner = 'Ann' AND amount = 110",
    )
    .await;
    // A write skew: both see that together there is enough, and each takes from another row.
    one_side_is_told(
        &cluster,
        "SELECT sum(amount) FROM notes",
        [
            "UPDATE notes SET amount = amount - 200 WHERE owner = 'Ann'",
            "UPDATE notes SET amount = amount - 200 WHERE owner = 'Bob'",
        ],
        "SELECT count(*) FROM notes WHERE amount < 0",
    )
    .await;
    // A phantom: both see that no row of Carol's is there, and both insert it.
    one_side_is_told(
        &cluster,
        "SELECT * FROM notes WHERE owner = 'Carol'",
        ["INSERT INTO notes VALUES ('Carol', 1)"; 2],
        CAROLS,
    )
    .await;
}
