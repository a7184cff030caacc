/**
 * Goal: the repository keeps its own rules, and each rule is able to find what it forbids.
 * Method: every rule runs on a bad sample, a good sample and the repository itself.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { messageOf, RULES } from "./tidy/rules.ts";
import { treeAt, treeOf } from "./tidy/tree.ts";

const repository = treeAt(fileURLToPath(new URL("../", import.meta.url)));

for (const rule of RULES) {
  describe(`rule: ${rule.name}`, () => {
    it("finds something wrong in each of its bad samples", () => {
      for (const sample of rule.bad) {
        assert.ok(rule.check(treeOf(sample)).length > 0, `nothing found in ${JSON.stringify(sample)}`);
      }
    });

    it("accepts its good sample", () => {
      const findings = rule.check(treeOf(rule.good));
      assert.deepEqual(findings, []);
    });

    it("holds in this repository", () => {
      const findings = rule.check(repository);
      if (findings.length > 0) assert.fail(messageOf(rule, findings));
    });
  });
}
