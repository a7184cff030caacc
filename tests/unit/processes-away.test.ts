/**
 * Goal: a process whose database, stream server or upstream is away lives, says on /readyz what it misses, serves what it can
 * and loses no intent. Method: the real processes in this one, configured with ports where nobody listens.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttp, type Server } from "node:http";
import { createServer as createTcp, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import request from "supertest";
import { stringify } from "yaml";
import { loadProxyConfig, loadSyncdConfig } from "../../config/load.ts";
import { systemClock } from "../../core/clock.ts";
import type { RunningProcess } from "../../core/lifecycle.ts";
import { silentLog } from "../../core/log.ts";
import { processMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { runProxy } from "../../proxy/main.ts";
import { runSyncd } from "../../syncd/main.ts";

const HOST = "127.0.0.1";

async function freePort(): Promise<number> {
  const server = createTcp().listen(0, HOST);
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe("a process whose surroundings are away", function () {
  this.timeout(30_000);
  let folder: string;
  let upstream: Server;
  let running: RunningProcess | undefined;
  const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: processMetrics() };

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "holdfast-away-"));
    upstream = createHttp((_request, response) => void response.writeHead(201, { "Content-Type": "application/json" })
      .end('{"user":{"id":"0123456789abcdef0123456789abcdef"}}')).listen(0, HOST);
    await new Promise((resolve) => upstream.once("listening", resolve));
  });
  afterEach(async () => {
    await running?.stop();
    running = undefined;
    await new Promise((resolve) => upstream.close(resolve));
    rmSync(folder, { recursive: true, force: true });
  });

  const written = (name: string, document: object): string => {
    const file = join(folder, name);
    writeFileSync(file, stringify(document));
    return file;
  };
  const away = async (): Promise<{ database: object; feed: object }> => ({
    database: { engine: "postgres", host: HOST, port: await freePort(), name: "none", user: "nobody", connectTimeoutMs: 300 },
    feed: { servers: [`nats://${HOST}:${await freePort()}`], publishTimeoutMs: 300 },
  });

  it("is a proxy that forwards, notes the call and says what it misses", async () => {
    const [listen, admin] = [await freePort(), await freePort()];
    const { port } = upstream.address() as AddressInfo;
    const file = written("proxy.yaml", { service: "keystone", site: "centre", listen: { host: HOST, port: listen },
      admin: { host: HOST, port: admin }, upstream: { url: `http://${HOST}:${port}` }, ...await away(), drainTimeoutMs: 100,
      intents: { folder: join(folder, "intents") } });
    running = await runProxy(loadProxyConfig(file, {}).config, world);
    const operator = request(`http://${HOST}:${admin}`);
    await request(`http://${HOST}:${listen}`).post("/v3/users").send({ user: { name: "ann" } }).expect(201);
    await operator.get("/healthz").expect(200);
    const { body } = await operator.get("/readyz").expect(503) as { body: { notReady: Record<string, string> } };
    assert.match(body.notReady["capture"] ?? "", /E_ROWS_UNAVAILABLE|not prepared/);
    const { body: status } = await operator.get("/status").expect(200) as { body: { status: { openIntents: number } } };
    assert.equal(status.status.openIntents, 1, "the call waits in the journal");
  });

  it("is a proxy that answers in the service's own words when the upstream is away, and stays alive", async () => {
    const [listen, admin] = [await freePort(), await freePort()];
    const file = written("proxy.yaml", { service: "keystone", site: "edge1", listen: { host: HOST, port: listen },
      admin: { host: HOST, port: admin }, upstream: { url: `http://${HOST}:${await freePort()}` }, capture: false });
    running = await runProxy(loadProxyConfig(file, {}).config, world);
    const { body, headers } = await request(`http://${HOST}:${listen}`).post("/v3/users").send({}).expect(503) as
      { body: { error: { code: number } }; headers: Record<string, string> };
    assert.equal(body.error.code, 503);
    assert.match(headers["x-openstack-request-id"] ?? "", /^req-/);
    await request(`http://${HOST}:${admin}`).get("/readyz").expect(503);
  });

  it("is a sync daemon that says what it misses and can be stopped", async () => {
    const admin = await freePort();
    const { database, feed } = await away();
    const file = written("syncd.yaml", { site: "edge1", admin: { host: HOST, port: admin }, feed,
      services: [{ service: "keystone", database }] });
    running = await runSyncd(loadSyncdConfig(file, {}).config, world);
    const { body } = await request(`http://${HOST}:${admin}`).get("/readyz").expect(503) as { body: { notReady: Record<string,
      string> } };
    assert.match(body.notReady["follow keystone"] ?? "", /E_ROWS_UNAVAILABLE|not prepared/);
    await running.stop();
  });
});
