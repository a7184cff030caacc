/**
 * The rooms of a proxy that captures: journal, database, feed and capture, and the way of a call through them. A proxy that
 * only forwards has none of them. Stops in this order: calls are drained (server), their stories end or time out, the journal,
 * capture, connections.
 */
import { CaptureRoom, CAPTURE_DEFAULTS } from "../capture/capture.ts";
import type { GuardOptions } from "../capture/guard.ts";
import { captureOfUnknown } from "../capture/touches.ts";
import { present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import { openJetstream } from "../feed/jetstream.ts";
import { jetstreamOptionsOf, type FeedSection } from "../feed/section.ts";
import { openRows, type DatabaseSection } from "../rows/open.ts";
import type { Service } from "../schemas/define.ts";
import type { Exchange } from "./exchange.ts";
import type { Forwarder } from "./forward.ts";
import { openJournal, type Journal, type JournalOptions } from "./intent.ts";
import { carryMutation, type MutationRooms } from "./mutation.ts";
import { replayIntents } from "./replay.ts";
import { routerOf, type Router } from "./route.ts";

/** Calls whose story goes on after their answer: waited for when the process stops, within its drain time. */
class Afterwards {
  readonly #open = new Set<Promise<void>>();

  get size(): number {
    return this.#open.size;
  }

  follow(story: Promise<void>): void {
    const tracked: Promise<void> = story.then(() => void this.#open.delete(tracked));
    this.#open.add(tracked);
  }

  async settled(): Promise<void> {
    await Promise.all(this.#open);
  }
}

export interface CapturingSettings {
  readonly site: string;
  readonly database: DatabaseSection;
  readonly feed: FeedSection;
  readonly intents: JournalOptions & Pick<MutationRooms, "whenUnwritable">;
  readonly settle: { readonly delaysMs: readonly number[] };
  readonly dirtyKeysMax: number;
  readonly guard: GuardOptions;
  readonly lateMs: number;
  readonly drainTimeoutMs: number;
}

/** What a proxy needs besides bytes in order to capture. */
export class CapturingRooms {
  readonly parts: readonly Part[];
  readonly #settings: CapturingSettings;
  readonly #service: Service;
  readonly #router: Router;
  readonly #forward: Forwarder;
  readonly #faults: Faults;
  readonly #world: World;
  readonly #capture: CaptureRoom;
  readonly #afterwards = new Afterwards();
  readonly #leaving = stopSignal();
  #journal: Journal | undefined;

  constructor(settings: CapturingSettings, service: Service, forward: Forwarder, faults: Faults, world: World) {
    const rows = openRows(settings.database, world);
    const who = { service: service.name, role: "centre", site: settings.site } as const;
    const feed = openJetstream(jetstreamOptionsOf(settings.feed, who), world);
    const settle = { ...CAPTURE_DEFAULTS.settle, delaysMs: settings.settle.delaysMs.slice(1) };
    this.#capture = new CaptureRoom({ service, scope: settings.feed.scope, rows, feed, faults }, world,
      { ...CAPTURE_DEFAULTS, settle, guard: settings.guard, dirtyKeysMax: settings.dirtyKeysMax });
    this.#settings = settings;
    this.#service = service;
    this.#router = routerOf(service);
    this.#forward = forward;
    this.#faults = faults;
    this.#world = world;
    world.metrics.gauge("holdfast_calls_uncaptured", () => this.#afterwards.size);
    const connections: Part = { name: "connections", start: () => Promise.resolve(),
      stop: async () => void (await Promise.all([feed.close(), rows.close()])) };
    this.parts = [connections, this.#capture, this.#journalPart()];
  }

  /** For the status document. */
  status(): object {
    return { ...this.#capture.status(), calls: this.#afterwards.size, openIntents: this.#journal?.opened().length ?? 0 };
  }

  /** Takes one call to its answer; resolves when the client has it. Rejects only before anything was answered. */
  async handle(exchange: Exchange): Promise<void> {
    const routed = this.#router.route(exchange.method, exchange.target);
    if (routed.route === "pass" || routed.route === "leave") {
      await this.#forward.relay(exchange, { keepAnswerBytes: 0, keepRequestBytes: 0 });
      return;
    }
    if (routed.route === "unknown") this.#world.metrics.count("holdfast_unknown_routes_total");
    const call = routed.route === "capture" ? { exchange, declared: routed.capture, parameters: routed.parameters }
      : { exchange, declared: captureOfUnknown(this.#service), parameters: {} };
    const { captured } = await carryMutation(call, this.#rooms());
    this.#afterwards.follow(captured);
  }

  #rooms(): MutationRooms {
    const intents = present(this.#journal, "calls are taken once the journal is open");
    const { lateMs, settle: { delaysMs }, intents: { whenUnwritable } } = this.#settings;
    return { settleMs: delaysMs[0] ?? 0, world: this.#world, forward: this.#forward, intents, capture: this.#capture,
      faults: this.#faults, whenUnwritable,
      lateMs, leaving: this.#leaving.signal };
  }

  #journalPart(): Part {
    return {
      name: "intents",
      start: async () => {
        this.#journal = await openJournal(this.#settings.intents, this.#world);
        this.#afterwards.follow(replayIntents({ ...this.#rooms(), service: this.#service }));
      },
      stop: async () => {
        this.#leaving.abort();
        await Promise.race([this.#afterwards.settled(), sleep(this.#world.clock, this.#settings.drainTimeoutMs)]);
        await this.#journal?.stop();
      },
      notReady: () => this.#journal?.unavailable(),
    };
  }
}
