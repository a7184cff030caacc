/**
 * A site that was away while thousands of aggregates changed reads each of them once and is equal afterwards. How fast is
 * measured by bench/backlog.ts; here it only has to be right.
 */
import { strict as assert } from "node:assert";
import { Fleet, orSkip } from "../support/fleet.ts";
import { catchUp, makeBacklog } from "../support/fleet-backlog.ts";

const USERS = 2_000;

for (const engines of [{ centre: "mariadb", edge1: "postgres" }, { centre: "postgres", edge1: "mariadb" }] as const) {
  describe(`a site on ${engines.edge1} that was away`, function () {
    this.timeout(240_000);
    const opened: Fleet[] = [];

    before(async function () {
      opened.push(await Fleet.open(orSkip(this), engines));
    });

    after(async () => {
      for (const fleet of opened) await fleet.close();
    });

    it(`catches up with ${USERS} new users`, async () => {
      for (const fleet of opened) {
        const figures = await catchUp(fleet, USERS, await makeBacklog(fleet, "away", USERS));
        assert.equal(figures.rows, 3 * USERS, JSON.stringify(figures));
        await fleet.equal();
      }
    });
  });
}
