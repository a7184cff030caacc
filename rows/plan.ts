/**
 * Plans: the differences of a batch of aggregates merged into few set-based steps, in an order that the database accepts.
 * Pure.
 *
 * The order is removals (children first), updates (parents first), inserts (parents first): it frees unique values before
 * they are taken. Two sorts of rows leave it, because a hard reference would break otherwise: an update that points to a row
 * inserted by the same plan runs after the inserts, and a removal of a row that an update is about to leave runs last.
 * A row that one aggregate gives up and another takes over is updated, never removed: a removal could cascade.
 * Both engines check references row by row or statement by statement as they like, so rows of a table that refer to the
 * same table go in as many statements as the chain is long.
 */
import { assert, present } from "../core/assert.ts";
import type { Service, Table } from "../schemas/define.ts";
import { rowText, type Row } from "../schemas/row.ts";
import { changedColumns, type Difference, type RowUpdate, type Step } from "./difference.ts";

/** Different sets of changed columns of one table that still get a statement each; beyond it they share one. */
export const UPDATE_SHAPES_MAX = 4;

/** Changes of one table over all aggregates of the batch. */
interface Pending {
  readonly table: Table;
  readonly insert: Map<string, Row>;
  readonly update: RowUpdate[];
  readonly remove: Map<string, Row>;
}

/** What planning needs to know of a service, worked out once. */
interface Order {
  /** Parents first. */
  readonly tables: readonly Table[];
  /** Column lists by which hard references name rows of a table. */
  readonly namedBy: ReadonlyMap<string, readonly (readonly string[])[]>;
}

const orders = new WeakMap<Service, Order>();

function orderOf(service: Service): Order {
  let order = orders.get(service);
  if (order === undefined) orders.set(service, (order = { tables: tablesInOrder(service), namedBy: namedColumns(service) }));
  return order;
}

function namedColumns(service: Service): ReadonlyMap<string, readonly (readonly string[])[]> {
  const named = new Map<string, Map<string, readonly string[]>>();
  for (const reference of [...service.tables.values()].flatMap((table) => table.references)) {
    if (!reference.hard) continue;
    const lists = named.get(reference.table) ?? new Map<string, readonly string[]>();
    named.set(reference.table, lists.set(reference.to.join(","), reference.to));
  }
  return new Map([...named].map(([table, lists]) => [table, [...lists.values()]]));
}

/** Tables parents first: by hard references and ownership. A circle of hard references is a bug of the service file. */
export function tablesInOrder(service: Service): readonly Table[] {
  const names = [...service.kinds.values()].flatMap((kind) => kind.tables);
  const parentsOf = new Map<string, Set<string>>();
  for (const name of names) {
    const references = present(service.tables.get(name), name).references;
    parentsOf.set(name, new Set(references.filter((one) => one.hard && one.table !== name).map((one) => one.table)));
  }
  for (const kind of service.kinds.values()) {
    for (const owned of kind.owns) parentsOf.get(owned.table)?.add(owned.of ?? kind.root);
  }
  const ordered = new Set<string>();
  const isReady = (name: string): boolean =>
    !ordered.has(name) && [...present(parentsOf.get(name), name)].every((parent) => ordered.has(parent));
  while (ordered.size < names.length) ordered.add(present(names.find(isReady), "hard references and ownership form no circle"));
  return [...ordered].map((name) => present(service.tables.get(name), name));
}

/** Texts of the rows that `row` refers to by a hard reference, comparable with `namesOf`. */
function targetsOf(table: Table, row: Row): readonly string[] {
  return table.references
    .filter((reference) => reference.hard && reference.columns.every((column) => (row[column] ?? null) !== null))
    .map((reference) => `${reference.table} ${reference.to.join(",")} ${rowText(row, reference.columns)}`);
}

/** Texts under which other rows refer to `row`. */
function namesOf(order: Order, table: Table, row: Row): readonly string[] {
  return (order.namedBy.get(table.name) ?? []).map((columns) => `${table.name} ${columns.join(",")} ${rowText(row, columns)}`);
}

function gather(tables: readonly Table[], differences: readonly Difference[]): ReadonlyMap<string, Pending> {
  const pending = new Map<string, Pending>(tables.map((table) =>
    [table.name, { table, insert: new Map(), update: [], remove: new Map() }]));
  for (const difference of differences) {
    for (const { table, insert, update, remove } of difference.tables) {
      const own = present(pending.get(table.name), table.name);
      for (const row of insert) own.insert.set(rowText(row, table.key), row);
      for (const row of remove) own.remove.set(rowText(row, table.key), row);
      own.update.push(...update);
    }
  }
  for (const { table, insert, update, remove } of pending.values()) {
    for (const [text, row] of insert) {
      const was = remove.get(text);
      if (was === undefined) continue;
      insert.delete(text);
      remove.delete(text);
      const columns = changedColumns(table, row, was);
      if (columns.length > 0) update.push({ row, was, columns });
    }
  }
  return pending;
}

/** Rows of one table in groups, each of which refers only to rows of earlier groups or outside; most tables give one group. */
function levelsOf(order: Order, table: Table, rows: readonly Row[]): readonly (readonly Row[])[] {
  if (rows.length === 0) return [];
  if (!table.references.some((reference) => reference.hard && reference.table === table.name)) return [rows];
  const waiting = new Map(rows.map((row) => [row, namesOf(order, table, row)]));
  const levels: Row[][] = [];
  while (waiting.size > 0) {
    const names = new Set([...waiting.values()].flat());
    const ready = [...waiting].filter(([row, own]) =>
      targetsOf(table, row).every((target) => own.includes(target) || !names.has(target))).map(([row]) => row);
    assert(ready.length > 0, `rows of ${table.name} refer to each other in a circle`);
    for (const row of ready) waiting.delete(row);
    levels.push(ready);
  }
  return levels;
}

function updateSteps(table: Table, updates: readonly RowUpdate[]): readonly Step[] {
  const shapes = new Map<string, { columns: readonly string[]; rows: Row[] }>();
  for (const { row, columns } of updates) {
    const shape = shapes.get(columns.join(","));
    if (shape === undefined) shapes.set(columns.join(","), { columns, rows: [row] });
    else shape.rows.push(row);
  }
  if (shapes.size <= UPDATE_SHAPES_MAX) {
    return [...shapes.values()].map(({ columns, rows }) => ({ verb: "update", table, rows, columns }));
  }
  const changed = new Set(updates.flatMap((update) => update.columns));
  const columns = table.sent.filter((column) => changed.has(column));
  return [{ verb: "update", table, rows: updates.map((update) => update.row), columns }];
}

/** Targets that updates leave: what they pointed to and no longer will. */
function leftTargets(pending: readonly Pending[]): Set<string> {
  const left = new Set<string>();
  for (const { table, update } of pending) {
    const referring = new Set(table.references.filter((reference) => reference.hard).flatMap((reference) => reference.columns));
    for (const { row, was, columns } of update) {
      if (!columns.some((column) => referring.has(column))) continue;
      const kept = new Set(targetsOf(table, row));
      for (const target of targetsOf(table, was)) if (!kept.has(target)) left.add(target);
    }
  }
  return left;
}

/** The removed rows that must wait until updates have left them, and the removed parents of those. */
function lateRemovals(order: Order, pending: readonly Pending[]): ReadonlySet<Row> {
  const held = leftTargets(pending);
  const late = new Set<Row>();
  if (held.size === 0) return late;
  const removals = pending.flatMap(({ table, remove }) =>
    [...remove.values()].map((row) => ({ table, row, names: namesOf(order, table, row) })));
  for (let grown = true; grown;) {
    grown = false;
    for (const { table, row, names } of removals) {
      if (late.has(row) || !names.some((name) => held.has(name))) continue;
      late.add(row);
      for (const target of targetsOf(table, row)) held.add(target);
      grown = true;
    }
  }
  return late;
}

/**
 * The steps that apply `differences` (of different aggregates) in one transaction. Unique values that two aggregates swap are
 * not untangled: the database answers E_ROWS_UNIQUE and the caller decides.
 */
export function planOf(service: Service, differences: readonly Difference[]): readonly Step[] {
  const order = orderOf(service);
  const byTable = gather(order.tables, differences);
  const parentsFirst = order.tables.map((table) => present(byTable.get(table.name), table.name));
  const childrenFirst = [...parentsFirst].reverse();
  const late = lateRemovals(order, parentsFirst);
  const inserted = new Set(parentsFirst.flatMap(({ table, insert }) =>
    [...insert.values()].flatMap((row) => namesOf(order, table, row))));
  const isLate = (table: Table, { row }: RowUpdate): boolean =>
    inserted.size > 0 && targetsOf(table, row).some((target) => inserted.has(target));
  const removals = (wantLate: boolean): readonly Step[] => childrenFirst.flatMap(({ table, remove }) => {
    const levels = levelsOf(order, table, [...remove.values()].filter((row) => late.has(row) === wantLate));
    return [...levels].reverse().map((rows): Step => ({ verb: "remove", table, rows }));
  });
  const updates = (wantLate: boolean): readonly Step[] => parentsFirst.flatMap(({ table, update }) =>
    updateSteps(table, update.filter((one) => isLate(table, one) === wantLate)));
  const inserts = parentsFirst.flatMap(({ table, insert }) =>
    levelsOf(order, table, [...insert.values()]).map((rows): Step => ({ verb: "insert", table, rows })));
  return [...removals(false), ...updates(false), ...inserts, ...updates(true), ...removals(true)];
}
