#!/usr/bin/env node
/**
 * The command line: runs a proxy or a sync daemon, checks configuration files, shows the state of running processes, and asks
 * them to do things.
 *
 * Exit status: 0 fine · 1 failed, or something is not ready, differs, is quarantined or held · 2 mistakes in a configuration or
 * on the command line · 3 a process could not be reached · 70 a bug in Holdfast.
 * Invariants: standard output carries results and log lines, standard error what went wrong; E_CONFIG lists every mistake.
 * Not here: what the processes do. They are imported only when asked for, so that checking a file starts nothing.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError, Option } from "commander";
import { configKindOf, loadProxyConfig, loadSyncdConfig, type ConfigKind } from "../config/load.ts";
import { optionsPage } from "../config/reference.ts";
import { systemClock } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import type { LogLevel } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { auditCommand } from "./audit.ts";
import { heldCommands } from "./held.ts";
import { quarantineCommands } from "./quarantine.ts";
import { endOnBugs, EXIT_BUG, EXIT_CONFIG, EXIT_FAILED, EXIT_OK, realWorld, runUntilSignal } from "./run.ts";
import type { Session } from "./session.ts";
import { siteCommands } from "./sites.ts";
import { askStatus, DEFAULT_ADMINS, exitOf, statusTable } from "./status.ts";
import { triggerCommands } from "./triggers.ts";

/** How long a sync daemon may take to finish the batch it is applying. */
const SYNCD_DRAIN_TIMEOUT_MS = 30_000;

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const complain = (text: string): void => void process.stderr.write(`${text}\n`);

/** The version in package.json, which stands one folder up in the sources and two in the build. */
function version(): string {
  for (const place of ["../package.json", "../../package.json"]) {
    try {
      const written = JSON.parse(readFileSync(new URL(place, import.meta.url), "utf8")) as Readonly<Record<string, unknown>>;
      if (written["name"] === "holdfast") return String(written["version"]);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
    }
  }
  return "unknown";
}

/** A world whose log has said the warnings and watches for bugs. */
function watchedWorld(level: LogLevel, facts: Readonly<Record<string, string>>, warnings: readonly string[]): World {
  const world = realWorld(level, { ...facts, version: version() });
  endOnBugs(world.log);
  for (const warning of warnings) world.log.warn("configuration", { warning });
  return world;
}

// A started process ends with process.exit: a connection that somebody forgot to close must not keep a drained process alive.

async function proxyCommand(file: string): Promise<never> {
  const { config, warnings } = loadProxyConfig(file);
  const world = watchedWorld(config.log.level, { process: "proxy", site: config.site, service: config.service }, warnings);
  const { runProxy } = await import("../proxy/main.ts");
  return process.exit(await runUntilSignal(world, config.drainTimeoutMs, () => runProxy(config, world)));
}

async function syncdCommand(file: string): Promise<never> {
  const { config, warnings } = loadSyncdConfig(file);
  const world = watchedWorld(config.log.level, { process: "syncd", site: config.site }, warnings);
  const run = config.role === "centre" ? (await import("../audit/main.ts")).runCentre
    : (await import("../syncd/main.ts")).runSyncd;
  return process.exit(await runUntilSignal(world, SYNCD_DRAIN_TIMEOUT_MS, () => run(config, world)));
}

function checkCommand(files: readonly string[], asked: ConfigKind | undefined): number {
  let exit = EXIT_OK;
  for (const file of files) {
    try {
      const kind = asked ?? configKindOf(file);
      const { warnings } = kind === "proxy" ? loadProxyConfig(file) : loadSyncdConfig(file);
      for (const warning of warnings) complain(`warning: ${warning}`);
      say(`${file}: a good ${kind} configuration`);
    } catch (error) {
      if (!isOperating(error, "E_CONFIG")) throw error;
      complain(error.message);
      exit = EXIT_CONFIG;
    }
  }
  return exit;
}

async function statusCommand(admins: readonly string[] | undefined, asJson: boolean): Promise<number> {
  const answers = await Promise.all((admins ?? DEFAULT_ADMINS).map((admin) => askStatus(admin, systemClock)));
  // A machine rarely runs every kind of process: places nobody asked for by name are left out while another one answers.
  const reached = answers.filter((one) => one.reached);
  const asked = admins === undefined && reached.length > 0 ? reached : answers;
  say(asJson ? JSON.stringify(asked, null, 2) : statusTable(asked));
  return exitOf(asked);
}

/** The commands; `finish` is told the exit status of the one that ran. */
function commandLine(finish: (exit: number) => void): Command {
  const program = new Command("holdfast").description("Keeps OpenStack edge clouds in step with their centre.")
    .version(version()).exitOverride().showHelpAfterError("(holdfast --help shows the commands)");
  program.command("proxy").description("run a proxy in front of one OpenStack API")
    .requiredOption("--config <file>", "its configuration, YAML")
    .action(({ config }: { config: string }) => proxyCommand(config));
  program.command("syncd").description("run the sync daemon of a site, or of the centre")
    .requiredOption("--config <file>", "its configuration, YAML")
    .action(({ config }: { config: string }) => syncdCommand(config));
  program.command("status").description("ask running processes whether they are ready")
    .option("--admin <url...>", `admin servers to ask (default: ${DEFAULT_ADMINS.join(" and ")}, as far as they answer)`)
    .option("--json", "print the whole answers as JSON")
    .action(async ({ admin, json }: { admin?: string[]; json?: boolean }) => finish(await statusCommand(admin, json ?? false)));
  const session: Session = { clock: systemClock, terminal: process.stderr, say, complain, finish };
  for (const add of [auditCommand, siteCommands, quarantineCommands, heldCommands, triggerCommands]) add(program, session);
  const config = program.command("config").description("check configuration files, list the options");
  config.command("check").description("report every mistake of configuration files; starts nothing")
    .argument("<file...>", "files to check")
    .addOption(new Option("--kind <kind>", "what the files are (default: seen from their content)").choices(["proxy", "syncd"]))
    .action((files: string[], { kind }: { kind?: ConfigKind }) => finish(checkCommand(files, kind)));
  config.command("reference").description("print every option as Markdown")
    .action(() => {
      process.stdout.write(optionsPage());
      finish(EXIT_OK);
    });
  return program;
}

function exitOfFailure(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_CONFIG;
  if (isOperating(error)) {
    complain(error.message);
    return isOperating(error, "E_CONFIG") ? EXIT_CONFIG : EXIT_FAILED;
  }
  complain(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return EXIT_BUG;
}

let exit: number = EXIT_OK;
try {
  await commandLine((status) => void (exit = status)).parseAsync(process.argv);
} catch (error) {
  exit = exitOfFailure(error);
}
process.exitCode = exit;
