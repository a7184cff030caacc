/**
 * The database sync API over HTTPS: the listener and everything that is HTTP about it. Off unless configured.
 *
 * Invariants: nothing is answered in the clear or without a token; the token is looked at before the path, the path and the scope
 * before the body; an error is { error: { code, message } } and never carries a stack or a value that was sent.
 * Bounds: CONNECTIONS_MAX; BODY_BYTES_MAX, never compressed, of UPLOADS_AT_ONCE; CALLS_AT_ONCE on the databases; what is beyond
 * these two waits; times for head, request, silence and the end of calls under way at a stop.
 * Not here: what is answered (routes.ts), who may ask (tokens.ts).
 */
import { createServer, type Server } from "node:https";
import express, { type Express, type NextFunction, type Request, type Response } from "express";
import { readTlsFiles } from "../admin/tls-files.ts";
import { assert } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { Lanes } from "./lanes.ts";
import { refusalOf } from "./refusal.ts";
import { Routes, type Answer, type Call } from "./routes.ts";
import { Tokens, type TokenSection } from "./tokens.ts";
import type { ServedService } from "./writing.ts";

export interface RecordsOptions {
  readonly host: string;
  /** 0: any free port, see RecordsServer.port. */
  readonly port: number;
  /** Paths of PEM files, read when the server starts. */
  readonly tls: { readonly cert: string; readonly key: string };
  readonly tokens: readonly TokenSection[];
}

export interface RecordsServer extends Part {
  /** The port that is listened on, once started. */
  port(): number;
}

export const CONNECTIONS_MAX = 64;
/** The largest image that a stream carries is 64 MiB by configuration; by default it is 1 MB. */
export const BODY_BYTES_MAX = 8 * 1024 * 1024;
/** Of the connections to a database (8 by default) the API takes at most these. */
export const CALLS_AT_ONCE = 3;
/** Bodies in memory at once. */
export const UPLOADS_AT_ONCE = 4;
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 60_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Silence on a connection, in either direction. */
const IDLE_TIMEOUT_MS = 120_000;
const STOP_WITHIN_MS = 5_000;

/** A bug, told to a caller: nothing of it is the caller's business. */
const BROKEN = { status: 500, body: { error: { code: "INTERNAL", message: "the log of the process says why" } } };

function headerOf(request: Request, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

function callOf(request: Request, tokens: Tokens): Call {
  const bearer = tokens.admit(headerOf(request, "authorization"), request.socket.remoteAddress ?? "");
  const [path = "", query = ""] = request.url.split("?", 2);
  return { method: request.method, path, query: new URLSearchParams(query), bearer,
    ifMatch: headerOf(request, "if-match"), ifNoneMatch: headerOf(request, "if-none-match") };
}

/** Reads a JSON body into request.body. Rejects with the parser's own error. */
function bodyReader(): (request: Request, response: Response) => Promise<unknown> {
  const parse = express.json({ limit: BODY_BYTES_MAX, inflate: false, type: () => true });
  return (request, response) => new Promise((resolve, reject) => {
    parse(request, response, (error?: unknown) => {
      if (error === undefined) resolve(request.body as unknown);
      else reject(unreadable(error));
    });
  });
}

/** What the parser found, without the text that it quotes. */
function unreadable(error: unknown): Error {
  const status = typeof error === "object" && error !== null && "status" in error ? error.status : undefined;
  if (status === 413) return new OperatingError("E_REQUEST_TOO_LARGE", `a body has at most ${BODY_BYTES_MAX} bytes`);
  return new OperatingError("E_REQUEST_MALFORMED", "the body is not a JSON object in UTF-8, uncompressed and whole");
}

/** The calls, without a listener. */
export function recordsApp(served: readonly ServedService[], tokens: Tokens, world: World): Express {
  const routes = new Routes(served, world);
  const lanes = new Lanes(CALLS_AT_ONCE);
  const uploads = new Lanes(UPLOADS_AT_ONCE);
  const readBody = bodyReader();
  world.metrics.gauge("holdfast_records_calls_waiting", () => lanes.waiting + uploads.waiting);
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.use(async (request, response) => {
    response.setHeader("Cache-Control", "no-store");
    response.setHeader("X-Content-Type-Options", "nosniff");
    const admitted = routes.admit(callOf(request, tokens));
    const answered = (body: unknown): Promise<Answer> => lanes.run(() => admitted.answer(body));
    const answer = await (admitted.takesBody ? uploads.run(async () => answered(await readBody(request, response)))
      : answered(undefined));
    if (answer.etag !== undefined) response.setHeader("ETag", `"${answer.etag}"`);
    world.metrics.count("holdfast_records_calls_total", 1, { method: request.method, status: String(answer.status) });
    response.status(answer.status).json(answer.body);
  });
  // Express recognises an error handler by its four parameters.
  app.use((error: unknown, request: Request, response: Response, next: NextFunction) => {
    const refusal = refusalOf(error);
    if (refusal === undefined) world.log.error("a call of the records API failed", factsOf(error));
    if (response.headersSent) return next(error);
    const { status, body } = refusal ?? BROKEN;
    world.metrics.count("holdfast_records_calls_total", 1, { method: request.method, status: String(status) });
    if (status === 401) response.setHeader("WWW-Authenticate", "Bearer");
    if (error instanceof OperatingError) {
      const { retryAfterSeconds, allow } = error.facts;
      if (status === 401) world.metrics.count("holdfast_records_tokens_refused_total");
      if (retryAfterSeconds !== undefined) response.setHeader("Retry-After", String(retryAfterSeconds));
      if (allow !== undefined) response.setHeader("Allow", String(allow));
    }
    // What is left of a body that nobody reads would be taken for the next request.
    const hasBody = headerOf(request, "content-length") !== undefined || headerOf(request, "transfer-encoding") !== undefined;
    if (hasBody && !request.complete) response.setHeader("Connection", "close");
    response.status(status).json(body);
  });
  return app;
}

/** The listener, not listening yet. @throws E_CONFIG when the files hold no matching pair; what the file system says */
function securedServer(options: RecordsOptions, app: Express): Server {
  const files = readTlsFiles(options.tls);
  try {
    return createServer({ ...files, minVersion: "TLSv1.2", handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: HEADERS_TIMEOUT_MS }, app);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new OperatingError("E_CONFIG", `records.tls: ${options.tls.cert} and ${options.tls.key} cannot be used: ${reason}`);
  }
}

function listen(server: Server, options: RecordsOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host, () => {
      server.removeListener("error", reject);
      resolve();
    });
  });
}

/** The API as a part of a process. @throws E_CONFIG for unsafe tokens; start() rejects with the errors of files and listener */
export function recordsServer(options: RecordsOptions, served: readonly ServedService[], world: World): RecordsServer {
  const app = recordsApp(served, new Tokens(options.tokens, world.clock), world);
  let server: Server | undefined;
  const port = (): number => {
    const address = server?.address();
    assert(typeof address === "object" && address !== null, "the records API has a port only while it listens");
    return address.port;
  };
  return {
    name: "records",
    port,
    async start() {
      server = securedServer(options, app);
      server.maxConnections = CONNECTIONS_MAX;
      server.timeout = IDLE_TIMEOUT_MS;
      await listen(server, options);
      world.log.info("the database sync API listens", { host: options.host, port: port() });
    },
    async stop() {
      const stopping = server;
      if (stopping?.listening !== true) return;
      const closed = new Promise<void>((resolve) => stopping.close(() => resolve()));
      stopping.closeIdleConnections();
      const over = new AbortController();
      await Promise.race([closed, sleep(world.clock, STOP_WITHIN_MS, over.signal)]);
      over.abort();
      stopping.closeAllConnections();
    },
  };
}
