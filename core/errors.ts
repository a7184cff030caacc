/**
 * Every operating error, once: its code, what it means, whose move it is and when trying again makes sense.
 * Callers match on the code, never on the text. docs/reference/errors.md lists the same codes; a test compares the two.
 * Not here: bugs (core/assert.ts) and expected outcomes, which are return values.
 */

type Retry = "never" | "now" | "later";
type Move = "caller" | "operator" | "nobody";

interface ErrorMeaning {
  readonly meaning: string;
  /** When the failed step may be tried again. */
  readonly retry: Retry;
  /** Who has to act before it can succeed. */
  readonly move: Move;
}

/** The catalogue. A code is never reused for another meaning. */
export const ERROR_CATALOGUE = {
  E_CONFIG: { meaning: "The configuration has mistakes; every one is listed.", retry: "never", move: "operator" },
  E_ROWS_UNAVAILABLE: { meaning: "The database cannot be reached or refused the session.", retry: "later", move: "nobody" },
  E_ROWS_CONTENDED: { meaning: "The database ended a transaction to resolve a deadlock or a serialisation conflict.",
    retry: "now", move: "nobody" },
  E_ROWS_COMMIT_UNKNOWN: { meaning: "The connection broke during commit; the transaction may or may not be stored.",
    retry: "now", move: "nobody" },
  E_ROWS_UNIQUE: { meaning: "A row breaks a unique key of the database.", retry: "later", move: "nobody" },
  E_ROWS_REFERENCE: { meaning: "A row breaks a foreign key of the database.", retry: "later", move: "nobody" },
  E_ROWS_REFUSED: { meaning: "The database refuses a value: too long, wrong type, not representable, or not null.",
    retry: "never", move: "operator" },
  E_SCHEMA_UNKNOWN: { meaning: "The database carries a schema revision that the service file was not verified against.",
    retry: "later", move: "operator" },
  E_SCHEMA_MISMATCH: { meaning: "A table of the live database differs from its declaration in the service file.",
    retry: "later", move: "operator" },
  E_IMAGE_TOO_LARGE: { meaning: "The image of one aggregate is larger than the feed carries.", retry: "later", move: "operator" },
  E_CHANGE_UNREADABLE: { meaning: "A message on the feed is not a change that this version can read.",
    retry: "later", move: "operator" },
  E_FEED_UNAVAILABLE: { meaning: "The stream server cannot be reached or does not answer.", retry: "later", move: "nobody" },
  E_FEED_CONFLICT: { meaning: "Another publisher stored a newer image of the aggregate first.", retry: "now", move: "nobody" },
  E_FEED_FULL: { meaning: "The stream has reached its size limit and refuses new aggregates.", retry: "later", move: "operator" },
  E_FEED_MISCONFIGURED: { meaning: "The stream exists with settings that are not safe for state.", retry: "later",
    move: "operator" },
  E_FEED_FORBIDDEN: { meaning: "The stream server refuses this user the operation.", retry: "later", move: "operator" },
  E_INTENT_UNAVAILABLE: { meaning: "The intent journal cannot be written (disk full, read-only, gone).",
    retry: "later", move: "operator" },
  E_INTENT_DAMAGED: { meaning: "A record in the intent journal is damaged; its classes are scanned.", retry: "never",
    move: "nobody" },
  E_UPSTREAM_REFUSED: { meaning: "The upstream refused the connection; the call was certainly not executed.",
    retry: "later", move: "nobody" },
  E_UPSTREAM_LOST: { meaning: "The connection to the upstream broke; a mutating call may have been executed.",
    retry: "never", move: "caller" },
  E_UPSTREAM_TIMEOUT: { meaning: "The upstream did not answer in time; a mutating call may have been executed.",
    retry: "never", move: "caller" },
  E_REQUEST_MALFORMED: { meaning: "The request is not valid HTTP or is framed ambiguously.", retry: "never", move: "caller" },
  E_REQUEST_TOO_LARGE: { meaning: "The request head or a body that must be buffered exceeds its bound.", retry: "never",
    move: "caller" },
  E_PARENT_MISSING: { meaning: "A change waits for a row it refers to.", retry: "later", move: "nobody" },
  E_UNIQUE_BLOCKED: { meaning: "Another live aggregate holds a unique value that this change needs.", retry: "later",
    move: "operator" },
  E_CACHE_UNREACHABLE: { meaning: "A memcached of the site cannot be reached, so old answers may be served until entries expire.",
    retry: "later", move: "operator" },
  E_SITE_CONTENDED: { meaning: "The site's stored position is not the one this daemon left.", retry: "later", move: "operator" },
  E_BLAST_HELD: { meaning: "A difference would delete or rewrite many aggregates at once; it waits for a person.", retry: "later",
    move: "operator" },
  E_CENTRE_EMPTIED: { meaning: "A table that a running service always has rows in is empty; nothing is deleted because of it.",
    retry: "later", move: "operator" },
  E_CENTRE_RESTORED: { meaning: "The central database is older than what it said before: it was restored, or lost commits.",
    retry: "never", move: "operator" },
  E_STREAM_REGRESSED: { meaning: "The stream lost messages or was made anew; everything is compared and said again.",
    retry: "later", move: "nobody" },
  E_STREAM_NEARLY_FULL: { meaning: "The stream has nearly reached its size limit.", retry: "later", move: "operator" },
  E_HEARTBEAT_MISSING: { meaning: "The auditor at the centre has not been heard for several of its periods.", retry: "later",
    move: "operator" },
  E_SITE_DIFFERS: { meaning: "The site's images differ from the centre's manifest although it has read everything.",
    retry: "later", move: "nobody" },
  E_SITE_DRIFT: { meaning: "Rows at the site were changed by somebody else and were put right.", retry: "later",
    move: "operator" },
  E_ASK_UNANSWERED: { meaning: "Nobody answered a question over the stream server in time.", retry: "later", move: "nobody" },
  E_OPERATION_INPUT: { meaning: "An operation was asked for with input that it cannot take.", retry: "never", move: "caller" },
  E_RECORD_UNKNOWN: { meaning: "There is no such service, table, kind or record.", retry: "never", move: "caller" },
  E_RECORD_CONFLICT: { meaning: "The record has another version than the caller named.", retry: "never", move: "caller" },
  E_ACCESS_DENIED: { meaning: "The token is missing, wrong, or not allowed to do this.", retry: "never", move: "caller" },
  E_TRIGGERS_MISSING: { meaning: "Triggers are asked for and not, or not all, installed as the service file says.",
    retry: "later", move: "operator" },
  E_KEYS_UNUSABLE: { meaning: "A key repository cannot be read or written, or what is in it is not a set of keys.",
    retry: "later", move: "operator" },
  E_KEYS_MISSING: { meaning: "The centre has no keys for this site: it does not know the site's public key, or is not there.",
    retry: "later", move: "operator" },
  E_KEYS_UNSEALED: { meaning: "What should be keys for this site was not sealed for it by the centre.", retry: "later",
    move: "operator" },
  E_KEYS_OLDER: { meaning: "The centre's keys are older than the ones that the site has.", retry: "later", move: "operator" },
  E_KEYS_NOT_EVERYWHERE: { meaning: "A site does not have the keys that it needs before, or after, a rotation.", retry: "later",
    move: "nobody" },
  E_KEYS_SITE_AWAY: { meaning: "A site has been away for too long to wait for it with a rotation, and lacks keys.",
    retry: "later", move: "operator" },
  E_SETTINGS_UNREADABLE: { meaning: "The service's own configuration file cannot be read.", retry: "later", move: "operator" },
  E_SETTINGS_DIFFER: { meaning: "A setting of the service that must be alike differs between this site and the centre.",
    retry: "later", move: "operator" },
  E_LAB_MACHINE: { meaning: "This machine lacks what the lab needs.", retry: "never", move: "operator" },
  E_LAB_STEP: { meaning: "A step of the lab failed; the log named beside it says why.", retry: "never", move: "operator" },
} as const satisfies Record<string, ErrorMeaning>;

export type ErrorCode = keyof typeof ERROR_CATALOGUE;

/** True for text that is one of the codes. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERROR_CATALOGUE, text);
}

/** Values that may appear beside an error in a log line or a fault; never secrets (core/secret.ts). */
export type Facts = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Something outside this program went wrong. `facts` are for machines, `message` for people. */
export class OperatingError extends Error {
  override readonly name = "OperatingError";
  readonly code: ErrorCode;
  readonly facts: Facts;

  constructor(code: ErrorCode, message: string, facts: Facts = {}, cause?: unknown) {
    super(`${code}: ${message}`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.facts = facts;
  }

  get retry(): Retry {
    return ERROR_CATALOGUE[this.code].retry;
  }

  get move(): Move {
    return ERROR_CATALOGUE[this.code].move;
  }
}

/** True when `error` is an operating error with one of `codes` (any code when none is given). */
export function isOperating(error: unknown, ...codes: readonly ErrorCode[]): error is OperatingError {
  return error instanceof OperatingError && (codes.length === 0 || codes.includes(error.code));
}
