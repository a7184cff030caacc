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

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Starts at a fixed moment; moves only in runUntil and pass. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #timers: Timer[] = [];

  nowMs(): number {
    return 1_790_000_000_000 + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): Cancel {
    const timer: Timer = { dueMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, action, cancelled: false };
    this.#timers.push(timer);
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
      for (let turns = 0; turns < DRAIN_TURNS; turns += 1) await turn();
      if (done()) return true;
      this.#timers = this.#timers.filter((timer) => !timer.cancelled);
      const next = this.#timers.reduce<Timer | undefined>((first, timer) =>
        first === undefined || timer.dueMs < first.dueMs || (timer.dueMs === first.dueMs && timer.order < first.order) ? timer
          : first, undefined);
      if (next === undefined || next.dueMs > endMs) return false;
      this.#timers = this.#timers.filter((timer) => timer !== next);
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
