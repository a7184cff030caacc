/**
 * The simulated cloud: a centre's database that "the service" writes, two proxies' worth of the product's own capture code
 * beside it, a stream, and a site's own follower on the site's database. Everything of the product runs unmodified on the
 * memory twins and the virtual clock; a crash abandons an incarnation and starts another from what is durable. Not simulated
 * yet: streams that lose their end or revive old images, and restored databases (they need the auditor).
 */
import { CAPTURE_DEFAULTS, CaptureRoom, type Before } from "../../capture/capture.ts";
import { STREAM_TABLE } from "../../capture/era.ts";
import { Faults } from "../../core/faults.ts";
import { sleep } from "../../core/clock.ts";
import { isOperating } from "../../core/errors.ts";
import { silentLog } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import { seededRandom, type Random } from "../../core/random.ts";
import { stopSignal } from "../../core/signal.ts";
import type { World } from "../../core/world.ts";
import type { Feed, Publication, Published } from "../../feed/feed.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import type { CommitFault, RowFault, RowFaults } from "../../rows/memory-store.ts";
import { memoryRows } from "../../rows/memory.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Capture } from "../../schemas/define.ts";
import { APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { look, lookLate } from "../../proxy/look.ts";
import { Follower } from "../../syncd/follow.ts";
import { LEDGER_TABLES } from "../../syncd/ledger.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { altered, SOUND, type Sabotage } from "./sabotage.ts";

/** Chances of each kind of trouble while faults are on; drawn per seed, so that some seeds have only one kind. */
export interface Weather {
  readonly rowFaults: number;
  readonly lostAnswers: number;
  readonly lateCommits: number;
  readonly cuts: number;
  readonly crashes: number;
  readonly stream: number;
  /** The answer is there before other sessions can see the rows (a replica, Galera). */
  readonly staleReads: number;
  readonly latencyMs: number;
}

/** A call as the intent journal would hold it. */
interface Intent {
  readonly declared: Capture;
  readonly parameters: Readonly<Record<string, string>>;
  readonly before: Before | undefined;
}

interface Proxy {
  readonly feed: MemoryFeed;
  readonly capture: CaptureRoom;
  readonly intents: Set<Intent>;
  readonly stopping: AbortController;
}

interface Site {
  readonly feed: MemoryFeed;
  readonly follower: Follower;
}

const PROXIES = 2;
/** A commit that comes this much after the service's answer, at most; the last look comes later. */
const LATE_COMMIT_MS = 4_000;
/** How long a stale read lasts, at most; the first settle re-read comes later. */
const STALE_READ_MS = 1_500;
const SETTLE_MS = 2_000;
/** The proxies' second look after an unknown outcome. */
const LATE_MS = 5_000;

/** A centre, a stream and a site, with weather drawn from the seed. */
export class SimulatedCloud {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly world: World;
  readonly weather: Weather;
  readonly stream: MemoryStream;
  readonly centre: Rows;
  readonly site: Rows;
  readonly #sabotage: Sabotage;
  readonly #proxies: Proxy[];
  #siteNow: Site;
  #stormy = true;
  /** True while the simulated service itself writes: its own transactions are not what is being tested. */
  #serviceWrites = false;
  #lateCommits = 0;

  constructor(seed: number, sabotage: Sabotage = SOUND) {
    this.random = seededRandom(seed);
    this.#sabotage = sabotage;
    this.world = { clock: this.clock, random: this.random, log: silentLog, metrics: noMetrics };
    const drawn = (most: number): number => (this.random.next() < 0.5 ? 0 : this.random.next() * most);
    this.weather = { rowFaults: drawn(0.05), lostAnswers: drawn(0.1), lateCommits: drawn(0.1), cuts: drawn(0.02),
      crashes: drawn(0.05),
      stream: drawn(0.1), staleReads: drawn(0.1),
      latencyMs: drawn(400) };
    this.stream = new MemoryStream(toy.name, this.clock);
    const common = { faults: this.#rowFaults(), revisions: [TOY_REVISION], cascades: ["secret"] };
    this.centre = memoryRows([...toy.tables.values(), STREAM_TABLE], common);
    const likeMariadb = this.random.next() < 0.3 ? { ignoresCase: true, fractionDigits: 0 } : {};
    this.site = sabotage.siteRows(memoryRows([...toy.tables.values(), ...LEDGER_TABLES], { ...common, ...likeMariadb }));
    this.#proxies = Array.from({ length: PROXIES }, () => this.#newProxy(new Set()));
    this.#siteNow = this.#newSite();
  }

  #rowFaults(): RowFaults {
    const drawn = <F>(faults: readonly F[], chance: number): F | undefined =>
      this.#stormy && !this.#serviceWrites && this.random.next() < chance
        ? faults[Math.floor(this.random.next() * faults.length)] : undefined;
    return {
      beforeCall: () => drawn<RowFault>(["unavailable", "contended"], this.weather.rowFaults / 4),
      beforeCommit: () => drawn<CommitFault>(["unknown-stored", "unknown-lost", "contended"], this.weather.rowFaults),
    };
  }

  /** The feed with the time that a publish takes on its way: others read and publish meanwhile. */
  #slow(feed: MemoryFeed): Feed {
    const publish = async (publication: Publication): Promise<Published> => {
      if (this.weather.latencyMs > 0) await sleep(this.clock, this.random.next() * this.weather.latencyMs);
      return feed.publish(publication);
    };
    return altered<Feed>(feed, { publish });
  }

  /** A proxy's life; `intents` are what its journal holds from an earlier one. */
  #newProxy(intents: Set<Intent>): Proxy {
    const feed = memoryFeed(this.stream, this.clock);
    const rooms = { service: toy, scope: "all", rows: this.centre, feed: this.#sabotage.feed(this.#slow(feed)),
      faults: new Faults(this.clock) };
    const settle = this.#sabotage.settles ? CAPTURE_DEFAULTS.settle : { ...CAPTURE_DEFAULTS.settle, delaysMs: [] };
    const capture = new CaptureRoom(rooms, this.world, { ...CAPTURE_DEFAULTS, settle, eraEveryMs: 5_000 });
    void capture.start();
    const proxy: Proxy = { feed, capture, intents: this.#sabotage.keepsIntents ? intents : new Set(), stopping: stopSignal() };
    for (const intent of proxy.intents) void this.#captured(proxy, intent, undefined);
    return proxy;
  }

  #newSite(): Site {
    const feed = memoryFeed(this.stream, this.clock, { idleHeartbeatMs: 1_000 });
    const rooms = { service: toy, scope: "all", rows: this.site, feed, faults: new Faults(this.clock), committed: () =>
      undefined };
    const bounds = { changesMax: 1 + Math.floor(this.random.next() * 20), bytesMax: 1 << 20 };
    const follower = new Follower(rooms, this.world, bounds, APPLIER_DEFAULTS);
    void follower.start();
    return { feed, follower };
  }

  #crashProxy(place: number, proxy: Proxy): void {
    proxy.feed.cut("crashed");
    proxy.stopping.abort();
    void proxy.capture.stop();
    this.#proxies[place] = this.#newProxy(proxy.intents);
  }

  #crashSite(): void {
    this.#siteNow.feed.cut("crashed");
    void this.#siteNow.follower.stop();
    this.#siteNow = this.#newSite();
  }

  /**
   * One call through one of the proxies: asked before, written by the service, captured afterwards. The answer may be lost on
   * the way back, and the commit may come after the answer.
   */
  async call(declared: Capture, parameters: Readonly<Record<string, string>>, write: () => Promise<string>): Promise<void> {
    const proxy = this.#proxies[Math.floor(this.random.next() * PROXIES)];
    if (proxy === undefined) return;
    const facts = { parameters, request: undefined, answer: undefined };
    const asked = await proxy.capture.before(declared, facts).catch(() => undefined);
    const intent: Intent = { declared, parameters, before: asked === undefined ? undefined : this.#sabotage.before(asked) };
    proxy.intents.add(intent);
    if (this.#chance(this.weather.lateCommits)) {
      this.#lateCommits += 1;
      this.clock.after(this.random.next() * LATE_COMMIT_MS, () =>
        void this.#commit(write).then(() => (this.#lateCommits -= 1)));
      void this.#captured(proxy, intent, undefined);
      return;
    }
    // A new aggregate's id is in the answer, which is made with the row: only calls on known keys are answered early here.
    if (!declared.on.startsWith("POST ") && this.#chance(this.weather.staleReads)) {
      this.#lateCommits += 1;
      const later = (): void => void this.#commit(write).then(() => (this.#lateCommits -= 1));
      this.clock.after(this.random.next() * STALE_READ_MS, later);
      void this.#captured(proxy, intent, "{}");
      return;
    }
    const answer = await this.#commit(write);
    if (answer === undefined) {
      proxy.intents.delete(intent);
      return;
    }
    void this.#captured(proxy, intent, this.#chance(this.weather.lostAnswers) ? undefined : answer);
  }

  /** The service's own transaction; undefined when it refuses the call (409), because a late commit came first. */
  async #commit(write: () => Promise<string>): Promise<string | undefined> {
    this.#serviceWrites = true;
    try {
      return await write();
    } catch (error) {
      if (!isOperating(error, "E_ROWS_UNIQUE", "E_ROWS_REFERENCE")) throw error;
      return undefined;
    } finally {
      this.#serviceWrites = false;
    }
  }

  /** What the proxy does after the call; `answer` undefined means that the outcome is unknown to it. */
  async #captured(proxy: Proxy, intent: Intent, answer: string | undefined): Promise<void> {
    const { declared, parameters, before } = intent;
    const facts = { parameters, request: undefined, answer: answer === undefined ? undefined : Buffer.from(answer) };
    // Another proxy may look at the same aggregates at the same time: a client that repeats itself, a settle re-read.
    const other = this.#proxies[Math.floor(this.random.next() * PROXIES)];
    if (this.#chance(this.weather.stream * 3)) void other?.capture.after(declared, facts, before);
    const rooms = { world: this.world, capture: proxy.capture, leaving: proxy.stopping.signal };
    const looked = await look(declared, facts, before, rooms);
    if (answer === undefined) {
      if (!await lookLate(declared, parameters, before, LATE_MS, rooms)) return;
    } else if (this.#sabotage.settles) {
      await sleep(this.clock, SETTLE_MS, rooms.leaving);
      if (rooms.leaving.aborted) return;
      await proxy.capture.again(looked);
    }
    if (this.#proxies.includes(proxy)) proxy.intents.delete(intent);
  }

  #chance(each: number): boolean {
    return this.#stormy && this.random.next() < each;
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

  /** Weather between two calls. */
  disturb(): void {
    const { crashes, cuts, lostAnswers, stream } = this.weather;
    for (const [place, proxy] of this.#proxies.entries()) if (this.#chance(crashes)) this.#crashProxy(place, proxy);
    if (this.#chance(crashes)) this.#crashSite();
    for (const { feed } of [this.#siteNow, ...this.#proxies]) {
      if (this.#chance(cuts)) feed.cut(feed.disconnected() === undefined ? "cut" : undefined);
    }
    if (this.#chance(lostAnswers)) this.stream.faults.loseAck(this.#chance(0.5) ? "stored" : "not stored");
    if (this.#chance(stream)) this.stream.faults.conflictWithoutSequence();
    if (this.#chance(stream)) this.stream.faults.restart();
    this.stream.faults.repeatDeliveries(this.#chance(stream * 5));
  }

  /** Faults end; connections are joined again. */
  calm(): void {
    this.#stormy = false;
    this.stream.faults.repeatDeliveries(false);
    for (const { feed } of [this.#siteNow, ...this.#proxies]) feed.cut(undefined);
  }

  /** True when no proxy has anything left to say. */
  get idle(): boolean {
    return this.#lateCommits === 0 && this.#proxies.every(({ capture, intents }) => {
      const { dirty, scans } = capture.status();
      return intents.size === 0 && dirty === 0 && scans === 0;
    });
  }

  get siteStatus(): ReturnType<Follower["status"]> {
    return this.#siteNow.follower.status();
  }

  async stop(): Promise<void> {
    for (const { capture } of this.#proxies) void capture.stop();
    void this.#siteNow.follower.stop();
    await this.clock.pass(60_000);
  }
}
