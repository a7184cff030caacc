/**
 * The auditor of one service at the centre: keeps an index of the stream, compares the database with it, says heartbeats and
 * manifests, notices when the stream or the database is not what it was, and collects tombstones. It finds whatever the event
 * path missed, so that no other part's memory has to be right for sites to become equal to the centre.
 *
 * Invariants: nothing is published but through the publish loop, nothing is deleted or rewritten past the guard; no heartbeat is
 * said between the end of a reading that broke and the verdict on what the next complete one proved, because a heartbeat covers
 * the traces, and sites take its epoch for the stream's.
 * A second auditor is harmless: what both find is said once. It may die anywhere: the next one starts from database and stream.
 * Not here: the parts it composes (tail, index, heartbeats, manifest, tombstones), sites (syncd/).
 */
import { sleep } from "../core/clock.ts";
import { isOperating, OperatingError } from "../core/errors.ts";
import type { Faults } from "../core/faults.ts";
import type { Part } from "../core/lifecycle.ts";
import { factsOf } from "../core/log.ts";
import type { Progress } from "../core/operation.ts";
import { waitBeforeRetry } from "../core/retry.ts";
import { stopSignal } from "../core/signal.ts";
import type { World } from "../core/world.ts";
import { CAPTURE_DEFAULTS, CaptureRoom, type CaptureOptions } from "../capture/capture.ts";
import { HELD_TABLE } from "../capture/held.ts";
import type { ScanCounts } from "../capture/scan.ts";
import type { KindView } from "../capture/view.ts";
import { serveOperations } from "../feed/asking.ts";
import type { Feed } from "../feed/feed.ts";
import { auditAskSubject } from "../feed/subjects.ts";
import type { Rows } from "../rows/rows.ts";
import type { Service } from "../schemas/define.ts";
import type { Manifest } from "../schemas/manifest.ts";
import { Heartbeats, type Beat } from "./heartbeat.ts";
import { releasedKinds } from "./holdings.ts";
import { Judge } from "./judge.ts";
import { manifestOf, sayManifest } from "./manifest.ts";
import { AUDIT_TABLE, readNote } from "./notes.ts";
import { Orphans } from "./orphans.ts";
import { patiently, untilStopped } from "./patience.ts";
import { Questions } from "./questions.ts";
import { reportOf, type AuditReport } from "./report.ts";
import { StreamIndex } from "./stream-index.ts";
import { Tail } from "./tail.ts";
import { collect, dueTombstones } from "./tombstones.ts";

export interface AuditorRooms {
  readonly service: Service;
  readonly scope: string;
  readonly rows: Rows;
  readonly feed: Feed;
  readonly faults: Faults;
}

export interface AuditorOptions {
  /** Between two audits. */
  readonly everyMs: number;
  readonly heartbeatEveryMs: number;
  /** Between two complete readings of the stream. */
  readonly rereadEveryMs: number;
  readonly tombstonesKeptMs: number;
  /** References from images to others that are remembered; above it comparisons of whole kinds do the work. */
  readonly backReferencesMax: number;
  readonly capture: CaptureOptions;
}

export const AUDITOR_DEFAULTS: AuditorOptions = {
  everyMs: 600_000, heartbeatEveryMs: 15_000, rereadEveryMs: 3_600_000, tombstonesKeptMs: 30 * 24 * 3_600_000,
  backReferencesMax: 2_000_000, capture: { ...CAPTURE_DEFAULTS, scan: { ...CAPTURE_DEFAULTS.scan, pageKeysMax: 1_000 } },
};

const BACKOFF = { firstMs: 500, lastMs: 30_000 };
const READ_MESSAGES_MAX = 1_000;
const READ_BYTES_MAX = 4 << 20;
/** How long the index may need to reach what was published before. */
const REACH_MS = 30_000;
const FILLED_LOOK_MS = 250;

interface Asked {
  readonly progress: (progress: Progress) => void;
  readonly tell: (report: AuditReport) => void;
  readonly refuse: (error: OperatingError) => void;
}

/** One service at the centre. start() returns at once; what is away is waited for and named by notReady(). */
export class Auditor implements Part {
  readonly name: string;
  /** The centre's capture: for whoever else has something to publish in this process. */
  readonly capture: CaptureRoom;
  readonly #rooms: AuditorRooms;
  readonly #world: World;
  readonly #options: AuditorOptions;
  readonly #stopping = stopSignal();
  readonly #index: StreamIndex;
  readonly #tail: Tail;
  readonly #heartbeats: Heartbeats;
  readonly #questions: Questions;
  readonly #judge: Judge;
  readonly #orphans: Orphans;
  readonly #asked: Asked[] = [];
  #nudge = stopSignal();
  #report: AuditReport | undefined;
  #working: Promise<unknown> = Promise.resolve();

  constructor(rooms: AuditorRooms, world: World, options: AuditorOptions) {
    this.name = `audit ${rooms.service.name}`;
    this.#rooms = rooms;
    this.#world = world;
    this.#options = options;
    this.#index = new StreamIndex(rooms.service, options.backReferencesMax);
    this.capture = new CaptureRoom({ ...rooms, shownAt: (name) => this.#tail.shownAt(name),
      view: { entriesOf: (kind, signal) => this.#view(kind, signal) } }, world, options.capture);
    this.#tail = new Tail({ ...rooms, index: this.#index }, world, { rereadEveryMs: options.rereadEveryMs, backoff: BACKOFF,
      batchMessagesMax: READ_MESSAGES_MAX, batchBytesMax: READ_BYTES_MAX }, {
      known: () => {
        this.#judge.readingBegins();
        return readNote(rooms.rows, rooms.feed.stream);
      },
      interrupted: () => this.#judge.readingBegins(),
      readAgain: (facts) => void this.#judge.judge(facts).then(() => this.#nudge.abort()),
      orphaned: (names) => this.#orphans.note(names),
      newEpoch: (epoch) => this.capture.noteEpoch(epoch),
    });
    this.#judge = new Judge({ ...rooms, capture: this.capture, tail: this.#tail }, world, this.#stopping.signal);
    this.#orphans = new Orphans(this.capture, world);
    this.#heartbeats = new Heartbeats({ ...rooms, era: () => this.capture.era, shorter: () => this.#tail.doubt(),
      heard: () => this.#tail.lastHeartbeat, shownAt: (subject) => this.#tail.subjectShownAt(subject),
      reached: () => (this.#tail.complete.isOpen ? this.#index.reached : 0), sawEpoch: (epoch) => this.capture.noteEpoch(epoch),
      restored: (reason, least) => this.#restored(reason, least) }, world);
    this.#questions = new Questions({ service: rooms.service, rows: rooms.rows, index: this.#index, capture: this.capture,
      isComplete: () => this.#tail.complete.isOpen }, world);
    this.#measure();
  }

  start(): Promise<void> {
    this.#working = this.#live();
    return Promise.resolve();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#nudge.abort();
    await this.capture.stop();
    await this.#working;
    this.#refuseAsked();
  }

  notReady(): string | undefined {
    return this.capture.notReady() ?? (this.#tail.complete.isOpen ? undefined : "reading the stream");
  }

  /** The last audit; undefined before the first one ended. */
  get report(): AuditReport | undefined {
    return this.#report;
  }

  /** For the status document. */
  status(): object {
    return { service: this.#rooms.service.name, ...this.capture.status(), aggregates: this.#index.live,
      tombstones: this.#index.tombstones, reached: this.#index.reached, isComplete: this.#tail.complete.isOpen,
      backReferences: this.#index.backReferencesDropped ? "dropped" : this.#index.backReferences,
      notReady: this.notReady(), lastAudit: this.#report };
  }

  /** Audits soon; resolves with an audit that began after this call. @throws E_FEED_UNAVAILABLE when stopped before its end */
  auditNow(progress: (progress: Progress) => void = () => undefined): Promise<AuditReport> {
    const report = new Promise<AuditReport>((tell, refuse) => this.#asked.push({ progress, tell, refuse }));
    if (this.#stopping.signal.aborted) this.#refuseAsked();
    this.#nudge.abort();
    return report;
  }

  async #live(): Promise<void> {
    const { signal } = this.#stopping;
    await this.capture.start();
    await this.capture.ready(signal);
    await patiently(() => this.#rooms.rows.ensureTables([AUDIT_TABLE, HELD_TABLE]), this.#world, BACKOFF, signal);
    if (signal.aborted) return;
    const unserve = serveOperations(this.#rooms.feed, auditAskSubject(this.#rooms.service.name, "*"),
      this.#questions.operations(), this.#world.log);
    await Promise.all([this.#tail.run(signal), this.#beat(), this.#auditAgainAndAgain(), this.#orphans.run(signal)]);
    unserve();
  }

  /** The index as a view of the stream, once it has everything that is there now. */
  async #view(kind: string, signal: AbortSignal): Promise<KindView> {
    await this.#tail.complete.passed(signal);
    const { lastSequence } = await this.#rooms.feed.state();
    if (!await this.#tail.reaches(lastSequence, REACH_MS, signal)) {
      throw new OperatingError("E_FEED_UNAVAILABLE", "the index does not reach the end of the stream", { kind, lastSequence,
        reached: this.#index.reached });
    }
    return this.#index.viewOf(kind);
  }

  async #restored(reason: string, least: number | undefined): Promise<void> {
    const { feed, faults } = this.#rooms;
    this.#world.log.error("the central database is older than what was said before", { reason, least });
    if (least !== undefined) await this.capture.raiseEpoch(reason, least, "database");
    faults.raise("E_CENTRE_RESTORED", feed.stream, reason, { epoch: this.capture.era?.epoch });
  }

  /** Heartbeats, and with each a look at what was released. */
  async #beat(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      await this.#judge.settled.passed(signal);
      if (signal.aborted) return;
      try {
        const beat = await this.#heartbeats.beat();
        // Sites wait for the first manifest of an epoch.
        if (beat !== undefined && this.#report !== undefined && beat.epoch !== this.#report.epoch) this.#nudge.abort();
        await this.#lookAtReleased();
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#world.log.warn("a heartbeat was not said", { service: this.#rooms.service.name, ...factsOf(error) });
      }
      await sleep(this.#world.clock, this.#options.heartbeatEveryMs, signal);
    }
  }

  async #lookAtReleased(): Promise<void> {
    for (const kind of await releasedKinds(this.#rooms)) void this.compareKind(kind);
  }

  /** Compares one kind at once, because a person released it, and says a new manifest afterwards. Never rejects. */
  async compareKind(kind: string): Promise<void> {
    await untilStopped(this.capture.scan(kind, "images"), this.#stopping.signal);
    this.#nudge.abort();
  }

  async #auditAgainAndAgain(): Promise<void> {
    const { signal } = this.#stopping;
    for (let failures = 0; !signal.aborted; ) {
      const asked = this.#asked.splice(0);
      if (this.#nudge.signal.aborted) this.#nudge = stopSignal();
      try {
        const report = await this.#audit((progress) => asked.forEach((one) => one.progress(progress)));
        if (report === undefined) return void this.#asked.push(...asked);
        this.#report = report;
        for (const { tell } of asked) tell(report);
        failures = 0;
        if (this.#asked.length === 0) await sleep(this.#world.clock, this.#options.everyMs, this.#nudge.signal);
      } catch (error) {
        if (!isOperating(error)) throw error;
        this.#asked.unshift(...asked);
        this.#world.log.warn("an audit did not come to its end and is tried again", { service: this.#rooms.service.name,
          ...factsOf(error) });
        await waitBeforeRetry(this.#world, BACKOFF, ++failures, signal);
      }
    }
  }

  /** One audit; undefined when stopped before its end. @throws E_ROWS_*, E_FEED_*: what it published stays published */
  async #audit(progress: (progress: Progress) => void): Promise<AuditReport | undefined> {
    const { signal } = this.#stopping;
    const { clock, metrics } = this.#world;
    const [atMs, startedMs] = [clock.nowMs(), clock.monotonicMs()];
    if (!await this.#filled(progress)) return undefined;
    const counts = await this.#compare(progress);
    if (counts === undefined) return undefined;
    progress({ step: "saying a manifest", done: this.#index.live, total: this.#index.live });
    const due = await dueTombstones({ ...this.#rooms, index: this.#index }, this.#world, this.#options.tombstonesKeptMs);
    const beat = await this.#beatReached();
    const manifest = beat === undefined ? undefined : await this.#sayManifest(beat);
    if (signal.aborted) return undefined;
    if (manifest === undefined) throw new OperatingError("E_FEED_UNAVAILABLE", "epoch or stream changed during the audit");
    const collected = await collect({ ...this.#rooms, index: this.#index }, this.#world, due, manifest.floor);
    const tookMs = clock.monotonicMs() - startedMs;
    metrics.observe("holdfast_audit_seconds", tookMs / 1000, { service: this.#rooms.service.name });
    metrics.count("holdfast_audits_total", 1, { service: this.#rooms.service.name });
    return reportOf({ service: this.#rooms.service.name, atMs, tookMs, collected, manifest }, counts);
  }

  /** True once the index is complete and the stream was filled in this epoch; false when stopped. */
  async #filled(progress: (progress: Progress) => void): Promise<boolean> {
    const { signal } = this.#stopping;
    progress({ step: "reading the stream", done: 0, total: undefined });
    await this.#judge.settled.passed(signal);
    while (!signal.aborted && this.capture.era?.filled !== true) {
      progress({ step: "comparing the whole database with a new stream", done: this.#index.live, total: undefined });
      await sleep(this.#world.clock, FILLED_LOOK_MS, signal);
    }
    return !signal.aborted;
  }

  async #compare(progress: (progress: Progress) => void): Promise<readonly ScanCounts[] | undefined> {
    let done = 0;
    const compared = this.capture.scanAll("images", ({ kind, aggregates }) => {
      done += aggregates;
      progress({ step: `compared ${kind}`, done, total: Math.max(done, this.#index.live) });
    });
    return untilStopped(compared, this.#stopping.signal);
  }

  /** A heartbeat that the index has reached: then it holds everything that was published before. */
  async #beatReached(): Promise<Beat | undefined> {
    const { signal } = this.#stopping;
    await this.#judge.settled.passed(signal);
    if (signal.aborted) return undefined;
    const beat = await this.#heartbeats.beat();
    return beat !== undefined && await this.#tail.reaches(beat.sequence, REACH_MS, signal) ? beat : undefined;
  }

  #sayManifest(beat: Beat): Promise<Manifest | undefined> {
    return sayManifest({ ...this.#rooms, shownAt: (subject) => this.#tail.subjectShownAt(subject) }, this.#world, () => {
      const era = this.capture.era;
      const isTrue = era?.filled === true && era.epoch === beat.epoch && beat.filled && this.#tail.complete.isOpen;
      return isTrue ? manifestOf(this.#index, era, beat.floor) : undefined;
    });
  }

  #refuseAsked(): void {
    for (const { refuse } of this.#asked.splice(0)) refuse(new OperatingError("E_FEED_UNAVAILABLE", "the auditor is stopping"));
  }

  #measure(): void {
    const labels = { service: this.#rooms.service.name };
    const { metrics, clock } = this.#world;
    metrics.gauge("holdfast_index_aggregates", () => this.#index.live, labels);
    metrics.gauge("holdfast_index_tombstones", () => this.#index.tombstones, labels);
    metrics.gauge("holdfast_index_back_references", () => this.#index.backReferences, labels);
    metrics.gauge("holdfast_audit_age_seconds", () =>
      (this.#report === undefined ? 0 : (clock.nowMs() - this.#report.atMs) / 1000), labels);
  }
}
