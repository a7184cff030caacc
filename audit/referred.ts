/**
 * What an image in the stream refers to, as names: the aggregates whose rows it needs, and where a reference names no aggregate
 * (a row that another kind owns, columns that are no key), a mark of the row. Pure, and forgiving: a payload that cannot be read
 * refers to nothing here, and a missed reference only means that the next audit finds what a tombstone would have told at once.
 */
import type { Kind, Service } from "../schemas/define.ts";
import { markOf, needsOf, type Need } from "../schemas/references.ts";
import { keyText, type AggregateKey, type Row } from "../schemas/row.ts";

export interface Referred {
  /** Names and marks that the image needs. */
  readonly needs: readonly string[];
  /** Marks that other kinds may need and the image provides. */
  readonly provides: readonly string[];
}

export const REFERS_TO_NOTHING: Referred = { needs: [], provides: [] };

/** Column sets, beside their keys, by which tables of other kinds refer to a table. */
type Targets = ReadonlyMap<string, readonly (readonly string[])[]>;

const TARGETS = new WeakMap<Service, Targets>();

function namesKey(kind: Kind, table: string, columns: readonly string[]): boolean {
  return kind.root === table && columns.length === kind.key.length && kind.key.every((column) => columns.includes(column));
}

function targetsOf(service: Service): Targets {
  const known = TARGETS.get(service);
  if (known !== undefined) return known;
  const targets = new Map<string, (readonly string[])[]>();
  for (const table of service.tables.values()) {
    for (const { table: target, to } of table.references) {
      const kind = service.kindOfTable.get(target);
      if (kind === undefined || kind === service.kindOfTable.get(table.name) || namesKey(kind, target, to)) continue;
      const sets = targets.get(target) ?? [];
      if (!sets.some((set) => set.join() === to.join())) sets.push(to);
      targets.set(target, sets);
    }
  }
  TARGETS.set(service, targets);
  return targets;
}

function textOfNeed(service: Service, need: Need): string {
  const kind = service.kindOfTable.get(need.table);
  if (kind === undefined || !namesKey(kind, need.table, need.columns)) return need.mark;
  return keyText({ kind: kind.name, values: kind.key.map((column) => String(need.values[need.columns.indexOf(column)] ?? "")) });
}

function isRow(value: unknown): value is Row {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The rows of a payload, of tables that the service declares; undefined when it is not what schemas/change.ts writes. */
function rowsOf(service: Service, payload: Uint8Array): Readonly<Record<string, readonly Row[]>> | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString("utf8"));
  } catch {
    return undefined;
  }
  const rows = isRow(parsed) ? (parsed as Readonly<Record<string, unknown>>)["rows"] : undefined;
  if (typeof rows !== "object" || rows === null) return undefined;
  const tables = Object.entries(rows as Readonly<Record<string, unknown>>).filter(([name]) => service.tables.has(name));
  return Object.fromEntries(tables.map(([name, held]) => [name, Array.isArray(held) ? held.filter(isRow) : []]));
}

/** What the image of `key` in `payload` refers to and provides. */
export function referredBy(service: Service, key: AggregateKey, payload: Uint8Array): Referred {
  const rows = rowsOf(service, payload);
  if (rows === undefined) return REFERS_TO_NOTHING;
  const own = keyText(key);
  const needs = needsOf(service, { key, rows }).map((need) => textOfNeed(service, need)).filter((name) => name !== own);
  const provides: string[] = [];
  for (const [table, sets] of targetsOf(service)) {
    for (const row of rows[table] ?? []) {
      for (const columns of sets) provides.push(markOf(table, columns, columns.map((column) => row[column] ?? null)));
    }
  }
  return { needs: [...new Set(needs)], provides: [...new Set(provides)] };
}
