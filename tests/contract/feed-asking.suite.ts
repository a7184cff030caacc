/**
 * What every feed guarantees about questions and about removing messages (feed/feed.ts: ask, serve, purge), as tests that any
 * adapter must pass: registered for NATS JetStream and for the twin in memory, beside feed.suite.ts.
 */
import assert from "node:assert/strict";
import { isOperating } from "../../core/errors.ts";
import { ANSWERS_AT_ONCE_MAX, type Feed } from "../../feed/feed.ts";
import { auditAskSubject, siteAskSubject, subjectOf } from "../../feed/subjects.ts";
import { kindFilter, put, readAll, SERVICE, stored, textOf, until, type FeedSubject } from "./feed.suite.ts";

const SITE = "edge1";
const AUDITORS = auditAskSubject(SERVICE, "*");
const AUDITOR = auditAskSubject(SERVICE, SITE);
const TO_SITE = siteAskSubject(SERVICE, SITE);
const LONG_MS = 20_000;
const SHORT_MS = 200;

const bytes = (text: string): Uint8Array => Buffer.from(text);
const unanswered = (error: unknown): boolean => isOperating(error, "E_ASK_UNANSWERED");
const ask = async (feed: Feed, subject: string, question: string, timeoutMs = LONG_MS): Promise<string> =>
  Buffer.from(await feed.ask(subject, bytes(question), timeoutMs)).toString();

/** Asks until somebody answers: a subscription takes a moment to reach the server. */
async function served(feed: Feed, subject: string): Promise<void> {
  await until(`${subject} is served`, async () => {
    try {
      await feed.ask(subject, bytes("are you there"), SHORT_MS);
      return true;
    } catch (error) {
      assert.ok(isOperating(error, "E_ASK_UNANSWERED", "E_FEED_UNAVAILABLE"), String(error));
      return false;
    }
  });
}

/** Registers the suite; `open` is called once. */
export function askingContract(adapter: string, open: (suite: Mocha.Context) => Promise<FeedSubject>): void {
  describe(`questions on ${adapter}`, function () {
    this.timeout(60_000);
    let subject: FeedSubject;
    const stops: (() => void)[] = [];
    const serve = (feed: Feed, on: string, answer: Parameters<Feed["serve"]>[1]): (() => void) => {
      const stop = feed.serve(on, answer);
      stops.push(stop);
      return stop;
    };
    before(async function () {
      subject = await open(this);
    });
    afterEach(() => {
      for (const stop of stops.splice(0)) stop();
    });
    after(async () => subject?.close());

    describe("asking", () => asking(() => subject, serve));
    describe("answering", () => answering(() => subject, serve));
    describe("removing", () => removing(() => subject));
  });
}

type Serve = (feed: Feed, on: string, answer: Parameters<Feed["serve"]>[1]) => () => void;

function asking(subject: () => FeedSubject, serve: Serve): void {
  it("gets the auditor's answer, who sees which site asked", async () => {
    serve(subject().centre, AUDITORS, (question, askedOn) =>
      Promise.resolve(bytes(`${askedOn} said ${Buffer.from(question).toString()}`)));
    await served(subject().site, AUDITOR);
    assert.equal(await ask(subject().site, AUDITOR, "leaves"), `${AUDITOR} said leaves`);
  });

  it("gets a site's answer at the centre", async () => {
    serve(subject().site, TO_SITE, (question) => Promise.resolve(question));
    await served(subject().centre, TO_SITE);
    assert.equal(await ask(subject().centre, TO_SITE, "diff"), "diff");
  });

  it("ends at once where nobody serves", async () => {
    const begin = performance.now();
    await assert.rejects(ask(subject().centre, siteAskSubject(SERVICE, "edge9"), "?", LONG_MS), unanswered);
    await assert.rejects(ask(subject().site, AUDITOR, "?", LONG_MS), unanswered);
    assert.ok(performance.now() - begin < LONG_MS / 2);
  });

  it("ends at its deadline when the answer does not come", async () => {
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => { open = resolve; });
    serve(subject().centre, AUDITORS, async (question) => {
      if (Buffer.from(question).toString() === "slow") await gate;
      return question;
    });
    await served(subject().site, AUDITOR);
    await assert.rejects(ask(subject().site, AUDITOR, "slow", SHORT_MS), unanswered);
    open();
    assert.equal(await ask(subject().site, AUDITOR, "next"), "next");
  });

  it("is answered by one of two who serve, although the other fails", async () => {
    serve(subject().centre, AUDITORS, () => Promise.reject(new Error("this one cannot")));
    serve(subject().other, AUDITORS, (question) => Promise.resolve(question));
    await served(subject().site, AUDITOR);
    for (let round = 0; round < 5; round += 1) assert.equal(await ask(subject().site, AUDITOR, `${round}`), `${round}`);
  });

  it("gets large answers whole, and keeps the answers of many questions apart", async () => {
    serve(subject().site, TO_SITE, (question) =>
      Promise.resolve(new Uint8Array(500_000).fill(question[0] ?? 0)));
    await served(subject().centre, TO_SITE);
    const answers = await Promise.all(["a", "b", "c", "d"].map((letter) => ask(subject().centre, TO_SITE, letter)));
    assert.deepEqual(answers.map((answer) => [answer.length, answer.at(0), answer.at(-1)]),
      [[500_000, "a", "a"], [500_000, "b", "b"], [500_000, "c", "c"], [500_000, "d", "d"]]);
  });

  it("refuses a question that the server would not take", async () => {
    await assert.rejects(subject().site.ask(AUDITOR, new Uint8Array(1024 ** 2 + 1), SHORT_MS),
      (error) => isOperating(error, "E_OPERATION_INPUT"));
  });
}

function answering(subject: () => FeedSubject, serve: Serve): void {
  it("goes on after an answer that failed and one that was too large", async () => {
    serve(subject().centre, AUDITORS, (question) => {
      const asked = Buffer.from(question).toString();
      if (asked === "fail") return Promise.reject(new Error("not today"));
      return Promise.resolve(asked === "large" ? new Uint8Array(1024 ** 2 + 1) : question);
    });
    await served(subject().site, AUDITOR);
    await assert.rejects(ask(subject().site, AUDITOR, "fail", SHORT_MS), unanswered);
    await assert.rejects(ask(subject().site, AUDITOR, "large", SHORT_MS), unanswered);
    assert.equal(await ask(subject().site, AUDITOR, "fine"), "fine");
  });

  it("works on a bounded number of questions at once, and on the others after them", async () => {
    let working = 0;
    let most = 0;
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => { open = resolve; });
    serve(subject().centre, AUDITORS, async (question) => {
      if (Buffer.from(question).toString() === "are you there") return question;
      most = Math.max(most, working += 1);
      await gate;
      working -= 1;
      return question;
    });
    await served(subject().site, AUDITOR);
    const all = Promise.all(Array.from({ length: 3 * ANSWERS_AT_ONCE_MAX }, (_, number) =>
      ask(subject().site, AUDITOR, `${number}`)));
    await until("as many as may are worked on", () => working === ANSWERS_AT_ONCE_MAX);
    open();
    assert.deepEqual(await all, Array.from({ length: 3 * ANSWERS_AT_ONCE_MAX }, (_, number) => `${number}`));
    assert.equal(most, ANSWERS_AT_ONCE_MAX);
  });

  it("ends when it is told to", async () => {
    const stop = serve(subject().site, TO_SITE, (question) => Promise.resolve(question));
    await served(subject().centre, TO_SITE);
    stop();
    await until("nobody answers any more", () => ask(subject().centre, TO_SITE, "?", SHORT_MS).then(() => false, unanswered));
  });

  it("goes on over reconnections", async () => {
    serve(subject().site, TO_SITE, (question) => Promise.resolve(question));
    serve(subject().centre, AUDITORS, (question) => Promise.resolve(question));
    for (let round = 0; round < 2; round += 1) {
      await served(subject().centre, TO_SITE);
      await served(subject().site, AUDITOR);
      await subject().disturbReaders();
    }
    await served(subject().centre, TO_SITE);
    assert.equal(await ask(subject().centre, TO_SITE, "still there"), "still there");
    await served(subject().site, AUDITOR);
  });
}

function removing(subject: () => FeedSubject): void {
  const user = (kind: string, id: string): string => subjectOf(SERVICE, "all", { kind, values: [id] });

  it("takes away what is at and below the sequence, and nothing else", async () => {
    const sequence = await stored(subject().centre, user("x1", "a"), 0);
    await stored(subject().centre, user("x1", "b"), 0, "stays");
    await subject().centre.purge(user("x1", "a"), sequence);
    assert.equal(await subject().centre.last(user("x1", "a")), undefined);
    assert.deepEqual((await readAll(subject().site, kindFilter("x1"), 0)).map(textOf), ["stays"]);
    await stored(subject().other, user("x1", "a"), 0, "again");
  });

  it("never takes a newer message than was meant", async () => {
    const first = await stored(subject().centre, user("x2", "a"), 0);
    const second = await stored(subject().other, user("x2", "a"), first, "newer");
    await subject().centre.purge(user("x2", "a"), first);
    assert.equal(textOf(await subject().site.last(user("x2", "a"))), "newer");
    assert.deepEqual(await put(subject().other, user("x2", "a"), first, "late"), { stored: false, last: second });
  });

  it("may be asked for twice, and for what is not there", async () => {
    const sequence = await stored(subject().centre, user("x3", "a"), 0);
    for (let round = 0; round < 2; round += 1) await subject().centre.purge(user("x3", "a"), sequence);
    await subject().centre.purge(user("x3", "nobody"), sequence);
    assert.equal(await subject().centre.last(user("x3", "a")), undefined);
  });
}
