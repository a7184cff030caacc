/**
 * The index of one service's stream: what the newest message of every aggregate is, without payloads. It stands for the stream
 * wherever the auditor compares (capture/view.ts), and keeps the bucket digests of the manifest up to date message by message.
 *
 * Invariants: after any sequence of messages it holds what a map from name to newest message would hold; buckets and counts are
 * those of its live aggregates; a complete reading replaces what it knew, and what did not come is gone. Bounds: memory grows
 * with the number of aggregates (about 300 bytes each, measured in tests); back-references have a bound of their own.
 * Not here: reading the stream (tail.ts), acting on what is found (auditor.ts).
 */
import { assert, present } from "../core/assert.ts";
import type { KindView, StreamEntry } from "../capture/view.ts";
import type { Service } from "../schemas/define.ts";
import { Buckets, bucketOf, hashOfName } from "../schemas/manifest.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import { keyFromText } from "../schemas/row.ts";
import { BackReferences, type Edge } from "./back-references.ts";
import { REFERS_TO_NOTHING, type Referred } from "./referred.ts";
import { NO_EVIDENCE, Rereading, type Evidence } from "./rereading.ts";
import { LIVE, Slots, TOMBSTONE, VOID } from "./slots.ts";

/** Where a message is, and what its headers say. */
export interface Place extends Version {
  /** Of the image; "" when the headers do not name one. */
  readonly digest: string;
  readonly deleted: boolean;
  /** When it was published by its publisher's clock. */
  readonly atMs: number;
}

/** One live aggregate, for whoever compares a bucket. */
export interface Leaf extends Version {
  readonly name: string;
  readonly digest: string;
}

export interface DueTombstone extends Version {
  readonly name: string;
}

/** No slot can count higher. */
const EPOCH_MAX = 0xffff_ffff;
const BITS = 8;
/** By state of a slot. */
const LOST_AS = [undefined, "image", "tombstone"] as const;

/** See the file's head. Everything here is one step without awaits. */
export class StreamIndex {
  readonly buckets = new Buckets();
  readonly #slots = new Slots();
  readonly #references: BackReferences;
  readonly #kinds: ReadonlyMap<string, number>;
  readonly #liveOfKind: Uint32Array;
  /** Counts whatever happened to a kind. */
  readonly #changesOfKind: Float64Array;
  /** Time of publication, by slot. */
  readonly #tombstones = new Map<number, number>();
  /** Live slots of which only the headers were seen: what they refer to is not known. */
  readonly #unread = new Set<number>();
  #live = 0;
  #reading = 0;
  #reached = 0;
  #epochMost = 0;
  #rereading: Rereading | undefined;

  constructor(service: Service, backReferencesMax: number) {
    this.#references = new BackReferences(this.#slots, backReferencesMax);
    this.#kinds = new Map([...service.kinds.keys()].map((kind, place) => [kind, place + 1]));
    this.#liveOfKind = new Uint32Array(this.#kinds.size + 1);
    this.#changesOfKind = new Float64Array(this.#kinds.size + 1);
  }

  /** Live aggregates. */
  get live(): number {
    return this.#live;
  }

  get tombstones(): number {
    return this.#tombstones.size;
  }

  get backReferences(): number {
    return this.#references.size;
  }

  get backReferencesDropped(): boolean {
    return this.#references.dropped;
  }

  /** Highest sequence seen since the last complete reading began. */
  get reached(): number {
    return this.#reached;
  }

  /** Highest epoch ever seen. */
  get epochMost(): number {
    return this.#epochMost;
  }

  /** Everything up to `sequence` was seen, whatever it was. */
  reach(sequence: number): void {
    this.#reached = Math.max(this.#reached, sequence);
  }

  /** A complete reading begins. `others`: sequences of messages that are no aggregates. */
  beginReading(others: readonly number[]): void {
    const known = new Float64Array(this.#live + this.#tombstones.size + others.length);
    let count = 0;
    for (let slot = 0; slot < this.#slots.end; slot += 1) {
      if (this.#slots.state[slot] !== VOID) known[count++] = this.#slots.sequence[slot] ?? 0;
    }
    known.set(others, count);
    this.#rereading = new Rereading(known, this.#epochMost, this.#rereading?.evidence ?? NO_EVIDENCE);
    this.#reading += 1;
    this.#reached = 0;
  }

  /** A message that is no aggregate; the same subject was known at `was`. */
  sawOther(name: string, sequence: number, was: number, isSame: boolean): void {
    this.#rereading?.arrived(name, sequence, was, isSame);
    this.reach(sequence);
  }

  /** A complete reading did not show a message that is no aggregate, and that was known at `was`. */
  missedOther(name: string, was: number): void {
    this.#rereading?.lose(name, was);
  }

  /**
   * The complete reading has reached the end: what it did not show is gone. Tombstones at or below `floor` may have been
   * collected by somebody; anything else that is gone is part of the evidence.
   */
  endReading(floor: Version): Evidence {
    const rereading = present(this.#rereading, "a reading ends after it began");
    for (let slot = 0; slot < this.#slots.end; slot += 1) {
      const state = this.#slots.state[slot];
      if (state === VOID || state === undefined || this.#slots.reading[slot] === this.#reading) continue;
      const isCollected = state === TOMBSTONE && compareVersions(this.#versionOf(slot), floor) <= 0;
      if (!isCollected) rereading.lose(this.#slots.nameOf(slot), this.#slots.sequence[slot] ?? 0);
      this.#clear(slot);
    }
    this.#rereading = undefined;
    return rereading.evidence;
  }

  /** True when the index holds exactly this message. */
  holds(name: string, place: Place): boolean {
    const slot = this.#slots.find(name);
    return slot !== undefined && this.#isSame(slot, place);
  }

  /**
   * Takes over the newest message of an aggregate; `read` says what its payload refers to, undefined when only headers came.
   * Gives the names of live aggregates that refer to rows which this message says are gone.
   */
  put(name: string, place: Place, read: (() => Referred) | undefined): readonly string[] {
    assert(place.epoch <= EPOCH_MAX, "epochs count restorations of a stream");
    const slot = this.#take(name);
    const was = this.#slots.state[slot];
    const isSame = this.#isSame(slot, place);
    this.#rereading?.arrived(name, place.sequence, was === VOID ? 0 : this.#slots.sequence[slot] ?? 0, isSame);
    this.reach(place.sequence);
    this.#epochMost = Math.max(this.#epochMost, place.epoch);
    this.#slots.reading[slot] = this.#reading;
    if (isSame && (read === undefined || !this.#unread.has(slot))) return [];
    const referred = place.deleted ? REFERS_TO_NOTHING : read?.();
    const orphaned = isSame ? [] : this.#orphanedBy(slot, place, referred);
    if (!isSame) this.#write(name, slot, place);
    if (referred === undefined) this.#unread.add(slot);
    else this.#unread.delete(slot);
    this.#refer(slot, referred ?? REFERS_TO_NOTHING);
    return orphaned;
  }

  /** Forgets a tombstone that was removed from the stream, unless the aggregate has a newer message. */
  forget(name: string, sequence: number): void {
    const slot = this.#slots.find(name);
    if (slot === undefined || this.#slots.state[slot] !== TOMBSTONE || this.#slots.sequence[slot] !== sequence) return;
    this.#clear(slot);
  }

  get(name: string): StreamEntry | undefined {
    const slot = this.#slots.find(name);
    return slot === undefined || this.#slots.state[slot] === VOID ? undefined : this.#entryOf(slot);
  }

  /** Names of live aggregates that refer to `name`. */
  dependentsOf(name: string): readonly string[] {
    const slot = this.#slots.find(name);
    return slot === undefined ? [] : this.#liveBehind(this.#references.dependentsOf(slot));
  }

  /** A kind as it is now, for one comparison. What comes later is nobody's omission. */
  viewOf(kindName: string): KindView {
    const slots = this.#slots;
    const kind = this.#kinds.get(kindName) ?? 0;
    const [end, reached] = [slots.end, this.#reached];
    const seen = new Uint8Array(Math.ceil(end / BITS));
    const isSeen = (slot: number): boolean => ((seen[slot >>> 3] ?? 0) & (1 << (slot & 7))) !== 0;
    const entryOf = (slot: number): StreamEntry => this.#entryOf(slot);
    return {
      live: this.#liveOfKind[kind] ?? 0,
      changes: this.#changesOfKind[kind] ?? 0,
      get: (name) => {
        const slot = slots.find(name);
        if (slot === undefined || slots.state[slot] === VOID) return undefined;
        if (slot < end) seen[slot >>> 3] = (seen[slot >>> 3] ?? 0) | (1 << (slot & 7));
        return entryOf(slot);
      },
      *unseen() {
        for (let slot = 0; slot < end; slot += 1) {
          if (slots.kind[slot] !== kind || slots.state[slot] !== LIVE || isSeen(slot)) continue;
          if ((slots.sequence[slot] ?? 0) <= reached) yield entryOf(slot);
        }
      },
    };
  }

  /** Live aggregates of a bucket with names above `after`, ascending, at most `limit`. */
  leavesOf(bucket: number, after: string, limit: number): readonly Leaf[] {
    const slots = this.#slots;
    const names: string[] = [];
    for (let slot = 0; slot < slots.end; slot += 1) {
      if (slots.bucket[slot] !== bucket || slots.state[slot] !== LIVE) continue;
      const name = slots.nameOf(slot);
      if (name > after) names.push(name);
    }
    return names.sort((left, right) => (left < right ? -1 : 1)).slice(0, limit).map((name) => {
      const slot = present(slots.find(name), "a name of a slot");
      return { name, ...this.#versionOf(slot), digest: slots.digestOf(slot) };
    });
  }

  /** Tombstones published before `atMs`, at most `limit`, oldest versions first. */
  tombstonesBefore(atMs: number, limit: number): readonly DueTombstone[] {
    const due: DueTombstone[] = [];
    for (const [slot, publishedMs] of this.#tombstones) {
      if (publishedMs < atMs) due.push({ name: this.#slots.nameOf(slot), ...this.#versionOf(slot) });
    }
    return due.sort(compareVersions).slice(0, limit);
  }

  #take(name: string): number {
    return this.#slots.take(name, (slot) => {
      this.#slots.kind[slot] = this.#kinds.get(name.slice(0, name.indexOf("."))) ?? 0;
    });
  }

  #versionOf(slot: number): Version {
    return { epoch: this.#slots.epoch[slot] ?? 0, sequence: this.#slots.sequence[slot] ?? 0 };
  }

  #entryOf(slot: number): StreamEntry {
    return { key: keyFromText(this.#slots.nameOf(slot)), ...this.#versionOf(slot), digest: this.#slots.digestOf(slot),
      deleted: this.#slots.state[slot] === TOMBSTONE, lost: LOST_AS[this.#slots.lost[slot] ?? VOID] };
  }

  #isSame(slot: number, place: Place): boolean {
    const state = place.deleted ? TOMBSTONE : LIVE;
    return this.#slots.state[slot] === state && this.#slots.sequence[slot] === place.sequence &&
      this.#slots.epoch[slot] === place.epoch && this.#slots.digestOf(slot) === place.digest;
  }

  #write(name: string, slot: number, place: Place): void {
    const before = this.#slots.state[slot] === LIVE ? this.#slots.digestOf(slot) : undefined;
    this.#count(slot, -1);
    this.#noteLoss(slot, place);
    this.#slots.state[slot] = place.deleted ? TOMBSTONE : LIVE;
    this.#slots.epoch[slot] = place.epoch;
    this.#slots.sequence[slot] = place.sequence;
    this.#slots.setDigest(slot, place.digest);
    this.#count(slot, 1);
    const hash = hashOfName(name);
    this.#slots.bucket[slot] = bucketOf(hash);
    if (place.deleted) this.#tombstones.set(slot, place.atMs);
    else this.#tombstones.delete(slot);
    this.buckets.replace(hash, before, place.deleted ? undefined : this.#slots.digestOf(slot));
  }

  /** A message below the one that was known: the stream has lost that one. */
  #noteLoss(slot: number, place: Place): void {
    const known = this.#slots.state[slot] ?? VOID;
    if (known === VOID) return;
    const order = compareVersions(place, this.#versionOf(slot));
    if (order > 0) this.#slots.lost[slot] = VOID;
    else if (order < 0 && this.#slots.lost[slot] === VOID) this.#slots.lost[slot] = known;
  }

  #clear(slot: number): void {
    const name = this.#slots.nameOf(slot);
    if (this.#slots.state[slot] === LIVE) this.buckets.replace(hashOfName(name), this.#slots.digestOf(slot), undefined);
    this.#count(slot, -1);
    this.#slots.state[slot] = VOID;
    this.#slots.lost[slot] = VOID;
    this.#slots.sequence[slot] = 0;
    this.#slots.epoch[slot] = 0;
    this.#tombstones.delete(slot);
    this.#unread.delete(slot);
    this.#refer(slot, REFERS_TO_NOTHING);
    this.#slots.release(slot);
  }

  #count(slot: number, by: number): void {
    const kind = this.#slots.kind[slot] ?? 0;
    this.#changesOfKind[kind] = (this.#changesOfKind[kind] ?? 0) + 1;
    if (this.#slots.state[slot] !== LIVE) return;
    this.#liveOfKind[kind] = (this.#liveOfKind[kind] ?? 0) + by;
    this.#live += by;
  }

  #refer(owner: number, { needs, provides }: Referred): void {
    if (this.#references.dropped) return;
    const edges: Edge[] = needs.map((name) => ({ dependent: owner, target: this.#take(name) }));
    for (const mark of provides) edges.push({ dependent: this.#take(mark), target: owner });
    this.#references.replace(owner, edges);
  }

  /** Whom to look at because of what `slot` had and, after `place`, has no more. */
  #orphanedBy(slot: number, place: Place, referred: Referred | undefined): readonly string[] {
    if (this.#slots.state[slot] === TOMBSTONE && place.deleted) return [];
    const provided = this.#references.ownedBy(slot).filter(({ target }) => target === slot).map(({ dependent }) => dependent);
    if (place.deleted) return this.#liveBehind(this.#references.dependentsOf(slot));
    if (referred === undefined || provided.length === 0) return [];
    const lost = provided.filter((mark) => !referred.provides.includes(this.#slots.nameOf(mark)));
    return this.#liveBehind(lost);
  }

  /** Live aggregates among `slots`; a mark stands for those that need it. */
  #liveBehind(slots: readonly number[]): readonly string[] {
    const names = new Set<string>();
    for (const slot of slots) {
      if (this.#slots.state[slot] === LIVE) names.add(this.#slots.nameOf(slot));
      else if (this.#slots.state[slot] === VOID) {
        for (const behind of this.#references.dependentsOf(slot)) {
          if (this.#slots.state[behind] === LIVE) names.add(this.#slots.nameOf(behind));
        }
      }
    }
    return [...names];
  }
}
