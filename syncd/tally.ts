/**
 * What a site has applied, summed up in memory: a digest for each bucket (schemas/manifest.ts), the newest version that fell
 * into it, and how many aggregates of each kind are live. Every commit changes it by what was written, so that comparing
 * with a manifest costs nothing while nothing is wrong.
 *
 * Invariants: while it is sound, it equals the table holdfast_applied as the last commit left it. A commit with an unknown
 * outcome, or a start, makes it unsound, and the table is read once (without images) before the next use. The one who uses it
 * lets no commit come in between (follow.ts, one work at a time).
 * Memory: 256 buckets, whatever the number of aggregates.
 */
import { assert } from "../core/assert.ts";
import type { Rows } from "../rows/rows.ts";
import { BUCKETS, bucketOf, Buckets, hashOfName } from "../schemas/manifest.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import { readAllApplied, type AppliedNote } from "./ledger.ts";

const NEVER: Version = { epoch: 0, sequence: 0 };

/** The kind in an aggregate's name (keyText). */
export function kindOfName(name: string): string {
  const end = name.indexOf(".");
  return end === -1 ? name : name.slice(0, end);
}

/** See the file's head. */
export class Tally {
  readonly #buckets = new Buckets();
  readonly #newest: Version[] = [];
  readonly #live = new Map<string, number>();
  #sound = false;

  /** An aggregate's note became `after`. */
  note(name: string, before: AppliedNote | undefined, after: AppliedNote): void {
    if (!this.#sound) return;
    const hash = hashOfName(name);
    const liveDigest = (each: AppliedNote | undefined): string | undefined =>
      (each === undefined || each.deleted ? undefined : each.digest);
    const [was, is] = [liveDigest(before), liveDigest(after)];
    this.#buckets.replace(hash, was, is);
    if ((was === undefined) !== (is === undefined)) this.#count(name, is === undefined ? -1 : 1);
    this.#see(hash, after);
  }

  /** What a commit did is not known: the table is read again before the next use. */
  doubt(): void {
    this.#sound = false;
  }

  /** Makes it sound. @throws what the database throws */
  async ensure(rows: Rows): Promise<void> {
    if (this.#sound) return;
    this.#buckets.clear();
    this.#newest.length = 0;
    this.#live.clear();
    for await (const page of readAllApplied(rows)) {
      for (const entry of page) {
        this.#see(entry.hash, entry);
        if (entry.deleted) continue;
        this.#buckets.toggle(entry.hash, entry.digest);
        this.#count(entry.name, 1);
      }
    }
    this.#sound = true;
  }

  /** Buckets.text(). */
  get digests(): string {
    assert(this.#sound, "a tally is made sound before it is used");
    return this.#buckets.text();
  }

  /** Buckets that differ from those of a manifest. */
  differing(digests: string): readonly number[] {
    assert(this.#sound, "a tally is made sound before it is used");
    return this.#buckets.differing(digests);
  }

  /** The newest version, tombstones included, of any aggregate in this bucket. */
  newestIn(bucket: number): Version {
    return this.#newest[bucket] ?? NEVER;
  }

  /** Live aggregates of a kind. */
  liveOf(kind: string): number {
    assert(this.#sound, "a tally is made sound before it is used");
    return this.#live.get(kind) ?? 0;
  }

  #count(name: string, by: number): void {
    const kind = kindOfName(name);
    this.#live.set(kind, (this.#live.get(kind) ?? 0) + by);
  }

  #see(hash: string, version: Version): void {
    const bucket = bucketOf(hash);
    assert(bucket < BUCKETS, "a bucket is one byte");
    if (compareVersions(version, this.newestIn(bucket)) <= 0) return;
    this.#newest[bucket] = { epoch: version.epoch, sequence: version.sequence };
  }
}
