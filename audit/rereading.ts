/**
 * What a complete reading of the stream proves about what was known before it: whether the stream has lost its end, or uses
 * sequences a second time. Messages that are gone from the middle (an old server that was killed may show older images again)
 * are no such proof: sites keep what is newer, and the next audit says it again.
 *
 * Invariants: a stream that only grew gives no evidence; what an unfinished reading has proved is kept for the next one. A stream
 * loses its end as a whole, so anything known that is still at its place proves that nothing below it was lost that way.
 * Bound: LOST_NAMED_MAX lost messages are named, the highest ones.
 */

/** A message that was known at `sequence` and is gone, or is back at an older sequence. */
export interface Lost {
  readonly name: string;
  readonly sequence: number;
}

export interface Evidence {
  /** A sequence that was known belongs to another message now. */
  readonly reused: boolean;
  /** Lost messages above keptMost are proof; the others are not. */
  readonly lost: readonly Lost[];
  /** Highest sequence known before that is still the same message. */
  readonly keptMost: number;
  /** Highest epoch of any message known before. */
  readonly epoch: number;
}

export const LOST_NAMED_MAX = 256;

/** No memory, no evidence. */
export const NO_EVIDENCE: Evidence = { reused: false, lost: [], keptMost: 0, epoch: 0 };

/** Highest sequence that was lost from the end; undefined when the end is where it was. */
export function lostFromTheEnd({ lost, keptMost }: Evidence): number | undefined {
  const most = lost.reduce((highest, { sequence }) => Math.max(highest, sequence), 0);
  return most > keptMost ? most : undefined;
}

/** One complete reading, or several tries at one. Tell it of each message in rising sequence. */
export class Rereading {
  readonly #known: Float64Array;
  readonly #epoch: number;
  #next = 0;
  #reused: boolean;
  #lost: Lost[];
  #keptMost = 0;

  /** `known`: every sequence known before, in any order. `before`: what an unfinished reading has proved. */
  constructor(known: Float64Array, epoch: number, before: Evidence) {
    this.#known = known.sort();
    this.#epoch = Math.max(epoch, before.epoch);
    this.#reused = before.reused;
    this.#lost = [...before.lost];
  }

  get evidence(): Evidence {
    return { reused: this.#reused, lost: this.#lost, keptMost: this.#keptMost, epoch: this.#epoch };
  }

  /** The reading shows `name` at `sequence`; it was known at `was` (0: not at all), with the same content or not. */
  arrived(name: string, sequence: number, was: number, isSame: boolean): void {
    if (was === sequence && isSame) this.#keptMost = Math.max(this.#keptMost, sequence);
    else if (this.#isKnown(sequence)) this.#reused = true;
    if (was > sequence) this.lose(name, was);
  }

  /** A message known at `sequence` did not come, and nobody had a right to remove it. */
  lose(name: string, sequence: number): void {
    this.#lost.push({ name, sequence });
    if (this.#lost.length < 2 * LOST_NAMED_MAX) return;
    this.#lost = this.#lost.sort((left, right) => right.sequence - left.sequence).slice(0, LOST_NAMED_MAX);
  }

  #isKnown(sequence: number): boolean {
    while ((this.#known[this.#next] ?? Infinity) < sequence) this.#next += 1;
    return this.#known[this.#next] === sequence;
  }
}
