/**
 * Rules about how a file reads: size, names, comments, and constructs that the house does without.
 */
import ts from "typescript";
import { at, codeIn, eachNode, inNodes, type Finding, type Rule, type SourceFile, type Tree } from "./tree.ts";

const FUNCTION_LINES_MAX = 60;
const FILE_LINES_MAX = 400;
const LINE_COLUMNS_MAX = 130;
const STORY_LINES_MAX = 120;

/** The three files that tell the whole story; each must be readable in one sitting. */
const STORIES = ["proxy/mutation.ts", "schemas/change.ts", "syncd/apply.ts"];

/** Words that say nothing about what is inside. */
const EMPTY_WORDS = new Set(["util", "utils", "helper", "helpers", "common", "manager", "base", "impl", "misc", "data", "info"]);

type Body = ts.FunctionLikeDeclaration;

function isBody(node: ts.Node): node is Body {
  return ts.isFunctionLike(node) && "body" in node && node.body !== undefined;
}

/** A function that only groups tests is as long as its tests are many. */
function groupsTests(node: Body, path: string): boolean {
  return path.startsWith("tests/") && /\b(?:describe|it)(?:\.\w+)?\(/.test(node.getText());
}

function sizeFindings(tree: Tree): readonly Finding[] {
  const functions = inNodes(tree, () => true, (node, path) => {
    if (!isBody(node) || groupsTests(node, path)) return undefined;
    const file = node.getSourceFile();
    const first = file.getLineAndCharacterOfPosition(node.getStart()).line;
    const lines = file.getLineAndCharacterOfPosition(node.getEnd()).line - first + 1;
    return lines > FUNCTION_LINES_MAX ? `a function of ${lines} lines (at most ${FUNCTION_LINES_MAX})` : undefined;
  });
  const files = codeIn(tree).flatMap((file) => {
    const most = STORIES.includes(file.path) ? STORY_LINES_MAX : FILE_LINES_MAX;
    const count = file.text.trimEnd().split("\n").length;
    return count > most ? [{ path: file.path, line: most + 1, found: `${count} lines (at most ${most})` }] : [];
  });
  const wide = codeIn(tree).flatMap((file) => file.lines.flatMap((line, index) => line.length > LINE_COLUMNS_MAX
    ? [{ path: file.path, line: index + 1, found: `${line.length} columns (at most ${LINE_COLUMNS_MAX})` }] : []));
  return [...functions, ...files, ...wide];
}

function isEmptyName(name: string): boolean {
  return name.split(/[-_.]|(?<=[a-z0-9])(?=[A-Z])/).some((word) => EMPTY_WORDS.has(word.toLowerCase()));
}

function nameFindings(tree: Tree): readonly Finding[] {
  const files = codeIn(tree).filter(({ path }) => isEmptyName(path.slice(path.lastIndexOf("/") + 1)))
    .map(({ path }) => ({ path, line: 1, found: "a file name that says nothing" }));
  const types = inNodes(tree, () => true, (node) => {
    const isType = ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isClassDeclaration(node);
    return isType && node.name !== undefined && isEmptyName(node.name.text) ? `type ${node.name.text}` : undefined;
  });
  return [...files, ...types];
}

function commentFindings(tree: Tree): readonly Finding[] {
  return codeIn(tree).flatMap((file) => {
    const opening = file.text.replace(/^#!.*\n/, "").trimStart().startsWith("/*") ? []
      : [{ path: file.path, line: 1, found: "no block comment at the top" }];
    const isDocumented = (node: ts.Node): boolean =>
      (ts.getLeadingCommentRanges(file.text, node.getFullStart()) ?? []).some(({ pos }) => file.text.startsWith("/**", pos));
    const silent = file.syntax.statements.filter((statement): statement is ts.FunctionDeclaration | ts.ClassDeclaration =>
      (ts.isFunctionDeclaration(statement) || ts.isClassDeclaration(statement))
      && (statement.modifiers ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) && !isDocumented(statement));
    // Overloads carry their comment once, at the first signature.
    const named = silent.filter((statement) => ts.isClassDeclaration(statement) || statement.body === undefined
      || !isOverloaded(file, statement));
    return [...opening, ...named.map((node) => at(file, node, `exported ${node.name?.text ?? "thing"} has no doc comment`))];
  });
}

function isOverloaded(file: SourceFile & { readonly syntax: ts.SourceFile }, node: ts.FunctionDeclaration): boolean {
  return file.syntax.statements.some((other) => other !== node && ts.isFunctionDeclaration(other) && other.body === undefined
    && other.name?.text === node.name?.text);
}

function constructOf(node: ts.Node, path: string): string | undefined {
  if (node.kind === ts.SyntaxKind.AnyKeyword) return "any";
  if (ts.isNonNullExpression(node)) return "a non-null assertion";
  if (ts.isEnumDeclaration(node)) return "an enum";
  const isDefault = ts.isExportAssignment(node)
    || (ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword));
  return isDefault && path !== "eslint.config.js" ? "a default export" : undefined;
}

// Written apart, so that this file does not break its own rule.
const MARKERS = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"], ["HA", "CK"]].map((parts) => parts.join(""));
const LEFTOVERS = new RegExp(`\\b(?:${MARKERS.join("|")})\\b`);
const ONLY = /^(?:describe|it|context|suite|test)\.only$/;

function leftoverFindings(tree: Tree): readonly Finding[] {
  const marks = [...tree.values()].flatMap((file) => file.lines.flatMap((line, index) =>
    LEFTOVERS.test(line) ? [{ path: file.path, line: index + 1, found: "a leftover marker" }] : []));
  const only = inNodes(tree, (path) => path.startsWith("tests/"), (node) =>
    ts.isPropertyAccessExpression(node) && ONLY.test(node.getText()) ? node.getText() : undefined);
  return [...marks, ...only];
}

const TEST_FILE = /^tests\/.*\.(?:test|suite)\.ts$/;

/** A promise that a timer alone resolves. */
function sleepOf(node: ts.Node): string | undefined {
  if (ts.isImportDeclaration(node) && /timers\/promises/.test(node.moduleSpecifier.getText())) return "imports timers/promises";
  if (!ts.isNewExpression(node) || node.expression.getText() !== "Promise") return undefined;
  // Asking again and again for a condition is what a test should do.
  if (ts.findAncestor(node, (outer) => ts.isIterationStatement(outer, false)) !== undefined) return undefined;
  const executor = node.arguments?.[0];
  if (executor === undefined || !ts.isArrowFunction(executor)) return undefined;
  const resolve = executor.parameters[0]?.name.getText();
  return resolve !== undefined && new RegExp(`^(?:\\{\\s*)?setTimeout\\(${resolve}\\b`).test(executor.body.getText())
    ? "waits for time to pass" : undefined;
}

const ASSERTS = /\bassert\b|\bfc\b|\.expect\(/;

/** Names through which a test may assert: functions of its file that do, and what it imports from other files of tests. */
function assertingNames(file: ts.SourceFile): readonly string[] {
  const names: string[] = [];
  eachNode(file, (node) => {
    const isFunction = ts.isFunctionDeclaration(node) || (ts.isVariableDeclaration(node) && node.initializer !== undefined
      && (ts.isArrowFunction(node.initializer) || ts.isFunctionExpression(node.initializer)));
    if (isFunction && node.name !== undefined && ASSERTS.test(node.getText())) names.push(node.name.getText());
    if (ts.isImportDeclaration(node) && /^["']\.\/|^["']\.\.\/(?!\.\.)/.test(node.moduleSpecifier.getText())) {
      const bindings = node.importClause?.namedBindings;
      if (bindings !== undefined && ts.isNamedImports(bindings)) names.push(...bindings.elements.map(({ name }) => name.text));
    }
  });
  return names;
}

function emptyTestFindings(tree: Tree): readonly Finding[] {
  return codeIn(tree).filter(({ path }) => TEST_FILE.test(path)).flatMap((file) => {
    const asserting = assertingNames(file.syntax).map((name) => new RegExp(`\\b${name}\\b`));
    const findings: Finding[] = [];
    eachNode(file.syntax, (node) => {
      if (!ts.isCallExpression(node) || node.expression.getText() !== "it" || node.arguments.length < 2) return;
      const written = node.getText();
      if (ASSERTS.test(written) || asserting.some((name) => name.test(written))) return;
      findings.push(at(file, node, `test ${node.arguments[0]?.getText() ?? ""} asserts nothing`));
    });
    return findings;
  });
}

export const WORD_RULES: readonly Rule[] = [
  { name: `functions have at most ${FUNCTION_LINES_MAX} lines, files ${FILE_LINES_MAX}, stories ${STORY_LINES_MAX}; `
    + `lines ${LINE_COLUMNS_MAX} columns`,
    instead: "give a part of it a name and a place of its own", check: sizeFindings,
    bad: [{ "core/a.ts": `export const f = () => {${"\n;".repeat(61)}};` }, { "schemas/change.ts": "\n".repeat(121) + ";" },
      { "core/b.ts": "x".repeat(131) }, { "core/c.ts": "\n".repeat(401) + ";" }],
    good: { "core/a.ts": `export const f = () => {${"\n;".repeat(50)}};`, "schemas/change.ts": "\n".repeat(100),
      "tests/unit/a.test.ts": `describe("all", () => {${"\nit();".repeat(80)}});` } },
  { name: "names of files and types say what is inside", instead: "name the thing it holds or does", check: nameFindings,
    bad: [{ "rows/row-utils.ts": "" }, { "core/a.ts": "interface SiteInfo {}" }, { "core/b.ts": "class SyncManager {}" }],
    good: { "rows/footprint.ts": "interface Footprint {}", "core/a.ts": "interface Database {}" } },
  { name: "every file opens with a block comment, and exported functions and classes have a doc comment",
    instead: "say what it is, what it promises, what it does not do", check: commentFindings,
    bad: [{ "core/a.ts": "export const a = 1;" }, { "core/b.ts": "/** Room. */\nimport \"./a.ts\";\nexport function b() {}" }],
    good: { "core/a.ts": "/** Room. */\nexport const a = 1;\n\n/** Does b. */\nexport function b() {}",
      "cli/a.ts": "#!/usr/bin/env node\n/** X. */\n" } },
  { name: "no any, non-null assertion, enum or default export", instead: "unknown; present(); a union of texts; a named export",
    check: (tree) => inNodes(tree, () => true, constructOf),
    bad: [{ "core/a.ts": "export const a: any = 1;" }, { "core/b.ts": "enum B {}" }, { "core/c.ts": "export default 1;" },
      { "core/d.ts": "a!.b();" }, { "core/e.ts": "export default function e() {}" }],
    good: { "core/a.ts": "export const a: unknown = \"any\";", "eslint.config.js": "export default [];" } },
  { name: "nothing is left over: no markers, no .only", check: leftoverFindings,
    instead: "do it, or write down what is missing and its effect in the documents",
    bad: [{ "core/a.ts": `// ${MARKERS[0]} later` }, { "tests/unit/a.test.ts": "it.only(\"a\", () => assert(true));" }],
    good: { "core/a.ts": "// todo lists are fine", "tests/unit/a.test.ts": "it(\"a\", () => assert(true));" } },
  { name: "tests wait for conditions, not for time", instead: "wait until the condition holds, with a deadline (tests/support)",
    check: (tree) => inNodes(tree, (path) => TEST_FILE.test(path), sleepOf),
    bad: [{ "tests/unit/a.test.ts": "await new Promise((resolve) => setTimeout(resolve, 50));" },
      { "tests/unit/a.test.ts": "await new Promise((resolve) => { setTimeout(resolve, 50); });" },
      { "tests/unit/a.test.ts": "import { setTimeout } from \"node:timers/promises\";" }],
    good: { "tests/unit/b.test.ts": "while (!done) await new Promise((resolve) => setTimeout(resolve, 5));",
      "tests/unit/a.test.ts": "server.on(\"request\", () => setTimeout(answer, 50));" } },
  { name: "every test asserts something", instead: "state the law with node:assert",
    check: emptyTestFindings,
    bad: [{ "tests/unit/a.test.ts": "it(\"works\", () => { run(); });" }],
    good: { "tests/unit/a.test.ts": "it(\"works\", () => { assert.equal(run(), 1); });",
      "tests/unit/b.test.ts": "const refuses = (a) => () => assert.throws(a); it(\"works\", refuses(run));" } },
];
