/**
 * Trigger capture: takes the marks that triggers leave in the database (rows/trigger-plan.ts) to the publish loop, so that
 * changes which no call names (manage commands, cascades, direct SQL) are out at once instead of at the next audit.
 *
 *   read ─ in flight ─ stream holds an image read after the mark ─ deleted
 *
 * Invariants: a mark is deleted only after that, and only marks that were read are deleted: counted keys are given out before
 * transactions commit, so that a lower one may appear after a higher one. A crash, or a second drain, repeats looks and loses
 * none. Nobody called for these changes, so the guard judges them: whole kinds and more than aggregatesMax aggregates of a kind,
 * and whatever else of that kind is marked within its window.
 * Bounds: inFlightMarksMax marks in memory; above marksMax in the table, marks give way to marks of their whole kinds.
 * Not here: writing marks, finding what triggers cannot see (the auditor does).
 */
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import { Bell, stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import { isExcepted } from "../rows/footprint.ts";
import type { Rows } from "../rows/rows.ts";
import { MARKS_TABLE } from "../rows/trigger-plan.ts";
import type { Service } from "../schemas/define.ts";
import { keyText, type AggregateKey, type Row } from "../schemas/row.ts";
import { GUARD_DEFAULTS, type Blast, type GuardOptions } from "./guard.ts";
import type { ScanDepth } from "./touches.ts";

/** What happens to what was marked (capture/capture.ts CaptureRoom): each resolves when it is done, never when stopped. */
export interface MarkSink {
  publish(keys: readonly AggregateKey[]): Promise<unknown>;
  publishFound(keys: readonly AggregateKey[], cause: Blast["cause"]): Promise<unknown>;
  scan(kind: string, depth: ScanDepth): Promise<unknown>;
}

export interface DrainRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly faults: Faults;
  readonly capture: MarkSink;
}

export interface DrainOptions {
  /** Pause after a look that found nothing. */
  readonly idleMs: number;
  /** The same while more than a page of marks is in flight: the stream is away, and looking costs. */
  readonly crowdedMs: number;
  /** Marks read in one statement. */
  readonly pageMarksMax: number;
  /** Marks read and not yet deleted; above it nothing more is read. */
  readonly inFlightMarksMax: number;
  /** Marks in the table, about 100 bytes each; above it whole kinds are marked instead. */
  readonly marksMax: number;
  /** Between two looks at what is installed; while something is missing, crowdedMs. */
  readonly checkEveryMs: number;
  readonly guard: GuardOptions;
  readonly backoff: Backoff;
}

export const DRAIN_DEFAULTS: DrainOptions = {
  idleMs: 200, crowdedMs: 5_000, pageMarksMax: 1_000, inFlightMarksMax: 10_000, marksMax: 500_000, checkEveryMs: 60_000,
  guard: GUARD_DEFAULTS, backoff: { firstMs: 200, lastMs: 10_000 },
};

/** Missing triggers named in one fault; the rest are counted. */
const NAMED_MAX = 5;

type Ids = number[];

/** Marks of one kind: of aggregates by their names, and of the kind as a whole. */
interface KindMarks {
  readonly named: Map<string, { readonly key: AggregateKey; readonly ids: Ids }>;
  readonly whole: Ids;
}

/** Takes the marks of one service; see the file's head. */
export class TriggerDrain implements Part {
  readonly name: string;
  readonly #rooms: DrainRooms;
  readonly #world: World;
  readonly #options: DrainOptions;
  readonly #stopping = stopSignal();
  readonly #bell = new Bell();
  /** Ids that were read and whose deletion is not certain yet. Another set whenever the table may be another one. */
  #inFlight = new Set<number>();
  readonly #guardedUntilMs = new Map<string, number>();
  #done: Ids = [];
  #backlog = 0;
  #checkAtMs = 0;
  #obstacle: string | undefined = "the triggers were not looked at yet";
  #working: Promise<void> = Promise.resolve();

  constructor(rooms: DrainRooms, world: World, options: DrainOptions = DRAIN_DEFAULTS) {
    this.name = `triggers ${rooms.service.name}`;
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    const labels = { service: rooms.service.name };
    world.metrics.gauge("holdfast_trigger_backlog_marks", () => this.#backlog, labels);
    world.metrics.gauge("holdfast_trigger_inflight_marks", () => this.#inFlight.size, labels);
  }

  /** Returns at once; works in the background, for ever if need be. */
  start(): Promise<void> {
    this.#working = this.#work();
    return Promise.resolve();
  }

  /** What is in flight stays marked, and is looked at again after the next start. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#working;
  }

  notReady(): string | undefined {
    return this.#obstacle;
  }

  /** For the status document; the backlog is an estimate when it is more than what fits into memory. */
  status(): { readonly backlog: number; readonly inFlight: number } {
    return { backlog: this.#backlog, inFlight: this.#inFlight.size };
  }

  async #work(): Promise<void> {
    const { signal } = this.#stopping;
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (this.#world.clock.monotonicMs() >= this.#checkAtMs) await this.#check();
        const found = await this.#round();
        failures = 0;
        if (!found && !signal.aborted) await this.#pause();
      } catch (error) {
        if (!isOperating(error)) throw error;
        if (isOperating(error, "E_SCHEMA_MISMATCH")) this.#tableIsGone();
        this.#world.log.debug("marks could not be taken and are tried again", factsOf(error));
        await waitBeforeRetry(this.#world, this.#options.backoff, ++failures, signal);
      }
    }
  }

  /** Until something in flight is done, or it is time to look again. */
  async #pause(): Promise<void> {
    const { idleMs, crowdedMs, pageMarksMax } = this.#options;
    const cancel = this.#world.clock.after(this.#inFlight.size > pageMarksMax ? crowdedMs : idleMs, () => this.#bell.ring());
    await this.#bell.wait(this.#stopping.signal);
    cancel();
  }

  /** A new table will give out the same ids again; and whether the triggers are there is the next question. */
  #tableIsGone(): void {
    this.#inFlight = new Set();
    this.#done = [];
    this.#checkAtMs = 0;
  }

  async #check(): Promise<void> {
    const { service, rows, faults } = this.#rooms;
    const missing = await rows.triggers(service).missing();
    const { checkEveryMs, crowdedMs } = this.#options;
    this.#checkAtMs = this.#world.clock.monotonicMs() + (missing.length === 0 ? checkEveryMs : crowdedMs);
    if (missing.length === 0) {
      this.#obstacle = undefined;
      return faults.clear("E_TRIGGERS_MISSING", service.name);
    }
    const more = missing.length > NAMED_MAX ? `, and ${missing.length - NAMED_MAX} more` : "";
    this.#obstacle = `${missing.slice(0, NAMED_MAX).join(", ")}${more}`;
    faults.raise("E_TRIGGERS_MISSING", service.name, this.#obstacle, { missing: missing.length });
  }

  /** True when there was something to do. */
  async #round(): Promise<boolean> {
    const deleted = await this.#forget();
    const fresh = await this.#read();
    if (this.#backlog > this.#options.marksMax) await this.#collapse();
    this.#accept(fresh);
    return deleted || fresh.length > 0;
  }

  /** Deletes the marks that were seen to. */
  async #forget(): Promise<boolean> {
    const ids = this.#done.slice(0, this.#options.pageMarksMax);
    if (ids.length === 0) return false;
    await this.#rooms.rows.transaction((write) => write.remove(MARKS_TABLE, ids.map((id) => ({ id }))));
    // Only now: a mark whose deletion is unknown must not be taken for a fresh one. Others may have been added meanwhile.
    this.#done = this.#done.slice(ids.length);
    for (const id of ids) this.#inFlight.delete(id);
    return true;
  }

  /** Marks that are not in flight, as many as there is room for. Always from the first one: lower ones may have appeared. */
  async #read(): Promise<readonly Row[]> {
    const { pageMarksMax, inFlightMarksMax } = this.#options;
    return this.#rooms.rows.snapshot(async (read) => {
      const fresh: Row[] = [];
      let seen = 0;
      for (let after: Row | undefined; this.#inFlight.size + fresh.length < inFlightMarksMax; ) {
        const page = await read.page(MARKS_TABLE, { after, limit: pageMarksMax });
        seen += page.length;
        fresh.push(...page.filter((row) => !this.#inFlight.has(Number(row["id"]))));
        after = page.at(-1);
        if (page.length < pageMarksMax) {
          this.#backlog = seen;
          return fresh;
        }
      }
      const span = await read.span(MARKS_TABLE, "id");
      this.#backlog = span === undefined ? 0 : span.most - span.least + 1;
      return fresh;
    });
  }

  #accept(fresh: readonly Row[]): void {
    if (fresh.length === 0) return;
    const { service, capture } = this.#rooms;
    this.#world.metrics.count("holdfast_trigger_marks_total", fresh.length, { service: service.name });
    for (const row of fresh) this.#inFlight.add(Number(row["id"]));
    for (const [kind, { named, whole }] of this.#sorted(fresh)) {
      const marks = [...named.values()];
      const keys = marks.map(({ key }) => key);
      const all = [...whole, ...marks.flatMap(({ ids }) => ids)];
      if (whole.length > 0) this.#follow(capture.scan(kind, "images"), all);
      else if (this.#isGuarded(kind, keys.length)) this.#follow(capture.publishFound(keys, "triggers"), all);
      // One by one, so that an aggregate which cannot be published holds up nobody else's marks.
      else for (const { key, ids } of marks) this.#follow(capture.publish([key]), ids);
    }
  }

  /** Marks by kind; what the service file knows nothing of, or leaves out, is done. */
  #sorted(fresh: readonly Row[]): ReadonlyMap<string, KindMarks> {
    const kinds = new Map<string, KindMarks>();
    for (const row of fresh) {
      const kind = this.#rooms.service.kinds.get(String(row["kind"]));
      const id = Number(row["id"]);
      const values = valuesOf(row["names"]);
      const key = kind === undefined || values?.length !== kind.key.length ? undefined : { kind: kind.name, values };
      if (kind === undefined || (key !== undefined && isExcepted(kind, key))) {
        this.#finish([id]);
        continue;
      }
      const marks: KindMarks = kinds.get(kind.name) ?? { named: new Map(), whole: [] };
      kinds.set(kind.name, marks);
      const before = key === undefined ? marks.whole : marks.named.get(keyText(key))?.ids;
      if (before !== undefined) before.push(id);
      else if (key !== undefined) marks.named.set(keyText(key), { key, ids: [id] });
    }
    return kinds;
  }

  #isGuarded(kind: string, aggregates: number): boolean {
    const { aggregatesMax, windowMs } = this.#options.guard;
    const nowMs = this.#world.clock.monotonicMs();
    if (aggregates > aggregatesMax) this.#guardedUntilMs.set(kind, nowMs + windowMs);
    return nowMs < (this.#guardedUntilMs.get(kind) ?? 0);
  }

  #follow(work: Promise<unknown>, ids: Ids): void {
    const since = this.#inFlight;
    void work.then(() => {
      if (since === this.#inFlight) this.#finish(ids);
    });
  }

  #finish(ids: Ids): void {
    for (const id of ids) this.#done.push(id);
    this.#bell.ring();
  }

  /**
   * Too many marks, because the stream has been away for long: whole kinds take their place. Page by page, each in a
   * transaction that also says what it took away, so that neither a crash nor another drain can lose one.
   */
  async #collapse(): Promise<void> {
    const { rows, service } = this.#rooms;
    this.#world.log.warn("too many marks: whole kinds are compared instead", { service: service.name, backlog: this.#backlog });
    this.#world.metrics.count("holdfast_trigger_collapses_total", 1, { service: service.name });
    const last = (await rows.snapshot((read) => read.span(MARKS_TABLE, "id")))?.most ?? 0;
    for (let isLast = false; !isLast && !this.#stopping.signal.aborted; ) {
      isLast = await rows.transaction(async (write) => {
        const page = await write.page(MARKS_TABLE, { limit: this.#options.pageMarksMax });
        const taken = page.filter((row) => Number(row["id"]) <= last);
        await write.remove(MARKS_TABLE, taken);
        const kinds = new Set(taken.map((row) => String(row["kind"])));
        await write.insert(MARKS_TABLE, [...kinds].map((kind) => ({ kind, names: null })));
        return taken.length < page.length || page.length < this.#options.pageMarksMax;
      });
    }
  }
}

/** The values that a mark names; undefined when it means the whole kind, or says nothing that can be read. */
function valuesOf(names: Row[string] | undefined): readonly string[] | undefined {
  if (typeof names !== "string") return undefined;
  try {
    const values: unknown = JSON.parse(names);
    return Array.isArray(values) && values.every((value) => typeof value === "string") ? values : undefined;
  } catch {
    return undefined;
  }
}
