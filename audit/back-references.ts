/**
 * Who refers to whom, from the images of a stream: which live aggregates have to be looked at when one is gone, because the
 * database may have cascaded. Edges in flat arrays of numbers, two lists through each: the edges that an image owns, and those
 * that point at a slot.
 *
 * Invariants: the edges of an owner are exactly those of its last replace(); a slot's `uses` are the edges that name it as target
 * or dependent. Bound: edgesMax; beyond it everything is dropped for good, and comparisons of whole kinds do the work.
 * Not here: reading references out of an image (referred.ts).
 */
import type { Slots } from "./slots.ts";

/** `dependent` has to be looked at when `target` is gone. */
export interface Edge {
  readonly dependent: number;
  readonly target: number;
}

const FIRST_EDGES = 1_024;
/** Edge numbers in lists are stored plus one, so that zero means the end. */
const END = 0;

function longer(from: Uint32Array<ArrayBuffer>, length: number): Uint32Array<ArrayBuffer> {
  if (from.length >= length) return from;
  const to = new Uint32Array(Math.max(length, from.length * 2));
  to.set(from);
  return to;
}

/** The edges of one index; see the file's head. */
export class BackReferences {
  readonly #slots: Slots;
  readonly #edgesMax: number;
  readonly #free: number[] = [];
  #dependent = new Uint32Array(FIRST_EDGES);
  #target = new Uint32Array(FIRST_EDGES);
  #nextOwned = new Uint32Array(FIRST_EDGES);
  #nextAt = new Uint32Array(FIRST_EDGES);
  #previousAt = new Uint32Array(FIRST_EDGES);
  #firstOwned = new Uint32Array(FIRST_EDGES);
  #firstAt = new Uint32Array(FIRST_EDGES);
  #end = 0;
  #dropped = false;

  constructor(slots: Slots, edgesMax: number) {
    this.#slots = slots;
    this.#edgesMax = edgesMax;
  }

  /** Edges held now. */
  get size(): number {
    return this.#end - this.#free.length;
  }

  /** True once there were too many: nothing is known any more. */
  get dropped(): boolean {
    return this.#dropped;
  }

  /** Edges that `owner` brought, dependents of `owner` itself among the targets included. */
  ownedBy(owner: number): readonly Edge[] {
    const found: Edge[] = [];
    for (let edge = this.#firstOwned[owner] ?? END; edge !== END; edge = this.#nextOwned[edge - 1] ?? END) {
      found.push({ dependent: this.#dependent[edge - 1] ?? 0, target: this.#target[edge - 1] ?? 0 });
    }
    return found;
  }

  /** Slots that depend on `target` directly. */
  dependentsOf(target: number): readonly number[] {
    const found: number[] = [];
    for (let edge = this.#firstAt[target] ?? END; edge !== END; edge = this.#nextAt[edge - 1] ?? END) {
      found.push(this.#dependent[edge - 1] ?? 0);
    }
    return found;
  }

  /** Replaces what `owner` brought. False when that was too much and everything is dropped. */
  replace(owner: number, edges: readonly Edge[]): boolean {
    if (this.#dropped) return false;
    const before = this.#takeOwned(owner);
    if (this.size + edges.length > this.#edgesMax) {
      this.#drop();
      return false;
    }
    for (const edge of edges) this.#add(owner, edge);
    for (const slot of before) this.#slots.release(slot);
    return true;
  }

  /** Unlinks the owner's edges; gives the slots that may have lost their last use. */
  #takeOwned(owner: number): readonly number[] {
    const touched: number[] = [];
    for (let edge = this.#firstOwned[owner] ?? END; edge !== END; ) {
      const place = edge - 1;
      const [dependent, target] = [this.#dependent[place] ?? 0, this.#target[place] ?? 0];
      const [before, after] = [this.#previousAt[place] ?? END, this.#nextAt[place] ?? END];
      if (before === END) this.#firstAt[target] = after;
      else this.#nextAt[before - 1] = after;
      if (after !== END) this.#previousAt[after - 1] = before;
      for (const slot of [dependent, target]) this.#slots.uses[slot] = (this.#slots.uses[slot] ?? 1) - 1;
      touched.push(dependent, target);
      this.#free.push(place);
      edge = this.#nextOwned[place] ?? END;
    }
    this.#firstOwned[owner] = END;
    return touched;
  }

  #add(owner: number, { dependent, target }: Edge): void {
    const place = this.#free.pop() ?? this.#end++;
    this.#reach(place, Math.max(owner, target));
    const edge = place + 1;
    const first = this.#firstAt[target] ?? END;
    this.#dependent[place] = dependent;
    this.#target[place] = target;
    this.#nextOwned[place] = this.#firstOwned[owner] ?? END;
    this.#firstOwned[owner] = edge;
    this.#previousAt[place] = END;
    this.#nextAt[place] = first;
    if (first !== END) this.#previousAt[first - 1] = edge;
    this.#firstAt[target] = edge;
    for (const slot of [dependent, target]) this.#slots.uses[slot] = (this.#slots.uses[slot] ?? 0) + 1;
  }

  #reach(place: number, slot: number): void {
    this.#dependent = longer(this.#dependent, place + 1);
    this.#target = longer(this.#target, place + 1);
    this.#nextOwned = longer(this.#nextOwned, place + 1);
    this.#nextAt = longer(this.#nextAt, place + 1);
    this.#previousAt = longer(this.#previousAt, place + 1);
    this.#firstOwned = longer(this.#firstOwned, slot + 1);
    this.#firstAt = longer(this.#firstAt, slot + 1);
  }

  #drop(): void {
    this.#dropped = true;
    const empty = new Uint32Array(0);
    [this.#dependent, this.#target, this.#nextOwned, this.#nextAt] = [empty, empty, empty, empty];
    [this.#previousAt, this.#firstOwned, this.#firstAt] = [empty, empty, empty];
    this.#end = 0;
    this.#free.length = 0;
    this.#slots.uses.fill(0);
    for (let slot = 0; slot < this.#slots.end; slot += 1) this.#slots.release(slot);
  }
}
