/**
 * A value that cannot be printed. Passwords, tokens and keys are held in it from the moment they are read; every way of
 * turning it into text by accident (template, JSON, inspect) gives "[sealed]". Only `reveal` gives the value, and each
 * call of `reveal` is a place to review.
 */
import { inspect } from "node:util";

const SEALED = "[sealed]";

/** See the file's head. Equality of two secrets is not offered: nothing here needs it. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return SEALED;
  }

  toJSON(): string {
    return SEALED;
  }

  [inspect.custom](): string {
    return SEALED;
  }
}
