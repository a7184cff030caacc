/**
 * Operations: what a person, or another process, may ask a running process to do, by name. One registry serves three doors:
 * the admin server (admin/operations.ts), the command line behind it (cli/), and questions over the stream server
 * (feed/asking.ts).
 *
 * Invariants: input is checked by the operation itself (E_OPERATION_INPUT); an answer never carries a secret column unmasked;
 * every operation may be asked twice.
 * Not here: what the operations do (audit/operations.ts, syncd/operations.ts).
 */

export interface Progress {
  /** What is being done now, for a person. */
  readonly step: string;
  readonly done: number;
  /** Undefined when nobody knows. */
  readonly total: number | undefined;
}

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [name: string]: JsonValue };

export type Input = Readonly<Record<string, JsonValue>>;

/** Does one thing. @throws OperatingError, which the asker gets with its code */
export type Operation = (input: Input, progress: (progress: Progress) => void, signal: AbortSignal) => Promise<JsonValue>;

export type Operations = ReadonlyMap<string, Operation>;
