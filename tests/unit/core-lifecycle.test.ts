/**
 * Goal: parts start in order, stop in reverse, and one part's trouble never hides another's.
 * Method: parts that write down what happens to them; a clock that fires only when told.
 */
import assert from "node:assert/strict";
import { sleep, systemClock, type Clock } from "../../core/clock.ts";
import { Faults, FAULTS_MAX } from "../../core/faults.ts";
import { lifecycleOf, type Part } from "../../core/lifecycle.ts";
import { silentLog } from "../../core/log.ts";
import { processMetrics } from "../../core/metrics.ts";

function part(name: string, story: string[], changes: Partial<Part> = {}): Part {
  return { name, ...changes,
    start: changes.start ?? (async () => void story.push(`${name} started`)),
    stop: changes.stop ?? (async () => void story.push(`${name} stopped`)) };
}

describe("the life of a process", () => {
  it("starts in order and stops in reverse, once however often it is asked", async () => {
    const story: string[] = [];
    const life = lifecycleOf([part("a", story), part("b", story)], silentLog);
    await life.start();
    await Promise.all([life.stop(), life.stop()]);
    await life.stop();
    assert.deepEqual(story, ["a started", "b started", "b stopped", "a stopped"]);
  });

  it("a part that does not stop cleanly does not keep the others from stopping", async () => {
    const story: string[] = [];
    const life = lifecycleOf([part("a", story), part("b", story, { stop: () => Promise.reject(new Error("stuck")) })], silentLog);
    await life.start();
    await life.stop();
    assert.deepEqual(story.slice(2), ["a stopped"]);
  });

  it("a start that fails stops what was started before it, once", async () => {
    const story: string[] = [];
    const broken = part("b", story, { start: () => Promise.reject(new Error("no")) });
    const life = lifecycleOf([part("a", story), broken, part("c", story)], silentLog);
    await assert.rejects(life.start(), /no/);
    await life.stop();
    assert.deepEqual(story, ["a started", "a stopped"]);
  });

  it("names every part that is not ready, and why", async () => {
    const life = lifecycleOf([part("a", []), part("b", [], { notReady: () => "no database" })], silentLog);
    assert.deepEqual(life.notReady(), { a: "not started", b: "not started" });
    await life.start();
    assert.deepEqual(life.notReady(), { b: "no database" });
  });
});

describe("sleeping", () => {
  it("cancels its timer when it is called off", async () => {
    const story: string[] = [];
    const clock: Clock = { ...systemClock, after: () => () => void story.push("cancelled") };
    const stop = new AbortController();
    const sleeping = sleep(clock, 1_000, stop.signal);
    stop.abort();
    await sleeping;
    assert.deepEqual(story, ["cancelled"]);
  });

  it("does not even begin when it was called off before", async () => {
    const clock: Clock = { ...systemClock, after: () => assert.fail("a timer was set") };
    await sleep(clock, 1_000, AbortSignal.abort());
    assert.equal(typeof clock.nowMs(), "number");
  });
});

describe("faults", () => {
  it("raised again count and keep their beginning; cleared they are gone", () => {
    let nowMs = 5;
    const faults = new Faults({ ...systemClock, nowMs: () => nowMs });
    faults.raise("E_FEED_FULL", "stream", "full");
    nowMs = 9;
    faults.raise("E_FEED_FULL", "stream", "still full");
    assert.deepEqual(faults.list().map(({ sinceMs, times, message }) => ({ sinceMs, times, message })),
      [{ sinceMs: 5, times: 2, message: "still full" }]);
    faults.clear("E_FEED_FULL", "stream");
    assert.deepEqual(faults.list(), []);
  });

  it("beyond the bound are counted but not kept", () => {
    const faults = new Faults(systemClock);
    for (let each = 0; each < FAULTS_MAX + 3; each += 1) faults.raise("E_ROWS_REFUSED", `row ${each}`, "refused");
    assert.equal(faults.list().length, FAULTS_MAX);
    assert.equal(faults.notKept(), 3);
  });
});

describe("metrics", () => {
  it("are shown as Prometheus text: counters, histograms, gauges", async () => {
    const metrics = processMetrics();
    let depth = 3;
    metrics.count("calls_total", 1, { outcome: "ok" });
    metrics.count("calls_total", 2, { outcome: "ok" });
    metrics.observe("wait_seconds", 0.003);
    metrics.gauge("queue_depth", () => depth);
    assert.match(await metrics.render(), /^calls_total\{[^}]*outcome="ok"[^}]*\} 3/m);
    depth = 4;
    const text = await metrics.render();
    assert.match(text, /^queue_depth(?:\{[^}]*\})? 4/m);
    assert.match(text, /^wait_seconds_bucket\{[^}]*le="0\.005"[^}]*\} 1/m);
  });
});
