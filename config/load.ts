/**
 * Configuration from the outside world: a YAML file, the environment, and the files that hold passwords. Defaults < file <
 * environment. This file is the only home of process.env outside the command line.
 *
 * Invariants: every mistake of a file is reported at once (E_CONFIG, one line each); a password is a Secret from the moment
 * it is read; a password file that everybody may read is a warning, one that nobody can read is a mistake.
 * Not here: what may be written (options.ts), how it is checked (check.ts).
 */
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parseDocument } from "yaml";
import { OperatingError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { checkDocument, type SecretFound, type SecretSource } from "./check.ts";
import type { AnySection } from "./declare.ts";
import { proxyOptions, syncdOptions, type ProxyConfig, type SyncdConfig } from "./options.ts";

export type { DatabaseConfig, FeedConfig, ProxyConfig, SyncdConfig } from "./options.ts";

/** A loaded configuration and what an operator should look at; warnings never show a value. */
export interface Loaded<C> {
  readonly config: C;
  readonly warnings: readonly string[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Largest configuration or password file that is read, in bytes. */
const FILE_BYTES_MAX = 1024 * 1024;
const ALIASES_MAX = 100;
const READABLE_BY_ALL = 0o004;

/** Kinds of configuration files. */
export type ConfigKind = "proxy" | "syncd";

/**
 * Loads a proxy's configuration.
 * @throws E_CONFIG with every mistake, one per line: "file: path: expected X, found Y".
 */
export function loadProxyConfig(file: string, environment: Environment = process.env): Loaded<ProxyConfig> {
  const { config, warnings } = load(proxyOptions, file, environment);
  return { config: config as ProxyConfig, warnings };
}

/**
 * Loads a sync daemon's configuration.
 * @throws E_CONFIG with every mistake, one per line: "file: path: expected X, found Y".
 */
export function loadSyncdConfig(file: string, environment: Environment = process.env): Loaded<SyncdConfig> {
  const { config, warnings } = load(syncdOptions, file, environment);
  return { config: config as SyncdConfig, warnings };
}

/**
 * What kind of configuration a file holds, from the names it uses: a proxy has an upstream, a daemon has services.
 * @throws E_CONFIG when the file cannot be read or could be either.
 */
export function configKindOf(file: string): ConfigKind {
  const document = documentIn(file);
  const names = typeof document === "object" && document !== null ? Object.keys(document) : [];
  const isProxy = names.includes("upstream") || names.includes("listen");
  if (isProxy === names.includes("services")) {
    const found = isProxy ? "both" : "neither";
    throw mistaken([`${file}: (top): expected a section "upstream" (proxy) or "services" (syncd), found ${found}`]);
  }
  return isProxy ? "proxy" : "syncd";
}

function load(options: AnySection, file: string, environment: Environment): Loaded<unknown> {
  const folder = dirname(resolve(file));
  const checked = checkDocument(options, {
    file, document: documentIn(file), environment,
    resolvePath: (path) => resolve(folder, path),
    readSecret: (source) => secretIn(source, environment),
  });
  if (checked.mistakes.length > 0) throw mistaken(checked.mistakes);
  return { config: checked.config, warnings: checked.warnings };
}

function mistaken(lines: readonly string[]): OperatingError {
  const count = lines.length === 1 ? "1 mistake" : `${lines.length} mistakes`;
  return new OperatingError("E_CONFIG", `${count} in the configuration\n${lines.join("\n")}`, { mistakes: lines.length });
}

function textIn(file: string): string | { readonly found: string } {
  try {
    const { size } = statSync(file);
    if (size > FILE_BYTES_MAX) return { found: `${size} bytes` };
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "an error";
    return { found: code === "ENOENT" ? "no such file" : code === "EACCES" ? "no permission to read it" : code };
  }
}

function documentIn(file: string): unknown {
  const written = textIn(file);
  if (typeof written !== "string") {
    throw mistaken([`${file}: (file): expected a readable file of at most ${FILE_BYTES_MAX} bytes, found ${written.found}`]);
  }
  const document = parseDocument(written, { uniqueKeys: true, prettyErrors: false });
  if (document.errors.length > 0) {
    throw mistaken(document.errors.map((error) => {
      const line = written.slice(0, error.pos[0]).split("\n").length;
      return `${file}: line ${line}: expected YAML, found a mistake (${error.code.toLowerCase().replaceAll("_", " ")})`;
    }));
  }
  try {
    return document.toJS({ maxAliasCount: ALIASES_MAX });
  } catch {
    throw mistaken([`${file}: (file): expected at most ${ALIASES_MAX} expanded aliases, found more`]);
  }
}

function secretIn(source: SecretSource, environment: Environment): SecretFound {
  if ("env" in source) {
    const value = environment[source.env];
    if (value === undefined || value === "") {
      return { expected: `a password in the environment variable ${source.env}`, found: "nothing" };
    }
    return { secret: new Secret(value) };
  }
  const expected = `a password in the file ${source.file}`;
  const written = textIn(source.file);
  if (typeof written !== "string") return { expected, found: written.found };
  // One line end at the end belongs to the editor, not to the password; anything else is kept.
  const value = written.replace(/\r?\n$/, "");
  if (value === "") return { expected, found: "an empty file" };
  const isOpen = (statSync(source.file).mode & READABLE_BY_ALL) !== 0;
  return { secret: new Secret(value), warning: isOpen ? `every user may read ${source.file}; make it mode 0600` : undefined };
}
