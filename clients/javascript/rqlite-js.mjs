// rqlite-js: the examples of its README, and then a login, a transaction and errors.

import https from "node:https";
import { DataApiClient } from "rqlite-js";

import { expect, eventually, httpUrls, login, run } from "./steps.mjs";

const dataApiClient = new DataApiClient(httpUrls[0]);

/** The first error, or nothing. */
const error = (dataResults) => dataResults.getFirstError()?.toString();

async function rows(sql, options, client = dataApiClient) {
  const dataResults = await client.query(sql, options);
  if (dataResults.hasError()) throw dataResults.getFirstError();
  return dataResults.toArray();
}

await run({
  async connect() {
    expect(await rows("SELECT 'ö' AS x"), [{ x: "ö" }]);
  },

  // "CREATE TABLE Example", "Multiple QUERY Example" and what follows them.
  async "quick start"() {
    await dataApiClient.execute(["DROP TABLE IF EXISTS foo", "DROP TABLE IF EXISTS bar"]);
    for (const table of ["foo", "bar"]) {
      const sql = `CREATE TABLE ${table} (id integer not null primary key, name text)`;
      const dataResults = await dataApiClient.execute(sql);
      expect(dataResults.hasError(), false);
      // The README's `statusCode` is called `status` by now.
      const { status, body } = await dataApiClient.execute(sql, { raw: true });
      expect([status, body.results[0].error], [200, `table ${table} already exists`]);
    }

    let dataResults = await dataApiClient.execute('INSERT INTO foo(name) VALUES("fiona")');
    expect(error(dataResults), undefined);
    const id = dataResults.get(0).getLastInsertId();
    expect(id, 1);
    dataResults = await dataApiClient.query(`SELECT name FROM foo WHERE id="${id}"`);
    expect(dataResults.get(0).get("name"), "fiona");
    expect(dataResults.get(0).toObject(), { name: "fiona" });
    dataResults = await dataApiClient.execute(`UPDATE foo SET name="justin" WHERE name="fiona"`);
    expect(dataResults.get(0).getRowsAffected(), 1);
    dataResults = await dataApiClient.query(`SELECT name FROM foo WHERE id="${id}"`);
    expect(dataResults.get(0).get("name"), "justin");
  },

  async transaction() {
    const sql = ['INSERT INTO foo(name) VALUES("fiona")', 'INSERT INTO bar(name) VALUES("test")'];
    const dataResults = await dataApiClient.execute(sql, { transaction: true });
    expect(error(dataResults), undefined);
    expect([0, 1].map((index) => dataResults.get(index).getLastInsertId()), [2, 1]);
    // All of it or nothing.
    const failed = await dataApiClient.execute(
      ['INSERT INTO foo(name) VALUES("gone")', "INSERT INTO foo(id, name) VALUES(1, 'again')"],
      { transaction: true },
    );
    expect(failed.hasError(), true);
    expect(await rows("SELECT count(*) AS n FROM foo WHERE name = 'gone'"), [{ n: 0 }]);
  },

  async "levels"() {
    const sql = ['SELECT name FROM foo WHERE id="1"', 'SELECT id FROM bar WHERE name="test"'];
    for (const level of ["none", "weak", "linearizable", "strong"]) {
      const dataResults = await dataApiClient.query(sql, { level });
      expect(error(dataResults), undefined);
      expect([0, 1].map((index) => dataResults.get(index).toObject()), [
        { name: "justin" }, { id: 1 },
      ]);
    }
  },

  async "unique violation"() {
    const dataResults = await dataApiClient.execute("INSERT INTO foo(id) VALUES(1)");
    expect(dataResults.hasError(), true);
    expect(dataResults.getFirstError().message, "UNIQUE constraint failed: foo.id");
  },

  async "password over TLS"() {
    const { user, password, ca, url } = login();
    const httpsAgent = new https.Agent({ ca });
    const own = new DataApiClient(url, {
      authentication: { username: user, password },
      httpsAgent,
    });
    expect(await rows("SELECT name FROM foo WHERE id = 1", { level: "strong" }, own), [
      { name: "justin" },
    ]);
    const authentication = { username: user, password: "wrong" };
    const wrong = new DataApiClient(url, { authentication, httpsAgent, retries: 0 });
    const refused = await wrong.query("SELECT 1").then(() => null, (error) => error);
    expect(String(refused).includes("401"), true);
  },

  async "another server"() {
    // It asks the hosts in turn where they are all given.
    const all = new DataApiClient(httpUrls);
    await eventually(async () => {
      const found = await rows("SELECT name FROM foo WHERE id = 1", { level: "none" }, all);
      return found[0].name === "justin";
    });
  },
});
