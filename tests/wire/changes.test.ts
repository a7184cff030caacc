/**
 * Goal: what an earlier release put on the feed is read by this one, and what this one writes is what it says. Method: recorded
 * changes, one folder per wire version, each with the digest it had when it was recorded. They are never edited: a change of
 * the wire form gets a new folder.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { keyOfSubject } from "../../feed/subjects.ts";
import { decodeChange, encodeChange } from "../../schemas/change.ts";
import { keystone } from "../../schemas/keystone.ts";
import { keyText } from "../../schemas/row.ts";

interface Recorded {
  readonly subject: string;
  readonly digest: string;
  readonly payload: string;
}

const FOLDER = new URL("v1/", import.meta.url);
/** Hash of the tables and columns that travel. When it changes, sites of the release before read less or more than is sent. */
const SENT_COLUMNS = "c82d0c5c9641697c36a4f63e35d6f4ef89227401e568d871f977ee88deb7e65c";

const recorded = (file: string): Recorded => JSON.parse(readFileSync(new URL(file, FOLDER), "utf8")) as Recorded;

describe("changes of wire version 1", () => {
  for (const file of readdirSync(FOLDER)) {
    const { subject, digest, payload } = recorded(file);

    it(`${file} is read as it was meant`, () => {
      const change = decodeChange(keystone, subject, Buffer.from(payload));
      assert.equal(change.digest, digest);
      const key = keyOfSubject(subject);
      assert(key !== undefined && keyText(key) === keyText(change.image.key), "subject and payload name the same aggregate");
    });

    it(`${file} is written as it was`, () => {
      const change = decodeChange(keystone, subject, Buffer.from(payload));
      assert.equal(Buffer.from(encodeChange(change)).toString("utf8"), payload);
    });
  }

  it("refuses a wire version that it does not know, with a code", () => {
    const { subject, payload } = recorded("user.json");
    const newer = payload.replace('"wire":1', '"wire":2');
    assert.throws(() => decodeChange(keystone, subject, Buffer.from(newer)), { code: "E_CHANGE_UNREADABLE" });
  });

  it("keeps fields that it does not know out of the image, and reads the rest", () => {
    const { subject, digest, payload } = recorded("user.json");
    const extended = payload.replace('"kind"', '"sealed":{"by":"nobody"},"kind"').replace('"enabled"',
      '"newer_column":1,"enabled"');
    assert.equal(decodeChange(keystone, subject, Buffer.from(extended)).digest, digest);
  });

  it("sends the columns that it was recorded with", () => {
    const sent = [...keystone.tables.values()].map((table) =>
      [table.name, table.sent.map((column) => [column, table.columns[column]])]);
    assert.equal(createHash("sha256").update(JSON.stringify(sent)).digest("hex"), SENT_COLUMNS,
      "the tables or columns that travel have changed: record new samples, say in CHANGELOG what older sites do with them");
  });
});
