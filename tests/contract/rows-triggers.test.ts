/**
 * Triggers on PostgreSQL, MariaDB and in the memory twin keep their contract; and what only real servers show: SQL past the port,
 * users without rights, damaged installations, busy tables. Method: private servers with Keystone's tables as recorded.
 */
import assert from "node:assert/strict";
import mysql from "mysql2/promise";
import pg from "pg";
import { systemClock } from "../../core/clock.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { systemRandom } from "../../core/random.ts";
import { openMariadb } from "../../rows/mariadb.ts";
import { memoryRows } from "../../rows/memory.ts";
import { openPostgres } from "../../rows/postgres.ts";
import { MARKS_TABLE } from "../../rows/trigger-plan.ts";
import type { Rows } from "../../rows/rows.ts";
import { schemaMismatches } from "../../rows/verify.ts";
import { keystone } from "../../schemas/keystone.ts";
import { keystoneCascades, keystoneTables } from "../support/keystone-tables.ts";
import { mariadbMissing, privateMariadb } from "../support/mariadb.ts";
import { missing, postgresMissing, privatePostgres, type PrivateDatabase } from "../support/postgres.ts";
import { refused } from "./rows-samples.ts";
import { insertOne, insertUser, takeMarks, triggersSuite } from "./rows-triggers.suite.ts";

const world = { clock: systemClock, random: systemRandom, log: silentLog, metrics: noMetrics };

type Execute = (sql: string) => Promise<readonly Record<string, unknown>[]>;

/** A database with Keystone's tables and SQL past the port. */
interface Place {
  readonly rows: Rows;
  readonly sql: Execute;
  readonly database: PrivateDatabase;
}

/** The marks that one statement past the port leaves. */
async function marksOfSql({ rows, sql }: Place, statement: string): Promise<readonly string[]> {
  await takeMarks(rows);
  await sql(statement);
  return takeMarks(rows);
}

function bothEnginesSuite(open: () => Place, quote: (name: string) => string): void {
  const [user, localUser, marks] = ["user", "local_user", MARKS_TABLE.name].map(quote);

  it("the tables are what the service file describes, with and without triggers", async () => {
    const live = await open().rows.reflect();
    assert.deepEqual(schemaMismatches(keystone, live), []);
  });

  it("a changed key marks the old name and the new one, a moved row both of its owners", async () => {
    const place = open();
    await place.rows.transaction(async (write) => {
      await insertOne(write, "user", { id: "old", domain_id: "d" });
      for (const id of ["p1", "p2"]) await insertOne(write, "project", { id, domain_id: id, name: id, parent_id: id });
      await insertOne(write, "project_tag", { project_id: "p1", name: "tag" });
    });
    const changed = await marksOfSql(place, `UPDATE ${user} SET id = 'new' WHERE id = 'old'`);
    assert.deepEqual(changed.filter((mark) => mark.startsWith("user ")), ["user [\"new\"]", "user [\"old\"]"]);
    const moved = await marksOfSql(place, "UPDATE project_tag SET project_id = 'p2'");
    assert.deepEqual(moved, ["project [\"p1\"]", "project [\"p2\"]"]);
    await place.sql(`DELETE FROM project_tag; DELETE FROM ${user} WHERE id = 'new'`);
  });

  it("an owner that two tables lead to is found when the row between moves", async () => {
    const place = open();
    await place.rows.transaction(async (write) => {
      await insertUser(write, "first");
      await insertOne(write, "user", { id: "second", domain_id: "default" });
    });
    assert.deepEqual(await marksOfSql(place, `UPDATE ${localUser} SET user_id = 'second' WHERE user_id = 'first'`),
      ["user [\"first\"]", "user [\"second\"]"]);
    assert.deepEqual(await marksOfSql(place, "UPDATE password SET password_hash = 'other'"), ["user [\"second\"]"]);
    assert.deepEqual(await marksOfSql(place, `DELETE FROM ${user} WHERE domain_id = 'default'`),
      ["user [\"first\"]", "user [\"second\"]"]);
  });

  it("a table of marks that somebody dropped stops nobody's write, is noticed and put back", async () => {
    const place = open();
    const triggers = place.rows.triggers(keystone);
    await place.sql(`DROP TABLE ${marks}`);
    await place.rows.transaction(async (write) => {
      await insertUser(write, "unmarked");
      await insertOne(write, "identity_provider", { id: "unmarked", domain_id: "d" });
    });
    await place.sql("DELETE FROM identity_provider");
    assert.deepEqual(await triggers.missing(), [`table ${MARKS_TABLE.name} is missing`]);
    await triggers.install();
    assert.deepEqual(await marksOfSql(place, `DELETE FROM ${user} WHERE id = 'unmarked'`), ["user [\"unmarked\"]"]);
  });

  it("what can be installed can be printed, and removed without a trace", async () => {
    const place = open();
    const triggers = place.rows.triggers(keystone);
    await triggers.remove();
    await triggers.remove();
    assert.equal((await place.rows.reflect()).some(({ name }) => name === MARKS_TABLE.name), false);
    const script = await triggers.script();
    const made = ["holdfast_user_insert", "holdfast_password_update", MARKS_TABLE.name];
    assert.deepEqual(made.filter((name) => !script.includes(name)), []);
    await place.rows.transaction((write) => insertOne(write, "region", { id: "unmarked" }));
    await triggers.install();
    assert.deepEqual(await triggers.missing(), []);
    assert.deepEqual(await marksOfSql(place, "DELETE FROM region"), ["region [\"unmarked\"]"]);
  });
}

describe("triggers", function () {
  this.timeout(60_000);

  describe("in memory", () => {
    const rows = memoryRows([...keystone.tables.values()], { cascades: keystoneCascades() });
    triggersSuite(() => ({ rows }));
  });

  describe("on PostgreSQL", () => {
    let place: Place;
    before(async function () {
      const reason = postgresMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privatePostgres();
      const database = await server.createDatabase();
      await server.execute(database.database, keystoneTables("postgres"));
      place = { rows: openPostgres({ engine: "postgres", ...database }, world), database,
        sql: (sql) => server.execute(database.database, sql) };
    });
    after(() => place?.rows.close());
    triggersSuite(() => place);
    bothEnginesSuite(() => place, (name) => `"${name}"`);
    postgresSuite(() => place);
  });

  describe("on MariaDB", () => {
    let place: Place;
    before(async function () {
      const reason = mariadbMissing();
      if (reason !== undefined) missing(this, reason);
      const server = await privateMariadb();
      const database = await server.createDatabase();
      await server.execute(database.database, keystoneTables("mariadb"));
      place = { rows: openMariadb({ engine: "mariadb", ...database }, world), database,
        sql: (sql) => server.execute(database.database, sql) };
    });
    after(() => place?.rows.close());
    triggersSuite(() => place);
    bothEnginesSuite(() => place, (name) => `\`${name}\``);
    mariadbSuite(() => place);
  });
});

function postgresSuite(open: () => Place): void {
  it("a truncated table marks its kind, and what the truncation takes along", async () => {
    const place = open();
    await place.rows.transaction((write) => insertUser(write, "gone"));
    const marks = await marksOfSql(place, "TRUNCATE \"user\" CASCADE");
    assert.deepEqual(marks, ["expiring_user_group_membership (all)", "user (all)", "user_group_membership (all)"]);
  });

  it("a service with rights on its own tables alone goes on working, whatever its search path", async () => {
    const place = open();
    const { host, port, database } = place.database;
    await place.sql(`CREATE ROLE service_${database} LOGIN; GRANT USAGE ON SCHEMA public TO service_${database};
      GRANT SELECT, INSERT, UPDATE, DELETE ON "user", local_user, password, identity_provider TO service_${database}`);
    const client = new pg.Client({ host, port, database, user: `service_${database}` });
    await client.connect();
    try {
      await takeMarks(place.rows);
      await client.query("SET search_path = pg_temp, public; SET datestyle = 'SQL, DMY'");
      await client.query("CREATE TEMP TABLE holdfast_dirty (kind int)");
      await client.query("INSERT INTO \"user\" (id, domain_id) VALUES ('limited', 'd')");
      await client.query("INSERT INTO local_user (user_id, domain_id, name) VALUES ('limited', 'd', 'limited')");
      await client.query(`INSERT INTO password (local_user_id, self_service, created_at_int, created_at)
        SELECT id, true, 1, now() FROM local_user`);
      await client.query("DELETE FROM \"user\"");
      await assert.rejects(client.query("SELECT * FROM public.holdfast_dirty"), /permission denied/);
      assert.deepEqual(await takeMarks(place.rows), ["user [\"limited\"]"]);
    } finally {
      await client.end();
    }
  });

  it("a disabled, changed or lost trigger is noticed and put right; triggers of others are left alone", async () => {
    const { rows, sql } = open();
    const triggers = rows.triggers(keystone);
    await sql(`CREATE FUNCTION others() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
      CREATE TRIGGER others BEFORE INSERT ON "user" FOR EACH ROW EXECUTE FUNCTION others();
      ALTER TABLE "user" DISABLE TRIGGER holdfast_user_update;
      DROP TRIGGER holdfast_role_insert ON role;
      CREATE OR REPLACE FUNCTION holdfast_group_delete() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE FUNCTION holdfast_older() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE TRIGGER holdfast_older AFTER INSERT ON token FOR EACH ROW EXECUTE FUNCTION holdfast_older()`);
    const differs = ["user_update", "group_delete"].map((name) => `trigger holdfast_${name} is not as the service file says`);
    assert.deepEqual(await triggers.missing(), ["trigger holdfast_role_insert is missing", ...differs]);
    await triggers.install();
    assert.deepEqual(await triggers.missing(), []);
    const left = async (): Promise<readonly unknown[]> =>
      (await sql("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname !~ '_(insert|update|delete|truncate)$'"))
        .map((row) => row["tgname"]);
    assert.deepEqual(await left(), ["others"]);
    await triggers.remove();
    const functions = await sql("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace");
    assert.deepEqual([...await left(), ...functions.map((row) => row["proname"])], ["others", "others"]);
    await triggers.install();
    await sql("DROP TRIGGER others ON \"user\"; DROP FUNCTION others()");
  });

  it("a table in use is not waited for, and nothing is half installed", async () => {
    const { rows, database, sql } = open();
    const triggers = rows.triggers(keystone);
    await triggers.remove();
    const client = new pg.Client({ host: database.host, port: database.port, database: database.database, user: database.user });
    await client.connect();
    try {
      await client.query("BEGIN; DELETE FROM role");
      await refused("E_ROWS_CONTENDED", triggers.install());
      assert.deepEqual(await sql("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"), []);
      await client.query("ROLLBACK");
    } finally {
      await client.end();
    }
    await triggers.install();
    assert.deepEqual(await triggers.missing(), []);
  });
}

function mariadbSuite(open: () => Place): void {
  it("a service with rights on its own tables alone goes on working, and is told its own counted keys", async () => {
    const place = open();
    const { host, port, database } = place.database;
    await place.sql(`CREATE USER 'service'@'127.0.0.1' IDENTIFIED BY 'x';
      ${["user", "local_user", "password", "identity_provider"].map((table) =>
        `GRANT SELECT, INSERT, UPDATE, DELETE ON ${database}.\`${table}\` TO 'service'@'127.0.0.1';`).join("\n")}`);
    const client = await mysql.createConnection({ host, port, database, user: "service", password: "x" });
    try {
      await takeMarks(place.rows);
      await client.query("INSERT INTO `user` (id, domain_id) VALUES ('limited', 'd')");
      const [made] = await client.query<mysql.ResultSetHeader>(
        "INSERT INTO local_user (id, user_id, domain_id, name) VALUES (NULL, 'limited', 'd', 'limited')");
      const [found] = await client.query<mysql.RowDataPacket[]>(
        "SELECT id, LAST_INSERT_ID() AS told FROM local_user WHERE user_id = 'limited'");
      assert.deepEqual([made.insertId, found[0]?.["told"], made.warningStatus], [found[0]?.["id"], found[0]?.["id"], 0]);
      const [none] = await client.query<mysql.ResultSetHeader>("UPDATE `user` SET enabled = 0");
      assert.deepEqual([none.insertId, none.affectedRows], [0, 1]);
      await client.query("DELETE FROM `user`");
      await assert.rejects(client.query("SELECT * FROM holdfast_dirty"), /denied/);
      assert.deepEqual(await takeMarks(place.rows), ["user [\"limited\"]"]);
    } finally {
      await client.end();
    }
  });

  it("a foreign key that follows a changed key marks the kinds that may follow", async () => {
    const place = open();
    await place.rows.transaction((write) => insertOne(write, "user", { id: "before", domain_id: "d" }));
    assert.deepEqual(await marksOfSql(place, "UPDATE `user` SET id = 'after' WHERE id = 'before'"),
      ["expiring_user_group_membership (all)", "user [\"after\"]", "user [\"before\"]", "user_group_membership (all)"]);
    await place.sql("DELETE FROM `user`");
  });

  it("a changed or lost trigger is noticed and put right; triggers of others are left alone", async () => {
    const { rows, sql } = open();
    const triggers = rows.triggers(keystone);
    await sql(`CREATE TRIGGER others BEFORE INSERT ON \`user\` FOR EACH ROW SET @others = 1;
      DROP TRIGGER holdfast_role_insert;
      CREATE OR REPLACE TRIGGER holdfast_group_delete BEFORE DELETE ON \`group\` FOR EACH ROW SET @others = 1;
      CREATE TRIGGER holdfast_older AFTER INSERT ON token FOR EACH ROW SET @others = 1`);
    assert.deepEqual(await triggers.missing(),
      ["trigger holdfast_role_insert is missing", "trigger holdfast_group_delete is not as the service file says"]);
    await triggers.install();
    assert.deepEqual(await triggers.missing(), []);
    const names = async (): Promise<readonly unknown[]> =>
      (await sql("SELECT trigger_name AS name FROM information_schema.triggers WHERE trigger_schema = DATABASE()"))
        .map((row) => row["name"]);
    assert.equal((await names()).includes("holdfast_older"), false);
    await triggers.remove();
    assert.deepEqual(await names(), ["others"]);
    await triggers.install();
    await sql("DROP TRIGGER others");
  });

  it("a table in use is not waited for long, and what broke off is finished later", async () => {
    const { rows, database } = open();
    const triggers = rows.triggers(keystone);
    await triggers.remove();
    const client = await mysql.createConnection({ host: database.host, port: database.port, database: database.database,
      user: database.user, password: database.password.reveal() });
    try {
      await client.query("START TRANSACTION");
      await client.query("SELECT * FROM role");
      await refused("E_ROWS_CONTENDED", triggers.install());
      assert.ok((await triggers.missing()).length > 0);
      await client.query("ROLLBACK");
    } finally {
      await client.end();
    }
    await triggers.install();
    assert.deepEqual(await triggers.missing(), []);
  });
}
