/**
 * The feed's twin in memory (port: feed/feed.ts): one MemoryStream stands for the server, each memoryFeed() for one
 * connection to it. The simulator and the tests of the rooms above run on it.
 *
 * Invariants: tests/contract/feed.suite.ts holds it to the same guarantees as the real adapter; a call takes at least one
 * turn of the event loop each way, so that others may come in between, as they do on a network.
 * Not here: what the stream does and how it fails (memory-stream.ts), permissions, TLS.
 */
import { assert } from "../core/assert.ts";
import type { Clock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { unavailable } from "./answers.ts";
import type { Feed, FeedMessage, Publication, Published, ReadOptions, StreamState } from "./feed.ts";
import { MemoryReading } from "./memory-reading.ts";
import type { MemoryStream } from "./memory-stream.ts";

const IMAGE_BYTES_MAX = 1024 ** 2 - 16 * 1024;
const IDLE_HEARTBEAT_MS = 5_000;

export interface MemoryFeedOptions {
  readonly idleHeartbeatMs?: number;
  readonly maxImageBytes?: number;
}

export interface MemoryFeed extends Feed {
  /** Cuts this handle off, or with undefined joins it again. Its readings end, its calls fail. */
  cut(reason: string | undefined): void;
  /** Reports sent over this handle while it was joined, oldest first. */
  readonly reports: readonly { readonly subject: string; readonly payload: Uint8Array }[];
}

/** A connection to `stream`. Several handles share it, as several processes share a server. */
export function memoryFeed(stream: MemoryStream, clock: Clock, options: MemoryFeedOptions = {}): MemoryFeed {
  return new MemoryHandle(stream, clock, options);
}

class MemoryHandle implements MemoryFeed {
  readonly stream: string;
  readonly reports: { readonly subject: string; readonly payload: Uint8Array }[] = [];
  readonly #server: MemoryStream;
  readonly #clock: Clock;
  readonly #options: MemoryFeedOptions;
  readonly #readings = new Set<MemoryReading>();
  #reason: string | undefined;

  constructor(server: MemoryStream, clock: Clock, options: MemoryFeedOptions) {
    this.stream = server.name;
    this.#server = server;
    this.#clock = clock;
    this.#options = options;
  }

  async ensureStream(): Promise<StreamState> {
    await this.#reach();
    return this.#server.ensure();
  }

  async state(): Promise<StreamState> {
    await this.#reach();
    return this.#server.state();
  }

  async publish(publication: Publication): Promise<Published> {
    for (const name of Object.keys(publication.headers)) {
      assert(!name.startsWith("Nats-"), "headers of the server's own are not for publishers");
    }
    const sizeBytes = publication.payload.byteLength;
    const sizeBytesMax = this.#options.maxImageBytes ?? IMAGE_BYTES_MAX;
    if (sizeBytes > sizeBytesMax) {
      throw new OperatingError("E_IMAGE_TOO_LARGE", `the message of ${publication.subject} is too large for the feed`,
        { subject: publication.subject, sizeBytes, sizeBytesMax });
    }
    await this.#reach();
    const outcome = this.#server.publish(publication);
    await this.#reach();
    return outcome;
  }

  async last(subject: string): Promise<FeedMessage | undefined> {
    await this.#reach();
    return this.#server.last(subject);
  }

  async *read(options: ReadOptions, signal: AbortSignal): AsyncGenerator<readonly FeedMessage[], void, void> {
    await this.#reach();
    const reading = new MemoryReading(this.#server, options, this.#clock, this.#options.idleHeartbeatMs ?? IDLE_HEARTBEAT_MS);
    const onAbort = (): void => reading.end();
    this.#readings.add(reading);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const batch = await reading.take();
        if (batch === undefined || signal.aborted) return;
        yield batch;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#readings.delete(reading);
      reading.close();
    }
  }

  report(subject: string, payload: Uint8Array): void {
    if (this.#reason === undefined) this.reports.push({ subject, payload });
  }

  disconnected(): string | undefined {
    return this.#reason;
  }

  close(): Promise<void> {
    this.cut("closed here");
    return Promise.resolve();
  }

  cut(reason: string | undefined): void {
    this.#reason = reason;
    if (reason === undefined) return;
    for (const reading of [...this.#readings]) reading.broken(unavailable(reason));
  }

  /** One step of the way to the server or back; other work may come in between. */
  async #reach(): Promise<void> {
    await Promise.resolve();
    if (this.#reason !== undefined) throw unavailable(this.#reason);
  }
}
