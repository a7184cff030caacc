/**
 * Settle re-reads (docs/protocol.md P6): every published aggregate is looked at again after a few pauses, because a service may
 * go on writing after its answer and a database may show an older state than it acknowledged. An equal digest ends it there.
 * Bounded: at most settleKeysMax aggregates wait; beyond that the re-read is dropped and counted (the auditor still covers it).
 */
import type { Cancel, Clock } from "../core/clock.ts";
import type { World } from "../core/world.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";

export interface SettleOptions {
  /** Pauses after the publish, milliseconds. */
  readonly delaysMs: readonly number[];
  readonly settleKeysMax: number;
}

/** The first re-read, after 2 s, belongs to the call's intent (proxy/mutation.ts): it must outlive a crash. */
export const SETTLE_DEFAULTS: SettleOptions = { delaysMs: [30_000], settleKeysMax: 200_000 };

/** Re-reads that fall due within one tick are one batch. */
const TICK_MS = 250;

/** How long to wait for the first tick that is at least `delayMs` away: whoever waits for it looks together with the others. */
export function untilTick(clock: Clock, delayMs: number): number {
  const nowMs = clock.monotonicMs();
  return Math.ceil((nowMs + delayMs) / TICK_MS) * TICK_MS - nowMs;
}

interface Round {
  readonly keys: Map<string, AggregateKey>;
  readonly logs: Set<string>;
  readonly cancel: Cancel;
}

/** Holds what is to be looked at again, by the time it is due. */
export class Settle {
  readonly #world: World;
  readonly #options: SettleOptions;
  readonly #look: (keys: readonly AggregateKey[], logs: readonly string[]) => void;
  readonly #rounds = new Map<number, Round>();
  #waiting = 0;

  constructor(world: World, options: SettleOptions, look: (keys: readonly AggregateKey[], logs: readonly string[]) => void) {
    this.#world = world;
    this.#options = options;
    this.#look = look;
    world.metrics.gauge("holdfast_settling_aggregates", () => this.#waiting);
  }

  /** Looks at these again after each of the configured pauses. */
  schedule(keys: readonly AggregateKey[], logs: readonly string[]): void {
    for (const delayMs of this.#options.delaysMs) {
      if (this.#waiting + keys.length > this.#options.settleKeysMax) {
        this.#world.metrics.count("holdfast_settle_dropped_total", keys.length);
        continue;
      }
      const round = this.#roundAt(delayMs);
      for (const key of keys) {
        const name = keyText(key);
        if (!round.keys.has(name)) this.#waiting += 1;
        round.keys.set(name, key);
      }
      for (const log of logs) round.logs.add(log);
    }
  }

  stop(): void {
    for (const round of this.#rounds.values()) round.cancel();
    this.#rounds.clear();
    this.#waiting = 0;
  }

  #roundAt(delayMs: number): Round {
    const tick = Math.ceil((this.#world.clock.monotonicMs() + delayMs) / TICK_MS);
    const existing = this.#rounds.get(tick);
    if (existing !== undefined) return existing;
    const cancel = this.#world.clock.after(tick * TICK_MS - this.#world.clock.monotonicMs(), () => this.#run(tick));
    const round: Round = { keys: new Map(), logs: new Set(), cancel };
    this.#rounds.set(tick, round);
    return round;
  }

  #run(tick: number): void {
    const round = this.#rounds.get(tick);
    if (round === undefined) return;
    this.#rounds.delete(tick);
    this.#waiting -= round.keys.size;
    this.#look([...round.keys.values()], [...round.logs]);
  }
}
