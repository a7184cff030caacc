/**
 * From images to statements: what must change in the site's database for it to hold these images as precisely as its columns
 * can, and carrying that out. Minimal: rows that are right already are not touched, so their caches, triggers and local columns
 * are not.
 */
import { present } from "../core/assert.ts";
import { differenceOf, type Step } from "../rows/difference.ts";
import { readImages } from "../rows/footprint.ts";
import { planOf } from "../rows/plan.ts";
import type { RowWriter, Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { keyText, type Image, type Row } from "../schemas/row.ts";
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

/** The image as this database can hold it: what is written is what is read back. */
export function fitted(rows: Rows, service: Service, image: Image): Image {
  if (image.rows === undefined) return image;
  const fittedRows: Record<string, readonly Row[]> = {};
  for (const [name, held] of Object.entries(image.rows)) {
    const table = present(service.tables.get(name), name);
    fittedRows[name] = held.map((row) => rows.fit(table, row));
  }
  return { key: image.key, rows: fittedRows };
}

/** Runs the statements; how many rows they named. */
export async function carryOut(write: RowWriter, plan: readonly Step[]): Promise<number> {
  let rows = 0;
  for (const step of plan) {
    rows += step.rows.length;
    if (step.verb === "remove") await write.remove(step.table, step.rows);
    else if (step.verb === "update") await write.update(step.table, step.rows, step.columns);
    else await write.insert(step.table, step.rows);
  }
  return rows;
}
