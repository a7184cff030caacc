/**
 * Looking ahead: what takes authority away overtakes everything else that waits for this site. When a site is behind, the
 * headers of what lies ahead are read, which costs little; aggregates whose message says that it is urgent (schemas/urgent.ts)
 * are fetched by name and applied at once. The position does not move: when the tail comes to them, their version was applied
 * already and they are skipped.
 *
 * Invariants: nothing is applied here that the tail would not apply: same decisions, same ledger, same fence; a change of another
 * epoch is left to the tail, which knows what that means. Each header is looked through once while a daemon lives, however often
 * it looks. Dying in the middle loses nothing: what was applied is in the ledger, the rest is found again.
 * Bounds: HEADERS_AT_ONCE headers and LANES fetched images in memory; a look every LOOK_EVERY_MS at most.
 */
import type { World } from "../core/world.ts";
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { filterOf, keyOfSubject } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import type { Version } from "../schemas/position.ts";
import { inLanes } from "./admission.ts";
import type { Applier } from "./applier.ts";
import { epochOf, receive, type Received } from "./received.ts";

/** Headers of one batch: a thousand messages without bodies. */
const HEADERS_AT_ONCE = 1_000;
const HEADER_BYTES_MAX = 1 << 20;
/** Images fetched at a time, and applied in one transaction. */
const LANES = 64;
/** Pause between two looks of a site that stays behind: a look makes and removes a reader on the server. */
const LOOK_EVERY_MS = 250;

export interface AheadRooms {
  readonly service: Service;
  readonly scope: string;
  readonly feed: Feed;
}

const NOWHERE: Version = { epoch: 0, sequence: 0 };

/** The looks of one follower. */
export class Ahead {
  readonly #rooms: AheadRooms;
  readonly #world: World;
  /** Everything up to here was looked through. */
  #through: Version = NOWHERE;
  #lookedMs = -Infinity;

  constructor(rooms: AheadRooms, world: World) {
    this.#rooms = rooms;
    this.#world = world;
  }

  /** The tail begins, or begins again: its first batch may be the first of many, however small it is. */
  begin(): void {
    this.#lookedMs = -Infinity;
  }

  /** The stream is read anew: what was looked through is worth nothing. */
  forget(): void {
    this.#through = NOWHERE;
    this.begin();
  }

  /**
   * Before a batch of the tail is applied; not to run while anything else commits. `isFull`: there may be more behind it.
   * @throws what the feed and the database throw
   */
  async beforeBatch(applier: Applier, isFull: boolean, signal: AbortSignal): Promise<void> {
    const nowMs = this.#world.clock.monotonicMs();
    const isFirst = this.#lookedMs === -Infinity;
    if (!isFirst && (!isFull || nowMs - this.#lookedMs < LOOK_EVERY_MS)) return;
    await this.#look(applier, applier.position, signal);
    this.#lookedMs = this.#world.clock.monotonicMs();
  }

  /** Before a site that has been filled once is filled again. @throws what the feed and the database throw */
  async beforeFill(applier: Applier, signal: AbortSignal): Promise<void> {
    this.forget();
    // A site that has nothing yet has nothing to take away.
    if (applier.position.epoch > 0) await this.#look(applier, { ...applier.position, sequence: 0 }, signal);
  }

  /** Applies what is urgent above `after` and up to the stream's present end. */
  async #look(applier: Applier, after: Version, signal: AbortSignal): Promise<void> {
    const { service, scope, feed } = this.#rooms;
    const from = this.#through.epoch === after.epoch ? Math.max(after.sequence, this.#through.sequence) : after.sequence;
    let applied = 0;
    const batches = feed.read({ filter: filterOf(service.name, scope), after: from, headersOnly: true, untilTip: true,
      batchMessagesMax: HEADERS_AT_ONCE, batchBytesMax: HEADER_BYTES_MAX }, signal);
    for await (const messages of batches) {
      const urgent = messages.filter((message) => isUrgentOf(message, after.epoch));
      for (let at = 0; at < urgent.length && !signal.aborted; at += LANES) {
        applied += await this.#apply(applier, urgent.slice(at, at + LANES), after.epoch, signal);
      }
      if (signal.aborted) return;
      this.#through = { epoch: after.epoch, sequence: messages.at(-1)?.sequence ?? this.#through.sequence };
    }
    if (applied > 0) this.#world.metrics.count("holdfast_urgent_applied_total", applied, { service: service.name });
  }

  /** Fetches the images as they are now and applies them where the position is. */
  async #apply(applier: Applier, urgent: readonly FeedMessage[], epoch: number, signal: AbortSignal): Promise<number> {
    const { service, feed } = this.#rooms;
    const found = await inLanes(urgent, LANES, ({ subject }) => feed.last(subject));
    const changes = found.flatMap((message): Received[] => {
      // Gone meanwhile, or said again in another epoch: the tail knows.
      if (message === undefined || epochOf(message) !== epoch) return [];
      const arrival = receive(service, message);
      // What cannot be read is quarantined by the tail, which notes the position with it.
      return arrival.kind === "change" ? [arrival.change] : [];
    });
    if (changes.length > 0) await applier.carry({ changes, unreadable: [] }, applier.position, signal);
    return changes.length;
  }
}

function isUrgentOf(message: FeedMessage, epoch: number): boolean {
  return message.headers["Hf-Urgent"] === "1" && epochOf(message) === epoch && keyOfSubject(message.subject) !== undefined;
}
