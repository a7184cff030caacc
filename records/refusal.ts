/**
 * What a caller is told when something is not done: one operating error and the status that HTTP has for it. Pure.
 */
import { isOperating, OperatingError, type ErrorCode, type Facts } from "../core/errors.ts";
import type { JsonValue } from "../core/operation.ts";
import { MISTAKES_MAX } from "./values.ts";

/** An operating error whose status is not the usual one of its code. */
export class Refusal extends OperatingError {
  readonly status: number;

  constructor(status: number, code: ErrorCode, message: string, facts: Facts = {}) {
    super(code, message, facts);
    this.status = status;
  }
}

/** Usual statuses. What is absent here is 500: a caller cannot do anything about it. */
const STATUSES: Partial<Record<ErrorCode, number>> = {
  E_OPERATION_INPUT: 400, E_REQUEST_MALFORMED: 400, E_REQUEST_TOO_LARGE: 413, E_ACCESS_DENIED: 403, E_RECORD_UNKNOWN: 404,
  E_RECORD_CONFLICT: 409, E_ROWS_UNIQUE: 409, E_ROWS_REFERENCE: 409, E_ROWS_REFUSED: 422, E_IMAGE_TOO_LARGE: 422,
  // The rows may be stored: 502 and 504 are the statuses that promise nothing.
  E_ROWS_COMMIT_UNKNOWN: 502, E_ROWS_UNAVAILABLE: 503, E_ROWS_CONTENDED: 503, E_FEED_UNAVAILABLE: 503, E_FEED_CONFLICT: 503,
  E_FEED_FORBIDDEN: 503, E_FEED_FULL: 503, E_FEED_MISCONFIGURED: 503, E_SCHEMA_UNKNOWN: 503, E_SCHEMA_MISMATCH: 503,
  E_SITE_CONTENDED: 503,
};

/** Status and body for an operating error; undefined for anything else, which is a bug and is not explained to callers. */
export function refusalOf(error: unknown): { readonly status: number; readonly body: JsonValue } | undefined {
  if (!isOperating(error)) return undefined;
  const status = error instanceof Refusal ? error.status : STATUSES[error.code] ?? 500;
  const facts = Object.entries(error.facts).flatMap(([name, fact]) => (fact === undefined ? [] : [[name, fact] as const]));
  const message = error.message.slice(error.code.length + 2);
  return { status, body: { error: { code: error.code, message,
    ...(facts.length === 0 ? {} : { facts: Object.fromEntries(facts) }) } } };
}

/** Everything that is wrong with what a caller wrote, in one error. */
export function mistaken(mistakes: readonly string[]): OperatingError {
  const more = mistakes.length > MISTAKES_MAX ? `; and ${mistakes.length - MISTAKES_MAX} more` : "";
  return new OperatingError("E_OPERATION_INPUT", mistakes.slice(0, MISTAKES_MAX).join("; ") + more,
    { mistakes: mistakes.length });
}

/** Returns when nothing is wrong. @throws E_OPERATION_INPUT */
export function refuseMistakes(mistakes: readonly string[]): void {
  if (mistakes.length > 0) throw mistaken(mistakes);
}

/** There is no such thing. `what`: a service, table, kind or record. */
export function unknown(what: string): OperatingError {
  return new OperatingError("E_RECORD_UNKNOWN", `there is no such ${what}`);
}
