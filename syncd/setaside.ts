/**
 * What becomes of a single change that the database refused: parked for another try, or quarantined for a person. Pure.
 * The rest of its batch was applied already; the position moves past it (poison never blocks the others).
 */
import { isOperating, type ErrorCode, type OperatingError } from "../core/errors.ts";

export type SetAside =
  | { readonly how: "park"; readonly code: "E_UNIQUE_BLOCKED" | "E_PARENT_MISSING"; readonly reason: string }
  | { readonly how: "quarantine"; readonly code: ErrorCode; readonly reason: string };

/** Undefined: not the change's fault (an outage); the whole batch is tried again. */
export function setAside(error: OperatingError): SetAside | undefined {
  switch (error.code) {
    case "E_ROWS_UNIQUE":
      return { how: "park", code: "E_UNIQUE_BLOCKED", reason: error.message };
    case "E_ROWS_REFERENCE":
      return { how: "park", code: "E_PARENT_MISSING", reason: error.message };
    case "E_ROWS_REFUSED":
      return { how: "quarantine", code: error.code, reason: error.message };
    default:
      return undefined;
  }
}

/** True for errors that one change of a batch may have caused: the batch is split to find it. */
export function isRefusal(error: unknown): error is OperatingError {
  return isOperating(error, "E_ROWS_UNIQUE", "E_ROWS_REFERENCE", "E_ROWS_REFUSED");
}
