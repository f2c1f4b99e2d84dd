"""asyncpg: the same steps as every program here, on a pool's connections."""

import asyncio
import json
from contextlib import asynccontextmanager

import asyncpg

from steps import COUNT_FOR_EVER, COUNT_TO, IS_POSTGRESQL, ITEM, LARGE, URLS
from steps import expect, run, soon

loop = asyncio.new_event_loop()
pool = None

CREATE = """
    CREATE TABLE asyncpg_item (
        id BIGSERIAL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        big BIGINT, fine BOOLEAN, price NUMERIC(10, 2), ratio DOUBLE PRECISION,
        seen TIMESTAMPTZ, day DATE, ref UUID, doc JSONB, raw BYTEA,
        note TEXT
    )
"""
INSERT_ITEM = """
    INSERT INTO asyncpg_item (name, big, fine, price, ratio, seen, day, ref, doc, raw)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id
"""
INSERT_NAME = "INSERT INTO asyncpg_item (name) VALUES ($1)"
COUNT_NAMES = "SELECT count(*) FROM asyncpg_item WHERE name LIKE $1"


@asynccontextmanager
async def refused(connection, error):
    """The block must end in this error, and the connection must be usable afterwards."""
    try:
        yield
    except error:
        pass
    else:
        raise AssertionError(f"no {error.__name__}")
    expect(await connection.fetchval("SELECT 1"), 1)


class RollBack(Exception):
    """Leaves a transaction's block so that it is rolled back."""


async def prepare_connection(connection):
    await connection.set_type_codec(
        "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
    )


async def connect():
    """connect"""
    global pool
    pool = await asyncpg.create_pool(URLS[0], min_size=1, max_size=4, init=prepare_connection)
    expect(await pool.fetchval("SELECT 'ö' AS x"), "ö")


async def version():
    """version"""
    async with pool.acquire() as connection:
        assert connection.get_server_version().major >= 13, connection.get_server_version()
    assert (await pool.fetchval("SELECT version()")).startswith("PostgreSQL ")


async def schema():
    """schema"""
    await pool.execute("DROP TABLE IF EXISTS asyncpg_item; DROP TABLE IF EXISTS asyncpg_account")
    await pool.execute(CREATE)
    await pool.execute(
        "CREATE TABLE asyncpg_account (id SERIAL PRIMARY KEY, balance BIGINT NOT NULL)"
    )


async def insert():
    """insert"""
    first = await pool.fetchval(INSERT_ITEM, *ITEM.values())
    second = await pool.fetchval(INSERT_NAME + " RETURNING id", "second")
    assert second > first > 0, (first, second)


async def batch():
    """batch"""
    await pool.executemany(INSERT_NAME, [(f"batch {i}",) for i in range(100)])
    expect(await pool.fetchval(COUNT_NAMES, "batch %"), 100)


async def types():
    """types"""
    row = await pool.fetchrow("SELECT * FROM asyncpg_item WHERE name = $1", ITEM["name"])
    for column, value in ITEM.items():
        expect(row[column], value)
    for column in ("big", "price", "seen", "day", "ref"):
        sql = f"SELECT name FROM asyncpg_item WHERE {column} = $1"
        expect(await pool.fetchval(sql, ITEM[column]), ITEM["name"])
    expect(await pool.fetchval("SELECT $1::int + $2::int", 1, 2), 3)


async def nulls():
    """nulls"""
    row = await pool.fetchrow("SELECT * FROM asyncpg_item WHERE name = 'second'")
    expect(tuple(row)[2:], (None,) * 10)
    await pool.execute("UPDATE asyncpg_item SET note = $1, big = $2 WHERE name = 'second'", None, 7)
    expect(await pool.fetchval("SELECT big FROM asyncpg_item WHERE name = 'second'"), 7)


async def row_counts():
    """row counts"""
    update = "UPDATE asyncpg_item SET note = 'x' WHERE name LIKE $1"
    expect(await pool.execute(update, "batch %"), "UPDATE 100")
    expect(await pool.execute("DELETE FROM asyncpg_item WHERE name = 'batch 99'"), "DELETE 1")


async def unique():
    """unique violation"""
    async with pool.acquire() as connection:
        async with refused(connection, asyncpg.UniqueViolationError):
            await connection.execute(INSERT_NAME, "second")


async def commit():
    """commit"""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(INSERT_NAME, "committed")
        expect(await connection.fetchval(COUNT_NAMES, "committed"), 1)
    expect(await pool.fetchval(COUNT_NAMES, "committed"), 1)


async def rollback():
    """rollback"""
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(INSERT_NAME, "rolled back")
            raise RollBack
    except RollBack:
        pass
    expect(await pool.fetchval(COUNT_NAMES, "rolled back"), 0)


async def savepoint():
    """savepoint"""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(INSERT_NAME, "before the savepoint")
        try:
            async with connection.transaction():
                await connection.execute(INSERT_NAME, "after the savepoint")
                await connection.execute(INSERT_NAME, "second")
        except asyncpg.UniqueViolationError:
            pass
    expect(await pool.fetchval(COUNT_NAMES, "%savepoint"), 1)


async def ddl():
    """DDL rolled back"""
    async with pool.acquire() as connection:
        try:
            async with connection.transaction():
                await connection.execute("CREATE TABLE asyncpg_gone (id INT)")
                await connection.execute("INSERT INTO asyncpg_gone VALUES ($1)", 1)
                raise RollBack
        except RollBack:
            pass
        async with refused(connection, asyncpg.UndefinedTableError):
            await connection.execute("SELECT * FROM asyncpg_gone")


async def add(connection, amount, between=None):
    """Reads both balances and writes both."""
    balances = await connection.fetch("SELECT id, balance FROM asyncpg_account ORDER BY id")
    if between:
        await between()
    update = "UPDATE asyncpg_account SET balance = $1 WHERE id = $2"
    await connection.executemany(update, [(row["balance"] + amount, row["id"]) for row in balances])


async def conflict():
    """conflict"""
    await pool.executemany("INSERT INTO asyncpg_account (balance) VALUES ($1)", [(100,), (200,)])
    conflicts = 0

    async def interfere():
        if conflicts == 0:
            async with pool.acquire() as other, other.transaction(isolation="serializable"):
                await add(other, 10)

    while True:
        try:
            async with pool.acquire() as connection:
                async with connection.transaction(isolation="serializable"):
                    await add(connection, 5, interfere)
            break
        except asyncpg.SerializationError:
            conflicts += 1
            assert conflicts < 10, "10 conflicts, but nobody else writes any more"
    assert conflicts >= 1, "the balances were read, changed by another and written: no 40001"
    rows = await pool.fetch("SELECT balance FROM asyncpg_account ORDER BY id")
    expect([row["balance"] for row in rows], [115, 215])


async def large():
    """large result"""
    total = 0
    async with pool.acquire() as connection, connection.transaction():
        sql = COUNT_TO + " SELECT i, 'row ' || i AS name FROM n"
        async for row in connection.cursor(sql, prefetch=1000):
            expect(row["name"], f"row {row['i']}")
            total += row["i"]
    expect(total, LARGE * (LARGE + 1) // 2)


async def prepared():
    """prepared"""
    async with pool.acquire() as connection:
        statement = await connection.prepare("SELECT name, big FROM asyncpg_item WHERE name = $1")
        expect([column.type.name for column in statement.get_attributes()], ["text", "int8"])
        for i in range(20):
            expect(tuple(await statement.fetchrow(f"batch {i}")), (f"batch {i}", None))


async def cancel():
    """cancel"""
    async with pool.acquire() as connection:
        # A time-out of the driver's own sends a cancel request.
        with soon():
            async with refused(connection, asyncio.TimeoutError):
                await connection.fetchval(COUNT_FOR_EVER, timeout=0.5)
            await connection.execute("SET statement_timeout = 300")
            async with refused(connection, asyncpg.QueryCanceledError):
                await connection.fetchval(COUNT_FOR_EVER)


async def listen():
    """LISTEN"""
    async with pool.acquire() as connection:
        if IS_POSTGRESQL:
            await connection.add_listener("rota", print)
            await connection.remove_listener("rota", print)
            return
        async with refused(connection, asyncpg.FeatureNotSupportedError):
            await connection.execute("LISTEN rota")


async def copy():
    """COPY"""
    async with pool.acquire() as connection:
        # Python values travel in COPY's binary format, rows of text as CSV.
        records = [(f"copy {i}", i, None) for i in range(1000)]
        columns = ["name", "big", "note"]
        status = await connection.copy_records_to_table(
            "asyncpg_item", records=records, columns=columns
        )
        expect(status, "COPY 1000")
        received = bytearray()

        async def receive(data):
            received.extend(data)

        sql = "SELECT name, big FROM asyncpg_item WHERE name LIKE 'copy %' ORDER BY big"
        await connection.copy_from_query(sql, output=receive, format="csv", header=True)
        lines = received.decode().splitlines()
        expect((lines[0], lines[1], lines[1000]), ("name,big", "copy 0,0", "copy 999,999"))


async def another_server():
    """another server"""
    connection = await asyncpg.connect(URLS[-1])
    for _ in range(100):
        if await connection.fetchval(COUNT_NAMES, "batch %") == 99:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the rows are not there")
    await connection.close()
    await pool.close()


def step(function):
    """As a step that is not a coroutine. None may take longer than a minute."""

    def wrapped():
        loop.run_until_complete(asyncio.wait_for(function(), 60))

    wrapped.__doc__ = function.__doc__
    return wrapped


run([step(function) for function in (
    connect, version, schema, insert, batch, types, nulls, row_counts, unique, commit, rollback,
    savepoint, ddl, conflict, large, prepared, cancel, listen, copy, another_server,
)])
