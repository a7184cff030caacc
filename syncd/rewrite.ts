/**
 * From images to statements: what must change in the site's database for it to hold these images as precisely as its columns
 * can, and carrying that out. Minimal: rows that are right already are not touched, so their caches, triggers and local columns
 * are not.
 */
import { present } from "../core/assert.ts";
import { fitted } from "../rows/carry-out.ts";
import { differenceOf, type Step } from "../rows/difference.ts";
import { readImages } from "../rows/footprint.ts";
import { planOf } from "../rows/plan.ts";
import type { RowWriter, Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { keyText } from "../schemas/row.ts";
import type { Received } from "./received.ts";

/** The statements that make the database hold the images of these changes, in a safe order. */
export async function planFor(write: RowWriter, rows: Rows, service: Service,
  ready: readonly Received[]): Promise<readonly Step[]> {
  const current = await readImages(write, service, ready.map((change) => change.image.key));
  const differences = ready.map((change) => {
    const stored = present(current.get(keyText(change.image.key)), "readImages answers for every key asked");
    // An engine that ignores case may answer with the row of another aggregate: a tombstone is not about that one.
    const isOther = change.image.rows === undefined && keyText(stored.key) !== keyText(change.image.key);
    return differenceOf(service, fitted(rows, service, change.image), isOther ? undefined : stored.rows);
  });
  return planOf(service, differences);
}
