/**
 * Where clients connect. Node's HTTP server with the limits of an API front, refusals in the service's own words, and nothing
 * decided about a call: each becomes an Exchange for the handler.
 *
 * Invariants: a head that two parsers could read differently reaches no handler; calls of one connection are handled one
 * after the other, so that pipelined writes keep their order; a broken request never gets its refusal mixed into the answer
 * of another; draining finishes what was begun, up to drainTimeoutMs, and answers what arrives on idle connections for a moment.
 * Not here: forwarding, capture; Upgrade (no listener: such requests are served as plain HTTP/1.1).
 */
import { createServer as createPlain, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTls } from "node:https";
import { Server as NetServer } from "node:net";
import type { Duplex } from "node:stream";
import { present } from "../core/assert.ts";
import { eventLoopTurn } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import type { Exchange } from "./exchange.ts";
import { readRequestHead } from "./headers.ts";
import { originalMethod, resumeWithUpperCase } from "./method-case.ts";
import { refusalBytes, refuse, type ErrorShape, type Refusal } from "./refuse.ts";
import { readTlsFiles } from "../admin/tls-files.ts";

/** Request line and headers together; uWSGI takes 64 KiB, and the upstream's own limit should be the one that is felt. */
export const REQUEST_HEAD_BYTES_MAX = 128 * 1024;
/** Above the time for which clients (urllib3) think a connection reusable. */
export const CLIENT_IDLE_MS = 80_000;
/** A head must be complete after this long: 408. */
export const HEAD_TIMEOUT_MS = 60_000;

/** While draining, how long idle connections stay open for calls that their clients have sent already. */
const DRAIN_LINGER_MS = 500;
/** While draining, connections that the system had taken already are accepted until none came for so many turns of the loop. */
const QUIET_TURNS = 2;
/** As many turns at most: clients that connect without end would keep the listener open for ever. */
const ACCEPT_TURNS_MAX = 1_000;
/** Connections that wait to be accepted; the system may allow fewer. */
const LISTEN_BACKLOG = 4096;

export interface ServerSettings {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** Paths of the certificate chain and the private key (PEM), read at start. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  readonly errorShape: ErrorShape;
  readonly drainTimeoutMs: number;
  /** Answers the exchange, sooner or later. May reject with an OperatingError before anything was answered: that is a 503. */
  readonly handle: (exchange: Exchange) => Promise<void>;
}

/** start() accepts; stop() finishes calls under way up to drainTimeoutMs, then closes every connection. */
export interface ProxyServer extends Part {
  /** Where it listens; undefined before start. */
  address(): { readonly host: string; readonly port: number } | undefined;
}

/**
 * What is known of each open connection. Per call only a field changes: a set of calls under way kept every finished answer alive
 * until the next full garbage collection, a fifth of the whole cost of a call.
 */
interface Connection {
  /** The newest response under way. */
  newest: ServerResponse | undefined;
  /** It has asked for something; Node counts connections that have not as busy. */
  used: boolean;
}

class NodeServer implements ProxyServer {
  readonly name = "server";
  readonly #settings: ServerSettings;
  readonly #world: World;
  readonly #server: Server;
  readonly #connections = new Map<Duplex, Connection>();
  /** Connections whose lower-case call is carried by a stream of its own; the server itself does not know their sockets. */
  readonly #carried = new Set<Duplex>();
  readonly #replaced = new WeakSet<Duplex>();
  #underWay = 0;
  #accepted = 0;
  #taken = 0;
  #draining = false;
  #lingered = false;

  constructor(settings: ServerSettings, world: World) {
    this.#settings = settings;
    this.#world = world;
    const options = { maxHeaderSize: REQUEST_HEAD_BYTES_MAX, keepAliveTimeout: CLIENT_IDLE_MS, headersTimeout: HEAD_TIMEOUT_MS,
      requestTimeout: 0, requireHostHeader: false, noDelay: true };
    const { tls } = settings;
    this.#server = tls === undefined ? createPlain(options)
      : createTls({ ...options, ...readTlsFiles(tls) });
    this.#server.maxHeadersCount = 0;
    this.#server.timeout = 0;
    const receive = (request: IncomingMessage, response: ServerResponse): void => this.#receive(request, response);
    this.#server.on("request", receive).on("checkContinue", receive).on("checkExpectation", receive);
    const noTunnel = { status: 405, message: "There is no tunnel here." };
    this.#server.on("connection", () => void (this.#accepted += 1));
    this.#server.on("connect", (_request, socket: Duplex) => this.#refuseRaw(socket, noTunnel));
    this.#server.on("clientError", (error: Error, socket: Duplex) => this.#misread(error, socket));
    this.#server.on(tls === undefined ? "connection" : "secureConnection", (socket: Duplex) => {
      this.#connections.set(socket, { newest: undefined, used: false });
      socket.once("close", () => this.#connections.delete(socket));
    });
    world.metrics.gauge("holdfast_proxy_exchanges_open", () => this.#underWay);
  }

  address(): { readonly host: string; readonly port: number } | undefined {
    const address = this.#server.address();
    return address === null || typeof address === "string" ? undefined : { host: address.address, port: address.port };
  }

  /** Errors: those of listen(2), as they are; the process cannot do its work then. */
  start(): Promise<void> {
    const { host, port } = this.#settings;
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ host, port, backlog: LISTEN_BACKLOG }, () => {
        this.#server.off("error", reject);
        resolve();
      });
    });
  }

  async stop(): Promise<void> {
    this.#draining = true;
    await this.#acceptWaiting();
    return new Promise((resolve) => {
      const cancel = this.#world.clock.after(this.#settings.drainTimeoutMs, () => {
        this.#world.log.warn("calls were cut off because they did not finish in time", { calls: this.#underWay });
        for (const stream of this.#carried) stream.destroy();
        this.#server.closeAllConnections();
      });
      // The listener alone: http's own close() would also cut idle connections at once, on which a call may be on its way.
      NetServer.prototype.close.call(this.#server, () => {
        cancel();
        this.#world.log.info("drained", { calls: this.#taken });
        resolve();
      });
      for (const { newest } of this.#connections.values()) if (newest !== undefined) newest.shouldKeepAlive = false;
      this.#world.clock.after(Math.min(DRAIN_LINGER_MS, this.#settings.drainTimeoutMs), () => this.#closeIdle());
    });
  }

  /** Closing a listener resets the connections that wait in its queue, on which calls may have been sent already. */
  async #acceptWaiting(): Promise<void> {
    for (let [turns, quiet] = [0, 0]; turns < ACCEPT_TURNS_MAX && quiet < QUIET_TURNS; turns += 1) {
      const before = this.#accepted;
      await eventLoopTurn();
      quiet = this.#accepted === before ? quiet + 1 : 0;
    }
  }

  #closeIdle(): void {
    this.#lingered = true;
    for (const [socket, { used }] of this.#connections) if (!used) socket.destroy();
    this.#server.closeIdleConnections();
  }

  #receive(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const connection = present(this.#connections.get(socket), "requests come on connections that were announced");
    const before = connection.newest;
    connection.newest = response;
    connection.used = true;
    this.#underWay += 1;
    this.#taken += 1;
    response.once("close", () => {
      this.#underWay -= 1;
      if (connection.newest === response) connection.newest = undefined;
      if (this.#lingered) this.#server.closeIdleConnections();
    });
    if (this.#draining || originalMethod(socket) !== undefined) response.shouldKeepAlive = false;
    if (before === undefined) this.#begin(request, response);
    else before.once("close", () => this.#begin(request, response));
  }

  #begin(request: IncomingMessage, response: ServerResponse): void {
    if (request.socket.destroyed) return;
    const requestId = this.#world.random.id();
    const method = originalMethod(request.socket) ?? request.method ?? "";
    const head = readRequestHead(request.rawHeaders, request.httpVersion);
    const target = originForm(request.url ?? "", head.host);
    const fault = request.httpVersionMajor !== 1 ? WRONG_VERSION : head.fault;
    if (fault !== undefined || target === undefined) {
      this.#world.metrics.count("holdfast_proxy_malformed_requests");
      return refuse(response, this.#settings.errorShape, fault ?? WRONG_TARGET, requestId, true);
    }
    if (target === "*") return refuseAsterisk(response, method, this.#settings.errorShape, requestId);
    const scheme = this.#settings.tls === undefined ? "http" : "https";
    const exchange: Exchange = { request, response, requestId, method, target, head, scheme };
    this.#settings.handle(exchange).catch((error: unknown) => {
      if (!isOperating(error)) throw error;
      this.#world.log.warn("a call could not be handled", { request: `req-${requestId}`, ...factsOf(error) });
      const refusal = { status: 503, message: "The request was not executed.", retryAfterSeconds: 5 };
      refuse(response, this.#settings.errorShape, refusal, requestId);
    });
  }

  /** A connection on which the parser stopped. */
  #misread(error: Error & { readonly code?: string; readonly rawPacket?: Uint8Array }, socket: Duplex): void {
    // The parser that gave up on a carried connection may still complain of waiting; another one has the bytes now.
    if (this.#replaced.has(socket)) return;
    if (error.code === "ECONNRESET" || !socket.writable) {
      socket.destroy();
      return;
    }
    const newest = this.#connections.get(socket)?.newest;
    if (newest === undefined && error.code === "HPE_INVALID_METHOD" && error.rawPacket !== undefined) {
      const carried = resumeWithUpperCase(socket, error.rawPacket);
      if (carried !== undefined) return this.#carry(socket, carried);
    }
    this.#world.metrics.count("holdfast_proxy_malformed_requests");
    const refusal = MISREAD[error.code ?? ""] ?? { status: 400, message: "The request is not valid HTTP/1.1." };
    if (newest === undefined) return this.#refuseRaw(socket, refusal);
    // The parser broke inside the request under way: the refusal is its answer, unless it has one already.
    if (!newest.req.complete) {
      if (newest.headersSent) return void socket.destroy();
      this.#refuseRaw(socket, refusal);
      // Whoever reads the body learns at once that its end will never come.
      if (newest.req.listenerCount("error") > 0) newest.req.emit("error", error);
      return;
    }
    // It broke on what follows a complete request: that one keeps its answer, the refusal comes after it.
    newest.once("close", () => this.#refuseRaw(socket, refusal));
  }

  #carry(socket: Duplex, stream: Duplex): void {
    this.#replaced.add(socket);
    this.#carried.add(stream);
    stream.once("close", () => this.#carried.delete(stream));
    this.#server.emit(this.#settings.tls === undefined ? "connection" : "secureConnection", stream);
  }

  #refuseRaw(socket: Duplex, refusal: Refusal): void {
    if (!socket.writable) {
      socket.destroy();
      return;
    }
    socket.on("error", () => socket.destroy());
    socket.end(refusalBytes(this.#settings.errorShape, refusal, this.#world.random.id()));
    // What the client still sends would turn the end of the connection into a reset, and take the answer away.
    socket.resume();
    const cancel = this.#world.clock.after(LINGER_MS, () => socket.destroy());
    socket.once("close", cancel).once("end", () => socket.destroy());
  }
}

/** A refused connection is read on for this long. */
const LINGER_MS = 2_000;

const WRONG_VERSION: Refusal = { status: 505, message: "Only HTTP/1.1 and HTTP/1.0 are spoken here." };
const WRONG_TARGET: Refusal = { status: 400, message: "The request target is no path, or it disagrees with the Host header." };

const MISREAD: Readonly<Record<string, Refusal>> = {
  HPE_HEADER_OVERFLOW: { status: 431, message: `The request head is larger than ${REQUEST_HEAD_BYTES_MAX} bytes.` },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, message: "The chunk extensions are too large." },
  HPE_INVALID_VERSION: WRONG_VERSION,
  HPE_INVALID_METHOD: { status: 501, message: "The request method is not known." },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, message: "The request head did not arrive in time." },
};

function refuseAsterisk(response: ServerResponse, method: string, shape: ErrorShape, requestId: string): void {
  if (method.toUpperCase() === "OPTIONS") response.writeHead(204).end();
  else refuse(response, shape, { status: 400, message: "Only OPTIONS may ask for *." }, requestId, true);
}

/**
 * The target in origin form; undefined when it is none. An absolute target must name the very host of the Host header:
 * services differ in which of the two they believe.
 */
export function originForm(target: string, host: string | undefined): string | undefined {
  if (target.startsWith("/") || target === "*") return target;
  const absolute = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target);
  if (absolute === null) return undefined;
  const [, authority = "", rest = ""] = absolute;
  if (host === undefined || authority.toLowerCase() !== host.trim().toLowerCase()) return undefined;
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/** A server for clients, as a part of the process. Throws when the TLS files cannot be read. */
export function proxyServer(settings: ServerSettings, world: World): ProxyServer {
  return new NodeServer(settings, world);
}
