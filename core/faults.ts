/**
 * Faults: what a person should know. One entry per (code, subject of the fault); raised again it only counts; cleared when
 * the cause is gone. Bounded: beyond FAULTS_MAX the newest are counted but not kept, and the count says so.
 * Not here: where faults are shown (admin/server.ts, the status report) and what to do about them (docs/reference/errors.md).
 */
import type { Clock } from "./clock.ts";
import type { ErrorCode, Facts } from "./errors.ts";

export const FAULTS_MAX = 1000;

export interface Fault {
  readonly code: ErrorCode;
  /** What the fault is about: an aggregate, a table, a server. */
  readonly about: string;
  readonly message: string;
  readonly sinceMs: number;
  readonly times: number;
  readonly facts: Facts;
}

/** The open faults of one process. */
export class Faults {
  readonly #clock: Clock;
  readonly #open = new Map<string, Fault>();
  #notKept = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  raise(code: ErrorCode, about: string, message: string, facts: Facts = {}): void {
    const name = `${code} ${about}`;
    const before = this.#open.get(name);
    if (before === undefined && this.#open.size >= FAULTS_MAX) {
      this.#notKept += 1;
      return;
    }
    this.#open.set(name, { code, about, message, facts, sinceMs: before?.sinceMs ?? this.#clock.nowMs(),
      times: (before?.times ?? 0) + 1 });
  }

  clear(code: ErrorCode, about: string): void {
    this.#open.delete(`${code} ${about}`);
  }

  list(): readonly Fault[] {
    return [...this.#open.values()];
  }

  /** How many could not be kept because FAULTS_MAX were open. */
  notKept(): number {
    return this.#notKept;
  }
}
