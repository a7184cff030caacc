/**
 * Benchmark: from a change at the centre to the row in the site's database, beside PostgreSQL's own logical replication of the
 * same table on the same server, change by change in turns.
 *
 * Method: an always-enabled row trigger on "user" sends a notification in each of the three databases (centre, site,
 * native subscriber); PostgreSQL delivers it after commit, when the row is visible to everybody. One process receives all
 * three, so one clock decides and the delivery costs all of them the same. The publication carries one user only, so native
 * replication does not work while Holdfast has its turn.
 * Source: PostgreSQL 15 manual, NOTIFY, CREATE PUBLICATION (WHERE), ALTER TABLE (ENABLE ALWAYS TRIGGER).
 */
import type pg from "pg";
import { present } from "../core/assert.ts";
import { sleep, systemClock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import type { DatabaseAccess } from "../lab/record.ts";
import { percentile, turns, type Figures, type Table } from "./figures.ts";
import { Caller } from "./paced.ts";
import { startProxy } from "./proxies.ts";
import type { Effort } from "./rounds.ts";
import { openDatabase, type Stage } from "./stage.ts";
import { describing, startOneUpdate } from "./writes.ts";

const NAME = "holdfast_bench";
const ARRIVAL_MS = 30_000;
/** Rest between changes: what is measured is one change on its way, not a queue. */
const GAP_MS = 15;
const WARM_UP_CHANGES = 10;

/** Receives the notifications of one database and remembers when each marker came. */
class Watch {
  readonly client: pg.Client;
  readonly #seen = new Map<string, number>();
  readonly #waiting = new Map<string, (atMs: number) => void>();

  constructor(client: pg.Client) {
    this.client = client;
    client.on("notification", ({ payload }) => {
      const marker = /change-\d+-\d+/.exec(payload ?? "")?.[0];
      if (marker === undefined || this.#seen.has(marker)) return;
      const atMs = systemClock.monotonicMs();
      this.#seen.set(marker, atMs);
      this.#waiting.get(marker)?.(atMs);
    });
  }

  async open(): Promise<void> {
    await this.client.query(`CREATE OR REPLACE FUNCTION ${NAME}() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_notify('${NAME}', coalesce(NEW.extra, '')); RETURN NULL; END $$`);
    await this.client.query(`CREATE TRIGGER ${NAME} AFTER INSERT OR UPDATE ON "user" FOR EACH ROW EXECUTE FUNCTION ${NAME}()`);
    await this.client.query(`ALTER TABLE "user" ENABLE ALWAYS TRIGGER ${NAME}`);
    await this.client.query(`LISTEN ${NAME}`);
  }

  /** When the change with that marker became visible here. @throws E_LAB_STEP when it does not within ARRIVAL_MS. */
  seen(marker: string): Promise<number> {
    const before = this.#seen.get(marker);
    if (before !== undefined) return Promise.resolve(before);
    return new Promise((resolve, reject) => {
      const cancel = systemClock.after(ARRIVAL_MS, () => reject(new OperatingError("E_LAB_STEP", `${marker} did not arrive`)));
      this.#waiting.set(marker, (atMs) => {
        cancel();
        resolve(atMs);
      });
    });
  }

  async close(): Promise<void> {
    await this.client.query(`DROP TRIGGER IF EXISTS ${NAME} ON "user"`);
    await this.client.query(`DROP FUNCTION IF EXISTS ${NAME}()`);
    await this.client.end();
  }
}

/** A database on the same server that subscribes to one user of the centre's. Its slot is made apart: on one server, making
 * both in one step waits for itself for ever (CREATE SUBSCRIPTION, notes). */
async function subscribe(centre: pg.Client, access: DatabaseAccess, user: string): Promise<Watch> {
  const { host, port, user: account, password, name } = access;
  await centre.query(`CREATE DATABASE ${NAME}`);
  const subscriber = await openDatabase({ ...access, name: NAME });
  await subscriber.query(`CREATE TABLE "user" (id varchar(64) PRIMARY KEY, extra text, enabled boolean,
    default_project_id varchar(64), created_at timestamp, last_active_at date, domain_id varchar(64) NOT NULL)`);
  const { rows: [row] } = await centre.query<{ written: string }>(`SELECT row_to_json("user")::text AS written FROM "user"
    WHERE id = $1`, [user]);
  await subscriber.query(`INSERT INTO "user" SELECT * FROM json_populate_record(NULL::"user", $1)`, [row?.written]);
  await centre.query(`CREATE PUBLICATION ${NAME} FOR TABLE "user" WHERE (id = '${user}')`);
  await centre.query(`SELECT pg_create_logical_replication_slot('${NAME}', 'pgoutput')`);
  const conninfo = `host=${host} port=${port} user=${account} password=${password.reveal()} dbname=${name}`;
  await subscriber.query(`CREATE SUBSCRIPTION ${NAME} CONNECTION '${conninfo}' PUBLICATION ${NAME}
    WITH (create_slot = false, slot_name = '${NAME}', copy_data = false)`);
  const watch = new Watch(subscriber);
  await watch.open();
  return watch;
}

async function unsubscribe(centre: pg.Client, subscriber: Watch): Promise<void> {
  await subscriber.client.query(`DROP SUBSCRIPTION ${NAME}`);
  await subscriber.client.end();
  await centre.query(`DROP PUBLICATION ${NAME}`);
  await centre.query(`DROP DATABASE ${NAME} WITH (FORCE)`);
}

/** How one change is made and where it arrives. `change` resolves when its maker was answered. */
interface Way {
  readonly name: string;
  readonly change: (marker: string) => Promise<unknown>;
  readonly target: Watch;
}

interface Times {
  readonly fromCommitMs: number[];
  readonly fromAnswerMs: number[];
}

async function timeWays(ways: readonly Way[], centre: Watch, changes: number): Promise<readonly Times[]> {
  const times = ways.map((): Times => ({ fromCommitMs: [], fromAnswerMs: [] }));
  for (let turn = 0; turn < WARM_UP_CHANGES + changes; turn += 1) {
    for (const way of turns(ways, turn)) {
      await sleep(systemClock, GAP_MS);
      const place = ways.indexOf(way);
      const marker = `change-${place}-${turn}`;
      const [committedMs, visibleMs, answeredMs] = await Promise.all([centre.seen(marker), way.target.seen(marker),
        way.change(marker).then(() => systemClock.monotonicMs())]);
      if (turn < WARM_UP_CHANGES) continue;
      times[place]?.fromCommitMs.push(visibleMs - committedMs);
      times[place]?.fromAnswerMs.push(visibleMs - answeredMs);
    }
  }
  return times;
}

function figuresOf({ fromCommitMs, fromAnswerMs }: Times, native: Times | undefined): Figures {
  const at = (samples: readonly number[], share: number): number => percentile(samples, share);
  return { "from commit p50 ms": at(fromCommitMs, 0.5), "from commit p99 ms": at(fromCommitMs, 0.99),
    "from answer p50 ms": at(fromAnswerMs, 0.5), "from answer p99 ms": at(fromAnswerMs, 0.99),
    // From the answer: replication starts when the commit is written, before anybody can be told that it is done.
    "from answer p50 ÷ native": at(fromAnswerMs, 0.5) / at(native?.fromAnswerMs ?? [Number.NaN], 0.5) };
}

/** The table of the way from commit to visible. */
export async function benchVisible(stage: Stage, effort: Effort): Promise<Table> {
  const { lab, users, children, folder, nodeOptions } = stage;
  const [nativeUser, fastUser, realUser] = users.map((user) => present(user, "users are there"));
  const upstreamPort = await startOneUpdate(stage);
  const fast = await startProxy(children, { name: "proxy-visible", upstreamPort, capture: true, lab, folder, nodeOptions });
  const centre = new Watch(await openDatabase(lab.databases.centre));
  const site = new Watch(await openDatabase(lab.databases.edge1));
  const writer = await openDatabase(lab.databases.centre);
  // The lab's server acknowledges commits before their log is written; replication sends what is written, up to 200 ms later
  // (wal_writer_delay). A production server does not have that delay, so the change that is replicated does without.
  await writer.query("SET synchronous_commit = on");
  const caller = new Caller();
  const patch = (port: number, user: string | undefined) => (marker: string): Promise<unknown> =>
    caller.call(describing(stage, port, present(user, "users are there"), marker));
  await Promise.all([centre.open(), site.open()]);
  const native = await subscribe(writer, lab.databases.centre, present(nativeUser, "users are there"));
  try {
    const ways: readonly Way[] = [
      { name: "PostgreSQL's logical replication, UPDATE", target: native, change: (marker) =>
        writer.query(`UPDATE "user" SET extra = $2 WHERE id = $1`, [nativeUser, JSON.stringify({ description: marker })]) },
      { name: "Holdfast, upstream of one UPDATE", target: site, change: patch(fast.port, fastUser) },
      { name: "Holdfast, Keystone", target: site, change: patch(Number(new URL(lab.endpoints.centre.proxy).port), realUser) },
    ];
    const times = await timeWays(ways, centre, effort.changes);
    const rows = ways.map(({ name }, place) => ({ variant: name,
      figures: figuresOf(present(times[place], "each way was timed"), times[0]) }));
    stage.say("measured: commit to visible");
    const columns = Object.keys(rows[0]?.figures ?? {});
    return { title: "From the centre's commit to the row in the site's database", columns, rows };
  } finally {
    caller.close();
    await unsubscribe(writer, native);
    await Promise.all([centre.close(), site.close()]);
    await writer.end();
  }
}
