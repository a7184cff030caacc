/**
 * The set of aggregates whose rows may differ from the stream. Coalescing: an aggregate is in it once, however often it is
 * marked, and is looked at by one batch at a time. Whoever marks an aggregate is told when a look that BEGAN after the mark is
 * done, which is what makes "read the rows after the answer" true for every caller. Keys only, never payloads.
 */
import { present } from "../core/assert.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";

interface Entry {
  readonly key: AggregateKey;
  /** Told after the look in progress. */
  told: (() => void)[];
  /** Told after the next look. */
  waiting: (() => void)[];
  looking: boolean;
}

/** See the file's head. Unbounded by itself: its user decides when to compare whole kinds instead. */
export class DirtySet {
  readonly #entries = new Map<string, Entry>();
  readonly #queue = new Set<string>();

  /** Everything marked and not yet done. */
  get size(): number {
    return this.#entries.size;
  }

  /** How many wait for a look. */
  get queued(): number {
    return this.#queue.size;
  }

  /** Marks `key`; resolves when a look that began later is done. */
  mark(key: AggregateKey): Promise<void> {
    const name = keyText(key);
    let entry = this.#entries.get(name);
    if (entry === undefined) this.#entries.set(name, (entry = { key, told: [], waiting: [], looking: false }));
    if (!entry.looking) this.#queue.add(name);
    const marked = entry;
    return new Promise((resolve) => marked.waiting.push(resolve));
  }

  /** Takes up to `keysMax` queued aggregates for a look; each must come back through `done` or `again`. */
  take(keysMax: number): readonly AggregateKey[] {
    const taken: AggregateKey[] = [];
    for (const name of this.#queue) {
      if (taken.length === keysMax) break;
      this.#queue.delete(name);
      const entry = present(this.#entries.get(name), "a queued aggregate has an entry");
      entry.looking = true;
      entry.told.push(...entry.waiting.splice(0));
      taken.push(entry.key);
    }
    return taken;
  }

  /** The look is done: the stream holds what was read, or nothing had to be said. */
  done(key: AggregateKey): void {
    const name = keyText(key);
    const entry = present(this.#entries.get(name), "only a taken aggregate is done");
    entry.looking = false;
    for (const tell of entry.told.splice(0)) tell();
    if (entry.waiting.length > 0) this.#queue.add(name);
    else this.#entries.delete(name);
  }

  /** The look came to nothing (conflict, outage): another one is due. */
  again(key: AggregateKey): void {
    const name = keyText(key);
    const entry = present(this.#entries.get(name), "only a taken aggregate is looked at again");
    entry.looking = false;
    entry.waiting.unshift(...entry.told.splice(0));
    this.#queue.add(name);
  }
}
