/**
 * STORY 1 of 3: what happens to a call. Every call is forwarded unchanged. A call that may change rows is noted durably before
 * the upstream may act, and afterwards the rows it may have changed are read from the database and published. The client never
 * waits for the feed, and no answer or failure of ours changes what it gets.
 *
 *   asked      what the call may take away: nothing is left to read afterwards
 *   noted      fsynced; if that fails the call is forwarded anyway (or refused, where configured) and a fault is raised
 *   forwarded  the answer streams down; the outcome is "unknown" when the upstream was lost on the way
 *   captured   rows → images → feed, through every outage; the intent is closed when the feed has them
 *
 * A crash at any line leaves an open intent, and an open intent is replayed at start (proxy/replay.ts; docs/protocol.md P1–P8).
 * Not here: which calls (route.ts), bytes (forward.ts), the journal (intent.ts), rows and messages (capture/).
 */
import type { Before, CaptureRoom } from "../capture/capture.ts";
import { untilTick } from "../capture/settle.ts";
import { sleep } from "../core/clock.ts";
import { isOperating } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import { factsOf } from "../core/log.ts";
import type { World } from "../core/world.ts";
import type { Capture } from "../schemas/define.ts";
import { effectOf } from "./effect.ts";
import type { Exchange } from "./exchange.ts";
import type { Forwarder, Relayed } from "./forward.ts";
import type { Intent, Journal } from "./intent.ts";
import { kindsOf, look, lookLate } from "./look.ts";
import { whatToLookAt } from "./replay.ts";

/** Bytes of a request and of an answer kept to find new ids; a longer body turns into a comparison of the kind. */
export const KEPT_BODY_BYTES = 256 * 1024;

/** The steps of a call, as they are counted; crash tests stop the process at each of them. */
export type Step = "asked" | "noted" | "forwarded" | "captured";

export interface MutationRooms {
  readonly world: World;
  readonly forward: Forwarder;
  readonly intents: Journal;
  readonly capture: CaptureRoom;
  readonly faults: Faults;
  /** While the journal cannot be written: "refuse" calls with 503, or "forward" them and rely on this process to live. */
  readonly whenUnwritable: "forward" | "refuse";
  /** How much later the rows of an answered call are looked at again, and those of a call with an unknown outcome. */
  readonly settleMs: number;
  readonly lateMs: number;
  /** Aborts when the process begins to stop: no long wait is held then, and the intents that need one stay open. */
  readonly leaving: AbortSignal;
}

/** A call that may change rows, with the parameters found in its path. */
export interface MutatingCall {
  readonly exchange: Exchange;
  readonly declared: Capture;
  readonly parameters: Readonly<Record<string, string>>;
}

/** Carries one mutating call to its answer; `captured` is the rest of the story, which goes on after the client has left. */
export async function carryMutation(call: MutatingCall, rooms: MutationRooms): Promise<{ readonly captured: Promise<void> }> {
  const step = (name: Step): void => rooms.world.metrics.count("holdfast_mutation_steps_total", 1, { step: name });
  const before = await ask(call, rooms);
  step("asked");
  const intent = await note(call, before, rooms);
  step("noted");
  const kept = { keepAnswerBytes: KEPT_BODY_BYTES, keepRequestBytes: KEPT_BODY_BYTES, mutates: true };
  const relayed = await rooms.forward.relay(call.exchange, kept);
  step("forwarded");
  const captured = captureCall(call, before, relayed, intent, rooms).then((isWhole) => {
    if (!isWhole) return;
    step("captured");
    if (intent !== undefined) rooms.intents.close(intent);
  });
  return { captured };
}

/** What the call may take away; undefined when the database cannot say, so that kinds are compared afterwards. */
async function ask(call: MutatingCall, rooms: MutationRooms): Promise<Before | undefined> {
  try {
    return await rooms.capture.before(call.declared, { parameters: call.parameters, request: undefined, answer: undefined });
  } catch (error) {
    if (!isOperating(error)) throw error;
    rooms.world.log.warn("a call is forwarded without asking what it may take away", { on: call.declared.on, ...factsOf(error) });
    return undefined;
  }
}

/** The durable note; undefined when the journal cannot be written. @throws E_INTENT_UNAVAILABLE when calls are refused then. */
async function note(call: MutatingCall, before: Before | undefined, rooms: MutationRooms): Promise<Intent | undefined> {
  const { on } = call.declared;
  try {
    const intent = await rooms.intents.open({ capture: on, parameters: call.parameters, keys: before?.names ?? [],
      scans: before?.scans ?? kindsOf(call.declared), startedMs: rooms.world.clock.nowMs() });
    rooms.faults.clear("E_INTENT_UNAVAILABLE", "intents");
    return intent;
  } catch (error) {
    if (!isOperating(error, "E_INTENT_UNAVAILABLE")) throw error;
    rooms.faults.raise(error.code, "intents", error.message, error.facts);
    if (rooms.whenUnwritable === "refuse") throw error;
    return undefined;
  }
}

/** False when the process began to stop before the last look: the intent must stay open for the next life. */
async function captureCall(call: MutatingCall, before: Before | undefined, relayed: Relayed, intent: Intent | undefined,
  rooms: MutationRooms): Promise<boolean> {
  const effect = effectOf(call.declared, relayed);
  if (effect === "none") return true;
  const answer = effect === "unknown" ? undefined : relayed.answer;
  const looked = await look(call.declared, { parameters: call.parameters, request: relayed.requestBody, answer }, before, rooms);
  if (effect === "unknown") return lookLate(call.declared, call.parameters, before, rooms.lateMs, rooms);
  if (intent !== undefined) rooms.intents.amend(intent, whatToLookAt(looked));
  await sleep(rooms.world.clock, untilTick(rooms.world.clock, rooms.settleMs), rooms.leaving);
  await rooms.capture.again(looked);
  return !rooms.leaving.aborted;
}
