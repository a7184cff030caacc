/** Goal: a person who is shown rows learns of secrets only whether they are equal, and only within one look. */
import assert from "node:assert/strict";
import { maskedRows } from "../../schemas/masking.ts";
import { toy } from "../support/toy-service.ts";

const [KEY, OTHER] = ["a".repeat(36), "b".repeat(36)];
const image = (hash: string | null) => ({ user: [{ id: "u", name: "n" }], secret: [{ id: 1, user_id: "u", hash }] });
const shown = (hash: string | null, key: string) => maskedRows(toy, image(hash), key)?.["secret"]?.[0]?.["hash"];

describe("masked rows", () => {
  it("show of a secret whether it is there and whether it is equal, and nothing else", () => {
    assert.match(String(shown("s3cret", KEY)), /^secret:[\w-]{8}$/);
    assert.equal(shown("s3cret", KEY), shown("s3cret", KEY));
    assert.notEqual(shown("s3cret", KEY), shown("other", KEY));
    assert.equal(shown(null, KEY), null);
  });

  it("cannot be compared across looks", () => {
    assert.notEqual(shown("s3cret", KEY), shown("s3cret", OTHER));
  });

  it("leave all other columns as they are", () => {
    assert.deepEqual(maskedRows(toy, image("s3cret"), KEY)?.["user"], [{ id: "u", name: "n" }]);
    assert.equal(maskedRows(toy, undefined, KEY), undefined);
  });

  it("are refused with a key that could be guessed", () => {
    assert.throws(() => maskedRows(toy, image("s3cret"), "short"));
  });
});
