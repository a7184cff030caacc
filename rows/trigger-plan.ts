/**
 * Which aggregates a changed row belongs to, said so that a database can say it by itself: from the service file and the live
 * foreign keys to one plan per table, which the engines turn into triggers (rows/postgres-triggers.ts, rows/mariadb-triggers.ts)
 * and the memory twin interprets. Pure.
 *
 * A mark is a row of MARKS_TABLE: the kind and the values that name the aggregate, as JSON; without values the whole kind.
 * Invariants: every row that an image holds has a trail to the aggregate's name; a row whose trail is broken is in no image, and
 * whatever broke the trail left its own mark. A mark may be needless, never missing, except where ADR 0020 says so.
 * Not here: SQL, installing (rows/triggers.ts), reading marks (capture/triggers.ts).
 */
import { assert, present } from "../core/assert.ts";
import { declareTable, type ColumnKind, type Kind, type Reference, type Service, type Table } from "../schemas/define.ts";
import { columnKind, isNullable } from "./wire.ts";
import type { LiveTable } from "./rows.ts";

/** Where triggers leave their marks. Nothing is ever updated in it: whoever has seen to a mark deletes it. */
export const MARKS_TABLE = declareTable("holdfast_dirty", {
  key: ["id"], counted: "id",
  columns: { id: "integer", kind: "text", names: "text?" },
});

/** From the rows of the step before (0: the changed row) to rows of `table` whose columns `on[0]` equal its columns `on[1]`. */
export interface Step {
  readonly table: string;
  readonly on: readonly (readonly [here: string, before: string])[];
}

/** A value of the aggregate's key: a column of the row reached after `step` steps. */
export interface NamePart {
  readonly step: number;
  readonly column: string;
  readonly kind: ColumnKind;
  readonly nullable: boolean;
}

/** The way from a row to the names of aggregates. */
export interface Trail {
  readonly kind: string;
  readonly steps: readonly Step[];
  /** Undefined: the kind is marked as a whole, if the steps lead anywhere. */
  readonly names: readonly NamePart[] | undefined;
}

export interface TableMarks {
  readonly table: Table;
  readonly kind: string;
  /** Columns that travel: only they count as a change. */
  readonly watched: readonly string[];
  /** The aggregate that a row of this table belongs to. */
  readonly own: Trail;
  /** Columns of the row itself that lead to its aggregate. */
  readonly leading: readonly string[];
  /** Rows that the database deletes or changes with a deleted row; for engines whose cascades fire no triggers. */
  readonly dependents: readonly Trail[];
  /** Kinds that may change with certain columns of a row, for the same engines. */
  readonly rekeyed: readonly { readonly columns: readonly string[]; readonly kinds: readonly string[] }[];
}

/** Kinds of columns that both engines write into a mark exactly as they travel; a key of others marks its whole kind. */
const NAMED_IN_SQL: readonly ColumnKind[] = ["text", "integer", "bigint", "boolean"];

/** Steps of one trail at most: deeper chains of ownership and cascades end in a mark of the whole kind. */
const STEPS_MAX = 8;

/** The plans of every synchronised table, in the order of the service file. `live` says which foreign keys cascade. */
export function planMarks(service: Service, live: readonly LiveTable[]): readonly TableMarks[] {
  return [...service.tables.values()].map((table) => {
    const own = trailOf(service, table.name);
    const first = own.steps[0]?.on.map(([, before]) => before) ?? [];
    const named = own.names?.filter(({ step }) => step === 0).map(({ column }) => column) ?? [];
    return { table, kind: own.kind, watched: table.sent, own, leading: [...new Set([...named, ...first])],
      dependents: dependentsOf(service, live, table.name), rekeyed: rekeyedBy(service, table) };
  });
}

function tableNamed(service: Service, name: string): Table {
  return present(service.tables.get(name), name);
}

function kindOfTable(service: Service, name: string): Kind {
  return present(service.kindOfTable.get(name), name);
}

/** From a row of `name` up to the root's key, with as few steps as the columns allow. */
function trailOf(service: Service, name: string): Trail {
  const kind = kindOfTable(service, name);
  const chain: { readonly table: string; readonly by: Readonly<Record<string, string>> }[] = [];
  for (let table = name; table !== kind.root; ) {
    const owned = present(kind.owns.find((each) => each.table === table), table);
    chain.push({ table, by: owned.by });
    table = owned.of ?? kind.root;
  }
  const tables = [...chain.map(({ table }) => table), kind.root];
  const names = kind.key.map((key): NamePart => {
    let column = key;
    let step = chain.length;
    // The column that refers to a value is as good as the value, and saves looking for the row that has it.
    for (; step > 0; step -= 1) {
      const lower = Object.entries(chain[step - 1]?.by ?? {}).find(([, parent]) => parent === column);
      if (lower === undefined) break;
      [column] = lower;
    }
    const table = tableNamed(service, present(tables[step], "a table of the chain"));
    return { step, column, kind: columnKind(table, column), nullable: isNullable(present(table.columns[column], column)) };
  });
  const length = Math.max(...names.map(({ step }) => step));
  const steps = chain.slice(0, length).map(({ by }, place): Step =>
    ({ table: present(tables[place + 1], "the parent"), on: Object.entries(by).map(([child, parent]) => [parent, child]) }));
  const isWritable = names.every((part) => NAMED_IN_SQL.includes(part.kind));
  return { kind: kind.name, steps, names: isWritable ? names : undefined };
}

/** A trail that begins after `steps`. */
function after(steps: readonly Step[], trail: Trail): Trail {
  const names = trail.names?.map((part) => ({ ...part, step: part.step + steps.length }));
  const all = [...steps, ...trail.steps];
  return all.length > STEPS_MAX ? { kind: trail.kind, steps, names: undefined } : { kind: trail.kind, steps: all, names };
}

/** True when rows of `child` that `columns` → `to` lead to a row of `parent` are owned by that row. */
function isOwnedBy(service: Service, child: string, parent: string, columns: readonly string[], to: readonly string[]): boolean {
  const kind = kindOfTable(service, child);
  const owned = kind.owns.find((each) => each.table === child);
  return owned !== undefined && (owned.of ?? kind.root) === parent
    && Object.entries(owned.by).every(([column, target]) =>
      columns.some((each, place) => each === column && to[place] === target));
}

/** Trails from a row of `name` to the aggregates, other than its own, that lose or change rows when the row is deleted. */
function dependentsOf(service: Service, live: readonly LiveTable[], name: string): readonly Trail[] {
  const found: Trail[] = [];
  const walk = (parent: string, steps: readonly Step[], inside: boolean): void => {
    for (const { name: child, references } of live) {
      if (!service.tables.has(child)) continue;
      for (const { columns, table, to, onDelete } of references) {
        if (table !== parent || onDelete === "restrict") continue;
        const next = [...steps, { table: child, on: columns.map((column, place): readonly [string, string] =>
          [column, present(to[place], "as many columns on both sides")]) }];
        const isOwned = inside && isOwnedBy(service, child, parent, columns, to);
        const isCircle = child === name || steps.some((step) => step.table === child);
        const isEnd = isCircle || next.length > STEPS_MAX;
        const trail = trailOf(service, child);
        if (isEnd) found.push({ kind: trail.kind, steps: next, names: undefined });
        else if (!isOwned) found.push(after(next, trail));
        if (!isEnd && onDelete === "cascade") walk(child, next, isOwned);
      }
    }
  };
  walk(name, [], true);
  return found;
}

/** Which kinds may change with the columns that other tables refer to. Keys hardly ever change, so a whole kind is no loss. */
function rekeyedBy(service: Service, table: Table): TableMarks["rekeyed"] {
  const groups = new Map<string, { readonly columns: readonly string[]; readonly kinds: Set<string> }>();
  for (const { child, reference } of referencesTo(service, table.name)) {
    const group = groups.get(reference.to.join()) ?? { columns: reference.to, kinds: new Set<string>() };
    groups.set(reference.to.join(), group);
    if (!isOwnedBy(service, child.name, table.name, reference.columns, reference.to)) {
      group.kinds.add(kindOfTable(service, child.name).name);
    }
    for (const kind of kindsBeyond(service, child.name, reference.columns, new Set([table.name]))) group.kinds.add(kind);
  }
  return [...groups.values()].filter(({ kinds }) => kinds.size > 0).map(({ columns, kinds }) => ({ columns, kinds: [...kinds] }));
}

/** Kinds with rows that refer to these columns of `name`, directly or through others. */
function kindsBeyond(service: Service, name: string, columns: readonly string[], seen: ReadonlySet<string>): ReadonlySet<string> {
  const kinds = new Set<string>();
  for (const { child, reference } of referencesTo(service, name)) {
    if (seen.has(child.name) || !reference.to.some((column) => columns.includes(column))) continue;
    kinds.add(kindOfTable(service, child.name).name);
    for (const kind of kindsBeyond(service, child.name, reference.columns, new Set([...seen, name]))) kinds.add(kind);
  }
  return kinds;
}

function referencesTo(service: Service, name: string): readonly { readonly child: Table; readonly reference: Reference }[] {
  return [...service.tables.values()].flatMap((child) => child.references
    .filter((reference) => reference.hard && reference.table === name).map((reference) => ({ child, reference })));
}

const EVENT_NAME_MAX = 63;

/** `holdfast_<table>_<event>`, shortened by `hash` where an engine's bound of 63 bytes asks for it. */
export function triggerName(table: string, event: string, hash: (text: string) => string): string {
  const name = `holdfast_${table}_${event}`;
  if (Buffer.byteLength(name) <= EVENT_NAME_MAX) return name;
  const tail = `_${hash(name).slice(0, 8)}_${event}`;
  assert(tail.length < EVENT_NAME_MAX, `${event} is a short word`);
  const kept = Buffer.from(`holdfast_${table}`).subarray(0, EVENT_NAME_MAX - tail.length).toString("utf8");
  return kept.replace(/\ufffd+$/, "") + tail;
}
