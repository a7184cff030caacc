/**
 * A site that is cut off for a month, in compressed time: a day is one audit of the centre, thirty of them. Meanwhile 100,000
 * aggregates change at the centre, many of them more than once: users come, change and go, written by SQL as a data
 * migration would. Then the link is healed, and the site must become equal by itself.
 *
 * What a day costs does not depend on its length (nothing at the centre waits for a site), so thirty audits stand for thirty
 * days; the end of tombstones after their time is the simulator's matter. Bytes are those that the stream server sent to the
 * site's connections since the healing, as it counts them. HOLDFAST_AWAY_CHANGES changes the number.
 */
import { strict as assert } from "node:assert";
import { systemClock } from "../../core/clock.ts";
import { call } from "../../lab/http.ts";
import { until } from "../../lab/waiting.ts";
import type { Engines } from "../../lab/options.ts";
import { AUDIT, Fleet, orSkip, PATIENT } from "../support/fleet.ts";
import { clones } from "../support/fleet-backlog.ts";
import { told } from "../support/fleet-disasters.ts";

const DAYS = 30;
const CHANGES = Number(process.env["HOLDFAST_AWAY_CHANGES"] ?? 100_000);
/** Of each day's changes: users that come, and of those that came before, users that change and users that go. */
const [COME, CHANGE, GO] = [0.7, 0.2, 0.1];
const TEST_MS = 3_600_000;
const CATCH_UP_MS = 600_000;
/** Audits when a day ends; what ten thousand rows differ by is meant. */
const HOUR_MS = 3_600_000;
const SETUP = { ...PATIENT, audited: { guard: { sharePercentMax: 100, windowMs: 0 }, audit: { ...AUDIT, everyMs: HOUR_MS } } };

/** As nats-server tells it (/connz). */
interface Connection {
  readonly authorized_user?: string;
  readonly out_bytes: number;
  readonly out_msgs: number;
}

interface SiteTraffic {
  readonly bytes: number;
  readonly messages: number;
}

/** What the stream server has sent to the site's connections, open ones and closed ones. */
async function sentTo(fleet: Fleet, site: string): Promise<SiteTraffic> {
  const { text } = await call({ url: `${fleet.lab.nats.monitor}/connz?auth=true&state=all&limit=4096` });
  const { connections } = JSON.parse(text) as { readonly connections: readonly Connection[] };
  const own = connections.filter((each) => each.authorized_user === site);
  const sum = (field: "out_bytes" | "out_msgs"): number => own.reduce((total, each) => total + each[field], 0);
  return { bytes: sum("out_bytes"), messages: sum("out_msgs") };
}

/** One day: some users come, some that came before change, some go. */
async function day(fleet: Fleet, engines: Engines, number: number): Promise<void> {
  const changes = Math.ceil(CHANGES / DAYS);
  const user = engines.centre === "postgres" ? "\"user\"" : "`user`";
  const came = (count: number): string => `(SELECT id FROM (SELECT id FROM ${user} WHERE extra LIKE '%"day-%'
    ORDER BY id LIMIT ${count}) AS some)`;
  if (number > 1) {
    await fleet.sql("centre", `
      DELETE FROM ${user} WHERE id IN ${came(Math.ceil(changes * GO))};
      UPDATE ${user} SET extra = '{"email": "day-${number}-changed"}' WHERE id IN ${came(Math.ceil(changes * CHANGE))};`);
  }
  await fleet.sql("centre", clones(engines.centre, `day-${number}`, Math.ceil(changes * COME)));
  await fleet.auditor.operate("audit", { now: true });
}

for (const engines of [{ centre: "postgres", edge1: "mariadb" }, { centre: "mariadb", edge1: "postgres" }] as const) {
  const away = `${DAYS} days with ${CHANGES} changes on ${engines.centre}`;
  describe(`a site on ${engines.edge1} that is cut off for ${away}`, function () {
    it("is equal soon after the link is healed, by itself", async function () {
      this.timeout(TEST_MS);
      const fleet = await Fleet.open(orSkip(this), engines, SETUP);
      try {
        await fleet.lab.cut("edge1");
        for (let number = 1; number <= DAYS; number += 1) await day(fleet, engines, number);
        const before = await sentTo(fleet, "edge1");
        const { aggregates, rows } = { aggregates: await fleet.syncd.counted("holdfast_applied_aggregates_total"),
          rows: await fleet.syncd.counted("holdfast_applied_rows_total") };
        const healedMs = systemClock.monotonicMs();
        await fleet.lab.heal("edge1");
        const wait = { what: "the site has read everything", withinMs: CATCH_UP_MS, log: fleet.syncd.plan.log };
        const { lastSequence } = await fleet.rooms.feed.state();
        await until(wait, async () => await fleet.syncd.counted("holdfast_position_sequence") >= lastSequence);
        const seconds = (systemClock.monotonicMs() - healedMs) / 1000;
        const after = await sentTo(fleet, "edge1");
        const converged = await fleet.converged(CATCH_UP_MS);
        told("cut off for a month", converged, { site: engines.edge1, changes: CHANGES,
          readAfterSeconds: Math.round(seconds * 10) / 10,
          aggregates: await fleet.syncd.counted("holdfast_applied_aggregates_total") - aggregates,
          rows: await fleet.syncd.counted("holdfast_applied_rows_total") - rows,
          bytes: after.bytes - before.bytes, messages: after.messages - before.messages });
        assert.ok(after.messages - before.messages < 1.2 * CHANGES, "at most one message for each changed aggregate, and a few");
      } finally {
        await fleet.close();
      }
    });
  });
}
