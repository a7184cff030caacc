/**
 * Goal: what the Keystone service file declares is what the running Keystone does, and every change arrives at a site by the
 * event path alone. Method: a walk over every mutating route through the proxy of a real lab, the databases themselves as
 * oracle, on all four pairings of database engines; after each chapter every synchronised table is the same at both clouds.
 *
 * docs/reference/keystone-routes.md lists the routes for which a whole kind had to be compared; the walk is held to it
 * (HOLDFAST_REWRITE_DOCS=1 writes it).
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { Engines } from "../../../lab/options.ts";
import { keystone } from "../../../schemas/keystone.ts";
import { cloudsMissing, startClouds, type Clouds } from "../../support/keystone-clouds.ts";
import { Oracle } from "../../support/keystone-oracle.ts";
import { FURTHER_CHAPTERS } from "./keystone-walk-further.ts";
import { FIRST_CHAPTERS, type Walk } from "./keystone-walk.ts";

const PAGE = new URL("../../../docs/reference/keystone-routes.md", import.meta.url);
const STARTS_WITHIN_MS = 240_000;
const CHAPTER_WITHIN_MS = 180_000;

const CROSSED: readonly Engines[] = [{ centre: "postgres", edge1: "mariadb" }, { centre: "mariadb", edge1: "postgres" }];
const ALIKE: readonly Engines[] = [{ centre: "postgres", edge1: "postgres" }, { centre: "mariadb", edge1: "mariadb" }];
/** Between them the crossed pairings put every engine on either side. A walk takes one to two minutes: the rest is optional. */
const PAIRINGS = [...CROSSED, ...ALIKE];

/** Routes and the kinds compared for them, sorted, as they stand in the page. */
function scansSeen(oracle: Oracle): readonly string[] {
  return [...oracle.seen].filter(([, { scans }]) => scans.size > 0)
    .map(([on, { scans }]) => `| \`${on}\` | ${[...scans].sort().join(", ")} |`).sort();
}

function pageOf(lines: readonly string[]): string {
  return `# Keystone routes that need a class scan

Written by tests/contract/services/keystone-footprint.test.ts from a walk over every mutating route of a running Keystone Zed.
For these routes no predicate names everything that a call changes, or the answer did not name what it made, so kinds were
compared with the stream: \`keys\` by which aggregates exist, \`images\` by what they hold as well. A condition in
[keystone.md](keystone.md) may spare it. All other routes were answered by reading the touched aggregates alone.

| Route | Kinds compared |
|---|---|
${lines.join("\n")}
`;
}

for (const engines of PAIRINGS) {
  describe(`every mutating route of Keystone, ${engines.centre} → ${engines.edge1}`, () => {
    let clouds: Clouds;
    let oracle: Oracle;
    let walk: Walk;

    before(async function () {
      this.timeout(STARTS_WITHIN_MS);
      const missing = cloudsMissing(engines);
      if (missing !== undefined) {
        assert.ok(process.env["CI"] !== "true", missing);
        console.warn(`      skipped: ${missing}`);
        return this.skip();
      }
      clouds = await startClouds(engines);
      oracle = await Oracle.watching(clouds);
      walk = { oracle, mark: clouds.mark, made: new Map() };
    });

    after(async function () {
      this.timeout(STARTS_WITHIN_MS);
      await clouds?.end();
    });

    for (const chapter of [...FIRST_CHAPTERS, ...FURTHER_CHAPTERS]) {
      it(`changes what is declared and nothing else, and arrives: ${chapter.name}`, async function () {
        this.timeout(CHAPTER_WITHIN_MS);
        await chapter.calls(walk);
        await oracle.inStep();
        assert.deepEqual(oracle.problems.splice(0), []);
      });
    }

    it("walks over every route that is declared, and sees every capture write", () => {
      const { captures, leaves } = keystone;
      assert.deepEqual([...captures, ...leaves].map(({ on }) => on).filter((on) => !oracle.seen.has(on)), [], "never called");
      assert.deepEqual(captures.map(({ on }) => on).filter((on) => (oracle.seen.get(on)?.writing ?? 0) === 0), [], "never wrote");
    });

    it("compares whole kinds for the routes in docs/reference/keystone-routes.md and for no other", () => {
      const lines = scansSeen(oracle);
      console.log(lines.map((line) => `      ${line}`).join("\n"));
      if (process.env["HOLDFAST_REWRITE_DOCS"] === "1") writeFileSync(PAGE, pageOf(lines));
      assert.equal(existsSync(PAGE) ? readFileSync(PAGE, "utf8") : "", pageOf(lines));
    });
  });
}
