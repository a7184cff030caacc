/**
 * Sets of numbered keys, as a key repository holds them: 0 is staged and will be the next primary, the highest number is the
 * primary that signs or encrypts, every key is good for reading. What a set must look like, how one becomes another in an order
 * in which no moment refuses what another cloud has made, and when an old key may go.
 *
 * Invariants: pure; a key is a Secret and leaves only as its id, which gives nothing away; carrying out the first steps of any
 * list, and then those of a list made anew from what is there, ends where carrying out the whole list ends.
 * Not here: files (disk.ts), who has which set (audit/key-sites.ts).
 */
import { createHash } from "node:crypto";
import { present } from "../core/assert.ts";
import { OperatingError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";

/** Keys by number. */
export type KeySet = ReadonlyMap<number, Secret>;

/** One step of changing a repository; each is atomic for whoever reads it. */
export type KeyStep = { readonly do: "write"; readonly number: number; readonly key: Secret }
  | { readonly do: "remove"; readonly number: number };

/** What may be told about a set. */
export interface ShownKeys {
  readonly digest: string;
  /** Ids of the keys, lowest number first: the staged one stands at the beginning, the primary at the end. */
  readonly ids: readonly string[];
}

/** Keys in one repository at most. */
export const KEYS_MAX = 100;
/** Base64url of 32 bytes, as Fernet writes it. */
const KEY = /^[0-9A-Za-z_-]{42}[048AEIMQUYcgkosw]=$/;
const KEY_BYTES = 32;
const ID_CHARACTERS = 10;
const DIGEST_CHARACTERS = 22;

/**
 * What files by number hold, as a set.
 * @param where  for the operator: the folder
 * @throws E_KEYS_UNUSABLE for anything but whole keys, with 0 and at least one more
 */
export function keySetOf(files: ReadonlyMap<number, Secret>, where: string): KeySet {
  const refuse = (reason: string): OperatingError => new OperatingError("E_KEYS_UNUSABLE", `${where}: ${reason}`);
  if (files.size > KEYS_MAX) throw refuse(`${files.size} keys, and at most ${KEYS_MAX} can be`);
  for (const [number, key] of files) {
    if (!KEY.test(key.reveal())) throw refuse(`${number} is not a key: 32 bytes in base64url`);
  }
  if (!files.has(0)) throw refuse("there is no staged key 0");
  if (files.size < 2) throw refuse("there is no primary key, only the staged one");
  return new Map([...files].sort(([left], [right]) => left - right));
}

/** A fresh key from `KEY_BYTES` unguessable bytes. */
export function freshKey(bytesOf: (count: number) => Uint8Array): Secret {
  return new Secret(Buffer.from(bytesOf(KEY_BYTES)).toString("base64url").padEnd(44, "="));
}

/** The number of the primary key. */
export function primaryOf(set: ReadonlyMap<number, unknown>): number {
  return Math.max(...set.keys());
}

/** A short name of a key, from which nobody learns the key. */
export function keyId(key: Secret): string {
  return createHash("sha256").update(`key ${key.reveal()}`).digest("hex").slice(0, ID_CHARACTERS);
}

/** What may be told: equal digests mean equal sets, numbers included. */
export function shownKeys(set: KeySet): ShownKeys {
  const sorted = [...set].sort(([left], [right]) => left - right);
  const digest = createHash("sha256").update(sorted.map(([number, key]) => `${number} ${key.reveal()}`).join("\n"))
    .digest("base64url").slice(0, DIGEST_CHARACTERS);
  return { digest, ids: sorted.map(([, key]) => keyId(key)) };
}

const isSame = (left: Secret | undefined, right: Secret): boolean => left?.reveal() === right.reveal();

/**
 * From what is there to `wanted`: new keys first and the highest of them at once, because the centre signs with it; then the
 * staged one, which until then is the centre's primary under its old number; what is not wanted goes last.
 */
export function stepsToward(here: ReadonlyMap<number, Secret>, wanted: KeySet): readonly KeyStep[] {
  const descending = [...wanted].filter(([number]) => number > 0).sort(([left], [right]) => right - left);
  const writes = [...descending, [0, present(wanted.get(0), "a set has a staged key")] as const]
    .filter(([number, key]) => !isSame(here.get(number), key))
    .map(([number, key]): KeyStep => ({ do: "write", number, key }));
  const gone = [...here.keys()].filter((number) => !wanted.has(number)).sort((left, right) => left - right);
  return [...writes, ...gone.map((number): KeyStep => ({ do: "remove", number }))];
}

/** True when a rotation was cut off between making the staged key the primary and staging a fresh one. */
export function isHalfRotated(set: KeySet): boolean {
  return isSame(set.get(0), present(set.get(primaryOf(set)), "the primary is there"));
}

export interface Rotation {
  readonly fresh: Secret;
  /** Keys that stay at least. */
  readonly keysMax: number;
  /** True when nothing that key `number` has made, anywhere, can be valid any more. */
  readonly isOutlived: (number: number) => boolean;
}

/**
 * One rotation: the staged key becomes the primary under a new number as well, then a fresh one is staged, then the oldest go, as
 * long as more than `keysMax` are there and the oldest is outlived. Ends a rotation that was cut off, instead of beginning one.
 * @throws E_KEYS_UNUSABLE when more keys would be there than can be
 */
export function rotationOf(set: KeySet, { fresh, keysMax, isOutlived }: Rotation): readonly KeyStep[] {
  const staged = present(set.get(0), "a set has a staged key");
  const primary = primaryOf(set);
  const promote: readonly KeyStep[] = isHalfRotated(set) ? [] : [{ do: "write", number: primary + 1, key: staged }];
  const numbers = [...set.keys()].filter((number) => number > 0).sort((left, right) => left - right);
  let count = set.size + promote.length;
  const removed: KeyStep[] = [];
  for (const number of numbers) {
    if (count <= Math.max(keysMax, 2) || number === primary || !isOutlived(number)) break;
    removed.push({ do: "remove", number });
    count -= 1;
  }
  if (count > KEYS_MAX) {
    throw new OperatingError("E_KEYS_UNUSABLE",
      `a rotation would leave ${count} keys, and at most ${KEYS_MAX} can be: what the oldest has made may still be valid`);
  }
  return [...promote, { do: "write", number: 0, key: fresh }, ...removed];
}
