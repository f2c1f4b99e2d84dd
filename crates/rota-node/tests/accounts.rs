//! Accounts of whole servers under `pow`: one that mines, and what its own clients are to it.

mod support;

use std::time::Duration;

use rota_core::genesis::{Method, Pow};
use rota_core::work::Retarget;
use rota_node::Server;
use rota_store::access::text_of;
use support::{Cluster, PATIENCE};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// The easiest target there is: a block is found as soon as it is looked for.
const EASIEST: u32 = 0x207f_ffff;

const FEE: u64 = 10;

async fn alone() -> Cluster {
    let pow = |genesis: &mut rota_core::genesis::Genesis| {
        genesis.method = Method::Pow;
        genesis.members.clear();
        genesis.trusted_servers = false;
        genesis.pow = Some(Pow {
            spacing_s: 1,
            bits: EASIEST,
            retarget: Retarget::Asert { halflife_s: 60 },
            depth: 1,
            reward: 1_000,
            fee_per_kb: FEE,
        });
    };
    Cluster::start_with(1, pow, |_, config| {
        config.mine_threads = 1;
        config.mine_share = 10;
    })
    .await
}

async fn connect(server: &Server) -> Client {
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.pg.port()).user("whoever").dbname("rota");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What psql shows: the values of all rows, and the tag.
async fn ask(client: &Client, sql: &str) -> Result<(Vec<String>, u64), String> {
    let answered = tokio::time::timeout(PATIENCE, client.simple_query(sql)).await.expect("late");
    let messages = answered.map_err(|error| error.code().unwrap().code().to_owned())?;
    let (mut values, mut count) = (Vec::new(), 0);
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                values.extend((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()));
            }
            SimpleQueryMessage::CommandComplete(rows) => count = rows,
            _ => {}
        }
    }
    Ok((values, count))
}

/// The one value of a query.
async fn value(client: &Client, sql: &str) -> String {
    ask(client, sql).await.unwrap().0.remove(0)
}

/// Returns when a query gives this, as blocks become final.
async fn until(client: &Client, sql: &str, want: &str) {
    let look = async {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        while value(client, sql).await != want {
            again.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{sql}: never {want}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_mines_spends_what_it_found_for_whoever_it_lets_in() {
    let cluster = alone().await;
    let server = cluster.servers[0].as_ref().unwrap();
    let own = text_of(&server.driver.status().key);
    let client = connect(server).await;
    assert_eq!(value(&client, "SELECT current_user").await, own);
    until(&client, "SELECT count(*) FROM rota_accounts WHERE balance > 100", "1").await;

    let other = format!("ed25519:{}", "ab".repeat(32));
    let transfer = format!("SELECT rota_transfer('{other}', 5)");
    assert_eq!(ask(&client, &transfer).await, Ok((vec!["5".into()], 1)));
    let balance = format!("SELECT balance FROM rota_accounts WHERE account = '{other}'");
    assert_eq!(value(&client, &balance).await, "5");

    // With parameters, as drivers send them.
    let to_and_amount = "SELECT rota_transfer($1, $2::bigint) AS moved";
    let rows = client.query(to_and_amount, &[&other, &7_i64]).await.unwrap();
    assert_eq!((rows.len(), rows[0].columns()[0].name()), (1, "moved"));
    assert_eq!(rows[0].get::<_, i64>(0), 7);
    assert_eq!(value(&client, &balance).await, "12");

    // In a transaction, and back to a savepoint.
    for (sql, want) in [
        ("BEGIN", Ok(())),
        (&transfer, Ok(())),
        ("SAVEPOINT a", Ok(())),
        (&transfer.replace("5)", "9223372036854775807)"), Err("P0001")),
        ("ROLLBACK TO a", Ok(())),
        (&transfer.replace("5)", "3)"), Ok(())),
        ("ROLLBACK TO a", Ok(())),
        ("COMMIT", Ok(())),
    ] {
        let done = ask(&client, sql).await.map(drop);
        assert_eq!(done, want.map_err(str::to_owned), "{sql}");
    }
    assert_eq!(value(&client, &balance).await, "17");

    // A table of its own, for the fee.
    ask(&client, "CREATE TABLE t(id SERIAL PRIMARY KEY, a INT UNIQUE)").await.unwrap();
    ask(&client, "INSERT INTO t(a) VALUES (1), (2)").await.unwrap();
    assert_eq!(ask(&client, "INSERT INTO t(a) VALUES (2)").await, Err("23505".into()));
    let grant = format!("GRANT SELECT ON t TO \"{other}\"");
    ask(&client, &grant).await.unwrap();
    assert_eq!(value(&client, "SELECT sum(a) FROM t").await, "3");

    for (sql, want) in [
        ("BEGIN READ ONLY; SELECT rota_transfer('x', 1)", "25006"),
        ("ROLLBACK; SELECT rota_transfer('x', 1)", "22023"),
        ("UPDATE rota_accounts SET balance = 7", "42501"),
        ("CREATE USER mallory", "42501"),
    ] {
        assert_eq!(ask(&client, sql).await, Err(want.into()), "{sql}");
    }
    assert!(ask(&client, "EXPLAIN SELECT rota_transfer('x', 1)").await.is_ok());
    let found = "SELECT CASE sum(balance) WHEN 1000 * (SELECT max(height) FROM chain.blocks)
        THEN 'all' ELSE sum(balance) END FROM rota_accounts";
    until(&client, found, "all").await;
    let (_, mut servers) = (cluster.homes, cluster.servers);
    servers.remove(0).unwrap().stop().await;
}
