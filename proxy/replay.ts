/**
 * Intents left open by an earlier life of this proxy (docs/protocol.md P8). A call that was answered has its aggregates in the
 * note, and they are looked at now and once more after settleMs. What became of any other is unknown, so what it may have changed
 * is read and published now and once more when it must have ended; new ids that nobody knows are found by comparing keys. A
 * damaged journal means a comparison of everything.
 */
import { captureOfUnknown } from "../capture/touches.ts";
import type { Before, CaptureRoom, Looked } from "../capture/capture.ts";
import { sleep } from "../core/clock.ts";
import type { Faults } from "../core/faults.ts";
import type { World } from "../core/world.ts";
import type { Service } from "../schemas/define.ts";
import { keyFromText, keyText } from "../schemas/row.ts";
import type { Intent, IntentNote, Journal } from "./intent.ts";
import { look, lookLate } from "./look.ts";

interface ReplayRooms {
  readonly world: World;
  readonly service: Service;
  readonly intents: Journal;
  readonly capture: CaptureRoom;
  readonly faults: Faults;
  /** How much later the rows of an answered call are looked at again, and those of a call with an unknown outcome. */
  readonly settleMs: number;
  readonly lateMs: number;
  readonly leaving: AbortSignal;
}

/** In place of a route, in the note of a call that was answered and captured once: its aggregates are known. */
const ANSWERED = "answered";

/** The note of a call that was answered and captured once: only these are left to be looked at again. */
export function whatToLookAt(looked: Looked): Partial<IntentNote> {
  return { capture: ANSWERED, parameters: {}, keys: looked.keys.map(keyText), scans: looked.logs };
}

async function replayIntent(intent: Intent, rooms: ReplayRooms): Promise<void> {
  const { capture: on, parameters, keys: names, scans, startedMs } = intent.note;
  const keys = names.map(keyFromText);
  if (on === ANSWERED) {
    // Its answer may be a moment old: a service that commits late is given the same time as in the life of the call.
    await rooms.capture.again({ keys, logs: scans });
    await sleep(rooms.world.clock, rooms.settleMs, rooms.leaving);
    await rooms.capture.again({ keys, logs: scans });
    if (!rooms.leaving.aborted) rooms.intents.close(intent);
    return;
  }
  const declared = rooms.service.captures.find((capture) => capture.on === on) ?? captureOfUnknown(rooms.service);
  const before: Before = { keys, names, scans: [], needless: [] };
  await look(declared, { parameters, request: undefined, answer: undefined }, before, rooms);
  const ageMs = Math.max(0, rooms.world.clock.nowMs() - startedMs);
  if (await lookLate(declared, parameters, before, Math.max(0, rooms.lateMs - ageMs), rooms)) rooms.intents.close(intent);
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
  await rooms.intents.repaired();
  rooms.faults.clear("E_INTENT_DAMAGED", "intents");
}
