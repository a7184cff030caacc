/**
 * Chance as a port. This file is the only home of Math.random and fresh identifiers, so that a simulated run
 * is decided by its seed alone.
 */
import { randomBytes, randomUUID } from "node:crypto";

export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** A fresh identifier, 36 characters. */
  id(): string;
}

export const systemRandom: Random = { next: () => Math.random(), id: () => randomUUID() };

/** Bytes that nobody can guess, for keys. They never come from a seed: no simulated run makes keys. */
export function unguessableBytes(count: number): Uint8Array {
  return randomBytes(count);
}

/** The same sequence for the same seed (mulberry32; not for secrets). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
  const hex = (digits: number): string =>
    Array.from({ length: digits }, () => Math.floor(next() * 16).toString(16)).join("");
  return { next, id: () => [hex(8), hex(4), hex(4), hex(4), hex(12)].join("-") };
}
