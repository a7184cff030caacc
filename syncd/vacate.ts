/**
 * Unique values that stand in the way. Compaction can bring a rename before the rename that freed its name, or the whole swap
 * in one batch; no engine lets a session switch unique keys off. A holder whose own newer image is in this batch, or is in the
 * stream ahead of us, is given a placeholder; its image sets it right. A holder that is up to date is a real conflict and keeps
 * its value: the newcomer waits (docs/protocol.md E5 "vacate").
 */
import { createHash } from "node:crypto";
import { present } from "../core/assert.ts";
import type { Step } from "../rows/difference.ts";
import { keysWhere } from "../rows/footprint.ts";
import type { RowWriter } from "../rows/rows.ts";
import type { Table } from "../schemas/define.ts";
import type { Version } from "../schemas/position.ts";
import { keyText, rowText, type Row } from "../schemas/row.ts";
import type { ApplyRooms } from "./apply.ts";
import { readApplied } from "./ledger.ts";
import type { Received } from "./received.ts";

/** Starts every placeholder; no service makes such names. */
export const PLACEHOLDER = "~vacated~";

/** The column of a unique key that can hold a placeholder: text, and neither part of the primary key nor a reference. */
function vacatedColumn(table: Table, unique: readonly string[]): string | undefined {
  const referring = new Set(table.references.flatMap((reference) => reference.columns));
  return unique.find((column) => !table.key.includes(column) && !referring.has(column) &&
    (table.columns[column] ?? "").startsWith("text"));
}

/** Rows that the plan writes to a table, whole as far as the plan knows them. */
function rowsWritten(plan: readonly Step[], table: string): readonly Row[] {
  return plan.filter((step) => step.table.name === table && step.verb !== "remove").flatMap((step) => step.rows);
}

function identities(plan: readonly Step[], table: Table, verb: "remove" | "update"): ReadonlySet<string> {
  const steps = plan.filter((step) => step.table.name === table.name && step.verb === verb);
  return new Set(steps.flatMap((step) => step.rows.map((row) => rowText(row, table.key))));
}

/**
 * May this holder be moved out of the way, although nothing in this batch gives it another value? Only if the stream holds a
 * newer image of its aggregate than the one it has, or gets in this batch: that image will set it right.
 */
async function isOutdated(write: RowWriter, rooms: ApplyRooms, table: Table, holder: Row,
  arriving: ReadonlyMap<string, Version>): Promise<boolean> {
  const kind = present(rooms.service.kindOfTable.get(table.name), table.name);
  const where = Object.fromEntries(table.key.map((column) => [column, [holder[column] ?? null]]));
  const owner = (await keysWhere(write, rooms.service, kind.name, table.name, where))[0];
  if (owner === undefined) return false;
  const name = keyText(owner);
  return rooms.isOutdated(name, arriving.get(name) ?? (await readApplied(write, [owner])).get(name));
}

/** Gives placeholders to the holders of unique values that the plan needs, where they may be moved. */
export async function vacateBlockers(write: RowWriter, rooms: ApplyRooms, plan: readonly Step[],
  ready: readonly Received[]): Promise<void> {
  const { service } = rooms;
  const arriving = new Map(ready.map((change) => [keyText(change.image.key), change.version]));
  for (const table of service.tables.values()) {
    const written = rowsWritten(plan, table.name);
    if (written.length === 0) continue;
    const removed = identities(plan, table, "remove");
    const own = new Map(written.map((row) => [rowText(row, table.key), row]));
    for (const unique of table.unique) {
      const column = vacatedColumn(table, unique);
      if (column === undefined) continue;
      const wanted = written.filter((row) => unique.every((each) => row[each] !== undefined && row[each] !== null));
      const holders = await write.select(table, { columns: unique,
        values: wanted.map((row) => unique.map((each) => row[each] ?? null)) });
      const blocking: Row[] = [];
      for (const holder of holders) {
        const identity = rowText(holder, table.key);
        const next = own.get(identity);
        const keepsValue = next !== undefined && unique.every((each) => next[each] === holder[each]);
        if (removed.has(identity) || keepsValue) continue;
        if (next !== undefined || await isOutdated(write, rooms, table, holder, arriving)) blocking.push(holder);
      }
      await write.update(table, blocking.map((row) => ({ ...row, [column]: placeholderFor(table, row) })), [column]);
    }
  }
}

function placeholderFor(table: Table, row: Row): string {
  return PLACEHOLDER + createHash("sha256").update(`${table.name} ${rowText(row, table.key)}`).digest("base64url").slice(0, 22);
}
