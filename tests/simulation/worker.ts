/**
 * Runs seeds and plans in a process of its own, so that a machine's other cores help: told a job, it answers with what came of
 * it.
 */
import { present } from "../../core/assert.ts";
import type { PlannedCrash } from "./cloud.ts";
import { MUTANTS } from "./mutants.ts";
import type { Plan } from "./plan.ts";
import { runPlan, runSeed, type Outcome } from "./run.ts";
import { SOUND } from "./sabotage.ts";

/** One seed, of the product as it is or with a planted bug. */
export interface SeedJob {
  readonly seed: number;
  /** Name of a mutant. */
  readonly bug?: string;
}

/** One plan, in which a process dies at a certain call. */
export interface CrashJob {
  readonly plan: Plan;
  readonly crash: PlannedCrash;
}

export type Job = SeedJob | CrashJob;

export type Answer = Pick<Outcome, "wrong" | "lines" | "calmMs" | "events">;

function run(job: Job): Promise<Outcome> {
  if ("plan" in job) return runPlan(job.plan, SOUND, job.crash);
  const { seed, bug } = job;
  return runSeed(seed, bug === undefined ? SOUND : present(MUTANTS.find(({ name }) => name === bug), bug).sabotage);
}

process.on("message", (job: Job) => {
  void run(job).then(({ wrong, lines, calmMs, events }) =>
    process.send?.({ wrong, lines: wrong.length > 0 ? lines : [], calmMs, events } satisfies Answer));
});
