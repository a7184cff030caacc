/**
 * Manifests: all there is in the stream, in 256 digests, said after every audit. Made from the index in one step, so it is a
 * picture of the stream up to one sequence.
 */
import { isOperating } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import type { Era } from "../capture/era.ts";
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { manifestSubject } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";
import { decodeManifest, rootOf, type Manifest } from "../schemas/manifest.ts";
import type { Version } from "../schemas/position.ts";
import { say } from "./say.ts";
import type { StreamIndex } from "./stream-index.ts";

/** What the index says now. Only while it is complete. */
export function manifestOf(index: StreamIndex, era: Era, floor: Version): Manifest {
  const buckets = index.buckets.text();
  return { epoch: era.epoch, asOf: index.reached, floor, schema: era.schema, aggregates: index.live, root: rootOf(buckets),
    buckets };
}

export interface ManifestRooms {
  readonly service: Service;
  readonly scope: string;
  readonly feed: Feed;
  /** Where readers see a subject's last message; 0 for nowhere. */
  readonly shownAt: (subject: string) => number;
}

function read(message: FeedMessage, world: World): Manifest | undefined {
  try {
    return decodeManifest(message.subject, message.payload);
  } catch (error) {
    if (!isOperating(error)) throw error;
    world.log.warn("a manifest in the stream cannot be read", factsOf(error));
    return undefined;
  }
}

/**
 * Says what `made` makes, which is called when the subject's last message is known; gives the manifest that the stream has then:
 * ours, or that of another auditor that was faster. Undefined when neither is certain. @throws E_FEED_*
 */
export async function sayManifest(rooms: ManifestRooms, world: World,
  made: () => Manifest | undefined): Promise<Manifest | undefined> {
  const { service, scope, feed, shownAt } = rooms;
  const subject = manifestSubject(service.name, scope);
  const last = await feed.last(subject);
  const said = made();
  if (said === undefined) return undefined;
  const published = await say(feed, world, { subject, said, schema: said.schema, expected: last?.sequence ?? 0,
    shownAt: shownAt(subject) });
  if (published.stored) {
    world.metrics.count("holdfast_manifests_total", 1, { service: service.name });
    return said;
  }
  const others = await feed.last(subject);
  return others === undefined ? undefined : read(others, world);
}
