/**
 * Goal: errors say what callers and operators rely on, and secrets cannot be printed by accident.
 * Method: every code of the catalogue; every way of turning a value into text.
 */
import assert from "node:assert/strict";
import { format, inspect } from "node:util";
import { assert as must, AssertionError, present, unreachable } from "../../core/assert.ts";
import { ERROR_CATALOGUE, isOperating, OperatingError, type ErrorCode } from "../../core/errors.ts";
import { factsOf } from "../../core/log.ts";
import { Secret } from "../../core/secret.ts";

const CODES = Object.keys(ERROR_CATALOGUE) as ErrorCode[];

describe("operating errors", () => {
  it("carry their code, whose move it is, when to repeat, and their cause", () => {
    for (const code of CODES) {
      const cause = new Error("inner");
      const error = new OperatingError(code, "text", { table: "user" }, cause);
      assert.equal(error.retry, ERROR_CATALOGUE[code].retry);
      assert.equal(error.move, ERROR_CATALOGUE[code].move);
      assert.equal(error.cause, cause);
      assert.equal(error.message, `${code}: text`);
    }
  });

  it("every meaning is one or more whole sentences", () => {
    for (const code of CODES) assert.match(ERROR_CATALOGUE[code].meaning, /^[A-Z].*\.$/, code);
  });

  it("are recognised by code; bugs and strangers are not", () => {
    const error = new OperatingError("E_FEED_FULL", "full");
    assert.ok(isOperating(error));
    assert.ok(isOperating(error, "E_CONFIG", "E_FEED_FULL"));
    assert.ok(!isOperating(error, "E_CONFIG"));
    assert.ok(!isOperating(new AssertionError("law")));
    assert.ok(!isOperating({ code: "E_FEED_FULL" }));
  });

  it("in a log line give their facts and no stack; a bug gives its stack", () => {
    assert.deepEqual(factsOf(new OperatingError("E_FEED_FULL", "full", { sizeBytes: 7 })),
      { code: "E_FEED_FULL", reason: "E_FEED_FULL: full", sizeBytes: 7 });
    assert.match(String(factsOf(new Error("oops"))["stack"]), /core-errors-secret/);
    assert.deepEqual(factsOf("text"), { reason: "text" });
  });
});

describe("assertions", () => {
  it("only false, undefined and null break a law: 0 and the empty text are values", () => {
    for (const value of [0, "", Number.NaN, [], {}]) must(value, "a value");
    for (const nothing of [false, undefined, null]) {
      assert.throws(() => must(nothing, "the law"), { name: "AssertionError", message: "the law" });
    }
  });

  it("present gives the value on, or names the law", () => {
    assert.equal(present(0, "a number"), 0);
    assert.throws(() => present(undefined, "a number"), /a number/);
    assert.throws(() => unreachable("x" as never), /unreachable: x/);
  });
});

describe("a secret", () => {
  const secret = new Secret("hunter2");

  it("is revealed only when asked", () => {
    assert.equal(secret.reveal(), "hunter2");
  });

  it("is sealed in every text made of it", () => {
    const texts = [`${secret}`, String(secret), JSON.stringify({ secret }), inspect(secret),
      inspect({ deep: { secret } }, { depth: 9 }), format("%s %o %j", secret, secret, secret),
      Object.keys(secret).join(), JSON.stringify(Object.entries(secret))];
    for (const text of texts) assert.doesNotMatch(text, /hunter2/);
  });
});
