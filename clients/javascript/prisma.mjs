// Prisma on node-postgres: the same steps as every program here. `npx prisma generate` comes first.

import { readFile } from "node:fs/promises";
import { PrismaPg } from "@prisma/adapter-pg";

import { countForEver, countTo, eventually, expect, isPostgreSQL, item, large, run } from "./steps.mjs";
import { NotThere, urls } from "./steps.mjs";
import generated from "./generated/index.js";

const { Prisma, PrismaClient } = generated;
const open = (url, options) =>
  new PrismaClient({ adapter: new PrismaPg({ connectionString: url, ...options }) });
const prisma = open(urls[0]);
const sample = {
  ...item,
  price: new Prisma.Decimal(item.price),
  day: new Date(item.day),
  raw: new Uint8Array(item.raw),
};

const names = (condition) => prisma.item.count({ where: { name: condition } });

/** The SQLSTATE: Prisma has a class and codes of its own, and keeps the driver's error in them. */
function sqlstate(error) {
  const cause = error?.meta?.driverAdapterError?.cause ?? error?.cause ?? error;
  return cause?.originalCode ?? error?.meta?.code;
}

/** This must end in this SQLSTATE, and the connection must be usable afterwards. */
async function refused(code, run) {
  const error = await run().then(() => null, (error) => error);
  if (sqlstate(error) !== code) throw new Error(`no ${code}`, { cause: error });
  expect(await prisma.$queryRaw`SELECT 1 AS one`, [{ one: 1 }]);
}

class RollBack extends Error {}

async function rolledBack(run) {
  const error = await prisma
    .$transaction(async (transaction) => {
      await run(transaction);
      throw new RollBack();
    })
    .catch((error) => error);
  if (!(error instanceof RollBack)) throw error;
}

/** Reads both balances and writes both. */
function add(amount, between = () => {}) {
  return prisma.$transaction(
    async (transaction) => {
      const rows = await transaction.account.findMany({ orderBy: { id: "asc" } });
      await between();
      for (const { id, balance } of rows) {
        await transaction.account.update({ where: { id }, data: { balance: balance + amount } });
      }
    },
    { isolationLevel: "Serializable" },
  );
}

/** P2034 is Prisma's code for 40001: "write conflict or a deadlock, please retry". */
const isConflict = (error) => error.code === "P2034" || sqlstate(error) === "40001";

await run({
  async connect() {
    expect(await prisma.$queryRaw`SELECT ${"ö"}::text AS text`, [{ text: "ö" }]);
  },

  async version() {
    const [{ server_version: version }] = await prisma.$queryRaw`SHOW server_version`;
    expect(parseInt(version) >= 13, true);
  },

  async schema() {
    for (const table of ["prisma_item", "prisma_shelf", "prisma_account"]) {
      await prisma.$executeRawUnsafe(`DROP TABLE IF EXISTS "${table}"`);
    }
    const script = await readFile(new URL("prisma/migration.sql", import.meta.url), "utf8");
    for (const statement of script.split(";\n").filter((text) => text.trim())) {
      await prisma.$executeRawUnsafe(statement);
    }
  },

  async insert() {
    const data = { label: "first", items: { create: [sample, { name: "second" }] } };
    const made = await prisma.shelf.create({ data, include: { items: true } });
    const [first, second] = made.items;
    expect(first.id > 0n && second.id > first.id && second.shelfId === made.id, true);
  },

  async batch() {
    const data = [...Array(100).keys()].map((i) => ({ name: `batch ${i}` }));
    expect(await prisma.item.createMany({ data }), { count: 100 });
    const again = await prisma.item.createMany({ data, skipDuplicates: true });
    expect(again, { count: 0 });
    const upsert = { where: { name: "batch 0" }, update: { note: "upserted" } };
    await prisma.item.upsert({ ...upsert, create: { name: "batch 0" } });
    expect(await names({ startsWith: "batch " }), 100);
  },

  async types() {
    const row = await prisma.item.findUnique({ where: { name: item.name } });
    for (const column of Object.keys(sample)) {
      const [got, wanted] = [row[column], sample[column]];
      expect(column === "price" ? got.toFixed(2) : got, column === "price" ? item.price : wanted);
    }
    for (const column of ["big", "price", "seen", "day", "ref"]) {
      const found = await prisma.item.findFirst({ where: { [column]: sample[column] } });
      expect(found?.name, item.name);
    }
    const shelves = await prisma.shelf.findMany({ include: { items: { orderBy: { id: "asc" } } } });
    expect(shelves[0].items.map(({ name }) => name), [item.name, "second"]);
  },

  async nulls() {
    const row = await prisma.item.findUnique({ where: { name: "second" } });
    for (const column of Object.keys(sample).slice(1)) expect(row[column], null);
    expect(await prisma.item.count({ where: { ref: null } }), 101);
  },

  async "row counts"() {
    const where = { name: { startsWith: "batch " } };
    expect(await prisma.item.updateMany({ where, data: { note: "x" } }), { count: 100 });
    expect(await prisma.item.deleteMany({ where: { name: "batch 99" } }), { count: 1 });
  },

  async "unique violation"() {
    const error = await prisma.item.create({ data: { name: "second" } }).catch((error) => error);
    expect(error instanceof Prisma.PrismaClientKnownRequestError && error.code, "P2002");
    await refused("23505", () => prisma.item.create({ data: { name: "second" } }));
  },

  async commit() {
    await prisma.$transaction(async (transaction) => {
      await transaction.item.create({ data: { name: "committed" } });
      expect(await transaction.item.count({ where: { name: "committed" } }), 1);
    });
    expect(await names("committed"), 1);
  },

  async rollback() {
    await rolledBack((transaction) => transaction.item.create({ data: { name: "rolled back" } }));
    expect(await names("rolled back"), 0);
  },

  async savepoint() {
    // Prisma has none of its own; in SQL they can be used.
    await prisma.$transaction(async (transaction) => {
      await transaction.item.create({ data: { name: "before the savepoint" } });
      await transaction.$executeRaw`SAVEPOINT halfway`;
      await transaction.item.create({ data: { name: "after the savepoint" } });
      const error = await transaction.item.create({ data: { name: "second" } }).catch((error) => error);
      expect(error.code, "P2002");
      await transaction.$executeRaw`ROLLBACK TO SAVEPOINT halfway`;
    });
    expect(await names({ endsWith: "savepoint" }), 1);
  },

  async "DDL rolled back"() {
    await rolledBack(async (transaction) => {
      await transaction.$executeRaw`CREATE TABLE prisma_gone (id INT)`;
      await transaction.$executeRaw`INSERT INTO prisma_gone VALUES (${1})`;
    });
    await refused("42P01", () => prisma.$queryRaw`SELECT * FROM prisma_gone`);
  },

  async conflict() {
    await prisma.account.createMany({ data: [{ balance: 100n }, { balance: 200n }] });
    let conflicts = 0;
    const interfere = async () => {
      if (conflicts === 0) await add(10n);
    };
    for (;;) {
      try {
        await add(5n, interfere);
        break;
      } catch (error) {
        if (!isConflict(error) || ++conflicts === 10) throw error;
      }
    }
    if (conflicts === 0) {
      throw new Error("the balances were read, changed by another and written: no 40001");
    }
    const rows = await prisma.account.findMany({ orderBy: { id: "asc" } });
    expect(rows.map(({ balance }) => balance), [115n, 215n]);
  },

  async "large result"() {
    const rows = await prisma.$queryRawUnsafe(`${countTo} SELECT i, 'row ' || i AS name FROM n`);
    const right = rows.filter(({ i, name }) => name === `row ${i}`);
    expect(right.reduce((total, { i }) => total + i, 0), (large * (large + 1)) / 2);
  },

  async prepared() {
    for (let i = 0; i < 20; i++) {
      const query = { where: { name: `batch ${i}` }, select: { name: true, note: true } };
      expect(await prisma.item.findUnique(query), { name: `batch ${i}`, note: "x" });
    }
  },

  async cancel() {
    // The driver's only public way to end a statement is a time-out, kept by the server.
    const impatient = open(urls[0], { statement_timeout: 500 });
    await refused("57014", () => impatient.$queryRawUnsafe(countForEver));
    await impatient.$disconnect();
  },

  async LISTEN() {
    const listen = () => prisma.$executeRaw`LISTEN rota`;
    await (isPostgreSQL ? listen() : refused("0A000", listen));
  },

  async COPY() {
    throw new NotThere("Prisma has no COPY; node-postgres beneath it has");
  },

  async "another server"() {
    await prisma.$disconnect();
    const other = open(urls.at(-1));
    await eventually(async () => (await other.item.count({ where: { note: "x" } })) === 99);
    await other.$disconnect();
  },
});
