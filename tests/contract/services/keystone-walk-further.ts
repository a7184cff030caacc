/**
 * The second half of the walk over Keystone's routes: what users delegate, the catalogue, policies and limits, calls that no
 * handler takes, and deletions that take a lot with them.
 */
import { createHmac } from "node:crypto";
import { valuesAt } from "../../../capture/touches.ts";
import { systemRandom } from "../../../core/random.ts";
import { passwordAuth } from "../../support/keystone-clouds.ts";
import { federated, federationOf, idOf, make, run, type Chapter, type Walk } from "./keystone-walk.ts";

const RULE = { path: "/v2.1/servers", method: "GET", service: "compute" };

/** Signs in as one of the walk's users. */
async function become(walk: Walk, name: string, password: string, project: string): Promise<void> {
  const scope = { project: { id: idOf(walk, project) } };
  walk.oracle.become(await walk.oracle.clouds.tokenOf({ id: idOf(walk, name), password, scope }));
}

async function credentials(walk: Walk): Promise<void> {
  const [user, owner, parent] = [idOf(walk, "user"), idOf(walk, "owner"), idOf(walk, "parent")];
  const { oracle, mark } = walk;
  await run(walk, [["PATCH", `users/${owner}`, 200, { user: { password: "vv" } }]]);
  await become(walk, "user", "pw5", "parent");
  const first = await make(walk, "delegated", `users/${user}/application_credentials`, "application_credential",
    { name: "ac1", access_rules: [RULE, { ...RULE, method: "POST" }] });
  walk.made.set("delegatedSecret", first.at("$.application_credential.secret"));
  const second = await make(walk, "delegated2", `users/${user}/application_credentials`, "application_credential",
    { name: "ac2", expires_at: "2099-01-01T00:00:00.123456", access_rules: [{ ...RULE, method: "PUT" }, RULE] });
  const ec2 = async (): Promise<string> =>
    (await oracle.call("POST", `/v3/users/${user}/credentials/OS-EC2`, { tenant_id: parent },
      { expect: 201 })).at("$.credential.access");
  const [kept, dropped] = [await ec2(), await ec2()];
  // The answer lists rules in no order of its own; the one that only the second credential has can be deleted with it.
  const shared = valuesAt(JSON.parse(first.text), "$.application_credential.access_rules[*].id");
  const unshared = valuesAt(JSON.parse(second.text), "$.application_credential.access_rules[*].id").find((id) =>
    !shared.includes(id));
  await run(walk, [
    ["DELETE", `users/${user}/access_rules/${first.at("$.application_credential.access_rules[*].id")}`, 403],
    ["DELETE", `users/${user}/application_credentials/${idOf(walk, "delegated2")}`, 204],
    ["DELETE", `users/${user}/access_rules/${unshared}`, 204],
    ["DELETE", `users/${user}/credentials/OS-EC2/${dropped}`, 204],
  ]);
  await become(walk, "owner", "vv", "project");
  await make(walk, "owned", `users/${owner}/application_credentials`, "application_credential",
    { name: "acv", access_rules: [RULE] });
  oracle.become();
  await make(walk, "credential", "credentials", "credential", { user_id: owner, project_id: parent, type: "cert", blob: "abc" });
  await make(walk, "credential2", "credentials", "credential", { user_id: owner, project_id: parent, type: "ec2",
    blob: JSON.stringify({ access: `acc-${mark}`, secret: "s" }) });
  await run(walk, [
    ["PATCH", `credentials/${idOf(walk, "credential")}`, 200, { credential: { blob: "def" } }],
    ["DELETE", `credentials/${idOf(walk, "credential2")}`, 204],
    ["POST", "ec2tokens", undefined, { ec2Credentials: { access: kept, signature: "x", host: "h", verb: "GET", path: "/",
      params: {} } }],
    ["POST", "s3tokens", undefined, { credentials: { access: kept, signature: "x", token: "eA==" } }],
  ]);
}

async function trusts(walk: Walk): Promise<void> {
  const { oracle } = walk;
  const [user, owner] = [idOf(walk, "user"), idOf(walk, "owner")];
  const trust = { trustor_user_id: owner, trustee_user_id: user, project_id: idOf(walk, "project"),
    roles: [{ id: idOf(walk, "role") }] };
  await become(walk, "owner", "vv", "project");
  await make(walk, "trust", "OS-TRUST/trusts", "trust",
    { ...trust, impersonation: true, allow_redelegation: true, redelegation_count: 2 });
  await make(walk, "limited", "OS-TRUST/trusts", "trust",
    { ...trust, impersonation: false, remaining_uses: 2, expires_at: "2099-01-01T00:00:00.5Z" });
  const through = async (name: string): Promise<string | undefined> => (await oracle.call("POST", "/v3/auth/tokens",
    passwordAuth({ id: user, password: "pw5", scope: { "OS-TRUST:trust": { id: idOf(walk, name) } } }), { token: "",
      expect: 201 })).subject;
  await through("limited");
  oracle.become(await through("trust"));
  await make(walk, "redelegated", "OS-TRUST/trusts", "trust", { ...trust, trustee_user_id: idOf(walk, "linked"),
    impersonation: true,
    allow_redelegation: true, redelegation_count: 1 });
  await become(walk, "owner", "vv", "project");
  await make(walk, "plain", "OS-TRUST/trusts", "trust", { ...trust, trustee_user_id: idOf(walk, "linked"), impersonation: true });
  await run(walk, [["DELETE", `OS-TRUST/trusts/${idOf(walk, "trust")}`, 204]]);
  oracle.become();
}

const encoded = (text: string): string =>
  encodeURIComponent(text).replace(/[!*'()]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);

/** An Authorization header as RFC 5849 wants it, for a POST with an empty body. */
function signed(url: string, consumer: { readonly id: string; readonly secret: string }, more: Readonly<Record<string, string>>,
  tokenSecret: string): string {
  const values: Record<string, string> = { oauth_consumer_key: consumer.id, oauth_nonce: systemRandom.id().replace(/\D/g,
    "").padEnd(20, "7"),
    oauth_signature_method: "HMAC-SHA1", oauth_timestamp: String(Math.floor(Date.now() / 1000)), oauth_version: "1.0", ...more };
  const parameters = Object.keys(values).sort().map((name) => `${encoded(name)}=${encoded(values[name] ?? "")}`).join("&");
  const text = ["POST", encoded(url), encoded(parameters)].join("&");
  const signature = createHmac("sha1", `${encoded(consumer.secret)}&${encoded(tokenSecret)}`).update(text).digest("base64");
  const fields = Object.entries({ ...values, oauth_signature: signature });
  return `OAuth ${fields.map(([name, value]) => `${name}="${encoded(value)}"`).join(", ")}`;
}

async function oauth(walk: Walk): Promise<void> {
  const { oracle } = walk;
  const { proxy } = oracle.clouds.lab.endpoints.centre;
  const me = await oracle.clouds.call("GET", "/v3/auth/tokens", undefined,
    { headers: { "x-subject-token": oracle.clouds.admin } });
  const made = await make(walk, "consumer", "OS-OAUTH1/consumers", "consumer", { description: "c" });
  const consumer = { id: idOf(walk, "consumer"), secret: made.at("$.consumer.secret") };
  await run(walk, [["PATCH", `OS-OAUTH1/consumers/${consumer.id}`, 200, { consumer: { description: "changed" } }]]);
  const post = async (name: string, more: Readonly<Record<string, string>>, tokenSecret: string): Promise<URLSearchParams> => {
    const path = `/v3/OS-OAUTH1/${name}`;
    return new URLSearchParams((await oracle.call("POST", path, "", { token: "", expect: 201, headers: {
      authorization: signed(`${proxy}${path}`, consumer, more, tokenSecret),
        "requested-project-id": me.at("$.token.project.id") } })).text);
  };
  for (const isDeleted of [true, false]) {
    const asked = await post("request_token", { oauth_callback: "oob" }, "");
    const key = asked.get("oauth_token") ?? "";
    const granted = await oracle.call("PUT", `/v3/OS-OAUTH1/authorize/${key}`, { roles: [{ name: "admin" }] }, { expect: 200 });
    const token = await post("access_token", { oauth_token: key, oauth_verifier: granted.at("$.token.oauth_verifier") },
      asked.get("oauth_token_secret") ?? "");
    const place = `users/${me.at("$.token.user.id")}/OS-OAUTH1/access_tokens/${token.get("oauth_token")}`;
    if (isDeleted) await run(walk, [["DELETE", place, 204]]);
  }
  await run(walk, [["DELETE", `OS-OAUTH1/consumers/${consumer.id}`, 204]]);
}

async function catalogue(walk: Walk): Promise<void> {
  const { mark } = walk;
  await make(walk, "region", "regions", "region", { id: `reg ${mark}` });
  await run(walk, [
    ["PUT", `regions/sub-${mark}`, 201, { region: { parent_region_id: `reg ${mark}` } }],
    ["POST", "regions", 201, { region: { id: `subsub-${mark}`, parent_region_id: `sub-${mark}` } }],
    ["PATCH", `regions/sub-${mark}`, 200, { region: { description: "changed" } }],
  ]);
  await make(walk, "service", "services", "service", { type: "t", name: `s-${mark}` });
  const service = idOf(walk, "service");
  const endpoint = { service_id: service, interface: "public", url: "http://x/" };
  await make(walk, "endpoint", "endpoints", "endpoint", { ...endpoint, region: `made-${mark}` });
  await make(walk, "endpoint2", "endpoints", "endpoint", { ...endpoint, interface: "admin", region_id: `made-${mark}` });
  const [one, two] = [idOf(walk, "endpoint"), idOf(walk, "endpoint2")];
  const [parent, project] = [idOf(walk, "parent"), idOf(walk, "project")];
  const associated = (target: string, which: string): string => `OS-EP-FILTER/projects/${target}/endpoints/${which}`;
  await run(walk, [
    ["PATCH", `services/${service}`, 200, { service: { description: "changed" } }],
    ["POST", "endpoints", 400, { endpoint: { ...endpoint, service_id: "nope", region: `orphan-${mark}` } }],
    ["PATCH", "endpoints/nope", 404, { endpoint: { url: "http://x/", region: `orphan2-${mark}` } }],
    ["PATCH", `endpoints/${one}`, 200, { endpoint: { url: "http://y/", region: `made2-${mark}` } }],
    ["PATCH", `endpoints/${one}`, 400, { endpoint: { service_id: "nope", region: `orphan3-${mark}` } }],
    ["PUT", associated(parent, one), 204], ["DELETE", associated(parent, one), 204], ["PUT", associated(parent, one), 204],
    ["PUT", associated(project, one), 204], ["PUT", associated(project, two), 204],
  ]);
  await make(walk, "endpointGroup", "OS-EP-FILTER/endpoint_groups", "endpoint_group",
    { name: `eg-${mark}`, filters: { interface: "public" } });
  const group = `OS-EP-FILTER/endpoint_groups/${idOf(walk, "endpointGroup")}`;
  await run(walk, [
    ["PATCH", group, 200, { endpoint_group: { name: `eg2-${mark}` } }],
    ["PUT", `${group}/projects/${parent}`, 204], ["PUT", `${group}/projects/${project}`, 204],
    ["DELETE", `${group}/projects/${project}`, 204], ["PUT", `${group}/projects/${project}`, 204],
  ]);
}

async function policiesAndLimits(walk: Walk): Promise<void> {
  const { mark, oracle } = walk;
  const [service, project] = [idOf(walk, "service"), idOf(walk, "project")];
  for (const name of ["policy", "policy2"]) await make(walk, name, "policies", "policy", { blob: "{}",
    type: "application/json" });
  const [first, second] = [idOf(walk, "policy"), idOf(walk, "policy2")];
  await run(walk, [["PATCH", `policies/${first}`, 200, { policy: { blob: "{\"a\":1}" } }]]);
  for (const target of [`endpoints/${idOf(walk, "endpoint")}`, `services/${service}`,
    `services/${service}/regions/sub-${mark}`]) {
    const at = (policy: string): string => `policies/${policy}/OS-ENDPOINT-POLICY/${target}`;
    await run(walk, [["PUT", at(first), 204], ["PUT", at(second), 204], ["DELETE", at(second), 204], ["PUT", at(second), 204]]);
  }
  await run(walk, [["DELETE", `policies/${first}`, 204]]);
  const limit = { service_id: service, resource_name: "r1", resource_limit: 3 };
  const idsIn = (text: string): readonly string[] => [...text.matchAll(/"id": ?"([0-9a-f]{32})"/g)].map((match) =>
    match[1] ?? "");
  const registered = await oracle.call("POST", "/v3/registered_limits", { registered_limits: [
    { service_id: service, resource_name: "r1", default_limit: 5 },
    { service_id: service, resource_name: "r2", default_limit: 5, region_id: `sub-${mark}` }] }, { expect: 201 });
  const [regular, regional] = idsIn(registered.text);
  for (const each of [regular, regional]) {
    await run(walk, [["PATCH", `registered_limits/${each}`, 200, { registered_limit: { default_limit: 6 } }]]);
  }
  const limits = await oracle.call("POST", "/v3/limits", { limits: [{ ...limit, project_id: project },
    { ...limit, project_id: idOf(walk, "parent") }, { ...limit, domain_id: idOf(walk, "domain") }] }, { expect: 201 });
  const [projectLimit, , domainLimit] = idsIn(limits.text);
  await run(walk, [
    ["POST", "limits", undefined, { limits: [{ ...limit, resource_name: "r2", region_id: `sub-${mark}`, project_id: project },
      { ...limit, project_id: project }] }],
    ["PATCH", `limits/${projectLimit}`, 200, { limit: { resource_limit: 9 } }],
    ["DELETE", `registered_limits/${regular}`, 403],
    ["DELETE", `limits/${domainLimit}`, 204],
    ["DELETE", `registered_limits/${regional}`, 204],
  ]);
}

/**
 * Associations with an endpoint that is gone cannot be made through the API: they are put into both databases. Each is another
 * one: the stream already holds that the first is gone, and what is made behind its back is not its event to tell.
 */
async function catalogueEnds(walk: Walk): Promise<void> {
  const { oracle, mark } = walk;
  const project = idOf(walk, "project");
  await run(walk, [["DELETE", `OS-EP-FILTER/endpoint_groups/${idOf(walk, "endpointGroup")}`, 204]]);
  for (const method of ["GET", "HEAD"]) {
    await oracle.plant("project_endpoint", [{ endpoint_id: `gone-${method}-${mark}`, project_id: project }]);
    await run(walk, [[method, `OS-EP-FILTER/projects/${project}/endpoints`, 200]]);
  }
  await run(walk, [["DELETE", `endpoints/${idOf(walk, "endpoint")}`, 204], ["DELETE", `services/${idOf(walk, "service")}`, 204],
    ["DELETE", `regions/${encodeURIComponent(idOf(walk, "region"))}`, 204]]);
}

/** Collections: member name, and the method that makes one. */
const COLLECTIONS = [["OS-EP-FILTER/endpoint_groups", "endpoint_group", "POST"],
  ["OS-FEDERATION/identity_providers", "identity_provider", "PUT"], ["OS-FEDERATION/mappings", "mapping", "PUT"],
  ["OS-FEDERATION/service_providers", "service_provider", "PUT"], ["OS-OAUTH1/consumers", "consumer", "POST"],
  ["credentials", "credential", "POST"], ["domains", "domain", "POST"], ["endpoints", "endpoint", "POST"], ["groups", "group",
    "POST"],
  ["limits", "limit", "POST"], ["policies", "policy", "POST"], ["projects", "project", "POST"], ["regions", "region", "POST"],
  ["registered_limits", "registered_limit", "POST"], ["roles", "role", "POST"], ["services", "service", "POST"],
  ["users", "user", "POST"]] as const;

async function misplaced(walk: Walk): Promise<void> {
  const { oracle, mark } = walk;
  const members: Readonly<Record<string, string>> = { domain: idOf(walk, "domain"), group: idOf(walk, "group"),
    project: idOf(walk, "parent"), user: idOf(walk, "user"), role: idOf(walk, "role"), region: `made-${mark}` };
  for (const [collection, member, makes] of COLLECTIONS) {
    const body = { [member]: { name: `mis-${mark}`, description: "misplaced" } };
    await run(walk, [["DELETE", collection, undefined], ["PATCH", collection, undefined, body],
      makes === "PUT" ? ["PUT", collection, undefined, body] : ["POST", `${collection}/${members[member] ?? "nope"}`, undefined,
        body]]);
  }
  const signedIn = { auth: { identity: { methods: ["token"], token: { id: oracle.clouds.admin } },
    scope: { service_provider: { id: "x" } } } };
  await run(walk, [["DELETE", "OS-TRUST/trusts", undefined], ["POST", `OS-TRUST/trusts/${idOf(walk, "limited")}`, undefined,
    { trust: {} }],
    ["PUT", "regions", undefined, { region: { id: `putr-${mark}` } }],
    ["POST", "auth/OS-FEDERATION/saml2", undefined, signedIn], ["POST", "auth/OS-FEDERATION/saml2/ecp", undefined, signedIn]]);
  const basic = Buffer.from(`${idOf(walk, "delegated")}:${idOf(walk, "delegatedSecret")}`).toString("base64");
  for (const method of ["PUT", "PATCH", "DELETE", "POST"]) {
    await oracle.call(method, "/v3/OS-OAUTH2/token", method === "DELETE" ? undefined : "grant_type=client_credentials",
      { headers: { "content-type": "application/x-www-form-urlencoded", authorization: `Basic ${basic}` } });
  }
  const dead = await oracle.clouds.tokenOf({ id: idOf(walk, "owner"), password: "vv" });
  await oracle.call("DELETE", "/v3/auth/tokens", undefined, { headers: { "x-subject-token": dead }, expect: 204 });
}

async function otherSpellings(walk: Walk): Promise<void> {
  const [owner, disabled, group] = ["owner", "disabled", "group"].map((name) => idOf(walk, name).toUpperCase());
  // What an upper-case id means is the database's business: MariaDB finds the row, PostgreSQL does not.
  await run(walk, [["PATCH", `users/${owner}`, undefined, { user: { description: "upper case" } }],
    ["PUT", `projects/${idOf(walk, "project")}/users/${owner}/roles/${idOf(walk, "role2")}`, undefined],
    ["PUT", `groups/${group}/users/${disabled}`, undefined], ["DELETE", `users/${disabled}`, undefined]]);
}

async function endings(walk: Walk): Promise<void> {
  const { mark, oracle } = walk;
  const { provider, protocol } = federationOf(walk);
  const [user, owner, group, role, role2] = ["user", "owner", "group", "role", "role2"].map((name) => idOf(walk, name));
  const [domain, domain2, parent, project] = ["domain", "domain2", "parent", "project"].map((name) => idOf(walk, name));
  await run(walk, [["PATCH", `users/${owner}`, 200, { user: { enabled: false } }], ["DELETE", `projects/${parent}`, 403],
    ["DELETE", `projects/${idOf(walk, "child")}`, 204], ["DELETE", `projects/${parent}`, 204],
    ["PUT", `domains/default/users/${user}/roles/${role2}`, 204],
    ["DELETE", protocol, 204], ["PUT", protocol, 201, { protocol: { mapping_id: `m-${mark}` } }]]);
  await federated(walk, "GET", `${protocol}/auth`, "fresh", 201);
  await run(walk, [["DELETE", provider, 204], ["DELETE", `roles/${role}`, 204]]);
  await make(walk, "unused", "groups", "group", { name: `gg-${mark}` });
  await make(walk, "systemGroup", "groups", "group", { name: `g2-${mark}`, domain_id: domain });
  await run(walk, [["DELETE", `groups/${idOf(walk, "unused")}`, 204],
    ["PUT", `projects/${project}/groups/${group}/roles/${role2}`, 204],
    ["PUT", `groups/${idOf(walk, "systemGroup")}/users/${user}`, 204],
    ["PUT", `system/groups/${idOf(walk, "systemGroup")}/roles/${role2}`, 204],
    ["DELETE", `groups/${group}`, 204], ["DELETE", `users/${owner}`, 204]]);
  await make(walk, "late", "projects", "project", { name: `late-${mark}`, domain_id: domain });
  await run(walk, [["DELETE", `domains/${domain}`, 403], ["PATCH", `domains/${domain}`, 200, { domain: { enabled: false } }],
    ["DELETE", `domains/${domain}`, 204]]);
  await make(walk, "lastUser", "users", "user", { name: `u3-${mark}`, domain_id: domain2, password: "x" });
  await run(walk, [["PUT", `projects/${project}/users/${idOf(walk, "lastUser")}/roles/${role2}`, 204],
    ["PATCH", `projects/${domain2}`, 200, { project: { enabled: false } }], ["DELETE", `projects/${domain2}`, 204],
    ["DELETE", `projects/${project}`, 204], ["DELETE", `credentials/${idOf(walk, "credential")}`, undefined],
    ["DELETE", `policies/${idOf(walk, "policy2")}`, 204], ["DELETE", `OS-FEDERATION/mappings/m-${mark}`, 204]]);
  await oracle.call("POST", "/v3/auth/tokens", passwordAuth({ name: "admin", password: "wrong" }), { token: "", expect: 401 });
}

/** The second half of the walk; it goes on where the first ended. */
export const FURTHER_CHAPTERS: readonly Chapter[] = [
  { name: "credentials", calls: credentials },
  { name: "trusts", calls: trusts },
  { name: "OAuth", calls: oauth },
  { name: "the catalogue", calls: catalogue },
  { name: "policies and limits", calls: policiesAndLimits },
  { name: "the end of the catalogue", calls: catalogueEnds },
  { name: "calls that no handler takes", calls: misplaced },
  { name: "ids in upper case", calls: otherSpellings },
  { name: "deletions that take a lot along", calls: endings },
];
