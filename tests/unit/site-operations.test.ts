/**
 * Goal: who asks a site, over the stream server or at its own door, learns how its rows are without seeing a secret, and can
 * decide about what waits; drift is repaired by the daemon's own parts while the link is down. Method: follower, row audit and
 * operations as the daemon wires them, on twins and virtual time, asked over the twin of the stream server.
 */
import assert from "node:assert/strict";
import { OperatingError } from "../../core/errors.ts";
import { present } from "../../core/assert.ts";
import { silentLog } from "../../core/log.ts";
import type { Input, JsonValue, Operations } from "../../core/operation.ts";
import { seededRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import { askOperation, serveOperations } from "../../feed/asking.ts";
import { siteAskSubject } from "../../feed/subjects.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import { maskedRows } from "../../schemas/masking.ts";
import { digestOf, canonicalImage, keyFromText, type Row } from "../../schemas/row.ts";
import { operationsOfServices, siteOperations } from "../../syncd/operations.ts";
import { RowAudit, ROW_AUDIT_DEFAULTS } from "../../syncd/row-audit.ts";
import { altered } from "../simulation/altered.ts";
import { FollowedSite, groupRows, StagedCentre, type Tables } from "../support/followed-site.ts";
import { toy } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { PROVEN } from "../support/centre-word.ts";

const MASK = "m".repeat(36);
const REST_MS = 60_000;
const POISON = "poison";
type Answer = Readonly<Record<string, JsonValue>>;

/** A database that cannot hold the name "poison". */
function picky(rows: Rows, isPicky: () => boolean): Rows {
  const refuse = (write: RowWriter): RowWriter => altered(write, {
    insert: async (table, inserted) => {
      if (isPicky() && inserted.some((row) => row["name"] === POISON)) {
        throw new OperatingError("E_ROWS_REFUSED", "not representable");
      }
      await write.insert(table, inserted);
    },
  });
  return altered(rows, { transaction: <T>(work: (write: RowWriter) => Promise<T>) =>
    rows.transaction((write) => work(refuse(write))) });
}

const userRows = (id: string, name = id, hash = `hash of ${id}`): Tables =>
  ({ user: [{ id, domain_id: "d", name }], secret: [{ id: Number(id.slice(1)), user_id: id, hash }] });
const digest = (name: string, tables: Tables): string => digestOf(canonicalImage(toy, keyFromText(name), tables));

describe("a site that is asked", () => {
  let clock: VirtualClock;
  let centre: StagedCentre;
  let site: FollowedSite;
  let rowAudit: RowAudit;
  let operations: Operations;
  let isPicky: boolean;
  let unserve: () => void;

  beforeEach(async () => {
    clock = new VirtualClock();
    centre = new StagedCentre(clock);
    isPicky = true;
    await centre.put("domain", ["d"], { domain: [{ id: "d", name: "d" }] });
    for (const id of ["u1", "u2", "u3"]) await centre.put("user", [id], userRows(id));
    await centre.beat();
    site = new FollowedSite(clock, centre, { rows: (rows) => picky(rows, () => isPicky) });
    const { follower } = site;
    const world: World = { clock, random: seededRandom(2), log: silentLog, metrics: site.metrics };
    rowAudit = new RowAudit({ service: toy, rows: site.rows, stream: centre.feed.stream, faults: site.faults,
      holding: follower.holding, isFollowing: () => follower.isFilled, repair: (changes) => follower.repair(changes),
      committed: () => undefined, ...PROVEN }, world, { ...ROW_AUDIT_DEFAULTS, restMs: REST_MS });
    operations = siteOperations({ service: toy, rows: site.rows, site: "edge1", follower, rowAudit }, world);
    unserve = serveOperations(site.feed, siteAskSubject("toy", "edge1"), operations, silentLog);
    assert(await site.caughtUp());
  });

  afterEach(async () => {
    unserve();
    await Promise.all([rowAudit.stop(), site.follower.stop(), clock.pass(10_000)]);
  });

  /** Lets time pass until the work has ended. */
  const ended = async <T>(work: Promise<T>): Promise<T> => {
    let isOver = false;
    const over = (): void => void (isOver = true);
    work.then(over, over);
    assert(await clock.runUntil(() => isOver, 600_000), "it ends");
    return work;
  };
  const ask = (op: string, input: Input = {}): Promise<JsonValue> =>
    ended(askOperation(centre.feed, siteAskSubject("toy", "edge1"), op, input, 300_000));
  const asked = async (op: string, input: Input = {}): Promise<Answer> => await ask(op, input) as Answer;
  const byHand = (table: string, rows: readonly Row[], columns: readonly string[]): Promise<void> =>
    site.rows.transaction((write) => write.update(present(toy.tables.get(table), table), rows, columns));
  const statesIn = (answer: Answer): readonly Answer[] => answer["states"] as readonly Answer[];

  it("tells how aggregates stand beside the centre's digests, and leaves out equal ones", async () => {
    await byHand("secret", [{ id: 2, hash: "stolen" }], ["hash"]);
    await site.rows.transaction((write) => write.remove(present(toy.tables.get("secret"), "secret"), [{ id: 3 }]));
    const entries = [["user.u1", digest("user.u1", userRows("u1"))], ["user.u2", digest("user.u2", userRows("u2"))],
      ["user.u3", "another digest"], ["user.u9", "no such user here"], ["domain.d", "x"]];
    const answer = await asked("states", { entries, mask: MASK });
    assert.equal(answer["answered"], 5);
    assert.deepEqual(statesIn(answer).map(({ name, what }) => [name, what]),
      [["user.u2", "different"], ["user.u3", "different"], ["user.u9", "missing"], ["domain.d", "different"]]);
    assert.deepEqual(statesIn(answer)[0]?.["rows"], maskedRows(toy, userRows("u2", "u2", "stolen"), MASK));
    assert.deepEqual((statesIn(answer)[1]?.["rows"] as Answer)["secret"], []);
    assert(!JSON.stringify(answer).includes("stolen"));
  });

  it("says of a change that waits that it waits, although the digest it had is equal", async () => {
    await centre.put("group", ["g"], groupRows("g"));
    assert(await site.caughtUp());
    await centre.put("group", ["g"], groupRows("g", POISON));
    await site.rows.transaction((write) => write.remove(present(toy.tables.get("group"), "group"), [{ id: "g" }]));
    assert(await clock.runUntil(() => site.follower.status().quarantined === 1, 60_000));
    const answer = await asked("states", { entries: [["group.g", digest("group.g", groupRows("g"))]], mask: MASK });
    assert.deepEqual(statesIn(answer).map(({ what, waits }) => [what, waits]), [["missing", "quarantined: E_ROWS_REFUSED"]]);
  });

  it("answers as much as an answer holds, and says how much that was", async () => {
    const long = (id: string): Tables => userRows(id, `${id} ${"x".repeat(150_000)}`);
    for (const id of ["u4", "u5", "u6"]) await centre.put("user", [id], long(id));
    await centre.put("user", ["u7"], userRows("u7", "y".repeat(500_000)));
    assert(await site.caughtUp());
    const names = ["user.u1", "user.u4", "user.u5", "user.u6", "user.u7"];
    const seen: (readonly [JsonValue | undefined, boolean])[] = [];
    for (let from = 0, rounds = 0; from < names.length; rounds += 1) {
      assert(rounds < names.length);
      const answer = await asked("states", { entries: names.slice(from).map((name) => [name, "x"]), mask: MASK });
      assert(JSON.stringify(answer).length < 420_000, "an answer fits into a message");
      seen.push(...statesIn(answer).map(({ name, rows }) => [name, rows === null] as const));
      from += Number(answer["answered"]);
    }
    assert.deepEqual(seen, names.map((name) => [name, name === "user.u7"]));
  });

  it("names what has rows here, strangers too, page by page; of a log only what was applied", async () => {
    const at = "2026-01-01T00:00:00.000000";
    await centre.put("event", ["1"], { event: [{ id: 1, user_id: null, at }] });
    assert(await site.caughtUp());
    await site.rows.transaction(async (write) => {
      await write.insert(present(toy.tables.get("user"), "user"), [{ id: "x", domain_id: "d", name: "x" }]);
      await write.insert(present(toy.tables.get("event"), "event"), [{ id: 1 << 30, user_id: null, at }]);
    });
    const names: JsonValue[] = [];
    let after: JsonValue = null;
    do {
      const page: Answer = await asked("names", { kind: "user", limit: 3, after });
      names.push(...page["names"] as readonly JsonValue[]);
      after = page["next"] ?? null;
    } while (after !== null);
    const known = ["u1", "u2", "u3"].map((id) => [`user.${id}`, digest(`user.${id}`, userRows(id))]);
    assert.deepEqual(names, [...known, ["user.x", null]]);
    assert.deepEqual(((await asked("names", { kind: "event" }))["names"] as JsonValue[]).length, 1);
  });

  it("refuses input that it cannot take, with a code", async () => {
    const wrong: readonly (readonly [string, Input])[] = [["states", { entries: [["user.u1", "d"]], mask: "short" }],
      ["states", { entries: [["nothing.x", "d"]], mask: MASK }], ["states", { entries: [["user.u1.u2", "d"]], mask: MASK }],
      ["states", { entries: "user.u1", mask: MASK }], ["names", { kind: "nothing" }], ["names", { kind: "user", after: "u1" }],
      ["names", { kind: "user", limit: 1e9 }], ["quarantine.show", { name: "user.u1" }], ["quarantine.drop", {}],
      ["held.release", { kind: "user" }], ["resync", { site: "edge2" }], ["rowaudit", { service: "other" }]];
    for (const [op, input] of wrong) {
      await assert.rejects(ask(op, input), { code: "E_OPERATION_INPUT" }, `${op} ${JSON.stringify(input)}`);
    }
  });

  it("shows a quarantined change masked, tries it again, and forgets it until the next manifest", async () => {
    await centre.put("user", ["u8"], userRows("u8", POISON));
    assert(await clock.runUntil(() => site.follower.status().quarantined === 1, 60_000));
    const list = await asked("quarantine.list");
    const codes = (list["entries"] as readonly Answer[]).map(({ name, code }) => [name, code]);
    assert.deepEqual(codes, [["user.u8", "E_ROWS_REFUSED"]]);
    const shown = await asked("quarantine.show", { name: "user.u8" });
    assert.match(JSON.stringify(shown["image"]), /"name":"poison".*"hash":"secret:/);
    assert.match(String((await asked("quarantine.retry", { name: "user.u8" }))["outcome"]), /^quarantined again/);
    await ask("quarantine.drop", { name: "user.u8" });
    assert.equal(site.follower.status().quarantined, 0);
    assert.deepEqual((await asked("quarantine.list"))["entries"], []);
    isPicky = false;
    const stop = centre.answer();
    await centre.manifest();
    assert(await site.caughtUp());
    stop();
    assert((await site.applied()).includes("user.u8"));
    assert.deepEqual(await site.differences(), []);
  });

  it("applies a quarantined change when asked to try again after the obstacle is gone", async () => {
    await centre.put("user", ["u8"], userRows("u8", POISON));
    assert(await clock.runUntil(() => site.follower.status().quarantined === 1, 60_000));
    isPicky = false;
    assert.match(String((await asked("quarantine.retry", { name: "user.u8" }))["outcome"]), /^applied/);
    assert.deepEqual(await site.differences(), []);
  });

  it("repairs drift while the link is down, within a pass and its rest", async () => {
    await rowAudit.start();
    assert(await clock.runUntil(() => rowAudit.last !== undefined, 60_000));
    site.feed.cut("cut");
    await byHand("user", [{ id: "u2", name: "mine" }], ["name"]);
    await site.rows.transaction((write) => write.remove(present(toy.tables.get("secret"), "secret"), [{ id: 1 }]));
    await clock.pass(REST_MS + 10_000);
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual(site.codes.filter((code) => code.includes("DRIFT")), ["E_SITE_DRIFT"]);
    await clock.pass(REST_MS + 10_000);
    assert.deepEqual(site.codes.filter((code) => code.includes("DRIFT")), []);
  });

  it("runs a pass when asked, and shows what was overwritten, masked", async () => {
    await rowAudit.start();
    assert(await clock.runUntil(() => rowAudit.last !== undefined, 60_000));
    await byHand("secret", [{ id: 2, hash: "stolen" }], ["hash"]);
    const report = await asked("rowaudit");
    assert.deepEqual([report["site"], report["changed"], report["repaired"]], ["edge1", 1, 1]);
    const drift = await asked("drift.list");
    assert.match(JSON.stringify(drift["entries"]), /"name":"user.u2".*"hash":"secret:/);
    assert(!JSON.stringify(drift).includes("stolen"));
  });

  it("goes on with a held repair once a person has released it, by itself", async () => {
    for (let id = 10; id < 100; id += 1) await centre.put("user", [`u${id}`], userRows(`u${id}`));
    assert(await site.caughtUp());
    await byHand("secret", Array.from({ length: 60 }, (_, place) => ({ id: place + 10, hash: "x" })), ["hash"]);
    await rowAudit.start();
    assert.deepEqual((await asked("rowaudit"))["held"], ["user"]);
    await clock.pass(1_000);
    const [note] = await ask("held.list") as readonly Answer[];
    assert.deepEqual([note?.["kind"], note?.["rewrites"], note?.["site"], note?.["service"]], ["user", 60, "edge1", "toy"]);
    assert.equal((await asked("held.release", { kind: "user" }))["state"], "released");
    await clock.pass(REST_MS / 2);
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual(await ask("held.list"), []);
  });

  it("reads the whole stream anew when asked, and does not compare rows meanwhile", async () => {
    await rowAudit.start();
    assert.deepEqual(await ask("resync"), { site: "edge1", service: "toy", started: true });
    assert(await site.caughtUp());
    assert.equal(site.metrics.counts.get("holdfast_resyncs_total asked"), 1);
    assert.deepEqual(await site.differences(), []);
  });

  it("answers a person for all services in one list, and refuses only when each does", async () => {
    const none: Operations = new Map([["held.release", () => Promise.reject(new OperatingError("E_OPERATION_INPUT", "none"))]]);
    const desk = operationsOfServices(new Map([["other", none], ["toy", operations]]));
    const run = (name: string, input: Input): Promise<JsonValue> =>
      ended(present(desk.get(name), name)(input, () => undefined, new AbortController().signal));
    assert.deepEqual(await run("quarantine.list", {}), [{ site: "edge1", service: "toy", entries: [], more: false }]);
    await assert.rejects(run("held.release", { kind: "user" }), { code: "E_OPERATION_INPUT" });
    await assert.rejects(run("held.list", { service: "third" }), { code: "E_OPERATION_INPUT" });
    assert.equal(desk.has("states"), false);
  });
});
