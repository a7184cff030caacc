/**
 * Asking the guard (capture/held.ts) about whole sets, kind by kind, before a site removes or rewrites anything that no change
 * of the stream told it to. What is held of one kind does not hold the others. Logs are not asked about: services prune them
 * by themselves, in any amount.
 */
import type { Blast } from "../capture/guard.ts";
import { listHeld, type Holding } from "../capture/held.ts";
import type { Feed } from "../feed/feed.ts";
import { filterOf } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import { keyFromText } from "../schemas/row.ts";
import type { Applier } from "./applier.ts";
import { removalOf } from "./received.ts";
import { kindOfName } from "./tally.ts";
import type { Version } from "../schemas/position.ts";

/** What would be done to one kind. */
export interface KindIntent {
  deletes: number;
  rewrites: number;
  /** Some of the aggregates, for a person to see. */
  readonly sample: string[];
}

const SAMPLE_MAX = 10;

/** Intents by kind. */
export class Intents {
  readonly byKind = new Map<string, KindIntent>();

  add(name: string, what: "deletes" | "rewrites"): void {
    const kind = kindOfName(name);
    let intent = this.byKind.get(kind);
    if (intent === undefined) this.byKind.set(kind, (intent = { deletes: 0, rewrites: 0, sample: [] }));
    intent[what] += 1;
    if (intent.sample.length < SAMPLE_MAX) intent.sample.push(name);
  }
}

export interface AdmissionRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly holding: Holding;
}

/** What the guard is told beside the intents. */
export interface Circumstances {
  readonly cause: Blast["cause"];
  /** Live aggregates of a kind at this site. */
  readonly live: (kind: string) => number;
  readonly sourceEmptied: boolean;
  /** Everything was compared: where there is no intent, there is no difference. */
  readonly complete: boolean;
}

/**
 * Kinds of `intents` that must not be touched now. After a complete comparison a kind that this cause held before, and that has
 * no intent any more, is told to the guard too, so that its note goes. @throws what the database throws
 */
export async function heldKinds(rooms: AdmissionRooms, intents: Intents,
  { cause, live, sourceEmptied, complete }: Circumstances): Promise<ReadonlySet<string>> {
  const held = new Set<string>();
  const asked = new Map(intents.byKind);
  for (const note of complete ? await rooms.rows.snapshot(listHeld) : []) {
    if (note.cause === cause && !asked.has(note.kind)) asked.set(note.kind, { deletes: 0, rewrites: 0, sample: [] });
  }
  for (const [kind, { deletes, rewrites, sample }] of asked) {
    if (rooms.service.kinds.get(kind)?.log !== undefined) continue;
    const blast: Blast = { kind, deletes, rewrites, live: live(kind), cause, sourceEmptied };
    if (!await rooms.holding.admit(blast, sample)) held.add(kind);
  }
  return held;
}

/** True when the stream has no live aggregate of a kind that is never empty: what it does not have proves nothing then. */
export async function isSourceEmptied(service: Service, scope: string, feed: Feed, signal: AbortSignal): Promise<boolean> {
  for (const kind of service.kinds.values()) {
    if (!kind.neverEmpty) continue;
    let isEmpty = true;
    const batches = feed.read({ filter: filterOf(service.name, scope, kind.name), after: 0, headersOnly: true, untilTip: true,
      batchMessagesMax: 1_000, batchBytesMax: 1 << 20 }, signal);
    for await (const batch of batches) {
      isEmpty = batch.every((message) => message.headers["Hf-Deleted"] === "1");
      if (!isEmpty) break;
    }
    if (isEmpty) return true;
  }
  return false;
}

/** An aggregate that is live here and should not be, with the version that the conclusion is about. */
export interface Surplus {
  readonly name: string;
  readonly version: Version;
}

/**
 * Removes aggregates, children first. A version that was applied meanwhile wins: the removal is of the version named and of no
 * other. What the database refuses because something still refers to it waits like any change.
 */
export async function removeSurplus(applier: Applier, service: Service, surplus: readonly Surplus[], changesMax: number,
  signal: AbortSignal): Promise<void> {
  const rankOf = ({ name }: Surplus): number => service.kinds.get(kindOfName(name))?.rank ?? 0;
  const ordered = [...surplus].sort((left, right) => rankOf(right) - rankOf(left));
  for (let from = 0; from < ordered.length && !signal.aborted; from += changesMax) {
    await applier.repair(ordered.slice(from, from + changesMax).map(({ name, version }) =>
      removalOf(service, keyFromText(name), version)), signal);
  }
}

/** Does `work` for every item, at most `lanes` at a time; what it gave, in order. */
export async function inLanes<T, R>(items: readonly T[], lanes: number, work: (item: T) => Promise<R>): Promise<readonly R[]> {
  const results: R[] = [];
  for (let from = 0; from < items.length; from += lanes) {
    results.push(...await Promise.all(items.slice(from, from + lanes).map(work)));
  }
  return results;
}
