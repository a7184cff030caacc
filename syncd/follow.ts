/**
 * Follows one service's stream at a site: prepares the database, fills it the first time, then reads from the position in the
 * site's own database for ever. The stream server keeps no cursor for us; after any doubt reading starts again from the
 * position (E3). Batches are whatever has arrived, up to the bounds, so a quiet stream is applied at once and a busy one in
 * large transactions.
 */
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry } from "../core/retry.ts";
import { sleep } from "../core/clock.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { filterOf, subjectPrefix } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import { verifiedSchema } from "../rows/verified.ts";
import { SITE_COUNTER_FIRST, type Service } from "../schemas/define.ts";
import { replaces, type Version } from "../schemas/position.ts";
import { Applier, MovedError, type ApplierOptions } from "./applier.ts";
import type { ApplyRooms } from "./apply.ts";
import { fillSite, receiveAll, type ReadBounds } from "./fill.ts";
import { LEDGER_TABLES, movePosition, readPosition, startPosition, type SitePosition } from "./ledger.ts";
import { epochOf } from "./received.ts";

/** Pause before looking again whether too much still waits. */
const OVERFULL_PAUSE_MS = 1_000;

export interface FollowRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly faults: Faults;
  /** Called after every commit that wrote rows. */
  readonly committed: () => void;
}

export interface FollowStatus {
  readonly service: string;
  readonly epoch: number;
  readonly sequence: number;
  readonly mode: string;
  readonly parked: number;
  readonly quarantined: number;
  /** Age of the newest applied change when it was committed here; 0 when nothing waits. Clocks of two machines: a hint. */
  readonly lagSeconds: number;
  readonly notReady: string | undefined;
}

/** One service at one site. start() returns at once; what is away is waited for and named by notReady(). */
export class Follower implements Part {
  readonly name: string;
  readonly #rooms: FollowRooms;
  readonly #world: World;
  readonly #bounds: ReadBounds;
  readonly #applying: ApplierOptions;
  readonly #stopping = stopSignal();
  #applier: Applier | undefined;
  #obstacle: string | undefined = "not prepared yet";
  #lagSeconds = 0;
  #working: Promise<void> = Promise.resolve();

  constructor(rooms: FollowRooms, world: World, bounds: ReadBounds, applying: ApplierOptions) {
    this.name = `follow ${rooms.service.name}`;
    this.#rooms = rooms;
    this.#world = world;
    this.#bounds = bounds;
    this.#applying = applying;
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
    await this.#working;
  }

  notReady(): string | undefined {
    return this.#obstacle ?? this.#applier?.overfull ?? this.#rooms.feed.disconnected();
  }

  status(): FollowStatus {
    const position = this.#applier?.position;
    return { service: this.#rooms.service.name, epoch: position?.epoch ?? 0, sequence: position?.sequence ?? 0,
      mode: position?.mode ?? "unknown",
      parked: this.#applier?.parked ?? 0, quarantined: this.#applier?.quarantined ?? 0, lagSeconds: this.#lagSeconds,
        notReady: this.notReady() };
  }

  async #live(): Promise<void> {
    const signal = this.#stopping.signal;
    for (let failures = 0; !signal.aborted; ) {
      try {
        const applier = (this.#applier ??= await this.#prepared());
        if (applier.position.mode === "fill") await this.#fill(applier);
        failures = 0;
        await this.#tail(applier);
      } catch (error) {
        if (!isOperating(error)) throw error;
        if (error instanceof MovedError) this.#applier = undefined;
        if (this.#applier === undefined) this.#obstacle = error.message;
        if (error.move === "operator") this.#rooms.faults.raise(error.code, this.#rooms.service.name, error.message, error.facts);
        this.#world.log.warn("following was interrupted and starts again from the position",
          { service: this.#rooms.service.name, ...factsOf(error) });
        await waitBeforeRetry(this.#world, this.#applying.retry, ++failures, signal);
      }
    }
  }

  /** Checks the database, makes what is ours in it, and recalls what waited. */
  async #prepared(): Promise<Applier> {
    const { service, rows, feed, faults } = this.#rooms;
    await verifiedSchema(service, rows);
    for (const code of ["E_SCHEMA_UNKNOWN", "E_SCHEMA_MISMATCH"] as const) faults.clear(code, service.name);
    await rows.ensureTables(LEDGER_TABLES);
    for (const table of service.tables.values()) if (table.counted !== undefined) await rows.ensureCounter(table,
      SITE_COUNTER_FIRST);
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

  async #fill(applier: Applier): Promise<void> {
    this.#obstacle = "first fill: reading the whole stream";
    await fillSite(this.#rooms.service, this.#rooms.scope, this.#rooms.feed, applier, this.#bounds, this.#stopping.signal);
    if (this.#stopping.signal.aborted) return;
    const tail: SitePosition = { ...applier.position, mode: "tail" };
    await this.#rooms.rows.transaction((write) => movePosition(write, this.#rooms.feed.stream, tail));
    await applier.carry({ changes: [], unreadable: [] }, tail, this.#stopping.signal);
    this.#world.log.info("the first fill is done", { service: this.#rooms.service.name, parked: applier.parked });
  }

  async #tail(applier: Applier): Promise<void> {
    const { service, scope, feed } = this.#rooms;
    const signal = this.#stopping.signal;
    const batches = feed.read({ filter: filterOf(service.name, scope), after: applier.position.sequence,
      batchMessagesMax: this.#bounds.changesMax, batchBytesMax: this.#bounds.bytesMax }, signal);
    this.#obstacle = undefined;
    for await (const messages of batches) {
      if (signal.aborted) return;
      const last = messages.at(-1);
      if (last === undefined) {
        this.#lagSeconds = 0;
        await applier.verifyPosition();
      }
      else if (await this.#isMadeAnew(applier, messages)) return;
      else await this.#take(applier, messages, last);
      await applier.tryDue(signal);
      while (applier.overfull !== undefined && !signal.aborted) {
        await sleep(this.#world.clock, OVERFULL_PAUSE_MS, signal);
        await applier.tryDue(signal);
      }
    }
  }

  /**
   * An epoch above ours: the stream was made anew or lost its end, and its sequences mean something else. The site reads it from
   * the start; versions of the new epoch replace all older ones.
   */
  async #isMadeAnew(applier: Applier, messages: readonly FeedMessage[]): Promise<boolean> {
    const epoch = Math.max(...messages.map(epochOf));
    if (epoch <= applier.position.epoch || applier.position.epoch === 0) return false;
    this.#world.log.warn("the stream was made anew: the site reads it from the start", { epoch, before: applier.position.epoch });
    await applier.carry({ changes: [], unreadable: [] }, { epoch, sequence: 0, mode: "fill" }, this.#stopping.signal);
    return true;
  }

  async #take(applier: Applier, messages: readonly FeedMessage[], last: FeedMessage): Promise<void> {
    const epoch = Math.max(applier.position.epoch, epochOf(last));
    await applier.carry(receiveAll(this.#rooms.service, messages), { epoch, sequence: last.sequence, mode: "tail" },
      this.#stopping.signal);
    const publishedMs = Number(last.headers["Hf-At"]);
    if (Number.isFinite(publishedMs)) {
      this.#lagSeconds = Math.max(0, (this.#world.clock.nowMs() - publishedMs) / 1000);
      this.#world.metrics.observe("holdfast_commit_delay_seconds", this.#lagSeconds, { service: this.#rooms.service.name });
    }
  }
}
