/**
 * The lab's MariaDB server: one for all databases of that engine, run as the system user mysql, with the character set that
 * Debian's Keystone expects (utf8mb3: its longest unique keys do not fit otherwise). Durability is off, as in postgres.ts.
 */
import { chownSync, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { run, type SystemUser } from "./commands.ts";
import type { DatabaseServer } from "./engines.ts";
import { KILL_MS } from "./options.ts";
import type { ProcessPlan } from "./processes.ts";
import { processesIn } from "./proc.ts";
import { LAB_USER, pathsOf, portOf, type LabRecord } from "./record.ts";
import { until } from "./waiting.ts";

const CONNECTIONS_MAX = 300;
const STORE_SETTINGS = ["--innodb-log-file-size=64M", "--innodb-doublewrite=0", "--innodb-flush-log-at-trx-commit=0"] as const;

/** The lab's MariaDB; `user` is the system user that it runs as. */
export class MariadbServer implements DatabaseServer {
  readonly engine = "mariadb";
  readonly #record: LabRecord;
  readonly #user: SystemUser;
  readonly #folder: string;
  readonly #log: string;

  constructor(record: LabRecord, user: SystemUser) {
    this.#record = record;
    this.#user = user;
    this.#folder = join(record.state, "mariadb");
    this.#log = pathsOf(record).prepareLog;
  }

  get plan(): ProcessPlan {
    const port = portOf(this.#record, "mariadb");
    return { name: "mariadb", folder: this.#folder, ports: [port], user: this.#user,
      command: ["/usr/sbin/mariadbd", "--no-defaults", `--datadir=${this.#storage}`, `--socket=${this.#socket}`,
        "--bind-address=127.0.0.1", `--port=${port}`, `--pid-file=${join(this.#folder, "mariadb.pid")}`,
        // A starting server removes every temporary table it finds there: another server's as well, were it the system's.
        `--tmpdir=${this.#folder}`,
        `--max-connections=${CONNECTIONS_MAX}`, "--skip-name-resolve", ...STORE_SETTINGS, "--innodb-buffer-pool-size=256M",
        "--character-set-server=utf8mb3", "--collation-server=utf8mb3_general_ci"],
      beforeStart: () => this.#awaitPredecessor(),
      isReady: async () => (await this.query("mysql", "SELECT 1", "/dev/null")) === "1\n" };
  }

  async prepare(): Promise<boolean> {
    if (existsSync(this.#storage)) return false;
    if (!existsSync(this.#folder)) mkdirSync(this.#folder, { mode: 0o755 });
    chownSync(this.#folder, this.#user.uid, this.#user.gid);
    const unfinished = `${this.#storage}.unfinished`;
    rmSync(unfinished, { recursive: true, force: true });
    await run(["mariadb-install-db", "--no-defaults", `--datadir=${unfinished}`, "--skip-test-db",
      "--auth-root-authentication-method=normal", ...STORE_SETTINGS], { log: this.#log, user: this.#user, folder: this.#folder });
    await this.#grant(unfinished);
    renameSync(unfinished, this.#storage);
    return true;
  }

  query(database: string, sql: string, log = this.#log): Promise<string> {
    return run(["mariadb", ...this.#connect(), "--batch", "--skip-column-names", database],
      { log, environment: this.#environment(), input: { text: sql } });
  }

  async createEmpty(database: string): Promise<void> {
    await this.query("mysql", `DROP DATABASE IF EXISTS ${database}; CREATE DATABASE ${database} CHARACTER SET utf8mb3`);
  }

  async dropDatabase(database: string): Promise<void> {
    await this.query("mysql", `DROP DATABASE IF EXISTS ${database}`);
  }

  async dump(database: string, file: string): Promise<void> {
    const own = await this.query("information_schema",
      `SELECT table_name FROM tables WHERE table_schema = '${database}' AND table_name LIKE 'holdfast\\_%'`);
    const ignored = own.split("\n").filter((table) => table !== "").map((table) => `--ignore-table=${database}.${table}`);
    await run(["mariadb-dump", ...this.#connect(), "--single-transaction", "--hex-blob", ...ignored, database],
      { log: this.#log, environment: this.#environment(), output: file });
  }

  async restore(database: string, file: string): Promise<void> {
    await run(["mariadb", ...this.#connect(), database], { log: this.#log, environment: this.#environment(), input: { file } });
  }

  serviceUrl(database: string): string {
    const password = this.#record.databasePassword.reveal();
    return `mysql+pymysql://${LAB_USER}:${password}@127.0.0.1:${portOf(this.#record, "mariadb")}/${database}?charset=utf8`;
  }

  get #storage(): string {
    return join(this.#folder, "storage");
  }

  get #socket(): string {
    return join(this.#folder, "mariadb.sock");
  }

  #connect(): readonly string[] {
    return ["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", String(portOf(this.#record, "mariadb")), "-u", LAB_USER];
  }

  #environment(): Readonly<Record<string, string>> {
    return { MYSQL_PWD: this.#record.databasePassword.reveal() };
  }

  /** Makes the lab's user and locks root out of the network, before the server has ever listened anywhere. */
  async #grant(storage: string): Promise<void> {
    const password = this.#record.databasePassword.reveal();
    const users = ["localhost", "127.0.0.1"].map((host) =>
      `GRANT ALL ON *.* TO '${LAB_USER}'@'${host}' IDENTIFIED BY '${password}' WITH GRANT OPTION;\n`);
    // --bootstrap reads one statement per line from standard input, without a network; FLUSH makes it know users at all.
    await run(["/usr/sbin/mariadbd", "--no-defaults", "--bootstrap", `--datadir=${storage}`, ...STORE_SETTINGS],
      { log: this.#log, user: this.#user, folder: this.#folder,
        input: { text: `FLUSH PRIVILEGES;\n${users.join("")}ALTER USER 'root'@'localhost' ACCOUNT LOCK;\n` } });
  }

  /** A killed server's descendants hold its storage for a moment longer. */
  async #awaitPredecessor(): Promise<void> {
    await until({ what: "the end of the killed MariaDB's processes", withinMs: KILL_MS, log: this.#log },
      () => Promise.resolve(processesIn(this.#storage).length === 0));
  }
}
