/**
 * Wire values and the column kinds they belong to: what every adapter and the footprint reader share about single values.
 * Pure. Invariant: a value leaves a database in exactly one spelling (schemas/define.ts ColumnKind), or not at all.
 * Not here: how an engine spells a value in SQL (rows/postgres-sql.ts, rows/mariadb-sql.ts).
 */
import { present } from "../core/assert.ts";
import type { ColumnKind, ColumnType, Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";

/** Digits of a second that a wire datetime carries. */
export const FRACTION_DIGITS = 6;

/** The kind behind a declared type: "text?" → "text". */
export function kindOf(type: ColumnType): ColumnKind {
  return (type.endsWith("?") ? type.slice(0, -1) : type) as ColumnKind;
}

/** True when the declared type admits NULL. */
export function isNullable(type: ColumnType): boolean {
  return type.endsWith("?");
}

/** The kind of a declared column; asking for another column is a bug. */
export function columnKind(table: Table, column: string): ColumnKind {
  return kindOf(present(table.columns[column], `${table.name}.${column} is not a declared column`));
}

const WHOLE_NUMBER = /^-?\d{1,19}$/;

/**
 * The wire value that a text stands for in a column of `kind`: key values and values out of requests arrive as text.
 * Undefined when no row can hold it ("abc" in an integer column), which is an answer and not an error.
 */
export function valueFromText(kind: ColumnKind, text: string): Value | undefined {
  switch (kind) {
    case "integer": {
      const number = WHOLE_NUMBER.test(text) ? Number(text) : Number.NaN;
      return Number.isSafeInteger(number) ? number : undefined;
    }
    case "bigint":
      return WHOLE_NUMBER.test(text) ? BigInt(text).toString() : undefined;
    case "boolean":
      return text === "true" ? true : text === "false" ? false : undefined;
    default:
      return text;
  }
}

/**
 * A datetime as PostgreSQL (ISO style) or MariaDB print it in a UTC session, in wire form: "2026-01-02 03:04:05.5+00" →
 * "2026-01-02T03:04:05.500000". Texts that are no point in time ("infinity", zero dates) keep their spelling.
 */
export function datetimeFromSql(text: string): string {
  if (text.length < 19 || text[10] !== " ") return text;
  const zone = text.indexOf("+", 19);
  const end = zone === -1 ? text.length : zone;
  const fraction = text[19] === "." ? text.slice(20, end) : "";
  return `${text.slice(0, 10)}T${text.slice(11, 19)}.${fraction.padEnd(FRACTION_DIGITS, "0")}`;
}

/** A wire datetime with only `digits` of its fraction left: cut, never rounded, so that cutting twice changes nothing. */
export function cutFraction(text: string, digits: number): string {
  if (digits >= FRACTION_DIGITS || text.length !== 26) return text;
  return text.slice(0, 20 + digits).padEnd(26, "0");
}

/** Column and digits for the datetime columns of a table that keep fewer than six digits. */
export type ShortFractions = ReadonlyMap<string, number>;

/** The row with its datetimes cut to what the columns keep; the same row when nothing is cut. */
export function cutRow(row: Row, short: ShortFractions): Row {
  let cut: Record<string, Value> | undefined;
  for (const [column, digits] of short) {
    const value = row[column];
    if (typeof value !== "string") continue;
    const kept = cutFraction(value, digits);
    if (kept !== value) (cut ??= { ...row })[column] = kept;
  }
  return cut ?? row;
}

/** `items` in runs of at most `size`, in order; the very same array when it is short enough. */
export function runsOf<T>(items: readonly T[], size: number): readonly (readonly T[])[] {
  if (items.length <= size) return [items];
  const runs: (readonly T[])[] = [];
  for (let start = 0; start < items.length; start += size) runs.push(items.slice(start, start + size));
  return runs;
}
