/**
 * Goal: a process may die at any of its calls to the outside, before it was done or right after, and what it left behind is
 * enough for its next life. Method: a few fixed scenarios are run once to count the calls of each process, then once more for
 * every call and both ways of dying there, and each time the clouds must come to rest equal.
 */
import assert from "node:assert/strict";
import type { Plan, Step, Weather, Who } from "./plan.ts";
import { SeedPool } from "./pool.ts";
import { runPlan } from "./run.ts";

const CALM: Weather = { proxies: 2, auditors: 1, sites: 2, rowFaults: 0, staleReads: 0, lostAnswers: 0, lateCommits: 0,
  earlyAnswers: 0, slowCalls: 0, latencyMs: 0, startBeyondEnd: "clip", whenUnwritable: "refuse", tombstonesKeptMs: 15_000,
  tightGuard: false, likeMariadb: [false, true], population: 6 };
/** With 1 it dies at every call, before and after; else after each n-th, which is little less: what lies between is at rest. */
const EVERY = Number(process.env["HOLDFAST_CRASH_EVERY"] ?? "2");
const WAYS = EVERY === 1 ? ["before", "after"] as const : ["after"] as const;

interface Scenario {
  readonly name: string;
  readonly plan: Plan;
}

function scenario(name: string, weather: Partial<Weather>, steps: readonly Step[]): Scenario {
  return { name, plan: { seed: 7, weather: { ...CALM, ...weather }, stormMs: 12_000, steps } };
}

/** Calls of clients at these times; `pick` decides what each of them is. */
function calls(...picks: readonly number[]): readonly Step[] {
  return picks.map((pick, place) => ({ atMs: 1_000 + place * 700, do: "call", pick }));
}

const SCENARIOS = [
  scenario("calls of clients, each captured and applied", { auditors: 0 }, calls(11, 23, 37, 41, 53, 61, 73, 83)),
  scenario("an auditor that finds writes past the proxies, and a new epoch", {}, [...calls(101, 103),
    { atMs: 1_500, do: "write past the proxy", pick: 211 }, { atMs: 2_500, do: "write past the proxy", pick: 223 },
    { atMs: 6_000, do: "recreate stream" }]),
  scenario("a site that reads everything anew, sweeps, and puts drift right", { sites: 1 }, [...calls(301),
    { atMs: 2_000, do: "drift", site: 0, pick: 307 }, { atMs: 2_200, do: "drift", site: 0, pick: 311 },
    { atMs: 4_000, do: "lose ledger", site: 0 }, { atMs: 7_000, do: "drop tail", count: 5 }]),
];
const VICTIMS: readonly Who[] = [{ role: "proxy", place: 0 }, { role: "auditor", place: 0 }, { role: "site", place: 0 }];

describe("a process that dies at any of its calls", function () {
  this.timeout(3_600_000);
  let pool: SeedPool;
  before(() => void (pool = new SeedPool()));
  after(() => pool.close());

  for (const { name, plan } of SCENARIOS) {
    for (const who of VICTIMS) {
      if (who.role === "auditor" && plan.weather.auditors === 0) continue;
      it(`${who.role}: ${name}`, async () => {
        const whole = await runPlan(plan);
        assert.deepEqual(whole.wrong, []);
        const count = whole.calls.get(`${who.role}${who.place + 1}`) ?? 0;
        assert(count > 50, `${who.role} makes ${count} calls`);
        const deaths = Array.from({ length: Math.ceil(count / EVERY) }, (_, place) => 1 + place * EVERY);
        const jobs = deaths.flatMap((call) => WAYS.map((when) => ({ plan, crash: { who, at: { call, when }, downMs: 500 } })));
        const found = await pool.firstWrong(jobs);
        const complaint = found === undefined ? [] : [`dying ${found.job.crash.at.when} call ${found.job.crash.at.call}`,
          ...found.answer.wrong, ...found.answer.lines];
        assert.deepEqual(found?.answer.wrong ?? [], [], complaint.join("\n"));
        process.stdout.write(`      ${count} calls, ${jobs.length} crashes\n`);
      });
    }
  }
});
