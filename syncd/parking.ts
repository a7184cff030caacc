/**
 * Changes that wait at this site, in memory beside their rows in the ledger: which aggregates wait, for which marks, since
 * when. Payloads stay in the database. The ledger is the truth; this index is rebuilt from it at start.
 */
import type { ErrorCode } from "../core/errors.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";

interface Parked {
  readonly key: AggregateKey;
  readonly waits: readonly string[];
  readonly code: ErrorCode;
  /** Monotonic time it was first parked in this process. */
  readonly sinceMs: number;
  /** Monotonic time of the next try without a mark. */
  dueMs: number;
}

/** Bounded by its user (parkedMax). */
export class Parking {
  readonly #parked = new Map<string, Parked>();
  readonly #byMark = new Map<string, Set<string>>();

  get size(): number {
    return this.#parked.size;
  }

  names(): Iterable<string> {
    return this.#parked.keys();
  }

  has(name: string): boolean {
    return this.#parked.has(name);
  }

  /** When `name` began to wait; undefined when it does not. */
  sinceMs(name: string): number | undefined {
    return this.#parked.get(name)?.sinceMs;
  }

  /** Why `name` waits; undefined when it does not. */
  codeOf(name: string): ErrorCode | undefined {
    return this.#parked.get(name)?.code;
  }

  add(key: AggregateKey, code: ErrorCode, waits: readonly string[], nowMs: number, retryMs: number): void {
    const name = keyText(key);
    const sinceMs = this.#parked.get(name)?.sinceMs ?? nowMs;
    this.remove(name);
    this.#parked.set(name, { key, code, waits, sinceMs, dueMs: nowMs + retryMs });
    for (const mark of waits) {
      const waiting = this.#byMark.get(mark) ?? new Set<string>();
      waiting.add(name);
      this.#byMark.set(mark, waiting);
    }
  }

  remove(name: string): void {
    const parked = this.#parked.get(name);
    if (parked === undefined) return;
    this.#parked.delete(name);
    for (const mark of parked.waits) {
      const waiting = this.#byMark.get(mark);
      waiting?.delete(name);
      if (waiting?.size === 0) this.#byMark.delete(mark);
    }
  }

  /** Aggregates that wait for one of `marks`, at most `keysMax`. */
  wokenBy(marks: Iterable<string>, keysMax: number): readonly AggregateKey[] {
    const woken = new Map<string, AggregateKey>();
    for (const mark of marks) {
      for (const name of this.#byMark.get(mark) ?? []) {
        const parked = this.#parked.get(name);
        if (parked !== undefined && woken.size < keysMax) woken.set(name, parked.key);
      }
    }
    return [...woken.values()];
  }

  /** Aggregates whose next try is due, at most `keysMax`; each is due again after `retryMs`. */
  takeDue(nowMs: number, retryMs: number, keysMax: number): readonly AggregateKey[] {
    const due: AggregateKey[] = [];
    for (const parked of this.#parked.values()) {
      if (due.length === keysMax) break;
      if (parked.dueMs > nowMs) continue;
      parked.dueMs = nowMs + retryMs;
      due.push(parked.key);
    }
    return due;
  }
}
