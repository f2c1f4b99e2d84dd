//! sqlx, with its pool: the same steps as every program here.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::TryStreamExt;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::error::ErrorKind;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{Connection, Executor, FromRow, PgConnection, Row};
use steps::{
    COUNT_FOR_EVER, Failure, LARGE, Outcome, Report, count_to, expect, is_postgresql, urls,
};
use time::macros::{date, datetime};
use time::{Date, OffsetDateTime};
use uuid::{Uuid, uuid};

const CREATE: &str = "
    CREATE TABLE sqlx_item (
        id BIGSERIAL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        big BIGINT, fine BOOLEAN, price NUMERIC(10, 2), ratio DOUBLE PRECISION,
        seen TIMESTAMPTZ, day DATE, ref UUID, doc JSONB, raw BYTEA,
        note TEXT
    )";
const INSERT_ITEM: &str = "
    INSERT INTO sqlx_item (name, big, fine, price, ratio, seen, day, ref, doc, raw)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id";
const INSERT_NAME: &str = "INSERT INTO sqlx_item (name) VALUES ($1)";
const COUNT_NAMES: &str = "SELECT count(*) FROM sqlx_item WHERE name LIKE $1";

/// One value of every type. What comes back must be equal to it.
#[derive(Debug, PartialEq)]
struct Item {
    name: String,
    big: i64,
    fine: bool,
    price: Decimal,
    ratio: f64,
    seen: OffsetDateTime,
    day: Date,
    reference: Uuid,
    doc: Value,
    raw: Vec<u8>,
}

impl Item {
    fn sample() -> Self {
        Self {
            name: "première".into(),
            big: 9_007_199_254_740_993, // one more than a double can tell apart
            fine: true,
            price: Decimal::new(1_234_560, 2),
            ratio: 0.1,
            seen: datetime!(2026-02-03 04:05:06.789012 UTC),
            day: date!(2024 - 02 - 29),
            reference: uuid!("01234567-89ab-cdef-0123-456789abcdef"),
            doc: json!({"a": [1, 2.5, null], "b": "ö"}),
            raw: vec![0, 1, 255],
        }
    }
}

impl FromRow<'_, PgRow> for Item {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            name: row.try_get("name")?,
            big: row.try_get("big")?,
            fine: row.try_get("fine")?,
            price: row.try_get("price")?,
            ratio: row.try_get("ratio")?,
            seen: row.try_get("seen")?,
            day: row.try_get("day")?,
            reference: row.try_get("ref")?,
            doc: row.try_get("doc")?,
            raw: row.try_get("raw")?,
        })
    }
}

async fn names(pool: &PgPool, pattern: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(COUNT_NAMES).bind(pattern).fetch_one(pool).await
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

/// Wants this SQLSTATE, and the connection to be usable afterwards.
async fn refused<T>(
    connection: &mut PgConnection,
    code: &str,
    result: Result<T, sqlx::Error>,
) -> Outcome {
    match result {
        Err(error) if sqlstate(&error).as_deref() == Some(code) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(format!("no {code}").into()),
    }
    expect(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(connection).await?, 1)
}

async fn connect() -> Result<PgPool, Failure> {
    let pool = PgPoolOptions::new().max_connections(4).connect(&urls()[0]).await?;
    expect(sqlx::query_scalar::<_, String>("SELECT 'ö'").fetch_one(&pool).await?, "ö".into())?;
    Ok(pool)
}

async fn version(pool: &PgPool) -> Outcome {
    let version = pool.acquire().await?.server_version_num();
    expect(version.is_some_and(|version| version >= 130_000), true)
}

async fn schema(pool: &PgPool) -> Outcome {
    pool.execute("DROP TABLE IF EXISTS sqlx_item; DROP TABLE IF EXISTS sqlx_account").await?;
    pool.execute(CREATE).await?;
    let accounts = "CREATE TABLE sqlx_account (id SERIAL PRIMARY KEY, balance BIGINT NOT NULL)";
    pool.execute(accounts).await?;
    Ok(())
}

async fn insert(pool: &PgPool) -> Outcome {
    let item = Item::sample();
    let first: i64 = sqlx::query_scalar(INSERT_ITEM)
        .bind(item.name)
        .bind(item.big)
        .bind(item.fine)
        .bind(item.price)
        .bind(item.ratio)
        .bind(item.seen)
        .bind(item.day)
        .bind(item.reference)
        .bind(item.doc)
        .bind(item.raw)
        .fetch_one(pool)
        .await?;
    let returning = format!("{INSERT_NAME} RETURNING id");
    let second: i64 = sqlx::query_scalar(&returning).bind("second").fetch_one(pool).await?;
    expect(second > first && first > 0, true)
}

async fn batch(pool: &PgPool) -> Outcome {
    let mut many = sqlx::QueryBuilder::new("INSERT INTO sqlx_item (name) ");
    many.push_values(0..100, |mut row, i| {
        row.push_bind(format!("batch {i}"));
    });
    expect(many.build().execute(pool).await?.rows_affected(), 100)?;
    expect(names(pool, "%").await?, 102)
}

async fn types(pool: &PgPool) -> Outcome {
    let item = Item::sample();
    let sql = "SELECT * FROM sqlx_item WHERE name = $1";
    let got: Item = sqlx::query_as(sql).bind(&item.name).fetch_one(pool).await?;
    expect(&got, &item)?;
    let find = |column| format!("SELECT name FROM sqlx_item WHERE {column} = $1");
    let by = [find("big"), find("price"), find("seen"), find("day"), find("ref")];
    let found: [String; 5] = [
        sqlx::query_scalar(&by[0]).bind(item.big).fetch_one(pool).await?,
        sqlx::query_scalar(&by[1]).bind(item.price).fetch_one(pool).await?,
        sqlx::query_scalar(&by[2]).bind(item.seen).fetch_one(pool).await?,
        sqlx::query_scalar(&by[3]).bind(item.day).fetch_one(pool).await?,
        sqlx::query_scalar(&by[4]).bind(item.reference).fetch_one(pool).await?,
    ];
    expect(found.iter().all(|name| *name == item.name), true)
}

async fn nulls(pool: &PgPool) -> Outcome {
    let sql = "SELECT big, seen, doc, note FROM sqlx_item WHERE name = 'second'";
    let row: PgRow = sqlx::query(sql).fetch_one(pool).await?;
    expect(row.try_get::<Option<i64>, _>("big")?, None)?;
    expect(row.try_get::<Option<OffsetDateTime>, _>("seen")?, None)?;
    expect(row.try_get::<Option<Value>, _>("doc")?, None)?;
    expect(row.try_get::<Option<String>, _>("note")?, None)?;
    let update = sqlx::query("UPDATE sqlx_item SET big = $1 WHERE name = 'second'");
    expect(update.bind(None::<i64>).execute(pool).await?.rows_affected(), 1)
}

async fn row_counts(pool: &PgPool) -> Outcome {
    let update = sqlx::query("UPDATE sqlx_item SET note = 'x' WHERE name LIKE $1");
    expect(update.bind("batch %").execute(pool).await?.rows_affected(), 100)?;
    let gone = sqlx::query("DELETE FROM sqlx_item WHERE name = 'batch 99'");
    expect(gone.execute(pool).await?.rows_affected(), 1)
}

async fn unique(pool: &PgPool) -> Outcome {
    let mut connection = pool.acquire().await?;
    let result = sqlx::query(INSERT_NAME).bind("second").execute(&mut *connection).await;
    let kind = result.as_ref().err().and_then(|error| Some(error.as_database_error()?.kind()));
    expect(matches!(kind, Some(ErrorKind::UniqueViolation)), true)?;
    refused(&mut connection, "23505", result).await
}

async fn commit(pool: &PgPool) -> Outcome {
    let mut transaction = pool.begin().await?;
    sqlx::query(INSERT_NAME).bind("committed").execute(&mut *transaction).await?;
    let count = sqlx::query_scalar(COUNT_NAMES).bind("committed");
    expect(count.fetch_one(&mut *transaction).await?, 1_i64)?;
    transaction.commit().await?;
    expect(names(pool, "committed").await?, 1)
}

async fn rollback(pool: &PgPool) -> Outcome {
    let mut transaction = pool.begin().await?;
    sqlx::query(INSERT_NAME).bind("rolled back").execute(&mut *transaction).await?;
    drop(transaction);
    expect(names(pool, "rolled back").await?, 0)
}

async fn savepoint(pool: &PgPool) -> Outcome {
    let mut transaction = pool.begin().await?;
    sqlx::query(INSERT_NAME).bind("before the savepoint").execute(&mut *transaction).await?;
    let mut nested = transaction.begin().await?;
    sqlx::query(INSERT_NAME).bind("after the savepoint").execute(&mut *nested).await?;
    let error = sqlx::query(INSERT_NAME).bind("second").execute(&mut *nested).await.err();
    expect(error.as_ref().and_then(sqlstate).as_deref(), Some("23505"))?;
    nested.rollback().await?;
    transaction.commit().await?;
    expect(names(pool, "%savepoint").await?, 1)
}

async fn ddl(pool: &PgPool) -> Outcome {
    let mut transaction = pool.begin().await?;
    transaction.execute("CREATE TABLE sqlx_gone (id INT)").await?;
    let insert = sqlx::query("INSERT INTO sqlx_gone VALUES ($1)").bind(1_i32);
    insert.execute(&mut *transaction).await?;
    transaction.rollback().await?;
    let mut connection = pool.acquire().await?;
    let result = sqlx::query("SELECT * FROM sqlx_gone").fetch_all(&mut *connection).await;
    refused(&mut connection, "42P01", result).await
}

/// Reads both balances and writes both; between the two, when told to, another does the same.
async fn add(pool: &PgPool, amount: i64, interfere: bool) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
    let select = sqlx::query_as("SELECT id, balance FROM sqlx_account ORDER BY id");
    let rows: Vec<(i32, i64)> = select.fetch_all(&mut *transaction).await?;
    if interfere {
        Box::pin(add(pool, 10, false)).await?;
    }
    for (id, balance) in rows {
        let update = sqlx::query("UPDATE sqlx_account SET balance = $1 WHERE id = $2");
        update.bind(balance + amount).bind(id).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

async fn conflict(pool: &PgPool) -> Outcome {
    pool.execute("INSERT INTO sqlx_account (balance) VALUES (100), (200)").await?;
    let mut conflicts = 0;
    while let Err(error) = add(pool, 5, conflicts == 0).await {
        conflicts += 1;
        if sqlstate(&error).as_deref() != Some("40001") || conflicts == 10 {
            return Err(error.into());
        }
    }
    if conflicts == 0 {
        return Err("the balances were read, changed by another and written: no 40001".into());
    }
    let select = sqlx::query_scalar("SELECT balance FROM sqlx_account ORDER BY id");
    expect(select.fetch_all(pool).await?, vec![115_i64, 215])
}

async fn large(pool: &PgPool) -> Outcome {
    // Rows are read as they come.
    let sql = count_to() + "SELECT i, 'row ' || i FROM n";
    let mut rows = sqlx::query_as::<_, (i32, String)>(&sql).fetch(pool);
    let mut total = 0_i64;
    while let Some((i, name)) = rows.try_next().await? {
        expect(name, format!("row {i}"))?;
        total += i64::from(i);
    }
    expect(total, i64::from(LARGE) * (i64::from(LARGE) + 1) / 2)?;
    drop(rows);
    // Of this one only one row is read; it asks for that many.
    let one = sqlx::query_scalar(&(count_to() + "SELECT i FROM n")).fetch_optional(pool).await?;
    expect(one, Some(1_i32))
}

async fn prepared(pool: &PgPool) -> Outcome {
    let mut connection = pool.acquire().await?;
    let sql = "SELECT name, note FROM sqlx_item WHERE name = $1";
    for i in 0..20 {
        let query = sqlx::query_as(sql).bind(format!("batch {i}"));
        let (name, note): (String, String) = query.fetch_one(&mut *connection).await?;
        expect(name + &note, format!("batch {i}x"))?;
    }
    Ok(connection.clear_cached_statements().await?)
}

async fn cancel(pool: &PgPool) -> Outcome {
    // The driver sends no cancel requests; the server keeps the time.
    let mut connection = pool.acquire().await?;
    connection.execute("SET statement_timeout = '500ms'").await?;
    let result = sqlx::query(COUNT_FOR_EVER).fetch_all(&mut *connection).await;
    refused(&mut connection, "57014", result).await?;
    connection.execute("RESET statement_timeout").await?;
    Ok(())
}

async fn listen(pool: &PgPool) -> Outcome {
    if is_postgresql() {
        return Ok(PgListener::connect_with(pool).await?.listen("rota").await?);
    }
    let mut connection = pool.acquire().await?;
    let result = connection.execute("LISTEN rota").await;
    refused(&mut connection, "0A000", result).await
}

async fn copy(pool: &PgPool) -> Outcome {
    let mut connection = pool.acquire().await?;
    let mut copy = connection.copy_in_raw("COPY sqlx_item (name, big, note) FROM STDIN").await?;
    for i in 0..1000 {
        copy.send(format!("copy {i}\t{i}\t\\N\n").into_bytes()).await?;
    }
    expect(copy.finish().await?, 1000)?;
    let select = "SELECT name, big FROM sqlx_item WHERE name LIKE 'copy %' ORDER BY big";
    let sql = format!("COPY ({select}) TO STDOUT WITH (FORMAT csv)");
    let parts: Vec<_> = connection.copy_out_raw(&sql).await?.try_collect().await?;
    let text = String::from_utf8(parts.concat())?;
    expect(text.lines().count(), 1000)?;
    expect(text.lines().last(), Some("copy 999,999"))
}

async fn another_server() -> Outcome {
    let mut connection = PgConnection::connect(urls().last().ok_or("no address")?).await?;
    for _ in 0..100 {
        let count = sqlx::query_scalar(COUNT_NAMES).bind("copy %");
        let count: i64 = count.fetch_one(&mut connection).await?;
        if count == 1000 {
            return Ok(connection.close().await?);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the rows are not there".into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut report = Report::default();
    let pool = match connect().await {
        Ok(pool) => pool,
        Err(failure) => {
            report.step("connect", Err(failure));
            return report.end();
        }
    };
    report.step("connect", Ok(()));
    report.step("version", version(&pool).await);
    report.step("schema", schema(&pool).await);
    report.step("insert", insert(&pool).await);
    report.step("batch", batch(&pool).await);
    report.step("types", types(&pool).await);
    report.step("nulls", nulls(&pool).await);
    report.step("row counts", row_counts(&pool).await);
    report.step("unique violation", unique(&pool).await);
    report.step("commit", commit(&pool).await);
    report.step("rollback", rollback(&pool).await);
    report.step("savepoint", savepoint(&pool).await);
    report.step("DDL rolled back", ddl(&pool).await);
    report.step("conflict", conflict(&pool).await);
    report.step("large result", large(&pool).await);
    report.step("prepared", prepared(&pool).await);
    report.step("cancel", cancel(&pool).await);
    report.step("LISTEN", listen(&pool).await);
    report.step("COPY", copy(&pool).await);
    report.step("another server", another_server().await);
    report.end()
}
