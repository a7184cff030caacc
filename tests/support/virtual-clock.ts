/**
 * Virtual time: the world's only clock in a simulation. Between two timers every promise that can settle does, so a run is
 * decided by its seed and the order of timers alone. Goal: hours of protocol in milliseconds, the same trace for the same seed.
 */
import type { Cancel, Clock } from "../../core/clock.ts";

interface Timer {
  readonly dueMs: number;
  readonly order: number;
  readonly action: () => void;
  cancelled: boolean;
}

/** Turns of the event loop after which everything that needs no timer has happened; a chain of awaits takes few. */
const DRAIN_TURNS = 2;
/** Virtual time begins here; it means nothing. */
const START_MS = 1_790_000_000_000;

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function isBefore(left: Timer, right: Timer): boolean {
  return left.dueMs < right.dueMs || (left.dueMs === right.dueMs && left.order < right.order);
}

/** Timers, the next one first: a binary heap. */
class Timers {
  readonly #heap: Timer[] = [];

  add(timer: Timer): void {
    let place = this.#heap.push(timer) - 1;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      const above = this.#heap[parent];
      if (above === undefined || !isBefore(timer, above)) break;
      this.#heap[place] = above;
      place = parent;
    }
    this.#heap[place] = timer;
  }

  /** The next timer that was not cancelled, if it is due by `limitMs`; it is taken out. */
  takeBy(limitMs: number): Timer | undefined {
    for (let first = this.#heap[0]; first !== undefined; first = this.#heap[0]) {
      if (!first.cancelled && first.dueMs > limitMs) return undefined;
      this.#removeFirst();
      if (!first.cancelled) return first;
    }
    return undefined;
  }

  #removeFirst(): void {
    const moved = this.#heap.pop();
    if (moved === undefined || this.#heap.length === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      let least = this.#heap[child];
      if (least === undefined) break;
      const other = this.#heap[child + 1];
      if (other !== undefined && isBefore(other, least)) {
        child += 1;
        least = other;
      }
      if (!isBefore(least, moved)) break;
      this.#heap[place] = least;
      place = child;
    }
    this.#heap[place] = moved;
  }
}

/** Starts at a fixed moment; moves only in runUntil and pass. */
export class VirtualClock implements Clock {
  readonly #timers = new Timers();
  readonly #drainTurns: number;
  #nowMs = 0;
  #order = 0;

  /** `drainTurns`: one is enough where nothing but promises is awaited. */
  constructor(drainTurns = DRAIN_TURNS) {
    this.#drainTurns = drainTurns;
  }

  nowMs(): number {
    return START_MS + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): Cancel {
    const timer: Timer = { dueMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, action, cancelled: false };
    this.#timers.add(timer);
    return () => {
      timer.cancelled = true;
    };
  }

  /**
   * Lets everything happen until `done` says so; false when `limitMs` of virtual time pass first or nothing is left to happen.
   */
  async runUntil(done: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = this.#nowMs + limitMs;
    for (;;) {
      for (let turns = 0; turns < this.#drainTurns; turns += 1) await turn();
      if (done()) return true;
      const next = this.#timers.takeBy(endMs);
      if (next === undefined) return false;
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.action();
    }
  }

  /** Lets `durationMs` of virtual time pass. */
  async pass(durationMs: number): Promise<void> {
    const untilMs = this.#nowMs + durationMs;
    await this.runUntil(() => false, durationMs);
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }
}
