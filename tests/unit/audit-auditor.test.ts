/**
 * Goal: whatever the event path missed, and whatever happened to the stream or to the database, the auditor ends with a stream
 * that says what the database holds, in an epoch that makes every site believe it. Method: the product's own auditor on twins.
 */
import assert from "node:assert/strict";
import { AUDIT_TABLE } from "../../audit/notes.ts";
import { STREAM_TABLE } from "../../capture/era.ts";
import { AuditStage, subjectOfName, tableOf } from "./audit-stage.ts";

const MINUTE_MS = 60_000;
const group = (id: string, name = id): Record<string, string> => ({ id, name });
const codes = (faults: { list(): readonly { readonly code: string }[] }): readonly string[] =>
  faults.list().map(({ code }) => code).sort();

describe("the auditor", () => {
  let stage: AuditStage;
  beforeEach(() => {
    stage = new AuditStage();
  });
  afterEach(() => stage.stop());

  it("fills a new stream and says a heartbeat and a manifest of it", async () => {
    await stage.insert("group", [group("a"), group("b")]);
    const { auditor } = await stage.auditor();
    assert.deepEqual([...stage.inStream().keys()].sort(), ["group.a", "group.b"]);
    assert.deepEqual([stage.heartbeat().epoch, stage.heartbeat().filled], [1, true]);
    const manifest = stage.manifest();
    assert.deepEqual([manifest.epoch, manifest.aggregates, manifest.root], [1, 2, stage.naiveRoot()]);
    assert(manifest.asOf < manifest.sequence);
    assert.equal(auditor.notReady(), undefined);
  });

  it("publishes what was written past every proxy, and says in a manifest what a naive computation says", async () => {
    await stage.insert("group", [group("a"), group("b"), group("c")]);
    const started = await stage.auditor();
    await stage.write(async (write) => {
      await write.insert(tableOf("group"), [group("d")]);
      await write.update(tableOf("group"), [group("b", "other")], ["name"]);
      await write.remove(tableOf("group"), [{ id: "c" }]);
    });
    const report = await stage.audit(started);
    assert.deepEqual(report.differences, { missing: 1, stale: 1, superfluous: 1 });
    assert.deepEqual([report.published, report.held, report.aggregates], [3, 0, 3]);
    assert.deepEqual([...stage.inStream().keys()].sort(), ["group.a", "group.b", "group.d"]);
    assert.deepEqual([stage.manifest().root, report.root], [stage.naiveRoot(), stage.naiveRoot()]);
    const clean = await stage.audit(started);
    assert.deepEqual([clean.differences, clean.published], [{ missing: 0, stale: 0, superfluous: 0 }, 0]);
  });

  it("beats regularly with rising numbers", async () => {
    await stage.auditor();
    const first = stage.heartbeat();
    await stage.clock.pass(MINUTE_MS);
    assert.deepEqual([stage.heartbeat().n >= first.n + 3, stage.heartbeat().epoch], [true, 1]);
    assert(stage.heartbeat().tip < stage.heartbeat().sequence);
  });

  it("looks at once at what a tombstone may have taken with it", async () => {
    await stage.insert("user", [{ id: "u", domain_id: "d", name: "u" }]);
    await stage.insert("group", [group("g")]);
    await stage.insert("membership", [{ user_id: "u", group_id: "g" }]);
    await stage.auditor();
    const proxy = await stage.proxy();
    await stage.write((write) => write.remove(tableOf("user"), [{ id: "u" }]));
    await stage.result(proxy.publish([{ kind: "user", values: ["u"] }]), "the proxy publishes");
    await stage.until(() => !stage.inStream().has("membership.u.g"), "the cascade is seen", 5_000);
  });

  it("raises the epoch when the stream has lost its end, and says everything again in it", async () => {
    await stage.insert("group", [group("a")]);
    const { auditor, faults } = await stage.auditor();
    await stage.insert("group", [group("b")]);
    await stage.result(auditor.auditNow(), "an audit");
    stage.stream.faults.dropTail(4);
    await stage.until(() => stage.manifestEpoch === 2, "a manifest of a new epoch");
    const epochs = [...stage.inStream()].map(([name, headers]) => [name, headers["Hf-Epoch"]]).sort();
    assert.deepEqual(epochs, [["group.a", "2"], ["group.b", "2"]]);
    await stage.until(() => stage.heartbeat().epoch === 2 && stage.heartbeat().filled, "a heartbeat of the new epoch");
    assert.deepEqual([await stage.epoch(), codes(faults)], [2, []]);
    await stage.clock.pass(MINUTE_MS);
    assert.equal(await stage.epoch(), 2);
  });

  it("raises the epoch when the lost end has grown again before anybody looks", async () => {
    await stage.insert("group", [group("a"), group("b")]);
    const { feed, auditor } = await stage.auditor();
    feed.cut("away");
    stage.stream.faults.dropTail(2);
    for (let n = 1; n <= 5; n += 1) publishRaw(stage, `group.x${n}`);
    feed.cut(undefined);
    await stage.until(() => auditor.capture.era?.epoch === 2 && stage.manifestEpoch === 2, "a new epoch");
    assert.deepEqual([...stage.inStream().keys()].sort(), ["group.a", "group.b"]);
  });

  it("knows from the database alone that the stream has lost its end, when another process was there before", async () => {
    await stage.insert("group", [group("a")]);
    const first = await stage.auditor();
    await stage.clock.pass(MINUTE_MS);
    stage.kill(first);
    stage.stream.faults.dropTail(3);
    for (let n = 1; n <= 20; n += 1) publishRaw(stage, `group.x${n}`);
    await stage.auditor();
    assert.deepEqual([await stage.epoch(), stage.manifest().epoch], [2, 2]);
    assert.deepEqual([...stage.inStream().keys()], ["group.a"]);
  });

  it("starts a new epoch on a stream that was made anew", async () => {
    await stage.insert("group", [group("a")]);
    await stage.auditor();
    const { n } = stage.heartbeat();
    stage.stream.faults.recreate();
    await stage.until(() => stage.stream.last(subjectOfName("_manifest")) !== undefined, "a manifest");
    assert.deepEqual([await stage.epoch(), stage.manifest().epoch, [...stage.inStream().keys()]], [2, 2, ["group.a"]]);
    assert(stage.heartbeat().n > n, "numbers rise over the loss of the stream");
  });

  it("publishes again what an old server shows in an older image, without a new epoch", async () => {
    await stage.insert("group", [group("a"), group("b")]);
    const started = await stage.auditor();
    await stage.write((write) => write.update(tableOf("group"), [group("a", "newer")], ["name"]));
    await stage.audit(started);
    const digest = stage.inStream().get("group.a")?.["Hf-Digest"];
    assert(stage.stream.faults.reviveOlder(subjectOfName("group.a")));
    assert.notEqual(stage.inStream().get("group.a")?.["Hf-Digest"], digest);
    await stage.until(() => stage.inStream().get("group.a")?.["Hf-Digest"] === digest, "the newest image is back", MINUTE_MS);
    assert.equal(await stage.epoch(), 1);
  });

  it("is heard again although the stream's index has lost the subject of its heartbeats and of its manifest", async () => {
    const started = await stage.auditor();
    await stage.insert("group", [group("a")]);
    await stage.audit(started);
    await stage.clock.pass(MINUTE_MS);
    const { n } = stage.heartbeat();
    for (const name of ["_hb", "_manifest"]) assert(stage.stream.faults.reviveOlder(subjectOfName(name)));
    assert.equal(stage.stream.last(subjectOfName("_hb")), undefined);
    await stage.until(() => stage.stream.last(subjectOfName("_hb")) !== undefined && stage.heartbeat().n > n, "heartbeats",
      MINUTE_MS);
    await stage.until(() => stage.manifestEpoch > 0 && stage.manifest().root === stage.naiveRoot(), "a manifest");
    assert.deepEqual(codes(started.faults), []);
  });

  it("shows no guard what the stream itself has lost: older images and deleted aggregates that are back", async () => {
    const many = Array.from({ length: 80 }, (_, place) => `g${place}`);
    await stage.insert("group", many.map((id) => group(id)));
    const { faults } = await stage.auditor();
    const proxy = await stage.proxy();
    await stage.write((write) => write.update(tableOf("group"), many.map((id) => group(id, `${id} newer`)), ["name"]));
    await stage.result(proxy.publish(many.map((id) => ({ kind: "group", values: [id] }))), "the newer images");
    for (let start = 0; start < 60; start += 20) {
      const gone = many.slice(start, start + 20);
      await stage.write((write) => write.remove(tableOf("group"), gone.map((id) => ({ id }))));
      await stage.result(proxy.publish(gone.map((id) => ({ kind: "group", values: [id] }))), "tombstones");
      await stage.clock.pass(2 * MINUTE_MS);
    }
    const root = stage.naiveRoot();
    for (const id of many) assert(stage.stream.faults.reviveOlder(subjectOfName(`group.${id}`)));
    assert.equal(stage.inStream().size, 80);
    await stage.until(() => stage.naiveRoot() === root, "the stream says again what it said", MINUTE_MS);
    assert.deepEqual([codes(faults), await stage.epoch(), stage.inStream().size], [[], 1, 20]);
  });

  it("shows no guard what a stream that was set back shows instead of what was published last", async () => {
    const many = Array.from({ length: 80 }, (_, place) => `g${place}`);
    await stage.insert("group", many.map((id) => group(id)));
    const { faults } = await stage.auditor();
    const proxy = await stage.proxy();
    await stage.write((write) => write.update(tableOf("group"), many.map((id) => group(id, `${id} newer`)), ["name"]));
    await stage.result(proxy.publish(many.map((id) => ({ kind: "group", values: [id] }))), "the newer images");
    const root = stage.naiveRoot();
    stage.stream.faults.dropTail(79);
    assert.notEqual(stage.naiveRoot(), root);
    await stage.until(() => stage.naiveRoot() === root && stage.manifestEpoch === 2, "everything is said in a new epoch");
    assert.deepEqual(codes(faults), []);
  });

  it("does show the guard what a database that was set back would rewrite", async () => {
    const many = Array.from({ length: 80 }, (_, place) => `g${place}`);
    await stage.insert("group", many.map((id) => group(id)));
    stage.kill(await stage.auditor());
    const digests = [...stage.inStream().values()].map((headers) => headers["Hf-Digest"]);
    stage.rows = stage.freshRows();
    await stage.insert("group", many.map((id) => group(id, `${id} older`)));
    const { auditor, faults } = stage.begin();
    await stage.until(() => auditor.report !== undefined, "an audit");
    assert.deepEqual([codes(faults), auditor.report?.held], [["E_BLAST_HELD", "E_CENTRE_RESTORED"], 80]);
    assert.deepEqual([...stage.inStream().values()].map((headers) => headers["Hf-Digest"]), digests);
  });

  it("says a database that was restored to an older state again in a higher epoch, and tells a person", async () => {
    await stage.insert("group", [group("a")]);
    const first = await stage.auditor();
    await stage.insert("group", [group("b")]);
    await stage.audit(first);
    stage.kill(first);
    stage.rows = stage.freshRows();
    await stage.insert("group", [group("a")]);
    const { faults } = stage.begin();
    await stage.until(() => stage.manifestEpoch > 1, "a manifest of a new epoch");
    const areNew = [...stage.inStream()].map(([name, headers]) => [name, Number(headers["Hf-Epoch"]) > 1]);
    assert.deepEqual(areNew, [["group.a", true]]);
    assert(codes(faults).includes("E_CENTRE_RESTORED"));
    const epoch = await stage.epoch();
    await stage.clock.pass(2 * MINUTE_MS);
    assert.equal(await stage.epoch(), epoch);
  });

  it("notices a database that was restored under its feet", async () => {
    await stage.insert("group", [group("a")]);
    const { faults } = await stage.auditor();
    await stage.clock.pass(MINUTE_MS);
    await stage.write(async (write) => {
      const match = { columns: ["stream"], values: [[stage.stream.name]] };
      await write.remove(AUDIT_TABLE, await write.select(AUDIT_TABLE, match));
      await write.remove(STREAM_TABLE, await write.select(STREAM_TABLE, match));
    });
    await stage.until(() => stage.manifestEpoch === 2, "a manifest of a new epoch");
    const { n } = stage.heartbeat();
    await stage.clock.pass(2 * MINUTE_MS);
    assert.deepEqual([await stage.epoch(), codes(faults), stage.heartbeat().n > n], [2, ["E_CENTRE_RESTORED"], true]);
  });

  it("is harmless beside a second auditor", async () => {
    await stage.insert("group", [group("a")]);
    const [first, second] = [await stage.auditor(), await stage.auditor()];
    await stage.insert("group", [group("b")]);
    await Promise.all([stage.audit(first), stage.audit(second)]);
    await stage.clock.pass(5 * MINUTE_MS);
    assert.deepEqual([await stage.epoch(), stage.manifest().root], [1, stage.naiveRoot()]);
    assert.deepEqual([codes(first.faults), codes(second.faults)], [[], []]);
    stage.kill(first);
    const { n } = stage.heartbeat();
    await stage.clock.pass(MINUTE_MS);
    assert(stage.heartbeat().n > n);
  });

  it("holds a truncation until a person releases it", async () => {
    const ids = Array.from({ length: 80 }, (_, place) => `g${place}`);
    await stage.insert("group", ids.map((id) => group(id)));
    const started = await stage.auditor();
    await stage.write((write) => write.remove(tableOf("group"), ids.slice(1).map((id) => ({ id }))));
    const report = await stage.audit(started);
    assert.deepEqual([report.held, report.differences.superfluous, stage.inStream().size], [79, 79, 80]);
    assert.deepEqual(codes(started.faults), ["E_BLAST_HELD"]);
    await stage.clock.pass(20 * MINUTE_MS);
    assert.equal(stage.inStream().size, 80);
  });

  it("says so when the stream is nearly full", async () => {
    await stage.insert("group", [group("a")]);
    const { auditor, faults } = stage.begin();
    await stage.until(() => auditor.report !== undefined, "the first audit");
    const full = stage.stream.state();
    Object.defineProperty(stage.stream, "sizeBytesMax", { value: full.sizeBytes });
    await stage.clock.pass(MINUTE_MS);
    assert(codes(faults).includes("E_STREAM_NEARLY_FULL"));
  });

  it("goes on after the stream server was away, and audits at once", async () => {
    const { feed, auditor } = await stage.auditor();
    feed.cut("away");
    await stage.clock.pass(MINUTE_MS);
    assert.notEqual(auditor.notReady(), undefined);
    await stage.insert("group", [group("a")]);
    feed.cut(undefined);
    await stage.until(() => stage.inStream().has("group.a"), "the difference is published", MINUTE_MS);
    assert.equal(await stage.epoch(), 1);
  });
});

function publishRaw(stage: AuditStage, name: string): void {
  const digest = Buffer.alloc(32, 7).toString("base64url");
  stage.stream.publish({ subject: subjectOfName(name), headers: { "Hf-Epoch": "1", "Hf-Digest": digest },
    payload: Buffer.from("{}"), expected: 0, id: `raw ${name} ${stage.stream.lastSequence()}` });
}
