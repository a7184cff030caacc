/**
 * What the lab is for, shown once: a user made at the centre through the proxy can sign in at the site's own Keystone. Every
 * part takes part: proxy, capture, stream, sync daemon, both databases, caches and keys.
 */
import { systemClock } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import { systemRandom } from "../core/random.ts";
import { Secret } from "../core/secret.ts";
import { issueToken, makeUser, type Credentials } from "./identity.ts";
import { DEMONSTRATION_MS } from "./options.ts";
import type { CloudEndpoints } from "./record.ts";
import { until } from "./waiting.ts";

export interface Demonstrated {
  readonly user: string;
  readonly id: string;
  /** From the centre's answer to the first token issued at the site. */
  readonly delayMs: number;
}

export interface Stage {
  readonly centre: CloudEndpoints;
  readonly site: CloudEndpoints;
  readonly admin: Credentials;
  /** Log of the site's sync daemon. */
  readonly log: string;
}

/**
 * Makes a user with a fresh name and waits until the site knows it.
 * @throws E_LAB_STEP when the site does not within DEMONSTRATION_MS.
 */
export async function demonstrate({ centre, site, admin, log }: Stage): Promise<Demonstrated> {
  const token = await issueToken(centre.proxy, admin);
  if (token === undefined) throw new OperatingError("E_LAB_STEP", "the centre refuses the administrator's password", { log });
  const user = `hello-${systemRandom.id().slice(0, 8)}`;
  const password = new Secret(systemRandom.id());
  const id = await makeUser(centre.proxy, token, user, password);
  const answeredMs = systemClock.monotonicMs();
  await until({ what: `the arrival of user ${user} at the site`, withinMs: DEMONSTRATION_MS, log },
    async () => (await issueToken(site.direct, { user, password })) !== undefined);
  return { user, id, delayMs: systemClock.monotonicMs() - answeredMs };
}
