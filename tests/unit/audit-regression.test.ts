/**
 * Goal: a stream that lost its end is told from one that merely grew, was compacted, or shows older images after a crash; every
 * case of the verdict once. Method: the pure parts: evidence of a reading, and the verdict on it.
 */
import assert from "node:assert/strict";
import { FIRST_NOTE, type AuditNote } from "../../audit/notes.ts";
import { regressionOf, type StreamFacts } from "../../audit/regression.ts";
import { lostFromTheEnd, LOST_NAMED_MAX, NO_EVIDENCE, Rereading, type Evidence } from "../../audit/rereading.ts";

const EPOCH = 3;

/** What is proved by reading `shown` (name, sequence) when `known` was known before. */
function evidenceOf(known: Readonly<Record<string, number>>, shown: Readonly<Record<string, number>>): Evidence {
  const reading = new Rereading(Float64Array.from(Object.values(known)), EPOCH, NO_EVIDENCE);
  for (const [name, sequence] of Object.entries(shown).sort(([, left], [, right]) => left - right)) {
    reading.arrived(name, sequence, known[name] ?? 0, known[name] === sequence);
  }
  for (const [name, sequence] of Object.entries(known)) if (!(name in shown)) reading.lose(name, sequence);
  return reading.evidence;
}

const facts = (evidence: Evidence, others: Partial<StreamFacts> = {}): StreamFacts =>
  ({ evidence, known: FIRST_NOTE, heartbeat: 0, reachedBefore: 0, lastSequence: 1_000, ...others });
const acknowledged = (n: number, sequence: number, epoch = EPOCH): AuditNote =>
  ({ ...FIRST_NOTE, heartbeat: n, acknowledged: n, acknowledgedAt: { epoch, sequence } });
const isLost = (evidence: Evidence, others: Partial<StreamFacts> = {}): boolean =>
  regressionOf(facts(evidence, others), EPOCH) !== undefined;

describe("what a complete reading of the stream proves", () => {
  it("is nothing when the stream has only grown", () => {
    const grown = evidenceOf({ a: 1, b: 2, c: 3 }, { b: 2, a: 4, c: 5, d: 6 });
    assert.deepEqual([grown.reused, grown.lost, grown.keptMost], [false, [], 2]);
    assert(!isLost(grown));
  });

  it("is a lost end when the highest known are gone or back", () => {
    assert(isLost(evidenceOf({ a: 1, b: 2, c: 3 }, { a: 1, b: 2 })));
    assert(isLost(evidenceOf({ a: 1, b: 2, c: 5 }, { a: 1, b: 2, c: 3 })));
    assert(isLost(evidenceOf({ a: 1 }, {})));
  });

  it("is no lost end when something later is still at its place: an old server shows older images after a crash", () => {
    const revived = evidenceOf({ a: 1, b: 7, c: 9 }, { a: 1, b: 2, c: 9 });
    assert.deepEqual([revived.lost, lostFromTheEnd(revived)], [[{ name: "b", sequence: 7 }], undefined]);
    assert(!isLost(revived));
  });

  it("is a lost end when a known sequence belongs to another message, although everything has moved on", () => {
    const regrown = evidenceOf({ a: 1, b: 2, c: 3 }, { x: 3, a: 4, b: 5, c: 6 });
    assert(regrown.reused);
    assert(isLost(regrown));
  });

  it("is a lost end when the stream is shorter than it was seen", () => {
    assert(isLost(evidenceOf({}, {}), { reachedBefore: 12, lastSequence: 11, evidence: { ...NO_EVIDENCE, epoch: EPOCH } }));
    assert(!isLost(evidenceOf({}, {}), { reachedBefore: 11, lastSequence: 11 }));
  });

  it("follows from the database alone for a process without memory", () => {
    assert(isLost(NO_EVIDENCE, { known: acknowledged(9, 90), heartbeat: 8 }));
    assert(isLost(NO_EVIDENCE, { known: acknowledged(9, 90), heartbeat: 0 }));
    assert(!isLost(NO_EVIDENCE, { known: acknowledged(9, 90), heartbeat: 9 }));
    assert(!isLost(NO_EVIDENCE, { known: acknowledged(9, 90), heartbeat: 12 }));
    assert(!isLost(NO_EVIDENCE, { known: acknowledged(9, 90), heartbeat: undefined }), "it could not be read");
    assert(!isLost(NO_EVIDENCE, { known: acknowledged(9, 90, EPOCH - 1), heartbeat: 8 }), "said again in a new epoch since");
  });

  it("takes an older heartbeat for a revived one when something later is still at its place", () => {
    const evidence = evidenceOf({ _hb: 90, a: 95 }, { _hb: 80, a: 95 });
    assert(!isLost(evidence, { known: acknowledged(9, 90), heartbeat: 8 }));
  });

  it("does not speak of what was lost in an earlier epoch", () => {
    const earlier = { ...evidenceOf({ a: 1, b: 2 }, { a: 1 }), epoch: EPOCH - 1 };
    assert.equal(regressionOf(facts(earlier), EPOCH), undefined);
  });

  it("is kept when the reading is broken off and begun again", () => {
    const first = new Rereading(Float64Array.of(1, 9), EPOCH, NO_EVIDENCE);
    first.arrived("a", 4, 9, false);
    const second = new Rereading(Float64Array.of(1, 4), EPOCH, first.evidence);
    second.arrived("b", 1, 1, true);
    second.arrived("a", 4, 4, true);
    assert.equal(lostFromTheEnd(second.evidence), 9);
  });

  it("names a bounded number of lost messages, the latest ones", () => {
    const reading = new Rereading(new Float64Array(0), EPOCH, NO_EVIDENCE);
    for (let sequence = 1; sequence <= 5 * LOST_NAMED_MAX; sequence += 1) reading.lose(`x${sequence}`, sequence);
    assert(reading.evidence.lost.length < 2 * LOST_NAMED_MAX);
    assert.equal(lostFromTheEnd(reading.evidence), 5 * LOST_NAMED_MAX);
  });
});
