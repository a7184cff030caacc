/**
 * Collecting tombstones, so that the stream does not grow with everything that ever existed. A site that was away for longer than
 * tombstones are kept has to read everything anew; it learns so from the floor. Hence the order; no step may be left out:
 *
 *   floor raised in the database → said in a heartbeat → said in a manifest → only then the messages are removed
 *
 * A removal names the tombstone's own sequence: a newer image of the same aggregate is never touched. A death in between leaves
 * tombstones that are collected the next time. Bound: COLLECTED_AT_ONCE_MAX a cycle.
 */
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { subjectPrefix } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import { raiseFloor } from "./notes.ts";
import type { DueTombstone, StreamIndex } from "./stream-index.ts";

export interface TombstoneRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly index: StreamIndex;
}

const COLLECTED_AT_ONCE_MAX = 10_000;
const PURGES_AT_ONCE = 16;

/**
 * Tombstones published more than `keptMs` ago, with the floor in the database raised to the newest of them. A clock that jumps
 * collects too early at worst: then sites read everything once too often. @throws E_ROWS_*
 */
export async function dueTombstones(rooms: TombstoneRooms, world: World, keptMs: number): Promise<readonly DueTombstone[]> {
  const due = rooms.index.tombstonesBefore(world.clock.nowMs() - keptMs, COLLECTED_AT_ONCE_MAX);
  const newest = due.at(-1);
  if (newest !== undefined) {
    await raiseFloor(rooms.rows, rooms.feed.stream, { epoch: newest.epoch, sequence: newest.sequence });
  }
  return due;
}

/** Removes those of `due` that `floor`, which heartbeat and manifest have said, covers. @throws E_FEED_* */
export async function collect(rooms: TombstoneRooms, world: World, due: readonly DueTombstone[],
  floor: Version): Promise<number> {
  const covered = due.filter((tombstone) => compareVersions(tombstone, floor) <= 0);
  const prefix = subjectPrefix(rooms.service.name, rooms.scope);
  for (let from = 0; from < covered.length; from += PURGES_AT_ONCE) {
    await Promise.all(covered.slice(from, from + PURGES_AT_ONCE).map(async ({ name, sequence }) => {
      await rooms.feed.purge(`${prefix}.${name}`, sequence);
      rooms.index.forget(name, sequence);
    }));
  }
  world.metrics.count("holdfast_tombstones_collected_total", covered.length, { service: rooms.service.name });
  return covered.length;
}
