/**
 * Intents left open by an earlier life of this proxy (docs/protocol.md P8). What became of their calls is unknown, so what they
 * may have changed is read and published now and once more late; new ids that nobody knows are found by comparing keys. A
 * damaged journal means a comparison of everything.
 */
import { captureOfUnknown } from "../capture/touches.ts";
import type { Before, CaptureRoom } from "../capture/capture.ts";
import type { Faults } from "../core/faults.ts";
import type { World } from "../core/world.ts";
import type { Service } from "../schemas/define.ts";
import { keyFromText } from "../schemas/row.ts";
import type { Intent, Journal } from "./intent.ts";
import { captureEffect } from "./mutation.ts";

interface ReplayRooms {
  readonly world: World;
  readonly service: Service;
  readonly intents: Journal;
  readonly capture: CaptureRoom;
  readonly faults: Faults;
  readonly lateMs: number;
  readonly signal: AbortSignal;
}

async function replayIntent(intent: Intent, rooms: ReplayRooms): Promise<void> {
  const { capture: on, parameters, keys } = intent.note;
  const declared = rooms.service.captures.find((capture) => capture.on === on) ?? captureOfUnknown(rooms.service);
  const before: Before = { keys: keys.map(keyFromText), names: keys, scans: [], needless: [] };
  await captureEffect(declared, { parameters, request: undefined, answer: undefined }, before, "unknown", rooms);
  if (!rooms.signal.aborted) rooms.intents.close(intent);
}

/** Replays everything that was open; resolves when the last is closed, which waits through outages. */
export async function replayIntents(rooms: ReplayRooms): Promise<void> {
  const open = rooms.intents.opened();
  if (open.length > 0) rooms.world.log.info("replaying intents of an earlier life", { intents: open.length });
  await Promise.all([repairJournal(rooms), ...open.map((intent) => replayIntent(intent, rooms))]);
}

/** Records were lost: nobody knows which calls, so everything is compared before the damage is put away. */
async function repairJournal(rooms: ReplayRooms): Promise<void> {
  if (!rooms.intents.damaged()) return;
  rooms.faults.raise("E_INTENT_DAMAGED", "intents", "records of the intent journal were lost; the whole service is compared");
  await rooms.capture.scanAll("images");
  if (rooms.signal.aborted) return;
  await rooms.intents.repaired();
  rooms.faults.clear("E_INTENT_DAMAGED", "intents");
}
