/**
 * Triggers of the memory twin: the same plans, interpreted at every row that is written. Cascades of the twin write row by row,
 * so they leave their marks as PostgreSQL's do.
 */
import { present } from "../core/assert.ts";
import type { Service } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";
import type { MemoryStore } from "./memory-store.ts";
import { MARKS_TABLE, planMarks, type TableMarks, type Trail } from "./trigger-plan.ts";
import type { RowTriggers } from "./triggers.ts";
import type { LiveTable } from "./rows.ts";

/** What is installed in a twin. */
export class MemoryTriggers {
  readonly #store: MemoryStore;
  readonly #plan: ReadonlyMap<string, TableMarks>;

  constructor(store: MemoryStore, plan: readonly TableMarks[]) {
    this.#store = store;
    this.#plan = new Map(plan.map((marks) => [marks.table.name, marks]));
  }

  /** The marks that a row leaves as it becomes `now`; undefined: it was, or is, not there. */
  marksOf(table: string, was: Row | undefined, now: Row | undefined, stamp: number): readonly Row[] {
    const marks = this.#plan.get(table);
    if (marks === undefined) return [];
    const differs = (columns: readonly string[]): boolean =>
      was === undefined || now === undefined || columns.some((column) => was[column] !== now[column]);
    if (!differs(marks.watched)) return [];
    const changed = [...(was === undefined ? [] : [was]), ...(now !== undefined && differs(marks.leading) ? [now] : [])];
    return changed.flatMap((row) => this.#follow(marks.own, row, stamp)).map((names) => ({ kind: marks.kind, names,
      id: this.#store.tableOf(MARKS_TABLE).nextCount() }));
  }

  /** The names at the end of a trail, as they stand in marks. */
  #follow(trail: Trail, row: Row, stamp: number): readonly (string | null)[] {
    let ways: readonly (readonly Row[])[] = [[row]];
    for (const { table, on } of trail.steps) {
      const rows = present(this.#store.tables.get(table), table);
      ways = ways.flatMap((way) => {
        const before = present(way.at(-1), "a way begins with a row");
        const tuple = on.map(([, column]): Value => before[column] ?? null);
        const found = tuple.includes(null) ? [] : rows.find(on.map(([here]) => here), rows.tupleText(tuple), stamp);
        return found.map((next) => [...way, next]);
      });
    }
    const { names } = trail;
    if (names === undefined) return ways.length === 0 ? [] : [null];
    const values = ways.map((way) => names.map(({ step, column }) => way[step]?.[column] ?? null));
    return values.filter((tuple) => !tuple.includes(null)).map((tuple) => JSON.stringify(tuple.map(String)));
  }
}

/** The triggers of `service` in the twin. */
export function memoryTriggers(service: Service, store: MemoryStore, live: () => Promise<readonly LiveTable[]>): RowTriggers {
  return {
    script: () => Promise.resolve(""),
    async install() {
      const plan = planMarks(service, await live());
      if (!store.tables.has(MARKS_TABLE.name)) store.add(MARKS_TABLE, true);
      store.triggers = new MemoryTriggers(store, plan);
    },
    remove() {
      store.triggers = undefined;
      store.tables.delete(MARKS_TABLE.name);
      return Promise.resolve();
    },
    missing: () => Promise.resolve(store.triggers === undefined ? ["triggers are missing"] : []),
  };
}
