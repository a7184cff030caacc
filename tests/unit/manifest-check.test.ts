/**
 * Goal: a site that differs from the manifest it passes is equal afterwards, whatever made it differ; it asks for little, touches
 * nothing that is only newer or waiting, removes nothing unconfirmed or unasked, and says so when it stays different. Method: a
 * follower on twins whose ledger and rows are damaged by hand, a centre of a few lines, virtual time.
 */
import assert from "node:assert/strict";
import { present } from "../../core/assert.ts";
import { listHeld } from "../../capture/held.ts";
import { bucketOf, hashOfName } from "../../schemas/manifest.ts";
import { keyFromText, type Row } from "../../schemas/row.ts";
import { weigh } from "../../syncd/findings.ts";
import { APPLIED_TABLE } from "../../syncd/ledger.ts";
import { NamesSeen } from "../../syncd/names-seen.ts";
import { receive, removalOf } from "../../syncd/received.ts";
import { FollowedSite, StagedCentre, type SiteOptions } from "../support/followed-site.ts";
import { toy } from "../support/toy-service.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** Time for an exchange; below what makes a reading say that nothing comes. */
const SOON_MS = 1_000;
const GROUP = present(toy.tables.get("group"), "group");
const named = (prefix: string, count: number): readonly string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}${String(index).padStart(3, "0")}`);

describe("a site and the manifest", () => {
  let clock: VirtualClock;
  let centre: StagedCentre;
  let site: FollowedSite;
  let stopAnswering: () => void;

  const start = async (options: SiteOptions = {}): Promise<void> => {
    await centre.beat();
    site = new FollowedSite(clock, centre, options);
    assert(await site.caughtUp(), JSON.stringify(site.follower.status()));
  };
  const check = async (manifest = centre.summedUp()): Promise<void> => {
    await centre.manifest(manifest);
    await clock.pass(SOON_MS);
  };
  const outcomes = (): Record<string, number> => Object.fromEntries([...site.metrics.counts].flatMap(([name, count]) =>
    (name.startsWith("holdfast_manifest_") ? [[name.replace(/holdfast_manifest_|_total/g, ""), count]] : [])));
  /** Changes the site's ledger and a group's row behind the daemon's back, as a bug or a restored table would. */
  const damage = async (id: string, note: Partial<Row> | undefined, row: Row | undefined): Promise<void> => {
    const hash = hashOfName(`group.${id}`);
    await site.rows.transaction(async (write) => {
      const stored = (await write.select(APPLIED_TABLE, { columns: ["hash"], values: [[hash]] }))[0];
      await write.remove(APPLIED_TABLE, [{ hash }]);
      if (note !== undefined) await write.insert(APPLIED_TABLE, [{ ...present(stored, id), ...note } as Row]);
      await write.remove(GROUP, [{ id }]);
      if (row !== undefined) await write.insert(GROUP, [row]);
    });
    // What it had summed up in memory does not know of it.
    site.crash();
    assert(await site.caughtUp());
  };

  beforeEach(async () => {
    clock = new VirtualClock();
    centre = new StagedCentre(clock);
    stopAnswering = centre.answer();
    await centre.groups(...named("g", 20));
  });
  afterEach(() => stopAnswering());

  it("asks for nothing while they are equal, after any number of changes", async () => {
    await start();
    for (let round = 0; round < 20; round += 1) {
      await centre.group(`g${String(round).padStart(3, "0")}`, `renamed ${round}`);
      await centre.put("group", [`g${String((round * 3) % 20).padStart(3, "0")}`]);
      await centre.group(`new ${round}`);
      await check();
    }
    assert.deepEqual([centre.askedLeaves, outcomes()], [[], { "checks equal": 20 }]);
  });

  for (const answered of [true, false]) {
    it(`is put right where something is missing, ${answered ? "asking the auditor" : "without an auditor"}`, async () => {
      if (!answered) stopAnswering();
      await start();
      await damage("g003", undefined, undefined);
      await damage("g007", undefined, undefined);
      await check();
      assert.deepEqual(await site.differences(), []);
      assert.deepEqual(outcomes(), { "checks repaired": 1, "repairs taken": 2 });
      const buckets = ["g003", "g007"].map((id) => bucketOf(hashOfName(`group.${id}`)));
      assert.deepEqual([...new Set(centre.askedLeaves)].sort(), answered ? [...new Set(buckets)].sort() : []);
      await check();
      assert.equal(outcomes()["checks equal"], 1);
      assert.deepEqual(site.codes, []);
    });
  }

  it("is put right where an older image, or a removal of the very version, is noted", async () => {
    await start();
    await damage("g001", { sequence: "0", digest: "of something older" }, { id: "g001", name: "older" });
    await damage("g002", { deleted: true, payload: null }, undefined);
    await check();
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual(outcomes(), { "checks repaired": 1, "repairs taken": 2 });
  });

  it("asks the centre to publish again what it has in a newer version than the stream, and takes that", async () => {
    await start();
    // Sequences were used again: what was 15 here is something else on the stream, and g001 stands at 2 there.
    await damage("g001", { sequence: "15", digest: "of the lost image" }, { id: "g001", name: "lost image" });
    await check();
    assert.deepEqual(centre.askedAgain, ["group.g001"]);
    assert(await site.caughtUp());
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual(site.codes, []);
  });

  it("removes what the stream has not, after asking the stream for it by itself", async () => {
    await start();
    for (const id of ["g004", "g005"]) await centre.feed.purge(`os.v1.toy.all.group.${id}`, centre.stream.lastSequence());
    await check();
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual(outcomes(), { "checks repaired": 1, "repairs removed": 2 });
  });

  it("removes nothing that the centre's database has, and asks for it to be published again", async () => {
    await start();
    centre.kept.add("group.g004");
    for (const id of ["g004", "g005"]) await centre.feed.purge(`os.v1.toy.all.group.${id}`, centre.stream.lastSequence());
    await check();
    const applied = await site.applied();
    assert.deepEqual([applied.includes("group.g004"), applied.includes("group.g005")], [true, false]);
    assert.deepEqual(centre.askedAgain, ["group.g004"]);
  });

  it("removes nothing while nobody at the centre says what its database has", async () => {
    await start();
    centre.silence();
    await centre.feed.purge("os.v1.toy.all.group.g004", centre.stream.lastSequence());
    await check();
    assert((await site.applied()).includes("group.g004"));
  });

  it("takes what was missed of a change that waits, and forgets one that is nowhere any more", async () => {
    for (const user of ["u1", "u2", "u3"]) {
      await centre.put("membership", [user, "g001"], { membership: [{ user_id: user, group_id: "g001" }] });
    }
    await start();
    assert.equal(site.follower.status().parked, 3);
    site.feed.cut("cut");
    await centre.put("membership", ["u2", "g001"]);
    centre.stream.faults.loseDeliveries(1);
    site.feed.cut(undefined);
    await centre.feed.purge("os.v1.toy.all.membership.u3.g001", centre.stream.lastSequence());
    await clock.pass(SOON_MS);
    await check();
    assert.deepEqual([site.follower.status().parked, (await site.applied()).length], [1, 20]);
    await check();
    assert.equal(site.follower.status().parked, 1, "what the stream still says goes on waiting");
  });

  it("believes the subject and not the leaves", async () => {
    await start();
    stopAnswering();
    // A manifest, and leaves, of a stream without a group that is there all the same.
    const name = "group.g004";
    const hidden = centre.live();
    centre.live = () => new Map([...hidden].filter(([each]) => each !== name));
    stopAnswering = centre.answer();
    await check();
    assert((await site.applied()).includes(name));
    assert.deepEqual(outcomes()["repairs removed"], undefined);
  });

  it("holds removals and rewrites that are too many, as a whole, and makes what is missing nevertheless", async () => {
    await centre.groups(...named("h", 200));
    await centre.put("domain", ["d"], { domain: [{ id: "d", name: "d" }] });
    await start();
    for (const id of named("h", 60)) await centre.feed.purge(`os.v1.toy.all.group.${id}`, centre.stream.lastSequence());
    await site.rows.transaction(async (write) => {
      await write.remove(APPLIED_TABLE, [{ hash: hashOfName("domain.d") }]);
      await write.remove(present(toy.tables.get("domain"), "domain"), [{ id: "d" }]);
    });
    site.crash();
    assert(await site.caughtUp());
    await check();
    assert.deepEqual([(await site.texts("group")).length, await site.texts("domain")], [220, ['["d","d"]']]);
    assert.deepEqual(site.codes, ["E_BLAST_HELD"]);
    const [note] = await site.rows.snapshot(listHeld);
    assert.deepEqual([note?.kind, note?.deletes, note?.rewrites, note?.cause], ["group", 60, 0, "manifest"]);
    // The difference goes away by itself, and the note with it.
    await centre.groups(...named("h", 60));
    await check();
    assert.deepEqual([site.codes, await site.rows.snapshot(listHeld), await site.differences()], [[], [], []]);
  });

  it("leaves what is only newer than the manifest, and what waits", async () => {
    await centre.put("membership", ["nobody", "g001"], { membership: [{ user_id: "nobody", group_id: "g001" }] });
    await start();
    assert.equal(site.follower.status().parked, 1);
    const before = centre.summedUp();
    await centre.group("g001", "newer");
    await centre.put("group", ["g002"]);
    await check(before);
    await check();
    assert.deepEqual(outcomes(), { "checks left": 1, "checks equal": 1 });
    assert.deepEqual(site.codes, []);
    assert.equal(site.follower.status().parked, 1);
    assert.deepEqual((await site.differences()).length, 1, "the membership still waits");
  });

  it("says when it stays different, and when it does not any more", async () => {
    stopAnswering();
    await start();
    await damage("g001", { sequence: "15", digest: "of the lost image" }, { id: "g001", name: "lost image" });
    await check();
    assert.deepEqual(site.codes, []);
    await check();
    assert.deepEqual(site.codes, ["E_SITE_DIFFERS"]);
    stopAnswering = centre.answer();
    await check();
    assert(await site.caughtUp());
    await check();
    assert.deepEqual([site.codes, await site.differences()], [[], []]);
  });

  it("repairs so much after one manifest and the rest after the next", async () => {
    await start();
    const wipe = async (): Promise<void> => site.rows.transaction(async (write) => {
      const ids = named("g", 20);
      await write.remove(APPLIED_TABLE, ids.map((id) => ({ hash: hashOfName(`group.${id}`) })));
      await write.remove(GROUP, ids.map((id) => ({ id })));
    });
    await wipe();
    site.crash({ repairsMax: 8, changesMax: 3 });
    assert(await site.caughtUp());
    await check();
    assert.equal((await site.texts("group")).length, 8);
    await check();
    await check();
    assert.deepEqual(await site.differences(), []);
  });

  it("reads everything anew when nearly everything differs", async () => {
    await centre.groups(...named("h", 400));
    await start();
    await site.rows.transaction(async (write) => {
      const all = [...named("g", 20), ...named("h", 400)];
      await write.remove(APPLIED_TABLE, all.map((id) => ({ hash: hashOfName(`group.${id}`) })));
      await write.remove(GROUP, all.map((id) => ({ id })));
    });
    site.crash({ repairsMax: 100 });
    assert(await site.caughtUp());
    await check();
    await centre.beat();
    assert(await site.caughtUp());
    assert.deepEqual(await site.differences(), []);
    assert.deepEqual([site.metrics.counts.get("holdfast_resyncs_total manifest"), outcomes()],
      [1, { "checks resync": 1 }]);
  });

  it("is of no concern when it speaks of another epoch, or is switched off", async () => {
    await start();
    await damage("g001", undefined, undefined);
    await check({ ...centre.summedUp(), epoch: 0 });
    assert.deepEqual(outcomes(), { "checks left": 1 });
    site.crash({ manifestChecks: false });
    assert(await site.caughtUp());
    await check();
    assert.deepEqual(outcomes(), { "checks left": 1 });
  });

  it("does not keep repairs from working while the feed is cut, in turn with everything else", async () => {
    await start();
    const stored = present(centre.live().get("group.g001"), "g001");
    const arrival = receive(toy, stored);
    assert(arrival.kind === "change");
    await site.rows.transaction((write) => write.update(GROUP, [{ id: "g001", name: "by hand" }], ["name"]));
    site.feed.cut("cut");
    await clock.pass(SOON_MS);
    const beganMs = clock.monotonicMs();
    await site.follower.repair([arrival.change]);
    assert.equal(clock.monotonicMs(), beganMs, "nothing is waited for");
    assert.deepEqual(await site.differences(), []);
    await site.follower.repair([removalOf(toy, keyFromText("group.g001"), { epoch: 0, sequence: 5 })]);
    assert.deepEqual(await site.differences(), [], "a removal of an older version removes nothing");
    site.feed.cut(undefined);
    assert(await site.caughtUp());
    await check();
    assert.deepEqual(outcomes(), { "checks equal": 1 });
  });
});

describe("the stream's word against the site's", () => {
  const version = (sequence: number, epoch = 1): { epoch: number; sequence: number } => ({ epoch, sequence });
  const stream = (sequence: number, digest = "new", deleted = false): Parameters<typeof weigh>[1] =>
    ({ version: version(sequence), digest, deleted });
  const here = (sequence: number, digest = "old", deleted = false): Parameters<typeof weigh>[0] =>
    ({ ...version(sequence), digest, deleted });
  const POSITION = version(100);

  it("is weighed by place first, then by content, then by version", () => {
    type Case = readonly [...Parameters<typeof weigh> extends readonly [infer Here, infer There, ...unknown[]]
      ? [Here, There, number] : never, ReturnType<typeof weigh>];
    const cases: readonly Case[] = [
      [undefined, stream(101), Infinity, "ahead"],
      [undefined, stream(50), Infinity, "take"],
      [undefined, stream(50, "", true), Infinity, "equal"],
      [here(10, "new"), stream(50), Infinity, "equal"],
      [here(60, "new"), stream(50), Infinity, "equal"],
      [here(10), stream(50), Infinity, "take"],
      [here(50), stream(50), Infinity, "take"],
      [here(50, "new", true), stream(50), Infinity, "take"],
      [here(50, "x", true), stream(60, "y", true), Infinity, "equal"],
      [here(10), stream(50, "", true), Infinity, "take"],
      [here(60), stream(50), Infinity, "ask"],
      [here(60), stream(50), 55, "ahead"],
      [here(60), stream(50), 60, "ask"],
      [here(60), stream(50, "", true), Infinity, "ask"],
    ];
    for (const [applied, said, asOf, expected] of cases) {
      assert.equal(weigh(applied, said, POSITION, asOf), expected, JSON.stringify([applied, said, asOf]));
    }
  });
});

describe("a set of names in little memory", () => {
  it("holds what was added and nothing else", () => {
    const names = new NamesSeen();
    for (const name of named("in", 900)) names.add(hashOfName(name));
    for (const name of named("in", 900)) names.add(hashOfName(name));
    assert.equal(names.size, 900);
    assert(named("in", 900).every((name) => names.has(hashOfName(name))));
    assert(named("out", 900).every((name) => !names.has(hashOfName(name))));
  });
});
