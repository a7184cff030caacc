/**
 * One table of the memory twin: rows with their history, so that a snapshot keeps seeing the state it began with while a
 * writer goes on. A stamp is the number of a commit; the one running writer works under a stamp of its own, one above.
 *
 * Invariants: versions of a row ascend by stamp; at most one writer has versions above the last commit; indexes only ever
 * know too much, never too little: what they name is looked at again before it counts.
 * Not here: constraints between tables, transactions, faults (memory.ts).
 */
import { present } from "../core/assert.ts";
import type { ColumnKind, Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";
import { columnKind } from "./wire.ts";

interface RowVersion {
  readonly stamp: number;
  /** Undefined: the row was deleted. */
  readonly row: Row | undefined;
}

/** How values compare where the twin mimics an engine: the text two values share exactly when they count as equal. */
export type Folding = (value: Value) => Value;

type Index = Map<string, Set<string>>;

/** The rows of one declared table. Keys of rows are texts (textOf over the primary key), states are stamps. */
export class MemoryTable {
  readonly table: Table;
  readonly #fold: Folding;
  readonly #versions = new Map<string, RowVersion[]>();
  readonly #indexes = new Map<string, { readonly columns: readonly string[]; readonly entries: Index }>();
  #ordered: readonly string[] | undefined;
  /** What the counted key gets next. */
  counter = 1;
  #countFloor = 1;

  constructor(table: Table, fold: Folding) {
    this.table = table;
    this.#fold = fold;
  }

  /** The text of a row's values in `columns`, equal for rows that the engine regards as equal. */
  textOf(row: Row, columns: readonly string[]): string {
    return this.tupleText(columns.map((column) => row[column] ?? null));
  }

  tupleText(tuple: readonly Value[]): string {
    return JSON.stringify(tuple.map(this.#fold));
  }

  /** The row whose primary key has this text, as of `stamp`. */
  get(key: string, stamp: number): Row | undefined {
    const versions = this.#versions.get(key) ?? [];
    for (let position = versions.length - 1; position >= 0; position--) {
      const version = present(versions[position], "a version");
      if (version.stamp <= stamp) return version.row;
    }
    return undefined;
  }

  /** Rows as of `stamp` whose `columns` have this text. */
  find(columns: readonly string[], text: string, stamp: number): readonly Row[] {
    if (columns.join() === this.table.key.join()) {
      const row = this.get(text, stamp);
      return row === undefined ? [] : [row];
    }
    const found: Row[] = [];
    for (const key of this.#indexOf(columns).get(text) ?? []) {
      const row = this.get(key, stamp);
      if (row !== undefined && this.textOf(row, columns) === text) found.push(row);
    }
    return found;
  }

  /** Writes the row (undefined: deletes it) under the writer's stamp. */
  put(key: string, row: Row | undefined, stamp: number): void {
    let versions = this.#versions.get(key);
    if (versions === undefined) {
      this.#versions.set(key, (versions = []));
      this.#ordered = undefined;
    }
    versions.push({ stamp, row });
    if (row === undefined) return;
    for (const { columns, entries } of this.#indexes.values()) addEntry(entries, this.textOf(row, columns), key);
  }

  /** Takes back the newest version of a row. */
  undo(key: string): void {
    const versions = present(this.#versions.get(key), "undo follows put");
    const undone = versions.pop();
    if (undone?.row !== undefined) this.#dropEntries(key, undone.row, versions);
    if (versions.length === 0) this.#forget(key);
  }

  /** Drops versions of a row that no snapshot at or after `oldest` can see. */
  prune(key: string, oldest: number): void {
    const versions = this.#versions.get(key);
    if (versions === undefined) return;
    let visible = versions.length - 1;
    while (visible > 0 && present(versions[visible], "a version").stamp > oldest) visible--;
    const dropped = versions.splice(0, visible);
    for (const { row } of dropped) if (row !== undefined) this.#dropEntries(key, row, versions);
    const [first, second] = versions;
    if (first?.row === undefined && second === undefined) this.#forget(key);
  }

  /** Every row as of `stamp`, ascending by primary key, texts by code unit. */
  *inOrder(stamp: number): Generator<Row> {
    if (this.#ordered === undefined) {
      const tuples = [...this.#versions.keys()].map((key) => ({ key, tuple: JSON.parse(key) as readonly Value[] }));
      this.#ordered = tuples.sort((left, right) => this.#compareTuples(left.tuple, right.tuple)).map(({ key }) => key);
    }
    for (const key of this.#ordered) {
      const row = this.get(key, stamp);
      if (row !== undefined) yield row;
    }
  }

  /** Negative, zero or positive as the key of `left` comes before, is, or comes after that of `right`. */
  compare(left: Row, right: Row): number {
    const tuple = (row: Row): readonly Value[] => this.table.key.map((column) => this.#fold(row[column] ?? null));
    return this.#compareTuples(tuple(left), tuple(right));
  }

  /** The next value of the counted key, above everything counted or inserted before. */
  nextCount(): number {
    return this.counter++;
  }

  /** Counting goes on at `first` or where it already is. */
  countFrom(first: number): void {
    this.counter = Math.max(this.counter, first);
  }

  /** As countFrom, and a rewind does not take it back. */
  keepCountFrom(first: number): void {
    this.#countFloor = Math.max(this.#countFloor, first);
    this.countFrom(first);
  }

  /** Counting starts again at `next`, as after a rewind. */
  countAgainFrom(next: number): void {
    this.counter = Math.max(this.#countFloor, next);
  }

  #compareTuples(left: readonly Value[], right: readonly Value[]): number {
    for (const [position, column] of this.table.key.entries()) {
      const order = compareValues(columnKind(this.table, column), left[position] ?? null, right[position] ?? null);
      if (order !== 0) return order;
    }
    return 0;
  }

  #indexOf(columns: readonly string[]): Index {
    const name = columns.join(",");
    let index = this.#indexes.get(name);
    if (index === undefined) {
      index = { columns, entries: new Map() };
      this.#indexes.set(name, index);
      for (const [key, versions] of this.#versions) {
        for (const { row } of versions) if (row !== undefined) addEntry(index.entries, this.textOf(row, columns), key);
      }
    }
    return index.entries;
  }

  #forget(key: string): void {
    this.#versions.delete(key);
    this.#ordered = undefined;
  }

  #dropEntries(key: string, row: Row, kept: readonly RowVersion[]): void {
    for (const { columns, entries } of this.#indexes.values()) {
      const text = this.textOf(row, columns);
      if (kept.some((version) => version.row !== undefined && this.textOf(version.row, columns) === text)) continue;
      const keys = entries.get(text);
      keys?.delete(key);
      if (keys?.size === 0) entries.delete(text);
    }
  }
}

function compareValues(kind: ColumnKind, left: Value, right: Value): number {
  if (left === right) return 0;
  if (typeof left === "number" && typeof right === "number") return left - right;
  if (kind === "bigint") return BigInt(String(left)) < BigInt(String(right)) ? -1 : 1;
  return String(left) < String(right) ? -1 : 1;
}

function addEntry(entries: Index, text: string, key: string): void {
  const keys = entries.get(text);
  if (keys === undefined) entries.set(text, new Set([key]));
  else keys.add(key);
}
