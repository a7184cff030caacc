/**
 * Goal: an operation asked over the stream server does what it would do here, and its failure says the same there.
 * Method: two handles on the twin of the server.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { systemClock } from "../../core/clock.ts";
import { isOperating, OperatingError, type ErrorCode } from "../../core/errors.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import type { JsonValue, Operation } from "../../core/operation.ts";
import { AnswerDesk, QUESTIONS_WAITING_MAX } from "../../feed/answering.ts";
import { askOperation, relayToSite, serveOperations } from "../../feed/asking.ts";
import { ANSWERS_AT_ONCE_MAX } from "../../feed/feed.ts";
import { memoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { siteAskSubject } from "../../feed/subjects.ts";
import { until } from "../contract/feed.suite.ts";

const SERVICE = "identity";
const SUBJECT = siteAskSubject(SERVICE, "edge1");
const SHORT_MS = 100;
const LONG_MS = 10_000;

const saying = (code: ErrorCode, text = "") => (error: unknown): boolean =>
  isOperating(error, code) && error.message.includes(text);

function joined(operations: Readonly<Record<string, Operation>>) {
  const stream = new MemoryStream(SERVICE, systemClock);
  const [centre, site] = [memoryFeed(stream, systemClock), memoryFeed(stream, systemClock)];
  const stop = serveOperations(site, SUBJECT, new Map(Object.entries(operations)), silentLog);
  return { centre, site, stop };
}

describe("operations over the stream server", () => {
  it("give any output for any input, as if they were done here", async () => {
    const { centre } = joined({ echo: (input) => Promise.resolve(input) });
    await fc.assert(fc.asyncProperty(fc.dictionary(fc.string(), fc.jsonValue()), async (input) => {
      const through = JSON.parse(JSON.stringify(input)) as Readonly<Record<string, JsonValue>>;
      assert.deepEqual(await askOperation(centre, SUBJECT, "echo", through, LONG_MS), through);
    }));
  });

  it("fail with the code and the text of their own failure", async () => {
    const { centre } = joined({ fail: () => Promise.reject(new OperatingError("E_RECORD_UNKNOWN", "no user 7", { id: "7" })) });
    await assert.rejects(askOperation(centre, SUBJECT, "fail", {}, LONG_MS), (error) =>
      isOperating(error, "E_RECORD_UNKNOWN") && error.message === "E_RECORD_UNKNOWN: no user 7");
  });

  it("that nobody knows, and input that is none, are mistakes of the asker", async () => {
    const { centre } = joined({ echo: (input) => Promise.resolve(input) });
    await assert.rejects(askOperation(centre, SUBJECT, "sing", {}, LONG_MS), saying("E_OPERATION_INPUT", "sing"));
    for (const question of ["", "[]", "7", "{\"op\":\"echo\"}", "{\"op\":\"echo\",\"input\":[]}", "{\"op\":{},\"input\":{}}"]) {
      const answer = Buffer.from(await centre.ask(SUBJECT, Buffer.from(question), LONG_MS)).toString();
      assert.match(answer, /"ok":false,"code":"E_OPERATION_INPUT"/, question);
    }
  });

  it("leave the asker without an answer when they break, and go on", async () => {
    const { centre } = joined({ echo: (input) => Promise.resolve(input), break: () => Promise.reject(new TypeError("oops")) });
    await assert.rejects(askOperation(centre, SUBJECT, "break", {}, SHORT_MS), saying("E_ASK_UNANSWERED"));
    assert.deepEqual(await askOperation(centre, SUBJECT, "echo", { a: 1 }, LONG_MS), { a: 1 });
  });

  it("say that an answer is too large instead of losing it", async () => {
    const { centre } = joined({ all: () => Promise.resolve("x".repeat(1_000_001)) });
    await assert.rejects(askOperation(centre, SUBJECT, "all", {}, LONG_MS), saying("E_OPERATION_INPUT", "too large"));
  });

  it("end when they are no longer served, and what runs is told", async () => {
    const aborted: boolean[] = [];
    const { centre, stop } = joined({ wait: (_input, _progress, signal) => new Promise((resolve) => {
      signal.addEventListener("abort", () => {
        aborted.push(signal.aborted);
        resolve(null);
      });
      queueMicrotask(stop);
    }) });
    await assert.rejects(askOperation(centre, SUBJECT, "wait", {}, SHORT_MS), saying("E_ASK_UNANSWERED"));
    assert.deepEqual(aborted, [true]);
    await assert.rejects(askOperation(centre, SUBJECT, "wait", {}, LONG_MS), saying("E_ASK_UNANSWERED", "nobody"));
  });

  it("that answer with something else, or with a code of a newer version, are unanswered", async () => {
    const { centre, site, stop } = joined({});
    stop();
    for (const answer of ["hello", "{}", "{\"ok\":true}", "{\"ok\":false,\"code\":\"FROM_TOMORROW\",\"message\":\"m\"}"]) {
      const end = site.serve(SUBJECT, () => Promise.resolve(Buffer.from(answer)));
      await assert.rejects(askOperation(centre, SUBJECT, "x", {}, LONG_MS), saying("E_ASK_UNANSWERED"), answer);
      end();
    }
  });

  it("are relayed to the site that the input names, and to no other subject", async () => {
    const { centre } = joined({ resync: (input) => Promise.resolve({ started: true, ...input }) });
    const relay = relayToSite(centre, SERVICE, "resync", LONG_MS);
    const signal = new AbortController().signal;
    const steps: string[] = [];
    const output = await relay({ site: "edge1" }, ({ step, done }) => steps.push(`${step} ${done}`), signal);
    assert.deepEqual(output, { started: true, site: "edge1" });
    assert.deepEqual(steps, ["asking edge1 0", "asking edge1 1"]);
    await assert.rejects(relay({ site: "edge2" }, () => undefined, signal), saying("E_ASK_UNANSWERED", "nobody"));
    for (const site of ["*", ">", "edge1.x", "", 7, null]) {
      await assert.rejects(relay({ site }, () => undefined, signal), saying("E_OPERATION_INPUT"), String(site));
    }
    await assert.rejects(relay({}, () => undefined, signal), saying("E_OPERATION_INPUT"));
  });
});

describe("a desk for questions", () => {
  const world = { log: silentLog, metrics: noMetrics };
  const nothing = new Uint8Array();

  it("drops what comes beyond its bound, and works off the rest in order", async () => {
    const begun: string[] = [];
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => { open = resolve; });
    const desk = new AnswerDesk(async (question, askedOn) => {
      begun.push(askedOn);
      await gate;
      return question;
    }, world);
    let replies = 0;
    const taken = ANSWERS_AT_ONCE_MAX + QUESTIONS_WAITING_MAX;
    for (let number = 0; number < taken + 10; number += 1) desk.take(nothing, `${number}`, () => (replies += 1));
    assert.equal(begun.length, ANSWERS_AT_ONCE_MAX);
    open();
    await until("all that were taken are answered", () => replies === taken);
    assert.deepEqual(begun, Array.from({ length: taken }, (_, number) => `${number}`));
  });

  it("answers nothing after it was closed, not even what it works on", async () => {
    let worked = 0;
    const replies: string[] = [];
    const desk = new AnswerDesk((question) => Promise.resolve(question).finally(() => (worked += 1)), world);
    desk.take(nothing, "before", () => replies.push("before"));
    desk.close();
    desk.take(nothing, "after", () => replies.push("after"));
    await until("it has worked", () => worked === 1);
    assert.deepEqual(replies, []);
  });
});
