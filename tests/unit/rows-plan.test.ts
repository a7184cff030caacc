/** Differences name the fewest changes, and plans put them into an order that a database accepts. Pure, by small examples. */
import assert from "node:assert/strict";
import { differenceOf, isEmpty, type Step } from "../../rows/difference.ts";
import { planOf, tablesInOrder, UPDATE_SHAPES_MAX } from "../../rows/plan.ts";
import { defineService, type Service, type TableDeclaration } from "../../schemas/define.ts";
import { canonicalImage, type Image, type Row } from "../../schemas/row.ts";

const TABLES: Readonly<Record<string, TableDeclaration>> = {
  team: { key: ["id"], columns: { id: "text", parent: "text?", name: "text", a: "text?", b: "text?", c: "text?", d: "text?",
    seen: "integer" }, local: { seen: 0 }, references: [{ columns: ["parent"], table: "team", to: ["id"], hard: true }] },
  member: { key: ["id"], columns: { id: "integer", team: "text", note: "text?" },
    references: [{ columns: ["team"], table: "team", to: ["id"], hard: true }] },
  badge: { key: ["id"], columns: { id: "integer", member: "integer" } },
  post: { key: ["id"], columns: { id: "text", team: "text?" },
    references: [{ columns: ["team"], table: "team", to: ["id"], hard: true }] },
};

const SERVICE: Service = defineService({
  name: "sample", catalogType: "sample", migrations: { table: "m", column: "v", verified: ["1"] }, tables: TABLES,
  kinds: {
    post: { root: "post" },
    team: { root: "team",
      owns: [{ table: "badge", of: "member", by: { member: "id" } }, { table: "member", by: { team: "id" } }] },
  },
  local: {}, captures: [], leaves: [], errorShape: "keystone",
  paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false },
});

const team = (id: string, changes: Row = {}, member: readonly Row[] = [], badge: readonly Row[] = []): Image =>
  canonicalImage(SERVICE, { kind: "team", values: [id] }, { team: [{ id, name: id, ...changes }], member, badge });
const post = (id: string, of: string | null): Image =>
  canonicalImage(SERVICE, { kind: "post", values: [id] }, { post: [{ id, team: of }] });
const gone = (image: Image): Image => ({ key: image.key, rows: undefined });

/** "verb table key,key", one line for each step. */
const linesOf = (steps: readonly Step[]): readonly string[] => steps.map((step) =>
  `${step.verb} ${step.table.name} ${step.rows.map((row) => String(row["id"])).join(",")}`);
const plan = (...changes: readonly (readonly [Image, Image | undefined])[]): readonly Step[] =>
  planOf(SERVICE, changes.map(([wanted, current]) => differenceOf(SERVICE, wanted, current?.rows)));

describe("differenceOf", () => {
  it("is empty for equal images, whatever local columns hold", () => {
    const current = { team: [{ id: "x", name: "x", parent: null, a: null, b: null, c: null, d: null, seen: 17 }] };
    assert.ok(isEmpty(differenceOf(SERVICE, team("x"), current)));
    assert.ok(isEmpty(differenceOf(SERVICE, gone(team("x")), undefined)));
  });

  it("names the columns that differ, and tells NULL from the empty text", () => {
    const [table] = differenceOf(SERVICE, team("x", { a: "", c: "new" }), team("x", { b: null }).rows).tables;
    assert.deepEqual(table?.update.map((update) => update.columns), [["a", "c"]]);
    assert.deepEqual([table?.insert, table?.remove], [[], []]);
  });

  it("never names local columns, neither in inserts nor in updates", () => {
    const inserted = differenceOf(SERVICE, team("x"), undefined).tables[0]?.insert[0] ?? {};
    assert.equal("seen" in inserted, false);
  });
});

describe("planOf", () => {
  it("orders tables parents first, by reference and by ownership", () => {
    assert.deepEqual(tablesInOrder(SERVICE).map((table) => table.name), ["team", "member", "badge", "post"]);
  });

  it("removes children first and inserts parents first, over all aggregates of the batch", () => {
    const full = (id: string, number: number): Image =>
      team(id, {}, [{ id: number, team: id }], [{ id: number, member: number }]);
    assert.deepEqual(linesOf(plan([full("x", 1), undefined], [gone(full("y", 2)), full("y", 2)], [full("z", 3), undefined])), [
      "remove badge 2", "remove member 2", "remove team y", "insert team x,z", "insert member 1,3", "insert badge 1,3"]);
  });

  it("gives rows that refer to their own table as many steps as the chain is long", () => {
    const chain = [team("c", { parent: "b" }), team("a"), team("b", { parent: "a" }), team("self", { parent: "self" })];
    assert.deepEqual(linesOf(plan(...chain.map((image) => [image, undefined] as const))),
      ["insert team a,self", "insert team b", "insert team c"]);
    assert.deepEqual(linesOf(plan(...chain.map((image) => [gone(image), image] as const))),
      ["remove team c", "remove team b", "remove team a,self"]);
  });

  it("updates a row to point to a new one only after the new one is there", () => {
    const steps = plan([post("p", "new"), post("p", null)], [post("q", null), post("q", "old")], [team("new"), undefined]);
    assert.deepEqual(linesOf(steps), ["update post q", "insert team new", "update post p"]);
  });

  it("removes a row only after updates have let go of it, and its parents after it", () => {
    const top = team("top");
    const old = team("old", { parent: "top" });
    assert.deepEqual(linesOf(plan([post("p", null), post("p", "old")], [gone(old), old], [gone(top), top])),
      ["update post p", "remove team old", "remove team top"]);
  });

  it("updates a row that goes from one aggregate to another, instead of removing it", () => {
    const before = team("x", {}, [{ id: 1, team: "x" }]);
    const steps = plan([team("x"), before], [team("y", {}, [{ id: 1, team: "y" }]), team("y")]);
    assert.deepEqual(linesOf(steps), ["update member 1"]);
  });

  it("merges updates of one table into few statements, each with the columns it needs", () => {
    const shapes = (steps: readonly Step[]): readonly unknown[] =>
      steps.map((step) => (step.verb === "update" ? [step.columns, step.rows.length] : step.verb));
    const changed = (id: string, column: string): readonly [Image, Image] => [team(id, { [column]: "1" }), team(id)];
    assert.deepEqual(shapes(plan(changed("x", "a"), changed("y", "a"), changed("z", "b"))), [[["a"], 2], [["b"], 1]]);
    const many = ["a", "b", "c", "d", "name"].map((column) => changed(column, column));
    assert.ok(many.length > UPDATE_SHAPES_MAX);
    assert.deepEqual(shapes(plan(...many)), [[["name", "a", "b", "c", "d"], 5]]);
  });
});
