/**
 * Short questions that a proxy asks by itself: whether somebody is there, and what the daemon beside it says. Each on a
 * connection of its own, so that the answer tells of the way as it is now and not of a connection that was made long ago.
 *
 * Bounds: one answer of at most PEEKED_BYTES_MAX within the time asked for; anything else counts as none.
 * Not here: calls of clients (forward.ts), what is concluded (reach.ts, freshness.ts).
 */
import { request as requestPlain } from "node:http";
import { request as requestTls } from "node:https";
import type { Clock } from "../core/clock.ts";

/** Longest answer that is read. */
export const PEEKED_BYTES_MAX = 256 * 1024;

export interface Peek {
  readonly url: string;
  /** From the first byte of the connection to the last of the answer. */
  readonly timeoutMs: number;
  /** Certificates (PEM) of the authorities that sign an https server; the system's when undefined. */
  readonly authorities?: string | undefined;
}

export interface Peeked {
  readonly status: number;
  readonly text: string;
}

/** GETs the URL once; undefined when no whole answer came in time. Never rejects. */
export function peek({ url, timeoutMs, authorities }: Peek, clock: Clock): Promise<Peeked | undefined> {
  return new Promise((resolve) => {
    const start = url.startsWith("https:") ? requestTls : requestPlain;
    const question = start(url, { method: "GET", agent: false, headers: { accept: "application/json" },
      ...(authorities === undefined ? {} : { ca: authorities }) });
    const finish = (peeked?: Peeked): void => {
      cancel();
      question.destroy();
      resolve(peeked);
    };
    const cancel = clock.after(timeoutMs, () => finish());
    question.on("error", () => finish());
    question.once("response", (answer) => {
      const chunks: Buffer[] = [];
      let sizeBytes = 0;
      answer.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        if ((sizeBytes += chunk.byteLength) > PEEKED_BYTES_MAX) finish();
      });
      answer.once("error", () => finish());
      answer.once("close", () => finish());
      answer.once("end", () => finish({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }));
    });
    question.end();
  });
}
