/**
 * Is this JSON value a wire value of that column? Pure. Every rule of schemas/define.ts ColumnKind in the one place where values
 * come from people and not from a database. A mistake names what was expected and never repeats what was given: it may be a
 * password.
 */
import type { ColumnKind, ColumnType, Table } from "../schemas/define.ts";
import type { Row } from "../schemas/row.ts";
import { isNullable, kindOf } from "../rows/wire.ts";

/** Mistakes told at a time; further ones are counted. */
export const MISTAKES_MAX = 50;

const INT64_MAX = 2n ** 63n - 1n;
/** Years before 1000 are outside what MariaDB promises to keep. */
const DATE = /^[1-9]\d{3}-\d{2}-\d{2}$/;
const TIME = /^\d{2}:\d{2}:\d{2}\.\d{6}$/;
const BIGINT = /^(?:0|-?[1-9]\d{0,18})$/;
const DECIMAL = /^-?(?:0|[1-9]\d{0,63})(?:\.\d{1,38})?$/;
const LONE_SURROGATE = /\p{Surrogate}/u;
const BASE64 = /^(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?$/;

/** What a value of each kind looks like, for people. */
export const EXPECTED: Readonly<Record<ColumnKind, string>> = {
  text: "a string of whole characters without U+0000",
  integer: "a whole number below 2^53",
  bigint: "a whole number of 64 bits as a string",
  decimal: "a decimal number as a string",
  boolean: "true or false",
  datetime: "a UTC time as YYYY-MM-DDTHH:MM:SS.ffffff",
  date: "a date as YYYY-MM-DD",
  bytes: "bytes as base64",
};

function isDate(text: string): boolean {
  if (!DATE.test(text)) return false;
  const instant = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(instant.getTime()) && instant.toISOString().startsWith(text);
}

function isDatetime(text: string): boolean {
  return text[10] === "T" && isDate(text.slice(0, 10)) && TIME.test(text.slice(11)) &&
    !Number.isNaN(new Date(`${text.slice(0, 23)}Z`).getTime()) && text.slice(11, 13) < "24";
}

function isOfKind(kind: ColumnKind, value: unknown): boolean {
  if (kind === "integer") return Number.isSafeInteger(value) && !Object.is(value, -0);
  if (kind === "boolean") return typeof value === "boolean";
  if (typeof value !== "string") return false;
  switch (kind) {
    case "text":
      return !LONE_SURROGATE.test(value) && !value.includes("\0");
    case "bigint": {
      const number = BIGINT.test(value) ? BigInt(value) : INT64_MAX + 1n;
      return number <= INT64_MAX && number >= -INT64_MAX - 1n;
    }
    case "decimal":
      return DECIMAL.test(value);
    case "datetime":
      return isDatetime(value);
    case "date":
      return isDate(value);
    case "bytes":
      return BASE64.test(value);
  }
}

/** What would have been right, when `value` is no value of the type; else undefined. */
export function mistakeOf(type: ColumnType, value: unknown): string | undefined {
  if (value === null) return isNullable(type) ? undefined : `${EXPECTED[kindOf(type)]}, not null`;
  return isOfKind(kindOf(type), value) ? undefined : `${EXPECTED[kindOf(type)]}${isNullable(type) ? " or null" : ""}`;
}

/** True for a JSON object that is no list. */
export function isObject(found: unknown): found is Readonly<Record<string, unknown>> {
  return typeof found === "object" && found !== null && !Array.isArray(found);
}

/**
 * The row that `found` writes out: every column that travels except `absent`, and nothing else. What is wrong is added to
 * `mistakes`, each with `at` before it; then the row is not to be used.
 */
export function rowFrom(table: Table, found: unknown, absent: readonly string[], at: string, mistakes: string[]): Row {
  if (!isObject(found)) {
    mistakes.push(`${at}: expected an object of columns`);
    return {};
  }
  for (const name of Object.keys(found)) {
    if (name in table.local && Object.hasOwn(table.local, name)) {
      mistakes.push(`${at}.${name}: each cloud keeps this column for itself; leave it out`);
    } else if (!table.sent.includes(name)) mistakes.push(`${at}: no column is called ${JSON.stringify(name.slice(0, 64))}`);
  }
  const row: Record<string, Row[string]> = {};
  for (const name of table.sent) {
    if (absent.includes(name)) continue;
    const type = table.columns[name];
    const value = Object.hasOwn(found, name) ? found[name] : undefined;
    const mistake = type === undefined ? "a declared column" : mistakeOf(type, value);
    if (mistake === undefined) row[name] = value as Row[string] ?? null;
    else mistakes.push(`${at}.${name}: expected ${mistake}${value === undefined ? ", found nothing" : ""}`);
  }
  return row;
}
