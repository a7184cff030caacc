/**
 * Carrying out what was planned, and what has to be done to an image before it is compared with rows. Shared by everybody who
 * writes images into a database.
 */
import { present } from "../core/assert.ts";
import type { Service } from "../schemas/define.ts";
import type { Image, Row } from "../schemas/row.ts";
import type { Step } from "./difference.ts";
import type { RowWriter, Rows } from "./rows.ts";

/** The image as this database can hold it: what is written is what is read back. Call after Rows.reflect(). */
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
