// node-postgres, whose connections each get a new token of @aws-sdk/rds-signer.
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { Signer } from "@aws-sdk/rds-signer";
import pg from "pg";

const [seconds, users, size] = process.argv.slice(2).map(Number);
const { PGHOST, PGHOSTADDR, PGPORT, PGUSER, PGDATABASE, PGSSLROOTCERT, AWS_REGION } = process.env;
const signer = new Signer({ hostname: PGHOST, port: Number(PGPORT), username: PGUSER, region: AWS_REGION });
const pool = new pg.Pool({
  host: PGHOSTADDR,
  port: Number(PGPORT),
  user: PGUSER,
  database: PGDATABASE,
  password: () => signer.getAuthToken(),
  ssl: { ca: readFileSync(PGSSLROOTCERT, "utf8"), servername: PGHOST },
  max: size,
});
// Without a listener, an idle connection that ends would end the process.
pool.on("error", () => {});

const results = { checkouts: 0, failed: 0, "failed queries": 0, slowest: Array(Math.floor(seconds) + 1).fill(0) };
const start = performance.now();

async function use() {
  for (;;) {
    const asked = performance.now();
    if (asked - start >= seconds * 1e3) return;
    const client = await pool.connect().catch(() => undefined);
    const took = performance.now() - asked;
    const second = Math.floor((asked - start) / 1e3);
    results.checkouts += 1;
    results.failed += client ? 0 : 1;
    results.slowest[second] = Math.max(results.slowest[second], took);
    if (client) {
      let failure;
      client.on("error", () => {});
      await client.query("SELECT 1").catch((error) => {
        failure = error;
        results["failed queries"] += 1;
      });
      client.removeAllListeners("error");
      client.release(failure);
    }
    await pause(10);
  }
}

await Promise.all(Array.from({ length: users }, use));
console.log(JSON.stringify(results));
await pool.end();
