/**
 * Listening for the auditor's heartbeats: the newest one on the stream, how long nothing came, and the fault when heartbeats
 * stay away. The stream being quiet is normal; heartbeats staying away on a healthy connection means that nobody at the centre
 * compares the databases, or that this reader waits beyond the end of a stream that went back.
 *
 * Bounds: the newest heartbeat is asked for at most once in QUIET_PERIODS periods, and at each beginning of a reading.
 * Not here: what a heartbeat proves (heard.ts).
 */
import type { Faults } from "../core/faults.ts";
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { heartbeatSubject } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import type { PlacedHeartbeat } from "./heard.ts";
import { receive } from "./received.ts";

/** After so many heartbeat periods without any message the stream's newest heartbeat is looked at. */
const QUIET_PERIODS = 2;
/** After so many periods without a heartbeat it is a fault. */
const MISSED_PERIODS_MAX = 4;

export interface HearingRooms {
  readonly service: Service;
  readonly scope: string;
  readonly feed: Feed;
  readonly faults: Faults;
}

/** See the file's head. */
export class Hearing {
  readonly #rooms: HearingRooms;
  readonly #world: World;
  readonly #everyMs: number;
  #newest: PlacedHeartbeat | undefined;
  #everHeard = false;
  #heardMs = 0;
  #quietSinceMs = 0;
  #quietMs = 0;

  /** `everyMs`: the auditor's period. */
  constructor(rooms: HearingRooms, world: World, everyMs: number) {
    this.#rooms = rooms;
    this.#world = world;
    this.#everyMs = everyMs;
  }

  /** The newest heartbeat that came or was asked for, passed by the position or not. */
  get newest(): PlacedHeartbeat | undefined {
    return this.#newest;
  }

  /** A reading begins. `everHeard`: the ledger knows of a heartbeat. */
  begin(everHeard: boolean): void {
    this.#everHeard ||= everHeard;
    this.#heardMs = this.#quietSinceMs = this.#world.clock.monotonicMs();
  }

  /** Messages arrived. */
  arrived(): void {
    this.#quietSinceMs = this.#world.clock.monotonicMs();
  }

  /** A heartbeat came in the reading. */
  note(heartbeat: PlacedHeartbeat): void {
    this.#everHeard = true;
    if (this.#newest !== undefined && heartbeat.n === this.#newest.n) return;
    this.#newest = heartbeat;
    this.#heardMs = this.#world.clock.monotonicMs();
    this.#rooms.faults.clear("E_HEARTBEAT_MISSING", this.#rooms.service.name);
  }

  /** Asks the stream for its newest heartbeat; undefined when there is none that can be read. @throws what the feed throws */
  async ask(): Promise<PlacedHeartbeat | undefined> {
    const { service, scope, feed } = this.#rooms;
    const message = await feed.last(heartbeatSubject(service.name, scope));
    const arrival = message === undefined ? undefined : receive(service, message);
    if (arrival?.kind !== "heartbeat") return undefined;
    this.note(arrival.heartbeat);
    return arrival.heartbeat;
  }

  /** True once in a while when nothing at all arrives. */
  isQuiet(): boolean {
    const nowMs = this.#world.clock.monotonicMs();
    if (nowMs - this.#quietSinceMs < QUIET_PERIODS * this.#everyMs) return false;
    this.#quietSinceMs = nowMs;
    return true;
  }

  /**
   * Seconds since everything on the stream was certainly read here: the stream was quiet, or a heartbeat was passed (`passedMs`).
   * Undefined when that never was. By this site's clock alone.
   */
  ageSeconds(passedMs = 0): number | undefined {
    const currentMs = Math.max(this.#quietMs, passedMs);
    return currentMs === 0 ? undefined : Math.max(0, (this.#world.clock.nowMs() - currentMs) / 1000);
  }

  /** Call while connected, when everything was read and nothing comes: raises the fault when heartbeats stay away. */
  watch(): void {
    this.#quietMs = this.#world.clock.nowMs();
    const missingMs = this.#world.clock.monotonicMs() - this.#heardMs;
    if (!this.#everHeard || missingMs < MISSED_PERIODS_MAX * this.#everyMs) return;
    this.#rooms.faults.raise("E_HEARTBEAT_MISSING", this.#rooms.service.name,
      "the auditor at the centre is not heard: what the proxies miss is not found", { missingMs: Math.round(missingMs) });
  }
}
