//! What tools ask of the catalog, word for word, and what they are told: `catalog/*.txt` hold the
//! queries as psql sent them to PostgreSQL 15 (`psql -E`), with its answers where they can be the
//! same. `{name}` stands for the number of a relation.

mod support;

use std::collections::BTreeMap;

use support::Cluster;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const SCHEMA: &str = include_str!("catalog/schema.sql");

/// An answer's rows, as `psql -At -F ' | '` shows them.
async fn ask(client: &Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    let mut shown = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let values = (0..row.len()).map(|place| row.get(place).unwrap_or_default());
            shown.push(values.collect::<Vec<_>>().join(" | "));
        }
    }
    Ok(shown.join("\n"))
}

async fn client(cluster: &Cluster) -> Client {
    let port = cluster.servers[0].as_ref().unwrap().pg.port();
    let config = format!("host=127.0.0.1 port={port} user=rota dbname=rota");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Puts numbers for `{name}`.
async fn numbered(client: &Client, known: &mut BTreeMap<String, String>, text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["author", "book", "pair", "titles", "book_title", "author_id_seq", "book_id_seq"] {
        let written = format!("{{{name}}}");
        if text.contains(&written) {
            if !known.contains_key(name) {
                let sql = format!("SELECT '{name}'::regclass::oid");
                known.insert(name.into(), ask(client, &sql).await.unwrap());
            }
            text = text.replace(&written, &known[name]);
        }
    }
    text
}

/// Without white space at the ends of lines.
fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

async fn check(client: &Client, cases: &str) {
    let mut known = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases.split("\n# ").map(|case| case.trim_start_matches("# ")) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (sql, want) = rest.split_once("\n---\n").unwrap();
        let sql = numbered(client, &mut known, sql).await;
        let want = numbered(client, &mut known, &trimmed(want)).await;
        let told = match ask(client, &sql).await {
            Ok(told) => trimmed(&told),
            Err(error) => error.as_db_error().map(ToString::to_string).unwrap_or_default(),
        };
        if told != want {
            wrong.push(format!("{name}\n{sql}\nwanted\n{want}\ntold\n{told}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_and_others_are_told_what_postgresql_tells_them() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster).await;
    client.batch_execute(SCHEMA).await.unwrap();
    check(&client, include_str!("catalog/psql.txt")).await;
    check(&client, include_str!("catalog/drivers.txt")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_transaction_the_catalog_tells_of_its_own_tables() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster).await;
    let count = "SELECT count(*) FROM pg_catalog.pg_class WHERE relname LIKE 'made_here%'";
    client.batch_execute("CREATE TABLE t (a INT)").await.unwrap();
    client.batch_execute("BEGIN; CREATE TABLE made_here (a INT)").await.unwrap();
    assert_eq!(ask(&client, count).await.unwrap(), "1");
    client.batch_execute("ALTER TABLE made_here RENAME TO made_here_too").await.unwrap();
    client.batch_execute("ALTER TABLE made_here_too RENAME TO made_here").await.unwrap();
    client.batch_execute("SAVEPOINT s; CREATE TABLE made_here_too (a INT)").await.unwrap();
    assert_eq!(ask(&client, count).await.unwrap(), "2");
    client.batch_execute("ROLLBACK TO s").await.unwrap();
    assert_eq!(ask(&client, count).await.unwrap(), "1");
    // What users' rows say is checked at COMMIT, so it is not looked up beside the transaction.
    let both = "SELECT relname FROM t, pg_class";
    assert_eq!(ask(&client, both).await.unwrap_err().code().unwrap().code(), "0A000");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ask(&client, count).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_the_catalog() {
    let cluster = Cluster::start(1).await;
    let client = client(&cluster).await;
    assert_eq!(ask(&client, "SELECT count(*) FROM pg_am").await.unwrap(), "2");
    for sql in [
        "DELETE FROM pg_catalog.pg_am",
        "DELETE FROM pg_am",
        "INSERT INTO information_schema.tables (table_name) VALUES ('x')",
        "CREATE TABLE pg_catalog.mine (a INT)",
        "ATTACH ':memory:' AS other",
    ] {
        assert!(ask(&client, sql).await.is_err(), "{sql}");
    }
    assert_eq!(ask(&client, "SELECT count(*) FROM pg_am").await.unwrap(), "2");
}
