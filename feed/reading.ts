/**
 * One reading of a stream: a disposable consumer on the server and the pull requests that keep it flowing.
 *
 * Two requests are open at a time, each in a slot with its own inbox, of different sizes at first so that they never end
 * together: while one batch is being worked on, the next is on its way. A batch is whatever has arrived when it is asked for.
 *
 * Invariants: messages are handed out in rising sequence, and the consumer's own numbering of deliveries has no hole up to
 * the last one handed out; any doubt (hole, silence, lost connection, consumer gone) ends the reading with an error, after
 * what was certain has been handed out. Memory: less than one batch waiting plus two on their way.
 * Not here: the consumer's creation and deletion (feed/jetstream.ts), what a position means (syncd/).
 * Outside facts (nats-server 2.9.10): a pull for a consumer that does not exist is not answered at all, so silence is the
 * only sign; heartbeats name the last delivery; a request ends with 409 when the next message does not fit its bytes; purging
 * one subject moves every consumer with a wider filter to the stream's end, without a hole in its numbering: the sequence that
 * heartbeats name as passed is the only trace, and the caller checks it (jetstream.ts).
 */
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { present } from "../core/assert.ts";
import type { Cancel, Clock } from "../core/clock.ts";
import type { OperatingError } from "../core/errors.ts";
import { frameOf, meaningOf, ownHeaders, placeOf, unavailable } from "./answers.ts";
import type { FeedMessage } from "./feed.ts";

/** Heartbeat periods without any frame after which the consumer counts as gone. */
const SILENT_HEARTBEATS_MAX = 3;
/** What a message costs beside its payload: subject, headers, places. A guess; bytes are bounded roughly. */
const MESSAGE_OVERHEAD_BYTES = 200;
const NANOSECONDS_PER_MS = 1_000_000;
const NOTHING = new Uint8Array(0);

export interface ReadingPlan {
  /** Subject that takes this consumer's pull requests. */
  readonly pullSubject: string;
  /** Prefix of the inboxes of this reading alone. */
  readonly inbox: string;
  readonly after: number;
  /** Stop once a message of at least this sequence was delivered; undefined: never. */
  readonly tip: number | undefined;
  readonly batchMessagesMax: number;
  readonly batchBytesMax: number;
  /** Bytes of one request; at least what the largest message needs, or the server could never send that one. */
  readonly requestBytesMax: number;
  readonly idleHeartbeatMs: number;
  readonly requestExpiresMs: number;
}

interface Slot {
  readonly inbox: string;
  readonly subscription: Subscription;
  /** Messages of the next request. */
  size: number;
  /** Messages the open request may still bring; 0: no request is open. */
  open: number;
}

/** Pulls from one consumer that its maker has just created. */
export class Reading {
  readonly #plan: ReadingPlan;
  readonly #connection: NatsConnection;
  readonly #clock: Clock;
  readonly #slots: readonly Slot[];
  #waiting: FeedMessage[] = [];
  #waitingBytes = 0;
  #deliveries = 0;
  #reached: number;
  #passed = 0;
  #failure: OperatingError | undefined;
  #ended = false;
  #quiet = false;
  #lastHandedOutMs: number;
  #framesSinceTick = 0;
  #silentTicks = 0;
  #cancelTick: Cancel;
  #wake: (() => void) | undefined;

  /** Begins to pull at once. Call close() in every case. */
  constructor(plan: ReadingPlan, connection: NatsConnection, clock: Clock) {
    this.#plan = plan;
    this.#connection = connection;
    this.#clock = clock;
    this.#reached = plan.after;
    this.#lastHandedOutMs = clock.monotonicMs();
    this.#cancelTick = clock.after(plan.idleHeartbeatMs, () => this.#tick());
    const sizes = [plan.batchMessagesMax, Math.ceil(plan.batchMessagesMax / 2)];
    this.#slots = sizes.map((size, number) => this.#openSlot(size, number));
    this.#refill();
  }

  /** Sequence of the last message that arrived, or the start. */
  get reached(): number {
    return this.#reached;
  }

  /** Sequence up to which the server says it has looked, delivering what the filter covers. */
  get passed(): number {
    return this.#passed;
  }

  /**
   * The next batch; an empty one when nothing came for a heartbeat on a healthy connection; undefined when the reading has
   * ended as it should. @throws OperatingError when going on is in doubt.
   */
  async take(): Promise<readonly FeedMessage[] | undefined> {
    for (;;) {
      if (this.#waiting.length > 0) return this.#cut();
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended || this.#tipReached()) return undefined;
      if (this.#quiet) {
        this.#quiet = false;
        this.#lastHandedOutMs = this.#clock.monotonicMs();
        return [];
      }
      await new Promise<void>((resolve) => { this.#wake = resolve; });
    }
  }

  /** Ends the reading as it should end: take() gives what has arrived and then undefined. */
  end(): void {
    this.#ended = true;
    this.#rouse();
  }

  /** Ends the reading with an error, after what has arrived already. The first failure counts. */
  fail(failure: OperatingError): void {
    this.#failure ??= failure;
    this.#rouse();
  }

  /** Leaves the inboxes; the consumer itself is deleted by whoever made it. */
  close(): void {
    this.#ended = true;
    this.#cancelTick();
    for (const slot of this.#slots) {
      if (!this.#connection.isClosed()) slot.subscription.unsubscribe();
    }
  }

  #openSlot(size: number, number: number): Slot {
    const inbox = `${this.#plan.inbox}.${number}`;
    const slot: Slot = { inbox, size, open: 0, subscription: this.#connection.subscribe(inbox, {
      callback: (error, message) => error === null ? this.#hear(slot, message) : this.fail(meaningOf(error, "reading")),
    }) };
    return slot;
  }

  #tipReached(): boolean {
    return this.#plan.tip !== undefined && this.#reached >= this.#plan.tip;
  }

  /** Opens a request in every free slot, unless a whole batch is waiting already: that is the bound on memory. */
  #refill(): void {
    const { batchMessagesMax, batchBytesMax, requestBytesMax, requestExpiresMs, idleHeartbeatMs, pullSubject } = this.#plan;
    for (const slot of this.#slots) {
      if (slot.open > 0 || this.#ended || this.#failure !== undefined || this.#tipReached()) continue;
      if (this.#waiting.length >= batchMessagesMax || this.#waitingBytes >= batchBytesMax) continue;
      const request = { batch: slot.size, max_bytes: requestBytesMax, expires: requestExpiresMs * NANOSECONDS_PER_MS,
        idle_heartbeat: idleHeartbeatMs * NANOSECONDS_PER_MS };
      slot.open = slot.size;
      slot.size = batchMessagesMax;
      try {
        this.#connection.publish(pullSubject, JSON.stringify(request), { reply: slot.inbox });
      } catch (error) {
        this.fail(meaningOf(error, "asking for messages"));
      }
    }
  }

  #hear(slot: Slot, frame: Msg): void {
    if (this.#failure !== undefined || this.#ended) return;
    this.#framesSinceTick += 1;
    if (frame.subject === slot.inbox) this.#hearStatus(slot, frame);
    else this.#hearMessage(slot, frame);
  }

  #hearMessage(slot: Slot, frame: Msg): void {
    const place = placeOf(frame.reply ?? "");
    if (place === undefined) return this.fail(unavailable("a message came without its place", { subject: frame.subject }));
    if (place.delivery !== this.#deliveries + 1 || place.sequence <= this.#reached) {
      return this.fail(unavailable("messages are missing or out of order", { delivery: place.delivery,
        deliveryExpected: this.#deliveries + 1, sequence: place.sequence, sequenceBefore: this.#reached }));
    }
    this.#deliveries = place.delivery;
    this.#reached = place.sequence;
    slot.open -= 1;
    const payload = frame.data.byteLength === 0 ? NOTHING : frame.data;
    this.#waiting.push({ subject: frame.subject, sequence: place.sequence, headers: ownHeaders(frame.headers), payload });
    this.#waitingBytes += payload.byteLength + MESSAGE_OVERHEAD_BYTES;
    if (slot.open === 0) this.#refill();
    this.#rouse();
  }

  #hearStatus(slot: Slot, frame: Msg): void {
    const code = frame.headers?.code ?? 0;
    const description = frame.headers?.description ?? "";
    switch (frameOf(code, description)) {
      case "alive":
        return this.#hearHeartbeat(frame);
      case "over":
        slot.open = 0;
        return this.#refill();
      case "broken":
        return this.fail(unavailable(`the server ended the reading: ${code} ${description}`, { code }));
    }
  }

  /** A heartbeat names the last delivery the server made: more than arrived means that some were lost on the way. */
  #hearHeartbeat(frame: Msg): void {
    const named = frame.headers?.get("Nats-Last-Consumer") ?? "";
    if (named !== "" && Number(named) !== this.#deliveries) {
      return this.fail(unavailable("the server delivered messages that did not arrive",
        { delivered: Number(named), arrived: this.#deliveries }));
    }
    this.#passed = Number(frame.headers?.get("Nats-Last-Stream") ?? "") || this.#passed;
    if (this.#waiting.length > 0) return;
    if (this.#clock.monotonicMs() - this.#lastHandedOutMs < this.#plan.idleHeartbeatMs / 2) return;
    this.#quiet = true;
    this.#rouse();
  }

  /** Counts periods, not time: a process that was held up for a while does not mistake its own pause for the server's. */
  #tick(): void {
    const asked = this.#slots.some((slot) => slot.open > 0);
    this.#silentTicks = asked && this.#framesSinceTick === 0 ? this.#silentTicks + 1 : 0;
    this.#framesSinceTick = 0;
    if (this.#silentTicks >= SILENT_HEARTBEATS_MAX) {
      return this.fail(unavailable("the consumer is silent", { silentMs: this.#silentTicks * this.#plan.idleHeartbeatMs }));
    }
    this.#cancelTick = this.#clock.after(this.#plan.idleHeartbeatMs, () => this.#tick());
  }

  #cut(): readonly FeedMessage[] {
    const { batchMessagesMax, batchBytesMax } = this.#plan;
    let batch = this.#waiting;
    if (batch.length <= batchMessagesMax && this.#waitingBytes <= batchBytesMax) {
      this.#waiting = [];
      this.#waitingBytes = 0;
    } else {
      batch = this.#waiting.splice(0, fitting(this.#waiting, batchMessagesMax, batchBytesMax));
      for (const message of batch) this.#waitingBytes -= message.payload.byteLength + MESSAGE_OVERHEAD_BYTES;
    }
    this.#lastHandedOutMs = this.#clock.monotonicMs();
    this.#quiet = false;
    this.#refill();
    return batch;
  }

  #rouse(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** How many of the first messages go into one batch: at least one. */
export function fitting(messages: readonly FeedMessage[], messagesMax: number, sizeBytesMax: number): number {
  let sizeBytes = 0;
  let count = 0;
  while (count < messages.length && count < messagesMax) {
    sizeBytes += present(messages[count], "index below length").payload.byteLength + MESSAGE_OVERHEAD_BYTES;
    if (count > 0 && sizeBytes > sizeBytesMax) break;
    count += 1;
  }
  return count;
}
