/**
 * Where a site and the stream differ, bucket by bucket: the leaves of a bucket against what the ledger notes as applied. What
 * is found is what may be done about it; nothing is done here.
 *
 * Invariants: an aggregate that is on the stream and waits, is quarantined, or has an image above the position is no difference:
 * it comes by itself.
 * What the site has and the leaves have not is asked of the stream by itself before it counts.
 * Bounds: findingsMax are remembered, further ones are counted for the guard; LANES questions at a time.
 */
import { present } from "../core/assert.ts";
import { subjectPrefix } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import { bucketOf, Buckets, hashOfName } from "../schemas/manifest.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import { keyFromText } from "../schemas/row.ts";
import { inLanes, Intents, type Surplus } from "./admission.ts";
import type { Applier } from "./applier.ts";
import type { Leaf, Leaves, LeafRooms } from "./leaves.ts";
import { readAllApplied, readApplied, type AppliedNote } from "./ledger.ts";
import { epochOf } from "./received.ts";
import type { FeedMessage } from "../feed/feed.ts";

const NAMES_PER_LOOK = 500;
const LANES = 32;

/** What the stream has of an aggregate. */
export interface Standing {
  readonly version: Version;
  readonly digest: string;
  readonly deleted: boolean;
}

/**
 * The stream's word against the site's. "take": the stream's image is to be written, its version may also be the one that was
 * applied. "ask": the site has a newer version than the stream, so sequences were used again; only a new publish helps.
 * "ahead": the one or the other is not there yet. `asOf`: how far the one who told of `stream` had read. Pure.
 */
export function weigh(applied: AppliedNote | undefined, stream: Standing, position: Version,
  asOf: number): "equal" | "ahead" | "take" | "ask" {
  if (compareVersions(stream.version, position) > 0) return "ahead";
  if (applied === undefined) return stream.deleted ? "equal" : "take";
  if (applied.deleted && stream.deleted) return "equal";
  if (applied.deleted === stream.deleted && applied.digest === stream.digest) return "equal";
  if (compareVersions(stream.version, applied) >= 0) return "take";
  return applied.epoch === position.epoch && applied.sequence > asOf ? "ahead" : "ask";
}

/** What a message says of its aggregate. */
export function standingOf(message: FeedMessage): Standing {
  return { version: { epoch: epochOf(message), sequence: message.sequence }, digest: message.headers["Hf-Digest"] ?? "",
    deleted: message.headers["Hf-Deleted"] === "1" };
}

/** Differences found so far. */
export class Findings {
  /** Names whose image on the stream is to be written. */
  readonly take: string[] = [];
  /** Names that the centre is asked to publish again. */
  readonly ask: string[] = [];
  /** Live here, nothing on the stream. */
  readonly surplus: Surplus[] = [];
  readonly intents = new Intents();
  /** Buckets with a difference. */
  readonly buckets = new Set<number>();
  readonly #max: number;
  #beyond = 0;

  constructor(findingsMax: number) {
    this.#max = findingsMax;
  }

  get count(): number {
    return this.take.length + this.ask.length + this.surplus.length + this.#beyond;
  }

  get isFull(): boolean {
    return this.count >= this.#max;
  }

  add(name: string, what: "take" | "ask" | "surplus", version: Version, effect: "deletes" | "rewrites" | "makes"): void {
    this.buckets.add(bucketOf(hashOfName(name)));
    if (effect !== "makes" && what !== "ask") this.intents.add(name, effect);
    if (this.isFull) this.#beyond += 1;
    else if (what === "surplus") this.surplus.push({ name, version });
    else this[what].push(name);
  }
}

export interface FindingRooms extends LeafRooms {
  readonly rows: Rows;
}

/**
 * Compares the leaves of `buckets` with the ledger. `surplusToo`: look also for what the leaves have not. The tally is sound, and
 * nothing is committed meanwhile. @throws what the feed and the database throw
 */
export async function findDifferences(rooms: FindingRooms, applier: Applier, buckets: readonly number[], leaves: Leaves,
  findings: Findings, surplusToo: boolean): Promise<void> {
  const found = new Buckets();
  const names = [...leaves.byName.keys()];
  for (let from = 0; from < names.length; from += NAMES_PER_LOOK) {
    const look = names.slice(from, from + NAMES_PER_LOOK);
    const applied = await rooms.rows.snapshot((read) => readApplied(read, look.map(keyFromText)));
    for (const name of look) {
      const here = applied.get(name);
      if (here !== undefined && !here.deleted) found.toggle(hashOfName(name), here.digest);
      if (applier.waits(name)) continue;
      weighLeaf(name, here, present(leaves.byName.get(name), name), leaves.asOf, applier.position, findings);
    }
  }
  if (!surplusToo) return;
  // Where the aggregates of the leaves make up all that the site has, there is nothing else: no need to read the ledger.
  const incomplete = new Set(found.differing(applier.tally.digests).filter((bucket) => buckets.includes(bucket)));
  if (incomplete.size > 0) await findSurplus(rooms, applier, incomplete, leaves, findings);
}

function weighLeaf(name: string, here: AppliedNote | undefined, leaf: Leaf, asOf: number, position: Version,
  findings: Findings): void {
  const weighed = weigh(here, { ...leaf, deleted: false }, position, asOf);
  if (weighed === "take" || weighed === "ask") {
    findings.add(name, weighed, leaf.version, here === undefined || here.deleted ? "makes" : "rewrites");
  }
}

/** Live aggregates in these buckets that the leaves do not name. */
async function findSurplus(rooms: FindingRooms, applier: Applier, buckets: ReadonlySet<number>, { byName, asOf }: Leaves,
  findings: Findings): Promise<void> {
  const prefix = subjectPrefix(rooms.service.name, rooms.scope);
  for await (const page of readAllApplied(rooms.rows)) {
    const suspects = page.filter(({ hash, name, deleted }) =>
      !deleted && buckets.has(bucketOf(hash)) && !byName.has(name));
    if (findings.isFull) {
      for (const { name, ...here } of suspects) findings.add(name, "surplus", here, "deletes");
      continue;
    }
    await inLanes(suspects, LANES, async (here) => {
      const message = await rooms.feed.last(`${prefix}.${here.name}`);
      if (message === undefined) return findings.add(here.name, "surplus", here, "deletes");
      if (applier.waits(here.name)) return;
      const stream = standingOf(message);
      const weighed = weigh(here, stream, applier.position, asOf);
      if (weighed !== "take" && weighed !== "ask") return;
      findings.add(here.name, weighed, here, stream.deleted ? "deletes" : "rewrites");
    });
  }
}
