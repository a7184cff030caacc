/**
 * The gate before any row is read or written: the live database is the one the service file was verified against, or nothing
 * happens.
 */
import { OperatingError } from "../core/errors.ts";
import type { Service } from "../schemas/define.ts";
import type { Rows } from "./rows.ts";
import { revisionMismatches, schemaMismatches } from "./verify.ts";

/** Differences named in one message; the rest are counted. */
const NAMED_MAX = 20;

/**
 * Checks the live schema against the service file and gives the revision that images are labelled with ("a+b" for two heads).
 * @throws E_SCHEMA_UNKNOWN, E_SCHEMA_MISMATCH with the differences, E_ROWS_UNAVAILABLE.
 */
export async function verifiedSchema(service: Service, rows: Rows): Promise<string> {
  const live = await rows.reflect();
  const revisions = await rows.revisions(service.migrations.table, service.migrations.column);
  const mismatches = [...revisionMismatches(service, revisions), ...schemaMismatches(service, live)];
  const first = mismatches[0];
  if (first !== undefined) {
    const named = mismatches.slice(0, NAMED_MAX).map((each) => `${each.table}: expected ${each.expected}, found ${each.found}`);
    throw new OperatingError(first.code, `${mismatches.length} differences: ${named.join("; ")}`, { service: service.name });
  }
  return [...revisions].sort().join("+");
}
