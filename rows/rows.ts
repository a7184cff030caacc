/**
 * Port: rows of one database, seen through table declarations. Small relational verbs and no more; what an aggregate is,
 * what differs and what is applied is decided above, by code that runs unchanged on every adapter.
 *
 * All adapters (rows/postgres.ts, rows/mariadb.ts, rows/memory.ts) pass tests/contract/rows.suite.ts. They guarantee:
 * - values are wire values (schemas/define.ts ColumnKind), the same for both engines;
 * - a snapshot sees one state of the database, on the writer, no older than any transaction acknowledged before it began;
 * - a transaction is atomic; its effects are visible to every snapshot that begins after it resolved;
 * - sets are passed whole: one statement per call whatever the number of rows, up to ROWS_PER_CALL_MAX, split above it;
 * - identifiers come from declarations only, values are always bound.
 * Errors: E_ROWS_UNAVAILABLE, E_ROWS_CONTENDED, E_ROWS_COMMIT_UNKNOWN, E_ROWS_UNIQUE, E_ROWS_REFERENCE, E_ROWS_REFUSED.
 */
import type { Service, Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";
import type { RowTriggers } from "./triggers.ts";

/** Rows whose `columns`, taken together, equal one of `values` (tuples in the order of `columns`). */
export interface Match {
  readonly columns: readonly string[];
  readonly values: readonly (readonly Value[])[];
}

/** Part of a table in primary-key order: at most `limit` rows after `after` (key columns of the last row seen). */
export interface Page {
  readonly after?: Row | undefined;
  readonly limit: number;
}

export interface RowReader {
  /** Rows that match, all declared columns (or only `columns`), in no promised order. No match values: no rows. */
  select(table: Table, match: Match, columns?: readonly string[]): Promise<Row[]>;
  /** One page of the table, ascending by primary key in the engine's own order. */
  page(table: Table, page: Page, columns?: readonly string[]): Promise<Row[]>;
  /** Rows whose integer `column` is greater than `floor`, ascending by it, at most `limit`. */
  above(table: Table, column: string, floor: number, limit: number): Promise<Row[]>;
  /** Smallest and largest value of an integer column; undefined for an empty table. */
  span(table: Table, column: string): Promise<{ readonly least: number; readonly most: number } | undefined>;
  /**
   * One text over the sent columns of all rows, computed by the database: equal texts from one database mean equal rows, but for
   * chance (2^-60). Local columns do not count. Of two databases nothing may be concluded.
   */
  checksum(table: Table): Promise<string>;
}

export interface RowWriter extends RowReader {
  /** As select, and locks the rows until the transaction ends. */
  lock(table: Table, match: Match): Promise<Row[]>;
  /** Inserts rows; columns that a row does not name get their declared `local` value, else NULL. */
  insert(table: Table, rows: readonly Row[]): Promise<void>;
  /** Sets `columns` of the rows that have the same primary key. A row that is not there is not an error. */
  update(table: Table, rows: readonly Row[], columns: readonly string[]): Promise<void>;
  /** Deletes the rows that have the same primary key. */
  remove(table: Table, rows: readonly Row[]): Promise<void>;
  /** Runs `work` so that its failure undoes it alone; the error is thrown on. */
  savepoint<T>(work: () => Promise<T>): Promise<T>;
}

/** A column of the live database, in words both engines share. */
export interface LiveColumn {
  readonly name: string;
  /** Engine's own name of the type, for messages. */
  readonly type: string;
  /** Wire kinds this type can carry. */
  readonly carries: readonly string[];
  readonly nullable: boolean;
  /** Digits of a second kept by datetime columns. */
  readonly fractionDigits?: number;
}

export interface LiveTable {
  readonly name: string;
  readonly columns: readonly LiveColumn[];
  readonly key: readonly string[];
  readonly unique: readonly (readonly string[])[];
  readonly references: readonly { readonly columns: readonly string[]; readonly table: string; readonly to: readonly string[];
    readonly onDelete: string }[];
}

export interface Rows {
  readonly engine: "postgres" | "mariadb" | "memory";
  /** Runs `work` on one consistent, read-only state. */
  snapshot<T>(work: (read: RowReader) => Promise<T>): Promise<T>;
  /** Runs `work` and commits; any error of `work` rolls everything back and is thrown on. Not retried here. */
  transaction<T>(work: (write: RowWriter) => Promise<T>): Promise<T>;
  /** Every table of the live database. */
  reflect(): Promise<readonly LiveTable[]>;
  /** Values of one column of one table that no declaration covers (the migration revision). */
  revisions(table: string, column: string): Promise<readonly string[]>;
  /** Creates Holdfast's own tables where they are missing; never alters one that is there. */
  ensureTables(tables: readonly Table[]): Promise<void>;
  /** Makes the database count `column` of `table` from at least `first` for rows without an explicit value. */
  ensureCounter(table: Table, first: number): Promise<void>;
  /** The triggers through which this database itself notes which aggregates of `service` changed (rows/triggers.ts). */
  triggers(service: Service): RowTriggers;
  /** The value as this database can hold it: datetimes cut to the column's precision. Call after reflect(). */
  fit(table: Table, row: Row): Row;
  /** True when the database answers within its time bound. */
  ping(): Promise<boolean>;
  close(): Promise<void>;
}

/** Rows in one statement at most; adapters split larger sets. */
export const ROWS_PER_CALL_MAX = 1000;
