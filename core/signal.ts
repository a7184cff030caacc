/**
 * Waiting for each other inside one process: a gate that opens, and a bell that wakes one loop. Neither holds work, so
 * neither needs a bound.
 */
import { setMaxListeners } from "node:events";

/** The stop signal of a process or a room: any number of waits may listen to it. */
export function stopSignal(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** A loop sleeps on `wait` until somebody rings; rings while it is awake are remembered as one. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  /** Resolves at the next ring (at once if one is remembered), or when `signal` aborts. */
  async wait(signal?: AbortSignal): Promise<void> {
    if (!this.#rung && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#wake = undefined;
          signal?.removeEventListener("abort", wake);
          resolve();
        };
        this.#wake = wake;
        signal?.addEventListener("abort", wake, { once: true });
      });
    }
    this.#rung = false;
  }
}

/** Resolves every waiter once `open` was called. */
export class Gate {
  #isOpen = false;
  readonly #waiters = new Set<() => void>();

  get isOpen(): boolean {
    return this.#isOpen;
  }

  open(): void {
    this.#isOpen = true;
    for (const waiter of this.#waiters) waiter();
    this.#waiters.clear();
  }

  close(): void {
    this.#isOpen = false;
  }

  /** Resolves when open, or when `signal` aborts. */
  passed(signal: AbortSignal): Promise<void> {
    if (this.#isOpen || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const finish = (): void => {
        this.#waiters.delete(finish);
        signal.removeEventListener("abort", finish);
        resolve();
      };
      this.#waiters.add(finish);
      signal.addEventListener("abort", finish, { once: true });
    });
  }
}
