/**
 * A set of aggregates in little memory: 48 bits of each name's hash in an open table, about 16 bytes a name, where a Set of
 * texts would take ten times that. Two names that fall together (one in 2^48) make an absent aggregate look present: then a
 * sweep leaves it, and the next manifest finds it.
 */
import { assert } from "../core/assert.ts";

const PREFIX_CHARACTERS = 8;
const PREFIX_BYTES = 6;
const EMPTY = -1;
const CAPACITY_LEAST = 1_024;

/** Grows by doubling; at most half full. */
export class NamesSeen {
  #slots = new Float64Array(CAPACITY_LEAST).fill(EMPTY);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds the aggregate with this hash (schemas/manifest.ts hashOfName). */
  add(hash: string): void {
    if (2 * (this.#size + 1) > this.#slots.length) this.#grow();
    const prefix = prefixOf(hash);
    const place = this.#placeOf(prefix);
    if (this.#slots[place] === prefix) return;
    this.#slots[place] = prefix;
    this.#size += 1;
  }

  has(hash: string): boolean {
    const prefix = prefixOf(hash);
    return this.#slots[this.#placeOf(prefix)] === prefix;
  }

  /** Where the prefix is, or where it would go. */
  #placeOf(prefix: number): number {
    let place = prefix % this.#slots.length;
    while (this.#slots[place] !== EMPTY && this.#slots[place] !== prefix) place = (place + 1) % this.#slots.length;
    return place;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Float64Array(old.length * 2).fill(EMPTY);
    for (const prefix of old) if (prefix !== EMPTY) this.#slots[this.#placeOf(prefix)] = prefix;
  }
}

function prefixOf(hash: string): number {
  const bytes = Buffer.from(hash.slice(0, PREFIX_CHARACTERS), "base64url");
  assert(bytes.byteLength === PREFIX_BYTES, "a hash is longer than its prefix");
  return bytes.readUIntBE(0, PREFIX_BYTES);
}
