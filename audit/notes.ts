/**
 * What the auditor keeps in the central database, because it must outlive the stream: the last heartbeat number that was given
 * out, the last one that the stream acknowledged and where, and the floor below which tombstones may be gone.
 *
 * Invariants: a number is given out once, and stored before it is said; the floor only rises; an acknowledgement is noted after
 * the stream gave it, so what is noted here was in the stream. Several auditors share the row under its lock.
 * Not here: what follows from comparing it with the stream (regression.ts).
 */
import type { RowReader, RowWriter, Rows } from "../rows/rows.ts";
import { STREAM_TABLE } from "../capture/era.ts";
import { declareTable } from "../schemas/define.ts";
import { compareVersions, type Version } from "../schemas/position.ts";
import type { Row } from "../schemas/row.ts";

/** At the centre: one row per stream. */
export const AUDIT_TABLE = declareTable("holdfast_audit", {
  key: ["stream"],
  columns: { stream: "text", heartbeat: "bigint", acknowledged: "bigint", acknowledged_epoch: "bigint",
    heartbeat_sequence: "bigint", floor_epoch: "bigint", floor_sequence: "bigint" },
});

export interface AuditNote {
  /** Last heartbeat number given out; 0: none. */
  readonly heartbeat: number;
  /** Last heartbeat that the stream acknowledged: its number, and the version at which it was stored. */
  readonly acknowledged: number;
  readonly acknowledgedAt: Version;
  readonly floor: Version;
}

export const FIRST_NOTE: AuditNote = { heartbeat: 0, acknowledged: 0, acknowledgedAt: { epoch: 0, sequence: 0 },
  floor: { epoch: 0, sequence: 0 } };

function noteOf(row: Row | undefined): AuditNote {
  if (row === undefined) return FIRST_NOTE;
  const number = (column: string): number => Number(row[column] ?? 0);
  return { heartbeat: number("heartbeat"), acknowledged: number("acknowledged"),
    acknowledgedAt: { epoch: number("acknowledged_epoch"), sequence: number("heartbeat_sequence") },
    floor: { epoch: number("floor_epoch"), sequence: number("floor_sequence") } };
}

function rowOf(stream: string, note: AuditNote): Row {
  return { stream, heartbeat: String(note.heartbeat), acknowledged: String(note.acknowledged),
    acknowledged_epoch: String(note.acknowledgedAt.epoch), heartbeat_sequence: String(note.acknowledgedAt.sequence),
    floor_epoch: String(note.floor.epoch), floor_sequence: String(note.floor.sequence) };
}

const matchOf = (stream: string) => ({ columns: ["stream"], values: [[stream]] });

async function readIn(read: RowReader, stream: string): Promise<AuditNote> {
  return noteOf((await read.select(AUDIT_TABLE, matchOf(stream)))[0]);
}

/** The note as it is; FIRST_NOTE before the first heartbeat. */
export function readNote(rows: Rows, stream: string): Promise<AuditNote> {
  return rows.snapshot((read) => readIn(read, stream));
}

/** The epoch that the database holds for the stream now; 0 when it holds none. */
export async function epochInDatabase(rows: Rows, stream: string): Promise<number> {
  const row = (await rows.snapshot((read) => read.select(STREAM_TABLE, matchOf(stream))))[0];
  return Number(row?.["epoch"] ?? 0);
}

/** Changes the note under its lock; gives what is stored then. @throws E_ROWS_UNIQUE when another auditor made it just now */
function change(rows: Rows, stream: string, changed: (note: AuditNote) => AuditNote): Promise<AuditNote> {
  return rows.transaction(async (write: RowWriter) => {
    const row = (await write.lock(AUDIT_TABLE, matchOf(stream)))[0];
    const note = changed(noteOf(row));
    const columns = Object.keys(AUDIT_TABLE.columns).filter((column) => column !== "stream");
    if (row === undefined) await write.insert(AUDIT_TABLE, [rowOf(stream, note)]);
    else await write.update(AUDIT_TABLE, [rowOf(stream, note)], columns);
    return note;
  });
}

/** Gives out the next heartbeat number: above every one given out here and above `inStream`. */
export function nextHeartbeat(rows: Rows, stream: string, inStream: number): Promise<AuditNote> {
  return change(rows, stream, (note) => ({ ...note, heartbeat: Math.max(note.heartbeat, inStream) + 1 }));
}

/** Notes that the stream has heartbeat `n` at `at`. */
export function noteAcknowledged(rows: Rows, stream: string, n: number, at: Version): Promise<AuditNote> {
  return change(rows, stream, (note) => (n > note.acknowledged ? { ...note, acknowledged: n, acknowledgedAt: at } : note));
}

/** Raises the floor to `floor`, never lowers it. */
export function raiseFloor(rows: Rows, stream: string, floor: Version): Promise<AuditNote> {
  return change(rows, stream, (note) => (compareVersions(floor, note.floor) > 0 ? { ...note, floor } : note));
}
