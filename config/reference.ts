/**
 * The options as a page for operators: docs/reference/options.md is exactly what this writes, and a test compares the two.
 * Pure. Not here: the words, which stand in options.ts.
 */
import { environmentName, type AnySection, type Node, type Option } from "./declare.ts";
import { proxyOptions, syncdOptions } from "./options.ts";

/** The whole page, Markdown, ending in a line end. */
export function optionsPage(): string {
  return [
    "# Options",
    "",
    "This page is written by `npm run docs:reference` from `config/options.ts`; change it there.",
    "",
    "A value is taken from the environment first, then from the file, then from the default. Every mistake is reported at once;",
    "`holdfast config check FILE` does so without starting anything. Relative paths start at the folder of the file. Entries of",
    "lists of sections are numbered from 0 in the names of environment variables; plain lists are separated by commas there.",
    "",
    "A password is never written in the file itself: `password: { file: /etc/holdfast/db.password }` or",
    "`password: { env: DB_PASSWORD }`. The environment variable of the option holds the password, and the same name with `_FILE`",
    "at the end holds the path of a file. A file that every user may read is warned about.",
    "",
    "## proxy.yaml",
    "",
    ...sectionLines(proxyOptions, []),
    "## syncd.yaml",
    "",
    ...sectionLines(syncdOptions, []),
  ].join("\n").trimEnd() + "\n";
}

interface Row {
  readonly path: readonly string[];
  readonly node: Node;
  readonly without: string | undefined;
}

function sectionLines(section: AnySection, path: readonly string[]): readonly string[] {
  const rows: Row[] = [];
  const sections: Row[] = [];
  for (const [name, field] of Object.entries(section.fields)) {
    const inner = field.node === "maybe" ? field.of : field;
    const row = { path: [...path, name], node: inner, without: field.node === "maybe" ? field.without : undefined };
    (inner.node === "section" || inner.node === "many" ? sections : rows).push(row);
  }
  const table = rows.length === 0 ? [] : [
    "| Option | Expected | Default | Meaning | Environment |",
    "|---|---|---|---|---|",
    ...rows.map(optionRow), "",
  ];
  const laws = section.laws.map((law) => `* \`${[...path, law.at].join(".")}\`: ${law.expected}.`);
  return [section.meaning, "", ...table, ...(laws.length === 0 ? [] : [...laws, ""]), ...sections.flatMap(subsectionLines)];
}

function subsectionLines({ path, node, without }: Row): readonly string[] {
  const isMany = node.node === "many";
  const inner = isMany ? node.of : node;
  if (inner.node !== "section") return [];
  const bounds = isMany ? [`A list of ${node.least} to ${node.most} sections.`, ""] : [];
  const absent = without === undefined ? [] : [`May be left out: ${without}.`, ""];
  return [`${"#".repeat(Math.min(path.length + 2, 6))} ${path.join(".")}`, "", ...bounds, ...absent,
    ...sectionLines(inner, isMany ? [...path, "N"] : path)];
}

function optionRow({ path, node, without }: Row): string {
  const columns = node.node === "option" ? [node.expected, defaultOf(node, without), node.meaning]
    : node.node === "secret" ? ["a password by `{ file }` or `{ env }`", absentOr(without), node.meaning] : [];
  const cells = [`\`${path.join(".")}\``, ...columns, `\`${environmentName(path)}\``];
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function defaultOf(option: Option<unknown>, without: string | undefined): string {
  if (option.byDefault !== undefined) return `\`${JSON.stringify(option.byDefault)}\``;
  return absentOr(without);
}

function absentOr(without: string | undefined): string {
  return without === undefined ? "**required**" : `none: ${without}`;
}
