/**
 * A private MariaDB for tests: one server per test process, a fresh database for whoever asks. Durability is switched off.
 * Databases are made in utf8mb3, as OpenStack's installation guides make them.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createConnection } from "mysql2/promise";
import { Secret } from "../../core/secret.ts";
import { accountFor, freePort, privateDirectory, runCommand, ServerProcess, type PrivateDatabase } from "./postgres.ts";

const SERVER = "/usr/sbin/mariadbd";
const INSTALLER = "/usr/bin/mariadb-install-db";
const PASSWORD = "it's a \"test\" \\ password";

export interface PrivateMariadb {
  readonly process: ServerProcess;
  /** Starts the server again after process.stop(). */
  start(): Promise<void>;
  /** A new, empty database with a user of its own. */
  createDatabase(): Promise<PrivateDatabase>;
  /** Runs statements in one database as administrator; the rows of the last one. */
  execute(database: string, sql: string): Promise<readonly Record<string, unknown>[]>;
}

/** Why there can be no private MariaDB here; undefined when there can. */
export function mariadbMissing(): string | undefined {
  return existsSync(SERVER) && existsSync(INSTALLER) ? undefined
    : `no MariaDB server at ${SERVER} (Debian: apt-get install mariadb-server)`;
}

let running: Promise<PrivateMariadb> | undefined;

/** The private server of this process, started on first use. */
export function privateMariadb(): Promise<PrivateMariadb> {
  return (running ??= startMariadb());
}

async function startMariadb(): Promise<PrivateMariadb> {
  const account = accountFor("mysql");
  const directory = privateDirectory("mariadb", account);
  const files = join(directory, "files");
  const socket = join(directory, "socket");
  runCommand(INSTALLER, ["--no-defaults", `--datadir=${files}`, "--auth-root-authentication-method=normal",
    "--skip-test-db", "--innodb-log-file-size=16M"], account);
  const port = await freePort();
  const server = new ServerProcess(SERVER, ["--no-defaults", `--datadir=${files}`, `--socket=${socket}`, `--port=${port}`,
    "--bind-address=127.0.0.1", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=16M", "--skip-name-resolve", `--pid-file=${join(directory, "pid")}`,
    // Lax and foreign defaults on purpose: a session that forgot to set its own mode would truncate silently.
    "--sql-mode=", "--default-time-zone=+09:00", "--character-set-server=latin1"], account, join(directory, "log"));
  const execute = async (database: string, sql: string): Promise<readonly Record<string, unknown>[]> => {
    const client = await createConnection(
      { socketPath: socket, user: "root", database, multipleStatements: true, charset: "utf8mb4" });
    try {
      const [results] = await client.query(sql);
      const last: unknown = Array.isArray(results) && Array.isArray(results.at(-1)) ? results.at(-1) : results;
      return Array.isArray(last) ? last as Record<string, unknown>[] : [];
    } finally {
      await client.end();
    }
  };
  const start = (): Promise<void> => server.start(async () => (await execute("mysql", "SELECT 1")).length === 1);
  await start();
  let databases = 0;
  const createDatabase = async (): Promise<PrivateDatabase> => {
    const database = `test_${++databases}`;
    const quoted = PASSWORD.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
    await execute("mysql", `CREATE DATABASE ${database} CHARACTER SET utf8mb3;
      CREATE USER '${database}'@'127.0.0.1' IDENTIFIED BY '${quoted}'; GRANT ALL ON ${database}.* TO '${database}'@'127.0.0.1'`);
    return { host: "127.0.0.1", port, database, user: database, password: new Secret(PASSWORD) };
  };
  return { process: server, start, createDatabase, execute };
}
