/**
 * Which rows an image refers to and which it provides, as marks: one text per (table, columns, values). Pure. Marks ignore
 * case, because an engine may: a reference taken for satisfied that is not is caught by the database and set aside.
 */
import { present } from "../core/assert.ts";
import type { Reference, Service } from "./define.ts";
import type { Image, Row, Value } from "./row.ts";

/** A row that must be there before a change can be applied. */
export interface Need {
  readonly mark: string;
  readonly table: string;
  readonly columns: readonly string[];
  readonly values: readonly Value[];
  /** The database insists; a soft need is waited for only a while. */
  readonly hard: boolean;
}

/** The mark of a row by some of its columns. */
export function markOf(table: string, columns: readonly string[], values: readonly Value[]): string {
  return `${table}(${columns.join(",")})=${JSON.stringify(values).toLowerCase()}`;
}

function refersToNothing(reference: Reference, row: Row): boolean {
  const applies = Object.entries(reference.when ?? {}).every(([column, values]) => values.includes(row[column] ?? null));
  return !applies || reference.columns.some((column) => {
    const value = row[column] ?? null;
    return value === null || (reference.markers?.includes(String(value)) ?? false);
  });
}

/** Every row that the image's rows refer to, without those inside the image itself. */
export function needsOf(service: Service, image: Image): readonly Need[] {
  const needs = new Map<string, Need>();
  for (const [name, rows] of Object.entries(image.rows ?? {})) {
    const table = present(service.tables.get(name), name);
    for (const reference of table.references) {
      for (const row of rows) {
        if (refersToNothing(reference, row)) continue;
        const values = reference.columns.map((column) => row[column] ?? null);
        const mark = markOf(reference.table, reference.to, values);
        const hard = reference.hard || (needs.get(mark)?.hard ?? false);
        needs.set(mark, { mark, table: reference.table, columns: reference.to, values, hard });
      }
    }
  }
  for (const provided of marksOf(service, image)) needs.delete(provided);
  return [...needs.values()];
}

/** For each table, the column sets by which other tables refer to it. */
function targetsOf(service: Service): ReadonlyMap<string, readonly (readonly string[])[]> {
  const targets = new Map<string, Map<string, readonly string[]>>();
  for (const table of service.tables.values()) {
    for (const reference of table.references) {
      const known = targets.get(reference.table) ?? new Map<string, readonly string[]>();
      known.set(reference.to.join(","), reference.to);
      targets.set(reference.table, known);
    }
  }
  return new Map([...targets].map(([table, columns]) => [table, [...columns.values()]]));
}

const TARGETS = new WeakMap<Service, ReadonlyMap<string, readonly (readonly string[])[]>>();

/** Marks of the image's rows that others may refer to. */
export function marksOf(service: Service, image: Image): readonly string[] {
  let targets = TARGETS.get(service);
  if (targets === undefined) TARGETS.set(service, (targets = targetsOf(service)));
  const marks: string[] = [];
  for (const [name, rows] of Object.entries(image.rows ?? {})) {
    for (const columns of targets.get(name) ?? []) {
      for (const row of rows) marks.push(markOf(name, columns, columns.map((column) => row[column] ?? null)));
    }
  }
  return marks;
}
