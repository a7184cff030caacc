/** The subject grammar: what is written can be read back, one prefix is one permission, and keys never escape their token. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { answersOfSite, answerSubjectOf, auditAskSubject, filterOf, keyOfSubject, SCOPE_ALL, siteAskSubject, statusSubject,
  streamOf, subjectOf, subjectPrefix } from "../../feed/subjects.ts";
import { sitePermissions } from "../../feed/permissions.ts";
import { covers } from "../../feed/memory-stream.ts";

const kinds = fc.stringMatching(/^[a-z][a-z_]{0,15}$/);
const values = fc.array(fc.string({ unit: "grapheme" }), { minLength: 1, maxLength: 3 });
const keys = fc.record({ kind: kinds, values });

describe("subjects", () => {
  it("give back the key they were made of, whatever characters it has", () => {
    fc.assert(fc.property(keys, (key) => {
      assert.deepEqual(keyOfSubject(subjectOf("identity", SCOPE_ALL, key)), { ...key });
    }));
  });

  it("differ for different keys of one kind", () => {
    fc.assert(fc.property(keys, keys, (left, right) => {
      const same = JSON.stringify(left) === JSON.stringify(right);
      assert.equal(subjectOf("identity", SCOPE_ALL, left) === subjectOf("identity", SCOPE_ALL, right), same);
    }));
  });

  it("have as many tokens as the key has values, and none that a server would read as a wildcard or refuse", () => {
    fc.assert(fc.property(keys, (key) => {
      const tokens = subjectOf("identity", SCOPE_ALL, key).split(".");
      assert.equal(tokens.length, 5 + key.values.length);
      for (const token of tokens) assert.match(token, /^[0-9A-Za-z_=-]+$/);
    }));
  });

  it("lie under the filter of their scope and kind and under no other kind's", () => {
    fc.assert(fc.property(keys, kinds, (key, kind) => {
      const subject = subjectOf("identity", "edge1", key);
      assert.ok(covers(filterOf("identity", "edge1"), subject));
      assert.equal(covers(filterOf("identity", "edge1", kind), subject), kind === key.kind);
      assert.ok(!covers(filterOf("identity", SCOPE_ALL), subject));
      assert.ok(!covers(filterOf("image", "edge1"), subject));
    }));
  });

  it("of control messages name no aggregate", () => {
    assert.equal(keyOfSubject(`${subjectPrefix("identity", SCOPE_ALL)}._heartbeat`), undefined);
    assert.equal(keyOfSubject(subjectPrefix("identity", SCOPE_ALL)), undefined);
  });

  it("are written as documented", () => {
    assert.equal(streamOf("identity"), "HOLDFAST_IDENTITY");
    assert.equal(subjectOf("identity", SCOPE_ALL, { kind: "user", values: ["3f", "a@b"] }), "os.v1.identity.all.user.3f.=YUBi");
    assert.equal(statusSubject("identity", "edge1"), "os.status.v1.identity.edge1");
  });
});

describe("questions and answers", () => {
  it("a site answers to a subject of its own, the auditor to the asker's inbox", () => {
    assert.equal(answerSubjectOf(siteAskSubject("identity", "edge1"), "q-1"), "os.answer.v1.identity.edge1.q-1");
    assert.equal(answerSubjectOf(auditAskSubject("identity", "edge1"), "q-1"), undefined);
    assert.equal(answersOfSite("identity", "edge1"), "os.answer.v1.identity.edge1.>");
  });
});

describe("the rights of a site", () => {
  it("name its own consumers, its scope's last messages, its own status, questions and answers, and nothing wider", () => {
    assert.deepEqual(sitePermissions("identity", "all", "edge1"), {
      publish: [
        "$JS.API.CONSUMER.CREATE.HOLDFAST_IDENTITY.edge1.os.v1.identity.all.>",
        "$JS.API.CONSUMER.MSG.NEXT.HOLDFAST_IDENTITY.edge1",
        "$JS.API.CONSUMER.DELETE.HOLDFAST_IDENTITY.edge1",
        "$JS.API.CONSUMER.INFO.HOLDFAST_IDENTITY.edge1",
        "$JS.API.CONSUMER.CREATE.HOLDFAST_IDENTITY.edge1_fill.os.v1.identity.all.>",
        "$JS.API.CONSUMER.MSG.NEXT.HOLDFAST_IDENTITY.edge1_fill",
        "$JS.API.CONSUMER.DELETE.HOLDFAST_IDENTITY.edge1_fill",
        "$JS.API.CONSUMER.INFO.HOLDFAST_IDENTITY.edge1_fill",
        "$JS.API.DIRECT.GET.HOLDFAST_IDENTITY.os.v1.identity.all.>",
        "os.status.v1.identity.edge1",
        "os.ask.v1.identity.audit.edge1",
        "os.answer.v1.identity.edge1.>",
      ],
      subscribe: ["_INBOX_edge1.>", "os.ask.v1.identity.site.edge1"],
    });
  });
});
