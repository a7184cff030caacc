/**
 * Matches, prepared for SQL: tuples grouped by which of their columns are NULL, because NULL needs IS NULL while values can
 * share one comparison that an index answers. Pure; shared by both dialects.
 */
import type { Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";
import type { Match } from "./rows.ts";

/** Tuples that are NULL in the same columns. A row can match one pattern only. */
export interface Pattern {
  /** Columns to compare, at least one unless all are NULL. */
  readonly compared: readonly string[];
  readonly isNull: readonly string[];
  /** Values of the compared columns; none of them NULL. */
  readonly tuples: readonly (readonly Value[])[];
}

/** The patterns of a match, without the tuples that hold a value of which `canEqual` says that no row has it. */
export function patternsOf(match: Match, canEqual: (column: string, value: Value) => boolean): readonly Pattern[] {
  const patterns = new Map<string, { compared: readonly string[]; isNull: readonly string[]; tuples: (readonly Value[])[] }>();
  for (const tuple of match.values) {
    if (match.columns.some((column, position) => !holdable(tuple[position] ?? null, column, canEqual))) continue;
    const isNull = match.columns.filter((_, position) => (tuple[position] ?? null) === null);
    let pattern = patterns.get(isNull.join());
    if (pattern === undefined) {
      pattern = { compared: match.columns.filter((column) => !isNull.includes(column)), isNull, tuples: [] };
      patterns.set(isNull.join(), pattern);
    }
    pattern.tuples.push(isNull.length === 0 ? tuple : tuple.filter((value) => value !== null));
  }
  return [...patterns.values()];
}

function holdable(value: Value, column: string, canEqual: (column: string, value: Value) => boolean): boolean {
  return value === null || canEqual(column, value);
}

/** The match that finds exactly these rows by primary key. */
export function keyMatch(table: Table, rows: readonly Row[]): Match {
  return { columns: table.key, values: rows.map((row) => table.key.map((column) => row[column] ?? null)) };
}
