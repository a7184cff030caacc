/**
 * The MariaDB adapter of the row port: connections, sessions and the meaning of errors, through Sequelize's mysql dialect and
 * mysql2 (Sequelize 6's own mariadb dialect fails every plain SELECT). SQL is in mariadb-sql.ts, the catalogue in
 * mariadb-catalog.ts, everything that both engines share in relational.ts.
 *
 * Invariants: every session is strict, in UTC and in utf8mb4 whatever the server's defaults, so that nothing is truncated or
 * replaced without an error; on a Galera node a snapshot waits for what the cluster acknowledged before it.
 * Not here: choosing a Galera node. The host must lead to one that is in the primary component.
 */
import type { Socket } from "node:net";
import type { Connection, QueryOptions } from "mysql2";
import type { ErrorCode, Facts } from "../core/errors.ts";
import type { World } from "../core/world.ts";
import type { Cell, DatabaseOptions, DatabaseSettings, Engine, Failure, Run, Target } from "./dialect.ts";
import { reflectMariadb } from "./mariadb-catalog.ts";
import { mariadbDialect } from "./mariadb-sql.ts";
import { mariadbTriggers } from "./mariadb-triggers.ts";
import { openRelational, settingsOf } from "./relational.ts";
import type { Rows } from "./rows.ts";

/** Strict in every respect; a 0 in an AUTO_INCREMENT column is a 0; backslashes escape, as the driver assumes. */
const SQL_MODE = "STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO," +
  "NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO";

/** Server error numbers, from MariaDB's list of error codes. */
const MEANINGS: Readonly<Record<number, ErrorCode>> = {
  1213: "E_ROWS_CONTENDED", 1205: "E_ROWS_CONTENDED", 1020: "E_ROWS_CONTENDED", 1180: "E_ROWS_CONTENDED",
  1062: "E_ROWS_UNIQUE", 1586: "E_ROWS_UNIQUE",
  1451: "E_ROWS_REFERENCE", 1452: "E_ROWS_REFERENCE", 1216: "E_ROWS_REFERENCE", 1217: "E_ROWS_REFERENCE",
  1048: "E_ROWS_REFUSED", 1364: "E_ROWS_REFUSED", 1265: "E_ROWS_REFUSED", 1366: "E_ROWS_REFUSED", 1406: "E_ROWS_REFUSED",
  1264: "E_ROWS_REFUSED", 1292: "E_ROWS_REFUSED", 1411: "E_ROWS_REFUSED", 1300: "E_ROWS_REFUSED", 1118: "E_ROWS_REFUSED",
  1153: "E_ROWS_REFUSED", 1690: "E_ROWS_REFUSED", 3819: "E_ROWS_REFUSED", 4025: "E_ROWS_REFUSED", 1906: "E_ROWS_REFUSED",
  1054: "E_SCHEMA_MISMATCH", 1146: "E_SCHEMA_MISMATCH", 1932: "E_SCHEMA_MISMATCH",
  1040: "E_ROWS_UNAVAILABLE", 1042: "E_ROWS_UNAVAILABLE", 1043: "E_ROWS_UNAVAILABLE", 1044: "E_ROWS_UNAVAILABLE",
  1045: "E_ROWS_UNAVAILABLE", 1047: "E_ROWS_UNAVAILABLE", 1049: "E_ROWS_UNAVAILABLE", 1053: "E_ROWS_UNAVAILABLE",
  1129: "E_ROWS_UNAVAILABLE", 1130: "E_ROWS_UNAVAILABLE", 1142: "E_ROWS_UNAVAILABLE", 1143: "E_ROWS_UNAVAILABLE",
  1203: "E_ROWS_UNAVAILABLE", 1226: "E_ROWS_UNAVAILABLE", 1290: "E_ROWS_UNAVAILABLE", 1317: "E_ROWS_UNAVAILABLE",
  1021: "E_ROWS_UNAVAILABLE", 1114: "E_ROWS_UNAVAILABLE", 1927: "E_ROWS_UNAVAILABLE", 1969: "E_ROWS_UNAVAILABLE",
  4031: "E_ROWS_UNAVAILABLE",
};

interface ServerError extends Error {
  readonly code?: string;
  readonly errno?: number;
  readonly sqlState?: string;
  readonly sqlMessage?: string;
  readonly fatal?: boolean;
}

/** Names out of a server message, and nothing else of it: the rest holds values. */
function namesIn(message: string): Facts {
  const foreign = /\(`[^`]*`\.`([^`]*)`, CONSTRAINT `([^`]*)`/.exec(message);
  if (foreign !== null) return { table: foreign[1], constraint: foreign[2] };
  return { constraint: /for key '([^']*)'$/.exec(message)?.[1], column: /[Cc]olumn '([^']*)'/.exec(message)?.[1] };
}

function failureOf(error: unknown): Failure | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, errno, sqlState, sqlMessage, fatal } = error as ServerError;
  if (sqlState !== undefined && errno !== undefined) {
    const meaning = MEANINGS[errno];
    return meaning === undefined ? undefined : { code: meaning, facts: { ...namesIn(sqlMessage ?? ""), errorNumber: errno } };
  }
  const isGone = fatal === true || /^(E[A-Z_]+|PROTOCOL_[A-Z_]+)$/.test(code ?? "") || /closed state/.test(error.message);
  return isGone ? { code: "E_ROWS_UNAVAILABLE", facts: { reason: code ?? error.message } } : undefined;
}

function session(settings: DatabaseSettings): readonly { readonly text: string; readonly optional: boolean }[] {
  const seconds = (milliseconds: number): number => Math.max(1, Math.ceil(milliseconds / 1000));
  const variables = [`sql_mode = '${SQL_MODE}'`, "time_zone = '+00:00'", "tx_isolation = 'REPEATABLE-READ'", "autocommit = 1",
    `max_statement_time = ${settings.statementTimeoutMs / 1000}`, `innodb_lock_wait_timeout = ${seconds(settings.lockTimeoutMs)}`,
    // Long IN lists would be turned into joins on a list in the connection's collation, which no index answers.
    "in_predicate_conversion_threshold = 0"];
  return [
    { text: "SET NAMES utf8mb4", optional: false },
    { text: `SET ${variables.map((one) => `SESSION ${one}`).join(", ")}`, optional: false },
    { text: "SET SESSION wsrep_sync_wait = 1", optional: true },
  ];
}

async function raiseCounter(run: Run, { table }: Target, column: string, first: number): Promise<void> {
  const [found] = await run({
    text: "SELECT t.auto_increment FROM information_schema.tables t JOIN information_schema.columns c " +
      "ON c.table_schema = t.table_schema AND c.table_name = t.table_name AND c.extra LIKE '%auto_increment%' " +
      "WHERE t.table_schema = DATABASE() AND t.table_name = ? AND c.column_name = ?",
    values: [table.name, column],
  });
  // Without AUTO_INCREMENT the database does not count this column at all, and there is nothing to raise.
  if (found === undefined || Number(found[0] ?? 1) >= first) return;
  // The server itself goes above the largest value in the table.
  await run({ text: `ALTER TABLE ${mariadbDialect.quote(table.name)} AUTO_INCREMENT = ${first}`, values: [] });
}

/** The socket under a connection, which the driver's published types leave out. */
function streamOf(connection: Connection): { readonly stream: Socket } {
  return connection as unknown as { readonly stream: Socket };
}

const MARIADB: Engine<Connection> = {
  name: "mariadb",
  dialect: mariadbDialect,
  session,
  begin: { snapshot: ["START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"],
    write: ["SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION READ WRITE"] },
  sequelizeVersion: "10.5.0",
  run(connection, { text, values }) {
    return new Promise((resolve, reject) => {
      // Cells as the server sent them: the driver's decoding loses microseconds and large numbers. A function, because
      // mysql2 puts the connection's own (Sequelize sets one, which decodes) in the place of `false`.
      const options: QueryOptions = { sql: text, values: [...values], rowsAsArray: true, typeCast: (field) => field.buffer() };
      connection.query(options, (error, rows) => {
        if (error === null) resolve(Array.isArray(rows) ? (rows as unknown as Cell[][]) : []);
        else reject(error);
      });
    });
  },
  sever(connection) {
    streamOf(connection).stream.destroy();
  },
  part: (connection) => new Promise((resolve) => {
    const { stream } = streamOf(connection);
    if (stream.destroyed) return resolve();
    stream.once("close", () => resolve());
    connection.end(() => undefined);
  }),
  failureOf,
  reflect: reflectMariadb,
  schemaLock: { take: "SELECT GET_LOCK(CONCAT('holdfast schema ', DATABASE()), 30)",
    release: "SELECT RELEASE_LOCK(CONCAT('holdfast schema ', DATABASE()))" },
  raiseCounter,
  triggers: mariadbTriggers,
};

/** Opens a row store on a MariaDB database. Connects on first use; E_ROWS_UNAVAILABLE then, not here. */
export function openMariadb(options: DatabaseOptions, world: World): Rows {
  const settings = settingsOf(options);
  return openRelational(MARIADB, settings, world, {
    dialect: "mysql",
    host: settings.host ?? "127.0.0.1",
    dialectOptions: {
      connectTimeout: settings.connectTimeoutMs, charset: "utf8mb4_general_ci",
      ...(settings.socketPath === undefined ? {} : { socketPath: settings.socketPath }),
    },
  });
}
