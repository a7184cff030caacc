/**
 * Whether the centre can be reached from this site: one state per upstream, from what calls meet (passive) and from probes.
 *
 *   connected   a failed call, a call that waits for long or a failed probe makes it suspect
 *   suspect     an answer makes it connected; so many failed probes that failuresMax signs are there make it cut
 *   cut         what waits for the centre is given up; an answer makes it recovering
 *   recovering  goodProbesMin answers in a row make it connected; a failed probe makes it cut again
 *
 * Invariants: a link that swallows everything is found as surely as one that refuses: a call that waits for longer than
 * patienceMs asks for a probe, and a probe has probeTimeoutMs. Calls alone never cut a site off, whatever clients send: only
 * a probe does. While calls are answered nothing is probed. One probe at a time.
 * Not here: what follows for a call (choose.ts), sending bytes (forward.ts, upstream.ts).
 */
import type { Cancel } from "../core/clock.ts";
import type { Part } from "../core/lifecycle.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import { REACH_STATES, type ReachState } from "./choose.ts";

export interface ReachOptions {
  /** Pause after an answer until the next probe, while nobody calls. */
  readonly probeEveryMs: number;
  /** Pause between probes in every other state. */
  readonly probeAgainMs: number;
  /** A probe that was not answered after this long has failed. */
  readonly probeTimeoutMs: number;
  /** Signs in a row until the centre counts as cut off: the first may be a call's, all others are failed probes. */
  readonly failuresMax: number;
  /** Answers in a row until it counts as connected again. */
  readonly goodProbesMin: number;
}

export const REACH_DEFAULTS: ReachOptions = { probeEveryMs: 5_000, probeAgainMs: 300, probeTimeoutMs: 1_000, failuresMax: 2,
  goodProbesMin: 2 };

/** The state with what was counted in it. */
export interface Standing {
  readonly state: ReachState;
  /** suspect: signs so far; recovering: answers so far; otherwise 0. */
  readonly count: number;
}

/** answer: of a call or a probe. failed call: or one that waits for longer than is usual. */
export type ReachEvent = "answer" | "failed call" | "failed probe";

export const FIRST_STANDING: Standing = { state: "connected", count: 0 };
const CUT: Standing = { state: "cut", count: 0 };

/** The next standing. Pure; the table above. */
export function nextStanding(standing: Standing, event: ReachEvent,
  { failuresMax, goodProbesMin }: Pick<ReachOptions, "failuresMax" | "goodProbesMin">): Standing {
  const { state, count } = standing;
  switch (state) {
    case "connected":
      if (event === "answer") return standing;
      return failuresMax === 1 && event === "failed probe" ? CUT : { state: "suspect", count: 1 };
    case "suspect":
      if (event === "answer") return FIRST_STANDING;
      if (event === "failed call") return standing;
      return count + 1 >= failuresMax ? CUT : { state, count: count + 1 };
    case "cut":
      if (event !== "answer") return standing;
      return goodProbesMin > 1 ? { state: "recovering", count: 1 } : FIRST_STANDING;
    case "recovering":
      if (event === "failed call") return standing;
      if (event === "failed probe") return CUT;
      return count + 1 >= goodProbesMin ? FIRST_STANDING : { state, count: count + 1 };
  }
}

export interface ReachRooms {
  readonly world: World;
  /** Asks the centre once; true when it answered in time. Never rejects. */
  readonly probe: (timeoutMs: number) => Promise<boolean>;
}

/** See the file's head. */
export class Reach implements Part {
  readonly name = "reach";
  readonly #rooms: ReachRooms;
  readonly #options: ReachOptions;
  #standing = FIRST_STANDING;
  #sinceMs: number;
  #giveUp = stopSignal();
  #cancel: Cancel | undefined;
  #probing = false;
  #stopped = false;

  constructor(rooms: ReachRooms, options: ReachOptions) {
    this.#rooms = rooms;
    this.#options = options;
    const { metrics, clock } = rooms.world;
    this.#sinceMs = clock.monotonicMs();
    for (const state of REACH_STATES) metrics.gauge("holdfast_reach", () => Number(this.state === state), { state });
  }

  get state(): ReachState {
    return this.#standing.state;
  }

  /** Aborts when the centre is given up, for calls that wait for it; a new one from then on. */
  get giveUp(): AbortSignal {
    return this.#giveUp.signal;
  }

  /** For the status document. */
  status(): object {
    return { state: this.state, sinceSeconds: Math.round((this.#rooms.world.clock.monotonicMs() - this.#sinceMs) / 1000) };
  }

  start(): Promise<void> {
    this.#schedule(0);
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel?.();
    return Promise.resolve();
  }

  /** The centre answered a call. */
  answered(): void {
    this.#take("answer");
  }

  /** A call did not reach the centre, its answer did not come back, or it waits for longer than is usual. */
  doubted(): void {
    this.#take("failed call");
  }

  #take(event: ReachEvent): void {
    const before = this.#standing;
    this.#standing = nextStanding(before, event, this.#options);
    const { state } = this.#standing;
    if (state === before.state) {
      // Calls that are answered are as good as probes.
      if (state === "connected" && !this.#probing) this.#schedule(this.#options.probeEveryMs);
      return;
    }
    const { log, metrics, clock } = this.#rooms.world;
    this.#sinceMs = clock.monotonicMs();
    metrics.count("holdfast_reach_changes_total", 1, { to: state });
    if (state !== "suspect") log.info("the way to the centre", { state, before: before.state });
    if (state === "cut") {
      this.#giveUp.abort();
      this.#giveUp = stopSignal();
    }
    if (!this.#probing) this.#schedule(this.#pauseMs(before.state));
  }

  /** At once where something has just become doubtful. */
  #pauseMs(before: ReachState): number {
    const { state } = this.#standing;
    if (state === "connected") return this.#options.probeEveryMs;
    return before === "connected" ? 0 : this.#options.probeAgainMs;
  }

  #schedule(delayMs: number): void {
    this.#cancel?.();
    if (this.#stopped) return;
    this.#cancel = this.#rooms.world.clock.after(delayMs, () => void this.#probe());
  }

  async #probe(): Promise<void> {
    if (this.#probing || this.#stopped) return;
    this.#probing = true;
    const isAnswered = await this.#rooms.probe(this.#options.probeTimeoutMs);
    this.#probing = false;
    if (this.#stopped) return;
    this.#take(isAnswered ? "answer" : "failed probe");
    this.#schedule(this.state === "connected" ? this.#options.probeEveryMs : this.#options.probeAgainMs);
  }
}
