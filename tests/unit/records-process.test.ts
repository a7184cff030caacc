/**
 * Goal: a sync daemon whose configuration has a records section serves the API,
   and says what it misses instead of hanging when its
 * surroundings are away; without the section nothing listens. Method: the real process in this one, with ports where nobody
 * listens.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import request from "supertest";
import { stringify } from "yaml";
import { runCentre } from "../../audit/main.ts";
import { loadSyncdConfig } from "../../config/load.ts";
import { systemClock } from "../../core/clock.ts";
import { isOperating } from "../../core/errors.ts";
import type { RunningProcess } from "../../core/lifecycle.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { runSyncd } from "../../syncd/main.ts";
import { freePort } from "../support/postgres.ts";

const HOST = "127.0.0.1";
const TOKEN = "a-token-that-is-long-enough-for-everybody";
const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

interface Answered {
  readonly body: { readonly error: { readonly code: string } };
}

describe("a process with a records section", function () {
  this.timeout(30_000);
  let folder: string;
  let certificate: string;
  let running: RunningProcess | undefined;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "holdfast-records-"));
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
      "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", join(folder, "key.pem"),
      "-out", join(folder, "cert.pem")], { stdio: "ignore" });
    certificate = readFileSync(join(folder, "cert.pem"), "utf8");
    writeFileSync(join(folder, "token"), `${TOKEN}\n`, { mode: 0o600 });
    writeFileSync(join(folder, "short"), "short\n", { mode: 0o600 });
  });
  afterEach(async () => {
    await running?.stop();
    running = undefined;
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** A configuration file for a process whose surroundings are all away. */
  const configuration = async (more: object, port: number, token: string): Promise<string> => {
    const file = join(folder, "syncd.yaml");
    const database = { engine: "postgres", host: HOST, port: await freePort(), name: "none", user: "nobody",
      connectTimeoutMs: 300 };
    writeFileSync(file, stringify({ site: "edge1", admin: { host: HOST, port: await freePort() },
      feed: { servers: [`nats://${HOST}:${await freePort()}`], publishTimeoutMs: 300 },
        services: [{ service: "keystone", database }],
      records: { port, tls: { cert: "cert.pem", key: "key.pem" },
        tokens: [{ name: "tool", token: { file: token }, scopes: ["read", "write"] }] }, ...more }));
    return file;
  };

  it("serves the API at a site", async () => {
    const port = await freePort();
    running = await runSyncd(loadSyncdConfig(await configuration({}, port, "token"), {}).config, world);
    const call = (method: "get" | "delete", path: string): request.Test => request(`https://${HOST}:${port}`)[method](path)
      .ca(certificate).set("Authorization", `Bearer ${TOKEN}`);
    const { body } = await call("get", "/v1/openapi.json").expect(200) as { body: { tags: Record<string, unknown>[] } };
    assert.deepEqual(body.tags.map((tag) => [tag["name"], tag["x-live"], tag["x-versioned"]]), [["keystone", false, true]]);
    const { body: away } = await call("get", "/v1/keystone/tables/user/records").expect(503) as Answered;
    assert.equal(away.error.code, "E_ROWS_UNAVAILABLE");
    await call("delete", "/v1/keystone/aggregates/user/x?version=1.5").expect(503);
    await running.stop();
    await assert.rejects(call("get", "/v1/openapi.json").then((answer) => answer));
  });

  it("serves the API at the centre", async () => {
    const port = await freePort();
    running = await runCentre(loadSyncdConfig(await configuration({ role: "centre" }, port, "token"), {}).config, world);
    const call = (method: "get" | "put", path: string): request.Test => request(`https://${HOST}:${port}`)[method](path)
      .ca(certificate).set("Authorization", `Bearer ${TOKEN}`);
    const { body } = await call("get", "/v1/openapi.json").expect(200) as { body: { tags: Record<string, unknown>[] } };
    assert.deepEqual(body.tags.map((tag) => [tag["name"], tag["x-versioned"]]), [["keystone", false]]);
    const { body: away } = await call("put", "/v1/keystone/aggregates/group/g").send({ rows: {} }).expect(503) as Answered;
    assert.equal(away.error.code, "E_ROWS_UNAVAILABLE");
  });

  it("refuses a certificate that is none", async () => {
    const tls = { cert: "token", key: "key.pem" };
    const tokens = [{ name: "tool", token: { file: "token" }, scopes: ["read"] }];
    const file = await configuration({ records: { port: 0, tls, tokens } }, 0, "token");
    await assert.rejects(runSyncd(loadSyncdConfig(file, {}).config, world), (error) => isOperating(error, "E_CONFIG"));
  });

  it("refuses a token that is too short", async () => {
    const file = await configuration({}, 0, "short");
    await assert.rejects(runSyncd(loadSyncdConfig(file, {}).config, world), (error) => isOperating(error, "E_CONFIG"));
  });
});
