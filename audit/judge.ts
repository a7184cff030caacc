/**
 * Judges what a complete reading proved, with a second look at suspicions: a message that was replaced again and again while the
 * stream was read may have been missed everywhere, and has come since.
 */
import type { World } from "../core/world.ts";
import { Gate } from "../core/signal.ts";
import type { CaptureRoom } from "../capture/capture.ts";
import type { Feed } from "../feed/feed.ts";
import { patiently } from "./patience.ts";
import { regressionOf, type StreamFacts } from "./regression.ts";
import type { Tail } from "./tail.ts";

export interface JudgeRooms {
  readonly service: { readonly name: string };
  readonly feed: Feed;
  readonly capture: Pick<CaptureRoom, "era" | "raiseEpoch">;
  readonly tail: Pick<Tail, "reaches" | "sequenceOf" | "heartbeat">;
}

const BACKOFF = { firstMs: 500, lastMs: 30_000 };
/** How long the index may need to show what has come since. */
const SECOND_LOOK_MS = 30_000;

/** One verdict for each complete reading. `settled` is open while every reading that began was judged. */
export class Judge {
  readonly settled = new Gate();
  readonly #rooms: JudgeRooms;
  readonly #world: World;
  readonly #signal: AbortSignal;
  #readings = 0;

  constructor(rooms: JudgeRooms, world: World, signal: AbortSignal) {
    this.#rooms = rooms;
    this.#world = world;
    this.#signal = signal;
  }

  /** A complete reading begins: nothing is settled until it was judged. */
  readingBegins(): void {
    this.#readings += 1;
    this.settled.close();
  }

  /** Judges the reading that began last; raises the epoch if it must, for as long as that takes. */
  async judge(facts: StreamFacts): Promise<void> {
    const reading = this.#readings;
    await patiently(() => this.#raiseIfLost(facts), this.#world, BACKOFF, this.#signal);
    if (reading === this.#readings && !this.#signal.aborted) this.settled.open();
  }

  async #raiseIfLost(facts: StreamFacts): Promise<void> {
    const { capture, service } = this.#rooms;
    const { era } = capture;
    if (era === undefined || regressionOf(facts, era.epoch) === undefined) return;
    const reason = regressionOf(await this.#secondLook(facts), era.epoch);
    if (reason === undefined) return;
    this.#world.metrics.count("holdfast_stream_regressions_total", 1, { service: service.name });
    await capture.raiseEpoch(reason, 0, "stream");
  }

  async #secondLook(facts: StreamFacts): Promise<StreamFacts> {
    const { tail, feed } = this.#rooms;
    const { lastSequence } = await feed.state();
    await tail.reaches(lastSequence, SECOND_LOOK_MS, this.#signal);
    const lost = facts.evidence.lost.filter(({ name, sequence }) => tail.sequenceOf(name) <= sequence);
    return { ...facts, evidence: { ...facts.evidence, lost }, heartbeat: tail.heartbeat };
  }
}
