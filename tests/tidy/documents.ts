/**
 * Rules about what is written outside the code: service names stay in their files, error codes and documents agree,
 * Markdown has one title and no dead link, decision records are numbered and listed.
 */
import { posix } from "node:path";
import ts from "typescript";
import { inNodes, type Finding, type Rule, type Tree } from "./tree.ts";

/** Rooms that may know services by name; proxy/refuse.ts knows the shapes of their error bodies. */
const KNOWS_SERVICES = /^(?:schemas|config|lab|tests|bench|docs)\/|^proxy\/refuse\.ts$|^[^/]+$/;
const SERVICE = /(?:^|[^a-z])(?:keystone|nova|neutron|glance|cinder)(?:[^a-z]|$)/i;

function serviceFindings(tree: Tree): readonly Finding[] {
  return inNodes(tree, (path) => !KNOWS_SERVICES.test(path), (node) => {
    const isText = ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node) || ts.isTemplateHead(node)
      || ts.isTemplateMiddle(node) || ts.isTemplateTail(node) || ts.isIdentifier(node);
    if (!isText) return undefined;
    const written = ts.isIdentifier(node) ? node.text.replace(/(?<=[a-z])(?=[A-Z])/g, "_") : node.text;
    return SERVICE.test(written) ? `names a service: ${written.slice(0, 60)}` : undefined;
  });
}

const ERRORS_SOURCE = "core/errors.ts";
const ERRORS_PAGE = "docs/reference/errors.md";

function errorFindings(tree: Tree): readonly Finding[] {
  const source = tree.get(ERRORS_SOURCE);
  const page = tree.get(ERRORS_PAGE);
  if (source === undefined) return [];
  if (page === undefined) return [{ path: ERRORS_PAGE, line: 1, found: "the page is missing" }];
  const codes = new Map(source.lines.flatMap((line, index) => {
    const code = /^ {2}(E_[A-Z_]+): \{/.exec(line)?.[1];
    return code === undefined ? [] : [[code, index + 1]];
  }));
  const documented = new Map(page.lines.flatMap((line, index) => {
    const code = /^## (E_[A-Z_]+)$/.exec(line)?.[1];
    return code === undefined ? [] : [[code, index + 1]];
  }));
  return [
    ...[...codes].filter(([code]) => !documented.has(code))
      .map(([code, line]) => ({ path: ERRORS_SOURCE, line, found: `${code} is not in ${ERRORS_PAGE}` })),
    ...[...documented].filter(([code]) => !codes.has(code))
      .map(([code, line]) => ({ path: ERRORS_PAGE, line, found: `${code} is not in ${ERRORS_SOURCE}` })),
  ];
}

function mentionFindings(tree: Tree): readonly Finding[] {
  const source = tree.get(ERRORS_SOURCE);
  if (source === undefined) return [];
  const codes = new Set([...source.text.matchAll(/^ {2}(E_[A-Z_]+): \{/gm)].map((match) => match[1]));
  // The samples of these rules mention codes that do not exist.
  const files = [...tree.values()].filter(({ path }) => !path.startsWith("tests/tidy/"));
  return files.flatMap((file) => file.lines.flatMap((line, index) =>
    [...line.matchAll(/\bE_[A-Z]+(?:_[A-Z]+)*\b/g)].filter(([code]) => !codes.has(code))
      .map(([code]) => ({ path: file.path, line: index + 1, found: `${code} is no error code` }))));
}

/** Lines outside fenced code, with their numbers. */
function proseOf(lines: readonly string[]): readonly { readonly line: number; readonly text: string }[] {
  let fenced = false;
  return lines.flatMap((text, index) => {
    if (/^\s*(?:```|~~~)/.test(text)) {
      fenced = !fenced;
      return [];
    }
    return fenced ? [] : [{ line: index + 1, text }];
  });
}

const pagesIn = (tree: Tree) => [...tree.values()].filter(({ path }) => path.endsWith(".md"));

function titleFindings(tree: Tree): readonly Finding[] {
  return pagesIn(tree).flatMap(({ path, lines }) => {
    const titles = proseOf(lines).filter(({ text }) => text.startsWith("# "));
    return titles.length === 1 ? [] : [{ path, line: titles[1]?.line ?? 1, found: `${titles.length} titles` }];
  });
}

function linkFindings(tree: Tree): readonly Finding[] {
  const folders = new Set([...tree.keys()].flatMap((path) => {
    const parts = path.split("/");
    return parts.slice(1).map((_, count) => parts.slice(0, count + 1).join("/"));
  }));
  return pagesIn(tree).flatMap(({ path, lines }) => proseOf(lines).flatMap(({ line, text }) =>
    [...text.matchAll(/\]\(([^)\s#]+)(?:#[^)\s]*)?\)/g)].flatMap(([, link]) => {
      if (link === undefined || /^[a-z]+:/.test(link)) return [];
      const target = posix.normalize(posix.join(posix.dirname(path), link)).replace(/\/$/, "");
      // Only files of the kinds the tree holds can be judged.
      const isKnown = tree.has(target) || folders.has(target) || !/\.(?:ts|js|mjs|md)$/.test(target);
      return isKnown ? [] : [{ path, line, found: `a dead link to ${link}` }];
    })));
}

function recordFindings(tree: Tree): readonly Finding[] {
  const index = tree.get("docs/adr/README.md");
  const records = [...tree.keys()].filter((path) => /^docs\/adr\/\d/.test(path));
  const numbers = records.map((path) => /^docs\/adr\/(\d{4})-/.exec(path)?.[1]);
  return records.flatMap((path, place) => {
    const number = numbers[place];
    if (number === undefined) return [{ path, line: 1, found: "no four-digit number" }];
    if (numbers.indexOf(number) !== place) return [{ path, line: 1, found: `number ${number} is taken` }];
    const isListed = index === undefined || index.text.includes(path.slice("docs/adr/".length));
    return isListed ? [] : [{ path, line: 1, found: "not listed in docs/adr/README.md" }];
  });
}

const CATALOGUE = "export const ERROR_CATALOGUE = {\n  E_ONE: { meaning: \"\" },\n};\n";

export const DOCUMENT_RULES: readonly Rule[] = [
  { name: "services are known by name only in schemas, config, lab, tests, bench and docs",
    instead: "declare what differs in the service's file under schemas/", check: serviceFindings,
    bad: [{ "proxy/route.ts": "if (service.name === \"keystone\") run();" }, { "syncd/a.ts": "const novaRows = 1;" }],
    good: { "schemas/keystone.ts": "const name = \"keystone\";",
      "proxy/route.ts": "// measured on Keystone 22\nconst innovation = 1;" } },
  { name: `every error code of ${ERRORS_SOURCE} is explained in ${ERRORS_PAGE}, and the reverse`,
    instead: "add the missing section, or remove the stale one", check: errorFindings,
    bad: [{ [ERRORS_SOURCE]: CATALOGUE, [ERRORS_PAGE]: "# Errors\n" }, { [ERRORS_SOURCE]: CATALOGUE },
      { [ERRORS_SOURCE]: CATALOGUE, [ERRORS_PAGE]: "# Errors\n\n## E_ONE\n\n## E_TWO\n" }],
    good: { [ERRORS_SOURCE]: CATALOGUE, [ERRORS_PAGE]: "# Errors\n\n## E_ONE\n" } },
  { name: "every error code that is mentioned exists", check: mentionFindings,
    instead: "correct the code, or add it to the catalogue",
    bad: [{ [ERRORS_SOURCE]: CATALOGUE, "rows/a.ts": "/** Throws E_OEN. */" }],
    good: { [ERRORS_SOURCE]: CATALOGUE, "rows/a.ts": "/** Throws E_ONE. */" } },
  { name: "every page has exactly one title", instead: "use ## below the first", check: titleFindings,
    bad: [{ "docs/a.md": "# One\n\n# Two\n" }, { "docs/a.md": "Text\n" }],
    good: { "docs/a.md": "# One\n\n```sh\n# a comment\n```\n" } },
  { name: "no page links to a file that is not there", instead: "correct the link", check: linkFindings,
    bad: [{ "docs/a.md": "[b](b.md)" }],
    good: { "docs/a.md": "[b](../docs/b.md#part) [c](https://example.org/c.md)", "docs/b.md": "# B" } },
  { name: "decision records have unique numbers and are listed", check: recordFindings,
    instead: "take the next free number and list it",
    bad: [{ "docs/adr/README.md": "", "docs/adr/0001-a.md": "" },
      { "docs/adr/0001-a.md": "", "docs/adr/0001-b.md": "" }],
    good: { "docs/adr/README.md": "[1](0001-a.md)", "docs/adr/0001-a.md": "" } },
];
