/**
 * Writing records. Whatever the path names, what is written is one whole aggregate: a record is set by setting its aggregate with
 * that row replaced, and taken away by setting it without. So every write takes the way of every change, and no row is ever
 * written around version and digest.
 *
 *   read the aggregate in one snapshot → hold the caller's precondition against it → compose the new image
 *     → write it, expecting the digest that was read; if somebody was faster, all of it again, at most TRIES_MAX times
 *
 * Not here: who may write (routes.ts), how the image gets into the database and on its way (the port in writing.ts).
 */
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Input, JsonValue } from "../core/operation.ts";
import { isExcepted, keysWhere } from "../rows/footprint.ts";
import type { RowReader } from "../rows/rows.ts";
import type { Kind, Table } from "../schemas/define.ts";
import type { Version } from "../schemas/position.ts";
import { digestOf, keyOfRoot, keyText, rowText, type AggregateKey, type Image, type Row } from "../schemas/row.ts";
import { aggregateKey, kindNamed, recordKey, tableNamed, versionFrom, versionText } from "./naming.ts";
import { mustHold, type Precondition, type Present } from "./precondition.ts";
import { imageOf, proposedImage, proposedRow, rowsByKey, withoutOrphans } from "./proposed.ts";
import { ownerOf, recordAt, stateOf } from "./reading.ts";
import { mistaken, refuseMistakes, unknown } from "./refusal.ts";
import { recordDigest, shownPlaced } from "./shown.ts";
import { isObject } from "./values.ts";
import type { Placed, RecordChange, ServedService, WriteOutcome } from "./writing.ts";

const TRIES_MAX = 3;

/** What a caller wants to be so. */
export interface Wish {
  readonly precondition: Precondition;
  /** Undefined for a removal. */
  readonly body: unknown;
  /** The parameter `version` of the path. */
  readonly version: string | undefined;
  readonly maySeeSecrets: boolean;
}

/** What became of it: the status, the answer, and what the log says. */
export interface Changed {
  readonly status: number;
  readonly body: Input;
  readonly key: AggregateKey;
  readonly outcome: WriteOutcome["outcome"];
  readonly etag: string | undefined;
}

interface Composed {
  readonly image: Image;
  readonly expected: string | undefined;
  /** What the path names was not there before. */
  readonly isNew: boolean;
}

/** The fields of a body, and the version of the change where it needs one. @throws E_OPERATION_INPUT */
function fieldsOf(served: ServedService, wish: Wish,
  content: "rows" | "row"): { readonly found: unknown; readonly version: Version | undefined } {
  const mistakes: string[] = [];
  const isRemoval = wish.body === undefined;
  const body = isObject(wish.body) ? wish.body : {};
  if (!isRemoval && !isObject(wish.body)) mistakes.push(`expected a JSON object with ${content}`);
  for (const name of Object.keys(body)) {
    if (name === content || name === "version") continue;
    mistakes.push(`${JSON.stringify(name.slice(0, 64))} is no field here: ${content}, version`);
  }
  const written: unknown = body["version"] ?? wish.version;
  const version = versionFrom(written);
  if (served.writing.versioned && version === undefined) {
    mistakes.push("version: expected the one that the image has in the stream, as \"epoch.sequence\"; a site makes no versions");
  }
  if (!served.writing.versioned && written !== undefined) mistakes.push("version: the centre gives it by itself; leave it out");
  refuseMistakes(mistakes);
  return { found: body[content], version };
}

function presentOf(served: ServedService, digest: string, image: Image, placed: Placed | undefined): Present {
  return { digest, placed, asPlaced: served.writing.versioned || placed?.digest === digestOf(image) };
}

function mustBeSpeltSo(isSpeltSo: boolean): void {
  if (isSpeltSo) return;
  throw new OperatingError("E_RECORD_CONFLICT", "it is there under another spelling that the database regards as equal");
}

interface Current {
  readonly image: Image;
  readonly placed: Placed | undefined;
  /** Digest of the image; undefined when the aggregate does not exist. */
  readonly expected: string | undefined;
}

/** What the aggregate is now, under the name that was asked for. */
async function currentOf(read: RowReader, served: ServedService, kind: Kind, key: AggregateKey): Promise<Current> {
  if (isExcepted(kind, key)) throw unknown("record");
  const state = await stateOf(read, served, key);
  mustBeSpeltSo(state.image.rows === undefined || keyText(state.image.key) === keyText(key));
  return { ...state, expected: state.image.rows === undefined ? undefined : digestOf(state.image) };
}

async function insist(served: ServedService, version: Version | undefined, content: string,
  compose: (read: RowReader) => Promise<Composed>): Promise<Changed> {
  for (let tries = 1; ; tries += 1) {
    const { image, expected, isNew } = await served.rows.snapshot(compose);
    const change: RecordChange = { image, expected, version };
    try {
      return changed(await served.writing.write(change), change, isNew, content);
    } catch (error) {
      const isAnothers = isOperating(error, "E_RECORD_CONFLICT", "E_ROWS_CONTENDED") && !served.writing.versioned;
      if (!isAnothers || tries === TRIES_MAX) throw error;
    }
  }
}

function changed(outcome: WriteOutcome, { image, version }: RecordChange, isNew: boolean, content: string): Changed {
  const placed = outcome.outcome === "written" ? outcome.placed : undefined;
  const because: Record<string, JsonValue> = "because" in outcome ? { because: outcome.because } : {};
  const statuses = { written: isNew && image.rows !== undefined ? 201 : 200, unpublished: 202, parked: 202, quarantined: 422 };
  const shown = placed === undefined && version !== undefined ? { version: versionText(version), published: null }
    : shownPlaced(placed);
  return { status: statuses[outcome.outcome], key: image.key, outcome: outcome.outcome,
    etag: content === "rows" ? placed?.digest : undefined,
    body: { outcome: outcome.outcome, ...because, kind: image.key.kind, key: image.key.values, name: keyText(image.key),
      ...shown } };
}

/** Sets or removes one aggregate. @throws E_RECORD_UNKNOWN, E_RECORD_CONFLICT, E_OPERATION_INPUT, E_ACCESS_DENIED */
export async function changeAggregate(served: ServedService, kindName: string, texts: readonly string[],
  wish: Wish): Promise<Changed> {
  const { service } = served;
  const kind = kindNamed(service, kindName);
  const key = aggregateKey(service, kind, texts);
  const { found: written, version } = fieldsOf(served, wish, "rows");
  return insist(served, version, "rows", async (read) => {
    const { image, placed, expected } = await currentOf(read, served, kind, key);
    if (wish.body === undefined && expected === undefined && !served.writing.versioned) throw unknown("record");
    const found = expected === undefined ? undefined : presentOf(served, expected, image, placed);
    mustHold(wish.precondition, found, served.writing.versioned);
    const wanted = wish.body === undefined ? { key, rows: undefined }
      : proposedImage(service, kind, key, written, image.rows, wish.maySeeSecrets);
    return { image: wanted, expected, isNew: expected === undefined };
  });
}

/** Sets or removes one record of a table. @throws as changeAggregate */
export async function changeRecord(served: ServedService, tableName: string, texts: readonly string[],
  wish: Wish): Promise<Changed> {
  const { service } = served;
  const table = tableNamed(service, tableName);
  const kind = service.kindOfTable.get(table.name);
  if (kind === undefined) throw unknown("table");
  const key = recordKey(table, texts);
  const { found, version } = fieldsOf(served, wish, "row");
  return insist(served, version, "row", async (read) => {
    const before = await recordAt(read, table, key);
    mustBeSpeltSo(before === undefined || rowText(before, table.key) === rowText(key, table.key));
    const context: RecordContext = { served, kind, table, key, before };
    return wish.body === undefined ? withoutRecord(read, context, wish) : withRecord(read, context, wish, found);
  });
}

interface RecordContext {
  readonly served: ServedService;
  readonly kind: Kind;
  readonly table: Table;
  readonly key: Row;
  readonly before: Row | undefined;
}

async function withoutRecord(read: RowReader, context: RecordContext, wish: Wish): Promise<Composed> {
  const { served, kind, table, key, before } = context;
  const owner = before === undefined ? undefined : await ownerOf(read, served, kind, table, before);
  if (owner === undefined || before === undefined) throw unknown("record");
  const { image, placed, expected } = await currentOf(read, served, kind, owner);
  mustHold(wish.precondition, presentOf(served, recordDigest(table, before), image, placed), served.writing.versioned);
  const left = { ...image.rows, [table.name]: (image.rows?.[table.name] ?? []).filter((row) =>
    rowText(row, table.key) !== rowText(key, table.key)) };
  const isGone = (left[kind.root] ?? []).length === 0;
  const wanted = isGone ? { key: owner, rows: undefined } : imageOf(served.service, kind, owner, withoutOrphans(kind, left));
  return { image: wanted, expected, isNew: false };
}

async function withRecord(read: RowReader, context: RecordContext, wish: Wish, found: unknown): Promise<Composed> {
  const { served, kind, table, key, before } = context;
  const { service } = served;
  const mistakes: string[] = [];
  const row = proposedRow(table, found, rowsByKey(table, before === undefined ? [] : [before]), wish.maySeeSecrets, "row",
    mistakes);
  if (mistakes.length === 0 && rowText(row, table.key) !== rowText(key, table.key)) {
    mistakes.push(`row: ${table.key.join(", ")} are those of the path`);
  }
  refuseMistakes(mistakes);
  const owner = await ownerOfNew(read, context, row);
  const ownerBefore = before === undefined ? undefined : await ownerOf(read, served, kind, table, before);
  if (ownerBefore !== undefined && keyText(ownerBefore) !== keyText(owner)) {
    throw mistaken([`row: the record belongs to ${keyText(ownerBefore)}; remove it there before it is made elsewhere`]);
  }
  const { image, placed, expected } = await currentOf(read, served, kind, owner);
  mustHold(wish.precondition, before === undefined ? undefined : presentOf(served, recordDigest(table, before), image, placed),
    served.writing.versioned);
  const others = (image.rows?.[table.name] ?? []).filter((each) => rowText(each, table.key) !== rowText(row, table.key));
  const wanted = imageOf(service, kind, owner, { ...image.rows, [table.name]: [...others, row] });
  return { image: wanted, expected, isNew: before === undefined };
}

/** The aggregate that a record will belong to: its own if it is a root row, else that of the row it belongs to. */
async function ownerOfNew(read: RowReader, { served, kind, table }: RecordContext, row: Row): Promise<AggregateKey> {
  const owned = kind.owns.find((each) => each.table === table.name);
  const columns = owned === undefined ? kind.key : Object.keys(owned.by);
  refuseMistakes(columns.filter((column) => (row[column] ?? null) === null)
    .map((column) => `row.${column}: without it the record belongs to no aggregate`));
  if (owned === undefined) return keyOfRoot(kind, row);
  const where = Object.fromEntries(Object.entries(owned.by).map(([child, parent]) => [parent, [row[child] ?? null]]));
  const parent = owned.of ?? kind.root;
  const owner = (await keysWhere(read, served.service, kind.name, parent, where))[0];
  if (owner === undefined) throw mistaken([`row: ${columns.join(", ")} name no record of ${parent} that is synchronised`]);
  return owner;
}
