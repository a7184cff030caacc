/**
 * What a caller says it saw before it writes: If-Match and If-None-Match. Pure. A state is named by the digest that an answer
 * gave as its ETag, or by the version it was published under.
 */
import { OperatingError } from "../core/errors.ts";
import { isSameVersion, versionFrom, versionText } from "./naming.ts";
import { Refusal } from "./refusal.ts";
import type { Placed } from "./writing.ts";

/** What is there now. */
export interface Present {
  /** Digest of the record or aggregate that the path names. */
  readonly digest: string;
  readonly placed: Placed | undefined;
  /** True when the rows are those that were published under `placed.version`. */
  readonly asPlaced: boolean;
}

export type Precondition = { readonly wants: "nothing" | "absence" | "presence" }
  | { readonly wants: "state"; readonly words: readonly string[] };

function wordsOf(header: string): readonly string[] {
  return header.split(",").map((word) => word.trim().replace(/^"([^"]*)"$/, "$1"));
}

/** Reads the two headers. @throws E_REQUEST_MALFORMED when they cannot both hold, or hold a weak tag */
export function preconditionOf(ifMatch: string | undefined, ifNoneMatch: string | undefined): Precondition {
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch.trim() === "*" && ifMatch === undefined) return { wants: "absence" };
    throw new OperatingError("E_REQUEST_MALFORMED", "If-None-Match is * here, and stands alone");
  }
  if (ifMatch === undefined) return { wants: "nothing" };
  return ifMatch.trim() === "*" ? { wants: "presence" } : { wants: "state", words: wordsOf(ifMatch) };
}

function conflict(status: number, message: string, found: Present | undefined): Refusal {
  return new Refusal(status, "E_RECORD_CONFLICT", message, found === undefined ? {}
    : { digest: found.digest, version: found.placed === undefined ? undefined : versionText(found.placed.version) });
}

function isNamedBy(word: string, { digest, placed, asPlaced }: Present): boolean {
  const version = versionFrom(word);
  if (version === undefined) return word === digest;
  return placed !== undefined && asPlaced && isSameVersion(version, placed.version);
}

/**
 * Does what is there allow the change? `versioned`: the version of the change decides, so nothing need be said about what was
 * seen. @throws E_RECORD_CONFLICT (412, 428) with what is there
 */
export function mustHold(precondition: Precondition, found: Present | undefined, versioned: boolean): void {
  switch (precondition.wants) {
    case "nothing":
      if (found === undefined || versioned) return;
      throw conflict(428, "it is there: say in If-Match which state of it you mean", found);
    case "absence":
      if (found === undefined) return;
      throw conflict(412, "it is there already", found);
    case "presence":
      if (found !== undefined) return;
      throw conflict(412, "it is not there", found);
    case "state":
      if (found !== undefined && precondition.words.some((word) => isNamedBy(word, found))) return;
      throw conflict(412, found === undefined ? "it is not there" : "it is there in another state", found);
  }
}
