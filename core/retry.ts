/** Waiting before another try: exponential, bounded, with jitter, from a Clock and a Random only. */
import { sleep, type Clock } from "./clock.ts";
import type { Random } from "./random.ts";

export interface Backoff {
  readonly firstMs: number;
  readonly lastMs: number;
}

/** Delay before try `attempt` (1 = first repeat): between half and all of min(firstMs * 2^(attempt-1), lastMs). */
export function backoffMs(random: Random, backoff: Backoff, attempt: number): number {
  const ceiling = Math.min(backoff.firstMs * 2 ** Math.min(attempt - 1, 30), backoff.lastMs);
  return ceiling * (0.5 + random.next() / 2);
}

/** Waits for try `attempt`; returns early when `signal` aborts. */
export async function waitBeforeRetry(
  world: { readonly clock: Clock; readonly random: Random },
  backoff: Backoff,
  attempt: number,
  signal?: AbortSignal,
): Promise<void> {
  await sleep(world.clock, backoffMs(world.random, backoff, attempt), signal);
}
