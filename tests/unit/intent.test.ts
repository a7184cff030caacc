/** The intent journal: what was noted survives, at every byte at which a crash may cut and every bit that may flip. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isOperating } from "../../core/errors.ts";
import { decodeSegment, encodeRecord, JOURNAL_DEFAULTS, openJournal, type IntentNote, type Journal,
  type JournalOptions } from "../../proxy/intent.ts";
import type { JournalFile, JournalFolder } from "../../proxy/journal-file.ts";
import { testWorld } from "../support/upstream.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const note = (name: string): IntentNote => ({ capture: "PATCH /v3/users/{user_id}", parameters: { user_id: name },
  keys: [`user.${name}`], scans: [], startedMs: 0 });

/** A disk in memory that counts, fails on demand, and forgets what was not synced when it crashes. */
class MemoryFolder implements JournalFolder {
  readonly files = new Map<string, { bytes: Buffer; syncedBytes: number }>();
  writes = 0;
  syncs = 0;
  failing: string | undefined;
  /** Waits before every sync, so that a test decides when the disk is done. */
  beforeSync: () => Promise<void> = () => Promise.resolve();

  claim = (): Promise<void> => Promise.resolve();
  release = (): Promise<void> => Promise.resolve();
  list = (): Promise<readonly string[]> => Promise.resolve([...this.files.keys()]);
  read = (name: string): Promise<Uint8Array> => Promise.resolve(this.files.get(name)?.bytes ?? Buffer.alloc(0));
  remove = (name: string): Promise<void> => Promise.resolve(void this.files.delete(name));

  async create(name: string): Promise<JournalFile> {
    await this.#mayFail();
    const file = { bytes: Buffer.alloc(0), syncedBytes: 0 };
    assert.ok(!this.files.has(name));
    this.files.set(name, file);
    return {
      append: async (bytes) => {
        await this.#mayFail();
        this.writes += 1;
        file.bytes = Buffer.concat([file.bytes, bytes]);
      },
      sync: async () => {
        await this.beforeSync();
        await this.#mayFail();
        this.syncs += 1;
        file.syncedBytes = file.bytes.length;
      },
      close: () => Promise.resolve(),
    };
  }

  async #mayFail(): Promise<void> {
    await Promise.resolve();
    if (this.failing !== undefined) throw Object.assign(new Error(this.failing), { code: this.failing });
  }

  /** The same disk after a power failure. */
  crashed(): MemoryFolder {
    const after = new MemoryFolder();
    for (const [name, { bytes, syncedBytes }] of this.files) {
      after.files.set(name, { bytes: bytes.subarray(0, syncedBytes), syncedBytes });
    }
    return after;
  }
}

const memoryJournal = (folder: MemoryFolder, world = testWorld, options: Partial<JournalOptions> = {}): Promise<Journal> =>
  openJournal({ folder: "memory", ...JOURNAL_DEFAULTS, ...options }, world, folder);
const namesOf = (journal: Journal): readonly (string | undefined)[] =>
  journal.opened().map((intent) => intent.note.parameters["user_id"]);

describe("the intent journal", () => {
  it("keeps what is open over a crash, as last amended, and forgets what was closed", async () => {
    const disk = new MemoryFolder();
    const journal = await memoryJournal(disk);
    const [first, second, third] = await Promise.all([journal.open(note("a")), journal.open(note("b")), journal.open(note("c"))]);
    journal.close(first);
    journal.amend(second, { keys: ["user.b", "user.new"] });
    const fourth = await journal.open(note("d"));
    journal.close(fourth);
    const again = await memoryJournal(disk.crashed());
    const open = again.opened().map(({ id, note: { keys } }) => [id, keys]);
    assert.deepEqual(open, [[second.id, ["user.b", "user.new"]], [third.id, ["user.c"]], [fourth.id, ["user.d"]]]);
    assert.equal(again.damaged(), false);
    assert.ok((await again.open(note("e"))).id > fourth.id);
  });

  it("resolves only when the note is on the disk, and shares one write and one sync among all that wait", async () => {
    const disk = new MemoryFolder();
    const journal = await memoryJournal(disk);
    await journal.open(note("first"));
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    disk.beforeSync = () => held;
    const [writes, syncs] = [disk.writes, disk.syncs];
    let durable = 0;
    const all = Array.from({ length: 100 }, (_, count) => journal.open(note(String(count))).then(() => (durable += 1)));
    for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
    assert.equal(durable, 0);
    assert.equal(disk.crashed().files.get("segment-1")?.bytes.includes("\"99\""), false);
    release();
    await Promise.all(all);
    assert.deepEqual([durable, disk.writes - writes, disk.syncs - syncs], [100, 1, 1]);
  });

  it("survives a cut at every byte of its last record", async () => {
    const disk = new MemoryFolder();
    const journal = await memoryJournal(disk);
    await journal.open(note("kept"));
    const wholeBytes = disk.files.get("segment-1")?.bytes.length ?? 0;
    await journal.open(note("last"));
    const bytes = disk.files.get("segment-1")?.bytes ?? Buffer.alloc(0);
    for (let at = wholeBytes; at <= bytes.length; at += 1) {
      const cut = new MemoryFolder();
      cut.files.set("segment-1", { bytes: bytes.subarray(0, at), syncedBytes: at });
      const again = await memoryJournal(cut);
      assert.deepEqual(namesOf(again), at === bytes.length ? ["kept", "last"] : ["kept"], `cut at ${at}`);
      assert.equal(again.damaged(), false, `cut at ${at}`);
      await again.open(note("next"));
      assert.equal((await memoryJournal(cut.crashed())).opened().length, at === bytes.length ? 3 : 2);
    }
  });

  it("notices every flipped bit, and never reads what was not written", () => {
    const written = [encodeRecord(["note", 1, note("a")]), encodeRecord(["note", 2, note("b")])];
    const bytes = Buffer.concat(written);
    const firstBytes = written[0]?.byteLength ?? 0;
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const { records, end } = decodeSegment(flipped);
      assert.equal(end, "damaged", `bit ${bit}`);
      assert.equal(records.length, bit < firstBytes * 8 ? 0 : 1);
    }
    assert.equal(decodeSegment(Buffer.concat([bytes, Buffer.alloc(4096)])).end, "torn");
  });

  it("remembers damage until it is told that everything was compared", async () => {
    const disk = new MemoryFolder();
    await (await memoryJournal(disk)).open(note("a"));
    const file = disk.files.get("segment-1");
    assert.ok(file !== undefined);
    file.bytes[20] = (file.bytes[20] ?? 0) ^ 1;
    const journal = await memoryJournal(disk);
    assert.equal(journal.damaged(), true);
    await journal.open(note("b"));
    const after = disk.crashed();
    const again = await memoryJournal(after);
    assert.equal(again.damaged(), true);
    assert.deepEqual(namesOf(again), ["b"]);
    await again.repaired();
    assert.equal(again.damaged(), false);
    assert.equal((await memoryJournal(after.crashed())).damaged(), false);
  });

  it("copies what is open into a new segment and removes the old ones", async () => {
    const disk = new MemoryFolder();
    const journal = await memoryJournal(disk, testWorld, { segmentBytesMax: 2_000 });
    const kept = await journal.open(note("kept"));
    for (let count = 0; count < 200; count += 1) journal.close(await journal.open(note(`passing-${count}`)));
    const names = [...disk.files.keys()];
    assert.equal(names.length, 1);
    assert.notEqual(names[0], "segment-1");
    assert.ok((disk.files.get(names[0] ?? "")?.bytes.length ?? 0) < 4_000);
    const again = await memoryJournal(disk.crashed());
    assert.ok(namesOf(again).includes("kept"));
    assert.equal(again.opened()[0]?.id, kept.id);
  });

  it("refuses notes while the disk is away, and goes on by itself in a new segment", async () => {
    const disk = new MemoryFolder();
    const clock = new VirtualClock();
    const world = { ...testWorld, clock };
    const journal = await memoryJournal(disk, world);
    await journal.open(note("before"));
    disk.failing = "ENOSPC";
    await assert.rejects(journal.open(note("lost")), (error) => isOperating(error, "E_INTENT_UNAVAILABLE"));
    assert.match(journal.unavailable() ?? "", /ENOSPC/);
    disk.failing = undefined;
    await assert.rejects(journal.open(note("too soon")), (error) => isOperating(error, "E_INTENT_UNAVAILABLE"));
    await clock.pass(1_000);
    await journal.open(note("after"));
    assert.equal(journal.unavailable(), undefined);
    assert.deepEqual(namesOf(await memoryJournal(disk.crashed(), world)), ["before", "after"]);
    assert.deepEqual([...disk.files.keys()].length, 1);
  });

  it("refuses notes above its size, and takes them again when intents are closed", async () => {
    const journal = await memoryJournal(new MemoryFolder(), testWorld, { sizeBytesMax: 4_000 });
    const first = await journal.open(note("x".repeat(200)));
    await assert.rejects(journal.open(note("y".repeat(200))), (error) => isOperating(error, "E_INTENT_UNAVAILABLE"));
    journal.close(first);
    await journal.open(note("y"));
  });

  it("is not opened again by an amendment that close() has overtaken", async () => {
    const journal = await memoryJournal(new MemoryFolder());
    const intent = await journal.open(note("a"));
    journal.close(intent);
    journal.amend(intent, { keys: [] });
    assert.deepEqual(journal.opened(), []);
  });

  describe("on a real disk", () => {
    let folder = "";
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), "holdfast-intents-"));
    });
    afterEach(() => rmSync(folder, { recursive: true, force: true }));
    const open = (): Promise<Journal> => openJournal({ folder: join(folder, "journal"), ...JOURNAL_DEFAULTS }, testWorld);

    it("keeps intents from one life to the next", async () => {
      const journal = await open();
      const closed = await journal.open(note("closed"));
      await journal.open(note("open"));
      journal.close(closed);
      await journal.stop();
      const again = await open();
      assert.deepEqual(namesOf(again), ["open"]);
      await again.stop();
    });

    it("belongs to one process at a time", async () => {
      const journal = await open();
      await assert.rejects(open(), (error) => isOperating(error, "E_INTENT_UNAVAILABLE"));
      await journal.stop();
      await (await open()).stop();
    });

    it("takes the folder of a dead process over, even when its pid lives again", async () => {
      await (await open()).stop();
      const lock = join(folder, "journal", "lock.1");
      assert.deepEqual(readdirSync(join(folder, "journal")).filter((name) => name.startsWith("lock")), ["lock.1"]);
      assert.equal(JSON.parse(readFileSync(lock, "utf8")).pid, 0);
      writeFileSync(lock, JSON.stringify({ pid: process.pid, started: "1", boot: "another" }));
      const journal = await open();
      assert.deepEqual(readdirSync(join(folder, "journal")).filter((name) => name.startsWith("lock")), ["lock.2"]);
      await journal.stop();
    });

    it("is taken by exactly one of many that start at once", async () => {
      await (await open()).stop();
      const outcomes = await Promise.allSettled(Array.from({ length: 8 }, open));
      const won = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
      assert.equal(won.length, 1);
      await won[0]?.stop();
    });
  });
});
