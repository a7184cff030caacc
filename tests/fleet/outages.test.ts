/**
 * What is away for a while, and what is shared: the stream server, a disk for the journal, two proxies in front of one API, a
 * proxy that is asked to end. Calls go on in every case, and afterwards centre and site are equal without anybody's help.
 *
 * nats-server is only stopped in good order here: Debian's 2.9.10 may show older images, or lose acknowledged ones, after
 * SIGKILL, which is for the auditor to repair.
 */
import { spawnSync } from "node:child_process";
import { strict as assert } from "node:assert";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "../../lab/waiting.ts";
import { Fleet, orSkip, PATIENT } from "../support/fleet.ts";
import { answersMore } from "../support/fleet-kills.ts";
import type { LoadTally } from "../support/fleet-load.ts";
import type { FleetProcess } from "../support/fleet-process.ts";
import { missing } from "../support/postgres.ts";

const TEST_MS = 240_000;
const CONDITION_MS = 60_000;
/** Calls that are answered while something is away. */
const CALLS = 60;

/** Everything succeeded, or was a call about something that another worker had deleted. */
function assertServed(load: LoadTally): void {
  assert.equal(load.lost + load.refused, 0, JSON.stringify(load));
  const served = ["200", "201", "204", "404", "409"];
  for (const status of Object.keys(load.answered)) assert.ok(served.includes(status), JSON.stringify(load));
}

async function faultsOf(proxy: FleetProcess): Promise<readonly string[]> {
  const { faults } = await proxy.status();
  return (faults as readonly { readonly code: string }[]).map(({ code }) => code);
}

/** A disk of one MiB; undefined when this machine does not let us make one. */
function smallDisk(folder: string): { readonly release: () => void } | undefined {
  mkdirSync(folder);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", folder]).status !== 0) return undefined;
  return { release: () => void spawnSync("umount", [folder]) };
}

describe("a centre and a site through outages", function () {
  this.timeout(TEST_MS);
  const opened: Fleet[] = [];

  before(async function () {
    opened.push(await Fleet.open(orSkip(this), { centre: "postgres", edge1: "postgres" }, PATIENT));
  });

  after(async () => {
    for (const fleet of opened) await fleet.close();
  });

  it("serve every call while the stream server is away, and everything arrives when it is back", async () => {
    for (const fleet of opened) {
      const load = await fleet.load(10);
      load.start();
      await answersMore(fleet, () => load.answers, 10);
      await fleet.lab.stopOne("nats");
      await answersMore(fleet, () => load.answers, CALLS);
      const { openIntents } = await fleet.proxy.status();
      assert.ok(Number(openIntents) >= CALLS / 2, `only ${openIntents} intents wait for the stream`);
      await fleet.lab.startOne("nats");
      await answersMore(fleet, () => load.answers, 10);
      assertServed(await load.stop());
      await fleet.quiet(fleet.proxy);
      await fleet.equal();
    }
  });

  it("are equal after the stream server was restarted several times under load", async () => {
    for (const fleet of opened) {
      const load = await fleet.load(11);
      load.start();
      for (let restart = 0; restart < 3; restart += 1) {
        await answersMore(fleet, () => load.answers, 15);
        await fleet.lab.restart("nats");
      }
      assertServed(await load.stop());
      await fleet.quiet(fleet.proxy);
      await fleet.equal();
    }
  });

  it("are equal after two proxies served one API at the same time", async () => {
    for (const fleet of opened) {
      const second = await fleet.secondProxy("proxy-second");
      await second.start();
      const load = await fleet.load(12, [fleet.centreUrl, second.url], 8);
      load.start();
      await answersMore(fleet, () => load.answers, 3 * CALLS);
      assertServed(await load.stop());
      await fleet.quiet(fleet.proxy, second);
      await fleet.equal();
      for (const proxy of [fleet.proxy, second]) assert.ok(await proxy.counted("holdfast_published_total") > 0, proxy.plan.name);
      await second.end("SIGTERM");
    }
  });

  it("serve every call while the journal's disk is full, say so, and recover by themselves", async function () {
    for (const fleet of opened) {
      const folder = join(fleet.folder, "small-disk");
      const disk = smallDisk(folder);
      if (disk === undefined) missing(this, "this machine does not allow a small tmpfs");
      const filler = join(folder, "filler");
      await fleet.proxy.end("SIGTERM");
      const proxy = fleet.changedProxy("proxy-small-disk",
        { intents: { folder: join(folder, "intents"), segmentBytesMax: 65_536, sizeBytesMax: 1_048_576 } });
      try {
        await proxy.start();
        const load = await fleet.load(13);
        load.start();
        await answersMore(fleet, () => load.answers, 10);
        assert.throws(() => writeFileSync(filler, Buffer.alloc(2 * 1_048_576)), /ENOSPC/);
        const fault = { what: "the fault of a journal that cannot be written", withinMs: CONDITION_MS, log: proxy.plan.log };
        await until(fault, async () => (await faultsOf(proxy)).includes("E_INTENT_UNAVAILABLE"));
        await answersMore(fleet, () => load.answers, CALLS);
        rmSync(filler);
        const recovery = { what: "the end of that fault", withinMs: CONDITION_MS, log: proxy.plan.log };
        await until(recovery, async () => !(await faultsOf(proxy)).includes("E_INTENT_UNAVAILABLE"));
        assertServed(await load.stop());
        await fleet.quiet(proxy);
        await fleet.equal();
      } finally {
        await proxy.end("SIGTERM");
        disk.release();
      }
      await fleet.proxy.start();
    }
  });

  it("lose no accepted call when the proxy is asked to end under load", async () => {
    const restarts = 3;
    for (const fleet of opened) {
      const load = await fleet.load(14);
      // What this life has answered before is not the load's.
      assert.deepEqual(await fleet.proxy.end("SIGTERM"), { code: 0, signal: null });
      await fleet.proxy.start();
      load.start();
      for (let restart = 0; restart < restarts; restart += 1) {
        await answersMore(fleet, () => load.answers, 15);
        assert.deepEqual(await fleet.proxy.end("SIGTERM"), { code: 0, signal: null });
        await fleet.proxy.start();
      }
      const tally = await load.stop();
      // Between a listener's last look at its queue and its close the system may take a connection that nobody accepts any more.
      assert.ok(tally.lost <= restarts, JSON.stringify({ ...tally, why: load.lostReasons() }));
      await fleet.quiet(fleet.proxy);
      await fleet.equal();
      assert.deepEqual(await fleet.proxy.end("SIGTERM"), { code: 0, signal: null });
      const taken = drainedCalls(fleet.proxy.plan.log).slice(-restarts - 1).reduce((sum, calls) => sum + calls, 0);
      assert.equal(taken, load.answers, "every call that a proxy took was answered");
      assert.equal(await fleet.openIntents(), 0, "what a drained proxy left open was closed by the next");
      await fleet.proxy.start();
    }
  });
});

/** How many calls each life of a proxy had taken when it was drained, oldest first: what its log says. */
function drainedCalls(log: string): readonly number[] {
  return [...readFileSync(log, "utf8").matchAll(/^\{.*"calls":(\d+).*"drained".*$/gm)].map(([, calls]) => Number(calls));
}
