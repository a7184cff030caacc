/**
 * What trigger capture costs the service: writes as Keystone makes them, one transaction at a time, on two databases of the same
 * private server, one with triggers and one without, taking turns. Disks are out of it (no fsync), so the ratios are the worst
 * there can be. Prints milliseconds and ratios, medians over rounds: `node --import tsx bench/triggers.ts`.
 */
import mysql from "mysql2/promise";
import pg from "pg";
import { systemClock } from "../core/clock.ts";
import { silentLog } from "../core/log.ts";
import { noMetrics } from "../core/metrics.ts";
import { systemRandom } from "../core/random.ts";
import { openMariadb } from "../rows/mariadb.ts";
import { openPostgres } from "../rows/postgres.ts";
import { keystone } from "../schemas/keystone.ts";
import { keystoneTables } from "../tests/support/keystone-tables.ts";
import { privateMariadb } from "../tests/support/mariadb.ts";
import { privatePostgres, type PrivateDatabase } from "../tests/support/postgres.ts";
import { median, shown, turns } from "./figures.ts";

const ROUNDS = 9;
const TRANSACTIONS = 150;

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

type Execute = (text: string, values: readonly unknown[]) => Promise<unknown>;

/** A connection as a service has it. */
interface Service {
  readonly triggers: boolean;
  readonly execute: Execute;
  readonly end: () => Promise<void>;
}

/**
 * One transaction each, for the user `id`; every statement is one round trip. `$1` is the user, `$2` a text and <n> a
 * number that change. */
const WORK: Readonly<Record<string, readonly string[]>> = {
  "create user (3 rows)": ["INSERT INTO <user> (id, domain_id, enabled, extra) VALUES ($1, 'default', true, '{}')",
    "INSERT INTO local_user (user_id, domain_id, name) VALUES ($1, 'default', $1)",
    `INSERT INTO password (local_user_id, self_service, password_hash, created_at_int, created_at)
      SELECT id, false, 'hash', 1, '2026-01-02 03:04:05' FROM local_user WHERE user_id = $1`],
  "update user": ["UPDATE <user> SET extra = $2 WHERE id = $1"],
  "failed sign-in (local columns)": ["UPDATE local_user SET failed_auth_count = <n> WHERE user_id = $1"],
  "delete user (cascade)": ["DELETE FROM <user> WHERE id = $1"],
};

async function transaction(execute: Execute, work: readonly string[], values: readonly unknown[]): Promise<void> {
  await execute("BEGIN", []);
  for (const text of work) await execute(text, values);
  await execute("COMMIT", []);
}

/** Milliseconds per transaction of each sort of work. */
async function round({ execute }: Service, mark: string): Promise<Readonly<Record<string, number>>> {
  const taken: Record<string, number> = {};
  for (const [name, work] of Object.entries(WORK)) {
    const began = systemClock.monotonicMs();
    for (let user = 0; user < TRANSACTIONS; user += 1) await transaction(execute, work, [`${mark}-${user}`, mark, user + 1]);
    taken[name] = (systemClock.monotonicMs() - began) / TRANSACTIONS;
  }
  return taken;
}

async function postgresService(triggers: boolean): Promise<Service> {
  const server = await privatePostgres();
  const database = await server.createDatabase();
  await server.execute(database.database, keystoneTables("postgres"));
  await prepare(database, "postgres", triggers);
  const client = new pg.Client({ host: database.host, port: database.port, database: database.database, user: database.user });
  await client.connect();
  return { triggers, end: () => client.end(), execute: (text, values) => {
    // PostgreSQL wants every value to be used.
    const used = text.includes("$2") ? 2 : text.includes("$1") ? 1 : 0;
    return client.query(text.replaceAll("<user>", "\"user\"").replace("<n>", String(values[2])), values.slice(0, used));
  } };
}

async function mariadbService(triggers: boolean): Promise<Service> {
  const server = await privateMariadb();
  const database = await server.createDatabase();
  await server.execute(database.database, keystoneTables("mariadb"));
  await prepare(database, "mariadb", triggers);
  const client = await mysql.createConnection({ host: database.host, port: database.port, database: database.database,
    user: database.user, password: database.password.reveal() });
  return { triggers, end: () => client.end(), execute: (text, values) => {
    const bound = [...text.matchAll(/\$(\d)/g)].map(([, place]) => values[Number(place) - 1]);
    return client.query(text.replaceAll("<user>", "`user`").replace("<n>", String(values[2])).replaceAll(/\$\d/g, "?"), bound);
  } };
}

async function prepare(database: PrivateDatabase, engine: "postgres" | "mariadb", triggers: boolean): Promise<void> {
  if (!triggers) return;
  const rows = engine === "postgres" ? openPostgres({ engine, ...database }, world) : openMariadb({ engine, ...database }, world);
  await rows.triggers(keystone).install();
  await rows.close();
}

async function measure(engine: string, services: readonly Service[]): Promise<readonly string[]> {
  const samples = new Map<string, { readonly without: number; readonly with: number }[]>();
  for (let turn = 0; turn <= ROUNDS; turn += 1) {
    const taken = new Map<boolean, Readonly<Record<string, number>>>();
    for (const service of turns(services, turn)) taken.set(service.triggers, await round(service, `round${turn}`));
    for (const service of services) if (service.triggers) await service.execute("DELETE FROM holdfast_dirty", []);
    // The first round warms up.
    for (const name of turn === 0 ? [] : Object.keys(WORK)) {
      const sample = { without: taken.get(false)?.[name] ?? 0, with: taken.get(true)?.[name] ?? 0 };
      samples.set(name, [...samples.get(name) ?? [], sample]);
    }
  }
  return [...samples].map(([name, found]) => {
    const [without, withThem] = [median(found.map((each) => each.without)), median(found.map((each) => each.with))];
    const ratio = median(found.map((each) => each.with / each.without));
    const extra = median(found.map((each) => (each.with - each.without) * 1000));
    return [engine.padEnd(10), name.padEnd(32), shown(without).padStart(8), shown(withThem).padStart(8), shown(ratio).padStart(6),
      shown(extra).padStart(8)].join("  ");
  });
}

process.stdout.write(`${"".padEnd(10)}  ${"".padEnd(32)}   without      with   ratio  extra µs\n`);
for (const [engine, open] of [["PostgreSQL", postgresService], ["MariaDB", mariadbService]] as const) {
  const services = [await open(false), await open(true)];
  for (const line of await measure(engine, services)) process.stdout.write(`${line}\n`);
  for (const service of services) await service.end();
}
