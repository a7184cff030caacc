/**
 * Goal: from a capture and the facts of a call to what must be looked at, with nothing guessed. Method: examples on the toy
 * service.
 */
import assert from "node:assert/strict";
import { askedBefore, touchedBy, valuesAt } from "../../capture/touches.ts";
import { answer, every, one, path, request, sha256, type Capture } from "../../schemas/define.ts";
import { toy } from "../support/toy-service.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const found = (on: string): Capture => {
  const capture = toy.captures.find((each) => each.on === on);
  assert(capture !== undefined);
  return capture;
};

describe("what a call touches", () => {
  it("takes the new aggregate's key from the answer", () => {
    const touched = touchedBy(toy,
      found("POST /users"), { parameters: {}, request: undefined, answer: bytes('{"user":{"id":"u1"}}') });
    assert.deepEqual(touched.keys, [{ kind: "user", values: ["u1"] }]);
    assert.equal(touched.scans.size, 0);
  });

  it("compares the kind's keys when the answer does not name the new aggregate", () => {
    for (const body of [undefined, bytes("not json"), bytes("{}")]) {
      const touched = touchedBy(toy, found("POST /users"), { parameters: {}, request: undefined, answer: body });
      assert.deepEqual(touched.keys, []);
      assert.deepEqual([...touched.scans], [["user", "keys"]]);
    }
  });

  it("looks at nothing for an optional part that the request left out, and compares keys when the request is not known", () => {
    const capture: Capture = { on: "POST /users", touches: [one("group", { id: request("$.user.group") })] };
    const scansFor = (body: Uint8Array | undefined): readonly string[] =>
      [...touchedBy(toy, capture, { parameters: {}, request: body, answer: undefined }).scans.keys()];
    assert.deepEqual(scansFor(bytes('{"user":{}}')), []);
    assert.deepEqual(scansFor(undefined), ["group"]);
  });

  it("compares the kind whole when a predicate's value was in an answer that is lost", () => {
    const capture: Capture = { on: "POST /users", touches: [every("grant", { actor_id: answer("$.user.id") })] };
    const touched = (body: Uint8Array | undefined) =>
      touchedBy(toy, capture, { parameters: {}, request: undefined, answer: body });
    assert.deepEqual([...touched(undefined).scans], [["grant", "images"]]);
    assert.deepEqual(touched(bytes('{"user":{"id":"u1"}}')).scopes.map((scope) => scope.where), [{ actor_id: ["u1"] }]);
  });

  it("asks for everything that refers to what a delete takes away", () => {
    const touched = touchedBy(toy,
      found("DELETE /users/{user}"), { parameters: { user: "u1" }, request: undefined, answer: undefined });
    assert.deepEqual(touched.keys, [{ kind: "user", values: ["u1"] }]);
    assert.deepEqual(touched.scopes.map((scope) => [scope.kind, scope.where]),
      [["membership", { user_id: ["u1"] }], ["grant", { actor_id: ["u1"] }]]);
    assert.deepEqual(touched.logs, ["event"]);
  });

  it("asks before a delete under which spelling the database knows a key that is not plain", () => {
    const asked = (user: string): readonly string[] =>
      askedBefore(toy, found("DELETE /users/{user}"), { parameters: { user }, request: undefined,
        answer: undefined }).map((scope) => scope.kind);
    assert.deepEqual(asked("u1"), ["membership", "grant"]);
    assert.deepEqual(asked("U1"), ["membership", "grant", "user"]);
    assert.deepEqual(asked("u1 "), ["membership", "grant", "user"]);
  });

  it("hashes a source where the service does", () => {
    const capture: Capture = { on: "DELETE /users/{user}", touches: [one("user", { id: sha256(path("user")) })] };
    const [key] = touchedBy(toy, capture, { parameters: { user: "abc" }, request: undefined, answer: undefined }).keys;
    assert.equal(key?.values[0], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  });

  it("takes every value that a list in the answer names", () => {
    const capture: Capture = { on: "POST /users", touches: [one("user", { id: answer("$.users[*].id") })] };
    const touched = touchedBy(toy,
      capture, { parameters: {}, request: undefined, answer: bytes('{"users":[{"id":"a"},{"id":"b"}]}') });
    assert.deepEqual(touched.keys.map((key) => key.values[0]), ["a", "b"]);
  });

  it("follows paths through objects and lists, and past what is not there", () => {
    assert.deepEqual(valuesAt({ a: { b: 1 } }, "$.a.b"), ["1"]);
    assert.deepEqual(valuesAt({ a: [{ b: "x" }, {}, { b: null }, { b: "y" }] }, "$.a[*].b"), ["x", "y"]);
    assert.deepEqual(valuesAt(null, "$.a"), []);
    assert.deepEqual(valuesAt({ a: "text" }, "$.a.b.c"), []);
  });
});
