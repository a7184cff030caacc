/**
 * The simulated cloud: a centre's database that "the service" writes, the product's own capture code beside it, a stream, and a
 * site's own follower on the site's database. Everything of the product runs unmodified on the memory twins and the virtual
 * clock; crashes abandon an incarnation and start another from what is durable.
 */
import assert from "node:assert/strict";
import { CAPTURE_DEFAULTS, CaptureRoom, type Before } from "../../capture/capture.ts";
import { STREAM_TABLE } from "../../capture/era.ts";
import { Faults } from "../../core/faults.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom, type Random } from "../../core/random.ts";
import type { World } from "../../core/world.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { CommitFault, RowFault } from "../../rows/memory-store.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Capture, Service } from "../../schemas/define.ts";
import { compareVersions, type Version } from "../../schemas/position.ts";
import { rowText, type Row } from "../../schemas/row.ts";
import { APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { Follower } from "../../syncd/follow.ts";
import { APPLIED_TABLE, LEDGER_TABLES } from "../../syncd/ledger.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** Rows that two databases do not have in common, as far as the second can hold them. */
export async function difference(service: Service, centre: Rows, site: Rows): Promise<readonly string[]> {
  const differing: string[] = [];
  for (const table of service.tables.values()) {
    const read = (rows: Rows): Promise<Row[]> => rows.snapshot((reader) => reader.page(table, { limit: 100_000 }, table.sent));
    const texts = (found: readonly Row[]): ReadonlySet<string> => new Set(found.map((row) => rowText(row, table.sent)));
    const wanted = texts((await read(centre)).map((row) => site.fit(table, row)));
    const held = texts(await read(site));
    for (const text of wanted) if (!held.has(text)) differing.push(`missing in ${table.name}: ${text}`);
    for (const text of held) if (!wanted.has(text)) differing.push(`too much in ${table.name}: ${text}`);
  }
  return differing;
}

/** Chances of each kind of trouble while faults are on; drawn per seed, so that some seeds have only one kind. */
export interface Weather {
  readonly rowFaults: number;
  readonly lostAnswers: number;
  readonly cuts: number;
  readonly crashes: number;
}

/** A centre, a stream and a site, with weather drawn from the seed. */
export class SimulatedCloud {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly world: World;
  readonly weather: Weather;
  readonly stream: MemoryStream;
  readonly centre: Rows;
  readonly site: Rows;
  readonly #versions = new Map<string, Version>();
  #stormy = true;
  #capture: CaptureRoom;
  #centreFeed: MemoryFeed;
  #follower: Follower;
  #siteFeed: MemoryFeed;
  /** Calls whose capture was cut off by a crash: what the intent journal would hold. */
  readonly #intents = new Set<{ readonly declared: Capture; readonly parameters: Record<string, string>; readonly before: Before
    | undefined }>();

  constructor(seed: number) {
    this.random = seededRandom(seed);
    this.world = { clock: this.clock, random: this.random, log: silentLog, metrics: noMetrics };
    const drawn = (most: number): number => (this.random.next() < 0.5 ? 0 : this.random.next() * most);
    this.weather = { rowFaults: drawn(0.05), lostAnswers: drawn(0.1), cuts: drawn(0.02), crashes: drawn(0.05) };
    this.stream = new MemoryStream(toy.name, this.clock);
    this.centre = memoryRows([...toy.tables.values(), STREAM_TABLE], { faults: this.#rowFaults(), revisions: [TOY_REVISION],
      cascades: ["secret"] });
    const caseless = this.random.next() < 0.3;
    this.site = memoryRows([...toy.tables.values(), ...LEDGER_TABLES], { faults: this.#rowFaults(), revisions: [TOY_REVISION],
      cascades: ["secret"],
      ignoresCase: caseless, fractionDigits: caseless ? 0 : 6 });
    ({ feed: this.#centreFeed, capture: this.#capture } = this.#newCentre());
    ({ feed: this.#siteFeed, follower: this.#follower } = this.#newSite());
  }

  #rowFaults(): { beforeCall: (verb: string) => RowFault | undefined; beforeCommit: () => CommitFault | undefined } {
    const drawn = <F>(faults: readonly F[], chance: number): F | undefined =>
      this.#stormy && this.random.next() < chance ? faults[Math.floor(this.random.next() * faults.length)] : undefined;
    return {
      beforeCall: () => (this.#serviceWrites ? undefined
        : drawn<RowFault>(["unavailable", "contended"], this.weather.rowFaults / 4)),
      beforeCommit: () => (this.#serviceWrites ? undefined
        : drawn<CommitFault>(["unknown-stored", "unknown-lost", "contended"], this.weather.rowFaults)),
    };
  }

  /** True while the simulated service itself writes: its own transactions are not what is being tested. */
  #serviceWrites = false;

  startCentre(): void {
    ({ feed: this.#centreFeed, capture: this.#capture } = this.#newCentre());
    for (const intent of this.#intents) void this.#captured(intent);
  }

  #newCentre(): { feed: MemoryFeed; capture: CaptureRoom } {
    const feed = memoryFeed(this.stream, this.clock);
    const capture = new CaptureRoom({ service: toy, scope: "all", rows: this.centre, feed, faults: new Faults(this.clock) },
      this.world, { ...CAPTURE_DEFAULTS, eraEveryMs: 5_000 });
    void capture.start();
    return { feed, capture };
  }

  startSite(): void {
    ({ feed: this.#siteFeed, follower: this.#follower } = this.#newSite());
  }

  #newSite(): { feed: MemoryFeed; follower: Follower } {
    const feed = memoryFeed(this.stream, this.clock, { idleHeartbeatMs: 1_000 });
    const follower = new Follower({ service: toy, scope: "all", rows: this.site, feed, faults: new Faults(this.clock),
      committed: () => undefined }, this.world, { changesMax: 1 + Math.floor(this.random.next() * 20), bytesMax: 1 << 20 },
        APPLIER_DEFAULTS);
    void follower.start();
    return { feed, follower };
  }

  crashCentre(): void {
    this.#centreFeed.cut("crashed");
    void this.#capture.stop();
    this.startCentre();
  }

  crashSite(): void {
    this.#siteFeed.cut("crashed");
    void this.#follower.stop();
    this.startSite();
  }

  /** One call: asked before, written by the service, captured afterwards. The answer may be lost on the way back. */
  async call(declared: Capture, parameters: Record<string, string>, write: () => Promise<string | undefined>): Promise<void> {
    const before = await this.#capture.before(declared, { parameters, request: undefined, answer: undefined }).catch(() =>
      undefined);
    const intent = { declared, parameters, before };
    this.#intents.add(intent);
    this.#serviceWrites = true;
    const answer = await write().finally(() => {
      this.#serviceWrites = false;
    });
    const lost = this.#stormy && this.random.next() < this.weather.lostAnswers;
    void this.#captured(intent, lost ? undefined : answer);
  }

  async #captured(intent: { declared: Capture; parameters: Record<string, string>; before: Before | undefined },
    answer?: string): Promise<void> {
    const capture = this.#capture;
    await capture.after(intent.declared, { parameters: intent.parameters, request: undefined, answer: answer === undefined
      ? undefined : Buffer.from(answer) }, intent.before);
    if (intent.before === undefined) await Promise.all([...new Set(intent.declared.touches.map((touch) =>
      touch.kind))].map((kind) => capture.scan(kind, "keys")));
    if (capture === this.#capture) this.#intents.delete(intent);
  }

  /** Runs `work` without simulated trouble: the test's own looks at a database. */
  async quietly<T>(work: () => Promise<T>): Promise<T> {
    const stormy = this.#stormy;
    this.#stormy = false;
    try {
      return await work();
    } finally {
      this.#stormy = stormy;
    }
  }

  /** Oracle I2: versions applied at the site never go back. */
  async checkVersionsRise(): Promise<void> {
    const rows = await this.quietly(() => this.site.snapshot((read) => read.page(APPLIED_TABLE, { limit: 100_000 })));
    for (const row of rows) {
      const version = { epoch: Number(row["epoch"]), sequence: Number(row["sequence"]) };
      const before = this.#versions.get(String(row["hash"]));
      assert(before === undefined || compareVersions(version, before) >= 0, `the version of ${String(row["name"])} went back`);
      this.#versions.set(String(row["hash"]), version);
    }
  }

  /** Weather between two calls. */
  disturb(): void {
    const chance = (each: number): boolean => this.random.next() < each;
    if (chance(this.weather.crashes)) this.crashCentre();
    if (chance(this.weather.crashes)) this.crashSite();
    if (chance(this.weather.cuts)) this.#siteFeed.cut(this.#siteFeed.disconnected() === undefined ? "cut" : undefined);
    if (chance(this.weather.cuts)) this.#centreFeed.cut(this.#centreFeed.disconnected() === undefined ? "cut" : undefined);
    if (chance(this.weather.lostAnswers)) this.stream.faults.loseAck(chance(0.5) ? "stored" : "not stored");
  }

  /** Faults end; connections are joined again. */
  calm(): void {
    this.#stormy = false;
    this.#siteFeed.cut(undefined);
    this.#centreFeed.cut(undefined);
  }

  get idle(): boolean {
    return this.#intents.size === 0 && this.#capture.status().dirty === 0 && this.#capture.status().scans === 0;
  }

  get siteStatus(): ReturnType<Follower["status"]> {
    return this.#follower.status();
  }

  async stop(): Promise<void> {
    void this.#capture.stop();
    void this.#follower.stop();
    await this.clock.pass(60_000);
  }
}
