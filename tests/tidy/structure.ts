/**
 * Rules about who may know whom: import levels, circles, barrels, dead files, and the short table of files that may touch
 * the world (time, chance, disk, network, environment). Everything outside that table runs unmodified in the simulator, so
 * the table is the testability of the product; widening it needs a decision record.
 */
import { posix } from "node:path";
import ts from "typescript";
import { at, codeIn, importsOf, inNodes, roomOf, type Finding, type Import, type Rule, type Tree } from "./tree.ts";

/** Rooms and their levels: a file imports from its own room and from rooms of a strictly lower level. */
const LEVELS: Readonly<Record<string, number>> = {
  core: 0, schemas: 1, rows: 2, feed: 2, config: 2, admin: 2, files: 2, capture: 3, records: 3, proxy: 4, syncd: 4, audit: 4,
  control: 4, cli: 5, lab: 6, tests: 6, bench: 6,
};

/** Rooms of the same level that may be used nevertheless: tests and benchmarks run in the lab. */
const ALSO: Readonly<Record<string, readonly string[]>> = { tests: ["lab", "bench"], bench: ["lab", "tests"] };

/** Only those who start a process read its configuration; everybody else is handed values. */
const CONFIG_READERS = /^(?:config|cli|lab|tests)\/|^(?:proxy|syncd|audit|control)\/main\.ts$/;

function levelFindings(tree: Tree): readonly Finding[] {
  return codeIn(tree).flatMap((file) => importsOf(file).flatMap(({ target, node }) => {
    if (target === undefined) return [];
    const from = roomOf(file.path);
    const to = roomOf(target);
    if (from === to || from === "") return [];
    if (to === "config" && !CONFIG_READERS.test(file.path)) return [at(file, node, `${file.path} reads configuration`)];
    const allowed = (LEVELS[to] ?? Infinity) < (LEVELS[from] ?? -1) || (ALSO[from] ?? []).includes(to);
    return allowed ? [] : [at(file, node, `${from} (level ${LEVELS[from]}) imports ${to} (level ${LEVELS[to]})`)];
  }));
}

function circleFindings(tree: Tree): readonly Finding[] {
  const targets = new Map(codeIn(tree).map((file) =>
    [file.path, importsOf(file).filter(({ typesOnly }) => !typesOnly).flatMap(({ target }) => target ?? [])]));
  const done = new Set<string>();
  const findings: Finding[] = [];
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      const circle = [...trail.slice(trail.indexOf(path)), path];
      findings.push({ path, line: 1, found: `imports in a circle: ${circle.join(" → ")}` });
    }
    if (done.has(path)) return;
    done.add(path);
    for (const target of targets.get(path) ?? []) visit(target, [...trail, path]);
  };
  for (const path of targets.keys()) visit(path, []);
  return findings;
}

/** Files that somebody starts, and that therefore nobody imports. */
const ENTRY = /^(?:cli\/holdfast\.ts|lab\/.*|bench\/.*|tests\/[^/]+\.mjs|eslint\.config\.js|.*\.test\.ts)$/;

function deadFindings(tree: Tree): readonly Finding[] {
  const used = new Set<string>();
  for (const file of codeIn(tree)) {
    for (const { target } of importsOf(file)) if (target !== undefined) used.add(target);
    // Files started as child processes are named by a path or a relative URL.
    for (const [, written] of file.text.matchAll(/["'`]((?:\.{1,2}\/)?[\w./-]+\.(?:ts|mjs|js))["'`]/g)) {
      if (written === undefined) continue;
      used.add(posix.join(posix.dirname(file.path), written));
      used.add(written);
    }
  }
  return codeIn(tree).filter(({ path }) => !ENTRY.test(path) && !used.has(path))
    .map(({ path }) => ({ path, line: 1, found: "nothing imports this file" }));
}

function extensionFindings(tree: Tree): readonly Finding[] {
  return codeIn(tree).flatMap((file) => importsOf(file)
    .filter(({ target }) => target !== undefined && !/\.(?:ts|js|mjs|json)$/.test(target))
    .map(({ node, specifier }) => at(file, node, `"${specifier}" has no extension`)));
}

interface Privilege {
  readonly what: string;
  readonly where: RegExp;
  /** Modules imported for more than types. */
  readonly modules?: RegExp;
  /** Names that even these modules may give to everybody: constants. */
  readonly harmless?: RegExp;
  /** Names imported from any module. */
  readonly names?: RegExp;
  /** Expressions, as written. */
  readonly expressions?: RegExp;
}

const PRIVILEGES: readonly Privilege[] = [
  { what: "time", where: /^core\/clock\.ts$/, modules: /^(?:node:)?timers(?:\/promises)?$/,
    expressions: /^(?:Date|performance|setTimeout|setInterval|setImmediate|AbortSignal\.timeout)$/ },
  { what: "chance", where: /^core\/random\.ts$/, names: /^(?:randomUUID|randomBytes|randomInt)$/,
    expressions: /^(?:Math\.random|crypto\.(?:randomUUID|getRandomValues))$/ },
  { what: "standard output", where: /^(?:core\/log\.ts|cli\/.*)$/, expressions: /^(?:console|process\.(?:stdout|stderr))$/ },
  { what: "environment and exit", where: /^(?:config\/load\.ts|cli\/.*|core\/lifecycle\.ts)$/,
    expressions: /^process\.(?:env|argv|exit|exitCode)$/ },
  { what: "network", harmless: /^(?:METHODS|STATUS_CODES)$/,
    modules: /^(?:node:(?:https?|http2|net|tls|dgram|dns)|undici|http-proxy|express)$/,
    expressions: /^fetch$/,
    where: new RegExp("^(?:proxy/(?:server|forward|upstream|peek)|admin/(?:server|operations)|records/api|cli/.*"
      + "|syncd/memcached)\\.ts$") },
  { what: "the stream server", where: /^feed\/(?:jetstream[\w-]*|answers|keeper|link|reading|settings)\.ts$/,
    modules: /^@nats-io\/(?!nkeys$)/ },
  { what: "seeds and sealing", where: /^files\/sealing\.ts$/, modules: /^@nats-io\/nkeys$/ },
  { what: "database drivers", where: /^rows\/(?:postgres|mariadb|relational[\w-]*)\.ts$/,
    modules: /^(?:sequelize|pg|mysql2|tedious)(?:\/|$)/ },
  { what: "files", where: /^(?:config\/load\.ts|proxy\/journal-file\.ts|admin\/tls-files\.ts|files\/disk\.ts|cli\/.*)$/,
    modules: /^(?:node:)?fs(?:\/promises)?$/ },
  { what: "child processes", where: /^$/, modules: /^(?:node:)?(?:child_process|worker_threads|cluster)$/ },
];

/** Rooms outside the product, which live in the real world. */
const WORLDLY = /^(?:lab|tests|bench)\/|^[^/]+$/;

function isExpression(node: ts.Identifier | ts.PropertyAccessExpression): boolean {
  const { parent } = node;
  if (ts.isTypeReferenceNode(parent) || ts.isImportSpecifier(parent) || ts.isQualifiedName(parent)) return false;
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) return false;
  // Writing out a given instant reads no clock.
  if (ts.isNewExpression(parent) && node.getText() === "Date" && parent.arguments?.length === 1) return false;
  const isName = (ts.isPropertyAssignment(parent) || ts.isPropertySignature(parent) || ts.isMethodDeclaration(parent)
    || ts.isMethodSignature(parent)
    || ts.isParameter(parent) || ts.isBindingElement(parent) || ts.isPropertyDeclaration(parent)) && parent.name === node;
  return !isName;
}

function isTouched({ modules, harmless, names }: Privilege, one: Import): boolean {
  const isHarmless = one.names.length > 0 && one.names.every((name) => harmless?.test(name) === true);
  return (modules?.test(one.specifier) === true && !isHarmless) || one.names.some((name) => names?.test(name) === true);
}

function privilegeFindings(tree: Tree): readonly Finding[] {
  const imports = codeIn(tree).filter(({ path }) => !WORLDLY.test(path)).flatMap((file) =>
    importsOf(file).filter(({ typesOnly }) => !typesOnly).flatMap((one) =>
      PRIVILEGES.filter((privilege) => !privilege.where.test(file.path) && isTouched(privilege, one))
        .map(({ what }) => at(file, one.node, `imports ${[one.specifier, ...one.names].join(" ")}: ${what}`))));
  const expressions = inNodes(tree, (path) => !WORLDLY.test(path), (node, path) => {
    if (!ts.isIdentifier(node) && !ts.isPropertyAccessExpression(node)) return undefined;
    if (!isExpression(node)) return undefined;
    const written = node.getText();
    const broken = PRIVILEGES.find(({ where, expressions: touched }) => touched?.test(written) === true && !where.test(path));
    return broken === undefined ? undefined : `uses ${written}: ${broken.what}`;
  });
  return [...imports, ...expressions];
}

const HEADER = "/** A room. */\n";

export const STRUCTURE_RULES: readonly Rule[] = [
  { name: "files import only from their own room and from lower levels; configuration is read only where processes start",
    instead: "move the shared part down, or pass the value in", check: levelFindings,
    bad: [{ "core/a.ts": "import \"../rows/b.ts\";" }, { "rows/b.ts": "import \"../config/load.ts\";" },
      { "proxy/a.ts": "import type { B } from \"../syncd/b.ts\";" }, { "capture/a.ts": "export * from \"../config/load.ts\";" }],
    good: { "rows/b.ts": "import \"../core/a.ts\"; import \"./c.ts\";", "proxy/main.ts": "import \"../config/load.ts\";" } },
  { name: "no file imports itself through others", instead: "move what both need into a third file", check: circleFindings,
    bad: [{ "core/a.ts": "import \"./b.ts\";", "core/b.ts": "export * from \"./a.ts\";" }],
    good: { "core/a.ts": "import \"./b.ts\"; import \"./c.ts\";", "core/b.ts": "import \"./c.ts\";",
      "core/c.ts": "import type { A } from \"./a.ts\";" } },
  { name: "relative imports are written with their extension", instead: "write ./name.ts", check: extensionFindings,
    bad: [{ "core/a.ts": "import \"./b\";" }], good: { "core/a.ts": "import \"./b.ts\"; import \"pino\";" } },
  { name: "there are no index files", instead: "import the file that holds the thing",
    check: (tree) => [...tree.keys()].filter((path) => /(?:^|\/)index\.(?:ts|js|mjs)$/.test(path))
      .map((path) => ({ path, line: 1, found: "an index file" })),
    bad: [{ "rows/index.ts": HEADER }], good: { "rows/rows.ts": HEADER } },
  { name: "every file is imported by another or is started by somebody", instead: "delete it, or use it", check: deadFindings,
    bad: [{ "rows/lonely.ts": HEADER }],
    good: { "rows/used.ts": HEADER, "tests/unit/a.test.ts": "import \"../../rows/used.ts\";", "lab/main.ts": HEADER } },
  { name: "the world is touched only by the files in the table of privileges",
    instead: "take it as a parameter (core/world.ts), or put it behind a port", check: privilegeFindings,
    bad: [{ "capture/a.ts": "import { readFileSync } from \"node:fs\";" },
      { "rows/a.ts": "export const now = () => Date.now();" },
      { "rows/a.ts": "const now = new Date();" }, { "proxy/b.ts": "import { randomUUID } from \"node:crypto\";" },
      { "proxy/b.ts": "const port = process.env.PORT;" }, { "syncd/a.ts": "setTimeout(run, 5);" },
      { "syncd/a.ts": "console.log(1);" }, { "proxy/a.ts": "import { METHODS, request } from \"node:http\";" }],
    good: { "core/clock.ts": "export const now = () => Date.now();", "lab/main.ts": "import \"node:fs\";",
      "proxy/a.ts": "import { METHODS } from \"node:http\"; import type { IncomingMessage } from \"node:http\";",
      "feed/memory.ts": "const written = new Date(clock.nowMs()).toISOString();",
      "capture/a.ts": "import { createHash } from \"node:crypto\"; interface Found { readonly Date: string; fetch(): void }" } },
];
