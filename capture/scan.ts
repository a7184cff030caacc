/**
 * Class scans: compare every aggregate of a kind with the stream. The answer to whatever no predicate names: calls on unknown
 * routes, wide cascades, calls whose outcome or new ids are unknown, an intent journal that was lost. Levels of depth: "keys"
 * finds what was made and removed; "images" also what changed.
 *
 * A scan only marks differences dirty; the publish loop reads again, so a race with live changes costs work, never truth.
 * Bounds: one scan per kind at a time, requests during a scan are answered by one more; at least restMs between two scans of a
 * kind; pages of pageKeysMax aggregates.
 */
import { factsOf } from "../core/log.ts";
import { isOperating } from "../core/errors.ts";
import { present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { filterOf, keyOfSubject } from "../feed/subjects.ts";
import { readImages, readKeys } from "../rows/footprint.ts";
import type { Page, Rows } from "../rows/rows.ts";
import type { Kind, Service } from "../schemas/define.ts";
import { digestOf, keyText, type AggregateKey } from "../schemas/row.ts";
import type { Head } from "./heads.ts";
import type { ScanDepth } from "./touches.ts";

export interface ScanOptions {
  readonly pageKeysMax: number;
  readonly restMs: number;
  readonly backoff: Backoff;
}

export const SCAN_DEFAULTS: ScanOptions = { pageKeysMax: 500, restMs: 500, backoff: { firstMs: 200, lastMs: 10_000 } };

interface ScanRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  /** The publisher's side: mark aggregates, and take over what the stream was seen to hold. */
  readonly publish: (keys: readonly AggregateKey[]) => Promise<void>;
  readonly learnHead: (key: AggregateKey, head: Head) => void;
}

interface StreamEntry extends Head {
  readonly key: AggregateKey;
  readonly deleted: boolean;
}

/** One kind's scans: at most one runs, at most one is asked for. */
interface Slot {
  running: boolean;
  depth: ScanDepth | undefined;
  asked: (() => void)[];
}

/** Scans of one service; they end when `signal` aborts, and then never resolve. */
export class Scans {
  readonly #rooms: ScanRooms;
  readonly #world: World;
  readonly #options: ScanOptions;
  readonly #signal: AbortSignal;
  readonly #slots = new Map<string, Slot>();

  constructor(rooms: ScanRooms, world: World, options: ScanOptions, signal: AbortSignal) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#signal = signal;
  }

  /** Kinds with a scan running or asked for. */
  get pending(): number {
    return this.#slots.size;
  }

  /** Resolves when a scan of `kind` that began after this call has published every difference; never when stopped. */
  scan(kindName: string, depth: ScanDepth): Promise<void> {
    let slot = this.#slots.get(kindName);
    if (slot === undefined) this.#slots.set(kindName, (slot = { running: false, depth: undefined, asked: [] }));
    slot.depth = slot.depth === "images" ? "images" : depth;
    const wanted = slot;
    const done = new Promise<void>((resolve) => wanted.asked.push(resolve));
    if (!slot.running) {
      slot.running = true;
      void this.#work(present(this.#rooms.service.kinds.get(kindName), kindName), slot);
    }
    return done;
  }

  async #work(kind: Kind, slot: Slot): Promise<void> {
    for (let failures = 0; slot.asked.length > 0 && !this.#signal.aborted; ) {
      const asked = slot.asked.splice(0);
      const depth = slot.depth ?? "keys";
      slot.depth = undefined;
      try {
        await this.#rooms.publish(await this.#differing(kind, depth));
        this.#world.metrics.count("holdfast_class_scans_total", 1, { kind: kind.name, depth });
        for (const tell of asked) tell();
        failures = 0;
        if (slot.asked.length > 0) await sleep(this.#world.clock, this.#options.restMs, this.#signal);
      } catch (error) {
        if (!isOperating(error)) throw error;
        slot.asked.push(...asked);
        slot.depth = depth === "images" ? "images" : (slot.depth ?? depth);
        this.#world.log.warn("a class scan could not finish and is tried again", { kind: kind.name, ...factsOf(error) });
        await waitBeforeRetry(this.#world, this.#options.backoff, ++failures, this.#signal);
      }
    }
    slot.running = false;
    this.#slots.delete(kind.name);
  }

  /** Aggregates of the kind whose existence, or image, differs between stream and database. */
  async #differing(kind: Kind, depth: ScanDepth): Promise<readonly AggregateKey[]> {
    const inStream = await this.#readStream(kind);
    const differing: AggregateKey[] = [];
    for await (const found of this.#readDatabase(kind, depth)) {
      const name = keyText(found.key);
      const head = inStream.get(name);
      inStream.delete(name);
      if (head === undefined || head.deleted ||
        (found.digest !== undefined && found.digest !== head.digest)) differing.push(found.key);
    }
    for (const entry of inStream.values()) if (!entry.deleted) differing.push(entry.key);
    return differing;
  }

  async #readStream(kind: Kind): Promise<Map<string, StreamEntry>> {
    const entries = new Map<string, StreamEntry>();
    const filter = filterOf(this.#rooms.service.name, this.#rooms.scope, kind.name);
    const batches = this.#rooms.feed.read(
      { filter, after: 0, headersOnly: true, untilTip: true, batchMessagesMax: 1000, batchBytesMax: 1 << 20 }, this.#signal);
    for await (const batch of batches) {
      for (const message of batch) {
        const key = keyOfSubject(message.subject);
        if (key === undefined) continue;
        const entry = { key, sequence: message.sequence, digest: message.headers["Hf-Digest"],
          deleted: message.headers["Hf-Deleted"] === "1" };
        entries.set(keyText(key), entry);
        this.#rooms.learnHead(key, entry);
      }
    }
    return entries;
  }

  async *#readDatabase(kind: Kind, depth: ScanDepth): AsyncIterable<{ key: AggregateKey; digest: string | undefined }> {
    const { rows, service } = this.#rooms;
    for (let next: Page | undefined = { limit: this.#options.pageKeysMax }; next !== undefined; ) {
      const asked: Page = next;
      const page = await rows.snapshot(async (read) => {
        const found = await readKeys(read, service, kind.name, asked);
        const images = depth === "images" ? await readImages(read, service, found.keys) : undefined;
        return { ...found, images };
      });
      for (const key of page.keys) {
        const image = page.images?.get(keyText(key));
        yield { key, digest: image === undefined ? undefined : digestOf(image) };
      }
      next = page.next;
    }
  }
}
