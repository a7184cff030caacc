/**
 * Messages that readers see and the stream server's index does not know. After SIGKILL, nats-server 2.9.10 shows the older image
 * of some subjects to readers, answers "none" when asked for the subject, and from then on acknowledges every message published
 * there and removes it at once: no image would ever arrive again. Purging what readers see makes the subject an ordinary one
 * (seen with that server; a clean restart of it does the same).
 *
 * Safe at any time: only what is at or below the sequence that was shown goes, and only while the index says there is nothing;
 * whoever asks publishes the aggregate right after. Dying in between leaves an aggregate missing in the stream, which the next
 * comparison finds.
 */
import type { Feed } from "../feed/feed.ts";

/**
 * For a subject that the server says is empty and that readers see a message of at `shownAt` (0: they do not). True when the
 * message had to be removed. @throws E_FEED_UNAVAILABLE
 */
export async function removeUnindexed(feed: Pick<Feed, "purge" | "last">, subject: string, shownAt: number): Promise<boolean> {
  // Asked again: what was said at first may be long ago, and another publisher may have been faster.
  if (shownAt === 0 || await feed.last(subject) !== undefined) return false;
  await feed.purge(subject, shownAt);
  return true;
}
