// Drizzle on node-postgres: the same steps as every program here.

import { and, count, eq, isNull, like, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { bigint, boolean, customType, date, doublePrecision, index, integer } from "drizzle-orm/pg-core";
import { jsonb, numeric, pgTable, serial, text, timestamp, uuid } from "drizzle-orm/pg-core";
import { migrate } from "drizzle-orm/node-postgres/migrator";
import pg from "pg";

import { countForEver, countTo, eventually, expect, isPostgreSQL, item, large, run } from "./steps.mjs";
import { NotThere, urls } from "./steps.mjs";

const bytea = customType({ dataType: () => "bytea" });

const shelf = pgTable("drizzle_shelf", {
  id: serial().primaryKey(),
  label: text().notNull().unique(),
});
const items = pgTable(
  "drizzle_item",
  {
    id: bigint({ mode: "bigint" }).primaryKey().generatedAlwaysAsIdentity(),
    name: text().notNull().unique(),
    shelfId: integer("shelf_id").references(() => shelf.id),
    big: bigint({ mode: "bigint" }),
    fine: boolean(),
    price: numeric({ precision: 10, scale: 2 }),
    ratio: doublePrecision(),
    seen: timestamp({ withTimezone: true }),
    day: date(),
    ref: uuid(),
    doc: jsonb(),
    raw: bytea(),
    note: text(),
  },
  (table) => [index("drizzle_item_day").on(table.day)],
);
const account = pgTable("drizzle_account", {
  id: serial().primaryKey(),
  balance: bigint({ mode: "bigint" }).notNull(),
});
const pool = new pg.Pool({ connectionString: urls[0], max: 4 });
const db = drizzle(pool);

const names = (pattern, there = db) => there.$count(items, like(items.name, pattern));

/** This must end in this SQLSTATE, and the connection must be usable afterwards. */
async function refused(code, run) {
  const error = await run().then(() => null, (error) => error);
  if (error?.cause?.code !== code) throw new Error(`no ${code}`, { cause: error?.cause ?? error });
  expect((await db.execute(sql`SELECT 1 AS one`)).rows, [{ one: 1 }]);
}

class RollBack extends Error {}

async function rolledBack(run) {
  const error = await db
    .transaction(async (transaction) => {
      await run(transaction);
      throw new RollBack();
    })
    .catch((error) => error);
  if (!(error instanceof RollBack)) throw error;
}

/** Reads both balances and writes both. */
function add(amount, between = () => {}) {
  return db.transaction(
    async (transaction) => {
      const rows = await transaction.select().from(account).orderBy(account.id);
      await between();
      for (const { id, balance } of rows) {
        const change = transaction.update(account).set({ balance: balance + amount });
        await change.where(eq(account.id, id));
      }
    },
    { isolationLevel: "serializable" },
  );
}

await run({
  async connect() {
    expect((await db.execute(sql`SELECT ${"ö"}::text AS text`)).rows, [{ text: "ö" }]);
  },

  async version() {
    const { rows } = await db.execute(sql`SHOW server_version`);
    expect(parseInt(rows[0].server_version) >= 13, true);
  },

  async schema() {
    for (const table of ["drizzle_item", "drizzle_shelf", "drizzle_account"]) {
      await db.execute(sql`DROP TABLE IF EXISTS ${sql.identifier(table)}`);
    }
    await db.execute(sql`DROP TABLE IF EXISTS drizzle_migrations`);
    const migrations = { migrationsFolder: "drizzle", migrationsTable: "drizzle_migrations" };
    await migrate(db, { ...migrations, migrationsSchema: "public" });
    await migrate(db, { ...migrations, migrationsSchema: "public" }); // nothing is left to do
  },

  async insert() {
    const [{ id: shelfId }] = await db.insert(shelf).values({ label: "first" }).returning();
    const [first] = await db.insert(items).values({ ...item, shelfId }).returning({ id: items.id });
    const [second] = await db.insert(items).values({ name: "second", shelfId }).returning();
    expect(first.id > 0n && second.id > first.id, true);
  },

  async batch() {
    const rows = [...Array(100).keys()].map((i) => ({ name: `batch ${i}` }));
    expect((await db.insert(items).values(rows)).rowCount, 100);
    const upsert = db.insert(items).values({ name: "batch 0", note: "upserted" });
    await upsert.onConflictDoUpdate({ target: items.name, set: { note: sql`excluded.note` } });
    expect(await names("batch %"), 100);
  },

  async types() {
    const [row] = await db.select().from(items).where(eq(items.name, item.name));
    for (const column of Object.keys(item)) expect(row[column], item[column]);
    for (const column of ["big", "price", "seen", "day", "ref"]) {
      const [found] = await db.select().from(items).where(eq(items[column], item[column]));
      expect(found.name, item.name);
    }
    const joined = await db
      .select({ label: shelf.label, name: items.name })
      .from(shelf)
      .leftJoin(items, eq(items.shelfId, shelf.id))
      .orderBy(items.id);
    const label = "first";
    expect(joined, [{ label, name: item.name }, { label, name: "second" }]);
  },

  async nulls() {
    const [row] = await db.select().from(items).where(eq(items.name, "second"));
    for (const column of Object.keys(item).slice(1)) expect(row[column], null);
    const [{ count: without }] = await db.select({ count: count() }).from(items).where(isNull(items.doc));
    expect(without, 101);
  },

  async "row counts"() {
    const update = await db.update(items).set({ note: "x" }).where(like(items.name, "batch %"));
    expect(update.rowCount, 100);
    const condition = and(eq(items.name, "batch 99"), eq(items.note, "x"));
    expect((await db.delete(items).where(condition)).rowCount, 1);
  },

  async "unique violation"() {
    await refused("23505", () => db.insert(items).values({ name: "second" }));
  },

  async commit() {
    await db.transaction(async (transaction) => {
      await transaction.insert(items).values({ name: "committed" });
      expect(await names("committed", transaction), 1);
    });
    expect(await names("committed"), 1);
  },

  async rollback() {
    await rolledBack((transaction) => transaction.insert(items).values({ name: "rolled back" }));
    expect(await names("rolled back"), 0);
  },

  async savepoint() {
    await db.transaction(async (transaction) => {
      await transaction.insert(items).values({ name: "before the savepoint" });
      const error = await transaction
        .transaction(async (nested) => {
          await nested.insert(items).values({ name: "after the savepoint" });
          await nested.insert(items).values({ name: "second" });
        })
        .catch((error) => error);
      expect(error.cause?.code, "23505");
    });
    expect(await names("%savepoint"), 1);
  },

  async "DDL rolled back"() {
    await rolledBack(async (transaction) => {
      await transaction.execute(sql`CREATE TABLE drizzle_gone (id INT)`);
      await transaction.execute(sql`INSERT INTO drizzle_gone VALUES (${1})`);
    });
    await refused("42P01", () => db.execute(sql`SELECT * FROM drizzle_gone`));
  },

  async conflict() {
    await db.insert(account).values([{ balance: 100n }, { balance: 200n }]);
    let conflicts = 0;
    const interfere = async () => {
      if (conflicts === 0) await add(10n);
    };
    for (;;) {
      try {
        await add(5n, interfere);
        break;
      } catch (error) {
        // COMMIT's own error comes as the driver's, any other statement's as Drizzle's.
        if ((error.cause ?? error).code !== "40001" || ++conflicts === 10) throw error;
      }
    }
    if (conflicts === 0) {
      throw new Error("the balances were read, changed by another and written: no 40001");
    }
    const rows = await db.select({ balance: account.balance }).from(account).orderBy(account.id);
    expect(rows, [{ balance: 115n }, { balance: 215n }]);
  },

  async "large result"() {
    const { rows } = await db.execute(sql.raw(`${countTo} SELECT i, 'row ' || i AS name FROM n`));
    const right = rows.filter(({ i, name }) => name === `row ${i}`);
    expect(right.reduce((total, { i }) => total + i, 0), (large * (large + 1)) / 2);
  },

  async prepared() {
    const find = db
      .select({ name: items.name, note: items.note })
      .from(items)
      .where(eq(items.name, sql.placeholder("name")))
      .prepare("find");
    for (let i = 0; i < 20; i++) {
      expect(await find.execute({ name: `batch ${i}` }), [{ name: `batch ${i}`, note: "x" }]);
    }
  },

  async cancel() {
    // The driver's only public way to end a statement is a time-out, kept by the server.
    const impatient = new pg.Pool({ connectionString: urls[0], statement_timeout: 500 });
    await refused("57014", () => drizzle(impatient).execute(sql.raw(countForEver)));
    await impatient.end();
  },

  async LISTEN() {
    const listen = () => db.execute(sql`LISTEN rota`);
    await (isPostgreSQL ? listen() : refused("0A000", listen));
  },

  async COPY() {
    throw new NotThere("Drizzle has no COPY; node-postgres beneath it has");
  },

  async "another server"() {
    await pool.end();
    const other = new pg.Pool({ connectionString: urls.at(-1) });
    await eventually(async () => (await names("batch %", drizzle(other))) === 99);
    await other.end();
  },
});
