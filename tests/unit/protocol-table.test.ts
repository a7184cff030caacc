/**
 * Goal: docs/protocol.md and the tests agree. Method: its enforcement table is read as data. Forwards, every statement has a row
 * and every row names a test that is there; backwards, every number that a test or a comment of the product speaks of is stated.
 * A row may say "gap" instead of a test: then nothing enforces that part yet, and the page says so.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));
const PAGE = readFileSync(join(CHECKOUT, "docs/protocol.md"), "utf8");
/** Rooms whose comments may speak of a number, with "docs/protocol.md" in front of it. */
const PRODUCT = ["core", "schemas", "rows", "feed", "config", "admin", "capture", "records", "proxy", "audit", "syncd", "cli"];

interface Row {
  readonly number: string;
  /** Path in the repository; undefined for a gap. */
  readonly file: string | undefined;
  readonly test: string;
}

/** Numbers that open a paragraph in bold: statements and invariants. */
function statedIn(page: string): readonly string[] {
  return [...page.matchAll(/^\*\*([PASI]\d{1,2})\*\* /gm)].map(([, number]) => String(number));
}

function rowsIn(page: string): readonly Row[] {
  return [...page.matchAll(/^\| ([A-Z]\d{1,2}) \| (?:gap|\[[^\]]+\]\(\.\.\/([^)]+)\)) \| (.+) \|$/gm)]
    .map(([, number, file, test]) => ({ number: String(number), file, test: String(test) }));
}

function textsBelow(folder: string): readonly { readonly path: string; readonly text: string }[] {
  const full = join(CHECKOUT, folder);
  if (!existsSync(full)) return [];
  return readdirSync(full, { recursive: true }).map(String).filter((file) => file.endsWith(".ts"))
    .map((file) => ({ path: join(folder, file), text: readFileSync(join(full, file), "utf8") }));
}

/** Names of tests in a file; the parts around "${…}" of a name that is put together count each on its own. */
function testNamesIn(text: string): readonly string[] {
  return [...text.matchAll(/\bit\(\s*(["`])(.+?)\1,/g)].flatMap(([, , name]) => String(name).split(/\$\{[^}]*\}/))
    .map((part) => part.trim());
}

const stated = statedIn(PAGE);
const rows = rowsIn(PAGE);

describe("docs/protocol.md", () => {
  it("states each number once, without holes", () => {
    for (const letter of ["P", "A", "S", "I"]) {
      const numbers = stated.filter((number) => number.startsWith(letter)).map((number) => Number(number.slice(1)));
      assert.deepEqual(numbers, numbers.map((_, place) => place + 1), `numbers of ${letter}`);
      assert.ok(numbers.length > 0, `no number of ${letter}`);
    }
  });

  it("has a row for every statement, and no row for anything else", () => {
    assert.deepEqual(stated.filter((number) => !rows.some((row) => row.number === number)), [], "without a row");
    assert.deepEqual(rows.filter((row) => !stated.includes(row.number)), [], "never stated");
  });

  it("loses no row to a slip of the pen", () => {
    const table = PAGE.slice(PAGE.indexOf("## Enforcement"), PAGE.indexOf("## Gaps"));
    const lines = table.split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| Number "));
    assert.equal(rows.length, lines.length);
  });

  it("names tests that are there", () => {
    const missing = rows.flatMap(({ number, file, test }) => {
      if (file === undefined) return [];
      const full = join(CHECKOUT, file);
      if (!existsSync(full)) return [`${number}: no file ${file}`];
      const names = testNamesIn(readFileSync(full, "utf8"));
      // Brackets at the end say which case of a test whose name is put together.
      const isThere = names.includes(test) || names.includes(test.replace(/ \([^)]*\)$/, ""));
      return isThere ? [] : [`${number}: ${file} has no test "${test}"`];
    });
    assert.deepEqual(missing, []);
  });

  it("states every number that a comment of a test speaks of", () => {
    const unknown = textsBelow("tests").flatMap(({ path, text }) =>
      [...text.matchAll(/\/\*\*[\s\S]*?\*\//g)].flatMap(([comment]) => [...comment.matchAll(/\b([PASI]\d{1,2})\b/g)])
        .filter(([, number]) => !stated.includes(String(number))).map(([, number]) => `${path}: ${number}`));
    assert.deepEqual(unknown, []);
  });

  it("knows every number for which the product refers to it", () => {
    const known = new Set(PAGE.match(/\b[A-Z]\d{1,2}\b/g));
    const unknown = PRODUCT.flatMap(textsBelow).flatMap(({ path, text }) =>
      [...text.matchAll(/docs\/protocol\.md ([A-Z]\d{1,2})\b|\b([A-Z]\d{1,2})(?:–[A-Z]\d{1,2})? of docs\/protocol\.md/g)]
        .map(([, after, before]) => String(after ?? before)).filter((number) => !known.has(number))
        .map((number) => `${path}: ${number}`));
    assert.deepEqual(unknown, []);
  });
});
