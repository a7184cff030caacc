/**
 * A walk over every mutating route of Keystone: calls that make, change and delete one of everything, with the refusals and side
 * effects that were found to write rows. Chapters follow each other and share what they made; each ends with a site in step.
 *
 * Source of paths and bodies: OpenStack's Identity API v3 reference and the running Keystone Zed. Expected statuses are given
 * where later calls rely on them.
 * Not here: judging a call (tests/support/keystone-oracle.ts); delegation, catalogue and endings (keystone-walk-further.ts).
 */
import type { Reply } from "../../support/keystone-call.ts";
import type { Oracle } from "../../support/keystone-oracle.ts";

/** What chapters share: the oracle, this run's mark, and ids of what was made, by a short name. */
export interface Walk {
  readonly oracle: Oracle;
  readonly mark: string;
  readonly made: Map<string, string>;
}

/** One part of the walk. */
export interface Chapter {
  readonly name: string;
  readonly calls: (walk: Walk) => Promise<void>;
}

/** The id of what an earlier call made. */
export function idOf(walk: Walk, name: string): string {
  const id = walk.made.get(name);
  if (id === undefined) throw new Error(`the walk has not made ${name}`);
  return id;
}

/** Makes something with POST and remembers the id that the answer gives it. */
export async function make(walk: Walk, name: string, collection: string, member: string, body: object): Promise<Reply> {
  const answer = await walk.oracle.call("POST", `/v3/${collection}`, { [member]: body }, { expect: 201 });
  walk.made.set(name, answer.at(`$.${member}.id`));
  return answer;
}

/** Calls that answer with the expected status, one after the other: [method, path below /v3/, status, body]. */
export async function run(walk: Walk, calls: readonly (readonly [string, string, number | undefined,
  unknown?])[]): Promise<void> {
  for (const [method, path, expect, body] of calls) {
    await walk.oracle.call(method, `/v3/${path}`, body, expect === undefined ? {} : { expect });
  }
}

async function projects(walk: Walk): Promise<void> {
  const { mark } = walk;
  await make(walk, "domain", "domains", "domain", { name: `d-${mark}` });
  const domain = idOf(walk, "domain");
  await run(walk, [["PATCH", `domains/${domain}`, 200, { domain: { description: "changed" } }]]);
  await make(walk, "domain2", "projects", "project", { name: `dd-${mark}`, is_domain: true });
  await make(walk, "parent", "projects", "project",
    { name: `a-${mark}`, domain_id: domain, tags: ["one", "two"], options: { immutable: false } });
  const parent = idOf(walk, "parent");
  await make(walk, "child", "projects", "project", { name: `b-${mark}`, domain_id: domain, parent_id: parent });
  await make(walk, "project", "projects", "project", { name: `c-${mark}` });
  const config = { config: { ldap: { url: "ldap://x", password: "secret" }, identity: { driver: "sql" } } };
  await run(walk, [
    ["PUT", `projects/${parent}/tags`, 200, { tags: ["x", "y"] }],
    ["PUT", `projects/${parent}/tags/z%20z`, 201],
    ["DELETE", `projects/${parent}/tags/x`, 204],
    ["PATCH", `projects/${parent}`, 200, { project: { description: "changed", tags: ["k"] } }],
    ["DELETE", `projects/${parent}/tags`, 204],
    ["PUT", `domains/${domain}/config`, 201, config],
    ["PATCH", `domains/${domain}/config`, 200, { config: { ldap: { url: "ldap://y" } } }],
    ["PATCH", `domains/${domain}/config/ldap`, 200, { config: { ldap: { url: "ldap://z" } } }],
    ["PATCH", `domains/${domain}/config/ldap/password`, 200, { config: { password: "other" } }],
    ["DELETE", `domains/${domain}/config/ldap/password`, 204],
    ["DELETE", `domains/${domain}/config/ldap`, 204],
    ["DELETE", `domains/${domain}/config`, 204],
    ["PUT", `domains/${domain}/config`, 201, config],
  ]);
}

async function roles(walk: Walk): Promise<void> {
  const { mark } = walk;
  await make(walk, "role", "roles", "role", { name: `r-${mark}`, options: { immutable: false } });
  await make(walk, "role2", "roles", "role", { name: `r2-${mark}` });
  await make(walk, "domainRole", "roles", "role", { name: `rd-${mark}`, domain_id: idOf(walk, "domain") });
  const [role, role2] = [idOf(walk, "role"), idOf(walk, "role2")];
  await run(walk, [
    ["PATCH", `roles/${role}`, 200, { role: { description: "changed" } }],
    ["PUT", `roles/${role}/implies/${role2}`, 201],
    ["DELETE", `roles/${role}/implies/${role2}`, 204],
    ["PUT", `roles/${role}/implies/${role2}`, 201],
  ]);
}

/** Where the walk's identity provider and its protocol live, below /v3/. */
export function federationOf(walk: Walk): { readonly provider: string; readonly protocol: string } {
  const provider = `OS-FEDERATION/identity_providers/idp-${walk.mark}`;
  return { provider, protocol: `${provider}/protocols/mapped` };
}

async function federation(walk: Walk): Promise<void> {
  const { mark } = walk;
  const { provider, protocol } = federationOf(walk);
  const domain = idOf(walk, "domain");
  await make(walk, "group", "groups", "group", { name: `g-${mark}`, domain_id: domain });
  const mapping = (remote: string): object => ({ mapping: { rules: [{
    local: [{ user: { name: "{0}", email: "{0}@x" }, group: { id: idOf(walk, "group") } },
      { projects: [{ name: `shp-${mark}`, roles: [{ name: `r-${mark}` }] }] }],
    remote: [{ type: remote }] }] } });
  const partner = { auth_url: "http://a/", sp_url: "http://b/", enabled: true };
  await run(walk, [
    ["PATCH", `groups/${idOf(walk, "group")}`, 200, { group: { description: "changed" } }],
    ["PUT", provider, 201, { identity_provider: { enabled: true, remote_ids: [`rid-${mark}`] } }],
    ["PUT", `${provider}x`, 409, { identity_provider: { enabled: true, remote_ids: [`rid-${mark}`] } }],
    ["PUT", `${provider}y`, 201, { identity_provider: { enabled: true, domain_id: domain } }],
    ["PATCH", `${provider}y`, 409, { identity_provider: { remote_ids: [`rid-${mark}`] } }],
    ["PATCH", provider, 200, { identity_provider: { remote_ids: [`rid-${mark}`, `q-${mark}`], authorization_ttl: 20 } }],
    ["PUT", `OS-FEDERATION/mappings/m-${mark}`, 201, mapping("HTTP_X_USER")],
    ["PATCH", `OS-FEDERATION/mappings/m-${mark}`, 200, mapping("HTTP_X_USER")],
    ["PUT", `OS-FEDERATION/mappings/mm-${mark}`, 201, mapping("HTTP_X_USER")],
    ["PATCH", `OS-FEDERATION/mappings/mm-${mark}`, 200, mapping("OTHER")],
    ["DELETE", `OS-FEDERATION/mappings/mm-${mark}`, 204],
    ["PUT", protocol, 201, { protocol: { mapping_id: `m-${mark}` } }],
    ["PATCH", protocol, 200, { protocol: { mapping_id: `m-${mark}`, remote_id_attribute: "HTTP_X_IDP" } }],
    ["PUT", `OS-FEDERATION/service_providers/sp-${mark}`, 201, { service_provider: partner }],
    ["PATCH", `OS-FEDERATION/service_providers/sp-${mark}`, 200, { service_provider: { description: "changed" } }],
    ["DELETE", `OS-FEDERATION/service_providers/sp-${mark}`, 204],
  ]);
}

/** Signs somebody in through the walk's identity provider: the web server in front of Keystone would set these headers. */
export function federated(walk: Walk, method: string, path: string, who: string, expect?: number): Promise<Reply> {
  const headers = { "x-user": `${who}-${walk.mark}`, "x-idp": `rid-${walk.mark}` };
  return walk.oracle.call(method, `/v3/${path}`, method === "POST" ? "" : undefined,
    { token: "", headers, ...(expect === undefined ? {} : { expect }) });
}

async function federatedSignIns(walk: Walk): Promise<void> {
  const { provider, protocol } = federationOf(walk);
  await federated(walk, "GET", `${protocol}/auth`, "fed", 201);
  await federated(walk, "POST", `${protocol}/auth`, "fed2", 201);
  await federated(walk, "HEAD", `${protocol}/auth`, "fedhead");
  const origin = "origin=http://dash.example/auth/";
  for (const method of ["GET", "HEAD", "POST"]) {
    await federated(walk, method, `auth/OS-FEDERATION/websso/mapped?${origin}`, `w${method}`, 200);
    const named = `auth/${provider}/protocols/mapped/websso?${origin}`;
    await federated(walk, method, named, `v${method}`, 200);
  }
}

async function users(walk: Walk): Promise<void> {
  const { mark } = walk;
  const [domain, parent] = [idOf(walk, "domain"), idOf(walk, "parent")];
  const idp = `idp-${mark}`;
  const identity = (provider: string, protocol: string, unique: string): object =>
    ({ federated: [{ idp_id: provider, protocols: [{ protocol_id: protocol, unique_id: unique }] }] });
  await make(walk, "user", "users", "user", { name: `u-${mark}`, domain_id: domain, password: "pw", default_project_id: parent,
    options: { ignore_lockout_failure_attempts: true } });
  await make(walk, "owner", "users", "user", { name: `v-${mark}`, password: "pw", default_project_id: parent });
  await make(walk, "disabled", "users", "user", { name: `w-${mark}`, password: "pw", enabled: false });
  await make(walk, "linked", "users", "user", { name: `f-${mark}`, ...identity(idp, "mapped", `uid-${mark}`) });
  const [user, linked] = [idOf(walk, "user"), idOf(walk, "linked")];
  const patch = (body: object, expect?: number): readonly [string, string, number | undefined, unknown] =>
    ["PATCH", `users/${user}`, expect, { user: body }];
  const change = (original: string, password: string, expect: number): readonly [string, string, number, unknown] =>
    ["POST", `users/${user}/password`, expect, { user: { original_password: original, password } }];
  await run(walk, [
    ["POST", "users", 409, { user: { name: `f2-${mark}`, ...identity(idp, "mapped", `uid-${mark}`) } }],
    ["POST", "users", undefined, { user: { name: `f3-${mark}`, ...identity("nope", "nope", "z") } }],
    ["POST", "users", undefined, { user: { name: `f4-${mark}`, ...identity(idp, "nope", "z") } }],
    ["PATCH", `users/${linked}`, 200, { user: identity(idp, "mapped", `uid3-${mark}`) }],
    ["PATCH", `users/${linked}`, undefined, { user: { description: "taken", ...identity(idp, "mapped", `fed-${mark}`) } }],
    ["PATCH", `users/${linked}`, undefined, { user: { description: "nowhere", ...identity("nope", "mapped", "q") } }],
    patch({ name: `u2-${mark}`, description: "changed" }, 200), patch({ password: "pw2" }, 200),
    change("wrong", "pw3", 401), change("pw2", "pw3", 204), change("pw3", "pw4", 204),
    patch({ password: null }), patch({ password: "pw5", options: { ignore_lockout_failure_attempts: null } }, 200),
  ]);
}

async function grants(walk: Walk): Promise<void> {
  const [user, owner, group, role] = [idOf(walk, "user"), idOf(walk, "owner"), idOf(walk, "group"), idOf(walk, "role")];
  const member = `groups/${group}/users/${owner}`;
  await run(walk, [["PUT", `groups/${group}/users/${user}`, 204], ["PUT", member, 204], ["PUT", member, 204],
    ["DELETE", member, 204], ["DELETE", member, 404], ["PUT", member, 204]]);
  const actors = [["users", user], ["groups", group]] as const;
  const targets = [["projects", idOf(walk, "parent")], ["domains", idOf(walk, "domain")]] as const;
  const places = actors.flatMap(([actors, actor]) => [`system/${actors}/${actor}/roles/${role}`,
    ...targets.flatMap(([kind, target]) => [`${kind}/${target}/${actors}/${actor}/roles/${role}`,
      `OS-INHERIT/${kind}/${target}/${actors}/${actor}/roles/${role}/inherited_to_projects`])]);
  for (const place of places) await run(walk, [["PUT", place, 204], ["DELETE", place, 204], ["PUT", place, 204]]);
  for (const project of ["project", "parent", "child"]) {
    for (const actor of [user, owner]) {
      await run(walk, [["PUT", `projects/${idOf(walk, project)}/users/${actor}/roles/${role}`, 204]]);
    }
  }
}

/** The first half of the walk. */
export const FIRST_CHAPTERS: readonly Chapter[] = [
  { name: "domains and projects", calls: projects },
  { name: "roles", calls: roles },
  { name: "groups and federation", calls: federation },
  { name: "federated sign-ins", calls: federatedSignIns },
  { name: "users and passwords", calls: users },
  { name: "memberships and grants", calls: grants },
];
