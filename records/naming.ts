/**
 * How records and aggregates are named in paths, and how far a listing has come. Pure. A value of a key is one path segment: as
 * it is (percent-encoded), or "=" and base64url of its UTF-8 bytes, as in feed subjects. The second form is needed for an empty
 * value and for one that begins with "=".
 */
import { OperatingError } from "../core/errors.ts";
import type { Page } from "../rows/rows.ts";
import { columnKind, valueFromText } from "../rows/wire.ts";
import type { Kind, Service, Table } from "../schemas/define.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import type { AggregateKey, Row, Value } from "../schemas/row.ts";
import { refuseMistakes, unknown } from "./refusal.ts";
import { mistakeOf } from "./values.ts";

/** Records in one page. */
export const PAGE_BY_DEFAULT = 100;
export const PAGE_MAX = 1_000;

function malformed(what: string): OperatingError {
  return new OperatingError("E_REQUEST_MALFORMED", what);
}

/** The value that a path segment, already percent-decoded, stands for. @throws E_REQUEST_MALFORMED */
export function valueOfSegment(segment: string): string {
  if (!segment.startsWith("=")) return segment;
  const value = Buffer.from(segment.slice(1), "base64url").toString("utf8");
  if (Buffer.from(value, "utf8").toString("base64url") === segment.slice(1)) return value;
  throw malformed("a key value that begins with = is base64url of UTF-8");
}

/** The segments of a path, percent-decoded, without the empty ones before and after it. @throws E_REQUEST_MALFORMED */
export function segmentsOf(path: string): readonly string[] {
  try {
    return path.replace(/^\//, "").split("/").map(decodeURIComponent);
  } catch {
    throw malformed("the path is not percent-encoded UTF-8");
  }
}

/** The table of that name. @throws E_RECORD_UNKNOWN */
export function tableNamed(service: Service, name: string): Table {
  const table = service.tables.get(name);
  if (table === undefined) throw unknown("table");
  return table;
}

/** The kind of that name. @throws E_RECORD_UNKNOWN */
export function kindNamed(service: Service, name: string): Kind {
  const kind = service.kinds.get(name);
  if (kind === undefined) throw unknown("kind");
  return kind;
}

/**
 * The wire values of key columns written as texts. Another spelling of the same value ("007") names nothing: two names for one
 * record would be two subjects. @throws E_RECORD_UNKNOWN
 */
function keyValues(table: Table, columns: readonly string[], texts: readonly string[]): readonly Value[] {
  if (texts.length !== columns.length) throw unknown("record");
  return columns.map((column, place) => {
    const text = texts[place] ?? "";
    const value = valueFromText(columnKind(table, column), text);
    if (value === undefined || String(value) !== text) throw unknown("record");
    return value;
  });
}

/** The primary key of a record, as a row of its key columns. @throws E_RECORD_UNKNOWN */
export function recordKey(table: Table, texts: readonly string[]): Row {
  const values = keyValues(table, table.key, texts);
  return Object.fromEntries(table.key.map((column, place) => [column, values[place] ?? null]));
}

/** The key of an aggregate. @throws E_RECORD_UNKNOWN */
export function aggregateKey(service: Service, kind: Kind, texts: readonly string[]): AggregateKey {
  return { kind: kind.name, values: keyValues(tableNamed(service, kind.root), kind.key, texts).map(String) };
}

/** Where a listing goes on: the key of the last row seen, as one opaque text. */
export function cursorOf(table: Table, row: Row): string {
  return Buffer.from(JSON.stringify(table.key.map((column) => row[column] ?? null)), "utf8").toString("base64url");
}

function rowOfCursor(table: Table, cursor: string): Row | undefined {
  let values: unknown;
  try {
    values = JSON.parse(Buffer.from(cursor, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
  if (!Array.isArray(values) || values.length !== table.key.length) return undefined;
  const isValue = (column: string, place: number): boolean =>
    mistakeOf(table.columns[column] ?? "text", values[place] as unknown) === undefined;
  if (!table.key.every(isValue)) return undefined;
  return Object.fromEntries(table.key.map((column, place) => [column, values[place] as Value]));
}

/** The page that a query asks for. @throws E_OPERATION_INPUT */
export function pageOf(table: Table, query: URLSearchParams): Page {
  const mistakes = [...query.keys()].filter((name) => name !== "limit" && name !== "after")
    .map((name) => `${JSON.stringify(name.slice(0, 64))} is no parameter here: limit, after`);
  const written = query.get("limit") ?? String(PAGE_BY_DEFAULT);
  const limit = /^\d{1,6}$/.test(written) ? Number(written) : 0;
  if (limit < 1 || limit > PAGE_MAX) mistakes.push(`limit: expected a whole number from 1 to ${PAGE_MAX}`);
  const cursor = query.get("after");
  const after = cursor === null ? undefined : rowOfCursor(table, cursor);
  if (cursor !== null && after === undefined) mistakes.push("after: expected the next of an earlier answer for the same table");
  refuseMistakes(mistakes);
  return { after, limit };
}

const VERSION = /^(\d{1,15})\.(\d{1,15})$/;

/** A version as one word: "3.120". */
export function versionText(version: Version): string {
  return `${version.epoch}.${version.sequence}`;
}

/** The version that a word stands for; undefined when it is none. */
export function versionFrom(found: unknown): Version | undefined {
  const parts = typeof found === "string" ? VERSION.exec(found) : null;
  return parts === null ? undefined : { epoch: Number(parts[1]), sequence: Number(parts[2]) };
}

/** True for the same version. */
export function isSameVersion(left: Version, right: Version): boolean {
  return compareVersions(left, right) === 0;
}
