/**
 * One reading of a stream in memory: batches of what is there, then what comes. Same shape as feed/reading.ts.
 *
 * Invariants: messages come in rising sequence; a message replaced before it was handed out never comes; an error that
 * breaks the reading is thrown once everything handed out before it was certain. Bound: it holds no messages of its own.
 */
import type { Cancel, Clock } from "../core/clock.ts";
import type { OperatingError } from "../core/errors.ts";
import type { FeedMessage, ReadOptions } from "./feed.ts";
import type { Listener, Readable } from "./memory-stream.ts";
import { fitting } from "./reading.ts";

/** Give it take() until undefined or an error, then close(). */
export class MemoryReading implements Listener {
  readonly #stream: Readable;
  readonly #options: ReadOptions;
  readonly #clock: Clock;
  readonly #idleHeartbeatMs: number;
  readonly #unlisten: () => void;
  readonly #tip: number | undefined;
  #reached: number;
  #failure: OperatingError | undefined;
  #ended = false;
  #repeat: readonly FeedMessage[] | undefined;
  #wake: (() => void) | undefined;

  constructor(stream: Readable, options: ReadOptions, clock: Clock, idleHeartbeatMs: number) {
    this.#stream = stream;
    this.#options = options;
    this.#clock = clock;
    this.#idleHeartbeatMs = idleHeartbeatMs;
    this.#tip = options.untilTip === true ? stream.lastSequence() : undefined;
    this.#reached = stream.startBeyondEnd === "clip" ? Math.min(options.after, stream.lastSequence()) : options.after;
    this.#unlisten = stream.listen(this);
  }

  changed(): void {
    this.#rouse();
  }

  broken(error: OperatingError): void {
    this.#failure ??= error;
    this.#rouse();
  }

  end(): void {
    this.#ended = true;
    this.#rouse();
  }

  close(): void {
    this.#ended = true;
    this.#unlisten();
  }

  /** The next batch, an empty one after a quiet heartbeat, undefined at the end. @throws when the reading was broken. */
  async take(): Promise<readonly FeedMessage[] | undefined> {
    for (;;) {
      await Promise.resolve();
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#ended) return undefined;
      const repeated = this.#repeat;
      this.#repeat = undefined;
      if (repeated !== undefined) return repeated;
      const batch = this.#tip !== undefined && this.#reached >= this.#tip ? [] : this.#next();
      if (batch.length > 0) return batch;
      if (this.#tip !== undefined) return undefined;
      if (await this.#quietFor(this.#idleHeartbeatMs)) return [];
    }
  }

  #next(): readonly FeedMessage[] {
    const { filter, batchMessagesMax, batchBytesMax, headersOnly } = this.#options;
    const found: FeedMessage[] = [];
    for (const message of this.#stream.above(this.#reached, filter)) {
      if (this.#stream.losesDelivery()) {
        if (found.length === 0) this.#reached = message.sequence;
        continue;
      }
      found.push(headersOnly === true ? { ...message, payload: new Uint8Array(0) } : message);
      if (found.length === batchMessagesMax) break;
    }
    const batch = found.slice(0, fitting(found, batchMessagesMax, batchBytesMax));
    this.#reached = batch.at(-1)?.sequence ?? this.#reached;
    if (this.#stream.repeatsDeliveries && batch.length > 0) this.#repeat = batch;
    return batch;
  }

  /** Waits for a change; true when none came for `idleMs`. */
  async #quietFor(idleMs: number): Promise<boolean> {
    let quiet = false;
    let cancel: Cancel = () => undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      cancel = this.#clock.after(idleMs, () => { quiet = true; resolve(); });
    });
    cancel();
    this.#wake = undefined;
    return quiet;
  }

  #rouse(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
