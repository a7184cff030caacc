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

/** Compares every synchronised table of two databases. */
export async function compareDatabases(centre: Rows, site: Rows, service: Service = keystone): Promise<Comparison> {
  await site.reflect();
  const differences: string[] = [];
  let count = 0;
  for (const table of service.tables.values()) {
    const wanted = await contentOf(centre, table, (row) => site.fit(table, row));
    const found = await contentOf(site, table, (row) => site.fit(table, row));
    count += wanted.size;
    for (const [key, row] of wanted) {
      const held = found.get(key);
      if (held === undefined) differences.push(`${table.name} ${key} is missing at the site`);
      else if (held !== row) differences.push(`${table.name} ${key}: ${row} at the centre, ${held} at the site`);
    }
    for (const key of found.keys()) if (!wanted.has(key)) differences.push(`${table.name} ${key} is only at the site`);
  }
  const shown = differences.slice(0, SHOWN_MAX);
  const more = differences.length > SHOWN_MAX ? [`and ${differences.length - SHOWN_MAX} more`] : [];
  return { differences: [...shown, ...more], rows: count };
}
