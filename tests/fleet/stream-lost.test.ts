/**
 * The stream server loses what it acknowledged, and everything is equal afterwards without anybody's help: killed under many
 * writers, set back to an older copy of its store, its stream deleted under everybody, its disk full. Method: real processes and
 * servers; centre, stream and site are compared row by row from outside the product, and the time until equality is printed.
 */
import { strict as assert } from "node:assert";
import { until } from "../../lab/waiting.ts";
import { AUDITED, Fleet, orSkip } from "../support/fleet.ts";
import { clones } from "../support/fleet-backlog.ts";
import { Backup, SmallStore, calm, told } from "../support/fleet-disasters.ts";
import { answersMore } from "../support/fleet-kills.ts";
import { killNats } from "../support/fleet-nats-kills.ts";
import { deleteStream } from "../support/fleet-stream.ts";
import { missing } from "../support/postgres.ts";

const KILLS = Number(process.env["HOLDFAST_NATS_KILLS"] ?? 6);
const KILL_MS = 15_000;
const TEST_MS = 240_000;
const CONDITION_MS = 60_000;
const USERS = 1_000;
const WRITTEN_USERS = 5_000;
const SMALL_MEBIBYTES = 64;

describe("a centre on postgres and a site on mariadb whose stream is lost", function () {
  this.timeout(TEST_MS);
  const opened: Fleet[] = [];

  before(async function () {
    const fleet = await Fleet.open(orSkip(this), { centre: "postgres", edge1: "mariadb" }, AUDITED);
    opened.push(fleet);
    await fleet.sql("centre", clones("postgres", "people", USERS));
    told("users written past every API", await fleet.converged(), { users: USERS });
  });

  after(async () => {
    for (const fleet of opened) await fleet.close();
  });

  it("are equal after the store was set back to an older copy under load", async () => {
    for (const fleet of opened) {
      const load = await fleet.load(20);
      load.start();
      await answersMore(fleet, () => load.answers, 20);
      const backup = await Backup.take(fleet, "nats");
      await answersMore(fleet, () => load.answers, 60);
      await backup.restore();
      await answersMore(fleet, () => load.answers, 20);
      const tally = await load.stop();
      told("store set back", await fleet.converged(), tally);
    }
  });

  it("are equal after an older store came back and nothing was written since", async () => {
    for (const fleet of opened) {
      const backup = await Backup.take(fleet, "nats");
      const load = await fleet.load(21);
      load.start();
      await answersMore(fleet, () => load.answers, 40);
      await load.stop();
      await fleet.quiet(fleet.proxy);
      await backup.restore();
      told("store set back, quiet", await fleet.converged());
    }
  });

  it("are equal after the stream was deleted while everything runs", async () => {
    for (const fleet of opened) {
      const load = await fleet.load(22);
      load.start();
      await answersMore(fleet, () => load.answers, 20);
      await deleteStream(fleet.lab.nats);
      await answersMore(fleet, () => load.answers, 40);
      const tally = await load.stop();
      told("stream deleted", await fleet.converged(), tally);
    }
  });

  it("are equal after the store's disk was full and the server was started again", async function () {
    for (const fleet of opened) {
      const small = await SmallStore.move(fleet, SMALL_MEBIBYTES);
      if (small === undefined) missing(this, "this machine does not allow a small tmpfs");
      try {
        const load = await fleet.load(23);
        load.start();
        await answersMore(fleet, () => load.answers, 10);
        small.fill();
        await answersMore(fleet, () => load.answers, 60);
        small.free();
        await fleet.lab.restart("nats");
        await load.stop();
        told("store's disk full", await fleet.converged());
      } finally {
        await small.release();
      }
      const wait = { what: "a ready proxy on the large disk", withinMs: CONDITION_MS, log: fleet.proxy.plan.log };
      await until(wait, async () => (await fleet.proxy.status())["dirty"] === 0);
    }
  });

  it(`are equal after the server was killed ${KILLS} times under 64 writers, whatever it lost`, async function () {
    this.timeout(TEST_MS + KILLS * KILL_MS);
    for (const fleet of opened) {
      const kills = await killNats(fleet, KILLS, WRITTEN_USERS, 24);
      told("killed under writers", kills.convergedSeconds, { kills: KILLS, ...kills });
      assert.ok(kills.written > WRITTEN_USERS, JSON.stringify(kills));
    }
  });

  it("stay equal: audits find nothing more, and nobody complains", async () => {
    for (const fleet of opened) await calm(fleet);
  });
});
