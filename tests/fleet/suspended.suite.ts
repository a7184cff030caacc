/**
 * Processes that hang and come back, and two sync daemons at one site: whoever was suspended goes on with what it believed, and
 * must not do harm with it. The tests of tests/fleet/ and of tests/soak/ differ in how long each hangs.
 */
import { strict as assert } from "node:assert";
import { AUDITED, Fleet, orSkip } from "../support/fleet.ts";
import { calm, suspended, told } from "../support/fleet-disasters.ts";
import { answersMore } from "../support/fleet-kills.ts";

const TEST_MS = 180_000;
const ENGINES = { centre: "mariadb", edge1: "postgres" } as const;

/** Tests in which each process hangs for `lengthMs`. */
export function processesThatHang(lengthMs: number): void {
  describe(`a centre on mariadb and a site on postgres whose processes hang for ${lengthMs / 1000} s`, function () {
    this.timeout(TEST_MS + 2 * lengthMs);
    const opened: Fleet[] = [];

    before(async function () {
      opened.push(await Fleet.open(orSkip(this), ENGINES, AUDITED));
    });

    after(async () => {
      for (const fleet of opened) await fleet.close();
    });

    const hangs = async (what: string, seed: number, suspend: (fleet: Fleet) => unknown,
      resume: (fleet: Fleet) => unknown): Promise<void> => {
      for (const fleet of opened) {
        const load = await fleet.load(seed);
        load.start();
        await answersMore(fleet, () => load.answers, 10);
        await suspended(lengthMs, () => suspend(fleet), () => resume(fleet));
        await answersMore(fleet, () => load.answers, 20);
        const tally = await load.stop();
        told(`${what} suspended`, await fleet.converged(), { suspendedSeconds: lengthMs / 1000, ...tally });
      }
    };

    for (const [place, name] of (["proxy", "auditor", "syncd"] as const).entries()) {
      it(`are equal after the ${name} was suspended under load`, async () => {
        await hangs(name, 40 + place, (fleet) => fleet[name].suspend(), (fleet) => fleet[name].resume());
      });
    }

    for (const [place, name] of ["nats", "mariadb", "postgres", "link-edge1"].entries()) {
      it(`are equal after ${name} was suspended under load`, async () => {
        await hangs(name, 45 + place, (fleet) => fleet.lab.kill(name, "SIGSTOP"), (fleet) => fleet.lab.kill(name, "SIGCONT"));
      });
    }

    it("are equal after two sync daemons served one site at the same time", async () => {
      for (const fleet of opened) {
        const second = await fleet.secondSyncd("syncd-second");
        const load = await fleet.load(50);
        load.start();
        second.spawn();
        await answersMore(fleet, () => load.answers, 80);
        await load.stop();
        told("two daemons at one site", await fleet.converged());
        assert.ok(second.isRunning && fleet.syncd.isRunning, "both daemons live");
        await second.end("SIGTERM");
        await fleet.converged();
      }
    });

    it("stay equal: audits find nothing more, and nobody complains", async () => {
      for (const fleet of opened) await calm(fleet);
    });
  });
}
