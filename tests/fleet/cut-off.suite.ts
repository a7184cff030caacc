/**
 * Goal: at a site that loses its centre, in whichever way, everybody goes on reading and signing in without one failed call; the
 * site notices, tells the truth, refuses changes, and goes back by itself. Method: real Keystones, proxies and daemons; the link
 * is cut and healed again and again under a steady rate of calls. Times are told, not asserted.
 */
import { strict as assert } from "node:assert";
import { present } from "../../core/assert.ts";
import { systemClock } from "../../core/clock.ts";
import { call } from "../../lab/http.ts";
import { CUTS, type Cut, type Engines } from "../../lab/options.ts";
import { until } from "../../lab/waiting.ts";
import { AUDITED, Fleet, orSkip } from "../support/fleet.ts";
import { send } from "../support/fleet-load.ts";
import type { FleetProcess } from "../support/fleet-process.ts";
import { Readers, type ReadingTally } from "../support/fleet-reading.ts";

const START_MS = 300_000;
const NOTICED_MS = 30_000;
/** How long a link stays cut once that is noticed, and whole once that is noticed. */
const STAY_MS = 1_000;
const CUT_MS = 90_000;

export interface CutsAsked {
  readonly engines: Engines;
  readonly times: number;
  readonly callsPerSecond: number;
  readonly profile: "centre-first" | "local-first";
}

/** One way of cutting, some times: milliseconds until noticed and until back, and what the readers saw. */
interface Seen {
  readonly noticedMs: readonly number[];
  readonly backMs: readonly number[];
  readonly tally: ReadingTally;
}

async function reaches(proxy: FleetProcess, state: string): Promise<number> {
  const startMs = systemClock.monotonicMs();
  await until({ what: `the way to the centre being ${state}`, withinMs: NOTICED_MS, log: proxy.plan.log }, async () => {
    const { centre } = await proxy.status() as { readonly centre?: { readonly state?: string } };
    return centre?.state === state;
  });
  return Math.round(systemClock.monotonicMs() - startMs);
}

async function stays(): Promise<void> {
  const untilMs = systemClock.monotonicMs() + STAY_MS;
  await until({ what: "a while", withinMs: 10 * STAY_MS, log: "" }, () => Promise.resolve(systemClock.monotonicMs() >= untilMs));
}

/** Registers the tests. */
export function sitesCutOff({ engines, times, callsPerSecond, profile }: CutsAsked): void {
  describe(`a site on ${engines.edge1} of a centre on ${engines.centre} that is cut off, ${profile}`, function () {
    this.timeout(START_MS);
    let fleet: Fleet;
    let proxy: FleetProcess & { readonly url: string };

    before(async function () {
      fleet = await Fleet.open(orSkip(this), engines, AUDITED);
      proxy = fleet.siteProxy({ centre: { profile } });
      await proxy.start();
      await reaches(proxy, "connected");
    });
    after(() => (fleet as Fleet | undefined)?.close());

    const readers = async (): Promise<Readers> => {
      const token = await fleet.token();
      const { text } = await call({ url: `${fleet.lab.endpoints.centre.direct}/v3/users?name=admin`,
        headers: { "x-auth-token": token.reveal() } });
      const userId = present(/"id": ?"([0-9a-f]{32})"/.exec(text)?.[1], `Keystone has its administrator: ${text}`);
      return new Readers({ url: proxy.url, admin: fleet.lab.admin(), token, userId, callsPerSecond });
    };
    const cutAndHeal = async (how: Cut): Promise<Seen> => {
      const [noticedMs, backMs]: [number[], number[]] = [[], []];
      const reading = await readers();
      reading.start();
      for (let time = 0; time < times; time += 1) {
        await stays();
        await fleet.lab.cut("edge1", how);
        noticedMs.push(await reaches(proxy, "cut"));
        await stays();
        await fleet.lab.heal("edge1");
        backMs.push(await reaches(proxy, "connected"));
      }
      return { noticedMs, backMs, tally: await reading.stop() };
    };

    for (const how of CUTS) {
      it(`answers every read and sign-in while its link is cut and healed (${how})`, async function () {
        this.timeout(times * CUT_MS);
        const { noticedMs, backMs, tally } = await cutAndHeal(how);
        const most = (all: readonly number[]): number => Math.max(...all);
        const seen = { ...tally, failed: tally.failed.length, noticedMsMost: most(noticedMs), backMsMost: most(backMs) };
        process.stdout.write(`${JSON.stringify({ cut: how, profile, times, ...seen })}\n`);
        assert.deepEqual(tally.failed, []);
        assert.ok(tally.local > 0, "the site answered while it was cut off");
      });
    }

    it("refuses changes while it is cut off, says so in Keystone's words, and takes them again afterwards", async () => {
      const token = await fleet.token();
      const change = (name: string): ReturnType<typeof send> =>
        send(`${proxy.url}/v3/groups`, "POST", token, { group: { name, domain_id: "default" } });
      await fleet.lab.cut("edge1", "drop");
      await reaches(proxy, "cut");
      const refused = await change("while-cut");
      assert.equal(refused.kind === "answered" ? refused.status : refused.kind, 503);
      assert.match(refused.kind === "answered" ? refused.text : "", /"error": ?\{"code": ?503,.*this change was not made/);
      await fleet.lab.heal("edge1");
      await reaches(proxy, "connected");
      const taken = await change("after-cut");
      assert.equal(taken.kind === "answered" ? taken.status : taken.kind, 201);
      await fleet.converged();
    });

    it("serves again by itself when every process of the site has died while it is cut off", async () => {
      await fleet.lab.cut("edge1", "blackhole");
      await reaches(proxy, "cut");
      const { edge1 } = engines;
      for (const name of ["keystone-edge1", edge1]) await fleet.lab.kill(name);
      for (const process of [proxy, fleet.syncd]) await process.end("SIGKILL");
      for (const name of [edge1, "keystone-edge1"]) await fleet.lab.startOne(name);
      fleet.syncd.spawn();
      proxy.spawn();
      const wait = { what: "a sign-in at the site", withinMs: NOTICED_MS, log: proxy.plan.log };
      const reading = await readers();
      await until(wait, async () => (await call({ url: `${proxy.url}/v3` })).status === 200);
      reading.start();
      await reaches(proxy, "cut");
      await stays();
      const tally = await reading.stop();
      assert.deepEqual(tally.failed, []);
      await fleet.lab.heal("edge1");
      await reaches(proxy, "connected");
      await fleet.converged();
    });
  });
}
