/**
 * How old the rows are from which this site answers by itself, as the sync daemon beside the proxy says. The daemon is asked
 * again and again; between two answers, and when it is away, what it said last grows older.
 *
 * Invariant: an age is never understated by more than the time of one question; without any answer it is unknown, not zero.
 * Not here: the daemon's own reckoning (syncd/hearing.ts), what follows from an age (choose.ts, site.ts).
 */
import type { Cancel } from "../core/clock.ts";
import type { Part } from "../core/lifecycle.ts";
import type { World } from "../core/world.ts";

/** Pause between two questions. */
const ASK_EVERY_MS = 1_000;

/** What the daemon says about one service. */
export interface Told {
  readonly epoch: number;
  readonly sequence: number;
  /** Seconds since the site certainly had everything that the centre had said; undefined when it never knew. */
  readonly ageSeconds: number | undefined;
}

export interface Age {
  readonly position: string;
  readonly seconds: number | undefined;
}

function fieldOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}

/** Numbers of the daemon's status document (admin/server.ts); undefined when it does not speak of the service. */
export function toldIn(text: string, service: string): Told | undefined {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return undefined;
  }
  const services = fieldOf(fieldOf(document, "status"), "services");
  if (!Array.isArray(services)) return undefined;
  const found = (services as readonly Readonly<Record<string, unknown>>[]).find((each) => each["service"] === service);
  if (found === undefined) return undefined;
  const { epoch, sequence, ageSeconds } = found;
  if (typeof epoch !== "number" || typeof sequence !== "number") return undefined;
  return { epoch, sequence, ageSeconds: typeof ageSeconds === "number" ? ageSeconds : undefined };
}

export interface FreshnessRooms {
  readonly service: string;
  readonly world: World;
  /** The daemon's status document; undefined when it does not answer. Never rejects. */
  readonly ask: () => Promise<string | undefined>;
}

/** See the file's head. */
export class Freshness implements Part {
  readonly name = "sync daemon";
  readonly #rooms: FreshnessRooms;
  #told: Told | undefined;
  #toldMs = 0;
  #isAway = true;
  #cancel: Cancel | undefined;
  #stopped = false;

  constructor(rooms: FreshnessRooms) {
    this.#rooms = rooms;
    rooms.world.metrics.gauge("holdfast_local_age_seconds", () => this.age()?.seconds ?? -1, { service: rooms.service });
  }

  start(): Promise<void> {
    void this.#ask();
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel?.();
    return Promise.resolve();
  }

  /** For the status document. The proxy serves without the daemon, too: that it is away does not make it unready. */
  status(): object {
    return { daemon: this.#isAway ? "away" : "answers", ...this.age() };
  }

  /** Undefined until the daemon has answered once. */
  age(): Age | undefined {
    if (this.#told === undefined) return undefined;
    const { epoch, sequence, ageSeconds } = this.#told;
    const sinceS = (this.#rooms.world.clock.monotonicMs() - this.#toldMs) / 1000;
    return { position: `${epoch}:${sequence}`, seconds: ageSeconds === undefined ? undefined : Math.ceil(ageSeconds + sinceS) };
  }

  async #ask(): Promise<void> {
    const { ask, service, world: { clock } } = this.#rooms;
    const askedMs = clock.monotonicMs();
    const text = await ask();
    if (this.#stopped) return;
    const told = text === undefined ? undefined : toldIn(text, service);
    this.#isAway = told === undefined;
    if (told !== undefined) [this.#told, this.#toldMs] = [told, askedMs];
    this.#cancel = clock.after(ASK_EVERY_MS, () => void this.#ask());
  }
}
