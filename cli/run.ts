/**
 * From a loaded configuration to a running process and back: composes the real world, starts, waits for a signal, stops.
 *
 * Invariants: the first SIGTERM or SIGINT drains, the second ends at once; a stop that hangs is ended after its bound; a bug
 * (failed assertion, unhandled rejection) is logged and ends the process with EXIT_BUG, so that a supervisor restarts it.
 * Not here: what a process is made of (proxy/main.ts, syncd/main.ts), the command line (holdfast.ts).
 */
import { AssertionError } from "../core/assert.ts";
import { holdProcess, sleep, systemClock } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import { terminationSignal, type RunningProcess } from "../core/lifecycle.ts";
import { factsOf, processLog, type Log, type LogLevel } from "../core/log.ts";
import { processMetrics } from "../core/metrics.ts";
import { systemRandom } from "../core/random.ts";
import type { World } from "../core/world.ts";

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
/** The configuration or the command line has mistakes. */
export const EXIT_CONFIG = 2;
export const EXIT_UNREACHABLE = 3;
/** A bug in Holdfast (EX_SOFTWARE in sysexits.h). */
export const EXIT_BUG = 70;

/** How long a stop may take beyond the time that the process itself allows for draining. */
const STOP_MARGIN_MS = 10_000;

/** The real world of a process: the system's time and chance, a log on standard output, metrics. */
export function realWorld(level: LogLevel, facts: Readonly<Record<string, string>>): World {
  return { clock: systemClock, random: systemRandom, log: processLog(level, facts), metrics: processMetrics() };
}

/** Ends the process with EXIT_BUG, after a log line, when an error reaches nobody. Call once, before anything starts. */
export function endOnBugs(log: Log): void {
  const end = (error: unknown): void => {
    log.error("a bug ends this process; the supervisor should restart it", factsOf(error));
    process.exit(EXIT_BUG);
  };
  process.on("uncaughtException", end);
  process.on("unhandledRejection", end);
}

/**
 * Starts a process, waits for a signal and stops it.
 * @param drainTimeoutMs  time the process allows itself for draining; the stop is given up STOP_MARGIN_MS later.
 * @returns the exit status.
 */
export async function runUntilSignal(
  world: World, drainTimeoutMs: number, start: () => Promise<RunningProcess>,
): Promise<number> {
  const { log } = world;
  const letGo = holdProcess();
  const signalled = terminationSignal();
  try {
    const running = await Promise.race([start(), signalled]);
    if (typeof running === "string") {
      log.info("stopped while starting", { signal: running });
      return EXIT_OK;
    }
    log.info("started");
    const signal = await signalled;
    // Before anybody can see that we are stopping: without it a second signal would end us without a word.
    endOnSecondSignal(log);
    log.info("stopping", { signal });
    return await stopWithin(world, running, drainTimeoutMs + STOP_MARGIN_MS);
  } catch (error) {
    if (error instanceof AssertionError || !isStartFailure(error)) throw error;
    log.error("could not start", factsOf(error));
    return EXIT_FAILED;
  } finally {
    letGo();
  }
}

/** Operating errors and those of the system (EADDRINUSE, EACCES) are the operator's move; anything else is a bug. */
function isStartFailure(error: unknown): boolean {
  return isOperating(error) || (error instanceof Error && "syscall" in error);
}

function endOnSecondSignal(log: Log): void {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      log.warn("second signal: ending without draining", { signal });
      process.exit(EXIT_FAILED);
    });
  }
}

async function stopWithin(world: World, running: RunningProcess, limitMs: number): Promise<number> {
  const giveUp = new AbortController();
  const stopped = await Promise.race([
    running.stop().then(() => true),
    sleep(world.clock, limitMs, giveUp.signal).then(() => false),
  ]);
  giveUp.abort();
  if (stopped) world.log.info("stopped");
  else world.log.error("the stop was given up", { limitMs });
  return stopped ? EXIT_OK : EXIT_FAILED;
}
