/**
 * Looking after changes that wait at this site, parked or quarantined, with every manifest: what the stream says of their
 * aggregates by now. Normally it says what waits, or something newer that is on its way; but a message may have been missed,
 * and a tombstone that was missed is collected after its time. Such a change would wait for ever for what never comes.
 *
 * Newer than what waits, at or below the position: it was missed and is taken now. Nothing on the stream, and nothing in the
 * central database (confirm.ts): the change is forgotten.
 * Bounds: LOOKED_AT_MAX changes with one manifest, in turn; LANES questions to the stream server at a time.
 */
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { subjectPrefix } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import { keyFromText, keyText } from "../schemas/row.ts";
import { inLanes } from "./admission.ts";
import type { Applier } from "./applier.ts";
import { confirmGone, type ConfirmRooms } from "./confirm.ts";
import { standingOf } from "./findings.ts";
import { PARKED_TABLE, QUARANTINE_TABLE, readWaitingOf } from "./ledger.ts";
import { receive, type Received } from "./received.ts";

const LOOKED_AT_MAX = 500;
const LANES = 32;

export interface RescueRooms extends ConfirmRooms {
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
}

/** The rescues of one follower. Not to run while anything else commits. */
export class Rescue {
  readonly #rooms: RescueRooms;
  readonly #world: World;
  readonly #askTimeoutMs: number;
  #from = 0;

  constructor(rooms: RescueRooms, world: World, askTimeoutMs: number) {
    this.#rooms = rooms;
    this.#world = world;
    this.#askTimeoutMs = askTimeoutMs;
  }

  /** Looks after some of what waits. @throws what the feed and the database throw */
  async look(applier: Applier, signal: AbortSignal): Promise<void> {
    const names = this.#next([...applier.waitingNames()]);
    if (names.length === 0) return;
    const { service, scope, feed } = this.#rooms;
    const waiting = await this.#versionsOf(names);
    const prefix = subjectPrefix(service.name, scope);
    const messages = await inLanes(names, LANES, (name) => feed.last(`${prefix}.${name}`));
    const absent: string[] = [];
    const missed: Received[] = [];
    for (const [place, name] of names.entries()) {
      const [message, version] = [messages[place], waiting.get(name)];
      if (message === undefined) absent.push(name);
      if (message === undefined || version === undefined) continue;
      const { version: said } = standingOf(message);
      if (compareVersions(said, version) <= 0 || compareVersions(said, applier.position) > 0) continue;
      const arrival = receive(service, message);
      if (arrival.kind === "change") missed.push(arrival.change);
    }
    if (signal.aborted) return;
    if (missed.length > 0) await applier.repair(missed, signal);
    const gone = await confirmGone(this.#rooms, absent, applier.position.epoch, this.#askTimeoutMs, signal);
    const forgotten = absent.filter((name) => gone?.has(name) === true && applier.waits(name));
    if (signal.aborted || missed.length + forgotten.length === 0) return;
    await applier.drop(forgotten.map(keyFromText));
    this.#world.log.warn("changes that waited for what never comes were put right", { service: service.name,
      missed: missed.length, forgotten: forgotten.length });
    this.#world.metrics.count("holdfast_rescued_changes_total", missed.length + forgotten.length, { service: service.name });
  }

  /** The next LOOKED_AT_MAX of `all`, going round. */
  #next(all: readonly string[]): readonly string[] {
    if (this.#from >= all.length) this.#from = 0;
    const some = all.slice(this.#from, this.#from + LOOKED_AT_MAX);
    this.#from += some.length;
    return some;
  }

  async #versionsOf(names: readonly string[]): Promise<ReadonlyMap<string, Version>> {
    const keys = names.map(keyFromText);
    const notes = await this.#rooms.rows.snapshot(async (read) => [...await readWaitingOf(read, PARKED_TABLE, keys),
      ...await readWaitingOf(read, QUARANTINE_TABLE, keys)]);
    return new Map(notes.map(({ key, version }) => [keyText(key), version]));
  }
}
