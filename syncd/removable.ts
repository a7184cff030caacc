/**
 * Which rows without an image the row audit may remove: those that the central database does not have either. It works offline,
 * too: while nobody answers, rows with a tombstone go, and all others only if the ledger is proven to be whole. A ledger that was
 * lost, and made again from a stream that had lost its end, makes strangers of what is alive.
 */
import { compareVersions } from "../schemas/position.ts";
import { BEFORE_ALL, type Deviation } from "./row-compare.ts";

export interface RemovalRooms {
  /** Those of the names that the central database does not have; undefined when nobody answers. */
  readonly confirmGone: (names: readonly string[], signal: AbortSignal) => Promise<ReadonlySet<string> | undefined>;
  /** The centre's manifest has said that the ledger names everything. */
  readonly isProven: () => boolean;
}

/** See the file's head; `names` are those that were found to be too much. */
export async function removable({ confirmGone, isProven }: RemovalRooms, names: readonly string[],
  signal: AbortSignal): Promise<(deviation: Deviation) => boolean> {
  const gone = names.length === 0 ? undefined : await confirmGone(names, signal);
  if (gone !== undefined) return ({ name }) => gone.has(name);
  return ({ change }) => isProven() || compareVersions(change.version, BEFORE_ALL) > 0;
}
