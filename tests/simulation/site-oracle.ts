/**
 * Watches one site's database, commit by commit, and what the stream handed to it: versions never go back (I2), a stored
 * position never skips what was delivered (I3), a version never means two things (I4), states follow each other as they did at
 * the centre, so that what was deleted stays deleted (I6), what somebody changed by hand is put right only after it was noted
 * (I7), no row appears that the centre never had (S3), no child without its parent (S4), local columns stay as they are (S5), and
 * nothing goes that the centre never deleted (S7). Reads rows and messages only.
 */
import type { FeedMessage } from "../../feed/feed.ts";
import type { RowChange } from "../../rows/memory-store.ts";
import type { Service, Table } from "../../schemas/define.ts";
import { compareVersions, type Version } from "../../schemas/position.ts";
import type { Row, Value } from "../../schemas/row.ts";
import { Mirror, stateOf, textOf, type CentreHistory } from "./history.ts";

/** Starts every value that a holder of a unique value is given while its own change is on its way. */
const PLACEHOLDER = "~vacated~";
const WRONG_MAX = 20;

function versionOf(row: Row): Version {
  return { epoch: Number(row["epoch"]), sequence: Number(row["sequence"]) };
}

interface Delivered {
  readonly name: string;
  readonly version: Version;
}

function shown({ epoch, sequence }: Version): string {
  return `${epoch}/${sequence}`;
}

export interface SiteOracleRooms {
  readonly name: string;
  readonly service: Service;
  readonly history: CentreHistory;
  /** A row as this site's database can hold it. */
  readonly fit: (table: Table, row: Row) => Row;
  /** Nothing is lost on its way without a word, and the centre's database shows nobody an older state. */
  readonly isTruthful: boolean;
  /** False once reads were stale or the stream lost something: then states may legally come back for a while. */
  readonly isOrdered: () => boolean;
  /** Told of what is wrong at the moment it is found. */
  readonly say: (what: string) => void;
}

/** One per site; outlives its process and its database's failovers. */
export class SiteOracle {
  readonly mirror: Mirror;
  readonly wrong: string[] = [];
  readonly #rooms: SiteOracleRooms;
  /** Aggregates' names to the newest version noted as applied, parked or quarantined. */
  readonly #applied = new Map<string, { readonly version: Version; readonly digest: string }>();
  readonly #waiting = new Map<string, Map<string, Version>>([["holdfast_parked", new Map()], ["holdfast_quarantine", new Map()]]);
  /** Places in the centre's history of the newest state applied. */
  readonly #places = new Map<string, number>();
  readonly #drift = new HandMade();
  #wasRewound = false;
  /** Aggregates that nobody asked to delete. */
  readonly #spared = new Set<string>();
  #sparedLost = 0;
  #delivered: Delivered[] = [];

  constructor(rooms: SiteOracleRooms) {
    this.#rooms = rooms;
    this.mirror = new Mirror(rooms.service);
  }

  /** Messages that the process was handed while it follows the stream's end. */
  deliver(messages: readonly FeedMessage[]): void {
    for (const { subject, sequence, headers } of messages) {
      const name = subject.split(".").slice(4).join(".");
      if (!name.startsWith("_")) this.#delivered.push({ name, version: { epoch: Number(headers["Hf-Epoch"]), sequence } });
    }
  }

  /** The stream is read from the stored position once more: what was handed out before and lies above it comes again. */
  restarted(): void {
    this.#delivered = [];
  }

  /** From now on the product has no reason to delete these. */
  spare(names: readonly string[]): void {
    for (const name of names) this.#spared.add(name);
  }

  /** It has a reason for those again. */
  unspare(isAsked: (name: string) => boolean): void {
    for (const name of this.#spared) if (isAsked(name)) this.#spared.delete(name);
  }

  /** It may do so again; how many it deleted meanwhile. */
  spareNoMore(): number {
    const lost = this.#sparedLost;
    this.#sparedLost = 0;
    this.#spared.clear();
    return lost;
  }

  get name(): string {
    return this.#rooms.name;
  }

  /** Names of waiting and quarantined changes now; a note that something newer was applied since is of no consequence. */
  get waiting(): readonly string[] {
    const isMoot = ([name, version]: readonly [string, Version]): boolean => {
      const applied = this.#applied.get(name)?.version;
      return applied !== undefined && compareVersions(applied, version) >= 0;
    };
    return [...this.#waiting.values()].flatMap((notes) => [...notes].filter((note) => !isMoot(note)).map(([name]) => name));
  }

  /** Takes note of one commit; `by` the product, somebody's hand, a failover, or whoever set the site up. */
  observe(changes: readonly RowChange[], by: "product" | "hand" | "rewind" | "setup"): void {
    const own = changes.filter(({ table }) => this.#rooms.service.tables.has(table.name));
    this.mirror.apply(own);
    if (by === "rewind") {
      this.restarted();
      this.#wasRewound = true;
    }
    if (by === "hand") for (const change of own) this.#drift.made(change, this.mirror.ownerOf(change.table, rowOf(change))?.name);
    const silent = by === "product" ? this.#drift.overwritten(changes) : [];
    for (const name of silent) this.#found(`I7: ${name} was put right without a note`);
    for (const change of changes) {
      if (change.table.name === "holdfast_applied") this.#observeApplied(change, by);
      const waiting = this.#waiting.get(change.table.name);
      if (waiting !== undefined) observeWaiting(waiting, change);
    }
    for (const change of changes) if (change.table.name === "holdfast_position") this.#observePosition(change, by);
    if (by !== "product") return;
    for (const change of own) {
      this.#checkRow(change);
      this.#checkParents(change);
    }
  }

  /** Everything at once, when all is quiet: no child without its parent. */
  checkAllParents(): void {
    for (const table of this.#rooms.service.tables.values()) {
      for (const row of this.mirror.rowsOf(table.name).values()) this.#checkParents({ table, before: undefined, after: row });
    }
  }

  #found(what: string): void {
    this.#rooms.say(what);
    if (this.wrong.length < WRONG_MAX) this.wrong.push(`${what} (${this.#rooms.name})`);
  }

  #observeApplied({ before, after }: RowChange, by: string): void {
    if (before !== undefined && after === undefined) {
      this.#applied.delete(String(before["name"]));
      this.#places.delete(String(before["name"]));
    }
    if (after === undefined) return;
    const name = String(after["name"]);
    if (by === "product") this.#checkOrder(name, after["payload"] ?? null);
    const [version, digest] = [versionOf(after), String(after["digest"])];
    if (before !== undefined && by === "product") {
      const was = versionOf(before);
      const order = compareVersions(version, was);
      if (order < 0) this.#found(`I2: the version of ${name} went from ${shown(was)} back to ${shown(version)}`);
      // Removing what the stream does not have any more needs no version of its own.
      const bothLive = before["deleted"] !== true && after["deleted"] !== true;
      // A stream that went back gives its numbers out again, until an epoch tells the two apart.
      if (order === 0 && bothLive && String(before["digest"]) !== digest && this.#rooms.isOrdered()) {
        this.#found(`I4: version ${shown(version)} of ${name} means two things`);
      }
    }
    this.#applied.set(name, { version, digest });
  }

  #checkOrder(name: string, payload: Value): void {
    if (!this.#rooms.isOrdered() || this.#wasRewound) return;
    const kind = this.#rooms.service.kinds.get(name.split(".")[0] ?? "");
    if (kind === undefined) return;
    const rows = payload === null ? undefined : (JSON.parse(String(payload)) as { rows?: Record<string, readonly Row[]> }).rows;
    const place = this.#rooms.history.placeOf(name, stateOf(this.#rooms.service, kind, rows), this.#places.get(name) ?? 0);
    if (place === undefined) this.#found(`I6: ${name} went back to a state that was over, or never was`);
    else this.#places.set(name, place);
  }

  #observePosition({ before, after }: RowChange, by: string): void {
    if (after === undefined || by !== "product") return void this.restarted();
    if (String(after["mode"]).startsWith("fill")) return void this.restarted();
    const position = versionOf(after);
    if (before !== undefined && compareVersions(position, versionOf(before)) === 0) return;
    const left: Delivered[] = [];
    for (const each of this.#delivered) {
      // A process that has not heard of the epoch yet publishes in the one before: the place in the stream counts.
      if (each.version.sequence > position.sequence) left.push(each);
      else if (!this.#isAccountedFor(each.name, each.version)) {
        this.#found(`I3: the position passed ${shown(each.version)} of ${each.name}, which is nowhere`);
      }
    }
    this.#delivered = left;
  }

  #isAccountedFor(name: string, version: Version): boolean {
    const noted = [this.#applied.get(name)?.version, ...[...this.#waiting.values()].map((notes) => notes.get(name))];
    return noted.some((held) => held !== undefined && compareVersions(held, version) >= 0);
  }

  #checkRow({ table, before, after }: RowChange): void {
    if (after === undefined) {
      const owner = before === undefined ? undefined : this.mirror.ownerOf(table, before);
      if (owner?.kind.root !== table.name) return;
      if (this.#spared.delete(owner.name)) this.#sparedLost += 1;
      if (this.#rooms.isTruthful && this.#rooms.history.neverDeleted(owner.name)) {
        this.#found(`S7: ${owner.name} was deleted, which the centre never did`);
      }
      return;
    }
    for (const column of Object.keys(table.local)) {
      if (before !== undefined && before[column] !== after[column]) this.#found(`S5: ${table.name}.${column} was changed`);
    }
    if (table.sent.some((column) => String(after[column]).startsWith(PLACEHOLDER))) return;
    if (!this.#rooms.history.hadRow(table, after, (row) => this.#rooms.fit(table, row))) {
      this.#found(`S3: a row of ${table.name} that the centre never had: ${textOf(after, table.sent)}`);
    }
  }

  #checkParents({ table, before, after }: RowChange): void {
    for (const { columns, table: target, to, hard } of table.references) {
      if (!hard || after === undefined || columns.some((column) => (after[column] ?? null) === null)) continue;
      const wanted = textOf(after, columns);
      const parents = [...this.mirror.rowsOf(target).values()];
      if (!parents.some((parent) => textOf(parent, to) === wanted)) {
        this.#found(`S4: a row of ${table.name} without its ${target}`);
      }
    }
    if (before === undefined || after !== undefined) return;
    for (const child of this.#rooms.service.tables.values()) {
      for (const { columns, table: target, to, hard } of child.references) {
        if (!hard || target !== table.name) continue;
        const gone = textOf(before, to);
        if ([...this.mirror.rowsOf(child.name).values()].some((row) => textOf(row, columns) === gone)) {
          this.#found(`S4: rows of ${child.name} outlived their ${table.name}`);
        }
      }
    }
  }
}

function rowOf({ before, after }: RowChange): Row {
  return after ?? before ?? {};
}

/** Rows that somebody changed by hand, until the product writes them. */
class HandMade {
  readonly #rows = new Map<string, { readonly owner: string; readonly text: string | undefined; noted: boolean }>();

  made({ table, before, after }: RowChange, owner: string | undefined): void {
    const text = (row: Row | undefined): string | undefined => (row === undefined ? undefined : textOf(row, table.sent));
    if (owner === undefined || text(before) === text(after)) return;
    this.#rows.set(placeOf(table, after ?? before ?? {}), { owner, text: text(after), noted: false });
  }

  /**
   * Aggregates of which this commit overwrites such rows, although nothing accounts for it: no note, no newer version, and no
   * deletion of the whole aggregate, which a sweep does in the version that the site has.
   */
  overwritten(changes: readonly RowChange[]): readonly string[] {
    const newer = new Set<string>();
    for (const { table, before, after } of changes) {
      if (table.name === "holdfast_drift" && after !== undefined) this.#note(String(after["name"]));
      if (table.name !== "holdfast_applied" || after === undefined) continue;
      const isNewer = before === undefined || compareVersions(versionOf(after), versionOf(before)) > 0;
      if (isNewer || after["deleted"] === true) newer.add(String(after["name"]));
    }
    const silent: string[] = [];
    for (const change of changes) {
      const place = placeOf(change.table, rowOf(change));
      const made = this.#rows.get(place);
      if (made === undefined) continue;
      this.#rows.delete(place);
      const found = change.before === undefined ? undefined : textOf(change.before, change.table.sent);
      if (found === made.text && !made.noted && !newer.has(made.owner)) silent.push(made.owner);
    }
    return silent;
  }

  #note(name: string): void {
    for (const made of this.#rows.values()) if (made.owner === name) made.noted = true;
  }
}

function placeOf(table: Table, row: Row): string {
  return `${table.name} ${textOf(row, table.key)}`;
}

function observeWaiting(notes: Map<string, Version>, { before, after }: RowChange): void {
  if (before !== undefined) notes.delete(String(before["name"]));
  if (after !== undefined) notes.set(String(after["name"]), versionOf(after));
}
