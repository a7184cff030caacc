/**
 * One seeded run: a storm of calls and troubles, then calm weather in which the clouds must come to rest within a bound, then
 * the comparison of everything with everything. What is wrong is told by oracles that read databases and messages only.
 */
import type { Table } from "../../schemas/define.ts";
import type { Row } from "../../schemas/row.ts";
import { toy } from "../support/toy-service.ts";
import { Clients } from "./clients.ts";
import { SimulatedCloud, type PlannedCrash, type Site } from "./cloud.ts";
import { textOf, type Mirror } from "./history.ts";
import { inWords, planOf, type Plan } from "./plan.ts";
import { AUDIT_MS } from "./processes.ts";
import { populate } from "./population.ts";
import { SOUND, type Sabotage } from "./sabotage.ts";
import { seedRows, Troubles } from "./troubles.ts";

/** Virtual time in which everything must have come to rest once faults have ended: a few audits and retries. */
const CALM_MS = 8 * AUDIT_MS;
const LOOK_MS = 2_000;
/** A person looks at what is held this often, and decides. */
const PERSON_MS = 20_000;
const WRONG_MAX = 30;

export interface Outcome {
  readonly wrong: readonly string[];
  readonly hash: string;
  readonly events: number;
  /** The newest lines of the trace. */
  readonly lines: readonly string[];
  /** How long it took until everything was equal, once the weather was calm: virtual time. */
  readonly calmMs: number;
  /** Calls through the ports of each process's first life. */
  readonly calls: ReadonlyMap<string, number>;
}

/** Runs a plan to its end. */
export async function runPlan(plan: Plan, sabotage: Sabotage = SOUND, crash?: PlannedCrash): Promise<Outcome> {
  const bugs: string[] = [];
  const release = catchBugs((error) =>
    bugs.push(`a bug: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`));
  const cloud = new SimulatedCloud(plan, sabotage, crash);
  try {
    const run = new Run(cloud, plan);
    const wrong = await run.live(bugs);
    return { wrong: wrong.slice(0, WRONG_MAX), hash: cloud.trace.hash, events: cloud.trace.events, lines: cloud.trace.newest(),
      calmMs: run.calmMs, calls: cloud.calls };
  } finally {
    cloud.end();
    await cloud.clock.pass(60_000);
    release();
  }
}

/** What is wrong after the run of `seed`; nothing when it is right. */
export function runSeed(seed: number, sabotage: Sabotage = SOUND): Promise<Outcome> {
  return runPlan(planOf(seed, sabotage.weather), sabotage);
}

/** Promises that fail without an owner are bugs of the product: they belong to the run, not to the test framework. */
function catchBugs(found: (error: unknown) => void): () => void {
  const events = ["unhandledRejection", "uncaughtException"] as const;
  const before = events.map((event) => process.listeners(event as "unhandledRejection"));
  for (const event of events) {
    process.removeAllListeners(event);
    process.on(event, found);
  }
  return () => {
    for (const [place, event] of events.entries()) {
      process.removeAllListeners(event);
      for (const listener of before[place] ?? []) process.on(event as "unhandledRejection", listener);
    }
  };
}

class Run {
  readonly #cloud: SimulatedCloud;
  readonly #plan: Plan;
  readonly #clients: Clients;
  readonly #troubles: Troubles;
  calmMs = 0;

  constructor(cloud: SimulatedCloud, plan: Plan) {
    this.#cloud = cloud;
    this.#plan = plan;
    this.#clients = new Clients(cloud);
    this.#troubles = new Troubles(cloud);
  }

  async live(bugs: readonly string[]): Promise<readonly string[]> {
    const { clock } = this.#cloud;
    await populate(this.#cloud.serviceRows, this.#plan.weather.population, this.#cloud.chanceOf("population"));
    // The first site is seeded from a snapshot, the others start empty. What was deleted before it was ever published is only
    // found by a sweep, which waits for an auditor.
    const [first] = this.#cloud.sites;
    if (this.#plan.weather.auditors > 0 && first !== undefined) await seedRows(this.#cloud.serviceRows, first.rows);
    this.#cloud.start();
    for (const step of this.#plan.steps) {
      await clock.pass(step.atMs - clock.monotonicMs());
      this.#cloud.trace.note("weather", inWords(step));
      if (step.do === "call") this.#clients.call(step.pick);
      else this.#troubles.happen(step);
    }
    await clock.pass(this.#plan.stormMs - clock.monotonicMs());
    this.#cloud.trace.note("weather", "calm");
    this.#cloud.stormy = false;
    this.#troubles.calm();
    const differing = await this.#rest(bugs);
    for (const { oracle } of this.#cloud.sites) oracle.checkAllParents();
    return [...bugs, ...this.#cloud.streamOracle.wrong, ...this.#cloud.sites.flatMap(({ oracle }) => oracle.wrong),
      ...this.#cloud.wrong, ...differing];
  }

  /** Lets the clouds come to rest; what still differs when the time is over. */
  async #rest(bugs: readonly string[]): Promise<readonly string[]> {
    const { clock } = this.#cloud;
    const calmFrom = clock.monotonicMs();
    let person = calmFrom + PERSON_MS;
    for (;;) {
      await clock.pass(LOOK_MS);
      this.calmMs = clock.monotonicMs() - calmFrom;
      const differing = this.#unrest() ?? this.#differing();
      if (differing.length === 0 || this.calmMs >= CALM_MS || bugs.length > 0) return differing;
      if (clock.monotonicMs() < person) continue;
      person = clock.monotonicMs() + PERSON_MS;
      this.#troubles.release();
    }
  }

  /** Who is still at work; undefined when nobody is. */
  #unrest(): readonly string[] | undefined {
    const { proxies } = this.#cloud;
    const busy = proxies.filter((proxy) => !proxy.isIdle).map((proxy) => `L3: ${proxy.fence.actor} is still at work: ${
      JSON.stringify({ ...proxy.capture.status(), intents: proxy.openIntents, notReady: proxy.capture.notReady() })}`);
    if (!this.#clients.isIdle) busy.push("L3: calls are still under way");
    if (!this.#troubles.isIdle) busy.push("L3: somebody is still at work");
    return busy.length === 0 ? undefined : busy;
  }

  /** I5: centre = stream = sites; nothing waits and nothing is held. */
  #differing(): readonly string[] {
    const { history, streamOracle, sites } = this.#cloud;
    const centre = history.mirror.states();
    const differing = [...unequal("the stream", centre, streamOracle.states())];
    if (this.#plan.weather.auditors > 0) {
      differing.push(...streamOracle.unsaid().map((name) => `A3: ${name} was not said again in this epoch`));
    }
    for (const [place, site] of sites.entries()) {
      const lostLedger = this.#plan.steps.some((step) => step.do === "lose ledger" && step.site === place);
      differing.push(...unequalRows(site, history.mirror, lostLedger));
      const { name, waiting } = site.oracle;
      if (waiting.length > 0) differing.push(`L4: changes still wait at ${name}: ${waiting.join()}`);
    }
    if (differing.length > 0) return differing;
    return this.#cloud.held.flatMap((kinds, place) => [...kinds].map((kind) => `L2: ${kind} is held at database ${place}`));
  }
}

/** Aggregates whose states differ between the centre and somebody else. */
function unequal(where: string, centre: ReadonlyMap<string, string>, other: ReadonlyMap<string, string>): readonly string[] {
  const differing: string[] = [];
  for (const [name, state] of centre) {
    if (other.get(name) !== state) differing.push(`I5: ${name} is other or missing in ${where}`);
  }
  for (const name of other.keys()) if (!centre.has(name)) differing.push(`I5: ${name} is too much in ${where}`);
  return differing;
}

/**
 * Rows that centre and site do not have in common, as far as the site's database can hold them. A site that lost its ledger may
 * keep rows of a log that the centre has pruned: nobody can tell them from its own, and its service prunes them.
 */
function unequalRows(site: Site, centre: Mirror, lostLedger: boolean): readonly string[] {
  const differing: string[] = [];
  for (const table of toy.tables.values()) {
    const wanted = texts(table, centre, (row) => site.rows.fit(table, row));
    const held = texts(table, site.oracle.mirror, (row) => row);
    const where = `${table.name} of ${site.oracle.name}`;
    for (const text of wanted) if (!held.has(text)) differing.push(`I5: missing in ${where}: ${text}`);
    if (lostLedger && toy.kindOfTable.get(table.name)?.log !== undefined) continue;
    for (const text of held) if (!wanted.has(text)) differing.push(`I5: too much in ${where}: ${text}`);
  }
  return differing;
}

function texts(table: Table, mirror: Mirror, fit: (row: Row) => Row): ReadonlySet<string> {
  return new Set([...mirror.rowsOf(table.name).values()].map((row) => textOf(fit(row), table.sent)));
}
