/**
 * A real two-cloud OpenStack lab on this machine: databases, stream server, a Keystone with memcached per cloud, Holdfast's
 * proxies and sync daemon; everything on 127.0.0.1. The quick start, the tests and the benchmarks all use this room.
 *
 * Invariants: `start` leads from any state (nothing, half made, running, killed, rebooted, old configuration) to a running lab
 * and does only what is missing; `stop` leaves no process; two labs in different folders share nothing but the cached
 * template. One program works on a lab at a time.
 * Not here: installing packages and building (main.ts); what each server needs (a file per server).
 */
import { existsSync, readdirSync, realpathSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { present } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import { builtEdition } from "./build.ts";
import { writeClouds } from "./clouds.ts";
import { demonstrate, type Demonstrated } from "./demonstration.ts";
import type { DatabaseServer } from "./engines.ts";
import { SYNCED, writeHoldfastFiles } from "./holdfast.ts";
import { call } from "./http.ts";
import type { Credentials } from "./identity.ts";
import { writeConfiguration } from "./keystone.ts";
import { linkOf } from "./links.ts";
import { whileLocked } from "./lock.ts";
import { prepareNats } from "./nats.ts";
import { CENTRE, CLOUDS, ENGINES_BY_DEFAULT, PARTS, READY_MS, SITES } from "./options.ts";
import type { CloudName, Cut, EngineName, LabOptions, LinkState, Part, SiteName } from "./options.ts";
import { obstacle, versionOf } from "./packages.ts";
import { namesOf, plansOf, type Editions } from "./plans.ts";
import { familyOf, processesIn } from "./proc.ts";
import { Processes, type ProcessPlan, type ProcessState } from "./processes.ts";
import { databaseOf, endpointsOf, enginesOf, openRecord, pathsOf, portOf, readRecord, stateFolderOf, streamOf,
  writeRecord } from "./record.ts";
import type { CloudEndpoints, DatabaseAccess, LabPaths, LabRecord, StreamAccess } from "./record.ts";
import { adminOf, isSeeded, seedCentre, seedSite } from "./seeding.ts";
import { serverOf } from "./servers.ts";
import { stepsTo, until, type Steps } from "./waiting.ts";

/** Longest piece of a readiness answer that a failure quotes, in characters. */
const REASON_SHOWN_MAX = 400;

export interface Lab {
  readonly paths: LabPaths;
  readonly endpoints: Readonly<Record<CloudName, CloudEndpoints>>;
  /** Keystone's database of each cloud. */
  readonly databases: Readonly<Record<CloudName, DatabaseAccess>>;
  readonly nats: StreamAccess;
  /** Every process that the lab can run, in the order in which they start. */
  readonly processes: readonly string[];
  /** Starts the parts asked for; harmless when they run. */
  start(): Promise<void>;
  /** Stops everything in good order; harmless when nothing runs. */
  stop(): Promise<void>;
  startOne(process: string): Promise<void>;
  stopOne(process: string): Promise<void>;
  restart(process: string): Promise<void>;
  /** Sends a signal without any preparation (SIGKILL unless said otherwise); false when the process does not run. */
  kill(process: string, signal?: NodeJS.Signals): Promise<boolean>;
  /** Cuts or heals a site's link to the centre; harmless when it is so already. @throws E_LAB_STEP when the link does not run. */
  cut(site: SiteName, how?: Cut): Promise<void>;
  heal(site: SiteName): Promise<void>;
  states(): readonly ProcessState[];
  /** Ids of a process and of everything it has started; empty when it does not run. */
  family(process: string): readonly number[];
  /** The administrator of both clouds. @throws E_LAB_STEP before the first start. */
  admin(): Credentials & { readonly project: string };
  /** Makes a user at the centre and waits until it can sign in at the site. */
  demonstrate(): Promise<Demonstrated>;
}

/** Why this machine cannot run a lab with these engines as it is, in one sentence; undefined when it can. */
export function labObstacle(engines: readonly EngineName[]): string | undefined {
  return obstacle(engines, "refuse");
}

/**
 * The lab in `options.folder`; nothing runs before start(). The folder's lab is made when there is none.
 * @throws E_LAB_MACHINE when this machine cannot run it, E_CONFIG when it was made with other engines.
 */
export async function openLab(options: LabOptions): Promise<Lab> {
  const reason = labObstacle(Object.values(options.engines ?? readRecord(options.folder)?.engines ?? ENGINES_BY_DEFAULT));
  if (reason !== undefined) throw new OperatingError("E_LAB_MACHINE", reason);
  return new LocalLab(await openRecord(options), options);
}

/**
 * Stops the lab in `folder` if there is one, and removes everything it made: databases, stream, configuration, logs.
 * Nothing else in the folder is touched. False when there was nothing.
 */
export async function wipeLab(folder: string): Promise<boolean> {
  if (!existsSync(folder)) return false;
  const place = realpathSync(folder);
  const record = readRecord(place);
  const state = record?.state ?? stateFolderOf(place);
  if (record === undefined && !existsSync(state)) return false;
  if (record !== undefined) await new LocalLab(record, { folder }).stop();
  const strangers = processesIn(state);
  if (strangers.length > 0) {
    throw new OperatingError("E_LAB_STEP", `processes ${strangers.join(", ")} still work in ${state}: end them first`);
  }
  const { clouds, logs, run, config, intents, record: recordFile } = pathsOf({ folder: place, state });
  for (const each of [state, clouds, logs, run, config, intents, recordFile]) rmSync(each, { recursive: true, force: true });
  if (readdirSync(place).length === 0) rmdirSync(place);
  return true;
}

/** Waits for all and then throws the first failure, so that nothing goes on behind the caller's back. */
async function together(works: readonly Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(works)) if (outcome.status === "rejected") throw outcome.reason;
}

class LocalLab implements Lab {
  readonly paths: LabPaths;
  readonly #record: LabRecord;
  readonly #options: LabOptions;
  readonly #steps: Steps;
  readonly #processes: Processes;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(record: LabRecord, options: LabOptions) {
    this.#record = record;
    this.#options = options;
    this.paths = pathsOf(record);
    this.#steps = stepsTo(options.progress ?? ((): void => undefined));
    this.#processes = new Processes(this.paths.run, this.paths.logs);
  }

  get endpoints(): Lab["endpoints"] {
    return { centre: endpointsOf(this.#record, "centre"), edge1: endpointsOf(this.#record, "edge1") };
  }

  get databases(): Lab["databases"] {
    return { centre: databaseOf(this.#record, "centre"), edge1: databaseOf(this.#record, "edge1") };
  }

  get nats(): StreamAccess {
    return streamOf(this.#record);
  }

  get processes(): readonly string[] {
    return PARTS.flatMap((part) => namesOf(this.#record, part));
  }

  start(): Promise<void> {
    return this.#exclusively(() => this.#startParts());
  }

  stop(): Promise<void> {
    return this.#exclusively(() => this.#stopAll());
  }

  startOne(name: string): Promise<void> {
    this.#checkName(name);
    return this.#exclusively(async () => void await this.#processes.ensure(await this.#planOf(name)));
  }

  stopOne(name: string): Promise<void> {
    this.#checkName(name);
    return this.#exclusively(async () => void await this.#processes.stop(name));
  }

  restart(name: string): Promise<void> {
    this.#checkName(name);
    return this.#exclusively(async () => {
      const plan = await this.#planOf(name);
      await this.#processes.stop(name);
      await this.#processes.ensure(plan);
    });
  }

  async kill(name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<boolean> {
    this.#checkName(name);
    return this.#processes.kill(name, signal);
  }

  cut(site: SiteName, how: Cut = "blackhole"): Promise<void> {
    return this.#tellLink(site, how);
  }

  async heal(site: SiteName): Promise<void> {
    // Whoever suspended it meant to cut it, too.
    await this.#processes.kill(linkOf(site), "SIGCONT");
    await this.#tellLink(site, "pass");
  }

  family(name: string): readonly number[] {
    this.#checkName(name);
    const { pid } = this.#processes.stateOf(name);
    return pid === undefined ? [] : familyOf(pid).map((member) => member.pid);
  }

  states(): readonly ProcessState[] {
    return this.processes.map((name) => this.#processes.stateOf(name));
  }

  admin(): Credentials & { readonly project: string } {
    return adminOf(this.#record);
  }

  demonstrate(): Promise<Demonstrated> {
    const { centre, edge1 } = this.endpoints;
    return demonstrate({ centre, site: edge1, admin: this.admin(), log: this.#processes.logOf("syncd-edge1") });
  }

  /** Work of this object goes one after the other; work of another program on the same lab is refused. */
  #exclusively(work: () => Promise<void>): Promise<void> {
    const mine = this.#turn.catch(() => undefined).then(() => whileLocked(join(this.paths.run, "lock"), async () => {
      try {
        await work();
      } finally {
        this.#write();
      }
    }));
    this.#turn = mine;
    return mine;
  }

  #write(): void {
    writeRecord(this.#record, isSeeded(this.#record, CENTRE) ? this.admin() : undefined, this.states());
  }

  async #startParts(): Promise<void> {
    const parts = this.#options.only ?? PARTS;
    const early: Promise<void>[] = [];
    if (parts.includes("databases")) {
      early.push(...enginesOf(this.#record).map((engine) => this.#startServer(serverOf(this.#record, engine))));
    }
    if (parts.includes("nats")) early.push(this.#startNats());
    await together(early);
    if (parts.includes("keystone")) await this.#startKeystones();
    await this.#startHoldfast(parts);
  }

  #startServer(server: DatabaseServer): Promise<void> {
    return this.#steps.run(`database server: ${server.engine}`, async () => {
      const made = await server.prepare();
      return await this.#processes.ensure(server.plan) || made;
    });
  }

  #startNats(): Promise<void> {
    return this.#steps.run("stream server: nats", async () => {
      const made = await prepareNats(this.#record, SYNCED);
      return await this.#ensureAll(await this.#plansOf("nats")) || made;
    });
  }

  async #startKeystones(): Promise<void> {
    const server = (cloud: CloudName): DatabaseServer => serverOf(this.#record, this.#record.engines[cloud]);
    await this.#steps.run("centre: Keystone's database", () => seedCentre(this.#record, server(CENTRE)));
    for (const site of SITES) {
      await this.#steps.run(`${site}: Keystone's database, from a snapshot of the centre's`,
        () => seedSite(this.#record, site, server(CENTRE), server(site)));
    }
    for (const cloud of CLOUDS) {
      writeConfiguration(this.#record, cloud, server(cloud).serviceUrl(databaseOf(this.#record, cloud).name));
    }
    await this.#steps.run("Keystone and memcached at both clouds", async () => this.#ensureAll(await this.#plansOf("keystone")));
    writeClouds(this.#record, this.admin().password);
  }

  /** The sync daemons start when the centre's proxy is ready: then the stream is there, and they need not ask twice. */
  async #startHoldfast(parts: readonly Part[]): Promise<void> {
    const { centre, edge1 } = this.endpoints;
    const admins = { proxies: [centre.proxyAdmin, edge1.proxyAdmin],
      syncd: [centre.syncdAdmin, edge1.syncdAdmin] };
    for (const part of ["proxies", "syncd"] as const) {
      if (!parts.includes(part)) continue;
      writeHoldfastFiles(this.#record);
      const plans = await this.#plansOf(part);
      await this.#steps.run(`Holdfast: ${plans.map(({ name }) => name).join(", ")}`, async () => {
        const changed = await this.#ensureAll(plans);
        await together(admins[part].map((admin) => this.#awaitReady(`${admin}/readyz`)));
        return changed;
      });
    }
  }

  async #tellLink(site: SiteName, state: LinkState): Promise<void> {
    const link = linkOf(site);
    const url = `http://127.0.0.1:${portOf(this.#record, `link-${site}-admin`)}/${state}`;
    const said = await call({ url, method: "PUT" }).catch(() => undefined);
    if (said?.text.trim() === state) return;
    throw new OperatingError("E_LAB_STEP", `${link} does not run: npm run up starts it`, { log: this.#processes.logOf(link) });
  }

  #awaitReady(url: string): Promise<void> {
    return until({ what: `the readiness at ${url}`, withinMs: READY_MS, log: this.paths.logs }, async () => {
      const { status, text } = await call({ url });
      if (status !== 200) throw new Error(text.slice(0, REASON_SHOWN_MAX));
      return true;
    });
  }

  /** Starts processes that do not need each other, side by side; true when something had to be done. */
  async #ensureAll(plans: readonly ProcessPlan[]): Promise<boolean> {
    let changed = false;
    await together(plans.map(async (plan) => {
      if (await this.#processes.ensure(plan)) changed = true;
    }));
    return changed;
  }

  /** Readers stop before what they read from. */
  async #stopAll(): Promise<void> {
    const waves: readonly (readonly Part[])[] = [["syncd"], ["proxies"], ["keystone"], ["nats", "databases"]];
    for (const parts of waves) {
      const names = parts.flatMap((part) => namesOf(this.#record, part));
      await together(names.map((name) => this.#steps.run(`stopped ${name}`, () => this.#processes.stop(name))));
    }
  }

  async #plansOf(part: Part): Promise<readonly ProcessPlan[]> {
    const built = this.#options.program === "built" && (part === "proxies" || part === "syncd");
    const editions: Editions = {
      keystone: part === "keystone" ? await versionOf("python3-keystone", this.paths.prepareLog) : "",
      holdfast: built ? { from: "built", edition: builtEdition() } : { from: "source" },
    };
    return plansOf(this.#record, part, editions);
  }

  async #planOf(name: string): Promise<ProcessPlan> {
    const part = present(PARTS.find((each) => namesOf(this.#record, each).includes(name)), "the name was checked");
    return present((await this.#plansOf(part)).find((plan) => plan.name === name), "every name has a plan");
  }

  #checkName(name: string): void {
    if (this.processes.includes(name)) return;
    throw new OperatingError("E_CONFIG", `the lab has no process "${name}": it has ${this.processes.join(", ")}`);
  }
}
