/**
 * Goal: scripts and supervisors can rely on the command line's exit status and streams, and a process stops as it promises.
 * Method: the real program in child processes; what it runs is a process of the test's own, so that stopping can be watched.
 */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { adminServer } from "../../admin/server.ts";
import { exitOf, statusTable } from "../../cli/status.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const FORWARDING = "config/proxy-site.example.yaml";

interface Ended {
  readonly exit: number | null;
  readonly said: string;
  readonly complained: string;
}

function started(argv: readonly string[], environment: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(process.execPath, ["--import", "tsx", ...argv], { cwd: ROOT, env: { ...process.env, ...environment } });
}

async function ended(child: ChildProcess): Promise<Ended> {
  let said = "";
  let complained = "";
  child.stdout?.on("data", (chunk: Buffer) => (said += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (complained += chunk.toString()));
  const [exit] = await once(child, "close") as [number | null];
  return { exit, said, complained };
}

const holdfast = (...argv: readonly string[]): Promise<Ended> => ended(started(["cli/holdfast.ts", ...argv]));

/** A program that runs a process whose stop is `stop` (source text), and says "started" once it can be stopped. */
function running(stop: string): ChildProcess {
  return started(["--input-type=module", "--eval", `
    const { endOnBugs, realWorld, runUntilSignal } = await import("./cli/run.ts");
    const world = realWorld("info", { process: "trial" });
    endOnBugs(world.log);
    process.exit(await runUntilSignal(world, 0, () => Promise.resolve({ stop: ${stop} })));`]);
}

/** Resolves when a line with `message` was logged; a child that ends first is an error. */
function logged(child: ChildProcess, message: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes(`"msg":"${message}"`)) resolve();
    });
    child.once("close", () => reject(new Error(`ended without "${message}":\n${said}`)));
  });
}

describe("command line", function () {
  this.timeout(60_000);

  it("a good configuration is said to be good, with status 0", async () => {
    const { exit, said } = await holdfast("config", "check", FORWARDING);
    assert.deepEqual({ exit, said }, { exit: 0, said: `${FORWARDING}: a good proxy configuration\n` });
  });

  it("mistakes go to standard error, one line each, with status 2", async () => {
    const { exit, said, complained } = await holdfast("config", "check", "--kind", "syncd", FORWARDING);
    assert.equal(exit, 2);
    assert.equal(said, "");
    assert.match(complained, /^E_CONFIG: \d+ mistakes in the configuration$/m);
    assert.match(complained, /^config\/proxy-site\.example\.yaml: feed\.servers: expected .*, found nothing$/m);
  });

  it("a process with a wrong configuration ends with status 2 before it starts anything", async () => {
    const { exit, complained } = await holdfast("proxy", "--config", "config/absent.yaml");
    assert.equal(exit, 2);
    assert.match(complained, /no such file/);
  });

  it("a wrong command line has status 2", async () => {
    assert.equal((await holdfast("nonsense")).exit, 2);
  });

  it("status is 3 when an asked process does not answer", async () => {
    const { exit, said } = await holdfast("status", "--admin", "http://127.0.0.1:1");
    assert.equal(exit, 3);
    assert.match(said, /UNREACHABLE/);
  });

  it("status is 1 when a process is not ready, and says why", async () => {
    const server = adminServer({ host: "127.0.0.1", port: 0, facts: { process: "syncd", site: "edge1" },
      notReady: () => ({ feed: "not connected" }), status: () => ({ lag: 7 }), metrics: noMetrics }, silentLog);
    await server.start();
    const admin = `http://127.0.0.1:${server.port()}`;
    const [table, json] = await Promise.all([
      holdfast("status", "--admin", admin), holdfast("status", "--json", "--admin", admin)]);
    await server.stop();
    assert.equal(table.exit, 1);
    assert.match(table.said, /syncd +edge1 +- +NOT READY/);
    assert.match(table.said, /feed: not connected/);
    assert.match(json.said, /"lag": 7/);
  });

  it("the table shows no control characters of a stranger", () => {
    const strange = { admin: "http://h:1", reached: true, ready: true, process: "\u001b[31mred", site: "a", service: "b",
      notReady: {}, answer: {} } as const;
    assert.ok(!statusTable([strange]).includes("\u001b"));
    assert.equal(exitOf([strange]), 0);
  });
});

describe("a running process", function () {
  this.timeout(60_000);

  it("drains at the first signal and ends with status 0", async () => {
    const child = running("async () => console.log('drained')");
    const end = ended(child);
    await logged(child, "started");
    child.kill("SIGTERM");
    const { exit, said } = await end;
    assert.equal(exit, 0);
    assert.match(said, /drained/);
  });

  it("ends at once at the second signal", async () => {
    const child = running("() => new Promise(() => undefined)");
    const end = ended(child);
    await logged(child, "started");
    child.kill("SIGTERM");
    await logged(child, "stopping");
    child.kill("SIGTERM");
    assert.equal((await end).exit, 1);
  });

  it("a rejection that nobody handles is logged as a bug and ends it with status 70", async () => {
    const child = running("async () => { void Promise.reject(new Error('forgotten')); await new Promise(() => undefined); }");
    const end = ended(child);
    await logged(child, "started");
    child.kill("SIGINT");
    const { exit, said } = await end;
    assert.equal(exit, 70);
    assert.match(said, /a bug ends this process.*forgotten|forgotten.*a bug ends this process/);
  });
});
