/**
 * What the memory twin stores and how it can be made to fail: tables, the number of the last commit, the snapshots that
 * still look at older states, simulated faults.
 * Invariant: a version is dropped only when nobody can read it any more.
 * Not here: reading and writing (memory.ts), the versions of one table (memory-table.ts).
 */
import { OperatingError } from "../core/errors.ts";
import type { Table } from "../schemas/define.ts";
import type { Row } from "../schemas/row.ts";
import { MemoryTable, type Folding } from "./memory-table.ts";
import { cutRow, kindOf, type ShortFractions } from "./wire.ts";

/** What the twin's faults may be: the codes that the real adapters give for the same trouble. */
export type RowFault = "unavailable" | "contended";
/** A fault at commit; "unknown-stored" and "unknown-lost" both look like E_ROWS_COMMIT_UNKNOWN to the caller. */
export type CommitFault = RowFault | "unknown-stored" | "unknown-lost";

/** Asked before each call and each commit; undefined lets it happen. The simulator decides from its seed. */
export interface RowFaults {
  beforeCall?(verb: string, table: string | undefined): RowFault | undefined;
  beforeCommit?(): CommitFault | undefined;
}

export interface MemoryOptions {
  /** Compare text as MariaDB's default collations do: without regard to letter case and spaces at the end. */
  readonly ignoresCase?: boolean;
  /** Digits of a second that datetime columns keep; 6 unless said otherwise. */
  readonly fractionDigits?: number;
  /** Tables whose rows go with the row that a hard reference of theirs names; elsewhere such a removal is refused. */
  readonly cascades?: readonly string[];
  readonly faults?: RowFaults;
  /** Migration revisions to answer with. */
  readonly revisions?: readonly string[];
}

/** The error that a fault looks like to the caller. */
export function faultError(fault: CommitFault): OperatingError {
  if (fault === "unavailable") return new OperatingError("E_ROWS_UNAVAILABLE", "the database cannot be reached (simulated)");
  if (fault === "contended") return new OperatingError("E_ROWS_CONTENDED", "the database ended the transaction (simulated)");
  return new OperatingError("E_ROWS_COMMIT_UNKNOWN", "the connection broke during commit (simulated)");
}

/** A hard reference of `table`, with what happens to it when its target goes. */
interface Incoming {
  readonly table: MemoryTable;
  readonly columns: readonly string[];
  readonly to: readonly string[];
  readonly cascades: boolean;
}

/** A version that a writer wrote: it can be undone, and older versions of the row become stale when it commits. */
export interface Written {
  readonly rows: MemoryTable;
  readonly key: string;
}

/** Tables, the last commit, and who still looks at older states. */
export class MemoryStore {
  readonly options: MemoryOptions;
  readonly tables = new Map<string, MemoryTable>();
  readonly incoming = new Map<string, Incoming[]>();
  readonly #short = new Map<string, ShortFractions>();
  readonly #watched = new Map<number, number>();
  readonly #stale: Written[] = [];
  committed = 0;

  constructor(options: MemoryOptions) {
    this.options = options;
  }

  /** Adds an empty table. Holdfast's own tables (`isOwn`) compare byte by byte on every engine. */
  add(declared: Table, isOwn: boolean): void {
    const fold: Folding = this.options.ignoresCase === true && !isOwn
      ? (value) => (typeof value === "string" ? value.toLowerCase().replace(/ +$/, "") : value)
      : (value) => value;
    const table = new MemoryTable(declared, fold);
    this.tables.set(declared.name, table);
    const digits = this.options.fractionDigits ?? 6;
    const datetimes = Object.entries(declared.columns).filter(([, type]) => digits < 6 && kindOf(type) === "datetime");
    this.#short.set(declared.name, new Map(datetimes.map(([column]) => [column, digits])));
    const cascades = this.options.cascades?.includes(declared.name) === true;
    for (const { columns, to, hard, table: target } of declared.references) {
      if (hard) this.incoming.set(target, [...(this.incoming.get(target) ?? []), { table, columns, to, cascades }]);
    }
  }

  tableOf(table: Table): MemoryTable {
    const found = this.tables.get(table.name);
    if (found === undefined) throw new OperatingError("E_SCHEMA_MISMATCH", "the table does not exist", { table: table.name });
    return found;
  }

  fit(table: Table, row: Row): Row {
    return cutRow(row, this.#short.get(table.name) ?? new Map<string, number>());
  }

  fault(verb: string, table: Table | undefined): void {
    const fault = this.options.faults?.beforeCall?.(verb, table?.name);
    if (fault !== undefined) throw faultError(fault);
  }

  watch(stamp: number): void {
    this.#watched.set(stamp, (this.#watched.get(stamp) ?? 0) + 1);
  }

  unwatch(stamp: number): void {
    const left = (this.#watched.get(stamp) ?? 1) - 1;
    if (left > 0) this.#watched.set(stamp, left);
    else this.#watched.delete(stamp);
    this.#prune();
  }

  /** Makes what the writer wrote the state that new snapshots see. */
  commit(stamp: number, written: readonly Written[]): void {
    this.committed = stamp;
    for (const one of written) this.#stale.push(one);
    this.#prune();
  }

  /** Forgets old versions as soon as nobody reads a state older than the last commit. */
  #prune(): void {
    for (const stamp of this.#watched.keys()) if (stamp < this.committed) return;
    for (const { rows, key } of this.#stale.splice(0)) rows.prune(key, this.committed);
  }
}

/** E_ROWS_UNIQUE as the real adapters give it; the constraint is named by its columns. */
export function uniqueError(table: Table, columns: readonly string[]): OperatingError {
  return new OperatingError("E_ROWS_UNIQUE", "a row breaks a unique key", { table: table.name, constraint: columns.join(",") });
}

/** E_ROWS_REFERENCE as the real adapters give it; the constraint is named by its columns. */
export function referenceError(table: Table, columns: readonly string[]): OperatingError {
  const facts = { table: table.name, constraint: columns.join(",") };
  return new OperatingError("E_ROWS_REFERENCE", "a row breaks a foreign key", facts);
}
