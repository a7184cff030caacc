/**
 * Comparing one kind of the database with the stream. Says what differs and how; publishes nothing. Rows and stream are read
 * at different moments, so a live change can look like a difference: whoever acts on one reads the rows again first.
 */
import type { Rows, Page } from "../rows/rows.ts";
import { readImages, readKeys } from "../rows/footprint.ts";
import type { Kind, Service } from "../schemas/define.ts";
import { digestOf, keyText, type AggregateKey } from "../schemas/row.ts";
import type { Era } from "./era.ts";
import type { ScanDepth } from "./touches.ts";
import type { KindView, StreamEntry } from "./view.ts";

/**
 * missing: the stream has no live image. stale: it has another one. unsaid: it has this one, from an older epoch, in which
 * sequences meant something else. superfluous: the database has no such aggregate. And where the stream has lost what came
 * later, so that it is not the database's word against the stream's: revived: another image; undeleted: it has said before that
 * the aggregate is gone, and the database has none.
 */
export type What = "missing" | "stale" | "unsaid" | "superfluous" | "revived" | "undeleted";

export interface Difference {
  readonly key: AggregateKey;
  readonly what: What;
}

export interface Comparison {
  /** Aggregates that the database has. */
  readonly aggregates: number;
  /** Live aggregates that the stream had. */
  readonly live: number;
  readonly differences: readonly Difference[];
}

interface CompareRooms {
  readonly service: Service;
  readonly rows: Rows;
  /** What images are published under now. */
  readonly era: Pick<Era, "epoch" | "lostIn">;
}

function differenceOf(entry: StreamEntry | undefined, digest: string | undefined, era: CompareRooms["era"]): What | undefined {
  if (entry === undefined || entry.deleted) return "missing";
  if (digest !== undefined && digest !== entry.digest) {
    return entry.lost !== undefined || entry.epoch < era.lostIn ? "revived" : "stale";
  }
  return entry.epoch < era.epoch ? "unsaid" : undefined;
}

/** The database has no such aggregate. */
function surplusOf(entry: StreamEntry): What {
  return entry.lost === "tombstone" ? "undeleted" : "superfluous";
}

/** Compares a whole kind; `seen` hears how many aggregates were compared so far. */
export async function compareKind(rooms: CompareRooms, kind: Kind, depth: ScanDepth, view: KindView, pageKeysMax: number,
  seen: (aggregates: number) => void): Promise<Comparison> {
  const { live } = view;
  const differences: Difference[] = [];
  let aggregates = 0;
  for (let next: Page | undefined = { limit: pageKeysMax }; next !== undefined; ) {
    const asked: Page = next;
    const page = await rooms.rows.snapshot(async (read) => {
      const found = await readKeys(read, rooms.service, kind.name, asked);
      return { ...found, images: depth === "images" ? await readImages(read, rooms.service, found.keys) : undefined };
    });
    for (const key of page.keys) {
      const name = keyText(key);
      const image = page.images?.get(name);
      const what = differenceOf(view.get(name), image === undefined ? undefined : digestOf(image), rooms.era);
      if (what !== undefined) differences.push({ key, what });
    }
    aggregates += page.keys.length;
    seen(aggregates);
    next = page.next;
  }
  for (const entry of view.unseen()) differences.push({ key: entry.key, what: surplusOf(entry) });
  return { aggregates, live, differences };
}

/** Compares some aggregates of a kind. */
export async function compareKeys(rooms: CompareRooms, keys: readonly AggregateKey[], view: KindView,
  pageKeysMax: number): Promise<Comparison> {
  const differences: Difference[] = [];
  for (let start = 0; start < keys.length; start += pageKeysMax) {
    const page = keys.slice(start, start + pageKeysMax);
    const images = await rooms.rows.snapshot((read) => readImages(read, rooms.service, page));
    for (const image of images.values()) {
      const entry = view.get(keyText(image.key));
      if (image.rows === undefined) {
        if (entry !== undefined && !entry.deleted) differences.push({ key: image.key, what: surplusOf(entry) });
        continue;
      }
      const what = differenceOf(entry, digestOf(image), rooms.era);
      if (what !== undefined) differences.push({ key: image.key, what });
    }
  }
  return { aggregates: keys.length, live: view.live, differences };
}
