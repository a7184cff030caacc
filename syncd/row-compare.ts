/**
 * What the rows of this site are, beside what they were made of: the ledger's images. One call looks at some aggregates in one
 * state of the database that holds both, so a change that is being applied is seen before or after, never half.
 *
 * No drift: local columns (not in images); what a column that moves by itself says further on (Table.moves); placeholders of
 * vacated unique values, which the stream will set right; pruned rows of logs, and rows that the site's service added to
 * them; aggregates that wait (parked, quarantined) or are excepted; two spellings of one key that this engine cannot tell apart.
 * Not here: when to look and what to do about it (row-audit.ts), owned rows without a root (row-orphans.ts).
 */
import { present } from "../core/assert.ts";
import { fitted } from "../rows/carry-out.ts";
import { differenceOf, isEmpty, type Difference } from "../rows/difference.ts";
import { isExcepted, readImages } from "../rows/footprint.ts";
import type { RowReader, Rows } from "../rows/rows.ts";
import type { Service, Table } from "../schemas/define.ts";
import type { Version } from "../schemas/position.ts";
import { digestOf, keyFromText, keyText, rowText, type AggregateKey, type Image, type ImageRows, type Row, type Value,
} from "../schemas/row.ts";
import type { DriftFinding } from "./drift.ts";
import { APPLIED_TABLE, hashOf, PARKED_TABLE, QUARANTINE_TABLE, readApplied, type AppliedNote } from "./ledger.ts";
import { receiveAgain, removalOf, type Received } from "./received.ts";
import { PLACEHOLDER } from "./vacate.ts";

/** Stored images read at a time: each may be as large as the feed carries. */
const PAYLOADS_PER_READ = 50;
/** Older than anything that was ever published: whatever the centre says of the aggregate later replaces it. */
export const BEFORE_ALL: Version = { epoch: 0, sequence: 0 };

export interface CompareRooms {
  readonly service: Service;
  readonly rows: Rows;
}

/** What the ledger says was applied of one aggregate. */
export interface AppliedEntry extends AppliedNote {
  readonly name: string;
}

/** An aggregate whose rows are not what they were made of, and the change that puts them right. */
export interface Deviation extends DriftFinding {
  readonly kind: string;
  readonly change: Received;
  /** The name that the rows carry now, if an engine that ignores case found them under another spelling. */
  readonly spelledAs: string | undefined;
}

export interface Compared {
  readonly deviations: readonly Deviation[];
  /** Rows that were read for it. */
  readonly rowsRead: number;
}

/** Which of these aggregates have a change that waits. */
export async function readWaitingNames(read: RowReader, names: readonly string[]): Promise<ReadonlySet<string>> {
  const match = { columns: ["hash"], values: names.map((name) => [hashOf(keyFromText(name))]) };
  const parked = await read.select(PARKED_TABLE, match, ["name"]);
  const quarantined = await read.select(QUARANTINE_TABLE, match, ["name"]);
  return new Set([...parked, ...quarantined].map((row) => String(row["name"])));
}

function countRows(rows: ImageRows | undefined): number {
  return Object.values(rows ?? {}).reduce((sum, held) => sum + held.length, 0);
}

/** Live aggregates of `entries` whose rows are not those of their images. */
export async function compareLive(read: RowReader, rooms: CompareRooms, entries: readonly AppliedEntry[]): Promise<Compared> {
  const { service } = rooms;
  const known = entries.filter((entry) => !entry.deleted && service.kinds.has(keyFromText(entry.name).kind));
  const waiting = await readWaitingNames(read, known.map((entry) => entry.name));
  const awake = known.filter((entry) => !waiting.has(entry.name) && !isExceptedName(service, entry.name));
  const images = await readImages(read, service, awake.map((entry) => keyFromText(entry.name)));
  let rowsRead = 0;
  const suspects: { readonly entry: AppliedEntry; readonly image: Image }[] = [];
  for (const entry of awake) {
    const image = present(images.get(entry.name), "readImages answers for every key asked");
    rowsRead += Math.max(1, countRows(image.rows));
    const isPruned = image.rows === undefined && service.kinds.get(image.key.kind)?.log !== undefined;
    if (!isPruned && (image.rows === undefined || digestOf(image) !== entry.digest)) suspects.push({ entry, image });
  }
  const deviations: Deviation[] = [];
  for (let start = 0; start < suspects.length; start += PAYLOADS_PER_READ) {
    const run = suspects.slice(start, start + PAYLOADS_PER_READ);
    deviations.push(...await deviating(read, rooms, run));
  }
  return { deviations, rowsRead };
}

function isExceptedName(service: Service, name: string): boolean {
  const key = keyFromText(name);
  const kind = service.kinds.get(key.kind);
  return kind !== undefined && isExcepted(kind, key);
}

/** Texts of the images that were applied, by name; tombstones have none. */
export async function readPayloads(read: RowReader, names: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const rows = await read.select(APPLIED_TABLE, { columns: ["hash"],
    values: names.map((name) => [hashOf(keyFromText(name))]) }, ["hash", "name", "payload"]);
  return new Map(rows.flatMap((row) => (typeof row["payload"] === "string" ? [[String(row["name"]), row["payload"]]] : [])));
}

function versionOf({ epoch, sequence }: Version): Version {
  return { epoch, sequence };
}

/** Of suspects, those that differ from their stored images although what this database can hold is taken into account. */
async function deviating(read: RowReader, rooms: CompareRooms,
  suspects: readonly { readonly entry: AppliedEntry; readonly image: Image }[]): Promise<readonly Deviation[]> {
  const payloads = await readPayloads(read, suspects.map(({ entry }) => entry.name));
  const respelled = suspects.flatMap(({ entry, image }) => (keyText(image.key) === entry.name ? [] : [image.key]));
  const others = await readApplied(read, respelled);
  const deviations: Deviation[] = [];
  for (const { entry, image } of suspects) {
    const payload = payloads.get(entry.name);
    const spelledAs = keyText(image.key) === entry.name ? undefined : keyText(image.key);
    if (payload === undefined || (spelledAs !== undefined && others.get(spelledAs)?.deleted === false)) continue;
    const arrival = receiveAgain(rooms.service, { key: keyFromText(entry.name), version: versionOf(entry), payload });
    if (arrival.kind !== "change") continue;
    const wanted = standing(rooms, arrival.change.image, image.rows);
    const difference = differenceOf(rooms.service, wanted, image.rows);
    if (isEmpty(difference) || isVacated(difference)) continue;
    deviations.push({ name: entry.name, kind: wanted.key.kind, effect: image.rows === undefined ? "missing" : "changed",
      before: overwritten(difference), change: { ...arrival.change, image: wanted }, spelledAs });
  }
  return deviations;
}

/** The image as it should stand here: cut to what columns hold, and further on where the site's service moved a column itself. */
export function standing(rooms: CompareRooms, image: Image, current: ImageRows | undefined): Image {
  const wanted = fitted(rooms.rows, rooms.service, image);
  if (wanted.rows === undefined || current === undefined) return wanted;
  const rows: Record<string, readonly Row[]> = {};
  for (const [name, held] of Object.entries(wanted.rows)) {
    const table = present(rooms.service.tables.get(name), name);
    const moving = Object.entries(table.moves);
    if (moving.length === 0) {
      rows[name] = held;
      continue;
    }
    const currentRows = new Map((current[name] ?? []).map((row) => [rowText(row, table.key), row]));
    rows[name] = held.map((row) => {
      const now = currentRows.get(rowText(row, table.key));
      if (now === undefined) return row;
      const moved = moving.filter(([column, way]) => isFurther(now[column] ?? null, row[column] ?? null, way));
      return { ...row, ...Object.fromEntries(moved.map(([column]) => [column, now[column] ?? null])) };
    });
  }
  return { key: wanted.key, rows };
}

function isFurther(now: Value, wanted: Value, way: "down" | "up"): boolean {
  if (now === null || wanted === null || typeof now !== typeof wanted) return false;
  return way === "down" ? now < wanted : now > wanted;
}

/** Rows of the difference that a repair would overwrite or remove, as they are now. */
function overwritten(difference: Difference): ImageRows {
  return Object.fromEntries(difference.tables.map(({ table, update, remove }): [string, readonly Row[]] =>
    [table.name, [...update.map(({ was }) => was), ...remove]]).filter(([, rows]) => rows.length > 0));
}

/** A unique value was given up for one that the stream is known to bring: its next image sets this right. */
function isVacated(difference: Difference): boolean {
  return difference.tables.every(({ table, insert, update, remove }) => insert.length === 0 && remove.length === 0 &&
    update.every(({ was, columns }) => columns.every((column) => isPlaceholder(table, was, column))));
}

function isPlaceholder(table: Table, was: Row, column: string): boolean {
  return table.unique.some((unique) => unique.includes(column)) && String(was[column] ?? "").startsWith(PLACEHOLDER);
}

/** The site's own service makes such rows by itself. */
function isSiteMade(service: Service, kind: string, rows: ImageRows): boolean {
  return present(service.kinds.get(kind), kind).siteMade.some((table) => (rows[table] ?? []).length > 0);
}

/** Aggregates of `keys` that have rows here although no live image accounts for them. */
export async function compareStrangers(read: RowReader, rooms: CompareRooms, keys: readonly AggregateKey[]): Promise<Compared> {
  const names = keys.map(keyText);
  const entries = await readApplied(read, keys);
  const waiting = await readWaitingNames(read, names);
  const unknown = keys.filter((key) => !waiting.has(keyText(key)) && (entries.get(keyText(key))?.deleted ?? true));
  const images = await readImages(read, rooms.service, unknown);
  let rowsRead = keys.length;
  const deviations: Deviation[] = [];
  for (const key of unknown) {
    const name = keyText(key);
    const image = present(images.get(name), "readImages answers for every key asked");
    if (image.rows === undefined || keyText(image.key) !== name) continue;
    rowsRead += countRows(image.rows);
    if (!entries.has(name) && isSiteMade(rooms.service, key.kind, image.rows)) continue;
    const version = versionOf(entries.get(name) ?? BEFORE_ALL);
    deviations.push({ name, kind: key.kind, effect: "superfluous", before: image.rows,
      change: removalOf(rooms.service, key, version), spelledAs: undefined });
  }
  return { deviations, rowsRead };
}
