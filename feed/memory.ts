/**
 * The feed's twin in memory (port: feed/feed.ts): one MemoryStream stands for the server, each memoryFeed() for one
 * connection to it. The simulator and the tests of the rooms above run on it.
 *
 * Invariants: tests/contract/feed.suite.ts holds it to the same guarantees as the real adapter; a call takes at least one
 * turn of the event loop each way, so that others may come in between, as they do on a network.
 * Not here: what the stream does and how it fails (memory-stream.ts), permissions, TLS.
 */
import { assert } from "../core/assert.ts";
import { sleep, type Clock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { silentLog } from "../core/log.ts";
import { noMetrics } from "../core/metrics.ts";
import { AnswerDesk, type Answer } from "./answering.ts";
import { unavailable } from "./answers.ts";
import type { Feed, FeedMessage, Publication, Published, ReadOptions, StreamState } from "./feed.ts";
import { MemoryReading } from "./memory-reading.ts";
import type { MemoryStream } from "./memory-stream.ts";

const IMAGE_BYTES_MAX = 1024 ** 2 - 16 * 1024;
const PAYLOAD_BYTES_MAX = 1024 ** 2;
const IDLE_HEARTBEAT_MS = 5_000;
/** How long a call waits for an answer that does not come. */
const ANSWER_WITHIN_MS = 5_000;

export interface MemoryFeedOptions {
  readonly idleHeartbeatMs?: number;
  readonly maxImageBytes?: number;
}

/** Which way a cut connection loses what is sent: "there": requests do not arrive; "back": they do, and answers do not. */
export type CutWay = "there" | "back" | "both";

export interface MemoryFeed extends Feed {
  /**
   * Cuts this handle off, or with undefined joins it again. Its readings end, its calls fail: at once when both ways are cut,
   * else after ANSWER_WITHIN_MS, and the handle believes that it is connected.
   */
  cut(reason: string | undefined, way?: CutWay): void;
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
  readonly #asks = new Set<(error: OperatingError) => void>();
  readonly #ends = new Set<() => void>();
  #reason: string | undefined;
  #way: CutWay = "both";

  constructor(server: MemoryStream, clock: Clock, options: MemoryFeedOptions) {
    this.stream = server.name;
    this.#server = server;
    this.#clock = clock;
    this.#options = options;
  }

  async ensureStream(): Promise<StreamState> {
    await this.#reach("there");
    const state = this.#server.ensure();
    await this.#reach("back");
    return state;
  }

  async state(): Promise<StreamState> {
    await this.#reach("there");
    const state = this.#server.state();
    await this.#reach("back");
    return state;
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
    await this.#reach("there");
    const outcome = this.#server.publish(publication);
    await this.#reach("back");
    return outcome;
  }

  async last(subject: string): Promise<FeedMessage | undefined> {
    await this.#reach("there");
    const last = this.#server.last(subject);
    await this.#reach("back");
    return last;
  }

  async *read(options: ReadOptions, signal: AbortSignal): AsyncGenerator<readonly FeedMessage[], void, void> {
    await this.#reach("there");
    await this.#reach("back");
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

  async purge(subject: string, sequence: number): Promise<void> {
    assert(!/[*>]/.test(subject), "one subject is purged at a time");
    await this.#reach("there");
    this.#server.purge(subject, sequence);
    await this.#reach("back");
  }

  async ask(subject: string, question: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    await this.#reach("there");
    if (question.byteLength > PAYLOAD_BYTES_MAX) {
      throw new OperatingError("E_OPERATION_INPUT", `the question for ${subject} is too large`, { subject });
    }
    const answer = await new Promise<Uint8Array>((resolve, reject) => {
      const end = (settle: () => void): void => {
        cancel();
        this.#asks.delete(fail);
        settle();
      };
      const fail = (error: OperatingError): void => end(() => reject(error));
      const late = new OperatingError("E_ASK_UNANSWERED", `no answer from ${subject} in time`, { subject, timeoutMs });
      const cancel = this.#clock.after(timeoutMs, () => fail(late));
      this.#asks.add(fail);
      if (this.#server.ask(subject, question, (given) => end(() => resolve(Uint8Array.from(given))))) return;
      fail(new OperatingError("E_ASK_UNANSWERED", `nobody serves ${subject} now`, { subject }));
    });
    await this.#reach("back");
    return answer;
  }

  serve(subject: string, answer: Answer): () => void {
    const desk = new AnswerDesk(answer, { log: silentLog, metrics: noMetrics });
    const leave = this.#server.serve({ subject, joined: () => this.#reason === undefined,
      take: (question, askedOn, reply) => desk.take(question, askedOn, (given) => {
        if (this.#reason === undefined && given.byteLength <= PAYLOAD_BYTES_MAX) reply(given);
      }) });
    const end = (): void => {
      desk.close();
      leave();
      this.#ends.delete(end);
    };
    this.#ends.add(end);
    return end;
  }

  report(subject: string, payload: Uint8Array): void {
    if (this.#reason === undefined) this.reports.push({ subject, payload });
  }

  disconnected(): string | undefined {
    return this.#way === "both" ? this.#reason : undefined;
  }

  close(): Promise<void> {
    for (const end of [...this.#ends]) end();
    this.cut("closed here");
    return Promise.resolve();
  }

  cut(reason: string | undefined, way: CutWay = "both"): void {
    this.#reason = reason;
    this.#way = way;
    if (reason === undefined) return;
    for (const reading of [...this.#readings]) reading.broken(unavailable(reason));
    for (const fail of [...this.#asks]) fail(unavailable(`${reason}; what was asked may or may not have been done`));
  }

  /** One way to the server or back; other work may come in between. */
  async #reach(way: "there" | "back"): Promise<void> {
    await Promise.resolve();
    if (this.#reason === undefined || (this.#way !== "both" && this.#way !== way)) return;
    const reason = this.#reason;
    if (this.#way !== "both") await sleep(this.#clock, ANSWER_WITHIN_MS);
    throw unavailable(reason);
  }
}
