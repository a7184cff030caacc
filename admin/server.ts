/**
 * What operators and their tools ask a running process: is it alive, is it ready and if not why, its metrics, its status.
 * The same small server stands beside every process.
 *
 *   GET /healthz   200 while the process lives
 *   GET /readyz    200, or 503 with the reason of every part that is not ready
 *   GET /metrics   Prometheus text
 *   GET /status    identity, readiness and what the process says about itself, JSON
 *   /operations    what may be asked for, and asking for it (admin/operations.ts), where the process has operations
 *
 * Invariants: nothing here changes anything but operations, which are refused unless the server listens on a loopback address;
 * an answer never carries a password (they cannot be printed, core/secret.ts) or a stack; a slow or greedy client is bounded
 * in connections and time. There is no authentication: it listens on loopback unless the operator says otherwise.
 * Not here: what the parts report (the rooms themselves), the control service's API.
 */
import { createServer, type Server } from "node:http";
import express, { type Express, type NextFunction, type Request, type Response } from "express";
import { assert } from "../core/assert.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf, type Log } from "../core/log.ts";
import type { Metrics } from "../core/metrics.ts";
import type { Operations } from "../core/operation.ts";
import { operationRoutes } from "./operations.ts";

export interface AdminOptions {
  readonly host: string;
  /** 0: any free port, see AdminServer.port. */
  readonly port: number;
  /** Who answers: process, site, service, version. */
  readonly facts: Readonly<Record<string, string>>;
  /** Part name to reason, for every part that is not ready (Lifecycle.notReady). */
  readonly notReady: () => Readonly<Record<string, string>>;
  /** What the process says about itself; values must survive JSON. */
  readonly status: () => object;
  readonly metrics: Metrics;
  /** What may be asked for; nothing by default. */
  readonly operations?: Operations | undefined;
}

export interface AdminServer extends Part {
  /** The port that is listened on, once started. */
  port(): number;
}

/** Connections at a time; scrapers and people need a handful. */
const CONNECTIONS_MAX = 64;
const REQUEST_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 5_000;

/** The routes alone, for tests and for processes that bring their own listener. */
export function adminRoutes(options: Omit<AdminOptions, "port">, log: Log): Express {
  const routes = express();
  routes.disable("x-powered-by");
  routes.disable("etag");
  routes.use((_request, response, next) => {
    response.setHeader("Cache-Control", "no-store");
    response.setHeader("X-Content-Type-Options", "nosniff");
    next();
  });
  if (options.operations !== undefined) routes.use("/operations", operationRoutes(options.operations, options.host, log));
  routes.use((request, response, next) => {
    if (request.method === "GET" || request.method === "HEAD") return next();
    response.setHeader("Allow", "GET, HEAD");
    response.status(405).json({ error: "only GET and HEAD are answered here" });
  });
  routes.get("/healthz", (_request, response) => {
    response.json({ alive: true });
  });
  routes.get("/readyz", (_request, response) => {
    const notReady = options.notReady();
    const isReady = Object.keys(notReady).length === 0;
    response.status(isReady ? 200 : 503).json({ ready: isReady, notReady });
  });
  routes.get("/status", (_request, response) => {
    const notReady = options.notReady();
    response.json({ ...options.facts, ready: Object.keys(notReady).length === 0, notReady, status: options.status() });
  });
  routes.get("/metrics", async (_request, response) => {
    const text = await options.metrics.render();
    response.type("text/plain; version=0.0.4; charset=utf-8").send(text);
  });
  routes.use((_request, response) => {
    response.status(404).json({ error: "not here; see /healthz, /readyz, /metrics, /status" });
  });
  // Express recognises an error handler by its four parameters.
  routes.use((error: unknown, request: Request, response: Response, next: NextFunction) => {
    log.error("an admin request failed", { path: request.path, ...factsOf(error) });
    if (response.headersSent) return next(error);
    response.status(500).json({ error: "the process could not answer; its log says why" });
  });
  return routes;
}

/** The admin server as a part of a process. start() rejects with the listener's own error, such as EADDRINUSE. */
export function adminServer(options: AdminOptions, log: Log): AdminServer {
  const server: Server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: HEADERS_TIMEOUT_MS },
    adminRoutes(options, log));
  server.maxConnections = CONNECTIONS_MAX;
  const port = (): number => {
    const address = server.address();
    assert(typeof address === "object" && address !== null, "the admin server has a port only while it listens");
    return address.port;
  };
  return {
    name: "admin",
    port,
    start: () => new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(options.port, options.host, () => {
        server.removeListener("error", reject);
        log.info("admin server listens", { host: options.host, port: port() });
        resolve();
      });
    }),
    stop: () => new Promise((resolve) => {
      if (!server.listening) return resolve();
      server.close(() => resolve());
      // Answers take milliseconds; what is still open is idle or too slow to wait for, or an operation, which this aborts.
      server.closeAllConnections();
    }),
  };
}
