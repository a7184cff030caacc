/**
 * Who may ask: bearer tokens from the configuration, compared by their hashes so that the time a comparison takes says nothing
 * about a token. Wrong tokens are counted by address; an address with too many is not listened to for a while, whatever it
 * brings.
 *
 * Bounds: FAILURES_MAX wrong tokens of one address within FAILURES_WITHIN_MS; ADDRESSES_MAX addresses remembered, the oldest
 * forgotten first.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import { Refusal } from "./refusal.ts";

export type Scope = "read" | "secrets" | "write";

/** Somebody who may use the API, as the configuration says. */
export interface TokenSection {
  readonly name: string;
  readonly token: Secret;
  readonly scopes: readonly Scope[];
  /** Only these services; empty: all. */
  readonly services: readonly string[];
}

/** Somebody whose token was right. */
export type Bearer = Omit<TokenSection, "token">;

export const TOKEN_CHARACTERS_MIN = 32;
export const FAILURES_MAX = 20;
export const FAILURES_WITHIN_MS = 60_000;
const ADDRESSES_MAX = 1_000;

interface Failures {
  readonly sinceMs: number;
  count: number;
}

function hashed(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** The tokens of one API. @throws E_CONFIG for tokens that are too short or not different */
export class Tokens {
  readonly #clock: Clock;
  readonly #known: readonly { readonly bearer: Bearer; readonly hash: Buffer }[];
  readonly #failures = new Map<string, Failures>();

  constructor(sections: readonly TokenSection[], clock: Clock) {
    this.#clock = clock;
    for (const { name, token } of sections) {
      if (token.reveal().length >= TOKEN_CHARACTERS_MIN) continue;
      throw new OperatingError("E_CONFIG",
        `records.tokens: the token of ${name} has fewer than ${TOKEN_CHARACTERS_MIN} characters`);
    }
    this.#known = sections.map(({ name, token, scopes, services }) =>
      ({ bearer: { name, scopes, services }, hash: hashed(token.reveal()) }));
    const different = new Set(this.#known.map(({ hash }) => hash.toString("base64url")));
    if (different.size < sections.length) throw new OperatingError("E_CONFIG", "records.tokens: two tokens are the same");
  }

  /** Whose token an Authorization header carries. @throws E_ACCESS_DENIED (401, 429) */
  admit(header: string | undefined, address: string): Bearer {
    const failures = this.#failuresOf(address);
    if (failures !== undefined && failures.count >= FAILURES_MAX) {
      throw new Refusal(429, "E_ACCESS_DENIED", "too many wrong tokens came from this address; try again later",
        { retryAfterSeconds: Math.ceil((failures.sinceMs + FAILURES_WITHIN_MS - this.#clock.monotonicMs()) / 1000) });
    }
    const token = /^Bearer +([!-~]+)$/i.exec(header ?? "")?.[1];
    if (token === undefined) throw new Refusal(401, "E_ACCESS_DENIED", "a bearer token is needed");
    const hash = hashed(token);
    // Every token is compared, also after one was found.
    const found = this.#known.filter((each) => timingSafeEqual(each.hash, hash));
    if (found[0] !== undefined) return found[0].bearer;
    this.#count(address);
    throw new Refusal(401, "E_ACCESS_DENIED", "this token is not known");
  }

  #failuresOf(address: string): Failures | undefined {
    const failures = this.#failures.get(address);
    if (failures === undefined || this.#clock.monotonicMs() - failures.sinceMs < FAILURES_WITHIN_MS) return failures;
    this.#failures.delete(address);
    return undefined;
  }

  #count(address: string): void {
    const failures = this.#failures.get(address);
    if (failures !== undefined) {
      failures.count += 1;
      return;
    }
    this.#failures.set(address, { sinceMs: this.#clock.monotonicMs(), count: 1 });
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > ADDRESSES_MAX && oldest !== undefined) this.#failures.delete(oldest);
  }
}

/** The bearer may do this with that service, or an error says what is missing. @throws E_ACCESS_DENIED (403) */
export function mustMay(bearer: Bearer, scope: Scope, service: string | undefined): void {
  const isServed = service === undefined || bearer.services.length === 0 || bearer.services.includes(service);
  if (isServed && bearer.scopes.includes(scope)) return;
  throw new OperatingError("E_ACCESS_DENIED", isServed ? `the token lacks the scope ${scope}`
    : "the token is for other services");
}
