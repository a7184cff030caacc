/**
 * Goal: what triggers mark is on the stream soon, each mark is deleted only then, and what is too much waits for a person.
 * Method: a database twin with triggers, a capture room and a stream on a virtual clock; for order and bounds, a capture that
 * finishes when the test says so.
 */
import assert from "node:assert/strict";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { DRAIN_DEFAULTS, TriggerDrain, type DrainOptions, type MarkSink } from "../../capture/triggers.ts";
import { present } from "../../core/assert.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom } from "../../core/random.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { RowFault } from "../../rows/memory-store.ts";
import { MARKS_TABLE } from "../../rows/trigger-plan.ts";
import type { RowWriter } from "../../rows/rows.ts";
import type { Table } from "../../schemas/define.ts";
import { keyText, type Row } from "../../schemas/row.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const tableNamed = (name: string): Table => present(toy.tables.get(name), name);
const [GROUP, USER, SECRET, EVENT] = ["group", "user", "secret", "event"].map(tableNamed) as [Table, Table, Table, Table];
const groups = (count: number, from = 0): readonly Row[] =>
  Array.from({ length: count }, (_, place) => ({ id: `g${from + place}`, name: `g${from + place}` }));

/** A database with triggers, and time. */
class Database {
  readonly clock = new VirtualClock();
  readonly world = { clock: this.clock, random: seededRandom(1), log: silentLog, metrics: noMetrics };
  readonly faults = new Faults(this.clock);
  fault: RowFault | undefined;
  readonly rows = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION], cascades: ["secret"],
    faults: { beforeCall: () => this.fault } });

  install(): Promise<void> {
    return this.rows.triggers(toy).install();
  }

  write(work: (write: RowWriter) => Promise<void>): Promise<void> {
    return this.rows.transaction(work);
  }

  async marks(): Promise<number> {
    return (await this.rows.snapshot((read) => read.page(MARKS_TABLE, { limit: 100_000 }))).length;
  }
}

/** With the real capture and a stream behind it. */
class Stage extends Database {
  readonly stream = new MemoryStream(toy.name, this.clock);
  readonly capture = new CaptureRoom({ service: toy, scope: "all", rows: this.rows, feed: memoryFeed(this.stream, this.clock),
    faults: this.faults }, this.world, CAPTURE_DEFAULTS);
  readonly drain = new TriggerDrain({ service: toy, rows: this.rows, faults: this.faults, capture: this.capture }, this.world);

  async start(): Promise<void> {
    await this.capture.start();
    assert.ok(await this.clock.runUntil(() => this.capture.notReady() === undefined, 60_000), "capture is ready");
    await this.drain.start();
    await this.clock.pass(1_000);
  }

  live(kind: string): readonly string[] {
    const found = [...this.stream.above(0, "os.v1.toy.all.>")].filter(({ subject, headers }) =>
      subject.startsWith(`os.v1.toy.all.${kind}.`) && headers["Hf-Deleted"] !== "1");
    return found.map(({ subject }) => subject.slice(`os.v1.toy.all.${kind}.`.length)).sort();
  }

  async stop(): Promise<void> {
    await this.drain.stop();
    await this.capture.stop();
  }
}

describe("trigger capture", () => {
  let stage: Stage;
  beforeEach(async () => {
    stage = new Stage();
    await stage.install();
    await stage.start();
  });
  afterEach(() => stage.stop());

  it("publishes what nobody called for within a second, and leaves no mark", async () => {
    await stage.write(async (write) => {
      await write.insert(USER, [{ id: "u", domain_id: "d", name: "u" }]);
      await write.insert(SECRET, [{ user_id: "u", hash: "1" }]);
      await write.insert(EVENT, [{ user_id: "u", at: "2026-01-02T03:04:05.000000" }]);
    });
    await stage.clock.pass(1_000);
    assert.deepEqual([stage.live("user"), stage.live("event")], [["u"], ["1"]]);
    await stage.write((write) => write.remove(USER, [{ id: "u" }]));
    await stage.clock.pass(1_000);
    assert.deepEqual([stage.live("user"), await stage.marks()], [[], 0]);
  });

  it("asks the guard when many of a kind go at once, and for what follows", async () => {
    await stage.write((write) => write.insert(GROUP, groups(200)));
    await stage.clock.pass(1_000);
    assert.equal(stage.live("group").length, 200);
    await stage.clock.pass(120_000);
    await stage.write((write) => write.remove(GROUP, groups(100)));
    await stage.clock.pass(1_000);
    assert.equal(stage.live("group").length, 200);
    // Within the guard's allowance once, not twice.
    for (const from of [100, 140]) {
      await stage.write((write) => write.remove(GROUP, groups(40, from)));
      await stage.clock.pass(1_000);
      assert.equal(stage.live("group").length, 160);
    }
    assert.deepEqual(stage.faults.list().map(({ code }) => code), ["E_BLAST_HELD"]);
    assert.equal(await stage.marks(), 0, "what is held is remembered as held, not as marks");
  });

  it("compares a kind that is marked as a whole", async () => {
    await stage.write((write) => write.insert(GROUP, groups(3)));
    await stage.write(async (write) => {
      const marks = await write.page(MARKS_TABLE, { limit: 10 });
      await write.remove(MARKS_TABLE, marks);
      await write.insert(MARKS_TABLE, [{ kind: "group", names: null }]);
    });
    await stage.clock.pass(1_000);
    assert.deepEqual([stage.live("group"), await stage.marks()], [["g0", "g1", "g2"], 0]);
  });

  it("passes over marks that mean nothing, and takes those it cannot read for the whole kind", async () => {
    await stage.write((write) => write.insert(GROUP, groups(1)));
    await stage.clock.pass(1_000);
    await stage.write((write) => write.insert(MARKS_TABLE, [{ kind: "no such", names: "[\"x\"]" }, { kind: "group", names: "[" },
      { kind: "group", names: "[\"a\",\"b\"]" }, { kind: "group", names: "[\"never there\"]" }]));
    await stage.clock.pass(2_000);
    assert.deepEqual([stage.live("group"), await stage.marks()], [["g0"], 0]);
    assert.equal([...stage.stream.above(0, "os.v1.toy.all.>")].some(({ subject }) => subject.includes("never")), false);
  });

  it("says that triggers are missing until they are back", async () => {
    await stage.rows.triggers(toy).remove();
    await stage.clock.pass(30_000);
    assert.deepEqual(stage.faults.list().map(({ code }) => code), ["E_TRIGGERS_MISSING"]);
    assert.match(stage.drain.notReady() ?? "", /missing/);
    await stage.install();
    await stage.write((write) => write.insert(GROUP, groups(1)));
    await stage.clock.pass(30_000);
    assert.deepEqual([stage.faults.list(), stage.drain.notReady(), stage.live("group")], [[], undefined, ["g0"]]);
  });

  it("waits for a database that is away", async () => {
    stage.fault = "unavailable";
    await stage.clock.pass(30_000);
    stage.fault = undefined;
    await stage.write((write) => write.insert(GROUP, groups(1)));
    await stage.clock.pass(30_000);
    assert.deepEqual([stage.live("group"), await stage.marks()], [["g0"], 0]);
  });
});

/** A capture that finishes nothing by itself. */
class Slow implements MarkSink {
  readonly asked: string[] = [];
  readonly #waiting: { readonly name: string; readonly finish: () => void }[] = [];

  #wait(name: string): Promise<void> {
    this.asked.push(name);
    return new Promise((resolve) => this.#waiting.push({ name, finish: resolve }));
  }

  publish(keys: Parameters<MarkSink["publish"]>[0]): Promise<void> {
    return this.#wait(keys.map(keyText).join());
  }

  publishFound(keys: Parameters<MarkSink["publishFound"]>[0]): Promise<void> {
    return this.#wait(`found ${keys.length}`);
  }

  scan(kind: string): Promise<void> {
    return this.#wait(`scan ${kind}`);
  }

  /** Finishes what was asked for under names that match. */
  finish(names: RegExp): void {
    for (const { name, finish } of this.#waiting) if (names.test(name)) finish();
  }
}

describe("marks", () => {
  let database: Database;
  let slow: Slow;
  let drain: TriggerDrain;
  const begin = async (options: Partial<DrainOptions> = {}): Promise<void> => {
    drain = new TriggerDrain({ service: toy, rows: database.rows, faults: database.faults, capture: slow }, database.world,
      { ...DRAIN_DEFAULTS, ...options });
    await drain.start();
    await database.clock.pass(500);
  };
  beforeEach(async () => {
    database = new Database();
    slow = new Slow();
    await database.install();
  });
  afterEach(() => drain.stop());

  it("stay until their aggregate is published, and one that is slow holds up nobody", async () => {
    await database.write((write) => write.insert(GROUP, groups(2)));
    await begin();
    slow.finish(/g1/);
    await database.clock.pass(500);
    assert.deepEqual([slow.asked, await database.marks()], [["group.g0", "group.g1"], 1]);
    await database.write((write) => write.insert(GROUP, groups(1, 2)));
    await database.clock.pass(500);
    slow.finish(/g/);
    await database.clock.pass(500);
    assert.deepEqual([slow.asked, await database.marks()], [["group.g0", "group.g1", "group.g2"], 0]);
  });

  it("of an aggregate that changes again are looked at again", async () => {
    await database.write((write) => write.insert(GROUP, groups(1)));
    await begin();
    await database.write((write) => write.update(GROUP, [{ id: "g0", name: "again" }], ["name"]));
    await database.clock.pass(500);
    slow.finish(/g0/);
    await database.clock.pass(500);
    assert.deepEqual([slow.asked, await database.marks()], [["group.g0", "group.g0"], 0]);
  });

  it("with lower numbers that appear later are not overlooked", async () => {
    await database.write((write) => write.insert(MARKS_TABLE, [{ id: 100, kind: "group", names: "[\"late\"]" }]));
    await begin();
    slow.finish(/late/);
    await database.clock.pass(500);
    await database.write((write) => write.insert(MARKS_TABLE, [{ id: 7, kind: "group", names: "[\"early\"]" }]));
    await database.clock.pass(500);
    slow.finish(/early/);
    await database.clock.pass(500);
    assert.deepEqual([slow.asked, await database.marks()], [["group.late", "group.early"], 0]);
  });

  it("are read again after a stop that came before the end", async () => {
    await database.write((write) => write.insert(GROUP, groups(1)));
    await begin();
    await drain.stop();
    assert.equal(await database.marks(), 1);
    await begin();
    assert.deepEqual(slow.asked, ["group.g0", "group.g0"]);
  });

  it("are read as far as there is room, and give way to whole kinds where there are too many", async () => {
    await database.write((write) => write.insert(GROUP, groups(40)));
    await begin({ pageMarksMax: 10, inFlightMarksMax: 20, marksMax: 1_000 });
    assert.equal(drain.status().inFlight, 20);
    await drain.stop();
    slow = new Slow();
    await database.write((write) => write.insert(EVENT, [{ user_id: null, at: "2026-01-02T03:04:05.000000" }]));
    await begin({ pageMarksMax: 10, inFlightMarksMax: 20, marksMax: 30, crowdedMs: 100 });
    assert.equal(await database.marks(), 5);
    slow.finish(/./);
    await database.clock.pass(1_000);
    slow.finish(/./);
    await database.clock.pass(1_000);
    assert.deepEqual([new Set(slow.asked.filter((name) => name.startsWith("scan"))), await database.marks()],
      [new Set(["scan group", "scan event"]), 0]);
  });
});
