/**
 * Calls to the lab's own services, each on a connection of its own: what a probe or the demonstration sees must not depend on
 * the state of a kept connection.
 */
import { request } from "node:http";
import { PROBE_MS } from "./options.ts";

export interface Call {
  readonly url: string;
  readonly method?: "GET" | "POST" | "PUT";
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly text: string;
}

/** Makes one HTTP call. Rejects when nobody answers, or says nothing for PROBE_MS. */
export function call({ url, method = "GET", headers = {}, body }: Call): Promise<Answer> {
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const describing: Readonly<Record<string, string>> = payload === undefined ? {}
    : { "content-type": "application/json", "content-length": String(Buffer.byteLength(payload)) };
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, agent: false, timeout: PROBE_MS, headers: { ...headers, ...describing } }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk)).once("error", reject).once("end", () =>
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text: Buffer.concat(chunks).toString("utf8") }));
    });
    sent.once("timeout", () => sent.destroy(new Error(`${url} did not answer within ${PROBE_MS / 1000} s`)));
    sent.once("error", reject).end(payload);
  });
}

/** True when a GET of `url` answers 200. */
export async function answersOk(url: string): Promise<boolean> {
  return (await call({ url })).status === 200;
}
