/**
 * Goal: what takes authority away overtakes everything else that waits for a site (S20): after a cut, while the site lags, and
 * when it reads everything anew; and nothing is applied twice or left out for it. Method: a follower on twins with a long
 * backlog, and the order of its commits.
 */
import assert from "node:assert/strict";
import { present } from "../../core/assert.ts";
import type { Feed, ReadOptions } from "../../feed/feed.ts";
import type { Rows, RowWriter } from "../../rows/rows.ts";
import { keystone } from "../../schemas/keystone.ts";
import { isUrgent } from "../../schemas/urgent.ts";
import type { Row } from "../../schemas/row.ts";
import { FollowedSite, StagedCentre, type SiteOptions } from "../support/followed-site.ts";
import { altered } from "../simulation/altered.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

const BACKLOG = 1_500;
const CHANGES_MAX = 100;
const SOON_MS = 500;

/** Names of aggregates in the order in which their notes were written. */
class Order {
  readonly names: string[] = [];

  readonly watch = (rows: Rows): Rows => altered(rows, {
    transaction: <T>(work: (write: RowWriter) => Promise<T>): Promise<T> => rows.transaction((write) => {
      const note = (table: string, noted: readonly Row[]): void => {
        if (table === "holdfast_applied") this.names.push(...noted.map((row) => String(row["name"])));
      };
      return work(altered(write, {
        insert: (table, noted) => { note(table.name, noted); return write.insert(table, noted); },
        update: (table, noted, columns) => { note(table.name, noted); return write.update(table, noted, columns); },
      }));
    }),
  });

  /** How many aggregates were noted before the first of `name`. */
  before(name: string): number {
    const place = this.names.indexOf(name);
    assert(place >= 0, `${name} was never applied`);
    return place;
  }
}

describe("what takes authority away", () => {
  let clock: VirtualClock;
  let centre: StagedCentre;

  const user = (id: string, name = id): Promise<number> =>
    centre.put("user", [id], { user: [{ id, domain_id: "d", name }], secret: [] });

  beforeEach(async () => {
    clock = new VirtualClock();
    centre = new StagedCentre(clock);
    await centre.put("domain", ["d"], { domain: [{ id: "d", name: "d" }] });
    for (const id of ["anne", "bert", "carl"]) await user(id);
    await centre.put("grant", ["carl", "p"], { grant: [{ actor_id: "carl", target_id: "p" }] });
    await centre.beat();
  });

  const caughtUp = async (options: SiteOptions = {}): Promise<FollowedSite> => {
    const site = new FollowedSite(clock, centre, { changesMax: CHANGES_MAX, ...options });
    assert(await site.caughtUp(), JSON.stringify(site.follower.status()));
    return site;
  };

  /** A backlog, and behind it a disabled user, a deleted one, a grant that is gone, a revocation. */
  const takeAway = async (): Promise<readonly string[]> => {
    for (let index = 0; index < BACKLOG; index += 1) await centre.group(`g${index}`);
    await user("anne", "disabled");
    await centre.put("user", ["bert"]);
    await centre.put("grant", ["carl", "p"]);
    await centre.put("event", ["7"], { event: [{ id: 7, user_id: "carl", at: "2026-01-01T00:00:00.000000" }] });
    return ["user.anne", "user.bert", "grant.carl.p", "event.7"];
  };

  it("is applied before everything else that waits after a cut, and once", async () => {
    const site = await caughtUp();
    const order = new Order();
    site.feed.cut("the link is down");
    const urgent = await takeAway();
    site.crash({ changesMax: CHANGES_MAX, rows: order.watch });
    assert(await site.caughtUp());
    for (const name of urgent) {
      assert(order.before(name) < urgent.length, `${name} came after ${order.before(name)} others`);
      assert.equal(order.names.filter((each) => each === name).length, 1, `${name} is applied once`);
    }
    assert.equal(order.names.length, BACKLOG + urgent.length);
    assert.deepEqual(await site.differences(), []);
  });

  it("overtakes what a connected site has not applied yet", async () => {
    const order = new Order();
    const site = await caughtUp();
    site.feed.cut("the link is down");
    await takeAway();
    let fetched = 0;
    // More comes while the backlog is being applied.
    const busy = (rows: Rows): Rows => altered(order.watch(rows), {
      transaction: async <T>(work: (write: RowWriter) => Promise<T>): Promise<T> => {
        const outcome = await order.watch(rows).transaction(work);
        if ((fetched += 1) === 4) await centre.put("user", ["carl"]);
        // A commit takes its time, so that the site stays behind.
        await new Promise<void>((resolve) => clock.after(100, resolve));
        return outcome;
      },
    });
    site.crash({ changesMax: CHANGES_MAX, rows: busy });
    assert(await site.caughtUp());
    assert(order.before("user.carl") < BACKLOG / 2, `user.carl came after ${order.before("user.carl")} others`);
    assert.deepEqual(await site.differences(), []);
  });

  it("is applied first when a site reads everything anew", async () => {
    const site = await caughtUp();
    site.feed.cut("away");
    const urgent = await takeAway();
    const tombstone = await centre.put("group", ["g0"]);
    await centre.beat({ floor: { epoch: 1, sequence: tombstone } });
    const order = new Order();
    site.crash({ changesMax: CHANGES_MAX, rows: order.watch });
    assert(await site.caughtUp("sweep"));
    assert.equal(site.metrics.counts.get("holdfast_resyncs_total floor"), 1);
    for (const name of urgent) assert(order.before(name) <= urgent.length, `${name} came after ${order.before(name)} others`);
  });

  it("looks through each header once, however long the site stays behind", async () => {
    const site = await caughtUp();
    site.feed.cut("the link is down");
    await takeAway();
    let headers = 0;
    const counting = (feed: Feed): Feed => altered(feed, {
      read: async function* (options: ReadOptions, signal: AbortSignal) {
        for await (const batch of feed.read(options, signal)) {
          if (options.headersOnly === true) headers += batch.length;
          yield batch;
        }
      },
    });
    const slow = (rows: Rows): Rows => altered(rows, {
      transaction: async <T>(work: (write: RowWriter) => Promise<T>): Promise<T> => {
        await new Promise<void>((resolve) => clock.after(300, resolve));
        return rows.transaction(work);
      },
    });
    site.crash({ changesMax: CHANGES_MAX, feed: counting, rows: slow });
    assert(await site.caughtUp());
    assert.equal(headers, BACKLOG + 4);
  });

  it("waits for what it refers to like any other change", async () => {
    const site = await caughtUp();
    site.feed.cut("the link is down");
    await centre.put("user", ["dora"], { user: [{ id: "dora", domain_id: "new", name: "disabled" }], secret: [] });
    await centre.put("domain", ["new"], { domain: [{ id: "new", name: "new" }] });
    site.crash({ changesMax: CHANGES_MAX });
    assert(await site.caughtUp());
    await clock.pass(SOON_MS);
    assert.deepEqual(await site.differences(), []);
    assert.equal(site.follower.status().parked, 0);
  });
});

describe("urgency of Keystone's aggregates", () => {
  const root = (kind: string, row: Row): boolean => {
    const { root: table } = present(keystone.kinds.get(kind), kind);
    return isUrgent(keystone, { key: { kind, values: ["x"] }, rows: { [table]: [row] } });
  };

  it("has disabled users, projects and domains overtake, and enabled ones not", () => {
    for (const kind of ["user", "project"]) {
      assert(root(kind, { id: "x", enabled: false }));
      assert(!root(kind, { id: "x", enabled: true }) && !root(kind, { id: "x", enabled: null }));
    }
  });

  it("has deleted trusts overtake, whose rows stay", () => {
    assert(root("trust", { id: "x", deleted_at: "2026-01-01T00:00:00.000000" }));
    assert(!root("trust", { id: "x", deleted_at: null }));
  });

  it("has every revocation overtake, and every grant, membership, role and credential that is gone", () => {
    assert(root("revocation_event", { id: 1 }));
    for (const kind of ["assignment", "system_assignment", "user_group_membership", "role", "group", "user", "project",
      "application_credential", "credential", "trust", "implied_role"]) {
      assert(isUrgent(keystone, { key: { kind, values: ["x"] }, rows: undefined }), kind);
      assert(kind === "revocation_event" || !root(kind, { id: "x", enabled: true, deleted_at: null }), kind);
    }
    assert(!isUrgent(keystone, { key: { kind: "region", values: ["x"] }, rows: undefined }), "a region gives no authority");
  });
});
