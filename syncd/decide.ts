/**
 * What becomes of a received change: written, skipped or parked. Pure and total; the only judgement about versions and parents.
 * A change that the database refuses is judged in syncd/setaside.ts.
 */
import { compareVersions, replaces, type Version } from "../schemas/position.ts";
import { keyText } from "../schemas/row.ts";
import type { Received } from "./received.ts";
import type { Need } from "./references.ts";

export type Decision =
  | { readonly kind: "write" }
  | { readonly kind: "skip"; readonly because: "older" | "superseded" }
  | { readonly kind: "park"; readonly waits: readonly string[] };

/** The newest change of each aggregate in a batch, in the batch's order; the rest are superseded. */
export function newestOfEach(changes: readonly Received[]): readonly Received[] {
  const newest = new Map<string, Received>();
  for (const change of changes) {
    const name = keyText(change.image.key);
    if (!replaces(change.version, newest.get(name)?.version)) continue;
    newest.delete(name);
    newest.set(name, change);
  }
  return [...newest.values()];
}

/** Is the change news here? With `again` also the version that was applied is: its rows are written once more. */
export function isNews(change: Received, applied: Version | undefined, again: boolean): boolean {
  return replaces(change.version, applied) || (again && applied !== undefined && compareVersions(change.version, applied) === 0);
}

export interface Candidate {
  readonly change: Received;
  readonly needs: readonly Need[];
  /** Marks of rows that writing it makes available. */
  readonly provides: readonly string[];
  /** It has waited for soft needs long enough. */
  readonly impatient: boolean;
}

/**
 * Decides all candidates of a batch together: a candidate may lean on rows that another one of the batch brings, but not on a
 * candidate that is parked itself. `present`: marks that the database already has.
 */
export function decideBatch(candidates: readonly Candidate[], inDatabase: ReadonlySet<string>): ReadonlyMap<Candidate, Decision> {
  const decisions = new Map<Candidate, Decision>(candidates.map((candidate) => [candidate, { kind: "write" }]));
  for (let changed = true; changed; ) {
    changed = false;
    const brought = new Set<string>();
    for (const candidate of candidates) {
      if (decisions.get(candidate)?.kind === "write") for (const mark of candidate.provides) brought.add(mark);
    }
    for (const candidate of candidates) {
      if (decisions.get(candidate)?.kind !== "write") continue;
      const missing = candidate.needs.filter((need) =>
        (need.hard || !candidate.impatient) && !inDatabase.has(need.mark) && !brought.has(need.mark));
      if (missing.length === 0) continue;
      decisions.set(candidate, { kind: "park", waits: missing.map((need) => need.mark) });
      changed = true;
    }
  }
  return decisions;
}
