/**
 * Who answers a call that came to a site's proxy. One pure function over everything it may depend on, total by its types; the
 * table in docs/serving.md is made of it and kept by a test.
 *
 * Laws: a call that may change rows is never sent to both clouds; while the centre is not given up, nobody but the centre
 * changes what is shared; a call that only reads, or signs in, is always answered by somebody.
 * Not here: how the state of the link is found (reach.ts), how old the site's rows are (freshness.ts), doing it (site.ts).
 */
import { unreachable } from "../core/assert.ts";
import type { RouteClass } from "./route.ts";

/** The site's view of the way to the centre; see reach.ts for how it changes. */
export type ReachState = "connected" | "suspect" | "cut" | "recovering";
export const REACH_STATES: readonly ReachState[] = ["connected", "suspect", "cut", "recovering"];

/**
 * centre-first: the centre answers, the site when the centre cannot. local-first: the site answers while its rows are fresh and
 * the caller has not just changed something.
 */
export type Profile = "centre-first" | "local-first";
export const PROFILES: readonly Profile[] = ["centre-first", "local-first"];

export interface Situation {
  readonly routeClass: RouteClass;
  readonly profile: Profile;
  readonly reach: ReachState;
  /** The site has what the centre had a moment ago. */
  readonly fresh: boolean;
  /** The caller changed something through this proxy a moment ago, which may not have arrived at the site's database. */
  readonly wrote: boolean;
}

/**
 * centre: the centre alone, and its failure is the answer. centre-or-local: the centre, and in the same call the site when the
 * centre cannot; local-or-centre: the other way round. local: the site alone. refuse: nobody; the client is told why.
 */
export type Choice = "centre" | "centre-or-local" | "local-or-centre" | "local" | "refuse";

/** See the file's head. */
export function choose({ routeClass, profile, reach, fresh, wrote }: Situation): Choice {
  switch (routeClass) {
    case "write": return reach === "cut" ? "refuse" : "centre";
    case "read":
    case "sign-in":
      if (reach === "cut") return "local";
      // The link is back and the centre answers: whoever has just changed something there must not lose sight of it again.
      if (reach === "recovering") return wrote ? "centre-or-local" : "local";
      return profile === "local-first" && fresh && !wrote ? "local-or-centre" : "centre-or-local";
    default: return unreachable(routeClass);
  }
}
