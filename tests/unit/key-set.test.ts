/**
 * Goal: no order in which keys are installed or rotated has a moment at which what another cloud has made is refused, wherever it
 * is cut off. Method: steps are carried out one by one on sets in memory, and compared with what each cloud signs with meanwhile.
 */
import assert from "node:assert/strict";
import { present } from "../../core/assert.ts";
import { isOperating } from "../../core/errors.ts";
import { unguessableBytes } from "../../core/random.ts";
import { Secret } from "../../core/secret.ts";
import { freshKey, isHalfRotated, keyId, keySetOf, primaryOf, rotationOf, shownKeys, stepsToward, type KeySet,
  type KeyStep } from "../../files/key-set.ts";

const fresh = (): Secret => freshKey(unguessableBytes);
const setOf = (...numbers: readonly number[]): KeySet => keySetOf(new Map(numbers.map((number) => [number, fresh()])), "here");

/** A repository after steps. */
function after(set: ReadonlyMap<number, Secret>, steps: readonly KeyStep[]): Map<number, Secret> {
  const keys = new Map(set);
  for (const step of steps) {
    if (step.do === "write") keys.set(step.number, step.key);
    else keys.delete(step.number);
  }
  return keys;
}

const signingKey = (set: ReadonlyMap<number, Secret>): Secret => present(set.get(primaryOf(set)), "a primary");
const reads = (set: ReadonlyMap<number, Secret>, key: Secret): boolean =>
  [...set.values()].some((each) => keyId(each) === keyId(key));
const rotated = (set: KeySet, isOutlived: (number: number) => boolean = () => false): readonly KeyStep[] =>
  rotationOf(set, { fresh: fresh(), keysMax: 3, isOutlived });

describe("a set of keys", () => {
  it("is refused unless every key is whole, and 0 and a primary are there", () => {
    const refused = (files: ReadonlyMap<number, Secret>): void =>
      assert.throws(() => keySetOf(files, "here"), (error) => isOperating(error, "E_KEYS_UNUSABLE"));
    refused(new Map());
    refused(new Map([[0, fresh()]]));
    refused(new Map([[1, fresh()], [2, fresh()]]));
    refused(new Map([[0, fresh()], [1, new Secret("")]]));
    refused(new Map([[0, fresh()], [1, new Secret(fresh().reveal().slice(0, 40))]]));
    assert.equal(setOf(0, 3).size, 2);
  });

  it("is told of by ids and a digest in which no key can be found", () => {
    const set = setOf(0, 1, 2);
    const told = JSON.stringify([shownKeys(set), set.get(0)]);
    for (const key of set.values()) assert.ok(!told.includes(key.reveal().slice(0, 12)));
    assert.notEqual(shownKeys(set).digest, shownKeys(after(set, rotated(set))).digest);
  });
});

describe("a rotation at the centre", () => {
  it("signs with the key that was staged, and reads everything that it read before, at every step", () => {
    const before = setOf(0, 4, 5);
    const steps = rotated(before);
    for (let count = 0; count <= steps.length; count += 1) {
      const now = after(before, steps.slice(0, count));
      for (const key of before.values()) assert.ok(reads(now, key));
      assert.ok(reads(before, signingKey(now)), "whoever has the set of before reads what is signed now");
    }
    assert.equal(keyId(signingKey(after(before, steps))), keyId(present(before.get(0), "staged")));
  });

  it("that was cut off is ended, not begun once more", () => {
    const before = setOf(0, 4, 5);
    const half = keySetOf(after(before, rotated(before).slice(0, 1)), "here");
    assert.ok(isHalfRotated(half));
    const ended = keySetOf(after(half, rotated(half)), "here");
    assert.ok(!isHalfRotated(ended));
    assert.equal(primaryOf(ended), 6);
  });

  it("removes the oldest keys only, above the number to be kept, and only what is outlived", () => {
    const before = setOf(0, 3, 4, 5);
    assert.deepEqual([...after(before, rotated(before)).keys()].sort(), [0, 3, 4, 5, 6]);
    assert.deepEqual([...after(before, rotated(before, (number) => number === 4)).keys()].sort(), [0, 3, 4, 5, 6]);
    assert.deepEqual([...after(before, rotated(before, (number) => number === 3)).keys()].sort(), [0, 4, 5, 6]);
    assert.deepEqual([...after(before, rotated(before, () => true)).keys()].sort(), [0, 5, 6]);
  });
});

describe("installing keys at a site", () => {
  const atCentre = setOf(0, 4, 5);
  const next = keySetOf(after(atCentre, rotated(atCentre, () => true)), "here");

  it("never refuses what the centre signs with, before or after its rotation, wherever it is cut off", () => {
    const steps = stepsToward(atCentre, next);
    for (let count = 0; count <= steps.length; count += 1) {
      const now = after(atCentre, steps.slice(0, count));
      assert.ok(reads(now, signingKey(next)));
      assert.ok(reads(now, signingKey(atCentre)));
      assert.ok(reads(next, signingKey(now)), "the centre reads what the site signs");
      const resumed = after(now, stepsToward(now, next));
      assert.equal(shownKeys(keySetOf(resumed, "here")).digest, shownKeys(next).digest);
    }
  });

  it("writes the highest number first, then the staged key, and removes last", () => {
    const written = stepsToward(atCentre, next).map((step) => `${step.do} ${step.number}`);
    assert.deepEqual(written, ["write 6", "write 0", "remove 4"]);
    assert.deepEqual(stepsToward(next, next), []);
  });

  it("catches up with several rotations at once, and takes the place of a stranger's keys", () => {
    const later = keySetOf(after(next, rotated(next)), "here");
    for (const here of [atCentre, setOf(0, 1), new Map<number, Secret>()]) {
      assert.equal(shownKeys(keySetOf(after(here, stepsToward(here, later)), "here")).digest, shownKeys(later).digest);
    }
  });
});
