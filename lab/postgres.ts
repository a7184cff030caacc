/**
 * The lab's PostgreSQL server: one for all databases of that engine, run as the system user postgres.
 * Durability is switched off: a lab's data may be lost with the machine, and the disk is not what is tested. Logical decoding
 * is on, so that a benchmark can put native replication beside Holdfast.
 */
import { existsSync, readdirSync, renameSync, rmSync, writeFileSync, chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { present } from "../core/assert.ts";
import { run, type SystemUser } from "./commands.ts";
import type { DatabaseServer } from "./engines.ts";
import type { ProcessPlan } from "./processes.ts";
import { processesIn } from "./proc.ts";
import { LAB_USER, pathsOf, portOf, type LabRecord } from "./record.ts";
import { KILL_MS } from "./options.ts";
import { until } from "./waiting.ts";

const CONNECTIONS_MAX = 300;
const INSTALLED = "/usr/lib/postgresql";

/** Folder of the newest installed PostgreSQL's programs. */
function programs(): string {
  const versions = readdirSync(INSTALLED).filter((name) => existsSync(join(INSTALLED, name, "bin", "initdb")));
  const newest = versions.sort((left, right) => Number(right) - Number(left))[0];
  return join(INSTALLED, present(newest, "postgresql is installed"), "bin");
}

/** The lab's PostgreSQL; `user` is the system user that it runs as, because it refuses to run as root. */
export class PostgresServer implements DatabaseServer {
  readonly engine = "postgres";
  readonly #record: LabRecord;
  readonly #user: SystemUser;
  readonly #folder: string;
  readonly #log: string;

  constructor(record: LabRecord, user: SystemUser) {
    this.#record = record;
    this.#user = user;
    this.#folder = join(record.state, "postgres");
    this.#log = pathsOf(record).prepareLog;
  }

  get plan(): ProcessPlan {
    const settings = { port: portOf(this.#record, "postgres"), listen_addresses: "127.0.0.1",
      unix_socket_directories: this.#folder, max_connections: CONNECTIONS_MAX, wal_level: "logical",
      fsync: "off", synchronous_commit: "off", full_page_writes: "off" };
    const words = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    return { name: "postgres", folder: this.#folder, ports: [settings.port], user: this.#user,
      command: [join(programs(), "postgres"), "-D", this.#storage, ...words],
      // SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait until every client has left.
      stopSignal: "SIGINT",
      beforeStart: () => this.#forgetPredecessor(),
      isReady: async () => (await this.query("postgres", "SELECT 1", "/dev/null")) === "1\n" };
  }

  async prepare(): Promise<boolean> {
    if (existsSync(this.#storage)) return false;
    if (!existsSync(this.#folder)) mkdirSync(this.#folder, { mode: 0o755 });
    chownSync(this.#folder, this.#user.uid, this.#user.gid);
    const unfinished = `${this.#storage}.unfinished`;
    const passwordFile = join(this.#folder, "password");
    rmSync(unfinished, { recursive: true, force: true });
    // initdb opens it as postgres: no descriptor of this process will do.
    writeFileSync(passwordFile, this.#record.databasePassword.reveal(), { mode: 0o600 });
    chownSync(passwordFile, this.#user.uid, this.#user.gid);
    await run([join(programs(), "initdb"), "-D", unfinished, "-U", LAB_USER, `--pwfile=${passwordFile}`, "-E", "UTF8",
      "--locale=C.UTF-8", "--auth=scram-sha-256", "--no-sync", "--no-instructions"],
    { log: this.#log, user: this.#user, folder: this.#folder });
    rmSync(passwordFile);
    renameSync(unfinished, this.#storage);
    return true;
  }

  query(database: string, sql: string, log = this.#log): Promise<string> {
    return run(["psql", "-XqtA", "-v", "ON_ERROR_STOP=1", ...this.#connect(database), "-f", "-"],
      { log, environment: this.#environment(), input: { text: sql } });
  }

  async createEmpty(database: string): Promise<void> {
    await this.query("postgres", `DROP DATABASE IF EXISTS ${database} WITH (FORCE);\nCREATE DATABASE ${database};`);
  }

  async dropDatabase(database: string): Promise<void> {
    await this.query("postgres", `DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  }

  async dump(database: string, file: string): Promise<void> {
    await run(["pg_dump", "--no-owner", "--exclude-table=holdfast_*", ...this.#connect(database)],
      { log: this.#log, environment: this.#environment(), output: file });
  }

  async restore(database: string, file: string): Promise<void> {
    await run(["psql", "-XqtA", "-1", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", ...this.#connect(database), "-f", "-"],
      { log: this.#log, environment: this.#environment(), input: { file } });
  }

  serviceUrl(database: string): string {
    const password = this.#record.databasePassword.reveal();
    return `postgresql+psycopg2://${LAB_USER}:${password}@127.0.0.1:${portOf(this.#record, "postgres")}/${database}`;
  }

  get #storage(): string {
    return join(this.#folder, "storage");
  }

  #connect(database: string): readonly string[] {
    return ["-h", "127.0.0.1", "-p", String(portOf(this.#record, "postgres")), "-U", LAB_USER, "-d", database];
  }

  #environment(): Readonly<Record<string, string>> {
    return { PGPASSWORD: this.#record.databasePassword.reveal(), PGOPTIONS: "-c client_min_messages=warning" };
  }

  /**
   * A killed postmaster leaves backends, which end by themselves, and two lock files. Their pid may by now belong to another
   * server, or to remains that nobody has collected yet; the new server would refuse to start. They may only be removed when
   * nothing works in the storage folder any more: every PostgreSQL process does.
   */
  async #forgetPredecessor(): Promise<void> {
    await until({ what: "the end of the killed PostgreSQL's processes", withinMs: KILL_MS, log: this.#log },
      () => Promise.resolve(processesIn(this.#storage).length === 0));
    const socket = join(this.#folder, `.s.PGSQL.${portOf(this.#record, "postgres")}`);
    for (const file of [join(this.#storage, "postmaster.pid"), socket, `${socket}.lock`]) rmSync(file, { force: true });
  }
}
