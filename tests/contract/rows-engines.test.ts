/**
 * One image, three stores, one digest. Goal: an aggregate that went through PostgreSQL, MariaDB and the twin in memory is the
 * same aggregate. Method: a small service on private servers; images are applied by difference and plan, as a site does, and
 * read back.
 */
import assert from "node:assert/strict";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { differenceOf } from "../../rows/difference.ts";
import { keysWhere, readImages, readKeys } from "../../rows/footprint.ts";
import { openMariadb } from "../../rows/mariadb.ts";
import { memoryRows } from "../../rows/memory.ts";
import { planOf } from "../../rows/plan.ts";
import { openPostgres } from "../../rows/postgres.ts";
import type { Rows } from "../../rows/rows.ts";
import { schemaMismatches } from "../../rows/verify.ts";
import { defineService, type Service } from "../../schemas/define.ts";
import { canonicalImage, digestOf, keyText, type AggregateKey, type Image } from "../../schemas/row.ts";
import { mariadbMissing, privateMariadb } from "../support/mariadb.ts";
import { missing, postgresMissing, privatePostgres } from "../support/postgres.ts";
import { LIMIT, NASTY } from "./rows-samples.ts";

const SERVICE: Service = defineService({
  name: "sample", catalogType: "sample", migrations: { table: "alembic_version", column: "version_num", verified: ["1"] },
  tables: {
    limit: { key: LIMIT.key, columns: LIMIT.columns, local: LIMIT.local },
    note: { key: ["limit_id", "place"], columns: { limit_id: "text", place: "integer", text: "text?" },
      references: [{ columns: ["limit_id"], table: "limit", to: ["id"], hard: true }] },
  },
  kinds: { limit: { root: "limit", owns: [{ table: "note", by: { limit_id: "id" } }],
    except: [{ key: { id: "never" }, because: "a test says so" }] } },
  local: {}, captures: [], leaves: [], errorShape: "keystone",
  paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false },
});

const POSTGRES = `
  CREATE TABLE "limit" (id varchar(64) PRIMARY KEY, "group" varchar(255), "order" bigint, big bigint, amount numeric(20,6),
    flag boolean, at timestamp, day date, raw bytea, document json, long text, sort text, failures integer NOT NULL);
  CREATE TABLE note (limit_id varchar(64) REFERENCES "limit", place integer, text text, PRIMARY KEY (limit_id, place))`;
const MARIADB = `
  CREATE TABLE \`limit\` (id varchar(64) PRIMARY KEY, \`group\` varchar(255), \`order\` bigint, big bigint, amount decimal(20,6),
    flag tinyint(1), at datetime(6), day date, raw blob, document json, \`long\` longtext, sort text, failures int NOT NULL)
    CHARACTER SET utf8mb4;
  CREATE TABLE note (limit_id varchar(64) CHARACTER SET utf8mb4, place int, text text CHARACTER SET utf8mb4,
    PRIMARY KEY (limit_id, place), FOREIGN KEY (limit_id) REFERENCES \`limit\` (id))`;

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const keyOf = (id: string): AggregateKey => ({ kind: "limit", values: [id] });
const IMAGES: readonly Image[] = NASTY.map((row, at) => canonicalImage(SERVICE, keyOf(String(row["id"])), {
  limit: [row],
  note: Array.from({ length: at % 4 }, (_, place) => ({ limit_id: row["id"] ?? "", place, text: row["group"] ?? null })),
}));

async function apply(rows: Rows, wanted: readonly Image[]): Promise<void> {
  await rows.transaction(async (write) => {
    const current = await readImages(write, SERVICE, wanted.map((image) => image.key));
    const differences = wanted.map((image) => differenceOf(SERVICE, image, current.get(keyText(image.key))?.rows));
    for (const step of planOf(SERVICE, differences)) {
      if (step.verb === "update") await write.update(step.table, step.rows, step.columns);
      else await write[step.verb](step.table, step.rows);
    }
  });
}

function suite(open: () => Rows, ignoresCase: boolean): void {
  const read = async (ids: readonly string[]): Promise<readonly Image[]> =>
    [...(await open().snapshot((reader) => readImages(reader, SERVICE, ids.map(keyOf)))).values()];

  it("matches the declaration", async () => {
    assert.deepEqual(schemaMismatches(SERVICE, await open().reflect()), []);
  });

  it("gives back every image with the digest it came with", async () => {
    await apply(open(), IMAGES);
    const found = await read(IMAGES.map((image) => image.key.values[0] ?? ""));
    assert.deepEqual(found.map(digestOf), IMAGES.map(digestOf));
    await apply(open(), IMAGES.map((image, at) => ({ key: image.key, rows: IMAGES[at]?.rows })));
  });

  it("answers for what is not there with tombstones, and with the stored key where only the spelling differs", async () => {
    const [gone, other] = await read(["no such", "EDGE"]);
    assert.deepEqual(gone, { key: keyOf("no such"), rows: undefined });
    assert.deepEqual(other?.key, keyOf(ignoresCase ? "edge" : "EDGE"));
    assert.equal(other?.rows === undefined, !ignoresCase);
  });

  it("finds the aggregates that own certain rows, and lists all but the excepted ones", async () => {
    await apply(open(), [canonicalImage(SERVICE, keyOf("never"), { limit: [{ id: "never" }] })]);
    const where = { place: ["2", 99, "no number"] };
    const owners = await open().snapshot((reader) => keysWhere(reader, SERVICE, "limit", "note", where));
    const wanted = IMAGES.filter((_, at) => at % 4 === 3).map((image) => keyText(image.key));
    assert.deepEqual(owners.map(keyText).sort(), wanted.sort());
    const listed: string[] = [];
    for (let page: Parameters<typeof readKeys>[3] | undefined = { limit: 4 }; page !== undefined;) {
      const current: Parameters<typeof readKeys>[3] = page;
      const found = await open().snapshot((reader) => readKeys(reader, SERVICE, "limit", current));
      listed.push(...found.keys.map(keyText));
      page = found.next;
    }
    assert.deepEqual(listed.sort(), IMAGES.map((image) => keyText(image.key)).sort());
  });

  it("turns images into tombstones", async () => {
    await apply(open(), IMAGES.map(({ key }) => ({ key, rows: undefined })));
    for (const image of await read(IMAGES.map((one) => one.key.values[0] ?? ""))) assert.equal(image.rows, undefined);
  });
}

describe("one image in three stores", () => {
  describe("memory", () => {
    const rows = memoryRows([...SERVICE.tables.values()]);
    suite(() => rows, false);
  });

  describe("PostgreSQL", () => {
    let rows: Rows;
    before(async function () {
      this.timeout(90_000);
      const reason = postgresMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privatePostgres();
      const database = await server.createDatabase();
      await server.execute(database.database, POSTGRES);
      rows = openPostgres({ engine: "postgres", ...database }, world);
    });
    after(() => rows?.close());
    suite(() => rows, false);
  });

  describe("MariaDB", () => {
    let rows: Rows;
    before(async function () {
      this.timeout(90_000);
      const reason = mariadbMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privateMariadb();
      const database = await server.createDatabase();
      await server.execute(database.database, MARIADB);
      rows = openMariadb({ engine: "mariadb", ...database }, world);
    });
    after(() => rows?.close());
    suite(() => rows, true);
  });
});
