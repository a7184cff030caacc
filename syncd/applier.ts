/**
 * Carries batches into the database whatever it answers: waits out outages, repeats after deadlocks, learns what became of a
 * commit whose answer was lost, moves holders of unique values, splits a refused batch until the one bad change is alone and
 * sets that aside, and tries waiting changes again when what they wait for appears. One applier per service and site works at a
 * time.
 *
 * Bounds: contendedTriesMax repeats before a pause; parkedMax waiting changes, beyond which nothing more is read from the feed;
 * quarantinedMax, likewise; wokenMax waiting changes per try.
 */
import { wireDatetime } from "../core/clock.ts";
import { isOperating, OperatingError, type ErrorCode } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import { factsOf } from "../core/log.ts";
import { waitBeforeRetry, type Backoff } from "../core/retry.ts";
import type { World } from "../core/world.ts";
import { present } from "../core/assert.ts";
import { compareVersions } from "../schemas/position.ts";
import { keyText, type AggregateKey } from "../schemas/row.ts";
import { applyBatch, type Applied, type ApplyRooms, type Batch } from "./apply.ts";
import { noteHeard, type Heard } from "./heard.ts";
import { forgetWaiting, movePosition, notePark, noteQuarantine, PARKED_TABLE, QUARANTINE_TABLE, readPosition, readWaiting,
  readWaitingOf, type SitePosition, type StoredPosition } from "./ledger.ts";
import { Parking } from "./parking.ts";
import { receiveAgain, type Received, type Unreadable } from "./received.ts";
import { isRefusal, setAside } from "./setaside.ts";
import { Tally } from "./tally.ts";

export interface ApplierOptions {
  readonly contendedTriesMax: number;
  readonly parkedMax: number;
  readonly quarantinedMax: number;
  /** How long a change waits for rows it refers to without a foreign key. */
  readonly softWaitMs: number;
  readonly parkedRetryMs: number;
  /** After this long a waiting change is a fault. */
  readonly parkedFaultMs: number;
  readonly wokenMax: number;
  /** Pauses between tries while the database is away. */
  readonly retry: Backoff;
}

export const APPLIER_DEFAULTS: ApplierOptions = {
  contendedTriesMax: 10, parkedMax: 100_000, quarantinedMax: 10_000, softWaitMs: 5_000, parkedRetryMs: 5_000,
  parkedFaultMs: 600_000, wokenMax: 500, retry: { firstMs: 50, lastMs: 5_000 },
};

/** The site's database stands elsewhere than this daemon believed: everything in memory is to be read anew. */
export class MovedError extends OperatingError {}

/** Enough that no two commits of a site ever have the same. */
const TURN_CHARACTERS = 18;

/** Faults about one waiting aggregate. */
const WAITING_FAULTS = ["E_ROWS_REFUSED", "E_SCHEMA_UNKNOWN", "E_CHANGE_UNREADABLE", "E_PARENT_MISSING",
  "E_UNIQUE_BLOCKED"] as const;

export interface Work {
  readonly changes: readonly Received[];
  readonly unreadable: readonly Unreadable[];
  /** The heartbeat that the position passes with it. */
  readonly heard?: Heard | undefined;
  /** Versions that were applied already are written once more. */
  readonly again?: boolean;
}

/** See the file's head. Calls must not overlap: the follower makes them one after the other. */
export class Applier {
  readonly #rooms: ApplyRooms;
  readonly #world: World;
  readonly #faults: Faults;
  readonly #options: ApplierOptions;
  readonly #parking = new Parking();
  readonly #quarantined = new Set<string>();
  /** What was applied, summed up; kept up by every commit. */
  readonly tally = new Tally();
  #position: SitePosition;
  /** Of the last commit that this applier knows of. */
  #turn: string;
  /** Called after every commit that wrote rows. */
  readonly #committed: () => void;

  constructor(rooms: ApplyRooms, { turn = "", ...position }: SitePosition & Partial<StoredPosition>, faults: Faults,
    world: World, options: ApplierOptions, committed: () => void) {
    this.#rooms = rooms;
    this.#position = position;
    this.#turn = turn;
    this.#faults = faults;
    this.#world = world;
    this.#options = options;
    this.#committed = committed;
  }

  get position(): SitePosition {
    return this.#position;
  }

  get parked(): number {
    return this.#parking.size;
  }

  get quarantined(): number {
    return this.#quarantined.size;
  }

  /** True for an aggregate with a change that waits or is quarantined. */
  waits(name: string): boolean {
    return this.#isWaiting(name);
  }

  /** Names of all aggregates with a change that waits or is quarantined. */
  *waitingNames(): Iterable<string> {
    yield* this.#parking.names();
    yield* this.#quarantined;
  }

  /** A sentence when nothing more may be read because too much waits. */
  get overfull(): string | undefined {
    const { parkedMax, quarantinedMax } = this.#options;
    if (this.#parking.size >= parkedMax) return `${this.#parking.size} changes wait for other rows (bound parkedMax)`;
    const quarantined = this.#quarantined.size;
    if (quarantined >= quarantinedMax) return `${quarantined} changes are quarantined (bound quarantinedMax)`;
    return undefined;
  }

  /** Takes over what waited when the last process ended, and gives what it had quarantined another try. */
  async recall(signal: AbortSignal): Promise<void> {
    const snapshot = this.#rooms.rows.snapshot.bind(this.#rooms.rows);
    const nowMs = this.#world.clock.monotonicMs();
    for await (const page of readWaiting(snapshot, PARKED_TABLE)) {
      for (const waiting of page) this.#parking.add(waiting.key, waiting.code, waiting.waits, nowMs, 0);
    }
    for await (const page of readWaiting(snapshot, QUARANTINE_TABLE)) {
      for (const waiting of page) this.#quarantine(waiting.key, waiting.code, waiting.reason);
      await this.#tryAgain(QUARANTINE_TABLE, page.map((waiting) => waiting.key), signal);
    }
  }

  /** Applies what was read and moves the position to `moveTo`. Returns when it is stored, or `signal` aborted. */
  async carry(work: Work, moveTo: SitePosition, signal: AbortSignal): Promise<void> {
    const marks = await this.#insist(work, moveTo, signal, new Set());
    await this.#wake(marks, signal);
  }

  /**
   * Writes changes that need not be newer than what was applied: a repair. A version that was applied is written again, an older
   * one is not. The position stays where it is.
   */
  async repair(changes: readonly Received[], signal: AbortSignal, unreadable: readonly Unreadable[] = []): Promise<void> {
    await this.#wake(await this.#insist({ changes, unreadable, again: true }, this.#position, signal, new Set()), signal);
  }

  /** Gives quarantined changes another try now. */
  async retryQuarantined(keys: readonly AggregateKey[], signal: AbortSignal): Promise<void> {
    await this.#wake(await this.#tryAgain(QUARANTINE_TABLE, keys, signal), signal);
  }

  /** Forgets changes that wait or are quarantined: the aggregates stay as they are until something newer comes. */
  async drop(keys: readonly AggregateKey[]): Promise<void> {
    if (keys.length === 0) return;
    // With a turn of its own, so that a database that loses this commit is noticed.
    const turn = this.#newTurn();
    await this.#rooms.rows.transaction(async (write) => {
      await forgetWaiting(write, keys);
      await movePosition(write, this.#rooms.stream, this.#position, turn);
    });
    this.#turn = turn;
    for (const key of keys) this.#nowhere(keyText(key));
  }

  /** Tries waiting changes whose time has come; call it now and then. */
  async tryDue(signal: AbortSignal): Promise<void> {
    const nowMs = this.#world.clock.monotonicMs();
    const due = this.#parking.takeDue(nowMs, this.#options.parkedRetryMs, this.#options.wokenMax);
    if (due.length > 0) await this.#wake(await this.#tryAgain(PARKED_TABLE, due, signal), signal);
    for (const key of due) {
      const sinceMs = this.#parking.sinceMs(keyText(key));
      if (sinceMs === undefined || nowMs - sinceMs < this.#options.parkedFaultMs) continue;
      const code = this.#parking.codeOf(keyText(key)) ?? "E_PARENT_MISSING";
      this.#faults.raise(code, keyText(key), "a change has waited too long for rows it refers to or for a unique value");
    }
  }

  /**
   * Each appearance of a row may free changes, which may free others. Rounds are bounded by what waits, so that a change which
   * parks on the same mark again (an engine and we disagree about two spellings) is left to the timer.
   */
  async #wake(marks: readonly string[], signal: AbortSignal): Promise<void> {
    const appeared = new Set(marks);
    const roundsMax = 2 + Math.ceil(this.#parking.size / this.#options.wokenMax) + this.#parking.size;
    for (let round = 0; round < roundsMax && appeared.size > 0 && !signal.aborted; round += 1) {
      const sizeBefore = this.#parking.size;
      const woken = this.#parking.wokenBy(appeared, this.#options.wokenMax);
      if (woken.length === 0) return;
      for (const mark of await this.#tryAgain(PARKED_TABLE, woken, signal)) appeared.add(mark);
      if (this.#parking.size === sizeBefore) return;
    }
  }

  async #tryAgain(table: typeof PARKED_TABLE, keys: readonly AggregateKey[], signal: AbortSignal): Promise<readonly string[]> {
    const waiting = await this.#rooms.rows.snapshot((read) => readWaitingOf(read, table, keys));
    // A commit with a lost answer may have ended what memory still takes for waiting.
    const found = new Set(waiting.map((each) => keyText(each.key)));
    for (const name of keys.map(keyText)) if (!found.has(name)) this.#nowhere(name);
    const arrivals = waiting.map((each) => receiveAgain(this.#rooms.service, each));
    const changes = arrivals.flatMap((arrival) => (arrival.kind === "change" ? [arrival.change] : []));
    const unreadable = arrivals.flatMap((arrival) => (arrival.kind === "unreadable" ? [arrival.unreadable] : []));
    const nowMs = this.#world.clock.monotonicMs();
    const impatient = new Set(keys.map(keyText).filter((name) => {
      const sinceMs = this.#parking.sinceMs(name);
      return sinceMs !== undefined && nowMs - sinceMs >= this.#options.softWaitMs;
    }));
    // A change that waits may be a repair of what was applied: then its version is no news, and its rows are wanted all the same.
    return this.#insist({ changes, unreadable, again: true }, this.#position, signal, impatient);
  }

  /** Applies `work`, splitting it where the database refuses; marks of the rows that are there now. */
  async #insist(work: Work, moveTo: SitePosition, signal: AbortSignal,
    impatient: ReadonlySet<string>): Promise<readonly string[]> {
    try {
      return await this.#attempt(work, moveTo, signal, impatient, false);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return this.#afterRefusal(error, work, moveTo, signal, impatient);
    }
  }

  async #afterRefusal(error: OperatingError, work: Work, moveTo: SitePosition, signal: AbortSignal,
    impatient: ReadonlySet<string>): Promise<readonly string[]> {
    let refusal = error;
    if (error.code === "E_ROWS_UNIQUE") {
      try {
        return await this.#attempt(work, moveTo, signal, impatient, true);
      } catch (again) {
        if (!isRefusal(again)) throw again;
        refusal = again;
      }
    }
    if (work.changes.length === 1) {
      await this.#putAside(present(work.changes[0], "one change"), refusal, work, moveTo);
      return [];
    }
    const middle = Math.ceil(work.changes.length / 2);
    const first = work.changes.slice(0, middle);
    const retried = moveTo === this.#position;
    const between = retried ? moveTo : { ...moveTo, sequence: present(first.at(-1), "half a batch").version.sequence };
    const before = compareVersions(between, this.#position) < 0 ? this.#position : between;
    const marks = await this.#insist({ ...work, changes: first, unreadable: [], heard: undefined }, before, signal, impatient);
    return [...marks, ...await this.#insist({ ...work, changes: work.changes.slice(middle) },
      retried ? this.#position : moveTo, signal, impatient)];
  }

  /** One transaction, repeated through outages until it is stored or refused. */
  async #attempt(work: Work, moveTo: SitePosition, signal: AbortSignal, impatient: ReadonlySet<string>,
    careful: boolean): Promise<readonly string[]> {
    let isWaiting = this.#isWaiting;
    const turns = new Set<string>();
    for (let failures = 1; ; failures += 1) {
      if (signal.aborted) return [];
      const turn = this.#newTurn();
      const batch: Batch = { ...work, again: work.again ?? false, heard: work.heard,
        held: { ...this.#position, turn: this.#turn }, moveTo: { ...moveTo, turn }, impatient, careful, isWaiting,
        now: wireDatetime(this.#world.clock.nowMs()) };
      turns.add(turn);
      try {
        const applied = await applyBatch(this.#rooms, batch);
        this.#noteApplied(applied, work, moveTo);
        this.#turn = turn;
        return applied.marks;
      } catch (error) {
        if (!isOperating(error) || isRefusal(error)) throw error;
        if (isOperating(error, "E_ROWS_COMMIT_UNKNOWN", "E_SITE_CONTENDED")) {
          this.tally.doubt();
          await this.#lookUpPosition(error, moveTo, turns);
          // What the lost commit may have noted as waiting is not in memory: forget whatever is there.
          isWaiting = () => true;
        }
        this.#world.log.warn("a batch could not be stored and is tried again", { changes: work.changes.length,
          ...factsOf(error) });
        if (!isOperating(error, "E_ROWS_CONTENDED") || failures % this.#options.contendedTriesMax === 0) {
          await waitBeforeRetry(this.#world, this.#options.retry, failures, signal);
        }
      }
    }
  }

  /** Chance, not a number: another daemon, or this one after a loss, must not come to the same by counting. */
  #newTurn(): string {
    return this.#world.random.id().slice(0, TURN_CHARACTERS);
  }

  /**
   * The stored turn says what became of a lost commit: it is the one before it, or one of those that were tried. Anything else
   * means that the database was moved under us, by another daemon or back in time (a server that lost its newest commits): what
   * we hold in memory is worth nothing, and reading starts again from what is stored.
   */
  async #lookUpPosition(error: OperatingError, moveTo: SitePosition, tried: ReadonlySet<string>): Promise<void> {
    let stored: StoredPosition | undefined;
    try {
      stored = await this.#rooms.rows.snapshot((read) => readPosition(read, this.#rooms.stream));
    } catch (again) {
      if (!isOperating(again)) throw again;
      return;
    }
    const known = stored !== undefined && tried.has(stored.turn) ? moveTo : this.#position;
    if (stored === undefined || (stored.turn !== this.#turn && !tried.has(stored.turn)) ||
      compareVersions(stored, known) !== 0) throw this.#moved(error.message);
    this.#position = known;
    this.#turn = stored.turn;
  }

  #moved(reason: string): MovedError {
    this.#faults.raise("E_SITE_CONTENDED", this.#rooms.stream, reason);
    return new MovedError("E_SITE_CONTENDED",
      "the stored position is not the one this daemon left", { stream: this.#rooms.stream });
  }

  /** Checks while nothing arrives that the database still stands where this daemon left it. @throws MovedError. */
  async verifyPosition(): Promise<void> {
    const stored = await this.#rooms.rows.snapshot((read) => readPosition(read, this.#rooms.stream));
    const isWhereItWas = stored?.turn === this.#turn && compareVersions(stored, this.#position) === 0;
    if (!isWhereItWas) throw this.#moved("found while the stream was quiet");
  }

  readonly #isWaiting = (name: string): boolean => this.#parking.has(name) || this.#quarantined.has(name);

  #noteApplied(applied: Applied, work: Work, moveTo: SitePosition): void {
    const nowMs = this.#world.clock.monotonicMs();
    this.#position = moveTo;
    for (const change of applied.written) {
      const name = keyText(change.image.key);
      this.#nowhere(name);
      this.tally.note(name, applied.before.get(name), { ...change.version, digest: change.digest,
        deleted: change.payload === undefined });
    }
    for (const { change, waits } of applied.parked) {
      this.#quarantined.delete(keyText(change.image.key));
      this.#parking.add(change.image.key, "E_PARENT_MISSING", waits, nowMs, this.#options.parkedRetryMs);
    }
    for (const unreadable of work.unreadable) this.#quarantine(unreadable.key, unreadable.error.code, unreadable.error.message);
    this.#faults.clear("E_SITE_CONTENDED", this.#rooms.stream);
    this.#world.metrics.count("holdfast_applied_aggregates_total", applied.written.length);
    this.#world.metrics.count("holdfast_applied_rows_total", applied.rowsWritten);
    if (applied.rowsWritten > 0) this.#committed();
  }

  /** The aggregate waits nowhere any more: its faults are over. */
  #nowhere(name: string): void {
    const waited = this.#parking.has(name);
    this.#parking.remove(name);
    if (!this.#quarantined.delete(name) && !waited) return;
    for (const code of WAITING_FAULTS) this.#faults.clear(code, name);
  }

  #quarantine(key: AggregateKey, code: ErrorCode, reason: string): void {
    const name = keyText(key);
    this.#parking.remove(name);
    this.#quarantined.add(name);
    this.#faults.raise(code, name, reason);
    this.#world.log.error("a change is quarantined; the others go on", { key: name, code, reason });
  }

  async #putAside(change: Received, error: OperatingError, { unreadable, heard }: Work, moveTo: SitePosition): Promise<void> {
    const aside = present(setAside(error), "a refusal is the change's own fault");
    const key = change.image.key;
    const note = { key, version: change.version, digest: change.digest, payload: change.payload,
      code: aside.code, reason: aside.reason,
      since: wireDatetime(this.#world.clock.nowMs()) };
    const turn = this.#newTurn();
    await this.#rooms.rows.transaction(async (write) => {
      await forgetWaiting(write, [key, ...unreadable.map((each) => each.key)]);
      if (aside.how === "park") await notePark(write, [{ ...note, waits: [] }]);
      else await noteQuarantine(write, [note]);
      await noteQuarantine(write, unreadable.map((each) =>
        ({ ...each, digest: "", code: each.error.code, reason: each.error.message, since: note.since })));
      if (heard !== undefined) await noteHeard(write, this.#rooms.stream, heard);
      await movePosition(write, this.#rooms.stream, moveTo, turn);
    });
    this.#position = moveTo;
    this.#turn = turn;
    for (const each of unreadable) this.#quarantine(each.key, each.error.code, each.error.message);
    if (aside.how === "park") this.#parking.add(key, aside.code, [], this.#world.clock.monotonicMs(),
      this.#options.parkedRetryMs);
    else this.#quarantine(key, aside.code, aside.reason);
  }
}
