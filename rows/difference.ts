/**
 * Differences: the fewest row changes that turn what a site holds into the images that are wanted. Pure.
 *
 * Invariants: local columns are never named; rows that are equal are never touched; a plan applied to the compared state
 * gives exactly the wanted images; no step of a plan breaks a hard reference that holds before and after it.
 * Not here: whether an image may be applied at all (syncd/decide.ts), and how a step becomes SQL (the adapters).
 */
import { present } from "../core/assert.ts";
import type { Service, Table } from "../schemas/define.ts";
import { pickColumns, rowText, type AggregateKey, type Image, type ImageRows, type Row } from "../schemas/row.ts";

/** A row that stays and changes: its wanted state, its present state, and the columns in which they differ. */
export interface RowUpdate {
  readonly row: Row;
  readonly was: Row;
  readonly columns: readonly string[];
}

export interface TableDifference {
  readonly table: Table;
  readonly insert: readonly Row[];
  readonly update: readonly RowUpdate[];
  readonly remove: readonly Row[];
}

/** What to do to one aggregate; tables without a change are absent. */
export interface Difference {
  readonly key: AggregateKey;
  readonly tables: readonly TableDifference[];
}

/** One set-based statement of the row port. */
export type Step =
  | { readonly verb: "remove" | "insert"; readonly table: Table; readonly rows: readonly Row[] }
  | { readonly verb: "update"; readonly table: Table; readonly rows: readonly Row[]; readonly columns: readonly string[] };

function tableDifference(table: Table, wanted: readonly Row[], current: readonly Row[]): TableDifference {
  const held = new Map(current.map((row) => [rowText(row, table.key), row]));
  const insert: Row[] = [];
  const update: RowUpdate[] = [];
  for (const row of wanted) {
    const text = rowText(row, table.key);
    const was = held.get(text);
    held.delete(text);
    if (was === undefined) insert.push(pickColumns(row, table.sent));
    else {
      const columns = changedColumns(table, row, was);
      if (columns.length > 0) update.push({ row, was, columns });
    }
  }
  return { table, insert, update, remove: [...held.values()] };
}

/** The sent columns, keys apart, in which two states of one row differ. */
export function changedColumns(table: Table, row: Row, was: Row): readonly string[] {
  return table.sent.filter((column) => !table.key.includes(column) && (row[column] ?? null) !== (was[column] ?? null));
}

/**
 * What turns `current` (undefined: the aggregate does not exist here) into `wanted` (a tombstone: into nothing). Rows are
 * compared in wire form; pass wanted rows as the database can hold them (Rows.fit), or they differ for ever.
 */
export function differenceOf(service: Service, wanted: Image, current: ImageRows | undefined): Difference {
  const kind = present(service.kinds.get(wanted.key.kind), wanted.key.kind);
  const tables = kind.tables.map((name) =>
    tableDifference(present(service.tables.get(name), name), wanted.rows?.[name] ?? [], current?.[name] ?? []));
  const changed = tables.filter(({ insert, update, remove }) => insert.length + update.length + remove.length > 0);
  return { key: wanted.key, tables: changed };
}

/** True when there is nothing to do. */
export function isEmpty(difference: Difference): boolean {
  return difference.tables.length === 0;
}
