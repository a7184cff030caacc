/** One call on its way through the proxy: what server.ts hands to the handler and the handler to forward.ts. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { RequestHead } from "./headers.ts";

export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Fresh UUID; answers made by the proxy itself show "req-<uuid>". The client's own request id travels untouched. */
  readonly requestId: string;
  /** Method as the client wrote it: some services run a lower-case method, and it is forwarded as it came. */
  readonly method: string;
  /** Request target in origin form, byte for byte. */
  readonly target: string;
  readonly head: RequestHead;
  readonly scheme: "http" | "https";
}

const READS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);

/** True for methods that promise to change nothing. What a service really does with them is the router's knowledge. */
export function isRead(method: string): boolean {
  return READS.has(method.toUpperCase());
}
