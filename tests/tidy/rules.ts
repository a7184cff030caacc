/**
 * Every rule of the house that a machine can judge, in one table. Adding one: write its check beside its relatives, with a
 * sample it must refuse and one it must accept; tests/tidy.test.ts does the rest.
 */
import { DOCUMENT_RULES } from "./documents.ts";
import { STRUCTURE_RULES } from "./structure.ts";
import type { Finding, Rule } from "./tree.ts";
import { WORD_RULES } from "./words.ts";

/** All rules. */
export const RULES: readonly Rule[] = [...STRUCTURE_RULES, ...WORD_RULES, ...DOCUMENT_RULES];

/** One line per finding, "path:line: what was found", and the way out. */
export function messageOf(rule: Rule, findings: readonly Finding[]): string {
  const lines = findings.map(({ path, line, found }) => `  ${path}:${line}: ${found}`);
  return `${rule.name}\n${lines.join("\n")}\n  instead: ${rule.instead}`;
}
