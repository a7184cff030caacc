/**
 * How aggregates stand at this site, for somebody who compares them with the centre's: by the ledger's digest where rows are what
 * they were made of, by the rows themselves where anything differs. Reads only; each question in one state of the database.
 *
 * Bounds: STATES_CHARACTERS_MAX of rows in one answer; the asker is told how far it goes.
 * Not here: what is asked for by name (operations.ts), comparing rows (the asker).
 */
import { present } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import type { JsonValue } from "../core/operation.ts";
import { readImages, readKeys } from "../rows/footprint.ts";
import type { RowReader } from "../rows/rows.ts";
import type { Service, Table } from "../schemas/define.ts";
import { maskedRows } from "../schemas/masking.ts";
import { keyFromText, keyText, rowText, type Image, type ImageRows, type Row } from "../schemas/row.ts";
import { PARKED_TABLE, QUARANTINE_TABLE, readApplied, readWaitingOf, type AppliedNote } from "./ledger.ts";
import { receiveAgain } from "./received.ts";
import { compareLive, readPayloads, type CompareRooms } from "./row-compare.ts";

/** Rows in one answer, as JSON; above it the rest is asked for again. A single larger aggregate is answered without rows. */
const STATES_CHARACTERS_MAX = 400_000;

export type StateRooms = CompareRooms;

/** Everything about some aggregates that one state of the database says. */
interface Seen {
  readonly notes: ReadonlyMap<string, AppliedNote>;
  readonly images: ReadonlyMap<string, Image>;
  /** Names whose rows are not what they were made of. */
  readonly drifted: ReadonlySet<string>;
  readonly waiting: ReadonlyMap<string, string>;
  readonly payloads: ReadonlyMap<string, string>;
}

async function seeStates(read: RowReader, rooms: StateRooms, entries: readonly (readonly [string, string])[]): Promise<Seen> {
  const keys = entries.map(([name]) => keyFromText(name));
  const notes = await readApplied(read, keys);
  const images = await readImages(read, rooms.service, keys);
  const live = [...notes].filter(([, note]) => !note.deleted).map(([name, note]) => ({ ...note, name }));
  const compared = await compareLive(read, rooms, live);
  const waiting = new Map<string, string>();
  for (const [table, how] of [[PARKED_TABLE, "parked"], [QUARANTINE_TABLE, "quarantined"]] as const) {
    for (const each of await readWaitingOf(read, table, keys)) waiting.set(keyText(each.key), `${how}: ${each.code}`);
  }
  const drifted = new Set(compared.deviations.map(({ name }) => name));
  const told = entries.filter(([name, digest]) => !isEqual(name, digest, notes, drifted, waiting)).map(([name]) => name);
  return { notes, images, drifted, waiting, payloads: await readPayloads(read, told) };
}

function isEqual(name: string, digest: string, notes: ReadonlyMap<string, AppliedNote>, drifted: ReadonlySet<string>,
  waiting: ReadonlyMap<string, string>): boolean {
  const note = notes.get(name);
  return note !== undefined && !note.deleted && note.digest === digest && !drifted.has(name) && !waiting.has(name);
}

/**
 * The row with the values that its image had before this database cut them: a column that keeps whole seconds only does not
 * differ from the centre's for that.
 */
function uncut(rooms: StateRooms, table: Table, row: Row, stored: Row | undefined): Row {
  if (stored === undefined) return row;
  const kept = rooms.rows.fit(table, stored);
  return Object.fromEntries(Object.entries(row).map(([column, value]) =>
    [column, (kept[column] ?? null) === value ? stored[column] ?? null : value]));
}

function uncutRows(rooms: StateRooms, image: Image, payload: string | undefined): ImageRows | undefined {
  if (payload === undefined || image.rows === undefined) return image.rows;
  const arrival = receiveAgain(rooms.service, { key: image.key, version: { epoch: 0, sequence: 0 }, payload });
  if (arrival.kind !== "change") return image.rows;
  return Object.fromEntries(Object.entries(image.rows).map(([name, rows]) => {
    const table = present(rooms.service.tables.get(name), name);
    const stored = new Map((arrival.change.image.rows?.[name] ?? []).map((row) => [rowText(row, table.key), row]));
    return [name, rows.map((row) => uncut(rooms, table, row, stored.get(rowText(row, table.key))))];
  }));
}

/** The answer to "states"; see operations.ts. `entries`: names with the centre's digests. @throws what the database throws */
export async function statesOf(rooms: StateRooms, entries: readonly (readonly [string, string])[], mask: string,
  position: string): Promise<JsonValue> {
  const seen = await rooms.rows.snapshot((read) => seeStates(read, rooms, entries));
  const states: JsonValue[] = [];
  let answered = 0;
  let characters = 0;
  for (const [name, digest] of entries) {
    if (!isEqual(name, digest, seen.notes, seen.drifted, seen.waiting)) {
      const state = stateOf(rooms, name, seen, mask);
      const size = JSON.stringify(state).length;
      if (answered > 0 && characters + size > STATES_CHARACTERS_MAX) break;
      characters += size;
      states.push(size > STATES_CHARACTERS_MAX ? { ...state, rows: null } : state);
    }
    answered += 1;
  }
  return { position, answered, states };
}

function stateOf(rooms: StateRooms, name: string, seen: Seen, mask: string): Readonly<Record<string, JsonValue>> {
  const image = present(seen.images.get(name), "readImages answers for every key asked");
  const note = seen.notes.get(name);
  return { name, what: image.rows === undefined ? "missing" : "different",
    version: note === undefined || note.deleted ? null : `${note.epoch}.${note.sequence}`, waits: seen.waiting.get(name) ?? null,
    rows: maskedRows(rooms.service, uncutRows(rooms, image, seen.payloads.get(name)), mask) ?? null };
}

function afterIn(service: Service, kind: string, after: JsonValue | undefined): Row | undefined {
  if (after === undefined || after === null) return undefined;
  const root = present(service.tables.get(present(service.kinds.get(kind), kind).root), kind);
  const fields = typeof after === "object" && !Array.isArray(after) ? after as Readonly<Record<string, JsonValue>> : {};
  if (root.key.every((column) => ["string", "number", "boolean"].includes(typeof fields[column]))) {
    return Object.fromEntries(root.key.map((column) => [column, fields[column] as string | number | boolean]));
  }
  throw new OperatingError("E_OPERATION_INPUT", '"after" is not what "next" was');
}

/** The answer to "names": a page of the aggregates of a kind that have rows here. Of a log only those that were applied. */
export function namesHere(rooms: StateRooms, kind: string, after: JsonValue | undefined, limit: number): Promise<JsonValue> {
  const { service, rows } = rooms;
  const from = afterIn(service, kind, after);
  return rows.snapshot(async (read) => {
    const { keys, next } = await readKeys(read, service, kind, { after: from, limit });
    const notes = await readApplied(read, keys);
    const isLog = service.kinds.get(kind)?.log !== undefined;
    const names = keys.map(keyText).map((name): readonly [string, string | null] => {
      const note = notes.get(name);
      return [name, note === undefined || note.deleted ? null : note.digest];
    });
    const root = present(service.tables.get(present(service.kinds.get(kind), kind).root), kind);
    return { names: names.filter(([, digest]) => !isLog || digest !== null),
      next: next?.after === undefined ? null
        : Object.fromEntries(root.key.map((column) => [column, next.after?.[column] ?? null])) };
  });
}
