/**
 * What each trouble of a plan does to the simulated clouds. Troubles that last are ended by their time or by calm weather,
 * whichever is first.
 */
import { decideHeld } from "../../capture/held.ts";
import { present } from "../../core/assert.ts";
import { wireDatetime } from "../../core/clock.ts";
import { isOperating } from "../../core/errors.ts";
import { seededRandom, type Random } from "../../core/random.ts";
import type { StreamCopy } from "../../feed/memory-stream.ts";
import type { MemoryTwin } from "../../rows/memory.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import type { Table } from "../../schemas/define.ts";
import type { Row } from "../../schemas/row.ts";
import { toy } from "../support/toy-service.ts";
import { LEDGER, type SimulatedCloud, type Site } from "./cloud.ts";
import { textOf } from "./history.ts";
import type { Database, Step, Trouble } from "./plan.ts";
import { TIGHT_GUARD } from "./processes.ts";
import { SECRET_MARK, SimulatedCall, type Write } from "./service.ts";

/** Rows that somebody changed by hand at a site, and what they were. */
export interface Drift {
  readonly site: number;
  readonly table: Table;
  /** The row's key as text. */
  readonly key: string;
  readonly after: Row | undefined;
}

const table = (name: string): Table => present(toy.tables.get(name), name);
/** Tables whose rows somebody changes by hand, or empties. */
const DRIFTING = ["user", "domain", "membership", "grant", "group", "secret"];
const TRUNCATED = ["user", "membership", "grant", "group"];
/** An aggregate that was not changed for so long has no look from its own call to come. */
const QUIET_MS = 35_000;

/** The troubles of one run. */
export class Troubles {
  readonly #cloud: SimulatedCloud;
  readonly #endings = new Set<() => void>();
  readonly #backups = new Map<Database, number>();
  #streamCopy: StreamCopy | undefined;
  /** When a table was emptied that the guard must protect, until somebody decides about it. */
  #sparedSinceMs: number | undefined;
  /** Everything that hands did at sites, oldest first. */
  readonly drifts: Drift[] = [];
  /** Put back by a person once the storm is over. */
  readonly #missing: { readonly table: Table; readonly rows: readonly Row[] }[] = [];
  #handWorks = 0;

  constructor(cloud: SimulatedCloud) {
    this.#cloud = cloud;
  }

  /** True when no hand is at work. */
  get isIdle(): boolean {
    return this.#handWorks === 0;
  }

  /** Lets a trouble happen. */
  happen(trouble: Exclude<Step, { do: "call" }>): void {
    if (this.#toProcess(trouble) || this.#toStream(trouble)) return;
    void this.#byHand(() => this.#toDatabase(trouble));
  }

  /** Every trouble that lasts ends now; a person puts back what was truncated by mistake, where the plan says so. */
  calm(): void {
    for (const end of [...this.#endings]) end();
    if (this.#missing.length > 0) this.#spareNoMore();
    void this.#byHand(async () => {
      for (const { table: emptied, rows } of this.#missing.splice(0)) await this.#putBack(emptied, rows);
    });
  }

  /** A person releases what the guard holds, everywhere. */
  release(): void {
    this.#spareNoMore();
    for (const [place, kinds] of this.#cloud.held.entries()) {
      for (const kind of kinds) {
        this.#cloud.trace.note("weather", `a person releases ${kind} at ${place === 0 ? "the centre" : `site${place}`}`);
        void this.#byHand(() => this.#databaseOf(place).session("hand").transaction(async (write) =>
          void await decideHeld(write, kind, "released")));
      }
    }
  }

  #lasting(forMs: number, begin: () => void, end: () => void): void {
    begin();
    const finish = (): void => {
      if (!this.#endings.delete(finish)) return;
      cancel();
      end();
    };
    const cancel = this.#cloud.clock.after(forMs, finish);
    this.#endings.add(finish);
  }

  #toProcess(trouble: Trouble): boolean {
    const cloud = this.#cloud;
    switch (trouble.do) {
      case "crash":
        cloud.crash(trouble.who, trouble.downMs, trouble.synced);
        return true;
      case "restart":
        void cloud.restart(trouble.who);
        return true;
      case "stand still":
        cloud.lifeOf(trouble.who)?.fence.stopFor(trouble.forMs);
        return true;
      case "cut": {
        const { who, way, forMs } = trouble;
        const feed = cloud.lifeOf(who)?.feed;
        this.#lasting(forMs, () => feed?.cut("cut by the weather", way), () => {
          if (cloud.lifeOf(who)?.feed === feed && cloud.lifeOf(who)?.fence.closed === false) feed?.cut(undefined);
        });
        return true;
      }
      case "fill disk": {
        const disk = present(cloud.disks[trouble.place], "every proxy has a disk");
        this.#lasting(trouble.forMs, () => (disk.full = true), () => (disk.full = false));
        return true;
      }
      case "lose disk":
        cloud.crash({ role: "proxy", place: trouble.place }, 0, 0);
        cloud.disks[trouble.place]?.lose();
        return true;
      default:
        return false;
    }
  }

  #toStream(trouble: Trouble): boolean {
    const { stream, clock } = this.#cloud;
    const { faults } = stream;
    switch (trouble.do) {
      case "lose ack": faults.loseAck(trouble.fate); return true;
      case "unnamed conflict": faults.conflictWithoutSequence(); return true;
      case "restart stream": faults.restart(); return true;
      case "repeat deliveries":
        this.#lasting(trouble.forMs, () => faults.repeatDeliveries(true), () => faults.repeatDeliveries(false));
        return true;
      case "lose deliveries": faults.loseDeliveries(trouble.count); return true;
      case "drop tail": faults.dropTail(trouble.count); return true;
      case "revive older": {
        const subjects = [...stream.above(0, ">")].map((message) => message.subject);
        const subject = subjects[trouble.pick % Math.max(1, subjects.length)];
        if (subject !== undefined) faults.reviveOlder(subject);
        return true;
      }
      case "recreate stream": faults.recreate(); return true;
      case "copy stream": this.#streamCopy = faults.copy(); return true;
      case "restore stream":
        if (this.#streamCopy?.created !== undefined && clock.monotonicMs() > 0) faults.restore(this.#streamCopy);
        return true;
      case "fill stream":
        this.#lasting(trouble.forMs, () => faults.refuseNewSubjects(true), () => faults.refuseNewSubjects(false));
        return true;
      default:
        return false;
    }
  }

  async #toDatabase(trouble: Trouble): Promise<void> {
    switch (trouble.do) {
      case "fail over": {
        const rows = this.#databaseOf(trouble.database);
        if (trouble.database === 0) this.#spareNoMore();
        return rows.rewind(Math.max(this.#cloud.commitsAtStart(trouble.database), rows.commits - trouble.commits));
      }
      case "back up":
        this.#backups.set(trouble.database, this.#databaseOf(trouble.database).commits);
        return;
      case "restore backup": {
        const backup = this.#backups.get(trouble.database);
        if (backup !== undefined && trouble.database === 0) this.#spareNoMore();
        if (backup !== undefined) this.#databaseOf(trouble.database).rewind(backup);
        return;
      }
      case "truncate": return this.#truncate(trouble.pick, trouble.restored);
      case "write past the proxy": return this.#writePastProxy(trouble.pick);
      case "lose ledger": return this.#loseLedger(this.#siteAt(trouble.site));
      case "drift": return this.#drift(trouble.site, seededRandom(trouble.pick));
      case "touch local column": return this.#touchLocal(this.#siteAt(trouble.site), seededRandom(trouble.pick));
      default: return;
    }
  }

  /** Somebody's work on a database; a failover in the middle of it makes him give up. */
  async #byHand(work: () => Promise<void>): Promise<void> {
    this.#handWorks += 1;
    try {
      await work();
    } catch (error) {
      if (!isOperating(error)) throw error;
    } finally {
      this.#handWorks -= 1;
    }
  }

  #databaseOf(database: Database): MemoryTwin {
    return database === 0 ? this.#cloud.centre : this.#siteAt(database - 1).rows;
  }

  #siteAt(place: number): Site {
    return present(this.#cloud.sites[place], "a plan names sites that exist");
  }

  /** The classic disaster: a table is emptied, and with it what refers to it by a foreign key. */
  async #truncate(pick: number, restored: boolean): Promise<void> {
    const emptied = table(TRUNCATED[pick % TRUNCATED.length] ?? "user");
    const referring = [...toy.tables.values()].filter((each) =>
      each.references.some((reference) => reference.hard && reference.table === emptied.name));
    const { history, weather, sites, clock } = this.#cloud;
    const names = history.quietFor(toy.kindOfTable.get(emptied.name)?.name ?? "", QUIET_MS);
    if (weather.tightGuard && names.length > 2 * TIGHT_GUARD.aggregatesMax) {
      this.#sparedSinceMs ??= clock.monotonicMs();
      for (const { oracle } of sites) oracle.spare(names);
    }
    await this.#cloud.serviceRows.transaction(async (write) => {
      for (const gone of [...referring, emptied]) {
        const rows = await write.page(gone, { limit: 10_000 });
        await write.remove(gone, rows);
        if (restored) this.#missing.unshift({ table: gone, rows });
      }
    });
    this.#cloud.trace.note("weather", `${emptied.name} is empty now`);
  }

  /** Somebody has decided, or the rows may be back: until now few of them may be gone at a site. */
  #spareNoMore(): void {
    const { clock, sites, wrong } = this.#cloud;
    const sinceMs = this.#sparedSinceMs;
    this.#sparedSinceMs = undefined;
    for (const { oracle } of sites) {
      const lost = oracle.spareNoMore();
      const windows = sinceMs === undefined ? 0 : 1 + Math.floor((clock.monotonicMs() - sinceMs) / TIGHT_GUARD.windowMs);
      if (lost > windows * TIGHT_GUARD.aggregatesMax) {
        wrong.push(`the guard let ${lost} aggregates of an emptied table be deleted at ${oracle.name} before anybody said so`);
      }
    }
  }

  async #putBack(emptied: Table, rows: readonly Row[]): Promise<void> {
    for (const row of rows) {
      await this.#cloud.serviceRows.transaction((write) => write.insert(emptied, [row])).catch((error: unknown) => {
        if (!isOperating(error)) throw error;
      });
    }
  }

  /** A call's write without a call: a manage command, somebody's SQL. */
  async #writePastProxy(pick: number): Promise<void> {
    const { serviceRows, clock } = this.#cloud;
    const send = async (_declared: unknown, _parameters: unknown, write: Write): Promise<void> => void await write();
    await new SimulatedCall({ rows: serviceRows, clock, send }, seededRandom(pick)).make();
  }

  async #loseLedger(site: Site): Promise<void> {
    await site.rows.ensureTables(LEDGER);
    await site.rows.transaction(async (write) => {
      for (const each of LEDGER) await write.remove(each, await write.page(each, { limit: 100_000 }));
    });
  }

  async #someRow(write: RowWriter, random: Random, names: readonly string[]): Promise<{ table: Table; row: Row } | undefined> {
    const drifting = table(names[Math.floor(random.next() * names.length)] ?? "user");
    const rows = await write.page(drifting, { limit: 10_000 });
    const row = rows[Math.floor(random.next() * rows.length)];
    return row === undefined ? undefined : { table: drifting, row };
  }

  /** Somebody changes, deletes or adds a row at a site. */
  async #drift(place: number, random: Random): Promise<void> {
    const { hand } = this.#siteAt(place);
    const note = (changed: Table, row: Row, after: Row | undefined): void =>
      void this.drifts.push({ site: place, table: changed, key: textOf(row, changed.key), after });
    await hand.transaction(async (write) => {
      const chosen = random.next();
      if (chosen < 0.3) {
        const stranger = { id: random.id(), name: `stranger ${random.id()}` };
        await write.insert(table("group"), [stranger]);
        return note(table("group"), stranger, stranger);
      }
      const found = await this.#someRow(write, random, chosen < 0.6 ? ["user", "domain", "group", "secret"] : DRIFTING);
      if (found === undefined) return;
      const { table: drifted, row } = found;
      if (chosen < 0.6) {
        const column = drifted.name === "secret" ? "hash" : "name";
        const after = { ...row, [column]: `${SECRET_MARK} changed by hand ${random.id()}` };
        await write.update(drifted, [after], [column]);
        return note(drifted, row, after);
      }
      await write.remove(drifted, [row]);
      note(drifted, row, undefined);
    });
  }

  async #touchLocal({ hand }: Site, random: Random): Promise<void> {
    await hand.transaction(async (write) => {
      const found = await this.#someRow(write, random, ["user"]);
      if (found === undefined) return;
      await write.update(found.table, [{ ...found.row, seen_at: wireDatetime(this.#cloud.clock.nowMs()) }], ["seen_at"]);
    });
  }
}

/** Everything in `from` copied to an empty `to`: how a site is seeded from a snapshot. */
export async function seedRows(from: Rows, to: Rows): Promise<void> {
  const tables = [...toy.tables.values()];
  const rows = await from.snapshot((read) => Promise.all(tables.map((each) => read.page(each, { limit: 100_000 }))));
  await to.transaction(async (write) => {
    for (const [place, each] of tables.entries()) {
      await write.insert(each, (rows[place] ?? []).map((row) => to.fit(each, row)));
    }
  });
}
