/**
 * What is held at the centre: the notes, a person's decisions, and the auditor's part in them: it watches for releases, whoever
 * decided, and compares a released kind at once. Not here: what is held and why (capture/held.ts), what sites hold (operations.ts
 * passes those questions on).
 */
import { OperatingError } from "../core/errors.ts";
import type { JsonValue } from "../core/operation.ts";
import { decideHeld, HELD_TABLE, listHeld, type HeldNote } from "../capture/held.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";

export interface HoldingsRooms {
  readonly service: Service;
  readonly rows: Rows;
}

function shown(service: Service, note: HeldNote): JsonValue {
  return { ...note, service: service.name, site: null };
}

/** Every note of the central database, for a person. @throws E_ROWS_UNAVAILABLE */
export async function heldAtCentre({ service, rows }: HoldingsRooms): Promise<readonly JsonValue[]> {
  await rows.ensureTables([HELD_TABLE]);
  return (await rows.snapshot(listHeld)).map((note) => shown(service, note));
}

/** A person's decision. @throws E_OPERATION_INPUT when nothing of the kind is held */
export async function decideAtCentre({ service, rows }: HoldingsRooms, kind: string,
  state: "released" | "rejected"): Promise<JsonValue> {
  await rows.ensureTables([HELD_TABLE]);
  const note = await rows.transaction((write) => decideHeld(write, kind, state));
  if (note === undefined) throw new OperatingError("E_OPERATION_INPUT", `nothing of ${service.name} ${kind} is held here`);
  return shown(service, note);
}

/** Kinds that were released and not compared since. @throws E_ROWS_UNAVAILABLE */
export async function releasedKinds({ service, rows }: HoldingsRooms): Promise<readonly string[]> {
  const notes = await rows.snapshot(listHeld);
  return notes.filter(({ kind, state }) => state === "released" && service.kinds.has(kind)).map(({ kind }) => kind);
}
