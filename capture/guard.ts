/**
 * The blast-radius guard: the one judgement whether a difference is too large to be believed without a person. Asked with
 * whole sets, before anything is done about any part of them: by class scans and the auditor at the centre, by sweeps, manifest
 * repairs and the row audit at a site. Calls of clients are not summed up over each other: each is somebody's authenticated wish
 * and is judged alone; differences nobody asked for are summed up over a window.
 *
 * Invariants: a set is admitted or held whole; what is held counts nothing; an emptied kind never passes, however small.
 * Not here: remembering what is held and a person's answer (held.ts), acting on it.
 */
import type { Clock } from "../core/clock.ts";

export interface GuardOptions {
  /** Share of a kind's live aggregates, in percent, above which a set is held ... */
  readonly sharePercentMax: number;
  /** ... if it also has more aggregates than this. */
  readonly aggregatesMax: number;
  /** Time over which differences that nobody asked for are summed up. */
  readonly windowMs: number;
}

export const GUARD_DEFAULTS: GuardOptions = { sharePercentMax: 10, aggregatesMax: 50, windowMs: 60_000 };

/** A set of differences of one kind. Making what is missing is never dangerous and is not counted. */
export interface Blast {
  readonly kind: string;
  readonly deletes: number;
  readonly rewrites: number;
  /** Aggregates of the kind that are live on the side that would change. */
  readonly live: number;
  /** "call": one client's call; anything else is summed up with what came before it in the window. */
  readonly cause: "call" | "scan" | "triggers" | "sweep" | "manifest" | "drift";
  /** The other side has no aggregate at all of a kind that a running service always has (Kind.neverEmpty), or of another such
   * kind of the same service: its word about deletions is not taken. */
  readonly sourceEmptied: boolean;
}

export type Verdict = { readonly pass: true } | { readonly pass: false; readonly code: "E_BLAST_HELD" | "E_CENTRE_EMPTIED";
  readonly because: string };

interface Admitted {
  readonly kind: string;
  readonly atMs: number;
  readonly aggregates: number;
}

/** The guard of one service in one process. */
export class BlastGuard {
  readonly #clock: Clock;
  readonly #options: GuardOptions;
  #admitted: Admitted[] = [];

  constructor(clock: Clock, options: GuardOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  /** Judges one set; what passes counts from now on. */
  judge(blast: Blast): Verdict {
    const { kind, deletes, rewrites, live, cause } = blast;
    if (blast.sourceEmptied && deletes > 0 && cause !== "call") {
      return { pass: false, code: "E_CENTRE_EMPTIED",
        because: `${deletes} of ${live} ${kind} aggregates would be deleted because a table is empty that never is` };
    }
    const nowMs = this.#clock.monotonicMs();
    this.#admitted = this.#admitted.filter(({ atMs }) => nowMs - atMs < this.#options.windowMs);
    const before = cause === "call" ? 0
      : this.#admitted.reduce((sum, each) => (each.kind === kind ? sum + each.aggregates : sum), 0);
    const touched = deletes + rewrites;
    const total = before + touched;
    if (touched > 0 && total > this.#options.aggregatesMax && total * 100 > live * this.#options.sharePercentMax) {
      const after = before > 0 ? ` after ${before} others` : "";
      return { pass: false, code: "E_BLAST_HELD",
        because: `${deletes} deletions and ${rewrites} rewrites${after} of ${live} ${kind} aggregates` };
    }
    if (touched > 0 && cause !== "call") this.#admitted.push({ kind, atMs: nowMs, aggregates: touched });
    return { pass: true };
  }
}
