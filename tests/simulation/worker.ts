/**
 * Runs seeds in a process of its own, so that a machine's other cores help: told a job, it answers with what came of it.
 */
import { present } from "../../core/assert.ts";
import { MUTANTS } from "./mutants.ts";
import { runSeed, type Outcome } from "./run.ts";
import { SOUND } from "./sabotage.ts";

/** One seed, of the product as it is or with a planted bug. */
export interface Job {
  readonly seed: number;
  /** Name of a mutant. */
  readonly bug?: string | undefined;
}

export type Answer = Pick<Outcome, "wrong" | "lines" | "calmMs" | "events">;

process.on("message", ({ seed, bug }: Job) => {
  const sabotage = bug === undefined ? SOUND : present(MUTANTS.find(({ name }) => name === bug), bug).sabotage;
  void runSeed(seed, sabotage).then(({ wrong, lines, calmMs, events }) =>
    process.send?.({ wrong, lines: wrong.length > 0 ? lines : [], calmMs, events } satisfies Answer));
});
