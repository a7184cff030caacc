/** Verification lists every way in which a live schema differs from its declaration, and nothing else. */
import assert from "node:assert/strict";
import type { LiveColumn, LiveTable } from "../../rows/rows.ts";
import { revisionMismatches, schemaMismatches } from "../../rows/verify.ts";
import { defineService } from "../../schemas/define.ts";

const SERVICE = defineService({
  name: "sample", catalogType: "sample", migrations: { table: "version", column: "number", verified: ["1", "2"] },
  tables: {
    parent: { key: ["a", "b"], columns: { a: "text", b: "integer" }, unique: [["b"]] },
    child: { key: ["id"], columns: { id: "integer", pa: "text?", pb: "integer?" },
      references: [{ columns: ["pa", "pb"], table: "parent", to: ["a", "b"], hard: true }] },
  },
  kinds: { parent: { root: "parent" }, child: { root: "child" } }, local: { lock: "stays here" }, captures: [], leaves: [],
  errorShape: "keystone", paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false },
});

const column = (name: string, carries: string, nullable = false): LiveColumn =>
  ({ name, type: carries, carries: [carries], nullable });
const PARENT: LiveTable = { name: "parent", columns: [column("a", "text"), column("b", "integer")], key: ["a", "b"],
  unique: [["b"], ["b", "a"]], references: [] };
const CHILD: LiveTable = { name: "child",
  columns: [column("id", "integer"), column("pa", "text", true), column("pb", "integer", true)],
  key: ["id"], unique: [],
  references: [{ columns: ["pb", "pa"], table: "parent", to: ["b", "a"], onDelete: "cascade" }] };
const other = (name: string): LiveTable => ({ name, columns: [], key: [], unique: [], references: [] });

const texts = (...live: readonly LiveTable[]): readonly string[] =>
  schemaMismatches(SERVICE, live).map(({ code, table, expected, found }) => `${code} ${table}: ${expected} / ${found}`);

describe("schemaMismatches", () => {
  it("finds nothing where columns of keys and references only stand in another order, or a unique key repeats the key", () => {
    const known = ["lock", "holdfast_applied", "alembic_version", "version"].map(other);
    assert.deepEqual(texts(PARENT, CHILD, ...known), []);
  });

  it("names tables that are missing and tables that nobody declared", () => {
    assert.deepEqual(texts(PARENT, other("surprise")), ["E_SCHEMA_MISMATCH child: table child / no such table",
      "E_SCHEMA_MISMATCH surprise: no table surprise / table surprise, neither declared nor local"]);
  });

  it("names columns that are missing, new, of another type or otherwise nullable", () => {
    const live = { ...CHILD, columns: [column("id", "text"), column("pa", "text"), column("extra", "date")] };
    assert.deepEqual(texts(PARENT, live), ["E_SCHEMA_MISMATCH child: id carries integer / id is text",
      "E_SCHEMA_MISMATCH child: pa may be NULL / pa may not be NULL", "E_SCHEMA_MISMATCH child: column pb / no such column",
      "E_SCHEMA_MISMATCH child: no column extra / column extra date"]);
  });

  it("names keys, unique keys and foreign keys that differ", () => {
    const parent = { ...PARENT, key: ["a"], unique: [["a"]] };
    const child = { ...CHILD, references: [{ columns: ["pa", "pb"], table: "parent", to: ["b", "a"], onDelete: "restrict" }] };
    assert.deepEqual(schemaMismatches(SERVICE, [parent, child]).map(({ expected }) => expected), ["primary key (a, b)",
      "unique key (b)", "no unique key (a)", "foreign key pa → parent.a, pb → parent.b",
      "no foreign key pa → parent.b, pb → parent.a"]);
  });
});

describe("revisionMismatches", () => {
  it("accepts verified revisions, and names unknown and missing ones", () => {
    assert.deepEqual(revisionMismatches(SERVICE, ["2", "1"]), []);
    const unknown = revisionMismatches(SERVICE, ["2", "3"]).map(({ code, found }) => [code, found]);
    assert.deepEqual(unknown, [["E_SCHEMA_UNKNOWN", "number is 3"]]);
    assert.deepEqual(revisionMismatches(SERVICE, []).map(({ code }) => code), ["E_SCHEMA_UNKNOWN"]);
  });
});
