/**
 * A private PostgreSQL for tests: one server per test process, a fresh database for whoever asks; and what any private
 * database server needs (mariadb.ts uses it as well): a directory, a free port, a condition that says it is ready, an end
 * by pid. Durability is switched off: what is tested here never loses power.
 *
 * Invariants: only processes started here are stopped; the directory goes when the test process goes; everything listens
 * on 127.0.0.1.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { chownSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { Secret } from "../../core/secret.ts";

const READY_WITHIN_MS = 60_000;
const PROBE_EVERY_MS = 50;

/** Which user a server runs as: database servers refuse root. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** The account of that name when this process is root, undefined otherwise: then the server runs as we do. */
export function accountFor(name: string): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string): number => Number(spawnSync("id", [flag, name], { encoding: "utf8" }).stdout);
  return { uid: id("-u"), gid: id("-g") };
}

// A test process that is told to stop still cleans up: what follows hangs on "exit".
process.once("SIGTERM", () => process.exit(143));

/** A fresh directory that belongs to the account and disappears with this process. */
export function privateDirectory(name: string, account: Account | undefined): string {
  const directory = mkdtempSync(join("/var/tmp", `holdfast-${name}-`));
  if (account !== undefined) chownSync(directory, account.uid, account.gid);
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A TCP port that nobody listens on at the moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = address === null || typeof address === "string" ? undefined : address.port;
      server.close(() => (port === undefined ? reject(new Error("no free port")) : resolve(port)));
    });
  });
}

/** Runs a command to its end; throws with what it said when it fails. */
export function runCommand(command: string, parameters: readonly string[], account: Account | undefined): string {
  const result = spawnSync(command, [...parameters], { encoding: "utf8", ...account });
  if (result.status !== 0) throw new Error(`${command} failed: ${result.stderr}${result.stdout}${result.error?.message ?? ""}`);
  return result.stdout;
}

/** A running server that can be stopped, started again on the same files, frozen and thawed. */
export class ServerProcess {
  readonly #command: string;
  readonly #parameters: readonly string[];
  readonly #account: Account | undefined;
  readonly #logFile: string;
  #child: ChildProcess | undefined;

  constructor(command: string, parameters: readonly string[], account: Account | undefined, logFile: string) {
    this.#command = command;
    this.#parameters = parameters;
    this.#account = account;
    this.#logFile = logFile;
    process.once("exit", () => this.signal("SIGKILL"));
  }

  /** Starts the server and waits until `probe` resolves to true. */
  async start(probe: () => Promise<boolean>): Promise<void> {
    const log = openSync(this.#logFile, "a", 0o600);
    const child = spawn(this.#command, [...this.#parameters], { stdio: ["ignore", log, log], ...this.#account });
    child.unref();
    this.#child = child;
    for (let waitedMs = 0; waitedMs < READY_WITHIN_MS; waitedMs += PROBE_EVERY_MS) {
      if (child.exitCode !== null) break;
      if (await probe().catch(() => false)) return;
      await pause(PROBE_EVERY_MS);
    }
    throw new Error(`${this.#command} did not become ready: ${readFileSync(this.#logFile, "utf8").slice(-2000)}`);
  }

  /** Sends a signal to the server, by its pid. */
  signal(signal: NodeJS.Signals): void {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) child.kill(signal);
  }

  /** Runs `work` while the server is frozen, every process of it; it is thawed whatever happens. */
  async frozen(work: () => Promise<void>): Promise<void> {
    const pids = [this.#child?.pid, ...childrenOf(this.#child?.pid)].filter((pid) => pid !== undefined);
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    try {
      while (pids.some((pid) => !isStopped(pid))) await pause(PROBE_EVERY_MS);
      await work();
    } finally {
      for (const pid of pids) process.kill(pid, "SIGCONT");
    }
  }

  /** Stops the server with `signal` and waits until it is gone. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.ref();
    child.kill(signal);
    await gone;
  }
}

/** True when the kernel has stopped every thread of the process: a signal takes its time. */
function isStopped(pid: number): boolean {
  const { stdout } = spawnSync("ps", ["-L", "-o", "stat=", "-p", String(pid)], { encoding: "utf8" });
  return stdout.trim().split("\n").every((state) => state.startsWith("T"));
}

/** Processes that `pid` started: PostgreSQL serves each session with one. */
function childrenOf(pid: number | undefined): readonly number[] {
  if (pid === undefined) return [];
  const { stdout } = spawnSync("ps", ["-o", "pid=", "--ppid", String(pid)], { encoding: "utf8" });
  return stdout.trim().split(/\s+/).filter((text) => text !== "").map(Number);
}

/**
 * What a test does when a server binary is missing: it says so and skips; where CI=true it fails, because there a skipped
 * test would be a hidden one.
 */
export function missing(context: Mocha.Context, reason: string): never {
  if (process.env["CI"] === "true") throw new Error(reason);
  console.warn(`skipped: ${reason}`);
  return context.skip();
}

const BINARIES = ["/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/15/bin"];
const SUPERUSER = "holdfast";

/** Everything a client needs; the user owns the database. */
export interface PrivateDatabase {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: Secret;
}

export interface PrivatePostgres {
  readonly process: ServerProcess;
  /** Starts the server again after process.stop(). */
  start(): Promise<void>;
  /** A new, empty database. */
  createDatabase(): Promise<PrivateDatabase>;
  /** Runs statements in one database as its owner; the rows of the last one. */
  execute(database: string, sql: string): Promise<readonly Record<string, unknown>[]>;
}

/** Why there can be no private PostgreSQL here; undefined when there can. */
export function postgresMissing(): string | undefined {
  return BINARIES.some((directory) => existsSync(join(directory, "postgres"))) ? undefined
    : `no PostgreSQL server in ${BINARIES.join(", ")} (Debian: apt-get install postgresql)`;
}

let running: Promise<PrivatePostgres> | undefined;

/** The private server of this process, started on first use. */
export function privatePostgres(): Promise<PrivatePostgres> {
  return (running ??= startPostgres());
}

async function startPostgres(): Promise<PrivatePostgres> {
  const binaries = BINARIES.find((directory) => existsSync(join(directory, "postgres"))) ?? "";
  const account = accountFor("postgres");
  const directory = privateDirectory("postgres", account);
  const files = join(directory, "files");
  runCommand(join(binaries, "initdb"),
    ["-D", files, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"], account);
  const port = await freePort();
  const settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", `unix_socket_directories=${directory}`,
    "listen_addresses=127.0.0.1", `port=${port}`, "max_connections=60", "shared_buffers=64MB", "deadlock_timeout=100ms",
    // A server in a foreign time zone and date style: nothing may depend on the server's defaults.
    "timezone=Asia/Tokyo", "datestyle=German,DMY"];
  const server = new ServerProcess(join(binaries, "postgres"), ["-D", files, ...settings.flatMap((one) => ["-c", one])],
    account, join(directory, "log"));
  const execute = async (database: string, sql: string): Promise<readonly Record<string, unknown>[]> => {
    const client = new pg.Client({ host: "127.0.0.1", port, user: SUPERUSER, database });
    client.on("error", () => undefined);
    await client.connect();
    try {
      const results: unknown = await client.query(sql);
      const last = (Array.isArray(results) ? results.at(-1) : results) as pg.QueryResult<Record<string, unknown>>;
      return last.rows;
    } finally {
      await client.end();
    }
  };
  const start = (): Promise<void> => server.start(async () => (await execute("postgres", "SELECT 1")).length === 1);
  await start();
  let databases = 0;
  const createDatabase = async (): Promise<PrivateDatabase> => {
    const database = `test_${++databases}`;
    await execute("postgres", `CREATE DATABASE ${database}`);
    return { host: "127.0.0.1", port, database, user: SUPERUSER, password: new Secret("unused") };
  };
  return { process: server, start, createDatabase, execute };
}
