/**
 * Footprints: from keys to images and from rows back to keys. Everything is set-based: reading a thousand aggregates of a
 * kind costs one statement per table of that kind.
 *
 * Invariants: the key of an image is the key its root row carries, also when an engine that ignores case was asked for
 * another spelling; an aggregate without root row is a tombstone; what one call returns comes from the reader's one state.
 * Not here: what to do with an image (capture/, syncd/), or which state is read (rows.ts snapshot).
 */
import { assert, present } from "../core/assert.ts";
import type { Kind, Owned, Service, Table } from "../schemas/define.ts";
import {
  canonicalImage, keyOfRoot, keyText, rowText, type AggregateKey, type Image, type Row, type Value,
} from "../schemas/row.ts";
import type { Match, Page, RowReader } from "./rows.ts";
import { columnKind, valueFromText } from "./wire.ts";

/** Combinations of values in one keysWhere at most; a request names a handful. */
export const WHERE_TUPLES_MAX = 10_000;

/** A page of aggregate keys; `next` is undefined after the last one. */
export interface KeyPage {
  readonly keys: readonly AggregateKey[];
  readonly next: Page | undefined;
}

function kindNamed(service: Service, name: string): Kind {
  return present(service.kinds.get(name), `no kind ${name}`);
}

function tableNamed(service: Service, name: string): Table {
  return present(service.tables.get(name), `no table ${name}`);
}

/** Keys of root rows, once each, without excepted aggregates and without rows whose key holds a NULL: nothing names those. */
function keysOf(kind: Kind, roots: readonly Row[]): readonly AggregateKey[] {
  const named = roots.filter((row) => kind.key.every((column) => (row[column] ?? null) !== null));
  const keys = new Map(named.map((row) => [keyText(keyOfRoot(kind, row)), keyOfRoot(kind, row)]));
  return [...keys.values()].filter((key) => !isExcepted(kind, key));
}

/** True for aggregates that the service file keeps out of synchronisation. */
export function isExcepted(kind: Kind, key: AggregateKey): boolean {
  return kind.except.some((exception) => Object.entries(exception.key).every(([column, value]) => {
    const position = kind.key.indexOf(column);
    assert(position !== -1, `kind ${kind.name}: exceptions name key columns, not ${column}`);
    return key.values[position] === value;
  }));
}

/** The tuple of wire values that a key stands for; undefined when no row can have it. */
function tupleOfKey(kind: Kind, root: Table, key: AggregateKey): readonly Value[] | undefined {
  assert(key.values.length === kind.key.length, `${kind.name} is named by ${kind.key.join(", ")}`);
  const tuple: Value[] = [];
  for (const [position, column] of kind.key.entries()) {
    const value = valueFromText(columnKind(root, column), present(key.values[position], column));
    if (value === undefined) return undefined;
    tuple.push(value);
  }
  return tuple;
}

/** Distinct tuples of `columns` over rows, without those that hold a NULL: they belong to nothing. */
function tuplesOf(rows: Iterable<Row>, columns: readonly string[]): readonly (readonly Value[])[] {
  const tuples = new Map<string, readonly Value[]>();
  for (const row of rows) {
    const tuple = columns.map((column) => row[column] ?? null);
    if (!tuple.includes(null)) tuples.set(JSON.stringify(tuple), tuple);
  }
  return [...tuples.values()];
}

/** The root rows that exist, by key text; and for every requested key text the key text of the row it stands for. */
interface Roots {
  readonly rows: ReadonlyMap<string, readonly Row[]>;
  readonly canonical: ReadonlyMap<string, string>;
}

function grouped<T>(items: Iterable<T>, textOf: (item: T) => string): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(textOf(item));
    if (group === undefined) groups.set(textOf(item), [item]);
    else group.push(item);
  }
  return groups;
}

async function readRoots(read: RowReader, kind: Kind, root: Table, keys: readonly AggregateKey[]): Promise<Roots> {
  const asked = new Map<string, readonly Value[]>();
  for (const key of keys) {
    const tuple = tupleOfKey(kind, root, key);
    if (tuple !== undefined) asked.set(keyText(key), tuple);
  }
  const textOf = (row: Row): string => keyText(keyOfRoot(kind, row));
  const rows = grouped(await read.select(root, { columns: kind.key, values: [...asked.values()] }, root.sent), textOf);
  const canonical = new Map([...asked.keys()].filter((text) => rows.has(text)).map((text) => [text, text]));
  const missing = [...asked].filter(([text]) => !canonical.has(text));
  if (missing.length === 0 || rows.size === 0) return { rows, canonical };
  // An engine that ignores case may know a missing key under another spelling. Only the engine can say so: it is asked for
  // all the missing ones at once, and one by one only if that finds anything.
  const select = (values: Match["values"]): Promise<Row[]> => read.select(root, { columns: kind.key, values }, kind.key);
  if ((await select(missing.map(([, tuple]) => tuple))).length === 0) return { rows, canonical };
  for (const [text, tuple] of missing) {
    const [row] = await select([tuple]);
    if (row !== undefined) canonical.set(text, textOf(row));
  }
  return { rows, canonical };
}

/** Rows of one table, each with the texts of the aggregates that own it. */
type OwnedRows = readonly { readonly row: Row; readonly owners: readonly string[] }[];

/** Owners by the tuple that children refer to them with. */
function ownersByTuple(parents: OwnedRows, columns: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const owners = new Map<string, string[]>();
  for (const parent of parents) {
    const text = rowText(parent.row, columns);
    owners.set(text, [...(owners.get(text) ?? []), ...parent.owners]);
  }
  return owners;
}

async function readOwned(read: RowReader, service: Service, owned: Owned, of: Table, parents: OwnedRows): Promise<OwnedRows> {
  const table = tableNamed(service, owned.table);
  const columns = Object.keys(owned.by);
  const parentColumns = Object.values(owned.by);
  const tuples = tuplesOf(parents.map((parent) => parent.row), parentColumns);
  if (tuples.length === 0) return [];
  const rows = await read.select(table, { columns, values: tuples }, table.sent);
  const owners = new Map(ownersByTuple(parents, parentColumns));
  const result: { row: Row; owners: readonly string[] }[] = [];
  for (const row of rows) {
    const text = rowText(row, columns);
    let found = owners.get(text);
    if (found === undefined) {
      // The child spells its parent differently (letter case): the engine regards them as equal, so it names the parent.
      const tuple = columns.map((column) => row[column] ?? null);
      const spelled = await read.select(of, { columns: parentColumns, values: [tuple] }, parentColumns);
      found = spelled.flatMap((parent) => owners.get(rowText(parent, parentColumns)) ?? []);
      owners.set(text, found);
    }
    result.push({ row, owners: found });
  }
  return result;
}

type TableRows = Record<string, Row[]>;

/** The rows of every aggregate of one kind, by aggregate key text. */
async function readKind(read: RowReader, service: Service, kind: Kind, roots: Roots): Promise<ReadonlyMap<string, TableRows>> {
  const images = new Map<string, TableRows>();
  const ownedRows = new Map<string, OwnedRows>();
  ownedRows.set(kind.root, [...roots.rows].flatMap(([text, rows]) => rows.map((row) => ({ row, owners: [text] }))));
  for (const name of kind.tables.slice(1)) {
    const owned = present(kind.owns.find((candidate) => candidate.table === name), name);
    const of = owned.of ?? kind.root;
    ownedRows.set(name, await readOwned(read, service, owned, tableNamed(service, of), present(ownedRows.get(of), of)));
  }
  for (const [name, rows] of ownedRows) {
    for (const { row, owners } of rows) {
      for (const owner of owners) {
        let image = images.get(owner);
        if (image === undefined) images.set(owner, (image = {}));
        (image[name] ??= []).push(row);
      }
    }
  }
  return images;
}

/**
 * Images of the aggregates named by `keys`, by keyText of the requested key; a tombstone where there is no root row. The
 * image's own key is the one its root row carries. Throws what the reader throws.
 */
export async function readImages(read: RowReader, service: Service, keys: readonly AggregateKey[]): Promise<Map<string, Image>> {
  const images = new Map<string, Image>();
  for (const [name, ofKind] of grouped(keys, (key) => key.kind)) {
    const kind = kindNamed(service, name);
    const roots = await readRoots(read, kind, tableNamed(service, kind.root), ofKind);
    const rows = await readKind(read, service, kind, roots);
    const byRoot = new Map<string, Image>();
    for (const [text, tables] of rows) {
      const root = present(tables[kind.root]?.[0], "an image has its root row");
      byRoot.set(text, canonicalImage(service, keyOfRoot(kind, root), tables));
    }
    for (const key of ofKind) {
      const text = keyText(key);
      images.set(text, byRoot.get(roots.canonical.get(text) ?? text) ?? { key, rows: undefined });
    }
  }
  return images;
}

/** One page of the keys of a kind, ascending in the engine's own order, without excepted ones: it may hold fewer than `limit`. */
export async function readKeys(read: RowReader, service: Service, kindName: string, page: Page): Promise<KeyPage> {
  const kind = kindNamed(service, kindName);
  const root = tableNamed(service, kind.root);
  const rows = await read.page(root, page, [...new Set([...root.key, ...kind.key])]);
  const after = rows.at(-1);
  const isLast = after === undefined || rows.length < page.limit;
  return { keys: keysOf(kind, rows), next: isLast ? undefined : { after, limit: page.limit } };
}

/** Every combination of the given values, in wire form; values that the columns cannot hold are dropped. */
function combinations(table: Table, where: Readonly<Record<string, readonly Value[]>>): readonly (readonly Value[])[] {
  let tuples: (readonly Value[])[] = [[]];
  for (const [column, values] of Object.entries(where)) {
    const kind = columnKind(table, column);
    const wire = values.map((value) => (typeof value === "string" ? valueFromText(kind, value) : value));
    const held = [...new Set(wire)].filter((value) => value !== undefined);
    tuples = tuples.flatMap((tuple) => held.map((value) => [...tuple, value]));
    assert(tuples.length <= WHERE_TUPLES_MAX, `at most ${WHERE_TUPLES_MAX} combinations of values in one question`);
  }
  return tuples;
}

/**
 * Keys of the aggregates of a kind that own a row of `table` (by default the root) whose columns have one of the values each:
 * { user_id: ["a", "b"], type: ["x"] } means (user_id = a or b) and type = x. Values may be texts, as in requests. Excepted
 * aggregates are left out. Rows without an owner belong to nothing.
 */
export async function keysWhere(read: RowReader, service: Service, kindName: string, table: string | undefined,
  where: Readonly<Record<string, readonly Value[]>>): Promise<readonly AggregateKey[]> {
  const kind = kindNamed(service, kindName);
  let current = tableNamed(service, table ?? kind.root);
  assert(kind.tables.includes(current.name), `${current.name} is not a table of kind ${kindName}`);
  let match: Match = { columns: Object.keys(where), values: combinations(current, where) };
  while (current.name !== kind.root) {
    const name = current.name;
    const owned = present(kind.owns.find((candidate) => candidate.table === name), name);
    const columns = Object.keys(owned.by);
    const rows = await read.select(current, match, columns);
    match = { columns: Object.values(owned.by), values: tuplesOf(rows, columns) };
    current = tableNamed(service, owned.of ?? kind.root);
  }
  return keysOf(kind, await read.select(current, match, kind.key));
}

/** True when `table` has a row whose columns have one of the values each. */
export async function hasRow(read: RowReader, table: Table, where: Readonly<Record<string, readonly Value[]>>): Promise<boolean> {
  const rows = await read.select(table, { columns: Object.keys(where), values: combinations(table, where) }, table.key);
  return rows.length > 0;
}
