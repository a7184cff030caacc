/**
 * One at a time, by name: the readings of one consumer name queue up here, so that the second finds the consumer of the first
 * deleted instead of taking it away. Bound: TURNS_WAITING_MAX per name; beyond it is a bug of the caller.
 */
import { assert } from "../core/assert.ts";

const TURNS_WAITING_MAX = 16;

/** A queue for each name. */
export class Turns {
  readonly #waiting = new Map<string, (() => void)[]>();

  /** Resolves with the function that gives the turn on; at once when `signal` aborts, then without having had the turn. */
  take(name: string, signal: AbortSignal): Promise<() => void> {
    const queue = this.#waiting.get(name);
    if (queue === undefined) {
      this.#waiting.set(name, []);
      return Promise.resolve(() => this.#next(name));
    }
    assert(queue.length < TURNS_WAITING_MAX, `at most ${TURNS_WAITING_MAX} readings wait for ${name}`);
    return new Promise((resolve) => {
      const giveUp = (): void => {
        queue.splice(queue.indexOf(enter), 1);
        resolve(() => undefined);
      };
      const enter = (): void => {
        signal.removeEventListener("abort", giveUp);
        resolve(() => this.#next(name));
      };
      if (signal.aborted) return resolve(() => undefined);
      queue.push(enter);
      signal.addEventListener("abort", giveUp, { once: true });
    });
  }

  #next(name: string): void {
    const enter = this.#waiting.get(name)?.shift();
    if (enter === undefined) this.#waiting.delete(name);
    else enter();
  }
}
