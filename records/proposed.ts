/**
 * From what a caller wrote to the image it stands for. Pure. Everything that is wrong is said at once, and nothing is guessed: a
 * column that is left out is a mistake, not NULL. The one exception are secret columns for callers who may not see them: those
 * keep the value that the record has, and a record that has none yet cannot be made without the scope.
 */
import { present } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import type { Kind, Service, Table } from "../schemas/define.ts";
import { canonicalImage, keyOfRoot, keyText, rowText, type AggregateKey, type Image, type ImageRows,
  type Row } from "../schemas/row.ts";
import { mistaken, refuseMistakes } from "./refusal.ts";
import { isObject, rowFrom } from "./values.ts";

type Rows = Record<string, readonly Row[]>;

/** Secret columns that the caller may not write. @throws E_ACCESS_DENIED when it tried to. */
function keptColumns(table: Table, found: unknown, maySeeSecrets: boolean, at: string): readonly string[] {
  if (maySeeSecrets) return [];
  const written = isObject(found) ? table.secret.filter((column) => Object.hasOwn(found, column)) : [];
  if (written.length === 0) return table.secret;
  throw new OperatingError("E_ACCESS_DENIED", `${at}: ${written.join(", ")} can be written with the scope secrets only`);
}

/** One row of a body. `held`: the rows that the table has of this aggregate now, by key text. */
export function proposedRow(table: Table, found: unknown, held: ReadonlyMap<string, Row>, maySeeSecrets: boolean, at: string,
  mistakes: string[]): Row {
  const kept = keptColumns(table, found, maySeeSecrets, at);
  const row = rowFrom(table, found, kept, at, mistakes);
  const before = held.get(rowText(row, table.key));
  if (kept.length === 0) return row;
  if (before === undefined) {
    mistakes.push(`${at}: this record is new and has secret columns (${kept.join(", ")}); that needs the scope secrets`);
    return row;
  }
  return { ...row, ...Object.fromEntries(kept.map((column) => [column, before[column] ?? null])) };
}

/** Rows by key text. */
export function rowsByKey(table: Table, rows: readonly Row[]): ReadonlyMap<string, Row> {
  return new Map(rows.map((row) => [rowText(row, table.key), row]));
}

/** What no image may be: without root row, with a row twice, or with a row that belongs to no other row of it. */
function shapeMistakes(service: Service, kind: Kind, key: AggregateKey, rows: Rows): readonly string[] {
  const mistakes: string[] = [];
  const roots = rows[kind.root] ?? [];
  if (roots.length === 0) mistakes.push(`rows.${kind.root}: expected the root row of the aggregate`);
  for (const root of roots) {
    if (keyText(keyOfRoot(kind, root)) !== keyText(key)) {
      mistakes.push(`rows.${kind.root}: the root row is named by ${kind.key.join(", ")} as the path says`);
    }
  }
  for (const [name, held] of Object.entries(rows)) {
    const table = present(service.tables.get(name), name);
    if (rowsByKey(table, held).size < held.length) mistakes.push(`rows.${name}: two rows with the same ${table.key.join(", ")}`);
  }
  const attached = withoutOrphans(kind, rows);
  for (const name of kind.tables) {
    const lost = (rows[name] ?? []).length - (attached[name] ?? []).length;
    if (lost > 0) mistakes.push(`rows.${name}: ${lost} rows belong to no other row of the aggregate`);
  }
  return mistakes;
}

/** The rows without those whose owner is not among them. */
export function withoutOrphans(kind: Kind, rows: Rows): Rows {
  const attached: Rows = { [kind.root]: rows[kind.root] ?? [] };
  for (const name of kind.tables.slice(1)) {
    const owned = present(kind.owns.find((each) => each.table === name), name);
    const parents = attached[owned.of ?? kind.root] ?? [];
    const owners = new Set(parents.map((parent) => rowText(parent, Object.values(owned.by))));
    const columns = Object.keys(owned.by);
    attached[name] = (rows[name] ?? []).filter((row) =>
      columns.every((column) => (row[column] ?? null) !== null) && owners.has(rowText(row, columns)));
  }
  return attached;
}

/** The image that these rows make. @throws E_OPERATION_INPUT when they make none */
export function imageOf(service: Service, kind: Kind, key: AggregateKey, rows: Rows): Image {
  refuseMistakes(shapeMistakes(service, kind, key, rows));
  return canonicalImage(service, key, rows);
}

/**
 * The image that a body { table: [row, ...], ... } stands for; `current` are the rows that the aggregate has now.
 * @throws E_OPERATION_INPUT with every mistake, E_ACCESS_DENIED for secret columns
 */
export function proposedImage(service: Service, kind: Kind, key: AggregateKey, found: unknown, current: ImageRows | undefined,
  maySeeSecrets: boolean): Image {
  if (!isObject(found)) throw mistaken([`rows: expected an object with a list of rows for each of ${kind.tables.join(", ")}`]);
  const mistakes = Object.keys(found).filter((name) => !kind.tables.includes(name))
    .map((name) => `rows: no table of ${kind.name} is called ${JSON.stringify(name.slice(0, 64))}`);
  const rows: Rows = {};
  for (const name of kind.tables) {
    const table = present(service.tables.get(name), name);
    const list = Object.hasOwn(found, name) ? found[name] : undefined;
    if (!Array.isArray(list)) {
      mistakes.push(`rows.${name}: expected a list of rows`);
      continue;
    }
    const held = rowsByKey(table, current?.[name] ?? []);
    rows[name] = list.map((row: unknown, place) =>
      proposedRow(table, row, held, maySeeSecrets, `rows.${name}[${place}]`, mistakes));
  }
  refuseMistakes(mistakes);
  return imageOf(service, kind, key, rows);
}
