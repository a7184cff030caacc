/**
 * Goal: a site notices that the stream is not the one it read (E2), reads it anew from a place that misses nothing (E7), and
 * removes exactly what is gone, or holds it; nothing of this is lost in a crash. Method: a follower on twins, a centre of a few
 * lines, virtual time.
 */
import assert from "node:assert/strict";
import { decideHeld, listHeld } from "../../capture/held.ts";
import type { Feed, ReadOptions } from "../../feed/feed.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import type { Kind, Service } from "../../schemas/define.ts";
import { FollowedSite, StagedCentre, type SiteOptions } from "../support/followed-site.ts";
import { toy } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";
import { altered } from "../simulation/altered.ts";

/** Half a second of virtual time is more than any exchange takes that waits for no timer. */
const SOON_MS = 500;
/** After this long without a message a reading says that nothing comes. */
const QUIET_MS = 6_000;
const named = (prefix: string, count: number): readonly string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${String(index).padStart(3, "0")}`);

/** The toy service, in which there is always a group. */
function withGroupsAlways(): Service {
  const kinds = new Map<string, Kind>([...toy.kinds].map(([name, kind]) => [name, { ...kind, neverEmpty: name === "group" }]));
  return { ...toy, kinds };
}

describe("a site whose stream is not the one it read", () => {
  let clock: VirtualClock;
  let centre: StagedCentre;

  const started = async (options: SiteOptions = {}): Promise<FollowedSite> => {
    const site = new FollowedSite(clock, centre, options);
    assert(await site.caughtUp(), JSON.stringify(site.follower.status()));
    return site;
  };

  beforeEach(async () => {
    clock = new VirtualClock();
    centre = new StagedCentre(clock);
    await centre.groups("a", "b", "c");
    await centre.beat();
  });

  /** Two heartbeats: what is absent at both of them is gone. */
  const beatTwice = async (): Promise<void> => {
    await centre.beat();
    await clock.pass(QUIET_MS);
    await centre.beat();
    await clock.pass(SOON_MS);
  };

  for (const startBeyondEnd of ["clip", "wait"] as const) {
    it(`reads it anew when its end was lost, before anybody raises the epoch (servers that ${startBeyondEnd})`, async () => {
      centre = new StagedCentre(clock, toy, { startBeyondEnd });
      await centre.groups("a", "b");
      await centre.beat();
      const site = await started();
      await centre.groups("lost1", "lost2", "lost3", "lost4");
      await centre.beat();
      assert(await site.caughtUp());
      const { sequence } = site.follower.status();
      centre.stream.faults.dropTail(5);
      // The reader is back before anything new comes, and reads that at places it has passed.
      await clock.pass(SOON_MS);
      await centre.group("new");
      await clock.pass(SOON_MS);
      await centre.beat();
      assert(centre.stream.lastSequence() < sequence);
      assert(await site.caughtUp("sweep", 60_000));
      await beatTwice();
      assert(await site.caughtUp("tail", 60_000), JSON.stringify(site.follower.status()));
      assert.deepEqual(await site.differences(), []);
      assert.equal(site.metrics.counts.get("holdfast_resyncs_total sequences"), 1);
      assert.deepEqual(await site.applied(), ["group.a", "group.b", "group.new"]);
    });
  }

  it("reads it anew when the epoch rises, by an image or by a heartbeat, and forgets what is not there any more", async () => {
    for (const by of ["image", "heartbeat"]) {
      const site = await started();
      centre.stream.faults.recreate();
      centre.epoch += 1;
      if (by === "heartbeat") await centre.beat({ filled: false });
      // Read from where it stood, a shorter stream shows nothing of what was there before the reader came back.
      await clock.pass(SOON_MS);
      await centre.groups("b", "c", `made for ${by}`);
      assert(await site.caughtUp("sweep"), "absence proves nothing before everything was compared once");
      assert((await site.applied()).includes("group.a"));
      await beatTwice();
      assert(await site.caughtUp());
      assert.deepEqual(await site.differences(), []);
      await centre.group("a");
    }
  });

  it("reads it anew when tombstones it has not read were collected", async () => {
    const site = await started();
    site.feed.cut("away for a month");
    const tombstone = await centre.put("group", ["b"]);
    await centre.group("d");
    await centre.beat({ floor: { epoch: 1, sequence: tombstone } });
    await centre.feed.purge(`os.v1.toy.all.group.b`, tombstone);
    site.feed.cut(undefined);
    await clock.pass(QUIET_MS);
    await beatTwice();
    assert(await site.caughtUp());
    assert.equal(site.metrics.counts.get("holdfast_resyncs_total floor"), 1);
    assert.deepEqual(await site.applied(), ["group.a", "group.c", "group.d"]);
    assert.deepEqual(await site.differences(), []);
  });

  it("reads on when nothing of the kind happened: cuts, restarts and repeated deliveries are no proof", async () => {
    const site = await started();
    for (let round = 0; round < 5; round += 1) {
      await centre.group(`more ${round}`);
      await centre.beat();
      if (round === 1) site.feed.cut("cut");
      if (round === 2) site.feed.cut(undefined);
      if (round === 3) centre.stream.faults.restart();
      centre.stream.faults.repeatDeliveries(round === 4);
      await clock.pass(20_000);
    }
    centre.stream.faults.repeatDeliveries(false);
    site.crash();
    assert(await site.caughtUp());
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual([...site.metrics.counts.keys()].filter((name) => name.startsWith("holdfast_resyncs")), []);
  });

  it("misses nothing that is published while it fills, and does not read everything twice", async () => {
    const ids = named("g", 60);
    await centre.groups(...ids);
    const tails: number[] = [];
    let publishes = 0;
    const busy = (feed: Feed): Feed => altered(feed, {
      read: (options: ReadOptions, signal: AbortSignal) => {
        const batches = feed.read(options, signal);
        if (options.untilTip !== true) tails.push(options.after);
        return (async function* () {
          for await (const batch of batches) {
            const id = `g${String((publishes * 7) % 60).padStart(3, "0")}`;
            // Something below changes, something new comes, something goes, between any two batches of the fill.
            if (publishes < 40) await centre.group(id, `renamed ${publishes}`);
            if (publishes < 40) await centre.put("domain", [`d${publishes % 9}`], publishes % 2 === 0
              ? { domain: [{ id: `d${publishes % 9}`, name: `d${publishes}` }] } : undefined);
            publishes += 1;
            yield batch;
          }
        })();
      },
    });
    const end = centre.stream.lastSequence();
    const site = new FollowedSite(clock, centre, { changesMax: 5, feed: busy });
    await clock.pass(SOON_MS);
    await centre.beat();
    assert(await site.caughtUp());
    assert.deepEqual(tails, [end], "the tail begins at the end that the stream had before the fill");
    assert.deepEqual(await site.differences(), []);
  });

  it("is read anew when an operator asks, also while the feed is cut", async () => {
    const site = await started();
    site.feed.cut("cut");
    await clock.pass(SOON_MS);
    await site.follower.resync();
    assert.equal(site.follower.status().mode, "fill");
    site.feed.cut(undefined);
    assert(await site.caughtUp());
    assert.equal(site.metrics.counts.get("holdfast_resyncs_total asked"), 1);
    await site.follower.resync();
    assert(await site.caughtUp());
    assert.deepEqual(await site.differences(), []);
  });

  it("says that heartbeats stay away, and that they are back", async () => {
    const site = await started();
    await clock.pass(50_000);
    assert.deepEqual(site.codes, []);
    await clock.pass(30_000);
    assert.deepEqual(site.codes, ["E_HEARTBEAT_MISSING"]);
    await centre.beat();
    await clock.pass(SOON_MS);
    assert.deepEqual(site.codes, []);
  });

  it("knows of no missing heartbeats where there never was one", async () => {
    centre = new StagedCentre(clock);
    await centre.groups("a");
    const site = new FollowedSite(clock, centre);
    assert(await site.caughtUp("sweep"));
    await clock.pass(600_000);
    assert.deepEqual(site.codes, []);
  });

  describe("and the sweep", () => {
    /** The stream is made anew with these groups only. */
    const remade = async (...ids: readonly string[]): Promise<void> => {
      centre.stream.faults.recreate();
      centre.epoch += 1;
      await centre.groups(...ids);
    };

    it("takes away exactly what is gone, children first, and leaves what waits", async () => {
      await centre.put("user", ["u1"], { user: [{ id: "u1", domain_id: "d", name: "u1" }], secret: [] });
      await centre.put("domain", ["d"], { domain: [{ id: "d", name: "d" }] });
      await centre.put("membership", ["u1", "a"], { membership: [{ user_id: "u1", group_id: "a" }] });
      const site = await started();
      assert.equal((await site.applied()).length, 6);
      await remade("b");
      await centre.put("membership", ["nobody", "b"], { membership: [{ user_id: "nobody", group_id: "b" }] });
      await beatTwice();
      assert(await site.caughtUp());
      assert.deepEqual(await site.applied(), ["group.b"]);
      assert.deepEqual([await site.texts("membership"), await site.texts("user"), await site.texts("domain")], [[], [], []]);
      assert.equal(site.follower.status().parked, 1);
      assert.equal(site.metrics.counts.get("holdfast_swept_aggregates_total"), 5);
    });

    it("takes away nothing that the centre's database has, nor anything while nobody says", async () => {
      const site = await started();
      centre.kept.add("group.a");
      await remade("b");
      centre.silence();
      await beatTwice();
      assert(await site.caughtUp("sweep"));
      assert.equal((await site.applied()).length, 3);
      centre.answer();
      await clock.pass(QUIET_MS);
      await beatTwice();
      assert(await site.caughtUp());
      assert.deepEqual(await site.applied(), ["group.a", "group.b"]);
    });

    it("holds when it is too much, and goes on when a person releases it", async () => {
      await centre.groups(...named("g", 100));
      const site = await started();
      await remade("a", "b", "c", ...named("g", 30));
      await beatTwice();
      assert(await site.caughtUp("sweep"));
      await clock.pass(QUIET_MS);
      assert.equal((await site.applied()).length, 103, "nothing is removed");
      assert.deepEqual(site.codes, ["E_BLAST_HELD"]);
      const [note] = await site.rows.snapshot(listHeld);
      assert.deepEqual([note?.kind, note?.deletes, note?.live, note?.cause], ["group", 70, 103, "sweep"]);
      await site.rows.transaction((write) => decideHeld(write, "group", "released"));
      await site.follower.sweep();
      assert(await site.caughtUp("tail", 10_000));
      assert.deepEqual(await site.differences(), []);
      assert.deepEqual(site.codes, []);
    });

    it("takes nothing away while the stream has none of a kind that is never empty", async () => {
      centre = new StagedCentre(clock, withGroupsAlways());
      await centre.groups("a", "b");
      await centre.put("domain", ["d"], { domain: [{ id: "d", name: "d" }] });
      await centre.beat();
      const site = await started();
      await remade();
      await beatTwice();
      assert(await site.caughtUp("sweep"));
      await clock.pass(QUIET_MS);
      assert.equal((await site.applied()).length, 3);
      assert.deepEqual(site.codes, ["E_CENTRE_EMPTIED", "E_CENTRE_EMPTIED"]);
    });

    it("is put off by the subject's own word, and loses against anything newer", async () => {
      const site = await started();
      await remade("b", "c");
      // The headers do not show it yet, the subject does: it was published while they were read.
      const late = (feed: Feed): Feed => altered(feed, {
        read: (options: ReadOptions, signal: AbortSignal) => {
          const batches = feed.read(options, signal);
          if (options.headersOnly !== true) return batches;
          return (async function* () {
            yield* batches;
            await centre.group("a", "back again");
          })();
        },
      });
      site.crash({ feed: late });
      await centre.beat();
      assert(await site.caughtUp());
      assert.deepEqual(await site.applied(), ["group.a", "group.b", "group.c"]);
      assert.deepEqual(await site.differences(), []);
      assert.equal(site.metrics.counts.get("holdfast_swept_aggregates_total"), 0);
    });

    it("forgets what waited when the stream does not have that any more, and does not bring it back later", async () => {
      await centre.put("membership", ["u1", "a"], { membership: [{ user_id: "u1", group_id: "a" }] });
      const site = await started();
      assert.equal(site.follower.status().parked, 1);
      await remade("a", "b", "c");
      await beatTwice();
      assert(await site.caughtUp());
      assert.equal(site.follower.status().parked, 0);
      await centre.put("user", ["u1"], { user: [{ id: "u1", domain_id: "d", name: "u1" }], secret: [] });
      await centre.put("domain", ["d"], { domain: [{ id: "d", name: "d" }] });
      assert(await site.caughtUp());
      await clock.pass(60_000);
      assert.deepEqual(await site.differences(), []);
    });

    it("removes nothing because of a stream that has lost its end since the last heartbeat", async () => {
      const site = await started();
      await site.follower.resync();
      site.feed.cut("cut");
      await clock.pass(SOON_MS);
      await centre.beat();
      await centre.group("late");
      site.feed.cut(undefined);
      assert(await site.caughtUp());
      await site.follower.resync();
      await clock.pass(SOON_MS);
      centre.stream.faults.dropTail(1);
      await clock.pass(QUIET_MS);
      assert((await site.applied()).includes("group.late"), "the auditor has said nothing since");
      centre.epoch += 1;
      await centre.groups("a", "b", "c", "late");
      await centre.beat();
      assert(await site.caughtUp());
      assert.deepEqual(await site.applied(), ["group.a", "group.b", "group.c", "group.late"]);
      assert.equal(site.metrics.counts.get("holdfast_swept_aggregates_total"), 0);
    });

    it("does not run while the centre has not said that everything is there", async () => {
      const site = await started();
      await remade("b");
      await centre.beat({ filled: false });
      assert(await site.caughtUp("sweep"));
      await clock.pass(600_000);
      assert.equal((await site.applied()).length, 3);
      await centre.groups("a", "c");
      await centre.beat();
      assert(await site.caughtUp());
      assert.equal((await site.applied()).length, 3);
      assert.equal(site.metrics.counts.get("holdfast_swept_aggregates_total"), 0);
    });
  });

  it("ends in the same state wherever it is ended on the way", async () => {
    await centre.groups(...named("g", 12));
    let ends = 0;
    for (let last = 1, ended = true; ended; last += 1) {
      centre.stream.faults.recreate();
      centre.epoch = 1;
      centre.n = 0;
      await centre.groups("a", "b", "c");
      await centre.beat();
      const site = await started({ changesMax: 2 });
      centre.stream.faults.recreate();
      centre.epoch = 2;
      await centre.groups("b", "d", "e", "f", "g");
      await centre.beat();
      let calls = 0;
      // The daemon dies at its `last` transaction: before it, or after it with nobody told.
      const dying = (rows: Rows): Rows => altered(rows, {
        transaction: <T>(work: (write: RowWriter) => Promise<T>): Promise<T> => {
          calls += 1;
          if (calls < last) return rows.transaction(work);
          return calls === last && last % 2 === 0 ? rows.transaction(work).then(() => new Promise(() => undefined))
            : new Promise(() => undefined);
        },
      });
      site.crash({ changesMax: 2, rows: dying });
      await beatTwice();
      await clock.pass(60_000);
      ended = calls >= last;
      site.crash({ changesMax: 2 });
      await clock.pass(SOON_MS);
      await beatTwice();
      assert(await site.caughtUp(), `ended at transaction ${last}: ${JSON.stringify(site.follower.status())}`);
      assert.deepEqual(await site.differences(), [], `ended at transaction ${last}`);
      assert.deepEqual(await site.applied(), ["b", "d", "e", "f", "g"].map((id) => `group.${id}`));
      assert(last < 100, "a fill and a sweep of eight groups take fewer transactions");
      ends = last;
      void site.follower.stop();
    }
    assert(ends > 8, `it was ended at ${ends} places`);
  });
});
