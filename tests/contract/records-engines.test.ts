/**
 * Goal: a record read or written through the API is the same record on both engines: same values, same digests, same refusals.
 * Method: private PostgreSQL and MariaDB behind the whole API of a centre; nasty values, listings while others write,
   many writers
 * of one record.
 */
import assert from "node:assert/strict";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { present } from "../../core/assert.ts";
import { openMariadb } from "../../rows/mariadb.ts";
import { openPostgres } from "../../rows/postgres.ts";
import type { Rows } from "../../rows/rows.ts";
import { defineService, type Service } from "../../schemas/define.ts";
import { canonicalImage, digestOf, pickColumns, tokenOf, type Row } from "../../schemas/row.ts";
import { mariadbMissing, privateMariadb } from "../support/mariadb.ts";
import { missing, postgresMissing, privatePostgres } from "../support/postgres.ts";
import { CentreStage } from "../support/records-stage.ts";
import { LIMIT, NASTY } from "./rows-samples.ts";

const SERVICE: Service = defineService({
  name: "sample", catalogType: "sample", migrations: { table: "alembic_version", column: "version_num", verified: ["1"] },
  tables: {
    limit: { key: LIMIT.key, columns: LIMIT.columns, local: LIMIT.local, secret: ["raw"] },
    note: { key: ["limit_id", "place"], columns: { limit_id: "text", place: "integer", text: "text?" }, unique: [["text"]],
      references: [{ columns: ["limit_id"], table: "limit", to: ["id"], hard: true }] },
  },
  kinds: { limit: { root: "limit", owns: [{ table: "note", by: { limit_id: "id" } }] } },
  local: {}, captures: [], leaves: [], errorShape: "keystone",
  paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false },
});

const POSTGRES = `
  CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY); INSERT INTO alembic_version VALUES ('1');
  CREATE TABLE "limit" (id varchar(64) PRIMARY KEY, "group" varchar(255), "order" bigint, big bigint, amount numeric(20,6),
    flag boolean, at timestamp, day date, raw bytea, document json, long text, sort text, failures integer NOT NULL);
  CREATE TABLE note (limit_id varchar(64) REFERENCES "limit", place integer, text varchar(255), PRIMARY KEY (limit_id, place),
    UNIQUE (text))`;
const MARIADB = `
  CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY); INSERT INTO alembic_version VALUES ('1');
  CREATE TABLE \`limit\` (id varchar(64) PRIMARY KEY, \`group\` varchar(255), \`order\` bigint, big bigint, amount decimal(20,6),
    flag tinyint(1), at datetime(6), day date, raw blob, document json, \`long\` longtext, sort text, failures int NOT NULL)
    CHARACTER SET utf8mb4;
  CREATE TABLE note (limit_id varchar(64) CHARACTER SET utf8mb4, place int, text varchar(255) CHARACTER SET utf8mb4,
    PRIMARY KEY (limit_id, place), UNIQUE (text), FOREIGN KEY (limit_id) REFERENCES \`limit\` (id))`;

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const limit = present(SERVICE.tables.get("limit"), "limit");
const note = present(SERVICE.tables.get("note"), "note");
const SENT: readonly Row[] = NASTY.map((row) => pickColumns(row, limit.sent));
const TABLE = "/v1/sample/tables/limit/records";
const KIND = "/v1/sample/aggregates/limit";
const EMPTY = pickColumns({}, limit.sent);

interface Listed {
  readonly records: readonly { readonly key: readonly string[]; readonly digest: string }[];
  readonly next: string | null;
}

/** Digests of every nasty record and aggregate, as each engine's API gave them. */
const digests = new Map<string, ReadonlyMap<string, string>>();

function suite(engine: string, open: () => Promise<Rows>): void {
  let rows: Rows;
  let stage: CentreStage;

  before(async function () {
    this.timeout(90_000);
    const reason = engine === "postgres" ? postgresMissing() : mariadbMissing();
    if (reason !== undefined) missing(this, reason);
    rows = await open();
    stage = new CentreStage(SERVICE, rows);
    await stage.start();
  });
  after(async () => {
    await stage?.stop();
    await rows?.close();
  });

  const put = async (path: string, body: object, headers: Record<string,
    string> = {}): Promise<{ status: number; body: unknown }> =>
    stage.listener.call("put", path, "admin").set(headers).send(body);
  const get = async (path: string): Promise<{ status: number; body: Record<string, unknown>; headers: Record<string, string> }> =>
    stage.listener.call("get", path, "auditor");

  it("gives back every nasty record as it was set, with the digest of the image on the stream", async () => {
    const seen = new Map<string, string>();
    for (const [place, row] of SENT.entries()) {
      const id = String(row["id"]);
      const notes = Array.from({ length: place % 4 }, (_, at) => ({ limit_id: id, place: at, text: `${place} ${at}` }));
      const made = await put(`${KIND}/${tokenOf(id)}`, { rows: { limit: [row], note: notes } });
      assert.equal(made.status, 201, JSON.stringify(made.body));
      const whole = await get(`${KIND}/${tokenOf(id)}`);
      assert.deepEqual(whole.body["rows"], { limit: [row], note: notes });
      const image = canonicalImage(SERVICE, { kind: "limit", values: [id] }, { limit: [row], note: notes });
      assert.deepEqual([whole.body["digest"], whole.body["published"]], [digestOf(image), digestOf(image)]);
      const record = await get(`${TABLE}/${tokenOf(id)}`);
      assert.deepEqual([record.body["row"], record.body["local"]], [row, { failures: 7 }]);
      seen.set(id, String(record.body["digest"]));
    }
    digests.set(engine, seen);
    const listed = await get(`${TABLE}?limit=1000`);
    assert.deepEqual(new Map((listed.body as unknown as Listed).records.map(({ key, digest }) => [key[0], digest])), seen);
  }).timeout(30_000);

  it("lists each record that is there all the time exactly once while others write", async () => {
    const steady = Array.from({ length: 120 }, (_, place) => `steady-${String(place * 2).padStart(4, "0")}`);
    const insert = (id: string): Promise<void> =>
      rows.transaction((write) => write.insert(limit, [{ ...EMPTY, id }]));
    await rows.transaction((write) => write.insert(limit, steady.map((id) => ({ ...EMPTY, id }))));
    let isListing = true;
    const writer = (async (): Promise<void> => {
      for (let turn = 0; isListing; turn += 1) {
        const id = `steady-${String((turn * 37) % 240 | 1).padStart(4, "0")}`;
        await insert(id);
        if (turn % 2 === 0) await rows.transaction((write) => write.update(limit,
          [{ ...EMPTY, id: steady[turn % 120] ?? "", group: "x" }],
          ["group"]));
        await rows.transaction((write) => write.remove(limit, [{ id }]));
      }
    })();
    const seen: string[] = [];
    for (let next: string | null = ""; next !== null;) {
      const page: Listed = (await get(`${TABLE}?limit=17${next === "" ? "" : `&after=${next}`}`)).body as unknown as Listed;
      seen.push(...page.records.map(({ key }) => key[0] ?? ""));
      next = page.next;
    }
    isListing = false;
    await writer;
    assert.deepEqual(seen.filter((id) => steady.includes(id)), steady);
    assert.equal(new Set(seen).size, seen.length);
    await rows.transaction((write) => write.remove(limit, steady.map((id) => ({ id }))));
  }).timeout(30_000);

  it("lets exactly one of many writers through that have read the same state", async () => {
    await put(`${KIND}/raced`, { rows: { limit: [{ ...EMPTY, id: "raced" }], note: [] } });
    const etag = present((await get(`${KIND}/raced`)).headers["etag"], "an ETag");
    const answers = await Promise.all(Array.from({ length: 12 }, (_, place) => put(`${KIND}/raced`,
      { rows: { limit: [{ ...EMPTY, id: "raced", order: place }], note: [{ limit_id: "raced", place, text: null }] } },
      { "If-Match": etag })));
    const statuses = answers.map(({ status }) => status).sort();
    assert.deepEqual(statuses, [200, ...Array.from({ length: 11 }, () => 412)]);
    const winner = answers.findIndex(({ status }) => status === 200);
    const { limit: [row], note: notes } = (await get(`${KIND}/raced`)).body["rows"] as { limit: Row[]; note: Row[] };
    assert.deepEqual([row?.["order"], notes.map((each) => each["place"])], [winner, [winner]]);
  }).timeout(30_000);

  it("makes a record once when many make it at the same time", async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, (_, place) =>
      put(`${TABLE}/made`, { row: { ...EMPTY, id: "made", order: place } }, { "If-None-Match": "*" })));
    const statuses = answers.map(({ status }) => status);
    assert.equal(statuses.filter((status) => status === 201).length, 1, JSON.stringify(statuses));
    assert.ok(statuses.every((status) => [201, 409, 412].includes(status)), JSON.stringify(statuses));
  }).timeout(30_000);

  it("says which rule of the database a record breaks, without the value, and changes nothing", async () => {
    await put(`${KIND}/owner`, { rows: { limit: [{ ...EMPTY, id: "owner" }],
      note: [{ limit_id: "owner", place: 1, text: "swordfish" }] } });
    const cases: readonly (readonly [string, object, number, string])[] = [
      [`${KIND}/${"x".repeat(65)}`, { rows: { limit: [{ ...EMPTY, id: "x".repeat(65) }], note: [] } }, 422, "E_ROWS_REFUSED"],
      [`${KIND}/taken`, { rows: { limit: [{ ...EMPTY, id: "taken" }],
        note: [{ limit_id: "taken", place: 1, text: "swordfish" }] } }, 409,
        "E_ROWS_UNIQUE"],
      [`${KIND}/much`, { rows: { limit: [{ ...EMPTY, id: "much", amount: "123456789012345678" }], note: [] } }, 422,
        "E_ROWS_REFUSED"],
    ];
    for (const [path, body, status, code] of cases) {
      const refused = await put(path, body);
      assert.deepEqual([refused.status, (refused.body as { error: { code: string } }).error.code], [status, code]);
      assert.doesNotMatch(JSON.stringify(refused.body), /swordfish|123456789012345678/);
      assert.equal((await get(path)).status, 404);
    }
    assert.doesNotMatch(JSON.stringify(stage.lines), /swordfish/);
  });

  it("removes what it made, rows of owned tables included", async () => {
    const gone = await stage.listener.call("delete", `${KIND}/owner`, "admin").set("If-Match", "*");
    assert.equal(gone.status, 200, gone.text);
    const left = await rows.snapshot((read) => read.select(note, { columns: ["limit_id"], values: [["owner"]] }));
    assert.deepEqual(left, []);
  });

  it("does not make a second record of one that the database spells otherwise", async () => {
    const answer = await put(`${KIND}/EDGE`, { rows: { limit: [{ ...EMPTY, id: "EDGE" }], note: [] } });
    assert.equal(answer.status, engine === "mariadb" ? 409 : 201, JSON.stringify(answer.body));
    assert.equal((await get(`${TABLE}/EDGE`)).body["digest"] === digests.get(engine)?.get("edge"), engine === "mariadb");
  });
}

describe("records on PostgreSQL", () => {
  suite("postgres", async () => {
    const server = await privatePostgres();
    const database = await server.createDatabase();
    await server.execute(database.database, POSTGRES);
    return openPostgres({ engine: "postgres", ...database }, world);
  });
});

describe("records on MariaDB", () => {
  suite("mariadb", async () => {
    const server = await privateMariadb();
    const database = await server.createDatabase();
    await server.execute(database.database, MARIADB);
    return openMariadb({ engine: "mariadb", ...database }, world);
  });
});

describe("records on both engines", () => {
  it("have the same digests", function () {
    const [postgres, mariadb] = [digests.get("postgres"), digests.get("mariadb")];
    if (postgres === undefined || mariadb === undefined) missing(this, "one of the engines is not here");
    assert.deepEqual(postgres, mariadb);
    assert.equal(postgres.size, NASTY.length);
  });
});
