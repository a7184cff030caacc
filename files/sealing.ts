/**
 * Sealing for one reader: NATS curve keys (X25519 with XSalsa20-Poly1305). What is sealed can be opened by the named recipient
 * alone, and only by naming the sender, so a recipient knows who sealed it.
 *
 * Invariants: a seed is a Secret; opening gives nothing but what the named sender sealed for us, unchanged. A nonce is drawn for
 * every sealing, so equal contents look different. Not here: what is sealed (letter.ts), where seeds lie (config/, cli/).
 */
import { createCurve, fromCurveSeed, type KeyPair } from "@nats-io/nkeys";
import { OperatingError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";

/** Who seals and opens: the holder of one seed. */
export interface Identity {
  readonly publicKey: string;
  /** @throws E_CONFIG when `recipient` is no public key */
  seal(content: Uint8Array, recipient: string): Uint8Array;
  /** Undefined unless `sender` sealed it for us. */
  open(sealed: Uint8Array, sender: string): Uint8Array | undefined;
}

/** A fresh seed. */
export function freshSeed(): Secret {
  return new Secret(Buffer.from(createCurve().getSeed()).toString("ascii"));
}

/** The identity that a seed gives. @throws E_CONFIG */
export function identityOf(seed: Secret): Identity {
  const pair = pairOf(seed);
  return {
    publicKey: pair.getPublicKey(),
    seal(content, recipient) {
      try {
        return pair.seal(content, recipient);
      } catch {
        throw new OperatingError("E_CONFIG", `${recipient} is no public key`);
      }
    },
    open(sealed, sender) {
      try {
        // Gives null for what was changed or is not ours, and throws for what cannot be a sealing at all.
        return pair.open(sealed, sender) ?? undefined;
      } catch {
        return undefined;
      }
    },
  };
}

function pairOf(seed: Secret): KeyPair {
  try {
    return fromCurveSeed(Buffer.from(seed.reveal().trim(), "ascii"));
  } catch {
    // The library's own words may quote what it was given.
    throw new OperatingError("E_CONFIG", "the seed is not one that `holdfast keys init` has made");
  }
}
