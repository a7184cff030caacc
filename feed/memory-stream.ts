/**
 * A stream in memory: what the server is to feed/memory.ts. It decides as nats-server does, and misbehaves as nats-server was
 * seen to, when asked to.
 *
 * Invariants: every method is one step without awaits; one message is kept per subject; time comes from the given clock only.
 * `faults` are named after what an observer would say happened.
 * Not here: connections, permissions, sizes of anything but the stream.
 */
import type { Clock } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { unavailable } from "./answers.ts";
import type { FeedMessage, Publication, Published, StreamState } from "./feed.ts";
import { DUPLICATE_WINDOW_MS } from "./settings.ts";
import { streamOf } from "./subjects.ts";

const SIZE_BYTES_MAX = 8 * 1024 ** 3;
/** A server counts more than the payload; this stands for subject, headers and its own frame. */
const MESSAGE_OVERHEAD_BYTES = 100;
/** Superseded messages are swept out of the order once they outnumber the kept ones by this factor. */
const SWEEP_FACTOR = 2;
const SWEEP_LEAST = 64;

export interface MemoryStreamOptions {
  readonly sizeBytesMax?: number;
  /** What a reader that starts beyond the end gets: servers up to 2.10 give it the next message, newer ones let it wait. */
  readonly startBeyondEnd?: "clip" | "wait";
}

/** What becomes of a publish that gets no answer; "later": it arrives LATE_PUBLISH_MS after its sender gave up. */
export type PublishFate = "stored" | "not stored" | "stored later";

/** Shorter than the last settle re-read, which is what finds such a message. */
export const LATE_PUBLISH_MS = 20_000;

/** A copy of a stream's files, as a backup has them. */
export interface StreamCopy {
  readonly messages: readonly FeedMessage[];
  readonly last: number;
  readonly created: string | undefined;
}

interface Kept {
  readonly message: FeedMessage;
  /** The message that this one replaced, which a damaged server may show again. */
  readonly replaced: FeedMessage | undefined;
  gone: boolean;
}

/** What the reader of a stream needs; feed/memory-reading.ts. */
export interface Readable {
  /** Kept messages above `after` that `filter` covers, oldest first. */
  above(after: number, filter: string): Iterable<FeedMessage>;
  lastSequence(): number;
  /** Tells `listener` of every change, and of what ends a reading, until the returned function is called. */
  listen(listener: Listener): () => void;
  readonly startBeyondEnd: "clip" | "wait";
  readonly repeatsDeliveries: boolean;
  /** True when the message that is about to be handed out is lost on its way. */
  losesDelivery(): boolean;
}

export interface Listener {
  changed(): void;
  broken(error: OperatingError): void;
}

/** One handle's serve(): who hears the questions on a subject. */
export interface Answerer {
  readonly subject: string;
  joined(): boolean;
  take(question: Uint8Array, askedOn: string, reply: (answer: Uint8Array) => void): void;
}

/** True when `filter` (literal, or ending in ">", with "*" for one token) covers `subject`. */
export function covers(filter: string, subject: string): boolean {
  const wanted = filter.split(".");
  const tokens = subject.split(".");
  for (const [place, token] of wanted.entries()) {
    if (token === ">") return tokens.length > place;
    if (token !== "*" && token !== tokens[place]) return false;
  }
  return tokens.length === wanted.length;
}

/** One service's stream; hand it to as many memoryFeed() handles as there are processes. */
export class MemoryStream implements Readable {
  readonly name: string;
  readonly startBeyondEnd: "clip" | "wait";
  readonly sizeBytesMax: number;
  readonly #clock: Clock;
  readonly #listeners = new Set<Listener>();
  readonly #answerers = new Set<Answerer>();
  readonly #acknowledged = new Map<string, { readonly sequence: number; readonly atMs: number }>();
  readonly #newest = new Map<string, Kept>();
  /** Older messages that are back in the order without the index of newest ones knowing. */
  readonly #revived = new Map<string, Kept>();
  #order: Kept[] = [];
  #goneInOrder = 0;
  #last = 0;
  #sizeBytes = 0;
  #creations = 0;
  #created: string | undefined;
  #refusesNewSubjects = false;
  #repeats = false;
  #deliveriesToLose = 0;
  readonly #acksToLose: PublishFate[] = [];
  #unnamedConflicts = 0;

  constructor(service: string, clock: Clock, options: MemoryStreamOptions = {}) {
    this.name = streamOf(service);
    this.#clock = clock;
    this.sizeBytesMax = options.sizeBytesMax ?? SIZE_BYTES_MAX;
    this.startBeyondEnd = options.startBeyondEnd ?? "clip";
  }

  /** What real servers were seen doing, at the caller's wish. */
  readonly faults = {
    /** The next publish gets no answer, whether or not it was stored. Calls add up. */
    loseAck: (fate: PublishFate): void => void this.#acksToLose.push(fate),
    /** The next `count` messages on their way to readers are lost, and nobody says so. Calls add up. */
    loseDeliveries: (count: number): void => void (this.#deliveriesToLose += count),
    /** Everything that is stored now, to be put back later. */
    copy: (): StreamCopy => ({ created: this.#created, last: this.#last,
      messages: this.#order.flatMap((kept) => (kept.gone ? [] : [kept.message])) }),
    /** The server's files are replaced by an older copy, and it starts again. */
    restore: (copy: StreamCopy): void => this.#restore(copy),
    /** The next publish is refused as a conflict by a server that names no sequence (10164). */
    conflictWithoutSequence: (times = 1): void => void (this.#unnamedConflicts += times),
    /** Readers get every batch twice while this is on. */
    repeatDeliveries: (on: boolean): void => void (this.#repeats = on),
    /** New subjects are refused as they are by a full stream. */
    refuseNewSubjects: (on: boolean): void => void (this.#refusesNewSubjects = on),
    /** Power loss: the newest `count` sequences are forgotten and used again; what they replaced is back. */
    dropTail: (count: number): void => this.#dropTail(count),
    /**
     * kill -9 of an old server (2.9.10): readers see the subject's older image, Direct Get sees none, the last sequence is
     * intact; what is published there is acknowledged and removed at once, until the subject is purged or the server restarts.
     */
    reviveOlder: (subject: string): boolean => this.#reviveOlder(subject),
    /** Somebody deleted the stream and made it again. */
    recreate: (): void => this.#recreate(),
    /** The server restarts: every reading ends, nothing is lost, and the index knows every message again. */
    restart: (): void => this.#restart(),
    /** Somebody purges everything at and below `sequence` of one subject. */
    purge: (subject: string, sequence: number): void => this.purge(subject, sequence),
  };

  get repeatsDeliveries(): boolean {
    return this.#repeats;
  }

  losesDelivery(): boolean {
    if (this.#deliveriesToLose === 0) return false;
    this.#deliveriesToLose -= 1;
    return true;
  }

  /** Creates the stream if it is missing. */
  ensure(): StreamState {
    this.#created ??= this.#creationTime();
    return this.state();
  }

  /** @throws E_FEED_UNAVAILABLE when there is no stream. */
  state(): StreamState {
    if (this.#created === undefined) throw unavailable(`stream ${this.name} does not exist`);
    const first = this.#order.find((kept) => !kept.gone)?.message.sequence ?? this.#last + 1;
    return { created: this.#created, firstSequence: first, lastSequence: this.#last, sizeBytes: this.#sizeBytes,
      sizeBytesMax: this.sizeBytesMax, messages: this.#order.length - this.#goneInOrder };
  }

  /** Stores one message, in the server's own order of checks: the same id first, then the expectation, then the space. */
  publish(publication: Publication): Published {
    this.state();
    const fate = this.#acksToLose.shift();
    if (fate === "stored later") this.#clock.after(LATE_PUBLISH_MS, () => void this.#decideLate(publication));
    if (fate === "not stored" || fate === "stored later") throw unavailable("publishing: no answer in time");
    const outcome = this.#decide(publication);
    if (fate === "stored") throw unavailable("publishing: no answer in time");
    return outcome;
  }

  last(subject: string): FeedMessage | undefined {
    if (!subject.endsWith(">")) return this.#newest.get(subject)?.message;
    return this.#order.findLast((kept) => !kept.gone && covers(subject, kept.message.subject))?.message;
  }

  lastSequence(): number {
    return this.#last;
  }

  *above(after: number, filter: string): Iterable<FeedMessage> {
    for (let place = this.#placeAfter(after); place < this.#order.length; place += 1) {
      const kept = this.#order[place];
      if (kept !== undefined && !kept.gone && covers(filter, kept.message.subject)) yield kept.message;
    }
  }

  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Removes the messages of one subject up to and including `sequence`. @throws E_FEED_UNAVAILABLE when there is no stream */
  purge(subject: string, sequence: number): void {
    this.state();
    for (const kept of this.#order) {
      if (kept.message.subject === subject && kept.message.sequence <= sequence) this.#remove(kept);
    }
    this.#tell((listener) => listener.changed());
  }

  /** Registers who answers questions, until the returned function is called. */
  serve(answerer: Answerer): () => void {
    this.#answerers.add(answerer);
    return () => this.#answerers.delete(answerer);
  }

  /** Hands a question to everybody who serves its subject and is joined; false when nobody is. */
  ask(subject: string, question: Uint8Array, reply: (answer: Uint8Array) => void): boolean {
    const serving = [...this.#answerers].filter((one) => one.joined() && covers(one.subject, subject));
    for (const one of serving) one.take(Uint8Array.from(question), subject, reply);
    return serving.length > 0;
  }

  #decide({ subject, headers, payload, expected, id }: Publication): Published {
    this.#forgetOldIds();
    const same = this.#acknowledged.get(id);
    if (same !== undefined) return { stored: true, sequence: same.sequence };
    if (this.#unnamedConflicts > 0) {
      this.#unnamedConflicts -= 1;
      return { stored: false, last: undefined };
    }
    const held = this.#newest.get(subject);
    const last = held?.message.sequence ?? 0;
    if (last !== expected) return { stored: false, last };
    const full = this.#refusesNewSubjects || this.#sizeBytes + sizeOf(subject, payload) > this.sizeBytesMax;
    if (held === undefined && full) throw new OperatingError("E_FEED_FULL", "maximum bytes exceeded", { subject });
    this.#last += 1;
    this.#acknowledged.set(id, { sequence: this.#last, atMs: this.#clock.nowMs() });
    // An old server acknowledges a message of a subject that its index lost, and removes it at once.
    if (this.#revived.has(subject)) return { stored: true, sequence: this.#last };
    this.#store({ subject, sequence: this.#last, headers: { ...headers }, payload: Uint8Array.from(payload) });
    this.#tell((listener) => listener.changed());
    return { stored: true, sequence: this.#last };
  }

  #decideLate(publication: Publication): void {
    try {
      this.#decide(publication);
    } catch (error) {
      if (!isOperating(error)) throw error;
    }
  }

  #store(message: FeedMessage): void {
    const held = this.#newest.get(message.subject);
    if (held !== undefined) this.#remove(held);
    const kept: Kept = { message, replaced: held?.message, gone: false };
    this.#newest.set(message.subject, kept);
    this.#order.push(kept);
    this.#sizeBytes += sizeOf(message.subject, message.payload);
    this.#sweep();
  }

  #remove(kept: Kept): void {
    if (kept.gone) return;
    kept.gone = true;
    this.#goneInOrder += 1;
    this.#sizeBytes -= sizeOf(kept.message.subject, kept.message.payload);
    for (const index of [this.#newest, this.#revived]) {
      if (index.get(kept.message.subject) === kept) index.delete(kept.message.subject);
    }
  }

  /** Puts a message that was replaced back at its old sequence; the index of newest messages learns of it only if `indexed`. */
  #putBack(message: FeedMessage, indexed: boolean): void {
    const kept: Kept = { message, replaced: undefined, gone: false };
    this.#order.splice(this.#placeAfter(message.sequence), 0, kept);
    this.#sizeBytes += sizeOf(message.subject, message.payload);
    (indexed ? this.#newest : this.#revived).set(message.subject, kept);
  }

  #dropTail(count: number): void {
    const lastBefore = this.#last;
    this.#last = Math.max(0, this.#last - count);
    for (const kept of this.#order.filter((one) => !one.gone && one.message.sequence > this.#last)) {
      this.#remove(kept);
      if (kept.replaced !== undefined && kept.replaced.sequence <= this.#last) this.#putBack(kept.replaced, true);
    }
    this.#order = this.#order.filter((kept) => !kept.gone);
    this.#goneInOrder = 0;
    for (const [id, { sequence }] of this.#acknowledged) if (sequence > this.#last) this.#acknowledged.delete(id);
    if (lastBefore !== this.#last) this.#breakReaders("the connection was lost");
  }

  #reviveOlder(subject: string): boolean {
    const held = this.#newest.get(subject);
    if (held?.replaced === undefined) return false;
    this.#remove(held);
    this.#putBack(held.replaced, false);
    this.#breakReaders("the connection was lost");
    return true;
  }

  #restart(): void {
    for (const [subject, kept] of this.#revived) this.#newest.set(subject, kept);
    this.#revived.clear();
    this.#breakReaders("the connection was lost");
  }

  #recreate(): void {
    this.#empty();
    this.#created = this.#creationTime();
    this.#breakReaders("the server ended the reading: 409 Consumer Deleted");
  }

  #restore(copy: StreamCopy): void {
    this.#empty();
    for (const message of copy.messages) this.#putBack(message, true);
    this.#last = copy.last;
    this.#created = copy.created;
    this.#breakReaders("the connection was lost");
  }

  #empty(): void {
    this.#order = [];
    this.#goneInOrder = 0;
    this.#newest.clear();
    this.#revived.clear();
    this.#acknowledged.clear();
    this.#last = 0;
    this.#sizeBytes = 0;
  }

  #creationTime(): string {
    this.#creations += 1;
    return `creation ${this.#creations} at ${this.#clock.nowMs()}`;
  }

  #forgetOldIds(): void {
    const oldestMs = this.#clock.nowMs() - DUPLICATE_WINDOW_MS;
    for (const [id, { atMs }] of this.#acknowledged) {
      if (atMs >= oldestMs) return;
      this.#acknowledged.delete(id);
    }
  }

  /** Index of the first message in order with a sequence above `after`. */
  #placeAfter(after: number): number {
    let [low, high] = [0, this.#order.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#order[middle]?.message.sequence ?? Infinity) <= after) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #sweep(): void {
    if (this.#goneInOrder < SWEEP_LEAST || this.#goneInOrder < SWEEP_FACTOR * this.#newest.size) return;
    this.#order = this.#order.filter((kept) => !kept.gone);
    this.#goneInOrder = 0;
  }

  #breakReaders(reason: string): void {
    this.#tell((listener) => listener.broken(unavailable(reason)));
  }

  #tell(say: (listener: Listener) => void): void {
    for (const listener of [...this.#listeners]) say(listener);
  }
}

function sizeOf(subject: string, payload: Uint8Array): number {
  return subject.length + payload.byteLength + MESSAGE_OVERHEAD_BYTES;
}
