/** Goal: tempest's output is read as its authors mean it, and no difference between two runs is overlooked. */
import assert from "node:assert/strict";
import { brokenConnections, countOf, differencesOf, testsRun, verdictsIn } from "./results.ts";

const OUTPUT = `{0} tempest.api.identity.v3.test_a.A.test_one[id-1,smoke] [0.512345s] ... ok
{1} tempest.api.identity.v3.test_b.B.test_two[id-2] [1.000001s] ... FAILED
{1} setUpClass (tempest.api.identity.v2.test_c.C) ... SKIPPED: Identity v2 is not here
{0} tempest.api.identity.v3.test_d.D.test_three[id-3] [0.100000s] ... SKIPPED: not enabled

==============================
Failed 1 tests - output below:
==============================

tempest.api.identity.v3.test_b.B.test_two[id-2]
-----------------------------------------------

Captured traceback:
    urllib3.exceptions.ProtocolError: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))

======
Totals
======
Ran: 4 tests in 268.9600 sec.
`;

describe("tempest's results", () => {
  it("are read line by line, without the attributes of tests", () => {
    assert.deepEqual([...verdictsIn(OUTPUT)], [["tempest.api.identity.v3.test_a.A.test_one", "passed"],
      ["tempest.api.identity.v3.test_b.B.test_two", "failed"], ["setUpClass (tempest.api.identity.v2.test_c.C)", "skipped"],
      ["tempest.api.identity.v3.test_d.D.test_three", "skipped"]]);
    assert.equal(countOf(verdictsIn(OUTPUT), "skipped"), 2);
    assert.equal(testsRun(OUTPUT), verdictsIn(OUTPUT).size);
  });

  it("name the failures that are broken connections", () => {
    assert.deepEqual(brokenConnections(OUTPUT, verdictsIn(OUTPUT)), ["tempest.api.identity.v3.test_b.B.test_two"]);
    assert.deepEqual(brokenConnections(OUTPUT.replace(/ProtocolError.*/, "BadRequest"), verdictsIn(OUTPUT)), []);
  });

  it("differ in tests that ended otherwise and in tests that did not run", () => {
    const [left, right] = [verdictsIn(OUTPUT), new Map(verdictsIn(OUTPUT))];
    assert.deepEqual(differencesOf(left, right), []);
    right.set("tempest.api.identity.v3.test_b.B.test_two", "passed");
    right.delete("tempest.api.identity.v3.test_d.D.test_three");
    assert.deepEqual(differencesOf(left, right), [
      { test: "tempest.api.identity.v3.test_b.B.test_two", direct: "failed", proxied: "passed" },
      { test: "tempest.api.identity.v3.test_d.D.test_three", direct: "skipped", proxied: "absent" }]);
  });
});
