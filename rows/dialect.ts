/**
 * What an engine must say about itself so that rows/relational.ts can be one row store for both: how statements are written
 * (pure), how they are run and cut off, what its errors mean, and what its catalogue holds.
 *
 * Invariants: names reach SQL only through the dialect's own quoting, values only as bound values; a statement is text
 * and values and nothing hidden.
 */
import { OperatingError, type ErrorCode, type Facts } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { ColumnKind, Table } from "../schemas/define.ts";
import type { Row, Value } from "../schemas/row.ts";
import type { LiveTable, Match, Page } from "./rows.ts";
import type { TriggerDialect } from "./triggers.ts";
import { datetimeFromSql, FRACTION_DIGITS, type ShortFractions } from "./wire.ts";

/** Where a database is and how long to wait for it. */
export interface DatabaseOptions {
  readonly engine: "postgres" | "mariadb";
  /** Host name or address; or the path of a socket (PostgreSQL: of its directory). One of the two. */
  readonly host?: string | undefined;
  readonly socketPath?: string | undefined;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: Secret;
  /** Connections at most; 8 unless said otherwise. */
  readonly poolMax?: number;
  /** How long one statement may take, and how long a caller waits for a free connection; 30 000 unless said otherwise. */
  readonly statementTimeoutMs?: number;
  /** How long making a connection may take; 5 000 unless said otherwise. */
  readonly connectTimeoutMs?: number;
}

/** The options with every default filled in. */
export interface DatabaseSettings extends DatabaseOptions {
  readonly poolMax: number;
  readonly statementTimeoutMs: number;
  readonly connectTimeoutMs: number;
  /** How long a statement waits for a lock: well below its own bound, so that the answer is "contended" and not "gone". */
  readonly lockTimeoutMs: number;
}

/** Text with placeholders of the engine, and the values for them in order. */
export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
}

/** A value as the driver hands it over, undecoded. */
export type Cell = string | Buffer | null;

/** What writing SQL needs to know of a live column beyond its declaration. */
export interface ColumnFacts {
  /** The type without length or precision, quoted as the engine wants it. */
  readonly sqlType: string;
  /** Digits of a second that a datetime column keeps. */
  readonly fractionDigits?: number | undefined;
  /** Values of an enum; others match nothing. */
  readonly labels?: ReadonlySet<string> | undefined;
  /** Character set of a text column. */
  readonly charset?: string | undefined;
}

export type TableFacts = ReadonlyMap<string, ColumnFacts>;

/** A declared table beside what the live database says about its columns. */
export interface Target {
  readonly table: Table;
  readonly facts: TableFacts;
}

/** The columns that keep fewer than six digits of a second. */
export function shortFractions(facts: TableFacts): ShortFractions {
  const short = new Map<string, number>();
  for (const [column, { fractionDigits }] of facts) {
    if (fractionDigits !== undefined && fractionDigits < FRACTION_DIGITS) short.set(column, fractionDigits);
  }
  return short;
}

export interface Catalog {
  readonly tables: readonly LiveTable[];
  readonly facts: ReadonlyMap<string, TableFacts>;
}

/** Runs one statement and gives its rows, cells in the order of its columns. */
export type Run = (statement: Statement) => Promise<readonly (readonly Cell[])[]>;

/** SQL of one engine; pure. Sets longer than ROWS_PER_CALL_MAX never get here; a set may still need several statements. */
export interface Dialect {
  quote(name: string): string;
  select(target: Target, columns: readonly string[], match: Match, lock: boolean): readonly Statement[];
  page(target: Target, columns: readonly string[], page: Page): Statement;
  /** Rows whose column is above `floor`, ascending. */
  above(target: Target, columns: readonly string[], column: string, floor: number, limit: number): Statement;
  /** One row of one cell: a sum over hashes of all rows, by these columns. */
  checksum(target: Target, columns: readonly string[]): Statement;
  /** Rows are complete in `columns` and fitted. */
  insert(target: Target, columns: readonly string[], rows: readonly Row[]): readonly Statement[];
  update(target: Target, rows: readonly Row[], columns: readonly string[]): readonly Statement[];
  remove(target: Target, rows: readonly Row[]): readonly Statement[];
  createTable(table: Table): Statement;
  decode(kind: ColumnKind, cell: Cell): Value;
}

/** What an error of the driver means. */
export interface Failure {
  readonly code: ErrorCode;
  readonly facts: Facts;
}

/** An engine with its driver. `Connection` is the driver's own connection, which Sequelize's pool makes and keeps. */
export interface Engine<Connection> {
  readonly name: "postgres" | "mariadb";
  readonly dialect: Dialect;
  /** Statements that make a new connection ours; `optional` ones may fail where the server does not know the setting. */
  readonly session: (settings: DatabaseSettings) => readonly { readonly text: string; readonly optional: boolean }[];
  /** Statements that begin a transaction: read-only on one state of the database, or writing, with READ COMMITTED. */
  readonly begin: { readonly snapshot: readonly string[]; readonly write: readonly string[] };
  /** A server version that Sequelize believes in without asking: it would ask on a connection outside the pool. */
  readonly sequelizeVersion: string;
  run(connection: Connection, statement: Statement): Promise<readonly (readonly Cell[])[]>;
  /** Cuts the connection off at once; what waits for it fails. */
  sever(connection: Connection): void;
  /** Tells the server that an idle connection ends; may fail, may never be answered. */
  part(connection: Connection): Promise<void>;
  /** Undefined: not an error of the database or of the way to it, that is, a bug. */
  failureOf(error: unknown): Failure | undefined;
  reflect(run: Run): Promise<Catalog>;
  /** Serialises schema work of several processes until the transaction ends (`run` is inside one) or `release` is run. */
  readonly schemaLock: { readonly take: string; readonly release: string | undefined };
  /** Makes the database count from at least `first`; never backwards. Runs under the schema lock. */
  raiseCounter(run: Run, target: Target, column: string, first: number): Promise<void>;
  readonly triggers: TriggerDialect;
}

const MEANINGS: Partial<Record<ErrorCode, string>> = {
  E_ROWS_UNAVAILABLE: "the database does not serve this session",
  E_ROWS_CONTENDED: "the database ended the transaction for the sake of another",
  E_ROWS_COMMIT_UNKNOWN: "the connection broke during commit",
  E_ROWS_UNIQUE: "a row breaks a unique key",
  E_ROWS_REFERENCE: "a row breaks a foreign key",
  E_ROWS_REFUSED: "the database refuses a value",
  E_SCHEMA_MISMATCH: "the database lacks a table or column",
};

/**
 * The operating error for a failure. The driver's own error is left behind on purpose: its text and its copy of the
 * statement carry row values, and with them password hashes, into logs.
 */
export function failureError({ code, facts }: Failure): OperatingError {
  return new OperatingError(code, MEANINGS[code] ?? code, facts);
}

/** The declared value of a cell that the engine printed as text, for the kinds that both engines print alike. */
export function decodeText(kind: ColumnKind, text: string): Value {
  if (kind === "datetime") return datetimeFromSql(text);
  if (kind !== "integer") return text;
  const number = Number(text);
  if (Number.isSafeInteger(number)) return number;
  throw new OperatingError("E_ROWS_REFUSED", "an integer is too large to travel as one; declare the column as bigint",
    { digits: text.length });
}
