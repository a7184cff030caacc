/**
 * The last question before anything is removed because the stream does not have it: does the central database have it? The stream
 * is a cache; a server that lost parts of it, a full one that took nothing back, or a reader that missed a message must never
 * cost a site what is alive. The auditor reads the rows on its writer for each answer.
 *
 * Bounds: ASKED_NAMES_MAX names in a question, one question at a time. Without an answer nothing is removed.
 * Not here: who is asked about (sweep.ts, manifest-check.ts), the answer (audit/questions.ts).
 */
import { isOperating, OperatingError } from "../core/errors.ts";
import { askOperation } from "../feed/asking.ts";
import type { Feed } from "../feed/feed.ts";
import { auditAskSubject } from "../feed/subjects.ts";
import type { Service } from "../schemas/define.ts";

const ASKED_NAMES_MAX = 500;

export interface ConfirmRooms {
  readonly service: Service;
  /** This site's name; without it nobody is asked, and the stream's word counts alone. */
  readonly site: string | undefined;
  readonly feed: Pick<Feed, "ask">;
}

/**
 * Those of `names` that the central database does not have either, in the epoch `epoch`; undefined when no auditor answers, or
 * it is of another epoch.
 */
export async function confirmGone(rooms: ConfirmRooms, names: readonly string[], epoch: number, timeoutMs: number,
  signal: AbortSignal): Promise<ReadonlySet<string> | undefined> {
  try {
    return await askGone(rooms, names, epoch, timeoutMs, signal);
  } catch (error) {
    if (!isOperating(error, "E_ASK_UNANSWERED", "E_FEED_UNAVAILABLE")) throw error;
    return undefined;
  }
}

async function askGone({ service, site, feed }: ConfirmRooms, names: readonly string[], epoch: number,
  timeoutMs: number, signal: AbortSignal): Promise<ReadonlySet<string>> {
  if (site === undefined) return new Set(names);
  const gone = new Set<string>();
  for (let from = 0; from < names.length && !signal.aborted; from += ASKED_NAMES_MAX) {
    const asked = names.slice(from, from + ASKED_NAMES_MAX);
    const subject = auditAskSubject(service.name, site);
    const answer = await askOperation(feed, subject, "gone", { names: asked, epoch }, timeoutMs);
    const said = typeof answer === "object" && answer !== null && "gone" in answer ? answer.gone : undefined;
    if (!Array.isArray(said)) throw new OperatingError("E_ASK_UNANSWERED", `the answer to "gone" from ${subject} cannot be read`);
    for (const name of said) if (typeof name === "string") gone.add(name);
  }
  return gone;
}
