/**
 * Time as a port. This file is the only home of Date, performance and timers, so that everything else runs
 * unmodified under the simulator's virtual clock.
 */

/** Cancels a timer; harmless after it fired. */
export type Cancel = () => void;

export interface Clock {
  /** Milliseconds since the Unix epoch. For people and TTLs only: ordering never depends on it. */
  nowMs(): number;
  /** Milliseconds, never going back; for measuring how long something took. */
  monotonicMs(): number;
  /** Calls `action` once after `delayMs`. The timer alone does not keep the process alive. */
  after(delayMs: number, action: () => void): Cancel;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs`, or at once when `signal` aborts. Never rejects: the caller looks at the signal. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return Promise.resolve();
  return new Promise((resolve) => {
    const finish = (): void => {
      cancel();
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const cancel = clock.after(delayMs, finish);
    signal?.addEventListener("abort", finish, { once: true });
  });
}

/** Resolves when the event loop has asked the system once for what came meanwhile, and handed all of it out. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Keeps the process alive until the returned function is called; the system clock's timers do not. */
export function holdProcess(): () => void {
  const timer = setInterval(() => undefined, 1 << 30);
  return () => clearInterval(timer);
}

/** A wire datetime ("YYYY-MM-DDTHH:MM:SS.ffffff", UTC) for a time in milliseconds since the epoch. */
export function wireDatetime(epochMs: number): string {
  return new Date(epochMs).toISOString().replace("Z", "000");
}
