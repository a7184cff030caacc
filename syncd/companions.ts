/**
 * What rows need outside their database. Here: the services' caches. After every commit the service's cache regions are made
 * unreachable, and once more a few seconds later, because a reader that took the old row before our commit may store it after
 * our first invalidation (docs/protocol.md E6). Failures are tried again until they succeed; rows never wait for a cache. Not
 * here yet: key repositories and image bytes.
 */
import type { Cancel } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import { backoffMs } from "../core/retry.ts";
import type { World } from "../core/world.ts";

const RETRY = { firstMs: 200, lastMs: 5_000 };

export interface CacheOptions {
  /** memcached servers of the site, "unix:/path" or "host:port". */
  readonly servers: readonly string[];
  /** Keys that stand for whole regions. */
  readonly keys: readonly string[];
  /** Pause before the second invalidation. */
  readonly againMs: number;
}

type DeleteKeys = (server: string, keys: readonly string[]) => Promise<void>;

/** The caches of one service at one site. */
export class CacheInvalidation {
  readonly #options: CacheOptions;
  readonly #world: World;
  readonly #faults: Faults;
  readonly #delete: DeleteKeys;
  readonly #states = new Map<string, { running: boolean; wanted: boolean; failures: number }>();
  #again: Cancel | undefined;
  #stopped = false;

  constructor(options: CacheOptions, world: World, faults: Faults, deleteKeys: DeleteKeys) {
    this.#options = options;
    this.#world = world;
    this.#faults = faults;
    this.#delete = deleteKeys;
  }

  /** Rows changed: invalidate now and again. A burst of commits shares the second one. */
  rowsChanged(): void {
    if (this.#options.keys.length === 0) return;
    for (const server of this.#options.servers) this.#want(server);
    this.#again ??= this.#world.clock.after(this.#options.againMs, () => {
      this.#again = undefined;
      for (const server of this.#options.servers) this.#want(server);
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#again?.();
  }

  #want(server: string): void {
    const state = this.#states.get(server) ?? { running: false, wanted: false, failures: 0 };
    this.#states.set(server, state);
    state.wanted = true;
    if (!state.running) void this.#work(server, state);
  }

  /** One burst at a time per server; a wish during a burst is one more burst. */
  async #work(server: string, state: { running: boolean; wanted: boolean; failures: number }): Promise<void> {
    state.running = true;
    while (state.wanted && !this.#stopped) {
      state.wanted = false;
      try {
        await this.#delete(server, this.#options.keys);
        state.failures = 0;
        this.#faults.clear("E_CACHE_UNREACHABLE", server);
        this.#world.metrics.count("holdfast_cache_invalidations_total");
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#faults.raise(error.code, server, error.message);
        state.failures += 1;
        this.#world.clock.after(backoffMs(this.#world.random, RETRY, state.failures), () => this.#want(server));
        break;
      }
    }
    state.running = false;
    if (state.wanted && !this.#stopped && state.failures === 0) void this.#work(server, state);
  }
}
