/**
 * Goal: a key repository on the disk is changed key by key, with whole files of the right owner only; letters open for their
 * recipient alone and only when the centre has sealed them. Method: real folders, real keys.
 */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isOperating, type ErrorCode } from "../../core/errors.ts";
import { unguessableBytes } from "../../core/random.ts";
import { Secret } from "../../core/secret.ts";
import { carryOut, readConfigurationFile, readKeyFolder } from "../../files/disk.ts";
import { freshKey, keySetOf, shownKeys, stepsToward, type KeySet } from "../../files/key-set.ts";
import { digestOfLetter, opened, sealed, type Letter } from "../../files/letter.ts";
import { freshSeed, identityOf } from "../../files/sealing.ts";

const setOf = (...numbers: readonly number[]): KeySet =>
  keySetOf(new Map(numbers.map((number) => [number, freshKey(unguessableBytes)])), "here");
const fails = (code: ErrorCode) => (error: unknown): boolean => isOperating(error, code);

describe("a key repository on the disk", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "holdfast-keys-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it("becomes what was wanted, of any beginning, with files that only their owner may read", async () => {
    for (const wanted of [setOf(0, 1), setOf(0, 2, 3), setOf(0, 7)]) {
      await carryOut(folder, stepsToward((await readKeyFolder(folder)).keys, wanted));
      const { keys, changedMs } = await readKeyFolder(folder);
      assert.equal(shownKeys(keySetOf(keys, folder)).digest, shownKeys(wanted).digest);
      assert.deepEqual([...changedMs.keys()], [...wanted.keys()]);
    }
    for (const name of ["0", "7"]) assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(folder).sort(), [".holdfast", "0", "7"]);
  });

  it("goes on after a life that ended while a key was being written", async () => {
    mkdirSync(join(folder, ".holdfast"));
    writeFileSync(join(folder, ".holdfast", "1"), "half a k");
    const wanted = setOf(0, 1);
    await carryOut(folder, stepsToward((await readKeyFolder(folder)).keys, wanted));
    assert.equal(readFileSync(join(folder, "1"), "utf8"), wanted.get(1)?.reveal());
  });

  it("is read without what the service does not take for a key", async () => {
    for (const name of ["0.tmp", "readme", "2"]) writeFileSync(join(folder, name), "x");
    assert.deepEqual([...(await readKeyFolder(folder)).keys.keys()], [2]);
  });

  it("that is not there, or holds something else, is an error that names it", async () => {
    await assert.rejects(readKeyFolder(join(folder, "none")), fails("E_KEYS_UNUSABLE"));
    writeFileSync(join(folder, "5"), "x".repeat(5_000));
    await assert.rejects(readKeyFolder(folder), fails("E_KEYS_UNUSABLE"));
    await assert.rejects(readConfigurationFile(join(folder, "none.conf")), fails("E_SETTINGS_UNREADABLE"));
  });
});

describe("a letter", () => {
  const [centre, site, stranger] = [identityOf(freshSeed()), identityOf(freshSeed()), identityOf(freshSeed())];
  const letter: Letter = { service: "toy", site: "edge1", repositories: new Map([["fernet", setOf(0, 1, 2)]]) };

  it("opens for its recipient, with the keys that were put into it, and shows none of them outside", () => {
    const sealing = sealed(letter, centre, site.publicKey);
    const arrived = opened(sealing, site, centre.publicKey);
    assert.equal(digestOfLetter(arrived, "a", "b"), digestOfLetter(letter, "a", "b"));
    const outside = Buffer.from(sealing).toString("latin1") + digestOfLetter(letter, centre.publicKey, site.publicKey);
    for (const key of letter.repositories.get("fernet")?.values() ?? []) assert.ok(!outside.includes(key.reveal()));
  });

  it("opens for nobody else, and not when a stranger sealed it or a byte was changed", () => {
    const sealing = sealed(letter, centre, site.publicKey);
    assert.throws(() => opened(sealing, stranger, centre.publicKey), fails("E_KEYS_UNSEALED"));
    assert.throws(() => opened(sealed(letter, stranger, site.publicKey), site, centre.publicKey), fails("E_KEYS_UNSEALED"));
    for (const place of [0, 10, sealing.length - 1]) {
      const changed = Uint8Array.from(sealing);
      changed[place] = (changed[place] ?? 0) ^ 1;
      assert.throws(() => opened(changed, site, centre.publicKey), fails("E_KEYS_UNSEALED"));
    }
    assert.throws(() => opened(new Uint8Array(3), site, centre.publicKey), fails("E_KEYS_UNSEALED"));
  });

  it("is another one as soon as a key, the sender or the recipient is", () => {
    const digest = digestOfLetter(letter, "a", "b");
    assert.notEqual(digestOfLetter(letter, "c", "b"), digest);
    assert.notEqual(digestOfLetter(letter, "a", "c"), digest);
    assert.notEqual(digestOfLetter({ ...letter, repositories: new Map([["fernet", setOf(0, 1, 2)]]) }, "a", "b"), digest);
  });

  it("cannot be sealed for what is no public key, nor by what is no seed, and neither is repeated in the error", () => {
    assert.throws(() => sealed(letter, centre, "XNOTHING"), fails("E_CONFIG"));
    assert.throws(() => identityOf(new Secret("SXhelp")), (error) =>
      fails("E_CONFIG")(error) && !String(error).includes("SXhelp"));
  });
});
