/**
 * The product's processes as the simulator runs them: every life of a proxy, an auditor or a sync daemon is built from the
 * product's own rooms on ports of its own, behind one fence. What main.ts does with real adapters is done here with twins.
 */
import { Auditor, AUDITOR_DEFAULTS } from "../../audit/auditor.ts";
import { CAPTURE_DEFAULTS, CaptureRoom } from "../../capture/capture.ts";
import { GUARD_DEFAULTS, type GuardOptions } from "../../capture/guard.ts";
import { isOperating } from "../../core/errors.ts";
import { Faults } from "../../core/faults.ts";
import type { Facts } from "../../core/errors.ts";
import type { Log } from "../../core/log.ts";
import { noMetrics } from "../../core/metrics.ts";
import type { Random } from "../../core/random.ts";
import { stopSignal } from "../../core/signal.ts";
import type { World } from "../../core/world.ts";
import { memoryFeed, type MemoryFeed } from "../../feed/memory.ts";
import type { MemoryStream } from "../../feed/memory-stream.ts";
import type { Feed, FeedMessage } from "../../feed/feed.ts";
import { filterOf } from "../../feed/subjects.ts";
import type { Exchange } from "../../proxy/exchange.ts";
import type { Forwarder, Relayed } from "../../proxy/forward.ts";
import { JOURNAL_DEFAULTS, openJournal, type Journal } from "../../proxy/intent.ts";
import { carryMutation, type MutationRooms } from "../../proxy/mutation.ts";
import { replayIntents } from "../../proxy/replay.ts";
import type { Rows } from "../../rows/rows.ts";
import type { Capture } from "../../schemas/define.ts";
import { APPLIER_DEFAULTS } from "../../syncd/applier.ts";
import { confirmGone } from "../../syncd/confirm.ts";
import { FOLLOW_DEFAULTS, Follower } from "../../syncd/follow.ts";
import { ROW_AUDIT_DEFAULTS, RowAudit } from "../../syncd/row-audit.ts";
import { toy } from "../support/toy-service.ts";
import { altered } from "./altered.ts";
import type { SimulatedDisk } from "./disk.ts";
import type { Fence } from "./fence.ts";
import type { Weather } from "./plan.ts";
import type { Sabotage } from "./sabotage.ts";
import { SECRET_MARK } from "./service.ts";

export const SCOPE = "all";
const SETTLE_MS = 2_000;
/** The proxies' second look after an unknown outcome; longer than any commit is late. */
const LATE_MS = 5_000;
const IDLE_HEARTBEAT_MS = 2_000;
/** The auditor's periods, shorter than in service so that a run sees several. */
export const HEARTBEAT_MS = 6_000;
export const AUDIT_MS = 20_000;
const REREAD_MS = 30_000;
const ROW_AUDIT_REST_MS = 12_000;
/** A guard that a run of a few dozen aggregates can meet. */
export const TIGHT_GUARD: GuardOptions = { ...GUARD_DEFAULTS, sharePercentMax: 30, aggregatesMax: 4 };

/** A site's name, under which it asks and is asked. */
export function siteName(place: number): string {
  return `site${place + 1}`;
}

function guardOf(weather: Weather, sabotage: Sabotage): GuardOptions {
  return sabotage.guard(weather.tightGuard ? TIGHT_GUARD : GUARD_DEFAULTS);
}

/** What every life is given. */
export interface LifeRooms {
  readonly fence: Fence;
  readonly random: Random;
  readonly stream: MemoryStream;
  /** This life's connection to its database, unfenced. */
  readonly rows: Rows;
  readonly sabotage: Sabotage;
  /** Told when a log line or a fault shows what it must not. */
  readonly leaked: (where: string) => void;
  /** Told before a subject is purged. */
  readonly purging: (subject: string, sequence: number) => void;
}

/** One life of a process. */
export interface Life {
  readonly fence: Fence;
  readonly feed: MemoryFeed;
  readonly faults: Faults;
  /** Ends it in good order. */
  stop(): Promise<void>;
}

/** A log that looks for secrets in everything it is given; what a person should see is a line of the trace. */
function watchfulLog({ leaked, fence }: LifeRooms): Log {
  const look = (message: string, facts: Facts = {}): void => {
    for (const said of [message, ...Object.values(facts)]) {
      if (typeof said === "string" && said.includes(SECRET_MARK)) leaked(`the log line "${message}"`);
    }
  };
  const say = (message: string, facts: Facts = {}): void => {
    look(message, facts);
    if (!fence.closed) fence.say(`"${message}" ${JSON.stringify(facts)}`);
  };
  const log: Log = { debug: look, info: say, warn: say, error: say, with: (facts) => {
    look("with", facts);
    return log;
  } };
  return log;
}

function worldOf(rooms: LifeRooms): World {
  const { fence, random, sabotage } = rooms;
  return { clock: fence.clock(), random, log: sabotage.log(watchfulLog(rooms)), metrics: noMetrics };
}

function connect({ fence, stream }: LifeRooms, world: World): MemoryFeed {
  return memoryFeed(stream, { ...world.clock, after: (delayMs, action) => world.clock.after(delayMs, action) },
    { idleHeartbeatMs: IDLE_HEARTBEAT_MS + (fence.actor.length % 2) });
}

/** What becomes of one call at the upstream. */
export type Upstream = () => Promise<Pick<Relayed, "outcome" | "status" | "answer">>;

/** A proxy at the centre: journal, capture and the story of its calls (proxy/capturing.ts). */
export class ProxyLife implements Life {
  readonly fence: Fence;
  readonly feed: MemoryFeed;
  readonly faults: Faults;
  readonly capture: CaptureRoom;
  readonly #rooms: LifeRooms;
  readonly #world: World;
  readonly #weather: Weather;
  readonly #leaving = stopSignal();
  readonly #open = new Set<Promise<void>>();
  #journal: Journal | undefined;

  constructor(rooms: LifeRooms, disk: SimulatedDisk, weather: Weather) {
    this.fence = rooms.fence;
    this.#rooms = rooms;
    this.#world = worldOf(rooms);
    this.#weather = weather;
    this.feed = connect(rooms, this.#world);
    this.faults = new Faults(this.#world.clock);
    const { sabotage, fence } = rooms;
    const rows = sabotage.rows(fence.rows(rooms.rows), "proxy", this.#world.log);
    const feed = sabotage.feed(fence.feed(this.feed), "proxy");
    this.capture = new CaptureRoom({ service: toy, scope: SCOPE, rows, feed, faults: this.faults }, this.#world,
      sabotage.capture({ ...CAPTURE_DEFAULTS, guard: guardOf(weather, sabotage), eraEveryMs: 5_000 }));
    void this.#start(disk);
  }

  async #start(disk: SimulatedDisk): Promise<void> {
    await this.capture.start();
    const { sabotage, fence } = this.#rooms;
    const options = { folder: "simulated", ...JOURNAL_DEFAULTS, segmentBytesMax: 4_096 };
    const journal = await openJournal(options, this.#world, disk.open(fence));
    this.#journal = sabotage.journal(journal);
    if (sabotage.replays) this.#follow(replayIntents({ ...this.#mutationRooms(this.#journal, NO_FORWARDER), service: toy }));
  }

  /** True when calls are taken. */
  get isOpen(): boolean {
    return this.#journal !== undefined && !this.fence.closed && !this.#leaving.signal.aborted;
  }

  /** True when nothing is left to be captured. */
  get isIdle(): boolean {
    const { dirty, scans } = this.capture.status();
    return this.isOpen && dirty === 0 && scans === 0 && (this.#journal?.opened().length ?? 0) === 0;
  }

  get openIntents(): number {
    return this.#journal?.opened().length ?? 0;
  }

  /** One client's call; resolves when the client has an answer, rejects when its connection broke. */
  async call(declared: Capture, parameters: Readonly<Record<string, string>>, upstream: Upstream): Promise<void> {
    const journal = this.#journal;
    if (journal === undefined) return;
    const forward: Forwarder = { ...NO_FORWARDER, relay: () => this.fence.pass(`forward ${declared.on}`, async () =>
      ({ headers: {}, answerType: "application/json", requestBody: undefined, answered: true, ...await upstream() })) };
    const exchange = { requestId: declared.on } as unknown as Exchange;
    const story = carryMutation({ exchange, declared, parameters }, this.#mutationRooms(journal, forward));
    const { captured } = await this.fence.during(story);
    this.#follow(captured);
  }

  async stop(): Promise<void> {
    this.#leaving.abort();
    await Promise.all(this.#open);
    await this.#journal?.stop();
    await this.capture.stop();
    await this.feed.close();
  }

  #follow(story: Promise<void>): void {
    const tracked: Promise<void> = story.then(() => void this.#open.delete(tracked));
    this.#open.add(tracked);
  }

  #mutationRooms(intents: Journal, forward: Forwarder): MutationRooms {
    const capture = this.#rooms.sabotage.asksBefore ? this.capture : altered(this.capture, {
      before: async (declared, facts) => ({ ...await this.capture.before(declared, facts), keys: [], names: [] }) });
    return { world: this.#world, forward, intents, capture, faults: this.faults, whenUnwritable: this.#weather.whenUnwritable,
      settleMs: this.#rooms.sabotage.settleMs(SETTLE_MS), lateMs: LATE_MS, leaving: this.#leaving.signal };
  }
}

const NO_FORWARDER: Forwarder = {
  relay: () => Promise.reject(new Error("nothing is forwarded here")), adopt: () => undefined, close: () => Promise.resolve(),
};

/** True for what a client may see when its call fails. */
export function isClientsTrouble(error: unknown): boolean {
  return isOperating(error) || (error instanceof Error && error.message.endsWith(" crashed"));
}

const CONFIRM_MS = 5_000;

/** What differs from site to site. */
export interface SiteRooms {
  readonly place: number;
  readonly batchMax: number;
  readonly weather: Weather;
  /** Told of each reading of the stream's end, and of what it hands out. */
  readonly begins: () => void;
  readonly delivered: (messages: readonly FeedMessage[]) => void;
}

/** A sync daemon at a site (syncd/main.ts). */
export class SiteLife implements Life {
  readonly fence: Fence;
  readonly feed: MemoryFeed;
  readonly faults: Faults;
  readonly follower: Follower;
  readonly rowAudit: RowAudit;

  constructor(rooms: LifeRooms, site: SiteRooms) {
    const { place, batchMax, weather } = site;
    this.fence = rooms.fence;
    const world = worldOf(rooms);
    const { sabotage, fence } = rooms;
    this.feed = connect(rooms, world);
    this.faults = new Faults(world.clock);
    const feed = watched(sabotage.feed(fence.feed(this.feed), "site"), site);
    const rows = sabotage.rows(fence.rows(rooms.rows), "site", world.log);
    const committed = (): void => undefined;
    const followed = { service: toy, scope: SCOPE, site: siteName(place), rows, feed, faults: this.faults, committed };
    this.follower = new Follower(followed, world, { changesMax: batchMax, bytesMax: 1 << 20 }, APPLIER_DEFAULTS,
      { ...FOLLOW_DEFAULTS, guard: guardOf(weather, sabotage), heartbeatEveryMs: HEARTBEAT_MS, sweepAgainMs: AUDIT_MS });
    this.rowAudit = new RowAudit({ service: toy, stream: feed.stream, rows, faults: this.faults, holding: this.follower.holding,
      isFollowing: () => this.follower.isFilled, repair: (changes) => this.follower.repair(changes), committed,
      isProven: () => this.follower.isProven, confirmGone: (names, signal) =>
        confirmGone({ ...followed, site: siteName(place) }, names, this.follower.status().epoch, CONFIRM_MS, signal) }, world,
    { ...ROW_AUDIT_DEFAULTS, rowsPerSecondMax: 1_000_000, restMs: ROW_AUDIT_REST_MS });
    void this.follower.start();
    if (sabotage.auditsRows && weather.auditors > 0) void this.rowAudit.start();
  }

  async stop(): Promise<void> {
    await this.rowAudit.stop();
    await this.follower.stop();
    await this.feed.close();
  }
}

/** An auditor at the centre (audit/main.ts). */
export class AuditorLife implements Life {
  readonly fence: Fence;
  readonly feed: MemoryFeed;
  readonly faults: Faults;
  readonly auditor: Auditor;

  constructor(rooms: LifeRooms, weather: Weather) {
    this.fence = rooms.fence;
    const world = worldOf(rooms);
    const { sabotage, fence } = rooms;
    this.feed = connect(rooms, world);
    this.faults = new Faults(world.clock);
    const fenced = fence.feed(this.feed);
    const told = altered(fenced, { purge: (subject, sequence) => {
      rooms.purging(subject, sequence);
      return fenced.purge(subject, sequence);
    } });
    const rows = sabotage.rows(fence.rows(rooms.rows), "auditor", world.log);
    const feed = sabotage.feed(told, "auditor");
    this.auditor = new Auditor({ service: toy, scope: SCOPE, rows, feed, faults: this.faults }, world, { ...AUDITOR_DEFAULTS,
      everyMs: AUDIT_MS, heartbeatEveryMs: HEARTBEAT_MS, rereadEveryMs: REREAD_MS, tombstonesKeptMs: weather.tombstonesKeptMs,
      capture: sabotage.capture({ ...AUDITOR_DEFAULTS.capture, guard: guardOf(weather, sabotage), eraEveryMs: 5_000 }) });
    void this.auditor.start();
  }

  async stop(): Promise<void> {
    await this.auditor.stop();
    await this.feed.close();
  }
}

/** The feed, with somebody told of each reading of the stream's end, and of what it hands out. */
function watched(feed: Feed, { begins, delivered }: Pick<SiteRooms, "begins" | "delivered">): Feed {
  const everything = filterOf(toy.name, SCOPE);
  return altered(feed, { read: async function* (options, signal) {
    const isTail = options.filter === everything && options.untilTip !== true && options.headersOnly !== true;
    if (isTail) begins();
    for await (const batch of feed.read(options, signal)) {
      if (isTail) delivered(batch);
      yield batch;
    }
  } });
}
