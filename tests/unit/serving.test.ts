/**
 * Goal: who answers a call is decided for every situation there can be, as docs/serving.md says, and the laws hold that clients
 * rely on; the state of the way to the centre follows from answers and failures as that page says, and in bounded time.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { choose, PROFILES, REACH_STATES, type ReachState, type Situation } from "../../proxy/choose.ts";
import { toldIn, Freshness } from "../../proxy/freshness.ts";
import { FIRST_STANDING, nextStanding, Reach, REACH_DEFAULTS, type ReachEvent } from "../../proxy/reach.ts";
import { ROUTE_CLASSES, routerOf } from "../../proxy/route.ts";
import { keystone } from "../../schemas/keystone.ts";
import { testWorld } from "../support/upstream.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const BOOLEANS = [true, false];

function* situations(): Generator<Situation> {
  for (const routeClass of ROUTE_CLASSES) for (const profile of PROFILES) for (const reach of REACH_STATES) {
    for (const fresh of BOOLEANS) for (const wrote of BOOLEANS) yield { routeClass, profile, reach, fresh, wrote };
  }
}

/** What the page's table says for some states: "centre", or "local; centre-or-local if wrote". */
function saying(routeClass: Situation["routeClass"], profile: Situation["profile"], fresh: boolean,
  states: readonly ReachState[]): string {
  const said = states.map((reach) => {
    const [usually, wrote] = [false, true].map((has) => choose({ routeClass, profile, reach, fresh, wrote: has }));
    return usually === wrote ? String(usually) : `${String(usually)}; ${String(wrote)} if wrote`;
  });
  assert.equal(new Set(said).size, 1, `${states.join()} share a column`);
  return said[0] ?? "";
}

describe("who answers a call at a site", () => {
  it("is what the page about serving says", () => {
    const columns: readonly (readonly ReachState[])[] = [["connected", "suspect"], ["recovering"], ["cut"]];
    const lines = ROUTE_CLASSES.flatMap((routeClass) => [["centre-first", true, "centre-first"],
      ["local-first", true, "local-first, fresh"], ["local-first", false, "local-first, not fresh"]].map((row) => {
      const [profile, fresh, shown] = row as [Situation["profile"], boolean, string];
      return `| ${[routeClass, shown, ...columns.map((states) => saying(routeClass, profile, fresh, states))].join(" | ")} |`;
    }));
    const page = readFileSync(new URL("../../docs/serving.md", import.meta.url), "utf8");
    const table = (page.split("<!-- table: choose -->\n")[1] ?? "").split("\n\n")[0]?.split("\n").slice(2);
    assert.deepEqual(table, lines);
  });

  it("is never two clouds for a change, and never nobody for a read or a sign-in", () => {
    for (const situation of situations()) {
      const choice = choose(situation);
      if (situation.routeClass === "write") assert(choice === "centre" || choice === "refuse");
      else assert(choice !== "refuse" && choice !== "centre", JSON.stringify(situation));
      if (choice === "local") assert(["cut", "recovering"].includes(situation.reach));
      if (choice === "refuse") assert.equal(situation.reach, "cut");
    }
  });

  it("takes Keystone's sign-ins for such, and nothing for a read that may write", () => {
    const router = routerOf(keystone);
    const classes = [["POST", "/v3/auth/tokens"], ["post", "//v3/auth/tokens/"], ["GET", "/v3/auth/tokens"], ["DELETE",
      "/v3/auth/tokens"], ["GET", "/v3/users"], ["HEAD", "/v3/users/u"], ["POST", "/v3/users"], ["POST", "/v3/unknown"],
    ["GET", "/v3/OS-EP-FILTER/projects/p/endpoints"], ["POST", "/v3/ec2tokens"]].map(([method = "", path = ""]) =>
      router.classOf(method, path));
    assert.deepEqual(classes, ["sign-in", "sign-in", "read", "write", "read", "read", "write", "write", "write", "sign-in"]);
  });
});

describe("the way to the centre", () => {
  const after = (...events: readonly ReachEvent[]): ReachState =>
    events.reduce((standing, event) => nextStanding(standing, event, REACH_DEFAULTS), FIRST_STANDING).state;

  it("is cut by probes alone, after one sign of calls at most", () => {
    assert.deepEqual([after("failed call"), after("failed call", "failed call", "failed call"),
      after("failed call", "failed probe"), after("failed probe", "failed call"), after("failed probe", "failed probe"),
      after("failed probe", "answer")],
    ["suspect", "suspect", "cut", "suspect", "cut", "connected"]);
    fc.assert(fc.property(fc.array(fc.constantFrom("answer" as const, "failed call" as const)), (events) =>
      !["cut", "recovering"].includes(after(...events))));
  });

  it("comes back after answers in a row, and only then", () => {
    const cut = ["failed probe", "failed probe"] as const;
    assert.deepEqual([after(...cut, "answer"), after(...cut, "answer", "answer"), after(...cut, "answer", "failed probe"),
      after(...cut, "answer", "failed probe", "answer"), after(...cut, "answer", "failed call", "answer")],
    ["recovering", "connected", "cut", "recovering", "connected"]);
  });

  it("is found cut by one probe after a doubt, by two while nobody calls, and so is its return", async () => {
    const clock = new VirtualClock(1);
    const { probeTimeoutMs, probeAgainMs, probeEveryMs } = REACH_DEFAULTS;
    let isThere = true;
    let probes = 0;
    const probe = (timeoutMs: number): Promise<boolean> => {
      probes += 1;
      return new Promise((resolve) => void clock.after(isThere ? 5 : timeoutMs, () => resolve(isThere)));
    };
    const reach = new Reach({ world: { ...testWorld, clock }, probe }, REACH_DEFAULTS);
    await reach.start();
    const takes = async (state: ReachState): Promise<number> => {
      const startMs = clock.monotonicMs();
      assert(await clock.runUntil(() => reach.state === state, 60_000), state);
      return clock.monotonicMs() - startMs;
    };
    await clock.pass(60_000);
    assert.deepEqual([reach.state, probes], ["connected", 12]);
    reach.answered();
    for (let calls = 0; calls < 100; calls += 1) {
      await clock.pass(probeEveryMs / 2);
      reach.answered();
    }
    assert.equal(probes, 12, "nothing is probed while calls are answered");
    const given = reach.giveUp;
    isThere = false;
    reach.doubted();
    assert(await takes("cut") <= probeTimeoutMs);
    assert(given.aborted && !reach.giveUp.aborted);
    isThere = true;
    assert(await takes("connected") <= probeTimeoutMs + 3 * probeAgainMs);
    isThere = false;
    assert(await takes("cut") <= probeEveryMs + 2 * probeTimeoutMs + probeAgainMs);
    await reach.stop();
    const before = probes;
    await clock.pass(60_000);
    assert.equal(probes, before + 0);
  });
});

describe("the age of a site's rows", () => {
  it("grows while the daemon is away, and is unknown before it ever answered", async () => {
    const clock = new VirtualClock(1);
    let text: string | undefined;
    const freshness = new Freshness({ service: "keystone", world: { ...testWorld, clock }, ask: () => Promise.resolve(text) });
    await freshness.start();
    await clock.pass(5_000);
    assert.equal(freshness.age(), undefined);
    assert.deepEqual(freshness.status(), { daemon: "away" });
    text = JSON.stringify({ status: { services: [{ service: "keystone", epoch: 1, sequence: 9, ageSeconds: 2.5 }] } });
    await clock.pass(1_000);
    assert.deepEqual(freshness.status(), { daemon: "answers", position: "1:9", seconds: 3 });
    text = undefined;
    await clock.pass(60_000);
    assert.deepEqual(freshness.age(), { position: "1:9", seconds: 63 });
    await freshness.stop();
  });

  it("is taken from nothing but a status document that speaks of the service", () => {
    const entry = { service: "keystone", epoch: 1, sequence: 9 };
    const document = JSON.stringify({ status: { services: [entry] } });
    assert.deepEqual(toldIn(document, "keystone"), { epoch: 1, sequence: 9, ageSeconds: undefined });
    for (const text of ["", "{", "[]", "{}", "null", "1", '{"status":{"services":{}}}', document.replace("9", '"9"')]) {
      assert.equal(toldIn(text, "keystone"), undefined, text);
    }
    assert.equal(toldIn(document, "glance"), undefined);
  });
});
