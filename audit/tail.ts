/**
 * Reads the stream into the index: once completely at the start, after every broken reading, when somebody doubts it, and now and
 * then; and in between whatever comes. An ordinary reading from sequence 0 sees what a new site would see, which an old server
 * that was killed may show differently from what it answers when asked for one subject.
 *
 * Invariants: `complete` is open exactly while the index holds the whole stream up to its reached sequence; evidence is given
 * after each complete reading, never during one. Bounds: one batch in memory; a complete reading every rereadEveryMs.
 * Not here: what the evidence means (regression.ts), what is done about it (auditor.ts).
 */
import { sleep } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import { Gate, stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import { headOfMessage } from "../capture/heads.ts";
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { filterOf, heartbeatSubject, subjectPrefix } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import { decodeHeartbeat, type Heartbeat } from "../schemas/manifest.ts";
import { keyFromText } from "../schemas/row.ts";
import type { AuditNote } from "./notes.ts";
import { referredBy } from "./referred.ts";
import type { StreamFacts } from "./regression.ts";
import { DIGEST_BYTES } from "./slots.ts";
import type { Place, StreamIndex } from "./stream-index.ts";

export interface TailOptions {
  readonly rereadEveryMs: number;
  readonly batchMessagesMax: number;
  readonly batchBytesMax: number;
  readonly backoff: Backoff;
}

export interface TailRooms {
  readonly service: Service;
  readonly scope: string;
  readonly feed: Feed;
  readonly index: StreamIndex;
}

/** Who hears what the tail finds. */
export interface TailHearer {
  /** Asked before a complete reading: what the database knows of the stream. @throws E_ROWS_UNAVAILABLE */
  known(): Promise<AuditNote>;
  /** The reading broke, or something did not fit: until the stream was read again nobody knows what became of it. */
  interrupted(): void;
  /** A complete reading is over and the index is complete. */
  readAgain(facts: StreamFacts): void;
  /** Live aggregates that refer to what was deleted just now. */
  orphaned(names: readonly string[]): void;
  /** A message carries a higher epoch than any before. */
  newEpoch(epoch: number): void;
}

interface Other {
  readonly sequence: number;
  readonly digest: string;
}

interface Unfinished {
  readonly known: AuditNote;
  readonly lastSequence: number;
}

const EPOCH_MAX = 0xffff_ffff;
/** Pause after a doubtful message, so that a server that repeats itself is not asked without end. */
const DOUBT_REST_MS = 500;

/** What the headers of a message say. Damaged ones make it older than every good one, and different from every image. */
export function placeOf(message: FeedMessage): Place {
  const { epoch, digest } = headOfMessage(message);
  const bytes = Buffer.from(digest ?? "", "base64url");
  const atMs = Number(message.headers["Hf-At"]);
  return { sequence: message.sequence, epoch: epoch <= EPOCH_MAX ? epoch : 0,
    digest: bytes.byteLength === DIGEST_BYTES ? bytes.toString("base64url") : "",
    deleted: message.headers["Hf-Deleted"] === "1", atMs: Number.isFinite(atMs) ? atMs : Infinity };
}

/** One per service; see the file's head. */
export class Tail {
  readonly complete = new Gate();
  readonly #rooms: TailRooms;
  readonly #world: World;
  readonly #options: TailOptions;
  readonly #hearer: TailHearer;
  readonly #prefix: string;
  readonly #waiting = new Set<{ readonly sequence: number; readonly tell: (reached: boolean) => void }>();
  /** Heartbeats and manifests, by subject. */
  readonly #others = new Map<string, Other>();
  /** Subjects of those that the complete reading under way has shown. */
  readonly #othersShown = new Set<string>();
  #heartbeat: Heartbeat | "none" | "unread" = "none";
  #unfinished: Unfinished | undefined;
  #reachedBefore = 0;
  #following = stopSignal();
  #readHeadersOnly = false;
  #isDoubted = false;

  constructor(rooms: TailRooms, world: World, options: TailOptions, hearer: TailHearer) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#hearer = hearer;
    this.#prefix = `${subjectPrefix(rooms.service.name, rooms.scope)}.`;
  }

  /** The last heartbeat in the stream, as far as it could be read. */
  get lastHeartbeat(): Heartbeat | undefined {
    return typeof this.#heartbeat === "object" ? this.#heartbeat : undefined;
  }

  /** Number of the last heartbeat in the stream: 0 without one, undefined when it could not be read. */
  get heartbeat(): number | undefined {
    if (this.#heartbeat === "none") return 0;
    return this.#heartbeat === "unread" ? undefined : this.#heartbeat.n;
  }

  /** Sequence of the newest message of an aggregate, a heartbeat or a manifest; 0 without one. */
  sequenceOf(name: string): number {
    return this.#rooms.index.get(name)?.sequence ?? this.#others.get(this.#prefix + name)?.sequence ?? 0;
  }

  /** As sequenceOf, if it is certain that readers of the stream see it now. */
  shownAt(name: string): number {
    return this.complete.isOpen ? this.sequenceOf(name) : 0;
  }

  subjectShownAt(subject: string): number {
    return this.shownAt(subject.slice(this.#prefix.length));
  }

  /** Reads until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      try {
        await this.#readAll(signal);
        failures = 0;
        await this.#follow(signal);
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.complete.close();
        this.#hearer.interrupted();
        this.#readHeadersOnly = false;
        this.#world.log.warn("the stream is read again from its start",
          { service: this.#rooms.service.name, ...factsOf(error) });
        await waitBeforeRetry(this.#world, this.#options.backoff, ++failures, signal);
      }
    }
  }

  /** Something does not fit: reads the whole stream again, soon. */
  doubt(): void {
    this.complete.close();
    this.#hearer.interrupted();
    this.#readHeadersOnly = false;
    this.#isDoubted = true;
    this.#following.abort();
  }

  /** True once the index holds everything up to `sequence`; false when that takes longer than `withinMs`. */
  reaches(sequence: number, withinMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.complete.isOpen && this.#rooms.index.reached >= sequence) return Promise.resolve(true);
    return new Promise((resolve) => {
      const finish = (reached: boolean): void => {
        cancel();
        this.#waiting.delete(waiter);
        signal.removeEventListener("abort", onAbort);
        resolve(reached);
      };
      const onAbort = (): void => finish(false);
      const waiter = { sequence, tell: finish };
      const cancel = this.#world.clock.after(withinMs, onAbort);
      this.#waiting.add(waiter);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  async #readAll(signal: AbortSignal): Promise<void> {
    const { feed, index } = this.#rooms;
    const known = await this.#hearer.known();
    if (this.complete.isOpen) this.#reachedBefore = index.reached;
    this.complete.close();
    this.#isDoubted = false;
    this.#unfinished = undefined;
    this.#othersShown.clear();
    index.beginReading([...this.#others.values()].map(({ sequence }) => sequence));
    for await (const batch of this.#read(0, { untilTip: true, headersOnly: this.#readHeadersOnly }, signal)) {
      for (const message of batch) this.#take(message);
    }
    if (signal.aborted) return;
    this.#unfinished = { known, lastSequence: (await feed.state()).lastSequence };
    this.#finishIf(index.reached >= this.#unfinished.lastSequence);
  }

  /** Takes what comes until a complete reading is due or asked for. */
  async #follow(signal: AbortSignal): Promise<void> {
    this.#following = stopSignal();
    const { signal: following } = this.#following;
    const end = (): void => this.#following.abort();
    signal.addEventListener("abort", end, { once: true });
    const cancel = this.#world.clock.after(this.#options.rereadEveryMs, () => {
      this.#readHeadersOnly = this.complete.isOpen;
      end();
    });
    try {
      if (signal.aborted || this.#isDoubted) return;
      for await (const batch of this.#read(this.#rooms.index.reached, {}, following)) {
        for (const message of batch) await this.#follows(message, following);
        if (following.aborted) return;
        const isQuiet = batch.length === 0;
        this.#finishIf(isQuiet || this.#rooms.index.reached >= (this.#unfinished?.lastSequence ?? 0));
        this.#tell(isQuiet);
      }
    } finally {
      cancel();
      signal.removeEventListener("abort", end);
      if (this.complete.isOpen) this.#reachedBefore = this.#rooms.index.reached;
    }
  }

  #read(after: number, how: { readonly untilTip?: true; readonly headersOnly?: boolean },
    signal: AbortSignal): AsyncIterable<readonly FeedMessage[]> {
    const { service, scope, feed } = this.#rooms;
    return feed.read({ filter: filterOf(service.name, scope), after, ...how,
      batchMessagesMax: this.#options.batchMessagesMax, batchBytesMax: this.#options.batchBytesMax }, signal);
  }

  /** One message while following: a sequence that was passed already may only bring what is known. */
  async #follows(message: FeedMessage, signal: AbortSignal): Promise<void> {
    const { index } = this.#rooms;
    if (message.sequence <= index.reached && !this.#isKnown(message)) {
      await sleep(this.#world.clock, DOUBT_REST_MS, signal);
      throw new OperatingError("E_FEED_UNAVAILABLE", "a sequence that was passed came again with another message",
        { sequence: message.sequence, reached: index.reached });
    }
    const orphaned = this.#take(message);
    if (orphaned.length > 0 && this.complete.isOpen) this.#hearer.orphaned(orphaned);
  }

  #isKnown(message: FeedMessage): boolean {
    const place = placeOf(message);
    const other = this.#others.get(message.subject);
    if (other !== undefined) return other.sequence === place.sequence && other.digest === place.digest;
    return this.#rooms.index.holds(message.subject.slice(this.#prefix.length), place);
  }

  /** Takes one message over; gives whom to look at because of it. */
  #take(message: FeedMessage): readonly string[] {
    const { index, service } = this.#rooms;
    const name = message.subject.slice(this.#prefix.length);
    const place = placeOf(message);
    if (place.epoch > index.epochMost) this.#hearer.newEpoch(place.epoch);
    if (name.startsWith("_")) {
      this.#takeOther(message, place);
      return [];
    }
    const dot = name.indexOf(".");
    if (dot === -1 || !service.kinds.has(name.slice(0, dot))) {
      index.reach(message.sequence);
      return [];
    }
    const hasPayload = message.payload.byteLength > 0;
    return index.put(name, place, hasPayload ? () => referredBy(service, keyFromText(name), message.payload) : undefined);
  }

  #takeOther(message: FeedMessage, place: Place): void {
    const { index, service, scope } = this.#rooms;
    const known = this.#others.get(message.subject);
    const isSame = known?.sequence === place.sequence && known.digest === place.digest;
    index.sawOther(message.subject.slice(this.#prefix.length), message.sequence, known?.sequence ?? 0, isSame);
    this.#others.set(message.subject, { sequence: message.sequence, digest: place.digest });
    this.#othersShown.add(message.subject);
    if (message.subject !== heartbeatSubject(service.name, scope) || isSame) return;
    this.#heartbeat = "unread";
    if (message.payload.byteLength === 0) return;
    try {
      this.#heartbeat = decodeHeartbeat(message.subject, message.payload);
    } catch (error) {
      if (!isOperating(error)) throw error;
      this.#world.log.warn("a heartbeat in the stream cannot be read", factsOf(error));
    }
  }

  #finishIf(isOver: boolean): void {
    const unfinished = this.#unfinished;
    if (unfinished === undefined || !isOver) return;
    this.#unfinished = undefined;
    this.#forgetOthersNotShown();
    const evidence = this.#rooms.index.endReading(unfinished.known.floor);
    const reachedBefore = this.#reachedBefore;
    this.#reachedBefore = this.#rooms.index.reached;
    this.complete.open();
    this.#hearer.readAgain({ evidence, known: unfinished.known, heartbeat: this.heartbeat, reachedBefore,
      lastSequence: unfinished.lastSequence });
    this.#tell(false);
  }

  #forgetOthersNotShown(): void {
    for (const [subject, { sequence }] of this.#others) {
      if (this.#othersShown.has(subject)) continue;
      this.#rooms.index.missedOther(subject.slice(this.#prefix.length), sequence);
      this.#others.delete(subject);
      if (subject === heartbeatSubject(this.#rooms.service.name, this.#rooms.scope)) this.#heartbeat = "none";
    }
  }

  /** Tells who waits for what is reached now. A quiet stream has shown everything there is. */
  #tell(isQuiet: boolean): void {
    if (!this.complete.isOpen) return;
    for (const waiter of [...this.#waiting]) {
      if (isQuiet || this.#rooms.index.reached >= waiter.sequence) waiter.tell(true);
    }
  }
}
