/**
 * What a site does when it is asked, for one service. Asked by the centre over the feed, or by a person at this machine.
 *
 *   states {entries: [[name, digest]…], mask}    how these aggregates stand here, beside the centre's digests:
 *          → {position, answered, states: [{name, what: "different" | "missing", version, waits, rows}]}
 *            Equal ones are left out. answered: how many of the entries this speaks of; ask again for the rest. rows: as they are
 *            here, secrets masked with `mask`, undone where a column of this database can only keep less (so that what differs
 *            is a difference); null when missing or too large. waits: why a newer change has not been applied, or null.
 *   names {kind, after?, limit?}                 which aggregates have rows here: {names: [[name, digest | null]…], next | null}
 *            digest null: nothing was ever applied under this name. next: pass it as `after`.
 *   resync, rowaudit                             read everything anew; one pass of the row audit, with its report
 *   quarantine.list|show|retry|drop {name}       changes that the database refused
 *   held.list|release|reject {kind}              what waits for a person's word
 *   drift.list {after?, limit?}                  rows that were overwritten by repairs, newest pages last
 *
 * Invariants: input is checked here; no secret leaves unmasked; everything may be asked twice.
 * Bounds: entries, pages and the characters of an answer; see the constants.
 */
import { decideHeld, listHeld, type HeldNote } from "../capture/held.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Input, JsonValue, Operation, Operations } from "../core/operation.ts";
import type { World } from "../core/world.ts";
import type { Service } from "../schemas/define.ts";
import { maskedRows } from "../schemas/masking.ts";
import type { Version } from "../schemas/position.ts";
import { keyFromText, keyText, type AggregateKey, type ImageRows } from "../schemas/row.ts";
import { DRIFT_TABLE, listDrift } from "./drift.ts";
import type { Follower } from "./follow.ts";
import { QUARANTINE_TABLE, readWaiting, readWaitingOf, type Waiting } from "./ledger.ts";
import { receiveAgain } from "./received.ts";
import type { RowAudit } from "./row-audit.ts";
import { namesHere, statesOf, type StateRooms } from "./states.ts";

/** Aggregates in one question. */
const ENTRIES_MAX = 1_000;
/** Names in one answer, and notes in a list. */
const LIST_MAX = 1_000;
/** Notes of drift in one answer: each may hold many rows. */
const DRIFT_NOTES_MAX = 3;
const MASK_CHARACTERS_MIN = 22;

export interface SiteOperationRooms extends StateRooms {
  readonly site: string;
  readonly follower: Pick<Follower, "withApplier" | "resync" | "sweep" | "status">;
  readonly rowAudit: Pick<RowAudit, "runNow" | "wake">;
}

function refuse(message: string): OperatingError {
  return new OperatingError("E_OPERATION_INPUT", message);
}

function textIn(input: Input, name: string): string {
  const value = input[name];
  if (typeof value === "string" && value !== "") return value;
  throw refuse(`"${name}" has to be a text`);
}

function limitIn(input: Input): number {
  const limit = input["limit"] ?? LIST_MAX;
  if (typeof limit === "number" && Number.isInteger(limit) && limit >= 1 && limit <= LIST_MAX) return limit;
  throw refuse(`"limit" has to be a number from 1 to ${LIST_MAX}`);
}

function kindIn(service: Service, input: Input): string {
  const kind = textIn(input, "kind");
  if (service.kinds.has(kind)) return kind;
  throw refuse(`${service.name} has no kind "${kind}"`);
}

function keyIn(service: Service, name: JsonValue | undefined): AggregateKey {
  if (typeof name === "string" && name !== "") {
    const key = keyFromText(name);
    if (service.kinds.get(key.kind)?.key.length === key.values.length && keyText(key) === name) return key;
  }
  throw refuse(`"${String(name)}" is not the name of an aggregate of ${service.name}`);
}

function entriesIn(service: Service, input: Input): readonly (readonly [string, string])[] {
  const entries = input["entries"];
  const isList = Array.isArray(entries) && entries.length <= ENTRIES_MAX;
  if (!isList) throw refuse(`"entries" has to be a list of at most ${ENTRIES_MAX}`);
  return entries.map((entry: JsonValue) => {
    if (!Array.isArray(entry) || typeof entry[1] !== "string") throw refuse('an entry has to be [name, digest]');
    const [name, digest] = entry as readonly JsonValue[];
    return [keyText(keyIn(service, name)), String(digest)];
  });
}

/** A version for a person. */
function versionText({ epoch, sequence }: Version): string {
  return `${epoch}.${sequence}`;
}

/** The operations of one service at this site, by name. */
export function siteOperations(rooms: SiteOperationRooms, world: World): Operations {
  const { service, site } = rooms;
  const forUs = (work: Operation): Operation => async (input, progress, signal) => {
    if (input["site"] !== undefined && input["site"] !== site) throw refuse(`this is ${site}, not ${String(input["site"])}`);
    if (input["service"] !== undefined && input["service"] !== service.name) throw refuse(`this is ${service.name} alone`);
    return work(input, progress, signal);
  };
  const operations: Readonly<Record<string, Operation>> = {
    states: (input) => {
      const mask = textIn(input, "mask");
      if (mask.length < MASK_CHARACTERS_MIN) throw refuse(`"mask" has to have at least ${MASK_CHARACTERS_MIN} characters`);
      return statesOf(rooms, entriesIn(service, input), mask, versionText(rooms.follower.status()));
    },
    names: (input) => namesHere(rooms, kindIn(service, input), input["after"], limitIn(input)),
    resync: async () => {
      await rooms.follower.resync();
      return { site, service: service.name, started: true };
    },
    rowaudit: async (_input, progress, signal) => ({ site, ...await rooms.rowAudit.runNow(progress, signal) }),
    ...quarantineOperations(rooms, world),
    ...heldOperations(rooms),
    "drift.list": (input) => driftList(rooms, world, input),
  };
  return new Map(Object.entries(operations).map(([name, work]) => [name, forUs(work)]));
}

function quarantineOperations(rooms: SiteOperationRooms, world: World): Readonly<Record<string, Operation>> {
  const { service, rows, follower } = rooms;
  const find = async (input: Input): Promise<Waiting> => {
    const key = keyIn(service, input["name"]);
    const [waiting] = await rows.snapshot((read) => readWaitingOf(read, QUARANTINE_TABLE, [key]));
    if (waiting === undefined) throw refuse(`${keyText(key)} is not quarantined`);
    return waiting;
  };
  return {
    "quarantine.list": async (input) => {
      const limit = limitIn(input);
      const entries: JsonValue[] = [];
      for await (const page of readWaiting((work) => rows.snapshot(work), QUARANTINE_TABLE)) {
        entries.push(...page.slice(0, limit + 1 - entries.length).map(entryOf));
        if (entries.length > limit) break;
      }
      return { site: rooms.site, service: service.name, entries: entries.slice(0, limit), more: entries.length > limit };
    },
    "quarantine.show": async (input) => {
      const waiting = await find(input);
      const arrival = receiveAgain(service, waiting);
      const image = arrival.kind === "change" ? maskedRows(service, arrival.change.image.rows, world.random.id()) : undefined;
      // What cannot be read as a change may have secrets anywhere: it is not shown.
      return { site: rooms.site, service: service.name, ...entryOf(waiting), image: image ?? null,
        readable: arrival.kind === "change" };
    },
    "quarantine.retry": async (input) => {
      const { key } = await find(input);
      await follower.withApplier((applier, signal) => applier.retryQuarantined([key], signal));
      const [still] = await rows.snapshot((read) => readWaitingOf(read, QUARANTINE_TABLE, [key]));
      const outcome = still === undefined ? "applied, or waiting for rows it refers to" : `quarantined again: ${still.code}`;
      return { site: rooms.site, service: service.name, name: keyText(key), outcome };
    },
    "quarantine.drop": async (input) => {
      const { key, version } = await find(input);
      await follower.withApplier((applier) => applier.drop([key]));
      return { site: rooms.site, service: service.name, name: keyText(key),
        outcome: `dropped in version ${versionText(version)}; the next manifest check finds that it is not applied here and ` +
          "tries it again, unless the centre has something newer by then" };
    },
  };
}

function entryOf(waiting: Waiting): { readonly [name: string]: JsonValue } {
  return { name: keyText(waiting.key), code: waiting.code, reason: waiting.reason, since: waiting.since,
    version: versionText(waiting.version), deleted: waiting.payload === undefined };
}

function heldOperations(rooms: SiteOperationRooms): Readonly<Record<string, Operation>> {
  const { service, site, rows, follower, rowAudit } = rooms;
  const shown = (note: HeldNote): JsonValue => ({ ...note, site, service: service.name });
  const decide = (state: "released" | "rejected"): Operation => async (input) => {
    const kind = kindIn(service, input);
    const note = await rows.transaction((write) => decideHeld(write, kind, state));
    if (note === undefined) throw refuse(`nothing of ${kind} is held here`);
    // Whoever was held looks again; a manifest check does with the next manifest.
    if (note.cause === "drift") rowAudit.wake();
    if (note.cause === "sweep") await follower.sweep();
    return shown(note);
  };
  return {
    "held.list": async () => (await rows.snapshot(listHeld)).map(shown),
    "held.release": decide("released"),
    "held.reject": decide("rejected"),
  };
}

async function driftList({ service, site, rows }: SiteOperationRooms, world: World, input: Input): Promise<JsonValue> {
  const after = input["after"] === undefined ? undefined : textIn(input, "after");
  const limit = limitIn(input);
  await rows.ensureTables([DRIFT_TABLE]);
  const notes = await rows.snapshot((read) => listDrift(read, after, Math.min(limit, DRIFT_NOTES_MAX)));
  const mask = world.random.id();
  const entries = notes.map(({ before, ...note }): JsonValue =>
    ({ ...note, before: maskedRows(service, knownRows(service, before), mask) ?? null }));
  const isLast = notes.length < Math.min(limit, DRIFT_NOTES_MAX);
  return { site, service: service.name, entries, next: isLast ? null : notes.at(-1)?.id ?? null };
}

/** Without tables that this version does not know any more: what is secret in them cannot be told. */
function knownRows(service: Service, rows: ImageRows | undefined): ImageRows | undefined {
  return rows === undefined ? undefined
    : Object.fromEntries(Object.entries(rows).filter(([table]) => service.tables.has(table)));
}

/** What the centre asks for, page by page, and no person does. */
const BETWEEN_PROCESSES = ["states", "names"];

/**
 * The operations of all services of this site, for a person at this machine: of the service named in the input, or of each in
 * turn, with their answers in one list. Where several were asked, those that have nothing under that name are left out.
 */
export function operationsOfServices(byService: ReadonlyMap<string, Operations>): Operations {
  const names = new Set([...byService.values()].flatMap((operations) => [...operations.keys()]));
  for (const name of BETWEEN_PROCESSES) names.delete(name);
  return new Map([...names].map((name): [string, Operation] => [name, async (input, progress, signal) => {
    const asked = [...byService].filter(([service]) => input["service"] === undefined || input["service"] === service);
    if (asked.length === 0) throw refuse(`there is no service "${String(input["service"])}" here`);
    const answers: JsonValue[] = [];
    let refusal: OperatingError | undefined;
    for (const [, operations] of asked) {
      try {
        const answer = await operations.get(name)?.(input, progress, signal);
        if (answer !== undefined) answers.push(...(Array.isArray(answer) ? answer as readonly JsonValue[] : [answer]));
      } catch (error) {
        if (!isOperating(error, "E_OPERATION_INPUT")) throw error;
        refusal = error;
      }
    }
    if (answers.length === 0 && refusal !== undefined) throw refusal;
    return answers;
  }]));
}
