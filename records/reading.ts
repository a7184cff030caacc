/**
 * Reading records: single ones and pages of them, each page from one snapshot of the database. A listing goes by primary key, so
 * a record that is there all the time is listed exactly once whatever is written meanwhile.
 *
 * Bounds: PAGE_MAX records a page; ANSWER_BYTES_MAX of records, beyond which a page ends early and says where to go on.
 * Not here: who may ask (routes.ts), names in paths (naming.ts).
 */
import type { Input } from "../core/operation.ts";
import { keysWhere, readImages, readKeys } from "../rows/footprint.ts";
import type { Page, RowReader } from "../rows/rows.ts";
import type { Kind, Table } from "../schemas/define.ts";
import { digestOf, keyText, type AggregateKey, type Image, type Row } from "../schemas/row.ts";
import { cursorOf } from "./naming.ts";
import { unknown } from "./refusal.ts";
import { pageDigest, recordDigest, shownImage, shownPlaced, shownRecord } from "./shown.ts";
import type { Placed, ServedService } from "./writing.ts";

/** Size of the records in one answer, about; a single larger record still travels alone. */
export const ANSWER_BYTES_MAX = 8 * 1024 * 1024;

/** Something that is there, as a caller sees it, with the digest that names this state of it. */
export interface Found {
  readonly shown: Input;
  readonly digest: string;
}

/** One page of the records of a table. */
export async function listRecords({ rows }: ServedService, table: Table, page: Page, maySeeSecrets: boolean): Promise<Input> {
  const read = await rows.snapshot((reader) => reader.page(table, page));
  const records: Input[] = [];
  const kept: Row[] = [];
  for (let sizeBytes = 0; kept.length < read.length; ) {
    const row = read[kept.length];
    if (row === undefined) break;
    const shown = shownRecord(table, row, maySeeSecrets);
    sizeBytes += Buffer.byteLength(JSON.stringify(shown));
    if (kept.length > 0 && sizeBytes > ANSWER_BYTES_MAX) break;
    records.push(shown);
    kept.push(row);
  }
  const last = kept.at(-1);
  const isLast = last === undefined || (kept.length === read.length && read.length < page.limit);
  return { records, digest: pageDigest(kept.map((row) => recordDigest(table, row))), next: isLast ? null
    : cursorOf(table, last) };
}

/** The row with that primary key; undefined when there is none. An engine that ignores case may give another spelling. */
export async function recordAt(read: RowReader, table: Table, key: Row): Promise<Row | undefined> {
  return (await read.select(table, { columns: table.key, values: [table.key.map((column) => key[column] ?? null)] }))[0];
}

/** The aggregate that a stored record belongs to; undefined when none that is synchronised does. */
export async function ownerOf(read: RowReader, served: ServedService, kind: Kind, table: Table,
  row: Row): Promise<AggregateKey | undefined> {
  const where = Object.fromEntries(table.key.map((column) => [column, [row[column] ?? null]]));
  return (await keysWhere(read, served.service, kind.name, table.name, where))[0];
}

/** One record and the aggregate it belongs to. @throws E_RECORD_UNKNOWN */
export async function readRecord(served: ServedService, kind: Kind, table: Table, key: Row,
  maySeeSecrets: boolean): Promise<Found> {
  return served.rows.snapshot(async (read) => {
    const row = await recordAt(read, table, key);
    if (row === undefined) throw unknown("record");
    const owner = await ownerOf(read, served, kind, table, row);
    const placed = owner === undefined ? undefined : (await served.writing.placedOf(read, [owner])).get(keyText(owner));
    const aggregate = owner === undefined ? null : { kind: owner.kind, key: owner.values, name: keyText(owner),
      ...shownPlaced(placed) };
    return { shown: { ...shownRecord(table, row, maySeeSecrets), aggregate }, digest: recordDigest(table, row) };
  });
}

/** One page of the aggregates of a kind: names, digests of the rows that are here, versions they were published under. */
export async function listAggregates(served: ServedService, kind: Kind, root: Table, page: Page): Promise<Input> {
  const { service, rows, writing } = served;
  return rows.snapshot(async (read) => {
    const { keys, next } = await readKeys(read, service, kind.name, page);
    const images = await readImages(read, service, keys);
    const placed = await writing.placedOf(read, keys);
    const aggregates = keys.flatMap((key): readonly Input[] => {
      const image = images.get(keyText(key));
      return image?.rows === undefined ? []
        : [{ key: key.values, name: keyText(key), digest: digestOf(image), ...shownPlaced(placed.get(keyText(key))) }];
    });
    return { aggregates, digest: pageDigest(aggregates.map(({ digest }) => String(digest))),
      next: next?.after === undefined ? null : cursorOf(root, next.after) };
  });
}

/** An aggregate as it is here and as it was published. The image is a tombstone when it is not here. */
export async function stateOf(read: RowReader, served: ServedService,
  key: AggregateKey): Promise<{ readonly image: Image; readonly placed: Placed | undefined }> {
  const image = (await readImages(read, served.service, [key])).get(keyText(key)) ?? { key, rows: undefined };
  return { image, placed: (await served.writing.placedOf(read, [image.key])).get(keyText(image.key)) };
}

/** One aggregate, whole. @throws E_RECORD_UNKNOWN */
export async function readAggregate(served: ServedService, key: AggregateKey, maySeeSecrets: boolean): Promise<Found> {
  const { image, placed } = await served.rows.snapshot((read) => stateOf(read, served, key));
  if (image.rows === undefined) throw unknown("record");
  const digest = digestOf(image);
  return { digest, shown: { kind: image.key.kind, key: image.key.values, name: keyText(image.key),
    ...shownImage(served.service, image, maySeeSecrets), digest, ...shownPlaced(placed) } };
}
