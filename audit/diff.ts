/**
 * A site's rows beside the centre's, for a person: every aggregate of a kind is compared by digest at the site
 * (syncd/states.ts), and only what is not equal sends rows, masked with a key of its own for each comparison.
 *
 *   pages of the central database → "states" at the site → what is not equal, rows beside rows → looked at once more, because a
 *   change may have been on its way; then the site's names → those that the centre does not have
 *
 * Invariants: reads only; no secret is shown, only whether two are equal. Bounds: DIFFERENCES_MAX are shown, then it says "more".
 * Not here: putting anything right; the manifest check and the row audit do that by themselves.
 */
import { present } from "../core/assert.ts";
import { sleep } from "../core/clock.ts";
import { OperatingError } from "../core/errors.ts";
import type { Input, JsonValue, Progress } from "../core/operation.ts";
import type { World } from "../core/world.ts";
import { askOperation } from "../feed/asking.ts";
import type { Feed } from "../feed/feed.ts";
import { siteAskSubject } from "../feed/subjects.ts";
import { readImages, readKeys } from "../rows/footprint.ts";
import type { Page, Rows } from "../rows/rows.ts";
import type { Service, Table } from "../schemas/define.ts";
import { maskedRows } from "../schemas/masking.ts";
import { digestOf, keyFromText, keyText, rowText, type Image, type Row, type Value } from "../schemas/row.ts";

export interface DiffRooms {
  readonly service: Service;
  readonly rows: Rows;
  readonly feed: Pick<Feed, "ask">;
}

export interface DiffAsked {
  readonly site: string;
  /** Kinds to compare, parents first. */
  readonly kinds: readonly string[];
  readonly progress: (progress: Progress) => void;
  readonly signal: AbortSignal;
}

const PAGE_KEYS = 500;
const NAMES_PAGE = 1_000;
const DIFFERENCES_MAX = 1_000;
const ASK_TIMEOUT_MS = 30_000;
/** A change on its way should have arrived after this. */
const SECOND_LOOK_MS = 2_000;

type JsonRecord = Readonly<Record<string, JsonValue>>;

/** One aggregate that is not equal, as it is shown. */
interface Unequal {
  readonly name: string;
  readonly what: "missing" | "superfluous" | "different";
  readonly waits: JsonValue;
  readonly rows: readonly JsonValue[];
}

function unreadable(what: string): OperatingError {
  return new OperatingError("E_ASK_UNANSWERED", `the site's answer has no ${what} that this version can read`);
}

function recordIn(value: JsonValue | undefined, what: string): JsonRecord {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonRecord;
  throw unreadable(what);
}

function listIn(value: JsonValue | undefined, what: string): readonly JsonValue[] {
  if (Array.isArray(value)) return value as readonly JsonValue[];
  throw unreadable(what);
}

/** One comparison. */
export class Diff {
  readonly #rooms: DiffRooms;
  readonly #world: World;
  readonly #asked: DiffAsked;
  readonly #mask: string;
  #position: JsonValue = null;
  #compared = 0;

  constructor(rooms: DiffRooms, world: World, asked: DiffAsked) {
    this.#rooms = rooms;
    this.#world = world;
    this.#asked = asked;
    this.#mask = world.random.id();
  }

  /** Compares; see the file's head. @throws E_ASK_UNANSWERED when the site is away, E_ROWS_UNAVAILABLE */
  async run(): Promise<JsonValue> {
    const suspects: string[] = [];
    for (const kind of this.#asked.kinds) {
      if (suspects.length > DIFFERENCES_MAX || this.#asked.signal.aborted) break;
      const names = await this.#compareKind(kind, suspects);
      await this.#findSuperfluous(kind, names, suspects);
    }
    const differences = await this.#lookAgain(suspects.slice(0, DIFFERENCES_MAX));
    return { site: this.#asked.site, service: this.#rooms.service.name, position: this.#position, compared: this.#compared,
      equal: this.#compared - differences.filter(({ what }) => what !== "superfluous").length,
      differences: differences.map((each) => ({ ...each })), more: suspects.length > DIFFERENCES_MAX };
  }

  /** Adds names that are not equal at the site to `suspects`; gives the names of all that the centre has. */
  async #compareKind(kind: string, suspects: string[]): Promise<ReadonlySet<string>> {
    const { rows, service } = this.#rooms;
    const names = new Set<string>();
    for (let next: Page | undefined = { limit: PAGE_KEYS }; next !== undefined && !this.#asked.signal.aborted; ) {
      const asked: Page = next;
      const page = await rows.snapshot(async (read) => {
        const found = await readKeys(read, service, kind, asked);
        return { images: await readImages(read, service, found.keys), next: found.next };
      });
      for (const image of page.images.values()) if (image.rows !== undefined) names.add(keyText(image.key));
      suspects.push(...(await this.#statesOf([...page.images.values()])).map(({ name }) => name));
      this.#compared += [...page.images.values()].filter(({ rows: held }) => held !== undefined).length;
      this.#asked.progress({ step: `comparing ${kind}`, done: this.#compared, total: undefined });
      if (suspects.length > DIFFERENCES_MAX) return names;
      next = page.next;
    }
    return names;
  }

  /** How these stand at the site; equal ones are left out. */
  async #statesOf(images: readonly Image[]): Promise<readonly Unequal[]> {
    const live = images.filter(({ rows }) => rows !== undefined);
    const entries = live.map((image): [string, string] => [keyText(image.key), digestOf(image)]);
    const byName = new Map(images.map((image) => [keyText(image.key), image]));
    const found: Unequal[] = [];
    for (let from = 0; from < entries.length; ) {
      const answer = await this.#ask("states", { entries: entries.slice(from), mask: this.#mask });
      this.#position = answer["position"] ?? null;
      for (const state of listIn(answer["states"], "states")) {
        const unequal = this.#unequalOf(recordIn(state, "state"), byName);
        if (unequal !== undefined) found.push(unequal);
      }
      const answered = Number(answer["answered"]);
      if (!Number.isInteger(answered) || answered < 1) throw unreadable("count of answered entries");
      from += answered;
    }
    return found;
  }

  #unequalOf(state: JsonRecord, byName: ReadonlyMap<string, Image>): Unequal | undefined {
    const name = String(state["name"]);
    const image = byName.get(name);
    if (image === undefined) throw unreadable("aggregate that was asked for");
    const waits = state["waits"] ?? null;
    if (state["what"] === "missing") return { name, what: "missing", waits, rows: [] };
    const held = state["rows"] ?? null;
    // Too large to be sent: what differs stays unknown.
    if (held === null) return { name, what: "different", waits, rows: [] };
    const { service } = this.#rooms;
    const wanted = present(maskedRows(service, image.rows, this.#mask), "only live images are compared");
    const rows = Object.keys(wanted).flatMap((table) => rowsBeside(present(service.tables.get(table), table), wanted[table] ?? [],
      listIn(recordIn(held, "rows")[table] ?? [], "rows") as readonly Row[]));
    return rows.length === 0 && waits === null ? undefined : { name, what: "different", waits, rows };
  }

  /** Adds names that only the site has to `suspects`. */
  async #findSuperfluous(kind: string, names: ReadonlySet<string>, suspects: string[]): Promise<void> {
    for (let after: JsonValue = null; suspects.length <= DIFFERENCES_MAX && !this.#asked.signal.aborted; ) {
      const answer = await this.#ask("names", { kind, after, limit: NAMES_PAGE });
      for (const entry of listIn(answer["names"], "names")) {
        const [name] = listIn(entry, "name");
        if (typeof name === "string" && !names.has(name)) suspects.push(name);
      }
      after = answer["next"] ?? null;
      if (after === null) return;
    }
  }

  /** What of the suspects is still not equal. */
  async #lookAgain(suspects: readonly string[]): Promise<readonly Unequal[]> {
    if (suspects.length === 0) return [];
    await sleep(this.#world.clock, SECOND_LOOK_MS, this.#asked.signal);
    const { rows, service } = this.#rooms;
    const unequal: Unequal[] = [];
    for (let from = 0; from < suspects.length && !this.#asked.signal.aborted; from += PAGE_KEYS) {
      const keys = [...new Set(suspects.slice(from, from + PAGE_KEYS))].map(keyFromText);
      const images = [...(await rows.snapshot((read) => readImages(read, service, keys))).values()];
      unequal.push(...await this.#statesOf(images));
      const gone = images.filter((image) => image.rows === undefined).map(({ key }) => keyText(key));
      unequal.push(...await this.#heldAtSite(gone));
      this.#asked.progress({ step: "looking again at what differs", done: from + keys.length, total: suspects.length });
    }
    return unequal;
  }

  /** Those of `names`, which the centre does not have, that have rows at the site. */
  async #heldAtSite(names: readonly string[]): Promise<readonly Unequal[]> {
    const found: Unequal[] = [];
    for (let from = 0; from < names.length; ) {
      const answer = await this.#ask("states", { entries: names.slice(from).map((name) => [name, ""]), mask: this.#mask });
      for (const each of listIn(answer["states"], "states")) {
        const { name, what, waits } = recordIn(each, "state");
        if (what !== "missing") found.push({ name: String(name), what: "superfluous", waits: waits ?? null, rows: [] });
      }
      const answered = Number(answer["answered"]);
      if (!Number.isInteger(answered) || answered < 1) throw unreadable("count of answered entries");
      from += answered;
    }
    return found;
  }

  async #ask(op: string, input: Input): Promise<JsonRecord> {
    const subject = siteAskSubject(this.#rooms.service.name, this.#asked.site);
    return recordIn(await askOperation(this.#rooms.feed, subject, op, input, ASK_TIMEOUT_MS), "answer");
  }
}

/** The columns in which rows of one table differ; rows that only one side has show all their columns. */
function rowsBeside(table: Table, centre: readonly Row[], site: readonly Row[]): readonly JsonValue[] {
  const byKey = (rows: readonly Row[]): Map<string, Row> => new Map(rows.map((row) => [rowText(row, table.key), row]));
  const [wanted, held] = [byKey(centre), byKey(site)];
  return [...new Set([...wanted.keys(), ...held.keys()])].flatMap((text) => {
    const [ours, theirs] = [wanted.get(text), held.get(text)];
    const columns = table.sent.filter((column) => isShown(table, column, ours, theirs)).map((column) => ({ name: column,
      ...(ours === undefined ? {} : { centre: ours[column] ?? null }),
      ...(theirs === undefined ? {} : { site: theirs[column] ?? null }) }));
    const key = table.key.map((column) => `${column}=${String((ours ?? theirs)?.[column] ?? "")}`).join(" ");
    return columns.length === 0 ? [] : [{ table: table.name, key, columns }];
  });
}

function isShown(table: Table, column: string, ours: Row | undefined, theirs: Row | undefined): boolean {
  if (ours === undefined || theirs === undefined) return true;
  const [centre, site] = [ours[column] ?? null, theirs[column] ?? null];
  return centre !== site && !hasMoved(table.moves[column], centre, site);
}

/** A column that the site's own service moves by itself, and has moved that way. */
function hasMoved(way: "down" | "up" | undefined, centre: Value, site: Value): boolean {
  if (way === undefined || centre === null || site === null || typeof centre !== typeof site) return false;
  return way === "down" ? site < centre : site > centre;
}

