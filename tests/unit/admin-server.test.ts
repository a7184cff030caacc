/**
 * Goal: an operator's tools get truthful, safe answers from the admin server whatever state the process is in.
 * Method: the routes through supertest; the listener once for real, on a free port of the loopback.
 */
import assert from "node:assert/strict";
import request from "supertest";
import { adminRoutes, adminServer, type AdminOptions } from "../../admin/server.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics, processMetrics } from "../../core/metrics.ts";
import { Secret } from "../../core/secret.ts";

const FACTS = { process: "proxy", site: "centre", service: "keystone", version: "0.1.0" };

function options(overrides: Partial<AdminOptions> = {}): AdminOptions {
  return { host: "127.0.0.1", port: 0, facts: FACTS, notReady: () => ({}), status: () => ({}), metrics: noMetrics, ...overrides };
}

describe("admin server", () => {
  it("says it is alive even when nothing is ready", async () => {
    const routes = adminRoutes(options({ notReady: () => ({ feed: "not connected" }) }), silentLog);
    await request(routes).get("/healthz").expect(200, { alive: true });
  });

  it("is ready when every part is", async () => {
    await request(adminRoutes(options(), silentLog)).get("/readyz").expect(200, { ready: true, notReady: {} });
  });

  it("answers 503 with every reason when a part is not ready", async () => {
    const notReady = { feed: "not connected to nats://127.0.0.1:4222", database: "no answer in 5000 ms" };
    await request(adminRoutes(options({ notReady: () => notReady }), silentLog)).get("/readyz")
      .expect(503, { ready: false, notReady }).expect("Cache-Control", "no-store");
  });

  it("shows who it is and what it does, without passwords", async () => {
    const routes = adminRoutes(options({ status: () => ({ dirtyKeys: 3, password: new Secret("hunter2") }) }), silentLog);
    await request(routes).get("/status")
      .expect(200, { ...FACTS, ready: true, notReady: {}, status: { dirtyKeys: 3, password: "[sealed]" } });
  });

  it("shows metrics as Prometheus text", async () => {
    const metrics = processMetrics();
    metrics.count("calls_total", 2, { outcome: "forwarded" });
    const answer = await request(adminRoutes(options({ metrics }), silentLog)).get("/metrics").expect(200);
    assert.match(answer.headers["content-type"] ?? "", /^text\/plain/);
    assert.match(answer.text, /^calls_total\{.*outcome="forwarded".*\} 2/m);
  });

  it("changes nothing: other methods are refused", async () => {
    for (const method of ["post", "put", "patch", "delete"] as const) {
      await request(adminRoutes(options(), silentLog))[method]("/status").expect(405).expect("Allow", "GET, HEAD");
    }
  });

  it("answers a failing status with 500, without its stack", async () => {
    const status = (): object => {
      throw new Error("broken inside");
    };
    const answer = await request(adminRoutes(options({ status }), silentLog)).get("/status").expect(500);
    assert.doesNotMatch(answer.text, /broken inside|at /);
  });

  it("answers unknown paths with 404 and does not name its framework", async () => {
    const answer = await request(adminRoutes(options(), silentLog)).get("/admin/../etc").expect(404);
    assert.equal(answer.headers["x-powered-by"], undefined);
  });

  it("listens, answers and stops, also with an idle connection open", async () => {
    const server = adminServer(options(), silentLog);
    await server.start();
    const answer = await fetch(`http://127.0.0.1:${server.port()}/healthz`);
    assert.deepEqual(await answer.json(), { alive: true });
    await server.stop();
    await server.stop();
  });

  it("an occupied port is an error of start", async () => {
    const first = adminServer(options(), silentLog);
    await first.start();
    const second = adminServer(options({ port: first.port() }), silentLog);
    await assert.rejects(second.start(), /EADDRINUSE/);
    await first.stop();
  });
});
