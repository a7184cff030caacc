/**
 * Class scans: compare every aggregate of a kind with the stream. The answer to whatever no predicate names: calls on unknown
 * routes, wide cascades, calls whose outcome or new ids are unknown, an intent journal that was lost; and the auditor's daily
 * work. Levels of depth: "keys" finds what was made and removed; "images" also what changed.
 *
 * A scan only marks differences dirty; the publish loop reads again, so a race with live changes costs work, never truth. What
 * would delete or rewrite is shown to the guard as a whole first; what is missing in the stream always goes on.
 * Bounds: one scan per kind at a time, requests during a scan are answered by one more; at least restMs between two scans of a
 * kind; pages of pageKeysMax aggregates.
 *
 * A kind without any difference is remembered with the checksums of its tables: as long as they and the stream's side stay the
 * same, nothing is read again. The checksums are taken before the rows are read, so a change in between is seen next time.
 */
import { factsOf } from "../core/log.ts";
import { isOperating } from "../core/errors.ts";
import { present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import type { World } from "../core/world.ts";
import type { RowReader, Rows } from "../rows/rows.ts";
import { readKeys } from "../rows/footprint.ts";
import type { Kind, Service } from "../schemas/define.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";
import { compareKeys, compareKind, type Comparison, type What } from "./compare.ts";
import type { Era } from "./era.ts";
import type { Blast } from "./guard.ts";
import type { Holding } from "./held.ts";
import type { Wish } from "./publish.ts";
import type { ScanDepth } from "./touches.ts";
import type { StreamView } from "./view.ts";

export interface ScanOptions {
  readonly pageKeysMax: number;
  readonly restMs: number;
  readonly backoff: Backoff;
}

export const SCAN_DEFAULTS: ScanOptions = { pageKeysMax: 500, restMs: 500, backoff: { firstMs: 200, lastMs: 10_000 } };

/** Aggregates of one comparison that are marked dirty at once. */
const PUBLISH_KEYS_MAX = 5_000;

interface ScanRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly view: StreamView;
  readonly holding: Holding;
  readonly era: () => Pick<Era, "epoch" | "lostIn">;
  /** The publisher's side: mark aggregates; resolves when they are published. */
  readonly publish: (keys: readonly AggregateKey[], wish: Wish) => Promise<void>;
}

/** What one scan of a kind found; `held` of the stale and superfluous ones wait for a person. */
export interface ScanCounts {
  readonly kind: string;
  readonly aggregates: number;
  readonly missing: number;
  readonly stale: number;
  readonly unsaid: number;
  readonly superfluous: number;
  readonly held: number;
}

/** What a kind looked like when nothing differed. */
interface Clean {
  readonly checksums: string;
  readonly changes: number;
  readonly epoch: number;
  readonly aggregates: number;
}

/** One kind's scans: at most one runs, at most one is asked for. */
interface Slot {
  running: boolean;
  depth: ScanDepth | undefined;
  asked: ((counts: ScanCounts) => void)[];
  /** Aggregates of the running scan that were compared so far. */
  seen: number;
}

/**
 * True when a kind that a running service always has rows of has none: somebody emptied the table, or this is not the database
 * it should be.
 */
export async function isEmptied(read: RowReader, service: Service): Promise<boolean> {
  for (const kind of service.kinds.values()) {
    if (!kind.neverEmpty) continue;
    const { keys } = await readKeys(read, service, kind.name, { limit: kind.except.length + 1 });
    if (keys.length === 0) return true;
  }
  return false;
}

/** Scans of one service; they end when `signal` aborts, and then never resolve. */
export class Scans {
  readonly #rooms: ScanRooms;
  readonly #world: World;
  readonly #options: ScanOptions;
  readonly #signal: AbortSignal;
  readonly #slots = new Map<string, Slot>();
  readonly #clean = new Map<string, Clean>();

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

  /** Aggregates compared so far by the scan of `kind` that is running; 0 when none is. */
  seenOf(kind: string): number {
    return this.#slots.get(kind)?.seen ?? 0;
  }

  /** Resolves when a scan of `kind` that began after this call has published every difference; never when stopped. */
  scan(kindName: string, depth: ScanDepth): Promise<ScanCounts> {
    let slot = this.#slots.get(kindName);
    if (slot === undefined) this.#slots.set(kindName, (slot = { running: false, depth: undefined, asked: [], seen: 0 }));
    slot.depth = slot.depth === "images" ? "images" : depth;
    const wanted = slot;
    const done = new Promise<ScanCounts>((resolve) => wanted.asked.push(resolve));
    if (!slot.running) {
      slot.running = true;
      void this.#work(present(this.#rooms.service.kinds.get(kindName), kindName), slot);
    }
    return done;
  }

  /**
   * Publishes those of `keys`, all of one kind, that differ from the stream and that the guard lets through.
   * @throws E_FEED_UNAVAILABLE, E_ROWS_UNAVAILABLE: nothing was published
   */
  async publishFound(kindName: string, keys: readonly AggregateKey[], cause: Blast["cause"]): Promise<ScanCounts> {
    const kind = present(this.#rooms.service.kinds.get(kindName), kindName);
    const view = await this.#rooms.view.entriesOf(kindName, this.#signal);
    const rooms = { ...this.#rooms, era: this.#rooms.era() };
    return this.#act(kind, await compareKeys(rooms, keys, view, this.#options.pageKeysMax), cause);
  }

  async #work(kind: Kind, slot: Slot): Promise<void> {
    for (let failures = 0; slot.asked.length > 0 && !this.#signal.aborted; ) {
      const asked = slot.asked.splice(0);
      const depth = slot.depth ?? "keys";
      slot.depth = undefined;
      try {
        const counts = await this.#act(kind, await this.#compare(kind, depth, slot), "scan");
        this.#world.metrics.count("holdfast_class_scans_total", 1, { kind: kind.name, depth });
        for (const tell of asked) tell(counts);
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

  async #compare(kind: Kind, depth: ScanDepth, slot: Slot): Promise<Comparison> {
    slot.seen = 0;
    const era = this.#rooms.era();
    const { epoch } = era;
    const view = await this.#rooms.view.entriesOf(kind.name, this.#signal);
    const { changes } = view;
    const checksums = changes === undefined || depth !== "images" ? undefined : await this.#checksums(kind);
    const clean = this.#clean.get(kind.name);
    if (clean !== undefined && clean.checksums === checksums && clean.changes === changes && clean.epoch === epoch) {
      this.#world.metrics.count("holdfast_scans_unchanged_total", 1, { kind: kind.name });
      return { aggregates: clean.aggregates, live: view.live, differences: [] };
    }
    const comparison = await compareKind({ ...this.#rooms, era }, kind, depth, view, this.#options.pageKeysMax,
      (seen) => void (slot.seen = seen));
    this.#clean.delete(kind.name);
    if (checksums !== undefined && changes !== undefined && comparison.differences.length === 0) {
      this.#clean.set(kind.name, { checksums, changes, epoch, aggregates: comparison.aggregates });
    }
    return comparison;
  }

  async #checksums(kind: Kind): Promise<string> {
    const tables = kind.tables.map((name) => present(this.#rooms.service.tables.get(name), name));
    return this.#rooms.rows.snapshot(async (read) => {
      const sums: string[] = [];
      for (const table of tables) sums.push(await read.checksum(table));
      return sums.join(" ");
    });
  }

  /** Publishes what differs, as far as the guard lets it through. */
  async #act(kind: Kind, comparison: Comparison, cause: Blast["cause"]): Promise<ScanCounts> {
    const of = (what: What): readonly AggregateKey[] =>
      comparison.differences.filter((each) => each.what === what).map(({ key }) => key);
    const [missing, stale, unsaid, superfluous] = [of("missing"), of("stale"), of("unsaid"), of("superfluous")];
    // The stream went back, so nobody has to believe the database about these.
    const [revived, undeleted] = [of("revived"), of("undeleted")];
    const doubtful = [...stale, ...superfluous];
    const isAdmitted = await this.#admit(kind, comparison.live, stale.length, superfluous, doubtful, cause);
    // What was let through as a whole is not doubted again one by one.
    await this.#publish([...missing, ...unsaid, ...revived, ...(isAdmitted ? stale : [])], "look");
    await this.#publish([...undeleted, ...(isAdmitted ? superfluous : [])], "delete");
    return { kind: kind.name, aggregates: comparison.aggregates, missing: missing.length, unsaid: unsaid.length,
      stale: stale.length + revived.length, superfluous: superfluous.length + undeleted.length,
      held: isAdmitted ? 0 : doubtful.length };
  }

  /** Part by part: a hundred thousand marks at once take half a gigabyte. */
  async #publish(keys: readonly AggregateKey[], wish: Wish): Promise<void> {
    for (let from = 0; from < keys.length && !this.#signal.aborted; from += PUBLISH_KEYS_MAX) {
      await this.#rooms.publish(keys.slice(from, from + PUBLISH_KEYS_MAX), wish);
    }
  }

  async #admit(kind: Kind, live: number, rewrites: number, superfluous: readonly AggregateKey[],
    doubtful: readonly AggregateKey[], cause: Blast["cause"]): Promise<boolean> {
    // A service prunes its logs itself, often many rows at once.
    if (kind.log !== undefined) return true;
    const sourceEmptied = superfluous.length > 0 &&
      await this.#rooms.rows.snapshot((read) => isEmptied(read, this.#rooms.service));
    return this.#rooms.holding.admit({ kind: kind.name, deletes: superfluous.length, rewrites, live, cause, sourceEmptied },
      doubtful.map(keyText));
  }
}
