/**
 * Goal: at a site the API gives the database nothing that the stream would not: a change needs the version it has in the stream,
 * never replaces the same or a newer one, and parks, is quarantined and travels on like any other. Method: a centre and a site on
 * memory twins, a real follower, the real listener; the site's link is cut where the stream must not be faster.
 */
import assert from "node:assert/strict";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import { OperatingError } from "../../core/errors.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows } from "../../rows/rows.ts";
import { decodeChange } from "../../schemas/change.ts";
import type { Row } from "../../schemas/row.ts";
import { APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { Follower } from "../../syncd/follow.ts";
import { SiteRecordWriting } from "../../syncd/records-writing.ts";
import { RecordsListener } from "../support/records-stage.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };
const WITHIN_MS = 10_000;
const POISON = "poison";

/** A database that cannot hold the name "poison". */
function picky(rows: Rows): Rows {
  return new Proxy(rows, { get: (target, name) => name !== "transaction" ? bound(target, name)
    : (work: Parameters<Rows["transaction"]>[0]) => target.transaction((write) => work(new Proxy(write, { get: (writer, verb) =>
      verb !== "insert" ? bound(writer, verb) : async (...given: Parameters<typeof write.insert>) => {
        const isPoison = given[1].some((row) => row["name"] === POISON);
        if (isPoison) throw new OperatingError("E_ROWS_REFUSED", "the database refuses a value");
        await writer.insert(...given);
      } }))) });
}

function bound(target: object, name: string | symbol): unknown {
  const found: unknown = Reflect.get(target, name, target);
  return typeof found === "function" ? (found.bind(target) as unknown) : found;
}

describe("the database sync API at a site", () => {
  let stream: MemoryStream;
  let centre: Rows;
  let capture: CaptureRoom;
  let rows: Rows;
  let feed: MemoryFeed;
  let follower: Follower;
  let listener: RecordsListener;

  const tables = [...toy.tables.values()];
  const insert = async (name: string, row: Row): Promise<void> => {
    await centre.transaction((write) => write.insert(present(toy.tables.get(name), name), [row]));
    const kind = present(toy.kinds.get(name), name);
    await capture.publish([{ kind: name, values: kind.key.map((column) => String(row[column])) }]);
  };
  const until = async (holds: () => Promise<boolean> | boolean): Promise<void> => {
    for (const endMs = Date.now() + WITHIN_MS; !await holds(); await new Promise((resolve) => setTimeout(resolve, 5))) {
      assert.ok(Date.now() < endMs, "it happens in time");
    }
  };
  const held = async (path: string): Promise<number> => (await listener.call("get", `/v1/toy${path}`, "reader")).status;
  /** What the stream holds of an aggregate, as a body of the API. */
  const ofStream = (name: string): { readonly rows: unknown; readonly version: string } => {
    const message = present(stream.last(`os.v1.toy.all.${name}`), name);
    return { rows: decodeChange(toy, message.subject, message.payload).image.rows, version: `1.${message.sequence}` };
  };
  const put = async (path: string, body: object, status: number): Promise<Record<string, unknown>> => {
    const answer = await listener.call("put", `/v1/toy${path}`, "admin").send(body);
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    return answer.body as Record<string, unknown>;
  };
  const codeOf = (body: Record<string, unknown>): unknown => (body["error"] as Record<string, unknown>)["code"];

  beforeEach(async () => {
    stream = new MemoryStream(toy.name, systemClock);
    centre = memoryRows(tables, { revisions: [TOY_REVISION] });
    capture = new CaptureRoom({ service: toy, scope: "all", rows: centre, feed: memoryFeed(stream, systemClock),
      faults: new Faults(systemClock) }, world, CAPTURE_DEFAULTS);
    await capture.start();
    await capture.ready(new AbortController().signal);
    rows = picky(memoryRows(tables, { revisions: [TOY_REVISION] }));
    feed = memoryFeed(stream, systemClock, { idleHeartbeatMs: 50 });
    follower = new Follower({ service: toy, scope: "all", site: "edge1", rows, feed, faults: new Faults(systemClock),
      committed: () => undefined }, world, { changesMax: 100, bytesMax: 1 << 20 }, { ...APPLIER_DEFAULTS, softWaitMs: 0 });
    const writing = new SiteRecordWriting({ service: toy, scope: "all", rows, feed,
      applyNow: (change, mayApply, signal) => follower.applyNow(change, mayApply, signal) }, world);
    listener = new RecordsListener([{ service: toy, rows, writing }], world);
    await insert("group", { id: "g", name: "first" });
    await follower.start();
    await listener.server.start();
    await until(async () => await held("/aggregates/group/g") === 200);
  });
  afterEach(async () => {
    await listener.stop();
    await follower.stop();
    await capture.stop();
  });

  it("shows what was applied under which version", async () => {
    const { body } = await listener.call("get", "/v1/toy/aggregates/group/g", "reader") as { body: Record<string, unknown> };
    assert.deepEqual([body["version"], body["published"]], [ofStream("group.g").version, body["digest"]]);
  });

  it("takes a change that the stream has not brought yet, and keeps it when the stream brings it", async () => {
    feed.cut("away");
    await insert("group", { id: "h", name: "second" });
    const body = await put("/aggregates/group/h", ofStream("group.h"), 201);
    assert.deepEqual([body["outcome"], body["version"]], ["written", ofStream("group.h").version]);
    assert.equal(await held("/aggregates/group/h"), 200);
    feed.cut(undefined);
    await insert("group", { id: "i", name: "third" });
    await until(async () => await held("/aggregates/group/i") === 200);
    const { body: after } = await listener.call("get", "/v1/toy/aggregates/group/h", "reader") as { body: Record<string,
      unknown> };
    assert.equal(after["version"], ofStream("group.h").version);
  });

  it("takes single records and removals as well", async () => {
    feed.cut("away");
    await insert("group", { id: "h", name: "second" });
    const { version } = ofStream("group.h");
    await put("/tables/group/records/h", { row: { id: "h", name: "second" }, version }, 201);
    const gone = await listener.call("delete", "/v1/toy/aggregates/group/g?version=1.900", "admin");
    assert.equal(gone.status, 200, gone.text);
    assert.deepEqual([await held("/aggregates/group/g"), await held("/aggregates/group/h")], [404, 200]);
  });

  it("refuses the same and an older version, and says which one it has", async () => {
    const same = await put("/aggregates/group/g", ofStream("group.g"), 409);
    assert.equal(codeOf(same), "E_RECORD_CONFLICT");
    assert.deepEqual((same["error"] as Record<string, unknown>)["facts"], { version: ofStream("group.g").version });
    feed.cut("away");
    assert.equal(codeOf(await put("/aggregates/group/g", { rows: { group: [{ id: "g", name: "older" }] }, version: "0.5" }, 409)),
      "E_RECORD_CONFLICT");
  });

  it("makes no versions: without one, or with one that the stream does not know, nothing is written", async () => {
    const image = { rows: { group: [{ id: "g", name: "mine" }] } };
    assert.equal(codeOf(await put("/aggregates/group/g", image, 400)), "E_OPERATION_INPUT");
    assert.equal(codeOf(await put("/aggregates/group/g", { ...image, version: "1.900" }, 409)), "E_RECORD_CONFLICT");
    assert.equal(codeOf(await put("/aggregates/group/g", { ...image, version: ofStream("group.g").version }, 409)),
      "E_RECORD_CONFLICT");
    assert.equal(codeOf(await put("/aggregates/group/new", { rows: { group: [{ id: "new", name: "n" }] }, version: "1.901" },
      409)),
      "E_RECORD_CONFLICT");
  });

  it("parks what waits for a row, and applies it when the row comes", async () => {
    feed.cut("away");
    await insert("user", { id: "u", domain_id: "d", name: "U" });
    await insert("membership", { user_id: "u", group_id: "g" });
    const parked = await put("/aggregates/membership/u/g", ofStream("membership.u.g"), 202);
    assert.deepEqual([parked["outcome"], parked["because"]], ["parked", "E_PARENT_MISSING"]);
    assert.equal(await held("/aggregates/membership/u/g"), 404);
    assert.equal(codeOf(await put("/aggregates/membership/u/g", ofStream("membership.u.g"), 409)), "E_RECORD_CONFLICT");
    await insert("domain", { id: "d", name: "D" });
    await put("/aggregates/domain/d", ofStream("domain.d"), 201);
    await put("/aggregates/user/u", ofStream("user.u"), 201);
    assert.equal(await held("/aggregates/membership/u/g"), 200);
  });

  it("quarantines what the database refuses, and goes on", async () => {
    feed.cut("away");
    await insert("group", { id: "p", name: POISON });
    const refused = await put("/aggregates/group/p", ofStream("group.p"), 422);
    assert.deepEqual([refused["outcome"], refused["because"]], ["quarantined", "E_ROWS_REFUSED"]);
    await insert("group", { id: "h", name: "fine" });
    await put("/aggregates/group/h", ofStream("group.h"), 201);
    assert.equal(follower.status().quarantined, 1);
  });
});
