/**
 * The few calls to Keystone's API that the lab itself makes.
 * Source of paths and bodies: OpenStack's Identity API v3 reference.
 */
import { OperatingError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { call } from "./http.ts";

export interface Credentials {
  readonly user: string;
  readonly password: Secret;
  /** A project of the default domain to scope the token to; without it the token is unscoped. */
  readonly project?: string;
}

/** Longest piece of an unexpected answer that a failure quotes, in characters. */
const TEXT_SHOWN_MAX = 300;
const DEFAULT_DOMAIN = { id: "default" };

/** A token from the Keystone at `url` (without /v3); undefined when it refuses the credentials. Rejects when nobody answers. */
export async function issueToken(url: string, { user, password, project }: Credentials): Promise<Secret | undefined> {
  const answer = await call({ url: `${url}/v3/auth/tokens`, method: "POST", body: { auth: {
    identity: { methods: ["password"], password: { user: { name: user, domain: DEFAULT_DOMAIN, password: password.reveal() } } },
    ...(project === undefined ? {} : { scope: { project: { name: project, domain: DEFAULT_DOMAIN } } }),
  } } });
  const token = answer.headers["x-subject-token"];
  return answer.status === 201 && typeof token === "string" ? new Secret(token) : undefined;
}

/**
 * Makes a user of the default domain through the API at `url`; gives its id.
 * @throws E_LAB_STEP when the API refuses.
 */
export async function makeUser(url: string, token: Secret, name: string, password: Secret): Promise<string> {
  const answer = await call({ url: `${url}/v3/users`, method: "POST", headers: { "x-auth-token": token.reveal() },
    body: { user: { name, password: password.reveal(), domain_id: DEFAULT_DOMAIN.id } } });
  const found = answer.status === 201 ? /"id": ?"([0-9a-f]{32})"/.exec(answer.text)?.[1] : undefined;
  if (found === undefined) {
    const text = answer.text.slice(0, TEXT_SHOWN_MAX);
    throw new OperatingError("E_LAB_STEP", `POST ${url}/v3/users answered ${answer.status}: ${text}`);
  }
  return found;
}
