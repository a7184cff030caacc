/**
 * Goal: chance is repeatable where it must be, and waiting before a repeat stays within its bounds.
 * Method: laws over random seeds and attempts.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { systemClock } from "../../core/clock.ts";
import { seededRandom, systemRandom } from "../../core/random.ts";
import { backoffMs, waitBeforeRetry } from "../../core/retry.ts";

describe("chance", () => {
  it("law: the same seed gives the same sequence, within [0, 1)", () => {
    fc.assert(fc.property(fc.integer(), (seed) => {
      const [left, right] = [seededRandom(seed), seededRandom(seed)];
      for (let draw = 0; draw < 20; draw += 1) {
        const value = left.next();
        assert.equal(value, right.next());
        assert.ok(value >= 0 && value < 1);
      }
      assert.equal(left.id(), right.id());
    }));
  });

  it("spreads evenly: each tenth of the range gets its share of 10,000 draws", () => {
    const random = seededRandom(7);
    const tenths = new Array<number>(10).fill(0);
    for (let draw = 0; draw < 10_000; draw += 1) {
      const tenth = Math.floor(random.next() * 10);
      tenths[tenth] = (tenths[tenth] ?? 0) + 1;
    }
    for (const count of tenths) assert.ok(count > 850 && count < 1150, `${tenths.join(", ")}`);
  });

  it("fresh identifiers have 36 characters and differ", () => {
    const ids = new Set(Array.from({ length: 100 }, () => systemRandom.id()));
    assert.equal(ids.size, 100);
    for (const id of [...ids, seededRandom(1).id()]) assert.match(id, /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  });
});

describe("waiting before a repeat", () => {
  it("law: it doubles from first to last and keeps at least half of it", () => {
    const backoff = { firstMs: 100, lastMs: 5_000 };
    fc.assert(fc.property(fc.integer(), fc.integer({ min: 1, max: 10_000 }), (seed, attempt) => {
      const ceiling = Math.min(100 * 2 ** Math.min(attempt - 1, 30), 5_000);
      const delayMs = backoffMs(seededRandom(seed), backoff, attempt);
      assert.ok(delayMs >= ceiling / 2 && delayMs <= ceiling, `${delayMs} of ${ceiling}`);
    }));
  });

  it("ends at once when it is called off", async () => {
    const stop = new AbortController();
    const hour = { firstMs: 3_600_000, lastMs: 3_600_000 };
    const waiting = waitBeforeRetry({ clock: systemClock, random: systemRandom }, hour, 1, stop.signal);
    stop.abort();
    await waiting;
    assert.ok(stop.signal.aborted);
  });
});
