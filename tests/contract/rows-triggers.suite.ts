/**
 * The contract of triggers (rows/triggers.ts), registered for every adapter on Keystone's own tables. Goal: whoever changes a row
 * that travels, by whatever way, has marked the aggregate it belongs to, in the same transaction; whoever changes none has not.
 * Method: rows are written as a service would, then the marks are read and compared, repeats left out.
 */
import assert from "node:assert/strict";
import { MARKS_TABLE } from "../../rows/trigger-plan.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import { keystone } from "../../schemas/keystone.ts";
import { present } from "../../core/assert.ts";
import type { Table } from "../../schemas/define.ts";
import type { Row } from "../../schemas/row.ts";

/** One adapter with Keystone's tables in it. */
export interface TriggersHarness {
  readonly rows: Rows;
}

const named = (name: string): Table => present(keystone.tables.get(name), name);

/** A row of a table with the columns given; the others get something that fits. */
export function rowOf(name: string, given: Row): Row {
  const fitting: Readonly<Record<string, Row[string]>> = { text: "x", integer: 1, bigint: "1", boolean: true,
    datetime: "2026-01-02T03:04:05.000000", date: "2026-01-02" };
  const { columns, counted } = named(name);
  const written = Object.entries(columns).filter(([column]) => column !== counted || column in given);
  return Object.fromEntries(written.map(([column, type]) =>
    [column, column in given ? given[column] ?? null : type.endsWith("?") ? null : fitting[type] ?? null]));
}

/** Inserts one row, as rowOf. */
export async function insertOne(write: RowWriter, name: string, given: Row): Promise<void> {
  await write.insert(named(name), [rowOf(name, given)]);
}

/** The marks there are, each once, in words; they are taken away. */
export async function takeMarks(rows: Rows): Promise<readonly string[]> {
  return rows.transaction(async (write) => {
    const marks = await write.page(MARKS_TABLE, { limit: 1000 });
    await write.remove(MARKS_TABLE, marks);
    const inWords = (names: Row[string] | undefined): string =>
      (names === null ? "(all)" : JSON.stringify(JSON.parse(String(names))));
    return [...new Set(marks.map(({ kind, names }) => `${String(kind)} ${inWords(names)}`))].sort();
  });
}

/** The marks that `work`, one transaction, leaves. */
export async function marksOf(rows: Rows, work: (write: RowWriter) => Promise<void>): Promise<readonly string[]> {
  await takeMarks(rows);
  await rows.transaction(work);
  return takeMarks(rows);
}

/** A user with everything that its aggregate may hold. */
export async function insertUser(write: RowWriter, id: string): Promise<void> {
  await insertOne(write, "user", { id, domain_id: "default" });
  await insertOne(write, "local_user", { user_id: id, domain_id: "default", name: `name of ${id}`, failed_auth_count: 0 });
  const [local] = await write.select(named("local_user"), { columns: ["user_id"], values: [[id]] });
  await insertOne(write, "password", { local_user_id: local?.["id"] ?? null, password_hash: "hash" });
}

/** Deletes the rows of a table whose column has the value. */
export async function deleteWhere(write: RowWriter, name: string, column: string, value: Row[string]): Promise<void> {
  await write.remove(named(name), await write.select(named(name), { columns: [column], values: [[value]] }));
}

async function updateWhere(write: RowWriter, name: string, column: string, value: Row[string], change: Row): Promise<void> {
  const rows = await write.select(named(name), { columns: [column], values: [[value]] });
  await write.update(named(name), rows.map((row) => ({ ...row, ...change })), Object.keys(change));
}

function ownRowsSuite(open: () => TriggersHarness): void {
  it("an aggregate is marked by its root and by rows that it owns, over two tables too", async () => {
    const { rows } = open();
    assert.deepEqual(await marksOf(rows, (write) => insertUser(write, "u1")), ["user [\"u1\"]"]);
    for (const [name, column, change] of [["user", "id", { enabled: false }], ["local_user", "user_id", { name: "other" }],
      ["password", "password_hash", { expires_at_int: "5" }]] as const) {
      const value = name === "password" ? "hash" : "u1";
      assert.deepEqual(await marksOf(rows, (write) => updateWhere(write, name, column, value, change)), ["user [\"u1\"]"], name);
    }
    assert.deepEqual(await marksOf(rows, (write) => deleteWhere(write, "password", "password_hash", "hash")), ["user [\"u1\"]"]);
    assert.deepEqual(await marksOf(rows, (write) => deleteWhere(write, "user", "id", "u1")), ["user [\"u1\"]"]);
  });

  it("what each site keeps for itself marks nothing, and neither does an update that changes nothing", async () => {
    const { rows } = open();
    await rows.transaction((write) => insertUser(write, "u2"));
    assert.deepEqual(await marksOf(rows, async (write) => {
      const failed = { failed_auth_count: 3, failed_auth_at: "2026-01-02T03:04:05.000000" };
      await updateWhere(write, "local_user", "user_id", "u2", failed);
      await updateWhere(write, "user", "id", "u2", { last_active_at: "2026-01-02" });
      await updateWhere(write, "local_user", "user_id", "u2", { name: "name of u2", domain_id: "default" });
    }), []);
    assert.deepEqual(await marksOf(rows, (write) =>
      updateWhere(write, "local_user", "user_id", "u2", { failed_auth_count: 4, name: "other" })), ["user [\"u2\"]"]);
    await rows.transaction((write) => deleteWhere(write, "user", "id", "u2"));
  });

  it("a change of letter case or of spaces is a change", async () => {
    const { rows } = open();
    await rows.transaction((write) => insertOne(write, "region", { id: "r1", description: "Bob" }));
    for (const description of ["bob", "bob ", "bób"]) {
      const marks = await marksOf(rows, (write) => updateWhere(write, "region", "id", "r1", { description }));
      assert.deepEqual(marks, ["region [\"r1\"]"], description);
    }
    await rows.transaction((write) => deleteWhere(write, "region", "id", "r1"));
  });

  it("a transaction that is rolled back leaves no mark", async () => {
    const { rows } = open();
    await takeMarks(rows);
    await assert.rejects(rows.transaction(async (write) => {
      await insertUser(write, "u3");
      throw new Error("on purpose");
    }), /on purpose/);
    await rows.transaction(async (write) => {
      await insertOne(write, "region", { id: "kept" });
      await write.savepoint(async () => {
        await insertOne(write, "region", { id: "undone" });
        throw new Error("on purpose");
      }).catch(() => undefined);
      await deleteWhere(write, "region", "id", "kept");
    });
    assert.deepEqual(await takeMarks(rows), ["region [\"kept\"]"]);
  });
}

function namesSuite(open: () => TriggersHarness): void {
  it("a mark names the aggregate as the feed does, whatever the key is made of", async () => {
    const { rows } = open();
    const grant = { type: "UserProject", actor_id: "a", target_id: "t", role_id: "r", inherited: false };
    const wanted = ["application_credential [\"shown\"]",
      "assignment [\"UserProject\",\"a\",\"t\",\"r\",\"false\"]", "revocation_event [\"7\"]"];
    assert.deepEqual(await marksOf(rows, async (write) => {
      await insertOne(write, "assignment", grant);
      await insertOne(write, "revocation_event", { id: 7 });
      await insertOne(write, "application_credential", { internal_id: 5, id: "shown", name: "n", user_id: "u" });
      await insertOne(write, "application_credential_role", { application_credential_id: 5, role_id: "r" });
    }), wanted);
    assert.deepEqual(await marksOf(rows, (write) => deleteWhere(write, "application_credential_role", "role_id", "r")),
      ["application_credential [\"shown\"]"]);
    assert.deepEqual(await marksOf(rows, async (write) => {
      await deleteWhere(write, "application_credential", "id", "shown");
      await deleteWhere(write, "assignment", "actor_id", "a");
      await deleteWhere(write, "revocation_event", "id", 7);
    }), wanted);
  });

  it("awkward values arrive as they are", async () => {
    const { rows } = open();
    const awkward = ["it's", "a \"b\" \\ c", "line\nbreak\ttab", "é漢ß", "\u0001\u001f\u007f", "{}",
      "100%", "?", "$1", " ", "null", "a/b<>"];
    await takeMarks(rows);
    await rows.transaction(async (write) => {
      for (const id of awkward) await insertOne(write, "region", { id });
    });
    const marks = await rows.snapshot((read) => read.page(MARKS_TABLE, { limit: 100 }));
    assert.deepEqual(marks.map(({ names }) => (JSON.parse(String(names)) as string[])[0]), awkward);
    await rows.transaction(async (write) => {
      for (const id of awkward) await deleteWhere(write, "region", "id", id);
    });
  });

  it("a row that nothing can name marks nothing", async () => {
    const { rows } = open();
    assert.deepEqual(await marksOf(rows, async (write) => {
      await insertOne(write, "access_rule", { id: 1, external_id: null });
      await insertOne(write, "idp_remote_ids", { idp_id: null, remote_id: "orphan" });
      await deleteWhere(write, "idp_remote_ids", "remote_id", "orphan");
    }), []);
    assert.deepEqual(await marksOf(rows, (write) => updateWhere(write, "access_rule", "id", 1, { external_id: "now named" })),
      ["access_rule [\"now named\"]"]);
    assert.deepEqual(await marksOf(rows, (write) => updateWhere(write, "access_rule", "id", 1, { external_id: "renamed" })),
      ["access_rule [\"now named\"]", "access_rule [\"renamed\"]"]);
    await rows.transaction((write) => deleteWhere(write, "access_rule", "id", 1));
  });
}

function cascadesSuite(open: () => TriggersHarness): void {
  it("aggregates that a cascade takes rows from are marked", async () => {
    const { rows } = open();
    await rows.transaction(async (write) => {
      await insertUser(write, "federated");
      await insertOne(write, "group", { id: "g", domain_id: "d", name: "g" });
      await insertOne(write, "identity_provider", { id: "idp", domain_id: "d" });
      await insertOne(write, "idp_remote_ids", { idp_id: "idp", remote_id: "remote" });
      await insertOne(write, "federation_protocol", { id: "saml", idp_id: "idp", mapping_id: "m" });
      await insertOne(write, "federated_user", { user_id: "federated", idp_id: "idp", protocol_id: "saml", unique_id: "1" });
      await insertOne(write, "expiring_user_group_membership", { user_id: "federated", group_id: "g", idp_id: "idp" });
    });
    assert.deepEqual(await marksOf(rows, (write) => deleteWhere(write, "identity_provider", "id", "idp")),
      ["expiring_user_group_membership [\"federated\",\"g\",\"idp\"]", "federation_protocol [\"saml\",\"idp\"]",
        "identity_provider [\"idp\"]", "user [\"federated\"]"]);
    assert.deepEqual(await rows.snapshot((read) => read.page(named("federated_user"), { limit: 5 })), []);
    await rows.transaction(async (write) => {
      await deleteWhere(write, "user", "id", "federated");
      await deleteWhere(write, "group", "id", "g");
    });
  });

  it("so are those at both ends of a row that belongs to one of them", async () => {
    const { rows } = open();
    await rows.transaction(async (write) => {
      for (const id of ["prior", "implied"]) await insertOne(write, "role", { id, name: id });
      await insertOne(write, "implied_role", { prior_role_id: "prior", implied_role_id: "implied" });
      await insertOne(write, "access_rule", { id: 9, external_id: "rule" });
      await insertOne(write, "application_credential", { internal_id: 9, id: "credential", name: "n", user_id: "u" });
      await insertOne(write, "application_credential_access_rule", { application_credential_id: 9, access_rule_id: 9 });
    });
    assert.deepEqual(await marksOf(rows, (write) => deleteWhere(write, "role", "id", "implied")),
      ["implied_role [\"prior\",\"implied\"]", "role [\"implied\"]"]);
    assert.deepEqual(await marksOf(rows, (write) => deleteWhere(write, "access_rule", "id", 9)),
      ["access_rule [\"rule\"]", "application_credential [\"credential\"]"]);
    await rows.transaction(async (write) => {
      await deleteWhere(write, "role", "id", "prior");
      await deleteWhere(write, "application_credential", "id", "credential");
    });
  });
}

/** Everything that holds on every adapter; triggers are installed when it begins and left so. */
export function triggersSuite(open: () => TriggersHarness): void {
  it("are asked for before they are there, installed twice without harm, and complete then", async () => {
    const triggers = open().rows.triggers(keystone);
    assert.ok((await triggers.missing()).length > 0);
    await triggers.install();
    await triggers.install();
    assert.deepEqual(await triggers.missing(), []);
  });

  ownRowsSuite(open);
  namesSuite(open);
  cascadesSuite(open);
}
