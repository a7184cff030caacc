/**
 * Goal: whoever marks an aggregate hears of a look that began after the mark, never of an earlier one. Method: examples and a
 * law.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DirtySet } from "../../capture/dirty.ts";
import type { AggregateKey } from "../../schemas/row.ts";

const key = (name: string): AggregateKey => ({ kind: "user", values: [name] });

async function isSettled(promise: Promise<void>): Promise<boolean> {
  let settled = false;
  void promise.then(() => {
    settled = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  return settled;
}

describe("the dirty set", () => {
  it("takes an aggregate once however often it is marked", () => {
    const dirty = new DirtySet();
    void dirty.mark(key("a"));
    void dirty.mark(key("a"));
    assert.deepEqual(dirty.take(10), [key("a")]);
    assert.deepEqual(dirty.take(10), []);
  });

  it("tells a mark made during a look only after the next look", async () => {
    const dirty = new DirtySet();
    const early = dirty.mark(key("a"));
    dirty.take(1);
    const late = dirty.mark(key("a"));
    dirty.done(key("a"));
    assert(await isSettled(early));
    assert(!await isSettled(late));
    assert.deepEqual(dirty.take(1), [key("a")]);
    dirty.done(key("a"));
    assert(await isSettled(late));
    assert.equal(dirty.size, 0);
  });

  it("keeps everybody waiting when a look came to nothing", async () => {
    const dirty = new DirtySet();
    const marked = dirty.mark(key("a"));
    dirty.take(1);
    dirty.again(key("a"));
    assert(!await isSettled(marked));
    assert.deepEqual(dirty.take(1), [key("a")]);
  });

  it("never tells a mark before a look that began after it, for any order of events", async () => {
    const events = fc.array(fc.oneof(fc.constant("mark"), fc.constant("take"), fc.constant("done"),
      fc.constant("again")), { maxLength: 40 });
    await fc.assert(fc.asyncProperty(events, async (sequence) => {
      const dirty = new DirtySet();
      const marks: { markedAt: number; told: boolean }[] = [];
      let lookBeganAt = -1;
      let looking = false;
      for (const [now, event] of sequence.entries()) {
        if (event === "mark") {
          const mark = { markedAt: now, told: false };
          marks.push(mark);
          void dirty.mark(key("a")).then(() => {
            mark.told = true;
          });
        }
        if (event === "take" && !looking && dirty.take(1).length === 1) [looking, lookBeganAt] = [true, now];
        if (looking && (event === "done" || event === "again")) {
          dirty[event](key("a"));
          looking = false;
        }
        await Promise.resolve();
        await Promise.resolve();
        for (const mark of marks) assert(!mark.told || mark.markedAt < lookBeganAt, "told of a look that began before the mark");
      }
    }));
  });
});
