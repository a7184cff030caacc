/**
 * What the row contract is tested on: four small tables with every awkward name and type, the values that software tends to
 * get wrong, and the few things all suites of the port say.
 */
import assert from "node:assert/strict";
import { isOperating, type ErrorCode } from "../../core/errors.ts";
import { declareTable, type Table } from "../../schemas/define.ts";
import type { Row, Value } from "../../schemas/row.ts";
import type { Match, Rows } from "../../rows/rows.ts";

/** Every awkward thing about names and types, in one table. */
export const LIMIT: Table = declareTable("limit", {
  key: ["id"],
  columns: {
    id: "text", group: "text?", order: "integer?", big: "bigint?", amount: "decimal?", flag: "boolean?", at: "datetime?",
    day: "date?", raw: "bytes?", document: "text?", long: "text?", sort: "text?", failures: "integer",
  },
  local: { failures: 7 },
});
export const PARENT: Table = declareTable("parent", {
  key: ["a", "b"], columns: { a: "text", b: "integer", name: "text" }, unique: [["name"]],
});
export const CHILD: Table = declareTable("child", {
  key: ["id"], counted: "id", columns: { id: "integer", pa: "text?", pb: "integer?", label: "text?" }, unique: [["pa", "label"]],
  references: [{ columns: ["pa", "pb"], table: "parent", to: ["a", "b"], hard: true }],
});
export const COARSE: Table = declareTable("coarse", { key: ["id"], columns: { id: "integer", at: "datetime?" } });
export const CONTRACT_TABLES = [LIMIT, PARENT, CHILD, COARSE];

/** The match for rows with these primary keys. */
export function everything(table: Table, ...values: readonly (readonly Value[])[]): Match {
  return { columns: table.key, values };
}

/** Empties the tables, children first. */
export async function clear(rows: Rows): Promise<void> {
  await rows.transaction(async (write) => {
    for (const table of [CHILD, PARENT, LIMIT, COARSE]) {
      for (;;) {
        const page = await write.page(table, { limit: 10_000 });
        if (page.length === 0) break;
        await write.remove(table, page);
      }
    }
  });
}

/** Asserts that the work ends with this operating error; gives its facts. */
export async function refused(code: ErrorCode, work: Promise<unknown>): Promise<Readonly<Record<string, unknown>>> {
  let facts: Readonly<Record<string, unknown>> = {};
  await assert.rejects(work, (error: unknown) => {
    assert.ok(isOperating(error, code), `expected ${code}, got ${String(error)}`);
    facts = error.facts;
    return true;
  });
  return facts;
}

/** A row of LIMIT in which everything is NULL that may be. */
export const EMPTY: Row = { id: "", group: null, order: null, big: null, amount: null, flag: null, at: null, day: null, raw: null,
  document: null, long: null, sort: null, failures: 7 };

/** Rows that software tends to get wrong; all of them valid on both engines. */
export const NASTY: readonly Row[] = [
  { ...EMPTY, id: "empty", group: "", long: "" },
  { ...EMPTY, id: "emoji \u{1f600} é ß 漢", group: "it's \"quoted\" \\ back",
    long: "?, $1, :name, %s, {}, -- ; /* \u0001\u001f\u007f \t\r\n" },
  { ...EMPTY, id: "padded  ", group: "trailing  ", long: "  leading" },
  { ...EMPTY, id: "big", order: Number.MAX_SAFE_INTEGER, big: "9007199254740993", amount: "12345678901234.123456" },
  { ...EMPTY, id: "small", order: -Number.MAX_SAFE_INTEGER, big: "-9223372036854775808", amount: "-0.000001" },
  { ...EMPTY, id: "largest", order: 0, big: "9223372036854775807", amount: "0.000000", flag: false },
  { ...EMPTY, id: "micro", at: "2026-01-02T03:04:05.000001", day: "2026-02-28", flag: true },
  { ...EMPTY, id: "edge", at: "2026-12-31T23:59:59.999999", day: "1999-12-31" },
  { ...EMPTY, id: "whole", at: "2026-03-29T02:30:00.000000", raw: "AP8QgA==" },
  { ...EMPTY, id: "json", document: "{\"b\" :1,  \"a\":[ 9007199254740993,1.50, \"\\u00e9\"]}", raw: "" },
  { ...EMPTY, id: "long", long: "0123456789ü\u{1f600}".repeat(15_000) },
];
