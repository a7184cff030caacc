/**
 * Users of the lab's stream server: the centre may do everything, each site exactly what feed/permissions.ts lists for the
 * services it follows. Pure: records in, text of the server's configuration out.
 */
import { assert } from "../core/assert.ts";
import type { Secret } from "../core/secret.ts";
import { sitePermissions, type Permissions } from "../feed/permissions.ts";
import { SCOPE_ALL } from "../feed/subjects.ts";

export interface StreamUser {
  readonly name: string;
  readonly password: Secret;
  readonly permissions: Permissions;
}

export const CENTRE_PERMISSIONS: Permissions = { publish: [">"], subscribe: [">"] };

/**
 * What the user of `site` may do.
 * @param site      lower-case letters, digits and hyphens: "." and "*" mean something in subjects, and with "_" the name of one
 *                  site could be that of another's second consumer.
 * @param services  the services it follows, by the names of their files under schemas/.
 */
export function permissionsOf(site: string, services: readonly string[]): Permissions {
  assert(/^[a-z0-9][a-z0-9-]*$/.test(site), `"${site}" is no site name`);
  const each = services.map((service) => sitePermissions(service, SCOPE_ALL, site));
  return { publish: [...new Set(each.flatMap(({ publish }) => publish))],
    subscribe: [...new Set(each.flatMap(({ subscribe }) => subscribe))] };
}

/** The `authorization` block of nats-server's configuration, in which JSON strings are valid strings. */
export function authorizationBlock(users: readonly StreamUser[]): string {
  const list = (subjects: readonly string[]): string =>
    subjects.map((subject) => `          ${JSON.stringify(subject)}`).join("\n");
  const blocks = users.map(({ name, password, permissions }) => `    {
      user: ${JSON.stringify(name)}
      password: ${JSON.stringify(password.reveal())}
      permissions {
        publish { allow: [
${list(permissions.publish)}
        ] }
        subscribe { allow: [
${list(permissions.subscribe)}
        ] }
      }
    }`);
  return `authorization {\n  users: [\n${blocks.join("\n")}\n  ]\n}\n`;
}
