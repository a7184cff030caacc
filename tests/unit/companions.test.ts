/**
 * Goal: caches are made unreachable after every commit and once more later (S6), and never in the way of rows. Method: virtual
 * time.
 */
import assert from "node:assert/strict";
import { OperatingError } from "../../core/errors.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom } from "../../core/random.ts";
import { CacheInvalidation } from "../../syncd/companions.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

describe("cache invalidation", () => {
  let clock: VirtualClock;
  let faults: Faults;
  let bursts: { readonly server: string; readonly atMs: number }[];
  let isAway: boolean;
  let cache: CacheInvalidation;
  beforeEach(() => {
    clock = new VirtualClock();
    faults = new Faults(clock);
    bursts = [];
    isAway = false;
    const world = { clock, random: seededRandom(1), log: silentLog, metrics: noMetrics };
    cache = new CacheInvalidation({ servers: ["a:1", "b:2"], keys: ["k1", "k2"], againMs: 3_000 }, world, faults, (server) => {
      if (isAway) return Promise.reject(new OperatingError("E_CACHE_UNREACHABLE", "away"));
      bursts.push({ server, atMs: clock.monotonicMs() });
      return Promise.resolve();
    });
  });
  afterEach(() => cache.stop());

  it("invalidates every server at once and again after the pause", async () => {
    cache.rowsChanged();
    await clock.pass(10_000);
    assert.deepEqual(bursts.filter((burst) => burst.server === "a:1").map((burst) => burst.atMs), [0, 3_000]);
    assert.equal(bursts.filter((burst) => burst.server === "b:2").length, 2);
  });

  it("shares the second invalidation among commits that follow each other", async () => {
    for (let commit = 0; commit < 5; commit += 1) {
      cache.rowsChanged();
      await clock.pass(100);
    }
    await clock.pass(10_000);
    assert.equal(bursts.filter((burst) => burst.server === "a:1").length, 6);
  });

  it("tries a server that is away until it is back, and says so meanwhile", async () => {
    isAway = true;
    cache.rowsChanged();
    await clock.pass(20_000);
    assert.equal(faults.list().length, 2);
    isAway = false;
    await clock.pass(20_000);
    assert(bursts.length >= 2);
    assert.deepEqual(faults.list(), []);
  });
});
