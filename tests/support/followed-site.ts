/**
 * A site that follows a stream, with a centre of a few lines: images, heartbeats and manifests are put on the stream by hand, in
 * whatever order a test is about. What a manifest says is computed from the stream itself, without product code of the auditor.
 */
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import type { Metrics } from "../../core/metrics.ts";
import { noMetrics } from "../../core/metrics.ts";
import type { Operation, Operations } from "../../core/operation.ts";
import { present } from "../../core/assert.ts";
import { seededRandom } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import { serveOperations } from "../../feed/asking.ts";
import type { Feed, FeedMessage } from "../../feed/feed.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import { MemoryStream, type MemoryStreamOptions } from "../../feed/memory-stream.ts";
import { auditAskSubject, filterOf, heartbeatSubject, keyOfSubject, manifestSubject, subjectOf } from "../../feed/subjects.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows } from "../../rows/rows.ts";
import { changeOf, decodeChange, encodeChange } from "../../schemas/change.ts";
import type { Service } from "../../schemas/define.ts";
import { bucketOf, Buckets, encodeControl, hashOfName, rootOf, type Heartbeat, type Manifest } from "../../schemas/manifest.ts";
import { isUrgent } from "../../schemas/urgent.ts";
import { canonicalImage, keyText, rowText, type AggregateKey, type Row } from "../../schemas/row.ts";
import { APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { FOLLOW_DEFAULTS, Follower, type FollowOptions } from "../../syncd/follow.ts";
import { APPLIED_TABLE } from "../../syncd/ledger.ts";
import { toy, TOY_REVISION } from "./toy-service.ts";
import type { VirtualClock } from "./virtual-clock.ts";

const SCOPE = "all";
const SITE = "edge1";
const ROWS_MAX = 100_000;

export type Tables = Readonly<Record<string, readonly Row[]>>;

/** A group's rows: the aggregate that needs nothing else. */
export const groupRows = (id: string, name = id): Tables => ({ group: [{ id, name }] });

/** Counts by name and labels. */
export class CountingMetrics implements Metrics {
  readonly counts = new Map<string, number>();
  readonly observe = noMetrics.observe.bind(noMetrics);
  readonly gauge = noMetrics.gauge.bind(noMetrics);
  readonly render = noMetrics.render.bind(noMetrics);

  count(name: string, amount = 1, labels: Readonly<Record<string, string>> = {}): void {
    const { service: _service, ...others } = labels;
    const full = [name, ...Object.values(others)].join(" ");
    this.counts.set(full, (this.counts.get(full) ?? 0) + amount);
  }
}

/** The stream and what a centre says on it. */
export class StagedCentre {
  readonly stream: MemoryStream;
  readonly feed: MemoryFeed;
  readonly service: Service;
  epoch = 1;
  n = 0;
  readonly #clock: VirtualClock;
  /** Names that sites asked to have published again. */
  readonly askedAgain: string[] = [];
  /** Buckets whose leaves were asked for. */
  readonly askedLeaves: number[] = [];
  /** Names that the central database has, whatever the stream shows. */
  readonly kept = new Set<string>();
  #unserve: () => void;

  constructor(clock: VirtualClock, service: Service = toy, options: MemoryStreamOptions = {}) {
    this.#clock = clock;
    this.service = service;
    this.stream = new MemoryStream(service.name, clock, options);
    this.stream.ensure();
    this.feed = memoryFeed(this.stream, clock);
    this.#unserve = this.#serve(new Map());
  }

  #serve(operations: Operations): () => void {
    const gone: Operation = ({ names }) =>
      Promise.resolve({ gone: (Array.isArray(names) ? names : []).filter((name) => !this.kept.has(String(name))) });
    return serveOperations(this.feed, auditAskSubject(this.service.name, "*"), new Map([...operations, ["gone", gone]]),
      silentLog);
  }

  /** Nobody at the centre answers any more. */
  silence(): void {
    this.#unserve();
  }

  async #publish(subject: string, headers: Readonly<Record<string, string>>, payload: Uint8Array): Promise<number> {
    const published = await this.feed.publish({ subject, payload, id: `${subject} ${this.stream.lastSequence()} ${this.n}`,
      headers: { "Hf-Epoch": String(this.epoch), "Hf-At": String(this.#clock.nowMs()), ...headers },
      expected: this.stream.last(subject)?.sequence ?? 0 });
    return published.stored ? published.sequence : Promise.reject(new Error("a conflict"));
  }

  /** Publishes an image, or a tombstone without rows; its sequence. */
  put(kind: string, values: readonly string[], rows?: Tables): Promise<number> {
    const key: AggregateKey = { kind, values };
    const change = changeOf(canonicalImage(this.service, key, rows), TOY_REVISION);
    const headers = { "Hf-Digest": change.digest, "Hf-Schema": TOY_REVISION,
      ...(rows === undefined ? { "Hf-Deleted": "1" } : {}),
      ...(isUrgent(this.service, change.image) ? { "Hf-Urgent": "1" } : {}) };
    return this.#publish(subjectOf(this.service.name, SCOPE, key), headers, encodeChange(change));
  }

  group(id: string, name = id): Promise<number> {
    return this.put("group", [id], groupRows(id, name));
  }

  async groups(...ids: readonly string[]): Promise<void> {
    for (const id of ids) await this.group(id);
  }

  /** The next heartbeat. */
  beat(said: Partial<Heartbeat> = {}): Promise<number> {
    const heartbeat: Heartbeat = { epoch: this.epoch, n: (this.n += 1), tip: this.stream.lastSequence(), filled: true,
      floor: { epoch: 0, sequence: 0 }, ...said };
    return this.#publish(heartbeatSubject(this.service.name, SCOPE), {}, encodeControl(heartbeat));
  }

  /** Everything that is live on the stream, by name. */
  live(): ReadonlyMap<string, FeedMessage> {
    const live = new Map<string, FeedMessage>();
    for (const message of this.stream.above(0, filterOf(this.service.name, SCOPE))) {
      const key = keyOfSubject(message.subject);
      if (key !== undefined && message.headers["Hf-Deleted"] !== "1") live.set(keyText(key), message);
    }
    return live;
  }

  /** What a manifest of the stream says now. */
  summedUp(): Manifest {
    const buckets = new Buckets();
    const live = this.live();
    for (const [name, message] of live) buckets.toggle(hashOfName(name), message.headers["Hf-Digest"] ?? "");
    const text = buckets.text();
    return { epoch: this.epoch, asOf: this.stream.lastSequence(), floor: { epoch: 0, sequence: 0 }, schema: TOY_REVISION,
      aggregates: live.size, root: rootOf(text), buckets: text };
  }

  /** Publishes a manifest, of the stream as it is unless one is given. */
  manifest(manifest = this.summedUp()): Promise<number> {
    return this.#publish(manifestSubject(this.service.name, SCOPE), {}, encodeControl(manifest));
  }

  /** Answers "leaves" and "again", too, as the auditor does, until the returned function is called. */
  answer(leavesPerPage = 2): () => void {
    const leaves: Operation = ({ bucket, after }) => {
      this.askedLeaves.push(Number(bucket));
      const all = [...this.live()].filter(([name]) => bucketOf(hashOfName(name)) === Number(bucket)).sort();
      const from = all.findIndex(([name]) => after === undefined || name > String(after));
      const page = from === -1 ? [] : all.slice(from, from + leavesPerPage);
      const next = from !== -1 && from + leavesPerPage < all.length ? page.at(-1)?.[0] : undefined;
      return Promise.resolve({ epoch: this.epoch, asOf: this.stream.lastSequence(), ...(next === undefined ? {} : { next }),
        leaves: page.map(([name, message]) => [name, Number(message.headers["Hf-Epoch"]), message.sequence,
          message.headers["Hf-Digest"] ?? ""]) });
    };
    const again: Operation = async ({ names }) => {
      for (const name of Array.isArray(names) ? names.map(String) : []) {
        this.askedAgain.push(name);
        const message = this.live().get(name);
        if (message !== undefined) await this.#publish(message.subject, message.headers, message.payload);
      }
      return { accepted: Array.isArray(names) ? names.length : 0 };
    };
    this.#unserve();
    this.#unserve = this.#serve(new Map([["leaves", leaves], ["again", again]]));
    return () => {
      this.#unserve();
      this.#unserve = this.#serve(new Map());
    };
  }
}

export interface SiteOptions extends Partial<FollowOptions> {
  readonly changesMax?: number;
  /** Wraps what the follower uses. */
  readonly rows?: (rows: Rows) => Rows;
  readonly feed?: (feed: Feed) => Feed;
}

/** A site with its database; the daemon can be ended and started again. */
export class FollowedSite {
  readonly rows: Rows;
  readonly metrics = new CountingMetrics();
  faults: Faults;
  feed: MemoryFeed;
  follower: Follower;
  readonly #clock: VirtualClock;
  readonly #centre: StagedCentre;

  constructor(clock: VirtualClock, centre: StagedCentre, options: SiteOptions = {}) {
    this.#clock = clock;
    this.#centre = centre;
    this.rows = memoryRows([...centre.service.tables.values()], { revisions: [TOY_REVISION] });
    this.faults = new Faults(clock);
    this.feed = memoryFeed(centre.stream, clock, { idleHeartbeatMs: 5_000 });
    this.follower = this.#started(options);
  }

  #started({ changesMax = 100, rows = (each) => each, feed = (each) => each, ...follow }: SiteOptions): Follower {
    const world: World = { clock: this.#clock, random: seededRandom(1), log: silentLog, metrics: this.metrics };
    const follower = new Follower({ service: this.#centre.service, scope: SCOPE, site: SITE, rows: rows(this.rows),
      feed: feed(this.feed), faults: this.faults, committed: () => undefined }, world, { changesMax, bytesMax: 1 << 20 },
      APPLIER_DEFAULTS, { ...FOLLOW_DEFAULTS, ...follow });
    void follower.start();
    return follower;
  }

  /** The daemon is gone without a word, and another starts. */
  crash(options: SiteOptions = {}): void {
    this.feed.cut("crashed");
    void this.follower.stop();
    this.faults = new Faults(this.#clock);
    this.feed = memoryFeed(this.#centre.stream, this.#clock, { idleHeartbeatMs: 5_000 });
    this.follower = this.#started(options);
  }

  get codes(): readonly string[] {
    return this.faults.list().map(({ code }) => code);
  }

  /** Lets time pass until the site stands at the stream's end in `mode`; false when it does not in `limitMs`. */
  caughtUp(mode = "tail", limitMs = 120_000): Promise<boolean> {
    return this.#clock.runUntil(() => {
      const status = this.follower.status();
      const last = this.#centre.stream.last(filterOf(this.#centre.service.name, SCOPE))?.sequence ?? 0;
      return status.mode === mode && status.sequence === last && status.notReady === undefined;
    }, limitMs);
  }

  /** Names of the aggregates that the ledger calls live. */
  async applied(): Promise<readonly string[]> {
    const rows = await this.rows.snapshot((read) => read.page(APPLIED_TABLE, { limit: ROWS_MAX }));
    return rows.filter((row) => row["deleted"] === false).map((row) => String(row["name"])).sort();
  }

  /** Rows of a table as texts. */
  async texts(name: string): Promise<readonly string[]> {
    const table = present(this.#centre.service.tables.get(name), name);
    const rows = await this.rows.snapshot((read) => read.page(table, { limit: ROWS_MAX }));
    return rows.map((row) => rowText(row, table.sent)).sort();
  }

  /** What the site's tables have that the stream's images have not, and the reverse. */
  async differences(): Promise<readonly string[]> {
    const wanted = new Map<string, string[]>();
    for (const message of this.#centre.live().values()) {
      const { image } = decodeChange(this.#centre.service, message.subject, message.payload);
      for (const [name, rows] of Object.entries(image.rows ?? {})) {
        const { sent } = present(this.#centre.service.tables.get(name), name);
        wanted.set(name, [...(wanted.get(name) ?? []), ...rows.map((row) => rowText(row, sent))]);
      }
    }
    const differing: string[] = [];
    for (const name of this.#centre.service.tables.keys()) {
      const here = new Set(await this.texts(name));
      const there = new Set(wanted.get(name) ?? []);
      differing.push(...[...there].filter((text) => !here.has(text)).map((text) => `missing in ${name}: ${text}`),
        ...[...here].filter((text) => !there.has(text)).map((text) => `too much in ${name}: ${text}`));
    }
    return differing;
  }
}
