/**
 * Goal: only wire values get past the API, in the one spelling that a database gives them; names in paths and places in listings
 * come back as they went. Method: pure functions, by table and by property.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { cursorOf, pageOf, segmentsOf, valueOfSegment, versionFrom, versionText } from "../../records/naming.ts";
import { mustHold, preconditionOf } from "../../records/precondition.ts";
import { Lanes } from "../../records/lanes.ts";
import { mistakeOf } from "../../records/values.ts";
import { declareTable, type ColumnType } from "../../schemas/define.ts";
import { tokenOf, type Value } from "../../schemas/row.ts";
import { LIMIT, NASTY } from "../contract/rows-samples.ts";

const GOOD: readonly (readonly [ColumnType, readonly unknown[]])[] = [
  ["text", ["", "a", "emoji \u{1f600}", "\u0001\u001f", "  "]],
  ["integer", [0, 1, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]],
  ["bigint", ["0", "-1", "9223372036854775807", "-9223372036854775808"]],
  ["decimal", ["0", "0.50", "-12.000001", "12345678901234.123456"]],
  ["boolean", [true, false]],
  ["datetime", ["2026-02-28T23:59:59.999999", "2024-02-29T00:00:00.000000", "9999-12-31T00:00:00.000000"]],
  ["date", ["2024-02-29", "1000-01-01"]],
  ["bytes", ["", "AA==", "AP8Q", "AP8QgA=="]],
  ["text?", [null, ""]],
];

const BAD: readonly (readonly [ColumnType, readonly unknown[]])[] = [
  ["text", [null, 1, true, {}, [], undefined, "\0", "half \ud83d", "a\udc00b"]],
  ["integer", [null, "1", 1.5, -0, 2 ** 53, NaN, Infinity, true]],
  ["bigint", [1, "", "-0", "01", "+1", "1.0", "9223372036854775808", "-9223372036854775809", " 1"]],
  ["decimal", [1, "", ".5", "5.", "1e3", "00.5", "NaN", "-"]],
  ["boolean", [0, 1, "true", null]],
  ["datetime", ["2026-02-29T00:00:00.000000", "2026-02-28T24:00:00.000000", "2026-02-28T23:59:60.000000",
    "2026-02-28 23:59:59.000000",
    "2026-02-28T23:59:59", "2026-02-28T23:59:59.999Z", "0000-00-00T00:00:00.000000", "infinity", 5]],
  ["date", ["2026-02-30", "2026-2-3", "0000-00-00", "0999-01-01", "2026-02-28T00:00:00.000000"]],
  ["bytes", ["A", "AA", "AA=", "A===", "AP8Q=", "-_==", 5]],
];

describe("values of the database sync API", () => {
  it("are wire values, each kind in its one spelling", () => {
    for (const [type, values] of GOOD) for (const value of values) assert.equal(mistakeOf(type, value), undefined,
      `${type} ${String(value)}`);
    for (const [type, values] of BAD) {
      for (const value of values) assert.ok(mistakeOf(type, value) !== undefined, `${type} ${JSON.stringify(value)}`);
    }
  });

  it("include everything that software tends to get wrong and databases hold", () => {
    for (const row of NASTY) {
      for (const column of LIMIT.sent) assert.equal(mistakeOf(LIMIT.columns[column] ?? "text", row[column]), undefined, column);
    }
  });

  it("say what was expected and never what was found", () => {
    fc.assert(fc.property(fc.string({ minLength: 12 }), (text) => {
      for (const type of ["integer", "bigint", "date",
        "boolean"] as const) assert.ok(!(mistakeOf(type, text) ?? "").includes(text));
    }));
  });
});

describe("names of the database sync API", () => {
  it("bring any key value through a path, plainly or as a token", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (value) => {
      const plain = encodeURIComponent(value);
      if (!value.startsWith("=")) assert.deepEqual(segmentsOf(`/v1/${plain}`).slice(1).map(valueOfSegment), [value]);
      assert.equal(valueOfSegment(`=${Buffer.from(value, "utf8").toString("base64url")}`), value);
      assert.equal(valueOfSegment(tokenOf(value)), value);
    }));
  });

  it("go on where a page ended, whatever the key is", () => {
    const table = declareTable("t", { key: ["a", "b"], columns: { a: "text", b: "integer" } });
    fc.assert(fc.property(fc.string(), fc.maxSafeInteger(), (a, b) => {
      const row: Record<string, Value> = { a: a.replaceAll("\0", ""), b };
      const query = new URLSearchParams({ after: cursorOf(table, row), limit: "7" });
      assert.deepEqual(pageOf(table, query), { after: row, limit: 7 });
    }));
  });

  it("write versions as one word", () => {
    assert.deepEqual(versionFrom(versionText({ epoch: 3, sequence: 120 })), { epoch: 3, sequence: 120 });
    for (const word of ["3", "3.", ".3", "3.1.2", "-1.2", "a.b", 3.1, undefined, null]) assert.equal(versionFrom(word),
      undefined);
  });
});

describe("preconditions of the database sync API", () => {
  const placed = { version: { epoch: 1, sequence: 5 }, digest: "d" };
  const found = { digest: "d", placed, asPlaced: true };
  const allows = (ifMatch: string | undefined, ifNoneMatch: string | undefined, there: typeof found | undefined,
    versioned = false): boolean => {
    try {
      mustHold(preconditionOf(ifMatch, ifNoneMatch), there, versioned);
      return true;
    } catch {
      return false;
    }
  };

  it("need a named state to change what is there, and nothing to make what is not", () => {
    const cases: readonly (readonly [string | undefined, string | undefined, boolean, boolean])[] = [
      [undefined, undefined, true, false], [undefined, undefined, false, true], [undefined, "*", true, false],
        [undefined, "*", false, true],
      ["*", undefined, true, true], ["*", undefined, false, false], ["\"d\"", undefined, true, true],
        ["d", undefined, true, true],
      ["\"e\"", undefined, true, false], ["\"e\", \"d\"", undefined, true, true], ["1.5", undefined, true, true],
        ["1.6", undefined, true, false],
      ["\"d\"", undefined, false, false], ["W/\"d\"", undefined, true, false], ["\"d\"", "*", true, false],
        [undefined, "\"d\"", true, false],
    ];
    for (const [ifMatch, ifNoneMatch, isThere, isAllowed] of cases) {
      assert.equal(allows(ifMatch, ifNoneMatch, isThere ? found : undefined), isAllowed,
        JSON.stringify([ifMatch, ifNoneMatch, isThere]));
    }
    assert.equal(allows(undefined, undefined, found, true), true);
  });

  it("do not take a version for the rows when the rows have changed since", () => {
    assert.equal(allows("1.5", undefined, { ...found, asPlaced: false }), false);
  });
});

describe("lanes", () => {
  it("run few at once, all in the end, and survive failures", async () => {
    const lanes = new Lanes(2);
    let running = 0;
    let most = 0;
    const work = async (place: number): Promise<number> => {
      most = Math.max(most, (running += 1));
      await Promise.resolve();
      running -= 1;
      if (place % 3 === 0) throw new Error("no");
      return place;
    };
    const done = await Promise.allSettled(Array.from({ length: 12 }, (_, place) => lanes.run(() => work(place))));
    assert.deepEqual([most, running, lanes.waiting, done.filter(({ status }) => status === "rejected").length], [2, 0, 0, 4]);
  });
});
