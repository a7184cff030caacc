/**
 * One transaction on one connection: the verbs of the row port as statements, and what an error does to the transaction.
 *
 * Invariants: statements of a turn run one after the other, in the order of the calls; once doomed, a turn runs nothing but
 * what ends it.
 * Not here: beginning and ending (relational.ts).
 */
import { assert, present } from "../core/assert.ts";
import { isOperating } from "../core/errors.ts";
import { rowText, type Row, type Value } from "../schemas/row.ts";
import type { Table } from "../schemas/define.ts";
import { completeRow } from "./complete.ts";
import { failureError, shortFractions, type Cell, type Engine, type Statement, type Target } from "./dialect.ts";
import { ROWS_PER_CALL_MAX, type Match, type Page, type RowWriter } from "./rows.ts";
import { columnKind, cutRow, runsOf } from "./wire.ts";

type Cells = readonly (readonly Cell[])[];

/** What a turn needs from the row store it belongs to. */
export interface Surroundings {
  readonly targetOf: (table: Table) => Promise<Target>;
  /** Runs a statement on the turn's connection; ends in any case. Throws the driver's errors. */
  readonly send: (statement: Statement) => Promise<Cells>;
}

/** A running transaction as reader and writer; rows/rows.ts says what the verbs mean. */
export class Turn<Connection> implements RowWriter {
  readonly #engine: Engine<Connection>;
  readonly #targetOf: Surroundings["targetOf"];
  readonly #send: Surroundings["send"];
  #last: Promise<unknown> = Promise.resolve();
  #savepoints = 0;
  #depth = 0;
  #doom: unknown;

  constructor(engine: Engine<Connection>, surroundings: Surroundings) {
    this.#engine = engine;
    this.#targetOf = surroundings.targetOf;
    this.#send = surroundings.send;
  }

  /** True when the connection is not worth a rollback. */
  get isLost(): boolean {
    return isOperating(this.#doom, "E_ROWS_UNAVAILABLE");
  }

  /** Waits for statements that were begun and that nobody waited for. */
  async settled(): Promise<void> {
    await this.#last;
  }

  /** Waits for what was begun; throws what doomed the turn, also when the work went on in spite of it. */
  async finish(): Promise<void> {
    await this.#last;
    if (this.#doom !== undefined) throw this.#doom;
  }

  /** Runs one statement in its turn. `table` names the table in an error where the server does not. */
  run(statement: Statement, table?: string): Promise<Cells> {
    const answer = this.#last.then(() => {
      if (this.#doom !== undefined) throw this.#doom;
      return this.#send(statement);
    }).catch((error: unknown) => {
      throw this.#noted(error, table);
    });
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  /** Runs a statement that must run even in a doomed turn, such as giving up a lock; its own failure does not matter. */
  async runAlways(statement: Statement): Promise<void> {
    await this.#last;
    await this.#send(statement).catch(() => undefined);
  }

  async select(table: Table, match: Match, columns?: readonly string[]): Promise<Row[]> {
    return this.#matching(table, match, columns ?? Object.keys(table.columns), false);
  }

  async lock(table: Table, match: Match): Promise<Row[]> {
    return this.#matching(table, match, Object.keys(table.columns), true);
  }

  async page(table: Table, page: Page, columns: readonly string[] = Object.keys(table.columns)): Promise<Row[]> {
    const target = await this.#targetOf(table);
    return this.#rowsOf(table, columns, await this.run(this.#engine.dialect.page(target, columns, page), table.name));
  }

  async above(table: Table, column: string, floor: number, limit: number): Promise<Row[]> {
    const target = await this.#targetOf(table);
    const columns = Object.keys(table.columns);
    const statement = this.#engine.dialect.above(target, columns, column, floor, limit);
    return this.#rowsOf(table, columns, await this.run(statement, table.name));
  }

  async span(table: Table, column: string): Promise<{ readonly least: number; readonly most: number } | undefined> {
    const { quote } = this.#engine.dialect;
    assert(column in table.columns, `${table.name}.${column} is declared`);
    const text = `SELECT min(${quote(column)}), max(${quote(column)}) FROM ${quote(table.name)}`;
    const [cells] = await this.run({ text, values: [] }, table.name);
    const [least, most] = cells ?? [];
    return least === null || least === undefined ? undefined : { least: Number(String(least)), most: Number(String(most)) };
  }

  async checksum(table: Table): Promise<string> {
    const target = await this.#targetOf(table);
    const [cells] = await this.run(this.#engine.dialect.checksum(target, table.sent), table.name);
    return String(present(cells?.[0], "a sum over no rows is a row"));
  }

  async insert(table: Table, rows: readonly Row[]): Promise<void> {
    const target = await this.#targetOf(table);
    // Cut here and not by the server, so that what is stored is what fit() says on every engine.
    const short = shortFractions(target.facts);
    const complete = rows.map((row) => cutRow(completeRow(table, row), short));
    const all = Object.keys(table.columns);
    const isCounted = (row: Row): boolean => table.counted !== undefined && (row[table.counted] ?? null) === null;
    await this.#insertRows(target, all, complete.filter((row) => !isCounted(row)));
    await this.#insertRows(target, all.filter((column) => column !== table.counted), complete.filter(isCounted));
  }

  async update(table: Table, rows: readonly Row[], columns: readonly string[]): Promise<void> {
    assert(columns.every((column) => !table.key.includes(column)), "a primary key is never updated");
    if (columns.length === 0) return;
    const target = await this.#targetOf(table);
    const short = shortFractions(target.facts);
    for (const run of this.#runsOf(rows.map((row) => cutRow(row, short)))) {
      for (const statement of this.#engine.dialect.update(target, run, columns)) await this.run(statement, table.name);
    }
  }

  async remove(table: Table, rows: readonly Row[]): Promise<void> {
    const target = await this.#targetOf(table);
    for (const run of this.#runsOf(rows)) {
      for (const statement of this.#engine.dialect.remove(target, run)) await this.run(statement, table.name);
    }
  }

  async savepoint<T>(work: () => Promise<T>): Promise<T> {
    const name = this.#engine.dialect.quote(`holdfast_${++this.#savepoints}`);
    await this.run({ text: `SAVEPOINT ${name}`, values: [] });
    this.#depth++;
    let result: T;
    try {
      result = await work();
    } catch (error) {
      this.#depth--;
      if (this.#doom === undefined) await this.run({ text: `ROLLBACK TO SAVEPOINT ${name}`, values: [] });
      throw error;
    }
    this.#depth--;
    await this.run({ text: `RELEASE SAVEPOINT ${name}`, values: [] });
    return result;
  }

  async #matching(table: Table, match: Match, columns: readonly string[], lock: boolean): Promise<Row[]> {
    const target = await this.#targetOf(table);
    const runs = this.#runsOf(match.values);
    // Spellings of one value that only the engine regards as equal may find a row in two runs.
    const read = runs.length > 1 ? [...new Set([...columns, ...table.key])] : columns;
    const found: Row[] = [];
    for (const values of runs) {
      for (const statement of this.#engine.dialect.select(target, read, { columns: match.columns, values }, lock)) {
        found.push(...this.#rowsOf(table, read, await this.run(statement, table.name)));
      }
    }
    if (runs.length <= 1) return found;
    return [...new Map(found.map((row) => [rowText(row, table.key), row])).values()];
  }

  async #insertRows(target: Target, columns: readonly string[], rows: readonly Row[]): Promise<void> {
    for (const run of this.#runsOf(rows)) {
      for (const statement of this.#engine.dialect.insert(target, columns, run)) await this.run(statement, target.table.name);
    }
  }

  #runsOf<T>(items: readonly T[]): readonly (readonly T[])[] {
    return items.length === 0 ? [] : runsOf(items, ROWS_PER_CALL_MAX);
  }

  #rowsOf(table: Table, columns: readonly string[], cells: Cells): Row[] {
    const { decode } = this.#engine.dialect;
    const kinds = columns.map((column) => columnKind(table, column));
    return cells.map((line) => {
      const row: Record<string, Value> = {};
      for (const [position, column] of columns.entries()) row[column] = decode(kinds[position] ?? "text", line[position] ?? null);
      return row;
    });
  }

  /** What the caller gets for an error of the driver; notes whether the turn can go on. */
  #noted(error: unknown, table: string | undefined): unknown {
    if (this.#doom !== undefined) return this.#doom;
    const failure = this.#engine.failureOf(error);
    const noted = failure === undefined ? error : failureError({ ...failure, facts: { table, ...withoutGaps(failure.facts) } });
    // Contention and lost connections end the whole transaction at the server, savepoints included.
    if (this.#depth === 0 || isOperating(noted, "E_ROWS_CONTENDED", "E_ROWS_UNAVAILABLE")) this.#doom = noted;
    return noted;
  }
}

/** Facts that are known. */
function withoutGaps<T>(facts: Readonly<Record<string, T>>): Readonly<Record<string, T>> {
  return Object.fromEntries(Object.entries(facts).filter(([, fact]) => fact !== undefined));
}
