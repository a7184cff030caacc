/**
 * Goal: the centre's own daemon, configured with trigger capture, carries a change that passed every proxy to a real stream
 * within a second, holds a truncated table, and says when triggers are missing. Method: the whole process with a private
 * nats-server and PostgreSQL.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { runCentre } from "../../audit/main.ts";
import { loadSyncdConfig } from "../../config/load.ts";
import { systemClock } from "../../core/clock.ts";
import type { RunningProcess } from "../../core/lifecycle.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import type { JetstreamFeed } from "../../feed/jetstream.ts";
import { openPostgres } from "../../rows/postgres.ts";
import type { Rows } from "../../rows/rows.ts";
import { keystone } from "../../schemas/keystone.ts";
import { keystoneTables } from "../support/keystone-tables.ts";
import { FEED_USERS, openFeed, requireNatsServer, startNats, type NatsServer } from "../support/nats.ts";
import { freePort, missing, postgresMissing, privatePostgres } from "../support/postgres.ts";
import { insertOne, insertUser } from "./rows-triggers.suite.ts";

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const DEADLINE_MS = 60_000;

async function eventually(what: string, holds: () => Promise<boolean>): Promise<number> {
  const began = systemClock.monotonicMs();
  while (!await holds()) {
    assert.ok(systemClock.monotonicMs() - began < DEADLINE_MS, `${what}, within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return systemClock.monotonicMs() - began;
}

describe("the centre's daemon with trigger capture", function () {
  this.timeout(120_000);
  let folder: string;
  let nats: NatsServer;
  let feed: JetstreamFeed;
  let rows: Rows;
  let sql: (text: string) => Promise<unknown>;
  let running: RunningProcess | undefined;
  let admin: string;

  before(async function () {
    const reason = postgresMissing();
    if (reason !== undefined) missing(this, reason);
    nats = await startNats(requireNatsServer(this), { users: FEED_USERS });
    folder = mkdtempSync(join(tmpdir(), "holdfast-centre-"));
    const server = await privatePostgres();
    const database = await server.createDatabase();
    sql = (text) => server.execute(database.database, text);
    await sql(`${keystoneTables("postgres")} CREATE TABLE alembic_version (version_num text);
      INSERT INTO alembic_version VALUES ('29e87d24a316')`);
    rows = openPostgres({ engine: "postgres", ...database }, world);
    await rows.transaction(async (write) => {
      await insertOne(write, "project", { id: "default", domain_id: "default", parent_id: null });
      for (let user = 0; user < 100; user += 1) await insertUser(write, `user${user}`);
      for (const table of ["role", "service", "endpoint"]) await insertOne(write, table, { id: "admin", service_id: "admin" });
      await insertOne(write, "assignment", { type: "UserProject" });
    });
    feed = openFeed(nats, "centre", { service: "keystone" });
    const port = await freePort();
    admin = `http://127.0.0.1:${port}`;
    writeFileSync(join(folder, "feed"), "centre-word", { mode: 0o600 });
    writeFileSync(join(folder, "syncd.yaml"), stringify({ site: "centre", role: "centre", admin: { port },
      feed: { servers: [`nats://${nats.server.replace(/^.*\/\//, "")}`], user: "centre", password: { file: "feed" } },
      services: [{ service: "keystone", capture: "both", database: { engine: "postgres", host: database.host,
        port: database.port, name: database.database, user: database.user } }] }));
    running = await runCentre(loadSyncdConfig(join(folder, "syncd.yaml"), {}).config, world);
  });
  after(async () => {
    await running?.stop();
    await feed?.close();
    await rows?.close();
    await nats?.remove();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });

  const readiness = async (): Promise<string> => (await fetch(`${admin}/readyz`)).text();
  const faults = async (): Promise<string> => JSON.stringify(await (await fetch(`${admin}/status`)).json());
  const isLive = async (subject: string): Promise<boolean> => {
    const message = await feed.last(`os.v1.keystone.all.${subject}`);
    return message !== undefined && message.headers["Hf-Deleted"] !== "1";
  };

  it("says that triggers are missing, and that they no longer are", async () => {
    await eventually("the fault", async () => (await faults()).includes("E_TRIGGERS_MISSING"));
    assert.match(await readiness(), /triggers keystone/);
    await rows.triggers(keystone).install();
    await eventually("ready", async () => (await fetch(`${admin}/readyz`)).status === 200);
  });

  it("publishes what passed every proxy within a second", async () => {
    await sql("INSERT INTO region (id, description) VALUES ('direct', '')");
    assert.ok(await eventually("the region", () => isLive("region.direct")) < 1_000);
    await sql("DELETE FROM region");
    assert.ok(await eventually("its end", async () => !await isLive("region.direct")) < 1_000);
  });

  it("deletes nothing because of a truncated table", async () => {
    await sql("TRUNCATE \"user\" CASCADE");
    await eventually("the fault", async () => (await faults()).includes("E_CENTRE_EMPTIED"));
    assert.equal(await isLive("user.user7"), true);
  });
});
