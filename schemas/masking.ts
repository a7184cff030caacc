/**
 * Rows for a person to look at: what a service file calls secret is shown as a short keyed digest. Two people's eyes, or the
 * two ends of a link, can see whether two secrets are equal when both were masked with the same key, and nothing else: a bare
 * hash of a short secret could be found by trying, so the key is made anew for each look and never shown.
 *
 * Invariants: masking is a function of (key, table, column, value); NULL stays NULL, so presence shows; no other column changes.
 * Not here: who may see secrets unmasked (records/), making keys (core/random.ts: id()).
 */
import { createHmac } from "node:crypto";
import { assert, present } from "../core/assert.ts";
import type { Service, Table } from "./define.ts";
import type { ImageRows, Row, Value } from "./row.ts";

const MASK = "secret:";
const DIGEST_CHARACTERS = 8;
/** Shorter keys could be found by trying. */
const MASKING_KEY_CHARACTERS_MIN = 22;

function maskedValue(table: Table, column: string, value: Value, maskingKey: string): Value {
  if (value === null) return null;
  const digest = createHmac("sha256", maskingKey).update(JSON.stringify([table.name, column, value])).digest("base64url");
  return MASK + digest.slice(0, DIGEST_CHARACTERS);
}

/** The row with its secret columns masked. */
export function maskedRow(table: Table, row: Row, maskingKey: string): Row {
  assert(maskingKey.length >= MASKING_KEY_CHARACTERS_MIN, "a masking key cannot be guessed");
  if (table.secret.length === 0) return row;
  return Object.fromEntries(Object.entries(row).map(([column, value]) =>
    [column, table.secret.includes(column) ? maskedValue(table, column, value, maskingKey) : value]));
}

/** Rows by table with their secret columns masked; undefined (no aggregate) stays undefined. */
export function maskedRows(service: Service, rows: ImageRows | undefined, maskingKey: string): ImageRows | undefined {
  if (rows === undefined) return undefined;
  return Object.fromEntries(Object.entries(rows).map(([name, held]) => {
    const table = present(service.tables.get(name), name);
    return [name, held.map((row) => maskedRow(table, row, maskingKey))];
  }));
}
