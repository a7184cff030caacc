/**
 * A backlog: many users change at the centre while the site's sync daemon does not run. The rows are written past every API, as
 * a data migration would, and found by the proxy's own comparison of everything; then the daemon starts and is measured.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../core/clock.ts";
import { until } from "../../lab/waiting.ts";
import type { EngineName } from "../../lab/options.ts";
import type { Fleet } from "./fleet.ts";

/** What a backlog took. Rates are over the time between the first commit that wrote rows and the last. */
export interface BacklogFigures {
  readonly aggregates: number;
  readonly rows: number;
  /** From the start of the proxy until the stream held everything. */
  readonly publishedMs: number;
  /** From the start of the daemon until its last commit. */
  readonly caughtUpMs: number;
  readonly aggregatesPerSecond: number;
  readonly rowsPerSecond: number;
}

/** Longest until a backlog is published, and until it is applied. */
const BACKLOG_MS = 600_000;

/** Statements that clone the administrator `count` times: a user with its local user and password, as Keystone writes them. */
export function clones(engine: EngineName, series: string, count: number): string {
  const quote = (name: string): string => (engine === "postgres" ? `"${name}"` : `\`${name}\``);
  const numbers = engine === "postgres" ? `(SELECT n FROM generate_series(1, ${count}) AS n) AS numbers`
    : `(SELECT seq AS n FROM seq_1_to_${count}) AS numbers`;
  const id = `md5(concat('${series}-', n))`;
  const user = quote("user");
  return `
    INSERT INTO ${user} (id, extra, enabled, default_project_id, created_at, last_active_at, domain_id)
      SELECT ${id}, '{"email": "${series}"}', enabled, default_project_id, created_at, NULL, ${user}.domain_id
      FROM ${numbers}
      CROSS JOIN ${user} JOIN local_user ON local_user.user_id = ${user}.id WHERE local_user.name = 'admin';
    INSERT INTO local_user (user_id, domain_id, name, failed_auth_count)
      SELECT ${id}, 'default', concat('${series}-', n), 0 FROM ${numbers};
    INSERT INTO password (local_user_id, expires_at, self_service, password_hash, created_at_int, expires_at_int, created_at)
      SELECT clone.id, expires_at, self_service, password_hash, created_at_int, expires_at_int, created_at
      FROM local_user AS clone CROSS JOIN password JOIN local_user AS admin ON admin.id = password.local_user_id
      WHERE admin.name = 'admin' AND clone.name LIKE '${series}-%';`;
}

/**
 * Makes the stream hold `count` new users, three rows each, while the sync daemon is down; it is left down. A journal segment
 * that nobody can read makes the proxy compare everything at its start. Milliseconds that this took.
 */
export async function makeBacklog(fleet: Fleet, series: string, count: number): Promise<number> {
  await fleet.syncd.end("SIGTERM");
  await fleet.proxy.end("SIGTERM");
  await fleet.sql("centre", clones(fleet.lab.databases.centre.engine, series, count));
  writeFileSync(join(fleet.lab.paths.intents, "keystone", "segment-900000"), Buffer.alloc(64, 1));
  const startMs = systemClock.monotonicMs();
  await fleet.proxy.start();
  const wait = { what: `the publication of ${count} users`, withinMs: BACKLOG_MS, log: fleet.proxy.plan.log };
  await until(wait, async () => await fleet.proxy.counted("holdfast_published_total") >= count);
  const tookMs = systemClock.monotonicMs() - startMs;
  await fleet.quiet(fleet.proxy);
  return tookMs;
}

/** Starts the sync daemon and watches it catch up with `count` aggregates. */
export async function catchUp(fleet: Fleet, count: number, publishedMs: number): Promise<BacklogFigures> {
  const startMs = systemClock.monotonicMs();
  fleet.syncd.spawn();
  let first: { readonly atMs: number; readonly aggregates: number; readonly rows: number } | undefined;
  let last = { atMs: startMs, aggregates: 0, rows: 0 };
  const wait = { what: `the application of ${count} users`, withinMs: BACKLOG_MS, log: fleet.syncd.plan.log };
  await until(wait, async () => {
    const aggregates = await fleet.syncd.counted("holdfast_applied_aggregates_total");
    const rows = await fleet.syncd.counted("holdfast_applied_rows_total");
    last = { atMs: systemClock.monotonicMs(), aggregates, rows };
    if (aggregates > 0) first ??= last;
    return aggregates >= count;
  });
  const { atMs, aggregates, rows } = first ?? last;
  const seconds = Math.max(1, last.atMs - atMs) / 1000;
  return { aggregates: last.aggregates, rows: last.rows, publishedMs, caughtUpMs: last.atMs - startMs,
    aggregatesPerSecond: (last.aggregates - aggregates) / seconds, rowsPerSecond: (last.rows - rows) / seconds };
}
