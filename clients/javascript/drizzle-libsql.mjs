// Drizzle on @libsql/client, over Hrana: SQLite's side of it.

import { createClient } from "@libsql/client";
import { count, eq, like, relations, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/libsql";
import { migrate } from "drizzle-orm/libsql/migrator";
import { blob, integer, real, sqliteTable, text } from "drizzle-orm/sqlite-core";

import { eventually, expect, httpUrls, login, run } from "./steps.mjs";

const shelf = sqliteTable("drizzle_libsql_shelf", {
  id: integer().primaryKey({ autoIncrement: true }),
  label: text().notNull().unique(),
});
const item = sqliteTable("drizzle_libsql_item", {
  id: integer().primaryKey({ autoIncrement: true }),
  name: text().notNull().unique(),
  shelfId: integer("shelf_id").references(() => shelf.id),
  fine: integer({ mode: "boolean" }),
  seen: integer({ mode: "timestamp_ms" }),
  ratio: real(),
  doc: text({ mode: "json" }),
  raw: blob({ mode: "buffer" }),
  big: blob({ mode: "bigint" }),
  note: text(),
});
const schema = {
  shelf,
  item,
  shelfItems: relations(shelf, ({ many }) => ({ items: many(item) })),
  itemShelf: relations(item, ({ one }) => ({
    shelf: one(shelf, { fields: [item.shelfId], references: [shelf.id] }),
  })),
};
const db = drizzle({ client: createClient({ url: httpUrls[0] }), schema });

async function code(run) {
  const error = await run().then(() => null, (error) => error);
  return (error?.cause ?? error)?.code;
}

const names = (pattern, there = db) => there.$count(item, like(item.name, pattern));

await run({
  async connect() {
    expect((await db.get(sql`SELECT 'ö' AS x`)).x, "ö");
  },

  async schema() {
    for (const table of ["item", "shelf"]) {
      await db.run(sql.raw(`DROP TABLE IF EXISTS drizzle_libsql_${table}`));
    }
    await db.run(sql`DROP TABLE IF EXISTS __drizzle_migrations`);
    const folder = { migrationsFolder: new URL("drizzle-libsql", import.meta.url).pathname };
    await migrate(db, folder);
    await migrate(db, folder); // nothing is left to do
    expect((await db.get(sql`SELECT count(*) AS n FROM __drizzle_migrations`)).n, 2);
  },

  async insert() {
    const [shelfRow] = await db.insert(shelf).values({ label: "top" }).returning();
    expect(shelfRow, { id: 1, label: "top" });
    const { lastInsertRowid } = await db.insert(item).values({ name: "second", shelfId: 1 });
    expect(lastInsertRowid, 1n);
  },

  async types() {
    const value = {
      name: "première",
      shelfId: 1,
      fine: true,
      seen: new Date("2026-02-03T04:05:06.789Z"),
      ratio: 0.1,
      doc: { a: [1, 2.5, null] },
      raw: Buffer.from([0, 1, 255]),
      big: 9_223_372_036_854_775_807n,
      note: null,
    };
    await db.insert(item).values(value);
    const found = await db.query.item.findFirst({ where: eq(item.name, value.name) });
    expect(found, { id: 2, ...value });
  },

  async batch() {
    const add = (i) => db.insert(item).values({ name: `batch ${i}` });
    const results = await db.batch([add(1), add(2), db.select({ n: count() }).from(item)]);
    expect(results[2], [{ n: 4 }]);
    const many = [...Array(100).keys()].map((i) => ({ name: `many ${i}` }));
    expect((await db.insert(item).values(many)).rowsAffected, 100);
  },

  async "unique violation"() {
    const again = () => db.insert(item).values({ name: "second" });
    expect(await code(again), "SQLITE_CONSTRAINT_UNIQUE");
    const kept = db.insert(item).values({ name: "second", note: "kept" });
    await kept.onConflictDoUpdate({ target: item.name, set: { note: "changed" } });
    expect((await db.query.item.findFirst({ where: eq(item.name, "second") })).note, "changed");
  },

  async "relational queries"() {
    const shelves = await db.query.shelf.findMany({ with: { items: { columns: { name: true } } } });
    expect(shelves, [
      { id: 1, label: "top", items: [{ name: "second" }, { name: "première" }] },
    ]);
  },

  async commit() {
    const id = await db.transaction(async (transaction) => {
      const [row] = await transaction.insert(item).values({ name: "committed" }).returning();
      expect(await names("committed"), 0);
      await transaction.update(item).set({ note: "x" }).where(eq(item.id, row.id));
      return row.id;
    });
    expect((await db.query.item.findFirst({ where: eq(item.id, id) })).note, "x");
  },

  async rollback() {
    const rolledBack = db.transaction(async (transaction) => {
      await transaction.insert(item).values({ name: "rolled back" });
      transaction.rollback();
    });
    expect((await rolledBack.catch((error) => error)).message, "Rollback");
    expect(await names("rolled back"), 0);
  },

  async savepoint() {
    await db.transaction(async (transaction) => {
      await transaction.insert(item).values({ name: "before the savepoint" });
      const nested = transaction.transaction(async (nested) => {
        await nested.insert(item).values({ name: "after the savepoint" });
        await nested.insert(item).values({ name: "second" });
      });
      expect(await code(() => nested), "SQLITE_CONSTRAINT_UNIQUE");
    });
    expect(await names("%the savepoint"), 1);
  },

  async conflict() {
    let conflicts = 0;
    const bump = (between = () => {}) =>
      db.transaction(async (transaction) => {
        const found = await transaction.query.item.findFirst({ where: eq(item.name, "second") });
        await between();
        const set = { ratio: (found.ratio ?? 0) + 1 };
        await transaction.update(item).set(set).where(eq(item.id, found.id));
      });
    const interfere = async () => {
      if (conflicts === 0) await bump();
    };
    for (;;) {
      const failed = await code(() => bump(interfere));
      if (failed === undefined) break;
      if (failed !== "SQLITE_BUSY" || ++conflicts === 10) throw new Error(failed);
    }
    expect(conflicts > 0, true);
    expect((await db.query.item.findFirst({ where: eq(item.name, "second") })).ratio, 2);
  },

  async "password over TLS"() {
    const { user, password, url } = login();
    const own = drizzle({ connection: { url, authToken: `${user}:${password}` } });
    expect(await names("many %", own), 100);
  },

  async "another server"() {
    const other = drizzle({ connection: { url: httpUrls.at(-1) } });
    await eventually(async () => (await names("many %", other)) === 100);
  },
});
