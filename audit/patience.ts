/** Waiting that ends when a room stops: for work that never resolves once stopped, and for surroundings that come back. */
import { isOperating } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import type { World } from "../core/world.ts";

/** What `work` gives, or undefined when `signal` aborts first. Scans of a stopped capture room never resolve. */
export async function untilStopped<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  let stop: () => void = () => undefined;
  const stopped = new Promise<undefined>((resolve) => {
    stop = () => resolve(undefined);
    signal.addEventListener("abort", stop, { once: true });
  });
  return Promise.race([work, stopped]).finally(() => signal.removeEventListener("abort", stop));
}

/** Does `work` until it succeeds or `signal` aborts; a bug is thrown on. */
export async function patiently(work: () => Promise<void>, world: World, backoff: Backoff, signal: AbortSignal): Promise<void> {
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      return await work();
    } catch (error) {
      if (!isOperating(error)) throw error;
      world.log.warn("the auditor waits for its surroundings", factsOf(error));
      await waitBeforeRetry(world, backoff, failures, signal);
    }
  }
}
