/**
 * Goal: under any sequence of the simulated troubles nothing unsafe happens, and once they end centre, stream and sites are
 * equal within a bound, without anybody typing anything but decisions about what the guard holds; the same seed is the same
 * run; and this test can fail: every planted bug is caught. A failing seed is printed with its trace and the command that
 * replays it; with HOLDFAST_KEEP_FAILURES it joins regressions.txt.
 */
import assert from "node:assert/strict";
import { appendFileSync, readFileSync } from "node:fs";
import { MUTANTS } from "./mutants.ts";
import { planOf } from "./plan.ts";
import { SeedPool } from "./pool.ts";
import { runSeed } from "./run.ts";
import { shrink } from "./shrink.ts";
import type { Answer } from "./worker.ts";

const SEEDS = Number(process.env["HOLDFAST_SEEDS"] ?? "2000");
const FROM = Number(process.env["HOLDFAST_SEED_FROM"] ?? "1");
const ONLY = process.env["HOLDFAST_SEED"];
const REGRESSIONS_FILE = new URL("regressions.txt", import.meta.url);
/** Seeds that failed once; they are run for ever. */
const REGRESSIONS = readFileSync(REGRESSIONS_FILE, "utf8").split("\n").filter((line) =>
  /^\d+/.test(line)).map((line) => parseInt(line, 10));

function seedsToRun(): readonly number[] {
  return ONLY === undefined ? [...REGRESSIONS, ...Array.from({ length: SEEDS }, (_, index) => FROM + index)] : [Number(ONLY)];
}

function complaint(seed: number, { wrong, lines }: Answer): string {
  return [`seed ${seed}:`, ...wrong, "the end of its trace:", ...lines,
    `replay with HOLDFAST_SEED=${seed} npx mocha tests/simulation/sync.test.ts`,
    "every step: HOLDFAST_TRACE=1; fewer faults: HOLDFAST_SHRINK=1"].join("\n");
}

describe("the simulated cloud", function () {
  this.timeout(24 * 3_600_000);
  let pool: SeedPool;
  before(() => void (pool = new SeedPool()));
  after(() => pool.close());

  it("has a site equal to its centre after any weather", async () => {
    const startedMs = performance.now();
    const seeds = seedsToRun();
    let [calmMs, events] = [0, 0];
    const found = await pool.firstWrong(seeds.map((seed) => ({ seed })), (answer) => {
      calmMs = Math.max(calmMs, answer.calmMs);
      events += answer.events;
    });
    if (found !== undefined && process.env["HOLDFAST_KEEP_FAILURES"] !== undefined) {
      appendFileSync(REGRESSIONS_FILE, `${found.job.seed} ${found.answer.wrong[0] ?? ""}\n`);
    }
    if (found !== undefined && process.env["HOLDFAST_SHRINK"] !== undefined) {
      process.stdout.write(`${(await shrink(planOf(found.job.seed))).join("\n")}\n`);
    }
    assert(found === undefined, found === undefined ? "" : complaint(found.job.seed, found.answer));
    const seconds = (performance.now() - startedMs) / 1_000;
    const figures = [`${seeds.length} seeds in ${seconds.toFixed(0)} s`, `${(seeds.length / seconds).toFixed(1)} seeds/s`,
      `${(events / seeds.length).toFixed(0)} events each`, `at rest after ${calmMs / 1_000} s of calm at the latest`];
    process.stdout.write(`      ${figures.join(", ")}\n`);
  });

  it("runs the same for the same seed", async () => {
    for (const seed of [1, 2, 3, 5, 8, 13]) {
      const [first, second] = [await runSeed(seed), await runSeed(seed)];
      assert.deepEqual([second.events, second.hash], [first.events, first.hash], `seed ${seed} differs from itself`);
    }
  });

  for (const { name, seedsMax } of MUTANTS) {
    it(`catches the planted bug: ${name}`, async function () {
      if (ONLY !== undefined) this.skip();
      const jobs = Array.from({ length: seedsMax }, (_, index) => ({ seed: index + 1, bug: name }));
      const caught = await pool.firstWrong(jobs);
      assert(caught !== undefined, `no seed up to ${seedsMax} catches it`);
      process.stdout.write(`      caught by seed ${caught.job.seed}: ${(caught.answer.wrong[0] ?? "").slice(0, 100)}\n`);
    });
  }
});
