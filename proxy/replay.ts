/**
 * Intents left open by an earlier life of this proxy (docs/protocol.md P8). What became of their calls is unknown, so what they may
 * have changed is read and published now and once more late; new ids that nobody knows are found by comparing keys. A damaged
 * journal means a comparison of everything.
 */
import { captureOfUnknown } from "../capture/touches.ts";
import type { Before, CaptureRoom } from "../capture/capture.ts";
import type { World } from "../core/world.ts";
import type { Service } from "../schemas/define.ts";
import { keyFromText } from "../schemas/row.ts";
import type { Intent, Journal } from "./intent.ts";
import { captureEffect } from "./mutation.ts";

interface ReplayRooms {
  readonly service: Service;
  readonly intents: Journal;
  readonly capture: CaptureRoom;
  readonly lateMs: number;
  readonly signal: AbortSignal;
}

async function replayIntent(intent: Intent, rooms: ReplayRooms, world: World): Promise<void> {
  const { capture: on, parameters, keys } = intent.note;
  const declared = rooms.service.captures.find((capture) => capture.on === on) ?? captureOfUnknown(rooms.service);
  const before: Before = { keys: keys.map(keyFromText), names: keys, scans: [], needless: [] };
  await captureEffect(declared, { parameters, request: undefined, answer: undefined }, before, "unknown", rooms, world);
  if (!rooms.signal.aborted) rooms.intents.close(intent);
}

/** Replays everything that was open; resolves when the last is closed, which waits through outages. */
export async function replayIntents(rooms: ReplayRooms, world: World): Promise<void> {
  const open = rooms.intents.opened();
  if (open.length > 0) world.log.info("replaying intents of an earlier life", { intents: open.length });
  const damaged = rooms.intents.damaged() ? rooms.capture.scanAll("images") : Promise.resolve();
  await Promise.all([damaged, ...open.map((intent) => replayIntent(intent, rooms, world))]);
}
