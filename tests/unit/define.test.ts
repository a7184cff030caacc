/** The vocabulary of service files: each kind of mistake is refused by name, and what is derived is right. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  answer, declareTable, defineService, every, form, logOf, one, path, request, scan, sha256, text,
  type Capture, type KindDeclaration, type Leave, type Service, type ServiceDeclaration, type TableDeclaration,
} from "../../schemas/define.ts";

const PARENT: TableDeclaration = { key: ["id"], columns: { id: "text", name: "text?" } };
const CHILD: TableDeclaration = { key: ["id"], counted: "id", columns: { id: "integer", parent_id: "text", seen: "datetime?" },
  references: [{ columns: ["parent_id"], table: "parent", to: ["id"], hard: true }], local: { seen: null } };

interface Parts {
  readonly tables?: Readonly<Record<string, TableDeclaration>>;
  readonly kinds?: Readonly<Record<string, KindDeclaration>>;
  readonly local?: Readonly<Record<string, string>>;
  readonly captures?: readonly Capture[];
  readonly leaves?: readonly Leave[];
}

const declaration = (parts: Parts = {}): ServiceDeclaration => ({
  name: "toy", catalogType: "toy", migrations: { table: "version", column: "id", verified: ["1"] },
  tables: { parent: PARENT, child: CHILD }, kinds: { child: { root: "child" }, parent: { root: "parent" } },
  local: {}, captures: [], leaves: [], errorShape: "keystone",
  paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false }, ...parts });

const define = (parts: Parts = {}): Service => defineService(declaration(parts));

/** Expects the declaration to be refused with a bug that says `law`. */
function refused(parts: Parts, law: RegExp): void {
  assert.throws(() => define(parts), { name: "AssertionError", message: law });
}

const child = (changed: Partial<TableDeclaration>): Parts => ({ tables: { parent: PARENT, child: { ...CHILD, ...changed } } });
const captured = (on: Capture["on"], ...touches: Capture["touches"]): Parts => ({ captures: [{ on, touches }] });

describe("A service file", () => {
  it("gets its derived parts", () => {
    const toy = define();
    assert.deepEqual([...toy.kinds.keys()], ["parent", "child"]);
    assert.deepEqual([...toy.kinds.values()].map((kind) => kind.rank), [0, 1]);
    assert.equal(toy.kindOfTable.get("child")?.name, "child");
    assert.deepEqual(toy.tables.get("child")?.sent, ["id", "parent_id"]);
    assert.deepEqual(toy.kinds.get("child")?.key, ["id"]);
  });

  it("owns tables root first, each after the table it belongs to", () => {
    const toy = define({
      tables: { parent: PARENT, child: CHILD, leaf: { key: ["child_id"], columns: { child_id: "integer" } } },
      kinds: { parent: { root: "parent", owns: [
        { table: "leaf", of: "child", by: { child_id: "id" } }, { table: "child", by: { parent_id: "id" } }] } } });
    assert.deepEqual(toy.kinds.get("parent")?.tables, ["parent", "child", "leaf"]);
  });

  it("may refer to its own kind", () => {
    const references = [{ columns: ["parent_id"], table: "child", to: ["id"], hard: false }];
    const toy = define({ tables: { child: { ...CHILD, references } }, kinds: { child: { root: "child" } } });
    assert.equal(toy.kinds.get("child")?.rank, 0);
  });

  it("ranks parents first, whatever the order of declaration", () => {
    const size = fc.integer({ min: 1, max: 9 });
    fc.assert(fc.property(size.chain((count) => fc.record({
      order: fc.shuffledSubarray(Array.from({ length: count }, (_, index) => index), { minLength: count, maxLength: count }),
      edges: fc.array(fc.tuple(fc.nat(count - 1), fc.nat(count - 1)), { maxLength: 20 }),
    })), ({ order, edges }) => {
      const tables = Object.fromEntries(order.map((index): [string, TableDeclaration] => [`t${index}`, {
        key: ["id"], columns: { id: "text" },
        references: edges.filter(([from, to]) => from === index && to <= from)
          .map(([, to]) => ({ columns: ["id"], table: `t${to}`, to: ["id"], hard: true })) }]));
      const kinds = Object.fromEntries(order.map((index) => [`t${index}`, { root: `t${index}` }]));
      const defined = define({ tables, kinds });
      for (const table of defined.tables.values()) {
        for (const reference of table.references) {
          const [own, parent] = [defined.kindOfTable.get(table.name), defined.kindOfTable.get(reference.table)];
          assert.ok(own !== undefined && parent !== undefined && (own === parent || parent.rank < own.rank));
        }
      }
    }));
  });
});

describe("A table is refused", () => {
  const cases: readonly (readonly [string, Partial<TableDeclaration>, RegExp])[] = [
    ["with an undeclared key", { key: ["nope"] }, /child\.nope is not a declared column/],
    ["without a key", { key: [] }, /child has no key/],
    ["with an undeclared unique key", { unique: [["id", "nope"]] }, /child\.nope/],
    ["with an undeclared local column", { local: { nope: null } }, /child\.nope/],
    ["with a local key", { local: { id: 1 } }, /child\.id is part of the key/],
    ["when a local column needs a value and has none", { local: { parent_id: null } }, /child\.parent_id may not be NULL/],
    ["with an undeclared secret", { secret: ["nope"] }, /child\.nope/],
    ["with an undeclared counter", { counted: "nope" }, /child\.nope/],
    ["when it counts text", { counted: "parent_id" }, /child\.parent_id is counted/],
    ["when it refers with an undeclared column",
      { references: [{ columns: ["nope"], table: "parent", to: ["id"], hard: true }] }, /child\.nope/],
    ["when it refers to an undeclared column",
      { references: [{ columns: ["parent_id"], table: "parent", to: ["nope"], hard: true }] }, /parent has no column nope/],
    ["when it refers to an undeclared table",
      { references: [{ columns: ["parent_id"], table: "nope", to: ["id"], hard: true }] }, /undeclared table nope/],
    ["when it refers with one column to two",
      { references: [{ columns: ["parent_id"], table: "parent", to: ["id", "name"], hard: true }] }, /1 columns for 2/],
    ["when a reference depends on an undeclared column",
      { references: [{ columns: ["parent_id"], table: "parent", to: ["id"], hard: false, when: { nope: [1] } }] }, /child\.nope/],
  ];
  for (const [name, changed, law] of cases) it(name, () => refused(child(changed), law));

  it("on its own as well", () => assert.throws(() => declareTable("t", { key: ["id"], columns: {} }), /t\.id/));
});

describe("Kinds are refused", () => {
  const owning = (by: Readonly<Record<string, string>>, of?: string): Parts => ({ kinds: { parent: { root: "parent",
    owns: [of === undefined ? { table: "child", by } : { table: "child", of, by }] } } });
  const cases: readonly (readonly [string, Parts, RegExp])[] = [
    ["when a table belongs to none", { kinds: { parent: { root: "parent" } } }, /child belongs to no kind/],
    ["when a table belongs to two", { kinds: { parent: { root: "parent" }, child: { root: "child" }, again: { root: "child" } } },
      /child belongs to child and again/],
    ["when the root is undeclared", { kinds: { parent: { root: "nope" } } }, /nope is not declared/],
    ["when ownership hangs in the air", owning({ parent_id: "id" }, "elsewhere"), /child belong to no owned table/],
    ["when ownership names an undeclared column of the child", owning({ nope: "id" }), /child has no column nope/],
    ["when ownership names an undeclared column of the parent", owning({ parent_id: "nope" }), /parent has no column nope/],
    ["when the key is undeclared", { kinds: { parent: { root: "parent", key: ["nope"] }, child: { root: "child" } } },
      /no column nope/],
    ["when an exception names another column", { kinds: { child: { root: "child" },
      parent: { root: "parent", except: [{ key: { name: "x" }, because: "y" }] } } }, /not named by name/],
    ["when a log rises by an undeclared column",
      { kinds: { parent: { root: "parent" }, child: { root: "child", log: { rising: "nope" } } } }, /no column nope/],
    ["when a table is synchronised and local", { local: { child: "why" } }, /both synchronised and local/],
    ["when they refer in a circle", { tables: { child: CHILD,
      parent: { ...PARENT, references: [{ columns: ["name"], table: "child", to: ["id"], hard: false }] } } }, /in a circle/],
  ];
  for (const [name, parts, law] of cases) it(name, () => refused(parts, law));
});

describe("Calls are refused", () => {
  const on = "DELETE /v1/parents/{id}";
  const cases: readonly (readonly [string, Parts, RegExp])[] = [
    ["when the route is malformed", captured("POST /v1//x"), /is not a route/],
    ["when the route ends in a slash", captured("POST /v1/x/"), /is not a route/],
    ["when captured twice", { captures: [{ on, touches: [] }, { on, touches: [] }] }, /said twice/],
    ["when captured and left", { captures: [{ on, touches: [] }], leaves: [{ on, because: "x" }] }, /said twice/],
    ["when a touch names no kind", captured(on, scan("nope")), /no kind nope/],
    ["when an aggregate is not named whole", captured(on, one("parent", { name: path("id") })), /parent is named by id/],
    ["when a key column is undeclared", captured(on, one("parent", { id: path("id"), nope: text("x") })), /no column nope/],
    ["when a source names no part of the path", captured(on, one("parent", { id: path("nope") })), /no part of the path/],
    ["when a predicate names an undeclared column", captured(on, every("parent", { nope: path("id") })), /no column nope/],
    ["when a predicate asks another kind's table", captured(on, every("parent", { id: path("id") }, "child")), /does not belong/],
    ["when no log is a log", captured(on, logOf("parent")), /is not a log/],
    ["when a condition asks an undeclared table", captured(on, scan("parent", { table: "nope", where: {} })), /no table nope/],
    ["when a condition names an undeclared column",
      captured(on, scan("parent", { table: "child", where: { nope: text("x") } })), /no column nope/],
  ];
  for (const [name, parts, law] of cases) it(name, () => refused(parts, law));

  it("but not when every name is right", () => {
    const toy = define(captured(on, one("parent", { id: path("id") }), every("child", { parent_id: path("id") }),
      scan("child", { table: "parent", where: { id: path("id") } })));
    assert.equal(toy.captures.length, 1);
  });
});

describe("Sources", () => {
  it("are hashed only when they come from the path or a body", () => {
    for (const source of [path("id"), answer("$.id"), request("$.id")]) {
      assert.deepEqual(sha256(source), { ...source, sha256: true });
    }
    for (const source of [text("x"), form("x")]) assert.throws(() => sha256(source), /only path and body values/);
  });
});
