/**
 * The MariaDB adapter keeps the row contract; and what only a real server shows: strictness towards utf8mb3 and short columns,
 * reflection of odd schemas, lost answers, restarts. Method: a private server that is lax by default.
 */
import assert from "node:assert/strict";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { declareTable } from "../../schemas/define.ts";
import type { DatabaseOptions } from "../../rows/dialect.ts";
import { openMariadb } from "../../rows/mariadb.ts";
import type { Match, Rows } from "../../rows/rows.ts";
import type { Row } from "../../schemas/row.ts";
import { mariadbMissing, privateMariadb, type PrivateMariadb } from "../support/mariadb.ts";
import { missing } from "../support/postgres.ts";
import { connectionSuite } from "./rows-connection.suite.ts";
import { everything, refused } from "./rows-samples.ts";
import { rowsSuite, type RowsHarness } from "./rows.suite.ts";

const TABLES = `
  CREATE TABLE \`limit\` (id varchar(64) PRIMARY KEY, \`group\` varchar(255), \`order\` bigint, big bigint, amount decimal(20,6),
    flag tinyint(1), at datetime(6), day date, raw blob, document json, \`long\` longtext, sort text, failures int NOT NULL)
    CHARACTER SET utf8mb4;
  CREATE TABLE parent (a varchar(64), b int, name varchar(255) NOT NULL, PRIMARY KEY (a, b), UNIQUE KEY parent_name (name));
  CREATE TABLE child (id int AUTO_INCREMENT PRIMARY KEY, pa varchar(64), pb int, label varchar(64), UNIQUE (pa, label),
    CONSTRAINT child_pa FOREIGN KEY (pa, pb) REFERENCES parent (a, b));
  CREATE TABLE coarse (id int PRIMARY KEY, at datetime);
  CREATE TABLE odd (m enum('it''s', 'b b', 'c') NOT NULL, t timestamp(3) NULL, n varchar(3), small tinyint unsigned, f tinyint(1),
    l varchar(20) CHARACTER SET latin1, d decimal(5,2), PRIMARY KEY (m), CHECK (n <> 'no'))`;

const ODD = declareTable("odd", { key: ["m"], columns: { m: "text", t: "datetime?", n: "text?", small: "integer?", f: "integer?",
  l: "text?", d: "decimal?" } });

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

describe("MariaDB rows", () => {
  let server: PrivateMariadb;
  let rows: Rows;
  let options: DatabaseOptions;

  before(async function () {
    this.timeout(90_000);
    const reason = mariadbMissing();
    if (reason !== undefined) missing(this, reason);
    server = await privateMariadb();
    const database = await server.createDatabase();
    await server.execute(database.database, TABLES);
    options = { engine: "mariadb", ...database };
    rows = openMariadb(options, world);
  });
  after(() => rows?.close());

  const harness = (): RowsHarness => ({ rows, ignoresCase: true, coarseDigits: 0, hasRowLocks: true });
  rowsSuite(harness);
  connectionSuite({
    open: (changes) => openMariadb({ ...options, ...changes }, world),
    options: () => options,
    server: () => server,
    terminate: "BEGIN NOT ATOMIC FOR c IN (SELECT id FROM information_schema.processlist WHERE user LIKE 'test_%') " +
      "DO KILL c.id; END FOR; END",
  });

  describe("on its own", () => {
    it("carries enums, timestamps and small numbers, and finds rows by any text", async () => {
      const row = { m: "it's", t: "2026-07-01T12:00:00.123000", n: "ö", small: 255, f: 2, l: "é", d: "-1.50" };
      await rows.transaction((write) => write.insert(ODD, [{ ...row, t: "2026-07-01T12:00:00.123999" }]));
      const find = (match: Match): Promise<Row[]> => rows.snapshot((read) => read.select(ODD, match));
      assert.deepEqual(await find(everything(ODD, ["it's"], ["no such"], ["\u{1f600}"])), [row]);
      assert.deepEqual(await find({ columns: ["n"], values: [["ö"], ["\u{1f600}"]] }), [row]);
      assert.deepEqual(await find({ columns: ["l"], values: [["漢"]] }), []);
      await rows.transaction((write) => write.update(ODD, [{ ...row, n: "xyz" }, { ...row, m: "\u{1f600}" }], ["n"]));
      await rows.transaction((write) => write.remove(ODD, [{ m: "\u{1f600}" }, row]));
      assert.deepEqual(await rows.snapshot((read) => read.page(ODD, { limit: 1 })), []);
    });

    it("refuses what a column cannot hold, instead of storing something near it", async () => {
      const row = { m: "c", t: null, n: null, small: null, f: null, l: null, d: null };
      await rows.transaction((write) => write.insert(ODD, [row]));
      const bad = [{ n: "four" }, { n: "\u{1f600}" }, { n: "\ud83d" }, { small: 256 }, { d: "1000" }, { t: "no time" },
        { t: "0000-00-00T00:00:00.000000" }, { n: "no" }, { l: "漢" }];
      for (const one of bad) {
        await refused("E_ROWS_REFUSED", rows.transaction((write) => write.update(ODD, [{ ...row, ...one }], Object.keys(one))));
        await refused("E_ROWS_REFUSED", rows.transaction((write) => write.insert(ODD, [{ ...row, m: "b b", ...one }])));
      }
      await refused("E_ROWS_REFUSED", rows.transaction((write) => write.insert(ODD, [{ ...row, m: "x" }])));
      await rows.transaction((write) => write.remove(ODD, [row]));
    });

    it("reflects cascades and leaves out unique keys over the beginnings of columns", async () => {
      await server.execute(options.database, `CREATE TABLE pieces (a int, b varchar(50), pa varchar(64), pb int,
        UNIQUE (b(5)), UNIQUE (b, a), FOREIGN KEY (pa, pb) REFERENCES parent (a, b) ON DELETE CASCADE) ENGINE=InnoDB`);
      const live = (await rows.reflect()).find((table) => table.name === "pieces");
      assert.deepEqual(live?.unique, [["b", "a"]]);
      assert.deepEqual(live?.references, [{ columns: ["pa", "pb"], table: "parent", to: ["a", "b"], onDelete: "cascade" }]);
      await server.execute(options.database, "DROP TABLE pieces");
    });

    it("raises a counter above rows that are already there", async () => {
      const counted = declareTable("counted", { key: ["id"], counted: "id", columns: { id: "integer", x: "text?" } });
      await rows.ensureTables([counted]);
      await rows.transaction((write) => write.insert(counted, [{ id: 5000 }]));
      await rows.ensureCounter(counted, 100);
      await rows.transaction((write) => write.insert(counted, [{ x: "next" }]));
      assert.deepEqual(await rows.snapshot((read) => read.span(counted, "id")), { least: 5000, most: 5001 });
    });
  });
});
