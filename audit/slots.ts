/**
 * Names as small numbers, and columns of plain numbers beside them: how the index of a stream keeps a million aggregates without
 * a million objects. A slot stands for one name as long as it is held or something points at it; then it is given to another.
 *
 * Invariants: one slot per name; columns are zero in a slot that was just taken; capacity only grows, by doubling.
 * Not here: what the columns mean to anybody (stream-index.ts, back-references.ts).
 */
import { present } from "../core/assert.ts";

const FIRST_CAPACITY = 1_024;
export const DIGEST_BYTES = 32;

/** What is at a name: nothing (something else points at it), a live image, a tombstone. */
export const VOID = 0;
export const LIVE = 1;
export const TOMBSTONE = 2;

function grown<T extends Uint8Array | Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** The table of names; see the file's head. */
export class Slots {
  readonly #numbers = new Map<string, number>();
  #names: (string | undefined)[] = [];
  readonly #free: number[] = [];
  capacity = FIRST_CAPACITY;
  state = new Uint8Array(FIRST_CAPACITY);
  bucket = new Uint8Array(FIRST_CAPACITY);
  /** What was there in a later message that the stream has lost; VOID when nothing was. */
  lost = new Uint8Array(FIRST_CAPACITY);
  kind = new Uint16Array(FIRST_CAPACITY);
  epoch = new Uint32Array(FIRST_CAPACITY);
  sequence = new Float64Array(FIRST_CAPACITY);
  /** In which complete reading the name was seen last. */
  reading = new Uint32Array(FIRST_CAPACITY);
  /** Pointers at the slot (back-references.ts). */
  uses = new Uint32Array(FIRST_CAPACITY);
  digests = new Uint8Array(FIRST_CAPACITY * DIGEST_BYTES);

  /** Slots from 0 to below this were given out once. */
  get end(): number {
    return this.#names.length;
  }

  find(name: string): number | undefined {
    return this.#numbers.get(name);
  }

  nameOf(slot: number): string {
    return present(this.#names[slot], "a slot in use has a name");
  }

  /** The slot of `name`, a fresh one if it has none; `fresh` fills in what belongs to the name itself. */
  take(name: string, fresh: (slot: number) => void): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    const slot = this.#free.pop() ?? this.#names.length;
    if (slot >= this.capacity) this.#grow();
    this.#names[slot] = name;
    this.#numbers.set(name, slot);
    fresh(slot);
    return slot;
  }

  /** Gives the slot back if nothing is there and nothing points at it. */
  release(slot: number): void {
    const name = this.#names[slot];
    if (name === undefined || this.state[slot] !== VOID || this.uses[slot] !== 0) return;
    this.#numbers.delete(name);
    this.#names[slot] = undefined;
    for (const column of [this.bucket, this.lost, this.kind, this.epoch, this.sequence, this.reading]) column[slot] = 0;
    this.digests.fill(0, slot * DIGEST_BYTES, (slot + 1) * DIGEST_BYTES);
    this.#free.push(slot);
  }

  /** SHA-256 as base64url; "" where none is known. */
  digestOf(slot: number): string {
    const from = slot * DIGEST_BYTES;
    if (!this.digests.subarray(from, from + DIGEST_BYTES).some((byte) => byte !== 0)) return "";
    return Buffer.from(this.digests.buffer, this.digests.byteOffset + from, DIGEST_BYTES).toString("base64url");
  }

  /** Text that is no digest is kept as none. */
  setDigest(slot: number, digest: string): void {
    const from = slot * DIGEST_BYTES;
    const bytes = Buffer.from(digest, "base64url");
    if (bytes.byteLength === DIGEST_BYTES) this.digests.set(bytes, from);
    else this.digests.fill(0, from, from + DIGEST_BYTES);
  }

  #grow(): void {
    this.capacity *= 2;
    this.state = grown(this.state, new Uint8Array(this.capacity));
    this.bucket = grown(this.bucket, new Uint8Array(this.capacity));
    this.lost = grown(this.lost, new Uint8Array(this.capacity));
    this.kind = grown(this.kind, new Uint16Array(this.capacity));
    this.epoch = grown(this.epoch, new Uint32Array(this.capacity));
    this.sequence = grown(this.sequence, new Float64Array(this.capacity));
    this.reading = grown(this.reading, new Uint32Array(this.capacity));
    this.uses = grown(this.uses, new Uint32Array(this.capacity));
    this.digests = grown(this.digests, new Uint8Array(this.capacity * DIGEST_BYTES));
  }
}
