/**
 * A proxy that is killed at any moment loses no change: whatever it had in hand is found again from its intents, by its next
 * life, without a person and without the auditor. HOLDFAST_KILLS says how often it dies (`npm run soak`: 200).
 */
import { strict as assert } from "node:assert";
import { Fleet, orSkip } from "../support/fleet.ts";
import { killProxy, PROXY_PLACES } from "../support/fleet-kills.ts";

const KILLS = Number(process.env["HOLDFAST_KILLS"] ?? 42);
const START_MS = 180_000;
const KILL_MS = 6_000;

describe(`a proxy killed ${KILLS} times under load`, function () {
  const opened: Fleet[] = [];

  before(async function () {
    this.timeout(START_MS);
    opened.push(await Fleet.open(orSkip(this), { centre: "postgres", edge1: "mariadb" }));
  });

  after(async function () {
    this.timeout(START_MS);
    for (const fleet of opened) await fleet.close();
  });

  it("leaves no difference between centre and site, and no open intent", async function () {
    this.timeout(START_MS + KILLS * KILL_MS);
    for (const fleet of opened) {
      const { deaths, load, rows, tookMs } = await killProxy(fleet, KILLS, 1);
      console.log(JSON.stringify({ deaths, load, rows, seconds: Math.round(tookMs / 1000) }));
      for (const place of PROXY_PLACES) assert.ok((deaths[place] ?? 0) > 0, `the proxy never died at ${place}`);
      assert.ok((load.answered["201"] ?? 0) > KILLS, `too few calls succeeded: ${JSON.stringify(load)}`);
    }
  });
});
