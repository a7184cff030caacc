/**
 * What the centre says about a whole stream, beside the images in it: heartbeats ("I am here, this far, in this epoch") and
 * manifests ("this is all there is, in 256 digests"). Both are ordinary messages of the stream under subjects of their own,
 * so one message serves every site of a scope and says something at a definite place among the changes.
 *
 * A bucket holds the live aggregates whose key hashes begin with the same byte. Its digest is the exclusive or of one 64-bit
 * fingerprint per aggregate, so adding, replacing and removing cost the same at any size, and order does not matter. Tombstones
 * are in no bucket: they are collected one day, and an absent aggregate looks the same before and after.
 *
 * Invariants: two sets of (key, digest) with the same bucket digests are equal, but for chance (2^-64 a bucket);
 * decode(encode(x)) = x; an unknown wire version is E_CHANGE_UNREADABLE. Not here: who compares what (audit/, syncd/).
 */
import { createHash } from "node:crypto";
import { assert } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import { WIRE_VERSION } from "./change.ts";
import type { Version } from "./position.ts";

export const BUCKETS = 256;
const FINGERPRINT_BYTES = 8;

/** SHA-256 of a key's text, base64url: stands for the key where texts are too long. */
export function hashOfName(name: string): string {
  return createHash("sha256").update(name).digest("base64url");
}

/** The bucket of a key, by its hash: the first byte. */
export function bucketOf(hash: string): number {
  return Buffer.from(hash.slice(0, 2), "base64url")[0] ?? 0;
}

function fingerprint(hash: string, digest: string): Buffer {
  return createHash("sha256").update(hash).update(digest).digest().subarray(0, FINGERPRINT_BYTES);
}

/** The bucket digests of a set of live aggregates, kept up to date one by one. */
export class Buckets {
  readonly #bytes = Buffer.alloc(BUCKETS * FINGERPRINT_BYTES);

  /** Puts (hash, digest) into the set, or takes it out again: the same step. Doing it twice does nothing. */
  toggle(hash: string, digest: string): void {
    const at = bucketOf(hash) * FINGERPRINT_BYTES;
    const print = fingerprint(hash, digest);
    for (let place = 0; place < FINGERPRINT_BYTES; place += 1) {
      this.#bytes[at + place] = (this.#bytes[at + place] ?? 0) ^ (print[place] ?? 0);
    }
  }

  /** Replaces what the set holds of one aggregate; undefined: it is not live. */
  replace(hash: string, before: string | undefined, after: string | undefined): void {
    if (before === after) return;
    if (before !== undefined) this.toggle(hash, before);
    if (after !== undefined) this.toggle(hash, after);
  }

  clear(): void {
    this.#bytes.fill(0);
  }

  /** All digests, base64url: 8 bytes a bucket. */
  text(): string {
    return this.#bytes.toString("base64url");
  }

  /** Buckets whose digests differ from those of `text`. */
  differing(text: string): readonly number[] {
    const other = Buffer.from(text, "base64url");
    assert(other.byteLength === this.#bytes.byteLength, "both sides have the same number of buckets");
    const differing: number[] = [];
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      const [from, to] = [bucket * FINGERPRINT_BYTES, (bucket + 1) * FINGERPRINT_BYTES];
      if (this.#bytes.compare(other, from, to, from, to) !== 0) differing.push(bucket);
    }
    return differing;
  }
}

/** Published every few seconds by the auditor. */
export interface Heartbeat {
  readonly epoch: number;
  /** Counts up for ever; kept in the central database, so it survives the stream. */
  readonly n: number;
  /** Last sequence of the stream when it was said. */
  readonly tip: number;
  /** False until the whole database was compared with the stream once in this epoch: before that absence proves nothing. */
  readonly filled: boolean;
  /** Tombstones at or below this version may have been collected: a site behind it reads everything anew. */
  readonly floor: Version;
}

/** Published after every audit. */
export interface Manifest {
  readonly epoch: number;
  /** It speaks of the stream up to this sequence; an aggregate with a later image is not its business. */
  readonly asOf: number;
  readonly floor: Version;
  /** Schema revisions of the central database. */
  readonly schema: string;
  /** Live aggregates. */
  readonly aggregates: number;
  /** Hash of `buckets`: one text to compare. */
  readonly root: string;
  /** Buckets.text(). */
  readonly buckets: string;
}

/** The root over bucket digests. */
export function rootOf(buckets: string): string {
  return createHash("sha256").update(buckets).digest("base64url").slice(0, 22);
}

/** Payload of a heartbeat or a manifest, UTF-8 JSON. */
export function encodeControl(said: Heartbeat | Manifest): Uint8Array {
  return Buffer.from(JSON.stringify({ wire: WIRE_VERSION, ...said }));
}

function parsed(subject: string, payload: Uint8Array): Readonly<Record<string, unknown>> {
  const refuse = (reason: string): never => {
    throw new OperatingError("E_CHANGE_UNREADABLE", reason, { subject, sizeBytes: payload.byteLength });
  };
  try {
    const said: unknown = JSON.parse(Buffer.from(payload).toString("utf8"));
    if (typeof said !== "object" || said === null) return refuse("the control message is not an object");
    const fields = said as Readonly<Record<string, unknown>>;
    return fields["wire"] === WIRE_VERSION ? fields : refuse(`wire version ${String(fields["wire"])} is not known here`);
  } catch (error) {
    if (error instanceof OperatingError) throw error;
    return refuse("the control message is not JSON");
  }
}

function isVersion(value: unknown): value is Version {
  if (typeof value !== "object" || value === null) return false;
  const { epoch, sequence } = value as Record<string, unknown>;
  return Number.isSafeInteger(epoch) && Number.isSafeInteger(sequence);
}

/** Reads a heartbeat. @throws E_CHANGE_UNREADABLE */
export function decodeHeartbeat(subject: string, payload: Uint8Array): Heartbeat {
  const { epoch, n, tip, filled, floor } = parsed(subject, payload);
  if (Number.isSafeInteger(epoch) && Number.isSafeInteger(n) && Number.isSafeInteger(tip) && typeof filled === "boolean" &&
    isVersion(floor)) return { epoch: Number(epoch), n: Number(n), tip: Number(tip), filled, floor };
  throw new OperatingError("E_CHANGE_UNREADABLE", "the message is not a heartbeat", { subject });
}

/** Reads a manifest. @throws E_CHANGE_UNREADABLE */
export function decodeManifest(subject: string, payload: Uint8Array): Manifest {
  const { epoch, asOf, floor, schema, aggregates, root, buckets } = parsed(subject, payload);
  if (Number.isSafeInteger(epoch) && Number.isSafeInteger(asOf) && Number.isSafeInteger(aggregates) && isVersion(floor) &&
    typeof schema === "string" && typeof buckets === "string" && typeof root === "string" && rootOf(buckets) === root &&
    Buffer.from(buckets, "base64url").byteLength === BUCKETS * FINGERPRINT_BYTES) {
    return { epoch: Number(epoch), asOf: Number(asOf), floor, schema, aggregates: Number(aggregates), root, buckets };
  }
  throw new OperatingError("E_CHANGE_UNREADABLE", "the message is not a manifest", { subject });
}
