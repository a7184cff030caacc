/**
 * What may befall a fleet beside killed processes: storage that is an older copy, emptied tables, rows changed by hand, disks
 * that are full, processes that hang. Every disaster is done to the test's own folders and processes, and can be undone.
 */
import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sleep, systemClock } from "../../core/clock.ts";
import { run } from "../../lab/commands.ts";
import type { CloudName, EngineName } from "../../lab/options.ts";
import { until } from "../../lab/waiting.ts";
import type { Fleet } from "./fleet.ts";

/** One line for the record: how long it took from the end of a disaster until centre, stream and site were equal. */
export function told(disaster: string, seconds: number, more: object = {}): void {
  console.log(JSON.stringify({ disaster, convergedSeconds: seconds, ...more }));
}

/** A server of the lab whose storage is one folder. */
export type Storing = EngineName | "nats";

function storageOf(fleet: Fleet, server: Storing): string {
  const { state } = fleet.lab.paths;
  return server === "nats" ? join(state, "nats") : join(state, server, "storage");
}

/** Copies a folder with owners and times; what was at `to` is replaced. */
async function copyFolder(fleet: Fleet, from: string, to: string): Promise<void> {
  rmSync(to, { recursive: true, force: true });
  await run(["cp", "-a", from, to], { log: fleet.lab.paths.prepareLog });
}

/** An older copy of one server's storage. */
export class Backup {
  readonly #fleet: Fleet;
  readonly #server: Storing;
  readonly #copy: string;

  private constructor(fleet: Fleet, server: Storing) {
    this.#fleet = fleet;
    this.#server = server;
    this.#copy = `${storageOf(fleet, server)}.backup`;
  }

  /** Stops the server in good order, copies its storage, starts it again. */
  static async take(fleet: Fleet, server: Storing): Promise<Backup> {
    const backup = new Backup(fleet, server);
    await fleet.lab.stopOne(server);
    await copyFolder(fleet, storageOf(fleet, server), backup.#copy);
    await fleet.lab.startOne(server);
    return backup;
  }

  /** Stops the server, puts the copy where its storage was, starts it again. */
  async restore(): Promise<void> {
    const storage = storageOf(this.#fleet, this.#server);
    await this.#fleet.lab.stopOne(this.#server);
    await copyFolder(this.#fleet, this.#copy, storage);
    await this.#fleet.lab.startOne(this.#server);
  }
}

/** Faults that outlast what they are about: they tell a person of something that happened. */
const REMEMBERED: readonly string[] = ["E_STREAM_REGRESSED", "E_CENTRE_RESTORED"];
const CALM_MS = 60_000;

/**
 * After whatever happened: two further audits find nothing, nobody complains any more, and all is still equal.
 * Rejects with what somebody still says.
 */
export async function calm(fleet: Fleet): Promise<void> {
  await fleet.auditor.operate("audit", { now: true });
  const found = JSON.stringify(await fleet.auditor.operate("audit", { now: true }));
  for (const [, count] of found.matchAll(/"(?:missing|stale|superfluous|held)": ?(\d+)/g)) assert.equal(count, "0", found);
  await until({ what: "the end of every complaint", withinMs: CALM_MS, log: fleet.folder }, async () => {
    const open = await Promise.all([fleet.proxy, fleet.auditor, fleet.syncd].map(async (each) =>
      (await each.faults()).filter((code) => !REMEMBERED.includes(code)).map((code) => `${each.plan.name}: ${code}`)));
    if (open.flat().length > 0) throw new Error(open.flat().join(", "));
    return true;
  });
  await fleet.converged();
}

const quoted = (engine: EngineName, name: string): string => (engine === "postgres" ? `"${name}"` : `\`${name}\``);

/** Every table of Keystone's own, as a loop over `statement`, in which %1$I is the table. PostgreSQL. */
function everyTable(statement: string): string {
  return `DO $$ DECLARE t text; BEGIN
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'holdfast%' LOOP
      EXECUTE format('${statement}', t); END LOOP; END $$;`;
}

/**
 * Empties the table `user` of the centre, the classic disaster, and gives the way back. On PostgreSQL everything that refers to
 * users goes with them; on MariaDB, with its checks switched off, only the users themselves.
 */
export async function truncateUsers(fleet: Fleet): Promise<{ readonly undo: () => Promise<void> }> {
  if (fleet.lab.databases.centre.engine === "postgres") {
    await fleet.sql("centre", `CREATE SCHEMA saved; ${everyTable("CREATE TABLE saved.%1$I AS TABLE public.%1$I")}
      TRUNCATE "user" CASCADE;`);
    return { undo: async () => void await fleet.sql("centre", `SET session_replication_role = replica;
      ${everyTable("INSERT INTO public.%1$I SELECT * FROM saved.%1$I ON CONFLICT DO NOTHING")} DROP SCHEMA saved CASCADE;`) };
  }
  await fleet.sql("centre", "CREATE DATABASE saved; CREATE TABLE saved.user AS SELECT * FROM user; " +
    "SET foreign_key_checks = 0; DELETE FROM user;");
  return { undo: async () => void await fleet.sql("centre",
    "SET foreign_key_checks = 0; INSERT INTO user SELECT * FROM saved.user; DROP DATABASE saved;") };
}

/** Rows of a table in a cloud's database that fulfil `where`. */
export async function countOf(fleet: Fleet, cloud: CloudName, table: string, where = "1 = 1"): Promise<number> {
  const name = quoted(fleet.lab.databases[cloud].engine, table);
  return Number(await fleet.sql(cloud, `SELECT count(*) FROM ${name} WHERE ${where};`));
}

/** Changes, removes and adds rows of a cloud by hand; what stands in the database afterwards has passed no API. */
export async function changeByHand(fleet: Fleet, cloud: CloudName, series: string): Promise<void> {
  const { engine } = fleet.lab.databases[cloud];
  const user = quoted(engine, "user");
  const aUser = (place: number): string => `(SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM ${user}
    WHERE extra LIKE '%"email"%') AS numbered WHERE place = ${place})`;
  await fleet.sql(cloud, `
    UPDATE ${user} SET extra = '{"email": "${series}"}' WHERE id = ${aUser(1)};
    DELETE FROM password WHERE local_user_id IN (SELECT id FROM local_user WHERE user_id = ${aUser(2)});
    DELETE FROM ${user} WHERE id = ${aUser(3)};
    INSERT INTO role (id, name, extra, domain_id) VALUES ('${series}', '${series}', '{}', '<<null>>');`);
}

/** Suspends something for a while, and lets it go on. */
export async function suspended(lengthMs: number, suspend: () => unknown, resume: () => unknown): Promise<void> {
  await suspend();
  try {
    await sleep(systemClock, lengthMs);
  } finally {
    await resume();
  }
}

const MEBIBYTE = 1024 * 1024;

/** The stream server's store on a small disk of its own. */
export class SmallStore {
  readonly #fleet: Fleet;
  readonly #folder: string;
  readonly #sizeBytes: number;

  private constructor(fleet: Fleet, sizeBytes: number) {
    this.#fleet = fleet;
    this.#folder = storageOf(fleet, "nats");
    this.#sizeBytes = sizeBytes;
  }

  /** Moves the store to a disk of `mebibytes`; undefined when this machine does not let us make one. */
  static async move(fleet: Fleet, mebibytes: number): Promise<SmallStore | undefined> {
    const small = new SmallStore(fleet, mebibytes * MEBIBYTE);
    const aside = `${small.#folder}.large`;
    await fleet.lab.stopOne("nats");
    renameSync(small.#folder, aside);
    mkdirSync(small.#folder, { mode: 0o700 });
    const words = ["-t", "tmpfs", "-o", `size=${mebibytes}m,mode=0700`, "tmpfs", small.#folder];
    const mounted = spawnSync("mount", words).status === 0;
    if (mounted) await run(["cp", "-a", `${aside}/.`, small.#folder], { log: fleet.lab.paths.prepareLog });
    else {
      rmSync(small.#folder, { recursive: true });
      renameSync(aside, small.#folder);
    }
    rmSync(aside, { recursive: true, force: true });
    await fleet.lab.startOne("nats");
    return mounted ? small : undefined;
  }

  /** Takes all the room that is left. */
  fill(): void {
    try {
      writeFileSync(join(this.#folder, "filler"), Buffer.alloc(this.#sizeBytes));
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    }
  }

  /** Gives it back. */
  free(): void {
    rmSync(join(this.#folder, "filler"), { force: true });
  }

  /** Moves the store back to the large disk; the server is stopped and started. */
  async release(): Promise<void> {
    const aside = `${this.#folder}.small`;
    await this.#fleet.lab.stopOne("nats");
    await copyFolder(this.#fleet, this.#folder, aside);
    spawnSync("umount", [this.#folder]);
    rmSync(this.#folder, { recursive: true, force: true });
    renameSync(aside, this.#folder);
    rmSync(join(this.#folder, "filler"), { force: true });
    await this.#fleet.lab.startOne("nats");
  }
}
