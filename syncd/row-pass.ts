/**
 * One pass over everything a site holds of a service: the ledger's aggregates against their rows, then every kind's rows against
 * the ledger, then owned rows against their owners. Reads only, page by page, each page in one state of the database, at a
 * limited speed. What it finds are names: whoever acts looks again first.
 *
 * Bounds: PAGE_KEYS aggregates at a time; findingsMax names kept per kind (the rest are counted, and found by the next pass);
 * READ_TRIES_MAX tries of one page before the pass is given up.
 * Not here: judging and repairing (row-audit.ts), what counts as a difference (row-compare.ts).
 */
import { sleep, type Clock } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import type { Progress } from "../core/operation.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import type { World } from "../core/world.ts";
import { readKeys } from "../rows/footprint.ts";
import type { Page, RowReader } from "../rows/rows.ts";
import { keyFromText, type Row } from "../schemas/row.ts";
import type { DriftEffect } from "./drift.ts";
import { APPLIED_TABLE } from "./ledger.ts";
import { compareLive, compareStrangers, type AppliedEntry, type Compared, type CompareRooms } from "./row-compare.ts";
import { looseTables, readOrphans, type LooseTable } from "./row-orphans.ts";

export const PAGE_KEYS = 500;
const READ_TRIES_MAX = 5;

/** What a pass found about one kind. */
export interface KindFindings {
  readonly kind: string;
  /** Aggregates that the ledger says are live. */
  live: number;
  /** Aggregates per effect, also those whose names were not kept; orphans count as superfluous. */
  readonly counts: Record<DriftEffect, number>;
  readonly names: Readonly<Record<DriftEffect, string[]>>;
  readonly orphans: { readonly loose: LooseTable; readonly rows: Row[] }[];
}

export interface PassFindings {
  readonly kinds: ReadonlyMap<string, KindFindings>;
  readonly aggregates: number;
  readonly rows: number;
}

/** Keeps an average speed: who has read rows waits until they were due. */
export class Pace {
  readonly #clock: Clock;
  readonly #rowsPerSecondMax: number;
  #dueMs: number;

  constructor(clock: Clock, rowsPerSecondMax: number) {
    this.#clock = clock;
    this.#rowsPerSecondMax = rowsPerSecondMax;
    this.#dueMs = clock.monotonicMs();
  }

  /** Waits until `rows` more may have been read. Time that others used up is not caught up with. */
  async spend(rows: number, signal: AbortSignal): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    this.#dueMs = Math.max(this.#dueMs, nowMs) + rows * 1_000 / this.#rowsPerSecondMax;
    if (this.#dueMs > nowMs) await sleep(this.#clock, this.#dueMs - nowMs, signal);
  }
}

export interface PassOptions {
  readonly rowsPerSecondMax: number;
  readonly findingsMax: number;
  readonly retry: Backoff;
}

/** What a pass is told. */
export interface PassAsked {
  /** False when the site no longer follows its stream, and comparing means nothing. */
  readonly isWanted: () => boolean;
  /** Rows without an image are superfluous: nothing of them is still to come. */
  readonly strangersToo: boolean;
  readonly progress: (progress: Progress) => void;
}

/** One pass; used once. */
export class RowPass {
  readonly #rooms: CompareRooms;
  readonly #world: World;
  readonly #options: PassOptions;
  readonly #pace: Pace;
  readonly #asked: PassAsked;
  readonly #kinds = new Map<string, KindFindings>();
  /** Names that rows of a changed aggregate carry now: that aggregate's repair renames them. */
  readonly #respelled = new Set<string>();
  #aggregates = 0;
  #rows = 0;

  constructor(rooms: CompareRooms, world: World, options: PassOptions, asked: PassAsked) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#pace = new Pace(world.clock, options.rowsPerSecondMax);
    this.#asked = asked;
    for (const kind of rooms.service.kinds.keys()) {
      this.#kinds.set(kind, { kind, live: 0, counts: { changed: 0, missing: 0, superfluous: 0 },
        names: { changed: [], missing: [], superfluous: [] }, orphans: [] });
    }
  }

  /** Findings of all kinds, parents first; undefined when it was stopped. @throws what the database throws */
  async run(signal: AbortSignal): Promise<PassFindings | undefined> {
    await this.#compareLedger(signal);
    if (this.#asked.strangersToo) {
      for (const kind of this.#rooms.service.kinds.values()) {
        if (kind.log === undefined) await this.#compareKeys(kind.name, signal);
      }
      for (const loose of looseTables(this.#rooms.service)) await this.#compareOwners(loose, signal);
    }
    if (!this.#goesOn(signal)) return undefined;
    return { kinds: this.#kinds, aggregates: this.#aggregates, rows: this.#rows };
  }

  #goesOn(signal: AbortSignal): boolean {
    return !signal.aborted && this.#asked.isWanted();
  }

  async #compareLedger(signal: AbortSignal): Promise<void> {
    for (let after: Row | undefined; this.#goesOn(signal); ) {
      const page: Page = { after, limit: PAGE_KEYS };
      const { compared, last, size, live } = await this.#read(signal, async (read) => {
        const rows = await read.page(APPLIED_TABLE, page, ["hash", "name", "epoch", "sequence", "digest", "deleted"]);
        const entries = rows.map(entryOf);
        return { compared: await compareLive(read, this.#rooms, entries), last: rows.at(-1), size: rows.length,
          live: entries.filter((entry) => !entry.deleted) };
      });
      for (const { name } of live) {
        const findings = this.#kinds.get(keyFromText(name).kind);
        if (findings !== undefined) findings.live += 1;
      }
      this.#aggregates += live.length;
      await this.#take(compared, size, "rows of known aggregates", signal);
      if (size < PAGE_KEYS) return;
      after = last;
    }
  }

  async #compareKeys(kind: string, signal: AbortSignal): Promise<void> {
    for (let page: Page | undefined = { limit: PAGE_KEYS }; page !== undefined && this.#goesOn(signal); ) {
      const from: Page = page;
      const { compared, next, size } = await this.#read(signal, async (read) => {
        const found = await readKeys(read, this.#rooms.service, kind, from);
        return { compared: await compareStrangers(read, this.#rooms, found.keys), next: found.next, size: found.keys.length };
      });
      await this.#take(compared, size, `rows of ${kind}`, signal);
      page = next;
    }
  }

  async #compareOwners(loose: LooseTable, signal: AbortSignal): Promise<void> {
    const findings = this.#kinds.get(loose.kind.name);
    for (let page: Page | undefined = { limit: PAGE_KEYS }; page !== undefined && this.#goesOn(signal); ) {
      const from: Page = page;
      const found = await this.#read(signal, (read) => readOrphans(read, loose, from));
      if (findings !== undefined && found.orphans.length > 0) {
        findings.counts.superfluous += found.orphans.length;
        const room = Math.max(0, this.#options.findingsMax - findings.orphans.reduce((sum, each) => sum + each.rows.length, 0));
        findings.orphans.push({ loose, rows: found.orphans.slice(0, room) });
      }
      await this.#take({ deviations: [], rowsRead: found.rowsRead }, 0, `owners of ${loose.table.name}`, signal);
      page = found.next;
    }
  }

  /** One page in one state of the database; tried again while the database is away for a moment. */
  async #read<T>(signal: AbortSignal, work: (read: RowReader) => Promise<T>): Promise<T> {
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.#rooms.rows.snapshot(work);
      } catch (error) {
        if (!isOperating(error) || error.retry === "never" || failures >= READ_TRIES_MAX || signal.aborted) throw error;
        await waitBeforeRetry(this.#world, this.#options.retry, failures, signal);
      }
    }
  }

  async #take(compared: Compared, ledgerRows: number, step: string, signal: AbortSignal): Promise<void> {
    for (const { name, kind, effect, spelledAs } of compared.deviations) {
      if (spelledAs !== undefined) this.#respelled.add(spelledAs);
      const findings = this.#kinds.get(kind);
      if (findings === undefined || (effect === "superfluous" && this.#respelled.has(name))) continue;
      findings.counts[effect] += 1;
      if (findings.names[effect].length < this.#options.findingsMax) findings.names[effect].push(name);
    }
    const rows = compared.rowsRead + ledgerRows;
    this.#rows += rows;
    this.#asked.progress({ step, done: this.#rows, total: undefined });
    this.#world.metrics.count("holdfast_row_audit_rows_total", rows, { service: this.#rooms.service.name });
    await this.#pace.spend(rows, signal);
  }
}

function entryOf(row: Row): AppliedEntry {
  return { name: String(row["name"]), epoch: Number(row["epoch"]), sequence: Number(row["sequence"]),
    digest: String(row["digest"]), deleted: row["deleted"] === true };
}
