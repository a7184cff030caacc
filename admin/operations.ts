/**
 * Operations (core/operation.ts) over HTTP, beside what the admin server tells (admin/server.ts):
 *
 *   GET  /operations          their names, JSON
 *   POST /operations/<name>   body: the input, a JSON object, or nothing; answer: one JSON document per line
 *                             {"progress": {"step", "done", "total"}} any number of times, then
 *                             {"output": ...} or {"error": {"code", "message"}}
 *
 * Invariants: who may reach the loopback of this machine may ask, nobody else: there is no authentication, so everything here
 * is refused unless the server listens on a loopback address, and so is a request that a web page could have caused (with an
 * Origin, or for a Host that is not this machine's). At most OPERATIONS_AT_ONCE_MAX run at once. An asker that leaves aborts
 * its operation. Once an operation has begun the status is 200, and its last line says how it ended; a bug in it says so there
 * without its text, and ends the process if it was a failed assertion.
 * Not here: what the operations do, reading them on the other side (cli/operation.ts).
 */
import { BlockList, isIP } from "node:net";
import express, { type NextFunction, type Request, type Response, type Router } from "express";
import { AssertionError } from "../core/assert.ts";
import { isOperating, type ErrorCode } from "../core/errors.ts";
import { factsOf, type Log } from "../core/log.ts";
import type { Input, JsonValue, Operation, Operations, Progress } from "../core/operation.ts";

/** Operations that run at once, over all askers; more are told to come again. */
export const OPERATIONS_AT_ONCE_MAX = 4;
/** Largest input. */
const INPUT_BYTES_MAX = 64 * 1024;
/** The code in place of an error code when an operation broke; the process's log says more. */
const BUG = "BUG";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** True for a name or an address that only this machine reaches. */
export function isLoopback(host: string): boolean {
  const address = host.replace(/^\[(.*)\]$/, "$1");
  if (address.toLowerCase() === "localhost") return true;
  const family = isIP(address);
  return family !== 0 && LOOPBACK.check(address, family === 4 ? "ipv4" : "ipv6");
}

/** The host of a Host header, without its port. */
function hostOf(header: string | undefined): string {
  return (header ?? "").replace(/:\d+$/, "");
}

/** The routes under /operations. `host` is what the server listens on. */
export function operationRoutes(operations: Operations, host: string, log: Log): Router {
  const routes = express.Router();
  let running = 0;
  routes.use((request, response, next) => {
    const refusal = refusalOf(request, host);
    if (refusal === undefined) return next();
    log.warn("an operation was refused", { path: request.path, reason: refusal });
    refuse(response, 403, "E_ACCESS_DENIED", refusal);
  });
  routes.get("/", (_request, response) => {
    response.json({ operations: [...operations.keys()].sort() });
  });
  routes.post("/:name", express.json({ limit: INPUT_BYTES_MAX, type: () => true }), (request: Request, response: Response) => {
    const name = String(request.params["name"]);
    const work = operations.get(name);
    if (work === undefined) return refuse(response, 404, "E_OPERATION_INPUT", `there is no operation "${name}" here`);
    const input = inputOf(request.body);
    if (input === undefined) return refuse(response, 400, "E_OPERATION_INPUT", "the input is no JSON object");
    if (running >= OPERATIONS_AT_ONCE_MAX) {
      response.setHeader("Retry-After", "5");
      return refuse(response, 503, "E_ASK_UNANSWERED",
        `${running} operations are running already; ask again when one has ended`);
    }
    running += 1;
    void perform({ name, work, input }, response, log).finally(() => (running -= 1));
  });
  // Express recognises an error handler by its four parameters.
  routes.use((error: unknown, _request: Request, response: Response, next: NextFunction) => {
    const type = error instanceof Error && "type" in error ? String(error.type) : "";
    if (response.headersSent || type === "") return next(error);
    if (type === "entity.too.large") refuse(response, 413, "E_OPERATION_INPUT", `the input is above ${INPUT_BYTES_MAX} bytes`);
    else refuse(response, 400, "E_OPERATION_INPUT", "the input cannot be read as JSON");
  });
  return routes;
}

/** Why this request may not ask for operations; undefined when it may. */
function refusalOf(request: Request, host: string): string | undefined {
  if (!isLoopback(host)) return `operations are answered on a loopback address only, and admin.host is ${host}`;
  if (request.headers.origin !== undefined) return "operations are not for web pages";
  if (!isLoopback(hostOf(request.headers.host))) return "the Host is not a loopback address";
  return undefined;
}

function refuse(response: Response, status: number, code: ErrorCode, message: string): void {
  response.status(status).json({ error: { code, message } });
}

/** The input in a parsed body; an absent body is an empty input. */
function inputOf(body: unknown): Input | undefined {
  if (body === undefined) return {};
  return typeof body === "object" && body !== null && !Array.isArray(body) ? body as Input : undefined;
}

/** Runs one operation to its end and writes its lines. Rejects for a failed assertion alone. */
async function perform({ name, work, input }: { readonly name: string; readonly work: Operation; readonly input: Input },
  response: Response, log: Log): Promise<void> {
  const leaving = new AbortController();
  response.once("close", () => leaving.abort());
  response.status(200).setHeader("Content-Type", "application/x-ndjson");
  response.flushHeaders();
  // Progress is dropped while the asker reads slowly; the last line never is.
  const line = (said: object): void => {
    if (!leaving.signal.aborted) response.write(`${JSON.stringify(said)}\n`);
  };
  const onProgress = ({ step, done, total }: Progress): void => {
    if (!response.writableNeedDrain) line({ progress: total === undefined ? { step, done } : { step, done, total } });
  };
  log.info("an operation begins", { operation: name });
  try {
    const output: JsonValue = await work(input, onProgress, leaving.signal);
    line({ output });
    log.info("an operation has ended", { operation: name });
  } catch (error) {
    const { code, message } = isOperating(error) ? error
      : { code: BUG, message: "the operation broke; the process's log says why" };
    line({ error: { code, message: message.replace(`${code}: `, "") } });
    if (isOperating(error)) log.warn("an operation failed", { operation: name, ...factsOf(error) });
    else log.error("an operation broke", { operation: name, ...factsOf(error) });
    if (error instanceof AssertionError) throw error;
  } finally {
    response.end();
  }
}
