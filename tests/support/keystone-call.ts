/**
 * One HTTP call on a connection of its own, with nothing added that the test did not ask for, and the answer as a test wants to
 * look at it. An upstream that closes without an answer is an answer here (status 0): some services do that.
 */
import { request } from "node:http";
import { present } from "../../core/assert.ts";
import { valuesAt } from "../../capture/touches.ts";

/** Longest silence of a server within one call. */
const SILENT_MAX_MS = 120_000;

export type Headers = Readonly<Record<string, string>>;

export interface Question {
  readonly method: string;
  readonly headers?: Headers;
  /** A text is sent as it is, everything else as JSON. */
  readonly body?: unknown;
}

export interface Reply {
  /** 0 when the connection ended without an answer. */
  readonly status: number;
  readonly text: string;
  readonly bytes: Uint8Array;
  /** What was sent as the body. */
  readonly sent: Uint8Array | undefined;
  /** The token that the answer's header X-Subject-Token carries. */
  readonly subject: string | undefined;
  /** The first value at a path into the JSON answer, such as "$.user.id". Fails the test when there is none. */
  at(jsonPath: string): string;
}

function reply(status: number, bytes: Buffer, sent: Buffer | undefined, subject: unknown): Reply {
  const text = bytes.toString("utf8");
  return { status, text, bytes, sent, subject: typeof subject === "string" ? subject : undefined,
    at: (jsonPath) => present(valuesAt(JSON.parse(text), jsonPath)[0], `${status} ${text} has no ${jsonPath}`) };
}

/** Makes the call. Rejects only when the server says nothing for SILENT_MAX_MS. */
export function send(url: string, { method, headers = {}, body }: Question): Promise<Reply> {
  const sent = body === undefined ? undefined : Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  const describing: Headers = sent === undefined ? {}
    : { "content-type": "application/json", "content-length": String(sent.byteLength) };
  return new Promise((resolve, reject) => {
    const call = request(url, { method, agent: false, timeout: SILENT_MAX_MS, headers: { ...describing, ...headers } },
      (answer) => {
      const chunks: Buffer[] = [];
      const end = (status: number) => (): void =>
        resolve(reply(status, Buffer.concat(chunks), sent, answer.headers["x-subject-token"]));
      answer.on("data", (chunk: Buffer) => chunks.push(chunk)).once("error", end(0)).once("end", end(answer.statusCode ?? 0));
    });
    call.once("timeout", () => {
      reject(new Error(`${method} ${url}: no answer within ${SILENT_MAX_MS / 1000} s`));
      call.destroy();
    });
    call.once("error", (error) => resolve(reply(0, Buffer.from(error.message), sent, undefined)));
    call.end(sent);
  });
}
