/**
 * Goal: tombstones are collected after their time, and never before heartbeat and manifest have told every site where the floor
 * is, whatever fails in between. Method: the auditor on twins, with a feed that fails or records.
 */
import assert from "node:assert/strict";
import { AUDITOR_DEFAULTS } from "../../audit/auditor.ts";
import { AUDIT_TABLE } from "../../audit/notes.ts";
import { OperatingError } from "../../core/errors.ts";
import { compareVersions } from "../../schemas/position.ts";
import { AuditStage, subjectOfName, tableOf, type StagedAuditor } from "./audit-stage.ts";

const HOUR_MS = 3_600_000;
const KEPT_MS = 24 * HOUR_MS;

/** Days pass here: nothing happens more often than it must. */
const SLOW = { tombstonesKeptMs: KEPT_MS, everyMs: HOUR_MS, heartbeatEveryMs: HOUR_MS / 4, rereadEveryMs: 10 * HOUR_MS,
  capture: { ...AUDITOR_DEFAULTS.capture, eraEveryMs: HOUR_MS } };

describe("collecting tombstones", () => {
  let stage: AuditStage;
  let started: StagedAuditor;

  beforeEach(async () => {
    stage = new AuditStage();
    await stage.insert("group", ["a", "b", "c"].map((id) => ({ id, name: id })));
    stage.idleHeartbeatMs = HOUR_MS;
    started = await stage.auditor(SLOW);
    await stage.write((write) => write.remove(tableOf("group"), [{ id: "a" }, { id: "b" }]));
    await stage.audit(started);
  });
  afterEach(() => stage.stop());

  const tombstone = (name: string) => stage.stream.last(subjectOfName(name));

  it("keeps them for their time, then says the floor, then removes them", async () => {
    const last = Math.max(tombstone("group.a")?.sequence ?? 0, tombstone("group.b")?.sequence ?? 0);
    const purged: { readonly subject: string; readonly heartbeat: number; readonly manifest: number }[] = [];
    const { purge } = stage.stream;
    stage.stream.purge = (subject, sequence) => {
      purged.push({ subject, heartbeat: stage.heartbeat().floor.sequence, manifest: stage.manifest().floor.sequence });
      purge.call(stage.stream, subject, sequence);
    };
    await stage.clock.pass(KEPT_MS - HOUR_MS);
    assert.deepEqual([purged, stage.heartbeat().floor], [[], { epoch: 0, sequence: 0 }]);
    await stage.clock.pass(3 * HOUR_MS);
    assert.deepEqual(purged.map((each) => each.subject).sort(), [subjectOfName("group.a"), subjectOfName("group.b")]);
    for (const { heartbeat, manifest } of purged) assert.deepEqual([heartbeat, manifest], [last, last]);
    assert.deepEqual([tombstone("group.a"), tombstone("group.b")], [undefined, undefined]);
    assert.notEqual(tombstone("group.c"), undefined);
    assert.equal(stage.manifest().root, stage.naiveRoot());
    assert.equal(await stage.epoch(), 1, "what was collected is not missed");
  });

  it("removes nothing while the floor cannot be said", async () => {
    await stage.clock.pass(KEPT_MS - HOUR_MS);
    stage.stream.purge = () => assert.fail("purged without a floor that was said");
    const { publish } = stage.stream;
    stage.stream.publish = (publication) => {
      if (publication.subject.endsWith("._manifest")) throw new OperatingError("E_FEED_UNAVAILABLE", "not now");
      return publish.call(stage.stream, publication);
    };
    await stage.clock.pass(3 * HOUR_MS);
    assert.notEqual(tombstone("group.a"), undefined);
  });

  it("never lowers the floor, and does not touch an aggregate that was made again", async () => {
    await stage.insert("group", [{ id: "b", name: "again" }]);
    await stage.audit(started);
    await stage.clock.pass(KEPT_MS + 2 * HOUR_MS);
    assert.deepEqual([tombstone("group.a"), tombstone("group.b")?.headers["Hf-Deleted"]], [undefined, undefined]);
    const { floor } = stage.heartbeat();
    stage.kill(started);
    const second = await stage.auditor(SLOW);
    await stage.clock.pass(HOUR_MS);
    assert(compareVersions(stage.heartbeat().floor, floor) >= 0);
    assert.notEqual(tombstone("group.b"), undefined);
    assert.deepEqual(second.faults.list(), []);
    const rows = await stage.result(stage.rows.snapshot((read) => read.page(AUDIT_TABLE, { limit: 2 })), "the note is read");
    assert.deepEqual([rows.length, Number(rows[0]?.["floor_sequence"])], [1, floor.sequence]);
  });
});
