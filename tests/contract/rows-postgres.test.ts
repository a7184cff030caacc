/**
 * The PostgreSQL adapter keeps the row contract; and what only a real server shows: limits of types, reflection of odd schemas,
 * lost answers, restarts. Method: a private server whose defaults are foreign on purpose.
 */
import assert from "node:assert/strict";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { declareTable } from "../../schemas/define.ts";
import type { DatabaseOptions } from "../../rows/dialect.ts";
import { openPostgres } from "../../rows/postgres.ts";
import type { Rows } from "../../rows/rows.ts";
import { missing, postgresMissing, privatePostgres, type PrivatePostgres } from "../support/postgres.ts";
import { connectionSuite } from "./rows-connection.suite.ts";
import { COARSE, everything, LIMIT, PARENT, refused } from "./rows-samples.ts";
import { rowsSuite, type RowsHarness } from "./rows.suite.ts";

const TABLES = `
  CREATE TABLE "limit" (id varchar(64) PRIMARY KEY, "group" varchar(255), "order" bigint, big bigint, amount numeric(20,6),
    flag boolean, at timestamp, day date, raw bytea, document json, long text, sort text, failures integer NOT NULL);
  CREATE TABLE parent (a varchar(64), b integer, name varchar(255) NOT NULL, PRIMARY KEY (a, b),
    CONSTRAINT parent_name_key UNIQUE (name));
  CREATE TABLE child (id serial PRIMARY KEY, pa varchar(64), pb integer, label varchar(64), UNIQUE (pa, label),
    CONSTRAINT child_pa_pb_fkey FOREIGN KEY (pa, pb) REFERENCES parent (a, b));
  CREATE TABLE coarse (id integer PRIMARY KEY, at timestamp(0));
  CREATE TYPE mood AS ENUM ('it''s', 'b b', 'c');
  CREATE TABLE odd (m mood, at timestamptz(3), u uuid, j jsonb, d numeric(5,2), n varchar(3), PRIMARY KEY (m, u),
    CHECK (n <> 'no'))`;

const ODD = declareTable("odd", { key: ["m", "u"],
  columns: { m: "text", at: "datetime?", u: "text", j: "text?", d: "decimal?", n: "text?" } });

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

describe("PostgreSQL rows", () => {
  let server: PrivatePostgres;
  let rows: Rows;
  let options: DatabaseOptions;

  before(async function () {
    this.timeout(90_000);
    const reason = postgresMissing();
    if (reason !== undefined) missing(this, reason);
    server = await privatePostgres();
    const database = await server.createDatabase();
    await server.execute(database.database, TABLES);
    options = { engine: "postgres", ...database };
    rows = openPostgres(options, world);
  });
  after(() => rows?.close());

  const harness = (): RowsHarness => ({ rows, ignoresCase: false, coarseDigits: 0, hasRowLocks: true });
  rowsSuite(harness);
  connectionSuite({
    open: (changes) => openPostgres({ ...options, ...changes }, world),
    options: () => options,
    server: () => server,
    terminate: "SELECT pg_terminate_backend(pid) FROM pg_stat_activity " +
      "WHERE datname = current_database() AND pid <> pg_backend_pid()",
  });

  describe("on its own", () => {
    const u = "0f9a3c1e-0000-4000-8000-000000000001";

    it("carries enums, zoned timestamps, uuids and stored JSON as text, and finds rows by them", async () => {
      const row = { m: "it's", at: "2026-07-01T12:00:00.123000", u, j: "{\"a\": 1}", d: "-1.50", n: null };
      await rows.transaction((write) => write.insert(ODD, [row]));
      const changed = { ...row, j: "{\"b\":  2}", at: "2026-07-01T12:00:00.987654" };
      await rows.transaction((write) => write.update(ODD, [changed], ["j", "at"]));
      const wanted = { ...row, j: "{\"b\": 2}", at: "2026-07-01T12:00:00.987000" };
      const match = everything(ODD, ["it's", u], ["no such mood", u], ["c", "no uuid"]);
      assert.deepEqual(await rows.snapshot((read) => read.select(ODD, match)), [wanted]);
      assert.deepEqual(await rows.snapshot((read) => read.page(ODD, { after: { m: "it's", u }, limit: 5 })), []);
      await rows.transaction((write) => write.remove(ODD, [row]));
    });

    it("refuses what a column cannot hold and says which rule, not which value", async () => {
      const row = { m: "c", u, at: null, j: null, d: null, n: null };
      const refusals = [{ n: "four" }, { m: "x" }, { d: "1000" }, { j: "{" }, { at: "no time" }, { n: "no" }, { n: "\0" },
        { n: "\ud83d" }];
      for (const bad of refusals) {
        const facts = await refused("E_ROWS_REFUSED", rows.transaction((write) => write.insert(ODD, [{ ...row, ...bad }])));
        assert.equal(facts["table"], "odd");
      }
    });

    it("reflects enums, precisions and unique indexes that are no constraints, and leaves out partial ones", async () => {
      await server.execute(options.database, `CREATE TABLE pieces (a int, b varchar(5) NOT NULL);
        CREATE UNIQUE INDEX ON pieces (b, a); CREATE UNIQUE INDEX ON pieces (a) WHERE b = 'x';
        CREATE UNIQUE INDEX ON pieces (lower(b));
        CREATE TABLE gone (x int PRIMARY KEY, pm mood, pu uuid, FOREIGN KEY (pm, pu) REFERENCES odd (m, u) ON DELETE CASCADE)`);
      const live = new Map((await rows.reflect()).map((table) => [table.name, table]));
      assert.deepEqual(live.get("pieces")?.unique, [["b", "a"]]);
      assert.deepEqual(live.get("gone")?.references,
        [{ columns: ["pm", "pu"], table: "odd", to: ["m", "u"], onDelete: "cascade" }]);
      assert.equal(live.get("odd")?.columns.find((column) => column.name === "at")?.fractionDigits, 3);
      await server.execute(options.database, "DROP TABLE gone, pieces");
    });

    it("answers a missing table or column with a schema mismatch, and sees a table that came later", async () => {
      const late = declareTable("late", { key: ["id"], columns: { id: "integer" } });
      await refused("E_SCHEMA_MISMATCH", rows.snapshot((read) => read.page(late, { limit: 1 })));
      await refused("E_SCHEMA_MISMATCH", rows.revisions("nowhere", "nothing"));
      await server.execute(options.database, "CREATE TABLE late (id integer PRIMARY KEY)");
      assert.deepEqual(await rows.snapshot((read) => read.page(late, { limit: 1 })), []);
      const wider = declareTable("late", { key: ["id"], columns: { id: "integer", more: "text?" } });
      await refused("E_SCHEMA_MISMATCH", rows.snapshot((read) => read.page(wider, { limit: 1 })));
      await server.execute(options.database, "DROP TABLE late");
    });

    it("refuses to write in a snapshot", async () => {
      await refused("E_ROWS_UNAVAILABLE", rows.snapshot(async (read) =>
        (read as unknown as { insert(table: unknown, rows: unknown): Promise<void> }).insert(COARSE, [{ id: 1, at: null }])));
      assert.deepEqual(await rows.snapshot((read) => read.select(PARENT, everything(PARENT))), []);
      assert.deepEqual(await rows.snapshot((read) => read.select(LIMIT, everything(LIMIT))), []);
    });
  });
});
