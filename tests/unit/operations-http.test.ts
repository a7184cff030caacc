/**
 * Goal: a person on the machine can have a process do things and see how far it is; nobody else can, not even through the
 * person's browser.
 * Method: the routes through supertest; leaving and stopping on a real listener of the loopback.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request as httpRequest } from "node:http";
import request from "supertest";
import { isLoopback, OPERATIONS_AT_ONCE_MAX } from "../../admin/operations.ts";
import { adminRoutes, adminServer, type AdminOptions } from "../../admin/server.ts";
import { OperatingError } from "../../core/errors.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import type { Operation } from "../../core/operation.ts";
import { until } from "../contract/feed.suite.ts";

const LOOPBACK = "127.0.0.1";

function options(operations: Readonly<Record<string, Operation>> | undefined, host = LOOPBACK): AdminOptions {
  return { host, port: 0, facts: { process: "syncd" }, notReady: () => ({}), status: () => ({}), metrics: noMetrics,
    operations: operations === undefined ? undefined : new Map(Object.entries(operations)) };
}

const routes = (operations: Readonly<Record<string, Operation>>, host?: string) =>
  adminRoutes(options(operations, host), silentLog);
const lines = (text: string): unknown[] => text.trimEnd().split("\n").map((line) => JSON.parse(line) as unknown);
const echo: Operation = (input) => Promise.resolve(input);

describe("operations over HTTP", () => {
  it("are listed by name", async () => {
    await request(routes({ resync: echo, audit: echo })).get("/operations").set("Host", LOOPBACK)
      .expect(200, { operations: ["audit", "resync"] });
  });

  it("get their input and answer with their output on the last line", async () => {
    const answer = await request(routes({ echo })).post("/operations/echo").set("Host", "localhost:9480")
      .send({ site: "edge1", now: true }).expect(200).expect("Content-Type", /x-ndjson/);
    assert.deepEqual(lines(answer.text), [{ output: { site: "edge1", now: true } }]);
  });

  it("take an absent body as no input", async () => {
    const answer = await request(routes({ echo })).post("/operations/echo").set("Host", "[::1]:9480").expect(200);
    assert.deepEqual(lines(answer.text), [{ output: {} }]);
  });

  it("say how far they are before they say what came of it", async () => {
    const audit: Operation = (_input, progress) => {
      progress({ step: "comparing user", done: 1, total: 2 });
      progress({ step: "waiting", done: 2, total: undefined });
      return Promise.resolve([]);
    };
    const answer = await request(routes({ audit })).post("/operations/audit").set("Host", LOOPBACK).expect(200);
    assert.deepEqual(lines(answer.text), [{ progress: { step: "comparing user", done: 1, total: 2 } },
      { progress: { step: "waiting", done: 2 } }, { output: [] }]);
  });

  it("end with the code and the text of a failure, and with no text of a bug", async () => {
    const operations = { fail: () => Promise.reject(new OperatingError("E_ASK_UNANSWERED", "edge1 is away")),
      break: () => Promise.reject(new TypeError("inside")) };
    const failed = await request(routes(operations)).post("/operations/fail").set("Host", LOOPBACK).expect(200);
    assert.deepEqual(lines(failed.text), [{ error: { code: "E_ASK_UNANSWERED", message: "edge1 is away" } }]);
    const broken = await request(routes(operations)).post("/operations/break").set("Host", LOOPBACK).expect(200);
    assert.match(broken.text, /^\{"error":\{"code":"BUG"/);
    assert.doesNotMatch(broken.text, /inside/);
  });

  it("refuse unknown names and input that is no JSON object, without beginning", async () => {
    const all = routes({ echo });
    await request(all).post("/operations/sing").set("Host", LOOPBACK).expect(404).expect(/E_OPERATION_INPUT/);
    for (const body of ["[]", "7", "{", "null"]) {
      await request(all).post("/operations/echo").set("Host", LOOPBACK).set("Content-Type", "application/json").send(body)
        .expect(400).expect(/E_OPERATION_INPUT/);
    }
    await request(all).post("/operations/echo").set("Host", LOOPBACK).send({ text: "x".repeat(70_000) })
      .expect(413).expect(/E_OPERATION_INPUT/);
  });

  it("are refused when the server listens for others than this machine", async () => {
    for (const host of ["0.0.0.0", "::", "192.0.2.1", "node1.example.org"]) {
      await request(routes({ echo }, host)).post("/operations/echo").set("Host", LOOPBACK).expect(403).expect(/E_ACCESS_DENIED/);
      await request(routes({ echo }, host)).get("/operations").set("Host", LOOPBACK).expect(403);
    }
  });

  it("are refused to web pages: with an Origin, and under a name that was made to mean this machine", async () => {
    let calls = 0;
    const all = routes({ count: () => Promise.resolve(calls += 1) });
    await request(all).post("/operations/count").set("Host", LOOPBACK).set("Origin", "http://evil.example").expect(403);
    await request(all).post("/operations/count").set("Host", LOOPBACK).set("Origin", "null").expect(403);
    for (const host of ["evil.example", "evil.example:9480", "127.0.0.1.evil.example", "localhost.evil.example",
      "192.0.2.1:9480"]) {
      await request(all).post("/operations/count").set("Host", host).expect(403).expect(/E_ACCESS_DENIED/);
    }
    assert.equal(calls, 0);
  });

  it("are not there in a process that has none, and nothing else may be posted", async () => {
    const none = adminRoutes(options(undefined), silentLog);
    await request(none).get("/operations").set("Host", LOOPBACK).expect(404);
    await request(none).post("/operations/echo").set("Host", LOOPBACK).expect(405);
    for (const path of ["/status", "/operations", "/operations/echo/more", "/healthz"]) {
      await request(routes({ echo })).post(path).set("Host", LOOPBACK).expect(405);
    }
    await request(routes({ echo })).put("/operations/echo").set("Host", LOOPBACK).expect(405);
  });

  it("run a bounded number at once, and tell more to come again", async () => {
    const ends: (() => void)[] = [];
    const server = adminServer(options({ wait: () => new Promise((resolve) => ends.push(() => resolve("done"))) }), silentLog);
    await server.start();
    const post = () => fetch(`http://${LOOPBACK}:${server.port()}/operations/wait`, { method: "POST" });
    const running = await Promise.all(Array.from({ length: OPERATIONS_AT_ONCE_MAX }, post));
    await until("all run", () => ends.length === OPERATIONS_AT_ONCE_MAX);
    const more = await post();
    assert.equal(more.status, 503);
    assert.equal(more.headers.get("retry-after"), "5");
    for (const end of ends) end();
    for (const one of running) assert.deepEqual(lines(await one.text()), [{ output: "done" }]);
    const next = post();
    await until("there is room again", () => ends.length === OPERATIONS_AT_ONCE_MAX + 1);
    ends.at(-1)?.();
    assert.equal((await next).status, 200);
    await server.stop();
  });

  it("are aborted when their asker leaves, and when the process stops", async () => {
    const signals: AbortSignal[] = [];
    const server = adminServer(options({ wait: (_input, _progress, signal) => new Promise((resolve) => {
      signals.push(signal);
      signal.addEventListener("abort", () => resolve(null), { once: true });
    }) }), silentLog);
    await server.start();
    const asking = () => {
      const asked = httpRequest({ host: LOOPBACK, port: server.port(), path: "/operations/wait", method: "POST" });
      asked.on("error", () => undefined).end();
      return asked;
    };
    const leaving = asking();
    await once(leaving, "response");
    leaving.destroy();
    await until("the first is aborted", () => signals[0]?.aborted === true);
    const staying = asking();
    await once(staying, "response");
    await server.stop();
    await until("the second is aborted", () => signals[1]?.aborted === true);
    assert.equal(signals.length, 2);
  });

  it("know what is only this machine", () => {
    for (const host of ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost", "LOCALHOST"]) assert.ok(isLoopback(host), host);
    for (const host of ["", "0.0.0.0", "::", "10.0.0.1", "localhost.", "1.0.0.127", "127.0.0.1.nip.io", "::ffff:10.0.0.1"]) {
      assert.equal(isLoopback(host), false, host);
    }
  });
});
