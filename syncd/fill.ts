/**
 * First fill: a site without a position reads the whole stream once, kind by kind, parents first, so that rows find their
 * parents whatever order compaction left the stream in, with foreign keys on all the while. Then it follows from the beginning:
 * what the fill has applied is skipped by its version, and what changed meanwhile is not missed. Rows that are right already (a
 * site seeded from a snapshot) are only noted.
 *
 * A fill that was cut off begins again. Not here: rows that the centre no longer has and never published a tombstone for.
 */
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { filterOf } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import type { Applier } from "./applier.ts";
import { receive, type Received, type Unreadable } from "./received.ts";

export interface ReadBounds {
  readonly changesMax: number;
  readonly bytesMax: number;
}

/** Parts a batch of messages into changes and unreadable ones; control messages fall away. */
export function receiveAll(service: Service, messages: readonly FeedMessage[]): { readonly changes: readonly Received[];
  readonly unreadable: readonly Unreadable[] } {
  const changes: Received[] = [];
  const unreadable: Unreadable[] = [];
  for (const message of messages) {
    const arrival = receive(service, message);
    if (arrival.kind === "change") changes.push(arrival.change);
    if (arrival.kind === "unreadable") unreadable.push(arrival.unreadable);
  }
  return { changes, unreadable };
}

/** Reads every kind to its present end. The position stays where it is. */
export async function fillSite(service: Service, scope: string, feed: Feed, applier: Applier, bounds: ReadBounds,
  signal: AbortSignal): Promise<void> {
  for (const kind of service.kinds.keys()) {
    const batches = feed.read({ filter: filterOf(service.name, scope, kind), after: 0, untilTip: true,
      batchMessagesMax: bounds.changesMax, batchBytesMax: bounds.bytesMax }, signal);
    for await (const messages of batches) {
      if (signal.aborted) return;
      await applier.carry(receiveAll(service, messages), applier.position, signal);
    }
  }
}
