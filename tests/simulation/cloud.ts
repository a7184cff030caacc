/**
 * The simulated clouds: one centre, one stream, sites, and the processes of the product between them, under the weather of a
 * plan. Processes come and go; databases, disks and the stream stay. Everything that happens is decided by the plan's seed.
 */
import { present } from "../../core/assert.ts";
import { seededRandom, type Random } from "../../core/random.ts";
import { MemoryStream } from "../../feed/memory-stream.ts";
import type { FeedMessage } from "../../feed/feed.ts";
import { memoryRows, type MemoryTwin } from "../../rows/memory.ts";
import type { CommitFault, RowChange, RowFault, RowFaults } from "../../rows/memory-store.ts";
import type { Rows } from "../../rows/rows.ts";
import { HEARD_TABLE } from "../../syncd/heard.ts";
import { LEDGER_TABLES } from "../../syncd/ledger.ts";
import { toy, TOY_REVISION } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { SimulatedDisk } from "./disk.ts";
import { Fence, type CrashPoint } from "./fence.ts";
import { CentreHistory, textOf } from "./history.ts";
import type { Plan, Weather, Who } from "./plan.ts";
import { AuditorLife, ProxyLife, SiteLife, type Life, type LifeRooms } from "./processes.ts";
import type { Sabotage } from "./sabotage.ts";
import { SiteOracle } from "./site-oracle.ts";
import { StreamOracle } from "./stream-oracle.ts";
import { Trace } from "./trace.ts";

/** A site: its database, which outlives the daemon, and who watches it. */
export interface Site {
  readonly rows: MemoryTwin;
  readonly oracle: SiteOracle;
  /** Connections of the simulator's own: somebody's hand. */
  readonly hand: Rows;
}

/** What the product keeps in a site's database for itself. */
export const LEDGER = [...LEDGER_TABLES, HEARD_TABLE];

/** When the product's processes crash by plan: the n-th call of one process's first life. */
export interface PlannedCrash {
  readonly who: Who;
  readonly at: CrashPoint;
  readonly downMs: number;
}

const nameOf = (who: Who): string => `${who.role}${who.place + 1}`;

/** FNV over a text: gives every actor's chance a seed of its own. */
function seedFrom(seed: number, text: string): number {
  let mixed = seed ^ 0x811c9dc5;
  for (let place = 0; place < text.length; place += 1) mixed = Math.imul(mixed ^ text.charCodeAt(place), 0x01000193);
  return mixed >>> 0;
}

/** See the file's head. */
export class SimulatedCloud {
  readonly clock = new VirtualClock(1);
  readonly trace = new Trace(() => this.clock.monotonicMs());
  readonly weather: Weather;
  readonly stream: MemoryStream;
  readonly history = new CentreHistory(toy, () => this.clock.monotonicMs());
  readonly streamOracle: StreamOracle;
  readonly centre: MemoryTwin;
  readonly serviceRows: Rows;
  readonly sites: readonly Site[];
  readonly disks: readonly SimulatedDisk[];
  /** What was found wrong by nobody in particular. */
  readonly wrong: string[] = [];
  /** Kinds that the guard holds, by database: the centre, then the sites. */
  readonly held: readonly Set<string>[];
  /** Nothing is lost on its way without a word, and no database shows an older state: then nothing may go by mistake. */
  readonly #isTruthful: boolean;
  readonly #seed: number;
  readonly #sabotage: Sabotage;
  readonly #lives = new Map<string, Life>();
  readonly #livesBefore = new Map<string, number>();
  readonly #plannedCrash: PlannedCrash | undefined;
  readonly #commitsAtStart = new Map<number, number>();
  stormy = true;

  constructor(plan: Plan, sabotage: Sabotage, plannedCrash?: PlannedCrash) {
    this.#seed = plan.seed;
    this.#isTruthful = plan.weather.staleReads === 0 && plan.steps.every((step) => step.do !== "lose deliveries");
    this.weather = plan.weather;
    this.#sabotage = sabotage;
    this.#plannedCrash = plannedCrash;
    this.stream = new MemoryStream(toy.name, this.clock, { startBeyondEnd: plan.weather.startBeyondEnd });
    this.held = Array.from({ length: 1 + plan.weather.sites }, () => new Set<string>());
    this.centre = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION], cascades: ["secret"], keepsCommits: true,
      observe: (changes, why, by) => {
        this.history.observe(changes);
        this.#noteHeld(0, changes);
        this.#noteCommit(by, why, changes, "the centre");
      } });
    this.serviceRows = this.centre.session("service");
    this.sites = Array.from({ length: plan.weather.sites }, (_, place) => this.#newSite(place));
    this.disks = Array.from({ length: plan.weather.proxies }, () => new SimulatedDisk());
    this.streamOracle = new StreamOracle(toy, this.stream, this.history, plan.weather.staleReads > 0);
  }

  #newSite(place: number): Site {
    const name = nameOf({ role: "site", place });
    const likeMariadb = this.weather.likeMariadb[place] === true ? { ignoresCase: true, fractionDigits: 0 } : {};
    const rows: MemoryTwin = memoryRows([...toy.tables.values()], { revisions: [TOY_REVISION], cascades: ["secret"],
      keepsCommits: true, ...likeMariadb, ignoresReferences: !this.#sabotage.siteChecksReferences,
      observe: (changes, why, by) => {
        this.#noteCommit(by, why, changes, name);
        this.#noteHeld(1 + place, changes);
        oracle.observe(changes, why === "rewind" ? "rewind" : by === name ? "product" : by === "hand" ? "hand" : "setup");
      } });
    const oracle = new SiteOracle({ name, service: toy, history: this.history, fit: (table, row) => rows.fit(table, row),
      isTruthful: this.#isTruthful,
      isOrdered: () => this.weather.staleReads === 0 && this.streamOracle.regressions === 0,
      say: (what) => this.trace.note(name, `WRONG: ${what}`) });
    return { rows, oracle, hand: rows.session("hand") };
  }

  #noteHeld(database: number, changes: readonly RowChange[]): void {
    for (const { table, before, after } of changes) {
      if (table.name !== "holdfast_held") continue;
      if (after === undefined) this.held[database]?.delete(String(before?.["kind"]));
      else this.held[database]?.add(String(after["kind"]));
    }
  }

  #noteCommit(by: string | undefined, why: string, changes: readonly RowChange[], where: string): void {
    const isMinor = changes.every(({ table }) => table.name === "holdfast_stream" || table.name === "holdfast_position");
    const effect = ({ table, before, after }: RowChange): string =>
      `${before === undefined ? "+" : after === undefined ? "-" : "~"}${table.name} ${textOf(after ?? before ?? {}, table.key)}`;
    this.trace.note(by ?? "weather", `${why} at ${where}: ${changes.map(effect).join(" ")}`, isMinor);
  }

  /** Databases never go back further than this. */
  commitsAtStart(database: number): number {
    return this.#commitsAtStart.get(database) ?? 0;
  }

  /** Starts every process. */
  start(): void {
    for (const [place, rows] of [this.centre, ...this.sites.map((site) => site.rows)].entries()) {
      this.#commitsAtStart.set(place, rows.commits);
    }
    for (let place = 0; place < this.weather.proxies; place += 1) this.begin({ role: "proxy", place });
    for (let place = 0; place < this.weather.auditors; place += 1) this.begin({ role: "auditor", place });
    for (let place = 0; place < this.weather.sites; place += 1) this.begin({ role: "site", place });
  }

  /** Chance of its own for whoever is named, the same in every run of the seed. */
  chanceOf(name: string): Random {
    return seededRandom(seedFrom(this.#seed, name));
  }

  lifeOf(who: Who): Life | undefined {
    return this.#lives.get(nameOf(who));
  }

  get proxies(): readonly ProxyLife[] {
    return [...this.#lives.values()].filter((life) => life instanceof ProxyLife);
  }

  get auditors(): readonly AuditorLife[] {
    return [...this.#lives.values()].filter((life) => life instanceof AuditorLife);
  }

  get siteLives(): readonly SiteLife[] {
    return [...this.#lives.values()].filter((life) => life instanceof SiteLife);
  }

  /** Calls through the ports of each process's present life. */
  get calls(): ReadonlyMap<string, number> {
    return new Map([...this.#lives].map(([name, life]) => [name, life.fence.calls]));
  }

  /** A new life of a process. */
  begin(who: Who): void {
    const name = nameOf(who);
    const life = (this.#livesBefore.get(name) ?? 0) + 1;
    this.#livesBefore.set(name, life);
    const random = this.chanceOf(`${name} life ${life}`);
    this.trace.note(name, `life ${life} begins`);
    const crash = life === 1 && this.#plannedCrash !== undefined && nameOf(this.#plannedCrash.who) === name ? this.#plannedCrash
      : undefined;
    const fence = new Fence({ actor: name, clock: this.clock, trace: this.trace, latencyMs: () => this.#latencyMs(random),
      crashAt: crash?.at, crashed: () => this.#buried(who, crash?.downMs ?? 0, 1) });
    const at = who.role === "site" ? present(this.sites[who.place], name).rows : this.centre;
    const rooms: LifeRooms = { fence, random, stream: this.stream, rows: at.session(name, this.#rowFaults(who, random)),
      sabotage: this.#sabotage, purging: (subject, sequence) => this.streamOracle.purging(subject, sequence),
      leaked: (where) => void this.wrong.push(`S6: ${name} shows a secret in ${where}`) };
    this.#lives.set(name, this.#built(who, rooms, random));
  }

  #built(who: Who, rooms: LifeRooms, random: Random): Life {
    switch (who.role) {
      case "proxy":
        return new ProxyLife(rooms, present(this.disks[who.place], "every proxy has a disk"), this.weather);
      case "auditor":
        return new AuditorLife(rooms, this.weather);
      case "site": {
        const { oracle } = present(this.sites[who.place], "every site has a database");
        const batchMax = random.next() < 0.3 ? 1 + Math.floor(random.next() * 5) : 20;
        return new SiteLife(rooms, { place: who.place, batchMax, weather: this.weather,
          begins: () => oracle.restarted(), delivered: (messages: readonly FeedMessage[]) => oracle.deliver(messages) });
      }
    }
  }

  /** A process dies now; it is started again after `downMs`. `synced`: share of what its disk had not synced that is kept. */
  crash(who: Who, downMs: number, synced: number): void {
    const life = this.lifeOf(who);
    if (life === undefined || life.fence.closed) return;
    life.fence.close();
    this.#buried(who, downMs, synced);
  }

  #buried(who: Who, downMs: number, synced: number): void {
    this.lifeOf(who)?.feed.cut("crashed");
    if (who.role === "proxy") {
      const disk = present(this.disks[who.place], "every proxy has a disk");
      if (this.#sabotage.keepsJournal) disk.crash(synced);
      else disk.lose();
    }
    this.trace.note("weather", `${nameOf(who)} is dead`);
    this.clock.after(downMs, () => this.begin(who));
  }

  /** A process is stopped in good order and started again. */
  async restart(who: Who): Promise<void> {
    const life = this.lifeOf(who);
    if (life === undefined || life.fence.closed) return;
    await life.stop();
    life.fence.close();
    life.feed.cut("stopped");
    this.begin(who);
  }

  #latencyMs(random: Random): number {
    const { slowCalls, latencyMs } = this.weather;
    return this.stormy && slowCalls > 0 && random.next() < slowCalls ? random.next() * latencyMs : 0;
  }

  #rowFaults(who: Who, random: Random): RowFaults {
    const { rowFaults, staleReads } = this.weather;
    const drawn = <F>(faults: readonly F[], chance: number): F | undefined =>
      this.stormy && chance > 0 && random.next() < chance ? faults[Math.floor(random.next() * faults.length)] : undefined;
    return {
      beforeCall: () => drawn<RowFault>(["unavailable", "contended"], rowFaults / 4),
      beforeCommit: () => drawn<CommitFault>(["unknown-stored", "unknown-lost", "contended"], rowFaults),
      ...(who.role !== "site" && staleReads > 0 ? { staleBy: () => drawn([1, 2, 3, 4], staleReads) ?? 0 } : {}),
    };
  }

  /** Ends every process without a word. */
  end(): void {
    for (const life of this.#lives.values()) {
      life.fence.close();
      life.feed.cut("the run is over");
    }
  }
}
