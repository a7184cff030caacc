/**
 * Asks a running process to do something: the other side of admin/operations.ts.
 *
 * Invariants: never rejects; what became of the asking is one value with the exit status that a script should see. A process
 * that ends, or breaks the connection, before its last line leaves the outcome unknown, and that is said.
 * Bounds: CONNECT_TIMEOUT_MS until the process begins to answer, ANSWER_BYTES_MAX for one line; an operation itself may last as
 * long as it lasts, and is aborted there when this program ends.
 * Not here: what is shown of it (the commands), progress bars (progress.ts).
 */
import { request, type IncomingMessage } from "node:http";
import type { Clock } from "../core/clock.ts";
import type { Input, JsonValue, Progress } from "../core/operation.ts";
import { EXIT_BUG, EXIT_CONFIG, EXIT_FAILED, EXIT_UNREACHABLE } from "./run.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const ANSWER_BYTES_MAX = 64 * 1024 ** 2;

export type Answer =
  | { readonly ok: true; readonly output: JsonValue }
  | { readonly ok: false; readonly exit: number; readonly because: string };

/** What to do where, and who wants to know how far it is. */
export interface Asking {
  /** http://host:port */
  readonly admin: string;
  readonly name: string;
  readonly input: Input;
  readonly onProgress: (progress: Progress) => void;
}

type JsonRecord = Readonly<Record<string, unknown>>;

/** Does one operation at `asking.admin`. */
export async function askAdmin(asking: Asking, clock: Clock): Promise<Answer> {
  const { admin, name } = asking;
  if (!URL.canParse(admin) || new URL(admin).protocol !== "http:") {
    return { ok: false, exit: EXIT_CONFIG, because: `${admin} is no http:// address of an admin server` };
  }
  try {
    const response = await begun(asking, clock);
    return await lastLine(response, asking)
      ?? { ok: false, exit: EXIT_UNREACHABLE, because: `${admin} ended "${name}" without an answer; it may or may not be done` };
  } catch (error) {
    return { ok: false, exit: EXIT_UNREACHABLE, because: `${admin}: ${reasonOf(error)}` };
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && error.message === "" ? String(error.code) : error.message;
}

/** The answer's beginning; the admin server sends it as soon as the operation runs. */
function begun({ admin, name, input }: Asking, clock: Clock): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify(input);
    const asked = request(new URL(`/operations/${encodeURIComponent(name)}`, admin), { method: "POST", agent: false,
      headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) } });
    const cancel = clock.after(CONNECT_TIMEOUT_MS, () => asked.destroy(new Error(`no answer in ${CONNECT_TIMEOUT_MS} ms`)));
    asked.once("response", (response) => {
      cancel();
      resolve(response);
    });
    asked.on("error", (error) => {
      cancel();
      reject(error);
    });
    asked.end(body);
  });
}

async function lastLine(response: IncomingMessage, asking: Asking): Promise<Answer | undefined> {
  let rest = "";
  response.setEncoding("utf8");
  for await (const chunk of response) {
    const lines = (rest + String(chunk)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const answer = answerIn(line, response.statusCode ?? 0, asking);
      if (answer !== undefined) return answer;
    }
    if (rest.length > ANSWER_BYTES_MAX) throw new Error("the answer is too large");
  }
  return answerIn(rest, response.statusCode ?? 0, asking);
}

/** What a line says about the end; undefined when it is not the end. */
function answerIn(line: string, status: number, { admin, name, onProgress }: Asking): Answer | undefined {
  const said = recordIn(line);
  if (said === undefined) return undefined;
  if (status === 200 && said["output"] !== undefined) return { ok: true, output: said["output"] as JsonValue };
  const { progress, error } = said;
  if (isRecord(progress)) {
    onProgress({ step: String(progress["step"]), done: Number(progress["done"]),
      total: typeof progress["total"] === "number" ? progress["total"] : undefined });
    return undefined;
  }
  if (isRecord(error)) {
    const code = String(error["code"]);
    return { ok: false, exit: exitOfCode(code), because: `${code}: ${String(error["message"])}` };
  }
  if (error === undefined) return undefined;
  return { ok: false, exit: EXIT_UNREACHABLE,
    because: `${admin}: this process cannot be asked for "${name}" (status ${status})` };
}

function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function recordIn(line: string): JsonRecord | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The exit status for the code that an operation failed with. */
function exitOfCode(code: string): number {
  if (code === "BUG") return EXIT_BUG;
  if (code === "E_OPERATION_INPUT") return EXIT_CONFIG;
  return code === "E_ASK_UNANSWERED" || code === "E_FEED_UNAVAILABLE" ? EXIT_UNREACHABLE : EXIT_FAILED;
}
