/**
 * Goal: the plan behind triggers follows ownership and cascades wherever a service file may lead, also where Keystone's does not.
 * Method: small services, and what the plan says about them in words.
 */
import assert from "node:assert/strict";
import { hashOf, wayOf } from "../../rows/trigger-sql.ts";
import { planMarks, triggerName, type TableMarks, type Trail } from "../../rows/trigger-plan.ts";
import type { LiveTable } from "../../rows/rows.ts";
import { present } from "../../core/assert.ts";
import { defineService, type KindDeclaration, type Service, type TableDeclaration } from "../../schemas/define.ts";
import { keystone } from "../../schemas/keystone.ts";

function serviceOf(tables: Readonly<Record<string, TableDeclaration>>, kinds: Readonly<Record<string, KindDeclaration>>,
): Service {
  return defineService({ name: "small", catalogType: "small", errorShape: "keystone", tables, kinds, local: {}, captures: [],
    leaves: [], migrations: { table: "revision", column: "number", verified: ["1"] },
    paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false } });
}

/** The live tables of a service whose foreign keys all do the same on delete, but for those of some tables. */
function liveTables(service: Service, onDelete: (table: string) => string): readonly LiveTable[] {
  return [...service.tables.values()].map(({ name, key, unique, references }) => ({ name, columns: [], key, unique,
    references: references.filter(({ hard }) => hard).map(({ columns, table, to }) =>
      ({ columns, table, to, onDelete: onDelete(name) })) }));
}

function inWords({ kind, steps, names }: Trail): string {
  const way = steps.map(({ table, on }) => `${table}(${on.map(([here, before]) => `${here}=${before}`).join()})`);
  const named = names === undefined ? "all" : names.map(({ step, column }) => `${step}.${column}`).join();
  return [...way, `${kind}:${named}`].join(" → ");
}

function planned(service: Service, table: string, onDelete: (name: string) => string = () => "cascade"): TableMarks {
  return present(planMarks(service, liveTables(service, onDelete)).find((marks) => marks.table.name === table), table);
}

const child = (by: string, to: string): TableDeclaration => ({ key: ["id"], columns: { id: "text", [by]: "text" },
  references: [{ columns: [by], table: to, to: ["id"], hard: true }] });

describe("the plan of triggers", () => {
  it("uses the column that refers to the owner's name, and goes through tables only where there is none", () => {
    assert.equal(inWords(planned(keystone, "user_option").own), "user:0.user_id");
    assert.equal(inWords(planned(keystone, "password").own), "local_user(id=local_user_id) → user:1.user_id");
    assert.equal(inWords(planned(keystone, "application_credential_role").own),
      "application_credential(internal_id=application_credential_id) → application_credential:1.id");
    assert.deepEqual(planned(keystone, "password").leading, ["local_user_id"]);
  });

  it("leaves what stays at a site out of what counts as a change", () => {
    assert.equal(planned(keystone, "local_user").watched.includes("failed_auth_count"), false);
    assert.equal(planned(keystone, "local_user").watched.includes("name"), true);
  });

  it("follows cascades to rows of other aggregates, and not those that the database refuses", () => {
    const cascading = new Set(["federated_user", "federation_protocol", "idp_remote_ids"]);
    const { dependents } = planned(keystone, "identity_provider", (table) => (cascading.has(table) ? "cascade" : "restrict"));
    assert.deepEqual(dependents.map(inWords), ["federation_protocol(idp_id=id) → federation_protocol:1.id,1.idp_id",
      "federation_protocol(idp_id=id) → federated_user(protocol_id=id,idp_id=idp_id) → user:2.user_id",
      "federated_user(idp_id=id) → user:1.user_id"]);
    assert.deepEqual(planned(keystone, "user", () => "restrict").dependents, []);
  });

  it("ends where a foreign key sets NULL: nothing goes on from there", () => {
    const service = serviceOf({ top: { key: ["id"], columns: { id: "text" } }, middle: child("top_id", "top"),
      low: child("middle_id", "middle") }, { top: { root: "top" }, middle: { root: "middle" }, low: { root: "low" } });
    assert.deepEqual(planned(service, "top").dependents.map(inWords),
      ["middle(top_id=id) → middle:1.id", "middle(top_id=id) → low(middle_id=id) → low:2.id"]);
    assert.deepEqual(planned(service, "top", (table) => (table === "middle" ? "set null" : "cascade")).dependents.map(inWords),
      ["middle(top_id=id) → middle:1.id"]);
  });

  it("marks a whole kind where a tree of rows has no end that SQL could name", () => {
    const service = serviceOf({ node: { key: ["id"], columns: { id: "text", parent_id: "text?" },
      references: [{ columns: ["parent_id"], table: "node", to: ["id"], hard: true }] } }, { node: { root: "node" } });
    assert.deepEqual(planned(service, "node").dependents.map(inWords), ["node(parent_id=id) → node:all"]);
  });

  it("marks a whole kind whose name the engines would write differently", () => {
    const service = serviceOf({ moment: { key: ["at"], columns: { at: "datetime" } } }, { moment: { root: "moment" } });
    assert.equal(inWords(planned(service, "moment").own), "moment:all");
  });

  it("names the kinds that may follow a changed key, through other tables too, but not the row's own aggregate", () => {
    assert.deepEqual(planned(keystone, "user").rekeyed.map(({ columns, kinds }) => [columns.join(), [...kinds].sort().join()]),
      [["id", "expiring_user_group_membership,user_group_membership"]]);
    assert.deepEqual(planned(keystone, "identity_provider").rekeyed.map(({ kinds }) => [...kinds].sort()),
      [["expiring_user_group_membership", "federation_protocol", "user"]]);
  });

  it("leads a trail through joins, with conditions on names that may be NULL", () => {
    const quote = (name: string): string => `<${name}>`;
    assert.deepEqual(wayOf(planned(keystone, "password").own, "NEW", quote, quote),
      { from: "<local_user> t1", where: ["t1.<id> = NEW.<local_user_id>"] });
    assert.deepEqual(wayOf(planned(keystone, "idp_remote_ids").own, "OLD", quote, quote),
      { from: undefined, where: ["OLD.<idp_id> IS NOT NULL"] });
  });
});

describe("the names of triggers", () => {
  it("say table and event, fit both engines, and stay apart when shortened", () => {
    assert.equal(triggerName("user", "insert", hashOf), "holdfast_user_insert");
    const long = ["a", "b"].map((end) => triggerName(`${"x".repeat(70)}${end}`, "truncate", hashOf));
    assert.equal(new Set(long).size, 2);
    for (const name of [...long, triggerName("ö".repeat(60), "insert", hashOf)]) {
      assert.ok(Buffer.byteLength(name) <= 63 && name.startsWith("holdfast_"), name);
    }
  });
});
