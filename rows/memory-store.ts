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
import type { MemoryTriggers } from "./memory-triggers.ts";
import { cutRow, kindOf, type ShortFractions } from "./wire.ts";

/** What the twin's faults may be: the codes that the real adapters give for the same trouble. */
export type RowFault = "unavailable" | "contended";
/** A fault at commit; "unknown-stored" and "unknown-lost" both look like E_ROWS_COMMIT_UNKNOWN to the caller. */
export type CommitFault = RowFault | "unknown-stored" | "unknown-lost";

/** Asked before each call and each commit; undefined lets it happen. The simulator decides from its seed. */
export interface RowFaults {
  beforeCall?(verb: string, table: string | undefined): RowFault | undefined;
  beforeCommit?(): CommitFault | undefined;
  /** How many commits a snapshot lags behind, as on a replica; at most STALE_COMMITS_MAX. */
  staleBy?(): number;
}

/** States of the past that are kept for stale snapshots, where there are any. */
export const STALE_COMMITS_MAX = 8;

/** One row in one commit. */
export interface RowChange {
  readonly table: Table;
  readonly before: Row | undefined;
  readonly after: Row | undefined;
}

export interface MemoryOptions {
  /** Compare text as MariaDB's default collations do: without regard to letter case and spaces at the end. */
  readonly ignoresCase?: boolean;
  /** Digits of a second that datetime columns keep; 6 unless said otherwise. */
  readonly fractionDigits?: number;
  /** Tables whose rows go with the row that a hard reference of theirs names; elsewhere such a removal is refused. */
  readonly cascades?: readonly string[];
  readonly faults?: RowFaults;
  /** Keep every commit, so that rewind() can take them back. For short lives: they are never forgotten. */
  readonly keepsCommits?: boolean;
  /** Told of every commit and of every rewind, in order, once it is visible; `by`: the name of the session. */
  readonly observe?: (changes: readonly RowChange[], why: "commit" | "rewind", by: string | undefined) => void;
  /** Take hard references for soft ones: a mistake that tests plant. */
  readonly ignoresReferences?: boolean;
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

/** A commit as it is kept for a rewind, with the counters as it left them. */
interface KeptCommit {
  readonly stamp: number;
  readonly rows: ReadonlyMap<string, { readonly rows: MemoryTable; readonly key: string; readonly before: Row | undefined }>;
  readonly counters: ReadonlyMap<MemoryTable, number>;
}

/** Tables, the last commit, and who still looks at older states. */
export class MemoryStore {
  readonly options: MemoryOptions;
  readonly tables = new Map<string, MemoryTable>();
  readonly incoming = new Map<string, Incoming[]>();
  readonly #short = new Map<string, ShortFractions>();
  readonly #watched = new Map<number, number>();
  readonly #stale: (Written & { readonly stamp: number })[] = [];
  readonly #commits: KeptCommit[] = [];
  #keptStates = 0;
  /** Ends when the last writer that came so far is done. */
  lastWriter: Promise<unknown> = Promise.resolve();
  committed = 0;
  /** Note which aggregates the writer changes, where they are installed. */
  triggers: MemoryTriggers | undefined;
  /** Rises when the server is replaced: whoever began before is cut off. */
  generation = 0;
  /** Takes back what the running writer wrote. */
  abortWriter: (() => void) | undefined;

  constructor(options: MemoryOptions) {
    this.options = options;
    this.joins(options.faults);
  }

  /** Takes note of a session: one that may lag needs states of the past. */
  joins(faults: RowFaults | undefined): void {
    if (faults?.staleBy !== undefined) this.#keptStates = STALE_COMMITS_MAX;
  }

  /** The state that a snapshot which begins now sees. */
  stampNow(faults: RowFaults | undefined): number {
    const lag = Math.min(faults?.staleBy?.() ?? 0, this.#keptStates);
    return Math.max(0, this.committed - lag);
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
  commit(stamp: number, written: readonly Written[], why: "commit" | "rewind", by: string | undefined): void {
    const keeps = this.options.keepsCommits === true;
    const changed = new Map<string, { rows: MemoryTable; key: string; before: Row | undefined }>();
    if (keeps || this.options.observe !== undefined) {
      for (const { rows, key } of written) {
        const name = `${rows.table.name} ${key}`;
        if (!changed.has(name)) changed.set(name, { rows, key, before: rows.get(key, this.committed) });
      }
    }
    if (keeps && why === "commit") {
      const counters = new Map([...this.tables.values()].map((table) => [table, table.counter]));
      this.#commits.push({ stamp, rows: changed, counters });
    }
    this.committed = stamp;
    for (const { rows, key } of written) this.#stale.push({ rows, key, stamp });
    this.options.observe?.([...changed.values()].map(({ rows, key, before }) =>
      ({ table: rows.table, before, after: rows.get(key, stamp) })), why, by);
    this.#prune();
  }

  /**
   * A failover that lost commits, or a restored backup: everything after commit number `stamp` is taken back, counters too, and
   * everybody is cut off. The tables themselves stay. Needs keepsCommits.
   */
  rewind(stamp: number): void {
    this.abortWriter?.();
    this.generation += 1;
    const written: Written[] = [];
    const next = this.committed + 1;
    for (let last = this.#commits.at(-1); last !== undefined && last.stamp > stamp; last = this.#commits.at(-1)) {
      this.#commits.pop();
      for (const { rows, key, before } of last.rows.values()) {
        rows.put(key, before, next);
        written.push({ rows, key });
      }
    }
    const counters = this.#commits.at(-1)?.counters;
    for (const table of this.tables.values()) table.countAgainFrom(counters?.get(table) ?? 1);
    this.commit(next, written, "rewind", undefined);
  }

  /** Forgets old versions as soon as nobody can read the states that they belong to. */
  #prune(): void {
    const oldest = this.committed - this.#keptStates;
    for (const stamp of this.#watched.keys()) if (stamp < this.committed) return;
    const left = this.#stale.findIndex(({ stamp }) => stamp > oldest);
    for (const { rows, key } of this.#stale.splice(0, left === -1 ? this.#stale.length : left)) rows.prune(key, oldest);
  }
}

/** Asks the faults of a session whether a call may happen. @throws what the fault looks like */
export function meetFault(faults: RowFaults | undefined, verb: string, table: Table | undefined): void {
  const fault = faults?.beforeCall?.(verb, table?.name);
  if (fault !== undefined) throw faultError(fault);
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
