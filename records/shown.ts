/**
 * What a caller gets to see of rows: secret columns only with the scope for them, local columns apart from those that travel.
 * Digests are always of the whole row or image, secrets included, so that two clouds can be compared by somebody who may not
 * see them. Pure.
 */
import { createHash } from "node:crypto";
import { present } from "../core/assert.ts";
import type { Input } from "../core/operation.ts";
import type { Service, Table } from "../schemas/define.ts";
import { pickColumns, type Image, type Row } from "../schemas/row.ts";
import { versionText } from "./naming.ts";
import type { Placed } from "./writing.ts";

/** Digest of one record: of what travels of it, by table; the same on both engines for the same wire values. */
export function recordDigest(table: Table, row: Row): string {
  const body = JSON.stringify([table.name, table.sent.map((column) => row[column] ?? null)]);
  return createHash("sha256").update(body).digest("base64url");
}

/** Digest of a page: of the digests on it, in their order. */
export function pageDigest(digests: readonly string[]): string {
  return createHash("sha256").update(digests.join("\n")).digest("base64url");
}

/** A record: its key, the columns that travel, the local ones, and the names of those that are not shown. */
export function shownRecord(table: Table, row: Row, maySeeSecrets: boolean): Input {
  const isShown = (column: string): boolean => maySeeSecrets || !table.secret.includes(column);
  return { key: table.key.map((column) => row[column] ?? null), row: pickColumns(row, table.sent.filter(isShown)),
    local: pickColumns(row, Object.keys(table.local).filter(isShown)), hidden: maySeeSecrets ? [] : table.secret,
    digest: recordDigest(table, row) };
}

/** The rows of an image, and the columns that are not shown as "table.column". */
export function shownImage(service: Service, image: Image, maySeeSecrets: boolean): Input {
  const tables = Object.entries(image.rows ?? {}).map(([name, rows]) => {
    const table = present(service.tables.get(name), name);
    const columns = table.sent.filter((column) => maySeeSecrets || !table.secret.includes(column));
    return [name, rows.map((row) => pickColumns(row, columns))] as const;
  });
  const hidden = tables.flatMap(([name]) =>
    maySeeSecrets ? [] : present(service.tables.get(name), name).secret.map((column) => `${name}.${column}`));
  return { rows: Object.fromEntries(tables), hidden };
}

/** A version beside the digest of the image that was published under it; null: nobody knows of one. */
export function shownPlaced(placed: Placed | undefined): Input {
  return { version: placed === undefined ? null : versionText(placed.version), published: placed?.digest ?? null };
}
