/**
 * Looks at the rows that a call may have changed: at once, and once more when a call whose outcome is unknown must have ended.
 * The same for calls of this life and for intents of an earlier one.
 */
import type { Before, CaptureRoom, Looked } from "../capture/capture.ts";
import type { CallFacts } from "../capture/touches.ts";
import { sleep } from "../core/clock.ts";
import type { World } from "../core/world.ts";
import type { Capture } from "../schemas/define.ts";

export interface LookRooms {
  readonly world: World;
  readonly capture: CaptureRoom;
  /** Aborts when the process begins to stop: no long wait is held then. */
  readonly leaving: AbortSignal;
}

/** Reads and publishes what a call may have changed. Waits through outages; never resolves once capture has stopped. */
export async function look(declared: Capture, facts: CallFacts, before: Before | undefined,
  rooms: LookRooms): Promise<Looked> {
  const looked = await rooms.capture.after(declared, facts, before);
  if (before === undefined) await Promise.all(kindsOf(declared).map((kind) => rooms.capture.scan(kind, "keys")));
  return looked;
}

/** The second look at a call with an unknown outcome, after `delayMs`; false when the process began to stop before it. */
export async function lookLate(declared: Capture, parameters: CallFacts["parameters"], before: Before | undefined,
  delayMs: number,
  rooms: LookRooms): Promise<boolean> {
  await sleep(rooms.world.clock, delayMs, rooms.leaving);
  if (rooms.leaving.aborted) return false;
  await look(declared, { parameters, request: undefined, answer: undefined }, before, rooms);
  return true;
}

/** The kinds that a capture names. */
export function kindsOf(declared: Capture): readonly string[] {
  return [...new Set(declared.touches.map((touch) => touch.kind))];
}
