/** Goal: what becomes of received changes: versions (S1) and parents (S4). Method: examples, and laws over random batches. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { changeOf } from "../../schemas/change.ts";
import { compareVersions, replaces } from "../../schemas/position.ts";
import { canonicalImage, keyText, type Row } from "../../schemas/row.ts";
import { decideBatch, newestOfEach, type Candidate } from "../../syncd/decide.ts";
import type { Received } from "../../syncd/received.ts";
import { marksOf, needsOf } from "../../syncd/references.ts";
import { toy } from "../support/toy-service.ts";

function received(kind: string, values: readonly string[], sequence: number, rows?: Record<string, Row[]>): Received {
  return { ...changeOf(canonicalImage(toy, { kind, values }, rows), "toy1"), version: { epoch: 1, sequence },
    payload: undefined };
}
const user = (id: string, sequence = 1): Received =>
  received("user", [id], sequence, { user: [{ id, domain_id: "d", name: id, seen_at: null }] });
const membership = (u: string, g: string): Received =>
  received("membership", [u, g], 1, { membership: [{ user_id: u, group_id: g }] });
const grant = (actor: string): Received => received("grant", [actor, "t"], 1, { grant: [{ actor_id: actor, target_id: "t" }] });
const candidate = (change: Received, impatient = false): Candidate =>
  ({ change, needs: needsOf(toy, change.image), provides: marksOf(toy, change.image), impatient });

const version = fc.record({ epoch: fc.nat(3), sequence: fc.nat(5) });

describe("versions", () => {
  it("are totally ordered by epoch, then sequence", () => {
    fc.assert(fc.property(version, version, version, (a, b, c) => {
      assert.equal(Math.sign(compareVersions(a, b)) + Math.sign(compareVersions(b, a)), 0);
      if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) assert(compareVersions(a, c) <= 0);
    }));
  });

  it("replace only older ones, whatever the order of arrival", () => {
    fc.assert(fc.property(fc.array(version, { minLength: 1 }), (arrivals) => {
      let held: (typeof arrivals)[number] | undefined;
      for (const arrival of arrivals) if (replaces(arrival, held)) held = arrival;
      assert(arrivals.every((arrival) => held !== undefined && compareVersions(arrival, held) <= 0));
    }));
  });
});

describe("deciding a batch", () => {
  it("keeps the newest change of each aggregate, in order of arrival", () => {
    const newest = newestOfEach([user("a", 1), user("b", 2), user("a", 3), user("b", 2)]);
    assert.deepEqual(newest.map((change) => [keyText(change.image.key), change.version.sequence]),
      [["user.b", 2], ["user.a", 3]]);
  });

  it("writes a child together with the parents that the batch brings, in any order", () => {
    const group = received("group", ["g"], 1, { group: [{ id: "g", name: "g" }] });
    const candidates = [candidate(membership("u", "g")), candidate(user("u"), true), candidate(group)];
    assert([...decideBatch(candidates, new Set()).values()].every((decision) => decision.kind === "write"));
  });

  it("parks a child whose parent is nowhere, and whatever leans on a parked one", () => {
    const [child, parent] = [candidate(grant("u")), candidate(user("u"))];
    const decisions = decideBatch([child, parent], new Set());
    assert.equal(decisions.get(parent)?.kind, "park");
    assert.equal(decisions.get(child)?.kind, "park");
  });

  it("waits for a soft reference only while it is patient, and for a hard one for ever", () => {
    assert.equal([...decideBatch([candidate(grant("u"), true)], new Set()).values()][0]?.kind, "write");
    assert.equal([...decideBatch([candidate(membership("u", "g"), true)], new Set()).values()][0]?.kind, "park");
  });

  it("takes a reference for satisfied whatever the letter case, as engines may", () => {
    const marks = new Set(marksOf(toy, user("ANN").image));
    assert.equal([...decideBatch([candidate(grant("ann"))], marks).values()][0]?.kind, "write");
  });
});
