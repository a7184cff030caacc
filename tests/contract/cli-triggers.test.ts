/**
 * Goal: `holdfast triggers` leaves a database with or without triggers as it was told, says so in its exit status, and prints SQL
 * that the engine's own client runs. Method: the commands in this process on private servers with Keystone's tables.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { triggerCommands } from "../../cli/triggers.ts";
import { systemClock } from "../../core/clock.ts";
import { isOperating } from "../../core/errors.ts";
import { keystoneTables } from "../support/keystone-tables.ts";
import { mariadbMissing, privateMariadb } from "../support/mariadb.ts";
import { missing, postgresMissing, privatePostgres, type PrivateDatabase } from "../support/postgres.ts";

interface Ran {
  readonly exit: number | undefined;
  readonly said: string;
}

async function run(...words: readonly string[]): Promise<Ran> {
  const ran = { exit: undefined as number | undefined, said: "" };
  const program = new Command("holdfast").exitOverride();
  triggerCommands(program, { clock: systemClock, terminal: { isTTY: false, columns: 80, write: () => true },
    say: (text) => void (ran.said += `${text}\n`), complain: () => undefined, finish: (exit) => void (ran.exit = exit) });
  await program.parseAsync(["triggers", ...words], { from: "user" });
  return ran;
}

/** A syncd.yaml for the database; `changes` replaces lines. */
function written(folder: string, engine: string, database: PrivateDatabase, role = "centre", capture = "both"): string {
  const file = join(folder, `syncd-${engine}-${role}-${capture}.yaml`);
  writeFileSync(join(folder, "password"), database.password.reveal(), { mode: 0o600 });
  writeFileSync(file, JSON.stringify({ site: "centre", role, admin: { port: 0 },
    feed: { servers: ["nats://127.0.0.1:1"], user: "centre", password: { file: "password" }, scope: "all" },
    services: [{ service: "keystone", capture, database: { engine, host: database.host, port: database.port,
      name: database.database, user: database.user, password: { file: "password" } } }] }));
  return file;
}

function suite(engine: "postgres" | "mariadb", open: () => { readonly database: PrivateDatabase; readonly folder: string },
  runScript: (sql: string) => Promise<unknown>): void {
  const file = (role?: string, capture?: string): string => written(open().folder, engine, open().database, role, capture);

  it("installs, says so, and removes", async () => {
    const config = file();
    const before = await run("status", "--config", config);
    assert.equal(before.exit, 1);
    assert.match(before.said, /keystone\s+not installed\s+table holdfast_dirty is missing, .*, and \d+ more/);
    assert.equal((await run("install", "--config", config)).exit, 0);
    const after = await run("status", "--config", config, "--service", "keystone", "--json");
    assert.deepEqual([after.exit, JSON.parse(after.said)], [0, [{ service: "keystone", installed: true, missing: [] }]]);
    assert.equal((await run("remove", "--config", config)).exit, 0);
    assert.equal((await run("status", "--config", config)).exit, 1);
  });

  it("prints SQL that the engine's client runs, to the same end", async () => {
    const config = file();
    const printed = await run("install", "--config", config, "--print");
    assert.equal((await run("status", "--config", config)).exit, 1);
    await runScript(printed.said);
    assert.equal((await run("status", "--config", config)).exit, 0);
    await run("remove", "--config", config);
  });

  it("installs nothing at a site, nothing that nobody would drain, and nothing for a service that is not there", async () => {
    const isMistake = (error: unknown): boolean => isOperating(error, "E_CONFIG");
    await assert.rejects(run("install", "--config", file("site", "both")), isMistake);
    await assert.rejects(run("install", "--config", file("centre", "proxy")), isMistake);
    await assert.rejects(run("status", "--config", file(), "--service", "nova"), isMistake);
    assert.equal((await run("remove", "--config", file("site", "proxy"))).exit, 0);
  });
}

describe("holdfast triggers", function () {
  this.timeout(60_000);
  let folder: string;
  let database: PrivateDatabase;
  before(() => void (folder = mkdtempSync(join(tmpdir(), "holdfast-triggers-"))));
  after(() => rmSync(folder, { recursive: true, force: true }));

  describe("on PostgreSQL", () => {
    before(async function () {
      const reason = postgresMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privatePostgres();
      database = await server.createDatabase();
      await server.execute(database.database, keystoneTables("postgres"));
    });
    suite("postgres", () => ({ database, folder }), async (sql) => (await privatePostgres()).execute(database.database, sql));
  });

  describe("on MariaDB", () => {
    before(async function () {
      const reason = mariadbMissing() ?? (existsSync("/usr/bin/mariadb") ? undefined : "no client at /usr/bin/mariadb");
      if (reason !== undefined) missing(this, reason);
      const server = await privateMariadb();
      database = await server.createDatabase();
      await server.execute(database.database, keystoneTables("mariadb"));
    });
    suite("mariadb", () => ({ database, folder }), (sql) => {
      const { host, port, user, database: name, password } = database;
      const client = spawnSync("/usr/bin/mariadb", ["--no-defaults", "-h", host, "-P", String(port), "-u", user, name],
        { input: sql, encoding: "utf8", env: { ...process.env, MYSQL_PWD: password.reveal() } });
      assert.equal(client.status, 0, client.stderr);
      return Promise.resolve();
    });
  });
});
