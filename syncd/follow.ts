/**
 * Follows one service's stream at a site: prepares the database, fills it the first time, then reads from the position in the
 * site's own database for ever. The stream server keeps no cursor for us; after any doubt reading starts again from the
 * position (E3), and when the stream turns out to be another than the one that was read, from the beginning (E2). Batches are
 * whatever has arrived, up to the bounds, so a quiet stream is applied at once and a busy one in large transactions.
 *
 * Everything that touches the applier goes through one queue (works.ts): the tail, sweeps, manifest checks, and what others ask
 * for, which goes on while the feed is cut.
 * Not here: what a batch becomes (apply.ts), sweeps and checks (upkeep.ts).
 */
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { Part as LifePart } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import { sleep } from "../core/clock.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import { GUARD_DEFAULTS, type GuardOptions } from "../capture/guard.ts";
import { Holding } from "../capture/held.ts";
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { filterOf, subjectPrefix } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import { verifiedSchema } from "../rows/verified.ts";
import { SITE_COUNTER_FIRST, type Service } from "../schemas/define.ts";
import { replaces, type Version } from "../schemas/position.ts";
import { keyText } from "../schemas/row.ts";
import { Ahead } from "./ahead.ts";
import { Applier, MovedError, type ApplierOptions } from "./applier.ts";
import type { ApplyRooms } from "./apply.ts";
import { fillSite, type ReadBounds } from "./fill.ts";
import { HEARD_TABLE, hasRegressed, readHeard, type Heard, type PlacedHeartbeat, type Regression } from "./heard.ts";
import { Hearing } from "./hearing.ts";
import { LEDGER_TABLES, readPosition, startPosition, type SitePosition } from "./ledger.ts";
import { CHECK_DEFAULTS } from "./manifest-check.ts";
import { partsOf, type Part } from "./parts.ts";
import { epochOf, type Received } from "./received.ts";
import type { FollowStatus } from "./report.ts";
import { Upkeep, type UpkeepOptions } from "./upkeep.ts";
import { Works } from "./works.ts";

/** Pauses while the stream server is away: short enough that nobody waits for us when it is back. */
const FEED_RETRY: Backoff = { firstMs: 50, lastMs: 1_000 };
/** Pause before looking again whether too much still waits. */
const OVERFULL_PAUSE_MS = 1_000;

export interface FollowRooms {
  readonly service: Service;
  readonly scope: string;
  /** Name of this site, under which the auditor is asked; without it it is not. */
  readonly site?: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly faults: Faults;
  /** Called after every commit that wrote rows. */
  readonly committed: () => void;
}

/** All but the bounds of reading and applying. */
export interface FollowOptions extends Omit<UpkeepOptions, "changesMax"> {
  readonly guard: GuardOptions;
  /** The auditor's period. */
  readonly heartbeatEveryMs: number;
}

export const FOLLOW_DEFAULTS: FollowOptions = { ...CHECK_DEFAULTS, guard: GUARD_DEFAULTS, heartbeatEveryMs: 15_000,
  manifestChecks: true, sweepAgainMs: 600_000 };

/** One service at one site. start() returns at once; what is away is waited for and named by notReady(). */
export class Follower implements LifePart {
  readonly name: string;
  /** The site's guard, for everybody who removes or rewrites rows of this service here. */
  readonly holding: Holding;
  readonly #rooms: FollowRooms;
  readonly #world: World;
  readonly #bounds: ReadBounds;
  readonly #applying: ApplierOptions;
  readonly #stopping = stopSignal();
  readonly #works = new Works();
  readonly #hearing: Hearing;
  readonly #upkeep: Upkeep;
  readonly #ahead: Ahead;
  #reading = stopSignal();
  #applier: Applier | undefined;
  #heard: Heard | undefined;
  #obstacle: string | undefined = "not prepared yet";
  #lagSeconds = 0;
  #working: Promise<void> = Promise.resolve();

  constructor(rooms: FollowRooms, world: World, bounds: ReadBounds, applying: ApplierOptions,
    options: FollowOptions = FOLLOW_DEFAULTS) {
    this.name = `follow ${rooms.service.name}`;
    this.#rooms = rooms;
    this.#world = world;
    this.#bounds = bounds;
    this.#applying = applying;
    this.holding = new Holding(rooms, world, options.guard);
    this.#hearing = new Hearing(rooms, world, options.heartbeatEveryMs);
    this.#ahead = new Ahead(rooms, world);
    this.#upkeep = new Upkeep({ ...rooms, site: rooms.site, holding: this.holding }, world,
      { ...options, changesMax: bounds.changesMax });
    const labels = { service: rooms.service.name };
    world.metrics.gauge("holdfast_parked_changes", () => this.#applier?.parked ?? 0, labels);
    world.metrics.gauge("holdfast_quarantined_changes", () => this.#applier?.quarantined ?? 0, labels);
    world.metrics.gauge("holdfast_lag_seconds", () => this.#lagSeconds, labels);
    world.metrics.gauge("holdfast_position_sequence", () => this.#applier?.position.sequence ?? 0, labels);
  }

  start(): Promise<void> {
    this.#working = this.#live();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#reading.abort();
    await this.#working;
  }

  notReady(): string | undefined {
    return this.#obstacle ?? this.#applier?.overfull ?? this.#rooms.feed.disconnected();
  }

  status(): FollowStatus {
    const applier = this.#applier;
    const { epoch, sequence, mode } = applier?.position ?? { epoch: 0, sequence: 0, mode: "unknown" };
    return { service: this.#rooms.service.name, epoch, sequence, mode, parked: applier?.parked ?? 0,
      quarantined: applier?.quarantined ?? 0, heard: this.#heard?.n ?? 0, lagSeconds: this.#lagSeconds,
      ageSeconds: this.#hearing.ageSeconds(this.#heard?.passedMs), notReady: this.notReady() };
  }

  /** True once the schema was checked and the stream was read as a whole; false again while it is read anew. */
  get isFilled(): boolean {
    return this.#applier !== undefined && this.#applier.position.mode !== "fill";
  }

  /** True while a manifest of this epoch said that the ledger here names everything that the centre has. */
  get isProven(): boolean {
    return this.#applier !== undefined && this.#upkeep.isProven(this.#applier.position);
  }

  /**
   * Does `work` with the applier while nothing else uses it; also while the feed is cut.
   * @throws E_SITE_CONTENDED when the site's database was not reached yet, or was moved under us; what `work` throws
   */
  withApplier<T>(work: (applier: Applier, signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#works.run(async () => {
      const applier = this.#applier;
      if (applier === undefined) throw new OperatingError("E_SITE_CONTENDED", "the site's ledger was not read yet");
      try {
        return await work(applier, this.#stopping.signal);
      } catch (error) {
        // The tail finds it too, but not while the feed is cut.
        if (error instanceof MovedError && this.#applier === applier) this.#applier = undefined;
        throw error;
      }
    });
  }

  /**
   * Writes images whose versions were applied already once more, or removes what was applied in these versions: repairs. An
   * aggregate that has begun to wait meanwhile is left alone: a repair would take the place of the change that waits.
   */
  async repair(changes: readonly Received[]): Promise<void> {
    for (let from = 0; from < changes.length; from += this.#bounds.changesMax) {
      const some = changes.slice(from, from + this.#bounds.changesMax);
      await this.withApplier((applier, signal) =>
        applier.repair(some.filter((change) => !applier.waits(keyText(change.image.key))), signal));
    }
  }

  /** Applies one change that did not come by the stream, after `mayApply` has resolved; nothing is applied between the two. */
  async applyNow(change: Received, mayApply: () => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.withApplier(async (applier, stopping) => {
      await mayApply();
      await applier.carry({ changes: [change], unreadable: [] }, applier.position, AbortSignal.any([stopping, signal]));
    });
  }

  /** Reads the whole stream anew and removes what it does not have; resolves when that is certain to happen. */
  async resync(): Promise<void> {
    await this.withApplier((applier) => this.#beginFill(applier, applier.position.epoch, "asked"));
    this.#reading.abort();
  }

  /** Looks again, soon, for what the stream does not have: after a person has decided about what was held. */
  async sweep(): Promise<void> {
    await this.withApplier(async (applier, signal) => {
      const sweep: SitePosition = { ...applier.position, mode: "sweep" };
      if (applier.position.mode === "tail") await applier.carry({ changes: [], unreadable: [] }, sweep, signal);
      this.#upkeep.hastenSweep();
    });
  }

  async #live(): Promise<void> {
    const signal = this.#stopping.signal;
    for (let failures = 0; !signal.aborted; ) {
      const beganMs = this.#world.clock.monotonicMs();
      try {
        const applier = (this.#applier ??= await this.#prepared());
        if (applier.position.mode === "fill") await this.#fill(applier);
        if (applier.position.mode === "fill" || signal.aborted) continue;
        await this.#tail(applier);
      } catch (error) {
        if (!isOperating(error)) throw error;
        if (this.#world.clock.monotonicMs() - beganMs > FEED_RETRY.lastMs) failures = 0;
        if (error instanceof MovedError) this.#applier = undefined;
        if (this.#applier === undefined) this.#obstacle = error.message;
        // That the position was moved is the applier's fault to raise, and to clear when it moves it again.
        if (error.move === "operator" && !(error instanceof MovedError)) {
          this.#rooms.faults.raise(error.code, this.#rooms.service.name, error.message, error.facts);
        }
        this.#world.log.warn("following was interrupted and starts again from the position",
          { service: this.#rooms.service.name, ...factsOf(error) });
        const pauses = isOperating(error, "E_FEED_UNAVAILABLE") ? FEED_RETRY : this.#applying.retry;
        await waitBeforeRetry(this.#world, pauses, ++failures, signal);
      }
    }
  }

  /** Checks the database, makes what is ours in it, and recalls what waited. */
  async #prepared(): Promise<Applier> {
    const { service, rows, feed, faults } = this.#rooms;
    await verifiedSchema(service, rows);
    for (const code of ["E_SCHEMA_UNKNOWN", "E_SCHEMA_MISMATCH"] as const) faults.clear(code, service.name);
    await rows.ensureTables([...LEDGER_TABLES, HEARD_TABLE]);
    await this.holding.prepare();
    for (const table of service.tables.values()) if (table.counted !== undefined) await rows.ensureCounter(table,
      SITE_COUNTER_FIRST);
    this.#heard = await rows.snapshot((read) => readHeard(read, feed.stream));
    const position = await rows.transaction(async (write): Promise<SitePosition> => {
      const held = await readPosition(write, feed.stream);
      if (held !== undefined) return held;
      const first: SitePosition = { epoch: 0, sequence: 0, mode: "fill" };
      await startPosition(write, feed.stream, first);
      return first;
    });
    const rooms: ApplyRooms = { service, rows, stream: feed.stream, isOutdated: (name, held) => this.#isOutdated(name, held) };
    const applier = new Applier(rooms, position, faults, this.#world, this.#applying, this.#rooms.committed);
    await applier.recall(this.#stopping.signal);
    return applier;
  }

  async #isOutdated(name: string, held: Version | undefined): Promise<boolean> {
    const last = await this.#rooms.feed.last(`${subjectPrefix(this.#rooms.service.name, this.#rooms.scope)}.${name}`);
    return last !== undefined && replaces({ epoch: epochOf(last), sequence: last.sequence }, held);
  }

  /**
   * The end is noted before the fill and is where the tail begins: what lies below it was read by the fill, or replaced by
   * something above it. The newest heartbeat is asked for after the end, so that no heartbeat lies between the two.
   */
  async #fill(applier: Applier): Promise<void> {
    const { service, scope, feed } = this.#rooms;
    const signal = this.#stopping.signal;
    this.#obstacle = "reading the whole stream";
    const end = await feed.last(filterOf(service.name, scope));
    const heartbeat = await this.#hearing.ask();
    await this.#works.run(() => this.#ahead.beforeFill(applier, signal));
    await fillSite(service, scope, feed, this.#bounds, (work) =>
      this.#works.run(() => applier.carry(work, applier.position, signal)), signal);
    if (signal.aborted) return;
    const epoch = Math.max(applier.position.epoch, heartbeat?.epoch ?? 0, end === undefined ? 0 : epochOf(end));
    const position: SitePosition = { epoch, sequence: end?.sequence ?? 0, mode: "sweep" };
    await this.#works.run(() => applier.carry({ changes: [], unreadable: [], heard: heartbeat }, position, signal));
    this.#heard = heartbeat ?? this.#heard;
    this.#upkeep.hastenSweep();
    this.#world.log.info("the whole stream was read", { service: service.name, epoch, parked: applier.parked });
  }

  async #tail(applier: Applier): Promise<void> {
    const { service, scope, feed } = this.#rooms;
    this.#reading = stopSignal();
    const signal = AbortSignal.any([this.#stopping.signal, this.#reading.signal]);
    this.#hearing.begin(this.#heard !== undefined);
    this.#ahead.begin();
    if (await this.#isWorthless(applier)) return;
    const after = applier.position.sequence;
    const batches = feed.read({ filter: filterOf(service.name, scope), after,
      batchMessagesMax: this.#bounds.changesMax, batchBytesMax: this.#bounds.bytesMax }, signal);
    this.#obstacle = undefined;
    for await (const messages of batches) {
      if (signal.aborted) return;
      if (messages.some(({ sequence }) => sequence <= after)) return this.#readBelow(applier, messages);
      const isFull = messages.length >= this.#bounds.changesMax;
      if (messages.length > 0) await this.#works.run(() => this.#ahead.beforeBatch(applier, isFull, signal));
      const goOn = messages.length === 0 ? await this.#quiet(applier, signal) : await this.#take(applier, messages, signal);
      if (!goOn || signal.aborted) return;
      await this.#works.run(() => applier.tryDue(signal));
      while (applier.overfull !== undefined && !signal.aborted) {
        await sleep(this.#world.clock, OVERFULL_PAUSE_MS, signal);
        await this.#works.run(() => applier.tryDue(signal));
      }
    }
  }

  /** Nothing came for a while; false when reading has to begin again. */
  async #quiet(applier: Applier, signal: AbortSignal): Promise<boolean> {
    this.#lagSeconds = 0;
    await this.#works.run(() => applier.verifyPosition());
    this.#hearing.watch();
    if (this.#hearing.isQuiet()) {
      if (await this.#isWorthless(applier)) return false;
      // The stream has more than this reading brings: begin again at the position.
      if ((this.#hearing.newest?.sequence ?? 0) > applier.position.sequence) return false;
    }
    if (applier.position.mode === "fill") return false;
    await this.#works.run(() => this.#upkeep.sweepIfDue(applier, this.#hearing.newest, signal));
    return true;
  }

  /** Asks the stream for its newest heartbeat; true when that proves the position worthless: then a fill has begun. */
  async #isWorthless(applier: Applier): Promise<boolean> {
    const heartbeat = await this.#hearing.ask();
    if (heartbeat === undefined) return false;
    return this.#works.run(async () => {
      const regression = hasRegressed(applier.position, this.#heard, heartbeat);
      if (regression !== undefined) {
        await this.#beginFill(applier, heartbeat.epoch, regression);
        return true;
      }
      if (this.#heard === undefined && heartbeat.sequence <= applier.position.sequence) {
        await this.#hear(applier, { changes: [], unreadable: [] }, applier.position, heartbeat);
      }
      return false;
    });
  }

  /** A server gave what is below the place asked for: it clips a start beyond its end, so its sequences went back. */
  async #readBelow(applier: Applier, messages: readonly FeedMessage[]): Promise<void> {
    const epoch = Math.max(...messages.map(epochOf));
    await this.#works.run(() => this.#beginFill(applier, epoch, "sequences"));
  }

  /** Applies a batch; false when reading has to begin again. */
  async #take(applier: Applier, messages: readonly FeedMessage[], signal: AbortSignal): Promise<boolean> {
    this.#hearing.arrived();
    for (const part of partsOf(this.#rooms.service, messages)) {
      if (!await this.#works.run(() => this.#takePart(applier, part, messages, signal))) return false;
    }
    const publishedMs = Number(messages.at(-1)?.headers["Hf-At"]);
    if (Number.isFinite(publishedMs)) {
      this.#lagSeconds = Math.max(0, (this.#world.clock.nowMs() - publishedMs) / 1000);
      this.#world.metrics.observe("holdfast_commit_delay_seconds", this.#lagSeconds, { service: this.#rooms.service.name });
    }
    return true;
  }

  async #takePart(applier: Applier, part: Part, messages: readonly FeedMessage[], signal: AbortSignal): Promise<boolean> {
    const { position } = applier;
    // Somebody asked for a fill while this part waited for its turn.
    if (position.mode === "fill" || signal.aborted) return false;
    for (const because of part.notRead) this.#world.log.warn("a word of the centre could not be read", { because });
    const { heartbeat, last } = part;
    if (heartbeat !== undefined) this.#hearing.note(heartbeat);
    const epoch = Math.max(...messages.map(epochOf));
    const regression = position.epoch > 0 && epoch > position.epoch ? "epoch"
      : heartbeat === undefined ? undefined : hasRegressed(position, this.#heard, heartbeat);
    if (regression !== undefined) {
      await this.#beginFill(applier, Math.max(epoch, heartbeat?.epoch ?? 0), regression);
      return false;
    }
    // A reader may get things twice: the position never goes back by itself.
    const moveTo: SitePosition = { mode: position.mode, epoch: Math.max(position.epoch, epochOf(last)),
      sequence: Math.max(position.sequence, last.sequence) };
    await this.#hear(applier, part, moveTo, heartbeat);
    if (signal.aborted) return false;
    if (part.manifest !== undefined && await this.#upkeep.check(applier, part.manifest, signal)) {
      await this.#beginFill(applier, position.epoch, "manifest");
      return false;
    }
    if (heartbeat !== undefined) await this.#upkeep.sweepIfDue(applier, this.#hearing.newest, signal);
    return true;
  }

  /** Carries a work, and a heartbeat with it if it is a later one than was heard. */
  async #hear(applier: Applier, { changes, unreadable }: Pick<Part, "changes" | "unreadable">, moveTo: SitePosition,
    heartbeat: PlacedHeartbeat | undefined): Promise<void> {
    const isLater = heartbeat !== undefined && heartbeat.n > (this.#heard?.n ?? -1);
    const heard = isLater ? { ...heartbeat, passedMs: this.#world.clock.nowMs() } : undefined;
    await applier.carry({ changes, unreadable, heard }, moveTo, this.#stopping.signal);
    this.#heard = heard ?? this.#heard;
  }

  /**
   * The stream is not the one that was read, or is to be read again: the site reads it from the start. Versions of a higher epoch
   * replace all older ones; what is not there any more is swept afterwards.
   */
  async #beginFill(applier: Applier, epoch: number, why: Regression | "manifest" | "asked"): Promise<void> {
    const from = applier.position;
    this.#world.log.warn("the site reads the whole stream anew", { service: this.#rooms.service.name, why, epoch,
      epochBefore: from.epoch, sequenceBefore: from.sequence });
    this.#world.metrics.count("holdfast_resyncs_total", 1, { service: this.#rooms.service.name, why });
    const fill: SitePosition = { epoch: Math.max(epoch, from.epoch), sequence: 0, mode: "fill" };
    await applier.carry({ changes: [], unreadable: [] }, fill, this.#stopping.signal);
  }
}
