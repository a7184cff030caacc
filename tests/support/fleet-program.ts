/**
 * The product as plain JavaScript in a folder of its own, with the entry that crash tests start instead of the command line.
 *
 * A process that is killed two hundred times must start fast, and it must be the same program every time, whoever builds or
 * edits the checkout meanwhile: so neither sources through a loader nor dist/ will do. Types are not checked here (`npm run
 * types` does).
 */
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url));
const ENTRY = "tests/support/crashing-process.ts";

const SETTINGS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ES2022, rewriteRelativeImportExtensions: true,
  verbatimModuleSyntax: true, inlineSourceMap: true,
};

/** Folders that make up the product, as the build itself names them. */
function productFolders(): readonly string[] {
  const read = ts.readConfigFile(join(CHECKOUT, "tsconfig.build.json"), (path) => readFileSync(path, "utf8"));
  const { include } = read.config as { readonly include: readonly string[] };
  return [...new Set([...include, "admin"])];
}

function sourcesIn(folder: string): readonly string[] {
  try {
    const names = readdirSync(join(CHECKOUT, folder), { encoding: "utf8", recursive: true });
    return names.filter((name) => name.endsWith(".ts")).map((name) => join(folder, name));
  } catch (error) {
    // The build names rooms that are still to come.
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

/** Writes the product of this moment into `folder` (made when missing); gives the path of the entry to start with node. */
export function frozenProgram(folder: string): string {
  for (const source of [...productFolders().flatMap(sourcesIn), ENTRY]) {
    const target = join(folder, source.replace(/\.ts$/, ".js"));
    mkdirSync(dirname(target), { recursive: true });
    const text = readFileSync(join(CHECKOUT, source), "utf8");
    writeFileSync(target, ts.transpileModule(text, { compilerOptions: SETTINGS, fileName: join(CHECKOUT, source) }).outputText);
  }
  for (const name of ["package.json", "node_modules"]) symlinkSync(join(CHECKOUT, name), join(folder, name));
  return join(folder, ENTRY.replace(/\.ts$/, ".js"));
}
