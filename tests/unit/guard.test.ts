/**
 * Goal: what is too much at once waits for a person, and nothing else does. Method: the guard and its memory alone, then a
 * capture room on twins whose database loses rows that nobody asked to delete.
 */
import assert from "node:assert/strict";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { BlastGuard, GUARD_DEFAULTS, type Blast } from "../../capture/guard.ts";
import { decideHeld, HELD_TABLE, listHeld } from "../../capture/held.ts";
import { present } from "../../core/assert.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom } from "../../core/random.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Capture, Service } from "../../schemas/define.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const SMALL: Blast = { kind: "user", deletes: 5, rewrites: 0, live: 1000, cause: "scan", sourceEmptied: false };

describe("the blast-radius guard", () => {
  const guard = (): { readonly guard: BlastGuard; readonly clock: VirtualClock } => {
    const clock = new VirtualClock();
    return { guard: new BlastGuard(clock, GUARD_DEFAULTS), clock };
  };

  it("holds only what is above the share and above the number", () => {
    const passes = (blast: Partial<Blast>): boolean => guard().guard.judge({ ...SMALL, ...blast }).pass;
    assert.equal(passes({ deletes: 50, live: 50 }), true);
    assert.equal(passes({ deletes: 51, live: 51 }), false);
    assert.equal(passes({ deletes: 100, live: 1000 }), true);
    assert.equal(passes({ deletes: 101, live: 1000 }), false);
    assert.equal(passes({ deletes: 60, rewrites: 41 }), false);
  });

  it("sums up what nobody asked for over the window, kind by kind, and nothing beyond it", async () => {
    const { guard: judge, clock } = guard();
    assert.equal(judge.judge({ ...SMALL, deletes: 90 }).pass, true);
    assert.equal(judge.judge({ ...SMALL, kind: "group", deletes: 90 }).pass, true);
    assert.equal(judge.judge({ ...SMALL, deletes: 20 }).pass, false);
    await clock.pass(GUARD_DEFAULTS.windowMs);
    assert.equal(judge.judge({ ...SMALL, deletes: 20 }).pass, true);
  });

  it("judges every call alone", () => {
    const { guard: judge } = guard();
    for (let call = 0; call < 20; call += 1) assert.equal(judge.judge({ ...SMALL, deletes: 90, cause: "call" }).pass, true);
    assert.equal(judge.judge({ ...SMALL, deletes: 101, cause: "call" }).pass, false);
  });

  it("lets nothing be deleted because of an emptied table, however little, but for a call", () => {
    const { guard: judge } = guard();
    assert.deepEqual(judge.judge({ ...SMALL, deletes: 1, sourceEmptied: true }).pass, false);
    assert.deepEqual(judge.judge({ ...SMALL, deletes: 1, sourceEmptied: true, cause: "call" }).pass, true);
  });
});

/** The toy service with domains that a running service always has. */
const guarded: Service = { ...toy, kinds: new Map([...toy.kinds].map(([name, kind]) =>
  [name, { ...kind, neverEmpty: name === "domain" }])) };

const DOMAIN = present(toy.tables.get("domain"), "domain");
const GROUP = present(toy.tables.get("group"), "group");
const PATCH: Capture = present(toy.captures.find(({ on }) => on === "PATCH /domains/{domain}"), "a capture");

class Stage {
  readonly clock = new VirtualClock();
  readonly stream = new MemoryStream(toy.name, this.clock);
  readonly rows = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION] });
  readonly faults = new Faults(this.clock);
  readonly capture: CaptureRoom;

  constructor() {
    const world = { clock: this.clock, random: seededRandom(1), log: silentLog, metrics: noMetrics };
    const feed = memoryFeed(this.stream, this.clock);
    const rooms = { service: guarded, scope: "all", rows: this.rows, feed, faults: this.faults };
    this.capture = new CaptureRoom(rooms, world, CAPTURE_DEFAULTS);
  }

  /** Rows of two kinds, published. */
  async fill(groups: number): Promise<void> {
    await this.rows.transaction(async (write) => {
      await write.insert(DOMAIN, [{ id: "d1", name: "one" }, { id: "d2", name: "two" }]);
      await write.insert(GROUP, Array.from({ length: groups }, (_, place) => ({ id: `g${place}`, name: `group ${place}` })));
    });
    await this.capture.start();
    await this.until(() => this.capture.notReady() === undefined);
    assert.equal(this.live(), groups + 2);
  }

  async until(condition: () => boolean): Promise<void> {
    assert(await this.clock.runUntil(condition, 600_000), "the condition is met in time");
  }

  async wait<T>(work: Promise<T>): Promise<T> {
    let done: { readonly value: T } | undefined;
    void work.then((value) => {
      done = { value };
    });
    await this.until(() => done !== undefined);
    return present(done, "waited for").value;
  }

  live(): number {
    return [...this.stream.above(0, "os.v1.toy.all.>")].filter(({ headers }) => headers["Hf-Deleted"] !== "1").length;
  }

  /** What is left in the table, without anybody having asked for it. */
  async lose(table: typeof GROUP, ids: readonly string[]): Promise<void> {
    await this.rows.transaction((write) => write.remove(table, ids.map((id) => ({ id }))));
  }
}

describe("a capture room and differences that nobody asked for", () => {
  it("publishes a few of them, and what is missing in the stream", async () => {
    const stage = new Stage();
    await stage.fill(60);
    await stage.lose(GROUP, ["g1", "g2"]);
    const counts = await stage.wait(stage.capture.scan("group", "images"));
    assert.deepEqual({ ...counts }, { kind: "group", aggregates: 58, missing: 0, stale: 0, unsaid: 0, superfluous: 2, held: 0 });
    assert.equal(stage.live(), 60);
    await stage.capture.stop();
  });

  it("holds many of them until they are released, and then does no more than was shown", async () => {
    const stage = new Stage();
    await stage.fill(200);
    await stage.lose(GROUP, Array.from({ length: 60 }, (_, place) => `g${place}`));
    assert.equal((await stage.wait(stage.capture.scan("group", "images"))).held, 60);
    assert.equal(stage.live(), 202);
    assert.deepEqual(stage.faults.list().map(({ code, about }) => [code, about]), [["E_BLAST_HELD", "toy group"]]);
    const notes = await stage.rows.snapshot(listHeld);
    assert.deepEqual(notes.map(({ kind, state, deletes, live }) => [kind, state, deletes, live]), [["group", "held", 60, 200]]);
    await stage.rows.transaction((write) => decideHeld(write, "group", "released"));
    assert.equal((await stage.wait(stage.capture.scan("group", "images"))).held, 0);
    assert.equal(stage.live(), 142);
    assert.deepEqual([stage.faults.list(), await stage.rows.snapshot(listHeld)], [[], []]);
    await stage.capture.stop();
  });

  it("forgets what it held when the rows are back", async () => {
    const stage = new Stage();
    await stage.fill(60);
    const before = await stage.rows.snapshot((read) => read.page(GROUP, { limit: 100 }));
    await stage.lose(GROUP, before.map(({ id }) => String(id)));
    assert.equal((await stage.wait(stage.capture.scan("group", "images"))).held, 60);
    await stage.rows.transaction((write) => write.insert(GROUP, before));
    await stage.wait(stage.capture.scan("group", "images"));
    assert.deepEqual([stage.live(), stage.faults.list(), await stage.rows.snapshot(listHeld)], [62, [], []]);
    await stage.capture.stop();
  });

  it("stops complaining when another process has found the difference gone, or a person has decided", async () => {
    const stage = new Stage();
    await stage.fill(60);
    const before = await stage.rows.snapshot((read) => read.page(GROUP, { limit: 100 }));
    await stage.lose(GROUP, before.map(({ id }) => String(id)));
    await stage.wait(stage.capture.scan("group", "images"));
    assert.equal(stage.faults.list().length, 1);
    await stage.rows.transaction((write) => write.remove(HELD_TABLE, [{ kind: "group" }]));
    await stage.until(() => stage.faults.list().length === 0);
    await stage.wait(stage.capture.scan("group", "images"));
    assert.equal(stage.faults.list().length, 1);
    await stage.rows.transaction((write) => decideHeld(write, "group", "rejected"));
    await stage.until(() => stage.faults.list().length === 0);
    await stage.capture.stop();
  });

  it("forgets what it held when so many rows are back that the rest may go", async () => {
    const stage = new Stage();
    await stage.fill(60);
    const before = await stage.rows.snapshot((read) => read.page(GROUP, { limit: 100 }));
    await stage.lose(GROUP, before.map(({ id }) => String(id)));
    assert.equal((await stage.wait(stage.capture.scan("group", "images"))).held, 60);
    await stage.rows.transaction((write) => write.insert(GROUP, before.slice(5)));
    assert.equal((await stage.wait(stage.capture.scan("group", "images"))).held, 0);
    assert.deepEqual([stage.live(), stage.faults.list(), await stage.rows.snapshot(listHeld)], [57, [], []]);
    await stage.capture.stop();
  });

  it("keeps what was rejected from being deleted, however small it becomes", async () => {
    const stage = new Stage();
    await stage.fill(60);
    const before = await stage.rows.snapshot((read) => read.page(GROUP, { limit: 100 }));
    await stage.lose(GROUP, before.map(({ id }) => String(id)));
    await stage.wait(stage.capture.scan("group", "images"));
    await stage.rows.transaction((write) => decideHeld(write, "group", "rejected"));
    await stage.rows.transaction((write) => write.insert(GROUP, before.slice(0, 58)));
    assert.equal((await stage.wait(stage.capture.scan("group", "images"))).held, 2);
    assert.equal(stage.live(), 62);
    await stage.capture.stop();
  });

  it("does not call anything deleted after a look at an emptied table, not even what a call just touched", async () => {
    const stage = new Stage();
    await stage.fill(3);
    await stage.lose(DOMAIN, ["d1", "d2"]);
    const facts = { parameters: { domain: "d1" }, request: undefined, answer: undefined };
    await stage.wait(stage.capture.after(PATCH, facts, undefined));
    await stage.wait(stage.capture.scan("domain", "images"));
    await stage.wait(stage.capture.scan("group", "images"));
    assert.equal(stage.live(), 5);
    assert.deepEqual(new Set(stage.faults.list().map(({ code }) => code)), new Set(["E_CENTRE_EMPTIED"]));
  });

  it("calls it deleted once a person has released it, and not when the rows are back before", async () => {
    const stage = new Stage();
    await stage.fill(3);
    await stage.lose(DOMAIN, ["d1", "d2"]);
    await stage.wait(stage.capture.scan("domain", "images"));
    assert.equal(stage.live(), 5);
    await stage.rows.transaction((write) => decideHeld(write, "domain", "released"));
    await stage.wait(stage.capture.scan("domain", "images"));
    assert.equal(stage.live(), 3);
    await stage.capture.stop();
  });

  it("forgets an emptied table when the rows are back", async () => {
    const stage = new Stage();
    await stage.fill(3);
    await stage.lose(DOMAIN, ["d1", "d2"]);
    await stage.wait(stage.capture.scan("domain", "images"));
    await stage.rows.transaction((write) => write.insert(DOMAIN, [{ id: "d1", name: "one" }, { id: "d2", name: "two" }]));
    await stage.wait(stage.capture.scan("domain", "images"));
    assert.equal(stage.live(), 5);
    await stage.capture.stop();
  });
});

describe("a capture room and epochs", () => {
  it("says everything again when the stream was made anew", async () => {
    const stage = new Stage();
    await stage.fill(3);
    stage.stream.faults.recreate();
    await stage.until(() => stage.live() === 5);
    const epochs = new Set([...stage.stream.above(0, "os.v1.toy.all.>")].map(({ headers }) => headers["Hf-Epoch"]));
    assert.deepEqual([...epochs], ["2"]);
    await stage.capture.stop();
  });

  it("says images of an older epoch again although they are equal", async () => {
    const stage = new Stage();
    await stage.fill(3);
    await stage.wait(stage.capture.raiseEpoch("for the test", 7, "stream"));
    await stage.until(() => stage.capture.status().filled && stage.capture.status().epoch === 7);
    const epochs = [...stage.stream.above(0, "os.v1.toy.all.>")].map(({ headers }) => headers["Hf-Epoch"]);
    assert.deepEqual(epochs, ["7", "7", "7", "7", "7"]);
    await stage.capture.stop();
  });

  it("goes above an epoch that the database knows nothing of, and says that it was restored", async () => {
    const stage = new Stage();
    await stage.fill(3);
    stage.capture.noteEpoch(9);
    await stage.until(() => stage.capture.status().epoch === 10 && stage.capture.status().filled);
    assert.equal(stage.live(), 5);
    assert.ok(stage.faults.list().some(({ code }) => code === "E_CENTRE_RESTORED"));
    await stage.capture.stop();
  });

  it("says an equal image again when a site asks for it", async () => {
    const stage = new Stage();
    await stage.fill(1);
    const before = present(stage.stream.last("os.v1.toy.all.group.g0"), "there").sequence;
    await stage.wait(stage.capture.force([{ kind: "group", values: ["g0"] }]));
    assert.ok(present(stage.stream.last("os.v1.toy.all.group.g0"), "there").sequence > before);
    await stage.capture.stop();
  });
});
