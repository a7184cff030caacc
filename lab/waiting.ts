/**
 * Waiting on conditions with a deadline, and timing of steps. Everything in the lab that waits waits here.
 */
import { holdProcess, sleep, systemClock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";

const POLL_FIRST_MS = 20;
const POLL_LAST_MS = 250;

export interface Wait {
  /** Completes the sentence "… did not happen within N s". */
  readonly what: string;
  readonly withinMs: number;
  /** Path of the log that explains a failure. */
  readonly log: string;
  /** A reason why waiting longer is useless, as a whole sentence; undefined while there is none. */
  readonly hopeless?: () => string | undefined;
}

/**
 * Resolves once `holds` gives true. A probe that throws counts as "not yet".
 * @throws E_LAB_STEP when it is hopeless, or after the time given, with the reason that the probe threw last.
 */
export async function until({ what, withinMs, log, hopeless }: Wait, holds: () => Promise<boolean>): Promise<void> {
  const release = holdProcess();
  try {
    const deadlineMs = systemClock.monotonicMs() + withinMs;
    for (let pollMs = POLL_FIRST_MS; ; pollMs = Math.min(pollMs * 1.3, POLL_LAST_MS)) {
      const reason = await holds().then((held) => (held ? undefined : ""), (error: unknown) => ` (${messageOf(error)})`);
      if (reason === undefined) return;
      const verdict = hopeless?.();
      if (verdict !== undefined) throw new OperatingError("E_LAB_STEP", verdict, { log });
      if (systemClock.monotonicMs() > deadlineMs) {
        throw new OperatingError("E_LAB_STEP", `${what} did not happen within ${withinMs / 1000} s${reason}`, { log });
      }
      await sleep(systemClock, pollMs);
    }
  } finally {
    release();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Tells the reader what each step did and how long it took. */
export interface Steps {
  /** Runs `work` as a step called `title`. A step that answers false had nothing to do, and is not shown. */
  run(title: string, work: () => Promise<boolean>): Promise<void>;
}

/** Steps that give one line each to `tell` when they are done. */
export function stepsTo(tell: (line: string) => void): Steps {
  return {
    async run(title, work) {
      const startMs = systemClock.monotonicMs();
      const seconds = (): string => `${((systemClock.monotonicMs() - startMs) / 1000).toFixed(1).padStart(6)} s`;
      try {
        if (await work()) tell(`${seconds()}  ${title}`);
      } catch (error) {
        tell(`${seconds()}  ${title}: FAILED`);
        throw error;
      }
    },
  };
}
