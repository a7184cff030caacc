/**
 * Has the stream lost its end since somebody wrote there? Decided after each complete reading, from what this process knew
 * (rereading.ts) and from what the central database knows (notes.ts), which also holds for a process that has just started. Pure.
 *
 * A stream that lost its end gives out the same sequences again, and a site that has read further would wait for ever, or take
 * new messages for ones it knows: only a new epoch tells it. In doubt the answer is yes: a needless epoch costs a comparison of
 * everything, a missing one costs truth.
 * Not here: a stream that was made anew or is shorter than noted (capture/era.ts sees those first).
 */
import type { AuditNote } from "./notes.ts";
import { lostFromTheEnd, type Evidence } from "./rereading.ts";

export interface StreamFacts {
  readonly evidence: Evidence;
  /** What the database knew before the reading began. */
  readonly known: AuditNote;
  /** Number of the heartbeat that the reading showed, 0 when there is none; undefined when it could not be read. */
  readonly heartbeat: number | undefined;
  /** Highest sequence that this process had seen before the reading; 0 when it has just started. */
  readonly reachedBefore: number;
  /** Last sequence of the stream, asked after the reading. */
  readonly lastSequence: number;
}

/**
 * Why the stream must have lost its end, for a person; undefined when nothing says so. What was lost in epochs below `epoch` has
 * been said again already.
 */
export function regressionOf(facts: StreamFacts, epoch: number): string | undefined {
  const { evidence, known, heartbeat, reachedBefore, lastSequence } = facts;
  if (evidence.epoch >= epoch) {
    if (lastSequence < reachedBefore) return `the stream ends at ${lastSequence} and was at ${reachedBefore}`;
    if (evidence.reused) return "a sequence that was known belongs to another message";
    const lost = lostFromTheEnd(evidence);
    if (lost !== undefined) return `the message at ${lost} is gone, and everything known above ${evidence.keptMost}`;
  }
  const { acknowledged, acknowledgedAt } = known;
  if (heartbeat === undefined || heartbeat >= acknowledged || acknowledgedAt.epoch < epoch) return undefined;
  if (evidence.keptMost >= acknowledgedAt.sequence) return undefined;
  return `the last heartbeat is number ${heartbeat}, and number ${acknowledged} was acknowledged`;
}
