/**
 * What the stream holds, as comparisons see it: the newest message of each aggregate, without payloads. A process that keeps an
 * index of the stream (the auditor) answers from memory; others read the headers of the kind.
 */
import type { Feed } from "../feed/feed.ts";
import { filterOf, keyOfSubject } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";
import { headOfMessage, type Head } from "./heads.ts";

export interface StreamEntry extends Head {
  readonly key: AggregateKey;
  readonly deleted: boolean;
  /** What the stream showed after this message and does not show any more: it lost that; undefined when it lost nothing. */
  readonly lost?: "image" | "tombstone" | undefined;
}

/** One kind's aggregates in the stream, for one comparison. */
export interface KindView {
  /** Aggregates that are not tombstones. */
  readonly live: number;
  /** Another number whenever anything of the kind may have changed; undefined where nobody counts. */
  readonly changes: number | undefined;
  /** The newest message of an aggregate; asking marks it as seen. */
  get(name: string): StreamEntry | undefined;
  /** Entries that nobody asked for, tombstones left out. */
  unseen(): Iterable<StreamEntry>;
}

export interface StreamView {
  /** A fresh view of one kind. @throws E_FEED_UNAVAILABLE when the stream cannot be read to its end */
  entriesOf(kind: string, signal: AbortSignal): Promise<KindView>;
}

export interface StreamViewRooms {
  readonly service: Service;
  readonly scope: string;
  readonly feed: Feed;
}

const BATCH_MESSAGES_MAX = 1_000;
const BATCH_BYTES_MAX = 1 << 20;

/** Reads the headers of a kind from the stream each time; `learn` is told of each, for what else remembers heads. */
export function streamReader(rooms: StreamViewRooms, learn: (key: AggregateKey, head: Head) => void): StreamView {
  return {
    async entriesOf(kind, signal) {
      const entries = new Map<string, StreamEntry>();
      const filter = filterOf(rooms.service.name, rooms.scope, kind);
      const batches = rooms.feed.read({ filter, after: 0, headersOnly: true, untilTip: true,
        batchMessagesMax: BATCH_MESSAGES_MAX, batchBytesMax: BATCH_BYTES_MAX }, signal);
      for await (const batch of batches) {
        for (const message of batch) {
          const key = keyOfSubject(message.subject);
          if (key === undefined) continue;
          const entry: StreamEntry = { key, ...headOfMessage(message), deleted: message.headers["Hf-Deleted"] === "1" };
          entries.set(keyText(key), entry);
          learn(key, entry);
        }
      }
      return viewOf(entries);
    },
  };
}

function viewOf(entries: Map<string, StreamEntry>): KindView {
  let live = 0;
  for (const { deleted } of entries.values()) if (!deleted) live += 1;
  return {
    live, changes: undefined,
    get(name) {
      const entry = entries.get(name);
      entries.delete(name);
      return entry;
    },
    *unseen() {
      for (const entry of entries.values()) if (!entry.deleted) yield entry;
    },
  };
}
