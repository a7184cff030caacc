/**
 * The long form of tests/fleet/proxy-killed.test.ts: two hundred deaths, on the other pairing of engines.
 */
import { strict as assert } from "node:assert";
import { Fleet, orSkip } from "../support/fleet.ts";
import { killProxy, PROXY_PLACES } from "../support/fleet-kills.ts";

const KILLS = 200;
const START_MS = 240_000;
const KILL_MS = 6_000;

describe(`a proxy killed ${KILLS} times under load`, function () {
  it("leaves no difference between centre and site, and no open intent", async function () {
    this.timeout(2 * START_MS + KILLS * KILL_MS);
    const fleet = await Fleet.open(orSkip(this), { centre: "mariadb", edge1: "postgres" });
    try {
      const { deaths, load, rows, tookMs } = await killProxy(fleet, KILLS, 5);
      console.log(JSON.stringify({ deaths, load, rows, seconds: Math.round(tookMs / 1000) }));
      for (const place of PROXY_PLACES) assert.ok((deaths[place] ?? 0) > 0, `the proxy never died at ${place}`);
    } finally {
      await fleet.close();
    }
  });
});
