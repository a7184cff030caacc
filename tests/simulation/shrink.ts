/**
 * Makes a failing plan smaller: leaves out one step after the other as long as something still goes wrong. What is left is what
 * it takes, or nearly: leaving out a step also moves chance, so another fault may take the first one's place.
 */
import { inWords, type Plan } from "./plan.ts";
import { runPlan } from "./run.ts";

/** The steps without which nothing goes wrong, one line each; the newest trace and what is wrong with them. */
export async function shrink(plan: Plan): Promise<readonly string[]> {
  let smallest = plan;
  let outcome = await runPlan(plan);
  for (let isSmaller = true; isSmaller; ) {
    isSmaller = false;
    for (const step of [...smallest.steps].reverse()) {
      const without = { ...smallest, steps: smallest.steps.filter((other) => other !== step) };
      const tried = await runPlan(without);
      if (tried.wrong.length === 0) continue;
      [smallest, outcome, isSmaller] = [without, tried, true];
    }
  }
  return [`${smallest.steps.length} of ${plan.steps.length} steps are left:`,
    ...smallest.steps.map((step) => `${(step.atMs / 1_000).toFixed(3).padStart(9)}s ${inWords(step)}`),
    ...outcome.wrong, ...outcome.lines];
}
