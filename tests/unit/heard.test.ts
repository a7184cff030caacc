/**
 * Goal: a heartbeat proves that a stream is not the one that was read when, and only when, it does. Method: every case of the one
 * pure function, with what it means in its name.
 */
import assert from "node:assert/strict";
import type { Heard, PlacedHeartbeat } from "../../syncd/heard.ts";
import { hasReadAll, hasRegressed } from "../../syncd/heard.ts";

const NO_FLOOR = { epoch: 0, sequence: 0 };
const at = (sequence: number, epoch = 1): { epoch: number; sequence: number } => ({ epoch, sequence });
const beat = (n: number, sequence: number, said: Partial<PlacedHeartbeat> = {}): PlacedHeartbeat =>
  ({ epoch: 1, n, sequence, tip: sequence - 1, filled: true, floor: NO_FLOOR, ...said });
const heard = (n: number, sequence: number): Heard => beat(n, sequence);

describe("what a heartbeat proves", () => {
  it("proves nothing while it comes after everything that was read", () => {
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(8, 101)), undefined);
  });

  it("proves nothing when it is the one that was heard, or an older one", () => {
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(7, 90)), undefined);
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(6, 80)), undefined);
  });

  it("proves reused sequences when it is a later one at a place that was passed", () => {
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(8, 95)), "sequences");
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(8, 100)), "sequences");
  });

  it("proves reused sequences even when the centre has not noticed and the epoch is ours or below", () => {
    assert.equal(hasRegressed(at(100, 2), heard(7, 90), beat(8, 95)), "sequences");
  });

  it("only teaches when it is the first one", () => {
    assert.equal(hasRegressed(at(100), undefined, beat(8, 95)), undefined);
  });

  it("proves a new stream by a higher epoch, also as the first one", () => {
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(8, 120, { epoch: 2 })), "epoch");
    assert.equal(hasRegressed(at(100), undefined, beat(1, 5, { epoch: 2 })), "epoch");
  });

  it("is not alarmed by an epoch when nothing of any epoch was read", () => {
    assert.equal(hasRegressed(at(0, 0), undefined, beat(1, 5, { epoch: 2 })), undefined);
  });

  it("proves missed tombstones by a floor above the position", () => {
    assert.equal(hasRegressed(at(100), heard(7, 100), beat(8, 200, { floor: at(101) })), "floor");
    assert.equal(hasRegressed(at(100), undefined, beat(8, 200, { floor: at(101) })), "floor");
    assert.equal(hasRegressed(at(0, 0), undefined, beat(8, 200, { floor: at(101) })), "floor");
  });

  it("proves nothing by a floor at or below what was read before the last heartbeat", () => {
    assert.equal(hasRegressed(at(100), heard(7, 90), beat(8, 200, { floor: at(90) })), undefined);
    assert.equal(hasRegressed(at(3, 2), heard(7, 2), beat(8, 200, { epoch: 2, floor: at(90) })), undefined);
  });

  it("does not trust what was read between two heartbeats of which the second raised the floor", () => {
    // The tombstone at 450 may have been collected before the reader, which was catching up from 395, came by.
    assert.equal(hasRegressed(at(899), heard(7, 395), beat(8, 900, { floor: at(500) })), "floor");
  });

  it("proves that everything was read once one of this epoch was passed that says so, and not in a fill", () => {
    const tail = { ...at(100), mode: "tail" } as const;
    assert.equal(hasReadAll(tail, beat(7, 90)), true);
    assert.equal(hasReadAll({ ...tail, mode: "sweep" }, beat(7, 90)), true);
    assert.equal(hasReadAll({ ...tail, mode: "fill" }, beat(7, 90)), false);
    assert.equal(hasReadAll(tail, beat(7, 101)), false);
    assert.equal(hasReadAll(tail, beat(7, 90, { filled: false })), false);
    assert.equal(hasReadAll({ ...tail, epoch: 2 }, beat(7, 90)), false);
    assert.equal(hasReadAll(tail, undefined), false);
    assert.equal(hasReadAll(undefined, beat(7, 90)), false);
  });
});
