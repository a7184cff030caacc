/**
 * The centre's side of the database sync API (port: records/writing.ts): rows are written to the central database by the plan
 * code that sites apply images with, in one transaction that holds every row of the aggregate, and published like whatever a
 * captured call changed.
 *
 *   schema verified → counters raised above new counted keys → transaction: lock the aggregate's rows, hold the expected digest
 *     against them, difference, plan → publish, waited for PUBLISH_WITHIN_MS
 *
 * A process that dies after the commit has published nothing: the next audit finds the difference, as it does for every other
 * write past the proxy. So does it for a commit whose answer was lost.
 * Not here: soft references, quotas and whatever else the OpenStack service checks before it writes; its caches.
 */
import { present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import { headOfMessage } from "../capture/heads.ts";
import type { Wish } from "../capture/publish.ts";
import type { Feed } from "../feed/feed.ts";
import { subjectOf } from "../feed/subjects.ts";
import type { Placed, RecordChange, RecordWriting, WriteOutcome } from "../records/writing.ts";
import { carryOut, fitted } from "../rows/carry-out.ts";
import { differenceOf } from "../rows/difference.ts";
import { readImages } from "../rows/footprint.ts";
import { planOf } from "../rows/plan.ts";
import type { RowReader, Rows, RowWriter } from "../rows/rows.ts";
import { verifiedSchema } from "../rows/verified.ts";
import { runsOf } from "../rows/wire.ts";
import { SITE_COUNTER_FIRST, type Service } from "../schemas/define.ts";
import { digestOf, keyText, rowText, type AggregateKey, type Image } from "../schemas/row.ts";

export interface CentreWritingRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  /** CaptureRoom.publish: resolves when the stream holds what was read after the call; waits through outages. */
  readonly publish: (keys: readonly AggregateKey[], wish: Wish) => Promise<void>;
}

/** How long the answer to a write waits for the stream. */
export const PUBLISH_WITHIN_MS = 5_000;
/** How long a verified schema is believed. */
const VERIFIED_FOR_MS = 60_000;
/** Heads of the stream asked for at once. */
const ASKED_AT_ONCE = 50;

/** Reads rows and holds them until the transaction ends, so that nobody changes what is being compared. */
function holding(write: RowWriter): RowReader {
  return { select: (table, match) => write.lock(table, match), page: write.page.bind(write), above: write.above.bind(write),
    span: write.span.bind(write), checksum: write.checksum.bind(write) };
}

/** See the file's head. One per service. */
export class CentreRecordWriting implements RecordWriting {
  readonly versioned = false;
  readonly #rooms: CentreWritingRooms;
  readonly #world: World;
  readonly #publishWithinMs: number;
  #verifiedMs: number | undefined;

  constructor(rooms: CentreWritingRooms, world: World, publishWithinMs: number = PUBLISH_WITHIN_MS) {
    this.#rooms = rooms;
    this.#world = world;
    this.#publishWithinMs = publishWithinMs;
  }

  async placedOf(_read: RowReader, keys: readonly AggregateKey[]): Promise<ReadonlyMap<string, Placed>> {
    const placed = new Map<string, Placed>();
    for (const run of runsOf(keys, ASKED_AT_ONCE)) {
      if (this.#rooms.feed.disconnected() !== undefined) return placed;
      const found = await Promise.all(run.map(async (key) => [keyText(key), await this.#placed(key)] as const));
      for (const [name, each] of found) if (each !== undefined) placed.set(name, each);
    }
    return placed;
  }

  async write({ image, expected }: RecordChange): Promise<WriteOutcome> {
    await this.#verify();
    await this.#raiseCounters(image);
    const publishing = (): Promise<void> => this.#rooms.publish([image.key], image.rows === undefined ? "delete" : "look");
    let digest: string;
    try {
      digest = await this.#rooms.rows.transaction((write) => this.#store(write, image, expected));
    } catch (error) {
      // Perhaps it is stored: then it has to travel all the same.
      if (isOperating(error, "E_ROWS_COMMIT_UNKNOWN")) void publishing();
      throw error;
    }
    const waiting = new AbortController();
    const late = sleep(this.#world.clock, this.#publishWithinMs, waiting.signal).then(() => false);
    const isPublished = await Promise.race([publishing().then(() => true), late]).finally(() => waiting.abort());
    if (!isPublished) return { outcome: "unpublished" };
    const placed = await this.#placed(image.key);
    return { outcome: "written", placed: placed?.digest === digest ? placed : undefined };
  }

  /** The newest image of the stream; undefined when there is none, or when nobody can say. */
  async #placed(key: AggregateKey): Promise<Placed | undefined> {
    const { service, scope, feed } = this.#rooms;
    try {
      const last = await feed.last(subjectOf(service.name, scope, key));
      if (last === undefined) return undefined;
      const { sequence, epoch, digest } = headOfMessage(last);
      return digest === undefined ? undefined : { version: { epoch, sequence }, digest };
    } catch (error) {
      if (!isOperating(error)) throw error;
      this.#world.log.debug("the stream does not say what it holds", { key: keyText(key), ...factsOf(error) });
      return undefined;
    }
  }

  async #verify(): Promise<void> {
    const nowMs = this.#world.clock.monotonicMs();
    if (this.#verifiedMs !== undefined && nowMs - this.#verifiedMs < VERIFIED_FOR_MS) return;
    await verifiedSchema(this.#rooms.service, this.#rooms.rows);
    this.#verifiedMs = nowMs;
  }

  /**
   * A counted key that is written out does not move PostgreSQL's counter, and the service's own next row would take the same
   * one. Keys that only sites count are refused: the centre's counter would follow them up there.
   */
  async #raiseCounters(image: Image): Promise<void> {
    const { service, rows } = this.#rooms;
    const counted = Object.keys(image.rows ?? {}).map((name) => present(service.tables.get(name), name))
      .filter((table) => table.counted !== undefined);
    if (counted.length === 0) return;
    const current = (await rows.snapshot((read) => readImages(read, service, [image.key]))).get(keyText(image.key));
    for (const table of counted) {
      const column = present(table.counted, "a counted table");
      const known = new Set((current?.rows?.[table.name] ?? []).map((row) => rowText(row, table.key)));
      const fresh = (image.rows?.[table.name] ?? []).filter((row) => !known.has(rowText(row, table.key)));
      if (fresh.length === 0) continue;
      const highest = Math.max(...fresh.map((row) => Number(row[column])));
      if (highest >= SITE_COUNTER_FIRST) {
        throw new OperatingError("E_OPERATION_INPUT",
          `${table.name}.${column}: values from ${SITE_COUNTER_FIRST} on are the sites'`);
      }
      await rows.ensureCounter(table, highest + 1);
    }
  }

  /** Makes the database hold the image; the digest of what it holds then. */
  async #store(write: RowWriter, image: Image, expected: string | undefined): Promise<string> {
    const { service, rows } = this.#rooms;
    const imageIn = async (read: RowReader): Promise<Image> =>
      present((await readImages(read, service, [image.key])).get(keyText(image.key)), "readImages answers for every key asked");
    const current = await imageIn(holding(write));
    const held = current.rows === undefined ? undefined : digestOf(current);
    if (held !== expected || keyText(current.key) !== keyText(image.key)) {
      throw new OperatingError("E_RECORD_CONFLICT", "somebody changed it meanwhile", { key: keyText(current.key), digest: held });
    }
    await carryOut(write, planOf(service, [differenceOf(service, fitted(rows, service, image), current.rows)]));
    return digestOf(await imageIn(write));
  }
}
