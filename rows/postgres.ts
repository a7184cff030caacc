/**
 * The PostgreSQL adapter of the row port: connections, sessions and the meaning of errors. SQL is in postgres-sql.ts, the
 * catalogue in postgres-catalog.ts, everything that both engines share in relational.ts.
 *
 * Invariants: a session's time zone, date style and byte form are ours whatever the server's defaults; the driver decodes
 * nothing, because its decoders lose microseconds and large numbers.
 * Not here: failover. The host must lead to the writer; a standby answers E_ROWS_UNAVAILABLE to the first write.
 */
import type { Socket } from "node:net";
import type { Client } from "pg";
import type { World } from "../core/world.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { Cell, DatabaseOptions, DatabaseSettings, Engine, Failure, Run, Target } from "./dialect.ts";
import { reflectPostgres } from "./postgres-catalog.ts";
import { postgresDialect } from "./postgres-sql.ts";
import { postgresTriggers } from "./postgres-triggers.ts";
import { queryBoundMs } from "./relational-pool.ts";
import { openRelational, settingsOf } from "./relational.ts";
import type { Rows } from "./rows.ts";

/** Advisory lock number under which schemas are changed: "holdfast" in ASCII, shortened to 63 bits. */
const SCHEMA_LOCK = "7525420936613195636";

/** The driver hands over the text the server sent. */
const UNDECODED = { getTypeParser: () => (text: string): string => text };

/** SQLSTATE classes and codes, from the PostgreSQL manual, appendix A; the longest prefix counts. */
const MEANINGS: Readonly<Record<string, ErrorCode>> = {
  "40": "E_ROWS_CONTENDED", "55P03": "E_ROWS_CONTENDED",
  "23505": "E_ROWS_UNIQUE", "23503": "E_ROWS_REFERENCE", "23001": "E_ROWS_REFERENCE",
  "22": "E_ROWS_REFUSED", "23": "E_ROWS_REFUSED", "44": "E_ROWS_REFUSED", "428C9": "E_ROWS_REFUSED",
  "42P01": "E_SCHEMA_MISMATCH", "42703": "E_SCHEMA_MISMATCH", "42704": "E_SCHEMA_MISMATCH", "42804": "E_SCHEMA_MISMATCH",
  "3D": "E_ROWS_UNAVAILABLE", "3F": "E_SCHEMA_MISMATCH", "42501": "E_ROWS_UNAVAILABLE",
  "08": "E_ROWS_UNAVAILABLE", "28": "E_ROWS_UNAVAILABLE", "53": "E_ROWS_UNAVAILABLE", "57": "E_ROWS_UNAVAILABLE",
  "58": "E_ROWS_UNAVAILABLE", "XX": "E_ROWS_UNAVAILABLE", "25006": "E_ROWS_UNAVAILABLE", "25P03": "E_ROWS_UNAVAILABLE",
};

/** What the driver says when the connection is gone; these errors carry no code. */
const CONNECTION_GONE =
  /^(Connection terminated|Client has encountered a connection error|Client was closed|timeout expired|Query read timeout)/;

interface ServerError extends Error {
  readonly code?: string;
  readonly table?: string;
  readonly constraint?: string;
  readonly column?: string;
}

function failureOf(error: unknown): Failure | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, table, constraint, column } = error as ServerError;
  if (code !== undefined && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code)) {
    const meaning = MEANINGS[code] ?? MEANINGS[code.slice(0, 2)];
    return meaning === undefined ? undefined : { code: meaning, facts: { table, constraint, column, sqlState: code } };
  }
  const isGone = (code !== undefined && /^E[A-Z_]+$/.test(code)) || CONNECTION_GONE.test(error.message);
  return isGone ? { code: "E_ROWS_UNAVAILABLE", facts: { reason: code ?? error.message } } : undefined;
}

/**
 * enable_seqscan: rows are looked up by key here, and the server's own foreign-key checks keep the plan they made first. While a
 * table is small, or grew since its last ANALYZE, that plan is a scan of the whole table for every row that is written: 540
 * aggregates a second instead of thousands while 20,000 users arrived at a new site.
 *
 * jit: a scan that has to be made all the same (a checksum, a column without index) then looks so expensive to the planner that
 * it compiles the statement first: 200 ms for a table of no rows.
 */
function session(settings: DatabaseSettings): readonly { readonly text: string; readonly optional: boolean }[] {
  const text = ["TimeZone = 'UTC'", "DateStyle = 'ISO, YMD'", "bytea_output = 'hex'", "standard_conforming_strings = on",
    "enable_seqscan = off", "jit = off", `statement_timeout = ${settings.statementTimeoutMs}`,
    `lock_timeout = ${settings.lockTimeoutMs}`];
  return [{ text: text.map((one) => `SET ${one}`).join("; "), optional: false }];
}

async function raiseCounter(run: Run, { table }: Target, column: string, first: number): Promise<void> {
  const { quote } = postgresDialect;
  const [found] = await run({ text: "SELECT pg_get_serial_sequence($1, $2)", values: [quote(table.name), column] });
  const sequence = found?.[0];
  // Without a sequence the database does not count this column at all, and there is nothing to raise.
  if (typeof sequence !== "string") return;
  const name = quote(column);
  const above = `SELECT max(${name}) + 1 FROM ${quote(table.name)} WHERE ${name} >= $2::bigint`;
  // setval is not part of the transaction, and others may count meanwhile: only a value above everything is ever set.
  await run({
    text: `SELECT setval($1::text::regclass, wanted.value, false)
      FROM (SELECT greatest($2::bigint, (${above})) AS value) AS wanted,
        (SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END AS value FROM ${sequence}) AS next
      WHERE next.value < wanted.value`,
    values: [sequence, first],
  });
}

/** The socket under a connection, which the driver's published types leave out. */
function streamOf(connection: Client): { readonly stream: Socket } {
  return (connection as unknown as { readonly connection: { readonly stream: Socket } }).connection;
}

const POSTGRES: Engine<Client> = {
  name: "postgres",
  dialect: postgresDialect,
  session,
  begin: { snapshot: ["START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"],
    write: ["START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"] },
  sequelizeVersion: "12.0.0",
  async run(connection, { text, values }) {
    const result = await connection.query<Cell[]>({ text, values: [...values], rowMode: "array", types: UNDECODED });
    return result.rows;
  },
  sever(connection) {
    streamOf(connection).stream.destroy();
  },
  part: (connection) => new Promise((resolve) => {
    const { stream } = streamOf(connection);
    if (stream.destroyed) return resolve();
    stream.once("close", () => resolve());
    connection.end().catch(() => undefined);
  }),
  failureOf,
  reflect: reflectPostgres,
  schemaLock: { take: `SELECT pg_advisory_xact_lock(${SCHEMA_LOCK})`, release: undefined },
  raiseCounter,
  triggers: postgresTriggers,
};

/** Opens a row store on a PostgreSQL database. Connects on first use; E_ROWS_UNAVAILABLE then, not here. */
export function openPostgres(options: DatabaseOptions, world: World): Rows {
  const settings = settingsOf(options);
  return openRelational(POSTGRES, settings, world, {
    dialect: "postgres",
    host: settings.socketPath ?? settings.host ?? "127.0.0.1",
    // The driver's own query bound covers what Sequelize asks of a new connection.
    dialectOptions: { connectionTimeoutMillis: settings.connectTimeoutMs, query_timeout: queryBoundMs(settings),
      application_name: "holdfast", keepAlive: true, clientMinMessages: "ignore" },
  });
}
