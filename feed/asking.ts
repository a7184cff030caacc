/**
 * Operations (core/operation.ts) asked over the stream server: one question, one answer, both JSON.
 *
 *   question {"op": name, "input": {...}}
 *   answer   {"ok": true, "output": ...} or {"ok": false, "code": error code, "message": text}
 *
 * Invariants: an operation's own failure reaches the asker with its code and text; a bug does not: it leaves the asker without
 * an answer (feed/answering.ts). An answer that would be too large for a server's usual limit becomes a failure that says so,
 * so that the asker asks for less. Progress is not told over this way. An asker that has given up is not noticed: operations
 * may be asked twice, and bound themselves.
 * Not here: what operations do (audit/operations.ts, syncd/operations.ts), how questions travel (jetstream-asking.ts).
 */
import { isErrorCode, isOperating, OperatingError } from "../core/errors.ts";
import { factsOf, type Log } from "../core/log.ts";
import type { Input, JsonValue, Operation, Operations } from "../core/operation.ts";
import type { Feed } from "./feed.ts";
import { siteAskSubject } from "./subjects.ts";

/** Largest answer sent. A server takes 1 MiB unless told otherwise; answers are pages, never whole databases. */
const ANSWER_BYTES_MAX = 1_000_000;

const SITE_NAME = /^[0-9A-Za-z_-]{1,64}$/;

type JsonRecord = Readonly<Record<string, unknown>>;

function jsonRecordOf(bytes: Uint8Array): JsonRecord | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString());
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value as JsonRecord : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Asks whoever serves `subject` to do `op`, and gives its output.
 * @throws OperatingError as the operation threw it; E_ASK_UNANSWERED, E_FEED_UNAVAILABLE
 */
export async function askOperation(feed: Pick<Feed, "ask">, subject: string, op: string, input: Input,
  timeoutMs: number): Promise<JsonValue> {
  const answer = jsonRecordOf(await feed.ask(subject, Buffer.from(JSON.stringify({ op, input })), timeoutMs));
  if (answer?.["ok"] === true && answer["output"] !== undefined) return answer["output"] as JsonValue;
  if (answer?.["ok"] !== false) {
    throw new OperatingError("E_ASK_UNANSWERED", `the answer to "${op}" from ${subject} cannot be read`, { subject, op });
  }
  const code = String(answer["code"]);
  const message = String(answer["message"]);
  // A newer version may know codes that this one does not.
  if (!isErrorCode(code)) throw new OperatingError("E_ASK_UNANSWERED", `"${op}" failed at ${subject}: ${code}: ${message}`);
  throw new OperatingError(code, message, { subject, op });
}

/** Answers questions on `subject` by doing `operations`, until the returned function is called; it also aborts what runs. */
export function serveOperations(feed: Pick<Feed, "serve">, subject: string, operations: Operations, log: Log): () => void {
  const ending = new AbortController();
  const stop = feed.serve(subject, async (question, askedOn) =>
    Buffer.from(JSON.stringify(await answered(question, askedOn))));
  const answered = async (question: Uint8Array, askedOn: string): Promise<object> => {
    try {
      const { op, work, input } = questionOf(question, operations);
      const output = await work(input, () => undefined, ending.signal);
      const sizeBytes = Buffer.byteLength(JSON.stringify(output));
      if (sizeBytes <= ANSWER_BYTES_MAX) return { ok: true, output };
      throw new OperatingError("E_OPERATION_INPUT", `the answer to "${op}" is too large; ask for less`,
        { sizeBytes, sizeBytesMax: ANSWER_BYTES_MAX });
    } catch (error) {
      if (!isOperating(error)) throw error;
      log.info("an operation failed", { subject: askedOn, ...factsOf(error) });
      return { ok: false, ...failureOf(error) };
    }
  };
  return () => {
    ending.abort();
    stop();
  };
}

function questionOf(question: Uint8Array, operations: Operations):
  { readonly op: string; readonly work: Operation; readonly input: Input } {
  const asked = jsonRecordOf(question);
  const op = asked?.["op"];
  const input = asked?.["input"];
  const work = typeof op === "string" ? operations.get(op) : undefined;
  if (typeof op !== "string" || work === undefined) {
    throw new OperatingError("E_OPERATION_INPUT", `there is no operation "${String(op)}" here`);
  }
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    throw new OperatingError("E_OPERATION_INPUT", `the input of "${op}" is no JSON object`);
  }
  return { op, work, input: input as Input };
}

/** The code and the text of a failure, apart. */
export function failureOf(error: OperatingError): { readonly code: string; readonly message: string } {
  const prefix = `${error.code}: `;
  return { code: error.code, message: error.message.startsWith(prefix) ? error.message.slice(prefix.length) : error.message };
}

/**
 * The operation that asks the site named in its input ("site") to do `op`, with the same input.
 * @throws E_OPERATION_INPUT without a plain site name; E_ASK_UNANSWERED when the site is away
 */
export function relayToSite(feed: Pick<Feed, "ask">, service: string, op: string, timeoutMs: number): Operation {
  return async (input, progress) => {
    const site = input["site"];
    if (typeof site !== "string" || !SITE_NAME.test(site)) {
      throw new OperatingError("E_OPERATION_INPUT", `"${op}" needs the name of a site`);
    }
    progress({ step: `asking ${site}`, done: 0, total: 1 });
    const output = await askOperation(feed, siteAskSubject(service, site), op, input, timeoutMs);
    progress({ step: `asking ${site}`, done: 1, total: 1 });
    return output;
  };
}
