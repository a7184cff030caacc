/** A centre on twins for the auditor's tests: a database, a stream, auditors and publishers that come and go, virtual time. */
import assert from "node:assert/strict";
import { Auditor, AUDITOR_DEFAULTS, type AuditorOptions } from "../../audit/auditor.ts";
import { epochInDatabase } from "../../audit/notes.ts";
import type { AuditReport } from "../../audit/report.ts";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { present } from "../../core/assert.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { heartbeatSubject, manifestSubject, subjectPrefix } from "../../feed/subjects.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import { Buckets, decodeHeartbeat, decodeManifest, hashOfName, rootOf, type Heartbeat,
  type Manifest } from "../../schemas/manifest.ts";
import type { Table } from "../../schemas/define.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

export const SCOPE = "all";
const PREFIX = subjectPrefix(toy.name, SCOPE);
const LIMIT_MS = 600_000;

export const tableOf = (name: string): Table => present(toy.tables.get(name), name);
export const subjectOfName = (name: string): string => `${PREFIX}.${name}`;

/** An auditor that a test started. */
export interface StagedAuditor {
  readonly auditor: Auditor;
  readonly feed: MemoryFeed;
  readonly faults: Faults;
}

/** See the file's head. */
export class AuditStage {
  readonly clock = new VirtualClock();
  /** How often a quiet stream shows that it is alive. */
  idleHeartbeatMs = 1_000;
  stream = new MemoryStream(toy.name, this.clock);
  rows: Rows = this.freshRows();
  readonly #running: StagedAuditor[] = [];
  #seed = 0;

  freshRows(): Rows {
    return memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION], cascades: ["secret", "membership"] });
  }

  world(): World {
    this.#seed += 1;
    return { clock: this.clock, random: seededRandom(this.#seed), log: silentLog, metrics: noMetrics };
  }

  /** Starts an auditor and waits for its first audit. */
  async auditor(options: Partial<AuditorOptions> = {}): Promise<StagedAuditor> {
    const started = this.begin(options);
    await this.until(() => started.auditor.report !== undefined, "the first audit ends");
    return started;
  }

  begin(options: Partial<AuditorOptions> = {}): StagedAuditor {
    const world = this.world();
    const feed = memoryFeed(this.stream, this.clock, { idleHeartbeatMs: this.idleHeartbeatMs });
    const faults = new Faults(this.clock);
    const auditor = new Auditor({ service: toy, scope: SCOPE, rows: this.rows, feed, faults }, world,
      { ...AUDITOR_DEFAULTS, ...options });
    void auditor.start();
    const started = { auditor, feed, faults };
    this.#running.push(started);
    return started;
  }

  /** A capture room beside the auditors, as a proxy has one. */
  async proxy(): Promise<CaptureRoom> {
    const feed = memoryFeed(this.stream, this.clock);
    const room = new CaptureRoom({ service: toy, scope: SCOPE, rows: this.rows, feed, faults: new Faults(this.clock) },
      this.world(), CAPTURE_DEFAULTS);
    void room.start();
    await this.until(() => room.era?.filled === true, "the proxy's capture is ready");
    return room;
  }

  /** As a process that is killed. */
  kill(started: StagedAuditor): void {
    started.feed.cut("killed");
    void started.auditor.stop();
  }

  async write(work: (write: RowWriter) => Promise<void>): Promise<void> {
    await this.rows.transaction(work);
  }

  async insert(table: string, rows: readonly Readonly<Record<string, string | number | null>>[]): Promise<void> {
    await this.write((write) => write.insert(tableOf(table), rows));
  }

  async until(done: () => boolean, what: string, limitMs = LIMIT_MS): Promise<void> {
    assert(await this.clock.runUntil(done, limitMs), what);
  }

  /** What `work` gives, in virtual time. */
  async result<T>(work: Promise<T>, what: string): Promise<T> {
    let outcome: { readonly value: T } | undefined;
    let failure: unknown;
    void work.then((value) => void (outcome = { value }), (error: unknown) => void (failure = error));
    await this.until(() => outcome !== undefined || failure !== undefined, what);
    if (failure !== undefined) throw failure instanceof Error ? failure : new Error(String(failure));
    return present(outcome, what).value;
  }

  audit({ auditor }: StagedAuditor): Promise<AuditReport> {
    return this.result(auditor.auditNow(), "an audit ends");
  }

  epoch(): Promise<number> {
    return this.result(epochInDatabase(this.rows, this.stream.name), "the database answers");
  }

  heartbeat(): Heartbeat & { readonly sequence: number } {
    const message = present(this.stream.last(heartbeatSubject(toy.name, SCOPE)), "a heartbeat");
    return { ...decodeHeartbeat(message.subject, message.payload), sequence: message.sequence };
  }

  manifest(): Manifest & { readonly sequence: number } {
    const message = present(this.stream.last(manifestSubject(toy.name, SCOPE)), "a manifest");
    return { ...decodeManifest(message.subject, message.payload), sequence: message.sequence };
  }

  /** Epoch of the manifest; 0 without one. */
  get manifestEpoch(): number {
    return this.stream.last(manifestSubject(toy.name, SCOPE)) === undefined ? 0 : this.manifest().epoch;
  }

  /** Names of live aggregates in the stream, as a new reader finds them, with their headers. */
  inStream(): ReadonlyMap<string, Readonly<Record<string, string>>> {
    const found = new Map<string, Readonly<Record<string, string>>>();
    for (const { subject, headers } of this.stream.above(0, `${PREFIX}.>`)) {
      const name = subject.slice(PREFIX.length + 1);
      if (name.startsWith("_")) continue;
      if (headers["Hf-Deleted"] === "1") found.delete(name);
      else found.set(name, headers);
    }
    return found;
  }

  /** What a manifest of the stream has to say. */
  naiveRoot(): string {
    const buckets = new Buckets();
    for (const [name, headers] of this.inStream()) buckets.toggle(hashOfName(name), headers["Hf-Digest"] ?? "");
    return rootOf(buckets.text());
  }

  async stop(): Promise<void> {
    for (const { auditor } of this.#running) void auditor.stop();
    await this.clock.pass(60_000);
  }
}
