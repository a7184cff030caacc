/**
 * The repository as the rules see it: paths, texts and syntax trees. A sample of a rule's own test has the same shape, so a
 * rule cannot tell a sample from the real thing.
 * Not here: the rules (rules.ts and the files it names).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import ts from "typescript";

export interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
  /** Undefined for what is not TypeScript or JavaScript. */
  readonly syntax: ts.SourceFile | undefined;
}

export type Tree = ReadonlyMap<string, SourceFile>;

/** Something that breaks a rule. */
export interface Finding {
  readonly path: string;
  /** Counted from 1. */
  readonly line: number;
  readonly found: string;
}

/** One rule of the house. */
export interface Rule {
  /** A sentence that is true when the rule holds. */
  readonly name: string;
  /** What to do instead. */
  readonly instead: string;
  readonly check: (tree: Tree) => readonly Finding[];
  /** Trees in each of which the rule must find something, and one in which it must not. */
  readonly bad: readonly Readonly<Record<string, string>>[];
  readonly good: Readonly<Record<string, string>>;
}

/** Folders of the repository that hold nothing of ours. */
const LEFT_OUT = new Set(["node_modules", "dist", "coverage", ".git", ".lab"]);
const READ = /\.(?:ts|js|mjs|md|json)$/;
const CODE = /\.(?:ts|js|mjs)$/;

/** A tree from texts by path. */
export function treeOf(files: Readonly<Record<string, string>>): Tree {
  return new Map(Object.entries(files).map(([path, text]) => [path, {
    path, text, lines: text.split("\n"),
    syntax: CODE.test(path) ? ts.createSourceFile(path, text, ts.ScriptTarget.ES2023, true) : undefined,
  }]));
}

/** The repository below `root`. */
export function treeAt(root: string): Tree {
  const files: Record<string, string> = {};
  const walk = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = posix.join(folder, entry.name);
      if (entry.isDirectory() && !LEFT_OUT.has(entry.name)) walk(path);
      const isRead = entry.isFile() && READ.test(entry.name) && entry.name !== "package-lock.json";
      if (isRead) files[path] = readFileSync(join(root, path), "utf8");
    }
  };
  walk("");
  return treeOf(files);
}

/** The first folder of a path; "" for files at the root. */
export function roomOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : "";
}

/** Files with a syntax tree. */
export function codeIn(tree: Tree): readonly (SourceFile & { readonly syntax: ts.SourceFile })[] {
  return [...tree.values()].filter((file): file is SourceFile & { readonly syntax: ts.SourceFile } => file.syntax !== undefined);
}

/** Calls `visit` for every node below `node`, parents first. */
export function eachNode(node: ts.Node, visit: (node: ts.Node) => void): void {
  const enter = (inner: ts.Node): void => {
    visit(inner);
    ts.forEachChild(inner, enter);
  };
  ts.forEachChild(node, enter);
}

/** A finding at a node. */
export function at(file: SourceFile & { readonly syntax: ts.SourceFile }, node: ts.Node, found: string): Finding {
  return { path: file.path, line: file.syntax.getLineAndCharacterOfPosition(node.getStart(file.syntax)).line + 1, found };
}

/** Findings of `look` in every node of every code file for which `covers` holds. */
export function inNodes(
  tree: Tree, covers: (path: string) => boolean, look: (node: ts.Node, path: string) => string | undefined,
): readonly Finding[] {
  return codeIn(tree).filter((file) => covers(file.path)).flatMap((file) => {
    const findings: Finding[] = [];
    eachNode(file.syntax, (node) => {
      const found = look(node, file.path);
      if (found !== undefined) findings.push(at(file, node, found));
    });
    return findings;
  });
}

export interface Import {
  readonly specifier: string;
  readonly node: ts.Node;
  /** The names imported from it; empty for dynamic imports. */
  readonly names: readonly string[];
  /** Path in the repository for relative specifiers. */
  readonly target: string | undefined;
  /** Gone at run time. */
  readonly typesOnly: boolean;
}

/** Static imports, re-exports and dynamic imports of a file. */
export function importsOf(file: SourceFile & { readonly syntax: ts.SourceFile }): readonly Import[] {
  const found: Import[] = [];
  const add = (literal: ts.Node | undefined, names: readonly string[], typesOnly: boolean): void => {
    if (literal === undefined || !ts.isStringLiteral(literal)) return;
    const specifier = literal.text;
    const target = specifier.startsWith(".") ? posix.join(posix.dirname(file.path), specifier) : undefined;
    found.push({ specifier, node: literal, names, target, typesOnly });
  };
  eachNode(file.syntax, (node) => {
    if (ts.isImportDeclaration(node)) {
      const bindings = node.importClause?.namedBindings;
      const elements = bindings !== undefined && ts.isNamedImports(bindings) ? bindings.elements : [];
      const values = elements.filter((element) => !element.isTypeOnly);
      const isErased = node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
        || (elements.length > 0 && values.length === 0 && node.importClause?.name === undefined);
      add(node.moduleSpecifier, values.map((element) => (element.propertyName ?? element.name).text), isErased);
    }
    if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, [], node.isTypeOnly);
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) add(node.arguments[0], [], false);
  });
  return found;
}
