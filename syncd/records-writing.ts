/**
 * A site's side of the database sync API (port: records/writing.ts). A site makes no versions: a change says under which version
 * its image stands in the stream, and takes the way of every change, through decide and apply, in turn with what is read from the
 * stream. So an operator can hand a change to a site that the stream does not reach, and nothing older ever replaces anything
 * newer.
 *
 *   newer than what was applied and than what waits, else E_RECORD_CONFLICT
 *     → while connected: the stream holds this very image under this very version, else E_RECORD_CONFLICT
 *     → applied, or set aside as it would be if it had come by the stream
 *
 * While cut off, the version cannot be checked and is believed. A wrong one is found by the next manifest check.
 */
import { sleep } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import type { Feed, FeedMessage } from "../feed/feed.ts";
import { subjectOf } from "../feed/subjects.ts";
import type { Placed, RecordChange, RecordWriting, WriteOutcome } from "../records/writing.ts";
import type { RowReader, Rows } from "../rows/rows.ts";
import { changeOf, encodeChange } from "../schemas/change.ts";
import type { Service } from "../schemas/define.ts";
import { compareVersions, replaces, type Version } from "../schemas/position.ts";
import { keyText, type AggregateKey, type Image } from "../schemas/row.ts";
import { PARKED_TABLE, QUARANTINE_TABLE, readApplied, readWaitingOf, type Waiting } from "./ledger.ts";
import { epochOf, type Received } from "./received.ts";

export interface SiteWritingRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  /**
   * Applies one change in turn with everything else, after `mayApply` has resolved; nothing else is applied between the two.
   * Returns when it is stored or set aside, or `signal` aborted.
   */
  readonly applyNow: (change: Received, mayApply: () => Promise<void>, signal: AbortSignal) => Promise<void>;
}

/** How long an answer waits for the database and for what is applied before. */
export const APPLY_WITHIN_MS = 20_000;

/** What the ledger says of one aggregate. */
interface Noted {
  readonly applied: Placed | undefined;
  readonly parked: Waiting | undefined;
  readonly quarantined: Waiting | undefined;
}

function conflict(message: string, held: Version | undefined): OperatingError {
  return new OperatingError("E_RECORD_CONFLICT", message,
    held === undefined ? {} : { version: `${held.epoch}.${held.sequence}` });
}

/** See the file's head. One per service. */
export class SiteRecordWriting implements RecordWriting {
  readonly versioned = true;
  readonly #rooms: SiteWritingRooms;
  readonly #world: World;

  constructor(rooms: SiteWritingRooms, world: World) {
    this.#rooms = rooms;
    this.#world = world;
  }

  async placedOf(read: RowReader, keys: readonly AggregateKey[]): Promise<ReadonlyMap<string, Placed>> {
    const applied = await readApplied(read, keys);
    return new Map([...applied].map(([name, { epoch, sequence, digest }]) => [name, { version: { epoch, sequence }, digest }]));
  }

  async write({ image, version }: RecordChange): Promise<WriteOutcome> {
    if (version === undefined) throw new OperatingError("E_OPERATION_INPUT", "version: a site needs the one of the stream");
    const change = await this.#changeOf(image, version);
    const over = new AbortController();
    const late = sleep(this.#world.clock, APPLY_WITHIN_MS, over.signal).then(() => over.abort());
    try {
      await this.#rooms.applyNow(change, () => this.#mayApply(change), over.signal);
    } finally {
      over.abort();
      await late;
    }
    return this.#outcomeOf(change);
  }

  /** Throws unless the change is newer than everything that this site has of the aggregate. */
  async #mayApply({ image: { key }, version }: Received): Promise<void> {
    const { applied, parked, quarantined } = await this.#noted(key);
    for (const held of [applied?.version, parked?.version, quarantined?.version]) {
      if (!replaces(version, held)) throw conflict("this site has the same or a newer version of it", held);
    }
  }

  #noted(key: AggregateKey): Promise<Noted> {
    return this.#rooms.rows.snapshot(async (read) => {
      const applied = (await this.placedOf(read, [key])).get(keyText(key));
      const [parked] = await readWaitingOf(read, PARKED_TABLE, [key]);
      const [quarantined] = await readWaitingOf(read, QUARANTINE_TABLE, [key]);
      return { applied, parked, quarantined };
    });
  }

  /** The change as it stands in the stream; as it was given where the stream cannot be asked. */
  async #changeOf(image: Image, version: Version): Promise<Received> {
    const { service } = this.#rooms;
    const last = await this.#lastOf(image.key);
    const schema = last === "unknown" ? [...service.migrations.verified].sort().join("+") : last?.headers["Hf-Schema"];
    const change = changeOf(image, schema ?? "");
    if (last === "unknown") {
      this.#world.log.warn("a change is applied whose version cannot be checked: the stream cannot be asked",
        { key: keyText(image.key), version: `${version.epoch}.${version.sequence}` });
    } else {
      const held = last === undefined ? undefined : { epoch: epochOf(last), sequence: last.sequence };
      if (held === undefined || compareVersions(held, version) !== 0) throw conflict("the stream has another version of it",
        held);
      if (last?.headers["Hf-Digest"] !== change.digest) throw conflict("the stream has another image under this version", held);
    }
    const payload = image.rows === undefined ? undefined : Buffer.from(encodeChange(change)).toString("utf8");
    return { ...change, version, payload };
  }

  async #lastOf(key: AggregateKey): Promise<FeedMessage | "unknown" | undefined> {
    const { service, scope, feed } = this.#rooms;
    if (feed.disconnected() !== undefined) return "unknown";
    try {
      return await feed.last(subjectOf(service.name, scope, key));
    } catch (error) {
      if (!isOperating(error)) throw error;
      this.#world.log.debug("the stream does not say what it holds", { key: keyText(key), ...factsOf(error) });
      return "unknown";
    }
  }

  async #outcomeOf({ image: { key }, version, digest }: Received): Promise<WriteOutcome> {
    const { applied, parked, quarantined } = await this.#noted(key);
    const isIt = (held: Version | undefined): boolean => held !== undefined && compareVersions(held, version) === 0;
    if (isIt(parked?.version)) return { outcome: "parked", because: parked?.code ?? "" };
    if (isIt(quarantined?.version)) return { outcome: "quarantined", because: quarantined?.code ?? "" };
    if (isIt(applied?.version)) return { outcome: "written", placed: { version, digest } };
    if (!replaces(version, applied?.version)) return { outcome: "written", placed: undefined };
    throw new OperatingError("E_ROWS_UNAVAILABLE", "the database did not take the change in time; it was not applied");
  }
}
