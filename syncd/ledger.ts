/**
 * What a site remembers, in the service's own database so that it commits, fails over and is restored together with the rows
 * it speaks of: the position, what was applied, what waits, what could not be applied.
 * Not here: when any of it changes (syncd/apply.ts).
 */
import { present } from "../core/assert.ts";
import { isErrorCode, type ErrorCode } from "../core/errors.ts";
import type { RowReader, Rows, RowWriter } from "../rows/rows.ts";
import { declareTable, type Table } from "../schemas/define.ts";
import { hashOfName } from "../schemas/manifest.ts";
import type { Version } from "../schemas/position.ts";
import { keyFromText, keyText, type AggregateKey, type Row, type Value } from "../schemas/row.ts";

/**
 * Where the site is in each stream. `mode`: "fill" until a pass over the whole stream is over, then "sweep" until what the
 * stream does not have was removed, then "tail".
 */
export const POSITION_TABLE = declareTable("holdfast_position", {
  key: ["stream"],
  columns: { stream: "text", epoch: "bigint", sequence: "bigint", mode: "text" },
});

/** Newest image applied of each aggregate. `hash` stands for the key, which can be longer than an index allows. */
export const APPLIED_TABLE = declareTable("holdfast_applied", {
  key: ["hash"],
  columns: { hash: "text", name: "text?", epoch: "bigint", sequence: "bigint", digest: "text", deleted: "boolean",
    payload: "text?" },
});

/** Changes that wait for rows they refer to, or for a unique value to become free. */
export const PARKED_TABLE = declareTable("holdfast_parked", {
  key: ["hash"],
  columns: { hash: "text", name: "text?", epoch: "bigint", sequence: "bigint", code: "text", reason: "text?", waits: "text?",
    since: "datetime", payload: "text?" },
});

/** Changes that this site cannot hold; kept whole for a person, and for another try. */
export const QUARANTINE_TABLE = declareTable("holdfast_quarantine", {
  key: ["hash"],
  columns: { hash: "text", name: "text?", epoch: "bigint", sequence: "bigint", code: "text", reason: "text?",
    since: "datetime", payload: "text?" },
});

export const LEDGER_TABLES: readonly Table[] = [POSITION_TABLE, APPLIED_TABLE, PARKED_TABLE, QUARANTINE_TABLE];

/** While a sweep is due the site follows the stream as in "tail". */
export type Mode = "fill" | "sweep" | "tail";

export interface SitePosition extends Version {
  readonly mode: Mode;
}

/** Stands for an aggregate's key in the ledger. */
export function hashOf(key: AggregateKey): string {
  return hashOfName(keyText(key));
}

function versionOf(row: Row): Version {
  return { epoch: Number(row["epoch"]), sequence: Number(row["sequence"]) };
}

function versionColumns(version: Version): Record<string, Value> {
  return { epoch: String(version.epoch), sequence: String(version.sequence) };
}

/** A position as it is stored, with the turn of the commit that stored it. */
export interface StoredPosition extends SitePosition {
  readonly turn: string;
}

/**
 * The mode's column also holds the turn, behind a blank: a text that every commit makes anew. A position alone does not tell that
 * a server lost its newest commits, because many leave it where it is: fills, repairs, tries of what waited.
 */
function positionIn(row: Row | undefined): StoredPosition | undefined {
  if (row === undefined) return undefined;
  const [mode, turn] = String(row["mode"]).split(" ");
  return { ...versionOf(row), mode: mode === "fill" || mode === "sweep" ? mode : "tail", turn: turn ?? "" };
}

function modeColumn(mode: Mode, turn: string): string {
  return turn === "" ? mode : `${mode} ${turn}`;
}

/** The stored position; undefined before the first start. */
export async function readPosition(read: RowReader, stream: string): Promise<StoredPosition | undefined> {
  return positionIn((await read.select(POSITION_TABLE, { columns: ["stream"], values: [[stream]] }))[0]);
}

/** The position under a lock: until the transaction ends no other daemon moves it. */
export async function lockPosition(write: RowWriter, stream: string): Promise<StoredPosition | undefined> {
  return positionIn((await write.lock(POSITION_TABLE, { columns: ["stream"], values: [[stream]] }))[0]);
}

/** Stores the first position of a site. @throws E_ROWS_UNIQUE when there is one already. */
export async function startPosition(write: RowWriter, stream: string, position: SitePosition): Promise<void> {
  await write.insert(POSITION_TABLE, [{ stream, ...versionColumns(position), mode: position.mode }]);
}

/** Moves the position; together with the rows it speaks of, in the caller's transaction. */
export async function movePosition(write: RowWriter, stream: string, position: SitePosition, turn = ""): Promise<void> {
  await write.update(POSITION_TABLE, [{ stream, ...versionColumns(position), mode: modeColumn(position.mode, turn) }],
    ["epoch", "sequence", "mode"]);
}

/** What the ledger notes of an image that was applied, without the image. */
export interface AppliedNote extends Version {
  readonly digest: string;
  readonly deleted: boolean;
}

const APPLIED_NOTE_COLUMNS = ["hash", "name", "epoch", "sequence", "digest", "deleted"] as const;

function appliedIn(row: Row): AppliedNote {
  return { ...versionOf(row), digest: String(row["digest"]), deleted: row["deleted"] === true };
}

/** What was applied, by keyText; aggregates never applied are absent. */
export async function readApplied(read: RowReader, keys: readonly AggregateKey[]): Promise<ReadonlyMap<string, AppliedNote>> {
  const names = new Map(keys.map((key) => [hashOf(key), keyText(key)]));
  const rows = await read.select(APPLIED_TABLE, { columns: ["hash"], values: [...names.keys()].map((hash) => [hash]) },
    ["hash", "epoch", "sequence", "digest", "deleted"]);
  return new Map(rows.map((row) => [present(names.get(String(row["hash"])), "only asked hashes come back"), appliedIn(row)]));
}

const APPLIED_PAGE_ROWS = 2_000;

/** Everything that was ever applied, page by page, each page of one state; images stay in the database. */
export async function* readAllApplied(rows: Rows): AsyncIterable<readonly (AppliedNote & { readonly hash: string;
  readonly name: string })[]> {
  for (let after: Row | undefined; ; ) {
    const from = after;
    const page = await rows.snapshot((read) =>
      read.page(APPLIED_TABLE, { after: from, limit: APPLIED_PAGE_ROWS }, APPLIED_NOTE_COLUMNS));
    yield page.map((row) => ({ ...appliedIn(row), hash: String(row["hash"]), name: String(row["name"]) }));
    if (page.length < APPLIED_PAGE_ROWS) return;
    after = page.at(-1);
  }
}

/** One change as the ledger keeps it. `payload` is the message's own text; undefined for tombstones. */
export interface LedgerEntry {
  readonly key: AggregateKey;
  readonly version: Version;
  readonly digest: string;
  readonly payload: string | undefined;
}

/** Notes images as applied; `known` says which aggregates have a note already. */
export async function noteApplied(write: RowWriter, entries: readonly LedgerEntry[], known: ReadonlyMap<string,
  Version>): Promise<void> {
  const rows = entries.map((entry): Row => ({ hash: hashOf(entry.key), name: keyText(entry.key), ...versionColumns(entry.version),
    digest: entry.digest, deleted: entry.payload === undefined, payload: entry.payload ?? null }));
  const isKnown = (row: Row): boolean => known.has(String(row["name"]));
  await write.update(APPLIED_TABLE, rows.filter(isKnown), ["epoch", "sequence", "digest", "deleted", "payload"]);
  await write.insert(APPLIED_TABLE, rows.filter((row) => !isKnown(row)));
}

export interface ParkedNote extends LedgerEntry {
  readonly code: ErrorCode;
  readonly reason: string;
  /** Row marks (rows/…: "table.column=value") whose appearance is worth another try. */
  readonly waits: readonly string[];
  readonly since: string;
}

/** Longer reasons are cut: the change itself is kept whole beside them. */
const REASON_CHARACTERS_MAX = 1_000;

export interface QuarantineNote extends LedgerEntry {
  readonly code: ErrorCode;
  readonly reason: string;
  readonly since: string;
}

/** Forgets what waited or was quarantined of these aggregates: a newer image, or another try, takes its place. */
export async function forgetWaiting(write: RowWriter, keys: readonly AggregateKey[]): Promise<void> {
  if (keys.length === 0) return;
  const rows = keys.map((key): Row => ({ hash: hashOf(key) }));
  await write.remove(PARKED_TABLE, rows);
  await write.remove(QUARANTINE_TABLE, rows);
}

/** Parks changes; the caller has forgotten what waited of them before. */
export async function notePark(write: RowWriter, notes: readonly ParkedNote[]): Promise<void> {
  await write.insert(PARKED_TABLE,
    notes.map((note) => ({ hash: hashOf(note.key), name: keyText(note.key), ...versionColumns(note.version),
    code: note.code, reason: note.reason.slice(0, REASON_CHARACTERS_MAX), waits: JSON.stringify(note.waits), since: note.since,
      payload: note.payload ?? null })));
}

/** Quarantines changes, whole, for a person and for another try. */
export async function noteQuarantine(write: RowWriter, notes: readonly QuarantineNote[]): Promise<void> {
  await write.insert(QUARANTINE_TABLE,
    notes.map((note) => ({ hash: hashOf(note.key), name: keyText(note.key), ...versionColumns(note.version),
    code: note.code, reason: note.reason.slice(0, REASON_CHARACTERS_MAX), since: note.since, payload: note.payload ?? null })));
}

/** A waiting change as read back. */
export interface Waiting {
  readonly key: AggregateKey;
  readonly version: Version;
  readonly code: ErrorCode;
  readonly reason: string;
  readonly waits: readonly string[];
  readonly since: string;
  readonly payload: string | undefined;
}

const WAITING_PAGE_ROWS = 500;

/** Everything in a waiting table (parked or quarantined), without payloads, page by page. */
export async function* readWaiting(snapshot: <T>(work: (read: RowReader) => Promise<T>) => Promise<T>,
  table: Table): AsyncIterable<readonly Waiting[]> {
  for (let after: Row | undefined; ; ) {
    const from = after;
    const rows = await snapshot((read) => read.page(table, { after: from, limit: WAITING_PAGE_ROWS }));
    yield rows.map(waitingOf);
    if (rows.length < WAITING_PAGE_ROWS) return;
    after = rows.at(-1);
  }
}

/** The waiting changes of these aggregates, with their payloads. */
export async function readWaitingOf(read: RowReader, table: Table, keys: readonly AggregateKey[]): Promise<readonly Waiting[]> {
  const rows = await read.select(table, { columns: ["hash"], values: keys.map((key) => [hashOf(key)]) });
  return rows.map(waitingOf);
}

function waitingOf(row: Row): Waiting {
  const waits: unknown = JSON.parse(String(row["waits"] ?? "[]"));
  return { key: keyFromText(String(row["name"])), version: versionOf(row), code: codeIn(row), reason: String(row["reason"]),
    waits: Array.isArray(waits) ? waits.map(String) : [], since: String(row["since"]),
    payload: row["payload"] === null || row["payload"] === undefined ? undefined : String(row["payload"]) };
}

/** Codes are written by us; one of a later release is kept as an unreadable change. */
function codeIn(row: Row): ErrorCode {
  const code = String(row["code"]);
  return isErrorCode(code) ? code : "E_CHANGE_UNREADABLE";
}
