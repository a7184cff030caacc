/**
 * First step of every lab command, straight after `git clone`: needs nothing but Node. Installs the npm packages when
 * they are missing or are not those of package-lock.json, then hands over to main.ts with the same arguments.
 *
 * Not here: anything else. What npm itself records of an installation (node_modules/.package-lock.json) is compared entry by
 * entry, because file times say nothing after a checkout or a copy.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const CHECKOUT = fileURLToPath(new URL("..", import.meta.url));
const NODE_MAJOR_LEAST = 20;

/** Packages by place, from a lock file of version 2 or 3. */
function packagesIn(file) {
  const text = existsSync(file) ? readFileSync(file, "utf8") : "{}";
  return JSON.parse(text).packages ?? {};
}

/** True when every package of package-lock.json that is not optional is installed in its version. */
function isInstalled() {
  const installed = packagesIn(join(CHECKOUT, "node_modules", ".package-lock.json"));
  return Object.entries(packagesIn(join(CHECKOUT, "package-lock.json")))
    .every(([place, wanted]) => place === "" || wanted.optional === true || wanted.devOptional === true || wanted.peer === true
      || installed[place]?.version === wanted.version);
}

function run(program, words) {
  const { status, error } = spawnSync(program, words, { cwd: CHECKOUT, stdio: "inherit" });
  if (error !== undefined) process.stderr.write(`${program} cannot be run: ${error.message}\n`);
  return status ?? 1;
}

function main() {
  const major = Number(process.versions.node.split(".")[0]);
  if (major < NODE_MAJOR_LEAST) {
    process.stderr.write(`the lab needs Node ${NODE_MAJOR_LEAST} or newer, this is ${process.versions.node}\n`);
    return 2;
  }
  if (!isInstalled()) {
    process.stdout.write("installing npm packages (npm ci)\n");
    const failed = run("npm", ["ci", "--no-audit", "--no-fund"]);
    if (failed !== 0) return failed;
  }
  return run(process.execPath, ["--import", "tsx", join("lab", "main.ts"), ...process.argv.slice(2)]);
}

process.exitCode = main();
