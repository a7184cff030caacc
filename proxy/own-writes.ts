/**
 * Who has changed something through this proxy a moment ago: until the change has certainly come back by the stream, its caller
 * is answered by the centre, which has it. A caller is a token, or an address where there is none.
 *
 * Bounds: CALLERS_MAX callers; beyond them the oldest are forgotten and may see the site's state of a moment ago. Tokens are
 * kept as digests.
 */
import { createHash } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import type { Exchange } from "./exchange.ts";

export const CALLERS_MAX = 10_000;

/** See the file's head. */
export class OwnWrites {
  readonly #windowMs: number;
  readonly #clock: Clock;
  /** By caller, oldest first: when it wrote. */
  readonly #wrote = new Map<string, number>();
  #newestMs = -Infinity;

  constructor(windowMs: number, clock: Clock) {
    this.#windowMs = windowMs;
    this.#clock = clock;
  }

  note(exchange: Exchange): void {
    const caller = callerOf(exchange);
    this.#newestMs = this.#clock.monotonicMs();
    this.#wrote.delete(caller);
    this.#wrote.set(caller, this.#newestMs);
    const [oldest] = this.#wrote.keys();
    if (this.#wrote.size > CALLERS_MAX && oldest !== undefined) this.#wrote.delete(oldest);
  }

  by(exchange: Exchange): boolean {
    if (!this.any()) return false;
    const atMs = this.#wrote.get(callerOf(exchange));
    return atMs !== undefined && this.#isRecent(atMs);
  }

  /** Anybody at all: whoever signs in after a change of password has no token yet. */
  any(): boolean {
    return this.#isRecent(this.#newestMs);
  }

  #isRecent(atMs: number): boolean {
    return this.#clock.monotonicMs() - atMs < this.#windowMs;
  }
}

function callerOf({ head, request }: Exchange): string {
  const at = head.fields.findIndex((name, place) => place % 2 === 0 && name.toLowerCase() === "x-auth-token");
  const token = at === -1 ? undefined : head.fields[at + 1];
  return token === undefined ? `address ${request.socket.remoteAddress ?? ""}`
    : createHash("sha256").update(token).digest("base64url");
}
