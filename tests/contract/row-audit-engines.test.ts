/**
 * Goal: on both engines the row audit finds exactly what somebody changed, whatever the engine does by itself (cut fractions,
 * letter case, cascades, isolation), and nothing while changes are being applied. Method: a small service on private servers; the
 * product's applier and row audit; the hand writes SQL past them.
 */
import assert from "node:assert/strict";
import { GUARD_DEFAULTS } from "../../capture/guard.ts";
import { Holding } from "../../capture/held.ts";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { openMariadb } from "../../rows/mariadb.ts";
import { openPostgres } from "../../rows/postgres.ts";
import type { Rows } from "../../rows/rows.ts";
import { changeOf, encodeChange } from "../../schemas/change.ts";
import { defineService, type Service } from "../../schemas/define.ts";
import { canonicalImage, digestOf, keyFromText, type Row } from "../../schemas/row.ts";
import { Applier, APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { listDrift } from "../../syncd/drift.ts";
import { HEARD_TABLE, noteHeard } from "../../syncd/heard.ts";
import { LEDGER_TABLES, startPosition } from "../../syncd/ledger.ts";
import type { Received } from "../../syncd/received.ts";
import { RowAudit, ROW_AUDIT_DEFAULTS, type RowAuditReport } from "../../syncd/row-audit.ts";
import { statesOf } from "../../syncd/states.ts";
import { mariadbMissing, privateMariadb } from "../support/mariadb.ts";
import { missing, postgresMissing, privatePostgres } from "../support/postgres.ts";
import { PROVEN } from "../support/centre-word.ts";

const SERVICE: Service = defineService({
  name: "sample", catalogType: "sample", migrations: { table: "alembic_version", column: "version_num", verified: ["1"] },
  tables: {
    account: { key: ["id"],
      columns: { id: "text", name: "text", made: "datetime", uses: "integer?", hash: "text?", seen: "datetime?" },
      unique: [["name"]], local: { seen: null }, secret: ["hash"], moves: { uses: "down" } },
    note: { key: ["account_id", "place"], columns: { account_id: "text", place: "integer", text: "text?" },
      references: [{ columns: ["account_id"], table: "account", to: ["id"], hard: true }] },
    tag: { key: ["account_id", "word"], columns: { account_id: "text", word: "text" },
      references: [{ columns: ["account_id"], table: "account", to: ["id"], hard: false }] },
  },
  kinds: { account: { root: "account",
    owns: [{ table: "note", by: { account_id: "id" } }, { table: "tag", by: { account_id: "id" } }] } },
  local: {}, captures: [], leaves: [], errorShape: "keystone",
  paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false },
});

const TABLES = (datetime: string): string => `
  CREATE TABLE account (id varchar(64) PRIMARY KEY, name varchar(200) NOT NULL UNIQUE, made ${datetime} NOT NULL, uses integer,
    hash varchar(200), seen ${datetime});
  CREATE TABLE note (account_id varchar(64) REFERENCES account (id) ON DELETE CASCADE, place integer, text text,
    PRIMARY KEY (account_id, place));
  CREATE TABLE tag (account_id varchar(64), word varchar(64), PRIMARY KEY (account_id, word))`;

const STREAM = "HOLDFAST_SAMPLE";
const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const signal = new AbortController().signal;
type Tables = Readonly<Record<string, readonly Row[]>>;

const account = (id: string, more: Row = {}): Tables => ({
  account: [{ id, name: `name of ${id}`, made: "2026-01-02T03:04:05.678901", uses: 3, hash: `hash of ${id}`, ...more }],
  note: [{ account_id: id, place: 1, text: "first" }, { account_id: id, place: 2, text: null }],
  tag: [{ account_id: id, word: "blue" }] });
const IDS = Array.from({ length: 40 }, (_, place) => `a${place}`);
const accounts = (version: number): Record<string, Tables> =>
  Object.fromEntries(IDS.map((id) => [`account.${id}`, account(id, { hash: `hash ${version} of ${id}` })]));

interface Engine {
  readonly rows: Rows;
  readonly sql: (text: string) => Promise<unknown>;
}

function suite(engine: () => Engine, ignoresCase: boolean): void {
  let audit: RowAudit;
  let applier: Applier;
  let sequence = 0;

  const bring = async (images: Readonly<Record<string, Tables | undefined>>): Promise<void> => {
    const changes = Object.entries(images).map(([name, tables]): Received => {
      const change = changeOf(canonicalImage(SERVICE, keyFromText(name), tables), "1");
      const payload = tables === undefined ? undefined : Buffer.from(encodeChange(change)).toString();
      return { ...change, version: { epoch: 1, sequence: (sequence += 1) }, payload };
    });
    await applier.carry({ changes, unreadable: [] }, { epoch: 1, sequence, mode: "tail" }, signal);
  };
  const pass = (): Promise<RowAuditReport> => audit.runNow(() => undefined, signal);
  const found = ({ changed, missing: gone, superfluous, repaired }: RowAuditReport): readonly number[] =>
    [changed, gone, superfluous, repaired];
  const read = (table: string): Promise<Row[]> =>
    engine().rows.snapshot((reader) => reader.page(present(SERVICE.tables.get(table), table), { limit: 1_000 }));

  before(async () => {
    const { rows } = engine();
    const faults = new Faults(systemClock);
    await rows.ensureTables([...LEDGER_TABLES, HEARD_TABLE]);
    await rows.reflect();
    const position = { epoch: 1, sequence: 0, mode: "tail" } as const;
    await rows.transaction(async (write) => {
      await startPosition(write, STREAM, position);
      await noteHeard(write, STREAM, { epoch: 1, n: 1, sequence: 0, filled: true, floor: { epoch: 0, sequence: 0 } });
    });
    applier = new Applier({ service: SERVICE, rows, stream: STREAM, isOutdated: () => Promise.resolve(false) }, position, faults,
      world, APPLIER_DEFAULTS, () => undefined);
    audit = new RowAudit({ service: SERVICE, rows, stream: STREAM, faults, isFollowing: () => true, committed: () => undefined,
      ...PROVEN,
      holding: new Holding({ service: SERVICE, rows, faults }, world, { ...GUARD_DEFAULTS, sharePercentMax: 100 }),
      repair: (changes) => applier.repair(changes, signal) }, world,
    { ...ROW_AUDIT_DEFAULTS, enabled: false, rowsPerSecondMax: 1_000_000 });
    await bring(accounts(0));
    await audit.start();
  });

  after(() => audit?.stop());

  it("finds nothing in what was applied, though columns may keep less", async () => {
    await engine().sql("UPDATE account SET seen = '2026-01-01 00:00:00'");
    assert.deepEqual(found(await pass()), [0, 0, 0, 0]);
  });

  it("puts changed, deleted and added rows right, and orphans away", async () => {
    await engine().sql("UPDATE account SET hash = 'stolen' WHERE id = 'a1'");
    await engine().sql("UPDATE account SET uses = 1 WHERE id = 'a2'");
    await engine().sql("DELETE FROM account WHERE id = 'a3'");
    await engine().sql("INSERT INTO account VALUES ('x', 'name of x', '2026-01-01 00:00:00', NULL, NULL, NULL)");
    await engine().sql("INSERT INTO note VALUES ('a4', 9, 'added'), ('x', 1, 'added')");
    await engine().sql("INSERT INTO tag VALUES ('gone', 'red')");
    // a3's tags stay when it is deleted: they are its own again, and orphans meanwhile.
    assert.deepEqual(found(await pass()), [2, 1, 3, 6]);
    assert.deepEqual(found(await pass()), [0, 0, 0, 0]);
    assert.equal((await read("account")).length, IDS.length);
    assert.equal((await read("note")).length, 2 * IDS.length);
    assert.equal((await read("tag")).length, IDS.length);
    assert.equal((await read("account")).find(({ id }) => id === "a2")?.["uses"], 1);
    const notes = await engine().rows.snapshot((reader) => listDrift(reader, undefined, 100));
    assert(notes.every(({ state }) => state === "repaired"));
    const stolen = notes.find(({ name }) => name === "account.a1")?.before?.["account"]?.[0];
    assert.equal(stolen?.["hash"], "stolen");
    assert.equal(stolen?.["made"], ignoresCase ? "2026-01-02T03:04:05.000000" : "2026-01-02T03:04:05.678901");
  });

  it("finds nothing while changes are being applied", async () => {
    let isOver = false;
    const applying = (async () => {
      for (let version = 1; version <= 30; version += 1) {
        const images: Record<string, Tables | undefined> = accounts(version);
        for (const id of IDS.filter((_, place) => place % 5 === version % 5)) images[`account.${id}`] = undefined;
        await bring(images);
      }
      await bring(accounts(99));
      isOver = true;
    })();
    let passes = 0;
    for (; !isOver || passes < 3; passes += 1) assert.deepEqual(found(await pass()), [0, 0, 0, 0], `pass ${passes}`);
    await applying;
    assert.deepEqual(found(await pass()), [0, 0, 0, 0]);
  });

  it("sees through another spelling of a key, and never takes a row away from it", async () => {
    await engine().sql("UPDATE account SET id = 'A5' WHERE id = 'a5' AND 1 = 0");
    await engine().sql("DELETE FROM account WHERE id = 'a5'");
    await engine().sql("DELETE FROM tag WHERE account_id = 'a5'");
    await engine().sql("INSERT INTO account VALUES ('A5', 'name of a5', '2026-01-01 00:00:00', 3, NULL, NULL)");
    const report = await pass();
    assert.deepEqual(found(report), ignoresCase ? [1, 0, 0, 1] : [0, 1, 1, 2]);
    assert.deepEqual((await read("account")).filter(({ id }) => String(id).toLowerCase() === "a5").map(({ id }) => id), ["a5"]);
    await bring({ "account.A6": account("A6", { name: "name of a6" }), "account.a6": undefined });
    await bring({ "account.B6": account("B6") });
    await bring({ "account.b6": undefined });
    const spelled = (await read("account")).map(({ id }) => String(id)).filter((id) => /^[ab]6$/i.test(id));
    assert.deepEqual(spelled.sort(), ["A6", "B6"]);
    assert.deepEqual(found(await pass()), [0, 0, 0, 0]);
  });

  it("shows an asker differences, and no cut fractions, and no secrets", async () => {
    const centre = { ...account("a7", { hash: "hash 99 of a7" }) };
    const image = canonicalImage(SERVICE, keyFromText("account.a7"), centre);
    await engine().sql("UPDATE note SET text = 'mine' WHERE account_id = 'a7' AND place = 1");
    const ask = (digest: string): Promise<unknown> =>
      statesOf({ service: SERVICE, rows: engine().rows }, [["account.a7", digest]], "m".repeat(36), "1.1");
    const answer = JSON.stringify(await ask(digestOf(image)));
    assert.match(answer, /"text":"mine"/);
    assert.match(answer, /"made":"2026-01-02T03:04:05.678901"/);
    assert.match(answer, /"hash":"secret:/);
    await pass();
    assert.match(JSON.stringify(await ask(digestOf(image))), /"states":\[\]/);
  });
}

describe("the row audit on both engines", () => {
  describe("PostgreSQL", () => {
    let engine: Engine;
    before(async function () {
      this.timeout(90_000);
      const reason = postgresMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privatePostgres();
      const database = await server.createDatabase();
      const sql = (text: string): Promise<unknown> => server.execute(database.database, text);
      await sql(TABLES("timestamp"));
      engine = { rows: openPostgres({ engine: "postgres", ...database }, world), sql };
    });
    after(() => engine?.rows.close());
    suite(() => engine, false);
  });

  describe("MariaDB", () => {
    let engine: Engine;
    before(async function () {
      this.timeout(90_000);
      const reason = mariadbMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privateMariadb();
      const database = await server.createDatabase();
      const sql = (text: string): Promise<unknown> => server.execute(database.database, text);
      await sql(TABLES("datetime"));
      engine = { rows: openMariadb({ engine: "mariadb", ...database }, world), sql };
    });
    after(() => engine?.rows.close());
    suite(() => engine, true);
  });
});
