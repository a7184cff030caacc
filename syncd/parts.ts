/**
 * From messages to what they are for. A batch of the tail is parted behind each manifest: a manifest speaks of the stream at
 * its own place and is looked at before anything behind it is applied. Pure.
 */
import type { FeedMessage } from "../feed/feed.ts";
import type { Service } from "../schemas/define.ts";
import type { Manifest } from "../schemas/manifest.ts";
import type { PlacedHeartbeat } from "./heard.ts";
import { receive, type Received, type Unreadable } from "./received.ts";

/** Messages that are applied together. */
export interface Part {
  readonly changes: readonly Received[];
  readonly unreadable: readonly Unreadable[];
  /** The last heartbeat among them. */
  readonly heartbeat: PlacedHeartbeat | undefined;
  /** At its end. */
  readonly manifest: Manifest | undefined;
  readonly last: FeedMessage;
  /** Why control messages could not be read. */
  readonly notRead: readonly string[];
}

interface Begun {
  readonly changes: Received[];
  readonly unreadable: Unreadable[];
  heartbeat: PlacedHeartbeat | undefined;
  readonly notRead: string[];
}

/** The parts of a batch, in order; none for an empty one. */
export function partsOf(service: Service, messages: readonly FeedMessage[]): readonly Part[] {
  const parts: Part[] = [];
  let begun: Begun | undefined;
  for (const message of messages) {
    begun ??= { changes: [], unreadable: [], heartbeat: undefined, notRead: [] };
    const arrival = receive(service, message);
    if (arrival.kind === "change") begun.changes.push(arrival.change);
    else if (arrival.kind === "unreadable") begun.unreadable.push(arrival.unreadable);
    else if (arrival.kind === "heartbeat") begun.heartbeat = arrival.heartbeat;
    else if (arrival.kind === "control" && arrival.because !== undefined) begun.notRead.push(arrival.because);
    const manifest = arrival.kind === "manifest" ? arrival.manifest : undefined;
    if (manifest === undefined && message !== messages.at(-1)) continue;
    parts.push({ ...begun, manifest, last: message });
    begun = undefined;
  }
  return parts;
}
