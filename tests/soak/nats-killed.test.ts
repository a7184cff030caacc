/**
 * The long form of what tests/fleet/stream-lost.test.ts does with a killed stream server: thirty deaths, and Debian's 2.9.10 must
 * be seen to lose what it had acknowledged.
 */
import { strict as assert } from "node:assert";
import { AUDITED, Fleet, orSkip } from "../support/fleet.ts";
import { told } from "../support/fleet-disasters.ts";
import { killNats } from "../support/fleet-nats-kills.ts";

const KILLS = 30;
const USERS = 5_000;
const START_MS = 300_000;
const KILL_MS = 30_000;

for (const engines of [{ centre: "postgres", edge1: "mariadb" }, { centre: "mariadb", edge1: "postgres" }] as const) {
  describe(`a stream server killed ${KILLS} times under 64 writers on ${engines.centre}`, function () {
    it("loses images that it acknowledged, and centre, stream and site are equal afterwards", async function () {
      this.timeout(START_MS + KILLS * KILL_MS);
      const fleet = await Fleet.open(orSkip(this), engines, AUDITED);
      try {
        const kills = await killNats(fleet, KILLS, USERS, 60);
        told("killed under writers", kills.convergedSeconds, { kills: KILLS, centre: engines.centre, ...kills });
        assert.ok(kills.lost + kills.wentBack > 0, "the server lost nothing: it is not the one that this test is about");
      } finally {
        await fleet.close();
      }
    });
  });
}
