/**
 * A site without a feed: the product's applier and row audit on the memory twin and the virtual clock. Images are brought as if
 * the stream had; a hand writes past them.
 */
import { GUARD_DEFAULTS } from "../../capture/guard.ts";
import { Holding, HELD_TABLE } from "../../capture/held.ts";
import { present } from "../../core/assert.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { MemoryOptions } from "../../rows/memory-store.ts";
import type { Page, RowReader, Rows, RowWriter } from "../../rows/rows.ts";
import { changeOf, encodeChange } from "../../schemas/change.ts";
import type { Service, Table } from "../../schemas/define.ts";
import { canonicalImage, keyFromText, type Row } from "../../schemas/row.ts";
import { Applier, APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { DRIFT_TABLE, listDrift, type DriftNote } from "../../syncd/drift.ts";
import { HEARD_TABLE, noteHeard } from "../../syncd/heard.ts";
import { APPLIED_TABLE, LEDGER_TABLES, startPosition } from "../../syncd/ledger.ts";
import type { Received } from "../../syncd/received.ts";
import { RowAudit, ROW_AUDIT_DEFAULTS, type RowAuditOptions, type RowAuditReport } from "../../syncd/row-audit.ts";
import { altered } from "../simulation/altered.ts";
import { VirtualClock } from "./virtual-clock.ts";

const signal = new AbortController().signal;
const STREAM = "HOLDFAST_TEST";

export type Tables = Readonly<Record<string, readonly Row[]>>;

/** One service at one site, without a feed. */
export class AuditedSite {
  readonly clock = new VirtualClock();
  readonly faults = new Faults(this.clock);
  readonly world: World = { clock: this.clock, random: seededRandom(1), log: silentLog, metrics: noMetrics };
  readonly rows: Rows;
  readonly service: Service;
  readonly audit: RowAudit;
  isFollowing = true;
  repairs = 0;
  /** What the centre says when it is asked what is gone; undefined: nothing. And whether the ledger is known to be whole. */
  word: { readonly isProven: boolean; readonly gone: ReadonlySet<string> | "all" | undefined } = { isProven: true, gone: "all" };
  /** Called once, in the middle of the audit's next look at the ledger. */
  meanwhile: (() => Promise<void>) | undefined;
  #applier: Applier | undefined;
  #sequence = 0;
  #beats = 0;

  constructor(service: Service, options: Partial<RowAuditOptions> = {}, store: MemoryOptions = {}) {
    this.service = service;
    this.rows = memoryRows([...service.tables.values(), ...LEDGER_TABLES, HEARD_TABLE, DRIFT_TABLE, HELD_TABLE], store);
    const holding = new Holding({ service, rows: this.rows, faults: this.faults }, this.world, GUARD_DEFAULTS);
    const looking = (read: RowReader): RowReader =>
      altered(read, { page: (table, page, columns) => this.#look(read, table, page, columns) });
    const rows = altered(this.rows, { snapshot: <T>(work: (read: RowReader) => Promise<T>) =>
      this.rows.snapshot((read) => work(looking(read))) });
    this.audit = new RowAudit({ service, rows, stream: STREAM, faults: this.faults, holding,
      isFollowing: () => this.isFollowing, committed: () => undefined, isProven: () => this.word.isProven,
      confirmGone: (names) => Promise.resolve(this.word.gone === "all" ? new Set(names) : this.word.gone),
      repair: async (changes) => {
        this.repairs += changes.length;
        await present(this.#applier, "applier").repair(changes, signal);
      } }, this.world, { ...ROW_AUDIT_DEFAULTS, ...options });
  }

  async #look(read: RowReader, table: Table, page: Page, columns: readonly string[] | undefined): Promise<Row[]> {
    const found = await read.page(table, page, columns);
    const { meanwhile } = this;
    if (meanwhile !== undefined && table === APPLIED_TABLE) {
      this.meanwhile = undefined;
      await meanwhile();
    }
    return found;
  }

  /** As if a heartbeat had passed. */
  hear(filled: boolean): Promise<void> {
    const heard = { epoch: 1, n: (this.#beats += 1), sequence: this.#sequence, filled, floor: { epoch: 0, sequence: 0 } };
    return this.rows.transaction((write) => noteHeard(write, STREAM, heard));
  }

  /** As if the stream had brought these images. */
  async bring(images: Readonly<Record<string, Tables | undefined>>): Promise<void> {
    const position = { epoch: 1, sequence: this.#sequence, mode: "tail" } as const;
    if (this.#applier === undefined) {
      await this.rows.transaction((write) => startPosition(write, STREAM, position));
      await this.hear(true);
      const rooms = { service: this.service, rows: this.rows, stream: STREAM, isOutdated: () => Promise.resolve(false) };
      this.#applier = new Applier(rooms, position, this.faults, this.world, APPLIER_DEFAULTS, () => undefined);
    }
    const changes = Object.entries(images).map(([name, tables]): Received => {
      const image = canonicalImage(this.service, keyFromText(name), tables);
      const change = changeOf(image, present(this.service.migrations.verified[0], "a revision"));
      const payload = tables === undefined ? undefined : Buffer.from(encodeChange(change)).toString();
      return { ...change, version: { epoch: 1, sequence: (this.#sequence += 1) }, payload };
    });
    await this.#applier.carry({ changes, unreadable: [] }, { ...position, sequence: this.#sequence }, signal);
  }

  /** Somebody's own SQL. */
  byHand(work: (write: RowWriter) => Promise<void>): Promise<void> {
    return this.rows.transaction(work);
  }

  table(name: string): Table {
    return present(this.service.tables.get(name), name);
  }

  read(table: string): Promise<Row[]> {
    return this.rows.snapshot((read) => read.page(this.table(table), { limit: 1_000 }));
  }

  drift(): Promise<readonly DriftNote[]> {
    return this.rows.snapshot((read) => listDrift(read, undefined, 1_000));
  }

  /** Runs one pass and gives its report. */
  async pass(): Promise<RowAuditReport> {
    let report: RowAuditReport | undefined;
    let failure: unknown;
    this.audit.runNow(() => undefined, signal).then((done) => (report = done), (error: unknown) => (failure = error));
    await this.clock.runUntil(() => report !== undefined || failure !== undefined, 60_000);
    if (failure !== undefined) throw failure;
    return present(report, "a pass ends within its time");
  }
}
