/**
 * One process of the product under a test: started, killed, started again, asked for its state. Only what was started here is
 * ever signalled, through its own handle.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { request } from "node:http";
import { answersOk, call } from "../../lab/http.ts";
import { until } from "../../lab/waiting.ts";
import type { Orders } from "./crashing-process.ts";

export interface FleetProcessPlan {
  readonly name: string;
  /** Words for node. */
  readonly words: readonly string[];
  /** Address of its admin server, http://host:port. */
  readonly admin: string;
  readonly log: string;
}

/** How a process ended. */
export interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Longest until a started process is alive, and ready; a busy machine is not a broken one. */
const READY_MS = 60_000;

/** Longest silence of an operation; a comparison of a million aggregates takes minutes. */
const OPERATION_MS = 1_800_000;

/** POST /operations/<name>: lines of progress, then one with the output or the refusal. */
function operateAt(admin: string, name: string, input: object): Promise<unknown> {
  const body = JSON.stringify(input);
  return new Promise((resolve, reject) => {
    const sent = request(`${admin}/operations/${name}`, { method: "POST", agent: false, timeout: OPERATION_MS,
      headers: { "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) } }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk: Buffer) => chunks.push(chunk)).once("error", reject).once("end", () => {
        const text = Buffer.concat(chunks).toString("utf8");
        const last = text.trimEnd().split("\n").at(-1) ?? "";
        try {
          const said = JSON.parse(last) as { readonly output?: unknown };
          if ("output" in said) resolve(said.output);
          else reject(new Error(`${name}: ${text}`));
        } catch {
          reject(new Error(`${name} answered ${answer.statusCode}: ${text}`));
        }
      });
    });
    sent.once("timeout", () => sent.destroy(new Error(`${name} said nothing for ${OPERATION_MS / 1000} s`)));
    sent.once("error", reject).end(body);
  });
}

/** A process with as many lives as the test wants; one at a time. */
export class FleetProcess {
  readonly plan: FleetProcessPlan;
  #child: ChildProcess | undefined;
  #standby: ChildProcess | undefined;
  #ended: Promise<End> = Promise.resolve({ code: 0, signal: null });

  constructor(plan: FleetProcessPlan) {
    this.plan = plan;
    process.once("exit", () => {
      this.#child?.kill("SIGKILL");
      this.#standby?.kill("SIGKILL");
    });
  }

  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Of the present life. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the present life ends. */
  get ended(): Promise<End> {
    return this.#ended;
  }

  /** Begins a life with orders where to die. Returns at once. */
  spawn(orders: Orders = {}): void {
    if (this.isRunning) throw new Error(`${this.plan.name} runs already`);
    const child = this.#standby ?? this.#load();
    this.#standby = undefined;
    this.#child = child;
    this.#ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    child.send(orders);
  }

  /** Loads the program for the next life beside the present one: a killed process is then followed at once. */
  standBy(): void {
    this.#standby ??= this.#load();
  }

  #load(): ChildProcess {
    const log = openSync(this.plan.log, "a", 0o600);
    try {
      return spawn(process.execPath, [...this.plan.words],
        { stdio: ["ignore", log, log, "ipc"], env: { PATH: process.env["PATH"] ?? "" } });
    } finally {
      closeSync(log);
    }
  }

  /** Begins a life and waits until it says that it is ready. */
  async start(withinMs = READY_MS): Promise<void> {
    this.spawn();
    await this.ready(withinMs);
  }

  ready(withinMs = READY_MS): Promise<void> {
    const hopeless = (): string | undefined => (this.isRunning ? undefined : `${this.plan.name} has ended`);
    return until({ what: `the readiness of ${this.plan.name}`, withinMs, log: this.plan.log, hopeless },
      () => answersOk(`${this.plan.admin}/readyz`));
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals): Promise<End> {
    this.#standby?.kill("SIGKILL");
    this.#standby = undefined;
    if (this.isRunning) this.#child?.kill(signal);
    return this.#ended;
  }

  /** Suspends the process (SIGSTOP): it holds everything that it holds, and does nothing, until resume(). */
  suspend(): void {
    this.#child?.kill("SIGSTOP");
  }

  resume(): void {
    this.#child?.kill("SIGCONT");
  }

  /** Asks the process for an operation; gives its output. Rejects with the code and message of a refusal. */
  operate(name: string, input: object = {}): Promise<unknown> {
    return operateAt(this.plan.admin, name, input);
  }

  /** Codes of the faults that are open, as /status shows them. */
  async faults(): Promise<readonly string[]> {
    const { text } = await call({ url: `${this.plan.admin}/status` });
    return [...new Set([...text.matchAll(/"code": ?"(E_[A-Z_]+)"/g)].map(([, code]) => code ?? ""))];
  }

  /** What the process says of itself on /status. Rejects when nobody answers. */
  async status(): Promise<Readonly<Record<string, unknown>>> {
    const { text } = await call({ url: `${this.plan.admin}/status` });
    const answer = JSON.parse(text) as { readonly status: Readonly<Record<string, unknown>> };
    return answer.status;
  }

  /** The sum of a counter over its labels, as shown on /metrics; 0 when it was never counted. */
  async counted(name: string): Promise<number> {
    const { text } = await call({ url: `${this.plan.admin}/metrics` });
    const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    // A line is: name{labels} value [time]
    return lines.reduce((sum, line) => sum + Number(line.slice(line.indexOf("}") + 1).trim().split(" ")[0]), 0);
  }
}
