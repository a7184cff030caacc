/**
 * The publish loop (docs/protocol.md P5), the only place that turns rows into messages. For each dirty aggregate, in this
 * order: learn the subject's last sequence, THEN read the rows in one snapshot, then publish expecting that sequence. A refused
 * publish is never sent again: the rows are read again. So the images of a subject never go back in time (I1).
 *
 * Nothing is said twice in one epoch: an image that the stream holds already, published in this epoch, is left alone. One of an
 * older epoch is said again, because versions of different epochs cannot tell a site which of two equal images is the newer.
 *
 * Bounds: batchKeysMax aggregates a look, lanesMax looks at once, one look per aggregate, publishWithinMs from learning the
 * sequence to sending. Nothing is given up: on an outage the keys stay dirty and are tried again with growing pauses.
 * Not here: which aggregates are dirty (capture/capture.ts), how long a mark outlives this process (the intent journal).
 */
import { factsOf } from "../core/log.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import { Bell } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import type { Feed, Published } from "../feed/feed.ts";
import { subjectOf } from "../feed/subjects.ts";
import { present } from "../core/assert.ts";
import { readImages } from "../rows/footprint.ts";
import type { RowReader, Rows } from "../rows/rows.ts";
import { changeOf, encodeChange, type Change } from "../schemas/change.ts";
import type { Service } from "../schemas/define.ts";
import { isUrgent } from "../schemas/urgent.ts";
import { keyText, type AggregateKey, type Image } from "../schemas/row.ts";
import { DirtySet } from "./dirty.ts";
import { headOfMessage, Heads, NO_HEAD, type Head } from "./heads.ts";
import { removeUnindexed } from "./unindexed.ts";

export interface PublishOptions {
  readonly batchKeysMax: number;
  readonly lanesMax: number;
  readonly publishWithinMs: number;
  readonly headsMax: number;
  readonly backoff: Backoff;
}

export const PUBLISH_DEFAULTS: PublishOptions = {
  batchKeysMax: 200, lanesMax: 3, publishWithinMs: 30_000, headsMax: 200_000, backoff: { firstMs: 50, lastMs: 5_000 },
};

/** What a publisher works with. `era` gives the epoch and schema revision that images are published under. */
export interface PublishRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly faults: Faults;
  readonly era: () => { readonly epoch: number; readonly schema: string };
  /** Told of every epoch above our own that a message carries: the database was restored, or another process is ahead. */
  readonly sawEpoch: (epoch: number) => void;
  /** Where readers see the newest message of an aggregate, 0 for nowhere; undefined where nobody keeps an index. */
  readonly shownAt?: ((name: string) => number) | undefined;
  /** May these aggregates, which no call asked to delete, be called deleted? Asked in the snapshot that did not have them. */
  readonly mayVanish: (read: RowReader, keys: readonly AggregateKey[]) => Promise<boolean>;
}

/** Why aggregates are looked at: a call that deletes named them, another call did, or anything else. */
export type Wish = "delete" | "call" | "look";

type Look = "done" | "again";

interface Wishes {
  /** Names to publish even if the stream holds the same image. */
  readonly forced: Set<string>;
  /** Names that a call asked to delete. */
  readonly condemned: Set<string>;
  /** Names that a call may have changed. */
  readonly called: Set<string>;
}

/** The wishes about `names`, taken out of `wishes`. */
function takeWishes(wishes: Wishes, names: readonly string[]): Wishes {
  const take = (from: Set<string>): Set<string> => new Set(names.filter((name) => from.delete(name)));
  return { forced: take(wishes.forced), condemned: take(wishes.condemned), called: take(wishes.called) };
}

/** What one look knows before it reads rows. */
interface Knowledge {
  readonly heads: ReadonlyMap<string, Head>;
  readonly learntMs: number;
  readonly wishes: Wishes;
}

/** One per service and process. publish() may be called before run(): the keys wait. */
export class Publisher {
  readonly #rooms: PublishRooms;
  readonly #world: World;
  readonly #options: PublishOptions;
  readonly #dirty = new DirtySet();
  readonly #heads: Heads;
  readonly #bell = new Bell();
  readonly #lanes = new Set<Promise<void>>();
  /** What is wished of aggregates that are marked; a look takes the wishes with it and gives them back if it fails. */
  readonly #wishes: Wishes = { forced: new Set(), condemned: new Set(), called: new Set() };
  #failures = 0;

  constructor(rooms: PublishRooms, world: World, options: PublishOptions) {
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#heads = new Heads(options.headsMax);
    world.metrics.gauge("holdfast_dirty_aggregates", () => this.#dirty.size, { service: rooms.service.name });
  }

  get dirty(): number {
    return this.#dirty.size;
  }

  /** Marks aggregates; resolves when the stream holds an image of each that was read after this call. */
  async publish(keys: readonly AggregateKey[], wish: Wish = "look"): Promise<void> {
    if (keys.length === 0) return;
    const wished = wish === "delete" ? this.#wishes.condemned : wish === "call" ? this.#wishes.called : undefined;
    if (wished !== undefined) for (const key of keys) wished.add(keyText(key));
    const done = Promise.all(keys.map((key) => this.#dirty.mark(key)));
    this.#bell.ring();
    await done;
  }

  /** As publish, and says every image again even if the stream holds it: for sites that hold a newer version than the stream. */
  force(keys: readonly AggregateKey[]): Promise<void> {
    for (const key of keys) this.#wishes.forced.add(keyText(key));
    return this.publish(keys);
  }

  /** What the stream was last known to hold for `key`. */
  headOf(key: AggregateKey): Head | undefined {
    return this.#heads.get(this.#subject(key));
  }

  /** Takes over what a reader of the stream saw. */
  learnHead(key: AggregateKey, head: Head): void {
    this.#heads.learn(this.#subject(key), head);
  }

  /** After the stream was made again nothing known of it holds. */
  forgetHeads(): void {
    this.#heads.forgetAll();
  }

  /** Works until `signal` aborts; then lets looks in progress end. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (this.#failures > 0) await waitBeforeRetry(this.#world, this.#options.backoff, this.#failures, signal);
      while (!signal.aborted && this.#dirty.queued > 0 && this.#lanes.size < this.#options.lanesMax && this.#startLane());
      await this.#bell.wait(signal);
    }
    await Promise.all(this.#lanes);
  }

  /** Starts one look; false when another must end first because this one follows a failure. */
  #startLane(): boolean {
    const keys = this.#dirty.take(this.#options.batchKeysMax);
    const lane: Promise<void> = this.#look(keys).then((failed) => {
      this.#failures = failed ? this.#failures + 1 : 0;
      this.#lanes.delete(lane);
      this.#bell.ring();
    });
    this.#lanes.add(lane);
    return this.#failures === 0;
  }

  #subject(key: AggregateKey): string {
    return subjectOf(this.#rooms.service.name, this.#rooms.scope, key);
  }

  /** One look at a batch. True when an outage ended it; every key has then come back as dirty. */
  async #look(keys: readonly AggregateKey[]): Promise<boolean> {
    let outage = false;
    const wishes = takeWishes(this.#wishes, keys.map(keyText));
    const settle = (key: AggregateKey, look: Look): void => {
      if (look === "done") return this.#dirty.done(key);
      for (const wish of ["forced", "condemned", "called"] as const) {
        if (wishes[wish].has(keyText(key))) this.#wishes[wish].add(keyText(key));
      }
      this.#dirty.again(key);
    };
    try {
      const learntMs = this.#world.clock.monotonicMs();
      const heads = await this.#learnHeads(keys);
      const { images, kept } = await this.#read(keys, heads, wishes);
      const { schema } = this.#rooms.era();
      const looks = this.#inOrder(keys, images).map(async (key) => {
        if (kept.has(keyText(key))) return settle(key, "done");
        const image = present(images.get(keyText(key)), "readImages answers for every key asked");
        const look = await this.#offer(key, changeOf(image, schema), { heads, learntMs, wishes }).catch((error: unknown) => {
          outage = true;
          this.#noteOutage(error);
          return "again" as const;
        });
        settle(key, look);
      });
      await Promise.all(looks);
    } catch (error) {
      outage = true;
      this.#noteOutage(error);
      for (const key of keys) settle(key, "again");
    }
    return outage;
  }

  /**
   * The images, and the names of those about which nothing is said: their absence is not believed, or there is nothing to take
   * back, because the stream has never spoken of them and no call named them. A tombstone for these would delete what sites still
   * have of an earlier stream past every guard; their sweeps do it, with one.
   */
  async #read(keys: readonly AggregateKey[], heads: ReadonlyMap<string, Head>, wishes: Wishes): Promise<{
    readonly images: ReadonlyMap<string, Image>; readonly kept: ReadonlySet<string> }> {
    return this.#rooms.rows.snapshot(async (read) => {
      const images = await readImages(read, this.#rooms.service, keys);
      this.#world.metrics.count("holdfast_footprints_read_total", keys.length);
      const gone = keys.filter((key) => images.get(keyText(key))?.rows === undefined && !wishes.condemned.has(keyText(key)));
      const isSaid = (key: AggregateKey): boolean => (heads.get(this.#subject(key))?.sequence ?? 0) > 0;
      const vanished = gone.filter(isSaid);
      const mayGo = vanished.length === 0 || await this.#rooms.mayVanish(read, vanished);
      const isKept = (key: AggregateKey): boolean => (isSaid(key) ? !mayGo : !wishes.called.has(keyText(key)));
      return { images, kept: new Set(gone.filter(isKept).map(keyText)) };
    });
  }

  #noteOutage(error: unknown): void {
    if (!isOperating(error)) throw error;
    this.#world.metrics.count("holdfast_publish_failures_total", 1, { code: error.code });
    this.#world.log.warn("aggregates could not be published and stay dirty", { dirty: this.#dirty.size, ...factsOf(error) });
  }

  async #learnHeads(keys: readonly AggregateKey[]): Promise<ReadonlyMap<string, Head>> {
    const known = await Promise.all(keys.map(async (key) => {
      const subject = this.#subject(key);
      return [subject, this.#heads.get(subject) ?? await this.#lastOf(key)] as const;
    }));
    return new Map(known);
  }

  async #lastOf(key: AggregateKey): Promise<Head> {
    const { feed, shownAt } = this.#rooms;
    const subject = this.#subject(key);
    const last = await feed.last(subject);
    if (last !== undefined) return headOfMessage(last);
    const isRemoved = await removeUnindexed(feed, subject, shownAt?.(keyText(key)) ?? 0);
    const labels = { service: this.#rooms.service.name };
    if (isRemoved) this.#world.metrics.count("holdfast_unindexed_messages_total", 1, labels);
    return NO_HEAD;
  }

  /**
   * Nothing to say, if the stream says so now. What this process remembers is not enough: another proxy may have published
   * something else since, and rows that went there and back again look like what is remembered (simulation, seed 50).
   */
  async #confirmEqual(subject: string, change: Change): Promise<Look> {
    const now = await this.#lastOf(change.image.key);
    this.#heads.forget(subject);
    if (!this.#isSaid(now, change)) return "again";
    this.#heads.learn(subject, now);
    return "done";
  }

  /** Does the stream hold this image, said in this epoch? */
  #isSaid(head: Head, change: Change): boolean {
    return head.digest === change.digest && head.epoch === this.#rooms.era().epoch;
  }

  /** @throws E_CENTRE_RESTORED when the stream is ahead of the epoch we publish under: whatever we said would lose. */
  #refuseOlderEpoch(subject: string, head: Head): void {
    const { epoch } = this.#rooms.era();
    if (head.epoch <= epoch) return;
    this.#heads.forget(subject);
    this.#rooms.sawEpoch(head.epoch);
    throw new OperatingError("E_CENTRE_RESTORED", "the stream is of a later epoch than this process publishes in",
      { subject, epoch, streamEpoch: head.epoch });
  }

  /** Upserts parents first, then tombstones children first: the order in which a site can apply them. */
  #inOrder(keys: readonly AggregateKey[], images: ReadonlyMap<string, { readonly rows: unknown }>): readonly AggregateKey[] {
    const rank = (key: AggregateKey): number => {
      const kind = present(this.#rooms.service.kinds.get(key.kind), key.kind);
      return images.get(keyText(key))?.rows === undefined ? 1_000_000 - kind.rank : kind.rank;
    };
    return [...keys].sort((left, right) => rank(left) - rank(right));
  }

  /** Publishes one image if the stream does not hold it already. */
  async #offer(asked: AggregateKey, change: Change, knowledge: Knowledge): Promise<Look> {
    const subject = this.#subject(change.image.key);
    const head = knowledge.heads.get(subject);
    if (head === undefined) return this.#lookUnderOwnName(change.image.key, knowledge.wishes);
    this.#refuseOlderEpoch(subject, head);
    if (this.#isSaid(head, change) && !knowledge.wishes.forced.has(keyText(asked))) return this.#confirmEqual(subject, change);
    if (this.#world.clock.monotonicMs() - knowledge.learntMs > this.#options.publishWithinMs) return "again";
    try {
      const { epoch } = this.#rooms.era();
      const published = await this.#send(subject, change, head, epoch);
      return this.#afterPublish(subject, change, published, epoch);
    } catch (error) {
      this.#heads.forget(subject);
      if (!isOperating(error, "E_IMAGE_TOO_LARGE")) throw error;
      this.#rooms.faults.raise(error.code, keyText(asked), error.message, error.facts);
      this.#world.log.error("an aggregate is too large for the feed; sites keep its last image", { key: keyText(asked),
        ...factsOf(error) });
      return "done";
    }
  }

  /**
   * The database spells the key differently from the caller (an engine that ignores case). The sequence of the aggregate's own
   * subject was not known before the rows were read, so the rows are read once more.
   */
  async #lookUnderOwnName(key: AggregateKey, wishes: Wishes): Promise<Look> {
    const learntMs = this.#world.clock.monotonicMs();
    const heads = await this.#learnHeads([key]);
    const images = await this.#rooms.rows.snapshot((read) => readImages(read, this.#rooms.service, [key]));
    const image = present(images.get(keyText(key)), "readImages answers for every key asked");
    if (keyText(image.key) !== keyText(key)) return "again";
    return this.#offer(key, changeOf(image, this.#rooms.era().schema), { heads, learntMs, wishes });
  }

  /**
   * Every try has an id of its own. An id made from subject, expectation and digest looks tempting, but servers look for
   * duplicates before they look at the expectation: a publisher with an old expectation would be told "stored" for a message
   * that another one stored long ago and that was replaced since (simulation, seed 441).
   */
  #send(subject: string, change: Change, head: Head, epoch: number): Promise<Published> {
    const headers: Record<string, string> = {
      "Hf-Epoch": String(epoch), "Hf-Digest": change.digest, "Hf-Schema": change.schema,
      "Hf-At": String(this.#world.clock.nowMs()),
    };
    if (change.image.rows === undefined) headers["Hf-Deleted"] = "1";
    if (isUrgent(this.#rooms.service, change.image)) headers["Hf-Urgent"] = "1";
    return this.#rooms.feed.publish({
      subject, headers, payload: encodeChange(change), expected: head.sequence,
        id: this.#world.random.id(),
    });
  }

  #afterPublish(subject: string, change: Change, published: Published, epoch: number): Look {
    if (!published.stored) {
      this.#world.metrics.count("holdfast_publish_conflicts_total");
      this.#heads.forget(subject);
      // "None" is asked about once more: it may be an index that lost the subject.
      const { last = 0 } = published;
      if (last > 0) this.#heads.learn(subject, { ...NO_HEAD, sequence: last });
      return "again";
    }
    this.#world.metrics.count("holdfast_published_total");
    this.#heads.learn(subject, { sequence: published.sequence, epoch, digest: change.digest });
    this.#rooms.faults.clear("E_IMAGE_TOO_LARGE", keyText(change.image.key));
    return "done";
  }
}
