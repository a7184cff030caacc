/**
 * STORY 2 of 3: what is said. A change is the image of one aggregate on its way: the whole state, never a difference, so
 * that the newest one alone is enough and any older one may be lost. Its version is where the stream put it; the digest
 * lets a reader see that nothing changed without opening it.
 *
 *   subject  os.v1.<service>.<scope>.<kind>.<key...>     one per aggregate; the stream keeps one message for each
 *   headers  Hf-Epoch, Hf-Digest, Hf-Schema, Hf-At (milliseconds, for people), Hf-Deleted (tombstones only),
 *            Hf-Urgent (what takes authority away)
 *   payload  {"wire":1,"kind":"user","key":["3f…"],"schema":"29e87d24a316","rows":{"user":[{…}],"local_user":[…]}}
 *            a tombstone has no "rows"
 *
 * Invariants: decode(encode(change)) = change; unknown fields are kept out of the image but never refused; an unknown wire
 * version is refused with E_CHANGE_UNREADABLE. tests/wire holds recorded changes of every released version.
 */
import { OperatingError } from "../core/errors.ts";
import type { Service } from "./define.ts";
import type { Version } from "./position.ts";
import { canonicalImage, digestOf, type AggregateKey, type Image, type Row } from "./row.ts";

export const WIRE_VERSION = 1;

/** An image with the revision of the schema it was read under. */
export interface Change {
  readonly image: Image;
  /** digestOf(image). */
  readonly digest: string;
  /** Migration revision of the database it was read from. */
  readonly schema: string;
}

/** A change at its place in the stream. */
export interface PlacedChange extends Change {
  readonly version: Version;
}

/** What the headers alone say: enough to compare an aggregate with the database. */
export interface ChangeHead {
  readonly key: AggregateKey;
  readonly version: Version;
  readonly digest: string;
  readonly deleted: boolean;
}

/** A change for an image that was read under the schema revision `schema`. */
export function changeOf(image: Image, schema: string): Change {
  return { image, digest: digestOf(image), schema };
}

/** The payload of a change, UTF-8 JSON. */
export function encodeChange(change: Change): Uint8Array {
  const { key, rows } = change.image;
  return Buffer.from(JSON.stringify({ wire: WIRE_VERSION, kind: key.kind, key: key.values, schema: change.schema, rows }));
}

interface WirePayload {
  readonly wire: number;
  readonly kind: string;
  readonly key: readonly string[];
  readonly schema: string;
  readonly rows?: Readonly<Record<string, readonly Row[]>>;
}

function isPayload(value: unknown): value is WirePayload {
  if (typeof value !== "object" || value === null) return false;
  const { wire, kind, key, schema, rows } = value as Record<string, unknown>;
  return typeof wire === "number" && typeof kind === "string" && typeof schema === "string" &&
    Array.isArray(key) && key.every((part) => typeof part === "string") &&
    (rows === undefined || (typeof rows === "object" && rows !== null &&
      Object.values(rows).every((table) => Array.isArray(table))));
}

/**
 * Reads a payload written by encodeChange, of this or an older release.
 * @throws E_CHANGE_UNREADABLE for anything else, with the subject in its facts.
 */
export function decodeChange(service: Service, subject: string, payload: Uint8Array): Change {
  const refuse = (reason: string): never => {
    throw new OperatingError("E_CHANGE_UNREADABLE", reason, { subject, sizeBytes: payload.byteLength });
  };
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString("utf8"));
  } catch {
    return refuse("the payload is not JSON");
  }
  if (!isPayload(parsed)) return refuse("the payload is not a change");
  if (parsed.wire !== WIRE_VERSION) return refuse(`wire version ${parsed.wire} is not known here`);
  if (!service.kinds.has(parsed.kind)) return refuse(`kind ${parsed.kind} is not known here`);
  return changeOf(canonicalImage(service, { kind: parsed.kind, values: parsed.key }, parsed.rows), parsed.schema);
}
