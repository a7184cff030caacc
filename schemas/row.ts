/**
 * Rows, keys and images as they travel. An image is the whole post-state of one aggregate: its root row and the rows it
 * owns, or a tombstone. Two images are the same exactly when their canonical texts are; the digest is the hash of that text.
 * Sources: none of the values are interpreted; what the database holds is what travels.
 */
import { createHash } from "node:crypto";
import { present } from "../core/assert.ts";
import type { Kind, Service, Table } from "./define.ts";

/** A wire value; see ColumnKind in define.ts for how each column type is written. */
export type Value = string | number | boolean | null;
export type Row = Readonly<Record<string, Value>>;

/** Names one aggregate: its kind and the values of its key columns, in order, as text. */
export interface AggregateKey {
  readonly kind: string;
  readonly values: readonly string[];
}

/** Rows by table, in the kind's table order; rows ascending by primary key. Every owned table is present, even if empty. */
export type ImageRows = Readonly<Record<string, readonly Row[]>>;

/** The whole state of an aggregate. `rows` undefined: it does not exist (tombstone). */
export interface Image {
  readonly key: AggregateKey;
  readonly rows: ImageRows | undefined;
}

/** One text per aggregate, unique within a service: usable as a map key and as the tail of a subject. */
export function keyText(key: AggregateKey): string {
  return [key.kind, ...key.values.map(tokenOf)].join(".");
}

/** The key that `keyText` wrote. */
export function keyFromText(written: string): AggregateKey {
  const [kind, ...tokens] = written.split(".");
  return { kind: present(kind, "a key starts with its kind"), values: tokens.map(valueOf) };
}

const PLAIN = /^[0-9A-Za-z_-]{1,128}$/;

/** A subject token for a key value: as it is when that is safe, else "=" and base64url of its UTF-8 bytes. */
export function tokenOf(value: string): string {
  return PLAIN.test(value) ? value : `=${Buffer.from(value, "utf8").toString("base64url")}`;
}

function valueOf(token: string): string {
  return token.startsWith("=") ? Buffer.from(token.slice(1), "base64url").toString("utf8") : token;
}

/** The key of the aggregate whose root row is `root`. */
export function keyOfRoot(kind: Kind, root: Row): AggregateKey {
  return { kind: kind.name, values: kind.key.map((column) => String(root[column])) };
}

/** Keys by their kind, in the order they came. */
export function byKind(keys: Iterable<AggregateKey>): ReadonlyMap<string, readonly AggregateKey[]> {
  const kinds = new Map<string, AggregateKey[]>();
  for (const key of keys) {
    const ofKind = kinds.get(key.kind);
    if (ofKind === undefined) kinds.set(key.kind, [key]);
    else ofKind.push(key);
  }
  return kinds;
}

/** One text per row of a table, by the columns given. */
export function rowText(row: Row, columns: readonly string[]): string {
  return JSON.stringify(columns.map((column) => row[column] ?? null));
}

function compareValues(left: Value, right: Value): number {
  if (left === right) return 0;
  if (left === null) return -1;
  if (right === null) return 1;
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left) < String(right) ? -1 : 1;
}

/** Order of rows in an image: ascending by primary key, by code unit. */
export function compareRows(table: Table, left: Row, right: Row): number {
  for (const column of table.key) {
    const order = compareValues(left[column] ?? null, right[column] ?? null);
    if (order !== 0) return order;
  }
  return 0;
}

/** An image in canonical form: tables in the kind's order, sent columns only and in declared order, rows sorted. */
export function canonicalImage(service: Service, key: AggregateKey, rows: Readonly<Record<string, readonly Row[]>>
  | undefined): Image {
  if (rows === undefined) return { key, rows: undefined };
  const kind = present(service.kinds.get(key.kind), key.kind);
  const ordered: Record<string, readonly Row[]> = {};
  for (const name of kind.tables) {
    const table = present(service.tables.get(name), name);
    ordered[name] = (rows[name] ?? []).map((row) => pickColumns(row, table.sent)).sort((left, right) =>
      compareRows(table, left, right));
  }
  return { key, rows: ordered };
}

/** A row with only `columns`, in that order; what is absent is NULL. */
export function pickColumns(row: Row, columns: readonly string[]): Row {
  const picked: Record<string, Value> = {};
  for (const column of columns) picked[column] = row[column] ?? null;
  return picked;
}

/** SHA-256, base64url, of the canonical image. Equal exactly when the images are. */
export function digestOf(image: Image): string {
  const body = JSON.stringify([image.key.kind, image.key.values, image.rows ?? null]);
  return createHash("sha256").update(body).digest("base64url");
}
