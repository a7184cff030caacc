/**
 * What the lab needs of the machine: root, Debian 12, some packages. Says in one sentence what is missing, and installs
 * packages without starting any daemon of theirs and without asking anything.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { systemClock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { run } from "./commands.ts";
import { readIfThere } from "./files.ts";
import { INSTALL_MS, type EngineName } from "./options.ts";

const ALWAYS = ["nats-server", "openssl", "memcached", "python3-keystone", "python3-pymemcache", "python3-psycopg2",
  "python3-pymysql", "uwsgi-core", "uwsgi-plugin-python3", "python3-openstackclient"];
const FOR_ENGINE: Readonly<Record<EngineName, readonly string[]>> = {
  postgres: ["postgresql"],
  mariadb: ["mariadb-server"],
};

/** The release whose packages the lab's configuration and the service files were verified with. */
const DEBIAN_VERSION = "12";
/** Asked by maintainer scripts before they start a daemon; exit code 101 forbids it (invoke-rc.d, Debian policy 9.3.3). */
const POLICY_FILE = "/usr/sbin/policy-rc.d";
const POLICY = "#!/bin/sh\n# Holdfast's lab is installing packages.\nexit 101\n";
const PROGRESS_MS = 10_000;
/** Read by postgresql-common before it makes and starts a cluster of its own when the server is installed. */
const CLUSTER_FOLDER = "/etc/postgresql-common/createcluster.d";
const CLUSTER_FILE = `${CLUSTER_FOLDER}/holdfast-lab.conf`;

/** Debian packages of a lab with these engines. */
export function packagesFor(engines: readonly EngineName[]): readonly string[] {
  return [...ALWAYS, ...[...new Set(engines)].flatMap((engine) => FOR_ENGINE[engine])];
}

function isDebian(): boolean {
  if (!existsSync("/etc/os-release")) return false;
  const lines = readFileSync("/etc/os-release", "utf8").split("\n").map((line) => line.replaceAll('"', ""));
  return lines.includes("ID=debian") && lines.includes(`VERSION_ID=${DEBIAN_VERSION}`);
}

/** Packages of `wanted` that are not installed, read from dpkg's own record. Empty where there is no dpkg. */
export function missingPackages(wanted: readonly string[]): readonly string[] {
  const file = "/var/lib/dpkg/status";
  if (!existsSync(file)) return wanted;
  const installed = new Set(readFileSync(file, "utf8").split("\n\n")
    .filter((entry) => entry.includes("\nStatus: install ok installed")).map((entry) => /^Package: (\S+)/m.exec(entry)?.[1]));
  return wanted.filter((name) => !installed.has(name));
}

/** The installed version of a package, as dpkg writes it. @throws E_LAB_STEP when it is not installed. */
export async function versionOf(name: string, log: string): Promise<string> {
  return run(["dpkg-query", "-W", "-f", "${Version}", name], { log });
}

/**
 * Why this machine cannot run a lab with these engines, as one sentence; undefined when it can. `lacking` packages count only
 * when the caller does not install them.
 */
export function obstacle(engines: readonly EngineName[], lacking: "refuse" | "install"): string | undefined {
  const wanted = packagesFor(engines);
  const needs = `the lab needs root on Debian ${DEBIAN_VERSION} with the packages: ${wanted.join(" ")}`;
  if (process.platform !== "linux" || !isDebian()) return `this is not Debian ${DEBIAN_VERSION}; ${needs}`;
  if (process.getuid?.() !== 0) return `this is not root; ${needs}`;
  const missing = missingPackages(wanted);
  if (lacking === "install" || missing.length === 0) return undefined;
  return `packages are missing: apt-get install --no-install-recommends ${missing.join(" ")}`;
}

/**
 * Installs `packages` from the machine's own package sources; the full output goes to `log`, its milestones to `tell`.
 * Debian's own services stay stopped: a policy file forbids their start for the duration (one that is there is kept), and
 * no PostgreSQL cluster is made besides the lab's.
 */
export async function installPackages(packages: readonly string[], log: string, tell: (line: string) => void): Promise<void> {
  const found = readIfThere(POLICY_FILE);
  // One of ours is left when an installation was killed; it must not stay for ever.
  const ownPolicy = found === undefined || found === POLICY;
  if (ownPolicy) writeFileSync(POLICY_FILE, POLICY, { mode: 0o755 });
  const ownFolder = mkdirSync(CLUSTER_FOLDER, { recursive: true }) !== undefined;
  writeFileSync(CLUSTER_FILE, "create_main_cluster = false\n");
  const output = `${log}.apt`;
  rmSync(output, { force: true });
  const stopTelling = tellProgress(output, tell);
  const environment = { DEBIAN_FRONTEND: "noninteractive", ...proxiesOf(process.env) };
  try {
    tell(`installing ${packages.length} Debian packages and what they need (this can take minutes; see ${log})`);
    // Finishes what a killed installation left half done; apt refuses to work before that.
    await run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], { log, environment, timeoutMs: INSTALL_MS });
    await run(["apt-get", "update", "-qq"], { log, environment, timeoutMs: INSTALL_MS, output: "/dev/null" });
    tell("         package lists are up to date");
    await run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef",
      "-o", "Dpkg::Options::=--force-confold", ...packages], { log, environment, timeoutMs: INSTALL_MS, output });
  } catch (error) {
    throw new OperatingError("E_LAB_STEP", `the Debian packages could not be installed: ${packages.join(" ")}`, { log }, error);
  } finally {
    if (ownPolicy) rmSync(POLICY_FILE, { force: true });
    rmSync(CLUSTER_FILE, { force: true });
    if (ownFolder && readdirSync(CLUSTER_FOLDER).length === 0) rmdirSync(CLUSTER_FOLDER);
    stopTelling();
  }
}

/** Says every PROGRESS_MS how far dpkg has come, from what it prints; returns how to stop. */
function tellProgress(output: string, tell: (line: string) => void): () => void {
  const startMs = systemClock.monotonicMs();
  let cancel = systemClock.after(PROGRESS_MS, function again() {
    const lines = (readIfThere(output) ?? "").split("\n");
    const count = (word: string): number => lines.filter((line) => line.startsWith(word)).length;
    const seconds = ((systemClock.monotonicMs() - startMs) / 1000).toFixed(1).padStart(6);
    tell(`${seconds} s  ... ${count("Unpacking ")} packages unpacked, ${count("Setting up ")} set up`);
    cancel = systemClock.after(PROGRESS_MS, again);
  });
  return () => cancel();
}

/** The person's HTTP proxy settings: apt needs them where there is no other way out. */
function proxiesOf(environment: NodeJS.ProcessEnv): Readonly<Record<string, string>> {
  return Object.fromEntries(["http_proxy", "https_proxy", "no_proxy"].flatMap((name) => {
    const value = environment[name];
    return value === undefined ? [] : [[name, value]];
  }));
}
