/**
 * Goal: after any sequence of messages, removals and complete readings the auditor's index says what a map from name to newest
 * message says: entries, counts, bucket digests, leaves, tombstones, and who refers to whom. Method: random histories of a
 * small stream, told to the index and to a plain map; and how much memory an aggregate costs.
 */
import assert from "node:assert/strict";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { REFERS_TO_NOTHING, type Referred } from "../../audit/referred.ts";
import { StreamIndex, type Place } from "../../audit/stream-index.ts";
import { Buckets, bucketOf, hashOfName } from "../../schemas/manifest.ts";
import { toy } from "../support/toy-service.ts";

const NAMES = ["user.a", "user.b", "user.c", "group.a", "group.b", "membership.a.b", "membership.b.a", "grant.a.x"];
const MARKS = ["secret(hash)=[1]", "secret(hash)=[2]"];
const digestOf = (content: number): string => Buffer.alloc(32, content).toString("base64url");

interface Message {
  readonly place: Place;
  readonly referred: Referred;
}

type Step =
  | { readonly step: "put"; readonly name: string; readonly content: number; readonly deleted: boolean;
    readonly referred: Referred }
  | { readonly step: "forget"; readonly name: string }
  /** The stream loses these names' messages, and somebody reads it again. */
  | { readonly step: "read again"; readonly lost: readonly string[] };

const some = <T>(from: readonly T[]): fc.Arbitrary<T[]> => fc.uniqueArray(fc.constantFrom(...from), { maxLength: 3 });
const referredAny: fc.Arbitrary<Referred> = fc.record({ needs: some([...NAMES, ...MARKS, "domain.unknown"]),
  provides: some(MARKS) });
const stepAny: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ step: fc.constant("put" as const), name: fc.constantFrom(...NAMES),
    content: fc.integer({ min: 1, max: 4 }), deleted: fc.boolean(), referred: referredAny }) },
  fc.record({ step: fc.constant("forget" as const), name: fc.constantFrom(...NAMES) }),
  fc.record({ step: fc.constant("read again" as const), lost: some(NAMES) }));

/** The same, without any cleverness. */
class Plain {
  readonly messages = new Map<string, Message>();
  #sequence = 0;

  next(step: Extract<Step, { step: "put" }>): Message {
    this.#sequence += 1;
    const place: Place = { epoch: 1 + (this.#sequence >>> 4), sequence: this.#sequence, digest: digestOf(step.content),
      deleted: step.deleted, atMs: this.#sequence };
    const needs = step.referred.needs.filter((name) => name !== step.name);
    return { place, referred: step.deleted ? REFERS_TO_NOTHING : { ...step.referred, needs } };
  }

  live(): readonly string[] {
    return [...this.messages].filter(([, { place }]) => !place.deleted).map(([name]) => name).sort();
  }

  /** Live aggregates that need `name` or a mark that it provides. */
  dependentsOf(name: string): readonly string[] {
    const gone = new Set([name, ...(this.messages.get(name)?.referred.provides ?? [])]);
    return this.live().filter((other) => this.messages.get(other)?.referred.needs.some((need) => gone.has(need)));
  }
}

function apply(step: Step, plain: Plain, index: StreamIndex): void {
  switch (step.step) {
    case "put": {
      const message = plain.next(step);
      const isNewTombstone = step.deleted && plain.messages.get(step.name)?.place.deleted !== true;
      const expected = isNewTombstone ? plain.dependentsOf(step.name) : [];
      plain.messages.set(step.name, message);
      const orphaned = index.put(step.name, message.place, () => message.referred);
      if (step.deleted) assert.deepEqual(orphaned.filter((name) => name !== step.name).sort(), expected.filter((name) =>
        name !== step.name));
      return;
    }
    case "forget": {
      const held = plain.messages.get(step.name);
      if (held === undefined) return;
      if (held.place.deleted) plain.messages.delete(step.name);
      index.forget(step.name, held.place.sequence);
      return;
    }
    case "read again": {
      for (const name of step.lost) plain.messages.delete(name);
      index.beginReading([]);
      const inOrder = [...plain.messages].sort(([, left], [, right]) => left.place.sequence - right.place.sequence);
      for (const [name, { place, referred }] of inOrder) index.put(name, place, () => referred);
      index.endReading({ epoch: 0, sequence: 0 });
    }
  }
}

function compare(plain: Plain, index: StreamIndex): void {
  const buckets = new Buckets();
  for (const name of NAMES) {
    const held = plain.messages.get(name);
    const entry = index.get(name);
    assert.deepEqual(entry && [entry.epoch, entry.sequence, entry.digest, entry.deleted],
      held && [held.place.epoch, held.place.sequence, held.place.digest, held.place.deleted]);
    if (held !== undefined && !held.place.deleted) buckets.toggle(hashOfName(name), held.place.digest);
    const leaves = index.leavesOf(bucketOf(hashOfName(name)), "", 100).map((leaf) => leaf.name);
    assert.equal(leaves.includes(name), held !== undefined && !held.place.deleted);
    const others = (names: readonly string[]): readonly string[] => names.filter((other) => other !== name).sort();
    assert.deepEqual(others(index.dependentsOf(name)), others(plain.dependentsOf(name)));
  }
  assert.equal(index.buckets.text(), buckets.text());
  assert.equal(index.live, plain.live().length);
  const dead = [...plain.messages].filter(([, { place }]) => place.deleted).map(([name]) => name);
  assert.deepEqual(index.tombstonesBefore(Infinity, 100).map(({ name }) => name).sort(), dead.sort());
  for (const kind of ["user", "group", "membership", "grant"]) {
    const ofKind = plain.live().filter((name) => name.startsWith(`${kind}.`));
    const view = index.viewOf(kind);
    const [asked] = ofKind;
    if (asked !== undefined) assert.equal(view.get(asked)?.deleted, false);
    assert.equal(view.live, ofKind.length);
    assert.deepEqual([...view.unseen()].map(({ key }) => [key.kind, ...key.values].join(".")).sort(), ofKind.slice(1));
  }
}

describe("the index of a stream", () => {
  it("says what a map from name to newest message says, after anything", () => {
    fc.assert(fc.property(fc.array(stepAny, { maxLength: 60 }), (steps) => {
      const [plain, index] = [new Plain(), new StreamIndex(toy, 1_000_000)];
      for (const step of steps) {
        apply(step, plain, index);
        compare(plain, index);
      }
    }), { numRuns: 300 });
  });

  it("drops back-references above their bound and keeps everything else", () => {
    const index = new StreamIndex(toy, 3);
    for (const [place, name] of NAMES.entries()) {
      const at: Place = { epoch: 1, sequence: place + 1, digest: digestOf(place + 1), deleted: false, atMs: 0 };
      index.put(name, at, () => ({ needs: ["user.z"], provides: [] }));
    }
    assert(index.backReferencesDropped);
    assert.deepEqual([index.backReferences, index.live, index.dependentsOf("user.z")], [0, NAMES.length, []]);
    assert.equal(index.get("user.a")?.sequence, 1);
  });

  it("needs less than 400 bytes for an aggregate with a reference", function () {
    this.timeout(60_000);
    const count = Number(process.env["HOLDFAST_INDEX_AGGREGATES"] ?? "100000");
    const before = usedBytes();
    const index = new StreamIndex(toy, 2_000_000);
    for (let each = 0; each < count; each += 1) {
      const id = each.toString(16).padStart(32, "0");
      const place: Place = { epoch: 1, sequence: each + 1, digest: hashOfName(id), deleted: false, atMs: 0 };
      index.put(`user.${id}`, place, () => ({ needs: [`domain.${each % 100}`], provides: [] }));
    }
    const bytesEach = (usedBytes() - before) / count;
    process.stdout.write(`      ${Math.round(bytesEach)} bytes an aggregate, ${count} aggregates\n`);
    assert.equal(index.live, count);
    assert(bytesEach < 400, `${bytesEach} bytes`);
  });
});

const collectGarbage = (): void => {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
};

function usedBytes(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
