/**
 * Tables of Keystone's database that travel, as the live schema has them on PostgreSQL and on MariaDB alike: columns, keys,
 * unique keys and foreign keys (hard). The two engines differ in one thing only: MariaDB repeats project_tag's primary key as a
 * unique key. Soft references are ours: rows that Keystone looks up without a foreign key, so that a change waits for them.
 *
 * Invariants: tests/contract/services/keystone-schema.test.ts compares this file with the schema recorded from both engines.
 * PostgreSQL enums travel as text; MariaDB's tinyint(1) is a boolean; MariaDB's DATETIME keeps whole seconds.
 * Not here: grouping into aggregates (keystone.ts), calls that change rows (keystone-calls.ts).
 */
import type { Reference, TableDeclaration } from "./define.ts";

/** The domain of all domains; every Keystone database has this row from its first migration on. */
export const ROOT_DOMAIN = "<<keystone.domain.root>>";

/** domain_id of a role that belongs to no domain. */
const GLOBAL_ROLE = "<<null>>";

type Details = Pick<Reference, "markers" | "when"> & { readonly to?: readonly string[] };

const reference = (enforced: boolean) => (columns: string | readonly string[], table: string, details: Details = {}): Reference =>
  ({ to: ["id"], ...details, columns: typeof columns === "string" ? [columns] : columns, table, hard: enforced });

/** A foreign key, to `id` unless said otherwise. */
const hard = reference(true);

/** A row that Keystone looks up without a foreign key. */
const soft = reference(false);

/** A trust that was not deleted. */
const LIVE: Details = { when: { deleted_at: [null] } };

/** Every table of Keystone Zed that travels, by name. */
export const KEYSTONE_TABLES: Readonly<Record<string, TableDeclaration>> = {
  // ---- Projects and domains: a domain is a project row with is_domain.
  // Keystone's migrations make the root domain row in every database, so a reference to it is always satisfied.
  project: {
    key: ["id"], unique: [["domain_id", "name"]],
    columns: { id: "text", name: "text", extra: "text?", description: "text?", enabled: "boolean?",
      domain_id: "text", parent_id: "text?", is_domain: "boolean" },
    references: [hard("domain_id", "project", { markers: [ROOT_DOMAIN] }), hard("parent_id", "project")],
  },
  project_tag: {
    key: ["project_id", "name"],
    columns: { project_id: "text", name: "text" },
    references: [hard("project_id", "project")],
  },
  project_option: {
    key: ["project_id", "option_id"],
    columns: { project_id: "text", option_id: "text", option_value: "text?" },
    references: [hard("project_id", "project")],
  },
  whitelisted_config: {
    key: ["domain_id", "group", "option"],
    columns: { domain_id: "text", group: "text", option: "text", value: "text" },
    references: [soft("domain_id", "project")],
  },
  sensitive_config: {
    key: ["domain_id", "group", "option"],
    columns: { domain_id: "text", group: "text", option: "text", value: "text" },
    references: [soft("domain_id", "project")],
    secret: ["value"],
  },
  // ---- Roles and grants. The grant tables name users, groups, projects and roles without foreign keys.
  role: {
    key: ["id"], unique: [["name", "domain_id"]],
    columns: { id: "text", name: "text", extra: "text?", domain_id: "text", description: "text?" },
    references: [soft("domain_id", "project", { markers: [GLOBAL_ROLE] })],
  },
  role_option: {
    key: ["role_id", "option_id"],
    columns: { role_id: "text", option_id: "text", option_value: "text?" },
    references: [hard("role_id", "role")],
  },
  implied_role: {
    key: ["prior_role_id", "implied_role_id"],
    columns: { prior_role_id: "text", implied_role_id: "text" },
    references: [hard("implied_role_id", "role"), hard("prior_role_id", "role")],
  },
  assignment: {
    key: ["type", "actor_id", "target_id", "role_id", "inherited"],
    columns: { type: "text", actor_id: "text", target_id: "text", role_id: "text", inherited: "boolean" },
    references: [soft("actor_id", "user", { when: { type: ["UserProject", "UserDomain"] } }),
      soft("actor_id", "group", { when: { type: ["GroupProject", "GroupDomain"] } }), soft("target_id", "project"),
      soft("role_id", "role")],
  },
  system_assignment: {
    key: ["type", "actor_id", "target_id", "role_id", "inherited"],
    columns: { type: "text", actor_id: "text", target_id: "text", role_id: "text", inherited: "boolean" },
    references: [soft("actor_id", "user", { when: { type: ["UserSystem"] } }),
      soft("actor_id", "group", { when: { type: ["GroupSystem"] } }), soft("role_id", "role")],
  },
  // ---- Federation.
  identity_provider: {
    key: ["id"],
    columns: { id: "text", enabled: "boolean", description: "text?", domain_id: "text", authorization_ttl: "integer?" },
    references: [soft("domain_id", "project")],
  },
  idp_remote_ids: {
    key: ["remote_id"],
    columns: { idp_id: "text?", remote_id: "text" },
    references: [hard("idp_id", "identity_provider")],
  },
  mapping: {
    key: ["id"],
    columns: { id: "text", rules: "text" },
  },
  federation_protocol: {
    key: ["id", "idp_id"],
    columns: { id: "text", idp_id: "text", mapping_id: "text", remote_id_attribute: "text?" },
    references: [hard("idp_id", "identity_provider"), soft("mapping_id", "mapping")],
  },
  service_provider: {
    key: ["id"],
    columns: { auth_url: "text", id: "text", enabled: "boolean", description: "text?", sp_url: "text",
      relay_state_prefix: "text" },
  },
  // ---- Users and groups.
  // default_project_id refers to nothing here: Keystone never checks it, and a dangling one only makes sign-in unscoped.
  // last_active_at and the failed-sign-in columns of local_user record what happened at one site: lockout counts per site.
  user: {
    key: ["id"], unique: [["id", "domain_id"]],
    columns: { id: "text", extra: "text?", enabled: "boolean?", default_project_id: "text?", created_at: "datetime?",
      last_active_at: "date?", domain_id: "text" },
    references: [soft("domain_id", "project")],
    local: { last_active_at: null },
  },
  local_user: {
    key: ["id"], counted: "id", unique: [["domain_id", "name"], ["user_id"]],
    columns: { id: "integer", user_id: "text", domain_id: "text", name: "text", failed_auth_count: "integer?",
      failed_auth_at: "datetime?" },
    references: [hard(["user_id", "domain_id"], "user", { to: ["id", "domain_id"] })],
    local: { failed_auth_count: 0, failed_auth_at: null },
  },
  // Order is by created_at_int, never by id; expires_at(_int) of the previous row is rewritten by every change.
  password: {
    key: ["id"], counted: "id",
    columns: { id: "integer", local_user_id: "integer", expires_at: "datetime?", self_service: "boolean",
      password_hash: "text?", created_at_int: "bigint", expires_at_int: "bigint?", created_at: "datetime" },
    references: [hard("local_user_id", "local_user")],
    secret: ["password_hash"],
  },
  user_option: {
    key: ["user_id", "option_id"],
    columns: { user_id: "text", option_id: "text", option_value: "text?" },
    references: [hard("user_id", "user")],
  },
  nonlocal_user: {
    key: ["domain_id", "name"], unique: [["user_id"]],
    columns: { domain_id: "text", name: "text", user_id: "text" },
    references: [hard(["user_id", "domain_id"], "user", { to: ["id", "domain_id"] })],
  },
  federated_user: {
    key: ["id"], counted: "id", unique: [["idp_id", "protocol_id", "unique_id"]],
    columns: { id: "integer", user_id: "text", idp_id: "text", protocol_id: "text", unique_id: "text",
      display_name: "text?" },
    references: [hard("idp_id", "identity_provider"),
      hard(["protocol_id", "idp_id"], "federation_protocol", { to: ["id", "idp_id"] }), hard("user_id", "user")],
  },
  id_mapping: {
    key: ["public_id"], unique: [["domain_id", "local_id", "entity_type"]],
    columns: { public_id: "text", domain_id: "text", local_id: "text", entity_type: "text" },
    references: [soft("domain_id", "project")],
  },
  group: {
    key: ["id"], unique: [["domain_id", "name"]],
    columns: { id: "text", domain_id: "text", name: "text", description: "text?", extra: "text?" },
    references: [soft("domain_id", "project")],
  },
  user_group_membership: {
    key: ["user_id", "group_id"],
    columns: { user_id: "text", group_id: "text" },
    references: [hard("group_id", "group"), hard("user_id", "user")],
  },
  // last_verified travels: it may not be NULL, and no constant is right for a new row (a past one ends the membership at once,
  // a future one never ends it). A renewal at a site is a site-made change like any other; the row audit does not undo it.
  expiring_user_group_membership: {
    key: ["user_id", "group_id", "idp_id"],
    columns: { user_id: "text", group_id: "text", idp_id: "text", last_verified: "datetime" },
    moves: { last_verified: "up" },
    references: [hard("group_id", "group"), hard("idp_id", "identity_provider"), hard("user_id", "user")],
  },
  // ---- Delegation and credentials.
  // remaining_uses travels although each site spends uses by itself: kept local, a new row would need a constant, and the only
  // harmless-looking one, NULL, means unlimited. A trust may be used up once per site and cut, never more than that.
  // Soft-deleted rows outlive their users and projects, so only a live trust waits for what it names.
  trust: {
    key: ["id"], unique: [["trustor_user_id", "trustee_user_id", "project_id", "impersonation", "expires_at", "expires_at_int"]],
    columns: { id: "text", trustor_user_id: "text", trustee_user_id: "text", project_id: "text?",
      impersonation: "boolean", deleted_at: "datetime?", expires_at: "datetime?", remaining_uses: "integer?",
      extra: "text?", expires_at_int: "bigint?", redelegated_trust_id: "text?", redelegation_count: "integer?" },
    moves: { remaining_uses: "down" },
    references: [soft("trustor_user_id", "user", LIVE), soft("trustee_user_id", "user", LIVE),
      soft("project_id", "project", LIVE), soft("redelegated_trust_id", "trust", LIVE)],
  },
  trust_role: {
    key: ["trust_id", "role_id"],
    columns: { trust_id: "text", role_id: "text" },
    references: [soft("trust_id", "trust"), soft("role_id", "role")],
  },
  access_rule: {
    key: ["id"], counted: "id", unique: [["external_id"], ["user_id", "service", "path", "method"]],
    columns: { id: "integer", service: "text?", path: "text?", method: "text?", external_id: "text?",
      user_id: "text?" },
    references: [soft("user_id", "user")],
  },
  // Its `id` is what the API shows; unique in practice, though no constraint says so.
  application_credential: {
    key: ["internal_id"], counted: "internal_id", unique: [["user_id", "name"]],
    columns: { internal_id: "integer", id: "text", name: "text", secret_hash: "text", description: "text?",
      user_id: "text", project_id: "text?", expires_at: "bigint?", system: "text?", unrestricted: "boolean?" },
    references: [soft("user_id", "user"), soft("project_id", "project")],
    secret: ["secret_hash"],
  },
  application_credential_role: {
    key: ["application_credential_id", "role_id"],
    columns: { application_credential_id: "integer", role_id: "text" },
    references: [hard(["application_credential_id"], "application_credential", { to: ["internal_id"] }),
      soft("role_id", "role")],
  },
  application_credential_access_rule: {
    key: ["application_credential_id", "access_rule_id"],
    columns: { application_credential_id: "integer", access_rule_id: "integer" },
    references: [hard("access_rule_id", "access_rule"),
      hard(["application_credential_id"], "application_credential", { to: ["internal_id"] })],
  },
  // Readable only with the key whose SHA-1 is key_hash: the key repository has to be there first.
  credential: {
    key: ["id"],
    columns: { id: "text", user_id: "text", project_id: "text?", type: "text", extra: "text?", key_hash: "text",
      encrypted_blob: "text" },
    references: [soft("user_id", "user"), soft("project_id", "project")],
    secret: ["encrypted_blob"],
  },
  consumer: {
    key: ["id"],
    columns: { id: "text", description: "text?", secret: "text", extra: "text" },
    secret: ["secret"],
  },
  access_token: {
    key: ["id"],
    columns: { id: "text", access_secret: "text", authorizing_user_id: "text", project_id: "text", role_ids: "text",
      consumer_id: "text", expires_at: "text?" },
    references: [hard("consumer_id", "consumer"), soft("authorizing_user_id", "user"), soft("project_id", "project")],
    secret: ["access_secret"],
  },
  // ---- Catalogue.
  region: {
    key: ["id"],
    columns: { id: "text", description: "text", parent_region_id: "text?", extra: "text?" },
    references: [soft("parent_region_id", "region")],
  },
  service: {
    key: ["id"],
    columns: { id: "text", type: "text?", enabled: "boolean", extra: "text?" },
  },
  endpoint: {
    key: ["id"],
    columns: { id: "text", legacy_endpoint_id: "text?", interface: "text", service_id: "text", url: "text",
      extra: "text?", enabled: "boolean", region_id: "text?" },
    references: [hard("region_id", "region"), hard("service_id", "service")],
  },
  endpoint_group: {
    key: ["id"],
    columns: { id: "text", name: "text", description: "text?", filters: "text" },
  },
  project_endpoint: {
    key: ["endpoint_id", "project_id"],
    columns: { endpoint_id: "text", project_id: "text" },
    references: [soft("endpoint_id", "endpoint"), soft("project_id", "project")],
  },
  project_endpoint_group: {
    key: ["endpoint_group_id", "project_id"],
    columns: { endpoint_group_id: "text", project_id: "text" },
    references: [hard("endpoint_group_id", "endpoint_group"), soft("project_id", "project")],
  },
  // ---- Policies and limits.
  policy: {
    key: ["id"],
    columns: { id: "text", type: "text", blob: "text", extra: "text?" },
  },
  // The id is random and never shown; (endpoint, service, region) is what calls name.
  policy_association: {
    key: ["id"], unique: [["endpoint_id", "service_id", "region_id"]],
    columns: { id: "text", policy_id: "text", endpoint_id: "text?", service_id: "text?", region_id: "text?" },
    references: [soft("policy_id", "policy"), soft("endpoint_id", "endpoint"), soft("service_id", "service"),
      soft("region_id", "region")],
  },
  registered_limit: {
    key: ["internal_id"], counted: "internal_id", unique: [["id"]],
    columns: { id: "text", service_id: "text?", region_id: "text?", resource_name: "text?", default_limit: "integer",
      description: "text?", internal_id: "integer" },
    references: [soft("service_id", "service"), soft("region_id", "region")],
  },
  limit: {
    key: ["internal_id"], counted: "internal_id", unique: [["id"]],
    columns: { id: "text", project_id: "text?", resource_limit: "integer", description: "text?",
      internal_id: "integer", registered_limit_id: "text?", domain_id: "text?" },
    references: [soft("registered_limit_id", "registered_limit"), soft("project_id", "project"),
      soft("domain_id", "project")],
  },
  // ---- Revocations.
  // No references: a revocation must never wait for anything.
  revocation_event: {
    key: ["id"], counted: "id",
    columns: { id: "integer", domain_id: "text?", project_id: "text?", user_id: "text?", role_id: "text?",
      trust_id: "text?", consumer_id: "text?", access_token_id: "text?", issued_before: "datetime",
      expires_at: "datetime?", revoked_at: "datetime", audit_id: "text?", audit_chain_id: "text?" },
  },
};
