/**
 * What the lab's stream server lets a site do: exact lists, and the law that nothing of another site, another scope or another
 * kind of request passes. Subjects are matched here as nats-server does (tokens, "*" for one, ">" for the rest).
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { AssertionError } from "../../core/assert.ts";
import { Secret } from "../../core/secret.ts";
import { authorizationBlock, CENTRE_PERMISSIONS, permissionsOf } from "../../lab/permissions.ts";

function covers(pattern: string, subject: string): boolean {
  const wanted = pattern.split(".");
  const given = subject.split(".");
  for (const [place, token] of wanted.entries()) {
    if (token === ">") return given.length > place;
    if (given[place] === undefined || (token !== "*" && token !== given[place])) return false;
  }
  return wanted.length === given.length;
}

const allowed = (patterns: readonly string[], subject: string): boolean => patterns.some((pattern) => covers(pattern, subject));
const siteNames = fc.stringMatching(/^[a-z0-9][a-z0-9-]{0,15}$/);

describe("permissions on the lab's stream server", () => {
  it("give a site its consumers, direct reads of the shared scope, its status, its questions and answers, and its inbox", () => {
    const { publish, subscribe } = permissionsOf("edge1", ["keystone"]);
    const consumer = (name: string): string[] => [
      `$JS.API.CONSUMER.CREATE.HOLDFAST_KEYSTONE.${name}.os.v1.keystone.all.>`,
      `$JS.API.CONSUMER.DELETE.HOLDFAST_KEYSTONE.${name}`,
      `$JS.API.CONSUMER.INFO.HOLDFAST_KEYSTONE.${name}`,
      `$JS.API.CONSUMER.MSG.NEXT.HOLDFAST_KEYSTONE.${name}`,
    ];
    assert.deepEqual([...publish].sort(), [...consumer("edge1"), ...consumer("edge1_fill"),
      "$JS.API.DIRECT.GET.HOLDFAST_KEYSTONE.os.v1.keystone.all.>", "os.status.v1.keystone.edge1",
      "os.ask.v1.keystone.audit.edge1", "os.answer.v1.keystone.edge1.>"].sort());
    assert.deepEqual(subscribe, ["_INBOX_edge1.>", "os.ask.v1.keystone.site.edge1"]);
  });

  it("never let a site write an image, see a stream, or read past the shared scope", () => {
    const { publish, subscribe } = permissionsOf("edge1", ["keystone"]);
    for (const subject of ["os.v1.keystone.all.user.1", "os.v1.keystone.edge1.user.1", "$JS.API.INFO", "$JS.API.STREAM.NAMES",
      "$JS.API.STREAM.INFO.HOLDFAST_KEYSTONE", "$JS.API.STREAM.DELETE.HOLDFAST_KEYSTONE",
      "$JS.API.STREAM.PURGE.HOLDFAST_KEYSTONE", "$JS.API.STREAM.MSG.GET.HOLDFAST_KEYSTONE",
      "$JS.API.DIRECT.GET.HOLDFAST_KEYSTONE",
      "$JS.API.DIRECT.GET.HOLDFAST_KEYSTONE.os.v1.keystone.edge2.user.1", "$JS.API.CONSUMER.CREATE.HOLDFAST_KEYSTONE",
      "$JS.API.CONSUMER.CREATE.HOLDFAST_KEYSTONE.edge1", "$JS.API.CONSUMER.CREATE.HOLDFAST_KEYSTONE.edge1.os.v1.keystone.edge2.>",
      "$JS.API.CONSUMER.DURABLE.CREATE.HOLDFAST_KEYSTONE.edge1", "$JS.API.CONSUMER.LIST.HOLDFAST_KEYSTONE",
      "$JS.API.CONSUMER.CREATE.HOLDFAST_GLANCE.edge1.os.v1.glance.all.>", "os.ask.v1.keystone.audit.edge2",
      "os.ask.v1.keystone.site.edge1", "os.answer.v1.keystone.edge2.1", "_INBOX_centre.1"]) {
      assert.equal(allowed(publish, subject), false, subject);
    }
    for (const subject of [">", "os.v1.>", "os.v1.keystone.all.user.1", "_INBOX.>", "_INBOX_edge2.1", "$JS.API.>",
      "os.ask.v1.keystone.audit.edge1", "os.ask.v1.keystone.site.edge2", "os.answer.v1.keystone.edge1.1"]) {
      assert.equal(allowed(subscribe, subject), false, subject);
    }
  });

  it("share nothing between two sites but reads of the shared scope", () => {
    fc.assert(fc.property(siteNames, siteNames, (left, right) => {
      fc.pre(left !== right);
      const [mine, other] = [permissionsOf(left, ["keystone"]), permissionsOf(right, ["keystone"])];
      // A pattern is tried as if it were a subject: its wildcards are tokens like any other for the other site's patterns.
      const shared = mine.publish.filter((pattern) => allowed(other.publish, pattern));
      assert.deepEqual(shared, ["$JS.API.DIRECT.GET.HOLDFAST_KEYSTONE.os.v1.keystone.all.>"]);
      assert.deepEqual(mine.subscribe.filter((pattern) => allowed(other.subscribe, pattern)), []);
    }));
  });

  it("list each subject once when a site follows several services", () => {
    const { publish, subscribe } = permissionsOf("edge1", ["keystone", "glance"]);
    assert.equal(new Set(publish).size, publish.length);
    assert.deepEqual(subscribe, ["_INBOX_edge1.>", "os.ask.v1.keystone.site.edge1", "os.ask.v1.glance.site.edge1"]);
    assert.ok(publish.includes("$JS.API.CONSUMER.MSG.NEXT.HOLDFAST_GLANCE.edge1"));
  });

  it("refuse a site name that would mean something in a subject, or be another site's consumer", () => {
    for (const name of ["", "a.b", "*", ">", "edge1_fill", "Edge", "-a", "a b"]) {
      assert.throws(() => permissionsOf(name, ["keystone"]), AssertionError, name);
    }
  });

  it("are written as text that keeps every subject and the password as quoted strings", () => {
    const password = new Secret('p"\\w');
    const text = authorizationBlock([{ name: "edge1", password, permissions: permissionsOf("edge1", ["keystone"]) },
      { name: "centre", password, permissions: CENTRE_PERMISSIONS }]);
    for (const { publish } of [permissionsOf("edge1", ["keystone"]), CENTRE_PERMISSIONS]) {
      for (const subject of publish) assert.ok(text.includes(JSON.stringify(subject)), subject);
    }
    assert.equal(text.split(JSON.stringify(password.reveal())).length, 3);
    assert.equal(text.split("{").length, text.split("}").length);
  });
});
