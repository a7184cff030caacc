/**
 * Killing processes again and again under load, at every place where it could hurt, and counting where they died.
 */
import { strict as assert } from "node:assert";
import { present } from "../../core/assert.ts";
import { sleep, systemClock } from "../../core/clock.ts";
import { seededRandom } from "../../core/random.ts";
import { until } from "../../lab/waiting.ts";
import type { Fleet } from "./fleet.ts";
import type { LoadTally } from "./fleet-load.ts";
import type { FleetProcess } from "./fleet-process.ts";

/** Where a proxy dies: between the steps of a call, after rows were read, after an image was acknowledged, anywhere. */
export const PROXY_PLACES = ["holdfast_mutation_steps_total/asked", "holdfast_mutation_steps_total/noted",
  "holdfast_mutation_steps_total/forwarded", "holdfast_mutation_steps_total/captured", "holdfast_footprints_read_total",
  "holdfast_published_total", "anywhere"] as const;

/** Where a sync daemon dies: after a commit that it has not taken note of yet, and anywhere. */
export const SYNCD_PLACES = ["holdfast_applied_aggregates_total", "anywhere", "anywhere"] as const;

/** The occurrence at which a process dies, and the age at which it dies anywhere. */
const TIMES_MAX = 4;
const AGE_MS = { least: 100, most: 1_000 } as const;
/** Longest until a place is reached; a life that gets there never is a fault of the test or of the product. */
const LIFE_MS = 60_000;

export interface Kills {
  /** Deaths by place. */
  readonly deaths: Readonly<Record<string, number>>;
  readonly load: LoadTally;
  /** Rows that centre and site agreed on afterwards. */
  readonly rows: number;
  readonly tookMs: number;
}

/** Starts `victim` `count` times and lets it die, in turns at each of `places`. It does not run before, nor afterwards. */
async function dieAgainAndAgain(victim: FleetProcess, places: readonly string[], count: number,
  seed: number): Promise<Record<string, number>> {
  const random = seededRandom(seed);
  const deaths: Record<string, number> = {};
  for (let kill = 0; kill < count; kill += 1) {
    const place = present(places[kill % places.length], "places are not empty");
    const chance = random.next();
    victim.spawn(place === "anywhere" ? { afterMs: AGE_MS.least + chance * (AGE_MS.most - AGE_MS.least) }
      : { place, times: 1 + Math.floor(chance * TIMES_MAX) });
    victim.standBy();
    const limit = new AbortController();
    const end = await Promise.race([victim.ended, sleep(systemClock, LIFE_MS, limit.signal).then(() => undefined)]);
    limit.abort();
    assert.deepEqual(end, { code: null, signal: "SIGKILL" }, `kill ${kill} at ${place}: see ${victim.plan.log}`);
    deaths[place] = (deaths[place] ?? 0) + 1;
  }
  return deaths;
}

/** Kills the proxy `count` times under load; afterwards one that lives must bring everything to the site by itself. */
export async function killProxy(fleet: Fleet, count: number, seed: number): Promise<Kills> {
  const startMs = systemClock.monotonicMs();
  const load = await fleet.load(seed);
  await fleet.proxy.end("SIGKILL");
  load.start();
  const deaths = await dieAgainAndAgain(fleet.proxy, PROXY_PLACES, count, seed);
  fleet.proxy.spawn();
  const tally = await load.stop();
  await fleet.proxy.ready();
  await fleet.quiet(fleet.proxy);
  const rows = await fleet.equal();
  return { deaths, load: tally, rows, tookMs: systemClock.monotonicMs() - startMs };
}

/** Kills the sync daemon `count` times while changes arrive. */
export async function killSyncd(fleet: Fleet, count: number, seed: number): Promise<Kills> {
  const startMs = systemClock.monotonicMs();
  const load = await fleet.load(seed);
  await fleet.syncd.end("SIGKILL");
  load.start();
  const deaths = await dieAgainAndAgain(fleet.syncd, SYNCD_PLACES, count, seed);
  await fleet.syncd.start();
  const tally = await load.stop();
  await fleet.quiet(fleet.proxy);
  const rows = await fleet.equal();
  return { deaths, load: tally, rows, tookMs: systemClock.monotonicMs() - startMs };
}

/** Kills a server of the lab `count` times under load and starts it again each time, once calls went on or failed without it. */
export async function killServer(fleet: Fleet, server: string, count: number, seed: number): Promise<LoadTally> {
  const load = await fleet.load(seed);
  load.start();
  for (let kill = 0; kill < count; kill += 1) {
    await answersMore(fleet, () => load.answers, 20);
    await fleet.lab.kill(server);
    await answersMore(fleet, () => load.answers, 5);
    await fleet.lab.startOne(server);
    if (server === fleet.lab.databases.centre.engine) await fleet.keepCentralCommits();
  }
  await answersMore(fleet, () => load.answers, 20);
  return load.stop();
}

/** Waits until `count` calls more were answered, whatever the answer. */
export function answersMore(fleet: Fleet, answers: () => number, count: number): Promise<void> {
  const wanted = answers() + count;
  const wait = { what: `the answer to ${count} more calls`, withinMs: LIFE_MS, log: fleet.proxy.plan.log };
  return until(wait, () => Promise.resolve(answers() >= wanted));
}
