/**
 * STORY 3 of 3: what happens to a row. A batch of received changes becomes rows of the site's own database, and the position
 * moves, in one transaction: either everything is there after it, or nothing.
 *
 * Keeps I2 (versions never go back), I3 (position and effects in one commit), I4 (a change applied twice has one effect).
 * Not here: what to do when the database refuses (syncd/applier.ts), when to try a waiting change again (syncd/parking.ts),
 * local columns (never in an image, so never in a difference).
 */
import { OperatingError } from "../core/errors.ts";
import { carryOut } from "../rows/carry-out.ts";
import type { RowWriter, Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import { keyText, type Image } from "../schemas/row.ts";
import { decideBatch, isNews, newestOfEach, type Candidate } from "./decide.ts";
import { noteHeard, type Heard } from "./heard.ts";
import { forgetWaiting, lockPosition, movePosition, noteApplied, notePark, noteQuarantine, readApplied, type AppliedNote,
  type StoredPosition } from "./ledger.ts";
import type { Received, Unreadable } from "./received.ts";
import { markOf, marksOf, needsOf, questionsOf } from "./references.ts";
import { planFor } from "./rewrite.ts";
import { vacateBlockers } from "./vacate.ts";

export interface ApplyRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly stream: string;
  /** Does the stream hold a newer image of this aggregate than `held`? Asked only about holders of unique values. */
  readonly isOutdated: (name: string, held: Version | undefined) => Promise<boolean>;
}

export interface Batch {
  readonly changes: readonly Received[];
  readonly unreadable: readonly Unreadable[];
  /** The position this daemon believes in; another one's commit makes the batch void. */
  readonly held: StoredPosition;
  readonly moveTo: StoredPosition;
  /** Names of changes that waited for soft references long enough. */
  readonly impatient: ReadonlySet<string>;
  /** True for aggregates with a note in the ledger that they wait or are quarantined. */
  readonly isWaiting: (name: string) => boolean;
  /** Look for holders of unique values first: set after the database refused one. */
  readonly careful: boolean;
  /** Versions that were applied already are written once more: a repair. */
  readonly again: boolean;
  /** The heartbeat that `moveTo` passes. */
  readonly heard: Heard | undefined;
  /** For the ledger: when this happens, wire datetime. */
  readonly now: string;
}

export interface Applied {
  readonly written: readonly Received[];
  readonly parked: readonly { readonly change: Received; readonly waits: readonly string[] }[];
  /** What the ledger noted of these aggregates before. */
  readonly before: ReadonlyMap<string, AppliedNote>;
  readonly skipped: number;
  readonly rowsWritten: number;
  /** Marks of rows that are there now. */
  readonly marks: readonly string[];
}

/** Applies one batch and moves the position, in one transaction. Throws what the database says; then nothing happened. */
export function applyBatch(rooms: ApplyRooms, batch: Batch): Promise<Applied> {
  return rooms.rows.transaction(async (write) => {
    await fence(write, rooms.stream, batch.held);
    const newest = newestOfEach(batch.changes);
    const applied = await readApplied(write, newest.map((change) => change.image.key));
    const news = newest.filter((change) => isNews(change, applied.get(keyText(change.image.key)), batch.again));
    const { ready, parked } = await partByParents(write, rooms.service, news, batch.impatient);
    const plan = await planFor(write, rooms.rows, rooms.service, ready);
    if (batch.careful) await vacateBlockers(write, rooms, plan, ready);
    const rowsWritten = await carryOut(write, plan);
    const noted = [...news.map((change) => change.image.key), ...batch.unreadable.map((each) => each.key)];
    await forgetWaiting(write, noted.filter((key) => batch.isWaiting(keyText(key))));
    await noteApplied(write, ready.map(asEntry), applied);
    await notePark(write, parked.map(({ change, waits }) =>
      ({ ...asEntry(change), code: "E_PARENT_MISSING", reason: "rows that it refers to", waits, since: batch.now })));
    await noteQuarantine(write, batch.unreadable.map((each) =>
      ({ ...each, digest: "", code: each.error.code, reason: each.error.message, since: batch.now })));
    if (batch.heard !== undefined) await noteHeard(write, rooms.stream, batch.heard);
    await movePosition(write, rooms.stream, batch.moveTo, batch.moveTo.turn);
    const marks = ready.flatMap((change) => marksOf(rooms.service, change.image));
    return { written: ready, parked, before: applied, skipped: batch.changes.length - news.length, rowsWritten, marks };
  });
}

/** Nobody else has committed here since this daemon did, and nothing that it committed was lost. */
async function fence(write: RowWriter, stream: string, held: StoredPosition): Promise<void> {
  const stored = await lockPosition(write, stream);
  if (stored !== undefined && stored.turn === held.turn && compareVersions(stored, held) === 0) return;
  throw new OperatingError("E_SITE_CONTENDED", "the position was moved by somebody else", { stream });
}

/** Parts the changes into those whose parents are there, or come with them, and those that must wait. */
async function partByParents(write: RowWriter, service: Service, news: readonly Received[], impatient: ReadonlySet<string>):
  Promise<{ ready: readonly Received[]; parked: readonly { change: Received; waits: readonly string[] }[] }> {
  const candidates = news.map((change): Candidate => ({ change, needs: needsOf(service, change.image),
    provides: marksOf(service, change.image), impatient: impatient.has(keyText(change.image.key)) }));
  const inDatabase = new Set<string>();
  for (const { table, columns, values } of questionsOf(service, candidates.flatMap((candidate) => candidate.needs))) {
    for (const row of await write.select(table, { columns, values }, columns)) {
      inDatabase.add(markOf(table.name, columns, columns.map((column) => row[column] ?? null)));
    }
  }
  const ready: Received[] = [];
  const parked: { change: Received; waits: readonly string[] }[] = [];
  for (const [{ change }, decision] of decideBatch(candidates, inDatabase)) {
    if (decision.kind === "park") parked.push({ change, waits: decision.waits });
    else ready.push(change);
  }
  return { ready, parked };
}

function asEntry(change: Received): { key: Image["key"]; version: Version; digest: string; payload: string | undefined } {
  return { key: change.image.key, version: change.version, digest: change.digest, payload: change.payload };
}
