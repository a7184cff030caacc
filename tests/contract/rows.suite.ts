/**
 * The contract of the row port (rows/rows.ts), registered for every adapter: rows-postgres.test.ts, rows-mariadb.test.ts and
 * rows-memory.test.ts. Goal: code above the port cannot tell the adapters apart, errors and awkward values included.
 * Method: real servers with unfriendly defaults (time zone, modes, character set), tables made by the test file in the engine's
 * own SQL, every guarantee of the port's comment as a sentence.
 */
import assert from "node:assert/strict";
import { isOperating } from "../../core/errors.ts";
import { declareTable } from "../../schemas/define.ts";
import type { Row, Value } from "../../schemas/row.ts";
import type { Rows } from "../../rows/rows.ts";
import { CHILD, clear, COARSE, CONTRACT_TABLES, EMPTY, everything, LIMIT, NASTY, PARENT, refused } from "./rows-samples.ts";

/** One adapter, with what a test needs besides the port. */
export interface RowsHarness {
  readonly rows: Rows;
  /** Compares text without regard to letter case. */
  readonly ignoresCase: boolean;
  /** Digits of a second that coarse.at keeps. */
  readonly coarseDigits: number;
  /** True when two writers can run at once. */
  readonly hasRowLocks: boolean;
}

function nastySuite(open: () => RowsHarness): void {
  it("gives back exactly the values that were written, whatever they are", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(LIMIT, NASTY));
    const match = everything(LIMIT, ...NASTY.map((row) => [row["id"] ?? null]));
    const read = await rows.snapshot((reader) => reader.select(LIMIT, match));
    const byId = new Map(read.map((row) => [row["id"], row]));
    for (const row of NASTY) assert.deepEqual(byId.get(row["id"] ?? null), row);
    assert.equal(read.length, NASTY.length);
  });

  it("updates to awkward values as exactly as it inserts them", async () => {
    const { rows } = open();
    const columns = Object.keys(LIMIT.columns).filter((column) => column !== "id");
    await rows.transaction(async (write) => {
      await write.insert(LIMIT, NASTY.map((row) => ({ ...EMPTY, id: row["id"] ?? "" })));
      await write.update(LIMIT, NASTY, columns);
    });
    const read = await rows.snapshot((reader) => reader.page(LIMIT, { limit: 100 }));
    const byId = new Map(read.map((row) => [row["id"], row]));
    for (const row of NASTY) assert.deepEqual(byId.get(row["id"] ?? null), row);
  });

  it("finds rows by values of every kind, NULL included", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(LIMIT, NASTY));
    const ids = async (columns: readonly string[], ...values: readonly (readonly Value[])[]): Promise<readonly Value[]> =>
      (await rows.snapshot((reader) => reader.select(LIMIT, { columns, values }, ["id"]))).map((row) => row["id"] ?? null).sort();
    assert.deepEqual(await ids(["big"], ["9007199254740993"]), ["big"]);
    assert.deepEqual(await ids(["big"], ["9007199254740992"], ["9007199254740994"]), []);
    assert.deepEqual(await ids(["amount"], ["12345678901234.123456"]), ["big"]);
    assert.deepEqual(await ids(["at"], ["2026-12-31T23:59:59.999999"]), ["edge"]);
    assert.deepEqual(await ids(["at"], ["2026-12-31T23:59:59.999998"]), []);
    assert.deepEqual(await ids(["day"], ["2026-02-28"]), ["micro"]);
    assert.deepEqual(await ids(["flag"], [true]), ["micro"]);
    assert.deepEqual(await ids(["flag", "order"], [false, 0]), ["largest"]);
    const most = Number.MAX_SAFE_INTEGER;
    assert.deepEqual(await ids(["flag", "order"], [false, null], [null, most], [true, null]), ["big", "micro"]);
    assert.deepEqual(await ids(["raw"], ["AP8QgA=="]), ["whole"]);
    assert.deepEqual(await ids(["group"], ["it's \"quoted\" \\ back"]), ["emoji \u{1f600} é ß 漢"]);
    assert.equal((await ids(["flag"], [null])).length, NASTY.length - 2);
    assert.deepEqual(await ids(["id"]), []);
  });

  it("finds nothing, instead of failing, for values that no row can hold", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(PARENT, [{ a: "x", b: 1, name: "n" }]));
    const found = await rows.snapshot((reader) => reader.select(PARENT, { columns: ["a", "b"], values: [
      ["\u{1f600}", 1], ["a\0b", 1], ["x", Number.MAX_SAFE_INTEGER], ["y".repeat(5000), 1], ["x", 1]] }));
    assert.equal(found.length, 1);
  });

  it("gives columns that a row does not name their local value or NULL, and leaves local values alone on update", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(LIMIT, [{ id: "bare" }]));
    await rows.transaction((write) => write.update(LIMIT, [{ id: "bare", group: "new", failures: 99 }], ["group"]));
    assert.deepEqual(await rows.snapshot((reader) => reader.select(LIMIT, everything(LIMIT, ["bare"]))),
      [{ ...EMPTY, id: "bare", group: "new", failures: 7 }]);
  });

  it("cuts datetimes to what the column keeps, and fit() says so beforehand", async () => {
    const { rows, coarseDigits } = open();
    await rows.reflect();
    const row = { id: 1, at: "2026-12-31T23:59:59.999999" };
    const fitted = rows.fit(COARSE, row);
    assert.equal(fitted["at"], coarseDigits === 6 ? row.at : "2026-12-31T23:59:59.000000");
    await rows.transaction((write) => write.insert(COARSE, [row]));
    assert.deepEqual(await rows.snapshot((reader) => reader.select(COARSE, everything(COARSE, [1]))), [fitted]);
    await rows.transaction((write) => write.update(COARSE, [{ id: 1, at: "2026-06-30T12:00:00.500000" }], ["at"]));
    const [updated] = await rows.snapshot((reader) => reader.select(COARSE, everything(COARSE, [1])));
    assert.deepEqual(updated, rows.fit(COARSE, { id: 1, at: "2026-06-30T12:00:00.500000" }));
  });

  it("compares text as the engine does and answers with the stored spelling", async () => {
    const { rows, ignoresCase } = open();
    await rows.transaction((write) => write.insert(PARENT, [{ a: "Bob", b: 1, name: "n" }]));
    const found = await rows.snapshot((reader) => reader.select(PARENT, { columns: ["a"], values: [["bOB"]] }, ["a"]));
    assert.deepEqual(found, ignoresCase ? [{ a: "Bob" }] : []);
  });
}

function readingSuite(open: () => RowsHarness): void {
  it("pages through a table in key order, without gaps and repetitions", async () => {
    const { rows } = open();
    const wanted = Array.from({ length: 57 }, (_, at) => ({ a: `key ${at % 7}`, b: at, name: `n${at}` }));
    await rows.transaction((write) => write.insert(PARENT, wanted));
    const read: Row[] = [];
    for (let after: Row | undefined; ;) {
      const page = await rows.snapshot((reader) => reader.page(PARENT, { after, limit: 10 }, ["b", "a"]));
      read.push(...page);
      after = page.at(-1);
      if (page.length < 10) break;
    }
    const sorted = [...wanted].sort((left, right) => (left.a === right.a ? left.b - right.b : left.a < right.a ? -1 : 1));
    assert.deepEqual(read, sorted.map(({ a, b }) => ({ b, a })));
  });

  it("sums up a table so that any change of a sent column shows, and nothing else", async () => {
    const { rows } = open();
    const sum = (): Promise<string> => rows.snapshot((reader) => reader.checksum(PARENT));
    const empty = await sum();
    await rows.transaction((write) => write.insert(PARENT, [{ a: "x", b: 1, name: "one" }, { a: "y", b: 2, name: "two" }]));
    const first = await sum();
    assert.notEqual(first, empty);
    assert.equal(await sum(), first);
    const rename = (name: string): Promise<void> =>
      rows.transaction((write) => write.update(PARENT, [{ a: "x", b: 1, name }], ["name"]));
    await rename("onE");
    assert.notEqual(await sum(), first);
    await rename("one");
    assert.equal(await sum(), first);
    await rows.transaction((write) => write.remove(PARENT, [{ a: "y", b: 2 }]));
    assert.notEqual(await sum(), first);
  });

  it("reads rows above a number, and the span of a column", async () => {
    const { rows } = open();
    assert.equal(await rows.snapshot((reader) => reader.span(COARSE, "id")), undefined);
    await rows.transaction((write) => write.insert(COARSE, [5, 3, 9, -2].map((id) => ({ id, at: null }))));
    assert.deepEqual(await rows.snapshot((reader) => reader.span(COARSE, "id")), { least: -2, most: 9 });
    assert.deepEqual((await rows.snapshot((reader) => reader.above(COARSE, "id", 3, 5))).map((row) => row["id"]), [5, 9]);
    assert.deepEqual((await rows.snapshot((reader) => reader.above(COARSE, "id", -9, 2))).map((row) => row["id"]), [-2, 3]);
  });

  it("counts keys that a row leaves open, and from a given number on", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(CHILD, [{ label: "first" }, { label: "second", id: null }]));
    await rows.ensureCounter(CHILD, 2 ** 30);
    await rows.ensureCounter(CHILD, 1000);
    await rows.transaction((write) => write.insert(CHILD, [{ label: "third" }, { label: "fourth" }]));
    const ids = (await rows.snapshot((reader) => reader.page(CHILD, { limit: 10 }))).map((row) => Number(row["id"]));
    assert.ok((ids[1] ?? 0) < 2 ** 30);
    assert.deepEqual(ids.slice(2), [2 ** 30, 2 ** 30 + 1]);
  });

  it("inserts, updates and removes twenty thousand rows in single calls", async () => {
    const { rows } = open();
    const many = Array.from({ length: 20_000 }, (_, at) => ({ a: `a${at}`, b: at, name: `name ${at}` }));
    await rows.transaction((write) => write.insert(PARENT, many));
    await rows.transaction((write) => write.update(PARENT, many.map((row) => ({ ...row, name: `new ${row.b}` })), ["name"]));
    const values = many.map((row) => [row.a, row.b]);
    const read = await rows.snapshot((reader) => reader.select(PARENT, { columns: ["a", "b"], values }));
    assert.equal(read.length, 20_000);
    assert.ok(read.every((row) => row["name"] === `new ${String(row["b"])}`));
    await rows.transaction((write) => write.remove(PARENT, many.slice(1)));
    assert.deepEqual(await rows.snapshot((reader) => reader.page(PARENT, { limit: 9 })), [{ a: "a0", b: 0, name: "new 0" }]);
  }).timeout(120_000);

  it("reports the live tables in words that both engines share", async () => {
    const { rows } = open();
    const live = new Map((await rows.reflect()).map((table) => [table.name, table]));
    for (const table of CONTRACT_TABLES) {
      const found = live.get(table.name);
      assert.ok(found, table.name);
      assert.deepEqual(found.key, table.key);
      assert.deepEqual(found.unique, table.unique);
      assert.deepEqual(found.columns.map((column) => column.name).sort(), Object.keys(table.columns).sort());
      for (const column of found.columns) {
        const declared = table.columns[column.name] ?? "text";
        assert.equal(column.nullable, declared.endsWith("?"), column.name);
        assert.ok(column.carries.includes(declared.replace("?", "")), `${table.name}.${column.name} ${column.type}`);
      }
    }
    assert.deepEqual(live.get("child")?.references,
      [{ columns: ["pa", "pb"], table: "parent", to: ["a", "b"], onDelete: "restrict" }]);
    assert.equal(live.get("limit")?.columns.find((column) => column.name === "at")?.fractionDigits, 6);
  });

  it("creates its own tables once, also when two ask at the same time", async () => {
    const { rows } = open();
    const own = declareTable("holdfast_own", { key: ["name"], counted: "number", unique: [["number"]],
      columns: { name: "text", number: "integer", payload: "text?", at: "datetime", kept: "boolean", large: "bigint?" } });
    await Promise.all([rows.ensureTables([own]), rows.ensureTables([own])]);
    const row = { name: "Case", number: 2 ** 40, payload: "\u{1f600}", at: "2026-01-01T00:00:00.000001", kept: true, large: "1" };
    const alike = [row, { ...row, name: "case", number: 5 }, { ...row, name: "case ", number: 6 }];
    await rows.transaction((write) => write.insert(own, alike));
    assert.deepEqual(await rows.snapshot((reader) => reader.select(own, everything(own, ["Case"]))), [row]);
  });
}

function transactionSuite(open: () => RowsHarness): void {
  const parents = (...names: readonly string[]): Row[] => names.map((name, at) => ({ a: name, b: at, name }));
  const names = async (rows: Rows): Promise<readonly unknown[]> =>
    (await rows.snapshot((reader) => reader.page(PARENT, { limit: 100 }))).map((row) => row["name"]).sort();

  it("keeps nothing of a transaction whose work fails, and throws the error of the work", async () => {
    const { rows } = open();
    const mistake = new Error("a mistake");
    await assert.rejects(rows.transaction(async (write) => {
      await write.insert(PARENT, parents("x"));
      throw mistake;
    }), mistake);
    assert.deepEqual(await names(rows), []);
  });

  it("shows a snapshot one state, however long it lasts", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(PARENT, parents("x", "y")));
    await rows.snapshot(async (reader) => {
      const before = await reader.page(PARENT, { limit: 10 });
      await rows.transaction(async (write) => {
        await write.remove(PARENT, parents("x"));
        await write.update(PARENT, [{ a: "y", b: 1, name: "changed" }], ["name"]);
        await write.insert(PARENT, [{ a: "z", b: 9, name: "z" }]);
      });
      assert.deepEqual(await reader.page(PARENT, { limit: 10 }), before);
      const match = { columns: ["name"], values: [["changed"], ["x"]] };
      assert.deepEqual(await reader.select(PARENT, match, ["name"]), [{ name: "x" }]);
    });
    assert.deepEqual(await names(rows), ["changed", "z"]);
  });

  it("names table and key of a broken unique key, on insert and on update, and never the values", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(PARENT, parents("secret-x", "y")));
    const inserted = rows.transaction((write) => write.insert(PARENT, [{ a: "new", b: 5, name: "secret-x" }]));
    const onInsert = await refused("E_ROWS_UNIQUE", inserted);
    assert.equal(onInsert["table"], "parent");
    assert.match(String(onInsert["constraint"]), /name/);
    assert.doesNotMatch(JSON.stringify(onInsert), /secret/);
    const updated = rows.transaction((write) => write.update(PARENT, [{ a: "y", b: 1, name: "secret-x" }], ["name"]));
    await refused("E_ROWS_UNIQUE", updated);
    await refused("E_ROWS_UNIQUE", rows.transaction((write) => write.insert(PARENT, parents("secret-x"))));
  });

  it("names table and key of a broken reference, from either side", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(PARENT, parents("x")));
    const inserted = rows.transaction((write) => write.insert(CHILD, [{ id: 1, pa: "x", pb: 7 }]));
    const orphan = await refused("E_ROWS_REFERENCE", inserted);
    assert.equal(orphan["table"], "child");
    assert.match(String(orphan["constraint"]), /pa/);
    await rows.transaction((write) => write.insert(CHILD, [{ id: 1, pa: "x", pb: 0 }, { id: 2, pa: "nobody", pb: null }]));
    await refused("E_ROWS_REFERENCE", rows.transaction((write) => write.remove(PARENT, parents("x"))));
    await rows.transaction(async (write) => {
      await write.remove(CHILD, [{ id: 1 }]);
      await write.remove(PARENT, parents("x"));
    });
  });

  it("refuses NULL where the column forbids it", async () => {
    const { rows } = open();
    await refused("E_ROWS_REFUSED", rows.transaction((write) => write.insert(PARENT, [{ a: "x", b: 1, name: null }])));
  });

  it("goes on after a failed savepoint, which leaves nothing behind", async () => {
    const { rows } = open();
    await rows.transaction(async (write) => {
      await write.insert(PARENT, parents("x"));
      await refused("E_ROWS_UNIQUE", write.savepoint(async () => {
        await write.insert(PARENT, [{ a: "y", b: 8, name: "y" }]);
        await write.savepoint(() => write.insert(PARENT, [{ a: "kept?", b: 8, name: "no" }]));
        await write.insert(PARENT, [{ a: "z", b: 9, name: "x" }]);
      }));
      assert.equal(await write.savepoint(async () => {
        await write.insert(PARENT, [{ a: "w", b: 7, name: "w" }]);
        return "value";
      }), "value");
    });
    assert.deepEqual(await names(rows), ["w", "x"]);
  });

  it("stores nothing when work goes on after an error outside a savepoint", async () => {
    const { rows } = open();
    await refused("E_ROWS_UNIQUE", rows.transaction(async (write) => {
      await write.insert(PARENT, parents("x"));
      await write.insert(PARENT, [{ a: "y", b: 9, name: "x" }]).catch(() => undefined);
      await write.insert(PARENT, [{ a: "z", b: 10, name: "z" }]).catch(() => undefined);
    }));
    assert.deepEqual(await names(rows), []);
  });

  it("updates and removes only what is there, without an error for the rest", async () => {
    const { rows } = open();
    await rows.transaction(async (write) => {
      await write.insert(PARENT, parents("x"));
      await write.update(PARENT, [{ a: "x", b: 0, name: "new" }, { a: "gone", b: 1, name: "never" }], ["name"]);
      await write.remove(PARENT, [{ a: "gone", b: 1 }]);
      await write.insert(PARENT, []);
      await write.update(PARENT, [], ["name"]);
      await write.remove(PARENT, []);
    });
    assert.deepEqual(await names(rows), ["new"]);
  });

  it("makes a second transaction wait for locked rows until the first ends", async () => {
    const { rows } = open();
    await rows.transaction((write) => write.insert(PARENT, parents("x")));
    const order: string[] = [];
    let second: Promise<void> | undefined;
    await rows.transaction(async (write) => {
      assert.equal((await write.lock(PARENT, everything(PARENT, ["x", 0]))).length, 1);
      second = rows.transaction(async (other) => {
        const [seen] = await other.lock(PARENT, everything(PARENT, ["x", 0]));
        order.push(`second saw ${String(seen?.["name"])}`);
      });
      // Enough turns of the loop for the second transaction to reach its lock; it must not get past it.
      for (let turn = 0; turn < 20; turn++) await rows.snapshot((reader) => reader.select(PARENT, everything(PARENT, ["x", 0])));
      await write.update(PARENT, [{ a: "x", b: 0, name: "locked" }], ["name"]);
      order.push("first ends");
    });
    await second;
    assert.deepEqual(order, ["first ends", "second saw locked"]);
  });

  it("answers a deadlock with contention for one and success for the other", async function () {
    const { rows, hasRowLocks } = open();
    if (!hasRowLocks) return this.skip();
    await rows.transaction((write) => write.insert(PARENT, parents("x", "y")));
    let reached = 0;
    const meet = latch();
    const cross = (first: readonly Value[], then: readonly Value[]): Promise<void> => rows.transaction(async (write) => {
      await write.lock(PARENT, everything(PARENT, first));
      if (++reached === 2) meet.open();
      await meet.opened;
      // Even a savepoint does not make a contended transaction whole again.
      await write.savepoint(() => write.lock(PARENT, everything(PARENT, then))).catch(() => undefined);
      await write.insert(COARSE, [{ id: Number(first[1]), at: null }]);
    });
    const outcomes = await Promise.allSettled([cross(["x", 0], ["y", 1]), cross(["y", 1], ["x", 0])]);
    const failures = outcomes.filter((outcome) => outcome.status === "rejected");
    assert.equal(failures.length, 1);
    assert.ok(isOperating(failures[0]?.reason, "E_ROWS_CONTENDED"), String(failures[0]?.reason));
    assert.equal((await rows.snapshot((reader) => reader.page(COARSE, { limit: 5 }))).length, 1);
  });

  it("answers pings while open and refuses work when closed", async () => {
    assert.equal(await open().rows.ping(), true);
  });
}

function latch(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

/** Registers the contract for one adapter; `open` gives the harness that the file's `before` made. */
export function rowsSuite(open: () => RowsHarness): void {
  afterEach(() => clear(open().rows));
  describe("values", () => nastySuite(open));
  describe("reading and counting", () => readingSuite(open));
  describe("transactions", () => transactionSuite(open));
}
