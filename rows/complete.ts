/**
 * Completes rows before they are inserted: the one rule for columns that a row does not name, shared by all adapters.
 * Pure. Not here: counted keys, which the database gives.
 */
import type { Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";

/** Every declared column of the row: as given, else the declared `local` value, else NULL. */
export function completeRow(table: Table, row: Row): Row {
  const complete: Record<string, Value> = {};
  for (const column of Object.keys(table.columns)) {
    const given = row[column];
    complete[column] = given === undefined ? table.local[column] ?? null : given;
  }
  return complete;
}
