/**
 * Calls of Keystone's API that change rows, and the aggregates each may change; mutating routes that change none, with the
 * reason. Routes are those of the running service's URL map; what they write was seen in the database before and after each
 * call, on PostgreSQL and MariaDB alike. A 409 for a user, a 400 for an endpoint may leave rows behind: see writesOnFailure.
 *
 * Invariants: every mutating route of tests/contract/services/keystone-routes.json is captured or left, and nothing else is.
 * A deletion names what Keystone deletes with it by the columns that tie it, because nothing is left to ask afterwards.
 * Not here: which rows make an aggregate (keystone.ts).
 */
import { answer, every, form, logOf, one, path, request, scan, sha256, text } from "./define.ts";
import type { Capture, Leave, Method, RowPredicate, Touch } from "./define.ts";

type Route = `${Method} /${string}`;

const capture = (on: Route, touches: readonly Touch[], writesOnFailure: readonly number[] = []): Capture =>
  writesOnFailure.length === 0 ? { on, touches } : { on, touches, writesOnFailure };

/** The usual resource: made with an id in the answer, changed and deleted under its path. `gone`: what a deletion takes along. */
function resource(
  collection: `/${string}`, kind: string, id: string, member: string, gone: readonly Touch[] = [],
): readonly Capture[] {
  return [
    capture(`POST ${collection}`, [one(kind, { id: answer(`$.${member}.id`) })]),
    capture(`PATCH ${collection}/{${id}}`, [one(kind, { id: path(id) })]),
    capture(`DELETE ${collection}/{${id}}`, [one(kind, { id: path(id) }), ...gone]),
  ];
}

/** A resource whose id the client chooses, made by PUT under its path. */
function chosen(collection: `/${string}`, kind: string, id: string, gone: readonly Touch[] = []): readonly Capture[] {
  const itself = one(kind, { id: path(id) });
  return [
    capture(`PUT ${collection}/{${id}}`, [itself]),
    capture(`PATCH ${collection}/{${id}}`, [itself]),
    capture(`DELETE ${collection}/{${id}}`, [itself, ...gone]),
  ];
}

/** A row that is there or not: PUT makes it, DELETE removes it. */
const link = (on: `/${string}`, touches: readonly Touch[], gone: readonly Touch[] = []): readonly Capture[] =>
  [capture(`PUT ${on}`, touches), capture(`DELETE ${on}`, [...touches, ...gone])];

const REVOKED = logOf("revocation_event");

// ---- Domains, projects

/**
 * What goes with a domain: everything of everything in it. Second-level rows (grants of its users on other domains' projects, …)
 * have no column that names the domain, so their kinds are compared. Domain-specific roles and limits of the domain stay.
 */
function goneWithDomain(onlyIf?: RowPredicate): readonly Touch[] {
  const compared = ["project", "user", "group", "identity_provider", "federation_protocol", "user_group_membership",
    "expiring_user_group_membership", "id_mapping", "assignment", "system_assignment", "credential", "application_credential",
    "access_rule", "trust", "limit", "project_endpoint", "project_endpoint_group", "whitelisted_config", "sensitive_config"];
  return compared.map((kind) => scan(kind, onlyIf));
}

/** What goes with a project. Trusts are marked deleted, users lose it as their default; application credentials stay. */
const GONE_WITH_PROJECT: readonly Touch[] = [
  every("assignment", { target_id: path("project_id") }),
  every("credential", { project_id: path("project_id") }),
  every("trust", { project_id: path("project_id") }),
  every("limit", { project_id: path("project_id") }),
  every("project_endpoint", { project_id: path("project_id") }),
  every("project_endpoint_group", { project_id: path("project_id") }),
  every("user", { default_project_id: path("project_id") }),
  REVOKED,
  // A disabled domain may be deleted under its project path, with everything in it.
  ...goneWithDomain({ table: "project", where: { id: path("project_id"), is_domain: text("true") } }),
];

const CONFIGURED: readonly Touch[] = [
  every("whitelisted_config", { domain_id: path("domain_id") }), every("sensitive_config", { domain_id: path("domain_id") })];

const TAGGED: readonly Touch[] = [one("project", { id: path("project_id") })];

const PROJECT_CALLS: readonly Capture[] = [
  ...resource("/v3/domains", "project", "domain_id", "domain", [REVOKED, ...goneWithDomain()]),
  capture("PUT /v3/domains/{domain_id}/config", CONFIGURED),
  ...["", "/{group}", "/{group}/{option}"].flatMap((part): readonly Capture[] => [
    capture(`PATCH /v3/domains/{domain_id}/config${part}`, CONFIGURED),
    capture(`DELETE /v3/domains/{domain_id}/config${part}`, CONFIGURED),
  ]),
  ...resource("/v3/projects", "project", "project_id", "project", GONE_WITH_PROJECT),
  ...link("/v3/projects/{project_id}/tags", TAGGED),
  ...link("/v3/projects/{project_id}/tags/{value}", TAGGED),
];

// ---- Users, groups

/** What goes with a user. Trusts are marked deleted; OAuth access tokens stay. */
const GONE_WITH_USER: readonly Touch[] = [
  every("user_group_membership", { user_id: path("user_id") }),
  every("expiring_user_group_membership", { user_id: path("user_id") }),
  every("assignment", { actor_id: path("user_id") }),
  every("system_assignment", { actor_id: path("user_id") }),
  every("credential", { user_id: path("user_id") }),
  every("application_credential", { user_id: path("user_id") }),
  every("access_rule", { user_id: path("user_id") }),
  every("trust", { trustor_user_id: path("user_id") }),
  every("trust", { trustee_user_id: path("user_id") }),
  one("id_mapping", { public_id: path("user_id") }),
  REVOKED,
];

/** What goes with a group; its members' tokens are revoked if it held any role. */
const GONE_WITH_GROUP: readonly Touch[] = [
  every("user_group_membership", { group_id: path("group_id") }),
  every("expiring_user_group_membership", { group_id: path("group_id") }),
  every("assignment", { actor_id: path("group_id") }),
  every("system_assignment", { actor_id: path("group_id") }),
  one("id_mapping", { public_id: path("group_id") }),
  REVOKED,
];

const USER = one("user", { id: path("user_id") });

const USER_CALLS: readonly Capture[] = [
  // A federated identity that somebody else has is refused with 409 after the user was stored without it.
  capture("POST /v3/users", [one("user", { id: answer("$.user.id") })], [409]),
  // Federated identities are replaced in transactions of their own: a 409 may come in the middle.
  capture("PATCH /v3/users/{user_id}", [USER, REVOKED], [409]),
  capture("DELETE /v3/users/{user_id}", [USER, ...GONE_WITH_USER]),
  // A refusal only changes failed-sign-in columns, which stay at the site.
  capture("POST /v3/users/{user_id}/password", [USER, REVOKED]),
  ...resource("/v3/groups", "group", "group_id", "group", GONE_WITH_GROUP),
  ...link("/v3/groups/{group_id}/users/{user_id}",
    [one("user_group_membership", { user_id: path("user_id"), group_id: path("group_id") })], [REVOKED]),
];

// ---- Roles, grants

const ROLE_CALLS: readonly Capture[] = [
  ...resource("/v3/roles", "role", "role_id", "role", [
    every("assignment", { role_id: path("role_id") }),
    every("system_assignment", { role_id: path("role_id") }),
    every("implied_role", { prior_role_id: path("role_id") }),
    every("implied_role", { implied_role_id: path("role_id") }),
  ]),
  ...link("/v3/roles/{prior_role_id}/implies/{implied_role_id}",
    [one("implied_role", { prior_role_id: path("prior_role_id"), implied_role_id: path("implied_role_id") })]),
  ...(["project", "domain"] as const).flatMap((target) => (["user", "group"] as const).flatMap((actor): readonly Capture[] => {
    const type = `${actor === "user" ? "User" : "Group"}${target === "project" ? "Project" : "Domain"}`;
    const granted = (inherited: "true" | "false"): readonly Touch[] => [one("assignment", { type: text(type),
      actor_id: path(`${actor}_id`), target_id: path(`${target}_id`), role_id: path("role_id"), inherited: text(inherited) })];
    const grant = `${target}s/{${target}_id}/${actor}s/{${actor}_id}/roles/{role_id}`;
    return [...link(`/v3/${grant}`, granted("false")), ...link(`/v3/OS-INHERIT/${grant}/inherited_to_projects`, granted("true"))];
  })),
  ...(["user", "group"] as const).flatMap((actor) => link(`/v3/system/${actor}s/{${actor}_id}/roles/{role_id}`,
    [one("system_assignment", { type: text(actor === "user" ? "UserSystem" : "GroupSystem"), actor_id: path(`${actor}_id`),
      target_id: text("system"), role_id: path("role_id"), inherited: text("false") })])),
];

// ---- Credentials, delegation

const CREDENTIAL_CALLS: readonly Capture[] = [
  ...resource("/v3/credentials", "credential", "credential_id", "credential"),
  // EC2 credentials are rows named by the hash of their access key.
  capture("POST /v3/users/{user_id}/credentials/OS-EC2", [one("credential", { id: sha256(answer("$.credential.access")) })]),
  capture("DELETE /v3/users/{user_id}/credentials/OS-EC2/{credential_id}",
    [one("credential", { id: sha256(path("credential_id")) })]),
  // A rule equal to an older one is shared, so the rules of the answer need not be the ones that were made.
  capture("POST /v3/users/{user_id}/application_credentials", [
    one("application_credential", { id: answer("$.application_credential.id") }),
    every("access_rule", { user_id: path("user_id") })]),
  capture("DELETE /v3/users/{user_id}/application_credentials/{application_credential_id}",
    [one("application_credential", { id: path("application_credential_id") })]),
  capture("DELETE /v3/users/{user_id}/access_rules/{access_rule_id}",
    [one("access_rule", { external_id: path("access_rule_id") })]),
  // A redelegated trust counts down the delegations left of nothing else: only the new trust is written.
  capture("POST /v3/OS-TRUST/trusts", [one("trust", { id: answer("$.trust.id") })]),
  // Trusts made from this one, at any depth, are marked deleted with it.
  capture("DELETE /v3/OS-TRUST/trusts/{trust_id}", [
    one("trust", { id: path("trust_id") }),
    scan("trust", { table: "trust", where: { redelegated_trust_id: path("trust_id") } }), REVOKED]),
  ...resource("/v3/OS-OAUTH1/consumers", "consumer", "consumer_id", "consumer",
    [every("access_token", { consumer_id: path("consumer_id") }), REVOKED]),
  capture("POST /v3/OS-OAUTH1/access_token", [one("access_token", { id: form("oauth_token") })]),
  capture("DELETE /v3/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}",
    [one("access_token", { id: path("access_token_id") })]),
];

// ---- Catalogue, policies, limits

/** Deleting a region deletes the regions below it, at any depth; there are few regions. */
const REGION_CALLS: readonly Capture[] = [
  ...resource("/v3/regions", "region", "region_id", "region", [scan("region")]),
  capture("PUT /v3/regions/{region_id}", [one("region", { id: path("region_id") })]),
];

/** The old attribute `region` makes the region it names, before the rest of the call is judged. */
const MADE_REGION = one("region", { id: request("$.endpoint.region") });

const CATALOGUE_CALLS: readonly Capture[] = [
  ...REGION_CALLS,
  ...resource("/v3/services", "service", "service_id", "service", [every("endpoint", { service_id: path("service_id") })]),
  capture("POST /v3/endpoints", [MADE_REGION, one("endpoint", { id: answer("$.endpoint.id") })], [400]),
  capture("PATCH /v3/endpoints/{endpoint_id}", [MADE_REGION, one("endpoint", { id: path("endpoint_id") })], [400, 404]),
  capture("DELETE /v3/endpoints/{endpoint_id}",
    [one("endpoint", { id: path("endpoint_id") }), every("project_endpoint", { endpoint_id: path("endpoint_id") })]),
  ...link("/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}",
    [one("project_endpoint", { endpoint_id: path("endpoint_id"), project_id: path("project_id") })]),
  // Reading the list drops associations with endpoints that are gone.
  ...(["GET", "HEAD"] as const).map((method) => capture(`${method} /v3/OS-EP-FILTER/projects/{project_id}/endpoints`,
    [every("project_endpoint", { project_id: path("project_id") })])),
  ...resource("/v3/OS-EP-FILTER/endpoint_groups", "endpoint_group", "endpoint_group_id", "endpoint_group",
    [every("project_endpoint_group", { endpoint_group_id: path("endpoint_group_id") })]),
  ...link("/v3/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}",
    [one("project_endpoint_group", { endpoint_group_id: path("endpoint_group_id"), project_id: path("project_id") })]),
  ...resource("/v3/policies", "policy", "policy_id", "policy"),
  // The row of a target is pointed from one policy to another: it is found by its target, whichever policy had it.
  ...link("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}",
    [every("policy_association", { endpoint_id: path("endpoint_id") })]),
  ...link("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}",
    [every("policy_association", { service_id: path("service_id") })]),
  ...link("/v3/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}",
    [every("policy_association", { service_id: path("service_id"), region_id: path("region_id") })]),
  ...(["registered_limit", "limit"] as const).flatMap((kind): readonly Capture[] => [
    capture(`POST /v3/${kind}s`, [one(kind, { id: answer(`$.${kind}s[*].id`) })]),
    capture(`PATCH /v3/${kind}s/{${kind}_id}`, [one(kind, { id: path(`${kind}_id`) })]),
    capture(`DELETE /v3/${kind}s/{${kind}_id}`, [one(kind, { id: path(`${kind}_id`) })]),
  ]),
];

// ---- Federation

/**
 * A federated sign-in may make the user, its memberships, and the projects and grants its mapping names. The answer names the
 * user and its domain; projects made are in the identity provider's domain, which is the user's.
 */
const SIGNED_IN: readonly Touch[] = [
  one("user", { id: answer("$.token.user.id") }),
  every("expiring_user_group_membership", { user_id: answer("$.token.user.id") }),
  every("assignment", { actor_id: answer("$.token.user.id") }),
  every("project", { domain_id: answer("$.token.user.domain.id") }),
];

/** The same sign-in where the answer names nobody: a page for a browser, or a HEAD, which Keystone carries out like a GET. */
const SIGNED_IN_UNNAMED: readonly Touch[] =
  ["user", "expiring_user_group_membership", "assignment", "project"].map((kind) => scan(kind));

const PROTOCOL = "/v3/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}";
const WEBSSO = ["/v3/auth/OS-FEDERATION/websso/{protocol_id}",
  "/v3/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso"] as const;

const PROTOCOL_ITSELF = one("federation_protocol", { id: path("protocol_id"), idp_id: path("idp_id") });

const FEDERATION_CALLS: readonly Capture[] = [
  // Without a domain_id a domain is made; a refused provider (409) takes it away again and says so in the revocations.
  capture("PUT /v3/OS-FEDERATION/identity_providers/{idp_id}", [one("identity_provider", { id: path("idp_id") }),
    one("project", { id: answer("$.identity_provider.domain_id") }), REVOKED], [409]),
  capture("PATCH /v3/OS-FEDERATION/identity_providers/{idp_id}", [one("identity_provider", { id: path("idp_id") })]),
  // The domain, the shadow users and their grants stay; the users lose the identity.
  capture("DELETE /v3/OS-FEDERATION/identity_providers/{idp_id}", [
    one("identity_provider", { id: path("idp_id") }),
    every("federation_protocol", { idp_id: path("idp_id") }),
    every("expiring_user_group_membership", { idp_id: path("idp_id") }),
    every("user", { idp_id: path("idp_id") }, "federated_user")]),
  capture(`PUT ${PROTOCOL}`, [PROTOCOL_ITSELF]),
  capture(`PATCH ${PROTOCOL}`, [PROTOCOL_ITSELF]),
  capture(`DELETE ${PROTOCOL}`,
    [PROTOCOL_ITSELF, every("user", { protocol_id: path("protocol_id"), idp_id: path("idp_id") }, "federated_user")]),
  ...chosen("/v3/OS-FEDERATION/mappings", "mapping", "mapping_id"),
  ...chosen("/v3/OS-FEDERATION/service_providers", "service_provider", "sp_id"),
  capture(`GET ${PROTOCOL}/auth`, SIGNED_IN),
  capture(`POST ${PROTOCOL}/auth`, SIGNED_IN),
  capture(`HEAD ${PROTOCOL}/auth`, SIGNED_IN_UNNAMED),
  ...WEBSSO.flatMap((on) => (["GET", "HEAD", "POST"] as const).map((method) => capture(`${method} ${on}`, SIGNED_IN_UNNAMED))),
];

// ---- Tokens

const TOKEN_CALLS: readonly Capture[] = [
  // A token scoped to a trust spends one of its uses. All else that signing in with a password writes stays at the site. The
  // first sign-in of a user from LDAP makes rows too, but no call tells those users apart: the auditor finds them, and until
  // then a site with the same LDAP makes the same rows, because their ids are hashes.
  capture("POST /v3/auth/tokens", [one("trust", { id: request("$.auth.scope.OS-TRUST:trust.id") })]),
  capture("DELETE /v3/auth/tokens", [REVOKED]),
];

/** Every call that changes rows. */
export const KEYSTONE_CAPTURES: readonly Capture[] = [...PROJECT_CALLS, ...USER_CALLS, ...ROLE_CALLS, ...CREDENTIAL_CALLS,
  ...CATALOGUE_CALLS, ...FEDERATION_CALLS, ...TOKEN_CALLS];

const leave = (because: string, ...routes: readonly Route[]): readonly Leave[] => routes.map((on) => ({ on, because }));

const OAUTH_HANDSHAKE = "request tokens live for hours, belong to one handshake and stay where it began";
const ISSUES_ONLY = "checks what it is given and answers; no row changes";
const NO_HANDLER = "the URL map accepts the method, but no handler takes it here: answered 405, or not at all; no row changes";

/** Collections with the parameter of their members, and the method that makes a member, on the collection or under its path. */
const COLLECTIONS: readonly (readonly [`/${string}`, string, "POST" | "PUT"])[] = [
  ["/v3/OS-EP-FILTER/endpoint_groups", "endpoint_group_id", "POST"], ["/v3/OS-FEDERATION/identity_providers", "idp_id", "PUT"],
  ["/v3/OS-FEDERATION/mappings", "mapping_id", "PUT"], ["/v3/OS-FEDERATION/service_providers", "sp_id", "PUT"],
  ["/v3/OS-OAUTH1/consumers", "consumer_id", "POST"], ["/v3/credentials", "credential_id", "POST"],
  ["/v3/domains", "domain_id", "POST"], ["/v3/endpoints", "endpoint_id", "POST"], ["/v3/groups", "group_id", "POST"],
  ["/v3/limits", "limit_id", "POST"], ["/v3/policies", "policy_id", "POST"], ["/v3/projects", "project_id", "POST"],
  ["/v3/regions", "region_id", "POST"], ["/v3/registered_limits", "registered_limit_id", "POST"],
  ["/v3/roles", "role_id", "POST"], ["/v3/services", "service_id", "POST"], ["/v3/users", "user_id", "POST"],
];

/** Keystone registers one handler for a collection and its members, so each path accepts the methods of the other. */
const MISPLACED: readonly Leave[] = COLLECTIONS.flatMap(([collection, id, makes]) => leave(NO_HANDLER,
  `DELETE ${collection}`, `PATCH ${collection}`, makes === "PUT" ? `PUT ${collection}` : `POST ${collection}/{${id}}`));

/** Mutating routes that change no row that travels. */
export const KEYSTONE_LEAVES: readonly Leave[] = [
  ...leave(OAUTH_HANDSHAKE, "POST /v3/OS-OAUTH1/request_token", "PUT /v3/OS-OAUTH1/authorize/{request_token_id}"),
  ...leave(ISSUES_ONLY, "POST /v3/OS-OAUTH2/token", "POST /v3/auth/OS-FEDERATION/saml2", "POST /v3/auth/OS-FEDERATION/saml2/ecp",
    "POST /v3/ec2tokens", "POST /v3/s3tokens"),
  ...MISPLACED,
  ...leave(NO_HANDLER, "DELETE /v3/OS-TRUST/trusts", "POST /v3/OS-TRUST/trusts/{trust_id}", "PUT /v3/regions",
    "PUT /v3/OS-OAUTH2/token", "PATCH /v3/OS-OAUTH2/token", "DELETE /v3/OS-OAUTH2/token"),
];

/**
 * Ways to sign in. What they write besides stays where it was written (failed attempts, users of a provider), or moves one way
 * only (uses of a trust): a site that is cut off cannot know how many uses are left elsewhere.
 */
export const KEYSTONE_ANYWHERE: readonly Route[] = ["POST /v3/auth/tokens", "POST /v3/ec2tokens", "POST /v3/s3tokens",
  "POST /v3/OS-OAUTH2/token", "POST /v3/auth/OS-FEDERATION/saml2", "POST /v3/auth/OS-FEDERATION/saml2/ecp",
  ...(["GET", "HEAD", "POST"] as const).flatMap((method) => [`${PROTOCOL}/auth` as const, ...WEBSSO]
    .map((on): Route => `${method} ${on}`))];
