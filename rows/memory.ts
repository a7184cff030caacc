/**
 * The memory twin of the row port: the same guarantees without a database, for tests and for the simulator, which runs
 * thousands of transactions a second on it.
 *
 * Invariants: one writer at a time, in order of arrival; a snapshot sees the last commit before it began and nothing after;
 * constraints are checked row by row as they are written, the stricter of what the two engines do; after an error outside
 * a savepoint a transaction can only fail, as on the real adapters.
 * Not here: locks of single rows (a writer has everything), schema migrations.
 */
import { createHash } from "node:crypto";
import { assert, present } from "../core/assert.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Service, Table } from "../schemas/define.ts";
import { pickColumns, rowText, type Row, type Value } from "../schemas/row.ts";
import { completeRow } from "./complete.ts";
import type { MemoryTable } from "./memory-table.ts";
import { memoryTriggers } from "./memory-triggers.ts";
import {
  faultError, meetFault, MemoryStore, referenceError, uniqueError, type CommitFault, type MemoryOptions, type RowFaults,
  type Written,
} from "./memory-store.ts";
import type { LiveTable, Match, Page, RowReader, Rows, RowWriter } from "./rows.ts";
import { MARKS_TABLE } from "./trigger-plan.ts";
import type { RowTriggers } from "./triggers.ts";
import { columnKind, isNullable, kindOf } from "./wire.ts";

class MemoryReader implements RowReader {
  protected readonly store: MemoryStore;
  protected readonly stamp: number;
  protected readonly faults: RowFaults | undefined;
  readonly #generation: number;

  constructor(store: MemoryStore, stamp: number, faults: RowFaults | undefined) {
    this.store = store;
    this.stamp = stamp;
    this.faults = faults;
    this.#generation = store.generation;
  }

  /** True when the server that this began on is gone. */
  protected get isCutOff(): boolean {
    return this.#generation !== this.store.generation;
  }

  /** Runs one call; the writer adds what an error does to its transaction. */
  protected call<T>(verb: string, table: Table, work: (rows: MemoryTable) => T): Promise<T> {
    return Promise.resolve().then(() => {
      if (this.isCutOff) throw faultError("unavailable");
      meetFault(this.faults, verb, table);
      return work(this.store.tableOf(table));
    });
  }

  select(table: Table, match: Match, columns?: readonly string[]): Promise<Row[]> {
    const wanted = columns ?? allOf(table);
    return this.call("select", table, (rows) => this.matching(rows, match).map((row) => pickColumns(row, wanted)));
  }

  protected matching(rows: MemoryTable, match: Match): readonly Row[] {
    const texts = new Set(match.values.map((tuple) => rows.tupleText(tuple)));
    return [...texts].flatMap((text) => rows.find(match.columns, text, this.stamp));
  }

  page(table: Table, page: Page, columns?: readonly string[]): Promise<Row[]> {
    return this.call("page", table, (rows) => {
      const found: Row[] = [];
      for (const row of rows.inOrder(this.stamp)) {
        if (found.length === page.limit) break;
        if (page.after !== undefined && rows.compare(row, page.after) <= 0) continue;
        found.push(pickColumns(row, columns ?? allOf(table)));
      }
      return found;
    });
  }

  above(table: Table, column: string, floor: number, limit: number): Promise<Row[]> {
    return this.call("above", table, (rows) => [...rows.inOrder(this.stamp)]
      .filter((row) => row[column] !== null && Number(row[column]) > floor)
      .sort((left, right) => Number(left[column]) - Number(right[column])).slice(0, limit));
  }

  span(table: Table, column: string): Promise<{ readonly least: number; readonly most: number } | undefined> {
    return this.call("span", table, (rows) => {
      let found: { readonly least: number; readonly most: number } | undefined;
      for (const row of rows.inOrder(this.stamp)) {
        if ((row[column] ?? null) === null) continue;
        const value = Number(row[column]);
        found = { least: Math.min(value, found?.least ?? value), most: Math.max(value, found?.most ?? value) };
      }
      return found;
    });
  }

  checksum(table: Table): Promise<string> {
    return this.call("checksum", table, (rows) => {
      const texts = [...rows.inOrder(this.stamp)].map((row) => rowText(row, table.sent)).sort();
      return createHash("sha256").update(JSON.stringify(texts)).digest("base64url");
    });
  }
}

function allOf(table: Table): readonly string[] {
  return Object.keys(table.columns);
}

class MemoryWriter extends MemoryReader implements RowWriter {
  /** Every version written, in order, so that a savepoint or the whole transaction can be undone. */
  readonly #written: Written[] = [];
  #depth = 0;
  /** Why this transaction can only fail. */
  doom: unknown;

  protected override call<T>(verb: string, table: Table, work: (rows: MemoryTable) => T): Promise<T> {
    return Promise.resolve().then(() => {
      if (this.doom !== undefined) throw this.doom;
      try {
        meetFault(this.faults, verb, table);
        return work(this.store.tableOf(table));
      } catch (error) {
        if (this.#depth === 0 || isOperating(error, "E_ROWS_UNAVAILABLE", "E_ROWS_CONTENDED")) this.doom = error;
        throw error;
      }
    });
  }

  lock(table: Table, match: Match): Promise<Row[]> {
    return this.call("lock", table, (rows) => this.matching(rows, match).map((row) => pickColumns(row, allOf(table))));
  }

  insert(table: Table, rows: readonly Row[]): Promise<void> {
    return this.call("insert", table, (stored) => {
      for (const given of rows) {
        let row = completeRow(table, this.store.fit(table, given));
        if (table.counted !== undefined) {
          const counted = row[table.counted] ?? null;
          if (counted === null) row = { ...row, [table.counted]: countedValue(table, stored.nextCount()) };
          else if (this.store.options.ignoresCase === true) stored.countFrom(Number(counted) + 1);
        }
        const key = stored.textOf(row, table.key);
        if (stored.get(key, this.stamp) !== undefined) throw uniqueError(table, table.key);
        this.#check(stored, row, undefined);
        this.#put(stored, key, row);
      }
    });
  }

  update(table: Table, rows: readonly Row[], columns: readonly string[]): Promise<void> {
    assert(columns.every((column) => !table.key.includes(column)), "a primary key is never updated");
    return this.call("update", table, (stored) => {
      for (const given of rows) {
        const key = stored.textOf(given, table.key);
        const was = stored.get(key, this.stamp);
        if (was === undefined) continue;
        const row = { ...was, ...pickColumns(this.store.fit(table, given), columns) };
        this.#check(stored, row, was);
        this.#checkLeaving(stored, was, row);
        this.#put(stored, key, row);
      }
    });
  }

  remove(table: Table, rows: readonly Row[]): Promise<void> {
    return this.call("remove", table, (stored) => {
      for (const given of rows) this.#removeRow(stored, stored.textOf(given, table.key));
    });
  }

  async savepoint<T>(work: () => Promise<T>): Promise<T> {
    if (this.doom !== undefined) throw this.doom;
    const mark = this.#written.length;
    this.#depth++;
    try {
      return await work();
    } catch (error) {
      this.undoTo(mark);
      throw error;
    } finally {
      this.#depth--;
    }
  }

  /** Takes back everything written after the first `mark` versions. */
  undoTo(mark: number): void {
    for (const { rows, key } of this.#written.splice(mark).reverse()) rows.undo(key);
  }

  /** Makes what was written the state that new snapshots see. */
  publish(by: string | undefined): void {
    this.store.commit(this.stamp, this.#written, "commit", by);
  }

  #put(rows: MemoryTable, key: string, row: Row | undefined): void {
    const { triggers } = this.store;
    const was = triggers === undefined ? undefined : rows.get(key, this.stamp);
    rows.put(key, row, this.stamp);
    this.#written.push({ rows, key });
    for (const mark of triggers?.marksOf(rows.table.name, was, row, this.stamp) ?? []) {
      const marks = this.store.tableOf(MARKS_TABLE);
      this.#put(marks, marks.textOf(mark, MARKS_TABLE.key), mark);
    }
  }

  #removeRow(stored: MemoryTable, key: string): void {
    const was = stored.get(key, this.stamp);
    if (was === undefined) return;
    this.#put(stored, key, undefined);
    this.#checkLeaving(stored, was, undefined);
  }

  /** Not null, unique keys and references of a row about to be written. */
  #check(stored: MemoryTable, row: Row, was: Row | undefined): void {
    const { table } = stored;
    for (const [column, type] of Object.entries(table.columns)) {
      if ((row[column] ?? null) === null && !isNullable(type)) {
        throw new OperatingError("E_ROWS_REFUSED", "a column may not be NULL", { table: table.name, column });
      }
    }
    const ownKey = stored.textOf(row, table.key);
    for (const columns of table.unique) {
      if (columns.some((column) => (row[column] ?? null) === null)) continue;
      const others = stored.find(columns, stored.textOf(row, columns), this.stamp);
      if (others.some((other) => stored.textOf(other, table.key) !== ownKey)) throw uniqueError(table, columns);
    }
    if (this.store.options.ignoresReferences === true) return;
    for (const { columns, table: target, to, hard, markers } of table.references) {
      const tuple = columns.map((column) => row[column] ?? null);
      // Rows that markers name come with the service's migrations; nobody has to make them here.
      if (columns.length === 1 && markers?.includes(String(tuple[0])) === true) continue;
      const isKept = was !== undefined && columns.every((column) => was[column] === row[column]);
      if (!hard || isKept || tuple.includes(null)) continue;
      const parents = this.store.tables.get(target);
      if (parents === undefined) continue;
      const isOwn = target === table.name && stored.textOf(row, to) === parents.tupleText(tuple);
      if (!isOwn && parents.find(to, parents.tupleText(tuple), this.stamp).length === 0) throw referenceError(table, columns);
    }
  }

  /** What refers to a row that goes, or whose referred-to values change. */
  #checkLeaving(stored: MemoryTable, was: Row, now: Row | undefined): void {
    if (this.store.options.ignoresReferences === true) return;
    for (const { table: children, columns, to, cascades } of this.store.incoming.get(stored.table.name) ?? []) {
      const text = stored.textOf(was, to);
      if (now !== undefined && stored.textOf(now, to) === text) continue;
      if (stored.find(to, text, this.stamp).some((other) => other !== was)) continue;
      for (const child of children.find(columns, text, this.stamp)) {
        if (!cascades || now !== undefined) throw referenceError(children.table, columns);
        this.#removeRow(children, children.textOf(child, children.table.key));
      }
    }
  }
}

function countedValue(table: Table, count: number): Value {
  return columnKind(table, present(table.counted, "a counted table")) === "bigint" ? String(count) : count;
}

function liveTable(table: Table, options: MemoryOptions): LiveTable {
  const columns = Object.entries(table.columns).map(([name, type]) => ({
    name, type: kindOf(type), carries: [kindOf(type)], nullable: isNullable(type),
    ...(kindOf(type) === "datetime" ? { fractionDigits: options.fractionDigits ?? 6 } : {}),
  }));
  const onDelete = options.cascades?.includes(table.name) === true ? "cascade" : "restrict";
  const references = table.references.filter((reference) => reference.hard)
    .map(({ columns: from, table: target, to }) => ({ columns: from, table: target, to, onDelete }));
  return { name: table.name, columns, key: table.key, unique: table.unique, references };
}

/** The twin, with what can happen to a database server as a whole. */
export interface MemoryTwin extends Rows {
  /** Number of the last commit. */
  readonly commits: number;
  /** Takes back everything after that commit, as a failover or a restored backup does, and cuts everybody off. */
  rewind(commit: number): void;
  /** The same database for somebody else, with faults of his own; `by` names him to the observer. */
  session(by: string, faults?: RowFaults): Rows;
}

class MemoryRows implements MemoryTwin {
  readonly engine = "memory";
  readonly #store: MemoryStore;
  readonly #faults: RowFaults | undefined;
  readonly #by: string | undefined;
  #closed = false;

  constructor(store: MemoryStore, faults: RowFaults | undefined, by: string | undefined) {
    this.#store = store;
    this.#faults = faults;
    this.#by = by;
  }

  session(by: string, faults?: RowFaults): Rows {
    this.#store.joins(faults);
    return new MemoryRows(this.#store, faults, by);
  }

  async snapshot<T>(work: (read: RowReader) => Promise<T>): Promise<T> {
    this.#begin();
    const stamp = this.#store.stampNow(this.#faults);
    this.#store.watch(stamp);
    try {
      return await work(new MemoryReader(this.#store, stamp, this.#faults));
    } finally {
      this.#store.unwatch(stamp);
    }
  }

  transaction<T>(work: (write: RowWriter) => Promise<T>): Promise<T> {
    const result = this.#store.lastWriter.then(() => this.#write(work));
    this.#store.lastWriter = result.catch(() => undefined);
    return result;
  }

  async #write<T>(work: (write: RowWriter) => Promise<T>): Promise<T> {
    this.#begin();
    const writer = new MemoryWriter(this.#store, this.#store.committed + 1, this.#faults);
    this.#store.abortWriter = () => {
      writer.undoTo(0);
      writer.doom = faultError("unavailable");
    };
    let fault: CommitFault | undefined;
    let result: T;
    try {
      result = await work(writer);
      if (writer.doom !== undefined) throw writer.doom;
      fault = this.#faults?.beforeCommit?.();
      if (fault !== undefined && fault !== "unknown-stored") throw faultError(fault);
    } catch (error) {
      writer.undoTo(0);
      throw error;
    } finally {
      this.#store.abortWriter = undefined;
    }
    writer.publish(this.#by);
    if (fault !== undefined) throw faultError(fault);
    return result;
  }

  #begin(): void {
    if (this.#closed) throw new OperatingError("E_ROWS_UNAVAILABLE", "the row store is closed");
    meetFault(this.#faults, "begin", undefined);
  }

  get commits(): number {
    return this.#store.committed;
  }

  rewind(commit: number): void {
    this.#store.rewind(commit);
  }

  reflect(): Promise<readonly LiveTable[]> {
    return Promise.resolve([...this.#store.tables.values()].map(({ table }) => liveTable(table, this.#store.options)));
  }

  revisions(): Promise<readonly string[]> {
    return Promise.resolve(this.#store.options.revisions ?? []);
  }

  ensureTables(tables: readonly Table[]): Promise<void> {
    for (const table of tables) if (!this.#store.tables.has(table.name)) this.#store.add(table, true);
    return Promise.resolve();
  }

  ensureCounter(table: Table, first: number): Promise<void> {
    this.#store.tableOf(table).keepCountFrom(first);
    return Promise.resolve();
  }

  triggers(service: Service): RowTriggers {
    return memoryTriggers(service, this.#store, () => this.reflect());
  }

  fit(table: Table, row: Row): Row {
    return this.#store.fit(table, row);
  }

  ping(): Promise<boolean> {
    return Promise.resolve(!this.#closed);
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }
}

/** A row store in memory that holds `tables`, empty. */
export function memoryRows(tables: readonly Table[], options: MemoryOptions = {}): MemoryTwin {
  const store = new MemoryStore(options);
  for (const table of tables) store.add(table, false);
  return new MemoryRows(store, options.faults, undefined);
}
