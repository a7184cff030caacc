/**
 * The row audit: a site's rows are what they were made of, also when nobody is connected and somebody changed them by hand. Goes
 * over everything again and again, slowly (row-pass.ts), asks the guard about what it found of each kind as a whole, looks at
 * each finding once more, keeps what it is about to overwrite (drift.ts), and lets the follower write the stored images again.
 *
 * Invariants: nothing is compared before the first fill is over; no row is superfluous before the centre has said that everything
 * is on the stream, and the site has read it; nothing is overwritten that was not noted before; a repair
 * carries the version that is applied, so that it never replaces anything newer; making what is missing needs nobody's leave.
 * Bounds: rowsPerSecondMax; findingsMax repairs per kind, effect and pass; REPAIRS_AT_ONCE in one transaction.
 * Not here: whether the images themselves are the centre's newest (manifest checks).
 */
import { assert } from "../core/assert.ts";
import { OperatingError, isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import type { Progress } from "../core/operation.ts";
import { Bell, stopSignal } from "../core/signal.ts";
import { waitBeforeRetry } from "../core/retry.ts";
import type { World } from "../core/world.ts";
import type { Blast } from "../capture/guard.ts";
import { listHeld, type Holding } from "../capture/held.ts";
import type { RowReader } from "../rows/rows.ts";
import { keyFromText, rowText, type Row } from "../schemas/row.ts";
import { DRIFT_KEPT_MAX, DRIFT_TABLE, DriftNotes, settleNotes } from "./drift.ts";
import { HEARD_TABLE, hasReadAll, readHeard } from "./heard.ts";
import { lockPosition, readApplied, readPosition } from "./ledger.ts";
import type { Received } from "./received.ts";
import { removable, type RemovalRooms } from "./removable.ts";
import {
  compareLive, compareStrangers, readWaitingNames, type Compared, type CompareRooms, type Deviation,
} from "./row-compare.ts";
import { orphansAmong, type LooseTable } from "./row-orphans.ts";
import { RowPass, type KindFindings, type PassFindings, type PassOptions } from "./row-pass.ts";

/** Aggregates repaired in one transaction: each may be as large as the feed carries. */
const REPAIRS_AT_ONCE = 50;
/** Pause before looking again whether the site follows its stream. */
const NOT_FOLLOWING_PAUSE_MS = 1_000;
/** Askers of one pass. */
const ASKERS_MAX = 16;

export interface RowAuditOptions extends PassOptions {
  /** False: only when asked. */
  readonly enabled: boolean;
  /** Pause between two passes. */
  readonly restMs: number;
  readonly driftKeptMax: number;
}

export const ROW_AUDIT_DEFAULTS: RowAuditOptions = { enabled: true, rowsPerSecondMax: 2_000, restMs: 300_000,
  findingsMax: 100_000, driftKeptMax: DRIFT_KEPT_MAX, retry: { firstMs: 200, lastMs: 30_000 } };

export interface RowAuditRooms extends CompareRooms, RemovalRooms {
  readonly stream: string;
  readonly faults: Faults;
  readonly holding: Holding;
  /** True while the schema was checked and the first fill is over. */
  readonly isFollowing: () => boolean;
  /** Writes these changes although their versions are applied already; resolves when they are stored or set aside. */
  readonly repair: (changes: readonly Received[]) => Promise<void>;
  /** Called after rows changed otherwise. */
  readonly committed: () => void;
}

/** What one pass came to. Counts are aggregates (and orphaned rows); `rows` were read. */
export interface RowAuditReport {
  readonly service: string;
  readonly atMs: number;
  readonly tookMs: number;
  readonly aggregates: number;
  readonly rows: number;
  readonly changed: number;
  readonly missing: number;
  readonly superfluous: number;
  readonly repaired: number;
  /** Found, but more than one pass repairs; the next one begins at once. */
  readonly beyond: number;
  /** Kinds whose repairs wait for a person. */
  readonly held: readonly string[];
}

interface Asker {
  readonly progress: (progress: Progress) => void;
  readonly resolve: (report: RowAuditReport) => void;
  readonly reject: (error: unknown) => void;
}

/** See the file's head. One per service. */
export class RowAudit implements Part {
  readonly name: string;
  readonly #rooms: RowAuditRooms;
  readonly #world: World;
  readonly #options: RowAuditOptions;
  readonly #notes: DriftNotes;
  readonly #stopping = stopSignal();
  readonly #bell = new Bell();
  #asked: Asker[] = [];
  /** Aggregates whose repair was refused in the last pass: noted once, not each time. */
  #left = new Set<string>();
  #last: RowAuditReport | undefined;
  #isPrepared = false;
  #working: Promise<void> = Promise.resolve();

  constructor(rooms: RowAuditRooms, world: World, options: RowAuditOptions) {
    assert(options.driftKeptMax >= REPAIRS_AT_ONCE, "notes of one transaction fit into the table");
    this.name = `row audit ${rooms.service.name}`;
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#notes = new DriftNotes(world, options.driftKeptMax);
  }

  /** What the last complete pass came to. */
  get last(): RowAuditReport | undefined {
    return this.#last;
  }

  start(): Promise<void> {
    this.#working = this.#live();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#working;
    this.#dismiss(new OperatingError("E_ASK_UNANSWERED", "the process is stopping"));
  }

  /** One whole pass that begins after this call, also when passes are switched off. @throws what ended the pass */
  runNow(progress: (progress: Progress) => void, signal: AbortSignal): Promise<RowAuditReport> {
    if (!this.#rooms.isFollowing()) {
      return Promise.reject(new OperatingError("E_ASK_UNANSWERED", "rows are not compared before the first fill is over"));
    }
    if (this.#asked.length >= ASKERS_MAX) {
      return Promise.reject(new OperatingError("E_ASK_UNANSWERED", `${ASKERS_MAX} askers wait for a pass already`));
    }
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#asked = this.#asked.filter((each) => each !== asker);
        asker.reject(new OperatingError("E_ASK_UNANSWERED", "nobody waits for the pass any more"));
      };
      const done = (): void => signal.removeEventListener("abort", leave);
      const asker: Asker = { progress,
        resolve: (report) => {
          done();
          resolve(report);
        },
        reject: (error) => {
          done();
          reject(error instanceof Error ? error : new Error(String(error)));
        } };
      this.#asked.push(asker);
      signal.addEventListener("abort", leave, { once: true });
      this.#bell.ring();
    });
  }

  /** A pass soon: what was held may go on. */
  wake(): void {
    this.#bell.ring();
  }

  async #live(): Promise<void> {
    const signal = this.#stopping.signal;
    let failures = 0;
    if (!this.#options.enabled) await this.#bell.wait(signal);
    while (!signal.aborted) {
      if (!this.#rooms.isFollowing()) {
        await this.#rest(NOT_FOLLOWING_PAUSE_MS);
        continue;
      }
      try {
        const hasMore = await this.#passFor(this.#asked.splice(0));
        failures = 0;
        if (!hasMore) await this.#rest(this.#options.enabled ? this.#options.restMs : undefined);
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#world.log.warn("a pass of the row audit was given up and begins again", { service: this.#rooms.service.name,
          ...factsOf(error) });
        await waitBeforeRetry(this.#world, this.#options.retry, ++failures, signal);
        if (!this.#options.enabled && this.#asked.length === 0) await this.#bell.wait(signal);
      }
    }
  }

  /** Undefined: until somebody asks. */
  async #rest(restMs: number | undefined): Promise<void> {
    const cancel = restMs === undefined ? undefined : this.#world.clock.after(restMs, () => this.#bell.ring());
    await this.#bell.wait(this.#stopping.signal);
    cancel?.();
  }

  #dismiss(error: OperatingError): void {
    for (const asker of this.#asked.splice(0)) asker.reject(error);
  }

  /** True when there is more to repair than one pass could keep in mind. */
  async #passFor(askers: readonly Asker[]): Promise<boolean> {
    try {
      const report = await this.#pass((progress) => {
        for (const asker of askers) asker.progress(progress);
      });
      for (const asker of askers) {
        if (report !== undefined) asker.resolve(report);
        else asker.reject(new OperatingError("E_ASK_UNANSWERED", "the site is being filled or stopped; ask again later"));
      }
      // Without a repair the next pass would find the same: then it may as well rest.
      return report !== undefined && report.repaired > 0 && report.beyond > 0;
    } catch (error) {
      for (const asker of askers) asker.reject(error);
      throw error;
    }
  }

  async #pass(progress: (progress: Progress) => void): Promise<RowAuditReport | undefined> {
    const { rows, holding, service } = this.#rooms;
    const signal = this.#stopping.signal;
    const [atMs, startedMs] = [this.#world.clock.nowMs(), this.#world.clock.monotonicMs()];
    if (!this.#isPrepared) {
      await rows.ensureTables([DRIFT_TABLE, HEARD_TABLE]);
      await holding.prepare();
      this.#isPrepared = true;
    }
    const strangersToo = await rows.snapshot(async (read) => hasReadAll(await readPosition(read, this.#rooms.stream),
      await readHeard(read, this.#rooms.stream)));
    const found = await new RowPass(this.#rooms, this.#world, this.#options,
      { isWanted: this.#rooms.isFollowing, strangersToo, progress }).run(signal);
    if (found === undefined) return undefined;
    const { held, repaired } = await this.#act(found, progress);
    if (signal.aborted) return undefined;
    const count = (effect: "changed" | "missing" | "superfluous"): number =>
      [...found.kinds.values()].reduce((sum, kind) => sum + kind.counts[effect], 0);
    const report: RowAuditReport = { service: service.name, atMs, tookMs: this.#world.clock.monotonicMs() - startedMs,
      aggregates: found.aggregates, rows: found.rows, changed: count("changed"), missing: count("missing"),
      superfluous: count("superfluous"), repaired,
      beyond: [...found.kinds.values()].reduce((sum, kind) => sum + beyondOf(kind), 0), held };
    this.#last = report;
    this.#world.metrics.observe("holdfast_row_audit_seconds", report.tookMs / 1000, { service: service.name });
    return report;
  }

  /** Judges each kind, then removes children first and makes parents first. */
  async #act(found: PassFindings, progress: (progress: Progress) => void):
    Promise<{ readonly held: readonly string[]; readonly repaired: number }> {
    const kinds = [...found.kinds.values()];
    const held = new Set<string>();
    for (const kind of kinds) {
      this.#tell(kind);
      if (!await this.#mayTouch(kind)) held.add(kind.kind);
    }
    const left = new Set<string>();
    let repaired = 0;
    const total = kinds.reduce((sum, { names }) =>
      sum + names.changed.length + names.missing.length + names.superfluous.length, 0);
    const go = async (names: readonly string[], look: (read: RowReader, names: readonly string[]) => Promise<Compared>):
      Promise<void> => {
      for (let start = 0; start < names.length && !this.#stopping.signal.aborted; start += REPAIRS_AT_ONCE) {
        repaired += await this.#putRight(names.slice(start, start + REPAIRS_AT_ONCE), look, left);
        progress({ step: "repairs", done: repaired, total });
      }
    };
    for (const kind of kinds.toReversed()) {
      if (held.has(kind.kind)) continue;
      for (const { loose, rows } of kind.orphans) repaired += await this.#removeOrphans(loose, rows);
      const mayGo = await removable(this.#rooms, kind.names.superfluous, this.#stopping.signal);
      await go(kind.names.superfluous, async (read, names) => {
        const compared = await compareStrangers(read, this.#rooms, names.map(keyFromText));
        return { ...compared, deviations: compared.deviations.filter(mayGo) };
      });
    }
    for (const kind of kinds) {
      const names = [...kind.names.missing, ...(held.has(kind.kind) ? [] : kind.names.changed)];
      await go(names, (read, some) => this.#lookAgain(read, some, held.has(kind.kind)));
    }
    this.#left = left;
    return { held: [...held], repaired };
  }

  /** Drift is a fault until a pass finds none of the kind. */
  #tell({ kind, counts }: KindFindings): void {
    const { service, faults } = this.#rooms;
    const about = `${service.name} ${kind}`;
    if (counts.changed + counts.missing + counts.superfluous === 0) faults.clear("E_SITE_DRIFT", about);
    else faults.raise("E_SITE_DRIFT", about, "rows were changed past Holdfast", counts);
  }

  /**
   * Asks the guard. The note of a kind is shared with sweeps and manifest checks: one that is not ours is neither ended because
   * there is no drift, nor is its release used up by us.
   */
  async #mayTouch({ kind, live, counts, names, orphans }: KindFindings): Promise<boolean> {
    const { rows, holding } = this.#rooms;
    const note = (await rows.snapshot(listHeld)).find((each) => each.kind === kind);
    const isOurs = note === undefined || note.cause === "drift";
    const blast: Blast = { kind, deletes: counts.superfluous, rewrites: counts.changed, live, cause: "drift",
      sourceEmptied: false };
    if (blast.deletes + blast.rewrites === 0) return note === undefined || !isOurs || holding.admit(blast, []);
    if (!isOurs && note.state === "released") return false;
    const orphaned = orphans.flatMap(({ loose, rows: some }) => some.map((row) => orphanName(loose, row)));
    return holding.admit(blast, [...names.superfluous, ...names.changed, ...orphaned]);
  }

  async #lookAgain(read: RowReader, names: readonly string[], onlyMissing: boolean): Promise<Compared> {
    const notes = await readApplied(read, names.map(keyFromText));
    const compared = await compareLive(read, this.#rooms, [...notes].map(([name, note]) => ({ ...note, name })));
    return { ...compared, deviations: compared.deviations.filter(({ effect }) => !onlyMissing || effect === "missing") };
  }

  /** Looks at some findings again, notes what is still so, and has it repaired; how many are right afterwards. */
  async #putRight(names: readonly string[], look: (read: RowReader, names: readonly string[]) => Promise<Compared>,
    left: Set<string>): Promise<number> {
    const { rows, service, repair } = this.#rooms;
    const deviations = (await rows.snapshot((read) => look(read, names))).deviations;
    if (deviations.length === 0 || !this.#rooms.isFollowing()) return 0;
    const fresh = deviations.filter(({ name }) => !this.#left.has(name));
    const ids = await rows.transaction((write) => this.#notes.note(write, fresh, "found"));
    for (const { kind, effect } of fresh) {
      this.#world.metrics.count("holdfast_drift_total", 1, { service: service.name, kind, effect });
    }
    this.#world.log.warn("rows were changed past Holdfast and are put right", { service: service.name,
      aggregates: deviations.length, first: deviations[0]?.name });
    await this.#unlessStopped(repair(deviations.map(({ change }) => change)));
    if (this.#stopping.signal.aborted) return 0;
    const still = await rows.snapshot((read) => this.#stillWrong(read, deviations, look));
    for (const name of still) left.add(name);
    const idsOf = (isLeft: boolean): readonly string[] =>
      ids.filter((_, place) => still.has(fresh[place]?.name ?? "") === isLeft);
    await rows.transaction(async (write) => {
      await settleNotes(write, idsOf(false), "repaired");
      await settleNotes(write, idsOf(true), "left");
    });
    return deviations.length - still.size;
  }

  async #stillWrong(read: RowReader, deviations: readonly Deviation[],
    look: (read: RowReader, names: readonly string[]) => Promise<Compared>): Promise<ReadonlySet<string>> {
    const names = deviations.map(({ name }) => name);
    const compared = await look(read, names);
    return new Set([...compared.deviations.map(({ name }) => name), ...await readWaitingNames(read, names)]);
  }

  /** The follower works on while the database is away; we end when we are told to. */
  async #unlessStopped(work: Promise<void>): Promise<void> {
    const { signal } = this.#stopping;
    let cease = (): void => undefined;
    const stopped = new Promise<void>((resolve) => {
      cease = resolve;
      signal.addEventListener("abort", cease, { once: true });
      if (signal.aborted) resolve();
    });
    await Promise.race([work, stopped]).finally(() => signal.removeEventListener("abort", cease));
  }

  /** Under the position's lock, so that no image is being written: an owner that came meanwhile is seen. */
  async #removeOrphans(loose: LooseTable, orphans: readonly Row[]): Promise<number> {
    const { rows, stream, service } = this.#rooms;
    const { table, kind } = loose;
    let removed = 0;
    for (let start = 0; start < orphans.length && !this.#stopping.signal.aborted; start += REPAIRS_AT_ONCE) {
      const run = orphans.slice(start, start + REPAIRS_AT_ONCE);
      removed += await rows.transaction(async (write) => {
        await lockPosition(write, stream);
        const now = await write.lock(table, { columns: table.key,
          values: run.map((row) => table.key.map((column) => row[column] ?? null)) });
        const still = await orphansAmong(write, loose, now);
        await this.#notes.note(write, still.map((row) => ({ name: orphanName(loose, row), effect: "superfluous",
          before: { [table.name]: [row] } })), "repaired");
        await write.remove(table, still);
        return still.length;
      });
    }
    if (removed === 0) return 0;
    this.#world.metrics.count("holdfast_drift_total", removed, { service: service.name, kind: kind.name, effect: "superfluous" });
    this.#rooms.committed();
    return removed;
  }
}

/** Findings that were counted and whose names were not kept. */
function beyondOf({ counts, names, orphans }: KindFindings): number {
  const kept = orphans.reduce((sum, { rows }) => sum + rows.length, 0) + names.superfluous.length + names.changed.length +
    names.missing.length;
  return counts.superfluous + counts.changed + counts.missing - kept;
}

function orphanName({ table }: LooseTable, row: Row): string {
  return `${table.name} ${rowText(row, table.key)}`;
}
