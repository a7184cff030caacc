/**
 * The leaves of a manifest's buckets: name, version and digest of every live aggregate in them, as the stream has it now. The
 * auditor is asked, because it has them in memory; if it does not answer, the headers of the whole stream are read instead.
 *
 * Invariants: what is given is complete for the buckets asked, as of a moment not before the manifest; `asOf` says how far the
 * one who answered had read. An answer from another epoch gives nothing (undefined): the site is about to hear of it anyway.
 * Not here: what a difference means (manifest-check.ts).
 */
import { isOperating, OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { JsonValue } from "../core/operation.ts";
import type { World } from "../core/world.ts";
import { askOperation } from "../feed/asking.ts";
import type { Feed } from "../feed/feed.ts";
import { auditAskSubject, filterOf, keyOfSubject } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import { bucketOf, hashOfName } from "../schemas/manifest.ts";
import type { Version } from "../schemas/position.ts";
import { keyText } from "../schemas/row.ts";
import { epochOf } from "./received.ts";

/** A live aggregate on the stream. */
export interface Leaf {
  readonly version: Version;
  readonly digest: string;
}

export interface Leaves {
  readonly byName: ReadonlyMap<string, Leaf>;
  /** Whoever answered had read the stream up to here; later images may be missing. */
  readonly asOf: number;
}

export interface LeafRooms {
  readonly service: Service;
  readonly scope: string;
  /** Name of this site; undefined: the auditor is not asked. */
  readonly site: string | undefined;
  readonly feed: Feed;
}

/** Pages of one bucket at most: more than any stream can hold aggregates. */
const PAGES_MAX = 10_000;
const READ_MESSAGES_MAX = 1_000;
const READ_BYTES_MAX = 1 << 20;

/** The leaves of these buckets in `epoch`. @throws what the feed throws */
export async function readLeaves(rooms: LeafRooms, world: World, epoch: number, buckets: readonly number[], timeoutMs: number,
  signal: AbortSignal): Promise<Leaves | undefined> {
  if (rooms.site !== undefined) {
    try {
      return await askLeaves(rooms.feed, auditAskSubject(rooms.service.name, rooms.site), epoch, buckets, timeoutMs);
    } catch (error) {
      if (!isOperating(error) || isOperating(error, "E_FEED_UNAVAILABLE")) throw error;
      world.log.info("the auditor gives no leaves: the stream's headers are read instead", factsOf(error));
    }
  }
  return readHeaders(rooms, new Set(buckets), signal);
}

async function askLeaves(feed: Feed, subject: string, epoch: number, buckets: readonly number[],
  timeoutMs: number): Promise<Leaves | undefined> {
  const byName = new Map<string, Leaf>();
  let asOf = Infinity;
  for (const bucket of buckets) {
    let after: string | undefined;
    for (let pages = 0; pages < PAGES_MAX; pages += 1) {
      const input = after === undefined ? { bucket } : { bucket, after };
      const answer = answerIn(await askOperation(feed, subject, "leaves", input, timeoutMs));
      if (answer.epoch !== epoch) return undefined;
      asOf = Math.min(asOf, answer.asOf);
      for (const { name, ...leaf } of answer.leaves) byName.set(name, leaf);
      if (answer.next === undefined || answer.next === after) break;
      after = answer.next;
    }
  }
  return { byName, asOf };
}

interface LeavesAnswer {
  readonly epoch: number;
  readonly asOf: number;
  readonly leaves: readonly (Leaf & { readonly name: string })[];
  readonly next: string | undefined;
}

function answerIn(value: JsonValue): LeavesAnswer {
  const unreadable = (): never => {
    throw new OperatingError("E_ASK_UNANSWERED", "the answer is not a list of leaves");
  };
  if (typeof value !== "object" || value === null || Array.isArray(value)) return unreadable();
  const { epoch, asOf, leaves, next } = value as Readonly<Record<string, unknown>>;
  if (!Number.isSafeInteger(epoch) || !Number.isSafeInteger(asOf) || !Array.isArray(leaves)) return unreadable();
  return { epoch: Number(epoch), asOf: Number(asOf), next: typeof next === "string" ? next : undefined,
    leaves: leaves.map((leaf: unknown) => {
      if (!Array.isArray(leaf)) return unreadable();
      const [name, ofEpoch, sequence, digest] = leaf as readonly unknown[];
      const isLeaf = typeof name === "string" && typeof digest === "string" && Number.isSafeInteger(ofEpoch) &&
        Number.isSafeInteger(sequence);
      return isLeaf ? { name, digest, version: { epoch: Number(ofEpoch), sequence: Number(sequence) } } : unreadable();
    }) };
}

async function readHeaders({ service, scope, feed }: LeafRooms, buckets: ReadonlySet<number>,
  signal: AbortSignal): Promise<Leaves | undefined> {
  const byName = new Map<string, Leaf>();
  const batches = feed.read({ filter: filterOf(service.name, scope), after: 0, headersOnly: true, untilTip: true,
    batchMessagesMax: READ_MESSAGES_MAX, batchBytesMax: READ_BYTES_MAX }, signal);
  for await (const batch of batches) {
    for (const message of batch) {
      const key = keyOfSubject(message.subject);
      if (key === undefined) continue;
      const name = keyText(key);
      if (!buckets.has(bucketOf(hashOfName(name)))) continue;
      const digest = message.headers["Hf-Digest"];
      // A subject may come twice from a damaged server; the later one is its image.
      if (digest === undefined || message.headers["Hf-Deleted"] === "1") byName.delete(name);
      else byName.set(name, { version: { epoch: epochOf(message), sequence: message.sequence }, digest });
    }
  }
  // A reading that was told to stop has not seen everything.
  return signal.aborted ? undefined : { byName, asOf: Infinity };
}
