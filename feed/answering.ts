/**
 * Works on the questions that one serve() of a feed is asked (port: feed/feed.ts), for both adapters.
 *
 * Invariants: at most ANSWERS_AT_ONCE_MAX are worked on at once, at most QUESTIONS_WAITING_MAX wait, and what comes beyond is
 * dropped: its asker has a deadline and asks again. A question that fails is logged and leaves its asker without an answer.
 * A bug in the answering code (core/assert.ts) is not caught: it ends the process as everywhere else.
 * Not here: how questions arrive and answers leave (jetstream-asking.ts, memory.ts), what they mean (asking.ts, audit/, syncd/).
 */
import { AssertionError } from "../core/assert.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { ANSWERS_AT_ONCE_MAX } from "./feed.ts";

/** Questions that may wait for their turn at one desk. */
export const QUESTIONS_WAITING_MAX = 256;

export type Answer = (question: Uint8Array, askedOn: string) => Promise<Uint8Array>;

interface Waiting {
  readonly question: Uint8Array;
  readonly askedOn: string;
  readonly reply: (answer: Uint8Array) => void;
}

/** Where the questions of one serve() queue up. */
export class AnswerDesk {
  readonly #answer: Answer;
  readonly #world: Pick<World, "log" | "metrics">;
  #waiting: Waiting[] = [];
  #working = 0;
  #closed = false;

  constructor(answer: Answer, world: Pick<World, "log" | "metrics">) {
    this.#answer = answer;
    this.#world = world;
  }

  /** Takes a question in; `reply` is called with its answer, later or never. */
  take(question: Uint8Array, askedOn: string, reply: (answer: Uint8Array) => void): void {
    if (this.#closed) return;
    if (this.#waiting.length >= QUESTIONS_WAITING_MAX) {
      this.#world.metrics.count("holdfast_feed_questions_dropped_total", 1);
      this.#world.log.debug("a question was dropped: too many wait", { subject: askedOn });
      return;
    }
    this.#waiting.push({ question, askedOn, reply });
    this.#next();
  }

  /** Forgets who waits, and lets nothing that is being worked on answer any more. */
  close(): void {
    this.#closed = true;
    this.#waiting = [];
  }

  #next(): void {
    if (this.#working >= ANSWERS_AT_ONCE_MAX) return;
    const next = this.#waiting.shift();
    if (next === undefined) return;
    this.#working += 1;
    void this.#work(next);
  }

  async #work({ question, askedOn, reply }: Waiting): Promise<void> {
    try {
      const answer = await this.#answer(question, askedOn);
      if (!this.#closed) reply(answer);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      this.#world.log.warn("a question was not answered", { subject: askedOn, ...factsOf(error) });
    } finally {
      this.#working -= 1;
      this.#next();
    }
  }
}
