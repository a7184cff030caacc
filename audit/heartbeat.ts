/**
 * Heartbeats: "I am here, this far, in this epoch", in the stream at a definite place among the changes. Their numbers come from
 * the central database and rise for ever, so a site that finds a higher number at a sequence it has passed knows that sequences
 * started again, before anybody raises the epoch; and the auditor itself finds a database that knows less than the stream.
 *
 *   read the stream's last heartbeat → read the note → (the stream knows more: the database was restored) → look at the stream's
 *   state → take a number, stored → publish expecting the one that was read → note the acknowledgement
 *
 * A process that dies in between leaves a number unused, or a heartbeat unacknowledged: both are harmless. Not here: when to
 * beat, and what a site makes of it.
 */
import { factsOf } from "../core/log.ts";
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { World } from "../core/world.ts";
import type { Era } from "../capture/era.ts";
import type { Feed, FeedMessage, StreamState } from "../feed/feed.ts";
import { heartbeatSubject } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { decodeHeartbeat, type Heartbeat } from "../schemas/manifest.ts";
import { compareVersions } from "../schemas/position.ts";
import { epochInDatabase, nextHeartbeat, noteAcknowledged, raiseFloor, readNote } from "./notes.ts";
import { say } from "./say.ts";

export interface HeartbeatRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly faults: Faults;
  /** What is published under now; undefined until it is known. */
  readonly era: () => Era | undefined;
  /** The last heartbeat that the tail has read: an old server may not give it when asked for the subject. */
  readonly heard: () => Heartbeat | undefined;
  /** Where the tail has read a subject's last message; 0 for nowhere. */
  readonly shownAt: (subject: string) => number;
  /** How far the index has read; 0 while it is not complete. */
  readonly reached: () => number;
  /**
   * The database is older than what was said: a person is told, and everything is said again in an epoch of at least `least`;
   * undefined when that was seen to already.
   */
  readonly restored: (reason: string, least: number | undefined) => Promise<void>;
  /** Another process has raised the epoch in the database. */
  readonly sawEpoch: (epoch: number) => void;
  /** The stream is shorter than it was. */
  readonly shorter: () => void;
}

/** A heartbeat at its place in the stream. */
export interface Beat extends Heartbeat {
  readonly sequence: number;
}

/** Share of the stream's size above which a person is told. */
const NEARLY_FULL_SHARE = 0.8;

/** Beats, one at a time. */
export class Heartbeats {
  readonly #rooms: HeartbeatRooms;
  readonly #world: World;
  readonly #subject: string;
  #last: Promise<unknown> = Promise.resolve();

  constructor(rooms: HeartbeatRooms, world: World) {
    this.#rooms = rooms;
    this.#world = world;
    this.#subject = heartbeatSubject(rooms.service.name, rooms.scope);
  }

  /**
   * Says a heartbeat; gives the newest one of the stream, which may be another auditor's. Undefined when there is nothing true to
   * say yet. @throws E_ROWS_*, E_FEED_*
   */
  beat(): Promise<Beat | undefined> {
    const beat = this.#last.then(() => this.#beat());
    this.#last = beat.catch(() => undefined);
    return beat;
  }

  async #beat(): Promise<Beat | undefined> {
    const { rows, feed } = this.#rooms;
    if (this.#rooms.era() === undefined) return undefined;
    const last = await feed.last(this.#subject);
    const held = last === undefined ? undefined : this.#read(last);
    const heard = this.#rooms.heard();
    const newest = (heard?.n ?? 0) > (held?.n ?? 0) ? heard : held;
    await this.#compareWithDatabase(newest);
    const reached = this.#rooms.reached();
    const state = await feed.state();
    this.#judgeSize(state);
    if (state.lastSequence < reached) {
      this.#rooms.shorter();
      return undefined;
    }
    const note = await nextHeartbeat(rows, feed.stream, newest?.n ?? 0);
    const era = this.#rooms.era();
    if (era === undefined) return undefined;
    const epoch = Math.max(era.epoch, await epochInDatabase(rows, feed.stream));
    if (epoch > era.epoch) this.#rooms.sawEpoch(epoch);
    const said: Heartbeat = { epoch, n: note.heartbeat, tip: state.lastSequence, filled: era.filled && epoch === era.epoch,
      floor: note.floor };
    const published = await say(feed, this.#world, { subject: this.#subject, said, schema: era.schema,
      expected: last?.sequence ?? 0, shownAt: this.#rooms.shownAt(this.#subject) });
    if (!published.stored) return this.#others();
    this.#world.metrics.count("holdfast_heartbeats_total", 1, { service: this.#rooms.service.name });
    await this.#acknowledge(said, published.sequence);
    return { ...said, sequence: published.sequence };
  }

  /**
   * A number or an epoch that the database never gave out proves that it was restored to an older state, or lost commits. The
   * stream was read first: what is said there was stored before. After a number of an earlier epoch everything has been said
   * again: whoever raised the epoch did so after the restoration.
   */
  async #compareWithDatabase(held: Heartbeat | undefined): Promise<void> {
    const { rows, feed } = this.#rooms;
    const note = await readNote(rows, feed.stream);
    const era = this.#rooms.era();
    if (held !== undefined && compareVersions(held.floor, note.floor) > 0) await raiseFloor(rows, feed.stream, held.floor);
    if (held !== undefined && era !== undefined && held.n > note.heartbeat) {
      await this.#rooms.restored(`the stream has heartbeat ${held.n} and the database has given out ${note.heartbeat}`,
        held.epoch >= era.epoch ? held.epoch + 1 : undefined);
      return;
    }
    const epoch = await epochInDatabase(rows, feed.stream);
    if (era !== undefined && epoch < era.epoch) {
      await this.#rooms.restored(`the database is at epoch ${epoch} and was at ${era.epoch}`, era.epoch + 1);
    }
  }

  /** Another auditor was faster: what it said serves as well. */
  async #others(): Promise<Beat | undefined> {
    const last = await this.#rooms.feed.last(this.#subject);
    const held = last === undefined ? undefined : this.#read(last);
    return last === undefined || held === undefined ? undefined : { ...held, sequence: last.sequence };
  }

  #read(message: FeedMessage): Heartbeat | undefined {
    try {
      return decodeHeartbeat(message.subject, message.payload);
    } catch (error) {
      if (!isOperating(error)) throw error;
      this.#world.log.warn("a heartbeat in the stream cannot be read and is replaced", factsOf(error));
      return undefined;
    }
  }

  /** Not noting it is harmless: the note then knows less than the stream. */
  async #acknowledge(said: Heartbeat, sequence: number): Promise<void> {
    try {
      await noteAcknowledged(this.#rooms.rows, this.#rooms.feed.stream, said.n, { epoch: said.epoch, sequence });
    } catch (error) {
      if (!isOperating(error)) throw error;
      this.#world.log.debug("an acknowledged heartbeat was not noted", factsOf(error));
    }
  }

  #judgeSize({ sizeBytes, sizeBytesMax }: StreamState): void {
    const { faults, feed } = this.#rooms;
    if (sizeBytesMax > 0 && sizeBytes >= sizeBytesMax * NEARLY_FULL_SHARE) {
      faults.raise("E_STREAM_NEARLY_FULL", feed.stream, `the stream holds ${sizeBytes} of ${sizeBytesMax} bytes`,
        { sizeBytes, sizeBytesMax });
    } else faults.clear("E_STREAM_NEARLY_FULL", feed.stream);
  }
}
