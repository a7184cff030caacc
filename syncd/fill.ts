/**
 * Fill: a site without a position, or with one that is worth nothing, reads the whole stream once, kind by kind, parents first,
 * so that rows find their parents whatever order compaction left the stream in, with foreign keys on all the while. Then it
 * follows from the end that the stream had before the fill (follow.ts): an image at or below that end was there when its kind
 * was read, or has been replaced by one above it. Rows that are right already (a site seeded from a snapshot) are only noted.
 *
 * A fill that was cut off begins again. Not here: what the site has and the stream has not (sweep.ts).
 */
import type { Feed } from "../feed/feed.ts";
import { filterOf } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import type { Work } from "./applier.ts";
import { partsOf } from "./parts.ts";

export interface ReadBounds {
  readonly changesMax: number;
  readonly bytesMax: number;
}

/** Reads every kind to its present end and carries it. @throws what the feed and `carry` throw */
export async function fillSite(service: Service, scope: string, feed: Feed, bounds: ReadBounds,
  carry: (work: Work) => Promise<void>, signal: AbortSignal): Promise<void> {
  for (const kind of service.kinds.keys()) {
    const batches = feed.read({ filter: filterOf(service.name, scope, kind), after: 0, untilTip: true,
      batchMessagesMax: bounds.changesMax, batchBytesMax: bounds.bytesMax }, signal);
    for await (const messages of batches) {
      if (signal.aborted) return;
      for (const { changes, unreadable } of partsOf(service, messages)) await carry({ changes, unreadable });
    }
  }
}
