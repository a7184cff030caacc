/**
 * Laws of difference, plan and footprint. Method: random worlds of teams in trees, their members and badges, and posts that
 * point to teams; from any such world to any other in one transaction of the twin, which checks keys and references row by row.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { differenceOf, isEmpty } from "../../rows/difference.ts";
import { readImages } from "../../rows/footprint.ts";
import { memoryRows } from "../../rows/memory.ts";
import { planOf } from "../../rows/plan.ts";
import type { Rows } from "../../rows/rows.ts";
import { cutFraction, datetimeFromSql } from "../../rows/wire.ts";
import { defineService, type Service } from "../../schemas/define.ts";
import { canonicalImage, digestOf, keyText, type Image } from "../../schemas/row.ts";

const SERVICE: Service = defineService({
  name: "sample", catalogType: "sample", migrations: { table: "m", column: "v", verified: ["1"] },
  tables: {
    team: { key: ["id"], columns: { id: "text", parent: "text?", name: "text?", seen: "integer" }, local: { seen: 0 },
      references: [{ columns: ["parent"], table: "team", to: ["id"], hard: true }] },
    member: { key: ["id"], columns: { id: "integer", team: "text", note: "text?" },
      references: [{ columns: ["team"], table: "team", to: ["id"], hard: true }] },
    badge: { key: ["member", "label"], columns: { member: "integer", label: "text" },
      references: [{ columns: ["member"], table: "member", to: ["id"], hard: true }] },
    post: { key: ["id"], columns: { id: "integer", team: "text?" },
      references: [{ columns: ["team"], table: "team", to: ["id"], hard: true }] },
  },
  kinds: {
    team: { root: "team",
      owns: [{ table: "member", by: { team: "id" } }, { table: "badge", of: "member", by: { member: "id" } }] },
    post: { root: "post" },
  },
  local: {}, captures: [], leaves: [], errorShape: "keystone",
  paths: { mounts: [], trailingSlashes: false, leadingSlashes: false, innerSlashes: false },
});

const TEAMS = ["a", "b", "c", "d", "e"];
const POSTS = [1, 2, 3];

interface TeamChoice {
  /** Number of an earlier team, or -1 for none. */
  readonly parent: number;
  readonly name: string | null;
  readonly members: readonly number[];
}

/** What each team and each post shall be; undefined: absent. A post is the number of its team, or -1 for none. */
interface Choice {
  readonly teams: readonly (TeamChoice | undefined)[];
  readonly posts: readonly (number | undefined)[];
}

const choice: fc.Arbitrary<Choice> = fc.record({
  teams: fc.tuple(...TEAMS.map((_, at) => fc.option(fc.record({
    parent: fc.integer({ min: -1, max: at - 1 }), name: fc.option(fc.string({ maxLength: 3 })),
    members: fc.uniqueArray(fc.integer({ min: 0, max: 5 }), { maxLength: 3 }) }), { nil: undefined }))),
  posts: fc.tuple(...POSTS.map(() => fc.option(fc.integer({ min: -1, max: 4 }), { nil: undefined }))),
});

/** A consistent world: members belong to the first team that wants them, references to absent teams are dropped. */
function worldOf({ teams, posts }: Choice): readonly Image[] {
  const taken = new Set<number>();
  const present = (at: number): string | null => (teams[at] === undefined ? null : TEAMS[at] ?? null);
  const teamImages = TEAMS.map((id, at): Image => {
    const wanted = teams[at];
    const key = { kind: "team", values: [id] };
    if (wanted === undefined) return { key, rows: undefined };
    const members = wanted.members.filter((member) => !taken.has(member));
    for (const member of members) taken.add(member);
    return canonicalImage(SERVICE, key, {
      team: [{ id, parent: present(wanted.parent), name: wanted.name }],
      member: members.map((member) => ({ id: member, team: id, note: wanted.name })),
      badge: members.flatMap((member) => (member % 2 === 0 ? [{ member, label: "x" }, { member, label: "y" }] : [])),
    });
  });
  const postImages = POSTS.map((id, at): Image => {
    const team = posts[at];
    const key = { kind: "post", values: [String(id)] };
    return team === undefined ? { key, rows: undefined } : canonicalImage(SERVICE, key, { post: [{ id, team: present(team) }] });
  });
  return [...teamImages, ...postImages];
}

async function moveTo(rows: Rows, wanted: readonly Image[]): Promise<void> {
  await rows.transaction(async (write) => {
    const current = await readImages(write, SERVICE, wanted.map((image) => image.key));
    const differences = wanted.map((image) => differenceOf(SERVICE, image, current.get(keyText(image.key))?.rows));
    for (const step of planOf(SERVICE, differences)) {
      if (step.verb === "update") await write.update(step.table, step.rows, step.columns);
      else await write[step.verb](step.table, step.rows);
    }
  });
}

describe("laws of differences and plans", () => {
  it("a plan leads from any consistent state to any other, and then there is nothing left to do", async () => {
    await fc.assert(fc.asyncProperty(fc.array(choice, { minLength: 2, maxLength: 4 }), async (choices) => {
      const rows = memoryRows([...SERVICE.tables.values()]);
      for (const wanted of choices.map(worldOf)) {
        await moveTo(rows, wanted);
        const found = await rows.snapshot((read) => readImages(read, SERVICE, wanted.map((image) => image.key)));
        for (const image of wanted) {
          const held = found.get(keyText(image.key));
          assert.equal(held === undefined ? undefined : digestOf(held), digestOf(image));
          assert.ok(isEmpty(differenceOf(SERVICE, image, held?.rows)));
        }
      }
    }), { numRuns: 300 });
  });

  it("cutting a datetime twice is cutting it once, and never makes it later", () => {
    const datetime = fc.date({ min: new Date("1900-01-01"), max: new Date("2199-12-31"), noInvalidDate: true })
      .map((date) => `${date.toISOString().slice(0, 23)}789`);
    fc.assert(fc.property(datetime, fc.integer({ min: 0, max: 6 }), (text, digits) => {
      const cut = cutFraction(text, digits);
      assert.equal(cutFraction(cut, digits), cut);
      assert.ok(cut <= text);
      assert.equal(cut.length, text.length);
    }));
  });

  it("reads both engines' spellings of a datetime as the same wire value", () => {
    assert.equal(datetimeFromSql("2026-01-02 03:04:05"), "2026-01-02T03:04:05.000000");
    assert.equal(datetimeFromSql("2026-01-02 03:04:05.0488"), datetimeFromSql("2026-01-02 03:04:05.048800"));
    assert.equal(datetimeFromSql("2026-01-02 03:04:05.5+00"), "2026-01-02T03:04:05.500000");
  });
});
