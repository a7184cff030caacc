/**
 * `holdfast triggers`: installs, removes and looks at the triggers of trigger capture (rows/triggers.ts), in the databases that
 * the centre's syncd.yaml names, with the user it names or another one in a file of the same form.
 *
 * Invariants: nothing is installed that nobody would drain; a busy table is tried again for a while, then named; --print
 * changes nothing. Exit status: 0 as wanted · 1 something is missing, or failed · 2 mistakes in the configuration.
 * Not here: running processes: they notice by themselves what is installed.
 */
import type { Command } from "commander";
import { loadSyncdConfig } from "../config/load.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { silentLog } from "../core/log.ts";
import { noMetrics } from "../core/metrics.ts";
import { systemRandom } from "../core/random.ts";
import { waitBeforeRetry } from "../core/retry.ts";
import type { World } from "../core/world.ts";
import type { RowTriggers } from "../rows/triggers.ts";
import { serviceNamed } from "../schemas/catalog.ts";
import { EXIT_FAILED, EXIT_OK } from "./run.ts";
import type { Session } from "./session.ts";
import { tableOf } from "./tables.ts";

type Entry = ReturnType<typeof loadSyncdConfig>["config"]["services"][number];

interface Asked {
  readonly config: string;
  readonly service?: string;
  readonly json?: boolean;
  readonly print?: boolean;
}

/** Lines of the table and of one answer as JSON. */
interface Answer {
  readonly service: string;
  readonly installed: boolean;
  readonly missing: readonly string[];
}

/** How often a busy table is tried again, and the pauses between: about half a minute in all. */
const TRIES_MAX = 25;
const BACKOFF = { firstMs: 100, lastMs: 2_000 };
/** Missing triggers that the table names; the rest are counted. */
const NAMED_MAX = 3;

/** Adds the commands. */
export function triggerCommands(program: Command, session: Session): void {
  const triggers = program.command("triggers").description("install, remove or look at the triggers of trigger capture");
  const add = (name: string, description: string): Command => triggers.command(name).description(description)
    .requiredOption("--config <file>", "the centre's syncd.yaml").option("--service <name>", "only this service")
    .option("--json", "print the answer as JSON");
  add("install", "install what is missing; again does no harm").option("--print", "print the SQL and change nothing")
    .action((asked: Asked) => install(session, asked));
  add("remove", "remove triggers, their functions and their marks")
    .action((asked: Asked) => onEach(session, asked, async (found) => {
      await patiently(session, () => found.remove());
    }, ({ installed }) => !installed));
  add("status", "say what is missing; status 1 when anything is")
    .action((asked: Asked) => onEach(session, asked, () => Promise.resolve(), ({ installed }) => installed));
}

/** The services of the file that were asked for. @throws E_CONFIG */
function entriesOf({ config: file, service }: Asked): { readonly role: string; readonly entries: readonly Entry[] } {
  const { config } = loadSyncdConfig(file);
  const entries = config.services.filter((entry) => service === undefined || entry.service === service);
  if (entries.length === 0) throw new OperatingError("E_CONFIG", `${file}: services: expected ${service}, found no such entry`);
  return { role: config.role, entries };
}

/** Work on the triggers of one service, on a connection of its own. */
async function withTriggers<T>(session: Session, entry: Entry, work: (triggers: RowTriggers) => Promise<T>): Promise<T> {
  const { openRows } = await import("../rows/open.ts");
  const world: World = { clock: session.clock, random: systemRandom, log: silentLog, metrics: noMetrics };
  const rows = openRows(entry.database, world);
  try {
    return await work(rows.triggers(serviceNamed(entry.service)));
  } finally {
    await rows.close();
  }
}

async function install(session: Session, asked: Asked): Promise<void> {
  const { role, entries } = entriesOf(asked);
  // Marks that nobody takes away would grow for ever.
  const idle = entries.find((entry) => entry.capture === "proxy");
  if (role !== "centre") throw new OperatingError("E_CONFIG", `${asked.config}: role: expected centre, found ${role}`);
  if (idle !== undefined) {
    const found = `${idle.service}: capture: expected triggers or both, found proxy`;
    throw new OperatingError("E_CONFIG", `${asked.config}: services: ${found}`);
  }
  if (asked.print !== true) {
    return onEach(session, asked, (triggers) => patiently(session, () => triggers.install()), ({ installed }) => installed);
  }
  for (const entry of entries) session.say(await withTriggers(session, entry, (triggers) => triggers.script()));
  session.finish(EXIT_OK);
}

/** Does something to the triggers of every service asked for, and says what there is afterwards. */
async function onEach(session: Session, asked: Asked, work: (triggers: RowTriggers) => Promise<void>,
  isWanted: (answer: Answer) => boolean): Promise<void> {
  const answers: Answer[] = [];
  for (const entry of entriesOf(asked).entries) {
    answers.push(await withTriggers(session, entry, async (triggers) => {
      await work(triggers);
      const missing = await triggers.missing();
      return { service: entry.service, installed: missing.length === 0, missing };
    }));
  }
  session.say(asked.json === true ? JSON.stringify(answers, null, 2) : shown(answers));
  session.finish(answers.every(isWanted) ? EXIT_OK : EXIT_FAILED);
}

function shown(answers: readonly Answer[]): string {
  const rows = answers.map(({ service, installed, missing }) => {
    const more = missing.length > NAMED_MAX ? `, and ${missing.length - NAMED_MAX} more` : "";
    return [service, installed ? "installed" : "not installed", `${missing.slice(0, NAMED_MAX).join(", ")}${more}`];
  });
  return tableOf([["SERVICE", "TRIGGERS", "MISSING"], ...rows]).join("\n");
}

async function patiently(session: Session, work: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (!isOperating(error, "E_ROWS_CONTENDED") || tries === TRIES_MAX) throw error;
      await waitBeforeRetry({ clock: session.clock, random: systemRandom }, BACKOFF, tries);
    }
  }
}
