// node-postgres: the same steps as every program here.

import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import Cursor from "pg-cursor";

import { countForEver, countTo, eventually, expect, isPostgreSQL, item, large, run } from "./steps.mjs";
import { login, urls } from "./steps.mjs";

// By default dates become times of day in this machine's zone, and int8 text.
pg.types.setTypeParser(pg.types.builtins.DATE, (text) => text);
pg.types.setTypeParser(pg.types.builtins.INT8, BigInt);

let pool = new pg.Pool({ connectionString: urls[0], max: 4 });
pool.on("error", (error) => console.error(error.message));

const insertName = "INSERT INTO node_item (name) VALUES ($1)";
const columns = Object.keys(item);

async function one(sql, parameters) {
  const { rows } = await pool.query({ text: sql, values: parameters, rowMode: "array" });
  return rows[0][0];
}

const names = (pattern) => one("SELECT count(*) FROM node_item WHERE name LIKE $1", [pattern]);

/** Runs this with a connection of the pool's. */
async function withClient(run) {
  const client = await pool.connect();
  try {
    return await run(client);
  } finally {
    client.release();
  }
}

/** As the documentation shows it: everything on one client, between BEGIN and COMMIT. */
function transaction(run, begin = "BEGIN") {
  return withClient(async (client) => {
    await client.query(begin);
    try {
      const result = await run(client);
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK");
      throw error;
    }
  });
}

/** This must end in this SQLSTATE, and the connection must be usable afterwards. */
async function refused(client, code, run) {
  const error = await run().then(() => null, (error) => error);
  if (!(error instanceof pg.DatabaseError) || error.code !== code) {
    throw new Error(`no ${code}`, { cause: error });
  }
  expect((await client.query("SELECT 1 AS one")).rows, [{ one: 1 }]);
}

class RollBack extends Error {}

async function rolledBack(run) {
  const error = await transaction(async (client) => {
    await run(client);
    throw new RollBack();
  }).catch((error) => error);
  if (!(error instanceof RollBack)) throw error;
}

/** Reads both balances and writes both. */
function add(amount, between = () => {}) {
  return transaction(async (client) => {
    const { rows } = await client.query("SELECT id, balance FROM node_account ORDER BY id");
    await between();
    for (const { id, balance } of rows) {
      await client.query("UPDATE node_account SET balance = $1 WHERE id = $2", [balance + amount, id]);
    }
  }, "BEGIN ISOLATION LEVEL SERIALIZABLE");
}

await run({
  async connect() {
    expect(await one("SELECT 'ö'"), "ö");
  },

  async version() {
    const version = await one("SHOW server_version");
    expect(parseInt(version) >= 13, true);
  },

  async schema() {
    await pool.query("DROP TABLE IF EXISTS node_item; DROP TABLE IF EXISTS node_account");
    await pool.query(`
      CREATE TABLE node_item (
        id BIGSERIAL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        big BIGINT, fine BOOLEAN, price NUMERIC(10, 2), ratio DOUBLE PRECISION,
        seen TIMESTAMPTZ, day DATE, ref UUID, doc JSONB, raw BYTEA,
        note TEXT
      )`);
    await pool.query("CREATE TABLE node_account (id SERIAL PRIMARY KEY, balance BIGINT NOT NULL)");
  },

  async insert() {
    const places = columns.map((_, index) => `$${index + 1}`);
    const sql = `INSERT INTO node_item (${columns}) VALUES (${places}) RETURNING id`;
    const first = await one(sql, Object.values(item));
    const second = await one(`${insertName} RETURNING id`, ["second"]);
    expect(first > 0n && second > first, true);
  },

  async batch() {
    // There are no batches: one statement takes arrays, or the pool sends many statements.
    const sent = [...Array(100).keys()].map((i) => pool.query(insertName, [`batch ${i}`]));
    await Promise.all(sent);
    expect(await names("batch %"), 100n);
    const places = [...Array(100).keys()].map((i) => `($${i + 1})`);
    const values = places.map((_, i) => `values ${i}`);
    const many = await pool.query(`INSERT INTO node_item (name) VALUES ${places}`, values);
    expect(many.rowCount, 100);
  },

  async types() {
    const { rows } = await pool.query("SELECT * FROM node_item WHERE name = $1", [item.name]);
    for (const column of columns) expect(rows[0][column], item[column]);
    for (const column of ["big", "price", "seen", "day", "ref"]) {
      const sql = `SELECT name FROM node_item WHERE ${column} = $1`;
      expect(await one(sql, [item[column]]), item.name);
    }
  },

  async nulls() {
    const { rows } = await pool.query("SELECT * FROM node_item WHERE name = 'second'");
    for (const column of [...columns.slice(1), "note"]) expect(rows[0][column], null);
    const sql = "SELECT count(*) FROM node_item WHERE note IS NOT DISTINCT FROM $1";
    expect(await one(sql, [null]), 202n);
  },

  async "row counts"() {
    const update = await pool.query("UPDATE node_item SET note = 'x' WHERE name LIKE 'batch %'");
    expect(update.rowCount, 100);
    const gone = await pool.query("DELETE FROM node_item WHERE name LIKE $1", ["values %"]);
    expect(gone.rowCount, 100);
  },

  async "unique violation"() {
    await withClient((client) => refused(client, "23505", () => client.query(insertName, ["second"])));
  },

  async commit() {
    await transaction(async (client) => {
      await client.query(insertName, ["committed"]);
      const { rowCount } = await client.query("SELECT * FROM node_item WHERE name = 'committed'");
      expect(rowCount, 1);
    });
    expect(await names("committed"), 1n);
  },

  async rollback() {
    await rolledBack((client) => client.query(insertName, ["rolled back"]));
    expect(await names("rolled back"), 0n);
  },

  async savepoint() {
    await transaction(async (client) => {
      await client.query(insertName, ["before the savepoint"]);
      await client.query("SAVEPOINT halfway");
      await client.query(insertName, ["after the savepoint"]);
      const error = await client.query(insertName, ["second"]).catch((error) => error);
      expect(error.code, "23505");
      const aborted = await client.query("SELECT 1").catch((error) => error);
      expect(aborted.code, "25P02");
      await client.query("ROLLBACK TO SAVEPOINT halfway");
      await client.query("RELEASE SAVEPOINT halfway");
    });
    expect(await names("%savepoint"), 1n);
  },

  async "DDL rolled back"() {
    await rolledBack(async (client) => {
      await client.query("CREATE TABLE node_gone (id INT)");
      await client.query("INSERT INTO node_gone VALUES ($1)", [1]);
    });
    await withClient((client) => refused(client, "42P01", () => client.query("SELECT * FROM node_gone")));
  },

  async conflict() {
    await pool.query("INSERT INTO node_account (balance) VALUES (100), (200)");
    let conflicts = 0;
    const interfere = async () => {
      if (conflicts === 0) await add(10n);
    };
    for (;;) {
      try {
        await add(5n, interfere);
        break;
      } catch (error) {
        if (error.code !== "40001" || ++conflicts === 10) throw error;
      }
    }
    if (conflicts === 0) {
      throw new Error("the balances were read, changed by another and written: no 40001");
    }
    const { rows } = await pool.query("SELECT balance FROM node_account ORDER BY id");
    expect(rows, [{ balance: 115n }, { balance: 215n }]);
  },

  async "large result"() {
    await withClient(async (client) => {
      const cursor = client.query(new Cursor(`${countTo} SELECT i, 'row ' || i AS name FROM n`));
      let total = 0;
      for (let rows; (rows = await cursor.read(1000)).length > 0; ) {
        for (const { i, name } of rows) {
          expect(name, `row ${i}`);
          total += i;
        }
      }
      await cursor.close();
      expect(total, (large * (large + 1)) / 2);
      const half = client.query(new Cursor(`${countTo} SELECT i FROM n`));
      expect((await half.read(10)).length, 10);
      await half.close();
      expect((await client.query("SELECT 1 AS one")).rows, [{ one: 1 }]);
    });
  },

  async prepared() {
    await withClient(async (client) => {
      for (let i = 0; i < 20; i++) {
        const text = "SELECT name, note FROM node_item WHERE name = $1";
        const { rows } = await client.query({ name: "find", text, values: [`batch ${i}`] });
        expect(rows, [{ name: `batch ${i}`, note: "x" }]);
      }
    });
  },

  async cancel() {
    // The driver's only public way to end a statement is a time-out, kept by the server.
    const client = new pg.Client({ connectionString: urls[0], statement_timeout: 500 });
    await client.connect();
    await refused(client, "57014", () => client.query(countForEver));
    await client.end();
  },

  async LISTEN() {
    await withClient(async (client) => {
      const listen = () => client.query("LISTEN rota");
      await (isPostgreSQL ? listen() : refused(client, "0A000", listen));
    });
  },

  async COPY() {
    await withClient(async (client) => {
      const lines = [...Array(1000).keys()].map((i) => `copy ${i}\t${i}\t\\N\n`);
      const sink = client.query(copyFrom("COPY node_item (name, big, note) FROM STDIN"));
      await pipeline(Readable.from(lines), sink);
      expect(sink.rowCount, 1000);
      const sql = "SELECT name, big FROM node_item WHERE name LIKE 'copy %' ORDER BY big";
      const source = client.query(copyTo(`COPY (${sql}) TO STDOUT WITH (FORMAT csv)`));
      const text = Buffer.concat(await source.toArray()).toString();
      expect(text.split("\n").slice(998), ["copy 998,998", "copy 999,999", ""]);
    });
  },

  async "password over TLS"() {
    const { user, password, ca } = login();
    const { hostname: host, port } = new URL(urls[0]);
    const database = "rota";
    const settings = { host, port, database, user, ssl: { ca }, enableChannelBinding: true };
    const client = new pg.Client({ ...settings, password });
    await client.connect();
    expect((await client.query("SELECT current_user")).rows, [{ current_user: user }]);
    await client.end();
    const wrong = new pg.Client({ ...settings, password: "wrong" });
    const error = await wrong.connect().catch((error) => error);
    expect(error.code, "28P01");
  },

  async "another server"() {
    await pool.end();
    pool = new pg.Pool({ connectionString: urls.at(-1) });
    await eventually(async () => (await names("copy %")) === 1000n);
    await pool.end();
  },
});
