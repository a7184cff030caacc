/**
 * The era that images are published under: the schema revision of the database and the epoch of the stream. The epoch lives in
 * the central database, so that it survives the loss of every stream server. It rises whenever sequences may have started
 * again: the stream was made anew, or it is shorter than it was, or the auditor found sequences used twice.
 *
 * Not here: how the auditor finds out (audit/), and what follows from a new epoch (capture.ts).
 */
import type { Feed } from "../feed/feed.ts";
import type { Rows } from "../rows/rows.ts";
import { declareTable } from "../schemas/define.ts";

/** At the centre: one row per stream. */
export const STREAM_TABLE = declareTable("holdfast_stream", {
  key: ["stream"],
  columns: { stream: "text", epoch: "bigint", created: "text", high_water: "bigint", filled_epoch: "bigint",
    lost_in: "bigint" },
});

export interface Era {
  readonly epoch: number;
  readonly schema: string;
  /** False until every aggregate of the database was compared with the stream once in this epoch. */
  readonly filled: boolean;
  /** The last epoch that began because the stream had lost something, 0 for none: older images may be what it went back to. */
  readonly lostIn: number;
}

/** What is known of the stream beside its state: the highest epoch of any message seen in it. */
export interface Seen {
  readonly epoch: number;
}

/**
 * Makes the stream if it is missing and decides its epoch, in one transaction. The stream is looked at under the row's lock:
 * looked at before, another proxy's later high-water mark would make it seem shorter than it was.
 *
 * A message of a later epoch than the database knows proves that the database was restored to an older state: the epoch goes
 * above both.
 */
export async function claimEra(rows: Rows, feed: Feed, schema: string, seen: Seen = { epoch: 0 }): Promise<Era> {
  return rows.transaction(async (write) => {
    const match = { columns: ["stream"], values: [[feed.stream]] };
    const held = (await write.lock(STREAM_TABLE, match))[0];
    const state = await feed.ensureStream();
    if (held === undefined) {
      const epoch = seen.epoch + 1;
      await write.insert(STREAM_TABLE, [{ stream: feed.stream, epoch: String(epoch), created: state.created,
        high_water: String(state.lastSequence), filled_epoch: "0", lost_in: "0" }]);
      return { epoch, schema, filled: false, lostIn: 0 };
    }
    const known = Number(held["epoch"]);
    const regressed = held["created"] !== state.created || state.lastSequence < Number(held["high_water"]);
    const epoch = Math.max(known + (regressed ? 1 : 0), seen.epoch > known ? seen.epoch + 1 : 0);
    // The database's own loss explains nothing about the stream.
    const lostIn = regressed && seen.epoch <= known ? epoch : Number(held["lost_in"]);
    await write.update(STREAM_TABLE, [{ ...held, epoch: String(epoch), created: state.created,
      high_water: String(state.lastSequence), lost_in: String(lostIn) }], ["epoch", "created", "high_water", "lost_in"]);
    return { epoch, schema, filled: Number(held["filled_epoch"]) === epoch, lostIn };
  });
}

/** Why an epoch is raised: the stream has lost something, or the database, whose word alone counts for less then. */
export type Loser = "stream" | "database";

/**
 * Raises the epoch to at least `least`, unless somebody has raised it above `from` already. Takes note of the stream as it is
 * now, so that nobody raises it a second time for the same loss.
 */
export async function raiseEra(rows: Rows, feed: Feed, schema: string,
  { from, least, loser }: { readonly from: number; readonly least: number; readonly loser: Loser }): Promise<Era> {
  return rows.transaction(async (write) => {
    const held = (await write.lock(STREAM_TABLE, { columns: ["stream"], values: [[feed.stream]] }))[0];
    const state = await feed.ensureStream();
    const known = Number(held?.["epoch"] ?? from);
    const isRaised = known > from && held?.["created"] === state.created && state.lastSequence >= Number(held["high_water"]);
    const epoch = Math.max(isRaised ? known : known + 1, least);
    const lostIn = loser === "stream" ? epoch : Number(held?.["lost_in"] ?? 0);
    const row = { stream: feed.stream, epoch: String(epoch), created: state.created, high_water: String(state.lastSequence),
      lost_in: String(lostIn) };
    if (held === undefined) await write.insert(STREAM_TABLE, [{ ...row, filled_epoch: "0" }]);
    else await write.update(STREAM_TABLE, [row], ["epoch", "created", "high_water", "lost_in"]);
    return { epoch, schema, filled: Number(held?.["filled_epoch"] ?? 0) === epoch, lostIn };
  });
}

/** Notes that the stream was compared with the whole database in this epoch; says nothing about an epoch that is over. */
export async function markFilled(rows: Rows, feed: Feed, epoch: number): Promise<void> {
  await rows.transaction(async (write) => {
    const held = (await write.lock(STREAM_TABLE, { columns: ["stream"], values: [[feed.stream]] }))[0];
    if (held === undefined || Number(held["epoch"]) !== epoch) return;
    await write.update(STREAM_TABLE, [{ ...held, filled_epoch: String(epoch) }], ["filled_epoch"]);
  });
}
