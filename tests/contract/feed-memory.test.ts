/** The twin in memory: the contract of every feed, and the faults that only the twin can be asked for. */
import assert from "node:assert/strict";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import { isOperating } from "../../core/errors.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { askingContract } from "./feed-asking.suite.ts";
import { feedContract, follow, kindFilter, put, readAll, SERVICE, stored, textOf,
  until, type FeedSubject } from "./feed.suite.ts";

const IDLE_HEARTBEAT_MS = 50;

async function opened(): Promise<FeedSubject> {
  const stream = new MemoryStream(SERVICE, systemClock);
  const open = () => memoryFeed(stream, systemClock, { idleHeartbeatMs: IDLE_HEARTBEAT_MS });
  const [centre, other, site] = [open(), open(), open()];
  await centre.ensureStream();
  return { centre, other, site,
    purge: (subject) => Promise.resolve(stream.faults.purge(subject, Infinity)),
    disturbReaders: () => Promise.resolve(stream.faults.restart()),
    close: async () => void await Promise.all([centre, other, site].map((feed) => feed.close())) };
}

feedContract("memory", opened);
askingContract("memory", opened);

describe("the stream in memory", () => {
  const USER = "os.v1.identity.all.user.a";
  const unavailable = (error: unknown): boolean => isOperating(error, "E_FEED_UNAVAILABLE");

  async function fresh(options: ConstructorParameters<typeof MemoryStream>[2] = {}) {
    let nowMs = 1_000_000;
    const clock = { ...systemClock, nowMs: () => nowMs };
    const stream = new MemoryStream(SERVICE, clock, options);
    const feed = memoryFeed(stream, clock, { idleHeartbeatMs: IDLE_HEARTBEAT_MS });
    await feed.ensureStream();
    return { stream, feed, pass: (ms: number) => { nowMs += ms; } };
  }

  it("loses an acknowledgement after storing, and knows the same message again", async () => {
    const { stream, feed } = await fresh();
    stream.faults.loseAck("stored");
    await assert.rejects(put(feed, USER, 0, "x", "same"), unavailable);
    assert.deepEqual(await put(feed, USER, 0, "x", "same"), { stored: true, sequence: 1 });
  });

  it("loses a message before storing it", async () => {
    const { stream, feed } = await fresh();
    stream.faults.loseAck("not stored");
    await assert.rejects(put(feed, USER, 0, "x"), unavailable);
    assert.equal(await feed.last(USER), undefined);
  });

  it("forgets the same message after the deduplication window", async () => {
    const { feed, pass } = await fresh();
    await put(feed, USER, 0, "x", "same");
    pass(120_001);
    assert.deepEqual(await put(feed, USER, 0, "x", "same"), { stored: false, last: 1 });
  });

  it("refuses as a conflict without naming the sequence", async () => {
    const { stream, feed } = await fresh();
    stream.faults.conflictWithoutSequence();
    assert.deepEqual(await put(feed, USER, 0, "x"), { stored: false, last: undefined });
    await stored(feed, USER, 0);
  });

  it("drops the tail, shows what was there before, and uses the sequences again", async () => {
    const { stream, feed } = await fresh();
    const first = await stored(feed, USER, 0, "old");
    await stored(feed, USER, first, "new");
    await stored(feed, `${USER}2`, 0);
    stream.faults.dropTail(2);
    assert.equal(textOf(await feed.last(USER)), "old");
    assert.equal(await feed.last(`${USER}2`), undefined);
    assert.equal(await stored(feed, USER, first, "newer"), 2);
  });

  it("shows an older image to readers only, with the last sequence intact", async () => {
    const { stream, feed } = await fresh();
    const first = await stored(feed, USER, 0, "old");
    const second = await stored(feed, USER, first, "new");
    assert.ok(stream.faults.reviveOlder(USER));
    assert.deepEqual((await readAll(feed, kindFilter("user"), 0)).map(textOf), ["old"]);
    assert.equal(await feed.last(USER), undefined);
    assert.equal((await feed.state()).lastSequence, second);
    assert.deepEqual(await put(feed, USER, second, "x"), { stored: false, last: 0 });
  });

  it("acknowledges what is published on such a subject and keeps nothing of it, until it is purged or restarted", async () => {
    const { stream, feed } = await fresh();
    for (const heal of ["purge", "restart"] as const) {
      const subject = `${USER}-${heal}`;
      await stored(feed, subject, await stored(feed, subject, 0, "old"), "new");
      assert.ok(stream.faults.reviveOlder(subject));
      await stored(feed, subject, 0, "swallowed");
      const [shown] = await readAll(feed, subject, 0);
      assert.equal(textOf(present(shown, "the older image")), "old");
      if (heal === "purge") await feed.purge(subject, present(shown, "the older image").sequence);
      else stream.faults.restart();
      await stored(feed, subject, (await feed.last(subject))?.sequence ?? 0, "newest");
      assert.deepEqual((await readAll(feed, subject, 0)).map(textOf), ["newest"]);
    }
  });

  it("starts from nothing when it is made again, which its creation time shows", async () => {
    const { stream, feed } = await fresh();
    await stored(feed, USER, 0);
    const before = await feed.state();
    stream.faults.recreate();
    const after = await feed.state();
    assert.notEqual(after.created, before.created);
    assert.equal(after.lastSequence, 0);
  });

  it("takes overwrites and refuses new subjects when it is full", async () => {
    const { feed } = await fresh({ sizeBytesMax: 1000 });
    const first = await stored(feed, USER, 0, "x".repeat(800));
    await assert.rejects(put(feed, `${USER}2`, 0, "x".repeat(800)), (error) => isOperating(error, "E_FEED_FULL"));
    await stored(feed, USER, first, "x".repeat(800));
  });

  it("repeats deliveries when asked to", async () => {
    const { stream, feed } = await fresh();
    await stored(feed, USER, 0);
    stream.faults.repeatDeliveries(true);
    assert.equal((await readAll(feed, kindFilter("user"), 0)).length, 2);
  });

  it("cuts one handle off and joins it again", async () => {
    const { stream, feed } = await fresh();
    const other = memoryFeed(stream, systemClock, { idleHeartbeatMs: IDLE_HEARTBEAT_MS });
    const tail = await follow(feed, kindFilter("user"), 0);
    feed.cut("the cable is out");
    await until("the reading ended", () => tail.ended());
    assert.ok(unavailable(tail.failure()));
    assert.equal(feed.disconnected(), "the cable is out");
    await assert.rejects(put(feed, USER, 0, "x"), unavailable);
    feed.report("os.status.v1.identity.edge1", Buffer.from("lost"));
    await stored(other, USER, 0);
    feed.cut(undefined);
    assert.equal(textOf(await feed.last(USER)), "x");
    assert.deepEqual(feed.reports, []);
  });

  it("keeps what arrives over a connection that loses answers, and nothing over one that loses requests", async () => {
    const stream = new MemoryStream(SERVICE, systemClock);
    const quick = { ...systemClock, after: (_delayMs: number, action: () => void) => systemClock.after(0, action) };
    const [feed, other] = [memoryFeed(stream, quick), memoryFeed(stream, systemClock)];
    await feed.ensureStream();
    feed.cut("nothing comes back", "back");
    assert.equal(feed.disconnected(), undefined);
    await assert.rejects(put(feed, USER, 0, "arrived"), unavailable);
    assert.equal(textOf(await other.last(USER)), "arrived");
    feed.cut("nothing gets there", "there");
    await assert.rejects(put(feed, `${USER}2`, 0, "lost"), unavailable);
    assert.equal(await other.last(`${USER}2`), undefined);
    feed.cut(undefined);
    assert.equal(textOf(await feed.last(USER)), "arrived");
  });

  it("loses deliveries without a word, stores a publish after its sender gave up, and goes back to an older copy", async () => {
    const stream = new MemoryStream(SERVICE, { ...systemClock, after: (_delayMs, action) => systemClock.after(0, action) });
    const feed = memoryFeed(stream, systemClock);
    await feed.ensureStream();
    await stored(feed, USER, 0, "old");
    const copy = stream.faults.copy();
    stream.faults.loseAck("stored later");
    await assert.rejects(put(feed, `${USER}2`, 0, "late"), unavailable);
    assert.equal(await feed.last(`${USER}2`), undefined);
    await until("it was stored after all", () => stream.lastSequence() === 2);
    stream.faults.loseDeliveries(1);
    assert.deepEqual((await readAll(feed, kindFilter("user"), 0)).map(textOf), ["late"]);
    stream.faults.restore(copy);
    assert.deepEqual((await readAll(feed, kindFilter("user"), 0)).map(textOf), ["old"]);
    assert.equal(await stored(feed, `${USER}3`, 0), 2);
  });

  it("neither asks nor answers over a handle that is cut off, and does both when it is joined again", async () => {
    const { stream, feed } = await fresh();
    const site = memoryFeed(stream, systemClock);
    const subject = "os.ask.v1.identity.site.edge1";
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => { open = resolve; });
    let isHeard = false;
    site.serve(subject, async (question) => {
      isHeard = Buffer.from(question).toString() === "slow";
      if (isHeard) await gate;
      return question;
    });
    const question = (text: string) => feed.ask(subject, Buffer.from(text), 100);
    site.cut("the cable is out");
    await assert.rejects(question("?"), (error) => isOperating(error, "E_ASK_UNANSWERED"));
    site.cut(undefined);
    await question("?");
    const slow = question("slow");
    slow.catch(() => undefined);
    await until("it was heard", () => isHeard);
    feed.cut("the cable is out");
    await assert.rejects(slow, unavailable);
    await assert.rejects(question("?"), unavailable);
    open();
    feed.cut(undefined);
    assert.equal(Buffer.from(await question("again")).toString(), "again");
    await site.close();
    await assert.rejects(question("?"), (error) => isOperating(error, "E_ASK_UNANSWERED"));
  });

  it("gives a reader beyond the end the next message, or lets it wait, as old and new servers do", async () => {
    for (const [startBeyondEnd, expected] of [["clip", 1], ["wait", 0]] as const) {
      const { feed } = await fresh({ startBeyondEnd });
      const tail = await follow(feed, kindFilter("user"), 100);
      await stored(feed, USER, 0);
      const quietBefore = tail.batches.length;
      await until("it had the time", () => tail.messages.length > 0 || tail.batches.length > quietBefore + 1);
      assert.equal(tail.messages.length, expected);
      await tail.stop();
    }
  });
});
