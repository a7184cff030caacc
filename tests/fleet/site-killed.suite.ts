/**
 * The site's side of a crash: the sync daemon and the site's database server are killed under load, again and again. Position
 * and rows are one commit, so nothing is applied twice or lost, and the database may even forget its last commits.
 */
import { strict as assert } from "node:assert";
import type { Engines } from "../../lab/options.ts";
import { Fleet, orSkip } from "../support/fleet.ts";
import { killServer, killSyncd, SYNCD_PLACES } from "../support/fleet-kills.ts";

const START_MS = 180_000;
const KILL_MS = 6_000;
/** A database server is started again before it is killed again. */
const SERVER_KILL_MS = 15_000;

export interface SiteKills {
  /** How often the sync daemon dies on each pairing of engines. */
  readonly daemon: number;
  /** How often the database server of the site dies, and that of the centre. */
  readonly server: number;
}

/** Registers the tests, on both pairings of engines. */
export function sitesKilled(kills: SiteKills): void {
  for (const engines of [{ centre: "mariadb", edge1: "postgres" }, { centre: "postgres", edge1: "mariadb" }] as const) {
    siteKilled(engines, kills);
  }
}

function siteKilled(engines: Engines, { daemon, server }: SiteKills): void {
  describe(`a site on ${engines.edge1} of a centre on ${engines.centre}`, function () {
    const opened: Fleet[] = [];

    before(async function () {
      this.timeout(START_MS);
      opened.push(await Fleet.open(orSkip(this), engines));
    });

    after(async function () {
      this.timeout(START_MS);
      for (const fleet of opened) await fleet.close();
    });

    it(`is equal after its sync daemon was killed ${daemon} times under load`, async function () {
      this.timeout(START_MS + daemon * KILL_MS);
      for (const fleet of opened) {
        const { deaths, load, rows, tookMs } = await killSyncd(fleet, daemon, 2);
        console.log(JSON.stringify({ site: engines.edge1, deaths, load, rows, seconds: Math.round(tookMs / 1000) }));
        for (const place of SYNCD_PLACES) assert.ok((deaths[place] ?? 0) > 0, `the daemon never died at ${place}`);
        assert.equal(load.lost + load.refused, 0, "no call depends on the site");
      }
    });

    it(`is equal after its database server was killed ${server} times under load`, async function () {
      this.timeout(START_MS + server * SERVER_KILL_MS);
      for (const fleet of opened) {
        const load = await killServer(fleet, engines.edge1, server, 3);
        assert.equal(load.lost + load.refused, 0, "no call depends on the site");
        await fleet.quiet(fleet.proxy);
        await fleet.equal();
        assert.ok(fleet.syncd.isRunning, "the daemon waits for its database");
      }
    });

    it(`is equal after the centre's database server was killed ${server} times under load`, async function () {
      this.timeout(START_MS + server * SERVER_KILL_MS);
      for (const fleet of opened) {
        await killServer(fleet, engines.centre, server, 4);
        await fleet.quiet(fleet.proxy);
        await fleet.equal();
        assert.ok(fleet.proxy.isRunning, "the proxy waits for its database");
      }
    });
  });
}
