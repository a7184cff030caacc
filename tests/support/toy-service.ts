/**
 * A small service for tests of rooms that know no service: domains, users with secrets, groups, memberships, grants with soft
 * references and a log. Everything that makes a real service hard is in it once: unique names within a domain, owned rows,
 * counted keys, restricting foreign keys, a reference without one, local columns, a pruned log.
 */
import { defineService, every, logOf, one, path, answer, scan, type Service } from "../../schemas/define.ts";

export const TOY_REVISION = "toy1";

export const toy: Service = defineService({
  name: "toy", catalogType: "toy", errorShape: "keystone",
  migrations: { table: "revision", column: "number", verified: [TOY_REVISION] },
  tables: {
    domain: { key: ["id"], columns: { id: "text", name: "text" }, unique: [["name"]] },
    user: { key: ["id"], columns: { id: "text", domain_id: "text", name: "text", seen_at: "datetime?" },
      unique: [["domain_id", "name"]],
      local: { seen_at: null }, references: [{ columns: ["domain_id"], table: "domain", to: ["id"], hard: false }] },
    secret: { key: ["id"], columns: { id: "integer", user_id: "text", hash: "text" }, counted: "id", secret: ["hash"],
      references: [{ columns: ["user_id"], table: "user", to: ["id"], hard: true }] },
    group: { key: ["id"], columns: { id: "text", name: "text" }, unique: [["name"]] },
    membership: { key: ["user_id", "group_id"], columns: { user_id: "text", group_id: "text" },
      references: [{ columns: ["user_id"], table: "user", to: ["id"], hard: true }, { columns: ["group_id"], table: "group",
        to: ["id"], hard: true }] },
    grant: { key: ["actor_id", "target_id"], columns: { actor_id: "text", target_id: "text" },
      references: [{ columns: ["actor_id"], table: "user", to: ["id"], hard: false }] },
    event: { key: ["id"], columns: { id: "integer", user_id: "text?", at: "datetime" }, counted: "id" },
  },
  kinds: {
    domain: { root: "domain" },
    user: { root: "user", owns: [{ table: "secret", by: { user_id: "id" } }],
      urgent: { gone: true, when: { column: "name", values: ["disabled"] } } },
    group: { root: "group" },
    membership: { root: "membership", urgent: { gone: true } },
    grant: { root: "grant", urgent: { gone: true } },
    event: { root: "event", log: { rising: "id" }, urgent: "always" },
  },
  local: {},
  captures: [
    { on: "POST /domains", touches: [one("domain", { id: answer("$.domain.id") })] },
    { on: "PATCH /domains/{domain}", touches: [one("domain", { id: path("domain") })] },
    { on: "POST /users", touches: [one("user", { id: answer("$.user.id") })] },
    { on: "PATCH /users/{user}", touches: [one("user", { id: path("user") }), logOf("event")] },
    { on: "DELETE /users/{user}", touches: [one("user", { id: path("user") }), every("membership", { user_id: path("user") }),
      every("grant", { actor_id: path("user") }), logOf("event")] },
    { on: "POST /groups", touches: [one("group", { id: answer("$.group.id") })] },
    { on: "PATCH /groups/{group}", touches: [one("group", { id: path("group") })] },
    { on: "DELETE /groups/{group}",
      touches: [one("group", { id: path("group") }), every("membership", { group_id: path("group") })] },
    { on: "PUT /groups/{group}/users/{user}", touches: [one("membership", { user_id: path("user"), group_id: path("group") })] },
    { on: "DELETE /groups/{group}/users/{user}",
      touches: [one("membership", { user_id: path("user"), group_id: path("group") }), logOf("event")] },
    { on: "PUT /grants/{user}/{target}", touches: [one("grant", { actor_id: path("user"), target_id: path("target") })] },
    { on: "DELETE /grants/{user}/{target}", touches: [one("grant", { actor_id: path("user"), target_id: path("target") })] },
    { on: "DELETE /domains/{domain}",
      touches: [one("domain", { id: path("domain") }), scan("user"), scan("membership"), scan("grant"), logOf("event")] },
  ],
  leaves: [],
  paths: { mounts: [], trailingSlashes: true, leadingSlashes: true, innerSlashes: false },
});
