/**
 * What befalls the databases, on both pairings of engines: killed under load and forgetting their last commits, set back to an
 * older backup, changed by hand, emptied. Centre, stream and site are equal afterwards, without anybody's help but where a person
 * must say that a deletion is meant.
 */
import { strict as assert } from "node:assert";
import { run } from "../../lab/commands.ts";
import { configurationFileOf } from "../../lab/keystone.ts";
import { readRecord } from "../../lab/record.ts";
import { until } from "../../lab/waiting.ts";
import { present } from "../../core/assert.ts";
import { AUDITED, Fleet, orSkip } from "../support/fleet.ts";
import { clones } from "../support/fleet-backlog.ts";
import { Backup, calm, changeByHand, countOf, told, truncateUsers } from "../support/fleet-disasters.ts";
import { answersMore, killServer } from "../support/fleet-kills.ts";
import type { FleetProcess } from "../support/fleet-process.ts";

const TEST_MS = 240_000;
const CONDITION_MS = 60_000;
const SERVER_KILLS = 2;
const USERS = 1_000;
/** More than a tenth of the users, and more than fifty. */
const MANY = 300;

function raises(process: FleetProcess, codes: readonly string[]): Promise<void> {
  return until({ what: `the fault ${codes.join(" or ")} of ${process.plan.name}`, withinMs: CONDITION_MS, log: process.plan.log },
    async () => (await process.faults()).some((code) => codes.includes(code)));
}

async function callsFor(fleet: Fleet, seed: number, count: number): Promise<void> {
  const load = await fleet.load(seed);
  load.start();
  await answersMore(fleet, () => load.answers, count);
  await load.stop();
}

for (const engines of [{ centre: "mariadb", edge1: "postgres" }, { centre: "postgres", edge1: "mariadb" }] as const) {
  describe(`a centre on ${engines.centre} and a site on ${engines.edge1} whose databases are lost`, function () {
    this.timeout(TEST_MS);
    const opened: Fleet[] = [];

    before(async function () {
      const fleet = await Fleet.open(orSkip(this), engines, AUDITED);
      opened.push(fleet);
      await fleet.sql("centre", clones(engines.centre, "people", USERS));
      told("users written past every API", await fleet.converged(), { centre: engines.centre, users: USERS });
    });

    after(async () => {
      for (const fleet of opened) await fleet.close();
    });

    it("see by the next audit what keystone-manage and bare SQL have written", async () => {
      for (const fleet of opened) {
        const configuration = configurationFileOf(present(readRecord(fleet.lab.paths.folder), "a lab"), "centre");
        await run(["keystone-manage", "--config-file", configuration, "bootstrap", "--bootstrap-password",
          fleet.lab.admin().password.reveal(), "--bootstrap-region-id", "managed", "--bootstrap-service-name", "managed",
          "--bootstrap-public-url", "http://managed.invalid"], { log: fleet.lab.paths.prepareLog });
        await changeByHand(fleet, "centre", "bare-sql");
        await fleet.auditor.operate("audit", { now: true });
        told("written past every API", await fleet.converged(), { centre: engines.centre });
        assert.equal(await countOf(fleet, "edge1", "region", "id = 'managed'"), 1);
        assert.equal(await countOf(fleet, "edge1", "role", "id = 'bare-sql'"), 1);
      }
    });

    it("repair what was changed by hand at the site while its link is cut", async () => {
      for (const fleet of opened) {
        await fleet.lab.cut("edge1");
        try {
          await changeByHand(fleet, "edge1", "drift");
          assert.ok((await fleet.compare()).differences.length >= 4, "the site differs");
          told("drift at a site that is cut off", await fleet.converged(), { site: engines.edge1 });
        } finally {
          await fleet.lab.heal("edge1");
        }
        await callsFor(fleet, 30, 20);
        told("link healed", await fleet.converged(), { site: engines.edge1 });
      }
    });

    it("delete nothing because the users of the centre are gone, until a person says so", async () => {
      for (const fleet of opened) {
        const users = await countOf(fleet, "edge1", "user");
        const names = await countOf(fleet, "edge1", "local_user");
        const disaster = await truncateUsers(fleet);
        await fleet.auditor.operate("audit", { now: true });
        await raises(fleet.auditor, ["E_BLAST_HELD", "E_CENTRE_EMPTIED"]);
        await fleet.auditor.operate("audit", { now: true });
        assert.equal(await countOf(fleet, "edge1", "user"), users, "the site keeps its users");
        assert.equal(await countOf(fleet, "edge1", "local_user"), names, "and their names");
        await disaster.undo();
        await fleet.auditor.operate("audit", { now: true });
        told("users emptied and put back", await fleet.converged(), { centre: engines.centre });
        assert.equal(await countOf(fleet, "edge1", "user"), users);
      }
    });

    it("delete many users when a person has released it", async () => {
      for (const fleet of opened) {
        const people = await countOf(fleet, "edge1", "user");
        // Their names and passwords go with them: the database's own foreign keys say so.
        await fleet.sql("centre", `DELETE FROM ${engines.centre === "postgres" ? "\"user\"" : "user"}
          WHERE id IN (SELECT user_id FROM local_user WHERE name LIKE 'people-1%');`);
        await fleet.auditor.operate("audit", { now: true });
        await raises(fleet.auditor, ["E_BLAST_HELD"]);
        assert.equal(await countOf(fleet, "edge1", "user"), people, "the site keeps its users");
        await fleet.auditor.operate("held.release", { kind: "user" });
        told("many users deleted and released", await fleet.converged(), { centre: engines.centre });
        assert.ok(await countOf(fleet, "edge1", "user") < people - 50, "the users are gone");
      }
    });

    for (const cloud of ["centre", "edge1"] as const) {
      it(`are equal after the database server of ${cloud} was killed ${SERVER_KILLS} times under load`, async () => {
        for (const fleet of opened) {
          await killServer(fleet, engines[cloud], SERVER_KILLS, cloud === "centre" ? 31 : 32);
          told("database killed under load", await fleet.converged(), { at: cloud, engine: engines[cloud] });
        }
      });

      it(`are equal after the database of ${cloud} was set back to an older backup`, async () => {
        for (const fleet of opened) {
          await callsFor(fleet, cloud === "centre" ? 33 : 34, 20);
          const backup = await Backup.take(fleet, engines[cloud]);
          await callsFor(fleet, cloud === "centre" ? 35 : 36, 40);
          await fleet.converged();
          await backup.restore();
          told("database set back", await fleet.converged(), { at: cloud, engine: engines[cloud] });
          await callsFor(fleet, cloud === "centre" ? 37 : 38, 20);
          told("calls after a database was set back", await fleet.converged(), { at: cloud, engine: engines[cloud] });
        }
      });
    }

    it("delete nothing because a backup of the centre knows less, until a person says so", async () => {
      for (const fleet of opened) {
        const backup = await Backup.take(fleet, engines.centre);
        await fleet.sql("centre", clones(engines.centre, "later", MANY));
        await fleet.auditor.operate("audit", { now: true });
        await fleet.converged();
        const users = await countOf(fleet, "edge1", "user");
        await backup.restore();
        await raises(fleet.auditor, ["E_BLAST_HELD"]);
        assert.equal(await countOf(fleet, "edge1", "user"), users, "the site keeps its users");
        await fleet.auditor.operate("held.release", { kind: "user" });
        told("database set back by many users, released", await fleet.converged(), { centre: engines.centre });
        assert.equal(await countOf(fleet, "edge1", "user"), users - MANY);
      }
    });

    it("stay equal: audits find nothing more, and nobody complains", async () => {
      for (const fleet of opened) await calm(fleet);
    });
  });
}
