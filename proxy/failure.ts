/**
 * What is known about a call that got no whole answer, in words for the client and for the journal. Pure.
 *
 * Invariant: "refused" (503) is said only when no byte of the request can have reached the service; everything else about a
 * call that writes is "unknown" (502, 504), and the message says so. Codes are those of undici 7 and of the operating system.
 */
import type { Refusal } from "./refuse.ts";

export interface Failure extends Refusal {
  readonly outcome: "refused" | "unknown";
  /** The connection broke without a byte of an answer, as an idle one does when it is used at the wrong moment. */
  readonly stale?: boolean;
}

export const LOOK_FIRST = "The outcome of this request is unknown: look before repeating it.";
/** A refused connection often lasts as long as a restart. */
const RETRY_AFTER_SECONDS = 5;

/** The upstream was silent for too long: the relay's own finding, handed through the HTTP client to end the call. */
export class Overdue extends Error {
  override readonly name = "Overdue";
}

const BREAKS: ReadonlySet<string> = new Set(["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"]);
/** undici will not write such a request at all: a header or target it holds to be invalid. */
const UNSENDABLE: ReadonlySet<string> = new Set(["UND_ERR_INVALID_ARG", "UND_ERR_NOT_SUPPORTED"]);

/** `sent`: the request was handed to a connected socket, so bytes of it may have arrived. */
export function describeFailure(error: Error, call: { readonly sent: boolean; readonly mutates: boolean }): Failure {
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  if (!call.sent && UNSENDABLE.has(code)) {
    return { outcome: "refused", status: 400, message: "The request cannot be forwarded as it is. It was not executed." };
  }
  if (!call.sent) {
    return { outcome: "refused", status: 503, retryAfterSeconds: RETRY_AFTER_SECONDS,
      message: "The service cannot be reached. The request was not executed." };
  }
  const timeout = error instanceof Overdue;
  const what = timeout ? "The service did not answer in time."
    : "The connection to the service broke before its answer was complete.";
  return { outcome: "unknown", status: timeout ? 504 : 502, message: call.mutates ? `${what} ${LOOK_FIRST}` : what,
    stale: BREAKS.has(code) };
}
