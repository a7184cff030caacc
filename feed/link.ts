/**
 * The connection to the stream server: made in the background for ever, watched, and never waited for.
 *
 * Invariants: opening never blocks and never fails; while there is no connection every call fails at once with
 * E_FEED_UNAVAILABLE and the reason; when the connection is lost, every call in flight fails at once (its outcome is
 * unknown) and every watcher hears of it. Nothing is queued for a server that is away. No promise is left unhandled.
 * Not here: streams, messages, reading (feed/jetstream.ts, feed/reading.ts).
 */
import { connect, type ConnectionOptions, type NatsConnection, type Status } from "@nats-io/transport-node";
import type { OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import { backoffMs, waitBeforeRetry, type Backoff } from "../core/retry.ts";
import type { Secret } from "../core/secret.ts";
import type { World } from "../core/world.ts";
import { meaningOf, refusedSubject, unavailable } from "./answers.ts";

/** Silence after which the client asks whether the server is alive. */
const PING_INTERVAL_MS = 20_000;
/** Unanswered questions after which the connection counts as lost. */
const PINGS_UNANSWERED_MAX = 2;
/** Time that closing waits for what was already sent to leave. */
const FLUSH_TIMEOUT_MS = 1_000;
/** Refused subjects that are remembered, so that each is logged once. */
const REFUSALS_LOGGED_MAX = 100;

export interface TlsFiles {
  /** Certificates of the authorities that may have signed the server's. */
  readonly caPath: string;
  readonly certPath?: string | undefined;
  readonly keyPath?: string | undefined;
}

export interface LinkOptions {
  /** "host:port" or "tls://host:port", tried in random order. */
  readonly servers: readonly string[];
  readonly user: string;
  readonly password: Secret;
  readonly tls: TlsFiles | undefined;
  /** Shown by the server's own monitoring. */
  readonly name: string;
  readonly inboxPrefix: string;
  readonly connectTimeoutMs: number;
  /** Wait before each new try; with jitter, so that a fleet does not come back at once. */
  readonly reconnect: Backoff;
}

/** Hears of what ends a reading. */
export interface Watcher {
  /** The connection is gone; called once. */
  lost(error: OperatingError): void;
  /** The server refused something sent to, or subscribed at, `subject`. */
  refused(subject: string, error: OperatingError): void;
}

/** One connection for the life of a feed. It begins to connect when constructed; close() it. */
export class Link {
  readonly #options: LinkOptions;
  readonly #world: World;
  readonly #greet: (connection: NatsConnection) => void;
  readonly #closing = new AbortController();
  readonly #calls = new Set<(error: OperatingError) => void>();
  readonly #watchers = new Set<Watcher>();
  readonly #refusalsLogged = new Set<string>();
  readonly #running: Promise<void>;
  #connection: NatsConnection | undefined;
  #usable = false;
  #reason = "not connected yet";
  #attempt = 0;

  /** `greet` is called with the connection each time one stands. */
  constructor(options: LinkOptions, world: World, greet: (connection: NatsConnection) => void) {
    this.#options = options;
    this.#world = world;
    this.#greet = greet;
    this.#running = this.#connectForever();
  }

  /** Undefined while connected, else a sentence for the operator. */
  disconnected(): string | undefined {
    return this.#usable ? undefined : `the stream server ${this.#options.servers.join(", ")}: ${this.#reason}`;
  }

  /** The live connection. @throws E_FEED_UNAVAILABLE when there is none. */
  connected(): NatsConnection {
    if (this.#connection === undefined || !this.#usable) throw unavailable(this.disconnected() ?? this.#reason);
    return this.#connection;
  }

  /** Runs `work` on the live connection. Fails at once when the connection is lost, with what the failure means otherwise. */
  call<T>(step: string, work: (connection: NatsConnection) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const connection = this.connected();
      this.#calls.add(reject);
      work(connection)
        .then(resolve, (error: unknown) => reject(meaningOf(error, step)))
        .finally(() => this.#calls.delete(reject));
    });
  }

  /** Calls in flight, for the bound and its metric. */
  get callsInFlight(): number {
    return this.#calls.size;
  }

  /** Tells `watcher` about losses and refusals until the returned function is called. */
  watch(watcher: Watcher): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Ends everything that runs on the connection, then the connection itself. */
  async close(): Promise<void> {
    const connection = this.#connection;
    this.#closing.abort();
    if (connection !== undefined) {
      if (this.#usable) await this.#flush(connection);
      this.#lose("closed here");
      await connection.close().catch((error: unknown) => this.#world.log.debug("closing the feed", factsOf(error)));
    }
    this.#reason = "closed here";
    await this.#running;
  }

  async #flush(connection: NatsConnection): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#world.clock.after(FLUSH_TIMEOUT_MS, resolve);
      connection.flush().then(resolve, () => resolve()).finally(cancel);
    });
  }

  /** First connection and any after the library gave up one: for ever, until closed. The library itself re-dials after a loss. */
  async #connectForever(): Promise<void> {
    const { clock, random, log } = this.#world;
    for (let attempt = 1; !this.#closing.signal.aborted; attempt += 1) {
      try {
        const connection = await connect(this.#settings());
        if (this.#closing.signal.aborted) return await connection.close();
        attempt = 0;
        await this.#serve(connection);
      } catch (error) {
        const reason = meaningOf(error, "connecting");
        if (reason.message !== this.#reason) log.warn("the stream server cannot be reached", factsOf(reason));
        this.#reason = reason.message;
      }
      if (!this.#closing.signal.aborted) {
        await waitBeforeRetry({ clock, random }, this.#options.reconnect, Math.max(attempt, 1), this.#closing.signal);
      }
    }
  }

  #settings(): ConnectionOptions & { noAsyncTraces: boolean } {
    const { servers, user, password, tls, name, inboxPrefix, connectTimeoutMs, reconnect } = this.#options;
    return {
      servers: [...servers], user, pass: password.reveal(), name, inboxPrefix, timeout: connectTimeoutMs,
      reconnect: true, maxReconnectAttempts: -1, ignoreAuthErrorAbort: true,
      reconnectDelayHandler: () => backoffMs(this.#world.random, reconnect, (this.#attempt += 1)),
      pingInterval: PING_INTERVAL_MS, maxPingOut: PINGS_UNANSWERED_MAX, noAsyncTraces: true,
      ...(tls === undefined ? {} : { tls: {
        caFile: tls.caPath,
        ...(tls.certPath === undefined ? {} : { certFile: tls.certPath }),
        ...(tls.keyPath === undefined ? {} : { keyFile: tls.keyPath }),
      } }),
    };
  }

  /** Follows one connection through losses and reconnects until the library closes it. */
  async #serve(connection: NatsConnection): Promise<void> {
    this.#connection = connection;
    this.#use(connection);
    try {
      for await (const status of connection.status()) this.#note(connection, status);
    } catch (error) {
      await connection.close();
      throw error;
    } finally {
      this.#lose("the connection was closed");
      this.#connection = undefined;
    }
  }

  #use(connection: NatsConnection): void {
    this.#usable = true;
    this.#attempt = 0;
    this.#refusalsLogged.clear();
    this.#world.log.info("connected to the stream server", { server: connection.getServer(), version: connection.info?.version });
    this.#greet(connection);
  }

  #note(connection: NatsConnection, status: Status): void {
    if (status.type === "disconnect" || status.type === "staleConnection") this.#lose(`the connection was lost (${status.type})`);
    else if (status.type === "reconnect") this.#use(connection);
    else if (status.type === "error") this.#noteError(status.error);
    else if (status.type === "ldm") this.#world.log.info("the stream server is about to shut down", { server: status.server });
  }

  #noteError(error: Error): void {
    const subject = refusedSubject(error);
    if (subject === undefined) {
      if (!this.#usable) this.#reason = error.message;
      this.#world.log.warn("the stream server complains", factsOf(meaningOf(error, "protocol")));
      return;
    }
    const refusal = meaningOf(error, "permission");
    for (const watcher of [...this.#watchers]) watcher.refused(subject, refusal);
    if (this.#refusalsLogged.has(subject) || this.#refusalsLogged.size >= REFUSALS_LOGGED_MAX) return;
    this.#refusalsLogged.add(subject);
    this.#world.log.warn("the stream server refuses this user a subject", factsOf(refusal));
  }

  #lose(reason: string): void {
    if (!this.#usable) return;
    this.#usable = false;
    this.#reason = reason;
    if (!this.#closing.signal.aborted) this.#world.log.warn("the stream server is away", { reason });
    const error = unavailable(`${reason}; what was in flight may or may not have been done`);
    for (const reject of [...this.#calls]) reject(error);
    for (const watcher of [...this.#watchers]) watcher.lost(error);
  }
}
