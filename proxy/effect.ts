/**
 * What an answer says about rows. Pure. A refusal in the service's own words usually wrote nothing; the service file names
 * those that may have. Everything that is not a clean answer is unknown: the upstream may commit minutes later. Source:
 * measured on the running services (docs/reference/keystone.md): 401 on sign-in and 409 on a duplicate identity write rows.
 */
import type { Capture } from "../schemas/define.ts";
import type { Relayed } from "./forward.ts";

/** "none": nothing to look at. "some": look, the answer names new aggregates. "unknown": look now and late, compare kinds. */
export type Effect = "none" | "some" | "unknown";

/** Refusals before a service does anything. */
const PLAIN_REFUSALS: ReadonlySet<number> = new Set([400, 401, 403, 404, 405, 406, 411, 413, 414, 415, 429, 431]);

/** Total: every outcome and status has an effect. */
export function effectOf(declared: Capture, relayed: Pick<Relayed, "outcome" | "status">): Effect {
  if (relayed.outcome === "refused") return "none";
  const { status } = relayed;
  if (relayed.outcome === "unknown" || status === undefined || status >= 500) return "unknown";
  if (declared.writesOnFailure?.includes(status) === true) return "some";
  return PLAIN_REFUSALS.has(status) ? "none" : "some";
}
