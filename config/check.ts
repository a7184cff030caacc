/**
 * From a parsed document and an environment to a configuration, or to every mistake in them. Pure: files and the real
 * environment are load.ts's.
 *
 * Invariants: nothing stops at the first mistake; a value is taken from the environment before the document before the
 * default; a name that no option has is a mistake with the nearest known name; no mistake shows a password.
 */
import type { Secret } from "../core/secret.ts";
import { environmentName, type AnySection, type Node, type Option, type SecretOption } from "./declare.ts";

/** Where a password is. */
export type SecretSource = { readonly file: string } | { readonly env: string };

/** A password, or what is wrong with the place it should be in (completes "found …"). */
export type SecretFound =
  | { readonly secret: Secret; readonly warning?: string | undefined }
  | { readonly expected: string; readonly found: string };

/** What is to be checked, and the two things only the outside world knows. */
export interface Given {
  /** How mistakes call the document. */
  readonly file: string;
  readonly document: unknown;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly resolvePath: (path: string) => string;
  readonly readSecret: (source: SecretSource) => SecretFound;
}

export interface Checked {
  /** Complete when there are no mistakes; otherwise do not use it. */
  readonly config: unknown;
  /** "file: path: expected X, found Y", in document order. */
  readonly mistakes: readonly string[];
  readonly warnings: readonly string[];
}

/** Variables that other parts of the project read; they name no option. */
const RESERVED = /^HOLDFAST_(?:LAB|TEST|BENCH)_/;

/** Longest piece of a wrong value that a mistake quotes, in characters. */
const QUOTED_MAX = 60;

type Path = readonly string[];
type Place = { readonly origin: string; readonly path: Path };

class Reading {
  readonly mistakes: { readonly path: string; readonly line: string }[] = [];
  readonly warnings: string[] = [];
  readonly names = new Set<string>();
  readonly given: Given;

  constructor(given: Given) {
    this.given = given;
  }

  mistake(place: Place, expected: string, found: string): undefined {
    const path = place.path.join(".");
    this.mistakes.push({ path, line: `${place.origin}: ${path === "" ? "(top)" : path}: expected ${expected}, found ${found}` });
    return undefined;
  }

  /** The text of an environment variable; notes that the name is known. */
  variable(name: string): string | undefined {
    this.names.add(name);
    return this.given.environment[name];
  }

  isClean(prefix: Path): boolean {
    const start = prefix.join(".");
    return !this.mistakes.some(({ path }) => path === start || path.startsWith(`${start}.`));
  }
}

/** Checks `given` against the declaration `root`. */
export function checkDocument(root: AnySection, given: Given): Checked {
  const reading = new Reading(given);
  const config = readNode(root, given.document ?? {}, [], reading);
  for (const name of Object.keys(given.environment)) {
    if (!name.startsWith("HOLDFAST_") || RESERVED.test(name) || reading.names.has(name)) continue;
    const near = nearest(name, [...reading.names]);
    const hint = near === undefined ? "" : ` (nearest: ${near})`;
    reading.warnings.push(`environment ${name}: names no option and is ignored${hint}`);
  }
  return { config, mistakes: reading.mistakes.map(({ line }) => line), warnings: reading.warnings };
}

function readNode(node: Node, found: unknown, path: Path, reading: Reading): unknown {
  switch (node.node) {
    case "option": return readOption(node, found, path, reading);
    case "secret": return readSecret(node, found, path, reading);
    case "section": return readSection(node, found, path, reading);
    case "maybe": {
      const named = namesIn(node.of, path);
      named.forEach((name) => reading.names.add(name));
      const absent = isAbsent(found) && !named.some((name) => reading.given.environment[name] !== undefined);
      return absent ? undefined : readNode(node.of, found, path, reading);
    }
    case "many": {
      const place = { origin: reading.given.file, path };
      const asked = `a list of ${node.least} to ${node.most} sections`;
      if (!Array.isArray(found)) return reading.mistake(place, asked, shown(found));
      if (found.length < node.least || found.length > node.most) reading.mistake(place, asked, `${found.length}`);
      return found.map((entry, index) => readNode(node.of, entry, [...path, String(index)], reading));
    }
  }
}

function isAbsent(found: unknown): boolean {
  return found === undefined || found === null;
}

function readOption(option: Option<unknown>, found: unknown, path: Path, reading: Reading): unknown {
  const name = environmentName(path);
  const variable = reading.variable(name);
  const place = { origin: variable === undefined ? reading.given.file : `environment ${name}`, path };
  const candidate = variable === undefined ? found : option.fromText(variable);
  if (isAbsent(candidate)) return option.byDefault ?? reading.mistake(place, option.expected, "nothing");
  const value = option.read(candidate);
  if (value === undefined) return reading.mistake(place, option.expected, shown(candidate));
  return option.isPath && typeof value === "string" ? reading.given.resolvePath(value) : value;
}

const SECRET_FORMS = "{ file: path } or { env: NAME }";

function readSecret(_option: SecretOption, found: unknown, path: Path, reading: Reading): Secret | undefined {
  const name = environmentName(path);
  const fileName = `${name}_FILE`;
  const direct = reading.variable(name);
  const file = reading.variable(fileName);
  const place = { origin: reading.given.file, path };
  if (direct !== undefined) return secretAt({ origin: `environment ${name}`, path }, { env: name }, reading);
  if (file !== undefined) {
    return secretAt({ origin: `environment ${fileName}`, path }, { file: reading.given.resolvePath(file) }, reading);
  }
  // The value itself is never quoted: it may be the password somebody wrote in the wrong place.
  if (isAbsent(found)) return reading.mistake(place, SECRET_FORMS, "nothing");
  if (!isRecord(found)) return reading.mistake(place, SECRET_FORMS, "a value (not shown)");
  const [key, value] = Object.entries(found)[0] ?? [];
  if (Object.keys(found).length !== 1 || typeof value !== "string" || value === "" || (key !== "file" && key !== "env")) {
    return reading.mistake(place, SECRET_FORMS, "something else (not shown)");
  }
  return secretAt(place, key === "file" ? { file: reading.given.resolvePath(value) } : { env: value }, reading);
}

function secretAt(place: Place, source: SecretSource, reading: Reading): Secret | undefined {
  if ("env" in source) reading.names.add(source.env);
  const answer = reading.given.readSecret(source);
  if (!("secret" in answer)) return reading.mistake(place, answer.expected, answer.found);
  if (answer.warning !== undefined) reading.warnings.push(`${place.origin}: ${place.path.join(".")}: ${answer.warning}`);
  return answer.secret;
}

function readSection(section: AnySection, found: unknown, path: Path, reading: Reading): unknown {
  const place = { origin: reading.given.file, path };
  const document = isAbsent(found) ? {} : found;
  if (!isRecord(document)) return reading.mistake(place, "a section", shown(document));
  const known = Object.keys(section.fields);
  for (const name of Object.keys(document)) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    const expected = near === undefined ? `one of ${known.join(", ")}` : `a known name (nearest: ${near})`;
    reading.mistake({ ...place, path: [...path, name] }, expected, `the unknown name ${JSON.stringify(name)}`);
  }
  const value: Record<string, unknown> = {};
  for (const [name, node] of Object.entries(section.fields)) {
    value[name] = readNode(node, document[name], [...path, name], reading);
  }
  for (const law of section.laws) {
    if (!law.fields.every((field) => reading.isClean([...path, field]))) continue;
    // The law's own fields were read without a mistake, so the section has the shape that the law was declared for.
    const broken = law.broken(value as never);
    if (broken !== undefined) reading.mistake({ ...place, path: [...path, ...law.at.split(".")] }, law.expected, broken);
  }
  return value;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Environment variables that could set something inside `node`. */
function namesIn(node: Node, path: Path): readonly string[] {
  switch (node.node) {
    case "option": return [environmentName(path)];
    case "secret": return [environmentName(path), `${environmentName(path)}_FILE`];
    case "section": return Object.entries(node.fields).flatMap(([name, field]) => namesIn(field, [...path, name]));
    case "maybe": return namesIn(node.of, path);
    case "many": return [];
  }
}

/** A wrong value as a mistake shows it: short, and without credentials that a URL may carry. */
function shown(found: unknown): string {
  if (isAbsent(found)) return "nothing";
  if (Array.isArray(found)) return `a list of ${found.length} (${quoted(found)})`;
  return isRecord(found) ? "a section" : quoted(found);
}

function quoted(value: unknown): string {
  const written = JSON.stringify(value).replace(/\/\/[^/@"\s]*@/g, "//…@");
  return written.length <= QUOTED_MAX ? written : `${written.slice(0, QUOTED_MAX)}…`;
}

/** The known name that `name` was probably meant to be: closest by edits, and close enough to be likely. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const ranked = known.map((candidate) => ({ candidate, edits: editsBetween(name.toLowerCase(), candidate.toLowerCase()) }))
    .sort((left, right) => left.edits - right.edits);
  const best = ranked[0];
  return best !== undefined && best.edits <= Math.max(2, Math.floor(name.length / 3)) ? best.candidate : undefined;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one text into the other. */
function editsBetween(left: string, right: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let row = 1; row <= left.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= right.length; column += 1) {
      const same = left[row - 1] === right[column - 1];
      let least = Math.min((last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, (last[column - 1] ?? 0) + (same ? 0 : 1));
      if (row > 1 && column > 1 && left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1]) {
        least = Math.min(least, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(least);
    }
    beforeLast = last;
    last = current;
  }
  return last[right.length] ?? 0;
}
