/**
 * The sweep after a fill: what the site has and the stream has not. A stream that was made anew has no tombstones of what was
 * deleted while there was none, and old tombstones are collected; a fill alone would leave those aggregates for ever.
 *
 * An absence counts only when the centre has said that the whole database is on the stream (a heartbeat with `filled` in the
 * position's epoch), the name was in none of the headers read from 0 to the end, and the subject, asked by itself afterwards,
 * has no message; and all of this twice, with another heartbeat of that epoch between: a stream that has just lost its end lacks
 * what is alive, and the auditor says nothing more in an epoch that it found to be over. Last, the auditor is asked whether the
 * central database has it (confirm.ts). The headers are read by the sweep itself and not remembered from the fill, so that a
 * sweep that is due survives a crash: only its being due is stored (mode "sweep"). A change that waits or is quarantined and is
 * not on the stream any more is forgotten by the same proof: it would come back to life when what it waits for appears.
 *
 * Bounds: 16 bytes a name on the stream (names-seen.ts), SURPLUS_MAX aggregates removed in one go, LANES questions at a time.
 * Not here: when it is due (upkeep.ts), the judgement whether it is too much (capture/guard.ts).
 */
import type { World } from "../core/world.ts";
import type { Feed } from "../feed/feed.ts";
import { filterOf, keyOfSubject, subjectPrefix } from "../feed/subjects.ts";
import { hashOfName } from "../schemas/manifest.ts";
import { keyFromText, keyText } from "../schemas/row.ts";
import { heldKinds, inLanes, Intents, removeSurplus, type AdmissionRooms, type Surplus } from "./admission.ts";
import type { Applier } from "./applier.ts";
import { confirmGone, type ConfirmRooms } from "./confirm.ts";
import { readAllApplied } from "./ledger.ts";
import { NamesSeen } from "./names-seen.ts";
import { kindOfName } from "./tally.ts";

/** Aggregates removed by one sweep at most; the next one takes the rest. */
const SURPLUS_MAX = 100_000;
/** Questions to the stream server under way at once. */
const LANES = 32;
const ASK_TIMEOUT_MS = 5_000;
const READ_MESSAGES_MAX = 1_000;
const READ_BYTES_MAX = 1 << 20;

/**
 * "held": a person has to decide about some of it. "more": there is more than one sweep takes. "unproven": some of it was not
 * found absent before, and nothing was removed. "unanswered": nobody at the centre said what its database has.
 */
export type SweepOutcome = "done" | "held" | "more" | "interrupted" | "unproven" | "unanswered";

/** What an earlier sweep found absent. */
export interface Absences {
  /** Told of every name that is absent now. */
  note(name: string): void;
  /** True when it was absent at an earlier heartbeat, too. */
  isProven(name: string): boolean;
}

export interface SweepRooms extends AdmissionRooms, ConfirmRooms {
  readonly scope: string;
  readonly feed: Feed;
  readonly absences: Absences;
}

interface Seen {
  readonly names: NamesSeen;
  /** Kinds with a live aggregate on the stream. */
  readonly liveKinds: ReadonlySet<string>;
}

/** Compares and removes, as the file's head says. @throws what the feed and the database throw */
export async function sweepSite(rooms: SweepRooms, world: World, applier: Applier, changesMax: number,
  signal: AbortSignal): Promise<SweepOutcome> {
  const { service } = rooms;
  const seen = await readNames(rooms, signal);
  // A reading that was told to stop has not seen everything.
  if (signal.aborted) return "interrupted";
  const intents = new Intents();
  const unseen = await unseenOf(rooms, seen.names, intents);
  const absentHere = await absentOf(rooms, unseen, ({ name }) => name);
  const unseenWaiting = [...applier.waitingNames()].filter((name) => !seen.names.has(hashOfName(name)));
  const waitingHere = await absentOf(rooms, unseenWaiting, (name) => name);
  if (signal.aborted) return "interrupted";
  const absent = [...absentHere.map(({ name }) => name), ...waitingHere];
  for (const name of absent) rooms.absences.note(name);
  if (!absent.every((name) => rooms.absences.isProven(name))) return "unproven";
  const gone = await confirmGone(rooms, absent, applier.position.epoch, ASK_TIMEOUT_MS, signal);
  if (gone === undefined) return "unanswered";
  if (signal.aborted) return "interrupted";
  const surplus = absentHere.filter(({ name }) => gone.has(name));
  const waiting = waitingHere.filter((name) => gone.has(name));
  await applier.tally.ensure(rooms.rows);
  for (const { name } of surplus) intents.add(name, "deletes");
  const held = await heldKinds(rooms, intents, { cause: "sweep", live: (kind) => applier.tally.liveOf(kind), complete: true,
    sourceEmptied: [...service.kinds.values()].some((kind) => kind.neverEmpty && !seen.liveKinds.has(kind.name)) });
  const removed = surplus.filter(({ name }) => !held.has(kindOfName(name)));
  await removeSurplus(applier, service, removed, changesMax, signal);
  for (let from = 0; from < waiting.length && !signal.aborted; from += changesMax) {
    const some = waiting.slice(from, from + changesMax).filter((name) => !held.has(kindOfName(name)) && applier.waits(name));
    await applier.drop(some.map(keyFromText));
  }
  world.metrics.count("holdfast_swept_aggregates_total", removed.length, { service: service.name });
  world.log.info("what the stream does not have was swept", { service: service.name, stream: seen.names.size,
    removed: removed.length, held: surplus.length - removed.length });
  if (signal.aborted) return "interrupted";
  if (held.size > 0) return "held";
  return unseen.length < SURPLUS_MAX ? "done" : "more";
}

/** Those of `items` whose subject has no message. */
async function absentOf<T>({ service, scope, feed }: Omit<SweepRooms, "absences">, items: readonly T[],
  nameOf: (item: T) => string): Promise<readonly T[]> {
  const prefix = subjectPrefix(service.name, scope);
  const messages = await inLanes(items, LANES, (item) => feed.last(`${prefix}.${nameOf(item)}`));
  return items.filter((_, place) => messages[place] === undefined);
}

/** Every name on the stream, tombstones included: what a tombstone is about is the tail's business. */
async function readNames({ service, scope, feed }: SweepRooms, signal: AbortSignal): Promise<Seen> {
  const names = new NamesSeen();
  const liveKinds = new Set<string>();
  const batches = feed.read({ filter: filterOf(service.name, scope), after: 0, headersOnly: true, untilTip: true,
    batchMessagesMax: READ_MESSAGES_MAX, batchBytesMax: READ_BYTES_MAX }, signal);
  for await (const batch of batches) {
    for (const message of batch) {
      const key = keyOfSubject(message.subject);
      if (key === undefined) continue;
      names.add(hashOfName(keyText(key)));
      if (message.headers["Hf-Deleted"] !== "1") liveKinds.add(key.kind);
    }
  }
  return { names, liveKinds };
}

/** Live aggregates that were not seen; those beyond the bound are only counted, for the guard. */
async function unseenOf({ rows }: SweepRooms, names: NamesSeen, beyond: Intents): Promise<readonly Surplus[]> {
  const unseen: Surplus[] = [];
  for await (const page of readAllApplied(rows)) {
    for (const { hash, name, deleted, epoch, sequence } of page) {
      if (deleted || names.has(hash)) continue;
      if (unseen.length < SURPLUS_MAX) unseen.push({ name, version: { epoch, sequence } });
      else beyond.add(name, "deletes");
    }
  }
  return unseen;
}
