/**
 * Goal: under any sequence of the simulated troubles nothing unsafe happens, and once they end centre, stream and sites are
 * equal within a bound, without anybody typing anything but decisions about what the guard holds; the same seed is the same
 * run; and this test can fail: every planted bug is caught. A failing seed is printed with its trace and the command that
 * replays it.
 */
import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";
import { MUTANTS } from "./mutants.ts";
import { runSeed, type Outcome } from "./run.ts";

const SEEDS = Number(process.env["HOLDFAST_SEEDS"] ?? "300");
const FROM = Number(process.env["HOLDFAST_SEED_FROM"] ?? "1");
const ONLY = process.env["HOLDFAST_SEED"];
const REGRESSIONS_FILE = new URL("regressions.txt", import.meta.url);
/** Seeds that failed once; they are run for ever. */
const REGRESSIONS = readFileSync(REGRESSIONS_FILE, "utf8").split("\n").filter((line) =>
  /^\d+/.test(line)).map((line) => parseInt(line, 10));

function seedsToRun(): readonly number[] {
  return ONLY === undefined ? [...REGRESSIONS, ...Array.from({ length: SEEDS }, (_, index) => FROM + index)] : [Number(ONLY)];
}

function complaint(seed: number, { wrong, lines }: Outcome): string {
  return [`seed ${seed}:`, ...wrong, "the end of its trace:", ...lines,
    `replay with HOLDFAST_SEED=${seed} npx mocha tests/simulation/sync.test.ts`].join("\n");
}

describe("the simulated cloud", function () {
  this.timeout(3_600_000);

  it("has a site equal to its centre after any weather", async () => {
    const startedMs = performance.now();
    const seeds = seedsToRun();
    for (const seed of seeds) {
      const outcome = await runSeed(seed);
      if (outcome.wrong.length > 0 && process.env["HOLDFAST_KEEP_FAILURES"] !== undefined) {
        appendFileSync(REGRESSIONS_FILE, `${seed} ${outcome.wrong[0] ?? ""}\n`);
      }
      assert.deepEqual(outcome.wrong, [], complaint(seed, outcome));
    }
    const seconds = (performance.now() - startedMs) / 1_000;
    const rate = (seeds.length / seconds).toFixed(1);
    process.stdout.write(`      ${seeds.length} seeds in ${seconds.toFixed(1)} s: ${rate} seeds/s\n`);
  });

  it("runs the same for the same seed", async () => {
    for (const seed of [1, 2, 3, 5, 8, 13]) {
      const [first, second] = [await runSeed(seed), await runSeed(seed)];
      assert.deepEqual([second.events, second.hash], [first.events, first.hash], `seed ${seed} differs from itself`);
    }
  });

  for (const { name, sabotage, seedsMax } of MUTANTS) {
    it(`catches the planted bug: ${name}`, async function () {
      if (ONLY !== undefined) this.skip();
      let caught: { readonly seed: number; readonly by: string } | undefined;
      for (let seed = 1; seed <= seedsMax && caught === undefined; seed += 1) {
        const [by] = (await runSeed(seed, sabotage)).wrong;
        if (by !== undefined) caught = { seed, by };
      }
      assert(caught !== undefined, `no seed up to ${seedsMax} catches it`);
      process.stdout.write(`      caught by seed ${caught.seed}: ${caught.by.slice(0, 100)}\n`);
    });
  }
});
