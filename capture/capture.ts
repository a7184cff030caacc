/**
 * Capture: from a call (or the auditor's suspicion) to published images. Composes the publish loop, class scans, logs and
 * settle re-reads, and prepares them: verifies the schema, makes the stream, decides the epoch, and compares everything once
 * when the stream is new. Used by the proxy and by the centre's auditor.
 *
 * Nothing is refused while it is not ready: marks wait, calls go on, /readyz says why.
 */
import { assert, present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry } from "../core/retry.ts";
import { Gate, stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { hasRow, keysWhere } from "../rows/footprint.ts";
import type { RowReader, Rows } from "../rows/rows.ts";
import { verifiedSchema } from "../rows/verified.ts";
import type { Capture as Declared, Service } from "../schemas/define.ts";
import { byKind, keyText, type AggregateKey } from "../schemas/row.ts";
import { claimEra, markFilled, raiseEra, STREAM_TABLE, type Era, type Loser } from "./era.ts";
import { GUARD_DEFAULTS, type Blast, type GuardOptions } from "./guard.ts";
import { Holding } from "./held.ts";
import { Logs } from "./logs.ts";
import { Publisher, PUBLISH_DEFAULTS, type PublishOptions, type Wish } from "./publish.ts";
import { isEmptied, SCAN_DEFAULTS, Scans, type ScanCounts, type ScanOptions } from "./scan.ts";
import { Settle, SETTLE_DEFAULTS, type SettleOptions } from "./settle.ts";
import { askedBefore, touchedBy, type CallFacts, type ScanDepth, type Scope, type Touched } from "./touches.ts";
import { streamReader, type StreamView } from "./view.ts";

export interface CaptureRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly faults: Faults;
  /** What the stream holds, for comparisons; read from the stream each time unless somebody keeps an index of it. */
  readonly view?: StreamView;
  /** Where a reader of the stream sees the newest message of an aggregate, 0 for nowhere; for whoever keeps an index of it. */
  readonly shownAt?: (name: string) => number;
}

/** What the database said before a call was forwarded. */
export interface Before {
  /** Aggregates that the call may take away, and their names for the intent. */
  readonly keys: readonly AggregateKey[];
  readonly names: readonly string[];
  /** Kinds to compare whole afterwards, and declared ones that turned out to be needless. */
  readonly scans: readonly string[];
  readonly needless: readonly string[];
}

/** What was looked at and published after a call. */
export interface Looked {
  readonly keys: readonly AggregateKey[];
  readonly logs: readonly string[];
}

export interface CaptureOptions {
  readonly publish: PublishOptions;
  readonly scan: ScanOptions;
  readonly settle: SettleOptions;
  readonly guard: GuardOptions;
  /** Beyond this many dirty aggregates a kind is compared whole instead of key by key. */
  readonly dirtyKeysMax: number;
  /** How often the stream is checked for having been made anew. */
  readonly eraEveryMs: number;
}

export const CAPTURE_DEFAULTS: CaptureOptions = {
  publish: PUBLISH_DEFAULTS, scan: SCAN_DEFAULTS, settle: SETTLE_DEFAULTS, guard: GUARD_DEFAULTS,
  dirtyKeysMax: 100_000, eraEveryMs: 10_000,
};

/** Faults that a successful preparation ends. */
const SETTLED_BY_PREPARING = ["E_SCHEMA_UNKNOWN", "E_SCHEMA_MISMATCH", "E_FEED_MISCONFIGURED"] as const;

const PREPARE_BACKOFF = { firstMs: 200, lastMs: 10_000 };

/** The capture of one service at the centre; see the file's head. Its calls may be made before start(): they wait. */
export class CaptureRoom implements Part {
  readonly name = "capture";
  readonly #rooms: CaptureRooms;
  readonly #world: World;
  readonly #options: CaptureOptions;
  readonly #stopping = stopSignal();
  readonly #publisher: Publisher;
  readonly #scans: Scans;
  readonly #logs: Logs;
  readonly #settle: Settle;
  readonly #holding: Holding;
  readonly #prepared = new Gate();
  #era: Era | undefined;
  /** The highest epoch that a message of the stream was seen to carry. */
  #epochSeen = 0;
  /** Ends the pause before the next look at the stream. */
  #nudge = stopSignal();
  #obstacle: string | undefined = "not prepared yet";
  #working: Promise<void> = Promise.resolve();

  constructor(rooms: CaptureRooms, world: World, options: CaptureOptions = CAPTURE_DEFAULTS) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    const era = (): Era => present(this.#era, "nothing is published before the era is known");
    this.#holding = new Holding(rooms, world, options.guard);
    this.#publisher = new Publisher({ ...rooms, era, sawEpoch: (epoch) => this.noteEpoch(epoch),
      mayVanish: (read, keys) => this.#mayVanish(read, keys) }, world, options.publish);
    const publish = (keys: readonly AggregateKey[], wish: Wish = "look"): Promise<void> => this.#publisher.publish(keys, wish);
    const view = rooms.view ?? streamReader(rooms, (key, head) => this.#publisher.learnHead(key, head));
    this.#scans = new Scans({ ...rooms, view, era, holding: this.#holding, publish }, world, options.scan, this.#stopping.signal);
    this.#logs = new Logs({ ...rooms, publish, isPublished: (key) => this.#publisher.headOf(key)?.digest !== undefined,
      scanKeys: async (kind) => void (await this.#scans.scan(kind, "keys")) });
    this.#settle = new Settle(world, options.settle, (keys, logs) => {
      void this.publish(keys);
      void this.#lookAtLogs(logs);
    });
  }

  /** Returns at once; preparing goes on in the background, for ever if need be. */
  start(): Promise<void> {
    this.#working = this.#prepare();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#nudge.abort();
    this.#settle.stop();
    await this.#working;
  }

  notReady(): string | undefined {
    return this.#obstacle ?? this.#rooms.feed.disconnected();
  }

  /** The era that images are published under; undefined until prepared. */
  get era(): Era | undefined {
    return this.#era;
  }

  /** Resolves when the era is known and comparisons may be made, or `signal` aborts. */
  ready(signal: AbortSignal): Promise<void> {
    return this.#prepared.passed(signal);
  }

  /** For the status document. */
  status(): { readonly epoch: number | undefined; readonly schema: string | undefined; readonly filled: boolean;
    readonly dirty: number; readonly scans: number } {
    return { epoch: this.#era?.epoch, schema: this.#era?.schema, filled: this.#era?.filled ?? false,
      dirty: this.#publisher.dirty, scans: this.#scans.pending };
  }

  /** Asks the database what a call may take away, before it is forwarded. @throws E_ROWS_UNAVAILABLE */
  async before(declared: Declared, facts: CallFacts): Promise<Before> {
    const { service } = this.#rooms;
    const scopes = askedBefore(service, declared, facts);
    const { conditions } = touchedBy(service, declared, { ...facts, request: undefined, answer: undefined });
    const keys = await this.#keysIn(scopes);
    const needless = conditions.length === 0 ? [] : await this.#unmet(conditions);
    const scanned = declared.touches.filter((touch) => touch.touch === "scan").map((touch) => touch.kind);
    const scans = scanned.filter((kind) => !needless.includes(kind));
    return { keys, names: keys.map(keyText), scans, needless };
  }

  /**
   * Publishes everything that a call may have changed. `before` is what before() said; undefined when it could not be asked.
   * Resolves when the stream holds images read after this call; waits through outages; never resolves once stopped.
   */
  async after(declared: Declared, facts: CallFacts, before: Before | undefined): Promise<Looked> {
    const touched = touchedBy(this.#rooms.service, declared, facts);
    const found = await this.#patiently(() => this.#keysIn(touched.scopes));
    const keys = [...(before?.keys ?? []), ...touched.keys, ...found];
    const scans = [...touched.scans].filter(([kind]) => before?.needless.includes(kind) !== true);
    await Promise.all([
      this.#publishCalled(keys, declared.on.startsWith("DELETE ") ? "delete" : "call"), this.#lookAtLogs(touched.logs),
      ...scans.map(([kind, depth]) => this.scan(kind, depth))]);
    this.#settle.schedule(keys, touched.logs);
    return { keys, logs: touched.logs };
  }

  /** Looks once more at what was published; see Looked. */
  async again(looked: Looked): Promise<void> {
    await Promise.all([this.publish(looked.keys), this.#lookAtLogs(looked.logs)]);
  }

  /** Marks aggregates dirty; resolves when the stream holds images read after this call. */
  async publish(keys: readonly AggregateKey[], wish: Wish = "look"): Promise<void> {
    if (this.#publisher.dirty + keys.length <= this.#options.dirtyKeysMax) return this.#publisher.publish(keys, wish);
    this.#world.metrics.count("holdfast_dirty_overflows_total");
    const kinds = new Set(keys.map((key) => key.kind));
    await Promise.all([...kinds].map((kind) => this.scan(kind, "images")));
  }

  /** Says images again even if the stream holds them: a site holds a newer version than the stream. */
  async force(keys: readonly AggregateKey[]): Promise<void> {
    await this.#publisher.force(keys);
  }

  /** Compares a kind with the stream and publishes what differs, as far as the guard lets it through. */
  async scan(kind: string, depth: ScanDepth): Promise<ScanCounts> {
    await this.#prepared.passed(this.#stopping.signal);
    return this.#scans.scan(kind, depth);
  }

  /** Aggregates of `kind` that the scan now running has compared so far. */
  scanned(kind: string): number {
    return this.#scans.seenOf(kind);
  }

  /** Compares every kind, parents first; `done` hears of each. */
  async scanAll(depth: ScanDepth, done: (counts: ScanCounts) => void = () => undefined): Promise<readonly ScanCounts[]> {
    const all: ScanCounts[] = [];
    for (const kind of this.#rooms.service.kinds.keys()) {
      const counts = await this.scan(kind, depth);
      done(counts);
      all.push(counts);
    }
    return all;
  }

  /** Publishes aggregates that somebody found changed without a call, as far as the guard lets them through. */
  async publishFound(keys: readonly AggregateKey[], cause: Blast["cause"]): Promise<void> {
    await this.#prepared.passed(this.#stopping.signal);
    for (const [kind, ofKind] of byKind(keys)) await this.#patiently(() => this.#scans.publishFound(kind, ofKind, cause));
  }

  /** Hears that a message of the stream carries `epoch`; one above the database's raises ours. */
  noteEpoch(epoch: number): void {
    this.#epochSeen = Math.max(this.#epochSeen, epoch);
    if (this.#era !== undefined && epoch > this.#era.epoch) this.#nudge.abort();
  }

  /**
   * The sequences of the stream have started again, or went back, in a way that only the caller could see: a new epoch, at
   * least `least`, in which everything is compared and said again.
   * @throws E_ROWS_UNAVAILABLE, E_FEED_UNAVAILABLE: nothing was changed
   */
  async raiseEpoch(reason: string, least: number, loser: Loser): Promise<void> {
    const before = present(this.#era, "an epoch is raised from the one that is known");
    const era = await raiseEra(this.#rooms.rows, this.#rooms.feed, before.schema, { from: before.epoch, least, loser });
    if (era.epoch > (this.#era?.epoch ?? 0)) this.#adopt(era, reason);
    this.#nudge.abort();
  }

  /** Keys that one call names. A call that would delete or rewrite too much of a kind is held like any other difference. */
  async #publishCalled(keys: readonly AggregateKey[], wish: Wish): Promise<void> {
    await Promise.all([...byKind(keys)].map(([kind, ofKind]) => ofKind.length > this.#options.guard.aggregatesMax
      ? this.#publishMany(kind, ofKind) : this.publish(ofKind, wish)));
  }

  async #publishMany(kind: string, keys: readonly AggregateKey[]): Promise<void> {
    await this.#prepared.passed(this.#stopping.signal);
    await this.#patiently(() => this.#scans.publishFound(kind, keys, "call"));
  }

  /** An emptied database is not believed that anything was deleted, unless a call asked for it. */
  async #mayVanish(read: RowReader, keys: readonly AggregateKey[]): Promise<boolean> {
    if (!await isEmptied(read, this.#rooms.service)) {
      this.#rooms.faults.clear("E_CENTRE_EMPTIED", this.#rooms.service.name);
      return true;
    }
    this.#world.log.error("aggregates are gone from a database with an emptied table: they are not called deleted",
      { aggregates: keys.length });
    this.#rooms.faults.raise("E_CENTRE_EMPTIED", this.#rooms.service.name, "a table that always has rows is empty");
    return false;
  }

  async #lookAtLogs(logs: readonly string[]): Promise<void> {
    await this.#prepared.passed(this.#stopping.signal);
    await Promise.all(logs.map((log) => this.#patiently(() => this.#logs.look(log))));
  }

  /** Kinds for which a condition asks for a row and there is none. */
  async #unmet(conditions: Touched["conditions"]): Promise<readonly string[]> {
    const { rows, service } = this.#rooms;
    return rows.snapshot(async (read) => {
      const unmet: string[] = [];
      for (const { kind, table, where } of conditions) {
        if (!await hasRow(read, present(service.tables.get(table), table), where)) unmet.push(kind);
      }
      return unmet;
    });
  }

  async #keysIn(scopes: readonly Scope[]): Promise<readonly AggregateKey[]> {
    if (scopes.length === 0) return [];
    const { rows, service } = this.#rooms;
    return rows.snapshot(async (read) => {
      const found: AggregateKey[] = [];
      for (const scope of scopes) {
        found.push(...await keysWhere(read, service, scope.kind, scope.table, scope.where));
      }
      return found;
    });
  }

  /** Tries until it works or this room stops; a bug is thrown on. When stopped it never resolves: the intent stays open. */
  async #patiently<T>(work: () => Promise<T>): Promise<T> {
    for (let failures = 1; ; failures += 1) {
      if (this.#stopping.signal.aborted) return new Promise(() => undefined);
      try {
        return await work();
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#world.log.debug("a look at the database failed and is tried again", factsOf(error));
        await waitBeforeRetry(this.#world, PREPARE_BACKOFF, failures, this.#stopping.signal);
      }
    }
  }

  async #prepare(): Promise<void> {
    const era = await this.#patientlyPrepared();
    if (era === undefined) return;
    const publishing = this.#publisher.run(this.#stopping.signal);
    this.#prepared.open();
    if (era.filled) this.#obstacle = undefined;
    await Promise.all([publishing, this.#watchEra()]);
  }

  /** Notices a stream that was lost or made anew while this process runs, and moves the high-water mark on. */
  async #watchEra(): Promise<void> {
    const { rows, feed } = this.#rooms;
    while (!this.#stopping.signal.aborted) {
      const era = present(this.#era, "watched once prepared");
      if (!era.filled) await this.#fillUnlessStopped(era);
      await sleep(this.#world.clock, this.#options.eraEveryMs, this.#nudge.signal);
      if (this.#stopping.signal.aborted) return;
      if (this.#nudge.signal.aborted) this.#nudge = stopSignal();
      try {
        const now = await claimEra(rows, feed, era.schema, { epoch: this.#epochSeen });
        if (now.epoch !== this.#era?.epoch) this.#adopt(now, "the stream was made anew, lost its end, or others said so");
        await this.#holding.look();
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#world.log.debug("the stream could not be looked at", factsOf(error));
      }
    }
  }

  #adopt(era: Era, reason: string): void {
    // An epoch that was only seen before this process heard of it from the database is another process's work.
    const restored = this.#epochSeen > (this.#era?.epoch ?? 0) && era.epoch > this.#epochSeen;
    this.#world.log.warn("a new epoch: everything is compared and said again", { epoch: era.epoch, reason });
    this.#rooms.faults.raise(restored ? "E_CENTRE_RESTORED" : "E_STREAM_REGRESSED", this.#rooms.feed.stream, reason,
      { epoch: era.epoch });
    this.#era = era;
    this.#publisher.forgetHeads();
  }

  /**
   * Scans that are stopped never resolve: whoever stops this room must not wait for them. Nor may anybody wait for those of an
   * epoch that is over: nothing is published in it any more, so they only end once the next one is known (simulation, seed 30).
   */
  async #fillUnlessStopped(era: Era): Promise<void> {
    const over = AbortSignal.any([this.#stopping.signal, this.#nudge.signal]);
    const ended = new Promise<void>((resolve) => over.addEventListener("abort", () => resolve(), { once: true }));
    if (!over.aborted) await Promise.race([this.#fill(era), ended]);
  }

  /** A new stream holds nothing: compare everything once, parents first. */
  async #fill(era: Era): Promise<void> {
    this.#obstacle = "comparing the whole database with a new stream";
    await this.scanAll("images");
    if (this.#era?.epoch !== era.epoch) return;
    await this.#patiently(() => markFilled(this.#rooms.rows, this.#rooms.feed, era.epoch));
    if (this.#era?.epoch !== era.epoch) return;
    this.#era = { ...era, filled: true };
    this.#obstacle = undefined;
    this.#rooms.faults.clear("E_STREAM_REGRESSED", this.#rooms.feed.stream);
    this.#world.log.info("the stream holds the whole database", { epoch: era.epoch });
  }

  async #patientlyPrepared(): Promise<Era | undefined> {
    const { service, rows, feed, faults } = this.#rooms;
    for (let failures = 1; !this.#stopping.signal.aborted; failures += 1) {
      try {
        const schema = await verifiedSchema(service, rows);
        await rows.ensureTables([STREAM_TABLE]);
        await this.#holding.prepare();
        const era = await claimEra(rows, feed, schema, { epoch: this.#epochSeen });
        assert(era.epoch >= 1, "epochs start at 1");
        this.#era = era;
        for (const code of SETTLED_BY_PREPARING) faults.clear(code, service.name);
        return era;
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#obstacle = error.message;
        if (error.move === "operator") faults.raise(error.code, service.name, error.message, error.facts);
        this.#world.log.warn("capture cannot start yet; calls are forwarded and noted", factsOf(error));
        await waitBeforeRetry(this.#world, PREPARE_BACKOFF, failures, this.#stopping.signal);
      }
    }
    return undefined;
  }
}
