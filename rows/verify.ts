/**
 * Verification: does the live database look as its service file says? Pure; the answer is a list, complete, for a person.
 * A mismatch stops synchronisation of the service: applying rows to tables that differ would lose what nobody declared.
 * Types are compared by what they can carry, because the engines name them differently; foreign keys and unique keys
 * by their columns, because their names differ as well.
 */
import type { ColumnType, Reference, Service, Table } from "../schemas/define.ts";
import type { LiveColumn, LiveTable } from "./rows.ts";
import { isNullable, kindOf } from "./wire.ts";

/** One way in which the database differs from the service file. */
export interface Mismatch {
  readonly code: "E_SCHEMA_MISMATCH" | "E_SCHEMA_UNKNOWN";
  readonly table: string;
  readonly expected: string;
  readonly found: string;
}

/** Tables of this prefix are Holdfast's own. */
export const OWN_PREFIX = "holdfast_";
/** Tables of the migration tools, which no service file lists. */
const MIGRATION_TABLES = /^alembic(_version)?$|^alembic_/;

function mismatch(table: string, expected: string, found: string): Mismatch {
  return { code: "E_SCHEMA_MISMATCH", table, expected, found };
}

function columnMismatches(table: string, column: string, type: ColumnType, live: LiveColumn | undefined): readonly Mismatch[] {
  if (live === undefined) return [mismatch(table, `column ${column}`, "no such column")];
  const found: Mismatch[] = [];
  const kind = kindOf(type);
  if (!live.carries.includes(kind)) found.push(mismatch(table, `${column} carries ${kind}`, `${column} is ${live.type}`));
  if (isNullable(type) !== live.nullable) {
    const words = (nullable: boolean): string => `${column} ${nullable ? "may" : "may not"} be NULL`;
    found.push(mismatch(table, words(isNullable(type)), words(live.nullable)));
  }
  return found;
}

/** Texts on one side only become mismatches: `what` names them for people. */
function listMismatches(table: string, what: string, expected: readonly string[], found: readonly string[]): readonly Mismatch[] {
  const missing = expected.filter((text) => !found.includes(text));
  const unknown = found.filter((text) => !expected.includes(text));
  return [...missing.map((text) => mismatch(table, `${what} ${text}`, `no such ${what}`)),
    ...unknown.map((text) => mismatch(table, `no ${what} ${text}`, `${what} ${text}`))];
}

const columnSet = (columns: readonly string[]): string => `(${[...columns].sort().join(", ")})`;

/** "a → parent.x, b → parent.y", with the pairs in a fixed order. */
function referenceText(reference: Pick<Reference, "columns" | "table" | "to">): string {
  const pairs = reference.columns.map((column, position) => `${column} → ${reference.table}.${reference.to[position]}`);
  return pairs.sort().join(", ");
}

function tableMismatches(table: Table, live: LiveTable): readonly Mismatch[] {
  const liveColumns = new Map(live.columns.map((column) => [column.name, column]));
  const declared = Object.entries(table.columns)
    .flatMap(([name, type]) => columnMismatches(table.name, name, type, liveColumns.get(name)));
  const undeclared = live.columns.filter((column) => !(column.name in table.columns))
    .map((column) => mismatch(table.name, `no column ${column.name}`, `column ${column.name} ${column.type}`));
  const key = columnSet(table.key);
  const unique = (lists: readonly (readonly string[])[]): readonly string[] =>
    [...new Set(lists.map(columnSet))].filter((text) => text !== key);
  return [...declared, ...undeclared,
    ...(key === columnSet(live.key) ? [] : [mismatch(table.name, `primary key ${key}`, `primary key ${columnSet(live.key)}`)]),
    ...listMismatches(table.name, "unique key", unique(table.unique), unique(live.unique)),
    ...listMismatches(table.name, "foreign key", table.references.filter((reference) => reference.hard).map(referenceText),
      live.references.map(referenceText))];
}

/** Every difference between the tables of `service` and the live ones. An empty list: rows may be synchronised. */
export function schemaMismatches(service: Service, live: readonly LiveTable[]): readonly Mismatch[] {
  const liveTables = new Map(live.map((table) => [table.name, table]));
  const declared = [...service.tables.values()].flatMap((table) => {
    const found = liveTables.get(table.name);
    return found === undefined ? [mismatch(table.name, `table ${table.name}`, "no such table")] : tableMismatches(table, found);
  });
  const isKnown = (name: string): boolean => service.tables.has(name) || name in service.local || name.startsWith(OWN_PREFIX) ||
    name === service.migrations.table || MIGRATION_TABLES.test(name);
  const undeclared = live.filter((table) => !isKnown(table.name))
    .map((table) => mismatch(table.name, `no table ${table.name}`, `table ${table.name}, neither declared nor local`));
  return [...declared, ...undeclared];
}

/** What is wrong with the migration revisions that the database names (Rows.revisions): none, or one the file does not know. */
export function revisionMismatches(service: Service, revisions: readonly string[]): readonly Mismatch[] {
  const { table, column, verified } = service.migrations;
  const expected = `${column} is one of ${verified.join(", ")}`;
  if (revisions.length === 0) return [{ code: "E_SCHEMA_UNKNOWN", table, expected, found: "no revision" }];
  return revisions.filter((revision) => !verified.includes(revision))
    .map((revision) => ({ code: "E_SCHEMA_UNKNOWN", table, expected, found: `${column} is ${revision}` }));
}
