/**
 * Goal: rows that somebody changed at a site by hand are found and put right while nobody is connected, nothing else is taken for
 * drift, too much of it waits for a person, and what was overwritten is kept. Method: the product's applier and row audit on the
 * memory twin and the virtual clock; the hand writes past them.
 */
import assert from "node:assert/strict";
import { decideHeld, HELD_TABLE, listHeld } from "../../capture/held.ts";
import { present } from "../../core/assert.ts";
import type { MemoryOptions } from "../../rows/memory-store.ts";
import { defineService, type Service } from "../../schemas/define.ts";
import type { RowAuditOptions, RowAuditReport } from "../../syncd/row-audit.ts";
import { AuditedSite, type Tables } from "../support/audited-site.ts";
import { toy } from "../support/toy-service.ts";

/** A service with what the toy lacks: owned rows without a foreign key, and a column that falls by itself. */
const loose: Service = defineService({
  name: "loose", catalogType: "loose", errorShape: "keystone",
  migrations: { table: "revision", column: "number", verified: ["1"] },
  tables: {
    trust: { key: ["id"], columns: { id: "text", uses: "integer?", note: "text?" }, moves: { uses: "down" } },
    trust_role: { key: ["trust_id", "role"], columns: { trust_id: "text", role: "text" },
      references: [{ columns: ["trust_id"], table: "trust", to: ["id"], hard: false }] },
  },
  kinds: { trust: { root: "trust", owns: [{ table: "trust_role", by: { trust_id: "id" } }] } },
  local: {}, captures: [], leaves: [], paths: { mounts: [], trailingSlashes: true, leadingSlashes: true, innerSlashes: false },
});

/** In a function: the compiler takes a getter for a constant. */
const reportOf = (site: AuditedSite): RowAuditReport => present(site.audit.last, "a pass");

const user = (id: string, name = `name ${id}`): Tables =>
  ({ user: [{ id, domain_id: "d", name }], secret: [{ id: Number(id.slice(1)), user_id: id, hash: `hash ${id}` }] });
const DOMAIN: Tables = { domain: [{ id: "d", name: "d" }] };
const users = (count: number): Record<string, Tables> =>
  Object.fromEntries(Array.from({ length: count }, (_, place) => [`user.u${place + 1}`, user(`u${place + 1}`)]));

describe("the row audit", () => {
  let site: AuditedSite;

  const toySite = async (count = 3, options: Partial<RowAuditOptions> = {}, store: MemoryOptions = {}): Promise<AuditedSite> => {
    site = new AuditedSite(toy, { enabled: false, ...options }, { cascades: ["secret"], ...store });
    await site.bring({ "domain.d": DOMAIN });
    await site.bring(users(count));
    await site.audit.start();
    return site;
  };
  const hashOf = async (id: number): Promise<unknown> => (await site.read("secret")).find((row) => row["id"] === id)?.["hash"];

  afterEach(() => site.audit.stop());

  it("finds nothing in what was applied, local columns aside, and touches nothing", async () => {
    await toySite();
    await site.byHand((write) =>
      write.update(site.table("user"), [{ id: "u1", seen_at: "2026-01-01T00:00:00.000000" }], ["seen_at"]));
    const report = await site.pass();
    assert.deepEqual([report.changed, report.missing, report.superfluous, report.aggregates], [0, 0, 0, 4]);
    assert.equal(site.repairs, 0);
    assert.equal((await site.read("user"))[0]?.["seen_at"], "2026-01-01T00:00:00.000000");
  });

  it("puts a changed row right, keeps what it overwrote, and leaves local columns alone", async () => {
    await toySite();
    await site.byHand((write) => write.update(site.table("user"),
      [{ id: "u2", name: "mine", seen_at: "2026-01-01T00:00:00.000000" }], ["name", "seen_at"]));
    const report = await site.pass();
    assert.deepEqual([report.changed, report.repaired], [1, 1]);
    const row = (await site.read("user")).find(({ id }) => id === "u2");
    assert.deepEqual([row?.["name"], row?.["seen_at"]], ["name u2", "2026-01-01T00:00:00.000000"]);
    const [note] = await site.drift();
    assert.deepEqual([note?.name, note?.effect, note?.state], ["user.u2", "changed", "repaired"]);
    assert.deepEqual(note?.before, { user: [{ id: "u2", domain_id: "d", name: "mine" }] });
  });

  it("puts changed, added and deleted owned rows right", async () => {
    await toySite();
    await site.byHand(async (write) => {
      await write.update(site.table("secret"), [{ id: 1, hash: "stolen" }], ["hash"]);
      await write.insert(site.table("secret"), [{ id: 77, user_id: "u2", hash: "second" }]);
      await write.remove(site.table("secret"), [{ id: 3 }]);
    });
    assert.deepEqual((await site.pass()).changed, 3);
    assert.deepEqual([await hashOf(1), await hashOf(77), await hashOf(3)], ["hash u1", undefined, "hash u3"]);
  });

  it("makes deleted aggregates again, parents first, without asking anybody, however many", async () => {
    await toySite(120);
    await site.bring({ "group.g": { group: [{ id: "g", name: "g" }] },
      "membership.u1.g": { membership: [{ user_id: "u1", group_id: "g" }] } });
    await site.byHand(async (write) => {
      await write.remove(site.table("membership"), [{ user_id: "u1", group_id: "g" }]);
      await write.remove(site.table("user"), await write.page(site.table("user"), { limit: 1_000 }));
    });
    const report = await site.pass();
    assert.deepEqual([report.missing, report.repaired, report.held], [121, 121, []]);
    assert.equal((await site.read("user")).length, 120);
    assert.equal((await site.read("membership")).length, 1);
    assert.equal((await site.pass()).missing, 0);
  });

  it("removes rows that no image accounts for, children first, and keeps them", async () => {
    await toySite();
    await site.byHand(async (write) => {
      await write.insert(site.table("user"), [{ id: "x", domain_id: "d", name: "x" }]);
      await write.insert(site.table("group"), [{ id: "x", name: "x" }]);
      await write.insert(site.table("membership"), [{ user_id: "x", group_id: "x" }]);
    });
    assert.deepEqual((await site.pass()).repaired, 3);
    assert.equal((await site.read("user")).length, 3);
    assert.deepEqual((await site.drift()).map(({ name }) => name).sort(), ["group.x", "membership.x.x", "user.x"]);
    assert.equal((await site.pass()).superfluous, 0);
  });

  it("takes no row for superfluous before the centre has said that everything is on the stream", async () => {
    await toySite();
    await site.hear(false);
    await site.byHand((write) => write.insert(site.table("group"), [{ id: "seeded", name: "from a dump of the centre" }]));
    assert.equal((await site.pass()).superfluous, 0);
    assert.equal((await site.read("group")).length, 1);
    await site.hear(true);
    assert.equal((await site.pass()).repaired, 1);
  });

  it("removes no row that the centre's database has, and while nobody says only if the ledger is proven whole", async () => {
    await toySite();
    await site.byHand((write) => write.insert(site.table("group"), [{ id: "x", name: "x" }, { id: "y", name: "y" }]));
    site.word = { isProven: true, gone: new Set(["group.y"]) };
    assert.equal((await site.pass()).repaired, 1);
    assert.deepEqual((await site.read("group")).map(({ id }) => id), ["x"]);
    site.word = { isProven: false, gone: undefined };
    assert.equal((await site.pass()).repaired, 0);
    site.word = { isProven: true, gone: undefined };
    assert.equal((await site.pass()).repaired, 1);
  });

  it("removes what came back after a tombstone, and lets a later image of the same key in", async () => {
    await toySite();
    await site.bring({ "user.u1": undefined });
    await site.byHand((write) => write.insert(site.table("user"), [{ id: "u1", domain_id: "d", name: "back" }]));
    await site.byHand((write) => write.insert(site.table("user"), [{ id: "u9", domain_id: "d", name: "new" }]));
    assert.deepEqual((await site.pass()).repaired, 2);
    await site.bring({ "user.u1": user("u1"), "user.u9": user("u9") });
    assert.equal((await site.read("user")).length, 4);
    assert.equal((await site.pass()).superfluous, 0);
  });

  it("frees a unique value that a stranger holds before it makes what is missing", async () => {
    await toySite();
    await site.byHand(async (write) => {
      await write.remove(site.table("user"), [{ id: "u1" }]);
      await write.insert(site.table("user"), [{ id: "x", domain_id: "d", name: "name u1" }]);
    });
    assert.equal((await site.pass()).repaired, 2);
    assert.deepEqual((await site.read("user")).map(({ id }) => id), ["u1", "u2", "u3"]);
  });

  it("holds too many rewrites for a person, notes nothing, and goes on when they are released", async () => {
    await toySite(100);
    await site.byHand(async (write) => {
      await write.update(site.table("secret"), Array.from({ length: 60 }, (_, id) => ({ id: id + 1, hash: "x" })), ["hash"]);
      await write.remove(site.table("user"), [{ id: "u100" }]);
    });
    const report = await site.pass();
    assert.deepEqual([report.changed, report.repaired, report.held], [60, 1, ["user"]]);
    assert.equal(await hashOf(1), "x");
    assert.deepEqual((await site.drift()).map(({ name }) => name), ["user.u100"]);
    assert.deepEqual(site.faults.list().map(({ code }) => code).sort(), ["E_BLAST_HELD", "E_SITE_DRIFT"]);
    await site.rows.transaction((write) => decideHeld(write, "user", "released"));
    assert.equal((await site.pass()).repaired, 60);
    assert.equal(await hashOf(1), "hash u1");
    await site.pass();
    assert.deepEqual(site.faults.list(), []);
  });

  it("does not repair up to the guard's allowance pass by pass what it holds as a whole", async () => {
    await toySite(100);
    await site.byHand((write) =>
      write.update(site.table("secret"), Array.from({ length: 60 }, (_, id) => ({ id: id + 1, hash: "x" })), ["hash"]));
    for (let passes = 0; passes < 3; passes += 1) assert.equal((await site.pass()).repaired, 0);
  });

  it("neither ends nor uses up what another comparison holds", async () => {
    await toySite();
    const row = { kind: "user", state: "released", code: "E_BLAST_HELD", cause: "sweep", deletes: "90", rewrites: "0",
      live: "100", reason: "r", sample: "[]", since: "2026-01-01T00:00:00.000000" };
    await site.byHand((write) => write.insert(HELD_TABLE, [row]));
    await site.pass();
    await site.byHand((write) => write.update(site.table("user"), [{ id: "u2", name: "mine" }], ["name"]));
    assert.deepEqual((await site.pass()).held, ["user"]);
    assert.equal((await site.rows.snapshot(listHeld))[0]?.state, "released");
    await site.byHand((write) => write.remove(HELD_TABLE, [{ kind: "user" }]));
    assert.equal((await site.pass()).repaired, 1);
  });

  it("leaves aggregates that wait alone", async () => {
    await toySite();
    await site.bring({ "membership.u1.g": { membership: [{ user_id: "u1", group_id: "g" }] } });
    const moving = { user: [{ id: "u1", domain_id: "not here yet", name: "moves" }] };
    await site.bring({ "user.u1": moving });
    await site.byHand((write) => write.update(site.table("user"), [{ id: "u1", name: "mine" }], ["name"]));
    const report = await site.pass();
    assert.deepEqual([report.missing, report.changed, report.aggregates], [0, 0, 4]);
  });

  it("does not take a change that is being applied for drift, whenever the pass looks", async () => {
    await toySite(30);
    for (let round = 0; round < 5; round += 1) {
      site.meanwhile = () => site.bring(Object.fromEntries(Array.from({ length: 30 }, (_, place) =>
        [`user.u${place + 1}`, (place + round) % 3 === 0 ? undefined : user(`u${place + 1}`, `name ${place} in ${round}`)])));
      const report = await site.pass();
      assert.equal(site.meanwhile, undefined);
      assert.deepEqual([report.changed, report.missing, report.superfluous, site.repairs], [0, 0, 0, 0], `round ${round}`);
    }
  });

  it("goes over everything by itself again and again, at its speed, and waits for the first fill", async () => {
    site = new AuditedSite(toy, { restMs: 10_000, rowsPerSecondMax: 10 }, { cascades: ["secret"] });
    await site.bring({ "domain.d": DOMAIN, ...users(50) });
    site.isFollowing = false;
    await site.audit.start();
    await site.clock.pass(30_000);
    assert.equal(site.audit.last, undefined);
    site.isFollowing = true;
    assert(await site.clock.runUntil(() => site.audit.last !== undefined, 60_000));
    const { rows, tookMs } = reportOf(site);
    assert(tookMs >= (rows - 1) * 100, `${rows} rows in ${tookMs} ms`);
    await site.byHand((write) => write.update(site.table("user"), [{ id: "u2", name: "mine" }], ["name"]));
    assert(await site.clock.runUntil(() => site.repairs > 0, 10_000 + 2 * tookMs));
  });

  it("repairs more than it keeps in mind in several passes, without a rest between them", async () => {
    site = new AuditedSite(toy, { restMs: 3_600_000, findingsMax: 20 }, { cascades: ["secret"] });
    await site.bring({ "domain.d": DOMAIN, ...users(70) });
    await site.byHand(async (write) => write.remove(site.table("user"), await write.page(site.table("user"), { limit: 100 })));
    await site.audit.start();
    await site.clock.pass(600_000);
    assert.equal((await site.read("user")).length, 70);
  });

  it("keeps a bounded number of notes, the newest ones", async () => {
    await toySite(70, { driftKeptMax: 60 });
    for (let id = 1; id <= 70; id += 7) {
      const changed = Array.from({ length: 7 }, (_, place) => ({ id: id + place, hash: "x" }));
      await site.byHand((write) => write.update(site.table("secret"), changed, ["hash"]));
      await site.pass();
      await site.clock.pass(60_000);
    }
    const notes = await site.drift();
    assert.equal(notes.length, 60);
    assert(notes.some(({ name }) => name === "user.u70") && !notes.some(({ name }) => name === "user.u1"));
  });

  it("leaves logs to their service: what it pruned and what it added itself", async () => {
    await toySite();
    const at = "2026-01-01T00:00:00.000000";
    await site.bring({ "event.1": { event: [{ id: 1, user_id: "u1", at }] },
      "event.2": { event: [{ id: 2, user_id: "u1", at }] } });
    await site.byHand(async (write) => {
      await write.remove(site.table("event"), [{ id: 1 }]);
      await write.insert(site.table("event"), [{ id: 1 << 30, user_id: "u1", at }]);
      await write.update(site.table("event"), [{ id: 2, user_id: "u2" }], ["user_id"]);
    });
    const report = await site.pass();
    assert.deepEqual([report.missing, report.superfluous, report.changed], [0, 0, 1]);
    assert.deepEqual((await site.read("event")).map(({ id }) => id), [2, 1 << 30]);
  });

  it("knows a row by its key, not by the spelling that an engine takes for equal", async () => {
    await toySite(2, {}, { ignoresCase: true });
    await site.bring({ "group.Ab": { group: [{ id: "Ab", name: "n" }] } });
    await site.byHand(async (write) => {
      await write.remove(site.table("group"), [{ id: "Ab" }]);
      await write.insert(site.table("group"), [{ id: "aB", name: "n" }]);
    });
    const report = await site.pass();
    assert.deepEqual([report.changed, report.superfluous, report.repaired], [1, 0, 1]);
    assert.deepEqual((await site.read("group")).map(({ id }) => id), ["Ab"]);
  });

  it("leaves the row of a new spelling alone when the tombstone of the old one comes last", async () => {
    await toySite(1, {}, { ignoresCase: true });
    await site.bring({ "group.ab": { group: [{ id: "ab", name: "n" }] } });
    await site.bring({ "group.AB": { group: [{ id: "AB", name: "n" }] } });
    await site.bring({ "group.ab": undefined });
    assert.deepEqual((await site.read("group")).map(({ id }) => id), ["AB"]);
    const report = await site.pass();
    assert.deepEqual([report.changed, report.missing, report.superfluous], [0, 0, 0]);
  });

  it("takes datetimes for equal that a column can only keep cut", async () => {
    await toySite(1, {}, { fractionDigits: 0 });
    await site.rows.reflect();
    await site.bring({ "event.1": { event: [{ id: 1, user_id: "u1", at: "2026-01-01T00:00:00.654321" }] } });
    assert.equal((await site.pass()).changed, 0);
  });

  it("removes owned rows whose owner is gone, where the database allows them", async () => {
    site = new AuditedSite(loose, { enabled: false });
    await site.bring({ "trust.t": { trust: [{ id: "t", uses: 3, note: null }], trust_role: [{ trust_id: "t", role: "r" }] } });
    await site.audit.start();
    await site.byHand((write) => write.insert(site.table("trust_role"), [{ trust_id: "gone", role: "r" }]));
    assert.deepEqual((await site.pass()).superfluous, 1);
    assert.deepEqual(await site.read("trust_role"), [{ trust_id: "t", role: "r" }]);
    const [note] = await site.drift();
    assert.deepEqual([note?.name, note?.before], ['trust_role ["gone","r"]', { trust_role: [{ trust_id: "gone", role: "r" }] }]);
  });

  it("leaves what the site's service makes by itself, and removes what the centre once had", async () => {
    const kinds = new Map([...loose.kinds].map(([name, kind]) => [name, { ...kind, siteMade: ["trust_role"] }]));
    site = new AuditedSite({ ...loose, kinds }, { enabled: false });
    await site.bring({ "trust.known": { trust: [{ id: "known", uses: 3, note: null }] } });
    await site.bring({ "trust.known": undefined });
    await site.audit.start();
    await site.byHand(async (write) => {
      await write.insert(site.table("trust"), ["known", "own", "other"].map((id) => ({ id, uses: 1, note: null })));
      await write.insert(site.table("trust_role"), ["known", "own"].map((id) => ({ trust_id: id, role: "r" })));
    });
    assert.equal((await site.pass()).superfluous, 2);
    assert.deepEqual((await site.read("trust")).map(({ id }) => id), ["own"]);
  });

  it("does not give back what the site's service has spent by itself", async () => {
    site = new AuditedSite(loose, { enabled: false });
    await site.bring({ "trust.t": { trust: [{ id: "t", uses: 3, note: null }] } });
    await site.audit.start();
    await site.byHand((write) => write.update(site.table("trust"), [{ id: "t", uses: 1 }], ["uses"]));
    assert.equal((await site.pass()).changed, 0);
    await site.byHand((write) => write.update(site.table("trust"), [{ id: "t", note: "mine" }], ["note"]));
    assert.equal((await site.pass()).repaired, 1);
    assert.deepEqual(await site.read("trust"), [{ id: "t", uses: 1, note: null }]);
    await site.byHand((write) => write.update(site.table("trust"), [{ id: "t", uses: 9 }], ["uses"]));
    assert.equal((await site.pass()).repaired, 1);
    assert.deepEqual(await site.read("trust"), [{ id: "t", uses: 3, note: null }]);
  });
});
