/**
 * Servers of a benchmark: started here, each on the core it is told to use, measured through /proc, ended by pid when the run
 * ends for whatever reason.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { present } from "../core/assert.ts";
import { familyOf, residentBytes } from "../lab/proc.ts";
import { until } from "../lab/waiting.ts";

/** Clock ticks in /proc are hundredths of a second on every Linux architecture (USER_HZ, proc(5)). */
const TICK_US = 10_000;
const READY_MS = 30_000;
const END_MS = 10_000;
export const MICROSECONDS_PER_SECOND = 1_000_000;

/** Where the programs under test run, and where everything else does: they must not measure each other. */
export const TESTED_CORE = 0;
export const OTHER_CORE = 1;

/** Processor time and memory of a process and all its descendants. */
export interface Usage {
  readonly processorUs: number;
  readonly residentBytes: number;
}

export interface Child {
  readonly name: string;
  readonly pid: number;
  readonly port: number;
  usage(): Usage;
}

export interface ChildPlan {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly port: number;
  readonly core: number;
  readonly log: string;
  /** True when it serves; by default when its port accepts connections. */
  readonly isReady?: () => Promise<boolean>;
}

/** A TCP port that nobody listens on at the moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen({ port: 0, host: "127.0.0.1" }, () => {
      const address = server.address();
      server.close(() => {
        if (address === null || typeof address === "string") reject(new Error("no port"));
        else resolve(address.port);
      });
    });
  });
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: "127.0.0.1", port });
    const end = (accepted: boolean) => (): void => {
      socket.destroy();
      resolve(accepted);
    };
    socket.once("connect", end(true)).once("error", end(false));
  });
}

/** `command` bound to one core of a machine with at least two; on a machine with one core nothing can be kept apart. */
export function onCore(core: number, cores: number, command: readonly [string, ...string[]]): readonly [string, ...string[]] {
  return cores < 2 ? command : ["taskset", "-c", String(core), ...command];
}

/** Source: proc(5), /proc/[pid]/stat fields 14 (utime) and 15 (stime), counted after the name in parentheses. */
function processorUs(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) * TICK_US;
  } catch {
    return 0;
  }
}

/** Usage of the process `leader` and its descendants so far. */
export function usageOf(leader: number): Usage {
  const family = familyOf(leader);
  return { processorUs: family.reduce((sum, { pid }) => sum + processorUs(pid), 0),
    residentBytes: family.reduce((sum, { pid }) => sum + residentBytes(pid), 0) };
}

/** The children of one run. */
export class Children {
  readonly #running: ChildProcess[] = [];
  readonly #cores: number;

  constructor(cores: number) {
    this.#cores = cores;
    process.once("exit", () => {
      for (const child of this.#running) child.kill("SIGKILL");
    });
  }

  /** @throws E_LAB_STEP when it ends, or does not serve in time. */
  async start({ name, command, port, core, log, isReady }: ChildPlan): Promise<Child> {
    const [program, ...words] = onCore(core, this.#cores, command);
    const file = openSync(log, "a", 0o600);
    const child = spawn(program, words, { stdio: ["ignore", file, file] });
    closeSync(file);
    this.#running.push(child);
    const hopeless = (): string | undefined =>
      (child.exitCode === null && child.signalCode === null ? undefined : `${name} ended while it started`);
    await until({ what: `the readiness of ${name}`, withinMs: READY_MS, log, hopeless }, isReady ?? (() => accepts(port)));
    const pid = present(child.pid, "a ready process has a pid");
    return { name, pid, port, usage: () => usageOf(pid) };
  }

  /** Ends all of them in good order, the last one started first. */
  async stop(): Promise<void> {
    for (const child of this.#running.splice(0).reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
      await gone;
      clearTimeout(timer);
    }
  }
}
