/**
 * The long form of tests/simulation: very many seeds, and a death at every call of every scenario. HOLDFAST_SEEDS and
 * HOLDFAST_SEED_FROM split the seeds over machines. Every failing seed is printed and joins tests/simulation/regressions.txt; the
 * run goes on.
 */
import { strict as assert } from "node:assert";
import { appendFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { SeedPool } from "../simulation/pool.ts";

const SEEDS = Number(process.env["HOLDFAST_SEEDS"] ?? "100000");
const FROM = Number(process.env["HOLDFAST_SEED_FROM"] ?? "1");
const REGRESSIONS_FILE = new URL("../simulation/regressions.txt", import.meta.url);
const SAY_EVERY = 1_000;

describe(`the simulated cloud, ${SEEDS} seeds from ${FROM}`, function () {
  this.timeout(7 * 24 * 3_600_000);

  it("is clean", async () => {
    const pool = new SeedPool();
    const startedMs = performance.now();
    const failed: number[] = [];
    let next = FROM;
    const lane = async (): Promise<void> => {
      for (let seed = next++; seed < FROM + SEEDS; seed = next++) {
        const { wrong, lines } = await pool.run({ seed });
        if (wrong.length > 0) {
          failed.push(seed);
          appendFileSync(REGRESSIONS_FILE, `${seed} ${wrong[0] ?? ""}\n`);
          console.log([`seed ${seed}:`, ...wrong, ...lines].join("\n"));
        }
        const done = seed + 1 - FROM;
        const seconds = (performance.now() - startedMs) / 1_000;
        if (done % SAY_EVERY === 0) console.log(`${done} seeds, ${(done / seconds).toFixed(1)} seeds/s, ${failed.length} failed`);
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, lane));
    pool.close();
    assert.deepEqual(failed, []);
  });
});
