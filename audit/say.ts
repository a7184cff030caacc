/** Publishing what the auditor says about the whole stream: heartbeats and manifests, each the only message of its subject. */
import { createHash } from "node:crypto";
import type { World } from "../core/world.ts";
import { removeUnindexed } from "../capture/unindexed.ts";
import type { Feed, Published } from "../feed/feed.ts";
import { encodeControl, type Heartbeat, type Manifest } from "../schemas/manifest.ts";

/**
 * What is said, where, and instead of which message: the subject's last sequence that was known, 0 for none. `shownAt`: where
 * readers see its last message, 0 for nowhere.
 */
export interface Saying {
  readonly subject: string;
  readonly said: Heartbeat | Manifest;
  readonly schema: string;
  readonly expected: number;
  readonly shownAt: number;
}

/**
 * Publishes it with the headers that images have, so that readers of headers alone know its epoch. A conflict means that another
 * auditor was faster. @throws what Feed.publish throws
 */
export async function say(feed: Feed, world: World, { subject, said, schema, expected, shownAt }: Saying): Promise<Published> {
  if (expected === 0) await removeUnindexed(feed, subject, shownAt);
  const payload = encodeControl(said);
  const headers = { "Hf-Epoch": String(said.epoch), "Hf-Schema": schema, "Hf-At": String(world.clock.nowMs()),
    "Hf-Digest": createHash("sha256").update(payload).digest("base64url") };
  return feed.publish({ subject, headers, payload, expected, id: world.random.id() });
}
