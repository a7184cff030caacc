/**
 * Live aggregates that refer to what a tombstone says is gone: the database may have cascaded without any call that names them.
 * They are looked at as soon as the tombstone passes the tail; most of them turn out to be unchanged. Bound: names are kept once
 * each; beyond ORPHANS_OF_KIND_MAX of a kind the kind is compared as a whole.
 * Not here: finding them (stream-index.ts).
 */
import { Bell } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import type { CaptureRoom } from "../capture/capture.ts";
import { byKind, keyFromText } from "../schemas/row.ts";
import { untilStopped } from "./patience.ts";

const ORPHANS_OF_KIND_MAX = 10_000;

/** Those that wait for a look; see the file's head. */
export class Orphans {
  readonly #capture: Pick<CaptureRoom, "scan" | "publishFound">;
  readonly #world: World;
  readonly #waiting = new Set<string>();
  readonly #bell = new Bell();

  constructor(capture: Pick<CaptureRoom, "scan" | "publishFound">, world: World) {
    this.#capture = capture;
    this.#world = world;
  }

  note(names: readonly string[]): void {
    for (const name of names) this.#waiting.add(name);
    this.#world.metrics.count("holdfast_orphans_looked_at_total", names.length);
    this.#bell.ring();
  }

  /** Looks at them until `signal` aborts. What differs goes through the guard. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#bell.wait(signal);
      const names = [...this.#waiting];
      this.#waiting.clear();
      for (const [kind, keys] of byKind(names.map(keyFromText))) {
        const look: Promise<unknown> = keys.length > ORPHANS_OF_KIND_MAX ? this.#capture.scan(kind, "images")
          : this.#capture.publishFound(keys, "scan");
        await untilStopped(look, signal);
      }
    }
  }
}
