/**
 * What the centre sends one site: the key sets of a service, in one sealed letter. The letter names service and site inside the
 * seal, so that it cannot be shown to another daemon of the same seed, and its digest outside, so that the centre sees without
 * opening it whether it still says what it should.
 *
 * Invariants: opened(sealed(x)) = x; nothing of a key is outside the seal. Not here: subjects, and when it is sent.
 */
import { createHash } from "node:crypto";
import { OperatingError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { keySetOf, shownKeys, type KeySet } from "./key-set.ts";
import type { Identity } from "./sealing.ts";

const LETTER_VERSION = 1;

/** Key sets by the names of their repositories. */
export interface Letter {
  readonly service: string;
  readonly site: string;
  readonly repositories: ReadonlyMap<string, KeySet>;
}

/** Stands for a letter and its two ends: equal exactly when nothing has to be sent again. */
export function digestOfLetter(letter: Letter, sender: string, recipient: string): string {
  const sets = [...letter.repositories].map(([name, set]) => [name, shownKeys(set).digest]).sort();
  return createHash("sha256").update(JSON.stringify([letter.service, letter.site, sender, recipient, sets])).digest("base64url");
}

/** Seals a letter for `recipient`. @throws E_CONFIG when that is no public key */
export function sealed(letter: Letter, identity: Identity, recipient: string): Uint8Array {
  const repositories = Object.fromEntries([...letter.repositories].map(([name, set]) =>
    [name, Object.fromEntries([...set].map(([number, key]) => [number, key.reveal()]))]));
  const content = JSON.stringify({ letter: LETTER_VERSION, service: letter.service, site: letter.site, repositories });
  return identity.seal(Buffer.from(content), recipient);
}

function refuse(reason: string): OperatingError {
  return new OperatingError("E_KEYS_UNSEALED", reason);
}

/** Opens what `sender` sealed. @throws E_KEYS_UNSEALED when it is not that, E_KEYS_UNUSABLE when a set in it is none */
export function opened(sealing: Uint8Array, identity: Identity, sender: string): Letter {
  const content = identity.open(sealing, sender);
  if (content === undefined) {
    throw refuse(`the letter was not sealed by ${sender} for ${identity.publicKey}: compare both keys with the centre's file`);
  }
  const said = parsed(content);
  if (said["letter"] !== LETTER_VERSION) throw refuse(`letter version ${String(said["letter"])} is not known here`);
  const { service, site, repositories } = said;
  if (typeof service !== "string" || typeof site !== "string" || !isRecord(repositories)) {
    throw refuse("the letter is incomplete");
  }
  return { service, site, repositories: new Map(Object.entries(repositories).map(([name, set]) => [name, setIn(name, set)])) };
}

function setIn(name: string, said: unknown): KeySet {
  if (!isRecord(said)) throw refuse(`the letter's ${name} is no set of keys`);
  const keys = new Map(Object.entries(said).map(([number, key]) => {
    if (!/^\d{1,9}$/.test(number) || typeof key !== "string") throw refuse(`the letter's ${name} is no set of keys`);
    return [Number(number), new Secret(key)];
  }));
  return keySetOf(keys, `the centre's ${name}`);
}

function parsed(content: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const said: unknown = JSON.parse(Buffer.from(content).toString("utf8"));
    if (isRecord(said)) return said;
  } catch {
    // A parser's own words may quote what it was given.
  }
  throw refuse("the letter is no JSON object");
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
