/**
 * `npm test`: runs every layer of tests that this machine can run, from a clean clone on. Needs nothing but Node: the npm
 * packages are installed when they are missing or not those of package-lock.json, and the Debian packages by the lab's own
 * installer. `npm test -- unit property` runs only these layers.
 *
 * Invariants: a failing layer does not stop the next; every layer and the whole have a time limit; the last line is
 * "N passed, N failed" with ", N skipped" where tests were skipped; the exit status is 0 only when nothing failed. A layer
 * that dies, hangs or cannot be started counts as one failure beyond those it reported.
 * Not here: the tests.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const CHECKOUT = fileURLToPath(new URL("..", import.meta.url));
const BIN = join(CHECKOUT, "node_modules", ".bin");
const MINUTE_MS = 60_000;
/** The whole run; a layer gets what is left of it at most. */
const RUN_LIMIT_MS = 50 * MINUTE_MS;
/** Between asking a layer that hangs to end and ending it. */
const END_GRACE_MS = 5_000;

/** Cheapest first. `program`: one check by its exit status. `tests`: mocha on the test files of that folder or file. */
const LAYERS = [
  { name: "types", program: ["tsc", "--noEmit"], limitMs: 4 * MINUTE_MS },
  { name: "lint", program: ["eslint", "."], limitMs: 4 * MINUTE_MS },
  { name: "tidy", tests: "tests/tidy.test.ts", limitMs: 2 * MINUTE_MS },
  { name: "unit", tests: "tests/unit", limitMs: 6 * MINUTE_MS },
  { name: "property", tests: "tests/property", limitMs: 5 * MINUTE_MS },
  { name: "simulation", tests: "tests/simulation", limitMs: 12 * MINUTE_MS },
  { name: "wire", tests: "tests/wire", limitMs: 2 * MINUTE_MS },
  { name: "contract", tests: "tests/contract", limitMs: 20 * MINUTE_MS },
  { name: "fleet", tests: "tests/fleet", limitMs: 26 * MINUTE_MS },
];

const say = (line) => process.stdout.write(`${line}\n`);

/** Packages by place, from a lock file of version 2 or 3. */
function packagesIn(file) {
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")).packages ?? {}) : {};
}

/** True when every package that is not optional is installed in its version; file times would say nothing after a checkout. */
function areNpmPackagesInstalled() {
  const installed = packagesIn(join(CHECKOUT, "node_modules", ".package-lock.json"));
  return Object.entries(packagesIn(join(CHECKOUT, "package-lock.json"))).every(([place, wanted]) =>
    place === "" || wanted.optional === true || wanted.devOptional === true || wanted.peer === true
    || installed[place]?.version === wanted.version);
}

/** Installs what is missing. Tests whose servers stay missing skip with the reason, so only npm's failure ends the run. */
function prepare(needsServers) {
  if (!areNpmPackagesInstalled()) {
    say("installing npm packages (npm ci)");
    if (spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: CHECKOUT, stdio: "inherit" }).status !== 0) return false;
  }
  if (needsServers && existsSync(join(CHECKOUT, "lab", "main.ts"))) {
    const installer = spawnSync(process.execPath, ["--import", "tsx", "lab/main.ts", "install", "--tests"],
      { cwd: CHECKOUT, stdio: "inherit" });
    if (installer.status !== 0) say("not everything could be installed; tests that need it will be skipped and say so");
  }
  return true;
}

/** Test files at or below a path of the checkout. */
function testFilesAt(path) {
  const full = join(CHECKOUT, path);
  if (path.endsWith(".ts")) return existsSync(full) ? [path] : [];
  if (!existsSync(full)) return [];
  return readdirSync(full, { recursive: true }).map(String).filter((file) => file.endsWith(".test.ts")).sort()
    .map((file) => join(path, file));
}

/** Runs a program in a process group of its own; resolves with its exit status, or undefined when it had to be ended. */
function runWithin(limitMs, program, words, environment) {
  return new Promise((resolve) => {
    const child = spawn(program, words,
      { cwd: CHECKOUT, stdio: "inherit", detached: true, env: { ...process.env, ...environment } });
    const endGroup = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // The group has ended by itself.
      }
    };
    let hung = false;
    const timers = [setTimeout(() => {
      hung = true;
      endGroup("SIGTERM");
      timers.push(setTimeout(() => endGroup("SIGKILL"), END_GRACE_MS));
    }, limitMs)];
    const interrupt = () => {
      endGroup("SIGTERM");
      process.exit(130);
    };
    process.once("SIGINT", interrupt);
    process.once("SIGTERM", interrupt);
    const finish = (status) => {
      timers.forEach(clearTimeout);
      process.off("SIGINT", interrupt);
      process.off("SIGTERM", interrupt);
      // Nothing that a layer started may outlive it and disturb the next.
      endGroup("SIGKILL");
      resolve(hung ? undefined : status);
    };
    child.once("error", () => finish(-1));
    child.once("exit", (status) => finish(status ?? -1));
  });
}

/** Runs one layer; its counts, and what was wrong beside failing tests. */
async function runLayer(layer, limitMs, scratch) {
  if (layer.program !== undefined) {
    const [program, ...words] = layer.program;
    const status = await runWithin(limitMs, join(BIN, program), words, {});
    return status === 0 ? { passed: 1, failed: 0, skipped: 0 }
      : { passed: 0, failed: 1, skipped: 0, trouble: status === undefined ? `no end in ${limitMs / 1000} s` : undefined };
  }
  const files = testFilesAt(layer.tests);
  if (files.length === 0) return { passed: 0, failed: 0, skipped: 0, trouble: "no tests yet" };
  const tally = join(scratch, `${layer.name}.json`);
  const status = await runWithin(limitMs, join(BIN, "mocha"), ["--reporter", "tests/tally.mjs", ...files],
    { HOLDFAST_TEST_TALLY: tally });
  const counts = existsSync(tally) ? JSON.parse(readFileSync(tally, "utf8")) : undefined;
  const trouble = status === undefined ? `no end in ${Math.round(limitMs / 1000)} s`
    : counts === undefined ? `mocha died with status ${status} before its tests had ended`
    : status !== 0 && counts.failed === 0 ? `mocha ended with status ${status}` : undefined;
  const { passed, failed, skipped } = counts ?? { passed: 0, failed: 0, skipped: 0 };
  return { passed, failed: trouble === undefined ? failed : failed + 1, skipped, trouble };
}

function lineOf(name, { passed, failed, skipped, trouble }, seconds) {
  const counts = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
  const note = trouble === undefined ? "" : ` (${trouble})`;
  return `${failed > 0 ? "✗" : "✓"} ${name.padEnd(11)}${seconds.toFixed(1).padStart(7)} s  ${counts}${note}`;
}

async function main() {
  const asked = process.argv.slice(2);
  const unknown = asked.filter((name) => !LAYERS.some((layer) => layer.name === name));
  if (unknown.length > 0) {
    say(`unknown: ${unknown.join(", ")}; the layers are ${LAYERS.map(({ name }) => name).join(", ")}`);
    return 2;
  }
  const layers = asked.length === 0 ? LAYERS : LAYERS.filter(({ name }) => asked.includes(name));
  if (!prepare(layers.some(({ name }) => name === "contract" || name === "fleet"))) return 1;
  const scratch = mkdtempSync(join(tmpdir(), "holdfast-tests-"));
  const startMs = performance.now();
  const results = [];
  for (const layer of layers) {
    say(`— ${layer.name}`);
    const layerStartMs = performance.now();
    const limitMs = Math.max(1, Math.min(layer.limitMs, RUN_LIMIT_MS - (layerStartMs - startMs)));
    const result = await runLayer(layer, limitMs, scratch);
    results.push({ layer, result, line: lineOf(layer.name, result, (performance.now() - layerStartMs) / 1000) });
    say(results.at(-1).line);
  }
  rmSync(scratch, { recursive: true, force: true });
  const sum = (name) => results.reduce((total, { result }) => total + result[name], 0);
  say(["", ...results.map(({ line }) => line), ""].join("\n"));
  const skipped = sum("skipped");
  say(`${sum("passed")} passed, ${sum("failed")} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return sum("failed") === 0 ? 0 : 1;
}

process.exitCode = await main();
