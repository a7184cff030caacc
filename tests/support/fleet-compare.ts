/**
 * Are two clouds equal? Every row of every synchronised table, every column but the local ones, read from both databases. Values
 * are compared as the site's database can hold them: MariaDB keeps whole seconds where PostgreSQL keeps microseconds.
 */
import { noMetrics } from "../../core/metrics.ts";
import { silentLog } from "../../core/log.ts";
import { systemClock } from "../../core/clock.ts";
import { systemRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import type { DatabaseAccess } from "../../lab/record.ts";
import { openRows } from "../../rows/open.ts";
import { ROWS_PER_CALL_MAX, type Rows } from "../../rows/rows.ts";
import type { Service, Table } from "../../schemas/define.ts";
import { keystone } from "../../schemas/keystone.ts";
import { pickColumns, rowText, type Row } from "../../schemas/row.ts";

/** A world for tests that open rooms of the product themselves: real time and chance, nothing said. */
export const quietWorld: World = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

/** Differences that are told one by one. */
const SHOWN_MAX = 10;
const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 60_000;

/** Opens a cloud's Keystone database. */
export function openDatabase(access: DatabaseAccess): Rows {
  const { engine, host, port, name, user, password } = access;
  return openRows({ engine, host, port, name, user, password, socketPath: undefined, poolMax: 4,
    connectTimeoutMs: CONNECT_TIMEOUT_MS, statementTimeoutMs: STATEMENT_TIMEOUT_MS }, quietWorld);
}

async function contentOf(rows: Rows, table: Table, fit: (row: Row) => Row): Promise<ReadonlyMap<string, string>> {
  const content = new Map<string, string>();
  await rows.snapshot(async (read) => {
    for (let after: Row | undefined; ; ) {
      const page = await read.page(table, { after, limit: ROWS_PER_CALL_MAX });
      for (const row of page) content.set(rowText(row, table.key), rowText(fit(pickColumns(row, table.sent)), table.sent));
      after = page.at(-1);
      if (page.length < ROWS_PER_CALL_MAX) return;
    }
  });
  return content;
}

export interface Comparison {
  /** One sentence per row that differs; the first few in words, the rest as a number. */
  readonly differences: readonly string[];
  /** Rows at the centre. */
  readonly rows: number;
}

/** Rows by table and key, each as one text: every synchronised table of one place. */
export type Content = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** Everything synchronised that a database holds, as the database `fitted` would hold it. */
export async function contentOfDatabase(rows: Rows, fitted: Rows, service: Service = keystone): Promise<Content> {
  const content = new Map<string, ReadonlyMap<string, string>>();
  for (const table of service.tables.values()) {
    content.set(table.name, await contentOf(rows, table, (row) => fitted.fit(table, row)));
  }
  return content;
}

/** Is this a row at the centre that never travels: a root that the service file excepts? */
export function isExceptedRow(table: string, key: string, service: Service = keystone): boolean {
  return [...service.kinds.values()].some((kind) => kind.root === table && kind.except.some((exception) =>
    Object.values(exception.key).every((value) => key.includes(JSON.stringify(value)))));
}

/**
 * One sentence per row that differs between two places, named as the sentences shall name them.
 * @param mayLack  rows that `found` need not have.
 */
export function differencesOf(wanted: Content, found: Content, places: readonly [string, string],
  mayLack: (table: string, key: string) => boolean = () => false): readonly string[] {
  const [here, there] = places;
  const differences: string[] = [];
  for (const [table, rows] of wanted) {
    const others = found.get(table) ?? new Map<string, string>();
    for (const [key, row] of rows) {
      const held = others.get(key);
      if (held === row || (held === undefined && mayLack(table, key))) continue;
      differences.push(held === undefined ? `${table} ${key} is missing at the ${there}`
        : `${table} ${key}: ${row} at the ${here}, ${held} at the ${there}`);
    }
    for (const key of others.keys()) if (!rows.has(key)) differences.push(`${table} ${key} is only at the ${there}`);
  }
  return differences;
}

/** The first few differences in words, the rest as a number. */
export function shownOf(differences: readonly string[]): readonly string[] {
  const more = differences.length > SHOWN_MAX ? [`and ${differences.length - SHOWN_MAX} more`] : [];
  return [...differences.slice(0, SHOWN_MAX), ...more];
}

/** Compares every synchronised table of two databases. */
export async function compareDatabases(centre: Rows, site: Rows, service: Service = keystone): Promise<Comparison> {
  await site.reflect();
  const wanted = await contentOfDatabase(centre, site, service);
  const found = await contentOfDatabase(site, site, service);
  const rows = [...wanted.values()].reduce((sum, table) => sum + table.size, 0);
  return { differences: shownOf(differencesOf(wanted, found, ["centre", "site"])), rows };
}
