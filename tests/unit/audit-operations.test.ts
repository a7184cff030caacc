/**
 * Goal: what a person asks the centre's daemon, and what sites ask the auditor, is answered truly, without a secret, and within
 * bounds. Method: the product's own auditor and the product's own site on one twin of a stream server, virtual time.
 */
import assert from "node:assert/strict";
import { centreOperations } from "../../audit/operations.ts";
import { present } from "../../core/assert.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import type { Input, JsonValue, Operations } from "../../core/operation.ts";
import { askOperation, serveOperations } from "../../feed/asking.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { auditAskSubject, siteAskSubject } from "../../feed/subjects.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows } from "../../rows/rows.ts";
import { bucketOf, hashOfName } from "../../schemas/manifest.ts";
import { APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { FOLLOW_DEFAULTS, Follower } from "../../syncd/follow.ts";
import { siteOperations } from "../../syncd/operations.ts";
import { RowAudit, ROW_AUDIT_DEFAULTS } from "../../syncd/row-audit.ts";
import { AuditStage, SCOPE, tableOf, type StagedAuditor } from "./audit-stage.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { PROVEN } from "../support/centre-word.ts";

const SITE = "edge1";
type Answer = Readonly<Record<string, JsonValue>>;

/** A site that follows the stage's stream, with its daemon's operations served. */
function siteOn(stage: AuditStage): { readonly follower: Follower; readonly rows: Rows } {
  const feed = memoryFeed(stage.stream, stage.clock, { idleHeartbeatMs: 1_000 });
  const rows = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION] });
  const [world, faults] = [stage.world(), new Faults(stage.clock)];
  const follower = new Follower({ service: toy, scope: SCOPE, site: SITE, rows, feed, faults, committed: () => undefined }, world,
    { changesMax: 100, bytesMax: 1 << 20 }, APPLIER_DEFAULTS, FOLLOW_DEFAULTS);
  // Never started: drift stays where a test puts it.
  const rowAudit = new RowAudit({ service: toy, rows, stream: feed.stream, faults, holding: follower.holding,
    isFollowing: () => false, repair: (changes) => follower.repair(changes), committed: () => undefined,
    ...PROVEN }, world,
  ROW_AUDIT_DEFAULTS);
  const operations = siteOperations({ service: toy, rows, site: SITE, follower, rowAudit }, world);
  serveOperations(feed, siteAskSubject(toy.name, SITE), operations, silentLog);
  void follower.start();
  return { follower, rows };
}

describe("the centre's operations", () => {
  let stage: AuditStage;
  let started: StagedAuditor;
  let operations: Operations;

  beforeEach(async () => {
    stage = new AuditStage();
    await stage.insert("domain", [{ id: "d", name: "d" }]);
    await stage.insert("user", ["a", "b", "c"].map((id) => ({ id, domain_id: "d", name: id })));
    await stage.insert("secret", ["a", "b", "c"].map((id) => ({ user_id: id, hash: `password of ${id}` })));
    started = await stage.auditor();
    const { feed, auditor } = started;
    operations = centreOperations([{ service: toy, rows: stage.rows, feed, auditor }], stage.world());
  });
  afterEach(() => stage.stop());

  const ask = async (name: string, input: Input = {}): Promise<readonly Answer[]> => {
    const work = present(operations.get(name), name);
    const answer = await stage.result(work(input, () => undefined, new AbortController().signal), `${name} is answered`);
    assert(Array.isArray(answer));
    return answer as readonly Answer[];
  };
  const asSite = (op: string, input: Input): Promise<JsonValue> => stage.result(
    askOperation(memoryFeed(stage.stream, stage.clock), auditAskSubject(toy.name, SITE), op, input, 5_000), `${op} is answered`);

  it("tells of the last audit, and audits now", async () => {
    const [last] = await ask("audit");
    assert.deepEqual([last?.["service"], last?.["aggregates"]], ["toy", 4]);
    await stage.insert("group", [{ id: "g", name: "g" }]);
    const [now] = await ask("audit", { now: true, service: "toy" });
    assert.deepEqual([now?.["differences"], now?.["published"]], [{ missing: 1, stale: 0, superfluous: 0 }, 1]);
    await assert.rejects(ask("audit", { service: "other" }), { code: "E_OPERATION_INPUT" });
    await assert.rejects(ask("audit", { now: "yes" }), { code: "E_OPERATION_INPUT" });
  });

  it("shows how a site's rows differ, without their secrets, and nothing when they are equal", async () => {
    const { follower, rows } = siteOn(stage);
    await stage.until(() => {
      const { mode, sequence } = follower.status();
      return mode === "tail" && sequence >= stage.heartbeat().sequence;
    }, "caught up");
    const [equal] = await ask("diff", { site: SITE });
    assert.deepEqual([equal?.["compared"], equal?.["equal"], equal?.["differences"], equal?.["more"]], [4, 4, [], false]);
    await rows.transaction(async (write) => {
      await write.update(tableOf("user"), [{ id: "a", name: "by hand" }], ["name"]);
      await write.update(tableOf("secret"), [{ id: 2, hash: "another password" }], ["hash"]);
      await write.remove(tableOf("secret"), [{ id: 3 }]);
      await write.remove(tableOf("user"), [{ id: "c" }]);
      await write.insert(tableOf("group"), [{ id: "stranger", name: "s" }]);
    });
    const [diff] = await ask("diff", { site: SITE, service: "toy" });
    const found = (diff?.["differences"] ?? []) as readonly Answer[];
    assert.deepEqual(found.map(({ name, what }) => [name, what]).sort(),
      [["group.stranger", "superfluous"], ["user.a", "different"], ["user.b", "different"], ["user.c", "missing"]]);
    const [ofA] = found.filter(({ name }) => name === "user.a");
    assert.deepEqual(ofA?.["rows"], [{ table: "user", key: "id=a", columns: [{ name: "name", centre: "a", site: "by hand" }] }]);
    assert(JSON.stringify(found).includes("secret:"));
    assert(!JSON.stringify(diff).includes("password"), "secrets are masked");
    const [groups] = await ask("diff", { site: SITE, kind: "group" });
    assert.deepEqual([groups?.["compared"], (groups?.["differences"] as JsonValue[]).length], [0, 1]);
    await assert.rejects(ask("diff", { site: SITE, kind: "nothing" }), { code: "E_OPERATION_INPUT" });
    await assert.rejects(ask("diff", {}), { code: "E_OPERATION_INPUT" });
    await assert.rejects(ask("diff", { site: "elsewhere" }), { code: "E_ASK_UNANSWERED" });
  });

  it("passes what is a site's own on to the site", async () => {
    const { follower } = siteOn(stage);
    await stage.until(() => follower.status().mode === "tail", "the site follows");
    assert.deepEqual(await ask("resync", { site: SITE }), [{ site: SITE, service: "toy", started: true }]);
    assert.deepEqual(await ask("held.list", { site: SITE }), []);
    const [list] = await ask("quarantine.list", { site: SITE });
    assert.deepEqual([list?.["site"], list?.["entries"]], [SITE, []]);
    await assert.rejects(ask("resync", {}), { code: "E_OPERATION_INPUT" });
  });

  it("releases and rejects what is held at the centre, and acts upon a release at once", async () => {
    const ids = Array.from({ length: 70 }, (_, place) => `g${place}`);
    await stage.insert("group", ids.map((id) => ({ id, name: id })));
    await stage.audit(started);
    await stage.write((write) => write.remove(tableOf("group"), ids.map((id) => ({ id }))));
    await stage.audit(started);
    const [note] = await ask("held.list");
    assert.deepEqual([note?.["kind"], note?.["state"], note?.["deletes"], note?.["service"]], ["group", "held", 70, "toy"]);
    const [rejected] = await ask("held.reject", { kind: "group" });
    assert.equal(rejected?.["state"], "rejected");
    await stage.clock.pass(60_000);
    assert(stage.inStream().has("group.g1"));
    const [released] = await ask("held.release", { kind: "group" });
    assert.equal(released?.["state"], "released");
    await stage.until(() => !stage.inStream().has("group.g1"), "the release is acted upon", 10_000);
    assert.deepEqual([await ask("held.list"), started.faults.list()], [[], []]);
    await assert.rejects(ask("held.release", { kind: "group" }), { code: "E_OPERATION_INPUT" });
  });

  it("gives a site the leaves of a bucket, page by page, and nothing while the index is not complete", async () => {
    const bucket = bucketOf(hashOfName("user.a"));
    const answer = await asSite("leaves", { bucket }) as Answer;
    const leaves = answer["leaves"] as readonly (readonly JsonValue[])[];
    const [name, epoch, sequence, digest] = present(leaves.find((leaf) => leaf[0] === "user.a"), "the leaf of user.a");
    assert.deepEqual([name, epoch, digest], ["user.a", 1, stage.inStream().get("user.a")?.["Hf-Digest"]]);
    assert(Number(sequence) <= Number(answer["asOf"]));
    assert.deepEqual((await asSite("leaves", { bucket, after: "user.a" }) as Answer)["leaves"], []);
    await assert.rejects(asSite("leaves", { bucket: 256 }), { code: "E_OPERATION_INPUT" });
    stage.stream.faults.restart();
    await stage.clock.pass(1);
    await assert.rejects(asSite("leaves", { bucket }), { code: "E_ASK_UNANSWERED" });
  });

  it("says images again when a site asks for them, and only what has a name", async () => {
    const before = present(stage.stream.last("os.v1.toy.all.user.a"), "an image").sequence;
    assert.deepEqual(await asSite("again", { names: ["user.a", "no such kind.x", ""] }), { accepted: 1 });
    await stage.until(() => (stage.stream.last("os.v1.toy.all.user.a")?.sequence ?? 0) > before, "the image is said again");
    await assert.rejects(asSite("again", { names: "user.a" }), { code: "E_OPERATION_INPUT" });
    assert.equal(await stage.epoch(), 1);
  });

  it("tells a site which aggregates its database really does not have, whatever the stream shows", async () => {
    await stage.insert("group", [{ id: "hidden", name: "hidden" }]);
    const names = ["user.a", "group.hidden", "group.never", "no such kind.x"];
    assert.deepEqual(await asSite("gone", { names, epoch: 1 }), { gone: ["group.never"] });
    await assert.rejects(asSite("gone", { names, epoch: 2 }), { code: "E_ASK_UNANSWERED" });
    await assert.rejects(asSite("gone", { names: "user.a", epoch: 1 }), { code: "E_OPERATION_INPUT" });
    const many = Array.from({ length: 1_000 }, (_, place) => `group.m${place}`);
    for (let asked = 0; asked < 199; asked += 1) await asSite("gone", { names: many, epoch: 1 });
    await assert.rejects(asSite("gone", { names: many, epoch: 1 }), { code: "E_ASK_UNANSWERED" });
  });

  it("believes a site that is of a later epoch than the centre, once an hour and not too far", async () => {
    await asSite("again", { names: [], epoch: 1_000_000 });
    await stage.clock.pass(30_000);
    assert.equal(await stage.epoch(), 1);
    await asSite("again", { names: [], epoch: 7 });
    await stage.until(() => stage.manifestEpoch === 8, "a manifest above the site's epoch");
    await asSite("again", { names: [], epoch: 9 });
    await stage.clock.pass(60_000);
    assert.equal(await stage.epoch(), 8);
  });
});
