/** What the memory twin does beyond the contract, for the simulator: faults, cascades, the order of writers. */
import assert from "node:assert/strict";
import { isOperating } from "../../core/errors.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { CommitFault, RowChange, RowFault } from "../../rows/memory-store.ts";
import type { Match } from "../../rows/rows.ts";
import { declareTable } from "../../schemas/define.ts";

const PARENT = declareTable("parent", { key: ["id"], columns: { id: "text", at: "datetime?" } });
const CHILD = declareTable("child", { key: ["id"], columns: { id: "integer", parent: "text" },
  references: [{ columns: ["parent"], table: "parent", to: ["id"], hard: true, markers: ["<<none>>"] }] });
const COUNTED = declareTable("counted", { key: ["id"], columns: { id: "integer", word: "text" }, counted: "id" });
const only = (id: string): Match => ({ columns: ["id"], values: [[id]] });

describe("memory rows for the simulator", () => {
  it("fails as it is told to, before the work, at a call and at the commit, stored or not", async () => {
    let call: RowFault | undefined;
    let commit: CommitFault | undefined;
    const faults = { beforeCall: (verb: string) => (verb === "insert" ? call : undefined), beforeCommit: () => commit };
    const rows = memoryRows([PARENT], { faults });
    const put = (id: string): Promise<void> => rows.transaction((write) => write.insert(PARENT, [{ id }]));
    const isThere = async (id: string): Promise<boolean> =>
      (await rows.snapshot((read) => read.select(PARENT, only(id)))).length === 1;
    const cases = [["unavailable", "E_ROWS_UNAVAILABLE", false], ["contended", "E_ROWS_CONTENDED", false],
      ["unknown-lost", "E_ROWS_COMMIT_UNKNOWN", false], ["unknown-stored", "E_ROWS_COMMIT_UNKNOWN", true]] as const;
    for (const [fault, code, isStored] of cases) {
      commit = fault;
      await assert.rejects(put(fault), (error) => isOperating(error, code));
      assert.equal(await isThere(fault), isStored);
    }
    commit = undefined;
    call = "contended";
    await assert.rejects(put("call"), (error) => isOperating(error, "E_ROWS_CONTENDED"));
    call = undefined;
    await put("call");
    assert.ok(await isThere("call"));
  });

  it("removes children with their parent where the database cascades, and lets markers refer to nothing", async () => {
    const rows = memoryRows([PARENT, CHILD], { cascades: ["child"] });
    await rows.transaction(async (write) => {
      await write.insert(PARENT, [{ id: "x" }]);
      await write.insert(CHILD, [{ id: 1, parent: "x" }, { id: 2, parent: "<<none>>" }]);
    });
    await rows.transaction((write) => write.remove(PARENT, [{ id: "x" }]));
    assert.deepEqual((await rows.snapshot((read) => read.page(CHILD, { limit: 5 }))).map((row) => row["id"]), [2]);
    assert.equal((await rows.reflect()).find((table) => table.name === "child")?.references[0]?.onDelete, "cascade");
  });

  it("runs writers in the order in which they came, one at a time", async () => {
    const rows = memoryRows([PARENT]);
    const order: string[] = [];
    await Promise.all(["a", "b", "c"].map((id) => rows.transaction(async (write) => {
      order.push(`${id} begins`);
      await write.insert(PARENT, [{ id }]);
      order.push(`${id} ends`);
    })));
    assert.deepEqual(order, ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
  });

  it("keeps whole seconds when it is told that the columns do", async () => {
    const rows = memoryRows([PARENT], { fractionDigits: 0 });
    await rows.transaction((write) => write.insert(PARENT, [{ id: "x", at: "2026-01-01T00:00:00.999999" }]));
    const [row] = await rows.snapshot((read) => read.select(PARENT, only("x")));
    assert.equal(row?.["at"], "2026-01-01T00:00:00.000000");
  });

  it("takes back commits as a failover does, counters too, tells the observer, and cuts off who was at work", async () => {
    const seen: string[] = [];
    const inWords = ({ table, before, after }: RowChange): string =>
      `${table.name} ${String(before?.["id"])}>${String(after?.["id"])}`;
    const rows = memoryRows([PARENT, COUNTED], { keepsCommits: true, observe: (changes, why) =>
      void seen.push(`${why} ${changes.map(inWords).join()}`) });
    await rows.transaction((write) => write.insert(PARENT, [{ id: "kept" }]));
    const backup = rows.commits;
    await rows.transaction((write) => write.insert(COUNTED, [{ word: "lost" }]));
    await rows.transaction((write) => write.remove(PARENT, [{ id: "kept" }]));
    await assert.rejects(rows.transaction(async (write) => {
      await write.insert(PARENT, [{ id: "unfinished" }]);
      rows.rewind(backup);
      await write.select(PARENT, only("kept"));
    }), (error) => isOperating(error, "E_ROWS_UNAVAILABLE"));
    await rows.transaction((write) => write.insert(COUNTED, [{ word: "new" }]));
    const left = await rows.snapshot(async (read) =>
      [await read.page(PARENT, { limit: 5 }), await read.page(COUNTED, { limit: 5 })]);
    assert.deepEqual(left, [[{ id: "kept", at: null }], [{ id: 1, word: "new" }]]);
    assert.deepEqual(seen, ["commit parent undefined>kept", "commit counted undefined>1", "commit parent kept>undefined",
      "rewind parent undefined>kept,counted 1>undefined", "commit counted undefined>1"]);
  });

  it("tells sessions of one database apart", async () => {
    const seen: (string | undefined)[] = [];
    const rows = memoryRows([PARENT], { observe: (_changes, _why, by) => void seen.push(by) });
    const [well, ill] = [rows.session("well"), rows.session("ill", { beforeCommit: () => "contended" })];
    await Promise.all([well.transaction((write) => write.insert(PARENT, [{ id: "a" }])),
      assert.rejects(ill.transaction((write) => write.insert(PARENT, [{ id: "b" }])),
        (error) => isOperating(error, "E_ROWS_CONTENDED"))]);
    assert.deepEqual(seen, ["well"]);
    await well.close();
    assert.equal((await ill.snapshot((read) => read.page(PARENT, { limit: 5 }))).length, 1);
  });

  it("shows a snapshot an older state when it is told to lag", async () => {
    let lag = 0;
    const rows = memoryRows([PARENT], { faults: { staleBy: () => lag } });
    for (const id of ["a", "b", "c"]) await rows.transaction((write) => write.insert(PARENT, [{ id }]));
    await rows.transaction((write) => write.remove(PARENT, [{ id: "a" }]));
    const ids = async (): Promise<unknown[]> =>
      (await rows.snapshot((read) => read.page(PARENT, { limit: 9 }))).map((row) => row["id"]);
    assert.deepEqual(await ids(), ["b", "c"]);
    lag = 2;
    assert.deepEqual(await ids(), ["a", "b"]);
    lag = 0;
    assert.deepEqual(await ids(), ["b", "c"]);
  });

  it("refuses work once closed", async () => {
    const rows = memoryRows([PARENT]);
    await rows.close();
    await assert.rejects(rows.snapshot(() => Promise.resolve()), (error) => isOperating(error, "E_ROWS_UNAVAILABLE"));
  });
});
