/**
 * What a site has heard of the centre's heartbeats, and what a heartbeat proves. The last one heard is stored with the position
 * it was passed at, in one transaction: so "I have passed this place and did not hear this there" is a fact and no memory.
 *
 * A stream whose sequences went back (a server that lost its end, a restored store, a stream made anew) gives no error: a
 * reader beyond the end waits, or gets other messages under numbers it has had (follow.ts sees that by itself). Three things
 * prove that what was read is not what is there (docs/protocol.md E2): a higher epoch; a later heartbeat at a place that was
 * passed already; a floor above the last place that was certainly read before the floor rose.
 *
 * Not here: asking for heartbeats and noticing their absence (hearing.ts), what follows (follow.ts).
 */
import type { RowReader, RowWriter } from "../rows/rows.ts";
import { declareTable } from "../schemas/define.ts";
import type { Heartbeat } from "../schemas/manifest.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import type { SitePosition } from "./ledger.ts";

export const HEARD_TABLE = declareTable("holdfast_heard", {
  key: ["stream"],
  columns: { stream: "text", epoch: "bigint", n: "bigint", sequence: "bigint", filled: "boolean", floor_epoch: "bigint",
    floor_sequence: "bigint", passed_ms: "bigint" },
});

/** A heartbeat at its place in the stream. */
export interface PlacedHeartbeat extends Heartbeat {
  /** Its own sequence. */
  readonly sequence: number;
}

/** What is stored of the last heartbeat that the position has passed. */
export interface Heard extends Pick<PlacedHeartbeat, "epoch" | "n" | "sequence" | "filled" | "floor"> {
  /** When it was passed, by this site's clock; for people, like every age. */
  readonly passedMs?: number | undefined;
}

/** Why the position is worth nothing any more. */
export type Regression = "epoch" | "sequences" | "floor";

/**
 * Does this heartbeat prove that the stream is not the one that was read up to `position`? `heard` is what the position has
 * passed; undefined: no heartbeat ever, and then the first one only teaches its number.
 *
 * Tombstones are collected only after a heartbeat named their floor. Everything up to the heartbeat before was therefore read
 * while its tombstones were there; what lies between the two may have been read too late, wherever the position is by now.
 */
export function hasRegressed(position: Version, heard: Heard | undefined, heartbeat: PlacedHeartbeat): Regression | undefined {
  if (position.epoch > 0 && heartbeat.epoch > position.epoch) return "epoch";
  if (heard !== undefined && heartbeat.n > heard.n && heartbeat.sequence <= position.sequence) return "sequences";
  const certain = { epoch: position.epoch, sequence: Math.min(position.sequence, heard?.sequence ?? position.sequence) };
  return compareVersions(certain, heartbeat.floor) < 0 ? "floor" : undefined;
}

/**
 * Has everything that the centre has been read here? True once the position has passed a heartbeat of its epoch that says that
 * all of the database is on the stream. Before that a row without an image proves nothing: its image may still be published.
 */
export function hasReadAll(position: SitePosition | undefined, heard: Heard | undefined): boolean {
  return position !== undefined && position.mode !== "fill" && heard?.filled === true && heard.epoch === position.epoch &&
    heard.sequence <= position.sequence;
}

/** The last heartbeat heard of a stream; undefined when there was none. */
export async function readHeard(read: RowReader, stream: string): Promise<Heard | undefined> {
  const row = (await read.select(HEARD_TABLE, { columns: ["stream"], values: [[stream]] }))[0];
  return row === undefined ? undefined : { epoch: Number(row["epoch"]), n: Number(row["n"]), sequence: Number(row["sequence"]),
    filled: row["filled"] === true,
    floor: { epoch: Number(row["floor_epoch"]), sequence: Number(row["floor_sequence"]) },
    ...(row["passed_ms"] === "0" ? {} : { passedMs: Number(row["passed_ms"]) }) };
}

/** Notes a heartbeat as heard, in the transaction that moves the position past it. */
export async function noteHeard(write: RowWriter, stream: string, heard: Heard): Promise<void> {
  const row = { stream, epoch: String(heard.epoch), n: String(heard.n), sequence: String(heard.sequence), filled: heard.filled,
    floor_epoch: String(heard.floor.epoch), floor_sequence: String(heard.floor.sequence),
    passed_ms: String(heard.passedMs ?? 0) };
  const known = await write.lock(HEARD_TABLE, { columns: ["stream"], values: [[stream]] });
  if (known.length === 0) await write.insert(HEARD_TABLE, [row]);
  else await write.update(HEARD_TABLE, [row], ["epoch", "n", "sequence", "filled", "floor_epoch", "floor_sequence",
    "passed_ms"]);
}
