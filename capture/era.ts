/**
 * The era that images are published under: the schema revision of the database and the epoch of the stream. The epoch lives in
 * the central database, so that it survives the loss of every stream server. It rises whenever sequences may have started
 * again: the stream was made anew, or it is shorter than it was.
 *
 * Not here yet: heartbeats and the auditor's regression checks; a stream that is restored without being made anew and grows
 * past its old end before anybody looks is found by them.
 */
import type { Feed } from "../feed/feed.ts";
import type { Rows } from "../rows/rows.ts";
import { declareTable } from "../schemas/define.ts";

/** At the centre: one row per stream. */
export const STREAM_TABLE = declareTable("holdfast_stream", {
  key: ["stream"],
  columns: { stream: "text", epoch: "bigint", created: "text", high_water: "bigint", filled_epoch: "bigint" },
});

export interface Era {
  readonly epoch: number;
  readonly schema: string;
  /** False until every aggregate of the database was compared with the stream once in this epoch. */
  readonly filled: boolean;
}

/**
 * Makes the stream if it is missing and decides its epoch, in one transaction. The stream is looked at under the row's lock:
 * looked at before, another proxy's later high-water mark would make it seem shorter than it was.
 */
export async function claimEra(rows: Rows, feed: Feed, schema: string): Promise<Era> {
  return rows.transaction(async (write) => {
    const match = { columns: ["stream"], values: [[feed.stream]] };
    const held = (await write.lock(STREAM_TABLE, match))[0];
    const state = await feed.ensureStream();
    if (held === undefined) {
      await write.insert(STREAM_TABLE, [
        { stream: feed.stream, epoch: "1", created: state.created, high_water: String(state.lastSequence), filled_epoch: "0" }]);
      return { epoch: 1, schema, filled: false };
    }
    const regressed = held["created"] !== state.created || state.lastSequence < Number(held["high_water"]);
    const epoch = Number(held["epoch"]) + (regressed ? 1 : 0);
    await write.update(STREAM_TABLE, [
      { ...held, epoch: String(epoch), created: state.created, high_water: String(state.lastSequence) }],
      ["epoch", "created", "high_water"]);
    return { epoch, schema, filled: Number(held["filled_epoch"]) === epoch };
  });
}

/** Notes that the stream was compared with the whole database in this epoch. */
export async function markFilled(rows: Rows, feed: Feed, epoch: number): Promise<void> {
  await rows.transaction((write) =>
    write.update(STREAM_TABLE, [{ stream: feed.stream, filled_epoch: String(epoch) }], ["filled_epoch"]));
}
