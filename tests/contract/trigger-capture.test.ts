/**
 * Goal: rows that change past every proxy are on the stream within a second, and when writers, a stopped drain and rolled-back
 * transactions have come together, the stream says what the database says. Method: the product's capture and drain on private
 * servers with Keystone's tables and triggers, SQL past the port, a stream in memory, the real clock.
 */
import assert from "node:assert/strict";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { TriggerDrain } from "../../capture/triggers.ts";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom, systemRandom } from "../../core/random.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { readImages, readKeys } from "../../rows/footprint.ts";
import { openMariadb } from "../../rows/mariadb.ts";
import { openPostgres } from "../../rows/postgres.ts";
import { MARKS_TABLE } from "../../rows/trigger-plan.ts";
import type { Rows } from "../../rows/rows.ts";
import { keystone } from "../../schemas/keystone.ts";
import { digestOf, keyText } from "../../schemas/row.ts";
import { keystoneTables } from "../support/keystone-tables.ts";
import { mariadbMissing, privateMariadb } from "../support/mariadb.ts";
import { missing, postgresMissing, privatePostgres } from "../support/postgres.ts";
import { insertOne, insertUser } from "./rows-triggers.suite.ts";

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const KINDS = ["user", "region", "role", "implied_role"];
const WRITERS = 6;
const TRANSACTIONS = 60;
const DEADLINE_MS = 30_000;

/** Waits for a condition; how long it took, in milliseconds. */
async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<number> {
  const began = systemClock.monotonicMs();
  while (!await holds()) {
    assert.ok(systemClock.monotonicMs() - began < DEADLINE_MS, `${what}, within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return systemClock.monotonicMs() - began;
}

/** A centre whose proxies see nothing. */
class Centre {
  readonly rows: Rows;
  readonly sql: (text: string) => Promise<unknown>;
  readonly #stream = new MemoryStream(keystone.name, systemClock);
  readonly #faults = new Faults(systemClock);
  readonly #capture: CaptureRoom;
  #drain: TriggerDrain | undefined;

  constructor(rows: Rows, sql: (text: string) => Promise<unknown>) {
    this.rows = rows;
    this.sql = sql;
    const feed = memoryFeed(this.#stream, systemClock);
    const rooms = { service: keystone, scope: "all", rows, feed, faults: this.#faults };
    this.#capture = new CaptureRoom(rooms, world, CAPTURE_DEFAULTS);
  }

  async start(): Promise<void> {
    await this.rows.triggers(keystone).install();
    // Tables that a running Keystone always has rows in: without, no deletion would be believed.
    await this.rows.transaction(async (write) => {
      await insertOne(write, "project", { id: "default", domain_id: "default", parent_id: null });
      await insertUser(write, "admin");
      for (const table of ["role", "service", "endpoint"]) await insertOne(write, table, { id: "admin", service_id: "admin" });
      await insertOne(write, "assignment", { type: "UserProject" });
    });
    await this.#capture.start();
    await eventually("capture is ready", () => this.#capture.notReady() === undefined);
    await this.startDrain();
  }

  async startDrain(): Promise<void> {
    const rooms = { service: keystone, rows: this.rows, faults: this.#faults, capture: this.#capture };
    this.#drain = new TriggerDrain(rooms, world);
    await this.#drain.start();
  }

  stopDrain(): Promise<void> {
    return present(this.#drain, "it was started").stop();
  }

  async stop(): Promise<void> {
    await this.stopDrain();
    await this.#capture.stop();
    await this.rows.close();
  }

  isLive(subject: string): boolean {
    const message = this.#stream.last(`os.v1.keystone.all.${subject}`);
    return message !== undefined && message.headers["Hf-Deleted"] !== "1";
  }

  /** Name and digest of everything live, in the stream and in the database. */
  async compared(): Promise<{ readonly stream: readonly string[]; readonly database: readonly string[] }> {
    const messages = [...this.#stream.above(0, "os.v1.keystone.all.>")].filter(({ subject, headers }) =>
      headers["Hf-Deleted"] !== "1" && KINDS.some((kind) => subject.startsWith(`os.v1.keystone.all.${kind}.`)));
    const images = await this.rows.snapshot(async (read) => {
      const keys = await Promise.all(KINDS.map((kind) => readKeys(read, keystone, kind, { limit: 10_000 })));
      return readImages(read, keystone, keys.flatMap((page) => page.keys));
    });
    const nameOf = (subject: string): string => subject.slice("os.v1.keystone.all.".length);
    return { stream: messages.map(({ subject, headers }) => `${nameOf(subject)} ${headers["Hf-Digest"]}`).sort(),
      database: [...images.values()].map((image) => `${keyText(image.key)} ${digestOf(image)}`).sort() };
  }

  /** Marks in the table. */
  async marks(): Promise<number> {
    return (await this.rows.snapshot((read) => read.page(MARKS_TABLE, { limit: 100_000 }))).length;
  }
}

/** One writer's life: users, regions and roles that come, change, cascade and go; every fourth transaction is rolled back. */
async function write(centre: Centre, writer: number): Promise<void> {
  const random = seededRandom(writer);
  const pick = (count: number): number => Math.floor(random.next() * count);
  const { rows } = centre;
  const table = (name: string): NonNullable<ReturnType<typeof keystone.tables.get>> => present(keystone.tables.get(name), name);
  for (let turn = 0; turn < TRANSACTIONS; turn += 1) {
    const id = `w${writer}-${pick(6)}`;
    await rows.transaction(async (write) => {
      const [user] = await write.lock(table("user"), { columns: ["id"], values: [[id]] });
      if (user === undefined) await insertUser(write, id);
      else if (pick(3) === 0) await write.remove(table("user"), [user]);
      else await write.update(table("user"), [{ ...user, extra: `{"turn": ${turn}}` }], ["extra"]);
      const [role] = await write.select(table("role"), { columns: ["id"], values: [[id]] });
      if (role !== undefined && pick(2) === 0) await write.remove(table("role"), [role]);
      if (role === undefined) {
        await insertOne(write, "role", { id, name: id });
        await insertOne(write, "implied_role", { prior_role_id: id, implied_role_id: id });
      }
      if (pick(4) === 0) throw new Error("rolled back on purpose");
    }).catch((error: unknown) => assert.match(String(error), /on purpose|E_ROWS_CONTENDED/));
  }
}

function suite(open: () => Centre, user: string): void {
  it("a change past every proxy is on the stream within a second", async () => {
    const centre = open();
    for (const [text, subject, wanted] of [
      [`INSERT INTO ${user} (id, domain_id) VALUES ('direct', 'default')`, "user.direct", true],
      ["INSERT INTO region (id, description) VALUES ('here', '')", "region.here", true],
      [`DELETE FROM ${user} WHERE id = 'direct'`, "user.direct", false],
    ] as const) {
      await centre.sql(text);
      const tookMs = await eventually(text, () => centre.isLive(subject) === wanted);
      assert.ok(tookMs < 1_000, `${text} took ${tookMs} ms`);
    }
  });

  it("after many writers, with the drain stopped and started between, the stream says what the database says", async () => {
    const centre = open();
    const writing = Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(centre, writer)));
    for (let stops = 0; stops < 3; stops += 1) {
      await eventually("there is something to do", async () => await centre.marks() > 0);
      await centre.stopDrain();
      await centre.startDrain();
    }
    await writing;
    await eventually("every mark is taken", async () => await centre.marks() === 0);
    const { stream, database } = await centre.compared();
    assert.ok(database.length > WRITERS, "there is something to compare");
    assert.deepEqual(stream, database);
  });
}

describe("trigger capture on real databases", function () {
  this.timeout(120_000);
  let centre: Centre;

  describe("PostgreSQL", () => {
    before(async function () {
      const reason = postgresMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privatePostgres();
      const database = await server.createDatabase();
      await server.execute(database.database, `${keystoneTables("postgres")} CREATE TABLE alembic_version (version_num text);
        INSERT INTO alembic_version VALUES ('29e87d24a316')`);
      const rows = openPostgres({ engine: "postgres", ...database }, world);
      centre = new Centre(rows, (text) => server.execute(database.database, text));
      await centre.start();
    });
    after(() => centre?.stop());
    suite(() => centre, "\"user\"");
  });

  describe("MariaDB", () => {
    before(async function () {
      const reason = mariadbMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privateMariadb();
      const database = await server.createDatabase();
      await server.execute(database.database, `${keystoneTables("mariadb")} CREATE TABLE alembic_version (version_num text);
        INSERT INTO alembic_version VALUES ('29e87d24a316')`);
      const rows = openMariadb({ engine: "mariadb", ...database }, world);
      centre = new Centre(rows, (text) => server.execute(database.database, text));
      await centre.start();
    });
    after(() => centre?.stop());
    suite(() => centre, "`user`");
  });
});
