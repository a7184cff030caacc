/**
 * Keystone (identity), release Zed: which rows travel, how they group into aggregates, what stays at each site.
 * Tables are in keystone-tables.ts, calls in keystone-calls.ts, files in keystone-settings.ts; docs/reference/keystone.md is
 * generated from all of them.
 *
 * An aggregate is what one person changes at a time and stays bounded: a user without its grants and memberships, a project
 * without what points at it. Ids and the database's own counters are copied as they are, so a token issued at one site means
 * the same rows at another; a site counts its own rows from SITE_COUNTER_FIRST.
 *
 * Invariants: each of the 48 tables of the live schema belongs to one kind or is local with a reason; routes likewise.
 * Does not cover: LDAP directories themselves, and rows that no call names (keystone-manage, LDAP sign-ins): the auditor does.
 */
import { defineService, type KindDeclaration, type Service, type Urgency } from "./define.ts";
import { KEYSTONE_ANYWHERE, KEYSTONE_CAPTURES, KEYSTONE_LEAVES } from "./keystone-calls.ts";
import { KEYSTONE_KEY_REPOSITORIES, KEYSTONE_SAME_SETTINGS } from "./keystone-settings.ts";
import { KEYSTONE_TABLES, ROOT_DOMAIN } from "./keystone-tables.ts";

/** A kind of one table, named by its primary key. */
const alone = (root: string): KindDeclaration => ({ root });
/** One that `keystone-manage bootstrap` fills: without rows nobody could sign in or find an API. */
const bootstrapped = (root: string): KindDeclaration => ({ root, neverEmpty: true });

/** Whoever leaned on it may do less when it is gone: Keystone computes roles anew at every validation. */
const WHEN_GONE: Urgency = { gone: true };
/** Tokens in a disabled project or domain, or of a disabled user, are refused. */
const WHEN_GONE_OR_DISABLED: Urgency = { gone: true, when: { column: "enabled", values: [false] } };
/** A trust that is deleted, or was used up, keeps its row. */
const WHEN_DELETED: Urgency = { gone: true, when: { column: "deleted_at", values: [null], not: true } };

const KINDS: Readonly<Record<string, KindDeclaration>> = {
  project: {
    root: "project", neverEmpty: true, urgent: WHEN_GONE_OR_DISABLED,
    owns: [{ table: "project_tag", by: { project_id: "id" } }, { table: "project_option", by: { project_id: "id" } }],
    except: [{ key: { id: ROOT_DOMAIN }, because: "the migrations make it in every Keystone database and no call changes it" }],
  },
  whitelisted_config: alone("whitelisted_config"),
  sensitive_config: alone("sensitive_config"),
  role: { root: "role", neverEmpty: true, urgent: WHEN_GONE, owns: [{ table: "role_option", by: { role_id: "id" } }] },
  implied_role: { root: "implied_role", urgent: WHEN_GONE },
  assignment: { ...bootstrapped("assignment"), urgent: WHEN_GONE },
  system_assignment: { root: "system_assignment", urgent: WHEN_GONE },
  identity_provider: { root: "identity_provider", urgent: WHEN_GONE_OR_DISABLED,
    owns: [{ table: "idp_remote_ids", by: { idp_id: "id" } }] },
  mapping: alone("mapping"),
  federation_protocol: { root: "federation_protocol", urgent: WHEN_GONE },
  service_provider: alone("service_provider"),
  user: {
    root: "user", neverEmpty: true, urgent: WHEN_GONE_OR_DISABLED,
    // Whoever signs in at a site through a provider or a directory gets a user there.
    siteMade: ["nonlocal_user", "federated_user"],
    owns: [
      { table: "local_user", by: { user_id: "id" } },
      { table: "password", of: "local_user", by: { local_user_id: "id" } },
      { table: "user_option", by: { user_id: "id" } },
      { table: "nonlocal_user", by: { user_id: "id" } },
      { table: "federated_user", by: { user_id: "id" } },
    ],
  },
  // Any look at a directory makes one; its id is computed, the same everywhere.
  id_mapping: { root: "id_mapping", siteMade: ["id_mapping"] },
  group: { root: "group", urgent: WHEN_GONE },
  user_group_membership: { root: "user_group_membership", urgent: WHEN_GONE },
  expiring_user_group_membership: { root: "expiring_user_group_membership", siteMade: ["expiring_user_group_membership"],
    urgent: WHEN_GONE },
  trust: { root: "trust", urgent: WHEN_DELETED, owns: [{ table: "trust_role", by: { trust_id: "id" } }] },
  access_rule: { root: "access_rule", key: ["external_id"] },
  application_credential: {
    root: "application_credential", key: ["id"], urgent: WHEN_GONE,
    owns: [
      { table: "application_credential_role", by: { application_credential_id: "internal_id" } },
      { table: "application_credential_access_rule", by: { application_credential_id: "internal_id" } },
    ],
  },
  credential: { root: "credential", urgent: WHEN_GONE },
  consumer: { root: "consumer", urgent: WHEN_GONE },
  access_token: { root: "access_token", urgent: WHEN_GONE },
  region: alone("region"),
  service: bootstrapped("service"),
  endpoint: bootstrapped("endpoint"),
  endpoint_group: alone("endpoint_group"),
  project_endpoint: alone("project_endpoint"),
  project_endpoint_group: alone("project_endpoint_group"),
  policy: alone("policy"),
  policy_association: alone("policy_association"),
  registered_limit: { root: "registered_limit", key: ["id"] },
  limit: { root: "limit", key: ["id"] },
  // Every new event also deletes those older than a token can live, at each site by itself.
  revocation_event: { root: "revocation_event", urgent: "always", log: { rising: "id" } },
};

/** Keystone Zed. */
export const keystone: Service = defineService({
  name: "keystone",
  catalogType: "identity",
  // Two heads: the expand branch and the contract branch of the migrations.
  migrations: { table: "alembic_version", column: "version_num", verified: ["29e87d24a316", "e25ffa003242"] },
  tables: KEYSTONE_TABLES,
  kinds: KINDS,
  local: {
    config_register: "a lock that says which process of this deployment reads the domain configuration from the database",
    request_token: "half of an OAuth handshake that lasts hours and ends where it began; its result, the access token, travels",
    token: "nothing has written it since tokens carry their own content",
  },
  captures: KEYSTONE_CAPTURES,
  leaves: KEYSTONE_LEAVES,
  anywhere: KEYSTONE_ANYWHERE,
  // Measured: "/v3/users/", "//v3/users", "/v3/%75sers", "/v3/users%2F", "/v3%2Fusers" and "/x/../v3/users" all make a user;
  // "/v3//users" is redirected with 308, "/identity/v3/users" and "/v3/%2e/users" are not found. Dots are resolved by uWSGI.
  paths: {
    mounts: [], trailingSlashes: true, leadingSlashes: true, innerSlashes: false, dotSegments: true, encodedSlashes: true,
  },
  // Keystone keeps a random id of each cache region under SHA-1("<<<region>>>:" + name); without it every entry is unreachable.
  cacheRegions: {
    "shared default": "2a4b007dd5619393e567dc0c8bc36c2996d52dd7",
    "computed assignments": "5a1551330578815cc8a0b4c07329ef47276e9db0",
    "computed catalog region": "36a0dc4b31dc35fca53a8c0ef0a5776215c8d145",
    "tokens": "2d6cad476fdd468cd5142307ac89a6534277951e",
    "revoke": "a619987c7b96fd5f3d7c9f80cf5585ac1a22f8ec",
    "id mapping": "aa83dd6e4c01fa81596d94f21b73f6f8b786529b",
    "receipts": "99378388c776e02cd2568956b1e531c3455e7eb5",
  },
  keyRepositories: KEYSTONE_KEY_REPOSITORIES,
  sameSettings: KEYSTONE_SAME_SETTINGS,
  errorShape: "keystone",
});
