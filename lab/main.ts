/**
 * The lab's commands: `install`, `up`, `down`, `status`, `start`, `stop`, `restart`, `kill`, `logs`, `cut`, `heal`. This file
 * reads arguments and environment, installs and builds what `up` needs, and prints; lab.ts does the work.
 *
 * Exit codes: 0 done, 1 a step failed (one sentence and the log to read), 2 wrong arguments or a machine that cannot run a lab.
 */
import { existsSync, mkdtempSync, realpathSync } from "node:fs";
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { Command } from "commander";
import { isOperating, OperatingError } from "../core/errors.ts";
import { buildIfStale } from "./build.ts";
import { ensureFolder } from "./files.ts";
import { openLab, wipeLab, type Lab } from "./lab.ts";
import { checkServices, CUTS, ENGINES, ENGINES_BY_DEFAULT, enginesFromText, SITES, type Engines,
  type SiteName } from "./options.ts";
import { installPackages, missingPackages, obstacle, packagesFor } from "./packages.ts";
import { readRecord } from "./record.ts";
import { stepsTo } from "./waiting.ts";

const EXIT_FAILED = 1;
const EXIT_UNUSABLE = 2;
const LINES_SHOWN = 200;
const NAME_WIDTH = 20;
const SIGNALS = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2"] as const;
const MEBIBYTE = 1024 * 1024;
const CHECKOUT = fileURLToPath(new URL("..", import.meta.url));

/** A mistake in what was asked for. */
function wrong(sentence: string): OperatingError {
  return new OperatingError("E_CONFIG", sentence);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function labFolder(): string {
  const folder = resolve(process.env.HOLDFAST_LAB_DIR ?? join(CHECKOUT, ".lab"));
  return existsSync(folder) ? realpathSync(folder) : folder;
}

function enginesAsked(): Engines | undefined {
  const text = process.env.HOLDFAST_LAB_DB;
  return text === undefined || text === "" ? undefined : enginesFromText(text);
}

/** The lab that is there. @throws E_CONFIG when there is none. */
async function existingLab(): Promise<Lab> {
  const folder = labFolder();
  if (readRecord(folder) === undefined) throw wrong(`there is no lab in ${folder}: \`npm run up\` makes one`);
  return openLab({ folder, program: "built", progress: say });
}

/** Every command works on files and processes of root. @throws E_LAB_MACHINE with what a machine needs. */
function checkMachine(): void {
  const reason = obstacle(Object.values(enginesAsked() ?? ENGINES_BY_DEFAULT), "install");
  if (reason !== undefined) throw new OperatingError("E_LAB_MACHINE", reason);
}

async function up(options: { readonly services: string }): Promise<void> {
  checkServices(options.services);
  const folder = labFolder();
  const engines = Object.values(enginesAsked() ?? readRecord(folder)?.engines ?? ENGINES_BY_DEFAULT);
  const logs = join(folder, "logs");
  ensureFolder(folder, 0o755);
  ensureFolder(logs, 0o700);
  const steps = stepsTo(say);
  const missing = missingPackages(packagesFor(engines));
  await steps.run("Debian packages", async () => {
    if (missing.length > 0) await installPackages(missing, join(logs, "packages.log"), say);
    return missing.length > 0;
  });
  await steps.run("build", () => buildIfStale(join(logs, "build.log")));
  const asked = enginesAsked();
  const lab = await openLab({ folder, ...(asked === undefined ? {} : { engines: asked }), program: "built", progress: say });
  await lab.start();
  await show(lab);
}

/** Installs what a lab needs on this machine; with `tests` what the tests need, which is every engine. */
async function install(options: { readonly tests: boolean }): Promise<void> {
  const engines = options.tests ? ENGINES : Object.values(enginesAsked() ?? ENGINES_BY_DEFAULT);
  const missing = missingPackages(packagesFor(engines));
  if (missing.length === 0) return say("every Debian package is there");
  await installPackages(missing, join(mkdtempSync(join(tmpdir(), "holdfast-install-")), "packages.log"), say);
}

async function show(lab: Lab): Promise<void> {
  const { user, id, delayMs } = await lab.demonstrate();
  const { centre, edge1 } = lab.endpoints;
  say(`
User ${user} (${id}) was made at the centre, through the proxy ${centre.proxy}.
${Math.round(delayMs)} ms after the centre's answer, the site's own Keystone ${edge1.direct} issued a token for it.

Go on:
  export OS_CLIENT_CONFIG_FILE=${lab.paths.clouds}
  openstack --os-cloud centre user create alice --password secret    through the centre's proxy
  openstack --os-cloud edge1-direct user show alice                  from the site's own Keystone and database
  npm run lab -- status                                              what runs; also start, stop, restart, kill, logs
  npm run lab -- kill syncd-edge1                                    break something; npm run up repairs it
  npm run down                                                       stop; -- --wipe also removes everything
Addresses, database URLs, passwords: ${lab.paths.record}`);
}

async function down(options: { readonly wipe: boolean }): Promise<void> {
  const folder = labFolder();
  if (options.wipe) return say(await wipeLab(folder) ? "the lab is gone" : `there is no lab in ${folder}`);
  if (readRecord(folder) === undefined) return say(`there is no lab in ${folder}`);
  await (await existingLab()).stop();
  say("the lab is stopped; `npm run up` starts it again, `npm run down -- --wipe` removes it");
}

async function status(options: { readonly json: boolean }): Promise<void> {
  const lab = await existingLab();
  const states = lab.states();
  const { endpoints, paths: { folder } } = lab;
  if (options.json) return say(JSON.stringify({ folder, endpoints, processes: states }, undefined, 2));
  for (const { name, pid, residentBytes, suspended } of states) {
    const memory = `${Math.round(residentBytes / MEBIBYTE)} MiB${suspended ? ", suspended" : ""}`;
    say(`${name.padEnd(NAME_WIDTH)}${pid === undefined ? "stopped" : `pid ${String(pid).padEnd(8)} ${memory}`}`);
  }
  for (const [cloud, { proxy, direct }] of Object.entries(endpoints)) {
    say(`${cloud.padEnd(NAME_WIDTH)}proxy ${proxy}, Keystone ${direct}`);
  }
}

async function kill(name: string, options: { readonly signal: string }): Promise<void> {
  const signal = SIGNALS.find((each) => each === options.signal || each === `SIG${options.signal}`);
  if (signal === undefined) throw wrong(`the lab sends no signal "${options.signal}": it sends ${SIGNALS.join(", ")}`);
  const sent = await (await existingLab()).kill(name, signal);
  say(sent ? `sent ${signal} to ${name}` : `${name} does not run`);
}

async function logs(name: string, options: { readonly follow: boolean }): Promise<void> {
  const lab = await existingLab();
  const found = lab.states().find((state) => state.name === name);
  if (found === undefined) throw wrong(`the lab has no process "${name}": it has ${lab.processes.join(", ")}`);
  spawnSync("tail", ["-n", String(LINES_SHOWN), ...(options.follow ? ["-F"] : []), found.log], { stdio: "inherit" });
}

function siteNamed(name: string): SiteName {
  const site = SITES.find((each) => each === name);
  if (site === undefined) throw wrong(`the lab has no site "${name}": it has ${SITES.join(", ")}`);
  return site;
}

async function cut(name: string, options: { readonly how: string }): Promise<void> {
  const site = siteNamed(name);
  const how = CUTS.find((each) => each === options.how);
  if (how === undefined) throw wrong(`the lab cannot cut by "${options.how}": it can by ${CUTS.join(", ")}`);
  await (await existingLab()).cut(site, how);
  say(`${site} is cut off from the centre (${how}); npm run lab -- heal ${site} connects it again`);
}

function commands(): Command {
  const program = new Command("lab").description("A real two-cloud OpenStack lab on this machine.")
    .configureOutput({ writeErr: (text) => process.stderr.write(text) }).exitOverride().hook("preAction", checkMachine);
  program.command("up").description("install, build and start what is missing, and show one change arriving at the site")
    .option("--services <list>", "OpenStack services to run", "identity").action(up);
  program.command("install").description("install the Debian packages that are missing")
    .option("--tests", "for every engine, as the tests need them", false).action(install);
  program.command("down").description("stop everything").option("--wipe", "remove everything as well", false).action(down);
  program.command("status").description("what runs").option("--json", "as JSON", false).action(status);
  const each = (verb: "start" | "stop" | "restart", act: (lab: Lab, name: string) => Promise<void>): void => {
    program.command(`${verb} <process>`).description(`${verb} one process`).action(async (name: string) => {
      await act(await existingLab(), name);
      say(`${name}: ${verb} done`);
    });
  };
  each("start", (lab, name) => lab.startOne(name));
  each("stop", (lab, name) => lab.stopOne(name));
  each("restart", (lab, name) => lab.restart(name));
  program.command("kill <process>").description("send a signal without warning")
    .option("--signal <name>", "which one", "KILL").action(kill);
  program.command("logs <process>").description("show the end of a log")
    .option("-f, --follow", "go on showing", false).action(logs);
  program.command("cut <site>").description("cut a site off from the centre")
    .option("--how <way>", `one of ${CUTS.join(", ")}`, "blackhole").action(cut);
  program.command("heal <site>").description("connect it again").action(async (name: string) => {
    const site = siteNamed(name);
    await (await existingLab()).heal(site);
    say(`${site} is connected to the centre`);
  });
  return program;
}

/** One sentence, then where to look. */
function explain(error: OperatingError): string {
  const { log } = error.facts;
  const sentence = error.message.slice(`${error.code}: `.length);
  return log === undefined ? sentence : `${sentence}\nLog: ${String(log)}`;
}

try {
  await commands().parseAsync(process.argv);
} catch (error) {
  if (isOperating(error)) {
    process.stderr.write(`${explain(error)}\n`);
    process.exitCode = error.code === "E_CONFIG" || error.code === "E_LAB_MACHINE" ? EXIT_UNUSABLE : EXIT_FAILED;
  } else if (error instanceof Error && "exitCode" in error && typeof error.exitCode === "number") {
    // commander has printed its help or complaint already.
    process.exitCode = error.exitCode === 0 ? 0 : EXIT_UNUSABLE;
  } else {
    throw error;
  }
}
