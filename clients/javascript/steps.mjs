// What all the JavaScript programs share: the servers, the values, and one line for each step.

import { readFileSync } from "node:fs";
import { isDeepStrictEqual, inspect } from "node:util";

// The first server takes all the statements; the last is asked for the data, too.
export const urls = (process.env.ROTA_URLS ?? "postgresql://rota@127.0.0.1:5441/rota").split(",");
// The same servers' other door.
export const httpUrls = (process.env.ROTA_HTTP_URLS ?? "http://127.0.0.1:4001").split(",");
// PostgreSQL itself has LISTEN. Everything else is expected to be the same there.
export const isPostgreSQL = process.env.ROTA_REFERENCE === "postgresql";

export const large = 100_000;
export const countTo =
  `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${large})`;
// Nobody waits for this one: it is there to be cancelled.
export const countForEver =
  "WITH RECURSIVE n(i) AS (SELECT 1::bigint UNION ALL SELECT i + 1 FROM n" +
  " WHERE i < 1000000000000) SELECT count(*) FROM n";

// One value of every type. What comes back must be equal to it.
export const item = {
  name: "première",
  big: 9_007_199_254_740_993n, // one more than a double can tell apart
  fine: true,
  price: "12345.60",
  ratio: 0.1,
  seen: new Date("2026-02-03T04:05:06.789Z"),
  day: "2024-02-29",
  ref: "01234567-89ab-cdef-0123-456789abcdef",
  doc: { a: [1, 2.5, null], b: "ö" },
  raw: Buffer.from([0, 1, 255]),
};

/** The driver has no such thing: not a failure, but the table says so. */
export class NotThere extends Error {}

/** A user with a password, who may do everything with tables, and whose certificates to trust. */
export function login() {
  const { CLIENT_USER: user, CLIENT_PASSWORD: password, CLIENT_CA: authority } = process.env;
  if (!user || !password || !authority) {
    throw new NotThere("CLIENT_USER, CLIENT_PASSWORD and CLIENT_CA are not set");
  }
  return { user, password, ca: readFileSync(authority), url: httpUrls[0].replace("http:", "https:") };
}

export function expect(got, wanted) {
  if (!isDeepStrictEqual(got, wanted)) {
    throw new Error(`got ${inspect(got)}, not ${inspect(wanted)}`);
  }
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Waits for another server, which may be some milliseconds behind. */
export async function eventually(found) {
  for (let tries = 0; tries < 100; tries++) {
    if (await found()) return;
    await pause(100);
  }
  throw new Error("the rows are not there");
}

/** Runs the steps in their order and ends the program: with 1 if any of them failed. */
export async function run(steps) {
  let failed = false;
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step();
      console.log(`ok ${name}`);
    } catch (failure) {
      const why = [failure, failure.cause].filter(Boolean).map((each) => each.message ?? each);
      const line = why.join(": ").split(/\s+/).join(" ");
      if (failure instanceof NotThere) {
        console.log(`none ${name}: ${line}`);
        continue;
      }
      failed = true;
      console.log(`FAIL ${name}: ${line}`);
      if (name === "connect") break;
    }
  }
  process.exit(failed ? 1 : 0);
}
