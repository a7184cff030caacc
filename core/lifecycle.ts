/**
 * The life of a process: parts start in order, say whether they are ready and why not, drain in reverse order on a signal.
 * A part that is not ready never stops the others; /readyz shows its reason.
 */
import type { Log } from "./log.ts";
import { factsOf } from "./log.ts";

/** Why a part is not ready; undefined when it is. */
export type NotReady = string | undefined;

export interface Part {
  readonly name: string;
  start(): Promise<void>;
  /** Finishes what was begun, takes nothing new, and releases everything. */
  stop(): Promise<void>;
  /** Undefined when ready, else a sentence for the operator. */
  notReady?(): NotReady;
}

export interface Lifecycle {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Part name to reason, for every part that is not ready. */
  notReady(): Readonly<Record<string, string>>;
}

/** A whole process, started. `stop` drains it and releases everything; calling it again waits for the same stop. */
export interface RunningProcess {
  stop(): Promise<void>;
}

/**
 * Starts `parts` in order and stops the started ones in reverse. A failing stop is logged; the others still stop. When one cannot
 * be started, those before it are stopped again and its error is thrown on.
 */
export function lifecycleOf(parts: readonly Part[], log: Log): Lifecycle {
  const started: Part[] = [];
  let stopping: Promise<void> | undefined;
  const stopAll = async (): Promise<void> => {
    for (const part of started.splice(0).reverse()) {
      await part.stop().catch((error: unknown) =>
        log.error("a part did not stop cleanly", { part: part.name, ...factsOf(error) }));
    }
  };
  return {
    async start() {
      try {
        for (const part of parts) {
          await part.start();
          started.push(part);
        }
      } catch (error) {
        await stopAll();
        throw error;
      }
    },
    stop: () => (stopping ??= stopAll()),
    notReady() {
      const reasons: Record<string, string> = {};
      for (const part of parts) {
        const reason = started.includes(part) ? part.notReady?.() : "not started";
        if (reason !== undefined) reasons[part.name] = reason;
      }
      return reasons;
    },
  };
}

/** Resolves with the name of the first SIGTERM or SIGINT. */
export function terminationSignal(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve(signal));
  });
}
