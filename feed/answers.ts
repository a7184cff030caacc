/**
 * What a NATS server's answers mean in the words of the feed port. Pure: no connection is touched here.
 *
 * Invariants: every error that the client library or the server can give becomes exactly one OperatingError; an answer
 * that this file does not know is E_FEED_UNAVAILABLE, because the caller then tries again later and nothing is lost.
 * Outside facts: error numbers are nats-server's (2.9 to 2.14, server/errors.json); status codes of pull requests and of
 * Direct Get are those of its consumer and stream code, observed on 2.9.10.
 */
import { JetStreamApiError } from "@nats-io/jetstream";
import { PermissionViolationError, TimeoutError, type MsgHdrs } from "@nats-io/transport-node";
import { OperatingError, type Facts } from "../core/errors.ts";

/** "wrong last sequence: N": the expectation failed and the server says what is true. */
const WRONG_LAST_SEQUENCE = 10071;
/** The expectation failed while another write of the subject was in flight; the server (2.11 and later) names no sequence. */
const WRONG_LAST_SEQUENCE_UNNAMED = 10164;
/** The store refused the message; the text says whether a limit or something else was the reason. */
const STORE_FAILED = 10077;
const MESSAGE_TOO_LARGE = 10054;
const FILTER_NOT_THE_SUBJECTS = 10131;
/** Account, memory and storage limits of the server. */
const LIMITS_REACHED: readonly number[] = [10002, 10023, 10028, 10047];

const NOT_FOUND_STATUS = 404;
const OWN_TO_SERVER = "Nats-";

/** The error of a server that cannot be reached, or whose answer is in doubt. */
export function unavailable(reason: string, facts: Facts = {}, cause?: unknown): OperatingError {
  return new OperatingError("E_FEED_UNAVAILABLE", reason, facts, cause);
}

function forbidden(subject: string, cause: unknown): OperatingError {
  return new OperatingError("E_FEED_FORBIDDEN", `the server does not allow this user to use ${subject}`, { subject }, cause);
}

function permissionViolation(error: unknown): PermissionViolationError | undefined {
  if (error instanceof PermissionViolationError) return error;
  return error instanceof Error && error.cause instanceof PermissionViolationError ? error.cause : undefined;
}

function ofServer(error: JetStreamApiError, facts: Facts): OperatingError {
  const known: Facts = { ...facts, serverCode: error.code };
  if (error.code === MESSAGE_TOO_LARGE) return new OperatingError("E_IMAGE_TOO_LARGE", error.message, known, error);
  if (error.code === FILTER_NOT_THE_SUBJECTS) return new OperatingError("E_FEED_FORBIDDEN", error.message, known, error);
  if (LIMITS_REACHED.includes(error.code)) return new OperatingError("E_FEED_FULL", error.message, known, error);
  if (error.code === STORE_FAILED && /exceeded|no space/.test(error.message)) {
    return new OperatingError("E_FEED_FULL", error.message, known, error);
  }
  return unavailable(error.message, known, error);
}

/** The operating error behind whatever a call to the client library threw. `step` says what was tried, for people. */
export function meaningOf(error: unknown, step: string, facts: Facts = {}): OperatingError {
  if (error instanceof OperatingError) return error;
  const violation = permissionViolation(error);
  if (violation !== undefined) return forbidden(violation.subject, error);
  if (error instanceof JetStreamApiError) return ofServer(error, facts);
  if (error instanceof TimeoutError) return unavailable(`${step}: no answer in time`, facts, error);
  return unavailable(`${step}: ${error instanceof Error ? error.message : String(error)}`, facts, error);
}

/** What the client library threw, behind an operating error. */
export function causeOf(error: unknown): unknown {
  return error instanceof OperatingError ? error.cause : error;
}

/** The subject that the server refused, when `error` is such a refusal. */
export function refusedSubject(error: unknown): string | undefined {
  return permissionViolation(error)?.subject;
}

/**
 * When `error` says that an expectation failed: the subject's real last sequence, or undefined where the server names none.
 * Any other error gives "other".
 */
export function conflictOf(error: unknown): { readonly last: number | undefined } | "other" {
  if (!(error instanceof JetStreamApiError)) return "other";
  if (error.code === WRONG_LAST_SEQUENCE_UNNAMED) return { last: undefined };
  if (error.code !== WRONG_LAST_SEQUENCE) return "other";
  const named = /(\d+)\s*$/.exec(error.message)?.[1];
  return { last: named === undefined ? undefined : Number(named) };
}

/** True when creating or enlarging a stream was refused because the server has less storage than asked for. */
export function lacksStorage(error: unknown): boolean {
  return error instanceof JetStreamApiError && LIMITS_REACHED.includes(error.code);
}

/** True when a Direct Get was answered with "there is no such message". */
export function saysNotFound(headers: MsgHdrs | undefined): boolean {
  return headers?.code === NOT_FOUND_STATUS;
}

/** The publisher's own headers: without those the server reads or adds. The first value counts where there are several. */
export function ownHeaders(headers: MsgHdrs | undefined): Record<string, string> {
  const own: Record<string, string> = {};
  if (headers === undefined) return own;
  for (const [name, values] of headers) {
    if (!name.startsWith(OWN_TO_SERVER)) own[name] = values[0] ?? "";
  }
  return own;
}

/** Where a delivered message stands: in the stream and in the order of this consumer. */
export interface Place {
  readonly sequence: number;
  readonly delivery: number;
}

/**
 * Reads a message's place from its reply subject: $JS.ACK.<stream>.<consumer>.<tries>.<sequence>.<delivery>.<time>.<pending>,
 * or the longer form with domain and account in front of the stream. Undefined for anything else.
 */
export function placeOf(reply: string): Place | undefined {
  const tokens = reply.split(".");
  if (tokens[0] !== "$JS" || tokens[1] !== "ACK") return undefined;
  const first = tokens.length === 9 ? 5 : 7;
  const sequence = Number(tokens[first]);
  const delivery = Number(tokens[first + 1]);
  return Number.isSafeInteger(sequence) && Number.isSafeInteger(delivery) ? { sequence, delivery } : undefined;
}

/**
 * What a status frame says about a pull request: the server is alive ("alive"), the request is over and another may follow
 * ("over"), or reading cannot go on with this consumer ("broken").
 */
export function frameOf(code: number, description: string): "alive" | "over" | "broken" {
  if (code === 100) return "alive";
  if (code === 404 || code === 408) return "over";
  if (code === 409 && /^(Message Size Exceeds MaxBytes|Batch Completed)/i.test(description)) return "over";
  return "broken";
}
