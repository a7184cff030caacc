/**
 * The vocabulary in which options are declared: what an option is called follows from where it stands, everything else
 * (type, unit, range, default, meaning) stands beside it. Reading a file, reading the environment, the reference page and
 * the TypeScript type of a loaded configuration are all derived from one declaration, so they cannot disagree.
 *
 * Invariants: a declaration is data and pure functions; `read` never throws; `expected` completes the sentence "expected …".
 * Not here: the options themselves (options.ts), walking a document (check.ts), files and environment (load.ts).
 */
import type { Secret } from "../core/secret.ts";

/** One value. `T` is its type once loaded. */
export interface Option<T> {
  readonly node: "option";
  /** Type, range and unit in words: completes "expected …" in a mistake and is a column of the reference. */
  readonly expected: string;
  readonly meaning: string;
  /** Undefined: it must be given. */
  readonly byDefault: T | undefined;
  /** A path: relative ones are taken from the folder of the configuration file. */
  readonly isPath: boolean;
  /** The value, or undefined when `found` is not one. */
  readonly read: (found: unknown) => T | undefined;
  /** What an environment variable's text stands for in a document. */
  readonly fromText: (text: string) => unknown;
}

/** A password: never written in the file itself, but named as { file: path } or { env: NAME }. */
export interface SecretOption {
  readonly node: "secret";
  readonly meaning: string;
}

/** A rule between options of one section, checked when none of `fields` has a mistake of its own. */
export interface Law<S> {
  readonly fields: readonly (keyof S & string)[];
  /** The option that has to change, relative to the section. */
  readonly at: string;
  readonly expected: string;
  /** What was found instead, or undefined when the law holds. */
  readonly broken: (section: S) => string | undefined;
}

export type Fields = Readonly<Record<string, Node>>;

export interface Section<F extends Fields> {
  readonly node: "section";
  readonly meaning: string;
  readonly fields: F;
  readonly laws: readonly Law<Shape<Section<F>>>[];
}

/** May be absent. */
export interface Maybe<N> {
  readonly node: "maybe";
  readonly of: N;
  /** What happens without it. */
  readonly without: string;
}

/** A list of sections. */
export interface Many<N> {
  readonly node: "many";
  readonly of: N;
  readonly least: number;
  readonly most: number;
}

/** Anything that can stand in a declaration. */
export type Node =
  | Option<unknown>
  | SecretOption
  | AnySection
  | { readonly node: "maybe"; readonly of: Node; readonly without: string }
  | { readonly node: "many"; readonly of: AnySection; readonly least: number; readonly most: number };

/** A section of any shape. Its laws are only ever called with what was read by its own fields. */
export interface AnySection {
  readonly node: "section";
  readonly meaning: string;
  readonly fields: Fields;
  readonly laws: readonly Law<never>[];
}

/** The type of what a declaration loads to. */
export type Shape<N> =
  N extends Option<infer T> ? T
  : N extends SecretOption ? Secret
  : N extends Section<infer F> ? { readonly [K in keyof F]: Shape<F[K]> }
  : N extends Maybe<infer M> ? Shape<M> | undefined
  : N extends Many<infer M> ? readonly Shape<M>[]
  : never;

interface Described<T> {
  readonly meaning: string;
  readonly byDefault?: T;
}

interface Written<T> extends Described<T> {
  readonly expected: string;
  readonly isPath?: boolean;
  readonly read: (found: unknown) => T | undefined;
  readonly fromText?: (text: string) => unknown;
}

function option<T>(written: Written<T>): Option<T> {
  return { node: "option", expected: written.expected, meaning: written.meaning, byDefault: written.byDefault,
    isPath: written.isPath ?? false, read: written.read, fromText: written.fromText ?? ((text) => text) };
}

/** A whole number from `least` to `most`, both included. */
export function integer(
  asked: Described<number> & { readonly unit?: string; readonly least: number; readonly most: number },
): Option<number> {
  const { unit, least, most } = asked;
  const measured = unit === undefined ? "" : ` (${unit})`;
  const isWithin = (found: unknown): found is number =>
    typeof found === "number" && Number.isInteger(found) && found >= least && found <= most;
  return option({ ...asked, expected: `a whole number from ${least} to ${most}${measured}`,
    read: (found) => (isWithin(found) ? found : undefined),
    fromText: (text) => (/^-?\d{1,15}$/.test(text) ? Number(text) : text) });
}

/** A text that matches `pattern` as a whole; `expected` says it in words. */
export function text(asked: Described<string> & { readonly pattern: RegExp; readonly expected: string }): Option<string> {
  return option({ ...asked, read: (found) => (typeof found === "string" && asked.pattern.test(found) ? found : undefined) });
}

/** A file or folder; a relative path is taken from the folder of the configuration file. */
export function filePath(asked: Described<string> & { readonly expected: string }): Option<string> {
  return option({ ...asked, isPath: true,
    read: (found) => (typeof found === "string" && found !== "" && !found.includes("\0") ? found : undefined) });
}

/** true or false. */
export function flag(asked: Described<boolean>): Option<boolean> {
  return option({ ...asked, expected: "true or false", read: (found) => (typeof found === "boolean" ? found : undefined),
    fromText: truthOfText });
}

function truthOfText(written: string): unknown {
  return written === "true" ? true : written === "false" ? false : written;
}

/** One of a few words (or true and false). */
export function choice<const T extends string | boolean>(words: readonly T[], asked: Described<T>): Option<T> {
  return option<T>({ ...asked, expected: `one of ${words.join(", ")}`, read: (found) => words.find((word) => word === found),
    fromText: (written) => (words.some((word) => typeof word === "boolean") ? truthOfText(written) : written) });
}

/** `least` to `most` values of one kind; in the environment they are separated by commas. */
export function list<T>(
  of: Option<T>, asked: Described<readonly T[]> & { readonly least: number; readonly most: number },
): Option<readonly T[]> {
  const { least, most } = asked;
  return option<readonly T[]>({ ...asked, expected: `a list of ${least} to ${most} entries, each ${of.expected}`,
    read(found) {
      if (!Array.isArray(found) || found.length < least || found.length > most) return undefined;
      const values = found.map((entry) => of.read(entry)).filter((value) => value !== undefined);
      return values.length === found.length ? values : undefined;
    },
    fromText: (written) => (written.trim() === "" ? [] : written.split(",").map((entry) => of.fromText(entry.trim()))) });
}

/** A password, named by file or environment variable. */
export function secret(asked: { readonly meaning: string }): SecretOption {
  return { node: "secret", meaning: asked.meaning };
}

/** Options that belong together, with the laws between them. */
export function section<const F extends Fields>(
  meaning: string, fields: F, laws: readonly Law<Shape<Section<F>>>[] = [],
): Section<F> {
  return { node: "section", meaning, fields, laws };
}

/** A node that may be left out; `without` says what happens then. */
export function maybe<const N extends Node>(of: N, without: string): Maybe<N> {
  return { node: "maybe", of, without };
}

/** A list of `least` to `most` sections. */
export function many<const N extends AnySection>(of: N, bounds: { readonly least: number; readonly most: number }): Many<N> {
  return { node: "many", of, ...bounds };
}

/** The environment variable that overrides an option: upstream.connectTimeoutMs → HOLDFAST_UPSTREAM_CONNECT_TIMEOUT_MS. */
export function environmentName(path: readonly string[]): string {
  return ["HOLDFAST", ...path].map((step) => step.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toUpperCase()).join("_");
}
