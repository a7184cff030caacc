/**
 * What every feed guarantees (feed/feed.ts), as tests that any adapter must pass: registered for NATS JetStream and for the
 * twin in memory. A test uses subjects under its own kind, so that all of them can share one stream.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { isOperating } from "../../core/errors.ts";
import type { Feed, FeedMessage, Published, ReadOptions } from "../../feed/feed.ts";
import { filterOf, subjectOf } from "../../feed/subjects.ts";

export const SERVICE = "identity";
const SCOPE = "all";
const PATIENCE_MS = 10_000;
const PATIENCE_POLL_MS = 2;

/** What the suite needs from an adapter; handles share one empty stream. */
export interface FeedSubject {
  readonly centre: Feed;
  /** A second, independent publisher and reader. */
  readonly other: Feed;
  /** A reader with a site's rights. */
  readonly site: Feed;
  /** Purges one subject, as the collection of tombstones does. */
  purge(subject: string): Promise<void>;
  /** Ends every reading that runs, and leaves the stream as it is. */
  disturbReaders(): Promise<void>;
  close(): Promise<void>;
}

/** Waits until `truth` holds; fails with `what` at the deadline. */
export async function until(what: string, truth: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!await truth()) {
    if (performance.now() > deadline) assert.fail(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, PATIENCE_POLL_MS));
  }
}

const bytes = (text: string): Uint8Array => Buffer.from(text);
export const textOf = (message: FeedMessage | undefined): string => Buffer.from(message?.payload ?? []).toString();

let idsUsed = 0;
/** Publishes one image with a fresh id, unless one is given. */
export function put(feed: Feed, subject: string, expected: number, payload: string | Uint8Array,
  id?: string): Promise<Published> {
  return feed.publish({ subject, expected, id: id ?? `test-${idsUsed += 1}`, headers: { "Hf-Epoch": "1", "Hf-Digest": "d" },
    payload: typeof payload === "string" ? bytes(payload) : payload });
}

/** As put(), and the sequence it was stored at. */
export async function stored(feed: Feed, subject: string, expected: number, payload: string | Uint8Array = "x"): Promise<number> {
  const outcome = await put(feed, subject, expected, payload);
  assert.ok(outcome.stored, `${subject} was not stored: ${JSON.stringify(outcome)}`);
  return outcome.sequence;
}

const READ: Omit<ReadOptions, "filter" | "after"> = { batchMessagesMax: 500, batchBytesMax: 4 * 1024 ** 2 };
const never = new AbortController().signal;

/** Everything above `after` up to the tip. */
export async function readAll(feed: Feed, filter: string, after: number,
  more: Partial<ReadOptions> = {}): Promise<FeedMessage[]> {
  const messages: FeedMessage[] = [];
  for await (const batch of feed.read({ ...READ, filter, after, untilTip: true, ...more }, never)) messages.push(...batch);
  return messages;
}

/** As readAll(), beginning again at its position whenever the reading ends in doubt, as every caller does. */
export async function readPersistently(feed: Feed, filter: string, more: Partial<ReadOptions> = {},
  onBatch: (place: number) => Promise<void> = () => Promise.resolve()): Promise<FeedMessage[]> {
  const messages: FeedMessage[] = [];
  for (let attempt = 0, batches = 0; attempt < 10; attempt += 1) {
    try {
      const after = messages.at(-1)?.sequence ?? 0;
      for await (const batch of feed.read({ ...READ, filter, after, untilTip: true, ...more }, never)) {
        messages.push(...batch);
        await onBatch(batches += 1);
      }
      return messages;
    } catch (error) {
      assert.ok(isOperating(error, "E_FEED_UNAVAILABLE"), String(error));
    }
  }
  return assert.fail("ten readings ended in doubt");
}

/** A reading in the background: what arrived, how it ended. */
export interface Tail {
  readonly messages: FeedMessage[];
  readonly batches: number[];
  ended(): boolean;
  failure(): unknown;
  stop(): Promise<void>;
}

/** Follows a filter until stopped. Resolves once the reading is under way: its first batch, empty or not, has come. */
export async function follow(feed: Feed, filter: string, after: number, more: Partial<ReadOptions> = {}): Promise<Tail> {
  const abort = new AbortController();
  const messages: FeedMessage[] = [];
  const batches: number[] = [];
  let failure: unknown;
  let ended = false;
  const running = (async () => {
    try {
      for await (const batch of feed.read({ ...READ, filter, after, ...more }, abort.signal)) {
        batches.push(batch.length);
        messages.push(...batch);
      }
    } catch (error) {
      failure = error;
    }
    ended = true;
  })();
  await until("the reading is under way", () => batches.length > 0 || ended);
  return { messages, batches, ended: () => ended, failure: () => failure,
    stop: async () => { abort.abort(); await running; } };
}

/** True when every message has a greater sequence than the one before it. */
export function rising(messages: readonly FeedMessage[]): boolean {
  return messages.every((message, place) => place === 0 || message.sequence > (messages[place - 1]?.sequence ?? 0));
}

const userSubject = (kind: string, id: string): string => subjectOf(SERVICE, SCOPE, { kind, values: [id] });
export const kindFilter = (kind: string): string => filterOf(SERVICE, SCOPE, kind);

/** Registers the suite; `open` is called once. */
export function feedContract(adapter: string, open: (suite: Mocha.Context) => Promise<FeedSubject>): void {
  describe(`the feed on ${adapter}`, function () {
    this.timeout(60_000);
    let subject: FeedSubject;
    before(async function () {
      this.timeout(60_000);
      subject = await open(this);
    });
    after(async () => subject?.close());

    describe("publishing", () => publishing(() => subject));
    describe("the last message", () => lastMessage(() => subject));
    describe("reading", () => reading(() => subject));
    describe("reading up to the tip", () => readingToTip(() => subject));
    describe("law", () => laws(() => subject));
  });
}

function publishing(subject: () => FeedSubject): void {
  it("stores a message whose expectation holds and says where", async () => {
    const first = await stored(subject().centre, userSubject("p1", "a"), 0);
    const second = await stored(subject().centre, userSubject("p1", "a"), first);
    assert.ok(second > first);
  });

  it("refuses a message whose expectation fails and names the last sequence", async () => {
    const sequence = await stored(subject().centre, userSubject("p2", "a"), 0);
    assert.deepEqual(await put(subject().other, userSubject("p2", "a"), 0, "late"), { stored: false, last: sequence });
    assert.deepEqual(await put(subject().other, userSubject("p2", "b"), 7, "early"), { stored: false, last: 0 });
    assert.equal(textOf(await subject().centre.last(userSubject("p2", "a"))), "x");
  });

  it("lets exactly one of 200 publishers win that expect the same", async () => {
    const attempts = Array.from({ length: 200 }, (_, number) =>
      put(number % 2 === 0 ? subject().centre : subject().other, userSubject("p3", "a"), 0, `from ${number}`));
    const outcomes = await Promise.all(attempts);
    assert.equal(outcomes.filter((outcome) => outcome.stored).length, 1);
  });

  it("answers the very same message with its first sequence, although its expectation is stale by then", async () => {
    const first = await put(subject().centre, userSubject("p4", "a"), 0, "x", "p4-same");
    assert.deepEqual(await put(subject().other, userSubject("p4", "a"), 0, "x", "p4-same"), first);
    assert.equal((await readAll(subject().centre, kindFilter("p4"), 0)).length, 1);
  });

  it("refuses an image that is too large before it is sent", async () => {
    await assert.rejects(put(subject().centre, userSubject("p5", "a"), 0, new Uint8Array(1024 ** 2)),
      (error) => isOperating(error, "E_IMAGE_TOO_LARGE"));
    assert.equal(await subject().centre.last(userSubject("p5", "a")), undefined);
  });

  it("takes an image just below the limit and gives it back whole", async () => {
    const large = new Uint8Array(1000 * 1024).map((_, place) => place % 251);
    await stored(subject().centre, userSubject("p6", "a"), 0, large);
    const [message] = await readAll(subject().site, kindFilter("p6"), 0, { batchBytesMax: 1000 });
    assert.deepEqual(Buffer.from(message?.payload ?? []), Buffer.from(large));
  });
}

function lastMessage(subject: () => FeedSubject): void {
  it("is the newest one, with its headers and payload, at the centre and at a site", async () => {
    const first = await stored(subject().centre, userSubject("l1", "a"), 0, "old");
    const sequence = await stored(subject().centre, userSubject("l1", "a"), first, "new");
    for (const feed of [subject().centre, subject().site]) {
      const message = await feed.last(userSubject("l1", "a"));
      assert.deepEqual({ ...message, payload: textOf(message) }, { subject: userSubject("l1", "a"), sequence,
        headers: { "Hf-Epoch": "1", "Hf-Digest": "d" }, payload: "new" });
    }
  });

  it("is undefined for a subject without messages", async () => {
    assert.equal(await subject().site.last(userSubject("l2", "nobody")), undefined);
  });

  it("is undefined after a purge, and the next publish expects nothing", async () => {
    await stored(subject().centre, userSubject("l3", "a"), 0);
    await subject().purge(userSubject("l3", "a"));
    assert.equal(await subject().centre.last(userSubject("l3", "a")), undefined);
    await stored(subject().centre, userSubject("l3", "a"), 0);
  });

  it("is found under keys of any characters", async () => {
    const names = ["Zoë@example.org", "a.b", "*", ">", "with space", "", "=already", "日本", "a/b+c", "x".repeat(140)];
    for (const name of names) await stored(subject().centre, userSubject("l4", name), 0, name);
    for (const name of names) assert.equal(textOf(await subject().site.last(userSubject("l4", name))), name);
    assert.deepEqual((await readAll(subject().site, kindFilter("l4"), 0)).map(textOf), names);
  });
}

function reading(subject: () => FeedSubject): void {
  it("starts right above its position and gives rising sequences with headers and payloads", async () => {
    const sequences: number[] = [];
    for (const id of ["a", "b", "c", "d"]) sequences.push(await stored(subject().centre, userSubject("r1", id), 0, id));
    const messages = await readAll(subject().site, kindFilter("r1"), sequences[1] ?? 0);
    assert.deepEqual(messages.map((message) => [message.sequence, textOf(message), message.headers["Hf-Epoch"]]),
      [[sequences[2], "c", "1"], [sequences[3], "d", "1"]]);
  });

  it("covers one kind only when the filter names it", async () => {
    await stored(subject().centre, userSubject("r2", "a"), 0);
    await stored(subject().centre, userSubject("r2x", "a"), 0);
    assert.equal((await readAll(subject().site, kindFilter("r2"), 0)).length, 1);
    assert.equal((await readAll(subject().site, userSubject("r2", "a"), 0)).length, 1);
  });

  it("goes on with what comes later, and delivers it without waiting for a full batch", async () => {
    const tail = await follow(subject().site, kindFilter("r3"), 0);
    for (let number = 0; number < 20; number += 1) {
      await stored(subject().centre, userSubject("r3", `${number}`), 0);
      await until("the message arrived", () => tail.messages.length === number + 1);
    }
    await tail.stop();
    assert.equal(tail.failure(), undefined);
    assert.ok(rising(tail.messages));
  });

  it("says with an empty batch that nothing came for a while", async () => {
    const tail = await follow(subject().site, kindFilter("r4"), 0);
    await until("three quiet periods", () => tail.batches.length >= 3);
    await tail.stop();
    assert.deepEqual(new Set(tail.batches), new Set([0]));
  });

  it("keeps to the bounds of a batch", async () => {
    const payload = "y".repeat(1000);
    for (let number = 0; number < 60; number += 1) await stored(subject().centre, userSubject("r5", `${number}`), 0, payload);
    const counts: number[] = [];
    for await (const batch of subject().site.read({ filter: kindFilter("r5"), after: 0, untilTip: true, batchMessagesMax: 7,
      batchBytesMax: 1e6 }, never)) counts.push(batch.length);
    assert.ok(Math.max(...counts) <= 7);
    for await (const batch of subject().site.read({ filter: kindFilter("r5"), after: 0, untilTip: true, batchMessagesMax: 50,
      batchBytesMax: 5000 }, never)) assert.ok(batch.length <= 5);
  });

  it("gives headers without payloads when asked to", async () => {
    await stored(subject().centre, userSubject("r6", "a"), 0, "something");
    const [message] = await readAll(subject().site, kindFilter("r6"), 0, { headersOnly: true });
    assert.equal(message?.payload.byteLength, 0);
    assert.deepEqual(message.headers, { "Hf-Epoch": "1", "Hf-Digest": "d" });
  });

  it("ends at once when it is aborted, and may begin again", async () => {
    for (let round = 0; round < 5; round += 1) {
      const tail = await follow(subject().site, kindFilter("r7"), 0);
      await tail.stop();
      assert.equal(tail.failure(), undefined);
    }
  });

  it("ends with an error when its continuity is in doubt, and nothing is missing after beginning again", async () => {
    const tail = await follow(subject().site, kindFilter("r8"), 0);
    for (let number = 0; number < 50; number += 1) {
      await stored(subject().centre, userSubject("r8", `${number}`), 0, `${number}`);
      if (number === 25) await subject().disturbReaders();
    }
    await until("the reading ended", () => tail.ended());
    assert.ok(isOperating(tail.failure(), "E_FEED_UNAVAILABLE"), String(tail.failure()));
    await until("the site is connected again", () => subject().site.disconnected() === undefined);
    const rest = await readAll(subject().site, kindFilter("r8"), tail.messages.at(-1)?.sequence ?? 0);
    assert.deepEqual([...tail.messages, ...rest].map(textOf), Array.from({ length: 50 }, (_, number) => `${number}`));
  });

  it("does not stay silent about messages that a purge made the server pass over", async () => {
    for (let number = 0; number < 40; number += 1) await stored(subject().centre, userSubject("ra", `${number}`), 0);
    const seen = new Set<string>();
    for (let after = 0, batches = 0; seen.size < 39;) {
      try {
        const from: ReadOptions = { filter: kindFilter("ra"), after, batchMessagesMax: 4, batchBytesMax: 1e6 };
        for await (const batch of subject().site.read(from, never)) {
          for (const message of batch) seen.add(message.subject);
          after = batch.at(-1)?.sequence ?? after;
          if ((batches += 1) === 1) await subject().purge(userSubject("ra", "39"));
          if (seen.size === 39) break;
        }
      } catch (error) {
        assert.ok(isOperating(error, "E_FEED_UNAVAILABLE"), String(error));
      }
    }
  });

  it("does not fail when it starts beyond the end of the stream", async () => {
    const tail = await follow(subject().site, kindFilter("r9"), 1_000_000_000);
    await tail.stop();
    assert.equal(tail.failure(), undefined);
    assert.deepEqual(await readAll(subject().site, kindFilter("r9"), 1_000_000_000), []);
  });
}

function readingToTip(subject: () => FeedSubject): void {
  it("ends at once where there is nothing to read", async () => {
    assert.deepEqual(await readAll(subject().site, kindFilter("t1"), 0), []);
  });

  it("ends on a stream in which most messages were overwritten, with the newest of each", async () => {
    const last = new Map<string, number>();
    const keys = Array.from({ length: 100 }, (_, number) => userSubject("t2", `${number}`));
    for (let round = 0; round < 8; round += 1) {
      await Promise.all(keys.map(async (key, place) => {
        if (round > 0 && (place * 7 + round) % 3 === 0) return;
        last.set(key, await stored(subject().centre, key, last.get(key) ?? 0, `${round}`));
      }));
    }
    const messages = await readAll(subject().site, kindFilter("t2"), 0, { batchMessagesMax: 9 });
    assert.deepEqual(new Map(messages.map((message) => [message.subject, message.sequence])), last);
    assert.ok(rising(messages));
  });

  it("ends while others keep overwriting what it reads", async () => {
    const keys = Array.from({ length: 50 }, (_, number) => userSubject("t3", `${number}`));
    const last = new Map<string, number>();
    for (const key of keys) last.set(key, await stored(subject().centre, key, 0));
    let busy = true;
    const writing = (async () => {
      while (busy) for (const key of keys) last.set(key, await stored(subject().centre, key, last.get(key) ?? 0));
    })();
    const messages = await readAll(subject().site, kindFilter("t3"), 0, { batchMessagesMax: 5 });
    busy = false;
    await writing;
    assert.ok(rising(messages));
    const seen = new Set(messages.map((message) => message.subject));
    const end = messages.at(-1)?.sequence ?? 0;
    for (const key of keys) assert.ok(seen.has(key) || (last.get(key) ?? 0) > end, `${key} was missed`);
    const rest = await readAll(subject().site, kindFilter("t3"), end);
    assert.equal(new Set([...messages, ...rest].map((message) => message.subject)).size, keys.length);
  });

  it("misses nothing when a subject is purged while it reads: it ends in doubt rather than without the rest", async () => {
    for (const [kind, purged] of [["t4a", "29"], ["t4b", "20"], ["t4c", "0"]] as const) {
      for (let number = 0; number < 30; number += 1) await stored(subject().centre, userSubject(kind, `${number}`), 0);
      const messages = await readPersistently(subject().site, kindFilter(kind), { batchMessagesMax: 5 },
        async (batch) => { if (batch === 1) await subject().purge(userSubject(kind, purged)); });
      assert.ok(rising(messages));
      const seen = new Set(messages.map((message) => message.subject));
      for (let number = 0; number < 30; number += 1) {
        if (`${number}` !== purged) assert.ok(seen.has(userSubject(kind, `${number}`)), `${kind} ${number} was missed`);
      }
    }
  });

  it("catches up with 20,000 messages, none missing", async () => {
    const keys = Array.from({ length: 20_000 }, (_, number) => userSubject("t5", `${number}`));
    let next = 0;
    await Promise.all(Array.from({ length: 128 }, async () => {
      for (let key = keys[next++]; key !== undefined; key = keys[next++]) await stored(subject().centre, key, 0, "z".repeat(300));
    }));
    const messages = await readAll(subject().site, kindFilter("t5"), 0);
    assert.equal(messages.length, keys.length);
    assert.ok(rising(messages));
    assert.equal(new Set(messages.map((message) => message.subject)).size, keys.length);
  });
}

function laws(subject: () => FeedSubject): void {
  it("holds for any order of publishes: one message per subject, the newest, at the sequence that was acknowledged", async () => {
    let run = 0;
    const step = fc.record({ key: fc.integer({ min: 0, max: 4 }), guess: fc.constantFrom("true", "stale", "zero") });
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
      const kind = `w${run += 1}`;
      const model = new Map<string, number>();
      for (const { key, guess } of steps) {
        const name = userSubject(kind, `${key}`);
        const last = model.get(name) ?? 0;
        const expected = guess === "true" ? last : guess === "zero" ? 0 : Math.max(0, last - 1);
        const outcome = await put(subject().centre, name, expected, `${expected}`);
        assert.equal(outcome.stored, expected === last);
        if (outcome.stored) model.set(name, outcome.sequence);
        else assert.equal(outcome.last, last);
      }
      const messages = await readAll(subject().site, kindFilter(kind), 0);
      assert.deepEqual(new Map(messages.map((message) => [message.subject, message.sequence])), model);
    }), { numRuns: 25 });
  });
}
