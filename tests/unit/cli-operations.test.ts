/**
 * Goal: a person sees in a few lines what a process answered, and a script sees it in the exit status.
 * Method: the commands in this process against a real admin server whose operations answer as the test says; the whole program
 * once in a child process.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { Command, CommanderError } from "commander";
import { adminServer, type AdminServer } from "../../admin/server.ts";
import { auditCommand } from "../../cli/audit.ts";
import { heldCommands } from "../../cli/held.ts";
import { askAdmin } from "../../cli/operation.ts";
import { ProgressLine, progressText } from "../../cli/progress.ts";
import { quarantineCommands } from "../../cli/quarantine.ts";
import { siteCommands } from "../../cli/sites.ts";
import { counted, tableOf } from "../../cli/tables.ts";
import { systemClock } from "../../core/clock.ts";
import { OperatingError, type ErrorCode } from "../../core/errors.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import type { Input, JsonValue, Operation } from "../../core/operation.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Operations as the test wants them, and what they were asked. */
const operations = new Map<string, Operation>();
const asked: { readonly name: string; readonly input: Input }[] = [];
let server: AdminServer;

function answers(name: string, output: JsonValue | (() => Promise<JsonValue>)): void {
  operations.set(name, (input) => {
    asked.push({ name, input });
    return typeof output === "function" ? output() : Promise.resolve(output);
  });
}

interface Ran {
  readonly exit: number | undefined;
  readonly said: string;
  readonly complained: string;
  readonly drawn: string;
}

/** Runs one command line (split at spaces) at the test's server. */
async function run(line: string, isTerminal = false): Promise<Ran> {
  const ran = { exit: undefined as number | undefined, said: "", complained: "", drawn: "" };
  const program = new Command("holdfast").exitOverride()
    .configureOutput({ writeErr: () => undefined, writeOut: () => undefined });
  const terminal = { isTTY: isTerminal, columns: 60, write: (text: string) => (ran.drawn += text) };
  const session = { clock: systemClock, terminal,
    say: (text: string) => void (ran.said += `${text}\n`), complain: (text: string) => void (ran.complained += `${text}\n`),
    finish: (exit: number) => void (ran.exit = exit) };
  for (const add of [auditCommand, siteCommands, quarantineCommands, heldCommands]) add(program, session);
  const words = [...line.split(" "), ...(line.includes("--admin") ? [] : ["--admin", `http://127.0.0.1:${server.port()}`])];
  await program.parseAsync(words, { from: "user" });
  return ran;
}

const report = (more: Readonly<Record<string, JsonValue>>): JsonValue => ({ service: "keystone",
  atMs: 1_700_000_000_000, tookMs: 1234, aggregates: 1000,
  differences: { missing: 0, stale: 0, superfluous: 0 }, published: 0, held: 0, epoch: 3,
  root: "ab".repeat(32), ...more });

const USER = "user.3f";
const DIFFERENT = { name: USER, what: "different", rows: [{ table: "local_user", key: ["7"], columns: [
  { name: "name", centre: "anna", site: "an\u001b[31mna" }, { name: "password", centre: "secret:11", site: "secret:22" }] }] };
const diff = (differences: readonly JsonValue[], more = false): JsonValue => [{ service: "keystone", site: "edge1",
  position: "3.1200", compared: 10, equal: 10 - differences.length, differences, more }];

const NOTE = { kind: "user", state: "held", code: "E_BLAST_HELD", cause: "audit", deletes: 120, rewrites: 0, live: 800,
  reason: "120 of 800 would be deleted", sample: ["user.1", "user.2"], since: "2024-01-01T00:00:00.000000", service: "keystone" };

describe("commands that ask a running process", function () {
  this.timeout(60_000);
  before(async () => {
    server = adminServer({ host: "127.0.0.1", port: 0, facts: {}, notReady: () => ({}), status: () => ({}), metrics: noMetrics,
      operations }, silentLog);
    await server.start();
  });
  beforeEach(() => {
    operations.clear();
    asked.length = 0;
  });
  after(() => server.stop());

  describe("audit", () => {
    it("shows the last report and ends with 0 when nothing differed", async () => {
      answers("audit", [report({})]);
      const { exit, said } = await run("audit");
      assert.equal(exit, 0);
      assert.match(said, /^SERVICE +AT \(UTC\) +TOOK/);
      assert.match(said, /keystone +2023-11-14T22:13:20 +1\.2 s +1000 +0 +0 +0 +0 +0 +3 +abababababab$/m);
      assert.deepEqual(asked, [{ name: "audit", input: { now: false } }]);
    });

    it("asks for a new one of one service, and ends with 1 when something differed or is held", async () => {
      for (const found of [{ differences: { missing: 1, stale: 0, superfluous: 0 } }, { held: 2 }]) {
        answers("audit", [report({}), report(found)]);
        assert.equal((await run("audit --now --service keystone")).exit, 1);
      }
      assert.deepEqual(asked[0], { name: "audit", input: { now: true, service: "keystone" } });
    });

    it("ends with 1 when no audit has ended yet", async () => {
      answers("audit", []);
      assert.deepEqual(await run("audit"), { exit: 1, said: "no audit has ended yet\n", complained: "", drawn: "" });
    });
  });

  describe("diff", () => {
    it("ends with 0 when a site is equal", async () => {
      answers("diff", diff([]));
      const { exit, said } = await run("diff edge1");
      assert.deepEqual({ exit, said },
        { exit: 0, said: "keystone at edge1 (position 3.1200): 10 aggregates compared, 10 equal\n" });
      assert.deepEqual(asked, [{ name: "diff", input: { site: "edge1" } }]);
    });

    it("shows counts by kind, then every column that differs, without control characters, and ends with 1", async () => {
      answers("diff", diff([DIFFERENT, { name: "user.40", what: "missing", rows: [] },
        { name: "role.1", what: "superfluous", rows: [] }], true));
      const { exit, said } = await run("diff edge1 --service keystone --kind user");
      assert.equal(exit, 1);
      assert.equal(said, [
        "keystone at edge1 (position 3.1200): 10 aggregates compared, 7 equal",
        "  user: 1 different, 1 missing",
        "    user.3f: different",
        "      local_user [\"7\"]",
        "        name: centre \"anna\", site \"an\\u001b[31mna\"",
        "        password: centre \"secret:11\", site \"secret:22\"",
        "    user.40: missing",
        "  role: 1 superfluous",
        "    role.1: superfluous",
        "  there are more differences than are shown",
        ""].join("\n"));
      assert.deepEqual(asked[0]?.input, { site: "edge1", service: "keystone", kind: "user" });
    });

    it("prints exactly what the process answered when asked for JSON, with the same status", async () => {
      answers("diff", diff([DIFFERENT]));
      const { exit, said } = await run("diff edge1 --json");
      assert.equal(exit, 1);
      assert.deepEqual(JSON.parse(said), diff([DIFFERENT]));
    });

    it("ends with 1 when there is more than the process compared", async () => {
      answers("diff", diff([], true));
      assert.equal((await run("diff edge1")).exit, 1);
    });
  });

  it("resync says that it began", async () => {
    answers("resync", { site: "edge1", service: "keystone", started: true });
    const { exit, said } = await run("resync edge1");
    assert.deepEqual({ exit, said }, { exit: 0, said: "edge1 reads keystone again from the beginning\n" });
  });

  describe("quarantine", () => {
    it("lists what is quarantined, with 1, or says that nothing is, with 0", async () => {
      const since = "2024-01-01T00:00:00";
      const entries = [{ name: USER, code: "E_ROWS_REFUSED", reason: "too long\n", since, version: "3.17" }];
      answers("quarantine.list", [{ site: "edge1", service: "keystone", entries, more: true }]);
      const listed = await run("quarantine list edge1");
      assert.equal(listed.exit, 1);
      assert.match(listed.said, /^there are more than are shown$/m);
      assert.match(listed.said, /^edge1 +keystone +user\.3f +E_ROWS_REFUSED +2024-01-01T00:00:00 +3\.17 +too long\?$/m);
      answers("quarantine.list", [{ site: "edge1", service: "keystone", entries: [] }]);
      assert.equal((await run("quarantine list edge1")).exit, 0);
    });

    it("shows one with its image", async () => {
      answers("quarantine.show", { name: USER, code: "E_ROWS_REFUSED", image: { user: [{ id: "3f", password: "secret:11" }] } });
      const { exit, said } = await run(`quarantine show edge1 ${USER}`);
      assert.equal(exit, 0);
      assert.match(said, /^name +user\.3f$/m);
      assert.match(said, /"password": "secret:11"/);
      assert.deepEqual(asked[0]?.input, { site: "edge1", name: USER });
    });

    it("retries and drops, and ends with 1 when a change is refused again", async () => {
      for (const [outcome, expected] of [["applied", 0], ["quarantined again", 1]] as const) {
        answers("quarantine.retry", { name: USER, outcome });
        const { exit, said } = await run(`quarantine retry edge1 ${USER}`);
        assert.deepEqual({ exit, said }, { exit: expected, said: `${USER}: ${outcome}\n` });
      }
      answers("quarantine.drop", { name: USER, outcome: "dropped" });
      assert.equal((await run(`quarantine drop edge1 ${USER} --service keystone`)).exit, 0);
      assert.deepEqual(asked.at(-1), { name: "quarantine.drop", input: { site: "edge1", name: USER, service: "keystone" } });
    });
  });

  describe("held", () => {
    it("lists what waits for a decision, with 1, and what was decided or nothing, with 0", async () => {
      answers("held.list", [NOTE, { ...NOTE, site: "edge1" }]);
      const { exit, said } = await run("held list");
      assert.equal(exit, 1);
      assert.match(said, /^centre +keystone +user +held +120 +0 +800 +audit +E_BLAST_HELD/m);
      assert.match(said, /^edge1 +keystone/m);
      assert.match(said, /user: 120 of 800 would be deleted, such as user\.1, user\.2/);
      for (const notes of [[{ ...NOTE, state: "rejected" }], []]) {
        answers("held.list", notes);
        assert.equal((await run("held list --site edge1")).exit, 0);
      }
      assert.deepEqual(asked.at(-1)?.input, { site: "edge1" });
    });

    it("releases and rejects one kind", async () => {
      for (const [word, state] of [["release", "released"], ["reject", "rejected"]] as const) {
        answers(`held.${word}`, { ...NOTE, state });
        const { exit, said } = await run(`held ${word} user --site edge1`);
        assert.deepEqual({ exit, said }, { exit: 0, said: `user: ${state}\n` });
        assert.deepEqual(asked.at(-1)?.input, { kind: "user", site: "edge1" });
      }
    });
  });

  describe("what goes wrong", () => {
    it("has a status by whose fault it is, and says what the process said", async () => {
      const cases: readonly (readonly [ErrorCode, number])[] = [["E_OPERATION_INPUT", 2], ["E_ASK_UNANSWERED", 3],
        ["E_FEED_UNAVAILABLE", 3], ["E_ACCESS_DENIED", 1], ["E_ROWS_UNAVAILABLE", 1], ["E_RECORD_UNKNOWN", 1]];
      for (const [code, expected] of cases) {
        answers("diff", () => Promise.reject(new OperatingError(code, "edge1 said so")));
        assert.deepEqual(await run("diff edge1 --json"),
          { exit: expected, said: "", complained: `${code}: edge1 said so\n`, drawn: "" });
      }
      answers("diff", () => Promise.reject(new TypeError("inside")));
      assert.equal((await run("diff edge1")).exit, 70);
    });

    it("is unreachable when nobody listens, when somebody else does, and when the process ends before its answer", async () => {
      assert.equal((await run("diff edge1 --admin http://127.0.0.1:1")).exit, 3);
      assert.equal((await run("diff edge1 --admin ftp://127.0.0.1")).exit, 2);
      assert.equal((await run("resync edge1")).exit, 2, "an operation that the process does not have");
      const strangers = [[404, "{\"error\":\"not here\"}"], [200, "hello"],
        [200, "{\"progress\":{\"step\":\"a\",\"done\":1}}\n"]] as const;
      for (const [status, body] of strangers) {
        const stranger = createServer((_request, response) => response.writeHead(status).end(body));
        await once(stranger.listen(0, "127.0.0.1"), "listening");
        const address = stranger.address();
        assert.ok(typeof address === "object" && address !== null);
        const { exit, complained } = await run(`diff edge1 --admin http://127.0.0.1:${address.port}`);
        assert.equal(exit, 3, complained);
        stranger.close();
      }
    });

    it("fails on answers of another shape instead of calling them equal", async () => {
      for (const output of [null, "equal", {}, [{ differences: [] }], [{ compared: 1, equal: 1 }], [7]]) {
        answers("diff", output);
        await assert.rejects(run("diff edge1"), /E_ASK_UNANSWERED: the answer cannot be read/, JSON.stringify(output));
      }
      answers("audit", [{ service: "keystone" }]);
      await assert.rejects(run("audit"), /E_ASK_UNANSWERED/);
    });

    it("that is a mistake on the command line never asks anybody", async () => {
      for (const line of ["diff", "quarantine retry edge1", "held release", "audit --no-such", "quarantine"]) {
        await assert.rejects(run(line), CommanderError, line);
      }
      assert.deepEqual(asked, []);
    });

    it("does not lose an answer that comes in pieces or without a last line break", async () => {
      const pieces = ["{\"prog", "ress\":{\"step\":\"Zo", "ë\",\"done\":1,\"total\":2}}\n{\"out", "put\":\"Zoë\"}"];
      const slow = createServer((request, response) => void (async () => {
        for await (const chunk of request) assert.ok(chunk);
        for (const piece of pieces) await new Promise((resolve) => response.write(piece, resolve));
        response.end();
      })());
      await once(slow.listen(0, "127.0.0.1"), "listening");
      const address = slow.address();
      assert.ok(typeof address === "object" && address !== null);
      const steps: string[] = [];
      const answer = await askAdmin({ admin: `http://127.0.0.1:${address.port}`, name: "x", input: {},
        onProgress: ({ step, done, total }) => steps.push(`${step} ${done}/${total}`) }, systemClock);
      assert.deepEqual([answer, steps], [{ ok: true, output: "Zoë" }, ["Zoë 1/2"]]);
      slow.close();
    });
  });

  describe("progress", () => {
    it("is drawn on a terminal, wiped at the end, and never mixed with the result", async () => {
      operations.set("audit", (_input, progress) => {
        progress({ step: "comparing user", done: 12, total: 24 });
        return Promise.resolve([report({})]);
      });
      const { drawn, said } = await run("audit --now --json", true);
      assert.equal(drawn, "\r\u001b[K[############------------] 12/24 comparing user\r\u001b[K");
      assert.doesNotThrow(() => JSON.parse(said) as unknown);
      assert.equal((await run("audit --now")).drawn, "");
    });

    it("keeps to the line, and survives strange figures", () => {
      assert.equal(progressText({ step: "x".repeat(200), done: 1, total: 2 }, 60).length, 59);
      assert.equal(progressText({ step: "a\u001b[2J", done: 5, total: undefined }, 80), "5 a?[2J");
      for (const [done, total] of [[5, 0], [9, 3], [-1, 3], [Number.NaN, 3]] as const) {
        assert.equal(typeof progressText({ step: "x", done, total }, 80), "string");
      }
    });

    it("is not drawn more often than an eye can follow", () => {
      let nowMs = 0;
      let drawings = 0;
      const line = new ProgressLine({ isTTY: true, write: () => (drawings += 1) }, { ...systemClock, monotonicMs: () => nowMs });
      for (; nowMs < 1_000; nowMs += 1) line.show({ step: "x", done: nowMs, total: 1_000 });
      assert.equal(drawings, 10);
    });
  });

  it("tables line up, whatever is in them", () => {
    assert.deepEqual(tableOf([["A", "BB"], ["long\u0007er", ""], ["x", "y", "z"]]), ["A        BB", "long?er", "x        y   z"]);
    assert.deepEqual(tableOf([]), []);
    assert.deepEqual([counted(1, "row"), counted(0, "row")], ["1 row", "0 rows"]);
  });

  it("the program itself ends with the status of what was found", async () => {
    answers("held.list", [NOTE]);
    const child = spawn(process.execPath, ["--import", "tsx", "cli/holdfast.ts", "held", "list", "--json", "--admin",
      `http://127.0.0.1:${server.port()}`], { cwd: ROOT, stdio: ["ignore", "pipe", "ignore"] });
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const [exit] = await once(child, "close") as [number | null];
    assert.equal(exit, 1);
    assert.deepEqual(JSON.parse(said), [NOTE]);
  });
});
