/**
 * Running server processes: each in a process group of its own, detached from the terminal and from this program, known
 * by a file under run/ that holds its identity and the fingerprint of what it was started with.
 *
 * Invariants: `ensure` leaves exactly one process that serves, started with the present command and configuration, whatever
 * it found (nothing, a healthy one, one with an old configuration, a dead one, a recycled pid). Nothing is signalled that this
 * lab did not start. Not here: which processes there are (lab.ts and the rooms of each server).
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { OperatingError } from "../core/errors.ts";
import { CHILD_ENVIRONMENT, type SystemUser } from "./commands.ts";
import { readIfThere, writeWhole } from "./files.ts";
import { HUNG_MS, KILL_MS, LOG_SIZE_MAX_BYTES, PORT_MS, READY_MS, STOP_MS } from "./options.ts";
import { isPortFree } from "./ports.ts";
import { familyOf, identityOf, isAlive, isSuspended, residentBytes, type ProcessIdentity } from "./proc.ts";
import { until } from "./waiting.ts";

/** How one process of the lab is run. */
export interface ProcessPlan {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly environment?: Readonly<Record<string, string>>;
  readonly user?: SystemUser;
  /** Working folder; it must exist and be open to the process's user. */
  readonly folder: string;
  /** Ports that it listens on. */
  readonly ports: readonly number[];
  /** Configuration files it reads at start: when one changes, the process is started again. */
  readonly reads?: readonly string[];
  /** More that decides what it does, such as the version of the program. */
  readonly edition?: string;
  /** Asks it to end in good order; SIGTERM unless said otherwise. */
  readonly stopSignal?: "SIGTERM" | "SIGINT";
  /** Cleans up what a killed predecessor left. */
  readonly beforeStart?: () => Promise<void>;
  /** True when it serves. */
  readonly isReady: () => Promise<boolean>;
}

export interface ProcessState {
  readonly name: string;
  readonly pid: number | undefined;
  readonly log: string;
  /** Stopped by SIGSTOP: it exists, and does nothing. */
  readonly suspended: boolean;
  /** Resident bytes of the whole family of processes; shared pages count in each. */
  readonly residentBytes: number;
}

/** Signals that concern the whole family; all others go to the process itself, which passes them on as it sees fit. */
const FAMILY_SIGNALS: readonly NodeJS.Signals[] = ["SIGKILL", "SIGSTOP", "SIGCONT"];

const runFileShape = z.object({ pid: z.int(), startTicks: z.string(), boot: z.string(), fingerprint: z.string(),
  stopSignal: z.enum(["SIGTERM", "SIGINT"]) });
type RunFile = z.infer<typeof runFileShape>;

/** The running processes of one lab. Plans say what should run; run files say what does. */
export class Processes {
  readonly #run: string;
  readonly #logs: string;

  /** @param run  folder of identities. @param logs  folder of logs. */
  constructor(run: string, logs: string) {
    this.#run = run;
    this.#logs = logs;
  }

  logOf(name: string): string {
    return join(this.#logs, `${name}.log`);
  }

  /**
   * Makes the process run and serve; true when something had to be done.
   * @throws E_LAB_STEP when it ends or does not serve within READY_MS, or when its port belongs to another program.
   */
  async ensure(plan: ProcessPlan): Promise<boolean> {
    const found = this.#alive(plan.name);
    if (found !== undefined && found.fingerprint === fingerprintOf(plan)) {
      if (await plan.isReady().catch(() => false)) return false;
      if (await this.#comesRound(plan, found)) return true;
    }
    if (found !== undefined) await this.stop(plan.name);
    await this.#start(plan);
    return true;
  }

  /** Ends the process in good order, else by force; true when there was one. Its run file is gone afterwards. */
  async stop(name: string): Promise<boolean> {
    const found = this.#alive(name);
    if (found !== undefined) {
      const family = familyOf(found.pid);
      signal(found, found.stopSignal);
      // A stopped process (SIGSTOP) would never see the request.
      for (const member of family) signal(member, "SIGCONT");
      // What did not end in time is killed next.
      const wait = { what: `the end of ${name}`, withinMs: STOP_MS, log: this.logOf(name) };
      await until(wait, () => Promise.resolve(!isAlive(found))).catch(() => undefined);
      await this.#killAll(name, family);
    }
    rmSync(this.#runFile(name), { force: true });
    return found !== undefined;
  }

  /**
   * Sends a signal as a person would to show what happens: SIGKILL, SIGSTOP and SIGCONT to the whole family at once (a machine
   * that dies or hangs), any other to the process itself. Waits for the end after SIGKILL. False when it does not run.
   */
  async kill(name: string, wanted: NodeJS.Signals): Promise<boolean> {
    const found = this.#alive(name);
    if (found === undefined) return false;
    const family = familyOf(found.pid);
    for (const member of FAMILY_SIGNALS.includes(wanted) ? family : [found]) signal(member, wanted);
    if (wanted === "SIGKILL") await this.#killAll(name, family);
    return true;
  }

  stateOf(name: string): ProcessState {
    const found = this.#alive(name);
    const memory = found === undefined ? 0 : familyOf(found.pid).reduce((sum, member) => sum + residentBytes(member.pid), 0);
    return { name, pid: found?.pid, log: this.logOf(name), suspended: found !== undefined && isSuspended(found),
      residentBytes: memory };
  }

  async #start(plan: ProcessPlan): Promise<void> {
    await plan.beforeStart?.();
    const log = this.logOf(plan.name);
    for (const port of plan.ports) {
      if (await this.#becomesFree(port, log)) continue;
      throw new OperatingError("E_LAB_STEP", `port ${port} of ${plan.name} is taken by another program: end that program, ` +
        "or wipe the lab (`npm run down -- --wipe`) so that it chooses other ports", { log });
    }
    const identity = await this.#spawn(plan, log);
    const entry: RunFile = { ...identity, fingerprint: fingerprintOf(plan), stopSignal: plan.stopSignal ?? "SIGTERM" };
    writeWhole(this.#runFile(plan.name), `${JSON.stringify(entry)}\n`);
    await this.#awaitReady(plan, identity);
  }

  /** The threads of a killed process hold its sockets for a moment after it has left the table of processes. */
  #becomesFree(port: number, log: string): Promise<boolean> {
    return until({ what: `port ${port} becoming free`, withinMs: PORT_MS, log }, () => isPortFree(port))
      .then(() => true, () => false);
  }

  async #spawn(plan: ProcessPlan, log: string): Promise<ProcessIdentity> {
    if (existsSync(log) && statSync(log).size > LOG_SIZE_MAX_BYTES) renameSync(log, `${log}.1`);
    const logFile = openSync(log, "a", 0o600);
    try {
      const [program, ...words] = plan.command;
      const child = spawn(program, words, { stdio: ["ignore", logFile, logFile], detached: true, cwd: plan.folder,
        env: { ...CHILD_ENVIRONMENT, ...plan.environment }, ...plan.user });
      const failed = new Promise<Error>((resolve) => child.once("error", resolve));
      const identity = child.pid === undefined ? undefined : identityOf(child.pid);
      if (identity === undefined) {
        const reason = child.pid === undefined ? (await failed).message : "it ended at once";
        throw new OperatingError("E_LAB_STEP", `${plan.name} did not start: ${reason}`, { log });
      }
      child.unref();
      return identity;
    } finally {
      closeSync(logFile);
    }
  }

  async #awaitReady(plan: ProcessPlan, identity: ProcessIdentity): Promise<void> {
    const hopeless = (): string | undefined => (isAlive(identity) ? undefined : `${plan.name} ended while it started`);
    const log = this.logOf(plan.name);
    await until({ what: `the readiness of ${plan.name}`, withinMs: READY_MS, log, hopeless }, plan.isReady);
  }

  /** True when a process that runs and does not serve begins to; one that hangs is given up after HUNG_MS. */
  async #comesRound(plan: ProcessPlan, identity: ProcessIdentity): Promise<boolean> {
    const wait = { what: `an answer of ${plan.name}`, withinMs: HUNG_MS, log: this.logOf(plan.name),
      hopeless: (): string | undefined => (isAlive(identity) ? undefined : "it ended") };
    return until(wait, plan.isReady).then(() => true, () => false);
  }

  async #killAll(name: string, family: readonly ProcessIdentity[]): Promise<void> {
    for (const member of family) signal(member, "SIGKILL");
    await until({ what: `the end of the processes of ${name}`, withinMs: KILL_MS, log: this.logOf(name) },
      () => Promise.resolve(!family.some(isAlive)));
  }

  #runFile(name: string): string {
    return join(this.#run, `${name}.json`);
  }

  #alive(name: string): RunFile | undefined {
    const text = readIfThere(this.#runFile(name));
    if (text === undefined) return undefined;
    const found = runFileShape.safeParse(JSON.parse(text));
    return found.success && isAlive(found.data) ? found.data : undefined;
  }
}

/** Decides whether a running process is the one that is wanted: command, environment, configuration and program version. */
function fingerprintOf(plan: ProcessPlan): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([plan.command, plan.environment ?? {}, plan.edition ?? ""]));
  for (const file of plan.reads ?? []) hash.update(file).update("\0").update(readFileSync(file)).update("\0");
  return hash.digest("hex").slice(0, 16);
}

function signal(identity: ProcessIdentity, wanted: NodeJS.Signals): void {
  if (!isAlive(identity)) return;
  try {
    process.kill(identity.pid, wanted);
  } catch (error) {
    // It ended between the look and the signal.
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}
