/**
 * From a seed to a plan: which troubles exist in this run at all and how often (a swarm: no run has them all), and when each
 * call and each trouble comes. A plan is plain values, so that one can be run again with a part left out.
 */
import { seededRandom, type Random } from "../../core/random.ts";

/** Troubles that come at a moment. `for`: how long they last, milliseconds of virtual time. */
export type Trouble =
  | { readonly do: "crash"; readonly who: Who; readonly downMs: number; readonly synced: number }
  | { readonly do: "restart"; readonly who: Who }
  | { readonly do: "stand still"; readonly who: Who; readonly forMs: number }
  | { readonly do: "cut"; readonly who: Who; readonly way: "there" | "back" | "both"; readonly forMs: number }
  | { readonly do: "lose ack"; readonly fate: "stored" | "not stored" | "stored later" }
  | { readonly do: "unnamed conflict" }
  | { readonly do: "restart stream" }
  | { readonly do: "repeat deliveries"; readonly forMs: number }
  | { readonly do: "lose deliveries"; readonly count: number }
  | { readonly do: "drop tail"; readonly count: number }
  | { readonly do: "revive older"; readonly pick: number }
  | { readonly do: "recreate stream" }
  | { readonly do: "copy stream" }
  | { readonly do: "restore stream" }
  | { readonly do: "fill stream"; readonly forMs: number }
  | { readonly do: "fill disk"; readonly place: number; readonly forMs: number }
  | { readonly do: "lose disk"; readonly place: number }
  | { readonly do: "fail over"; readonly database: Database; readonly commits: number }
  | { readonly do: "back up"; readonly database: Database }
  | { readonly do: "restore backup"; readonly database: Database }
  | { readonly do: "truncate"; readonly pick: number; readonly restored: boolean }
  | { readonly do: "write past the proxy"; readonly pick: number }
  | { readonly do: "lose ledger"; readonly site: number }
  | { readonly do: "drift"; readonly site: number; readonly pick: number }
  | { readonly do: "touch local column"; readonly site: number; readonly pick: number };

export interface Who {
  readonly role: "proxy" | "auditor" | "site";
  readonly place: number;
}

/** 0: the centre; above: a site. */
export type Database = number;

export type Step = { readonly atMs: number } & ({ readonly do: "call"; readonly pick: number } | Trouble);

/** Conditions that hold for a whole run. */
export interface Weather {
  readonly proxies: number;
  /** None: only troubles that the event path alone survives. */
  readonly auditors: number;
  readonly sites: number;
  /** Share of calls to a database that fail, and of commits that do or whose answer is lost. */
  readonly rowFaults: number;
  /** Share of snapshots at the centre that show an older state, as a replica does. */
  readonly staleReads: number;
  /** Share of calls of clients whose answer is lost, whose commit comes after a lost answer, or after the answer. */
  readonly lostAnswers: number;
  readonly lateCommits: number;
  readonly earlyAnswers: number;
  /** Share of calls through ports that are slow, and how slow at most. */
  readonly slowCalls: number;
  readonly latencyMs: number;
  readonly startBeyondEnd: "clip" | "wait";
  readonly whenUnwritable: "forward" | "refuse";
  readonly tombstonesKeptMs: number;
  /** The guard is tight enough to be met by what happens in a run. */
  readonly tightGuard: boolean;
  /** Sites whose database ignores case and keeps whole seconds. */
  readonly likeMariadb: readonly boolean[];
  readonly population: number;
}

export interface Plan {
  readonly seed: number;
  readonly weather: Weather;
  readonly steps: readonly Step[];
  readonly stormMs: number;
}

const STORM_MS = 45_000;
const CALLS = 20;
const PROXIES = 2;
const SITES = 2;
/** Chance that a sort of trouble exists in a run, and the most often that it comes. */
const EXISTS = 0.25;
const OFTEN_MAX = 3;

const pickOf = (random: Random): number => Math.floor(random.next() * 0x7fffffff);
const upTo = (random: Random, count: number): number => Math.floor(random.next() * count);

function someone(random: Random, { auditors }: Pick<Weather, "auditors">): Who {
  const everybody: Who[] = [];
  for (let place = 0; place < PROXIES; place += 1) everybody.push({ role: "proxy", place });
  for (let place = 0; place < auditors; place += 1) everybody.push({ role: "auditor", place });
  for (let place = 0; place < SITES; place += 1) everybody.push({ role: "site", place });
  return everybody[upTo(random, everybody.length)] ?? { role: "site", place: 0 };
}

type Maker = (random: Random, weather: Weather) => readonly Trouble[];

function one(maker: (random: Random, weather: Weather) => Trouble): Maker {
  return (random, weather) => [maker(random, weather)];
}

/** Troubles that the event path alone survives. */
const EVENT_PATH: readonly Maker[] = [
  one((random, weather) => ({ do: "crash", who: someone(random, weather), downMs: random.next() * 5_000,
    synced: random.next() })),
  one((random, weather) => ({ do: "restart", who: someone(random, weather) })),
  one((random, weather) => ({ do: "stand still", who: someone(random, weather), forMs: random.next() * 20_000 })),
  one((random, weather) => ({ do: "cut", who: someone(random, weather), way: "both", forMs: random.next() * 15_000 })),
  one((random) => ({ do: "lose ack", fate: random.next() < 0.5 ? "stored" : "not stored" })),
  one(() => ({ do: "unnamed conflict" })),
  one(() => ({ do: "restart stream" })),
  one((random) => ({ do: "repeat deliveries", forMs: random.next() * 20_000 })),
  one((random) => ({ do: "fill stream", forMs: random.next() * 20_000 })),
  one((random) => ({ do: "touch local column", site: upTo(random, SITES), pick: pickOf(random) })),
];

/** Troubles that need an auditor, a heartbeat, a manifest or a row audit. */
const WITH_AUDITOR: readonly Maker[] = [
  one((random, weather) => ({ do: "cut", who: someone(random, weather), way: random.next() < 0.5 ? "there" : "back",
    forMs: random.next() * 30_000 })),
  one((random) => ({ do: "cut", who: { role: "site", place: upTo(random, SITES) }, way: "both",
    forMs: 30_000 + random.next() * 60_000 })),
  one(() => ({ do: "lose ack", fate: "stored later" })),
  one((random) => ({ do: "lose deliveries", count: 1 + upTo(random, 3) })),
  one((random) => ({ do: "drop tail", count: 1 + upTo(random, 12) })),
  one((random) => ({ do: "revive older", pick: pickOf(random) })),
  one(() => ({ do: "recreate stream" })),
  () => [{ do: "copy stream" }, { do: "restore stream" }],
  one((random) => ({ do: "fill disk", place: upTo(random, PROXIES), forMs: random.next() * 15_000 })),
  one((random) => ({ do: "lose disk", place: upTo(random, PROXIES) })),
  one((random) => ({ do: "fail over", database: 0, commits: 1 + upTo(random, 4) })),
  // Commits that did not move the position are lost without a trace: manifests find what they had done.
  one((random) => ({ do: "fail over", database: 1 + upTo(random, SITES), commits: 1 + upTo(random, 4) })),
  (random) => {
    const database = upTo(random, 1 + SITES);
    return [{ do: "back up", database }, { do: "restore backup", database }];
  },
  one((random) => ({ do: "truncate", pick: pickOf(random), restored: random.next() < 0.5 })),
  one((random) => ({ do: "write past the proxy", pick: pickOf(random) })),
  one((random) => ({ do: "lose ledger", site: upTo(random, SITES) })),
  one((random) => ({ do: "drift", site: upTo(random, SITES), pick: pickOf(random) })),
];

function weatherOf(random: Random): Weather {
  const drawn = (most: number): number => (random.next() < 0.5 ? 0 : random.next() * most);
  const auditors = random.next() < 0.25 ? 0 : 1 + upTo(random, 2);
  return {
    proxies: PROXIES, auditors, sites: SITES,
    rowFaults: drawn(0.03), staleReads: auditors === 0 || random.next() < 0.7 ? 0 : random.next() * 0.1,
    lostAnswers: drawn(0.1), lateCommits: drawn(0.1), earlyAnswers: drawn(0.1),
    slowCalls: drawn(0.2), latencyMs: random.next() * 400,
    startBeyondEnd: random.next() < 0.5 ? "clip" : "wait",
    whenUnwritable: auditors > 0 && random.next() < 0.5 ? "forward" : "refuse",
    tombstonesKeptMs: random.next() < 0.5 ? 30_000 + random.next() * 30_000 : 86_400_000,
    tightGuard: auditors > 0 && random.next() < 0.3,
    likeMariadb: Array.from({ length: SITES }, () => random.next() < 0.3),
    population: upTo(random, 16),
  };
}

/** The plan of a seed: always the same. `fixed` overrides parts of the weather. */
export function planOf(seed: number, fixed: Partial<Weather> = {}): Plan {
  const random = seededRandom(seed);
  const drawn = { ...weatherOf(random), ...fixed };
  const weather: Weather = drawn.auditors > 0 ? drawn
    : { ...drawn, staleReads: 0, tightGuard: false, whenUnwritable: "refuse", ...fixed };
  const steps: Step[] = [];
  const sometime = (): number => Math.floor(random.next() * STORM_MS);
  for (let call = 0; call < CALLS; call += 1) steps.push({ atMs: sometime(), do: "call", pick: pickOf(random) });
  for (const maker of weather.auditors === 0 ? EVENT_PATH : [...EVENT_PATH, ...WITH_AUDITOR]) {
    if (random.next() >= EXISTS) continue;
    const times = 1 + upTo(random, OFTEN_MAX);
    for (let time = 0; time < times; time += 1) {
      const troubles = maker(random, weather);
      const moments = troubles.map(sometime).sort((left, right) => left - right);
      for (const [place, trouble] of troubles.entries()) steps.push({ atMs: moments[place] ?? 0, ...trouble });
    }
  }
  const possible = steps.some(isCentreGoingBack) ? steps.filter((step) => !isStreamGoingBack(step)) : steps;
  return { seed, weather, stormMs: STORM_MS, steps: possible.sort((left, right) => left.atMs - right.atMs) };
}

/*
 * A known gap: central database and stream that both go back, to states that agree with each other, in the same epoch. Sites are
 * ahead of both then, and nobody at the centre can know (docs/protocol.md, Gaps). No run has both.
 */
function isCentreGoingBack(step: Step): boolean {
  return (step.do === "fail over" || step.do === "restore backup") && step.database === 0;
}

function isStreamGoingBack(step: Step): boolean {
  return step.do === "drop tail" || step.do === "restore stream";
}

/** One step, for a trace. */
export function inWords(step: Step): string {
  const { atMs: _atMs, do: what, ...rest } = step;
  return `${what} ${JSON.stringify(rest)}`;
}
