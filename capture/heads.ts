/**
 * What this process knows of the newest message of each subject: its sequence and digest. A cache of hints, bounded, least
 * recently used first out. A wrong hint costs one refused publish; it can never let an older image replace a newer one, because
 * the sequence in it was learnt before the rows are read (docs/protocol.md P5).
 */
import type { FeedMessage } from "../feed/feed.ts";

export interface Head {
  readonly sequence: number;
  /** Epoch it was published in; 0 when only the sequence is known. */
  readonly epoch: number;
  /** Undefined when only the sequence is known. */
  readonly digest: string | undefined;
}

/** No message at all. */
export const NO_HEAD: Head = { sequence: 0, epoch: 0, digest: undefined };

/** What a message says of itself without its payload. A missing or damaged epoch counts as 0: older than every real one. */
export function headOfMessage(message: Pick<FeedMessage, "sequence" | "headers">): Head {
  const epoch = Number(message.headers["Hf-Epoch"] ?? "0");
  return { sequence: message.sequence, epoch: Number.isSafeInteger(epoch) && epoch > 0 ? epoch : 0,
    digest: message.headers["Hf-Digest"] };
}

/** At most `headsMax` heads, the least recently used go first. */
export class Heads {
  readonly #max: number;
  readonly #heads = new Map<string, Head>();

  constructor(headsMax: number) {
    this.#max = headsMax;
  }

  get(subject: string): Head | undefined {
    const head = this.#heads.get(subject);
    if (head !== undefined) {
      this.#heads.delete(subject);
      this.#heads.set(subject, head);
    }
    return head;
  }

  /** Keeps `head` unless a later one of the subject is known. */
  learn(subject: string, head: Head): void {
    const known = this.#heads.get(subject);
    if (known !== undefined && known.sequence > head.sequence) return;
    this.#heads.delete(subject);
    this.#heads.set(subject, head);
    if (this.#heads.size > this.#max) {
      const oldest = this.#heads.keys().next();
      if (oldest.done === false) this.#heads.delete(oldest.value);
    }
  }

  forget(subject: string): void {
    this.#heads.delete(subject);
  }

  forgetAll(): void {
    this.#heads.clear();
  }

  get size(): number {
    return this.#heads.size;
  }
}
