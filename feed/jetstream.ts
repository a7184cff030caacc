/**
 * The feed on NATS JetStream (port: feed/feed.ts). One connection, one stream per service, disposable consumers.
 *
 * Invariants: opening never blocks and never fails, whether or not a server is there; nothing about a subject is cached
 * here; a publish either names what became of it or fails with an error that says it may have happened; a site only uses
 * what feed/permissions.ts lists. A reading at a site uses one of two fixed consumer names, so readings of the same name on
 * one feed wait for each other; two processes of one site take the consumer from each other, and the loser notices: it then
 * leaves the consumer alone, which is no longer its own.
 * Not here: connection life (link.ts), the pull loop (reading.ts), what answers mean (answers.ts), the stream itself (keeper.ts),
 * questions (jetstream-asking.ts).
 */
import { AckPolicy, DeliverPolicy, jetstream, JetStreamApiCodes, JetStreamApiError, ReplayPolicy,
  type JetStreamClient } from "@nats-io/jetstream";
import { headers as newHeaders, type Msg, type MsgHdrs, type NatsConnection } from "@nats-io/transport-node";
import { assert } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { World } from "../core/world.ts";
import type { Answer } from "./answering.ts";
import { causeOf, conflictOf, meaningOf, ownHeaders, saysNotFound, unavailable } from "./answers.ts";
import type { Feed, FeedMessage, Publication, Published, ReadOptions, StreamState } from "./feed.ts";
import { Asking } from "./jetstream-asking.ts";
import { StreamKeeper } from "./keeper.ts";
import { Link, type TlsFiles } from "./link.ts";
import { inboxPrefixOf, siteConsumers } from "./permissions.ts";
import { Reading, type ReadingPlan } from "./reading.ts";
import { versionWarning } from "./settings.ts";
import { Turns } from "./turns.ts";
import { streamOf } from "./subjects.ts";

const GIBIBYTE = 1024 ** 3;
/** Publishes that may wait for their acknowledgement at once. */
const CALLS_IN_FLIGHT_MAX = 4_096;
/** Payload that every server takes by default is 1 MiB, headers included; this is kept for the headers. */
const HEADERS_BYTES_MAX = 16 * 1024;
const PAYLOAD_BYTES_DEFAULT = 1024 ** 2;
/** The server forgets a consumer that nobody pulled from for this long. */
const CONSUMER_INACTIVE_MS = 600_000;
/** Deleting a consumer is a courtesy; this is how long it may take. */
const CONSUMER_DELETE_TIMEOUT_MS = 1_000;
/** While reading up to the tip, silence of this length asks whether the tip was reached by purging what was above. */
const TIP_HEARTBEAT_MS = 1_000;
/** Heartbeats in a row in which the server names a tip and delivers nothing. */
const TIP_UNREACHED_MAX = 3;
const NANOSECONDS_PER_MS = 1_000_000;
const NAME = /^[0-9A-Za-z_-]{1,64}$/;

export interface JetstreamOptions {
  /** "host:port" or "tls://host:port". */
  readonly servers: readonly string[];
  readonly user: string;
  readonly password: Secret;
  readonly tls: TlsFiles | undefined;
  readonly service: string;
  readonly scope: string;
  readonly role: "centre" | "site";
  /** Name of this site; at the centre a word for this process. Names the inboxes, and at a site the consumers. */
  readonly site: string;
  readonly publishTimeoutMs?: number | undefined;
  readonly connectTimeoutMs?: number | undefined;
  /** Wait before a new connection: first and longest, each time between half and all of it. */
  readonly reconnectFirstMs?: number | undefined;
  readonly reconnectLastMs?: number | undefined;
  readonly replicas?: number | undefined;
  readonly streamBytesMax?: number | undefined;
  /** Largest payload of one message; the server's own limit counts too. */
  readonly maxImageBytes?: number | undefined;
  /** How often the server shows that an idle reading is alive. */
  readonly idleHeartbeatMs?: number | undefined;
  /** How long one pull request stays open; at least twice the heartbeat. */
  readonly requestExpiresMs?: number | undefined;
}

/** The options with every default filled in; `tls` alone may stay undefined, which means none. */
type Settled = { readonly [Name in keyof Omit<JetstreamOptions, "tls">]-?: Exclude<JetstreamOptions[Name], undefined> } &
  Pick<JetstreamOptions, "tls">;

function settled(options: JetstreamOptions): Settled {
  return {
    ...options,
    publishTimeoutMs: options.publishTimeoutMs ?? 5_000,
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
    reconnectFirstMs: options.reconnectFirstMs ?? 250,
    reconnectLastMs: options.reconnectLastMs ?? 15_000,
    replicas: options.replicas ?? 1,
    streamBytesMax: options.streamBytesMax ?? 8 * GIBIBYTE,
    maxImageBytes: options.maxImageBytes ?? PAYLOAD_BYTES_DEFAULT - HEADERS_BYTES_MAX,
    idleHeartbeatMs: options.idleHeartbeatMs ?? 5_000,
    requestExpiresMs: options.requestExpiresMs ?? 30_000,
  };
}

export interface JetstreamFeed extends Feed {
  /** Version of the server of the current or last connection; undefined before the first one. */
  serverVersion(): string | undefined;
}

/** The feed of one service. Connects in the background; look at disconnected() and at E_FEED_UNAVAILABLE. */
export function openJetstream(options: JetstreamOptions, world: World): JetstreamFeed {
  assert(NAME.test(options.site) && NAME.test(options.service) && NAME.test(options.scope), "feed names are single plain tokens");
  const complete = settled(options);
  assert(complete.requestExpiresMs >= 2 * complete.idleHeartbeatMs, "a pull request lasts at least two heartbeats");
  return new NatsFeed(complete, world);
}

class NatsFeed implements JetstreamFeed {
  readonly stream: string;
  readonly #options: Settled;
  readonly #world: World;
  readonly #link: Link;
  readonly #keeper: StreamKeeper;
  readonly #asking: Asking;
  readonly #turns = new Turns();
  #tools: { readonly connection: NatsConnection; readonly client: JetStreamClient } | undefined;
  #version: string | undefined;

  constructor(options: Settled, world: World) {
    this.#options = options;
    this.#world = { ...world, log: world.log.with({ service: options.service }) };
    this.stream = streamOf(options.service);
    this.#link = new Link({
      servers: options.servers, user: options.user, password: options.password, tls: options.tls,
      name: `holdfast ${options.role} ${options.site}`, inboxPrefix: inboxPrefixOf(options.site),
      connectTimeoutMs: options.connectTimeoutMs,
      reconnect: { firstMs: options.reconnectFirstMs, lastMs: options.reconnectLastMs },
    }, this.#world, (connection) => this.#greet(connection));
    world.metrics.gauge("holdfast_feed_in_flight_calls", () => this.#link.callsInFlight, { service: options.service });
    this.#keeper = new StreamKeeper({ service: options.service, replicas: options.replicas, sizeBytesMax: options.streamBytesMax,
      timeoutMs: options.publishTimeoutMs }, this.#link, this.#world.log);
    this.#asking = new Asking(this.#link, this.#world);
  }

  serverVersion(): string | undefined {
    return this.#version;
  }

  disconnected(): string | undefined {
    return this.#link.disconnected();
  }

  close(): Promise<void> {
    this.#asking.close();
    return this.#link.close();
  }

  report(subject: string, payload: Uint8Array): void {
    if (this.#link.disconnected() !== undefined) return;
    try {
      this.#link.connected().publish(subject, payload);
    } catch (error) {
      this.#world.log.debug("a report was not sent", { subject, reason: meaningOf(error, "report").message });
    }
  }

  ask(subject: string, question: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    return this.#asking.ask(subject, question, timeoutMs);
  }

  serve(subject: string, answer: Answer): () => void {
    return this.#asking.serve(subject, answer);
  }

  async purge(subject: string, sequence: number): Promise<void> {
    assert(this.#options.role === "centre", "only the centre removes messages");
    assert(!/[*>]/.test(subject), "one subject is purged at a time");
    // The server keeps what is at `seq` and above.
    await this.#api("purging", `$JS.API.STREAM.PURGE.${this.stream}`, JSON.stringify({ filter: subject, seq: sequence + 1 }),
      this.#options.publishTimeoutMs);
  }

  ensureStream(): Promise<StreamState> {
    assert(this.#options.role === "centre", "only the centre makes streams");
    return this.#keeper.ensure();
  }

  state(): Promise<StreamState> {
    assert(this.#options.role === "centre", "sites are not allowed to ask for the stream's state");
    return this.#keeper.state();
  }

  async publish(publication: Publication): Promise<Published> {
    const { subject, payload } = publication;
    const headers = newHeaders();
    let headersBytes = HEADERS_FRAME_BYTES + publication.id.length;
    for (const [name, value] of Object.entries(publication.headers)) {
      assert(!name.startsWith("Nats-"), "headers of the server's own are not for publishers");
      headers.set(name, value);
      headersBytes += name.length + Buffer.byteLength(value) + HEADER_LINE_BYTES;
    }
    this.#refuseTooLarge(subject, payload.byteLength, headersBytes);
    if (this.#link.callsInFlight >= CALLS_IN_FLIGHT_MAX) throw unavailable("too many publishes are in flight", { subject });
    try {
      const asked = { headers, msgID: publication.id, expect: { lastSubjectSequence: publication.expected },
        timeout: this.#options.publishTimeoutMs };
      const acknowledged = await this.#link.call("publishing", (connection) =>
        this.#clientOn(connection).publish(subject, payload, asked));
      return { stored: true, sequence: acknowledged.seq };
    } catch (error) {
      const conflict = conflictOf(causeOf(error));
      if (conflict === "other") throw error;
      return { stored: false, last: conflict.last };
    }
  }

  last(subject: string): Promise<FeedMessage | undefined> {
    return this.#lastOf(subject);
  }

  async *read(options: ReadOptions, signal: AbortSignal): AsyncGenerator<readonly FeedMessage[], void, void> {
    const name = this.#consumerName(options);
    const leave = await this.#turns.take(name, signal);
    try {
      if (!signal.aborted) yield* this.#readAs(name, options, signal);
    } finally {
      leave();
    }
  }

  async *#readAs(name: string, options: ReadOptions, signal: AbortSignal): AsyncGenerator<readonly FeedMessage[], void, void> {
    const tip = options.untilTip === true ? (await this.#lastOf(options.filter))?.sequence ?? 0 : undefined;
    if (tip !== undefined && tip <= options.after) return;
    if (this.#options.role === "site") await this.#forget(name);
    await this.#createConsumer(name, options);
    const connection = this.#link.connected();
    const plan = this.#planOf(name, options, tip, connection);
    const reading = new Reading(plan, connection, this.#world.clock);
    const onAbort = (): void => reading.end();
    const unwatch = this.#link.watch({
      lost: (error) => reading.fail(error),
      refused: (subject, error) => {
        if (subject === plan.pullSubject || subject.startsWith(plan.inbox)) reading.fail(error);
      },
    });
    signal.addEventListener("abort", onAbort, { once: true });
    let orderly = false;
    try {
      yield* this.#batchesOf(reading, options.filter, tip, signal);
      orderly = true;
    } finally {
      signal.removeEventListener("abort", onAbort);
      unwatch();
      reading.close();
      if (orderly || signal.aborted || this.#options.role === "centre") await this.#forget(name).catch(() => undefined);
    }
  }

  /** Hands out batches; looks behind the server's back whenever it says that nothing more is there. */
  async *#batchesOf(reading: Reading, filter: string, tip: number | undefined, signal: AbortSignal):
    AsyncGenerator<readonly FeedMessage[], void, void> {
    let unreached = 0;
    let believed = 0;
    while (!signal.aborted) {
      const batch = await reading.take();
      if (batch === undefined || signal.aborted) return;
      unreached = batch.length === 0 ? unreached + 1 : 0;
      if (batch.length === 0 && tip !== undefined && await this.#tipIsBelow(filter, reading.reached, unreached)) return;
      if (batch.length === 0 && reading.passed > Math.max(reading.reached, believed)) {
        believed = await this.#nothingPassedOver(filter, reading);
      }
      yield batch;
    }
  }

  /**
   * The server says it has passed messages that never came: they may all be outside the filter. Gives the sequence up to which
   * that was found true. @throws E_FEED_UNAVAILABLE when one of them should have come.
   */
  async #nothingPassedOver(filter: string, reading: Reading): Promise<number> {
    const { reached, passed } = reading;
    const newest = (await this.#lastOf(filter))?.sequence ?? 0;
    if (newest > reached && newest <= passed) {
      throw unavailable("the server passed over messages without delivering them", { newest, reached, passed });
    }
    return passed;
  }

  /** True when nothing above `reached` is left. @throws E_FEED_UNAVAILABLE when the server names more and does not deliver it. */
  async #tipIsBelow(filter: string, reached: number, unreached: number): Promise<boolean> {
    const tip = (await this.#lastOf(filter))?.sequence ?? 0;
    if (tip <= reached) return true;
    if (unreached >= TIP_UNREACHED_MAX) throw unavailable("the server holds more than it delivers", { tip, reached });
    return false;
  }

  #planOf(name: string, options: ReadOptions, tip: number | undefined, connection: NatsConnection): ReadingPlan {
    const largest = (connection.info?.max_payload ?? PAYLOAD_BYTES_DEFAULT) + HEADERS_BYTES_MAX;
    const { idleHeartbeatMs, requestExpiresMs } = this.#options;
    return {
      pullSubject: `$JS.API.CONSUMER.MSG.NEXT.${this.stream}.${name}`,
      inbox: `${inboxPrefixOf(this.#options.site)}.${this.#world.random.id()}`,
      after: options.after, tip, batchMessagesMax: options.batchMessagesMax, batchBytesMax: options.batchBytesMax,
      requestBytesMax: Math.max(options.batchBytesMax, largest), requestExpiresMs,
      idleHeartbeatMs: tip === undefined ? idleHeartbeatMs : Math.min(idleHeartbeatMs, TIP_HEARTBEAT_MS),
    };
  }

  #consumerName(options: ReadOptions): string {
    if (this.#options.role === "centre") return `${this.#options.site}_${this.#world.random.id()}`;
    const names = siteConsumers(this.#options.site);
    return options.untilTip === true ? names.fill : names.tail;
  }

  /** A named consumer without acknowledgements, kept in the memory of one server, which starts right after the position. */
  async #createConsumer(name: string, options: ReadOptions): Promise<void> {
    const request = { stream_name: this.stream, config: {
      name, filter_subject: options.filter, deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: options.after + 1,
      ack_policy: AckPolicy.None, replay_policy: ReplayPolicy.Instant, mem_storage: true, num_replicas: 1,
      inactive_threshold: CONSUMER_INACTIVE_MS * NANOSECONDS_PER_MS, headers_only: options.headersOnly === true,
    } };
    const subject = `$JS.API.CONSUMER.CREATE.${this.stream}.${name}.${options.filter}`;
    await this.#api("creating a consumer", subject, JSON.stringify(request), this.#options.publishTimeoutMs);
  }

  /** Deletes a consumer if it is there. */
  async #forget(name: string): Promise<void> {
    const subject = `$JS.API.CONSUMER.DELETE.${this.stream}.${name}`;
    try {
      await this.#api("deleting a consumer", subject, "", CONSUMER_DELETE_TIMEOUT_MS);
    } catch (error) {
      const cause = causeOf(error);
      if (!(cause instanceof JetStreamApiError) || cause.code !== JetStreamApiCodes.ConsumerNotFound) throw error;
    }
  }

  #api(step: string, subject: string, body: string, timeoutMs: number): Promise<void> {
    return this.#link.call(step, async (connection) => {
      const answer = (await connection.request(subject, body, { timeout: timeoutMs })).json<{ error?: ApiRefusal }>();
      if (answer.error !== undefined) throw new JetStreamApiError(answer.error);
    });
  }

  /** The last message of a subject, or of everything a filter covers, straight from the server's store. */
  async #lastOf(subject: string): Promise<FeedMessage | undefined> {
    const answer = await this.#link.call("asking for the last message", (connection) =>
      connection.request(`$JS.API.DIRECT.GET.${this.stream}.${subject}`, "", { timeout: this.#options.publishTimeoutMs }));
    return messageOf(answer);
  }

  #clientOn(connection: NatsConnection): JetStreamClient {
    if (this.#tools?.connection !== connection) this.#tools = { connection, client: jetstream(connection) };
    return this.#tools.client;
  }

  #refuseTooLarge(subject: string, payloadBytes: number, headersBytes: number): void {
    const { maxImageBytes } = this.#options;
    const serverBytesMax = this.#link.connected().info?.max_payload ?? PAYLOAD_BYTES_DEFAULT;
    if (payloadBytes <= maxImageBytes && payloadBytes + headersBytes <= serverBytesMax) return;
    throw new OperatingError("E_IMAGE_TOO_LARGE", `the message of ${subject} is too large for the feed`,
      { subject, sizeBytes: payloadBytes, sizeBytesMax: Math.min(maxImageBytes, serverBytesMax - headersBytes) });
  }

  #greet(connection: NatsConnection): void {
    this.#version = connection.info?.version;
    this.#asking.joined(connection);
    const warning = versionWarning(this.#version ?? "", connection.info?.cluster !== undefined);
    if (warning === undefined) return;
    this.#world.log.warn(`this stream server is not for production: ${warning}`, { version: this.#version });
  }
}

/** The header block's first and last line, and the two headers that go with every publish, at their longest. */
const HEADERS_FRAME_BYTES = 96;
/** ": " and the line's end. */
const HEADER_LINE_BYTES = 4;

interface ApiRefusal {
  readonly code: number;
  readonly err_code: number;
  readonly description: string;
}

function required(headers: MsgHdrs | undefined, name: string): string {
  const value = headers?.get(name) ?? "";
  if (value === "") throw unavailable(`the server's answer has no ${name}`);
  return value;
}

/** The message in a Direct Get's answer; undefined when the server has none. */
function messageOf(answer: Msg): FeedMessage | undefined {
  const { headers } = answer;
  if (saysNotFound(headers)) return undefined;
  if (headers !== undefined && headers.code >= 300) throw unavailable(`the server answered ${headers.status}`);
  return { subject: required(headers, "Nats-Subject"), sequence: Number(required(headers, "Nats-Sequence")),
    headers: ownHeaders(headers), payload: answer.data };
}

