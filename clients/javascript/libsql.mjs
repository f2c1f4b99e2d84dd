// @libsql/client over Hrana: what its documentation shows.

import { createClient } from "@libsql/client";

import { expect, httpUrls, large, eventually, login, run } from "./steps.mjs";

const client = createClient({ url: httpUrls[0], intMode: "bigint" });

async function one(sql, args, there = client) {
  const { rows } = await there.execute({ sql, args });
  return rows[0][0];
}

/** This must fail with this code, and the client must be usable afterwards. */
async function refused(code, run) {
  const error = await run().then(() => null, (error) => error);
  if (error?.code !== code) throw new Error(`no ${code}`, { cause: error });
  expect(await one("SELECT 1"), 1n);
}

/** As the documentation shows it. */
async function transaction(run, mode = "write") {
  const transaction = await client.transaction(mode);
  try {
    const result = await run(transaction);
    await transaction.commit();
    return result;
  } finally {
    transaction.close();
  }
}

/** Reads both balances and writes both. */
function add(amount, between = () => {}) {
  return transaction(async (transaction) => {
    const { rows } = await transaction.execute("SELECT id, balance FROM libsql_account ORDER BY id");
    await between();
    for (const { id, balance } of rows) {
      const sql = "UPDATE libsql_account SET balance = ? WHERE id = ?";
      await transaction.execute({ sql, args: [balance + amount, id] });
    }
  });
}

const count = (name) => one("SELECT count(*) FROM libsql_item WHERE name LIKE ?", [name]);
const insert = "INSERT INTO libsql_item (name) VALUES (?)";

await run({
  async connect() {
    expect(await one("SELECT 'ö'"), "ö");
    expect(client.protocol, "http");
  },

  async schema() {
    await client.executeMultiple(`
      DROP TABLE IF EXISTS libsql_item; DROP TABLE IF EXISTS libsql_account;
      CREATE TABLE libsql_item (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, big INTEGER, ratio REAL, raw BLOB, note);
      CREATE TABLE libsql_account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
      INSERT INTO libsql_account (balance) VALUES (100), (200);
    `);
  },

  async insert() {
    const first = await client.execute({ sql: insert, args: ["first"] });
    expect([first.lastInsertRowid, first.rowsAffected], [1n, 1]);
    const second = await client.execute({ sql: `${insert} RETURNING id, name`, args: ["second"] });
    expect(second.rows.map((row) => [row.id, row.name]), [[2n, "second"]]);
  },

  async batch() {
    const results = await client.batch(
      [
        { sql: insert, args: ["batch 1"] },
        { sql: insert, args: ["batch 2"] },
        "SELECT count(*) FROM libsql_item WHERE name LIKE 'batch %'",
      ],
      "write",
    );
    expect(results[1].lastInsertRowid, 4n);
    expect(results[2].rows[0][0], 2n);
    // All of it or nothing, and the error says which.
    const statements = [{ sql: insert, args: ["gone"] }, { sql: insert, args: ["second"] }];
    const error = await client.batch(statements, "write").catch((error) => error);
    expect([error.code, error.statementIndex], ["SQLITE_CONSTRAINT_UNIQUE", 1]);
    expect(await count("gone"), 0n);
    // A hundred at once wait for nobody.
    const add = (i) => client.batch([{ sql: insert, args: [`many ${i}`] }, "SELECT 1"], "write");
    await Promise.all([...Array(100).keys()].map(add));
    expect(await count("many %"), 100n);
  },

  async types() {
    const item = {
      name: "première",
      big: 9_223_372_036_854_775_807n,
      ratio: 0.1,
      raw: new Uint8Array([0, 1, 255]),
    };
    await client.execute({
      sql: "INSERT INTO libsql_item (name, big, ratio, raw) VALUES (:name, @big, $ratio, :raw)",
      args: item,
    });
    const sql = "SELECT name, big, ratio, raw, note, big / 0 FROM libsql_item WHERE big = :big";
    const { rows, columns, columnTypes } = await client.execute({ sql, args: { big: item.big } });
    expect(columns, ["name", "big", "ratio", "raw", "note", "big / 0"]);
    expect(columnTypes, ["TEXT", "INTEGER", "REAL", "BLOB", "", ""]);
    expect([...Array(6).keys()].map((i) => rows[0][i]), [
      item.name, item.big, item.ratio, item.raw.buffer, null, null,
    ]);
  },

  async "row counts"() {
    const update = await client.execute("UPDATE libsql_item SET note = 'x' WHERE name LIKE 'many %'");
    expect(update.rowsAffected, 100);
  },

  async "unique violation"() {
    const second = () => client.execute({ sql: insert, args: ["second"] });
    await refused("SQLITE_CONSTRAINT_UNIQUE", second);
    const key = () => client.execute("INSERT INTO libsql_item (id, name) VALUES (1, 'x')");
    await refused("SQLITE_CONSTRAINT_PRIMARYKEY", key);
    await refused("SQLITE_ERROR", () => client.execute("SELECT * FROM absent"));
  },

  async commit() {
    await transaction(async (transaction) => {
      const { lastInsertRowid } = await transaction.execute({ sql: insert, args: ["committed"] });
      const sql = "SELECT name FROM libsql_item WHERE id = ?";
      const { rows } = await transaction.execute({ sql, args: [lastInsertRowid] });
      expect(rows[0].name, "committed");
      // Somebody else does not see it yet.
      expect(await count("committed"), 0n);
      // What fails is undone by itself, and the transaction goes on.
      const error = await transaction.execute({ sql: insert, args: ["second"] }).catch((e) => e);
      expect(error.code, "SQLITE_CONSTRAINT_UNIQUE");
      await transaction.execute({ sql: insert, args: ["after an error"] });
    });
    expect([await count("committed"), await count("after an error")], [1n, 1n]);
    await transaction(async (transaction) => {
      const { rows } = await transaction.execute("SELECT count(*) FROM libsql_account");
      expect(rows[0][0], 2n);
      const error = await transaction.execute({ sql: insert, args: ["read"] }).catch((e) => e);
      expect(error.code, "SQLITE_READONLY");
    }, "read");
  },

  async rollback() {
    const rolledBack = await client.transaction("write");
    await rolledBack.execute({ sql: insert, args: ["rolled back"] });
    await rolledBack.rollback();
    const closed = await client.transaction("write");
    await closed.execute({ sql: insert, args: ["rolled back"] });
    closed.close();
    expect(await count("rolled back"), 0n);
  },

  async savepoint() {
    await transaction(async (transaction) => {
      await transaction.execute("SAVEPOINT halfway");
      await transaction.execute({ sql: insert, args: ["after the savepoint"] });
      await transaction.execute("ROLLBACK TO halfway");
      await transaction.execute("RELEASE halfway");
      await transaction.execute({ sql: insert, args: ["beside the savepoint"] });
    });
    expect(await count("%the savepoint"), 1n);
  },

  async "DDL rolled back"() {
    const changed = await client.transaction();
    await changed.execute("CREATE TABLE libsql_gone (id INT)");
    await changed.execute("INSERT INTO libsql_gone VALUES (1)");
    await changed.rollback();
    await refused("SQLITE_ERROR", () => client.execute("SELECT * FROM libsql_gone"));
  },

  async conflict() {
    let conflicts = 0;
    const interfere = async () => {
      if (conflicts === 0) await add(10n);
    };
    for (;;) {
      try {
        await add(5n, interfere);
        break;
      } catch (error) {
        if (error.code !== "SQLITE_BUSY" || ++conflicts === 10) throw error;
      }
    }
    if (conflicts === 0) throw new Error("read, changed by another and written: no SQLITE_BUSY");
    const { rows } = await client.execute("SELECT balance FROM libsql_account ORDER BY id");
    expect(rows.map((row) => row.balance), [115n, 215n]);
  },

  async migrate() {
    await client.migrate([
      "CREATE TABLE libsql_new (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT)",
      "INSERT INTO libsql_new (id, balance) SELECT id, balance FROM libsql_account",
      "DROP TABLE libsql_account",
      "ALTER TABLE libsql_new RENAME TO libsql_account",
    ]);
    expect(await one("SELECT sum(balance) FROM libsql_account WHERE note IS NULL"), 330n);
  },

  async "large result"() {
    const sql =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) " +
      "SELECT i, 'row ' || i AS name FROM n";
    const { rows } = await client.execute({ sql, args: [BigInt(large)] });
    expect([rows.length, rows.at(-1).name], [large, `row ${large}`]);
  },

  // Node.js is told by NODE_EXTRA_CA_CERTS whose certificates to trust.
  async "password over TLS"() {
    const { user, password, url } = login();
    const own = createClient({ url, authToken: `${user}:${password}`, intMode: "bigint" });
    expect(await one("SELECT count(*) FROM libsql_account", [], own), 2n);
    const wrong = createClient({ url, authToken: `${user}:wrong` });
    const error = await wrong.execute("SELECT 1").catch((error) => error);
    expect([error.code, /401/.test(error.message)], ["SERVER_ERROR", true]);
  },

  async "another server"() {
    const other = createClient({ url: httpUrls.at(-1), intMode: "bigint" });
    const sql = "SELECT count(*) FROM libsql_item WHERE name LIKE 'many %'";
    await eventually(async () => (await one(sql, [], other)) === 100n);
  },
});
